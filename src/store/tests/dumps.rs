//! The digest speaks of the state, not of the way it lies on the disk.

use super::super::dump::{self, Keys};
use super::super::kv::Store;
use super::super::recovery::recover;
use super::super::verify::check_texts;
use super::*;

/// What `verify` would say of a store: digest of its rows and keys.
fn digest(store: &MemoryStore) -> String {
    let mut rows = RowMap::default();
    let recovered = recover(&*store.reader(), &mut rows).unwrap();
    let (_, keys) = check_texts(store, &recovered).unwrap();
    dump::digest(dump::lines(rows.0.into_values(), &keys))
}

/// Makes the same changes in commits of `together` changes each, with a new process after every `process` commits.
fn history(changes: &[Change], together: usize, process: usize) -> (MemoryStore, RowMap) {
    let store = MemoryStore::default();
    let (mut ledger, _, _, mut model) = open(&store).unwrap();
    for (number, changes) in changes.chunks(together).enumerate() {
        if number % process == process - 1 {
            drop(ledger);
            (ledger, ..) = open(&store).unwrap();
        }
        model.apply_all(changes);
        ledger.commit(&changed(changes), &[], &model).unwrap();
    }
    (store, model)
}

#[test]
fn the_digest_does_not_depend_on_the_layout() {
    for seed in 0..10 {
        let mut chance = Chance(seed);
        let changes: Vec<Change> = (0..40).flat_map(|_| chance.changes()).collect();
        let (one_by_one, model) = history(&changes, 1, usize::MAX);
        let expected = dump::digest(dump::lines(model.0.into_values(), &Keys::new()));
        assert_eq!(digest(&one_by_one), expected, "seed {seed}");
        for (together, process) in [(1, 7), (5, usize::MAX), (30, 2), (usize::MAX, usize::MAX)] {
            let (other, _) = history(&changes, together, process);
            assert_ne!(other.killed(), one_by_one.killed(), "another layout: {together} together, {process} a process");
            assert_eq!(digest(&other), expected, "seed {seed}, {together} together, {process} a process");
        }
    }
}

#[test]
fn the_digest_does_not_depend_on_blocks_of_keys_but_on_the_keys() {
    let put = |cuts: &[usize], keys: &[String]| {
        let store = MemoryStore::default();
        let (mut ledger, _, _, mut model) = open(&store).unwrap();
        let change = [Change::Put(Row::Campaign(CampaignId(1), Box::new(campaign(10))))];
        model.apply_all(&change);
        ledger.commit(&changed(&change), &[], &model).unwrap();
        let mut from = 0;
        for to in cuts.iter().copied().chain([keys.len()]) {
            ledger.commit(&[], &[put_texts(1, from as u32, &keys[from..to])], &model).unwrap();
            from = to;
        }
        store
    };
    let keys: Vec<String> = ["a", "bc", "", "d", "e"].map(str::to_owned).into();
    let whole = put(&[], &keys);
    let in_parts = put(&[1, 3], &keys);
    assert_ne!(whole.killed(), in_parts.killed());
    assert_eq!(digest(&whole), digest(&in_parts));
    let moved: Vec<String> = ["ab", "c", "", "d", "e"].map(str::to_owned).into();
    assert_ne!(digest(&put(&[], &moved)), digest(&whole), "where a key ends matters");
}
