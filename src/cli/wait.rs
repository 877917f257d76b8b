//! `tenfold wait`: returns when a campaign is settled, and says by its exit code how.
//!
//! It asks again and again (the protocol has no subscription for this), first often, then every two seconds. A server that
//! is away is waited for, as by `tenfold work`: waiting for something that takes days must survive a restart. Tested by
//! `tests/cli_control.rs`.

use std::time::Duration;

use clap::Args;

use super::control;
use super::create::describe;
use super::exit::{Complaint, Exit};
use super::output::{self, counted, printable};
use super::values;
use crate::client::{Control, ControlFailure};
use crate::types::{CampaignState, CampaignStatus};

pub(crate) const EXAMPLE: &str = "\
Exit codes: 0 finished, 10 settled with quarantined tasks, 11 cancelled, 7 timed out, 5 no such campaign.
A server that is away is waited for.

Example:
  tenfold wait ising --timeout 2h && ./plot.sh";

/// The first and the longest pause between two questions; it doubles in between.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How long one question tries to reach a server before that is said.
const PATIENCE: Duration = Duration::from_secs(5);

/// Arguments of `tenfold wait`.
#[derive(Debug, Args)]
pub(crate) struct WaitArguments {
    /// The campaign
    name: String,
    /// Give up after this long, with exit code 7 [default: never]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    timeout: Option<Duration>,
}

/// Waits.
pub(crate) fn wait(arguments: WaitArguments, servers: Vec<String>) -> Result<Exit, Complaint> {
    let control = Control::new(servers, PATIENCE);
    let settled = settled(&control, &arguments.name);
    control::block_on(async {
        match arguments.timeout {
            None => settled.await,
            Some(limit) => tokio::time::timeout(limit, settled).await.unwrap_or_else(|_| {
                let limit = humantime::format_duration(limit);
                Err(Complaint::new(Exit::TimedOut, format!("{} is not settled after {limit}", arguments.name))
                    .hint(format!("tenfold status {} shows what is missing", arguments.name)))
            }),
        }
    })?
}

async fn settled(control: &Control, name: &str) -> Result<Exit, Complaint> {
    let mut pause = PAUSE_MIN;
    let mut away = false;
    loop {
        match control.status(Some(name)).await {
            Ok(campaigns) => {
                if away {
                    output::note("the server is back");
                    away = false;
                }
                let Some(campaign) = campaigns.first() else {
                    return Err(Complaint::new(Exit::NotFound, format!("there is no campaign named {name:?}")));
                };
                if campaign.settled {
                    return conclude(campaign);
                }
            }
            Err(ControlFailure::Unreachable { servers, last }) => {
                if !away {
                    let servers = servers.join(", ");
                    output::note(format!("no server answers at {servers} ({}); trying on", printable(&last)));
                }
                away = true;
            }
            Err(failure @ (ControlFailure::Failed { .. } | ControlFailure::Protocol(_))) => return Err(failure.into()),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Says how the campaign settled.
fn conclude(campaign: &CampaignStatus) -> Result<Exit, Complaint> {
    let name = &campaign.spec.name;
    if campaign.finished {
        output::data(format!("{name} is finished: {}", describe(&campaign.spec)))?;
        return Ok(Exit::Ok);
    }
    let missing = super::json::runs_wanted(campaign).saturating_sub(campaign.runs_done);
    let missing = counted(missing, "run");
    if campaign.state == CampaignState::Cancelled {
        output::data(format!("{name} was cancelled; {missing} missing"))?;
        return Ok(Exit::Cancelled);
    }
    let quarantined = counted(campaign.tasks_quarantined, "task");
    output::data(format!("{name} is settled, but {quarantined} quarantined; {missing} missing"))?;
    Ok(Exit::Quarantined)
}
