//! What has arrived of frames that are not whole yet, over all native connections: bounded in bytes.
//!
//! One frame is bounded, and so is the number of connections, but not by little: peers that send a frame but its last
//! byte each could fill the memory of a machine. Above the bound, connections go whose unfinished frame grows and is
//! longer than an ordinary one; short frames always pass, so whoever works or reports does not notice. Tested in
//! this file, and on real sockets in `tests/server_limits.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Unfinished frames up to this many bytes are not counted; the number of connections bounds them.
const ORDINARY_BYTES: usize = 16 * 1_024;

/// The bytes of all unfinished frames of a server.
#[derive(Clone, Debug)]
pub(crate) struct AllUnfinished {
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
}

impl AllUnfinished {
    /// Together they have at most `bytes_max` bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes: Arc::default(), bytes_max }
    }

    /// For one connection.
    pub(crate) fn open(&self) -> Unfinished {
        Unfinished { all: self.clone(), bytes: 0 }
    }
}

/// One connection's part; given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Unfinished {
    all: AllUnfinished,
    bytes: usize,
}

impl Unfinished {
    /// So many bytes of this connection wait for the rest of their frame; `false` if the connection has to go.
    #[must_use]
    pub(crate) fn set(&mut self, waiting: usize) -> bool {
        let bytes = if waiting > ORDINARY_BYTES { waiting } else { 0 };
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes <= before {
            self.all.bytes.fetch_sub(before - bytes, Ordering::Relaxed);
            return true;
        }
        let more = bytes - before;
        self.all.bytes.fetch_add(more, Ordering::Relaxed) + more <= self.all.bytes_max
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.all.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_frames_share_a_bound_and_give_it_back() {
        let all = AllUnfinished::new(100_000);
        let (mut one, mut other) = (all.open(), all.open());
        assert!(one.set(60_000));
        assert!(!other.set(60_000), "too much together");
        assert!(!one.set(60_001), "whoever grows goes");
        assert!(one.set(60_000), "whoever does not may stay");
        drop(other);
        assert!(one.set(100_000));
        assert!(one.set(0));
        assert_eq!(all.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn short_frames_always_pass() {
        let all = AllUnfinished::new(0);
        assert!(all.open().set(ORDINARY_BYTES));
        assert!(!all.open().set(ORDINARY_BYTES + 1));
        assert_eq!(all.bytes.load(Ordering::Relaxed), 0);
    }
}
