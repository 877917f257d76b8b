//! The one source of chance of the client: the system's. Deliberately not seeded: ids must never repeat.

/// 16 random bytes, for an id.
pub(super) fn id() -> Result<[u8; 16], getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// A uniform number, for jitter. Without a source of chance it is the middle: waits then are as long as on average.
pub(super) fn number() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX / 2)
}
