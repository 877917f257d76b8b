//! Whole states compared by their digests, and whose they are: S14, S16, S17, S18, S19.
//!
//! ```text
//!   dump A ──▶ damaged, upgraded, hostile, recovered again ──▶ dump B      A and B must be equal
//!   dump A ──▶ anything that clients may do ──▶ dump B                     nothing follows
//! ```

use std::collections::BTreeSet;

use super::{Findings, Rule};
use crate::history::{Heard, Instance, Line, Moment, Record};
use crate::rows::Rows;
use crate::world::{Dump, Told, World};

/// What the next dump must equal, and why.
#[derive(Clone, Debug, Default)]
pub(crate) struct States {
    /// The digest of the last dump, unless something was done since.
    last: Option<String>,
    /// Why it must be the next one's, too.
    because: Option<Rule>,
    /// What the program called itself at each start; all of them, and the present one.
    before: BTreeSet<Instance>,
    present: Option<Instance>,
}

impl States {
    /// Looks at a record that the world has taken in.
    pub(crate) fn take(&mut self, world: &World, line: &Line, told: &Told, findings: &mut Findings) {
        match &line.record {
            Record::Damaged { .. } => self.because = Some(Rule::S16),
            Record::Upgraded { .. } => self.because = self.because.or(Some(Rule::S17)),
            Record::Hostile => self.because = self.because.or(Some(Rule::S18)),
            Record::RefusedStart { .. } => {
                if let Some(rule) = self.because.filter(|_| self.last.is_some()) {
                    findings.applied.insert(rule);
                }
            }
            Record::Dumped { digest } => {
                if let Some(dump) = &told.dump {
                    self.dumped(dump, digest, findings);
                }
            }
            // What may change the state. Sessions that merely meet again do not count: no client acts while rules compare.
            Record::Create { .. }
            | Record::Ask { .. }
            | Record::Grant { .. }
            | Record::Send { .. }
            | Record::Closing
            | Record::Closed { .. }
            | Record::OriginOpen { .. }
            | Record::OriginSend { .. }
            | Record::OriginEnd { .. }
            | Record::Expired { .. }
            | Record::Dropped { .. }
            | Record::DroppedSession { .. } => self.last = None,
            Record::NewDirectory => {
                self.last = None;
                self.before.extend(self.present.take());
            }
            Record::Boot { instance } => self.boot(*instance, findings),
            Record::Begin { instance, .. } => self.met(*instance, findings),
            Record::Resumed { instance, .. } => {
                self.met(*instance, findings);
                resumed(world, told, *instance, findings);
            }
            Record::Ack { number, heard } if *heard != Heard::Unknown => {
                mistaken(world, told, *number, findings);
            }
            _ => {}
        }
    }

    fn dumped(&mut self, dump: &Dump, digest: &str, findings: &mut Findings) {
        let because = if dump.moment == Moment::Again { Some(Rule::S14) } else { self.because };
        if let (Some(rule), Some(last)) = (because, &self.last) {
            findings.hold(rule, last == digest, || format!("the state was {last}, now it is {digest}"));
        } else if dump.moment == Moment::Again {
            findings.hold(Rule::Sound, false, || "a dump of the same moment again, without one before it".to_owned());
        }
        self.last = Some(digest.to_owned());
        self.because = None;
    }

    /// A data directory keeps its name, and a new one has a new name.
    fn boot(&mut self, instance: Instance, findings: &mut Findings) {
        let fits = self.present.is_none_or(|present| present == instance) && !self.before.contains(&instance);
        findings
            .hold(Rule::S19, fits, || format!("a start finds data directory {instance}, which is another one's name"));
        self.present = Some(instance);
    }

    /// A client met a data directory.
    fn met(&mut self, instance: Option<Instance>, findings: &mut Findings) {
        let Some(instance) = instance else { return };
        findings.applied.insert(Rule::S19);
        if self.present.is_none() && !self.before.contains(&instance) {
            self.present = Some(instance);
        }
    }
}

/// What a dump holds belongs to its directory.
pub(crate) fn dump(world: &World, dump: &Dump, rows: &Rows<'_>, findings: &mut Findings) {
    for session in rows.sessions.keys() {
        let other = world.sessions.get(session).filter(|book| book.directory != dump.directory);
        if let Some(book) = other {
            findings
                .hold(Rule::S19, false, || format!("session {session} of client {} is of another directory", book.who));
        }
    }
}

/// A session that is found again is of the directory that it began with.
fn resumed(world: &World, told: &Told, instance: Option<Instance>, findings: &mut Findings) {
    let Some((session, book)) = told.session.and_then(|session| Some((session, world.sessions.get(&session)?))) else {
        return;
    };
    let began = world.instances[book.directory];
    let fits = match (instance, began) {
        (Some(met), Some(began)) => met == began,
        _ => true,
    };
    findings.hold(Rule::S19, fits, || format!("session {session} is found again in another data directory"));
}

/// A request of a session of another directory was answered, and was sent when this one was in place.
fn mistaken(world: &World, told: &Told, number: u64, findings: &mut Findings) {
    let Some((session, book)) = told.session.and_then(|session| Some((session, world.sessions.get(&session)?))) else {
        return;
    };
    let Some(request) = book.requests.get(&number) else { return };
    let fits = book.directory == world.directory || request.at < world.directory_since;
    findings.hold(Rule::S19, fits, || {
        format!("request {number} of session {session} is answered by another data directory than the session's")
    });
}
