//! Stands between clients and the server, and does to each connection what its dice say, until it is told to be calm.
//!
//! ```text
//!   pace        as it comes · delayed · byte by byte
//!
//!              ┌─ nothing
//!              ├─ stalled at a byte      nothing moves for longer than a lease lasts
//!   end       ─┼─ cut at a byte          both sides are closed at once
//!              ├─ half-closed at a byte  one direction ends, the other goes on for a while
//!              └─ held at a byte         the client's side is gone; the server's lives, silent, and is then given the rest:
//!                                        old bytes, after the client came back and sent them again
//! ```
//!
//! **Invariants.** Bytes of a connection are never changed, reordered or doubled: TCP does not do that either. A server that is
//! not there is a connection that ends at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::random::Random;

/// What has happened.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    connections: AtomicU64,
    refused: AtomicU64,
    delayed: AtomicU64,
    dripped: AtomicU64,
    stalled: AtomicU64,
    cut: AtomicU64,
    half_closed_by_client: AtomicU64,
    half_closed_by_server: AtomicU64,
    held: AtomicU64,
    delivered_late: AtomicU64,
}

impl Tally {
    /// Each kind of event and how often it occurred.
    pub(crate) fn figures(&self) -> [(&'static str, u64); 10] {
        let Self {
            connections,
            refused,
            delayed,
            dripped,
            stalled,
            cut,
            half_closed_by_client,
            half_closed_by_server,
            held,
            delivered_late,
        } = self;
        [
            ("connections", connections),
            ("without a server", refused),
            ("delayed pieces", delayed),
            ("dripped bytes", dripped),
            ("stalled", stalled),
            ("cut", cut),
            ("half-closed towards the server", half_closed_by_client),
            ("half-closed towards the client", half_closed_by_server),
            ("held", held),
            ("given to the server late", delivered_late),
        ]
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A running proxy; it ends with its runtime.
pub(crate) struct Proxy {
    address: SocketAddr,
    calm: Arc<AtomicBool>,
}

impl Proxy {
    /// Listens; what it does is drawn from `random`.
    pub(crate) async fn start(server: String, mut random: Random, tally: Arc<Tally>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let calm = Arc::new(AtomicBool::new(false));
        let is_calm = Arc::clone(&calm);
        tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                count(&tally.connections);
                let fate = if is_calm.load(Ordering::Relaxed) { Fate::Whole } else { Fate::choose(&mut random) };
                let random = Random::new(random.number());
                let connection = Connection { fate, random, tally: Arc::clone(&tally), calm: Arc::clone(&is_calm) };
                tokio::spawn(connection.run(client, server.clone()));
            }
        });
        Self { address, calm }
    }

    /// Where clients connect to.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on every new connection is left alone. What is under way takes its course.
    pub(crate) fn calm(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Whole,
    /// After so many bytes in either direction, for a while.
    Stalled(u64),
    /// After so many bytes in either direction.
    Cut(u64),
    /// The client's direction ends after so many bytes.
    HalfClosedByClient(u64),
    /// The server's direction ends after so many bytes.
    HalfClosedByServer(u64),
    /// Whatever the client sends after so many bytes is late.
    Held(u64),
}

impl Fate {
    fn choose(random: &mut Random) -> Self {
        // Some at once, in the prefaces and the hello; some when there is a lot to lose.
        let bytes = if random.percent(40) { random.within(0..=90) } else { random.within(90..=400) };
        match random.within(0..=99) {
            0..8 => Self::Whole,
            8..18 => Self::Stalled(bytes),
            18..40 => Self::Cut(bytes),
            40..52 => Self::HalfClosedByClient(bytes),
            52..64 => Self::HalfClosedByServer(bytes),
            _ => Self::Held(bytes),
        }
    }
}

/// How bytes go through until then.
#[derive(Clone, Copy, Debug)]
enum Pace {
    AsTheyCome,
    Delayed,
    Dripped,
}

impl Pace {
    fn choose(random: &mut Random) -> Self {
        match random.within(0..=99) {
            0..60 => Self::AsTheyCome,
            60..80 => Self::Delayed,
            _ => Self::Dripped,
        }
    }
}

struct Connection {
    fate: Fate,
    random: Random,
    tally: Arc<Tally>,
    calm: Arc<AtomicBool>,
}

/// What both directions of a connection must know of each other.
#[derive(Default)]
struct Ends {
    /// Everything is to be closed.
    cut: Notify,
}

impl Connection {
    async fn run(mut self, client: TcpStream, server: String) {
        let Ok(server) = TcpStream::connect(server).await else { return count(&self.tally.refused) };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let (up_fate, down_fate) = match self.fate {
            Fate::HalfClosedByClient(_) | Fate::Held(_) => (self.fate, Fate::Whole),
            Fate::HalfClosedByServer(_) => (Fate::Whole, self.fate),
            Fate::Whole | Fate::Stalled(_) | Fate::Cut(_) => (self.fate, self.fate),
        };
        let ends = Ends::default();
        let (mut up, mut down) = (self.direction(up_fate), self.direction(down_fate));
        let held = {
            let both = async {
                let up = up.carry(from_client, to_server, &ends);
                let down = down.carry(from_server, to_client, &ends);
                let mut kept = None;
                let mut answers = None;
                let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
                // A held connection has lost its client: the other direction ends with it.
                loop {
                    tokio::select! {
                        rest = &mut up, if kept.is_none() => {
                            let over = matches!(rest, Carried::Held { .. });
                            kept = Some(rest);
                            if over || answers.is_some() { break }
                        }
                        end = &mut down, if answers.is_none() => {
                            answers = Some(end);
                            if kept.is_some() { break }
                        }
                    }
                }
                kept
            };
            tokio::select! {
                kept = both => kept,
                () = ends.cut.notified() => None,
            }
        };
        if let Some(Carried::Held { rest, to_server }) = held {
            self.deliver_late(&rest, to_server).await;
        }
    }

    fn direction(&mut self, fate: Fate) -> Direction {
        let mut random = Random::new(self.random.number());
        let pace = Pace::choose(&mut random);
        Direction { fate, pace, random, tally: Arc::clone(&self.tally), calm: Arc::clone(&self.calm) }
    }

    /// The client is gone and has come back, perhaps; now the server gets what was sent before.
    async fn deliver_late(&mut self, rest: &[u8], mut to_server: OwnedWriteHalf) {
        sleep(Duration::from_millis(self.random.within(100..=1_600))).await;
        if !rest.is_empty() && to_server.write_all(rest).await.is_ok() {
            count(&self.tally.delivered_late);
        }
        // The old connection lingers, and says nothing more.
        sleep(Duration::from_millis(self.random.within(0..=500))).await;
    }
}

/// How one direction ended.
enum Carried {
    /// As its sender wished, or with an error.
    Ended,
    /// The client's side is to be closed, the server's not.
    Held { rest: Vec<u8>, to_server: OwnedWriteHalf },
}

struct Direction {
    fate: Fate,
    pace: Pace,
    random: Random,
    tally: Arc<Tally>,
    calm: Arc<AtomicBool>,
}

impl Direction {
    async fn carry(&mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, ends: &Ends) -> Carried {
        let mut carried = 0;
        let mut piece = vec![0; 4_096];
        loop {
            let length = match from.read(&mut piece).await {
                // A half-closed connection: the other direction may go on.
                Ok(0) => {
                    let _ = to.shutdown().await;
                    return Carried::Ended;
                }
                Ok(length) => length,
                Err(_) => {
                    ends.cut.notify_one();
                    return Carried::Ended;
                }
            };
            let bytes = &piece[..length];
            let room = |limit: u64| usize::try_from(limit - carried).unwrap();
            let reached = |limit: u64| carried + length as u64 > limit;
            match self.fate {
                Fate::Cut(limit) if reached(limit) => {
                    let _ = to.write_all(&bytes[..room(limit)]).await;
                    count(&self.tally.cut);
                    ends.cut.notify_one();
                    return Carried::Ended;
                }
                Fate::HalfClosedByClient(limit) | Fate::HalfClosedByServer(limit) if reached(limit) => {
                    let _ = to.write_all(&bytes[..room(limit)]).await;
                    let _ = to.shutdown().await;
                    let by_client = matches!(self.fate, Fate::HalfClosedByClient(_));
                    let tally = &self.tally;
                    count(if by_client { &tally.half_closed_by_client } else { &tally.half_closed_by_server });
                    // What is sent into a closed direction is taken for a while, and lost.
                    let patience = Duration::from_millis(self.random.within(0..=1_000));
                    let _ = timeout(patience, drain(&mut from)).await;
                    ends.cut.notify_one();
                    return Carried::Ended;
                }
                Fate::Held(limit) if reached(limit) => {
                    let _ = to.write_all(&bytes[..room(limit)]).await;
                    count(&self.tally.held);
                    let mut rest = bytes[room(limit)..].to_vec();
                    // What the client sends before it notices anything is late, too.
                    let patience = Duration::from_millis(self.random.within(1..=60));
                    let _ = timeout(patience, keep(&mut from, &mut rest)).await;
                    return Carried::Held { rest, to_server: to };
                }
                Fate::Stalled(limit) if reached(limit) && carried <= limit => {
                    if to.write_all(&bytes[..room(limit)]).await.is_err() {
                        return Carried::Ended;
                    }
                    count(&self.tally.stalled);
                    sleep(Duration::from_millis(self.random.within(300..=2_500))).await;
                    if to.write_all(&bytes[room(limit)..]).await.is_err() {
                        return Carried::Ended;
                    }
                }
                Fate::Whole
                | Fate::Stalled(_)
                | Fate::Cut(_)
                | Fate::Held(_)
                | Fate::HalfClosedByClient(_)
                | Fate::HalfClosedByServer(_) => {
                    if self.forward(bytes, &mut to).await.is_err() {
                        return Carried::Ended;
                    }
                }
            }
            carried += length as u64;
        }
    }

    /// At its pace.
    async fn forward(&mut self, bytes: &[u8], to: &mut OwnedWriteHalf) -> std::io::Result<()> {
        let calm = self.calm.load(Ordering::Relaxed);
        match self.pace {
            Pace::Delayed if !calm => {
                sleep(Duration::from_millis(self.random.within(1..=120))).await;
                count(&self.tally.delayed);
                to.write_all(bytes).await
            }
            Pace::Dripped if !calm => {
                for byte in bytes {
                    to.write_all(&[*byte]).await?;
                    count(&self.tally.dripped);
                    tokio::task::yield_now().await;
                }
                Ok(())
            }
            Pace::AsTheyCome | Pace::Delayed | Pace::Dripped => to.write_all(bytes).await,
        }
    }
}

async fn drain(from: &mut OwnedReadHalf) {
    let mut lost = [0; 1_024];
    while matches!(from.read(&mut lost).await, Ok(1..)) {}
}

async fn keep(from: &mut OwnedReadHalf, rest: &mut Vec<u8>) {
    while matches!(from.read_buf(rest).await, Ok(1..)) {}
    // The client has left; nothing more comes.
    std::future::pending::<()>().await;
}
