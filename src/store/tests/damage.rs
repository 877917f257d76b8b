//! Every record of a store is changed, removed, moved and doubled: each is an error that says where, and never a lower count.

use super::super::codec::{self, DiskMeta};
use super::super::convert::encode_row;
use super::super::keys::{self, KINDS, Kind};
use super::super::kv::Store;
use super::super::recovery::recover;
use super::super::verify::check_texts;
use super::*;

/// A small store with every kind of record.
fn small() -> (Records, RowMap) {
    let store = MemoryStore::default();
    let (mut ledger, _, _, mut model) = open_writing_pages(&store).unwrap();
    let keys: Vec<String> = (0..5).map(|index| format!("{index}-{}", "k".repeat(1_000))).collect();
    let mut texts = vec![put_texts(1, 0, &keys)];
    for number in 0..12 {
        let changes = [
            Change::Put(Row::Campaign(CampaignId(1), Box::new(campaign(10)))),
            Change::Put(Row::Task(CampaignId(1), TaskIndex(number), TaskRow { done: 1, extra: 0, issued: 0 })),
            Change::Put(Row::Lease(number * 64, LeaseRow { generation: 1, lease: None })),
        ];
        model.apply_all(&changes);
        ledger.commit(&changed(&changes), &texts, &model).unwrap();
        texts.clear();
    }
    let records = store.killed();
    for kind in KINDS {
        let count = records.keys().filter(|key| Kind::of(key) == Some(kind)).count();
        let expected = if matches!(kind, Kind::Format | Kind::Meta) { 1 } else { 2 };
        assert!(count >= expected, "{count} records of {kind:?}");
    }
    (records, model)
}

/// What `open` and `verify` say together.
fn look(records: Records) -> Result<RowMap, String> {
    let rows = recovered(records.clone()).map_err(|error| error.to_string())?;
    let store = MemoryStore::with(records);
    let recovered = recover(&*store.reader(), &mut RowMap::default()).map_err(|error| error.to_string())?;
    check_texts(&store, &recovered).map_err(|error| error.to_string())?;
    Ok(rows)
}

#[test]
fn every_flipped_byte_is_noticed() {
    let (records, model) = small();
    assert_eq!(look(records.clone()), Ok(model));
    for (key, value) in &records {
        for index in 0..value.len() {
            // Text blocks are long: a sample of their bytes is enough, every byte of the envelope among it.
            if value.len() > 1_000 && index > 16 && index % 97 != 0 {
                continue;
            }
            let mut damaged = records.clone();
            damaged.get_mut(key).unwrap()[index] ^= 1 << (index % 8);
            let error = look(damaged).expect_err("a flipped byte");
            assert!(error.contains("the") && error.contains("record"), "{error}");
        }
    }
}

#[test]
fn every_missing_record_is_noticed() {
    let (records, _) = small();
    for key in records.keys() {
        let mut damaged = records.clone();
        damaged.remove(key);
        assert!(look(damaged).is_err(), "without {}", codec::hex(key));
    }
    // All of one kind.
    for kind in KINDS {
        let mut damaged = records.clone();
        damaged.retain(|key, _| Kind::of(key) != Some(kind));
        assert!(look(damaged).is_err(), "without {kind:?}");
    }
}

#[test]
fn every_shortened_record_is_noticed() {
    let (records, _) = small();
    for (key, value) in &records {
        for length in [0, 1, 15, 16, value.len() - 1] {
            let mut damaged = records.clone();
            damaged.insert(key.clone(), value[..length].to_vec());
            assert!(look(damaged).is_err(), "{} cut to {length}", codec::hex(key));
        }
    }
}

#[test]
fn every_record_under_another_key_is_noticed() {
    let (records, _) = small();
    for (key, value) in &records {
        for index in 0..key.len() {
            for bit in 0..8 {
                let mut other = key.clone();
                other[index] ^= 1 << bit;
                // Moved, and as a second copy; a copy in place of another is the third case.
                let mut moved = records.clone();
                moved.remove(key);
                moved.insert(other.clone(), value.clone());
                assert!(look(moved).is_err(), "{key:?} moved to {other:?}");
                let mut doubled = records.clone();
                doubled.insert(other.clone(), value.clone());
                assert!(look(doubled).is_err(), "{key:?} copied to {other:?}");
            }
        }
        let mut longer = key.clone();
        longer.push(0);
        let mut doubled = records.clone();
        doubled.insert(longer.clone(), value.clone());
        assert!(look(doubled).is_err(), "{key:?} copied to {longer:?}");
    }
}

#[test]
fn a_page_of_a_later_time_is_noticed() {
    let (records, mut model) = small();
    let store = MemoryStore::with(records.clone());
    let (mut ledger, ..) = open_writing_pages(&store).unwrap();
    for number in 0..20 {
        let change = Change::Put(Row::Task(CampaignId(1), TaskIndex(0), TaskRow { done: number, extra: 0, issued: 0 }));
        model.apply(&change);
        ledger.commit(&changed(&[change]), &[], &model).unwrap();
    }
    let page = |(key, _): &(&Vec<u8>, &Vec<u8>)| Kind::of(key) == Some(Kind::Page);
    let later = store.killed();
    let newer = later.iter().filter(page).find(|(key, value)| records.get(*key) != Some(*value)).unwrap();
    let mut mixed = records;
    mixed.insert(newer.0.clone(), newer.1.clone());
    let error = look(mixed).unwrap_err();
    assert!(error.contains("but the journal ends at"), "{error}");
}

#[test]
fn a_page_of_an_earlier_time_is_noticed() {
    let (records, mut model) = small();
    let store = MemoryStore::with(records.clone());
    let (mut ledger, ..) = open_writing_pages(&store).unwrap();
    for number in 0..20 {
        let change = Change::Put(Row::Task(CampaignId(1), TaskIndex(0), TaskRow { done: number, extra: 0, issued: 0 }));
        model.apply(&change);
        ledger.commit(&changed(&[change]), &[], &model).unwrap();
    }
    let later = store.killed();
    assert_eq!(look(later.clone()), Ok(model));
    let page = |key: &Vec<u8>| Kind::of(key) == Some(Kind::Page);
    let older: Vec<_> = records.iter().filter(|(key, value)| page(key) && later.get(*key) != Some(*value)).collect();
    assert!(!older.is_empty());
    for (key, value) in older {
        let mut mixed = later.clone();
        assert!(mixed.insert(key.clone(), value.clone()).is_some());
        let error = look(mixed).unwrap_err();
        assert!(error.contains("an older version of itself"), "{error}");
    }
}

#[test]
fn a_page_that_must_not_be_there_is_noticed_though_the_number_is_right() {
    let (mut records, _) = small();
    let page = records.keys().find(|key| Kind::of(key) == Some(Kind::Page)).unwrap().clone();
    records.remove(&page);
    let mut payload = Vec::new();
    encode_row(&Row::Task(CampaignId(1), TaskIndex(128), TaskRow { done: 1, extra: 0, issued: 0 }), &mut payload);
    let key = keys::page(keys::Place { table: keys::Table::Tasks, campaign: 1, number: 1 });
    records.insert(key.clone(), codec::seal(&key, 1, &payload));
    let error = look(records).unwrap_err();
    assert!(error.contains("not in the map"), "{error}");
}

#[test]
fn rows_of_another_page_are_noticed() {
    let (records, _) = small();
    let key = keys::page(keys::Place { table: keys::Table::Tasks, campaign: 1, number: 0 });
    let row = |task| Row::Task(CampaignId(1), TaskIndex(task), TaskRow { done: 1, extra: 0, issued: 0 });
    // Another page's, twice the same, out of order, none.
    for tasks in [&[128][..], &[1, 1], &[2, 1], &[]] {
        let mut payload = Vec::new();
        for task in tasks {
            encode_row(&row(*task), &mut payload);
        }
        let mut damaged = records.clone();
        assert!(damaged.insert(key.clone(), codec::seal(&key, 1, &payload)).is_some());
        let error = look(damaged).unwrap_err();
        assert!(error.contains("rows that are not its own"), "{error}");
    }
}

#[test]
fn the_error_says_what_is_missing() {
    let (records, _) = small();
    let first = records.keys().find(|key| Kind::of(key) == Some(Kind::Journal)).unwrap();
    let number = keys::parse_journal(first).unwrap();
    let mut damaged = records.clone();
    damaged.remove(first);
    let error = recovered(damaged).unwrap_err().to_string();
    assert_eq!(error, format!("the data directory (memory) is damaged: the journal record {number} is missing"));
}

#[test]
fn damage_behind_what_meta_names_is_noticed() {
    let (records, mut model) = small();
    let store = MemoryStore::with(records);
    let (mut ledger, ..) = open(&store).unwrap();
    let before = ledger.sequence();
    let mut after_each = vec![model.clone()];
    for number in 0..6 {
        // Two records each.
        let changes: Vec<Change> =
            (0..40).map(|slot| Change::Put(Row::SessionName(slot, format!("{number}{}", "n".repeat(120))))).collect();
        model.apply_all(&changes);
        ledger.commit(&changed(&changes), &[], &model).unwrap();
        after_each.push(model.clone());
    }
    assert_eq!(ledger.sequence(), before + 12);
    let whole = store.killed();
    assert_eq!(look(whole.clone()), Ok(model));
    let key = |number: u64| keys::journal(before + number);
    for number in 1..=12 {
        for index in [0, 1, 2, 5, 13, 16, 900] {
            let mut damaged = whole.clone();
            damaged.get_mut(&key(number)).unwrap()[index] ^= 1;
            assert!(look(damaged).is_err(), "record {number}, byte {index}");
        }
        let mut damaged = whole.clone();
        damaged.remove(&key(number));
        let found = look(damaged);
        if number < 12 {
            let missing = format!("the journal record {} is missing", before + number);
            assert!(found.unwrap_err().ends_with(&missing), "record {number}");
        } else {
            // As if the commit had been cut short; that it was acknowledged is what `acked` knows.
            assert_eq!(found, Ok(after_each[5].clone()));
        }
    }
    // A record of another commit between those of one.
    let mut mixed = whole;
    let lone = codec::seal(&key(12), before + 13, codec::unseal(&key(12), &mixed[&key(12)]).unwrap().payload);
    mixed.insert(key(12), lone);
    assert!(look(mixed).unwrap_err().contains("says that its commit ends at"));
}

#[test]
fn books_that_no_directory_reaches_are_damage() {
    let (records, _) = small();
    let key = keys::meta();
    let good: DiskMeta = codec::decode(codec::unseal(&key, &records[&key]).unwrap().payload).unwrap();
    for bad in [
        DiskMeta { sequence: u64::MAX, ..good },
        DiskMeta { sequence: u64::MAX, floor: u64::MAX, ..good },
        DiskMeta { starts: u64::MAX, ..good },
    ] {
        let mut payload = Vec::new();
        codec::encode(&bad, &mut payload);
        let mut damaged = records.clone();
        damaged.insert(key.clone(), codec::seal(&key, bad.sequence, &payload));
        let error = look(damaged).expect_err("impossible books");
        assert!(error.contains("contradicts itself"), "{error}");
    }
}
