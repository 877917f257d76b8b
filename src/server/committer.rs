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

use std::io;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;

use super::inbox::{Bell, Heard, Inbound, Messages};

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
    fn next(&mut self, inbox: Option<&mut Messages>) -> Meanwhile<W::Written>;
}

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Committer<W: Write> {
    orders: Sender<(W, Back<W::Written>)>,
    /// The commit that is on its way.
    away: Option<Receiver<W::Written>>,
    /// Rung when it is through.
    bell: Bell,
}

/// Where to send what came of a commit; however it ends, the pipeline is woken.
struct Back<T> {
    written: Option<Sender<T>>,
    bell: Bell,
}

impl<T> Back<T> {
    fn send(mut self, written: T) {
        if let Some(sender) = self.written.take() {
            // A pipeline that has ended does not want to know.
            let _ = sender.send(written);
        }
    }
}

impl<T> Drop for Back<T> {
    fn drop(&mut self) {
        // First the end of the sender, so that it is seen when the bell is heard.
        self.written = None;
        self.bell.ring();
    }
}

impl<W: Write<Written: Send> + Send + 'static> Committer<W> {
    /// Starts the thread. The bell is that of the inbox that will be looked into.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(crate) fn start(bell: Bell) -> io::Result<Self> {
        let (orders, receiver) = channel::<(W, Back<W::Written>)>();
        thread::Builder::new().name("tenfold-commit".into()).spawn(move || {
            for (writing, back) in receiver {
                back.send(writing.write());
            }
        })?;
        Ok(Self { orders, away: None, bell })
    }
}

impl<W: Write> Commit<W> for Committer<W> {
    fn begin(&mut self, writing: W) {
        let (written, away) = channel();
        // Without the thread the other end of `away` is dropped here, which says so.
        let _ = self.orders.send((writing, Back { written: Some(written), bell: self.bell.clone() }));
        self.away = Some(away);
    }

    fn next(&mut self, mut inbox: Option<&mut Messages>) -> Meanwhile<W::Written> {
        let Some(away) = &self.away else { return Meanwhile::Lost };
        let written = loop {
            match away.try_recv() {
                Ok(written) => break Some(written),
                Err(TryRecvError::Disconnected) => break None,
                Err(TryRecvError::Empty) => {}
            }
            match inbox.as_mut().map(|inbox| inbox.next(None)) {
                Some(Heard::Said(inbound)) => return Meanwhile::Said(inbound),
                Some(Heard::Rung | Heard::Nothing) => {}
                // Everybody may be gone; the commit still has to end.
                None | Some(Heard::Over) => break away.recv().ok(),
            }
        };
        self.away = None;
        written.map_or(Meanwhile::Lost, Meanwhile::Written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::inbox::inbox;

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
        let (inbox, mut messages) = inbox(2);
        let mut committer = Committer::start(messages.bell()).unwrap();
        let (disk, slow) = channel();
        committer.begin(Slow(slow));
        inbox.drain().unwrap();
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
        let (_inbox, messages) = inbox(2);
        let mut committer = Committer::start(messages.bell()).unwrap();
        for _ in 0..2 {
            let (disk, slow) = channel();
            drop(disk);
            committer.begin(Slow(slow));
            assert!(matches!(committer.next(None), Meanwhile::Lost));
        }
    }
}
