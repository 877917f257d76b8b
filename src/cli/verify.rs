//! `tenfold verify`: looks at a copy of a stopped server's data directory and says what it could and could not check.

use std::path::PathBuf;

use clap::Args;

use super::exit::{Complaint, Exit};

pub(crate) const EXAMPLE: &str = "\
Example:
  tenfold verify --data-dir ./data";

/// Arguments of `tenfold verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// The data directory of a stopped server; it is not changed
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

/// Checks it.
pub(crate) fn verify(arguments: VerifyArguments) -> Result<Exit, Complaint> {
    let _ = arguments;
    Err(Complaint::new(Exit::Failed, "not built yet"))
}
