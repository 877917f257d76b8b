//! The processes that the demo starts are this very program again: `tenfold demo-part … worker` and `… serve`.
//!
//! ```text
//!   demo ──▶ demo-part serve ──(becomes)──▶ tenfold serve       demo ──▶ demo-part worker
//! ```
//!
//! Either first asks the system to be killed when the demo dies, so that even a demo that was killed itself leaves
//! nothing behind (Linux; elsewhere a killed demo leaves its processes, and says so in its help).
//! The worker uses the client library like anybody else: take a lease, do its runs, report. What makes it a witness is
//! [`super::log`]: it writes down what it is about to report *before* it hands the report over.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use rustix::process::{Pid, getppid};
use tokio::sync::mpsc;

use super::log::{Execution, Heard, LogWriter};
use super::percolation::{Lattice, occupation};
use super::{CAMPAIGN, Exit};
use crate::cli::exit::Complaint;
use crate::client::{Answer, Client, Config, Lease, Verdict};
use crate::types::{Outcome, Want};

pub(crate) const EXAMPLE: &str = "\
Example:
  tenfold demo";

/// Leases a worker holds at a time: enough that it never waits for the next one.
const LEASES: u32 = 4;
/// Runs of a lease, at most.
const RUNS: u32 = 4;
/// Reports that wait for their answer; more than a worker has leases.
const ANSWERS_MAX: usize = 1_024;
/// How long a worker that is done waits for its last answers.
const GRACE: Duration = Duration::from_mins(1);

/// Arguments of the hidden `tenfold demo-part`.
#[derive(Debug, Args)]
pub struct PartArguments {
    /// The process id of the demo; without it there is nothing to do
    #[arg(long, value_name = "PID")]
    parent: i32,
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Execute runs of the demo's campaign until it is settled
    #[command(after_help = EXAMPLE)]
    Worker(WorkerArguments),
    /// Become `tenfold serve` with these arguments
    #[command(after_help = EXAMPLE)]
    Serve {
        /// What `tenfold serve` is to be told
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
}

/// What a worker must know.
#[derive(Clone, Debug, Args)]
pub(super) struct WorkerArguments {
    /// Where the server listens
    #[arg(long, value_name = "ADDR")]
    pub at: String,
    /// The file to write to; must not exist
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// Its number, for people
    #[arg(long)]
    pub number: usize,
    /// Tasks of the campaign
    #[arg(long)]
    pub tasks: u32,
    /// Sites along an edge of the lattice
    #[arg(long)]
    pub lattice: u32,
    /// Milliseconds to wait after each run
    #[arg(long)]
    pub pace: u64,
}

impl WorkerArguments {
    /// The same, as words of a command line.
    pub(super) fn words(&self) -> Vec<OsString> {
        let Self { at, file, number, tasks, lattice, pace } = self;
        let mut words: Vec<OsString> = vec!["worker".into(), "--at".into(), at.into(), "--file".into(), file.into()];
        let numbers = [
            ("--number", number.to_string()),
            ("--tasks", tasks.to_string()),
            ("--lattice", lattice.to_string()),
            ("--pace", pace.to_string()),
        ];
        for (name, value) in numbers {
            words.extend([name.into(), value.into()]);
        }
        words
    }
}

/// A command that starts one part of the demo: `words` are those of [`WorkerArguments::words`], or `serve -- …`.
pub(super) fn command(program: &Path, words: impl IntoIterator<Item = OsString>) -> Command {
    let mut command = Command::new(program);
    command.arg("demo-part").arg("--parent").arg(std::process::id().to_string()).args(words);
    // What a user set for other servers and other logs is not meant for these.
    command.env_remove("TENFOLD_SERVER").env_remove("TENFOLD_LOG");
    // A Ctrl-C on the terminal goes to the demo alone, which then ends its parts.
    command.process_group(0);
    command
}

/// Plays one part. `Serve` does not return if all goes well.
///
/// # Errors
/// The demo is gone, the server program cannot be started, or the worker saw something that must not be.
pub fn part(arguments: PartArguments) -> Result<Exit, Complaint> {
    die_with_parent().context("cannot tie this process to the demo")?;
    // The demo may have died before the line above: then nobody would send the signal any more.
    if getppid().map(Pid::as_raw_pid) != Some(arguments.parent) {
        return Err(Complaint::new(Exit::Failed, "the demo that started this process is gone"));
    }
    match arguments.part {
        Part::Serve { arguments } => {
            let program = std::env::current_exe().context("cannot find this program")?;
            let error = Command::new(program).arg("serve").args(arguments).exec();
            Err(anyhow::Error::new(error).context("cannot start the server").into())
        }
        Part::Worker(arguments) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(work(arguments))?;
            Ok(Exit::Ok)
        }
    }
}

#[cfg(target_os = "linux")]
fn die_with_parent() -> std::io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?)
}

#[cfg(not(target_os = "linux"))]
#[allow(clippy::unnecessary_wraps)]
fn die_with_parent() -> std::io::Result<()> {
    Ok(())
}

/// Takes leases, does their runs and reports them, until all is settled.
async fn work(arguments: WorkerArguments) -> anyhow::Result<()> {
    let WorkerArguments { at, file, number, tasks, lattice, pace } = arguments;
    let pace = Duration::from_millis(pace);
    let mut config = Config::new([at]);
    config.name = format!("demo worker {number}");
    config.want = Want { leases: LEASES, runs: RUNS, campaigns: vec![CAMPAIGN.to_owned()] };
    config.until_done = true;
    let client = Client::start(config)?;
    let session = client.session();
    let mut log = LogWriter::create(&file, session).with_context(|| format!("cannot write {}", file.display()))?;
    let (answers, unheard) = mpsc::channel(ANSWERS_MAX);
    let listener = tokio::spawn(listen(unheard, log.another()?));
    let mut lattice = Lattice::new(lattice);
    while let Some(lease) = client.next_lease().await {
        let executions = execute(&lease, &mut lattice, tasks, pace).await?;
        let (id, runs) = (lease.id().to_u64(), lease.runs());
        // What is not in the file was never reported.
        let mut noted = Ok(());
        let answer = lease.report_noted(Outcome::Done { runs }, |number| noted = log.intent(number, id, &executions));
        noted.context("cannot write down a report")?;
        ensure!(answer.session() == session, "the server has forgotten this worker's session");
        answers.send(answer).await.context("nobody listens to the answers any more")?;
    }
    drop(answers);
    listener.await.context("listening to the answers failed")??;
    let closed = client.close(GRACE).await;
    if !closed.unanswered.is_empty() {
        bail!("{} reports stayed unanswered", closed.unanswered.len());
    }
    Ok(())
}

/// Does all runs of a lease. A lease that was lost on the way is finished all the same: late work counts, too.
async fn execute(lease: &Lease, lattice: &mut Lattice, tasks: u32, pace: Duration) -> anyhow::Result<Vec<Execution>> {
    let task = u32::try_from(lease.task()).context("the demo has no such task")?;
    let probability = occupation(task, tasks);
    let mut executions = Vec::with_capacity(lease.runs() as usize);
    for index in 0..lease.runs() {
        let seed = lease.seed(index).context("the demo's campaign has no seeds")?;
        let spans = lattice.spans(probability, seed);
        executions.push(Execution { task: lease.task(), run: lease.first_run() + index, spans });
        // Lets the answers in between.
        tokio::task::yield_now().await;
        if !pace.is_zero() {
            tokio::time::sleep(pace).await;
        }
    }
    Ok(executions)
}

/// Writes down every answer, in the order of the reports.
async fn listen(mut unheard: mpsc::Receiver<Answer>, mut log: LogWriter) -> anyhow::Result<()> {
    while let Some(answer) = unheard.recv().await {
        let number = answer.number();
        let heard = match answer.await {
            Verdict::Counted => Heard::Counted,
            Verdict::Refused(reason) => Heard::Refused(reason.to_string()),
            Verdict::Unknown => Heard::Unknown,
        };
        log.ack(number, &heard).context("cannot write down an answer")?;
    }
    Ok(())
}
