//! The real `tenfold serve`. Its clients are those of `benches/throughput`.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::process::{Process, dying_with_us, first_line, free_address};
use crate::server::{RUNS, Server};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tenfold");

pub(crate) struct Tenfold {
    process: Process,
}

impl Tenfold {
    pub(crate) fn start(directory: &Path) -> Self {
        let (address, _) = free_address();
        let mut command = dying_with_us(PROGRAM.as_ref());
        command.args(["serve", "--listen", &address, "--drain", "1ms", "--data-dir"]).arg(directory.join("data"));
        let process = Process::start(&mut command, address, directory, Signal::TERM);
        let mut create = Command::new(PROGRAM);
        create.args(["create", "load", "--range", "0..10000000", "--runs", &RUNS.to_string()]);
        create.args(["--server", process.address()]).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(create.status().unwrap().success(), "no campaign");
        Self { process }
    }
}

impl Server for Tenfold {
    fn process(&self) -> &Process {
        &self.process
    }

    fn version(&self) -> String {
        first_line(PROGRAM.as_ref(), "--version")
    }

    /// Clients say good-bye, and a thousand million runs are enough.
    fn prepare(&mut self, _seconds: f64) {}
}
