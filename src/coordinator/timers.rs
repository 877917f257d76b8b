//! What is due when: a heap with lazy deletion.
//!
//! An entry says only "look at this then": whoever pops it looks at the thing itself, which may be gone, or be due later
//! (a heartbeat does not touch the heap). Entries of things long gone are swept out as soon as they are the majority, so the heap is at most
//! about twice as large as what it stands for, and with what comes while it is swept three times. A million leases have millions of
//! entries, so that takes many slices: what is swept is a heap of its own, which gets shorter from its end and stays a heap.
//!
//! Tested in this file; that the heap stays short while nothing is due, in `tests/cost.rs`.

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
    heap: Heap,
    /// What is being swept: who is still of use moves to the other.
    swept: Heap,
}

impl Timers {
    /// Looks at `timer` at `due`.
    pub(super) fn push(&mut self, due: Tick, timer: Timer) {
        self.heap.push((due, timer));
    }

    /// When the next thing is due.
    pub(super) fn next(&self) -> Option<Tick> {
        let (one, other) = (self.heap.least(), self.swept.least());
        one.into_iter().chain(other).min().map(|(due, _)| due)
    }

    /// The next thing that is due by `now`.
    pub(super) fn pop(&mut self, now: Tick) -> Option<Timer> {
        let swept_first = self.swept.least().is_some_and(|entry| self.heap.least().is_none_or(|other| entry < other));
        let heap = if swept_first { &mut self.swept } else { &mut self.heap };
        heap.least().filter(|(due, _)| *due <= now)?;
        heap.pop().map(|(_, timer)| timer)
    }

    /// Whether entries are to be swept out now: there are many more than the `wanted` that could be of use at most (so never right after a
    /// sweep), or a sweep is to go on.
    pub(super) fn are_many(&self, wanted: usize) -> bool {
        self.is_sweeping() || self.heap.0.len() > 2 * wanted + 1_024
    }

    /// Drops entries that `keep` does not want, if there are many more than the `wanted` that could be of use; looks at `most` of them
    /// at a time. The work is paid for by the pushes since the last time.
    pub(super) fn sweep(&mut self, wanted: usize, most: usize, mut keep: impl FnMut(Tick, &Timer) -> bool) {
        if !self.is_sweeping() && self.are_many(wanted) {
            std::mem::swap(&mut self.heap, &mut self.swept);
        }
        for _ in 0..most {
            let Some((due, timer)) = self.swept.0.pop() else { break };
            if keep(due, &timer) {
                self.heap.push((due, timer));
            }
        }
        if !self.is_sweeping() {
            // An empty heap keeps no memory.
            self.swept = Heap::default();
        }
    }

    fn is_sweeping(&self) -> bool {
        !self.swept.0.is_empty()
    }

    /// Entries, for tests of the bound.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.heap.0.len() + self.swept.0.len()
    }
}

/// A binary heap, the least entry first. Unlike the library's, it can give its last entry away and stay one.
#[derive(Debug, Default)]
struct Heap(Vec<(Tick, Timer)>);

impl Heap {
    fn least(&self) -> Option<(Tick, Timer)> {
        self.0.first().copied()
    }

    fn push(&mut self, entry: (Tick, Timer)) {
        let mut place = self.0.len();
        self.0.push(entry);
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.0[parent] <= entry {
                break;
            }
            self.0.swap(place, parent);
            place = parent;
        }
    }

    fn pop(&mut self) -> Option<(Tick, Timer)> {
        let last = self.0.pop()?;
        let Some(first) = self.0.first_mut() else { return Some(last) };
        let least = std::mem::replace(first, last);
        let mut place = 0;
        loop {
            let left = 2 * place + 1;
            let right = left + 1;
            let child = if right < self.0.len() && self.0[right] < self.0[left] { right } else { left };
            if child >= self.0.len() || self.0[place] <= self.0[child] {
                return Some(least);
            }
            self.0.swap(place, child);
            place = child;
        }
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
            timers.sweep(10, 2_000, |_, timer| {
                looks += 1;
                *timer == Timer::Idle(7, 1)
            });
            assert_eq!(looks, looked_at, "{entries} entries, of which 10 could be of use");
            assert_eq!(timers.len(), if looks == 0 { entries as usize } else { 1 });
        }
    }

    #[test]
    fn a_sweep_takes_slices_and_whatever_is_due_meanwhile_comes_in_order() {
        let mut timers = Timers::default();
        // Every tick once, far from in order.
        for number in 0..5_000_u32 {
            timers.push(Tick(u64::from(number * 7_919 % 5_000)), Timer::Idle(number, 1));
        }
        let (mut popped, mut slices, mut most) = (Vec::new(), 0, 0);
        for now in 0..5_000 {
            let mut looks = 0;
            timers.sweep(0, 100, |due, _| {
                looks += 1;
                due.0.is_multiple_of(10)
            });
            (slices, most) = (slices + usize::from(looks > 0), most.max(looks));
            assert!(timers.next().is_none_or(|due| due.0 >= now), "nothing that is due was left");
            while timers.pop(Tick(now)).is_some() {
                popped.push(now);
            }
        }
        assert_eq!(most, 100);
        assert!((45..=50).contains(&slices), "{slices}");
        assert!(popped.is_sorted() && (0..500).all(|tenth| popped.binary_search(&(10 * tenth)).is_ok()));
        assert!(popped.len() < 600 && timers.len() == 0 && !timers.is_sweeping());
    }

    #[test]
    fn a_heap_gives_the_least_and_stays_one_without_its_last() {
        let (mut heap, mut number) = (Heap::default(), 1_u64);
        for _ in 0..1_000 {
            number = number * 48_271 % 2_147_483_647;
            heap.push((Tick(number % 300), Timer::Idle((number % 7) as u32, 1)));
        }
        heap.0.truncate(777);
        let mut expected = heap.0.clone();
        expected.sort();
        let popped: Vec<_> = std::iter::from_fn(|| heap.pop()).collect();
        assert_eq!(popped, expected);
    }
}
