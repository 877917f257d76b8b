//! The coordinator and the ledger inside a server of the simulation, watched: what becomes durable, and what ends, goes
//! into the history before anything of it can be seen.
//!
//! ```text
//!   pipeline ──▶ Watched ──▶ coordinator              which leases expire, which sessions are forgotten
//!   pipeline ──▶ Disk ─────▶ ledger ──▶ MemoryStore   what is durable, what fails, where the process dies
//! ```
//!
//! Writers of connections run while a commit does; so what already lies in the outboxes when a commit begins is taken as
//! written. **Invariant**: whatever is let out before it is durable stands in the history before its `durable`.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use tenfold_checker::history::{Record, Session};

use super::coverage::{Coverage, Seen};
use super::random::Random;
use super::words;
use crate::coordinator::command::{CloseReason, Command, Output, Step, TextChange};
use crate::coordinator::rows::{Change, Changed, Lease, LeaseRow, LeaseState, Phase, Row, RowKey};
use crate::coordinator::{Coordinator, Options};
use crate::server::committer::{Commit, Meanwhile, Write};
use crate::server::inbox::Messages;
use crate::server::outbox::{Outputs, Overflow};
use crate::server::pipeline::{Journal, Machine};
use crate::store::memory::{Fault, MemoryStore, Records};
use crate::store::{CommitError, Ledger, Writing, Written, open_in_memory};
use crate::types::{ConnectionId, InstanceId, LeaseId, LossReason, Request, SessionId, Tick};

/// How a server process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Ended {
    #[error("killed")]
    Killed,
    #[error("the power was cut")]
    PowerCut,
    #[error("the disk failed")]
    DiskFailed,
    #[error("the disk failed in the middle of a batch")]
    Torn,
}

/// What is to become of the next commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The process ends when it is on its way; it was stored, or it was not.
    EndsDuring { how: Ended, stored: bool },
    /// The process ends when it is through, and nothing was let out.
    EndsAfter { how: Ended },
    /// The disk says that it failed.
    Fails { fault: Fault },
    /// The disk says that it is durable, and it is not.
    Lies,
}

/// What is to be written to one connection.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) outputs: Outputs,
    pub(super) overflow: Overflow,
    /// Taken from the outbox, not written yet.
    pub(super) taken: VecDeque<Output>,
    /// Sessions that were introduced, and not welcomed or turned away.
    pub(super) introduced: VecDeque<SessionId>,
    /// Whether the peer takes what is written.
    pub(super) takes: bool,
}

/// What the parts of a server process share.
#[derive(Debug, Default)]
pub(super) struct Backstage {
    /// For the history, in order.
    pub(super) notes: Vec<Record>,
    /// What is true once the present commit is durable.
    pub(super) pending: Vec<Record>,
    pub(super) desks: BTreeMap<ConnectionId, Desk>,
    /// What befalls the next commit, and what is counted when it does.
    pub(super) fate: Option<(Fate, Seen)>,
    /// The last number of the journal that was acknowledged.
    pub(super) acked: u64,
    /// The last commit was said to be durable and is not.
    pub(super) lied: bool,
    /// The last commit failed, and was stored.
    pub(super) stored: bool,
    /// What was stored before a batch was torn.
    pub(super) before: Option<Records>,
    /// How long the process has run, stalls left out.
    pub(super) ran_ms: u64,
    /// The process has ended: writers take nothing more from the outboxes.
    pub(super) over: bool,
    /// Something ended before its time.
    pub(super) wrong: Option<String>,
    /// A disk that failed is in the history.
    pub(super) failure_noted: bool,
    pub(super) coverage: Coverage,
}

/// Shared within one process of the simulation.
pub(super) type Shared = Rc<RefCell<Backstage>>;

impl Backstage {
    /// Takes what lies in an outbox, as its writer does.
    pub(super) fn take_outputs(&mut self, connection: ConnectionId) {
        let over = self.over;
        let Some(desk) = self.desks.get_mut(&connection).filter(|desk| desk.takes && !over) else { return };
        while let Some(output) = desk.outputs.next_waiting() {
            let session = desk.introduced.front().copied();
            match &output {
                Output::Welcome { through, refusals, .. } | Output::Answers { through, refusals } => {
                    if let Some(session) = session {
                        let refused = refusals.iter().map(words::refused).collect();
                        self.notes.push(Record::Out { session: words::session(session), through: *through, refused });
                    }
                }
                Output::UnknownSession { .. } => {
                    desk.introduced.pop_front();
                }
                Output::Close(reason) => self.coverage.add(
                    match reason {
                        CloseReason::Superseded => Seen::Superseded,
                        CloseReason::SessionsFull => Seen::SessionsFull,
                        CloseReason::RefusalsUnread => Seen::RefusalsUnread,
                        CloseReason::Goodbye => Seen::Goodbyes,
                        CloseReason::Late => Seen::Late,
                        CloseReason::LeasesFull => Seen::OriginMadeRoom,
                        CloseReason::Gap
                        | CloseReason::OutOfPlace
                        | CloseReason::OriginTask
                        | CloseReason::OriginUnits => Seen::LostConnections,
                    },
                    1,
                ),
                Output::Grants { resent, grants, .. } if *resent => {
                    self.coverage.add(Seen::Regranted, grants.len() as u64);
                }
                Output::Grants { .. }
                | Output::Lost { .. }
                | Output::Idle(_)
                | Output::Control { .. }
                | Output::Origin(_) => {}
            }
            desk.taken.push_back(output);
        }
    }

    fn take_all_outputs(&mut self) {
        let connections: Vec<ConnectionId> = self.desks.keys().copied().collect();
        for connection in connections {
            self.take_outputs(connection);
        }
    }
}

/// The coordinator, watched.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) coordinator: Coordinator,
    backstage: Shared,
    session_idle_ms: u64,
    leases: BTreeMap<u32, LeaseRow>,
    sessions: BTreeMap<u32, (SessionId, bool)>,
    /// Sessions by their connections.
    connections: BTreeMap<ConnectionId, SessionId>,
    /// How long the process had run when a session was heard last, and when a lease was granted.
    heard: BTreeMap<SessionId, u64>,
    granted: BTreeMap<LeaseId, u64>,
}

impl Watched {
    pub(super) fn new(coordinator: Coordinator, session_idle_ms: u64, backstage: Shared) -> Self {
        let (mut leases, mut sessions) = (BTreeMap::new(), BTreeMap::new());
        for row in coordinator.durable_view().into_values() {
            match row {
                Row::Lease(slot, row) => drop(leases.insert(slot, row)),
                Row::Session(slot, row) => drop(sessions.insert(slot, (row.id, row.origin))),
                Row::Globals(_)
                | Row::Campaign(..)
                | Row::Task(..)
                | Row::SessionName(..)
                | Row::Trouble(..)
                | Row::Returned(..) => {}
            }
        }
        let (connections, heard) = (BTreeMap::new(), BTreeMap::new());
        // A start gives every lease its full length.
        let id = |(slot, row): (&u32, &LeaseRow)| (LeaseId { slot: *slot, generation: row.generation }, 0);
        let granted = leases.iter().map(id).collect();
        Self { coordinator, backstage, session_idle_ms, leases, sessions, connections, heard, granted }
    }

    /// Notes signs of life: of the connection that a session has, not of those that it had before.
    fn listen(&mut self, command: &Command, step: &Step) {
        let connection = match command {
            Command::Hello { connection, hello } => {
                let welcomed = |(to, output): &(ConnectionId, Output)| {
                    to == connection && matches!(output, Output::Welcome { .. })
                };
                if step.outputs.iter().any(welcomed) {
                    self.connections.retain(|_, session| *session != hello.session);
                    self.connections.insert(*connection, hello.session);
                }
                connection
            }
            Command::Want { connection, .. }
            | Command::Requests { connection, .. }
            | Command::Heartbeat { connection, .. }
            | Command::Goodbye { connection }
            | Command::Disconnected { connection } => connection,
            Command::Boot | Command::Advance | Command::Drain | Command::Origin { .. } | Command::Control { .. } => {
                return;
            }
        };
        if let Some(session) = self.connections.get(connection) {
            self.heard.insert(*session, self.backstage.borrow().ran_ms);
        }
    }

    /// What may not be: a lease that ended although its holder gave signs of life and had time left, by a clock of our own.
    fn too_early(&self, id: LeaseId, lease: &Lease, holder: SessionId) -> Option<String> {
        let Some(Row::Campaign(_, campaign)) = self.coordinator.row(RowKey::Campaign(lease.campaign)) else {
            return None;
        };
        let now = self.backstage.borrow().ran_ms;
        let granted = self.granted.get(&id).copied().unwrap_or_default();
        let heard = self.heard.get(&holder).copied().unwrap_or_default().max(granted);
        let silent = now >= heard + campaign.spec.lease_ms.unwrap_or_default();
        let hung = campaign.spec.timeout_ms.is_some_and(|ms| now >= granted + ms * u64::from(lease.runs));
        (!silent && !hung && campaign.phase != Phase::Removing).then(|| {
            format!("lease {id} expired after {now} ms, granted after {granted}, its holder heard after {heard}: {campaign:?}")
        })
    }

    /// Notes what ended in a step of a command, `by_itself` if nobody asked for it.
    fn follow(&mut self, step: &Step, command: &Command, by_itself: bool) {
        let changes = self.coordinator.changes(&step.changes);
        for change in &changes {
            let Change::Put(Row::Lease(slot, row)) = change else { continue };
            let ran_ms = self.backstage.borrow().ran_ms;
            self.granted.entry(LeaseId { slot: *slot, generation: row.generation }).or_insert(ran_ms);
            let before = self.leases.insert(*slot, *row);
            let Some((generation, lease)) = before.and_then(|row| Some((row.generation, row.lease?))) else { continue };
            let Some((holder, origin)) = self.sessions.get(&lease.session) else { continue };
            let id = LeaseId { slot: *slot, generation };
            let expired = row.lease.is_none_or(|lease| lease.state == LeaseState::Expired);
            let was_live = lease.state == LeaseState::Live;
            let early =
                if by_itself && was_live && expired && !*origin { self.too_early(id, &lease, *holder) } else { None };
            let mut backstage = self.backstage.borrow_mut();
            backstage.wrong = backstage.wrong.take().or(early);
            let after = row.lease.filter(|_| row.generation == generation);
            // An expired lease also goes when another takes its place; not so one that its holder ends.
            let makes_room = !was_live && !ends(command, id, *holder, &self.connections);
            if *origin || !(by_itself || makes_room) {
                continue;
            }
            if was_live && after.is_none_or(|after| after.state == LeaseState::Expired) {
                backstage.pending.push(Record::Expired { lease: id.to_u64() });
            }
            if after.is_none() {
                backstage.coverage.add(Seen::LeasesForgotten, 1);
                backstage.pending.push(Record::Dropped { lease: id.to_u64() });
            }
        }
        let Self { sessions, backstage, heard, leases, .. } = self;
        let mut backstage = backstage.borrow_mut();
        for change in &changes {
            match change {
                Change::Put(Row::Session(slot, row)) => {
                    sessions.insert(*slot, (row.id, row.origin));
                }
                Change::Remove(RowKey::Session(slot)) => {
                    if let Some((session, false)) = sessions.remove(slot)
                        && by_itself
                    {
                        let (now, heard) = (backstage.ran_ms, heard.get(&session).copied().unwrap_or_default());
                        let held = leases.values().filter_map(|row| row.lease);
                        let holds =
                            held.filter(|lease| lease.session == *slot && lease.state == LeaseState::Live).count();
                        if now < heard + self.session_idle_ms || holds > 0 {
                            backstage.wrong =
                                Some(format!("session {session} was forgotten, heard {heard} of {now} ms"));
                        }
                        backstage.coverage.add(Seen::SessionsForgotten, 1);
                        backstage.pending.push(Record::DroppedSession { session: words::session(session) });
                    }
                }
                Change::Put(Row::Trouble(_, row)) if row.quarantined => backstage.coverage.add(Seen::Quarantined, 1),
                Change::Put(_) | Change::Remove(_) | Change::ClearTasks { .. } => {}
            }
        }
        for (_, output) in &step.outputs {
            let Output::Lost { leases } = output else { continue };
            for (_, reason) in leases {
                backstage.coverage.add(
                    match reason {
                        LossReason::Expired | LossReason::Cancelled | LossReason::Gone => Seen::Expired,
                        LossReason::TimedOut => Seen::TimedOut,
                        LossReason::DoneElsewhere => Seen::DoneElsewhere,
                    },
                    1,
                );
            }
        }
    }
}

/// Whether a command is its holder's word on a lease, or on all that it holds.
fn ends(command: &Command, id: LeaseId, holder: SessionId, connections: &BTreeMap<ConnectionId, SessionId>) -> bool {
    match command {
        Command::Requests { requests, .. } => requests.iter().any(|request| match request {
            Request::Report { lease, .. } | Request::Release { lease } => *lease == id,
        }),
        Command::Goodbye { connection } => connections.get(connection) == Some(&holder),
        Command::Boot
        | Command::Advance
        | Command::Control { .. }
        | Command::Drain
        | Command::Hello { .. }
        | Command::Want { .. }
        | Command::Heartbeat { .. }
        | Command::Disconnected { .. }
        | Command::Origin { .. } => false,
    }
}

impl Machine for Watched {
    fn apply_to(&mut self, steps: &mut Step, now: Tick, command: Command) {
        // A question or order may let a slice of earlier work go on.
        let by_itself = match &command {
            Command::Boot | Command::Advance | Command::Control { .. } => true,
            Command::Drain
            | Command::Hello { .. }
            | Command::Want { .. }
            | Command::Requests { .. }
            | Command::Heartbeat { .. }
            | Command::Goodbye { .. }
            | Command::Disconnected { .. }
            | Command::Origin { .. } => false,
        };
        let before = (steps.changes.len(), steps.texts.len(), steps.outputs.len());
        self.coordinator.apply_to(steps, now, command.clone());
        let step = Step {
            changes: steps.changes[before.0..].to_vec(),
            texts: steps.texts[before.1..].to_vec(),
            outputs: steps.outputs[before.2..].to_vec(),
        };
        self.listen(&command, &step);
        self.follow(&step, &command, by_itself);
    }

    fn next_deadline(&self) -> Option<Tick> {
        self.coordinator.next_deadline()
    }

    fn live_leases(&self) -> usize {
        self.coordinator.summary().leases
    }
}

/// The ledger, and what befalls it.
pub(super) struct Disk {
    ledger: Ledger,
    store: MemoryStore,
    backstage: Shared,
    away: Option<Away>,
}

/// A commit on its way, as it was when it began.
struct Away {
    fate: Option<Fate>,
    /// How the process ends if it fails.
    failure: Ended,
    /// The last journal record before it, and after it.
    before: u64,
    through: u64,
    /// What goes into the history when it is durable: what has ended with it, and what it made durable.
    ended: Vec<Record>,
    durable: Vec<Record>,
}

impl Disk {
    pub(super) fn new(ledger: Ledger, store: MemoryStore, backstage: Shared) -> Self {
        Self { ledger, store, backstage, away: None }
    }

    /// Begins a commit, and notes what it makes durable.
    fn prepare(
        &mut self,
        changes: &[Changed],
        texts: &[TextChange],
        rows: &Coordinator,
    ) -> Result<(Writing, Vec<Record>), CommitError> {
        let (records, pages, sequence) = (self.ledger.journal_records(), self.ledger.pages(), self.ledger.sequence());
        let writing = self.ledger.begin(changes, texts, rows)?;
        let written = self.ledger.sequence() - sequence;
        let mut backstage = self.backstage.borrow_mut();
        backstage.coverage.add(Seen::Commits, 1);
        backstage.coverage.add(Seen::Trims, records + written - self.ledger.journal_records());
        backstage.coverage.add(Seen::Pages, self.ledger.pages().saturating_sub(pages));
        let mut durable = Vec::new();
        for change in rows.changes(changes) {
            if let Change::Put(Row::Session(_, row)) = change
                && !row.origin
                && row.processed > 0
            {
                let session: Session = words::session(row.id);
                durable.push(Record::Durable { session, through: row.processed });
            }
        }
        Ok((writing, durable))
    }
}

impl Journal<Watched> for Disk {
    type Error = Ended;
    type Writing = Writing;

    fn begin(&mut self, changes: &[Changed], texts: &[TextChange], machine: &Watched) -> Result<Writing, Ended> {
        let fate = {
            let mut backstage = self.backstage.borrow_mut();
            backstage.take_all_outputs();
            let fate = backstage.fate.take();
            if let Some((_, seen)) = fate {
                backstage.coverage.add(seen, 1);
            }
            fate.map(|(fate, _)| fate)
        };
        let (fault, failure) = match fate {
            None | Some(Fate::EndsAfter { .. }) => (None, Ended::DiskFailed),
            Some(Fate::EndsDuring { how, stored }) => (Some(Fault::Unknown { stored }), how),
            Some(Fate::Fails { fault: fault @ Fault::Torn { .. } }) => (Some(fault), Ended::Torn),
            Some(Fate::Fails { fault }) => (Some(fault), Ended::DiskFailed),
            Some(Fate::Lies) => (Some(Fault::Unsynced), Ended::DiskFailed),
        };
        if let Some(fault) = fault {
            self.store.inject(0, fault);
        }
        if failure == Ended::Torn {
            self.backstage.borrow_mut().before = Some(self.store.killed());
        }
        let before = self.ledger.sequence();
        let (writing, durable) = self.prepare(changes, texts, &machine.coordinator).map_err(|_| failure)?;
        let (through, ended) = (self.ledger.sequence(), std::mem::take(&mut self.backstage.borrow_mut().pending));
        self.away = Some(Away { fate, failure, before, through, ended, durable });
        Ok(writing)
    }

    fn end(&mut self, written: Option<Written>) -> Result<(), Ended> {
        let Away { fate, failure, before, through, ended, durable } = self.away.take().expect("a commit has begun");
        let mut backstage = self.backstage.borrow_mut();
        if self.ledger.end(written.expect("it was written")).is_err() {
            backstage.over = true;
            // What was decided meanwhile is gone.
            backstage.pending = ended;
            // What a start would find; a batch that was torn is refused.
            let found = MemoryStore::with(self.store.killed());
            let found = open_in_memory(&found, InstanceId::NONE, Options::default(), Tick(0));
            backstage.stored = found.is_ok_and(|found| found.recovery.sequence > before);
            if matches!(failure, Ended::DiskFailed | Ended::Torn) {
                backstage.failure_noted = true;
                backstage.notes.push(Record::DiskFailed);
            }
            return Err(failure);
        }
        // Whoever is told of the end of something hears of it after this.
        backstage.notes.extend(ended);
        backstage.notes.extend(durable);
        backstage.acked = through;
        backstage.lied = fate == Some(Fate::Lies);
        match fate {
            Some(Fate::EndsAfter { how }) => Err(how),
            None | Some(Fate::EndsDuring { .. } | Fate::Fails { .. } | Fate::Lies) => Ok(()),
        }
    }
}

/// Writes when it is waited for; until then some of the messages that wait are heard.
pub(super) struct Committer {
    away: Option<Writing>,
    random: Random,
    backstage: Shared,
}

impl Committer {
    pub(super) fn new(seed: u64, backstage: Shared) -> Self {
        Self { away: None, random: Random::new(seed), backstage }
    }
}

impl Commit<Writing> for Committer {
    fn begin(&mut self, writing: Writing) {
        self.away = Some(writing);
    }

    fn next(&mut self, inbox: Option<&mut Messages>) -> Meanwhile<Written> {
        if self.random.percent(80)
            && let Some(inbound) = inbox.and_then(Messages::try_next)
        {
            self.backstage.borrow_mut().coverage.add(Seen::DecidedMeanwhile, 1);
            return Meanwhile::Said(inbound);
        }
        self.away.take().map_or(Meanwhile::Lost, |writing| Meanwhile::Written(Write::write(writing)))
    }
}
