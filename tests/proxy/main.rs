//! The real server and real clients over a network that does its worst: a proxy of our own between them, driven by a seed.
//!
//! ```text
//!   clients of the library ─┐
//!   `tenfold work`          ├──▶ proxy: delays, drips, cuts, half-closes, delivers late ──▶ `tenfold serve`, killed now and then
//!   clients of the origin ──┘
//!
//!   cargo test --test proxy                       one round
//!   TENFOLD_SEEDS=100 cargo test --test proxy     a hundred; then every kind of trouble must have occurred
//!   TENFOLD_SEED=7 cargo test --test proxy        the same dice again
//! ```
//!
//! In reading order: `proxy` (what it does to bytes), `clients` (who works, and writes down what it does), `round` (all of
//! them together, and what must be so at the end). What is written down is judged by the checker (crate `tenfold-checker`).
//!
//! **Invariants.** The dice are the same with the same seed; how the processes interleave is not. Nothing here waits by the clock for
//! something to have happened; time bounds how long a failing test hangs, and is what the proxy deals in.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "seeds and figures are for whoever reads the test's output")]

mod clients;
mod proxy;
#[allow(dead_code, reason = "the crash tests use all of it")]
#[path = "../crash/random.rs"]
mod random;
mod round;
#[allow(dead_code, reason = "the crash tests use all of it")]
#[path = "../crash/server.rs"]
mod server;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    if words.get(1).map(String::as_str) == Some(server::BECOME) {
        return server::become_program(&words[2..]);
    }
    libtest_mimic::run(&libtest_mimic::Arguments::from_args(), round::trials()).exit_code()
}
