//! Which row is in which page, which pages are stored, and which are owed to the disk.
//!
//! A page is a fixed number of consecutive rows of one table (of one campaign, for tasks), small enough that the longest
//! possible rows fit into one record. Pages without rows are not stored; [`PageMap`] knows which are, and is itself stored
//! as bits, so that a page that has vanished is noticed; the sum of all pages' checksums is stored with the books, so that an old
//! version of a page is noticed. [`DirtyPages`] orders the pages that have changed since they were
//! stored by the journal record that first changed them: the longest-dirty page is written next, and the journal is needed
//! from there on.
//!
//! Tested in this file (the longest rows fit) and by the ledger's histories.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use super::keys::{Place, Table};
use crate::coordinator::rows::{CLEAR_TASKS_UNIT, RowKey};
use crate::types::{CampaignId, TaskIndex};

/// Rows in a page of each table.
pub(super) const fn rows_per_page(table: Table) -> u32 {
    match table {
        Table::Globals => 1,
        Table::Campaigns | Table::SessionNames | Table::Troubles => 16,
        Table::Tasks => 128,
        Table::Leases | Table::Returned => 64,
        Table::Sessions => 4,
    }
}

const _: () = assert!(CLEAR_TASKS_UNIT.is_multiple_of(rows_per_page(Table::Tasks)), "whole pages fall");

/// The page a row is in.
pub(super) fn page_of(key: RowKey) -> Place {
    let (table, campaign, position) = match key {
        RowKey::Globals => (Table::Globals, 0, 0),
        RowKey::Campaign(id) => (Table::Campaigns, 0, id.0),
        RowKey::Task(campaign, task) => (Table::Tasks, campaign.0, task.0),
        RowKey::Lease(slot) => (Table::Leases, 0, slot),
        RowKey::Session(slot) => (Table::Sessions, 0, slot),
        RowKey::SessionName(slot) => (Table::SessionNames, 0, slot),
        RowKey::Trouble(slot) => (Table::Troubles, 0, slot),
        RowKey::Returned(slot) => (Table::Returned, 0, slot),
    };
    Place { table, campaign, number: position / rows_per_page(table) }
}

/// The keys of a page's rows, in order.
pub(super) fn rows_of(page: Place) -> impl Iterator<Item = RowKey> {
    let rows = rows_per_page(page.table);
    let first = page.number.saturating_mul(rows);
    (first..=first.saturating_add(rows - 1)).map(move |position| match page.table {
        Table::Globals => RowKey::Globals,
        Table::Campaigns => RowKey::Campaign(CampaignId(position)),
        Table::Tasks => RowKey::Task(CampaignId(page.campaign), TaskIndex(position)),
        Table::Leases => RowKey::Lease(position),
        Table::Sessions => RowKey::Session(position),
        Table::SessionNames => RowKey::SessionName(position),
        Table::Troubles => RowKey::Trouble(position),
        Table::Returned => RowKey::Returned(position),
    })
}

/// The pages of the tasks `first .. first + tasks`, both multiples of [`CLEAR_TASKS_UNIT`].
pub(super) fn pages_of_tasks(campaign: CampaignId, first: TaskIndex, tasks: u32) -> Range<Place> {
    let rows = u64::from(rows_per_page(Table::Tasks));
    let end = (u64::from(first.0) + u64::from(tasks)).div_ceil(rows);
    let place = |number: u64| Place { table: Table::Tasks, campaign: campaign.0, number: number as u32 };
    // 2^32 / 128 fits; so does the end of the last page.
    place(u64::from(first.0) / rows)..place(end)
}

/// The keys of the rows of the tasks `first .. first + tasks`.
pub(super) fn rows_of_tasks(campaign: CampaignId, first: TaskIndex, tasks: u32) -> Range<RowKey> {
    match first.0.checked_add(tasks) {
        Some(end) => RowKey::Task(campaign, first)..RowKey::Task(campaign, TaskIndex(end)),
        // To the end of the campaign; ids beyond the last are never given.
        None => RowKey::Task(campaign, first)..RowKey::Task(CampaignId(campaign.0.saturating_add(1)), TaskIndex(0)),
    }
}

/// Pages that one row of the map speaks of.
pub(super) const PAGES_PER_MAP: u32 = 2_048;

/// Bytes of one row of the map.
pub(super) const MAP_BYTES: usize = PAGES_PER_MAP as usize / 8;

/// Which pages are stored, and with which checksums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PageMap {
    /// Rows of the map that have at least one bit.
    rows: BTreeMap<Place, [u8; MAP_BYTES]>,
    /// Rows of the map that differ from what is stored.
    touched: BTreeSet<Place>,
    pages: u64,
    /// The checksum of each stored page.
    checksums: BTreeMap<Place, u32>,
    /// Their sum.
    sum: u64,
}

impl PageMap {
    /// Takes a stored row of the map; `None` if it has no bit or the wrong length.
    pub(super) fn restore(&mut self, place: Place, bits: &[u8]) -> Option<()> {
        let bits: [u8; MAP_BYTES] = bits.try_into().ok()?;
        let pages: u64 = bits.iter().map(|byte| u64::from(byte.count_ones())).sum();
        self.pages += pages;
        self.rows.insert(place, bits);
        (pages > 0).then_some(())
    }

    /// Takes the checksum of a stored page that the map names.
    pub(super) fn restore_checksum(&mut self, page: Place, checksum: u32) {
        let before = self.checksums.insert(page, checksum).unwrap_or(0);
        self.sum = self.sum.wrapping_sub(before.into()).wrapping_add(checksum.into());
    }

    /// The sum of the checksums of all stored pages. Two sets of pages that differ in one page's version differ in it.
    pub(super) fn checksums(&self) -> u64 {
        self.sum
    }

    /// How many pages are stored.
    pub(super) fn pages(&self) -> u64 {
        self.pages
    }

    /// How many rows the map has.
    pub(super) fn len(&self) -> u64 {
        self.rows.len() as u64
    }

    /// Whether a page is stored.
    pub(super) fn contains(&self, page: Place) -> bool {
        let (row, byte, bit) = position(page);
        self.rows.get(&row).is_some_and(|bits| bits[byte] & bit != 0)
    }

    /// Notes that a page is stored, with this checksum.
    pub(super) fn insert(&mut self, page: Place, checksum: u32) {
        self.restore_checksum(page, checksum);
        let (row, byte, bit) = position(page);
        let bits = self.rows.entry(row).or_insert([0; MAP_BYTES]);
        if bits[byte] & bit == 0 {
            bits[byte] |= bit;
            self.pages += 1;
            self.touched.insert(row);
        }
    }

    /// Notes that a page is not stored; says whether it was.
    pub(super) fn remove(&mut self, page: Place) -> bool {
        let (row, byte, bit) = position(page);
        let Some(bits) = self.rows.get_mut(&row) else { return false };
        if bits[byte] & bit == 0 {
            return false;
        }
        bits[byte] &= !bit;
        self.pages -= 1;
        let checksum = self.checksums.remove(&page).unwrap_or(0);
        self.sum = self.sum.wrapping_sub(checksum.into());
        if bits.iter().all(|byte| *byte == 0) {
            self.rows.remove(&row);
        }
        self.touched.insert(row);
        true
    }

    /// The stored pages of a stretch; looks only at rows of the map that exist.
    pub(super) fn within(&self, pages: &Range<Place>) -> Vec<Place> {
        let first = Place { number: pages.start.number / PAGES_PER_MAP, ..pages.start };
        let rows = self.rows.range(first..=Place { number: pages.end.number / PAGES_PER_MAP, ..pages.end });
        let mut found = Vec::new();
        for (row, bits) in rows {
            let start = row.number.saturating_mul(PAGES_PER_MAP);
            let bits = bits.iter().flat_map(|byte| (0..8).map(move |bit| byte & (1 << bit) != 0));
            let stored = (start..).zip(bits).filter(|(_, stored)| *stored);
            found.extend(stored.map(|(number, _)| Place { number, ..*row }).filter(|page| pages.contains(page)));
        }
        found
    }

    /// The rows of the map that differ from what is stored, each with its new bits or `None` if it is gone; from then on they
    /// count as stored.
    pub(super) fn take_touched(&mut self) -> Vec<(Place, Option<[u8; MAP_BYTES]>)> {
        std::mem::take(&mut self.touched).into_iter().map(|row| (row, self.rows.get(&row).copied())).collect()
    }
}

fn position(page: Place) -> (Place, usize, u8) {
    let row = Place { number: page.number / PAGES_PER_MAP, ..page };
    let within = page.number % PAGES_PER_MAP;
    (row, within as usize / 8, 1 << (within % 8))
}

/// Pages that have changed since they were stored, ordered by the journal record that first changed them.
#[derive(Clone, Debug, Default)]
pub(super) struct DirtyPages {
    /// A bit for each, as in the map: hundreds of thousands of pages are looked up without a wait for memory.
    bits: BTreeMap<Place, [u8; MAP_BYTES]>,
    /// Entries of pages that were forgotten stay behind until they are reached; should the page be dirty again by then, it is only
    /// written sooner than it need be.
    queue: VecDeque<(u64, Place)>,
    /// The one that was named last, while it is dirty: a commit names rows in order, so those of one page together.
    latest: Option<Place>,
}

impl DirtyPages {
    /// A journal record changed a page. Records are named in ascending order.
    pub(super) fn mark(&mut self, page: Place, record: u64) {
        if self.latest.replace(page) == Some(page) {
            return;
        }
        let (row, byte, bit) = position(page);
        let bits = self.bits.entry(row).or_insert([0; MAP_BYTES]);
        if bits[byte] & bit == 0 {
            bits[byte] |= bit;
            self.queue.push_back((record, page));
        }
    }

    /// Takes out the page that has been dirty for longest.
    pub(super) fn take_oldest(&mut self) -> Option<Place> {
        self.skip_clean();
        let (_, page) = self.queue.pop_front()?;
        self.forget(&(page..Place { number: page.number + 1, ..page }));
        Some(page)
    }

    /// No journal record before this one has a change that no stored page contains.
    pub(super) fn oldest(&mut self) -> Option<u64> {
        self.skip_clean();
        self.queue.front().map(|(record, _)| *record)
    }

    /// Forgets the pages of a stretch: their rows are gone. However long it is, only what is dirty costs something.
    pub(super) fn forget(&mut self, pages: &Range<Place>) {
        self.latest = None;
        let first = Place { number: pages.start.number / PAGES_PER_MAP, ..pages.start };
        let last = Place { number: pages.end.number / PAGES_PER_MAP, ..pages.end };
        let mut clean = Vec::new();
        for (row, bits) in self.bits.range_mut(first..=last) {
            let start = row.number.saturating_mul(PAGES_PER_MAP);
            let from = pages.start.number.saturating_sub(start).min(PAGES_PER_MAP);
            let to = pages.end.number.saturating_sub(start).min(PAGES_PER_MAP);
            for number in from..to {
                bits[number as usize / 8] &= !(1 << (number % 8));
            }
            if bits.iter().all(|byte| *byte == 0) {
                clean.push(*row);
            }
        }
        for row in clean {
            self.bits.remove(&row);
        }
    }

    fn skip_clean(&mut self) {
        while let Some((_, page)) = self.queue.front() {
            let (row, byte, bit) = position(*page);
            if self.bits.get(&row).is_some_and(|bits| bits[byte] & bit != 0) {
                return;
            }
            self.queue.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::rows::{
        CampaignRow, GlobalsRow, Lease, LeaseRow, LeaseState, Phase, ReturnedRow, Row, SessionRow, TaskRow, TroubleRow,
    };
    use crate::limits;
    use crate::store::codec::PAYLOAD_BYTES_MAX;
    use crate::store::convert::encode_row;
    use crate::store::keys::TABLES;
    use crate::types::{CampaignSpec, CreationId, Order, Refusal, RefusalReason, SessionId, Tasks};

    /// The longest row that a table can have, at a key.
    fn longest(key: RowKey) -> Row {
        let (campaign, task) = (CampaignId(u32::MAX), TaskIndex(u32::MAX));
        match key {
            RowKey::Globals => Row::Globals(GlobalsRow { next_campaign: u32::MAX }),
            RowKey::Campaign(id) => {
                let spec = CampaignSpec {
                    name: "n".repeat(limits::NAME_BYTES_MAX),
                    tasks: Tasks::Range { first: u64::MAX, count: u32::MAX },
                    runs: u32::MAX,
                    seed: Some(u64::MAX),
                    order: Order::Even,
                    lease_ms: Some(u64::MAX),
                    timeout_ms: Some(u64::MAX),
                    errors_max: Some(u32::MAX),
                    losses_max: Some(u32::MAX),
                };
                Row::Campaign(
                    id,
                    Box::new(CampaignRow { spec, creation: CreationId([0xff; 16]), phase: Phase::Removing }),
                )
            }
            RowKey::Task(campaign, task) => {
                Row::Task(campaign, task, TaskRow { done: u32::MAX, extra: u32::MAX, issued: u32::MAX })
            }
            RowKey::Lease(slot) => {
                let lease = Lease {
                    session: u32::MAX,
                    campaign,
                    task,
                    first_run: u32::MAX,
                    runs: u32::MAX,
                    own: u64::MAX,
                    state: LeaseState::Gone,
                };
                Row::Lease(slot, LeaseRow { generation: u32::MAX, lease: Some(lease) })
            }
            RowKey::Session(slot) => {
                let refusal = Refusal { from: u64::MAX, to: u64::MAX, reason: RefusalReason::BadRuns };
                let row = SessionRow {
                    id: SessionId([0xff; 16]),
                    origin: true,
                    attempt: u64::MAX,
                    processed: u64::MAX,
                    confirmed: u64::MAX,
                    refusals: vec![refusal; limits::REFUSALS_MAX],
                };
                Row::Session(slot, row)
            }
            RowKey::SessionName(slot) => Row::SessionName(slot, "n".repeat(limits::SESSION_NAME_BYTES_MAX)),
            RowKey::Trouble(slot) => {
                let row = TroubleRow {
                    campaign,
                    task,
                    errors: u32::MAX,
                    losses: u32::MAX,
                    quarantined: true,
                    last_error: "e".repeat(limits::ERROR_BYTES_MAX),
                };
                Row::Trouble(slot, row)
            }
            RowKey::Returned(slot) => {
                Row::Returned(slot, ReturnedRow { campaign, task, word: u32::MAX, runs: u64::MAX })
            }
        }
    }

    fn last_page(table: Table) -> Place {
        let campaign = if table == Table::Tasks { u32::MAX } else { 0 };
        let number = if table == Table::Globals { 0 } else { u32::MAX / rows_per_page(table) };
        Place { table, campaign, number }
    }

    #[test]
    fn the_longest_rows_fit_into_their_pages() {
        // As docs/STORAGE.md says.
        let bytes = [6, 2_416, 3_328, 3_008, 2_636, 2_160, 3_648, 1_920];
        for (table, bytes) in TABLES.into_iter().zip(bytes) {
            let mut payload = Vec::new();
            let keys: Vec<RowKey> = rows_of(last_page(table)).collect();
            for key in &keys {
                encode_row(&longest(*key), &mut payload);
            }
            assert_eq!(keys.len(), rows_per_page(table) as usize);
            assert_eq!(payload.len(), bytes, "{table:?}");
            assert!(bytes <= PAYLOAD_BYTES_MAX, "{table:?}");
            // And can be read again within the limit of decoding.
            let rows = crate::store::convert::decode_rows(&payload).unwrap();
            assert_eq!(rows, keys.into_iter().map(longest).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_page_names_the_rows_that_are_in_it() {
        for table in TABLES {
            for page in [Place { number: 0, ..last_page(table) }, last_page(table)] {
                assert!(rows_of(page).all(|key| page_of(key) == page), "{page:?}");
                assert!(rows_of(page).is_sorted());
            }
        }
    }

    #[test]
    fn the_map_counts_and_names_pages() {
        let mut map = PageMap::default();
        let page = |campaign, number| Place { table: Table::Tasks, campaign, number };
        for number in [0, 1, 511, 512, 2_047, 2_048, 9_999] {
            map.insert(page(1, number), 7);
            map.insert(page(1, number), u32::MAX);
            map.insert(page(2, number), 1);
        }
        assert_eq!(map.checksums(), 7 * (1 + u64::from(u32::MAX)), "the last word on each page counts");
        assert_eq!((map.pages(), map.len()), (14, 6));
        assert_eq!(map.take_touched().len(), 6);
        let cleared = pages_of_tasks(CampaignId(1), TaskIndex(0), CLEAR_TASKS_UNIT);
        assert_eq!(map.within(&cleared), [page(1, 0), page(1, 1), page(1, 511)]);
        let cleared = pages_of_tasks(CampaignId(2), TaskIndex(CLEAR_TASKS_UNIT), u32::MAX - 2 * CLEAR_TASKS_UNIT + 1);
        assert_eq!(map.within(&cleared), [512, 2_047, 2_048, 9_999].map(|number| page(2, number)));
        assert!(map.remove(page(1, 9_999)) && !map.remove(page(1, 9_999)) && !map.remove(page(7, 0)));
        assert_eq!((map.pages(), map.len()), (13, 5));
        assert_eq!(map.checksums(), 7 + 6 * u64::from(u32::MAX), "a page that is gone does not count");
        let touched = map.take_touched();
        assert_eq!(touched, [(page(1, 4), None)], "a row without a bit is removed");
    }

    #[test]
    fn the_longest_dirty_page_comes_first() {
        let page = |number| Place { table: Table::Tasks, campaign: 1, number };
        let mut dirty = DirtyPages::default();
        for (number, record) in [(1, 10), (2, 11), (1, 12), (600, 13), (3, 14)] {
            dirty.mark(page(number), record);
        }
        assert_eq!(dirty.take_oldest(), Some(page(1)));
        dirty.forget(&pages_of_tasks(CampaignId(1), TaskIndex(0), CLEAR_TASKS_UNIT));
        assert_eq!(dirty.oldest(), Some(13), "what was cleared is not owed");
        dirty.mark(page(2), 15);
        assert_eq!(dirty.take_oldest(), Some(page(600)));
        assert_eq!(dirty.oldest(), Some(15), "a page that is dirty again counts from then on");
        assert_eq!(dirty.take_oldest(), Some(page(2)));
        dirty.mark(page(2), 16);
        dirty.mark(page(2), 17);
        assert_eq!(dirty.oldest(), Some(16), "it is dirty since the first");
        dirty.forget(&pages_of_tasks(CampaignId(1), TaskIndex(0), CLEAR_TASKS_UNIT));
        dirty.mark(page(2), 18);
        assert_eq!(dirty.oldest(), Some(16), "right after it was cleared it may be written too soon, never too late");
        assert_eq!(dirty.take_oldest(), Some(page(2)));
        assert_eq!(dirty.take_oldest(), None);
        assert_eq!(dirty.oldest(), None);
        assert!(dirty.bits.is_empty() && dirty.queue.is_empty(), "nothing is kept");
    }

    #[test]
    fn no_dirty_page_is_missed_and_none_waits_longer_than_since_its_first_change() {
        let mut number = 1_u64;
        let mut below = move |bound: u64| {
            number = number * 48_271 % 2_147_483_647;
            (number % bound) as u32
        };
        let (mut dirty, mut model) = (DirtyPages::default(), BTreeMap::<Place, u64>::new());
        for step in 0..100_000 {
            match below(20) {
                0 => {
                    let campaign = CampaignId(1 + below(2));
                    let (first, tasks) = (below(6) * CLEAR_TASKS_UNIT, below(6) * CLEAR_TASKS_UNIT);
                    let pages = pages_of_tasks(campaign, TaskIndex(first), tasks);
                    dirty.forget(&pages);
                    model.retain(|page, _| !pages.contains(page));
                }
                1..=4 => match dirty.take_oldest() {
                    Some(page) => assert!(model.remove(&page).is_some(), "{page:?} was clean"),
                    None => assert!(model.is_empty(), "{model:?}"),
                },
                kind => {
                    let numbers = [0, 511, 512, 1_023, 1_024, 2_047, 2_048, 2_559, 2_560, 3_000];
                    let number = numbers[below(numbers.len() as u64) as usize];
                    let leases = Place { table: Table::Leases, campaign: 0, number };
                    let tasks = Place { table: Table::Tasks, campaign: 1 + below(2), number };
                    let page = if kind < 9 { leases } else { tasks };
                    dirty.mark(page, step / 4);
                    model.entry(page).or_insert(step / 4);
                }
            }
            let (said, exact) = (dirty.clone().oldest(), model.values().min().copied());
            assert!(said <= exact && said.is_some() == exact.is_some(), "{said:?} is not {exact:?}, or earlier");
            assert!(dirty.bits.values().all(|bits| bits.iter().any(|byte| *byte != 0)), "nothing is kept");
        }
    }

    #[test]
    fn a_stretch_of_any_length_is_forgotten_and_nothing_else() {
        let page = |campaign, number| Place { table: Table::Tasks, campaign, number };
        let last = u32::MAX / rows_per_page(Table::Tasks);
        for (first, tasks, kept) in [
            // Within a row of bits; to its end; beyond it; almost all that there can be.
            (CLEAR_TASKS_UNIT, CLEAR_TASKS_UNIT, vec![0, 511, 1_024, 2_047, 2_048, 2_559, 2_560, last]),
            (CLEAR_TASKS_UNIT, 3 * CLEAR_TASKS_UNIT, vec![0, 511, 2_048, 2_559, 2_560, last]),
            (CLEAR_TASKS_UNIT, 4 * CLEAR_TASKS_UNIT, vec![0, 511, 2_560, last]),
            (CLEAR_TASKS_UNIT, 1 << 30, vec![0, 511, last]),
            (0, u32::MAX - (CLEAR_TASKS_UNIT - 1), vec![last]),
        ] {
            let mut dirty = DirtyPages::default();
            let others = (0..2_000).map(|number| page(2, number));
            let pages = [0, 511, 512, 1_023, 1_024, 2_047, 2_048, 2_559, 2_560, last].map(|number| page(1, number));
            for (record, page) in (1..).zip(pages.into_iter().chain(others.clone())) {
                dirty.mark(page, record);
            }
            dirty.forget(&pages_of_tasks(CampaignId(1), TaskIndex(first), tasks));
            let left: Vec<Place> = std::iter::from_fn(|| dirty.take_oldest()).collect();
            let expected: Vec<Place> = kept.into_iter().map(|number| page(1, number)).chain(others).collect();
            assert_eq!(left, expected, "{tasks} tasks from {first} on");
        }
    }
}
