//! The outermost layer of the native dialect: how a connection begins, and where one message ends.
//!
//! ```text
//! client:  magic (8 bytes) · lowest version (u16 LE) · highest version (u16 LE) · frame · frame …
//! server:  magic (8 bytes) · chosen version (u16 LE, 0: none fits) · lowest (u16 LE) · highest (u16 LE) · frame …
//! frame:   length of the body (u32 LE) · body (one message, see `codec`)
//! ```
//!
//! **Invariants.** A length is checked before anything is kept for it, and memory grows with what arrived, not with what
//! was announced. A decoder never holds more than one unfinished frame and what was pushed since it was last asked. Deliberately absent: compression, checksums (TCP has one, and what
//! it lets through is caught by the decoder or is harmless), interleaving.
//! Tested here, and with annotated bytes in `tests/golden_wire.rs`.

use std::fmt;

use crate::limits;

/// What a native connection begins with, in both directions. The first byte begins no UTF-8 text, so no text protocol
/// is taken for it.
pub const MAGIC: [u8; 8] = [0x91, b't', b'e', b'n', b'f', b'o', b'l', b'd'];

/// The versions of the native dialect that this program speaks.
pub const VERSIONS: VersionRange = VersionRange { lowest: 1, highest: 1 };

/// Bytes of the preface of a client.
pub const CLIENT_PREFACE_BYTES: usize = 12;

/// Bytes of the preface of a server.
pub const SERVER_PREFACE_BYTES: usize = 14;

/// Bytes of the length in front of every body.
pub const LENGTH_BYTES: usize = 4;

/// Bytes of memory that a decoder keeps for frames to come.
const KEPT_BYTES: usize = 16 * 1_024;

const _: () = assert!(limits::FRAME_BYTES_MAX <= u32::MAX as usize, "a length is a u32");
const _: () = assert!(MAGIC[0] >= 0x80, "the dialect is told by the first byte");

/// Versions of the native dialect, both ends included; the lowest possible is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRange {
    /// The lowest.
    pub lowest: u16,
    /// The highest.
    pub highest: u16,
}

impl VersionRange {
    /// The highest version that both speak; `None` if there is none.
    pub fn common(self, other: Self) -> Option<u16> {
        let lowest = self.lowest.max(other.lowest).max(1);
        let highest = self.highest.min(other.highest);
        (lowest <= highest).then_some(highest)
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lowest == self.highest {
            write!(formatter, "version {}", self.lowest)
        } else {
            write!(formatter, "versions {} to {}", self.lowest, self.highest)
        }
    }
}

/// The first bytes are not those of the native dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection does not begin with the magic bytes of tenfold's native protocol")]
pub struct NotNative;

/// The bytes a client begins with.
pub fn client_preface(versions: VersionRange) -> [u8; CLIENT_PREFACE_BYTES] {
    let mut bytes = [0; CLIENT_PREFACE_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&versions.lowest.to_le_bytes());
    bytes[10..12].copy_from_slice(&versions.highest.to_le_bytes());
    bytes
}

/// Reads the first [`CLIENT_PREFACE_BYTES`] of a connection: the versions of the client. `None`: more bytes are needed.
///
/// # Errors
/// As soon as one byte differs from the magic ones, so that no peer is waited for in vain.
pub fn read_client_preface(bytes: &[u8]) -> Result<Option<VersionRange>, NotNative> {
    check_magic(bytes)?;
    let Some(&[low_0, low_1, high_0, high_1]) = bytes.get(8..CLIENT_PREFACE_BYTES).and_then(<[u8]>::as_array) else {
        return Ok(None);
    };
    let (lowest, highest) = (u16::from_le_bytes([low_0, low_1]), u16::from_le_bytes([high_0, high_1]));
    Ok(Some(VersionRange { lowest, highest }))
}

/// What a server begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerPreface {
    /// The version of everything that follows; `None` if none fits, then the server closes.
    pub chosen: Option<u16>,
    /// What the server speaks.
    pub versions: VersionRange,
}

impl ServerPreface {
    /// The answer of a server that speaks `ours` to a client that speaks `theirs`.
    pub fn answer(ours: VersionRange, theirs: VersionRange) -> Self {
        Self { chosen: ours.common(theirs), versions: ours }
    }

    /// The bytes a server begins with.
    pub fn to_bytes(self) -> [u8; SERVER_PREFACE_BYTES] {
        let mut bytes = [0; SERVER_PREFACE_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&self.chosen.unwrap_or(0).to_le_bytes());
        bytes[10..12].copy_from_slice(&self.versions.lowest.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.versions.highest.to_le_bytes());
        bytes
    }

    /// Reads the first [`SERVER_PREFACE_BYTES`] of a connection. `None`: more bytes are needed.
    ///
    /// # Errors
    /// As soon as one byte differs from the magic ones: whatever listens there is not a `tenfold` server.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, NotNative> {
        check_magic(bytes)?;
        let Some(&[chosen_0, chosen_1, low_0, low_1, high_0, high_1]) =
            bytes.get(8..SERVER_PREFACE_BYTES).and_then(<[u8]>::as_array)
        else {
            return Ok(None);
        };
        let chosen = u16::from_le_bytes([chosen_0, chosen_1]);
        let versions =
            VersionRange { lowest: u16::from_le_bytes([low_0, low_1]), highest: u16::from_le_bytes([high_0, high_1]) };
        Ok(Some(Self { chosen: (chosen != 0).then_some(chosen), versions }))
    }
}

fn check_magic(bytes: &[u8]) -> Result<(), NotNative> {
    if bytes.iter().zip(MAGIC).all(|(byte, magic)| *byte == magic) { Ok(()) } else { Err(NotNative) }
}

/// Appends one frame around what `write_body` appends.
///
/// # Errors
/// Those of `write_body`, and a body above [`limits::FRAME_BYTES_MAX`]; then `buffer` is as it was.
pub fn append<E: From<FrameError>>(
    buffer: &mut Vec<u8>,
    write_body: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; LENGTH_BYTES]);
    let outcome = write_body(buffer).and_then(|()| {
        let length = buffer.len() - start - LENGTH_BYTES;
        match u32::try_from(length) {
            Ok(short) if length <= limits::FRAME_BYTES_MAX => Ok(short),
            _ => Err(FrameError::TooLong { length: length as u64, limit: limits::FRAME_BYTES_MAX }.into()),
        }
    });
    match outcome {
        Ok(length) => {
            buffer[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
            Ok(())
        }
        Err(error) => {
            buffer.truncate(start);
            Err(error)
        }
    }
}

/// Why bytes cannot be cut into frames; the connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame announces (or would have) a body above the limit.
    #[error("a frame of {length} bytes is longer than the {limit} allowed here")]
    TooLong {
        /// Bytes of the body.
        length: u64,
        /// Bytes allowed.
        limit: usize,
    },
}

/// Cuts a stream of bytes into frames, however the bytes are split.
///
/// ```
/// use tenfold::protocol::frame::Decoder;
/// let mut decoder = Decoder::new(16);
/// decoder.push(&[2, 0, 0]);
/// assert_eq!(decoder.next_frame(), Ok(None));
/// decoder.push(&[0, b'h', b'i']);
/// assert_eq!(decoder.next_frame(), Ok(Some(&b"hi"[..])));
/// ```
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were handed out already.
    taken: usize,
    limit: usize,
}

impl Decoder {
    /// A decoder of frames with at most `limit` bytes of body.
    pub fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), taken: 0, limit }
    }

    /// Changes the limit for frames from here on (a hello is held to a smaller one).
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Takes bytes as they were read. Ask for frames until there are none before pushing more: that bounds the memory.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The body of the next whole frame; `None`: push more first.
    ///
    /// # Errors
    /// A frame is too long, known from its length alone; so will every later call say.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let Some(length) = self.whole_length()? else {
            self.tidy();
            return Ok(None);
        };
        let start = self.taken + LENGTH_BYTES;
        self.taken = start + length;
        Ok(Some(&self.buffer[start..self.taken]))
    }

    /// The length of the next body, if all of it is there.
    fn whole_length(&self) -> Result<Option<usize>, FrameError> {
        let rest = &self.buffer[self.taken..];
        let Some((length, body)) = rest.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > self.limit {
            return Err(FrameError::TooLong { length: length as u64, limit: self.limit });
        }
        Ok((length <= body.len()).then_some(length))
    }

    /// Lets go of what was handed out. A long frame's memory is not kept for the next one, which may never come.
    fn tidy(&mut self) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        if self.buffer.capacity() > KEPT_BYTES.max(4 * self.buffer.len()) {
            self.buffer.shrink_to(KEPT_BYTES);
        }
    }

    /// Bytes that wait for the rest of their frame, or to be asked for.
    pub fn waiting(&self) -> usize {
        self.buffer.len() - self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_follows_what_arrived_and_is_given_back() {
        let body = vec![7; limits::FRAME_BYTES_MAX];
        let mut decoder = Decoder::new(limits::FRAME_BYTES_MAX);
        decoder.push(&(body.len() as u32).to_le_bytes());
        for (chunk, number) in body.chunks(1_024).zip(1..) {
            assert_eq!(decoder.next_frame(), Ok(None));
            decoder.push(chunk);
            assert!(decoder.buffer.capacity() <= KEPT_BYTES.max(4 * 1_024 * (number + 1)));
        }
        assert_eq!(decoder.next_frame(), Ok(Some(&body[..])));
        assert_eq!(decoder.next_frame(), Ok(None));
        assert!(decoder.buffer.capacity() <= KEPT_BYTES);
    }

    #[test]
    fn any_split_gives_the_same_frames() {
        let bodies: [&[u8]; 4] = [b"", b"a", b"bcd", &[7; 300]];
        let mut stream = Vec::new();
        for body in bodies {
            append::<FrameError>(&mut stream, |buffer| {
                buffer.extend_from_slice(body);
                Ok(())
            })
            .unwrap();
        }
        for piece in 1..=stream.len() {
            let mut decoder = Decoder::new(300);
            let mut seen: Vec<Vec<u8>> = Vec::new();
            for bytes in stream.chunks(piece) {
                decoder.push(bytes);
                while let Some(body) = decoder.next_frame().unwrap() {
                    seen.push(body.to_vec());
                }
            }
            assert_eq!(seen, bodies, "in pieces of {piece}");
            assert_eq!(decoder.waiting(), 0);
        }
    }

    #[test]
    fn a_long_frame_is_refused_by_its_length_alone() {
        let mut decoder = Decoder::new(10);
        decoder.push(&[11, 0, 0, 0]);
        let error = FrameError::TooLong { length: 11, limit: 10 };
        assert_eq!(decoder.next_frame(), Err(error));
        assert_eq!(decoder.next_frame(), Err(error), "and stays refused");
        decoder.set_limit(11);
        assert_eq!(decoder.next_frame(), Ok(None));
        decoder.push(&[0xff; 4]);
        assert_eq!(decoder.next_frame(), Ok(None));
        decoder.push(&[0xff; 7]);
        assert!(decoder.next_frame().unwrap().is_some());
        decoder.push(&[0xff; 4]);
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLong { length: u64::from(u32::MAX), limit: 11 }));
    }

    #[test]
    fn a_frame_that_cannot_be_written_leaves_nothing_behind() {
        let mut buffer = vec![1, 2, 3];
        let outcome = append::<FrameError>(&mut buffer, |buffer| {
            buffer.resize(buffer.len() + limits::FRAME_BYTES_MAX + 1, 0);
            Ok(())
        });
        assert!(outcome.is_err());
        assert_eq!(buffer, [1, 2, 3]);
    }

    #[test]
    fn prefaces_survive_and_foreign_ones_are_told_at_the_first_byte() {
        let versions = VersionRange { lowest: 1, highest: 0x0203 };
        let bytes = client_preface(versions);
        for length in 0..bytes.len() {
            assert_eq!(read_client_preface(&bytes[..length]), Ok(None));
        }
        assert_eq!(read_client_preface(&bytes), Ok(Some(versions)));
        assert_eq!(read_client_preface(b"GET"), Err(NotNative));
        assert_eq!(read_client_preface(&[MAGIC[0], b'x']), Err(NotNative));
        for chosen in [None, Some(2)] {
            let preface = ServerPreface { chosen, versions };
            let bytes = preface.to_bytes();
            for length in 0..bytes.len() {
                assert_eq!(ServerPreface::read(&bytes[..length]), Ok(None));
            }
            assert_eq!(ServerPreface::read(&bytes), Ok(Some(preface)));
        }
        assert_eq!(ServerPreface::read(b"HTTP"), Err(NotNative));
    }

    #[test]
    fn the_highest_common_version_is_chosen() {
        let range = |lowest, highest| VersionRange { lowest, highest };
        assert_eq!(range(1, 3).common(range(2, 5)), Some(3));
        assert_eq!(range(2, 5).common(range(1, 3)), Some(3));
        assert_eq!(range(1, 1).common(range(2, 2)), None);
        assert_eq!(range(0, 0).common(range(0, 0)), None, "0 means none");
        assert_eq!(range(5, 1).common(range(1, 9)), None, "an upside-down range has nothing in it");
    }
}
