//! Records as bytes: the envelope that every stored value wears, and the disk's own types. The only file of this layer that knows
//! the encoding library.
//!
//! ```text
//!   0        1      2         4          12      16
//!   version  kind   length    sequence   crc32c  payload …        length = bytes of the payload
//! ```
//!
//! The checksum covers the key, the first twelve bytes and the payload, so a record that is read under another key is
//! damage too. Numbers in the envelope are little-endian.
//!
//! **Invariants.** Variants are numbered by their order: new ones are appended, none is changed or dropped (a new field
//! is a new variant, or a new format with a migration). Every decode is limited and must use up its bytes; bytes from a disk
//! never panic. Conversions from and to the coordinator's rows are in [`super::convert`].
//! Tested in this file: golden bytes of every record, and every flipped byte noticed.

use bincode::config::{Configuration, Limit};
use bincode::de::read::{Reader, SliceReader};
use bincode::de::{Decoder, DecoderImpl};
use bincode::error::DecodeError;
use bincode::{Decode, Encode};

use super::keys::Kind;
use crate::limits;

/// What is stored is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damage(pub String);

/// Version of the envelope.
const ENVELOPE_VERSION: u8 = 1;

/// Bytes of the envelope before the payload.
pub(super) const ENVELOPE_BYTES: usize = 16;

/// Bytes that fit into one record.
pub(super) const PAYLOAD_BYTES_MAX: usize = limits::VALUE_BYTES_MAX - ENVELOPE_BYTES;

const _: () = assert!(PAYLOAD_BYTES_MAX <= u16::MAX as usize, "the length has two bytes");

/// Wraps a payload for its key. `sequence` is the number of the last journal record of the commit it is part of, which is how a
/// journal record tells where its commit ends.
pub(super) fn seal(key: &[u8], sequence: u64, payload: &[u8]) -> Vec<u8> {
    // A payload beyond two bytes of length makes a value beyond VALUE_BYTES_MAX, which no batch accepts.
    let mut value = Vec::with_capacity(ENVELOPE_BYTES + payload.len());
    value.extend([ENVELOPE_VERSION, key.first().copied().unwrap_or(0)]);
    value.extend((payload.len() as u16).to_le_bytes());
    value.extend(sequence.to_le_bytes());
    let checksum = checksum(key, &value, payload);
    value.extend(checksum.to_le_bytes());
    value.extend(payload);
    value
}

/// A record taken out of its envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sealed<'a> {
    /// The number of the last journal record of the commit that wrote it.
    pub(super) sequence: u64,
    /// What was wrapped.
    pub(super) payload: &'a [u8],
}

/// Unwraps a value that was stored under `key`.
pub(super) fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Result<Sealed<'a>, Damage> {
    let damage = |what: &str| Damage(format!("the {} record {} {what}", Kind::name(key), hex(key)));
    let (Some(header), Some(payload)) = (value.get(..ENVELOPE_BYTES), value.get(ENVELOPE_BYTES..)) else {
        return Err(damage("is cut short"));
    };
    if stored_checksum(value) != checksum(key, &header[..12], payload) {
        return Err(damage("has a wrong checksum"));
    }
    if header[0] != ENVELOPE_VERSION {
        return Err(damage("has an unknown version"));
    }
    if Some(&header[1]) != key.first() {
        return Err(damage("is of another kind than its key"));
    }
    if usize::from(u16::from_le_bytes([header[2], header[3]])) != payload.len() {
        return Err(damage("has a wrong length"));
    }
    let mut sequence = [0; 8];
    sequence.copy_from_slice(&header[4..12]);
    Ok(Sealed { sequence: u64::from_le_bytes(sequence), payload })
}

/// The checksum that a sealed value carries; 0 in a value that is too short for one, which no sealed value is.
pub(super) fn stored_checksum(value: &[u8]) -> u32 {
    value.get(12..ENVELOPE_BYTES).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// Bytes of a key as error texts show them.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

pub(super) fn checksum(key: &[u8], header: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(key), header), payload)
}

/// Bytes of memory that decoding one item may claim; the largest, a session with 32 stretches of refusals, claims less than 2 KiB.
const DECODE_BYTES_MAX: usize = 8_192;

/// The same for all items of one record: none of the types below claims more than 16 bytes for one that is stored.
const DECODE_ALL_BYTES_MAX: usize = 16 * limits::VALUE_BYTES_MAX;

type Encoding = Configuration<bincode::config::LittleEndian, bincode::config::Varint, Limit<DECODE_BYTES_MAX>>;

fn encoding() -> Encoding {
    bincode::config::standard().with_limit::<DECODE_BYTES_MAX>()
}

/// Appends one item.
pub(super) fn encode(item: &impl Encode, bytes: &mut Vec<u8>) {
    // Writing into memory cannot fail, and none of the types below refuses a value.
    #[allow(clippy::expect_used)]
    bincode::encode_into_std_write(item, bytes, bincode::config::standard()).expect("memory takes every byte");
}

/// One item that uses up all of the bytes.
pub(super) fn decode<Item: Decode<()>>(bytes: &[u8]) -> Result<Item, Damage> {
    let (item, consumed) = decode_first(bytes)?;
    if consumed == bytes.len() { Ok(item) } else { Err(Damage("bytes are left over".into())) }
}

/// Items one after the other that use up all of the bytes.
pub(super) fn decode_all<Item: Decode<()>>(bytes: &[u8]) -> Result<Vec<Item>, Damage> {
    let mut items = Vec::new();
    decode_each(bytes, |item| {
        items.push(item);
        Ok(())
    })?;
    Ok(items)
}

/// Shows each of them, until one is damaged.
pub(super) fn decode_each<Item: Decode<()>>(
    bytes: &[u8],
    mut visit: impl FnMut(Item) -> Result<(), Damage>,
) -> Result<(), Damage> {
    // One decoder for all of them: recovery reads a hundred million.
    let config = bincode::config::standard().with_limit::<DECODE_ALL_BYTES_MAX>();
    let mut decoder = DecoderImpl::new(SliceReader::new(bytes), config, ());
    // Every item has at least one byte (its variant or length), so this ends.
    while decoder.reader().peek_read(1).is_some() {
        visit(Item::decode(&mut decoder).map_err(undecodable)?)?;
    }
    Ok(())
}

fn decode_first<Item: Decode<()>>(bytes: &[u8]) -> Result<(Item, usize), Damage> {
    bincode::decode_from_slice(bytes, encoding()).map_err(undecodable)
}

fn undecodable(error: DecodeError) -> Damage {
    Damage(format!("cannot be decoded: {error}"))
}

/// What every checkpoint rewrites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct DiskMeta {
    /// Number of the last journal record when this was written; more may have been appended since.
    pub(super) sequence: u64,
    /// Number of the first journal record that is kept; `sequence + 1` if there was none.
    pub(super) floor: u64,
    /// The directory's identity.
    pub(super) instance: [u8; 16],
    /// How many pages are stored.
    pub(super) pages: u64,
    /// How many rows of the map are stored.
    pub(super) maps: u64,
    /// How often the directory was opened.
    pub(super) starts: u64,
    /// The sum of the checksums of all stored pages.
    pub(super) checksums: u64,
}

/// The format of everything else. Its layout is the same in every format.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct DiskFormat {
    /// The format that is complete.
    pub(super) format: u32,
    /// How far the migration to the next one has come, in that migration's own words; `None` if none was begun.
    pub(super) cursor: Option<Vec<u8>>,
}

/// One change of one row, in journal records; the variants up to `Returned` also in pages. What is large and rare is boxed: recovery
/// moves a hundred million of these.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum DiskChange {
    /// 0
    Globals { next_campaign: u32 },
    /// 1
    Campaign { id: u32, row: Box<DiskCampaign> },
    /// 2
    Task { campaign: u32, task: u32, done: u32, extra: u32, issued: u32 },
    /// 3
    Lease { slot: u32, generation: u32, lease: Option<DiskLease> },
    /// 4
    Session { slot: u32, row: DiskSession },
    /// 5
    SessionName { slot: u32, name: String },
    /// 6
    Trouble { slot: u32, row: DiskTrouble },
    /// 7
    Returned { slot: u32, campaign: u32, task: u32, word: u32, runs: u64 },
    /// 8
    Remove { key: DiskKey },
    /// 9
    ClearTasks { campaign: u32, first: u32, tasks: u32 },
}

/// Names a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum DiskKey {
    /// 0
    Globals,
    /// 1
    Campaign { id: u32 },
    /// 2
    Task { campaign: u32, task: u32 },
    /// 3
    Lease { slot: u32 },
    /// 4
    Session { slot: u32 },
    /// 5
    SessionName { slot: u32 },
    /// 6
    Trouble { slot: u32 },
    /// 7
    Returned { slot: u32 },
}

/// A campaign.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct DiskCampaign {
    pub(super) name: String,
    pub(super) tasks: DiskTasks,
    pub(super) runs: u32,
    pub(super) seed: Option<u64>,
    pub(super) order: DiskOrder,
    pub(super) lease_ms: Option<u64>,
    pub(super) timeout_ms: Option<u64>,
    pub(super) errors_max: Option<u32>,
    pub(super) losses_max: Option<u32>,
    pub(super) creation: [u8; 16],
    pub(super) phase: DiskPhase,
}

/// What a campaign's tasks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum DiskTasks {
    /// 0
    Range { first: u64, count: u32 },
    /// 1
    Keys { count: u32 },
}

/// In what order tasks go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum DiskOrder {
    /// 0
    Lowest,
    /// 1
    Even,
}

/// Where a campaign stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum DiskPhase {
    /// 0
    Creating,
    /// 1
    Running,
    /// 2
    Paused,
    /// 3
    Cancelled,
    /// 4
    Removing,
}

/// A lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct DiskLease {
    pub(super) session: u32,
    pub(super) campaign: u32,
    pub(super) task: u32,
    pub(super) first_run: u32,
    pub(super) runs: u32,
    pub(super) own: u64,
    pub(super) state: DiskLeaseState,
}

/// Where a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum DiskLeaseState {
    /// 0
    Live,
    /// 1
    Expired,
    /// 2
    Gone,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct DiskSession {
    pub(super) id: [u8; 16],
    pub(super) origin: bool,
    pub(super) attempt: u64,
    pub(super) processed: u64,
    pub(super) confirmed: u64,
    pub(super) refusals: Vec<DiskRefusal>,
}

/// A stretch of refused requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct DiskRefusal {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) reason: DiskReason,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum DiskReason {
    /// 0
    NotHeld,
    /// 1
    Ended,
    /// 2
    Gone,
    /// 3
    BadRuns,
}

/// What went wrong with a task.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct DiskTrouble {
    pub(super) campaign: u32,
    pub(super) task: u32,
    pub(super) errors: u32,
    pub(super) losses: u32,
    pub(super) quarantined: bool,
    pub(super) last_error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of one item, and back.
    fn golden<Item: Encode + Decode<()> + PartialEq + std::fmt::Debug>(item: Item, expected: &str) {
        let mut bytes = Vec::new();
        encode(&item, &mut bytes);
        assert_eq!(hex(&bytes), expected.replace(' ', ""), "{item:?}");
        assert_eq!(decode::<Item>(&bytes).unwrap(), item);
    }

    #[test]
    fn changes_keep_their_bytes() {
        golden(DiskChange::Globals { next_campaign: 3 }, "00 03");
        golden(
            DiskChange::Task { campaign: 1, task: 300, done: 10, extra: 1, issued: 70_000 },
            "02 01 fb2c01 0a 01 fc70110100",
        );
        golden(DiskChange::Lease { slot: 5, generation: 2, lease: None }, "03 05 02 00");
        for (state, number) in
            [(DiskLeaseState::Live, "00"), (DiskLeaseState::Expired, "01"), (DiskLeaseState::Gone, "02")]
        {
            let lease = DiskLease { session: 1, campaign: 2, task: 3, first_run: 4, runs: 5, own: 1 << 63, state };
            let change = DiskChange::Lease { slot: 5, generation: 2, lease: Some(lease) };
            golden(change, &format!("03 05 02 01 01 02 03 04 05 fd0000000000000080 {number}"));
        }
        golden(DiskChange::SessionName { slot: 1, name: "a:7".into() }, "05 01 03 613a37");
        let row =
            DiskTrouble { campaign: 1, task: 2, errors: 3, losses: 4, quarantined: true, last_error: "no".into() };
        golden(DiskChange::Trouble { slot: 9, row }, "06 09 01 02 03 04 01 02 6e6f");
        golden(DiskChange::Returned { slot: 1, campaign: 2, task: 3, word: 4, runs: 5 }, "07 01 02 03 04 05");
        golden(DiskChange::ClearTasks { campaign: 1, first: 65_536, tasks: 65_536 }, "09 01 fc00000100 fc00000100");
    }

    #[test]
    fn campaigns_keep_their_bytes() {
        let row = DiskCampaign {
            name: "abc".into(),
            tasks: DiskTasks::Range { first: 5, count: 6 },
            runs: 7,
            seed: None,
            order: DiskOrder::Lowest,
            lease_ms: Some(8),
            timeout_ms: None,
            errors_max: Some(3),
            losses_max: None,
            creation: [0xcc; 16],
            phase: DiskPhase::Creating,
        };
        let creation = "cc".repeat(16);
        let bytes = format!("01 02 03 616263 00 05 06 07 00 00 01 08 00 01 03 00 {creation} 00");
        golden(DiskChange::Campaign { id: 2, row: Box::new(row.clone()) }, &bytes);
        let phases = [DiskPhase::Running, DiskPhase::Paused, DiskPhase::Cancelled, DiskPhase::Removing];
        for (phase, number) in phases.into_iter().zip(1..) {
            let row = DiskCampaign {
                tasks: DiskTasks::Keys { count: 6 },
                seed: Some(9),
                order: DiskOrder::Even,
                phase,
                ..row.clone()
            };
            let bytes = format!("01 02 03 616263 01 06 07 01 09 01 01 08 00 01 03 00 {creation} {number:02x}");
            golden(DiskChange::Campaign { id: 2, row: Box::new(row) }, &bytes);
        }
    }

    #[test]
    fn sessions_keep_their_bytes() {
        let reasons = [DiskReason::NotHeld, DiskReason::Ended, DiskReason::Gone, DiskReason::BadRuns];
        let refusal = |(number, reason)| DiskRefusal { from: number, to: number + 1, reason };
        let row = DiskSession {
            id: [0xdd; 16],
            origin: true,
            attempt: 1,
            processed: 2,
            confirmed: 3,
            refusals: (4..).zip(reasons).map(refusal).collect(),
        };
        let id = "dd".repeat(16);
        let bytes = format!("04 08 {id} 01 01 02 03 04 040500 050601 060702 070803");
        golden(DiskChange::Session { slot: 8, row }, &bytes);
    }

    #[test]
    fn removals_keep_their_bytes() {
        for (key, expected) in [
            (DiskKey::Globals, "08 00"),
            (DiskKey::Campaign { id: 1 }, "08 01 01"),
            (DiskKey::Task { campaign: 1, task: 2 }, "08 02 01 02"),
            (DiskKey::Lease { slot: 1 }, "08 03 01"),
            (DiskKey::Session { slot: 1 }, "08 04 01"),
            (DiskKey::SessionName { slot: 1 }, "08 05 01"),
            (DiskKey::Trouble { slot: 1 }, "08 06 01"),
            (DiskKey::Returned { slot: 1 }, "08 07 01"),
        ] {
            golden(DiskChange::Remove { key }, expected);
        }
    }

    #[test]
    fn books_and_texts_keep_their_bytes() {
        let meta = DiskMeta { sequence: 1, floor: 2, instance: [0xee; 16], pages: 3, maps: 4, starts: 5, checksums: 6 };
        golden(meta, &format!("01 02 {} 03 04 05 06", "ee".repeat(16)));
        golden(DiskFormat { format: 1, cursor: None }, "01 00");
        golden(DiskFormat { format: 1, cursor: Some(vec![7, 8]) }, "01 01 02 0708");
        golden("key".to_owned(), "03 6b6579");
    }

    #[test]
    fn the_envelope_keeps_its_bytes() {
        let key = [5, 0, 0, 0, 0, 0, 0, 0, 1];
        let value = seal(&key, 0x0102, &[0xaa, 0xbb]);
        assert_eq!(hex(&value[..12]), "010502000201000000000000");
        assert_eq!(value[12..16], checksum(&key, &value[..12], &[0xaa, 0xbb]).to_le_bytes());
        assert_eq!(hex(&value[16..]), "aabb");
        assert_eq!(unseal(&key, &value), Ok(Sealed { sequence: 0x0102, payload: &[0xaa, 0xbb] }));
    }

    #[test]
    fn every_flipped_bit_of_an_envelope_is_noticed() {
        let key = [2];
        let whole = seal(&key, 7, b"payload");
        for bit in 0..whole.len() * 8 {
            let mut value = whole.clone();
            value[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(&key, &value).is_err(), "bit {bit}");
        }
        assert!(unseal(&[3], &whole).is_err(), "under another key");
        for length in 0..whole.len() {
            assert!(unseal(&key, &whole[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn what_no_one_wrote_is_an_error_and_claims_no_memory() {
        assert!(decode::<DiskFormat>(&[1, 0, 0]).is_err(), "a byte is left over");
        assert!(decode::<DiskChange>(&[10]).is_err(), "there is no such variant");
        // A text, and a list of refusals, of 2^62 items.
        let claim = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0x40];
        assert!(decode_all::<String>(&claim).is_err());
        let session = [&[4, 8][..], &[0; 16], &[0, 0, 0, 0], &claim].concat();
        assert!(decode::<DiskChange>(&session).is_err());
        assert!(decode_all::<DiskChange>(&[0, 3, 0]).is_err(), "the second is cut short");
        assert_eq!(decode_all::<DiskChange>(&[]).unwrap(), []);
    }
}
