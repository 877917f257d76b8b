//! Every limit and deadline of the server, each against a peer that breaks it; and that its other peers do not notice.

#![cfg(feature = "server")]

mod server_support;

use std::time::Duration;

use server_support::{Native, Raw, Rig, hello, patiently, spec};
use tempfile::tempdir;
use tenfold::limits;
use tenfold::protocol::frame::{self, SERVER_PREFACE_BYTES, ServerPreface, VERSIONS, VersionRange};
use tenfold::protocol::messages::{
    ClientMessage, ServerMessage, WireAnswer, WireClosing, WireControl, WireFailure, WireRequest,
};

/// Long enough that it never passes in a test.
const FOREVER: Duration = Duration::from_hours(24);
/// As good as at once, but not zero.
const SOON: Duration = Duration::from_millis(30);

/// The server still does its work for others.
async fn assert_serves(rig: &Rig) {
    rig.control().await.ask(WireControl::Status { campaign: None, from: 0 }).await;
}

/// What a native peer is told after `bytes`, which follow the prefaces.
async fn told_after(rig: &Rig, bytes: &[u8]) -> (WireClosing, String) {
    let mut peer = rig.silent().await;
    peer.send_bytes(bytes).await;
    peer.closing().await
}

#[tokio::test]
async fn a_peer_that_says_nothing_or_too_little_is_closed() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |config| config.bounds.handshake = SOON).await;
    assert_eq!(rig.raw().await.rest().await, b"");
    let mut slow_preface = rig.raw().await;
    slow_preface.send(&frame::MAGIC[..1]).await;
    assert_eq!(slow_preface.rest().await, b"");
    let mut slow_method = rig.raw().await;
    slow_method.send(b"GE").await;
    assert_eq!(slow_method.rest().await, b"");
    let (code, text) = rig.silent().await.closing().await;
    assert_eq!(code, WireClosing::Protocol);
    assert!(text.contains("no hello"), "{text}");
}

#[tokio::test]
async fn frames_before_the_hello_are_tiny_and_well_formed() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |config| config.bounds.handshake = FOREVER).await;
    let too_long = u32::try_from(limits::HELLO_FRAME_BYTES_MAX + 1).unwrap();
    for (bytes, hint) in [
        (u32::MAX.to_le_bytes().to_vec(), "longer than the 1024"),
        (too_long.to_le_bytes().to_vec(), "longer than the 1024"),
        (0_u32.to_le_bytes().to_vec(), "no message"),
        (b"\x03\x00\x00\x00\xff\xff\xff".to_vec(), "no message"),
    ] {
        let (code, text) = told_after(&rig, &bytes).await;
        assert_eq!(code, WireClosing::Protocol, "{bytes:?}");
        assert!(text.contains(hint), "{bytes:?}: {text}");
    }
    assert_serves(&rig).await;
}

#[tokio::test]
async fn the_first_message_must_be_a_hello() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    let status = WireControl::Status { campaign: None, from: 0 };
    for message in [ClientMessage::Control { id: 1, request: status }, ClientMessage::Heartbeat { confirmed: 0 }] {
        let mut peer = rig.silent().await;
        peer.send(&message).await;
        let (code, text) = peer.closing().await;
        assert_eq!(code, WireClosing::Protocol);
        assert!(text.contains("hello"), "{text}");
    }
}

#[tokio::test]
async fn a_second_hello_is_out_of_place() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    let without_session = ClientMessage::Hello { token: String::new(), session: None };
    for second in [hello(1, [0; 16], 2, 0), hello(2, [0; 16], 1, 0), without_session.clone()] {
        let mut peer = rig.session(1).await;
        peer.send(&second).await;
        assert_eq!(peer.closing().await.0, WireClosing::Protocol, "{second:?}");
        // The session may not be left behind for the next round.
        let mut again = rig.silent().await;
        again.send(&hello(1, [0; 16], 9, 0)).await;
        again.next().await;
        again.send(&ClientMessage::Goodbye).await;
        assert_eq!(again.closing().await.0, WireClosing::Goodbye);
    }
    let mut peer = rig.control().await;
    peer.send(&without_session).await;
    assert_eq!(peer.closing().await.0, WireClosing::Protocol);
}

#[tokio::test]
async fn a_connection_without_a_session_can_only_ask_and_order() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    let want = ClientMessage::Want { leases: 1, runs: 1, campaigns: Vec::new() };
    let requests = vec![WireRequest::Release { lease: 1 }];
    let requests = ClientMessage::Requests { first: 1, confirmed: 0, requests };
    for message in [want, requests, hello(1, [0; 16], 1, 0)] {
        let mut peer = rig.control().await;
        peer.send(&message).await;
        let (code, text) = peer.closing().await;
        assert_eq!(code, WireClosing::Protocol, "{message:?}");
        assert!(text.contains("without"), "{message:?}: {text}");
    }
    let mut peer = rig.control().await;
    peer.send(&ClientMessage::Heartbeat { confirmed: 0 }).await;
    peer.ask(WireControl::Status { campaign: None, from: 0 }).await;
    peer.send(&ClientMessage::Goodbye).await;
    assert_eq!(peer.closing().await.0, WireClosing::Goodbye);
}

#[tokio::test]
async fn garbage_after_the_hello_is_answered_and_closed() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    let too_long = u32::try_from(limits::FRAME_BYTES_MAX + 1).unwrap();
    for bytes in [too_long.to_le_bytes().to_vec(), vec![0; 4], b"\x05\x00\x00\x00hello".to_vec()] {
        let mut peer = rig.session(1).await;
        peer.send_bytes(&bytes).await;
        // More than the server will ever read must not keep the peer from being told.
        peer.send_bytes(&vec![0xff; 100_000]).await;
        assert_eq!(peer.closing().await.0, WireClosing::Protocol, "{bytes:?}");
        let mut peer = rig.silent().await;
        peer.send(&hello(1, [0; 16], 9, 0)).await;
        peer.next().await;
        peer.send(&ClientMessage::Goodbye).await;
        peer.closing().await;
    }
}

#[tokio::test]
async fn other_versions_are_told_which_ones_there_are() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    let mut peer = rig.raw().await;
    peer.send(&frame::client_preface(VersionRange { lowest: 1_000, highest: 1_001 })).await;
    let answer = peer.rest().await;
    assert_eq!(answer.len(), SERVER_PREFACE_BYTES);
    let expected = ServerPreface { chosen: None, versions: VERSIONS };
    assert_eq!(ServerPreface::read(&answer), Ok(Some(expected)));
}

#[tokio::test]
async fn other_protocols_get_a_readable_refusal() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    for (bytes, answer) in [
        (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], "HTTP/1.1 400 "),
        (b"{\"hello\": 1}\n", "{\"error\":"),
        (b"\x91nonsense", "This is a tenfold server"),
        (b"\x16\x03\x01\x02\x00", "\u{15}\u{3}\u{1}"),
    ] {
        let mut peer = rig.raw().await;
        peer.send(bytes).await;
        let told = peer.rest().await;
        assert!(String::from_utf8_lossy(&told).starts_with(answer), "{bytes:?}: {told:?}");
    }
    assert_serves(&rig).await;
}

#[tokio::test]
async fn above_the_connection_cap_peers_are_told_to_come_back() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |config| config.bounds.connections = 1).await;
    let mut first = rig.control().await;
    let mut second = rig.silent().await;
    second.send(&hello(2, [0; 16], 1, 0)).await;
    assert_eq!(second.closing().await.0, WireClosing::Busy);
    first.ask(WireControl::Status { campaign: None, from: 0 }).await;
    first.send(&ClientMessage::Goodbye).await;
    first.closing().await;
    drop(first);
    // The place is free as soon as the server has seen the end of the first.
    loop {
        let mut third = rig.silent().await;
        third.send(&hello(3, [0; 16], 1, 0)).await;
        let told = third.next().await;
        if matches!(told, ServerMessage::Welcome { .. }) {
            break;
        }
        assert!(matches!(told, ServerMessage::Closing { code: WireClosing::Busy, .. }), "{told:?}");
    }
}

#[tokio::test]
async fn half_messages_of_all_peers_together_are_bounded() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |config| config.bounds.unfinished_bytes = 150_000).await;
    let half = [&(limits::FRAME_BYTES_MAX as u32).to_le_bytes()[..], &vec![0; 100_000]].concat();
    let mut hoarder = rig.control().await;
    hoarder.send_bytes(&half).await;
    // Which of the two is read first is left to the system.
    let mut another = rig.session(1).await;
    another.send_bytes(&half).await;
    let told = tokio::select! {
        told = hoarder.closing() => told,
        told = another.closing() => told,
    };
    assert_eq!(told.0, WireClosing::Busy, "{told:?}");
    assert_serves(&rig).await;
}

#[tokio::test]
async fn hoarders_of_half_messages_keep_no_long_message_out() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |config| config.bounds.unfinished_bytes = 400_000).await;
    let half = [&(limits::FRAME_BYTES_MAX as u32).to_le_bytes()[..], &vec![0; 120_000]].concat();
    let mut hoarders = Vec::new();
    for _ in 0..3 {
        let mut hoarder = rig.control().await;
        hoarder.send_bytes(&half).await;
        hoarders.push(hoarder);
    }
    // In messages of 200,000 bytes, each of which takes the server a few reads.
    create_long_answers(&rig).await;
    assert_serves(&rig).await;
}

#[tokio::test]
async fn a_message_that_trickles_is_cut_off() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |config| config.bounds.message = SOON).await;
    for mut peer in [rig.control().await, rig.session(1).await] {
        // Nobody is asked to hurry between two messages.
        tokio::time::sleep(2 * SOON).await;
        peer.send(&ClientMessage::Heartbeat { confirmed: 0 }).await;
        peer.send_bytes(&[5, 0, 0, 0, 1]).await;
        let (code, text) = peer.closing().await;
        assert_eq!(code, WireClosing::Busy);
        assert!(text.contains("took longer"), "{text}");
    }
    let mut peer = rig.origin().await;
    rig.control().await.create(spec("c", 1, 1)).await;
    assert_eq!(peer.ask(&[]).await, 0);
    peer.send_bytes(b"crrrazy_msg_START{").await;
    assert_eq!(peer.answer().await, None);
    assert_serves(&rig).await;
}

#[tokio::test]
async fn a_name_beyond_all_bounds_is_answered_like_any_other() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    let mut control = rig.control().await;
    // Quoted, every character becomes five, and the answer would not fit a frame.
    let campaign = "\u{1}".repeat(500_000);
    let answer = control.ask(WireControl::Pause { campaign: campaign.clone() }).await;
    assert!(matches!(&answer, WireAnswer::Failed { code: WireFailure::NotFound, .. }), "{answer:?}");
    let answer = control.ask(WireControl::Create { creation: [1; 16], spec: Box::new(spec(&campaign, 1, 1)) }).await;
    assert!(matches!(&answer, WireAnswer::Failed { code: WireFailure::Spec, .. }), "{answer:?}");
}

#[tokio::test]
async fn a_silent_native_connection_is_closed() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |config| config.bounds.native_idle = SOON).await;
    for mut peer in [rig.control().await, rig.session(1).await] {
        assert_eq!(peer.closing().await.0, WireClosing::Reconnect);
    }
}

#[tokio::test]
async fn the_server_gives_signs_of_life() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |config| config.bounds.heartbeat = SOON).await;
    let mut session = rig.session(1).await;
    assert_eq!(session.next_or_end().await, Some(ServerMessage::Heartbeat));
    let mut control = rig.control().await;
    assert_eq!(control.next_or_end().await, Some(ServerMessage::Heartbeat));
    assert_eq!(control.next_or_end().await, Some(ServerMessage::Heartbeat));
}

/// That many megabytes of answers; the buffers of the system hold a few.
const ASKS: u32 = 60;

/// Creates a campaign whose counts are an answer of a megabyte, because its keys are long.
async fn create_long_answers(rig: &Rig) {
    let keys: Vec<String> = (0..1_000).map(|number| format!("{number:01000}")).collect();
    rig.control().await.create_with_keys("c", &keys).await;
}

/// Asks for far more than the buffers between hold, reads nothing, and waits until the server has dropped it.
async fn ask_and_never_read(mut peer: Native) {
    let request = WireControl::Counts { campaign: "c".to_owned(), from: 0, limit: 1_000 };
    for id in 0..ASKS {
        if peer.try_send(&ClientMessage::Control { id, request: request.clone() }).await.is_err() {
            return;
        }
    }
    patiently("the end of the connection", async {
        while peer.try_send(&ClientMessage::Heartbeat { confirmed: 0 }).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_slow_reader_loses_its_connection_by_the_number_of_outputs() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |config| config.bounds.outbox = 4).await;
    create_long_answers(&rig).await;
    ask_and_never_read(rig.control().await).await;
    assert_serves(&rig).await;
}

#[tokio::test]
async fn a_slow_reader_loses_its_connection_by_the_bytes_of_outputs() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |config| {
        (config.bounds.outbox, config.bounds.outbox_bytes) = (1_000_000, 500_000);
    })
    .await;
    create_long_answers(&rig).await;
    ask_and_never_read(rig.control().await).await;
    assert_serves(&rig).await;
}

#[tokio::test]
async fn a_peer_that_takes_nothing_loses_its_connection() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |config| {
        (config.bounds.outbox, config.bounds.outbox_bytes) = (1_000_000, usize::MAX / 2);
        config.bounds.write = SOON;
    })
    .await;
    create_long_answers(&rig).await;
    ask_and_never_read(rig.control().await).await;
    assert_serves(&rig).await;
}

#[tokio::test]
async fn a_reset_in_the_middle_harms_nobody() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    let mut peer = rig.session(1).await;
    peer.send_bytes(&[9, 0, 0, 0, 1]).await;
    // Data of the server lies unread, so this close is a reset.
    peer.send(&ClientMessage::Heartbeat { confirmed: 0 }).await;
    drop(peer);
    drop(Raw(rig.raw().await.0));
    assert_serves(&rig).await;
}
