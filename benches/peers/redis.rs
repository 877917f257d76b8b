//! Redis, every write synced before its answer: as a script that does what a cycle is, and as streams are used.
//!
//! ```text
//!   script:   EVALSHA lend.lua ready leases counts · until when · how many · the runs done  ──▶  the next runs
//!   streams:  XACK jobs fleet id… · XREADGROUP GROUP fleet c7 COUNT n STREAMS jobs >        ──▶  how many · the next entries
//! ```
//!
//! Redis syncs once for all that it read in one turn of its loop, before it answers any of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::SystemTime;

use rustix::process::Signal;

use crate::load::Client;
use crate::process::{Missing, Process, dying_with_us, find, first_line, free_address};
use crate::server::{LEASE_MS, SECONDS_MORE, Server};

const SCRIPT: &str = include_str!("lend.lua");

/// Runs, or entries of the stream, that there must be for a second of load: more than Redis can do.
const RUNS_PER_SECOND: f64 = 800_000.0;

/// Runs that are put at a time.
const RUNS_PUT: u64 = 5_000;

/// The first run's name, so that all are equally long.
const RUNS_FROM: u64 = 1_000_000_000;

/// Puts runs from ARGV[1] to ARGV[2].
const PUT_READY: &str = "for run = ARGV[1], ARGV[2] do redis.call('RPUSH', KEYS[1], string.format('%d', run)) end";
const PUT_JOBS: &str =
    "for run = ARGV[1], ARGV[2] do redis.call('XADD', KEYS[1], '*', 'run', string.format('%d', run)) end";

/// How Redis is used as a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Script,
    Streams,
}

pub(crate) struct Redis {
    process: Process,
    version: String,
    way: Way,
    /// Runs that were put so far.
    put: u64,
}

impl Redis {
    pub(crate) fn start(directory: &Path, way: Way) -> Result<Self, Missing> {
        let program = find("redis-server", "redis-server", &[])?;
        let (address, port) = free_address();
        let mut command = dying_with_us(&program);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--daemonize", "no", "--dir"]);
        command.arg(directory).args(["--appendonly", "yes", "--appendfsync", "always"]);
        command.args(["--save", "", "--auto-aof-rewrite-percentage", "0"]);
        let process = Process::start(&mut command, address, directory, Signal::TERM);
        Ok(Self { process, version: first_line(&program, "--version"), way, put: 0 })
    }

    /// Puts so many runs without syncs; then the syncs are as before.
    fn put(&mut self, connection: &mut TcpStream, runs: u64) {
        let (put, key) = match self.way {
            Way::Script => (PUT_READY, "ready"),
            Way::Streams => (PUT_JOBS, "jobs"),
        };
        call(connection, &["CONFIG", "SET", "appendfsync", "no"]);
        for _ in 0..runs.div_ceil(RUNS_PUT) {
            let first = RUNS_FROM + self.put;
            call(connection, &["EVAL", put, "1", key, &first.to_string(), &(first + RUNS_PUT - 1).to_string()]);
            self.put += RUNS_PUT;
        }
        call(connection, &["CONFIG", "SET", "appendfsync", "always"]);
    }
}

impl Server for Redis {
    fn process(&self) -> &Process {
        &self.process
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn prepare(&mut self, seconds: f64) {
        let mut connection = TcpStream::connect(self.process.address()).unwrap();
        let wanted = ((seconds + SECONDS_MORE) * RUNS_PER_SECOND) as u64;
        match self.way {
            Way::Script => {
                call(&mut connection, &["DEL", "leases"]);
                let there: u64 = call(&mut connection, &["LLEN", "ready"])[0].parse().unwrap();
                self.put(&mut connection, wanted.saturating_sub(there));
            }
            Way::Streams => {
                // Entries stay when they are acknowledged, so a new group begins with the first again.
                self.put(&mut connection, wanted.saturating_sub(self.put));
                call(&mut connection, &["XGROUP", "DESTROY", "jobs", "fleet"]);
                call(&mut connection, &["XGROUP", "CREATE", "jobs", "fleet", "0"]);
            }
        }
        assert_eq!(call(&mut connection, &["CONFIG", "GET", "appendfsync"])[1], "always");
    }
}

/// One command and its answer, not nested.
fn call(connection: &mut TcpStream, texts: &[&str]) -> Vec<String> {
    let mut bytes = Vec::new();
    command(texts.len(), &mut bytes);
    words(texts, &mut bytes);
    connection.write_all(&bytes).unwrap();
    let (mut received, mut buffer) = (Vec::new(), [0; 4_096]);
    loop {
        if let Some((scalars, _)) = scalars(&received) {
            return scalars.into_iter().map(|scalar| String::from_utf8_lossy(scalar).into_owned()).collect();
        }
        let bytes = connection.read(&mut buffer).unwrap();
        assert!(bytes > 0, "Redis has closed the connection");
        received.extend_from_slice(&buffer[..bytes]);
    }
}

/// Has Redis keep the script; its name.
pub(crate) fn load_script(address: &str) -> String {
    call(&mut TcpStream::connect(address).unwrap(), &["SCRIPT", "LOAD", SCRIPT]).remove(0)
}

/// What a command begins with.
fn command(words: usize, out: &mut Vec<u8>) {
    write!(out, "*{words}\r\n").unwrap();
}

fn words(texts: &[&str], out: &mut Vec<u8>) {
    for text in texts {
        word(text.as_bytes(), out);
    }
}

fn word(bytes: &[u8], out: &mut Vec<u8>) {
    write!(out, "${}\r\n", bytes.len()).unwrap();
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// The numbers and texts of an answer, however nested, and its length; nothing if not all of it has come.
fn scalars(bytes: &[u8]) -> Option<(Vec<&[u8]>, usize)> {
    let (mut found, mut position, mut missing) = (Vec::new(), 0, 1);
    while missing > 0 {
        let rest = &bytes[position..];
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let line = &rest[1..end - 1];
        let number = || std::str::from_utf8(line).unwrap().parse::<i64>().unwrap();
        position += end + 1;
        missing -= 1;
        match rest[0] {
            b'*' => missing += number().max(0),
            b'$' => {
                // What is not there has the length -1.
                if let Ok(length) = usize::try_from(number()) {
                    found.push(bytes.get(position..position + length + 2)?.strip_suffix(b"\r\n").unwrap());
                    position += length + 2;
                }
            }
            b':' | b'+' => found.push(line),
            _ => panic!("Redis says {}", String::from_utf8_lossy(&rest[..end])),
        }
    }
    Some((found, position))
}

/// A client that calls the script.
pub(crate) struct Scripted {
    /// The words that every call begins with.
    begin: Vec<u8>,
    batch: u32,
}

impl Scripted {
    pub(crate) fn new(script: &str, batch: u32) -> Self {
        let mut begin = Vec::new();
        words(&["EVALSHA", script, "3", "ready", "leases", "counts"], &mut begin);
        Self { begin, batch }
    }

    fn call(&self, done: &[&[u8]], out: &mut Vec<u8>) {
        const WORDS: usize = 8;
        command(WORDS + done.len(), out);
        out.extend_from_slice(&self.begin);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let deadline = now.as_millis() + u128::from(LEASE_MS);
        words(&[&deadline.to_string(), &self.batch.to_string()], out);
        for run in done {
            word(run, out);
        }
    }
}

impl Client for Scripted {
    fn greet(&mut self, out: &mut Vec<u8>) {
        self.call(&[], out);
    }

    fn turn(&mut self, received: &mut Vec<u8>, out: &mut Vec<u8>) {
        let Some((lent, length)) = scalars(received) else { return };
        assert_eq!(lent.len(), self.batch as usize, "the list is at its end");
        self.call(&lent, out);
        received.drain(..length);
    }

    /// Leases are dropped before the next load.
    fn leave(&mut self, _out: &mut Vec<u8>) {}
}

/// A consumer of the stream.
pub(crate) struct Streaming {
    /// The whole command that asks for more.
    read: Vec<u8>,
    batch: u32,
    /// Whether the next answers begin with that to an acknowledgement.
    acknowledges: bool,
}

impl Streaming {
    pub(crate) fn new(number: u32, batch: u32) -> Self {
        let (name, count) = (format!("c{number}"), batch.to_string());
        let texts = ["XREADGROUP", "GROUP", "fleet", &name, "COUNT", &count, "STREAMS", "jobs", ">"];
        let mut read = Vec::new();
        command(texts.len(), &mut read);
        words(&texts, &mut read);
        Self { read, batch, acknowledges: false }
    }
}

impl Client for Streaming {
    fn greet(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.read);
    }

    fn turn(&mut self, received: &mut Vec<u8>, out: &mut Vec<u8>) {
        let mut length = 0;
        if self.acknowledges {
            let Some((acknowledged, bytes)) = scalars(received) else { return };
            assert_eq!(acknowledged, [self.batch.to_string().as_bytes()], "fewer were acknowledged");
            length = bytes;
        }
        let Some((read, bytes)) = scalars(&received[length..]) else { return };
        // The stream's name, then id, name of the field and task of each.
        assert_eq!(read.len(), 1 + 3 * self.batch as usize, "the stream is at its end");
        command(3 + self.batch as usize, out);
        words(&["XACK", "jobs", "fleet"], out);
        for id in read[1..].iter().step_by(3) {
            word(id, out);
        }
        out.extend_from_slice(&self.read);
        self.acknowledges = true;
        received.drain(..length + bytes);
    }

    /// The group is destroyed before the next load.
    fn leave(&mut self, _out: &mut Vec<u8>) {}
}
