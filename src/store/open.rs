//! Opens a data directory: lock, complete or not, backup, migrate, recover.
//!
//! ```text
//!   READY newer ──▶ refuse, untouched
//!   lock
//!   READY missing ──▶ nothing there: create │ half-created database: move aside, create │ records: refuse
//!   READY older ──▶ back up ──▶ READY says the new format
//!   open the database ──▶ migrate ──▶ recover ──▶ compare with READY and `acked` ──▶ check the rows ──▶ first commit
//! ```
//!
//! Creation: database, its first records, sync of every file and directory, then READY, then its directory. So READY is there
//! only if all of the rest is, and without it nothing was ever acknowledged.
//!
//! **Invariants.** Nothing is deleted. Nothing is written before the lock is held, nor to a directory that is refused as newer or not
//! ours. Tested in `store/tests/directories.rs` and `tests/store_disk.rs`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::acked::{self, AckedFile};
use super::codec::Damage;
use super::directory::{self, DirectoryLock, Ready};
use super::keys::Kind;
use super::kv::{ReadError, Reader, Store};
use super::memory::MemoryStore;
use super::migrate::{self, MIGRATIONS, MigrateError, Migration};
use super::recovery::{RecoverError, Recovered, Sink, check_acked, damage_of, recover};
use super::sled::{SledError, SledStore};
use super::verify::Scratch;
use super::{Ledger, Texts};
use crate::coordinator::{self, Coordinator, Restorer};
use crate::types::{InstanceId, Tick};

/// An open data directory, locked until the ledger is dropped.
pub struct Opened {
    /// Where commits go.
    pub ledger: Ledger,
    /// Where keys are read.
    pub texts: Texts,
    /// The state as it was recovered; it has not seen `Command::Boot` yet.
    pub coordinator: Coordinator,
    /// Whose directory it is.
    pub instance: InstanceId,
    /// What was found.
    pub recovery: Recovery,
}

/// What opening found; for the log and the person who starts the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The directory was new.
    pub fresh: bool,
    /// Number of the last journal record.
    pub sequence: u64,
    /// How often the directory was opened, this time included.
    pub starts: u64,
    /// Journal records that were replayed.
    pub journal_records: u64,
    /// Bytes of those.
    pub journal_bytes: u64,
    /// Pages that were read.
    pub pages: u64,
    /// Bytes of those.
    pub page_bytes: u64,
    /// Anything unusual, as sentences.
    pub notes: Vec<String>,
}

/// Why a data directory was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open. Stop that one, or choose another directory.
    #[error("the data directory {} is in use by {holder}", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who holds it, as far as it said.
        holder: String,
    },
    /// A newer version wrote it. Nothing was touched; use that version.
    #[error("the data directory {} has format {found}; this version knows formats up to {known}", path.display())]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// What is stored contradicts itself or cannot be read. Restore a backup; do not delete anything.
    #[error("the data directory {} is damaged: {what}", path.display())]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What and where.
        what: String,
    },
    /// The directory holds something else, or nothing. Nothing was touched; choose another.
    #[error("{} is not a data directory: {why}", path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// What is in the way.
        why: String,
    },
    /// The operating system failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was attempted, with the path.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The database failed, or would not sync. What was durable is safe; starting again may help.
    #[error("the database in {} failed: {what}", path.display())]
    Store {
        /// The directory.
        path: PathBuf,
        /// What it said.
        what: String,
    },
}

/// Locks, migrates and recovers a data directory; makes it if it is not there.
///
/// `holder` is told to whoever finds the directory locked (the process id is added). `fresh_instance`, 16 random bytes,
/// becomes its identity if it is new. Every lease gets its full length from `now` on.
///
/// # Errors
/// See [`OpenError`]; no count is ever read lower than it was acknowledged.
pub fn open(
    path: &Path,
    holder: &str,
    fresh_instance: InstanceId,
    options: coordinator::Options,
    now: Tick,
) -> Result<Opened, OpenError> {
    let mut restorer = Restorer::new();
    let found = find(path, holder, fresh_instance, MIGRATIONS, &mut restorer)?;
    found.restore(restorer, options, now)
}

/// The same over a store in memory, for tests and simulations; nothing in it outlives the process.
///
/// # Errors
/// As for [`open`], as far as there is no directory.
pub fn open_in_memory(
    store: &MemoryStore,
    fresh_instance: InstanceId,
    options: coordinator::Options,
    now: Tick,
) -> Result<Opened, OpenError> {
    let mut restorer = Restorer::new();
    let found = find_in_memory(store, fresh_instance, &mut restorer)?;
    found.restore(restorer, options, now)
}

/// A store that was read back and not yet written to.
pub(super) struct Found {
    path: PathBuf,
    store: Box<dyn Store>,
    recovered: Recovered,
    fresh: bool,
    acked: Option<AckedFile>,
    lock: Option<DirectoryLock>,
}

impl Found {
    fn restore(self, restorer: Restorer, options: coordinator::Options, now: Tick) -> Result<Opened, OpenError> {
        let instance = self.recovered.books.instance;
        let coordinator = restorer
            .finish(options, instance, now)
            .map_err(|error| Trouble::Damaged(damage_of(error)).at(&self.path))?;
        let (ledger, texts, recovery) = self.begin()?;
        Ok(Opened { ledger, texts, coordinator, instance, recovery })
    }

    /// Makes the first commit.
    pub(super) fn begin(self) -> Result<(Ledger, Texts, Recovery), OpenError> {
        let Recovered { books, journal_records, journal_bytes, pages, page_bytes, notes, .. } = self.recovered;
        let recovery = Recovery {
            fresh: self.fresh,
            sequence: books.sequence,
            starts: books.starts + 1,
            journal_records,
            journal_bytes,
            pages,
            page_bytes,
            notes,
        };
        let texts = Texts::new(self.store.reader());
        let ledger = Ledger::take_over(self.store, books, self.acked, self.lock)
            .map_err(|error| Trouble::Store(error.to_string()).at(&self.path))?;
        Ok((ledger, texts, recovery))
    }
}

/// Everything up to the first commit.
pub(super) fn find(
    path: &Path,
    holder: &str,
    fresh_instance: InstanceId,
    migrations: &[Migration],
    sink: &mut impl Sink,
) -> Result<Found, OpenError> {
    // Looked at before anything is written, and again when nobody else can change it.
    if check_ready(path, migrations)?.is_none() {
        directory::check_ours(path)?;
    }
    directory::create(path)?;
    let lock = directory::lock(path, holder)?;
    let ready = check_ready(path, migrations)?;
    let mut notes = Vec::new();
    let (mut store, instance) = match ready {
        Some(ready) => (open_complete(path, ready, migrations, &mut notes)?, ready.instance),
        None => (create(path, fresh_instance, migrations, &mut notes)?, fresh_instance),
    };
    let ran = migrate::run(&mut store, instance, migrations).map_err(|error| Trouble::from(error).at(path))?;
    notes.extend(ran.iter().map(|name| format!("the migration {name} was run")));
    let mut recovered = recover(&*store.reader(), sink).map_err(|error| Trouble::from(error).at(path))?;
    check_instance(&recovered, instance).map_err(|damage| Trouble::Damaged(damage).at(path))?;
    let acked_path = directory::acked(path);
    let acked_failed = |source| OpenError::Io { what: format!("open {}", acked_path.display()), source };
    let acked = acked::read(&acked_path).map_err(acked_failed)?;
    let note = check_acked(&acked, &recovered.books).map_err(|damage| Trouble::Damaged(damage).at(path))?;
    notes.extend(note);
    notes.append(&mut recovered.notes);
    recovered.notes = notes;
    Ok(Found {
        path: path.to_owned(),
        store: Box::new(store),
        recovered,
        fresh: ready.is_none(),
        acked: Some(AckedFile::open(&acked_path).map_err(acked_failed)?),
        lock: Some(lock),
    })
}

/// The same over a store in memory.
pub(super) fn find_in_memory(
    store: &MemoryStore,
    fresh_instance: InstanceId,
    sink: &mut impl Sink,
) -> Result<Found, OpenError> {
    let path = PathBuf::from("(memory)");
    let mut store = store.clone();
    let ran = migrate::run(&mut store, fresh_instance, MIGRATIONS).map_err(|error| Trouble::from(error).at(&path))?;
    let recovered = recover(&*store.reader(), sink).map_err(|error| Trouble::from(error).at(&path))?;
    Ok(Found { path, store: Box::new(store), recovered, fresh: !ran.is_empty(), acked: None, lock: None })
}

/// READY and the database must speak of the same directory.
pub(super) fn check_instance(recovered: &Recovered, ready: InstanceId) -> Result<(), Damage> {
    let stored = recovered.books.instance;
    if stored == ready {
        return Ok(());
    }
    Err(Damage(format!("READY belongs to the instance {ready}, the database to {stored}")))
}

/// READY, unless it is newer than the migrations.
fn check_ready(path: &Path, migrations: &[Migration]) -> Result<Option<Ready>, OpenError> {
    let ready = directory::read_ready(path)?;
    let known = migrations.len() as u32;
    match ready {
        Some(Ready { format, .. }) if format > known => {
            Err(OpenError::NewerFormat { path: path.to_owned(), found: format, known })
        }
        ready => Ok(ready),
    }
}

fn open_complete(
    path: &Path,
    ready: Ready,
    migrations: &[Migration],
    notes: &mut Vec<String>,
) -> Result<SledStore, OpenError> {
    check_database_files(path)?;
    let known = migrations.len() as u32;
    if ready.format < known {
        let backup = directory::back_up(path, ready.format)?;
        notes.push(format!("the database of format {} was copied to {}", ready.format, backup.display()));
        directory::write_ready(path, Ready { format: known, ..ready })?;
    }
    let store = SledStore::open(&directory::database(path)).map_err(|error| Trouble::from(error).at(path))?;
    check_format(&*store.reader()).map_err(|trouble| trouble.at(path))?;
    Ok(store)
}

/// A complete database has a format record. Without one it would count as empty, and the first migration would write over what
/// else is there.
pub(super) fn check_format(reader: &dyn Reader) -> Result<(), Trouble> {
    match migrate::read_format(reader)? {
        Some(_) => Ok(()),
        None => Err(Trouble::Damaged(Damage("the format record is missing".into()))),
    }
}

/// Opening would make a new database where files are missing.
pub(super) fn check_database_files(path: &Path) -> Result<(), OpenError> {
    for name in ["db", "conf"] {
        let file = directory::database(path).join(name);
        if !file.is_file() {
            return Err(Trouble::Damaged(Damage(format!("{} is missing", file.display()))).at(path));
        }
    }
    Ok(())
}

fn create(
    path: &Path,
    instance: InstanceId,
    migrations: &[Migration],
    notes: &mut Vec<String>,
) -> Result<SledStore, OpenError> {
    let database = directory::database(path);
    if directory::acked(path).exists() {
        let what = "READY is missing, but something was acknowledged here; restore READY from a backup";
        return Err(Trouble::Damaged(Damage(what.into())).at(path));
    }
    if database.exists() {
        if holds_records(path)? {
            let what = "READY is missing, but the database holds records; restore READY from a backup";
            return Err(Trouble::Damaged(Damage(what.into())).at(path));
        }
        let aside = directory::set_aside(path)?;
        notes.push(format!("an unfinished database was moved to {}", aside.display()));
    }
    let trouble = |trouble: Trouble| trouble.at(path);
    let mut store = SledStore::open(&database).map_err(|error| trouble(error.into()))?;
    migrate::run(&mut store, instance, migrations).map_err(|error| trouble(error.into()))?;
    directory::sync_tree(&database)?;
    directory::sync_directory(path)?;
    directory::write_ready(path, Ready { format: migrations.len() as u32, instance })?;
    Ok(store)
}

/// Whether a database without READY holds more than creation writes. Looks at a copy, since opening writes. A database that cannot be
/// opened was not finished.
fn holds_records(path: &Path) -> Result<bool, OpenError> {
    let scratch = Scratch::copy_of(&directory::database(path))?;
    let Ok(store) = SledStore::open(scratch.path()) else { return Ok(false) };
    let mut found = false;
    let mut visit = |_: &[u8], _: &[u8]| {
        found = true;
        ControlFlow::Break(())
    };
    let (from, below) = ([Kind::Map as u8], [0xff; 9]);
    store.reader().scan(&from, &below, &mut visit).map_err(|error| Trouble::from(error).at(path))?;
    Ok(found)
}

/// What can go wrong below, before it is known in which directory.
pub(super) enum Trouble {
    Damaged(Damage),
    Newer { found: u32, known: u32 },
    Locked,
    Store(String),
}

impl Trouble {
    pub(super) fn at(self, path: &Path) -> OpenError {
        let path = path.to_owned();
        match self {
            Self::Damaged(Damage(what)) => OpenError::Damaged { path, what },
            Self::Newer { found, known } => OpenError::NewerFormat { path, found, known },
            Self::Locked => OpenError::InUse { path, holder: "a process that has its database open".into() },
            Self::Store(what) => OpenError::Store { path, what },
        }
    }
}

impl From<ReadError> for Trouble {
    fn from(error: ReadError) -> Self {
        Self::Store(error.to_string())
    }
}

impl From<RecoverError> for Trouble {
    fn from(error: RecoverError) -> Self {
        match error {
            RecoverError::Damaged(damage) => Self::Damaged(damage),
            RecoverError::Read(error) => error.into(),
        }
    }
}

impl From<SledError> for Trouble {
    fn from(error: SledError) -> Self {
        match error {
            SledError::Damaged(what) => Self::Damaged(Damage(what)),
            SledError::Locked => Self::Locked,
            SledError::Io(error) => Self::Store(error.to_string()),
            SledError::NoSync(failure) => Self::Store(failure.to_string()),
        }
    }
}

impl From<MigrateError> for Trouble {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Newer { found, known } => Self::Newer { found, known },
            MigrateError::Damaged(damage) => Self::Damaged(damage),
            MigrateError::Read(error) => error.into(),
            MigrateError::Step { .. } | MigrateError::Commit(_) => Self::Store(error.to_string()),
        }
    }
}
