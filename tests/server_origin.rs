//! The origin's dialect on real sockets: transcripts in single bytes and in bursts, copies, ends and silence.

#![cfg(feature = "server")]

mod server_support;

use std::time::Duration;

use server_support::{Native, Origin, Rig, spec};
use tempfile::tempdir;
use tenfold::protocol::origin::{END, START, encode_message};
use tokio::io::AsyncWriteExt;

async fn done(control: &mut Native) -> Vec<u32> {
    control.counts("c").await.into_iter().map(|count| count.done).collect()
}

/// Waits until the counts are these; for what happens without an answer that could be waited for.
async fn become_done(control: &mut Native, expected: &[u32]) {
    server_support::patiently("the counts", async {
        while done(control).await != expected {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_campaign_is_worked_off_message_by_message() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    let mut peer = rig.origin().await;
    assert_eq!(peer.ask(&[]).await, -2, "there is no campaign yet");
    let mut control = rig.control().await;
    control.create(spec("c", 2, 2)).await;
    let mut peer = rig.origin().await;
    assert_eq!(peer.ask(&[]).await, 0);
    assert_eq!(peer.ask(&[(0, 1)]).await, 1, "another task than the one just reported");
    assert_eq!(peer.ask(&[(1, 2)]).await, 0);
    assert_eq!(peer.ask(&[(0, 1)]).await, -1);
    assert_eq!(peer.ask(&[]).await, -1, "the server ends nothing by itself");
    assert_eq!(done(&mut control).await, [2, 2]);
}

#[tokio::test]
async fn single_bytes_bursts_and_white_space_are_the_same() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    let mut control = rig.control().await;
    control.create(spec("c", 4, 1)).await;
    let mut peer = rig.origin().await;
    for byte in encode_message(&[]) {
        peer.send_bytes(&[byte]).await;
    }
    assert_eq!(peer.answer().await, Some(0));
    // Bytes before a start token are skipped after the first message; a copy in the same burst is not counted again.
    let text = [b"  noise ", START, b"\t{ 0 :\n1 , }", END].concat();
    peer.send_bytes(&[text.clone(), text].concat()).await;
    assert_eq!(peer.answer().await, Some(1));
    assert_eq!(peer.answer().await, Some(2), "each message gets its answer");
    assert_eq!(done(&mut control).await, [1, 0, 0, 0]);
}

#[tokio::test]
async fn copies_count_once_and_other_peoples_work_not_at_all() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    let mut control = rig.control().await;
    control.create(spec("c", 3, 10)).await;
    let mut one = rig.origin().await;
    let mut other = rig.origin().await;
    assert_eq!(one.ask(&[]).await, 0);
    for _ in 0..4 {
        one.send(&[(0, 2)]).await;
    }
    for _ in 0..4 {
        assert_ne!(one.answer().await, Some(0), "the answer never names what was just reported");
    }
    other.ask(&[(0, 5), (1, 5), (2, 5)]).await;
    assert_eq!(done(&mut control).await, [2, 0, 0]);
}

#[tokio::test]
async fn what_was_sent_before_the_end_counts_and_leases_end_with_the_connection() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    let mut control = rig.control().await;
    control.create(spec("c", 2, 1)).await;
    let mut peer = rig.origin().await;
    assert_eq!(peer.ask(&[]).await, 0);
    peer.send(&[]).await;
    peer.send(&[(0, 1)]).await;
    // Whether answers were read or not: closing with unread ones resets the connection.
    drop(peer);
    become_done(&mut control, &[1, 0]).await;
    let mut next = rig.origin().await;
    server_support::patiently("the lease of the peer that left", async { while next.ask(&[]).await != 1 {} }).await;
}

#[tokio::test]
async fn a_half_closed_peer_gets_its_answers() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    rig.control().await.create(spec("c", 2, 1)).await;
    let mut peer = rig.origin().await;
    peer.send(&[]).await;
    peer.stream.shutdown().await.unwrap();
    assert_eq!(peer.answer().await, Some(0));
    assert_eq!(peer.answer().await, None);
}

/// What a peer with a lease on task 0 gets before its connection is closed, after `bytes`.
async fn answers_until_closed(rig: &Rig, bytes: &[u8]) -> Vec<i64> {
    let mut peer: Origin = rig.origin().await;
    peer.ask(&[]).await;
    peer.send_bytes(bytes).await;
    let mut answers = Vec::new();
    while let Some(answer) = peer.answer().await {
        answers.push(answer);
    }
    answers
}

#[tokio::test]
async fn nonsense_closes_the_connection_and_counts_nothing_of_its_message() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    let mut control = rig.control().await;
    control.create(spec("c", 1, 100)).await;
    for text in ["[0, 1]", "{0: 0}", "{0: 1001}", "{0: -1}", "{0: 1, 1: 1}", "{0: 1.5}", "{'0': 1}", "", "{0: 1}}"] {
        let message = [START, text.as_bytes(), END].concat();
        assert_eq!(answers_until_closed(&rig, &message).await, [0; 0], "{text}");
    }
    let endless = [START, &vec![b' '; 70_000]].concat();
    assert_eq!(answers_until_closed(&rig, &endless).await, [0; 0]);
    assert_eq!(done(&mut control).await, [0]);
    // What came before the nonsense stands, and is answered.
    let mixed = [encode_message(&[(0, 1)]), [START, b"{0: 0}", END].concat()].concat();
    assert_eq!(answers_until_closed(&rig, &mixed).await, [-2]);
    assert_eq!(done(&mut control).await, [1]);
}

#[tokio::test]
async fn a_connection_that_begins_with_something_else_is_closed() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    let mut peer = rig.raw().await;
    peer.send(b"hello?").await;
    assert_eq!(peer.rest().await, b"");
    let rig = Rig::start(&tempdir().unwrap(), |config| config.bounds.handshake = Duration::from_millis(30)).await;
    let mut slow = rig.raw().await;
    slow.send(&START[..3]).await;
    assert_eq!(slow.rest().await, b"", "the first message has the time of a handshake");
}

#[tokio::test]
async fn a_silent_connection_is_closed_in_the_end() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |config| {
        config.lease_ms = 3;
        config.origin_idle = Duration::ZERO;
    })
    .await;
    let mut peer = rig.origin().await;
    assert_eq!(peer.ask(&[]).await, -2);
    assert_eq!(peer.answer().await, None, "after ten lease lengths");
}

#[tokio::test]
async fn which_campaign_can_be_said() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |config| config.origin_campaign = Some("second".to_owned())).await;
    let mut control = rig.control().await;
    control.create(spec("c", 1, 1)).await;
    control.create(spec("second", 1, 1)).await;
    let mut peer = rig.origin().await;
    assert_eq!(peer.ask(&[]).await, 0);
    peer.ask(&[(0, 1)]).await;
    assert_eq!(control.counts("second").await[0].done, 1);
    assert_eq!(control.counts("c").await[0].done, 0);
}
