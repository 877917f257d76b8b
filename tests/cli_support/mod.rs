//! What the tests of the command line share: a real server in a temporary directory, and the program against it.
//!
//! Nothing waits for a fixed time. What other processes do is looked for again and again, for at most half a minute.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
// Every test file uses its own part of this.
#![allow(dead_code)]

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

/// The program, with nothing of this environment that could change what it does.
pub(crate) fn tenfold(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenfold"));
    command.args(arguments).stdin(Stdio::null());
    for name in ["TENFOLD_SERVER", "TENFOLD_LOG", "NO_COLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command
}

/// Looks until `look` finds something.
pub(crate) fn eventually<Found>(what: &str, mut look: impl FnMut() -> Option<Found>) -> Found {
    for _ in 0..3_000 {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}: not within half a minute");
}

/// The first line of a file, once it is complete.
pub(crate) fn line_of(path: &Path) -> String {
    eventually(&path.display().to_string(), || {
        let text = std::fs::read_to_string(path).ok()?;
        text.split_once('\n').map(|(line, _)| line.to_owned())
    })
}

/// The process whose id is in a file, once it is there.
pub(crate) fn pid_in(path: &Path) -> Pid {
    Pid::from_raw(line_of(path).trim().parse().unwrap()).unwrap()
}

/// Waits until a process has ended; one that nobody has reaped yet has ended, too.
pub(crate) fn assert_gone(pid: Pid) {
    eventually(&format!("the end of process {}", pid.as_raw_pid()), || {
        let ended = || {
            let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
            Some(state.rsplit(')').next()?.trim_start().starts_with('Z'))
        };
        (test_kill_process(pid).is_err() || ended() == Some(true)).then_some(())
    });
}

pub(crate) fn is_alive(pid: Pid) -> bool {
    test_kill_process(pid).is_ok()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A running `tenfold serve`; killed when dropped.
pub(crate) struct Server {
    pub(crate) directory: TempDir,
    pub(crate) address: String,
    process: Child,
}

impl Server {
    /// Starts one in a fresh directory, on a free port.
    pub(crate) fn start() -> Self {
        Self::start_over(tempfile::tempdir().unwrap())
    }

    /// Starts one whose data directory, `data` in `directory`, may be there already.
    pub(crate) fn start_over(directory: TempDir) -> Self {
        let (process, address) = serve(&directory.path().join("data"), "127.0.0.1:0");
        Self { directory, address, process }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A path in the directory, for what runs want to say.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The program, told about this server.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = tenfold(arguments);
        command.env("TENFOLD_SERVER", &self.address).current_dir(self.directory.path());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs the program, which must succeed; its stdout.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    }

    /// Starts the program.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(arguments);
        Running(Some(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()))
    }

    /// The object that `tenfold status NAME --json` prints for a campaign.
    pub(crate) fn status(&self, name: &str) -> serde_json::Value {
        let object: serde_json::Value = serde_json::from_str(&self.ok(&["status", name, "--json"])).unwrap();
        object["campaigns"][0].clone()
    }

    /// The tasks that `tenfold counts NAME --json` prints.
    pub(crate) fn tasks(&self, name: &str) -> Vec<serde_json::Value> {
        let object: serde_json::Value = serde_json::from_str(&self.ok(&["counts", name, "--json"])).unwrap();
        object["tasks"].as_array().unwrap().clone()
    }

    /// Kills the server as a crash would.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts the server again, on the same address.
    pub(crate) fn start_again(&mut self) {
        let _ = std::fs::remove_file(self.data_dir().with_extension("ready"));
        let address = self.address.clone();
        (self.process, self.address) = serve(&self.data_dir(), &address);
    }

    /// Stops the server as its operator would.
    pub(crate) fn stop(&mut self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn serve(data_dir: &Path, listen: &str) -> (Child, String) {
    let ready = data_dir.with_extension("ready");
    let mut command = tenfold(&["serve", "--listen", listen]);
    command.arg("--data-dir").arg(data_dir).arg("--ready-file").arg(&ready);
    let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let address = eventually("a listening server", || {
        assert!(process.try_wait().unwrap().is_none(), "the server has ended");
        let text = std::fs::read_to_string(&ready).ok()?;
        let address: SocketAddr = text.split_once('\n')?.0.split_whitespace().find_map(|word| word.parse().ok())?;
        Some(address.to_string())
    });
    (process, address)
}

/// A running program; killed when dropped.
pub(crate) struct Running(Option<Child>);

impl Running {
    pub(crate) fn child(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        kill_process(Pid::from_child(self.child()), signal).unwrap();
    }

    /// Reads stderr until `text` has come.
    pub(crate) fn wait_for_stderr(&mut self, text: &str) {
        let stderr = self.child().stderr.as_mut().unwrap();
        let mut seen = Vec::new();
        let mut byte = [0];
        while !String::from_utf8_lossy(&seen).contains(text) {
            let count = stderr.read(&mut byte).unwrap();
            assert!(count > 0, "{text:?} never came: {}", String::from_utf8_lossy(&seen));
            seen.push(byte[0]);
        }
    }

    /// Waits for its end.
    pub(crate) fn output(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
