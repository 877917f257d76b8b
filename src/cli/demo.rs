//! `tenfold demo`: not here yet.

/// Arguments of `tenfold demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tenfold demo")]
pub struct DemoArguments {}

/// Shows the main job.
///
/// # Errors
/// Always.
pub fn demo(_arguments: DemoArguments) -> anyhow::Result<()> {
    anyhow::bail!("this build has no demo yet")
}
