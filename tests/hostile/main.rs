//! Hostile and unlucky peers against real servers: nobody who keeps to the protocol suffers, and nothing false is counted.
//!
//! ```text
//!   cargo test --test hostile                                        everything, small
//!   TENFOLD_SECONDS=60 cargo test --test hostile crowd               hostile peers for longer than all deadlines
//!   TENFOLD_CLIENTS=5000 cargo test --test hostile herd              that many clients at the same moment
//!   TENFOLD_SEED=7 cargo test --test hostile crowd                   the same garbage again
//! ```
//!
//! In reading order: `workers` (processes of good clients that wait for orders), `process` (what the kernel says about a
//! server), `crowd` (peers that break every rule, all at once), `places` (all connections are taken), `descriptors` (all
//! file descriptors are taken), `herd` (everybody comes back at the same moment), `stopped` (processes that stand still
//! and go on), `directory` (two servers, one data directory), `alive` (nothing stays stuck).
//!
//! `server` and `raw` are those of the crash tests. Like theirs, this program has a `main` of its own, because its
//! executable is also the good clients' process and the process that becomes a server.
//!
//! **Invariants.** Nothing here waits by the clock for something to have happened. Where time is a promise, its bound is
//! a constant at the top of the file, generous, and printed beside what was measured. Deliberately absent: the wall clock
//! (`tests/clocks`), and decoders fed with random bytes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "figures are for whoever reads the test's output")]

/// Makes a trial of a function; its name is the function's, after that of its part.
macro_rules! trial {
    ($part:literal, $function:ident) => {
        libtest_mimic::Trial::test(concat!($part, "::", stringify!($function)), || {
            $function();
            Ok(())
        })
    };
}

mod alive;
mod crowd;
mod descriptors;
mod directory;
mod herd;
mod places;
mod process;
#[path = "../crash/random.rs"]
mod random;
#[allow(dead_code, reason = "other test programs use other parts of it")]
#[path = "../crash/raw.rs"]
mod raw;
#[allow(dead_code, reason = "other test programs use other parts of it")]
#[path = "../crash/server.rs"]
mod server;
#[path = "../server_support/mod.rs"]
mod server_support;
mod stopped;
mod workers;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    match words.get(1).map(String::as_str) {
        Some(server::BECOME) => server::become_program(&words[2..]),
        Some(workers::WORKERS) => workers::main(&words[2..]),
        Some(_) | None => {
            let arguments = libtest_mimic::Arguments::from_args();
            let mut parts = vec![places::trials(), stopped::trials(), directory::trials(), alive::trials()];
            if cfg!(target_os = "linux") {
                // They look at processes through /proc.
                parts.extend([crowd::trials(), descriptors::trials(), herd::trials()]);
            }
            libtest_mimic::run(&arguments, parts.into_iter().flatten().collect()).exit_code()
        }
    }
}
