//! Decides that a commit hangs: a thread that ends the process when one commit takes absurdly long.
//!
//! A disk that returns neither success nor failure would keep every client waiting for ever, and nobody would restart
//! the server. The watchdog counts its own looks instead of reading a clock, so a process that was stopped as a whole is
//! not taken for one whose disk hangs. Tested in this file.

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
}

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Watchdog {
    alive: Arc<()>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Watches `gauge`; calls `fatal` once if one commit is seen running for longer than about `longest`.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(crate) fn start(gauge: CommitGauge, longest: Duration, fatal: Fatal) -> std::io::Result<Self> {
        let alive = Arc::new(());
        let owner = Arc::downgrade(&alive);
        let thread = thread::Builder::new().name("tenfold-watchdog".into()).spawn(move || {
            let mut looks = Looks::default();
            while owner.strong_count() > 0 {
                if looks.hangs(gauge.0.load(Ordering::Relaxed)) {
                    fatal.call(&format!("a commit has taken longer than {longest:?}: the disk hangs"));
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

/// How often the same running commit has been seen.
#[derive(Debug, Default)]
struct Looks {
    commit: u64,
    seen: u32,
}

impl Looks {
    /// Whether `commit`, as read from the gauge, has been running for more than [`LOOKS`] looks.
    fn hangs(&mut self, commit: u64) -> bool {
        if commit.is_multiple_of(2) || commit != self.commit {
            (self.commit, self.seen) = (commit, 0);
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
    fn a_hanging_commit_is_reported_and_the_thread_ends_with_its_owner() {
        let (sender, receiver) = mpsc::channel();
        let fatal = Fatal::new(move |reason| {
            let _ = sender.send(reason.to_owned());
        });
        let gauge = CommitGauge::default();
        let watchdog = Watchdog::start(gauge.clone(), Duration::from_millis(64), fatal.clone()).unwrap();
        gauge.begin();
        assert!(receiver.recv().unwrap().contains("the disk hangs"));
        drop(watchdog);
        // An idle gauge and an hour of patience: dropping must not wait for the next look.
        drop(Watchdog::start(CommitGauge::default(), Duration::from_hours(64), fatal).unwrap());
    }
}
