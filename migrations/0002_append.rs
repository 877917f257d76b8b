//! Format 1 to 2: a commit may be journal records alone.
//!
//! In format 1 a journal record names itself in its envelope, and meta names the last of them. In format 2 it names the last one of
//! its commit, and the journal may go on behind the one that meta names. What format 1 wrote means the same in format 2, every record being a
//! commit of its own then; so nothing is written anew. The number alone changes: an older version would take what comes
//! behind meta for damage.

use super::{Batch, InstanceId, Progress, Reader};

/// The only step.
#[allow(clippy::unnecessary_wraps, reason = "every step has this signature")]
pub(super) fn step(_reader: &dyn Reader, _instance: InstanceId, _cursor: Option<&[u8]>) -> Result<Progress, String> {
    Ok(Progress { batch: Batch::default(), cursor: None })
}
