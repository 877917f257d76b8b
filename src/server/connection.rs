//! What all dialects share: a socket with deadlines, and how reading and writing end together.
//!
//! ```text
//!   reading ──▶ registration dropped ──▶ pipeline drops the outbox ──▶ writing ends ──▶ last words
//! ```
//!
//! **Invariants**
//! - What a peer sent is handed over before its end is acted upon: a failed write alone ends nothing, reading goes on
//!   until the bytes that arrived are used up.
//! - What was put out for a peer before it ended is still written, as long as it takes it.
//! - Whoever is too slow to take anything loses the connection, and nothing waits for it.
//!
//! Tested in this file, and through `tests/server_*.rs`.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::timeout;

use super::outbox::Overflow;

/// Bytes read at a time.
const READ_BYTES: usize = 16 * 1_024;
/// After the last words: how long the peer may take to close its end.
const LINGER: Duration = Duration::from_secs(1);
/// After the last words: how many bytes of the peer are thrown away before it is not waited for any longer.
const LINGER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Why nothing more is read from a peer.
#[derive(Debug)]
pub(crate) enum Ending {
    /// It closed its end, or is gone.
    PeerClosed,
    /// Nothing was heard of it for too long.
    Silent,
    /// It broke the protocol; the text says how.
    Protocol(String),
    /// It had no session and said goodbye.
    Goodbye,
    /// The coordinator wanted its connection closed; it was told.
    Closed,
    /// Its message is long, slow to arrive, and one of too many such.
    Crowded,
    /// Its message is too slow to arrive.
    Trickled,
    /// It does not take what is written to it.
    SlowReader,
    /// The server shuts down.
    Shutdown,
    /// The pipeline has ended.
    PipelineEnded,
}

/// Why nothing more is written to a peer.
#[derive(Debug)]
pub(crate) enum Written {
    /// The pipeline closed the outbox, and all of it was written.
    All,
    /// The last output was a close, and it was written.
    Closed,
    /// The peer is gone; what it sent before may still be there to be read.
    Gone,
    /// The peer takes nothing.
    Stuck,
}

/// Reads and writes until both have ended.
///
/// `reading` owns the connection's registration, so its end makes the pipeline close the outbox, which ends `writing`. Both are pinned by
/// the caller: handed over, each would be in memory once more for every hand, as long as the connection lasts.
pub(crate) async fn converse(
    reading: Pin<&mut impl Future<Output = Ending>>,
    writing: Pin<&mut impl Future<Output = Written>>,
    overflow: &Overflow,
) -> Ending {
    let (mut reading, mut writing) = (Apart::new(reading), Apart::new(writing));
    let overflowed = pin!(overflow.happened());
    let mut overflowed = Apart::new(overflowed);
    let mut ending = None;
    loop {
        tokio::select! {
            biased;
            read = &mut reading, if ending.is_none() => ending = Some(read),
            () = &mut overflowed => return Ending::SlowReader,
            written = &mut writing => {
                return match (written, ending) {
                    (Written::All | Written::Gone, Some(ending)) => ending,
                    (Written::All, None) => Ending::PipelineEnded,
                    (Written::Closed, _) => Ending::Closed,
                    (Written::Gone, None) => (&mut reading).await,
                    (Written::Stuck, _) => Ending::SlowReader,
                };
            }
        }
    }
}

/// A future that is polled when it was woken itself, not whenever its neighbours in the same task are: of all that the two halves of a
/// connection wait for, a message concerns only one.
pub(crate) struct Apart<F> {
    future: F,
    /// Its own waker, and the task's that it is made of.
    waker: Option<(Arc<Woken>, Waker)>,
}

/// Whether a part of a task was woken.
struct Woken {
    woken: AtomicBool,
    task: Waker,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.task.wake_by_ref();
        }
    }
}

impl<F: Future + Unpin> Apart<F> {
    pub(crate) fn new(future: F) -> Self {
        Self { future, waker: None }
    }

    /// The future, to be started again: it is polled the next time without having been woken.
    pub(crate) fn again(&mut self) -> &mut F {
        self.waker = None;
        &mut self.future
    }
}

impl<F: Future + Unpin> Future for Apart<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self { future, waker } = self.get_mut();
        let known = waker.take().filter(|(woken, _)| woken.task.will_wake(context.waker()));
        let (woken, own) = waker.insert(known.unwrap_or_else(|| {
            // Whoever polls it first, or from another task, has not been told of anything yet.
            let woken = Arc::new(Woken { woken: AtomicBool::new(true), task: context.waker().clone() });
            (Arc::clone(&woken), Waker::from(woken))
        }));
        // As a rule it was not, and to look costs far less than to take. Whoever wakes it wakes the task afterwards, which happens before
        // this poll or makes for another one.
        if !woken.woken.load(Ordering::Relaxed) || !woken.woken.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        Pin::new(future).poll(&mut Context::from_waker(own))
    }
}

/// Waits until the server closes its connections.
pub(crate) async fn closing(phase: &mut watch::Receiver<bool>) {
    // A sender that is gone is a server that is gone.
    let _ = phase.wait_for(|closing| *closing).await;
}

/// Both halves of a connection, and what was read ahead.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) read: OwnedReadHalf,
    pub(crate) write: OwnedWriteHalf,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        let (read, write) = stream.into_split();
        Self { read, write }
    }

    /// Writes a last message and closes; the peer gets a moment to read it.
    pub(crate) async fn part(mut self, last_words: &[u8], limit: Duration) {
        if write_all(&mut self.write, last_words, limit).await.is_err() || self.write.shutdown().await.is_err() {
            return;
        }
        // Closing while bytes of the peer lie unread resets the connection, and the reset may overtake the last words.
        let discarding = async {
            let mut discarded = 0;
            while discarded < LINGER_BYTES_MAX {
                match read_some(&mut self.read, |_| ()).await {
                    Ok(0) | Err(_) => return,
                    Ok(bytes) => discarded += bytes,
                }
            }
        };
        let _ = timeout(LINGER, discarding).await;
    }
}

/// Reads what is there, at least one byte, and hands it to `take`; returns how many bytes, 0 at the end.
///
/// # Errors
/// The peer is gone. What it sent before was read by earlier calls.
pub(crate) async fn read_some(socket: &mut OwnedReadHalf, mut take: impl FnMut(&[u8])) -> io::Result<usize> {
    poll_fn(|context| {
        // On the stack, so that thousands of idle connections have no buffer, and not made zero for every message.
        let mut memory = [MaybeUninit::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut memory);
        ready!(Pin::new(&mut *socket).poll_read(context, &mut buffer))?;
        take(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    })
    .await
}

/// Writes all of `bytes`; the peer must take some of them within every `limit`.
///
/// # Errors
/// `TimedOut` if it does not; else it is gone.
pub(crate) async fn write_all(socket: &mut OwnedWriteHalf, mut bytes: &[u8], limit: Duration) -> io::Result<()> {
    while !bytes.is_empty() {
        // As a rule it takes them at once, and no timer is needed.
        let written = match socket.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                timeout(limit, socket.write(bytes)).await.map_err(|_| io::ErrorKind::TimedOut)??
            }
            written => written?,
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
    }
    Ok(())
}

/// What a failed [`write_all`] means for the connection.
pub(crate) fn write_failure(error: &io::Error) -> Written {
    if error.kind() == io::ErrorKind::TimedOut { Written::Stuck } else { Written::Gone }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;
    use crate::server::outbox::AllOutboxes;

    #[tokio::test]
    async fn a_future_apart_is_polled_only_when_it_was_woken() {
        let polls = std::cell::Cell::new(0);
        let (wake, woken) = tokio::sync::oneshot::channel();
        let mut woken = pin!(woken);
        let counted = poll_fn(|context| {
            polls.set(polls.get() + 1);
            woken.as_mut().poll(context)
        });
        let counted = pin!(counted);
        let mut apart = Apart::new(counted);
        let neighbour = async {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            _ = &mut apart => panic!("nobody woke it"),
            () = neighbour => {}
        }
        assert_eq!(polls.get(), 1, "its neighbour was woken ten times");
        wake.send(7).unwrap();
        assert_eq!(apart.await, Ok(7));
        assert_eq!(polls.get(), 2);
    }

    #[test]
    fn a_future_that_is_started_again_is_polled_again() {
        let task = Waker::from(Arc::new(Woken { woken: AtomicBool::default(), task: Waker::noop().clone() }));
        let mut context = Context::from_waker(&task);
        let mut apart = Apart::new(poll_fn(|_| Poll::Ready(())));
        assert!(Pin::new(&mut apart).poll(&mut context).is_ready());
        assert!(Pin::new(&mut apart).poll(&mut context).is_pending(), "nobody woke it");
        apart.again();
        assert!(Pin::new(&mut apart).poll(&mut context).is_ready());
    }

    /// What the peer sent is not used up before the reader was asked this often.
    async fn read_slowly(ending: Ending) -> Ending {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        ending
    }

    #[tokio::test]
    async fn what_a_peer_sent_before_it_vanished_is_read_to_the_end() {
        let (outbox, _outputs, overflow) = AllOutboxes::new(1_000).open(1, 1_000);
        let ending =
            converse(pin!(read_slowly(Ending::Protocol("read".into()))), pin!(ready(Written::Gone)), &overflow).await;
        assert!(matches!(ending, Ending::Protocol(_)), "{ending:?}");
        drop(outbox);
    }

    #[tokio::test]
    async fn a_reader_that_ended_waits_for_what_is_still_written() {
        let (_outbox, _outputs, overflow) = AllOutboxes::new(1_000).open(1, 1_000);
        let writing = async {
            read_slowly(Ending::PeerClosed).await;
            Written::Closed
        };
        let ending = converse(pin!(ready(Ending::PeerClosed)), pin!(writing), &overflow).await;
        assert!(matches!(ending, Ending::Closed), "{ending:?}");
    }

    #[tokio::test]
    async fn an_overflow_waits_for_nobody() {
        let (outbox, _outputs, overflow) = AllOutboxes::new(1).open(1, 1);
        let output = || crate::coordinator::command::Output::Idle(crate::types::Idle::Lent);
        let _ = (outbox.offer(output()), outbox.offer(output()));
        let ending = converse(pin!(pending()), pin!(pending()), &overflow).await;
        assert!(matches!(ending, Ending::SlowReader), "{ending:?}");
    }
}
