//! From the product's words to those of histories, one to one.

use tenfold_checker::history::{self, Heard, Kind, Phase as StoredPhase, Reason, Refused, Sent, Session, State};

use crate::client::Verdict;
use crate::coordinator::rows::{LeaseState, Phase};
use crate::types::{InstanceId, Outcome, Refusal, RefusalReason, Request, RequestFate, SessionId};

pub(super) fn session(session: SessionId) -> Session {
    Session(session.0)
}

pub(super) fn instance(instance: InstanceId) -> history::Instance {
    history::Instance(instance.0)
}

pub(super) fn reason(reason: RefusalReason) -> Reason {
    match reason {
        RefusalReason::NotHeld => Reason::NotHeld,
        RefusalReason::Ended => Reason::Ended,
        RefusalReason::Gone => Reason::Gone,
        RefusalReason::BadRuns => Reason::BadRuns,
    }
}

pub(super) fn refused(refusal: &Refusal) -> Refused {
    Refused { from: refusal.from, to: refusal.to, reason: reason(refusal.reason) }
}

pub(super) fn heard(verdict: Verdict) -> Heard {
    match verdict {
        Verdict::Counted => Heard::Counted,
        Verdict::Refused(why) => Heard::Refused { reason: reason(why) },
        Verdict::Unknown => Heard::Unknown,
    }
}

pub(super) fn sent(request: &Request) -> Sent {
    match request {
        Request::Report { outcome: Outcome::Done { runs }, .. } => Sent::Done { runs: *runs },
        Request::Report { outcome: Outcome::Mixed { done, failed, .. }, .. } => {
            Sent::Mixed { done: *done, failed: *failed }
        }
        Request::Release { .. } => Sent::Release,
    }
}

pub(super) fn fate(fate: RequestFate) -> history::Fate {
    match fate {
        RequestFate::Counted => history::Fate::Counted,
        RequestFate::Refused(why) => history::Fate::Refused { reason: reason(why) },
        RequestFate::NotReceived => history::Fate::NotReceived,
        RequestFate::UnknownSession => history::Fate::UnknownSession,
        RequestFate::Confirmed => history::Fate::Confirmed,
    }
}

pub(super) fn kind(numbered: bool) -> Kind {
    if numbered { Kind::Numbered } else { Kind::Counted }
}

pub(super) fn phase(phase: Phase) -> StoredPhase {
    match phase {
        Phase::Creating => StoredPhase::Creating,
        Phase::Running => StoredPhase::Running,
        Phase::Paused => StoredPhase::Paused,
        Phase::Cancelled => StoredPhase::Cancelled,
        Phase::Removing => StoredPhase::Removing,
    }
}

pub(super) fn state(state: LeaseState) -> State {
    match state {
        LeaseState::Live => State::Live,
        LeaseState::Expired => State::Expired,
        LeaseState::Gone => State::Gone,
    }
}
