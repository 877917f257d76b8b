//! What happened, in order: one file to which every process of a test appends, one record a write.
//!
//! ```text
//!   3 begin 0f3c…                       client 3 has a session that lasts
//!   3 grant 4294967301 lowest 12 0 2    it was lent two runs of task 12
//!   3 send 17 4294967301 done 2         it is about to report; written before the report is handed to the library
//!   0 killed-server                     the test (0) has killed the server
//!   3 ack 17 counted                    it read the answer; written after
//! ```
//!
//! **Invariants.** The kernel orders appends to one file, so a record stands behind everything that its writer had seen
//! when it wrote it: what was sent before stands before. It keeps what it was given when the writer is killed. A kill may
//! cut a record short; so each begins on a new line and ends with a full stop, and what does not is no record.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use libtest_mimic::Trial;
use tenfold::types::{RequestFate, SessionId};

/// Who wrote a record: 0 is the test itself, others are clients.
pub(crate) type Who = u32;

/// The test itself.
pub(crate) const TEST: Who = 0;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A client was lent something for the first time in this session. (Before, a session is nothing that lasts.)
    Begin { session: SessionId },
    /// A client took a lease.
    Grant { lease: u64, campaign: String, task: u32, first: u32, runs: u32 },
    /// A client knows that its lease is lost; it may still report.
    Lost { lease: u64 },
    /// A client's request is about to be handed over; it has not left yet.
    Send { number: u64, lease: u64, what: Sent },
    /// A client read an answer.
    Ack { number: u64, heard: Heard },
    /// A client was told that all it wants is settled; one record for each campaign that it wants.
    Settled { campaign: String, finished: bool },
    /// A client leaves without a goodbye.
    Left,
    /// A client has closed its session.
    Closed { goodbye: bool },
    /// A server was killed.
    KilledServer,
    /// A server is ready.
    Ready,
    /// A client was killed.
    KilledClient { who: Who },
    /// A client was stopped, so that it cannot give a sign of life.
    Frozen { who: Who },
    /// A client may go on.
    Thawed { who: Who },
    /// The test begins to ask for counts.
    Look,
    /// A campaign is said to be finished, or not.
    Status { campaign: String, finished: bool },
    /// A task is said to stand like this.
    Count { campaign: String, task: u32, done: u32, extra: u32, leased: u32 },
    /// The test has asked for everything.
    Looked,
    /// What the server says became of a request; asked after all clients had ended.
    Fate { session: SessionId, number: u64, fate: Fate },
    /// All clients have ended, nothing more will happen.
    End,
}

/// A request, as its sender meant it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// So many units, or the first so many runs.
    Done(u32),
    /// By run of the lease.
    Mixed { done: u64, failed: u64 },
    /// Given back.
    Release,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Counted,
    Refused,
    Unknown,
}

/// What became of a request, without the reason of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Counted,
    Refused,
    Confirmed,
    NotReceived,
    UnknownSession,
}

impl From<RequestFate> for Fate {
    fn from(fate: RequestFate) -> Self {
        match fate {
            RequestFate::Counted => Self::Counted,
            RequestFate::Refused(_) => Self::Refused,
            RequestFate::Confirmed => Self::Confirmed,
            RequestFate::NotReceived => Self::NotReceived,
            RequestFate::UnknownSession => Self::UnknownSession,
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin { session } => write!(out, "begin {session}"),
            Self::Grant { lease, campaign, task, first, runs } => {
                write!(out, "grant {lease} {campaign} {task} {first} {runs}")
            }
            Self::Lost { lease } => write!(out, "lost {lease}"),
            Self::Send { number, lease, what: Sent::Done(runs) } => write!(out, "send {number} {lease} done {runs}"),
            Self::Send { number, lease, what: Sent::Mixed { done, failed } } => {
                write!(out, "send {number} {lease} mixed {done} {failed}")
            }
            Self::Send { number, lease, what: Sent::Release } => write!(out, "send {number} {lease} release"),
            Self::Ack { number, heard } => write!(out, "ack {number} {}", word(*heard, &HEARD)),
            Self::Settled { campaign, finished } => write!(out, "settled {campaign} {finished}"),
            Self::Left => write!(out, "left"),
            Self::Closed { goodbye } => write!(out, "closed {goodbye}"),
            Self::KilledServer => write!(out, "killed-server"),
            Self::Ready => write!(out, "ready"),
            Self::KilledClient { who } => write!(out, "killed-client {who}"),
            Self::Frozen { who } => write!(out, "frozen {who}"),
            Self::Thawed { who } => write!(out, "thawed {who}"),
            Self::Look => write!(out, "look"),
            Self::Status { campaign, finished } => write!(out, "status {campaign} {finished}"),
            Self::Count { campaign, task, done, extra, leased } => {
                write!(out, "count {campaign} {task} {done} {extra} {leased}")
            }
            Self::Looked => write!(out, "looked"),
            Self::Fate { session, number, fate } => write!(out, "fate {session} {number} {}", word(*fate, &FATES)),
            Self::End => write!(out, "end"),
        }
    }
}

const HEARD: [(Heard, &str); 3] =
    [(Heard::Counted, "counted"), (Heard::Refused, "refused"), (Heard::Unknown, "unknown")];

const FATES: [(Fate, &str); 5] = [
    (Fate::Counted, "counted"),
    (Fate::Refused, "refused"),
    (Fate::Confirmed, "confirmed"),
    (Fate::NotReceived, "not-received"),
    (Fate::UnknownSession, "unknown-session"),
];

fn word<T: PartialEq>(value: T, words: &[(T, &'static str)]) -> &'static str {
    words.iter().find(|(known, _)| *known == value).map_or("?", |(_, word)| word)
}

fn value<T: Copy>(word: &str, words: &[(T, &str)]) -> Option<T> {
    words.iter().find(|(_, known)| *known == word).map(|(value, _)| *value)
}

impl Record {
    /// Reads what [`fmt::Display`] writes.
    fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let (verb, words) = words.split_first()?;
        let number = |index: usize| words.get(index)?.parse::<u64>().ok();
        let small = |index: usize| words.get(index)?.parse::<u32>().ok();
        let name = |index: usize| words.get(index).map(|name| (*name).to_owned());
        let flag = |index: usize| words.get(index)?.parse::<bool>().ok();
        let session = |index: usize| SessionId::parse(words.get(index)?);
        let (record, length) = match *verb {
            "begin" => (Self::Begin { session: session(0)? }, 1),
            "grant" => {
                let (task, first, runs) = (small(2)?, small(3)?, small(4)?);
                (Self::Grant { lease: number(0)?, campaign: name(1)?, task, first, runs }, 5)
            }
            "lost" => (Self::Lost { lease: number(0)? }, 1),
            "send" => {
                let (what, length) = match *words.get(2)? {
                    "done" => (Sent::Done(small(3)?), 4),
                    "mixed" => (Sent::Mixed { done: number(3)?, failed: number(4)? }, 5),
                    "release" => (Sent::Release, 3),
                    _ => return None,
                };
                (Self::Send { number: number(0)?, lease: number(1)?, what }, length)
            }
            "ack" => (Self::Ack { number: number(0)?, heard: value(words.get(1)?, &HEARD)? }, 2),
            "settled" => (Self::Settled { campaign: name(0)?, finished: flag(1)? }, 2),
            "left" => (Self::Left, 0),
            "closed" => (Self::Closed { goodbye: flag(0)? }, 1),
            "killed-server" => (Self::KilledServer, 0),
            "ready" => (Self::Ready, 0),
            "killed-client" => (Self::KilledClient { who: small(0)? }, 1),
            "frozen" => (Self::Frozen { who: small(0)? }, 1),
            "thawed" => (Self::Thawed { who: small(0)? }, 1),
            "look" => (Self::Look, 0),
            "status" => (Self::Status { campaign: name(0)?, finished: flag(1)? }, 2),
            "count" => {
                let (done, extra, leased) = (small(2)?, small(3)?, small(4)?);
                (Self::Count { campaign: name(0)?, task: small(1)?, done, extra, leased }, 5)
            }
            "looked" => (Self::Looked, 0),
            "fate" => (Self::Fate { session: session(0)?, number: number(1)?, fate: value(words.get(2)?, &FATES)? }, 3),
            "end" => (Self::End, 0),
            _ => return None,
        };
        (words.len() == length).then_some(record)
    }
}

/// Appends records. Every process has its own.
#[derive(Debug)]
pub(crate) struct Writer {
    file: File,
    who: Who,
}

impl Writer {
    pub(crate) fn open(path: &Path, who: Who) -> Self {
        let file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        Self { file, who }
    }

    /// One record, one write.
    pub(crate) fn write(&self, record: &Record) {
        (&self.file).write_all(line(self.who, record).as_bytes()).unwrap();
    }

    /// Several records of the test in as few writes as may be.
    pub(crate) fn write_all(&self, records: &[Record]) {
        let lines: Vec<String> = records.iter().map(|record| line(self.who, record)).collect();
        (&self.file).write_all(lines.concat().as_bytes()).unwrap();
    }
}

fn line(who: Who, record: &Record) -> String {
    format!("\n{who} {record} .")
}

/// The whole history; records that were cut short by a kill are left out.
pub(crate) fn parse(text: &str) -> Vec<(Who, Record)> {
    let whole = text.lines().filter_map(|line| line.strip_suffix(" ."));
    whole
        .map(|line| {
            let parsed =
                line.split_once(' ').and_then(|(who, record)| Some((who.parse().ok()?, Record::parse(record)?)));
            parsed.unwrap_or_else(|| panic!("no client writes {line:?}"))
        })
        .collect()
}

/// Follows a history while it grows.
#[derive(Debug)]
pub(crate) struct Tail {
    file: File,
    rest: String,
    /// Answers that clients have read so far.
    pub(crate) acks: u64,
}

impl Tail {
    pub(crate) fn open(path: &Path) -> Self {
        Self { file: File::open(path).unwrap(), rest: String::new(), acks: 0 }
    }

    /// Reads what is new.
    pub(crate) fn look(&mut self) {
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes).unwrap();
        self.rest.push_str(&String::from_utf8(bytes).unwrap());
        let Some(end) = self.rest.rfind('\n') else { return };
        let acks = self.rest[..end].lines().filter(|line| line.contains(" ack ")).count();
        self.acks += acks as u64;
        self.rest.drain(..end);
    }

    /// Reads everything from the beginning.
    pub(crate) fn all(&mut self) -> Vec<(Who, Record)> {
        let mut text = String::new();
        self.file.seek(SeekFrom::Start(0)).unwrap();
        self.file.read_to_string(&mut text).unwrap();
        parse(&text)
    }
}

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial!("history", what_is_written_is_read),
        trial!("history", a_cut_record_is_none),
        trial!("history", a_tail_counts_every_answer_once),
    ]
}

fn all_kinds() -> Vec<Record> {
    let session = SessionId([7; 16]);
    let campaign = || "lowest".to_owned();
    let mut records = vec![
        Record::Begin { session },
        Record::Grant { lease: 1 << 40, campaign: campaign(), task: 12, first: 3, runs: 2 },
        Record::Lost { lease: 9 },
        Record::Settled { campaign: campaign(), finished: true },
        Record::Left,
        Record::Closed { goodbye: false },
        Record::KilledServer,
        Record::Ready,
        Record::KilledClient { who: 3 },
        Record::Frozen { who: 3 },
        Record::Thawed { who: 3 },
        Record::Look,
        Record::Status { campaign: campaign(), finished: false },
        Record::Count { campaign: campaign(), task: 1, done: 2, extra: 3, leased: 4 },
        Record::Looked,
        Record::End,
    ];
    for what in [Sent::Done(2), Sent::Mixed { done: u64::MAX, failed: 0 }, Sent::Release] {
        records.push(Record::Send { number: 17, lease: 9, what });
    }
    records.extend(HEARD.map(|(heard, _)| Record::Ack { number: 17, heard }));
    records.extend(FATES.map(|(fate, _)| Record::Fate { session, number: 17, fate }));
    records
}

fn what_is_written_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history");
    let (test, client) = (Writer::open(&path, TEST), Writer::open(&path, 3));
    test.write_all(&all_kinds());
    for record in &all_kinds() {
        client.write(record);
    }
    let expected: Vec<_> =
        [TEST, 3].into_iter().flat_map(|who| all_kinds().into_iter().map(move |r| (who, r))).collect();
    assert_eq!(parse(&std::fs::read_to_string(&path).unwrap()), expected);
}

fn a_cut_record_is_none() {
    let whole = Record::Ack { number: 1, heard: Heard::Counted };
    let cut = line(3, &Record::Send { number: 12, lease: 345, what: Sent::Done(67) });
    for end in 0..cut.len() {
        let text = format!("{}{}{}", line(2, &whole), &cut[..end], line(4, &whole));
        assert_eq!(parse(&text), [(2, whole.clone()), (4, whole.clone())], "cut at {end}");
    }
}

fn a_tail_counts_every_answer_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history");
    let writer = Writer::open(&path, 1);
    let mut tail = Tail::open(&path);
    tail.look();
    assert_eq!(tail.acks, 0);
    for number in 1..=50 {
        writer.write(&Record::Ack { number, heard: Heard::Counted });
        writer.write(&Record::Send { number, lease: number, what: Sent::Release });
        if number % 7 == 0 {
            tail.look();
        }
    }
    writer.write(&Record::End);
    tail.look();
    tail.look();
    assert_eq!(tail.acks, 50);
    assert_eq!(tail.all().len(), 101);
}
