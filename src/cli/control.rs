//! What all commands that ask or order share: their patience with a server that does not answer.

use std::time::Duration;

use clap::Args;

use super::values;

/// How long to try to reach a server.
#[derive(Debug, Args)]
pub(crate) struct PatienceArguments {
    /// Give up on servers that do not answer for this long
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = values::duration)]
    pub(crate) patience: Duration,
}
