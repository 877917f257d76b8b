//! What goes into the coordinator and what comes out: a closed set of causes and a closed set of effects.
//!
//! ```text
//!   Command ──▶ apply(now, command) ──▶ Step { changes, texts, outputs }
//! ```
//!
//! The caller makes `changes` and `texts` durable, then sends `outputs`; never the other way round. Commands carry
//! what a peer said *after* its bytes were decoded, but are otherwise untrusted: every number in them may be wrong.
//! Tested through the state machine's tests.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::rows::Changed;
use crate::types::{
    CampaignId, CampaignInfo, CampaignSpec, CampaignStatus, ConnectionId, CreationId, Grant, Idle, InstanceId, LeaseId,
    LossReason, Refusal, Request, RequestFate, SessionId, SpecError, TaskCount, TaskIndex, Want,
};

/// Everything that can happen to a coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Once, right after `restore`: ends what does not outlive a process (sessions of the origin's dialect, unsealed
    /// creations) and takes up interrupted removals.
    Boot,
    /// Time passed, or work was left over from an earlier step: expire leases, forget sessions, go on with sweeps.
    Advance,
    /// From now on lend nothing more (shutdown). Reports are still taken.
    Drain,
    /// A native client introduces its session on a connection, or resumes it.
    Hello {
        /// Where it came from.
        connection: ConnectionId,
        /// Which session.
        hello: Hello,
    },
    /// The session's window, absolute.
    Want {
        /// The session's connection.
        connection: ConnectionId,
        /// The window; out-of-range values are clamped.
        want: Want,
    },
    /// Numbered requests `first`, `first + 1`, …
    Requests {
        /// The session's connection.
        connection: ConnectionId,
        /// Number of the first request, from 1.
        first: u64,
        /// The highest number whose answer the client has read.
        confirmed: u64,
        /// The requests; at most [`crate::limits::REQUESTS_PER_MESSAGE_MAX`].
        requests: Vec<Request>,
    },
    /// A sign of life.
    Heartbeat {
        /// The session's connection.
        connection: ConnectionId,
        /// The highest number whose answer the client has read.
        confirmed: u64,
    },
    /// The client is done: its leases go back at once and its session is forgotten.
    Goodbye {
        /// The session's connection.
        connection: ConnectionId,
    },
    /// The connection ended. A native session's leases live on; the leases of the origin's dialect end with it.
    Disconnected {
        /// The connection.
        connection: ConnectionId,
    },
    /// One message of the origin's dialect: the units done of some tasks, possibly none.
    Origin {
        /// The connection, which is the session.
        connection: ConnectionId,
        /// (task number, units), as the message had them after the last of equal keys won.
        done: Vec<(u64, u64)>,
    },
    /// A question or an order that belongs to no session.
    Control {
        /// Who asks.
        connection: ConnectionId,
        /// Chosen by the client; comes back with the answer.
        id: u32,
        /// What is asked.
        request: ControlRequest,
    },
}

/// How a native client introduces its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Chosen by the client, at random.
    pub session: SessionId,
    /// The instance that the client knows its session from; [`InstanceId::NONE`] for a session that is new.
    pub instance: InstanceId,
    /// Rises with every connection of the session; a lower or equal one is refused as late bytes of an old connection.
    pub attempt: u64,
    /// The highest request number whose answer the client has read.
    pub confirmed: u64,
    /// For people, at most [`crate::limits::SESSION_NAME_BYTES_MAX`] bytes.
    pub name: String,
}

/// Questions and orders outside of any session. All may be sent again when the answer was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlRequest {
    /// Begin a campaign. One of numbers is complete at once; one of keys waits for them and for [`ControlRequest::Seal`].
    Create {
        /// Chosen by the client; the same creation again is answered with how far it is.
        creation: CreationId,
        /// The settings; boxed, or every command were as large as they are.
        spec: Box<CampaignSpec>,
    },
    /// The next keys of a creation.
    AddKeys {
        /// The creation.
        creation: CreationId,
        /// Index of the first of `keys`; must be how many the server has (or lower: what it has is skipped).
        from: u32,
        /// The keys, each 1..=[`crate::limits::KEY_BYTES_MAX`] bytes.
        keys: Vec<String>,
    },
    /// The keys are complete: the campaign starts.
    Seal {
        /// The creation.
        creation: CreationId,
    },
    /// Campaigns and their counts: all from an id on, or the one with a name.
    Status {
        /// One campaign by name, or all.
        campaign: Option<String>,
        /// With all: the lowest id wanted.
        from: CampaignId,
    },
    /// Counts of consecutive tasks.
    Counts {
        /// The campaign.
        campaign: String,
        /// The first task wanted.
        from: TaskIndex,
        /// How many at most, clamped to 1..=[`crate::limits::COUNTS_PER_ANSWER_MAX`].
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
    /// Lend nothing any more; outstanding reports still count.
    Cancel {
        /// The campaign.
        campaign: String,
    },
    /// Open all quarantined tasks again with fresh budgets. Answered when all are open.
    Requeue {
        /// The campaign.
        campaign: String,
    },
    /// Remove a campaign that is settled, cancelled or paused, with all its counts.
    Remove {
        /// The campaign.
        campaign: String,
    },
    /// What became of one request of a session.
    Fate {
        /// The session.
        session: SessionId,
        /// The request's number.
        number: u64,
    },
}

/// The answer to a [`ControlRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlAnswer {
    /// A creation stands like this.
    Creation {
        /// Its campaign.
        campaign: CampaignId,
        /// How many tasks the server has.
        added: u32,
        /// Whether the campaign is complete.
        sealed: bool,
        /// Whether this very creation was complete before this request.
        existed: bool,
    },
    /// Campaigns in order of their ids.
    Status {
        /// At most [`crate::limits::STATUS_PER_ANSWER_MAX`].
        campaigns: Vec<CampaignStatus>,
        /// Where to go on, if there are more.
        next: Option<CampaignId>,
    },
    /// Counts in order of the tasks.
    Counts {
        /// The campaign.
        campaign: CampaignId,
        /// Number of its first task.
        first: u64,
        /// Quota.
        runs: u32,
        /// Whether tasks have keys (which the asker reads from the texts).
        keyed: bool,
        /// The counts.
        tasks: Vec<TaskCount>,
        /// Where to go on, if there are more.
        next: Option<TaskIndex>,
    },
    /// It is done, or was already so.
    Done {
        /// How many tasks it concerned (requeue), else 0.
        tasks: u64,
    },
    /// What became of a request.
    Fate(RequestFate),
    /// It was not done.
    Failed(ControlError),
}

/// Why a [`ControlRequest`] was not carried out. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No campaign has this name.
    #[error("there is no campaign named {name:?}")]
    NotFound {
        /// The name.
        name: String,
    },
    /// The name is taken by another creation.
    #[error("a campaign named {name:?} exists already, and it is not the same creation")]
    Exists {
        /// The name.
        name: String,
    },
    /// The campaign is not in a state that allows it.
    #[error("{reason}")]
    State {
        /// Why not, and what to do.
        reason: String,
    },
    /// A setting is out of range.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// No such creation is open: begin it again (the server restarted).
    #[error("this creation is not open; begin it again")]
    CreationUnknown,
    /// Keys must come in order.
    #[error("the keys must go on at {expected}")]
    KeysOutOfOrder {
        /// The index of the next key.
        expected: u32,
    },
    /// A key is empty, too long, or too many were sent.
    #[error("key {index} is empty, too long, has a line break, or is beyond the campaign's tasks")]
    KeyBad {
        /// Its index.
        index: u32,
    },
    /// A key was there already.
    #[error("key {index} is the same as an earlier one")]
    KeyTwice {
        /// Its index.
        index: u32,
    },
    /// Keys are missing.
    #[error("only {added} of {count} keys have arrived")]
    KeysMissing {
        /// How many have arrived.
        added: u32,
        /// How many were announced.
        count: u32,
    },
    /// As many campaigns as the server can hold.
    #[error("the server holds {limit} campaigns already; remove some")]
    Full {
        /// How many it can hold.
        limit: usize,
    },
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Draining,
}

/// What is to be sent, once the step is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The session is known or newly registered. On a resume, what is outstanding follows in `Grants { resent: true }`.
    Welcome {
        /// This data directory.
        instance: InstanceId,
        /// Whether the session existed before.
        resumed: bool,
        /// The highest processed request number.
        through: u64,
        /// The refused ones among those not confirmed.
        refusals: Vec<Refusal>,
        /// How many live leases will be sent again, in one or more `Grants { resent: true }`.
        leases: u32,
    },
    /// The client wanted to resume a session that is not known here. It may introduce another on the same connection.
    UnknownSession {
        /// This data directory.
        instance: InstanceId,
    },
    /// Runs are lent.
    Grants {
        /// Campaigns not yet described on this connection.
        campaigns: Vec<Arc<CampaignInfo>>,
        /// The grants; at most [`crate::limits::GRANTS_PER_MESSAGE_MAX`].
        grants: Vec<Grant>,
        /// Whether these were granted before, on an earlier connection.
        resent: bool,
    },
    /// All requests through a number are processed; those among them that are not confirmed and not listed were counted.
    Answers {
        /// The highest processed number.
        through: u64,
        /// The refused ones among those not confirmed.
        refusals: Vec<Refusal>,
    },
    /// Leases that are no longer worth working on.
    Lost {
        /// Each with the reason.
        leases: Vec<(LeaseId, LossReason)>,
    },
    /// Why there is nothing more to lend; sent when it changes.
    Idle(Idle),
    /// The answer to a control request.
    Control {
        /// The id of the request.
        id: u32,
        /// The answer.
        answer: ControlAnswer,
    },
    /// The answer to one message of the origin's dialect.
    Origin(OriginAnswer),
    /// The connection is to be closed, after what was sent before.
    Close(CloseReason),
}

/// What the origin's server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginAnswer {
    /// A task number.
    Task(u64),
    /// `-1`: all is settled.
    Settled,
    /// `-2`: wait and ask again.
    Wait,
}

/// Why the coordinator wants a connection closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The session said goodbye.
    Goodbye,
    /// The session has a newer connection.
    Superseded,
    /// A request number was skipped.
    Gap,
    /// Too many refusals wait for the client to confirm that it read them: reconnect and go on.
    RefusalsUnread,
    /// A message that needs a session came before the hello, or a second hello after it.
    OutOfPlace,
    /// The server remembers as many sessions as it can.
    SessionsFull,
    /// A connection opened later has given an order about the same campaign, or had the session: ask again over a new one.
    Late,
    /// Origin: a lease of this connection had expired, and there is no room for it any more.
    LeasesFull,
    /// Origin: a task that does not exist.
    OriginTask,
    /// Origin: units below 1 or above [`crate::limits::UNITS_MAX`].
    OriginUnits,
}

/// One output and where it goes.
pub type Addressed = (ConnectionId, Output);

/// Keys of consecutive tasks, stored once beside the pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextChange {
    /// Store keys.
    Put {
        /// The campaign.
        campaign: CampaignId,
        /// Index of the first key.
        first: TaskIndex,
        /// The keys.
        keys: Vec<String>,
    },
    /// Remove all keys of the tasks `first .. first + tasks`.
    Clear {
        /// The campaign.
        campaign: CampaignId,
        /// The first task.
        first: TaskIndex,
        /// How many.
        tasks: u32,
    },
}

/// What one command did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// What changed, in any order, possibly more than once; [`super::Coordinator::changes`] shows the values.
    pub changes: Vec<Changed>,
    /// Texts to store or remove in the same commit.
    pub texts: Vec<TextChange>,
    /// What to send when both are durable.
    pub outputs: Vec<Addressed>,
}

/// Something about each connection; looked up several times for every message.
pub(crate) type ByConnection<T> = HashMap<ConnectionId, T, BuildHasherDefault<OwnNumbers>>;

/// Hashes numbers that this process gave out itself, one after the other: peers cannot choose them, only which of them last. Fibonacci
/// hashing (Knuth, The Art of Computer Programming, volume 3, 6.4).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OwnNumbers(u64);

impl Hasher for OwnNumbers {
    fn write(&mut self, bytes: &[u8]) {
        // Numbers come by the method below.
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        // The product is spread best in its upper half; tables look at both ends.
        self.0 ^ (self.0 >> 32)
    }
}
