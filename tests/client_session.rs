//! The client library against a scripted server: what it sends, what it resends, and what it tells its caller, for every
//! kind of loss.
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used)] // A helper of a test may fail like the test.

mod client_support;

use std::sync::mpsc;
use std::time::Duration;

use client_support::{INSTANCE, Peer, Server, campaign, done, grant, play, read_preface, welcome};
use tenfold::client::{Answer, Client, Closed, Config, Connection, Lease, StartError, State, Stopped, Verdict};
use tenfold::protocol::frame::{ServerPreface, VERSIONS, VersionRange};
use tenfold::protocol::messages::{
    ClientMessage, ServerMessage, WireAnswer, WireClosing, WireFate, WireIdle, WireLoss, WireLossReason, WireReason,
    WireRefusal, WireRequest,
};
use tenfold::types::{Idle, InstanceId, LossReason, Outcome, RefusalReason, Settled, TaskIndex, Want, run_seed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A wait that no test sees the end of, but for one chance in millions.
const FOREVER: Duration = Duration::from_hours(8_000);

fn config(server: &Server) -> Config {
    Config {
        name: "host:1".into(),
        want: Want { leases: 4, runs: 1, campaigns: vec!["sweep".into()] },
        backoff_first: Duration::from_millis(1),
        backoff_cap: Duration::from_millis(20),
        ..Config::new([server.address()])
    }
}

fn start(server: &Server) -> Client {
    Client::start(config(server)).unwrap()
}

async fn lease(client: &Client) -> Lease {
    client.next_lease().await.expect("a lease")
}

async fn until(client: &Client, condition: impl FnMut(&State) -> bool) -> State {
    client.watch().wait_for(condition).await.unwrap().clone()
}

/// A client that holds leases 1 ..= `count`, all taken, and its connection.
async fn holding(server: &Server, count: u64) -> (Client, Peer, Vec<Lease>) {
    let client = start(server);
    let (mut peer, _) = server.welcomed().await;
    peer.lend(1..=count, false).await;
    let mut leases = Vec::new();
    for _ in 0..count {
        leases.push(lease(&client).await);
    }
    (client, peer, leases)
}

/// Refuses to be read as an answer: it must still be pending.
fn assert_pending(answer: &mut Answer) {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(std::future::Future::poll(std::pin::Pin::new(answer), &mut context).is_pending());
}

#[test]
fn the_main_dialogue() {
    play(async {
        let server = Server::start().await;
        let client = start(&server);
        let (mut peer, hello) = server.greeted().await;
        assert_eq!(hello.session, client.session().0);
        assert_eq!((hello.instance, hello.attempt, hello.confirmed), ([0; 16], 1, 0));
        assert_eq!(hello.name, "host:1");
        peer.send(welcome(false, 0, vec![], 0)).await;
        assert_eq!(peer.want().await, (4, 1, vec!["sweep".to_owned()]));
        peer.lend([5], false).await;

        let lease = lease(&client).await;
        assert_eq!((lease.id().to_u64(), lease.session(), lease.campaign()), (5, client.session(), "sweep"));
        assert_eq!((lease.task(), lease.index(), lease.key()), (105, TaskIndex(5), Some("key-5")));
        assert_eq!((lease.first_run(), lease.runs(), lease.seed(0)), (3, 1, Some(run_seed(42, 105, 3))));
        assert_eq!(lease.timeout(), Some(Duration::from_hours(1)));
        assert!(!lease.is_lost());
        let connected = Connection::Connected { server: server.address(), instance: InstanceId(INSTANCE) };
        let state = until(&client, |state| state.held == 1).await;
        assert_eq!(state, State { connection: connected, idle: None, held: 1, unanswered: 0 });

        let mut noted = 0;
        let mut answer = lease.report_noted(Outcome::Done { runs: 1 }, |number| noted = number);
        assert_eq!((noted, answer.number(), answer.session()), (1, 1, client.session()));
        assert_eq!(peer.requests().await, (1, 0, vec![done(5)]));
        assert_pending(&mut answer);
        peer.answer(1).await;
        assert_eq!(answer.await, Verdict::Counted);

        let closing = tokio::spawn(client.close(Duration::from_mins(1)));
        assert_eq!(peer.want().await.0, 0);
        assert_eq!(peer.next().await, Some(ClientMessage::Goodbye));
        peer.send(ServerMessage::Closing { code: WireClosing::Goodbye, text: String::new() }).await;
        assert_eq!(closing.await.unwrap(), Closed { unanswered: vec![], said_goodbye: true });
        assert_eq!(peer.next().await, None);
    });
}

#[test]
fn every_outcome_reaches_the_wire() {
    play(async {
        let server = Server::start().await;
        let client = start(&server);
        let (mut peer, _) = server.welcomed().await;
        let grants = (1..=4).map(|lease| tenfold::protocol::messages::WireGrant { runs: 64, ..grant(lease) }).collect();
        peer.send(ServerMessage::Grants { campaigns: vec![campaign(60_000)], grants, resent: false }).await;
        let outcome = Outcome::Mixed { done: 1, failed: 2, error: "no".into() };
        lease(&client).await.report(outcome);
        lease(&client).await.failed("ä".repeat(200));
        lease(&client).await.release();
        lease(&client).await.done();
        let mut heard = Vec::new();
        while heard.len() < 4 {
            heard.extend(peer.requests().await.2);
        }
        let error = "ä".repeat(100);
        assert_eq!(
            heard,
            [
                WireRequest::Mixed { lease: 1, done: 1, failed: 2, error: "no".into() },
                WireRequest::Mixed { lease: 2, done: 0, failed: u64::MAX, error },
                WireRequest::Release { lease: 3 },
                WireRequest::Done { lease: 4, runs: 64 },
            ]
        );
    });
}

#[test]
fn unanswered_requests_go_out_again_with_the_same_numbers() {
    play(async {
        let server = Server::start().await;
        let (client, mut peer, mut leases) = holding(&server, 3).await;
        let first = leases.remove(0).done();
        assert_eq!(peer.requests().await, (1, 0, vec![done(1)]));
        peer.answer(1).await;
        assert_eq!(first.await, Verdict::Counted);
        let second = leases.remove(0).done();
        assert_eq!(peer.requests().await, (2, 1, vec![done(2)]));
        drop(peer); // before an answer

        let (mut peer, hello) = server.greeted().await;
        let third = leases.remove(0).done(); // while there is no session
        assert_eq!((hello.session, hello.instance), (client.session().0, INSTANCE));
        assert_eq!((hello.attempt, hello.confirmed), (2, 1));
        peer.send(welcome(true, 1, vec![], 2)).await;
        peer.lend([2, 3], true).await;
        assert_eq!(peer.requests().await, (2, 1, vec![done(2), done(3)]));
        assert_eq!(peer.want().await.0, 4, "the window is told after what is older");
        peer.answer(3).await;
        assert_eq!((second.await, third.await), (Verdict::Counted, Verdict::Counted));
    });
}

#[test]
fn what_was_processed_before_its_answer_was_lost_is_not_sent_again() {
    play(async {
        let server = Server::start().await;
        let (_client, mut peer, mut leases) = holding(&server, 3).await;
        let answers: Vec<Answer> = leases.drain(..).map(Lease::done).collect();
        let mut heard = 0;
        while heard < 3 {
            heard += peer.requests().await.2.len();
        }
        drop(peer);
        let (mut peer, _) = server.greeted().await;
        let refusal = WireRefusal { from: 2, to: 2, reason: WireReason::Ended };
        peer.send(welcome(true, 3, vec![refusal], 0)).await;
        let mut verdicts = Vec::new();
        for answer in answers {
            verdicts.push(answer.await);
        }
        assert_eq!(verdicts, [Verdict::Counted, Verdict::Refused(RefusalReason::Ended), Verdict::Counted]);
        peer.want().await; // and no requests before it
    });
}

#[test]
fn a_grant_that_was_lost_is_taken_when_it_comes_again() {
    play(async {
        let server = Server::start().await;
        let client = start(&server);
        let (peer, _) = server.welcomed().await;
        drop(peer); // with the grant
        let (mut peer, _) = server.greeted().await;
        peer.send(welcome(true, 0, vec![], 2)).await;
        peer.lend([1], true).await;
        peer.lend([2], true).await;
        peer.want().await;
        assert_eq!(lease(&client).await.id().to_u64(), 1);
        assert_eq!(lease(&client).await.id().to_u64(), 2);
    });
}

#[test]
fn a_lease_that_was_reported_does_not_come_back_to_life() {
    play(async {
        let server = Server::start().await;
        let (client, mut peer, mut leases) = holding(&server, 1).await;
        let answer = leases.remove(0).done();
        peer.requests().await;
        drop(peer);
        let (mut peer, _) = server.greeted().await;
        peer.send(welcome(true, 0, vec![], 1)).await;
        peer.lend([1], true).await;
        assert_eq!(peer.requests().await, (1, 0, vec![done(1)]));
        peer.want().await;
        peer.answer(1).await;
        assert_eq!(answer.await, Verdict::Counted);
        assert_eq!(until(&client, |state| state.unanswered == 0).await.held, 0);
        peer.lend([9], false).await;
        assert_eq!(lease(&client).await.id().to_u64(), 9, "the next lease is another");
    });
}

#[test]
fn a_lease_that_does_not_come_again_is_lost_and_may_still_be_reported() {
    play(async {
        let server = Server::start().await;
        let (_client, peer, mut leases) = holding(&server, 2).await;
        drop(peer);
        let (mut peer, _) = server.greeted().await;
        peer.send(welcome(true, 0, vec![], 1)).await;
        peer.lend([2], true).await;
        assert_eq!(leases[0].lost().await, LossReason::Expired);
        assert!(!leases[1].is_lost());
        peer.want().await;
        let answer = leases.remove(0).done();
        assert_eq!(peer.requests().await, (1, 0, vec![done(1)]));
        peer.answer(1).await;
        assert_eq!(answer.await, Verdict::Counted);
    });
}

#[test]
fn a_lost_lease_is_told_and_let_go_in_silence() {
    play(async {
        let server = Server::start().await;
        let (client, mut peer, mut leases) = holding(&server, 2).await;
        peer.lend([3], false).await;
        until(&client, |state| state.held == 3).await;
        let lost = [1, 3].map(|lease| WireLoss { lease, reason: WireLossReason::TimedOut });
        peer.send(ServerMessage::Lost { leases: lost.to_vec() }).await;
        assert_eq!(leases[0].lost().await, LossReason::TimedOut);
        assert_eq!(until(&client, |state| state.held == 1).await.unanswered, 0);
        drop(leases.remove(0));
        drop(leases.remove(0));
        assert_eq!(peer.requests().await, (1, 0, vec![WireRequest::Release { lease: 2 }]), "only the healthy one");
        peer.lend([4], false).await;
        assert_eq!(lease(&client).await.id().to_u64(), 4, "what was lost before it was taken is never handed out");
    });
}

#[test]
fn a_refused_report_says_why() {
    play(async {
        let server = Server::start().await;
        let (_client, mut peer, mut leases) = holding(&server, 2).await;
        let (first, second) = (leases.remove(0).done(), leases.remove(0).done());
        let mut heard = 0;
        while heard < 2 {
            heard += peer.requests().await.2.len();
        }
        let refusal = WireRefusal { from: 1, to: 1, reason: WireReason::Gone };
        peer.send(ServerMessage::Answers { through: 2, refusals: vec![refusal] }).await;
        assert_eq!(first.await, Verdict::Refused(RefusalReason::Gone));
        assert_eq!(second.await, Verdict::Counted);
    });
}

#[test]
fn a_forgotten_session_is_unknown_and_a_new_one_begins() {
    play(async {
        let server = Server::start().await;
        let (client, mut peer, mut leases) = holding(&server, 2).await;
        let old = client.session();
        let answer = leases.remove(0).done();
        peer.requests().await;
        drop(peer);
        let (mut peer, hello) = server.greeted().await;
        assert_eq!(hello.session, old.0);
        peer.send(ServerMessage::UnknownSession { instance: [8; 16] }).await;
        let fresh = peer.session().await;
        assert_ne!(fresh.session, old.0);
        assert_eq!((fresh.instance, fresh.confirmed), ([0; 16], 0));
        assert!(fresh.attempt > hello.attempt);
        assert_eq!(answer.await, Verdict::Unknown);
        assert_eq!(leases[0].lost().await, LossReason::Expired);
        assert_eq!(client.session().0, fresh.session);
        peer.send(ServerMessage::Welcome {
            instance: [8; 16],
            resumed: false,
            through: 0,
            refusals: vec![],
            leases: 0,
        })
        .await;
        peer.want().await;
        // Lease ids of the other data directory may well be the same; the old lease must not end the new one.
        peer.lend([2], false).await;
        let newer = lease(&client).await;
        let stale = leases.remove(0).done();
        assert_eq!((stale.number(), stale.await), (0, Verdict::Unknown));
        let answer = newer.done();
        assert_eq!(peer.requests().await, (1, 0, vec![done(2)]));
        peer.answer(1).await;
        assert_eq!(answer.await, Verdict::Counted);
    });
}

#[test]
fn a_server_that_remembers_less_than_it_answered_is_a_foreign_one() {
    play(async {
        let server = Server::start().await;
        let (client, mut peer, mut leases) = holding(&server, 1).await;
        let old = client.session();
        let answer = leases.remove(0).done();
        peer.requests().await;
        peer.answer(1).await;
        assert_eq!(answer.await, Verdict::Counted);
        drop(peer);
        let (mut peer, _) = server.greeted().await;
        peer.send(welcome(true, 0, vec![], 0)).await; // a restored backup
        let (_peer, hello) = server.greeted().await;
        assert_ne!(hello.session, old.0);
        assert_eq!(hello.instance, [0; 16]);
    });
}

#[test]
fn it_goes_on_trying_until_somebody_answers() {
    play(async {
        let server = Server::start().await;
        let foreign = Server::start().await;
        let servers = [foreign.address(), server.address()];
        let client = Client::start(Config { servers: servers.to_vec(), ..config(&server) }).unwrap();
        for _ in 0..3 {
            let mut stream = foreign.accept_raw().await;
            stream.write_all(b"220 mail.example.org ESMTP\r\n").await.unwrap();
            drop(server.accept_raw().await);
        }
        let state =
            until(&client, |state| matches!(&state.connection, Connection::Connecting { attempt, .. } if *attempt > 5));
        let state = state.await;
        assert!(matches!(state.connection, Connection::Connecting { last_error: Some(_), .. }), "{state:?}");
        drop(foreign);
        let (mut peer, hello) = server.greeted().await;
        assert_eq!(hello.attempt, 1, "only introductions count");
        peer.send(welcome(false, 0, vec![], 0)).await;
        peer.want().await;
        until(&client, |state| matches!(state.connection, Connection::Connected { .. })).await;
    });
}

#[test]
fn heartbeats_go_on_while_the_caller_is_blocked() {
    const HEARTBEATS: usize = 8;
    let (address_sender, address) = mpsc::channel();
    let (heard_sender, heard) = mpsc::channel();
    let server = std::thread::spawn(move || {
        play(async {
            let server = Server::start().await;
            address_sender.send(config(&server)).unwrap();
            let (mut peer, _) = server.welcomed().await;
            // A lease as short as they come, so that the test is quick.
            let grants = vec![grant(1)];
            peer.send(ServerMessage::Grants { campaigns: vec![campaign(100)], grants, resent: false }).await;
            for _ in 0..HEARTBEATS {
                assert_eq!(peer.hear().await, Some(ClientMessage::Heartbeat { confirmed: 0 }));
            }
            heard_sender.send(()).unwrap();
            peer.next().await;
        });
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let client = Client::start(address.recv().unwrap()).unwrap();
    let lease = runtime.block_on(client.next_lease()).unwrap();
    // This thread, the only one that the caller has, does nothing at all until the server heard them.
    heard.recv_timeout(Duration::from_mins(1)).unwrap();
    assert!(!lease.is_lost());
    drop((lease, client));
    server.join().unwrap();
}

#[test]
fn a_dropped_lease_is_released() {
    play(async {
        let server = Server::start().await;
        let (_client, mut peer, mut leases) = holding(&server, 1).await;
        drop(leases.remove(0));
        assert_eq!(peer.requests().await, (1, 0, vec![WireRequest::Release { lease: 1 }]));
    });
}

#[test]
fn leases_end_when_all_is_settled_and_answered() {
    play(async {
        let server = Server::start().await;
        let client = Client::start(Config { until_done: true, ..config(&server) }).unwrap();
        let (mut peer, _) = server.welcomed().await;
        peer.lend([1], false).await;
        let lease = lease(&client).await;
        let settled = WireIdle::Settled { quarantined: 1, cancelled: false };
        peer.send(ServerMessage::Idle(WireIdle::Lent)).await;
        until(&client, |state| state.idle == Some(Idle::Lent)).await;
        peer.send(ServerMessage::Idle(settled)).await;
        let settled = Idle::Settled(Settled { quarantined: 1, cancelled: false });
        until(&client, |state| state.idle == Some(settled)).await;
        let mut leases = client.leases();
        let waiting = tokio::spawn(async move { leases.next().await.map(|lease| lease.id()) });
        assert!(is_pending(client.next_lease()), "a lease is still held");
        let answer = lease.done();
        peer.requests().await;
        assert!(is_pending(client.next_lease()), "its report is not answered");
        peer.answer(1).await;
        assert_eq!(answer.await, Verdict::Counted);
        assert_eq!(waiting.await.unwrap(), None);
        // Somebody adds work: it goes on.
        peer.lend([2], false).await;
        until(&client, |state| state.held == 1).await;
        assert_eq!(client.next_lease().await.unwrap().id().to_u64(), 2);
    });
}

#[test]
fn without_until_done_it_waits_for_more() {
    play(async {
        let server = Server::start().await;
        let client = start(&server);
        let (mut peer, _) = server.welcomed().await;
        peer.send(ServerMessage::Idle(WireIdle::Settled { quarantined: 0, cancelled: false })).await;
        until(&client, |state| state.idle.is_some()).await;
        let mut leases = client.leases();
        let waiting = tokio::spawn(async move { leases.next().await.map(|lease| lease.id().to_u64()) });
        tokio::task::yield_now().await;
        peer.lend([7], false).await;
        assert_eq!(waiting.await.unwrap(), Some(7));
    });
}

#[test]
fn what_a_server_settled_is_not_believed_over_a_lost_connection() {
    play(async {
        let server = Server::start().await;
        let client = Client::start(Config { until_done: true, ..config(&server) }).unwrap();
        let (mut peer, _) = server.welcomed().await;
        peer.send(ServerMessage::Idle(WireIdle::Lent)).await;
        until(&client, |state| state.idle.is_some()).await;
        drop(peer);
        until(&client, |state| state.idle.is_none()).await;
        let (mut peer, _) = server.greeted().await;
        peer.send(welcome(true, 0, vec![], 0)).await;
        peer.want().await;
        peer.send(ServerMessage::Idle(WireIdle::Settled { quarantined: 0, cancelled: true })).await;
        assert!(client.next_lease().await.is_none());
    });
}

#[test]
fn a_server_that_sends_its_clients_back_before_a_welcome_is_not_stormed() {
    play(async {
        let server = Server::start().await;
        let _client =
            Client::start(Config { backoff_first: FOREVER, backoff_cap: FOREVER, ..config(&server) }).unwrap();
        let (mut peer, _) = server.greeted().await;
        peer.send(ServerMessage::Closing { code: WireClosing::Reconnect, text: "come back".into() }).await;
        // Not "it never comes", which nobody can wait for; before, it came within a millisecond.
        let again = tokio::time::timeout(Duration::from_millis(200), server.accept()).await;
        assert!(again.is_err());
    });
}

#[test]
fn a_server_that_sends_its_clients_back_after_a_welcome_sees_them_at_once() {
    play(async {
        let server = Server::start().await;
        let _client =
            Client::start(Config { backoff_first: FOREVER, backoff_cap: FOREVER, ..config(&server) }).unwrap();
        let (mut peer, _) = server.welcomed().await;
        peer.send(ServerMessage::Closing { code: WireClosing::Reconnect, text: "come back".into() }).await;
        server.welcomed().await;
    });
}

#[test]
fn what_is_shown_never_lags_behind_what_was_told() {
    play(async {
        let server = Server::start().await;
        let client = Client::start(Config { until_done: true, ..config(&server) }).unwrap();
        let shown = client.watch();
        let (mut peer, _) = server.welcomed().await;
        for number in 1..=100 {
            peer.lend([number], false).await;
            until(&client, |state| state.held == 1).await;
            let lease = lease(&client).await;
            assert!(matches!(shown.borrow().connection, Connection::Connected { .. }));
            assert_eq!((shown.borrow().held, shown.borrow().idle), (1, None));
            let answer = lease.done();
            assert_eq!((shown.borrow().held, shown.borrow().unanswered), (0, 1));
            peer.requests().await;
            peer.answer(number).await;
            assert_eq!(answer.await, Verdict::Counted);
            assert_eq!(shown.borrow().unanswered, 0);
            peer.send(ServerMessage::Idle(WireIdle::Settled { quarantined: 0, cancelled: false })).await;
            assert!(client.next_lease().await.is_none());
            assert!(shown.borrow().idle.is_some());
        }
    });
}

#[test]
fn what_is_settled_of_the_window_of_before_ends_nothing() {
    play(async {
        let server = Server::start().await;
        let client = Client::start(Config { until_done: true, ..config(&server) }).unwrap();
        let (mut peer, _) = server.welcomed().await;
        client.set_want(Want { leases: 2, runs: 1, campaigns: vec!["other".into()] });
        // The server had settled what was wanted before, and hears of the change only then.
        let settled = || ServerMessage::Idle(WireIdle::Settled { quarantined: 0, cancelled: false });
        let script = async {
            peer.send(settled()).await;
            assert_eq!(peer.want().await.0, 0, "nothing, so that nothing is said of it");
            let (id, _) = peer.control().await;
            assert_eq!(peer.want().await, (2, 1, vec!["other".into()]));
            peer.send(ServerMessage::Control { id, answer: WireAnswer::Fate(WireFate::Confirmed) }).await;
            peer.send(ServerMessage::Idle(WireIdle::Lent)).await;
            assert_eq!(until(&client, |state| state.idle.is_some()).await.idle, Some(Idle::Lent));
            peer.lend([1], false).await;
        };
        let (lease, ()) = tokio::join!(client.next_lease(), script);
        let lease = lease.expect("a lease of the window of now");
        let answer = lease.done();
        peer.requests().await;
        peer.answer(1).await;
        assert_eq!(answer.await, Verdict::Counted);
        peer.send(settled()).await;
        assert!(client.next_lease().await.is_none(), "this one is about the window of now");
    });
}

#[test]
fn a_changed_want_is_told_at_once_and_once() {
    play(async {
        let server = Server::start().await;
        let client = start(&server);
        let (mut peer, _) = server.welcomed().await;
        client.set_want(Want { leases: 2, runs: 8, campaigns: vec![] });
        assert_eq!(peer.want().await, (2, 8, vec![]));
        peer.lend([1], false).await;
        lease(&client).await.done();
        peer.requests().await; // and no want before it
        drop(peer);
        let (mut peer, _) = server.greeted().await;
        peer.send(welcome(true, 1, vec![], 0)).await;
        assert_eq!(peer.want().await, (2, 8, vec![]));
    });
}

#[test]
fn many_requests_are_cut_into_messages() {
    play(async {
        const COUNT: u64 = 2_500;
        let server = Server::start().await;
        let (_client, mut peer, mut leases) = holding(&server, COUNT).await;
        drop(peer);
        let answers: Vec<Answer> = leases.drain(..).map(Lease::done).collect();
        // What went out before the loss was noticed does not matter; nothing of it is answered.
        peer = server.greeted().await.0;
        peer.send(welcome(true, 0, vec![], u32::try_from(COUNT).unwrap())).await;
        for first in (1..=COUNT).step_by(250) {
            peer.lend(first..first + 250, true).await;
        }
        for (first, length) in [(1, 1024), (1025, 1024), (2049, 452)] {
            let (number, _, requests) = peer.requests().await;
            assert_eq!((number, requests.len()), (first, length));
            let expected: Vec<_> = (first..).take(length).map(done).collect();
            assert_eq!(requests, expected, "in order");
        }
        peer.answer(COUNT).await;
        for answer in answers {
            assert_eq!(answer.await, Verdict::Counted);
        }
    });
}

#[test]
fn words_that_end_it_for_good() {
    play(async {
        for (code, expected) in [
            (WireClosing::Protocol, Stopped::Protocol("why".into())),
            (WireClosing::Superseded, Stopped::Superseded("why".into())),
        ] {
            let server = Server::start().await;
            let (client, mut peer, mut leases) = holding(&server, 2).await;
            let answer = leases.remove(0).done();
            peer.requests().await;
            peer.send(ServerMessage::Closing { code, text: "why".into() }).await;
            assert_eq!(answer.await, Verdict::Unknown);
            assert!(client.next_lease().await.is_none());
            leases[0].lost().await;
            let state = until(&client, |state| matches!(state.connection, Connection::Stopped(_))).await;
            assert_eq!(state.connection, Connection::Stopped(expected));
            assert_eq!(leases.remove(0).done().await, Verdict::Unknown, "also what is reported afterwards");
            assert_eq!(client.close(Duration::ZERO).await, Closed { unanswered: vec![1], said_goodbye: false });
        }
    });
}

#[test]
fn words_after_which_it_comes_back() {
    play(async {
        let server = Server::start().await;
        let client = start(&server);
        let mut attempt = 1;
        for code in [WireClosing::Shutdown, WireClosing::Busy, WireClosing::Reconnect] {
            let (mut peer, hello) = server.greeted().await;
            assert_eq!(hello.attempt, attempt);
            attempt += 1;
            peer.send(welcome(attempt > 2, 0, vec![], 0)).await;
            peer.want().await;
            peer.send(ServerMessage::Closing { code, text: format!("{code:?}") }).await;
            assert_eq!(peer.next().await, None);
            let text = format!("{code:?}");
            until(&client, |state| {
                matches!(&state.connection, Connection::Connecting { last_error: Some(why), .. } if *why == text)
            })
            .await;
        }
        server.greeted().await;
    });
}

#[test]
fn a_version_that_does_not_fit_is_said_plainly() {
    play(async {
        let server = Server::start().await;
        let client = start(&server);
        let mut stream = server.accept_raw().await;
        assert_eq!(read_preface(&mut stream).await, VERSIONS);
        let versions = VersionRange { lowest: 7, highest: 9 };
        stream.write_all(&ServerPreface::answer(versions, VERSIONS).to_bytes()).await.unwrap();
        let state = until(&client, |state| matches!(state.connection, Connection::Stopped(_))).await;
        let Connection::Stopped(Stopped::Version(text)) = state.connection else { panic!("{state:?}") };
        assert!(text.contains("version 1 ") && text.contains("versions 7 to 9") && text.contains("upgrade"), "{text}");
        assert!(client.next_lease().await.is_none());
    });
}

#[test]
fn a_silent_server_is_given_up() {
    play(async {
        let server = Server::start().await;
        let client = Client::start(Config { silence: Duration::from_millis(50), ..config(&server) }).unwrap();
        let (silent, _) = server.welcomed().await;
        let (_peer, hello) = server.greeted().await; // while the first connection is still open
        assert_eq!(hello.attempt, 2);
        drop((silent, client));
    });
}

#[test]
fn a_server_that_breaks_the_protocol_is_left_and_met_again() {
    play(async {
        let server = Server::start().await;
        let _client = start(&server);
        let breaches = [
            ServerMessage::Answers { through: 1, refusals: vec![] },
            ServerMessage::Grants { campaigns: vec![], grants: vec![grant(1)], resent: false },
            ServerMessage::Grants { campaigns: vec![campaign(1)], grants: vec![grant(1)], resent: true },
            welcome(true, 0, vec![], 0),
            ServerMessage::UnknownSession { instance: INSTANCE },
        ];
        for breach in breaches {
            let (mut peer, _) = server.welcomed().await;
            peer.send(breach).await;
            assert_eq!(peer.next().await, None);
        }
        let (mut peer, _) = server.greeted().await;
        peer.send(welcome(false, 1, vec![], 0)).await;
        assert_eq!(peer.next().await, None);
        server.welcomed().await;
    });
}

#[test]
fn closing_gives_back_what_was_not_taken_and_waits_for_answers() {
    play(async {
        let server = Server::start().await;
        let (client, mut peer, mut leases) = holding(&server, 1).await;
        peer.lend([2, 3], false).await;
        until(&client, |state| state.held == 3).await;
        let answer = leases.remove(0).done();
        assert_eq!(peer.requests().await, (1, 0, vec![done(1)]));
        let closing = tokio::spawn(client.close(Duration::from_mins(1)));
        assert_eq!(peer.want().await.0, 0, "first of all, else what is released would be lent again");
        let releases = [2, 3].map(|lease| WireRequest::Release { lease });
        assert_eq!(peer.requests().await, (2, 0, releases.to_vec()));
        peer.lend([4], false).await; // a grant that was under way
        assert_eq!(peer.requests().await, (4, 0, vec![WireRequest::Release { lease: 4 }]));
        peer.answer(3).await;
        assert_eq!(answer.await, Verdict::Counted);
        peer.answer(4).await;
        assert_eq!(peer.next().await, Some(ClientMessage::Goodbye));
        drop(peer); // without a word
        assert_eq!(closing.await.unwrap(), Closed { unanswered: vec![], said_goodbye: false });
    });
}

#[test]
fn closing_reconnects_for_missing_answers() {
    play(async {
        let server = Server::start().await;
        let (client, mut peer, mut leases) = holding(&server, 1).await;
        let answer = leases.remove(0).done();
        peer.requests().await;
        let closing = tokio::spawn(client.close(Duration::from_mins(1)));
        peer.want().await;
        drop(peer);
        let (mut peer, _) = server.greeted().await;
        peer.send(welcome(true, 1, vec![], 0)).await;
        assert_eq!(answer.await, Verdict::Counted);
        assert_eq!(peer.want().await.0, 0);
        assert_eq!(peer.next().await, Some(ClientMessage::Goodbye));
        peer.send(ServerMessage::Closing { code: WireClosing::Goodbye, text: String::new() }).await;
        assert!(closing.await.unwrap().said_goodbye);
    });
}

#[test]
fn what_stays_unanswered_is_named_and_no_goodbye_is_said() {
    play(async {
        let server = Server::start().await;
        let (client, mut peer, mut leases) = holding(&server, 2).await;
        let (first, second) = (leases.remove(0).done(), leases.remove(0).done());
        let mut heard = 0;
        while heard < 2 {
            heard += peer.requests().await.2.len();
        }
        peer.answer(1).await;
        assert_eq!(first.await, Verdict::Counted);
        let closed = client.close(Duration::from_millis(200)).await;
        assert_eq!(closed, Closed { unanswered: vec![2], said_goodbye: false });
        assert_eq!(second.await, Verdict::Unknown);
        peer.want().await;
        assert_eq!(peer.next().await, None, "a goodbye would make the server forget what became of request 2");
    });
}

#[test]
fn closing_without_a_server_ends() {
    play(async {
        let server = Server::start().await;
        let unused = start(&server);
        drop(server.accept_raw().await);
        assert_eq!(unused.close(Duration::MAX).await, Closed { unanswered: vec![], said_goodbye: false });

        let server = Server::start().await;
        let (client, peer, mut leases) = holding(&server, 1).await;
        drop((peer, server));
        until(&client, |state| matches!(state.connection, Connection::Connecting { .. })).await;
        let answer = leases.remove(0).done();
        let closed = client.close(Duration::from_millis(200)).await;
        assert_eq!(closed, Closed { unanswered: vec![1], said_goodbye: false });
        assert_eq!(answer.await, Verdict::Unknown);
    });
}

#[test]
fn a_dropped_client_takes_its_leave() {
    play(async {
        let server = Server::start().await;
        let (client, mut peer, leases) = holding(&server, 1).await;
        let mut rest = client.leases();
        drop(client);
        peer.want().await;
        assert_eq!(peer.next().await, Some(ClientMessage::Goodbye));
        assert!(rest.next().await.is_none());
        peer.send(ServerMessage::Closing { code: WireClosing::Goodbye, text: String::new() }).await;
        leases[0].lost().await;
    });
}

#[test]
fn a_slow_reader_does_not_stop_the_reading() {
    // The server writes without reading until the client has understood all of it, then reads. Were the client to wait for
    // its writes, both would wait for ever.
    play(async {
        const COUNT: u64 = 20_000;
        let server = Server::start().await;
        let client =
            Client::start(Config { want: Want { leases: 1024, runs: 1, campaigns: vec![] }, ..config(&server) });
        let client = client.unwrap();
        let (mut peer, _) = server.welcomed().await;
        let reporting = tokio::spawn({
            let mut leases = client.leases();
            async move {
                let mut answers = Vec::new();
                while answers.len() < usize::try_from(COUNT).unwrap() {
                    answers.push(leases.next().await.unwrap().failed("x".repeat(200)));
                }
                answers
            }
        });
        for first in (1..=COUNT).step_by(200) {
            peer.lend(first..first + 200, false).await;
        }
        let answers = reporting.await.unwrap();
        let mut heard = 0;
        while heard < COUNT {
            let (first, _, requests) = peer.requests().await;
            assert_eq!(first, heard + 1);
            heard += requests.len() as u64;
        }
        peer.answer(COUNT).await;
        for answer in answers {
            assert_eq!(answer.await, Verdict::Counted);
        }
    });
}

#[test]
fn wrong_settings_are_refused_at_once() {
    let none: [String; 0] = [];
    assert!(matches!(Client::start(Config::new(none)), Err(StartError::NoServers)));
    let want = Want { leases: 1, runs: 1, campaigns: vec!["c".into(); 17] };
    assert!(matches!(Client::start(Config { want, ..Config::new(["localhost"]) }), Err(StartError::Want)));
}

#[test]
fn nothing_is_sent_before_the_versions_are_agreed() {
    play(async {
        let server = Server::start().await;
        let _client = start(&server);
        let mut stream = server.accept_raw().await;
        read_preface(&mut stream).await;
        let mut byte = [0];
        assert!(is_pending(stream.read(&mut byte)));
        stream.write_all(&ServerPreface::answer(VERSIONS, VERSIONS).to_bytes()).await.unwrap();
        assert_eq!(stream.read(&mut byte).await.unwrap(), 1);
    });
}

/// Whether a future is not ready now.
fn is_pending<T>(future: impl Future<Output = T>) -> bool {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    std::pin::pin!(future).poll(&mut context).is_pending()
}
