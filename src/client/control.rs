//! Questions and orders outside of a session.
use std::time::Duration;

use crate::protocol::messages::WireFailure;
use crate::types::{CampaignId, CampaignSpec, CampaignStatus, CreationId, RequestFate, SessionId, TaskCount};

/// Why a question or order failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlFailure {
    /// No server answered while patience lasted. An order may or may not have been carried out.
    #[error("no server answers at {}: {last}", servers.join(", "))]
    Unreachable {
        /// The addresses that were tried.
        servers: Vec<String>,
        /// Why the last attempt failed.
        last: String,
    },
    /// The server did not do it. Nothing has changed.
    #[error("{text}")]
    Failed {
        /// Why: machine-readable.
        code: WireFailure,
        /// Why: for a person.
        text: String,
        /// Which key, if it is about one.
        index: u32,
    },
    /// Client and server do not understand each other.
    #[error("{0}")]
    Protocol(String),
}

/// A created campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its id.
    pub campaign: CampaignId,
    /// Whether the very same creation was complete before this call.
    pub existed: bool,
}

/// Counts of consecutive tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountsPage {
    /// Number of the campaign's first task.
    pub first: u64,
    /// Quota.
    pub runs: u32,
    /// Keys (in campaigns that have keys) and counts.
    pub tasks: Vec<(Option<String>, TaskCount)>,
    /// Where to go on, if there are more.
    pub next: Option<u32>,
}

/// Asks and orders; see the methods.
#[derive(Debug)]
pub struct Control(());

impl Control {
    /// For these servers (`HOST:PORT` each), trying for `patience` without progress.
    pub fn new(_servers: Vec<String>, _patience: Duration) -> Self {
        todo!()
    }
    /// Creates a campaign.
    ///
    /// # Errors
    /// See [`ControlFailure`].
    pub async fn create(
        &self,
        _creation: CreationId,
        _spec: &CampaignSpec,
        _keys: &[String],
    ) -> Result<Created, ControlFailure> {
        todo!()
    }
    /// Campaigns and their counts.
    ///
    /// # Errors
    /// See [`ControlFailure`].
    pub async fn status(&self, _name: Option<&str>) -> Result<Vec<CampaignStatus>, ControlFailure> {
        todo!()
    }
    /// Counts of tasks from an index on.
    ///
    /// # Errors
    /// See [`ControlFailure`].
    pub async fn counts_page(&self, _name: &str, _from: u32) -> Result<CountsPage, ControlFailure> {
        todo!()
    }
    /// Lends nothing until resumed.
    ///
    /// # Errors
    /// See [`ControlFailure`].
    pub async fn pause(&self, _name: &str) -> Result<u64, ControlFailure> {
        todo!()
    }
    /// Lends again.
    ///
    /// # Errors
    /// See [`ControlFailure`].
    pub async fn resume(&self, _name: &str) -> Result<u64, ControlFailure> {
        todo!()
    }
    /// Lends nothing any more.
    ///
    /// # Errors
    /// See [`ControlFailure`].
    pub async fn cancel(&self, _name: &str) -> Result<u64, ControlFailure> {
        todo!()
    }
    /// Removes.
    ///
    /// # Errors
    /// See [`ControlFailure`].
    pub async fn remove(&self, _name: &str) -> Result<u64, ControlFailure> {
        todo!()
    }
    /// Opens quarantined tasks again.
    ///
    /// # Errors
    /// See [`ControlFailure`].
    pub async fn requeue(&self, _name: &str) -> Result<u64, ControlFailure> {
        todo!()
    }
    /// What became of a request.
    ///
    /// # Errors
    /// See [`ControlFailure`].
    pub async fn fate(&self, _session: SessionId, _number: u64) -> Result<RequestFate, ControlFailure> {
        todo!()
    }
}
