//! What happened in simulations, counted: a kind of event that a thousand seeds never produce is a defect of the simulation.

use std::collections::BTreeMap;
use std::fmt;

macro_rules! events {
    ($($name:ident: $text:literal,)*) => {
        /// Everything that a simulation is there to produce.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Seen { $($name,)* }

        /// All of them.
        const ALL: &[(Seen, &str)] = &[$((Seen::$name, $text),)*];
    };
}

events! {
    Starts: "starts of a server",
    Kills: "servers killed",
    KillsInCommit: "… during a commit",
    KillsBeforeAnswer: "… after a commit, before its answers",
    KillsInStart: "servers that ended while they started",
    PowerCuts: "power cuts",
    PowerCutsInCommit: "… during a commit",
    CommitsNotStored: "failed commits that left nothing",
    CommitsStored: "failed commits that were stored",
    CommitsTorn: "torn checkpoints, refused at the next start",
    CommitsCutShort: "commits cut short, dropped at the next start",
    SyncsThatLied: "lost ends of journals after syncs that lied, refused",
    NewDirectories: "new data directories",
    Commits: "commits",
    DecidedMeanwhile: "messages decided on while a commit was written",
    Trims: "journal records trimmed",
    Pages: "pages stored for the first time",
    Stalls: "stalls of the server",
    Connections: "connections of sessions",
    LostConnections: "connections lost",
    HalfOpen: "… of which one end did not hear",
    Partitions: "partitions that healed",
    OldBytes: "old bytes of an abandoned connection that arrived late",
    TwoConnections: "sessions with two connections at a time",
    Superseded: "connections superseded",
    Late: "late hellos and orders",
    OriginMadeRoom: "connections of the origin's dialect closed to make room for leases",
    SlowReaders: "connections dropped for reading too slowly",
    SplitFrames: "writes that arrived in pieces",
    Resumed: "sessions resumed",
    Resent: "requests sent again",
    SaidTwice: "answered requests sent again",
    Regranted: "leases granted again at a reconnect",
    Requests: "requests counted",
    Refused: "requests refused",
    Unknown: "requests whose fate stayed unknown",
    Releases: "leases released",
    Mixed: "reports with failed runs",
    OverReports: "reports of more units than lent",
    Expired: "leases expired",
    TimedOut: "leases timed out",
    DoneElsewhere: "leases whose runs were done elsewhere",
    LateCounted: "late reports counted",
    LateRefused: "late reports refused",
    LeasesForgotten: "expired leases forgotten",
    SessionsForgotten: "sessions forgotten",
    SessionsUnknown: "clients told that their session is unknown",
    SessionsFull: "sessions refused for want of room",
    RefusalsUnread: "connections closed for unread refusals",
    Quarantined: "tasks set aside",
    Requeued: "tasks requeued",
    Paused: "campaigns paused",
    Resumption: "campaigns resumed",
    Cancelled: "campaigns cancelled",
    Removed: "campaigns removed",
    Created: "campaigns created",
    CreatedWithKeys: "… with keys",
    CreationsDropped: "creations dropped",
    ClientsKilled: "clients killed",
    ClientsFrozen: "clients frozen",
    ClientsLeft: "clients gone without a goodbye",
    Goodbyes: "goodbyes",
    UntilDone: "workers that ended because all was done",
    OriginReports: "reports in the origin's dialect",
    OriginResent: "… sent twice",
    OriginLost: "connections of the origin's dialect lost",
    OriginSettled: "clients of the origin's dialect told that all is settled",
    Looks: "looks at all counts",
    LooksBroken: "looks broken off",
    Fates: "questions for a request's fate",
}

/// How often.
#[derive(Clone, Debug, Default)]
pub(super) struct Coverage(BTreeMap<Seen, u64>);

impl Coverage {
    pub(super) fn add(&mut self, seen: Seen, times: u64) {
        *self.0.entry(seen).or_default() += times;
    }

    /// Adds another simulation's.
    pub(super) fn merge(&mut self, other: &Self) {
        for (seen, times) in &other.0 {
            self.add(*seen, *times);
        }
    }

    /// What never happened.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        ALL.iter().filter(|(seen, _)| self.0.get(seen).is_none_or(|times| *times == 0)).map(|(_, text)| *text).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        ALL.iter()
            .try_for_each(|(seen, text)| writeln!(out, "{:>12}  {text}", self.0.get(seen).copied().unwrap_or_default()))
    }
}
