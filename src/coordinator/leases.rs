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
//! A used slot keeps its row for ever, because of the generation. When a lease was granted, and in which order leases
//! expired, is not durable: after a restart every lease begins anew, and those that had expired are in order of their slots.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::rows::{Lease, LeaseRow, LeaseState};
use crate::types::{LeaseId, Tick};

/// A slot of the table. There are millions, and a report touches any of them: it is as short as it can be.
#[derive(Clone, Copy, Debug)]
struct Slot {
    lease: Option<Lease>,
    /// When a live lease was granted, as a tick; of one that has ended, its key in [`Leases::expired`].
    since: u64,
    generation: u32,
    /// Of a live lease, among those of its session.
    place: u32,
}

const _: () = assert!(size_of::<Slot>() == 48);

impl Slot {
    fn row(&self) -> LeaseRow {
        LeaseRow { generation: self.generation, lease: self.lease }
    }
}

/// Set in the keys of [`Leases::expired`] of leases whose holder must be disconnected.
const ORIGIN: u64 = 1 << 63;

/// All leases of a coordinator.
#[derive(Debug, Default)]
pub(super) struct Leases {
    slots: Vec<Slot>,
    /// The lowest comes first; each is there once.
    free: BinaryHeap<Reverse<u32>>,
    held: usize,
    /// Slots of leases that are kept but not live, in the order in which they are forgotten when there is no room: those of native
    /// sessions, then those whose holder must be disconnected; of each the one that ended first.
    expired: BTreeMap<u64, u32>,
    expiries: u64,
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
        let slot = self.free.pop().map(|Reverse(slot)| slot).unwrap_or_else(|| {
            self.slots.push(Slot { lease: None, since: now.0, generation: 0, place: 0 });
            self.end() - 1
        });
        let entry = &mut self.slots[slot as usize];
        entry.generation += 1;
        entry.lease = Some(lease);
        entry.since = now.0;
        self.held += 1;
        LeaseId { slot, generation: entry.generation }
    }

    /// Puts a stored row back into the next slot. Every slot was used, so there are none without a row.
    pub(super) fn restore(&mut self, row: LeaseRow, now: Tick) {
        if row.lease.is_some() {
            self.held += 1;
        } else if row.generation < u32::MAX {
            self.free.push(Reverse(self.end()));
        }
        self.slots.push(Slot { lease: row.lease, since: now.0, generation: row.generation, place: 0 });
    }

    /// Ends the lease in a slot. A slot whose generations are used up is never used again.
    pub(super) fn remove(&mut self, slot: u32) -> Option<Lease> {
        let entry = self.slots.get_mut(slot as usize)?;
        let lease = entry.lease.take()?;
        self.held -= 1;
        if entry.generation < u32::MAX {
            self.free.push(Reverse(slot));
        }
        if lease.state != LeaseState::Live {
            self.expired.remove(&entry.since);
        }
        Some(lease)
    }

    /// Ends the lease in a slot and keeps it, for a late report; returns it as it was.
    pub(super) fn expire(&mut self, slot: u32, state: LeaseState) -> Option<Lease> {
        let lease = self.get_mut(slot)?;
        let before = *lease;
        lease.state = state;
        lease.own = 0;
        Some(before)
    }

    /// Makes a lease that had expired live again, with so many runs.
    pub(super) fn revive(&mut self, slot: u32, runs: u32, now: Tick) {
        let Some(entry) = self.slots.get_mut(slot as usize) else { return };
        let Some(lease) = &mut entry.lease else { return };
        lease.state = LeaseState::Live;
        lease.runs = runs;
        self.expired.remove(&entry.since);
        entry.since = now.0;
    }

    /// The place of a live lease among those of its session.
    pub(super) fn place(&self, slot: u32) -> u32 {
        self.slots.get(slot as usize).map_or(0, |slot| slot.place)
    }

    /// Notes it.
    pub(super) fn set_place(&mut self, slot: u32, place: u32) {
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            entry.place = place;
        }
    }

    /// Lets a lease that has just ended be forgotten when its place is needed.
    pub(super) fn may_be_forgotten(&mut self, slot: u32, origin: bool) {
        let Some(entry) = self.slots.get_mut(slot as usize) else { return };
        self.expiries += 1;
        entry.since = if origin { self.expiries | ORIGIN } else { self.expiries };
        self.expired.insert(entry.since, slot);
    }

    /// The slot of the lease that is forgotten first when there is no room.
    pub(super) fn oldest_expired(&self) -> Option<u32> {
        self.expired.first_key_value().map(|(_, slot)| *slot)
    }

    /// Slots of leases that may be forgotten, for checks, ascending: of native sessions, or of others. A slot that does not know its key
    /// is there as the last that could be.
    pub(super) fn expired(&self, origin: bool) -> Vec<u32> {
        let keys = self.expired.iter().filter(|(key, _)| (**key & ORIGIN != 0) == origin);
        let known = |key: u64, slot: u32| self.slots.get(slot as usize).is_some_and(|entry| entry.since == key);
        let mut slots: Vec<u32> = keys.map(|(key, slot)| if known(*key, *slot) { *slot } else { u32::MAX }).collect();
        slots.sort_unstable();
        slots
    }

    /// The lease in a slot.
    pub(super) fn get(&self, slot: u32) -> Option<&Lease> {
        self.slots.get(slot as usize)?.lease.as_ref()
    }

    /// The lease in a slot, to be changed.
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Lease> {
        self.slots.get_mut(slot as usize)?.lease.as_mut()
    }

    /// The stored row of a slot, if it was ever used.
    pub(super) fn row(&self, slot: u32) -> Option<LeaseRow> {
        self.slots.get(slot as usize).map(Slot::row)
    }

    /// The id of the lease in a slot.
    pub(super) fn id(&self, slot: u32) -> LeaseId {
        LeaseId { slot, generation: self.slots.get(slot as usize).map_or(0, |slot| slot.generation) }
    }

    /// When the live lease in a slot was granted, in this process.
    pub(super) fn granted(&self, slot: u32) -> Tick {
        self.slots.get(slot as usize).map_or(Tick(0), |slot| Tick(slot.since))
    }

    /// All leases in order of their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Lease)> {
        self.slots.iter().enumerate().filter_map(|(slot, entry)| Some((slot as u32, entry.lease.as_ref()?)))
    }
}
