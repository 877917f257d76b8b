//! Questions and orders outside of a session: create, look, pause, remove.
//!
//! ```text
//!  ask ──▶ a connection, kept from the last call or dialled ──▶ request ──▶ answer
//!   ▲                                                              │
//!   └── wait (exponential, full jitter), the next server ◀── lost ─┘
//! ```
//!
//! **Invariants.** Everything may be sent twice and happens once: orders are absolute, and a creation has an id. So a
//! lost answer is simply asked for again. Deliberately absent: any state that outlives a call but the connection.
//! Tested in `tests/client_control.rs` against a scripted server.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::backoff::Backoff;
use super::link::{Link, LinkError};
use super::{FAR, random};
use crate::limits;
use crate::protocol::messages::{ClientMessage, ServerMessage, WireAnswer, WireClosing, WireControl, WireFailure};
use crate::types::{CampaignId, CampaignSpec, CampaignStatus, CreationId, RequestFate, SessionId, TaskCount};

/// The first wait before asking again is up to this long.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);

/// No wait before asking again is longer.
const BACKOFF_CAP: Duration = Duration::from_secs(2);

/// How often a creation may be set back by a server that forgot parts of it.
const SETBACKS_MAX: u32 = 100;

/// Why a question or order failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlFailure {
    /// No server answered while patience lasted. An order may or may not have been carried out; giving it again does no
    /// harm.
    #[error("no server answers at {}: {last}", servers.join(", "))]
    Unreachable {
        /// The addresses that were tried.
        servers: Vec<String>,
        /// Why the last attempt failed.
        last: String,
    },
    /// The server did not do it. Nothing has changed.
    #[error("{text}")]
    Failed {
        /// Why: machine-readable.
        code: WireFailure,
        /// Why: for a person.
        text: String,
        /// Which key, if it is about one; else 0.
        index: u32,
    },
    /// Client and server do not understand each other; asking again will not help.
    #[error("{0}")]
    Protocol(String),
}

/// A created campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its id.
    pub campaign: CampaignId,
    /// Whether the very same creation was complete before this call.
    pub existed: bool,
}

/// Counts of consecutive tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountsPage {
    /// Number of the campaign's first task.
    pub first: u64,
    /// Quota.
    pub runs: u32,
    /// Keys (in campaigns that have keys) and counts, in order of the tasks.
    pub tasks: Vec<(Option<String>, TaskCount)>,
    /// The index to go on from, if there are more.
    pub next: Option<u32>,
}

/// Asks and orders. One call at a time is on the wire; others wait for their turn.
#[derive(Debug)]
pub struct Control {
    servers: Vec<String>,
    patience: Duration,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    link: Option<Link>,
    /// Index of the server that is asked next.
    server: usize,
    /// The last id of a request.
    id: u32,
}

/// Why one attempt brought no answer.
#[derive(Debug)]
enum Missed {
    /// Another may.
    Retry(String),
    /// None will.
    Final(String),
}

impl From<LinkError> for Missed {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Version { .. } | LinkError::Decode(_) | LinkError::Frame(_) | LinkError::Encode(_) => {
                Self::Final(error.to_string())
            }
            LinkError::Connect(_)
            | LinkError::TooSlow(_)
            | LinkError::NotNative
            | LinkError::Broken(_)
            | LinkError::Ended
            | LinkError::Silent(_)
            | LinkError::Stalled(_) => Self::Retry(error.to_string()),
        }
    }
}

impl Control {
    /// For these servers (`HOST:PORT` or `HOST` each). A call tries again until nothing was heard from any of them for
    /// `patience`.
    pub fn new(servers: Vec<String>, patience: Duration) -> Self {
        let patience = patience.min(FAR);
        Self { servers, patience, line: Mutex::new(Line::default()) }
    }

    /// Creates a campaign, with `keys` if its tasks have some; complete and running when it returns.
    ///
    /// The same `creation` again, with the same settings, is the same campaign: so a creation that was interrupted is
    /// taken up again, and one that is complete is found to be so.
    ///
    /// # Errors
    /// [`WireFailure::Exists`] if another creation has the name; [`WireFailure::Spec`], [`WireFailure::KeyBad`] and
    /// [`WireFailure::KeyTwice`] if something in it is wrong. See [`ControlFailure`] for the others.
    pub async fn create(
        &self,
        creation: CreationId,
        spec: &CampaignSpec,
        keys: &[String],
    ) -> Result<Created, ControlFailure> {
        let CreationId(creation) = creation;
        let (mut setbacks, mut known_new) = (0, false);
        loop {
            let begin = WireControl::Create { creation, spec: Box::new(spec.clone().into()) };
            let (answer, sent) = self.ask(&begin).await?;
            let begun = progress(answer)?;
            // If an earlier copy of our own may have arrived, "it existed" says nothing.
            known_new |= sent > 1 || !begun.existed;
            if begun.sealed {
                return Ok(Created { campaign: begun.campaign, existed: !known_new });
            }
            let mut added = begun.added;
            let setback = loop {
                let next = match chunk(keys, added)? {
                    [] => WireControl::Seal { creation },
                    keys => WireControl::AddKeys { creation, from: added, keys: keys.to_vec() },
                };
                match progress(self.ask(&next).await?.0) {
                    Ok(done) if done.sealed => return Ok(Created { campaign: done.campaign, existed: false }),
                    Ok(more) if more.added > added => added = more.added,
                    Ok(_) => {
                        return Err(ControlFailure::Protocol("the server took keys, but has no more of them".into()));
                    }
                    Err(ControlFailure::Failed { code: WireFailure::KeysOutOfOrder, index, text }) => {
                        added = index;
                        setbacks += 1;
                        if setbacks > SETBACKS_MAX {
                            break ControlFailure::Failed { code: WireFailure::KeysOutOfOrder, index, text };
                        }
                    }
                    Err(failure) => break failure,
                }
            };
            // The server restarted in between and dropped what was not complete: begin again.
            setbacks += 1;
            let forgotten = matches!(
                setback,
                ControlFailure::Failed { code: WireFailure::CreationUnknown | WireFailure::KeysMissing, .. }
            );
            if !forgotten || setbacks > SETBACKS_MAX {
                return Err(setback);
            }
        }
    }

    /// Campaigns and their counts, in order of their ids: one by its name, or all.
    ///
    /// # Errors
    /// [`WireFailure::NotFound`] if there is none of this name. See [`ControlFailure`].
    pub async fn status(&self, name: Option<&str>) -> Result<Vec<CampaignStatus>, ControlFailure> {
        let mut all = Vec::new();
        let mut from = Some(0);
        while let Some(first) = from {
            let answer = self.ask(&WireControl::Status { campaign: name.map(str::to_owned), from: first }).await?.0;
            let WireAnswer::Status { campaigns, next } = answer else { return Err(unexpected(answer)) };
            all.extend(campaigns.into_iter().map(CampaignStatus::from));
            from = going_on(first, next)?;
        }
        Ok(all)
    }

    /// Counts of at most [`limits::COUNTS_PER_ANSWER_MAX`] tasks from the one with index `from` on; all durable.
    ///
    /// # Errors
    /// [`WireFailure::NotFound`] if there is no such campaign. See [`ControlFailure`].
    pub async fn counts_page(&self, name: &str, from: u32) -> Result<CountsPage, ControlFailure> {
        let question = WireControl::Counts { campaign: name.to_owned(), from, limit: limits::COUNTS_PER_ANSWER_MAX };
        let answer = self.ask(&question).await?.0;
        let WireAnswer::Counts { first, runs, tasks, next } = answer else { return Err(unexpected(answer)) };
        let tasks = tasks.into_iter().map(<(Option<String>, TaskCount)>::from).collect();
        Ok(CountsPage { first, runs, tasks, next: going_on(from, next)? })
    }

    /// Lends nothing until resumed; outstanding reports count.
    ///
    /// # Errors
    /// [`WireFailure::NotFound`], [`WireFailure::State`]. See [`ControlFailure`].
    pub async fn pause(&self, name: &str) -> Result<u64, ControlFailure> {
        self.order(&WireControl::Pause { campaign: name.to_owned() }).await
    }

    /// Lends again.
    ///
    /// # Errors
    /// [`WireFailure::NotFound`], [`WireFailure::State`]. See [`ControlFailure`].
    pub async fn resume(&self, name: &str) -> Result<u64, ControlFailure> {
        self.order(&WireControl::Resume { campaign: name.to_owned() }).await
    }

    /// Lends nothing any more; outstanding reports count.
    ///
    /// # Errors
    /// [`WireFailure::NotFound`], [`WireFailure::State`]. See [`ControlFailure`].
    pub async fn cancel(&self, name: &str) -> Result<u64, ControlFailure> {
        self.order(&WireControl::Cancel { campaign: name.to_owned() }).await
    }

    /// Removes a campaign that is settled, cancelled or paused, with all its counts.
    ///
    /// Asked again after a lost answer it may say [`WireFailure::NotFound`]; that counts as done here.
    ///
    /// # Errors
    /// [`WireFailure::NotFound`], [`WireFailure::State`]. See [`ControlFailure`].
    pub async fn remove(&self, name: &str) -> Result<u64, ControlFailure> {
        let (answer, sent) = self.ask(&WireControl::Remove { campaign: name.to_owned() }).await?;
        match done(answer) {
            Err(ControlFailure::Failed { code: WireFailure::NotFound, .. }) if sent > 1 => Ok(0),
            outcome => outcome,
        }
    }

    /// Opens all quarantined tasks again with fresh budgets; how many.
    ///
    /// # Errors
    /// [`WireFailure::NotFound`], [`WireFailure::State`]. See [`ControlFailure`].
    pub async fn requeue(&self, name: &str) -> Result<u64, ControlFailure> {
        self.order(&WireControl::Requeue { campaign: name.to_owned() }).await
    }

    /// What became of one request of a session.
    ///
    /// # Errors
    /// See [`ControlFailure`].
    pub async fn fate(&self, session: SessionId, number: u64) -> Result<RequestFate, ControlFailure> {
        let answer = self.ask(&WireControl::Fate { session: session.0, number }).await?.0;
        let WireAnswer::Fate(fate) = answer else { return Err(unexpected(answer)) };
        Ok(fate.into())
    }

    async fn order(&self, request: &WireControl) -> Result<u64, ControlFailure> {
        done(self.ask(request).await?.0)
    }

    /// Asks until there is an answer; with it, how often the request was sent.
    async fn ask(&self, request: &WireControl) -> Result<(WireAnswer, u32), ControlFailure> {
        let mut line = self.line.lock().await;
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_CAP);
        let mut deadline = Instant::now() + self.patience;
        let mut sent = 0;
        let mut last = "no server was given".to_owned();
        while !self.servers.is_empty() {
            // A kept connection may have been closed meanwhile, which says nothing about the server.
            let kept = line.link.is_some();
            // What was not kept to the end of this attempt is not kept at all.
            let link = line.link.take();
            line.id = line.id.wrapping_add(1);
            let server = &self.servers[line.server % self.servers.len()];
            let attempt = Attempt { server, patience: self.patience, id: line.id, request };
            match attempt.run(link, &mut deadline, &mut sent).await {
                // A server that is shutting down will be back, or another takes over.
                Ok((WireAnswer::Failed { code: WireFailure::Draining, text, .. }, _)) | Err(Missed::Retry(text)) => {
                    last = text;
                }
                Ok((answer, link)) => {
                    line.link = Some(link);
                    return Ok((answer, sent));
                }
                Err(Missed::Final(text)) => return Err(ControlFailure::Protocol(text)),
            }
            if kept {
                continue;
            }
            line.server += 1;
            let pause = backoff.next_wait(random::number());
            if Instant::now() + pause >= deadline {
                break;
            }
            sleep(pause).await;
        }
        Err(ControlFailure::Unreachable { servers: self.servers.clone(), last })
    }
}

/// One request over one connection.
struct Attempt<'ask> {
    server: &'ask str,
    patience: Duration,
    id: u32,
    request: &'ask WireControl,
}

impl Attempt<'_> {
    /// The answer, and the connection for the next request. Every sign of life moves the deadline.
    async fn run(
        self,
        link: Option<Link>,
        deadline: &mut Instant,
        sent: &mut u32,
    ) -> Result<(WireAnswer, Link), Missed> {
        let mut link = match link {
            Some(link) => link,
            None => self.dial(*deadline).await?,
        };
        let message = ClientMessage::Control { id: self.id, request: self.request.clone() };
        link.send(&message)?;
        *sent += 1;
        let pause = Duration::from_millis(limits::HEARTBEAT_MS);
        let mut heartbeat = Instant::now() + pause;
        loop {
            tokio::select! {
                message = link.next() => {
                    *deadline = Instant::now() + self.patience;
                    match message? {
                        ServerMessage::Control { id, answer } if id == self.id => return Ok((answer, link)),
                        // An answer to a call that was given up; the welcome; a sign of life.
                        ServerMessage::Control { .. } | ServerMessage::Welcome { .. } | ServerMessage::Heartbeat => {}
                        ServerMessage::Closing { code, text } => return Err(closing(code, text)),
                        ServerMessage::UnknownSession { .. }
                        | ServerMessage::Grants { .. }
                        | ServerMessage::Answers { .. }
                        | ServerMessage::Lost { .. }
                        | ServerMessage::Idle(_) => {
                            return Err(Missed::Final("the server speaks of a session where there is none".into()));
                        }
                    }
                }
                () = sleep_until(heartbeat) => {
                    link.send(&ClientMessage::Heartbeat { confirmed: 0 })?;
                    heartbeat = Instant::now() + pause;
                }
                () = sleep_until(*deadline) => return Err(Missed::Retry("no answer in time".into())),
            }
        }
    }

    async fn dial(&self, deadline: Instant) -> Result<Link, Missed> {
        let silence = Duration::from_millis(limits::NATIVE_IDLE_MS);
        let dialled = timeout_at(deadline, Link::dial(self.server, silence)).await;
        let mut link = dialled.unwrap_or(Err(LinkError::TooSlow(self.patience)))?;
        link.send(&ClientMessage::Hello { token: String::new(), session: None })?;
        Ok(link)
    }
}

fn closing(code: WireClosing, text: String) -> Missed {
    match code {
        WireClosing::Protocol => Missed::Final(text),
        WireClosing::Goodbye
        | WireClosing::Superseded
        | WireClosing::Busy
        | WireClosing::Shutdown
        | WireClosing::Reconnect => Missed::Retry(text),
    }
}

/// How far a creation is.
struct Progress {
    campaign: CampaignId,
    added: u32,
    sealed: bool,
    existed: bool,
}

fn progress(answer: WireAnswer) -> Result<Progress, ControlFailure> {
    let WireAnswer::Creation { campaign, added, sealed, existed } = answer else { return Err(unexpected(answer)) };
    Ok(Progress { campaign: CampaignId(campaign), added, sealed, existed })
}

fn done(answer: WireAnswer) -> Result<u64, ControlFailure> {
    let WireAnswer::Done { tasks } = answer else { return Err(unexpected(answer)) };
    Ok(tasks)
}

/// The failure that an answer is, or that it is the wrong one.
fn unexpected(answer: WireAnswer) -> ControlFailure {
    let kind = match answer {
        WireAnswer::Failed { code, text, index } => return ControlFailure::Failed { code, text, index },
        WireAnswer::Creation { .. } => "a creation",
        WireAnswer::Status { .. } => "campaigns",
        WireAnswer::Counts { .. } => "counts",
        WireAnswer::Done { .. } => "a confirmation",
        WireAnswer::Fate(_) => "the fate of a request",
    };
    ControlFailure::Protocol(format!("the server answered with {kind} to a question about something else"))
}

/// Where the next page begins; pages must get on.
fn going_on(from: u32, next: Option<u32>) -> Result<Option<u32>, ControlFailure> {
    match next {
        Some(next) if next <= from => Err(ControlFailure::Protocol("the server's pages go in circles".into())),
        Some(_) | None => Ok(next),
    }
}

/// The keys that fit one message, from the one with index `from` on; none if all are added.
fn chunk(keys: &[String], from: u32) -> Result<&[String], ControlFailure> {
    let rest = keys.get(from as usize..).unwrap_or(&[]);
    let mut bytes = 0;
    let mut count = 0;
    for key in rest.iter().take(limits::ADD_KEYS_MAX) {
        bytes += key.len();
        if bytes > limits::ADD_BYTES_MAX {
            break;
        }
        count += 1;
    }
    if count == 0 && !rest.is_empty() {
        let text = format!("key {from} is longer than {} bytes", limits::KEY_BYTES_MAX);
        return Err(ControlFailure::Failed { code: WireFailure::KeyBad, text, index: from });
    }
    Ok(&rest[..count])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_keep_to_both_limits_and_cover_everything() {
        let chunks = |keys: &[String]| {
            let mut sizes = Vec::new();
            let mut from = 0;
            loop {
                let chunk = chunk(keys, from).unwrap();
                if chunk.is_empty() {
                    return sizes;
                }
                assert!(chunk.iter().map(String::len).sum::<usize>() <= limits::ADD_BYTES_MAX);
                assert_eq!(chunk[0], keys[from as usize]);
                sizes.push(chunk.len());
                from += u32::try_from(chunk.len()).unwrap();
            }
        };
        let short: Vec<String> = (0..10_000).map(|number| format!("{number}")).collect();
        assert_eq!(chunks(&short), [4096, 4096, 1808]);
        let long = vec!["k".repeat(1_000); 600];
        assert_eq!(chunks(&long), [262, 262, 76]);
        assert_eq!(chunks(&[]), [0_usize; 0]);
        assert_eq!(chunk(&short, 10_000), Ok(&[][..]));
        assert_eq!(chunk(&short, u32::MAX), Ok(&[][..]));
        let huge = ["k".repeat(limits::ADD_BYTES_MAX + 1)];
        assert!(matches!(chunk(&huge, 0), Err(ControlFailure::Failed { code: WireFailure::KeyBad, index: 0, .. })));
    }

    #[test]
    fn pages_must_get_on() {
        assert_eq!(going_on(3, Some(4)), Ok(Some(4)));
        assert_eq!(going_on(3, None), Ok(None));
        assert!(going_on(3, Some(3)).is_err());
    }
}
