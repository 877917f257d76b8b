//! `tenfold demo`: the main job, end to end, on real work, with real processes and a killed server.
//!
//! ```text
//!   demo ──▶ serve ◀── 4 workers           1,000 probabilities × 10 random lattices each
//!     │  40 % done: SIGKILL to the server and to a worker; a second later both start again
//!     │  settled: counts, fates of what was never answered, SIGTERM to the server
//!     └──▶ worker files + counts ──▶ audit ──▶ curve, threshold, SVG; exit 0 only if every check holds
//! ```
//!
//! | file | what |
//! |---|---|
//! | `percolation` | one run: does a random lattice span? (pure) |
//! | `part`, `log` | the worker process and the file it keeps |
//! | `fleet`, `progress` | the processes, and how far they are |
//! | `audit` | do counts and files tell the same story? (pure) |
//! | `curve`, `picture`, `terminal`, `svg` | from counts to a threshold and its drawings (pure) |
//!
//! **Invariant:** what is computed depends on `--seed`, `--tasks`, `--runs` and `--lattice` alone, so two fleets of any
//! size print the same digest and draw the same curve. Nothing is judged by how long it took, but for one generous
//! bound. Tested by `tests/demo.rs`.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "counts of lattices and of pixels are far below 2^52, and what is cast back is never negative"
)]

mod audit;
mod curve;
mod fleet;
pub(super) mod log;
mod part;
mod percolation;
mod picture;
mod progress;
mod svg;
mod terminal;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::exit::{Complaint, Exit};
use super::{output, values};
use crate::client::Control;
use crate::limits;
use crate::types::{CampaignSpec, CampaignStatus, CreationId, Order, Tasks, run_seed};
use audit::{Audit, Check, SessionFigures, TaskBooks, Witness, audit};
use curve::{Estimate, LITERATURE, estimate, finite_size_shift};
use fleet::{Fleet, Work, Worker, Workspace};
pub(crate) use part::EXAMPLE as PART_EXAMPLE;
pub use part::{PartArguments, part};
use percolation::{Lattice, PROBABILITY_FIRST, PROBABILITY_LAST, SIZE_DEFAULT, SIZE_MAX, occupation};
use picture::Picture;
use progress::Progress;

pub(crate) const EXAMPLE: &str = "\
Example:
  tenfold demo
  tenfold demo --workers 7                          the same curve, bit for bit
  tenfold demo --tasks 40 --runs 5 --lattice 64     a small one, in a few seconds";

/// The demo's campaign.
const CAMPAIGN: &str = "percolation";
/// How much is done when the server and a worker are killed, in percent.
const KILL_AT_PERCENT: u64 = 40;
/// How long the server stays away.
const OUTAGE: Duration = Duration::from_secs(1);
/// Between two looks at the counts.
const LOOK: Duration = Duration::from_millis(50);
/// How long a server may take until it answers, and to any question.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a server that was told to stop may take.
const STOP: Duration = Duration::from_secs(30);
/// Runs that are executed once more at the end, to compare.
const SAMPLE: usize = 100;
/// How many standard errors the threshold may be off before the demo calls it wrong (by chance once in two millions).
const ERRORS_MAX: f64 = 5.0;
/// Most workers.
const WORKERS_MAX: u64 = 256;
/// Most tasks, and most runs of one: as much as the demo can show.
const TASKS_MAX: i64 = 100_000;
const RUNS_MAX: i64 = 1_000;

/// Arguments of `tenfold demo`.
#[derive(Debug, Args)]
pub struct DemoArguments {
    /// Worker processes
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=WORKERS_MAX))]
    workers: u64,
    /// Tasks: occupation probabilities from 0.40 to 0.80
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=TASKS_MAX))]
    tasks: u32,
    /// Runs of each task: random lattices
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=RUNS_MAX))]
    runs: u32,
    /// Sites along an edge of a lattice
    #[arg(long, value_name = "N", default_value_t = SIZE_DEFAULT,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(SIZE_MAX)))]
    lattice: u32,
    /// Seed of the campaign: decides every lattice
    #[arg(long, value_name = "S", default_value_t = 42)]
    seed: u64,
    /// A new or empty directory for everything that the demo stores; kept [default: a temporary one, removed]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where to draw the curve
    #[arg(long, value_name = "FILE", default_value = "tenfold-demo.svg")]
    svg: PathBuf,
    /// Kill nothing
    #[arg(long)]
    no_kill: bool,
    /// Length of the leases: short, so that what a killed worker held goes out again soon
    #[arg(long, value_name = "D", default_value = "4s", value_parser = values::duration, hide = true)]
    lease: Duration,
    /// Let every worker wait after each run, so that a small demo has a middle to kill in
    #[arg(long, value_name = "D", default_value = "0s", value_parser = values::duration, hide = true)]
    pace: Duration,
    /// Give up after this long
    #[arg(long, value_name = "D", default_value = "5m", value_parser = values::duration)]
    timeout: Duration,
}

/// Shows the main job: returns `Exit::Ok` only if every check holds.
///
/// # Errors
/// What went wrong, or which check does not hold. All processes are gone by then.
pub fn demo(arguments: DemoArguments) -> Result<Exit, Complaint> {
    // One thread, the process's first: the processes it starts are killed by the system when this thread dies.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupts = signal(SignalKind::interrupt())?;
        let mut terminations = signal(SignalKind::terminate())?;
        let mut hangups = signal(SignalKind::hangup())?;
        // Whatever ends first: the rest of the story is dropped, and its processes and directory with it.
        tokio::select! {
            told = tell(&arguments) => told,
            _ = interrupts.recv() => Err(Complaint::new(Exit::Failed, "interrupted; everything was stopped")),
            _ = terminations.recv() => Err(Complaint::new(Exit::Failed, "told to stop; everything was stopped")),
            _ = hangups.recv() => Err(Complaint::new(Exit::Failed, "the terminal is gone; everything was stopped")),
            () = tokio::time::sleep(arguments.timeout) => {
                let error = format!("not done after {}", humantime::format_duration(arguments.timeout));
                Err(Complaint::new(Exit::TimedOut, error).hint("a slow machine may need more --timeout, or fewer --tasks"))
            }
        }
    })
}

/// The whole story, from an empty directory to the exit code.
async fn tell(arguments: &DemoArguments) -> Result<Exit, Complaint> {
    let started = Instant::now();
    // Dropped in reverse: first the processes, then the directory.
    let workspace = Workspace::new(arguments.data_dir.as_deref())?;
    let pace = values::milliseconds(arguments.pace);
    let work = Work { tasks: arguments.tasks, lattice: arguments.lattice, pace };
    let mut fleet = Fleet::new(workspace.path(), work, ["--drain", "2s"].map(str::to_owned).to_vec())?;
    let evidence = match run(arguments, &mut fleet).await {
        Ok(evidence) => evidence,
        Err(error) => {
            let log = fleet.server_log_end();
            if !log.is_empty() {
                output::note(format!("the server's log ends:\n{log}"));
            }
            return Err(Complaint::from(error).hint("with --data-dir DIR all data and logs are kept"));
        }
    };
    judge(arguments, evidence, started)
}

/// What the processes left behind when all had ended.
struct Evidence {
    witnesses: Vec<Witness>,
    books: Vec<TaskBooks>,
    /// What the kill showed; `None` if nothing was killed.
    recovery: Option<Recovery>,
}

/// What the counts were around the kill, in runs.
struct Recovery {
    /// Workers had heard of these before the server came back.
    acked: u64,
    /// The server had these when it came back.
    recovered: u64,
}

/// Runs the campaign: processes, kill, end.
async fn run(arguments: &DemoArguments, fleet: &mut Fleet) -> anyhow::Result<Evidence> {
    let DemoArguments { workers, tasks, runs, lattice, seed, .. } = arguments;
    let total = u64::from(*tasks) * u64::from(*runs);
    let mut progress = Progress::new(total);
    progress.say(&format!(
        "work      {} (occupation probabilities {PROBABILITY_FIRST:.2} … {PROBABILITY_LAST:.2}), {} each: {} of \
         {lattice} × {lattice} sites, seed {seed}",
        output::counted(u64::from(*tasks), "task"),
        output::counted(u64::from(*runs), "run"),
        output::counted(total, "random lattice"),
    ));
    let control = Control::new(vec![fleet.address().to_owned()], PATIENCE);
    let server = fleet.start_server()?;
    ready(fleet, &control).await?;
    progress.say(&format!("server    process {server} listens on {}", fleet.address()));
    create(arguments, &control).await?;
    for _ in 0..*workers {
        fleet.start_worker()?;
    }
    let ids: Vec<String> = fleet.workers().iter().map(|worker| worker.process.id().to_string()).collect();
    progress.say(&format!("fleet     {} workers, processes {}", ids.len(), ids.join(", ")));

    let mut recovery = None;
    let mut settled = false;
    while !(fleet.all_done()? && settled) {
        let status = status(&control).await?;
        settled = status.settled;
        progress.show(status.runs_done);
        let in_the_middle = status.runs_done * 100 >= total * KILL_AT_PERCENT && !settled;
        if in_the_middle && recovery.is_none() && !arguments.no_kill {
            recovery = Some(disaster(fleet, &control, &progress, status.runs_done).await?);
        }
        tokio::time::sleep(LOOK).await;
    }
    if recovery.is_none() && !arguments.no_kill {
        progress.say("no kill   the campaign was settled before there was a middle to kill in");
    }
    progress.say(&format!("settled   {} are done, and all workers have ended", output::counted(total, "run")));
    let books = books(&control).await?;
    let mut witnesses = Vec::new();
    for worker in fleet.workers() {
        witnesses.extend(witness(worker, &control).await?);
    }
    stop(fleet).await?;
    Ok(Evidence { witnesses, books, recovery })
}

/// Waits until the server answers.
async fn ready(fleet: &mut Fleet, control: &Control) -> anyhow::Result<()> {
    tokio::select! {
        answer = control.status(None) => {
            answer.context("the server does not answer")?;
            Ok(())
        }
        ended = fleet.server()?.wait() => bail!("the server ended at its start ({})", ended?),
    }
}

async fn create(arguments: &DemoArguments, control: &Control) -> anyhow::Result<()> {
    let mut creation = CreationId::NONE;
    getrandom::fill(&mut creation.0).map_err(|error| anyhow!("no random numbers for a creation's id: {error}"))?;
    let spec = CampaignSpec {
        name: CAMPAIGN.to_owned(),
        tasks: Tasks::Range { first: 0, count: arguments.tasks },
        runs: arguments.runs,
        seed: Some(arguments.seed),
        order: Order::Even,
        lease_ms: Some(values::milliseconds(arguments.lease)),
        timeout_ms: Some(limits::TIMEOUT_MS_DEFAULT),
        errors_max: Some(1),
        losses_max: None,
    };
    control.create(creation, &spec, &[]).await.context("cannot create the campaign")?;
    Ok(())
}

async fn status(control: &Control) -> anyhow::Result<CampaignStatus> {
    let mut campaigns = control.status(Some(CAMPAIGN)).await.context("cannot ask how far it is")?;
    campaigns.pop().context("the server has lost the campaign")
}

/// Kills the server and a worker, lets the rest of the fleet be alone for a while, and starts both again.
async fn disaster(fleet: &mut Fleet, control: &Control, progress: &Progress, done: u64) -> anyhow::Result<Recovery> {
    let server = fleet.server()?.id();
    fleet.kill_server()?;
    let victim = fleet.kill_a_worker()?;
    let too = victim.map_or(String::new(), |number| format!(", and worker {number} too"));
    progress.say(&format!(
        "KILL      the server (process {server}) is killed with SIGKILL after {}{too}",
        output::counted(done, "run")
    ));
    tokio::time::sleep(OUTAGE).await;
    let mut acked = 0;
    for worker in fleet.workers() {
        acked += worker.log()?.map_or(0, |log| log.acked_runs() as u64);
    }
    let server = fleet.start_server()?;
    ready(fleet, control).await?;
    let status = status(control).await?;
    let recovered = status.runs_done + status.runs_extra;
    progress.say(&format!(
        "RESTART   the server is back (process {server}) with {}; its workers had acks for {}",
        output::counted(recovered, "run"),
        output::grouped(acked)
    ));
    if victim.is_some() {
        let worker = fleet.start_worker()?;
        let (number, id) = (worker.number, worker.process.id());
        progress.say(&format!("RESTART   worker {number} (process {id}) takes the place of the killed one"));
    }
    Ok(Recovery { acked, recovered })
}

/// All counts, page by page.
async fn books(control: &Control) -> anyhow::Result<Vec<TaskBooks>> {
    let mut books = Vec::new();
    let mut from = Some(0);
    while let Some(index) = from {
        let page = control.counts_page(CAMPAIGN, index).await.context("cannot read the counts")?;
        ensure!(page.next.is_none_or(|next| next > index), "the pages of the counts do not advance");
        books.extend(page.tasks.iter().map(|(_, count)| TaskBooks {
            task: page.first + u64::from(count.index.0),
            done: count.done,
            extra: count.extra,
        }));
        from = page.next;
    }
    Ok(books)
}

/// A worker's file, and what became of every report that it did not hear about. `None` if it had no time to begin.
async fn witness(worker: &Worker, control: &Control) -> anyhow::Result<Option<Witness>> {
    let Some(log) = worker.log()? else {
        ensure!(worker.killed, "worker {} has written nothing down", worker.number);
        return Ok(None);
    };
    let mut fates = BTreeMap::new();
    for number in log.unanswered() {
        let fate = control.fate(log.session, number).await.context("cannot ask what became of a report")?;
        fates.insert(number, fate);
    }
    Ok(Some(Witness { name: format!("worker {}", worker.number), killed: worker.killed, log, fates }))
}

/// Stops the server as its operator would.
async fn stop(fleet: &mut Fleet) -> anyhow::Result<()> {
    let server = fleet.server()?;
    server.terminate().context("cannot stop the server")?;
    let status = tokio::time::timeout(STOP, server.wait()).await.context("the server does not stop on SIGTERM")??;
    ensure!(status.success(), "the server stopped with {status}");
    Ok(())
}

/// Compares, draws, prints, and decides the exit code.
fn judge(arguments: &DemoArguments, evidence: Evidence, started: Instant) -> Result<Exit, Complaint> {
    let DemoArguments { tasks, runs, lattice, seed, .. } = arguments;
    let Evidence { witnesses, books, recovery } = evidence;
    let Audit { mut checks, sessions, table } = audit(*tasks, *runs, &witnesses, &books);
    if let Some(Recovery { acked, recovered }) = recovery {
        let wrong = (recovered < acked).then(|| format!("{acked} acked before, {recovered} after"));
        let figures = format!("{} acked before, {} there after", output::grouped(acked), output::grouped(recovered));
        checks.push(Check::new("the killed server came back with every run it had acked", figures, wrong.as_slice()));
    }
    checks.push(sample(arguments, &table));
    let points = table.points(|task| occupation(task, *tasks));
    let picture = Picture { estimate: estimate(&points), points, size: *lattice, seed: *seed };
    checks.extend(threshold_check(&picture));

    for line in terminal::draw(&picture) {
        output::data(line)?;
    }
    output::data("")?;
    output::data(threshold_line(&picture.estimate))?;
    output::data(format!("digest     {} (SHA-256 of all results)", table.digest()))?;
    let drawn = std::fs::write(&arguments.svg, svg::draw(&picture));
    if drawn.is_ok() {
        output::data(format!("drawing    {}", absolute(&arguments.svg).display()))?;
    }
    if let Some(directory) = &arguments.data_dir {
        output::data(format!("data       {}", absolute(directory).display()))?;
    }
    output::data("")?;
    for session in &sessions {
        output::data(session_line(session))?;
    }
    output::data("")?;
    for check in &checks {
        output::data(check_line(check))?;
    }
    output::data("")?;
    let broken = checks.iter().filter(|check| check.verdict.is_err()).count();
    if broken > 0 {
        let error = format!("{broken} of {} checks do not hold: see above", checks.len());
        return Err(
            Complaint::new(Exit::Failed, error).hint("this is a bug in tenfold, or a damaged disk; please report it")
        );
    }
    drawn.with_context(|| format!("all checks hold, but {} cannot be written", arguments.svg.display()))?;
    let seconds = started.elapsed().as_secs_f64();
    output::data(format!("All {} checks hold. {seconds:.0} s.", checks.len()))?;
    Ok(Exit::Ok)
}

/// Some runs once more, here: a worker's result must be what its seed decides.
fn sample(arguments: &DemoArguments, table: &audit::Table) -> Check {
    let DemoArguments { tasks, runs, lattice: size, seed, .. } = arguments;
    let total = *tasks as usize * *runs as usize;
    let count = SAMPLE.min(total);
    let mut lattice = Lattice::new(*size);
    let mut wrong = Vec::new();
    for index in 0..count {
        // From the middle of each of `count` equal stretches: tasks over the whole range, and all run numbers.
        let position = (2 * index + 1) * total / (2 * count);
        let (task, run) = ((position / *runs as usize) as u32, (position % *runs as usize) as u32);
        let expected = lattice.spans(occupation(task, *tasks), run_seed(*seed, u64::from(task), u64::from(run)));
        if table.get(u64::from(task), run).is_some_and(|spans| spans != expected) {
            wrong.push(format!("task {task} run {run}"));
        }
    }
    Check::new("runs executed once more give the same", format!("{count} were"), &wrong)
}

/// Whether the fitted threshold is near the literature's; `None` without a fit.
fn threshold_check(picture: &Picture) -> Option<Check> {
    let fit = picture.fit()?;
    let distance = (fit.threshold - LITERATURE).abs();
    let allowed = ERRORS_MAX * fit.error + finite_size_shift(picture.size);
    let figures = format!("{:.1} standard errors", distance / fit.error);
    let wrong = (distance > allowed).then(|| format!("{:.5} ± {:.5}", fit.threshold, fit.error));
    Some(Check::new("the threshold is the literature's, within five standard errors", figures, wrong.as_slice()))
}

fn threshold_line(estimate: &Estimate) -> String {
    match estimate {
        Estimate::Fitted(fit) => format!(
            "threshold  {:.5} ± {:.5} (midpoint of a fitted logistic curve, standard error); literature {LITERATURE}",
            fit.threshold, fit.error
        ),
        Estimate::Bracketed { below, above } => {
            format!("threshold  between {below:.5} and {above:.5}: too few runs for a fit; literature {LITERATURE}")
        }
        Estimate::Nothing => format!("threshold  none: too few runs to see the rise; literature {LITERATURE}"),
    }
}

/// `worker 1   session 0f3c…  killed   512 reports: 508 acked, 4 unanswered (1 counted, 3 never arrived)`.
fn session_line(figures: &SessionFigures) -> String {
    let SessionFigures { name, session, killed, reports, acked, refused, unanswered, unanswered_counted } = figures;
    let [reports, acked] = [*reports, *acked].map(|count| output::grouped(count as u64));
    let refused = if *refused > 0 { format!(", {refused} refused") } else { String::new() };
    let unheard = if *unanswered > 0 {
        let lost = unanswered - unanswered_counted;
        format!(", {unanswered} unanswered ({unanswered_counted} counted, {lost} not)")
    } else {
        String::new()
    };
    let end = if *killed { "; killed" } else { "" };
    format!("{name:<10} session {session}  {reports:>6} reports: {acked} acked{refused}{unheard}{end}")
}

fn check_line(check: &Check) -> String {
    match &check.verdict {
        Ok(figures) => format!("ok      {}: {figures}", check.promise),
        Err(problem) => format!("BROKEN  {}: {problem}", check.promise),
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SessionId;

    #[test]
    fn lines_say_what_they_should() {
        let mut figures = SessionFigures {
            name: "worker 1".to_owned(),
            session: SessionId([0xab; 16]),
            killed: false,
            reports: 12,
            acked: 12,
            refused: 0,
            unanswered: 0,
            unanswered_counted: 0,
        };
        let begin = "worker 1   session abababababababababababababababab      12 reports:";
        assert_eq!(session_line(&figures), format!("{begin} 12 acked"));
        figures =
            SessionFigures { killed: true, acked: 5, refused: 1, unanswered: 6, unanswered_counted: 2, ..figures };
        assert_eq!(
            session_line(&figures),
            format!("{begin} 5 acked, 1 refused, 6 unanswered (2 counted, 4 not); killed")
        );
        assert_eq!(check_line(&Check::new("a", "b", &[])), "ok      a: b");
        assert_eq!(check_line(&Check::new("a", "b", &["c".to_owned()])), "BROKEN  a: c");
        let bracketed = threshold_line(&Estimate::Bracketed { below: 0.5, above: 0.6 });
        assert!(bracketed.contains("between 0.50000 and 0.60000"));
    }

    #[test]
    fn a_threshold_far_off_is_wrong() {
        let mut picture = picture::tests::example(1_000, 10);
        assert!(threshold_check(&picture).unwrap().verdict.is_ok());
        let Estimate::Fitted(fit) = &mut picture.estimate else { panic!("no fit") };
        fit.threshold += 6.0 * fit.error;
        assert!(threshold_check(&picture).unwrap().verdict.is_err());
        picture.estimate = Estimate::Nothing;
        assert!(threshold_check(&picture).is_none());
    }
}
