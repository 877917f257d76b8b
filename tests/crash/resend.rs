//! The server dies between its commit and its answer, at an exact point: the client says it again, and it counts once.
//!
//! ```text
//!   client ── report 1 ──▶ server: commit ✓ dies        client ── report 1 again ──▶ server: "through 1", nothing counted
//! ```
//!
//! Each promise twice: with the client library, which must come to the right end by itself, and message by message, which
//! shows what the server knew before anything was said again. The counterpart is a server that dies before its commit:
//! then nothing of it is known, and the same words do the same for the first time.

use libtest_mimic::Trial;
use std::time::Duration;
use tenfold::client::{Client, Config, Control, ControlFailure, Verdict};
use tenfold::protocol::messages::{ClientMessage, WireFailure, WireLossReason, WireReason, WireRefusal, WireRequest};
use tenfold::types::{
    CampaignSpec, CampaignState, CreationId, LossReason, Outcome, RefusalReason, RequestFate, Tasks, Want,
};

use crate::raw::{Session, counted, counts, create, numbered};
use crate::server::{PATIENCE, Site, block_on, patiently};

/// Nothing of the commit is durable.
const BEFORE: &str = "before-commit";
/// All of it is, and nobody was told.
const AFTER: &str = "after-commit-before-answer";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial!("resend", a_report_counts_once_however_the_server_dies),
        trial!("resend", a_report_means_the_same_each_time_it_is_sent),
        trial!("resend", a_refused_report_stays_refused_for_its_reason),
        trial!("resend", a_refusal_is_repeated_word_for_word),
        trial!("resend", a_release_happens_once_however_the_server_dies),
        trial!("resend", a_release_does_not_touch_the_next_lease),
        trial!("resend", a_grant_that_never_arrived_is_found),
        trial!("resend", a_grant_that_never_arrived_is_known_and_sent_again),
        trial!("resend", a_creation_happens_once_however_the_server_dies),
        trial!("resend", a_goodbye_is_not_taken_back),
        trial!("resend", leases_survive_their_server),
        trial!("resend", a_late_report_counts_after_a_restart),
        trial!("resend", orders_survive_their_server),
    ]
}

/// A server with these campaigns that dies at its fault point.
async fn doomed(fault: &str, specs: &[CampaignSpec]) -> Site {
    let mut site = Site::with_server(&[]).await;
    create(&site, specs).await;
    site.kill();
    site.start_with_fault(fault).await;
    site
}

/// A client on the library that holds this many leases of one campaign.
fn client(site: &Site, campaign: &str, leases: u32) -> Client {
    let mut config = Config::new([site.address()]);
    config.want = Want { leases, runs: 2, campaigns: vec![campaign.to_owned()] };
    config.backoff_cap = Duration::from_millis(50);
    Client::start(config).unwrap()
}

/// Ends a client that has nothing open.
async fn close(client: Client) {
    let closed = client.close(PATIENCE).await;
    assert!(closed.said_goodbye && closed.unanswered.is_empty(), "{closed:?}");
}

fn done(lease: u64, runs: u32) -> WireRequest {
    WireRequest::Done { lease, runs }
}

fn a_report_counts_once_however_the_server_dies() {
    block_on(async {
        for point in [BEFORE, AFTER] {
            let specs = [counted("counted", 1, 10), numbered("numbered", 1, 10)];
            for (campaign, expected) in [("counted", (5, 0, 0)), ("numbered", (2, 0, 0))] {
                let mut site = doomed(&format!("{point}:requests"), &specs).await;
                let client = client(&site, campaign, 1);
                let lease = patiently("a lease", client.next_lease()).await.unwrap();
                client.set_want(Want { leases: 0, runs: 2, campaigns: vec![campaign.to_owned()] });
                // A counted report may say more than was lent.
                let answer = lease.report(Outcome::Done { runs: expected.0 });
                site.died().await;
                site.start().await;
                assert_eq!(patiently("the answer", answer).await, Verdict::Counted);
                let control = site.control();
                assert_eq!(counts(&control, campaign).await, [expected], "{campaign}, {point}");
                let fate = control.fate(client.session(), 1).await.unwrap();
                assert!(matches!(fate, RequestFate::Counted | RequestFate::Confirmed), "{fate:?}");
                close(client).await;
                assert_eq!(counts(&control, campaign).await, [expected], "{campaign}, {point}");
            }
        }
    });
}

fn a_report_means_the_same_each_time_it_is_sent() {
    block_on(async {
        for (point, known) in [(BEFORE, 0), (AFTER, 3)] {
            let mut site = doomed(&format!("{point}:requests"), &[counted("c", 1, 100)]).await;
            let mut session = Session::new(1);
            let (mut peer, _) = session.connect(&site).await;
            peer.want(4, 1).await;
            let leases: Vec<u64> = peer.grants().await.0.iter().map(|grant| grant.lease).collect();
            peer.want(0, 1).await;
            let three = [done(leases[0], 1), done(leases[1], 2), done(leases[2], 4)];
            peer.requests(1, 0, &three).await;
            peer.assert_ends().await;
            site.died().await;
            site.start().await;

            // Before anything is said again the server knows all three, or none.
            let control = site.control();
            let expected = if known == 3 { (7, 0, 1) } else { (0, 0, 4) };
            assert_eq!(counts(&control, "c").await, [expected]);
            let (mut peer, welcome) = session.connect(&site).await;
            assert_eq!((welcome.resumed, welcome.through, welcome.leases), (true, known, 4 - known as u32));
            let (grants, resent) = peer.grants().await;
            assert_eq!((grants.len(), resent), (4 - known as usize, true));

            // The same three again, and one more behind them.
            let four = [three.as_slice(), &[done(leases[3], 8)]].concat();
            peer.requests(1, 0, &four).await;
            assert_eq!(peer.answers().await, (4, vec![]));
            assert_eq!(counts(&control, "c").await, [(15, 0, 0)]);

            // And again, on the same connection and on another one, from the first or from the middle.
            peer.requests(1, 0, &four).await;
            assert_eq!(peer.answers().await, (4, vec![]));
            site.kill();
            site.start().await;
            let (mut peer, welcome) = session.connect(&site).await;
            assert_eq!((welcome.resumed, welcome.through, welcome.leases), (true, 4, 0));
            peer.requests(3, 0, &four[2..]).await;
            assert_eq!(peer.answers().await, (4, vec![]));
            assert_eq!(counts(&site.control(), "c").await, [(15, 0, 0)]);
        }
    });
}

/// Removes a campaign under a running lease.
async fn remove(control: &Control, campaign: &str) {
    control.pause(campaign).await.unwrap();
    control.remove(campaign).await.unwrap();
}

fn a_refused_report_stays_refused_for_its_reason() {
    block_on(async {
        for point in [BEFORE, AFTER] {
            let mut site = doomed(&format!("{point}:refusal"), &[counted("c", 1, 10)]).await;
            let client = client(&site, "c", 1);
            let lease = patiently("a lease", client.next_lease()).await.unwrap();
            remove(&site.control(), "c").await;
            assert_eq!(patiently("the loss", lease.lost()).await, LossReason::Gone);
            let answer = lease.done();
            site.died().await;
            site.start().await;
            // What is not remembered is decided again; but then the lease has ended, which is another reason.
            let verdict = patiently("the answer", answer).await;
            assert_eq!(verdict, Verdict::Refused(RefusalReason::Gone), "{point}");
            close(client).await;
        }
    });
}

fn a_refusal_is_repeated_word_for_word() {
    block_on(async {
        let mut site = doomed(&format!("{AFTER}:refusal"), &[counted("gone", 1, 10), counted("c", 1, 10)]).await;
        let mut session = Session::new(1);
        let (mut peer, _) = session.connect(&site).await;
        peer.want(4, 1).await;
        let (grants, _) = peer.grants().await;
        peer.want(0, 1).await;
        let of = |campaign| grants.iter().filter(move |grant| grant.campaign == campaign).map(|grant| grant.lease);
        let (gone, kept): (Vec<u64>, Vec<u64>) = (of(1).collect(), of(2).collect());
        assert_eq!((gone.len(), kept.len()), (2, 2));
        remove(&site.control(), "gone").await;
        let mut lost = 0;
        while lost < 2 {
            lost += peer.losses().await.len();
        }
        // Counted, gone, gone, no such runs, no such lease, ended by the report that could not be.
        let nothing = WireRequest::Mixed { lease: kept[1], done: 0, failed: 0, error: String::new() };
        let requests =
            [done(kept[0], 1), done(gone[0], 1), done(gone[1], 1), nothing, done(123 << 32, 1), done(kept[1], 2)];
        peer.requests(1, 0, &requests).await;
        peer.assert_ends().await;
        site.died().await;
        site.start().await;

        let refusal = |from, to, reason| WireRefusal { from, to, reason };
        let refusals = vec![
            refusal(2, 3, WireReason::Gone),
            refusal(4, 4, WireReason::BadRuns),
            refusal(5, 5, WireReason::NotHeld),
            refusal(6, 6, WireReason::Ended),
        ];
        let (mut peer, welcome) = session.connect(&site).await;
        assert_eq!((welcome.through, &welcome.refusals), (6, &refusals));
        peer.requests(1, 0, &requests).await;
        assert_eq!(peer.answers().await, (6, refusals.clone()));
        peer.requests(4, 0, &requests[3..]).await;
        assert_eq!(peer.answers().await, (6, refusals));
        let control = site.control();
        assert_eq!(counts(&control, "c").await, [(1, 0, 0)]);
        let gone = RequestFate::Refused(RefusalReason::Gone);
        let ended = RequestFate::Refused(RefusalReason::Ended);
        let (counted, not_received) = (RequestFate::Counted, RequestFate::NotReceived);
        for (number, expected) in [(1, counted), (2, gone), (3, gone), (6, ended), (7, not_received)] {
            assert_eq!(control.fate(session.id(), number).await.unwrap(), expected, "request {number}");
        }
    });
}

fn a_release_happens_once_however_the_server_dies() {
    block_on(async {
        for point in [BEFORE, AFTER] {
            let mut site = doomed(&format!("{point}:release"), &[numbered("c", 1, 2)]).await;
            let releasing = client(&site, "c", 1);
            let lease = patiently("a lease", releasing.next_lease()).await.unwrap();
            releasing.set_want(Want::default());
            let answer = lease.release();
            site.died().await;
            site.start().await;
            assert_eq!(patiently("the answer", answer).await, Verdict::Counted, "{point}");
            let other = client(&site, "c", 1);
            let lease = patiently("the lease that was given back", other.next_lease()).await.unwrap();
            assert_eq!((lease.first_run(), lease.runs()), (0, 2));
            assert_eq!(patiently("the answer", lease.done()).await, Verdict::Counted);
            assert_eq!(counts(&site.control(), "c").await, [(2, 0, 0)]);
            close(releasing).await;
            close(other).await;
        }
    });
}

fn a_release_does_not_touch_the_next_lease() {
    block_on(async {
        let mut site = doomed(&format!("{AFTER}:release"), &[numbered("c", 1, 1)]).await;
        let (mut first, mut second) = (Session::new(1), Session::new(2));
        let (mut peer, _) = first.connect(&site).await;
        peer.want(1, 1).await;
        let released = peer.grants().await.0[0].lease;
        let release = [WireRequest::Release { lease: released }];
        peer.requests(1, 0, &release).await;
        peer.assert_ends().await;
        site.died().await;
        site.start().await;

        let control = site.control();
        assert_eq!(counts(&control, "c").await, [(0, 0, 0)], "it was given back");
        let (mut other, _) = second.connect(&site).await;
        other.want(1, 1).await;
        let lent = other.grants().await.0[0].lease;
        assert_ne!(lent, released, "an id is never used twice");
        let (mut peer, welcome) = first.connect(&site).await;
        assert_eq!((welcome.through, welcome.leases), (1, 0));
        peer.requests(1, 0, &release).await;
        assert_eq!(peer.answers().await, (1, vec![]), "the release is not refused because it came before");
        assert_eq!(counts(&control, "c").await, [(0, 0, 1)], "the other's lease stands");
        other.requests(1, 0, &[done(lent, 1)]).await;
        assert_eq!(other.answers().await, (1, vec![]));
        assert_eq!(counts(&control, "c").await, [(1, 0, 0)]);
    });
}

fn a_grant_that_never_arrived_is_found() {
    block_on(async {
        for point in [BEFORE, AFTER] {
            let mut site = doomed(&format!("{point}:grant"), &[numbered("c", 3, 2)]).await;
            let client = client(&site, "c", 2);
            site.died().await;
            site.start().await;
            let first = patiently("a lease", client.next_lease()).await.unwrap();
            let second = patiently("a lease", client.next_lease()).await.unwrap();
            let runs = |task| (task, 0, 2);
            let lent = [&first, &second].map(|lease| (lease.task(), lease.first_run(), lease.runs()));
            assert_eq!(lent, [runs(0), runs(1)], "{point}");
            assert_eq!(counts(&site.control(), "c").await, [(0, 0, 2), (0, 0, 2), (0, 0, 0)], "{point}: none is stuck");
            client.set_want(Want::default());
            for lease in [first, second] {
                assert_eq!(patiently("the answer", lease.done()).await, Verdict::Counted);
            }
            assert_eq!(counts(&site.control(), "c").await, [(2, 0, 0), (2, 0, 0), (0, 0, 0)]);
            close(client).await;
        }
    });
}

fn a_grant_that_never_arrived_is_known_and_sent_again() {
    block_on(async {
        for point in [BEFORE, AFTER] {
            let mut site = doomed(&format!("{point}:grant"), &[numbered("c", 1, 5)]).await;
            let mut session = Session::new(1);
            let (mut peer, welcome) = session.connect(&site).await;
            assert!(!welcome.resumed);
            peer.want(1, 3).await;
            peer.assert_ends().await;
            site.died().await;
            site.start().await;
            let control = site.control();
            if point == BEFORE {
                assert_eq!(counts(&control, "c").await, [(0, 0, 0)]);
                session.assert_unknown(&site).await;
                continue;
            }
            assert_eq!(counts(&control, "c").await, [(0, 0, 3)], "the lease is known before anybody asks for it");
            for _ in 0..2 {
                let (mut peer, welcome) = session.connect(&site).await;
                assert_eq!((welcome.resumed, welcome.through, welcome.leases), (true, 0, 1));
                let (grants, resent) = peer.grants().await;
                assert_eq!((grants[0].first_run, grants[0].runs, resent), (0, 3, true));
            }
            let (mut peer, _) = session.connect(&site).await;
            let lease = peer.grants().await.0[0].lease;
            peer.requests(1, 0, &[done(lease, 3)]).await;
            assert_eq!(peer.answers().await, (1, vec![]));
            assert_eq!(counts(&control, "c").await, [(3, 0, 0)]);
        }
    });
}

fn a_creation_happens_once_however_the_server_dies() {
    let range = counted("c", 5, 1);
    let keyed = CampaignSpec { tasks: Tasks::Keys { count: 3 }, ..counted("k", 3, 1) };
    let keys: Vec<String> = ["one", "two", "three"].map(str::to_owned).to_vec();
    block_on(async {
        // Keys are sent between two commits that matter: the beginning, and the seal.
        for (spec, keys, fault) in [
            (&range, &[][..], format!("{BEFORE}:create")),
            (&range, &[][..], format!("{AFTER}:create")),
            (&keyed, &keys[..], format!("{BEFORE}:create")),
            (&keyed, &keys[..], format!("{AFTER}:create")),
            (&keyed, &keys[..], format!("{BEFORE}:create@2")),
            (&keyed, &keys[..], format!("{AFTER}:create@2")),
        ] {
            let mut site = doomed(&fault, &[]).await;
            let control = site.control();
            let creation = CreationId([9; 16]);
            let restart = async {
                site.died().await;
                site.start().await;
            };
            let (created, ()) = tokio::join!(control.create(creation, spec, keys), restart);
            let created = created.unwrap_or_else(|failure| panic!("{fault}: {failure}"));
            assert!(!created.existed, "{fault}: it did not exist before this call");

            let check = async |site: &Site| {
                let control = site.control();
                let all = control.status(None).await.unwrap();
                let ids: Vec<_> = all.iter().map(|campaign| (campaign.id, campaign.state)).collect();
                assert_eq!(ids, [(created.campaign, CampaignState::Running)], "{fault}");
                let page = control.counts_page(&spec.name, 0).await.unwrap();
                let found: Vec<String> = page.tasks.into_iter().filter_map(|(key, _)| key).collect();
                assert_eq!(found, keys, "{fault}");
            };
            check(&site).await;
            for _ in 0..2 {
                let again = site.control().create(creation, spec, keys).await.unwrap();
                assert_eq!((again.campaign, again.existed), (created.campaign, true), "{fault}");
                site.kill();
                site.start().await;
            }
            let another = control.create(CreationId([8; 16]), spec, keys).await.unwrap_err();
            assert!(matches!(another, ControlFailure::Failed { code: WireFailure::Exists, .. }), "{another}");
            check(&site).await;
        }
    });
}

fn a_goodbye_is_not_taken_back() {
    block_on(async {
        let mut site = doomed(&format!("{AFTER}:goodbye"), &[counted("c", 1, 3)]).await;
        let mut session = Session::new(1);
        let (mut peer, _) = session.connect(&site).await;
        peer.want(2, 1).await;
        assert_eq!(peer.grants().await.0.len(), 2);
        peer.send(&ClientMessage::Goodbye).await;
        peer.assert_ends().await;
        site.died().await;
        site.start().await;
        assert_eq!(counts(&site.control(), "c").await, [(0, 0, 0)], "its leases went back");
        session.assert_unknown(&site).await;
    });
}

fn leases_survive_their_server() {
    block_on(async {
        let mut site = Site::with_server(&[]).await;
        create(&site, &[counted("counted", 4, 2), numbered("numbered", 4, 6)]).await;
        // One holder comes back by itself, one only when asked, and one never.
        let mut quiet = Session::new(1);
        let (mut peer, _) = quiet.connect(&site).await;
        peer.want(2, 1).await;
        let held = peer.grants().await.0;
        let mut dead = Session::new(2);
        let (mut peer, _) = dead.connect(&site).await;
        peer.want(2, 1).await;
        peer.grants().await;
        drop(peer);
        let client = client(&site, "numbered", 2);
        let mut leases = Vec::new();
        for _ in 0..2 {
            leases.push(patiently("a lease", client.next_lease()).await.unwrap());
        }
        let control = site.control();
        let before = [counts(&control, "counted").await, counts(&control, "numbered").await];
        assert_eq!(before[0].iter().chain(&before[1]).map(|count| count.2).sum::<u32>(), 8);
        for _ in 0..3 {
            site.kill();
            site.start().await;
            let after = [counts(&control, "counted").await, counts(&control, "numbered").await];
            assert_eq!(after, before);
        }
        let (mut peer, welcome) = quiet.connect(&site).await;
        assert_eq!((welcome.resumed, welcome.leases), (true, 2));
        let (mut again, resent) = peer.grants().await;
        again.sort_by_key(|grant| grant.lease);
        let mut expected = held;
        expected.sort_by_key(|grant| grant.lease);
        assert_eq!((again, resent), (expected.clone(), true));
        let requests: Vec<_> = expected.iter().map(|grant| done(grant.lease, grant.runs)).collect();
        peer.requests(1, 0, &requests).await;
        assert_eq!(peer.answers().await, (2, vec![]));
        client.set_want(Want::default());
        for lease in leases {
            assert!(!lease.is_lost());
            assert_eq!(patiently("the answer", lease.done()).await, Verdict::Counted);
        }
        let after = [counts(&control, "counted").await, counts(&control, "numbered").await];
        let (done, lent) = after.iter().flatten().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.2));
        assert_eq!((done, lent), (2 + 4, 2), "what is lent still is the dead one's");
        close(client).await;
    });
}

fn a_late_report_counts_after_a_restart() {
    block_on(async {
        for numbered_runs in [false, true] {
            let mut site = Site::with_server(&[]).await;
            let spec = if numbered_runs { numbered("c", 1, 1) } else { counted("c", 1, 1) };
            create(&site, &[CampaignSpec { lease_ms: Some(100), ..spec }]).await;
            let (mut late, mut prompt) = (Session::new(1), Session::new(2));
            let (mut peer, _) = late.connect(&site).await;
            peer.want(1, 1).await;
            let expired = peer.grants().await.0[0].lease;
            // It gives no sign of life.
            let losses = peer.losses().await;
            assert_eq!((losses[0].lease, losses[0].reason), (expired, WireLossReason::Expired));
            site.kill();
            site.start().await;
            let (mut other, _) = prompt.connect(&site).await;
            other.want(1, 1).await;
            let lent = other.grants().await.0[0].lease;
            other.requests(1, 0, &[done(lent, 1)]).await;
            assert_eq!(other.answers().await, (1, vec![]));

            let (mut peer, welcome) = late.connect(&site).await;
            assert_eq!((welcome.resumed, welcome.leases), (true, 0));
            assert_eq!(peer.losses().await, losses, "it is told again");
            for _ in 0..2 {
                peer.requests(1, 0, &[done(expired, 1)]).await;
                assert_eq!(peer.answers().await, (1, vec![]));
                assert_eq!(counts(&site.control(), "c").await, [(1, 1, 0)]);
            }
        }
    });
}

fn orders_survive_their_server() {
    block_on(async {
        let mut site = Site::with_server(&[]).await;
        create(&site, &["p", "r", "c", "g"].map(|name| counted(name, 1, 1))).await;
        let control = site.control();
        control.pause("p").await.unwrap();
        control.pause("r").await.unwrap();
        control.resume("r").await.unwrap();
        control.cancel("c").await.unwrap();
        remove(&control, "g").await;
        site.kill();
        site.start().await;
        let all = control.status(None).await.unwrap();
        let states: Vec<_> = all.iter().map(|campaign| (campaign.spec.name.as_str(), campaign.state)).collect();
        let expected = [("p", CampaignState::Paused), ("r", CampaignState::Running), ("c", CampaignState::Cancelled)];
        assert_eq!(states, expected);
        let gone = control.counts_page("g", 0).await.unwrap_err();
        assert!(matches!(gone, ControlFailure::Failed { code: WireFailure::NotFound, .. }), "{gone}");
        // Orders name a state, so that one whose answer was lost may be given again.
        control.pause("p").await.unwrap();
        control.cancel("c").await.unwrap();
    });
}
