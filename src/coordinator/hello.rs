//! How sessions begin, resume, go quiet and end.
//!
//! Registering is idempotent, since the client chose the id. A resume repeats all that may have been lost with the old
//! connection: answers, live leases, losses. A session that was known to another data directory, or was forgotten, is
//! unknown here, and the client is told so rather than given a wrong answer. An old connection whose bytes arrive late
//! is refused by its attempt number; once a session has a newer connection, nothing of the old one is heard.

use super::command::{CloseReason, Hello};
use super::rows::{LeaseState, Phase, RowKey};
use super::sessions::Session;
use super::{Coordinator, Output};
use crate::limits;
use crate::types::{ConnectionId, InstanceId, LeaseId, LossReason};

impl Coordinator {
    /// A native client introduces or resumes its session.
    pub(super) fn hello(&mut self, connection: ConnectionId, hello: Hello) {
        if self.sessions.by_connection(connection).is_some() {
            self.send(connection, Output::Close(CloseReason::OutOfPlace));
            return;
        }
        let foreign = hello.instance != InstanceId::NONE && hello.instance != self.instance;
        let known = self.sessions.by_id(hello.session);
        match known {
            Some(slot) if !foreign => self.resume(connection, slot, &hello),
            // The first hello of a session that had a later connection, ended, and must not begin again as if it had done nothing.
            None if hello.instance == InstanceId::NONE && self.past.is_late(&hello.session, connection) => {
                self.send(connection, Output::Close(CloseReason::Late));
            }
            None if hello.instance == InstanceId::NONE => self.register(connection, hello),
            Some(_) | None => {
                let output = Output::UnknownSession { instance: self.instance };
                self.send(connection, output);
            }
        }
    }

    /// A sign of life without anything else.
    pub(super) fn heartbeat(&mut self, connection: ConnectionId, confirmed: u64) {
        let Some(slot) = self.heard(connection) else { return };
        let Some(session) = self.sessions.get_mut(slot) else { return };
        // Only refusals make it worth a write that the client has read its answers.
        if !session.row.refusals.is_empty() {
            session.confirm(confirmed);
            self.store_session(slot);
        }
        self.ask_for_more(slot);
    }

    /// The client is done: nothing of its session remains.
    pub(super) fn goodbye(&mut self, connection: ConnectionId) {
        let Some(slot) = self.heard(connection) else { return };
        self.forget_session(slot);
        self.send(connection, Output::Close(CloseReason::Goodbye));
    }

    /// A connection ended.
    pub(super) fn disconnected(&mut self, connection: ConnectionId) {
        let Some(slot) = self.sessions.by_connection(connection) else { return };
        self.stop_waiting(slot);
        self.sessions.disconnect(connection);
        let now = self.now;
        let Some(session) = self.sessions.get_mut(slot) else { return };
        if session.row.origin || !session.stored {
            self.forget_session(slot);
            return;
        }
        session.heard = now;
        session.want.leases = 0;
        session.idle = None;
        session.announced.clear();
        self.watch_idle(slot);
    }

    /// Ends a session: its leases' runs go back uncharged, its rows go.
    pub(super) fn forget_session(&mut self, slot: u32) {
        self.stop_waiting(slot);
        self.end_leases(slot);
        if let Some(session) = self.sessions.remove(slot)
            && let Some(connection) = session.newest.filter(|_| session.origin.is_none() && session.stored)
        {
            self.past.note(session.row.id, connection);
        }
        self.touch(RowKey::Session(slot));
        self.touch(RowKey::SessionName(slot));
    }

    /// Ends all leases of a session; their runs go back uncharged.
    pub(super) fn end_leases(&mut self, slot: u32) {
        let Some(session) = self.sessions.get(slot) else { return };
        let mut leases = session.live.sorted();
        leases.extend(&session.expired);
        for lease_slot in leases {
            if let Some(lease) = self.leases.get(lease_slot).copied() {
                self.return_runs(&lease);
                self.end_lease(lease_slot);
            }
        }
    }

    /// Notes a sign of life on a connection and finds its session; a connection without one is to be closed. The session may be
    /// lent something again, but what was said comes first: a new lease might take the place of the one that it is about.
    pub(super) fn heard(&mut self, connection: ConnectionId) -> Option<u32> {
        let Some(slot) = self.sessions.by_connection(connection) else {
            self.send(connection, Output::Close(CloseReason::OutOfPlace));
            return None;
        };
        let session = self.sessions.get_mut(slot)?;
        session.heard = self.now;
        session.silent = false;
        Some(slot)
    }

    /// Makes a session durable, with all that it is now.
    pub(super) fn store_session(&mut self, slot: u32) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        self.touched.push(RowKey::Session(slot));
        if !session.stored {
            session.stored = true;
            self.touched.push(RowKey::SessionName(slot));
        }
    }

    /// A session that nobody has heard of.
    fn register(&mut self, connection: ConnectionId, hello: Hello) {
        if self.sessions.len() >= self.options.sessions_max {
            self.send(connection, Output::Close(CloseReason::SessionsFull));
            return;
        }
        let name = super::runs::cut(&hello.name, limits::SESSION_NAME_BYTES_MAX).to_owned();
        let mut session = Session::new(hello.session, name, false, self.now);
        session.row.attempt = hello.attempt;
        let slot = self.sessions.insert(session);
        self.sessions.connect(slot, connection);
        let instance = self.instance;
        let welcome = Output::Welcome { instance, resumed: false, through: 0, refusals: Vec::new(), leases: 0 };
        self.send(connection, welcome);
    }

    /// A session that is known: the client hears again what it may have missed.
    fn resume(&mut self, connection: ConnectionId, slot: u32, hello: &Hello) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(slot) else { return };
        if hello.attempt <= session.row.attempt {
            self.send(connection, Output::Close(CloseReason::Superseded));
            return;
        }
        session.row.attempt = hello.attempt;
        session.confirm(hello.confirmed);
        session.heard = now;
        session.silent = false;
        session.idle = None;
        session.announced.clear();
        if session.stored {
            self.touched.push(RowKey::Session(slot));
        }
        self.stop_waiting(slot);
        if let Some(before) = self.sessions.connect(slot, connection) {
            self.send(before, Output::Close(CloseReason::Superseded));
        }
        let Some(session) = self.sessions.get_mut(slot) else { return };
        session.want.leases = 0;
        let live = session.live.sorted();
        let expired = session.expired.clone();
        let (through, refusals) = (session.row.processed, session.row.refusals.clone());
        let leases = live.len() as u32;
        let instance = self.instance;
        self.send(connection, Output::Welcome { instance, resumed: true, through, refusals, leases });
        for leases in live.chunks(limits::GRANTS_PER_MESSAGE_MAX) {
            let grants = leases.iter().filter_map(|lease| self.grant(*lease)).collect();
            self.send_grants(slot, grants, true);
        }
        let lost = self.lost_of(live.iter().chain(&expired).copied());
        if !lost.is_empty() {
            self.send(connection, Output::Lost { leases: lost });
        }
    }

    /// Which of these leases are no longer worth working on.
    fn lost_of(&self, slots: impl Iterator<Item = u32>) -> Vec<(LeaseId, LossReason)> {
        slots
            .filter_map(|slot| {
                let lease = self.leases.get(slot)?;
                let campaign = self.campaigns.get(&lease.campaign);
                let phase = campaign.map_or(Phase::Removing, |campaign| campaign.row.phase);
                let numbered = campaign.is_some_and(super::Campaign::numbered);
                let reason = match (lease.state, phase) {
                    (LeaseState::Gone, _) | (_, Phase::Removing) => LossReason::Gone,
                    (LeaseState::Expired, _) => LossReason::Expired,
                    (LeaseState::Live, Phase::Cancelled) => LossReason::Cancelled,
                    (LeaseState::Live, Phase::Creating | Phase::Running | Phase::Paused) => {
                        (numbered && lease.own == 0).then_some(LossReason::DoneElsewhere)?
                    }
                };
                Some((self.leases.id(slot), reason))
            })
            .collect()
    }
}
