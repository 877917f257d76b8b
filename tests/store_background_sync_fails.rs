//! A sync that fails behind the back of the store: the system tells its failure only once, here to whoever called `fsync`, as
//! the database's background thread does, which then goes on. A program of its own, since a failed sync is never forgiven.
#![cfg(all(feature = "server", target_os = "linux"))]
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::os::fd::OwnedFd;

use tenfold::coordinator::Options;
use tenfold::store::{self, CommitError, CommitFailure, Opened};
use tenfold::types::{InstanceId, Tick};

#[test]
fn nothing_is_taken_after_a_failed_sync_in_the_background() {
    let directory = tempfile::tempdir().unwrap();
    let opened = store::open(directory.path(), "a test", InstanceId([7; 16]), Options::default(), Tick(0)).unwrap();
    let Opened { mut ledger, coordinator, .. } = opened;
    ledger.commit(&[], &[], &coordinator).unwrap();

    // A pipe cannot be synced.
    let (_reader, writer) = std::io::pipe().unwrap();
    File::from(OwnedFd::from(writer)).sync_all().unwrap_err();

    let error = ledger.commit(&[], &[], &coordinator).unwrap_err();
    assert!(matches!(error, CommitError::NotApplied { cause: CommitFailure::SyncFailed { .. } }), "{error}");
}
