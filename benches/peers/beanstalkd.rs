//! beanstalkd, which syncs its log for every job that it deletes (`-f0`).
//!
//! ```text
//!   delete 17 · … · reserve-with-timeout 0 · …   ──▶   DELETED · … · RESERVED 18 5 · 00018 · …
//! ```
//!
//! A reservation is not written to the disk, so a restart knows none. Jobs are put before each load by a process that does not sync,
//! and which is then replaced by one that does.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::load::Client;
use crate::process::{Missing, Process, dying_with_us, find, first_line, free_address};
use crate::server::{LEASE_MS, SECONDS_MORE, Server};

/// Jobs that there must be for a second of load: more than it can delete.
const JOBS_PER_SECOND: f64 = 40_000.0;

/// Jobs that are put at a time.
const JOBS_PUT: u32 = 1_000;

/// When the log is synced.
#[derive(Clone, Copy, Debug)]
enum Sync {
    Never,
    Always,
}

pub(crate) struct Beanstalkd {
    program: PathBuf,
    directory: PathBuf,
    /// Absent only while it is replaced.
    process: Option<Process>,
}

impl Beanstalkd {
    pub(crate) fn start(directory: &Path) -> Result<Self, Missing> {
        let program = find("beanstalkd", "beanstalkd", &[])?;
        let mut server = Self { program, directory: directory.to_owned(), process: None };
        server.restart(Sync::Always);
        Ok(server)
    }

    fn restart(&mut self, sync: Sync) {
        // It locks the log, so one must be gone before the next comes.
        self.process = None;
        let (address, port) = free_address();
        let log = self.directory.join("binlog");
        std::fs::create_dir_all(&log).unwrap();
        let mut command = dying_with_us(&self.program);
        command.args(["-l", "127.0.0.1", "-p", &port.to_string(), "-b"]).arg(log);
        command.arg(match sync {
            Sync::Never => "-F",
            Sync::Always => "-f0",
        });
        self.process = Some(Process::start(&mut command, address, &self.directory, Signal::TERM));
    }
}

impl Server for Beanstalkd {
    fn process(&self) -> &Process {
        self.process.as_ref().unwrap()
    }

    fn version(&self) -> String {
        first_line(&self.program, "-v")
    }

    fn prepare(&mut self, seconds: f64) {
        self.process = None;
        std::fs::remove_dir_all(self.directory.join("binlog")).unwrap();
        self.restart(Sync::Never);
        let mut connection = TcpStream::connect(self.process().address()).unwrap();
        let jobs = ((seconds + SECONDS_MORE) * JOBS_PER_SECOND) as u32;
        for first in (0..jobs).step_by(JOBS_PUT as usize) {
            put(&mut connection, first);
        }
        self.restart(Sync::Always);
    }
}

fn put(connection: &mut TcpStream, first: u32) {
    let (mut bytes, mut received, mut buffer) = (Vec::new(), Vec::new(), [0; 16 * 1_024]);
    for job in first..first + JOBS_PUT {
        write!(bytes, "put 0 0 {} 8\r\n{job:08}\r\n", LEASE_MS / 1_000).unwrap();
    }
    connection.write_all(&bytes).unwrap();
    let mut answers = 0;
    while answers < JOBS_PUT as usize {
        let bytes = connection.read(&mut buffer).unwrap();
        assert!(bytes > 0, "beanstalkd has closed the connection");
        received.extend_from_slice(&buffer[..bytes]);
        answers = received.split(|byte| *byte == b'\n').count() - 1;
    }
    let answers = String::from_utf8(received).unwrap();
    assert!(answers.lines().all(|line| line.starts_with("INSERTED ")), "{answers}");
}

/// A worker.
pub(crate) struct Worker {
    batch: u32,
    /// Jobs that it has asked to delete and not been answered.
    deleting: u32,
    reserved: Vec<Vec<u8>>,
}

impl Worker {
    pub(crate) fn new(batch: u32) -> Self {
        Self { batch, deleting: 0, reserved: Vec::new() }
    }

    fn reserve(&self, out: &mut Vec<u8>) {
        (0..self.batch).for_each(|_| out.extend_from_slice(b"reserve-with-timeout 0\r\n"));
    }
}

impl Client for Worker {
    fn greet(&mut self, out: &mut Vec<u8>) {
        self.reserve(out);
    }

    fn turn(&mut self, received: &mut Vec<u8>, out: &mut Vec<u8>) {
        let mut position = 0;
        while let Some(end) = received[position..].iter().position(|byte| *byte == b'\n') {
            let line = &received[position..position + end - 1];
            if line == b"DELETED" {
                self.deleting -= 1;
                position += end + 1;
                continue;
            }
            let text = std::str::from_utf8(line).unwrap();
            let Some((id, bytes)) = text.strip_prefix("RESERVED ").and_then(|rest| rest.split_once(' ')) else {
                panic!("beanstalkd says {text}");
            };
            let job_end = position + end + 1 + bytes.parse::<usize>().unwrap() + 2;
            if received.len() < job_end {
                break;
            }
            self.reserved.push(id.as_bytes().to_vec());
            position = job_end;
        }
        received.drain(..position);
        if self.reserved.len() < self.batch as usize {
            return;
        }
        assert_eq!(self.deleting, 0, "reserved before all was deleted");
        self.deleting = self.batch;
        for id in self.reserved.drain(..) {
            out.extend_from_slice(b"delete ");
            out.extend_from_slice(&id);
            out.extend_from_slice(b"\r\n");
        }
        self.reserve(out);
    }

    /// Jobs are put anew before the next load.
    fn leave(&mut self, _out: &mut Vec<u8>) {}
}
