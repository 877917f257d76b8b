//! Carries what the pipeline's turns let out to the outboxes of the connections, on the sessions' thread.
//!
//! ```text
//!   pipeline ──one release a turn──▶ dispatcher ──offer (never waits)──▶ outboxes ──▶ writers
//! ```
//!
//! To wake a task of another thread's runtime takes a system call, and a turn may answer hundreds of connections. So the pipeline
//! wakes one task, this one, and it wakes the others, which are its neighbours.
//!
//! **Invariants.** What is released is delivered in order, and nothing waits for a peer: an outbox that is full is dropped, which ends its
//! connection. Tested in `pipeline.rs`.

use std::collections::hash_map::Entry;

use tokio::sync::mpsc;

use super::outbox::Outbox;
use crate::coordinator::command::{Addressed, ByConnection, Output};
use crate::types::ConnectionId;

/// Releases on their way at a time: while one is delivered, the next may be made.
const RELEASES_MAX: usize = 2;

/// What one turn lets out.
#[derive(Debug, Default)]
pub(crate) struct Release {
    /// Connections that it took in, and where their outputs go.
    pub(crate) opened: Vec<(ConnectionId, Outbox)>,
    /// What is to be said.
    pub(crate) outputs: Vec<Addressed>,
    /// Connections whose outboxes close after these outputs.
    pub(crate) ended: Vec<ConnectionId>,
}

/// The pipeline's end.
#[derive(Clone, Debug)]
pub(crate) struct Releases(mpsc::Sender<Release>);

/// The sessions' end: who is connected, and what is released to them.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    releases: mpsc::Receiver<Release>,
    outboxes: ByConnection<Outbox>,
}

/// A way from a pipeline to the outboxes.
pub(crate) fn dispatch() -> (Releases, Dispatcher) {
    let (sender, releases) = mpsc::channel(RELEASES_MAX);
    (Releases(sender), Dispatcher { releases, outboxes: ByConnection::default() })
}

impl Releases {
    /// Hands a turn's outcome over. Waits for the sessions' thread while it has not come to the turns before; never for a peer. Not to be
    /// called within a runtime.
    pub(crate) fn send(&self, release: Release) {
        if !(release.opened.is_empty() && release.outputs.is_empty() && release.ended.is_empty()) {
            // Without a dispatcher there is nobody left to hear of it.
            let _ = self.0.blocking_send(release);
        }
    }
}

impl Dispatcher {
    /// Delivers until the pipeline has ended.
    pub(crate) async fn run(mut self) {
        while let Some(release) = self.releases.recv().await {
            self.deliver(release);
        }
    }

    /// Delivers what has been released, for those who have no runtime.
    #[cfg(test)]
    pub(crate) fn deliver_waiting(&mut self) {
        while let Ok(release) = self.releases.try_recv() {
            self.deliver(release);
        }
    }

    fn deliver(&mut self, release: Release) {
        self.outboxes.extend(release.opened);
        for (connection, output) in release.outputs {
            self.offer(connection, output);
        }
        for connection in release.ended {
            self.outboxes.remove(&connection);
        }
    }

    fn offer(&mut self, connection: ConnectionId, output: Output) {
        // A connection without an outbox was dropped for reading too slowly; its end is on the way.
        if let Entry::Occupied(outbox) = self.outboxes.entry(connection)
            && outbox.get().offer(output).is_err()
        {
            outbox.remove();
        }
    }
}
