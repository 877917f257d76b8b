//! The one thread that owns the coordinator and the ledger: takes what waits, applies all of it, commits once, and only
//! then lets anybody see the outcome.
//!
//! ```text
//!   inbox ──take──▶ [ apply … apply, advance? ] ──▶ commit ──▶ release ──▶ dispatcher
//!                    memory                         disk       peers
//! ```
//!
//! Group commit needs no timer: while one commit syncs, the next gathers in the inbox. A large one is written by another thread
//! ([`super::committer`]), and what comes meanwhile is decided at once, for the next turn:
//!
//! ```text
//!   turn 1:  apply ▶ begin ▶ ╭ written by the committer ╮ ▶ end ▶ release
//!   turn 2:                  ╰ apply … apply            ╯         ▶ apply ▶ begin ▶ …
//! ```
//!
//! What is large pays for being handed over and for being woken by every message.
//!
//! **Invariants**
//! - Nothing leaves before the commit that contains its cause has returned; if it fails, nothing leaves at all and the
//!   process ends ([`Fatal`]).
//! - A turn that changed nothing neither writes nor syncs.
//! - The pipeline never waits for a peer.
//! - Time is decided upon only when everything that had been received when it was due has been applied; never while a commit is
//!   written: a disk that stands still is a stall. However much waits and however slow the disk is, it is decided upon in the end.
//!
//! Tested in this file with a state machine, a disk and a clock that keep a diary.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::clock::{Look, Time};
use super::committer::{Commit, Meanwhile, Write};
use super::dispatch::{Release, Releases};
use super::fatal::Fatal;
use super::fault::{Fault, Kinds, Point};
use super::inbox::{Heard, Inbound, Messages, Weight};
use super::outbox::Outbox;
use super::watchdog::CommitGauge;
use crate::coordinator::command::{Command, Step, TextChange};
use crate::coordinator::rows::Changed;
use crate::limits::{CLOCK_LOOK_MS, COMMIT_BYTES_MAX, LARGE_COMMIT_REQUESTS, REQUESTS_PER_COMMIT_MAX};
use crate::types::{ConnectionId, Tick};

/// The state machine, as far as the pipeline needs it: [`crate::coordinator::Coordinator`].
pub(crate) trait Machine {
    /// Decides, and adds what comes of it to what came of commands before.
    fn apply_to(&mut self, steps: &mut Step, now: Tick, command: Command);
    /// When [`Command::Advance`] is due.
    fn next_deadline(&self) -> Option<Tick>;
    /// Live leases; asked only while draining.
    fn live_leases(&self) -> usize;
}

/// What makes changes durable: [`crate::store::Ledger`].
pub(crate) trait Journal<M> {
    /// Why a commit failed.
    type Error: std::error::Error + Send + Sync + 'static;
    /// A commit that is to be written.
    type Writing: Write;

    /// Makes a commit of the changes; nothing is durable yet. `machine` shows the rows as they stand after the changes, and so what they are.
    fn begin(&mut self, changes: &[Changed], texts: &[TextChange], machine: &M) -> Result<Self::Writing, Self::Error>;

    /// Takes note of what came of it, if it is known: durable when it returns `Ok`.
    fn end(&mut self, written: Option<<Self::Writing as Write>::Written>) -> Result<(), Self::Error>;
}

/// How much the pipeline takes into one turn, and which turns are large: other messages are decided on while they are written.
#[derive(Clone, Copy, Debug)]
pub struct Turns {
    /// Requests in one turn at most, at least one message. A message without any counts as one.
    pub requests_max: usize,
    /// A turn of so many is large.
    pub large_requests: NonZero<usize>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { requests_max: REQUESTS_PER_COMMIT_MAX, large_requests: LARGE_COMMIT_REQUESTS }
    }
}

/// What the pipeline has done since its start; cheap to read at any time.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Commits, each with a sync.
    pub(crate) commits: AtomicU64,
    /// Commands applied, those of time and of ends included.
    pub(crate) commands: AtomicU64,
    /// Reports and releases applied.
    pub(crate) requests: AtomicU64,
}

/// How far a shutdown has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Drained {
    /// The coordinator lends nothing more.
    pub(crate) draining: bool,
    /// Live leases, while draining.
    pub(crate) leases: usize,
}

/// What connects a pipeline with the rest of the server.
#[derive(Debug)]
pub(crate) struct Links {
    /// Where commands come from.
    pub(crate) inbox: Messages,
    /// Where outcomes go to.
    pub(crate) releases: Releases,
    /// Whom to tell about a shutdown's progress.
    pub(crate) drained: watch::Sender<Drained>,
    /// Set by others: end after the present commit, whatever waits.
    pub(crate) stop: Arc<AtomicBool>,
    /// For the watchdog.
    pub(crate) gauge: CommitGauge,
    /// For everybody.
    pub(crate) tally: Arc<Tally>,
    /// What to do when a commit fails.
    pub(crate) fatal: Fatal,
    /// For crash tests.
    pub(crate) fault: Option<Fault>,
    /// How much a turn takes in, and what is large.
    pub(crate) turns: Turns,
}

/// The pipeline; see the head of this file.
#[derive(Debug)]
pub(crate) struct Pipeline<M, J, T, C> {
    machine: M,
    journal: J,
    clock: T,
    committer: C,
    /// The last look.
    now: Tick,
    links: Links,
    /// A message that was taken but did not fit into its turn.
    left_over: Option<Inbound>,
    /// What was decided while the last commit was written.
    ahead: Work,
    /// How many messages are to be applied before time may be, since it was found due.
    ahead_of_time: Option<usize>,
    /// After a stall: the tick before which time is not applied, so that what the peers sent meanwhile is read first.
    hold_until: Option<Tick>,
    draining: bool,
}

/// What one turn's commands came to, before anything of it is durable.
#[derive(Debug, Default)]
struct Work {
    /// How many messages were applied.
    taken: usize,
    /// What they weigh together.
    weight: Weight,
    /// What all of them came to.
    steps: Step,
    /// Connections that it took in, and where their outputs go.
    opened: Vec<(ConnectionId, Outbox)>,
    /// Connections whose end it took in.
    ended: Vec<ConnectionId>,
    kinds: Kinds,
}

impl<M: Machine, J: Journal<M>, T: Time, C: Commit<J::Writing>> Pipeline<M, J, T, C> {
    /// Takes over a state machine that was just restored, and makes durable what [`Command::Boot`] changes.
    ///
    /// # Errors
    /// The commit failed.
    pub(crate) fn boot(machine: M, journal: J, clock: T, committer: C, links: Links) -> Result<Self, J::Error> {
        let mut pipeline = Self {
            machine,
            journal,
            clock,
            committer,
            now: Tick::default(),
            links,
            left_over: None,
            ahead: Work::default(),
            ahead_of_time: None,
            hold_until: None,
            draining: false,
        };
        pipeline.now = pipeline.clock.look().now;
        let mut work = Work::default();
        pipeline.apply(Command::Boot, &mut work);
        pipeline.commit(&work)?;
        pipeline.release(work, None);
        Ok(pipeline)
    }

    /// Works until every sender of the inbox is gone and all that they sent is done, or until told to stop.
    ///
    /// # Errors
    /// A commit failed; the fatal callback has been called with the reason.
    pub(crate) fn run(mut self) -> Result<(), J::Error> {
        while !self.links.stop.load(Ordering::Relaxed) {
            let first = match self.wait() {
                Heard::Said(inbound) => Some(inbound),
                // A commit that was through before it was waited for rings late.
                Heard::Nothing | Heard::Rung => None,
                Heard::Over => return Ok(()),
            };
            if let Err(error) = self.turn(first) {
                self.links.fatal.call(&format!("a commit failed: {}", with_sources(&error)));
                return Err(error);
            }
        }
        Ok(())
    }

    /// The state machine, to be looked at before the pipeline runs.
    pub(crate) fn machine(&self) -> &M {
        &self.machine
    }

    /// The message that was taken but did not fit into its turn, which comes first in the next.
    pub(crate) fn take_left_over(&mut self) -> Option<Inbound> {
        self.left_over.take()
    }

    /// Waits for a message or for time; not at all while there is something to do.
    fn wait(&mut self) -> Heard {
        if let Some(inbound) = self.take_left_over() {
            return Heard::Said(inbound);
        }
        if self.ahead.taken > 0 {
            return Heard::Nothing;
        }
        self.links.inbox.next(Some(self.patience()))
    }

    /// How long to wait for a message at most: until time is due, and never so long that it looks like a stall; not at all while there is
    /// something to do.
    pub(crate) fn patience(&self) -> Duration {
        if self.ahead.taken > 0 || self.left_over.is_some() || self.links.inbox.len() > 0 {
            return Duration::ZERO;
        }
        let due = self.machine.next_deadline().map_or(u64::MAX, |deadline| deadline.since(self.now));
        let held = self.hold_until.map_or(0, |tick| tick.since(self.now));
        Duration::from_millis(due.max(held).min(CLOCK_LOOK_MS))
    }

    /// Applies what waits, makes it durable, lets it be seen.
    ///
    /// # Errors
    /// The commit failed: the process has to end, and nothing of the turn was let out.
    pub(crate) fn turn(&mut self, first: Option<Inbound>) -> Result<(), J::Error> {
        let look = self.clock.look();
        self.now = look.now;
        let mut work = std::mem::take(&mut self.ahead);
        self.apply_inbox(first, &mut work);
        if self.time_is_due(look, work.taken) {
            self.apply(Command::Advance, &mut work);
        }
        let leases = self.draining.then(|| self.machine.live_leases());
        self.commit(&work)?;
        self.release(work, leases);
        Ok(())
    }

    /// Applies messages as long as they are there and fit into one commit, or until they make a large one: then it is time to write.
    fn apply_inbox(&mut self, mut first: Option<Inbound>, work: &mut Work) {
        while !work.is_large(&self.links.turns) {
            let Some(inbound) = first.take().or_else(|| self.links.inbox.try_next()) else { return };
            if !self.take_in(inbound, work) {
                return;
            }
        }
        self.left_over = first;
    }

    /// Applies a message if it fits into the commit with the others; otherwise it is left over.
    fn take_in(&mut self, inbound: Inbound, work: &mut Work) -> bool {
        let weight = work.weight.with(weight(&inbound));
        if work.taken > 0 && (weight.requests > self.links.turns.requests_max || weight.bytes > COMMIT_BYTES_MAX) {
            self.left_over = Some(inbound);
            return false;
        }
        work.weight = weight;
        work.taken += 1;
        self.apply_message(inbound, work);
        true
    }

    fn apply_message(&mut self, inbound: Inbound, work: &mut Work) {
        match inbound {
            Inbound::Opened { connection, outbox } => {
                work.opened.push((connection, outbox));
            }
            Inbound::Said { command, weight: _, turn } => {
                drop(turn);
                self.apply(command, work);
            }
            Inbound::Closed { connection } => {
                self.apply(Command::Disconnected { connection }, work);
                work.ended.push(connection);
            }
            Inbound::Drain => {
                self.draining = true;
                self.apply(Command::Drain, work);
            }
        }
    }

    fn apply(&mut self, command: Command, work: &mut Work) {
        work.kinds.add_command(&command);
        self.links.tally.commands.fetch_add(1, Ordering::Relaxed);
        if let Command::Requests { requests, .. } = &command {
            self.links.tally.requests.fetch_add(requests.len() as u64, Ordering::Relaxed);
        }
        let before = work.steps.outputs.len();
        self.machine.apply_to(&mut work.steps, self.now, command);
        work.steps.outputs[before..].iter().for_each(|(_, output)| work.kinds.add_output(output));
    }

    /// Whether [`Command::Advance`] is to be applied now, `taken` messages having been applied in this turn.
    fn time_is_due(&mut self, look: Look, taken: usize) -> bool {
        let held = self.is_held(look);
        if self.machine.next_deadline().is_none_or(|deadline| deadline > self.now) {
            self.ahead_of_time = None;
            return false;
        }
        let ahead = match self.ahead_of_time {
            None if held => return false,
            None => self.links.inbox.len() + usize::from(self.left_over.is_some()),
            // Also while time is held back, or a disk that stalls at every turn would stop it as long as anything waits.
            Some(ahead) => ahead.saturating_sub(taken),
        };
        let due = ahead == 0 && !held;
        self.ahead_of_time = (!due).then_some(ahead);
        due
    }

    /// After a stall, what the peers sent meanwhile still lies in the sockets: the sessions get one look's time to read
    /// it. A process that stalls at every look (a slow disk) holds time back at every second one only, so that leases
    /// of the dead still expire.
    fn is_held(&mut self, look: Look) -> bool {
        match self.hold_until {
            None if look.stalled => self.hold_until = Some(look.now.after(CLOCK_LOOK_MS)),
            Some(tick) if tick <= look.now => self.hold_until = None,
            None | Some(_) => {}
        }
        self.hold_until.is_some()
    }

    /// Makes the turn's changes durable; does nothing if there are none.
    fn commit(&mut self, work: &Work) -> Result<(), J::Error> {
        if work.steps.changes.is_empty() && work.steps.texts.is_empty() {
            return Ok(());
        }
        self.pass(Point::BeforeCommit, work.kinds);
        self.pass(Point::Panic, work.kinds);
        self.links.gauge.begin();
        let result = self.write(work);
        self.links.gauge.end();
        result?;
        self.links.tally.commits.fetch_add(1, Ordering::Relaxed);
        self.pass(Point::AfterCommitBeforeAnswer, work.kinds);
        Ok(())
    }

    /// Writes the turn's changes. While a large commit is written, what comes is decided for the next turn.
    fn write(&mut self, work: &Work) -> Result<(), J::Error> {
        let writing = self.journal.begin(&work.steps.changes, &work.steps.texts, &self.machine)?;
        let written = if work.is_large(&self.links.turns) {
            self.committer.begin(writing);
            self.decide_meanwhile()
        } else {
            Some(writing.write())
        };
        self.journal.end(written)
    }

    /// Applies messages until the commit that is on its way is written; returns what came of it.
    fn decide_meanwhile(&mut self) -> Option<<J::Writing as Write>::Written> {
        let mut ahead = Work::default();
        if let Some(inbound) = self.left_over.take() {
            self.take_in_meanwhile(inbound, &mut ahead);
        }
        let written = loop {
            // More than fits into the next turn waits for it.
            let inbox = self.left_over.is_none().then_some(&mut self.links.inbox);
            match self.committer.next(inbox) {
                Meanwhile::Said(inbound) => self.take_in_meanwhile(inbound, &mut ahead),
                Meanwhile::Written(written) => break Some(written),
                Meanwhile::Lost => break None,
            }
        };
        self.ahead = ahead;
        written
    }

    /// Time goes on while a commit is written: what is lent then is not already older than it is when time is applied next.
    fn take_in_meanwhile(&mut self, inbound: Inbound, ahead: &mut Work) {
        self.now = self.clock.glance();
        self.take_in(inbound, ahead);
    }

    fn pass(&mut self, point: Point, kinds: Kinds) {
        if let Some(fault) = &mut self.links.fault {
            fault.pass(point, kinds);
        }
    }

    /// Lets the turn's outputs be seen, and while draining how many leases it left.
    fn release(&mut self, work: Work, leases: Option<usize>) {
        let Work { steps: Step { mut changes, outputs, .. }, opened, ended, .. } = work;
        if self.ahead.taken == 0 {
            // The next turn is about as large as this one.
            changes.clear();
            self.ahead.steps = Step { changes, texts: Vec::new(), outputs: Vec::with_capacity(outputs.len()) };
        }
        self.links.releases.send(Release { opened, outputs, ended });
        if let Some(leases) = leases {
            self.links.drained.send_replace(Drained { draining: true, leases });
        }
    }
}

impl Work {
    /// Whether it pays to decide on something else while it is written.
    fn is_large(&self, turns: &Turns) -> bool {
        self.weight.requests >= turns.large_requests.get()
    }
}

fn weight(inbound: &Inbound) -> Weight {
    match inbound {
        Inbound::Said { weight, .. } => *weight,
        Inbound::Opened { .. } | Inbound::Closed { .. } | Inbound::Drain => Weight { requests: 1, bytes: 0 },
    }
}

/// An error and what it came from, in one line.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::command::{OriginAnswer, Output};
    use crate::coordinator::rows::RowKey;
    use crate::server::dispatch::{Dispatcher, dispatch};
    use crate::server::inbox::{Inbox, Registration, inbox};
    use crate::server::outbox::{AllOutboxes, Outputs};
    use crate::types::ConnectionId;
    use std::collections::VecDeque;
    use std::sync::Mutex;

    /// What happened, in order; shared by the disk, the machine and the test.
    type Diary = Arc<Mutex<Vec<String>>>;

    fn note(diary: &Diary, text: impl Into<String>) {
        diary.lock().unwrap().push(text.into());
    }

    fn take(diary: &Diary) -> Vec<String> {
        std::mem::take(&mut diary.lock().unwrap())
    }

    /// Answers every message of the origin's dialect with its first number; with units, it also changes a row.
    struct Echo {
        diary: Diary,
        deadline: Option<Tick>,
    }

    impl Machine for Echo {
        fn apply_to(&mut self, steps: &mut Step, now: Tick, command: Command) {
            if let Command::Origin { connection, done } = command {
                let number = done.first().map_or(0, |&(number, _)| number);
                note(&self.diary, format!("apply {number}"));
                steps.outputs.push((connection, Output::Origin(OriginAnswer::Task(number))));
                if done.first().is_some_and(|&(_, units)| units > 0) {
                    steps.changes.push(change(number));
                }
            } else if let Command::Heartbeat { .. } = command {
                note(&self.diary, "apply heartbeat");
                self.deadline = Some(now.after(60_000));
            } else if command == Command::Advance {
                note(&self.diary, format!("advance {}", now.0));
                self.deadline = None;
            } else {
                note(&self.diary, format!("apply {command:?}"));
            }
        }

        fn next_deadline(&self) -> Option<Tick> {
            self.deadline
        }

        fn live_leases(&self) -> usize {
            7
        }
    }

    fn change(number: u64) -> Changed {
        Changed::Row(RowKey::Lease(number as u32))
    }

    /// A disk that writes its commits into the diary, together with what has been sent by then.
    #[derive(Clone)]
    struct Disk {
        diary: Diary,
        dispatcher: Arc<Mutex<Dispatcher>>,
        outputs: Arc<Mutex<Vec<Outputs>>>,
        fails: bool,
    }

    /// A commit of so many changes on its way to the disk.
    struct Pen {
        changes: usize,
        disk: Disk,
    }

    impl Write for Pen {
        type Written = Result<(), Full>;

        fn write(self) -> Result<(), Full> {
            let Disk { diary, dispatcher, outputs, fails } = self.disk;
            dispatcher.lock().unwrap().deliver_waiting();
            read_all(&diary, &mut outputs.lock().unwrap());
            note(&diary, format!("commit {}", self.changes));
            if fails { Err(Full) } else { Ok(()) }
        }
    }

    /// Hears so many messages, then lets the commit be written; a commit for which it would hear `LOSES` is lost.
    struct Aside {
        hears: usize,
        away: Option<Pen>,
    }

    const LOSES: usize = usize::MAX;

    impl Commit<Pen> for Aside {
        fn begin(&mut self, writing: Pen) {
            note(&writing.disk.diary, format!("begin {}", writing.changes));
            self.away = Some(writing);
        }

        fn next(&mut self, inbox: Option<&mut Messages>) -> Meanwhile<Result<(), Full>> {
            if self.hears == LOSES {
                return Meanwhile::Lost;
            }
            if self.hears > 0
                && let Some(inbound) = inbox.and_then(Messages::try_next)
            {
                self.hears -= 1;
                return Meanwhile::Said(inbound);
            }
            Meanwhile::Written(self.away.take().unwrap().write())
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("the disk is full")]
    struct Full;

    impl Journal<Echo> for Disk {
        type Error = Full;
        type Writing = Pen;

        fn begin(&mut self, changes: &[Changed], _texts: &[TextChange], _machine: &Echo) -> Result<Pen, Full> {
            Ok(Pen { changes: changes.len(), disk: self.clone() })
        }

        fn end(&mut self, written: Option<Result<(), Full>>) -> Result<(), Full> {
            written.unwrap_or(Err(Full))
        }
    }

    /// Writes what the peers have got into the diary.
    fn read_all(diary: &Diary, outputs: &mut [Outputs]) {
        for (peer, outputs) in outputs.iter_mut().enumerate() {
            while let Some(output) = outputs.next_waiting() {
                let Output::Origin(OriginAnswer::Task(number)) = output else { panic!("{output:?} was not expected") };
                note(diary, format!("peer {peer} got {number}"));
            }
        }
    }

    /// Looks that were written down before; the last one goes on for ever.
    struct Script(VecDeque<(u64, bool)>);

    impl Time for Script {
        fn look(&mut self) -> Look {
            let (now, stalled) = if self.0.len() > 1 { self.0.pop_front().unwrap() } else { self.0[0] };
            Look { now: Tick(now), stalled }
        }

        /// A commit takes until the next look.
        fn glance(&self) -> Tick {
            Tick(self.0[0].0)
        }
    }

    struct Rig {
        diary: Diary,
        pipeline: Pipeline<Echo, Disk, Script, Aside>,
        inbox: Inbox,
        peers: Vec<Registration>,
        dispatcher: Arc<Mutex<Dispatcher>>,
        outputs: Arc<Mutex<Vec<Outputs>>>,
        fatal: Diary,
        drained: watch::Receiver<Drained>,
        stop: Arc<AtomicBool>,
    }

    impl Rig {
        /// A booted pipeline with `peers` connections that are open but not yet taken in; each has an outbox of 4.
        fn new(peers: u64, deadline: Option<Tick>, looks: &[(u64, bool)]) -> Self {
            let (diary, fatal, outputs) = (Diary::default(), Diary::default(), Arc::<Mutex<Vec<Outputs>>>::default());
            let (drained, drained_receiver) = watch::channel(Drained::default());
            let stop = Arc::<AtomicBool>::default();
            let (inbox, messages) = inbox(100_000);
            let (releases, dispatcher) = dispatch();
            let dispatcher = Arc::new(Mutex::new(dispatcher));
            let links = Links {
                inbox: messages,
                releases,
                drained,
                stop: Arc::clone(&stop),
                gauge: CommitGauge::default(),
                tally: Arc::default(),
                fatal: Fatal::new({
                    let fatal = Arc::clone(&fatal);
                    move |reason| note(&fatal, reason)
                }),
                fault: None,
                turns: Turns::default(),
            };
            let machine = Echo { diary: Arc::clone(&diary), deadline };
            let outlets = (Arc::clone(&dispatcher), Arc::clone(&outputs));
            let disk = Disk { diary: Arc::clone(&diary), dispatcher: outlets.0, outputs: outlets.1, fails: false };
            let mut script: VecDeque<_> = looks.iter().copied().collect();
            script.push_front((0, false));
            let aside = Aside { hears: 0, away: None };
            let pipeline = Pipeline::boot(machine, disk, Script(script), aside, links).unwrap();
            assert_eq!(take(&diary), ["apply Boot"]);
            let mut rig = Self {
                diary,
                pipeline,
                inbox,
                peers: Vec::new(),
                dispatcher,
                outputs,
                fatal,
                drained: drained_receiver,
                stop,
            };
            for peer in 0..peers {
                let (outbox, outputs, _overflow) = AllOutboxes::new(1 << 20).open(4, 1 << 20);
                rig.outputs.lock().unwrap().push(outputs);
                let registration = now_or_never(rig.inbox.open(ConnectionId(peer), outbox)).unwrap();
                rig.peers.push(registration);
            }
            rig
        }

        /// With peers that are taken in; the commits are large, see [`Rig::large`].
        fn with_large_commits(peers: u64, hears: usize) -> Self {
            let mut rig = Self::new(peers, None, &[(0, false)]);
            rig.turn();
            rig.large(hears);
            rig
        }

        /// From now on no commit is large: a turn takes in what fits.
        fn small(&mut self) {
            self.pipeline.links.turns.large_requests = NonZero::<usize>::MAX;
        }

        /// From now on every commit is large, and this many messages are heard while the next ones are written.
        fn large(&mut self, hears: usize) {
            self.pipeline.links.turns.large_requests = NonZero::<usize>::MIN;
            self.pipeline.committer.hears = hears;
        }

        /// `number` is echoed; `units` above 0 change a row.
        fn say(&self, peer: usize, number: u64, units: u64) {
            let connection = self.peers[peer].connection();
            let command = Command::Origin { connection, done: vec![(number, units)] };
            now_or_never(self.peers[peer].command(command)).unwrap();
        }

        fn heartbeat(&self, peer: usize) {
            let connection = self.peers[peer].connection();
            now_or_never(self.peers[peer].command(Command::Heartbeat { connection, confirmed: 0 })).unwrap();
        }

        /// One turn, and everything that happened in it.
        fn turn(&mut self) -> Vec<String> {
            let first = self.pipeline.left_over.take();
            let result = self.pipeline.turn(first);
            self.dispatcher.lock().unwrap().deliver_waiting();
            read_all(&self.diary, &mut self.outputs.lock().unwrap());
            if result.is_err() {
                note(&self.diary, "failed");
            }
            take(&self.diary)
        }
    }

    fn now_or_never<T>(future: impl Future<Output = T>) -> T {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(future).poll(&mut context) {
            std::task::Poll::Ready(value) => value,
            std::task::Poll::Pending => panic!("this should not have to wait"),
        }
    }

    #[test]
    fn what_waits_is_applied_then_committed_once_then_seen() {
        let mut rig = Rig::new(2, None, &[(0, false)]);
        rig.say(0, 10, 1);
        rig.say(1, 20, 1);
        rig.say(0, 11, 1);
        let expected =
            ["apply 10", "apply 20", "apply 11", "commit 3", "peer 0 got 10", "peer 0 got 11", "peer 1 got 20"];
        assert_eq!(rig.turn(), expected);
        assert_eq!(rig.pipeline.links.tally.commits.load(Ordering::Relaxed), 1);
        assert_eq!(rig.turn(), [""; 0], "nothing is left");
    }

    #[test]
    fn nothing_is_written_when_nothing_changed() {
        let mut rig = Rig::new(1, None, &[(0, false)]);
        rig.say(0, 10, 0);
        assert_eq!(rig.turn(), ["apply 10", "peer 0 got 10"]);
    }

    #[test]
    fn nothing_is_seen_when_the_commit_fails_and_the_process_ends() {
        let mut rig = Rig::new(1, None, &[(0, false)]);
        rig.pipeline.journal.fails = true;
        rig.say(0, 10, 1);
        assert_eq!(rig.turn(), ["apply 10", "commit 1", "failed"]);
        // The same through the whole loop: it calls the fatal callback, and ends.
        rig.say(0, 11, 1);
        assert!(rig.pipeline.run().is_err());
        assert_eq!(take(&rig.fatal), ["a commit failed: the disk is full"]);
        read_all(&rig.diary, &mut rig.outputs.lock().unwrap());
        assert_eq!(take(&rig.diary), ["apply 11", "commit 1"]);
    }

    #[test]
    fn what_comes_while_a_large_commit_is_written_is_decided_at_once_and_seen_after_its_own() {
        let mut rig = Rig::with_large_commits(2, 2);
        rig.say(0, 10, 1);
        rig.say(1, 20, 1);
        rig.say(1, 21, 0);
        rig.say(0, 11, 1);
        let expected = ["apply 10", "begin 1", "apply 20", "apply 21", "commit 1", "peer 0 got 10"];
        assert_eq!(rig.turn(), expected);
        assert_eq!(rig.pipeline.patience(), Duration::ZERO, "there is something to do");
        // It is a large commit by itself: what else waits is for the next.
        assert_eq!(rig.turn(), ["begin 1", "commit 1", "peer 1 got 20", "peer 1 got 21"]);
        assert_eq!(rig.turn(), ["apply 11", "begin 1", "commit 1", "peer 0 got 11"]);
        assert_eq!(rig.pipeline.patience(), Duration::from_millis(CLOCK_LOOK_MS));
    }

    #[test]
    fn a_turn_ends_when_it_is_large_however_small_its_messages_are() {
        let large = LARGE_COMMIT_REQUESTS.get();
        let mut rig = Rig::new(1, None, &[(0, false)]);
        rig.turn();
        (0..=large as u64).for_each(|number| rig.say(0, number, 1));
        rig.pipeline.committer.hears = 1;
        let diary = rig.turn();
        let expected = [format!("begin {large}"), format!("apply {large}")];
        assert_eq!(diary[large..large + 2], expected);
    }

    #[test]
    fn what_changes_nothing_waits_for_the_commit_that_it_has_seen() {
        let mut rig = Rig::with_large_commits(2, 1);
        rig.say(0, 10, 1);
        rig.say(1, 20, 0);
        assert_eq!(rig.turn(), ["apply 10", "begin 1", "apply 20", "commit 1", "peer 0 got 10"]);
        assert_eq!(rig.turn(), ["peer 1 got 20"]);
    }

    #[test]
    fn nothing_decided_meanwhile_is_seen_when_the_commit_fails_or_is_lost() {
        for (hears, lost) in [(1, false), (LOSES, true)] {
            let mut rig = Rig::new(2, None, &[(0, false)]);
            rig.turn();
            rig.pipeline.journal.fails = true;
            rig.large(hears);
            rig.say(0, 10, 1);
            rig.say(1, 20, 0);
            let rest: &[&str] = if lost { &["failed"] } else { &["apply 20", "commit 1", "failed"] };
            assert_eq!(rig.turn(), [&["apply 10", "begin 1"], rest].concat());
        }
    }

    #[test]
    fn no_more_is_decided_meanwhile_than_fits_the_next_turn() {
        let mut rig = Rig::with_large_commits(1, 3);
        rig.pipeline.links.turns.requests_max = 2;
        (1..=5).for_each(|number| rig.say(0, number, 1));
        // The fourth was heard, did not fit, and is left over; the fifth is not even heard.
        let first = ["apply 1", "begin 1", "apply 2", "apply 3", "commit 1", "peer 0 got 1"];
        assert_eq!(rig.turn(), first);
        rig.pipeline.committer.hears = 3;
        let second = ["begin 2", "apply 4", "apply 5", "commit 2", "peer 0 got 2", "peer 0 got 3"];
        assert_eq!(rig.turn(), second);
        assert_eq!(rig.turn(), ["begin 2", "commit 2", "peer 0 got 4", "peer 0 got 5"]);
    }

    #[test]
    fn time_is_not_applied_while_a_commit_is_written() {
        let mut rig = Rig::new(1, Some(Tick(100)), &[(99, false), (99, false), (5_000, true), (5_250, false)]);
        rig.turn();
        rig.large(1);
        rig.say(0, 10, 1);
        rig.heartbeat(0);
        // The disk stands still for seconds; the heartbeat, heard meanwhile, moves the deadline by a minute.
        assert_eq!(rig.turn(), ["apply 10", "begin 1", "apply heartbeat", "commit 1", "peer 0 got 10"]);
        assert_eq!([rig.turn(), rig.turn()].concat(), [""; 0]);
    }

    #[test]
    fn what_is_decided_while_a_commit_is_written_is_decided_at_its_own_time() {
        let mut rig = Rig::new(1, None, &[(0, false), (1_000, false), (70_000, false)]);
        rig.turn();
        rig.large(1);
        rig.say(0, 10, 1);
        rig.heartbeat(0);
        assert_eq!(rig.turn(), ["apply 10", "begin 1", "apply heartbeat", "commit 1", "peer 0 got 10"]);
        assert_eq!(rig.turn(), [""; 0], "the heartbeat's minute has just begun");
    }

    #[test]
    fn a_turn_takes_no_more_than_fits_one_commit_and_leaves_the_rest() {
        let mut rig = Rig::new(1, None, &[(0, false)]);
        rig.small();
        (0..=REQUESTS_PER_COMMIT_MAX as u64).for_each(|number| rig.say(0, number, 1));
        // The first turn also takes in the peer itself, which weighs as much as a request.
        let first = rig.turn();
        assert!(first.contains(&format!("commit {}", REQUESTS_PER_COMMIT_MAX - 1)), "{:?}", &first[first.len() - 6..]);
        assert!(rig.turn().contains(&"commit 2".to_owned()));
        assert_eq!(rig.turn(), [""; 0]);
    }

    #[test]
    fn a_full_outbox_loses_its_connection_and_nobody_else_notices() {
        let mut rig = Rig::new(2, None, &[(0, false)]);
        (0..5).for_each(|number| rig.say(0, number, 0));
        rig.say(1, 20, 0);
        let diary = rig.turn();
        assert_eq!(diary.last().unwrap(), "peer 1 got 20");
        rig.say(0, 30, 0);
        rig.say(1, 21, 0);
        assert_eq!(rig.turn(), ["apply 30", "apply 21", "peer 1 got 21"]);
    }

    #[test]
    fn a_dropped_connection_is_told_after_all_it_said_and_gets_its_answers() {
        let mut rig = Rig::new(1, None, &[(0, false)]);
        rig.say(0, 10, 1);
        rig.peers.clear();
        let disconnected = "apply Disconnected { connection: ConnectionId(0) }";
        assert_eq!(rig.turn(), ["apply 10", disconnected, "commit 1", "peer 0 got 10"]);
        let mut outputs = rig.outputs.lock().unwrap();
        assert_eq!(now_or_never(outputs[0].next()), None, "its outbox has ended");
    }

    #[test]
    fn time_is_applied_only_after_what_was_received_when_it_was_due() {
        let deadline = Some(Tick(100));
        let mut rig = Rig::new(1, deadline, &[(99, false), (100, false), (101, false)]);
        rig.turn();
        assert_eq!(rig.turn(), ["advance 100"], "it was not due at 99");

        // A heartbeat that waits behind more than one commit's worth of messages still comes first.
        let mut rig = Rig::new(1, deadline, &[(100, false), (101, false)]);
        rig.small();
        (0..REQUESTS_PER_COMMIT_MAX as u64).for_each(|number| rig.say(0, number, 1));
        rig.heartbeat(0);
        let diary = [rig.turn(), rig.turn(), rig.turn()].concat();
        assert!(diary.contains(&"apply heartbeat".to_owned()));
        assert!(!diary.iter().any(|line| line.starts_with("advance")), "the deadline has moved");
    }

    /// Says so many things, and as many again as were heard in each turn; returns the turns until time is applied.
    fn turns_until_advance(rig: &mut Rig, waiting: usize, hears: usize) -> usize {
        let mut missing = waiting;
        for turn in 1..=100 {
            (0..missing as u64).for_each(|number| rig.say(0, number, 1));
            rig.pipeline.committer.hears = hears;
            let diary = rig.turn();
            if diary.iter().any(|line| line.starts_with("advance")) {
                return turn;
            }
            missing = diary.iter().filter(|line| line.starts_with("apply ")).count();
        }
        panic!("time stands still");
    }

    #[test]
    fn a_flood_cannot_hold_time_back() {
        for (large, hears, turns) in [(false, 0, 3), (true, 0, 17), (true, 100, 17), (true, LOSES - 1, 4)] {
            let mut rig = Rig::new(1, Some(Tick(100)), &[(100, false)]);
            if !large {
                rig.small();
            }
            let taken = turns_until_advance(&mut rig, 2 * REQUESTS_PER_COMMIT_MAX, hears);
            assert!(taken <= turns, "{taken} turns instead of {turns}");
        }
    }

    #[test]
    fn a_flood_on_a_disk_that_stalls_every_turn_cannot_hold_time_back() {
        for hears in [0, 100, LOSES - 1] {
            let looks: Vec<_> = (1..=200).map(|look| (1_000 * look, true)).collect();
            let mut rig = Rig::new(1, Some(Tick(100)), &looks);
            let turns = turns_until_advance(&mut rig, 2 * REQUESTS_PER_COMMIT_MAX, hears);
            assert!(turns <= 20, "{turns} turns");
        }
    }

    #[test]
    fn a_stall_holds_time_back_for_one_look() {
        let deadline = Some(Tick(100));
        let mut rig = Rig::new(1, deadline, &[(1_000, true), (1_100, false), (1_250, false)]);
        assert_eq!(rig.turn(), [""; 0], "stalled");
        assert_eq!(rig.pipeline.patience(), Duration::from_millis(CLOCK_LOOK_MS));
        assert_eq!(rig.turn(), [""; 0], "not yet");
        assert_eq!(rig.turn(), ["advance 1250"]);
        // A disk that stalls every turn does not stop time.
        let mut rig = Rig::new(1, deadline, &[(1_000, true), (2_000, true), (3_000, true)]);
        assert_eq!([rig.turn(), rig.turn()].concat(), ["advance 2000"]);
    }

    #[test]
    fn draining_is_applied_and_its_progress_told_after_the_commit() {
        let mut rig = Rig::new(1, None, &[(0, false)]);
        rig.inbox.drain().unwrap();
        assert_eq!(rig.turn(), ["apply Drain"]);
        assert_eq!(*rig.drained.borrow(), Drained { draining: true, leases: 7 });
    }

    #[test]
    fn the_loop_ends_with_its_senders_or_when_told() {
        let rig = Rig::new(1, None, &[(0, false)]);
        rig.say(0, 10, 1);
        drop((rig.peers, rig.inbox));
        rig.pipeline.run().unwrap();
        assert!(take(&rig.diary).contains(&"commit 1".to_owned()), "what waited was done");

        // What was decided while a commit was written, too.
        let rig = Rig::with_large_commits(1, 2);
        rig.say(0, 10, 1);
        rig.say(0, 11, 1);
        drop((rig.peers, rig.inbox));
        rig.pipeline.run().unwrap();
        rig.dispatcher.lock().unwrap().deliver_waiting();
        read_all(&rig.diary, &mut rig.outputs.lock().unwrap());
        assert_eq!(take(&rig.diary).last().unwrap(), "peer 0 got 11");

        let rig = Rig::new(1, None, &[(0, false)]);
        rig.say(0, 10, 1);
        rig.stop.store(true, Ordering::Relaxed);
        rig.pipeline.run().unwrap();
        assert_eq!(take(&rig.diary), [""; 0]);
    }
}
