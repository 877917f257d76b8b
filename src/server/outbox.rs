//! What waits to be written to one connection, bounded in outputs and bytes; the bytes also over all connections.
//!
//! ```text
//!   pipeline ──offer (never waits)──▶ Outbox ··· Outputs ──next (waits)──▶ session's writer
//! ```
//!
//! The pipeline must never wait for a peer, so a full outbox is the end of its connection: the session's client comes
//! back and resumes. When all outboxes together are full, the connections for which something waits already are the ones
//! that go; who reads what it gets is never harmed. When the pipeline drops an outbox, the writer still gets everything offered before, then the end.
//! Tested in this file; slow readers on real sockets in `tests/server_limits.rs`.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use tokio::sync::Notify;

use crate::coordinator::command::{ControlAnswer, Output};
use crate::limits;

/// Outputs that an empty outbox keeps memory for.
const KEPT: usize = 8;

/// The pipeline's end.
#[derive(Debug)]
pub(crate) struct Outbox(Arc<Line>);

/// The session's end.
#[derive(Debug)]
pub(crate) struct Outputs(Arc<Line>);

/// Tells a session that its peer reads too slowly.
#[derive(Clone, Debug)]
pub(crate) struct Overflow(Arc<Line>);

/// What waits for one connection. An idle one of many thousands has no memory for outputs.
#[derive(Debug)]
struct Line {
    waiting: Mutex<Waiting>,
    outputs_max: usize,
    bytes_max: usize,
    all: AllOutboxes,
    overflow: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    outputs: VecDeque<Output>,
    /// Theirs, and of messages that are being written.
    bytes: usize,
    /// One of the ends is gone.
    ended: bool,
    /// Whoever waits for an output.
    writer: Option<Waker>,
}

/// The bytes that wait in all outboxes of a server.
#[derive(Clone, Debug)]
pub(crate) struct AllOutboxes {
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
}

impl AllOutboxes {
    /// Together they hold about `bytes_max` bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes: Arc::default(), bytes_max }
    }

    /// An outbox of at most `outputs` outputs and about `bytes` bytes, both at least 1.
    pub(crate) fn open(&self, outputs: usize, bytes: usize) -> (Outbox, Outputs, Overflow) {
        let (waiting, overflow) = (Mutex::default(), Notify::new());
        let line = Line { waiting, outputs_max: outputs, bytes_max: bytes, all: self.clone(), overflow };
        let line = Arc::new(line);
        (Outbox(Arc::clone(&line)), Outputs(Arc::clone(&line)), Overflow(line))
    }

    fn add(&self, bytes: usize) -> usize {
        self.bytes.fetch_add(bytes, Ordering::Relaxed)
    }

    fn remove(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Line {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that holds the lock can panic between two changes.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next output out of the line.
    fn take(&self, waiting: &mut Waiting) -> Option<Output> {
        let output = waiting.outputs.pop_front()?;
        let bytes = weight(&output);
        waiting.bytes -= bytes;
        self.all.remove(bytes);
        if waiting.outputs.is_empty() && waiting.outputs.capacity() > KEPT {
            waiting.outputs = VecDeque::new();
        }
        Some(output)
    }

    /// One of the ends is gone.
    fn end(&self) {
        let mut waiting = self.waiting();
        waiting.ended = true;
        wake(waiting);
    }
}

/// Wakes whoever waits for an output, without the lock.
fn wake(mut waiting: MutexGuard<'_, Waiting>) {
    let writer = waiting.writer.take();
    drop(waiting);
    if let Some(writer) = writer {
        writer.wake();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // What still waited goes with the outbox.
        let bytes = self.waiting().bytes;
        self.all.remove(bytes);
    }
}

/// Messages up to this many bytes are not counted while they are written; the number of connections bounds them.
const ORDINARY_BYTES: usize = 16 * 1_024;

/// Bytes that are being written count as waiting until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    line: Arc<Line>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.line.waiting().bytes -= self.bytes;
            self.line.all.remove(self.bytes);
        }
    }
}

/// The connection takes no more outputs: its outbox overflowed, or its session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreachable;

impl Outbox {
    /// Puts an output in line, without waiting. One output always has room when nothing else waits.
    ///
    /// # Errors
    /// Drop the outbox. If it was full, its session is told to end.
    pub(crate) fn offer(&self, output: Output) -> Result<(), Unreachable> {
        let line = &self.0;
        let bytes = weight(&output);
        let mut waiting = line.waiting();
        let all = line.all.add(bytes) + bytes;
        let fits = waiting.bytes == 0 || (waiting.bytes + bytes <= line.bytes_max && all <= line.all.bytes_max);
        if waiting.ended || !fits || waiting.outputs.len() >= line.outputs_max {
            line.all.remove(bytes);
            drop(waiting);
            line.overflow.notify_one();
            return Err(Unreachable);
        }
        waiting.bytes += bytes;
        waiting.outputs.push_back(output);
        wake(waiting);
        Ok(())
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Outputs {
    /// The next output; `None` when the pipeline has dropped the outbox and all that it offered was taken.
    pub(crate) async fn next(&mut self) -> Option<Output> {
        poll_fn(|context| {
            let mut waiting = self.0.waiting();
            let output = self.0.take(&mut waiting);
            if output.is_some() || waiting.ended {
                return Poll::Ready(output);
            }
            match &mut waiting.writer {
                Some(writer) => writer.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
            Poll::Pending
        })
        .await
    }

    /// The next output if it waits already.
    pub(crate) fn next_waiting(&mut self) -> Option<Output> {
        self.0.take(&mut self.0.waiting())
    }

    /// Counts encoded messages while they are written: keys make them far longer than their outputs were.
    ///
    /// # Errors
    /// Too much waits for all writers together, and this is long. Close the connection.
    pub(crate) fn hold(&self, bytes: usize) -> Result<Held, Unreachable> {
        let bytes = if bytes > ORDINARY_BYTES { bytes } else { 0 };
        let held = Held { line: Arc::clone(&self.0), bytes };
        if bytes == 0 {
            return Ok(held);
        }
        self.0.waiting().bytes += bytes;
        let all = self.0.all.add(bytes) + bytes;
        if all <= self.0.all.bytes_max { Ok(held) } else { Err(Unreachable) }
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Overflow {
    /// Waits until the outbox has overflowed.
    pub(crate) async fn happened(&self) {
        self.0.overflow.notified().await;
    }
}

/// About how many bytes of memory an output takes; the same whenever it is asked.
fn weight(output: &Output) -> usize {
    const SMALL: usize = 128;
    SMALL
        + match output {
            Output::Grants { grants, campaigns, .. } => 32 * grants.len() + 256 * campaigns.len(),
            Output::Welcome { refusals, .. } | Output::Answers { refusals, .. } => 24 * refusals.len(),
            Output::Lost { leases } => 12 * leases.len(),
            Output::Control { answer: ControlAnswer::Status { campaigns, .. }, .. } => {
                (256 + limits::NAME_BYTES_MAX) * campaigns.len()
            }
            Output::Control { answer: ControlAnswer::Counts { tasks, .. }, .. } => {
                tasks.iter().map(|task| 64 + task.last_error.len()).sum()
            }
            Output::Control { .. }
            | Output::UnknownSession { .. }
            | Output::Idle(_)
            | Output::Origin(_)
            | Output::Close(_) => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::command::OriginAnswer;
    use crate::types::{LeaseId, LossReason};
    use std::future::Future;
    use std::pin::pin;
    use std::sync::atomic::AtomicBool;
    use std::task::{Context, Wake};

    fn task(number: u64) -> Output {
        Output::Origin(OriginAnswer::Task(number))
    }

    fn has_happened(overflow: &Overflow) -> bool {
        pin!(overflow.happened()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_full_outbox_refuses_and_tells_its_session() {
        let (outbox, mut outputs, overflow) = AllOutboxes::new(1 << 20).open(2, 1 << 20);
        assert_eq!(outbox.offer(task(1)), Ok(()));
        assert_eq!(outbox.offer(task(2)), Ok(()));
        assert!(!has_happened(&overflow));
        assert_eq!(outbox.offer(task(3)), Err(Unreachable));
        assert!(has_happened(&overflow));
        assert_eq!(outputs.next_waiting(), Some(task(1)), "what was offered before is not lost");
    }

    #[test]
    fn bytes_are_bounded_as_well() {
        let lost = || Output::Lost { leases: vec![(LeaseId::from_u64(1), LossReason::Expired); 1_000] };
        let (outbox, mut outputs, overflow) = AllOutboxes::new(1 << 20).open(1_000, 13_000);
        assert_eq!(outbox.offer(lost()), Ok(()));
        assert_eq!(outputs.next_waiting(), Some(lost()));
        assert_eq!(outbox.offer(lost()), Ok(()), "taken ones no longer weigh");
        assert_eq!(outbox.offer(lost()), Err(Unreachable));
        assert!(has_happened(&overflow));
    }

    #[test]
    fn all_outboxes_together_are_bounded_and_only_those_who_do_not_read_suffer() {
        let lost = || Output::Lost { leases: vec![(LeaseId::from_u64(1), LossReason::Expired); 1_000] };
        let all = AllOutboxes::new(30_000);
        let (one, mut other) = (all.open(1_000, 1_000_000), all.open(1_000, 1_000_000));
        assert_eq!([one.0.offer(lost()), one.0.offer(lost()), other.0.offer(lost())], [Ok(()); 3]);
        assert_eq!(other.1.next_waiting(), Some(lost()));
        assert_eq!(other.0.offer(lost()), Ok(()), "it has read what it got");
        assert_eq!(other.0.offer(lost()), Err(Unreachable), "it has not");
        drop((one, other));
        assert_eq!(all.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_being_written_still_counts() {
        let all = AllOutboxes::new(30_000);
        let (one, other) = (all.open(1_000, 1_000_000), all.open(1_000, 1_000_000));
        let held = one.1.hold(20_000).unwrap();
        assert_eq!(other.1.hold(20_000).unwrap_err(), Unreachable, "too much together");
        drop(other.1.hold(ORDINARY_BYTES).unwrap());
        drop(held);
        drop(other.1.hold(20_000).unwrap());
        assert_eq!(all.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_waits_is_woken_by_an_output_and_by_the_end() {
        let (outbox, mut outputs, _overflow) = AllOutboxes::new(1_000).open(2, 1_000);
        let (woken, waker) = Flag::new();
        let mut context = Context::from_waker(&waker);
        assert!(pin!(outputs.next()).poll(&mut context).is_pending() && !woken.taken());
        assert_eq!([outbox.offer(task(1)), outbox.offer(task(2))], [Ok(()); 2]);
        assert!(woken.taken());
        assert_eq!(pin!(outputs.next()).poll(&mut context), Poll::Ready(Some(task(1))));
        assert_eq!(pin!(outputs.next()).poll(&mut context), Poll::Ready(Some(task(2))));
        assert!(pin!(outputs.next()).poll(&mut context).is_pending() && !woken.taken());
        drop(outbox);
        assert!(woken.taken());
        assert_eq!(pin!(outputs.next()).poll(&mut context), Poll::Ready(None));
    }

    #[test]
    fn an_outbox_of_a_session_that_ended_takes_nothing_and_keeps_no_memory() {
        let all = AllOutboxes::new(1 << 20);
        let (outbox, mut outputs, overflow) = all.open(1_000, 1 << 20);
        (0..100).for_each(|number| outbox.offer(task(number)).unwrap());
        while outputs.next_waiting().is_some() {}
        assert!(outbox.0.waiting().outputs.capacity() <= KEPT);
        drop((outputs, overflow));
        assert_eq!(outbox.offer(task(1)), Err(Unreachable));
    }

    /// Whether somebody was woken.
    struct Flag(AtomicBool);

    impl Flag {
        fn new() -> (Arc<Self>, Waker) {
            let flag = Arc::new(Self(AtomicBool::new(false)));
            (Arc::clone(&flag), Waker::from(flag))
        }

        fn taken(&self) -> bool {
            self.0.swap(false, Ordering::Relaxed)
        }
    }

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn one_output_beyond_the_limit_passes_alone() {
        let (outbox, mut outputs, _overflow) = AllOutboxes::new(1).open(1_000, 1);
        assert_eq!(outbox.offer(task(1)), Ok(()));
        assert_eq!(outputs.next_waiting(), Some(task(1)));
        assert_eq!(outbox.offer(task(2)), Ok(()));
    }
}
