//! The runner of migrations, with a second migration that exists only here.

use super::super::codec;
use super::super::keys;
use super::super::kv::{Batch, Reader, Store};
use super::super::ledger::{Books, meta_record};
use super::super::memory::Fault;
use super::super::migrate::{FORMAT, MIGRATIONS, MigrateError, Migration, Progress, read_format, run};
use super::*;

/// How many pieces the second migration has.
pub(super) const PIECES: u8 = 5;

/// Where the second migration leaves its traces.
pub(super) const TRACE: u8 = 0x70;

thread_local! {
    /// In front of which piece the second migration ends, as if the process had.
    pub(super) static ENDS_AT: std::cell::Cell<Option<u8>> = const { std::cell::Cell::new(None) };
}

/// Counts up a number, once in each of five pieces: a piece that ran twice, or not at all, shows in the number.
fn count_up(reader: &dyn Reader, _: InstanceId, cursor: Option<&[u8]>) -> Result<Progress, String> {
    let piece = cursor.map_or(0, |cursor| cursor[0]);
    if ENDS_AT.get() == Some(piece) {
        return Err("the process ends here".into());
    }
    let before = reader.get(&[TRACE]).map_err(|error| error.to_string())?.map_or(0, |value| value[0]);
    let mut batch = Batch::default();
    batch.put(vec![TRACE], vec![before + 1]).map_err(|error| error.to_string())?;
    batch.put(vec![TRACE, piece], vec![piece]).map_err(|error| error.to_string())?;
    let next = piece + 1;
    Ok(Progress { batch, cursor: (next < PIECES).then(|| vec![next]) })
}

/// The migrations of a version after this one.
pub(super) fn later() -> Vec<Migration> {
    [MIGRATIONS, &[Migration { name: "9999_count_up", step: count_up }]].concat()
}

#[test]
fn the_first_migration_writes_format_1() {
    let mut store = MemoryStore::default();
    assert_eq!(run(&mut store, INSTANCE, &MIGRATIONS[..1]).unwrap(), ["0001_create"]);
    let (key, value) = meta_record(&Books { floor: 1, instance: INSTANCE, ..Books::default() });
    let mut format = vec![1, 0];
    format = codec::seal(&keys::format(), 0, &format);
    assert_eq!(store.killed(), Records::from([(keys::format(), format), (key, value)]));
    assert_eq!(run(&mut store, INSTANCE, &MIGRATIONS[..1]).unwrap(), [""; 0], "and only once");
}

#[test]
fn a_migration_interrupted_between_any_two_writes_goes_on() {
    let mut whole = MemoryStore::default();
    run(&mut whole, INSTANCE, &later()).unwrap();
    assert_eq!(whole.get(&[TRACE]).unwrap(), Some(vec![PIECES]));
    let commits = whole.syncs() as usize;
    assert_eq!(commits, MIGRATIONS.len() + usize::from(PIECES));
    for fault in [Fault::NotApplied, Fault::Unknown { stored: true }, Fault::Unknown { stored: false }] {
        for interrupted in 0..commits {
            let mut store = MemoryStore::default();
            store.inject(interrupted, fault);
            run(&mut store, INSTANCE, &later()).unwrap_err();
            // And again a moment after it went on.
            let mut resumed = MemoryStore::with(store.power_cut());
            resumed.inject(1, fault);
            let _ = run(&mut resumed, INSTANCE, &later());
            let mut resumed = MemoryStore::with(resumed.power_cut());
            run(&mut resumed, INSTANCE, &later()).unwrap();
            assert_eq!(resumed.killed(), whole.killed(), "{fault:?} at commit {interrupted}");
        }
    }
}

#[test]
fn a_newer_store_is_refused_untouched() {
    let mut whole = MemoryStore::default();
    run(&mut whole, INSTANCE, &later()).unwrap();
    // Complete, and in the middle of its migration.
    for interrupted in [None, Some(2), Some(4)] {
        let mut store = MemoryStore::default();
        if let Some(commit) = interrupted {
            store.inject(commit, Fault::NotApplied);
        }
        let _ = run(&mut store, INSTANCE, &later());
        let mut store = MemoryStore::with(store.power_cut());
        let before = store.killed();
        let result = run(&mut store, INSTANCE, MIGRATIONS);
        if interrupted == Some(2) {
            // Not begun: still this version's.
            assert_eq!(result.unwrap(), [""; 0]);
        } else {
            let Err(MigrateError::Newer { found, known }) = result else { panic!("{result:?}") };
            assert_eq!((found, known), (FORMAT + 1, FORMAT));
        }
        assert_eq!(store.killed(), before);
        assert_eq!(store.syncs(), 0);
    }
}

#[test]
fn the_format_record_keeps_its_bytes() {
    let mut store = MemoryStore::default();
    store.inject(4, Fault::NotApplied);
    run(&mut store, INSTANCE, &later()).unwrap_err();
    let reader = store.reader();
    let value = reader.get(&keys::format()).unwrap().unwrap();
    assert_eq!(value[codec::ENVELOPE_BYTES..], [2, 1, 1, 2], "format 2, a cursor of one byte, which is 2");
    let format = read_format(&*reader).unwrap().unwrap();
    assert_eq!((format.format, format.cursor), (2, Some(vec![2])));
}
