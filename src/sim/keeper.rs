//! Who creates campaigns and orders them about, and who asks for counts all the time.
//!
//! The keeper breaks creations off in the middle, pauses, resumes, cancels, requeues and removes as chance has it. When
//! faults stop it resumes what is paused and removes what was never complete, so that everything left can be finished.
//! An observer reads the status of all campaigns and then every count, page by page.

use std::collections::VecDeque;

use tenfold_checker::history::{Change, Record, Standing, TEST, Who};

use super::asker::{Asker, News};
use super::coverage::Seen;
use super::stage::{Chunk, Event, LinkId, Stage};
use super::words;
use crate::protocol::messages::{
    WireAnswer, WireCampaignState, WireControl, WireFailure, WireSpec, WireTaskState, WireTasks,
};
use crate::types::{RequestFate, SessionId};

/// Where a campaign stands, as its keeper knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// Not begun.
    Planned,
    /// Begun; so many keys were taken.
    Begun(u32),
    /// Broken off.
    Abandoned,
    Running,
    Paused,
    Cancelled,
    /// Its removal was asked for.
    Going,
    Gone,
}

#[derive(Clone, Debug)]
struct Campaign {
    spec: WireSpec,
    creation: [u8; 16],
    standing: Kept,
    /// Its creation is in the history.
    noted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Order {
    Create,
    AddKeys,
    Seal,
    Change(Change),
}

/// See the head of this file.
pub(super) struct Keeper {
    actor: usize,
    asker: Asker,
    campaigns: Vec<Campaign>,
    order: Option<(usize, Order)>,
    /// What it breaks off, in percent of the steps of a creation.
    breaks: u64,
    /// In percent of its looks at the time: gives an order.
    orders: u64,
    /// The length of leases of campaigns that do not name one.
    lease_ms: u64,
    fates: VecDeque<(SessionId, u64)>,
    wake_at: u64,
}

impl Keeper {
    pub(super) fn new(stage: &mut Stage, actor: usize, breaks: u64, orders: u64, lease_ms: u64) -> Self {
        stage.at(stage.now + 1, Event::Wake { actor });
        let wake_at = stage.now + 1;
        let asker = Asker::new(actor);
        Self {
            actor,
            asker,
            campaigns: Vec::new(),
            order: None,
            breaks,
            orders,
            lease_ms,
            fates: VecDeque::new(),
            wake_at,
        }
    }

    /// Campaigns that are to be created, one after the other.
    pub(super) fn plan_campaigns(&mut self, stage: &mut Stage, specs: Vec<WireSpec>) {
        for spec in specs {
            let creation = stage.random.id();
            self.campaigns.push(Campaign { spec, creation, standing: Kept::Planned, noted: false });
        }
    }

    /// All that there was is gone with its data directory.
    pub(super) fn new_directory(&mut self) {
        self.asker.give_up();
        self.order = None;
        self.campaigns.clear();
    }

    /// Campaigns that surely stand.
    pub(super) fn standing(&self) -> Vec<String> {
        let stands = |campaign: &&Campaign| matches!(campaign.standing, Kept::Running | Kept::Paused | Kept::Cancelled);
        self.campaigns.iter().filter(stands).map(|campaign| campaign.spec.name.clone()).collect()
    }

    /// Whether the campaign of the origin's dialect is about to be created, at least.
    pub(super) fn has_begun(&self, name: &str) -> bool {
        self.campaigns.iter().any(|campaign| campaign.noted && campaign.spec.name == name)
    }

    /// Whether, in the calm, nothing is left to be put in order.
    pub(super) fn is_done(&self) -> bool {
        let settled = |campaign: &Campaign| matches!(campaign.standing, Kept::Running | Kept::Cancelled | Kept::Gone);
        self.order.is_none() && self.campaigns.iter().all(settled) && !self.standing().is_empty()
    }

    /// Whether nothing stands and nothing is planned.
    pub(super) fn has_nothing(&self) -> bool {
        self.campaigns.iter().all(|campaign| campaign.standing == Kept::Gone)
    }

    pub(super) fn ask_fates(&mut self, stage: &mut Stage, fates: Vec<(SessionId, u64)>) {
        self.fates = fates.into();
        self.wake_at = stage.now + 1;
        stage.at(self.wake_at, Event::Wake { actor: self.actor });
    }

    pub(super) fn has_asked(&self) -> bool {
        self.fates.is_empty()
    }

    pub(super) fn wake(&mut self, stage: &mut Stage) {
        if self.wake_at != stage.now {
            return;
        }
        let (_, mut next) = self.asker.wake(stage);
        if !self.asker.is_asking() {
            if let Some((session, number)) = self.fates.front().copied() {
                stage.saw(Seen::Fates);
                next = self.asker.ask(stage, WireControl::Fate { session: session.0, number });
            } else if let Some((index, order)) = self.next_order(stage) {
                next = self.give(stage, index, order);
            } else {
                next = stage.now + stage.random.within(100..=1_000);
            }
        }
        self.plan(stage, next);
    }

    pub(super) fn receive(&mut self, stage: &mut Stage, link: LinkId, chunk: Chunk) {
        match self.asker.receive(stage, link, chunk) {
            News::Nothing => {}
            News::Lost { again } => self.plan(stage, again),
            News::Answer(answer) => {
                if let Some((session, number)) = self.fates.pop_front() {
                    if let WireAnswer::Fate(fate) = answer {
                        let fate = words::fate(RequestFate::from(fate));
                        stage.note(TEST, Record::Fate { session: words::session(session), number, fate });
                    }
                } else if let Some((index, order)) = self.order.take() {
                    self.take_answer(stage, index, order, answer);
                }
                let pause = if stage.calm { 5 } else { stage.random.within(1..=500) };
                self.plan(stage, stage.now + pause);
            }
        }
    }

    fn plan(&mut self, stage: &mut Stage, at: u64) {
        self.wake_at = at.max(stage.now + 1);
        stage.at(self.wake_at, Event::Wake { actor: self.actor });
    }

    fn next_order(&mut self, stage: &mut Stage) -> Option<(usize, Order)> {
        for (index, campaign) in self.campaigns.iter_mut().enumerate() {
            match campaign.standing {
                Kept::Begun(_) if !stage.calm && stage.random.percent(self.breaks) => {
                    campaign.standing = Kept::Abandoned;
                }
                Kept::Begun(added) if added < campaign.spec.count() => return Some((index, Order::AddKeys)),
                Kept::Begun(_) => return Some((index, Order::Seal)),
                Kept::Planned => return Some((index, Order::Create)),
                Kept::Paused if stage.calm => return Some((index, Order::Change(Change::Resume))),
                Kept::Abandoned | Kept::Going if stage.calm => return Some((index, Order::Change(Change::Remove))),
                Kept::Abandoned | Kept::Running | Kept::Paused | Kept::Cancelled | Kept::Going | Kept::Gone => {}
            }
        }
        if stage.calm || self.campaigns.is_empty() || !stage.random.percent(self.orders) {
            return None;
        }
        let index = stage.random.below(self.campaigns.len());
        let dice = stage.random.within(0..=99);
        let change = match self.campaigns[index].standing {
            Kept::Running if dice < 40 => Change::Pause,
            Kept::Running if dice < 48 => Change::Cancel,
            Kept::Running if dice < 80 => Change::Requeue,
            Kept::Paused if dice < 80 => Change::Resume,
            Kept::Running | Kept::Paused if dice < 90 => Change::Remove,
            Kept::Cancelled if dice < 30 => Change::Remove,
            Kept::Abandoned if dice < 20 => Change::Remove,
            Kept::Going => Change::Remove,
            Kept::Running
            | Kept::Paused
            | Kept::Cancelled
            | Kept::Abandoned
            | Kept::Planned
            | Kept::Begun(_)
            | Kept::Gone => return None,
        };
        Some((index, Order::Change(change)))
    }

    fn give(&mut self, stage: &mut Stage, index: usize, order: Order) -> u64 {
        let Some(campaign) = self.campaigns.get_mut(index) else { return stage.now + 1 };
        let (name, creation) = (campaign.spec.name.clone(), campaign.creation);
        let question = match &order {
            Order::Create => {
                if !std::mem::replace(&mut campaign.noted, true) {
                    let spec = &campaign.spec;
                    let created = Record::Create {
                        campaign: name,
                        tasks: spec.count(),
                        quota: spec.runs,
                        kind: words::kind(spec.seed.is_some()),
                        lease_ms: spec.lease_ms.or(Some(self.lease_ms)),
                        timeout_ms: spec.timeout_ms,
                        errors_max: spec.errors_max,
                        losses_max: spec.losses_max,
                    };
                    stage.note(TEST, created);
                }
                WireControl::Create { creation, spec: Box::new(campaign.spec.clone()) }
            }
            Order::AddKeys => {
                let from = if let Kept::Begun(added) = campaign.standing { added } else { 0 };
                let to = campaign.spec.count().min(from + stage.random.within(1..=4) as u32);
                WireControl::AddKeys { creation, from, keys: (from..to).map(super::key_of).collect() }
            }
            Order::Seal => WireControl::Seal { creation },
            Order::Change(change) => {
                stage.note(TEST, Record::Ask { campaign: name.clone(), change: *change });
                match change {
                    Change::Pause => WireControl::Pause { campaign: name },
                    Change::Resume => WireControl::Resume { campaign: name },
                    Change::Cancel => WireControl::Cancel { campaign: name },
                    Change::Requeue => WireControl::Requeue { campaign: name },
                    Change::Remove | Change::Create => {
                        campaign.standing = Kept::Going;
                        WireControl::Remove { campaign: name }
                    }
                }
            }
        };
        self.order = Some((index, order));
        self.asker.ask(stage, question)
    }

    fn take_answer(&mut self, stage: &mut Stage, index: usize, order: Order, answer: WireAnswer) {
        let Some(campaign) = self.campaigns.get_mut(index) else { return };
        let name = campaign.spec.name.clone();
        match (order, answer) {
            (Order::Create | Order::AddKeys | Order::Seal, WireAnswer::Creation { added, sealed, .. }) => {
                if sealed {
                    campaign.standing = Kept::Running;
                    stage.saw(Seen::Created);
                    if matches!(campaign.spec.tasks, WireTasks::Keys { .. }) {
                        stage.saw(Seen::CreatedWithKeys);
                    }
                    stage.note(TEST, Record::Done { campaign: name, change: Change::Create });
                } else {
                    campaign.standing = Kept::Begun(added);
                }
            }
            (_, WireAnswer::Failed { code: WireFailure::CreationUnknown, .. }) => {
                // The server restarted, or has waited for too long: from the beginning.
                stage.saw(Seen::CreationsDropped);
                campaign.standing = Kept::Planned;
            }
            (_, WireAnswer::Failed { code: WireFailure::KeysOutOfOrder, index, .. }) => {
                campaign.standing = Kept::Begun(index);
            }
            (Order::Change(change), WireAnswer::Done { tasks }) => {
                let (standing, seen) = match change {
                    Change::Pause => (Kept::Paused, Seen::Paused),
                    Change::Resume => (Kept::Running, Seen::Resumption),
                    Change::Cancel => (Kept::Cancelled, Seen::Cancelled),
                    Change::Remove => (Kept::Gone, Seen::Removed),
                    Change::Requeue | Change::Create => (campaign.standing, Seen::Requeued),
                };
                campaign.standing = standing;
                stage.coverage.add(seen, if change == Change::Requeue { tasks } else { 1 });
                stage.note(TEST, Record::Done { campaign: name, change });
            }
            // Also by an order to remove it that was thought to be lost, and came late.
            (Order::Change(_), WireAnswer::Failed { code: WireFailure::NotFound, .. }) => {
                campaign.standing = Kept::Gone;
            }
            // It was running after all.
            (Order::Change(Change::Remove), _) => campaign.standing = Kept::Running,
            (Order::Create, WireAnswer::Failed { code: WireFailure::Exists, .. }) => {
                // An abandoned one of this name is still there.
                campaign.standing = Kept::Planned;
            }
            (Order::Create | Order::AddKeys | Order::Seal | Order::Change(_), _) => {}
        }
    }
}

impl WireSpec {
    fn count(&self) -> u32 {
        match self.tasks {
            WireTasks::Range { count, .. } | WireTasks::Keys { count } => count,
        }
    }
}

/// Asks for all counts, again and again.
pub(super) struct Observer {
    who: Who,
    actor: usize,
    asker: Asker,
    looking: bool,
    /// Campaigns whose counts are still to be asked for, and from which task on.
    left: VecDeque<(String, u32)>,
    status_from: Option<u32>,
    pause_ms: u64,
    /// Whole looks so far.
    pub(super) looks: u64,
    wake_at: u64,
}

impl Observer {
    pub(super) fn new(stage: &mut Stage, who: Who, actor: usize, pause_ms: u64) -> Self {
        let wake_at = stage.now + stage.random.within(1..=pause_ms);
        stage.at(wake_at, Event::Wake { actor });
        Self {
            who,
            actor,
            asker: Asker::new(actor),
            looking: false,
            left: VecDeque::new(),
            status_from: None,
            pause_ms,
            looks: 0,
            wake_at,
        }
    }

    /// What it was told is of another data directory.
    pub(super) fn break_off(&mut self, stage: &mut Stage) {
        self.asker.give_up();
        if std::mem::take(&mut self.looking) {
            // Somebody else looks from now on: what a look did not come to is not held against it.
            self.who += 1_000;
            stage.saw(Seen::LooksBroken);
        }
    }

    pub(super) fn wake(&mut self, stage: &mut Stage) {
        if self.wake_at != stage.now {
            return;
        }
        let (_, mut next) = self.asker.wake(stage);
        if !self.asker.is_asking() {
            if !std::mem::replace(&mut self.looking, true) {
                stage.note(self.who, Record::Look);
                self.left.clear();
                self.status_from = Some(0);
            }
            next = self.ask_next(stage);
        }
        self.plan(stage, next);
    }

    pub(super) fn receive(&mut self, stage: &mut Stage, link: LinkId, chunk: Chunk) {
        match self.asker.receive(stage, link, chunk) {
            News::Nothing => {}
            News::Lost { again } => {
                if stage.random.percent(50) {
                    self.break_off(stage);
                }
                self.plan(stage, again);
            }
            News::Answer(answer) => {
                self.take_answer(stage, answer);
                let next = self.ask_next(stage);
                self.plan(stage, next);
            }
        }
    }

    fn plan(&mut self, stage: &mut Stage, at: u64) {
        self.wake_at = at.max(stage.now + 1);
        stage.at(self.wake_at, Event::Wake { actor: self.actor });
    }

    fn ask_next(&mut self, stage: &mut Stage) -> u64 {
        if let Some(from) = self.status_from {
            return self.asker.ask(stage, WireControl::Status { campaign: None, from });
        }
        if let Some((campaign, from)) = self.left.front().cloned() {
            return self.asker.ask(stage, WireControl::Counts { campaign, from, limit: 5 });
        }
        stage.note(self.who, Record::Looked);
        stage.saw(Seen::Looks);
        self.looking = false;
        self.looks += 1;
        stage.now + if stage.calm { 1_000 } else { stage.random.within(1..=self.pause_ms) }
    }

    fn take_answer(&mut self, stage: &mut Stage, answer: WireAnswer) {
        match answer {
            WireAnswer::Status { campaigns, next } => {
                for status in campaigns {
                    let standing = match (status.finished, status.settled) {
                        (true, _) => Standing::Finished,
                        (false, true) => Standing::Settled,
                        (false, false) => Standing::Open,
                    };
                    let (campaign, done, extra) = (status.spec.name, status.runs_done, status.runs_extra);
                    if status.state != WireCampaignState::Creating {
                        stage.note(self.who, Record::Status { campaign: campaign.clone(), standing, done, extra });
                        self.left.push_back((campaign, 0));
                    }
                }
                self.status_from = next;
            }
            WireAnswer::Counts { first: _, runs: _, tasks, next } => {
                let Some((campaign, from)) = self.left.front_mut() else { return };
                for task in tasks {
                    let (done, extra, leased) = (task.done, task.extra, task.leased);
                    let quarantined = task.state == WireTaskState::Quarantined;
                    let campaign = campaign.clone();
                    let count = Record::Count { campaign, task: task.index, done, extra, leased, quarantined };
                    stage.note(self.who, count);
                }
                match next {
                    Some(next) => *from = next,
                    None => drop(self.left.pop_front()),
                }
            }
            // It was removed meanwhile.
            WireAnswer::Failed { .. } | WireAnswer::Creation { .. } | WireAnswer::Done { .. } | WireAnswer::Fate(_) => {
                self.left.pop_front();
            }
        }
    }
}
