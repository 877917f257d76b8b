//! `tenfold counts`: the counts of every task of a campaign, page by page.

use clap::Args;

use super::control::PatienceArguments;
use super::exit::{Complaint, Exit};

pub(crate) const EXAMPLE: &str = "\
Example:
  tenfold counts ising
  tenfold counts ising --csv > counts.csv
  tenfold counts ising --json | jq '.tasks[] | select(.done < .runs)'";

/// Arguments of `tenfold counts`.
#[derive(Debug, Args)]
pub(crate) struct CountsArguments {
    /// The campaign
    name: String,
    /// One JSON object, one task a line
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Comma-separated values with a header
    #[arg(long)]
    csv: bool,
    #[command(flatten)]
    patience: PatienceArguments,
}

/// Shows the counts.
pub(crate) fn counts(arguments: CountsArguments, servers: Vec<String>) -> Result<Exit, Complaint> {
    let _ = (arguments, servers);
    Err(Complaint::new(Exit::Failed, "not built yet"))
}
