//! What has arrived of messages that are not whole yet, over all connections: bounded in bytes.
//!
//! One message is bounded, and so is the number of connections, but not by little: peers that send a message but its last
//! byte each could fill the memory of a machine. Above the bound that connection goes whose unfinished message has been long
//! for the longest time: whoever sends in earnest is done soon, whoever hoards is not, so that hoarders push out each other.
//! Messages of an ordinary length are not counted at all. Tested in this file, and on real sockets in
//! `tests/server_limits.rs`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Unfinished messages up to this many bytes are not counted; the number of connections bounds them.
const ORDINARY_BYTES: usize = 16 * 1_024;

/// The bytes of all unfinished messages of a server.
#[derive(Clone, Debug)]
pub(crate) struct AllUnfinished {
    long: Arc<Mutex<Long>>,
    bytes_max: usize,
}

/// The unfinished messages that are long, in the order in which they became so.
#[derive(Debug, Default)]
struct Long {
    last: u64,
    bytes: usize,
    messages: BTreeMap<u64, (usize, Arc<Notify>)>,
}

impl AllUnfinished {
    /// Together they have at most `bytes_max` bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { long: Arc::default(), bytes_max }
    }

    /// For one connection.
    pub(crate) fn open(&self) -> Unfinished {
        Unfinished { all: self.clone(), number: None, pushed_out: Arc::default() }
    }

    fn long(&self) -> MutexGuard<'_, Long> {
        // Nothing that holds the lock can panic between two changes.
        self.long.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Long {
    fn insert(&mut self, number: u64, bytes: usize, pushed_out: &Arc<Notify>) {
        self.bytes += bytes;
        self.messages.insert(number, (bytes, Arc::clone(pushed_out)));
    }

    fn remove(&mut self, number: u64) {
        if let Some((bytes, _)) = self.messages.remove(&number) {
            self.bytes -= bytes;
        }
    }
}

/// One connection's part; given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Unfinished {
    all: AllUnfinished,
    /// The number of its present message, if that is long.
    number: Option<u64>,
    pushed_out: Arc<Notify>,
}

impl Unfinished {
    /// So many bytes of this connection wait for the rest of their message; `another`: it is not the message of the
    /// last call. Those that are too many have to go.
    pub(crate) fn set(&mut self, waiting: usize, another: bool) {
        if self.number.is_none() && waiting <= ORDINARY_BYTES {
            return;
        }
        let mut long = self.all.long();
        let before = self.number.take().inspect(|number| long.remove(*number));
        if waiting <= ORDINARY_BYTES {
            return;
        }
        let number = before.filter(|_| !another).unwrap_or(long.last + 1);
        long.last = long.last.max(number);
        long.insert(number, waiting, &self.pushed_out);
        self.number = Some(number);
        while long.bytes > self.all.bytes_max
            && let Some((_, (bytes, first))) = long.messages.pop_first()
        {
            long.bytes -= bytes;
            first.notify_one();
        }
    }

    /// Waits until the connection has to go.
    pub(crate) async fn pushed_out(&self) {
        self.pushed_out.notified().await;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.all.long().remove(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn has_to_go(unfinished: &Unfinished) -> bool {
        pin!(unfinished.pushed_out()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn long_messages_share_a_bound_and_the_oldest_goes_first() {
        let all = AllUnfinished::new(100_000);
        let (mut hoarder, mut sender) = (all.open(), all.open());
        hoarder.set(60_000, false);
        sender.set(30_000, false);
        assert!(!has_to_go(&hoarder) && !has_to_go(&sender));
        sender.set(60_000, false);
        assert!(has_to_go(&hoarder), "it began first");
        assert!(!has_to_go(&sender), "whoever grows may stay");
        drop(hoarder);
        sender.set(100_000, false);
        sender.set(0, true);
        assert_eq!(all.long().bytes, 0);
    }

    #[test]
    fn whoever_sends_one_long_message_after_the_other_is_no_hoarder() {
        let all = AllUnfinished::new(100_000);
        let (mut sender, mut hoarder, mut another) = (all.open(), all.open(), all.open());
        sender.set(40_000, false);
        hoarder.set(40_000, false);
        sender.set(40_000, true);
        another.set(40_000, false);
        assert!(has_to_go(&hoarder) && !has_to_go(&sender) && !has_to_go(&another));
        drop((sender, hoarder, another));
        assert_eq!(all.long().bytes, 0);
    }

    #[test]
    fn ordinary_messages_always_pass() {
        let all = AllUnfinished::new(0);
        let mut one = all.open();
        one.set(ORDINARY_BYTES, false);
        assert!(!has_to_go(&one));
        one.set(ORDINARY_BYTES + 1, false);
        assert!(has_to_go(&one));
        assert_eq!(all.long().bytes, 0);
    }
}
