//! A lease in the caller's hands, and the answer to its report.
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::types::{LeaseId, LossReason, Outcome, RefusalReason, SessionId, TaskIndex};

/// Some runs of one task, lent to this client until they are reported or released. Dropping it releases it.
#[derive(Debug)]
pub struct Lease(());

impl Lease {
    /// Its id.
    pub fn id(&self) -> LeaseId {
        todo!()
    }
    /// The session it was lent to.
    pub fn session(&self) -> SessionId {
        todo!()
    }
    /// The campaign's name.
    pub fn campaign(&self) -> &str {
        todo!()
    }
    /// The task's number.
    pub fn task(&self) -> u64 {
        todo!()
    }
    /// The task's position in its campaign.
    pub fn index(&self) -> TaskIndex {
        todo!()
    }
    /// The task's key, in campaigns that have keys.
    pub fn key(&self) -> Option<&str> {
        todo!()
    }
    /// Number of the first run (0 in counted campaigns).
    pub fn first_run(&self) -> u32 {
        todo!()
    }
    /// How many runs, at least 1.
    pub fn runs(&self) -> u32 {
        todo!()
    }
    /// The seed of the `index`-th run of this lease, in numbered campaigns.
    pub fn seed(&self, _index: u32) -> Option<u64> {
        todo!()
    }
    /// How long one run may take.
    pub fn timeout(&self) -> Option<Duration> {
        todo!()
    }
    /// Waits until the lease is no longer worth working on; for ever while it is.
    pub async fn lost(&self) -> LossReason {
        std::future::pending().await
    }
    /// Whether it is no longer worth working on.
    pub fn is_lost(&self) -> bool {
        todo!()
    }
    /// Reports all its runs as done.
    pub fn done(self) -> Answer {
        todo!()
    }
    /// Reports what became of its runs.
    pub fn report(self, _outcome: Outcome) -> Answer {
        todo!()
    }
    /// Reports all its runs as failed, and why.
    pub fn failed(self, _error: impl Into<String>) -> Answer {
        todo!()
    }
    /// Gives it back unexecuted.
    pub fn release(self) -> Answer {
        todo!()
    }
}

/// The answer to a report or release; await it, or drop it (the request is sent all the same).
#[derive(Debug)]
pub struct Answer(());

impl Answer {
    /// The request's number in its session.
    pub fn number(&self) -> u64 {
        todo!()
    }
    /// The session it belongs to.
    pub fn session(&self) -> SessionId {
        todo!()
    }
}

impl Future for Answer {
    type Output = Verdict;
    fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Verdict> {
        todo!()
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
