//! A connection of the origin's dialect: every message becomes one command, every command gets one answer, in order.
//!
//! ```text
//!   socket ──▶ protocol::origin::Decoder ──▶ Command::Origin ──▶ pipeline ──▶ Output::Origin ──▶ socket
//! ```
//!
//! The connection is the session: it is registered when its first message is complete (within the time of a handshake),
//! and its leases end with it. There are no signs of life in this dialect; silence is allowed for long, and keepalive finds dead peers. Whatever breaks the
//! dialect counts nothing of its message, is logged, and closes the connection; what came before it stands. Deliberately
//! absent: any decision about counts. Tested in `tests/server_origin.rs`.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::connection::{Ending, Socket, Written, closing, converse, read_some, write_all, write_failure};
use super::inbox::Registration;
use super::outbox::Outputs;
use super::places::Newcomer;
use super::session::Shared;
use super::translate::close_text;
use super::unfinished::Unfinished;
use crate::coordinator::Command;
use crate::coordinator::command::{OriginAnswer, Output};
use crate::protocol::origin::{Decoder, encode_answer};
use crate::types::ConnectionId;

/// Units done of tasks, by number.
type Message = Vec<(u64, u64)>;

/// Serves a connection whose first bytes are `received`.
pub(crate) async fn serve(
    mut socket: Socket,
    peer: SocketAddr,
    connection: ConnectionId,
    received: &[u8],
    newcomer: Newcomer,
    shared: &Shared,
) {
    let mut reader = Reader {
        socket: &mut socket.read,
        decoder: Decoder::default(),
        unfinished: shared.unfinished.open(),
        patience: shared.bounds.message,
        phase: shared.closing.clone(),
    };
    reader.decoder.push(received);
    let first = tokio::select! {
        first = timeout(shared.bounds.handshake, reader.message(shared.bounds.handshake)) => first,
        () = newcomer.pushed_out() => {
            return tracing::debug!(%peer, "closed: too many others arrived before its first message was complete");
        }
    };
    let ending = match first {
        Ok(Ok(first)) => {
            let Some(_place) = newcomer.place() else {
                // The dialect has no word for it.
                return tracing::debug!(%peer, "turned away: too many connections");
            };
            drop(newcomer);
            tracing::debug!(%peer, ?connection, "a client of the origin's dialect");
            let (outbox, outputs, overflow) = shared.outboxes.open(shared.bounds.outbox, shared.bounds.outbox_bytes);
            let Ok(registration) = shared.inbox.open(connection, outbox).await else { return };
            let reading = pin!(reader.run(first, registration, shared.origin_idle));
            let writing = pin!(write(&mut socket.write, outputs, peer, shared.bounds.write));
            converse(reading, writing, &overflow).await
        }
        Ok(Err(ending)) => ending,
        Err(_elapsed) => Ending::Silent,
    };
    match &ending {
        Ending::Protocol(why) => tracing::warn!(%peer, ?connection, "closed, the message was not counted: {why}"),
        Ending::SlowReader => tracing::info!(%peer, ?connection, "closed: it takes too little of what is sent to it"),
        Ending::Silent => tracing::info!(%peer, ?connection, "closed: silent for too long"),
        Ending::Trickled => tracing::info!(%peer, ?connection, "closed: a message took too long to arrive"),
        Ending::Crowded => tracing::warn!(%peer, ?connection, "closed: too many long messages wait for their rest"),
        Ending::PeerClosed | Ending::Goodbye | Ending::Closed | Ending::Shutdown | Ending::PipelineEnded => {
            tracing::debug!(%peer, ?connection, ?ending, "ended");
        }
    }
    match ending {
        // The dialect has no word for it, but what was answered before should still arrive.
        Ending::Protocol(_) | Ending::Silent | Ending::Closed | Ending::Trickled | Ending::Shutdown => {
            socket.part(&[], shared.bounds.write).await;
        }
        Ending::PeerClosed | Ending::Goodbye | Ending::Crowded | Ending::SlowReader | Ending::PipelineEnded => {}
    }
}

/// Reads messages and hands them over; all that arrived are handed over before an end or a reset is acted upon.
struct Reader<'session> {
    socket: &'session mut OwnedReadHalf,
    decoder: Decoder,
    unfinished: Unfinished,
    patience: Duration,
    phase: watch::Receiver<bool>,
}

impl Reader<'_> {
    async fn run(mut self, first: Message, registration: Registration, idle: Duration) -> Ending {
        let connection = registration.connection();
        let mut next = Ok(first);
        loop {
            let done = match next {
                Ok(done) => done,
                Err(ending) => return ending,
            };
            if registration.command(Command::Origin { connection, done }).await.is_err() {
                return Ending::PipelineEnded;
            }
            next = self.message(idle).await;
        }
    }

    /// The next message, or why there is none; the peer may be silent for `idle`.
    async fn message(&mut self, idle: Duration) -> Result<Message, Ending> {
        let mut due = Instant::now() + self.patience;
        let mut waiting = 0;
        loop {
            if let Some(done) = self.decoder.next_message().map_err(|error| Ending::Protocol(error.to_string()))? {
                self.unfinished.set(0, true);
                return Ok(done);
            }
            if waiting == 0 {
                due = Instant::now() + self.patience;
            }
            waiting = self.decoder.waiting();
            self.unfinished.set(waiting, false);
            tokio::select! {
                read = timeout(idle, read_some(self.socket, |bytes| self.decoder.push(bytes))) => match read {
                    Ok(Ok(1..)) => {}
                    Ok(Ok(0) | Err(_)) => return Err(Ending::PeerClosed),
                    Err(_elapsed) => return Err(Ending::Silent),
                },
                () = sleep_until(due), if waiting > 0 => return Err(Ending::Trickled),
                () = self.unfinished.pushed_out() => return Err(Ending::Crowded),
                () = closing(&mut self.phase) => return Err(Ending::Shutdown),
            }
        }
    }
}

/// Writes answers; those that wait are written together.
async fn write(socket: &mut OwnedWriteHalf, mut outputs: Outputs, peer: SocketAddr, limit: Duration) -> Written {
    loop {
        let Some(first) = outputs.next().await else { return Written::All };
        let (mut bytes, mut next, mut closed) = (Vec::new(), Some(first), false);
        while let Some(output) = next {
            match output {
                Output::Origin(answer) => bytes.extend(encode_answer(number(answer))),
                Output::Close(reason) => {
                    tracing::warn!(%peer, "closed: {}", close_text(reason));
                    closed = true;
                    break;
                }
                Output::Welcome { .. }
                | Output::UnknownSession { .. }
                | Output::Grants { .. }
                | Output::Answers { .. }
                | Output::Lost { .. }
                | Output::Idle(_)
                | Output::Control { .. } => {
                    // This dialect has no word for it, and its clients need none.
                    tracing::debug!(%peer, "an output that this dialect cannot say was left out");
                }
            }
            next = outputs.next_waiting();
        }
        if let Err(error) = write_all(socket, &bytes, limit).await {
            return write_failure(&error);
        }
        if closed {
            return Written::Closed;
        }
    }
}

/// An answer as the number that the dialect has for it.
fn number(answer: OriginAnswer) -> i64 {
    match answer {
        // Task numbers stay below 2^63.
        OriginAnswer::Task(number) => i64::try_from(number).unwrap_or(i64::MAX),
        OriginAnswer::Settled => -1,
        OriginAnswer::Wait => -2,
    }
}
