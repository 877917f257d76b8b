//! The store with the real coordinator on a real disk: many reports share one sync, every commit makes one before it returns,
//! and a process that is killed leaves what it acknowledged.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command as Process, Stdio};

use libtest_mimic::{Arguments, Trial};
use tenfold::coordinator::command::{ControlRequest, Hello, OriginAnswer, Output};
use tenfold::coordinator::{Command, Options};
use tenfold::store::{self, OpenError, Opened, dump};
use tenfold::types::{
    CampaignId, CampaignSpec, ConnectionId, CreationId, InstanceId, Order, Outcome, Request, SessionId, TaskIndex,
    Tasks, Tick, Want,
};

const CONNECTION: ConnectionId = ConnectionId(1);
const INSTANCE: InstanceId = InstanceId([3; 16]);

/// An open directory and what a pipeline does with it.
struct Server {
    opened: Opened,
}

impl Server {
    fn open(path: &Path) -> Self {
        let opened = store::open(path, "a test", INSTANCE, Options::default(), Tick(0)).unwrap();
        let mut server = Self { opened };
        server.apply(vec![Command::Boot]);
        server
    }

    /// One group commit.
    fn apply(&mut self, commands: Vec<Command>) -> Vec<Output> {
        let Opened { ledger, coordinator, .. } = &mut self.opened;
        let (mut changes, mut texts, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
        for command in commands {
            let step = coordinator.apply(Tick(0), command);
            changes.extend(step.changes);
            texts.extend(step.texts);
            outputs.extend(step.outputs.into_iter().map(|(_, output)| output));
        }
        ledger.commit(&changes, &texts, coordinator).unwrap();
        outputs
    }

    fn control(&mut self, request: ControlRequest) {
        let outputs = self.apply(vec![Command::Control { connection: CONNECTION, id: 1, request }]);
        assert!(matches!(&outputs[..], [Output::Control { .. }]), "{outputs:?}");
    }

    fn create(&mut self, tasks: Tasks, runs: u32) {
        let spec = CampaignSpec {
            name: "main".into(),
            tasks,
            runs,
            seed: None,
            order: Order::Lowest,
            lease_ms: None,
            timeout_ms: None,
            errors_max: None,
            losses_max: None,
        };
        self.control(ControlRequest::Create { creation: CREATION, spec: Box::new(spec) });
    }

    fn origin(&mut self, done: Vec<(u64, u64)>) -> OriginAnswer {
        let outputs = self.apply(vec![Command::Origin { connection: CONNECTION, done }]);
        match outputs[..] {
            [Output::Origin(answer)] => answer,
            _ => panic!("{outputs:?}"),
        }
    }
}

const CREATION: CreationId = CreationId([8; 16]);

fn what_a_server_knew_the_next_one_knows() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::open(directory.path());
    let keys: Vec<String> = (0..1_000).map(|index| format!("key {index}")).collect();
    server.create(Tasks::Keys { count: 1_000 }, 10);
    for (part, keys) in keys.chunks(400).enumerate() {
        let from = part as u32 * 400;
        server.control(ControlRequest::AddKeys { creation: CREATION, from, keys: keys.to_vec() });
    }
    server.control(ControlRequest::Seal { creation: CREATION });
    for _ in 0..20 {
        let OriginAnswer::Task(task) = server.origin(vec![]) else { panic!("there is work") };
        server.origin(vec![(task, 2)]);
    }
    let view = server.opened.coordinator.durable_view();
    assert!(view.len() > 10);
    let live: Vec<String> = dump::lines(server.opened.coordinator.rows(), &dump::Keys::new()).collect();
    drop(server);
    let (report, state) = store::verify_state(directory.path()).unwrap();
    let lines: Vec<String> = state.lines().collect();
    assert_eq!(lines[..live.len()], live, "what is read back is what was live");
    assert!(lines.len() == live.len() + 1 && lines[live.len()].starts_with("keys 1 count=1000 sha256="));
    let digest = report.digest;

    let opened = store::open(directory.path(), "a test", INSTANCE, Options::default(), Tick(0)).unwrap();
    assert_eq!(opened.coordinator.durable_view(), view);
    assert_eq!(opened.coordinator.summary().runs_done, 40);
    assert_eq!(opened.texts.keys(CampaignId(1), TaskIndex(0), 1_000).unwrap(), keys);
    assert!(!opened.recovery.fresh);
    drop(opened);

    let report = store::verify(directory.path()).unwrap();
    assert_eq!(report.instance, INSTANCE);
    assert_eq!(report.digest, digest, "starting again changes the books, not the state");
    let all = report.checked.join("\n");
    for expected in ["journal records", "pages", "all 1000 keys", "the rows fit together", "`acked`"] {
        assert!(all.contains(expected), "{expected} in:\n{all}");
    }
}

fn many_reports_share_one_sync_and_every_commit_makes_one() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::open(directory.path());
    server.create(Tasks::Range { first: 0, count: 5_000 }, 10);
    let hello = Hello {
        session: SessionId([5; 16]),
        instance: InstanceId::NONE,
        attempt: 1,
        confirmed: 0,
        name: "host:1".into(),
    };
    let want = Want { leases: 1_000, runs: 1, campaigns: vec![] };
    let hello = Command::Hello { connection: CONNECTION, hello };
    let outputs = server.apply(vec![hello, Command::Want { connection: CONNECTION, want }]);
    let leases: Vec<_> = outputs
        .iter()
        .flat_map(|output| if let Output::Grants { grants, .. } = output { grants.clone() } else { vec![] })
        .map(|grant| grant.lease)
        .collect();
    assert_eq!(leases.len(), 1_000);

    let commands = leases.chunks(10).enumerate().map(|(part, leases)| {
        let report = |lease: &_| Request::Report { lease: *lease, outcome: Outcome::Done { runs: 1 } };
        let requests = leases.iter().map(report).collect();
        Command::Requests { connection: CONNECTION, first: 1 + part as u64 * 10, confirmed: 0, requests }
    });
    let before = store::syncs();
    server.apply(commands.collect());
    let after = store::syncs();
    assert_eq!(server.opened.coordinator.summary().runs_done, 1_000);
    if cfg!(target_os = "linux") {
        // Two: the batch and sled's manifest of it. Other tests of this file run at the same time and add theirs.
        assert!(after > before, "one commit of 1,000 reports was synced");
        assert!(after - before < 500, "and not once for each: {}", after - before);
        for _ in 0..20 {
            let before = store::syncs();
            server.apply(vec![]);
            assert!(store::syncs() > before, "an empty commit is synced too");
        }
    }
}

fn a_killed_process_leaves_what_it_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for lines in [1, 40, 7] {
        let mut child = Process::new(std::env::current_exe().unwrap())
            .env(CHILD, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        for line in &mut output {
            if let Some(number) = line.unwrap().strip_prefix("acknowledged ") {
                acknowledged = number.parse().unwrap();
                seen += 1;
            }
            if seen == lines {
                break;
            }
        }
        // Alive, it keeps everybody else out, and says so.
        let error = store::open(directory.path(), "x", INSTANCE, Options::default(), Tick(0)).map(|_| ()).unwrap_err();
        let holder = format!("process {}, a test", child.id());
        assert!(matches!(&error, OpenError::InUse { holder: named, .. } if *named == holder), "{error}");

        child.kill().unwrap();
        child.wait().unwrap();
        for number in
            output.map_while(Result::ok).filter_map(|line| Some(line.strip_prefix("acknowledged ")?.to_owned()))
        {
            acknowledged = number.parse().unwrap_or(acknowledged);
        }
        let opened = store::open(directory.path(), "a test", INSTANCE, Options::default(), Tick(0)).unwrap();
        let found = opened.coordinator.summary().runs_done;
        assert!((acknowledged..=acknowledged + 1).contains(&found), "{found} are there, {acknowledged} acknowledged");
        opened.coordinator.check().unwrap();
        drop(opened);
        store::verify(directory.path()).unwrap();
    }
}

fn a_process_killed_while_it_opened_leaves_nothing_that_keeps_the_next_one_out() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::open(directory.path());
    server.create(Tasks::Range { first: 0, count: 5 }, 1);
    drop(server);
    drop(Server::open(directory.path()));
    let database = directory.path().join("db");
    let snapshots = |ending: &str| {
        let files = std::fs::read_dir(&database).unwrap().map(|entry| entry.unwrap().path());
        let fits = |path: &std::path::PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with("snap.") && name.ends_with(ending)
        };
        files.filter(fits).collect::<Vec<_>>()
    };
    let snapshot = snapshots("").pop().expect("the database writes a snapshot when it is opened");
    let whole = std::fs::read(&snapshot).unwrap();
    // What a kill leaves between the first write of the next snapshot and its renaming.
    for length in [0, 1, 12, 13, whole.len() - 1, whole.len()] {
        let next = format!("{}.generating", snapshot.to_str().unwrap().replace("snap.0", "snap.1"));
        std::fs::write(&next, &whole[..length]).unwrap();
        store::verify(directory.path()).unwrap();
        let server = Server::open(directory.path());
        assert_eq!(server.opened.coordinator.summary().tasks, 5);
        drop(server);
        assert_eq!(snapshots(".generating"), [""; 0].map(std::path::PathBuf::from));
    }
}

fn a_process_killed_at_its_first_snapshot_leaves_nothing_that_keeps_the_next_one_out() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::open(directory.path());
    server.create(Tasks::Range { first: 0, count: 5 }, 1);
    drop(server);
    let database = directory.path().join("db");
    let copy = tempfile::tempdir().unwrap();
    let snapshot = |path: &Path| {
        let mut files = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        files.find(|name| name.starts_with("snap."))
    };
    assert_eq!(snapshot(&database), None, "a new database has no snapshot");
    // The second opening writes the first one; what it has written so far is all that a kill leaves.
    let files = ["db", "conf"];
    for file in files {
        std::fs::copy(database.join(file), copy.path().join(file)).unwrap();
    }
    drop(Server::open(directory.path()));
    let name = snapshot(&database).expect("the database writes a snapshot when it is opened again");
    let whole = std::fs::read(database.join(&name)).unwrap();
    for length in [0, 1, 12, 13, whole.len() - 1, whole.len()] {
        std::fs::remove_file(database.join(snapshot(&database).unwrap())).unwrap();
        for file in files {
            std::fs::copy(copy.path().join(file), database.join(file)).unwrap();
        }
        std::fs::remove_file(directory.path().join("acked")).unwrap();
        std::fs::write(database.join(format!("{name}.generating")), &whole[..length]).unwrap();
        store::verify(directory.path()).unwrap();
        let server = Server::open(directory.path());
        assert_eq!(server.opened.coordinator.summary().tasks, 5, "{length} bytes");
    }
}

/// Tells the child of a test what its directory is.
const CHILD: &str = "TENFOLD_TEST_STORE";

/// The process that is killed: counts for ever, and says what was acknowledged.
fn child(path: &Path) {
    let mut server = Server::open(path);
    if server.opened.recovery.fresh {
        server.create(Tasks::Range { first: 0, count: 5 }, 1_000_000);
    }
    loop {
        let OriginAnswer::Task(task) = server.origin(vec![]) else { panic!("there is work") };
        server.origin(vec![(task, 1)]);
        let done = server.opened.coordinator.summary().runs_done;
        // The parent is gone when nobody reads.
        if writeln!(std::io::stdout(), "acknowledged {done}").is_err() {
            return;
        }
    }
}

/// Runs the tests, or is the child of one of them.
fn main() {
    if let Some(path) = std::env::var_os(CHILD) {
        child(Path::new(&path));
        return;
    }
    let tests: [(&str, fn()); 5] = [
        ("what_a_server_knew_the_next_one_knows", what_a_server_knew_the_next_one_knows),
        (
            "many_reports_share_one_sync_and_every_commit_makes_one",
            many_reports_share_one_sync_and_every_commit_makes_one,
        ),
        ("a_killed_process_leaves_what_it_acknowledged", a_killed_process_leaves_what_it_acknowledged),
        (
            "a_process_killed_while_it_opened_leaves_nothing_that_keeps_the_next_one_out",
            a_process_killed_while_it_opened_leaves_nothing_that_keeps_the_next_one_out,
        ),
        (
            "a_process_killed_at_its_first_snapshot_leaves_nothing_that_keeps_the_next_one_out",
            a_process_killed_at_its_first_snapshot_leaves_nothing_that_keeps_the_next_one_out,
        ),
    ];
    let trial = |(name, test): (&'static str, fn())| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    libtest_mimic::run(&Arguments::from_args(), tests.map(trial).into()).exit();
}
