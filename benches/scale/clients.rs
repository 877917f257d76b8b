//! Sessions by the thousand, in a process of their own with one thread: some work without a pause, the others only stay.
//!
//! ```text
//!   hello, want ──▶ grants ──▶ report some of them in one message ──▶ answer and grants ──▶ report …
//! ```
//!
//! A cycle is from a report to the grants that follow it. Which leases it reports is drawn by lot.

use std::io::{self, BufRead};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tenfold::limits;
use tenfold::protocol::codec;
use tenfold::protocol::frame::{Decoder, SERVER_PREFACE_BYTES, VERSIONS, client_preface};
use tenfold::protocol::messages::{ClientMessage, ServerMessage, WireRequest, WireSession};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

use crate::fill::Random;

/// Before the measured time.
const WARM_UP: Duration = Duration::from_millis(500);
/// Whoever is not let in tries again after this.
const LOOK: Duration = Duration::from_millis(10);
/// Sessions that introduce themselves at the same time, where it does not matter.
const AT_ONCE: usize = 100;

/// One session over one connection.
struct Session {
    stream: TcpStream,
    decoder: Decoder,
    /// The server's; none until it has said welcome.
    instance: Option<[u8; 16]>,
    next: u64,
    /// Reports through this are answered.
    answered: u64,
    lent: Vec<u64>,
}

impl Session {
    /// A new session, or (`known` to this instance) one that returns.
    async fn connect(address: &str, id: [u8; 16], known: [u8; 16], attempt: u64) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let decoder = Decoder::new(limits::FRAME_BYTES_MAX);
        let mut session = Self { stream, decoder, instance: None, next: 1, answered: 0, lent: Vec::new() };
        session.stream.write_all(&client_preface(VERSIONS)).await?;
        let introduced = WireSession { session: id, instance: known, attempt, confirmed: 0, name: "scale".to_owned() };
        session.send(&ClientMessage::Hello { token: String::new(), session: Some(introduced) }).await?;
        session.stream.read_exact(&mut [0; SERVER_PREFACE_BYTES]).await?;
        while session.instance.is_none() {
            session.hear().await?;
        }
        Ok(session)
    }

    async fn send(&mut self, message: &ClientMessage) -> io::Result<()> {
        let mut bytes = Vec::new();
        codec::encode_client(message, &mut bytes).unwrap();
        self.stream.write_all(&bytes).await
    }

    async fn want(&mut self, leases: usize) -> io::Result<()> {
        self.send(&ClientMessage::Want { leases: leases as u32, runs: 1, campaigns: Vec::new() }).await
    }

    /// Reads what is there, or comes next, and takes note of it.
    async fn hear(&mut self) -> io::Result<()> {
        let mut bytes = [0; 4_096];
        let read = self.stream.read(&mut bytes).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.decoder.push(&bytes[..read]);
        while let Some(body) = self.decoder.next_frame().unwrap() {
            match codec::decode_server(body).unwrap() {
                ServerMessage::Welcome { instance, .. } => self.instance = Some(instance),
                ServerMessage::Grants { grants, .. } => self.lent.extend(grants.iter().map(|grant| grant.lease)),
                ServerMessage::Answers { through, refusals } => {
                    assert!(refusals.is_empty(), "{refusals:?}");
                    self.answered = through;
                }
                ServerMessage::Closing { .. } => return Err(io::ErrorKind::ConnectionReset.into()),
                ServerMessage::Idle(_) | ServerMessage::Heartbeat => {}
                other @ (ServerMessage::UnknownSession { .. }
                | ServerMessage::Lost { .. }
                | ServerMessage::Control { .. }) => panic!("{other:?} was not expected"),
            }
        }
        Ok(())
    }

    async fn hold(&mut self, leases: usize) -> io::Result<()> {
        while self.lent.len() < leases {
            self.hear().await?;
        }
        Ok(())
    }

    /// Reports so many of the leases that it holds, whichever.
    async fn report(&mut self, leases: usize, random: &mut Random) -> io::Result<()> {
        let mut requests = Vec::with_capacity(leases);
        for _ in 0..leases {
            let lease = self.lent.swap_remove(random.below(self.lent.len()));
            requests.push(WireRequest::Done { lease, runs: 1 });
        }
        let (first, count) = (self.next, requests.len() as u64);
        self.next += count;
        self.send(&ClientMessage::Requests { first, confirmed: first - 1, requests }).await
    }

    /// Stays connected until the end of the process.
    async fn stay(mut self) {
        loop {
            if let Ok(heard) = timeout(Duration::from_millis(limits::HEARTBEAT_MS), self.hear()).await {
                heard.unwrap();
            } else {
                self.send(&ClientMessage::Heartbeat { confirmed: 0 }).await.unwrap();
            }
        }
    }

    /// Reports `batch` runs at a time without a pause until `end`; how long each cycle took that began at `begin` or later, in microseconds.
    async fn work(mut self, batch: usize, begin: Instant, end: Instant) -> Vec<u32> {
        let (mut latencies, mut random, held) = (Vec::new(), Random(self.lent[0]), self.lent.len());
        while Instant::now() < end {
            let sent = Instant::now();
            self.report(batch, &mut random).await.unwrap();
            self.hold(held).await.unwrap();
            if sent >= begin {
                latencies.push(sent.elapsed().as_micros() as u32);
            }
        }
        self.send(&ClientMessage::Goodbye).await.unwrap();
        latencies
    }
}

/// Has `active` sessions, which hold so many leases each, report `batch` runs a message for so many seconds, while `idle` ones stay connected.
/// Says `ready` when all are connected and hold theirs, and in the end: cycles, seconds, and latencies: median, p99, p99.9, the longest,
/// in microseconds.
pub(crate) fn load(address: &str, active: usize, idle: usize, held: usize, batch: usize, seconds: f64) {
    run(async move {
        let mut sessions = connect_all(address, active + idle).await;
        for session in sessions.split_off(active) {
            tokio::task::spawn_local(session.stay());
        }
        for session in &mut sessions {
            session.want(held).await.unwrap();
        }
        for session in &mut sessions {
            session.hold(held).await.unwrap();
        }
        ready().await;
        let begin = Instant::now() + WARM_UP;
        let end = begin + Duration::from_secs_f64(seconds);
        let mut working = JoinSet::new();
        for session in sessions {
            working.spawn_local(session.work(batch, begin, end));
        }
        let mut latencies: Vec<u32> = working.join_all().await.concat();
        let elapsed = begin.elapsed().as_secs_f64();
        latencies.sort_unstable();
        let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or(0);
        let most = latencies.last().copied().unwrap_or(0);
        println!("{} {elapsed} {} {} {} {most}", latencies.len(), at(0.5), at(0.99), at(0.999));
    });
}

/// Has every session take a lease; says `ready`. When the server is gone, all return at once, again and again until they are let in, and
/// report. Says `served` when every report is answered.
pub(crate) fn herd(address: &str, clients: usize) {
    run(async move {
        let (address, mut returning): (Rc<str>, _) = (address.into(), JoinSet::new());
        for (number, mut session) in connect_all(&address, clients).await.into_iter().enumerate() {
            session.want(1).await.unwrap();
            session.hold(1).await.unwrap();
            let address = Rc::clone(&address);
            returning.spawn_local(async move {
                while session.hear().await.is_ok() {}
                let known = session.instance.unwrap();
                let mut attempt = 1;
                loop {
                    attempt += 1;
                    if report_again(&address, id(number), known, attempt).await.is_ok() {
                        return;
                    }
                    sleep(LOOK).await;
                }
            });
        }
        ready().await;
        returning.join_all().await;
        println!("served");
    });
}

/// Returns, is lent again what it held, reports it and waits for the answer.
async fn report_again(address: &str, id: [u8; 16], known: [u8; 16], attempt: u64) -> io::Result<()> {
    let mut session = Session::connect(address, id, known, attempt).await?;
    session.hold(1).await?;
    session.report(1, &mut Random(0)).await?;
    while session.answered == 0 {
        session.hear().await?;
    }
    // It stays, as a client does that has more to do.
    tokio::task::spawn_local(session.stay());
    Ok(())
}

fn run(work: impl Future<Output = ()>) {
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(LocalSet::new().run_until(work));
    // Whoever stays goes with the process.
    std::process::exit(0);
}

async fn connect_all(address: &str, sessions: usize) -> Vec<Session> {
    let address: Rc<str> = address.into();
    let mut connected = Vec::new();
    while connected.len() < sessions {
        let numbers = connected.len()..sessions.min(connected.len() + AT_ONCE);
        let connecting: JoinSet<Session> = JoinSet::new();
        let connecting = numbers.fold(connecting, |mut connecting, number| {
            let address = Rc::clone(&address);
            connecting.spawn_local(async move { Session::connect(&address, id(number), [0; 16], 1).await.unwrap() });
            connecting
        });
        connected.extend(connecting.join_all().await);
    }
    connected
}

/// Another one for every session of every process.
fn id(number: usize) -> [u8; 16] {
    let mut id = [1; 16];
    id[..4].copy_from_slice(&std::process::id().to_le_bytes());
    id[4..12].copy_from_slice(&(number as u64).to_le_bytes());
    id
}

/// Says that all are there, and waits for the order to go on.
async fn ready() {
    println!("ready");
    tokio::task::spawn_blocking(|| io::stdin().lock().lines().next().unwrap().unwrap()).await.unwrap();
}

/// Lets this process open as many files as it may.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}
