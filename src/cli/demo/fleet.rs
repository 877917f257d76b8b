//! The demo's processes and where they keep their files: started here, killed here, never left behind.
//!
//! ```text
//!   DIRECTORY/server/        the server's data directory
//!   DIRECTORY/server.log     what the server said
//!   DIRECTORY/worker-1.log   what worker 1 reported and heard (see `log.rs`)
//!   DIRECTORY/worker-1.err   what worker 1 said
//! ```
//!
//! **Invariant:** every process is owned by a [`Process`], which kills and reaps it, by its id, when it is dropped: at the
//! end, on an error, on a panic and on a signal. The directory is removed after that, if it is a temporary one.
//! Tested by `tests/demo.rs`.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::log::WorkerLog;
use super::part::{self, WorkerArguments};

/// How often a process is looked at while its end is awaited.
const LOOK: Duration = Duration::from_millis(10);
/// Lines of a log that are shown when something went wrong.
const LOG_LINES_SHOWN: usize = 20;

/// The directory of a demo; a temporary one is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Workspace {
    path: PathBuf,
    temporary: bool,
}

impl Workspace {
    /// A given directory, which must be new or empty, or a new temporary one.
    ///
    /// # Errors
    /// It has files in it, or cannot be created.
    pub(super) fn new(given: Option<&Path>) -> anyhow::Result<Self> {
        let Some(given) = given else {
            let mut random = [0; 8];
            getrandom::fill(&mut random)
                .map_err(|error| anyhow!("no random numbers for a directory's name: {error}"))?;
            let path = std::env::temp_dir().join(format!("tenfold-demo-{:016x}", u64::from_le_bytes(random)));
            std::fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
            return Ok(Self { path, temporary: true });
        };
        std::fs::create_dir_all(given).with_context(|| format!("cannot create {}", given.display()))?;
        let path = given.canonicalize().with_context(|| format!("cannot find {}", given.display()))?;
        let mut entries = std::fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if entries.next().is_some() {
            bail!("{} is not empty; the demo wants a directory of its own", path.display());
        }
        Ok(Self { path, temporary: false })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if self.temporary {
            // Nothing more can be done about a file that does not go.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// One process of the demo. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    fn start(mut command: Command, stdout: Stdio, stderr: Stdio) -> io::Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn()?;
        Ok(Self { child, ended: None })
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Waits for its end.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Kills it with SIGKILL, at once, and waits until it is gone.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        if self.ended()?.is_none() {
            self.child.kill()?;
            self.ended = Some(self.child.wait()?);
        }
        Ok(())
    }

    /// Asks it to end, with SIGTERM.
    pub(super) fn terminate(&mut self) -> io::Result<()> {
        // Not reaped yet, so the id is still its own.
        if self.ended()?.is_none() {
            kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; there is nobody to tell of anything else.
        let _ = self.kill();
    }
}

/// A worker process and its files.
#[derive(Debug)]
pub(super) struct Worker {
    /// From 1; a replacement gets a number of its own.
    pub number: usize,
    /// Whether the demo killed it.
    pub killed: bool,
    /// It.
    pub process: Process,
    log: PathBuf,
    errors: PathBuf,
}

impl Worker {
    /// What it has written down so far; `None` if it had no time to begin.
    pub(super) fn log(&self) -> anyhow::Result<Option<WorkerLog>> {
        let text = match std::fs::read_to_string(&self.log) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.log.display())),
        };
        if !text.contains('\n') {
            return Ok(None);
        }
        WorkerLog::parse(&text).map(Some).with_context(|| format!("{} makes no sense", self.log.display()))
    }
}

/// How every worker is started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    /// Tasks of the campaign.
    pub tasks: u32,
    /// Sites along an edge of the lattice.
    pub lattice: u32,
    /// Milliseconds to wait after each run.
    pub pace: u64,
}

/// The server and its workers.
#[derive(Debug)]
pub(super) struct Fleet {
    program: PathBuf,
    directory: PathBuf,
    address: String,
    server_options: Vec<String>,
    work: Work,
    /// Ended before the server when the fleet is dropped.
    workers: Vec<Worker>,
    server: Option<Process>,
}

impl Fleet {
    /// No processes yet; the server will listen on a port of the loopback that is free now.
    pub(super) fn new(directory: &Path, work: Work, server_options: Vec<String>) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let free = std::net::TcpListener::bind(("127.0.0.1", 0)).context("cannot find a free port")?;
        let address = free.local_addr().context("cannot find a free port")?.to_string();
        Ok(Self {
            program,
            directory: directory.to_owned(),
            address,
            server_options,
            work,
            workers: Vec::new(),
            server: None,
        })
    }

    /// Where the server listens.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Every worker there ever was.
    pub(super) fn workers(&self) -> &[Worker] {
        &self.workers
    }

    /// Starts the server (again) and returns its process id; it is not ready yet.
    pub(super) fn start_server(&mut self) -> anyhow::Result<u32> {
        let log = append(&self.server_log())?;
        let data = self.directory.join("server");
        let mut words = vec!["serve".into(), "--".into(), "--data-dir".into(), data.into_os_string()];
        words.extend(["--listen".into(), self.address.clone().into()]);
        words.extend(self.server_options.iter().map(Into::into));
        let command = part::command(&self.program, words);
        let server = Process::start(command, log.try_clone()?.into(), log.into()).context("cannot start the server")?;
        Ok(self.server.insert(server).id())
    }

    /// Starts one more worker.
    pub(super) fn start_worker(&mut self) -> anyhow::Result<&Worker> {
        let number = self.workers.len() + 1;
        let log = self.directory.join(format!("worker-{number}.log"));
        let errors = self.directory.join(format!("worker-{number}.err"));
        let Work { tasks, lattice, pace } = self.work;
        let arguments = WorkerArguments { at: self.address.clone(), file: log.clone(), number, tasks, lattice, pace };
        let command = part::command(&self.program, arguments.words());
        let process = Process::start(command, Stdio::null(), append(&errors)?.into())
            .with_context(|| format!("cannot start worker {number}"))?;
        self.workers.push(Worker { number, killed: false, process, log, errors });
        self.workers.last().context("it was just added")
    }

    /// The server's process.
    pub(super) fn server(&mut self) -> anyhow::Result<&mut Process> {
        self.server.as_mut().context("the server was not started")
    }

    /// Kills the server with SIGKILL.
    pub(super) fn kill_server(&mut self) -> anyhow::Result<()> {
        self.server()?.kill().context("cannot kill the server")
    }

    /// Kills the first worker that still runs with SIGKILL and returns its number; `None` if all have ended.
    pub(super) fn kill_a_worker(&mut self) -> anyhow::Result<Option<usize>> {
        for worker in &mut self.workers {
            if worker.process.ended()?.is_none() {
                worker.process.kill().with_context(|| format!("cannot kill worker {}", worker.number))?;
                worker.killed = true;
                return Ok(Some(worker.number));
            }
        }
        Ok(None)
    }

    /// Whether all workers have ended, each either killed by the demo or content.
    ///
    /// # Errors
    /// The server has ended, or a worker has failed: neither must happen by itself.
    pub(super) fn all_done(&mut self) -> anyhow::Result<bool> {
        if let Some(status) = self.server()?.ended()? {
            bail!("the server ended by itself ({status})");
        }
        let mut all = true;
        for worker in &mut self.workers {
            match worker.process.ended()? {
                None => all = false,
                Some(status) if status.success() || worker.killed => {}
                Some(status) => {
                    let said = last_lines(&worker.errors, LOG_LINES_SHOWN);
                    bail!("worker {} failed ({status}): {said}", worker.number);
                }
            }
        }
        Ok(all)
    }

    /// The end of the server's log, for a person who must find out what went wrong.
    pub(super) fn server_log_end(&self) -> String {
        last_lines(&self.server_log(), LOG_LINES_SHOWN)
    }

    fn server_log(&self) -> PathBuf {
        self.directory.join("server.log")
    }
}

fn append(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.with_context(|| format!("cannot write {}", path.display()))
}

/// The last lines of a file; empty if it cannot be read.
fn last_lines(path: &Path, count: usize) -> String {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
