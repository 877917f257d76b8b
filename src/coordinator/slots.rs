//! A table of rows in numbered slots; the lowest free slot is used first, so tables stay as dense as their rows allow.

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
