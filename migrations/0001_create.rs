//! Format 0 to 1: an empty database gets its first record.
//!
//! A released migration is never edited, and so it is complete in itself: the bytes it writes are spelled out here, whatever
//! becomes of the code that reads them today.
//!
//! It writes one record, meta: sequence 0, floor 1, the instance, no pages, no map rows, no starts, no checksums. Interrupted, it is begun again.
//! Tested in src/store/migrate.rs: these bytes are format 1's.

use super::{Batch, InstanceId, Progress, Reader};

/// The only step.
pub(super) fn step(_reader: &dyn Reader, instance: InstanceId, _cursor: Option<&[u8]>) -> Result<Progress, String> {
    let key = [0x02];
    let mut payload = vec![0, 1];
    payload.extend(instance.0);
    payload.extend([0, 0, 0, 0]);

    let mut value = vec![1, 0x02];
    value.extend((payload.len() as u16).to_le_bytes());
    value.extend(0_u64.to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&key), &value), &payload);
    value.extend(checksum.to_le_bytes());
    value.extend(payload);

    let mut batch = Batch::default();
    batch.put(key.to_vec(), value).map_err(|failure| failure.to_string())?;
    Ok(Progress { batch, cursor: None })
}
