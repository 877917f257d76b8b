//! Who may be connected: a bounded number of peers that are served, and a bounded number that is about to introduce itself.
//!
//! ```text
//!   accepted ──▶ newcomer ──introduces itself──▶ place, until the connection ends
//!                   │
//!                   └── one newcomer too many: whoever arrived first has to go
//! ```
//!
//! **Invariants.** A peer that has not introduced itself takes no place from those who have, however many such peers
//! there are and however often they come back. A peer that introduces itself at once is kept from it only while so many others
//! arrive within that moment. When all places are taken, those who are served stay. There are never more sockets than
//! places and newcomers, and one a listener: whoever was told to go is waited for.
//! Deliberately absent: a judgement of peers by their addresses. Tested in this file and in `tests/hostile/places.rs`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Places for connections, shared by all listeners.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    newcomers_max: usize,
    newcomers: Arc<Mutex<Newcomers>>,
    sockets_max: usize,
    sockets: Arc<Semaphore>,
}

/// Those who have not introduced themselves, in order of arrival, and how they are told to go.
#[derive(Debug, Default)]
struct Newcomers {
    last: u64,
    present: BTreeMap<u64, Arc<Notify>>,
}

/// A place among those who are served; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

/// Room for a socket; to be kept until that is closed.
#[derive(Debug)]
pub(crate) struct Room {
    _permit: Option<OwnedSemaphorePermit>,
}

/// A connection that has not introduced itself.
#[derive(Debug)]
pub(crate) struct Newcomer {
    number: u64,
    places: Places,
    pushed_out: Arc<Notify>,
}

impl Places {
    /// Places for so many that are served, besides so many newcomers, both at least 1.
    pub(crate) fn new(connections: usize, newcomers: usize) -> Self {
        let sockets_max = connections + newcomers;
        Self {
            free: Arc::new(Semaphore::new(connections)),
            newcomers_max: newcomers,
            newcomers: Arc::default(),
            sockets_max,
            sockets: Arc::new(Semaphore::new(sockets_max)),
        }
    }

    /// Whether nobody is connected.
    pub(crate) fn are_empty(&self) -> bool {
        self.sockets.available_permits() == self.sockets_max
    }

    /// Lets one in; if it is one too many, whoever arrived first has to go, and is waited for.
    pub(crate) async fn arrive(&self) -> (Newcomer, Room) {
        let newcomer = self.add_newcomer();
        // An error would mean that the semaphore was closed, which nobody does.
        let room = Arc::clone(&self.sockets).acquire_owned().await;
        (newcomer, Room { _permit: room.ok() })
    }

    fn add_newcomer(&self) -> Newcomer {
        let pushed_out = Arc::new(Notify::new());
        let mut newcomers = self.newcomers();
        newcomers.last += 1;
        let number = newcomers.last;
        newcomers.present.insert(number, Arc::clone(&pushed_out));
        if newcomers.present.len() > self.newcomers_max
            && let Some((_, first)) = newcomers.present.pop_first()
        {
            first.notify_one();
        }
        drop(newcomers);
        Newcomer { number, places: self.clone(), pushed_out }
    }

    fn newcomers(&self) -> MutexGuard<'_, Newcomers> {
        // Nothing that holds the lock can panic between two changes.
        self.newcomers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Newcomer {
    /// Waits until it has to go.
    pub(crate) async fn pushed_out(&self) {
        self.pushed_out.notified().await;
    }

    /// A place among those who are served; `None` if all are taken. Then it stays a newcomer.
    pub(crate) fn place(&self) -> Option<Place> {
        Arc::clone(&self.places.free).try_acquire_owned().ok().map(|permit| Place { _permit: permit })
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.places.newcomers().present.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn has_to_go(newcomer: &Newcomer) -> bool {
        pin!(newcomer.pushed_out()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn newcomers_take_no_places() {
        let places = Places::new(1, 2);
        assert!(places.are_empty());
        let (one, one_socket) = places.arrive().await;
        let (other, other_socket) = places.arrive().await;
        let place = one.place().unwrap();
        assert!(other.place().is_none());
        drop((one, other, other_socket));
        assert!(!places.are_empty());
        drop((place, one_socket));
        assert!(places.are_empty());
    }

    #[tokio::test]
    async fn whoever_arrived_first_goes_first() {
        let places = Places::new(1, 2);
        let (first, _first_socket) = places.arrive().await;
        let (second, _second_socket) = places.arrive().await;
        assert!(!has_to_go(&first) && !has_to_go(&second));
        let (third, _third_socket) = places.arrive().await;
        assert!(has_to_go(&first) && !has_to_go(&second) && !has_to_go(&third));
    }

    #[tokio::test]
    async fn whoever_had_to_go_is_waited_for() {
        let places = Places::new(1, 1);
        let (first, first_socket) = places.arrive().await;
        let _place = first.place().unwrap();
        drop(first);
        let (second, second_socket) = places.arrive().await;
        let mut third = pin!(places.arrive());
        let mut look = Context::from_waker(Waker::noop());
        assert!(third.as_mut().poll(&mut look).is_pending(), "there are as many sockets as there may be");
        assert!(has_to_go(&second));
        drop((second, second_socket));
        let (third, _third_socket) = third.await;
        assert!(!has_to_go(&third));
        drop(first_socket);
    }
}
