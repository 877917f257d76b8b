//! How far the demo is: one line that moves on a terminal, a plain line every tenth of the way otherwise.
//!
//! All of it is for people and goes to stderr. Tested in this file: the text of the line, and which lines are said.

use crate::cli::output;

/// Characters of the bar.
const BAR: u64 = 30;

/// Says how far the demo is.
#[derive(Debug)]
pub(super) struct Progress {
    total: u64,
    moving: bool,
    /// Without a terminal: the next tenth to be said.
    next_tenth: u64,
}

impl Progress {
    /// For `total` runs, at least 1.
    pub(super) fn new(total: u64) -> Self {
        Self { total, moving: output::stderr_is_terminal() && !output::is_quiet(), next_tenth: 1 }
    }

    /// `done` runs are done.
    pub(super) fn show(&mut self, done: u64) {
        if self.moving {
            output::moving_line(&line(done, self.total));
        } else if let Some(text) = self.plain(done) {
            output::note(text);
        }
    }

    /// Says something that happened, on lines of its own.
    pub(super) fn say(&self, text: &str) {
        if self.moving {
            output::moving_line("");
        }
        output::note(text);
    }

    /// The plain line for the latest tenth that has been reached and not been said.
    fn plain(&mut self, done: u64) -> Option<String> {
        let tenth = done * 10 / self.total;
        if tenth < self.next_tenth {
            return None;
        }
        self.next_tenth = tenth + 1;
        Some(line(done, self.total))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.moving {
            output::moving_line("");
        }
    }
}

/// `███████▌░░░  42 %  4,213 of 10,000 runs`.
fn line(done: u64, total: u64) -> String {
    let done = done.min(total);
    let filled = done * BAR / total;
    let bar: String = (0..BAR).map(|cell| if cell < filled { '█' } else { '░' }).collect();
    format!("{bar} {:3} %  {} of {}", done * 100 / total, output::grouped(done), output::counted(total, "run"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_how_far_it_is() {
        assert_eq!(line(0, 10_000), "░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░   0 %  0 of 10,000 runs");
        assert_eq!(line(5_040, 10_000), "███████████████░░░░░░░░░░░░░░░  50 %  5,040 of 10,000 runs");
        assert_eq!(line(10_001, 10_000), "██████████████████████████████ 100 %  10,000 of 10,000 runs");
    }

    #[test]
    fn without_a_terminal_every_tenth_is_said_once() {
        let mut progress = Progress { total: 200, moving: false, next_tenth: 1 };
        let said: Vec<u64> = (0..=200).step_by(7).chain([200]).filter(|done| progress.plain(*done).is_some()).collect();
        assert_eq!(said, [21, 42, 63, 84, 105, 126, 140, 161, 182, 200]);
        assert!(progress.plain(200).is_none());
        let mut progress = Progress { total: 200, moving: false, next_tenth: 1 };
        let said: Vec<u64> =
            [0, 130, 131, 139, 140].into_iter().filter(|done| progress.plain(*done).is_some()).collect();
        assert_eq!(said, [130, 140], "tenths that were jumped over are not said later");
    }
}
