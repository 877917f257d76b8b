//! The command line: what can be said, and which file does it. One file a subcommand.
//!
//! ```text
//!   arguments ──▶ Cli (clap) ──▶ one command's run(arguments, common) ──▶ Result<Exit, Complaint> ──▶ exit code
//!                                       │
//!                                       └──▶ output.rs: the only place that prints
//! ```
//!
//! Nothing here decides about work or counts: every command is a thin user of [`crate::client`] (or of the store, for
//! `verify`; or of the server, for `serve`). Absent on purpose: clocks other than tokio's timers, prints outside
//! `output.rs`, and clap's environment variables (a flag wins over the environment by `options.rs`, by hand, because
//! clap counts values from the environment as given). `docs/CLI.md` is the user's view: exit codes and JSON schemas.
//! Tested by `tests/cli_*.rs`, which run the real program.

mod campaign;
mod control;
mod counts;
mod create;
pub mod demo;
pub mod exit;
mod guard;
mod json;
mod logging;
mod options;
pub mod output;
#[doc(hidden)]
pub mod probe;
pub mod serve;
mod status;
mod values;
mod verify;
mod wait;
mod work;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use exit::{Complaint, Exit};
use options::{CommonArguments, Environment};

/// Runs every task of a campaign at least N times on machines that come and go, and never loses or invents a count.
#[derive(Debug, Parser)]
#[command(name = "tenfold", version, after_help = EXAMPLE, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    common: CommonArguments,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLE: &str = "\
Example:
  tenfold serve --data-dir ./data
  tenfold create ising --range 0..1000 --runs 10 --seed 42
  tenfold work --until-done -j 8 -- ./simulate --temperature {}
  tenfold status";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the coordinator
    Serve(serve::ServeArguments),
    /// Create a campaign: its tasks, and how many runs each is to get
    #[command(after_help = create::EXAMPLE)]
    Create(create::CreateArguments),
    /// Execute runs: COMMAND once per run
    #[command(after_help = work::EXAMPLE)]
    Work(work::WorkArguments),
    /// Show campaigns and how far they are
    #[command(after_help = status::EXAMPLE)]
    Status(status::StatusArguments),
    /// Show the counts of every task of a campaign
    #[command(after_help = counts::EXAMPLE)]
    Counts(counts::CountsArguments),
    /// Wait until a campaign is settled
    #[command(after_help = wait::EXAMPLE)]
    Wait(wait::WaitArguments),
    /// List, pause, resume, cancel, requeue or remove campaigns
    #[command(after_help = campaign::EXAMPLE, arg_required_else_help = true)]
    Campaign(campaign::CampaignArguments),
    /// Check the data directory of a stopped server
    #[command(after_help = verify::EXAMPLE)]
    Verify(verify::VerifyArguments),
    /// See the main job, end to end, with real processes and a killed server
    #[command(after_help = demo::EXAMPLE)]
    Demo(demo::DemoArguments),
    /// Be one process of the demo
    #[command(hide = true, after_help = demo::PART_EXAMPLE)]
    DemoPart(demo::PartArguments),
    /// Execute one run for a worker, and leave nothing of it behind
    #[command(hide = true, after_help = guard::EXAMPLE)]
    Guard(guard::GuardArguments),
}

/// Does what the command line says; returns the exit code of the process.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(refusal) => {
            // Help and version arrive here too, with code 0 and for stdout. A reader that left is no failure.
            let _ = refusal.print();
            return ExitCode::from(if refusal.exit_code() == 0 { Exit::Ok.code() } else { Exit::Usage.code() });
        }
    };
    let Cli { common, command } = cli;
    output::configure(common.color, common.quiet);
    match run(common, command) {
        Ok(code) => code,
        Err(complaint) => {
            if let Some(error) = &complaint.error {
                output::error(format!("{error:#}"), complaint.hint.as_deref());
            }
            ExitCode::from(complaint.exit.code())
        }
    }
}

fn run(common: CommonArguments, command: Command) -> Result<ExitCode, Complaint> {
    let environment = Environment::read();
    let server = if let Command::Serve(arguments) = &command { Some(arguments.log_format()) } else { None };
    logging::start(&common, &environment, server)?;
    let servers = || common.servers(&environment);
    let exit = match command {
        Command::Serve(arguments) => serve::serve(arguments)?,
        Command::Create(arguments) => create::create(arguments, servers()?)?,
        Command::Work(arguments) => work::work(arguments, servers()?, common.verbose > 0)?,
        Command::Status(arguments) => status::status(arguments, servers()?)?,
        Command::Counts(arguments) => counts::counts(arguments, servers()?)?,
        Command::Wait(arguments) => wait::wait(arguments, servers()?)?,
        Command::Campaign(arguments) => campaign::campaign(arguments, servers()?)?,
        Command::Verify(arguments) => verify::verify(arguments)?,
        Command::Demo(arguments) => demo::demo(arguments)?,
        Command::DemoPart(arguments) => demo::part(arguments)?,
        // Ends with the exit code of the run.
        Command::Guard(arguments) => return Ok(guard::guard(arguments)),
    };
    Ok(ExitCode::from(exit.code()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_commands_help_ends_with_an_example() {
        fn check(command: &mut clap::Command, path: &str) {
            let help = command.render_long_help().to_string();
            let example = help.rfind("Example:\n").unwrap_or_else(|| panic!("{path} has no example:\n{help}"));
            let indented = help[example..].trim_end().lines().skip(1).all(|line| line.starts_with("  "));
            assert!(indented, "{path}: something follows the example:\n{help}");
            for inner in command.get_subcommands_mut() {
                if inner.get_name() != "help" {
                    let path = format!("{path} {}", inner.get_name());
                    check(inner, &path);
                }
            }
        }
        check(&mut Cli::command(), "tenfold");
    }
}
