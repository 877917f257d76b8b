//! Messages that take the most memory for their bytes: lists of as many of the smallest things as will be read. No mutation
//! finds these, since a length and what it counts must grow together.
//!
//! How many are read is found out, not computed from the bound; so a bound that holds only on paper is noticed.

use libtest_mimic::{Failed, Trial};
use tenfold::protocol::codec::{self, DECODED_BYTES_MAX};
use tenfold::protocol::frame;
use tenfold::protocol::messages::{
    ClientMessage, ServerMessage, WireAnswer, WireCampaign, WireControl, WireCount, WireGrant, WireRequest,
    WireTaskState,
};

use crate::targets::{self, Target};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("dense::clients_messages_keep_to_their_bound", || largest("client_message", &client_messages())),
        Trial::test("dense::servers_messages_keep_to_their_bound", || largest("server_message", &server_messages())),
    ]
}

/// A message of many parts.
struct Dense {
    /// Bytes that a part of the first kind takes in memory.
    first_bytes: usize,
    /// Bytes that a part of the second kind takes in memory.
    second_bytes: usize,
    /// Makes the body of a frame with so many of each; `None` if it does not fit one.
    body: Box<dyn Fn(usize, usize) -> Option<Vec<u8>>>,
}

/// Runs each message with as many of its first parts, and then as many of its second, as are read.
fn largest(target: &str, messages: &[Dense]) -> Result<(), Failed> {
    let target = targets::all().find(|known| known.name == target).unwrap();
    for Dense { first_bytes, second_bytes, body } in messages {
        let first = most(target, *first_bytes, |count| body(count, 0))?;
        assert!(first > 0, "not even a few parts are read");
        most(target, *second_bytes, |count| body(first, count))?;
    }
    Ok(())
}

/// The most parts that are read, as a few shares of those that fill the bound; the message with them is also run.
fn most(target: Target, part_bytes: usize, body: impl Fn(usize) -> Option<Vec<u8>>) -> Result<usize, Failed> {
    for sixteenths in [32, 24, 16, 15, 14, 12, 10, 8, 6, 5, 4, 3, 2, 1] {
        let count = DECODED_BYTES_MAX / part_bytes * sixteenths / 16;
        let Some(body) = body(count) else { continue };
        let client = target.name == "client_message";
        let malformed = |error: &codec::DecodeError| matches!(error, codec::DecodeError::Malformed(_));
        // Too many parts are found only when all have been read.
        let read = if client {
            !codec::decode_client(&body).as_ref().is_err_and(malformed)
        } else {
            codec::decode_server(&body).is_ok()
        };
        if read {
            crate::run(target, &body)?;
            return Ok(count);
        }
    }
    Ok(0)
}

fn client<First, Second>(message: impl Fn(usize, usize) -> ClientMessage + 'static) -> Dense {
    let body = move |first, second| {
        let mut bytes = Vec::new();
        codec::encode_client(&message(first, second), &mut bytes).ok()?;
        Some(bytes.split_off(frame::LENGTH_BYTES))
    };
    Dense { first_bytes: size_of::<First>(), second_bytes: size_of::<Second>(), body: Box::new(body) }
}

fn server<First, Second>(message: impl Fn(usize, usize) -> ServerMessage + 'static) -> Dense {
    let body = move |first, second| {
        let mut bytes = Vec::new();
        codec::encode_server(&message(first, second), &mut bytes).ok()?;
        Some(bytes.split_off(frame::LENGTH_BYTES))
    };
    Dense { first_bytes: size_of::<First>(), second_bytes: size_of::<Second>(), body: Box::new(body) }
}

fn client_messages() -> Vec<Dense> {
    let short = |count| vec![String::new(); count];
    vec![
        client::<WireRequest, u8>(|first, second| ClientMessage::Requests {
            first: 1,
            confirmed: 0,
            requests: [
                vec![WireRequest::Release { lease: 0 }; first],
                vec![WireRequest::Mixed { lease: 0, done: 0, failed: 0, error: "e".repeat(second) }],
            ]
            .concat(),
        }),
        client::<String, u8>(move |first, second| ClientMessage::Control {
            id: 0,
            request: WireControl::AddKeys {
                creation: [0; 16],
                from: 0,
                keys: [short(first), vec!["k".repeat(second)]].concat(),
            },
        }),
    ]
}

fn server_messages() -> Vec<Dense> {
    let campaign =
        WireCampaign { id: 0, name: String::new(), first: 0, seed: None, keyed: false, lease_ms: 0, timeout_ms: None };
    let grant = WireGrant { lease: 0, campaign: 0, task: 0, first_run: 0, runs: 0, key: None };
    let count = WireCount {
        index: 0,
        key: None,
        done: 0,
        extra: 0,
        leased: 0,
        state: WireTaskState::Open,
        errors: 0,
        losses: 0,
        last_error: String::new(),
    };
    vec![
        server::<WireCampaign, WireGrant>(move |first, second| ServerMessage::Grants {
            campaigns: vec![campaign.clone(); first],
            grants: vec![grant.clone(); second],
            resent: false,
        }),
        server::<WireCount, u8>(move |first, second| {
            let mut tasks = vec![count.clone(); first + 1];
            tasks[0].last_error = "e".repeat(second);
            ServerMessage::Control { id: 0, answer: WireAnswer::Counts { first: 0, runs: 0, tasks, next: None } }
        }),
    ]
}
