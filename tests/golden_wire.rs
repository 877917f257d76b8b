//! The bytes of the wire, written down by hand: every message of the native dialect, one whole conversation with the
//! meaning of every byte, and the origin's dialect. A change of any of these breaks peers that exist.
//!
//! `docs/PROTOCOL.md` shows the same bytes. This test makes those parts of the document (run it with
//! `TENFOLD_WRITE_DOCS=1` to have them written) and fails when the document is behind, or when the messages changed
//! since the document was last compared with them.
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used)] // A helper of a test may fail like the test.

use std::fmt::Write;
use std::path::PathBuf;

use sha2::{Digest, Sha256};
use tenfold::protocol::frame::{ServerPreface, VERSIONS, client_preface};
use tenfold::protocol::messages::{
    ClientMessage, ServerMessage, WireAnswer, WireCampaign, WireCampaignState, WireClosing, WireControl, WireCount,
    WireFailure, WireFate, WireGrant, WireIdle, WireLoss, WireLossReason, WireOrder, WireReason, WireRefusal,
    WireRequest, WireSession, WireSpec, WireStatus, WireTaskState, WireTasks,
};
use tenfold::protocol::{codec, origin};

/// 16 bytes that stand for a random id.
const ID: [u8; 16] = [7; 16];

/// Who sends something.
#[derive(Clone, Debug)]
enum Sent {
    Client(ClientMessage),
    Server(ServerMessage),
    Raw { by: &'static str, what: &'static str, bytes: Vec<u8> },
}

impl Sent {
    /// With the length in front, if it is a message.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::Client(message) => codec::encode_client(message, &mut bytes).unwrap(),
            Self::Server(message) => codec::encode_server(message, &mut bytes).unwrap(),
            Self::Raw { bytes: raw, .. } => bytes.extend(raw),
        }
        bytes
    }

    fn assert_read_from(&self, body: &[u8]) {
        match self {
            Self::Client(message) => assert_eq!(codec::decode_client(body).as_ref(), Ok(message)),
            Self::Server(message) => assert_eq!(codec::decode_server(body).as_ref(), Ok(message)),
            Self::Raw { .. } => {}
        }
    }

    fn title(&self) -> String {
        let debug = match self {
            Self::Client(message) => format!("client: {message:?}"),
            Self::Server(message) => format!("server: {message:?}"),
            Self::Raw { by, what, .. } => format!("{by}: {what}"),
        };
        debug.replace(&format!("{ID:?}"), "[7; 16]").replace(&format!("{:?}", [0; 16]), "[0; 16]")
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn unhex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// One conversation: who says what, and what every byte of it means.
fn conversation() -> Vec<(Sent, Vec<(&'static str, &'static str)>)> {
    let client = |message| Sent::Client(message);
    let server = |message| Sent::Server(message);
    let (one, two) = (1 << 32, (1 << 32) + 1);
    vec![
        (
            Sent::Raw { by: "client", what: "preface", bytes: client_preface(VERSIONS).to_vec() },
            vec![
                ("91 74 65 6e 66 6f 6c 64", "magic: 0x91 and \"tenfold\""),
                ("01 00", "lowest version it speaks: 1"),
                ("01 00", "highest: 1"),
            ],
        ),
        (
            Sent::Raw {
                by: "server",
                what: "preface",
                bytes: ServerPreface::answer(VERSIONS, VERSIONS).to_bytes().to_vec(),
            },
            vec![
                ("91 74 65 6e 66 6f 6c 64", "magic"),
                ("01 00", "chosen version: 1"),
                ("01 00", "lowest version it speaks: 1"),
                ("01 00", "highest: 1"),
            ],
        ),
        (
            client(ClientMessage::Hello {
                token: String::new(),
                session: Some(WireSession {
                    session: ID,
                    instance: [0; 16],
                    attempt: 1,
                    confirmed: 0,
                    name: "host:1".into(),
                }),
            }),
            vec![
                ("2c 00 00 00", "44 bytes follow"),
                ("00", "ClientMessage 0: Hello"),
                ("00", "token: a text of 0 bytes"),
                ("01", "session: there is one"),
                ("07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07", "its id (16 random bytes)"),
                ("00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00", "instance: not known yet"),
                ("01", "attempt: 1"),
                ("00", "confirmed: 0"),
                ("06 68 6f 73 74 3a 31", "name: a text of 6 bytes, \"host:1\""),
            ],
        ),
        (
            server(ServerMessage::Welcome { instance: ID, resumed: false, through: 0, refusals: vec![], leases: 0 }),
            vec![
                ("15 00 00 00", "21 bytes follow"),
                ("00", "ServerMessage 0: Welcome"),
                ("07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07", "instance"),
                ("00", "resumed: no"),
                ("00", "through: 0"),
                ("00", "refusals: none"),
                ("00", "leases: none will come again"),
            ],
        ),
        (
            client(ClientMessage::Want { leases: 2, runs: 1, campaigns: vec!["sweep".into()] }),
            vec![
                ("0a 00 00 00", "10 bytes follow"),
                ("01", "ClientMessage 1: Want"),
                ("02", "leases: at most 2"),
                ("01", "runs: at most 1 each"),
                ("01", "campaigns: 1 name"),
                ("05 73 77 65 65 70", "\"sweep\""),
            ],
        ),
        (
            server(ServerMessage::Grants {
                campaigns: vec![WireCampaign {
                    id: 1,
                    name: "sweep".into(),
                    first: 100,
                    seed: Some(42),
                    keyed: false,
                    lease_ms: 60_000,
                    timeout_ms: Some(3_600_000),
                }],
                grants: vec![
                    WireGrant { lease: one, campaign: 1, task: 7, first_run: 0, runs: 1, key: None },
                    WireGrant { lease: two, campaign: 1, task: 8, first_run: 0, runs: 1, key: None },
                ],
                resent: false,
            }),
            vec![
                ("34 00 00 00", "52 bytes follow"),
                ("02", "ServerMessage 2: Grants"),
                ("01", "campaigns: 1 that this connection has not heard of"),
                ("01", "  id: 1"),
                ("05 73 77 65 65 70", "  name: \"sweep\""),
                ("64", "  number of the first task: 100"),
                ("01 2a", "  seed: there is one, 42"),
                ("00", "  tasks have keys: no"),
                ("fb 60 ea", "  lease: 60,000 ms (251: a u16 follows)"),
                ("01 fc 80 ee 36 00", "  timeout: there is one, 3,600,000 ms (252: a u32 follows)"),
                ("02", "grants: 2"),
                ("fd 00 00 00 00 01 00 00 00", "  lease: 4294967296 (253: a u64 follows)"),
                ("01", "  campaign: 1"),
                ("07", "  task: index 7, so number 107"),
                ("00", "  first run: 0"),
                ("01", "  runs: 1"),
                ("00", "  key: none"),
                ("fd 01 00 00 00 01 00 00 00", "  lease: 4294967297"),
                ("01", "  campaign: 1"),
                ("08", "  task: index 8"),
                ("00", "  first run: 0"),
                ("01", "  runs: 1"),
                ("00", "  key: none"),
                ("00", "resent: no"),
            ],
        ),
        (
            client(ClientMessage::Requests {
                first: 1,
                confirmed: 0,
                requests: vec![
                    WireRequest::Done { lease: one, runs: 1 },
                    WireRequest::Mixed { lease: two, done: 0, failed: 1, error: "exit 1".into() },
                ],
            }),
            vec![
                ("22 00 00 00", "34 bytes follow"),
                ("02", "ClientMessage 2: Requests"),
                ("01", "first: the first of them is number 1"),
                ("00", "confirmed: 0"),
                ("02", "requests: 2"),
                ("00", "WireRequest 0: Done"),
                ("fd 00 00 00 00 01 00 00 00", "  lease"),
                ("01", "  runs: the first 1"),
                ("01", "WireRequest 1: Mixed"),
                ("fd 01 00 00 00 01 00 00 00", "  lease"),
                ("00", "  done: no run"),
                ("01", "  failed: bit 0, the first run"),
                ("06 65 78 69 74 20 31", "  error: \"exit 1\""),
            ],
        ),
        (
            server(ServerMessage::Answers {
                through: 2,
                refusals: vec![WireRefusal { from: 2, to: 2, reason: WireReason::Ended }],
            }),
            vec![
                ("06 00 00 00", "6 bytes follow"),
                ("03", "ServerMessage 3: Answers"),
                ("02", "through: 1 and 2 are processed"),
                ("01", "refusals: 1 stretch"),
                ("02 02", "  from 2 to 2"),
                ("01", "  WireReason 1: Ended. So 1 was counted, and 2 was not"),
            ],
        ),
        (
            client(ClientMessage::Heartbeat { confirmed: 2 }),
            vec![
                ("02 00 00 00", "2 bytes follow"),
                ("03", "ClientMessage 3: Heartbeat"),
                ("02", "confirmed: the answers through 2 were read"),
            ],
        ),
        (
            server(ServerMessage::Idle(WireIdle::Settled { quarantined: 0, cancelled: false })),
            vec![
                ("04 00 00 00", "4 bytes follow"),
                ("05", "ServerMessage 5: Idle"),
                ("05", "WireIdle 5: Settled"),
                ("00", "  quarantined tasks: 0"),
                ("00", "  something was cancelled: no"),
            ],
        ),
        (client(ClientMessage::Goodbye), vec![("01 00 00 00", "1 byte follows"), ("04", "ClientMessage 4: Goodbye")]),
        (
            server(ServerMessage::Closing { code: WireClosing::Goodbye, text: "bye".into() }),
            vec![
                ("06 00 00 00", "6 bytes follow"),
                ("08", "ServerMessage 8: Closing"),
                ("00", "WireClosing 0: Goodbye"),
                ("03 62 79 65", "text: \"bye\""),
            ],
        ),
    ]
}

/// Every message, and every variant of what is in them: (message, body without its length).
fn vectors() -> Vec<(Sent, &'static str)> {
    let client = |message, bytes| (Sent::Client(message), bytes);
    let request = |request, bytes| {
        (Sent::Client(ClientMessage::Requests { first: 1, confirmed: 0, requests: vec![request] }), bytes)
    };
    let control = |request, bytes| (Sent::Client(ClientMessage::Control { id: 1, request }), bytes);
    let server = |message, bytes| (Sent::Server(message), bytes);
    let answer = |answer, bytes| (Sent::Server(ServerMessage::Control { id: 1, answer }), bytes);
    let failed = |code, index, bytes| answer(WireAnswer::Failed { code, text: String::new(), index }, bytes);
    let lost = |reason, bytes| server(ServerMessage::Lost { leases: vec![WireLoss { lease: 9, reason }] }, bytes);
    let closing = |code, bytes| server(ServerMessage::Closing { code, text: String::new() }, bytes);
    let refusals = |reason| vec![WireRefusal { from: 3, to: 300, reason }];
    let name = || "sweep".to_owned();
    let spec = WireSpec {
        name: name(),
        tasks: WireTasks::Range { first: 1, count: 1_000 },
        runs: 10,
        seed: None,
        order: WireOrder::Lowest,
        lease_ms: None,
        timeout_ms: Some(250),
        errors_max: Some(3),
        losses_max: None,
    };
    let keyed = WireSpec {
        tasks: WireTasks::Keys { count: 2 },
        seed: Some(u64::MAX),
        order: WireOrder::Even,
        lease_ms: Some(251),
        timeout_ms: None,
        errors_max: None,
        losses_max: Some(70_000),
        ..spec.clone()
    };
    let status = |state| WireStatus {
        id: 1,
        spec: spec.clone(),
        state,
        settled: true,
        finished: false,
        tasks_done: 2,
        tasks_quarantined: 3,
        runs_done: 4,
        runs_extra: 5,
        runs_leased: 6,
        errors: 7,
        losses: 8,
    };
    let count = |state| WireCount {
        index: 1,
        key: None,
        done: 2,
        extra: 3,
        leased: 4,
        state,
        errors: 5,
        losses: 6,
        last_error: String::new(),
    };
    let counts = |state| WireAnswer::Counts { first: 0, runs: 10, tasks: vec![count(state)], next: None };
    let keyed_count = WireCount { key: Some("k".into()), last_error: "no".into(), ..count(WireTaskState::Open) };
    vec![
        client(ClientMessage::Hello { token: String::new(), session: None }, "00 00 00"),
        client(ClientMessage::Want { leases: 0, runs: 64, campaigns: vec![] }, "01 00 40 00"),
        request(WireRequest::Done { lease: 9, runs: 1 }, "02 01 00 01 00 09 01"),
        request(
            WireRequest::Mixed { lease: 9, done: 1, failed: 2, error: "no".into() },
            "02 01 00 01 01 09 01 02 02 6e 6f",
        ),
        request(WireRequest::Release { lease: 9 }, "02 01 00 01 02 09"),
        control(
            WireControl::Create { creation: ID, spec: Box::new(spec.clone()) },
            "05 01 00 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 05 73 77 65 65 70 00 01 fb e8 03 0a 00 00 00 01 fa 01 03 00",
        ),
        control(
            WireControl::Create { creation: ID, spec: Box::new(keyed) },
            "05 01 00 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 05 73 77 65 65 70 01 02 0a 01 fd ff ff ff ff ff ff ff ff 01 01 fb fb 00 00 00 01 fc 70 11 01 00",
        ),
        control(
            WireControl::AddKeys { creation: ID, from: 0, keys: vec!["a".into(), "b".into()] },
            "05 01 01 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 00 02 01 61 01 62",
        ),
        control(WireControl::Seal { creation: ID }, "05 01 02 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07"),
        control(WireControl::Status { campaign: None, from: 0 }, "05 01 03 00 00"),
        control(WireControl::Status { campaign: Some(name()), from: 0 }, "05 01 03 01 05 73 77 65 65 70 00"),
        control(
            WireControl::Counts { campaign: name(), from: 0, limit: 1_000 },
            "05 01 04 05 73 77 65 65 70 00 fb e8 03",
        ),
        control(WireControl::Pause { campaign: name() }, "05 01 05 05 73 77 65 65 70"),
        control(WireControl::Resume { campaign: name() }, "05 01 06 05 73 77 65 65 70"),
        control(WireControl::Cancel { campaign: name() }, "05 01 07 05 73 77 65 65 70"),
        control(WireControl::Requeue { campaign: name() }, "05 01 08 05 73 77 65 65 70"),
        control(WireControl::Remove { campaign: name() }, "05 01 09 05 73 77 65 65 70"),
        control(
            WireControl::Fate { session: ID, number: 7 },
            "05 01 0a 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07",
        ),
        server(
            ServerMessage::Welcome {
                instance: ID,
                resumed: true,
                through: 300,
                refusals: refusals(WireReason::NotHeld),
                leases: 2,
            },
            "00 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 01 fb 2c 01 01 03 fb 2c 01 00 02",
        ),
        server(ServerMessage::UnknownSession { instance: ID }, "01 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07"),
        server(
            ServerMessage::Grants {
                campaigns: vec![],
                grants: vec![WireGrant {
                    lease: 9,
                    campaign: 1,
                    task: 0,
                    first_run: 64,
                    runs: 64,
                    key: Some("k".into()),
                }],
                resent: true,
            },
            "02 00 01 09 01 00 40 40 01 01 6b 01",
        ),
        server(
            ServerMessage::Answers { through: 300, refusals: refusals(WireReason::Gone) },
            "03 fb 2c 01 01 03 fb 2c 01 02",
        ),
        server(
            ServerMessage::Answers { through: 300, refusals: refusals(WireReason::BadRuns) },
            "03 fb 2c 01 01 03 fb 2c 01 03",
        ),
        lost(WireLossReason::Expired, "04 01 09 00"),
        lost(WireLossReason::TimedOut, "04 01 09 01"),
        lost(WireLossReason::DoneElsewhere, "04 01 09 02"),
        lost(WireLossReason::Cancelled, "04 01 09 03"),
        lost(WireLossReason::Gone, "04 01 09 04"),
        server(ServerMessage::Idle(WireIdle::Absent), "05 00"),
        server(ServerMessage::Idle(WireIdle::Lent), "05 01"),
        server(ServerMessage::Idle(WireIdle::Paused), "05 02"),
        server(ServerMessage::Idle(WireIdle::Released), "05 03"),
        server(ServerMessage::Idle(WireIdle::Closed), "05 04"),
        server(ServerMessage::Idle(WireIdle::Settled { quarantined: 3, cancelled: true }), "05 05 03 01"),
        server(ServerMessage::Heartbeat, "06"),
        answer(WireAnswer::Creation { campaign: 1, added: 2, sealed: true, existed: false }, "07 01 00 01 02 01 00"),
        answer(WireAnswer::Status { campaigns: vec![], next: Some(5) }, "07 01 01 00 01 05"),
        answer(
            WireAnswer::Status { campaigns: vec![status(WireCampaignState::Creating)], next: None },
            "07 01 01 01 01 05 73 77 65 65 70 00 01 fb e8 03 0a 00 00 00 01 fa 01 03 00 00 01 00 02 03 04 05 06 07 08 00",
        ),
        answer(
            WireAnswer::Status { campaigns: vec![status(WireCampaignState::Running)], next: None },
            "07 01 01 01 01 05 73 77 65 65 70 00 01 fb e8 03 0a 00 00 00 01 fa 01 03 00 01 01 00 02 03 04 05 06 07 08 00",
        ),
        answer(
            WireAnswer::Status { campaigns: vec![status(WireCampaignState::Paused)], next: None },
            "07 01 01 01 01 05 73 77 65 65 70 00 01 fb e8 03 0a 00 00 00 01 fa 01 03 00 02 01 00 02 03 04 05 06 07 08 00",
        ),
        answer(
            WireAnswer::Status { campaigns: vec![status(WireCampaignState::Cancelled)], next: None },
            "07 01 01 01 01 05 73 77 65 65 70 00 01 fb e8 03 0a 00 00 00 01 fa 01 03 00 03 01 00 02 03 04 05 06 07 08 00",
        ),
        answer(
            WireAnswer::Counts { first: 0, runs: 10, tasks: vec![keyed_count], next: Some(2) },
            "07 01 02 00 0a 01 01 01 01 6b 02 03 04 00 05 06 02 6e 6f 01 02",
        ),
        answer(counts(WireTaskState::Done), "07 01 02 00 0a 01 01 00 02 03 04 01 05 06 00 00"),
        answer(counts(WireTaskState::Quarantined), "07 01 02 00 0a 01 01 00 02 03 04 02 05 06 00 00"),
        answer(WireAnswer::Done { tasks: 4 }, "07 01 03 04"),
        answer(WireAnswer::Fate(WireFate::Counted), "07 01 04 00"),
        answer(WireAnswer::Fate(WireFate::Refused(WireReason::Ended)), "07 01 04 01 01"),
        answer(WireAnswer::Fate(WireFate::NotReceived), "07 01 04 02"),
        answer(WireAnswer::Fate(WireFate::UnknownSession), "07 01 04 03"),
        answer(WireAnswer::Fate(WireFate::Confirmed), "07 01 04 04"),
        failed(WireFailure::NotFound, 0, "07 01 05 00 00 00"),
        failed(WireFailure::Exists, 0, "07 01 05 01 00 00"),
        failed(WireFailure::State, 0, "07 01 05 02 00 00"),
        failed(WireFailure::Spec, 0, "07 01 05 03 00 00"),
        failed(WireFailure::CreationUnknown, 0, "07 01 05 04 00 00"),
        failed(WireFailure::KeysOutOfOrder, 5, "07 01 05 05 00 05"),
        failed(WireFailure::KeyBad, 5, "07 01 05 06 00 05"),
        failed(WireFailure::KeyTwice, 5, "07 01 05 07 00 05"),
        failed(WireFailure::KeysMissing, 0, "07 01 05 08 00 00"),
        failed(WireFailure::Full, 0, "07 01 05 09 00 00"),
        failed(WireFailure::Draining, 0, "07 01 05 0a 00 00"),
        failed(WireFailure::Damaged, 0, "07 01 05 0b 00 00"),
        closing(WireClosing::Superseded, "08 01 00"),
        closing(WireClosing::Protocol, "08 02 00"),
        closing(WireClosing::Busy, "08 03 00"),
        closing(WireClosing::Shutdown, "08 04 00"),
        closing(WireClosing::Reconnect, "08 05 00"),
    ]
}

#[test]
fn the_conversation_has_these_bytes() {
    for (sent, pieces) in conversation() {
        let bytes: Vec<u8> = pieces.iter().flat_map(|(bytes, _)| unhex(bytes)).collect();
        assert_eq!(hex(&sent.bytes()), hex(&bytes), "{}", sent.title());
        sent.assert_read_from(bytes.get(4..).unwrap_or_default());
    }
}

#[test]
fn every_message_has_these_bytes() {
    for (sent, body) in vectors() {
        assert_eq!(hex(&sent.bytes()[4..]), body, "{}", sent.title());
        sent.assert_read_from(&unhex(body));
    }
}

/// A variant that is added has a number that had none; then this test wants its bytes above.
#[test]
fn no_variant_is_left_out() {
    let all = vectors().into_iter().map(|(sent, _)| sent).chain(conversation().into_iter().map(|(sent, _)| sent));
    let bodies: Vec<(bool, Vec<u8>)> = all
        .filter(|sent| !matches!(sent, Sent::Raw { .. }))
        .map(|sent| (matches!(sent, Sent::Client(_)), sent.bytes().split_off(4)))
        .collect();
    // (by the client, bytes in front of the variant's number, how many variants)
    for (by_client, front, variants) in [
        (true, &[][..], 6_u8),
        (true, &[5, 1], 11),      // WireControl
        (true, &[2, 1, 0, 1], 3), // WireRequest
        (false, &[], 9),
        (false, &[7, 1], 6),     // WireAnswer
        (false, &[7, 1, 5], 12), // WireFailure
        (false, &[7, 1, 4], 5),  // WireFate
        (false, &[5], 6),        // WireIdle
        (false, &[4, 1, 9], 5),  // WireLossReason
        (false, &[8], 6),        // WireClosing
    ] {
        let shown: std::collections::BTreeSet<u8> = bodies
            .iter()
            .filter(|(client, body)| *client == by_client && body.starts_with(front))
            .filter_map(|(_, body)| body.get(front.len()).copied())
            .collect();
        assert_eq!(shown, (0..variants).collect(), "after {front:?}");
        let beyond = [front, &[variants], &[0; 64]].concat();
        let error = if by_client {
            codec::decode_client(&beyond).unwrap_err().to_string()
        } else {
            codec::decode_server(&beyond).unwrap_err().to_string()
        };
        assert!(error.contains("UnexpectedVariant"), "after {front:?} there is a variant {variants}: {error}");
    }
}

#[test]
fn the_origins_dialect_has_these_bytes() {
    assert_eq!(origin::encode_message(&[]), b"crrrazy_msg_START{}crrrazy_msg_END");
    assert_eq!(origin::encode_message(&[(11, 2)]), b"crrrazy_msg_START{11: 2}crrrazy_msg_END");
    assert_eq!(origin::encode_answer(12), b"crrrazy_msg_START12crrrazy_msg_END");
    assert_eq!(origin::encode_answer(-1), b"crrrazy_msg_START-1crrrazy_msg_END");
    assert_eq!(origin::encode_answer(-2), b"crrrazy_msg_START-2crrrazy_msg_END");
}

fn annotated_conversation() -> String {
    let mut text = String::from("```text\n");
    for (sent, pieces) in conversation() {
        writeln!(text, "{}", sent.title().split([' ', '(']).take(2).collect::<Vec<_>>().join(" ")).unwrap();
        for (bytes, meaning) in pieces {
            writeln!(text, "  {bytes:<48} {meaning}").unwrap();
        }
    }
    text + "```"
}

fn all_vectors() -> String {
    let mut text = String::from("```text\n");
    for (sent, body) in vectors() {
        writeln!(text, "{}\n  {body}", sent.title()).unwrap();
    }
    text + "```"
}

#[test]
fn the_document_shows_these_bytes() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/PROTOCOL.md");
    let found = std::fs::read_to_string(&path).unwrap();
    let mut wanted = found.clone();
    for (name, part) in [("conversation", annotated_conversation()), ("vectors", all_vectors())] {
        let (begin, end) = (format!("<!-- made by a test: {name} -->\n"), format!("\n<!-- end of {name} -->"));
        let from = wanted.find(&begin).expect("the mark where it begins") + begin.len();
        let to = from + wanted[from..].find(&end).expect("the mark where it ends");
        wanted.replace_range(from..to, &part);
    }
    if wanted != found && std::env::var_os("TENFOLD_WRITE_DOCS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
        return;
    }
    assert!(wanted == found, "the document is behind: TENFOLD_WRITE_DOCS=1 cargo test --test golden_wire");
}

#[test]
fn the_document_knows_the_messages_as_they_are() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let messages = std::fs::read(root.join("src/protocol/messages.rs")).unwrap();
    let document = std::fs::read_to_string(root.join("docs/PROTOCOL.md")).unwrap();
    let hash = hex(&Sha256::digest(&messages)).replace(' ', "");
    assert!(
        document.contains(&hash),
        "src/protocol/messages.rs changed since docs/PROTOCOL.md was compared with it. Compare them, then write its hash \
         there: {hash}"
    );
}
