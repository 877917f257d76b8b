//! From stored rows back to a coordinator.
//!
//! Rows may come in any order and more than once (pages first, then the journal); the last word on a row counts. When all
//! are there the indexes are built and every invariant is checked, so that a damaged state is refused, not served.
//! Bounds are checked before anything is allocated: a row from a disk may say anything.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::campaign::{Campaign, first_level};
use super::latest::Latest;
use super::leases::Leases;
use super::open::OpenTasks;
use super::rows::{
    CLEAR_TASKS_UNIT, Change, GlobalsRow, LeaseRow, LeaseState, ReturnedRow, Row, RowKey, SessionRow, TaskRow,
    TroubleRow,
};
use super::sessions::{Session, Sessions};
use super::slots::Slots;
use super::tasks::Tasks;
use super::timers::Timers;
use super::waiting::Waiting;
use super::{Coordinator, Options, Step};
use crate::limits;
use crate::types::{CampaignId, InstanceId, TaskIndex, Tick};

/// The stored rows contradict each other: the data directory is damaged. The text says which rows and how.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Inconsistent(pub String);

/// Slots beyond this are not slots of ours.
const SLOTS_MAX: u32 = 1 << 28;
/// The same for sessions, whose rows are large; their slots are used densely.
const SESSION_SLOTS_MAX: u32 = limits::SESSIONS_MAX as u32;
/// No session sends this many requests.
const PROCESSED_MAX: u64 = 1 << 63;

/// Takes rows and changes in the order in which a store has them, then becomes a [`Coordinator`].
#[derive(Debug)]
pub struct Restorer {
    globals: Option<GlobalsRow>,
    campaigns: BTreeMap<CampaignId, super::rows::CampaignRow>,
    tasks: BTreeMap<CampaignId, Tasks>,
    leases: LeaseRows,
    sessions: BTreeMap<u32, SessionRow>,
    names: BTreeMap<u32, String>,
    troubles: BTreeMap<u32, TroubleRow>,
    returned: BTreeMap<u32, ReturnedRow>,
}

impl Default for Restorer {
    fn default() -> Self {
        Self::new()
    }
}

impl Restorer {
    /// An empty state: what a new data directory holds.
    pub fn new() -> Self {
        Self {
            globals: None,
            campaigns: BTreeMap::new(),
            tasks: BTreeMap::new(),
            leases: LeaseRows::default(),
            sessions: BTreeMap::new(),
            names: BTreeMap::new(),
            troubles: BTreeMap::new(),
            returned: BTreeMap::new(),
        }
    }

    /// Applies one change: a stored row as [`Change::Put`], or what the journal says.
    ///
    /// # Errors
    /// A key out of its range.
    pub fn apply(&mut self, change: Change) -> Result<(), Inconsistent> {
        match change {
            Change::Put(row) => {
                in_range(row.key())?;
                self.put(row);
            }
            Change::Remove(key) => {
                in_range(key)?;
                self.remove(key);
            }
            Change::ClearTasks { campaign, first, tasks } => {
                if !first.0.is_multiple_of(CLEAR_TASKS_UNIT) || !tasks.is_multiple_of(CLEAR_TASKS_UNIT) {
                    return Err(Inconsistent(format!("tasks of campaign {} cleared in part", campaign.0)));
                }
                if let Some(table) = self.tasks.get_mut(&campaign) {
                    table.clear(first, tasks);
                }
            }
        }
        Ok(())
    }

    /// Builds the indexes and checks every invariant. Every lease gets its full length from `now` on.
    ///
    /// # Errors
    /// What does not fit together; nothing may be served from such a state.
    pub fn finish(self, options: Options, instance: InstanceId, now: Tick) -> Result<Coordinator, Inconsistent> {
        // The first step of a data directory stores the globals; without them ids would begin anew.
        if self.globals.is_none() && !(self.campaigns.is_empty() && self.leases.is_empty() && self.sessions.is_empty())
        {
            return Err(Inconsistent("rows without the globals".into()));
        }
        if self.globals.as_ref().is_some_and(|row| row.next_campaign == 0) {
            return Err(Inconsistent("the next campaign has no number".into()));
        }
        let past = Latest::new(options.past_sessions_max);
        let mut coordinator = Coordinator {
            options,
            instance,
            globals: self.globals.unwrap_or(GlobalsRow { next_campaign: 1 }),
            campaigns: BTreeMap::new(),
            leases: Leases::default(),
            sessions: Sessions::default(),
            troubles: Slots::default(),
            returned: Slots::default(),
            names: HashMap::new(),
            creations: HashMap::new(),
            lendable: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            last_lent: CampaignId(0),
            orders: Latest::new(limits::ORDERED_NAMES_MAX),
            past,
            timers: Timers::default(),
            waiting: Waiting::default(),
            sweeps: VecDeque::new(),
            draining: false,
            now,
            touched: Vec::new(),
            step: Step::default(),
        };
        let mut tasks = self.tasks;
        for (id, row) in self.campaigns {
            row.spec.check().map_err(|error| Inconsistent(format!("campaign {}: {error}", id.0)))?;
            let mut campaign = Campaign::new(id, row);
            campaign.tasks = tasks.remove(&id).unwrap_or_default();
            coordinator.campaigns.insert(id, campaign);
        }
        if let Some(id) = tasks.into_iter().find(|(_, tasks)| tasks.touched().next().is_some()).map(|(id, _)| id) {
            return Err(Inconsistent(format!("counts of tasks without their campaign {}", id.0)));
        }
        coordinator.adopt_sessions(self.sessions, self.names)?;
        coordinator.adopt_troubles(self.troubles)?;
        coordinator.adopt_returned(self.returned)?;
        coordinator.adopt_leases(self.leases)?;
        coordinator.build_indexes()?;
        coordinator.check()?;
        Ok(coordinator)
    }

    fn put(&mut self, row: Row) {
        match row {
            Row::Globals(row) => self.globals = Some(row),
            Row::Campaign(id, row) => drop(self.campaigns.insert(id, *row)),
            Row::Task(id, task, row) => self.tasks.entry(id).or_default().get_mut(task).row = row,
            Row::Lease(slot, row) => self.leases.set(slot, Some(row)),
            Row::Session(slot, row) => drop(self.sessions.insert(slot, row)),
            Row::SessionName(slot, name) => drop(self.names.insert(slot, name)),
            Row::Trouble(slot, row) => drop(self.troubles.insert(slot, row)),
            Row::Returned(slot, row) => drop(self.returned.insert(slot, row)),
        }
    }

    fn remove(&mut self, key: RowKey) {
        match key {
            RowKey::Globals => self.globals = None,
            RowKey::Campaign(id) => drop(self.campaigns.remove(&id)),
            RowKey::Task(id, task) => {
                if let Some(tasks) = self.tasks.get_mut(&id) {
                    tasks.get_mut(task).row = TaskRow::default();
                }
            }
            RowKey::Lease(slot) => self.leases.set(slot, None),
            RowKey::Session(slot) => drop(self.sessions.remove(&slot)),
            RowKey::SessionName(slot) => drop(self.names.remove(&slot)),
            RowKey::Trouble(slot) => drop(self.troubles.remove(&slot)),
            RowKey::Returned(slot) => drop(self.returned.remove(&slot)),
        }
    }
}

/// Rows of leases by slot, 64 together: there may be millions, and the journal names them in any order.
#[derive(Debug, Default)]
struct LeaseRows(BTreeMap<u32, Box<[Option<LeaseRow>; 64]>>);

impl LeaseRows {
    fn set(&mut self, slot: u32, row: Option<LeaseRow>) {
        self.0.entry(slot / 64).or_insert_with(|| Box::new([None; 64]))[slot as usize % 64] = row;
    }

    fn is_empty(&self) -> bool {
        self.0.values().all(|rows| rows.iter().all(Option::is_none))
    }

    fn into_iter(self) -> impl Iterator<Item = (u32, LeaseRow)> {
        self.0
            .into_iter()
            .flat_map(|(place, rows)| (place * 64..).zip(*rows).filter_map(|(slot, row)| Some((slot, row?))))
    }
}

fn in_range(key: RowKey) -> Result<(), Inconsistent> {
    let fits = match key {
        RowKey::Globals => true,
        RowKey::Campaign(CampaignId(id)) => id > 0,
        RowKey::Task(_, TaskIndex(task)) => task < limits::TASKS_MAX,
        RowKey::Session(slot) | RowKey::SessionName(slot) => slot < SESSION_SLOTS_MAX,
        RowKey::Lease(slot) | RowKey::Trouble(slot) | RowKey::Returned(slot) => slot < SLOTS_MAX,
    };
    fits.then_some(()).ok_or_else(|| Inconsistent(format!("a key out of range: {key:?}")))
}

impl Coordinator {
    fn adopt_sessions(
        &mut self,
        rows: BTreeMap<u32, SessionRow>,
        mut names: BTreeMap<u32, String>,
    ) -> Result<(), Inconsistent> {
        for (slot, row) in rows {
            let name = names.remove(&slot).ok_or_else(|| Inconsistent(format!("session {slot} without a name")))?;
            let mut session = Session::new(row.id, name, row.origin, self.now);
            let mut last = row.confirmed;
            let ascending = row.refusals.iter().all(|refusal| {
                let fits = refusal.from > last && refusal.to >= refusal.from && refusal.to <= row.processed;
                last = refusal.to;
                fits
            });
            if !ascending
                || row.refusals.len() > limits::REFUSALS_MAX
                || row.confirmed > row.processed
                || row.processed > PROCESSED_MAX
            {
                return Err(Inconsistent(format!("session {slot} has impossible answers")));
            }
            session.row = row;
            if !self.sessions.restore(slot, session) {
                return Err(Inconsistent(format!("session {slot} is there twice")));
            }
            self.watch_idle(slot);
        }
        names.is_empty().then_some(()).ok_or_else(|| Inconsistent("a session's name without the session".into()))
    }

    fn adopt_troubles(&mut self, rows: BTreeMap<u32, TroubleRow>) -> Result<(), Inconsistent> {
        for (slot, row) in rows {
            let campaign = self.campaigns.get_mut(&row.campaign).filter(|campaign| row.task.0 < campaign.count());
            let campaign = campaign.ok_or_else(|| Inconsistent(format!("trouble {slot} without its task")))?;
            if campaign.troubles.insert(row.task, slot).is_some() {
                return Err(Inconsistent(format!("trouble {slot} is there twice")));
            }
            if row.quarantined {
                campaign.quarantined.insert(row.task);
            }
            campaign.totals.errors += u64::from(row.errors);
            campaign.totals.losses += u64::from(row.losses);
            self.troubles.put(slot, row);
        }
        Ok(())
    }

    fn adopt_returned(&mut self, rows: BTreeMap<u32, ReturnedRow>) -> Result<(), Inconsistent> {
        for (slot, row) in rows {
            let fits = |campaign: &&mut Campaign| {
                let end = u64::from(row.word) * 64 + 64 - u64::from(row.runs.leading_zeros());
                row.task.0 < campaign.count()
                    && row.runs != 0
                    && campaign.numbered()
                    && (campaign.removing() || end <= u64::from(campaign.tasks.get(row.task).row.issued))
            };
            let campaign = self.campaigns.get_mut(&row.campaign).filter(fits);
            let campaign =
                campaign.ok_or_else(|| Inconsistent(format!("returned runs {slot} do not fit their task")))?;
            if campaign.returned.insert((row.task, row.word), slot).is_some() {
                return Err(Inconsistent(format!("returned runs {slot} are there twice")));
            }
            self.returned.put(slot, row);
        }
        Ok(())
    }

    fn adopt_leases(&mut self, rows: LeaseRows) -> Result<(), Inconsistent> {
        for (slot, row) in rows.into_iter() {
            let wrong = |what: &str| Inconsistent(format!("lease {slot} {what}"));
            // A slot that was ever used keeps its row; one without would give out its ids again.
            if slot != self.leases.end() || row.generation == 0 {
                return Err(wrong("follows a slot that lost its generation"));
            }
            self.leases.restore(row, self.now);
            let Some(lease) = row.lease else { continue };
            if lease.task.0 >= limits::TASKS_MAX {
                return Err(wrong("has an impossible task"));
            }
            if !(1..=limits::LEASE_RUNS_MAX).contains(&lease.runs) {
                return Err(wrong("has an impossible number of runs"));
            }
            let session = self.sessions.get_mut(lease.session).ok_or_else(|| wrong("without its session"))?;
            if let Some(origin) = &mut session.origin
                && origin.leases.insert(lease.task, slot).is_some()
            {
                return Err(wrong("is a second one of its task on a connection of the origin's dialect"));
            }
            match lease.state {
                LeaseState::Live => self.leases.set_place(slot, session.live.insert(slot)),
                LeaseState::Expired | LeaseState::Gone => {
                    session.expired.push_back(slot);
                    self.leases.may_be_forgotten(slot, session.origin.is_some());
                }
            }
            let campaign = self.campaigns.get_mut(&lease.campaign).filter(|campaign| lease.task.0 < campaign.count());
            if let Some(campaign) = &campaign
                && campaign.numbered()
                && !campaign.removing()
                && u64::from(lease.first_run) + u64::from(lease.runs)
                    > u64::from(campaign.tasks.get(lease.task).row.issued)
            {
                return Err(wrong("has runs that were never issued"));
            }
            match (lease.state, campaign) {
                (LeaseState::Live, Some(campaign)) => {
                    let runs = if campaign.numbered() { lease.own.count_ones() } else { lease.runs };
                    let foreign = lease.own & !super::runs::mask(lease.runs) != 0;
                    if foreign || (!campaign.numbered() && lease.own != 0) {
                        return Err(wrong("owns runs that it does not have"));
                    }
                    if campaign.numbered() && campaign.lent.insert((lease.task, lease.first_run), slot).is_some() {
                        return Err(wrong("begins where another one does"));
                    }
                    campaign.tasks.get_mut(lease.task).leased += runs;
                    let id = self.leases.id(slot);
                    self.watch_lease(id);
                }
                (LeaseState::Expired, Some(_)) | (LeaseState::Gone, _) => {}
                (LeaseState::Live | LeaseState::Expired, None) => return Err(wrong("without its task")),
            }
        }
        Ok(())
    }

    fn build_indexes(&mut self) -> Result<(), Inconsistent> {
        let mut ids = Vec::with_capacity(self.campaigns.len());
        // A late report under an expired lease may touch a task whose counters are still zero.
        let mut lent_end: HashMap<CampaignId, u32> = HashMap::new();
        for (_, lease) in self.leases.iter() {
            let end = lent_end.entry(lease.campaign).or_default();
            *end = (*end).max(lease.task.0 + 1);
        }
        for (id, campaign) in &mut self.campaigns {
            if id.0 >= self.globals.next_campaign {
                return Err(Inconsistent(format!("campaign {} is newer than the newest", id.0)));
            }
            ids.push(*id);
            let (order, count, quota) = (campaign.row.spec.order, campaign.count(), campaign.quota());
            let quarantined = campaign.quarantined.last().map_or(0, |task| task.0 + 1);
            let end = campaign.tasks.end().max(quarantined).max(lent_end.get(id).copied().unwrap_or(0));
            if end > count {
                return Err(Inconsistent(format!("campaign {} has counts of tasks beyond its last", id.0)));
            }
            let first_level = first_level(order, campaign.numbered());
            campaign.open = OpenTasks::restored(count, first_level, end, |task| campaign.level(task));
            let Campaign { tasks, totals, .. } = campaign;
            for (_, counters) in tasks.touched() {
                totals.tasks_done += u64::from(counters.row.done >= quota);
                totals.runs_done += u64::from(counters.row.done);
                totals.runs_extra += u64::from(counters.row.extra);
                totals.runs_leased += u64::from(counters.leased);
            }
            if campaign.removing() {
                continue;
            }
            if self.names.insert(campaign.row.spec.name.clone(), *id).is_some() {
                return Err(Inconsistent(format!("two campaigns are named {:?}", campaign.row.spec.name)));
            }
            self.creations.insert(campaign.row.creation, *id);
        }
        for id in ids {
            self.campaign_changed(id, false);
        }
        Ok(())
    }
}
