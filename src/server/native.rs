//! The native dialect after the hello: frames to commands, outputs to frames, signs of life both ways.
//!
//! ```text
//!   socket ──▶ Decoder ──▶ translate ──▶ registration ──▶ pipeline
//!   socket ◀── one write per burst ◀── frames ◀── keys, translate ◀── outbox ◀──┘
//! ```
//!
//! A connection that introduced a session may say everything; the coordinator judges what fits. One that did not may
//! send control requests, signs of life and a goodbye. Deliberately absent: any decision about work or counts. Tested in
//! `tests/server_native.rs` and `tests/server_limits.rs`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::connection::{Apart, Ending, Socket, Written, closing, converse, read_some, write_all, write_failure};
use super::inbox::Registration;
use super::keys::{self, Keys};
use super::outbox::Outputs;
use super::session::{Shared, last_words};
use super::translate::{self, Introduction, Said, client_message};
use super::unfinished::Unfinished;
use crate::coordinator::Command;
use crate::coordinator::command::{ControlAnswer, Output};
use crate::protocol::codec;
use crate::protocol::frame::Decoder;
use crate::protocol::messages::{ClientMessage, ServerMessage, WireAnswer, WireClosing, WireFailure, WireGrant};
use crate::store::TextError;
use crate::types::{CampaignId, CampaignInfo, ConnectionId, Grant};

/// Outputs are gathered up to about this many bytes before they are written.
const BURST_BYTES: usize = 64 * 1_024;

/// Serves a connection that has introduced itself; `decoder` holds what followed the hello.
pub(crate) async fn serve(
    mut socket: Socket,
    peer: SocketAddr,
    connection: ConnectionId,
    introduction: Introduction,
    decoder: Decoder,
    shared: &Shared,
) {
    let (outbox, outputs, overflow) = shared.outboxes.open(shared.bounds.outbox, shared.bounds.outbox_bytes);
    let Ok(registration) = shared.inbox.open(connection, outbox).await else { return };
    let mut writer = Writer {
        socket: &mut socket.write,
        shared,
        keyed: BTreeSet::new(),
        frames: Vec::new(),
        written: Instant::now(),
    };
    let has_session = match introduction {
        Introduction::Session(hello) => {
            let name = &hello.name;
            tracing::debug!(%peer, ?connection, session = %hello.session, ?name, attempt = hello.attempt, "introduced");
            if registration.command(Command::Hello { connection, hello }).await.is_err() {
                return;
            }
            true
        }
        Introduction::ControlOnly => {
            tracing::debug!(%peer, ?connection, "introduced, without a session");
            if writer.welcome().await.is_err() {
                return;
            }
            false
        }
    };
    let reader = Reader {
        socket: &mut socket.read,
        decoder,
        registration,
        unfinished: shared.unfinished.open(),
        has_session,
        idle: shared.bounds.native_idle,
        message: shared.bounds.message,
        phase: shared.closing.clone(),
    };
    let ending = converse(pin!(reader.run()), pin!(writer.run(outputs, has_session)), &overflow).await;
    match &ending {
        Ending::Protocol(why) => tracing::info!(%peer, ?connection, "closed: {why}"),
        Ending::SlowReader => tracing::info!(%peer, ?connection, "closed: it takes too little of what is sent to it"),
        Ending::Silent => tracing::info!(%peer, ?connection, "closed: no sign of life"),
        Ending::Crowded => tracing::warn!(%peer, ?connection, "closed: too many long messages wait for their rest"),
        Ending::Trickled => tracing::info!(%peer, ?connection, "closed: a message took too long to arrive"),
        Ending::PeerClosed | Ending::Goodbye | Ending::Closed | Ending::Shutdown | Ending::PipelineEnded => {
            tracing::debug!(%peer, ?connection, ?ending, "ended");
        }
    }
    if let Some(words) = last_words(&ending, &shared.bounds) {
        socket.part(&words, shared.bounds.write).await;
    }
}

/// Reads frames and hands their commands over.
struct Reader<'session> {
    socket: &'session mut OwnedReadHalf,
    decoder: Decoder,
    registration: Registration,
    unfinished: Unfinished,
    has_session: bool,
    idle: Duration,
    message: Duration,
    phase: watch::Receiver<bool>,
}

impl Reader<'_> {
    async fn run(mut self) -> Ending {
        // Both wait over all messages: a timer or a place in a line for each of them would cost more than the message.
        let mut phase = self.phase.clone();
        let (closing, silence) = (pin!(closing(&mut phase)), pin!(sleep(self.idle)));
        let (mut closing, mut silence) = (Apart::new(closing), Apart::new(silence));
        let mut heard = Instant::now();
        // When the message that is not whole must be; not looked at while there is none.
        let mut due = heard + self.message;
        let mut waiting = 0;
        loop {
            let another = match self.hand_over().await {
                Ok(another) => another,
                Err(ending) => return ending,
            };
            if another || waiting == 0 {
                due = heard + self.message;
            }
            waiting = self.decoder.waiting();
            self.unfinished.set(waiting, another);
            tokio::select! {
                // In this order, so that a peer who floods the server hears that it closes, and one whose bytes have been lying there
                // while the inbox was full does not count as silent.
                biased;
                () = &mut closing => return Ending::Shutdown,
                () = async { sleep_until(due).await }, if waiting > 0 => return Ending::Trickled,
                () = self.unfinished.pushed_out(), if waiting > 0 => return Ending::Crowded,
                read = read_some(self.socket, |bytes| self.decoder.push(bytes)) => match read {
                    Ok(1..) => heard = Instant::now(),
                    Ok(0) | Err(_) => return Ending::PeerClosed,
                },
                () = &mut silence => {
                    let over = heard + self.idle;
                    if Instant::now() >= over {
                        return Ending::Silent;
                    }
                    silence.again().as_mut().reset(over);
                }
            }
        }
    }

    /// Hands over every message that is complete; whether there was any.
    async fn hand_over(&mut self) -> Result<bool, Ending> {
        let connection = self.registration.connection();
        let mut any = false;
        loop {
            let message = match self.decoder.next_frame() {
                Ok(None) => return Ok(any),
                Ok(Some(body)) => codec::decode_client(body).map_err(|error| Ending::Protocol(error.to_string()))?,
                Err(error) => return Err(Ending::Protocol(error.to_string())),
            };
            any = true;
            if let Some(command) = permitted(connection, message, self.has_session)? {
                self.registration.command(command).await.map_err(|_| Ending::PipelineEnded)?;
            }
        }
    }
}

/// The command of a message, if a connection with or without a session may send it; `None` if it is only a sign of life.
pub(crate) fn permitted(
    connection: ConnectionId,
    message: ClientMessage,
    has_session: bool,
) -> Result<Option<Command>, Ending> {
    match client_message(connection, message) {
        // A second hello: allowed after an unknown session, which the coordinator knows about.
        Said::Introduced(Introduction::Session(hello)) if has_session => Ok(Some(Command::Hello { connection, hello })),
        Said::Introduced(_) => {
            let why = "a connection introduces itself once, with a session or without";
            Err(Ending::Protocol(why.to_owned()))
        }
        Said::Command(command) if has_session => Ok(Some(command)),
        Said::Command(command @ Command::Control { .. }) => Ok(Some(command)),
        // It keeps the connection open, nothing else.
        Said::Command(Command::Heartbeat { .. }) => Ok(None),
        Said::Command(Command::Goodbye { .. }) => Err(Ending::Goodbye),
        Said::Command(_) => {
            let why = "a connection without a session can only send control requests";
            Err(Ending::Protocol(why.to_owned()))
        }
    }
}

/// Turns outputs into frames and writes them.
struct Writer<'session> {
    socket: &'session mut OwnedWriteHalf,
    shared: &'session Shared,
    /// Campaigns whose grants go out with keys, of those described on this connection.
    keyed: BTreeSet<CampaignId>,
    frames: Vec<u8>,
    /// When something was last written.
    written: Instant,
}

/// A message that ends the connection.
pub(crate) struct LastMessage(pub(crate) ServerMessage);

impl Writer<'_> {
    /// Accepts the hello of a connection without a session, which concerns nobody else.
    async fn welcome(&mut self) -> std::io::Result<()> {
        let instance = self.shared.instance.0;
        let refusals = Vec::new();
        self.encode(&ServerMessage::Welcome { instance, resumed: false, through: 0, refusals, leases: 0 });
        self.flush().await
    }

    async fn run(mut self, mut outputs: Outputs, has_session: bool) -> Written {
        // A session's welcome is the first thing it hears, however long its commit takes.
        let mut welcomed = !has_session;
        let longest = self.shared.bounds.heartbeat;
        let quiet = pin!(sleep(longest));
        let mut quiet = Apart::new(quiet);
        loop {
            let last = tokio::select! {
                // What is written makes up for a heartbeat.
                biased;
                output = outputs.next() => match output {
                    Some(output) => {
                        welcomed = true;
                        self.put_burst(output, &mut outputs).await
                    }
                    None => return Written::All,
                },
                () = &mut quiet => {
                    let due = self.written + longest;
                    if Instant::now() < due {
                        quiet.again().as_mut().reset(due);
                        continue;
                    }
                    quiet.again().as_mut().reset(Instant::now() + longest);
                    if welcomed {
                        self.encode(&ServerMessage::Heartbeat);
                    }
                    Ok(())
                }
            };
            if let Err(LastMessage(message)) = &last {
                self.encode(message);
            }
            let Ok(_held) = outputs.hold(self.frames.len()) else { return Written::Stuck };
            if let Err(error) = self.flush().await {
                return write_failure(&error);
            }
            if last.is_err() {
                return Written::Closed;
            }
        }
    }

    /// Encodes an output and those that wait behind it, up to a burst.
    async fn put_burst(&mut self, first: Output, outputs: &mut Outputs) -> Result<(), LastMessage> {
        let mut next = Some(first);
        while let Some(output) = next {
            let message = self.message(output).await?;
            self.encode(&message);
            next = if self.frames.len() < BURST_BYTES { outputs.next_waiting() } else { None };
        }
        Ok(())
    }

    fn encode(&mut self, message: &ServerMessage) {
        if let Err(error) = codec::encode_server(message, &mut self.frames) {
            // Every output is bounded so that its message fits a frame.
            tracing::error!("a message cannot be sent and is left out: {error}");
        }
    }

    async fn flush(&mut self) -> std::io::Result<()> {
        write_all(self.socket, &self.frames, self.shared.bounds.write).await?;
        self.written = Instant::now();
        self.frames.clear();
        self.frames.shrink_to(BURST_BYTES);
        Ok(())
    }

    /// The message of an output, keys included.
    async fn message(&mut self, output: Output) -> Result<ServerMessage, LastMessage> {
        match output {
            Output::Grants { campaigns, grants, resent } => self.grants(&campaigns, grants, resent).await,
            Output::Control { id, answer } => Ok(ServerMessage::Control { id, answer: self.answer(answer).await }),
            Output::Welcome { .. }
            | Output::UnknownSession { .. }
            | Output::Answers { .. }
            | Output::Lost { .. }
            | Output::Idle(_)
            | Output::Close(_)
            | Output::Origin(_) => message_without_keys(output),
        }
    }

    async fn grants(
        &mut self,
        campaigns: &[Arc<CampaignInfo>],
        grants: Vec<Grant>,
        resent: bool,
    ) -> Result<ServerMessage, LastMessage> {
        self.keyed.extend(campaigns.iter().filter(|campaign| campaign.keyed).map(|campaign| campaign.id));
        let keyed = |grant: &&Grant| self.keyed.contains(&grant.campaign);
        let mut found = Keys::new();
        if grants.iter().any(|grant| keyed(&grant)) {
            // A lease must not be lost on its way, or its runs would wait for a holder that does not know it. When the
            // client reconnects, it is sent again, or has gone with its campaign.
            found = keys::of_grants(&self.shared.texts, grants.iter().filter(keyed)).await.map_err(|error| {
                let code = WireClosing::Busy;
                match error {
                    TextError::Missing { .. } => tracing::info!("a grant has no key any more: {error}"),
                    TextError::Damaged { .. } | TextError::Store(_) => {
                        tracing::error!("a grant's key cannot be read: {error}");
                    }
                }
                LastMessage(ServerMessage::Closing { code, text: format!("a grant cannot be sent: {error}") })
            })?;
        }
        Ok(grants_message(campaigns, grants, resent, &found))
    }

    async fn answer(&self, answer: ControlAnswer) -> WireAnswer {
        let (campaign, first, count) = match &answer {
            ControlAnswer::Counts { campaign, keyed: true, tasks, .. } if !tasks.is_empty() => {
                (*campaign, tasks[0].index, tasks.len() as u32)
            }
            ControlAnswer::Counts { .. }
            | ControlAnswer::Creation { .. }
            | ControlAnswer::Status { .. }
            | ControlAnswer::Done { .. }
            | ControlAnswer::Fate(_)
            | ControlAnswer::Failed(_) => return translate::control_answer(answer, None),
        };
        match keys::of_tasks(&self.shared.texts, campaign, first, count).await {
            Ok(keys) => translate::control_answer(answer, Some(keys)),
            Err(error @ TextError::Missing { .. }) => {
                let text = format!("the campaign was being removed: {error}");
                WireAnswer::Failed { code: WireFailure::NotFound, text, index: 0 }
            }
            Err(error @ (TextError::Damaged { .. } | TextError::Store(_))) => {
                tracing::error!("keys cannot be read: {error}");
                WireAnswer::Failed { code: WireFailure::Damaged, text: error.to_string(), index: 0 }
            }
        }
    }
}

/// The message of an output that tells of no task, or of tasks by number only.
pub(crate) fn message_without_keys(output: Output) -> Result<ServerMessage, LastMessage> {
    Ok(match output {
        Output::Welcome { instance, resumed, through, refusals, leases } => {
            let refusals = refusals.into_iter().map(Into::into).collect();
            ServerMessage::Welcome { instance: instance.0, resumed, through, refusals, leases }
        }
        Output::UnknownSession { instance } => ServerMessage::UnknownSession { instance: instance.0 },
        Output::Grants { campaigns, grants, resent } => grants_message(&campaigns, grants, resent, &Keys::new()),
        Output::Answers { through, refusals } => {
            ServerMessage::Answers { through, refusals: refusals.into_iter().map(Into::into).collect() }
        }
        Output::Lost { leases } => ServerMessage::Lost { leases: leases.into_iter().map(Into::into).collect() },
        Output::Idle(idle) => ServerMessage::Idle(idle.into()),
        Output::Control { id, answer } => {
            ServerMessage::Control { id, answer: translate::control_answer(answer, None) }
        }
        Output::Close(reason) => return Err(LastMessage(translate::closing(reason))),
        Output::Origin(answer) => {
            tracing::error!("an answer of another dialect ({answer:?}) came out for a native connection");
            let text = "the server is confused about this connection; reconnect".to_owned();
            return Err(LastMessage(ServerMessage::Closing { code: WireClosing::Reconnect, text }));
        }
    })
}

/// Grants with the keys of their tasks, as far as they have any.
pub(crate) fn grants_message(
    campaigns: &[Arc<CampaignInfo>],
    grants: Vec<Grant>,
    resent: bool,
    keys: &Keys,
) -> ServerMessage {
    let with_key = |grant: Grant| WireGrant::new(grant, keys.get(&(grant.campaign, grant.task)).cloned());
    ServerMessage::Grants {
        campaigns: campaigns.iter().map(|campaign| campaign.as_ref().into()).collect(),
        grants: grants.into_iter().map(with_key).collect(),
        resent,
    }
}
