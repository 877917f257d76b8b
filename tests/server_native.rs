//! The native dialect on real sockets: work, answers, keys, resumes, and how many commits all that takes.

#![cfg(feature = "server")]

mod server_support;

use server_support::{Rig, hello, patiently, spec};
use tempfile::tempdir;
use tenfold::protocol::codec;
use tenfold::protocol::messages::{
    ClientMessage, ServerMessage, WireAnswer, WireClosing, WireControl, WireFailure, WireFate, WireRequest,
};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn work_is_lent_reported_answered_and_counted() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    let mut control = rig.control().await;
    control.create(spec("c", 2, 2)).await;
    let mut worker = rig.session(1).await;
    worker.want(2).await;
    let ServerMessage::Grants { campaigns, grants, resent } = worker.next().await else { panic!("no grants") };
    assert_eq!((campaigns[0].name.as_str(), campaigns[0].keyed, resent), ("c", false, false));
    assert_eq!(grants.iter().map(|grant| (grant.task, grant.key.clone())).collect::<Vec<_>>(), [(0, None), (0, None)]);
    worker.report(1, grants[0].lease).await;
    assert_eq!(worker.next().await, ServerMessage::Answers { through: 1, refusals: Vec::new() });
    assert_eq!(worker.grants().await[0].task, 1, "what it may hold is filled up again");
    let counts = control.counts("c").await;
    assert_eq!(counts.iter().map(|count| (count.done, count.leased)).collect::<Vec<_>>(), [(1, 1), (0, 1)]);
}

/// What the client library relies on to tell what is said of a changed window from what was said of the one before.
#[tokio::test]
async fn nothing_is_said_of_an_empty_window_and_answers_keep_their_order() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    let mut worker = rig.session(1).await;
    worker.want(1).await;
    assert!(matches!(worker.next().await, ServerMessage::Idle(_)));
    worker.want(0).await;
    worker.send(&ClientMessage::Control { id: 5, request: WireControl::Fate { session: [1; 16], number: 0 } }).await;
    worker.want(1).await;
    assert!(matches!(worker.next().await, ServerMessage::Control { id: 5, .. }));
    assert!(matches!(worker.next().await, ServerMessage::Idle(_)));
}

#[tokio::test]
async fn keys_travel_with_grants_and_counts() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    let mut control = rig.control().await;
    let keys: Vec<String> = (0..250).map(|number| format!("key {number} ä")).collect();
    control.create_with_keys("keyed", &keys).await;
    let mut worker = rig.session(1).await;
    worker.want(200).await;
    let mut seen = Vec::new();
    while seen.len() < 200 {
        seen.extend(worker.grants().await);
    }
    for grant in &seen {
        assert_eq!(grant.key.as_ref(), keys.get(grant.task as usize), "task {}", grant.task);
    }
    let counts = control.counts("keyed").await;
    assert_eq!(counts.into_iter().map(|count| count.key.unwrap()).collect::<Vec<_>>(), keys);
}

#[tokio::test]
async fn counts_with_long_keys_are_paged_without_a_gap() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    let mut control = rig.control().await;
    let keys: Vec<String> = (0..1_200).map(|number| format!("{number:01000}")).collect();
    control.create_with_keys("long", &keys).await;
    let (mut from, mut seen) = (Some(0), Vec::new());
    let mut pages = 0;
    while let Some(index) = from {
        let request = WireControl::Counts { campaign: "long".to_owned(), from: index, limit: 1_000 };
        let answer = control.ask(request).await;
        let WireAnswer::Counts { tasks, next, .. } = answer else { panic!("{answer:?}") };
        seen.extend(tasks.into_iter().map(|count| count.key.unwrap()));
        from = next;
        pages += 1;
    }
    assert!(seen == keys, "{} keys", seen.len());
    assert!(pages > 1);
}

#[tokio::test]
async fn control_failures_are_told_apart() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    let mut control = rig.control().await;
    let answer = control.ask(WireControl::Pause { campaign: "none".to_owned() }).await;
    let WireAnswer::Failed { code, text, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(code, WireFailure::NotFound);
    assert!(text.contains("none"), "{text}");
    let fate = control.ask(WireControl::Fate { session: [5; 16], number: 1 }).await;
    assert_eq!(fate, WireAnswer::Fate(WireFate::UnknownSession));
}

#[tokio::test]
async fn a_session_resumes_with_its_leases_and_answers() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    rig.control().await.create(spec("c", 10, 1)).await;
    let mut worker = rig.silent().await;
    worker.send(&hello(1, [0; 16], 1, 0)).await;
    let ServerMessage::Welcome { instance, .. } = worker.next().await else { panic!("no welcome") };
    worker.want(3).await;
    let grants = worker.grants().await;
    worker.report(1, grants[0].lease).await;
    worker.next().await;
    // A newer connection takes the session over; the old one is told.
    let mut newer = rig.silent().await;
    newer.send(&hello(1, instance, 2, 0)).await;
    let welcome = newer.next().await;
    let ServerMessage::Welcome { resumed: true, through: 1, leases, .. } = welcome else { panic!("{welcome:?}") };
    let ServerMessage::Grants { grants: resent, resent: true, campaigns } = newer.next().await else {
        panic!("nothing was sent again");
    };
    assert_eq!((resent.len(), campaigns.len()), (leases as usize, 1));
    assert!(resent.iter().all(|grant| grant.lease != grants[0].lease), "that one was reported");
    assert_eq!(worker.closing().await.0, WireClosing::Superseded);
}

#[tokio::test]
async fn an_unknown_session_may_introduce_another_on_the_same_connection() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    let mut peer = rig.silent().await;
    peer.send(&hello(1, [0xee; 16], 5, 0)).await;
    let told = peer.next().await;
    assert!(matches!(told, ServerMessage::UnknownSession { .. }), "{told:?}");
    peer.send(&hello(2, [0; 16], 1, 0)).await;
    let told = peer.next().await;
    assert!(matches!(told, ServerMessage::Welcome { resumed: false, .. }), "{told:?}");
}

#[tokio::test]
async fn a_peer_that_closed_its_end_still_gets_its_answers() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    rig.control().await.create(spec("c", 10, 1)).await;
    let mut worker = rig.session(1).await;
    worker.want(1).await;
    let lease = worker.grants().await[0].lease;
    worker.report(1, lease).await;
    worker.stream.shutdown().await.unwrap();
    let answer = worker.next().await;
    assert_eq!(answer, ServerMessage::Answers { through: 1, refusals: Vec::new() });
    while worker.next_or_end().await.is_some() {}
}

#[tokio::test]
async fn many_reports_share_one_sync() {
    const LEASES: usize = 1_000;
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    rig.control().await.create(spec("c", 2 * LEASES as u32, 1)).await;
    let mut worker = rig.session(1).await;
    worker.want(LEASES as u32).await;
    let mut leases = Vec::new();
    while leases.len() < LEASES {
        leases.extend(worker.grants().await.into_iter().map(|grant| grant.lease));
    }
    worker.want(0).await;
    rig.control().await.counts("c").await;
    let before = rig.activity.read();
    // Half of them in one message, half in a message each, all written at once.
    let (together, single) = leases.split_at(LEASES / 2);
    let done = |lease: &u64| WireRequest::Done { lease: *lease, runs: 1 };
    let mut bytes = Vec::new();
    let requests = together.iter().map(done).collect();
    codec::encode_client(&ClientMessage::Requests { first: 1, confirmed: 0, requests }, &mut bytes).unwrap();
    for (lease, first) in single.iter().zip(together.len() as u64 + 1..) {
        let requests = vec![done(lease)];
        codec::encode_client(&ClientMessage::Requests { first, confirmed: 0, requests }, &mut bytes).unwrap();
    }
    worker.send_bytes(&bytes).await;
    loop {
        if let ServerMessage::Answers { through, refusals } = worker.next().await {
            assert_eq!(refusals, []);
            if through == LEASES as u64 {
                break;
            }
        }
    }
    let after = rig.activity.read();
    let commits = after.commits - before.commits;
    assert_eq!(after.requests - before.requests, LEASES as u64);
    assert!((1..LEASES as u64 / 4).contains(&commits), "{commits} commits for {LEASES} reports");
}

#[tokio::test]
async fn questions_and_signs_of_life_take_no_commit() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    let mut control = rig.control().await;
    control.create(spec("c", 10, 1)).await;
    let mut worker = rig.session(1).await;
    let before = rig.activity.read();
    for _ in 0..10 {
        worker.send(&ClientMessage::Heartbeat { confirmed: 0 }).await;
        control.ask(WireControl::Status { campaign: None, from: 0 }).await;
        control.counts("c").await;
    }
    let fate = control.ask(WireControl::Fate { session: [1; 16], number: 1 }).await;
    assert_eq!(fate, WireAnswer::Fate(WireFate::NotReceived));
    let after = rig.activity.read();
    assert!(after.commands >= before.commands + 20, "they were asked");
    assert_eq!(after.commits, before.commits);
}

#[tokio::test]
async fn many_sessions_work_at_the_same_time() {
    const WORKERS: u8 = 20;
    let directory = tempdir().unwrap();
    let rig = std::sync::Arc::new(Rig::start(&directory, |_| ()).await);
    let mut control = rig.control().await;
    control.create(spec("c", 50, 10)).await;
    let mut workers = tokio::task::JoinSet::new();
    for id in 1..=WORKERS {
        let rig = std::sync::Arc::clone(&rig);
        workers.spawn(async move {
            let mut worker = rig.session(id).await;
            worker.want(5).await;
            let mut sent = 0;
            loop {
                let message = worker.next().await;
                if let ServerMessage::Grants { grants, .. } = message {
                    for grant in grants {
                        sent += 1;
                        worker.report(sent, grant.lease).await;
                    }
                } else if let ServerMessage::Idle(tenfold::protocol::messages::WireIdle::Settled { .. }) = message {
                    return sent;
                }
            }
        });
    }
    let sent: u64 = patiently("the fleet", workers.join_all()).await.into_iter().sum();
    assert_eq!(sent, 500);
    assert!(control.counts("c").await.iter().all(|count| (count.done, count.extra) == (10, 0)));
}
