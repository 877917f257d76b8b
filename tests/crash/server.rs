//! A real `tenfold serve` on a data directory and a port of its own: started, killed with SIGKILL, started again.
//!
//! ```text
//!   DIRECTORY/data      the data directory
//!   DIRECTORY/ready     written by a server that answers
//!   DIRECTORY/log       what all servers said; shown when a test fails
//! ```
//!
//! **Invariant.** A server dies with the test: it is killed when it is dropped, and on Linux the kernel kills it if the
//! test is killed.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::net::TcpListener;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tenfold::client::Control;
use tenfold_checker::verified::Verified;
use tokio::time::{sleep, timeout};

/// First word of this program when it is to become another one that dies with it: PID PROGRAM WORD….
pub(crate) const BECOME: &str = "become";

/// Only a failing test waits this long for anything.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Every commit is written while the next is decided on.
const ALL_LARGE: [&str; 2] = ["--large-commits", "1"];

/// How often something is looked at that cannot be waited for.
pub(crate) const LOOK: Duration = Duration::from_millis(2);

/// Lines of the log that are shown when a test fails.
const LOG_LINES_SHOWN: usize = 40;

/// Ports are taken from here: below those that systems give to connecting sockets, since a client that tries to connect
/// to a port of these while nobody listens may end up connected to itself, and then holds the server's port.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// Waits for something, or fails.
pub(crate) async fn patiently<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Runs an asynchronous test.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Where servers run, one at a time.
#[derive(Debug)]
pub(crate) struct Site {
    // Before the directory, so that the server is gone when that is removed.
    server: Option<Child>,
    directory: TempDir,
    port: u16,
    options: Vec<String>,
    starter: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    /// How many servers were started.
    servers: u32,
}

impl Site {
    /// No server yet. `options` are further words for `tenfold serve`.
    pub(crate) fn new(options: &[&str]) -> Self {
        let options = options.iter().map(|&word| word.to_owned()).collect();
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        Self { server: None, directory, port, options, starter: Vec::new(), environment: Vec::new(), servers: 0 }
    }

    /// Its servers are started by a shell after `words`, for instance a limit that they are to live with.
    pub(crate) fn after_shell(mut self, words: &str) -> Self {
        self.starter = ["sh", "-c", &format!("{words} && exec \"$0\" \"$@\"")].map(OsString::from).into();
        self
    }

    /// Its servers find these variables in their environment.
    pub(crate) fn in_environment(mut self, variables: &[(OsString, OsString)]) -> Self {
        self.environment = variables.to_vec();
        self
    }

    /// With a server that is ready.
    pub(crate) async fn with_server(options: &[&str]) -> Self {
        let mut site = Self::new(options);
        site.start().await;
        site
    }

    /// `HOST:PORT`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A file of the test's own.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Asks and orders.
    pub(crate) fn control(&self) -> Control {
        Control::new(vec![self.address()], PATIENCE)
    }

    /// Starts a server and waits until it answers.
    pub(crate) async fn start(&mut self) {
        self.spawn(None);
        self.ready().await;
    }

    /// Starts a server that dies at `fault` (see `src/server/fault.rs`), and waits until it answers.
    pub(crate) async fn start_with_fault(&mut self, fault: &str) {
        self.spawn(Some(fault));
        self.ready().await;
    }

    /// Starts a server.
    pub(crate) fn spawn(&mut self, fault: Option<&str>) {
        assert!(self.server.is_none(), "one server at a time");
        let _ = fs::remove_file(self.file("ready"));
        let log = OpenOptions::new().append(true).create(true).open(self.file("log")).unwrap();
        let program = OsString::from(env!("CARGO_BIN_EXE_tenfold"));
        let mut words = self.starter.iter().chain([&program]);
        let mut command = dying_with_us(Path::new(words.next().unwrap()));
        command.args(words).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.arg("serve").arg("--data-dir").arg(self.file("data")).arg("--listen").arg(self.address());
        command.arg("--ready-file").arg(self.file("ready")).args(&self.options);
        // Every second one has another thread write its commits.
        self.servers += 1;
        if self.servers.is_multiple_of(2) {
            command.args(ALL_LARGE);
        }
        command.env_remove("TENFOLD_LOG").env_remove("TENFOLD_SERVER").env_remove("TENFOLD_FAULT");
        if let Some(fault) = fault {
            command.env("TENFOLD_FAULT", fault);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.server = Some(command.spawn().unwrap());
    }

    /// Waits until the server answers.
    pub(crate) async fn ready(&mut self) {
        let ready = async {
            while !self.file("ready").exists() {
                let ended = self.server.as_mut().unwrap().try_wait().unwrap();
                assert!(ended.is_none(), "the server ended instead of serving: {}", ended.unwrap());
                sleep(LOOK).await;
            }
        };
        timeout(PATIENCE, ready).await.expect("the server to be ready");
    }

    /// Kills the server with SIGKILL, whatever it is doing.
    pub(crate) fn kill(&mut self) {
        let mut server = self.server.take().unwrap();
        let ended = server.try_wait().unwrap();
        assert!(ended.is_none(), "the server had ended by itself: {}", ended.unwrap());
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// The server's process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(self.server.as_ref().unwrap())
    }

    /// Sends the server a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// What all servers said so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.file("log")).unwrap()).into_owned()
    }

    /// Waits until the server has died at its fault point.
    pub(crate) async fn died(&mut self) {
        let mut server = self.server.take().unwrap();
        let ended = patiently("the server to die at its fault point", ended(&mut server)).await;
        assert!(ended.signal().is_some(), "the server was to abort, but it {ended}");
    }

    /// Whether the server runs.
    pub(crate) fn assert_alive(&mut self) {
        let ended = self.server.as_mut().unwrap().try_wait().unwrap();
        assert!(ended.is_none(), "the server ended by itself: {}", ended.unwrap());
    }

    /// Checks what a killed server left, as `tenfold verify` does.
    pub(crate) fn verify(&self) {
        self.dump();
    }

    /// The same; what it left, as `tenfold verify --dump` prints it.
    pub(crate) fn dump(&self) -> Verified {
        assert!(self.server.is_none(), "the server still runs");
        let (report, state) = tenfold::store::verify_state(&self.file("data")).unwrap();
        let end = format!("digest sha256={}", report.digest);
        let lines: Vec<String> = state.lines().chain([end]).collect();
        Verified::parse(&lines.join("\n")).unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        if std::thread::panicking() {
            self.directory.disable_cleanup(true);
            let place = self.directory.path().display();
            eprintln!(
                "-- the end of the server's log; all files are kept in {place}\n{}\n--",
                last_lines(&self.file("log"))
            );
        }
    }
}

/// The last lines of a file; empty if it cannot be read.
pub(crate) fn last_lines(path: &Path) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}

/// Waits for a process to end.
pub(crate) async fn ended(child: &mut Child) -> ExitStatus {
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        sleep(LOOK).await;
    }
}

/// A command that starts `program` so that it dies with the thread that starts it.
pub(crate) fn dying_with_us(program: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(BECOME).arg(std::process::id().to_string()).arg(program);
    command
}

/// The process side of [`dying_with_us`].
pub(crate) fn become_program(words: &[String]) -> ExitCode {
    let [parent, program, words @ ..] = words else { return ExitCode::FAILURE };
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
    // If it died before the line above, nobody would send the signal any more.
    if rustix::process::getppid().map(|pid| pid.as_raw_nonzero().to_string()) != Some(parent.clone()) {
        return ExitCode::FAILURE;
    }
    let error = Command::new(program).args(words).exec();
    eprintln!("cannot start {program}: {error}");
    ExitCode::FAILURE
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
