//! A server in this process on a free port and a fresh directory, and peers that speak to it byte by byte.
//!
//! Nothing here sleeps: peers wait for what they expect, with a patience that only a failing test uses up.
// Every test file includes this for itself, and uses another part of it; clippy sees no test in it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use tempfile::TempDir;
use tenfold::protocol::codec;
use tenfold::protocol::frame::{self, Decoder, ServerPreface, VERSIONS};
use tenfold::protocol::messages::{
    ClientMessage, ServerMessage, WireAnswer, WireClosing, WireControl, WireCount, WireGrant, WireOrder, WireRequest,
    WireSession, WireSpec, WireTasks,
};
use tenfold::protocol::origin::{self, AnswerDecoder};
use tenfold::server::{Activity, Config, Fatal, ServeError, Server, Stopped};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Only a failing test waits this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for `future`, or fails.
pub async fn patiently<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// A running server.
pub struct Rig {
    pub address: SocketAddr,
    pub activity: Activity,
    pub stops: mpsc::Sender<()>,
    run: JoinHandle<Result<Stopped, ServeError>>,
}

/// Settings for a server on a free port that reports a fatal end by a panic of its test.
pub fn config(directory: &TempDir) -> Config {
    let mut config = Config::new(directory.path().join("data"));
    config.listen = vec!["127.0.0.1:0".to_owned()];
    config.fatal = Fatal::new(|reason| panic!("fatal: {reason}"));
    config
}

impl Rig {
    pub async fn start(directory: &TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(directory);
        change(&mut config);
        let server = patiently("the start", Server::start(config)).await.unwrap();
        let (address, activity) = (server.addresses()[0], server.activity());
        let (stops, receiver) = mpsc::channel(2);
        Self { address, activity, stops, run: tokio::spawn(server.run(receiver)) }
    }

    pub async fn stop(self) -> Stopped {
        self.stops.send(()).await.unwrap();
        self.ended().await
    }

    pub async fn ended(self) -> Stopped {
        patiently("the end of the server", self.run).await.unwrap().unwrap()
    }

    pub fn has_ended(&self) -> bool {
        self.run.is_finished()
    }

    pub async fn raw(&self) -> Raw {
        raw(self.address).await
    }

    /// A native peer that has said nothing after the prefaces.
    pub async fn silent(&self) -> Native {
        self.raw().await.native().await
    }

    /// A native peer without a session.
    pub async fn control(&self) -> Native {
        self.silent().await.control().await
    }

    /// A native peer with a new session.
    pub async fn session(&self, id: u8) -> Native {
        let mut peer = self.silent().await;
        peer.send(&hello(id, [0; 16], 1, 0)).await;
        let welcome = peer.next().await;
        assert!(matches!(welcome, ServerMessage::Welcome { resumed: false, through: 0, .. }), "{welcome:?}");
        peer
    }

    pub async fn origin(&self) -> Origin {
        Origin { stream: TcpStream::connect(self.address).await.unwrap(), decoder: AnswerDecoder::default() }
    }
}

pub fn hello(id: u8, instance: [u8; 16], attempt: u64, confirmed: u64) -> ClientMessage {
    let session = WireSession { session: [id; 16], instance, attempt, confirmed, name: format!("test:{id}") };
    ClientMessage::Hello { token: String::new(), session: Some(session) }
}

/// A counted campaign of the tasks `0 .. tasks`.
pub fn spec(name: &str, tasks: u32, runs: u32) -> WireSpec {
    WireSpec {
        name: name.to_owned(),
        tasks: WireTasks::Range { first: 0, count: tasks },
        runs,
        seed: None,
        order: WireOrder::Lowest,
        lease_ms: None,
        timeout_ms: None,
        errors_max: Some(3),
        losses_max: None,
    }
}

/// A peer that sends bytes.
pub struct Raw(pub TcpStream);

/// A peer of the server at `address` that has said nothing.
pub async fn raw(address: SocketAddr) -> Raw {
    Raw(TcpStream::connect(address).await.unwrap())
}

impl Raw {
    /// A native peer that has said nothing after the prefaces.
    pub async fn native(mut self) -> Native {
        self.send(&frame::client_preface(VERSIONS)).await;
        let mut preface = [0; frame::SERVER_PREFACE_BYTES];
        patiently("the preface", self.0.read_exact(&mut preface)).await.unwrap();
        assert_eq!(ServerPreface::read(&preface).unwrap().unwrap().chosen, Some(1));
        Native { stream: self.0, decoder: Decoder::new(1 << 20) }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        patiently("the peer to take bytes", self.0.write_all(bytes)).await.unwrap();
    }

    /// All that comes until the server closes.
    pub async fn rest(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A reset after the last bytes is an end, too.
        let _ = patiently("the end of the connection", self.0.read_to_end(&mut bytes)).await;
        bytes
    }
}

/// A native peer.
pub struct Native {
    pub stream: TcpStream,
    decoder: Decoder,
}

impl Native {
    /// Introduces itself without a session.
    pub async fn control(mut self) -> Self {
        self.send(&ClientMessage::Hello { token: String::new(), session: None }).await;
        let welcome = self.next().await;
        assert!(matches!(welcome, ServerMessage::Welcome { resumed: false, leases: 0, .. }), "{welcome:?}");
        self
    }

    pub async fn send(&mut self, message: &ClientMessage) {
        let mut bytes = Vec::new();
        codec::encode_client(message, &mut bytes).unwrap();
        self.send_bytes(&bytes).await;
    }

    pub async fn try_send(&mut self, message: &ClientMessage) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        codec::encode_client(message, &mut bytes).unwrap();
        self.stream.write_all(&bytes).await
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        patiently("the peer to take bytes", self.stream.write_all(bytes)).await.unwrap();
    }

    /// The next message, signs of life included; `None` at the end.
    pub async fn next_or_end(&mut self) -> Option<ServerMessage> {
        loop {
            if let Some(body) = self.decoder.next_frame().unwrap() {
                return Some(codec::decode_server(body).unwrap());
            }
            let mut bytes = [0; 4_096];
            match patiently("a message", self.stream.read(&mut bytes)).await {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.decoder.push(&bytes[..read]),
            }
        }
    }

    /// The next message that is no sign of life.
    pub async fn next(&mut self) -> ServerMessage {
        loop {
            let message = self.next_or_end().await.expect("a message, not the end");
            if message != ServerMessage::Heartbeat {
                return message;
            }
        }
    }

    /// The grants of the next message, which must be some.
    pub async fn grants(&mut self) -> Vec<WireGrant> {
        let message = self.next().await;
        let ServerMessage::Grants { grants, .. } = message else { panic!("grants expected, not {message:?}") };
        grants
    }

    /// The closing message, whatever comes before it, and the end behind it.
    pub async fn closing(&mut self) -> (WireClosing, String) {
        loop {
            let message = self.next_or_end().await.expect("a closing message, not the end");
            if let ServerMessage::Closing { code, text } = message {
                assert_eq!(self.next_or_end().await, None, "nothing follows");
                return (code, text);
            }
        }
    }

    /// The answer to a control request.
    pub async fn ask(&mut self, request: WireControl) -> WireAnswer {
        self.send(&ClientMessage::Control { id: 7, request }).await;
        loop {
            if let ServerMessage::Control { id, answer } = self.next().await {
                assert_eq!(id, 7);
                return answer;
            }
        }
    }

    pub async fn create(&mut self, spec: WireSpec) {
        let creation = [spec.name.len() as u8; 16];
        let answer = self.ask(WireControl::Create { creation, spec: Box::new(spec) }).await;
        assert!(matches!(answer, WireAnswer::Creation { existed: false, .. }), "{answer:?}");
    }

    /// Creates a campaign of the tasks with these keys, one run each.
    pub async fn create_with_keys(&mut self, name: &str, keys: &[String]) {
        let creation = [9; 16];
        let tasks = WireTasks::Keys { count: keys.len() as u32 };
        self.ask(WireControl::Create { creation, spec: Box::new(WireSpec { tasks, ..spec(name, 1, 1) }) }).await;
        let mut from = 0;
        for keys in keys.chunks(200) {
            let answer = self.ask(WireControl::AddKeys { creation, from, keys: keys.to_vec() }).await;
            from += keys.len() as u32;
            assert!(matches!(answer, WireAnswer::Creation { added, .. } if added == from), "{answer:?}");
        }
        let answer = self.ask(WireControl::Seal { creation }).await;
        assert!(matches!(answer, WireAnswer::Creation { sealed: true, .. }), "{answer:?}");
    }

    /// All counts of a campaign of a thousand tasks at most.
    pub async fn counts(&mut self, campaign: &str) -> Vec<WireCount> {
        let answer = self.ask(WireControl::Counts { campaign: campaign.to_owned(), from: 0, limit: 1_000 }).await;
        let WireAnswer::Counts { tasks, .. } = answer else { panic!("counts expected, not {answer:?}") };
        tasks
    }

    pub async fn want(&mut self, leases: u32) {
        self.send(&ClientMessage::Want { leases, runs: 1, campaigns: Vec::new() }).await;
    }

    pub async fn report(&mut self, number: u64, lease: u64) {
        let requests = vec![WireRequest::Done { lease, runs: 1 }];
        self.send(&ClientMessage::Requests { first: number, confirmed: 0, requests }).await;
    }
}

/// A client of the origin's dialect.
pub struct Origin {
    pub stream: TcpStream,
    decoder: AnswerDecoder,
}

impl Origin {
    pub async fn send(&mut self, done: &[(u64, u64)]) {
        self.send_bytes(&origin::encode_message(done)).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        patiently("the peer to take bytes", self.stream.write_all(bytes)).await.unwrap();
    }

    /// The next answer; `None` at the end.
    pub async fn answer(&mut self) -> Option<i64> {
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

    pub async fn ask(&mut self, done: &[(u64, u64)]) -> i64 {
        self.send(done).await;
        self.answer().await.unwrap()
    }
}
