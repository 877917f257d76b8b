//! `tenfold counts`: the counts of every task of a campaign, page by page.
//!
//! One page is asked for, written out and forgotten before the next, so a campaign of a billion tasks needs no more memory
//! than a small one. All counts are durable; work goes on between two pages, so a table of a running campaign is not one
//! moment's. If a page cannot be had, the output ends without its closing bracket and the exit code is not 0: what is cut
//! short never looks complete. Tested in this file and by `tests/cli_control.rs`.

use std::io::{self, Write};

use clap::Args;

use super::control::{self, PatienceArguments};
use super::exit::{Complaint, Exit};
use super::json::{COUNTS_SCHEMA, Task};
use super::output::{self, printable};
use crate::client::Control;
use crate::types::{CampaignStatus, Tasks};

pub(crate) const EXAMPLE: &str = "\
Example:
  tenfold counts ising
  tenfold counts ising --csv > counts.csv
  tenfold counts ising --json | jq '.tasks[] | select(.done < .runs)'";

/// Arguments of `tenfold counts`.
#[derive(Debug, Args)]
pub(crate) struct CountsArguments {
    /// The campaign
    name: String,
    /// One JSON object, one task a line
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Comma-separated values with a header
    #[arg(long)]
    csv: bool,
    #[command(flatten)]
    patience: PatienceArguments,
}

/// Shows the counts.
pub(crate) fn counts(arguments: CountsArguments, servers: Vec<String>) -> Result<Exit, Complaint> {
    let control = Control::new(servers, arguments.patience.patience);
    control::block_on(stream(&arguments, &control))?
}

async fn stream(arguments: &CountsArguments, control: &Control) -> Result<Exit, Complaint> {
    let name = arguments.name.as_str();
    let campaigns = control.status(Some(name)).await?;
    let Some(campaign) = campaigns.first() else {
        return Err(Complaint::new(Exit::NotFound, format!("there is no campaign named {name:?}")));
    };
    let out = output::data_writer();
    let mut sheet: Box<dyn Sheet> = match (arguments.json, arguments.csv) {
        (true, _) => Box::new(JsonSheet::begin(out, name)?),
        (false, true) => Box::new(CsvSheet::begin(out)),
        (false, false) => Box::new(TableSheet::begin(out, campaign)?),
    };
    let mut from = Some(0);
    while let Some(index) = from {
        let page = control.counts_page(name, index).await?;
        for (key, count) in page.tasks {
            sheet.row(Task::new(page.first, page.runs, key, count))?;
        }
        // A page that leads back would go on for ever.
        from = page.next.filter(|next| *next > index);
    }
    sheet.end()?;
    Ok(Exit::Ok)
}

/// A form of output that takes one task after the other.
trait Sheet {
    fn row(&mut self, task: Task) -> io::Result<()>;
    fn end(&mut self) -> io::Result<()>;
}

struct JsonSheet<Out> {
    out: Out,
    empty: bool,
}

impl<Out: Write> JsonSheet<Out> {
    fn begin(mut out: Out, campaign: &str) -> io::Result<Self> {
        let campaign = serde_json::to_string(campaign)?;
        write!(out, "{{\"schema\":\"{COUNTS_SCHEMA}\",\"campaign\":{campaign},\"tasks\":[")?;
        Ok(Self { out, empty: true })
    }
}

impl<Out: Write> Sheet for JsonSheet<Out> {
    fn row(&mut self, task: Task) -> io::Result<()> {
        self.out.write_all(if self.empty { b"\n" } else { b",\n" })?;
        self.empty = false;
        serde_json::to_writer(&mut self.out, &task)?;
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        self.out.write_all(b"\n]}\n")?;
        self.out.flush()
    }
}

struct CsvSheet<Out: Write>(csv::Writer<Out>);

impl<Out: Write> CsvSheet<Out> {
    fn begin(out: Out) -> Self {
        // The header comes from the fields of the first task.
        Self(csv::Writer::from_writer(out))
    }
}

impl<Out: Write> Sheet for CsvSheet<Out> {
    fn row(&mut self, task: Task) -> io::Result<()> {
        self.0.serialize(task).map_err(|error| {
            // A broken pipe must stay one, so that it ends quietly.
            if let csv::ErrorKind::Io(inner) = error.kind() {
                return io::Error::new(inner.kind(), error);
            }
            io::Error::other(error)
        })
    }

    fn end(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Columns of fixed width, so that rows can leave before the last one is known.
struct TableSheet<Out> {
    out: Out,
    task_width: usize,
    run_width: usize,
    keyed: bool,
}

impl<Out: Write> TableSheet<Out> {
    fn begin(mut out: Out, campaign: &CampaignStatus) -> io::Result<Self> {
        let tasks = campaign.spec.tasks;
        let last = tasks.first() + u64::from(tasks.count());
        let task_width = last.to_string().len().max("TASK".len());
        let run_width = campaign.spec.runs.to_string().len().max("LENT".len()) + 1;
        let keyed = matches!(tasks, Tasks::Keys { .. });
        let header = format!(
            "{:>task_width$} {:>run_width$} {:>run_width$} {:>run_width$} {:>6} {:>6} {:>6}  {:<11}  {}",
            "TASK",
            "DONE",
            "OF",
            "LENT",
            "EXTRA",
            "ERRORS",
            "LOST",
            "STATE",
            if keyed { "KEY, LAST ERROR" } else { "LAST ERROR" }
        );
        writeln!(out, "{}", header.trim_end())?;
        Ok(Self { out, task_width, run_width, keyed })
    }
}

impl<Out: Write> Sheet for TableSheet<Out> {
    fn row(&mut self, task: Task) -> io::Result<()> {
        let Self { task_width, run_width, .. } = *self;
        let key = task.key.as_deref().filter(|_| self.keyed).map(printable);
        let error = task.last_error.as_deref().map(printable);
        let texts = [key, error].into_iter().flatten().collect::<Vec<_>>().join("  ");
        let row = format!(
            "{:>task_width$} {:>run_width$} {:>run_width$} {:>run_width$} {:>6} {:>6} {:>6}  {:<11}  {}",
            task.task, task.done, task.runs, task.leased, task.extra, task.errors, task.lost, task.state, texts
        );
        writeln!(self.out, "{}", row.trim_end())
    }

    fn end(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(number: u64, key: Option<&str>, last_error: Option<&str>) -> Task {
        Task {
            task: number,
            key: key.map(str::to_owned),
            done: 1,
            extra: 0,
            leased: 2,
            runs: 10,
            state: "open",
            errors: 3,
            lost: 0,
            last_error: last_error.map(str::to_owned),
        }
    }

    #[test]
    fn json_is_one_object_of_any_length() {
        for count in 0..3_u64 {
            let mut out = Vec::new();
            let mut sheet = JsonSheet::begin(&mut out, "a\"b").unwrap();
            for number in 0..count {
                sheet.row(task(number, None, None)).unwrap();
            }
            sheet.end().unwrap();
            let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(value["schema"], "tenfold.counts.v1");
            assert_eq!(value["campaign"], "a\"b");
            assert_eq!(value["tasks"].as_array().unwrap().len() as u64, count);
        }
    }

    #[test]
    fn json_cut_short_does_not_parse() {
        let mut out = Vec::new();
        JsonSheet::begin(&mut out, "a").unwrap().row(task(0, None, None)).unwrap();
        assert!(serde_json::from_slice::<serde_json::Value>(&out).is_err());
    }

    #[test]
    fn csv_has_a_header_and_quotes() {
        let mut out = Vec::new();
        let mut sheet = CsvSheet::begin(&mut out);
        sheet.row(task(7, Some("a,b"), Some("say \"no\""))).unwrap();
        sheet.row(task(8, None, None)).unwrap();
        sheet.end().unwrap();
        drop(sheet);
        let expected = "task,key,done,extra,leased,runs,state,errors,lost,last_error\n\
                        7,\"a,b\",1,0,2,10,open,3,0,\"say \"\"no\"\"\"\n8,,1,0,2,10,open,3,0,\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
