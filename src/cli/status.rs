//! `tenfold status`: campaigns and how far they are, as a table, one in detail, or JSON; once or again and again.
//!
//! Progress is counted in runs, not in tasks: with tasks taken evenly, all of them are done at the very end. What is shown
//! is durable. `--watch` redraws on a terminal and else prints only what changed. Tested in this file and by
//! `tests/cli_control.rs`.

use std::time::Duration;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};

use super::control::{self, PatienceArguments};
use super::create::describe;
use super::exit::{Complaint, Exit};
use super::json::{self, runs_wanted};
use super::output::{self, counted, grouped};
use crate::client::{Control, ControlFailure};
use crate::types::{CampaignState, CampaignStatus, Order};

pub(crate) const EXAMPLE: &str = "\
Example:
  tenfold status
  tenfold status ising --watch
  tenfold status --json | jq '.campaigns[] | select(.finished | not) | .name'";

/// How often `--watch` asks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Arguments of `tenfold status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// Only this campaign, in detail
    pub(crate) name: Option<String>,
    /// One JSON object (with --watch one a line, whenever something changed)
    #[arg(long)]
    pub(crate) json: bool,
    /// Go on showing, until interrupted
    #[arg(long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) patience: PatienceArguments,
}

/// Shows the status.
pub(crate) fn status(arguments: StatusArguments, servers: Vec<String>) -> Result<Exit, Complaint> {
    let control = Control::new(servers, arguments.patience.patience);
    if arguments.watch {
        return control::block_on(watch(&arguments, &control))?;
    }
    let campaigns = control::block_on(control.status(arguments.name.as_deref()))??;
    if campaigns.is_empty() && !arguments.json {
        output::note("no campaigns yet; tenfold create makes one");
    } else {
        output::data(show(&arguments, &campaigns)?)?;
    }
    Ok(Exit::Ok)
}

async fn watch(arguments: &StatusArguments, control: &Control) -> Result<Exit, Complaint> {
    let redraws = output::stdout_is_terminal() && !arguments.json;
    let mut shown = None;
    let mut away = false;
    loop {
        match control.status(arguments.name.as_deref()).await {
            Ok(campaigns) => {
                if away && redraws {
                    // The note about it is on the screen.
                    shown = None;
                }
                away = false;
                let text = if redraws || arguments.json {
                    show(arguments, &campaigns)?
                } else {
                    campaigns.iter().map(line).collect::<Vec<_>>().join("\n")
                };
                if shown.as_ref() != Some(&text) {
                    if redraws {
                        output::redraw(&format!("{text}\n"))?;
                    } else if !text.is_empty() {
                        output::data(&text)?;
                    }
                    shown = Some(text);
                }
            }
            // A server that was seen once is waited for.
            Err(failure @ ControlFailure::Unreachable { .. }) if shown.is_some() => {
                if !away {
                    output::note(format!("{failure}; trying on"));
                }
                away = true;
            }
            Err(failure) => return Err(failure.into()),
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
        // While nothing changes nothing is written, so that a reader that left would never be noticed.
        if output::stdout_is_deserted() {
            return Ok(Exit::Ok);
        }
    }
}

fn show(arguments: &StatusArguments, campaigns: &[CampaignStatus]) -> Result<String, Complaint> {
    if arguments.json {
        return Ok(serde_json::to_string(&json::Status::new(campaigns)).map_err(anyhow::Error::from)?);
    }
    Ok(match (&arguments.name, campaigns) {
        (Some(_), [campaign]) => details(campaign),
        (_, campaigns) => table(campaigns),
    })
}

/// All campaigns, one a row.
pub(crate) fn table(campaigns: &[CampaignStatus]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["NAME", "STATE", "RUNS DONE", "OF", "", "TASKS DONE", "OF", "LENT", "EXTRA", "ERRORS", "LOST"]);
    for campaign in campaigns {
        table.add_row([
            campaign.spec.name.clone(),
            state(campaign),
            grouped(campaign.runs_done),
            grouped(runs_wanted(campaign)),
            percent(campaign.runs_done, runs_wanted(campaign)),
            grouped(campaign.tasks_done),
            grouped(u64::from(campaign.spec.tasks.count())),
            grouped(campaign.runs_leased),
            grouped(campaign.runs_extra),
            grouped(campaign.errors),
            grouped(campaign.losses),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    // Every cell is padded by one space: the first column's is in the way of `cut` and `awk`.
    let lines = table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

/// One campaign as one line: for logs.
fn line(campaign: &CampaignStatus) -> String {
    format!(
        "{}: {}, {} of {} ({}), {} lent, {}, {} lost",
        campaign.spec.name,
        state(campaign),
        grouped(campaign.runs_done),
        counted(runs_wanted(campaign), "run"),
        percent(campaign.runs_done, runs_wanted(campaign)),
        grouped(campaign.runs_leased),
        counted(campaign.errors, "error"),
        grouped(campaign.losses),
    )
}

/// One campaign with everything that is known about it.
fn details(campaign: &CampaignStatus) -> String {
    let spec = &campaign.spec;
    let duration = |ms: Option<u64>| match ms {
        Some(ms) => humantime::format_duration(Duration::from_millis(ms)).to_string(),
        None => "none".to_owned(),
    };
    let number = |number: Option<u32>| number.map_or("none".to_owned(), |number| grouped(number.into()));
    let kind = match spec.seed {
        Some(seed) => format!("numbered, seed {seed}"),
        None => "counted".to_owned(),
    };
    let order = match spec.order {
        Order::Lowest => "lowest",
        Order::Even => "even",
    };
    let wanted = runs_wanted(campaign);
    let rows = [
        ("campaign", spec.name.clone()),
        ("state", state(campaign)),
        ("what", describe(spec)),
        (
            "runs done",
            format!("{} of {} ({})", grouped(campaign.runs_done), grouped(wanted), percent(campaign.runs_done, wanted)),
        ),
        ("runs lent", grouped(campaign.runs_leased)),
        ("runs extra", grouped(campaign.runs_extra)),
        ("tasks done", format!("{} of {}", grouped(campaign.tasks_done), grouped(spec.tasks.count().into()))),
        ("quarantined", counted(campaign.tasks_quarantined, "task")),
        ("errors", format!("{} (a task is set aside after: {})", grouped(campaign.errors), number(spec.errors_max))),
        ("lost", format!("{} (a task is set aside after: {})", grouped(campaign.losses), number(spec.losses_max))),
        ("kind", kind),
        ("order", order.to_owned()),
        ("lease", duration(spec.lease_ms)),
        ("timeout", duration(spec.timeout_ms)),
    ];
    rows.map(|(name, value)| format!("{name:<12} {value}")).join("\n")
}

/// Where a campaign stands, in a word or two.
fn state(campaign: &CampaignStatus) -> String {
    match campaign.state {
        CampaignState::Cancelled => "cancelled".to_owned(),
        CampaignState::Creating => "creating".to_owned(),
        CampaignState::Running | CampaignState::Paused if campaign.finished => "finished".to_owned(),
        CampaignState::Running | CampaignState::Paused if campaign.settled => {
            format!("settled, {} quarantined", grouped(campaign.tasks_quarantined))
        }
        CampaignState::Running if campaign.tasks_quarantined > 0 => {
            format!("running, {} quarantined", grouped(campaign.tasks_quarantined))
        }
        CampaignState::Running => "running".to_owned(),
        CampaignState::Paused => "paused".to_owned(),
    }
}

/// Whole percents, rounded down: 100% is said only when it is all.
fn percent(part: u64, whole: u64) -> String {
    let percents = u128::from(part) * 100 / u128::from(whole.max(1));
    format!("{percents}%")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{CampaignId, CampaignSpec, Tasks};

    fn campaign() -> CampaignStatus {
        CampaignStatus {
            id: CampaignId(1),
            spec: CampaignSpec {
                name: "ising".to_owned(),
                tasks: Tasks::Range { first: 0, count: 1_000 },
                runs: 10,
                seed: None,
                order: Order::Lowest,
                lease_ms: Some(60_000),
                timeout_ms: Some(3_600_000),
                errors_max: Some(3),
                losses_max: None,
            },
            state: CampaignState::Running,
            settled: false,
            finished: false,
            tasks_done: 0,
            tasks_quarantined: 0,
            runs_done: 9_999,
            runs_extra: 0,
            runs_leased: 1,
            errors: 2,
            losses: 0,
        }
    }

    #[test]
    fn progress_is_of_runs_and_never_rounded_up() {
        let expected = "ising: running, 9,999 of 10,000 runs (99%), 1 lent, 2 errors, 0 lost";
        assert_eq!(line(&campaign()), expected);
        assert_eq!(percent(0, 0), "0%");
        assert_eq!(percent(u64::MAX, u64::MAX), "100%");
    }

    #[test]
    fn states_are_said_as_they_are() {
        let settled = CampaignStatus { settled: true, tasks_quarantined: 2, ..campaign() };
        assert_eq!(state(&settled), "settled, 2 quarantined");
        assert_eq!(state(&CampaignStatus { settled: true, finished: true, ..campaign() }), "finished");
        let cancelled = CampaignStatus { state: CampaignState::Cancelled, settled: true, ..campaign() };
        assert_eq!(state(&cancelled), "cancelled");
        assert_eq!(state(&CampaignStatus { state: CampaignState::Paused, ..campaign() }), "paused");
    }

    #[test]
    fn a_table_has_a_row_a_campaign() {
        let text = table(&[campaign(), CampaignStatus { finished: true, settled: true, ..campaign() }]);
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows.len(), 3, "{text}");
        assert_eq!(rows[1], ["ising", "running", "9,999", "10,000", "99%", "0", "1,000", "1", "0", "2", "0"], "{text}");
        assert!(details(&campaign()).contains("1,000 tasks: 0 … 999, 10,000 runs"));
    }
}
