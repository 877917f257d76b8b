//! `tenfold campaign`: lists campaigns, and orders that change one.

use clap::{Args, Subcommand};

use super::control::PatienceArguments;
use super::exit::{Complaint, Exit};

pub(crate) const EXAMPLE: &str = "\
Example:
  tenfold campaign list
  tenfold campaign pause ising";

const PAUSE: &str = "Example:\n  tenfold campaign pause ising";
const RESUME: &str = "Example:\n  tenfold campaign resume ising";
const CANCEL: &str = "Example:\n  tenfold campaign cancel ising";
const REQUEUE: &str = "Example:\n  tenfold counts ising | grep quarantined\n  tenfold campaign requeue ising";
const REMOVE: &str = "Example:\n  tenfold counts ising --csv > ising.csv\n  tenfold campaign rm ising";
const LIST: &str = "Example:\n  tenfold campaign list --json | jq -r '.campaigns[].name'";

/// Arguments of `tenfold campaign`.
#[derive(Debug, Args)]
pub(crate) struct CampaignArguments {
    #[command(subcommand)]
    order: OrderArguments,
}

#[derive(Debug, Subcommand)]
enum OrderArguments {
    /// List all campaigns, as `tenfold status` does
    #[command(after_help = LIST)]
    List {
        /// One JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        patience: PatienceArguments,
    },
    /// Lend no more runs until resumed; runs that are out still count
    #[command(after_help = PAUSE)]
    Pause(NamedArguments),
    /// Lend runs again
    #[command(after_help = RESUME)]
    Resume(NamedArguments),
    /// Lend no more runs, for good; workers are told to stop, what they still report counts
    #[command(after_help = CANCEL)]
    Cancel(NamedArguments),
    /// Open quarantined tasks again, with fresh budgets
    #[command(after_help = REQUEUE)]
    Requeue(NamedArguments),
    /// Remove a campaign that is settled, cancelled or paused, with all its counts
    #[command(after_help = REMOVE)]
    Rm(NamedArguments),
}

#[derive(Debug, Args)]
struct NamedArguments {
    /// The campaign
    name: String,
    #[command(flatten)]
    patience: PatienceArguments,
}

/// Carries out the order.
pub(crate) fn campaign(arguments: CampaignArguments, servers: Vec<String>) -> Result<Exit, Complaint> {
    let _ = (arguments, servers);
    Err(Complaint::new(Exit::Failed, "not built yet"))
}
