//! The lease table: slots that are used again, each time with the next generation, so that no id ever repeats.
//!
//! ```text
//!            lend                    report, release, forgotten
//!   free ───────────▶ live ─────────────────────────────────▶ free
//!                      │  silence, timeout                      ▲
//!                      └──────────▶ expired ────────────────────┤ late report, forgotten
//!                                       │ campaign removed      │
//!                                       └──────────▶ gone ──────┘
//! ```
//!
//! A used slot keeps its row for ever, because of the generation. When a lease was granted is not durable: after a
//! restart every lease begins anew.

use std::collections::BTreeSet;

use super::rows::{Lease, LeaseRow};
use crate::types::{LeaseId, Tick};

/// A slot of the table.
#[derive(Clone, Copy, Debug)]
struct Slot {
    row: LeaseRow,
    granted: Tick,
}

/// All leases of a coordinator.
#[derive(Debug, Default)]
pub(super) struct Leases {
    slots: Vec<Slot>,
    free: BTreeSet<u32>,
    held: usize,
}

impl Leases {
    /// Leases in any state.
    pub(super) fn len(&self) -> usize {
        self.held
    }

    /// One more than the highest slot ever used.
    pub(super) fn end(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Puts a lease into the lowest free slot, under a new id.
    pub(super) fn insert(&mut self, lease: Lease, now: Tick) -> LeaseId {
        let slot = self.free.pop_first().unwrap_or_else(|| {
            self.slots.push(Slot { row: LeaseRow { generation: 0, lease: None }, granted: now });
            self.end() - 1
        });
        let entry = &mut self.slots[slot as usize];
        entry.row.generation += 1;
        entry.row.lease = Some(lease);
        entry.granted = now;
        self.held += 1;
        LeaseId { slot, generation: entry.row.generation }
    }

    /// Puts a stored row back.
    pub(super) fn restore(&mut self, slot: u32, row: LeaseRow, now: Tick) {
        while self.end() <= slot {
            self.free.insert(self.end());
            self.slots.push(Slot { row: LeaseRow { generation: 0, lease: None }, granted: now });
        }
        self.slots[slot as usize].row = row;
        self.held += usize::from(row.lease.is_some());
        if row.lease.is_some() || row.generation == u32::MAX {
            self.free.remove(&slot);
        } else {
            self.free.insert(slot);
        }
    }

    /// Ends the lease in a slot. A slot whose generations are used up is never used again.
    pub(super) fn remove(&mut self, slot: u32) -> Option<Lease> {
        let entry = self.slots.get_mut(slot as usize)?;
        let lease = entry.row.lease.take()?;
        self.held -= 1;
        if entry.row.generation < u32::MAX {
            self.free.insert(slot);
        }
        Some(lease)
    }

    /// The lease in a slot.
    pub(super) fn get(&self, slot: u32) -> Option<&Lease> {
        self.slots.get(slot as usize)?.row.lease.as_ref()
    }

    /// The lease in a slot, to be changed.
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Lease> {
        self.slots.get_mut(slot as usize)?.row.lease.as_mut()
    }

    /// The stored row of a slot, if it was ever used.
    pub(super) fn row(&self, slot: u32) -> Option<LeaseRow> {
        self.slots.get(slot as usize).map(|slot| slot.row).filter(|row| row.generation > 0)
    }

    /// The id of the lease in a slot.
    pub(super) fn id(&self, slot: u32) -> LeaseId {
        LeaseId { slot, generation: self.slots.get(slot as usize).map_or(0, |slot| slot.row.generation) }
    }

    /// When the lease in a slot was granted, in this process.
    pub(super) fn granted(&self, slot: u32) -> Tick {
        self.slots.get(slot as usize).map_or(Tick(0), |slot| slot.granted)
    }

    /// Begins the lease in a slot anew.
    pub(super) fn renew(&mut self, slot: u32, now: Tick) {
        if let Some(slot) = self.slots.get_mut(slot as usize) {
            slot.granted = now;
        }
    }

    /// All leases in order of their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Lease)> {
        self.slots.iter().enumerate().filter_map(|(slot, entry)| Some((slot as u32, entry.row.lease.as_ref()?)))
    }
}
