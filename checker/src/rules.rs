//! The rules, by name and text, and what is found when they are applied.
//!
//! | file | rules |
//! |---|---|
//! | `counts` | what was acked is there, nothing else is, nothing falls: S1 S2 S3 S6 S7 S12 |
//! | `answers` | an answer is durable and stays the same: S4 S5 S9 S15 |
//! | `leases` | leases survive and do not overlap: S8 S10 |
//! | `ends` | finished and settled: S11 |
//! | `books` | every row fits every other: S13 |
//! | `states` | whole states compared: S14 S16 S17 S18, and whose they are: S19 |
//! | `liveness` | nothing stays stuck: L1 to L6 |
//!
//! **Invariants.** No rule is broken by a right server, in whatever order processes ran: each holds for what was surely so
//! when it is applied. A rule whose input is absent from a history is not applied, and the report says so.

pub(crate) mod answers;
pub(crate) mod books;
pub(crate) mod counts;
pub(crate) mod ends;
pub(crate) mod leases;
pub(crate) mod liveness;
pub(crate) mod states;

use std::collections::BTreeSet;
use std::fmt;

/// Makes the enum of rules: each with its text and with what a history must hold for it to be applied.
macro_rules! rules {
    ($( $(#[$doc:meta])* $name:ident $text:literal needs $needs:literal )*) => {
        /// One rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule { $( #[doc = $text] #[doc = ""] #[doc = concat!("Needs ", $needs, ".")] $name ),* }

        impl Rule {
            /// Rules that every whole run has to apply, whatever was broken in it; most runs have more to apply.
            pub const OF_EVERY_RUN: [Self; 12] = [
                Self::Sound, Self::S1, Self::S2, Self::S3, Self::S6, Self::S7, Self::S9, Self::S11, Self::S13, Self::L1,
                Self::L2, Self::L3,
            ];

            /// Every rule.
            pub const ALL: &[Self] = &[$( Self::$name ),*];

            /// What it says.
            pub fn text(self) -> &'static str {
                match self { $( Self::$name => $text ),* }
            }

            /// What a history must hold for it to be applied.
            pub fn needs(self) -> &'static str {
                match self { $( Self::$name => $needs ),* }
            }
        }
    };
}

rules! {
    Sound "The history itself is sound: its writers did what writers can do." needs "any record"
    S1 "What was acked before a cut is in the next dump: reports, sessions, campaigns and their changes."
        needs "dumps"
    S2 "Nothing is counted that was never sent." needs "looks or dumps"
    S3 "Counts are the sum of the distinct durable reports, at every dump, and at the end at the last look."
        needs "dumps, or a look after the last report, and an end"
    S4 "No ack before a successful sync that covers it." needs "`durable` records"
    S5 "A resend gets the same answer, counted or refused, also across restarts; an answered session stays known until it is \
        forgotten." needs "answers that are heard again: `again`, `fate`, `out`, `resumed` or dumps"
    S6 "No observer sees a count fall." needs "two looks or dumps"
    S7 "What an observer is told after an ack shows at least what was acked." needs "looks"
    S8 "A run is with one session at a time unless it expired or was given back; lease ids never repeat."
        needs "grants; of expiring leases `set expiries 1`"
    S9 "A report, a late one too, has exactly one documented fate: it is counted, or refused for a reason that is so."
        needs "answers"
    S10 "A lease that a client knew of before a cut exists after it, and one that lasts is not lost."
        needs "dumps, or looks and `lost` while leases last"
    S11 "Finished implies that every quota is met, settled that every task is done or set aside, or the campaign cancelled."
        needs "`settled`, `status` or the origin's `settled`"
    S12 "Counts overshoot quotas only as far as lost leases and over-reports explain." needs "dumps, or looks at lasting campaigns"
    S13 "Every task's books balance, and every sum equals a full scan." needs "dumps or looks"
    S14 "Recovering twice equals recovering once." needs "a dump of the moment `again`"
    S15 "After the first failed write or sync no answer leaves that process, and it does not end well."
        needs "`disk-failed`, and `out`, `durable`, answers or `ended-server` after it"
    S16 "After damage there is the same state, or a start is refused; never another state."
        needs "a dump, then `damaged`, then a dump or `refused-start`"
    S17 "An upgrade keeps the state; a program that refuses a newer format leaves it untouched."
        needs "a dump, then `upgraded`, then a dump"
    S18 "Peers that break the protocol leave the state unchanged." needs "a dump, then `hostile`, then a dump"
    S19 "A new data directory is never mistaken for an old one, by a client's session or by a server."
        needs "`boot`, or clients that write down which instance they meet"
    L1 "After faults stop, every quota is met, but of tasks that failed too often." needs "`calm`, `end`, and a look or dump between"
    L2 "After faults stop, every request of a living client is answered." needs "`calm` and `end`"
    L3 "After faults stop, every client that works until all is settled ends." needs "`calm`, `end` and `until-done`"
    L4 "After faults stop, a dead holder's runs are lent again within the length of the lease and a bound."
        needs "`set relend-ms`, `calm`, `time`, and a client that died holding a lease that ends"
    L5 "After a load, memory and descriptors return to where they were, but for a bound."
        needs "`usage before` and `usage after`, and `set memory-bytes` or `set descriptors`"
    L6 "No client starves: while nothing is broken an answer takes no longer than a bound." needs "`set answer-ms` and `time`"
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub rule: Rule,
    /// At which place of the history.
    pub at: usize,
    /// What was wrong.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}, line {}: {}", self.rule, self.at, self.what)
    }
}

/// What was found so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    pub(crate) violations: Vec<Violation>,
    pub(crate) applied: BTreeSet<Rule>,
    /// The place of the present record.
    pub(crate) at: usize,
}

impl Findings {
    /// Applies a rule: `holds`, or it is broken in this way.
    pub(crate) fn hold(&mut self, rule: Rule, holds: bool, what: impl FnOnce() -> String) -> bool {
        self.applied.insert(rule);
        if !holds {
            self.violations.push(Violation { rule, at: self.at, what: what() });
        }
        holds
    }
}
