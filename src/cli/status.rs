//! `tenfold status`: campaigns and how far they are.

use clap::Args;

use super::control::PatienceArguments;
use super::exit::{Complaint, Exit};

pub(crate) const EXAMPLE: &str = "\
Example:
  tenfold status
  tenfold status ising --watch
  tenfold status --json | jq '.campaigns[] | select(.finished | not) | .name'";

/// Arguments of `tenfold status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// Only this campaign, in detail
    pub(crate) name: Option<String>,
    /// One JSON object (with --watch one a line)
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
    let _ = (arguments, servers);
    Err(Complaint::new(Exit::Failed, "not built yet"))
}
