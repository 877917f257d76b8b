//! Which connection spoke of something last: what comes over an older one is late.
//!
//! Connections are numbered as they are opened, and a client gives one up before it opens the next. Bytes of one that was given
//! up may arrive long after what was in them was said again over another, and was followed by more. Kept in memory only: no
//! connection outlives the process, so nothing can be late after a restart.
//!
//! **Invariant.** What is late is found out whatever was noted since: what is forgotten for want of room leaves the connection behind
//! up to which everything unknown counts as late. Whoever is wrongly taken for late is told to connect again, and is not late then.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use crate::types::ConnectionId;

/// The last connection of each of a bounded number of things; what was noted first is forgotten first.
#[derive(Debug)]
pub(super) struct Latest<T> {
    last: HashMap<T, ConnectionId>,
    order: VecDeque<T>,
    forgotten: ConnectionId,
    most: usize,
}

impl<T: Clone + Eq + Hash> Latest<T> {
    /// Remembers at most so many, at least 1.
    pub(super) fn new(most: usize) -> Self {
        Self { last: HashMap::new(), order: VecDeque::new(), forgotten: ConnectionId(0), most: most.max(1) }
    }

    /// Whether a later connection than this one spoke of it.
    pub(super) fn is_late<Q: Eq + Hash + ?Sized>(&self, what: &Q, connection: ConnectionId) -> bool
    where
        T: Borrow<Q>,
    {
        connection < *self.last.get(what).unwrap_or(&self.forgotten)
    }

    /// Notes that a connection spoke of it.
    pub(super) fn note(&mut self, what: T, connection: ConnectionId) {
        if let Some(last) = self.last.get_mut(&what) {
            *last = connection.max(*last);
            return;
        }
        if self.order.len() >= self.most
            && let Some(oldest) = self.order.pop_front()
            && let Some(last) = self.last.remove(&oldest)
        {
            self.forgotten = self.forgotten.max(last);
        }
        self.last.insert(what.clone(), connection);
        self.order.push_back(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_connections_are_late_also_for_what_was_forgotten() {
        let mut latest = Latest::<String>::new(2);
        let late = |latest: &Latest<String>, what: &str| {
            (0..10).filter(|one| latest.is_late(what, ConnectionId(*one))).count()
        };
        assert_eq!(late(&latest, "a"), 0, "nobody spoke of it");
        latest.note("a".to_owned(), ConnectionId(5));
        latest.note("a".to_owned(), ConnectionId(3));
        latest.note("b".to_owned(), ConnectionId(7));
        assert_eq!((late(&latest, "a"), late(&latest, "b"), late(&latest, "c")), (5, 7, 0));
        latest.note("c".to_owned(), ConnectionId(2));
        assert_eq!(
            (late(&latest, "a"), late(&latest, "b"), late(&latest, "c")),
            (5, 7, 2),
            "a is forgotten, and its connection not"
        );
        latest.note("a".to_owned(), ConnectionId(9));
        assert_eq!((late(&latest, "a"), late(&latest, "b"), late(&latest, "d")), (9, 7, 7), "so is b");
    }
}
