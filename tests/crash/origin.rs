//! Transcripts in the origin's dialect, byte for byte over real sockets, against a real server: however they are cut,
//! copied, mixed and broken off, the counts are exact.
//!
//! ```text
//!   client: {} ──▶ 0 ◀── server            a client works on all answers it got, and reports each once;
//!   client: {0: 2} {0: 2} ──▶ 1, 2         its copies get answers of their own, which are work of their own
//! ```
//!
//! What is to be counted is decided by a model as short as the promise: a report counts if this connection was lent the
//! task and has not reported it since. The server's counts must equal it, task by task.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use libtest_mimic::Trial;
use tenfold::client::Control;
use tenfold::limits;
use tenfold::protocol::origin::{END, START, encode_message};
use tenfold::types::{CampaignSpec, CreationId};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::sleep;

use crate::random::Random;
use crate::raw::{Origin, Session, counted, counts, create};
use crate::server::{Site, block_on, patiently};

/// All is settled.
const SETTLED: i64 = -1;
/// Ask again.
const WAIT: i64 = -2;
/// How long a client pauses after [`WAIT`].
const PAUSE: Duration = Duration::from_millis(5);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial!("origin", a_transcript_is_the_same_however_it_is_cut),
        trial!("origin", a_burst_gets_one_answer_a_message),
        trial!("origin", copies_count_once_at_every_point),
        trial!("origin", many_connections_count_exactly),
        trial!("origin", a_lease_that_expired_on_its_connection_still_counts),
        trial!("origin", a_restart_ends_connections_and_their_leases),
        trial!("origin", a_server_that_dies_between_count_and_answer_has_counted_once),
        trial!("origin", what_was_sent_before_a_reset_counts),
        trial!("origin", what_is_not_the_dialect_counts_nothing),
        trial!("origin", both_dialects_work_on_one_campaign),
    ]
}

/// Units that must be counted, by task; shared by all connections of a test.
type Expected = Rc<RefCell<BTreeMap<u64, u64>>>;

/// A client's connection and what the model knows of it.
struct Peer {
    connection: Origin,
    /// Messages without an answer so far.
    open: VecDeque<Vec<(u64, u64)>>,
    /// Tasks that it was lent and has not reported.
    held: BTreeSet<u64>,
    expected: Expected,
}

impl Peer {
    async fn connect(site: &Site, expected: &Expected) -> Self {
        let connection = Origin::connect(&site.address()).await;
        Self { connection, open: VecDeque::new(), held: BTreeSet::new(), expected: Rc::clone(expected) }
    }

    /// Sends a message so many times, in one write or in several.
    async fn send(&mut self, done: &[(u64, u64)], copies: usize, together: bool) {
        self.open.extend((0..copies).map(|_| done.to_vec()));
        let message = encode_message(done);
        if together {
            self.connection.send(&message.repeat(copies)).await;
        } else {
            for _ in 0..copies {
                self.connection.send(&message).await;
            }
        }
    }

    /// Reads one answer and has the model take it in.
    async fn answer(&mut self) -> i64 {
        let answer = self.connection.answer().await.expect("an answer, not the end");
        let done = self.open.pop_front().expect("an answer to a message");
        for (task, units) in &done {
            if self.held.remove(task) {
                *self.expected.borrow_mut().entry(*task).or_default() += units;
            }
        }
        if let Ok(task) = u64::try_from(answer) {
            assert!(done.iter().all(|(reported, _)| *reported != task), "the answer to {done:?} names {task}");
            self.held.insert(task);
        }
        answer
    }

    async fn ask(&mut self, done: &[(u64, u64)]) -> i64 {
        self.send(done, 1, true).await;
        self.answer().await
    }

    /// Works like the origin's client until all is settled: it holds as many leases as it has answers ahead.
    /// `copies` says how often the message of this number is sent, and whether in one write.
    async fn work(&mut self, mut random: Random, mut copies: impl FnMut(usize) -> (usize, bool)) {
        let mut answers = VecDeque::from([WAIT]);
        for message in 0..10_000 {
            let done = match answers.pop_front() {
                Some(SETTLED) => return,
                Some(WAIT) | None => vec![],
                Some(task) => vec![(u64::try_from(task).unwrap(), random.within(1..=2))],
            };
            let (times, together) = copies(message);
            self.send(&done, times, together).await;
            for _ in 0..times {
                let answer = self.answer().await;
                // One question is enough for all answers that say to wait.
                if answer != WAIT || answers.is_empty() {
                    answers.push_back(answer);
                }
            }
            if answers.iter().all(|answer| *answer == WAIT) && message > 0 {
                sleep(PAUSE).await;
            }
        }
        panic!("it never ends");
    }
}

/// The server's counts are the model's, and all quotas are met, or not.
async fn assert_counts(control: &Control, campaign: &str, expected: &Expected, finished: bool) {
    let status = control.status(Some(campaign)).await.unwrap();
    assert_eq!((status[0].finished, status[0].losses), (finished, 0));
    let page = counts(control, campaign).await;
    let counted: Vec<u64> = page.iter().map(|(done, extra, _)| u64::from(done + extra)).collect();
    let wanted = |task| expected.borrow().get(&task).copied().unwrap_or(0);
    let wanted: Vec<u64> = (0..counted.len() as u64).map(wanted).collect();
    assert_eq!(counted, wanted);
    if finished {
        assert!(page.iter().all(|(done, _, _)| *done == status[0].spec.runs), "{page:?}");
        // A connection that went away is noticed a moment later.
        patiently("all leases to end", async {
            while counts(control, campaign).await.iter().any(|(_, _, leased)| *leased > 0) {
                sleep(PAUSE).await;
            }
        })
        .await;
    }
}

fn expected() -> Expected {
    Expected::default()
}

fn a_transcript_is_the_same_however_it_is_cut() {
    // Two tasks of two units, a client alone. Each message with its answer.
    let transcript: [(&str, i64); 7] = [
        ("{}", 0),
        ("{0: 1}", 1),
        ("{1: 2}", 0),
        ("{1: 2}", WAIT),
        (" {\n0 :\t2 , } ", SETTLED),
        ("{0: 2, 1: 1}", SETTLED),
        ("{}", SETTLED),
    ];
    let message = |text: &str| [START, text.as_bytes(), END].concat();
    let bytes: Vec<u8> = transcript.iter().flat_map(|(text, _)| message(text)).collect();
    block_on(async {
        let site = Site::with_server(&[]).await;
        let control = site.control();
        for (number, piece) in [1, 2, 7, START.len(), 50, bytes.len()].into_iter().enumerate() {
            let creation = CreationId([u8::try_from(number + 1).unwrap(); 16]);
            control.create(creation, &counted("toy", 2, 2), &[]).await.unwrap();
            let mut connection = Origin::connect(&site.address()).await;
            for piece in bytes.chunks(piece) {
                connection.send(piece).await;
            }
            for (text, expected) in transcript {
                assert_eq!(connection.answer().await, Some(expected), "{text:?} in pieces of {piece}");
            }
            assert_eq!(counts(&control, "toy").await, [(2, 1, 0), (2, 0, 0)], "in pieces of {piece}");
            control.remove("toy").await.unwrap();
        }
        // Bytes between messages are skipped.
        control.create(CreationId([99; 16]), &counted("toy", 2, 2), &[]).await.unwrap();
        let mut connection = Origin::connect(&site.address()).await;
        for (text, expected) in transcript {
            connection.send(&[&message(text), b"\r\nsome noise }".as_slice()].concat()).await;
            assert_eq!(connection.answer().await, Some(expected), "{text:?} with noise");
        }
        assert_eq!(counts(&control, "toy").await, [(2, 1, 0), (2, 0, 0)]);
    });
}

fn a_burst_gets_one_answer_a_message() {
    block_on(async {
        let site = Site::with_server(&[]).await;
        create(&site, &[counted("toy", 40, 3)]).await;
        let expected = expected();
        let mut peer = Peer::connect(&site, &expected).await;
        // Each answer is a lease of its own, until nothing is left that this connection may be lent.
        peer.send(&[], 500, true).await;
        let mut answers = Vec::new();
        for _ in 0..500 {
            answers.push(peer.answer().await);
        }
        let wanted: Vec<i64> = (0..40).chain([WAIT; 460]).collect();
        assert_eq!(answers, wanted);
        // All forty reports in one write, each three times: two thirds of them are copies.
        let message = |task: u64| encode_message(&[(task, 2)]).repeat(3);
        let bytes: Vec<u8> = (0..40).flat_map(message).collect();
        peer.open.extend((0..40).flat_map(|task| vec![vec![(task, 2)]; 3]));
        peer.connection.send(&bytes).await;
        for _ in 0..120 {
            peer.answer().await;
        }
        assert_eq!(expected.borrow().values().sum::<u64>(), 80, "the copies met no lease");
        assert_counts(&site.control(), "toy", &expected, false).await;
        // One message for many tasks.
        let held: Vec<(u64, u64)> = peer.held.iter().map(|task| (*task, 1)).collect();
        assert!(held.len() > 1);
        peer.send(&held, 3, true).await;
        for _ in 0..3 {
            peer.answer().await;
        }
        assert_counts(&site.control(), "toy", &expected, false).await;
    });
}

fn copies_count_once_at_every_point() {
    block_on(async {
        let site = Site::with_server(&[]).await;
        let control = site.control();
        let mut creations = Random::new(1);
        // At each point alone, then at all of them.
        for point in (0..9).map(Some).chain([None]) {
            for (copies, together) in [(1, true), (2, true), (2, false), (3, true), (3, false)] {
                control.create(CreationId(creations.id()), &counted("toy", 3, 3), &[]).await.unwrap();
                let expected = expected();
                let mut peer = Peer::connect(&site, &expected).await;
                let times = |message| if point.is_none_or(|point| point == message) { copies } else { 1 };
                peer.work(Random::new(7), |message| (times(message), together)).await;
                assert_counts(&control, "toy", &expected, true).await;
                control.remove("toy").await.unwrap();
            }
        }
    });
}

fn many_connections_count_exactly() {
    block_on(async {
        let site = Site::with_server(&[]).await;
        // Leases so short that some expire while their connection is busy with another answer.
        create(&site, &[CampaignSpec { lease_ms: Some(limits::LEASE_MS_MIN), ..counted("toy", 30, 10) }]).await;
        let site = Rc::new(site);
        let expected = expected();
        let local = LocalSet::new();
        let clients = async {
            let mut clients = JoinSet::new();
            for seed in 0..8 {
                let (site, expected) = (Rc::clone(&site), Rc::clone(&expected));
                clients.spawn_local(async move {
                    let mut random = Random::new(seed);
                    // Some come and go: what they held is given to others when their connection ends.
                    for _ in 0..random.within(0..=3) {
                        let mut peer = Peer::connect(&site, &expected).await;
                        for _ in 0..random.within(1..=5) {
                            let held = peer.held.first().map(|task| vec![(*task, 1)]).unwrap_or_default();
                            peer.ask(&held).await;
                        }
                    }
                    let mut peer = Peer::connect(&site, &expected).await;
                    let worked = Random::new(random.number());
                    let copies =
                        |_| (if random.percent(70) { 1 } else { random.within(2..=3) as usize }, random.percent(50));
                    peer.work(worked, copies).await;
                });
            }
            while let Some(ended) = clients.join_next().await {
                ended.unwrap();
            }
        };
        local.run_until(patiently("all clients to finish", clients)).await;
        assert_counts(&site.control(), "toy", &expected, true).await;
    });
}

fn a_lease_that_expired_on_its_connection_still_counts() {
    block_on(async {
        let site = Site::with_server(&[]).await;
        create(&site, &[CampaignSpec { lease_ms: Some(limits::LEASE_MS_MIN), ..counted("toy", 1, 2) }]).await;
        let expected = expected();
        let mut slow = Peer::connect(&site, &expected).await;
        assert_eq!(slow.ask(&[]).await, 0);
        let mut prompt = Peer::connect(&site, &expected).await;
        assert_eq!(prompt.ask(&[]).await, 0);
        assert_eq!(prompt.ask(&[(0, 1)]).await, WAIT);
        // The slow one's lease expires while it is silent: then the task is given to the other.
        while prompt.ask(&[]).await != 0 {
            sleep(PAUSE).await;
        }
        slow.send(&[(0, 1)], 3, true).await;
        assert_eq!([slow.answer().await, slow.answer().await, slow.answer().await], [SETTLED; 3]);
        assert_eq!(prompt.ask(&[(0, 1)]).await, SETTLED);
        assert_eq!(counts(&site.control(), "toy").await, [(2, 1, 0)]);
        assert_counts(&site.control(), "toy", &expected, true).await;
    });
}

fn a_restart_ends_connections_and_their_leases() {
    block_on(async {
        let mut site = Site::with_server(&[]).await;
        create(&site, &[counted("toy", 3, 2)]).await;
        let expected = expected();
        let mut before = Peer::connect(&site, &expected).await;
        assert_eq!((before.ask(&[]).await, before.ask(&[]).await), (0, 1));
        assert_eq!(before.ask(&[(0, 1)]).await, 2);
        assert_eq!(counts(&site.control(), "toy").await, [(1, 0, 0), (0, 0, 1), (0, 0, 1)]);
        site.kill();
        assert_eq!(before.connection.answer().await, None);
        site.start().await;
        // No report can follow on a connection that is gone, so its leases are gone, too; its counts stay.
        assert_eq!(counts(&site.control(), "toy").await, [(1, 0, 0), (0, 0, 0), (0, 0, 0)]);
        let mut after = Peer::connect(&site, &expected).await;
        assert_eq!(after.ask(&[(0, 1), (1, 1), (2, 1)]).await, WAIT, "nothing of it was lent to this connection");
        assert_counts(&site.control(), "toy", &expected, false).await;
        after.work(Random::new(3), |_| (2, true)).await;
        assert_counts(&site.control(), "toy", &expected, true).await;
        site.kill();
        site.start().await;
        assert_counts(&site.control(), "toy", &expected, true).await;
        assert_eq!(Peer::connect(&site, &expected).await.ask(&[]).await, SETTLED);
    });
}

fn a_server_that_dies_between_count_and_answer_has_counted_once() {
    block_on(async {
        for (point, counted_units) in [("before-commit", 0), ("after-commit-before-answer", 1)] {
            let mut site = Site::with_server(&[]).await;
            create(&site, &[counted("toy", 1, 2)]).await;
            site.kill();
            // The first commit of the dialect is the lease, the second is the report.
            site.start_with_fault(&format!("{point}:origin@2")).await;
            let expected = expected();
            let mut peer = Peer::connect(&site, &expected).await;
            assert_eq!(peer.ask(&[]).await, 0);
            peer.send(&[(0, 1)], 1, true).await;
            assert_eq!(peer.connection.answer().await, None);
            site.died().await;
            site.start().await;
            assert_eq!(counts(&site.control(), "toy").await, [(counted_units, 0, 0)], "{point}");
            // A copy on another connection is nothing to that connection, be it counted before or not.
            let mut peer = Peer::connect(&site, &expected).await;
            assert_eq!(peer.ask(&[(0, 1)]).await, WAIT);
            assert_eq!(counts(&site.control(), "toy").await, [(counted_units, 0, 0)], "{point}");
            *expected.borrow_mut() = BTreeMap::from([(0, u64::from(counted_units))]);
            peer.work(Random::new(1), |_| (1, true)).await;
            assert_counts(&site.control(), "toy", &expected, true).await;
        }
    });
}

fn what_was_sent_before_a_reset_counts() {
    block_on(async {
        let site = Site::with_server(&[]).await;
        create(&site, &[counted("toy", 8, 1)]).await;
        let control = site.control();
        for task in 0..8_u32 {
            let expected = expected();
            let mut peer = Peer::connect(&site, &expected).await;
            assert_eq!(peer.ask(&[]).await, i64::from(task));
            // Then it closes with answers unread: the server sees a reset while it still has much to read.
            let bytes = [encode_message(&[]).repeat(200), encode_message(&[(u64::from(task), 1)])].concat();
            peer.connection.send(&bytes).await;
            peer.connection.reset().await;
            patiently("the report to be counted, and the leases to end", async {
                let done = |index| u32::from(index <= task);
                let wanted: Vec<_> = (0..8).map(|index| (done(index), 0, 0)).collect();
                while counts(&control, "toy").await != wanted {
                    sleep(PAUSE).await;
                }
            })
            .await;
        }
    });
}

fn what_is_not_the_dialect_counts_nothing() {
    let message = |text: &str| [START, text.as_bytes(), END].concat();
    let too_long = [START, &vec![b' '; limits::ORIGIN_MESSAGE_BYTES_MAX]].concat();
    let bad = [
        message("{0: 0}"),
        message("{0: -1}"),
        message("{0: 1001}"),
        message("{0: 1, 1: 1001}"),
        message("{0: 1, 9: 1}"),
        message("{0: 1, -1: 1}"),
        message("{0: 1.0}"),
        message("{'0': 1}"),
        message("{0: 1"),
        message("[0, 1]"),
        message("exit()"),
        message(""),
        too_long,
    ];
    block_on(async {
        let site = Site::with_server(&[]).await;
        create(&site, &[counted("toy", 2, 1)]).await;
        for bytes in bad {
            let expected = expected();
            let mut peer = Peer::connect(&site, &expected).await;
            // The lease of the connection before has ended with it.
            let lent = async {
                while peer.ask(&[]).await != 0 {
                    peer = Peer::connect(&site, &expected).await;
                    sleep(PAUSE).await;
                }
            };
            patiently("the lease of the connection before to end", lent).await;
            // What comes behind it is not heard any more.
            let bytes = [bytes, message("{0: 1}")].concat();
            peer.connection.send(&bytes).await;
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
            assert_eq!(peer.connection.answer().await, None, "{shown}");
            let page = counts(&site.control(), "toy").await;
            assert!(page.iter().all(|(done, extra, _)| done + extra == 0), "{shown}: {page:?}");
        }
    });
}

fn both_dialects_work_on_one_campaign() {
    block_on(async {
        let mut site = Site::with_server(&[]).await;
        create(&site, &[counted("toy", 2, 2)]).await;
        let expected = expected();
        let mut session = Session::new(1);
        let (mut native, _) = session.connect(&site).await;
        native.want(1, 1).await;
        let lease = native.grants().await.0[0].lease;
        let mut peer = Peer::connect(&site, &expected).await;
        assert_eq!((peer.ask(&[]).await, peer.ask(&[(0, 1)]).await), (0, 1));
        site.kill();
        site.start().await;
        // The native session's lease has survived, the connection's has not.
        assert_eq!(counts(&site.control(), "toy").await, [(1, 0, 1), (0, 0, 0)]);
        let mut peer = Peer::connect(&site, &expected).await;
        assert_eq!((peer.ask(&[]).await, peer.ask(&[(1, 2)]).await), (1, WAIT));
        let (mut native, welcome) = session.connect(&site).await;
        assert_eq!(welcome.leases, 1);
        assert_eq!(native.grants().await.0[0].lease, lease);
        let done = tenfold::protocol::messages::WireRequest::Done { lease, runs: 1 };
        native.requests(1, 0, &[done]).await;
        assert_eq!(native.answers().await, (1, vec![]));
        assert_eq!(peer.ask(&[]).await, SETTLED);
        *expected.borrow_mut().entry(0).or_default() += 1;
        assert_counts(&site.control(), "toy", &expected, true).await;
    });
}
