//! A sync that failed, wherever it was, ends all commits of the process. In a process of its own, since the failure stays.
#![cfg(all(feature = "server", target_os = "linux"))]
// The failure is made by calling the C function that the database calls, on something that cannot be synced.
#![allow(unsafe_code)]

use std::path::Path;

use tenfold::coordinator::Options;
use tenfold::store::{self, CommitError, CommitFailure, OpenError};
use tenfold::types::{InstanceId, Tick};

#[test]
fn nothing_is_taken_after_a_failed_sync() {
    let directory = tempfile::tempdir().unwrap();
    let instance = InstanceId([3; 16]);
    let open = |path: &Path| store::open(path, "a test", instance, Options::default(), Tick(0));
    let mut opened = open(directory.path()).unwrap();
    opened.ledger.commit(&[], &[], &opened.coordinator).unwrap();

    // SAFETY: no memory is involved; -1 is no file.
    let result = unsafe { libc::sync_file_range(-1, 0, 0, 0) };
    assert_eq!(result, -1);
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EBADF), "the caller learns why");

    let error = opened.ledger.commit(&[], &[], &opened.coordinator).unwrap_err();
    let cause = CommitFailure::SyncFailed { errno: libc::EBADF };
    assert_eq!(error, CommitError::NotApplied { cause });
    let error = opened.ledger.commit(&[], &[], &opened.coordinator).unwrap_err();
    assert_eq!(error, CommitError::NotApplied { cause: CommitFailure::Earlier });

    // Not even another directory is opened by this process.
    drop(opened);
    let other = tempfile::tempdir().unwrap();
    let error = open(other.path()).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Store { .. }), "{error}");
}
