//! The vocabulary of histories: what happened, in order, one record a line.
//!
//! ```text
//!   0 create lowest 60 10 counted 200 - 3 -       the test (0) is about to create a campaign
//!   3 begin 0f3c… 77aa…                           client 3 has a session that lasts, with this data directory
//!   3 grant 4294967301 lowest 12 0 2              it was lent two runs of task 12
//!   3 send 17 4294967301 done 2                   it is about to report; written before anything of it can leave
//!   0 killed-server                               the test has killed the server
//!   0 boot 77aa…                                  the next one has opened the data directory
//!   0 dump recovered                              what it found there:
//!   0 row task 1 12 4 0 4 2 0 0 false             a row of the durable state
//!   0 dumped 9c2e…                                that is all of it
//!   3 ack 17 counted                              client 3 read the answer; written after
//!   0 end                                         nothing more will happen
//! ```
//!
//! A line is a writer's number, a verb and its words, and a full stop. Everybody writes what they are *about* to do
//! before it and what they have *seen* after it; each record says which. The order of lines is the order of the kernel's
//! appends to one file, or of the events of a simulation.
//!
//! **Invariants.** So a record stands behind everything that its writer had seen when it wrote it, and what was sent
//! before stands before. A kill may cut a record short; so each begins on a new line and ends with a full stop, and what does
//! not is no record. Reading never panics: a whole line that is no record is reported with its place.

use std::fmt;

use crate::text::{self, Field, Words, records, words};

/// Who wrote a record: 0 is the test itself, others are clients and observers.
pub type Who = u32;

/// The test itself: it creates campaigns, breaks things, and dumps the durable state.
pub const TEST: Who = 0;

/// Names a session, as its client chose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(pub [u8; 16]);

/// Names a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance(pub [u8; 16]);

records! {
    /// What happened.
    pub enum Record {
        // ---- what a history is read with; before anything else
        /// Something that the rules must know about this history.
        "set" Set {
            /// Which.
            setting: Setting,
            /// Its value.
            value: u64,
        },

        // ---- campaigns: the first is written before the request leaves, the second when its answer was read
        /// A campaign is about to be created. Within one data directory a name is one campaign, also after its removal.
        "create" Create {
            /// Its name.
            campaign: String,
            /// How many tasks.
            tasks: u32,
            /// Runs wanted of each.
            quota: u32,
            /// Whether runs are told apart.
            kind: Kind,
            /// How long a lease lasts without a sign of life, in milliseconds; none: longer than the history.
            lease_ms: Option<u64>,
            /// How long one run may take, in milliseconds; none: no bound.
            timeout_ms: Option<u64>,
            /// Failures after which a task is set aside.
            errors_max: Option<u32>,
            /// Lost runs after which a task is set aside.
            losses_max: Option<u32>,
        },
        /// A change of a campaign is about to be asked for.
        "ask" Ask {
            /// The campaign.
            campaign: String,
            /// What.
            change: Change,
        },
        /// Its answer was read: it is so.
        "done" Done {
            /// The campaign.
            campaign: String,
            /// What.
            change: Change,
        },

        // ---- clients of the native dialect; the writer is the client
        /// A client was lent something for the first time in this session. (Before, a session is nothing that lasts.)
        /// What a client still hears of an earlier session it writes down before. The instance is the data directory's, as the
        /// client knows it; none: the one that runs now.
        "begin" Begin {
            /// The session.
            session: Session,
            /// The data directory it is a session of.
            instance: Option<Instance>,
        },
        /// A client found its session again over another connection.
        "resumed" Resumed {
            /// The data directory it met.
            instance: Option<Instance>,
            /// Requests that are processed, as it was told.
            through: u64,
        },
        /// A client was told that its session is not known. Its next `begin` is another session.
        "forgotten" Forgotten {
            /// The data directory it met.
            instance: Option<Instance>,
        },
        /// A client took a lease: once for each, not when the server sends it again. Whoever takes one either writes down what
        /// it sends of it, or says goodbye, or leaves it to expire.
        "grant" Grant {
            /// The lease.
            lease: u64,
            /// Its campaign.
            campaign: String,
            /// Its task.
            task: u32,
            /// Its first run; 0 where runs are not told apart.
            first: u32,
            /// How many runs.
            runs: u32,
        },
        /// A client knows that its lease is lost; it may still report.
        "lost" Lost {
            /// The lease.
            lease: u64,
        },
        /// A client's request is about to be handed over for the first time; it has not left yet.
        "send" Send {
            /// Its number in the session.
            number: u64,
            /// The lease it speaks of.
            lease: u64,
            /// What it says.
            what: Sent,
        },
        /// A client read the answer to a request: once for each.
        "ack" Ack {
            /// The request.
            number: u64,
            /// The answer.
            heard: Heard,
        },
        /// A client read an answer to a request that it had read an answer to before.
        "again" Again {
            /// The request.
            number: u64,
            /// The answer.
            heard: Heard,
        },
        /// A client is about to work until all that it wants is settled.
        "until-done" UntilDone,
        /// A client was told that all it wants is settled; one record for each campaign that it wants.
        "settled" Settled {
            /// The campaign.
            campaign: String,
            /// Whether it is said to be finished, too.
            finished: bool,
        },
        /// A client is about to say goodbye: what it still holds goes back.
        "closing" Closing,
        /// A client has closed its session.
        "closed" Closed {
            /// Whether the server heard it.
            goodbye: bool,
        },
        /// A client is about to leave without a goodbye.
        "left" Left,

        // ---- clients of the origin's dialect, by connection; numbers of connections are never used twice
        /// A connection to the origin's port, working on this campaign.
        "origin-open" OriginOpen {
            /// Which connection.
            connection: u64,
            /// The campaign.
            campaign: String,
        },
        /// A message is about to be sent.
        "origin-send" OriginSend {
            /// The connection.
            connection: u64,
            /// Units by task.
            done: Vec<Units>,
        },
        /// The answer to the connection's first message that has none yet was read.
        "origin-answer" OriginAnswer {
            /// The connection.
            connection: u64,
            /// The answer.
            answer: Origin,
        },
        /// The connection has ended, or was left.
        "origin-end" OriginEnd {
            /// The connection.
            connection: u64,
        },

        // ---- observers; any writer may look, one look at a time each
        /// The writer is about to ask for counts.
        "look" Look,
        /// A campaign is said to stand like this. Asked before the counts of the same look.
        "status" Status {
            /// The campaign.
            campaign: String,
            /// What is said of it.
            standing: Standing,
            /// Runs that count towards the quota, over all tasks.
            done: u64,
            /// Executions beyond, over all tasks.
            extra: u64,
        },
        /// A task is said to stand like this.
        "count" Count {
            /// The campaign.
            campaign: String,
            /// The task.
            task: u32,
            /// Runs that count towards the quota.
            done: u32,
            /// Executions beyond.
            extra: u32,
            /// Runs that are lent.
            leased: u32,
            /// Whether it is set aside.
            quarantined: bool,
        },
        /// The writer has read all that it asked for.
        "looked" Looked,
        /// What the server says became of a request.
        "fate" Fate {
            /// Its session.
            session: Session,
            /// Its number.
            number: u64,
            /// What became of it.
            fate: Fate,
        },

        // ---- the server process, where the test can see into it
        /// A successful sync has made a session's requests through this number durable. (None of it: no such record.)
        "durable" Durable {
            /// The session.
            session: Session,
            /// The highest number.
            through: u64,
        },
        /// An answer leaves the server.
        "out" Out {
            /// The session it is for.
            session: Session,
            /// All requests through this number are processed.
            through: u64,
            /// The refused ones among those that the client has not confirmed.
            refused: Vec<Refused>,
        },
        /// A lease of the native dialect expired, in the running server or at its next start. See [`Setting::Expiries`].
        "expired" Expired {
            /// The lease.
            lease: u64,
        },
        /// A lease was forgotten by the server, before its session was: a report of it is refused from now on.
        "dropped" Dropped {
            /// The lease.
            lease: u64,
        },
        /// A session was forgotten by the server without a goodbye: idle too long. See [`Setting::Expiries`].
        "dropped-session" DroppedSession {
            /// The session.
            session: Session,
        },

        // ---- faults
        /// The server was killed.
        "killed-server" KilledServer,
        /// The power was cut: the server is gone, and of what was not synced only some is left.
        "power-cut" PowerCut {
            /// What became of it.
            mode: String,
        },
        /// The first failed write or sync of this server process.
        "disk-failed" DiskFailed,
        /// The server process ended by itself.
        "ended-server" EndedServer {
            /// Its exit code; none if a signal ended it.
            code: Option<i32>,
        },
        /// A client was killed.
        "killed-client" KilledClient {
            /// Which.
            who: Who,
        },
        /// A client was stopped, so that it cannot give a sign of life.
        "frozen" Frozen {
            /// Which.
            who: Who,
        },
        /// A client may go on.
        "thawed" Thawed {
            /// Which.
            who: Who,
        },
        /// The server did not run for so long, in milliseconds.
        "clock-stalled" ClockStalled {
            /// How long.
            milliseconds: u64,
        },
        /// What is stored was changed from outside.
        "damaged" Damaged {
            /// What, in a word.
            what: String,
        },
        /// Peers that break the protocol are at work from here on, and nobody else; no lease ends meanwhile.
        "hostile" Hostile,
        /// They are gone.
        "unhostile" Unhostile,
        /// Another build of the program works from here on.
        "upgraded" Upgraded {
            /// A word for it.
            to: String,
        },
        /// A new data directory is in the place of the old one.
        "new-directory" NewDirectory,

        // ---- starts and dumps
        /// A server has opened the data directory.
        "boot" Boot {
            /// Which directory it is.
            instance: Instance,
        },
        /// A server did not start, and said why: it names damage, or a newer format.
        "refused-start" RefusedStart {
            /// The reason, in a word.
            reason: String,
        },
        /// A server is ready for clients.
        "ready" Ready,
        /// The durable state follows, as rows, from the same writer.
        "dump" Dump {
            /// Of which moment.
            moment: Moment,
        },
        /// One of its rows. What was never touched is left out.
        "row" Row {
            /// The row.
            row: Row,
        },
        /// That is all of it.
        "dumped" Dumped {
            /// Equal states have equal digests.
            digest: String,
        },

        // ---- the harness's clock and gauges
        /// So much time has passed, in milliseconds, on a clock that all of this history shares.
        "time" Time {
            /// Since its beginning.
            milliseconds: u64,
        },
        /// What the server uses.
        "usage" Usage {
            /// When.
            when: When,
            /// Bytes of memory.
            memory: u64,
            /// Open descriptors.
            descriptors: u64,
        },
        /// Faults stop here; from here on at least one client lives that wants all campaigns.
        "calm" Calm,
        /// All clients have ended, nothing more will happen, and all that was to be asked was asked. At the last look nothing
        /// was on its way any more.
        "end" End,
    }
}

words! {
    /// What the rules must know about a history. Without a `set` it is 0, or as it says.
    pub enum Setting {
        /// 1: every request of every client is in the history, also those that the client library makes by itself.
        "requests-complete" RequestsComplete,
        /// 1: every expiry, every forgotten lease and every forgotten session of the native dialect is in the history, before
        /// anything can be seen of it: by clients, and by a start that finds a commit nobody was told of.
        "expiries" Expiries,
        /// 1: sessions are forgotten while their clients may still come back, and this is not in the history.
        "sessions-end" SessionsEnd,
        /// Expired leases that a session remembers at most. Without a `set`: 1,024.
        "expired-max" ExpiredMax,
        /// A dead holder's runs are lent again within the length of the lease and so many milliseconds.
        "relend-ms" RelendMs,
        /// An answer takes at most so many milliseconds when nothing is broken.
        "answer-ms" AnswerMs,
        /// Memory may end so many bytes above where it began.
        "memory-bytes" MemoryBytes,
        /// Open descriptors may end so many above where they began.
        "descriptors" Descriptors,
    }
}

words! {
    /// Whether runs are told apart.
    pub enum Kind {
        /// Runs are exchangeable.
        "counted" Counted,
        /// Runs have numbers.
        "numbered" Numbered,
    }
}

words! {
    /// A change of a campaign.
    pub enum Change {
        /// Created. (Asked for by `create`.)
        "create" Create,
        /// It lends nothing until resumed.
        "pause" Pause,
        /// It lends again.
        "resume" Resume,
        /// It lends nothing any more.
        "cancel" Cancel,
        /// Tasks that were set aside are lent again, failures and losses forgotten.
        "requeue" Requeue,
        /// It is gone.
        "remove" Remove,
    }
}

records! {
    /// A request, as its sender meant it.
    #[derive(Copy)]
    pub enum Sent {
        /// So many units, or the first so many runs.
        "done" Done {
            /// How many.
            runs: u32,
        },
        /// By run of the lease.
        "mixed" Mixed {
            /// Bit i is set if the i-th run is done.
            done: u64,
            /// Bit i is set if it failed.
            failed: u64,
        },
        /// Given back.
        "release" Release,
    }
}

records! {
    /// An answer.
    #[derive(Copy)]
    pub enum Heard {
        /// It counts.
        "counted" Counted,
        /// It does not, and never will.
        "refused" Refused {
            /// Why.
            reason: Reason,
        },
        /// The session is not known any more.
        "unknown" Unknown,
    }
}

words! {
    /// Why a request was refused.
    pub enum Reason {
        /// There never was such a lease, or another session holds it.
        "not-held" NotHeld,
        /// The lease has ended or was forgotten.
        "ended" Ended,
        /// The campaign was removed.
        "gone" Gone,
        /// It speaks of runs that the lease does not have.
        "bad-runs" BadRuns,
    }
}

records! {
    /// What became of a request, as far as the server knows.
    #[derive(Copy)]
    pub enum Fate {
        /// It was counted.
        "counted" Counted,
        /// It was refused.
        "refused" Refused {
            /// Why.
            reason: Reason,
        },
        /// It was answered, and the client has confirmed that it read the answer.
        "confirmed" Confirmed,
        /// It did not arrive.
        "not-received" NotReceived,
        /// The session is not known.
        "unknown-session" UnknownSession,
    }
}

/// A stretch of refused requests, all for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// Why.
    pub reason: Reason,
}

/// Units of one task in a message of the origin's dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Units {
    /// The index of the task in its campaign.
    pub task: u32,
    /// How many.
    pub units: u32,
}

records! {
    /// An answer in the origin's dialect.
    #[derive(Copy)]
    pub enum Origin {
        /// One unit of this task is lent.
        "task" Task {
            /// The index of the task in its campaign.
            task: u32,
        },
        /// All is settled.
        "settled" Settled,
        /// Ask again.
        "wait" Wait,
    }
}

words! {
    /// What an observer is told of a campaign.
    pub enum Standing {
        /// There is work left.
        "open" Open,
        /// Every task is done or set aside, or the campaign is cancelled; not every quota is met.
        "settled" Settled,
        /// Every quota is met.
        "finished" Finished,
    }
}

words! {
    /// Of which moment a dump is.
    pub enum Moment {
        /// As a start found it, before anything was done.
        "recovered" Recovered,
        /// Recovered once more, and nothing was done since the dump before.
        "again" Again,
        /// While the server works.
        "working" Working,
        /// All clients have ended.
        "rest" Rest,
    }
}

words! {
    /// When usage was looked at.
    pub enum When {
        /// Before the load.
        "before" Before,
        /// After it has ended.
        "after" After,
    }
}

words! {
    /// Where a stored campaign stands.
    pub enum Phase {
        /// Its keys are still arriving.
        "creating" Creating,
        /// It lends runs.
        "running" Running,
        /// It lends none until resumed.
        "paused" Paused,
        /// It lends none any more.
        "cancelled" Cancelled,
        /// It is being cleared away.
        "removing" Removing,
    }
}

words! {
    /// Where a stored lease stands.
    pub enum State {
        /// Its runs are its holder's.
        "live" Live,
        /// Its runs went back; a late report still counts.
        "expired" Expired,
        /// Its campaign was removed; a late report is refused.
        "gone" Gone,
    }
}

records! {
    /// A row of the durable state.
    pub enum Row {
        /// A campaign.
        "campaign" Campaign {
            /// Its id.
            id: u32,
            /// Its name.
            name: String,
            /// How many tasks.
            tasks: u32,
            /// Runs wanted of each.
            quota: u32,
            /// Whether runs are told apart.
            kind: Kind,
            /// Where it stands.
            phase: Phase,
        },
        /// A task that was touched.
        "task" Task {
            /// Its campaign's id.
            campaign: u32,
            /// Which task.
            task: u32,
            /// Runs that count towards the quota.
            done: u32,
            /// Executions beyond.
            extra: u32,
            /// Numbered campaigns: how many runs were ever lent; else 0.
            issued: u32,
            /// Runs that are lent, as the server has added them up.
            leased: u32,
            /// Failures since the last requeue.
            failed: u32,
            /// Lost runs since the last requeue.
            lost: u32,
            /// Whether it is set aside.
            quarantined: bool,
        },
        /// Runs of a numbered campaign that came back and are to be lent again.
        "returned" Returned {
            /// The campaign's id.
            campaign: u32,
            /// The task.
            task: u32,
            /// Bit i of `runs` is run 64 times this, plus i.
            word: u32,
            /// Which.
            runs: u64,
        },
        /// A lease that its session remembers.
        "lease" Lease {
            /// Its id.
            lease: u64,
            /// The session that holds it.
            session: Session,
            /// The campaign's id.
            campaign: u32,
            /// The task.
            task: u32,
            /// The first run; 0 where runs are not told apart.
            first: u32,
            /// How many runs.
            runs: u32,
            /// Numbered campaigns: bit i is set while the i-th run is lent under this lease; else 0.
            own: u64,
            /// Where it stands.
            state: State,
        },
        /// A session.
        "session" Session {
            /// The session.
            session: Session,
            /// Whether it is a connection of the origin's dialect.
            origin: bool,
            /// Requests through this number are processed.
            through: u64,
            /// The client has read the answers through this number.
            confirmed: u64,
            /// The refused ones above.
            refused: Vec<Refused>,
        },
    }
}

impl Field for Session {
    fn write(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(out)
    }

    fn read(words: &mut Words<'_>) -> Option<Self> {
        Field::read(words).map(Self)
    }
}

impl Field for Instance {
    fn write(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(out)
    }

    fn read(words: &mut Words<'_>) -> Option<Self> {
        Field::read(words).map(Self)
    }
}

impl Field for Refused {
    fn write(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} {}", self.from, self.to, self.reason)
    }

    fn read(words: &mut Words<'_>) -> Option<Self> {
        let (from, to) = (Field::read(words)?, Field::read(words)?);
        Some(Self { from, to, reason: Field::read(words)? })
    }
}

impl Field for Units {
    fn write(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.task, self.units)
    }

    fn read(words: &mut Words<'_>) -> Option<Self> {
        Some(Self { task: Field::read(words)?, units: Field::read(words)? })
    }
}

impl fmt::Display for Session {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(out)
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(out)
    }
}

impl Record {
    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        text::read(text)
    }
}

impl Row {
    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        text::read(text)
    }
}

/// One record of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it stands: the line of the file, or the place in the simulation's list; from 1.
    pub at: usize,
    /// Who wrote it.
    pub who: Who,
    /// What happened.
    pub record: Record,
}

/// A whole history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Its records in order.
    pub lines: Vec<Line>,
    /// Lines that are whole and no records, with their places. Somebody wrote what nobody understands.
    pub unreadable: Vec<(usize, String)>,
    /// Places of lines that were cut short.
    pub cut: Vec<usize>,
}

impl History {
    /// Adds a record at the end.
    pub fn push(&mut self, who: Who, record: Record) {
        let at = self.lines.last().map_or(1, |line| line.at + 1);
        self.lines.push(Line { at, who, record });
    }

    /// Reads a history's text, whatever it is.
    pub fn parse(text: &str) -> Self {
        let mut history = Self::default();
        for (index, line) in text.split('\n').enumerate().filter(|(_, line)| !line.is_empty()) {
            let at = index + 1;
            let Some(whole) = line.strip_suffix(" .") else {
                history.cut.push(at);
                continue;
            };
            let parsed =
                whole.split_once(' ').and_then(|(who, record)| Some((who.parse().ok()?, Record::parse(record)?)));
            match parsed {
                Some((who, record)) => history.lines.push(Line { at, who, record }),
                None => history.unreadable.push((at, line.to_owned())),
            }
        }
        history
    }
}

/// The text of one record, to be appended in one write.
pub fn line(who: Who, record: &Record) -> String {
    format!("\n{who} {record} .")
}

impl fmt::Display for History {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|Line { who, record, .. }| out.write_str(&line(*who, record)))
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
