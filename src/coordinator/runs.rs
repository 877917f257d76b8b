//! How runs move: lending, returning, counting, and the charges for failures and losses.
//!
//! These are the only functions that change a task. Each keeps the campaign's books (`campaign.rs`), notes the touched
//! rows and tells whether a run opened. A numbered run is in exactly one place: not issued, lent under one live lease,
//! returned, or done.

use super::Coordinator;
use super::campaign::Campaign;
use super::rows::{Lease, LeaseState, ReturnedRow, RowKey, TroubleRow};
use super::slots::Slots;
use crate::limits;
use crate::types::{CampaignId, LossReason, Order, TaskIndex};

/// What a report of a lease says, with bounds already checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Executed {
    /// Counted campaigns: units done. Numbered ones: 0.
    pub(super) units: u32,
    /// Numbered campaigns: bit i is the i-th run of the lease, done. Counted ones: 0.
    pub(super) done: u64,
    /// Runs that failed.
    pub(super) failures: u32,
}

/// A mask of the lowest `runs` bits.
pub(super) fn mask(runs: u32) -> u64 {
    debug_assert!((1..=64).contains(&runs));
    u64::MAX >> (64 - runs.clamp(1, 64))
}

impl Coordinator {
    /// Takes up to `runs` runs of an open task for a lease: (first run, how many, mask of own runs).
    pub(super) fn take_runs(&mut self, id: CampaignId, task: TaskIndex, runs: u32) -> Option<(u32, u32, u64)> {
        let campaign = self.campaigns.get_mut(&id)?;
        let runs = match campaign.row.spec.order {
            Order::Lowest => runs.clamp(1, limits::LEASE_RUNS_MAX),
            Order::Even => 1,
        };
        let numbered = campaign.numbered();
        let (first, taken) = match campaign.take_returned(&mut self.returned, task, runs) {
            Some((slot, first, taken)) => {
                self.touched.push(RowKey::Returned(slot));
                (first, taken)
            }
            None => campaign.lend_new(task, runs),
        };
        if taken == 0 {
            return None;
        }
        self.touch(RowKey::Task(id, task));
        self.campaign_changed(id, false);
        Some((first, taken, if numbered { mask(taken) } else { 0 }))
    }

    /// Gives back the runs that a live lease still owns. The caller ends the lease.
    pub(super) fn return_runs(&mut self, lease: &Lease) {
        if lease.state != LeaseState::Live {
            return;
        }
        let Some(campaign) = self.campaigns.get_mut(&lease.campaign) else { return };
        if campaign.numbered() {
            campaign.lent.remove(&(lease.task, lease.first_run));
            let touched = campaign.put_returned(&mut self.returned, lease);
            self.touched.extend(touched.into_iter().map(RowKey::Returned));
        } else {
            campaign.count_units(lease.task, 0, lease.runs);
        }
        self.touch(RowKey::Task(lease.campaign, lease.task));
        self.campaign_changed(lease.campaign, true);
    }

    /// Counts what was executed under a lease, live or expired, and returns the rest. The caller ends the lease.
    pub(super) fn count_report(&mut self, lease: &Lease, executed: Executed, error: &str) {
        if !self.campaigns.contains_key(&lease.campaign) {
            return;
        }
        let live = lease.state == LeaseState::Live;
        if executed.done == 0 && executed.units == 0 {
            self.return_runs(lease);
        } else if executed.done != 0 {
            let mut rest = *lease;
            for bit in (0..lease.runs).filter(|bit| executed.done >> bit & 1 == 1) {
                self.count_run(lease, bit);
                rest.own &= !(1 << bit);
            }
            self.return_runs(&rest);
        } else if let Some(campaign) = self.campaigns.get_mut(&lease.campaign) {
            campaign.count_units(lease.task, executed.units, if live { lease.runs } else { 0 });
            self.touch(RowKey::Task(lease.campaign, lease.task));
            self.campaign_changed(lease.campaign, true);
        }
        if executed.failures > 0 {
            self.charge(lease.campaign, lease.task, executed.failures, 0, Some(error));
        }
        self.settle_trouble(lease.campaign, lease.task);
    }

    /// Charges failed and lost runs to a task, and sets it aside when a budget is used up.
    pub(super) fn charge(&mut self, id: CampaignId, task: TaskIndex, errors: u32, losses: u32, error: Option<&str>) {
        let Some(campaign) = self.campaigns.get_mut(&id) else { return };
        campaign.totals.errors += u64::from(errors);
        campaign.totals.losses += u64::from(losses);
        let slot = *campaign.troubles.entry(task).or_insert_with(|| {
            self.troubles.insert(TroubleRow {
                campaign: id,
                task,
                errors: 0,
                losses: 0,
                quarantined: false,
                last_error: String::new(),
            })
        });
        let Some(trouble) = self.troubles.get_mut(slot) else { return };
        trouble.errors = trouble.errors.saturating_add(errors);
        trouble.losses = trouble.losses.saturating_add(losses);
        if let Some(error) = error {
            cut(error, limits::ERROR_BYTES_MAX).clone_into(&mut trouble.last_error);
        }
        let spec = &campaign.row.spec;
        let over = spec.errors_max.is_some_and(|max| trouble.errors >= max)
            || spec.losses_max.is_some_and(|max| trouble.losses >= max);
        let below_quota = campaign.tasks.get(task).row.done < campaign.quota();
        if over && below_quota && !trouble.quarantined {
            trouble.quarantined = true;
            campaign.change(task, |campaign| campaign.quarantined.insert(task));
        }
        self.touch(RowKey::Trouble(slot));
        self.campaign_changed(id, false);
    }

    /// A task that reached its quota is done, even if it was set aside.
    fn settle_trouble(&mut self, id: CampaignId, task: TaskIndex) {
        let Some(campaign) = self.campaigns.get_mut(&id) else { return };
        if campaign.tasks.get(task).row.done < campaign.quota() || !campaign.quarantined.contains(&task) {
            return;
        }
        campaign.change(task, |campaign| campaign.quarantined.remove(&task));
        let Some(slot) = campaign.troubles.get(&task).copied() else { return };
        if let Some(trouble) = self.troubles.get_mut(slot) {
            trouble.quarantined = false;
        }
        self.touch(RowKey::Trouble(slot));
        self.campaign_changed(id, false);
    }

    /// Counts one run of a numbered lease, wherever it is by now.
    fn count_run(&mut self, lease: &Lease, bit: u32) {
        let Some(campaign) = self.campaigns.get_mut(&lease.campaign) else { return };
        let (task, run) = (lease.task, lease.first_run + bit);
        self.touched.push(RowKey::Task(lease.campaign, task));
        if lease.state == LeaseState::Live && lease.own >> bit & 1 == 1 {
            campaign.finish_run(task);
        } else if let Some(slot) = campaign.remove_returned(&mut self.returned, task, run) {
            self.touched.push(RowKey::Returned(slot));
        } else if let Some(slot) = campaign.strike(&mut self.leases, task, run) {
            self.touched.push(RowKey::Lease(slot));
            if self.leases.get(slot).is_some_and(|struck| struck.own == 0) {
                self.tell_lost(slot, LossReason::DoneElsewhere);
            }
        } else {
            campaign.change(task, |campaign| {
                let row = &mut campaign.tasks.get_mut(task).row;
                row.extra = row.extra.saturating_add(1);
            });
        }
        self.campaign_changed(lease.campaign, false);
    }
}

impl Campaign {
    /// Takes the lowest returned runs of a task, as many as stand together in one word: (slot, first run, how many).
    fn take_returned(&mut self, table: &mut Slots<ReturnedRow>, task: TaskIndex, runs: u32) -> Option<(u32, u32, u32)> {
        let (&(_, word), &slot) = self.returned.range((task, 0)..=(task, u32::MAX)).next()?;
        let row = table.get(slot)?;
        let first = row.runs.trailing_zeros();
        let taken = (row.runs >> first).trailing_ones().min(runs);
        self.change(task, |campaign| {
            campaign.clear_returned(table, task, word, mask(taken) << first);
            campaign.tasks.get_mut(task).leased += taken;
        });
        Some((slot, word * 64 + first, taken))
    }

    /// Puts the runs that a lease owns among the returned ones; returns the touched slots.
    fn put_returned(&mut self, table: &mut Slots<ReturnedRow>, lease: &Lease) -> Vec<u32> {
        let (campaign_id, task) = (self.id, lease.task);
        let mut slots = Vec::with_capacity(2);
        self.change(task, |campaign| {
            campaign.tasks.get_mut(task).leased -= lease.own.count_ones();
            // 64 runs from any first run lie in two words.
            let wide = u128::from(lease.own) << (lease.first_run % 64);
            for (word, runs) in [(lease.first_run / 64, wide as u64), (lease.first_run / 64 + 1, (wide >> 64) as u64)] {
                if runs == 0 {
                    continue;
                }
                let slot = *campaign
                    .returned
                    .entry((task, word))
                    .or_insert_with(|| table.insert(ReturnedRow { campaign: campaign_id, task, word, runs: 0 }));
                if let Some(row) = table.get_mut(slot) {
                    row.runs |= runs;
                }
                slots.push(slot);
            }
        });
        slots
    }

    /// Counts a returned run as done: the touched slot, or `None` if the run is not among the returned.
    fn remove_returned(&mut self, table: &mut Slots<ReturnedRow>, task: TaskIndex, run: u32) -> Option<u32> {
        let word = run / 64;
        let slot = *self.returned.get(&(task, word))?;
        let row = table.get(slot)?;
        if row.runs >> (run % 64) & 1 == 0 {
            return None;
        }
        self.change(task, |campaign| {
            campaign.clear_returned(table, task, word, 1 << (run % 64));
            campaign.tasks.get_mut(task).row.done += 1;
        });
        Some(slot)
    }

    /// Counts a run that is lent under a live lease as done and strikes it from that lease: the lease's slot, or `None` if
    /// no live lease owns the run.
    fn strike(&mut self, leases: &mut super::leases::Leases, task: TaskIndex, run: u32) -> Option<u32> {
        let (&(_, first), &slot) = self.lent.range((task, 0)..=(task, run)).next_back()?;
        let lease = leases.get_mut(slot)?;
        let bit = run - first;
        if bit >= lease.runs || lease.own >> bit & 1 == 0 {
            return None;
        }
        lease.own &= !(1 << bit);
        self.finish_run(task);
        Some(slot)
    }

    /// One run of the task, lent until now, is done.
    fn finish_run(&mut self, task: TaskIndex) {
        self.change(task, |campaign| {
            let counters = campaign.tasks.get_mut(task);
            counters.row.done += 1;
            counters.leased -= 1;
        });
    }

    /// Takes bits out of a word of returned runs, and the word out of the table when it is empty.
    fn clear_returned(&mut self, table: &mut Slots<ReturnedRow>, task: TaskIndex, word: u32, runs: u64) {
        let Some(slot) = self.returned.get(&(task, word)).copied() else { return };
        let Some(row) = table.get_mut(slot) else { return };
        row.runs &= !runs;
        if row.runs == 0 {
            table.remove(slot);
            self.returned.remove(&(task, word));
        }
    }
}

/// The longest prefix of at most `bytes` bytes that ends between characters.
pub(super) fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}
