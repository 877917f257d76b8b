//! A server that is killed at random moments under a fleet of real clients, some of which are killed, too.
//!
//! ```text
//!   round: four campaigns, one fleet     ┌──────────── until the kills are used up ────────────┐
//!     clients work ──▶ a random moment ──▶ (look) kill the server (dump), (kill, freeze clients) ──▶ start ──▶ look
//!     clients hurry, end by themselves ──▶ look, dump ──▶ look up what was never answered ──▶ the checker reads the history
//! ```
//!
//! A random moment is after a random number of answers read by clients, or a random time after the server was started,
//! also before it is ready. Every other server is slow to commit. If the work is done before the kills, another round
//! begins on the same data directory. In the end what all those kills left is checked as `tenfold verify` checks it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use tenfold::client::Control;
use tenfold::types::{CampaignSpec, CampaignStatus, CreationId, Order, RequestFate, SessionId, TaskState, Tasks};
use tenfold_checker::figures::Figures;
use tenfold_checker::file::{Tail, Writer};
use tenfold_checker::history::{Change, Fate, History, Kind, Moment, Record, Session, Standing, TEST, Who};
use tenfold_checker::{Rule, check};
use tokio::time::{Instant, sleep};

use crate::client::{Assignment, LEFT, Role, key, reason};
use crate::random::Random;
use crate::server::{PATIENCE, Site, ended, last_lines, patiently};

/// How often the server is killed unless `TENFOLD_KILLS` says otherwise.
const KILLS: u32 = 10;
/// Clients that do everything.
const WORKERS: u64 = 4;
/// Rules that every round is held to beside those of every run; what else its history has is applied as well.
const APPLIED: [Rule; 4] = [Rule::S5, Rule::S8, Rule::S10, Rule::S12];

/// Longer than any round.
const LASTING_LEASE_MS: u64 = 24 * 3_600_000;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial!("kill", a_killed_server_loses_and_invents_nothing)]
}

fn a_killed_server_loses_and_invents_nothing() {
    let kills = variable("TENFOLD_KILLS").unwrap_or(u64::from(KILLS));
    let seed = variable("TENFOLD_SEED").unwrap_or_else(|| {
        let mut bytes = [0; 4];
        getrandom::fill(&mut bytes).unwrap();
        u64::from(u32::from_le_bytes(bytes))
    });
    eprintln!("kill test: again with TENFOLD_SEED={seed} TENFOLD_KILLS={kills} cargo test --test crash kill");
    crate::server::block_on(async {
        let mut site = Site::new(&[]);
        let mut random = Random::new(seed);
        let (mut left, mut rounds, mut losses) = (kills, 0, 0);
        let mut total = Figures::default();
        site.start().await;
        while left > 0 {
            rounds += 1;
            let mut round = Round::new(site, rounds, &mut random).await;
            left -= round.run(left, &mut random).await;
            let (figures, lost) = round.finish().await;
            total.add(&figures);
            losses += lost;
            site = round.site;
        }
        site.kill();
        site.verify();
        eprintln!("kill test, seed {seed}: {rounds} rounds\n{total}, {losses} runs lost to expired leases");
    });
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// Four campaigns and the fleet that works on them.
struct Round {
    site: Site,
    control: Control,
    campaigns: Vec<CampaignSpec>,
    writer: Writer,
    tail: Tail,
    history: PathBuf,
    hurry: PathBuf,
    number: u32,
    fleet: BTreeMap<Who, Member>,
    next: Who,
}

/// A client process.
struct Member {
    child: Child,
    role: Role,
    frozen: bool,
    ended: bool,
    errors: PathBuf,
}

impl Drop for Member {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// When to kill.
enum Trigger {
    /// When so many more answers were read.
    Answers(u64),
    /// So long after the server was ready.
    After(Duration),
    /// So long after the server was started, ready or not.
    WhileStarting(Duration),
}

impl Trigger {
    fn choose(random: &mut Random) -> Self {
        match random.within(0..=9) {
            0..6 => Self::Answers(random.within(1..=120)),
            6..8 => Self::After(Duration::from_micros(random.within(0..=200_000))),
            _ => Self::WhileStarting(Duration::from_micros(random.within(0..=60_000))),
        }
    }
}

fn specs(round: u32) -> Vec<(CampaignSpec, Vec<String>)> {
    let spec = |name: &str, count: u32, runs: u32| CampaignSpec {
        name: format!("{name}-{round}"),
        tasks: Tasks::Range { first: 0, count },
        runs,
        seed: None,
        order: Order::Lowest,
        lease_ms: Some(200),
        timeout_ms: Some(100),
        errors_max: None,
        losses_max: None,
    };
    let even = CampaignSpec { order: Order::Even, tasks: Tasks::Keys { count: 30 }, ..spec("even", 30, 10) };
    let numbered = CampaignSpec { seed: Some(42), ..spec("numbered", 60, 10) };
    let lasting =
        CampaignSpec { seed: Some(7), lease_ms: Some(LASTING_LEASE_MS), timeout_ms: None, ..spec("lasting", 40, 4) };
    vec![
        (spec("lowest", 60, 10), Vec::new()),
        (even, (0..30).map(key).collect()),
        (numbered, Vec::new()),
        (lasting, Vec::new()),
    ]
}

impl Round {
    async fn new(site: Site, number: u32, random: &mut Random) -> Self {
        let (history, hurry) = (site.file(&format!("history-{number}")), site.file(&format!("hurry-{number}")));
        let control = site.control();
        let writer = Writer::open(&history, TEST).unwrap();
        let mut campaigns = Vec::new();
        for (spec, keys) in specs(number) {
            writer.write(&creation(&spec)).unwrap();
            control.create(CreationId(random.id()), &spec, &keys).await.unwrap();
            writer.write(&Record::Done { campaign: spec.name.clone(), change: Change::Create }).unwrap();
            campaigns.push(spec);
        }
        let tail = Tail::open(&history).unwrap();
        let (fleet, next) = (BTreeMap::new(), 1);
        let mut round = Self { site, control, campaigns, writer, tail, history, hurry, number, fleet, next };
        (0..WORKERS).for_each(|_| round.add(Role::Worker, random));
        round.add(Role::Keeper, random);
        round
    }

    /// Starts one more client.
    fn add(&mut self, role: Role, random: &mut Random) {
        let who = self.next;
        self.next += 1;
        let mine = self.campaigns.iter().filter(|campaign| lasting(campaign) == (role == Role::Keeper));
        let assignment = Assignment {
            who,
            seed: random.number(),
            server: self.site.address(),
            history: self.history.clone(),
            hurry: self.hurry.clone(),
            role,
            campaigns: mine.map(|campaign| campaign.name.clone()).collect(),
        };
        let errors = self.site.file(&format!("client-{}-{who}", self.number));
        let child = assignment.start(&errors);
        self.fleet.insert(who, Member { child, role, frozen: false, ended: false, errors });
    }

    /// Kills the server up to `kills` times; how often it did before the work was done.
    async fn run(&mut self, kills: u64, random: &mut Random) -> u64 {
        let mut killed = 0;
        while killed < kills {
            match Trigger::choose(random) {
                Trigger::Answers(more) => {
                    let target = self.tail.acks + more;
                    if !self.wait_until(random, |round| round.tail.acks >= target).await {
                        break;
                    }
                }
                Trigger::After(pause) => sleep(pause).await,
                Trigger::WhileStarting(pause) => {
                    self.kill();
                    killed += 1;
                    self.site.spawn(None);
                    sleep(pause).await;
                }
            }
            if killed == kills {
                break;
            }
            self.strike(random).await;
            killed += 1;
        }
        // The last one may have been killed while it started.
        self.site.ready().await;
        killed
    }

    /// Kills the server, does something to clients, and starts it again.
    async fn strike(&mut self, random: &mut Random) {
        // A server that is still starting answers nobody; and it must not be waited for.
        if self.site.file("ready").exists() && random.percent(40) {
            self.look().await;
        }
        if random.percent(50) {
            self.kill();
            self.trouble(random);
        } else {
            self.trouble(random);
            self.kill();
        }
        if random.percent(25) {
            self.dump(Moment::Recovered);
        }
        // A slow disk every other time: then many a kill comes between a decision and its commit.
        let slow = random.percent(50).then(|| format!("slow-commit:requests@{}", random.within(1..=10)));
        self.site.spawn(slow.as_deref());
        self.site.ready().await;
        self.writer.write(&Record::Ready).unwrap();
        self.look().await;
    }

    /// Writes down what a killed server left.
    fn dump(&mut self, moment: Moment) {
        self.writer.write(&Record::Dump { moment }).unwrap();
        let dump = self.site.dump();
        let rows = dump.rows.into_iter().map(|row| Record::Row { row });
        let records: Vec<Record> = rows.chain([Record::Dumped { digest: dump.digest }]).collect();
        self.writer.write_all(&records).unwrap();
    }

    fn kill(&mut self) {
        self.site.kill();
        self.writer.write(&Record::KilledServer).unwrap();
    }

    /// Kills a worker, or stops one for a while, or lets those that were stopped go on.
    fn trouble(&mut self, random: &mut Random) {
        self.thaw();
        let able = |member: &Member| member.role == Role::Worker && !member.ended;
        let able: Vec<Who> = self.fleet.iter().filter(|(_, member)| able(member)).map(|(who, _)| *who).collect();
        if able.is_empty() {
            return;
        }
        let who = able[random.number() as usize % able.len()];
        let dice = random.within(0..=99);
        let Some(member) = self.fleet.get_mut(&who) else { return };
        if member.child.try_wait().unwrap().is_some() {
            return;
        }
        if dice < 30 {
            member.child.kill().unwrap();
            member.child.wait().unwrap();
            member.ended = true;
            self.writer.write(&Record::KilledClient { who }).unwrap();
            self.add(Role::Worker, random);
        } else if dice < 50 {
            kill_process(Pid::from_child(&member.child), Signal::STOP).unwrap();
            member.frozen = true;
            self.writer.write(&Record::Frozen { who }).unwrap();
        }
    }

    fn thaw(&mut self) {
        for (who, member) in self.fleet.iter_mut().filter(|(_, member)| member.frozen) {
            member.frozen = false;
            kill_process(Pid::from_child(&member.child), Signal::CONT).unwrap();
            self.writer.write(&Record::Thawed { who: *who }).unwrap();
        }
    }

    /// Waits for something; false if the work is done before. Puts new clients in the place of those that left.
    async fn wait_until(&mut self, random: &mut Random, holds: impl Fn(&Self) -> bool) -> bool {
        let give_up = Instant::now() + PATIENCE;
        loop {
            self.tail.look().unwrap();
            if holds(self) {
                return true;
            }
            self.site.assert_alive();
            let left = self.bury();
            (0..left).for_each(|_| self.add(Role::Worker, random));
            if self.fleet.values().all(|member| member.ended || member.role == Role::Keeper) {
                return false;
            }
            if self.fleet.values().all(|member| member.ended || member.frozen || member.role == Role::Keeper) {
                self.thaw();
            }
            assert!(Instant::now() < give_up, "nothing moves any more\n{}", self.story());
            // Without a pause: a server that answers too early must be caught before it has made up for it.
            tokio::task::yield_now().await;
        }
    }

    /// Takes note of clients that have ended; how many of them left for another to take their place.
    fn bury(&mut self) -> usize {
        let mut left = 0;
        for (who, member) in self.fleet.iter_mut().filter(|(_, member)| !member.ended) {
            let Some(status) = member.child.try_wait().unwrap() else { continue };
            member.ended = true;
            match status.code() {
                Some(0) => {}
                Some(LEFT) => left += 1,
                Some(_) | None => panic!("client {who} failed: {status}\n{}", last_lines(&member.errors)),
            }
        }
        left
    }

    /// Writes down all counts as the server says they are.
    async fn look(&mut self) {
        self.writer.write(&Record::Look).unwrap();
        let mut records = Vec::new();
        for campaign in &self.campaigns {
            let name = &campaign.name;
            let status = patiently("the status", self.control.status(Some(name))).await.unwrap();
            records.push(stands(&status[0]));
            let page = patiently("the counts", self.control.counts_page(name, 0)).await.unwrap();
            assert_eq!((page.next, page.runs), (None, campaign.runs));
            for (found, count) in page.tasks {
                let expected = name.starts_with("even").then(|| key(count.index.0));
                assert_eq!(found, expected, "the key of a task of {name}");
                let (task, campaign) = (count.index.0, name.clone());
                let (done, extra, leased) = (count.done, count.extra, count.leased);
                let quarantined = count.state == TaskState::Quarantined;
                records.push(Record::Count { campaign, task, done, extra, leased, quarantined });
            }
        }
        records.push(Record::Looked);
        self.writer.write_all(&records).unwrap();
    }

    /// Lets the fleet come to its end, and has the checker read everything.
    async fn finish(&mut self) -> (Figures, u64) {
        std::fs::write(&self.hurry, "").unwrap();
        self.thaw();
        self.writer.write(&Record::Calm).unwrap();
        let mut random = Random::new(0);
        while self.fleet.values().any(|member| !member.ended) {
            // Those that left just before the hurry are not missed: others do their work.
            let running = self.fleet.values_mut().find(|member| !member.ended);
            if let Some(member) = running {
                let status = patiently("a client to end", ended(&mut member.child)).await;
                let _ = status;
            }
            if self.bury() > 0 && self.fleet.values().all(|member| member.ended) {
                self.add(Role::Worker, &mut random);
            }
        }
        self.look().await;
        let mut losses = 0;
        for campaign in &self.campaigns {
            let status = self.control.status(Some(&campaign.name)).await.unwrap();
            assert!(status[0].finished && status[0].settled, "{} is not finished\n{}", campaign.name, self.story());
            losses += status[0].losses;
        }
        for (session, number) in unanswered(&self.tail.all().unwrap()) {
            let fate = fate(self.control.fate(SessionId(session.0), number).await.unwrap());
            self.writer.write(&Record::Fate { session, number, fate }).unwrap();
        }
        self.kill();
        self.dump(Moment::Rest);
        self.site.spawn(None);
        self.site.ready().await;
        self.writer.write(&Record::Ready).unwrap();
        self.writer.write(&Record::End).unwrap();
        let report = check(&self.tail.all().unwrap());
        assert!(report.violations.is_empty() && report.ended, "{report}\n{}", self.story());
        assert_eq!(report.figures.unasked, 0, "{report}");
        let applied = Rule::OF_EVERY_RUN.into_iter().chain(APPLIED);
        let missing: Vec<Rule> = applied.filter(|rule| !report.applied.contains(rule)).collect();
        assert!(missing.is_empty(), "{missing:?} were not applied: {report}");
        for campaign in &self.campaigns {
            self.control.remove(&campaign.name).await.unwrap();
        }
        (report.figures, losses)
    }

    /// The end of the history, for whoever must find out what went wrong.
    fn story(&self) -> String {
        format!("-- the end of the history\n{}\n--", last_lines(&self.history))
    }
}

/// A campaign about to be created.
fn creation(spec: &CampaignSpec) -> Record {
    Record::Create {
        campaign: spec.name.clone(),
        tasks: spec.tasks.count(),
        quota: spec.runs,
        kind: if spec.seed.is_some() { Kind::Numbered } else { Kind::Counted },
        lease_ms: spec.lease_ms.filter(|_| !lasting(spec)),
        timeout_ms: spec.timeout_ms,
        errors_max: spec.errors_max,
        losses_max: spec.losses_max,
    }
}

/// Whether its leases last longer than any round.
fn lasting(spec: &CampaignSpec) -> bool {
    spec.lease_ms == Some(LASTING_LEASE_MS)
}

fn stands(status: &CampaignStatus) -> Record {
    let standing = match (status.finished, status.settled) {
        (true, _) => Standing::Finished,
        (false, true) => Standing::Settled,
        (false, false) => Standing::Open,
    };
    let campaign = status.spec.name.clone();
    Record::Status { campaign, standing, done: status.runs_done, extra: status.runs_extra }
}

fn fate(fate: RequestFate) -> Fate {
    match fate {
        RequestFate::Counted => Fate::Counted,
        RequestFate::Refused(why) => Fate::Refused { reason: reason(why) },
        RequestFate::Confirmed => Fate::Confirmed,
        RequestFate::NotReceived => Fate::NotReceived,
        RequestFate::UnknownSession => Fate::UnknownSession,
    }
}

/// The requests of which no client wrote down an answer.
fn unanswered(history: &History) -> Vec<(Session, u64)> {
    let mut sessions = BTreeMap::new();
    let mut open = BTreeSet::new();
    for line in &history.lines {
        if let Record::Begin { session, .. } = line.record {
            sessions.insert(line.who, session);
        } else if let Record::Send { number, .. } = line.record {
            open.insert((line.who, number));
        } else if let Record::Ack { number, .. } = line.record {
            open.remove(&(line.who, number));
        }
    }
    open.into_iter().filter_map(|(who, number)| Some((*sessions.get(&who)?, number))).collect()
}
