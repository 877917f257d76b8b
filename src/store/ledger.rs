//! Turns the changes of one group commit into what is stored: as a rule journal records alone; now and then, as a checkpoint, also
//! pages, texts, and the books over them.
//!
//! ```text
//!   what changed ──▶ each row as it stands ──▶ journal records 17, 18 ──▶ Store::append ──▶ Ok ──▶ number into `acked`
//!   ╰───────────────── Ledger::begin ─────────────────╯   ╰──────────────── Writing::write ──────────────╯   Ledger::end
//!
//!   a checkpoint:                          journal records 17, 18 ──┐
//!   rows    ──▶ pages that were dirty for longest ──────────────────┤
//!   texts   ──▶ blocks of keys ─────────────────────────────────────┼──▶ one batch ──▶ Store::commit ──▶ Ok ──▶ `acked`
//!   books   ──▶ journal records that nobody needs are removed,      │
//!               map of stored pages, meta (last in the batch) ──────┘
//! ```
//!
//! Every record of a commit names its last one, so a commit that was cut short is told from a whole one, and the journal alone makes a
//! commit atomic. The disk stays as small as the state: for every byte of journal one byte of pages is owed, and paid at the next
//! checkpoint ([`Pace`]). So a page waits for at most as many journal bytes as there are bytes in pages before it, and a pace
//! more, and the journal is trimmed below the oldest change that no stored page contains. A page is built from the live rows, so it
//! contains its own commit's changes.
//!
//! What is written is made of bytes alone, and the store goes along with it ([`Writing`]): so a commit may be written by another thread, while
//! the state goes on to change. Who has the store writes, and there is one.
//!
//! **Invariants.** Journal records are numbered without gaps, every commit has at least one. The next commit is made only when the one before
//! has come back, durable. A record is removed only when every
//! row it changed is contained in a stored page or gone. Pages are only ever written together with meta, in one batch. Removals in one
//! commit are bounded. After the first failure every commit
//! fails. Deliberately absent: clocks, background work, reading rows back.
//! Tested in `store/tests/histories.rs` (random histories with faults at every commit) and `tests/store_disk.rs`.
//! The scheme follows the "journal plus pages" of classic databases with fuzzy checkpoints.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::acked::AckedFile;
use super::codec::{self, DiskMeta, PAYLOAD_BYTES_MAX};
use super::convert::{encode_change, encode_row};
use super::directory::DirectoryLock;
use super::keys::{self, Kind, Place};
use super::kv::{Batch, CommitError, CommitFailure, Reader, Record, Store};
use super::pages::{DirtyPages, PageMap, page_of, pages_of_tasks, rows_of, rows_of_tasks};
use super::texts::{self, TextRange};
use crate::coordinator::command::TextChange;
use crate::coordinator::{Change, Changed, Coordinator, Row, RowKey};
use crate::types::{CampaignId, InstanceId, TaskIndex};

/// Where the ledger looks up the rows that it is about to write: the live state after the commit's changes.
pub trait Rows {
    /// The row as it stands; `None` if there is none.
    fn row(&self, key: RowKey) -> Option<Row>;
}

impl Rows for Coordinator {
    fn row(&self, key: RowKey) -> Option<Row> {
        Coordinator::row(self, key)
    }
}

/// When pages are written. In between a commit is the journal alone, which costs one sync; and a page that changes with every
/// commit is written once for many of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// As soon as so many bytes of pages are owed. The journal is longer than the pages by so much, and one checkpoint writes about as
    /// much in one commit.
    pub bytes: usize,
    /// As soon as so many journal records were written, however short: they are removed one by one.
    pub records: u64,
    /// A journal record that has a change takes no further one that would make its payload longer than this. At most what fits into a
    /// record.
    pub record_bytes: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { bytes: 256 * 1_024, records: 1_024, record_bytes: PAYLOAD_BYTES_MAX }
    }
}

impl Pace {
    /// Pages with every commit: for tests that look at pages after a few commits.
    pub const EVERY_COMMIT: Self = Self { bytes: 0, records: 0, record_bytes: PAYLOAD_BYTES_MAX };
}

/// Journal records that one checkpoint removes at most, beyond twice those it writes and twice the pace: a backlog shrinks steadily
/// without a commit that takes long.
const TRIM_RECORDS_MAX: u64 = 64;

/// Blocks of texts that one commit removes at most; the rest falls with the next ones.
const CLEAR_BLOCKS_MAX: usize = 1_024;

/// What one more operation costs beside its bytes, counted against the budget of pages; it bounds the operations of a batch.
const OPERATION_BYTES: usize = 32;

/// The durable state of one data directory. The pipeline owns it; the directory stays locked until it is dropped.
pub struct Ledger {
    /// Away while a commit is written.
    desk: Option<Desk>,
    reader: Arc<dyn Reader>,
    books: Books,
    pace: Pace,
    failed: bool,
    /// Released last.
    _lock: Option<DirectoryLock>,
}

/// What it takes to write.
struct Desk {
    store: Box<dyn Store>,
    acked: Option<AckedFile>,
}

/// A commit that is to be written, and what it takes to do so. If it is dropped instead, the ledger has failed.
#[must_use = "nothing is durable yet"]
pub struct Writing {
    desk: Desk,
    content: Content,
    instance: InstanceId,
    /// Number of its last journal record.
    sequence: u64,
}

/// What a commit consists of.
enum Content {
    Journal(Vec<Record>),
    Checkpoint(Batch),
}

/// What came of it: for [`Ledger::end`].
#[must_use = "the ledger is to know of it"]
pub struct Written {
    desk: Desk,
    result: Result<(), CommitError>,
}

impl Writing {
    /// Writes and syncs; durable when it returns. Blocks for as long as the disk takes.
    pub fn write(mut self) -> Written {
        let written = match &self.content {
            Content::Journal(records) => self.desk.store.append(records),
            Content::Checkpoint(batch) => self.desk.store.commit(batch),
        };
        let result = written.and_then(|()| self.desk.note_acked(self.instance, self.sequence));
        Written { desk: self.desk, result }
    }
}

impl Desk {
    fn note_acked(&self, instance: InstanceId, sequence: u64) -> Result<(), CommitError> {
        if let Some(acked) = &self.acked {
            // The commit is durable; but a failed write is a failed write, and the process is to end.
            let written = acked.write(instance, sequence);
            written.map_err(|error| CommitError::Unknown { cause: CommitFailure::Acked(error.to_string()) })?;
        }
        Ok(())
    }
}

/// What the ledger knows of what is stored.
#[derive(Clone, Debug, Default)]
pub(super) struct Books {
    /// Number of the last journal record.
    pub(super) sequence: u64,
    /// Number of the first journal record that is kept.
    pub(super) floor: u64,
    /// Whose records these are.
    pub(super) instance: InstanceId,
    /// How often they were opened.
    pub(super) starts: u64,
    /// Which pages are stored.
    pub(super) map: PageMap,
    /// Which pages are owed.
    pub(super) dirty: DirtyPages,
    /// Texts that are still to be removed.
    pub(super) clearing: VecDeque<TextRange>,
    /// Bytes of pages that are still to be written for the journal so far; below zero when pages are ahead.
    pub(super) owed_bytes: isize,
    /// Number of the last journal record when pages were last written.
    pub(super) checkpoint: u64,
    /// Journal records of a commit that was cut short, to be removed.
    pub(super) torn: Range<u64>,
}

impl Ledger {
    /// Takes over what recovery found, with a first commit that counts the start (and proves that the store syncs).
    pub(super) fn take_over(
        store: Box<dyn Store>,
        books: Books,
        acked: Option<AckedFile>,
        lock: Option<DirectoryLock>,
    ) -> Result<Self, CommitError> {
        let reader = store.reader();
        let mut ledger = Self { desk: None, reader, books, pace: Pace::default(), failed: true, _lock: lock };
        ledger.books.starts += 1;
        let mut batch = Batch::default();
        for number in std::mem::take(&mut ledger.books.torn) {
            batch.remove(keys::journal(number));
        }
        ledger.close_books(&mut batch).map_err(not_applied)?;
        ledger.end(ledger.write_of(Desk { store, acked }, Content::Checkpoint(batch)).write())?;
        Ok(ledger)
    }

    /// Makes what has changed and `texts` durable, all or nothing; durable when it returns `Ok`. `rows` is the live state, in
    /// which the changed rows have the values that are written. Costs one or two syncs, however much is in it.
    ///
    /// # Errors
    /// Nothing of the commit may be acknowledged, now or later: end the process. Every further call fails too.
    pub fn commit(&mut self, changed: &[Changed], texts: &[TextChange], rows: &impl Rows) -> Result<(), CommitError> {
        let writing = self.begin(changed, texts, rows)?;
        self.end(writing.write())
    }

    /// The first half of a [`Ledger::commit`]: takes the values of the changed rows, which may change again from now on. Nothing is durable
    /// before it was written and has come back to [`Ledger::end`]; until then there is no other.
    ///
    /// # Errors
    /// As for [`Ledger::commit`]; also while another is away.
    pub fn begin(
        &mut self,
        changed: &[Changed],
        texts: &[TextChange],
        rows: &impl Rows,
    ) -> Result<Writing, CommitError> {
        if self.failed {
            return Err(earlier());
        }
        // Until the commit is through, the books are ahead of the disk: a failure anywhere makes them worthless.
        self.failed = true;
        let kept = self.books.sequence;
        let Sorted { cleared, keys } = sort(changed);
        let mut batch = Batch::default();
        self.drop_pages(&cleared, &mut batch);
        let records = self.journal(&cleared, &keys, rows).map_err(not_applied)?;
        let content = if texts.is_empty() && cleared.is_empty() && self.may_append() {
            Content::Journal(records)
        } else {
            self.fill(&mut batch, kept, records, texts, rows).map_err(not_applied)?;
            Content::Checkpoint(batch)
        };
        let desk = self.desk.take().ok_or_else(earlier)?;
        Ok(self.write_of(desk, content))
    }

    /// The second half: takes note of what came of it.
    ///
    /// # Errors
    /// As for [`Ledger::commit`].
    pub fn end(&mut self, written: Written) -> Result<(), CommitError> {
        // Even a store that has failed is kept: closing it would write once more.
        self.desk = Some(written.desk);
        written.result?;
        self.failed = false;
        Ok(())
    }

    fn write_of(&self, desk: Desk, content: Content) -> Writing {
        Writing { desk, content, instance: self.books.instance, sequence: self.books.sequence }
    }

    /// Whether the journal alone makes a commit in which nothing but rows has changed: little is owed.
    fn may_append(&self) -> bool {
        self.books.clearing.is_empty()
            && self.books.owed_bytes < isize::try_from(self.pace.bytes).unwrap_or(isize::MAX)
            && self.books.sequence - self.books.checkpoint < self.pace.records
    }

    /// Writes pages at another pace from now on.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// Number of the last durable journal record; rises with every commit.
    pub fn sequence(&self) -> u64 {
        self.books.sequence
    }

    /// How many journal records are kept: what a restart would replay.
    pub fn journal_records(&self) -> u64 {
        self.books.sequence + 1 - self.books.floor
    }

    /// How many pages are stored.
    pub fn pages(&self) -> u64 {
        self.books.map.pages()
    }

    /// Lets a test put a broken file in place of the one beside the database.
    #[cfg(test)]
    pub(super) fn replace_acked(&mut self, acked: AckedFile) {
        if let Some(desk) = &mut self.desk {
            desk.acked = Some(acked);
        }
    }

    /// A commit that also writes pages, trims the journal, and stores or removes texts.
    fn fill(
        &mut self,
        batch: &mut Batch,
        kept: u64,
        records: Vec<Record>,
        texts: &[TextChange],
        rows: &impl Rows,
    ) -> Result<(), CommitFailure> {
        for (key, value) in records {
            batch.put(key, value)?;
        }
        self.write_pages(rows, batch)?;
        self.trim(kept, batch);
        self.books.checkpoint = self.books.sequence;
        self.clear_texts(batch)?;
        for change in texts {
            match change {
                TextChange::Put { campaign, first, keys } => {
                    texts::put(*campaign, *first, keys, self.books.sequence, batch)?;
                }
                TextChange::Clear { campaign, first, tasks } => {
                    let range = TextRange::of(*campaign, *first, *tasks);
                    // Clears come in slices one after the other; together they are one stretch.
                    let joined = self.books.clearing.back_mut().is_some_and(|last| last.absorb(range));
                    if !joined {
                        self.books.clearing.push_back(range);
                    }
                }
            }
        }
        self.close_books(batch)
    }

    /// Removes the stored pages of cleared tasks.
    fn drop_pages(&mut self, cleared: &[Cleared], batch: &mut Batch) {
        for Cleared { campaign, first, tasks } in cleared {
            let pages = pages_of_tasks(*campaign, *first, *tasks);
            self.books.dirty.forget(&pages);
            for page in self.books.map.within(&pages) {
                self.books.map.remove(page);
                batch.remove(keys::page(page));
            }
        }
    }

    /// Packs what changed into journal records, clears first, and marks the pages it touches. At least one record, so that every commit
    /// has a number of its own, and one that is lost is missed.
    fn journal(
        &mut self,
        cleared: &[Cleared],
        keys: &[RowKey],
        rows: &impl Rows,
    ) -> Result<Vec<Record>, CommitFailure> {
        let mut packing =
            Packing { payloads: vec![Vec::with_capacity(PAYLOAD_BYTES_MAX)], most: self.pace.record_bytes };
        let mut item = Vec::new();
        for Cleared { campaign, first, tasks } in cleared {
            item.clear();
            encode_change(&Change::ClearTasks { campaign: *campaign, first: *first, tasks: *tasks }, &mut item);
            packing.add(&item);
        }
        for key in keys {
            item.clear();
            match rows.row(*key) {
                Some(row) => encode_row(&row, &mut item),
                None if cleared.iter().any(|cleared| cleared.has(*key)) => continue,
                None => encode_change(&Change::Remove(*key), &mut item),
            }
            let record = self.books.sequence + packing.add(&item);
            self.books.dirty.mark(page_of(*key), record);
        }
        let payloads = packing.payloads;
        let (first, last) = (self.books.sequence + 1, self.books.sequence + payloads.len() as u64);
        let mut records = Vec::with_capacity(payloads.len());
        for (number, payload) in (first..).zip(payloads) {
            let key = keys::journal(number);
            if payload.len() > PAYLOAD_BYTES_MAX {
                let bytes = codec::ENVELOPE_BYTES + payload.len();
                return Err(CommitFailure::TooLarge { kind: Kind::name(&key), bytes });
            }
            // Each names the last of its commit: so a commit that was cut short is told from a whole one.
            let value = codec::seal(&key, last, &payload);
            self.books.owed_bytes = self.books.owed_bytes.saturating_add_unsigned(key.len() + value.len());
            records.push((key, value));
        }
        self.books.sequence = last;
        Ok(records)
    }

    /// Writes pages for what was journaled, longest-dirty first: what is owed, or twice the pace or the commit if that is less, so
    /// that no commit takes long. The rest is owed to the next.
    fn write_pages(&mut self, rows: &impl Rows, batch: &mut Batch) -> Result<(), CommitFailure> {
        let journal: usize = batch.operations().iter().map(|(_, value)| value.as_ref().map_or(0, Vec::len)).sum();
        let most = self.pace.bytes.max(journal).saturating_mul(2);
        let enough = self.books.owed_bytes.saturating_sub_unsigned(most).max(0);
        while self.books.owed_bytes > enough {
            let Some(page) = self.books.dirty.take_oldest() else {
                // Nothing is owed when every page is as it stands in the journal.
                self.books.owed_bytes = 0;
                return Ok(());
            };
            let bytes = self.write_page(page, rows, batch)?;
            self.books.owed_bytes = self.books.owed_bytes.saturating_sub_unsigned(bytes + OPERATION_BYTES);
        }
        Ok(())
    }

    fn write_page(&mut self, page: Place, rows: &impl Rows, batch: &mut Batch) -> Result<usize, CommitFailure> {
        let mut payload = Vec::new();
        for row in rows_of(page).filter_map(|key| rows.row(key)) {
            encode_row(&row, &mut payload);
        }
        let key = keys::page(page);
        let bytes = key.len() + payload.len();
        if payload.is_empty() {
            if self.books.map.remove(page) {
                batch.remove(key);
            }
            return Ok(bytes);
        }
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(CommitFailure::TooLarge { kind: Kind::name(&key), bytes: payload.len() });
        }
        let value = codec::seal(&key, self.books.sequence, &payload);
        self.books.map.insert(page, codec::stored_checksum(&value));
        batch.put(key, value)?;
        Ok(bytes)
    }

    /// Removes journal records whose every change is in a stored page; `kept` is the last record of the commit before, since a
    /// record is never removed by the batch that writes it.
    fn trim(&mut self, kept: u64, batch: &mut Batch) {
        let written = self.books.sequence - kept;
        let needed = self.books.dirty.oldest().unwrap_or(self.books.sequence + 1);
        let reach = self.books.floor.saturating_add(TRIM_RECORDS_MAX + 2 * (written + self.pace.records));
        let floor = needed.min(kept + 1).min(reach);
        for number in self.books.floor..floor {
            batch.remove(keys::journal(number));
        }
        self.books.floor = self.books.floor.max(floor);
    }

    /// Removes texts that earlier commits were told to clear. The texts this commit is told to clear may have been put by
    /// itself, and are not in the store yet: they wait for the next.
    fn clear_texts(&mut self, batch: &mut Batch) -> Result<(), CommitFailure> {
        let mut left = CLEAR_BLOCKS_MAX;
        while let Some(range) = self.books.clearing.front_mut() {
            let found = range.first_blocks(&*self.reader, left);
            let found = found.map_err(|error| CommitFailure::Store(error.to_string()))?;
            left -= found.len();
            for key in found {
                batch.remove(key);
            }
            if left == 0 {
                return Ok(());
            }
            self.books.clearing.pop_front();
        }
        Ok(())
    }

    /// Writes what changed in the map, and the meta record, last: a batch that was torn in spite of all promises is noticed.
    fn close_books(&mut self, batch: &mut Batch) -> Result<(), CommitFailure> {
        let sequence = self.books.sequence;
        for (row, bits) in self.books.map.take_touched() {
            let key = keys::map(row);
            match bits {
                Some(bits) => {
                    let value = codec::seal(&key, sequence, &bits);
                    batch.put(key, value)?;
                }
                None => batch.remove(key),
            }
        }
        let (key, value) = meta_record(&self.books);
        batch.put(key, value)
    }
}

fn earlier() -> CommitError {
    not_applied(CommitFailure::Earlier)
}

fn not_applied(cause: CommitFailure) -> CommitError {
    CommitError::NotApplied { cause }
}

/// The meta record of the books as they stand.
pub(super) fn meta_record(books: &Books) -> (Vec<u8>, Vec<u8>) {
    let meta = DiskMeta {
        sequence: books.sequence,
        floor: books.floor,
        instance: books.instance.0,
        pages: books.map.pages(),
        maps: books.map.len(),
        starts: books.starts,
        checksums: books.map.checksums(),
    };
    let mut payload = Vec::new();
    codec::encode(&meta, &mut payload);
    let key = keys::meta();
    let value = codec::seal(&key, books.sequence, &payload);
    (key, value)
}

/// A stretch of tasks whose rows are gone.
struct Cleared {
    campaign: CampaignId,
    first: TaskIndex,
    tasks: u32,
}

impl Cleared {
    /// Whether it is the row of one of these tasks.
    fn has(&self, key: RowKey) -> bool {
        rows_of_tasks(self.campaign, self.first, self.tasks).contains(&key)
    }
}

/// What is to be written: clears in the order in which they came, then rows, each once, in order of the keys.
struct Sorted {
    cleared: Vec<Cleared>,
    keys: Vec<RowKey>,
}

fn sort(changed: &[Changed]) -> Sorted {
    let mut cleared = Vec::new();
    let mut tables: [Vec<u64>; RowKey::TABLES] = Default::default();
    for changed in changed {
        match *changed {
            Changed::Row(key) => {
                let (table, number) = key.packed();
                tables[table].push(number);
            }
            Changed::ClearTasks { campaign, first, tasks } => cleared.push(Cleared { campaign, first, tasks }),
        }
    }
    let mut keys = Vec::with_capacity(changed.len());
    for (table, mut numbers) in tables.into_iter().enumerate() {
        numbers.sort_unstable();
        numbers.dedup();
        keys.extend(numbers.into_iter().map(|number| RowKey::unpacked(table, number)));
    }
    Sorted { cleared, keys }
}

/// Changes of one commit on their way into payloads of journal records.
struct Packing {
    payloads: Vec<Vec<u8>>,
    /// No change is added to a payload that would make it longer than this, unless it is empty.
    most: usize,
}

impl Packing {
    /// Adds an encoded change; returns in which payload it is, from 1.
    fn add(&mut self, item: &[u8]) -> u64 {
        let filled = self.payloads.last().map_or(0, Vec::len);
        if filled > 0 && filled + item.len() > self.most {
            self.payloads.push(Vec::with_capacity(PAYLOAD_BYTES_MAX));
        }
        if let Some(payload) = self.payloads.last_mut() {
            payload.extend_from_slice(item);
        }
        self.payloads.len() as u64
    }
}
