//! Peers that speak to a real server message by message, and what a test wants to know of a campaign.
//!
//! Unlike the client library they do nothing by themselves: no heartbeats, no reconnects. **Invariant.** Every wait fails
//! the test after a patience that a right server never uses up.

use tenfold::client::Control;
use tenfold::protocol::codec;
use tenfold::protocol::frame::{self, Decoder, ServerPreface, VERSIONS};
use tenfold::protocol::messages::{
    ClientMessage, ServerMessage, WireClosing, WireGrant, WireLoss, WireRefusal, WireRequest, WireSession,
};
use tenfold::protocol::origin::AnswerDecoder;
use tenfold::types::{CampaignSpec, CreationId, Order, Tasks};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::server::{Site, patiently};

/// A counted campaign of the tasks `0 .. tasks`, whose leases last.
pub(crate) fn counted(name: &str, tasks: u32, runs: u32) -> CampaignSpec {
    CampaignSpec {
        name: name.to_owned(),
        tasks: Tasks::Range { first: 0, count: tasks },
        runs,
        seed: None,
        order: Order::Lowest,
        lease_ms: Some(3_600_000),
        timeout_ms: None,
        errors_max: Some(3),
        losses_max: None,
    }
}

/// The same, numbered.
pub(crate) fn numbered(name: &str, tasks: u32, runs: u32) -> CampaignSpec {
    CampaignSpec { seed: Some(42), ..counted(name, tasks, runs) }
}

/// Creates campaigns; their creations are named after their order.
pub(crate) async fn create(site: &Site, specs: &[CampaignSpec]) {
    for (index, spec) in specs.iter().enumerate() {
        let creation = CreationId([u8::try_from(index + 1).unwrap(); 16]);
        site.control().create(creation, spec, &[]).await.unwrap();
    }
}

/// Per task of a campaign: runs done, extra ones, and those lent now.
pub(crate) async fn counts(control: &Control, campaign: &str) -> Vec<(u32, u32, u32)> {
    let page = patiently("the counts", control.counts_page(campaign, 0)).await.unwrap();
    page.tasks.iter().map(|(_, count)| (count.done, count.extra, count.leased)).collect()
}

/// A native peer.
#[derive(Debug)]
pub(crate) struct Native {
    stream: TcpStream,
    decoder: Decoder,
}

/// How a session was welcomed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Welcome {
    pub(crate) instance: [u8; 16],
    pub(crate) resumed: bool,
    pub(crate) through: u64,
    pub(crate) refusals: Vec<WireRefusal>,
    pub(crate) leases: u32,
}

/// A session on its way over connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    id: [u8; 16],
    instance: [u8; 16],
    attempt: u64,
    /// The highest number whose answer was read.
    pub(crate) confirmed: u64,
}

impl Session {
    /// One that no server knows.
    pub(crate) fn new(id: u8) -> Self {
        Self { id: [id; 16], instance: [0; 16], attempt: 0, confirmed: 0 }
    }

    /// Its id.
    pub(crate) fn id(&self) -> tenfold::types::SessionId {
        tenfold::types::SessionId(self.id)
    }

    /// Connects, and says who it is.
    async fn introduce(&mut self, site: &Site) -> (Native, ServerMessage) {
        self.attempt += 1;
        let mut peer = Native::connect(&site.address()).await;
        let Self { id: session, instance, attempt, confirmed } = *self;
        let session = Some(WireSession { session, instance, attempt, confirmed, name: "test".to_owned() });
        peer.send(&ClientMessage::Hello { token: String::new(), session }).await;
        let answer = peer.next().await;
        (peer, answer)
    }

    /// Begins or resumes the session.
    pub(crate) async fn connect(&mut self, site: &Site) -> (Native, Welcome) {
        let (peer, answer) = self.introduce(site).await;
        let ServerMessage::Welcome { instance, resumed, through, refusals, leases } = answer else {
            panic!("a welcome expected, not {answer:?}")
        };
        self.instance = instance;
        (peer, Welcome { instance, resumed, through, refusals, leases })
    }

    /// Begins the session; `None` if the server has no place for it.
    pub(crate) async fn try_connect(&mut self, site: &Site) -> Option<Native> {
        match self.introduce(site).await {
            (peer, ServerMessage::Welcome { .. }) => Some(peer),
            (_, ServerMessage::Closing { code: WireClosing::Busy, .. }) => None,
            (_, other) => panic!("a welcome or a refusal expected, not {other:?}"),
        }
    }

    /// Tries to resume a session that the server must not know.
    pub(crate) async fn assert_unknown(&mut self, site: &Site) {
        let (_, answer) = self.introduce(site).await;
        assert_eq!(answer, ServerMessage::UnknownSession { instance: self.instance });
    }
}

impl Native {
    /// Connects, as far as the prefaces.
    async fn connect(address: &str) -> Self {
        let mut stream = patiently("a connection", TcpStream::connect(address)).await.unwrap();
        stream.write_all(&frame::client_preface(VERSIONS)).await.unwrap();
        let mut preface = [0; frame::SERVER_PREFACE_BYTES];
        patiently("the preface", stream.read_exact(&mut preface)).await.unwrap();
        assert!(ServerPreface::read(&preface).unwrap().unwrap().chosen.is_some());
        Self { stream, decoder: Decoder::new(1 << 20) }
    }

    pub(crate) async fn send(&mut self, message: &ClientMessage) {
        let mut bytes = Vec::new();
        codec::encode_client(message, &mut bytes).unwrap();
        patiently("the server to take bytes", self.stream.write_all(&bytes)).await.unwrap();
    }

    /// The next message that is no sign of life; `None` at the end.
    async fn next_or_end(&mut self) -> Option<ServerMessage> {
        loop {
            if let Some(body) = self.decoder.next_frame().unwrap() {
                let message = codec::decode_server(body).unwrap();
                if message == ServerMessage::Heartbeat {
                    continue;
                }
                return Some(message);
            }
            let mut bytes = [0; 4_096];
            match patiently("a message", self.stream.read(&mut bytes)).await {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.decoder.push(&bytes[..read]),
            }
        }
    }

    /// The next message that is no sign of life.
    pub(crate) async fn next(&mut self) -> ServerMessage {
        self.next_or_end().await.expect("a message, not the end")
    }

    /// The connection ends, and nothing was said before.
    pub(crate) async fn assert_ends(mut self) {
        assert_eq!(self.next_or_end().await, None);
    }

    pub(crate) async fn want(&mut self, leases: u32, runs: u32) {
        self.send(&ClientMessage::Want { leases, runs, campaigns: Vec::new() }).await;
    }

    /// The same, from one campaign only.
    pub(crate) async fn want_of(&mut self, leases: u32, runs: u32, campaign: &str) {
        self.send(&ClientMessage::Want { leases, runs, campaigns: vec![campaign.to_owned()] }).await;
    }

    /// The grants of the next message, and whether they were granted before.
    pub(crate) async fn grants(&mut self) -> (Vec<WireGrant>, bool) {
        let message = self.next().await;
        let ServerMessage::Grants { grants, resent, .. } = message else { panic!("grants expected, not {message:?}") };
        (grants, resent)
    }

    /// The lost leases of the next message.
    pub(crate) async fn losses(&mut self) -> Vec<WireLoss> {
        let message = self.next().await;
        let ServerMessage::Lost { leases } = message else { panic!("losses expected, not {message:?}") };
        leases
    }

    pub(crate) async fn requests(&mut self, first: u64, confirmed: u64, requests: &[WireRequest]) {
        let requests = requests.to_vec();
        self.send(&ClientMessage::Requests { first, confirmed, requests }).await;
    }

    /// The next answers: through which number, and what of it was refused. Where leases are short, one may be lost first.
    pub(crate) async fn answers(&mut self) -> (u64, Vec<WireRefusal>) {
        let mut message = self.next().await;
        while let ServerMessage::Lost { .. } = message {
            message = self.next().await;
        }
        let ServerMessage::Answers { through, refusals } = message else { panic!("answers expected, not {message:?}") };
        (through, refusals)
    }
}

/// A connection in the origin's dialect.
#[derive(Debug)]
pub(crate) struct Origin {
    stream: TcpStream,
    decoder: AnswerDecoder,
}

impl Origin {
    pub(crate) async fn connect(address: &str) -> Self {
        let stream = patiently("a connection", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, decoder: AnswerDecoder::default() }
    }

    /// Sends bytes in one write.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        patiently("the server to take bytes", self.stream.write_all(bytes)).await.unwrap();
    }

    /// The next answer; `None` at the end.
    pub(crate) async fn answer(&mut self) -> Option<i64> {
        loop {
            if let Some(answer) = self.decoder.next_answer().unwrap() {
                return Some(answer);
            }
            let mut bytes = [0; 4_096];
            match patiently("an answer", self.stream.read(&mut bytes)).await {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.decoder.push(&bytes[..read]),
            }
        }
    }

    /// Closes while answers wait unread, which resets the connection.
    pub(crate) async fn reset(self) {
        patiently("an answer to leave unread", self.stream.readable()).await.unwrap();
        drop(self);
    }
}
