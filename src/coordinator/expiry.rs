//! What time does: leases expire, sessions are forgotten, abandoned creations are dropped.
//!
//! A lease is due a lease length after its grant or its session's last sign of life, whichever is later, but at the
//! latest when its runs have had their timeouts and a little grace, in which a holder that keeps to them can report. A connection of the origin's dialect has no heartbeats: its leases are due
//! a lease length after the grant. Expired leases stay with their session, so that a late report finds them; the oldest
//! are forgotten first.

use super::command::CloseReason;
use super::rows::{LeaseState, Phase, RowKey};
use super::timers::Timer;
use super::{Coordinator, Output};
use crate::limits;
use crate::types::{LeaseId, LossReason, Tick};

/// Entries of timers that a sweep looks at for each item of a slice.
const LOOKS_PER_ITEM: usize = 16;

impl Coordinator {
    /// Handles what is due, a slice of it.
    pub(super) fn expire(&mut self) {
        let full = self.rows_until_full();
        for _ in 0..self.options.slice {
            if self.touched.len() >= full {
                break;
            }
            match self.timers.pop(self.now) {
                None => break,
                Some(Timer::Lease(id)) => self.lease_due(id),
                Some(Timer::Idle(slot, serial)) => {
                    if self.sessions.get(slot).is_some_and(|session| session.serial == serial) {
                        self.idle_due(slot);
                    }
                }
                Some(Timer::Released(slot, serial)) => {
                    if self.sessions.get(slot).is_some_and(|session| session.serial == serial) {
                        self.released_due(slot);
                    }
                }
                Some(Timer::Creation(id)) => self.creation_due(id),
            }
        }
        let timed = self.timed();
        let Self { timers, leases, sessions, campaigns, options, .. } = self;
        timers.sweep(timed, LOOKS_PER_ITEM * options.slice, |due, timer| match timer {
            Timer::Lease(id) => leases.id(id.slot) == *id && leases.get(id.slot).is_some(),
            Timer::Idle(slot, serial) => sessions.get(*slot).is_some_and(|session| session.serial == *serial),
            Timer::Released(slot, serial) => sessions
                .get(*slot)
                .is_some_and(|session| session.serial == *serial && session.released_timer == Some(due)),
            Timer::Creation(id) => campaigns.get(id).is_some_and(|campaign| campaign.creation.is_some()),
        });
    }

    /// How many timers can be of use at most: one for each lease, two for each session, one for a campaign while it is created.
    pub(super) fn timed(&self) -> usize {
        self.leases.len() + 2 * self.sessions.len() + self.campaigns.len()
    }

    /// Looks at a lease when it may be due.
    pub(super) fn watch_lease(&mut self, id: LeaseId) {
        if let Some((due, _)) = self.lease_deadline(id.slot) {
            self.timers.push(due, Timer::Lease(id));
        }
    }

    /// Looks at a session when it may have been idle too long.
    pub(super) fn watch_idle(&mut self, slot: u32) {
        let due = self.now.after(self.options.session_idle_ms);
        if let Some(session) = self.sessions.get_mut(slot).filter(|session| !session.idle_timer) {
            session.idle_timer = true;
            let serial = session.serial;
            self.timers.push(due, Timer::Idle(slot, serial));
        }
    }

    /// Tells a lease's holder that it is no longer worth working on.
    pub(super) fn tell_lost(&mut self, slot: u32, reason: LossReason) {
        let Some(lease) = self.leases.get(slot) else { return };
        let Some(session) = self.sessions.get(lease.session) else { return };
        if session.origin.is_some() {
            return;
        }
        if let Some(connection) = session.connection {
            let leases = vec![(self.leases.id(slot), reason)];
            self.send(connection, Output::Lost { leases });
        }
    }

    /// Keeps an ended lease for late reports; forgets the oldest beyond the bound.
    pub(super) fn keep_expired(&mut self, slot: u32, state: LeaseState) {
        let full = self.lease_table_is_full();
        let Some(before) = self.leases.expire(slot, state) else { return };
        self.touch(RowKey::Lease(slot));
        let Some(session) = self.sessions.get_mut(before.session) else { return };
        if before.state == LeaseState::Live {
            session.live.remove(self.leases.place(slot), slot);
            session.expired.push_back(slot);
            self.leases.may_be_forgotten(slot, session.origin.is_some());
        }
        let too_many = session.expired.len() > self.options.expired_per_session_max;
        let oldest = session.expired.front().copied().filter(|_| too_many);
        if full && !self.lease_table_is_full() {
            self.leases_freed();
        }
        if let Some(oldest) = oldest {
            self.forget_lease(oldest);
        }
    }

    /// Forgets a lease that had ended and was kept, for want of room: its late report is going to be refused. The origin's dialect has
    /// no refusals, and is to count exactly while a connection lasts: there the connection ends, with all its leases.
    pub(super) fn forget_lease(&mut self, slot: u32) {
        let Some(holder) = self.leases.get(slot).map(|lease| lease.session) else { return };
        if self.sessions.get(holder).is_some_and(|session| session.origin.is_some()) {
            self.break_origin(holder, CloseReason::LeasesFull);
            self.end_leases(holder);
        } else {
            self.drop_lease(slot);
        }
    }

    /// When the live lease in a slot is due, and what that means; `None` if there is none.
    fn lease_deadline(&self, slot: u32) -> Option<(Tick, LossReason)> {
        let lease = self.leases.get(slot).filter(|lease| lease.state == LeaseState::Live)?;
        let info = &self.campaigns.get(&lease.campaign)?.info;
        let session = self.sessions.get(lease.session)?;
        let granted = self.leases.granted(slot);
        let alive = if session.origin.is_some() { granted } else { granted.max(session.heard) };
        let silence = alive.after(info.lease_ms);
        let hung = info.timeout_ms.map(|ms| {
            let grace = (ms / 10).clamp(limits::TIMEOUT_GRACE_MS_MIN, limits::TIMEOUT_GRACE_MS_MAX);
            granted.after(ms.saturating_mul(u64::from(lease.runs)).saturating_add(grace))
        });
        Some(match hung {
            Some(hung) if hung < silence => (hung, LossReason::TimedOut),
            _ => (silence, LossReason::Expired),
        })
    }

    /// A lease may be due.
    fn lease_due(&mut self, id: LeaseId) {
        if self.leases.id(id.slot) != id {
            return;
        }
        let Some((due, reason)) = self.lease_deadline(id.slot) else { return };
        if due > self.now {
            self.timers.push(due, Timer::Lease(id));
            return;
        }
        let Some(lease) = self.leases.get(id.slot).copied() else { return };
        let origin = self.sessions.get(lease.session).is_some_and(|session| session.origin.is_some());
        let lost = if lease.own == 0 { lease.runs } else { lease.own.count_ones() };
        let struck = self.campaigns.get(&lease.campaign).is_some_and(super::Campaign::numbered) && lease.own == 0;
        self.tell_lost(id.slot, reason);
        self.return_runs(&lease);
        self.keep_expired(id.slot, LeaseState::Expired);
        if !origin && !struck {
            self.charge(lease.campaign, lease.task, 0, lost, None);
        }
        if let Some(session) = self.sessions.get_mut(lease.session) {
            session.silent |= reason == LossReason::Expired;
        }
        self.ask_for_more(lease.session);
    }

    /// A session may have been idle too long.
    fn idle_due(&mut self, slot: u32) {
        let now = self.now;
        let idle_ms = self.options.session_idle_ms;
        let Some(session) = self.sessions.get_mut(slot) else { return };
        session.idle_timer = false;
        if session.connection.is_some() {
            return;
        }
        let serial = session.serial;
        let due = session.heard.after(idle_ms);
        if due > now || !session.live.is_empty() {
            session.idle_timer = true;
            self.timers.push(due.max(now.after(1_000)), Timer::Idle(slot, serial));
            return;
        }
        self.forget_session(slot);
    }

    /// A creation may have been abandoned.
    fn creation_due(&mut self, id: crate::types::CampaignId) {
        let Some(campaign) = self.campaigns.get(&id).filter(|campaign| campaign.row.phase == Phase::Creating) else {
            return;
        };
        let heard = campaign.creation.as_ref().map_or(Tick(0), |creation| creation.heard);
        let due = heard.after(self.options.creation_idle_ms);
        if due > self.now {
            self.timers.push(due, Timer::Creation(id));
        } else {
            self.begin_removal(id);
        }
    }
}
