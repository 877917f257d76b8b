//! Decides whether a history of clients, faults and dumps keeps what tenfold promises.
//!
//! ```text
//!   clients, tests, simulation ──▶ history ──▶ world (who holds what, since when) ──▶ rules ──▶ report
//! ```
//!
//! Knows nothing of tenfold's code: sessions, leases and counts are plain numbers here, so that tests of every kind can
//! write histories, also those inside the library itself, and no error of the library is believed by its judge.
//!
//! In reading order: [`history`] (the vocabulary), `text` and [`mod@file`] (how it is written), [`verified`] (dumps of the program
//! itself), `world` (what a history tells), [`rules`] (what must hold), [`figures`].
//!
//! **Invariants.** Pure but for `file`: no process, no clock. A history may end anywhere: what it has not told is not held
//! against it. Whatever the order in which processes ran, a right server passes. The checker is tested with a planted
//! violation of every rule, each seen as that rule and no other.
#![allow(clippy::wildcard_enum_match_arm, reason = "a rule names the records that it is about; the world names all")]

pub mod figures;
pub mod file;
pub mod history;
#[cfg(test)]
mod plants;
mod rows;
pub mod rules;
mod text;
pub mod verified;
mod world;

use std::collections::BTreeSet;
use std::fmt;

use figures::Figures;
use history::{History, Line, Record};
use rows::Rows;
use rules::{Findings, answers, books, counts, ends, leases, liveness, states};
pub use rules::{Rule, Violation};
use world::{Look, Told, World};

/// Reads a whole history: what happened, and what must not have.
pub fn check(history: &History) -> Report {
    let mut checker = Checker::new();
    for line in &history.lines {
        checker.take(line);
    }
    checker.unreadable(&history.unreadable);
    checker.finish()
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What must not have happened, in order of the history.
    pub violations: Vec<Violation>,
    /// Rules that were applied at least once. Of others nothing is known.
    pub applied: BTreeSet<Rule>,
    /// What happened.
    pub figures: Figures,
    /// Whether the history has an end; the rules that are applied there were not if it has none.
    pub ended: bool,
}

impl Report {
    /// Rules for which this history has nothing.
    pub fn not_applied(&self) -> impl Iterator<Item = Rule> {
        Rule::ALL.iter().copied().filter(|rule| !self.applied.contains(rule))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}", self.figures)?;
        let names: Vec<String> = self.applied.iter().map(|rule| format!("{rule:?}")).collect();
        write!(out, "  rules applied: {}", names.join(" "))?;
        for rule in self.not_applied() {
            write!(out, "\n  not applied: {rule:?}, which needs {}", rule.needs())?;
        }
        self.violations.iter().try_for_each(|violation| write!(out, "\n  VIOLATION of {violation}"))
    }
}

/// Follows a history record by record. A clone goes on from where this one stands: so one history can be checked with
/// many ends.
#[derive(Clone, Debug)]
pub struct Checker {
    world: World,
    findings: Findings,
    figures: Figures,
    answers: answers::Answers,
    states: states::States,
    liveness: liveness::Liveness,
    last_look: Option<Look>,
}

impl Default for Checker {
    fn default() -> Self {
        Self::new()
    }
}

impl Checker {
    /// One that has read nothing.
    pub fn new() -> Self {
        Self {
            world: World::new(),
            findings: Findings::default(),
            figures: Figures::default(),
            answers: answers::Answers::default(),
            states: states::States::default(),
            liveness: liveness::Liveness::default(),
            last_look: None,
        }
    }

    /// What was found so far.
    pub fn violations(&self) -> &[Violation] {
        &self.findings.violations
    }

    /// Reads the next record.
    pub fn take(&mut self, line: &Line) {
        self.findings.at = line.at;
        self.before(line);
        let told = self.world.take(line);
        for what in &told.unsound {
            self.findings.hold(Rule::Sound, false, || what.clone());
        }
        self.findings.applied.insert(Rule::Sound);
        self.figures.take(&self.world, line.who, &line.record, &told);
        self.answers.take(&self.world, line, &told, &mut self.findings);
        self.states.take(&self.world, line, &told, &mut self.findings);
        self.liveness.take(&self.world, line, &told, &mut self.findings);
        self.after(line, told);
    }

    /// Lines that nobody understands.
    pub fn unreadable(&mut self, lines: &[(usize, String)]) {
        for (at, text) in lines {
            self.findings.at = *at;
            self.findings.hold(Rule::Sound, false, || format!("no record: {text:?}"));
        }
    }

    /// There is no more.
    pub fn finish(mut self) -> Report {
        if self.world.ended {
            counts::end(&self.world, self.last_look.as_ref(), &mut self.findings);
            liveness::end(&self.world, self.last_look.as_ref(), &mut self.findings);
        }
        self.figures.end(&self.world);
        let Findings { mut violations, applied, .. } = self.findings;
        violations.sort_by_key(|violation| violation.at);
        Report { violations, applied, figures: self.figures, ended: self.world.ended }
    }

    /// Rules about a record that the world does not know of yet.
    fn before(&mut self, line: &Line) {
        if let Record::Grant { lease, .. } = &line.record
            && let Some(directory) = self.directory_of(line)
        {
            leases::granted(&self.world, directory, *lease, line.who, &mut self.findings);
        }
    }

    /// Rules about a record that the world has taken in.
    fn after(&mut self, line: &Line, told: Told) {
        let Self { world, findings, .. } = self;
        match &line.record {
            Record::Grant { lease, .. } => {
                if let Some(directory) = self.directory_of(line) {
                    leases::overlap(&self.world, directory, *lease, &mut self.findings);
                }
            }
            Record::Lost { lease } => {
                if let Some(directory) = self.directory_of(line) {
                    leases::lost(&self.world, directory, *lease, &mut self.findings);
                }
            }
            Record::Settled { campaign, finished } => {
                let index = world.campaign_told(line.who, campaign);
                ends::settled(world, index, Some(*finished), findings);
            }
            Record::OriginAnswer { connection, answer: history::Origin::Settled } => {
                let index = world.connections.get(connection).and_then(|connection| connection.campaign);
                ends::settled(world, index, None, findings);
            }
            Record::Status { campaign, standing, done, extra } => {
                let Some(look) = world.looks.get(&line.who).cloned() else { return };
                let Some(index) = world.campaign_in(look.directory, campaign) else {
                    ends::settled(world, None, None, findings);
                    return;
                };
                match standing {
                    history::Standing::Open => {}
                    history::Standing::Settled => ends::settled(world, Some(index), Some(false), findings),
                    history::Standing::Finished => ends::settled(world, Some(index), Some(true), findings),
                }
                counts::status(world, &look, index, (*done, *extra), findings);
                world.saw_sums(line.at, index, (*done, *extra));
            }
            Record::Looked => {
                if let Some(look) = told.look {
                    self.looked(line.at, look);
                }
            }
            Record::Dumped { .. } => {
                if let Some(dump) = told.dump {
                    self.dumped(line.at, &dump);
                }
            }
            _ => {}
        }
    }

    /// Which data directory a client's record is about.
    fn directory_of(&self, line: &Line) -> Option<usize> {
        let session = self.world.session_of(line.who)?;
        self.world.sessions.get(&session).map(|book| book.directory)
    }

    fn looked(&mut self, at: usize, mut look: Look) {
        let Self { world, findings, .. } = self;
        look.wrong = counts::look(world, &look, findings);
        leases::look(world, &look, findings);
        ends::look(world, &look, findings);
        books::look(world, &look, findings);
        for (index, counts) in &look.counts {
            for (task, count) in counts {
                world.saw(at, *index, *task, count);
            }
        }
        self.last_look = Some(look);
    }

    fn dumped(&mut self, at: usize, dump: &world::Dump) {
        let Self { world, findings, .. } = self;
        let rows = Rows::read(&dump.rows);
        counts::dump(world, dump, &rows, findings);
        answers::dump(world, dump, &rows, findings);
        leases::dump(world, dump, &rows, findings);
        ends::dump(world, dump, &rows, findings);
        states::dump(world, dump, &rows, findings);
        books::dump(&rows, findings);
        for (index, task, count) in counts::counts_of(world, dump, &rows) {
            world.saw(at, index, task, &count);
        }
    }
}
