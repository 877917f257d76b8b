//! Hands arbitrary bytes to what a client believes of a server, for fuzz tests, which cannot reach it otherwise.
//!
//! The bytes are a conversation: one byte says what happens next, and whatever it needs follows. What the server says is
//! read by the real decoder, so everything is a message that a server could send, but hardly one that it should.
//!
//! **Invariants.** Panics if a promise of the book is broken, and returns otherwise. Not part of the library's interface.
//! The fuzz tests are `tests/fuzz` and `fuzz/`.

use std::collections::HashSet;

use super::inflight::{Breach, Inflight, Resolved};
use crate::protocol::codec;
use crate::protocol::messages::{ServerMessage, WireGrant, WireRefusal};
use crate::types::{Grant, InstanceId, LeaseId, LossReason, Outcome, Refusal, Request, SessionId};

/// Waits for nothing: lets go of a lease without a word.
const NOBODY: u64 = 0;

/// A caller that does anything at any time, and a server that says anything.
struct Conversation {
    book: Inflight<LeaseId, u64>,
    /// Leases in the caller's hands.
    hands: Vec<LeaseId>,
    /// Number of the waiter that was made last.
    waiters: u64,
    /// Those that wait for an answer.
    waiting: HashSet<u64>,
    sessions: u8,
    /// The highest number whose answer was read.
    confirmed: u64,
}

/// Lets everything happen that the bytes say, in order.
pub fn inflight(mut bytes: &[u8]) {
    let mut conversation = Conversation {
        book: Inflight::new(SessionId([1; 16])),
        hands: Vec::new(),
        waiters: NOBODY,
        waiting: HashSet::new(),
        sessions: 1,
        confirmed: 0,
    };
    while let Some((what, rest)) = bytes.split_first() {
        bytes = conversation.happen(*what, rest);
        conversation.check();
    }
    conversation.end();
}

impl Conversation {
    /// One thing happens; returns the bytes that it did not need.
    fn happen<'bytes>(&mut self, what: u8, rest: &'bytes [u8]) -> &'bytes [u8] {
        match what % 8 {
            0 => drop(self.book.greet()),
            1 => self.book.disconnected(),
            2 => {
                if let Some(lease) = self.book.take() {
                    self.hands.push(lease);
                }
            }
            3 => return self.end_one(rest),
            4 => self.send(usize::from(what / 8)),
            5 => self.book.release_ready(|| NOBODY),
            _ => {
                let (length, rest) = rest.split_first().unwrap_or((&0, &[]));
                let (body, rest) = rest.split_at(usize::from(*length).min(rest.len()));
                if let Ok(message) = codec::decode_server(body) {
                    // A breach ends the connection, nothing else.
                    if self.hear(message).is_err() {
                        self.book.disconnected();
                    }
                }
                return rest;
            }
        }
        rest
    }

    /// The caller ends one of its leases, or one that it does not have.
    fn end_one<'bytes>(&mut self, rest: &'bytes [u8]) -> &'bytes [u8] {
        let Some((which, rest)) = rest.split_first() else { return rest };
        let place = usize::from(which / 4);
        let lease = match self.hands.get(place) {
            Some(_) => self.hands.swap_remove(place),
            None => LeaseId::from_u64(u64::from(*which)),
        };
        let request = match which % 4 {
            0 => Request::Report { lease, outcome: Outcome::Done { runs: 1 } },
            1 => Request::Release { lease },
            _ => {
                self.book.abandon(lease, NOBODY);
                return rest;
            }
        };
        let number = self.book.next_number();
        self.waiters += 1;
        match self.book.queue(lease, request, self.waiters) {
            Ok(given) => {
                assert_eq!(given, number, "numbers have no gaps");
                self.waiting.insert(self.waiters);
            }
            Err(back) => assert_eq!(back, self.waiters),
        }
        rest
    }

    fn send(&mut self, limit: usize) {
        if let Some((first, batch)) = self.book.next_batch(limit.max(1)) {
            assert!(self.book.is_live() && !batch.is_empty());
            assert!(first > self.book.confirmed(), "what was answered is not sent again");
            assert!(first + batch.len() as u64 <= self.book.next_number(), "what was not queued is not sent");
        }
    }

    fn hear(&mut self, message: ServerMessage) -> Result<(), Breach> {
        let refusals = |refusals: Vec<WireRefusal>| refusals.into_iter().map(Refusal::from).collect::<Vec<_>>();
        let grants = |grants: Vec<WireGrant>| {
            let grants = grants.into_iter().map(<(Grant, Option<String>)>::from);
            grants.map(|(grant, _)| (grant.lease, grant.lease)).collect::<Vec<_>>()
        };
        match message {
            ServerMessage::Welcome { instance, resumed: _, through, refusals: refused, leases } => {
                let known = self.book.welcomed(InstanceId(instance), through, &refusals(refused), leases)?;
                self.told(known.0);
                self.confirmed = through;
            }
            ServerMessage::UnknownSession { .. } => {
                self.sessions = self.sessions.wrapping_add(1);
                let forgotten = self.book.forget(SessionId([self.sessions; 16]));
                self.told(forgotten.waiters.into_iter().map(|waiter| (waiter, super::Verdict::Unknown)).collect());
                self.hands.clear();
                self.confirmed = 0;
            }
            ServerMessage::Grants { campaigns: _, grants: granted, resent } => {
                drop(self.book.granted(grants(granted), resent)?);
            }
            ServerMessage::Answers { through, refusals: refused } => {
                let resolved = self.book.answered(through, &refusals(refused))?;
                self.told(resolved);
                self.confirmed = self.confirmed.max(through);
            }
            ServerMessage::Lost { leases } => {
                for (lease, reason) in leases.into_iter().map(<(LeaseId, LossReason)>::from) {
                    let _ = self.book.lost(lease, reason, NOBODY);
                }
            }
            ServerMessage::Idle(_)
            | ServerMessage::Heartbeat
            | ServerMessage::Control { .. }
            | ServerMessage::Closing { .. } => {}
        }
        Ok(())
    }

    fn told(&mut self, resolved: Resolved<u64>) {
        for (waiter, _) in resolved {
            assert!(waiter == NOBODY || self.waiting.remove(&waiter), "told twice, or never asked");
        }
    }

    fn check(&self) {
        assert_eq!(self.book.confirmed(), self.confirmed, "what was answered is known");
        let numbers = self.book.unanswered_numbers();
        assert_eq!(numbers.start, self.confirmed + 1);
        assert_eq!((numbers.end - numbers.start) as usize, self.book.unanswered());
        assert_eq!(numbers.end, self.book.next_number());
    }

    /// The server forgets everything: then nobody waits any more, and nothing is held.
    fn end(mut self) {
        let forgotten = self.book.forget(SessionId([0; 16]));
        self.told(forgotten.waiters.into_iter().map(|waiter| (waiter, super::Verdict::Unknown)).collect());
        assert!(self.waiting.is_empty(), "somebody waits for ever");
        assert_eq!((self.book.healthy(), self.book.unanswered(), self.book.take()), (0, 0, None));
    }
}
