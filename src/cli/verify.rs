//! `tenfold verify`: looks at a copy of a stopped server's data directory, says what it could and could not check, and writes
//! the state down if it is asked to.
//!
//! The checks and the lines are the store's; here they are printed. Damage ends with exit code 1, a directory in use with 6, both before
//! anything is on stdout. Tested by `tests/cli_control.rs`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::exit::{Complaint, Exit};
use super::json;
use super::output::{self, grouped};
use crate::store::{self, VerifiedState, VerifyReport};

pub(crate) const EXAMPLE: &str = "\
Example:
  tenfold verify --data-dir ./data
  tenfold verify --data-dir ./data --json | jq -r .digest
  tenfold verify --data-dir ./data --dump | grep '^lease .* state=live'";

/// Arguments of `tenfold verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// The data directory of a stopped server; it is not changed, a copy is looked at (in TMPDIR)
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Print the whole state instead, one line a row, and its digest (docs/CLI.md describes the lines)
    #[arg(long, conflicts_with = "json")]
    dump: bool,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

/// Checks it.
pub(crate) fn verify(arguments: VerifyArguments) -> Result<Exit, Complaint> {
    let (report, state) = store::verify_state(&arguments.data_dir)?;
    if arguments.dump {
        dump(&report, &state)?;
    } else if arguments.json {
        let object = json::Verify {
            schema: json::VERIFY_SCHEMA,
            format: report.format,
            instance: report.instance.to_string(),
            last_change: report.sequence,
            digest: &report.digest,
            checked: &report.checked,
            unchecked: &report.unchecked,
        };
        output::data(serde_json::to_string(&object).map_err(anyhow::Error::from)?)?;
    } else {
        sentences(&arguments, &report)?;
    }
    Ok(Exit::Ok)
}

fn sentences(arguments: &VerifyArguments, report: &VerifyReport) -> Result<(), Complaint> {
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
    output::data(format!("digest of the state: {}", report.digest))?;
    output::data(format!("{}: no damage found", arguments.data_dir.display()))?;
    Ok(())
}

fn dump(report: &VerifyReport, state: &VerifiedState) -> Result<(), Complaint> {
    let mut writer = output::data_writer();
    for line in state.lines() {
        writeln!(writer, "{line}")?;
    }
    writeln!(writer, "digest sha256={}", report.digest)?;
    writer.flush()?;
    Ok(())
}
