//! Counts how runs ended, and decides when a worker does more harm than good.
//!
//! Pure. A broken machine (a full disk, a missing library) would fail every run it is given and burn the error budgets of
//! a whole campaign, so [`FAILURES_IN_A_ROW_MAX`] failures without one success between them stop the worker. What fails
//! after that, while other runs are still ending, is given back instead of charged. Tested in this file.

/// Failures in a row, without one success, that stop a worker.
pub(super) const FAILURES_IN_A_ROW_MAX: u32 = 5;

/// How runs ended so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Done.
    pub(super) done: u64,
    /// Failed, and reported so.
    pub(super) failed: u64,
    /// Given back.
    pub(super) released: u64,
    /// Killed because their lease was lost.
    pub(super) lost: u64,
    in_a_row: u32,
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Report it.
    Report,
    /// Report it, and stop the worker.
    ReportAndStop,
    /// Give the run back: this machine is the suspect.
    GiveBack,
}

impl Tally {
    /// A run is done.
    pub(super) fn done(&mut self) {
        self.done += 1;
        if self.in_a_row < FAILURES_IN_A_ROW_MAX {
            self.in_a_row = 0;
        }
    }

    /// A run failed.
    pub(super) fn failure(&mut self) -> Verdict {
        if self.in_a_row >= FAILURES_IN_A_ROW_MAX {
            self.released += 1;
            return Verdict::GiveBack;
        }
        self.failed += 1;
        self.in_a_row += 1;
        if self.in_a_row == FAILURES_IN_A_ROW_MAX { Verdict::ReportAndStop } else { Verdict::Report }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_failures_stops_once_and_charges_no_more() {
        let mut tally = Tally::default();
        for _ in 0..FAILURES_IN_A_ROW_MAX - 1 {
            assert_eq!(tally.failure(), Verdict::Report);
        }
        tally.done();
        for _ in 0..FAILURES_IN_A_ROW_MAX - 1 {
            assert_eq!(tally.failure(), Verdict::Report);
        }
        assert_eq!(tally.failure(), Verdict::ReportAndStop);
        // A run that was under way ends well: it counts, but the decision stands.
        tally.done();
        assert_eq!(tally.failure(), Verdict::GiveBack);
        assert_eq!((tally.done, tally.failed, tally.released), (2, 9, 1));
    }
}
