//! What all commands that ask or order share: patience, an event loop, and what a failure means to their user.
//!
//! A control command gives up on servers that do not answer for `--patience`; asking again is safe, since the client
//! library sends every question and order so that a second one changes nothing. Tested by `tests/cli_control.rs`.

use std::future::Future;
use std::time::Duration;

use clap::Args;

use super::exit::{Complaint, Exit};
use super::output::printable;
use super::values;
use crate::client::ControlFailure;
use crate::protocol::messages::WireFailure;

/// How long to try to reach a server.
#[derive(Debug, Args)]
pub(crate) struct PatienceArguments {
    /// Give up on servers that do not answer for this long
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = values::duration)]
    pub(crate) patience: Duration,
}

/// Runs `work` to its end on this thread.
pub(crate) fn block_on<Output>(work: impl Future<Output = Output>) -> Result<Output, Complaint> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from)?;
    let output = runtime.block_on(work);
    // A thread that waits for a reader of our output must not keep the process.
    runtime.shutdown_background();
    Ok(output)
}

/// What the failure means: an exit code, and what to do.
impl From<ControlFailure> for Complaint {
    fn from(failure: ControlFailure) -> Self {
        match failure {
            ControlFailure::Unreachable { servers, last } => Self::new(
                Exit::Unreachable,
                format!("no server answers at {}: {}", servers.join(", "), printable(&last)),
            )
            .hint("start one with tenfold serve --data-dir DIR, or name another with -s or TENFOLD_SERVER"),
            ControlFailure::Failed { code, text, index: _ } => explain(code, &text),
            ControlFailure::Protocol(text) => Self::new(Exit::Failed, printable(&text)).hint(OTHER_VERSION),
        }
    }
}

/// What to do when client and server speak different versions, or one of them breaks its own.
pub(crate) const OTHER_VERSION: &str =
    "client and server do not understand each other; compare tenfold --version on both sides";

fn explain(code: WireFailure, text: &str) -> Complaint {
    let text = printable(text);
    match code {
        WireFailure::NotFound => Complaint::new(Exit::NotFound, text).hint("tenfold campaign list shows what there is"),
        WireFailure::Exists => Complaint::new(Exit::Conflict, text).hint(
            "choose another name, or make room for this one with tenfold campaign cancel and tenfold campaign rm",
        ),
        WireFailure::State => Complaint::new(Exit::Conflict, text),
        WireFailure::Spec | WireFailure::KeyBad | WireFailure::KeyTwice => Complaint::new(Exit::Usage, text),
        WireFailure::CreationUnknown | WireFailure::KeysOutOfOrder | WireFailure::KeysMissing => {
            Complaint::new(Exit::Failed, text).hint("the server may have restarted in the middle; run it again")
        }
        WireFailure::Full => Complaint::new(Exit::Failed, text).hint("tenfold campaign rm NAME makes room"),
        WireFailure::Draining => Complaint::new(Exit::Unreachable, text).hint("try again when it is back"),
        WireFailure::Damaged => Complaint::new(Exit::Failed, text)
            .hint("read the server's log, stop it, and run tenfold verify --data-dir DIR"),
    }
}
