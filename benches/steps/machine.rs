//! The state machine alone: reports of random leases out of all that are held, each answered by a new lease.
//!
//! Every task was worked on before, so that the index of open tasks is as large as it gets; one report in ten is of a failed run, so that
//! runs come back anywhere.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tenfold::coordinator::command::{Hello, Output};
use tenfold::coordinator::rows::{CampaignRow, GlobalsRow, Phase, TaskRow};
use tenfold::coordinator::{Change, Command, Coordinator, Options, Restorer, Row};
use tenfold::types::{
    CampaignId, CampaignSpec, ConnectionId, CreationId, InstanceId, LeaseId, Order, Outcome, Request, SessionId,
    TaskIndex, Tasks, Tick, Want,
};

const INSTANCE: InstanceId = InstanceId([7; 16]);
/// More than all that is ever lent here.
const RUNS: u32 = 1_000_000;
/// Leases of a session, at most.
const HELD: u32 = 1_000;
/// Reports in a round, each a message of its own.
const REPORTS: usize = 200_000;
const ROUNDS: usize = 5;

pub(crate) fn run() -> Vec<Value> {
    let mut rows = Vec::new();
    println!(
        "| order | tasks | leases | reports and leases/s | ns each (median of {ROUNDS} rounds) | the longest step |\n|---|---|---|---|---|---|"
    );
    for (order, seed) in [(Order::Lowest, None), (Order::Even, None), (Order::Even, Some(1))] {
        for exponent in 3..=8 {
            rows.push(row(order, seed, 10_u32.pow(exponent), 100));
        }
        for exponent in [0, 3, 4, 5, 6] {
            rows.push(row(order, seed, 10_000_000, 10_u32.pow(exponent)));
        }
    }
    rows
}

fn row(order: Order, seed: Option<u64>, tasks: u32, leases: u32) -> Value {
    let mut machine = Machine::new(order, seed, tasks, leases);
    let (mut each, mut longest) = (Vec::new(), Duration::ZERO);
    machine.work();
    for _ in 0..ROUNDS {
        let (took, most) = machine.work();
        each.push(took.as_nanos() as f64 / REPORTS as f64);
        longest = longest.max(most);
    }
    each.sort_by(f64::total_cmp);
    let median = each[ROUNDS / 2];
    let numbered = if seed.is_some() { ", numbered" } else { "" };
    println!("| {order:?}{numbered} | {tasks} | {leases} | {:.0} | {median:.0} | {longest:.0?} |", 1e9 / median);
    json!({
        "order": format!("{order:?}"), "numbered": seed.is_some(), "tasks": tasks, "leases": leases,
        "report_and_lease_ns": median, "longest_step_us": longest.as_micros() as u64,
    })
}

/// A coordinator, and sessions that hold leases.
struct Machine {
    coordinator: Coordinator,
    now: u64,
    /// Who holds each lease.
    held: Vec<(u32, LeaseId)>,
    /// The number of each session's next report.
    next: Vec<u64>,
    random: u64,
}

impl Machine {
    fn new(order: Order, seed: Option<u64>, tasks: u32, leases: u32) -> Self {
        let coordinator = touched(order, seed, tasks);
        let mut machine = Self { coordinator, now: 1, held: Vec::new(), next: Vec::new(), random: 1 };
        machine.apply(Command::Boot);
        for number in 0..leases.div_ceil(HELD) {
            let (connection, mut id) = (ConnectionId(number.into()), [1; 16]);
            id[..4].copy_from_slice(&number.to_le_bytes());
            let hello = Hello {
                session: SessionId(id),
                instance: InstanceId::NONE,
                attempt: 1,
                confirmed: 0,
                name: String::new(),
            };
            machine.next.push(1);
            machine.apply(Command::Hello { connection, hello });
            let want = Want { leases: leases.min(HELD), runs: 1, campaigns: Vec::new() };
            machine.apply(Command::Want { connection, want });
        }
        assert_eq!(machine.held.len(), leases as usize);
        machine
    }

    /// A round: how long it took, and its longest step.
    fn work(&mut self) -> (Duration, Duration) {
        let (began, mut longest) = (Instant::now(), Duration::ZERO);
        for number in 0..REPORTS {
            let index = self.below(self.held.len());
            let (session, lease) = self.held.swap_remove(index);
            let outcome = if number.is_multiple_of(10) {
                Outcome::Mixed { done: 0, failed: 1, error: String::new() }
            } else {
                Outcome::Done { runs: 1 }
            };
            let first = self.next[session as usize];
            self.next[session as usize] += 1;
            let (connection, requests) = (ConnectionId(session.into()), vec![Request::Report { lease, outcome }]);
            self.now += 1;
            let step = Instant::now();
            self.apply(Command::Requests { connection, first, confirmed: first - 1, requests });
            if self.coordinator.next_deadline().is_some_and(|due| due <= Tick(self.now)) {
                self.apply(Command::Advance);
            }
            longest = longest.max(step.elapsed());
        }
        (began.elapsed(), longest)
    }

    fn apply(&mut self, command: Command) {
        for (ConnectionId(session), output) in self.coordinator.apply(Tick(self.now), command).outputs {
            match output {
                Output::Grants { grants, .. } => {
                    self.held.extend(grants.iter().map(|grant| (session as u32, grant.lease)));
                }
                Output::Idle(idle) => panic!("there is nothing left to do: {idle:?}"),
                Output::Welcome { .. }
                | Output::UnknownSession { .. }
                | Output::Answers { .. }
                | Output::Lost { .. }
                | Output::Control { .. }
                | Output::Origin(_)
                | Output::Close(_) => {}
            }
        }
    }

    /// A plain generator of numbers (`SplitMix64`, Steele et al., 2014).
    fn below(&mut self, bound: usize) -> usize {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) as usize % bound
    }
}

/// A campaign of which every task has one run done.
fn touched(order: Order, seed: Option<u64>, count: u32) -> Coordinator {
    let spec = CampaignSpec {
        name: "steps".into(),
        tasks: Tasks::Range { first: 0, count },
        runs: RUNS,
        seed,
        order,
        // Some expire in every round, as each report takes a millisecond here.
        lease_ms: Some(3_600_000),
        timeout_ms: None,
        errors_max: None,
        losses_max: None,
    };
    let row = CampaignRow { spec, creation: CreationId([1; 16]), phase: Phase::Running };
    let mut restorer = Restorer::new();
    let mut put = |row| restorer.apply(Change::Put(row)).unwrap();
    put(Row::Globals(GlobalsRow { next_campaign: 2 }));
    put(Row::Campaign(CampaignId(1), Box::new(row)));
    let one = TaskRow { done: 1, extra: 0, issued: u32::from(seed.is_some()) };
    (0..count).for_each(|task| put(Row::Task(CampaignId(1), TaskIndex(task), one)));
    restorer.finish(Options::default(), INSTANCE, Tick(0)).unwrap()
}
