//! The client's front: what a worker starts, takes leases from, watches and closes.
//!
//! The work is done by a thread of its own (`session`), so that leases are kept alive while the caller computes, and by
//! the book that both share (`shared`). Tested in `tests/client_session.rs`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::shared::Shared;
use super::{Closed, FAR, Lease, State, Stopped, random, session};
use crate::limits;
use crate::types::{SessionId, Want};

/// How long a client that is dropped tries to take its leave.
const DROP_GRACE: Duration = Duration::from_secs(1);

/// How a client works.
#[derive(Clone, Debug)]
pub struct Config {
    /// `HOST:PORT` or `HOST` each (then the port is [`limits::PORT`]), tried in turn.
    pub servers: Vec<String>,
    /// For people, commonly `HOST:PID`; cut to [`limits::SESSION_NAME_BYTES_MAX`] bytes. Default: empty.
    pub name: String,
    /// What to hold. Default: one lease of one run, from any campaign.
    pub want: Want,
    /// Whether leases end ([`Client::next_lease`] is `None`) when all that is wanted is settled. Default: no.
    pub until_done: bool,
    /// Up to this long is the first wait before trying again; it doubles. Default: 100 ms.
    pub backoff_first: Duration,
    /// No wait is longer. Default: 10 s.
    pub backoff_cap: Duration,
    /// A connection on which nothing is heard for this long is given up. Default: [`limits::NATIVE_IDLE_MS`].
    pub silence: Duration,
}

impl Config {
    /// The defaults, for these servers.
    pub fn new(servers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            servers: servers.into_iter().map(Into::into).collect(),
            name: String::new(),
            want: Want { leases: 1, runs: 1, campaigns: Vec::new() },
            until_done: false,
            backoff_first: Duration::from_millis(100),
            backoff_cap: Duration::from_secs(10),
            silence: Duration::from_millis(limits::NATIVE_IDLE_MS),
        }
    }
}

/// Why a client cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No servers were given.
    #[error("no server was given")]
    NoServers,
    /// The system gave no random bytes for the session's id.
    #[error("no random numbers for the session's id: {0}")]
    Random(String),
    /// More campaigns, or longer names, than a session may want.
    #[error(
        "at most {} campaigns may be named, by at most {} bytes each",
        limits::WANTED_CAMPAIGNS_MAX,
        limits::NAME_BYTES_MAX
    )]
    Want,
    /// The client's thread cannot be started.
    #[error("the client's thread cannot be started: {0}")]
    Thread(#[source] io::Error),
}

/// A session with a coordinator, kept by a thread of its own: over lost connections and restarts of the server of any
/// length, until it is closed. Dropping it closes it without waiting.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// Starts; returns at once and connects in the background, for ever. [`Client::watch`] tells how it goes.
    ///
    /// # Errors
    /// See [`StartError`]. That no server can be reached is none.
    pub fn start(mut config: Config) -> Result<Self, StartError> {
        if config.servers.is_empty() {
            return Err(StartError::NoServers);
        }
        check_want(&config.want)?;
        config.silence = config.silence.min(FAR);
        config.name.truncate(config.name.floor_char_boundary(limits::SESSION_NAME_BYTES_MAX));
        let session = random::id().map_err(|error| StartError::Random(error.to_string()))?;
        let shared = Arc::new(Shared::new(SessionId(session), config.want.clone(), config.until_done));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
        let thread = Thread { shared: Arc::clone(&shared), config };
        std::thread::Builder::new()
            .name("tenfold-client".to_owned())
            .spawn(move || {
                runtime.block_on(session::run(&thread.shared, &thread.config));
                // A name that is still being looked up must not hold the end up.
                runtime.shutdown_background();
            })
            .map_err(StartError::Thread)?;
        Ok(Self { shared })
    }

    /// The session's id. It changes if the server forgets the session; [`Lease::session`] and
    /// [`super::Answer::session`] tell to which one something belongs.
    pub fn session(&self) -> SessionId {
        self.shared.lock().inflight.session()
    }

    /// The next lease, as soon as there is one.
    ///
    /// `None`: there is none to wait for. The client was closed or has stopped ([`Client::watch`] says why), or all that
    /// it wants is settled and its reports are answered (only with [`Config::until_done`]). May be cancelled, and called
    /// by several tasks at once.
    pub async fn next_lease(&self) -> Option<Lease> {
        self.shared.next_lease().await
    }

    /// The leases, for another task to take.
    pub fn leases(&self) -> Leases {
        Leases { shared: Arc::clone(&self.shared) }
    }

    /// Changes what to hold. Leases beyond it are kept until they are reported or released. Campaigns beyond
    /// [`limits::WANTED_CAMPAIGNS_MAX`] are left out.
    pub fn set_want(&self, mut want: Want) {
        want.campaigns.retain(|name| name.len() <= limits::NAME_BYTES_MAX);
        want.campaigns.truncate(limits::WANTED_CAMPAIGNS_MAX);
        self.shared.set_want(want);
    }

    /// Shows how the client stands, now and whenever it changes.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.shared.watch()
    }

    /// Ends the session: takes no more leases, gives back those that were not taken from the client, waits up to `grace`
    /// for the answers to what was reported, and says goodbye.
    ///
    /// Leases that the caller still holds end with the goodbye; report them before. If something stays unanswered there
    /// is no goodbye, so that the server still knows what became of it; then leases end by their length.
    pub async fn close(self, grace: Duration) -> Closed {
        self.shared.close(grace);
        self.shared.ended.wait().await.clone()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Does nothing after `close`: the first wish counts.
        self.shared.close(DROP_GRACE);
    }
}

/// The leases of a [`Client`] as they come. Ends with the client.
#[derive(Clone, Debug)]
pub struct Leases {
    shared: Arc<Shared>,
}

impl Leases {
    /// The next lease, as [`Client::next_lease`].
    pub async fn next(&mut self) -> Option<Lease> {
        self.shared.next_lease().await
    }
}

fn check_want(want: &Want) -> Result<(), StartError> {
    let fits = want.campaigns.len() <= limits::WANTED_CAMPAIGNS_MAX
        && want.campaigns.iter().all(|name| name.len() <= limits::NAME_BYTES_MAX);
    if fits { Ok(()) } else { Err(StartError::Want) }
}

/// What the client's thread owns. However the thread ends, nobody waits for it any more.
struct Thread {
    shared: Arc<Shared>,
    config: Config,
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.shared.stop(Stopped::Crashed, false);
    }
}
