//! The only place of the program that prints: data to stdout, everything else to stderr.
//!
//! Texts that came from elsewhere (a server's explanation, a task's last error) go through [`printable`] first, so that
//! nobody can send escape sequences to a terminal. What is written to stdout reports a broken pipe to its caller, which
//! ends quietly ([`super::exit`]); a broken stderr is ignored, since there is nobody left to tell.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();

static QUIET: AtomicBool = AtomicBool::new(false);

/// When to use colors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Sets up colors and silence for the whole process, once, before anything is printed.
pub fn configure(color: Color, quiet: bool) {
    let choice = match color {
        Color::Auto => anstream::ColorChoice::Auto,
        Color::Always => anstream::ColorChoice::Always,
        Color::Never => anstream::ColorChoice::Never,
    };
    choice.write_global();
    QUIET.store(quiet, Ordering::Relaxed);
}

/// One line of data.
///
/// # Errors
/// Stdout does not take it.
pub fn data(line: impl fmt::Display) -> io::Result<()> {
    let mut stdout = anstream::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// Stdout for data of any length: buffered; the caller flushes at the end.
pub fn data_writer() -> impl Write {
    BufWriter::with_capacity(64 * 1024, anstream::stdout())
}

/// Bytes as they are, for a command's own output: to stdout, or else to stderr. `bytes` should end a line.
///
/// # Errors
/// The stream does not take them.
pub fn raw(to_stderr: bool, bytes: &[u8]) -> io::Result<()> {
    if to_stderr {
        io::stderr().lock().write_all(bytes)
    } else {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }
}

/// Replaces the whole screen by `text`, if stdout is a terminal; else prints it.
///
/// # Errors
/// Stdout does not take it.
pub fn redraw(text: &str) -> io::Result<()> {
    let mut stdout = anstream::stdout().lock();
    if stdout_is_terminal() {
        // Home, the text with every line cleared to its end, then everything below cleared.
        let text = text.replace('\n', "\x1b[K\n");
        write!(io::stdout().lock(), "\x1b[H{text}\x1b[J")?;
    } else {
        write!(stdout, "{text}")?;
    }
    stdout.flush()
}

/// Whether whoever read stdout has gone away, as far as one can know without writing.
pub fn stdout_is_deserted() -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdout = io::stdout();
    let mut asked = [PollFd::new(&stdout, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut asked, Some(&at_once)).is_ok() && asked[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// Whether stdout is a terminal.
pub fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether stderr is a terminal.
pub fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Puts `line` in the place of the current line of a terminal's stderr; empty clears it.
pub fn moving_line(line: &str) {
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "\r{line}\x1b[K");
    let _ = stderr.flush();
}

/// Whether `-q` was given.
pub fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Something good to know. Silent with `-q`.
pub fn note(text: impl fmt::Display) {
    if !is_quiet() {
        let _ = writeln!(anstream::stderr().lock(), "{text}");
    }
}

/// Something that may go wrong later. Printed with `-q` too.
pub fn warning(text: impl fmt::Display) {
    let _ = writeln!(anstream::stderr().lock(), "{WARNING}warning:{WARNING:#} {text}");
}

/// What went wrong, and what to do about it.
pub fn error(text: impl fmt::Display, hint: Option<&str>) {
    let mut stderr = anstream::stderr().lock();
    let _ = writeln!(stderr, "{ERROR}error:{ERROR:#} {text}");
    if let Some(hint) = hint {
        let _ = writeln!(stderr, "{HINT}hint:{HINT:#} {hint}");
    }
}

/// `text` with every control character replaced, so that it can be shown on a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

/// `number` in groups of three digits: `10,000`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 run`, `2 runs`, `10,000 runs`.
pub fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (10_000, "10,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(counted(1, "run"), "1 run");
        assert_eq!(counted(0, "run"), "0 runs");
    }

    #[test]
    fn escape_sequences_do_not_reach_a_terminal() {
        assert_eq!(printable("a\x1b[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
    }
}
