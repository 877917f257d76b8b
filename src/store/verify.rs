//! Checks the data directory of a stopped server without writing to it: everything recovery checks, and every text. What was found can
//! be written down afterwards ([`super::dump`]).
//!
//! Opening a database writes, so what is looked at is a copy in the system's temporary directory (`TMPDIR`), which is removed
//! afterwards and needs as much room as the database. It is what the disk has, not what the system remembers of it: what was written and
//! not synced is synced first. The directory's lock is held meanwhile, so that no server changes what is being copied.
//!
//! **Invariant.** The original is only read. Deliberately absent: repairs.
//! Tested in `store/tests/damage.rs` and `tests/store_disk.rs`.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::acked::{self, Acked};
use super::codec::Damage;
use super::directory;
use super::dump::{self, Keys};
use super::keys::{self, Kind};
use super::kv::{Reader, Store};
use super::memory::MemoryStore;
use super::migrate::{self, MIGRATIONS};
use super::open::{OpenError, Trouble, check_database_files, check_format, check_instance};
use super::recovery::{RecoverError, Recovered, Sink, check_acked, damage_of, recover, visit_kind};
use super::sled::{SledStore, forget_cached};
use super::texts::read_block;
use crate::coordinator::rows::{CampaignRow, Phase};
use crate::coordinator::{Coordinator, Options, Restorer};
use crate::types::{InstanceId, Tasks, Tick};

/// What was looked at, all of it in order, and what could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// The directory's format.
    pub format: u32,
    /// Whose directory it is.
    pub instance: InstanceId,
    /// Number of the last journal record.
    pub sequence: u64,
    /// What was checked and found in order, one sentence each.
    pub checked: Vec<String>,
    /// What could not be checked, one sentence each.
    pub unchecked: Vec<String>,
    /// Digest of the recovered state: see [`super::dump`]. The same state has the same digest, however it is laid out on the disk.
    pub digest: String,
}

/// What a data directory says, recovered and checked: what a server would start from.
#[derive(Debug)]
pub struct VerifiedState {
    coordinator: Coordinator,
    keys: Keys,
}

impl VerifiedState {
    /// The state as text, one line a row: see [`super::dump`].
    pub fn lines(&self) -> impl Iterator<Item = String> {
        dump::lines(self.coordinator.rows(), &self.keys)
    }
}

/// Checks everything that can be checked in the data directory of a stopped server.
///
/// # Errors
/// The first damage found, or why it could not be looked for: see [`OpenError`].
pub fn verify(path: &Path) -> Result<VerifyReport, OpenError> {
    verify_state(path).map(|(report, _)| report)
}

/// The same, and the state itself.
///
/// # Errors
/// As for [`verify`].
pub fn verify_state(path: &Path) -> Result<(VerifyReport, VerifiedState), OpenError> {
    let mut restorer = Restorer::new();
    let (mut report, keys) = verify_rows(path, &mut restorer)?;
    let state = finish(restorer, report.instance, keys, path)?;
    report.checked.push("the rows fit together: books of every task, leases, sessions, quarantines".into());
    report.digest = dump::digest(state.lines());
    Ok((report, state))
}

/// The same over the records of a store in memory, for tests and simulations: the state, unless they are damaged.
///
/// # Errors
/// As for [`verify`], as far as there is no directory.
pub fn verify_in_memory(store: &MemoryStore) -> Result<VerifiedState, OpenError> {
    let path = Path::new("(memory)");
    let mut restorer = Restorer::new();
    check_format(store).map_err(|trouble| trouble.at(path))?;
    let recovered = recover(store, &mut restorer).map_err(|error| Trouble::from(error).at(path))?;
    let (_, keys) = check_texts(store, &recovered).map_err(|error| Trouble::from(error).at(path))?;
    finish(restorer, recovered.books.instance, keys, path)
}

/// Checks that the rows fit together.
fn finish(restorer: Restorer, instance: InstanceId, keys: Keys, path: &Path) -> Result<VerifiedState, OpenError> {
    let coordinator = restorer
        .finish(Options::default(), instance, Tick::default())
        .map_err(|error| Trouble::Damaged(damage_of(error)).at(path))?;
    Ok(VerifiedState { coordinator, keys })
}

/// Everything but what the rows mean, and the digest; the keys of complete campaigns.
pub(super) fn verify_rows(path: &Path, sink: &mut impl Sink) -> Result<(VerifyReport, Keys), OpenError> {
    let Some(ready) = directory::read_ready(path)? else {
        let why = if path.exists() { "there is no READY in it" } else { "it does not exist" }.into();
        return Err(OpenError::NotOurs { path: path.to_owned(), why });
    };
    let known = MIGRATIONS.len() as u32;
    if ready.format > known {
        return Err(OpenError::NewerFormat { path: path.to_owned(), found: ready.format, known });
    }
    let mut report = VerifyReport {
        format: ready.format,
        instance: ready.instance,
        sequence: 0,
        checked: Vec::new(),
        unchecked: Vec::new(),
        digest: String::new(),
    };
    let lock = directory::lock_untouched(path)?;
    if lock.is_none() {
        report.unchecked.push("whether a server is running: there is no lock file".into());
    }
    check_database_files(path)?;
    let acked_path = directory::acked(path);
    let acked = acked::read(&acked_path)
        .map_err(|source| OpenError::Io { what: format!("read {}", acked_path.display()), source })?;
    let database = directory::database(path);
    // What is only in the system's memory may be gone with the next power cut, and was nobody's to see.
    forget_cached(&database)
        .map_err(|source| OpenError::Io { what: format!("read {}", database.display()), source })?;
    let scratch = Scratch::copy_of(&database)?;
    drop(lock);

    let mut store = SledStore::open(scratch.path()).map_err(|error| Trouble::from(error).at(path))?;
    check_format(&*store.reader()).map_err(|trouble| trouble.at(path))?;
    let ran = migrate::run(&mut store, ready.instance, MIGRATIONS).map_err(|error| Trouble::from(error).at(path))?;
    if !ran.is_empty() {
        report.checked.push(format!("the copy could be migrated: {}", ran.join(", ")));
    }
    let reader = store.reader();
    let recovered = recover(&*reader, sink).map_err(|error| Trouble::from(error).at(path))?;
    check_instance(&recovered, ready.instance).map_err(|damage| Trouble::Damaged(damage).at(path))?;
    describe(&recovered, &mut report);
    let note = check_acked(&acked, &recovered.books).map_err(|damage| Trouble::Damaged(damage).at(path))?;
    match (note, acked) {
        (Some(note), _) => report.unchecked.push(note),
        (None, Acked::Number { sequence, .. }) => {
            report.checked.push(format!("the journal reaches number {sequence}, the last one that `acked` names"));
        }
        (None, Acked::Absent | Acked::Torn) => {}
    }
    let (blocks, keys) = check_texts(&*reader, &recovered).map_err(|error| Trouble::from(error).at(path))?;
    let total: u64 = keys.values().map(dump::KeysDigest::count).sum();
    report.checked.push(format!("{blocks} blocks of texts: checksums; all {total} keys of keyed campaigns are there"));
    report.unchecked.push("whether the whole directory is an old copy of itself: see docs/STORAGE.md".into());
    Ok((report, keys))
}

fn describe(recovered: &Recovered, report: &mut VerifyReport) {
    let books = &recovered.books;
    report.sequence = books.sequence;
    report.checked.push(format!(
        "{} journal records, {} bytes: checksums, and no gap from number {} to {}",
        recovered.journal_records, recovered.journal_bytes, books.floor, books.sequence
    ));
    report.checked.push(format!(
        "{} pages, {} bytes: checksums, exactly those that the map names, each in its last version",
        recovered.pages, recovered.page_bytes
    ));
    report.unchecked.extend(recovered.notes.iter().cloned());
}

/// Checks every block, and that keyed campaigns have all their keys; counts blocks, digests keys.
pub(super) fn check_texts(reader: &dyn Reader, recovered: &Recovered) -> Result<(u64, Keys), RecoverError> {
    let mut blocks = 0;
    // The count of each campaign is where its next block must begin; stays behind at the first gap.
    let mut found = Keys::new();
    for (id, campaign) in &recovered.campaigns {
        if is_complete(campaign) && matches!(campaign.spec.tasks, Tasks::Keys { .. }) {
            found.insert(*id, dump::KeysDigest::default());
        }
    }
    visit_kind(reader, Kind::Text, &[], |key, value| {
        let place = keys::parse_text(key);
        let (campaign, first) = place.ok_or_else(|| Damage("a text record has a strange key".into()))?;
        let texts = read_block(key, value)?;
        blocks += 1;
        if !recovered.campaigns.get(&campaign).is_some_and(is_complete) {
            return Ok(());
        }
        let Some(keys) = found.get_mut(&campaign) else {
            return Err(Damage(format!("campaign {} has keys, but its tasks have none", campaign.0)));
        };
        let next = keys.count();
        if u64::from(first.0) != next || texts.is_empty() {
            let what = format!("keys of campaign {} are missing from task {next} on, or are there twice", campaign.0);
            return Err(Damage(what));
        }
        for text in &texts {
            keys.add(text);
        }
        Ok(())
    })?;
    for (id, keys) in &found {
        let expected = recovered.campaigns.get(id).map_or(0, |campaign| campaign.spec.tasks.count());
        if keys.count() != u64::from(expected) {
            let what = format!("campaign {} has {} keys, but {expected} tasks with keys", id.0, keys.count());
            return Err(Damage(what).into());
        }
    }
    Ok((blocks, found))
}

fn is_complete(campaign: &CampaignRow) -> bool {
    match campaign.phase {
        Phase::Running | Phase::Paused | Phase::Cancelled => true,
        // Keys are still arriving or are already being removed.
        Phase::Creating | Phase::Removing => false,
    }
}

/// A copy of a directory in a temporary place, for its owner's eyes only; removed when dropped.
pub(super) struct Scratch {
    root: PathBuf,
    copy: PathBuf,
}

impl Scratch {
    /// Copies a directory.
    pub(super) fn copy_of(path: &Path) -> Result<Self, OpenError> {
        let root = make_scratch()?;
        let scratch = Self { copy: root.join("db"), root };
        directory::copy_tree(path, &scratch.copy)?;
        Ok(scratch)
    }

    /// Where the copy is.
    pub(super) fn path(&self) -> &Path {
        &self.copy
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It is only a copy; what cannot be removed stays in the temporary directory.
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

fn make_scratch() -> Result<PathBuf, OpenError> {
    let mut number = 0_u32;
    loop {
        let root = std::env::temp_dir().join(format!("tenfold-copy-{}-{number}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&root) {
            Ok(()) => return Ok(root),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(source) => return Err(OpenError::Io { what: format!("make {}", root.display()), source }),
        }
    }
}
