//! Runs the targets of `tests/fuzz` under libFuzzer. Which one, the environment says: `TENFOLD_TARGET=client_message`.
//!
//! One program for all of them, since building one takes longer than anything else. How to run it: `fuzz/README.md`.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::{Corpus, fuzz_target};

#[path = "../../tests/fuzz/memory.rs"]
mod memory;
#[path = "../../tests/fuzz/targets/mod.rs"]
mod targets;

/// LibFuzzer itself names the input that failed.
mod running {
    pub(crate) fn accuse(what: std::fmt::Arguments<'_>) {
        eprintln!("{what}");
    }
}

static TARGET: OnceLock<targets::Target> = OnceLock::new();

fn target() -> targets::Target {
    let names = || targets::all().map(|target| target.name).collect::<Vec<_>>().join(" ");
    *TARGET.get_or_init(|| {
        let name = std::env::var("TENFOLD_TARGET").unwrap_or_default();
        let found = targets::all().find(|target| target.name == name);
        found.unwrap_or_else(|| panic!("set TENFOLD_TARGET to one of: {}", names()))
    })
}

fuzz_target!(|input: &[u8]| -> Corpus {
    let target = target();
    if input.len() > target.input_bytes_max {
        return Corpus::Reject;
    }
    (target.run)(input);
    Corpus::Keep
});
