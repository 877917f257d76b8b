//! One campaign: its tasks' counters, which of them are open, and how runs move between open, lent, returned and done.
//!
//! ```text
//!                 lend                   done (own, late)
//!   not issued ─────────▶ lent ───────────────────────────────▶ done
//!                          │ ▲                                   ▲
//!       failed, expired,   │ │ lend                              │ late
//!       released, not run  ▼ │                                   │
//!                        returned ───────────────────────────────┘
//! ```
//!
//! In a counted campaign runs are exchangeable and the picture is two counters, done and leased. In a numbered one every
//! run has its number: `issued` numbers were lent at some time, and **invariant** issued == done + lent + returned. Late
//! reports take a run wherever it is; what is done already is counted as extra. Methods return what must be stored anew;
//! nothing here knows sessions or leases beyond their runs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::open::OpenTasks;
use super::rows::{CampaignRow, Phase};
use super::tasks::{Counters, Tasks};
use crate::types::{
    CampaignId, CampaignInfo, CampaignState, CampaignStatus, Order, Settled, TaskIndex, TaskState, Tick,
};

/// A campaign.
#[derive(Debug)]
pub(super) struct Campaign {
    /// Its id.
    pub(super) id: CampaignId,
    /// What is stored of it.
    pub(super) row: CampaignRow,
    /// What workers are told.
    pub(super) info: Arc<CampaignInfo>,
    /// Its tasks' counters. Changed only through the methods below, which keep `open` and `totals` in step.
    pub(super) tasks: Tasks,
    /// Its open tasks.
    pub(super) open: OpenTasks,
    /// Sums over its tasks.
    pub(super) totals: Totals,
    /// Slots of its returned runs, by task and word.
    pub(super) returned: BTreeMap<(TaskIndex, u32), u32>,
    /// Slots of its troubles, by task.
    pub(super) troubles: BTreeMap<TaskIndex, u32>,
    /// Its tasks that are set aside and not done.
    pub(super) quarantined: BTreeSet<TaskIndex>,
    /// Numbered: slots of live leases, by task and first run. Live leases of a task never overlap, since a run leaves a live
    /// lease only when it is done.
    pub(super) lent: BTreeMap<(TaskIndex, u32), u32>,
    /// While it is being created.
    pub(super) creation: Option<Creation>,
}

/// What is known of a campaign while its keys arrive.
#[derive(Debug)]
pub(super) struct Creation {
    /// How many keys have arrived.
    pub(super) added: u32,
    /// Digests of those keys.
    pub(super) keys: HashSet<[u8; 16]>,
    /// When the last message of the creation came.
    pub(super) heard: Tick,
}

/// Sums over the tasks of a campaign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) tasks_done: u64,
    pub(super) runs_done: u64,
    pub(super) runs_extra: u64,
    pub(super) runs_leased: u64,
    pub(super) errors: u64,
    pub(super) losses: u64,
}

impl Campaign {
    /// A campaign whose tasks nobody has touched.
    pub(super) fn new(id: CampaignId, row: CampaignRow) -> Self {
        let spec = &row.spec;
        let first_level = first_level(row.spec.order, row.spec.seed.is_some());
        Self {
            id,
            info: Arc::new(CampaignInfo {
                id,
                name: spec.name.as_str().into(),
                first: spec.tasks.first(),
                seed: spec.seed,
                keyed: matches!(spec.tasks, crate::types::Tasks::Keys { .. }),
                lease_ms: spec.lease_ms.unwrap_or(crate::limits::LEASE_MS_DEFAULT),
                timeout_ms: spec.timeout_ms,
            }),
            tasks: Tasks::default(),
            open: OpenTasks::new(spec.tasks.count(), first_level),
            totals: Totals::default(),
            returned: BTreeMap::new(),
            troubles: BTreeMap::new(),
            quarantined: BTreeSet::new(),
            lent: BTreeMap::new(),
            creation: None,
            row,
        }
    }

    /// Its quota.
    pub(super) fn quota(&self) -> u32 {
        self.row.spec.runs
    }

    /// Whether its runs have numbers.
    pub(super) fn numbered(&self) -> bool {
        self.row.spec.seed.is_some()
    }

    /// How many tasks it has.
    pub(super) fn count(&self) -> u32 {
        self.row.spec.tasks.count()
    }

    /// Whether it was removed: nobody can name it any more, and its rows are being cleared.
    pub(super) fn removing(&self) -> bool {
        self.row.phase == Phase::Removing
    }

    /// Whether it lends and has something to lend.
    pub(super) fn lendable(&self) -> bool {
        self.row.phase == Phase::Running && !self.open.is_empty()
    }

    /// How it settled; `None` while it has not.
    pub(super) fn settled(&self) -> Option<Settled> {
        let quarantined = self.quarantined.len() as u64;
        let cancelled = self.row.phase == Phase::Cancelled;
        let all = self.totals.tasks_done + quarantined == u64::from(self.count());
        let created = self.row.phase != Phase::Creating;
        ((all && created) || cancelled).then_some(Settled { quarantined, cancelled: cancelled && !self.finished() })
    }

    /// Whether every count has reached its quota.
    pub(super) fn finished(&self) -> bool {
        self.totals.tasks_done == u64::from(self.count())
    }

    /// Its status.
    pub(super) fn status(&self) -> CampaignStatus {
        CampaignStatus {
            id: self.id,
            spec: self.row.spec.clone(),
            state: match self.row.phase {
                Phase::Creating => CampaignState::Creating,
                Phase::Running => CampaignState::Running,
                Phase::Paused => CampaignState::Paused,
                Phase::Cancelled | Phase::Removing => CampaignState::Cancelled,
            },
            settled: self.settled().is_some(),
            finished: self.finished(),
            tasks_done: self.totals.tasks_done,
            tasks_quarantined: self.quarantined.len() as u64,
            runs_done: self.totals.runs_done,
            runs_extra: self.totals.runs_extra,
            runs_leased: self.totals.runs_leased,
            errors: self.totals.errors,
            losses: self.totals.losses,
        }
    }

    /// Where a task stands.
    pub(super) fn task_state(&self, task: TaskIndex) -> TaskState {
        if self.tasks.get(task).row.done >= self.quota() {
            TaskState::Done
        } else if self.quarantined.contains(&task) {
            TaskState::Quarantined
        } else {
            TaskState::Open
        }
    }

    /// The level at which a task is open; `None` if it has nothing to lend.
    pub(super) fn level(&self, task: TaskIndex) -> Option<u32> {
        if !self.quarantined.is_empty() && self.quarantined.contains(&task) {
            return None;
        }
        let Counters { row, leased } = self.tasks.get(task);
        if self.numbered() {
            let has_returned =
                !self.returned.is_empty() && self.returned.range((task, 0)..=(task, u32::MAX)).next().is_some();
            return match self.row.spec.order {
                Order::Lowest => (has_returned || row.issued < self.quota()).then_some(0),
                Order::Even if has_returned => Some(0),
                Order::Even => (row.issued < self.quota()).then(|| row.issued + 1),
            };
        }
        let taken = row.done.saturating_add(leased);
        (taken < self.quota()).then_some(match self.row.spec.order {
            Order::Lowest => 0,
            Order::Even => taken,
        })
    }

    /// Changes something about a task and keeps index and totals in step.
    pub(super) fn change<T>(&mut self, task: TaskIndex, change: impl FnOnce(&mut Self) -> T) -> T {
        let level_before = self.level(task);
        let before = self.tasks.get(task);
        let result = change(self);
        let after = self.tasks.get(task);
        let level_after = self.level(task);
        if level_before != level_after {
            if let Some(level) = level_before {
                self.open.remove(level, task);
            }
            if let Some(level) = level_after {
                self.open.insert(level, task);
            }
        }
        let quota = self.quota();
        let totals = &mut self.totals;
        totals.tasks_done += u64::from(after.row.done >= quota);
        totals.tasks_done -= u64::from(before.row.done >= quota);
        totals.runs_done += u64::from(after.row.done) - u64::from(before.row.done);
        totals.runs_extra += u64::from(after.row.extra) - u64::from(before.row.extra);
        totals.runs_leased = totals.runs_leased + u64::from(after.leased) - u64::from(before.leased);
        result
    }

    /// Lends up to `runs` runs of an open task that were never issued (or, counted, any): (first run, runs).
    pub(super) fn lend_new(&mut self, task: TaskIndex, runs: u32) -> (u32, u32) {
        let quota = self.quota();
        let numbered = self.numbered();
        self.change(task, |campaign| {
            let counters = campaign.tasks.get_mut(task);
            if numbered {
                let first = counters.row.issued;
                let runs = runs.min(quota - first);
                counters.row.issued += runs;
                counters.leased += runs;
                (first, runs)
            } else {
                let runs = runs.min(quota.saturating_sub(counters.row.done.saturating_add(counters.leased)));
                counters.leased += runs;
                (0, runs)
            }
        })
    }

    /// Counts units of a counted task, `ended` of which were under a live lease until now.
    pub(super) fn count_units(&mut self, task: TaskIndex, units: u32, ended: u32) {
        let quota = self.quota();
        self.change(task, |campaign| {
            let counters = campaign.tasks.get_mut(task);
            counters.leased = counters.leased.saturating_sub(ended);
            let counted = units.min(quota.saturating_sub(counters.row.done));
            counters.row.done += counted;
            counters.row.extra = counters.row.extra.saturating_add(units - counted);
        });
    }
}

/// The level of untouched tasks.
pub(super) fn first_level(order: Order, numbered: bool) -> u32 {
    match order {
        Order::Lowest => 0,
        Order::Even => u32::from(numbered),
    }
}
