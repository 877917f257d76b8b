//! What happened in a history, in figures.

use std::fmt;

use crate::history::{Change, Fate, Heard, Record, Sent, Who};
use crate::world::{Told, World};

/// Makes the struct of figures, so that none is forgotten when they are added up.
macro_rules! figures {
    ($( $(#[$doc:meta])* $name:ident ),* $(,)?) => {
        /// What happened, in figures.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Figures { $( $(#[$doc])* pub $name: u64 ),* }

        impl Figures {
            /// Adds those of another history.
            pub fn add(&mut self, other: &Self) {
                $( self.$name += other.$name; )*
            }
        }
    };
}

figures! {
    /// Records.
    records,
    /// Servers that were killed.
    servers_killed,
    /// Power cuts.
    power_cuts,
    /// Failed disks.
    disks_failed,
    /// Starts.
    boots,
    /// Starts that were refused.
    starts_refused,
    /// Whole dumps.
    dumps,
    /// Whole looks.
    looks,
    /// Clients that were lent something.
    clients,
    /// Clients that were killed.
    clients_killed,
    /// Clients that left without a goodbye.
    clients_left,
    /// Times that one was frozen.
    clients_frozen,
    /// Sessions.
    sessions,
    /// Sessions that were found again.
    resumed,
    /// Leases that clients took.
    leases,
    /// Reports and releases.
    sent,
    /// Releases.
    releases,
    /// Answers that were read.
    acked,
    /// Refusals among them.
    refused,
    /// Of them unknown.
    unknown,
    /// Answers that were read again, or asked for.
    again,
    /// Sent and not answered when a server was killed or lost its power: to be resent.
    in_flight_at_kills,
    /// Reports of leases that were known to be lost, or had expired.
    late,
    /// Never answered, because their client was killed or left.
    unanswered,
    /// Of them counted.
    unanswered_counted,
    /// Of them nobody asked.
    unasked,
    /// Messages of the origin's dialect.
    origin_sent,
    /// Answers to them.
    origin_answered,
    /// Campaigns that were removed.
    removed,
    /// Runs that count, at the last look.
    runs,
    /// Executions beyond, at the last look.
    extra,
}

impl Figures {
    pub(crate) fn take(&mut self, world: &World, who: Who, record: &Record, told: &Told) {
        self.records += 1;
        match record {
            Record::Begin { .. } => {
                self.sessions += 1;
                let first = world.clients.get(&who).is_some_and(|client| client.sessions.len() == 1);
                self.clients += u64::from(first);
            }
            Record::Resumed { .. } => self.resumed += 1,
            Record::Grant { .. } => self.leases += 1,
            Record::Send { number, what, .. } => {
                self.sent += 1;
                self.releases += u64::from(*what == Sent::Release);
                let book = told.session.and_then(|session| world.sessions.get(&session));
                let late = book.and_then(|book| book.requests.get(number)).is_some_and(|request| request.late);
                self.late += u64::from(late);
            }
            Record::Ack { heard, .. } => {
                self.acked += 1;
                self.refused += u64::from(matches!(heard, Heard::Refused { .. }));
                self.unknown += u64::from(*heard == Heard::Unknown);
            }
            Record::Again { .. } | Record::Fate { .. } => self.again += 1,
            Record::KilledServer => {
                self.servers_killed += 1;
                self.in_flight_at_kills += in_flight(world);
            }
            Record::PowerCut { .. } => {
                self.power_cuts += 1;
                self.in_flight_at_kills += in_flight(world);
            }
            Record::DiskFailed => self.disks_failed += 1,
            Record::Boot { .. } => self.boots += 1,
            Record::RefusedStart { .. } => self.starts_refused += 1,
            Record::KilledClient { .. } => self.clients_killed += 1,
            Record::Left => self.clients_left += 1,
            Record::Frozen { .. } => self.clients_frozen += 1,
            Record::OriginSend { .. } => self.origin_sent += 1,
            Record::OriginAnswer { .. } => self.origin_answered += 1,
            Record::Done { change: Change::Remove, .. } => self.removed += 1,
            _ => {}
        }
        self.dumps += u64::from(told.dump.is_some());
        if let Some(look) = &told.look {
            self.looks += 1;
            let counts = || look.counts.values().flat_map(|counts| counts.values());
            self.runs = counts().map(|count| u64::from(count.done)).sum();
            self.extra = counts().map(|count| u64::from(count.extra)).sum();
        }
    }

    pub(crate) fn end(&mut self, world: &World) {
        let requests = world.sessions.values().flat_map(|book| book.requests.values());
        for request in requests.filter(|request| request.answer.is_none()) {
            self.unanswered += 1;
            self.unanswered_counted += u64::from(request.fate == Some(Fate::Counted) && request.what != Sent::Release);
            self.unasked += u64::from(request.fate.is_none());
        }
    }
}

/// Requests of clients that are there, without an answer.
fn in_flight(world: &World) -> u64 {
    let present = world.clients.values().filter(|client| !client.dead && !client.closed);
    let books = present.flat_map(|client| &client.sessions).filter_map(|session| world.sessions.get(session));
    books.flat_map(|book| book.requests.values()).filter(|request| request.answer.is_none()).count() as u64
}

impl fmt::Display for Figures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "  server: {} kills, {} power cuts, {} failed disks, {} starts, {} refused starts; {} dumps, {} looks at counts",
            self.servers_killed,
            self.power_cuts,
            self.disks_failed,
            self.boots,
            self.starts_refused,
            self.dumps,
            self.looks
        )?;
        writeln!(
            out,
            "  clients: {}, of these {} killed, {} gone without goodbye; {} times one was frozen; {} sessions, \
             {} times one was found again",
            self.clients, self.clients_killed, self.clients_left, self.clients_frozen, self.sessions, self.resumed
        )?;
        writeln!(
            out,
            "  requests: {} for {} leases ({} releases, {} late reports): {} acked ({} refused, {} unknown), {} asked \
             again, {} in flight at a kill, {} never answered, of these {} counted",
            self.sent,
            self.leases,
            self.releases,
            self.late,
            self.acked,
            self.refused,
            self.unknown,
            self.again,
            self.in_flight_at_kills,
            self.unanswered,
            self.unanswered_counted
        )?;
        if self.origin_sent > 0 {
            writeln!(out, "  origin: {} messages, {} answers", self.origin_sent, self.origin_answered)?;
        }
        write!(out, "  counts: {} runs, {} extra", self.runs, self.extra)
    }
}
