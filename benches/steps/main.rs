//! What one step costs without sockets: of the state machine, at any number of tasks and leases, and of the store.
//!
//! ```text
//!   cargo bench --bench steps                both; some minutes, 3 GB of memory
//!   cargo bench --bench steps -- machine     a lease and its report, at 10^3 to 10^8 tasks and 1 to 10^6 leases
//!   cargo bench --bench steps -- store       a commit of 1, 64 and 4,096 reports, and a checkpoint
//!   cargo bench --bench steps -- --json FILE also for programs
//! ```
//!
//! What is counted instead of timed (comparisons in the index of open tasks) is a test: `src/coordinator/tests/cost.rs`. In reading order:
//! `machine`, `store`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]
#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "figures for people")]
#![allow(clippy::print_stdout, reason = "its figures are for whoever runs it")]

mod machine;
mod store;

fn main() {
    // `--bench` is what cargo says to every benchmark.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (words, json) = match &words[..] {
        [words @ .., "--json", file] => (words, Some(*file)),
        words => (words, None),
    };
    let rows = match words {
        [] => [machine::run(), store::run()].concat(),
        ["machine"] => machine::run(),
        ["store"] => store::run(),
        _ => panic!("{words:?} is unknown: see the head of benches/steps/main.rs"),
    };
    if let Some(file) = json {
        std::fs::write(file, serde_json::to_string_pretty(&rows).unwrap() + "\n").unwrap();
    }
}
