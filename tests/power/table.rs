//! How many cuts there were, by mode and by part of the run, and what was wrong.

use std::collections::BTreeMap;
use std::fmt;

use tenfold_checker::figures::Figures;

use crate::disk::Mode;
use crate::judge::{Finding, Kind};

/// Counts of cuts.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: BTreeMap<(&'static str, Mode), Row>,
    /// Images on which a real server and its clients went on to the end.
    pub(crate) resumed: usize,
    /// Images in which the last commit was there in part.
    pub(crate) cut_short: usize,
    /// What happened in whole runs that the checker has read.
    pub(crate) figures: Figures,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    cuts: usize,
    failures: usize,
    lost: usize,
    invented: usize,
    unopenable: usize,
    hung: usize,
    rules: usize,
}

impl Row {
    fn add(&mut self, other: Self) {
        self.cuts += other.cuts;
        self.failures += other.failures;
        self.lost += other.lost;
        self.invented += other.invented;
        self.unopenable += other.unopenable;
        self.hung += other.hung;
        self.rules += other.rules;
    }
}

impl Table {
    /// One cut more.
    pub(crate) fn count(&mut self, phase: &'static str, mode: Mode, findings: &[Finding]) {
        let has = |kind| usize::from(findings.iter().any(|finding| finding.kind == kind));
        self.rows.entry((phase, mode)).or_default().add(Row {
            cuts: 1,
            failures: usize::from(!findings.is_empty()),
            lost: has(Kind::Lost),
            invented: has(Kind::Invented),
            unopenable: has(Kind::Unopenable),
            hung: has(Kind::Hung),
            rules: has(Kind::Rules),
        });
    }

    pub(crate) fn add(&mut self, other: Self) {
        for (key, row) in other.rows {
            self.rows.entry(key).or_default().add(row);
        }
        self.resumed += other.resumed;
        self.cut_short += other.cut_short;
        self.figures.add(&other.figures);
    }

    fn total(&self) -> Row {
        self.rows.values().fold(Row::default(), |mut total, row| {
            total.add(*row);
            total
        })
    }

    /// How many cuts.
    pub(crate) fn cuts(&self) -> usize {
        self.total().cuts
    }

    /// In how many of them something was wrong.
    pub(crate) fn failures(&self) -> usize {
        self.total().failures
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |what: &str, mode: &str, row: &Row| {
            let Row { cuts, lost, invented, unopenable, hung, rules, .. } = row;
            writeln!(
                out,
                "{what:<12} {mode:<9} {cuts:>6} {lost:>6} {invented:>9} {unopenable:>11} {hung:>6} {rules:>6}"
            )
        };
        for ((phase, mode), row) in &self.rows {
            line(phase, mode.word(), row)?;
        }
        line("all", "", &self.total())?;
        let heading = ["phase", "mode", "cuts", "lost", "invented", "unopenable", "hung", "rules"].join(" · ");
        let Self { resumed, cut_short, .. } = self;
        write!(
            out,
            "({heading}; a real server and its clients went on from {resumed} of the images; in {cut_short} the last commit was there in part)"
        )?;
        if self.figures.records > 0 {
            write!(out, "\n{}", self.figures)?;
        }
        Ok(())
    }
}
