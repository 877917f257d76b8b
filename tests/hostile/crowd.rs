//! Hundreds of peers that break every rule, all at once; meanwhile a good worker works as if nobody else were there.
//!
//! ```text
//!   crowd (KINDS × PEERS connections, each begun again when the server ends it) ──┐
//!                                                                                 ├──▶ server
//!   one good worker, in a process of its own ─────────────────────────────────────┘
//! ```
//!
//! **What is promised** (rule S18, and that no good client starves): a report of the good worker is answered within
//! [`LATENCY_MAX`], its connection is never closed, and afterwards the server's durable state is what its reports alone
//! explain. The server's memory stays within [`MEMORY_KIB_MAX`].

use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tenfold::limits;
use tenfold::protocol::codec;
use tenfold::protocol::frame::{self, SERVER_PREFACE_BYTES, VERSIONS, VersionRange};
use tenfold::protocol::messages::{ClientMessage, WireControl, WireRequest, WireSession};
use tenfold::protocol::origin;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::process::memory;
use crate::random::Random;
use crate::raw::{counted, create};
use crate::server::{Site, block_on};
use crate::workers::Workers;

pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
    vec![trial!("crowd", a_good_worker_does_not_notice_a_hostile_crowd)]
}

/// No report of a good worker waits longer, whatever others do.
const LATENCY_MAX: Duration = Duration::from_secs(10);
/// The server never takes more memory: about its bounds of what waits to be written and of unfinished frames, and as
/// much again as one of the latter for itself.
const MEMORY_KIB_MAX: u64 = ((limits::OUTBOXES_BYTES_MAX + 2 * limits::UNFINISHED_BYTES_MAX) / 1_024) as u64;
/// Peers of each kind.
const PEERS: usize = 25;
/// How long the crowd goes on, in seconds, unless `TENFOLD_SECONDS` says otherwise.
const SECONDS: u64 = 3;
/// The pace of whoever sends a byte at a time.
const DRIP: Duration = Duration::from_secs(1);
/// Whoever is sent away at once comes back after this long.
const PAUSE: Duration = Duration::from_millis(20);

/// What a peer does with one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Says nothing.
    Silent,
    /// A byte a second: of the preface, of the hello, of a frame, of a message of the origin's dialect.
    DripsPreface,
    DripsHello,
    DripsFrame,
    DripsOrigin,
    /// Sends a frame of the greatest length but its last bytes, and those one by one.
    HoardsFrame,
    /// Announces a frame of 4 GiB.
    GiantFrame,
    /// Sends frames of no bytes.
    ZeroFrames,
    /// Speaks versions that there are not.
    WrongVersion,
    /// Random bytes after a valid preface, or after a valid hello.
    Garbage,
    GarbageAfterHello,
    /// The origin's tokens around what is no dictionary.
    OriginGarbage,
    /// Asks short questions as fast as they are answered.
    Floods,
    /// Asks for long answers and never reads.
    NeverReads,
    /// A session that reports other sessions' leases and then leaves out a number.
    Thief,
    /// Vanishes in the middle of a frame; its end is a reset.
    Resets,
}

const KINDS: [Kind; 16] = [
    Kind::Silent,
    Kind::DripsPreface,
    Kind::DripsHello,
    Kind::DripsFrame,
    Kind::DripsOrigin,
    Kind::HoardsFrame,
    Kind::GiantFrame,
    Kind::ZeroFrames,
    Kind::WrongVersion,
    Kind::Garbage,
    Kind::GarbageAfterHello,
    Kind::OriginGarbage,
    Kind::Floods,
    Kind::NeverReads,
    Kind::Thief,
    Kind::Resets,
];

fn a_good_worker_does_not_notice_a_hostile_crowd() {
    let seed = number_from_environment("TENFOLD_SEED").unwrap_or(1);
    let seconds = number_from_environment("TENFOLD_SECONDS").unwrap_or(SECONDS);
    eprintln!("again: TENFOLD_SEED={seed} TENFOLD_SECONDS={seconds} cargo test --test hostile crowd");
    block_on(async {
        let mut site = Site::with_server(&[]).await;
        create(&site, &[counted("good", 1_000, 1_000_000)]).await;
        let mut worker = Workers::start(&site.address(), 1, "good");
        worker.order("work");
        worker.until("the first reports", |news| news.counted > 10).await;

        let address = site.address().parse().unwrap();
        let mut crowd = JoinSet::new();
        for (number, kind) in KINDS.iter().flat_map(|kind| [*kind; PEERS]).enumerate() {
            let random = Random::new(seed.wrapping_mul(1_000).wrapping_add(number as u64));
            crowd.spawn(misbehave(kind, address, random));
        }
        let before = worker.news();
        let give_up = Instant::now() + Duration::from_secs(seconds);
        let ended = timeout_at(give_up, crowd.join_next()).await;
        assert!(ended.is_err(), "a hostile peer gave up: {ended:?}");
        let during = worker.news();
        let most = memory(site.pid()).most;
        crowd.shutdown().await;

        let news = worker.end().await;
        let (median, slowest) = (Duration::from_micros(news.median), Duration::from_micros(news.slowest));
        eprintln!(
            "{} hostile connections at a time for {seconds} s; the good worker's reports meanwhile: {}; answered within \
             {median:?} (median), {slowest:?} (slowest), {LATENCY_MAX:?} (bound); the server's memory at most \
             {} of {} MiB",
            KINDS.len() * PEERS,
            during.counted - before.counted,
            most / 1_024,
            MEMORY_KIB_MAX / 1_024,
        );
        assert!(during.counted > before.counted, "the good worker came to a stop: {during:?}");
        assert!(slowest <= LATENCY_MAX, "a report waited for {slowest:?}");
        assert_eq!((news.disconnected, news.lost, news.refused, news.unknown), (0, 0, 0, 0), "{news:?}");
        assert!(most <= MEMORY_KIB_MAX, "the server took {most} KiB");
        assert_explained(&site, news.counted).await;

        site.kill();
        site.verify();
        site.start().await;
        assert_explained(&site, news.counted).await;
    });
}

/// The durable state is what `counted` reports of one run each explain.
async fn assert_explained(site: &Site, counted: u64) {
    let all = site.control().status(None).await.unwrap();
    assert_eq!(all.len(), 1, "somebody made a campaign: {all:?}");
    let status = &all[0];
    assert_eq!((status.runs_done, status.runs_extra, status.runs_leased), (counted, 0, 0), "{status:?}");
    assert_eq!((status.errors, status.losses), (0, 0), "{status:?}");
}

/// Lives one connection after the other, until it is ended.
async fn misbehave(kind: Kind, address: SocketAddr, mut random: Random) {
    loop {
        // However it ends: with an error, a close, or in peace.
        let _ = live(kind, address, &mut random).await;
        sleep(PAUSE).await;
    }
}

async fn live(kind: Kind, address: SocketAddr, random: &mut Random) -> std::io::Result<()> {
    let mut peer = TcpStream::connect(address).await?;
    match kind {
        Kind::Silent => read_to_end(&mut peer).await,
        Kind::DripsPreface => drip(&mut peer, &frame::client_preface(VERSIONS)).await,
        Kind::DripsHello => {
            preface(&mut peer).await?;
            drip(&mut peer, &encoded(&hello())).await
        }
        Kind::DripsFrame => {
            introduce(&mut peer).await?;
            drip(&mut peer, &begun_frame(1_000)).await
        }
        Kind::DripsOrigin => {
            peer.write_all(&[origin::START, &vec![b' '; limits::ORIGIN_MESSAGE_BYTES_MAX - 1_000]].concat()).await?;
            drip(&mut peer, &[b' '; 1_000]).await
        }
        Kind::HoardsFrame => {
            introduce(&mut peer).await?;
            peer.write_all(&begun_frame(limits::FRAME_BYTES_MAX - 1_000)).await?;
            drip(&mut peer, &[0; 999]).await
        }
        Kind::GiantFrame => {
            introduce(&mut peer).await?;
            peer.write_all(&u32::MAX.to_le_bytes()).await?;
            read_to_end(&mut peer).await
        }
        Kind::ZeroFrames => {
            introduce(&mut peer).await?;
            peer.write_all(&[0; 4_000]).await?;
            read_to_end(&mut peer).await
        }
        Kind::WrongVersion => {
            peer.write_all(&frame::client_preface(VersionRange { lowest: 700, highest: 900 })).await?;
            read_to_end(&mut peer).await
        }
        Kind::Garbage => {
            preface(&mut peer).await?;
            peer.write_all(&bytes(random)).await?;
            read_to_end(&mut peer).await
        }
        Kind::GarbageAfterHello => {
            introduce(&mut peer).await?;
            let body = bytes(random);
            peer.write_all(&[&u32::try_from(body.len()).unwrap().to_le_bytes()[..], &body].concat()).await?;
            read_to_end(&mut peer).await
        }
        Kind::OriginGarbage => {
            let body = bytes(random);
            peer.write_all(&[origin::START, b"{0: 1000, ", &body, b"}", origin::END].concat()).await?;
            read_to_end(&mut peer).await
        }
        Kind::Floods => flood(&mut peer).await,
        Kind::NeverReads => {
            introduce(&mut peer).await?;
            let request =
                WireControl::Counts { campaign: "good".into(), from: 0, limit: limits::COUNTS_PER_ANSWER_MAX };
            loop {
                send(&mut peer, &ClientMessage::Control { id: 1, request: request.clone() }).await?;
            }
        }
        Kind::Thief => steal(&mut peer, random).await,
        Kind::Resets => {
            introduce(&mut peer).await?;
            peer.write_all(&begun_frame(random.within(0..=100_000) as usize)).await?;
            SockRef::from(&peer).set_linger(Some(Duration::ZERO))
        }
    }
}

/// Asks as many short questions as are answered.
async fn flood(peer: &mut TcpStream) -> std::io::Result<()> {
    introduce(peer).await?;
    let (mut reader, mut writer) = peer.split();
    let question = ClientMessage::Control { id: 1, request: WireControl::Status { campaign: None, from: 0 } };
    let questions = encoded(&question).repeat(100);
    let asking = async {
        loop {
            writer.write_all(&questions).await?;
        }
    };
    let reading = async {
        let mut answers = vec![0; 64 * 1_024];
        while reader.read(&mut answers).await? > 0 {}
        Ok(())
    };
    tokio::select! {
        asked = asking => asked,
        read = reading => read,
    }
}

/// Reports leases that it guesses, then breaks the rules of numbers.
async fn steal(peer: &mut TcpStream, random: &mut Random) -> std::io::Result<()> {
    preface(peer).await?;
    let session =
        WireSession { session: random.id(), instance: [0; 16], attempt: 1, confirmed: 0, name: "thief".to_owned() };
    send(peer, &ClientMessage::Hello { token: String::new(), session: Some(session) }).await?;
    let guesses = (0..1_000).map(|_| {
        let lease = (random.within(0..=20_000) << 32) | random.within(0..=10);
        let lease = if random.percent(50) { lease } else { lease.rotate_left(32) };
        WireRequest::Done { lease, runs: 1 }
    });
    let requests = guesses.collect();
    send(peer, &ClientMessage::Requests { first: 1, confirmed: 0, requests }).await?;
    let requests = vec![WireRequest::Release { lease: random.number() }];
    send(peer, &ClientMessage::Requests { first: 5_000, confirmed: 0, requests }).await?;
    read_to_end(peer).await
}

/// A hello without a session.
fn hello() -> ClientMessage {
    ClientMessage::Hello { token: String::new(), session: None }
}

async fn preface(peer: &mut TcpStream) -> std::io::Result<()> {
    peer.write_all(&frame::client_preface(VERSIONS)).await?;
    peer.read_exact(&mut [0; SERVER_PREFACE_BYTES]).await.map(|_| ())
}

async fn introduce(peer: &mut TcpStream) -> std::io::Result<()> {
    preface(peer).await?;
    send(peer, &hello()).await
}

fn encoded(message: &ClientMessage) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_client(message, &mut bytes).unwrap();
    bytes
}

async fn send(peer: &mut TcpStream, message: &ClientMessage) -> std::io::Result<()> {
    peer.write_all(&encoded(message)).await
}

/// The announcement of the longest frame, and so many bytes of it.
fn begun_frame(bytes: usize) -> Vec<u8> {
    [&u32::try_from(limits::FRAME_BYTES_MAX).unwrap().to_le_bytes()[..], &vec![0; bytes]].concat()
}

/// A few random bytes.
fn bytes(random: &mut Random) -> Vec<u8> {
    (0..random.within(1..=2_000)).map(|_| random.number().to_le_bytes()[0]).collect()
}

/// Sends a byte now and then, until the server ends it or all is sent; then waits for the end.
async fn drip(peer: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    for byte in bytes {
        peer.write_all(&[*byte]).await?;
        if timeout(DRIP, read_to_end(peer)).await.is_ok() {
            return Ok(());
        }
    }
    read_to_end(peer).await
}

/// Reads what comes until the server closes.
async fn read_to_end(peer: &mut TcpStream) -> std::io::Result<()> {
    let mut bytes = [0; 4_096];
    while peer.read(&mut bytes).await? > 0 {}
    Ok(())
}

fn number_from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}
