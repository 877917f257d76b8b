//! The durable part of the coordinator: a few tables of small rows, and the changes that carry them to the store.
//!
//! A step tells what has [`Changed`]; written down as a [`Change`] it is absolute: the new value of one row, or its removal, so replaying
//! one twice does no harm. What can be computed from rows is not a row (leased counts, open runs, totals): it is rebuilt when rows are restored.
//!
//! | table | key | row |
//! |---|---|---|
//! | globals | — | next campaign id |
//! | campaigns | campaign id | settings and state |
//! | tasks | campaign id, task index | done, extra, issued |
//! | leases | slot | generation, holder, runs |
//! | sessions | slot | id, what was processed and refused |
//! | session names | slot | a text for people |
//! | troubles | slot | a task's errors, losses, quarantine |
//! | returned | slot | up to 64 run numbers of a task that are to be lent again |

use crate::types::{CampaignId, CampaignSpec, CreationId, Refusal, SessionId, TaskIndex};

/// Names one row of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKey {
    /// The one row of the globals.
    Globals,
    /// A campaign.
    Campaign(CampaignId),
    /// A task of a campaign.
    Task(CampaignId, TaskIndex),
    /// A lease slot.
    Lease(u32),
    /// A session slot.
    Session(u32),
    /// The name of the session in a slot.
    SessionName(u32),
    /// A trouble slot.
    Trouble(u32),
    /// A slot of returned runs.
    Returned(u32),
}

impl RowKey {
    /// How many tables there are.
    pub(crate) const TABLES: usize = 8;

    /// The key as the number of its table and a number within that, in the same order as the keys: sorting many numbers is far cheaper.
    pub(crate) fn packed(self) -> (usize, u64) {
        match self {
            Self::Globals => (0, 0),
            Self::Campaign(id) => (1, id.0.into()),
            Self::Task(campaign, task) => (2, u64::from(campaign.0) << 32 | u64::from(task.0)),
            Self::Lease(number) => (3, number.into()),
            Self::Session(number) => (4, number.into()),
            Self::SessionName(number) => (5, number.into()),
            Self::Trouble(number) => (6, number.into()),
            Self::Returned(number) => (7, number.into()),
        }
    }

    /// The key that [`RowKey::packed`] made numbers of.
    pub(crate) fn unpacked(table: usize, number: u64) -> Self {
        let (campaign, position) = (CampaignId((number >> 32) as u32), number as u32);
        match table {
            0 => Self::Globals,
            1 => Self::Campaign(CampaignId(position)),
            2 => Self::Task(campaign, TaskIndex(position)),
            3 => Self::Lease(position),
            4 => Self::Session(position),
            5 => Self::SessionName(position),
            6 => Self::Trouble(position),
            _ => Self::Returned(position),
        }
    }
}

/// One row with its key. What is large and rare is boxed: recovery moves a hundred million of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// The globals.
    Globals(GlobalsRow),
    /// A campaign.
    Campaign(CampaignId, Box<CampaignRow>),
    /// A task.
    Task(CampaignId, TaskIndex, TaskRow),
    /// A lease slot.
    Lease(u32, LeaseRow),
    /// A session.
    Session(u32, SessionRow),
    /// A session's name.
    SessionName(u32, String),
    /// A troubled task.
    Trouble(u32, TroubleRow),
    /// Returned runs.
    Returned(u32, ReturnedRow),
}

impl Row {
    /// The row's key.
    pub fn key(&self) -> RowKey {
        match self {
            Self::Globals(_) => RowKey::Globals,
            Self::Campaign(campaign, _) => RowKey::Campaign(*campaign),
            Self::Task(campaign, task, _) => RowKey::Task(*campaign, *task),
            Self::Lease(slot, _) => RowKey::Lease(*slot),
            Self::Session(slot, _) => RowKey::Session(*slot),
            Self::SessionName(slot, _) => RowKey::SessionName(*slot),
            Self::Trouble(slot, _) => RowKey::Trouble(*slot),
            Self::Returned(slot, _) => RowKey::Returned(*slot),
        }
    }
}

/// That something durable has changed; what it is now, the state tells when it is written: so however often a row changes within a
/// commit, it is looked up and written once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// This row has another value, or is gone.
    Row(RowKey),
    /// The rows of some tasks are gone, as in [`Change::ClearTasks`].
    ClearTasks {
        /// The campaign.
        campaign: CampaignId,
        /// The first task.
        first: TaskIndex,
        /// How many; may reach beyond the last task.
        tasks: u32,
    },
}

/// An absolute change of durable state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The row now has this value.
    Put(Row),
    /// The row is gone.
    Remove(RowKey),
    /// The rows of the tasks `first .. first + tasks` are gone. `first` and `tasks` are multiples of
    /// [`CLEAR_TASKS_UNIT`], so that whole pages fall.
    ClearTasks {
        /// The campaign.
        campaign: CampaignId,
        /// The first task.
        first: TaskIndex,
        /// How many; may reach beyond the last task.
        tasks: u32,
    },
}

/// Tasks are cleared in multiples of this; a stored page of tasks must divide it.
pub const CLEAR_TASKS_UNIT: u32 = 65_536;

/// What belongs to no campaign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalsRow {
    /// The id of the next campaign; ids are never used twice.
    pub next_campaign: u32,
}

/// A campaign's durable state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CampaignRow {
    /// Its settings; `lease_ms` is always filled in.
    pub spec: CampaignSpec,
    /// The creation it came from.
    pub creation: CreationId,
    /// Where it stands.
    pub phase: Phase,
}

/// Where a stored campaign stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its keys are still arriving; dropped when the process ends.
    Creating,
    /// Lends runs.
    Running,
    /// Lends none until resumed.
    Paused,
    /// Lends none any more.
    Cancelled,
    /// Removed for everybody; its rows and texts are being cleared in slices.
    Removing,
}

/// A task's counters, in runs. All zero is the same as no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TaskRow {
    /// Runs that count; at most the quota.
    pub done: u32,
    /// Executions beyond that.
    pub extra: u32,
    /// Numbered campaigns: run numbers below this were lent at some time. Counted ones: 0.
    pub issued: u32,
}

/// One slot of the lease table. It is never removed once used: its generation keeps ids from repeating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRow {
    /// How many leases this slot has held, this one included.
    pub generation: u32,
    /// The lease in it, if any.
    pub lease: Option<Lease>,
}

/// A lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Slot of the session that holds it.
    pub session: u32,
    /// Campaign of its task.
    pub campaign: CampaignId,
    /// Its task.
    pub task: TaskIndex,
    /// Its first run (numbered campaigns; else 0).
    pub first_run: u32,
    /// How many runs, 1..=64.
    pub runs: u32,
    /// Numbered campaigns: bit i is set while run `first_run + i` is still lent under this lease. Counted ones: 0.
    pub own: u64,
    /// Where it stands.
    pub state: LeaseState,
}

/// Where a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// Its runs are its holder's.
    Live,
    /// Its runs went back; a late report still counts.
    Expired,
    /// Its campaign was removed; a late report is refused.
    Gone,
}

/// A session: one client process, or one connection of the origin's dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// Chosen by the client (origin: made from the connection).
    pub id: SessionId,
    /// A connection of the origin's dialect: ends with it, and with the process.
    pub origin: bool,
    /// The highest connection attempt seen.
    pub attempt: u64,
    /// The highest processed request number.
    pub processed: u64,
    /// The highest number whose answer the client has read.
    pub confirmed: u64,
    /// Refused numbers above `confirmed`, ascending, at most [`crate::limits::REFUSALS_MAX`] stretches.
    pub refusals: Vec<Refusal>,
}

/// What went wrong with one task since the last requeue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TroubleRow {
    /// Its campaign.
    pub campaign: CampaignId,
    /// The task.
    pub task: TaskIndex,
    /// Failed runs.
    pub errors: u32,
    /// Lost runs.
    pub losses: u32,
    /// Set aside: not lent until requeued.
    pub quarantined: bool,
    /// The last failure's text, at most [`crate::limits::ERROR_BYTES_MAX`] bytes.
    pub last_error: String,
}

/// Up to 64 returned runs of one task of a numbered campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReturnedRow {
    /// Its campaign.
    pub campaign: CampaignId,
    /// The task.
    pub task: TaskIndex,
    /// The run numbers are `64 * word + i` for every bit i of `runs`.
    pub word: u32,
    /// Which; never 0.
    pub runs: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_keys_are_in_the_order_of_the_keys_and_can_be_unpacked() {
        let (low, high) = (CampaignId(1), CampaignId(u32::MAX));
        let mut keys = vec![RowKey::Globals, RowKey::Campaign(low), RowKey::Campaign(high)];
        keys.extend([low, high].iter().flat_map(|id| [0, u32::MAX].map(|task| RowKey::Task(*id, TaskIndex(task)))));
        for slots in [RowKey::Lease, RowKey::Session, RowKey::SessionName, RowKey::Trouble, RowKey::Returned] {
            keys.extend([0, 7, u32::MAX].map(slots));
        }
        assert!(keys.is_sorted() && keys.is_sorted_by_key(|key| key.packed()));
        let again = |key: &RowKey| RowKey::unpacked(key.packed().0, key.packed().1);
        assert!(keys.iter().all(|key| key.packed().0 < RowKey::TABLES && again(key) == *key));
    }
}
