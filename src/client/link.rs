//! One native connection: dialling, prefaces, whole messages in and out. Used by sessions and by control.
//!
//! **Invariants.** Reading never waits for writing, so two peers that both write much cannot block each other.
//! [`Link::next`] loses nothing when it is cancelled. After a failed write what the peer said before is still read,
//! since it may say why it closed. Every wait has a limit. Tested through `tests/client_session.rs` and
//! `tests/client_control.rs`.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use crate::limits;
use crate::protocol::codec::{self, DecodeError, EncodeError};
use crate::protocol::frame::{self, Decoder, FrameError, SERVER_PREFACE_BYTES, ServerPreface, VERSIONS, VersionRange};
use crate::protocol::messages::{ClientMessage, ServerMessage};

/// Bytes that are read at once.
const READ_BYTES: usize = 64 * 1_024;

/// How long a peer may take nothing of what is written.
const WRITE_PATIENCE: Duration = Duration::from_millis(limits::WRITE_MS_MAX);

/// Why a server cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// It cannot be reached.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// It took too long.
    #[error("no answer within {} ms", .0.as_millis())]
    TooSlow(Duration),
    /// Whatever listens there speaks something else.
    #[error("what answers there is not a tenfold server")]
    NotNative,
    /// No version in common.
    #[error(
        "this client speaks {VERSIONS} of the protocol and the server {theirs}; {}",
        if theirs.highest < VERSIONS.lowest { "upgrade the server" } else { "upgrade the client" }
    )]
    Version {
        /// What the server speaks.
        theirs: VersionRange,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[source] io::Error),
    /// The peer closed without saying why.
    #[error("the server closed the connection")]
    Ended,
    /// Nothing was heard.
    #[error("the server was silent for {} ms", .0.as_millis())]
    Silent(Duration),
    /// It takes nothing.
    #[error("the server took nothing for {} ms", .0.as_millis())]
    Stalled(Duration),
    /// It sent something that cannot be read.
    #[error("the server sent what cannot be read: {0}")]
    Frame(#[from] FrameError),
    /// It sent something that is no message.
    #[error("the server sent what cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// Something of ours does not fit a frame.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// A connection after the prefaces.
#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    decoder: Decoder,
    chunk: Box<[u8]>,
    /// Bytes to be written, and how many of them were.
    outgoing: Vec<u8>,
    written: usize,
    /// Writing failed; only reading goes on.
    write_error: Option<io::Error>,
    /// When something was read last.
    heard: Instant,
    /// When the peer took something last, or when the first of what it has not taken was queued.
    taken: Instant,
    silence: Duration,
}

impl Link {
    /// Connects and exchanges prefaces; the link is given up when nothing is heard for `silence`.
    pub(super) async fn dial(server: &str, silence: Duration) -> Result<Self, LinkError> {
        let patience = Duration::from_millis(limits::HANDSHAKE_MS_MAX);
        timeout(patience, Self::dial_patiently(server, silence)).await.unwrap_or(Err(LinkError::TooSlow(patience)))
    }

    async fn dial_patiently(server: &str, silence: Duration) -> Result<Self, LinkError> {
        let mut stream = TcpStream::connect(with_port(server)).await.map_err(LinkError::Connect)?;
        stream.set_nodelay(true).map_err(LinkError::Connect)?;
        stream.write_all(&frame::client_preface(VERSIONS)).await.map_err(LinkError::Broken)?;
        let mut preface = [0; SERVER_PREFACE_BYTES];
        let mut length = 0;
        let preface = loop {
            match ServerPreface::read(&preface[..length]) {
                Err(frame::NotNative) => return Err(LinkError::NotNative),
                Ok(Some(preface)) => break preface,
                Ok(None) => match stream.read(&mut preface[length..]).await.map_err(LinkError::Broken)? {
                    0 => return Err(LinkError::Ended),
                    more => length += more,
                },
            }
        };
        match preface.chosen {
            Some(version) if (VERSIONS.lowest..=VERSIONS.highest).contains(&version) => {}
            Some(_) | None => return Err(LinkError::Version { theirs: preface.versions }),
        }
        Ok(Self {
            stream,
            decoder: Decoder::new(limits::FRAME_BYTES_MAX),
            chunk: vec![0; READ_BYTES].into_boxed_slice(),
            outgoing: Vec::new(),
            written: 0,
            write_error: None,
            heard: Instant::now(),
            taken: Instant::now(),
            silence,
        })
    }

    /// Queues a message; it is written while [`Link::next`] is awaited.
    pub(super) fn send(&mut self, message: &ClientMessage) -> Result<(), LinkError> {
        if self.backlog() == 0 {
            self.taken = Instant::now();
        }
        if self.written > READ_BYTES {
            self.outgoing.drain(..self.written);
            self.written = 0;
        }
        Ok(codec::encode_client(message, &mut self.outgoing)?)
    }

    /// Bytes that wait to be written.
    pub(super) fn backlog(&self) -> usize {
        self.outgoing.len() - self.written
    }

    /// The next message; meanwhile writes what is queued. May be cancelled and called again.
    pub(super) async fn next(&mut self) -> Result<ServerMessage, LinkError> {
        loop {
            if let Some(body) = self.decoder.next_frame()? {
                return Ok(codec::decode_server(body)?);
            }
            let may_write = self.backlog() > 0 && self.write_error.is_none();
            let (mut reader, mut writer) = self.stream.split();
            tokio::select! {
                read = reader.read(&mut self.chunk) => match (read, self.write_error.take()) {
                    (Ok(0), None) => return Err(LinkError::Ended),
                    (Ok(0) | Err(_), Some(error)) | (Err(error), None) => return Err(LinkError::Broken(error)),
                    (Ok(length), write_error) => {
                        self.write_error = write_error;
                        self.heard = Instant::now();
                        self.decoder.push(&self.chunk[..length]);
                    }
                },
                written = writer.write(&self.outgoing[self.written..]), if may_write => match written {
                    Err(error) => self.write_error = Some(error),
                    Ok(length) => {
                        self.taken = Instant::now();
                        self.written += length;
                        if self.written == self.outgoing.len() {
                            self.outgoing.clear();
                            self.written = 0;
                        }
                    }
                },
                () = sleep_until(self.heard + self.silence) => return Err(LinkError::Silent(self.silence)),
                () = sleep_until(self.taken + WRITE_PATIENCE), if may_write => {
                    return Err(LinkError::Stalled(WRITE_PATIENCE));
                }
            }
        }
    }
}

/// `HOST` means `HOST:` and the usual port.
fn with_port(server: &str) -> String {
    let bare = !server.contains(':') || server.ends_with(']');
    if bare { format!("{server}:{}", limits::PORT) } else { server.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_may_be_left_out() {
        for (server, expected) in [
            ("localhost", "localhost:65432"),
            ("localhost:1", "localhost:1"),
            ("[::1]", "[::1]:65432"),
            ("[::1]:1", "[::1]:1"),
        ] {
            assert_eq!(with_port(server), expected);
        }
    }

    #[test]
    fn a_version_that_does_not_fit_says_who_has_to_move() {
        let text = |lowest, highest| LinkError::Version { theirs: VersionRange { lowest, highest } }.to_string();
        assert_eq!(
            text(2, 3),
            "this client speaks version 1 of the protocol and the server versions 2 to 3; upgrade the client"
        );
        assert!(text(0, 0).ends_with("upgrade the server"));
    }
}
