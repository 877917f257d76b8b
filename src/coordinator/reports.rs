//! Numbered requests: each is processed once, in order, and answered the same however often it is sent.
//!
//! A session's numbers have no gaps. What is at or below the highest processed number is a resend and only answered; what
//! skips a number is a broken client. Refusals are kept until the client confirms that it read them; when there is no
//! room for another the rest of the message is left unprocessed and the client has to reconnect, confirm and go on.

use super::rows::{Lease, LeaseState, RowKey};
use super::runs::{Executed, mask};
use super::{Coordinator, Output};
use crate::coordinator::command::CloseReason;
use crate::limits;
use crate::types::{ConnectionId, LeaseId, Outcome, RefusalReason, Request};

impl Coordinator {
    /// Processes what is new among `requests` and answers all that is processed.
    pub(super) fn requests(&mut self, connection: ConnectionId, first: u64, confirmed: u64, requests: Vec<Request>) {
        let Some(slot) = self.heard(connection) else { return };
        let Some(session) = self.sessions.get_mut(slot) else { return };
        if first == 0 || first > session.row.processed + 1 {
            self.send(connection, Output::Close(CloseReason::Gap));
            return;
        }
        session.confirm(confirmed);
        let skip = usize::try_from(session.row.processed + 1 - first).unwrap_or(usize::MAX);
        let mut unread = false;
        for request in requests.into_iter().skip(skip) {
            if self.sessions.get(slot).is_none_or(|session| !session.has_room_for_refusal()) {
                unread = true;
                break;
            }
            let result = self.process(slot, request);
            let Some(session) = self.sessions.get_mut(slot) else { return };
            session.row.processed += 1;
            if let Err(reason) = result {
                session.refuse(session.row.processed, reason);
            }
        }
        self.store_session(slot);
        let Some(session) = self.sessions.get(slot) else { return };
        let answers = Output::Answers { through: session.row.processed, refusals: session.row.refusals.clone() };
        self.send(connection, answers);
        if unread {
            self.send(connection, Output::Close(CloseReason::RefusalsUnread));
        }
        self.ask_for_more(slot);
    }

    /// Finds the lease that a session speaks of.
    pub(super) fn held(&self, session: u32, id: LeaseId) -> Result<Lease, RefusalReason> {
        let Some(row) = self.leases.row(id.slot).filter(|row| id.generation != 0 && id.generation <= row.generation)
        else {
            return Err(RefusalReason::NotHeld);
        };
        let current = row.lease.filter(|_| row.generation == id.generation);
        let lease = current.ok_or(RefusalReason::Ended)?;
        if lease.session != session {
            return Err(RefusalReason::NotHeld);
        }
        Ok(lease)
    }

    /// Takes a lease out of the table and out of its session. Its runs must have been dealt with.
    pub(super) fn end_lease(&mut self, slot: u32) {
        let full = self.lease_table_is_full();
        self.drop_lease(slot);
        if full {
            self.leases_freed();
        }
    }

    /// The same when its place in the table is wanted at once.
    pub(super) fn drop_lease(&mut self, slot: u32) {
        let place = self.leases.place(slot);
        let Some(lease) = self.leases.remove(slot) else { return };
        self.touch(RowKey::Lease(slot));
        let Some(session) = self.sessions.get_mut(lease.session) else { return };
        if lease.state == LeaseState::Live {
            session.live.remove(place, slot);
        } else {
            session.expired.retain(|expired| *expired != slot);
        }
        if let Some(origin) = &mut session.origin {
            origin.leases.remove(&lease.task);
        }
    }

    /// One request that was not processed before.
    fn process(&mut self, session: u32, request: Request) -> Result<(), RefusalReason> {
        match request {
            Request::Report { lease: id, outcome } => {
                let lease = self.held_here(session, id)?;
                let counted = self.campaigns.get(&lease.campaign).is_some_and(|campaign| !campaign.numbered());
                let Some(executed) = executed(&lease, counted, &outcome) else {
                    self.give_back(session, id, &lease);
                    return Err(RefusalReason::BadRuns);
                };
                let error = match &outcome {
                    Outcome::Mixed { error, .. } => error.as_str(),
                    Outcome::Done { .. } => "",
                };
                self.count_report(&lease, executed, error);
                self.end_lease(id.slot);
            }
            Request::Release { lease: id } => {
                let lease = self.held_here(session, id)?;
                self.give_back(session, id, &lease);
            }
        }
        Ok(())
    }

    /// Ends a lease without counting anything. Its holder reported it, as it sees it, and would never speak of it again: kept,
    /// the lease would be renewed by its heartbeats for ever.
    fn give_back(&mut self, session: u32, id: LeaseId, lease: &Lease) {
        self.return_runs(lease);
        self.end_lease(id.slot);
        self.avoid_released(session, lease);
    }

    /// Finds the lease; one of a removed campaign ends here, refused.
    fn held_here(&mut self, session: u32, id: LeaseId) -> Result<Lease, RefusalReason> {
        let lease = self.held(session, id)?;
        if lease.state == LeaseState::Gone || self.campaigns.get(&lease.campaign).is_none_or(super::Campaign::removing)
        {
            self.return_runs(&lease);
            self.end_lease(id.slot);
            return Err(RefusalReason::Gone);
        }
        Ok(lease)
    }
}

/// What an outcome means for a lease; `None` if it speaks of runs that the lease does not have, of none, or of one twice.
fn executed(lease: &Lease, counted: bool, outcome: &Outcome) -> Option<Executed> {
    let all = mask(lease.runs);
    match outcome {
        Outcome::Done { runs } if counted => {
            (1..=limits::UNITS_MAX).contains(runs).then_some(Executed { units: *runs, done: 0, failures: 0 })
        }
        Outcome::Done { runs } => {
            (1..=lease.runs).contains(runs).then(|| Executed { units: 0, done: mask(*runs), failures: 0 })
        }
        Outcome::Mixed { done, failed, .. } => {
            let sound = done & failed == 0 && (done | failed) & !all == 0 && (done | failed) != 0;
            let (units, bits) = if counted { (done.count_ones(), 0) } else { (0, *done) };
            sound.then(|| Executed { units, done: bits, failures: failed.count_ones() })
        }
    }
}
