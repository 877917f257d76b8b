//! `tenfold work`: takes leases and executes COMMAND once per run.
//!
//! ```text
//!   Client ──lease──▶ one task per lease ──▶ run by run: guard ──▶ COMMAND        run.rs, ../guard.rs
//!     ▲                     │    └── output, by whole lines ──▶ printer thread     lines.rs, printer.rs
//!     └── report, release ──┘
//! ```
//!
//! The worker decides three things: how many leases to hold (`-j`), when to stop ([`Stop`]), and what to report. It stops
//! gently (finish what runs, give back the rest) on the first signal, when COMMAND cannot be started, after too many
//! failures in a row ([`tally`]) and when nobody reads its output any more; at once on the second signal. What it waits
//! for it says once ([`announce`]). Leases, resends and heartbeats are the client library's. Tested by
//! `tests/cli_work.rs`.

mod announce;
pub(super) mod lines;
mod printer;
mod run;
mod tally;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::announce::Announcer;
use self::printer::Printer;
use self::run::{Ending, RunDescription};
use self::tally::{FAILURES_IN_A_ROW_MAX, Tally};
use super::control::OTHER_VERSION;
use super::exit::{Complaint, Exit};
use super::output::{self, counted, printable};
use super::{control, values};
use crate::client::{Answer, Client, Config, Connection, Lease, Stopped, Verdict};
use crate::limits;
use crate::types::{Idle, LossReason, Outcome, Want};

pub(crate) const EXAMPLE: &str = "\
{} in an argument is the task's key, or its number where there are no keys. The environment has TENFOLD_CAMPAIGN, \
TENFOLD_TASK, TENFOLD_KEY, TENFOLD_LEASE, and in numbered campaigns (create --seed) TENFOLD_RUN and TENFOLD_SEED.
COMMAND ends with 0: done. With 75: given back, for others to try. Else: failed, with the last line of its stderr.

Example:
  tenfold work ising -j 8 --until-done -- ./simulate --temperature {}";

/// Arguments of `tenfold work`.
#[derive(Debug, Args)]
pub(crate) struct WorkArguments {
    /// Campaigns to work on [default: all]
    #[arg(value_name = "NAME", num_args = 0..=limits::WANTED_CAMPAIGNS_MAX)]
    names: Vec<String>,
    /// Runs at a time
    #[arg(short, long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::LEASES_PER_SESSION_MAX)))]
    jobs: u32,
    /// End when all is settled, instead of waiting for more work
    #[arg(long)]
    until_done: bool,
    /// This worker's name, for people [default: HOST:PID]
    #[arg(long, value_name = "HOST:PID")]
    name: Option<String>,
    /// Kill a run after this long; it can only shorten the campaign's timeout
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    timeout: Option<Duration>,
    /// Runs of one task to take at a time; worth raising for runs of a few milliseconds
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::LEASE_RUNS_MAX)))]
    runs_per_lease: u32,
    /// At the end, wait this long for the server to answer the last reports
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = values::duration)]
    grace: Duration,
    /// What to execute, once per run
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// How long to wait for something that is about to happen.
const MOMENT: Duration = Duration::from_secs(1);

/// How far stopping has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    /// Not at all.
    No,
    /// What runs may end; nothing else is begun.
    Gently,
    /// What runs is killed.
    AtOnce,
}

/// Why the worker stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cause {
    /// Somebody sent a signal.
    Signal,
    /// Too many failures in a row; the last one.
    Failures(String),
    /// COMMAND cannot be started: why.
    CannotStart(String),
    /// Nobody reads our stdout any more.
    Unread,
}

/// What every lease's task needs.
struct Job {
    command: Vec<OsString>,
    timeout: Option<Duration>,
    prefixed: bool,
    verbose: bool,
    printer: Printer,
    tally: Mutex<Tally>,
    stop: watch::Sender<Stop>,
    /// The first cause, from inside a task.
    cause: Mutex<Option<Cause>>,
}

/// Works until told to stop (or until all is settled, with `--until-done`).
pub(crate) fn work(arguments: WorkArguments, servers: Vec<String>, verbose: bool) -> Result<Exit, Complaint> {
    if let Some(program) = arguments.command.first() {
        find(program)?;
    }
    control::block_on(serve_leases(arguments, servers, verbose))?
}

async fn serve_leases(arguments: WorkArguments, servers: Vec<String>, verbose: bool) -> Result<Exit, Complaint> {
    let mut interrupts = signal(SignalKind::interrupt()).map_err(anyhow::Error::from)?;
    let mut terminations = signal(SignalKind::terminate()).map_err(anyhow::Error::from)?;
    let want = Want { leases: arguments.jobs, runs: arguments.runs_per_lease, campaigns: arguments.names.clone() };
    let mut config = Config::new(servers);
    config.name = arguments.name.unwrap_or_else(host_and_pid);
    config.want = want.clone();
    config.until_done = arguments.until_done;
    let client = Client::start(config).map_err(anyhow::Error::from)?;

    let (printer, mut printing) = printer::start();
    let (stop, mut stopping) = watch::channel(Stop::No);
    let job = Arc::new(Job {
        command: arguments.command,
        timeout: arguments.timeout,
        prefixed: arguments.jobs > 1,
        verbose,
        printer,
        tally: Mutex::default(),
        stop,
        cause: Mutex::default(),
    });
    let mut state = client.watch();
    let mut announcer = Announcer::default();
    let mut leases = JoinSet::new();
    let mut answers: JoinSet<(String, Verdict)> = JoinSet::new();
    let mut no_more = false;
    while !(leases.is_empty() && (no_more || job.has_stopped())) {
        let said = announcer.look(&state.borrow_and_update(), &arguments.names, !leases.is_empty());
        if let Some(said) = said {
            output::note(said);
        }
        let stopped = job.has_stopped();
        let room = !no_more && (stopped || leases.len() < arguments.jobs as usize);
        tokio::select! {
            biased;
            () = either(&mut interrupts, &mut terminations) => job.signalled(leases.len()),
            Ok(()) = stopping.changed() => client.set_want(Want { leases: 0, ..want.clone() }),
            Ok(_) = printing.unread.wait_for(|unread| *unread), if !job.has_stopped() => job.stop_gently(Cause::Unread),
            Some(ended) = leases.join_next() => if let Ok(Some((label, answer))) = ended {
                answers.spawn(async move { (label, answer.await) });
            },
            Some(answered) = answers.join_next() => tell_refusal(answered.ok()),
            lease = client.next_lease(), if room => match lease {
                // Lent before the server heard that nothing more is wanted: others need not wait for what still runs here.
                Some(lease) if stopped => drop(lease.release()),
                Some(lease) => { leases.spawn(execute(Arc::clone(&job), lease)); }
                None => no_more = true,
            },
            Ok(()) = state.changed() => {}
        }
    }

    if no_more {
        // Leases can end a moment before it is shown why.
        let told = state.wait_for(|state| {
            matches!(state.idle, Some(Idle::Settled(_))) || matches!(state.connection, Connection::Stopped(_))
        });
        let _ = tokio::time::timeout(MOMENT, told).await;
    }
    let (idle, connection) = {
        let state = state.borrow();
        (state.idle, state.connection.clone())
    };
    let at_once = *job.stop.borrow() == Stop::AtOnce;
    // Also who stops at once gives back what was killed, if the server answers.
    let grace = if at_once { arguments.grace.min(MOMENT) } else { arguments.grace };
    let closed = tokio::select! {
        closed = client.close(grace) => Some(closed),
        () = either(&mut interrupts, &mut terminations) => None,
    };
    // A closed client has answered everything, if only with "unknown"; what was cut short is not waited for.
    let mut unanswered = 0;
    while closed.is_some()
        && let Some(answered) = answers.join_next().await
    {
        let answered = answered.ok();
        unanswered += u64::from(matches!(answered, Some((_, Verdict::Unknown))));
        tell_refusal(answered);
    }
    unanswered += answers.len() as u64;
    let (tally, cause) = (job.tally().clone(), job.cause());
    // The printer ends with its last handle. Nobody waits for it (and its reader) who was told to stop at once.
    drop((job, leases));
    if !at_once {
        printing.finish();
    }
    output::note(format!(
        "{} done, {} failed, {} given back, {} lost",
        counted(tally.done, "run"),
        tally.failed,
        tally.released,
        tally.lost
    ));
    if unanswered > 0 {
        return Err(Complaint::new(Exit::Unreachable, format!("{} got no answer", counted(unanswered, "report")))
            .hint("whether they count is not known here; what does not count will be done again by others"));
    }
    match cause {
        None => settled(idle, connection),
        Some(Cause::Signal) if at_once => Err(Complaint::new(Exit::Failed, "killed what was running, as told")),
        Some(Cause::Signal | Cause::Unread) => Ok(Exit::Ok),
        Some(Cause::CannotStart(why)) => Err(Complaint::new(Exit::Failed, printable(&why))
            .hint("nothing was reported about these runs; their leases were given back")),
        Some(Cause::Failures(last)) => Err(Complaint::new(
            Exit::Failed,
            format!(
                "{FAILURES_IN_A_ROW_MAX} failures in a row without one success; this machine may be broken, so it stops. \
                 The last one: {}",
                printable(&last)
            ),
        )
        .hint("try the command by hand, then start the worker again; quarantined tasks need tenfold campaign requeue")),
    }
}

/// Why there are no more leases although nothing stopped the worker.
fn settled(idle: Option<Idle>, connection: Connection) -> Result<Exit, Complaint> {
    if let Connection::Stopped(why) = connection {
        let complaint = Complaint::new(Exit::Failed, printable(&why.to_string()));
        return Err(match why {
            Stopped::Version(_) | Stopped::Protocol(_) => complaint.hint(OTHER_VERSION),
            Stopped::Closed | Stopped::Superseded(_) | Stopped::Crashed => complaint,
        });
    }
    match idle {
        Some(Idle::Settled(settled)) => {
            output::note(announce::how(settled));
            Ok(match (settled.cancelled, settled.quarantined) {
                (true, _) => Exit::Cancelled,
                (false, 0) => Exit::Ok,
                (false, _) => Exit::Quarantined,
            })
        }
        Some(Idle::Absent | Idle::Lent | Idle::Paused | Idle::Released | Idle::Closed) | None => Ok(Exit::Ok),
    }
}

/// Executes the runs of one lease, one after the other, and reports them. Returns the answer to come to a report, and of
/// what.
async fn execute(job: Arc<Job>, lease: Lease) -> Option<(String, Answer)> {
    let mut label = String::new();
    let (mut done, mut failed, mut error) = (0_u64, 0_u64, String::new());
    for index in 0..lease.runs() {
        if index > 0 && job.has_stopped() {
            break;
        }
        let run = describe(&lease, index);
        label = run.label();
        // The server takes the run away a little later than this, so the failure is charged to the task, and once.
        let timeout = [job.timeout, lease.timeout()].into_iter().flatten().min();
        let ending =
            run::execute(&job.command, &run, timeout, &job.printer, job.prefixed, lease.lost(), job.stopped_at_once())
                .await;
        job.tell(&label, &ending);
        match ending {
            Ending::Done => {
                job.tally().done();
                done |= 1 << index;
            }
            // The server was faster than we: the run took too long all the same.
            Ending::Failed(_) | Ending::Lost(LossReason::TimedOut) => {
                let text = if let Ending::Failed(text) = ending { text } else { "timed out".to_owned() };
                match job.tally().failure() {
                    tally::Verdict::Report => {}
                    tally::Verdict::ReportAndStop => job.stop_gently(Cause::Failures(text.clone())),
                    tally::Verdict::GiveBack => break,
                }
                failed |= 1 << index;
                error = text;
                if lease.is_lost() {
                    break;
                }
            }
            Ending::GivenBack | Ending::Stopped => {
                job.tally().released += 1;
                break;
            }
            Ending::Lost(_) => {
                job.tally().lost += 1;
                break;
            }
            Ending::CannotStart(why) => {
                job.tally().released += 1;
                job.stop_gently(Cause::CannotStart(why));
                break;
            }
        }
    }
    let all = u64::MAX >> (64 - lease.runs().clamp(1, 64));
    if done | failed == 0 {
        // Nobody needs to know what became of a release.
        drop(lease.release());
        return None;
    }
    let answer = if done == all { lease.done() } else { lease.report(Outcome::Mixed { done, failed, error }) };
    Some((label, answer))
}

fn describe(lease: &Lease, index: u32) -> RunDescription {
    RunDescription {
        campaign: lease.campaign().to_owned(),
        task: lease.task(),
        key: lease.key().map(str::to_owned),
        numbered: lease.seed(index).map(|seed| (u64::from(lease.first_run()) + u64::from(index), seed)),
        lease: lease.id().to_u64(),
    }
}

impl Job {
    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        // Whoever panicked while counting ended its own task only.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cause(&self) -> Option<Cause> {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn has_stopped(&self) -> bool {
        *self.stop.borrow() != Stop::No
    }

    /// Waits until the worker is told to stop at once.
    async fn stopped_at_once(&self) {
        // The sender is this job's own: it cannot be gone.
        let _ = self.stop.subscribe().wait_for(|stop| *stop == Stop::AtOnce).await;
    }

    fn stop_gently(&self, cause: Cause) {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(cause);
        self.stop.send_if_modified(|stop| {
            let modified = *stop == Stop::No;
            *stop = (*stop).max(Stop::Gently);
            modified
        });
    }

    /// The first signal stops gently, every further one at once.
    fn signalled(&self, running: usize) {
        if self.has_stopped() {
            self.stop.send_replace(Stop::AtOnce);
        } else {
            if running > 0 {
                let running = counted(running as u64, "lease");
                output::note(format!("finishing the runs of {running}; once more kills them"));
            }
            self.stop_gently(Cause::Signal);
        }
    }

    fn tell(&self, label: &str, ending: &Ending) {
        match ending {
            Ending::Done if self.verbose => output::note(format!("{label}: done")),
            Ending::GivenBack if self.verbose => output::note(format!("{label}: given back")),
            Ending::Done | Ending::GivenBack | Ending::CannotStart(_) => {}
            Ending::Failed(error) => output::note(format!("{label}: failed: {}", printable(error))),
            Ending::Lost(reason) => output::note(format!("{label}: killed, its lease is lost: {reason}")),
            Ending::Stopped => output::note(format!("{label}: killed")),
        }
    }
}

fn tell_refusal(answered: Option<(String, Verdict)>) {
    match answered {
        Some((label, Verdict::Refused(reason))) => output::note(format!("{label}: not counted: {reason}")),
        Some((label, Verdict::Unknown)) => output::note(format!("{label}: not known whether it counts")),
        Some((_, Verdict::Counted)) | None => {}
    }
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// Fails early, before any lease is taken, if the program cannot be there.
fn find(program: &OsStr) -> Result<(), Complaint> {
    let path = Path::new(program);
    let found = if path.components().count() > 1 || path.is_absolute() {
        path.exists()
    } else {
        let places = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&places).any(|place| place.join(path).exists())
    };
    if found {
        return Ok(());
    }
    Err(Complaint::new(Exit::Failed, format!("cannot start {}: there is no such program", path.display()))
        .hint("a shell's own commands and pipes need a shell: -- sh -c 'COMMAND'"))
}

fn host_and_pid() -> String {
    let system = rustix::system::uname();
    format!("{}:{}", system.nodename().to_string_lossy(), std::process::id())
}

/// At most `bytes_max` bytes of `text`, cut between characters.
fn shorten(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
