//! `tenfold campaign`: lists campaigns, and gives the orders that change one.
//!
//! Every order may be given twice: what is paused stays paused. Tested by `tests/cli_control.rs`.

use clap::{Args, Subcommand};

use super::control::{self, PatienceArguments};
use super::exit::{Complaint, Exit};
use super::output::{self, counted};
use super::status::{self, StatusArguments};
use crate::client::{Control, ControlFailure};

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
    match arguments.order {
        OrderArguments::List { json, patience } => {
            status::status(StatusArguments { name: None, json, watch: false, patience }, servers)
        }
        OrderArguments::Pause(named) => {
            order(&named, servers, async |control, name| control.pause(name).await, |_| "paused".to_owned())
        }
        OrderArguments::Resume(named) => {
            order(&named, servers, async |control, name| control.resume(name).await, |_| "resumed".to_owned())
        }
        OrderArguments::Cancel(named) => {
            order(&named, servers, async |control, name| control.cancel(name).await, |_| "cancelled".to_owned())
        }
        OrderArguments::Requeue(named) => {
            let opened = |tasks| format!("opened {} again", counted(tasks, "task"));
            order(&named, servers, async |control, name| control.requeue(name).await, opened)
        }
        OrderArguments::Rm(named) => {
            order(&named, servers, async |control, name| control.remove(name).await, |_| "removed".to_owned())
        }
    }
}

/// Gives one order and says what came of it.
fn order(
    named: &NamedArguments,
    servers: Vec<String>,
    give: impl AsyncFnOnce(&Control, &str) -> Result<u64, ControlFailure>,
    say: impl FnOnce(u64) -> String,
) -> Result<Exit, Complaint> {
    let control = Control::new(servers, named.patience.patience);
    let tasks = control::block_on(give(&control, &named.name))??;
    output::data(format!("{}: {}", named.name, say(tasks)))?;
    Ok(Exit::Ok)
}
