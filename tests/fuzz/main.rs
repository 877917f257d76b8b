//! Fuzz tests of every decoder: the kept corpus, then inputs made of it.
//!
//! ```text
//!   cargo test --test fuzz                                    the whole corpus, and 1,500 inputs of one seed a target
//!   TENFOLD_SEEDS=1000 cargo test --release --test fuzz made  1,000 seeds a target
//!   TENFOLD_SEED=7 cargo test --test fuzz made::store         the same inputs again
//!   TENFOLD_INPUT=0105 cargo test --test fuzz input::         one input, as digits or a file
//! ```
//!
//! In reading order: `targets` (what is run, and what it promises), `mutation` (how inputs are made), `dense` (messages of many parts),
//! `memory` (how much a target may take), `running` (names the input that failed). The corpus (`corpus/<target>/`) is what libFuzzer kept; how to
//! let it go on is written in `fuzz/README.md`.
//!
//! **Invariants.** One target at a time, so that a failure has one input. Every failure names its input and the command
//! that runs it again.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "seeds and inputs are for whoever reads the test's output")]
#![allow(unsafe_code, reason = "an allocator that counts")]

mod dense;
mod memory;
mod mutation;
mod running;
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use mutation::Chance;
use targets::Target;

/// Inputs that one seed makes for one target.
const INPUTS_PER_SEED: usize = 1_500;

fn main() -> ExitCode {
    running::watch();
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let kept = targets::all().map(|target| Trial::test(format!("kept::{}", target.name), move || keep(target)));
    let made = targets::all().map(|target| Trial::test(format!("made::{}", target.name), move || make(target)));
    let input = std::env::var("TENFOLD_INPUT").ok();
    let given = input.iter().flat_map(|digits| {
        let digits = digits.clone();
        targets::all().map(move |target| {
            let digits = digits.clone();
            Trial::test(format!("input::{}", target.name), move || run(target, &bytes_of(&digits)))
        })
    });
    libtest_mimic::run(&arguments, given.chain(kept).chain(made).chain(dense::trials()).collect()).exit_code()
}

/// Runs everything that was kept.
fn keep(target: Target) -> Result<(), Failed> {
    let corpus = corpus(target);
    if corpus.is_empty() {
        return Err(format!("nothing is kept for {}", target.name).into());
    }
    corpus.iter().try_for_each(|input| run(target, input))
}

/// Runs what some seeds make of it.
fn make(target: Target) -> Result<(), Failed> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = number("TENFOLD_SEED").unwrap_or(1);
    let corpus = corpus(target);
    for seed in first..first + number("TENFOLD_SEEDS").unwrap_or(1) {
        let mut chance = Chance(seed);
        for _ in 0..INPUTS_PER_SEED {
            let input = mutation::make(&mut chance, &corpus, target.words, target.input_bytes_max);
            run(target, &input)
                .inspect_err(|_| eprintln!("or: TENFOLD_SEED={seed} cargo test --test fuzz made::{}", target.name))?;
        }
    }
    Ok(())
}

fn run(target: Target, input: &[u8]) -> Result<(), Failed> {
    running::note(target.name, input);
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|_| {
        running::accuse(format_args!("failed"));
        Failed::from("see above")
    })
}

fn corpus(target: Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target.name);
    let mut files: Vec<_> = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    // The system may list them in any order.
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// The bytes in a file, or those that hexadecimal digits spell.
fn bytes_of(input: &str) -> Vec<u8> {
    if input.contains('/') {
        return fs::read(input).unwrap();
    }
    let digits = input.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
