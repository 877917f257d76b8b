//! `tenfold verify`: looks at a copy of a stopped server's data directory and says what it could and could not check.
//!
//! The checks are the store's; here they are printed. Damage ends with exit code 1, a directory in use with 6. Tested by
//! `tests/cli_control.rs`.

use std::path::PathBuf;

use clap::Args;

use super::exit::{Complaint, Exit};
use super::output::{self, grouped};
use crate::store;

pub(crate) const EXAMPLE: &str = "\
Example:
  tenfold verify --data-dir ./data";

/// Arguments of `tenfold verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// The data directory of a stopped server; it is not changed, a copy is looked at (in TMPDIR)
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

/// Checks it.
pub(crate) fn verify(arguments: VerifyArguments) -> Result<Exit, Complaint> {
    let report = store::verify(&arguments.data_dir)?;
    output::data(format!(
        "format {}, instance {}, last change {}",
        report.format,
        report.instance,
        grouped(report.sequence)
    ))?;
    for sentence in &report.checked {
        output::data(format!("checked: {sentence}"))?;
    }
    for sentence in &report.unchecked {
        output::data(format!("not checked: {sentence}"))?;
    }
    output::data(format!("{}: no damage found", arguments.data_dir.display()))?;
    Ok(Exit::Ok)
}
