//! Reads the keys of tasks.
use crate::types::{CampaignId, TaskIndex};

/// Reads keys; cheap to clone, used from any thread.
#[derive(Clone)]
pub struct Texts;

impl Texts {
    /// The keys of the tasks `first .. first + count`, exactly that many.
    ///
    /// # Errors
    /// A key is missing or damaged.
    pub fn keys(&self, _campaign: CampaignId, _first: TaskIndex, _count: u32) -> Result<Vec<String>, TextError> {
        todo!()
    }
}

/// Why keys could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// There is no such key.
    #[error("the key of task {index} of campaign {campaign} is missing")]
    Missing {
        /// The campaign's id.
        campaign: u32,
        /// The task's index.
        index: u32,
    },
    /// What is stored cannot be read.
    #[error("{what}")]
    Damaged {
        /// What and where.
        what: String,
    },
}
