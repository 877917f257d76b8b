//! Who is lent what: windows, fairness among campaigns and among those who wait.
//!
//! A session says how many leases it wants to hold at most; it is lent runs until it holds them, in turn from the
//! campaigns that have some, and waits in line when there are none. Whoever asks is served at once unless somebody who
//! waits may be first (see `waiting.rs`). Nothing is lent to a session that is not connected, or that let a lease
//! expire and has not been heard since.

use std::ops::Bound;

use super::rows::{Lease, LeaseState, Phase, RowKey};
use super::timers::Timer;
use super::{Coordinator, Output};
use crate::limits;
use crate::types::{CampaignId, ConnectionId, Grant, Idle, LeaseId, Settled, TaskIndex, Want};

impl Coordinator {
    /// A session says what it would like to hold.
    pub(super) fn want(&mut self, connection: ConnectionId, mut want: Want) {
        let Some(slot) = self.heard(connection) else { return };
        self.stop_waiting(slot);
        want.leases = want.leases.min(self.options.leases_per_session_max);
        want.runs = want.runs.clamp(1, limits::LEASE_RUNS_MAX);
        want.campaigns.truncate(limits::WANTED_CAMPAIGNS_MAX);
        want.campaigns.sort_unstable();
        want.campaigns.dedup();
        if let Some(session) = self.sessions.get_mut(slot) {
            session.want = want;
            session.idle = None;
        }
        self.ask_for_more(slot);
    }

    /// A session may have room: it is served now or put in line.
    pub(super) fn ask_for_more(&mut self, slot: u32) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        if session.room() == 0 || session.arrival.is_some() || session.origin.is_some() {
            return;
        }
        if self.waiting.is_marked() || !self.fill(slot) {
            let Some(session) = self.sessions.get_mut(slot) else { return };
            session.arrival = Some(self.waiting.join(slot, &session.want.campaigns));
            if !self.waiting.is_marked() {
                self.tell_idle(slot);
            }
        }
    }

    /// Lets those who wait look at the campaigns where something opened, a slice of them.
    pub(super) fn serve_waiting(&mut self) {
        let full = self.rows_until_full();
        for _ in 0..self.options.slice {
            if self.touched.len() >= full {
                return;
            }
            let Some(visit) = self.waiting.next_visit() else { return };
            let lendable = |name| self.names.get(name).is_some_and(|id| self.lendable.contains(id));
            if let Some(name) = visit.name.as_ref().filter(|name| !visit.news && !lendable(*name)) {
                self.waiting.unmark(name);
                continue;
            }
            if self.fill(visit.session) {
                self.stop_waiting(visit.session);
            } else {
                self.tell_idle(visit.session);
            }
        }
    }

    /// Whether there is no room for one more lease: those that have ended and are kept make room.
    pub(super) fn lease_table_is_full(&self) -> bool {
        self.leases.len() >= self.options.leases_max && self.leases.oldest_expired().is_none()
    }

    /// The lease table was full and is not any more: those who wait look again at all that lends.
    pub(super) fn leases_freed(&mut self) {
        for campaign in self.lendable.iter().filter_map(|id| self.campaigns.get(id)) {
            self.waiting.mark(&campaign.info.name, false);
        }
    }

    /// Takes a session out of the line.
    pub(super) fn stop_waiting(&mut self, slot: u32) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        if let Some(arrival) = session.arrival.take() {
            self.waiting.leave(arrival, slot, &session.want.campaigns);
        }
    }

    /// Adds a lease on an open task for a session; the runs are taken here.
    pub(super) fn lend(&mut self, slot: u32, id: CampaignId, task: TaskIndex, runs: u32) -> Option<LeaseId> {
        if self.leases.len() >= self.options.leases_max
            && let Some(oldest) = self.leases.oldest_expired()
        {
            self.forget_lease(oldest);
            if self.is_broken(slot) {
                return None;
            }
        }
        let (first_run, runs, own) = self.take_runs(id, task, runs)?;
        let lease = Lease { session: slot, campaign: id, task, first_run, runs, own, state: LeaseState::Live };
        let lease_id = self.leases.insert(lease, self.now);
        self.touch(RowKey::Lease(lease_id.slot));
        self.store_session(slot);
        if let Some(session) = self.sessions.get_mut(slot) {
            self.leases.set_place(lease_id.slot, session.live.insert(lease_id.slot));
        }
        if own != 0
            && let Some(campaign) = self.campaigns.get_mut(&id)
        {
            campaign.lent.insert((task, first_run), lease_id.slot);
        }
        self.watch_lease(lease_id);
        Some(lease_id)
    }

    /// The grant as its holder is told of it.
    pub(super) fn grant(&self, slot: u32) -> Option<Grant> {
        let lease = self.leases.get(slot)?;
        Some(Grant {
            lease: self.leases.id(slot),
            campaign: lease.campaign,
            task: lease.task,
            first_run: lease.first_run,
            runs: lease.runs,
        })
    }

    /// Sends grants, as many as one message has room for at most, describing campaigns that this connection has not heard of.
    pub(super) fn send_grants(&mut self, slot: u32, mut grants: Vec<Grant>, resent: bool) {
        debug_assert!((1..=limits::GRANTS_PER_MESSAGE_MAX).contains(&grants.len()), "{} grants", grants.len());
        // There may be fewer than there was room for, and they may wait for a slow reader.
        grants.shrink_to_fit();
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let Some(connection) = session.connection else { return };
        if session.announced.len() > self.campaigns.len() {
            session.announced.retain(|id| self.campaigns.contains_key(id));
        }
        let mut campaigns = Vec::new();
        for grant in &grants {
            if session.announced.insert(grant.campaign) {
                campaigns.extend(self.campaigns.get(&grant.campaign).map(|campaign| campaign.info.clone()));
            }
        }
        self.step.outputs.push((connection, Output::Grants { campaigns, grants, resent }));
    }

    /// Lends until the session's window is full; whether it is (or takes nothing any more).
    fn fill(&mut self, slot: u32) -> bool {
        let mut grants = Vec::new();
        while let room @ 1.. = self.room(slot) {
            let Some(lease) = self.lend_next(slot) else { break };
            if grants.is_empty() {
                grants.reserve_exact(room.min(limits::GRANTS_PER_MESSAGE_MAX));
            }
            grants.extend(self.grant(lease.slot));
            if grants.len() == limits::GRANTS_PER_MESSAGE_MAX {
                self.lent(slot, std::mem::take(&mut grants));
            }
        }
        if !grants.is_empty() {
            self.lent(slot, grants);
        }
        self.room(slot) == 0
    }

    fn lent(&mut self, slot: u32, grants: Vec<Grant>) {
        self.send_grants(slot, grants, false);
        if let Some(session) = self.sessions.get_mut(slot) {
            session.idle = None;
        }
    }

    /// How many more leases a session may be lent.
    fn room(&self, slot: u32) -> usize {
        self.sessions.get(slot).map_or(0, |session| session.room() as usize)
    }

    /// One more lease for a session, from the next campaign in turn that has one for it.
    fn lend_next(&mut self, slot: u32) -> Option<LeaseId> {
        if self.draining || self.lease_table_is_full() {
            return None;
        }
        let runs = self.sessions.get(slot)?.want.runs;
        let first = self.next_in_turn(slot, self.last_lent)?;
        let mut id = first;
        loop {
            if let Some(task) = self.open_task(slot, id) {
                self.last_lent = id;
                return self.lend(slot, id, task, runs);
            }
            id = self.next_in_turn(slot, id)?;
            if id == first {
                return None;
            }
        }
    }

    /// The campaign after `last` that lends and that the session wants; after the highest comes the lowest.
    fn next_in_turn(&self, slot: u32, last: CampaignId) -> Option<CampaignId> {
        let names = &self.sessions.get(slot)?.want.campaigns;
        if names.is_empty() {
            let after = (Bound::Excluded(last), Bound::Unbounded);
            return self.lendable.range(after).next().or_else(|| self.lendable.first()).copied();
        }
        let wanted = || names.iter().filter_map(|name| self.names.get(name)).filter(|id| self.lendable.contains(id));
        wanted().filter(|id| **id > last).min().or_else(|| wanted().min()).copied()
    }

    /// The first open task of a campaign that this session does not avoid.
    fn open_task(&mut self, slot: u32, id: CampaignId) -> Option<TaskIndex> {
        let session = self.sessions.get(slot)?;
        let open = &mut self.campaigns.get_mut(&id)?.open;
        let mut position = None;
        while let Some((level, task)) = open.next(position) {
            if session.released.is_empty() || !session.avoids(id, task, self.now) {
                return Some(task);
            }
            position = Some((level, task));
        }
        None
    }

    /// Tells a session why its window is not full, if that is news.
    fn tell_idle(&mut self, slot: u32) {
        let Some(idle) = self.idle_reason(slot) else { return };
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let Some(connection) = session.connection else { return };
        if session.idle.replace(idle) != Some(idle) {
            self.send(connection, Output::Idle(idle));
        }
    }

    /// Why there is nothing to lend to a session.
    fn idle_reason(&self, slot: u32) -> Option<Idle> {
        let session = self.sessions.get(slot)?;
        let names = &session.want.campaigns;
        let wanted: Vec<CampaignId> = if !names.is_empty() {
            names.iter().filter_map(|name| self.names.get(name)).copied().collect()
        } else if self.unsettled.is_empty() {
            self.names.values().copied().collect()
        } else {
            // Settled ones matter only when nothing else is left.
            self.unsettled.iter().copied().collect()
        };
        let campaigns = || wanted.iter().filter_map(|id| self.campaigns.get(id));
        let unsettled = || campaigns().filter(|campaign| campaign.settled().is_none());
        if unsettled().next().is_none() {
            if wanted.is_empty() || wanted.len() < names.len() {
                return Some(Idle::Absent);
            }
            let settled = campaigns().filter_map(super::Campaign::settled).fold(Settled::default(), |sum, one| {
                Settled { quarantined: sum.quarantined + one.quarantined, cancelled: sum.cancelled || one.cancelled }
            });
            return Some(Idle::Settled(settled));
        }
        if self.draining || self.lease_table_is_full() {
            return Some(Idle::Closed);
        }
        if wanted.iter().any(|id| self.lendable.contains(id)) {
            return Some(Idle::Released);
        }
        let running = unsettled().any(|campaign| campaign.row.phase == Phase::Running);
        Some(if running { Idle::Lent } else { Idle::Paused })
    }

    /// A session gave a lease back: it is not lent that task for a while, then looks again.
    pub(super) fn avoid_released(&mut self, slot: u32, lease: &Lease) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let until = session.release(lease.campaign, lease.task, now);
        self.watch_released(slot, until);
    }

    /// The delay after a release is over, or was for another task.
    pub(super) fn released_due(&mut self, slot: u32) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(slot) else { return };
        // An entry that an earlier one replaced must not go on beside it.
        if session.released_timer.is_none_or(|planned| planned > now) {
            return;
        }
        session.released_timer = None;
        // Past delays are remembered for as long again, so that the next release of the task doubles them.
        session.released.retain(|entry| entry.until.after(entry.delay_ms) > now);
        let next = session.released.iter().map(|entry| entry.until).filter(|until| *until > now).min();
        if let Some(next) = next {
            self.watch_released(slot, next);
        }
        let waiting = self.sessions.get(slot).is_some_and(|session| session.arrival.is_some());
        if waiting {
            self.stop_waiting(slot);
            self.ask_for_more(slot);
        }
    }

    /// Looks at a session's delays at `due`, unless that is planned for earlier.
    fn watch_released(&mut self, slot: u32, due: crate::types::Tick) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        if session.released_timer.is_none_or(|planned| due < planned) {
            session.released_timer = Some(due);
            let serial = session.serial;
            self.timers.push(due, Timer::Released(slot, serial));
        }
    }
}
