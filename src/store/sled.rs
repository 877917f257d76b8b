//! The store on disk: a sled database that really syncs. The only file that may say `sled::`.
//!
//! sled 0.34.7 calls `sync_file_range` on Linux, which does not make anything durable. So this file defines that C symbol, and what
//! sled calls is `fdatasync`; the database's own ordering of writes then holds as well. Since nothing would be noticed if the
//! linker chose another symbol, every start proves it by a direct call, and every commit by a count that must have risen. It defines
//! `fsync`, too, since sled also syncs in the background and overlooks failures there. Elsewhere (macOS) sled syncs whole files by itself.
//!
//! Further rules, each of which has cost data where it was not kept: one writer; one flush a commit, of one batch or of records inserted in order; no value above
//! 4 KiB, and an alarm when the database spills into `blobs/`, which it never syncs; nothing is acknowledged and nothing is
//! tried again after an error or a failed sync, not even by closing; a panic while opening is damage, not a crash; a snapshot
//! that a killed process had only begun to write is removed before opening, since sled would take it for the newest; and the names that
//! opening leaves are synced, since sled renames and removes files without.
//!
//! **Invariants.** A commit that returns `Ok` was synced after its last byte was written. A failed sync, also one in the
//! background, fails every later commit of the process. Deliberately absent: temporary databases, compression, other trees.
//! Tested in this file, `tests/store_disk.rs` and `tests/store_sync_fails.rs`.

use std::fs::{DirEntry, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::Dir;

use super::kv::{Batch, CommitError, CommitFailure, ReadError, Reader, Record, Store, Visitor};

/// Memory that the database may use for what it has read, in bytes.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// How often the database writes in the background, in milliseconds.
const FLUSH_EVERY_MS: u64 = 500;

/// A database that was just closed in this process can stay locked for a moment: how often to try, and how long to wait between.
const OPEN_ATTEMPTS: u32 = 40;
const OPEN_PAUSE: Duration = Duration::from_millis(50);

/// The directory of a database's spilled values, within its own.
const BLOBS: &str = "blobs";

/// Begins the name of a snapshot of the database's index, and ends that of one that is still being written: it is renamed
/// when it is complete, and only then is the one before it removed.
const SNAPSHOT: &str = "snap.";
const SNAPSHOT_UNFINISHED: &str = ".generating";

/// The database's main file, within its directory.
const MAIN_FILE: &str = "db";

/// How many real syncs this process has made for databases; rises with every commit. Always 0 where sled syncs by itself.
pub fn syncs() -> u64 {
    sync::count()
}

/// How many records this process has read from databases, and real syncs it has made: rises while an opening gets on.
pub fn steps() -> u64 {
    READ.load(Ordering::Relaxed).wrapping_add(sync::count())
}

/// Records read.
static READ: AtomicU64 = AtomicU64::new(0);

/// A sled database.
pub struct SledStore {
    database: ::sled::Db,
    /// Held open, so that a commit needs no new file descriptor: there may be none left.
    blobs: Dir,
    failed: bool,
}

/// Why a database was not opened.
#[derive(Debug, thiserror::Error)]
pub enum SledError {
    /// It cannot be read: damaged, or only half created.
    #[error("the database does not open: {0}")]
    Damaged(String),
    /// Still locked after two seconds.
    #[error("the database is locked by another process")]
    Locked,
    /// The operating system failed.
    #[error("the database does not open: {0}")]
    Io(#[from] io::Error),
    /// It does not sync: this program was linked in a way that makes it unsafe to use.
    #[error("the database would not sync: {0}")]
    NoSync(CommitFailure),
}

impl SledStore {
    /// Opens the database in a directory; makes it if it is not there. Writes even when nothing is committed.
    ///
    /// # Errors
    /// See [`SledError`].
    pub fn open(path: &Path) -> Result<Self, SledError> {
        sync::check().map_err(SledError::NoSync)?;
        forget_cached(path)?;
        remove_unfinished_snapshots(path)?;
        let database = open_database(path)?;
        File::open(path)?.sync_all()?;
        // The database has made it if it was not there.
        let blobs = Dir::new(File::open(path.join(BLOBS))?).map_err(io::Error::from)?;
        let mut store = Self { database, blobs, failed: false };
        sync::prove(&File::open(path.join(MAIN_FILE))?).map_err(SledError::NoSync)?;
        store.check_blobs().map_err(|failure| SledError::Damaged(failure.to_string()))?;
        Ok(store)
    }

    /// Writes, flushes, and makes sure that it was synced. After an error the database's memory is ahead of the disk, and its background
    /// thread may still write: unknown.
    fn durably(&mut self, write: impl FnOnce(&::sled::Db) -> ::sled::Result<()>) -> Result<(), CommitError> {
        if self.failed {
            return Err(CommitError::NotApplied { cause: CommitFailure::Earlier });
        }
        self.failed = true;
        sync::check().map_err(|cause| CommitError::NotApplied { cause })?;
        let before = sync::count();
        let unknown = |cause| CommitError::Unknown { cause };
        let failed = |error: ::sled::Error| unknown(CommitFailure::Store(error.to_string()));
        write(&self.database).map_err(failed)?;
        self.database.flush().map_err(failed)?;
        sync::check().map_err(unknown)?;
        sync::check_rose(before).map_err(unknown)?;
        self.check_blobs().map_err(unknown)?;
        self.failed = false;
        Ok(())
    }

    fn check_blobs(&mut self) -> Result<(), CommitFailure> {
        self.blobs.rewind();
        for entry in &mut self.blobs {
            let entry = entry.map_err(|error| CommitFailure::Store(format!("cannot look into `{BLOBS}`: {error}")))?;
            if ![&b"."[..], b".."].contains(&entry.file_name().to_bytes()) {
                return Err(CommitFailure::Blobs);
            }
        }
        Ok(())
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        if self.failed || sync::check().is_err() {
            // Closing would write and sync once more, after a failure, and may hang; the process is about to end anyway.
            std::mem::forget(self.database.clone());
        }
    }
}

impl Store for SledStore {
    fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let mut operations = ::sled::Batch::default();
        for (key, value) in batch.operations() {
            match value {
                Some(value) => operations.insert(key.as_slice(), value.as_slice()),
                None => operations.remove(key.as_slice()),
            }
        }
        self.durably(|database| database.apply_batch(operations))
    }

    /// The database's log is written in the order of the calls, and read back up to its first gap: so what a cut leaves of these
    /// records are the first.
    fn append(&mut self, records: &[Record]) -> Result<(), CommitError> {
        self.durably(|database| {
            for (key, value) in records {
                database.insert(key.as_slice(), value.as_slice())?;
            }
            Ok(())
        })
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(SledReader { tree: ::sled::Tree::clone(&self.database) })
    }
}

/// Looks into the database; keeps it open.
struct SledReader {
    tree: ::sled::Tree,
}

impl Reader for SledReader {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.tree.get(key).map_err(read_error)?.map(|value| value.to_vec()))
    }

    fn at_or_below(&self, key: &[u8]) -> Result<Option<Record>, ReadError> {
        let found = self.tree.range(..=key).next_back().transpose().map_err(read_error)?;
        Ok(found.map(|(key, value)| (key.to_vec(), value.to_vec())))
    }

    fn scan(&self, from: &[u8], below: &[u8], visit: &mut Visitor<'_>) -> Result<(), ReadError> {
        if from >= below {
            return Ok(());
        }
        for item in self.tree.range(from..below) {
            let (key, value) = item.map_err(read_error)?;
            READ.fetch_add(1, Ordering::Relaxed);
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn read_error(error: ::sled::Error) -> ReadError {
    ReadError(error.to_string())
}

/// What is in a database's directory; nothing while there is none.
fn entries(path: &Path) -> io::Result<Vec<DirEntry>> {
    match std::fs::read_dir(path) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Has the system read the database's files from the disk again. After a failed sync it takes what was not written for written:
/// whoever starts next would find in its memory what the disk does not have, and build on it.
#[cfg(target_os = "linux")]
pub(super) fn forget_cached(path: &Path) -> io::Result<()> {
    for entry in entries(path)? {
        if entry.file_type()?.is_file() {
            let file = File::open(entry.path())?;
            // What is not yet written stays; so that little is left to forget, it is written first.
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
            // All of it will be read, in another order than it is written: so it is fetched in that one, meanwhile.
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::WillNeed)?;
        }
    }
    Ok(())
}

/// Elsewhere there is no way to ask for it.
#[cfg(not(target_os = "linux"))]
pub(super) fn forget_cached(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// Removes snapshots that a killed process had not finished. They are written by every opening, so a server that is killed
/// while it starts leaves one now and then. The database means to overlook them, but looks for another ending, reads half
/// a snapshot, and is "corrupted" for ever.
///
/// Without a finished one, a complete one stays: it was synced, then the one before it was removed, and a power cut undid only its
/// renaming. An incomplete one is then the first that the database ever wrote: it reads its whole log instead, as
/// it was doing when it was killed.
fn remove_unfinished_snapshots(path: &Path) -> io::Result<()> {
    let (mut finished, mut unfinished) = (false, Vec::new());
    for entry in entries(path)? {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(SNAPSHOT) && name.ends_with(SNAPSHOT_UNFINISHED) {
            unfinished.push(entry.path());
        } else {
            finished |= name.starts_with(SNAPSHOT);
        }
    }
    for snapshot in unfinished {
        if finished || !is_complete_snapshot(&std::fs::read(&snapshot)?) {
            std::fs::remove_file(&snapshot)?;
        }
    }
    Ok(())
}

/// Whether a snapshot has its end: the length of what is before, in 8 bytes, and its CRC-32, in 4.
fn is_complete_snapshot(bytes: &[u8]) -> bool {
    let Some((before, checksum)) = bytes.split_last_chunk() else { return false };
    let Some((content, length)) = before.split_last_chunk() else { return false };
    !content.is_empty()
        && u64::from_le_bytes(*length) == content.len() as u64
        && u32::from_le_bytes(*checksum) == crc32fast::hash(content)
}

fn open_database(path: &Path) -> Result<::sled::Db, SledError> {
    let config = ::sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(Some(FLUSH_EVERY_MS))
        .use_compression(false);
    for _ in 0..OPEN_ATTEMPTS {
        let opened = catch_unwind(AssertUnwindSafe(|| config.open()));
        match opened {
            Ok(Ok(database)) => return Ok(database),
            Ok(Err(error)) if is_locked(&error) => std::thread::sleep(OPEN_PAUSE),
            Ok(Err(::sled::Error::Io(error))) => return Err(SledError::Io(error)),
            Ok(Err(error)) => return Err(SledError::Damaged(error.to_string())),
            Err(panic) => return Err(SledError::Damaged(panic_text(&*panic))),
        }
    }
    Err(SledError::Locked)
}

/// The database reports a lock that is held as an error of its own making; only its text tells.
fn is_locked(error: &::sled::Error) -> bool {
    let text = error.to_string();
    text.contains("WouldBlock") || text.contains("could not acquire lock")
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked").to_owned()
}

/// The real syncs.
#[cfg(target_os = "linux")]
mod sync {
    // The one place of the project with `unsafe`: a C symbol cannot be defined or called without it.
    #![allow(unsafe_code)]

    use std::ffi::{c_int, c_uint};
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;
    use std::sync::RwLock;
    use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

    use super::CommitFailure;

    static COUNT: AtomicU64 = AtomicU64::new(0);
    /// The first failure's error number; 0 while there was none.
    static FAILED: AtomicI32 = AtomicI32::new(0);
    /// The system tells a file's failure once, to whoever syncs it next. So that nobody is told that all is well before the failure
    /// that another thread has just been told is noted, that thread syncs alone.
    static ORDER: RwLock<()> = RwLock::new(());

    /// Takes the place of the C library's function of this name: what sled takes for a sync is one.
    ///
    /// `libc::fdatasync` and no other: it leaves the error in `errno`, where sled looks for it.
    #[unsafe(no_mangle)]
    extern "C" fn sync_file_range(file: c_int, _offset: i64, _bytes: i64, _flags: c_uint) -> c_int {
        let order = ORDER.read();
        // SAFETY: `fdatasync` takes any number; one that is no open file is an error, not undefined behaviour.
        let result = unsafe { libc::fdatasync(file) };
        let errno = note(result);
        drop(order);
        if result == 0 {
            COUNT.fetch_add(1, Ordering::SeqCst);
        }
        leave(errno);
        result
    }

    /// Takes the place of the C library's function of this name, by which everything else is synced: sled does so twice a
    /// second, and goes on after a failure, of which the next sync of a commit would not be told any more.
    #[unsafe(no_mangle)]
    extern "C" fn fsync(file: c_int) -> c_int {
        let order = ORDER.write();
        // SAFETY: as above; the system call takes one number, and the function of the C library is nothing else.
        let result = unsafe { libc::syscall(libc::SYS_fsync, file) } as c_int;
        let errno = note(result);
        drop(order);
        leave(errno);
        result
    }

    /// Remembers a failure; 0 if it is none. Whoever was interrupted has not synced, and is going to try again.
    fn note(result: c_int) -> i32 {
        if result == 0 {
            return 0;
        }
        let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        if errno != libc::EINTR {
            let _ = FAILED.compare_exchange(0, errno, Ordering::SeqCst, Ordering::SeqCst);
        }
        errno
    }

    /// Leaves the error where callers look for it; what came after the failure may have changed it.
    fn leave(errno: i32) {
        if errno != 0 {
            // SAFETY: the address of this thread's own `errno` is always valid.
            unsafe { *libc::__errno_location() = errno };
        }
    }

    pub(super) fn count() -> u64 {
        COUNT.load(Ordering::SeqCst)
    }

    /// Calls the C function by its name, as sled does, and looks whether it was ours.
    pub(super) fn prove(file: &File) -> Result<(), CommitFailure> {
        check()?;
        let before = count();
        // SAFETY: the file is open; the call is a plain sync of it.
        let result = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, 0) };
        check()?;
        if result == 0 { check_rose(before) } else { Err(CommitFailure::NotSynced) }
    }

    pub(super) fn check() -> Result<(), CommitFailure> {
        match FAILED.load(Ordering::SeqCst) {
            0 => Ok(()),
            errno => Err(CommitFailure::SyncFailed { errno }),
        }
    }

    pub(super) fn check_rose(before: u64) -> Result<(), CommitFailure> {
        if count() > before { Ok(()) } else { Err(CommitFailure::NotSynced) }
    }
}

/// Elsewhere sled calls `sync_all` itself and reports its failure.
#[cfg(not(target_os = "linux"))]
mod sync {
    use std::fs::File;

    use super::CommitFailure;

    pub(super) fn count() -> u64 {
        0
    }

    pub(super) fn prove(_file: &File) -> Result<(), CommitFailure> {
        Ok(())
    }

    pub(super) fn check() -> Result<(), CommitFailure> {
        Ok(())
    }

    pub(super) fn check_rose(_before: u64) -> Result<(), CommitFailure> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_complete_with_its_last_byte() {
        // The last is the check value of this CRC, as its definition gives it.
        let whole = [b"123456789".as_slice(), &9_u64.to_le_bytes(), &0xcbf4_3926_u32.to_le_bytes()].concat();
        assert!(is_complete_snapshot(&whole));
        assert!((0..whole.len()).all(|length| !is_complete_snapshot(&whole[..length])));
    }
}
