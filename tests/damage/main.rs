//! Damage: whatever happens to stored bytes, a start or a verification finds the same state, or refuses and says what is wrong;
//! never a lower count, never another state.
//!
//! ```text
//!   cargo test --test damage                    a sample, in seconds
//!   cargo damage                                every byte of every record, 2,000 places of the database's file; minutes
//!   TENFOLD_SEED=7 cargo test --test damage     the same dice again
//! ```
//!
//! In reading order: `history` (a data directory with every kind of row, written by the real coordinator and store), `outcome` (what
//! may come of damage, and the table of what came), `records` (every record of ours, in memory: the same records, without
//! the disk), `files` (the files of a real directory; in child processes, so that what hangs, dies or takes too much memory is
//! an outcome too).
//!
//! This program has a `main` of its own, because its executable is also the child: it then begins as `damage look …`.
//!
//! **Invariant.** What cannot be noticed is counted under its reason, and docs/STORAGE.md gives the reason; any other silence fails.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "tables are for whoever reads the test's output")]

mod files;
mod history;
mod outcome;
mod records;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// Asks for everything instead of a sample.
const WHOLE: &str = "--whole";

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().collect();
    if words.get(1).map(String::as_str) == Some(files::LOOK) {
        return files::child(&words[2..]);
    }
    let whole = words.iter().any(|word| word == WHOLE);
    words.retain(|word| word != WHOLE);
    let arguments = Arguments::from_iter(words);
    let trial = |name: &str, test: fn(bool)| {
        Trial::test(name, move || {
            test(whole);
            Ok(())
        })
    };
    let trials = vec![
        trial(
            "records::the_history_has_every_kind_of_row_and_record",
            records::the_history_has_every_kind_of_row_and_record,
        ),
        trial("records::a_changed_byte_is_noticed", records::a_changed_byte_is_noticed),
        trial("records::a_missing_record_is_noticed", records::a_missing_record_is_noticed),
        trial("records::two_exchanged_records_are_noticed", records::two_exchanged_records_are_noticed),
        trial("records::an_older_record_is_noticed", records::an_older_record_is_noticed),
        trial("files::damaged_files_are_noticed", files::damaged_files_are_noticed),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}
