//! From the wire's types to the program's and back, so that neither ever dictates the other's shape.
//!
//! **Invariants.** Every conversion is total: a range that does not hold is refused by whoever decides, not here. Only
//! the text of a failure is changed: it is cut to [`limits::ERROR_BYTES_MAX`]. There and back again gives the same value
//! (tested here for every variant). Deliberately absent: commands and outputs of the coordinator, which only a server
//! knows.

use super::messages::{
    WireCampaign, WireCampaignState, WireCount, WireFate, WireGrant, WireIdle, WireLoss, WireLossReason, WireOrder,
    WireReason, WireRefusal, WireRequest, WireSpec, WireStatus, WireTaskState, WireTasks,
};
use crate::limits;
use crate::types::{
    CampaignId, CampaignInfo, CampaignSpec, CampaignState, CampaignStatus, Grant, Idle, LeaseId, LossReason, Order,
    Outcome, Refusal, RefusalReason, Request, RequestFate, Settled, TaskCount, TaskIndex, TaskState, Tasks,
};

/// Cuts a failure's text to [`limits::ERROR_BYTES_MAX`] bytes, at the end of a character.
pub fn cut_error(mut error: String) -> String {
    error.truncate(error.floor_char_boundary(limits::ERROR_BYTES_MAX));
    error
}

/// Enumerations without fields, in both directions.
macro_rules! same_variants {
    ($wire:ty, $ours:ty, $($variant:ident)*) => {
        impl From<$wire> for $ours {
            fn from(value: $wire) -> Self {
                match value { $(<$wire>::$variant => Self::$variant,)* }
            }
        }

        impl From<$ours> for $wire {
            fn from(value: $ours) -> Self {
                match value { $(<$ours>::$variant => Self::$variant,)* }
            }
        }
    };
}

same_variants!(WireOrder, Order, Lowest Even);
same_variants!(WireReason, RefusalReason, NotHeld Ended Gone BadRuns);
same_variants!(WireLossReason, LossReason, Expired TimedOut DoneElsewhere Cancelled Gone);
same_variants!(WireCampaignState, CampaignState, Creating Running Paused Cancelled);
same_variants!(WireTaskState, TaskState, Open Done Quarantined);

impl From<WireTasks> for Tasks {
    fn from(tasks: WireTasks) -> Self {
        match tasks {
            WireTasks::Range { first, count } => Self::Range { first, count },
            WireTasks::Keys { count } => Self::Keys { count },
        }
    }
}

impl From<Tasks> for WireTasks {
    fn from(tasks: Tasks) -> Self {
        match tasks {
            Tasks::Range { first, count } => Self::Range { first, count },
            Tasks::Keys { count } => Self::Keys { count },
        }
    }
}

impl From<WireSpec> for CampaignSpec {
    fn from(spec: WireSpec) -> Self {
        let WireSpec { name, tasks, runs, seed, order, lease_ms, timeout_ms, errors_max, losses_max } = spec;
        let (tasks, order) = (tasks.into(), order.into());
        Self { name, tasks, runs, seed, order, lease_ms, timeout_ms, errors_max, losses_max }
    }
}

impl From<CampaignSpec> for WireSpec {
    fn from(spec: CampaignSpec) -> Self {
        let CampaignSpec { name, tasks, runs, seed, order, lease_ms, timeout_ms, errors_max, losses_max } = spec;
        let (tasks, order) = (tasks.into(), order.into());
        Self { name, tasks, runs, seed, order, lease_ms, timeout_ms, errors_max, losses_max }
    }
}

impl From<WireRequest> for Request {
    fn from(request: WireRequest) -> Self {
        match request {
            WireRequest::Done { lease, runs } => {
                Self::Report { lease: LeaseId::from_u64(lease), outcome: Outcome::Done { runs } }
            }
            WireRequest::Mixed { lease, done, failed, error } => Self::Report {
                lease: LeaseId::from_u64(lease),
                outcome: Outcome::Mixed { done, failed, error: cut_error(error) },
            },
            WireRequest::Release { lease } => Self::Release { lease: LeaseId::from_u64(lease) },
        }
    }
}

impl From<Request> for WireRequest {
    fn from(request: Request) -> Self {
        match request {
            Request::Report { lease, outcome: Outcome::Done { runs } } => Self::Done { lease: lease.to_u64(), runs },
            Request::Report { lease, outcome: Outcome::Mixed { done, failed, error } } => {
                Self::Mixed { lease: lease.to_u64(), done, failed, error: cut_error(error) }
            }
            Request::Release { lease } => Self::Release { lease: lease.to_u64() },
        }
    }
}

impl From<WireRefusal> for Refusal {
    fn from(refusal: WireRefusal) -> Self {
        Self { from: refusal.from, to: refusal.to, reason: refusal.reason.into() }
    }
}

impl From<Refusal> for WireRefusal {
    fn from(refusal: Refusal) -> Self {
        Self { from: refusal.from, to: refusal.to, reason: refusal.reason.into() }
    }
}

impl From<WireCampaign> for CampaignInfo {
    fn from(campaign: WireCampaign) -> Self {
        let WireCampaign { id, name, first, seed, keyed, lease_ms, timeout_ms } = campaign;
        Self { id: CampaignId(id), name: name.into(), first, seed, keyed, lease_ms, timeout_ms }
    }
}

impl From<&CampaignInfo> for WireCampaign {
    fn from(campaign: &CampaignInfo) -> Self {
        let CampaignInfo { id, name, first, seed, keyed, lease_ms, timeout_ms } = campaign.clone();
        Self { id: id.0, name: name.to_string(), first, seed, keyed, lease_ms, timeout_ms }
    }
}

impl WireGrant {
    /// A grant with the key of its task, if its campaign is keyed.
    pub fn new(grant: Grant, key: Option<String>) -> Self {
        let Grant { lease, campaign, task, first_run, runs } = grant;
        Self { lease: lease.to_u64(), campaign: campaign.0, task: task.0, first_run, runs, key }
    }
}

impl From<WireGrant> for (Grant, Option<String>) {
    fn from(grant: WireGrant) -> Self {
        let WireGrant { lease, campaign, task, first_run, runs, key } = grant;
        let (lease, campaign, task) = (LeaseId::from_u64(lease), CampaignId(campaign), TaskIndex(task));
        (Grant { lease, campaign, task, first_run, runs }, key)
    }
}

impl From<WireLoss> for (LeaseId, LossReason) {
    fn from(loss: WireLoss) -> Self {
        (LeaseId::from_u64(loss.lease), loss.reason.into())
    }
}

impl From<(LeaseId, LossReason)> for WireLoss {
    fn from((lease, reason): (LeaseId, LossReason)) -> Self {
        Self { lease: lease.to_u64(), reason: reason.into() }
    }
}

impl From<WireIdle> for Idle {
    fn from(idle: WireIdle) -> Self {
        match idle {
            WireIdle::Absent => Self::Absent,
            WireIdle::Lent => Self::Lent,
            WireIdle::Paused => Self::Paused,
            WireIdle::Released => Self::Released,
            WireIdle::Closed => Self::Closed,
            WireIdle::Settled { quarantined, cancelled } => Self::Settled(Settled { quarantined, cancelled }),
        }
    }
}

impl From<Idle> for WireIdle {
    fn from(idle: Idle) -> Self {
        match idle {
            Idle::Absent => Self::Absent,
            Idle::Lent => Self::Lent,
            Idle::Paused => Self::Paused,
            Idle::Released => Self::Released,
            Idle::Closed => Self::Closed,
            Idle::Settled(Settled { quarantined, cancelled }) => Self::Settled { quarantined, cancelled },
        }
    }
}

impl From<WireStatus> for CampaignStatus {
    fn from(status: WireStatus) -> Self {
        Self {
            id: CampaignId(status.id),
            spec: status.spec.into(),
            state: status.state.into(),
            settled: status.settled,
            finished: status.finished,
            tasks_done: status.tasks_done,
            tasks_quarantined: status.tasks_quarantined,
            runs_done: status.runs_done,
            runs_extra: status.runs_extra,
            runs_leased: status.runs_leased,
            errors: status.errors,
            losses: status.losses,
        }
    }
}

impl From<CampaignStatus> for WireStatus {
    fn from(status: CampaignStatus) -> Self {
        Self {
            id: status.id.0,
            spec: status.spec.into(),
            state: status.state.into(),
            settled: status.settled,
            finished: status.finished,
            tasks_done: status.tasks_done,
            tasks_quarantined: status.tasks_quarantined,
            runs_done: status.runs_done,
            runs_extra: status.runs_extra,
            runs_leased: status.runs_leased,
            errors: status.errors,
            losses: status.losses,
        }
    }
}

impl WireCount {
    /// A task's counts with its key, if its campaign is keyed.
    pub fn new(count: TaskCount, key: Option<String>) -> Self {
        let TaskCount { index, done, extra, leased, state, errors, losses, last_error } = count;
        Self { index: index.0, key, done, extra, leased, state: state.into(), errors, losses, last_error }
    }
}

impl From<WireCount> for (Option<String>, TaskCount) {
    fn from(count: WireCount) -> Self {
        let WireCount { index, key, done, extra, leased, state, errors, losses, last_error } = count;
        let (index, state) = (TaskIndex(index), state.into());
        (key, TaskCount { index, done, extra, leased, state, errors, losses, last_error })
    }
}

impl From<WireFate> for RequestFate {
    fn from(fate: WireFate) -> Self {
        match fate {
            WireFate::Counted => Self::Counted,
            WireFate::Refused(reason) => Self::Refused(reason.into()),
            WireFate::Confirmed => Self::Confirmed,
            WireFate::NotReceived => Self::NotReceived,
            WireFate::UnknownSession => Self::UnknownSession,
        }
    }
}

impl From<RequestFate> for WireFate {
    fn from(fate: RequestFate) -> Self {
        match fate {
            RequestFate::Counted => Self::Counted,
            RequestFate::Refused(reason) => Self::Refused(reason.into()),
            RequestFate::Confirmed => Self::Confirmed,
            RequestFate::NotReceived => Self::NotReceived,
            RequestFate::UnknownSession => Self::UnknownSession,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    fn there_and_back<Ours, Wire>(values: impl IntoIterator<Item = Ours>)
    where
        Ours: Clone + Debug + PartialEq + From<Wire>,
        Wire: From<Ours>,
    {
        for value in values {
            assert_eq!(Ours::from(Wire::from(value.clone())), value);
        }
    }

    fn spec(tasks: Tasks, order: Order) -> CampaignSpec {
        CampaignSpec {
            name: "sweep".into(),
            tasks,
            runs: 10,
            seed: Some(1),
            order,
            lease_ms: Some(2),
            timeout_ms: Some(3),
            errors_max: Some(4),
            losses_max: Some(5),
        }
    }

    #[test]
    fn every_value_survives() {
        use LossReason::{Cancelled, DoneElsewhere, Expired, Gone, TimedOut};
        there_and_back::<_, WireOrder>([Order::Lowest, Order::Even]);
        there_and_back::<_, WireLossReason>([Expired, TimedOut, DoneElsewhere, Cancelled, Gone]);
        there_and_back::<_, WireTaskState>([TaskState::Open, TaskState::Done, TaskState::Quarantined]);
        there_and_back::<_, WireSpec>([
            spec(Tasks::Range { first: 6, count: 7 }, Order::Lowest),
            spec(Tasks::Keys { count: 8 }, Order::Even),
        ]);
        let reasons = [RefusalReason::NotHeld, RefusalReason::Ended, RefusalReason::Gone, RefusalReason::BadRuns];
        there_and_back::<_, WireRefusal>(reasons.map(|reason| Refusal { from: 1, to: 2, reason }));
        there_and_back::<_, WireFate>(reasons.map(RequestFate::Refused));
        there_and_back::<_, WireFate>([RequestFate::Counted, RequestFate::NotReceived, RequestFate::UnknownSession]);
        let lease = LeaseId { slot: 1, generation: 2 };
        there_and_back::<_, WireRequest>([
            Request::Report { lease, outcome: Outcome::Done { runs: 3 } },
            Request::Report { lease, outcome: Outcome::Mixed { done: 1, failed: 2, error: "no".into() } },
            Request::Release { lease },
        ]);
        there_and_back::<_, WireLoss>([(lease, Gone)]);
        let settled = Settled { quarantined: 1, cancelled: true };
        there_and_back::<_, WireIdle>([
            Idle::Absent,
            Idle::Lent,
            Idle::Paused,
            Idle::Released,
            Idle::Closed,
            Idle::Settled(settled),
        ]);
        let states = [CampaignState::Creating, CampaignState::Running, CampaignState::Paused, CampaignState::Cancelled];
        there_and_back::<_, WireStatus>(states.map(|state| CampaignStatus {
            id: CampaignId(1),
            spec: spec(Tasks::Keys { count: 8 }, Order::Even),
            state,
            settled: true,
            finished: false,
            tasks_done: 2,
            tasks_quarantined: 3,
            runs_done: 4,
            runs_extra: 5,
            runs_leased: 6,
            errors: 7,
            losses: 8,
        }));
        let info = CampaignInfo {
            id: CampaignId(1),
            name: "sweep".into(),
            first: 2,
            seed: Some(3),
            keyed: true,
            lease_ms: 4,
            timeout_ms: Some(5),
        };
        assert_eq!(CampaignInfo::from(WireCampaign::from(&info)), info);
        let grant = Grant { lease, campaign: CampaignId(3), task: TaskIndex(4), first_run: 5, runs: 6 };
        let key = Some("key".to_owned());
        assert_eq!(<(Grant, Option<String>)>::from(WireGrant::new(grant, key.clone())), (grant, key.clone()));
        let count = TaskCount {
            index: TaskIndex(1),
            done: 2,
            extra: 3,
            leased: 4,
            state: TaskState::Open,
            errors: 5,
            losses: 6,
            last_error: "no".into(),
        };
        assert_eq!(<(Option<String>, TaskCount)>::from(WireCount::new(count.clone(), key.clone())), (key, count));
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut_error("short".into()), "short");
        let long = cut_error("ä".repeat(limits::ERROR_BYTES_MAX));
        assert_eq!(long, "ä".repeat(limits::ERROR_BYTES_MAX / 2));
        let odd = cut_error(format!("x{}", "ä".repeat(limits::ERROR_BYTES_MAX)));
        assert_eq!(odd.len(), limits::ERROR_BYTES_MAX - 1);
    }
}
