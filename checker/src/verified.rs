//! From the lines of `tenfold verify --dump` to the rows of a dump.
//!
//! ```text
//!   campaign 1 phase=running first=0 tasks=1000 … runs=10 seed=42 … name="ising"
//!   task 1 17 done=3 extra=0 issued=5
//!   lease 0 generation=4 state=live session=0 campaign=1 task=17 first_run=3 runs=2 own=0000000000000003
//!   session 0 id=… origin=false attempt=1 processed=12 confirmed=8 refused=9-10:ended,12-12:bad-runs
//!   trouble 0 campaign=1 task=9 errors=2 lost=0 quarantined=false last_error="no space left"
//!   returned 0 campaign=1 task=9 word=1 runs=00000000000000ff
//!   digest sha256=…
//! ```
//!
//! The format is docs/CLI.md's, version 1. What is lent of a task is not in it: it is added up from the leases here, so
//! whoever has it from the server itself should compare. Lines of other kinds are digested and nothing else.
//!
//! **Invariant.** Reading never panics, whatever the text: what is not understood is named with its place.

use std::collections::{BTreeMap, HashMap};

use crate::history::{Kind, Reason, Refused, Row, Session, State};
use crate::text;

/// A dump, as the program printed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Its rows.
    pub rows: Vec<Row>,
    /// Its digest.
    pub digest: String,
}

/// A line that is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Which, from 1; one more than there are if the end is missing.
    pub line: usize,
    /// Its text.
    pub text: String,
}

impl Verified {
    /// Reads a whole dump.
    ///
    /// # Errors
    /// The first line that is not understood, or the missing end.
    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        let mut reader = Reader::default();
        let mut lines = 0;
        for (index, line) in text.lines().enumerate() {
            lines = index + 1;
            if let Some(digest) = line.strip_prefix("digest sha256=") {
                return Ok(Self { rows: reader.finish(), digest: digest.to_owned() });
            }
            let words = Line::split(line);
            words
                .and_then(|words| reader.line(&words))
                .ok_or_else(|| Unreadable { line: lines, text: line.to_owned() })?;
        }
        Err(Unreadable { line: lines + 1, text: String::new() })
    }
}

/// The words of a line: what it is, its numbers, and its settings.
struct Line<'a> {
    verb: &'a str,
    numbers: Vec<u32>,
    settings: HashMap<&'a str, &'a str>,
}

impl<'a> Line<'a> {
    fn split(line: &'a str) -> Option<Self> {
        let mut words = line.split(' ');
        let verb = words.next().filter(|verb| !verb.is_empty())?;
        let (mut numbers, mut settings) = (Vec::new(), HashMap::new());
        for word in words {
            match word.split_once('=') {
                Some((name, value)) => drop(settings.entry(name).or_insert(value)),
                // What stands in quotation marks may hold anything, and comes last.
                None if settings.is_empty() => numbers.extend(word.parse::<u32>()),
                None => {}
            }
        }
        Some(Self { verb, numbers, settings })
    }

    fn number(&self, index: usize) -> Option<u32> {
        self.numbers.get(index).copied()
    }

    fn value<T: text::Field>(&self, name: &str) -> Option<T> {
        text::read(self.settings.get(name)?)
    }

    fn mask(&self, name: &str) -> Option<u64> {
        u64::from_str_radix(self.settings.get(name)?, 16).ok()
    }
}

/// A task, and what comes from other lines.
#[derive(Clone, Copy, Debug, Default)]
struct Task {
    done: u32,
    extra: u32,
    issued: u32,
    leased: u32,
    failed: u32,
    lost: u32,
    quarantined: bool,
}

/// A lease, before its session is known.
struct Lease {
    id: u64,
    session: u32,
    campaign: u32,
    task: u32,
    first: u32,
    runs: u32,
    own: u64,
    state: State,
}

/// What was read so far. Leases come before the sessions that they name.
#[derive(Default)]
struct Reader {
    rows: Vec<Row>,
    numbered: HashMap<u32, bool>,
    tasks: BTreeMap<(u32, u32), Task>,
    leases: Vec<Lease>,
    sessions: HashMap<u32, Session>,
}

impl Reader {
    fn line(&mut self, line: &Line<'_>) -> Option<()> {
        match line.verb {
            "dump" => (line.number(0)? == 1).then_some(()),
            "campaign" => self.campaign(line),
            "task" => {
                let task = self.tasks.entry((line.number(0)?, line.number(1)?)).or_default();
                (task.done, task.extra) = (line.value("done")?, line.value("extra")?);
                task.issued = line.value("issued")?;
                Some(())
            }
            "lease" => self.lease(line),
            "session" => self.session(line),
            "trouble" => {
                let task = self.tasks.entry((line.value("campaign")?, line.value("task")?)).or_default();
                (task.failed, task.lost) = (line.value("errors")?, line.value("lost")?);
                task.quarantined = line.value("quarantined")?;
                Some(())
            }
            "returned" => {
                let (campaign, task) = (line.value("campaign")?, line.value("task")?);
                self.rows.push(Row::Returned { campaign, task, word: line.value("word")?, runs: line.mask("runs")? });
                Some(())
            }
            "globals" | "session-name" | "keys" => Some(()),
            _ => None,
        }
    }

    fn campaign(&mut self, line: &Line<'_>) -> Option<()> {
        let id = line.number(0)?;
        let numbered = *line.settings.get("seed")? != "none";
        let kind = if numbered { Kind::Numbered } else { Kind::Counted };
        let name = line.settings.get("name")?.trim_matches('"').to_owned();
        let (tasks, quota, phase) = (line.value("tasks")?, line.value("runs")?, line.value("phase")?);
        self.numbered.insert(id, numbered);
        self.rows.push(Row::Campaign { id, name, tasks, quota, kind, phase });
        Some(())
    }

    fn lease(&mut self, line: &Line<'_>) -> Option<()> {
        if *line.settings.get("state")? == "free" {
            return Some(());
        }
        let generation: u32 = line.value("generation")?;
        let lease = Lease {
            id: u64::from(generation) << 32 | u64::from(line.number(0)?),
            session: line.value("session")?,
            campaign: line.value("campaign")?,
            task: line.value("task")?,
            first: line.value("first_run")?,
            runs: line.value("runs")?,
            own: line.mask("own")?,
            state: line.value("state")?,
        };
        if lease.state == State::Live {
            let numbered = self.numbered.get(&lease.campaign).copied().unwrap_or_default();
            let task = self.tasks.entry((lease.campaign, lease.task)).or_default();
            task.leased = task.leased.saturating_add(if numbered { lease.own.count_ones() } else { lease.runs });
        }
        self.leases.push(lease);
        Some(())
    }

    fn session(&mut self, line: &Line<'_>) -> Option<()> {
        let session: Session = line.value("id")?;
        let refused = line.settings.get("refused").copied().unwrap_or_default();
        let refused = refused.split(',').filter(|one| !one.is_empty() && *one != "none").map(stretch);
        let row = Row::Session {
            session,
            origin: line.value("origin")?,
            through: line.value("processed")?,
            confirmed: line.value("confirmed")?,
            refused: refused.collect::<Option<_>>()?,
        };
        self.sessions.insert(line.number(0)?, session);
        self.rows.push(row);
        Some(())
    }

    fn finish(mut self) -> Vec<Row> {
        for ((campaign, task), Task { done, extra, issued, leased, failed, lost, quarantined }) in self.tasks {
            self.rows.push(Row::Task { campaign, task, done, extra, issued, leased, failed, lost, quarantined });
        }
        for lease in self.leases {
            // One of a session that is not there keeps a session that nobody has.
            let session = self.sessions.get(&lease.session).copied().unwrap_or(Session([0xff; 16]));
            let Lease { id, campaign, task, first, runs, own, state, .. } = lease;
            self.rows.push(Row::Lease { lease: id, session, campaign, task, first, runs, own, state });
        }
        self.rows
    }
}

/// Reads `9-10:ended`.
fn stretch(text: &str) -> Option<Refused> {
    let (numbers, reason) = text.split_once(':')?;
    let (from, to) = numbers.split_once('-')?;
    let reason: Reason = text::read(reason)?;
    Some(Refused { from: from.parse().ok()?, to: to.parse().ok()?, reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Phase;

    const DUMP: &str = "dump 1
globals next_campaign=2
campaign 1 phase=running first=0 tasks=1000 keyed=true runs=10 seed=42 order=lowest lease_ms=60000 timeout_ms=none \
        max_errors=3 max_lost=none creation=00000000000000000000000000000007 name=\"ising\"
campaign 2 phase=paused first=5 tasks=3 keyed=false runs=4 seed=none order=even lease_ms=60000 timeout_ms=none \
        max_errors=none max_lost=none creation=00000000000000000000000000000008 name=\"toy\"
task 1 17 done=3 extra=0 issued=5
lease 0 generation=4 state=live session=0 campaign=1 task=17 first_run=3 runs=2 own=0000000000000003
lease 1 generation=2 state=free
lease 2 generation=1 state=live session=0 campaign=2 task=1 first_run=0 runs=3 own=0000000000000000
session 0 id=0f000000000000000000000000000001 origin=false attempt=1 processed=12 confirmed=8 refused=9-10:ended,12-12:bad-runs
session-name 0 \"host:4711 task=9 errors=1\"
trouble 0 campaign=1 task=9 errors=2 lost=1 quarantined=false last_error=\"no space left, task=3\"
returned 0 campaign=1 task=9 word=1 runs=00000000000000ff
keys 1 count=1000 sha256=00
digest sha256=9f86
";

    #[test]
    fn a_dump_of_the_program_is_read() {
        let mut session = [0; 16];
        (session[0], session[15]) = (0x0f, 1);
        let session = Session(session);
        let refused = vec![
            Refused { from: 9, to: 10, reason: Reason::Ended },
            Refused { from: 12, to: 12, reason: Reason::BadRuns },
        ];
        let task = |campaign, task, counts: Task| {
            let Task { done, extra, issued, leased, failed, lost, quarantined } = counts;
            Row::Task { campaign, task, done, extra, issued, leased, failed, lost, quarantined }
        };
        let lease = |lease, campaign, task, (first, runs, own)| {
            let state = State::Live;
            Row::Lease { lease, session, campaign, task, first, runs, own, state }
        };
        let campaign = |id, name: &str, (tasks, quota), kind, phase| {
            let name = name.to_owned();
            Row::Campaign { id, name, tasks, quota, kind, phase }
        };
        let expected = [
            campaign(1, "ising", (1000, 10), Kind::Numbered, Phase::Running),
            campaign(2, "toy", (3, 4), Kind::Counted, Phase::Paused),
            Row::Session { session, origin: false, through: 12, confirmed: 8, refused },
            Row::Returned { campaign: 1, task: 9, word: 1, runs: 0xff },
            task(1, 9, Task { failed: 2, lost: 1, ..Task::default() }),
            task(1, 17, Task { done: 3, issued: 5, leased: 2, ..Task::default() }),
            task(2, 1, Task { leased: 3, ..Task::default() }),
            lease(4 << 32, 1, 17, (3, 2, 3)),
            lease(1 << 32 | 2, 2, 1, (0, 3, 0)),
        ];
        let verified = Verified::parse(DUMP).unwrap();
        assert_eq!(verified.rows, expected);
        assert_eq!(verified.digest, "9f86");
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let unreadable = |text: &str| Verified::parse(text).unwrap_err();
        assert_eq!(unreadable(""), Unreadable { line: 1, text: String::new() });
        assert_eq!(unreadable("dump 1\ntask 1 2 done=x"), Unreadable { line: 2, text: "task 1 2 done=x".to_owned() });
        assert_eq!(unreadable("dump 2\ndigest sha256=00").line, 1);
        // Cut anywhere it has no end; changed anywhere it is read or named, never a panic.
        let end = DUMP.find("digest").unwrap();
        assert!((0..end).all(|end| Verified::parse(&DUMP[..end]).is_err()));
        for position in 0..DUMP.len() {
            for other in ["", " ", "=", "9", "\n"] {
                let _ = Verified::parse(&format!("{}{other}{}", &DUMP[..position], &DUMP[position + 1..]));
            }
        }
    }
}
