//! One server process: the real pipeline over the real coordinator, ledger and recovery, and the ends of its connections.
//!
//! ```text
//!   pieces ──▶ dialect, preface, frames ──▶ permitted ──▶ inbox ──▶ turn ──▶ commit ──▶ outboxes ──▶ frames ──▶ pieces
//! ```
//!
//! An end of a connection does what `server/session.rs`, `native.rs` and `origin.rs` do around the functions they share
//! with it: tell the dialect, bound the first frame, drop the registration when nothing more is read, say last words.
//! **Invariant**: nothing of a turn is written before the turn has returned, unless the pipeline let it out earlier.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Waker};

use tenfold_checker::history::{Moment, Record, TEST};
use tokio::sync::watch;

use super::coverage::Seen;
use super::dump::dump;
use super::shape::Shape;
use super::stage::{Chunk, Event, LinkId, Side, Stage};
use super::watched::{Committer, Desk, Disk, Ended, Shared, Watched};
use super::words;
use crate::coordinator::Coordinator;
use crate::coordinator::command::{Command, ControlAnswer, OriginAnswer, Output};
use crate::coordinator::rows::Row;
use crate::limits;
use crate::protocol::frame::{self, Decoder, ServerPreface, VERSIONS};
use crate::protocol::messages::{ServerMessage, WireClosing};
use crate::protocol::{codec, dialect, origin};
use crate::server::clock::{Look, Steps, Time};
use crate::server::connection::Ending;
use crate::server::dispatch::{Dispatcher, dispatch};
use crate::server::fatal::Fatal;
use crate::server::inbox::{Inbox, Registration, inbox};
use crate::server::keys::Keys;
use crate::server::native::{self, LastMessage};
use crate::server::outbox::AllOutboxes;
use crate::server::pipeline::{Drained, Links, Pipeline};
use crate::server::translate::{self, Introduction, Said, client_message};
use crate::server::watchdog::CommitGauge;
use crate::store::memory::MemoryStore;
use crate::store::{OpenError, Texts, open_in_memory};
use crate::types::{ConnectionId, InstanceId, Tick};

/// Bounds of a simulated server.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    /// Outputs that wait for one connection.
    pub(super) outbox: usize,
    /// Bytes on their way to a client above which nothing more is written to it.
    pub(super) window: usize,
    /// A native connection that is silent for this long is closed.
    pub(super) idle_ms: u64,
    /// A connection of the origin's dialect that is silent for this long is closed.
    pub(super) origin_idle_ms: u64,
}

/// Why a server did not start.
#[derive(Debug)]
pub(super) enum NoStart {
    /// What is stored is damaged.
    Refused(String),
    /// The process ended while it started.
    Ended(Ended),
}

/// Time as the process has it, from when it started.
struct ProcessClock {
    elapsed: Rc<Cell<u64>>,
    steps: Steps,
}

impl Time for ProcessClock {
    fn look(&mut self) -> Look {
        self.steps.look(self.elapsed.get())
    }

    fn glance(&self) -> Tick {
        self.steps.glance(self.elapsed.get())
    }
}

/// See the head of this file.
pub(super) struct Process {
    pub(super) instance: InstanceId,
    pipeline: Pipeline<Watched, Disk, ProcessClock, Committer>,
    inbox: Inbox,
    dispatcher: Dispatcher,
    outboxes: AllOutboxes,
    texts: Texts,
    pub(super) backstage: Shared,
    elapsed: Rc<Cell<u64>>,
    started: u64,
    bounds: Bounds,
    ends: BTreeMap<LinkId, End>,
    /// How long the process has run, stalls left out, by the end of its last turn, and when that was.
    ran_ms: u64,
    last_turn: u64,
    /// When the pipeline has its next turn.
    turn_at: u64,
    /// The process does not run until then.
    pub(super) stalled_until: u64,
    /// The longest that a commit takes.
    pub(super) commit_ms: u64,
}

/// The server's end of a connection.
struct End {
    connection: ConnectionId,
    phase: Phase,
    received: Vec<u8>,
    frames: Decoder,
    origin: origin::Decoder,
    registration: Option<Registration>,
    has_session: bool,
    opened: u64,
    heard: u64,
    wrote: u64,
    keyed: BTreeSet<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The dialect is not known.
    New,
    /// Native, before the hello.
    Prefaced,
    Native,
    Origin,
    /// Nothing more is read or written.
    Over,
}

impl Process {
    /// Opens the store, dumps what it holds, and has the pipeline boot.
    pub(super) fn start(
        stage: &mut Stage,
        store: &MemoryStore,
        shape: &Shape,
        backstage: Shared,
        acked: u64,
    ) -> Result<Self, NoStart> {
        let (options, bounds) = (&shape.options, shape.bounds.clone());
        let fresh = InstanceId(stage.random.id());
        let before = store.killed();
        let mut opened = open_in_memory(store, fresh, options.clone(), Tick(0)).map_err(|error| match error {
            OpenError::Damaged { what, .. } => NoStart::Refused(what),
            error => {
                assert!(matches!(error, OpenError::Store { .. }), "{error}");
                NoStart::Ended(Ended::DiskFailed)
            }
        })?;
        if opened.recovery.sequence < acked {
            return Err(NoStart::Refused("the end of the database is lost".into()));
        }
        opened.ledger.set_pace(shape.pace);
        stage.saw(Seen::Starts);
        if opened.recovery.notes.iter().any(|note| note.contains("was cut short")) {
            stage.saw(Seen::CommitsCutShort);
        }
        stage.note(TEST, Record::Boot { instance: words::instance(opened.instance) });
        let view = opened.coordinator.durable_view();
        let copy = |records| {
            let opened = open_in_memory(&MemoryStore::with(records), fresh, options.clone(), Tick(0));
            opened.map(|opened| opened.coordinator).map_err(|error| NoStart::Refused(error.to_string()))
        };
        if !before.is_empty() {
            let once = copy(before)?;
            assert_eq!(once.durable_view(), view, "recovering twice is recovering once");
        }
        dump(stage, Moment::Recovered, copy(store.killed())?);
        if stage.random.percent(10) {
            dump(stage, Moment::Again, copy(store.killed())?);
        }
        let instance = opened.instance;
        let elapsed = Rc::new(Cell::new(0));
        let (inbox, messages) = inbox(limits::INBOX_MAX);
        let (releases, dispatcher) = dispatch();
        let links = Links {
            inbox: messages,
            releases,
            drained: watch::channel(Drained::default()).0,
            stop: Arc::<AtomicBool>::default(),
            gauge: CommitGauge::default(),
            tally: Arc::default(),
            fatal: Fatal::new(|_| ()),
            fault: None,
            turns: shape.turns,
        };
        let committer = Committer::new(stage.random.number(), Rc::clone(&backstage));
        let machine = Watched::new(opened.coordinator, options.session_idle_ms, Rc::clone(&backstage));
        let disk = Disk::new(opened.ledger, store.clone(), Rc::clone(&backstage));
        let clock = ProcessClock { elapsed: Rc::clone(&elapsed), steps: Steps::default() };
        let booted = Pipeline::boot(machine, disk, clock, committer, links);
        note_all(stage, &backstage);
        let pipeline = booted.map_err(NoStart::Ended)?;
        for row in view.into_values() {
            if let Row::Session(_, row) = row
                && !row.origin
                && row.processed > 0
            {
                let session = words::session(row.id);
                stage.note(TEST, Record::Durable { session, through: row.processed });
            }
        }
        stage.note(TEST, Record::Ready);
        let mut process = Self {
            instance,
            pipeline,
            inbox,
            dispatcher,
            outboxes: AllOutboxes::new(limits::OUTBOXES_BYTES_MAX),
            texts: opened.texts,
            backstage,
            elapsed,
            started: stage.now,
            bounds,
            ends: BTreeMap::new(),
            ran_ms: 0,
            last_turn: stage.now,
            turn_at: u64::MAX,
            stalled_until: 0,
            commit_ms: 0,
        };
        process.plan_turn(stage);
        Ok(process)
    }

    /// The state machine.
    pub(super) fn coordinator(&self) -> &Coordinator {
        &self.pipeline.machine().coordinator
    }

    /// Something arrived for a connection of this process.
    pub(super) fn receive(&mut self, stage: &mut Stage, link: LinkId, chunk: Chunk) {
        let now = stage.now;
        // Numbered as they are opened, however late their first bytes come.
        let end = self.ends.entry(link).or_insert_with(|| End::new(ConnectionId(link), now));
        end.heard = now;
        let result = match chunk {
            Chunk::Bytes(bytes) => self.read(stage, link, &bytes),
            Chunk::End => Err(Ending::PeerClosed),
        };
        if let Err(ending) = result {
            self.end(stage, link, &ending);
        }
        if self.turn_at > now + 2 {
            let soon = now + stage.random.within(0..=2);
            self.turn_at = soon;
            stage.at(soon, Event::Turn);
        }
    }

    /// The pipeline takes what waits, commits and lets its outcome out.
    pub(super) fn turn(&mut self, stage: &mut Stage) -> Result<(), Ended> {
        if self.turn_at != stage.now {
            return Ok(());
        }
        self.elapsed.set(stage.now - self.started);
        self.ran_ms += (stage.now - self.last_turn).min(limits::CLOCK_STEP_MS_MAX);
        self.last_turn = stage.now;
        self.backstage.borrow_mut().ran_ms = self.ran_ms;
        let first = self.pipeline.take_left_over();
        let result = self.pipeline.turn(first);
        self.dispatcher.deliver_waiting();
        note_all(stage, &self.backstage);
        stage.wrong = stage.wrong.take().or_else(|| self.backstage.borrow_mut().wrong.take());
        result?;
        let commit_ms = if self.commit_ms == 0 { 0 } else { stage.random.within(0..=self.commit_ms) };
        stage.after(commit_ms, Event::Flush);
        self.plan_turn(stage);
        Ok(())
    }

    /// Writers write what was let out.
    pub(super) fn flush(&mut self, stage: &mut Stage) {
        let links: Vec<LinkId> = self.ends.keys().copied().collect();
        for link in links {
            self.write(stage, link);
        }
    }

    /// Signs of life, and the ends of those that give none.
    pub(super) fn upkeep(&mut self, stage: &mut Stage) {
        let links: Vec<LinkId> = self.ends.keys().copied().collect();
        for link in links {
            let Some(end) = self.ends.get_mut(&link) else { continue };
            let silent = stage.now - end.heard;
            let ending = match end.phase {
                Phase::New | Phase::Prefaced if stage.now - end.opened >= limits::HANDSHAKE_MS_MAX => true,
                Phase::Native => silent >= self.bounds.idle_ms,
                Phase::Origin => silent >= self.bounds.origin_idle_ms,
                Phase::New | Phase::Prefaced | Phase::Over => false,
            };
            if ending {
                self.end(stage, link, &Ending::Silent);
                continue;
            }
            if end.phase == Phase::Native && stage.now - end.wrote >= self.bounds.idle_ms / 6 {
                end.wrote = stage.now;
                send(stage, link, &ServerMessage::Heartbeat);
            }
            self.write(stage, link);
        }
        self.ends.retain(|_, end| end.phase != Phase::Over);
    }

    /// The process does not run: its next turn is when it does.
    pub(super) fn sleep(&mut self, stage: &mut Stage) {
        self.turn_at = self.stalled_until;
        stage.at(self.turn_at, Event::Turn);
    }

    fn plan_turn(&mut self, stage: &mut Stage) {
        let patience = u64::try_from(self.pipeline.patience().as_millis()).unwrap_or(limits::CLOCK_LOOK_MS);
        self.turn_at = stage.now + patience;
        stage.at(self.turn_at, Event::Turn);
    }

    fn read(&mut self, stage: &mut Stage, link: LinkId, bytes: &[u8]) -> Result<(), Ending> {
        let Some(end) = self.ends.get_mut(&link) else { return Ok(()) };
        match end.phase {
            Phase::Over => Ok(()),
            Phase::New => {
                end.received.extend_from_slice(bytes);
                match dialect::tell(&end.received) {
                    dialect::Dialect::NeedMore => Ok(()),
                    dialect::Dialect::Native => self.read_preface(stage, link),
                    dialect::Dialect::Origin => {
                        end.phase = Phase::Origin;
                        end.origin.push(&end.received);
                        self.read_origin(link)
                    }
                    other @ (dialect::Dialect::Http | dialect::Dialect::Tls | dialect::Dialect::JsonLines) => {
                        Err(Ending::Protocol(format!("{other:?}")))
                    }
                }
            }
            Phase::Prefaced => {
                end.frames.push(bytes);
                self.read_hello(stage, link)
            }
            Phase::Native => {
                end.frames.push(bytes);
                self.read_frames(link)
            }
            Phase::Origin => {
                end.origin.push(bytes);
                self.read_origin(link)
            }
        }
    }

    fn read_preface(&mut self, stage: &mut Stage, link: LinkId) -> Result<(), Ending> {
        let Some(end) = self.ends.get_mut(&link) else { return Ok(()) };
        let versions =
            frame::read_client_preface(&end.received).map_err(|error| Ending::Protocol(error.to_string()))?;
        let Some(versions) = versions else { return Ok(()) };
        let preface = ServerPreface::answer(VERSIONS, versions);
        stage.send(link, Side::Client, &preface.to_bytes());
        end.phase = Phase::Prefaced;
        end.frames.push(&end.received[frame::CLIENT_PREFACE_BYTES..]);
        end.received = Vec::new();
        self.read_hello(stage, link)
    }

    fn read_hello(&mut self, stage: &mut Stage, link: LinkId) -> Result<(), Ending> {
        let Some(end) = self.ends.get_mut(&link) else { return Ok(()) };
        let protocol = |error: &dyn std::fmt::Display| Ending::Protocol(error.to_string());
        let Some(body) = end.frames.next_frame().map_err(|error| protocol(&error))? else { return Ok(()) };
        let message = codec::decode_client(body).map_err(|error| protocol(&error))?;
        let introduction = match client_message(end.connection, message) {
            Said::Introduced(introduction) => introduction,
            Said::Command(_) => return Err(Ending::Protocol("the first message must be a hello".into())),
        };
        end.frames.set_limit(limits::FRAME_BYTES_MAX);
        end.phase = Phase::Native;
        self.register(link);
        match introduction {
            Introduction::Session(hello) => {
                let Some(end) = self.ends.get_mut(&link) else { return Ok(()) };
                end.has_session = true;
                let connection = end.connection;
                self.say(link, Command::Hello { connection, hello });
                stage.saw(Seen::Connections);
            }
            Introduction::ControlOnly => {
                let instance = self.instance.0;
                let refusals = Vec::new();
                let welcome = ServerMessage::Welcome { instance, resumed: false, through: 0, refusals, leases: 0 };
                send(stage, link, &welcome);
            }
        }
        self.read_frames(link)
    }

    fn read_frames(&mut self, link: LinkId) -> Result<(), Ending> {
        loop {
            let Some(end) = self.ends.get_mut(&link) else { return Ok(()) };
            let message = match end.frames.next_frame() {
                Ok(None) => return Ok(()),
                Ok(Some(body)) => codec::decode_client(body).map_err(|error| Ending::Protocol(error.to_string()))?,
                Err(error) => return Err(Ending::Protocol(error.to_string())),
            };
            if let Some(command) = native::permitted(end.connection, message, end.has_session)? {
                self.say(link, command);
            }
        }
    }

    fn read_origin(&mut self, link: LinkId) -> Result<(), Ending> {
        loop {
            let Some(end) = self.ends.get_mut(&link) else { return Ok(()) };
            let message = end.origin.next_message().map_err(|error| Ending::Protocol(error.to_string()))?;
            let Some(done) = message else { return Ok(()) };
            let connection = end.connection;
            if end.registration.is_none() {
                self.register(link);
            }
            self.say(link, Command::Origin { connection, done });
        }
    }

    fn register(&mut self, link: LinkId) {
        let Some(end) = self.ends.get_mut(&link) else { return };
        let (outbox, outputs, overflow) = self.outboxes.open(self.bounds.outbox, limits::OUTBOX_BYTES_MAX);
        let desk = Desk { outputs, overflow, taken: VecDeque::new(), introduced: VecDeque::new(), takes: true };
        self.backstage.borrow_mut().desks.insert(end.connection, desk);
        end.registration = at_once(self.inbox.open(end.connection, outbox)).ok();
    }

    fn say(&mut self, link: LinkId, command: Command) {
        let Some(end) = self.ends.get(&link) else { return };
        if let Command::Hello { hello, .. } = &command {
            let mut backstage = self.backstage.borrow_mut();
            let others = backstage.desks.values().filter(|desk| desk.introduced.contains(&hello.session)).count();
            backstage.coverage.add(Seen::TwoConnections, others.min(1) as u64);
            if let Some(desk) = backstage.desks.get_mut(&end.connection) {
                desk.introduced.push_back(hello.session);
            }
        }
        if let Some(registration) = &end.registration {
            // The pipeline lives as long as the process.
            let _ = at_once(registration.command(command));
        }
    }

    /// Nothing more is read; what was put out before is still written, then the last words.
    fn end(&mut self, stage: &mut Stage, link: LinkId, ending: &Ending) {
        self.write(stage, link);
        let Some(end) = self.ends.get_mut(&link) else { return };
        if end.phase == Phase::Over {
            return;
        }
        end.registration = None;
        let native = matches!(end.phase, Phase::Native | Phase::Prefaced);
        end.phase = Phase::Over;
        let words = match ending {
            Ending::Protocol(text) => Some((WireClosing::Protocol, text.clone())),
            Ending::Silent => Some((WireClosing::Reconnect, "nothing was heard of you".to_owned())),
            Ending::Goodbye => Some((WireClosing::Goodbye, "goodbye".to_owned())),
            Ending::PeerClosed
            | Ending::Closed
            | Ending::Crowded
            | Ending::Trickled
            | Ending::SlowReader
            | Ending::Shutdown
            | Ending::PipelineEnded => None,
        };
        if let (Some((code, text)), true) = (words, native) {
            send(stage, link, &ServerMessage::Closing { code, text });
        }
        stage.close(link, Side::Client, true);
        self.backstage.borrow_mut().desks.remove(&end.connection);
    }

    /// Writes what was let out for a connection, as far as it takes it.
    fn write(&mut self, stage: &mut Stage, link: LinkId) {
        loop {
            let Some(end) = self.ends.get_mut(&link) else { return };
            let takes = stage.backlog(link, Side::Client) <= self.bounds.window;
            let output = {
                let mut backstage = self.backstage.borrow_mut();
                let Some(desk) = backstage.desks.get_mut(&end.connection) else { return };
                desk.takes = takes;
                if at_once_or_not(desk.overflow.happened()).is_some() {
                    drop(backstage);
                    stage.saw(Seen::SlowReaders);
                    return self.end(stage, link, &Ending::SlowReader);
                }
                backstage.take_outputs(end.connection);
                if takes {
                    backstage.desks.get_mut(&end.connection).and_then(|desk| desk.taken.pop_front())
                } else {
                    None
                }
            };
            note_all(stage, &self.backstage);
            let Some(output) = output else { return };
            end.wrote = stage.now;
            if end.phase == Phase::Origin {
                match output {
                    Output::Origin(answer) => stage.send(link, Side::Client, &origin::encode_answer(number(answer))),
                    Output::Close(_) => return self.end(stage, link, &Ending::Closed),
                    Output::Welcome { .. }
                    | Output::UnknownSession { .. }
                    | Output::Grants { .. }
                    | Output::Answers { .. }
                    | Output::Lost { .. }
                    | Output::Idle(_)
                    | Output::Control { .. } => {}
                }
                continue;
            }
            match self.message(link, output) {
                Ok(message) => send(stage, link, &message),
                Err(LastMessage(message)) => {
                    send(stage, link, &message);
                    return self.end(stage, link, &Ending::Closed);
                }
            }
        }
    }

    /// The message of an output, with the keys of its tasks.
    fn message(&mut self, link: LinkId, output: Output) -> Result<ServerMessage, LastMessage> {
        let Some(end) = self.ends.get_mut(&link) else { return native::message_without_keys(output) };
        match output {
            Output::Grants { campaigns, grants, resent } => {
                end.keyed.extend(campaigns.iter().filter(|campaign| campaign.keyed).map(|campaign| campaign.id.0));
                let mut keys = Keys::new();
                for grant in grants.iter().filter(|grant| end.keyed.contains(&grant.campaign.0)) {
                    let Ok(key) = self.texts.keys(grant.campaign, grant.task, 1) else {
                        let text = "a grant cannot be sent".to_owned();
                        return Err(LastMessage(ServerMessage::Closing { code: WireClosing::Busy, text }));
                    };
                    keys.extend(key.into_iter().map(|key| ((grant.campaign, grant.task), key)));
                }
                Ok(native::grants_message(&campaigns, grants, resent, &keys))
            }
            Output::Control { id, answer } => {
                let mut keys = None;
                if let ControlAnswer::Counts { campaign, keyed: true, tasks, .. } = &answer
                    && let Some(first) = tasks.first()
                {
                    keys = self.texts.keys(*campaign, first.index, tasks.len() as u32).ok();
                }
                Ok(ServerMessage::Control { id, answer: translate::control_answer(answer, keys) })
            }
            output @ (Output::Welcome { .. }
            | Output::UnknownSession { .. }
            | Output::Answers { .. }
            | Output::Lost { .. }
            | Output::Idle(_)
            | Output::Close(_)
            | Output::Origin(_)) => native::message_without_keys(output),
        }
    }

    /// What the ends of connections let out before the process ended still reaches the peers.
    pub(super) fn last_breath(&mut self, stage: &mut Stage) {
        self.flush(stage);
        note_all(stage, &self.backstage);
    }
}

impl End {
    fn new(connection: ConnectionId, now: u64) -> Self {
        Self {
            connection,
            phase: Phase::New,
            received: Vec::new(),
            frames: Decoder::new(limits::HELLO_FRAME_BYTES_MAX),
            origin: origin::Decoder::default(),
            registration: None,
            has_session: false,
            opened: now,
            heard: now,
            wrote: now,
            keyed: BTreeSet::new(),
        }
    }
}

fn note_all(stage: &mut Stage, backstage: &RefCell<super::watched::Backstage>) {
    let mut backstage = backstage.borrow_mut();
    for record in std::mem::take(&mut backstage.notes) {
        stage.note(TEST, record);
    }
    let coverage = std::mem::take(&mut backstage.coverage);
    stage.coverage.merge(&coverage);
}

fn send(stage: &mut Stage, link: LinkId, message: &ServerMessage) {
    let mut bytes = Vec::new();
    codec::encode_server(message, &mut bytes).unwrap();
    stage.send(link, Side::Client, &bytes);
}

fn number(answer: OriginAnswer) -> i64 {
    match answer {
        OriginAnswer::Task(number) => i64::try_from(number).unwrap_or(i64::MAX),
        OriginAnswer::Settled => -1,
        OriginAnswer::Wait => -2,
    }
}

/// The outcome of something that does not have to wait.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    at_once_or_not(future).expect("the inbox has room for all that a simulation says")
}

fn at_once_or_not<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}
