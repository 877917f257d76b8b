//! The pure state machine: decides who works on what and what counts. No I/O, no clock, no chance, no async.
pub mod command;
pub mod rows;

use std::collections::BTreeMap;

use crate::types::{InstanceId, Tick};
pub use command::{Command, Step};
pub use rows::{Change, Row, RowKey};

/// Settings and bounds of a coordinator; the defaults are those of [`crate::limits`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Length of a lease of campaigns that do not name one, in milliseconds.
    pub lease_ms: u64,
    /// The campaign of the origin's dialect; `None` is the only counted one.
    pub origin_campaign: Option<String>,
    /// A session idle this long is forgotten, in milliseconds.
    pub session_idle_ms: u64,
    /// Live leases over all sessions.
    pub leases_max: usize,
    /// Live leases of a session.
    pub leases_per_session_max: u32,
    /// Expired leases remembered for a session.
    pub expired_per_session_max: usize,
    /// Sessions remembered.
    pub sessions_max: usize,
    /// Expiries, sweep items and waiting sessions handled in one step.
    pub slice: usize,
}

/// The stored rows contradict each other: the data directory is damaged. The text says which rows and how.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Inconsistent(pub String);

/// Takes rows and changes in any order that a store has them, then becomes a [`Coordinator`].
pub struct Restorer;

impl Restorer {
    /// An empty state.
    pub fn new() -> Self {
        todo!()
    }
    /// Applies one change: a stored row as `Change::Put`, or what the journal says.
    ///
    /// # Errors
    /// The change cannot be: an index out of its range.
    pub fn apply(&mut self, _change: Change) -> Result<(), Inconsistent> {
        todo!()
    }
    /// Builds the indexes and checks every invariant. Every lease gets its full length from `now` on.
    ///
    /// # Errors
    /// What does not fit together.
    pub fn finish(self, _options: Options, _instance: InstanceId, _now: Tick) -> Result<Coordinator, Inconsistent> {
        todo!()
    }
}

/// The state machine.
pub struct Coordinator;

impl Coordinator {
    /// Decides. See [`Command`] and [`command::Output`].
    pub fn apply(&mut self, _now: Tick, _command: Command) -> Step {
        todo!()
    }
    /// When `Command::Advance` is due at the latest; `None` while nothing is.
    pub fn next_deadline(&self) -> Option<Tick> {
        todo!()
    }
    /// One durable row as it stands; what the store writes into pages.
    pub fn row(&self, _key: RowKey) -> Option<Row> {
        todo!()
    }
    /// All durable rows.
    pub fn durable_view(&self) -> BTreeMap<RowKey, Row> {
        todo!()
    }
    /// Checks the books of every task and every index against a full scan.
    ///
    /// # Errors
    /// What does not fit together.
    pub fn check(&self) -> Result<(), Inconsistent> {
        todo!()
    }
    /// What a start prints: (campaigns, sessions, live leases).
    pub fn summary(&self) -> Summary {
        todo!()
    }
}

/// How much a coordinator holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Campaigns, those being removed left out.
    pub campaigns: usize,
    /// Tasks of those.
    pub tasks: u64,
    /// Runs done of those.
    pub runs_done: u64,
    /// Sessions remembered.
    pub sessions: usize,
    /// Live leases.
    pub leases: usize,
}
