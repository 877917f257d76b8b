//! What is being run right now, so that a failure of any kind can name its input: a panic, a hang, or memory that no
//! machine has.

use std::fmt::Arguments;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// An input that takes longer than this hangs; even the slowest takes a fraction of a second.
const INPUT_PATIENCE: Duration = Duration::from_mins(1);

/// Longer inputs are not shown, but kept in a file.
const SHOWN_BYTES_MAX: usize = 4 * 1_024;

static RUNNING: Mutex<Option<Running>> = Mutex::new(None);

struct Running {
    target: &'static str,
    input: Vec<u8>,
    /// Rises with every input, so that the watchdog sees that it is another one.
    number: u64,
}

fn running() -> MutexGuard<'static, Option<Running>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes what runs from now on.
pub(crate) fn note(target: &'static str, input: &[u8]) {
    let mut running = running();
    let number = running.as_ref().map_or(0, |before| before.number + 1);
    let mut bytes = running.take().map_or_else(Vec::new, |before| before.input);
    bytes.clear();
    bytes.extend_from_slice(input);
    *running = Some(Running { target, input: bytes, number });
}

/// Names the input that is being run, and the command that runs it again.
pub(crate) fn accuse(what: Arguments<'_>) {
    // It may be noted at this very moment, but then it does not run yet.
    let Ok(running) = RUNNING.try_lock() else { return };
    let Some(Running { target, input, .. }) = running.as_ref() else { return };
    eprintln!("\n{target}: {what}");
    if input.len() > SHOWN_BYTES_MAX {
        let file = concat!(env!("CARGO_TARGET_TMPDIR"), "/fuzz-input");
        let kept = std::fs::write(file, input).is_ok();
        eprintln!("the input has {} bytes (kept: {kept}); again:", input.len());
        eprintln!("TENFOLD_INPUT={file} cargo test --test fuzz input::{target}");
        return;
    }
    eprint!("again: TENFOLD_INPUT=");
    for byte in input {
        eprint!("{byte:02x}");
    }
    eprintln!(" cargo test --test fuzz input::{target}");
}

/// Ends the process when one input takes too long.
pub(crate) fn watch() {
    std::thread::spawn(|| {
        let mut last = None;
        loop {
            std::thread::sleep(INPUT_PATIENCE);
            let now = running().as_ref().map(|running| running.number);
            if now.is_some() && now == last {
                accuse(format_args!("no end after {INPUT_PATIENCE:?}"));
                std::process::exit(101);
            }
            last = now;
        }
    });
}
