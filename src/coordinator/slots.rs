//! A table of rows in numbered slots; the lowest free slot is used first, so tables stay as dense as their rows allow. And a few of another
//! table's slots, in order.

use std::collections::BTreeSet;

/// Rows in slots.
#[derive(Debug)]
pub(super) struct Slots<T> {
    rows: Vec<Option<T>>,
    free: BTreeSet<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), free: BTreeSet::new() }
    }
}

impl<T> Slots<T> {
    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len() - self.free.len()
    }

    /// One more than the highest slot ever used.
    pub(super) fn end(&self) -> u32 {
        self.rows.len() as u32
    }

    /// Puts a row into the lowest free slot.
    pub(super) fn insert(&mut self, row: T) -> u32 {
        if let Some(slot) = self.free.pop_first() {
            self.rows[slot as usize] = Some(row);
            return slot;
        }
        self.rows.push(Some(row));
        self.end() - 1
    }

    /// Puts a row into a given slot (restoring).
    pub(super) fn put(&mut self, slot: u32, row: T) {
        while self.end() <= slot {
            self.free.insert(self.end());
            self.rows.push(None);
        }
        self.free.remove(&slot);
        self.rows[slot as usize] = Some(row);
    }

    /// Takes the row out of a slot.
    pub(super) fn remove(&mut self, slot: u32) -> Option<T> {
        let row = self.rows.get_mut(slot as usize)?.take()?;
        self.free.insert(slot);
        Some(row)
    }

    /// The row in a slot.
    pub(super) fn get(&self, slot: u32) -> Option<&T> {
        self.rows.get(slot as usize)?.as_ref()
    }

    /// The row in a slot, to be changed.
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.rows.get_mut(slot as usize)?.as_mut()
    }

    /// All rows in order of their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.rows.iter().enumerate().filter_map(|(slot, row)| Some((slot as u32, row.as_ref()?)))
    }
}

/// Slots that an empty set keeps memory for.
const KEPT: usize = 64;

/// Slots in ascending order, not more than a few thousand, in one stretch of memory: whoever has not looked at them for a while finds them
/// with fewer waits for memory than in a tree.
#[derive(Debug, Default)]
pub(super) struct SlotSet(Vec<u32>);

impl SlotSet {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a slot; says whether it was not there.
    pub(super) fn insert(&mut self, slot: u32) -> bool {
        match self.0.binary_search(&slot) {
            Ok(_) => false,
            Err(place) => {
                self.0.insert(place, slot);
                true
            }
        }
    }

    /// Takes a slot out; says whether it was there.
    pub(super) fn remove(&mut self, slot: u32) -> bool {
        let Ok(place) = self.0.binary_search(&slot) else { return false };
        self.0.remove(place);
        if self.0.is_empty() && self.0.capacity() > KEPT {
            self.0 = Vec::new();
        }
        true
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &u32> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_slots_is_one_in_order() {
        let (mut set, mut expected, mut number) = (SlotSet::default(), BTreeSet::new(), 1_u64);
        assert!(set.is_empty());
        for _ in 0..2_000 {
            number = number * 48_271 % 2_147_483_647;
            let slot = (number % 97) as u32;
            if number.is_multiple_of(5) {
                assert_eq!(set.remove(slot), expected.remove(&slot));
            } else {
                assert_eq!(set.insert(slot), expected.insert(slot));
            }
            assert!(set.iter().eq(&expected), "{set:?} is not {expected:?}");
            assert_eq!((set.len(), set.is_empty()), (expected.len(), expected.is_empty()));
        }
    }

    #[test]
    fn an_empty_set_keeps_little_memory() {
        let mut set = SlotSet::default();
        for most in [KEPT as u32, 1_024] {
            assert!((0..most).all(|slot| set.insert(slot)));
            assert!((0..most).all(|slot| set.remove(slot)));
            assert_eq!(set.0.capacity() > 0, most == KEPT as u32, "{most}");
            assert!(set.0.capacity() <= KEPT);
        }
    }
}
