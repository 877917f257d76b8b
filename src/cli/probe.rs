//! Hands arbitrary bytes to what the command line reads from files and pipes, for fuzz tests, which cannot reach it otherwise.
//!
//! **Invariants.** Panics if a promise is broken, and returns otherwise. Not part of the interface. The fuzz tests are
//! `tests/fuzz` and `fuzz/`.

use std::collections::HashSet;

use super::create::keys_of;
use super::demo::log::WorkerLog;
use super::values;
use super::work::lines::{LINE_BYTES_MAX, LastLine, LineCutter};
use crate::limits;

/// A file of lines that are to be the keys of tasks.
pub fn keys(bytes: &[u8]) {
    let Ok(keys) = keys_of(bytes.to_vec()) else { return };
    let once: HashSet<&String> = keys.iter().collect();
    assert_eq!(once.len(), keys.len(), "a key is there twice");
    assert!(
        keys.iter().all(|key| (1..=limits::KEY_BYTES_MAX).contains(&key.len()) && !key.contains(['\n', '\r', '\0']))
    );
    // A second byte order mark would be taken for the first.
    if !keys[0].starts_with('\u{feff}') {
        assert_eq!(keys_of(keys.join("\n").into_bytes()).as_ref(), Ok(&keys), "what was read, written and read again");
    }
}

/// What a run prints, in pieces that end where `ends` says.
pub fn output(bytes: &[u8], pieces: &[&[u8]]) {
    let cut = |pieces: &[&[u8]]| {
        let (mut cutter, mut last) = (LineCutter::new("> "), LastLine::default());
        let mut lines = Vec::new();
        for piece in pieces {
            lines.extend(cutter.push(piece));
            last.push(piece);
        }
        lines.extend(cutter.finish());
        (lines, last.finish())
    };
    let (lines, last) = cut(&[bytes]);
    assert_eq!(cut(pieces), (lines.clone(), last.clone()), "the pieces make no difference");
    assert!(lines.split(|byte| *byte == b'\n').all(|line| line.len() <= LINE_BYTES_MAX + 2));
    assert!(last.is_none_or(|text| text.len() <= limits::ERROR_BYTES_MAX));
}

/// The file of a worker of the demo.
pub fn log(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(log) = WorkerLog::parse(&text) {
        assert!(log.acked() + log.unanswered().count() <= log.reports.len());
        // A kill cuts off the last line at most.
        let end = text.rfind('\n').unwrap_or(0);
        assert_eq!(WorkerLog::parse(&text[..=end]).ok(), Some(log));
    }
}

/// Values as people write them.
pub fn values(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(tasks) = values::range(&text) {
        assert!(tasks.count() > 0, "{text:?} has no tasks");
        let again = format!("{}..{}", tasks.first(), tasks.first() + u64::from(tasks.count()));
        assert_eq!(values::range(&again), Ok(tasks));
    }
    if let Ok(duration) = values::duration(&text) {
        let _ = values::milliseconds(duration);
    }
    let _ = values::count_or_none(&text);
}
