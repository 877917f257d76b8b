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

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, mpsc};

use crate::coordinator::command::{ControlAnswer, Output};
use crate::limits;

/// The pipeline's end.
#[derive(Debug)]
pub(crate) struct Outbox {
    sender: mpsc::Sender<Output>,
    load: Arc<Load>,
}

/// The session's end.
#[derive(Debug)]
pub(crate) struct Outputs {
    receiver: mpsc::Receiver<Output>,
    load: Arc<Load>,
}

/// Tells a session that its peer reads too slowly.
#[derive(Clone, Debug)]
pub(crate) struct Overflow(Arc<Load>);

#[derive(Debug)]
struct Load {
    bytes: AtomicUsize,
    bytes_max: usize,
    all: AllOutboxes,
    overflow: Notify,
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
        let (sender, receiver) = mpsc::channel(outputs);
        let (all, overflow) = (self.clone(), Notify::new());
        let load = Arc::new(Load { bytes: AtomicUsize::new(0), bytes_max: bytes, all, overflow });
        (Outbox { sender, load: Arc::clone(&load) }, Outputs { receiver, load: Arc::clone(&load) }, Overflow(load))
    }
}

impl Load {
    /// Adds an output's bytes; `false` if they are too many. One output always has room when nothing else waits.
    fn add(&self, bytes: usize) -> bool {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let all_before = self.all.bytes.fetch_add(bytes, Ordering::Relaxed);
        before == 0 || (before + bytes <= self.bytes_max && all_before + bytes <= self.all.bytes_max)
    }

    fn remove(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.all.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // What still waited goes with the outbox.
        self.all.bytes.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

/// Messages up to this many bytes are not counted while they are written; the number of connections bounds them.
const ORDINARY_BYTES: usize = 16 * 1_024;

/// Bytes that are being written count as waiting until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    load: Arc<Load>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.load.remove(self.bytes);
    }
}

/// The connection takes no more outputs: its outbox overflowed, or its session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreachable;

impl Outbox {
    /// Puts an output in line, without waiting.
    ///
    /// # Errors
    /// Drop the outbox. If it was full, its session is told to end.
    pub(crate) fn offer(&self, output: Output) -> Result<(), Unreachable> {
        if !self.load.add(weight(&output)) || self.sender.try_send(output).is_err() {
            self.load.overflow.notify_one();
            return Err(Unreachable);
        }
        Ok(())
    }
}

impl Outputs {
    /// The next output; `None` when the pipeline has dropped the outbox and all that it offered was taken.
    pub(crate) async fn next(&mut self) -> Option<Output> {
        let output = self.receiver.recv().await?;
        self.load.remove(weight(&output));
        Some(output)
    }

    /// The next output if it waits already.
    pub(crate) fn next_waiting(&mut self) -> Option<Output> {
        let output = self.receiver.try_recv().ok()?;
        self.load.remove(weight(&output));
        Some(output)
    }
}

impl Outputs {
    /// Counts encoded messages while they are written: keys make them far longer than their outputs were.
    ///
    /// # Errors
    /// Too much waits for all writers together, and this is long. Close the connection.
    pub(crate) fn hold(&self, bytes: usize) -> Result<Held, Unreachable> {
        let bytes = if bytes > ORDINARY_BYTES { bytes } else { 0 };
        let held = Held { load: Arc::clone(&self.load), bytes };
        self.load.bytes.fetch_add(bytes, Ordering::Relaxed);
        let all_before = self.load.all.bytes.fetch_add(bytes, Ordering::Relaxed);
        if bytes == 0 || all_before + bytes <= self.load.all.bytes_max { Ok(held) } else { Err(Unreachable) }
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
    use std::task::{Context, Waker};

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
    fn one_output_beyond_the_limit_passes_alone() {
        let (outbox, mut outputs, _overflow) = AllOutboxes::new(1).open(1_000, 1);
        assert_eq!(outbox.offer(task(1)), Ok(()));
        assert_eq!(outputs.next_waiting(), Some(task(1)));
        assert_eq!(outbox.offer(task(2)), Ok(()));
    }
}
