//! The ceiling: servers that do nothing but append what the clients sent to a file and sync it, a group at a time, before they
//! answer; with answers as long as the real ones, so that the same load generator speaks to all.
//!
//! ```text
//!   tokio:  a task a connection ──frames──▶ one thread: append all, fdatasync, wake all ──▶ each writes its answer
//!   epoll:  one thread: read all that can be read, pwrite, fdatasync, answer all
//! ```

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc;

use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate};
use tenfold::limits;
use tenfold::protocol::codec;
use tenfold::protocol::frame::{CLIENT_PREFACE_BYTES, Decoder, ServerPreface, VERSIONS};
use tenfold::protocol::messages::{ClientMessage, ServerMessage, WireGrant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use crate::connection::{Connection, Readiness};
use crate::native::Frames;

/// The preallocated file is written round and round within this.
const FILE_BYTES: u64 = 256 * 1024 * 1024;
/// What the system writes at once, at least.
const PAGE_BYTES: usize = 4_096;

/// What is said to whom; encoded once.
struct Answers {
    preface: Vec<u8>,
    welcome: Vec<u8>,
    /// By the number of leases that were asked for.
    grants: HashMap<u32, Vec<u8>>,
    leases: u32,
}

fn encoded(message: &ServerMessage, bytes: &mut Vec<u8>) {
    codec::encode_server(message, bytes).unwrap();
}

fn grants(leases: u32) -> ServerMessage {
    // Numbers as long as the real ones are after a while.
    let grant = |lease: u32| WireGrant {
        lease: 0x1_0000_0000 * 70_000 + u64::from(lease),
        campaign: 1,
        task: 100_000,
        first_run: 0,
        runs: 1,
        key: None,
    };
    ServerMessage::Grants { campaigns: Vec::new(), grants: (0..leases).map(grant).collect(), resent: false }
}

impl Answers {
    fn new() -> Self {
        let preface = ServerPreface::answer(VERSIONS, VERSIONS).to_bytes().to_vec();
        let mut welcome = Vec::new();
        let message =
            ServerMessage::Welcome { instance: [1; 16], resumed: false, through: 0, refusals: Vec::new(), leases: 0 };
        encoded(&message, &mut welcome);
        Self { preface, welcome, grants: HashMap::new(), leases: 1 }
    }

    /// The answer to a message. A report is not looked at further than that it is one.
    fn to(&mut self, body: &[u8]) -> Vec<u8> {
        match body[0] {
            0 => self.welcome.clone(),
            1 => {
                let Ok(ClientMessage::Want { leases, .. }) = codec::decode_client(body) else { panic!("a want") };
                self.leases = leases;
                let mut bytes = Vec::new();
                encoded(&grants(leases), &mut bytes);
                bytes
            }
            2 => self
                .grants
                .entry(self.leases)
                .or_insert_with_key(|leases| {
                    let mut bytes = Vec::new();
                    encoded(&ServerMessage::Answers { through: 100_000, refusals: Vec::new() }, &mut bytes);
                    encoded(&grants(*leases), &mut bytes);
                    bytes
                })
                .clone(),
            _ => Vec::new(),
        }
    }
}

fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("listening on {}", listener.local_addr().unwrap());
    listener
}

/// A group's frames and whom to wake when they are durable.
type Entry = (Vec<u8>, oneshot::Sender<()>);

pub(crate) fn run_tokio(path: &Path) {
    let mut file = File::create(path).unwrap();
    let (sender, receiver) = mpsc::channel::<Entry>();
    std::thread::spawn(move || {
        let mut group = Vec::new();
        while let Ok((frame, waiter)) = receiver.recv() {
            group.clear();
            group.extend_from_slice(&frame);
            let mut waiters = vec![waiter];
            while let Ok((frame, waiter)) = receiver.try_recv() {
                group.extend_from_slice(&frame);
                waiters.push(waiter);
            }
            file.write_all(&group).unwrap();
            file.sync_data().unwrap();
            for waiter in waiters {
                let _ = waiter.send(());
            }
        }
    });
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async move {
        let listener = listen();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(serve(stream, sender.clone()));
        }
    });
}

async fn serve(mut stream: tokio::net::TcpStream, sender: mpsc::Sender<Entry>) -> std::io::Result<()> {
    let mut answers = Answers::new();
    let mut preface = [0; CLIENT_PREFACE_BYTES];
    stream.read_exact(&mut preface).await?;
    stream.write_all(&answers.preface).await?;
    let mut decoder = Decoder::new(limits::FRAME_BYTES_MAX);
    let mut buffer = vec![0; 16 * 1_024];
    loop {
        let (mut frames, mut answer) = (Vec::new(), Vec::new());
        while let Some(body) = decoder.next_frame().unwrap() {
            frames.extend_from_slice(body);
            answer.extend(answers.to(body));
        }
        if !frames.is_empty() {
            let (waiter, durable) = oneshot::channel();
            let _ = sender.send((frames, waiter));
            let _ = durable.await;
            stream.write_all(&answer).await?;
        }
        let bytes = stream.read(&mut buffer).await?;
        if bytes == 0 {
            return Ok(());
        }
        decoder.push(&buffer[..bytes]);
    }
}

/// The number of the listener.
const LISTENER: u64 = u64::MAX;

pub(crate) fn run_epoll(path: &Path) {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path).unwrap();
    fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES).unwrap();
    // Written once, so that a sync has no metadata to write.
    let zeros = vec![0; 1024 * 1024];
    for offset in (0..FILE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, offset).unwrap();
    }
    file.sync_all().unwrap();
    // The system holds these zeros in pieces of a megabyte, and would write a whole one for every group in it.
    fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    let (listener, mut readiness, mut end) = (listen(), Readiness::new(), 0);
    readiness.add(&listener, LISTENER);
    let mut clients: HashMap<u64, (Connection, Frames, Answers)> = HashMap::new();
    for next in 0.. {
        let mut group = Vec::new();
        let mut waiting = Vec::new();
        for number in readiness.wait() {
            if number == LISTENER {
                let (stream, _) = listener.accept().unwrap();
                let connection = Connection::new(stream);
                readiness.add(&connection, next);
                clients.insert(next, (connection, Frames::after(CLIENT_PREFACE_BYTES), Answers::new()));
                continue;
            }
            let (connection, frames, answers) = clients.get_mut(&number).unwrap();
            connection.read();
            if frames.push(&mut connection.received) {
                connection.write(&answers.preface);
            }
            let mut answer = Vec::new();
            while let Some(body) = frames.next() {
                group.extend_from_slice(body);
                answer.extend(answers.to(body));
            }
            if !connection.open {
                readiness.remove(&*connection);
                clients.remove(&number);
            } else if !answer.is_empty() {
                waiting.push((number, answer));
            }
        }
        if group.is_empty() {
            continue;
        }
        // Whole pages, so that none has to be read before it is written.
        group.resize(group.len().next_multiple_of(PAGE_BYTES), 0);
        if end + group.len() as u64 > FILE_BYTES {
            end = 0;
        }
        file.write_all_at(&group, end).unwrap();
        file.sync_data().unwrap();
        end += group.len() as u64;
        for (number, answer) in waiting {
            clients.get_mut(&number).unwrap().0.write(&answer);
        }
    }
}
