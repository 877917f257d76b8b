//! One connection from its first byte to its last: tells the dialect, has it introduce itself, and hands it on.
//!
//! ```text
//!                 ┌─ native ──▶ preface, hello ──▶ native.rs ─┐
//!   first bytes ──┤                                           ├──▶ registration ──▶ pipeline
//!    (deadline)   ├─ origin ─────────────────────▶ origin.rs ─┘
//!                 └─ HTTP, TLS, JSON lines, anything else: a readable refusal
//! ```
//!
//! **Invariant**: before a peer has introduced itself it costs a socket and a few hundred bytes, for a few seconds, and
//! the pipeline does not know of it. Tested against misbehaving peers in `tests/server_limits.rs`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::config::Bounds;
use super::connection::{Ending, Socket, closing, read_some, write_all};
use super::inbox::Inbox;
use super::outbox::AllOutboxes;
use super::places::{Newcomer, Place};
use super::translate::{Introduction, Said, client_message};
use super::unfinished::AllUnfinished;
use super::{native, origin};
use crate::limits;
use crate::protocol::dialect::{self, Dialect};
use crate::protocol::frame::{self, Decoder, ServerPreface};
use crate::protocol::messages::{ServerMessage, WireClosing};
use crate::protocol::{codec, frame::VERSIONS};
use crate::store::Texts;
use crate::types::{ConnectionId, InstanceId};

/// What all sessions of a server share.
pub(crate) struct Shared {
    /// The way to the pipeline.
    pub(crate) inbox: Inbox,
    /// What waits to be written to all of them.
    pub(crate) outboxes: AllOutboxes,
    /// What has arrived of messages that are not whole.
    pub(crate) unfinished: AllUnfinished,
    /// Where keys are read.
    pub(crate) texts: Texts,
    /// Whose data this is.
    pub(crate) instance: InstanceId,
    /// What connections are held to.
    pub(crate) bounds: Bounds,
    /// How long a connection of the origin's dialect may be silent.
    pub(crate) origin_idle: Duration,
    /// Becomes true when connections are to be closed.
    pub(crate) closing: watch::Receiver<bool>,
    /// The last connection's id.
    pub(crate) last_connection: AtomicU64,
}

/// Serves one connection until it ends. One that there is no place for gets no more than the reason.
pub(crate) async fn serve(stream: TcpStream, peer: SocketAddr, newcomer: Newcomer, shared: Arc<Shared>) {
    let connection = ConnectionId(shared.last_connection.fetch_add(1, Ordering::Relaxed) + 1);
    let admitted = tokio::select! {
        admitted = admit(stream, peer, connection, &newcomer, &shared) => admitted,
        () = newcomer.pushed_out() => {
            return tracing::debug!(%peer, "closed: too many others arrived before it had introduced itself");
        }
    };
    match admitted {
        Some(Admitted::Native { socket, introduction, decoder, place }) => {
            drop(newcomer);
            native::serve(socket, peer, connection, introduction, decoder, &shared).await;
            drop(place);
        }
        Some(Admitted::Origin { socket, received }) => {
            origin::serve(socket, peer, connection, &received, newcomer, &shared).await;
        }
        None => {}
    }
}

/// Who may go on.
enum Admitted {
    /// A peer of the native dialect, with a place.
    Native { socket: Socket, introduction: Introduction, decoder: Decoder, place: Place },
    /// A peer of the origin's dialect; it has introduced itself when its first message is complete.
    Origin { socket: Socket, received: Vec<u8> },
}

/// Has a peer introduce itself; whoever may not go on is told why, as far as it may understand.
async fn admit(
    stream: TcpStream,
    peer: SocketAddr,
    connection: ConnectionId,
    newcomer: &Newcomer,
    shared: &Shared,
) -> Option<Admitted> {
    let mut arrival = Arrival { socket: Socket::new(stream), received: Vec::new(), prefaced: false };
    let limit = shared.bounds.write;
    let mut phase = shared.closing.clone();
    let greeting = tokio::select! {
        greeting = timeout(shared.bounds.handshake, arrival.greet(connection, limit)) => greeting,
        () = closing(&mut phase) => return None,
    };
    let Arrival { socket, received, prefaced } = arrival;
    match greeting {
        Ok(Ok(Greeting::Native { introduction, decoder })) => {
            if let Some(place) = newcomer.place() {
                return Some(Admitted::Native { socket, introduction, decoder, place });
            }
            tracing::debug!(%peer, "turned away: too many connections");
            let text = "the server has as many connections as it can: try again later";
            socket.part(&closing_frame(WireClosing::Busy, text), limit).await;
        }
        Ok(Ok(Greeting::Origin)) => return Some(Admitted::Origin { socket, received }),
        Ok(Ok(Greeting::Refused { why, answer })) => {
            tracing::info!(%peer, "refused: {why}");
            socket.part(&answer, limit).await;
        }
        Ok(Err(gone)) => tracing::debug!(%peer, "gone before it had introduced itself: {gone}"),
        Err(_elapsed) => {
            tracing::info!(%peer, "closed: it did not introduce itself within {:?}", shared.bounds.handshake);
            if prefaced {
                let text = format!("no hello within {:?}", shared.bounds.handshake);
                socket.part(&closing_frame(WireClosing::Protocol, &text), limit).await;
            }
        }
    }
    None
}

/// How a peer began.
enum Greeting {
    /// It speaks the native dialect and introduced itself; `decoder` holds what followed.
    Native { introduction: Introduction, decoder: Decoder },
    /// It speaks the origin's dialect.
    Origin,
    /// It gets an answer that it may understand, and nothing else.
    Refused { why: String, answer: Vec<u8> },
}

/// A connection that has not introduced itself.
struct Arrival {
    socket: Socket,
    /// What was read and not yet used.
    received: Vec<u8>,
    /// Whether it was answered in the native dialect, so that it can be told what is wrong.
    prefaced: bool,
}

impl Arrival {
    async fn greet(&mut self, connection: ConnectionId, limit: Duration) -> io::Result<Greeting> {
        loop {
            match dialect::tell(&self.received) {
                Dialect::NeedMore => self.read_more().await?,
                Dialect::Native => return self.greet_native(connection, limit).await,
                Dialect::Origin => return Ok(Greeting::Origin),
                refused @ (Dialect::Http | Dialect::Tls | Dialect::JsonLines) => {
                    let answer = dialect::refusal(refused).unwrap_or_default();
                    return Ok(Greeting::Refused { why: format!("{refused:?} is not spoken here"), answer });
                }
            }
        }
    }

    async fn greet_native(&mut self, connection: ConnectionId, limit: Duration) -> io::Result<Greeting> {
        let theirs = loop {
            match frame::read_client_preface(&self.received) {
                Ok(Some(versions)) => break versions,
                Ok(None) => self.read_more().await?,
                Err(error) => {
                    let answer = format!("This is a tenfold server, but {error}.\n");
                    return Ok(Greeting::Refused { why: error.to_string(), answer: answer.into_bytes() });
                }
            }
        };
        let preface = ServerPreface::answer(VERSIONS, theirs);
        if preface.chosen.is_none() {
            let why = format!("it speaks {theirs} of the protocol, this server {VERSIONS}");
            return Ok(Greeting::Refused { why, answer: preface.to_bytes().to_vec() });
        }
        write_all(&mut self.socket.write, &preface.to_bytes(), limit).await?;
        self.prefaced = true;
        let mut decoder = Decoder::new(limits::HELLO_FRAME_BYTES_MAX);
        decoder.push(&self.received[frame::CLIENT_PREFACE_BYTES..]);
        self.received = Vec::new();
        loop {
            let message = match decoder.next_frame() {
                Ok(None) => {
                    end_is_error(read_some(&mut self.socket.read, |bytes| decoder.push(bytes)).await)?;
                    continue;
                }
                Ok(Some(body)) => codec::decode_client(body).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            let why = match message.map(|message| client_message(connection, message)) {
                Ok(Said::Introduced(introduction)) => {
                    decoder.set_limit(limits::FRAME_BYTES_MAX);
                    return Ok(Greeting::Native { introduction, decoder });
                }
                Ok(Said::Command(_)) => "the first message must be a hello".to_owned(),
                Err(error) => error,
            };
            let answer = closing_frame(WireClosing::Protocol, &why);
            return Ok(Greeting::Refused { why, answer });
        }
    }

    async fn read_more(&mut self) -> io::Result<()> {
        end_is_error(read_some(&mut self.socket.read, |bytes| self.received.extend_from_slice(bytes)).await)
    }
}

fn end_is_error(read: io::Result<usize>) -> io::Result<()> {
    match read {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The last message of a native connection, as a frame.
pub(crate) fn closing_frame(code: WireClosing, text: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    if let Err(error) = codec::encode_server(&ServerMessage::Closing { code, text: text.to_owned() }, &mut frame) {
        // Its texts are a line long; without the message the peer still sees the end.
        tracing::error!("a closing message cannot be encoded: {error}");
    }
    frame
}

/// What a native peer is told about the end of its connection; `None` if there is nobody to tell.
pub(crate) fn last_words(ending: &Ending, bounds: &Bounds) -> Option<Vec<u8>> {
    match ending {
        Ending::PeerClosed | Ending::SlowReader | Ending::PipelineEnded => None,
        Ending::Closed => Some(Vec::new()),
        Ending::Goodbye => Some(closing_frame(WireClosing::Goodbye, "goodbye")),
        Ending::Silent => {
            let text = format!("nothing was heard of you for {:?}", bounds.native_idle);
            Some(closing_frame(WireClosing::Reconnect, &text))
        }
        Ending::Protocol(text) => Some(closing_frame(WireClosing::Protocol, text)),
        Ending::Trickled => {
            let text = format!("a message took longer than {:?} to arrive", bounds.message);
            Some(closing_frame(WireClosing::Busy, &text))
        }
        Ending::Crowded => {
            let text = "too much of unfinished messages waits for its rest: try again later";
            Some(closing_frame(WireClosing::Busy, text))
        }
        Ending::Shutdown => {
            let text = "the server shuts down; reconnect when it is back";
            Some(closing_frame(WireClosing::Shutdown, text))
        }
    }
}
