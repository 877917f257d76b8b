//! Brings a store to the format of this version, one numbered migration after the other, each in steps that can be
//! interrupted between any two of them.
//!
//! A migration is a file in `migrations/` that is never edited once it is released. Its step looks at the store and at a cursor of its own,
//! and answers with a batch and the next cursor. The runner stores the cursor in the format record, in the same batch as
//! the step's writes; so a step is done, or it is done again from the same state. The last step's batch names the new format.
//!
//! **Invariants.** The layout of the format record never changes. A store of a newer format is not written to. The caller has made a
//! backup and has put the new format into READY before the first step, so that an older version does not touch what is half done.
//! Tested in this file, with a second migration that exists only there.

use super::codec::{self, Damage, DiskFormat};
use super::keys;
use super::kv::{Batch, CommitError, CommitFailure, ReadError, Reader, Store};
use crate::types::InstanceId;

#[path = "../../migrations/0002_append.rs"]
mod append;
#[path = "../../migrations/0001_create.rs"]
mod create;

/// The format that this version reads and writes.
pub const FORMAT: u32 = 2;

/// Every migration, in order; the first one makes format 1 of nothing.
pub(super) const MIGRATIONS: &[Migration] =
    &[Migration { name: "0001_create", step: create::step }, Migration { name: "0002_append", step: append::step }];

const _: () = assert!(MIGRATIONS.len() == FORMAT as usize, "the n-th migration leads to format n");

/// One way from a format to the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Migration {
    /// Name of its file.
    pub(super) name: &'static str,
    /// Does a bounded piece of the work; the cursor is `None` at first, then what the piece before answered.
    pub(super) step: Step,
}

/// One bounded piece of a migration's work: the store, the directory's identity, the cursor.
pub(super) type Step = fn(&dyn Reader, InstanceId, Option<&[u8]>) -> Result<Progress, String>;

/// A piece of a migration.
#[derive(Debug)]
pub(super) struct Progress {
    /// What to write.
    pub(super) batch: Batch,
    /// Where to go on; `None` if this was the last piece.
    pub(super) cursor: Option<Vec<u8>>,
}

/// Why a store could not be brought to this version's format.
#[derive(Debug, thiserror::Error)]
pub(super) enum MigrateError {
    /// It is of a newer format; nothing was written.
    #[error("format {found} is newer than this version's {known}")]
    Newer {
        /// Its format.
        found: u32,
        /// The newest one known.
        known: u32,
    },
    /// What is stored is not what was written.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// A migration cannot go on.
    #[error("the migration {name} failed: {what}")]
    Step {
        /// Which one.
        name: &'static str,
        /// Why.
        what: String,
    },
    /// The store failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store failed. Start again to resume.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<CommitFailure> for MigrateError {
    fn from(cause: CommitFailure) -> Self {
        Self::Commit(CommitError::NotApplied { cause })
    }
}

/// Runs the migrations that are missing, resuming one that was interrupted; names those it ran.
pub(super) fn run(
    store: &mut dyn Store,
    instance: InstanceId,
    migrations: &[Migration],
) -> Result<Vec<&'static str>, MigrateError> {
    let reader = store.reader();
    let mut state = read_format(&*reader)?.unwrap_or(DiskFormat { format: 0, cursor: None });
    let known = migrations.len() as u32;
    if state.format > known || (state.format == known && state.cursor.is_some()) {
        return Err(MigrateError::Newer { found: state.format.max(known + 1), known });
    }
    let mut ran = Vec::new();
    while let Some(migration) = migrations.get(state.format as usize) {
        let progress = (migration.step)(&*reader, instance, state.cursor.as_deref())
            .map_err(|what| MigrateError::Step { name: migration.name, what })?;
        let mut batch = progress.batch;
        state.cursor = progress.cursor;
        if state.cursor.is_none() {
            state.format += 1;
            ran.push(migration.name);
        }
        let mut payload = Vec::new();
        codec::encode(&state, &mut payload);
        let key = keys::format();
        let value = codec::seal(&key, 0, &payload);
        batch.put(key, value)?;
        store.commit(&batch)?;
    }
    Ok(ran)
}

/// The format record; `None` in a store that has none.
pub(super) fn read_format(reader: &dyn Reader) -> Result<Option<DiskFormat>, MigrateError> {
    let key = keys::format();
    let Some(value) = reader.get(&key)? else { return Ok(None) };
    let sealed = codec::unseal(&key, &value)?;
    let format = codec::decode(sealed.payload).map_err(|damage| Damage(format!("the format record: {damage}")))?;
    Ok(Some(format))
}
