//! The client: its configuration and its front.
use std::time::Duration;

use tokio::sync::watch;

use super::{Closed, Lease, State};
use crate::types::{SessionId, Want};

/// How a client works.
#[derive(Clone, Debug)]
pub struct Config {
    /// `HOST:PORT` each, tried in turn.
    pub servers: Vec<String>,
    /// For people; cut to [`crate::limits::SESSION_NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// What to hold; default: one lease of one run, from any campaign.
    pub want: Want,
    /// Whether leases end ([`Client::next_lease`] is `None`) when all that is wanted is settled; default: no.
    pub until_done: bool,
}

impl Config {
    /// The defaults, for these servers.
    pub fn new(_servers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        todo!()
    }
}

/// Why a client cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No servers were given.
    #[error("no server was given")]
    NoServers,
    /// The system gave no random bytes for the session's id.
    #[error("no random numbers for a session: {0}")]
    Random(String),
    /// The client's thread cannot be started.
    #[error("the client's thread cannot be started: {0}")]
    Thread(#[source] std::io::Error),
}

/// A session with a coordinator, on a thread of its own.
#[derive(Debug)]
pub struct Client(());

impl Client {
    /// Starts; returns at once and connects in the background, for ever.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(_config: Config) -> Result<Self, StartError> {
        todo!()
    }
    /// The session's id.
    pub fn session(&self) -> SessionId {
        todo!()
    }
    /// The number the next report or release will get.
    pub fn next_number(&self) -> u64 {
        todo!()
    }
    /// The next lease.
    pub async fn next_lease(&self) -> Option<Lease> {
        todo!()
    }
    /// The leases, for another task to take.
    pub fn leases(&self) -> Leases {
        todo!()
    }
    /// Changes what to hold.
    pub fn set_want(&self, _want: Want) {
        todo!()
    }
    /// Shows how the client stands.
    pub fn watch(&self) -> watch::Receiver<State> {
        todo!()
    }
    /// Ends the session.
    pub async fn close(self, _grace: Duration) -> Closed {
        todo!()
    }
}

/// The leases of a [`Client`] as they come.
#[derive(Clone, Debug)]
pub struct Leases(());

impl Leases {
    /// The next lease, as [`Client::next_lease`].
    pub async fn next(&mut self) -> Option<Lease> {
        todo!()
    }
}
