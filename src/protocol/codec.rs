//! Messages to bytes and back: the only file of the wire that names the encoding (bincode 2, `standard()`).
//!
//! **Invariants.** One body is one message: what is left over is an error. Decoding allocates at most
//! [`DECODED_BYTES_MAX`], whatever lengths the bytes claim. Every message has exactly one encoding: a longer spelling of
//! a number is refused, so that equal messages are equal bytes. The counts in a message are held to `limits`.
//! Tested here with damaged, truncated and random bytes; golden bytes of every message are in `tests/golden_wire.rs`.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::enc::EncoderImpl;
use bincode::enc::write::SizeWriter;
use bincode::{Decode, Encode};

use super::frame::{self, FrameError};
use super::messages::{ClientMessage, ServerMessage, WireControl};
use crate::limits;

/// Bytes of memory that one decoded message may take. More than a frame, since a short number on the wire is a full one
/// in memory.
pub const DECODED_BYTES_MAX: usize = 4 * limits::FRAME_BYTES_MAX;

/// Bytes that the encoding may hand out at a time. It takes back what it gave to a list as that list is filled, so each of
/// two lists may have this much; the texts in them are at most as long as the frame.
const CLAIMED_BYTES_MAX: usize = (DECODED_BYTES_MAX - limits::FRAME_BYTES_MAX) / 2;

const ENCODING: Configuration<LittleEndian, Varint> = bincode::config::standard();
const LIMITED: Configuration<LittleEndian, Varint, Limit<CLAIMED_BYTES_MAX>> =
    bincode::config::standard().with_limit::<CLAIMED_BYTES_MAX>();

/// Why a message cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// It is longer than a frame may be; whoever put it together should have cut it.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The encoding refused it.
    #[error("a message cannot be encoded: {0}")]
    Encoding(String),
}

/// Why the body of a frame is not a message; the peer breaks the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No message looks like this.
    #[error("the bytes are no message: {0}")]
    Malformed(String),
    /// A message, and then something else.
    #[error("{extra} bytes follow the message in its frame")]
    Trailing {
        /// How many bytes.
        extra: usize,
    },
    /// A number is written longer than it needs to be.
    #[error("the message is not in its shortest form")]
    NotCanonical,
    /// More of something than a message may have.
    #[error("a message has {count} {what}; {limit} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many are allowed.
        limit: usize,
    },
}

/// Appends a client's message as a whole frame.
///
/// # Errors
/// The message is too long; `buffer` is as it was.
pub fn encode_client(message: &ClientMessage, buffer: &mut Vec<u8>) -> Result<(), EncodeError> {
    encode(message, buffer)
}

/// Appends a server's message as a whole frame.
///
/// # Errors
/// The message is too long; `buffer` is as it was.
pub fn encode_server(message: &ServerMessage, buffer: &mut Vec<u8>) -> Result<(), EncodeError> {
    encode(message, buffer)
}

/// Reads the body of a client's frame.
///
/// # Errors
/// The peer breaks the protocol: close the connection, saying so.
pub fn decode_client(body: &[u8]) -> Result<ClientMessage, DecodeError> {
    let message: ClientMessage = decode(body)?;
    check_client(&message)?;
    Ok(message)
}

/// Reads the body of a server's frame.
///
/// # Errors
/// The server breaks the protocol: close the connection.
pub fn decode_server(body: &[u8]) -> Result<ServerMessage, DecodeError> {
    decode(body)
}

fn encode<M: Encode>(message: &M, buffer: &mut Vec<u8>) -> Result<(), EncodeError> {
    frame::append(buffer, |buffer| {
        bincode::encode_into_std_write(message, buffer, ENCODING)
            .map(|_written| ())
            .map_err(|error| EncodeError::Encoding(error.to_string()))
    })
}

fn decode<M: Decode<()> + Encode>(body: &[u8]) -> Result<M, DecodeError> {
    let (message, consumed): (M, usize) = bincode::decode_from_slice(body, LIMITED).map_err(malformed)?;
    if consumed != body.len() {
        return Err(DecodeError::Trailing { extra: body.len() - consumed });
    }
    // Numbers are the only things with more than one spelling, and all spellings but one are longer than need be; so
    // equal lengths mean equal bytes, without writing them.
    let mut sizer = EncoderImpl::new(SizeWriter::default(), ENCODING);
    message.encode(&mut sizer).map_err(|error| DecodeError::Malformed(error.to_string()))?;
    if sizer.into_writer().bytes_written != consumed {
        return Err(DecodeError::NotCanonical);
    }
    Ok(message)
}

fn malformed(error: bincode::error::DecodeError) -> DecodeError {
    DecodeError::Malformed(error.to_string())
}

/// Holds a client's message to the limits that its type cannot express. Ranges that the coordinator clamps or refuses
/// with an answer of their own are left to it.
fn check_client(message: &ClientMessage) -> Result<(), DecodeError> {
    let at_most = |what, count: usize, limit: usize| {
        if count <= limit { Ok(()) } else { Err(DecodeError::TooMany { what, count, limit }) }
    };
    match message {
        ClientMessage::Hello { session, .. } => {
            let bytes = session.as_ref().map_or(0, |session| session.name.len());
            at_most("bytes of a session's name", bytes, limits::SESSION_NAME_BYTES_MAX)
        }
        ClientMessage::Want { campaigns, .. } => {
            at_most("wanted campaigns", campaigns.len(), limits::WANTED_CAMPAIGNS_MAX)?;
            let longest = campaigns.iter().map(String::len).max().unwrap_or(0);
            at_most("bytes of a campaign's name", longest, limits::NAME_BYTES_MAX)
        }
        ClientMessage::Requests { requests, .. } => {
            at_most("requests", requests.len(), limits::REQUESTS_PER_MESSAGE_MAX)
        }
        ClientMessage::Control { request: WireControl::AddKeys { keys, .. }, .. } => {
            at_most("keys", keys.len(), limits::ADD_KEYS_MAX)?;
            at_most("bytes of keys", keys.iter().map(String::len).sum(), limits::ADD_BYTES_MAX)
        }
        ClientMessage::Heartbeat { .. } | ClientMessage::Goodbye | ClientMessage::Control { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::messages::{
        WireAnswer, WireCount, WireGrant, WireIdle, WireReason, WireRefusal, WireRequest, WireSession, WireTaskState,
    };

    fn client_messages() -> Vec<ClientMessage> {
        let session =
            WireSession { session: [1; 16], instance: [2; 16], attempt: 300, confirmed: 70_000, name: "host:1".into() };
        vec![
            ClientMessage::Hello { token: String::new(), session: Some(session) },
            ClientMessage::Hello { token: "x".into(), session: None },
            ClientMessage::Want { leases: 4, runs: 1, campaigns: vec!["a".into(), "b".into()] },
            ClientMessage::Requests {
                first: 1 << 40,
                confirmed: 5,
                requests: vec![
                    WireRequest::Done { lease: u64::MAX, runs: 2 },
                    WireRequest::Mixed { lease: 7, done: 1, failed: 2, error: "no".into() },
                    WireRequest::Release { lease: 9 },
                ],
            },
            ClientMessage::Goodbye,
        ]
    }

    fn server_messages() -> Vec<ServerMessage> {
        let grant = WireGrant { lease: 1, campaign: 2, task: 3, first_run: 4, runs: 5, key: Some("k".into()) };
        let refusal = WireRefusal { from: 1, to: 300, reason: WireReason::Gone };
        vec![
            ServerMessage::Answers { through: 5, refusals: vec![refusal] },
            ServerMessage::Grants { campaigns: vec![], grants: vec![grant], resent: false },
            ServerMessage::Idle(WireIdle::Settled { quarantined: 1, cancelled: false }),
            ServerMessage::Control { id: 1, answer: WireAnswer::Done { tasks: 400 } },
            ServerMessage::Heartbeat,
        ]
    }

    fn body(encode: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>) -> Vec<u8> {
        let mut frame = Vec::new();
        encode(&mut frame).unwrap();
        frame.split_off(frame::LENGTH_BYTES)
    }

    #[test]
    fn messages_survive_and_nothing_may_follow_or_lack() {
        for message in client_messages() {
            let mut bytes = body(|buffer| encode_client(&message, buffer));
            assert_eq!(decode_client(&bytes), Ok(message.clone()));
            for length in 0..bytes.len() {
                assert!(decode_client(&bytes[..length]).is_err(), "{message:?} cut to {length}");
            }
            bytes.push(0);
            assert_eq!(decode_client(&bytes), Err(DecodeError::Trailing { extra: 1 }));
        }
        for message in server_messages() {
            let bytes = body(|buffer| encode_server(&message, buffer));
            assert_eq!(decode_server(&bytes), Ok(message));
        }
    }

    #[test]
    fn a_number_has_one_spelling() {
        let heartbeat = body(|buffer| encode_client(&ClientMessage::Heartbeat { confirmed: 5 }, buffer));
        assert_eq!(heartbeat, [3, 5]);
        for longer in [&[3, 251, 5, 0][..], &[3, 252, 5, 0, 0, 0], &[251, 3, 0, 5]] {
            assert_eq!(decode_client(longer), Err(DecodeError::NotCanonical), "{longer:?}");
        }
    }

    #[test]
    fn claimed_lengths_allocate_nothing() {
        // Requests that claim 2^40 entries, a name of 2^62 bytes, a list that fits no frame.
        let huge = |length: u64| [&[253][..], &length.to_le_bytes()].concat();
        for bytes in [
            [&[2, 1, 0][..], &huge(1 << 40)].concat(),
            [&[1, 1, 1, 1][..], &huge(1 << 62)].concat(),
            [&[1, 1, 1][..], &huge(CLAIMED_BYTES_MAX as u64 / 24 + 1)].concat(),
        ] {
            assert!(matches!(decode_client(&bytes), Err(DecodeError::Malformed(_))), "{bytes:?}");
        }
    }

    #[test]
    fn what_fills_a_frame_is_read() {
        let task = |key: usize| WireCount {
            index: 1,
            key: Some("k".repeat(key)),
            done: 2,
            extra: 3,
            leased: 4,
            state: WireTaskState::Open,
            errors: 5,
            losses: 6,
            last_error: "e".repeat(limits::ERROR_BYTES_MAX),
        };
        let tasks = vec![task(limits::FRAME_BYTES_MAX / 1_000 - 220); 1_000];
        let answer = WireAnswer::Counts { first: 0, runs: 1, tasks, next: None };
        let message = ServerMessage::Control { id: 1, answer };
        let bytes = body(|buffer| encode_server(&message, buffer));
        assert!(bytes.len() > limits::FRAME_BYTES_MAX / 100 * 99, "{} bytes", bytes.len());
        assert_eq!(decode_server(&bytes), Ok(message));
    }

    #[test]
    fn counts_are_held_to_their_limits() {
        let too_many = |message: ClientMessage| {
            let bytes = body(|buffer| encode_client(&message, buffer));
            assert!(matches!(decode_client(&bytes), Err(DecodeError::TooMany { .. })), "{:?}", decode_client(&bytes));
        };
        let fits = |message: ClientMessage| {
            let bytes = body(|buffer| encode_client(&message, buffer));
            assert_eq!(decode_client(&bytes), Ok(message));
        };
        let requests = |count| ClientMessage::Requests {
            first: 1,
            confirmed: 0,
            requests: vec![WireRequest::Release { lease: 1 }; count],
        };
        fits(requests(limits::REQUESTS_PER_MESSAGE_MAX));
        too_many(requests(limits::REQUESTS_PER_MESSAGE_MAX + 1));
        let keys =
            |keys| ClientMessage::Control { id: 1, request: WireControl::AddKeys { creation: [0; 16], from: 0, keys } };
        fits(keys(vec!["k".into(); limits::ADD_KEYS_MAX]));
        too_many(keys(vec!["k".into(); limits::ADD_KEYS_MAX + 1]));
        too_many(keys(vec!["k".repeat(limits::ADD_BYTES_MAX + 1)]));
        let want = |campaigns| ClientMessage::Want { leases: 1, runs: 1, campaigns };
        fits(want(vec!["c".repeat(limits::NAME_BYTES_MAX); limits::WANTED_CAMPAIGNS_MAX]));
        too_many(want(vec!["c".into(); limits::WANTED_CAMPAIGNS_MAX + 1]));
        too_many(want(vec!["c".repeat(limits::NAME_BYTES_MAX + 1)]));
        let named = |bytes| ClientMessage::Hello {
            token: String::new(),
            session: Some(WireSession {
                session: [0; 16],
                instance: [0; 16],
                attempt: 1,
                confirmed: 0,
                name: "n".repeat(bytes),
            }),
        };
        fits(named(limits::SESSION_NAME_BYTES_MAX));
        too_many(named(limits::SESSION_NAME_BYTES_MAX + 1));
    }

    #[test]
    fn the_longest_hello_fits_its_small_frame() {
        let session = WireSession {
            session: [255; 16],
            instance: [255; 16],
            attempt: u64::MAX,
            confirmed: u64::MAX,
            name: "n".repeat(limits::SESSION_NAME_BYTES_MAX),
        };
        let hello = ClientMessage::Hello { token: "t".repeat(512), session: Some(session) };
        assert!(body(|buffer| encode_client(&hello, buffer)).len() <= limits::HELLO_FRAME_BYTES_MAX);
    }

    #[test]
    fn no_bytes_make_it_panic_and_what_is_read_is_written_the_same() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        let seeds: Vec<Vec<u8>> = client_messages()
            .iter()
            .map(|message| body(|buffer| encode_client(message, buffer)))
            .chain(server_messages().iter().map(|message| body(|buffer| encode_server(message, buffer))))
            .collect();
        let mut read = 0;
        for round in 0..60_000 {
            let mut bytes = seeds[round % seeds.len()].clone();
            for _ in 0..=random() % 3 {
                let at = random() % bytes.len();
                match random() % 4 {
                    0 => bytes[at] = random() as u8,
                    1 => bytes[at] = [0, 1, 250, 251, 252, 253, 254, 255][random() % 8],
                    2 => bytes.insert(at, random() as u8),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            if let Ok(message) = decode_client(&bytes) {
                read += 1;
                assert_eq!(body(|buffer| encode_client(&message, buffer)), bytes);
            }
            if let Ok(message) = decode_server(&bytes) {
                read += 1;
                assert_eq!(body(|buffer| encode_server(&message, buffer)), bytes);
            }
        }
        assert!(read > 1_000, "the damage leaves some messages readable, else this shows nothing");
    }
}
