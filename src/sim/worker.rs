//! A simulated client process: the real books and waits of the client library, and a session driver that does what
//! `client/session.rs` does, in the same order, a step at a time.
//!
//! ```text
//!   dial ──▶ Hello ──▶ Welcome ──▶ leases again ──▶ unanswered, Want ──▶ … heartbeats, requests, answers …
//!    ▲                                                                              │
//!    └──────────────── wait ◀── anything that goes wrong ──────────────────────────┘
//! ```
//!
//! What it does with its leases is up to chance: it works for some time, reports all or a part, more than it was lent,
//! failures, gives back, forgets. **Invariant**: it writes into the history what it is about to send before any byte of it
//! leaves, and what it has read after.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tenfold_checker::history::{Record, TEST, Who};

use super::coverage::Seen;
use super::stage::{Chunk, Event, LinkId, Side, Stage};
use super::words;
use crate::client::Verdict;
use crate::client::backoff::Backoff;
use crate::client::inflight::{Breach, Granted, Inflight, Resolved};
use crate::limits;
use crate::protocol::codec;
use crate::protocol::frame::{self, Decoder, SERVER_PREFACE_BYTES, ServerPreface, VERSIONS};
use crate::protocol::messages::{
    ClientMessage, ServerMessage, WireCampaign, WireClosing, WireControl, WireGrant, WireRefusal, WireSession,
};
use crate::types::{
    CampaignId, CampaignInfo, Grant, Idle, InstanceId, LeaseId, LossReason, Outcome, Refusal, Request, SessionId, Want,
};

/// How a client behaves.
#[derive(Clone, Debug)]
pub(super) struct Habits {
    /// Leases it holds at a time.
    pub(super) leases: u32,
    /// Runs of a lease it asks for.
    pub(super) runs: u32,
    /// How many of its leases it works on at a time.
    pub(super) hands: usize,
    /// Longest work on a lease, in milliseconds.
    pub(super) work_ms: u64,
    /// All its work takes that long.
    pub(super) even: bool,
    /// In percent: reports with failures, more units than lent, only a part, nothing but a release, forgets the lease.
    pub(super) fails: u64,
    pub(super) exceeds: u64,
    pub(super) halves: u64,
    pub(super) releases: u64,
    pub(super) drops: u64,
    /// In percent: does not listen when told that a lease is lost, and works on.
    pub(super) stubborn: u64,
    /// A server that is silent for so long is given up.
    pub(super) silence_ms: u64,
    /// How often a connection is given up so that the server does not hear of it, in percent.
    pub(super) half_open: u64,
    /// Works until all that it wants is settled.
    pub(super) until_done: bool,
    /// The campaigns it wants; none is all.
    pub(super) campaigns: Vec<String>,
}

/// Why a connection ended.
enum End {
    Retry,
    Reconnect,
    Stop,
    Closed { said_goodbye: bool },
}

impl From<Breach> for End {
    fn from(_: Breach) -> Self {
        Self::Retry
    }
}

/// One connection of the session.
struct Connection {
    link: LinkId,
    preface: Option<Vec<u8>>,
    frames: Decoder,
    campaigns: BTreeMap<CampaignId, CampaignInfo>,
    lease_shortest: u64,
    /// When to give up on being introduced; `None` once that is done.
    introduction: Option<u64>,
    wanted: bool,
    heartbeat: u64,
    goodbye: Option<u64>,
    heard: u64,
}

/// What is known of a lease from when it was first seen.
#[derive(Clone, Debug)]
struct Known {
    runs: u32,
    numbered: bool,
    lost: bool,
}

/// Where a client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Alive,
    /// It closed, left or stopped; it will not come back.
    Ended,
}

/// See the head of this file.
pub(super) struct Worker {
    who: Who,
    actor: usize,
    pub(super) habits: Habits,
    pub(super) state: State,
    inflight: Inflight<LeaseId, u64>,
    backoff: Backoff,
    connection: Option<Connection>,
    retry_at: u64,
    begun: bool,
    /// Its session was forgotten, and the next one has not begun.
    between: bool,
    want: Want,
    want_changed: bool,
    marks: u32,
    idle: Option<Idle>,
    /// Campaigns that stood when the window was told last.
    stood: Vec<String>,
    /// What the world says stands now.
    pub(super) standing: Vec<String>,
    /// The widest window that it told on any connection.
    widest: u32,
    known: BTreeMap<LeaseId, Known>,
    /// What it works on: lease and when it is through.
    work: BTreeMap<LeaseId, u64>,
    /// Requests about leases that it knew to be lost.
    late: BTreeSet<u64>,
    /// When closing is to be over; `None` until it closes.
    closing: Option<u64>,
    pub(super) frozen_until: u64,
    wake_at: u64,
    sent_through: u64,
    /// Requests that were sent in this session, for a client that says things twice.
    said: Vec<Request>,
    /// Requests that will never be answered to it: of sessions that it gave up.
    pub(super) orphans: Vec<(SessionId, u64)>,
}

impl Worker {
    pub(super) fn new(stage: &mut Stage, who: Who, actor: usize, habits: Habits, begins_at: u64) -> Self {
        let session = SessionId(stage.random.id());
        let want = Want { leases: habits.leases, runs: habits.runs, campaigns: habits.campaigns.clone() };
        if habits.until_done {
            stage.note(who, Record::UntilDone);
        }
        let mut worker = Self {
            who,
            actor,
            habits,
            state: State::Alive,
            inflight: Inflight::new(session),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            connection: None,
            retry_at: begins_at,
            begun: false,
            between: false,
            want,
            want_changed: true,
            marks: 0,
            idle: None,
            stood: Vec::new(),
            standing: Vec::new(),
            widest: 0,
            known: BTreeMap::new(),
            work: BTreeMap::new(),
            late: BTreeSet::new(),
            closing: None,
            frozen_until: 0,
            wake_at: u64::MAX,
            sent_through: 0,
            said: Vec::new(),
            orphans: Vec::new(),
        };
        worker.plan(stage);
        worker
    }

    pub(super) fn link(&self) -> Option<LinkId> {
        self.connection.as_ref().map(|connection| connection.link)
    }

    /// Killed by somebody: nothing of it is left.
    pub(super) fn kill(&mut self, stage: &mut Stage) {
        stage.note(TEST, Record::KilledClient { who: self.who });
        stage.saw(Seen::ClientsKilled);
        self.vanish(stage);
    }

    /// Leaves without a goodbye.
    pub(super) fn leave(&mut self, stage: &mut Stage) {
        stage.note(self.who, Record::Left);
        stage.saw(Seen::ClientsLeft);
        self.vanish(stage);
    }

    /// Wishes to close; what is unanswered is still carried for `grace` milliseconds.
    pub(super) fn close(&mut self, stage: &mut Stage, grace: u64) {
        if self.closing.is_none() {
            stage.note(self.who, Record::Closing);
            self.closing = Some(stage.now + grace);
            self.want.leases = 0;
            self.want_changed = true;
            // Who closes drops what it works on.
            for lease in std::mem::take(&mut self.work).into_keys() {
                self.let_go(stage, lease);
            }
            self.carry_on(stage);
        }
    }

    /// From now on it works well, on everything, until all is done.
    pub(super) fn become_good(&mut self, stage: &mut Stage) {
        let habits = &mut self.habits;
        (habits.fails, habits.exceeds, habits.halves, habits.releases, habits.drops) = (0, 0, 0, 0, 0);
        (habits.work_ms, habits.half_open) = (20, 0);
        habits.hands = habits.hands.max(4);
        if !std::mem::replace(&mut habits.until_done, true) {
            stage.note(self.who, Record::UntilDone);
        }
        habits.campaigns = Vec::new();
        for due in self.work.values_mut() {
            *due = (*due).min(stage.now + 20);
        }
        self.want = Want { leases: habits.leases.max(4), runs: habits.runs, campaigns: Vec::new() };
        (self.want_changed, self.idle) = (true, None);
        self.carry_on(stage);
    }

    /// Is stopped for some time, and then goes on as if nothing had been.
    pub(super) fn freeze(&mut self, stage: &mut Stage, milliseconds: u64) {
        stage.saw(Seen::ClientsFrozen);
        stage.note(TEST, Record::Frozen { who: self.who });
        self.frozen_until = stage.now + milliseconds;
        self.wake_at = self.frozen_until;
        stage.at(self.wake_at, Event::Wake { actor: self.actor });
    }

    /// How it stands, for a person.
    pub(super) fn describe(&self) -> String {
        format!(
            "{} holds {}, unanswered {}, working on {}, idle {:?}, connected {}, closing {:?}",
            self.who,
            self.inflight.healthy(),
            self.inflight.unanswered(),
            self.work.len(),
            self.idle,
            self.connection.is_some(),
            self.closing
        )
    }

    /// Another window, as a caller may set it at any time.
    pub(super) fn set_want(&mut self, stage: &mut Stage, leases: u32) {
        self.want.leases = leases;
        (self.want_changed, self.idle) = (true, None);
        self.carry_on(stage);
    }

    /// Gives up its connection, which is still good, and takes another.
    pub(super) fn reconnect(&mut self, stage: &mut Stage, half_open: bool) {
        if let Some(link) = self.link() {
            stage.abandon(link, half_open);
            self.ended(stage, End::Reconnect);
        }
        self.carry_on(stage);
    }

    /// Time has come for something.
    pub(super) fn wake(&mut self, stage: &mut Stage) {
        if self.wake_at == stage.now {
            if std::mem::take(&mut self.frozen_until) > 0 && self.state == State::Alive {
                stage.note(TEST, Record::Thawed { who: self.who });
            }
            self.carry_on(stage);
        }
    }

    /// Something arrived.
    pub(super) fn receive(&mut self, stage: &mut Stage, link: LinkId, chunk: Chunk) {
        if self.state == State::Ended || self.link() != Some(link) {
            return;
        }
        let result = match chunk {
            Chunk::Bytes(bytes) => self.read(stage, &bytes),
            Chunk::End => Err(End::Retry),
        };
        if let Err(end) = result {
            self.drop_connection(stage, end);
        }
        self.carry_on(stage);
    }

    fn vanish(&mut self, stage: &mut Stage) {
        if let Some(connection) = self.connection.take() {
            stage.abandon(connection.link, false);
        }
        let session = self.inflight.session();
        self.orphans.extend(self.inflight.unanswered_numbers().map(|number| (session, number)));
        self.state = State::Ended;
    }

    /// Does all that is to be done now, and plans when to look again.
    fn carry_on(&mut self, stage: &mut Stage) {
        if self.state == State::Ended {
            return;
        }
        if self.frozen_until <= stage.now {
            self.work_on(stage);
            if self.connection.is_none() && self.retry_at <= stage.now {
                self.dial(stage);
            }
            if let Err(end) = self.keep_going(stage) {
                self.drop_connection(stage, end);
            }
            let nothing_left = self.inflight.unanswered() == 0 && self.inflight.healthy() == 0;
            if let Some(deadline) = self.closing
                && self.connection.is_none()
                && (deadline <= stage.now || nothing_left)
            {
                self.ended(stage, End::Closed { said_goodbye: false });
            }
        }
        self.plan(stage);
    }

    fn plan(&mut self, stage: &mut Stage) {
        if self.state == State::Ended {
            return;
        }
        let mut next = self.work.values().copied().min().unwrap_or(u64::MAX);
        match &self.connection {
            None => next = next.min(self.retry_at),
            Some(connection) => {
                next = next.min(connection.heard + self.habits.silence_ms);
                next = next.min(connection.introduction.unwrap_or(connection.heartbeat));
                next = next.min(connection.goodbye.unwrap_or(u64::MAX));
            }
        }
        next = next.min(self.closing.filter(|closing| *closing > stage.now).unwrap_or(u64::MAX));
        let next = next.max(self.frozen_until).max(stage.now + 1);
        if next != self.wake_at {
            self.wake_at = next;
            stage.at(next, Event::Wake { actor: self.actor });
        }
    }

    fn dial(&mut self, stage: &mut Stage) {
        let link = stage.open(self.actor);
        stage.send(link, Side::Server, &frame::client_preface(VERSIONS));
        self.connection = Some(Connection {
            link,
            preface: Some(Vec::new()),
            frames: Decoder::new(limits::FRAME_BYTES_MAX),
            campaigns: BTreeMap::new(),
            lease_shortest: u64::MAX,
            introduction: Some(stage.now + limits::HANDSHAKE_MS_MAX),
            wanted: false,
            heartbeat: stage.now,
            goodbye: None,
            heard: stage.now,
        });
    }

    /// The client's end is closed, and the session offline.
    fn drop_connection(&mut self, stage: &mut Stage, end: End) {
        if let Some(link) = self.link() {
            let half_open = stage.random.percent(self.habits.half_open);
            stage.abandon(link, half_open);
        }
        self.ended(stage, end);
    }

    fn ended(&mut self, stage: &mut Stage, end: End) {
        let connection = self.connection.take();
        let welcomed = connection.as_ref().is_some_and(|connection| connection.introduction.is_none());
        let said = connection.as_ref().is_some_and(|connection| connection.goodbye.is_some());
        let end = match end {
            End::Retry | End::Reconnect if said => End::Closed { said_goodbye: false },
            end => end,
        };
        let wait = match end {
            End::Stop => {
                stage.note(self.who, Record::Left);
                self.vanish(stage);
                return;
            }
            End::Closed { said_goodbye } => {
                if said_goodbye {
                    // What crossed the goodbye on its way will never be answered.
                    for number in self.inflight.unanswered_numbers() {
                        stage.note(self.who, Record::Ack { number, heard: words::heard(Verdict::Unknown) });
                    }
                    stage.note(self.who, Record::Closed { goodbye: true });
                } else if self.inflight.unanswered() > 0 {
                    // Who closes before all is answered has left.
                    stage.note(self.who, Record::Left);
                } else {
                    stage.note(self.who, Record::Closed { goodbye: false });
                }
                self.vanish(stage);
                return;
            }
            End::Reconnect => !welcomed,
            End::Retry => true,
        };
        if welcomed {
            self.backoff.reset();
        }
        self.inflight.disconnected();
        self.marks = 0;
        self.idle = None;
        self.retry_at = stage.now + 1;
        if wait {
            let pause = self.backoff.next_wait(stage.random.number());
            self.retry_at += u64::try_from(pause.as_millis()).unwrap_or(5_000);
        }
    }

    /// Timers of the connection, and whatever waits to be sent.
    fn keep_going(&mut self, stage: &mut Stage) -> Result<(), End> {
        let now = stage.now;
        let Some(connection) = &mut self.connection else { return Ok(()) };
        if connection.heard + self.habits.silence_ms <= now
            || connection.introduction.is_some_and(|deadline| deadline <= now)
        {
            return Err(End::Retry);
        }
        if connection.introduction.is_none() && connection.heartbeat <= now {
            connection.heartbeat = now + connection.heartbeat_pause();
            let confirmed = self.inflight.confirmed();
            self.send(stage, &ClientMessage::Heartbeat { confirmed });
        }
        self.send_what_waits(stage)
    }

    fn send_what_waits(&mut self, stage: &mut Stage) -> Result<(), End> {
        if self.closing.is_some() {
            self.release_ready(stage);
        }
        let Some(connection) = &self.connection else { return Ok(()) };
        if connection.introduction.is_none() && connection.goodbye.is_none() {
            if connection.wanted {
                self.send_want(stage);
            }
            let limit = 1 + stage.random.below(8);
            while let Some((first, requests)) = self.inflight.next_batch(limit) {
                let last = first + requests.len() as u64 - 1;
                if first <= self.sent_through {
                    stage.coverage.add(Seen::Resent, self.sent_through.min(last) + 1 - first);
                }
                self.sent_through = self.sent_through.max(last);
                self.said.truncate(first as usize - 1);
                self.said.extend_from_slice(&requests);
                // Nobody must, but anybody may send again what was answered, and confirm late.
                let (mut first, mut requests) = (first, requests);
                let mut confirmed = self.inflight.confirmed();
                if !stage.calm && stage.random.percent(20) {
                    let earlier = stage.random.within(0..=5).min(first - 1);
                    stage.coverage.add(Seen::SaidTwice, earlier);
                    first -= earlier;
                    requests = self.said[first as usize - 1..].to_vec();
                    confirmed = confirmed.saturating_sub(stage.random.within(0..=5));
                }
                let requests = requests.into_iter().map(Into::into).collect();
                self.send(stage, &ClientMessage::Requests { first, confirmed, requests });
            }
            self.send_want(stage);
            if let Some(deadline) = self.closing
                && self.inflight.unanswered() == 0
            {
                self.send(stage, &ClientMessage::Goodbye);
                if let Some(connection) = &mut self.connection {
                    connection.goodbye = Some(deadline.max(stage.now + 1_000));
                }
            }
        }
        let goodbye = self.connection.as_ref().and_then(|connection| connection.goodbye);
        let over = self.closing.is_some_and(|deadline| deadline <= stage.now);
        if goodbye.map_or(over, |patience| patience <= stage.now) {
            return Err(End::Closed { said_goodbye: false });
        }
        Ok(())
    }

    fn send_want(&mut self, stage: &mut Stage) {
        if !std::mem::take(&mut self.want_changed) {
            return;
        }
        let Some(connection) = &mut self.connection else { return };
        if std::mem::replace(&mut connection.wanted, true) && self.habits.until_done && self.closing.is_none() {
            self.send(stage, &ClientMessage::Want { leases: 0, runs: 1, campaigns: Vec::new() });
            let request = WireControl::Fate { session: self.inflight.session().0, number: 0 };
            self.send(stage, &ClientMessage::Control { id: 0, request });
            self.marks += 1;
        }
        self.stood.clone_from(&self.standing);
        let Want { leases, runs, campaigns } = self.want.clone();
        self.widest = self.widest.max(leases);
        self.send(stage, &ClientMessage::Want { leases, runs, campaigns });
    }

    fn send(&self, stage: &mut Stage, message: &ClientMessage) {
        let Some(link) = self.link() else { return };
        let mut bytes = Vec::new();
        codec::encode_client(message, &mut bytes).unwrap();
        stage.send(link, Side::Server, &bytes);
    }

    fn introduce(&mut self, stage: &mut Stage) {
        self.want_changed = true;
        let session = WireSession {
            attempt: self.inflight.greet(),
            session: self.inflight.session().0,
            instance: self.inflight.instance().0,
            confirmed: self.inflight.confirmed(),
            name: format!("client:{}", self.who),
        };
        self.send(stage, &ClientMessage::Hello { token: String::new(), session: Some(session) });
    }

    fn read(&mut self, stage: &mut Stage, bytes: &[u8]) -> Result<(), End> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        connection.heard = stage.now;
        if let Some(preface) = &mut connection.preface {
            preface.extend_from_slice(bytes);
            let Some(answer) = ServerPreface::read(preface).map_err(|_| End::Retry)? else { return Ok(()) };
            answer.chosen.ok_or(End::Stop)?;
            let rest = preface.split_off(SERVER_PREFACE_BYTES);
            connection.frames.push(&rest);
            connection.preface = None;
            connection.introduction = Some(stage.now + limits::NATIVE_IDLE_MS);
            self.introduce(stage);
        } else {
            connection.frames.push(bytes);
        }
        loop {
            let Some(connection) = &mut self.connection else { return Ok(()) };
            let Some(body) = connection.frames.next_frame().map_err(|_| End::Retry)? else { return Ok(()) };
            let message = codec::decode_server(body).map_err(|_| End::Retry)?;
            self.take_message(stage, message)?;
            // What the message brought is carried before the next is looked at, or after.
            if stage.random.percent(50) {
                self.send_what_waits(stage)?;
            }
        }
    }

    fn take_message(&mut self, stage: &mut Stage, message: ServerMessage) -> Result<(), End> {
        match message {
            ServerMessage::Welcome { instance, resumed, through, refusals, leases } => {
                let instance = InstanceId(instance);
                if resumed {
                    stage.saw(Seen::Resumed);
                    if self.begun {
                        stage.note(self.who, Record::Resumed { instance: Some(words::instance(instance)), through });
                    }
                }
                match self.inflight.welcomed(instance, through, &refusals_of(refusals), leases) {
                    Ok((resolved, granted)) => {
                        self.resolve(stage, resolved);
                        self.take_granted(stage, granted);
                        self.check_introduced(stage);
                        Ok(())
                    }
                    Err(breach @ Breach::ForeignSession { .. }) => {
                        self.forget(stage, instance);
                        Err(breach.into())
                    }
                    Err(breach) => Err(breach.into()),
                }
            }
            ServerMessage::UnknownSession { instance } => {
                let introduced = self.connection.as_ref().is_none_or(|connection| connection.introduction.is_none());
                if introduced || self.inflight.instance() == InstanceId::NONE {
                    return Err(End::Retry);
                }
                self.forget(stage, InstanceId(instance));
                self.introduce(stage);
                Ok(())
            }
            ServerMessage::Grants { campaigns, grants, resent } => self.take_grants(stage, campaigns, grants, resent),
            ServerMessage::Answers { through, refusals } => {
                let resolved = self.inflight.answered(through, &refusals_of(refusals))?;
                self.resolve(stage, resolved);
                Ok(())
            }
            ServerMessage::Lost { leases } => {
                for (lease, reason) in leases.into_iter().map(<(LeaseId, LossReason)>::from) {
                    let mut told = None;
                    self.by_itself(stage, lease, |inflight, number| told = inflight.lost(lease, reason, number));
                    self.tell_lost(stage, told);
                }
                Ok(())
            }
            ServerMessage::Idle(idle) => {
                if !self.want_changed && self.marks == 0 {
                    self.idle = Some(idle.into());
                }
                Ok(())
            }
            ServerMessage::Heartbeat => Ok(()),
            ServerMessage::Control { .. } => {
                self.marks = self.marks.checked_sub(1).ok_or(End::Retry)?;
                Ok(())
            }
            ServerMessage::Closing { code, text: _ } => Err(match code {
                WireClosing::Goodbye => End::Closed { said_goodbye: true },
                WireClosing::Superseded | WireClosing::Protocol => End::Stop,
                WireClosing::Busy | WireClosing::Shutdown => End::Retry,
                WireClosing::Reconnect => End::Reconnect,
            }),
        }
    }

    fn take_grants(
        &mut self,
        stage: &mut Stage,
        campaigns: Vec<WireCampaign>,
        grants: Vec<WireGrant>,
        resent: bool,
    ) -> Result<(), End> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        for campaign in campaigns.into_iter().map(CampaignInfo::from) {
            connection.lease_shortest = connection.lease_shortest.min(campaign.lease_ms);
            connection.campaigns.insert(campaign.id, campaign);
        }
        connection.heartbeat = connection.heartbeat.min(stage.now + connection.heartbeat_pause());
        let mut leases = Vec::new();
        let mut news = Vec::new();
        for (grant, key) in grants.into_iter().map(<(Grant, Option<String>)>::from) {
            let Some(campaign) = connection.campaigns.get(&grant.campaign) else { return Err(End::Retry) };
            if !(1..=limits::LEASE_RUNS_MAX).contains(&grant.runs) {
                return Err(End::Retry);
            }
            assert_eq!(key, campaign.keyed.then(|| super::key_of(grant.task.0)), "a task's key is its own");
            let numbered = campaign.seed.is_some();
            news.push((grant, campaign.name.to_string(), Known { runs: grant.runs, numbered, lost: false }));
            leases.push((grant.lease, grant.lease));
        }
        let granted = self.inflight.granted(leases, resent)?;
        if granted.fresh > 0 {
            self.idle = None;
        }
        if self.inflight.healthy() > self.widest {
            let (held, most) = (self.inflight.healthy(), self.widest);
            stage.wrong = Some(format!("client {} holds {held} leases and never asked for more than {most}", self.who));
        }
        for (grant, campaign, known) in news {
            if self.known.contains_key(&grant.lease) {
                continue;
            }
            self.between = false;
            if !std::mem::replace(&mut self.begun, true) {
                let instance = Some(words::instance(self.inflight.instance()));
                stage.note(self.who, Record::Begin { session: words::session(self.inflight.session()), instance });
                if self.closing.is_some() {
                    // It may have said goodbye before it heard of this.
                    stage.note(self.who, Record::Closing);
                }
            }
            let (lease, task, first) = (grant.lease.to_u64(), grant.task.0, grant.first_run);
            stage.note(self.who, Record::Grant { lease, campaign, task, first, runs: grant.runs });
            self.known.insert(grant.lease, known);
        }
        self.take_granted(stage, granted);
        self.check_introduced(stage);
        Ok(())
    }

    fn take_granted(&mut self, stage: &mut Stage, mut granted: Granted<LeaseId>) {
        granted.lost.sort_unstable();
        self.tell_lost(stage, granted.lost);
    }

    fn tell_lost(&mut self, stage: &mut Stage, lost: impl IntoIterator<Item = LeaseId>) {
        for lease in lost {
            stage.note(self.who, Record::Lost { lease: lease.to_u64() });
            if let Some(known) = self.known.get_mut(&lease) {
                known.lost = true;
            }
            // Who listens stops working on it, and lets go of it.
            if !stage.random.percent(self.habits.stubborn) && self.work.remove(&lease).is_some() {
                self.let_go(stage, lease);
            }
        }
    }

    fn check_introduced(&mut self, stage: &Stage) {
        let Some(connection) = &mut self.connection else { return };
        if connection.introduction.is_some() && self.inflight.is_live() {
            connection.introduction = None;
            connection.heartbeat = stage.now + connection.heartbeat_pause();
        }
    }

    fn resolve(&mut self, stage: &mut Stage, resolved: Resolved<u64>) {
        for (number, verdict) in resolved {
            let late = self.late.remove(&number);
            let seen = match verdict {
                Verdict::Counted => {
                    stage.coverage.add(Seen::LateCounted, u64::from(late));
                    Seen::Requests
                }
                Verdict::Refused(_) => {
                    stage.coverage.add(Seen::LateRefused, u64::from(late));
                    Seen::Refused
                }
                Verdict::Unknown => Seen::Unknown,
            };
            stage.saw(seen);
            stage.note(self.who, Record::Ack { number, heard: words::heard(verdict) });
        }
    }

    /// The server does not know the session: another begins.
    fn forget(&mut self, stage: &mut Stage, instance: InstanceId) {
        let session = self.inflight.session();
        let forgotten = self.inflight.forget(SessionId(stage.random.id()));
        stage.saw(Seen::SessionsUnknown);
        if self.begun {
            self.between = true;
            stage.note(self.who, Record::Forgotten { instance: Some(words::instance(instance)) });
        }
        self.orphans.extend(forgotten.waiters.iter().map(|number| (session, *number)));
        self.resolve(stage, forgotten.waiters.into_iter().map(|number| (number, Verdict::Unknown)).collect());
        (self.begun, self.sent_through) = (false, 0);
        self.said.clear();
        self.known.clear();
        self.work.clear();
        self.late.clear();
    }

    /// Lets the books do something with a lease that may queue its release, which then goes into the history.
    fn by_itself(&mut self, stage: &mut Stage, lease: LeaseId, act: impl FnOnce(&mut Inflight<LeaseId, u64>, u64)) {
        let number = self.inflight.next_number();
        act(&mut self.inflight, number);
        if self.inflight.next_number() != number {
            self.note_send(stage, number, &Request::Release { lease });
        }
    }

    fn let_go(&mut self, stage: &mut Stage, lease: LeaseId) {
        self.by_itself(stage, lease, |inflight, number| {
            inflight.abandon(lease, number);
        });
    }

    fn release_ready(&mut self, stage: &mut Stage) {
        while let Some(lease) = self.inflight.take() {
            self.let_go(stage, lease);
        }
    }

    fn note_send(&mut self, stage: &mut Stage, number: u64, request: &Request) {
        let (Request::Report { lease, .. } | Request::Release { lease }) = request;
        stage.note(self.who, Record::Send { number, lease: lease.to_u64(), what: words::sent(request) });
        if self.known.get(lease).is_some_and(|known| known.lost) {
            self.late.insert(number);
        }
        match request {
            Request::Release { .. } => stage.saw(Seen::Releases),
            Request::Report { outcome: Outcome::Mixed { failed, .. }, .. } if *failed != 0 => stage.saw(Seen::Mixed),
            Request::Report { .. } => {}
        }
    }

    /// Reports what it is through with, takes new leases, and ends when all is done.
    fn work_on(&mut self, stage: &mut Stage) {
        let due: Vec<LeaseId> =
            self.work.iter().filter(|(_, due)| **due <= stage.now).map(|(lease, _)| *lease).collect();
        for lease in due {
            self.work.remove(&lease);
            self.finish(stage, lease);
        }
        while self.closing.is_none() && self.work.len() < self.habits.hands {
            let Some(lease) = self.inflight.take() else { break };
            let time =
                if self.habits.even { self.habits.work_ms } else { stage.random.within(0..=self.habits.work_ms) };
            self.work.insert(lease, stage.now + time);
        }
        let settled = match self.idle {
            Some(Idle::Settled(settled)) => Some(settled),
            Some(Idle::Absent | Idle::Lent | Idle::Paused | Idle::Released | Idle::Closed) | None => None,
        };
        if let Some(settled) = settled
            && self.habits.until_done
            && self.closing.is_none()
            && self.inflight.healthy() == 0
            && self.inflight.unanswered() == 0
        {
            let wanted = if self.want.campaigns.is_empty() { self.stood.clone() } else { self.want.campaigns.clone() };
            // Of all that there are and that are not all finished it is not known which are.
            if !self.between && (settled.finished() || !self.want.campaigns.is_empty()) {
                for campaign in wanted {
                    stage.note(self.who, Record::Settled { campaign, finished: settled.finished() });
                }
            }
            stage.saw(Seen::UntilDone);
            self.close(stage, 5_000);
        }
    }

    fn finish(&mut self, stage: &mut Stage, lease: LeaseId) {
        let Some(known) = self.known.get(&lease).cloned() else { return };
        let all = u64::MAX >> (64 - known.runs);
        let habits = self.habits.clone();
        let request = if stage.random.percent(habits.drops) {
            self.let_go(stage, lease);
            return;
        } else if stage.random.percent(habits.releases) {
            Request::Release { lease }
        } else if stage.random.percent(habits.fails) {
            let failed = (stage.random.number() & all).max(1);
            let done = stage.random.number() & all & !failed;
            Request::Report { lease, outcome: Outcome::Mixed { done, failed, error: "it broke".into() } }
        } else if stage.random.percent(habits.exceeds) {
            // Counted campaigns take it; numbered ones refuse it.
            stage.coverage.add(Seen::OverReports, u64::from(!known.numbered));
            let runs = known.runs + stage.random.within(1..=3) as u32;
            Request::Report { lease, outcome: Outcome::Done { runs } }
        } else if stage.random.percent(habits.halves) {
            Request::Report { lease, outcome: Outcome::Done { runs: known.runs.div_ceil(2) } }
        } else {
            Request::Report { lease, outcome: Outcome::Done { runs: known.runs } }
        };
        let number = self.inflight.next_number();
        if self.inflight.queue(lease, request.clone(), number) == Ok(number) {
            self.note_send(stage, number, &request);
        }
    }
}

impl Connection {
    fn heartbeat_pause(&self) -> u64 {
        (self.lease_shortest / 4).clamp(1, limits::HEARTBEAT_MS)
    }
}

fn refusals_of(refusals: Vec<WireRefusal>) -> Vec<Refusal> {
    refusals.into_iter().map(Into::into).collect()
}
