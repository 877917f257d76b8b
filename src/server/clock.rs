//! The only reader of time: maps the operating system's monotonic clock to the coordinator's ticks.
//!
//! ```text
//!   monotonic clock ──▶ Steps::look (pure) ──▶ Look { now, stalled } ──▶ pipeline
//! ```
//!
//! Between two looks a tick advances by at most [`CLOCK_STEP_MS_MAX`]. The pipeline looks every
//! [`CLOCK_LOOK_MS`](crate::limits::CLOCK_LOOK_MS), so a longer gap means that this process did not run: it was stopped,
//! its machine slept, or its disk stood still. Nobody could renew a lease meanwhile, so deadlines move by the gap.
//! **Invariant**: ticks never go back, and no decision ever sees the wall clock. Tested in this file.

use std::time::Instant;

use crate::limits::CLOCK_STEP_MS_MAX;
use crate::types::Tick;

/// What one look at the clock saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// The present tick.
    pub(crate) now: Tick,
    /// Whether more time went by since the last look than a running process lets go by.
    pub(crate) stalled: bool,
}

/// Something that can be looked at for the time; tests hand in their own.
pub(crate) trait Time {
    /// The present. If more time went by than a running process lets go by, this is the one look that is told.
    fn look(&mut self) -> Look;

    /// The present without a look: what a look would say, which is yet to come.
    fn glance(&self) -> Tick;
}

/// The process's clock. It starts at tick zero when it is made.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    steps: Steps,
}

impl Clock {
    /// A clock that starts now.
    #[allow(clippy::disallowed_methods)] // This is the one place.
    pub(crate) fn start() -> Self {
        Self { start: Instant::now(), steps: Steps::default() }
    }

    fn elapsed_ms(&self) -> u64 {
        // More milliseconds than fit 64 bits are half a billion years.
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Time for Clock {
    fn look(&mut self) -> Look {
        self.steps.look(self.elapsed_ms())
    }

    fn glance(&self) -> Tick {
        self.steps.glance(self.elapsed_ms())
    }
}

/// The mapping, with the times handed in.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    tick: u64,
    seen_ms: u64,
}

impl Steps {
    /// `elapsed_ms` is the time since the start as the operating system has it.
    pub(crate) fn look(&mut self, elapsed_ms: u64) -> Look {
        let gap = elapsed_ms.saturating_sub(self.seen_ms);
        self.tick = self.glance(elapsed_ms).0;
        self.seen_ms = self.seen_ms.max(elapsed_ms);
        Look { now: Tick(self.tick), stalled: gap > CLOCK_STEP_MS_MAX }
    }

    /// The same without noticing it.
    pub(crate) fn glance(&self, elapsed_ms: u64) -> Tick {
        let gap = elapsed_ms.saturating_sub(self.seen_ms);
        Tick(self.tick.saturating_add(gap.min(CLOCK_STEP_MS_MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(times: &[u64]) -> Vec<(u64, bool)> {
        let mut steps = Steps::default();
        times.iter().map(|&time| steps.look(time)).map(|look| (look.now.0, look.stalled)).collect()
    }

    #[test]
    fn time_that_flows_is_taken_as_it_is() {
        assert_eq!(
            looks(&[0, 250, 499, 499, 1_499]),
            [(0, false), (250, false), (499, false), (499, false), (1_499, false)]
        );
    }

    #[test]
    fn a_stall_advances_by_one_step_only() {
        // Stopped for an hour after 100 ms; afterwards time flows on from where it was.
        assert_eq!(looks(&[100, 3_600_100, 3_600_350]), [(100, false), (1_100, true), (1_350, false)]);
    }

    #[test]
    fn time_never_goes_back() {
        assert_eq!(looks(&[500, 400, 500, 501]), [(500, false), (500, false), (500, false), (501, false)]);
    }

    #[test]
    fn a_glance_sees_what_the_next_look_will_and_hides_nothing_from_it() {
        let mut steps = Steps::default();
        steps.look(100);
        for (time, tick) in [(100, 100), (50, 100), (350, 350), (1_100, 1_100), (1_101, 1_100), (9_000, 1_100)] {
            assert_eq!(steps.glance(time), Tick(tick));
        }
        assert_eq!(steps.look(9_000), Look { now: Tick(1_100), stalled: true });
        assert_eq!(steps.glance(9_001), Tick(1_101));
    }

    #[test]
    fn many_stalls_in_a_row_still_advance() {
        assert_eq!(looks(&[5_000, 10_000, 15_000]), [(1_000, true), (2_000, true), (3_000, true)]);
    }
}
