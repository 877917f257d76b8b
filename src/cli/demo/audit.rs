//! Compares what the workers wrote down with what the coordinator counted, and says for each promise whether it held.
//!
//! ```text
//!   worker files ─▶ acked, unanswered ─┐
//!   fates of the unanswered ───────────┼──▶ audit ──▶ checks (held or broken, and how), the table of results
//!   the coordinator's counts ──────────┘
//! ```
//!
//! The two sides share nothing but the numbers of reports: the files are written by the workers alone, the counts come
//! from the coordinator alone. Both must tell the same story, task by task.
//! Pure: no I/O, no clock. Tested in this file: a history that holds, and every check broken once.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::curve::Point;
use super::log::{Heard, Sent, WorkerLog};
use super::output::grouped;
use crate::types::{RequestFate, SessionId};

/// How many broken items a check names; the rest are only counted.
const EXAMPLES_MAX: usize = 3;

/// What one worker leaves behind.
#[derive(Clone, Debug)]
pub(super) struct Witness {
    /// For people: `worker 3`.
    pub name: String,
    /// Whether the demo killed it.
    pub killed: bool,
    /// Its file.
    pub log: WorkerLog,
    /// What the coordinator says about each of its unanswered reports.
    pub fates: BTreeMap<u64, RequestFate>,
}

/// What the coordinator counted for one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TaskBooks {
    /// The task's number.
    pub task: u64,
    /// Runs that count towards the quota.
    pub done: u32,
    /// Executions beyond that.
    pub extra: u32,
}

/// One promise, and whether it held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    /// What was checked, as a sentence that should be true.
    pub promise: String,
    /// `Ok`: it holds, with the figures. `Err`: it does not, and how.
    pub verdict: Result<String, String>,
}

impl Check {
    /// A check that holds exactly if nothing is wrong.
    pub(super) fn new(promise: impl Into<String>, figures: impl Into<String>, wrong: &[String]) -> Self {
        let verdict = if wrong.is_empty() {
            Ok(figures.into())
        } else {
            let mut text = wrong.iter().take(EXAMPLES_MAX).cloned().collect::<Vec<_>>().join("; ");
            if wrong.len() > EXAMPLES_MAX {
                let _ = write!(text, "; and {} more", wrong.len() - EXAMPLES_MAX);
            }
            Err(text)
        };
        Self { promise: promise.into(), verdict }
    }
}

/// One session's figures, in reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionFigures {
    /// The worker.
    pub name: String,
    /// Its session.
    pub session: SessionId,
    /// Whether the demo killed it.
    pub killed: bool,
    /// Reports it was about to send, or sent.
    pub reports: usize,
    /// Of these: it heard that they were counted.
    pub acked: usize,
    /// Of these: it heard that they were refused.
    pub refused: usize,
    /// Of these: it never heard.
    pub unanswered: usize,
    /// Of the unanswered: the coordinator counted them.
    pub unanswered_counted: usize,
}

/// The results of a whole campaign: whether the lattice of (task, run) spans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    tasks: u32,
    runs: u32,
    /// Row by row; `None`: no counted report has it.
    cells: Vec<Option<bool>>,
}

impl Table {
    fn empty(tasks: u32, runs: u32) -> Self {
        Self { tasks, runs, cells: vec![None; tasks as usize * runs as usize] }
    }

    fn position(&self, task: u64, run: u32) -> Option<usize> {
        let inside = task < u64::from(self.tasks) && run < self.runs;
        inside.then(|| task as usize * self.runs as usize + run as usize)
    }

    /// One result; `None` if it is missing or out of range.
    pub(super) fn get(&self, task: u64, run: u32) -> Option<bool> {
        self.cells[self.position(task, run)?]
    }

    /// SHA-256 over the lines `TASK RUN SPANS\n` in ascending order, SPANS being 1, 0 or `?` (missing), in hexadecimal.
    pub(super) fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (position, cell) in self.cells.iter().enumerate() {
            let (task, run) = (position / self.runs as usize, position % self.runs as usize);
            let spans = cell.map_or('?', |spans| if spans { '1' } else { '0' });
            hash.update(format!("{task} {run} {spans}\n"));
        }
        hash.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }

    /// Per task: how many lattices, and how many span; `probability` says what a task's number means.
    pub(super) fn points(&self, probability: impl Fn(u32) -> f64) -> Vec<Point> {
        let row = |task: u32| {
            let cells = &self.cells[task as usize * self.runs as usize..][..self.runs as usize];
            let count = |wanted: bool| cells.iter().filter(|cell| **cell == Some(wanted)).count() as u32;
            Point { probability: probability(task), runs: count(true) + count(false), spanning: count(true) }
        };
        (0..self.tasks).map(row).collect()
    }
}

/// What came out.
#[derive(Clone, Debug)]
pub(super) struct Audit {
    /// One for each promise.
    pub checks: Vec<Check>,
    /// One for each session.
    pub sessions: Vec<SessionFigures>,
    /// The results.
    pub table: Table,
}

/// Compares. `tasks` are the numbers from 0, each with `runs` runs.
pub(super) fn audit(tasks: u32, runs: u32, witnesses: &[Witness], books: &[TaskBooks]) -> Audit {
    let mut table = Table::empty(tasks, runs);
    let sessions: Vec<SessionFigures> = witnesses.iter().map(figures).collect();
    // Every execution there was, and the part of it that the coordinator counted.
    let mut executed: BTreeMap<(u64, u32), (bool, usize)> = BTreeMap::new();
    let mut counted: BTreeMap<u64, BTreeMap<u32, u32>> = BTreeMap::new();
    let (mut strangers, mut contradictions) = (Vec::new(), Vec::new());
    for witness in witnesses {
        for (number, sent) in &witness.log.reports {
            let is_counted = is_counted(witness, *number, sent);
            for execution in &sent.executions {
                let Some(cell) = table.position(execution.task, execution.run) else {
                    strangers.push(format!("{} ran task {} run {}", witness.name, execution.task, execution.run));
                    continue;
                };
                let first = executed.entry((execution.task, execution.run)).or_insert((execution.spans, 0));
                first.1 += 1;
                if first.0 != execution.spans {
                    contradictions.push(format!("task {} run {}", execution.task, execution.run));
                }
                if is_counted {
                    table.cells[cell] = Some(execution.spans);
                    *counted.entry(execution.task).or_default().entry(execution.run).or_default() += 1;
                }
            }
        }
    }
    let repeated = executed.values().filter(|(_, times)| *times > 1).count();
    let checks = vec![
        every_task_has_its_runs(tasks, runs, books),
        sessions_add_up(witnesses, &sessions),
        books_equal_files(&counted, &strangers, books),
        every_run_has_a_result(&table),
        Check::new(
            "a run that was executed twice gave the same twice",
            format!("{} were", grouped(repeated as u64)),
            &contradictions,
        ),
    ];
    Audit { checks, sessions, table }
}

fn figures(witness: &Witness) -> SessionFigures {
    let refused = |sent: &&Sent| matches!(sent.heard, Some(Heard::Refused(_)));
    let reports = &witness.log.reports;
    SessionFigures {
        name: witness.name.clone(),
        session: witness.log.session,
        killed: witness.killed,
        reports: reports.len(),
        acked: witness.log.acked(),
        refused: reports.values().filter(refused).count(),
        unanswered: witness.log.unanswered().count(),
        unanswered_counted: witness.fates.values().filter(|fate| speaks_for_a_count(**fate)).count(),
    }
}

/// By the worker's own ear if it heard, else by what the coordinator says became of the report.
fn is_counted(witness: &Witness, number: u64, sent: &Sent) -> bool {
    match &sent.heard {
        Some(Heard::Counted) => true,
        Some(Heard::Refused(_)) => false,
        None | Some(Heard::Unknown) => witness.fates.get(&number).is_some_and(|fate| speaks_for_a_count(*fate)),
    }
}

/// Whether a report with this fate is taken as counted.
///
/// [`RequestFate::Confirmed`]: the worker's client had read the answer, but the worker was killed before it wrote it down;
/// whether it was a refusal is forgotten. It is taken as counted, and the books of its task say whether that was right:
/// with a refusal they would have one execution less than the files.
fn speaks_for_a_count(fate: RequestFate) -> bool {
    match fate {
        RequestFate::Counted | RequestFate::Confirmed => true,
        RequestFate::Refused(_) | RequestFate::NotReceived | RequestFate::UnknownSession => false,
    }
}

fn every_task_has_its_runs(tasks: u32, runs: u32, books: &[TaskBooks]) -> Check {
    let mut wrong: Vec<String> = books
        .iter()
        .filter(|task| task.done != runs)
        .map(|task| format!("task {} has {} of {runs}", task.task, task.done))
        .collect();
    if !books.iter().map(|task| task.task).eq(0..u64::from(tasks)) {
        wrong.push(format!("the coordinator knows {} tasks, not {tasks}", books.len()));
    }
    Check::new(
        "every task has all its runs",
        format!("{} tasks, {} runs each", grouped(tasks.into()), grouped(runs.into())),
        &wrong,
    )
}

fn sessions_add_up(witnesses: &[Witness], sessions: &[SessionFigures]) -> Check {
    let mut wrong = Vec::new();
    for witness in witnesses {
        for number in witness.log.unanswered() {
            match witness.fates.get(&number) {
                Some(
                    RequestFate::Counted | RequestFate::Refused(_) | RequestFate::Confirmed | RequestFate::NotReceived,
                ) => {}
                Some(RequestFate::UnknownSession) => {
                    wrong.push(format!("report {number} of {}: the coordinator forgot the session", witness.name));
                }
                None => wrong.push(format!("report {number} of {} was not looked up", witness.name)),
            }
        }
        for number in witness.fates.keys() {
            if !witness.log.unanswered().any(|unanswered| unanswered == *number) {
                wrong.push(format!("report {number} of {} was looked up, but it was answered", witness.name));
            }
        }
    }
    let sum = |part: fn(&SessionFigures) -> usize| sessions.iter().map(part).sum::<usize>();
    let (acked, unanswered) = (sum(|session| session.acked), sum(|session| session.unanswered));
    let counted = acked + sum(|session| session.unanswered_counted);
    let [acked, counted, unanswered] = [acked, counted, unanswered].map(|count| grouped(count as u64));
    let figures = format!("{acked} ≤ {counted} ≤ {acked} + {unanswered} reports in {} sessions", sessions.len());
    Check::new(
        "acked ≤ counted ≤ acked + unanswered in every session, every unanswered report looked up",
        figures,
        &wrong,
    )
}

/// Task by task: the reports that count are the coordinator's books, no more, no less.
fn books_equal_files(counted: &BTreeMap<u64, BTreeMap<u32, u32>>, strangers: &[String], books: &[TaskBooks]) -> Check {
    let mut wrong = strangers.to_vec();
    let none = BTreeMap::new();
    for task in books {
        let runs = counted.get(&task.task).unwrap_or(&none);
        let (distinct, all) = (runs.len() as u32, runs.values().sum::<u32>());
        if task.done != distinct || task.done + task.extra != all {
            let theirs = format!("{} + {} extra", task.done, task.extra);
            wrong.push(format!(
                "task {}: the coordinator has {theirs}, the workers {distinct} + {}",
                task.task,
                all - distinct
            ));
        }
    }
    let (done, extra) = books.iter().fold((0, 0), |(done, extra), task| (done + task.done, extra + task.extra));
    let figures = format!("{} runs + {} extra", grouped(done.into()), grouped(extra.into()));
    Check::new("task by task, the coordinator's counts are what the workers' files say", figures, &wrong)
}

fn every_run_has_a_result(table: &Table) -> Check {
    let missing: Vec<String> = (0..u64::from(table.tasks))
        .flat_map(|task| (0..table.runs).map(move |run| (task, run)))
        .filter(|(task, run)| table.get(*task, *run).is_none())
        .map(|(task, run)| format!("task {task} run {run} is missing"))
        .collect();
    Check::new(
        "every run has a result that was counted",
        format!("{} results", grouped(table.cells.len() as u64)),
        &missing,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::RefusalReason;

    /// A worker's file, from its lines without the header.
    fn witness(name: &str, lines: &str, fates: &[(u64, RequestFate)]) -> Witness {
        let text = format!("session {}\n{lines}", SessionId([1; 16]));
        let log = WorkerLog::parse(&text).unwrap();
        Witness { name: name.to_owned(), killed: false, log, fates: fates.iter().copied().collect() }
    }

    fn books(counts: &[(u32, u32)]) -> Vec<TaskBooks> {
        let line =
            |(task, (done, extra)): (usize, &(u32, u32))| TaskBooks { task: task as u64, done: *done, extra: *extra };
        counts.iter().enumerate().map(line).collect()
    }

    /// Two tasks of two runs. One worker died with report 3 unanswered (counted) and report 4 never sent; task 1's
    /// run 0 was executed by both, and counted for both.
    fn history() -> (Vec<Witness>, Vec<TaskBooks>) {
        let died = "intent 1 9 0 0 1\nack 1 counted\nintent 2 10 0 1 0\nack 2 counted\n\
                    intent 3 11 1 0 1\nintent 4 12 1 1 1\n";
        let lived = "intent 1 13 1 0 1\nintent 1 13 1 1 1\nack 1 counted\n";
        let fates = [(3, RequestFate::Counted), (4, RequestFate::NotReceived)];
        (vec![witness("worker 1", died, &fates), witness("worker 2", lived, &[])], books(&[(2, 0), (2, 1)]))
    }

    /// Which checks are broken, by their position.
    fn broken(witnesses: &[Witness], books: &[TaskBooks]) -> Vec<usize> {
        let audit = audit(2, 2, witnesses, books);
        audit.checks.iter().enumerate().filter(|(_, check)| check.verdict.is_err()).map(|(index, _)| index).collect()
    }

    #[test]
    fn a_history_that_holds() {
        let (witnesses, books) = history();
        let audit = audit(2, 2, &witnesses, &books);
        for check in &audit.checks {
            assert!(check.verdict.is_ok(), "{check:?}");
        }
        assert_eq!(audit.checks[4].verdict, Ok("2 were".to_owned()));
        let first = &audit.sessions[0];
        assert_eq!((first.reports, first.acked, first.refused), (4, 2, 0));
        assert_eq!((first.unanswered, first.unanswered_counted), (2, 1));
        let cells = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(task, run)| audit.table.get(task, run));
        assert_eq!(cells, [Some(true), Some(false), Some(true), Some(true)]);
        // printf '0 0 1\n0 1 0\n1 0 1\n1 1 1\n' | sha256sum
        assert_eq!(audit.table.digest(), "0d9f75c450deac74f6653080e586e47b3e1cccfeefa776c0fc883f8c958961b1");
        let points = audit.table.points(f64::from);
        assert_eq!((points[0].runs, points[0].spanning, points[1].spanning), (2, 1, 2));
    }

    #[test]
    fn a_lost_count_is_seen() {
        let (witnesses, mut books) = history();
        books[0].done = 1;
        assert_eq!(broken(&witnesses, &books), [0, 2]);
        books.remove(0);
        assert_eq!(broken(&witnesses, &books), [0]);
    }

    #[test]
    fn an_invented_count_is_seen() {
        let (witnesses, mut books) = history();
        books[0].extra = 1;
        assert_eq!(broken(&witnesses, &books), [2]);
    }

    #[test]
    fn a_report_counted_for_a_run_of_another_is_seen() {
        // The sums are right, but the coordinator believes it has both runs while one was executed twice.
        let (mut witnesses, books) = history();
        witnesses[1] = witness("worker 2", "intent 1 13 1 0 1\nintent 1 13 1 0 1\nack 1 counted\n", &[]);
        assert_eq!(broken(&witnesses, &books), [2, 3]);
    }

    #[test]
    fn an_unanswered_report_must_be_looked_up_and_known() {
        let (mut witnesses, books) = history();
        witnesses[0].fates.remove(&4);
        assert_eq!(broken(&witnesses, &books), [1]);
        witnesses[0].fates.insert(4, RequestFate::UnknownSession);
        assert_eq!(broken(&witnesses, &books), [1]);
        witnesses[0].fates.insert(4, RequestFate::Refused(RefusalReason::Ended));
        assert_eq!(broken(&witnesses, &books), [0; 0]);
        witnesses[0].fates.insert(1, RequestFate::Counted);
        assert_eq!(broken(&witnesses, &books), [1]);
    }

    #[test]
    fn an_ack_without_a_count_is_seen() {
        let (mut witnesses, books) = history();
        witnesses[0].fates.insert(4, RequestFate::Counted);
        assert_eq!(broken(&witnesses, &books), [2], "the files have one more than the books");
        witnesses[0].fates.insert(4, RequestFate::NotReceived);
        witnesses[0].fates.insert(3, RequestFate::NotReceived);
        assert_eq!(broken(&witnesses, &books), [2], "the books have one more than the files");
    }

    #[test]
    fn a_report_whose_answer_was_read_but_not_written_down_is_taken_as_counted() {
        let (mut witnesses, books) = history();
        witnesses[0].fates.insert(3, RequestFate::Confirmed);
        assert_eq!(broken(&witnesses, &books), [0; 0]);
        assert_eq!(audit(2, 2, &witnesses, &books).sessions[0].unanswered_counted, 1);
        // Had it been refused, the books would not have it.
        witnesses[0].fates.insert(4, RequestFate::Confirmed);
        assert_eq!(broken(&witnesses, &books), [2]);
    }

    #[test]
    fn a_missing_result_is_seen() {
        let (mut witnesses, books) = history();
        witnesses.remove(1);
        assert_eq!(broken(&witnesses, &books), [2, 3]);
    }

    #[test]
    fn two_results_for_one_run_are_seen() {
        let (mut witnesses, books) = history();
        witnesses[1] = witness("worker 2", "intent 1 13 1 0 0\nintent 1 13 1 1 1\nack 1 counted\n", &[]);
        assert_eq!(broken(&witnesses, &books), [4]);
    }

    #[test]
    fn a_task_that_does_not_exist_is_seen() {
        let (mut witnesses, books) = history();
        witnesses.push(witness(
            "worker 3",
            "intent 1 13 2 0 0\nack 1 counted\nintent 2 14 0 2 0\nack 2 counted\n",
            &[],
        ));
        assert_eq!(broken(&witnesses, &books), [2]);
    }

    #[test]
    fn only_a_few_examples_are_named() {
        let wrong: Vec<String> = (0..5).map(|number| number.to_string()).collect();
        assert_eq!(Check::new("", "", &wrong).verdict, Err("0; 1; 2; and 2 more".to_owned()));
        assert_eq!(Check::new("", "fine", &[]).verdict, Ok("fine".to_owned()));
    }
}
