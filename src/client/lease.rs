//! A lease in the caller's hands, and the answer to its report.
//!
//! **Invariants.** A lease ends exactly once: by a report, by a release, or by being dropped (which releases it).
//! Tested through `tests/client_session.rs`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{SetOnce, oneshot};

use super::shared::Shared;
use crate::types::{
    CampaignInfo, Grant, LeaseId, LossReason, Outcome, RefusalReason, Request, SessionId, TaskIndex, run_seed,
};

/// Some runs of one task, lent to this client until they are reported or released. Dropping it releases it.
///
/// While the client lives and its server is reachable, the lease is kept alive by heartbeats; what ends it otherwise is
/// told by [`Lease::lost`].
#[derive(Debug)]
pub struct Lease {
    body: Arc<Body>,
    /// None once a request that ends the lease was queued.
    shared: Option<Arc<Shared>>,
}

/// What a lease is, as client and caller share it.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) session: SessionId,
    pub(super) campaign: Arc<CampaignInfo>,
    pub(super) grant: Grant,
    pub(super) key: Option<String>,
    pub(super) lost: SetOnce<LossReason>,
}

impl Lease {
    pub(super) fn new(body: Arc<Body>, shared: Arc<Shared>) -> Self {
        Self { body, shared: Some(shared) }
    }

    /// Its id; never used twice in the life of a server's data directory.
    pub fn id(&self) -> LeaseId {
        self.body.grant.lease
    }

    /// The session it was lent to; its report is a request of this session.
    pub fn session(&self) -> SessionId {
        self.body.session
    }

    /// The campaign's name.
    pub fn campaign(&self) -> &str {
        &self.body.campaign.name
    }

    /// The task's number, which is what people see.
    pub fn task(&self) -> u64 {
        self.body.campaign.first.saturating_add(u64::from(self.body.grant.task.0))
    }

    /// The task's position in its campaign, from 0.
    pub fn index(&self) -> TaskIndex {
        self.body.grant.task
    }

    /// The task's key, in campaigns that have keys.
    pub fn key(&self) -> Option<&str> {
        self.body.key.as_deref()
    }

    /// Number of the first run, from 0, in numbered campaigns; 0 in counted ones.
    pub fn first_run(&self) -> u32 {
        self.body.grant.first_run
    }

    /// How many runs, 1..=[`crate::limits::LEASE_RUNS_MAX`].
    pub fn runs(&self) -> u32 {
        self.body.grant.runs
    }

    /// The seed of the `index`-th run of this lease (0..[`Lease::runs`]): 53 bits that depend on nothing but the
    /// campaign's seed, the task's number and the run's number. `None` in counted campaigns.
    pub fn seed(&self, index: u32) -> Option<u64> {
        let run = u64::from(self.first_run()) + u64::from(index);
        self.body.campaign.seed.map(|seed| run_seed(seed, self.task(), run))
    }

    /// How long one run may take before the lease is lost in spite of heartbeats; `None` is no limit.
    pub fn timeout(&self) -> Option<Duration> {
        self.body.campaign.timeout_ms.map(Duration::from_millis)
    }

    /// Waits until the lease is no longer worth working on; for ever while it is. What is done already may still be
    /// reported, and counts, unless the reason is [`LossReason::Gone`].
    pub async fn lost(&self) -> LossReason {
        *self.body.lost.wait().await
    }

    /// Whether it is no longer worth working on.
    pub fn is_lost(&self) -> bool {
        self.body.lost.get().is_some()
    }

    /// Reports all its runs as done.
    pub fn done(self) -> Answer {
        let runs = self.runs();
        self.report(Outcome::Done { runs })
    }

    /// Reports what became of its runs. Runs that are not named go back.
    ///
    /// Returns at once; the report is sent, and sent again after every reconnect, until it is answered.
    pub fn report(self, outcome: Outcome) -> Answer {
        self.report_noted(outcome, |_| ())
    }

    /// Like [`Lease::report`], for callers that write down what they are about to send: `note` is called with the
    /// request's number before anything of it can be sent, and not at all if it cannot be sent any more. The client is
    /// locked meanwhile: be quick, and do not call it.
    pub fn report_noted(self, outcome: Outcome, note: impl FnOnce(u64)) -> Answer {
        let lease = self.id();
        self.end(Request::Report { lease, outcome }, note)
    }

    /// Reports all its runs as failed, and why; the text is cut to [`crate::limits::ERROR_BYTES_MAX`] bytes.
    pub fn failed(self, error: impl Into<String>) -> Answer {
        let failed = u64::MAX.checked_shr(64_u32.saturating_sub(self.runs())).unwrap_or(0);
        self.report(Outcome::Mixed { done: 0, failed, error: error.into() })
    }

    /// Gives it back unexecuted: its runs go to others, and to this session only after a growing delay.
    pub fn release(self) -> Answer {
        self.release_noted(|_| ())
    }

    /// Like [`Lease::release`]; `note` as in [`Lease::report_noted`].
    pub fn release_noted(self, note: impl FnOnce(u64)) -> Answer {
        let lease = self.id();
        self.end(Request::Release { lease }, note)
    }

    fn end(mut self, request: Request, note: impl FnOnce(u64)) -> Answer {
        let (sender, receiver) = oneshot::channel();
        // Always there: only this function, which consumes the lease, takes it.
        let number = self.shared.take().map_or(0, |shared| shared.end(&self.body, request, sender, note));
        Answer { session: self.session(), number, receiver }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.abandon(&self.body);
        }
    }
}

/// The answer to a report or release. Await it, or drop it: the request is sent all the same.
#[derive(Debug)]
pub struct Answer {
    session: SessionId,
    number: u64,
    receiver: oneshot::Receiver<Verdict>,
}

impl Answer {
    /// The request's number in its session, from 1; what [`super::Control::fate`] asks for. 0 if it was never sent,
    /// because the session was forgotten by the server or the client had stopped.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The session it belongs to.
    pub fn session(&self) -> SessionId {
        self.session
    }
}

impl Future for Answer {
    type Output = Verdict;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Verdict> {
        Pin::new(&mut self.receiver).poll(context).map(|outcome| outcome.unwrap_or(Verdict::Unknown))
    }
}

/// What became of a report or release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was counted (or the release taken), durably, once.
    Counted,
    /// It was not counted and never will be.
    Refused(RefusalReason),
    /// It may or may not have been counted: the server forgot the session, or the client stopped before an answer came.
    Unknown,
}
