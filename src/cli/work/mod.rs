//! `tenfold work`: takes leases and executes COMMAND once per run.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;

use super::exit::{Complaint, Exit};
use super::values;
use crate::limits;

pub(crate) const EXAMPLE: &str = "\
{} in an argument is the task's key, or its number where there are no keys. The environment has TENFOLD_CAMPAIGN,
TENFOLD_TASK, TENFOLD_KEY, TENFOLD_LEASE, and in numbered campaigns (create --seed) TENFOLD_RUN and TENFOLD_SEED.
COMMAND ends with 0: done. With 75: given back, for others to try. Else: failed, with the last line of its stderr.

Example:
  tenfold work ising -j 8 --until-done -- ./simulate --temperature {}";

/// Arguments of `tenfold work`.
#[derive(Debug, Args)]
pub(crate) struct WorkArguments {
    /// Campaigns to work on [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Runs at a time
    #[arg(short, long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::LEASES_PER_SESSION_MAX)))]
    jobs: u32,
    /// End when all is settled, instead of waiting for more work
    #[arg(long)]
    until_done: bool,
    /// This worker's name, for people [default: HOST:PID]
    #[arg(long, value_name = "HOST:PID")]
    name: Option<String>,
    /// Kill a run after this long; it can only shorten the campaign's timeout
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    timeout: Option<Duration>,
    /// Runs of one task to take at a time; worth raising for runs of a few milliseconds
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::LEASE_RUNS_MAX)))]
    runs_per_lease: u32,
    /// At the end, wait this long for the server to answer the last reports
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = values::duration)]
    grace: Duration,
    /// What to execute, once per run
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Works.
pub(crate) fn work(arguments: WorkArguments, servers: Vec<String>, verbose: bool) -> Result<Exit, Complaint> {
    let _ = (arguments, servers, verbose);
    Err(Complaint::new(Exit::Failed, "not built yet"))
}
