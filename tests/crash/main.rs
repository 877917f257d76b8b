//! Crash tests with real processes: servers and clients that are killed while they work, and exact counts afterwards.
//!
//! ```text
//!   cargo test --test crash                            everything, 10 kills
//!   TENFOLD_KILLS=5000 cargo test --test crash kill    for hours
//!   TENFOLD_SEED=7 cargo test --test crash kill        the same dice again
//! ```
//!
//! In reading order: `server` (a real `tenfold serve`, killed and started again), `client` (a real client process that
//! misbehaves in every way a client may), `kill` (all of them together; all write down what they do into one history, which
//! `checker/` judges), `resend` (the server dies between commit and answer), `origin` (transcripts in the origin's dialect).
//!
//! This program has a `main` of its own, because its executable is also the client process, and the process that becomes
//! a server: it begins as `crash client …` or `crash become …`.
//!
//! **Invariants.** Nothing here waits by the clock for something to have happened; time only bounds how long a failing
//! test hangs. Every process is ended by whoever started it, and dies with it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "seeds and figures are for whoever reads the test's output")]

/// Makes a trial of a function; its name is the function's, after that of its part.
macro_rules! trial {
    ($part:literal, $function:ident) => {
        libtest_mimic::Trial::test(concat!($part, "::", stringify!($function)), || {
            $function();
            Ok(())
        })
    };
}

mod client;
mod kill;
mod origin;
mod random;
#[allow(dead_code, reason = "other test programs use other parts of it")]
mod raw;
mod resend;
#[allow(dead_code, reason = "other test programs use other parts of it")]
mod server;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    match words.get(1).map(String::as_str) {
        Some(server::BECOME) => server::become_program(&words[2..]),
        Some(client::CLIENT) => client::main(&words[2..]),
        Some(_) | None => {
            let arguments = libtest_mimic::Arguments::from_args();
            let parts = [resend::trials(), origin::trials(), kill::trials()];
            libtest_mimic::run(&arguments, parts.into_iter().flatten().collect()).exit_code()
        }
    }
}
