//! Makes data directories as a server leaves them after much work, without the hours: the same coordinator and ledger, without sockets.
//!
//! Every task is touched: one run of ten is done. If leases are wanted, nine of ten tasks are done instead, and sessions hold as many leases, each
//! of another open task; they go on to report in random order, so that every page is dirty and the journal as long as it gets.

use std::path::Path;

use tenfold::coordinator::command::{ControlRequest, Hello, Output};
use tenfold::coordinator::rows::TaskRow;
use tenfold::coordinator::{Changed, Command, Coordinator, Options, Row, RowKey};
use tenfold::store::{self, Opened, Rows};
use tenfold::types::{
    CampaignId, CampaignSpec, ConnectionId, CreationId, InstanceId, LeaseId, Order, Outcome, Request, SessionId,
    TaskIndex, Tasks, Tick, Want,
};

const CAMPAIGN: CampaignId = CampaignId(1);
const RUNS: u32 = 10;
const LEASES_PER_SESSION: u32 = 1_000;
const ROWS_PER_COMMIT: u32 = 16 * 1_024;
/// Messages that are committed together, of as many reports as a session holds leases.
const MESSAGES_PER_COMMIT: u32 = 4;
/// How often a lease is reported and lent again, on average (a message speaks of half of its session's).
const REPORTS_PER_LEASE: u32 = 2;

pub(crate) fn fill(directory: &Path, tasks: u32, leases: u32) {
    touch_tasks(directory, tasks, if leases > 0 { 10 } else { 1 });
    if leases > 0 {
        work(directory, leases);
    }
    println!("filled");
}

fn open(directory: &Path) -> Opened {
    store::open(directory, "a benchmark", InstanceId([7; 16]), Options::default(), Tick(0)).unwrap()
}

/// Applies commands and makes their changes durable.
fn apply(opened: &mut Opened, commands: Vec<Command>) -> Vec<(ConnectionId, Output)> {
    let (mut changes, mut outputs) = (Vec::new(), Vec::new());
    for command in commands {
        let step = opened.coordinator.apply(Tick(1), command);
        changes.extend(step.changes);
        outputs.extend(step.outputs);
    }
    opened.ledger.commit(&changes, &[], &opened.coordinator).unwrap();
    outputs
}

/// The state with its first tasks touched.
struct Touched<'a> {
    coordinator: &'a Coordinator,
    end: u32,
    /// The first of so many is open.
    open: u32,
}

impl Rows for Touched<'_> {
    fn row(&self, key: RowKey) -> Option<Row> {
        let RowKey::Task(CAMPAIGN, task) = key else { return self.coordinator.row(key) };
        let done = if task.0.is_multiple_of(self.open) { 1 } else { RUNS };
        (task.0 < self.end).then_some(Row::Task(CAMPAIGN, task, TaskRow { done, extra: 0, issued: 0 }))
    }
}

fn touch_tasks(directory: &Path, tasks: u32, open_tasks: u32) {
    let mut opened = open(directory);
    let spec = CampaignSpec {
        name: "filled".into(),
        tasks: Tasks::Range { first: 0, count: tasks },
        runs: RUNS,
        seed: None,
        order: Order::Even,
        lease_ms: Some(3_600_000),
        timeout_ms: None,
        errors_max: None,
        losses_max: None,
    };
    let create = ControlRequest::Create { creation: CreationId([1; 16]), spec: Box::new(spec) };
    let create = Command::Control { connection: ConnectionId(1), id: 1, request: create };
    apply(&mut opened, vec![Command::Boot, create]);
    let Opened { mut ledger, coordinator, .. } = opened;
    let mut touched = Touched { coordinator: &coordinator, end: 0, open: open_tasks };
    while touched.end < tasks {
        let first = touched.end;
        touched.end = tasks.min(first + ROWS_PER_COMMIT);
        let rows = (first..touched.end).map(|task| RowKey::Task(CAMPAIGN, TaskIndex(task)));
        let changes: Vec<Changed> = rows.map(Changed::Row).collect();
        ledger.commit(&changes, &[], &touched).unwrap();
    }
}

/// A session: its leases, and the number of its next report.
struct Worker {
    held: Vec<LeaseId>,
    next: u64,
}

fn work(directory: &Path, leases: u32) {
    let mut opened = open(directory);
    apply(&mut opened, vec![Command::Boot]);
    let mut workers = Vec::new();
    for number in 0..leases / LEASES_PER_SESSION {
        let (connection, mut id) = (ConnectionId(number.into()), [1; 16]);
        id[..4].copy_from_slice(&number.to_le_bytes());
        let name = format!("filler:{number}");
        let hello = Hello { session: SessionId(id), instance: InstanceId::NONE, attempt: 1, confirmed: 0, name };
        let want = Want { leases: LEASES_PER_SESSION, runs: 1, campaigns: Vec::new() };
        workers.push(Worker { held: Vec::new(), next: 1 });
        let outputs =
            apply(&mut opened, vec![Command::Hello { connection, hello }, Command::Want { connection, want }]);
        take(&mut workers, outputs);
    }
    let mut random = Random(1);
    let messages = 2 * leases / LEASES_PER_SESSION * REPORTS_PER_LEASE;
    for _ in 0..messages / MESSAGES_PER_COMMIT {
        let mut commands = Vec::new();
        for _ in 0..MESSAGES_PER_COMMIT {
            let number = random.below(workers.len());
            let worker = &mut workers[number];
            let reports = random.below(worker.held.len() + 1);
            let requests: Vec<Request> = (0..reports)
                .map(|_| {
                    let lease = worker.held.swap_remove(random.below(worker.held.len()));
                    Request::Report { lease, outcome: Outcome::Done { runs: 1 } }
                })
                .collect();
            let (connection, first) = (ConnectionId(number as u64), worker.next);
            worker.next += requests.len() as u64;
            commands.push(Command::Requests { connection, first, confirmed: first - 1, requests });
        }
        let outputs = apply(&mut opened, commands);
        take(&mut workers, outputs);
    }
}

fn take(workers: &mut [Worker], outputs: Vec<(ConnectionId, Output)>) {
    for (ConnectionId(number), output) in outputs {
        if let Output::Grants { grants, .. } = output {
            workers[number as usize].held.extend(grants.iter().map(|grant| grant.lease));
        }
    }
}

/// A plain generator of numbers (`SplitMix64`, Steele et al., 2014): every directory is filled the same.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number below `bound`; 0 if that is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) as usize % bound.max(1)
    }
}
