//! A scripted server: tests say what it hears and what it answers, message by message, so that every loss and every
//! order of events can be played. It speaks real bytes over a real socket on loopback.
#![allow(dead_code)] // Every test file uses another part of it.

use std::future::Future;
use std::time::Duration;

use tenfold::protocol::codec;
use tenfold::protocol::frame::{self, CLIENT_PREFACE_BYTES, Decoder, ServerPreface, VERSIONS, VersionRange};
use tenfold::protocol::messages::{
    ClientMessage, ServerMessage, WireCampaign, WireControl, WireGrant, WireRefusal, WireRequest, WireSession,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) const INSTANCE: [u8; 16] = [7; 16];
pub(crate) const CAMPAIGN: u32 = 1;

/// Runs a test; the time is only a guard against hanging.
pub(crate) fn play(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_mins(1), test).await.expect("the dialogue hangs");
    });
}

pub(crate) struct Server {
    listener: TcpListener,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub(crate) fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    /// The next connection, before any byte.
    pub(crate) async fn accept_raw(&self) -> TcpStream {
        let stream = self.listener.accept().await.unwrap().0;
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// The next connection, after the prefaces.
    pub(crate) async fn accept(&self) -> Peer {
        let mut stream = self.accept_raw().await;
        let theirs = read_preface(&mut stream).await;
        stream.write_all(&ServerPreface::answer(VERSIONS, theirs).to_bytes()).await.unwrap();
        Peer { stream, decoder: Decoder::new(1 << 20) }
    }

    /// The next connection, and how it introduced its session.
    pub(crate) async fn greeted(&self) -> (Peer, WireSession) {
        let mut peer = self.accept().await;
        let session = peer.session().await;
        (peer, session)
    }

    /// A fresh session that was welcomed and said what it wants.
    pub(crate) async fn welcomed(&self) -> (Peer, WireSession) {
        let (mut peer, session) = self.greeted().await;
        peer.send(welcome(false, 0, vec![], 0)).await;
        peer.want().await;
        (peer, session)
    }
}

pub(crate) async fn read_preface(stream: &mut TcpStream) -> VersionRange {
    let mut preface = [0; CLIENT_PREFACE_BYTES];
    stream.read_exact(&mut preface).await.unwrap();
    frame::read_client_preface(&preface).unwrap().unwrap()
}

/// One connection, from the server's side. Dropping it closes it.
pub(crate) struct Peer {
    stream: TcpStream,
    decoder: Decoder,
}

impl Peer {
    pub(crate) async fn send(&mut self, message: ServerMessage) {
        let mut bytes = Vec::new();
        codec::encode_server(&message, &mut bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// The next message, heartbeats included; `None`: the client closed.
    pub(crate) async fn hear(&mut self) -> Option<ClientMessage> {
        loop {
            if let Some(body) = self.decoder.next_frame().unwrap() {
                return Some(codec::decode_client(body).unwrap());
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes).await {
                Ok(0) | Err(_) => return None,
                Ok(length) => self.decoder.push(&bytes[..length]),
            }
        }
    }

    /// The next message that is no heartbeat; `None`: the client closed.
    pub(crate) async fn next(&mut self) -> Option<ClientMessage> {
        loop {
            match self.hear().await {
                Some(ClientMessage::Heartbeat { .. }) => {}
                other => return other,
            }
        }
    }

    pub(crate) async fn session(&mut self) -> WireSession {
        match self.next().await {
            Some(ClientMessage::Hello { token, session: Some(session) }) if token.is_empty() => session,
            other => panic!("expected a hello with a session, heard {other:?}"),
        }
    }

    /// (leases, runs, campaigns)
    pub(crate) async fn want(&mut self) -> (u32, u32, Vec<String>) {
        match self.next().await {
            Some(ClientMessage::Want { leases, runs, campaigns }) => (leases, runs, campaigns),
            other => panic!("expected a want, heard {other:?}"),
        }
    }

    /// (first, confirmed, requests)
    pub(crate) async fn requests(&mut self) -> (u64, u64, Vec<WireRequest>) {
        match self.next().await {
            Some(ClientMessage::Requests { first, confirmed, requests }) => (first, confirmed, requests),
            other => panic!("expected requests, heard {other:?}"),
        }
    }

    pub(crate) async fn control(&mut self) -> (u32, WireControl) {
        match self.next().await {
            Some(ClientMessage::Control { id, request }) => (id, request),
            other => panic!("expected a question, heard {other:?}"),
        }
    }

    /// Lends leases of one run each, describing the campaign.
    pub(crate) async fn lend(&mut self, leases: impl IntoIterator<Item = u64>, resent: bool) {
        let grants = leases.into_iter().map(grant).collect();
        self.send(ServerMessage::Grants { campaigns: vec![campaign(60_000)], grants, resent }).await;
    }

    pub(crate) async fn answer(&mut self, through: u64) {
        self.send(ServerMessage::Answers { through, refusals: vec![] }).await;
    }
}

pub(crate) fn welcome(resumed: bool, through: u64, refusals: Vec<WireRefusal>, leases: u32) -> ServerMessage {
    ServerMessage::Welcome { instance: INSTANCE, resumed, through, refusals, leases }
}

pub(crate) fn campaign(lease_ms: u64) -> WireCampaign {
    WireCampaign {
        id: CAMPAIGN,
        name: "sweep".into(),
        first: 100,
        seed: Some(42),
        keyed: true,
        lease_ms,
        timeout_ms: Some(3_600_000),
    }
}

/// A lease of one run of the task whose index is the lease's number.
pub(crate) fn grant(lease: u64) -> WireGrant {
    let task = u32::try_from(lease & 0xffff_ffff).unwrap();
    WireGrant { lease, campaign: CAMPAIGN, task, first_run: 3, runs: 1, key: Some(format!("key-{lease}")) }
}

pub(crate) fn done(lease: u64) -> WireRequest {
    WireRequest::Done { lease, runs: 1 }
}
