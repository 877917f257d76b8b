//! Clients on the real client library, in this process, so that their notes stand in one log with the disk's operations.
//!
//! Workers take what there is and report it exactly, in part, beyond, as failed, or give it back, as their seed says. One
//! keeper holds leases until the run hurries, so that there are always some which a cut may not take.
//!
//! **Invariant.** A request is in the log before anything of it can be sent, an answer after it was read. No lease is
//! dropped: what the library sends by itself is in no log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tenfold::client::{Answer, Client, Config, Control, Lease, State, Verdict};
use tenfold::types::{CampaignSpec, CreationId, Idle, Order, Outcome, SessionId, Tasks, Want};
use tenfold_checker::history::{Record, Session, Who};
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::mount::Notes;
use crate::random::Random;
use crate::server::PATIENCE;
use crate::story::{Campaign, Grant, Heard, Note, Request, Sent};

/// Longer than any run.
const LEASE_MS: u64 = 24 * 3_600_000;

const LOOK: Duration = Duration::from_millis(2);

/// The keeper's campaign.
pub(crate) const LASTING: &str = "lasting";

/// Made to be removed.
pub(crate) const DOOMED: &str = "doomed";

/// The key of a task of a campaign with keys.
pub(crate) fn key(index: u32) -> String {
    format!("the key of task {index} {}", "k".repeat(index as usize % 90))
}

/// What a run is about.
pub(crate) fn campaigns() -> Vec<Campaign> {
    let campaign =
        |name: &str, tasks, quota| Campaign { name: name.to_owned(), tasks, quota, numbered: false, keyed: false };
    vec![
        campaign("lowest", 40, 5),
        Campaign { keyed: true, ..campaign("keyed", 200, 1) },
        Campaign { numbered: true, ..campaign("numbered", 30, 5) },
        campaign(LASTING, 20, 2),
        Campaign { keyed: true, ..campaign(DOOMED, 150, 2) },
    ]
}

/// Creates a campaign, and says so.
pub(crate) async fn create(control: &Control, campaign: &Campaign, notes: &Notes, id: [u8; 16]) {
    let tasks = if campaign.keyed {
        Tasks::Keys { count: campaign.tasks }
    } else {
        Tasks::Range { first: 0, count: campaign.tasks }
    };
    let spec = CampaignSpec {
        name: campaign.name.clone(),
        tasks,
        runs: campaign.quota,
        seed: campaign.numbered.then_some(42),
        order: if campaign.keyed { Order::Even } else { Order::Lowest },
        lease_ms: Some(LEASE_MS),
        timeout_ms: None,
        errors_max: None,
        losses_max: None,
    };
    let keys: Vec<String> = if campaign.keyed { (0..campaign.tasks).map(key).collect() } else { Vec::new() };
    notes.write(Note::Creating { campaign: campaign.clone() });
    control.create(CreationId(id), &spec, &keys).await.unwrap();
    notes.write(Note::Created { name: campaign.name.clone() });
}

/// Removes a campaign, and says so.
pub(crate) async fn remove(control: &Control, name: &str, notes: &Notes) {
    notes.write(Note::Removing { name: name.to_owned() });
    control.cancel(name).await.unwrap();
    control.remove(name).await.unwrap();
    notes.write(Note::Removed { name: name.to_owned() });
}

/// What all clients share.
struct Common {
    notes: Notes,
    answers: AtomicUsize,
    hurry: AtomicBool,
    /// Workers that have not come to their end yet.
    busy: AtomicUsize,
}

/// Clients that work until all is settled.
pub(crate) struct Fleet {
    common: Arc<Common>,
    thread: Option<JoinHandle<()>>,
}

impl Fleet {
    pub(crate) fn start(address: String, notes: Notes, seed: u64, workers: usize) -> Self {
        let common = Arc::new(Common {
            notes,
            answers: AtomicUsize::new(0),
            hurry: AtomicBool::new(false),
            busy: AtomicUsize::new(workers),
        });
        let shared = Arc::clone(&common);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(work(address, shared, Random::new(seed), workers));
        });
        Self { common, thread: Some(thread) }
    }

    /// How many answers were read.
    pub(crate) fn answers(&self) -> usize {
        self.common.answers.load(Ordering::SeqCst)
    }

    /// Whether nobody works any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Whether only the keeper is left.
    pub(crate) fn is_nearly_done(&self) -> bool {
        self.common.busy.load(Ordering::SeqCst) == 0
    }

    /// The keeper reports what it holds.
    pub(crate) fn hurry(&self) {
        self.common.hurry.store(true, Ordering::SeqCst);
    }

    /// Waits until so many answers were read, or all is done; false if neither happens.
    pub(crate) fn wait_for_answers(&self, answers: usize) -> bool {
        wait(|| self.answers() >= answers || self.has_ended())
    }

    /// Waits until all is settled and everybody has taken their leave.
    pub(crate) fn finish(&mut self) -> bool {
        self.hurry();
        if !wait(|| self.has_ended()) {
            return false;
        }
        self.thread.take().is_none_or(|thread| thread.join().is_ok())
    }
}

fn wait(holds: impl Fn() -> bool) -> bool {
    for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
        if holds() {
            return true;
        }
        std::thread::sleep(LOOK);
    }
    false
}

async fn work(address: String, common: Arc<Common>, mut random: Random, workers: usize) {
    let mut fleet = JoinSet::new();
    let others: Vec<String> = campaigns()
        .into_iter()
        .map(|campaign| campaign.name)
        .filter(|name| name != LASTING && name != DOOMED)
        .collect();
    let keeper_is = workers as Who + 1;
    for who in 1..keeper_is {
        let want = Want { leases: 3, runs: 3, campaigns: others.clone() };
        let member = Member::start(&address, want, &common, who);
        fleet.spawn(worker(member, Random::new(random.number())));
    }
    let want = Want { leases: 12, runs: 1, campaigns: vec![LASTING.to_owned()] };
    fleet.spawn(keeper(Member::start(&address, want, &common, keeper_is)));
    while let Some(ended) = fleet.join_next().await {
        ended.unwrap();
    }
}

/// A client of the library.
struct Member {
    client: Client,
    /// What the checker calls it.
    who: Who,
    /// The session of its last lease.
    session: Option<SessionId>,
    common: Arc<Common>,
}

impl Member {
    fn start(address: &str, want: Want, common: &Arc<Common>, who: Who) -> Self {
        let mut config = Config::new([address]);
        let campaigns = want.campaigns.clone();
        config.want = want;
        config.until_done = true;
        config.backoff_first = Duration::from_millis(5);
        config.backoff_cap = Duration::from_millis(50);
        common.told(who, Record::UntilDone);
        let client = Client::start(config).unwrap();
        common.notes.write(Note::Begin { session: client.session() });
        tokio::spawn(listen(client.watch(), campaigns, Arc::clone(common), who));
        Self { client, who, session: None, common: Arc::clone(common) }
    }

    /// The next lease, noted.
    async fn next_lease(&mut self) -> Option<Lease> {
        let lease = self.client.next_lease().await?;
        if self.session.replace(lease.session()) != Some(lease.session()) {
            self.common.told(self.who, Record::Begin { session: Session(lease.session().0), instance: None });
        }
        self.common.granted(&lease);
        Some(lease)
    }

    /// Takes its leave.
    async fn close(self) {
        self.common.notes.write(Note::Closing { session: self.client.session() });
        let closed = self.client.close(PATIENCE).await;
        assert!(closed.unanswered.is_empty(), "unanswered: {:?}", closed.unanswered);
        self.common.told(self.who, Record::Closed { goodbye: closed.said_goodbye });
    }
}

/// Writes down that all is settled, as soon as the server says so.
async fn listen(mut state: Receiver<State>, campaigns: Vec<String>, common: Arc<Common>, who: Who) {
    let settled = state.wait_for(|state| matches!(state.idle, Some(Idle::Settled(_)))).await;
    let Ok(Some(Idle::Settled(settled))) = settled.map(|state| state.idle) else { return };
    for campaign in campaigns {
        common.told(who, Record::Settled { campaign, finished: settled.finished() });
    }
}

async fn worker(mut member: Member, mut random: Random) {
    let common = Arc::clone(&member.common);
    let mut busy = JoinSet::new();
    while let Some(lease) = member.next_lease().await {
        let (common, random) = (Arc::clone(&common), Random::new(random.number()));
        busy.spawn(common.handle(lease, random));
        while let Some(handled) = busy.try_join_next() {
            handled.unwrap();
        }
    }
    while let Some(handled) = busy.join_next().await {
        handled.unwrap();
    }
    member.close().await;
    common.busy.fetch_sub(1, Ordering::SeqCst);
}

async fn keeper(mut member: Member) {
    let mut busy = JoinSet::new();
    while let Some(lease) = member.next_lease().await {
        let common = Arc::clone(&member.common);
        busy.spawn(async move {
            while !common.hurry.load(Ordering::SeqCst) {
                sleep(LOOK).await;
            }
            let runs = lease.runs();
            common.report(lease, Outcome::Done { runs }, Sent::Done(runs)).await;
        });
    }
    while let Some(handled) = busy.join_next().await {
        handled.unwrap();
    }
    member.close().await;
}

/// Waits for an answer.
pub(crate) async fn heard(answer: Answer) -> Heard {
    match answer.await {
        Verdict::Counted => Heard::Counted,
        Verdict::Refused(reason) => Heard::Refused(reason),
        Verdict::Unknown => Heard::Unknown,
    }
}

impl Common {
    fn told(&self, who: Who, record: Record) {
        self.notes.write(Note::Told { who, record });
    }

    fn granted(&self, lease: &Lease) {
        let grant = Grant {
            campaign: lease.campaign().to_owned(),
            task: lease.index().0,
            first: lease.first_run(),
            runs: lease.runs(),
        };
        self.notes.write(Note::Grant { session: lease.session(), lease: lease.id().to_u64(), grant });
    }

    async fn handle(self: Arc<Self>, lease: Lease, mut random: Random) {
        let runs = lease.runs();
        let all = u64::MAX >> (64 - runs);
        if random.percent(60) {
            sleep(Duration::from_millis(random.within(1..=6))).await;
        }
        match random.within(0..=99) {
            0..8 => {
                let id = lease.id().to_u64();
                let session = lease.session();
                let request = Request { lease: id, what: Sent::Release };
                self.hear(lease.release_noted(|number| self.sent(session, number, request))).await;
            }
            8..18 => {
                let done = random.number() & all;
                let failed = if done == all { 0 } else { all & !done };
                let outcome = Outcome::Mixed { done, failed, error: "it was told to fail".to_owned() };
                self.report(lease, outcome, Sent::Mixed { done, failed }).await;
            }
            18..26 => {
                let less = random.within(1..=u64::from(runs)) as u32;
                self.report(lease, Outcome::Done { runs: less }, Sent::Done(less)).await;
            }
            26..34 if lease.seed(0).is_none() => {
                self.report(lease, Outcome::Done { runs: runs + 1 }, Sent::Done(runs + 1)).await;
            }
            _ => self.report(lease, Outcome::Done { runs }, Sent::Done(runs)).await,
        }
    }

    async fn report(&self, lease: Lease, outcome: Outcome, what: Sent) {
        let request = Request { lease: lease.id().to_u64(), what };
        let session = lease.session();
        self.hear(lease.report_noted(outcome, |number| self.sent(session, number, request))).await;
    }

    fn sent(&self, session: SessionId, number: u64, request: Request) {
        self.notes.write(Note::Send { session, number, request });
    }

    async fn hear(&self, answer: Answer) {
        let (session, number) = (answer.session(), answer.number());
        let heard = heard(answer).await;
        self.notes.write(Note::Ack { session, number, heard });
        self.answers.fetch_add(1, Ordering::SeqCst);
    }
}
