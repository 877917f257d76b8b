//! The small file beside the database that remembers the last acknowledged journal number, so that a database that has lost its
//! end is noticed.
//!
//! ```text
//!   0          8           24           32      36
//!   "tfacked1" instance    number (LE)  crc32c
//! ```
//!
//! It is written after a commit is durable and before anything of it is acknowledged, and never synced: it costs nothing and after
//! a power cut may be old or torn, but it never leads. A database that knows less than this file has lost something that was
//! durable. Torn or foreign content is ignored, with a note. Tested in this file and in `tests/store_disk.rs`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::types::InstanceId;

const MAGIC: &[u8; 8] = b"tfacked1";
const BYTES: usize = 36;

/// The file, open for writing.
pub(super) struct AckedFile {
    file: File,
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Acked {
    /// There is none.
    Absent,
    /// It cannot be read as one: torn by a power cut, as a rule.
    Torn,
    /// The last acknowledged number.
    Number {
        /// Whose.
        instance: InstanceId,
        /// The number.
        sequence: u64,
    },
}

/// Reads the file.
pub(super) fn read(path: &Path) -> io::Result<Acked> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(parse(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Acked::Absent),
        Err(error) => Err(error),
    }
}

impl AckedFile {
    /// Opens the file for writing; makes it if it is not there.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: OpenOptions::new().write(true).create(true).truncate(false).open(path)? })
    }

    /// Notes a number. Goes to the operating system, not to the disk: it survives the process, perhaps not the machine.
    pub(super) fn write(&self, instance: InstanceId, sequence: u64) -> io::Result<()> {
        self.file.write_all_at(&compose(instance, sequence), 0)
    }
}

pub(super) fn compose(instance: InstanceId, sequence: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..24].copy_from_slice(&instance.0);
    bytes[24..32].copy_from_slice(&sequence.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[..32]);
    bytes[32..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

pub(super) fn parse(bytes: &[u8]) -> Acked {
    let Ok(bytes) = <[u8; BYTES]>::try_from(bytes) else { return Acked::Torn };
    let mut instance = InstanceId::NONE;
    instance.0.copy_from_slice(&bytes[8..24]);
    let mut sequence = [0; 8];
    sequence.copy_from_slice(&bytes[24..32]);
    let sequence = u64::from_le_bytes(sequence);
    if bytes == compose(instance, sequence) { Acked::Number { instance, sequence } } else { Acked::Torn }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_its_bytes() {
        let bytes = compose(InstanceId([7; 16]), 0x0102_0304);
        assert_eq!(&bytes[..8], b"tfacked1");
        assert_eq!(bytes[8..24], [7; 16]);
        assert_eq!(bytes[24..32], [4, 3, 2, 1, 0, 0, 0, 0]);
        assert_eq!(parse(&bytes), Acked::Number { instance: InstanceId([7; 16]), sequence: 0x0102_0304 });
    }

    #[test]
    fn every_flipped_bit_makes_it_torn() {
        let whole = compose(InstanceId([1; 16]), 99);
        for index in 0..whole.len() * 8 {
            let mut bytes = whole;
            bytes[index / 8] ^= 1 << (index % 8);
            assert_eq!(parse(&bytes), Acked::Torn, "bit {index}");
        }
        assert_eq!(parse(&whole[..35]), Acked::Torn);
        assert_eq!(parse(&[]), Acked::Torn);
    }

    #[test]
    fn writes_over_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("acked");
        assert_eq!(read(&path).unwrap(), Acked::Absent);
        let file = AckedFile::open(&path).unwrap();
        for sequence in [5, 6] {
            file.write(InstanceId([2; 16]), sequence).unwrap();
            assert_eq!(read(&path).unwrap(), Acked::Number { instance: InstanceId([2; 16]), sequence });
        }
    }
}
