//! What the caller's side and the client's thread share: one book behind one lock.
//!
//! ```text
//!  caller: Lease::report ──▶ ┌──────────┐ ──▶ work  ──▶ client's thread (`session`)
//!                            │   Book   │
//!  caller: next_lease ◀──────└──────────┘ ◀── ready ◀── client's thread
//! ```
//!
//! A plain mutex, not a channel, since a report must know its number when the call returns, and a lease dropped in a
//! destructor cannot wait. It is held for a few map operations at a time and never across an await.
//!
//! **Invariants.** What is shown never lags behind what somebody was told or did. Nobody waits for ever once the client has stopped: whoever runs the session calls
//! [`Shared::stop`] when it ends, however it ends. Tested through `tests/client_session.rs`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, SetOnce, oneshot, watch};

use super::inflight::{Forgotten, Granted, Inflight, Resolved};
use super::lease::{Body, Lease};
use super::{Closed, Connection, State, Stopped, Verdict};
use crate::types::{Idle, LossReason, Request, SessionId, Want};

/// Who waits for an answer, if anybody does.
pub(super) type Waiter = Option<oneshot::Sender<Verdict>>;

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    book: Mutex<Book>,
    /// Something for the client's thread to do. It alone waits for it.
    pub(super) work: Notify,
    /// Leases are ready, or there will be no more.
    ready: Notify,
    shown: watch::Sender<State>,
    /// The client has stopped.
    pub(super) ended: SetOnce<Closed>,
}

/// Everything that both sides change.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) inflight: Inflight<Arc<Body>, Waiter>,
    pub(super) want: Want,
    /// Whether `want` is to be sent.
    pub(super) want_changed: bool,
    pub(super) until_done: bool,
    /// Questions that were sent ahead of a changed window and are not answered: what the server says until then may
    /// be about the window of before.
    pub(super) marks: u32,
    pub(super) idle: Option<Idle>,
    pub(super) connection: Connection,
    /// The caller asked to close, and gave this long for it.
    pub(super) closing: Option<Duration>,
}

impl Shared {
    pub(super) fn new(session: SessionId, want: Want, until_done: bool) -> Self {
        let book = Book {
            inflight: Inflight::new(session),
            want,
            want_changed: true,
            until_done,
            marks: 0,
            idle: None,
            connection: Connection::Connecting { attempt: 1, last_error: None },
            closing: None,
        };
        let (shown, _) = watch::channel(book.state());
        Self { book: Mutex::new(book), work: Notify::new(), ready: Notify::new(), shown, ended: SetOnce::new() }
    }

    /// The book. A panic while it was held left no half-made change that matters more than going on.
    pub(super) fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn watch(&self) -> watch::Receiver<State> {
        self.shown.subscribe()
    }

    /// Changes the book, and shows how it stands before anybody can see the change otherwise.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        let mut book = self.lock();
        let outcome = change(&mut book);
        self.show(&book);
        outcome
    }

    /// Shows how the book stands now, if that is news.
    pub(super) fn show(&self, book: &Book) {
        let state = book.state();
        self.shown.send_if_modified(|shown| {
            let news = *shown != state;
            if news {
                *shown = state;
            }
            news
        });
    }

    // The caller's side.

    /// The next lease; `None` when there is none to wait for.
    pub(super) async fn next_lease(self: &Arc<Self>) -> Option<Lease> {
        loop {
            // Registered before looking, so that nothing that happens in between is missed.
            let mut ready = std::pin::pin!(self.ready.notified());
            ready.as_mut().enable();
            {
                let mut book = self.lock();
                if book.over() {
                    return None;
                }
                if let Some(body) = book.inflight.take() {
                    return Some(Lease::new(body, Arc::clone(self)));
                }
                if book.all_settled() {
                    return None;
                }
            }
            ready.await;
        }
    }

    /// Queues the request that ends a lease; its number, 0 if it cannot be sent any more. `note` learns the number first:
    /// the client's thread cannot see the request before the lock is free.
    pub(super) fn end(
        &self,
        body: &Body,
        request: Request,
        waiter: oneshot::Sender<Verdict>,
        note: impl FnOnce(u64),
    ) -> u64 {
        let mut book = self.lock();
        if book.stopped() || book.inflight.session() != body.session {
            return 0;
        }
        let number = book.inflight.queue(body.grant.lease, request, Some(waiter)).unwrap_or(0);
        if number != 0 {
            note(number);
        }
        self.show(&book);
        drop(book);
        self.work.notify_one();
        number
    }

    /// The caller dropped a lease.
    pub(super) fn abandon(&self, body: &Body) {
        let mut book = self.lock();
        if book.stopped() || book.inflight.session() != body.session {
            return;
        }
        book.inflight.abandon(body.grant.lease, None);
        self.show(&book);
        drop(book);
        self.work.notify_one();
    }

    pub(super) fn set_want(&self, want: Want) {
        self.change(|book| {
            // What the server said was about another window; it says it again if it still holds.
            book.idle = None;
            book.want = want;
            book.want_changed = true;
        });
        self.work.notify_one();
    }

    pub(super) fn close(&self, grace: Duration) {
        self.lock().closing.get_or_insert(grace);
        self.work.notify_one();
        self.ready.notify_waiters();
    }

    // The side of the client's thread.

    /// Tells whoever waits what became of their requests.
    pub(super) fn resolve(&self, resolved: Resolved<Waiter>) {
        for (waiter, verdict) in resolved {
            if let Some(waiter) = waiter {
                // Whoever dropped the answer does not want to know.
                let _ = waiter.send(verdict);
            }
        }
        self.ready.notify_waiters();
    }

    /// Offers fresh leases, and tells the holders of those that turned out lost. That such a lease was lost is known
    /// only from its absence among the live ones, so the reason is the most likely.
    pub(super) fn granted(&self, granted: Granted<Arc<Body>>) {
        for body in granted.lost {
            tell_lost(&body, LossReason::Expired);
        }
        self.ready.notify_waiters();
    }

    /// The server does not know the session.
    pub(super) fn forgotten(&self, forgotten: Forgotten<Arc<Body>, Waiter>) {
        for body in forgotten.lost {
            tell_lost(&body, LossReason::Expired);
        }
        self.resolve(forgotten.waiters.into_iter().map(|waiter| (waiter, Verdict::Unknown)).collect());
    }

    /// Somebody may be waiting for what just changed.
    pub(super) fn wake(&self) {
        self.ready.notify_waiters();
    }

    /// The client has stopped for good: no lease and no answer will come any more.
    pub(super) fn stop(&self, reason: Stopped, said_goodbye: bool) {
        let mut book = self.lock();
        if book.stopped() {
            return;
        }
        book.connection = Connection::Stopped(reason);
        book.idle = None;
        let unanswered = book.inflight.unanswered_numbers().collect();
        let session = book.inflight.session();
        let forgotten = book.inflight.forget(session);
        self.show(&book);
        drop(book);
        // Who closed a client knows that its leases are over; others must be told.
        self.forgotten(forgotten);
        let _ = self.ended.set(Closed { unanswered, said_goodbye });
    }
}

/// Tells the holder of a lease that it is lost.
pub(super) fn tell_lost(body: &Body, reason: LossReason) {
    // An earlier reason stands.
    let _ = body.lost.set(reason);
}

impl Book {
    pub(super) fn stopped(&self) -> bool {
        matches!(self.connection, Connection::Stopped(_))
    }

    /// No lease will be handed out any more.
    fn over(&self) -> bool {
        self.stopped() || self.closing.is_some()
    }

    /// Everything wanted is settled, and nothing of ours is outstanding.
    fn all_settled(&self) -> bool {
        let settled = matches!(self.idle, Some(Idle::Settled(_)));
        self.until_done && settled && self.inflight.healthy() == 0 && self.inflight.unanswered() == 0
    }

    fn state(&self) -> State {
        State {
            connection: self.connection.clone(),
            idle: self.idle,
            held: self.inflight.healthy(),
            unanswered: u32::try_from(self.inflight.unanswered()).unwrap_or(u32::MAX),
        }
    }
}
