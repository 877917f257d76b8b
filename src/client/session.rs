//! The client's own thread: keeps a session with one of the servers, for ever, and carries what the caller and the
//! server have for each other.
//!
//! ```text
//!  dial ──▶ Hello ──▶ Welcome ──▶ leases again ──▶ everything unanswered, Want ──▶ … heartbeats, requests, answers …
//!   ▲                                                                                       │
//!   └──────────── wait (exponential, full jitter) ◀── anything that goes wrong ─────────────┘
//! ```
//!
//! What is in flight and what a message means for it is decided by `inflight`; this file only carries. It stops for good
//! when the caller closes, when the server says that reconnecting is useless, or when no version fits.
//! Tested in `tests/client_session.rs` against a scripted server.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::SetOnce;
use tokio::time::{Instant, sleep_until};

use super::backoff::Backoff;
use super::inflight::Breach;
use super::lease::Body;
use super::link::{Link, LinkError};
use super::shared::{Book, Shared, tell_lost};
use super::{Config, Connection, FAR, Stopped, random};
use crate::limits;
use crate::protocol::messages::{
    ClientMessage, ServerMessage, WireCampaign, WireClosing, WireControl, WireGrant, WireRefusal, WireSession,
};
use crate::types::{CampaignId, CampaignInfo, Grant, InstanceId, LeaseId, LossReason, Refusal, SessionId};

/// Requests go out only while less than this waits to be written, so that a slow connection does not pile up copies.
const BACKLOG_BYTES_MAX: usize = limits::FRAME_BYTES_MAX;

/// How long a server may at least take to confirm a goodbye, also when the caller's grace is over.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(1);

/// How long a server may take from the prefaces until all live leases came again.
const INTRODUCTION_PATIENCE: Duration = Duration::from_millis(limits::NATIVE_IDLE_MS);

/// Why a connection ended.
#[derive(Debug)]
enum End {
    /// Try again after a wait.
    Retry(String),
    /// Try again now, if the session was in force.
    Reconnect(String),
    /// Do not try again.
    Stop(Stopped),
    /// Do not try again: the caller closed, and whether the server confirmed it.
    Closed { said_goodbye: bool },
}

impl From<LinkError> for End {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Version { .. } => Self::Stop(Stopped::Version(error.to_string())),
            LinkError::Connect(_)
            | LinkError::TooSlow(_)
            | LinkError::NotNative
            | LinkError::Broken(_)
            | LinkError::Ended
            | LinkError::Silent(_)
            | LinkError::Stalled(_)
            | LinkError::Frame(_)
            | LinkError::Decode(_)
            | LinkError::Encode(_) => Self::Retry(error.to_string()),
        }
    }
}

impl From<Breach> for End {
    fn from(breach: Breach) -> Self {
        Self::Retry(breach.to_string())
    }
}

/// Runs until the client stops.
pub(super) async fn run(shared: &Arc<Shared>, config: &Config) {
    let mut backoff = Backoff::new(config.backoff_first, config.backoff_cap);
    let mut closing = Closing::default();
    // Attempts since the last connection, and which server is next.
    let (mut attempt, mut next) = (1, 0);
    loop {
        let server = &config.servers[next];
        let dialled = tokio::select! {
            dialled = Link::dial(server, config.silence) => dialled,
            () = closing.until_useless(shared) => return shared.stop(Stopped::Closed, false),
        };
        let mut welcomed = false;
        let end = match dialled {
            Ok(link) => Session::new(shared, config, server, link).run(&mut closing, &mut welcomed).await,
            Err(error) => error.into(),
        };
        let (wait, why) = match end {
            End::Stop(reason) => {
                tracing::warn!(%server, %reason, "stopped for good");
                return shared.stop(reason, false);
            }
            End::Closed { said_goodbye } => return shared.stop(Stopped::Closed, said_goodbye),
            // One that sends us back before it let us in would do so again and again.
            End::Reconnect(why) => (!welcomed, why),
            End::Retry(why) => (true, why),
        };
        tracing::info!(%server, attempt, reason = %why, "no connection");
        if welcomed {
            // A good server is asked first again.
            backoff.reset();
            attempt = 1;
        } else {
            next = (next + 1) % config.servers.len();
            attempt += 1;
        }
        offline(shared, Connection::Connecting { attempt, last_error: Some(why) });
        // The others are tried at once; after a whole round there is a wait.
        if wait && (welcomed || next == 0) {
            let pause = backoff.next_wait(random::number());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = closing.until_useless(shared) => return shared.stop(Stopped::Closed, false),
            }
        }
    }
}

fn offline(shared: &Shared, connection: Connection) {
    shared.change(|book| {
        book.inflight.disconnected();
        book.marks = 0;
        book.idle = None;
        book.connection = connection;
    });
}

/// What the caller's wish to close has come to.
#[derive(Debug, Default)]
struct Closing {
    /// When the grace ends; `None` until the caller wishes to close.
    deadline: Option<Instant>,
}

impl Closing {
    /// Takes up the caller's wish: from now on no lease is taken, and those not handed out go back.
    fn look(&mut self, book: &mut Book) {
        if let (Some(grace), None) = (book.closing, self.deadline) {
            self.deadline = Some(Instant::now() + grace.min(FAR));
            book.want.leases = 0;
            book.want_changed = true;
        }
        if self.deadline.is_some() {
            book.inflight.release_ready(|| None);
        }
    }

    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Waits, without a connection, until there is no point in getting one any more.
    async fn until_useless(&mut self, shared: &Shared) {
        loop {
            {
                let mut book = shared.lock();
                self.look(&mut book);
                shared.show(&book);
                let nothing_left = book.inflight.unanswered() == 0 && book.inflight.healthy() == 0;
                if self.is_over() || self.deadline.is_some() && nothing_left {
                    return;
                }
            }
            tokio::select! {
                () = shared.work.notified() => {}
                () = until(self.deadline) => {}
            }
        }
    }
}

/// Waits until then; for ever if there is no then.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// One connection of the session.
struct Session<'run> {
    shared: &'run Arc<Shared>,
    config: &'run Config,
    server: &'run str,
    link: Link,
    /// Campaigns that were described on this connection.
    campaigns: HashMap<CampaignId, Arc<CampaignInfo>>,
    /// The shortest lease of those.
    lease_shortest: Duration,
    /// When to give up on being introduced; `None` once that is done.
    introduction: Option<Instant>,
    /// Whether the window was told on this connection.
    wanted: bool,
    heartbeat: Instant,
    /// When to give up on the answer to a goodbye; `None` until it was said.
    goodbye: Option<Instant>,
}

impl<'run> Session<'run> {
    fn new(shared: &'run Arc<Shared>, config: &'run Config, server: &'run str, link: Link) -> Self {
        let now = Instant::now();
        Self {
            shared,
            config,
            server,
            link,
            campaigns: HashMap::new(),
            lease_shortest: Duration::MAX,
            introduction: Some(now + INTRODUCTION_PATIENCE),
            wanted: false,
            heartbeat: now,
            goodbye: None,
        }
    }

    /// Runs until the connection ends; `welcomed` tells whether the session was in force on it.
    async fn run(&mut self, closing: &mut Closing, welcomed: &mut bool) -> End {
        let end = self.carry(closing).await;
        *welcomed = self.introduction.is_none();
        match end {
            // A server that got the goodbye may close without a word; there is nothing to come back for.
            Ok(()) | Err(End::Retry(_) | End::Reconnect(_)) if self.goodbye.is_some() => {
                End::Closed { said_goodbye: false }
            }
            Ok(()) => End::Retry("the connection ended".to_owned()),
            Err(end) => end,
        }
    }

    async fn carry(&mut self, closing: &mut Closing) -> Result<(), End> {
        self.introduce()?;
        loop {
            self.send_what_waits(closing)?;
            let live = self.introduction.is_none();
            tokio::select! {
                message = self.link.next() => self.receive(message?)?,
                () = self.shared.work.notified() => {}
                () = sleep_until(self.heartbeat), if live => self.send_heartbeat()?,
                () = until(self.introduction) => {
                    return Err(End::Retry("the server took too long to welcome the session".to_owned()));
                }
                () = until(self.goodbye.or(closing.deadline)) => {}
            }
        }
    }

    fn introduce(&mut self) -> Result<(), End> {
        let mut book = self.shared.lock();
        book.want_changed = true;
        let session = WireSession {
            attempt: book.inflight.greet(),
            session: book.inflight.session().0,
            instance: book.inflight.instance().0,
            confirmed: book.inflight.confirmed(),
            name: self.config.name.clone(),
        };
        drop(book);
        Ok(self.link.send(&ClientMessage::Hello { token: String::new(), session: Some(session) })?)
    }

    fn send_heartbeat(&mut self) -> Result<(), End> {
        let confirmed = self.shared.lock().inflight.confirmed();
        self.link.send(&ClientMessage::Heartbeat { confirmed })?;
        self.heartbeat = Instant::now() + self.heartbeat_pause();
        Ok(())
    }

    /// Four heartbeats fit into the shortest lease, so that one that is late or lost does no harm.
    fn heartbeat_pause(&self) -> Duration {
        (self.lease_shortest / 4).clamp(Duration::from_millis(1), Duration::from_millis(limits::HEARTBEAT_MS))
    }

    /// Queues what the caller's side has for the server; ends the connection when closing is done.
    fn send_what_waits(&mut self, closing: &mut Closing) -> Result<(), End> {
        let mut guard = self.shared.lock();
        let book = &mut *guard;
        closing.look(book);
        if self.introduction.is_none() && self.goodbye.is_none() {
            // A window that shrinks goes before releases, else these would be lent to us again. On a new connection it
            // goes last: what is unanswered is older.
            if self.wanted {
                self.send_want(book)?;
            }
            while self.link.backlog() < BACKLOG_BYTES_MAX {
                let Some((first, requests)) = book.inflight.next_batch(limits::REQUESTS_PER_MESSAGE_MAX) else { break };
                let requests = requests.into_iter().map(Into::into).collect();
                let confirmed = book.inflight.confirmed();
                self.link.send(&ClientMessage::Requests { first, confirmed, requests })?;
            }
            self.send_want(book)?;
            if let Some(deadline) = closing.deadline
                && book.inflight.unanswered() == 0
            {
                self.link.send(&ClientMessage::Goodbye)?;
                self.goodbye = Some(deadline.max(Instant::now() + GOODBYE_PATIENCE));
            }
        }
        self.shared.show(book);
        // With something unanswered there is no goodbye: it would make the server forget what became of it.
        if self.goodbye.map_or_else(|| closing.is_over(), |patience| patience <= Instant::now()) {
            return Err(End::Closed { said_goodbye: false });
        }
        Ok(())
    }

    fn send_want(&mut self, book: &mut Book) -> Result<(), End> {
        if !std::mem::take(&mut book.want_changed) {
            return Ok(());
        }
        if std::mem::replace(&mut self.wanted, true) && book.until_done && book.closing.is_none() {
            // `Idle` does not say which window it is about. After a window of nothing there is none until the new
            // one, and the answer to a question, whatever it is, says that the server has come so far.
            self.link.send(&ClientMessage::Want { leases: 0, runs: 1, campaigns: Vec::new() })?;
            let request = WireControl::Fate { session: book.inflight.session().0, number: 0 };
            self.link.send(&ClientMessage::Control { id: 0, request })?;
            book.marks += 1;
        }
        let crate::types::Want { leases, runs, campaigns } = book.want.clone();
        Ok(self.link.send(&ClientMessage::Want { leases, runs, campaigns })?)
    }

    fn receive(&mut self, message: ServerMessage) -> Result<(), End> {
        match message {
            ServerMessage::Welcome { instance, resumed: _, through, refusals, leases } => {
                self.welcome(InstanceId(instance), through, refusals, leases)
            }
            ServerMessage::UnknownSession { instance: _ } => self.begin_anew(),
            ServerMessage::Grants { campaigns, grants, resent } => self.take_grants(campaigns, grants, resent),
            ServerMessage::Answers { through, refusals } => {
                let resolved = self.shared.change(|book| book.inflight.answered(through, &refusals_of(refusals)))?;
                self.shared.resolve(resolved);
                Ok(())
            }
            ServerMessage::Lost { leases } => {
                for (lease, reason) in leases.into_iter().map(<(LeaseId, LossReason)>::from) {
                    if let Some(body) = self.shared.change(|book| book.inflight.lost(lease, reason, None)) {
                        tell_lost(&body, reason);
                    }
                }
                self.shared.wake();
                Ok(())
            }
            ServerMessage::Idle(idle) => {
                self.shared.change(|book| {
                    if !book.want_changed && book.marks == 0 {
                        book.idle = Some(idle.into());
                    }
                });
                self.shared.wake();
                Ok(())
            }
            ServerMessage::Heartbeat => Ok(()),
            ServerMessage::Control { .. } => self.shared.change(|book| {
                let breach = Breach::OutOfPlace { what: "an answer to a question" };
                book.marks = book.marks.checked_sub(1).ok_or(breach)?;
                Ok(())
            }),
            ServerMessage::Closing { code, text } => Err(closing_end(code, text)),
        }
    }

    fn welcome(
        &mut self,
        instance: InstanceId,
        through: u64,
        refusals: Vec<WireRefusal>,
        leases: u32,
    ) -> Result<(), End> {
        let shared = self.shared;
        let welcomed = shared.change(|book| {
            let welcomed = book.inflight.welcomed(instance, through, &refusals_of(refusals), leases);
            self.check_introduced(book);
            welcomed
        });
        match welcomed {
            Ok((resolved, granted)) => {
                self.shared.resolve(resolved);
                self.shared.granted(granted);
                Ok(())
            }
            Err(breach @ Breach::ForeignSession { .. }) => {
                tracing::error!(server = %self.server, %breach, "the session is given up");
                self.forget()?;
                Err(breach.into())
            }
            Err(breach @ (Breach::AnswerToNothing { .. } | Breach::OutOfPlace { .. })) => Err(breach.into()),
        }
    }

    /// Once all live leases came again, the session is in force.
    fn check_introduced(&mut self, book: &mut Book) {
        if self.introduction.is_some() && book.inflight.is_live() {
            self.introduction = None;
            self.heartbeat = Instant::now() + self.heartbeat_pause();
            let instance = book.inflight.instance();
            book.connection = Connection::Connected { server: self.server.to_owned(), instance };
        }
    }

    fn begin_anew(&mut self) -> Result<(), End> {
        if self.introduction.is_none() || self.shared.lock().inflight.instance() == InstanceId::NONE {
            return Err(Breach::OutOfPlace { what: "an unknown session" }.into());
        }
        self.forget()?;
        self.introduce()
    }

    fn forget(&self) -> Result<(), End> {
        let successor = random::id().map_err(|error| End::Retry(format!("no random numbers: {error}")))?;
        let forgotten = self.shared.change(|book| book.inflight.forget(SessionId(successor)));
        let (unanswered, lost) = (forgotten.waiters.len(), forgotten.lost.len());
        if unanswered + lost > 0 {
            tracing::warn!(server = %self.server, unanswered, lost, "the server does not know the session any more");
        }
        self.shared.forgotten(forgotten);
        Ok(())
    }

    fn take_grants(&mut self, campaigns: Vec<WireCampaign>, grants: Vec<WireGrant>, resent: bool) -> Result<(), End> {
        for campaign in campaigns.into_iter().map(CampaignInfo::from) {
            self.lease_shortest = self.lease_shortest.min(Duration::from_millis(campaign.lease_ms));
            self.campaigns.insert(campaign.id, Arc::new(campaign));
        }
        self.heartbeat = self.heartbeat.min(Instant::now() + self.heartbeat_pause());
        let session = self.shared.lock().inflight.session();
        let mut leases = Vec::with_capacity(grants.len());
        for (grant, key) in grants.into_iter().map(<(Grant, Option<String>)>::from) {
            let Some(campaign) = self.campaigns.get(&grant.campaign) else {
                return Err(Breach::OutOfPlace { what: "a grant of a campaign that it did not describe" }.into());
            };
            if !(1..=limits::LEASE_RUNS_MAX).contains(&grant.runs) {
                return Err(Breach::OutOfPlace { what: "a grant of no runs, or of too many" }.into());
            }
            let body = Body { session, campaign: Arc::clone(campaign), grant, key, lost: SetOnce::new() };
            leases.push((grant.lease, Arc::new(body)));
        }
        let shared = self.shared;
        let granted = shared.change(|book| {
            let granted = book.inflight.granted(leases, resent)?;
            if granted.fresh > 0 {
                book.idle = None;
            }
            self.check_introduced(book);
            Ok::<_, Breach>(granted)
        })?;
        shared.granted(granted);
        Ok(())
    }
}

fn refusals_of(refusals: Vec<WireRefusal>) -> Vec<Refusal> {
    refusals.into_iter().map(Into::into).collect()
}

fn closing_end(code: WireClosing, text: String) -> End {
    match code {
        WireClosing::Goodbye => End::Closed { said_goodbye: true },
        WireClosing::Superseded => End::Stop(Stopped::Superseded(text)),
        WireClosing::Protocol => End::Stop(Stopped::Protocol(text)),
        WireClosing::Busy | WireClosing::Shutdown => End::Retry(text),
        WireClosing::Reconnect => End::Reconnect(text),
    }
}
