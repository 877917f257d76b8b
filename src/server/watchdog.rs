//! Decides that the disk hangs: a thread that ends the process when one commit takes absurdly long, or when the opening of the
//! data directory does not get on.
//!
//! A disk that returns neither success nor failure would keep every client waiting for ever, and nobody would restart
//! the server. The watchdog counts its own looks instead of reading a clock, so a process that was stopped as a whole is
//! not taken for one whose disk hangs. Tested in this file, and with a disk that fails in `tests/power/faults.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::fatal::Fatal;

/// How often the watchdog looks while a commit may run.
const LOOKS: u32 = 64;

/// Where the pipeline says that a commit begins and ends: odd while one runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct CommitGauge(Arc<AtomicU64>);

impl CommitGauge {
    pub(crate) fn begin(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Watchdog {
    alive: Arc<()>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Watches commits; calls `fatal` once if one is seen running for longer than about `longest`.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(crate) fn over_commits(gauge: CommitGauge, longest: Duration, fatal: Fatal) -> std::io::Result<Self> {
        Self::start(move || gauge.read(), format!("a commit has taken longer than {longest:?}"), longest, fatal)
    }

    /// Watches something that runs until this is dropped, and whose number of `steps` rises as it gets on; calls `fatal` once
    /// if that stays the same for longer than about `longest`. `what` begins the reason.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(crate) fn over_steps(steps: fn() -> u64, what: &str, longest: Duration, fatal: Fatal) -> std::io::Result<Self> {
        // Odd: it runs.
        let state = move || steps().wrapping_mul(2) | 1;
        Self::start(state, format!("{what} has not got on for {longest:?}"), longest, fatal)
    }

    fn start(
        state: impl Fn() -> u64 + Send + 'static,
        what: String,
        longest: Duration,
        fatal: Fatal,
    ) -> std::io::Result<Self> {
        let alive = Arc::new(());
        let owner = Arc::downgrade(&alive);
        let thread = thread::Builder::new().name("tenfold-watchdog".into()).spawn(move || {
            let mut looks = Looks::default();
            while owner.strong_count() > 0 {
                if looks.hangs(state()) {
                    fatal.call(&format!("{what}: the disk hangs"));
                    return;
                }
                thread::park_timeout(longest / LOOKS);
            }
        })?;
        Ok(Self { alive, thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.alive = Arc::new(());
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // Its panic, if any, was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// How often the same state has been seen, odd while something runs.
#[derive(Debug, Default)]
struct Looks {
    state: u64,
    seen: u32,
}

impl Looks {
    /// Whether the same thing has been running for more than [`LOOKS`] looks.
    fn hangs(&mut self, state: u64) -> bool {
        if state.is_multiple_of(2) || state != self.state {
            (self.state, self.seen) = (state, 0);
            return false;
        }
        self.seen += 1;
        self.seen > LOOKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn only_one_and_the_same_running_commit_hangs() {
        let mut looks = Looks::default();
        assert!((0..1_000).all(|_| !looks.hangs(0)), "no commit runs");
        assert!((0..1_000).all(|number| !looks.hangs(number * 2 + 1)), "each commit is seen once");
        assert!((0..=LOOKS).all(|_| !looks.hangs(3_001)), "not yet");
        assert!(looks.hangs(3_001));
        assert!(!looks.hangs(3_002), "it ended after all");
    }

    #[test]
    fn an_opening_hangs_when_it_takes_no_more_steps() {
        static STEPS: AtomicU64 = AtomicU64::new(0);
        let (sender, receiver) = mpsc::channel();
        let fatal = Fatal::new(move |reason| {
            let _ = sender.send(reason.to_owned());
        });
        let steps = || STEPS.load(Ordering::Relaxed);
        let watchdog = Watchdog::over_steps(steps, "the opening", Duration::from_millis(64), fatal).unwrap();
        assert_eq!(receiver.recv().unwrap(), "the opening has not got on for 64ms: the disk hangs");
        drop(watchdog);
        let mut looks = Looks::default();
        let state = |steps: u64| steps.wrapping_mul(2) | 1;
        assert!((0..1_000).all(|steps| !looks.hangs(state(steps))), "it gets on");
        assert!((1..LOOKS).all(|_| !looks.hangs(state(999))) && !looks.hangs(state(999)), "not yet");
        assert!(looks.hangs(state(999)));
    }

    #[test]
    fn a_hanging_commit_is_reported_and_the_thread_ends_with_its_owner() {
        let (sender, receiver) = mpsc::channel();
        let fatal = Fatal::new(move |reason| {
            let _ = sender.send(reason.to_owned());
        });
        let gauge = CommitGauge::default();
        let watchdog = Watchdog::over_commits(gauge.clone(), Duration::from_millis(64), fatal.clone()).unwrap();
        gauge.begin();
        assert!(receiver.recv().unwrap().contains("the disk hangs"));
        drop(watchdog);
        // An idle gauge and an hour of patience: dropping must not wait for the next look.
        drop(Watchdog::over_commits(CommitGauge::default(), Duration::from_hours(64), fatal).unwrap());
    }
}
