//! What clients did and saw, as notes in the log of the disk, and what follows from a beginning of it.
//!
//! A note of what somebody is about to do is written before it, one of what somebody has seen after it. So wherever a
//! log is cut: what had been seen is in the part before the cut, and what may be on the disk had been announced there.

use std::collections::BTreeMap;
use std::fmt;

use tenfold::types::{RefusalReason, SessionId};
use tenfold_checker::history::{Record, Who};

/// Something a client, or the test itself, did or saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// The run enters another part; for the table.
    Phase(&'static str),
    /// A server answers; its data directory is this one.
    Ready { instance: String },
    /// A campaign is about to be asked for.
    Creating { campaign: Campaign },
    /// It was said to exist.
    Created { name: String },
    /// Its removal is about to be asked for.
    Removing { name: String },
    /// It was said to be gone.
    Removed { name: String },
    /// A client may be lent something in this session from now on.
    Begin { session: SessionId },
    /// A client took a lease.
    Grant { session: SessionId, lease: u64, grant: Grant },
    /// A request is about to be sent.
    Send { session: SessionId, number: u64, request: Request },
    /// An answer was read.
    Ack { session: SessionId, number: u64, heard: Heard },
    /// A client is about to take its leave; what it had not reported goes back.
    Closing { session: SessionId },
    /// What only the checker asks for, in its words, with whom it calls the writer.
    Told { who: Who, record: Record },
}

/// A campaign of the run. Its leases outlive every run, so none is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Campaign {
    pub(crate) name: String,
    pub(crate) tasks: u32,
    pub(crate) quota: u32,
    pub(crate) numbered: bool,
    pub(crate) keyed: bool,
}

/// What a lease is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) campaign: String,
    pub(crate) task: u32,
    pub(crate) first: u32,
    pub(crate) runs: u32,
}

/// A request of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) lease: u64,
    pub(crate) what: Sent,
}

/// What a client says of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// So many runs are done.
    Done(u32),
    /// By run of the lease.
    Mixed { done: u64, failed: u64 },
    /// It is given back.
    Release,
}

impl Sent {
    /// How much it adds to the task's counts if it is taken.
    pub(crate) fn units(self) -> u64 {
        match self {
            Self::Done(runs) => u64::from(runs),
            Self::Mixed { done, .. } => u64::from(done.count_ones()),
            Self::Release => 0,
        }
    }
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Counted,
    Refused(RefusalReason),
    Unknown,
}

/// How far a campaign has come, as its notes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// It may be there.
    Creating,
    /// It is there.
    Created,
    /// It may be gone.
    Removing,
    /// It is gone.
    Removed,
}

/// All that follows from the notes so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Story {
    pub(crate) phase: &'static str,
    /// A server had answered, so the data directory is complete: which one.
    pub(crate) instance: Option<String>,
    pub(crate) campaigns: BTreeMap<String, (Campaign, Stage)>,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
}

/// What one client did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    pub(crate) leases: BTreeMap<u64, Grant>,
    pub(crate) sent: BTreeMap<u64, Request>,
    pub(crate) heard: BTreeMap<u64, Heard>,
    pub(crate) closing: bool,
}

impl Story {
    /// Takes one more note into account.
    pub(crate) fn hear(&mut self, note: &Note) {
        match note {
            Note::Phase(phase) => self.phase = phase,
            Note::Ready { instance } => self.instance = Some(instance.clone()),
            Note::Creating { campaign } => {
                self.campaigns.insert(campaign.name.clone(), (campaign.clone(), Stage::Creating));
            }
            Note::Created { name } => self.reached(name, Stage::Created),
            Note::Removing { name } => self.reached(name, Stage::Removing),
            Note::Removed { name } => self.reached(name, Stage::Removed),
            Note::Begin { session } => {
                self.session(*session);
            }
            Note::Grant { session, lease, grant } => {
                self.session(*session).leases.insert(*lease, grant.clone());
            }
            Note::Send { session, number, request } => {
                self.session(*session).sent.insert(*number, *request);
            }
            Note::Ack { session, number, heard } => {
                self.session(*session).heard.insert(*number, *heard);
            }
            Note::Closing { session } => self.session(*session).closing = true,
            Note::Told { .. } => {}
        }
    }

    fn reached(&mut self, name: &str, stage: Stage) {
        if let Some((_, reached)) = self.campaigns.get_mut(name) {
            *reached = stage;
        }
    }

    fn session(&mut self, id: SessionId) -> &mut Session {
        self.sessions.entry(id).or_default()
    }

    /// How many answers were read.
    pub(crate) fn answers(&self) -> usize {
        self.sessions.values().map(|session| session.heard.len()).sum()
    }
}

impl fmt::Display for Story {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "phase {}, instance {:?}", self.phase, self.instance)?;
        for (campaign, stage) in self.campaigns.values() {
            writeln!(out, "{campaign:?} {stage:?}")?;
        }
        for (id, session) in &self.sessions {
            writeln!(out, "session {id}, closing {}", session.closing)?;
            for (lease, grant) in &session.leases {
                writeln!(out, "  lease {lease} {grant:?}")?;
            }
            for (number, request) in &session.sent {
                writeln!(out, "  {number} {request:?} {:?}", session.heard.get(number))?;
            }
        }
        Ok(())
    }
}
