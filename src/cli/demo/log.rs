//! The file a worker of the demo keeps: what it was about to report, and what it heard back.
//!
//! ```text
//!   session 0f3c…                    once, first
//!   intent 17 4294967301 612 4 1     report 17, lease, task 612, run 4: the lattice spans; written before it is sent
//!   ack 17 counted                   written after the answer; or "refused: why", or "unknown"
//! ```
//!
//! **Invariant:** a report that ever left a worker has its intent in the file, because the line is handed to the kernel
//! before the report is handed to the client, and the kernel keeps it when the worker is killed. So what a killed
//! worker leaves is an upper bound of what can have been counted, and its acks are a lower bound.
//! A report of several runs has one intent line for each, with the same number. Deliberately absent: syncing (the demo
//! kills processes, not the machine). Tested in this file.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use crate::types::SessionId;

/// One run that was executed, and what came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Execution {
    /// The task's number.
    pub task: u64,
    /// The run's number within the task, from 0.
    pub run: u32,
    /// Whether the lattice spans.
    pub spans: bool,
}

/// What a worker heard about a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Heard {
    /// It was counted.
    Counted,
    /// It was refused, and why.
    Refused(String),
    /// The client cannot know.
    Unknown,
}

/// One report, as the worker's file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Sent {
    /// The lease it was about.
    pub lease: u64,
    /// Its runs.
    pub executions: Vec<Execution>,
    /// The answer, if the worker lived to hear it.
    pub heard: Option<Heard>,
}

/// A worker's whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct WorkerLog {
    /// Its session.
    pub session: SessionId,
    /// Its reports by number.
    pub reports: BTreeMap<u64, Sent>,
}

/// A worker's file cannot be what a worker wrote.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the worker's file: {problem}")]
pub(in crate::cli) struct LogError {
    line: usize,
    problem: &'static str,
}

/// Writes a worker's file. Every line is one write, so a kill leaves whole lines.
pub(super) struct LogWriter {
    file: File,
}

impl LogWriter {
    /// Starts a new file; one that exists is an error.
    pub(super) fn create(path: &Path, session: SessionId) -> io::Result<Self> {
        let mut file = OpenOptions::new().append(true).create_new(true).open(path)?;
        file.write_all(format!("session {session}\n").as_bytes())?;
        Ok(Self { file })
    }

    /// A second writer for the same file; lines of both stay whole.
    pub(super) fn another(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()? })
    }

    /// To be called before report `number` can be sent. On an error the worker must end.
    pub(super) fn intent(&mut self, number: u64, lease: u64, executions: &[Execution]) -> io::Result<()> {
        let line = |execution: &Execution| {
            let Execution { task, run, spans } = execution;
            format!("intent {number} {lease} {task} {run} {}\n", u8::from(*spans))
        };
        let lines: String = executions.iter().map(line).collect();
        self.file.write_all(lines.as_bytes())
    }

    /// To be called when report `number` was answered.
    pub(super) fn ack(&mut self, number: u64, heard: &Heard) -> io::Result<()> {
        let heard = match heard {
            Heard::Counted => "counted".to_owned(),
            Heard::Refused(reason) => format!("refused: {reason}"),
            Heard::Unknown => "unknown".to_owned(),
        };
        self.file.write_all(format!("ack {number} {heard}\n").as_bytes())
    }
}

impl WorkerLog {
    /// Reads a file that may have ended at any byte: an unfinished last line is left out.
    ///
    /// # Errors
    /// A line that no worker writes, or an answer to what was never sent: a bug, not damage by a kill.
    pub(in crate::cli) fn parse(text: &str) -> Result<Self, LogError> {
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let mut lines = whole.lines().enumerate();
        let session = lines
            .next()
            .and_then(|(_, line)| SessionId::parse(line.strip_prefix("session ")?))
            .ok_or(LogError { line: 1, problem: "no session" })?;
        let mut log = Self { session, reports: BTreeMap::new() };
        for (index, line) in lines {
            log.take(line).map_err(|problem| LogError { line: index + 1, problem })?;
        }
        Ok(log)
    }

    /// How many reports were answered with "counted".
    pub(in crate::cli) fn acked(&self) -> usize {
        self.reports.values().filter(|sent| sent.heard == Some(Heard::Counted)).count()
    }

    /// How many runs those were.
    pub(super) fn acked_runs(&self) -> usize {
        let acked = self.reports.values().filter(|sent| sent.heard == Some(Heard::Counted));
        acked.map(|sent| sent.executions.len()).sum()
    }

    /// The numbers of the reports whose fate the worker does not know.
    pub(in crate::cli) fn unanswered(&self) -> impl Iterator<Item = u64> {
        let open = |sent: &Sent| matches!(sent.heard, None | Some(Heard::Unknown));
        self.reports.iter().filter(move |(_, sent)| open(sent)).map(|(number, _)| *number)
    }

    fn take(&mut self, line: &str) -> Result<(), &'static str> {
        if let Some(intent) = line.strip_prefix("intent ") {
            let mut numbers = intent.split(' ').map(str::parse::<u64>);
            let mut next = || numbers.next().and_then(Result::ok).ok_or("an intent has five numbers");
            let (number, lease, task, run, spans) = (next()?, next()?, next()?, next()?, next()?);
            let run = u32::try_from(run).map_err(|_| "a run's number is too large")?;
            let spans = match spans {
                0 => false,
                1 => true,
                _ => return Err("a lattice spans (1) or not (0)"),
            };
            let sent = self.reports.entry(number).or_insert(Sent { lease, executions: Vec::new(), heard: None });
            if sent.lease != lease || sent.heard.is_some() {
                return Err("a report's number was used twice");
            }
            sent.executions.push(Execution { task, run, spans });
            return Ok(());
        }
        let ack = line.strip_prefix("ack ").ok_or("neither an intent nor an ack")?;
        let (number, heard) = ack.split_once(' ').ok_or("an ack has a number and an answer")?;
        let number: u64 = number.parse().map_err(|_| "an ack begins with a number")?;
        let heard = match (heard, heard.strip_prefix("refused: ")) {
            ("counted", _) => Heard::Counted,
            ("unknown", _) => Heard::Unknown,
            (_, Some(reason)) => Heard::Refused(reason.to_owned()),
            (_, None) => return Err("an answer is counted, refused or unknown"),
        };
        let sent = self.reports.get_mut(&number).ok_or("an ack for what was never sent")?;
        if sent.heard.replace(heard).is_some() {
            return Err("a report was answered twice");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "session 000102030405060708090a0b0c0d0e0f\n";

    fn problem(lines: &str) -> &'static str {
        WorkerLog::parse(&format!("{HEADER}{lines}")).unwrap_err().problem
    }

    #[test]
    fn what_was_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("worker.log");
        let session = SessionId([7; 16]);
        let first = [Execution { task: 612, run: 4, spans: true }];
        let second = [Execution { task: 3, run: 0, spans: false }, Execution { task: 3, run: 1, spans: true }];
        let mut writer = LogWriter::create(&path, session).unwrap();
        let mut acks = writer.another().unwrap();
        writer.intent(1, 1 << 32, &first).unwrap();
        acks.ack(1, &Heard::Counted).unwrap();
        writer.intent(2, 5, &second).unwrap();
        writer.intent(4, 6, &first).unwrap();
        acks.ack(2, &Heard::Refused("the lease has ended".to_owned())).unwrap();
        writer.intent(5, 7, &first).unwrap();
        acks.ack(5, &Heard::Unknown).unwrap();
        let log = WorkerLog::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(log.session, session);
        let sent = |lease, executions: &[Execution], heard| Sent { lease, executions: executions.to_vec(), heard };
        let expected = [
            (1, sent(1 << 32, &first, Some(Heard::Counted))),
            (2, sent(5, &second, Some(Heard::Refused("the lease has ended".to_owned())))),
            (4, sent(6, &first, None)),
            (5, sent(7, &first, Some(Heard::Unknown))),
        ];
        assert_eq!(log.reports, expected.into());
        assert_eq!((log.acked(), log.acked_runs()), (1, 1));
        assert_eq!(log.unanswered().collect::<Vec<_>>(), [4, 5]);
        assert!(LogWriter::create(&path, session).is_err(), "a file is never written over");
    }

    #[test]
    fn a_kill_at_any_byte_loses_only_the_last_line() {
        let text = format!("{HEADER}intent 1 9 5 0 1\nack 1 counted\nintent 2 10 6 0 0\n");
        let whole = WorkerLog::parse(&text).unwrap();
        for end in HEADER.len()..text.len() {
            let cut = WorkerLog::parse(&text[..end]).unwrap();
            let ended = text[..end].matches('\n').count();
            assert_eq!(cut.reports.len(), usize::from(ended > 1), "{end}");
            assert_eq!(cut.acked(), usize::from(ended > 2), "{end}");
        }
        assert_eq!(whole.reports.len(), 2);
        for end in 0..HEADER.len() {
            assert!(WorkerLog::parse(&text[..end]).is_err());
        }
    }

    #[test]
    fn lines_that_no_worker_writes_are_refused() {
        assert_eq!(problem("ack 1 counted\n"), "an ack for what was never sent");
        assert_eq!(problem("intent 1 9 5 0 1\nack 1 counted\nack 1 counted\n"), "a report was answered twice");
        assert_eq!(problem("intent 1 9 5 0 1\nintent 1 8 5 1 1\n"), "a report's number was used twice");
        assert_eq!(problem("intent 1 9 5 0 1\nack 1 counted\nintent 1 9 5 1 1\n"), "a report's number was used twice");
        assert_eq!(problem("intent 1 9 5 0 2\n"), "a lattice spans (1) or not (0)");
        assert_eq!(problem("intent 1 9 5 0\n"), "an intent has five numbers");
        assert_eq!(problem("intent 1 9 5 99999999999 1\n"), "a run's number is too large");
        assert_eq!(problem("intent 1 9 5 0 1\nack 1 fine\n"), "an answer is counted, refused or unknown");
        assert_eq!(problem("hello\n"), "neither an intent nor an ack");
    }
}
