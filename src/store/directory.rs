//! The data directory: who holds it, whether it is complete, and the files around the database.
//!
//! ```text
//!   DIR/lock                 held while a server runs; says by whom
//!   DIR/READY                format and instance; written last, when everything else is on the disk
//!   DIR/db/                  the database
//!   DIR/acked                the last acknowledged number
//!   DIR/db-unfinished-N/     a database whose creation was interrupted, moved aside
//!   DIR/backup-format-F-N/   the database as it was before it left format F
//! ```
//!
//! **Invariants.** Nothing is ever deleted. Without READY nothing was ever acknowledged. Every function that makes or renames something
//! returns after it is on the disk, directories included. Deliberately absent: what is in the database.
//! Tested in this file, `store/tests/directories.rs` and `tests/store_disk.rs`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::open::OpenError;
use crate::types::InstanceId;

const LOCK: &str = "lock";
const READY: &str = "READY";
const READY_NEW: &str = "READY.new";
const DATABASE: &str = "db";
const ACKED: &str = "acked";
const UNFINISHED: &str = "db-unfinished-";
const BACKUP: &str = "backup-format-";

/// First line of READY.
const TITLE: &str = "tenfold data directory";

/// Bytes of `lock` that are shown to who finds it taken.
const HOLDER_BYTES_MAX: u64 = 1_024;

/// The database within a data directory.
pub(super) fn database(path: &Path) -> PathBuf {
    path.join(DATABASE)
}

/// The file of the last acknowledged number within a data directory.
pub(super) fn acked(path: &Path) -> PathBuf {
    path.join(ACKED)
}

/// Keeps a directory for its owner until it is dropped; also the death of the process ends it.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: File,
}

/// Takes the lock and leaves word who holds it.
pub(super) fn lock(path: &Path, holder: &str) -> Result<DirectoryLock, OpenError> {
    let name = path.join(LOCK);
    let failed = |source| OpenError::Io { what: format!("lock {}", name.display()), source };
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&name).map_err(failed)?;
    try_lock(path, &mut file)?;
    // Only a note for people: it need not survive a power cut.
    file.set_len(0).map_err(failed)?;
    file.write_all(format!("process {}, {holder}\n", std::process::id()).as_bytes()).map_err(failed)?;
    Ok(DirectoryLock { _file: file })
}

/// Takes the lock without writing anything; `None` if there is no lock file, so that no server ever ran here.
pub(super) fn lock_untouched(path: &Path) -> Result<Option<DirectoryLock>, OpenError> {
    let name = path.join(LOCK);
    match File::open(&name) {
        Ok(mut file) => {
            try_lock(path, &mut file)?;
            Ok(Some(DirectoryLock { _file: file }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::Io { what: format!("open {}", name.display()), source }),
    }
}

fn try_lock(path: &Path, file: &mut File) -> Result<(), OpenError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let mut holder = Vec::new();
            // Whatever can be read is better than nothing.
            let _ = file.take(HOLDER_BYTES_MAX).read_to_end(&mut holder);
            let holder = String::from_utf8_lossy(&holder).trim().to_owned();
            let holder = if holder.is_empty() { "a process that left no word".into() } else { holder };
            Err(OpenError::InUse { path: path.to_owned(), holder })
        }
        Err(TryLockError::Error(source)) => {
            Err(OpenError::Io { what: format!("lock {}", path.join(LOCK).display()), source })
        }
    }
}

/// What READY says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    /// The format of the database, or the one it is being migrated to.
    pub(super) format: u32,
    /// The directory's identity.
    pub(super) instance: InstanceId,
}

/// Reads READY; `None` if there is none.
pub(super) fn read_ready(path: &Path) -> Result<Option<Ready>, OpenError> {
    let name = path.join(READY);
    match fs::read(&name) {
        Ok(bytes) => {
            let ready = parse_ready(&bytes).ok_or_else(|| OpenError::Damaged {
                path: path.to_owned(),
                what: format!("{} cannot be understood; restore it from a backup", name.display()),
            })?;
            Ok(Some(ready))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(OpenError::NotOurs { path: path.to_owned(), why: "it is not a directory".into() })
        }
        Err(source) => Err(OpenError::Io { what: format!("read {}", name.display()), source }),
    }
}

/// Puts READY in place, whole or not at all; on the disk when it returns.
pub(super) fn write_ready(path: &Path, ready: Ready) -> Result<(), OpenError> {
    let name = path.join(READY_NEW);
    let failed = |source| OpenError::Io { what: format!("write {}", name.display()), source };
    let mut file = File::create(&name).map_err(failed)?;
    file.write_all(compose_ready(ready).as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&name, path.join(READY)).map_err(failed)?;
    sync_directory(path)
}

pub(super) fn compose_ready(ready: Ready) -> String {
    let text = format!("{TITLE}\nformat {}\ninstance {}\n", ready.format, ready.instance);
    format!("{text}check {:08x}\n", crc32c::crc32c(text.as_bytes()))
}

pub(super) fn parse_ready(bytes: &[u8]) -> Option<Ready> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.lines().skip(1);
    let format = lines.next()?.strip_prefix("format ")?.parse().ok()?;
    let instance = InstanceId::parse(lines.next()?.strip_prefix("instance ")?)?;
    let ready = Ready { format, instance };
    (text == compose_ready(ready)).then_some(ready)
}

/// Refuses a directory without READY that holds anything which is not ours.
pub(super) fn check_ours(path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Io { what: format!("look into {}", path.display()), source };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(OpenError::NotOurs { path: path.to_owned(), why: "it is not a directory".into() });
        }
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy();
        let ours = [LOCK, READY_NEW, DATABASE, ACKED].contains(&&*name)
            || [UNFINISHED, BACKUP].iter().any(|prefix| name.starts_with(prefix));
        // What file systems and desktops leave in empty directories.
        let harmless = name == "lost+found" || name.starts_with('.');
        if !ours && !harmless {
            let why = format!("it holds {name:?}; choose an empty or a new directory");
            return Err(OpenError::NotOurs { path: path.to_owned(), why });
        }
    }
    Ok(())
}

/// Makes the directory and those above it that are missing.
pub(super) fn create(path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Io { what: format!("make {}", path.display()), source };
    let whole = std::path::absolute(path).map_err(failed)?;
    let missing = whole.ancestors().take_while(|above| !above.exists()).count();
    fs::create_dir_all(&whole).map_err(failed)?;
    // The name of each new directory is in the one above it.
    for above in whole.ancestors().skip(1).take(missing) {
        sync_directory(above)?;
    }
    Ok(())
}

/// Moves an unfinished database out of the way; says where to.
pub(super) fn set_aside(path: &Path) -> Result<PathBuf, OpenError> {
    let target = free_name(path, UNFINISHED);
    let from = database(path);
    let failed = |source| OpenError::Io { what: format!("move {} aside", from.display()), source };
    fs::rename(&from, &target).map_err(failed)?;
    sync_directory(path)?;
    Ok(target)
}

/// Copies the database, which must be closed, before it leaves `format`; says where to.
pub(super) fn back_up(path: &Path, format: u32) -> Result<PathBuf, OpenError> {
    let target = free_name(path, &format!("{BACKUP}{format}-"));
    copy_tree(&database(path), &target)?;
    sync_tree(&target)?;
    sync_directory(path)?;
    Ok(target)
}

fn free_name(path: &Path, prefix: &str) -> PathBuf {
    let mut number = 1_u32;
    loop {
        let name = path.join(format!("{prefix}{number}"));
        if !name.exists() {
            return name;
        }
        number += 1;
    }
}

/// Copies a directory with everything in it to a place that does not exist.
pub(super) fn copy_tree(from: &Path, to: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Io { what: format!("copy {} to {}", from.display(), to.display()), source };
    fs::create_dir(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let target = to.join(entry.file_name());
        if entry.file_type().map_err(failed)?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).map_err(failed)?;
        }
    }
    Ok(())
}

/// Brings every file and directory of a tree to the disk, and the name of its root.
pub(super) fn sync_tree(path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Io { what: format!("sync {}", path.display()), source };
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path()).and_then(|file| file.sync_all()).map_err(failed)?;
        }
    }
    sync_directory(path)
}

/// Brings the names in a directory to the disk.
pub(super) fn sync_directory(path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Io { what: format!("sync {}", path.display()), source };
    File::open(path).and_then(|directory| directory.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_keeps_its_bytes_and_notices_others() {
        let ready = Ready { format: 1, instance: InstanceId([0xab; 16]) };
        let text = "tenfold data directory\nformat 1\ninstance abababababababababababababababab\ncheck c0ffee00\n";
        let composed = compose_ready(ready);
        assert_eq!(composed.lines().take(3).collect::<Vec<_>>(), text.lines().take(3).collect::<Vec<_>>());
        assert_eq!(parse_ready(composed.as_bytes()), Some(ready));
        for index in 0..composed.len() {
            let mut bytes = composed.clone().into_bytes();
            bytes[index] ^= 1;
            assert_eq!(parse_ready(&bytes), None, "byte {index}");
            assert_eq!(parse_ready(&composed.as_bytes()[..index]), None, "cut at {index}");
        }
    }

    #[test]
    fn only_one_holds_the_lock_and_the_other_learns_who() {
        let directory = tempfile::tempdir().unwrap();
        let held = lock(directory.path(), "listening on 127.0.0.1:65432").unwrap();
        for error in [lock(directory.path(), "x").unwrap_err(), lock_untouched(directory.path()).unwrap_err()] {
            let OpenError::InUse { holder, .. } = error else { panic!("{error}") };
            assert_eq!(holder, format!("process {}, listening on 127.0.0.1:65432", std::process::id()));
        }
        drop(held);
        drop(lock_untouched(directory.path()).unwrap());
        lock(directory.path(), "the next").unwrap();
    }

    #[test]
    fn foreign_directories_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("lost+found")).unwrap();
        fs::create_dir(directory.path().join("db")).unwrap();
        check_ours(directory.path()).unwrap();
        fs::write(directory.path().join("thesis.tex"), "").unwrap();
        let error = check_ours(directory.path()).unwrap_err();
        assert!(matches!(&error, OpenError::NotOurs { why, .. } if why.contains("thesis.tex")), "{error}");
        let error = check_ours(&directory.path().join("thesis.tex")).unwrap_err();
        assert!(matches!(&error, OpenError::NotOurs { why, .. } if why.contains("not a directory")), "{error}");
    }
}
