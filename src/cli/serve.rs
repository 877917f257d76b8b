//! `tenfold serve`: runs the coordinator until it is told to stop.
//!
//! Settles what the command line left open, starts [`crate::server`], says on stderr what was recovered and where it
//! listens, and turns SIGTERM and SIGINT into requests to stop. Deliberately absent: everything that decides about
//! connections, work or counts. Tested by `tests/server_process.rs`, which runs the real program.

use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::exit::{Complaint, Exit};
use super::options::listen_address;
use super::output::{self, counted};
use super::values;
use crate::limits;
use crate::server::{Bounds, Config, Fatal, Recovered, ServeError, Server, StartError, Stopped, Turns, arm_panic_hook};
use crate::store::Pace;
use crate::types::SpecError;

const EXAMPLE: &str = "\
SIGTERM or SIGINT stops it: nothing more is lent, reports are taken for --drain. A second one stops at once, which is \
just as safe.

Example:
  tenfold serve --data-dir ./data --listen 127.0.0.1:65432";

/// Shortest `--disk-timeout`.
const DISK_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Arguments of `tenfold serve`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub struct ServeArguments {
    /// Where everything durable is kept; made if it is not there
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Listen here; may be given several times. HOST is HOST:65432, port 0 takes a free one
    #[arg(long, value_name = "HOST[:PORT]", default_value = "127.0.0.1:65432")]
    listen: Vec<String>,
    /// How long a lease lives without a sign of life, for campaigns that do not say
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = values::duration)]
    lease: Duration,
    /// The campaign for clients of the origin's protocol, python3TCP [default: the only counted one]
    #[arg(long, value_name = "NAME")]
    origin_campaign: Option<String>,
    /// Close connections of the origin's protocol that are silent for this long, but never under ten leases
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = values::duration)]
    origin_idle: Duration,
    /// When stopping, how long to wait for reports of what is lent
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = values::duration)]
    drain: Duration,
    /// A disk that lets one commit wait for longer than this hangs: the server ends, to be started again. While starting,
    /// it is given ten times that to get on
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = values::duration)]
    disk_timeout: Duration,
    /// For tests: when pages are written, see `Pace`
    #[arg(long, value_name = "BYTES,RECORDS,RECORD_BYTES", value_parser = pace, hide = true)]
    pace: Option<Pace>,
    /// For tests: commits of how many requests are large, see `Turns`
    #[arg(long, value_name = "REQUESTS", hide = true)]
    large_commits: Option<NonZero<usize>>,
    /// How log lines on stderr look
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    /// Write the addresses it listens on to this file, one a line, when it is ready; removed when it stops
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

impl ServeArguments {
    /// How its log lines are to look.
    pub fn log_format(&self) -> LogFormat {
        self.log_format
    }

    fn config(&self, bounds: Bounds) -> Result<Config, Complaint> {
        let lease_ms = values::milliseconds(self.lease);
        if !(limits::LEASE_MS_MIN..=limits::LEASE_MS_MAX).contains(&lease_ms) {
            return Err(Complaint::new(Exit::Usage, format!("--lease: {}", SpecError::Lease)));
        }
        if self.disk_timeout < DISK_TIMEOUT_MIN {
            let what = format!(
                "--disk-timeout: must be at least {DISK_TIMEOUT_MIN:?}: a good disk takes that long now and then"
            );
            return Err(Complaint::new(Exit::Usage, what));
        }
        Ok(Config {
            listen: self.listen.iter().map(|address| listen_address(address)).collect::<Result<_, _>>()?,
            lease_ms,
            origin_campaign: self.origin_campaign.clone(),
            origin_idle: self.origin_idle,
            drain: self.drain,
            pace: self.pace.unwrap_or_default(),
            turns: self
                .large_commits
                .map_or_else(Turns::default, |requests| Turns { large_requests: requests, ..Turns::default() }),
            bounds: Bounds {
                commit: self.disk_timeout,
                opening: self.disk_timeout.saturating_mul(limits::OPENING_COMMITS),
                ..bounds
            },
            ..Config::new(&self.data_dir)
        })
    }
}

fn pace(text: &str) -> Result<Pace, String> {
    let [bytes, records, record_bytes] = numbers(text).ok_or("three numbers are needed")?;
    Ok(Pace { bytes: bytes as usize, records: records.into(), record_bytes: record_bytes as usize })
}

/// Exactly so many numbers, with commas between.
fn numbers<const COUNT: usize>(text: &str) -> Option<[u32; COUNT]> {
    let numbers: Option<Vec<u32>> = text.split(',').map(|number| number.parse().ok()).collect();
    numbers?.try_into().ok()
}

/// Serves until stopped by a signal.
///
/// # Errors
/// It could not start, or could not keep its word any more; what was answered is durable in any case.
pub fn serve(arguments: ServeArguments) -> Result<Exit, Complaint> {
    let bounds = bounds_for(raise_file_limit());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("tenfold-session")
        .build()
        .context("cannot start the runtime")?;
    let exit = runtime.block_on(serve_in_runtime(&arguments, bounds));
    // Whoever is still reading from a disk that does not answer is left behind.
    runtime.shutdown_background();
    exit
}

async fn serve_in_runtime(arguments: &ServeArguments, bounds: Bounds) -> Result<Exit, Complaint> {
    // Signals count from here on, so that one that comes while the data is recovered is not lost.
    let mut stops = stop_signals().context("cannot receive signals")?;
    let config = arguments.config(bounds)?;
    let server = tokio::select! {
        started = Server::start(config) => started.map_err(complaint)?,
        Some(()) = stops.recv() => {
            output::note("stopped while starting; the data directory is as safe as it was");
            return Ok(Exit::Ok);
        }
    };
    arm_panic_hook(Fatal::end_process());
    say_recovered(&arguments.data_dir, server.recovered());
    for address in server.exposed() {
        output::warning(format!(
            "other machines may reach {address}: whoever does may work, report, and remove campaigns; \
             nobody is asked for a password"
        ));
    }
    for address in server.addresses() {
        output::note(format!("listening on {address}"));
    }
    if let Some(path) = &arguments.ready_file {
        write_ready_file(path, &server).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let stopped = server.run(stops).await;
    if let Some(path) = &arguments.ready_file {
        // It is only a note for whoever started this; the next start replaces it.
        let _ = std::fs::remove_file(path);
    }
    match stopped {
        Ok(Stopped::Drained) => output::note("stopped; everything that was answered is durable"),
        Ok(Stopped::AtOnce) => output::note("stopped at once; everything that was answered is durable"),
        Err(error @ ServeError::PipelineEnded) => return Err(Complaint::new(Exit::Failed, error)),
    }
    Ok(Exit::Ok)
}

/// Every SIGTERM and SIGINT, as a request to stop.
fn stop_signals() -> io::Result<mpsc::Receiver<()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (sender, receiver) = mpsc::channel(2);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            // Two are enough; a third has nothing to add.
            let _ = sender.try_send(());
        }
    });
    Ok(receiver)
}

fn say_recovered(data_dir: &Path, recovered: &Recovered) {
    let Recovered { recovery, summary, instance } = recovered;
    let data_dir = data_dir.display();
    if recovery.fresh {
        output::note(format!("new data directory {data_dir}, instance {instance}"));
    } else {
        output::note(format!(
            "recovered {data_dir}: {}, {}, {} done, {}, {}",
            counted(summary.campaigns as u64, "campaign"),
            counted(summary.tasks, "task"),
            counted(summary.runs_done, "run"),
            counted(summary.sessions as u64, "session"),
            counted(summary.leases as u64, "lease"),
        ));
        output::note(format!(
            "  read {} of {} and {} of {}, instance {instance}",
            counted(recovery.pages, "page"),
            counted(recovery.page_bytes, "byte"),
            counted(recovery.journal_records, "journal record"),
            counted(recovery.journal_bytes, "byte"),
        ));
    }
    for note in &recovery.notes {
        output::note(format!("  {note}"));
    }
}

/// Written beside its place and renamed, so that whoever waits for it never reads half of it.
fn write_ready_file(path: &Path, server: &Server) -> io::Result<()> {
    let lines: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    std::fs::write(&beside, lines.join("\n") + "\n")?;
    std::fs::rename(&beside, path)
}

/// Why it did not start, with what to do about it.
fn complaint(error: StartError) -> Complaint {
    match error {
        StartError::Open(error) => error.into(),
        StartError::Listen { ref source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
            Complaint::new(Exit::Failed, error).hint("something listens there already: choose another with --listen")
        }
        StartError::Listen { .. } | StartError::Boot(_) | StartError::System(_) => Complaint::new(Exit::Failed, error),
    }
}

/// Files that are none of connections: the database, the log, listeners, the runtime.
const OTHER_FILES: u64 = 64;

/// Lets this process open as many files as it needs for its connections, if it may; the usual limit is far below. Returns
/// how many it may open now.
fn raise_file_limit() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let wanted = (limits::CONNECTIONS_MAX + limits::NEWCOMERS_MAX) as u64 + OTHER_FILES;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(limit.maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        if setrlimit(Resource::Nofile, limit).is_err() {
            limit = getrlimit(Resource::Nofile);
        }
    }
    limit.current.unwrap_or(wanted)
}

/// As many connections as there are files for: above that they are turned away in good order, instead of waiting
/// to be accepted.
fn bounds_for(files: u64) -> Bounds {
    let usual = Bounds::default();
    // Where there are fewer files than that, the rest of the server may still do with less.
    let sockets = usize::try_from(files.saturating_sub(OTHER_FILES).max(files / 4).max(2)).unwrap_or(usize::MAX);
    let newcomers = usual.newcomers.min(sockets / 4).max(1);
    let connections = usual.connections.min(sockets - newcomers);
    if connections < usual.connections {
        tracing::info!(
            "this process may open {files} files, so it can hold only {connections} connections: raise the limit (ulimit -n)"
        );
    }
    Bounds { connections, newcomers, ..usual }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_connections_than_files() {
        for files in [2, 8, 48, 64, 66, 256, 1_024, 4_096, 20_000, 1 << 20, u64::MAX] {
            let Bounds { connections, newcomers, .. } = bounds_for(files);
            assert!(connections > 0 && newcomers > 0);
            assert!((connections + newcomers) as u64 <= files, "{files}: {connections} and {newcomers}");
        }
        assert_eq!(bounds_for(20_000), Bounds::default());
        assert_eq!(bounds_for(1_024).connections, 720);
    }
}
