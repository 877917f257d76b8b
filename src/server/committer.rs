//! A thread that writes a large commit while the pipeline decides on what comes meanwhile.
//!
//! ```text
//!   pipeline ──begin(writing)──▶ committer ──write, sync──▶ written ──▶ pipeline
//!            ◀──next: a message, or what came of the commit──
//! ```
//!
//! What is written is handed over together with the store, so there is one writer at any time ([`crate::store::Writing`]).
//! **Invariants.** One commit is on its way at a time; it comes back, or is known to be lost. Deliberately absent: decisions, and answers,
//! which the pipeline lets out. Tested in this file, and through the pipeline.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::mpsc::{Sender, channel};
use std::task::Poll;
use std::thread;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};

use super::inbox::Inbound;

/// A commit that is ready to be written, by whatever thread.
pub(crate) trait Write {
    /// What came of it.
    type Written;

    /// Durable when it returns, unless what it returns says otherwise.
    fn write(self) -> Self::Written;
}

/// What happens next while a commit is written.
#[derive(Debug)]
pub(crate) enum Meanwhile<W> {
    /// A message came.
    Said(Inbound),
    /// The commit is through.
    Written(W),
    /// It does not come back: whoever wrote it is gone.
    Lost,
}

/// Somebody who writes while the pipeline does something else.
pub(crate) trait Commit<W: Write> {
    /// Begins to write. There is no other commit on its way.
    fn begin(&mut self, writing: W);

    /// Waits for the end of the commit, or for a message if there is an inbox to look into.
    fn next(&mut self, inbox: Option<&mut mpsc::Receiver<Inbound>>) -> Meanwhile<W::Written>;
}

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Committer<W: Write> {
    orders: Sender<Order<W>>,
    /// The commit that is on its way.
    away: Option<oneshot::Receiver<W::Written>>,
    /// To wait with; nothing ever runs on it.
    runtime: Runtime,
}

/// What to write, and where to send what came of it.
type Order<W> = (W, oneshot::Sender<<W as Write>::Written>);

impl<W: Write<Written: Send> + Send + 'static> Committer<W> {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(crate) fn start() -> io::Result<Self> {
        let (orders, receiver) = channel::<Order<W>>();
        let runtime = Builder::new_current_thread().build()?;
        thread::Builder::new().name("tenfold-commit".into()).spawn(move || {
            for (writing, back) in receiver {
                // A pipeline that has ended does not want to know.
                let _ = back.send(writing.write());
            }
        })?;
        Ok(Self { orders, away: None, runtime })
    }
}

impl<W: Write> Commit<W> for Committer<W> {
    fn begin(&mut self, writing: W) {
        let (back, away) = oneshot::channel();
        // Without the thread the other end of `away` is dropped here, which says so.
        let _ = self.orders.send((writing, back));
        self.away = Some(away);
    }

    fn next(&mut self, mut inbox: Option<&mut mpsc::Receiver<Inbound>>) -> Meanwhile<W::Written> {
        let Some(away) = &mut self.away else { return Meanwhile::Lost };
        let next = self.runtime.block_on(poll_fn(|context| {
            if let Poll::Ready(written) = Pin::new(&mut *away).poll(context) {
                return Poll::Ready(written.map_or(Meanwhile::Lost, Meanwhile::Written));
            }
            match inbox.as_mut().map(|inbox| inbox.poll_recv(context)) {
                Some(Poll::Ready(Some(inbound))) => Poll::Ready(Meanwhile::Said(inbound)),
                // Everybody may be gone; the commit still has to end.
                None | Some(Poll::Pending | Poll::Ready(None)) => Poll::Pending,
            }
        }));
        if !matches!(next, Meanwhile::Said(_)) {
            self.away = None;
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that writes when it is told to.
    struct Slow(std::sync::mpsc::Receiver<u32>);

    impl Write for Slow {
        type Written = u32;

        fn write(self) -> u32 {
            self.0.recv().expect("the test lets it write, or goes")
        }
    }

    #[test]
    fn a_message_is_heard_while_a_commit_is_written() {
        let mut committer = Committer::start().unwrap();
        let (inbox, mut messages) = mpsc::channel(2);
        let (disk, slow) = channel();
        committer.begin(Slow(slow));
        inbox.try_send(Inbound::Drain).unwrap();
        assert!(matches!(committer.next(Some(&mut messages)), Meanwhile::Said(Inbound::Drain)));
        // Nobody is left who could say something.
        drop(inbox);
        disk.send(7).unwrap();
        assert!(matches!(committer.next(Some(&mut messages)), Meanwhile::Written(7)));
        // And again, without looking for messages.
        let (disk, slow) = channel();
        committer.begin(Slow(slow));
        disk.send(8).unwrap();
        assert!(matches!(committer.next(None), Meanwhile::Written(8)));
    }

    #[test]
    fn a_writer_that_panics_is_missed() {
        let mut committer = Committer::start().unwrap();
        for _ in 0..2 {
            let (disk, slow) = channel();
            drop(disk);
            committer.begin(Slow(slow));
            assert!(matches!(committer.next(None), Meanwhile::Lost));
        }
    }
}
