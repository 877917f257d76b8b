//! The clients: connections in one thread that report what they were lent as soon as they are lent it.
//!
//! ```text
//!   hello, want ──▶ grants ──▶ report all of them in one message ──▶ answer and grants ──▶ report …
//! ```
//!
//! A cycle is from a report to the grants that follow it: all that was reported has been counted durably, and there is new
//! work. Says `begin` when all are under way, then, after the measured time, one line of figures.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use tenfold::protocol::codec;
use tenfold::protocol::frame::{SERVER_PREFACE_BYTES, VERSIONS, client_preface};
use tenfold::protocol::messages::{ClientMessage, ServerMessage, WireRequest, WireSession};

use crate::peer::{Peer, Readiness};

/// Before the measured time.
const WARM_UP: Duration = Duration::from_millis(500);

struct Client {
    peer: Peer,
    next: u64,
    sent: Instant,
    out: Vec<u8>,
    /// Reported and not yet answered by new grants.
    waiting: usize,
    lent: Vec<u64>,
}

impl Client {
    fn new(address: &str, number: u32, batch: u32) -> Self {
        let mut peer = Peer::new(TcpStream::connect(address).unwrap(), SERVER_PREFACE_BYTES);
        let mut session = [0; 16];
        session[..8].copy_from_slice(&u64::from(std::process::id()).to_le_bytes());
        session[8..12].copy_from_slice(&number.to_le_bytes());
        session[15] = 1;
        let name = format!("load:{number}");
        let session = WireSession { session, instance: [0; 16], attempt: 1, confirmed: 0, name };
        let mut out = client_preface(VERSIONS).to_vec();
        let hello = ClientMessage::Hello { token: String::new(), session: Some(session) };
        codec::encode_client(&hello, &mut out).unwrap();
        codec::encode_client(&ClientMessage::Want { leases: batch, runs: 1, campaigns: Vec::new() }, &mut out).unwrap();
        peer.write(&out);
        Self { peer, next: 1, sent: Instant::now(), out, waiting: 0, lent: Vec::new() }
    }

    /// Reads what came; how long the cycle took that ended with it.
    fn turn(&mut self, batch: usize) -> Option<Duration> {
        self.peer.read();
        assert!(self.peer.open, "the server has closed a connection");
        while let Some(body) = self.peer.frame() {
            match codec::decode_server(body).unwrap() {
                ServerMessage::Grants { grants, .. } => self.lent.extend(grants.iter().map(|grant| grant.lease)),
                ServerMessage::Idle(idle) => panic!("there is nothing left to do: {idle:?}"),
                ServerMessage::Closing { text, .. } => panic!("{text}"),
                ServerMessage::Answers { refusals, .. } => assert!(refusals.is_empty(), "{refusals:?}"),
                ServerMessage::Welcome { .. } | ServerMessage::Heartbeat => {}
                other @ (ServerMessage::UnknownSession { .. }
                | ServerMessage::Lost { .. }
                | ServerMessage::Control { .. }) => panic!("{other:?} was not expected"),
            }
        }
        if self.lent.len() < batch {
            return None;
        }
        let requests: Vec<WireRequest> =
            self.lent.drain(..).map(|lease| WireRequest::Done { lease, runs: 1 }).collect();
        let (first, count) = (self.next, requests.len());
        let took = (self.waiting > 0).then(|| self.sent.elapsed());
        self.out.clear();
        codec::encode_client(&ClientMessage::Requests { first, confirmed: first - 1, requests }, &mut self.out)
            .unwrap();
        self.next += count as u64;
        self.waiting = count;
        self.sent = Instant::now();
        self.peer.write(&self.out);
        took
    }
}

pub(crate) fn run(address: &str, clients: u32, batch: u32, seconds: f64) {
    let mut readiness = Readiness::new();
    let mut all: Vec<Client> = (0..clients).map(|number| Client::new(address, number, batch)).collect();
    for (number, client) in all.iter().enumerate() {
        readiness.add(&client.peer, number as u64);
    }
    let (mut begin, mut latencies) = (Instant::now() + WARM_UP, Vec::<u32>::new());
    let length = Duration::from_secs_f64(seconds);
    let mut measuring = false;
    loop {
        for number in readiness.wait() {
            if let Some(took) = all[number as usize].turn(batch as usize)
                && measuring
            {
                latencies.push(took.as_micros() as u32);
            }
        }
        let now = Instant::now();
        if !measuring && now >= begin {
            println!("begin");
            (begin, measuring) = (Instant::now(), true);
        } else if measuring && now >= begin + length {
            break;
        }
    }
    let elapsed = begin.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or(0);
    println!("{} {elapsed} {} {} {}", latencies.len(), at(0.5), at(0.99), at(0.999));
    // Leases go back at once, so that the next load finds a server at rest.
    for client in &mut all {
        client.out.clear();
        codec::encode_client(&ClientMessage::Goodbye, &mut client.out).unwrap();
        let bytes = std::mem::take(&mut client.out);
        client.peer.write(&bytes);
    }
}
