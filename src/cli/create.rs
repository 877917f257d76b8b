//! `tenfold create`: makes a campaign of numbers or of lines, once.

use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};

use super::control::PatienceArguments;
use super::exit::{Complaint, Exit};
use super::values::{self, OrNone};
use crate::types::Tasks;

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
    lines: Option<std::path::PathBuf>,
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
    let _ = (arguments, servers);
    Err(Complaint::new(Exit::Failed, "not built yet"))
}
