//! The messages of the native dialect as they stand on the wire: explicit types with their own numbers.
//!
//! Variants are numbered by their order and fields cannot be skipped: append variants, never reorder, never change a
//! released one. `docs/PROTOCOL.md` describes each; golden bytes of every message are in `tests/golden_wire.rs`.
//! Conversions from and to [`crate::types`] are in [`super::convert`].

use bincode::{Decode, Encode};

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ClientMessage {
    /// Introduces the peer; the first frame of a connection.
    Hello {
        /// For a later release; empty.
        token: String,
        /// The session, or `None` for a connection that only asks and orders.
        session: Option<WireSession>,
    },
    /// The session's window.
    Want {
        /// At most this many leases.
        leases: u32,
        /// At most this many runs a lease.
        runs: u32,
        /// From these campaigns; empty is all.
        campaigns: Vec<String>,
    },
    /// Numbered reports and releases.
    Requests {
        /// Number of the first.
        first: u64,
        /// The highest number whose answer was read.
        confirmed: u64,
        /// The requests.
        requests: Vec<WireRequest>,
    },
    /// A sign of life.
    Heartbeat {
        /// The highest number whose answer was read.
        confirmed: u64,
    },
    /// The session is over.
    Goodbye,
    /// A question or order.
    Control {
        /// Comes back with the answer.
        id: u32,
        /// What is asked.
        request: WireControl,
    },
}

/// How a session is introduced.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WireSession {
    /// The session's id.
    pub session: [u8; 16],
    /// The instance it is known from; zeros for a new one.
    pub instance: [u8; 16],
    /// Rises with every connection.
    pub attempt: u64,
    /// The highest number whose answer was read.
    pub confirmed: u64,
    /// For people.
    pub name: String,
}

/// A numbered request.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum WireRequest {
    /// The first `runs` runs of a lease are done.
    Done {
        /// The lease.
        lease: u64,
        /// How many.
        runs: u32,
    },
    /// Per run of a lease.
    Mixed {
        /// The lease.
        lease: u64,
        /// Done runs.
        done: u64,
        /// Failed runs.
        failed: u64,
        /// What went wrong.
        error: String,
    },
    /// Given back.
    Release {
        /// The lease.
        lease: u64,
    },
}

/// Questions and orders.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum WireControl {
    /// Begin a campaign.
    Create {
        /// The creation's id.
        creation: [u8; 16],
        /// The settings; boxed, or every message were as large as they are.
        spec: Box<WireSpec>,
    },
    /// More keys.
    AddKeys {
        /// The creation.
        creation: [u8; 16],
        /// Index of the first.
        from: u32,
        /// The keys.
        keys: Vec<String>,
    },
    /// The keys are complete.
    Seal {
        /// The creation.
        creation: [u8; 16],
    },
    /// Campaigns.
    Status {
        /// One by name, or all.
        campaign: Option<String>,
        /// The lowest id wanted.
        from: u32,
    },
    /// Counts.
    Counts {
        /// The campaign.
        campaign: String,
        /// The first task wanted, by index.
        from: u32,
        /// How many at most.
        limit: u32,
    },
    /// Lend nothing until resumed.
    Pause {
        /// The campaign.
        campaign: String,
    },
    /// Lend again.
    Resume {
        /// The campaign.
        campaign: String,
    },
    /// Lend nothing any more.
    Cancel {
        /// The campaign.
        campaign: String,
    },
    /// Open quarantined tasks again.
    Requeue {
        /// The campaign.
        campaign: String,
    },
    /// Remove.
    Remove {
        /// The campaign.
        campaign: String,
    },
    /// What became of a request.
    Fate {
        /// The session.
        session: [u8; 16],
        /// The request's number.
        number: u64,
    },
}

/// A campaign's settings.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WireSpec {
    /// Name.
    pub name: String,
    /// Tasks.
    pub tasks: WireTasks,
    /// Quota.
    pub runs: u32,
    /// Seed of a numbered campaign.
    pub seed: Option<u64>,
    /// Order.
    pub order: WireOrder,
    /// Lease, in milliseconds.
    pub lease_ms: Option<u64>,
    /// Timeout of a run, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Error budget.
    pub errors_max: Option<u32>,
    /// Loss budget.
    pub losses_max: Option<u32>,
}

/// A campaign's tasks.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum WireTasks {
    /// Numbers.
    Range {
        /// The first.
        first: u64,
        /// How many.
        count: u32,
    },
    /// Keys.
    Keys {
        /// How many.
        count: u32,
    },
}

/// Order of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum WireOrder {
    /// Lowest task first.
    Lowest,
    /// Every k-th run before any (k+1)-th.
    Even,
}

/// What a server sends.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ServerMessage {
    /// The hello is accepted.
    Welcome {
        /// The data directory.
        instance: [u8; 16],
        /// Whether the session existed before.
        resumed: bool,
        /// The highest processed number.
        through: u64,
        /// Refused ones among those not confirmed.
        refusals: Vec<WireRefusal>,
        /// Live leases that follow, sent again.
        leases: u32,
    },
    /// The session to be resumed is not known here; introduce another.
    UnknownSession {
        /// The data directory.
        instance: [u8; 16],
    },
    /// Runs are lent.
    Grants {
        /// Campaigns not yet described on this connection.
        campaigns: Vec<WireCampaign>,
        /// The grants.
        grants: Vec<WireGrant>,
        /// Whether they were granted before.
        resent: bool,
    },
    /// Requests are processed.
    Answers {
        /// The highest processed number.
        through: u64,
        /// Refused ones among those not confirmed.
        refusals: Vec<WireRefusal>,
    },
    /// Leases no longer worth working on.
    Lost {
        /// Lease and reason.
        leases: Vec<WireLoss>,
    },
    /// Why there is nothing more to lend.
    Idle(WireIdle),
    /// A sign of life.
    Heartbeat,
    /// The answer to a control request.
    Control {
        /// Its id.
        id: u32,
        /// The answer.
        answer: WireAnswer,
    },
    /// The server closes the connection after this.
    Closing {
        /// Why: machine-readable.
        code: WireClosing,
        /// Why: for a person, with what to do.
        text: String,
    },
}

/// Why a server closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum WireClosing {
    /// After a goodbye.
    Goodbye,
    /// A newer connection of the session exists.
    Superseded,
    /// The peer broke the protocol; reconnecting will not help.
    Protocol,
    /// A limit of the server; try again later.
    Busy,
    /// The server shuts down; reconnect later.
    Shutdown,
    /// Reconnect now and go on.
    Reconnect,
}

/// A stretch of refused numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WireRefusal {
    /// First.
    pub from: u64,
    /// Last.
    pub to: u64,
    /// Why.
    pub reason: WireReason,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum WireReason {
    /// No such lease is held.
    NotHeld,
    /// The lease has ended.
    Ended,
    /// The campaign was removed.
    Gone,
    /// Runs that the lease does not have.
    BadRuns,
}

/// A campaign, for a worker.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WireCampaign {
    /// Id.
    pub id: u32,
    /// Name.
    pub name: String,
    /// Number of the first task.
    pub first: u64,
    /// Seed of a numbered campaign.
    pub seed: Option<u64>,
    /// Whether tasks have keys.
    pub keyed: bool,
    /// Lease, in milliseconds.
    pub lease_ms: u64,
    /// Timeout of a run, in milliseconds.
    pub timeout_ms: Option<u64>,
}

/// A grant.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WireGrant {
    /// The lease.
    pub lease: u64,
    /// Its campaign.
    pub campaign: u32,
    /// The task, by index.
    pub task: u32,
    /// The first run.
    pub first_run: u32,
    /// How many runs.
    pub runs: u32,
    /// The task's key, if its campaign is keyed.
    pub key: Option<String>,
}

/// A lease no longer worth working on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WireLoss {
    /// The lease.
    pub lease: u64,
    /// Why.
    pub reason: WireLossReason,
}

/// Why a lease is no longer worth working on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum WireLossReason {
    /// No sign of life.
    Expired,
    /// Held too long.
    TimedOut,
    /// All its runs are done.
    DoneElsewhere,
    /// The campaign was cancelled.
    Cancelled,
    /// The campaign was removed.
    Gone,
}

/// Why there is nothing more to lend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum WireIdle {
    /// No wanted campaign exists.
    Absent,
    /// Every open run is lent.
    Lent,
    /// Paused or being created.
    Paused,
    /// Released by this session a moment ago.
    Released,
    /// Shutting down, or full.
    Closed,
    /// All is settled.
    Settled {
        /// Quarantined tasks.
        quarantined: u64,
        /// Whether something was cancelled.
        cancelled: bool,
    },
}

/// The answer to a control request.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum WireAnswer {
    /// A creation stands like this.
    Creation {
        /// Its campaign.
        campaign: u32,
        /// Tasks the server has.
        added: u32,
        /// Complete.
        sealed: bool,
        /// Complete before this request.
        existed: bool,
    },
    /// Campaigns.
    Status {
        /// In order of ids.
        campaigns: Vec<WireStatus>,
        /// Where to go on.
        next: Option<u32>,
    },
    /// Counts.
    Counts {
        /// Number of the campaign's first task.
        first: u64,
        /// Quota.
        runs: u32,
        /// In order of tasks.
        tasks: Vec<WireCount>,
        /// Where to go on, by index.
        next: Option<u32>,
    },
    /// Done, or already so.
    Done {
        /// Tasks it concerned.
        tasks: u64,
    },
    /// What became of a request.
    Fate(WireFate),
    /// Not done.
    Failed {
        /// Machine-readable.
        code: WireFailure,
        /// For a person.
        text: String,
        /// [`WireFailure::KeysOutOfOrder`], [`WireFailure::KeyBad`], [`WireFailure::KeyTwice`]: the index; else 0.
        index: u32,
    },
}

/// Why a control request was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum WireFailure {
    /// No such campaign.
    NotFound,
    /// The name is taken.
    Exists,
    /// Not in this state.
    State,
    /// A setting is out of range.
    Spec,
    /// Begin the creation again.
    CreationUnknown,
    /// Keys must go on at the index.
    KeysOutOfOrder,
    /// A key is bad.
    KeyBad,
    /// A key came twice.
    KeyTwice,
    /// Keys are missing.
    KeysMissing,
    /// No more campaigns.
    Full,
    /// Shutting down.
    Draining,
    /// The server could not read what it stored; see its log.
    Damaged,
}

/// A campaign and its counts.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WireStatus {
    /// Id.
    pub id: u32,
    /// Settings.
    pub spec: WireSpec,
    /// State.
    pub state: WireCampaignState,
    /// Settled.
    pub settled: bool,
    /// Finished.
    pub finished: bool,
    /// Tasks at their quota.
    pub tasks_done: u64,
    /// Tasks set aside.
    pub tasks_quarantined: u64,
    /// Runs that count.
    pub runs_done: u64,
    /// Executions beyond.
    pub runs_extra: u64,
    /// Runs lent now.
    pub runs_leased: u64,
    /// Failures.
    pub errors: u64,
    /// Losses.
    pub losses: u64,
}

/// Where a campaign stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum WireCampaignState {
    /// Being created.
    Creating,
    /// Lends.
    Running,
    /// Paused.
    Paused,
    /// Cancelled.
    Cancelled,
}

/// One task's counts.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WireCount {
    /// The task, by index.
    pub index: u32,
    /// Its key, if its campaign is keyed.
    pub key: Option<String>,
    /// Runs that count.
    pub done: u32,
    /// Executions beyond.
    pub extra: u32,
    /// Lent now.
    pub leased: u32,
    /// State.
    pub state: WireTaskState,
    /// Failures.
    pub errors: u32,
    /// Losses.
    pub losses: u32,
    /// The last failure.
    pub last_error: String,
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum WireTaskState {
    /// Below its quota.
    Open,
    /// At its quota.
    Done,
    /// Set aside.
    Quarantined,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum WireFate {
    /// Counted.
    Counted,
    /// Refused.
    Refused(WireReason),
    /// Not arrived.
    NotReceived,
    /// The session is not known here.
    UnknownSession,
    /// Processed, and the client has read the answer; which it was is no longer kept.
    Confirmed,
}
