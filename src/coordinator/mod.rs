//! The state machine: decides who works on what, what counts, and what is said to whom.
//!
//! ```text
//!   apply(now, Command) ──▶ Step { changes, texts ── to the store, then ── outputs ── to the connections }
//!   Restorer: rows, changes ──▶ Coordinator
//! ```
//!
//! Pure: no I/O, no clock, no chance, no async, no logging; time is handed in. One owner calls it from one thread.
//! The work of a step is bounded by the command's own size and [`Options::slice`]; what is more (mass expiry, removal,
//! many waiting sessions) goes on with the next [`Command::Advance`], which [`Coordinator::next_deadline`] asks for at once.
//!
//! **Invariants** (see `check.rs`): for every task of a numbered campaign, issued == done + lent + returned; leased is the
//! sum over live leases; every index equals a full scan; a coordinator restored from `durable_view()` has the same
//! `durable_view()`. Changes cannot drift from the state: a step notes which rows it touched, and
//! whoever makes them durable reads their values from the state.
//!
//! Reading order: `command` (what goes in and out), `rows` (what is durable), `campaign` and `runs` (how runs move),
//! `reports`, `grants`, `expiry`, `hello`, `origin`, `control`, `sweeps`, `restore`, `check`. Tested in `tests/`.

mod campaign;
mod check;
pub mod command;
mod control;
mod expiry;
mod grants;
mod hello;
mod latest;
mod leases;
mod open;
mod origin;
mod reports;
mod restore;
pub mod rows;
mod runs;
mod sessions;
mod slots;
mod sweeps;
mod tasks;
#[cfg(test)]
mod tests;
mod timers;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use self::campaign::Campaign;
use self::latest::Latest;
use self::leases::Leases;
use self::sessions::Sessions;
use self::slots::Slots;
use self::sweeps::Sweep;
use self::timers::Timers;
use self::waiting::Waiting;
use crate::limits;
use crate::types::{CampaignId, ConnectionId, CreationId, InstanceId, SessionId, Tick};

pub use self::command::{Command, Output, Step, TextChange};
pub use self::restore::{Inconsistent, Restorer};
pub use self::rows::{Change, Changed, Row, RowKey};
use self::rows::{GlobalsRow, Phase, ReturnedRow, TroubleRow};

/// Settings and bounds of a coordinator; the defaults are those of [`crate::limits`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Length of a lease of campaigns that do not name one, in milliseconds.
    pub lease_ms: u64,
    /// The campaign of the origin's dialect; `None` is the only counted one.
    pub origin_campaign: Option<String>,
    /// A session idle this long is forgotten, in milliseconds.
    pub session_idle_ms: u64,
    /// A creation that nobody goes on with for this long is dropped, in milliseconds.
    pub creation_idle_ms: u64,
    /// Leases in any state, over all sessions; when no more fit, the one that expired longest ago is forgotten.
    pub leases_max: usize,
    /// Live leases of a session.
    pub leases_per_session_max: u32,
    /// Expired leases remembered for a session.
    pub expired_per_session_max: usize,
    /// Sessions remembered.
    pub sessions_max: usize,
    /// Forgotten sessions of which is remembered which connection was their last.
    pub past_sessions_max: usize,
    /// Campaigns at a time.
    pub campaigns_max: usize,
    /// Expiries, sweep items and waiting sessions handled in one step.
    pub slice: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lease_ms: limits::LEASE_MS_DEFAULT,
            origin_campaign: None,
            session_idle_ms: limits::SESSION_IDLE_MS,
            creation_idle_ms: limits::CREATION_IDLE_MS,
            leases_max: limits::LEASES_MAX,
            leases_per_session_max: limits::LEASES_PER_SESSION_MAX,
            expired_per_session_max: limits::EXPIRED_PER_SESSION_MAX,
            sessions_max: limits::SESSIONS_MAX,
            past_sessions_max: limits::PAST_SESSIONS_MAX,
            campaigns_max: limits::CAMPAIGNS_MAX,
            slice: limits::SLICE,
        }
    }
}

/// Rows that an ordinary item of a slice touches at most: a lease, its task, two words of returned runs, a trouble, …
const ROWS_PER_ITEM: usize = 8;

/// The state machine.
#[derive(Debug)]
pub struct Coordinator {
    options: Options,
    instance: InstanceId,

    // Durable, with their indexes.
    globals: GlobalsRow,
    campaigns: BTreeMap<CampaignId, Campaign>,
    leases: Leases,
    sessions: Sessions,
    troubles: Slots<TroubleRow>,
    returned: Slots<ReturnedRow>,

    // Indexes over campaigns.
    names: HashMap<String, CampaignId>,
    creations: HashMap<CreationId, CampaignId>,
    lendable: BTreeSet<CampaignId>,
    unsettled: BTreeSet<CampaignId>,

    // In memory only.
    last_lent: CampaignId,
    /// Orders about campaigns, by name.
    orders: Latest<String>,
    /// Sessions that were forgotten.
    past: Latest<SessionId>,
    timers: Timers,
    waiting: Waiting,
    sweeps: VecDeque<Sweep>,
    draining: bool,
    now: Tick,

    // The step in the making; `step` holds those before it, too.
    touched: Vec<RowKey>,
    step: Step,
}

/// How much a coordinator holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Campaigns, those being removed left out.
    pub campaigns: usize,
    /// Tasks of those.
    pub tasks: u64,
    /// Runs done of those.
    pub runs_done: u64,
    /// Sessions remembered.
    pub sessions: usize,
    /// Live leases.
    pub leases: usize,
}

impl Coordinator {
    /// Decides. Time never goes backwards: an earlier `now` than before is taken as the one before.
    ///
    /// The caller makes the step's changes and texts durable together, and only then sends its outputs, in order.
    pub fn apply(&mut self, now: Tick, command: Command) -> Step {
        let mut step = Step::default();
        self.apply_to(&mut step, now, command);
        step
    }

    /// Decides as [`Coordinator::apply`] does, and adds the step to what earlier ones came to: together they may be made durable, and use
    /// the same memory.
    pub fn apply_to(&mut self, steps: &mut Step, now: Tick, command: Command) {
        std::mem::swap(&mut self.step, steps);
        self.decide(now, command);
        self.step.changes.extend(self.touched.drain(..).map(Changed::Row));
        std::mem::swap(&mut self.step, steps);
    }

    fn decide(&mut self, now: Tick, command: Command) {
        self.now = self.now.max(now);
        match command {
            Command::Boot => self.boot(),
            Command::Advance => self.advance(),
            Command::Drain => self.draining = true,
            Command::Hello { connection, hello } => self.hello(connection, hello),
            Command::Want { connection, want } => self.want(connection, want),
            Command::Requests { connection, first, confirmed, requests } => {
                self.requests(connection, first, confirmed, requests);
            }
            Command::Heartbeat { connection, confirmed } => self.heartbeat(connection, confirmed),
            Command::Goodbye { connection } => self.goodbye(connection),
            Command::Disconnected { connection } => self.disconnected(connection),
            Command::Origin { connection, done } => self.origin(connection, &done),
            Command::Control { connection, id, request } => self.control(connection, id, request),
        }
        self.serve_waiting();
    }

    /// When [`Command::Advance`] is due at the latest; `None` while nothing will ever be.
    pub fn next_deadline(&self) -> Option<Tick> {
        if self.waiting.is_marked() || !self.sweeps.is_empty() || self.timers.are_many(self.timed()) {
            return Some(self.now);
        }
        self.timers.next()
    }

    /// One durable row as it stands.
    pub fn row(&self, key: RowKey) -> Option<Row> {
        Some(match key {
            RowKey::Globals => Row::Globals(self.globals.clone()),
            RowKey::Campaign(id) => Row::Campaign(id, Box::new(self.campaigns.get(&id)?.row.clone())),
            RowKey::Task(id, task) => {
                let row = self.campaigns.get(&id)?.tasks.get(task).row;
                if row == rows::TaskRow::default() {
                    return None;
                }
                Row::Task(id, task, row)
            }
            RowKey::Lease(slot) => Row::Lease(slot, self.leases.row(slot)?),
            RowKey::Session(slot) => {
                let session = self.sessions.get(slot).filter(|session| session.stored)?;
                Row::Session(slot, session.row.clone())
            }
            RowKey::SessionName(slot) => {
                let session = self.sessions.get(slot).filter(|session| session.stored)?;
                Row::SessionName(slot, session.name.clone())
            }
            RowKey::Trouble(slot) => Row::Trouble(slot, self.troubles.get(slot)?.clone()),
            RowKey::Returned(slot) => Row::Returned(slot, *self.returned.get(slot)?),
        })
    }

    /// What has changed, with the values as they stand now: each row once, in ascending order of the keys, behind what was cleared.
    pub fn changes(&self, changed: &[Changed]) -> Vec<Change> {
        let mut keys = BTreeSet::new();
        let mut changes = Vec::new();
        for changed in changed {
            match *changed {
                Changed::Row(key) => drop(keys.insert(key)),
                Changed::ClearTasks { campaign, first, tasks } => {
                    changes.push(Change::ClearTasks { campaign, first, tasks });
                }
            }
        }
        changes.extend(keys.into_iter().map(|key| self.row(key).map_or(Change::Remove(key), Change::Put)));
        changes
    }

    /// All durable rows: what a store that missed nothing holds.
    pub fn durable_view(&self) -> BTreeMap<RowKey, Row> {
        self.rows().map(|row| (row.key(), row)).collect()
    }

    /// The rows of [`Coordinator::durable_view`] in ascending order of their keys, one at a time: a state of any size needs no
    /// second one in memory.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        let campaigns = self.campaigns.keys().map(|id| RowKey::Campaign(*id));
        let tasks = self
            .campaigns
            .iter()
            .flat_map(|(id, campaign)| campaign.tasks.touched().map(|(task, _)| RowKey::Task(*id, task)));
        let leases = (0..self.leases.end()).map(RowKey::Lease);
        let sessions = self.sessions.iter().map(|(slot, _)| RowKey::Session(slot));
        let names = self.sessions.iter().map(|(slot, _)| RowKey::SessionName(slot));
        let troubles = self.troubles.iter().map(|(slot, _)| RowKey::Trouble(slot));
        let returned = self.returned.iter().map(|(slot, _)| RowKey::Returned(slot));
        std::iter::once(RowKey::Globals)
            .chain(campaigns)
            .chain(tasks)
            .chain(leases)
            .chain(sessions)
            .chain(names)
            .chain(troubles)
            .chain(returned)
            .filter_map(|key| self.row(key))
    }

    /// How much there is.
    pub fn summary(&self) -> Summary {
        let campaigns = || self.names.values().filter_map(|id| self.campaigns.get(id));
        Summary {
            campaigns: self.names.len(),
            tasks: campaigns().map(|campaign| u64::from(campaign.count())).sum(),
            runs_done: campaigns().map(|campaign| campaign.totals.runs_done).sum(),
            sessions: self.sessions.iter().filter(|(_, session)| session.stored).count(),
            leases: self.sessions.iter().map(|(_, session)| session.live.len()).sum(),
        }
    }

    /// The next step of a process that begins: what does not outlive a process is ended, in slices.
    fn boot(&mut self) {
        self.touch(RowKey::Globals);
        self.sweeps.push_back(Sweep::EndOrigin { next: 0 });
        for (id, campaign) in &self.campaigns {
            if campaign.removing() {
                self.sweeps.push_back(Sweep::remove(*id));
            }
        }
        let creating = |campaign: &&Campaign| campaign.row.phase == Phase::Creating;
        let unsealed: Vec<_> = self.campaigns.values().filter(creating).map(|campaign| campaign.id).collect();
        for id in unsealed {
            self.begin_removal(id);
        }
        self.sweep();
    }

    /// Time passed, or work was left over.
    fn advance(&mut self) {
        self.expire();
        self.sweep();
    }

    /// Notes that a row may have changed; its value is read when the step ends.
    fn touch(&mut self, key: RowKey) {
        self.touched.push(key);
    }

    /// How many touched rows make a slice full before its items are used up: a forgotten session or a served one may stand
    /// for a thousand leases.
    fn rows_until_full(&self) -> usize {
        self.touched.len() + ROWS_PER_ITEM * self.options.slice
    }

    /// Sends something once the step is durable.
    fn send(&mut self, connection: ConnectionId, output: Output) {
        self.step.outputs.push((connection, output));
    }

    /// Keeps the indexes over campaigns in step with one of them. `opened`: a run can be lent that could not before, so
    /// those who wait look again; they also do when the campaign settled just now.
    fn campaign_changed(&mut self, id: CampaignId, opened: bool) {
        let Some(campaign) = self.campaigns.get(&id) else { return };
        let lendable = campaign.lendable();
        if lendable {
            self.lendable.insert(id);
        } else {
            self.lendable.remove(&id);
        }
        let settled_now = if campaign.settled().is_some() || campaign.removing() {
            self.unsettled.remove(&id)
        } else {
            self.unsettled.insert(id);
            false
        };
        if settled_now || (opened && lendable) {
            self.waiting.mark(&campaign.info.name, settled_now);
        }
    }
}
