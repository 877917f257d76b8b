//! The world as a history tells it: who holds what, what was sent and answered, and since when that is surely so.
//!
//! Every rule asks this one book, which follows the records in order. It judges nothing but the history itself: what its
//! writers cannot have done ([`crate::rules::Rule::Sound`]).
//!
//! Two tallies a task bound what a right server may have counted, whatever the order in which processes ran:
//!
//! ```text
//!   acked  ⊆  counted by the server  ⊆  possible
//!   (answers that were read)            (sent, and not known to be uncounted)
//! ```
//!
//! What an observer saw lies between what was acked when it *began* to ask and what was possible when it had read. So what
//! is acked is kept with its place in the history ([`Growth`]), to be asked for any earlier place.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::history::{
    Change, Fate, Heard, Instance, Kind, Line, Moment, Origin, Phase, Reason, Record, Row, Sent, Session, Setting,
    TEST, Units, Who,
};

/// Expired leases that a session remembers unless a history says otherwise.
const EXPIRED_MAX: u64 = 1_024;

/// Units that one report may have.
pub(crate) const UNITS_MAX: u32 = 1_000;

/// A number that grows, and since when.
#[derive(Clone, Debug, Default)]
pub(crate) struct Growth(Vec<(usize, u64)>);

impl Growth {
    /// Its value after the record at a place.
    pub(crate) fn at(&self, place: usize) -> u64 {
        let later = self.0.partition_point(|(since, _)| *since <= place);
        later.checked_sub(1).map_or(0, |index| self.0[index].1)
    }

    /// Its value now.
    pub(crate) fn now(&self) -> u64 {
        self.0.last().map_or(0, |(_, value)| *value)
    }

    /// It is at least so much from a place on.
    pub(crate) fn raise(&mut self, place: usize, value: u64) {
        if value > self.now() {
            self.0.push((place, value));
        }
    }
}

/// Executions, and how many of each run where runs are told apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) units: u64,
    pub(crate) runs: BTreeMap<u32, u32>,
}

impl Tally {
    pub(crate) fn add(&mut self, units: u64, runs: &[u32]) {
        self.units += units;
        for run in runs {
            *self.runs.entry(*run).or_default() += 1;
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.units += other.units;
        for (run, times) in &other.runs {
            *self.runs.entry(*run).or_default() += times;
        }
    }

    fn remove(&mut self, units: u64, runs: &[u32]) {
        self.units = self.units.saturating_sub(units);
        for run in runs {
            if let Some(times) = self.runs.get_mut(run) {
                *times -= 1;
                if *times == 0 {
                    self.runs.remove(run);
                }
            }
        }
    }

    /// How much of it counts towards the goal of its task.
    pub(crate) fn towards(&self, goal: Goal) -> u64 {
        let distinct = if goal.numbered { self.runs.len() as u64 } else { self.units };
        distinct.min(u64::from(goal.quota))
    }
}

/// What is wanted of each task of a campaign.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    pub(crate) quota: u32,
    /// Whether runs are told apart.
    pub(crate) numbered: bool,
}

/// What was done for one task.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    /// Surely counted.
    pub(crate) acked: Tally,
    pub(crate) acked_units: Growth,
    pub(crate) acked_towards: Growth,
    /// Possibly counted.
    pub(crate) possible: Tally,
    /// Units beyond what was lent, in reports that possibly count.
    pub(crate) excess: u64,
    /// Units in messages of the origin's dialect that possibly count, and those that surely do.
    pub(crate) origin: u64,
    pub(crate) origin_acked: Growth,
    /// Failed runs in reports that possibly count.
    pub(crate) failed: u64,
    /// What observers saw: done, and with extra ones.
    pub(crate) seen_done: Growth,
    pub(crate) seen_total: Growth,
}

/// A campaign and what was done for it.
#[derive(Clone, Debug)]
pub(crate) struct Campaign {
    pub(crate) name: String,
    pub(crate) directory: usize,
    pub(crate) tasks: u32,
    pub(crate) quota: u32,
    pub(crate) kind: Kind,
    pub(crate) lease_ms: Option<u64>,
    pub(crate) lasting: bool,
    pub(crate) errors_max: Option<u32>,
    pub(crate) losses_max: Option<u32>,
    /// Changes that were asked for, ever.
    pub(crate) asked: BTreeSet<Change>,
    /// Since when its creation is known, if it is.
    pub(crate) created: Option<usize>,
    open_changes: u32,
    /// Its phase, if it can be known, and since when.
    pub(crate) phase: Option<(usize, Phase)>,
    pub(crate) work: BTreeMap<u32, Work>,
    /// Its leases by task.
    pub(crate) leases: BTreeMap<u32, Vec<u64>>,
    /// Sums over all tasks.
    pub(crate) acked_units: Growth,
    pub(crate) acked_towards: Growth,
    pub(crate) seen_done: Growth,
    pub(crate) seen_total: Growth,
    /// Since when it is said to be finished.
    pub(crate) finished: Option<usize>,
}

impl Campaign {
    pub(crate) fn numbered(&self) -> bool {
        self.kind == Kind::Numbered
    }

    pub(crate) fn goal(&self) -> Goal {
        Goal { quota: self.quota, numbered: self.numbered() }
    }

    /// Whether somebody may have removed it.
    pub(crate) fn removable(&self) -> bool {
        self.asked.contains(&Change::Remove)
    }

    /// Whether a task may be set aside.
    pub(crate) fn quarantinable(&self, task: u32) -> bool {
        let failed = self.work.get(&task).map_or(0, |work| work.failed);
        let errors = self.errors_max.is_some_and(|max| failed >= u64::from(max));
        errors || (self.losses_max.is_some() && !self.lasting)
    }

    /// The first task whose quota cannot have been met, if there is one; those that may be set aside do not count.
    pub(crate) fn missing(&self, but_set_aside: bool) -> Option<u32> {
        let met = |task: &u32| {
            let towards = self.work.get(task).map_or(0, |work| work.possible.towards(self.goal()));
            towards >= u64::from(self.quota) || (but_set_aside && self.quarantinable(*task))
        };
        (0..self.tasks).find(|task| !met(task))
    }
}

/// A lease, as its holder wrote it down.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) at: usize,
    pub(crate) id: u64,
    pub(crate) who: Who,
    pub(crate) session: Session,
    pub(crate) campaign: usize,
    pub(crate) task: u32,
    pub(crate) first: u32,
    pub(crate) runs: u32,
    /// Its holder knows that it is lost.
    pub(crate) lost: bool,
    /// The number and place of the first request that speaks of it.
    pub(crate) request: Option<(u64, usize)>,
}

impl Lease {
    pub(crate) fn speaks_of(&self, run: u32) -> bool {
        (self.first..self.first.saturating_add(self.runs)).contains(&run)
    }

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        (self.first..self.first.saturating_add(self.runs)).any(|run| other.speaks_of(run))
    }
}

/// A request.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "four facts that are independent of each other")]
pub(crate) struct Request {
    pub(crate) at: usize,
    pub(crate) lease: u64,
    pub(crate) what: Sent,
    pub(crate) units: u64,
    pub(crate) runs: Vec<u32>,
    pub(crate) excess: u64,
    pub(crate) failed: u64,
    /// Whether it says what a report may say.
    pub(crate) proper: bool,
    /// Whether its lease was known to be lost, or had expired, when it was sent.
    pub(crate) late: bool,
    /// Whether an earlier request speaks of the same lease.
    pub(crate) repeats: bool,
    pub(crate) answer: Option<Heard>,
    pub(crate) fate: Option<Fate>,
    /// Its tallies are as its answer, or its fate, says.
    resolved: bool,
}

/// A session.
#[derive(Clone, Debug)]
pub(crate) struct Book {
    pub(crate) who: Who,
    pub(crate) directory: usize,
    pub(crate) requests: BTreeMap<u64, Request>,
    /// Its leases.
    pub(crate) leases: Vec<u64>,
    /// Releases of leases that their client never took.
    releases: BTreeSet<u64>,
    /// Its client is about to say goodbye, since when.
    pub(crate) closing: Option<usize>,
    /// The highest number whose answer was read, and since when.
    pub(crate) acked: Growth,
}

impl Book {
    /// The highest number that its client sent.
    pub(crate) fn last_sent(&self) -> u64 {
        let request = self.requests.last_key_value().map_or(0, |(number, _)| *number);
        self.releases.last().map_or(request, |release| request.max(*release))
    }
}

/// A client process.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "four facts that are independent of each other")]
pub(crate) struct Client {
    pub(crate) sessions: Vec<Session>,
    /// The data directory that it met last, as far as it wrote it down.
    pub(crate) met: Option<usize>,
    pub(crate) until_done: bool,
    pub(crate) closed: bool,
    pub(crate) frozen: bool,
    /// It was killed or left.
    pub(crate) dead: bool,
    /// The first time that was read after that.
    pub(crate) dead_by: Option<u64>,
}

/// A connection of the origin's dialect.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) campaign: Option<usize>,
    held: BTreeSet<u32>,
    open: VecDeque<Vec<Units>>,
    ended: bool,
}

/// What one observer is asking for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    pub(crate) began: usize,
    pub(crate) directory: usize,
    /// Campaigns that are said to be settled or finished.
    pub(crate) standings: BTreeMap<usize, crate::history::Standing>,
    pub(crate) counts: BTreeMap<usize, BTreeMap<u32, Count>>,
    /// Tasks of which not even bounds hold, as was found.
    pub(crate) wrong: BTreeSet<(usize, u32)>,
}

/// What an observer was told of a task.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    pub(crate) done: u32,
    pub(crate) extra: u32,
    pub(crate) leased: u32,
    pub(crate) quarantined: bool,
}

/// A dump, or what has been read of it.
#[derive(Clone, Debug)]
pub(crate) struct Dump {
    pub(crate) began: usize,
    pub(crate) moment: Moment,
    pub(crate) directory: usize,
    pub(crate) rows: Vec<Row>,
}

/// Everything that a history tells.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) settings: BTreeMap<Setting, u64>,
    /// Which data directory is in place; they are numbered.
    pub(crate) directory: usize,
    pub(crate) directory_since: usize,
    pub(crate) instances: Vec<Option<Instance>>,
    pub(crate) campaigns: Vec<Campaign>,
    names: BTreeMap<(usize, String), usize>,
    pub(crate) clients: BTreeMap<Who, Client>,
    pub(crate) sessions: BTreeMap<Session, Book>,
    /// By directory and id.
    pub(crate) leases: BTreeMap<(usize, u64), Lease>,
    /// What ended in the server, as the history says; a client may hear of it later than that.
    pub(crate) expired: BTreeSet<(usize, u64)>,
    pub(crate) dropped: BTreeSet<(usize, u64)>,
    pub(crate) dropped_sessions: BTreeSet<Session>,
    /// The highest number of each session that is durable.
    pub(crate) durable: BTreeMap<Session, u64>,
    pub(crate) connections: BTreeMap<u64, Connection>,
    pub(crate) looks: BTreeMap<Who, Look>,
    pub(crate) dumps: BTreeMap<Who, Dump>,
    /// The last record of the harness's clock.
    pub(crate) now: u64,
    /// Where faults stopped, and the first time that was read after that.
    pub(crate) calm: Option<usize>,
    pub(crate) calm_by: Option<u64>,
    pub(crate) ended: bool,
    /// Where the last report was sent.
    pub(crate) last_sent: usize,
}

/// What follows from one record, for the rules.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// What its writer cannot have done.
    pub(crate) unsound: Vec<String>,
    /// A look that has just ended.
    pub(crate) look: Option<Look>,
    /// A dump that has just ended.
    pub(crate) dump: Option<Dump>,
    /// The session that this record speaks of.
    pub(crate) session: Option<Session>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { instances: vec![None], ..Self::default() }
    }

    pub(crate) fn setting(&self, setting: Setting) -> u64 {
        let default = if setting == Setting::ExpiredMax { EXPIRED_MAX } else { 0 };
        self.settings.get(&setting).copied().unwrap_or(default)
    }

    /// A bound, if the history states one.
    pub(crate) fn bound(&self, setting: Setting) -> Option<u64> {
        self.settings.get(&setting).copied()
    }

    pub(crate) fn flag(&self, setting: Setting) -> bool {
        self.setting(setting) != 0
    }

    /// A campaign of the data directory that is in place.
    pub(crate) fn campaign(&self, name: &str) -> Option<usize> {
        self.campaign_in(self.directory, name)
    }

    pub(crate) fn campaign_in(&self, directory: usize, name: &str) -> Option<usize> {
        self.names.get(&(directory, name.to_owned())).copied()
    }

    /// A campaign that a client was told of: of the directory that it met last, or of the present one.
    pub(crate) fn campaign_told(&self, who: Who, name: &str) -> Option<usize> {
        let met = self.clients.get(&who).and_then(|client| client.met).unwrap_or(self.directory);
        self.campaign_in(met, name).or_else(|| self.campaign(name))
    }

    /// The session that a client's record speaks of.
    pub(crate) fn session_of(&self, who: Who) -> Option<Session> {
        self.clients.get(&who)?.sessions.last().copied()
    }

    /// Whether the server surely remembers a lease as far as its session goes, live or expired, until it is reported or
    /// given back. `until`: what its client did after this place is not looked at.
    pub(crate) fn surely_remembered(&self, lease: &Lease, until: usize) -> bool {
        let Some(book) = self.sessions.get(&lease.session) else { return false };
        let campaign = &self.campaigns[lease.campaign];
        let written = self.flag(Setting::Expiries);
        let forgettable = !written && !campaign.lasting && book.leases.len() as u64 > self.setting(Setting::ExpiredMax);
        let ended = self.forgettable(&lease.session) || book.closing.is_some_and(|at| at <= until);
        !forgettable && !ended && !self.dropped.contains(&(book.directory, lease.id)) && !campaign.removable()
    }

    /// Whether a lease is surely its holder's: remembered, not expired, and nothing was sent of it.
    pub(crate) fn surely_held(&self, lease: &Lease, until: usize) -> bool {
        let sent = lease.request.is_some_and(|(_, at)| at <= until);
        !sent && self.surely_live(lease) && self.surely_remembered(lease, until)
    }

    /// Whether a lease surely did not expire so far.
    pub(crate) fn surely_live(&self, lease: &Lease) -> bool {
        let directory = self.campaigns[lease.campaign].directory;
        let written = self.flag(Setting::Expiries) && !self.expired.contains(&(directory, lease.id));
        self.campaigns[lease.campaign].lasting || written
    }

    /// Whether the server may have forgotten a session without a goodbye.
    pub(crate) fn forgettable(&self, session: &Session) -> bool {
        self.flag(Setting::SessionsEnd) || self.dropped_sessions.contains(session)
    }

    /// What an observer was told is known from here on.
    pub(crate) fn saw(&mut self, at: usize, campaign: usize, task: u32, count: &Count) {
        let one = &mut self.campaigns[campaign];
        let work = one.work.entry(task).or_default();
        work.seen_done.raise(at, u64::from(count.done));
        work.seen_total.raise(at, u64::from(count.done) + u64::from(count.extra));
    }

    /// The same, of the sums of a campaign.
    pub(crate) fn saw_sums(&mut self, at: usize, campaign: usize, (done, extra): (u64, u64)) {
        self.campaigns[campaign].seen_done.raise(at, done);
        self.campaigns[campaign].seen_total.raise(at, done + extra);
    }

    /// Takes in one record.
    pub(crate) fn take(&mut self, line: &Line) -> Told {
        let mut told = Told::default();
        let Line { at, who, record } = line;
        match record {
            Record::Set { setting, value } => {
                self.settings.insert(*setting, *value);
            }
            Record::Create { .. } => self.create(record, &mut told),
            Record::Ask { campaign, change } => self.asked(campaign, *change, &mut told),
            Record::Done { campaign, change } => self.changed(*at, campaign, *change, &mut told),
            Record::Begin { session, instance } => self.begin(*who, *session, *instance, &mut told),
            Record::Resumed { .. } | Record::Forgotten { .. } => {
                // Before the first grant a session is nothing that lasts, and its client has none here.
                told.session = self.session_of(*who);
                if matches!(record, Record::Forgotten { .. }) {
                    self.clients.entry(*who).or_default().met = Some(self.directory);
                }
            }
            Record::Grant { lease, campaign, task, first, runs } => {
                self.granted(line, *lease, campaign, (*task, *first, *runs), &mut told);
            }
            Record::Lost { lease } => self.lost(*who, *lease, &mut told),
            Record::Send { number, lease, what } => self.sent(line, *number, *lease, *what, &mut told),
            Record::Ack { number, heard } => self.acked(line, *number, *heard, &mut told),
            Record::Again { number, .. } => {
                told.session = self.session_of(*who);
                let request = told.session.and_then(|session| self.sessions.get(&session)?.requests.get(number));
                if request.is_none_or(|request| request.answer.is_none()) {
                    told.unsound.push(format!("client {who} hears {number} again, which it had not heard"));
                }
            }
            Record::UntilDone => self.clients.entry(*who).or_default().until_done = true,
            Record::Closing => self.closing(*who, *at),
            Record::Closed { .. } => {
                self.closing(*who, *at);
                self.clients.entry(*who).or_default().closed = true;
            }
            Record::Left => self.clients.entry(*who).or_default().dead = true,
            Record::KilledClient { who } => self.clients.entry(*who).or_default().dead = true,
            Record::Frozen { who } => self.clients.entry(*who).or_default().frozen = true,
            Record::Thawed { who } => self.clients.entry(*who).or_default().frozen = false,
            Record::OriginOpen { connection, campaign } => {
                let campaign = self.campaign(campaign);
                let opened = Connection { campaign, held: BTreeSet::new(), open: VecDeque::new(), ended: false };
                if campaign.is_none() || self.connections.insert(*connection, opened).is_some() {
                    told.unsound.push(format!("connection {connection} is opened twice, or works on nothing"));
                }
            }
            Record::OriginSend { connection, done } => self.origin_sent(*at, *connection, done, &mut told),
            Record::OriginAnswer { connection, answer } => self.origin_answered(*at, *connection, *answer, &mut told),
            Record::OriginEnd { connection } => {
                if let Some(connection) = self.connections.get_mut(connection) {
                    connection.ended = true;
                }
            }
            Record::Look => {
                let look = Look { began: *at, directory: self.directory, ..Look::default() };
                if self.looks.insert(*who, look).is_some() {
                    told.unsound.push(format!("observer {who} begins to look twice"));
                }
            }
            Record::Status { .. } | Record::Count { .. } => self.looked_at(*who, record, &mut told),
            Record::Looked => {
                told.look = self.looks.remove(who);
                if told.look.is_none() {
                    told.unsound.push(format!("observer {who} has not begun to look"));
                }
            }
            Record::Fate { session, number, fate } => {
                told.session = Some(*session);
                self.fate(*at, *session, *number, *fate);
            }
            Record::Durable { session, through } => {
                let durable = self.durable.entry(*session).or_default();
                *durable = (*durable).max(*through);
                told.session = Some(*session);
            }
            Record::Out { session, .. } => told.session = Some(*session),
            Record::Expired { lease } => drop(self.expired.insert((self.directory, *lease))),
            Record::Dropped { lease } => drop(self.dropped.insert((self.directory, *lease))),
            Record::DroppedSession { session } => drop(self.dropped_sessions.insert(*session)),
            Record::Boot { instance } => {
                self.instances[self.directory].get_or_insert(*instance);
            }
            Record::NewDirectory => {
                self.directory += 1;
                self.directory_since = *at;
                self.instances.push(None);
            }
            Record::Dump { moment } => {
                let dump = Dump { began: *at, moment: *moment, directory: self.directory, rows: Vec::new() };
                self.dumps.insert(*who, dump);
            }
            Record::Row { row } => match self.dumps.get_mut(who) {
                Some(dump) => dump.rows.push(row.clone()),
                None => told.unsound.push("a row without a dump".to_owned()),
            },
            Record::Dumped { .. } => {
                told.dump = self.dumps.remove(who);
                if told.dump.is_none() {
                    told.unsound.push("the end of a dump that has not begun".to_owned());
                }
            }
            Record::Time { milliseconds } => {
                if *milliseconds < self.now {
                    told.unsound.push("time runs backwards".to_owned());
                }
                self.now = self.now.max(*milliseconds);
                let now = self.now;
                for client in self.clients.values_mut().filter(|client| client.dead) {
                    client.dead_by.get_or_insert(now);
                }
                if self.calm.is_some() {
                    self.calm_by.get_or_insert(now);
                }
            }
            Record::Calm => self.calm = Some(*at),
            Record::End => self.ended = true,
            // A dump that a fault interrupted is none.
            Record::KilledServer | Record::PowerCut { .. } => {
                self.dumps.remove(&TEST);
            }
            Record::DiskFailed
            | Record::Settled { .. }
            | Record::EndedServer { .. }
            | Record::ClockStalled { .. }
            | Record::Damaged { .. }
            | Record::Hostile
            | Record::Unhostile
            | Record::Upgraded { .. }
            | Record::RefusedStart { .. }
            | Record::Ready
            | Record::Usage { .. } => {}
        }
        told
    }

    fn create(&mut self, record: &Record, told: &mut Told) {
        let Record::Create { campaign, tasks, quota, kind, lease_ms, timeout_ms, errors_max, losses_max } = record
        else {
            return;
        };
        let made = Campaign {
            name: campaign.clone(),
            directory: self.directory,
            tasks: *tasks,
            quota: *quota,
            kind: *kind,
            lease_ms: *lease_ms,
            lasting: lease_ms.is_none() && timeout_ms.is_none(),
            errors_max: *errors_max,
            losses_max: *losses_max,
            asked: BTreeSet::new(),
            created: None,
            open_changes: 0,
            phase: None,
            work: BTreeMap::new(),
            leases: BTreeMap::new(),
            acked_units: Growth::default(),
            acked_towards: Growth::default(),
            seen_done: Growth::default(),
            seen_total: Growth::default(),
            finished: None,
        };
        let index = match self.campaign(campaign) {
            None => {
                self.campaigns.push(made);
                self.names.insert((self.directory, campaign.clone()), self.campaigns.len() - 1);
                self.campaigns.len() - 1
            }
            Some(index) => {
                let before = &self.campaigns[index];
                let same = (before.tasks, before.quota, before.kind) == (*tasks, *quota, *kind);
                if !same || before.asked.contains(&Change::Remove) {
                    told.unsound.push(format!("two campaigns are named {campaign}"));
                }
                index
            }
        };
        self.campaigns[index].asked.insert(Change::Create);
        self.campaigns[index].open_changes += 1;
    }

    fn asked(&mut self, name: &str, change: Change, told: &mut Told) {
        let Some(index) = self.campaign(name) else {
            told.unsound.push(format!("there is no campaign {name}"));
            return;
        };
        let campaign = &mut self.campaigns[index];
        campaign.asked.insert(change);
        campaign.open_changes += 1;
        campaign.phase = None;
    }

    fn changed(&mut self, at: usize, name: &str, change: Change, told: &mut Told) {
        let index = self.campaign(name);
        let Some(campaign) = index.map(|index| &mut self.campaigns[index]).filter(|one| one.open_changes > 0) else {
            told.unsound.push(format!("a change of {name} that nobody asked for"));
            return;
        };
        campaign.open_changes -= 1;
        campaign.created.get_or_insert(at);
        let phase = match change {
            Change::Create | Change::Resume => Some(Phase::Running),
            Change::Pause => Some(Phase::Paused),
            Change::Cancel => Some(Phase::Cancelled),
            Change::Remove | Change::Requeue => None,
        };
        // Only while nothing else was asked for is it known which came last.
        if campaign.open_changes == 0
            && let Some(phase) = phase
        {
            campaign.phase = Some((at, phase));
        }
    }

    fn begin(&mut self, who: Who, session: Session, instance: Option<Instance>, told: &mut Told) {
        told.session = Some(session);
        let known = instance.and_then(|instance| self.instances.iter().rposition(|one| *one == Some(instance)));
        let directory = known.unwrap_or(self.directory);
        self.instances[directory] = self.instances[directory].or(instance);
        let book = Book {
            who,
            directory,
            requests: BTreeMap::new(),
            leases: Vec::new(),
            releases: BTreeSet::new(),
            closing: None,
            acked: Growth::default(),
        };
        if self.sessions.insert(session, book).is_some() {
            told.unsound.push(format!("session {session} begins twice"));
        }
        let client = self.clients.entry(who).or_default();
        client.sessions.push(session);
        client.met = Some(directory);
    }

    fn granted(&mut self, line: &Line, id: u64, name: &str, (task, first, runs): (u32, u32, u32), told: &mut Told) {
        let who = line.who;
        let session = self.session_of(who);
        told.session = session;
        let Some((session, book)) = session.and_then(|session| Some((session, self.sessions.get_mut(&session)?)))
        else {
            told.unsound.push(format!("client {who} was lent something before it has begun"));
            return;
        };
        let directory = book.directory;
        let Some(&campaign) = self.names.get(&(directory, name.to_owned())) else {
            told.unsound.push(format!("there is no campaign {name}"));
            return;
        };
        let one = &self.campaigns[campaign];
        let beyond = one.numbered() && u64::from(first) + u64::from(runs) > u64::from(one.quota);
        if task >= one.tasks || runs == 0 || runs > 64 || beyond {
            told.unsound.push(format!("client {who} was lent runs {first} + {runs} of task {task} of {name}"));
            return;
        }
        let lease = Lease { at: line.at, id, who, session, campaign, task, first, runs, lost: false, request: None };
        book.leases.push(id);
        self.campaigns[campaign].leases.entry(task).or_default().push(id);
        self.leases.insert((directory, id), lease);
    }

    fn lost(&mut self, who: Who, id: u64, told: &mut Told) {
        told.session = self.session_of(who);
        let directory = told.session.and_then(|session| self.sessions.get(&session)).map(|book| book.directory);
        // It may never have heard of the grant.
        let lease = directory.and_then(|directory| self.leases.get_mut(&(directory, id)));
        if let Some(lease) = lease.filter(|lease| lease.who == who) {
            lease.lost = true;
        }
    }

    fn sent(&mut self, line: &Line, number: u64, id: u64, what: Sent, told: &mut Told) {
        let who = line.who;
        told.session = self.session_of(who);
        let Some(book) = told.session.and_then(|session| self.sessions.get_mut(&session)) else {
            told.unsound.push(format!("client {who} sends {number} before it has begun"));
            return;
        };
        let lease = self.leases.get_mut(&(book.directory, id));
        let last = book.last_sent();
        // Between them may be the library's own: it gives back what was lost before the client took it.
        if number <= last {
            told.unsound.push(format!("client {who} sends {number} after {last}"));
            return;
        }
        let mine = lease.filter(|lease| Some(lease.session) == told.session);
        let Some(lease) = mine else {
            // A client library gives back by itself what its client never took.
            if what == Sent::Release {
                book.releases.insert(number);
            } else {
                told.unsound.push(format!("client {who} reports lease {id}, which it does not hold"));
            }
            return;
        };
        let expired = self.expired.contains(&(book.directory, id));
        let numbered = self.campaigns[lease.campaign].numbered();
        let mut request = read_request(line.at, id, lease, numbered, what);
        let work = self.campaigns[lease.campaign].work.entry(lease.task).or_default();
        work.possible.add(request.units, &request.runs);
        work.excess += request.excess;
        work.failed += request.failed;
        request.late = (lease.lost || expired) && what != Sent::Release;
        request.repeats = lease.request.is_some();
        lease.request.get_or_insert((number, line.at));
        book.requests.insert(number, request);
        self.last_sent = line.at;
    }

    fn acked(&mut self, line: &Line, number: u64, heard: Heard, told: &mut Told) {
        let who = line.who;
        let sessions = self.clients.get(&who).map_or(&[][..], |client| &client.sessions);
        // What is still heard of an earlier session is written before the next begins, or as soon as may be.
        let open = |session: &&Session| {
            let request = self.sessions.get(session).and_then(|book| book.requests.get(&number));
            request.is_some_and(|request| request.answer.is_none())
        };
        let session = sessions.iter().rev().find(open).copied();
        told.session = session.or(sessions.last().copied());
        let book = session.and_then(|session| self.sessions.get_mut(&session));
        let Some((book, session)) = book.zip(session) else {
            // Nothing is answered twice. Releases of what was never taken may not be in the history.
            let complete = self.flag(Setting::RequestsComplete);
            let book = self.session_of(who).and_then(|session| self.sessions.get_mut(&session));
            let other = |book: &Book| book.releases.contains(&number);
            if book.is_none_or(|book| book.requests.contains_key(&number) || (complete && !other(book))) {
                told.unsound
                    .push(format!("client {who} has an answer to {number}, which it did not send, or a second one"));
            }
            return;
        };
        if heard != Heard::Unknown {
            book.acked.raise(line.at, number);
        }
        if let Some(request) = book.requests.get_mut(&number) {
            request.answer = Some(heard);
        }
        match heard {
            Heard::Counted => self.resolve(line.at, session, number, true),
            Heard::Refused { .. } => self.resolve(line.at, session, number, false),
            Heard::Unknown => {}
        }
    }

    fn fate(&mut self, at: usize, session: Session, number: u64, fate: Fate) {
        let book = self.sessions.get_mut(&session);
        let Some(request) = book.and_then(|book| book.requests.get_mut(&number)) else { return };
        request.fate = Some(fate);
        if request.answer.is_some() {
            return;
        }
        match fate {
            Fate::Counted => self.resolve(at, session, number, true),
            Fate::Refused { .. } => self.resolve(at, session, number, false),
            // It may still be on its way, unless its client is gone and the history at its end.
            Fate::NotReceived | Fate::Confirmed | Fate::UnknownSession => {}
        }
    }

    /// It is known whether a request was counted.
    fn resolve(&mut self, at: usize, session: Session, number: u64, counted: bool) {
        let Some(book) = self.sessions.get_mut(&session) else { return };
        let directory = book.directory;
        let Some(request) = book.requests.get_mut(&number).filter(|request| !request.resolved) else { return };
        request.resolved = true;
        let Some(lease) = self.leases.get(&(directory, request.lease)) else { return };
        let campaign = lease.campaign;
        let work = self.campaigns[campaign].work.entry(lease.task).or_default();
        if counted {
            let (task, units, runs) = (lease.task, request.units, request.runs.clone());
            self.ack_work(at, campaign, task, units, &runs);
        } else {
            work.possible.remove(request.units, &request.runs);
            work.excess = work.excess.saturating_sub(request.excess);
            work.failed = work.failed.saturating_sub(request.failed);
        }
    }

    /// Some work for a task surely counts.
    fn ack_work(&mut self, at: usize, campaign: usize, task: u32, units: u64, runs: &[u32]) {
        let one = &mut self.campaigns[campaign];
        let goal = one.goal();
        let work = one.work.entry(task).or_default();
        let before = work.acked.towards(goal);
        work.acked.add(units, runs);
        let towards = work.acked.towards(goal);
        work.acked_units.raise(at, work.acked.units);
        work.acked_towards.raise(at, towards);
        one.acked_units.raise(at, one.acked_units.now() + units);
        one.acked_towards.raise(at, one.acked_towards.now() + towards - before);
    }

    fn closing(&mut self, who: Who, at: usize) {
        if let Some(book) = self.session_of(who).and_then(|session| self.sessions.get_mut(&session)) {
            book.closing.get_or_insert(at);
        }
    }

    fn origin_sent(&mut self, at: usize, connection: u64, done: &[Units], told: &mut Told) {
        let open = self.connections.get_mut(&connection).filter(|connection| !connection.ended);
        let Some((connection, campaign)) = open.and_then(|one| one.campaign.map(|campaign| (one, campaign))) else {
            told.unsound.push(format!("a message on connection {connection}, which is not open"));
            return;
        };
        connection.open.push_back(done.to_vec());
        for Units { task, units } in done {
            let work = self.campaigns[campaign].work.entry(*task).or_default();
            work.possible.add(u64::from(*units), &[]);
            work.origin += u64::from(*units);
        }
        self.last_sent = at;
    }

    /// A message counts for the tasks that the answers before it named and no message before it reported.
    fn origin_answered(&mut self, at: usize, connection: u64, answer: Origin, told: &mut Told) {
        let expired_max = self.setting(Setting::ExpiredMax);
        let open = self.connections.get_mut(&connection);
        let Some((one, done, campaign)) =
            open.and_then(|one| one.open.pop_front().zip(one.campaign).map(|(done, campaign)| (one, done, campaign)))
        else {
            told.unsound.push(format!("an answer on connection {connection} to nothing"));
            return;
        };
        // Beyond this some of its leases may have been forgotten.
        let sure = one.held.len() as u64 <= expired_max;
        let counted: Vec<(Units, bool)> = done.into_iter().map(|done| (done, one.held.remove(&done.task))).collect();
        if let Origin::Task { task } = answer {
            one.held.insert(task);
        }
        for (Units { task, units }, held) in counted {
            if held && sure {
                self.ack_work(at, campaign, task, u64::from(units), &[]);
                let work = self.campaigns[campaign].work.entry(task).or_default();
                work.origin_acked.raise(at, work.origin_acked.now() + u64::from(units));
            } else if !held {
                let work = self.campaigns[campaign].work.entry(task).or_default();
                work.possible.remove(u64::from(units), &[]);
                work.origin = work.origin.saturating_sub(u64::from(units));
            }
        }
    }

    fn looked_at(&mut self, who: Who, record: &Record, told: &mut Told) {
        let Some(look) = self.looks.get_mut(&who) else {
            told.unsound.push(format!("observer {who} has not begun to look"));
            return;
        };
        match record {
            Record::Status { campaign, standing, .. } => {
                if let Some(&index) = self.names.get(&(look.directory, campaign.clone())) {
                    look.standings.insert(index, *standing);
                }
            }
            Record::Count { campaign, task, done, extra, leased, quarantined } => {
                let count = Count { done: *done, extra: *extra, leased: *leased, quarantined: *quarantined };
                match self.names.get(&(look.directory, campaign.clone())) {
                    Some(&index) => drop(look.counts.entry(index).or_default().insert(*task, count)),
                    None => told.unsound.push(format!("there is no campaign {campaign}")),
                }
            }
            _ => {}
        }
    }
}

/// What a request says of its lease.
fn read_request(at: usize, id: u64, lease: &Lease, numbered: bool, what: Sent) -> Request {
    let all = u64::MAX >> (64 - lease.runs);
    let (mask, failed, units) = match what {
        Sent::Done { runs } => (u64::MAX.checked_shr(64_u32.saturating_sub(runs)).unwrap_or(0), 0, u64::from(runs)),
        Sent::Mixed { done, failed } => (done, failed, u64::from(done.count_ones())),
        Sent::Release => (0, 0, 0),
    };
    let proper = match what {
        Sent::Done { runs } => (1..=if numbered { lease.runs } else { UNITS_MAX }).contains(&runs),
        Sent::Mixed { done, failed } => done & failed == 0 && (done | failed) & !all == 0 && done | failed != 0,
        Sent::Release => true,
    };
    // What is not proper is refused as a whole.
    let runs = (0..64).filter(|bit| proper && numbered && mask >> bit & 1 == 1).map(|bit| lease.first + bit).collect();
    Request {
        at,
        lease: id,
        what,
        units: if proper { units } else { 0 },
        runs,
        excess: if proper { units.saturating_sub(u64::from(lease.runs)) } else { 0 },
        failed: if proper { u64::from(failed.count_ones()) } else { 0 },
        proper,
        late: false,
        repeats: false,
        answer: None,
        fate: None,
        resolved: false,
    }
}

/// Whether a refusal for this reason can be right.
pub(crate) fn refusal_explained(world: &World, session: &Session, request: &Request, reason: Reason) -> bool {
    let Some(book) = world.sessions.get(session) else { return true };
    let Some(lease) = world.leases.get(&(book.directory, request.lease)) else { return true };
    let campaign = &world.campaigns[lease.campaign];
    match reason {
        Reason::NotHeld => false,
        Reason::BadRuns => !request.proper,
        Reason::Gone => campaign.removable(),
        Reason::Ended => {
            let many = book.leases.len() as u64 > world.setting(Setting::ExpiredMax);
            let written = world.flag(Setting::Expiries);
            let dropped = world.dropped.contains(&(book.directory, request.lease));
            let forgotten = if written { dropped } else { many && !campaign.lasting };
            request.repeats || forgotten || campaign.removable()
        }
    }
}
