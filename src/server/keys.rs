//! Reads the keys that grants and counts are sent with.
//!
//! Keys never change, so they are read here, by the session that sends them, and not by the pipeline: whatever the disk
//! does, nobody else waits. A read may block, so it runs on the runtime's threads for that. Tested with real keys in
//! `tests/server_native.rs`.

use std::collections::HashMap;

use crate::store::{TextError, Texts};
use crate::types::{CampaignId, Grant, TaskIndex};

/// The keys of some tasks.
pub(crate) type Keys = HashMap<(CampaignId, TaskIndex), String>;

/// The keys of the tasks of `grants`; each task is read once, neighbours together.
///
/// # Errors
/// A key is missing (its campaign was removed a moment ago) or damaged.
pub(crate) async fn of_grants(texts: &Texts, grants: impl Iterator<Item = &Grant>) -> Result<Keys, TextError> {
    let mut tasks: Vec<_> = grants.map(|grant| (grant.campaign, grant.task)).collect();
    tasks.sort_unstable();
    tasks.dedup();
    let texts = texts.clone();
    blocking(move || {
        let mut keys = Keys::with_capacity(tasks.len());
        for stretch in tasks.chunk_by(|one, next| one.0 == next.0 && one.1.0 + 1 == next.1.0) {
            let read = texts.keys(stretch[0].0, stretch[0].1, stretch.len() as u32)?;
            keys.extend(stretch.iter().copied().zip(read));
        }
        Ok(keys)
    })
    .await
}

/// The keys of the tasks `first .. first + count`.
///
/// # Errors
/// As above.
pub(crate) async fn of_tasks(
    texts: &Texts,
    campaign: CampaignId,
    first: TaskIndex,
    count: u32,
) -> Result<Vec<String>, TextError> {
    let texts = texts.clone();
    blocking(move || texts.keys(campaign, first, count)).await
}

async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, TextError> + Send + 'static,
) -> Result<T, TextError> {
    match tokio::task::spawn_blocking(read).await {
        Ok(result) => result,
        // The read panicked (then the process is ending), or the runtime is.
        Err(failure) => Err(TextError::Damaged { what: format!("reading keys was broken off: {failure}") }),
    }
}
