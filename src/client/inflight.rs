//! What a session has in flight: the leases it holds, and its numbered requests that are not answered yet. Pure.
//!
//! ```text
//!            grant                take               queue                  answer
//!  (server) ───────▶ ready ────────────▶ handed out ────────▶ unanswered ──────────▶ counted | refused
//!                      │                     │                    │ ▲
//!                      └── lost: vanishes    └── lost: told       └─┘ resent after every reconnect
//! ```
//!
//! ```text
//!  Offline ── greet ──▶ Greeting ── welcomed ──▶ Resuming ── all leases came again ──▶ Live
//!     ▲                    │                         │                                  │
//!     │             forget │                         │                                  │
//!     └────────────────────┴─────── disconnected ────┴──────────────────────────────────┘
//! ```
//!
//! **Invariants.** The unanswered requests carry the numbers `confirmed + 1 ..` without gaps, in the order they were
//! queued, and keep them over any number of connections. A lease is in exactly one place. A request is given to
//! [`Inflight::next_batch`] only when live, and once per connection. The server's word on a number is believed once.
//! There are at most as many unanswered requests as leases were granted, since a request ends its lease.
//!
//! Leases and waiters are opaque (`L`, `W`): what a lease looks like and who waits for an answer is decided by
//! `shared`. Tested here.

use std::collections::{HashMap, HashSet, VecDeque};

use super::Verdict;
use crate::types::{InstanceId, LeaseId, LossReason, Refusal, Request, SessionId};

/// The server said what cannot be; the connection is to be dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Breach {
    /// An answer to a request that was not sent on this connection.
    #[error("the server answered request {through}, but only {sent} were sent")]
    AnswerToNothing {
        /// What it answered.
        through: u64,
        /// The highest number that was sent.
        sent: u64,
    },
    /// A message that does not fit here.
    #[error("the server sent {what} where it does not belong")]
    OutOfPlace {
        /// What it sent.
        what: &'static str,
    },
    /// The server's memory of the session does not go together with ours, so it is not our session: it must be given up.
    #[error("the server has processed requests through {through}, but {confirmed} are answered and {queued} were made")]
    ForeignSession {
        /// The highest number it has processed.
        through: u64,
        /// The highest number whose answer was read.
        confirmed: u64,
        /// The highest number there is.
        queued: u64,
    },
}

/// A request ended like this: for whoever waits.
pub(crate) type Resolved<W> = Vec<(W, Verdict)>;

/// What grants brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Granted<L> {
    /// Leases that are now ready to be taken.
    pub(crate) fresh: usize,
    /// Leases in the caller's hands that turned out to be lost while there was no connection.
    pub(crate) lost: Vec<L>,
}

/// What is left of a session that the server does not know.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Forgotten<L, W> {
    /// Who waits for answers that will never come.
    pub(crate) waiters: Vec<W>,
    /// Leases in the caller's hands, none of which is worth anything now.
    pub(crate) lost: Vec<L>,
}

#[derive(Debug)]
struct Held<L> {
    lease: L,
    handed_out: bool,
    lost: Option<LossReason>,
}

#[derive(Debug)]
struct Unanswered<W> {
    request: Request,
    waiter: W,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Offline,
    Greeting,
    Resuming { missing: u32, seen: HashSet<LeaseId> },
    Live,
}

/// A session as the client knows it.
#[derive(Debug)]
pub(crate) struct Inflight<L, W> {
    session: SessionId,
    /// Where the session is known; none until a server said so.
    instance: InstanceId,
    /// Connections so far.
    attempt: u64,
    phase: Phase,
    /// The highest number whose answer was read.
    confirmed: u64,
    /// Numbers `confirmed + 1 ..`.
    unanswered: VecDeque<Unanswered<W>>,
    /// How many of them were sent on this connection.
    sent: usize,
    /// Leases that `unanswered` is about.
    ending: HashSet<LeaseId>,
    held: HashMap<LeaseId, Held<L>>,
    /// How many of `held` are not lost.
    healthy: u32,
    /// Those of `held` that are not handed out, in order.
    ready: VecDeque<LeaseId>,
}

impl<L: Clone, W> Inflight<L, W> {
    pub(crate) fn new(session: SessionId) -> Self {
        Self {
            session,
            instance: InstanceId::NONE,
            attempt: 0,
            phase: Phase::Offline,
            confirmed: 0,
            unanswered: VecDeque::new(),
            sent: 0,
            ending: HashSet::new(),
            held: HashMap::new(),
            healthy: 0,
            ready: VecDeque::new(),
        }
    }

    pub(crate) fn session(&self) -> SessionId {
        self.session
    }

    pub(crate) fn instance(&self) -> InstanceId {
        self.instance
    }

    pub(crate) fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// The number that the next request will get.
    pub(crate) fn next_number(&self) -> u64 {
        self.confirmed + self.unanswered.len() as u64 + 1
    }

    /// Leases that are held and not lost, whether handed out or not.
    pub(crate) fn healthy(&self) -> u32 {
        self.healthy
    }

    pub(crate) fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// The numbers of the unanswered requests.
    pub(crate) fn unanswered_numbers(&self) -> std::ops::Range<u64> {
        self.confirmed + 1..self.next_number()
    }

    pub(crate) fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// A connection stands and is about to be introduced: its attempt number.
    pub(crate) fn greet(&mut self) -> u64 {
        self.phase = Phase::Greeting;
        self.sent = 0;
        self.attempt += 1;
        self.attempt
    }

    /// The connection is gone; everything unanswered will be sent again.
    pub(crate) fn disconnected(&mut self) {
        self.phase = Phase::Offline;
    }

    /// The server knows the session, has processed everything up to `through`, and sends `leases` live leases again.
    pub(crate) fn welcomed(
        &mut self,
        instance: InstanceId,
        through: u64,
        refusals: &[Refusal],
        leases: u32,
    ) -> Result<(Resolved<W>, Granted<L>), Breach> {
        if self.phase != Phase::Greeting {
            return Err(Breach::OutOfPlace { what: "a welcome" });
        }
        let queued = self.next_number() - 1;
        if through < self.confirmed || through > queued {
            return Err(Breach::ForeignSession { through, confirmed: self.confirmed, queued });
        }
        self.instance = instance;
        let resolved = self.resolve(through, refusals);
        self.phase = Phase::Resuming { missing: leases, seen: HashSet::new() };
        Ok((resolved, Granted { fresh: 0, lost: self.finish_resuming() }))
    }

    /// The server does not know the session: nothing of it will ever be answered, and a new one begins, which has to be
    /// introduced on the same connection.
    pub(crate) fn forget(&mut self, successor: SessionId) -> Forgotten<L, W> {
        let waiters = self.unanswered.drain(..).map(|unanswered| unanswered.waiter).collect();
        let lost = self.held.drain().filter(|(_, held)| held.handed_out && held.lost.is_none());
        let forgotten = Forgotten { waiters, lost: lost.map(|(_, held)| held.lease).collect() };
        *self = Self { attempt: self.attempt, ..Self::new(successor) };
        forgotten
    }

    /// Runs were lent, or are lent still.
    pub(crate) fn granted(
        &mut self,
        grants: impl IntoIterator<Item = (LeaseId, L)>,
        resent: bool,
    ) -> Result<Granted<L>, Breach> {
        if matches!(self.phase, Phase::Offline | Phase::Greeting) {
            return Err(Breach::OutOfPlace { what: "grants" });
        }
        let mut fresh = 0;
        for (id, lease) in grants {
            if resent {
                self.saw_again(id)?;
            } else if let Phase::Resuming { seen, .. } = &mut self.phase {
                seen.insert(id);
            }
            // Its end was queued already and will reach the server, or it was never away.
            if self.ending.contains(&id) || self.held.contains_key(&id) {
                continue;
            }
            self.held.insert(id, Held { lease, handed_out: false, lost: None });
            self.healthy += 1;
            self.ready.push_back(id);
            fresh += 1;
        }
        Ok(Granted { fresh, lost: self.finish_resuming() })
    }

    fn saw_again(&mut self, lease: LeaseId) -> Result<(), Breach> {
        match &mut self.phase {
            Phase::Resuming { missing, seen } if *missing > 0 => {
                *missing -= 1;
                seen.insert(lease);
                Ok(())
            }
            Phase::Offline | Phase::Greeting | Phase::Resuming { .. } | Phase::Live => {
                Err(Breach::OutOfPlace { what: "more leases again than it announced" })
            }
        }
    }

    /// Once all live leases came again, what did not come is lost.
    fn finish_resuming(&mut self) -> Vec<L> {
        let Phase::Resuming { missing: 0, seen } = &mut self.phase else { return Vec::new() };
        let seen = std::mem::take(seen);
        self.phase = Phase::Live;
        let unseen: Vec<LeaseId> = self.held.keys().filter(|lease| !seen.contains(lease)).copied().collect();
        let told = unseen.into_iter().filter_map(|lease| self.mark_lost(lease, LossReason::Expired)).collect();
        self.held.retain(|_, held| held.handed_out || held.lost.is_none());
        told
    }

    /// A lease is no longer worth working on. Returns it if it is in the caller's hands and was healthy so far; if nobody
    /// has taken it, it vanishes.
    pub(crate) fn lost(&mut self, lease: LeaseId, reason: LossReason, waiter: W) -> Option<L> {
        let told = self.mark_lost(lease, reason);
        if self.held.get(&lease).is_some_and(|held| !held.handed_out) {
            self.abandon(lease, waiter);
        }
        told
    }

    fn mark_lost(&mut self, lease: LeaseId, reason: LossReason) -> Option<L> {
        let held = self.held.get_mut(&lease).filter(|held| held.lost.is_none())?;
        held.lost = Some(reason);
        self.healthy -= 1;
        if held.handed_out {
            return Some(held.lease.clone());
        }
        self.ready.retain(|ready| *ready != lease);
        None
    }

    /// Hands out the oldest ready lease.
    pub(crate) fn take(&mut self) -> Option<L> {
        let held = self.held.get_mut(&self.ready.pop_front()?)?;
        held.handed_out = true;
        Some(held.lease.clone())
    }

    /// Queues the request that ends a lease; its number.
    ///
    /// # Errors
    /// The lease is not held: the waiter comes back.
    pub(crate) fn queue(&mut self, lease: LeaseId, request: Request, waiter: W) -> Result<u64, W> {
        let Some(held) = self.held.remove(&lease) else { return Err(waiter) };
        self.healthy -= u32::from(held.lost.is_none());
        if !held.handed_out {
            self.ready.retain(|ready| *ready != lease);
        }
        self.ending.insert(lease);
        let number = self.next_number();
        self.unanswered.push_back(Unanswered { request, waiter });
        Ok(number)
    }

    /// The caller let go of a lease without a word: it is released, unless it has ended on the server already. Whether
    /// something was queued.
    pub(crate) fn abandon(&mut self, lease: LeaseId, waiter: W) -> bool {
        let Some(held) = self.held.get(&lease) else { return false };
        match held.lost {
            // There, these are held still, and take room in the window.
            None | Some(LossReason::Cancelled | LossReason::DoneElsewhere) => {
                self.queue(lease, Request::Release { lease }, waiter).is_ok()
            }
            Some(LossReason::Expired | LossReason::TimedOut | LossReason::Gone) => {
                self.held.remove(&lease);
                false
            }
        }
    }

    /// Releases everything that is not handed out.
    pub(crate) fn release_ready(&mut self, waiter: impl Fn() -> W) {
        while let Some(lease) = self.ready.pop_front() {
            self.abandon(lease, waiter());
        }
    }

    /// All requests through a number are processed.
    pub(crate) fn answered(&mut self, through: u64, refusals: &[Refusal]) -> Result<Resolved<W>, Breach> {
        let sent = self.confirmed + self.sent as u64;
        if through > sent {
            return Err(Breach::AnswerToNothing { through, sent });
        }
        Ok(self.resolve(through, refusals))
    }

    fn resolve(&mut self, through: u64, refusals: &[Refusal]) -> Resolved<W> {
        let mut resolved = Vec::new();
        while self.confirmed < through {
            let Some(Unanswered { request, waiter }) = self.unanswered.pop_front() else { break };
            let (Request::Report { lease, .. } | Request::Release { lease }) = request;
            self.ending.remove(&lease);
            self.confirmed += 1;
            self.sent = self.sent.saturating_sub(1);
            let number = self.confirmed;
            let refusal = refusals.iter().find(|refusal| (refusal.from..=refusal.to).contains(&number));
            resolved.push((waiter, refusal.map_or(Verdict::Counted, |refusal| Verdict::Refused(refusal.reason))));
        }
        resolved
    }

    /// The next requests to send on this connection, at most `limit`, and the number of the first; `None` if there are
    /// none or they may not be sent yet.
    pub(crate) fn next_batch(&mut self, limit: usize) -> Option<(u64, Vec<Request>)> {
        if !self.is_live() || self.sent == self.unanswered.len() {
            return None;
        }
        let first = self.confirmed + self.sent as u64 + 1;
        let batch: Vec<Request> =
            self.unanswered.iter().skip(self.sent).take(limit).map(|unanswered| unanswered.request.clone()).collect();
        self.sent += batch.len();
        Some((first, batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Outcome, RefusalReason};

    type Book = Inflight<u32, u32>;

    const SESSION: SessionId = SessionId([1; 16]);
    const INSTANCE: InstanceId = InstanceId([2; 16]);

    fn id(slot: u32) -> LeaseId {
        LeaseId { slot, generation: 1 }
    }

    fn done(slot: u32) -> Request {
        Request::Report { lease: id(slot), outcome: Outcome::Done { runs: 1 } }
    }

    fn grants(slots: impl IntoIterator<Item = u32>) -> Vec<(LeaseId, u32)> {
        slots.into_iter().map(|slot| (id(slot), slot)).collect()
    }

    /// A live session that holds these leases, all handed out.
    fn holding(slots: std::ops::Range<u32>) -> Book {
        let mut book = Book::new(SESSION);
        book.greet();
        assert_eq!(book.welcomed(INSTANCE, 0, &[], 0), Ok((vec![], Granted { fresh: 0, lost: vec![] })));
        book.granted(grants(slots.clone()), false).unwrap();
        for slot in slots {
            assert_eq!(book.take(), Some(slot));
        }
        book
    }

    fn report(book: &mut Book, slots: std::ops::Range<u32>) {
        for slot in slots {
            book.queue(id(slot), done(slot), slot).unwrap();
        }
    }

    fn sorted(mut leases: Vec<u32>) -> Vec<u32> {
        leases.sort_unstable();
        leases
    }

    #[test]
    fn numbers_rise_without_gaps_and_answers_are_cumulative() {
        let mut book = holding(0..4);
        assert_eq!(book.next_number(), 1);
        assert_eq!(book.queue(id(2), done(2), 2), Ok(1));
        assert_eq!(book.queue(id(0), done(0), 0), Ok(2));
        assert_eq!(book.queue(id(0), done(0), 9), Err(9), "a lease ends once");
        assert_eq!(book.next_batch(10), Some((1, vec![done(2), done(0)])));
        assert_eq!(book.next_batch(10), None, "and goes out once");
        assert_eq!(book.queue(id(1), done(1), 1), Ok(3));
        assert_eq!(book.next_batch(10), Some((3, vec![done(1)])));
        let refusal = Refusal { from: 2, to: 2, reason: RefusalReason::Ended };
        let refused = Verdict::Refused(RefusalReason::Ended);
        assert_eq!(book.answered(2, &[refusal]), Ok(vec![(2, Verdict::Counted), (0, refused)]));
        assert_eq!(book.answered(2, &[refusal]), Ok(vec![]), "once");
        assert_eq!(book.answered(1, &[]), Ok(vec![]), "an older answer says nothing new");
        assert_eq!((book.confirmed(), book.unanswered(), book.unanswered_numbers()), (2, 1, 3..4));
        assert_eq!(book.answered(3, &[refusal]), Ok(vec![(1, Verdict::Counted)]), "an old refusal is not for this one");
        assert_eq!(book.next_number(), 4);
        assert_eq!(book.healthy(), 1);
    }

    #[test]
    fn an_answer_to_nothing_is_a_breach() {
        let mut book = holding(0..2);
        report(&mut book, 0..2);
        assert_eq!(book.answered(1, &[]), Err(Breach::AnswerToNothing { through: 1, sent: 0 }), "nothing was sent yet");
        assert!(book.next_batch(1).is_some());
        assert_eq!(book.answered(2, &[]), Err(Breach::AnswerToNothing { through: 2, sent: 1 }));
        assert_eq!(book.answered(u64::MAX, &[]), Err(Breach::AnswerToNothing { through: u64::MAX, sent: 1 }));
        assert_eq!(book.unanswered(), 2);
    }

    #[test]
    fn everything_unanswered_goes_out_again_with_its_numbers() {
        let mut book = holding(0..5);
        report(&mut book, 0..4);
        assert_eq!(book.next_batch(10).map(|(first, batch)| (first, batch.len())), Some((1, 4)));
        assert_eq!(book.answered(1, &[]).unwrap().len(), 1);
        book.disconnected();
        assert_eq!(book.next_batch(10), None, "nothing goes out without a connection");
        report(&mut book, 4..5);
        assert_eq!(book.greet(), 2);
        assert_eq!(book.next_batch(10), None, "nor before the server said where it stands");
        let refusal = Refusal { from: 2, to: 2, reason: RefusalReason::Gone };
        let (resolved, _) = book.welcomed(INSTANCE, 2, &[refusal], 0).unwrap();
        assert_eq!(resolved, [(1, Verdict::Refused(RefusalReason::Gone))], "what was processed is not sent again");
        assert_eq!(book.next_batch(2), Some((3, vec![done(2), done(3)])));
        assert_eq!(book.next_batch(2), Some((5, vec![done(4)])));
        assert_eq!(book.answered(5, &[]).unwrap().len(), 3);
    }

    #[test]
    fn requests_wait_until_every_lease_came_again() {
        let mut book = holding(0..3);
        report(&mut book, 0..1);
        book.disconnected();
        book.greet();
        book.welcomed(INSTANCE, 0, &[], 3).unwrap();
        for slot in 0..3 {
            assert_eq!(book.next_batch(10), None, "{slot} leases came again");
            assert_eq!(book.granted(grants([slot]), true), Ok(Granted { fresh: 0, lost: vec![] }));
        }
        assert!(book.is_live());
        assert_eq!(book.next_batch(10), Some((1, vec![done(0)])));
        assert_eq!(book.healthy(), 2, "the reported lease did not come back to life");
        assert_eq!(book.take(), None);
        assert!(book.granted(grants([9]), true).is_err(), "more than announced");
        book.disconnected();
        book.greet();
        book.welcomed(INSTANCE, 0, &[], 1).unwrap();
        assert!(book.granted(grants([1, 2]), true).is_err(), "in one message, too");
    }

    #[test]
    fn a_grant_that_was_lost_on_the_wire_is_found_at_reconnect() {
        let mut book = holding(0..1);
        book.disconnected();
        book.greet();
        book.welcomed(INSTANCE, 0, &[], 2).unwrap();
        assert_eq!(book.granted(grants([8]), false), Ok(Granted { fresh: 1, lost: vec![] }), "a new one in between");
        assert_eq!(book.granted(grants([0, 7]), true), Ok(Granted { fresh: 1, lost: vec![] }));
        assert_eq!((book.take(), book.take()), (Some(8), Some(7)));
        assert_eq!(book.take(), None);
    }

    #[test]
    fn a_lease_that_does_not_come_again_is_lost_but_may_still_be_reported() {
        let mut book = holding(0..3);
        book.granted(grants([8]), false).unwrap();
        book.disconnected();
        book.greet();
        book.welcomed(INSTANCE, 0, &[], 1).unwrap();
        let granted = book.granted(grants([1]), true).unwrap();
        assert_eq!((granted.fresh, sorted(granted.lost)), (0, vec![0, 2]));
        assert_eq!(book.take(), None, "what was not handed out vanished");
        assert_eq!(book.healthy(), 1);
        assert_eq!(book.queue(id(0), done(0), 0), Ok(1));
        assert!(!book.abandon(id(2), 2), "a lost lease is let go without a word");
        assert_eq!(book.healthy(), 1);
        assert_eq!(book.next_batch(10), Some((1, vec![done(0)])));
    }

    #[test]
    fn all_leases_are_lost_when_none_comes_again() {
        let mut book = holding(0..2);
        book.disconnected();
        book.greet();
        let (_, granted) = book.welcomed(INSTANCE, 0, &[], 0).unwrap();
        assert_eq!(sorted(granted.lost), [0, 1]);
        assert!(book.is_live());
    }

    #[test]
    fn losses_are_told_once_and_unstarted_leases_vanish() {
        let mut book = holding(0..1);
        book.granted(grants([1, 2]), false).unwrap();
        let reason = LossReason::TimedOut;
        assert_eq!(book.lost(id(0), reason, 9), Some(0));
        assert_eq!(book.lost(id(0), reason, 9), None);
        assert_eq!(book.lost(id(1), reason, 9), None);
        assert_eq!(book.lost(id(99), reason, 9), None);
        assert_eq!(book.take(), Some(2));
        assert_eq!(book.take(), None);
        assert_eq!((book.healthy(), book.unanswered()), (1, 0));
    }

    #[test]
    fn leases_that_are_lost_but_not_ended_are_released() {
        for (reason, released) in [
            (LossReason::Expired, false),
            (LossReason::TimedOut, false),
            (LossReason::Gone, false),
            (LossReason::Cancelled, true),
            (LossReason::DoneElsewhere, true),
        ] {
            let mut book = holding(0..1);
            book.granted(grants([1]), false).unwrap();
            assert_eq!(book.lost(id(1), reason, 9), None);
            assert_eq!(book.unanswered(), usize::from(released), "nobody has taken it: {reason:?}");
            assert_eq!(book.lost(id(0), reason, 9), Some(0));
            assert_eq!(book.abandon(id(0), 9), released, "{reason:?}");
            assert_eq!((book.healthy(), book.take()), (0, None));
        }
    }

    #[test]
    fn letting_go_releases() {
        let mut book = holding(0..1);
        book.granted(grants([1, 2]), false).unwrap();
        assert!(book.abandon(id(0), 0));
        assert!(!book.abandon(id(0), 0));
        book.release_ready(|| 5);
        let releases = [0, 1, 2].map(|slot| Request::Release { lease: id(slot) });
        assert_eq!(book.next_batch(10), Some((1, releases.to_vec())));
        assert_eq!((book.healthy(), book.take()), (0, None));
    }

    #[test]
    fn a_lease_that_ended_before_anybody_took_it_is_not_handed_out() {
        let mut book = holding(0..0);
        book.granted(grants([1, 2]), false).unwrap();
        assert_eq!(book.queue(id(1), done(1), 1), Ok(1));
        assert_eq!((book.take(), book.take()), (Some(2), None));
        assert_eq!(book.healthy(), 1);
    }

    #[test]
    fn an_unknown_session_begins_anew() {
        let mut book = holding(0..3);
        book.granted(grants([8]), false).unwrap();
        report(&mut book, 0..1);
        assert!(book.next_batch(1).is_some());
        assert_eq!(book.lost(id(1), LossReason::Expired, 9), Some(1));
        book.disconnected();
        assert_eq!(book.greet(), 2);
        let successor = SessionId([3; 16]);
        assert_eq!(book.forget(successor), Forgotten { waiters: vec![0], lost: vec![2] });
        assert_eq!((book.session(), book.instance(), book.next_number()), (successor, InstanceId::NONE, 1));
        assert_eq!((book.healthy(), book.unanswered(), book.take()), (0, 0, None));
        assert_eq!(book.greet(), 3, "attempts go on rising");
        assert!(book.welcomed(InstanceId([4; 16]), 0, &[], 0).is_ok());
        assert_eq!(book.instance(), InstanceId([4; 16]));
        assert_eq!(book.queue(id(2), done(2), 2), Err(2), "leases of the old session are not of the new one");
    }

    #[test]
    fn a_memory_that_is_not_ours_is_a_foreign_session() {
        let mut book = holding(0..2);
        report(&mut book, 0..2);
        book.next_batch(10);
        book.answered(1, &[]).unwrap();
        for through in [0, 3] {
            book.disconnected();
            book.greet();
            let breach = Breach::ForeignSession { through, confirmed: 1, queued: 2 };
            assert_eq!(book.welcomed(INSTANCE, through, &[], 0).err(), Some(breach));
        }
    }

    #[test]
    fn messages_out_of_place_are_breaches() {
        let mut book = holding(0..1);
        assert!(book.welcomed(INSTANCE, 0, &[], 0).is_err(), "a second welcome");
        book.disconnected();
        assert!(book.granted(grants([1]), false).is_err(), "grants without a connection");
        book.greet();
        assert!(book.granted(grants([1]), true).is_err(), "grants before the welcome");
        assert!(book.answered(1, &[]).is_err());
    }
}
