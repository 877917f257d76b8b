//! One simulation from its seed to its end: runs what is due, breaks things, and decides when all is done.
//!
//! ```text
//!   0 ───────── mischief ─────────▶ calm ── everybody works well ──▶ all settled ──▶ last looks ──▶ end
//! ```
//!
//! **Invariant**: one thread, one stream of chance, one schedule; nothing else decides what happens next.

use std::rc::Rc;

use tenfold_checker::history::{History, Moment, Record, Setting, TEST};

use super::coverage::{Coverage, Seen};
use super::dump::dump;
use super::keeper::{Keeper, Observer};
use super::origin::OriginClient;
use super::process::{NoStart, Process};
use super::random::Random;
use super::shape::{Kind, Mischief, ORIGIN_CAMPAIGN, ORIGIN_FIRST, Shape};
use super::stage::{Event, LinkId, Side, Stage};
use super::watched::{Ended, Fate, Shared};
use super::worker::{State, Worker};
use crate::store::memory::{Fault, MemoryStore, Records};
use crate::store::open_in_memory;
use crate::types::{InstanceId, SessionId, Tick};

/// After faults have stopped, all is done within so many milliseconds.
const CALM_MS_MAX: u64 = 900_000;

/// When nothing is broken, an answer takes at most so many milliseconds, and the runs of the dead are lent again so long after
/// their leases' length: a client gives up a dead connection after 30 s, tries another, and may have to do so twice.
pub(super) const BOUND_MS: u64 = 90_000;

/// What a simulation came to.
pub(super) struct Outcome {
    pub(super) kind: Kind,
    pub(super) history: History,
    pub(super) coverage: Coverage,
    /// What went wrong beside what the rules say.
    pub(super) failure: Option<String>,
    /// Simulated milliseconds.
    pub(super) milliseconds: u64,
}

enum Actor {
    Keeper(Box<Keeper>),
    Observer(Box<Observer>),
    Worker(Box<Worker>),
    Origin(Box<OriginClient>),
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Mischief,
    /// Faults have stopped; the keeper puts its campaigns in order.
    Order,
    /// Everybody works well.
    Calm,
    /// All is done; so many looks were whole when it was.
    LastLook {
        looks: u64,
    },
    Fates,
}

struct World {
    stage: Stage,
    shape: Shape,
    process: Option<Process>,
    store: MemoryStore,
    backstage: Shared,
    /// The last number of the journal that was acknowledged.
    acked: u64,
    /// The store before a batch was torn.
    whole: Option<Records>,
    generation: u32,
    actors: Vec<Actor>,
    phase: Phase,
    /// Before this there is no end.
    patient_until: u64,
    turns_at_once: (u64, u32),
}

/// Runs the simulation of a seed.
pub(super) fn run(seed: u64) -> Outcome {
    let mut random = Random::new(seed);
    let shape = Shape::of(&mut random);
    let stage = Stage::new(random, shape.weather);
    let mut world = World {
        stage,
        shape,
        process: None,
        store: MemoryStore::default(),
        backstage: Rc::default(),
        acked: 0,
        whole: None,
        generation: 0,
        actors: Vec::new(),
        phase: Phase::Mischief,
        patient_until: 0,
        turns_at_once: (0, 0),
    };
    world.begin();
    let failure = world.go();
    let World { shape, stage, .. } = world;
    Outcome { kind: shape.kind, history: stage.history, coverage: stage.coverage, failure, milliseconds: stage.now }
}

impl World {
    fn begin(&mut self) {
        let Self { stage, shape, actors, .. } = self;
        let expired_max = shape.options.expired_per_session_max as u64;
        for (setting, value) in [
            (Setting::RequestsComplete, 1),
            (Setting::Expiries, 1),
            (Setting::ExpiredMax, expired_max),
            (Setting::RelendMs, BOUND_MS),
            (Setting::AnswerMs, BOUND_MS),
        ] {
            stage.note(TEST, Record::Set { setting, value });
        }
        let mut keeper = Keeper::new(stage, 0, shape.breaks, shape.orders, shape.options.lease_ms);
        let specs = shape.campaigns(&mut stage.random, 0);
        let names: Vec<String> = specs.iter().map(|spec| spec.name.clone()).collect();
        keeper.plan_campaigns(stage, specs);
        actors.push(Actor::Keeper(Box::new(keeper)));
        // There is always one observer, for the last look.
        for _ in 0..=shape.observers {
            let actor = actors.len();
            let pause = if actor == 1 { 30_000 } else { shape.look_ms };
            actors.push(Actor::Observer(Box::new(Observer::new(stage, actor as u32, actor, pause))));
        }
        for _ in 0..shape.origins {
            let actor = actors.len();
            let campaign = (ORIGIN_CAMPAIGN.to_owned(), ORIGIN_FIRST);
            let client = OriginClient::new(stage, actor as u32, actor, campaign, 400);
            actors.push(Actor::Origin(Box::new(client)));
        }
        for _ in 0..shape.workers {
            let actor = actors.len();
            let habits = shape.habits(&mut stage.random, &names);
            let begins = stage.random.within(0..=2_000);
            actors.push(Actor::Worker(Box::new(Worker::new(stage, actor as u32, actor, habits, begins))));
        }
        stage.at(0, Event::Boot);
        stage.at(500, Event::Upkeep);
        let calm_at = shape.calm_at;
        stage.at(calm_at, Event::Calm);
        let first = stage.random.within(0..=2 * shape.mischief_ms);
        stage.at(first, Event::Mischief);
    }

    /// Runs to the end; what went wrong.
    fn go(&mut self) -> Option<String> {
        while let Some(event) = self.stage.next_event() {
            let wrong = self.happen(event);
            if let Some(wrong) = wrong.or_else(|| self.stage.wrong.take()) {
                return Some(wrong);
            }
            match self.proceed() {
                Some(Ok(())) => return None,
                Some(Err(wrong)) => return Some(wrong),
                None => {}
            }
        }
        Some("nothing more happens, and not all is done".to_owned())
    }

    fn happen(&mut self, event: Event) -> Option<String> {
        match event {
            Event::Pump { link, toward: Side::Server } => self.arrive_at_server(link),
            Event::Pump { link, toward: Side::Client } => self.arrive_at_client(link),
            Event::Turn => return self.turn(),
            Event::Flush => {
                if let Some(process) = &mut self.process {
                    process.flush(&mut self.stage);
                }
            }
            Event::Upkeep => {
                if let Some(process) = self.process.as_mut().filter(|process| process.stalled_until <= self.stage.now) {
                    process.upkeep(&mut self.stage);
                }
                if self.phase != Phase::Mischief {
                    let milliseconds = self.stage.now;
                    self.stage.note(TEST, Record::Time { milliseconds });
                }
                self.stage.after(500, Event::Upkeep);
            }
            Event::Boot => return self.boot(),
            Event::Wake { actor } => self.wake(actor),
            Event::Mischief => {
                if self.phase == Phase::Mischief {
                    self.mischief();
                    let pause = self.stage.random.within(1..=2 * self.shape.mischief_ms);
                    self.stage.after(pause, Event::Mischief);
                }
            }
            Event::Calm => self.calm(),
        }
        None
    }

    // ---- the server

    fn boot(&mut self) -> Option<String> {
        if self.process.is_some() {
            return None;
        }
        let Self { stage, shape, .. } = self;
        if !stage.calm && stage.random.percent(shape.bad_starts) {
            let stored = stage.random.percent(50);
            let good = stage.random.below(2);
            self.store.inject(good, Fault::Unknown { stored });
        }
        self.backstage = Shared::default();
        let started = Process::start(stage, &self.store, shape, Rc::clone(&self.backstage), self.acked);
        match started {
            Ok(mut process) => {
                process.commit_ms = if stage.calm { 0 } else { shape.commit_ms };
                self.process = Some(process);
                self.whole = None;
            }
            Err(NoStart::Ended(ended)) => {
                stage.saw(Seen::KillsInStart);
                if !self.backstage.borrow().failure_noted {
                    stage.note(TEST, Record::DiskFailed);
                }
                self.after_end(ended);
            }
            Err(NoStart::Refused(why)) => {
                stage.note(TEST, Record::RefusedStart { reason: "damaged".to_owned() });
                if let Some(whole) = self.whole.take() {
                    // What was there before the torn batch comes back from a backup.
                    stage.saw(Seen::CommitsTorn);
                    self.store = MemoryStore::with(whole);
                } else if why.contains("the end of the database is lost") {
                    stage.saw(Seen::SyncsThatLied);
                    self.new_directory();
                } else {
                    return Some(format!("the server does not start: {why}"));
                }
                self.stage.after(100, Event::Boot);
            }
        }
        None
    }

    fn new_directory(&mut self) {
        let Self { stage, shape, actors, .. } = self;
        stage.saw(Seen::NewDirectories);
        stage.note(TEST, Record::NewDirectory);
        self.store = MemoryStore::default();
        self.acked = 0;
        self.generation += 1;
        for actor in actors.iter_mut() {
            match actor {
                Actor::Keeper(keeper) => {
                    keeper.new_directory();
                    let specs = shape.campaigns(&mut stage.random, self.generation);
                    keeper.plan_campaigns(stage, specs);
                }
                Actor::Observer(observer) => observer.break_off(stage),
                Actor::Origin(client) => {
                    client.lose(stage);
                    client.over = true;
                }
                Actor::Worker(worker) => {
                    worker.standing.clear();
                    if !worker.habits.campaigns.is_empty() {
                        // What it wants will never be there again.
                        worker.kill(stage);
                    }
                }
            }
        }
    }

    fn turn(&mut self) -> Option<String> {
        let Self { stage, process, .. } = self;
        let process = process.as_mut()?;
        if process.stalled_until > stage.now {
            process.sleep(stage);
            return None;
        }
        let (at, turns) = &mut self.turns_at_once;
        if *at != stage.now {
            (*at, *turns) = (stage.now, 0);
        }
        *turns += 1;
        if *turns > 20_000 {
            return Some("the pipeline spins".to_owned());
        }
        match process.turn(stage) {
            Ok(()) => {
                let mut backstage = self.backstage.borrow_mut();
                self.acked = self.acked.max(backstage.acked);
                let lied = std::mem::take(&mut backstage.lied);
                drop(backstage);
                if lied {
                    self.end_process(Ended::PowerCut, false);
                }
            }
            Err(ended) => self.end_process(ended, true),
        }
        None
    }

    /// The process ends, in the middle of a turn or between two.
    fn end_process(&mut self, ended: Ended, in_turn: bool) {
        let Some(mut process) = self.process.take() else { return };
        if in_turn {
            // What had been let out is on its way, whether it should have been or not.
            process.last_breath(&mut self.stage);
        }
        drop(process);
        if !in_turn {
            match ended {
                Ended::Killed => self.stage.saw(Seen::Kills),
                Ended::PowerCut => self.stage.saw(Seen::PowerCuts),
                Ended::DiskFailed | Ended::Torn => {}
            }
        }
        self.after_end(ended);
    }

    fn after_end(&mut self, ended: Ended) {
        let Self { stage, .. } = self;
        let record = match ended {
            Ended::Killed => Record::KilledServer,
            Ended::PowerCut => Record::PowerCut { mode: "unsynced-dropped".to_owned() },
            Ended::DiskFailed | Ended::Torn => Record::EndedServer { code: Some(1) },
        };
        stage.note(TEST, record);
        let mut backstage = self.backstage.borrow_mut();
        // What nobody was told of is so all the same if the store has it.
        if std::mem::take(&mut backstage.stored) {
            for record in std::mem::take(&mut backstage.pending) {
                stage.note(TEST, record);
            }
        }
        self.acked = self.acked.max(backstage.acked);
        drop(backstage);
        let records = if ended == Ended::PowerCut { self.store.power_cut() } else { self.store.killed() };
        if ended == Ended::Torn {
            self.whole = self.backstage.borrow_mut().before.take();
        }
        self.store = MemoryStore::with(records);
        let silently = ended == Ended::PowerCut && stage.random.percent(50);
        stage.process_ended(silently);
        let pause = if stage.calm { 100 } else { stage.random.within(10..=2_500) };
        stage.after(pause, Event::Boot);
    }

    fn arrive_at_server(&mut self, link: LinkId) {
        let Self { stage, process, .. } = self;
        let Some(process) = process else {
            let _ = stage.arrive(link, Side::Server);
            stage.close(link, Side::Client, true);
            return;
        };
        if process.stalled_until > stage.now {
            let late = stage.random.within(0..=100);
            return stage.put_off(process.stalled_until + late, link, Side::Server);
        }
        if let Some(chunk) = stage.arrive(link, Side::Server) {
            process.receive(stage, link, chunk);
        }
    }

    // ---- the actors

    fn arrive_at_client(&mut self, link: LinkId) {
        let Self { stage, actors, .. } = self;
        let Some(actor) = stage.actor_of(link) else { return };
        if let Actor::Worker(worker) = &actors[actor]
            && worker.frozen_until > stage.now
        {
            return stage.put_off(worker.frozen_until, link, Side::Client);
        }
        let Some(chunk) = stage.arrive(link, Side::Client) else { return };
        self.tell_standing(actor);
        match &mut self.actors[actor] {
            Actor::Keeper(keeper) => keeper.receive(&mut self.stage, link, chunk),
            Actor::Observer(observer) => observer.receive(&mut self.stage, link, chunk),
            Actor::Worker(worker) => worker.receive(&mut self.stage, link, chunk),
            Actor::Origin(client) => client.receive(&mut self.stage, link, chunk),
        }
    }

    fn wake(&mut self, actor: usize) {
        self.tell_standing(actor);
        match &mut self.actors[actor] {
            Actor::Keeper(keeper) => keeper.wake(&mut self.stage),
            Actor::Observer(observer) => observer.wake(&mut self.stage),
            Actor::Worker(worker) => worker.wake(&mut self.stage),
            Actor::Origin(client) => client.wake(&mut self.stage),
        }
    }

    /// Clients of the origin begin when there is something to work on; a worker that wants all campaigns must know which those are, to say of which it was told that they are settled.
    fn tell_standing(&mut self, actor: usize) {
        if actor == 0 {
            return;
        }
        let (keepers, others) = self.actors.split_at_mut(1);
        let (Actor::Keeper(keeper), actor) = (&keepers[0], &mut others[actor - 1]) else { return };
        match actor {
            Actor::Worker(worker) => worker.standing = keeper.standing(),
            Actor::Origin(client) => client.begins |= keeper.has_begun(ORIGIN_CAMPAIGN),
            Actor::Keeper(_) | Actor::Observer(_) => {}
        }
    }

    fn workers(&mut self) -> impl Iterator<Item = &mut Worker> {
        self.actors.iter_mut().filter_map(|actor| match actor {
            Actor::Worker(worker) => Some(&mut **worker),
            Actor::Keeper(_) | Actor::Observer(_) | Actor::Origin(_) => None,
        })
    }

    fn keeper(&mut self) -> &mut Keeper {
        match &mut self.actors[0] {
            Actor::Keeper(keeper) => keeper,
            Actor::Observer(_) | Actor::Worker(_) | Actor::Origin(_) => unreachable!("the first actor is the keeper"),
        }
    }

    fn new_worker(&mut self) {
        let names = self.keeper().standing();
        let Self { stage, shape, actors, .. } = self;
        let habits = shape.habits(&mut stage.random, &names);
        let (actor, begins) = (actors.len(), stage.now + 1);
        actors.push(Actor::Worker(Box::new(Worker::new(stage, actor as u32, actor, habits, begins))));
        self.tell_standing(actor);
    }

    // ---- what breaks

    fn mischief(&mut self) {
        let total: u64 = self.shape.mischiefs.iter().map(|(_, weight)| weight).sum();
        let mut dice = self.stage.random.within(0..=total - 1);
        let chosen = self.shape.mischiefs.iter().find(|(_, weight)| {
            let hit = dice < *weight;
            dice = dice.wrapping_sub(*weight);
            hit
        });
        let Some((chosen, _)) = chosen.copied() else { return };
        let left = self.shape.calm_at.saturating_sub(self.stage.now);
        match chosen {
            Mischief::Kill => self.end_process(Ended::Killed, false),
            Mischief::PowerCut => self.end_process(Ended::PowerCut, false),
            Mischief::KillInCommit => self.plan_commit(Seen::KillsInCommit, |random| Fate::EndsDuring {
                how: Ended::Killed,
                stored: random.percent(50),
            }),
            Mischief::PowerCutInCommit => self.plan_commit(Seen::PowerCutsInCommit, |random| Fate::EndsDuring {
                how: Ended::PowerCut,
                stored: random.percent(50),
            }),
            Mischief::KillAfterCommit => {
                self.plan_commit(Seen::KillsBeforeAnswer, |_| Fate::EndsAfter { how: Ended::Killed });
            }
            Mischief::CommitFails => {
                let stored = self.stage.random.percent(50);
                let seen = if stored { Seen::CommitsStored } else { Seen::CommitsNotStored };
                self.plan_commit(seen, |random| Fate::Fails {
                    fault: if stored || random.percent(50) { Fault::Unknown { stored } } else { Fault::NotApplied },
                });
            }
            Mischief::CommitTorn => {
                self.plan_commit(Seen::CommitsNotStored, |random| Fate::Fails {
                    fault: Fault::Torn { operations: random.below(6) },
                });
            }
            Mischief::SyncLies => self.plan_commit(Seen::PowerCutsInCommit, |_| Fate::Lies),
            Mischief::Stall => self.stall(left),
            Mischief::Partition => self.hold(&[Side::Client, Side::Server], left),
            Mischief::HoldOneWay => {
                let side = if self.stage.random.percent(50) { Side::Client } else { Side::Server };
                self.hold(&[side], left);
            }
            Mischief::Cut => self.cut([true, true]),
            Mischief::CutHalfOpen => {
                let heard = if self.stage.random.percent(50) { [true, false] } else { [false, true] };
                self.stage.saw(Seen::HalfOpen);
                self.cut(heard);
            }
            Mischief::NewClient => self.new_worker(),
            Mischief::Freeze
            | Mischief::KillClient
            | Mischief::ClientLeaves
            | Mischief::ClientCloses
            | Mischief::ClientReconnects
            | Mischief::WindowChanges => self.trouble_a_worker(chosen, left),
        }
    }

    fn plan_commit(&mut self, seen: Seen, fate: impl FnOnce(&mut Random) -> Fate) {
        if self.process.is_some() && self.backstage.borrow().fate.is_none() {
            let fate = fate(&mut self.stage.random);
            self.backstage.borrow_mut().fate = Some((fate, seen));
        }
    }

    fn stall(&mut self, left: u64) {
        let length = self.stage.random.within(200..=9_000).min(left);
        if let Some(process) = &mut self.process
            && length > 0
        {
            self.stage.saw(Seen::Stalls);
            self.stage.note(TEST, Record::ClockStalled { milliseconds: length });
            process.stalled_until = self.stage.now + length;
        }
    }

    /// Some links at a time: a switch, not a wire.
    fn hold(&mut self, toward: &[Side], left: u64) {
        let length = self.stage.random.within(50..=12_000).min(left);
        let all = self.stage.random.percent(30);
        self.stage.saw(Seen::Partitions);
        for link in self.stage.links() {
            if all || self.stage.random.percent(30) {
                self.stage.hold(link, toward, length);
            }
        }
    }

    fn cut(&mut self, heard: [bool; 2]) {
        let links = self.stage.links();
        if let Some(link) = self.stage.random.one_of(&links) {
            self.stage.saw(Seen::LostConnections);
            self.stage.cut(link, heard);
        }
    }

    fn trouble_a_worker(&mut self, chosen: Mischief, left: u64) {
        let alive: Vec<usize> = self
            .actors
            .iter()
            .enumerate()
            .filter(|(_, actor)| matches!(actor, Actor::Worker(worker) if worker.state == State::Alive))
            .map(|(index, _)| index)
            .collect();
        let Some(index) = self.stage.random.one_of(&alive) else { return };
        let Self { stage, actors, .. } = self;
        let Actor::Worker(worker) = &mut actors[index] else { return };
        match chosen {
            Mischief::Freeze => {
                let length = stage.random.within(100..=10_000).min(left);
                if worker.frozen_until <= stage.now && length > 0 {
                    worker.freeze(stage, length);
                }
            }
            Mischief::KillClient => worker.kill(stage),
            Mischief::ClientLeaves if worker.frozen_until <= stage.now => worker.leave(stage),
            Mischief::ClientCloses if worker.frozen_until <= stage.now => {
                let grace = stage.random.within(0..=5_000);
                worker.close(stage, grace);
            }
            Mischief::ClientReconnects if worker.frozen_until <= stage.now => {
                let half_open = stage.random.percent(70);
                worker.reconnect(stage, half_open);
            }
            Mischief::WindowChanges if worker.frozen_until <= stage.now => {
                let leases = stage.random.within(0..=6) as u32;
                worker.set_want(stage, leases);
            }
            _ => {}
        }
    }

    // ---- the end

    fn calm(&mut self) {
        self.phase = Phase::Order;
        let Self { stage, backstage, process, .. } = self;
        stage.calm = true;
        stage.weather.delay_ms = stage.weather.delay_ms.min(5);
        backstage.borrow_mut().fate = None;
        if let Some(process) = process {
            process.commit_ms = 0;
        }
    }

    /// All is in order: from here on everybody works well, on everything.
    fn all_work_well(&mut self) {
        self.phase = Phase::Calm;
        self.new_worker();
        let milliseconds = self.stage.now;
        self.stage.note(TEST, Record::Time { milliseconds });
        self.stage.note(TEST, Record::Calm);
        self.patient_until = milliseconds + self.shape.patience_ms;
        for index in 0..self.actors.len() {
            self.tell_standing(index);
            if let Actor::Worker(worker) = &mut self.actors[index] {
                worker.become_good(&mut self.stage);
            }
        }
    }

    /// Whether all is over: `Some(Ok)` in order, `Some(Err)` not.
    fn proceed(&mut self) -> Option<Result<(), String>> {
        if self.phase == Phase::Mischief {
            return None;
        }
        if self.stage.now > self.shape.calm_at + CALM_MS_MAX {
            return Some(Err(self.what_hangs()));
        }
        match self.phase {
            Phase::Mischief => {}
            Phase::Order => {
                if self.keeper().is_done() && self.process.is_some() {
                    self.all_work_well();
                } else if self.keeper().has_nothing() {
                    self.generation += 1;
                    let Self { stage, shape, generation, .. } = self;
                    let mut specs = shape.campaigns(&mut stage.random, *generation);
                    specs.truncate(1);
                    let Actor::Keeper(keeper) = &mut self.actors[0] else { return None };
                    keeper.plan_campaigns(&mut self.stage, specs);
                }
            }
            Phase::Calm => {
                let ended = self.workers().all(|worker| worker.state == State::Ended);
                if ended && self.keeper().is_done() {
                    let Self { stage, actors, .. } = self;
                    for actor in actors {
                        if let Actor::Origin(client) = actor {
                            client.lose(stage);
                            client.over = true;
                        }
                    }
                    // The look that runs now does not count: it began before.
                    self.phase = Phase::LastLook { looks: self.looks() + 2 };
                }
            }
            Phase::LastLook { looks } => {
                if self.looks() >= looks && self.stage.now >= self.patient_until {
                    let fates: Vec<(SessionId, u64)> =
                        self.workers().flat_map(|worker| worker.orphans.clone()).collect();
                    let Actor::Keeper(keeper) = &mut self.actors[0] else { return None };
                    keeper.ask_fates(&mut self.stage, fates);
                    self.phase = Phase::Fates;
                }
            }
            Phase::Fates => {
                if self.keeper().has_asked() {
                    return Some(self.finish());
                }
            }
        }
        None
    }

    fn looks(&self) -> u64 {
        match &self.actors[1] {
            Actor::Observer(observer) => observer.looks,
            Actor::Keeper(_) | Actor::Worker(_) | Actor::Origin(_) => 0,
        }
    }

    fn finish(&mut self) -> Result<(), String> {
        let Some(process) = &self.process else { return Err("the server is gone at the end".to_owned()) };
        let live = process.coordinator();
        live.check().map_err(|error| format!("the books at the end: {error}"))?;
        let copy = MemoryStore::with(self.store.killed());
        let stored = open_in_memory(&copy, InstanceId::NONE, self.shape.options.clone(), Tick(0));
        let stored = stored.map_err(|error| format!("what is stored at the end: {error}"))?.coordinator;
        if stored.durable_view() != live.durable_view() {
            return Err("what is stored at the end is not what the server has".to_owned());
        }
        dump(&mut self.stage, Moment::Rest, stored);
        let milliseconds = self.stage.now;
        self.stage.note(TEST, Record::Time { milliseconds });
        self.stage.note(TEST, Record::End);
        Ok(())
    }

    fn what_hangs(&mut self) -> String {
        let workers: Vec<String> =
            self.workers().filter(|worker| worker.state == State::Alive).map(|worker| worker.describe()).collect();
        let campaigns: Vec<String> = self.process.as_ref().map_or_else(Vec::new, |process| {
            process.coordinator().durable_view().into_values().map(|row| format!("{row:?}")).collect()
        });
        format!(
            "not all is done {} s after faults stopped; phase {:?}; workers: {}\n{}",
            CALM_MS_MAX / 1_000,
            self.phase,
            workers.join("; "),
            campaigns.join("\n")
        )
    }
}
