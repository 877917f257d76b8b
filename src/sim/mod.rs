//! A deterministic simulation: the real coordinator, pipeline, ledger, recovery, frames and client books, against a
//! simulated network, disk and clock. One seed is one history, which the checker judges.
//!
//! ```text
//!   worker ◀─┐                                    ┌─▶ process: pipeline ─▶ coordinator
//!   worker ◀─┼── stage: bytes in pieces, late, ───┤            └─▶ ledger ─▶ memory store
//!   keeper ◀─┤   cut, held; the schedule          └─ kills, power cuts, failures, stalls
//!   observer ┘
//!                          └──▶ history ──▶ checker ──▶ violations
//! ```
//!
//! | | |
//! |---|---|
//! | `cargo sim` | 1,000 seeds; fails if a rule is broken, or something never happened |
//! | `TENFOLD_SEED=17 cargo sim` | one seed, with its history |
//! | `TENFOLD_SEEDS=100000 cargo sim` | so many |
//! | `TENFOLD_MINUTES=120 cargo sim` | fresh seeds for two hours |
//! | `cargo test` | a few seeds |
//!
//! **Invariant**: the same seed is the same history, byte for byte: no clock, no thread, no order of a hash map.
//! Deliberately absent: sockets, tokio's runtime and sled, which other tests run for real. Reading order: `shape` (what a
//! seed is), `world` (what happens), `stage`, `process`, `watched`, `worker`, `origin`, `keeper`, `coverage`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::struct_excessive_bools,
    clippy::wildcard_enum_match_arm,
    reason = "these files are tests"
)]

mod asker;
mod coverage;
mod dump;
mod keeper;
mod origin;
mod process;
mod random;
mod shape;
mod stage;
mod watched;
mod words;
mod worker;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use tenfold_checker::{Rule, check};

use self::coverage::Coverage;
use self::world::Outcome;
use crate::server::clock::{Clock, Time as _};

/// The key of a task of every campaign with keys.
fn key_of(task: u32) -> String {
    format!("key {task}")
}

/// Seeds that a plain `cargo test` runs, and that a release build does.
const SEEDS: u64 = if cfg!(debug_assertions) { 12 } else { 1_000 };

/// So many seeds must have produced everything.
const SEEDS_OF_ALL: u64 = 1_000;

/// How many lines of the history a failure shows.
const LAST_LINES: usize = 40;

/// Rules that are about something that does not happen here: uses of memory, other builds, hostile peers.
const ELSEWHERE: [Rule; 4] = [Rule::S16, Rule::S17, Rule::S18, Rule::L5];

#[test]
fn the_same_seed_is_the_same_history() {
    for seed in 1..=4 {
        let (one, other) = (world::run(seed).history.to_string(), world::run(seed).history.to_string());
        let differs = one.lines().zip(other.lines()).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(one.len(), other.len(), "seed {seed}");
    }
}

#[test]
fn simulated_histories_keep_every_rule() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let mut sum = Sum::default();
    if let Some(seed) = number("TENFOLD_SEED") {
        let outcome = world::run(seed);
        eprintln!("{}\n\n{}", outcome.history, check(&outcome.history));
        sum.add_outcome(seed, &outcome);
    } else if let Some(minutes) = number("TENFOLD_MINUTES") {
        soak(&mut sum, minutes);
    } else {
        let seeds = number("TENFOLD_SEEDS").unwrap_or(SEEDS);
        (1..=seeds).for_each(|seed| sum.add(seed));
        eprintln!("{sum}");
    }
    sum.must_be_right();
}

/// Fresh seeds for so long; says how far it is.
fn soak(sum: &mut Sum, minutes: u64) {
    let mut seed = getrandom::u64().expect("random numbers") >> 16;
    eprintln!("soaking for {minutes} minutes, from seed {seed}");
    let mut clock = Clock::start();
    let mut said = 0;
    loop {
        sum.add(seed);
        seed += 1;
        // A look moves the clock by a second at most; no seed takes longer, so these are real minutes.
        let passed = clock.look().now.0 / 60_000;
        if passed > said {
            said = passed;
            eprintln!("{passed} minutes: {} seeds, {} of them wrong", sum.seeds, sum.wrong.len());
        }
        if passed >= minutes || sum.wrong.len() >= WRONG_MAX {
            break;
        }
    }
    eprintln!("{sum}");
}

/// After so many wrong seeds a run need not go on.
const WRONG_MAX: usize = 20;

/// What many simulations came to.
#[derive(Default)]
struct Sum {
    seeds: u64,
    kinds: BTreeMap<shape::Kind, u64>,
    records: u64,
    milliseconds: u64,
    coverage: Coverage,
    applied: BTreeSet<Rule>,
    /// Each in one line.
    wrong: Vec<String>,
    /// The first, with all that helps.
    first: Option<String>,
}

impl Sum {
    /// Runs a seed; a panic is its failure, and the next seeds run all the same.
    fn add(&mut self, seed: u64) {
        if let Ok(outcome) = std::panic::catch_unwind(|| world::run(seed)) {
            return self.add_outcome(seed, &outcome);
        }
        self.seeds += 1;
        self.wrong.push(format!("seed {seed}: it panicked"));
        let text = format!("seed {seed} panicked, see above\n\nsee it again: TENFOLD_SEED={seed} cargo sim");
        self.first.get_or_insert(text);
    }

    fn add_outcome(&mut self, seed: u64, outcome: &Outcome) {
        let report = check(&outcome.history);
        self.seeds += 1;
        *self.kinds.entry(outcome.kind).or_default() += 1;
        self.records += outcome.history.lines.len() as u64;
        self.milliseconds += outcome.milliseconds;
        self.coverage.merge(&outcome.coverage);
        self.applied.extend(&report.applied);
        let mut wrong: Vec<String> = outcome.failure.iter().cloned().collect();
        wrong.extend(report.violations.iter().map(ToString::to_string));
        let Some(first) = wrong.first() else { return };
        let first: String = first.lines().next().unwrap_or_default().chars().take(200).collect();
        self.wrong.push(format!("seed {seed} ({:?}): {first}", outcome.kind));
        if self.first.is_none() {
            let text = outcome.history.to_string();
            let last: Vec<&str> = text.lines().rev().take(LAST_LINES).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            self.first = Some(format!(
                "seed {seed} ({:?}):\n{}\n\nthe last lines of its history:\n{}\n\nsee it again: TENFOLD_SEED={seed} cargo sim",
                outcome.kind,
                wrong.join("\n"),
                last.join("\n")
            ));
        }
    }

    fn must_be_right(&self) {
        let first = self.first.as_deref().unwrap_or_default();
        assert!(
            self.wrong.is_empty(),
            "{first}\n\n{} of {} seeds:\n{}",
            self.wrong.len(),
            self.seeds,
            self.wrong.join("\n")
        );
        if self.seeds >= SEEDS_OF_ALL {
            assert_eq!(self.coverage.missing(), Vec::<&str>::new(), "this never happened in {} seeds", self.seeds);
            let missing = Rule::ALL.iter().filter(|rule| !self.applied.contains(rule) && !ELSEWHERE.contains(rule));
            assert_eq!(missing.collect::<Vec<_>>(), Vec::<&Rule>::new(), "nothing was there to apply these rules to");
        }
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hours = self.milliseconds / 3_600_000;
        writeln!(out, "{} seeds, {hours} simulated hours, {} records; {:?}", self.seeds, self.records, self.kinds)?;
        write!(out, "{}", self.coverage)
    }
}
