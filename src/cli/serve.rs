//! `tenfold serve`: not here yet.

/// Arguments of `tenfold serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tenfold serve --data-dir ./data")]
pub struct ServeArguments {}

/// Serves.
///
/// # Errors
/// Always.
pub fn serve(_arguments: ServeArguments) -> anyhow::Result<()> {
    anyhow::bail!("this build cannot serve yet")
}
