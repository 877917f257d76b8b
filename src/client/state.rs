//! What a client shows of itself.
use crate::types::{Idle, InstanceId};

/// How a client stands. Watch it with [`super::Client::watch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Whether it has a server.
    pub connection: Connection,
    /// Why the server lends nothing more, as last heard on this connection.
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
        /// Why the one before failed.
        last_error: Option<String>,
    },
    /// It has one.
    Connected {
        /// Its address, as it stands in the configuration.
        server: String,
        /// Its data directory.
        instance: InstanceId,
    },
    /// It has stopped for good.
    Stopped(Stopped),
}

/// Why a client has stopped for good: there are no more leases, and reports are answered with
/// [`super::Verdict::Unknown`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// It was closed or dropped.
    #[error("the client was closed")]
    Closed,
    /// Another connection introduced itself with this session: two processes use one session, which must not be.
    #[error("the session was taken over by another connection: {0}")]
    Superseded(String),
    /// The server says that this client breaks the protocol.
    #[error("the server ended the connection for good: {0}")]
    Protocol(String),
    /// Client and server have no version of the protocol in common.
    #[error("{0}")]
    Version(String),
}

/// How closing went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Numbers of the requests whose answer was not read in time, in order. Ask for their fate with
    /// [`super::Control::fate`].
    pub unanswered: Vec<u64>,
    /// Whether the server heard the goodbye: then the session's leases have gone back, and it is forgotten.
    pub said_goodbye: bool,
}
