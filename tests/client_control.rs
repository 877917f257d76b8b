//! Questions and orders against a scripted server: answers that get lost, creations that are set back, servers that are
//! not there.
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used)] // A helper of a test may fail like the test.

mod client_support;

use std::time::Duration;

use client_support::{INSTANCE, Peer, Server, play, read_preface};
use tenfold::client::{Control, ControlFailure, Created};
use tenfold::protocol::frame::{ServerPreface, VERSIONS, VersionRange};
use tenfold::protocol::messages::{
    ClientMessage, ServerMessage, WireAnswer, WireCampaignState, WireClosing, WireControl, WireCount, WireFailure,
    WireFate, WireOrder, WireReason, WireSpec, WireStatus, WireTaskState, WireTasks,
};
use tenfold::types::{CampaignId, CampaignSpec, CreationId, Order, RefusalReason, RequestFate, SessionId, Tasks};
use tokio::io::AsyncWriteExt;

const CREATION: CreationId = CreationId([3; 16]);
const PATIENCE: Duration = Duration::from_mins(1);

fn control(server: &Server) -> Control {
    Control::new(vec![server.address()], PATIENCE)
}

/// The next connection, which must not introduce a session.
async fn greeted(server: &Server) -> Peer {
    let mut peer = server.accept().await;
    let hello = peer.next().await;
    assert_eq!(hello, Some(ClientMessage::Hello { token: String::new(), session: None }));
    peer
}

async fn answer(peer: &mut Peer, id: u32, answer: WireAnswer) {
    peer.send(ServerMessage::Control { id, answer }).await;
}

fn failed(code: WireFailure, index: u32) -> WireAnswer {
    WireAnswer::Failed { code, text: format!("{code:?}"), index }
}

fn creation(added: u32, sealed: bool, existed: bool) -> WireAnswer {
    WireAnswer::Creation { campaign: 9, added, sealed, existed }
}

fn spec(tasks: Tasks) -> CampaignSpec {
    CampaignSpec {
        name: "sweep".into(),
        tasks,
        runs: 10,
        seed: None,
        order: Order::Lowest,
        lease_ms: None,
        timeout_ms: None,
        errors_max: Some(3),
        losses_max: None,
    }
}

fn status(id: u32) -> WireStatus {
    WireStatus {
        id,
        spec: WireSpec {
            name: "sweep".into(),
            tasks: WireTasks::Range { first: 0, count: 1 },
            runs: 10,
            seed: None,
            order: WireOrder::Even,
            lease_ms: Some(1),
            timeout_ms: None,
            errors_max: None,
            losses_max: None,
        },
        state: WireCampaignState::Running,
        settled: false,
        finished: false,
        tasks_done: 0,
        tasks_quarantined: 0,
        runs_done: 0,
        runs_extra: 0,
        runs_leased: 0,
        errors: 0,
        losses: 0,
    }
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("key {number}")).collect()
}

#[test]
fn pages_are_followed_on_one_connection() {
    play(async {
        let server = Server::start().await;
        let control = control(&server);
        let script = async {
            let mut peer = greeted(&server).await;
            peer.send(ServerMessage::Welcome {
                instance: INSTANCE,
                resumed: false,
                through: 0,
                refusals: vec![],
                leases: 0,
            })
            .await;
            let (id, request) = peer.control().await;
            assert_eq!(request, WireControl::Status { campaign: None, from: 0 });
            answer(&mut peer, id.wrapping_sub(1), WireAnswer::Done { tasks: 0 }).await; // to somebody who gave up
            answer(&mut peer, id, WireAnswer::Status { campaigns: vec![status(1), status(4)], next: Some(5) }).await;
            let (id, request) = peer.control().await;
            assert_eq!(request, WireControl::Status { campaign: None, from: 5 });
            answer(&mut peer, id, WireAnswer::Status { campaigns: vec![status(7)], next: None }).await;
            peer
        };
        let (campaigns, mut peer) = tokio::join!(control.status(None), script);
        let ids: Vec<u32> = campaigns.unwrap().iter().map(|campaign| campaign.id.0).collect();
        assert_eq!(ids, [1, 4, 7]);

        let script = async {
            let (id, request) = peer.control().await;
            assert_eq!(request, WireControl::Counts { campaign: "sweep".into(), from: 20, limit: 1_000 });
            let count = WireCount {
                index: 20,
                key: Some("key 20".into()),
                done: 1,
                extra: 2,
                leased: 3,
                state: WireTaskState::Open,
                errors: 4,
                losses: 5,
                last_error: "no".into(),
            };
            answer(&mut peer, id, WireAnswer::Counts { first: 0, runs: 10, tasks: vec![count], next: Some(21) }).await;
        };
        let (page, ()) = tokio::join!(control.counts_page("sweep", 20), script);
        let page = page.unwrap();
        assert_eq!((page.first, page.runs, page.next), (0, 10, Some(21)));
        assert_eq!(page.tasks[0].0.as_deref(), Some("key 20"));
        assert_eq!((page.tasks[0].1.done, page.tasks[0].1.last_error.as_str()), (1, "no"));
    });
}

#[test]
fn a_lost_answer_is_asked_for_again() {
    play(async {
        let server = Server::start().await;
        let control = control(&server);
        let script = async {
            for _ in 0..3 {
                let mut peer = greeted(&server).await;
                let (_, request) = peer.control().await;
                assert_eq!(request, WireControl::Pause { campaign: "sweep".into() });
            }
            let mut peer = greeted(&server).await;
            peer.control().await;
            peer.send(ServerMessage::Closing { code: WireClosing::Shutdown, text: "bye".into() }).await;
            let mut peer = greeted(&server).await;
            let (id, _) = peer.control().await;
            answer(&mut peer, id, failed(WireFailure::Draining, 0)).await;
            let mut peer = greeted(&server).await;
            let (id, _) = peer.control().await;
            answer(&mut peer, id, WireAnswer::Done { tasks: 4 }).await;
        };
        let (outcome, ()) = tokio::join!(control.pause("sweep"), script);
        assert_eq!(outcome, Ok(4));
    });
}

#[test]
fn a_kept_connection_that_was_closed_is_replaced_without_a_wait() {
    play(async {
        let server = Server::start().await;
        let control = control(&server);
        for round in 0..3 {
            let script = async {
                let mut peer = greeted(&server).await;
                let (id, _) = peer.control().await;
                answer(&mut peer, id, WireAnswer::Done { tasks: round }).await;
                // The connection ends here, and the client finds out when it asks the next time.
            };
            let (outcome, ()) = tokio::join!(control.requeue("sweep"), script);
            assert_eq!(outcome, Ok(round));
        }
    });
}

#[test]
fn a_failure_is_passed_on() {
    play(async {
        let server = Server::start().await;
        let control = control(&server);
        let script = async {
            let mut peer = greeted(&server).await;
            for _ in 0..2 {
                let (id, _) = peer.control().await;
                answer(&mut peer, id, failed(WireFailure::NotFound, 0)).await;
            }
            let (id, _) = peer.control().await;
            answer(&mut peer, id, WireAnswer::Fate(WireFate::Refused(WireReason::Gone))).await;
            let (id, _) = peer.control().await;
            answer(&mut peer, id, WireAnswer::Done { tasks: 0 }).await;
            peer
        };
        let calls = async {
            let not_found = ControlFailure::Failed { code: WireFailure::NotFound, text: "NotFound".into(), index: 0 };
            assert_eq!(control.cancel("sweep").await, Err(not_found.clone()));
            assert_eq!(control.remove("sweep").await, Err(not_found), "it was sent once, so it is the truth");
            let fate = control.fate(SessionId([1; 16]), 7).await;
            assert_eq!(fate, Ok(RequestFate::Refused(RefusalReason::Gone)));
            let nonsense = control.status(Some("sweep")).await;
            assert!(matches!(nonsense, Err(ControlFailure::Protocol(_))), "{nonsense:?}");
        };
        tokio::join!(script, calls);
    });
}

#[test]
fn a_removal_whose_answer_was_lost_is_done() {
    play(async {
        let server = Server::start().await;
        let control = control(&server);
        let script = async {
            let mut peer = greeted(&server).await;
            peer.control().await;
            drop(peer);
            let mut peer = greeted(&server).await;
            let (id, _) = peer.control().await;
            answer(&mut peer, id, failed(WireFailure::NotFound, 0)).await;
        };
        let (outcome, ()) = tokio::join!(control.remove("sweep"), script);
        assert_eq!(outcome, Ok(0));
    });
}

#[test]
fn keys_follow_what_the_server_has() {
    play(async {
        let server = Server::start().await;
        let control = control(&server);
        let keys = keys(10_000);
        let script = async {
            let mut peer = greeted(&server).await;
            let (id, request) = peer.control().await;
            let expected = spec(Tasks::Keys { count: 10_000 });
            assert_eq!(request, WireControl::Create { creation: CREATION.0, spec: Box::new(expected.into()) });
            // An earlier attempt got this far.
            answer(&mut peer, id, creation(100, false, false)).await;
            let add = |from: u32, length: usize| {
                let from_index = from as usize;
                let keys = keys[from_index..from_index + length].to_vec();
                WireControl::AddKeys { creation: CREATION.0, from, keys }
            };
            let (id, request) = peer.control().await;
            assert_eq!(request, add(100, 4096));
            answer(&mut peer, id, creation(4196, false, false)).await;
            let (id, request) = peer.control().await;
            assert_eq!(request, add(4196, 4096));
            answer(&mut peer, id, failed(WireFailure::KeysOutOfOrder, 8000)).await;
            let (_, request) = peer.control().await;
            assert_eq!(request, add(8000, 2000));
            drop(peer); // before the answer, and the server restarts: what was not sealed is gone
            let mut peer = greeted(&server).await;
            let (id, request) = peer.control().await;
            assert_eq!(request, add(8000, 2000));
            answer(&mut peer, id, failed(WireFailure::CreationUnknown, 0)).await;
            let (id, request) = peer.control().await;
            assert!(matches!(request, WireControl::Create { .. }));
            answer(&mut peer, id, creation(0, false, false)).await;
            for (from, length) in [(0, 4096), (4096, 4096), (8192, 1808)] {
                let (id, request) = peer.control().await;
                assert_eq!(request, add(from, length));
                answer(&mut peer, id, creation(from + u32::try_from(length).unwrap(), false, false)).await;
            }
            let (id, request) = peer.control().await;
            assert_eq!(request, WireControl::Seal { creation: CREATION.0 });
            answer(&mut peer, id, creation(10_000, true, false)).await;
        };
        let wanted = spec(Tasks::Keys { count: 10_000 });
        let (created, ()) = tokio::join!(control.create(CREATION, &wanted, &keys), script);
        assert_eq!(created, Ok(Created { campaign: CampaignId(9), existed: false }));
    });
}

#[test]
fn what_existed_before_is_told_from_what_an_own_copy_made() {
    play(async {
        let server = Server::start().await;
        let control = control(&server);
        let script = async {
            let mut peer = greeted(&server).await;
            let (id, _) = peer.control().await;
            answer(&mut peer, id, creation(5, true, true)).await;
            let (id, _) = peer.control().await;
            answer(&mut peer, id, creation(5, true, false)).await;
            peer.control().await;
            drop(peer);
            let mut peer = greeted(&server).await;
            let (id, _) = peer.control().await;
            answer(&mut peer, id, creation(5, true, true)).await;
        };
        let calls = async {
            let spec = spec(Tasks::Range { first: 0, count: 5 });
            for existed in [true, false, false] {
                let created = control.create(CREATION, &spec, &[]).await;
                assert_eq!(created, Ok(Created { campaign: CampaignId(9), existed }));
            }
        };
        tokio::join!(script, calls);
    });
}

#[test]
fn a_bad_key_ends_a_creation() {
    play(async {
        let server = Server::start().await;
        let control = control(&server);
        let script = async {
            let mut peer = greeted(&server).await;
            let (id, _) = peer.control().await;
            answer(&mut peer, id, creation(0, false, false)).await;
            let (id, _) = peer.control().await;
            answer(&mut peer, id, failed(WireFailure::KeyTwice, 2)).await;
        };
        let wanted = spec(Tasks::Keys { count: 3 });
        let keys = keys(3);
        let (created, ()) = tokio::join!(control.create(CREATION, &wanted, &keys), script);
        let expected = ControlFailure::Failed { code: WireFailure::KeyTwice, text: "KeyTwice".into(), index: 2 };
        assert_eq!(created, Err(expected));
    });
}

#[test]
fn a_server_that_makes_no_progress_is_not_followed_for_ever() {
    play(async {
        let server = Server::start().await;
        let control = control(&server);
        let script = async {
            let mut peer = greeted(&server).await;
            while let Some(ClientMessage::Control { id, request }) = peer.next().await {
                let begin = matches!(request, WireControl::Create { .. });
                let reply = if begin { creation(0, false, false) } else { failed(WireFailure::CreationUnknown, 0) };
                answer(&mut peer, id, reply).await;
            }
        };
        let calls = async {
            let wanted = spec(Tasks::Keys { count: 3 });
            let created = control.create(CREATION, &wanted, &keys(3)).await;
            assert!(matches!(created, Err(ControlFailure::Failed { code: WireFailure::CreationUnknown, .. })));
            drop(control);
        };
        tokio::join!(script, calls);
    });
}

#[test]
fn patience_ends_and_names_the_servers() {
    play(async {
        // A port that was just free, and one that listens and never says anything.
        let gone = Server::start().await.address();
        let mute = Server::start().await;
        let servers = vec![gone, mute.address()];
        let control = Control::new(servers.clone(), Duration::from_millis(100));
        let failure = control.status(None).await.unwrap_err();
        let ControlFailure::Unreachable { servers: named, last } = &failure else { panic!("{failure:?}") };
        assert_eq!(*named, servers);
        assert!(!last.is_empty() && failure.to_string().contains(&servers.join(", ")), "{failure}");
        let nobody = Control::new(vec![], PATIENCE).status(None).await;
        assert!(matches!(nobody, Err(ControlFailure::Unreachable { .. })));
    });
}

#[test]
fn the_next_server_is_asked() {
    play(async {
        let (first, second) = (Server::start().await, Server::start().await);
        let control = Control::new(vec![first.address(), second.address()], PATIENCE);
        let script = async {
            drop(first.accept_raw().await);
            let mut peer = greeted(&second).await;
            let (id, _) = peer.control().await;
            answer(&mut peer, id, WireAnswer::Done { tasks: 1 }).await;
        };
        let (outcome, ()) = tokio::join!(control.resume("sweep"), script);
        assert_eq!(outcome, Ok(1));
    });
}

#[test]
fn a_version_that_does_not_fit_is_final() {
    play(async {
        let server = Server::start().await;
        let control = control(&server);
        let script = async {
            let mut stream = server.accept_raw().await;
            read_preface(&mut stream).await;
            let versions = VersionRange { lowest: 7, highest: 9 };
            stream.write_all(&ServerPreface::answer(versions, VERSIONS).to_bytes()).await.unwrap();
        };
        let (outcome, ()) = tokio::join!(control.status(None), script);
        let Err(ControlFailure::Protocol(text)) = outcome else { panic!("{outcome:?}") };
        assert!(text.contains("versions 7 to 9"), "{text}");
    });
}
