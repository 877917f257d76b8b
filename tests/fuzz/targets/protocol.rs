//! What peers say: the messages and streams of the native dialect, those of the origin's, and which one it is.

use std::fmt::Debug;

use tenfold::limits;
use tenfold::protocol::codec::{self, DECODED_BYTES_MAX, EncodeError};
use tenfold::protocol::dialect::{self, Dialect};
use tenfold::protocol::frame::{self, Decoder, ServerPreface};
use tenfold::protocol::messages::{
    ClientMessage, ServerMessage, WireAnswer, WireCampaign, WireControl, WireCount, WireFate, WireGrant, WireIdle,
    WireLoss, WireRefusal, WireRequest, WireSpec, WireStatus,
};
use tenfold::protocol::{convert, origin};
use tenfold::types::{
    CampaignInfo, CampaignSpec, CampaignStatus, Grant, Idle, LeaseId, LossReason, Refusal, Request, RequestFate,
    TaskCount,
};

use super::{Target, pieces};
use crate::memory::capped;

/// Beside what was decoded: errors and their texts.
const SMALL: usize = 4 * 1_024;

pub(super) const TARGETS: &[Target] = &[
    Target { name: "client_message", run: client_message, input_bytes_max: limits::FRAME_BYTES_MAX, words: NUMBERS },
    Target { name: "server_message", run: server_message, input_bytes_max: limits::FRAME_BYTES_MAX, words: NUMBERS },
    Target { name: "client_stream", run: client_stream, input_bytes_max: 64 * 1_024, words: STREAM },
    Target { name: "server_stream", run: server_stream, input_bytes_max: 64 * 1_024, words: STREAM },
    Target { name: "origin_messages", run: origin_messages, input_bytes_max: 256 * 1_024, words: ORIGIN },
    Target { name: "origin_answers", run: origin_answers, input_bytes_max: 256 * 1_024, words: ORIGIN },
    Target { name: "first_bytes", run: first_bytes, input_bytes_max: 64, words: FIRST },
];

/// Numbers with their marks, the longest and those that claim much.
const NUMBERS: &[&[u8]] = &[
    &[250],
    &[251, 251, 0],
    &[251, 0, 0],
    &[252, 0, 0, 1, 0],
    &[253, 0, 0, 0, 0, 0, 1, 0, 0],
    &[253, 255, 255, 255, 255, 255, 255, 255, 255],
    &[254],
    &[1, 0],
];
const STREAM: &[&[u8]] = &[&frame::MAGIC, &[1, 0, 1, 0], &[2, 0, 0, 0, 3, 5], &[0, 0, 16, 0], &[255, 255, 255, 255]];
const ORIGIN: &[&[u8]] = &[
    origin::START,
    origin::END,
    b"crrrazy_msg_",
    b"{11: 2}",
    b"{",
    b"}",
    b": ",
    b", ",
    b"-",
    b"_",
    b"18446744073709551615",
    b"18446744073709551616",
    b"-0",
    b"-1",
];
const FIRST: &[&[u8]] = &[b"GET ", b"OPTIONS ", b"PRI * HTTP/2.0", &[0x16, 3, 1], b"{\"a\":1}", origin::START];

/// The body of a frame that a server reads.
fn client_message(body: &[u8]) {
    let decoded = capped("a client's message", DECODED_BYTES_MAX + SMALL, || codec::decode_client(body));
    let Ok(message) = decoded else { return };
    same_bytes(body, |frame| codec::encode_client(&message, frame));
    match message {
        ClientMessage::Requests { requests, .. } => {
            for request in requests {
                let converted = Request::from(request.clone());
                let cut = match request {
                    WireRequest::Mixed { lease, done, failed, error } => {
                        WireRequest::Mixed { lease, done, failed, error: convert::cut_error(error) }
                    }
                    WireRequest::Done { .. } | WireRequest::Release { .. } => request,
                };
                assert_eq!(WireRequest::from(converted), cut);
            }
        }
        ClientMessage::Control { request: WireControl::Create { spec, .. }, .. } => {
            let converted: CampaignSpec = there_and_back::<WireSpec, _>(*spec);
            let _ = converted.check();
        }
        ClientMessage::Hello { .. }
        | ClientMessage::Want { .. }
        | ClientMessage::Heartbeat { .. }
        | ClientMessage::Goodbye
        | ClientMessage::Control { .. } => {}
    }
}

/// The body of a frame that a client reads.
fn server_message(body: &[u8]) {
    let decoded = capped("a server's message", DECODED_BYTES_MAX + SMALL, || codec::decode_server(body));
    let Ok(message) = decoded else { return };
    same_bytes(body, |frame| codec::encode_server(&message, frame));
    match message {
        ServerMessage::Welcome { refusals, .. } | ServerMessage::Answers { refusals, .. } => {
            for refusal in refusals {
                there_and_back::<WireRefusal, Refusal>(refusal);
            }
        }
        ServerMessage::Grants { campaigns, grants, .. } => {
            for campaign in campaigns {
                let converted = CampaignInfo::from(campaign.clone());
                assert_eq!(WireCampaign::from(&converted), campaign);
            }
            for grant in grants {
                let (converted, key) = <(Grant, Option<String>)>::from(grant.clone());
                assert_eq!(WireGrant::new(converted, key), grant);
            }
        }
        ServerMessage::Lost { leases } => {
            for loss in leases {
                there_and_back::<WireLoss, (LeaseId, LossReason)>(loss);
            }
        }
        ServerMessage::Idle(idle) => drop(there_and_back::<WireIdle, Idle>(idle)),
        ServerMessage::Control { answer, .. } => answered(answer),
        ServerMessage::UnknownSession { .. } | ServerMessage::Heartbeat | ServerMessage::Closing { .. } => {}
    }
}

fn answered(answer: WireAnswer) {
    match answer {
        WireAnswer::Status { campaigns, .. } => {
            for status in campaigns {
                there_and_back::<WireStatus, CampaignStatus>(status);
            }
        }
        WireAnswer::Counts { tasks, .. } => {
            for count in tasks {
                let (key, converted) = <(Option<String>, TaskCount)>::from(count.clone());
                assert_eq!(WireCount::new(converted, key), count);
            }
        }
        WireAnswer::Fate(fate) => drop(there_and_back::<WireFate, RequestFate>(fate)),
        WireAnswer::Creation { .. } | WireAnswer::Done { .. } | WireAnswer::Failed { .. } => {}
    }
}

fn there_and_back<Wire, Ours>(wire: Wire) -> Ours
where
    Wire: Clone + Debug + PartialEq + From<Ours>,
    Ours: Clone + From<Wire>,
{
    let ours = Ours::from(wire.clone());
    assert_eq!(Wire::from(ours.clone()), wire);
    ours
}

fn same_bytes(body: &[u8], encode: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>) {
    let mut frame = Vec::new();
    encode(&mut frame).unwrap();
    assert_eq!(&frame[frame::LENGTH_BYTES..], body, "what is read is written the same");
}

/// What a server makes of a connection's bytes, from the first one on.
#[derive(Debug, PartialEq)]
struct Heard<Preface, Message> {
    preface: Option<Preface>,
    messages: Vec<Message>,
    /// Why it went no further; `None` at the end of the bytes.
    end: Option<String>,
}

/// Everything that a client may send on a connection.
fn client_stream(input: &[u8]) {
    let (bytes, pieces) = pieces(input);
    let whole = hear(&[bytes], limits::HELLO_FRAME_BYTES_MAX, frame::read_client_preface, codec::decode_client);
    let cut = hear(&pieces, limits::HELLO_FRAME_BYTES_MAX, frame::read_client_preface, codec::decode_client);
    assert_eq!(cut, whole, "the pieces make no difference");
}

/// Everything that a server may send on a connection.
fn server_stream(input: &[u8]) {
    let (bytes, pieces) = pieces(input);
    let whole = hear(&[bytes], limits::FRAME_BYTES_MAX, ServerPreface::read, codec::decode_server);
    let cut = hear(&pieces, limits::FRAME_BYTES_MAX, ServerPreface::read, codec::decode_server);
    assert_eq!(cut, whole, "the pieces make no difference");
    if let (Some(preface), Some(first)) = (whole.preface, bytes.get(..frame::SERVER_PREFACE_BYTES)) {
        assert_eq!(preface.to_bytes(), first);
    }
}

fn hear<Preface, Message, Error: ToString, Odd: ToString>(
    pieces: &[&[u8]],
    first_frame_bytes: usize,
    read_preface: impl Fn(&[u8]) -> Result<Option<Preface>, Odd>,
    decode: impl Fn(&[u8]) -> Result<Message, Error>,
) -> Heard<Preface, Message> {
    let mut heard = Heard { preface: None, messages: Vec::new(), end: None };
    let mut begun = Vec::new();
    let mut limit = first_frame_bytes;
    let mut decoder = Decoder::new(limit);
    for piece in pieces {
        let mut piece = piece.to_vec();
        if heard.preface.is_none() {
            begun.append(&mut piece);
            // A server's preface is two bytes longer than a client's.
            let length = (frame::CLIENT_PREFACE_BYTES..=frame::SERVER_PREFACE_BYTES)
                .find(|length| matches!(read_preface(&begun[..begun.len().min(*length)]), Ok(Some(_))));
            match read_preface(&begun) {
                Err(error) => return Heard { end: Some(error.to_string()), ..heard },
                Ok(None) => continue,
                Ok(Some(preface)) => heard.preface = Some(preface),
            }
            piece = begun.split_off(length.unwrap_or(begun.len()));
        }
        decoder.push(&piece);
        loop {
            match decoder.next_frame() {
                Err(error) => return Heard { end: Some(error.to_string()), ..heard },
                Ok(None) => break,
                Ok(Some(body)) => {
                    assert!(body.len() <= limit, "a frame of {} bytes where {limit} are allowed", body.len());
                    match decode(body) {
                        Err(error) => return Heard { end: Some(error.to_string()), ..heard },
                        Ok(message) => heard.messages.push(message),
                    }
                }
            }
            // After the hello longer frames are allowed.
            limit = limits::FRAME_BYTES_MAX;
            decoder.set_limit(limit);
        }
    }
    heard
}

/// What a client of the origin's dialect sends.
fn origin_messages(input: &[u8]) {
    let (bytes, pieces) = pieces(input);
    let read = |pieces: &[&[u8]]| {
        let mut decoder = origin::Decoder::default();
        let mut messages = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            loop {
                match decoder.next_message() {
                    Ok(Some(message)) => messages.push(message),
                    Ok(None) => break,
                    Err(error) => return (messages, Some(error)),
                }
            }
        }
        (messages, None)
    };
    // Pushed at once, all is kept; and a message may be one long list of short entries, with an index beside it.
    let bound = 2 * input.len() + 16 * limits::ORIGIN_MESSAGE_BYTES_MAX;
    let whole = capped("the origin's dialect", bound, || read(&[bytes]));
    assert_eq!(read(&pieces), whole, "the pieces make no difference");
    for message in whole.0 {
        assert!(message.len() <= limits::ORIGIN_ENTRIES_MAX);
        let written = origin::encode_message(&message);
        // Numbers with signs and underscores are longer than they are written here.
        assert_eq!(read(&[&written]), (vec![message], None), "what was read, written and read again");
    }
}

/// What a server of the origin's dialect answers.
fn origin_answers(input: &[u8]) {
    let (bytes, pieces) = pieces(input);
    let read = |pieces: &[&[u8]]| {
        let mut decoder = origin::AnswerDecoder::default();
        let mut answers = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            loop {
                match decoder.next_answer() {
                    Ok(Some(answer)) => answers.push(answer),
                    Ok(None) => break,
                    Err(error) => return (answers, Some(error)),
                }
            }
        }
        (answers, None)
    };
    let whole = read(&[bytes]);
    assert_eq!(read(&pieces), whole, "the pieces make no difference");
    for answer in whole.0 {
        assert_eq!(read(&[&origin::encode_answer(answer)]), (vec![answer], None));
    }
}

/// The first bytes of a connection: the verdict comes in time, never changes, and what is refused is told so.
fn first_bytes(bytes: &[u8]) {
    let mut verdict = Dialect::NeedMore;
    for length in 0..=bytes.len() {
        let now = dialect::tell(&bytes[..length]);
        if verdict == Dialect::NeedMore {
            verdict = now;
        }
        assert_eq!(now, verdict, "after {length} bytes");
        assert!(now != Dialect::NeedMore || length < dialect::TELL_BYTES_MAX, "undecided after {length} bytes");
    }
    let refused = matches!(verdict, Dialect::Http | Dialect::Tls | Dialect::JsonLines);
    assert_eq!(dialect::refusal(verdict).is_some(), refused);
    if let Some(refusal) = dialect::refusal(Dialect::Http).filter(|_| verdict == Dialect::Http) {
        let text = String::from_utf8(refusal).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
    }
}
