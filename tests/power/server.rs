//! A real `tenfold serve` on the mounted disk: started, asked to stop, killed.
//!
//! **Invariant.** A server dies with the test: it is killed when it is dropped, and the kernel kills it if the test is
//! killed, for which this program starts itself first as `power become …`.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// First word of this program when it is to become another one that dies with the test: PID PROGRAM WORD….
pub(crate) const BECOME: &str = "become";

/// The data directory, from the top of the disk.
pub(crate) const DATA: &str = "data";

/// Only a failing test waits this long for anything.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// What servers give their disk: for a commit; ten times that, still well below [`PATIENCE`], to get on while they start.
const DISK_TIMEOUT: &str = "6s";

/// Checkpoints now and then, and commits of several records between them, although little is done.
const PACE: &str = "12000,24,150";

/// Every commit is written while the next is decided on.
const ALL_LARGE: [&str; 2] = ["--large-commits", "1"];

const LOOK: Duration = Duration::from_millis(1);

/// Below the ports that systems give to connecting sockets, so that no client connects to itself.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// Where servers run, one at a time.
pub(crate) struct Site {
    server: Option<Child>,
    data: PathBuf,
    ready: PathBuf,
    log: PathBuf,
    port: u16,
    /// How many servers were started.
    servers: u32,
}

impl Site {
    /// No server yet. `data` is the data directory, `files` a directory for what servers write elsewhere.
    pub(crate) fn new(data: &Path, files: &Path) -> Self {
        fs::create_dir_all(files).unwrap();
        let (ready, log) = (files.join("ready"), files.join("log"));
        Self { server: None, data: data.to_owned(), ready, log, port: free_port(), servers: 0 }
    }

    /// `HOST:PORT`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts a server.
    pub(crate) fn spawn(&mut self) {
        assert!(self.server.is_none(), "one server at a time");
        let _ = fs::remove_file(&self.ready);
        let log = File::options().append(true).create(true).open(&self.log).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(BECOME).arg(std::process::id().to_string()).arg(env!("CARGO_BIN_EXE_tenfold"));
        command.arg("serve").arg("--data-dir").arg(&self.data).args(["--listen", &self.address(), "--drain", "1ms"]);
        command.arg("--ready-file").arg(&self.ready).args(["--disk-timeout", DISK_TIMEOUT, "--pace", PACE]);
        // Every second one has another thread write its commits.
        self.servers += 1;
        if self.servers.is_multiple_of(2) {
            command.args(ALL_LARGE);
        }
        command.env_remove("TENFOLD_LOG").env_remove("TENFOLD_SERVER").env_remove("TENFOLD_FAULT");
        self.server = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// Waits until the server answers; else how it ended.
    pub(crate) fn wait_until_ready(&mut self) -> Result<(), String> {
        for _ in 0..PATIENCE.as_millis() {
            if self.ready.exists() {
                return Ok(());
            }
            if let Some(status) = self.ended() {
                return Err(format!("the server ended instead of serving ({status}): {}", self.last_words()));
            }
            std::thread::sleep(LOOK);
        }
        Err("the server was not ready in time".to_owned())
    }

    /// How the server has ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.server.as_mut()?.try_wait().unwrap()
    }

    /// Waits until the server has ended by itself; `None` if it does not.
    pub(crate) fn wait_for_end(&mut self, patience: Duration) -> Option<ExitStatus> {
        for _ in 0..patience.as_millis() {
            if let Some(status) = self.ended() {
                self.server = None;
                return Some(status);
            }
            std::thread::sleep(LOOK);
        }
        None
    }

    /// Asks the server to stop, and waits.
    pub(crate) fn stop(&mut self) -> Option<ExitStatus> {
        if self.ended().is_none() {
            kill_process(Pid::from_child(self.server.as_ref()?), Signal::TERM).unwrap();
        }
        self.wait_for_end(PATIENCE)
    }

    /// Sends SIGKILL, and does not wait: a process whose disk does not answer cannot end.
    pub(crate) fn strike(&mut self) {
        if let Some(server) = self.server.as_mut() {
            server.kill().unwrap();
        }
    }

    /// Waits for the end of a server that was struck.
    pub(crate) fn bury(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.wait().unwrap();
        }
    }

    /// Kills the server.
    pub(crate) fn kill(&mut self) {
        self.strike();
        self.bury();
    }

    /// What all servers have said, the end of it.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(6)..].join("\n")
    }

    /// The identity of the data directory, as its READY says.
    pub(crate) fn instance(&self) -> String {
        let text = fs::read_to_string(self.data.join("READY")).unwrap();
        text.lines().find_map(|line| line.strip_prefix("instance ")).unwrap().to_owned()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The process side of [`Site::spawn`].
pub(crate) fn become_program(words: &[String]) -> std::process::ExitCode {
    let [parent, program, words @ ..] = words else { return std::process::ExitCode::FAILURE };
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    // If it died before the line above, nobody would send the signal any more.
    if rustix::process::getppid().map(|pid| pid.as_raw_nonzero().to_string()) == Some(parent.clone()) {
        let error = Command::new(program).args(words).exec();
        eprintln!("cannot start {program}: {error}");
    }
    std::process::ExitCode::FAILURE
}

/// A port that nobody listens on now. Every one is given out once in this process.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = PORTS.end - PORTS.start;
    // Two runs at a time begin at different places.
    let begin = u16::try_from(std::process::id().wrapping_mul(97) % u32::from(span)).unwrap();
    loop {
        let port = PORTS.start + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % span;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
