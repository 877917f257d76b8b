//! The keys of tasks: immutable texts in blocks beside the pages, read by whoever talks to clients, not by the pipeline.
//!
//! A block holds consecutive keys and is found by the greatest first index that is not above the wanted one. Blocks are
//! written once, in the commits of their campaign's creation, and removed after the campaign is.
//! **Invariant.** The blocks of a campaign that is not being created or removed cover all its tasks, without gaps or overlaps; a
//! block that is missing is an error for who reads it, and found by `verify`.
//! Tested in this file and in `store/tests/histories.rs`.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::codec::{self, Damage, PAYLOAD_BYTES_MAX};
use super::keys;
use super::kv::{Batch, CommitFailure, ReadError, Reader};
use crate::types::{CampaignId, TaskIndex};

/// Reads keys; cheap to clone, usable from any thread while the ledger commits.
#[derive(Clone)]
pub struct Texts {
    reader: Arc<dyn Reader>,
}

/// Why keys could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// There is no such key: the campaign has none, has fewer, or was removed meanwhile. If it is there, the directory is damaged.
    #[error("the key of task {} of campaign {} is missing", index.0, campaign.0)]
    Missing {
        /// The campaign.
        campaign: CampaignId,
        /// The task.
        index: TaskIndex,
    },
    /// What is stored is not what was written.
    #[error("the keys are damaged: {what}")]
    Damaged {
        /// What and where.
        what: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] ReadError),
}

impl From<Damage> for TextError {
    fn from(damage: Damage) -> Self {
        Self::Damaged { what: damage.0 }
    }
}

impl Texts {
    pub(super) fn new(reader: Arc<dyn Reader>) -> Self {
        Self { reader }
    }

    /// The keys of the tasks `first .. first + count`, exactly that many, in order.
    ///
    /// # Errors
    /// See [`TextError`].
    pub fn keys(&self, campaign: CampaignId, first: TaskIndex, count: u32) -> Result<Vec<String>, TextError> {
        let mut found = Vec::new();
        let end = u64::from(first.0) + u64::from(count);
        let mut wanted = u64::from(first.0);
        while wanted < end {
            // `wanted` is below the end of a stretch that began in 32 bits; beyond them there are no tasks.
            let Ok(index) = u32::try_from(wanted) else { break };
            let missing = TextError::Missing { campaign, index: TaskIndex(index) };
            let Some((key, value)) = self.reader.at_or_below(&keys::text(campaign, TaskIndex(index)))? else {
                return Err(missing);
            };
            let Some((_, start)) = keys::parse_text(&key).filter(|(owner, _)| *owner == campaign) else {
                return Err(missing);
            };
            let block = read_block(&key, &value)?;
            let before = found.len();
            let skip = (index - start.0) as usize;
            let room = (end - wanted) as usize;
            found.extend(block.into_iter().skip(skip).take(room));
            if found.len() == before {
                return Err(missing);
            }
            wanted += (found.len() - before) as u64;
        }
        Ok(found)
    }
}

/// The texts stored under a key.
pub(super) fn read_block(key: &[u8], value: &[u8]) -> Result<Vec<String>, Damage> {
    let sealed = codec::unseal(key, value)?;
    codec::decode_all(sealed.payload).map_err(|damage| Damage(format!("the text record {}: {damage}", codec::hex(key))))
}

/// Adds keys to a batch, in as few blocks as they fit.
pub(super) fn put(
    campaign: CampaignId,
    first: TaskIndex,
    texts: &[String],
    sequence: u64,
    batch: &mut Batch,
) -> Result<(), CommitFailure> {
    let mut block_first = first;
    let mut next = first.0;
    let mut payload = Vec::new();
    let mut item = Vec::new();
    for text in texts {
        item.clear();
        codec::encode(text, &mut item);
        if !payload.is_empty() && payload.len() + item.len() > PAYLOAD_BYTES_MAX {
            put_block(campaign, block_first, sequence, &payload, batch)?;
            payload.clear();
            block_first = TaskIndex(next);
        }
        payload.extend(&item);
        next = next.saturating_add(1);
    }
    if payload.is_empty() { Ok(()) } else { put_block(campaign, block_first, sequence, &payload, batch) }
}

fn put_block(
    campaign: CampaignId,
    first: TaskIndex,
    sequence: u64,
    payload: &[u8],
    batch: &mut Batch,
) -> Result<(), CommitFailure> {
    let key = keys::text(campaign, first);
    let value = codec::seal(&key, sequence, payload);
    batch.put(key, value)
}

/// Texts of one campaign that are to be removed: blocks that begin at `from .. below`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TextRange {
    campaign: CampaignId,
    from: u64,
    below: u64,
}

impl TextRange {
    /// The texts of the tasks `first .. first + tasks`.
    pub(super) fn of(campaign: CampaignId, first: TaskIndex, tasks: u32) -> Self {
        Self { campaign, from: first.0.into(), below: u64::from(first.0) + u64::from(tasks) }
    }

    /// All texts of a campaign.
    pub(super) fn all(campaign: CampaignId) -> Self {
        Self { campaign, from: 0, below: 1 << 32 }
    }

    /// Joins a range that begins where this one ends; says whether it did.
    pub(super) fn absorb(&mut self, next: Self) -> bool {
        let joins = next.campaign == self.campaign && next.from == self.below;
        if joins {
            self.below = next.below;
        }
        joins
    }

    /// The keys of the first blocks, at most `limit`; the range goes on behind them.
    pub(super) fn first_blocks(&mut self, reader: &dyn Reader, limit: usize) -> Result<Vec<Vec<u8>>, ReadError> {
        let mut found = Vec::new();
        let key = |index: u64| match u32::try_from(index) {
            Ok(index) => keys::text(self.campaign, TaskIndex(index)),
            Err(_) => keys::text(CampaignId(self.campaign.0.saturating_add(1)), TaskIndex(0)),
        };
        reader.scan(&key(self.from), &key(self.below), &mut |key, _| {
            if found.len() == limit {
                return ControlFlow::Break(());
            }
            found.push(key.to_vec());
            ControlFlow::Continue(())
        })?;
        if let Some((_, last)) = found.last().and_then(|key| keys::parse_text(key)) {
            self.from = u64::from(last.0) + 1;
        }
        Ok(found)
    }
}

/// The campaigns that have texts, found by skipping from one to the next.
pub(super) fn campaigns_with_texts(reader: &dyn Reader) -> Result<Vec<CampaignId>, ReadError> {
    let mut campaigns = Vec::new();
    let below = super::keys::Kind::Text.bounds().1;
    let mut from = keys::text(CampaignId(0), TaskIndex(0));
    loop {
        let mut found = None;
        reader.scan(&from, &below, &mut |key, _| {
            found = keys::parse_text(key);
            ControlFlow::Break(())
        })?;
        let Some((campaign, _)) = found else { return Ok(campaigns) };
        campaigns.push(campaign);
        let Some(next) = campaign.0.checked_add(1) else { return Ok(campaigns) };
        from = keys::text(CampaignId(next), TaskIndex(0));
    }
}
