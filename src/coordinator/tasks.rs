//! The counters of a campaign's tasks: 16 bytes a task, in chunks that exist only where somebody has worked.
//!
//! Indexes are checked by the caller once; a task that was never touched reads as zeros. Only `leased` is not durable:
//! it is the sum over the live leases and rebuilt from them.

use super::rows::TaskRow;
use crate::types::TaskIndex;

const CHUNK: usize = 256;

/// One task's counters, in runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// What is stored.
    pub(super) row: TaskRow,
    /// Runs under live leases.
    pub(super) leased: u32,
}

/// The counters of all tasks of one campaign.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    chunks: Vec<Option<Box<[Counters; CHUNK]>>>,
}

impl Tasks {
    /// The task's counters; zeros if it was never touched.
    pub(super) fn get(&self, task: TaskIndex) -> Counters {
        let (chunk, offset) = place(task);
        self.chunks.get(chunk).and_then(Option::as_ref).map_or_else(Counters::default, |chunk| chunk[offset])
    }

    /// The task's counters, to be changed.
    pub(super) fn get_mut(&mut self, task: TaskIndex) -> &mut Counters {
        let (chunk, offset) = place(task);
        if self.chunks.len() <= chunk {
            self.chunks.resize_with(chunk + 1, || None);
        }
        &mut self.chunks[chunk].get_or_insert_with(|| Box::new([Counters::default(); CHUNK]))[offset]
    }

    /// Drops the counters of `first .. first + tasks`, both multiples of the chunk.
    pub(super) fn clear(&mut self, first: TaskIndex, tasks: u32) {
        let from = (first.0 as usize / CHUNK).min(self.chunks.len());
        let to = (from + tasks as usize / CHUNK).min(self.chunks.len());
        self.chunks[from..to].fill_with(|| None);
    }

    /// One more than the last task that is not all zeros.
    pub(super) fn end(&self) -> u32 {
        let last = self.chunks.iter().enumerate().rev().find_map(|(index, chunk)| {
            let offset = chunk.as_ref()?.iter().rposition(|counters| *counters != Counters::default())?;
            Some(index * CHUNK + offset)
        });
        last.map_or(0, |task| task as u32 + 1)
    }

    /// Every task that is not all zeros, in order.
    pub(super) fn touched(&self) -> impl Iterator<Item = (TaskIndex, Counters)> {
        self.chunks.iter().enumerate().flat_map(|(index, chunk)| {
            chunk.iter().flat_map(move |chunk| {
                chunk
                    .iter()
                    .enumerate()
                    .filter(|(_, counters)| **counters != Counters::default())
                    .map(move |(offset, counters)| (TaskIndex((index * CHUNK + offset) as u32), *counters))
            })
        })
    }
}

fn place(task: TaskIndex) -> (usize, usize) {
    (task.0 as usize / CHUNK, task.0 as usize % CHUNK)
}

const _: () = assert!((super::rows::CLEAR_TASKS_UNIT as usize).is_multiple_of(CHUNK), "clearing drops whole chunks");
const _: () = assert!(size_of::<Counters>() == 16, "16 bytes a task");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_behind_the_last_that_is_not_all_zeros() {
        let mut tasks = Tasks::default();
        assert_eq!(tasks.end(), 0);
        tasks.get_mut(TaskIndex(5)).leased = 1;
        tasks.get_mut(TaskIndex(700)).leased = 1;
        // Looked at, and not changed.
        tasks.get_mut(TaskIndex(701));
        tasks.get_mut(TaskIndex(9_000));
        assert_eq!(tasks.end(), 701);
        tasks.get_mut(TaskIndex(700)).leased = 0;
        assert_eq!(tasks.end(), 6);
        tasks.get_mut(TaskIndex(5)).leased = 0;
        assert_eq!(tasks.end(), 0);
    }
}
