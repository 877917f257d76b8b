//! What waits for the pipeline: one closed set of causes, bounded in messages and bytes.
//!
//! ```text
//!   session ──Registration::command (waits)──▶ inbox ──▶ pipeline
//! ```
//!
//! A session that finds the inbox full waits, and so its peer does: that is how load reaches the clients. Every
//! connection keeps one place in the inbox for its end, so that dropping a [`Registration`], however that comes about,
//! always tells the pipeline, after everything the connection sent before. Tested in `pipeline.rs`, the
//! weights here.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::outbox::Outbox;
use crate::coordinator::Command;
use crate::coordinator::command::ControlRequest;
use crate::limits;
use crate::types::{ConnectionId, Outcome, Request};

/// Everything that can make the pipeline work, besides time.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// A connection is there; from now on its outputs go here.
    Opened {
        /// Which.
        connection: ConnectionId,
        /// Where to.
        outbox: Outbox,
    },
    /// A peer said something.
    Said {
        /// What.
        command: Command,
        /// How much work and memory it is.
        weight: Weight,
        /// Its share of the inbox; free again when this is dropped.
        share: OwnedSemaphorePermit,
        /// Its peer's turn to ask, if it is a question or an order; the same.
        turn: Option<OwnedSemaphorePermit>,
    },
    /// A connection ended; nothing of it follows.
    Closed {
        /// Which.
        connection: ConnectionId,
    },
    /// The server shuts down: lend nothing more.
    Drain,
}

/// About how many bytes of memory one task takes in an answer with counts.
const COUNT_BYTES: usize = 128;
/// About how many bytes of memory one campaign takes in an answer with the status.
const STATUS_BYTES: usize = 256;

/// How much of a commit a command may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weight {
    /// Requests in it, at least 1.
    pub(crate) requests: usize,
    /// About how many bytes of memory it takes, or its answer does: the answers to all that one turn takes in are held
    /// together before any of them can be dropped for a full outbox.
    pub(crate) bytes: usize,
}

impl Weight {
    /// Both together.
    pub(crate) fn with(self, other: Self) -> Self {
        Self { requests: self.requests + other.requests, bytes: self.bytes + other.bytes }
    }

    pub(crate) fn of(command: &Command) -> Self {
        const SMALL: usize = 256;
        let (requests, bytes) = match command {
            Command::Requests { requests, .. } => (requests.len(), requests.iter().map(request_bytes).sum()),
            Command::Origin { done, .. } => (done.len(), 16 * done.len()),
            Command::Want { want, .. } => (1, want.campaigns.iter().map(String::len).sum()),
            Command::Control { request: ControlRequest::AddKeys { keys, .. }, .. } => {
                (1, keys.iter().map(|key| 32 + key.len()).sum())
            }
            Command::Control { request: ControlRequest::Counts { limit, .. }, .. } => {
                (1, COUNT_BYTES * (*limit).min(limits::COUNTS_PER_ANSWER_MAX) as usize)
            }
            Command::Control { request: ControlRequest::Status { campaign: None, .. }, .. } => {
                (1, STATUS_BYTES * limits::STATUS_PER_ANSWER_MAX)
            }
            Command::Control { .. }
            | Command::Boot
            | Command::Advance
            | Command::Drain
            | Command::Hello { .. }
            | Command::Heartbeat { .. }
            | Command::Goodbye { .. }
            | Command::Disconnected { .. } => (1, 0),
        };
        Self { requests: requests.max(1), bytes: SMALL + bytes }
    }
}

fn request_bytes(request: &Request) -> usize {
    size_of::<Request>()
        + match request {
            Request::Report { outcome: Outcome::Mixed { error, .. }, .. } => error.len(),
            Request::Report { outcome: Outcome::Done { .. }, .. } | Request::Release { .. } => 0,
        }
}

/// The way into the pipeline.
#[derive(Clone, Debug)]
pub(crate) struct Inbox {
    sender: mpsc::Sender<Inbound>,
    bytes: Arc<Semaphore>,
}

/// The pipeline has ended; so does everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pipeline has ended")]
pub(crate) struct PipelineEnded;

/// An inbox for `messages` commands besides one place for each of `connections` connections.
pub(crate) fn inbox(messages: usize, connections: usize) -> (Inbox, mpsc::Receiver<Inbound>) {
    let (sender, receiver) = mpsc::channel(messages + connections);
    (Inbox { sender, bytes: Arc::new(Semaphore::new(limits::INBOX_BYTES_MAX)) }, receiver)
}

impl Inbox {
    /// Makes a connection known to the pipeline.
    ///
    /// # Errors
    /// The pipeline has ended.
    pub(crate) async fn open(&self, connection: ConnectionId, outbox: Outbox) -> Result<Registration, PipelineEnded> {
        // First the place for its end, so that there is no opened connection without one.
        let end = self.sender.clone().reserve_owned().await.map_err(|_| PipelineEnded)?;
        self.sender.send(Inbound::Opened { connection, outbox }).await.map_err(|_| PipelineEnded)?;
        let turns = Arc::new(Semaphore::new(limits::CONTROLS_WAITING_MAX));
        Ok(Registration { inbox: self.clone(), connection, turns, end: Some(end) })
    }

    /// Tells the pipeline to lend nothing more.
    ///
    /// # Errors
    /// The pipeline has ended.
    pub(crate) async fn drain(&self) -> Result<(), PipelineEnded> {
        self.sender.send(Inbound::Drain).await.map_err(|_| PipelineEnded)
    }

    async fn say(&self, command: Command, turn: Option<OwnedSemaphorePermit>) -> Result<(), PipelineEnded> {
        let weight = Weight::of(&command);
        // A frame is far smaller than the inbox, so this never asks for more than there is.
        let share = weight.bytes.min(limits::INBOX_BYTES_MAX) as u32;
        let share = Arc::clone(&self.bytes).acquire_many_owned(share).await.map_err(|_| PipelineEnded)?;
        self.sender.send(Inbound::Said { command, weight, share, turn }).await.map_err(|_| PipelineEnded)
    }
}

/// A connection that the pipeline knows; dropping it tells the pipeline that the connection ended.
#[derive(Debug)]
pub(crate) struct Registration {
    inbox: Inbox,
    connection: ConnectionId,
    /// For questions and orders, of which few may wait, so that whoever floods the server with them waits for itself and
    /// reports of others do not.
    turns: Arc<Semaphore>,
    end: Option<mpsc::OwnedPermit<Inbound>>,
}

impl Registration {
    /// Which connection this is.
    pub(crate) fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// Hands a command of this connection to the pipeline; waits while the inbox is full, and while too many questions and
    /// orders of this connection wait in it.
    ///
    /// # Errors
    /// The pipeline has ended.
    pub(crate) async fn command(&self, command: Command) -> Result<(), PipelineEnded> {
        let turn = match command {
            Command::Control { .. } => Some(Arc::clone(&self.turns).acquire_owned().await.map_err(|_| PipelineEnded)?),
            Command::Requests { .. }
            | Command::Origin { .. }
            | Command::Want { .. }
            | Command::Boot
            | Command::Advance
            | Command::Drain
            | Command::Hello { .. }
            | Command::Heartbeat { .. }
            | Command::Goodbye { .. }
            | Command::Disconnected { .. } => None,
        };
        self.inbox.say(command, turn).await
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            end.send(Inbound::Closed { connection: self.connection });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;
    use crate::server::outbox::AllOutboxes;
    use crate::types::{CampaignId, TaskIndex};

    fn weight(request: ControlRequest) -> usize {
        Weight::of(&Command::Control { connection: ConnectionId(1), id: 1, request }).bytes
    }

    #[test]
    fn a_short_question_weighs_as_much_as_its_answer() {
        let counts = |limit| ControlRequest::Counts { campaign: "c".into(), from: TaskIndex(0), limit };
        // The answers to all that one turn takes in wait in memory together.
        assert!(limits::COMMIT_BYTES_MAX / weight(counts(limits::COUNTS_PER_ANSWER_MAX)) < 100);
        assert_eq!(weight(counts(u32::MAX)), weight(counts(limits::COUNTS_PER_ANSWER_MAX)));
        assert!(weight(counts(1)) < 1_024);
        let status = ControlRequest::Status { campaign: None, from: CampaignId(0) };
        assert!(limits::COMMIT_BYTES_MAX / weight(status) < 200);
    }

    #[tokio::test]
    async fn a_flood_of_questions_waits_for_itself() {
        let (inbox, mut receiver) = inbox(100, 2);
        let outboxes = AllOutboxes::new(1_000);
        let (flooder, _flooder_outputs, _) = outboxes.open(1, 1);
        let (worker, _worker_outputs, _) = outboxes.open(1, 1);
        let flooder = inbox.open(ConnectionId(1), flooder).await.unwrap();
        let worker = inbox.open(ConnectionId(2), worker).await.unwrap();
        let ask = || {
            let request = ControlRequest::Status { campaign: None, from: CampaignId(0) };
            flooder.command(Command::Control { connection: flooder.connection(), id: 1, request })
        };
        for _ in 0..limits::CONTROLS_WAITING_MAX {
            ask().await.unwrap();
        }
        let mut look = Context::from_waker(Waker::noop());
        let mut one_more = pin!(ask());
        assert!(one_more.as_mut().poll(&mut look).is_pending());
        let connection = worker.connection();
        worker.command(Command::Heartbeat { connection, confirmed: 0 }).await.unwrap();
        assert!(one_more.as_mut().poll(&mut look).is_pending());
        while !matches!(receiver.recv().await, Some(Inbound::Said { .. })) {}
        one_more.await.unwrap();
    }
}
