//! `tenfold guard`: not here yet.

use std::ffi::OsString;

use clap::Args;

use super::exit::{Complaint, Exit};

pub(crate) const EXAMPLE: &str = "\
Example:
  tenfold guard -- ./simulate 17";

/// Arguments of `tenfold guard`.
#[derive(Debug, Args)]
pub(crate) struct GuardArguments {
    /// The command of the run
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Executes one run.
pub(crate) fn guard(arguments: GuardArguments) -> Result<Exit, Complaint> {
    let _ = arguments;
    Err(Complaint::new(Exit::Failed, "not built yet"))
}
