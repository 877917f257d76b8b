//! PostgreSQL as it is used as a queue: a table of tasks, and `FOR UPDATE SKIP LOCKED`.
//!
//! ```text
//!   startup · Parse lend.sql ──▶ …
//!   Bind {3,17} 2 0 · Execute · Sync ──▶ a row for each task lent · ReadyForQuery
//! ```
//!
//! Speaks as much of the protocol (version 3, texts) as that takes. PostgreSQL refuses to run as root, so for root it runs as
//! the user `postgres`, or else `nobody`.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::load::Client;
use crate::process::{Missing, Process, dying_with_us, find, first_line, free_address};
use crate::server::Server;

const LEND: &str = include_str!("lend.sql");

/// Every task is to be done a hundred times, so these last.
const TASKS: u32 = 1_000_000;
const CREATE: &str = "
    CREATE TABLE task (id integer PRIMARY KEY, done integer NOT NULL DEFAULT 0, lent_until timestamptz);
    INSERT INTO task (id) SELECT generate_series(0, 999999);
    CREATE INDEX task_open ON task (id) WHERE lent_until IS NULL AND done < 100;
    ANALYZE task;
";

/// What differs from the defaults, apart from where it is: room for all clients, and memory for the table and its log.
const SETTINGS: [&str; 6] = [
    "max_connections=1000",
    "shared_buffers=512MB",
    "max_wal_size=4GB",
    "fsync=on",
    "synchronous_commit=on",
    "unix_socket_directories=",
];

/// Looks for a server that listens to be ready as well.
const LOOKS: u32 = 1_000;
const LOOK: Duration = Duration::from_millis(10);

/// Somebody who is not root.
#[derive(Clone, Copy, Debug)]
struct Account {
    user: u32,
    group: u32,
}

impl Account {
    fn find() -> Option<Self> {
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let of = |name: &str| {
            let fields: Vec<&str> =
                users.lines().find(|line| line.split(':').next() == Some(name))?.split(':').collect();
            Some(Self { user: fields[2].parse().unwrap(), group: fields[3].parse().unwrap() })
        };
        rustix::process::geteuid().is_root().then(|| of("postgres").or_else(|| of("nobody")).expect("nobody but root"))
    }

    fn run(account: Option<Self>, command: &mut Command) -> &mut Command {
        match account {
            Some(account) => command.uid(account.user).gid(account.group),
            None => command,
        }
    }
}

pub(crate) struct Postgresql {
    process: Process,
    version: String,
}

impl Postgresql {
    pub(crate) fn start(directory: &Path) -> Result<Self, Missing> {
        let folders = folders();
        let program = find("postgres", "postgresql", &folders)?;
        let initdb = find("initdb", "postgresql", &folders)?;
        let (account, data) = (Account::find(), directory.join("data"));
        if let Some(account) = account {
            chown(directory, Some(account.user), Some(account.group)).unwrap();
        }
        let mut create = Command::new(initdb);
        create.args(["--auth=trust", "--username=tasks", "--locale=C", "--encoding=UTF8", "--pgdata"]).arg(&data);
        let created = Account::run(account, create.stdin(Stdio::null())).current_dir(directory).output().unwrap();
        assert!(created.status.success(), "initdb: {}", String::from_utf8_lossy(&created.stderr));
        let (address, port) = free_address();
        let mut command = dying_with_us(&program);
        command.arg("-D").arg(data).args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        command.args(SETTINGS.iter().flat_map(|setting| ["-c", setting])).current_dir(directory);
        // SIGINT: ends at once, and its processes with it.
        let process = Process::start(Account::run(account, &mut command), address, directory, Signal::INT);
        let mut connection = connect(process.address());
        query(&mut connection, CREATE).unwrap();
        query(&mut connection, "VACUUM task").unwrap();
        query(&mut connection, "CHECKPOINT").unwrap();
        Ok(Self { process, version: first_line(&program, "--version") })
    }
}

impl Server for Postgresql {
    fn process(&self) -> &Process {
        &self.process
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn prepare(&mut self, _seconds: f64) {
        let mut connection = connect(self.process.address());
        query(&mut connection, "UPDATE task SET lent_until = NULL WHERE lent_until IS NOT NULL").unwrap();
    }
}

/// Where Debian and others keep what is not for everybody's path, the newest first.
fn folders() -> Vec<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.reverse();
    folders
}

/// A connection that is ready; the server may be still at its start.
fn connect(address: &str) -> TcpStream {
    for _ in 0..LOOKS {
        let mut connection = TcpStream::connect(address).unwrap();
        let mut bytes = Vec::new();
        startup(&mut bytes);
        connection.write_all(&bytes).unwrap();
        if until_ready(&mut connection).is_ok() {
            return connection;
        }
        std::thread::sleep(LOOK);
    }
    panic!("PostgreSQL is not ready");
}

/// Runs statements that answer nothing.
fn query(connection: &mut TcpStream, sql: &str) -> Result<(), String> {
    let mut bytes = Vec::new();
    message(b'Q', &mut bytes, |body| text(sql, body));
    connection.write_all(&bytes).unwrap();
    until_ready(connection)
}

/// Reads up to the message that says that all is done.
fn until_ready(connection: &mut TcpStream) -> Result<(), String> {
    let (mut received, mut buffer) = (Vec::new(), [0; 4_096]);
    loop {
        while let Some((kind, body, length)) = next(&received) {
            match kind {
                b'E' => return Err(String::from_utf8_lossy(body).replace('\0', " ")),
                b'Z' => return Ok(()),
                _ => drop(received.drain(..length)),
            }
        }
        let bytes = connection.read(&mut buffer).unwrap();
        if bytes == 0 {
            return Err("PostgreSQL has closed the connection".to_owned());
        }
        received.extend_from_slice(&buffer[..bytes]);
    }
}

/// A message: its kind, the length of what follows, itself included, and the body.
fn message(kind: u8, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    counted(out, body);
}

fn counted(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = (out.len() - begin) as u32;
    out[begin..begin + 4].copy_from_slice(&length.to_be_bytes());
}

fn text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

fn startup(out: &mut Vec<u8>) {
    const VERSION: u32 = 3 << 16;
    counted(out, |body| {
        body.extend_from_slice(&VERSION.to_be_bytes());
        for word in ["user", "tasks", "database", "postgres", ""] {
            text(word, body);
        }
    });
}

/// The first message: its kind, its body, and the length of all of it; nothing if not all of it has come.
fn next(received: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (head, rest) = received.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
    Some((head[0], rest.get(..length - 4)?, length + 1))
}

/// A client that has the statement prepared.
pub(crate) struct Worker {
    /// The first task that it looks at.
    from: u32,
    batch: u32,
    lent: Vec<String>,
}

impl Worker {
    pub(crate) fn new(number: u32, clients: u32, batch: u32) -> Self {
        Self { from: TASKS / clients * number, batch, lent: Vec::new() }
    }

    /// Bind, Execute, Sync.
    fn lend(&mut self, out: &mut Vec<u8>) {
        let done = format!("{{{}}}", self.lent.join(","));
        self.lent.clear();
        message(b'B', out, |body| {
            text("", body);
            text("lend", body);
            // Parameters as texts; three of them; rows as texts.
            body.extend_from_slice(&[0, 0, 0, 3]);
            for parameter in [done, self.batch.to_string(), self.from.to_string()] {
                body.extend_from_slice(&(parameter.len() as u32).to_be_bytes());
                body.extend_from_slice(parameter.as_bytes());
            }
            body.extend_from_slice(&[0, 0]);
        });
        message(b'E', out, |body| {
            text("", body);
            // All rows.
            body.extend_from_slice(&[0; 4]);
        });
        message(b'S', out, |_| {});
    }
}

impl Client for Worker {
    fn greet(&mut self, out: &mut Vec<u8>) {
        startup(out);
        message(b'P', out, |body| {
            text("lend", body);
            text(LEND, body);
            // Types of the parameters are for the server to find out.
            body.extend_from_slice(&[0, 0]);
        });
        self.lend(out);
    }

    fn turn(&mut self, received: &mut Vec<u8>, out: &mut Vec<u8>) {
        let mut position = 0;
        while let Some((kind, body, length)) = next(&received[position..]) {
            position += length;
            match kind {
                // A row of one field, after the number of fields and its length.
                b'D' => self.lent.push(String::from_utf8(body[6..].to_vec()).unwrap()),
                b'E' => panic!("PostgreSQL says {}", String::from_utf8_lossy(body)),
                // The first of these ends the startup.
                b'Z' if !self.lent.is_empty() => {
                    assert_eq!(self.lent.len(), self.batch as usize, "fewer were lent");
                    self.lend(out);
                }
                _ => {}
            }
        }
        received.drain(..position);
    }

    /// What is still lent is taken back before the next load.
    fn leave(&mut self, out: &mut Vec<u8>) {
        message(b'X', out, |_| {});
    }
}
