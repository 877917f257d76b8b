//! Which tasks of a campaign have a run to lend, in the order in which they are lent.
//!
//! ```text
//!   (level, word) ──▶ 64 bits, one a task          lowest level first, then lowest task
//!     a few of them at hand, the others in a map
//!   tasks >= frontier: all open at the first level, in neither
//! ```
//!
//! The level is the campaign's business (0 for everybody in order `lowest`; the number of the next run in order `even`).
//! Tasks nobody has touched cost nothing: they lie beyond the frontier, which moves up a word at a time as they are
//! needed, so neither memory nor the work of a step depends on the number of tasks. Once all are touched there are as many words in the map
//! as the campaign has; but tasks go out word by word, so as a rule they leave one word at hand and arrive at the other, and the map
//! is walked once for 64 of them.
//!
//! **Invariant**: the index holds exactly the open tasks, each at one level, and no word without any in the map; no place is both in the map and at
//! hand. A full scan makes it anew after a restart, and checks it (`check.rs`); the cost is shown by counting the places that are looked at
//! (`tests/cost.rs`).

use std::collections::BTreeMap;

use crate::types::TaskIndex;

/// Place of 64 tasks at one level. Its own type so that tests can count how often places are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    level: u32,
    word: u32,
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        #[cfg(test)]
        visits::count();
        (self.level, self.word).cmp(&(other.level, other.word))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Places at hand: those that tasks leave and arrive at as they are lent, and as many again for runs that come back meanwhile.
const AT_HAND: usize = 4;

/// The open tasks of one campaign.
#[derive(Debug)]
pub(super) struct OpenTasks {
    places: BTreeMap<Place, u64>,
    /// The places that were changed last, the latest first; some may have no open task.
    at_hand: Vec<(Place, u64)>,
    /// Tasks from here on are untouched: open at `first_level`. A multiple of 64, or `count`.
    frontier: u32,
    count: u32,
    first_level: u32,
}

impl OpenTasks {
    /// `count` tasks, all open at `first_level`.
    pub(super) fn new(count: u32, first_level: u32) -> Self {
        Self { places: BTreeMap::new(), at_hand: Vec::with_capacity(AT_HAND + 1), frontier: 0, count, first_level }
    }

    /// `count` tasks; of those that may be touched, all of them below `touched`, `level` tells where each is open.
    pub(super) fn restored(
        count: u32,
        first_level: u32,
        touched: u32,
        level: impl Fn(TaskIndex) -> Option<u32>,
    ) -> Self {
        let frontier = touched.div_ceil(64).saturating_mul(64).min(count);
        let mut places = BTreeMap::new();
        // Of one word, by level: neighbours are mostly at the same one, and a word is looked up once.
        let mut levels: Vec<(u32, u64)> = Vec::new();
        for first in (0..frontier).step_by(64) {
            for task in first..frontier.min(first + 64) {
                let Some(level) = level(TaskIndex(task)) else { continue };
                let bit = 1 << (task % 64);
                match levels.iter_mut().find(|(known, _)| *known == level) {
                    Some((_, bits)) => *bits |= bit,
                    None => levels.push((level, bit)),
                }
            }
            let word = first / 64;
            places.extend(levels.drain(..).map(|(level, bits)| (Place { level, word }, bits)));
        }
        Self { places, frontier, ..Self::new(count, first_level) }
    }

    /// Tasks below this may be touched; those from here on are open at the first level.
    pub(super) fn frontier(&self) -> u32 {
        self.frontier
    }

    /// Whether no task is open.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty() && self.frontier >= self.count && self.at_hand.iter().all(|(_, bits)| *bits == 0)
    }

    /// Whether the same tasks are open at the same levels as in `scanned`, which has nothing at hand.
    pub(super) fn agrees_with(&self, scanned: &Self) -> bool {
        let at_hand: BTreeMap<Place, u64> = self.at_hand.iter().copied().filter(|(_, bits)| *bits != 0).collect();
        let others = scanned.places.iter().filter(|(place, _)| !at_hand.contains_key(place));
        self.frontier == scanned.frontier
            && at_hand.iter().all(|(place, bits)| scanned.places.get(place) == Some(bits))
            && self.places.iter().eq(others)
    }

    /// The open task that goes out first, after `position` if one is given; with its level.
    pub(super) fn next(&mut self, position: Option<(u32, TaskIndex)>) -> Option<(u32, TaskIndex)> {
        let beyond = (self.first_level, TaskIndex(self.frontier));
        let untouched = self.frontier < self.count && position.is_none_or(|position| beyond > position);
        let next = self.next_known(position).into_iter().chain(untouched.then_some(beyond)).min()?;
        if next == beyond {
            self.advance();
        }
        Some(next)
    }

    /// Makes the task open at `level`.
    pub(super) fn insert(&mut self, level: u32, task: TaskIndex) {
        debug_assert!(task.0 < self.frontier, "a task is touched only after it was lent");
        *self.take_in_hand(Place { level, word: task.0 / 64 }) |= 1 << (task.0 % 64);
    }

    /// Makes the task, open at `level`, not open there.
    pub(super) fn remove(&mut self, level: u32, task: TaskIndex) {
        *self.take_in_hand(Place { level, word: task.0 / 64 }) &= !(1 << (task.0 % 64));
    }

    /// The bits of a place, which is at hand from now on, in the stead of the one that was changed longest ago.
    fn take_in_hand(&mut self, place: Place) -> &mut u64 {
        #[cfg(test)]
        visits::count();
        if let Some(index) = self.at_hand.iter().position(|(known, _)| *known == place) {
            self.at_hand[..=index].rotate_right(1);
        } else {
            let bits = self.places.remove(&place).unwrap_or(0);
            self.at_hand.insert(0, (place, bits));
            if self.at_hand.len() > AT_HAND
                && let Some((place, bits)) = self.at_hand.pop()
                && bits != 0
            {
                self.places.insert(place, bits);
            }
        }
        &mut self.at_hand[0].1
    }

    /// Moves the frontier to the end, as if all tasks had been lent: the index is as large as it gets at one level.
    #[cfg(test)]
    pub(super) fn advance_to_end(&mut self) {
        while self.frontier < self.count {
            self.advance();
        }
    }

    /// The first open task below the frontier after `position`.
    fn next_known(&self, position: Option<(u32, TaskIndex)>) -> Option<(u32, TaskIndex)> {
        let first = |place: &Place, bits: u64| {
            #[cfg(test)]
            visits::count();
            let later = match position {
                Some((level, TaskIndex(after))) if *place == (Place { level, word: after / 64 }) => {
                    bits & (!1u64).checked_shl(after % 64).unwrap_or(0)
                }
                Some((level, TaskIndex(after))) if (place.level, place.word) < (level, after / 64) => 0,
                Some(_) | None => bits,
            };
            (later != 0).then(|| (place.level, TaskIndex(place.word * 64 + later.trailing_zeros())))
        };
        let known = match position {
            None => self.places.first_key_value().and_then(|(place, bits)| first(place, *bits)),
            Some((level, TaskIndex(after))) => {
                self.places.range(Place { level, word: after / 64 }..).find_map(|(place, bits)| first(place, *bits))
            }
        };
        self.at_hand.iter().filter_map(|(place, bits)| first(place, *bits)).chain(known).min()
    }

    /// Moves the frontier up by one word, whose tasks are open at the first level.
    fn advance(&mut self) {
        let word = self.frontier / 64;
        let tasks = (self.count - self.frontier).min(64);
        self.places.insert(Place { level: self.first_level, word }, u64::MAX >> (64 - tasks));
        self.frontier += tasks;
    }
}

/// Counts places that are compared or looked at, so that a test can show what a step costs.
#[cfg(test)]
pub(super) mod visits {
    use std::cell::Cell;

    thread_local!(static VISITS: Cell<u64> = const { Cell::new(0) });

    pub(super) fn count() {
        VISITS.set(VISITS.get() + 1);
    }

    /// How many since the last call, on this thread.
    pub(in crate::coordinator) fn take() -> u64 {
        VISITS.replace(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn untouched_tasks_come_in_order_and_only_when_needed() {
        let mut open = OpenTasks::new(130, 0);
        assert_eq!(open.next(None), Some((0, TaskIndex(0))));
        assert_eq!(open.frontier(), 64);
        open.remove(0, TaskIndex(0));
        assert_eq!(open.next(None), Some((0, TaskIndex(1))));
        assert_eq!(open.next(Some((0, TaskIndex(63)))), Some((0, TaskIndex(64))));
        assert_eq!(open.next(Some((0, TaskIndex(127)))), Some((0, TaskIndex(128))));
        assert_eq!(open.next(Some((0, TaskIndex(129)))), None);
        for task in 1..130 {
            open.remove(0, TaskIndex(task));
        }
        assert!(open.is_empty());
        assert_eq!(open.next(None), None);
        open.insert(0, TaskIndex(77));
        assert_eq!(open.next(None), Some((0, TaskIndex(77))));
    }

    #[test]
    fn what_is_restored_is_what_was_inserted() {
        // Words at one level, at several, and without any; the last one is not full.
        let level = |task: TaskIndex| match task.0 {
            0..64 => Some(7),
            64..128 => Some(task.0 % 3).filter(|level| *level > 0),
            128..192 => None,
            _ => Some(task.0),
        };
        for touched in [0_u32, 1, 64, 65, 200, 210] {
            let frontier = 210.min(touched.div_ceil(64) * 64);
            let mut inserted = OpenTasks { frontier, ..OpenTasks::new(210, 1) };
            for task in (0..inserted.frontier).map(TaskIndex) {
                if let Some(level) = level(task) {
                    inserted.insert(level, task);
                }
            }
            let restored = OpenTasks::restored(210, 1, touched, level);
            assert!(inserted.agrees_with(&restored), "{touched} touched: {inserted:?}, {restored:?}");
        }
    }

    #[test]
    fn what_is_at_hand_is_found_where_it_belongs() {
        // As a plain set of (level, task), through changes that go anywhere and looks from anywhere.
        let (mut open, mut plain) = (OpenTasks::new(1_000, 0), BTreeSet::new());
        open.advance_to_end();
        plain.extend((0..1_000).map(|task| (0, TaskIndex(task))));
        let mut number = 1_u32;
        let mut below = |bound: u32| {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (number >> 8) % bound
        };
        for _ in 0..20_000 {
            let task = TaskIndex(if below(3) > 0 { below(1_000) } else { below(70) });
            let known = (0..4).find(|level| plain.contains(&(*level, task)));
            if let Some(level) = known {
                open.remove(level, task);
                plain.remove(&(level, task));
            }
            if below(3) > 0 {
                let level = below(4);
                open.insert(level, task);
                plain.insert((level, task));
            }
            let position = (below(4), TaskIndex(below(1_000)));
            let after = (std::ops::Bound::Excluded(position), std::ops::Bound::Unbounded);
            assert_eq!(open.next(Some(position)), plain.range(after).next().copied());
            assert_eq!(open.next(None), plain.first().copied());
            assert_eq!(open.is_empty(), plain.is_empty());
        }
        let level = |task| (0..4).find(|level| plain.contains(&(*level, task)));
        let mut scanned = OpenTasks::restored(1_000, 0, 1_000, level);
        assert!(open.agrees_with(&scanned));
        let (level, task) =
            open.at_hand.iter().find(|(_, bits)| *bits != 0).map(|(place, _)| (place.level, place.word * 64)).unwrap();
        scanned.places.remove(&Place { level, word: task / 64 });
        assert!(!open.agrees_with(&scanned), "what is at hand is not there");
    }

    #[test]
    fn levels_go_before_tasks() {
        let mut open = OpenTasks::new(3, 1);
        assert_eq!(open.next(None), Some((1, TaskIndex(0))));
        open.remove(1, TaskIndex(0));
        open.insert(2, TaskIndex(0));
        assert_eq!(open.next(None), Some((1, TaskIndex(1))));
        open.remove(1, TaskIndex(1));
        open.insert(0, TaskIndex(1));
        assert_eq!(open.next(None), Some((0, TaskIndex(1))));
        assert_eq!(open.next(Some((0, TaskIndex(1)))), Some((1, TaskIndex(2))));
        assert_eq!(open.next(Some((1, TaskIndex(2)))), Some((2, TaskIndex(0))));
        assert_eq!(open.next(Some((2, TaskIndex(0)))), None);
    }

    #[test]
    fn untouched_tasks_go_before_what_is_open_at_a_higher_level() {
        let mut open = OpenTasks::new(130, 0);
        assert_eq!(open.next(None), Some((0, TaskIndex(0))));
        for task in (0..64).map(TaskIndex) {
            open.remove(0, task);
            open.insert(1, task);
        }
        // In order: the rest of the first level, then the second; what was passed does not come again.
        assert_eq!(open.next(Some((1, TaskIndex(62)))), Some((1, TaskIndex(63))));
        assert_eq!(open.next(Some((1, TaskIndex(63)))), None);
        assert_eq!(open.frontier(), 64);
        assert_eq!(open.next(None), Some((0, TaskIndex(64))));
        assert_eq!(open.next(Some((0, TaskIndex(127)))), Some((0, TaskIndex(128))));
        assert_eq!(open.next(Some((0, TaskIndex(129)))), Some((1, TaskIndex(0))));
    }
}
