//! Servers as processes: started, watched, ended; and the load against one of them.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What Linux counts processor time in, whatever its own clock does.
const TICKS_PER_SECOND: f64 = 100.0;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Ceiling,
    Epoll,
    Tenfold,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Ceiling, Self::Epoll, Self::Tenfold];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ceiling => "ceiling",
            Self::Epoll => "ceiling-epoll",
            Self::Tenfold => "tenfold",
        }
    }
}

/// A running server; killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    address: String,
}

/// What one load measured.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measured {
    /// Cycles a second.
    pub(crate) rate: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    /// Processor time of the server for one cycle, in microseconds.
    pub(crate) cpu: f64,
    /// Bytes that the server had written to the disk for one cycle.
    pub(crate) written: f64,
}

impl Server {
    pub(crate) fn start(kind: Kind, directory: &Path) -> Self {
        let mut command = match kind {
            Kind::Tenfold => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_tenfold"));
                command.args(["serve", "--listen", "127.0.0.1:0", "--drain", "1ms", "--data-dir"]);
                command.arg(directory.join("data")).stdout(Stdio::null()).stderr(Stdio::piped());
                command
            }
            Kind::Ceiling | Kind::Epoll => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.arg(kind.word()).arg(directory.join(kind.word())).stdout(Stdio::piped());
                command
            }
        };
        let mut child = command.stdin(Stdio::null()).spawn().unwrap();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let said: Box<dyn Read + Send> = match (out, err) {
            (Some(out), _) => Box::new(out),
            (None, err) => Box::new(err.unwrap()),
        };
        let mut lines = BufReader::new(said).lines();
        let address = loop {
            let line = lines.next().expect("the server ended instead of listening").unwrap();
            if let Some(address) = line.strip_prefix("listening on ") {
                break address.to_owned();
            }
        };
        // Whatever it says later is read, so that it never waits for a reader, and shown.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("server: {line}")));
        let server = Self { child, address };
        if kind == Kind::Tenfold {
            server.create();
        }
        server
    }

    fn create(&self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenfold"));
        command.args(["create", "load", "--range", "0..10000000", "--runs", "100", "--server", &self.address]);
        assert!(command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success(), "no campaign");
    }

    /// Has `clients` clients report `batch` runs a message for so many seconds.
    pub(crate) fn load(&self, clients: u32, batch: u32, seconds: f64) -> Measured {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("load").arg(&self.address).args([clients, batch].map(|number| number.to_string()));
        command.arg(seconds.to_string());
        let mut load = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(load.stdout.take().unwrap()).lines();
        let mut line = || lines.next().expect("the load ended").unwrap();
        assert_eq!(line(), "begin");
        let (cpu, written) = (self.cpu(), self.written());
        let figures: Vec<f64> = line().split(' ').map(|word| word.parse().unwrap()).collect();
        let (cpu, written) = (self.cpu() - cpu, self.written() - written);
        assert!(load.wait().unwrap().success());
        let [cycles, seconds, p50, p99, p999] = figures[..] else { panic!("{figures:?}") };
        let rate = cycles / seconds;
        Measured { rate, p50, p99, p999, cpu: cpu * 1e6 / cycles, written: written / cycles }
    }

    /// Processor time so far, in seconds.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name before may hold anything, a parenthesis included.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        ticks / TICKS_PER_SECOND
    }

    /// Bytes that went to the disk so far.
    fn written(&self) -> f64 {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.child.id())).unwrap_or_default();
        io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).map_or(0.0, |bytes| bytes.parse().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
