//! The reference store: a map in memory that does exactly what a disk promises, and fails exactly as it was told.
//!
//! It has two maps: what the running process sees, and what a power cut would leave. A commit changes both, unless a fault was
//! injected. Used by tests and simulations; nothing here is durable.
//! Tested in this file; it is the ground on which `store/tests` stands.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::kv::{Batch, CommitError, CommitFailure, Operation, ReadError, Reader, Record, Store, Visitor};

/// A store in memory. Clones are the same store, so a test can keep one and look at it after its owner is gone.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    shared: Arc<Mutex<Shared>>,
}

/// What happens to one commit instead of success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and leaves nothing.
    NotApplied,
    /// It fails without saying whether it was stored.
    Unknown {
        /// Whether it was.
        stored: bool,
    },
    /// It fails after its first operations were stored: of a batch, a store that broke its promise.
    Torn {
        /// How many.
        operations: usize,
    },
    /// It succeeds, but a power cut before the next good commit takes it back: a disk that lies.
    Unsynced,
}

/// The records of a store.
pub type Records = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Default)]
struct Shared {
    /// What readers see.
    live: Records,
    /// What a power cut leaves.
    synced: Records,
    /// What the one has and the other has not.
    unsynced: Vec<Operation>,
    /// For the next commits, in order.
    faults: VecDeque<Option<Fault>>,
    syncs: u64,
    failed: bool,
}

impl MemoryStore {
    /// A store that holds these records.
    pub fn with(records: Records) -> Self {
        let shared = Shared { live: records.clone(), synced: records, ..Shared::default() };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// Lets the commit after `good` further ones meet a fault.
    pub fn inject(&self, good: usize, fault: Fault) {
        let faults = &mut self.shared().faults;
        if faults.len() <= good {
            faults.resize(good + 1, None);
        }
        faults[good] = Some(fault);
    }

    /// What a new process finds after this one was killed.
    pub fn killed(&self) -> Records {
        self.shared().live.clone()
    }

    /// What a new process finds after the machine lost its power.
    pub fn power_cut(&self) -> Records {
        self.shared().synced.clone()
    }

    /// How many real syncs there were.
    pub fn syncs(&self) -> u64 {
        self.shared().syncs
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        // A panic while the lock is held leaves a test's store as it was; the test fails on its own.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        self.shared().write(batch.operations())
    }

    fn append(&mut self, records: &[Record]) -> Result<(), CommitError> {
        let operations: Vec<Operation> =
            records.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
        self.shared().write(&operations)
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(self.clone())
    }
}

impl Reader for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.shared().live.get(key).cloned())
    }

    fn at_or_below(&self, key: &[u8]) -> Result<Option<Record>, ReadError> {
        let shared = self.shared();
        let range = (Bound::Unbounded, Bound::Included(key));
        let found = shared.live.range::<[u8], _>(range).next_back();
        Ok(found.map(|(key, value)| (key.clone(), value.clone())))
    }

    fn scan(&self, from: &[u8], below: &[u8], visit: &mut Visitor<'_>) -> Result<(), ReadError> {
        if from >= below {
            return Ok(());
        }
        // A copy, so that the visitor may look into the store too.
        let shared = self.shared();
        let range = (Bound::Included(from), Bound::Excluded(below));
        let found: Vec<_> = shared.live.range::<[u8], _>(range).map(|(k, v)| (k.clone(), v.clone())).collect();
        drop(shared);
        for (key, value) in found {
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Shared {
    fn write(&mut self, operations: &[Operation]) -> Result<(), CommitError> {
        if self.failed {
            return Err(CommitError::NotApplied { cause: CommitFailure::Earlier });
        }
        let fault = self.faults.pop_front().flatten();
        let stored = match fault {
            None | Some(Fault::Unsynced | Fault::Unknown { stored: true }) => operations.len(),
            Some(Fault::NotApplied | Fault::Unknown { stored: false }) => 0,
            Some(Fault::Torn { operations: first }) => first.min(operations.len()),
        };
        let operations = &operations[..stored];
        apply(&mut self.live, operations);
        let cause = CommitFailure::Store("injected".into());
        let result = match fault {
            None | Some(Fault::Unsynced) => Ok(()),
            Some(Fault::NotApplied) => Err(CommitError::NotApplied { cause }),
            Some(Fault::Unknown { .. } | Fault::Torn { .. }) => Err(CommitError::Unknown { cause }),
        };
        self.failed = result.is_err();
        self.unsynced.extend_from_slice(operations);
        if fault != Some(Fault::Unsynced) {
            let unsynced = std::mem::take(&mut self.unsynced);
            apply(&mut self.synced, &unsynced);
            self.syncs += 1;
        }
        result
    }
}

fn apply(records: &mut Records, operations: &[Operation]) {
    for (key, value) in operations {
        match value {
            Some(value) => records.insert(key.clone(), value.clone()),
            None => records.remove(key),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(operations: &[(u8, Option<u8>)]) -> Batch {
        let mut batch = Batch::default();
        for (key, value) in operations {
            match value {
                Some(value) => batch.put(vec![*key], vec![*value]).unwrap(),
                None => batch.remove(vec![*key]),
            }
        }
        batch
    }

    #[test]
    fn faults_happen_as_they_were_told() {
        let two = batch(&[(1, Some(1)), (2, Some(2))]);
        for (fault, killed, cut, syncs) in [
            (Fault::NotApplied, 0, 0, 1),
            (Fault::Unknown { stored: false }, 0, 0, 1),
            (Fault::Unknown { stored: true }, 2, 2, 1),
            (Fault::Torn { operations: 1 }, 1, 1, 1),
            (Fault::Unsynced, 2, 0, 0),
        ] {
            let mut store = MemoryStore::default();
            store.inject(0, fault);
            let result = store.commit(&two);
            assert_eq!(result.is_ok(), fault == Fault::Unsynced, "{fault:?}");
            assert_eq!(
                (store.killed().len(), store.power_cut().len(), store.syncs()),
                (killed, cut, syncs),
                "{fault:?}"
            );
            let again = store.commit(&two);
            let earlier = CommitError::NotApplied { cause: CommitFailure::Earlier };
            assert_eq!(again, if fault == Fault::Unsynced { Ok(()) } else { Err(earlier) }, "{fault:?}");
        }
    }

    #[test]
    fn readers_see_keys_in_order() {
        let mut store = MemoryStore::default();
        store.commit(&batch(&[(3, Some(30)), (1, Some(10)), (2, Some(20)), (2, None)])).unwrap();
        assert_eq!(store.at_or_below(&[2]).unwrap(), Some((vec![1], vec![10])));
        assert_eq!(store.at_or_below(&[0]).unwrap(), None);
        let mut seen = Vec::new();
        let mut visit = |key: &[u8], _: &[u8]| {
            seen.push(key[0]);
            std::ops::ControlFlow::Continue(())
        };
        store.scan(&[1], &[9], &mut visit).unwrap();
        assert_eq!(seen, [1, 3]);
    }
}
