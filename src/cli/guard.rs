//! `tenfold guard`: stands between a worker and one run, and sees to it that nothing of the run is left behind.
//!
//! ```text
//!   worker ◀── socket ──▶ guard (own process group) ──▶ COMMAND (its own process group, stdin is /dev/null)
//!      │                    │  the socket closes, for whatever reason: SIGKILL to COMMAND's whole group
//!      └─ killed? then the socket closes      guard killed? then Linux kills COMMAND (parent death signal)
//! ```
//!
//! The guard's stdin is one end of a socket pair; the worker keeps the other and hears, line by line, [`Word`]s. When the
//! worker shuts its end down, or dies even by SIGKILL, the guard kills. A signal sent to the guard itself changes
//! nothing: what runs is the worker's decision.
//!
//! COMMAND is started through a second, very short life of this program (`guard --start`), which asks the system for the
//! parent death signal and then becomes COMMAND: so no `unsafe` is needed between fork and exec, and an error of exec
//! comes back as such, not as an exit code that COMMAND could have had as well.
//!
//! **Invariant**: a group is only ever signalled while COMMAND, its leader, has not been reaped, so that the number cannot
//! mean another group. When COMMAND has ended, the rest of its group is killed too; on Linux also what left the group but
//! descends from it. Tested by `tests/cli_work.rs` and `tests/cli_guard.rs`.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

use clap::Args;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpid, getppid, kill_process_group, waitid};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

use super::output;

pub(crate) const EXAMPLE: &str = "\
Example:
  tenfold guard -- ./simulate 17";

/// Arguments of `tenfold guard`.
#[derive(Debug, Args)]
pub(crate) struct GuardArguments {
    /// Become COMMAND, as a child of the guard with this process id
    #[arg(long, value_name = "PID")]
    start: Option<i32>,
    /// The command of the run
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// What a guard tells its worker, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// COMMAND could not be started: why. The last word.
    CannotStart(String),
    /// COMMAND ended with this status. The last word.
    Exited(i32),
    /// COMMAND was ended by this signal. The last word.
    Killed(i32),
}

impl Word {
    /// The line, without its end.
    fn line(&self) -> String {
        match self {
            Self::CannotStart(why) => format!("cannot-start {}", why.replace('\n', " ")),
            Self::Exited(status) => format!("exited {status}"),
            Self::Killed(signal) => format!("killed {signal}"),
        }
    }

    /// Reads a line; `None` is no word.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.trim_end().split_once(' ')?;
        match word {
            "cannot-start" => Some(Self::CannotStart(rest.to_owned())),
            "exited" => rest.parse().ok().map(Self::Exited),
            "killed" => rest.parse().ok().map(Self::Killed),
            _ => None,
        }
    }
}

impl From<ExitStatus> for Word {
    fn from(status: ExitStatus) -> Self {
        match status.signal() {
            Some(signal) => Self::Killed(signal),
            None => Self::Exited(status.code().unwrap_or(-1)),
        }
    }
}

/// A command that starts this very program as a guard of `command`. Its stdin must become one end of a socket pair.
///
/// On Linux it names the running program by its process, not by its path: a program that was replaced on disk in the
/// meantime might not understand this one.
pub(crate) fn guarded(command: &[OsString]) -> io::Result<Command> {
    let mut guard = this_program()?;
    guard.arg("guard").arg("--").args(command).process_group(0);
    Ok(guard)
}

fn this_program() -> io::Result<Command> {
    let process = std::path::Path::new("/proc/self/exe");
    let mut command = if cfg!(target_os = "linux") && process.exists() {
        Command::new(process)
    } else {
        Command::new(std::env::current_exe()?)
    };
    command.arg0("tenfold");
    Ok(command)
}

/// Executes one run. The exit code is COMMAND's (128 + the signal that ended it).
pub(crate) fn guard(arguments: GuardArguments) -> ExitCode {
    if let Some(parent) = arguments.start {
        return become_command(parent, &arguments.command);
    }
    let watched = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(watch(&arguments.command)));
    match watched {
        Ok(Word::Exited(status)) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        Ok(Word::Killed(signal)) => ExitCode::from(u8::try_from(128 + signal).unwrap_or(1)),
        Ok(Word::CannotStart(_)) => ExitCode::from(127),
        Err(error) => {
            output::error(format!("the guard of a run: {error}"), None);
            ExitCode::FAILURE
        }
    }
}

/// The short life between the guard and COMMAND. Returns only if COMMAND cannot be started.
fn become_command(parent: i32, command: &[OsString]) -> ExitCode {
    let Ok(mut worker) = worker_socket() else { return ExitCode::from(127) };
    let _ = die_with_parent();
    // The guard may have died before the line above: then nobody would send the signal any more.
    if getppid().map(Pid::as_raw_pid) != Some(parent) {
        return ExitCode::from(127);
    }
    let [program, arguments @ ..] = command else { return ExitCode::from(127) };
    // The duplicate in `worker` closes by itself when COMMAND takes over.
    let error = Command::new(program).args(arguments).stdin(Stdio::null()).exec();
    let word = Word::CannotStart(format!("{}: {error}", program.to_string_lossy()));
    let _ = writeln!(worker, "{}", word.line());
    ExitCode::from(127)
}

async fn watch(command: &[OsString]) -> io::Result<Word> {
    // Signals first: from here on none of them ends the guard, and no end of a child is missed.
    let mut children = signal(SignalKind::child())?;
    let mut terminations = signal(SignalKind::terminate())?;
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut hangups = signal(SignalKind::hangup())?;
    let mut quits = signal(SignalKind::quit())?;
    let socket = worker_socket()?;
    let stdin_of_command = socket.try_clone()?;
    let mut answers = socket.try_clone()?;
    socket.set_nonblocking(true)?;
    let mut worker = tokio::net::UnixStream::from_std(socket)?;
    adopt_orphans();

    let spawned = this_program().and_then(|mut program| {
        program.arg("guard").arg("--start").arg(getpid().as_raw_pid().to_string()).arg("--").args(command);
        program.process_group(0).stdin(Stdio::from(std::os::fd::OwnedFd::from(stdin_of_command))).spawn()
    });
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            let word = Word::CannotStart(error.to_string());
            let _ = writeln!(answers, "{}", word.line());
            return Ok(word);
        }
    };
    let mut abandoned = false;
    let mut ignored = [0; 16];
    while !has_ended(&child)? {
        tokio::select! {
            _ = children.recv() => {}
            _ = terminations.recv() => {}
            _ = interrupts.recv() => {}
            _ = hangups.recv() => {}
            _ = quits.recv() => {}
            // The worker never writes: anything but bytes means that it is gone, or wants the run to be.
            read = worker.read(&mut ignored), if !abandoned => if !matches!(read, Ok(1..)) {
                abandoned = true;
                kill_group(&child);
            }
        }
    }
    // It has not been reaped yet, so its group is still its own.
    kill_group(&child);
    let word = Word::from(child.wait()?);
    let _ = writeln!(answers, "{}", word.line());
    kill_descendants();
    Ok(word)
}

/// A duplicate of stdin, closed on exec.
fn worker_socket() -> io::Result<UnixStream> {
    Ok(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
}

fn pid_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// Whether the child has ended. Leaves it to be reaped.
fn has_ended(child: &Child) -> io::Result<bool> {
    let Some(pid) = pid_of(child) else { return Ok(true) };
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Ok(waitid(WaitId::Pid(pid), look)?.is_some())
}

/// Kills the child's group. The child must not have been reaped.
fn kill_group(child: &Child) {
    if let Some(pid) = pid_of(child) {
        // The only possible error is that nobody is left to kill.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

#[cfg(target_os = "linux")]
fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent() -> io::Result<()> {
    Ok(())
}

/// Makes orphaned descendants children of this process, so that [`kill_descendants`] finds them.
#[cfg(target_os = "linux")]
fn adopt_orphans() {
    let _ = rustix::process::set_child_subreaper(Some(getpid()));
}

#[cfg(not(target_os = "linux"))]
fn adopt_orphans() {}

/// Kills what COMMAND left behind outside of its group. The children of what is killed become our own: again, until there
/// are none.
#[cfg(target_os = "linux")]
fn kill_descendants() {
    use rustix::process::kill_process;

    loop {
        let children = children_of_this_process();
        if children.is_empty() {
            return;
        }
        for child in children {
            // A child that is not reaped cannot have passed its number on.
            let _ = kill_process(child, Signal::KILL);
        }
        if waitid(WaitId::All, WaitIdOptions::EXITED).is_err() {
            return;
        }
    }
}

#[cfg(target_os = "linux")]
fn children_of_this_process() -> Vec<Pid> {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect::<Vec<_>>())
        .collect()
}

#[cfg(not(target_os = "linux"))]
fn kill_descendants() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_socket() {
        for word in [Word::CannotStart("x: No such file".to_owned()), Word::Exited(75), Word::Killed(9)] {
            assert_eq!(Word::parse(&word.line()), Some(word));
        }
        assert_eq!(Word::parse(""), None);
        assert_eq!(Word::parse("exited x"), None);
        let broken = Word::CannotStart("a\nb".to_owned());
        assert_eq!(Word::parse(&broken.line()), Some(Word::CannotStart("a b".to_owned())));
    }
}
