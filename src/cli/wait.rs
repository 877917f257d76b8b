//! `tenfold wait`: returns when a campaign is settled, and says by its exit code how.

use std::time::Duration;

use clap::Args;

use super::exit::{Complaint, Exit};
use super::values;

pub(crate) const EXAMPLE: &str = "\
Exit codes: 0 finished, 10 settled with quarantined tasks, 11 cancelled, 7 timed out, 5 no such campaign.
A server that is away is waited for.

Example:
  tenfold wait ising --timeout 2h && ./plot.sh";

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
    let _ = (arguments, servers);
    Err(Complaint::new(Exit::Failed, "not built yet"))
}
