//! The origin's dialect: no ids, no heartbeats, one answer a message, and still exact.
//!
//! A connection is a session that ends with it. It has at most one lease per task, live or expired, of one unit; a report
//! counts only for a task it has a lease on, and ends that lease, so a resent copy finds none. The answer to a report
//! never names a task reported in it, so the copy cannot find a new lease either. A task that the connection holds a live
//! lease on is not lent to it again: each answer it gets stands for a lease of its own.

use super::command::{CloseReason, OriginAnswer};
use super::rows::{LeaseState, Phase, RowKey};
use super::runs::Executed;
use super::sessions::Session;
use super::{Coordinator, Output};
use crate::limits;
use crate::types::{CampaignId, ConnectionId, SessionId, TaskIndex};

impl Coordinator {
    /// One message: units done of some tasks, and always one answer or the end of the connection.
    pub(super) fn origin(&mut self, connection: ConnectionId, done: &[(u64, u64)]) {
        let Some(slot) = self.origin_session(connection) else {
            self.send(connection, Output::Close(CloseReason::SessionsFull));
            return;
        };
        if self.is_broken(slot) {
            return;
        }
        let campaign = self.origin_campaign(slot);
        let tasks = match self.check_origin(campaign, done) {
            Ok(tasks) => tasks,
            Err(reason) => {
                self.break_origin(slot, reason);
                return;
            }
        };
        let listed = campaign.and_then(|id| self.campaigns.get(&id)).is_some_and(|one| !one.removing());
        for (task, units) in tasks.iter().filter(|_| listed) {
            let Some(lease_slot) = self.origin_lease(slot, *task) else { continue };
            let Some(lease) = self.leases.get(lease_slot).copied() else { continue };
            self.count_report(&lease, Executed { units: *units, done: 0, failures: 0 }, "");
            self.end_lease(lease_slot);
        }
        let answer = campaign.map_or(OriginAnswer::Wait, |id| self.origin_answer(slot, id, &tasks));
        if !self.is_broken(slot) {
            self.send(connection, Output::Origin(answer));
        }
    }

    /// Whether the session's connection is being closed, as only the origin's are: nothing it says is heard.
    pub(super) fn is_broken(&self, slot: u32) -> bool {
        self.sessions.get(slot).and_then(|session| session.origin.as_ref()).is_some_and(|origin| origin.broken)
    }

    /// Closes a connection of the origin's dialect.
    pub(super) fn break_origin(&mut self, slot: u32, reason: CloseReason) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let Some(origin) = session.origin.as_mut().filter(|origin| !origin.broken) else { return };
        origin.broken = true;
        if let Some(connection) = session.connection {
            self.send(connection, Output::Close(reason));
        }
    }

    /// The connection's session; `None` if there is no room for one.
    fn origin_session(&mut self, connection: ConnectionId) -> Option<u32> {
        let now = self.now;
        if let Some(slot) = self.sessions.by_connection(connection) {
            let session = self.sessions.get_mut(slot).filter(|session| session.origin.is_some())?;
            session.heard = now;
            return Some(slot);
        }
        if self.sessions.len() >= self.options.sessions_max {
            return None;
        }
        let mut id = [0; 16];
        id[8..].copy_from_slice(&connection.0.to_be_bytes());
        let slot = self.sessions.insert(Session::new(SessionId(id), "origin".into(), true, now));
        self.sessions.connect(slot, connection);
        Some(slot)
    }

    /// The campaign of a connection, decided as soon as it can be told.
    fn origin_campaign(&mut self, slot: u32) -> Option<CampaignId> {
        if let Some(bound) = self.sessions.get(slot)?.origin.as_ref()?.campaign {
            return Some(bound);
        }
        let counted = |id: &CampaignId| self.campaigns.get(id).is_some_and(|campaign| !campaign.numbered());
        let found = if let Some(name) = &self.options.origin_campaign {
            self.names.get(name).copied().filter(counted)
        } else {
            let mut all = self.names.values().copied().filter(counted);
            all.next().filter(|_| all.next().is_none())
        };
        // One that is still being created may never be.
        let creating = |id: &CampaignId| self.campaigns.get(id).is_some_and(|one| one.row.phase == Phase::Creating);
        let found = found.filter(|id| !creating(id));
        self.sessions.get_mut(slot)?.origin.as_mut()?.campaign = found;
        found
    }

    /// Checks a whole message before anything of it is counted.
    fn check_origin(
        &self,
        campaign: Option<CampaignId>,
        done: &[(u64, u64)],
    ) -> Result<Vec<(TaskIndex, u32)>, CloseReason> {
        let mut tasks = Vec::with_capacity(done.len());
        let campaign = campaign.and_then(|id| self.campaigns.get(&id));
        for (number, units) in done {
            let units = u32::try_from(*units).ok().filter(|units| (1..=limits::UNITS_MAX).contains(units));
            let units = units.ok_or(CloseReason::OriginUnits)?;
            let Some(campaign) = campaign else { continue };
            let index = number.checked_sub(campaign.info.first).and_then(|index| u32::try_from(index).ok());
            let index = index.filter(|index| *index < campaign.count()).ok_or(CloseReason::OriginTask)?;
            tasks.push((TaskIndex(index), units));
        }
        Ok(tasks)
    }

    /// A fresh decision: the lowest open task, except those just reported and those this connection works on.
    fn origin_answer(&mut self, slot: u32, id: CampaignId, reported: &[(TaskIndex, u32)]) -> OriginAnswer {
        let Some(campaign) = self.campaigns.get(&id).filter(|campaign| !campaign.removing()) else {
            return OriginAnswer::Wait;
        };
        if campaign.settled().is_some() {
            return OriginAnswer::Settled;
        }
        let first = campaign.info.first;
        let full = self.lease_table_is_full()
            || self
                .sessions
                .get(slot)
                .is_none_or(|session| session.live.len() >= self.options.leases_per_session_max as usize);
        if !campaign.lendable() || self.draining || full {
            return OriginAnswer::Wait;
        }
        let Some(task) = self.origin_task(slot, id, reported) else { return OriginAnswer::Wait };
        let lent = match self.origin_lease(slot, task) {
            Some(lease_slot) => self.revive(lease_slot),
            None => self.lend(slot, id, task, 1).is_some_and(|lease| {
                let origin = self.sessions.get_mut(slot).and_then(|session| session.origin.as_mut());
                origin.is_some_and(|origin| origin.leases.insert(task, lease.slot).is_none())
            }),
        };
        if lent { OriginAnswer::Task(first + u64::from(task.0)) } else { OriginAnswer::Wait }
    }

    /// The first open task that may be named in the answer.
    fn origin_task(&mut self, slot: u32, id: CampaignId, reported: &[(TaskIndex, u32)]) -> Option<TaskIndex> {
        let Self { sessions, campaigns, leases, .. } = self;
        let held = &sessions.get(slot)?.origin.as_ref()?.leases;
        let live = |task: &TaskIndex| {
            held.get(task).and_then(|slot| leases.get(*slot)).is_some_and(|lease| lease.state == LeaseState::Live)
        };
        let open = &mut campaigns.get_mut(&id)?.open;
        let mut position = None;
        while let Some((level, task)) = open.next(position) {
            if !live(&task) && !reported.iter().any(|(reported, _)| *reported == task) {
                return Some(task);
            }
            position = Some((level, task));
        }
        None
    }

    /// The connection's lease on a task.
    fn origin_lease(&self, slot: u32, task: TaskIndex) -> Option<u32> {
        self.sessions.get(slot)?.origin.as_ref()?.leases.get(&task).copied()
    }

    /// Lends the task of an expired lease again under the same lease.
    fn revive(&mut self, lease_slot: u32) -> bool {
        let Some(lease) = self.leases.get(lease_slot).copied() else { return false };
        let Some((_, runs, _)) = self.take_runs(lease.campaign, lease.task, 1) else { return false };
        self.leases.revive(lease_slot, runs, self.now);
        self.touch(RowKey::Lease(lease_slot));
        if let Some(session) = self.sessions.get_mut(lease.session) {
            session.expired.retain(|expired| *expired != lease_slot);
            self.leases.set_place(lease_slot, session.live.insert(lease_slot));
        }
        self.watch_lease(self.leases.id(lease_slot));
        true
    }
}
