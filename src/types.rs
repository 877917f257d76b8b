//! The words of the project as types: ids, settings, states and answers that every layer shares.
//!
//! Everything here is plain data: no I/O, no clock, no encoding. The wire (`protocol`) and the disk (`store`) have
//! their own types with explicit numbers and convert at their edge, so a change of a name here never changes a byte.
//! Tested in this file: the golden values of the seed function and the parsing of names.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::limits;

/// A point in time on the coordinator's own monotonic clock, in milliseconds since the process started.
///
/// Ticks are handed in from outside; they mean nothing in another process and are never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(pub u64);

impl Tick {
    /// The tick `milliseconds` later; saturates at the end of time.
    #[must_use]
    pub fn after(self, milliseconds: u64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }

    /// Milliseconds from `earlier` to this tick; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Number of a campaign within one data directory, from 1; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CampaignId(pub u32);

/// Position of a task within its campaign, from 0. What people see is the task *number*: the campaign's first number
/// plus this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskIndex(pub u32);

/// A lease's name: a slot of the lease table and how many leases that slot has held, so that an id is never used twice
/// in the life of a data directory, restarts included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId {
    /// Slot in the lease table, from 0.
    pub slot: u32,
    /// Generation of the slot, from 1.
    pub generation: u32,
}

impl LeaseId {
    /// The id as one number: generation in the upper, slot in the lower 32 bits. This is what wire and people see.
    pub fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// The inverse of [`LeaseId::to_u64`]; every number is some id.
    pub fn from_u64(number: u64) -> Self {
        Self { slot: number as u32, generation: (number >> 32) as u32 }
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.to_u64())
    }
}

macro_rules! random_id {
    ($(#[$documentation:meta])* $name:ident) => {
        $(#[$documentation])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// All zeros: no id.
            pub const NONE: Self = Self([0; 16]);

            /// Reads 32 hexadecimal digits, as [`fmt::Display`] writes them.
            pub fn parse(text: &str) -> Option<Self> {
                if text.len() != 32 || !text.is_ascii() {
                    return None;
                }
                let mut bytes = [0; 16];
                for (index, byte) in bytes.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).ok()?;
                }
                Some(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}({self})", stringify!($name))
            }
        }
    };
}

random_id! {
    /// A session's name: 128 random bits that the client chose, so that registering twice is registering once.
    SessionId
}
random_id! {
    /// A data directory's identity: 128 random bits drawn when it was created. A client that meets another instance knows
    /// that its session means nothing there.
    InstanceId
}
random_id! {
    /// The identity of one creation of a campaign, chosen by the client: the same creation sent twice is one campaign.
    CreationId
}

/// One connection of the running server process, from 1; never used twice in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// In what order tasks go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// Lowest task number first, all its runs before the next task's (the origin's order).
    Lowest,
    /// Every task's k-th run before any task's (k+1)-th; returned runs before new ones.
    Even,
}

/// What a campaign's tasks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tasks {
    /// The numbers `first .. first + count`.
    Range {
        /// Number of the first task.
        first: u64,
        /// How many tasks, 1..=[`limits::TASKS_MAX`].
        count: u32,
    },
    /// `count` texts, numbered from 0, sent after the creation was begun.
    Keys {
        /// How many tasks, 1..=[`limits::TASKS_MAX`].
        count: u32,
    },
}

impl Tasks {
    /// Number of the first task.
    pub fn first(self) -> u64 {
        match self {
            Self::Range { first, .. } => first,
            Self::Keys { .. } => 0,
        }
    }

    /// How many tasks.
    pub fn count(self) -> u32 {
        match self {
            Self::Range { count, .. } | Self::Keys { count } => count,
        }
    }
}

/// Everything that is decided when a campaign is created and never changes after.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CampaignSpec {
    /// Its name: see [`CampaignSpec::check`] for the alphabet.
    pub name: String,
    /// Its tasks.
    pub tasks: Tasks,
    /// The quota: how many runs every task is to get, 1..=[`limits::RUNS_MAX`].
    pub runs: u32,
    /// `Some` makes a *numbered* campaign: run numbers are identities and have seeds. `None` is a *counted* one.
    pub seed: Option<u64>,
    /// In what order tasks go out.
    pub order: Order,
    /// How long a lease lives without a sign of life from its holder, in milliseconds; `None` takes the server's default.
    pub lease_ms: Option<u64>,
    /// How long one run may take before its lease ends in spite of heartbeats, in milliseconds; `None` is no limit.
    pub timeout_ms: Option<u64>,
    /// After how many failures a task is quarantined; `None` is never.
    pub errors_max: Option<u32>,
    /// After how many lost runs a task is quarantined; `None` is never.
    pub losses_max: Option<u32>,
}

/// Why a [`CampaignSpec`] cannot be created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The name is empty, too long or has a character outside the alphabet.
    #[error(
        "a campaign's name is 1 to {} letters, digits, '.', '_' or '-', and begins with a letter or digit",
        limits::NAME_BYTES_MAX
    )]
    Name,
    /// No tasks, or too many, or task numbers beyond 2^63.
    #[error("a campaign has 1 to 1,000,000,000 tasks, numbered below 2^63")]
    Tasks,
    /// The quota is out of range.
    #[error("a task has 1 to 1,000,000,000 runs")]
    Runs,
    /// The lease is out of range.
    #[error("a lease lasts 100ms to 30days")]
    Lease,
    /// The timeout is out of range.
    #[error("a run's timeout is 100ms to 365days, or none")]
    Timeout,
    /// An error or loss budget of zero.
    #[error("an error or loss budget is at least 1, or none")]
    Budget,
}

// The texts above name these bounds as people write them.
const _: () = assert!(limits::TASKS_MAX == 1_000_000_000 && limits::RUNS_MAX == 1_000_000_000);
const _: () = assert!(limits::LEASE_MS_MIN == 100 && limits::LEASE_MS_MAX == 30 * 24 * 3_600_000);
const _: () = assert!(limits::TIMEOUT_MS_MIN == 100 && limits::TIMEOUT_MS_MAX == 365 * 24 * 3_600_000);

impl CampaignSpec {
    /// Checks every bound.
    ///
    /// # Errors
    /// The first bound that is broken; nothing has been changed.
    pub fn check(&self) -> Result<(), SpecError> {
        let name = self.name.as_bytes();
        let in_alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let begins_well = name.first().is_some_and(u8::is_ascii_alphanumeric);
        if !begins_well || name.len() > limits::NAME_BYTES_MAX || !name.iter().all(in_alphabet) {
            return Err(SpecError::Name);
        }
        let (first, count) = (self.tasks.first(), self.tasks.count());
        if count == 0 || count > limits::TASKS_MAX || first.saturating_add(u64::from(count)) > 1 << 63 {
            return Err(SpecError::Tasks);
        }
        if self.runs == 0 || self.runs > limits::RUNS_MAX {
            return Err(SpecError::Runs);
        }
        if self.lease_ms.is_some_and(|ms| !(limits::LEASE_MS_MIN..=limits::LEASE_MS_MAX).contains(&ms)) {
            return Err(SpecError::Lease);
        }
        if self.timeout_ms.is_some_and(|ms| !(limits::TIMEOUT_MS_MIN..=limits::TIMEOUT_MS_MAX).contains(&ms)) {
            return Err(SpecError::Timeout);
        }
        if self.errors_max == Some(0) || self.losses_max == Some(0) {
            return Err(SpecError::Budget);
        }
        Ok(())
    }
}

/// The seed of one run of a numbered campaign: the first 53 bits (big-endian) of
/// SHA-256(le64 `campaign_seed` ‖ le64 `task` ‖ le64 `run`).
///
/// The same whatever worker, order, batch or retry ran it. 53 bits, so that it is exact in every language's doubles.
/// `task` is the task's number (not its index), `run` counts from 0.
pub fn run_seed(campaign_seed: u64, task: u64, run: u64) -> u64 {
    let mut hash = Sha256::new();
    hash.update(campaign_seed.to_le_bytes());
    hash.update(task.to_le_bytes());
    hash.update(run.to_le_bytes());
    let digest = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first) >> 11
}

/// What became of the runs of one lease, as a client reports it. A report ends its lease: runs it does not name go back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The first `runs` runs are done. Counted campaigns: 1..=[`limits::UNITS_MAX`], also more than were leased. Numbered:
    /// 1..=the lease's runs.
    Done {
        /// How many.
        runs: u32,
    },
    /// Bit i speaks of the i-th run of the lease. A run in neither mask was not executed.
    Mixed {
        /// Runs that are done.
        done: u64,
        /// Runs that failed; no bit may be in both masks, and at least one bit must be set in one of them.
        failed: u64,
        /// What went wrong, for a person; cut to [`limits::ERROR_BYTES_MAX`] bytes.
        error: String,
    },
}

/// A numbered request of a session: counted (or refused) exactly once, however often it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// What became of a lease.
    Report {
        /// The lease.
        lease: LeaseId,
        /// What became of its runs.
        outcome: Outcome,
    },
    /// The lease is given back unexecuted; its runs go to others, and to this session only after a growing delay.
    Release {
        /// The lease.
        lease: LeaseId,
    },
}

/// Why a report or release was refused. Nothing was counted, and the same request will never be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusalReason {
    /// No such lease: it never existed, or another session holds it.
    NotHeld,
    /// The lease has ended: it was reported or released before, or it expired so long ago that it was forgotten.
    Ended,
    /// Its campaign was removed.
    Gone,
    /// The report speaks of runs that the lease does not have, of none, or of more units than a report may have.
    BadRuns,
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NotHeld => "no such lease is held by this session",
            Self::Ended => "the lease has ended: reported, released, or expired and forgotten",
            Self::Gone => "the campaign was removed",
            Self::BadRuns => "the report names runs that the lease does not have",
        })
    }
}

/// A stretch of refused requests: numbers `from ..= to`, all for the same reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// First number.
    pub from: u64,
    /// Last number.
    pub to: u64,
    /// Why.
    pub reason: RefusalReason,
}

/// What a client would like to hold. Absolute, never an increment: "I hold at most `leases`".
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Want {
    /// At most this many leases at a time, 0..=[`limits::LEASES_PER_SESSION_MAX`]; 0 stops grants.
    pub leases: u32,
    /// At most this many runs a lease, 1..=[`limits::LEASE_RUNS_MAX`].
    pub runs: u32,
    /// From these campaigns, at most [`limits::WANTED_CAMPAIGNS_MAX`]; empty is all. A name need not exist yet.
    pub campaigns: Vec<String>,
}

/// What a client must know of a campaign to work on it; sent before the first of its grants on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CampaignInfo {
    /// Its id; grants refer to it.
    pub id: CampaignId,
    /// Its name.
    pub name: Arc<str>,
    /// Number of its first task.
    pub first: u64,
    /// Its seed, if it is numbered.
    pub seed: Option<u64>,
    /// Whether tasks have keys.
    pub keyed: bool,
    /// How long a lease lives without a sign of life, in milliseconds.
    pub lease_ms: u64,
    /// How long one run may take, in milliseconds.
    pub timeout_ms: Option<u64>,
}

/// Some runs of one task, lent to one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// The lease; name it in the report.
    pub lease: LeaseId,
    /// The campaign.
    pub campaign: CampaignId,
    /// The task.
    pub task: TaskIndex,
    /// Number of the first run (numbered campaigns; 0 in counted ones).
    pub first_run: u32,
    /// How many runs, 1..=[`limits::LEASE_RUNS_MAX`].
    pub runs: u32,
}

/// Why a session does not hold as many leases as it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Idle {
    /// None of the campaigns it wants exists.
    Absent,
    /// Every open run is lent; a run may come back.
    Lent,
    /// What is left is paused, or still being created.
    Paused,
    /// What is left was released by this session a moment ago.
    Released,
    /// The server is shutting down, or holds as many leases as it can.
    Closed,
    /// All that it wants is settled: there will be no more.
    Settled(Settled),
}

/// How something settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Settled {
    /// Tasks that are quarantined and not done. Zero of these and nothing cancelled: *finished*, every count has reached
    /// its quota.
    pub quarantined: u64,
    /// Whether a campaign among them was cancelled.
    pub cancelled: bool,
}

impl Settled {
    /// Whether every durable count has reached its quota.
    pub fn finished(self) -> bool {
        self.quarantined == 0 && !self.cancelled
    }
}

/// Why a lease is no longer worth working on. A late report still counts, except after [`LossReason::Gone`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LossReason {
    /// No sign of life for the length of the lease.
    Expired,
    /// It was held longer than its runs may take.
    TimedOut,
    /// All its runs were reported by earlier holders.
    DoneElsewhere,
    /// The campaign was cancelled; a report still counts.
    Cancelled,
    /// The campaign was removed; a report will be refused.
    Gone,
}

impl fmt::Display for LossReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Expired => "expired",
            Self::TimedOut => "timed out",
            Self::DoneElsewhere => "done elsewhere",
            Self::Cancelled => "campaign cancelled",
            Self::Gone => "campaign removed",
        })
    }
}

/// Where a campaign stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CampaignState {
    /// Begun, its tasks still arriving; dropped if the server restarts.
    Creating,
    /// Lends runs.
    Running,
    /// Lends nothing until resumed; outstanding reports count.
    Paused,
    /// Lends nothing any more; outstanding reports count.
    Cancelled,
}

impl fmt::Display for CampaignState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Creating => "creating",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Cancelled => "cancelled",
        })
    }
}

/// A campaign and its counts, all durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CampaignStatus {
    /// Its id.
    pub id: CampaignId,
    /// Its settings, with the lease filled in.
    pub spec: CampaignSpec,
    /// Where it stands.
    pub state: CampaignState,
    /// Every task is done or quarantined, or the campaign is cancelled.
    pub settled: bool,
    /// Every count has reached its quota.
    pub finished: bool,
    /// Tasks that have reached the quota.
    pub tasks_done: u64,
    /// Tasks that are quarantined and not done.
    pub tasks_quarantined: u64,
    /// Runs that count towards the quota, over all tasks.
    pub runs_done: u64,
    /// Executions that do not count towards the quota.
    pub runs_extra: u64,
    /// Runs that are lent now.
    pub runs_leased: u64,
    /// Failures reported since the last requeue, over all tasks.
    pub errors: u64,
    /// Runs lost to vanished or hung workers since the last requeue, over all tasks.
    pub losses: u64,
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskState {
    /// Below its quota.
    Open,
    /// At its quota.
    Done,
    /// Set aside below its quota after too many errors or losses; `requeue` opens it again.
    Quarantined,
}

impl fmt::Display for TaskState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Open => "open",
            Self::Done => "done",
            Self::Quarantined => "quarantined",
        })
    }
}

/// One task's counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskCount {
    /// The task.
    pub index: TaskIndex,
    /// Runs that count towards the quota; never more than it.
    pub done: u32,
    /// Executions beyond that.
    pub extra: u32,
    /// Runs that are lent now.
    pub leased: u32,
    /// Where it stands.
    pub state: TaskState,
    /// Failures since the last requeue.
    pub errors: u32,
    /// Lost runs since the last requeue.
    pub losses: u32,
    /// The last failure's text, empty if there was none.
    pub last_error: String,
}

/// What became of a numbered request, as far as the server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestFate {
    /// It was processed and counted (or the release taken).
    Counted,
    /// It was processed and refused.
    Refused(RefusalReason),
    /// It was processed and the client confirmed that it read the answer; which it was is no longer kept.
    Confirmed,
    /// It has not arrived.
    NotReceived,
    /// The session is not known here.
    UnknownSession,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_seeds() {
        // Computed independently:
        // python3 -c "import hashlib,struct as s;print(int.from_bytes(hashlib.sha256(s.pack('<QQQ',S,T,R)).digest()[:8],'big')>>11)"
        for ((seed, task, run), expected) in [
            ((0, 0, 0), 5_543_814_298_523_210),
            ((1, 0, 0), 1_791_889_351_475_492),
            ((0, 1, 0), 4_779_601_249_882_303),
            ((0, 0, 1), 4_690_849_278_649_620),
            ((42, 999, 9), 764_814_024_957_591),
            ((u64::MAX, u64::MAX, u64::MAX), 2_415_347_623_964_188),
        ] {
            assert_eq!(run_seed(seed, task, run), expected, "seed of ({seed}, {task}, {run})");
        }
    }

    #[test]
    fn ids_survive_their_text() {
        let id = SessionId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 254, 255]);
        assert_eq!(SessionId::parse(&id.to_string()), Some(id));
        assert_eq!(SessionId::parse("xyz"), None);
        assert_eq!(SessionId::parse("ä000000000000000000000000000000"), None);
        let lease = LeaseId { slot: 7, generation: 9 };
        assert_eq!(LeaseId::from_u64(lease.to_u64()), lease);
    }

    #[test]
    fn specs_are_checked() {
        let good = CampaignSpec {
            name: "a.b_c-1".into(),
            tasks: Tasks::Range { first: 5, count: 10 },
            runs: 10,
            seed: None,
            order: Order::Lowest,
            lease_ms: None,
            timeout_ms: Some(3_600_000),
            errors_max: Some(3),
            losses_max: None,
        };
        assert_eq!(good.check(), Ok(()));
        let check = |change: fn(&mut CampaignSpec)| {
            let mut spec = good.clone();
            change(&mut spec);
            spec.check()
        };
        assert_eq!(check(|spec| spec.name = String::new()), Err(SpecError::Name));
        assert_eq!(check(|spec| spec.name = "-x".into()), Err(SpecError::Name));
        assert_eq!(check(|spec| spec.name = "a b".into()), Err(SpecError::Name));
        assert_eq!(check(|spec| spec.name = "a".repeat(limits::NAME_BYTES_MAX + 1)), Err(SpecError::Name));
        assert_eq!(check(|spec| spec.tasks = Tasks::Keys { count: 0 }), Err(SpecError::Tasks));
        assert_eq!(check(|spec| spec.tasks = Tasks::Range { first: 1 << 63, count: 1 }), Err(SpecError::Tasks));
        assert_eq!(check(|spec| spec.runs = 0), Err(SpecError::Runs));
        assert_eq!(check(|spec| spec.lease_ms = Some(0)), Err(SpecError::Lease));
        assert_eq!(check(|spec| spec.timeout_ms = Some(0)), Err(SpecError::Timeout));
        assert_eq!(check(|spec| spec.errors_max = Some(0)), Err(SpecError::Budget));
    }
}
