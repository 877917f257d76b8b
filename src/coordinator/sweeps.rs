//! Work that concerns many rows, done a slice a step: ending what does not outlive a process, removing a campaign,
//! telling holders, opening quarantined tasks.
//!
//! A sweep remembers where it stands. Only removals survive a restart, since their campaign's stored phase says so; the
//! others are begun again by whoever asked, or are not needed any more.

use super::command::{ControlAnswer, TextChange};
use super::rows::{CLEAR_TASKS_UNIT, Changed, LeaseState, RowKey};
use super::{Coordinator, Output};
use crate::types::{CampaignId, ConnectionId, LossReason, TaskIndex};

/// Work in progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sweep {
    /// End the sessions that were connections of the origin's dialect to an earlier process.
    EndOrigin {
        /// The next session slot to look at.
        next: u32,
    },
    /// Tell the holders of a campaign's live leases.
    TellHolders {
        /// The campaign.
        campaign: CampaignId,
        /// The next lease slot to look at.
        next: u32,
        /// What to tell.
        reason: LossReason,
    },
    /// Open a campaign's quarantined tasks again, forget all its troubles, then answer.
    Requeue {
        /// The campaign.
        campaign: CampaignId,
        /// Who asked.
        connection: ConnectionId,
        /// Under which request id.
        request: u32,
        /// Tasks opened so far.
        opened: u64,
    },
    /// Remove a campaign.
    Remove {
        /// The campaign.
        campaign: CampaignId,
        /// What is left to do.
        stage: Stage,
    },
}

/// The stages of a removal, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its leases end; from this slot on.
    Leases(u32),
    /// Its returned runs and troubles go.
    Rows,
    /// Its tasks and texts go; from this one on.
    Tasks(u32),
}

impl Sweep {
    /// A removal from its beginning.
    pub(super) fn remove(campaign: CampaignId) -> Self {
        Self::Remove { campaign, stage: Stage::Leases(0) }
    }
}

impl Coordinator {
    /// Goes on with the first sweep, a slice of it.
    pub(super) fn sweep(&mut self) {
        let Some(sweep) = self.sweeps.pop_front() else { return };
        let rest = match sweep {
            Sweep::EndOrigin { next } => self.sweep_origin(next),
            Sweep::TellHolders { campaign, next, reason } => self.sweep_holders(campaign, next, reason),
            Sweep::Requeue { campaign, connection, request, opened } => {
                self.sweep_requeue(campaign, connection, request, opened)
            }
            Sweep::Remove { campaign, stage } => self.sweep_removal(campaign, stage),
        };
        // The next sweep has its turn before this one goes on.
        self.sweeps.extend(rest);
    }

    fn sweep_origin(&mut self, next: u32) -> Option<Sweep> {
        let end = self.sessions.end();
        let mut budget = self.options.slice;
        for slot in next..end {
            if budget == 0 {
                return Some(Sweep::EndOrigin { next: slot });
            }
            budget -= 1;
            let Some(session) = self.sessions.get(slot) else { continue };
            if session.row.origin && session.connection.is_none() {
                budget = budget.saturating_sub(session.live.len() + session.expired.len());
                self.forget_session(slot);
            }
        }
        None
    }

    fn sweep_holders(&mut self, campaign: CampaignId, next: u32, reason: LossReason) -> Option<Sweep> {
        let to = next.saturating_add(self.options.slice as u32);
        for slot in next..to.min(self.leases.end()) {
            let lease = self.leases.get(slot);
            if lease.is_some_and(|lease| lease.campaign == campaign && lease.state == LeaseState::Live) {
                self.tell_lost(slot, reason);
            }
        }
        (to < self.leases.end()).then_some(Sweep::TellHolders { campaign, next: to, reason })
    }

    fn sweep_requeue(
        &mut self,
        id: CampaignId,
        connection: ConnectionId,
        request: u32,
        mut opened: u64,
    ) -> Option<Sweep> {
        let slice = self.options.slice;
        if let Some(campaign) = self.campaigns.get_mut(&id) {
            let troubles: Vec<_> = campaign.troubles.iter().take(slice).map(|(task, slot)| (*task, *slot)).collect();
            for (task, slot) in &troubles {
                campaign.troubles.remove(task);
                if let Some(trouble) = self.troubles.remove(*slot) {
                    campaign.totals.errors -= u64::from(trouble.errors);
                    campaign.totals.losses -= u64::from(trouble.losses);
                    if trouble.quarantined {
                        campaign.change(*task, |campaign| campaign.quarantined.remove(task));
                        opened += 1;
                    }
                }
                self.touched.push(RowKey::Trouble(*slot));
            }
            let rest = !campaign.troubles.is_empty();
            self.campaign_changed(id, true);
            if rest {
                return Some(Sweep::Requeue { campaign: id, connection, request, opened });
            }
        }
        self.send(connection, Output::Control { id: request, answer: ControlAnswer::Done { tasks: opened } });
        None
    }

    fn sweep_removal(&mut self, id: CampaignId, stage: Stage) -> Option<Sweep> {
        let next = match stage {
            Stage::Leases(next) => self.remove_leases(id, next),
            Stage::Rows => self.remove_rows(id),
            Stage::Tasks(next) => self.remove_tasks(id, next)?,
        };
        Some(Sweep::Remove { campaign: id, stage: next })
    }

    fn remove_leases(&mut self, id: CampaignId, next: u32) -> Stage {
        let to = next.saturating_add(self.options.slice as u32);
        for slot in next..to.min(self.leases.end()) {
            let Some(lease) = self.leases.get(slot).copied().filter(|lease| lease.campaign == id) else { continue };
            if lease.state == LeaseState::Live {
                self.tell_lost(slot, LossReason::Gone);
                self.return_runs(&lease);
            }
            self.keep_expired(slot, LeaseState::Gone);
            self.ask_for_more(lease.session);
        }
        if to < self.leases.end() { Stage::Leases(to) } else { Stage::Rows }
    }

    fn remove_rows(&mut self, id: CampaignId) -> Stage {
        let slice = self.options.slice;
        let Some(campaign) = self.campaigns.get_mut(&id) else { return Stage::Tasks(0) };
        let returned: Vec<_> = campaign.returned.iter().take(slice).map(|(key, slot)| (*key, *slot)).collect();
        for ((task, word), slot) in &returned {
            campaign.change(*task, |campaign| campaign.returned.remove(&(*task, *word)));
            self.returned.remove(*slot);
            self.touched.push(RowKey::Returned(*slot));
        }
        let troubles: Vec<_> = campaign.troubles.iter().take(slice).map(|(task, slot)| (*task, *slot)).collect();
        for (task, slot) in &troubles {
            campaign.troubles.remove(task);
            campaign.change(*task, |campaign| campaign.quarantined.remove(task));
            self.troubles.remove(*slot);
            self.touched.push(RowKey::Trouble(*slot));
        }
        let done = campaign.returned.is_empty() && campaign.troubles.is_empty();
        if done { Stage::Tasks(0) } else { Stage::Rows }
    }

    /// Clears one unit of tasks; `None` when the campaign is gone.
    fn remove_tasks(&mut self, id: CampaignId, next: u32) -> Option<Stage> {
        let campaign = self.campaigns.get_mut(&id)?;
        let (count, keyed) = (campaign.count(), campaign.info.keyed);
        let first = TaskIndex(next);
        campaign.tasks.clear(first, CLEAR_TASKS_UNIT);
        self.step.changes.push(Changed::ClearTasks { campaign: id, first, tasks: CLEAR_TASKS_UNIT });
        if keyed {
            self.step.texts.push(TextChange::Clear { campaign: id, first, tasks: CLEAR_TASKS_UNIT });
        }
        if count - next > CLEAR_TASKS_UNIT {
            return Some(Stage::Tasks(next + CLEAR_TASKS_UNIT));
        }
        self.campaigns.remove(&id);
        self.touch(RowKey::Campaign(id));
        None
    }
}
