//! What a client shows of itself: how it stands, and how it ended. Plain data; put together in `shared`.

use crate::types::{Idle, InstanceId};

/// How a client stands. Watch it with [`super::Client::watch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Whether it has a server.
    pub connection: Connection,
    /// Why the server lends nothing more, as last heard on this connection; `None` while it lends, or nothing was heard.
    pub idle: Option<Idle>,
    /// Leases that are held and neither reported, released nor lost; those not yet taken from the client included.
    pub held: u32,
    /// Reports and releases whose answer has not been read.
    pub unanswered: u32,
}

/// Whether a client has a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It tries to reach one, and will go on doing so.
    Connecting {
        /// Which attempt this is since the last connection, from 1.
        attempt: u64,
        /// Why the one before failed, or the last connection ended.
        last_error: Option<String>,
    },
    /// It has one, and its session is in force there.
    Connected {
        /// Its address, as it stands in the configuration.
        server: String,
        /// Its data directory.
        instance: InstanceId,
    },
    /// It has stopped for good.
    Stopped(Stopped),
}

/// Why a client has stopped for good: there are no more leases, and what is not answered yet resolves to
/// [`super::Verdict::Unknown`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// It was closed or dropped.
    #[error("the client was closed")]
    Closed,
    /// Another connection introduced itself with this session: two processes use one session, which must not be.
    #[error("the session was taken over by another connection: {0}")]
    Superseded(String),
    /// The server says that this client breaks the protocol; reconnecting will not help.
    #[error("the server ended the connection for good: {0}")]
    Protocol(String),
    /// Client and server have no version of the protocol in common; the text names both ranges.
    #[error("{0}")]
    Version(String),
    /// The client's own thread ended without a reason it knows; its log or stderr may say more.
    #[error("the client's thread ended unexpectedly")]
    Crashed,
}

/// How closing went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Numbers of the requests whose answer was not read in time, in order. Ask for their fate with
    /// [`super::Control::fate`].
    pub unanswered: Vec<u64>,
    /// Whether the server confirmed the goodbye: then the session's leases have gone back, and it is forgotten.
    pub said_goodbye: bool,
}
