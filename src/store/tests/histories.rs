//! Random histories of commits: what a new process finds is what was acknowledged, at every point, with every fault.

use super::super::acked::Acked;
use super::super::keys::{self, Kind};
use super::super::kv::Reader;
use super::super::memory::Fault;
use super::super::recovery::{check_acked, recover};
use super::super::texts::{TextError, campaigns_with_texts};
use super::*;

#[test]
fn what_was_acknowledged_is_found_again_after_every_commit() {
    for seed in 0..15 {
        let mut chance = Chance(seed);
        let store = MemoryStore::default();
        let (mut ledger, _, _, mut model) = open(&store).unwrap();
        // Pages with every commit, now and then, or not at all within this history.
        let pace = Pace {
            bytes: [0, 4_000, 1 << 20][seed as usize % 3],
            records: [0, 5, 1_000][seed as usize / 3 % 3],
            record_bytes: [100, 4_080][seed as usize % 2],
        };
        ledger.set_pace(pace);
        for commit in 0..60 {
            if chance.below(10) == 0 {
                let (reopened, _, recovery, found) = open(&store).unwrap();
                assert_eq!(found, model, "seed {seed}, restart before commit {commit}");
                assert_eq!(recovery.sequence, ledger.sequence());
                assert_eq!(recovery.journal_records, ledger.journal_records());
                ledger = reopened;
                ledger.set_pace(pace);
            }
            let changes = chance.changes();
            model.apply_all(&changes);
            let before = ledger.sequence();
            ledger.commit(&changed(&changes), &[], &model).unwrap();
            assert!(ledger.sequence() > before, "every commit has a number of its own");
            assert_eq!(recovered(store.killed()).unwrap(), model, "seed {seed}, commit {commit}");
        }
    }
}

#[test]
fn a_failed_commit_is_there_as_a_whole_or_not_at_all() {
    for seed in 0..100 {
        let mut chance = Chance(1_000 + seed);
        let store = MemoryStore::default();
        let (mut ledger, _, _, mut acked) = open(&store).unwrap();
        if seed % 3 > 0 {
            ledger.set_pace(Pace { bytes: 3_000 * (seed as usize % 3 - 1), records: 1_000, record_bytes: 200 });
        }
        let fault = match seed % 4 {
            0 => Fault::NotApplied,
            1 => Fault::Unknown { stored: false },
            2 => Fault::Unknown { stored: true },
            _ => Fault::Torn { operations: chance.below(40) as usize },
        };
        let good = chance.below(40) as usize;
        store.inject(good, fault);
        for commit in 0..=good {
            let mut next = acked.clone();
            let changes = chance.changes();
            next.apply_all(&changes);
            let result = ledger.commit(&changed(&changes), &[], &next);
            assert_eq!(result.is_ok(), commit < good, "seed {seed}");
            if commit < good {
                acked = next;
                continue;
            }
            assert!(ledger.commit(&[], &[], &next).is_err(), "nothing is taken after a failure");
            match (fault, recovered(store.power_cut())) {
                (Fault::Unknown { stored: true }, found) => assert_eq!(found.unwrap(), next, "seed {seed}"),
                (Fault::NotApplied | Fault::Unknown { stored: false }, found) => {
                    assert_eq!(found.unwrap(), acked, "seed {seed}");
                }
                // A journal that was cut short has its beginning. A torn batch breaks the store's promise: noticed, or without effect.
                (Fault::Torn { .. }, Ok(found)) => assert!(found == acked || found == next, "seed {seed}"),
                (Fault::Torn { .. }, Err(error)) => assert!(matches!(error, OpenError::Damaged { .. }), "{error}"),
                (Fault::Unsynced, _) => unreachable!(),
            }
        }
    }
}

#[test]
fn a_batch_that_was_torn_anywhere_is_noticed() {
    let mut chance = Chance(77);
    let store = MemoryStore::default();
    let (mut ledger, _, _, mut model) = open_writing_pages(&store).unwrap();
    for _ in 0..20 {
        let changes = chance.changes();
        model.apply_all(&changes);
        ledger.commit(&changed(&changes), &[], &model).unwrap();
    }
    let before = model.clone();
    let records = store.killed();
    let changes = chance.changes();
    model.apply_all(&changes);
    let mut found = Vec::new();
    for operations in 0..60 {
        let store = MemoryStore::with(records.clone());
        let (mut ledger, ..) = open_writing_pages(&store).unwrap();
        store.inject(0, Fault::Torn { operations });
        ledger.commit(&changed(&changes), &[], &model).unwrap_err();
        found.push(recovered(store.power_cut()).ok());
    }
    // The journal comes first, and is enough. After it come pages, which are worth nothing without the books at the end.
    assert!(found.iter().flatten().all(|found| *found == before || *found == model));
    assert!(found[0] == Some(before) && found[59] == Some(model));
    let noticed = found.iter().filter(|found| found.is_none()).count();
    assert!(noticed > 3, "the batch had several pages, and each tear was noticed: {noticed}");
}

#[test]
fn a_commit_that_was_cut_short_counts_for_nothing() {
    let rows = |number: u32, of: u32| -> Vec<Change> {
        (0..of).map(|slot| Change::Put(Row::SessionName(slot, format!("{number} {}", "n".repeat(120))))).collect()
    };
    let store = MemoryStore::default();
    let (mut ledger, _, _, mut model) = open(&store).unwrap();
    let first = rows(0, 3);
    model.apply_all(&first);
    ledger.commit(&changed(&first), &[], &model).unwrap();
    let records = store.killed();
    let long = rows(1, 300);
    let mut after = model.clone();
    after.apply_all(&long);
    let parts = {
        let store = MemoryStore::with(records.clone());
        let (mut ledger, ..) = open(&store).unwrap();
        let before = ledger.sequence();
        ledger.commit(&changed(&long), &[], &after).unwrap();
        (ledger.sequence() - before) as usize
    };
    assert!(parts > 5);
    for operations in 0..=parts {
        let store = MemoryStore::with(records.clone());
        let (mut ledger, ..) = open(&store).unwrap();
        store.inject(0, Fault::Torn { operations });
        ledger.commit(&changed(&long), &[], &after).unwrap_err();
        let expected = if operations < parts { &model } else { &after };
        assert!(recovered(store.power_cut()).unwrap() == *expected, "cut after {operations} of {parts} records");
        // What is left of it is removed, so that it never joins what is written later.
        let store = MemoryStore::with(store.power_cut());
        let (mut ledger, _, recovery, mut model) = open(&store).unwrap();
        assert_eq!(recovery.notes.len(), usize::from((1..parts).contains(&operations)), "{:?}", recovery.notes);
        let journal = |records: Records| records.keys().filter(|key| Kind::of(key) == Some(Kind::Journal)).count();
        assert_eq!(journal(store.power_cut()) as u64, ledger.journal_records());
        let short = rows(2, 1);
        model.apply_all(&short);
        ledger.commit(&changed(&short), &[], &model).unwrap();
        assert!(recovered(store.power_cut()).unwrap() == model);
    }
}

#[test]
fn a_commit_that_was_cut_short_within_what_meta_names_is_damage() {
    let store = MemoryStore::default();
    let (mut ledger, _, _, mut model) = open(&store).unwrap();
    let long = (0..100).map(|slot| Change::Put(Row::SessionName(slot, "n".repeat(120)))).collect::<Vec<_>>();
    model.apply_all(&long);
    // With a text it is a checkpoint.
    ledger.commit(&changed(&long), &[put_texts(1, 0, &["a".into()])], &model).unwrap();
    let mut records = store.killed();
    let last = keys::journal(ledger.sequence());
    assert!(records.remove(&last).is_some());
    let error = recovered(records).unwrap_err().to_string();
    assert!(error.contains(&format!("the journal records {0} to {0} are missing", ledger.sequence())), "{error}");
}

#[test]
fn a_lost_end_is_noticed_by_the_file_beside_the_database() {
    let store = MemoryStore::default();
    let (mut ledger, _, _, model) = open(&store).unwrap();
    ledger.commit(&[], &[], &model).unwrap();
    store.inject(0, Fault::Unsynced);
    ledger.commit(&[], &[], &model).unwrap();
    let acked = Acked::Number { instance: INSTANCE, sequence: ledger.sequence() };

    let books = |records| {
        let store = MemoryStore::with(records);
        recover(&store, &mut RowMap::default()).unwrap().books
    };
    assert_eq!(check_acked(&acked, &books(store.killed())), Ok(None));
    let damage = check_acked(&acked, &books(store.power_cut())).unwrap_err();
    assert_eq!(damage.0, "the journal ends at number 1, but 2 was acknowledged: the end of the database is lost");

    // What proves nothing is said, not held against the database.
    let foreign = Acked::Number { instance: InstanceId([9; 16]), sequence: 99 };
    for acked in [foreign, Acked::Torn, Acked::Absent] {
        assert!(check_acked(&acked, &books(store.killed())).unwrap().is_some(), "{acked:?}");
    }
}

#[test]
fn the_journal_is_bounded_by_the_state() {
    let bytes = |store: &MemoryStore, kind: Kind| -> usize {
        let mut bytes = 0;
        let (from, below) = kind.bounds();
        let mut visit = |key: &[u8], value: &[u8]| {
            bytes += key.len() + value.len();
            std::ops::ControlFlow::Continue(())
        };
        store.scan(&from, &below, &mut visit).unwrap();
        bytes
    };
    let mut chance = Chance(5);
    let store = MemoryStore::default();
    let (mut ledger, _, _, mut model) = open(&store).unwrap();
    let pace = Pace { bytes: 20_000, records: 100, ..Pace::default() };
    ledger.set_pace(pace);
    let mut written = 0;
    for commit in 0..1_500 {
        // Mostly the same few rows, as a busy server has it; sometimes others, so that old pages are dirty too.
        let mut changes: Vec<Change> = (0..8)
            .map(|task| {
                let counters = TaskRow { done: commit + 1, extra: 0, issued: 0 };
                Change::Put(Row::Task(CampaignId(1), TaskIndex(task * 1000), counters))
            })
            .collect();
        if commit % 7 == 0 {
            changes.push(Change::Put(chance.row()));
        }
        model.apply_all(&changes);
        ledger.commit(&changed(&changes), &[], &model).unwrap();
        written += 100;
        let (journal, pages) = (bytes(&store, Kind::Journal), bytes(&store, Kind::Page));
        // A page may have been larger when it was counted, and the operations count as bytes too.
        let bound = 3 * pages + 16 * 1024 + pace.bytes;
        assert!(journal < bound, "commit {commit}: {journal} bytes of journal over {pages} bytes of pages");
    }
    assert!(written > 2 * bytes(&store, Kind::Journal), "much more was journaled than is kept");
    assert!(ledger.journal_records() < 1_000, "{}", ledger.journal_records());
}

#[test]
fn a_server_that_is_restarted_again_and_again_still_writes_pages() {
    let mut chance = Chance(9);
    let store = MemoryStore::default();
    let pace = Pace { bytes: 4_000, records: 1_000, ..Pace::default() };
    let mut longest = 0;
    for restart in 0..200 {
        let (mut ledger, _, _, mut model) = open(&store).unwrap();
        ledger.set_pace(pace);
        // Too little for a checkpoint within one process.
        for _ in 0..2 {
            let change = [Change::Put(chance.row())];
            model.apply_all(&change);
            ledger.commit(&changed(&change), &[], &model).unwrap();
        }
        longest = longest.max(ledger.journal_records());
        assert!(recovered(store.killed()).unwrap() == model, "restart {restart}");
    }
    assert!(longest < 200, "{longest} of 400 records were kept");
}

#[test]
fn one_checkpoint_writes_a_bounded_part_of_the_pages() {
    let store = MemoryStore::default();
    let (mut ledger, _, _, mut model) = open(&store).unwrap();
    let long: Vec<Change> = (0..16_000).map(|slot| Change::Put(Row::SessionName(slot, "n".repeat(128)))).collect();
    model.apply_all(&long);
    ledger.set_pace(Pace { bytes: usize::MAX, ..Pace::default() });
    ledger.commit(&changed(&long), &[], &model).unwrap();
    assert_eq!(ledger.pages(), 0);
    ledger.set_pace(Pace { bytes: 20_000, ..Pace::default() });
    while ledger.pages() < 980 {
        let before = ledger.pages();
        ledger.commit(&[], &[], &model).unwrap();
        let written = ledger.pages() - before;
        assert!((1..=40_000 / 2_000 + 1).contains(&written), "{written} pages at once");
    }
    assert!(recovered(store.killed()).unwrap() == model);
}

#[test]
fn an_idle_ledger_trims_its_journal_to_the_last_commits() {
    let mut chance = Chance(6);
    let store = MemoryStore::default();
    let (mut ledger, _, _, mut model) = open_writing_pages(&store).unwrap();
    for _ in 0..200 {
        let changes = chance.changes();
        model.apply_all(&changes);
        ledger.commit(&changed(&changes), &[], &model).unwrap();
    }
    for _ in 0..2_000 {
        ledger.commit(&[], &[], &model).unwrap();
    }
    assert!(ledger.journal_records() <= 2, "{} are kept", ledger.journal_records());
    assert_eq!(recovered(store.killed()).unwrap(), model);
}

#[test]
fn rows_that_are_all_gone_leave_nothing_but_the_books() {
    let mut chance = Chance(8);
    let store = MemoryStore::default();
    let (mut ledger, _, _, mut model) = open_writing_pages(&store).unwrap();
    for _ in 0..50 {
        let changes = chance.changes();
        model.apply_all(&changes);
        ledger.commit(&changed(&changes), &[], &model).unwrap();
    }
    assert!(ledger.pages() > 10);
    let changes: Vec<Change> = model.0.keys().map(|key| Change::Remove(*key)).collect();
    model.0.clear();
    ledger.commit(&changed(&changes), &[], &model).unwrap();
    for _ in 0..500 {
        ledger.commit(&[], &[], &model).unwrap();
    }
    assert_eq!(ledger.pages(), 0);
    let kinds: Vec<u8> = store.killed().keys().map(|key| key[0]).collect();
    assert_eq!(kinds, [1, 2, 5], "the format, meta, and the last journal record");
}

#[test]
fn one_commit_removes_a_bounded_part_of_the_journal() {
    let store = MemoryStore::default();
    let (mut ledger, _, _, mut model) = open_writing_pages(&store).unwrap();
    // Forty large pages, then a short change in each of them: the journal is held back until the last of them is written.
    let long = (0..640).map(|slot| Change::Put(Row::SessionName(slot, "n".repeat(128))));
    let short = (0..40).map(|page| Change::Put(Row::SessionName(page * 16, String::new())));
    for changes in [long.collect::<Vec<_>>(), short.collect()] {
        model.apply_all(&changes);
        ledger.commit(&changed(&changes), &[], &model).unwrap();
    }
    let mut longest = 0;
    for _ in 0..4_000 {
        let before = ledger.journal_records();
        ledger.commit(&[], &[], &model).unwrap();
        let removed = before + 1 - ledger.journal_records();
        assert!(removed <= 66, "{removed} records at once");
        longest = longest.max(before);
    }
    assert!(longest > 1_000, "{longest}");
    assert!(ledger.journal_records() <= 2);
    assert_eq!(recovered(store.killed()).unwrap(), model);
}

#[test]
fn keys_can_be_read_while_and_after_they_are_stored() {
    let store = MemoryStore::default();
    let (mut ledger, texts, _, model) = open(&store).unwrap();
    let keys: Vec<String> = (0..3_000).map(|index| format!("{index}-{}", "k".repeat(index % 1_020))).collect();
    for (number, slice) in keys.chunks(1_000).enumerate() {
        ledger.commit(&[], &[put_texts(4, number as u32 * 1_000, slice)], &model).unwrap();
    }
    let (_, reopened, ..) = open(&store).unwrap();
    let campaign = CampaignId(4);
    for texts in [&texts, &reopened] {
        assert_eq!(texts.keys(campaign, TaskIndex(0), 3_000).unwrap(), keys);
        assert_eq!(texts.keys(campaign, TaskIndex(999), 2).unwrap(), keys[999..1_001]);
        assert_eq!(texts.keys(campaign, TaskIndex(2_999), 1).unwrap(), keys[2_999..]);
        assert_eq!(texts.keys(campaign, TaskIndex(7), 0).unwrap(), [""; 0]);
        let missing = |first, count| texts.keys(campaign, TaskIndex(first), count).unwrap_err();
        assert_eq!(missing(2_999, 2), TextError::Missing { campaign, index: TaskIndex(3_000) });
        assert_eq!(missing(u32::MAX, 1), TextError::Missing { campaign, index: TaskIndex(u32::MAX) });
        let other = TextError::Missing { campaign: CampaignId(3), index: TaskIndex(0) };
        assert_eq!(texts.keys(CampaignId(3), TaskIndex(0), 1), Err(other));
    }
    assert!(store.killed().values().all(|value| value.len() <= 4_096));
}

#[test]
fn cleared_keys_fall_in_bounded_commits_also_across_a_restart() {
    let store = MemoryStore::default();
    let (mut ledger, _, _, mut model) = open(&store).unwrap();
    let keep = Change::Put(Row::Campaign(CampaignId(2), Box::new(campaign(1))));
    let gone = Change::Put(Row::Campaign(CampaignId(1), Box::new(campaign(2))));
    model.apply_all(&[keep.clone(), gone.clone()]);
    let long: Vec<String> = (0..2_500).map(|index| format!("{index:01000}")).collect();
    let texts = [put_texts(1, 0, &long), put_texts(1, 2_500, &long), put_texts(2, 0, &long)];
    ledger.commit(&changed(&[keep, gone]), &texts, &model).unwrap();

    let remove = Change::Remove(RowKey::Campaign(CampaignId(1)));
    model.apply(&remove);
    let clear = |first, tasks| TextChange::Clear { campaign: CampaignId(1), first: TaskIndex(first), tasks };
    ledger.commit(&changed(&[remove]), &[clear(0, 3_000), clear(3_000, 3_000)], &model).unwrap();
    let mut before = store.killed().len();
    ledger.commit(&[], &[], &model).unwrap();
    assert!(before - store.killed().len() <= 1_024 + 66, "bounded");
    assert_eq!(campaigns_with_texts(&store).unwrap(), [CampaignId(1), CampaignId(2)]);

    let (mut ledger, texts, recovery, _) = open(&store).unwrap();
    assert_eq!(recovery.notes, ["keys of the removed campaign 1 are still being cleared away"]);
    while campaigns_with_texts(&store).unwrap().len() > 1 {
        ledger.commit(&[], &[], &model).unwrap();
        let after = store.killed().len();
        assert!(after < before, "every commit clears some more");
        before = after;
    }
    assert_eq!(texts.keys(CampaignId(2), TaskIndex(0), 2_500).unwrap(), long, "others keep theirs");
    assert!(texts.keys(CampaignId(1), TaskIndex(0), 1).is_err());
}

#[test]
fn keys_put_and_cleared_in_one_commit_fall_too() {
    let store = MemoryStore::default();
    let (mut ledger, _, _, model) = open(&store).unwrap();
    let clear = TextChange::Clear { campaign: CampaignId(1), first: TaskIndex(0), tasks: 65_536 };
    ledger.commit(&[], &[put_texts(1, 0, &["a".into()]), clear], &model).unwrap();
    ledger.commit(&[], &[], &model).unwrap();
    assert_eq!(campaigns_with_texts(&store).unwrap(), []);
}

#[test]
fn a_row_too_long_for_its_page_is_an_error_and_not_a_lost_row() {
    let store = MemoryStore::default();
    let (mut ledger, _, _, mut model) = open(&store).unwrap();
    let change = Change::Put(Row::SessionName(0, "n".repeat(5_000)));
    model.apply(&change);
    let error = ledger.commit(&changed(&[change]), &[], &model).unwrap_err();
    assert!(error.to_string().contains("a record of kind journal would have"), "{error}");
    assert!(ledger.commit(&[], &[], &RowMap::default()).is_err());
    assert_eq!(recovered(store.killed()).unwrap(), RowMap::default());
}
