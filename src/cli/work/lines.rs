//! Cuts what a run prints into whole lines, and remembers the last one.
//!
//! Pure. Lines of several runs at a time must not mix, so each leaves in one piece, with its prefix. A line longer than
//! [`LINE_BYTES_MAX`] leaves in pieces of that size, each a line, so that memory stays bounded. Bytes are passed on as
//! they are, valid UTF-8 or not. Tested in this file.

use crate::limits;

/// Longest line that leaves in one piece, in bytes.
pub(in crate::cli) const LINE_BYTES_MAX: usize = 64 * 1_024;

/// Collects bytes until they make a line.
#[derive(Debug, Default)]
pub(in crate::cli) struct LineCutter {
    prefix: Vec<u8>,
    rest: Vec<u8>,
}

impl LineCutter {
    /// A cutter that puts `prefix` in front of every line.
    pub(in crate::cli) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.as_bytes().to_vec(), rest: Vec::new() }
    }

    /// Takes bytes; returns the lines they complete, prefixes and line ends included, or nothing.
    pub(in crate::cli) fn push(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut lines = Vec::new();
        while !bytes.is_empty() {
            let room = LINE_BYTES_MAX - self.rest.len();
            match bytes.iter().take(room).position(|byte| *byte == b'\n') {
                Some(end) => {
                    self.rest.extend_from_slice(&bytes[..end]);
                    bytes = &bytes[end + 1..];
                    self.take_line(&mut lines);
                }
                None if bytes.len() >= room => {
                    self.rest.extend_from_slice(&bytes[..room]);
                    bytes = &bytes[room..];
                    self.take_line(&mut lines);
                }
                None => {
                    self.rest.extend_from_slice(bytes);
                    bytes = &[];
                }
            }
        }
        lines
    }

    /// What is left when the stream ends, as a line; nothing if nothing is left.
    pub(in crate::cli) fn finish(&mut self) -> Vec<u8> {
        let mut lines = Vec::new();
        if !self.rest.is_empty() {
            self.take_line(&mut lines);
        }
        lines
    }

    fn take_line(&mut self, lines: &mut Vec<u8>) {
        lines.extend_from_slice(&self.prefix);
        lines.append(&mut self.rest);
        lines.push(b'\n');
    }
}

/// Remembers the last line of a stream that is not blank.
#[derive(Debug, Default)]
pub(in crate::cli) struct LastLine {
    last: Vec<u8>,
    current: Vec<u8>,
}

impl LastLine {
    /// Takes bytes.
    pub(in crate::cli) fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            // `\r` ends a line too: progress bars draw over themselves.
            if matches!(byte, b'\n' | b'\r') {
                self.end_line();
            } else if self.current.len() < limits::ERROR_BYTES_MAX {
                self.current.push(*byte);
            }
        }
    }

    /// The line as a text of at most [`limits::ERROR_BYTES_MAX`] bytes; `None` if there was none.
    pub(in crate::cli) fn finish(mut self) -> Option<String> {
        self.end_line();
        let text = String::from_utf8_lossy(&self.last);
        let text = super::shorten(text.trim(), limits::ERROR_BYTES_MAX);
        if text.is_empty() { None } else { Some(text.to_owned()) }
    }

    fn end_line(&mut self) {
        if self.current.iter().any(|byte| !byte.is_ascii_whitespace()) {
            std::mem::swap(&mut self.last, &mut self.current);
        }
        self.current.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_leave_whole_however_the_bytes_arrive() {
        for size in 1..12 {
            let mut cutter = LineCutter::new("[a 1] ");
            let mut out = Vec::new();
            for piece in b"one\n\ntwo\xff\nthree".chunks(size) {
                out.extend(cutter.push(piece));
                assert!(out.is_empty() || out.ends_with(b"\n"), "half a line left");
            }
            out.extend(cutter.finish());
            assert_eq!(out, b"[a 1] one\n[a 1] \n[a 1] two\xff\n[a 1] three\n");
            assert!(cutter.finish().is_empty());
        }
    }

    #[test]
    fn an_endless_line_leaves_in_pieces() {
        let mut cutter = LineCutter::new("");
        let out = cutter.push(&vec![b'x'; LINE_BYTES_MAX * 2 + 1]);
        assert_eq!(out.len(), LINE_BYTES_MAX * 2 + 2);
        assert_eq!(cutter.finish(), b"x\n");
        // A line of exactly the maximum is one line, not one and an empty one.
        let mut cutter = LineCutter::new("");
        let mut line = vec![b'x'; LINE_BYTES_MAX - 1];
        line.push(b'\n');
        assert_eq!(cutter.push(&line), line);
    }

    #[test]
    fn the_last_line_with_something_on_it_is_kept() {
        let last = |text: &[u8]| {
            let mut last = LastLine::default();
            text.chunks(3).for_each(|piece| last.push(piece));
            last.finish()
        };
        assert_eq!(last(b""), None);
        assert_eq!(last(b" \n\n"), None);
        assert_eq!(last(b"first\nError: no space\n\n  \n"), Some("Error: no space".to_owned()));
        assert_eq!(last(b"without an end"), Some("without an end".to_owned()));
        assert_eq!(last(b"10%\r20%\rfailed"), Some("failed".to_owned()));
        let long = "ä".repeat(300);
        let kept = last(long.as_bytes()).unwrap();
        assert!(kept.len() <= limits::ERROR_BYTES_MAX && long.starts_with(&kept), "{kept}");
        assert!(last(b"\xff\xfe").unwrap().contains('\u{fffd}'));
    }
}
