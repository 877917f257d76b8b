//! Hands arbitrary bytes to everything that reads a disk here, for fuzz tests, which cannot reach it otherwise.
//!
//! ```text
//!   bytes ──▶ key | envelope | payload of one kind | READY | acked      each decoder alone
//!   bytes ──▶ records with intact checksums ──▶ open ──▶ coordinator    recovery as a whole
//! ```
//!
//! **Invariants.** Every function panics if what it looks at breaks a promise, and returns otherwise: what is read is written the
//! same again, or was written longer than need be; what opens, opens again to the same rows. Deliberately absent: a way to change a real
//! directory. Not part of the library's interface. The fuzz tests are `tests/fuzz` and `fuzz/`.

use std::fmt::Debug;

use bincode::Decode;

use super::codec::{self, Damage, DiskFormat, DiskMeta};
use super::keys::{self, Kind, Place};
use super::memory::{MemoryStore, Records};
use super::pages::PageMap;
use super::{Opened, acked, convert, directory, open_in_memory};
use crate::coordinator::rows::{Change, LeaseRow, Row, RowKey};
use crate::coordinator::{Command, Options};
use crate::types::{CampaignId, InstanceId, TaskIndex, Tick};

/// Everything that is opened here belongs to it.
const INSTANCE: InstanceId = InstanceId([0x11; 16]);

/// Tasks beyond this are not opened: a campaign of a thousand million tasks takes its time rightly.
const TASKS_MAX: u32 = 1 << 16;

/// A key, as each kind reads it.
pub fn key(bytes: &[u8]) {
    if let Some(place) = keys::parse_place(bytes) {
        let written = if bytes[0] == Kind::Map as u8 { keys::map(place) } else { keys::page(place) };
        assert_eq!(written[1..], bytes[1..], "a place");
    }
    if let Some(number) = keys::parse_journal(bytes) {
        assert_eq!(keys::journal(number)[1..], bytes[1..], "the key of a journal record");
    }
    if let Some((campaign, first)) = keys::parse_text(bytes) {
        assert_eq!(keys::text(campaign, first)[1..], bytes[1..], "the key of a text");
    }
    assert_eq!(Kind::of(bytes).is_none(), Kind::name(bytes) == "unknown");
}

/// A value under a key, checksum and all; and the same payload in an envelope that is intact.
pub fn envelope(key: &[u8], value: &[u8]) {
    // As they are, and with the checksum that such bytes would have, so that it is not all that keeps them out.
    let mut matching = value.to_vec();
    if let (Some(header), Some(payload)) = (value.get(..12), value.get(codec::ENVELOPE_BYTES..)) {
        matching[12..16].copy_from_slice(&codec::checksum(key, header, payload).to_le_bytes());
    }
    for value in [value, &matching] {
        if let Ok(sealed) = codec::unseal(key, value) {
            assert_eq!(codec::seal(key, sealed.sequence, sealed.payload), value, "what is read is written the same");
        }
    }
    if let Some(payload) = value.get(..value.len().min(codec::PAYLOAD_BYTES_MAX)) {
        let whole = codec::seal(key, 7, payload);
        let read = codec::unseal(key, &whole).ok().filter(|sealed| (sealed.sequence, sealed.payload) == (7, payload));
        // A value without a key belongs to no kind, and no kind is 0.
        assert_eq!(read.is_some(), !key.is_empty(), "what is written is read the same");
    }
}

/// The payload of a record of the kind whose number comes first.
pub fn payload(bytes: &[u8]) {
    let Some((_, payload)) = bytes.split_first() else { return };
    match Kind::of(bytes) {
        Some(Kind::Format) => there_and_back(payload, one::<DiskFormat>, codec::encode),
        Some(Kind::Meta) => there_and_back(payload, one::<DiskMeta>, codec::encode),
        Some(Kind::Map) => {
            let place = Place { table: keys::TABLES[0], campaign: 0, number: 0 };
            let _ = PageMap::default().restore(place, payload);
        }
        Some(Kind::Page) => there_and_back(payload, convert::decode_rows, convert::encode_row),
        Some(Kind::Journal) => there_and_back(payload, convert::decode_changes, convert::encode_change),
        Some(Kind::Text) => there_and_back(payload, codec::decode_all::<String>, codec::encode),
        None => {}
    }
}

fn one<Item: Decode<()>>(payload: &[u8]) -> Result<Vec<Item>, Damage> {
    codec::decode(payload).map(|item| vec![item])
}

/// What is decoded, encoded and decoded again is the same.
fn there_and_back<Item: PartialEq + Debug>(
    payload: &[u8],
    decode: impl Fn(&[u8]) -> Result<Vec<Item>, Damage>,
    encode: impl Fn(&Item, &mut Vec<u8>),
) {
    let Ok(items) = decode(payload) else { return };
    let mut written = Vec::new();
    for item in &items {
        encode(item, &mut written);
    }
    // A number may be spelled longer than need be, which only foreign bytes do.
    assert!(written.len() < payload.len() || written == payload, "{written:02x?} was read from {payload:02x?}");
    assert_eq!(decode(&written), Ok(items));
}

/// The file READY.
pub fn ready(bytes: &[u8]) {
    if let Some(ready) = directory::parse_ready(bytes) {
        assert_eq!(directory::compose_ready(ready).as_bytes(), bytes);
    }
}

/// The file `acked`.
pub fn acked(bytes: &[u8]) {
    if let acked::Acked::Number { instance, sequence } = acked::parse(bytes) {
        assert_eq!(acked::compose(instance, sequence), bytes);
    }
}

/// Opens a database whose records say what `bytes` say, with checksums as they should be, and lets its coordinator go
/// on: all leases expire, all sessions are forgotten, all sweeps end.
///
/// The bytes are pieces: what it is (see `Piece`), two bytes of length, and so many bytes. The books of what is
/// there (meta and the map) are kept for them, so that they are worth looking at; a raw record can contradict them.
pub fn directory(bytes: &[u8]) {
    let Some(records) = records(bytes) else { return };
    let store = MemoryStore::with(records);
    let Ok(opened) = reopen(&store) else { return };
    let rows = opened.coordinator.durable_view();
    let Ok(again) = reopen(&store) else { panic!("what opened once does not open again") };
    assert_eq!(again.coordinator.durable_view(), rows, "the second time it is something else");
    go_on(again, &store);
}

fn reopen(store: &MemoryStore) -> Result<Opened, super::OpenError> {
    open_in_memory(store, INSTANCE, Options::default(), Tick(0))
}

/// Advances until nothing is due for a while, with a commit for every step, and opens what is then stored.
fn go_on(opened: Opened, store: &MemoryStore) {
    const STEPS_MAX: usize = 40;
    let Opened { mut ledger, mut coordinator, texts, .. } = opened;
    let _ = texts.keys(CampaignId(1), TaskIndex(0), 1_000);
    let mut now = Tick(0);
    let mut command = Command::Boot;
    for _ in 0..STEPS_MAX {
        let step = coordinator.apply(now, command);
        let done = coordinator.check();
        assert!(done.is_ok(), "an intact state became {done:?}");
        let committed = ledger.commit(&step.changes, &step.texts, &coordinator);
        assert!(committed.is_ok(), "a store that is intact takes every commit: {committed:?}");
        let Some(due) = coordinator.next_deadline() else { break };
        (now, command) = (due.max(now), Command::Advance);
    }
    let Ok(again) = reopen(store) else { panic!("what was committed does not open") };
    assert_eq!(again.coordinator.durable_view(), coordinator.durable_view(), "the store missed something");
}

/// What a piece of the bytes becomes.
enum Piece {
    /// The next journal record, with this payload.
    Journal,
    /// A page: table, campaign, number (a byte each), payload.
    Page,
    /// A text block: campaign, first index (a byte each), payload.
    Text,
    /// Any record at all, after everything else: bytes of the key, sequence (a byte each), key, payload.
    Raw,
}

fn records(mut bytes: &[u8]) -> Option<Records> {
    let mut found: Vec<(Piece, &[u8])> = Vec::new();
    while let Some((kind, low, high, rest)) = split_head(bytes) {
        let length = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
        let (body, rest) = rest.split_at(length);
        let piece = match kind % 4 {
            0 => Piece::Journal,
            1 => Piece::Page,
            2 => Piece::Text,
            _ => Piece::Raw,
        };
        found.push((piece, body));
        bytes = rest;
    }
    let last = found.iter().filter(|(piece, _)| matches!(piece, Piece::Journal)).count() as u64;
    let mut records = Records::new();
    let mut map = PageMap::default();
    let mut number = 0;
    for (piece, body) in &found {
        match (piece, body) {
            (Piece::Journal, payload) => {
                number += 1;
                put(&mut records, keys::journal(number), number, payload)?;
            }
            (Piece::Page, [table, campaign, page, payload @ ..]) => {
                let table = *keys::TABLES.get(usize::from(*table))?;
                let place = Place { table, campaign: u32::from(*campaign), number: u32::from(*page) };
                let key = keys::page(place);
                put(&mut records, key.clone(), last, payload)?;
                map.insert(place, records.get(&key).map_or(0, |value| codec::stored_checksum(value)));
            }
            (Piece::Text, [campaign, first, payload @ ..]) => {
                let key = keys::text(CampaignId(u32::from(*campaign)), TaskIndex(u32::from(*first)));
                put(&mut records, key, last, payload)?;
            }
            (Piece::Raw | Piece::Page | Piece::Text, _) => {}
        }
    }
    let (pages, maps, checksums) = (map.pages(), map.len(), map.checksums());
    for (row, bits) in map.take_touched() {
        put(&mut records, keys::map(row), last, &bits?)?;
    }
    let meta = DiskMeta { sequence: last, floor: 1, instance: INSTANCE.0, pages, maps, starts: 1, checksums };
    let format = DiskFormat { format: super::FORMAT, cursor: None };
    let mut payload = Vec::new();
    codec::encode(&meta, &mut payload);
    put(&mut records, keys::meta(), last, &payload)?;
    payload.clear();
    codec::encode(&format, &mut payload);
    put(&mut records, keys::format(), 0, &payload)?;
    for (piece, body) in &found {
        if let (Piece::Raw, [length, sequence, rest @ ..]) = (piece, body) {
            let (key, payload) = rest.split_at(usize::from(*length).min(rest.len()));
            // The highest number stands for the highest there can be.
            let sequence = if *sequence == u8::MAX { u64::MAX } else { u64::from(*sequence) };
            put(&mut records, key.to_vec(), sequence, payload)?;
        }
    }
    Some(records)
}

fn split_head(bytes: &[u8]) -> Option<(u8, u8, u8, &[u8])> {
    match bytes {
        [kind, low, high, rest @ ..] => Some((*kind, *low, *high, rest)),
        _ => None,
    }
}

/// Adds a record; `None` if the whole would be larger than is looked at.
fn put(records: &mut Records, key: Vec<u8>, sequence: u64, payload: &[u8]) -> Option<()> {
    let payload = &payload[..payload.len().min(codec::PAYLOAD_BYTES_MAX)];
    if matches!(Kind::of(&key), Some(Kind::Page | Kind::Journal)) {
        let changes = convert::decode_changes(payload).unwrap_or_default();
        if changes.iter().any(too_large) {
            return None;
        }
    }
    let value = codec::seal(&key, sequence, payload);
    records.insert(key, value);
    Some(())
}

fn too_large(change: &Change) -> bool {
    let task = match change {
        Change::Put(Row::Lease(_, LeaseRow { lease: Some(lease), .. })) => lease.task,
        Change::Put(Row::Trouble(_, row)) => row.task,
        Change::Put(Row::Returned(_, row)) => row.task,
        Change::Put(Row::Task(_, task, _)) | Change::Remove(RowKey::Task(_, task)) => *task,
        Change::Put(_) | Change::Remove(_) | Change::ClearTasks { .. } => TaskIndex(0),
    };
    task.0 >= TASKS_MAX
}
