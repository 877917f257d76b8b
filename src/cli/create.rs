//! `tenfold create`: makes a campaign of numbers or of lines, once, however often it is told.
//!
//! The creation's id is made from what it says ([`creation_id`]), so running the same command again finds what the first
//! one made. Lines are read and checked here before anything is sent, so that what is wrong with them is said by line
//! number. Nothing is skipped: an empty line is refused. Tested in this file and by `tests/cli_control.rs`.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use sha2::{Digest, Sha256};

use super::control::{self, PatienceArguments};
use super::exit::{Complaint, Exit};
use super::output::{self, counted, grouped, printable};
use super::values::{self, OrNone};
use crate::client::Control;
use crate::limits;
use crate::types::{CampaignSpec, CreationId, Order, Tasks};

pub(crate) const EXAMPLE: &str = "\
Example:
  tenfold create ising --range 0..1000 --runs 10 --seed 42
  find images -name '*.png' | tenfold create images --lines - --timeout 5m";

/// Arguments of `tenfold create`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("tasks").required(true))]
pub(crate) struct CreateArguments {
    /// The campaign's name
    name: String,
    /// Tasks are the numbers from FIRST on, END not among them: 0..1000 is 0 … 999
    #[arg(long, group = "tasks", value_name = "FIRST..END", value_parser = values::range)]
    range: Option<Tasks>,
    /// Tasks are the lines of FILE (or - for stdin): keys of 1 to 1,024 bytes, none twice, none empty
    #[arg(long, group = "tasks", value_name = "FILE")]
    lines: Option<PathBuf>,
    /// Runs that every task is to get
    #[arg(long, default_value_t = 10, value_name = "N")]
    runs: u32,
    /// Number the runs, and give each a seed that follows from S, its task and its number alone
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// The order in which tasks go out: all runs of the lowest first, or all tasks evenly
    #[arg(long, value_enum, default_value_t = OrderArgument::Lowest)]
    order: OrderArgument,
    /// How long a worker may be silent before its runs go to others [default: the server's]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    lease: Option<Duration>,
    /// How long one run may take, or none
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = values::duration_or_none)]
    timeout: OrNone<Duration>,
    /// Failures after which a task is set aside (quarantined), or none
    #[arg(long, value_name = "N", default_value = "3", value_parser = values::count_or_none)]
    max_errors: OrNone<u32>,
    /// Lost runs (vanished or hung workers) after which a task is set aside, or none
    #[arg(long, value_name = "N", default_value = "none", value_parser = values::count_or_none)]
    max_lost: OrNone<u32>,
    #[command(flatten)]
    patience: PatienceArguments,
}

/// In which order tasks go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OrderArgument {
    /// The lowest task first, all its runs before the next task's
    Lowest,
    /// Every task's k-th run before any task's next
    Even,
}

/// Creates the campaign.
pub(crate) fn create(arguments: CreateArguments, servers: Vec<String>) -> Result<Exit, Complaint> {
    let (tasks, keys) = match (arguments.range, &arguments.lines) {
        (Some(range), _) => (range, Vec::new()),
        (None, Some(path)) => {
            let keys = read_lines(path)?;
            (Tasks::Keys { count: u32::try_from(keys.len()).unwrap_or(u32::MAX) }, keys)
        }
        (None, None) => return Err(Complaint::new(Exit::Usage, "either --range or --lines is needed")),
    };
    let spec = CampaignSpec {
        name: arguments.name,
        tasks,
        runs: arguments.runs,
        seed: arguments.seed,
        order: match arguments.order {
            OrderArgument::Lowest => Order::Lowest,
            OrderArgument::Even => Order::Even,
        },
        lease_ms: arguments.lease.map(values::milliseconds),
        timeout_ms: arguments.timeout.0.map(values::milliseconds),
        errors_max: arguments.max_errors.0,
        losses_max: arguments.max_lost.0,
    };
    spec.check().map_err(|error| Complaint::new(Exit::Usage, error))?;
    if spec.timeout_ms.is_none() {
        output::warning("without a timeout, a run that hangs keeps its task from ever being done");
    }
    let creation = creation_id(&spec, &keys);
    let control = Control::new(servers, arguments.patience.patience);
    let created = control::block_on(control.create(creation, &spec, &keys))??;
    let name = &spec.name;
    let what = describe(&spec);
    if created.existed {
        output::data(format!("campaign {name} was there already, by the very same creation: {what}"))?;
    } else {
        output::data(format!("created campaign {name}: {what}"))?;
    }
    Ok(Exit::Ok)
}

/// `1,000 tasks: 0 … 999, 10,000 runs`: what was understood, since a range leaves its end out.
pub(crate) fn describe(spec: &CampaignSpec) -> String {
    let count = u64::from(spec.tasks.count());
    let first = spec.tasks.first();
    let numbers = match count {
        0 | 1 => grouped(first),
        _ => format!("{} … {}", grouped(first), grouped(first + count - 1)),
    };
    let runs = u128::from(count) * u128::from(spec.runs);
    // A billion tasks of a billion runs fit easily.
    let runs = counted(u64::try_from(runs).unwrap_or(u64::MAX), "run");
    format!("{}: {numbers}, {runs}", counted(count, "task"))
}

/// Names a creation by what it says: the first 16 bytes of SHA-256 over all settings and keys.
///
/// So the very same command, run again because its answer was lost, is the very same creation, and another one of the same
/// name is a conflict. Every field has a fixed width or its length in front, so different creations never read the same.
fn creation_id(spec: &CampaignSpec, keys: &[String]) -> CreationId {
    // Field by field, so that a new setting cannot be forgotten here.
    let CampaignSpec { name, tasks, runs, seed, order, lease_ms, timeout_ms, errors_max, losses_max } = spec;
    let mut hash = Sha256::new();
    let text = |hash: &mut Sha256, text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    let optional = |hash: &mut Sha256, number: Option<u64>| {
        hash.update([u8::from(number.is_some())]);
        hash.update(number.unwrap_or(0).to_le_bytes());
    };
    hash.update(b"tenfold creation 1\0");
    text(&mut hash, name);
    hash.update(match tasks {
        Tasks::Range { .. } => [0],
        Tasks::Keys { .. } => [1],
    });
    hash.update(tasks.first().to_le_bytes());
    hash.update(tasks.count().to_le_bytes());
    hash.update(runs.to_le_bytes());
    optional(&mut hash, *seed);
    hash.update(match order {
        Order::Lowest => [0],
        Order::Even => [1],
    });
    optional(&mut hash, *lease_ms);
    optional(&mut hash, *timeout_ms);
    optional(&mut hash, errors_max.map(u64::from));
    optional(&mut hash, losses_max.map(u64::from));
    for key in keys {
        text(&mut hash, key);
    }
    let digest = hash.finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    CreationId(id)
}

/// Reads the keys from a file, or from stdin for `-`.
fn read_lines(path: &Path) -> Result<Vec<String>, Complaint> {
    let (name, bytes) = if path == Path::new("-") {
        let mut bytes = Vec::new();
        let read = io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes);
        ("stdin".to_owned(), read)
    } else {
        (path.display().to_string(), fs::read(path))
    };
    let bytes = bytes.map_err(|error| Complaint::new(Exit::Failed, format!("cannot read {name}: {error}")))?;
    keys_of(bytes).map_err(|bad| {
        Complaint::new(Exit::Usage, format!("{name}: {bad}")).hint(match bad {
            BadLine::Twice { .. } => "sort -u leaves every line once",
            BadLine::Empty { .. } => "grep -v '^$' leaves empty lines out",
            BadLine::NoLines | BadLine::TooLong { .. } | BadLine::NotText { .. } | BadLine::TooMany => {
                "a line is a task's key: 1 to 1,024 bytes of UTF-8"
            }
        })
    })
}

/// Why lines cannot be keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadLine {
    #[error("there are no lines")]
    NoLines,
    #[error("line {line} is empty")]
    Empty { line: usize },
    #[error("line {line} has {bytes} bytes; a key has at most {}", limits::KEY_BYTES_MAX)]
    TooLong { line: usize, bytes: usize },
    #[error("line {line} is not a text: {why}")]
    NotText { line: usize, why: &'static str },
    #[error("lines {first} and {second} are the same: {key}")]
    Twice { first: usize, second: usize, key: String },
    #[error("there are more than {} lines", limits::TASKS_MAX)]
    TooMany,
}

/// The lines as keys. A line ends with `\n` or `\r\n`, the last one perhaps with nothing. Nothing is skipped: task numbers
/// are line numbers less one.
pub(super) fn keys_of(bytes: Vec<u8>) -> Result<Vec<String>, BadLine> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if bytes.is_empty() {
        return Err(BadLine::NoLines);
    }
    let mut keys = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let number = index + 1;
        if number > limits::TASKS_MAX as usize {
            return Err(BadLine::TooMany);
        }
        if line.is_empty() {
            return Err(BadLine::Empty { line: number });
        }
        if line.len() > limits::KEY_BYTES_MAX {
            return Err(BadLine::TooLong { line: number, bytes: line.len() });
        }
        let key = std::str::from_utf8(line).map_err(|_| BadLine::NotText { line: number, why: "it is not UTF-8" })?;
        if key.contains('\0') {
            return Err(BadLine::NotText { line: number, why: "it has a NUL character" });
        }
        if key.contains('\r') {
            return Err(BadLine::NotText { line: number, why: "it has a carriage return in it" });
        }
        keys.push(key.to_owned());
    }
    let mut seen = HashMap::with_capacity(keys.len());
    for (index, key) in keys.iter().enumerate() {
        if let Some(first) = seen.insert(key.as_str(), index) {
            return Err(BadLine::Twice { first: first + 1, second: index + 1, key: printable(key) });
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> CampaignSpec {
        CampaignSpec {
            name: "ising".to_owned(),
            tasks: Tasks::Range { first: 0, count: 1_000 },
            runs: 10,
            seed: None,
            order: Order::Lowest,
            lease_ms: None,
            timeout_ms: Some(3_600_000),
            errors_max: Some(3),
            losses_max: None,
        }
    }

    #[test]
    fn what_was_understood_is_said_in_words() {
        assert_eq!(describe(&spec()), "1,000 tasks: 0 … 999, 10,000 runs");
        let one = CampaignSpec { tasks: Tasks::Range { first: 5, count: 1 }, runs: 1, ..spec() };
        assert_eq!(describe(&one), "1 task: 5, 1 run");
        let many = CampaignSpec { tasks: Tasks::Keys { count: 1_000_000_000 }, runs: 1_000_000_000, ..spec() };
        assert_eq!(describe(&many), "1,000,000,000 tasks: 0 … 999,999,999, 1,000,000,000,000,000,000 runs");
    }

    #[test]
    fn the_very_same_creation_has_the_very_same_id_and_no_other_has() {
        // Frozen: a client of another release must name the same creation the same.
        assert_eq!(creation_id(&spec(), &[]).to_string(), "51b626134f4217339ee8b011c1a5fdbe");
        let keys = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let keyed = CampaignSpec { tasks: Tasks::Keys { count: 2 }, ..spec() };
        let variants = [
            creation_id(&spec(), &[]),
            creation_id(&CampaignSpec { name: "isinG".to_owned(), ..spec() }, &[]),
            creation_id(&CampaignSpec { tasks: Tasks::Range { first: 1, count: 1_000 }, ..spec() }, &[]),
            creation_id(&CampaignSpec { tasks: Tasks::Range { first: 0, count: 1_001 }, ..spec() }, &[]),
            creation_id(&CampaignSpec { tasks: Tasks::Keys { count: 1_000 }, ..spec() }, &[]),
            creation_id(&CampaignSpec { runs: 11, ..spec() }, &[]),
            creation_id(&CampaignSpec { seed: Some(0), ..spec() }, &[]),
            creation_id(&CampaignSpec { order: Order::Even, ..spec() }, &[]),
            creation_id(&CampaignSpec { lease_ms: Some(60_000), ..spec() }, &[]),
            creation_id(&CampaignSpec { timeout_ms: None, ..spec() }, &[]),
            creation_id(&CampaignSpec { errors_max: None, ..spec() }, &[]),
            creation_id(&CampaignSpec { losses_max: Some(3), ..spec() }, &[]),
            creation_id(&keyed, &keys(&["ab", "c"])),
            creation_id(&keyed, &keys(&["a", "bc"])),
            creation_id(&keyed, &keys(&["c", "ab"])),
        ];
        for (index, variant) in variants.iter().enumerate() {
            assert!(!variants[..index].contains(variant), "variant {index} is the same as an earlier one");
        }
    }

    #[test]
    fn lines_become_keys() {
        let keys = |text: &str| keys_of(text.as_bytes().to_vec());
        let expected = vec!["a".to_owned(), " b c ".to_owned()];
        for text in ["a\n b c \n", "a\n b c ", "a\r\n b c \r\n", "\u{feff}a\n b c \n"] {
            assert_eq!(keys(text).as_ref(), Ok(&expected), "{text:?}");
        }
        assert_eq!(keys(""), Err(BadLine::NoLines));
        assert_eq!(keys("\n"), Err(BadLine::NoLines));
        assert_eq!(keys("a\n\nb\n"), Err(BadLine::Empty { line: 2 }));
        assert_eq!(keys("a\n\n"), Err(BadLine::Empty { line: 2 }));
        assert_eq!(keys("a\nb\nc\nb\n"), Err(BadLine::Twice { first: 2, second: 4, key: "b".to_owned() }));
        let longest = "x".repeat(limits::KEY_BYTES_MAX);
        assert_eq!(keys(&longest), Ok(vec![longest.clone()]));
        assert_eq!(
            keys(&format!("a\n{longest}y\n")),
            Err(BadLine::TooLong { line: 2, bytes: limits::KEY_BYTES_MAX + 1 })
        );
        assert!(matches!(keys_of(b"a\n\xff\n".to_vec()), Err(BadLine::NotText { line: 2, .. })));
        assert!(matches!(keys("a\0\n"), Err(BadLine::NotText { line: 1, .. })));
        assert!(matches!(keys("a\rb\n"), Err(BadLine::NotText { line: 1, .. })));
    }
}
