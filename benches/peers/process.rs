//! Servers as processes: found, started on a free port, waited for, ended.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

/// First word of this program when it is to become another one that dies with it: PID PROGRAM WORD….
pub(crate) const BECOME: &str = "become";

/// A server that does not listen after so many looks never will.
const LOOKS: u32 = 3_000;
const LOOK: Duration = Duration::from_millis(10);

/// A program that is not installed.
#[derive(Debug)]
pub(crate) struct Missing {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
}

/// Where a program is: on the path, where servers are although they are not on everybody's path, or in one of `more`.
pub(crate) fn find(program: &'static str, package: &'static str, more: &[PathBuf]) -> Result<PathBuf, Missing> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .chain(more.iter().cloned())
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .ok_or(Missing { program, package })
}

/// The first line that a program says with these arguments.
pub(crate) fn first_line(program: &Path, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
}

/// An address on this machine where nobody listens now.
pub(crate) fn free_address() -> (String, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (address.to_string(), address.port())
}

/// A command that starts `program` so that it dies with the thread that starts it.
pub(crate) fn dying_with_us(program: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(BECOME).arg(std::process::id().to_string()).arg(program);
    command
}

/// The process side of [`dying_with_us`].
pub(crate) fn become_program(parent: &str, program: &str, words: &[&str]) {
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    // If it died before the line above, nobody would send the signal any more.
    let orphaned = rustix::process::getppid().is_none_or(|pid| pid.as_raw_nonzero().to_string() != parent);
    assert!(!orphaned, "whoever started this is gone");
    panic!("cannot start {program}: {}", Command::new(program).args(words).exec());
}

/// A running server; ended when it is dropped.
pub(crate) struct Process {
    child: Child,
    address: String,
    log: PathBuf,
    end: Signal,
}

impl Process {
    /// Starts it and waits until it listens. What it says goes to the file `log` in `directory`.
    pub(crate) fn start(command: &mut Command, address: String, directory: &Path, end: Signal) -> Self {
        let log = directory.join("log");
        let file = File::create(&log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let mut process = Self { child: command.spawn().unwrap(), address, log, end };
        for _ in 0..LOOKS {
            if let Some(status) = process.child.try_wait().unwrap() {
                panic!("{command:?} ended instead of listening ({status}):\n{}", process.said());
            }
            if TcpStream::connect(&process.address).is_ok() {
                return process;
            }
            std::thread::sleep(LOOK);
        }
        panic!("{command:?} does not listen at {}:\n{}", process.address, process.said());
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), self.end);
        let _ = self.child.wait();
    }
}
