//! A history of commands that leaves every kind of row in every state: for a directory on the disk, and for the same records in
//! memory.
//!
//! It is deterministic: the same commands in the same commits, so a real directory and a store in memory get the same records, and
//! so does every later version that stores the same rows. It ends as a killed process does: nothing is tidied up.
//!
//! **Invariant.** `records::the_history_has_every_kind_of_row_and_record` fails if something is missing from it.

use tenfold::coordinator::command::{ControlRequest, Hello, Output};
use tenfold::coordinator::{Command, Options};
use tenfold::store::{Opened, Pace};
use tenfold::types::{
    CampaignSpec, ConnectionId, CreationId, Grant, InstanceId, Order, Outcome, Request, SessionId, Tasks, Tick, Want,
};

/// Whose directory it is.
pub(crate) const INSTANCE: InstanceId = InstanceId([0x5a; 16]);

/// The bounds under which it is played: small slices, so that a removal can be caught half way.
pub(crate) fn options() -> Options {
    Options { slice: 2, origin_campaign: Some("counted".into()), ..Options::default() }
}

/// Plays it. `open` opens the store, at the beginning and again after a kill in the middle; `committed` is called after every commit.
pub(crate) fn play(mut open: impl FnMut() -> Opened, mut committed: impl FnMut()) {
    let mut player = Player::new(open(), &mut committed);
    player.apply(vec![Command::Boot]);
    player.settle();
    player.campaigns();
    let mut first = player.hello(1, 0x11, 1, InstanceId::NONE);
    let mut second = player.hello(2, 0x22, 1, InstanceId::NONE);
    for number in 3..8 {
        player.work_a_little(number);
    }
    player.first_works(&mut first);
    player.second_vanishes(&mut second);
    player.orders();
    player.origin();
    drop(player);

    let mut player = Player::new(open(), &mut committed);
    player.apply(vec![Command::Boot]);
    player.settle();
    player.after_the_kill(&mut first);
    player.unfinished();
}

/// A process of the history.
struct Player<'a> {
    opened: Opened,
    now: Tick,
    committed: &'a mut dyn FnMut(),
}

impl<'a> Player<'a> {
    fn new(mut opened: Opened, committed: &'a mut dyn FnMut()) -> Self {
        // Checkpoints now and then, and commits between them.
        opened.ledger.set_pace(Pace { bytes: 1_500, records: 8, ..Pace::default() });
        Self { opened, now: Tick(0), committed }
    }
}

/// A session as its client sees it.
struct Session {
    connection: ConnectionId,
    hello: Hello,
    next: u64,
    held: Vec<Grant>,
}

impl Session {
    /// Takes the leases that were granted to it.
    fn hear(&mut self, outputs: Vec<(ConnectionId, Output)>) {
        for (connection, output) in outputs {
            if let (true, Output::Grants { grants, .. }) = (connection == self.connection, output) {
                self.held.extend(grants);
            }
        }
    }
}

impl Player<'_> {
    /// One group commit.
    fn apply(&mut self, commands: Vec<Command>) -> Vec<(ConnectionId, Output)> {
        let Opened { ledger, coordinator, .. } = &mut self.opened;
        let (mut changes, mut texts, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
        for command in commands {
            let step = coordinator.apply(self.now, command);
            changes.extend(step.changes);
            texts.extend(step.texts);
            outputs.extend(step.outputs);
        }
        ledger.commit(&changes, &texts, coordinator).unwrap();
        (self.committed)();
        outputs
    }

    /// Lets everything happen that is due now.
    fn settle(&mut self) -> Vec<(ConnectionId, Output)> {
        let mut outputs = Vec::new();
        while self.opened.coordinator.next_deadline().is_some_and(|due| due <= self.now) {
            outputs.extend(self.apply(vec![Command::Advance]));
        }
        outputs
    }

    fn control(&mut self, request: ControlRequest) {
        let outputs = self.apply(vec![Command::Control { connection: ConnectionId(100), id: 1, request }]);
        let failed = |output: &(ConnectionId, Output)| format!("{output:?}").contains("Failed");
        assert!(!outputs.iter().any(failed), "{outputs:?}");
    }

    fn create(&mut self, name: &str, creation: u8, tasks: Tasks, runs: u32, seed: Option<u64>) {
        let spec = CampaignSpec {
            name: name.into(),
            tasks,
            runs,
            seed,
            order: if seed.is_some() { Order::Even } else { Order::Lowest },
            lease_ms: Some(500),
            timeout_ms: seed.map(|_| 3_600_000),
            errors_max: Some(if seed.is_some() { 1 } else { 2 }),
            losses_max: None,
        };
        self.control(ControlRequest::Create { creation: CreationId([creation; 16]), spec: Box::new(spec) });
    }

    fn keys(&mut self, creation: u8, from: u32, count: u32) {
        let keys = (from..from + count).map(|index| format!("lattice-{index:04}/{}", "x".repeat(40))).collect();
        self.control(ControlRequest::AddKeys { creation: CreationId([creation; 16]), from, keys });
    }

    fn campaigns(&mut self) {
        self.create("counted", 1, Tasks::Range { first: 1_000, count: 400 }, 2, None);
        self.create("numbered", 2, Tasks::Keys { count: 120 }, 20, Some(42));
        self.keys(2, 0, 70);
        self.keys(2, 70, 50);
        self.control(ControlRequest::Seal { creation: CreationId([2; 16]) });
        self.create("removed", 3, Tasks::Range { first: 0, count: 20 }, 3, None);
        self.create("paused", 4, Tasks::Range { first: 0, count: 5 }, 1, None);
        self.create("cancelled", 5, Tasks::Range { first: 0, count: 5 }, 1, None);
    }

    fn hello(&mut self, connection: u64, id: u8, attempt: u64, instance: InstanceId) -> Session {
        let session = SessionId([id; 16]);
        let hello = Hello { session, instance, attempt, confirmed: 0, name: format!("host-{id}:1") };
        let connection = ConnectionId(connection);
        self.apply(vec![Command::Hello { connection, hello: hello.clone() }]);
        Session { connection, hello, next: 1, held: Vec::new() }
    }

    /// Asks for leases of a campaign; the window is what is held plus `more`.
    fn want(&mut self, session: &mut Session, campaign: &str, more: u32, runs: u32) {
        let want = Want { leases: session.held.len() as u32 + more, runs, campaigns: vec![campaign.into()] };
        let mut outputs = self.apply(vec![Command::Want { connection: session.connection, want }]);
        outputs.extend(self.settle());
        session.hear(outputs);
    }

    fn request(&mut self, session: &mut Session, confirmed: u64, requests: Vec<Request>) {
        let first = session.next;
        session.next += requests.len() as u64;
        let connection = session.connection;
        let outputs = self.apply(vec![Command::Requests { connection, first, confirmed, requests }]);
        session.hear(outputs);
    }

    /// A short session with a name, so that there are several pages of sessions.
    fn work_a_little(&mut self, number: u64) {
        let mut session = self.hello(number, 0x30 + number as u8, 1, InstanceId::NONE);
        self.want(&mut session, "counted", 2, 1);
        let lease = session.held.remove(0).lease;
        self.request(&mut session, 0, vec![Request::Report { lease, outcome: Outcome::Done { runs: 1 } }]);
    }

    /// Reports in every form, with refusals that nobody has confirmed.
    fn first_works(&mut self, session: &mut Session) {
        self.want(session, "numbered", 40, 64);
        let held = std::mem::take(&mut session.held);
        for (index, grant) in held.iter().enumerate() {
            let error = format!("exit status {index}: \"no space left\"");
            let request = match index % 5 {
                0 => Request::Report { lease: grant.lease, outcome: Outcome::Done { runs: grant.runs } },
                1 => Request::Report {
                    lease: grant.lease,
                    outcome: Outcome::Mixed { done: 0b1010, failed: 0b0101, error },
                },
                2 => Request::Report { lease: grant.lease, outcome: Outcome::Mixed { done: 0, failed: 1, error } },
                3 => Request::Release { lease: grant.lease },
                _ => {
                    session.held.push(*grant);
                    continue;
                }
            };
            // The second one is always refused: its lease has ended.
            self.request(session, 0, vec![request.clone()]);
            if index % 10 == 0 {
                self.request(session, 0, vec![request]);
            }
        }
        self.want(session, "counted", 90, 2);
        let counted = session.held.extract_if(.., |grant| grant.first_run == 0 && grant.campaign.0 == 1);
        let held: Vec<Grant> = counted.skip(10).collect();
        assert!(held.len() > 60, "{}", held.len());
        for grants in held.chunks(9) {
            let report = |grant: &Grant| Request::Report { lease: grant.lease, outcome: Outcome::Done { runs: 2 } };
            self.request(session, 3, grants.iter().map(report).collect());
        }
    }

    /// Leases expire, one is reported late, and one campaign is removed under its holder.
    fn second_vanishes(&mut self, session: &mut Session) {
        self.want(session, "numbered", 10, 8);
        self.want(session, "removed", 6, 1);
        self.apply(vec![Command::Disconnected { connection: session.connection }]);
        self.now = self.now.after(11_000);
        self.settle();
        self.apply(vec![Command::Advance]);
        let hello = Hello { attempt: 2, instance: INSTANCE, ..session.hello.clone() };
        self.apply(vec![Command::Hello { connection: session.connection, hello }]);
        let Grant { lease, runs, .. } = session.held[0];
        self.request(session, 0, vec![Request::Report { lease, outcome: Outcome::Done { runs } }]);
    }

    fn orders(&mut self) {
        let campaign = |name: &str| name.to_owned();
        self.control(ControlRequest::Pause { campaign: campaign("paused") });
        self.control(ControlRequest::Cancel { campaign: campaign("cancelled") });
        self.control(ControlRequest::Cancel { campaign: campaign("removed") });
        self.apply(vec![Command::Control {
            connection: ConnectionId(100),
            id: 2,
            request: ControlRequest::Remove { campaign: campaign("removed") },
        }]);
        self.settle();
    }

    /// Connections of the origin's dialect, which end with the process.
    fn origin(&mut self) {
        for connection in 50..53 {
            let connection = ConnectionId(connection);
            for _ in 0..12 {
                let outputs = self.apply(vec![Command::Origin { connection, done: vec![] }]);
                for (_, output) in outputs {
                    if let Output::Origin(tenfold::coordinator::command::OriginAnswer::Task(task)) = output {
                        self.apply(vec![Command::Origin { connection, done: vec![(task, 1)] }]);
                    }
                }
            }
        }
    }

    /// The next process: the first session goes on, with live leases, a release and a connection of the origin's dialect.
    fn after_the_kill(&mut self, session: &mut Session) {
        session.connection = ConnectionId(200);
        let hello = Hello { attempt: 2, instance: INSTANCE, confirmed: 5, ..session.hello.clone() };
        self.apply(vec![Command::Hello { connection: session.connection, hello }]);
        self.want(session, "numbered", 3, 16);
        let lease = session.held.pop().unwrap().lease;
        self.request(session, 5, vec![Request::Release { lease }]);
        self.apply(vec![Command::Origin { connection: ConnectionId(201), done: vec![] }]);
    }

    /// What a kill leaves half done: a creation without all its keys, a removal in the middle.
    fn unfinished(&mut self) {
        self.create("creating", 6, Tasks::Keys { count: 100 }, 1, None);
        self.keys(6, 0, 40);
        self.create("removing", 7, Tasks::Range { first: 7, count: 200 }, 1, None);
        let mut session = self.hello(202, 0x77, 1, InstanceId::NONE);
        self.want(&mut session, "removing", 30, 1);
        // Nothing is lent in its place, so its slot stays free.
        self.apply(vec![Command::Want { connection: session.connection, want: Want::default() }]);
        let lease = session.held.remove(0).lease;
        self.request(&mut session, 0, vec![Request::Report { lease, outcome: Outcome::Done { runs: 2 } }]);
        self.control(ControlRequest::Cancel { campaign: "removing".into() });
        let request = ControlRequest::Remove { campaign: "removing".into() };
        self.apply(vec![Command::Control { connection: ConnectionId(100), id: 3, request }]);
    }
}
