//! A real client process on the client library: takes leases, executes nothing, reports what it likes, and writes all of
//! it into the history; and the fleet of such processes, as the test sees it.
//!
//! What it does with a lease is drawn from its seed: it reports what it was lent, less, or more; failures; it gives leases
//! back; it holds one until it is lost and reports late; it leaves without a goodbye. The
//! first leases of the first clients have a fixed fate, so that every kind occurs. Once the file `hurry` is there it
//! reports everything else at once.
//!
//! **Invariant.** A request is in the history before anything of it can be sent.

use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tenfold::client::{Answer, Client, Config, Lease, Verdict};
use tenfold::types::{Idle, Outcome, RefusalReason, Want};
use tokio::task::JoinSet;
use tokio::time::sleep;

use tenfold_checker::file::Writer;
use tenfold_checker::history::{Heard, Reason, Record, Sent, Session, Who};

use crate::random::Random;
use crate::server::dying_with_us;

/// First word of this program when it is to be a client.
pub(crate) const CLIENT: &str = "client";

/// Exit code of a client that left without a goodbye.
pub(crate) const LEFT: i32 = 3;

/// How long a client waits for its last answers; only a failing test waits so long.
const GRACE: Duration = Duration::from_mins(1);

/// How often a client that waits looks whether it is to hurry.
const LOOK: Duration = Duration::from_millis(10);

/// What a client must know.
#[derive(Clone, Debug)]
pub(crate) struct Assignment {
    pub(crate) who: Who,
    pub(crate) seed: u64,
    pub(crate) server: String,
    pub(crate) history: PathBuf,
    pub(crate) hurry: PathBuf,
    pub(crate) role: Role,
    pub(crate) campaigns: Vec<String>,
}

/// What kind of client it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Does everything that a client may do.
    Worker,
    /// Holds many leases for long, and loses none.
    Keeper,
}

impl Assignment {
    /// Starts it. Its complaints go to `errors`.
    pub(crate) fn start(&self, errors: &Path) -> Child {
        let Self { who, seed, server, history, hurry, role, campaigns } = self;
        let mut command = dying_with_us(&std::env::current_exe().unwrap());
        command.args([CLIENT, &who.to_string(), &seed.to_string(), server]).args([history, hurry]);
        command.arg(if *role == Role::Keeper { "keeper" } else { "worker" }).args(campaigns);
        let errors = std::fs::OpenOptions::new().append(true).create(true).open(errors).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn().unwrap()
    }

    fn read(words: &[String]) -> Self {
        let [who, seed, server, history, hurry, role, campaigns @ ..] = words else { panic!("words are missing") };
        Self {
            who: who.parse().unwrap(),
            seed: seed.parse().unwrap(),
            server: server.clone(),
            history: history.into(),
            hurry: hurry.into(),
            role: if role == "keeper" { Role::Keeper } else { Role::Worker },
            campaigns: campaigns.to_vec(),
        }
    }
}

/// The key of a task of a campaign with keys.
pub(crate) fn key(index: u32) -> String {
    format!("key number {index}")
}

/// The process side of [`Assignment::start`].
pub(crate) fn main(words: &[String]) -> ExitCode {
    crate::server::block_on(work(Assignment::read(words)));
    ExitCode::SUCCESS
}

/// What a client does with a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// Reports what it was lent.
    Exact,
    /// The same, after a while.
    Slow,
    /// Reports less.
    Less,
    /// Reports more, where that is allowed.
    More,
    /// Says of every run that it is done, failed, or neither.
    Mixed,
    /// Reports that all failed.
    Failed,
    /// Gives it back.
    Release,
    /// Waits until it is lost, and reports it all the same.
    Late,
    /// Ends the process in the middle of its work.
    Leave,
}

/// Fates of the first lease, by client, so that each occurs.
const FIRST: [Deed; 7] = [Deed::More, Deed::Late, Deed::Mixed, Deed::Release, Deed::Less, Deed::Failed, Deed::Leave];

fn choose(random: &mut Random) -> Deed {
    match random.within(0..=99) {
        0..50 => Deed::Exact,
        50..58 => Deed::Slow,
        58..66 => Deed::Less,
        66..74 => Deed::More,
        74..82 => Deed::Mixed,
        82..86 => Deed::Failed,
        86..92 => Deed::Release,
        92..99 => Deed::Late,
        _ => Deed::Leave,
    }
}

struct Worker {
    client: Client,
    writer: Writer,
    assignment: Assignment,
}

async fn work(assignment: Assignment) {
    let mut random = Random::new(assignment.seed);
    let mut config = Config::new([assignment.server.clone()]);
    config.name = format!("client {}", assignment.who);
    config.want = match assignment.role {
        Role::Worker => {
            Want { leases: random.within(1..=5) as u32, runs: random.within(1..=4) as u32, ..Want::default() }
        }
        Role::Keeper => Want { leases: 6, runs: 2, ..Want::default() },
    };
    config.want.campaigns.clone_from(&assignment.campaigns);
    config.until_done = true;
    // The test waits for its clients to come back, so they should not dawdle.
    config.backoff_first = Duration::from_millis(5);
    config.backoff_cap = Duration::from_millis(50);
    let client = Client::start(config).unwrap();
    let writer = Writer::open(&assignment.history, assignment.who).unwrap();
    writer.write(&Record::UntilDone).unwrap();
    let worker = Arc::new(Worker { client, writer, assignment });
    let mut session = None;
    tokio::spawn(Arc::clone(&worker).listen());
    let mut first = (worker.assignment.role == Role::Worker)
        .then(|| FIRST.get(worker.assignment.who as usize % (2 * FIRST.len())).copied())
        .flatten();
    let mut busy = JoinSet::new();
    while let Some(lease) = worker.client.next_lease().await {
        if session.replace(lease.session()) != Some(lease.session()) {
            let begin = Record::Begin { session: Session(lease.session().0), instance: None };
            worker.writer.write(&begin).unwrap();
        }
        worker.granted(&lease);
        let deed = first.take().unwrap_or_else(|| choose(&mut random));
        let random = Random::new(random.number());
        let worker = Arc::clone(&worker);
        match worker.assignment.role {
            Role::Worker => busy.spawn(worker.handle(lease, deed, random)),
            Role::Keeper => busy.spawn(worker.keep(lease, random)),
        };
        while let Some(handled) = busy.try_join_next() {
            handled.unwrap();
        }
    }
    while let Some(handled) = busy.join_next().await {
        handled.unwrap();
    }
    worker.stop().await;
}

impl Worker {
    /// Writes down that all is settled, as soon as the server says so.
    async fn listen(self: Arc<Self>) {
        let mut state = self.client.watch();
        let settled = state.wait_for(|state| matches!(state.idle, Some(Idle::Settled(_)))).await;
        let Ok(Some(Idle::Settled(settled))) = settled.map(|state| state.idle) else { return };
        for campaign in &self.assignment.campaigns {
            let told = Record::Settled { campaign: campaign.clone(), finished: settled.finished() };
            self.writer.write(&told).unwrap();
        }
    }

    fn granted(&self, lease: &Lease) {
        if let Some(found) = lease.key() {
            assert_eq!(found, key(lease.index().0), "the key of another task");
        }
        let grant = Record::Grant {
            lease: lease.id().to_u64(),
            campaign: lease.campaign().to_owned(),
            task: lease.index().0,
            first: lease.first_run(),
            runs: lease.runs(),
        };
        self.writer.write(&grant).unwrap();
    }

    /// Holds a lease for a while.
    async fn keep(self: Arc<Self>, lease: Lease, mut random: Random) {
        self.pause(random.within(300..=3_000)).await;
        self.done(lease).await;
    }

    async fn handle(self: Arc<Self>, lease: Lease, deed: Deed, mut random: Random) {
        let deed = if self.in_a_hurry() { Deed::Exact } else { deed };
        let runs = lease.runs();
        let numbered = lease.seed(0).is_some();
        let all = u64::MAX >> (64 - runs);
        if random.percent(50) {
            self.pause(random.within(1..=12)).await;
        }
        match deed {
            Deed::Slow => {
                self.pause(random.within(30..=200)).await;
                self.done(lease).await;
            }
            Deed::Less => {
                let runs = random.within(1..=u64::from(runs)) as u32;
                self.report(lease, Outcome::Done { runs }).await;
            }
            Deed::More if !numbered => {
                let runs = runs + random.within(1..=3) as u32;
                self.report(lease, Outcome::Done { runs }).await;
            }
            Deed::Exact | Deed::More => self.done(lease).await,
            Deed::Mixed | Deed::Failed => {
                let done = if deed == Deed::Failed { 0 } else { random.number() & all };
                let failed = if deed == Deed::Failed { all } else { random.number() & all & !done };
                let failed = if done == 0 && failed == 0 { 1 } else { failed };
                let error = "it was told to fail".to_owned();
                self.report(lease, Outcome::Mixed { done, failed, error }).await;
            }
            Deed::Release => {
                let id = lease.id().to_u64();
                self.hear(lease.release_noted(|number| self.note(number, id, Sent::Release))).await;
            }
            Deed::Late => {
                // Heartbeats do not help a run that takes too long, so this ends soon, hurry or not.
                if lease.timeout().is_some() {
                    lease.lost().await;
                }
                self.done(lease).await;
            }
            Deed::Leave => {
                self.writer.write(&Record::Left).unwrap();
                std::process::exit(LEFT);
            }
        }
    }

    async fn done(&self, lease: Lease) {
        let runs = lease.runs();
        self.report(lease, Outcome::Done { runs }).await;
    }

    async fn report(&self, lease: Lease, outcome: Outcome) {
        if lease.is_lost() {
            self.writer.write(&Record::Lost { lease: lease.id().to_u64() }).unwrap();
        }
        let sent = match &outcome {
            Outcome::Done { runs } => Sent::Done { runs: *runs },
            Outcome::Mixed { done, failed, .. } => Sent::Mixed { done: *done, failed: *failed },
        };
        let id = lease.id().to_u64();
        self.hear(lease.report_noted(outcome, |number| self.note(number, id, sent))).await;
    }

    /// Writes down what is about to be sent.
    fn note(&self, number: u64, lease: u64, what: Sent) {
        self.writer.write(&Record::Send { number, lease, what }).unwrap();
    }

    async fn hear(&self, answer: Answer) {
        let number = answer.number();
        let heard = match answer.await {
            Verdict::Counted => Heard::Counted,
            Verdict::Refused(why) => Heard::Refused { reason: reason(why) },
            Verdict::Unknown => Heard::Unknown,
        };
        self.writer.write(&Record::Ack { number, heard }).unwrap();
    }

    fn in_a_hurry(&self) -> bool {
        self.assignment.hurry.exists()
    }

    /// Stands for work that takes this long, in milliseconds.
    async fn pause(&self, milliseconds: u64) {
        let mut left = Duration::from_millis(milliseconds);
        while !left.is_zero() && !self.in_a_hurry() {
            let step = left.min(LOOK);
            sleep(step).await;
            left -= step;
        }
    }

    /// All is settled.
    async fn stop(self: Arc<Self>) {
        // `listen` ends with the settlement, which has happened.
        let mut worker = self;
        let Worker { client, writer, .. } = loop {
            match Arc::try_unwrap(worker) {
                Ok(alone) => break alone,
                Err(shared) => worker = shared,
            }
            sleep(LOOK).await;
        };
        writer.write(&Record::Closing).unwrap();
        let closed = client.close(GRACE).await;
        assert!(closed.unanswered.is_empty(), "unanswered: {:?}", closed.unanswered);
        writer.write(&Record::Closed { goodbye: closed.said_goodbye }).unwrap();
    }
}

/// The reason of a refusal in the words of histories.
pub(crate) fn reason(reason: RefusalReason) -> Reason {
    match reason {
        RefusalReason::NotHeld => Reason::NotHeld,
        RefusalReason::Ended => Reason::Ended,
        RefusalReason::Gone => Reason::Gone,
        RefusalReason::BadRuns => Reason::BadRuns,
    }
}
