//! Sessions whose window is not full, in the order in which they began to wait, and campaigns they must look at again.
//!
//! A session waits in one queue (it wants any campaign) or in one queue for each campaign that it named, whether that
//! exists or not. When something opens in a campaign, or there is news of it, its name is marked; marked names are worked
//! off in slices: every waiting session that cares is visited once, in order of arrival, until nothing is left to lend. A
//! name that is marked anew meanwhile is gone through once more from the front, when those at the end have had their turn.
//!
//! **Invariant**: while nobody is to be visited, no waiting session could be lent anything. So a session that asks may be
//! served at once without overtaking anybody. One that asks while others are to be visited comes after them, and is then
//! visited itself, since what it could be lent may be in a campaign that is not marked.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Arrival number and session slot.
type Waiter = (u64, u32);

/// The queues and the marks.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    arrivals: u64,
    any: BTreeSet<Waiter>,
    named: HashMap<String, BTreeSet<Waiter>>,
    marks: BTreeMap<String, Mark>,
    /// Those who asked while names were marked and have not been looked at yet.
    late: BTreeSet<Waiter>,
}

/// How far the waiting sessions have looked at a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    visited: u64,
    news: bool,
    /// Marked anew meanwhile: those already visited look once more, after the others.
    again: bool,
}

/// A session to be visited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Visit {
    /// The session's slot.
    pub(super) session: u32,
    /// The marked name; `None` for one who asked while names were marked.
    pub(super) name: Option<String>,
    /// Whether it is to be visited even if nothing can be lent.
    pub(super) news: bool,
}

impl Waiting {
    /// Puts a session at the end of its queues; returns its arrival number for [`Waiting::leave`].
    pub(super) fn join(&mut self, session: u32, campaigns: &[String]) -> u64 {
        self.arrivals += 1;
        if self.is_marked() {
            self.late.insert((self.arrivals, session));
        }
        if campaigns.is_empty() {
            self.any.insert((self.arrivals, session));
        }
        for name in campaigns {
            self.named.entry(name.clone()).or_default().insert((self.arrivals, session));
        }
        self.arrivals
    }

    /// Takes a session out of its queues.
    pub(super) fn leave(&mut self, arrival: u64, session: u32, campaigns: &[String]) {
        self.any.remove(&(arrival, session));
        self.late.remove(&(arrival, session));
        for name in campaigns {
            if let Some(queue) = self.named.get_mut(name) {
                queue.remove(&(arrival, session));
                if queue.is_empty() {
                    self.named.remove(name);
                }
            }
        }
    }

    /// Something can be lent in the campaign of this name, or (`news`) its state changed. Without anybody waiting for it
    /// nothing happens.
    pub(super) fn mark(&mut self, name: &str, news: bool) {
        if self.any.is_empty() && !self.named.contains_key(name) {
            return;
        }
        // The round goes on where it is: beginning anew with every opening would starve those at the end.
        let fresh = Mark { visited: 0, news, again: false };
        let joined = |mark: &mut Mark| *mark = Mark { visited: mark.visited, news: mark.news || news, again: true };
        self.marks.entry(name.to_owned()).and_modify(joined).or_insert(fresh);
    }

    /// Whether sessions are still to be visited.
    pub(super) fn is_marked(&self) -> bool {
        !self.marks.is_empty() || !self.late.is_empty()
    }

    /// The next session to visit; `None` when all marks are worked off and all who came meanwhile were visited.
    pub(super) fn next_visit(&mut self) -> Option<Visit> {
        loop {
            let Some((name, mark)) = self.marks.first_key_value().map(|(name, mark)| (name.clone(), *mark)) else {
                let (_, session) = self.late.pop_first()?;
                return Some(Visit { session, name: None, news: true });
            };
            let after = (mark.visited + 1, 0);
            let any = self.any.range(after..).next();
            let named = self.named.get(&name).and_then(|queue| queue.range(after..).next());
            let first = match (any, named) {
                (Some(any), Some(named)) => Some(any.min(named)),
                (one, other) => one.or(other),
            };
            let Some(&(arrival, session)) = first else {
                if mark.again {
                    self.marks.insert(name, Mark { visited: 0, again: false, ..mark });
                } else {
                    self.marks.remove(&name);
                }
                continue;
            };
            self.marks.insert(name.clone(), Mark { visited: arrival, ..mark });
            return Some(Visit { session, name: Some(name), news: mark.news });
        }
    }

    /// Nothing is left to lend under this name: forgets its mark.
    pub(super) fn unmark(&mut self, name: &str) {
        self.marks.remove(name);
    }

    /// All waiting sessions, for checks.
    pub(super) fn sessions(&self) -> BTreeSet<u32> {
        self.any.iter().chain(self.named.values().flatten()).map(|(_, session)| *session).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn visits_follow_arrival_and_only_those_who_care() {
        let mut waiting = Waiting::default();
        let first = waiting.join(7, &names(&["a"]));
        waiting.join(8, &names(&["b"]));
        waiting.join(9, &[]);
        waiting.mark("a", false);
        let visit = |session, name: &str| Some(Visit { session, name: Some(name.into()), news: false });
        assert_eq!(waiting.next_visit(), visit(7, "a"));
        assert_eq!(waiting.next_visit(), visit(9, "a"));
        assert_eq!(waiting.next_visit(), None);
        assert!(!waiting.is_marked());
        waiting.leave(first, 7, &names(&["a"]));
        waiting.mark("a", false);
        assert_eq!(waiting.next_visit(), visit(9, "a"));
        // A new mark is for those who were visited, too, so that nobody misses an opening.
        waiting.mark("a", false);
        assert_eq!(waiting.next_visit(), visit(9, "a"));
        assert_eq!(waiting.next_visit(), None);
    }

    #[test]
    fn nobody_at_the_end_starves_however_often_a_name_is_marked() {
        let mut waiting = Waiting::default();
        for session in 1..=3 {
            waiting.join(session, &names(&["a"]));
        }
        let mut visited = Vec::new();
        for _ in 0..6 {
            waiting.mark("a", false);
            visited.extend(waiting.next_visit().map(|visit| visit.session));
        }
        assert_eq!(visited, [1, 2, 3, 1, 2, 3]);
        // The last mark is worked off by everybody, then there is an end.
        let rest = std::iter::from_fn(|| waiting.next_visit()).map(|visit| visit.session);
        assert_eq!(rest.collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn who_comes_while_a_name_is_marked_is_visited_last() {
        let mut waiting = Waiting::default();
        waiting.join(7, &names(&["a"]));
        waiting.mark("a", false);
        let arrival = waiting.join(8, &names(&["b"]));
        waiting.join(9, &names(&["b"]));
        assert_eq!(waiting.next_visit(), Some(Visit { session: 7, name: Some("a".into()), news: false }));
        waiting.unmark("a");
        assert!(waiting.is_marked());
        waiting.leave(arrival, 8, &names(&["b"]));
        assert_eq!(waiting.next_visit(), Some(Visit { session: 9, name: None, news: true }));
        assert_eq!(waiting.next_visit(), None);
        assert!(!waiting.is_marked());
    }

    #[test]
    fn a_name_that_lends_nothing_more_is_not_visited_on() {
        let mut waiting = Waiting::default();
        waiting.join(1, &names(&["a"]));
        waiting.join(2, &[]);
        waiting.mark("a", false);
        assert!(waiting.next_visit().is_some());
        waiting.unmark("a");
        assert!(!waiting.is_marked());
        assert_eq!(waiting.next_visit(), None);
    }

    #[test]
    fn news_are_news_until_everybody_was_visited() {
        for (first, second) in [(true, false), (false, true)] {
            let mut waiting = Waiting::default();
            waiting.join(1, &names(&["a"]));
            waiting.mark("a", first);
            waiting.mark("a", second);
            assert!(waiting.next_visit().is_some_and(|visit| visit.news));
            assert!(waiting.next_visit().is_some_and(|visit| visit.news), "once more, since it was marked twice");
            assert_eq!(waiting.next_visit(), None);
        }
    }

    #[test]
    fn a_mark_nobody_waits_for_is_nothing() {
        let mut waiting = Waiting::default();
        waiting.join(1, &names(&["a"]));
        waiting.mark("b", true);
        assert!(!waiting.is_marked());
    }
}
