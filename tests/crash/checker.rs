//! Which histories are right: reads what clients and test wrote down, in order, and says what must not have happened.
//!
//! | promise | what is compared |
//! |---|---|
//! | durable before visible | at every look: what was acked before it began is in the counts; no count was ever higher |
//! | exact, no invention | at every look: no count is above what had been sent when it ended, each request once |
//! | | at the end: the counts are what was acked, and what the server says it counted of the rest, no more, no less |
//! | leases survive | no report is refused, no session forgotten, no lease lent twice; leases that last are counted as lent |
//! | finished means finished | nobody says so while a run is missing; at the end every quota is met |
//!
//! Pure: no process, no clock. **Invariant.** Whatever the order in which the processes ran, a right server passes: each
//! rule holds for what was surely so when it is applied. Tested here with histories into which a violation was planted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use libtest_mimic::Trial;
use tenfold::types::SessionId;

use crate::history::{self, Fate, Heard, Record, Sent, Who};

/// A campaign, as the checker must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Campaign {
    pub(crate) name: String,
    pub(crate) tasks: u32,
    pub(crate) quota: u32,
    /// Whether runs are told apart.
    pub(crate) numbered: bool,
    /// Whether leases last longer than any test, so that a lent run must be seen as lent until it is reported.
    pub(crate) lasting: bool,
}

/// What happened, in figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) servers_killed: u64,
    pub(crate) clients: u64,
    pub(crate) clients_killed: u64,
    pub(crate) clients_left: u64,
    pub(crate) clients_frozen: u64,
    pub(crate) leases: u64,
    /// Reports and releases.
    pub(crate) sent: u64,
    pub(crate) releases: u64,
    pub(crate) acked: u64,
    /// Sent and not answered when a server was killed: to be resent.
    pub(crate) in_flight_at_kills: u64,
    /// Reported although the lease was known to be lost.
    pub(crate) late: u64,
    /// Never answered, because their client was killed or left.
    pub(crate) unanswered: u64,
    pub(crate) unanswered_counted: u64,
    pub(crate) looks: u64,
    pub(crate) runs: u64,
    pub(crate) extra: u64,
}

impl Figures {
    /// Adds those of another history.
    pub(crate) fn add(&mut self, other: &Self) {
        let Self { servers_killed, clients, clients_killed, clients_left, clients_frozen, leases, .. } = other;
        let Self { sent, releases, acked, in_flight_at_kills, late, .. } = other;
        let Self { unanswered, unanswered_counted, looks, runs, extra, .. } = other;
        self.servers_killed += servers_killed;
        self.clients += clients;
        self.clients_killed += clients_killed;
        self.clients_left += clients_left;
        self.clients_frozen += clients_frozen;
        self.leases += leases;
        self.sent += sent;
        self.releases += releases;
        self.acked += acked;
        self.in_flight_at_kills += in_flight_at_kills;
        self.late += late;
        self.unanswered += unanswered;
        self.unanswered_counted += unanswered_counted;
        self.looks += looks;
        self.runs += runs;
        self.extra += extra;
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { servers_killed, clients, clients_killed, clients_left, clients_frozen, leases, .. } = self;
        writeln!(out, "  server: {servers_killed} kills, {} looks at all counts", self.looks)?;
        writeln!(
            out,
            "  clients: {clients}, of these {clients_killed} killed, {clients_left} gone without goodbye; \
             {clients_frozen} times one was frozen"
        )?;
        writeln!(
            out,
            "  requests: {} for {leases} leases ({} releases, {} late reports): {} acked, {} in flight at a kill, \
             {} never answered, of these {} counted",
            self.sent,
            self.releases,
            self.late,
            self.acked,
            self.in_flight_at_kills,
            self.unanswered,
            self.unanswered_counted
        )?;
        write!(out, "  counts: {} runs, {} extra", self.runs, self.extra)
    }
}

/// Reads a whole history: what happened, and what must not have.
pub(crate) fn check(campaigns: &[Campaign], history: &[(Who, Record)]) -> (Figures, Vec<String>) {
    let mut checker = Checker::new(campaigns);
    for (who, record) in history {
        checker.take(*who, record);
    }
    if !checker.ended {
        checker.violation("the history has no end".to_owned());
    }
    (checker.figures, checker.violations)
}

/// What clients did for one task, each request once.
#[derive(Clone, Debug, Default)]
struct Work {
    /// Surely counted.
    acked: Tally,
    /// Possibly counted: sent, and not known to be uncounted.
    possible: Tally,
    /// The last look's counts: done, and with extra ones.
    seen: (u32, u64),
}

/// Executions, and how many of each run where runs are told apart.
#[derive(Clone, Debug, Default)]
struct Tally {
    units: u64,
    runs: BTreeMap<u32, u32>,
}

impl Tally {
    fn add(&mut self, units: u64, runs: &[u32]) {
        self.units += units;
        for run in runs {
            *self.runs.entry(*run).or_default() += 1;
        }
    }

    fn remove(&mut self, units: u64, runs: &[u32]) {
        self.units -= units;
        for run in runs {
            if let Some(times) = self.runs.get_mut(run) {
                *times -= 1;
                if *times == 0 {
                    self.runs.remove(run);
                }
            }
        }
    }

    /// How much of it counts towards a quota.
    fn towards(&self, campaign: &Campaign) -> u32 {
        let distinct = if campaign.numbered { self.runs.len() as u64 } else { self.units };
        u32::try_from(distinct.min(u64::from(campaign.quota))).unwrap()
    }
}

/// A lease, as its holder wrote it down.
#[derive(Clone, Debug)]
struct Lease {
    who: Who,
    campaign: usize,
    task: u32,
    first: u32,
    runs: u32,
    lost: bool,
    reported: bool,
}

/// A request.
#[derive(Clone, Debug)]
struct Request {
    lease: u64,
    units: u64,
    runs: Vec<u32>,
    /// Whether it counts something, at least an attempt.
    report: bool,
    answered: bool,
}

#[derive(Clone, Debug, Default)]
struct Client {
    session: Option<SessionId>,
    requests: BTreeMap<u64, Request>,
    gone: bool,
}

/// What was surely so when the test began to ask.
#[derive(Clone, Debug, Default)]
struct Look {
    acked: Vec<Vec<u64>>,
    acked_towards: Vec<Vec<u32>>,
    /// Leases that last and were not reported.
    outstanding: Vec<u64>,
    finished: BTreeMap<usize, bool>,
    counts: BTreeMap<(usize, u32), (u32, u32, u32)>,
}

struct Checker<'a> {
    campaigns: &'a [Campaign],
    names: HashMap<&'a str, usize>,
    work: Vec<Vec<Work>>,
    clients: BTreeMap<Who, Client>,
    leases: HashMap<u64, Lease>,
    look: Option<Look>,
    fates: BTreeMap<(SessionId, u64), Fate>,
    figures: Figures,
    violations: Vec<String>,
    ended: bool,
}

impl<'a> Checker<'a> {
    fn new(campaigns: &'a [Campaign]) -> Self {
        Self {
            campaigns,
            names: campaigns.iter().enumerate().map(|(index, campaign)| (campaign.name.as_str(), index)).collect(),
            work: campaigns.iter().map(|campaign| vec![Work::default(); campaign.tasks as usize]).collect(),
            clients: BTreeMap::new(),
            leases: HashMap::new(),
            look: None,
            fates: BTreeMap::new(),
            figures: Figures::default(),
            violations: Vec::new(),
            ended: false,
        }
    }

    fn violation(&mut self, text: String) {
        self.violations.push(text);
    }

    fn campaign(&mut self, name: &str) -> Option<usize> {
        let found = self.names.get(name).copied();
        if found.is_none() {
            self.violation(format!("there is no campaign {name}"));
        }
        found
    }

    fn take(&mut self, who: Who, record: &Record) {
        match record {
            Record::Begin { session } => {
                let client = self.clients.entry(who).or_default();
                if client.session.replace(*session).is_some() {
                    self.violation(format!("the first session of client {who} was forgotten"));
                } else {
                    self.figures.clients += 1;
                }
            }
            Record::Grant { lease, campaign, task, first, runs } => {
                self.granted(who, *lease, campaign, (*task, *first, *runs));
            }
            Record::Lost { lease } => self.lost(who, *lease),
            Record::Send { number, lease, what } => self.sent(who, *number, *lease, *what),
            Record::Ack { number, heard } => self.acked(who, *number, *heard),
            Record::Settled { campaign, finished } => self.settled(who, campaign, *finished),
            Record::Left => {
                self.figures.clients_left += 1;
                self.clients.entry(who).or_default().gone = true;
            }
            Record::Closed { .. } => self.clients.entry(who).or_default().gone = true,
            Record::KilledServer => {
                self.figures.servers_killed += 1;
                let present = self.clients.values().filter(|client| !client.gone);
                let requests = present.flat_map(|client| client.requests.values());
                self.figures.in_flight_at_kills += requests.filter(|request| !request.answered).count() as u64;
            }
            Record::KilledClient { who } => {
                self.figures.clients_killed += 1;
                self.clients.entry(*who).or_default().gone = true;
            }
            Record::Frozen { .. } => self.figures.clients_frozen += 1,
            Record::Ready | Record::Thawed { .. } => {}
            Record::Look => self.look_begins(),
            Record::Status { campaign, finished } => {
                if let (Some(campaign), Some(look)) = (self.campaign(campaign), &mut self.look) {
                    look.finished.insert(campaign, *finished);
                }
            }
            Record::Count { campaign, task, done, extra, leased } => {
                if let (Some(campaign), Some(look)) = (self.campaign(campaign), &mut self.look) {
                    look.counts.insert((campaign, *task), (*done, *extra, *leased));
                }
            }
            Record::Looked => self.look_ends(),
            Record::Fate { session, number, fate } => {
                self.fates.insert((*session, *number), *fate);
            }
            Record::End => self.end(),
        }
    }

    fn granted(&mut self, who: Who, id: u64, campaign: &str, (task, first, runs): (u32, u32, u32)) {
        let Some(campaign) = self.campaign(campaign) else { return };
        self.figures.leases += 1;
        if self.clients.get(&who).is_none_or(|client| client.session.is_none()) {
            self.violation(format!("client {who} was lent something before it has begun"));
        }
        let book = &self.campaigns[campaign];
        let beyond = book.numbered && first + runs > book.quota;
        if task >= book.tasks || runs == 0 || beyond {
            self.violation(format!("client {who} was lent runs {first} + {runs} of task {task} of {}", book.name));
            return;
        }
        let lease = Lease { who, campaign, task, first, runs, lost: false, reported: false };
        if let Some(before) = self.leases.insert(id, lease) {
            self.violation(format!("lease {id} was lent twice: to client {} and to client {who}", before.who));
        }
    }

    fn lost(&mut self, who: Who, id: u64) {
        let Some(lease) = self.leases.get_mut(&id).filter(|lease| lease.who == who) else { return };
        lease.lost = true;
        if self.campaigns[lease.campaign].lasting {
            self.violation(format!("lease {id} of client {who} should have lasted, but was lost"));
        }
    }

    fn sent(&mut self, who: Who, number: u64, id: u64, what: Sent) {
        self.figures.sent += 1;
        let Some(lease) = self.leases.get_mut(&id).filter(|lease| lease.who == who && !lease.reported) else {
            self.violation(format!("client {who} reports lease {id}, which it does not hold"));
            return;
        };
        lease.reported = true;
        self.figures.late += u64::from(lease.lost && what != Sent::Release);
        self.figures.releases += u64::from(what == Sent::Release);
        let done = match what {
            Sent::Done(runs) => u64::MAX.checked_shr(64_u32.saturating_sub(runs)).unwrap_or(0),
            Sent::Mixed { done, .. } => done,
            Sent::Release => 0,
        };
        let numbered = self.campaigns[lease.campaign].numbered;
        let runs: Vec<u32> =
            (0..64).filter(|bit| numbered && done >> bit & 1 == 1).map(|bit| lease.first + bit).collect();
        let units = match what {
            Sent::Done(units) => u64::from(units),
            Sent::Mixed { .. } | Sent::Release => u64::from(done.count_ones()),
        };
        let beyond = runs.iter().any(|run| *run >= lease.first + lease.runs);
        self.work[lease.campaign][lease.task as usize].possible.add(units, &runs);
        let request = Request { lease: id, units, runs, report: what != Sent::Release, answered: false };
        let requests = &mut self.clients.entry(who).or_default().requests;
        // Between them are the library's own: it gives back what was lost before the client took it.
        let last = requests.last_key_value().map_or(0, |(number, _)| *number);
        requests.insert(number, request);
        if number <= last || beyond {
            self.violation(format!("client {who} sends {number} after {last}, or beyond its lease"));
        }
    }

    fn acked(&mut self, who: Who, number: u64, heard: Heard) {
        self.figures.acked += 1;
        if heard == Heard::Unknown {
            self.violation(format!("the session of client {who} was forgotten"));
            return;
        }
        let request = self.clients.get_mut(&who).and_then(|client| client.requests.get_mut(&number));
        let Some(request) = request.filter(|request| !request.answered) else {
            self.violation(format!("client {who} has an answer to {number}, which it did not send, or a second one"));
            return;
        };
        request.answered = true;
        let request = request.clone();
        self.resolve(&request, heard == Heard::Counted);
        if heard == Heard::Refused {
            self.violation(format!("request {number} of client {who} was refused: a lease was lost"));
        }
    }

    /// It is known whether a request was counted.
    fn resolve(&mut self, request: &Request, counted: bool) {
        let Some(lease) = self.leases.get(&request.lease) else { return };
        let work = &mut self.work[lease.campaign][lease.task as usize];
        if counted {
            work.acked.add(request.units, &request.runs);
        } else {
            work.possible.remove(request.units, &request.runs);
        }
    }

    /// A client was told that there will be no more work: then all of it had at least been sent.
    fn settled(&mut self, who: Who, name: &str, finished: bool) {
        let Some(index) = self.campaign(name) else { return };
        if !finished {
            self.violation(format!("client {who} was told that {name} is settled, but not finished"));
        }
        let campaign = &self.campaigns[index];
        let missing = self.work[index].iter().position(|work| work.possible.towards(campaign) < campaign.quota);
        if let Some(task) = missing {
            self.violation(format!(
                "client {who} was told that {name} is settled while runs of task {task} were missing"
            ));
        }
    }

    fn look_begins(&mut self) {
        let lasting = |lease: &Lease| self.campaigns[lease.campaign].lasting && !lease.reported && !lease.lost;
        let outstanding = self.leases.iter().filter(|(_, lease)| lasting(lease)).map(|(id, _)| *id).collect();
        let acked = self.work.iter().map(|tasks| tasks.iter().map(|work| work.acked.units).collect()).collect();
        let towards = |(tasks, campaign): (&Vec<Work>, &Campaign)| {
            tasks.iter().map(|work| work.acked.towards(campaign)).collect::<Vec<u32>>()
        };
        let acked_towards = self.work.iter().zip(self.campaigns).map(towards).collect();
        self.look = Some(Look { acked, acked_towards, outstanding, ..Look::default() });
    }

    fn look_ends(&mut self) {
        self.figures.looks += 1;
        let Some(look) = self.look.take() else { return };
        (self.figures.runs, self.figures.extra) = (0, 0);
        for (index, campaign) in self.campaigns.iter().enumerate() {
            let mut all_done = true;
            for task in 0..campaign.tasks {
                let Some(&(done, extra, leased)) = look.counts.get(&(index, task)) else {
                    self.violation(format!("{} has no task {task} any more", campaign.name));
                    continue;
                };
                all_done &= done == campaign.quota;
                self.figures.runs += u64::from(done);
                self.figures.extra += u64::from(extra);
                for problem in self.look_at_task(&look, index, task, (done, extra, leased)) {
                    self.violation(format!("{} task {task}: {problem}", campaign.name));
                }
            }
            if look.finished.get(&index) == Some(&true) && !all_done {
                self.violation(format!("{} was said to be finished while runs were missing", campaign.name));
            }
        }
    }

    fn look_at_task(
        &mut self,
        look: &Look,
        index: usize,
        task: u32,
        (done, extra, leased): (u32, u32, u32),
    ) -> Vec<String> {
        let campaign = &self.campaigns[index];
        let total = u64::from(done) + u64::from(extra);
        let acked = look.acked[index][task as usize];
        let acked_towards = look.acked_towards[index][task as usize];
        let outstanding = look.outstanding.iter().filter_map(|id| self.leases.get(id));
        let still = outstanding.filter(|lease| (lease.campaign, lease.task) == (index, task) && !lease.reported);
        let lent: u32 = still.map(|lease| lease.runs).sum();
        let work = &mut self.work[index][task as usize];
        let (sent, sent_towards) = (work.possible.units, work.possible.towards(campaign));
        let before = std::mem::replace(&mut work.seen, (done, total));
        let mut problems = Vec::new();
        let mut rule = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        rule(acked <= total, format!("{acked} units were acked, {total} are counted"));
        rule(total <= sent, format!("{total} units are counted, only {sent} were ever sent"));
        rule(acked_towards <= done, format!("{acked_towards} runs were acked, {done} are done"));
        rule(done <= sent_towards, format!("{done} runs are done, only {sent_towards} were ever sent"));
        rule(done <= campaign.quota, format!("{done} runs are done of {}", campaign.quota));
        rule(campaign.numbered || extra == 0 || done == campaign.quota, format!("{extra} extra before the quota"));
        rule(before.0 <= done && before.1 <= total, format!("{before:?} was seen before, now {:?}", (done, total)));
        rule(lent <= leased, format!("{lent} runs are lent to clients, the server knows of {leased}"));
        problems
    }

    /// Everything has come to rest: what was never answered is looked up, and all must fit exactly.
    fn end(&mut self) {
        self.ended = true;
        // What the client read but did not live to write down: counted or refused.
        let mut doubtful = self.work.iter().map(|tasks| vec![0_u64; tasks.len()]).collect::<Vec<_>>();
        for who in self.clients.keys().copied().collect::<Vec<_>>() {
            let client = self.clients[&who].clone();
            for (number, request) in client.requests.iter().filter(|(_, request)| !request.answered) {
                self.figures.unanswered += 1;
                let fate = client.session.and_then(|session| self.fates.get(&(session, *number)).copied());
                match fate {
                    Some(Fate::Counted) => {
                        self.figures.unanswered_counted += u64::from(request.report);
                        self.resolve(request, true);
                    }
                    Some(Fate::NotReceived) => self.resolve(request, false),
                    Some(Fate::Confirmed) => {
                        if let Some(lease) = self.leases.get(&request.lease) {
                            doubtful[lease.campaign][lease.task as usize] += request.units;
                        }
                    }
                    Some(Fate::Refused) => {
                        self.violation(format!("request {number} of client {who} was refused: a lease was lost"));
                    }
                    Some(Fate::UnknownSession) => self.violation(format!("the session of client {who} was forgotten")),
                    None => self.violation(format!("nobody asked for request {number} of client {who}")),
                }
            }
        }
        let mut problems = Vec::new();
        for (index, campaign) in self.campaigns.iter().enumerate() {
            for (task, work) in self.work[index].iter().enumerate() {
                let (done, total) = work.seen;
                let (least, most) = (work.acked.units, work.acked.units + doubtful[index][task]);
                if !(least..=most).contains(&total) {
                    problems
                        .push(format!("{} task {task}: {total} are counted, {least} to {most} were", campaign.name));
                }
                if done != campaign.quota {
                    problems
                        .push(format!("{} task {task}: {done} of {} runs at the end", campaign.name, campaign.quota));
                }
                let somebody = |run: &u32| work.possible.runs.contains_key(run);
                if campaign.numbered && !(0..campaign.quota).all(|run| somebody(&run)) {
                    problems.push(format!("{} task {task}: a run is done that nobody has reported", campaign.name));
                }
            }
        }
        self.violations.extend(problems);
    }
}

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial!("checker", right_histories_pass),
        trial!("checker", lost_counts_are_seen),
        trial!("checker", invented_counts_are_seen),
        trial!("checker", early_ends_are_seen),
        trial!("checker", lost_leases_are_seen),
        trial!("checker", broken_clients_are_seen),
        trial!("checker", figures_add_up),
    ]
}

/// One task each: `c` is counted with a quota of 3; `n` is numbered with a quota of 2, and its leases last.
fn campaigns() -> [Campaign; 2] {
    let campaign =
        |name: &str, quota, numbered| Campaign { name: name.to_owned(), tasks: 1, quota, numbered, lasting: numbered };
    [campaign("c", 3, false), campaign("n", 2, true)]
}

/// A right history: client 1 works on `c` and is killed with request 2 unanswered but counted; client 2 finishes it;
/// client 3 works on `n` across a kill of the server.
const RIGHT: [&str; 33] = [
    "1 begin 01010101010101010101010101010101",
    "2 begin 02020202020202020202020202020202",
    "3 begin 03030303030303030303030303030303",
    "1 grant 10 c 0 0 1",
    "1 grant 11 c 0 0 1",
    "3 grant 30 n 0 0 2",
    "1 send 1 10 done 1",
    "1 ack 1 counted",
    "1 send 2 11 done 1",
    "0 look",
    "0 status c false",
    "0 count c 0 2 0 0",
    "0 count n 0 0 0 2",
    "0 looked",
    "0 killed-client 1",
    "0 killed-server",
    "2 grant 20 c 0 0 1",
    "2 lost 20",
    "2 send 1 20 done 2",
    "2 ack 1 counted",
    "2 settled c true",
    "2 closed true",
    "3 send 1 30 mixed 3 0",
    "3 ack 1 counted",
    "3 settled n true",
    "3 closed true",
    "0 look",
    "0 status c true",
    "0 status n true",
    "0 count c 0 3 1 0",
    "0 count n 0 2 0 0",
    "0 looked",
    "0 fate 01010101010101010101010101010101 2 counted",
];

/// The right history with some lines put in place of others, and what is wrong with it.
fn violations(changes: &[(&str, &[&str])]) -> Vec<String> {
    let mut lines: Vec<&str> = Vec::new();
    let mut used = BTreeSet::new();
    for line in RIGHT.into_iter().chain(["0 end"]) {
        match changes.iter().find(|(old, _)| *old == line) {
            Some((old, new)) => {
                used.insert(*old);
                lines.extend(*new);
            }
            None => lines.push(line),
        }
    }
    assert_eq!(used.len(), changes.len(), "a change fits no line");
    check(&campaigns(), &read(&lines)).1
}

fn read(lines: &[&str]) -> Vec<(Who, Record)> {
    history::parse(&format!("{} .", lines.join(" .\n")))
}

/// Each change is seen, as this.
fn seen(changes: &[(&str, &[&str])], expected: &str) {
    let violations = violations(changes);
    let found = violations.iter().any(|violation| violation.contains(expected));
    assert!(found, "{changes:?}\nshould be seen as {expected:?}, but: {violations:?}");
}

fn right_histories_pass() {
    assert_eq!(violations(&[]), [""; 0]);
    // The client read the answer but did not live to write it down.
    let fate = "0 fate 01010101010101010101010101010101 2 counted";
    assert_eq!(violations(&[(fate, &["0 fate 01010101010101010101010101010101 2 confirmed"])]), [""; 0]);
    // The request never arrived: then nothing of it may be counted, which leaves three without an extra one.
    let not_received = "0 fate 01010101010101010101010101010101 2 not-received";
    let changes: &[(&str, &[&str])] = &[
        (fate, &[not_received]),
        ("0 count c 0 2 0 0", &["0 count c 0 1 0 0"]),
        ("0 count c 0 3 1 0", &["0 count c 0 3 0 0"]),
    ];
    assert_eq!(violations(changes), [""; 0]);
}

fn lost_counts_are_seen() {
    seen(&[("0 count c 0 2 0 0", &["0 count c 0 0 0 0"])], "1 units were acked, 0 are counted");
    seen(&[("0 count c 0 3 1 0", &["0 count c 0 3 0 0"])], "3 are counted, 4 to 4 were");
    seen(&[("0 count c 0 3 1 0", &["0 count c 0 1 0 0"])], "was seen before");
    seen(&[("0 count c 0 3 1 0", &[])], "no task 0 any more");
    // The sums are right, but one run was executed twice and the other never.
    let mixed: &[(&str, &[&str])] = &[
        ("3 grant 30 n 0 0 2", &["3 grant 30 n 0 0 1", "3 grant 31 n 0 0 1"]),
        ("3 send 1 30 mixed 3 0", &["3 send 1 30 done 1", "3 send 2 31 done 1"]),
        ("3 ack 1 counted", &["3 ack 1 counted", "3 ack 2 counted"]),
    ];
    seen(mixed, "2 runs are done, only 1 were ever sent");
    seen(mixed, "nobody has reported");
}

fn invented_counts_are_seen() {
    seen(&[("0 count c 0 2 0 0", &["0 count c 0 3 0 0"])], "3 units are counted, only 2 were ever sent");
    seen(&[("0 count c 0 3 1 0", &["0 count c 0 3 2 0"])], "5 units are counted, only 4 were ever sent");
    seen(&[("0 count c 0 3 1 0", &["0 count c 0 4 0 0"])], "4 runs are done of 3");
    seen(&[("0 count n 0 2 0 0", &["0 count n 0 2 1 0"])], "3 units are counted, only 2 were ever sent");
    seen(&[("0 count c 0 2 0 0", &["0 count c 0 1 1 0"])], "1 extra before the quota");
    // Counted although it is said not to have arrived.
    let not_received = "0 fate 01010101010101010101010101010101 2 not-received";
    seen(
        &[("0 fate 01010101010101010101010101010101 2 counted", &[not_received])],
        "c task 0: 4 are counted, 3 to 3 were",
    );
}

fn early_ends_are_seen() {
    seen(&[("0 status c false", &["0 status c true"])], "said to be finished while runs were missing");
    seen(
        &[("3 send 1 30 mixed 3 0", &["3 settled n true", "3 send 1 30 mixed 3 0"])],
        "n is settled while runs of task 0",
    );
    seen(&[("2 send 1 20 done 2", &["2 settled c true", "2 send 1 20 done 2"])], "c is settled while runs of task 0");
    seen(&[("2 settled c true", &["2 settled c false"])], "not finished");
    seen(&[("0 count n 0 2 0 0", &["0 count n 0 1 0 1"])], "1 of 2 runs at the end");
}

fn lost_leases_are_seen() {
    seen(&[("0 count n 0 0 0 2", &["0 count n 0 0 0 0"])], "2 runs are lent to clients, the server knows of 0");
    seen(&[("3 send 1 30 mixed 3 0", &["3 lost 30", "3 send 1 30 mixed 3 0"])], "should have lasted");
    seen(&[("2 ack 1 counted", &["2 ack 1 refused"])], "a lease was lost");
    seen(&[("2 ack 1 counted", &["2 ack 1 unknown"])], "was forgotten");
    let again = "2 begin 04040404040404040404040404040404";
    seen(&[("2 ack 1 counted", &["2 ack 1 counted", again])], "first session of client 2 was forgotten");
    seen(&[("2 grant 20 c 0 0 1", &["2 grant 10 c 0 0 1", "2 grant 20 c 0 0 1"])], "lease 10 was lent twice");
    for (fate, expected) in [("refused", "a lease was lost"), ("unknown-session", "was forgotten")] {
        let line = format!("0 fate 01010101010101010101010101010101 2 {fate}");
        seen(&[("0 fate 01010101010101010101010101010101 2 counted", &[&line])], expected);
    }
}

fn broken_clients_are_seen() {
    seen(&[("1 ack 1 counted", &["1 ack 1 counted", "1 ack 1 counted"])], "or a second one");
    seen(&[("1 ack 1 counted", &["1 ack 2 counted"])], "which it did not send");
    seen(&[("1 send 2 11 done 1", &["1 send 1 11 done 1"])], "sends 1 after 1");
    seen(&[("3 send 1 30 mixed 3 0", &["3 send 1 30 mixed 7 0"])], "beyond its lease");
    seen(&[("2 send 1 20 done 2", &["2 send 1 11 done 2"])], "does not hold");
    seen(&[("3 begin 03030303030303030303030303030303", &[])], "before it has begun");
    seen(&[("0 fate 01010101010101010101010101010101 2 counted", &[])], "nobody asked");
    seen(&[("0 end", &[])], "no end");
}

fn figures_add_up() {
    let lines = [&RIGHT[..], &["0 end"]].concat();
    let (mut figures, _) = check(&campaigns(), &read(&lines));
    let expected = Figures {
        servers_killed: 1,
        clients: 3,
        clients_killed: 1,
        leases: 4,
        sent: 4,
        acked: 3,
        late: 1,
        unanswered: 1,
        unanswered_counted: 1,
        looks: 2,
        runs: 5,
        extra: 1,
        ..Figures::default()
    };
    assert_eq!(figures, expected);
    figures.add(&expected);
    assert_eq!((figures.sent, figures.runs, figures.extra), (8, 10, 2));
}
