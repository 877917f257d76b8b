//! The server: sockets, sessions and the pipeline around the coordinator and its store.
//!
//! ```text
//!  socket ──▶ session ──▶ inbox ──▶ pipeline ──▶ coordinator        five hops: bytes, message, command,
//!    ▲    (bytes, messages)         (own thread)      │             decision, durable, answer
//!    │                                  │ commit ◀────┘
//!    └────── session ◀── outbox ◀── dispatcher, only when it is durable
//! ```
//!
//! In reading order: [`config`](Config), `listener` (takes in connections), `places` (how many), `session` (tells their dialect), `native` and
//! `origin` (the dialects), `translate` (messages to commands and back), `inbox` and `outbox` (bounded queues), `unfinished` (bounds half-read frames),
//! `pipeline` (the one owner of state and disk), `committer` (who writes large commits meanwhile), `dispatch` (from it to the outboxes), `clock` (the only reader of time), `watchdog`, `fatal` and `fault` (how
//! the process dies), `keys` (texts for what is sent).
//!
//! **Invariants**: nothing a peer sees is ahead of the disk; no peer can make the pipeline wait; every queue, frame,
//! connection and deadline is bounded ([`Bounds`]). Deliberately absent: decisions about work and counts
//! ([`crate::coordinator`]), formats on disk ([`crate::store`]). Tested in each file and in `tests/server_*.rs`.

pub(crate) mod clock;
pub(crate) mod committer;
mod config;
pub(crate) mod connection;
pub(crate) mod dispatch;
pub(crate) mod fatal;
mod fault;
pub(crate) mod inbox;
pub(crate) mod keys;
mod listener;
pub(crate) mod native;
mod origin;
pub(crate) mod outbox;
pub(crate) mod pipeline;
mod places;
#[doc(hidden)]
pub mod probe;
mod session;
pub(crate) mod translate;
mod unfinished;
pub(crate) mod watchdog;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use self::config::{Bounds, Config};
pub use self::fatal::{Fatal, arm_panic_hook};
pub use self::pipeline::Turns;

use self::clock::{Clock, Time};
use self::committer::{Committer, Write};
use self::dispatch::{Dispatcher, dispatch};
use self::fault::Fault;
use self::inbox::{Inbox, inbox};
use self::outbox::AllOutboxes;
use self::pipeline::{Drained, Journal, Links, Machine, Pipeline, Tally};
use self::places::Places;
use self::session::Shared;
use self::unfinished::AllUnfinished;
use self::watchdog::{CommitGauge, Watchdog};
use crate::coordinator::command::{Command, Step, TextChange};
use crate::coordinator::{self, Changed, Coordinator, Summary};
use crate::store::{self, CommitError, CommitFailure, Ledger, OpenError, Recovery, Writing, Written};
use crate::types::{InstanceId, Tick};

/// What whoever finds the data directory in use is told about its holder, besides the process.
const HOLDER: &str = "tenfold serve";
/// After the drain: how long sessions have to write what is left and say goodbye.
const PARTING: Duration = Duration::from_secs(5);
/// When told to stop at once: how long the present commit may take; afterwards the thread is left behind, which is as
/// safe as a kill.
const STOP_AT_ONCE: Duration = Duration::from_secs(2);
/// How often a drain looks whether anybody is still connected.
const DRAIN_LOOK: Duration = Duration::from_millis(50);

/// Why a server did not start. Nothing was answered to anybody.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory was not opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// The first commit failed.
    #[error("the first commit failed: {0}")]
    Boot(#[source] CommitError),
    /// The operating system refused a thread or random bytes, or the environment makes no sense.
    #[error("{0}")]
    System(String),
}

/// Why a server that had started ended by itself. What was answered is durable; a restart recovers it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    /// A commit failed, or the pipeline panicked; the log says which.
    #[error("the pipeline has ended: the log says why")]
    PipelineEnded,
}

/// How a server was stopped. Both are equally safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Reports of what was lent were awaited, and every client was told.
    Drained,
    /// A second request came: everything was dropped at once.
    AtOnce,
}

/// What a server found when it started, [`Command::Boot`] included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// How the data directory was read.
    pub recovery: Recovery,
    /// How much is in it.
    pub summary: Summary,
    /// Whose it is.
    pub instance: InstanceId,
}

/// What a server has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Commits, each made durable by a sync of its own.
    pub commits: u64,
    /// Commands decided upon.
    pub commands: u64,
    /// Reports and releases among them.
    pub requests: u64,
}

/// Reads what a running server has done; cheap, from any thread.
#[derive(Clone, Debug)]
pub struct Activity(Arc<Tally>);

impl Activity {
    /// What it has done so far.
    pub fn read(&self) -> Done {
        Done {
            commits: self.0.commits.load(Ordering::Relaxed),
            commands: self.0.commands.load(Ordering::Relaxed),
            requests: self.0.requests.load(Ordering::Relaxed),
        }
    }
}

/// A server that has recovered its data and listens. Connections are taken in once it runs.
pub struct Server {
    drain: Duration,
    addresses: Vec<SocketAddr>,
    recovered: Recovered,
    listeners: Vec<TcpListener>,
    places: Places,
    closing: watch::Sender<bool>,
    shared: Arc<Shared>,
    pipeline: Running,
}

/// The pipeline's thread and what one can tell it.
struct Running {
    inbox: Inbox,
    dispatcher: Dispatcher,
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    drained: watch::Receiver<Drained>,
    /// Resolves when the thread has ended; true if every commit succeeded.
    ended: oneshot::Receiver<bool>,
    _watchdog: Watchdog,
}

impl Server {
    /// Opens and recovers the data directory, makes durable what a restart changes, and listens.
    ///
    /// Must be called within a tokio runtime with I/O and time. The addresses are taken before the data directory is
    /// touched, and listened on after it is ready.
    ///
    /// # Errors
    /// See [`StartError`]; the data directory is closed again.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let mut sockets = Vec::new();
        for address in &config.listen {
            let failed = |source| StartError::Listen { address: address.clone(), source };
            for socket in listener::bind(address).await.map_err(failed)? {
                sockets.push((address.clone(), socket));
            }
        }
        let origin_idle = config.origin_idle();
        let Config { bounds, drain, .. } = config.clone();
        let (opened, pipeline) = tokio::task::spawn_blocking(move || open(&config))
            .await
            .map_err(|failure| StartError::System(format!("the start was broken off: {failure}")))??;
        let (closing, closing_receiver) = watch::channel(false);
        let (addresses, listeners) = listen(sockets)?;
        let shared = Shared {
            inbox: pipeline.inbox.clone(),
            outboxes: AllOutboxes::new(bounds.outboxes_bytes),
            unfinished: AllUnfinished::new(bounds.unfinished_bytes),
            texts: opened.texts,
            instance: opened.recovered.instance,
            bounds: bounds.clone(),
            origin_idle,
            closing: closing_receiver,
            last_connection: AtomicU64::new(0),
        };
        Ok(Self {
            drain,
            addresses,
            recovered: opened.recovered,
            listeners,
            places: Places::new(bounds.connections, bounds.newcomers),
            closing,
            shared: Arc::new(shared),
            pipeline,
        })
    }

    /// Where it listens, ports filled in.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Addresses that other machines may reach.
    pub fn exposed(&self) -> impl Iterator<Item = &SocketAddr> {
        self.addresses.iter().filter(|address| !address.ip().to_canonical().is_loopback())
    }

    /// What was found at the start.
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// For watching what it does while it runs.
    pub fn activity(&self) -> Activity {
        Activity(Arc::clone(&self.pipeline.tally))
    }

    /// Serves until stopped. `stops` brings requests to stop: the first drains (see [`Config::drain`]), a second one
    /// stops at once.
    ///
    /// # Errors
    /// The pipeline ended by itself, after it had called [`Config::fatal`].
    pub async fn run(self, mut stops: mpsc::Receiver<()>) -> Result<Stopped, ServeError> {
        let Self { drain, listeners, places, closing, shared, pipeline, .. } = self;
        let Running { inbox, dispatcher, stop, drained, mut ended, _watchdog, .. } = pipeline;
        // Ends with the pipeline.
        tokio::spawn(dispatcher.run());
        let mut accepting = JoinSet::new();
        for listener in listeners {
            accepting.spawn(listener::accept(listener, places.clone(), Arc::clone(&shared)));
        }
        drop(shared);
        tokio::select! {
            () = next_stop(&mut stops) => {}
            _ = &mut ended => return Err(ServeError::PipelineEnded),
        }
        tracing::info!("stopping: nothing more is lent, reports are taken for up to {drain:?}");
        let orderly = async {
            // An error here is the pipeline's end, which is noticed below.
            let _ = timeout(drain, wait_for_reports(&inbox, drained, &places)).await;
            closing.send_replace(true);
            let parting = async { while accepting.join_next().await.is_some() {} };
            if timeout(PARTING, parting).await.is_err() {
                tracing::info!("some connections did not close within {PARTING:?} and are dropped");
                accepting.shutdown().await;
            }
        };
        let at_once = tokio::select! {
            () = orderly => false,
            () = next_stop(&mut stops) => true,
            _ = &mut ended => return Err(ServeError::PipelineEnded),
        };
        if at_once {
            stop.store(true, Ordering::Relaxed);
            accepting.abort_all();
        }
        // The last way into the pipeline: when it has done what waits, it ends.
        drop(inbox);
        let patience = if at_once { STOP_AT_ONCE } else { Duration::MAX };
        let all_well = tokio::select! {
            all_well = timeout(patience, &mut ended) => all_well,
            () = next_stop(&mut stops), if !at_once => {
                stop.store(true, Ordering::Relaxed);
                timeout(STOP_AT_ONCE, &mut ended).await
            }
        };
        match all_well {
            Ok(Ok(true)) => Ok(if at_once { Stopped::AtOnce } else { Stopped::Drained }),
            Ok(Ok(false) | Err(_)) => Err(ServeError::PipelineEnded),
            Err(_elapsed) => Ok(Stopped::AtOnce),
        }
    }
}

/// Waits for a request to stop; for ever if nobody can make one any more.
async fn next_stop(stops: &mut mpsc::Receiver<()>) {
    if stops.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Lends nothing more and waits until nothing is lent, or nobody is there to report.
async fn wait_for_reports(inbox: &Inbox, mut drained: watch::Receiver<Drained>, places: &Places) {
    if inbox.drain().is_err() || drained.wait_for(|drained| drained.draining).await.is_err() {
        return;
    }
    while drained.borrow().leases > 0 && !places.are_empty() {
        let _ = timeout(DRAIN_LOOK, drained.changed()).await;
    }
}

fn listen(sockets: Vec<(String, TcpSocket)>) -> Result<(Vec<SocketAddr>, Vec<TcpListener>), StartError> {
    let (mut addresses, mut listeners) = (Vec::new(), Vec::new());
    for (address, socket) in sockets {
        let failed = |source| StartError::Listen { address, source };
        let (bound, listener) =
            listener::listen(socket).and_then(|listener| Ok((listener.local_addr()?, listener))).map_err(failed)?;
        addresses.push(bound);
        listeners.push(listener);
    }
    Ok((addresses, listeners))
}

/// What an open data directory gives the sessions.
struct Opened {
    texts: store::Texts,
    recovered: Recovered,
}

/// Opens the data directory and starts the pipeline on it; blocks.
fn open(config: &Config) -> Result<(Opened, Running), StartError> {
    let system = |what: &str, error: &dyn std::fmt::Display| StartError::System(format!("{what}: {error}"));
    let fault = Fault::from_environment().map_err(StartError::System)?;
    let opening = "opening the data directory";
    let watchdog = Watchdog::over_steps(store::steps, opening, config.bounds.opening, config.fatal.clone())
        .map_err(|error| system("no thread for the watchdog", &error))?;
    let mut fresh_instance = InstanceId::NONE;
    getrandom::fill(&mut fresh_instance.0).map_err(|error| system("no random bytes", &error))?;
    let mut clock = Clock::start();
    let now = clock.look().now;
    let options = coordinator::Options {
        lease_ms: config.lease_ms,
        origin_campaign: config.origin_campaign.clone(),
        ..coordinator::Options::default()
    };
    let store::Opened { mut ledger, texts, coordinator, instance, recovery } =
        store::open(&config.data_dir, HOLDER, fresh_instance, options, now)?;
    ledger.set_pace(config.pace);

    let (inbox, messages) = inbox(config.bounds.inbox);
    let (drained_sender, drained) = watch::channel(Drained::default());
    let (stop, tally, gauge) = (Arc::<AtomicBool>::default(), Arc::<Tally>::default(), CommitGauge::default());
    let (releases, dispatcher) = dispatch();
    let links = Links {
        inbox: messages,
        releases,
        drained: drained_sender,
        stop: Arc::clone(&stop),
        gauge: gauge.clone(),
        tally: Arc::clone(&tally),
        fatal: config.fatal.clone(),
        fault,
        turns: config.turns,
    };
    let committer =
        Committer::start(links.inbox.bell()).map_err(|error| system("no thread for large commits", &error))?;
    let pipeline = Pipeline::boot(coordinator, ledger, clock, committer, links).map_err(StartError::Boot)?;
    let recovered = Recovered { recovery, summary: pipeline.machine().summary(), instance };
    drop(watchdog);
    let watchdog = Watchdog::over_commits(gauge, config.bounds.commit, config.fatal.clone())
        .map_err(|error| system("no thread for the watchdog", &error))?;
    let (end, ended) = oneshot::channel();
    thread::Builder::new()
        .name("tenfold-pipeline".into())
        .spawn(move || {
            let all_well = pipeline.run().is_ok();
            // Sent after the ledger is closed, so that whoever hears of it may open the directory again.
            let _ = end.send(all_well);
        })
        .map_err(|error| system("no thread for the pipeline", &error))?;
    Ok((Opened { texts, recovered }, Running { inbox, dispatcher, tally, stop, drained, ended, _watchdog: watchdog }))
}

impl Machine for Coordinator {
    fn apply_to(&mut self, steps: &mut Step, now: Tick, command: Command) {
        self.apply_to(steps, now, command);
    }

    fn next_deadline(&self) -> Option<Tick> {
        self.next_deadline()
    }

    fn live_leases(&self) -> usize {
        self.summary().leases
    }
}

impl Journal<Coordinator> for Ledger {
    type Error = CommitError;
    type Writing = Writing;

    fn begin(
        &mut self,
        changes: &[Changed],
        texts: &[TextChange],
        machine: &Coordinator,
    ) -> Result<Writing, CommitError> {
        self.begin(changes, texts, machine)
    }

    fn end(&mut self, written: Option<Written>) -> Result<(), CommitError> {
        self.end(written.ok_or(CommitError::Unknown { cause: CommitFailure::Lost })?)
    }
}

impl Write for Writing {
    type Written = Written;

    fn write(self) -> Written {
        self.write()
    }
}
