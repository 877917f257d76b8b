//! Reads everything back: meta, map, pages, journal, in this order, and hands over every change on the way; the last word on a row counts.
//!
//! ```text
//!   meta ──▶ which journal records there must be at least, and how many pages
//!   map  ──▶ which pages there must be
//!   pages, table by table ──▶ rows, as they stood when each page was written
//!   journal, in order ──▶ the changes of whole commits, pages that are owed
//! ```
//!
//! A page may be younger than the journal's first records, which then say again what it contains: changes are absolute, so that does no
//! harm. The journal may go on behind what meta names; there the last commit may have been cut short, and then counts for nothing.
//!
//! **Invariants.** What is there is exactly what must be there: a record that is missing, left over, changed, or that says
//! something a page or journal record cannot say, is [`Damage`] with its name; never a lower count. Texts are not read here (a
//! missing one is noticed by its reader and by `verify`). Nothing is kept in memory but what the taker of the changes keeps, and the names of
//! pages that are owed. Tested in `store/tests/histories.rs` and `store/tests/damage.rs`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::acked::Acked;
use super::codec::{self, Damage, DiskMeta, Sealed, hex};
use super::convert::{visit_changes, visit_rows};
use super::keys::{self, Kind, TABLES, Table};
use super::kv::{ReadError, Reader};
use super::ledger::Books;
use super::pages::{page_of, pages_of_tasks};
use super::texts::{TextRange, campaigns_with_texts};
use crate::coordinator::rows::{CampaignRow, Change, Row, RowKey};
use crate::coordinator::{Inconsistent, Restorer};
use crate::types::{CampaignId, InstanceId};

/// No directory counts this many commits or starts; so what is counted here has a successor.
const NUMBERS_MAX: u64 = 1 << 63;

/// Takes what is recovered.
pub(super) trait Sink {
    /// One change. First every stored row is put, in ascending order of the keys, then comes what the journal says: the last word on a row counts.
    fn change(&mut self, change: Change) -> Result<(), Damage>;
}

impl Sink for Restorer {
    fn change(&mut self, change: Change) -> Result<(), Damage> {
        self.apply(change).map_err(damage_of)
    }
}

/// A contradiction between rows is damage like any other.
pub(super) fn damage_of(inconsistent: Inconsistent) -> Damage {
    Damage(format!("the stored rows contradict each other: {}", inconsistent.0))
}

/// Why nothing could be recovered.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecoverError {
    /// What is stored is not what was written.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The store failed.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What recovery found beside the rows.
#[derive(Debug)]
pub(super) struct Recovered {
    /// For the ledger to go on with.
    pub(super) books: Books,
    /// All campaigns.
    pub(super) campaigns: BTreeMap<CampaignId, CampaignRow>,
    /// Journal records that were replayed.
    pub(super) journal_records: u64,
    /// Bytes of those, keys included.
    pub(super) journal_bytes: u64,
    /// Pages that were read.
    pub(super) pages: u64,
    /// Bytes of those, keys included.
    pub(super) page_bytes: u64,
    /// Anything unusual, as sentences.
    pub(super) notes: Vec<String>,
}

/// Reads all rows back.
pub(super) fn recover(reader: &dyn Reader, sink: &mut impl Sink) -> Result<Recovered, RecoverError> {
    check_kinds(reader)?;
    let meta = read_meta(reader)?;
    let mut books = Books {
        sequence: meta.sequence,
        checkpoint: meta.sequence,
        floor: meta.floor,
        instance: InstanceId(meta.instance),
        starts: meta.starts,
        ..Books::default()
    };
    read_map(reader, &meta, &mut books)?;
    let mut recovered = Recovered {
        books,
        campaigns: BTreeMap::new(),
        journal_records: 0,
        journal_bytes: 0,
        pages: 0,
        page_bytes: 0,
        notes: Vec::new(),
    };
    for table in TABLES {
        read_pages(reader, table, sink, &mut recovered)?;
    }
    let (found, expected) = (recovered.pages, recovered.books.map.pages());
    if found != expected {
        return Err(Damage(format!("{found} pages are stored, but the map names {expected}")).into());
    }
    if recovered.books.map.checksums() != meta.checksums {
        let what = "the checksums of all pages do not add up: a page was replaced by an older version of itself";
        return Err(Damage(what.into()).into());
    }
    read_journal(reader, sink, &mut recovered)?;
    // Which pages contain which of these changes is not known: all is owed, or a server that is restarted often would never pay.
    recovered.books.owed_bytes = isize::try_from(recovered.journal_bytes).unwrap_or(isize::MAX);
    clear_orphans(reader, &mut recovered)?;
    Ok(recovered)
}

/// Whether the database knows everything that was acknowledged; `Err` if it has lost its end. A note if that cannot be told.
pub(super) fn check_acked(acked: &Acked, books: &Books) -> Result<Option<String>, Damage> {
    let known = books.sequence;
    match acked {
        Acked::Number { instance, sequence } if *instance == books.instance => {
            if *sequence > known {
                return Err(Damage(format!(
                    "the journal ends at number {known}, but {sequence} was acknowledged: the end of the database is lost"
                )));
            }
            Ok(None)
        }
        Acked::Number { instance, .. } => {
            Ok(Some(format!("the file `acked` belongs to another instance ({instance}) and was not used")))
        }
        Acked::Torn => Ok(Some("the file `acked` is torn and was not used: was the power cut?".into())),
        Acked::Absent if known > 0 => {
            Ok(Some("the file `acked` is missing: whether the end of the journal is complete was not checked".into()))
        }
        Acked::Absent => Ok(None),
    }
}

fn check_kinds(reader: &dyn Reader) -> Result<(), RecoverError> {
    let mut strange = None;
    let mut visit = |key: &[u8], _: &[u8]| {
        strange = Some(hex(key));
        ControlFlow::Break(())
    };
    reader.scan(&[], &[Kind::Format as u8], &mut visit)?;
    // Nothing sorts above nine bytes of 0xff; keys of the last kind have exactly as many.
    reader.scan(&Kind::Text.bounds().1, &[0xff; 9], &mut visit)?;
    for key in [keys::format(), keys::meta()] {
        // These kinds have one key each: the kind byte alone.
        let mut next = key.clone();
        next.push(0);
        reader.scan(&next, &[key[0] + 1], &mut visit)?;
    }
    // Pages are read table by table: here are those of no table.
    let (pages, _) = Kind::Page.bounds();
    let tables = [TABLES[0] as u8, TABLES[TABLES.len() - 1] as u8 + 1];
    reader.scan(&pages, &[pages[0], tables[0]], &mut visit)?;
    reader.scan(&[pages[0], tables[1]], &Kind::Page.bounds().1, &mut visit)?;
    match strange {
        None => Ok(()),
        Some(key) => Err(Damage(format!("there is a record {key} that does not belong here")).into()),
    }
}

fn read_meta(reader: &dyn Reader) -> Result<DiskMeta, RecoverError> {
    let key = keys::meta();
    let value = reader.get(&key)?.ok_or_else(|| Damage("the meta record is missing".into()))?;
    let sealed = codec::unseal(&key, &value)?;
    let meta: DiskMeta = codec::decode(sealed.payload).map_err(|damage| in_record(&key, &damage))?;
    let beyond = meta.sequence.max(meta.starts) > NUMBERS_MAX;
    if beyond || meta.sequence != sealed.sequence || meta.floor == 0 || meta.floor > meta.sequence + 1 {
        return Err(Damage(format!("the meta record contradicts itself: {meta:?}")).into());
    }
    Ok(meta)
}

fn read_map(reader: &dyn Reader, meta: &DiskMeta, books: &mut Books) -> Result<(), RecoverError> {
    visit_kind(reader, Kind::Map, &[], |key, value| {
        let sealed = unseal_known(key, value, meta.sequence)?;
        let place = keys::parse_place(key).ok_or_else(|| strange_key(key))?;
        let restored = books.map.restore(place, sealed.payload);
        restored.ok_or_else(|| Damage(format!("the map record {} has no page or a wrong length", hex(key))))
    })?;
    let (rows, pages) = (books.map.len(), books.map.pages());
    if rows != meta.maps || pages != meta.pages {
        let expected = format!("{} rows with {} pages", meta.maps, meta.pages);
        return Err(Damage(format!("the map has {rows} rows with {pages} pages, but must have {expected}")).into());
    }
    Ok(())
}

fn read_journal(reader: &dyn Reader, sink: &mut impl Sink, recovered: &mut Recovered) -> Result<(), RecoverError> {
    let end = last_record(reader)?;
    let mut expected = recovered.books.floor;
    let named = recovered.books.sequence;
    let mut commit = Commit::default();
    visit_kind(reader, Kind::Journal, &[], |key, value| {
        let number = keys::parse_journal(key).ok_or_else(|| strange_key(key))?;
        if number < expected {
            return Err(Damage(format!("there is a journal record {number}, but the journal begins at {expected}")));
        }
        if number != expected {
            return Err(Damage(format!("the journal record {expected} is missing")));
        }
        let sealed = codec::unseal(key, value)?;
        let last = sealed.sequence;
        if last < number || commit.last.is_some_and(|of_commit| of_commit != last) {
            return Err(Damage(format!("the journal record {number} says that its commit ends at {last}")));
        }
        // The end of the last commit may be missing.
        let whole = last <= end;
        let take = |change| if whole { replay(change, number, sink, recovered) } else { Ok(()) };
        let replayed = visit_changes(sealed.payload, take);
        replayed.map_err(|damage| in_record(key, &damage))?;
        commit.last = Some(last);
        commit.records += 1;
        commit.bytes += (key.len() + value.len()) as u64;
        expected = number + 1;
        if number == last {
            let Commit { records, bytes, .. } = std::mem::take(&mut commit);
            recovered.journal_records += records;
            recovered.journal_bytes += bytes;
            recovered.books.sequence = recovered.books.sequence.max(number);
        }
        Ok(())
    })?;
    if expected <= named {
        return Err(Damage(format!("the journal records {expected} to {named} are missing")).into());
    }
    if commit.last.is_some() {
        let torn = expected - commit.records..expected;
        if torn.start <= named {
            return Err(Damage(format!("the journal record {expected} is missing")).into());
        }
        let (first, last) = (torn.start, expected - 1);
        recovered.notes.push(format!(
            "the last commit was cut short and never acknowledged: journal records {first} to {last} are dropped"
        ));
        recovered.books.torn = torn;
    }
    Ok(())
}

/// The number of the last journal record that is there, or less if there is none.
fn last_record(reader: &dyn Reader) -> Result<u64, RecoverError> {
    let last = reader.at_or_below(&keys::journal(u64::MAX))?;
    let number =
        last.filter(|(key, _)| Kind::of(key) == Some(Kind::Journal)).and_then(|(key, _)| keys::parse_journal(&key));
    Ok(number.unwrap_or(0))
}

/// The records of one commit, until the last of them was read.
#[derive(Default)]
struct Commit {
    /// The number of its last record, as all of them say.
    last: Option<u64>,
    records: u64,
    bytes: u64,
}

/// Every page that the journal names counts as owed from there on: some are written once more than necessary, none is forgotten.
fn replay(change: Change, number: u64, sink: &mut impl Sink, recovered: &mut Recovered) -> Result<(), Damage> {
    let dirty = &mut recovered.books.dirty;
    match &change {
        Change::Put(row) => dirty.mark(page_of(row.key()), number),
        Change::Remove(key) => dirty.mark(page_of(*key), number),
        // The same commit removed the stored pages.
        Change::ClearTasks { campaign, first, tasks } => dirty.forget(&pages_of_tasks(*campaign, *first, *tasks)),
    }
    hand_over(change, sink, recovered)
}

fn read_pages(
    reader: &dyn Reader,
    table: Table,
    sink: &mut impl Sink,
    recovered: &mut Recovered,
) -> Result<(), RecoverError> {
    visit_kind(reader, Kind::Page, &[table as u8], |key, value| {
        let page = keys::parse_place(key).ok_or_else(|| strange_key(key))?;
        if !recovered.books.map.contains(page) {
            return Err(Damage(format!("the page {} is stored, but not in the map", hex(key))));
        }
        let sealed = unseal_known(key, value, recovered.books.checkpoint)?;
        recovered.books.map.restore_checksum(page, codec::stored_checksum(value));
        let mut last = None;
        let read = visit_rows(sealed.payload, |row| {
            let row_key = row.key();
            if page_of(row_key) != page || last.is_some_and(|last| last >= row_key) {
                return Err(not_its_own());
            }
            last = Some(row_key);
            hand_over(Change::Put(row), sink, recovered)
        });
        read.and(last.map(drop).ok_or_else(not_its_own)).map_err(|damage| in_record(key, &damage))?;
        recovered.pages += 1;
        recovered.page_bytes += (key.len() + value.len()) as u64;
        Ok(())
    })
}

fn not_its_own() -> Damage {
    Damage("it holds rows that are not its own, not in order, or none".into())
}

fn hand_over(change: Change, sink: &mut impl Sink, recovered: &mut Recovered) -> Result<(), Damage> {
    match &change {
        Change::Put(Row::Campaign(id, campaign)) => {
            recovered.campaigns.insert(*id, (**campaign).clone());
        }
        Change::Remove(RowKey::Campaign(id)) => {
            recovered.campaigns.remove(id);
        }
        Change::Put(_) | Change::Remove(_) | Change::ClearTasks { .. } => {}
    }
    sink.change(change)
}

/// Texts outlive their campaign's row when the process ended before they were all removed; they fall with the next commits.
fn clear_orphans(reader: &dyn Reader, recovered: &mut Recovered) -> Result<(), RecoverError> {
    for campaign in campaigns_with_texts(reader)? {
        if !recovered.campaigns.contains_key(&campaign) {
            recovered.books.clearing.push_back(TextRange::all(campaign));
            recovered.notes.push(format!("keys of the removed campaign {} are still being cleared away", campaign.0));
        }
    }
    Ok(())
}

/// Shows every record of a kind whose key goes on with `prefix`, until one is damaged.
pub(super) fn visit_kind(
    reader: &dyn Reader,
    kind: Kind,
    prefix: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), Damage>,
) -> Result<(), RecoverError> {
    let from = [&[kind as u8], prefix].concat();
    let mut below = from.clone();
    // Kinds and tables are small numbers: the last byte can always be one more.
    if let Some(last) = below.last_mut() {
        *last = last.saturating_add(1);
    }
    let mut result = Ok(());
    reader.scan(&from, &below, &mut |key, value| {
        result = visit(key, value);
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(result?)
}

fn unseal_known<'a>(key: &[u8], value: &'a [u8], last: u64) -> Result<Sealed<'a>, Damage> {
    let sealed = codec::unseal(key, value)?;
    if sealed.sequence > last {
        let what = format!("belongs to number {}, but the journal ends at {last}", sealed.sequence);
        return Err(Damage(format!("the {} record {} {what}", Kind::name(key), hex(key))));
    }
    Ok(sealed)
}

fn in_record(key: &[u8], damage: &Damage) -> Damage {
    Damage(format!("the {} record {}: {damage}", Kind::name(key), hex(key)))
}

fn strange_key(key: &[u8]) -> Damage {
    Damage(format!("the {} record {} has no such key", Kind::name(key), hex(key)))
}
