//! Every record of ours, damaged in memory: the records of the history, without the disk below them.
//!
//! A store in memory fails no read and finds every key, so what is noticed here is noticed by our own records alone.

use std::collections::{BTreeMap, BTreeSet};

use tenfold::store::memory::{MemoryStore, Records};
use tenfold::store::{dump, open, open_in_memory, verify_in_memory, verify_state};
use tenfold::types::Tick;

use crate::history::{INSTANCE, options, play};
use crate::outcome::{Outcome, Table};

/// The kinds of records, by the first byte of their keys.
const KINDS: [&str; 6] = ["format", "meta", "map", "page", "journal", "text"];

/// A record's kind.
fn kind(key: &[u8]) -> &'static str {
    KINDS[usize::from(key[0]) - 1]
}

/// The digest of every state that the history ever committed.
pub(crate) fn digests_of_all_states() -> BTreeSet<String> {
    let store = MemoryStore::default();
    let mut digests = BTreeSet::new();
    play(
        || open_in_memory(&store, INSTANCE, options(), Tick(0)).unwrap(),
        || {
            digests.insert(look(&store.killed()).unwrap());
        },
    );
    digests
}

/// The history's records, and every value that any of its keys has had.
struct Played {
    records: Records,
    older: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
    digest: String,
    /// Of the state before the last commit.
    before: String,
}

fn played() -> Played {
    let store = MemoryStore::default();
    let mut older: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    let (mut last, mut before) = (Records::new(), Records::new());
    play(
        || open_in_memory(&store, INSTANCE, options(), Tick(0)).unwrap(),
        || {
            before = std::mem::replace(&mut last, store.killed());
            for (key, value) in store.killed() {
                let versions = older.entry(key).or_default();
                if !versions.contains(&value) {
                    versions.push(value);
                }
            }
        },
    );
    let records = store.killed();
    for (key, versions) in &mut older {
        versions.retain(|value| records.get(key) != Some(value));
    }
    let digest = look(&records).unwrap();
    Played { records, older, digest, before: look(&before).unwrap() }
}

/// The digest of what the records say, or why they are refused.
fn look(records: &Records) -> Result<String, String> {
    let store = MemoryStore::with(records.clone());
    match verify_in_memory(&store) {
        Ok(state) => Ok(dump::digest(state.lines())),
        Err(error) => Err(error.to_string()),
    }
}

impl Played {
    /// What comes of other records in the place of these.
    fn outcome(&self, records: &Records) -> Outcome {
        let looked = std::panic::catch_unwind(|| look(records));
        match looked {
            Ok(Ok(digest)) if digest == self.digest => Outcome::Same,
            Ok(Ok(_)) => Outcome::Wrong("another state was read".into()),
            Ok(Err(what)) if !what.contains("record") && !what.contains("page") && !what.contains("key") => {
                Outcome::Wrong(format!("not named: {what}"))
            }
            Ok(Err(_)) if self.starts(records) => Outcome::Wrong("a server starts from it".into()),
            Ok(Err(_)) => Outcome::Named,
            Err(_) => Outcome::Wrong("a panic escaped".into()),
        }
    }
}

impl Played {
    /// Whether a server would start from these records although they are damaged. Texts are no part of a start: they are checked
    /// whenever they are read.
    fn starts(&self, records: &Records) -> bool {
        let mut without_texts = records.clone();
        without_texts.retain(|key, value| kind(key) != "text" || self.records.get(key) == Some(value));
        let texts = self.records.iter().filter(|(key, _)| kind(key) == "text");
        without_texts.extend(texts.map(|(key, value)| (key.clone(), value.clone())));
        without_texts != self.records
            && open_in_memory(&MemoryStore::with(without_texts), INSTANCE, options(), Tick(0)).is_ok()
    }
}

/// The ground of all that follows: nothing is missing, and the disk has the same.
pub(crate) fn the_history_has_every_kind_of_row_and_record(_whole: bool) {
    let played = played();
    let state = verify_in_memory(&MemoryStore::with(played.records.clone())).unwrap();
    let lines: Vec<String> = state.lines().collect();
    let words = [
        "phase=running",
        "phase=paused",
        "phase=cancelled",
        "phase=creating",
        "phase=removing",
        "seed=42",
        "seed=none",
        "keyed=true",
        "state=live",
        "state=expired",
        "state=gone",
        "state=free",
        "origin=true",
        "origin=false",
        ":ended",
        "session-name ",
        "quarantined=true",
        "quarantined=false",
        "returned ",
        "keys ",
        "extra=1",
    ];
    let missing: Vec<&str> = words.into_iter().filter(|word| !lines.iter().any(|line| line.contains(word))).collect();
    assert!(missing.is_empty(), "{missing:?} in\n{}", lines.join("\n"));
    for (index, name) in KINDS.iter().enumerate() {
        let count = played.records.keys().filter(|key| usize::from(key[0]) == index + 1).count();
        assert!(count >= if index < 2 { 1 } else { 3 }, "{count} records of kind {name}");
    }
    let bytes: usize = played.records.iter().map(|(key, value)| key.len() + value.len()).sum();
    eprintln!("{} records, {bytes} bytes, {} rows", played.records.len(), lines.len());

    let directory = tempfile::tempdir().unwrap();
    play(|| open(directory.path(), "a test", INSTANCE, options(), Tick(0)).unwrap(), || {});
    let (report, state) = verify_state(directory.path()).unwrap();
    assert_eq!(state.lines().collect::<Vec<_>>(), lines, "the disk has the same rows");
    assert_eq!(report.digest, played.digest);
}

/// Every byte, with every single bit flipped, set to zero and to all ones; a sample of that otherwise.
pub(crate) fn a_changed_byte_is_noticed(whole: bool) {
    let played = played();
    let mut table = Table::default();
    let mut records = played.records.clone();
    let mut count = 0_usize;
    for (key, value) in &played.records {
        for (index, byte) in value.iter().enumerate() {
            let flips = (0..8).map(|bit| byte ^ 1 << bit).chain([0, 0xff, !byte]);
            let flips: Vec<u8> = flips.filter(|other| other != byte).collect();
            for (number, other) in flips.iter().enumerate() {
                count += 1;
                // Every byte of the envelope and every fiftieth behind it, one pattern each, all of them in turn.
                let sampled = (index < 16 || (index + key.len()).is_multiple_of(50)) && number == index % flips.len();
                if !whole && !sampled {
                    continue;
                }
                records.get_mut(key).unwrap()[index] = *other;
                let outcome = played.outcome(&records);
                table.add(kind(key), &format!("{key:02x?} byte {index}: {byte:02x} to {other:02x}"), outcome);
            }
            records.get_mut(key).unwrap()[index] = *byte;
        }
    }
    table.finish(&format!("changed bytes of records (of {count} possible)"));
}

/// Each one, and all of a kind. Without its last record the journal looks as if its last commit had been cut short, which is then read
/// as if it had not been made: that it was acknowledged is what the file `acked` knows, and here is none.
pub(crate) fn a_missing_record_is_noticed(_whole: bool) {
    let played = played();
    let mut table = Table::default();
    let end = played.records.keys().rfind(|key| kind(key) == "journal").unwrap();
    for key in played.records.keys() {
        let mut records = played.records.clone();
        records.remove(key);
        let outcome = if key == end && look(&records).as_ref() == Ok(&played.before) {
            Outcome::Unnoticed("the end of the journal, which `acked` knows")
        } else {
            played.outcome(&records)
        };
        table.add(kind(key), &format!("{key:02x?}"), outcome);
    }
    for name in KINDS {
        let mut records = played.records.clone();
        records.retain(|key, _| kind(key) != name);
        table.add(&format!("all of {name}"), "", played.outcome(&records));
    }
    for name in KINDS {
        let without = table.count(name, "same state");
        // Keys of a campaign that was still being created are dropped at the next start.
        assert!(without == 0 || name == "text", "{without} records of kind {name} can be missing");
    }
    table.finish("missing records");
}

/// Each pair of one kind: the one under the other's key and the reverse.
pub(crate) fn two_exchanged_records_are_noticed(whole: bool) {
    let played = played();
    let mut table = Table::default();
    let keys: Vec<&Vec<u8>> = played.records.keys().collect();
    let mut number = 0_usize;
    for (index, left) in keys.iter().enumerate() {
        for right in &keys[index + 1..] {
            number += 1;
            if !whole && !number.is_multiple_of(7) && kind(left) == kind(right)
                || kind(left) != kind(right) && !number.is_multiple_of(29)
            {
                continue;
            }
            let mut records = played.records.clone();
            records.insert((*left).clone(), played.records[*right].clone());
            records.insert((*right).clone(), played.records[*left].clone());
            let name = format!("{} and {}", kind(left), kind(right));
            table.add(&name, &format!("{left:02x?} and {right:02x?}"), played.outcome(&records));
        }
    }
    table.finish("exchanged records");
}

/// Each key with each value that it ever had.
pub(crate) fn an_older_record_is_noticed(whole: bool) {
    let played = played();
    let mut table = Table::default();
    for (key, versions) in &played.older {
        for (number, value) in versions.iter().enumerate() {
            if !whole && !number.is_multiple_of(5) && kind(key) != "page" {
                continue;
            }
            let mut records = played.records.clone();
            let name = if records.insert(key.clone(), value.clone()).is_some() { "older" } else { "back again" };
            let place = format!("{key:02x?} version {number} of {}", versions.len());
            table.add(&format!("{name} {}", kind(key)), &place, played.outcome(&records));
        }
    }
    table.finish("older records");
}
