//! A table of rows in numbered slots; the lowest free slot is used first, so tables stay as dense as their rows allow. And a few of another
//! table's slots.

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

/// Places that an empty set keeps memory for.
const KEPT: usize = 64;

/// No place.
const NONE: u32 = u32::MAX;

/// Slots of another table, each at a place that it keeps until it is taken out. Whoever knows the place need not look for it: among a
/// thousand slots that the processor's caches do not have, that is one wait for memory instead of many.
#[derive(Debug)]
pub(super) struct SlotSet {
    places: Vec<Place>,
    /// The place that is taken next, of those that were given back.
    free: u32,
    len: usize,
}

#[derive(Debug)]
enum Place {
    Taken(u32),
    /// Given back; the one that was given back before it.
    Free(u32),
}

impl Default for SlotSet {
    fn default() -> Self {
        Self { places: Vec::new(), free: NONE, len: 0 }
    }
}

impl SlotSet {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a slot that is not there; returns its place.
    pub(super) fn insert(&mut self, slot: u32) -> u32 {
        self.len += 1;
        let taken = self.free;
        if let Some(place) = self.places.get_mut(taken as usize)
            && let Place::Free(next) = *place
        {
            self.free = next;
            *place = Place::Taken(slot);
            return taken;
        }
        self.places.push(Place::Taken(slot));
        self.places.len() as u32 - 1
    }

    /// Takes a slot out of its place; says whether it was there.
    pub(super) fn remove(&mut self, place: u32, slot: u32) -> bool {
        let Some(entry) = self.places.get_mut(place as usize) else { return false };
        if !matches!(entry, Place::Taken(taken) if *taken == slot) {
            return false;
        }
        *entry = Place::Free(self.free);
        self.free = place;
        self.len -= 1;
        if self.len == 0 && self.places.capacity() > KEPT {
            *self = Self::default();
        }
        true
    }

    /// All of them, each with its place, in no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        (0..).zip(&self.places).filter_map(|(place, entry)| match entry {
            Place::Taken(slot) => Some((place, *slot)),
            Place::Free(_) => None,
        })
    }

    /// All of them in ascending order.
    pub(super) fn sorted(&self) -> Vec<u32> {
        let mut slots: Vec<u32> = self.iter().map(|(_, slot)| slot).collect();
        slots.sort_unstable();
        slots
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_slot_is_at_its_place_until_it_is_taken_out() {
        let (mut set, mut expected, mut number) = (SlotSet::default(), BTreeMap::new(), 1_u64);
        let mut most = 0;
        assert!(set.is_empty());
        for _ in 0..2_000 {
            number = number * 48_271 % 2_147_483_647;
            let slot = (number % 97) as u32;
            match expected.get(&slot) {
                Some(&place) if number.is_multiple_of(3) => {
                    assert!(!set.remove(place, slot + 1) && !set.remove(place + 1, slot));
                    assert!(set.remove(place, slot) && !set.remove(place, slot));
                    expected.remove(&slot);
                }
                Some(_) => {}
                None => assert_eq!(expected.insert(slot, set.insert(slot)), None),
            }
            most = most.max(expected.len());
            let held: BTreeMap<u32, u32> = set.iter().map(|(place, slot)| (slot, place)).collect();
            assert_eq!(held, expected);
            assert!(set.sorted().iter().eq(expected.keys()));
            assert_eq!((set.len(), set.is_empty()), (expected.len(), expected.is_empty()));
            assert_eq!(set.places.len(), most, "places are used again");
        }
    }

    #[test]
    fn an_empty_set_keeps_little_memory() {
        let mut set = SlotSet::default();
        for most in [KEPT as u32, 1_024] {
            let places: Vec<u32> = (0..most).map(|slot| set.insert(slot)).collect();
            assert!((0..most).zip(places).all(|(slot, place)| set.remove(place, slot)));
            assert_eq!(set.places.capacity() > 0, most == KEPT as u32, "{most}");
            assert!(set.places.capacity() <= KEPT);
        }
    }
}
