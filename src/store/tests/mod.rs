//! Tests of the store as a whole: a map of rows stands in for the coordinator, so that the ledger is tested alone.

mod damage;
mod directories;
mod dumps;
mod histories;
mod migrations;

use std::collections::BTreeMap;

use super::codec::Damage;
use super::ledger::{Ledger, Pace, Rows};
use super::memory::{MemoryStore, Records};
use super::open::{OpenError, Recovery, find_in_memory};
use super::recovery::Sink;
use super::texts::Texts;
use crate::coordinator::command::TextChange;
use crate::coordinator::rows::{
    CLEAR_TASKS_UNIT, CampaignRow, Change, Changed, GlobalsRow, Lease, LeaseRow, LeaseState, Phase, ReturnedRow, Row,
    RowKey, SessionRow, TaskRow, TroubleRow,
};
use crate::types::{
    CampaignId, CampaignSpec, CreationId, InstanceId, Order, Refusal, RefusalReason, SessionId, TaskIndex, Tasks,
};

pub(super) const INSTANCE: InstanceId = InstanceId([0x11; 16]);

/// The state as a plain map: the oracle of every test here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RowMap(pub(super) BTreeMap<RowKey, Row>);

impl RowMap {
    pub(super) fn apply_all(&mut self, changes: &[Change]) {
        for change in changes {
            self.apply(change);
        }
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Put(row) => {
                self.0.insert(row.key(), row.clone());
            }
            Change::Remove(key) => {
                self.0.remove(key);
            }
            Change::ClearTasks { campaign, first, tasks } => {
                let range = first.0..first.0 + tasks;
                let cleared = |key: &RowKey| matches!(key, RowKey::Task(c, t) if c == campaign && range.contains(&t.0));
                self.0.retain(|key, _| !cleared(key));
            }
        }
    }
}

/// What has changed, without the values.
pub(super) fn changed(changes: &[Change]) -> Vec<Changed> {
    let changed = |change: &Change| match change {
        Change::Put(row) => Changed::Row(row.key()),
        Change::Remove(key) => Changed::Row(*key),
        Change::ClearTasks { campaign, first, tasks } => {
            Changed::ClearTasks { campaign: *campaign, first: *first, tasks: *tasks }
        }
    };
    changes.iter().map(changed).collect()
}

impl Rows for RowMap {
    fn row(&self, key: RowKey) -> Option<Row> {
        self.0.get(&key).cloned()
    }
}

impl Sink for RowMap {
    fn change(&mut self, change: Change) -> Result<(), Damage> {
        self.apply(&change);
        Ok(())
    }
}

/// A ledger over a store, and the rows it found.
pub(super) fn open(store: &MemoryStore) -> Result<(Ledger, Texts, Recovery, RowMap), OpenError> {
    let mut rows = RowMap::default();
    let (ledger, texts, recovery) = find_in_memory(store, INSTANCE, &mut rows)?.begin()?;
    Ok((ledger, texts, recovery, rows))
}

/// The same, with pages in every commit.
pub(super) fn open_writing_pages(store: &MemoryStore) -> Result<(Ledger, Texts, Recovery, RowMap), OpenError> {
    let (mut ledger, texts, recovery, rows) = open(store)?;
    ledger.set_pace(Pace::EVERY_COMMIT);
    Ok((ledger, texts, recovery, rows))
}

/// The rows that a new process would find, without writing.
pub(super) fn recovered(records: Records) -> Result<RowMap, OpenError> {
    let mut rows = RowMap::default();
    find_in_memory(&MemoryStore::with(records), INSTANCE, &mut rows)?;
    Ok(rows)
}

/// A plain generator of numbers (splitmix64): the same seed, the same history.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn small(&mut self) -> u32 {
        self.below(300) as u32
    }

    /// A few changes of rows in a few pages of every table.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        let count = self.below(30);
        (0..count).map(|_| self.change()).collect()
    }

    fn change(&mut self) -> Change {
        match self.below(20) {
            0 => {
                let first = TaskIndex(self.below(2) as u32 * CLEAR_TASKS_UNIT);
                Change::ClearTasks { campaign: self.campaign(), first, tasks: CLEAR_TASKS_UNIT }
            }
            1..=4 => Change::Remove(self.row().key()),
            _ => Change::Put(self.row()),
        }
    }

    fn campaign(&mut self) -> CampaignId {
        CampaignId(1 + self.below(3) as u32)
    }

    fn task(&mut self) -> TaskIndex {
        // Two stretches that are cleared apart, and several rows of the map.
        TaskIndex(self.below(2) as u32 * CLEAR_TASKS_UNIT + self.below(400) as u32)
    }

    pub(super) fn row(&mut self) -> Row {
        let slot = self.small();
        match self.below(12) {
            0 => Row::Globals(GlobalsRow { next_campaign: slot }),
            1 => {
                let id = self.campaign();
                let mut row = campaign(self.below(1000) as u32);
                // Without keys, since these histories store none.
                row.spec.tasks = Tasks::Range { first: 3, count: 1_000_000 };
                Row::Campaign(id, Box::new(row))
            }
            2..=5 => {
                let counters = TaskRow { done: 1 + self.small(), extra: self.small(), issued: self.small() };
                Row::Task(self.campaign(), self.task(), counters)
            }
            6 | 7 => Row::Lease(slot, self.lease()),
            8 => Row::Session(slot, self.session()),
            9 => Row::SessionName(slot, "x".repeat(self.below(128) as usize)),
            10 => {
                let trouble = TroubleRow {
                    campaign: self.campaign(),
                    task: self.task(),
                    errors: self.small(),
                    losses: self.small(),
                    quarantined: self.below(2) == 0,
                    last_error: "e".repeat(self.below(200) as usize),
                };
                Row::Trouble(slot, trouble)
            }
            _ => {
                let runs = 1 + self.below(u64::MAX - 1);
                Row::Returned(slot, ReturnedRow { campaign: self.campaign(), task: self.task(), word: slot, runs })
            }
        }
    }

    fn lease(&mut self) -> LeaseRow {
        let state = [LeaseState::Live, LeaseState::Expired, LeaseState::Gone][self.below(3) as usize];
        let lease = Lease {
            session: self.small(),
            campaign: self.campaign(),
            task: self.task(),
            first_run: self.small(),
            runs: 1 + self.below(64) as u32,
            own: self.below(u64::MAX),
            state,
        };
        LeaseRow { generation: self.small(), lease: (self.below(3) > 0).then_some(lease) }
    }

    fn session(&mut self) -> SessionRow {
        let reasons = [RefusalReason::NotHeld, RefusalReason::Ended, RefusalReason::Gone, RefusalReason::BadRuns];
        let refusal = |number: u64| Refusal { from: number, to: number, reason: reasons[number as usize % 4] };
        SessionRow {
            id: SessionId([self.below(256) as u8; 16]),
            origin: self.below(2) == 0,
            attempt: self.below(1000),
            processed: self.below(1000),
            confirmed: self.below(1000),
            refusals: (0..self.below(33)).map(refusal).collect(),
        }
    }
}

pub(super) fn campaign(runs: u32) -> CampaignRow {
    CampaignRow {
        spec: CampaignSpec {
            name: format!("c{runs}"),
            tasks: Tasks::Keys { count: 5 },
            runs,
            seed: Some(7),
            order: Order::Even,
            lease_ms: Some(60_000),
            timeout_ms: None,
            errors_max: Some(3),
            losses_max: None,
        },
        creation: CreationId([9; 16]),
        phase: Phase::Running,
    }
}

pub(super) fn put_texts(campaign: u32, first: u32, keys: &[String]) -> TextChange {
    TextChange::Put { campaign: CampaignId(campaign), first: TaskIndex(first), keys: keys.to_vec() }
}
