//! Prints what runs print, on a thread of its own, so that a slow reader of our output stops nothing but the runs.
//!
//! While stdout takes nothing, the queue fills, the runs' pipes fill, the runs wait; leases, timeouts and signals go on.
//! A reader that went away (`| head`) is told to the worker, which then stops taking runs.

use std::thread::JoinHandle;

use tokio::sync::{mpsc, watch};

use crate::cli::output;

/// Pieces of output that wait to be printed.
const QUEUE_MAX: usize = 64;

/// Takes whole lines from any task.
#[derive(Clone, Debug)]
pub(super) struct Printer {
    queue: mpsc::Sender<(bool, Vec<u8>)>,
}

/// The thread behind a [`Printer`].
#[derive(Debug)]
pub(super) struct PrinterThread {
    thread: JoinHandle<()>,
    /// Becomes true when stdout has no reader any more.
    pub(super) unread: watch::Receiver<bool>,
}

/// Starts the thread.
pub(super) fn start() -> (Printer, PrinterThread) {
    let (queue, mut lines) = mpsc::channel::<(bool, Vec<u8>)>(QUEUE_MAX);
    let (broken, unread) = watch::channel(false);
    let thread = std::thread::spawn(move || {
        while let Some((to_stderr, bytes)) = lines.blocking_recv() {
            if output::raw(to_stderr, &bytes).is_err() && !to_stderr {
                broken.send_replace(true);
            }
        }
    });
    (Printer { queue }, PrinterThread { thread, unread })
}

impl Printer {
    /// Queues whole lines; waits while the queue is full.
    pub(super) async fn print(&self, to_stderr: bool, lines: Vec<u8>) {
        if !lines.is_empty() {
            // The thread ends only after the last sender.
            let _ = self.queue.send((to_stderr, lines)).await;
        }
    }
}

impl PrinterThread {
    /// Waits until everything is printed. All [`Printer`]s must be gone.
    pub(super) fn finish(self) {
        let _ = self.thread.join();
    }
}
