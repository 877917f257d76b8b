//! What waits for the pipeline: one closed set of causes, bounded in messages and bytes.
//!
//! ```text
//!   session ──Registration::command (waits for room)──▶ line behind a lock ──Messages::next (waits for a message)──▶ pipeline
//!                                                          ▲
//!                                          Bell::ring ─────╯ the committer is through
//! ```
//!
//! A session that finds the inbox full waits, and so its peer does: that is how load reaches the clients. The end of a
//! connection needs no room, so that dropping a [`Registration`], however that comes about,
//! always tells the pipeline, after everything the connection sent before; there are no more of them than connections that
//! live or wait to be opened.
//!
//! The sessions are tasks, the pipeline is a thread: room is a semaphore of the runtime's, in whose order they wait; the pipeline waits at a
//! condition variable, and is woken only if it does. It takes over the whole line at a time, and gives back the room of what it takes out by and by, so
//! that those who wait move up in their order while it works. Tested here and in `pipeline.rs`.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::task::consume_budget;

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
        /// Its peer's turn to ask, if it is a question or an order; another may ask when this is dropped.
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
#[derive(Debug)]
pub(crate) struct Inbox(Arc<Line>);

/// The pipeline's end.
#[derive(Debug)]
pub(crate) struct Messages {
    line: Arc<Line>,
    /// Taken out of the line, each with its share of the room.
    taken: VecDeque<(Inbound, usize)>,
    /// Room that is free again, but has not been given back.
    freed: usize,
}

/// Wakes the pipeline for something that is not a message.
#[derive(Clone, Debug)]
pub(crate) struct Bell(Arc<Line>);

/// Bytes of room that are given back together: for every message it would cost as much as the message.
const PORTION: usize = limits::INBOX_BYTES_MAX / 64;

/// What the pipeline hears when it waits.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A message.
    Said(Inbound),
    /// Somebody has rung since the pipeline last waited.
    Rung,
    /// Nothing, for as long as it was willing to wait.
    Nothing,
    /// Nobody is left who could say something, and all that was said has been heard.
    Over,
}

/// The pipeline has ended; so does everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pipeline has ended")]
pub(crate) struct PipelineEnded;

#[derive(Debug)]
struct Line {
    waiting: Mutex<Waiting>,
    /// The pipeline waits here.
    heard: Condvar,
    /// Bytes that are free; whoever finds too few waits here. Closed when the pipeline has ended.
    room: Semaphore,
    /// What a message takes of the room at least, so that there are never too many.
    share_min: usize,
}

#[derive(Debug)]
struct Waiting {
    messages: VecDeque<(Inbound, usize)>,
    /// How many could still say something.
    inboxes: usize,
    rung: bool,
    /// The pipeline waits.
    asleep: bool,
    /// The pipeline has ended.
    over: bool,
}

/// An inbox of at most `messages` messages, from 1, the ends of connections not counted; of fewer when they are long.
pub(crate) fn inbox(messages: usize) -> (Inbox, Messages) {
    let waiting = Waiting { messages: VecDeque::new(), inboxes: 1, rung: false, asleep: false, over: false };
    let line = Arc::new(Line {
        waiting: Mutex::new(waiting),
        heard: Condvar::new(),
        room: Semaphore::new(limits::INBOX_BYTES_MAX),
        share_min: limits::INBOX_BYTES_MAX / messages.clamp(1, limits::INBOX_BYTES_MAX),
    });
    (Inbox(Arc::clone(&line)), Messages { line, taken: VecDeque::new(), freed: 0 })
}

impl Line {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that holds the lock can panic between two changes.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is room for so many bytes; returns how much was taken.
    async fn take_room(&self, bytes: usize) -> Result<usize, PipelineEnded> {
        // Whoever has much to say lets its neighbours speak, too.
        consume_budget().await;
        // A frame is far smaller than the inbox, so this never asks for more than there is.
        let share = bytes.clamp(self.share_min, limits::INBOX_BYTES_MAX);
        let permit = match self.room.try_acquire_many(share as u32) {
            Err(TryAcquireError::NoPermits) => self.room.acquire_many(share as u32).await.map_err(|_| PipelineEnded)?,
            taken => taken.map_err(|_| PipelineEnded)?,
        };
        // The pipeline gives it back.
        permit.forget();
        Ok(share)
    }

    fn put(&self, inbound: Inbound, share: usize) -> Result<(), PipelineEnded> {
        let mut waiting = self.waiting();
        if waiting.over {
            return Err(PipelineEnded);
        }
        waiting.messages.push_back((inbound, share));
        self.wake(waiting);
        Ok(())
    }

    /// Wakes the pipeline if it waits, without the lock.
    fn wake(&self, mut waiting: MutexGuard<'_, Waiting>) {
        let asleep = std::mem::take(&mut waiting.asleep);
        drop(waiting);
        if asleep {
            self.heard.notify_one();
        }
    }
}

impl Messages {
    /// The next message, if there is one.
    pub(crate) fn try_next(&mut self) -> Option<Inbound> {
        if self.taken.is_empty() {
            self.give_back();
            std::mem::swap(&mut self.taken, &mut self.line.waiting().messages);
        }
        self.pop()
    }

    /// Waits for the next message, for a ring or for the end; at most so long, or for ever.
    pub(crate) fn next(&mut self, patience: Option<Duration>) -> Heard {
        if let Some(inbound) = self.try_next() {
            return Heard::Said(inbound);
        }
        let mut waiting = self.line.waiting();
        waiting.asleep = true;
        let nothing = |waiting: &mut Waiting| waiting.messages.is_empty() && waiting.inboxes > 0 && !waiting.rung;
        let mut waiting = match patience {
            Some(patience) => {
                let waited = self.line.heard.wait_timeout_while(waiting, patience, nothing);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.line.heard.wait_while(waiting, nothing).unwrap_or_else(PoisonError::into_inner),
        };
        waiting.asleep = false;
        std::mem::swap(&mut self.taken, &mut waiting.messages);
        // Whoever rang while something was said is heard the next time.
        let rung = self.taken.is_empty() && std::mem::take(&mut waiting.rung);
        let over = waiting.inboxes == 0;
        drop(waiting);
        match self.pop() {
            Some(inbound) => Heard::Said(inbound),
            None if rung => Heard::Rung,
            None if over => Heard::Over,
            None => Heard::Nothing,
        }
    }

    /// How many messages wait.
    pub(crate) fn len(&self) -> usize {
        self.taken.len() + self.line.waiting().messages.len()
    }

    /// For those whom the pipeline waits for.
    pub(crate) fn bell(&self) -> Bell {
        Bell(Arc::clone(&self.line))
    }

    fn pop(&mut self) -> Option<Inbound> {
        let (inbound, share) = self.taken.pop_front()?;
        self.freed += share;
        if self.freed >= PORTION {
            self.give_back();
        }
        Some(inbound)
    }

    fn give_back(&mut self) {
        if self.freed > 0 {
            self.line.room.add_permits(std::mem::take(&mut self.freed));
        }
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.line.room.close();
        let mut waiting = self.line.waiting();
        waiting.over = true;
        let messages = std::mem::take(&mut waiting.messages);
        drop(waiting);
        drop(messages);
    }
}

impl Bell {
    /// Wakes the pipeline, now or when it waits the next time.
    pub(crate) fn ring(&self) {
        let mut waiting = self.0.waiting();
        waiting.rung = true;
        self.0.wake(waiting);
    }
}

impl Clone for Inbox {
    fn clone(&self) -> Self {
        self.0.waiting().inboxes += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        waiting.inboxes -= 1;
        if waiting.inboxes == 0 {
            self.0.wake(waiting);
        }
    }
}

impl Inbox {
    /// Makes a connection known to the pipeline; waits while the inbox is full.
    ///
    /// # Errors
    /// The pipeline has ended.
    pub(crate) async fn open(&self, connection: ConnectionId, outbox: Outbox) -> Result<Registration, PipelineEnded> {
        let share = self.0.take_room(0).await?;
        self.0.put(Inbound::Opened { connection, outbox }, share)?;
        let turns = Arc::new(Semaphore::new(limits::CONTROLS_WAITING_MAX));
        Ok(Registration { inbox: self.clone(), connection, turns })
    }

    /// Tells the pipeline to lend nothing more.
    ///
    /// # Errors
    /// The pipeline has ended.
    pub(crate) fn drain(&self) -> Result<(), PipelineEnded> {
        self.0.put(Inbound::Drain, 0)
    }

    async fn say(&self, command: Command, turn: Option<OwnedSemaphorePermit>) -> Result<(), PipelineEnded> {
        let weight = Weight::of(&command);
        let share = self.0.take_room(weight.bytes).await?;
        self.0.put(Inbound::Said { command, weight, turn }, share)
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
        // A pipeline that has ended does not want to know.
        let _ = self.inbox.0.put(Inbound::Closed { connection: self.connection }, 0);
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
        let (inbox, mut messages) = inbox(100);
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
        while !matches!(messages.try_next(), Some(Inbound::Said { .. })) {}
        one_more.await.unwrap();
    }

    #[tokio::test]
    async fn who_finds_no_room_waits_in_order_and_an_end_needs_none() {
        let (inbox, mut messages) = inbox(2);
        let outboxes = AllOutboxes::new(1_000);
        let (outbox, _outputs, _) = outboxes.open(1, 1);
        let registration = inbox.open(ConnectionId(7), outbox).await.unwrap();
        let beat = |confirmed| registration.command(Command::Heartbeat { connection: ConnectionId(7), confirmed });
        beat(1).await.unwrap();
        let mut look = Context::from_waker(Waker::noop());
        let (mut second, mut third) = (Box::pin(beat(2)), Box::pin(beat(3)));
        assert!(second.as_mut().poll(&mut look).is_pending() && third.as_mut().poll(&mut look).is_pending());
        assert!(matches!(messages.try_next(), Some(Inbound::Opened { .. })));
        assert_eq!(heard(&mut messages), [1], "and what it took is free again");
        assert!(third.as_mut().poll(&mut look).is_ready() && second.as_mut().poll(&mut look).is_ready());
        let mut fourth = Box::pin(beat(4));
        assert!(fourth.as_mut().poll(&mut look).is_pending());
        // Whoever gives up leaves its place to others.
        drop(fourth);
        drop((second, third));
        drop(registration);
        assert_eq!(messages.len(), 3);
        assert_eq!(heard(&mut messages), [3, 2]);
        assert!(matches!(messages.try_next(), Some(Inbound::Closed { connection: ConnectionId(7) })));
        assert!(messages.try_next().is_none());
        assert_eq!(messages.line.room.available_permits(), limits::INBOX_BYTES_MAX);
    }

    /// The numbers of the heartbeats that wait, up to something else; that is left in its place.
    fn heard(messages: &mut Messages) -> Vec<u64> {
        let mut numbers = Vec::new();
        while let Some(inbound) = messages.try_next() {
            if let Inbound::Said { command: Command::Heartbeat { confirmed, .. }, .. } = inbound {
                numbers.push(confirmed);
            } else {
                messages.taken.push_front((inbound, 0));
                break;
            }
        }
        numbers
    }

    #[test]
    fn the_pipeline_waits_for_a_message_for_the_bell_and_for_the_end() {
        let (inbox, mut messages) = inbox(2);
        assert!(matches!(messages.next(Some(Duration::ZERO)), Heard::Nothing));
        messages.bell().ring();
        assert!(matches!(messages.next(None), Heard::Rung));
        // Both at the same time: neither is lost.
        messages.bell().ring();
        inbox.drain().unwrap();
        assert!(matches!(messages.next(None), Heard::Said(Inbound::Drain)));
        assert!(matches!(messages.next(None), Heard::Rung));
        assert!(matches!(messages.next(Some(Duration::ZERO)), Heard::Nothing));
        let another = inbox.clone();
        drop(inbox);
        assert!(matches!(messages.next(Some(Duration::ZERO)), Heard::Nothing));
        another.drain().unwrap();
        drop(another);
        assert!(matches!(messages.next(None), Heard::Said(Inbound::Drain)), "what was said is heard");
        assert!(matches!(messages.next(None), Heard::Over));
    }

    #[test]
    fn a_pipeline_that_waits_is_woken() {
        let (inbox, mut messages) = inbox(2);
        let pipeline = std::thread::spawn(move || {
            let mut heard = Vec::new();
            loop {
                match messages.next(None) {
                    Heard::Over => return heard,
                    Heard::Nothing => {}
                    Heard::Said(_) => heard.push("said"),
                    Heard::Rung => heard.push("rung"),
                }
            }
        });
        let asleep = || while !inbox.0.waiting().asleep {};
        asleep();
        inbox.drain().unwrap();
        asleep();
        Bell(Arc::clone(&inbox.0)).ring();
        asleep();
        drop(inbox);
        assert_eq!(pipeline.join().unwrap(), ["said", "rung"]);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_pipeline_that_has_ended() {
        let (inbox, messages) = inbox(1);
        let (outbox, _outputs, _) = AllOutboxes::new(1_000).open(1, 1);
        let registration = inbox.open(ConnectionId(1), outbox).await.unwrap();
        let beat = || registration.command(Command::Heartbeat { connection: ConnectionId(1), confirmed: 0 });
        let mut waits = Box::pin(beat());
        assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(messages);
        assert_eq!(waits.await, Err(PipelineEnded));
        assert_eq!(beat().await, Err(PipelineEnded));
        assert_eq!(inbox.drain(), Err(PipelineEnded));
    }
}
