//! The ledger on a real disk: commits of so many reports each. The coordinator makes their changes in between, outside of the measured time.
//!
//! Every report changes its task, its lease's slot and its session, and is followed by a new lease, as in a server. A commit that is a
//! checkpoint is told by its syncs: two, where one is the rule.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tenfold::coordinator::command::{ControlRequest, Hello, Output};
use tenfold::coordinator::{Changed, Command, Options};
use tenfold::store::{self, Opened, syncs};
use tenfold::types::{
    CampaignSpec, ConnectionId, CreationId, InstanceId, LeaseId, Order, Outcome, Request, SessionId, Tasks, Tick, Want,
};

/// Reports of a session at a time; a commit of more has several sessions.
const HELD: u32 = 64;
/// How long each row of the table is measured.
const MEASURED: Duration = Duration::from_secs(10);

pub(crate) fn run() -> Vec<Value> {
    println!(
        "\n| reports a commit | commits/s | reports/s | bytes written a report | p50 | p99.9 | checkpoints | their p50 | the longest |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    [1, 64, 4_096].map(row).to_vec()
}

fn row(reports: u32) -> Value {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut site = Site::new(&directory.path().join("data"), reports);
    let (mut plain, mut checkpoints) = (Vec::new(), Vec::new());
    let (began, written) = (Instant::now(), written_bytes());
    while began.elapsed() < MEASURED {
        let (changes, before) = (site.report(), syncs());
        let commit = Instant::now();
        site.commit(&changes);
        let took = commit.elapsed();
        if syncs() - before > 1 { checkpoints.push(took) } else { plain.push(took) }
    }
    let written = written_bytes() - written;
    let share = checkpoints.len() as f64 / (plain.len() + checkpoints.len()) as f64;
    checkpoints.sort_unstable();
    let (apart, longest) = (at(&checkpoints, 0.5), checkpoints.last().copied().unwrap_or_default());
    let mut all = [plain, checkpoints].concat();
    all.sort_unstable();
    let seconds = all.iter().sum::<Duration>().as_secs_f64();
    let (commits, count) = (all.len() as f64 / seconds, all.len() as f64 * f64::from(reports));
    println!(
        "| {reports} | {commits:.0} | {:.0} | {:.0} | {:.2?} | {:.2?} | {:.1} % | {apart:.2?} | {longest:.2?} |",
        count / seconds,
        written / count,
        at(&all, 0.5),
        at(&all, 0.999),
        share * 100.0,
    );
    json!({
        "reports_per_commit": reports, "commits_per_second": commits, "reports_per_second": count / seconds,
        "written_bytes_per_report": written / count, "p50_us": at(&all, 0.5).as_micros() as u64,
        "p999_us": at(&all, 0.999).as_micros() as u64, "checkpoints_share": share,
        "checkpoints_p50_us": apart.as_micros() as u64, "longest_checkpoint_us": longest.as_micros() as u64,
    })
}

fn at(sorted: &[Duration], share: f64) -> Duration {
    sorted.get((sorted.len() as f64 * share) as usize).copied().unwrap_or_default()
}

/// An open data directory, and sessions that hold as many leases as are reported in a commit.
struct Site {
    opened: Opened,
    held: Vec<Vec<LeaseId>>,
    next: u64,
}

impl Site {
    fn new(path: &std::path::Path, leases: u32) -> Self {
        let opened = store::open(path, "a benchmark", InstanceId([7; 16]), Options::default(), Tick(0)).unwrap();
        let mut site = Self { opened, held: Vec::new(), next: 1 };
        let spec = CampaignSpec {
            name: "store".into(),
            tasks: Tasks::Range { first: 0, count: 1_000_000 },
            runs: 1_000_000,
            seed: None,
            order: Order::Even,
            lease_ms: Some(3_600_000),
            timeout_ms: None,
            errors_max: None,
            losses_max: None,
        };
        let request = ControlRequest::Create { creation: CreationId([1; 16]), spec: Box::new(spec) };
        site.decide(vec![Command::Boot, Command::Control { connection: ConnectionId(999_999), id: 1, request }]);
        for number in 0..leases.div_ceil(HELD) {
            let (connection, mut id) = (ConnectionId(number.into()), [1; 16]);
            id[..4].copy_from_slice(&number.to_le_bytes());
            let name = format!("steps:{number}");
            let hello = Hello { session: SessionId(id), instance: InstanceId::NONE, attempt: 1, confirmed: 0, name };
            let want = Want { leases: leases.min(HELD), runs: 1, campaigns: Vec::new() };
            site.held.push(Vec::new());
            let changes = site.decide(vec![Command::Hello { connection, hello }, Command::Want { connection, want }]);
            site.commit(&changes);
        }
        site
    }

    /// Everybody reports all that it holds, and is lent as much again: the changes.
    fn report(&mut self) -> Vec<Changed> {
        let mut commands = Vec::new();
        let first = self.next;
        for (number, held) in self.held.iter_mut().enumerate() {
            let done = |lease| Request::Report { lease, outcome: Outcome::Done { runs: 1 } };
            let requests: Vec<Request> = held.drain(..).map(done).collect();
            self.next = first + requests.len() as u64;
            let connection = ConnectionId(number as u64);
            commands.push(Command::Requests { connection, first, confirmed: first - 1, requests });
        }
        self.decide(commands)
    }

    fn decide(&mut self, commands: Vec<Command>) -> Vec<Changed> {
        let mut changes = Vec::new();
        for command in commands {
            let step = self.opened.coordinator.apply(Tick(1), command);
            changes.extend(step.changes);
            for (ConnectionId(number), output) in step.outputs {
                if let Output::Grants { grants, .. } = output {
                    self.held[number as usize].extend(grants.iter().map(|grant| grant.lease));
                }
            }
        }
        changes
    }

    fn commit(&mut self, changes: &[Changed]) {
        self.opened.ledger.commit(changes, &[], &self.opened.coordinator).unwrap();
    }
}

/// Bytes that this process had written to the disk so far.
fn written_bytes() -> f64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).map_or(0.0, |bytes| bytes.parse().unwrap())
}
