//! What is due when: a heap with lazy deletion.
//!
//! An entry says only "look at this then": whoever pops it looks at the thing itself, which may be gone, or be due later
//! (a heartbeat does not touch the heap). Entries of things long gone are swept out when they are the majority, so
//! the heap is at most about twice as large as what it stands for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::types::{CampaignId, LeaseId, Tick};

/// A thing to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A live lease may have expired.
    Lease(LeaseId),
    /// A disconnected session may have been idle too long. With the session's serial number.
    Idle(u32, u64),
    /// A session may be lent again what it released. With the session's serial number.
    Released(u32, u64),
    /// A creation may have been abandoned.
    Creation(CampaignId),
}

/// All timers.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Tick, Timer)>>,
}

impl Timers {
    /// Looks at `timer` at `due`.
    pub(super) fn push(&mut self, due: Tick, timer: Timer) {
        self.heap.push(Reverse((due, timer)));
    }

    /// When the next thing is due.
    pub(super) fn next(&self) -> Option<Tick> {
        self.heap.peek().map(|Reverse((due, _))| *due)
    }

    /// The next thing that is due by `now`.
    pub(super) fn pop(&mut self, now: Tick) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, timer))| timer)
    }

    /// Drops entries that `keep` does not want, if there are many more than the `wanted` that could be of use. The work is
    /// paid for by the pushes since the last time.
    pub(super) fn sweep(&mut self, wanted: usize, mut keep: impl FnMut(Tick, &Timer) -> bool) {
        if self.heap.len() > 2 * wanted + 1_024 {
            self.heap.retain(|Reverse((due, timer))| keep(*due, timer));
        }
    }

    /// Entries, for tests of the bound.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_looked_at_only_when_most_of_them_must_be_useless() {
        for (entries, looked_at) in [(1_044, 0), (1_045, 1_045)] {
            let mut timers = Timers::default();
            for slot in 0..entries {
                timers.push(Tick(u64::from(slot)), Timer::Idle(slot, 1));
            }
            let mut looks = 0;
            timers.sweep(10, |_, timer| {
                looks += 1;
                *timer == Timer::Idle(7, 1)
            });
            assert_eq!(looks, looked_at, "{entries} entries, of which 10 could be of use");
            assert_eq!(timers.len(), if looks == 0 { entries as usize } else { 1 });
        }
    }
}
