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
//!
//! **Invariant**: the same seed is the same history, byte for byte: no clock, no thread, no order of a hash map.
//! Deliberately absent: sockets, tokio's runtime and sled, which other tests run for real. Reading order: `shape` (what a
//! seed is), `world` (what happens), `stage`, `process`, `watched`, `worker`, `origin`, `keeper`, `coverage`.

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

use std::collections::BTreeMap;

use self::coverage::Coverage;
use self::world::Outcome;

/// The key of a task of every campaign with keys.
fn key_of(task: u32) -> String {
    format!("key {task}")
}

/// Seeds that a plain `cargo test` runs, and that a release build does.
const SEEDS: u64 = if cfg!(debug_assertions) { 12 } else { 1_000 };

/// How many lines of the history a failure shows.
const LAST_LINES: usize = 60;

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
    if let Some(seed) = number("TENFOLD_SEED") {
        let outcome = world::run(seed);
        eprintln!("{}", outcome.history);
        judge(seed, &outcome);
        return;
    }
    let seeds = number("TENFOLD_SEEDS").unwrap_or(SEEDS);
    let mut coverage = Coverage::default();
    let mut kinds: BTreeMap<shape::Kind, u64> = BTreeMap::new();
    let (mut lines, mut milliseconds) = (0, 0);
    for seed in 1..=seeds {
        let outcome = world::run(seed);
        judge(seed, &outcome);
        coverage.merge(&outcome.coverage);
        *kinds.entry(outcome.kind).or_default() += 1;
        lines += outcome.history.lines.len();
        milliseconds += outcome.milliseconds;
    }
    eprintln!("{seeds} seeds {kinds:?}, {} simulated hours, {lines} records\n{coverage}", milliseconds / 3_600_000);
    if seeds >= 1_000 {
        assert_eq!(coverage.missing(), Vec::<&str>::new(), "this never happened in {seeds} seeds");
    }
}

/// Shows what is wrong with an outcome, and how to see it again.
fn judge(seed: u64, outcome: &Outcome) {
    let text = outcome.history.to_string();
    let last: Vec<&str> = text.lines().rev().take(LAST_LINES).collect::<Vec<_>>().into_iter().rev().collect();
    let wrong: Vec<String> = outcome.failure.iter().cloned().collect();
    assert!(
        wrong.is_empty(),
        "seed {seed} ({:?}):\n{}\n\nthe last lines of its history:\n{}\n\nsee it again: TENFOLD_SEED={seed} cargo sim",
        outcome.kind,
        wrong.join("\n"),
        last.join("\n")
    );
}
