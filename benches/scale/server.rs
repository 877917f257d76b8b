//! Servers as processes, on data directories of their own: started, watched, killed; and commands given to them.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server; killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    directory: PathBuf,
    pub(crate) address: String,
    /// From the start of its process until it listened.
    pub(crate) started: Duration,
    /// What it said until then.
    pub(crate) said: Vec<String>,
}

impl Server {
    /// Starts on a directory, on a port that is free.
    pub(crate) fn start(directory: &Path) -> Self {
        Self::start_with(directory, "127.0.0.1:0", &[])
    }

    pub(crate) fn start_with(directory: &Path, listen: &str, arguments: &[&str]) -> Self {
        let began = Instant::now();
        let mut command = tenfold();
        command.args(["serve", "--listen", listen, "--drain", "1ms", "--data-dir"]).arg(directory).args(arguments);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let address = loop {
            let line = lines.next().unwrap_or_else(|| panic!("the server ended: {said:?}")).unwrap();
            if let Some(address) = line.strip_prefix("listening on ") {
                break address.to_owned();
            }
            said.push(line);
        };
        let started = began.elapsed();
        // Whatever it says later is read, so that it never waits for a reader, and shown.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("server: {line}")));
        Self { child, directory: directory.to_owned(), address, started, said }
    }

    /// Runs a command of the program against it; how long it took.
    pub(crate) fn command(&self, arguments: &[&str]) -> Duration {
        let began = Instant::now();
        let mut command = tenfold();
        command.args(arguments).args(["--server", &self.address]).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().unwrap().success(), "{arguments:?}");
        began.elapsed()
    }

    /// A campaign of so many numbers, its tasks lent evenly.
    pub(crate) fn create(&self, tasks: u32, runs: u32) -> Duration {
        let (name, range, runs) = (format!("t{tasks}"), format!("0..{tasks}"), runs.to_string());
        self.command(&["create", &name, "--range", &range, "--runs", &runs, "--order", "even"])
    }

    /// Memory that it has in RAM, in bytes.
    pub(crate) fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1_024.0
    }

    /// Room that its directory takes on the disk, in bytes.
    pub(crate) fn disk(&self) -> f64 {
        room(&self.directory)
    }

    /// Kills it; what it was started on.
    pub(crate) fn kill(self) -> PathBuf {
        self.directory.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tenfold() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tenfold"))
}

fn room(path: &Path) -> f64 {
    use std::os::unix::fs::MetadataExt;
    // A file may go away while it is looked at.
    let Ok(meta) = path.symlink_metadata() else { return 0.0 };
    let own = meta.blocks() as f64 * 512.0;
    if !meta.is_dir() {
        return own;
    }
    own + std::fs::read_dir(path).unwrap().map(|entry| room(&entry.unwrap().path())).sum::<f64>()
}

/// This program once more, in another part: it says a line when it is ready, and goes on when it is told to.
pub(crate) struct Part {
    child: Child,
    orders: ChildStdin,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Part {
    pub(crate) fn start(words: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { orders: child.stdin.take().unwrap(), lines, child }
    }

    /// The next line it says.
    pub(crate) fn line(&mut self) -> String {
        self.lines.next().expect("a part has ended").unwrap()
    }

    pub(crate) fn go_on(&mut self) {
        self.orders.write_all(b"\n").unwrap();
    }

    pub(crate) fn end(mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}
