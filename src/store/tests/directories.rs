//! Real directories with a real database: created, reopened, half-created, foreign, older, newer, damaged.

use std::fs;
use std::path::Path;

use super::super::acked::{self, Acked, AckedFile};
use super::super::directory::{self, Ready, back_up};
use super::super::kv::{Batch, CommitError, CommitFailure, Store};
use super::super::migrate::{FORMAT, MIGRATIONS};
use super::super::open::{Found, find};
use super::super::sled::SledStore;
use super::super::verify::verify_rows;
use super::migrations::{ENDS_AT, PIECES, TRACE, later};
use super::*;

fn look(path: &Path) -> Result<(Found, RowMap), OpenError> {
    let mut rows = RowMap::default();
    let found = find(path, "a test", INSTANCE, MIGRATIONS, &mut rows)?;
    Ok((found, rows))
}

fn open_directory(path: &Path) -> (Ledger, Texts, Recovery, RowMap) {
    let (found, rows) = look(path).unwrap();
    let (ledger, texts, recovery) = found.begin().unwrap();
    (ledger, texts, recovery, rows)
}

fn refusal(path: &Path) -> OpenError {
    look(path).map(|_| ()).expect_err("it must be refused")
}

/// A directory in which a few commits were made.
fn used(commits: u64) -> (tempfile::TempDir, RowMap) {
    let directory = tempfile::tempdir().unwrap();
    let (mut ledger, _, recovery, mut model) = open_directory(directory.path());
    assert!(recovery.fresh);
    let mut chance = Chance(commits);
    for _ in 0..commits {
        let changes = chance.changes();
        model.apply_all(&changes);
        ledger.commit(&changed(&changes), &[], &model).unwrap();
    }
    drop(ledger);
    (directory, model)
}

/// Every file with its bytes.
fn snapshot(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap().path();
        if entry.is_dir() {
            files.extend(snapshot(&entry));
        }
        files.insert(entry.display().to_string(), fs::read(&entry).unwrap_or_default());
    }
    files
}

#[test]
fn a_directory_is_made_and_found_again() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("a/b/data");
    let (mut ledger, _, recovery, mut model) = open_directory(&path);
    assert_eq!((recovery.fresh, recovery.starts, recovery.sequence), (true, 1, 0));
    let mut chance = Chance(3);
    for round in 0..3 {
        for _ in 0..25 {
            let changes = chance.changes();
            model.apply_all(&changes);
            let before = super::super::syncs();
            ledger.commit(&changed(&changes), &[], &model).unwrap();
            assert!(!cfg!(target_os = "linux") || super::super::syncs() > before);
            let acked = acked::read(&path.join("acked")).unwrap();
            assert_eq!(acked, Acked::Number { instance: INSTANCE, sequence: ledger.sequence() });
        }
        let sequence = ledger.sequence();
        drop(ledger);
        let (reopened, _, recovery, found) = open_directory(&path);
        assert_eq!(found, model);
        assert_eq!((recovery.fresh, recovery.starts, recovery.sequence), (false, round + 2, sequence));
        assert_eq!(recovery.notes, [""; 0]);
        ledger = reopened;
    }
}

#[test]
fn a_second_server_learns_who_holds_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let held = open_directory(directory.path());
    let expected = format!("process {}, a test", std::process::id());
    for error in [refusal(directory.path()), verify_rows(directory.path(), &mut RowMap::default()).unwrap_err()] {
        assert!(matches!(&error, OpenError::InUse { holder, .. } if *holder == expected), "{error}");
    }
    drop(held);
    open_directory(directory.path());
}

#[test]
fn a_half_created_database_is_moved_aside_and_never_deleted() {
    // The creation was interrupted at the very beginning, in the middle, and before READY.
    let cases: [fn(&Path); 3] = [
        |database| fs::create_dir(database).unwrap(),
        |database| {
            fs::create_dir(database).unwrap();
            fs::write(database.join("conf"), b"torn").unwrap();
            fs::write(database.join("db"), vec![0xff; 5_000]).unwrap();
        },
        |database| {
            let mut store = SledStore::open(database).unwrap();
            super::super::migrate::run(&mut store, INSTANCE, MIGRATIONS).unwrap();
        },
    ];
    for (number, half_create) in cases.into_iter().enumerate() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory::database(directory.path());
        half_create(&database);
        let before = snapshot(&database).len();
        let (_, _, recovery, _) = open_directory(directory.path());
        assert!(recovery.fresh, "case {number}");
        let aside = directory.path().join("db-unfinished-1");
        assert_eq!(snapshot(&aside).len(), before, "case {number}");
        assert!(recovery.notes[0].contains("db-unfinished-1"), "{:?}", recovery.notes);
    }
}

#[test]
fn without_ready_a_database_with_records_is_refused() {
    for with_acked in [true, false] {
        let (directory, _) = used(3);
        fs::remove_file(directory.path().join("READY")).unwrap();
        if !with_acked {
            fs::remove_file(directory.path().join("acked")).unwrap();
        }
        let before = snapshot(&directory::database(directory.path()));
        let error = refusal(directory.path());
        assert!(matches!(&error, OpenError::Damaged { what, .. } if what.contains("READY is missing")), "{error}");
        assert_eq!(snapshot(&directory::database(directory.path())), before, "untouched");
    }
}

#[test]
fn a_newer_directory_is_refused_untouched() {
    let (directory, _) = used(3);
    directory::write_ready(directory.path(), Ready { format: FORMAT + 1, instance: INSTANCE }).unwrap();
    let before = snapshot(directory.path());
    for error in [refusal(directory.path()), verify_rows(directory.path(), &mut RowMap::default()).unwrap_err()] {
        assert!(
            matches!(error, OpenError::NewerFormat { found, known, .. } if (found, known) == (FORMAT + 1, FORMAT)),
            "{error}"
        );
    }
    assert_eq!(snapshot(directory.path()), before);
}

#[test]
fn an_older_directory_is_backed_up_and_then_migrated() {
    let (directory, model) = used(5);
    let migrate = |path: &Path| {
        let mut rows = RowMap::default();
        // The second migration's traces are no records of this version, so recovery refuses them; it comes after.
        let error = find(path, "a test", INSTANCE, &later(), &mut rows).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("does not belong here"), "{error}");
    };
    migrate(directory.path());
    let ready = directory::read_ready(directory.path()).unwrap().unwrap();
    assert_eq!(ready, Ready { format: FORMAT + 1, instance: INSTANCE });
    {
        let store = SledStore::open(&directory::database(directory.path())).unwrap();
        assert_eq!(store.reader().get(&[TRACE]).unwrap(), Some(vec![5]));
    }
    // The backup is a database of this format with everything in it.
    let restored = tempfile::tempdir().unwrap();
    let backup = directory.path().join(format!("backup-format-{FORMAT}-1"));
    directory::copy_tree(&backup, &directory::database(restored.path())).unwrap();
    directory::write_ready(restored.path(), Ready { format: FORMAT, instance: INSTANCE }).unwrap();
    assert_eq!(open_directory(restored.path()).3, model);
    // It does not happen again, and never over an earlier backup.
    migrate(directory.path());
    assert!(!directory.path().join(format!("backup-format-{FORMAT}-2")).exists());
    assert_eq!(back_up(directory.path(), FORMAT).unwrap(), directory.path().join(format!("backup-format-{FORMAT}-2")));
}

#[test]
fn foreign_and_mixed_up_directories_are_refused() {
    let (directory, _) = used(2);
    directory::write_ready(directory.path(), Ready { format: FORMAT, instance: InstanceId([5; 16]) }).unwrap();
    let error = refusal(directory.path());
    assert!(matches!(&error, OpenError::Damaged { what, .. } if what.contains("belongs to the instance")), "{error}");

    for file in ["db", "conf"] {
        let (directory, _) = used(2);
        fs::remove_file(directory::database(directory.path()).join(file)).unwrap();
        let error = refusal(directory.path());
        assert!(matches!(&error, OpenError::Damaged { what, .. } if what.ends_with("is missing")), "{error}");
    }

    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("letter.txt"), "dear").unwrap();
    let before = snapshot(foreign.path());
    assert!(matches!(refusal(foreign.path()), OpenError::NotOurs { .. }));
    assert_eq!(snapshot(foreign.path()), before);
}

#[test]
fn a_database_that_lost_its_end_is_refused() {
    let (directory, _) = used(4);
    let acked = AckedFile::open(&directory.path().join("acked")).unwrap();
    acked.write(INSTANCE, 1_000).unwrap();
    for error in [refusal(directory.path()), verify_rows(directory.path(), &mut RowMap::default()).unwrap_err()] {
        assert!(matches!(&error, OpenError::Damaged { what, .. } if what.contains("1000 was acknowledged")), "{error}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn nothing_is_taken_after_the_file_beside_the_database_failed() {
    let directory = tempfile::tempdir().unwrap();
    // A device that takes nothing.
    let (mut ledger, ..) = open_directory(directory.path());
    ledger.replace_acked(AckedFile::open(Path::new("/dev/full")).unwrap());
    let error = ledger.commit(&[], &[], &RowMap::default()).unwrap_err();
    assert!(matches!(error, CommitError::Unknown { cause: CommitFailure::Acked(_) }), "{error}");
    let error = ledger.commit(&[], &[], &RowMap::default()).unwrap_err();
    assert_eq!(error, CommitError::NotApplied { cause: CommitFailure::Earlier });
}

#[test]
fn data_in_blobs_is_an_alarm() {
    let directory = tempfile::tempdir().unwrap();
    let (mut ledger, _, _, model) = open_directory(directory.path());
    let blobs = directory::database(directory.path()).join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join("1"), "spilled").unwrap();
    let error = ledger.commit(&[], &[], &model).unwrap_err();
    assert!(error.to_string().contains("blobs"), "{error}");
    let acked = acked::read(&directory.path().join("acked")).unwrap();
    assert_eq!(acked, Acked::Number { instance: INSTANCE, sequence: 0 }, "what failed was never acknowledged");
    assert!(ledger.commit(&[], &[], &model).is_err());
}

#[test]
fn a_value_beyond_the_limit_never_reaches_the_database() {
    let mut batch = Batch::default();
    assert!(batch.put(vec![5], vec![0; 4_097]).is_err());
    assert!(batch.put(vec![5], vec![0; 4_096]).is_ok());
    assert_eq!(batch.operations().len(), 1);
}

#[test]
fn a_verification_reads_only_and_says_what_it_did() {
    let (directory, model) = used(30);
    let before = snapshot(directory.path());
    let mut rows = RowMap::default();
    let (report, _) = verify_rows(directory.path(), &mut rows).map_err(|error| error.to_string()).unwrap();
    assert_eq!(rows, model);
    assert_eq!((report.format, report.instance), (FORMAT, INSTANCE));
    assert_eq!(report.checked.len(), 4, "{:?}", report.checked);
    assert_eq!(report.unchecked.len(), 1, "{:?}", report.unchecked);
    assert_eq!(snapshot(directory.path()), before);
}

#[test]
fn without_a_format_record_nothing_is_written_over() {
    let (directory, _) = used(30);
    let database = directory.path().join("db");
    let mut store = SledStore::open(&database).unwrap();
    let mut batch = Batch::default();
    batch.remove(super::super::keys::format());
    store.commit(&batch).unwrap();
    let meta = super::super::keys::meta();
    let before = store.reader().get(&meta).unwrap();
    drop(store);
    for error in [refusal(directory.path()), verify_rows(directory.path(), &mut RowMap::default()).unwrap_err()] {
        assert!(
            matches!(&error, OpenError::Damaged { what, .. } if what.contains("format record is missing")),
            "{error}"
        );
    }
    assert_eq!(SledStore::open(&database).unwrap().reader().get(&meta).unwrap(), before);
}

#[test]
fn a_real_database_goes_on_with_its_migration_wherever_it_was_interrupted() {
    let (whole, model) = used(30);
    for ends_at in 0..PIECES {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        directory::copy_tree(whole.path(), &data).unwrap();
        ENDS_AT.set(Some(ends_at));
        let error = find(&data, "a test", INSTANCE, &later(), &mut RowMap::default()).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("the process ends here"), "{error}");
        ENDS_AT.set(None);
        // READY says the new format from before the first piece on: this version touches nothing any more.
        let before = snapshot(&data);
        let error = refusal(&data);
        assert!(
            matches!(error, OpenError::NewerFormat { found, known, .. } if (found, known) == (FORMAT + 1, FORMAT)),
            "{error}"
        );
        assert_eq!(snapshot(&data), before, "interrupted at piece {ends_at}");
        // The new one does every piece once. It knows the trace's records no better than this one, so only the migration is run.
        let mut store = SledStore::open(&data.join("db")).unwrap();
        assert_eq!(super::super::migrate::run(&mut store, INSTANCE, &later()).unwrap(), ["9999_count_up"]);
        let reader = store.reader();
        assert_eq!(reader.get(&[TRACE]).unwrap(), Some(vec![PIECES]), "interrupted at piece {ends_at}");
        for piece in 0..PIECES {
            assert_eq!(reader.get(&[TRACE, piece]).unwrap(), Some(vec![piece]));
        }
        // And the database as it was before is still there, next to it.
        let restored = tempfile::tempdir().unwrap();
        directory::copy_tree(&data.join(format!("backup-format-{FORMAT}-1")), &directory::database(restored.path()))
            .unwrap();
        directory::write_ready(restored.path(), Ready { format: FORMAT, instance: INSTANCE }).unwrap();
        assert_eq!(open_directory(restored.path()).3, model);
    }
}
