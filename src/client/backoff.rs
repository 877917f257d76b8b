//! How long to wait before trying again: exponential with full jitter and a cap.
//!
//! The n-th wait is a random time between nothing and `first * 2^n`, at most `cap`. "Full" jitter spreads a fleet that
//! lost its server evenly, where a fixed or half-random wait would bring it back in waves (Marc Brooker, "Exponential
//! Backoff And Jitter", AWS Architecture Blog, 2015). Chance is an argument, so this is pure; tested here.

use std::time::Duration;

use super::FAR;

/// A series of waits.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    cap: Duration,
    /// Upper end of the next wait.
    ceiling: Duration,
}

impl Backoff {
    /// The first wait is up to `first`, no wait is above `cap`.
    pub(crate) fn new(first: Duration, cap: Duration) -> Self {
        let cap = cap.min(FAR);
        let first = first.min(cap);
        Self { first, cap, ceiling: first }
    }

    /// The next wait; `random` is uniform over all of `u64`.
    pub(crate) fn next_wait(&mut self, random: u64) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = ceiling.saturating_mul(2).min(self.cap);
        let nanoseconds = (ceiling.as_nanos() * u128::from(random)) >> 64;
        // At most `ceiling`, which is at most a year; 2^64 nanoseconds are 584.
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// It worked: start over.
    pub(crate) fn reset(&mut self) {
        self.ceiling = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_cap() {
        let mut backoff = Backoff::new(SECOND, SECOND * 10);
        for ceiling in [1, 2, 4, 8, 10, 10] {
            assert_eq!(backoff.next_wait(u64::MAX) + Duration::from_nanos(1), SECOND * ceiling);
        }
        backoff.reset();
        assert_eq!(backoff.next_wait(u64::MAX / 2 + 1), SECOND / 2);
    }

    #[test]
    fn a_wait_is_anywhere_from_nothing_to_its_ceiling() {
        let wait = |random| Backoff::new(SECOND, SECOND).next_wait(random);
        assert_eq!(wait(0), Duration::ZERO);
        assert_eq!(wait(1 << 62), SECOND / 4);
        assert_eq!(wait(3 << 62), SECOND * 3 / 4);
        assert!(wait(u64::MAX) <= SECOND);
    }

    #[test]
    fn absurd_settings_do_not_overflow() {
        let mut backoff = Backoff::new(Duration::MAX, Duration::MAX);
        assert!(backoff.next_wait(u64::MAX) > SECOND);
        assert!(backoff.next_wait(u64::MAX) > SECOND);
        assert_eq!(Backoff::new(SECOND, Duration::ZERO).next_wait(u64::MAX), Duration::ZERO);
    }
}
