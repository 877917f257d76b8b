//! What a server is told before it starts, and every bound that its connections are held to.
//!
//! Plain values. The bounds default to [`crate::limits`]; tests shrink them instead of waiting.

use std::path::PathBuf;
use std::time::Duration;

use super::fatal::Fatal;
use super::pipeline::Turns;
use crate::limits;
use crate::store::Pace;

/// A server's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything durable is; made if it is not there.
    pub data_dir: PathBuf,
    /// Where to listen: `HOST:PORT` each, or a host alone (then [`limits::PORT`]); port 0 takes a free one.
    pub listen: Vec<String>,
    /// Length of a lease of campaigns that do not name one, in milliseconds.
    pub lease_ms: u64,
    /// The campaign of the origin's dialect; `None` is the only counted one.
    pub origin_campaign: Option<String>,
    /// A connection of the origin's dialect that is silent for this long is closed; raised to ten lease lengths.
    pub origin_idle: Duration,
    /// How long a shutdown waits for reports of what is lent.
    pub drain: Duration,
    /// Bounds.
    pub bounds: Bounds,
    /// How often pages are written.
    pub pace: Pace,
    /// How much is decided on at a time, and while something else is written.
    pub turns: Turns,
    /// What to do when the server cannot keep its word any more.
    pub fatal: Fatal,
}

impl Config {
    /// The defaults: `127.0.0.1:65432`, leases of a minute, a drain of 30 s.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen: vec![format!("127.0.0.1:{}", limits::PORT)],
            lease_ms: limits::LEASE_MS_DEFAULT,
            origin_campaign: None,
            origin_idle: Duration::from_hours(1),
            drain: Duration::from_secs(30),
            bounds: Bounds::default(),
            pace: Pace::default(),
            turns: Turns::default(),
            fatal: Fatal::end_process(),
        }
    }

    /// [`Config::origin_idle`], but never under ten lease lengths.
    pub(crate) fn origin_idle(&self) -> Duration {
        self.origin_idle.max(Duration::from_millis(self.lease_ms).saturating_mul(10))
    }
}

/// Bounds of connections and queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at a time that have introduced themselves.
    pub connections: usize,
    /// Connections at a time that have not; above it, whoever arrived first goes first.
    pub newcomers: usize,
    /// Messages that wait for the pipeline; fewer when they are long.
    pub inbox: usize,
    /// Outputs that wait for one connection.
    pub outbox: usize,
    /// About how many bytes of outputs wait for one connection.
    pub outbox_bytes: usize,
    /// About how many bytes of outputs wait for all connections together.
    pub outboxes_bytes: usize,
    /// How many bytes of long messages wait for their rest, over all connections.
    pub unfinished_bytes: usize,
    /// From the connection to its hello; in the origin's dialect, to the end of its first message.
    pub handshake: Duration,
    /// Longest pause between two signs of life that the server gives.
    pub heartbeat: Duration,
    /// Longest pause between two signs of life of a native peer.
    pub native_idle: Duration,
    /// From the first byte of a message to its last.
    pub message: Duration,
    /// How long a peer may take nothing of what is written to it.
    pub write: Duration,
    /// How long one commit may take.
    pub commit: Duration,
    /// How long the opening of the data directory may take without getting on.
    pub opening: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: limits::CONNECTIONS_MAX,
            newcomers: limits::NEWCOMERS_MAX,
            inbox: limits::INBOX_MAX,
            outbox: limits::OUTBOX_MAX,
            outbox_bytes: limits::OUTBOX_BYTES_MAX,
            outboxes_bytes: limits::OUTBOXES_BYTES_MAX,
            unfinished_bytes: limits::UNFINISHED_BYTES_MAX,
            handshake: Duration::from_millis(limits::HANDSHAKE_MS_MAX),
            heartbeat: Duration::from_millis(limits::HEARTBEAT_MS),
            native_idle: Duration::from_millis(limits::NATIVE_IDLE_MS),
            message: Duration::from_millis(limits::MESSAGE_MS_MAX),
            write: Duration::from_millis(limits::WRITE_MS_MAX),
            commit: Duration::from_millis(limits::COMMIT_MS_MAX),
            opening: Duration::from_millis(limits::COMMIT_MS_MAX) * limits::OPENING_COMMITS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_of_the_origin_is_allowed_for_ten_leases() {
        let mut config = Config::new("unused");
        assert_eq!(config.origin_idle(), Duration::from_hours(1));
        config.lease_ms = 1_000_000;
        assert_eq!(config.origin_idle(), Duration::from_secs(10_000));
        config.lease_ms = u64::MAX;
        assert!(config.origin_idle() > Duration::from_secs(10_000), "no overflow");
    }
}
