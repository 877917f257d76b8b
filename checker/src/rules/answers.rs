//! An answer is durable before it leaves, and stays what it is: S4, S5, S9, S15.

use std::collections::BTreeMap;

use super::{Findings, Rule};
use crate::history::{Fate, Heard, Line, Reason, Record, Refused, Session};
use crate::rows::{Rows, refusal};
use crate::world::{Dump, Request, Told, World, refusal_explained};

/// What left the server, and whether it may still speak.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers {
    /// By session: the highest number that was answered, and which of them were refused.
    out: BTreeMap<Session, (u64, BTreeMap<u64, Reason>)>,
    /// Where the first write or sync of the present server process failed.
    failed: Option<usize>,
}

impl Answers {
    /// Looks at a record that the world has taken in.
    pub(crate) fn take(&mut self, world: &World, line: &Line, told: &Told, findings: &mut Findings) {
        match &line.record {
            Record::Out { session, through, refused } => {
                self.nothing_after_failure(findings);
                covered(world, session, *through, findings);
                self.same(world, *session, *through, refused, findings);
            }
            Record::Ack { number, heard } => self.heard(world, told, *number, *heard, findings),
            Record::Again { number, heard } => again(world, told, *number, *heard, findings),
            Record::Fate { number, fate, .. } => asked(world, told, *number, *fate, findings),
            Record::Resumed { through, .. } => resumed(world, told, *through, findings),
            Record::Forgotten { .. } => unknown(world, told, findings),
            Record::DiskFailed => {
                self.failed = self.failed.or(Some(line.at));
                // Where answers are seen to leave, their absence from here on is the proof.
                if !self.out.is_empty() {
                    findings.applied.insert(Rule::S15);
                }
            }
            Record::EndedServer { code } if self.failed.take().is_some() => {
                findings.hold(Rule::S15, *code != Some(0), || {
                    "the server ended as if all was well after its disk had failed".to_owned()
                });
            }
            Record::KilledServer | Record::PowerCut { .. } | Record::Boot { .. } => self.failed = None,
            _ => {}
        }
    }

    fn nothing_after_failure(&self, findings: &mut Findings) {
        if let Some(at) = self.failed {
            findings.hold(Rule::S15, false, || format!("an answer leaves after the disk failed at {at}"));
        }
    }

    /// A request that was answered is answered the same: refused for the same reason until its client has read it.
    fn same(&mut self, world: &World, session: Session, through: u64, refused: &[Refused], findings: &mut Findings) {
        let (answered, reasons) = self.out.entry(session).or_default();
        for (number, before) in reasons.iter().filter(|(number, _)| **number <= through) {
            let now = refusal(refused, *number);
            let read = now.is_none() && heard_by_client(world, &session, *number);
            findings.hold(Rule::S5, now == Some(*before) || read, || {
                format!("request {number} of session {session} was refused as {before}, now it is {}", said(now))
            });
        }
        for stretch in refused {
            for number in stretch.from..=stretch.to.min(through) {
                let new = number > *answered || reasons.contains_key(&number);
                findings.hold(Rule::S5, new, || {
                    format!(
                        "request {number} of session {session} was counted, now it is refused as {}",
                        stretch.reason
                    )
                });
                reasons.entry(number).or_insert(stretch.reason);
            }
        }
        *answered = (*answered).max(through);
        findings.applied.insert(Rule::S5);
    }

    /// A client read an answer for the first time.
    fn heard(&self, world: &World, told: &Told, number: u64, heard: Heard, findings: &mut Findings) {
        let Some(session) = told.session else { return };
        let Some(request) = request(world, &session, number) else { return };
        if let Some(at) = self.failed.filter(|failed| request.at > *failed) {
            findings.hold(Rule::S15, false, || {
                format!("request {number} was sent after the disk failed at {at}, and is answered")
            });
        }
        match heard {
            Heard::Unknown => unknown(world, told, findings),
            Heard::Counted | Heard::Refused { .. } => {
                // Where answers are not seen to leave, what was read must have left.
                if !self.out.contains_key(&session) {
                    covered(world, &session, number, findings);
                }
                explained(world, &session, number, request, heard, findings);
            }
        }
        let Some((_, reasons)) = self.out.get(&session).filter(|(answered, _)| number <= *answered) else { return };
        let said_then = reasons.get(&number).map_or(Heard::Counted, |reason| Heard::Refused { reason: *reason });
        findings.hold(Rule::S5, heard == said_then || heard == Heard::Unknown, || {
            format!("request {number} of session {session} was answered {said_then}, and heard as {heard}")
        });
    }
}

/// What a dump says of requests that were answered.
pub(crate) fn dump(world: &World, dump: &Dump, rows: &Rows<'_>, findings: &mut Findings) {
    for (session, row) in &rows.sessions {
        let Some(book) = world.sessions.get(session).filter(|book| book.directory == dump.directory) else { continue };
        for (number, request) in book.requests.range(row.confirmed + 1..=row.through.max(row.confirmed + 1)) {
            if *number > row.through {
                continue;
            }
            let stored = row.refusal(*number);
            let answer = match request.answer {
                Some(Heard::Counted) => Some(None),
                Some(Heard::Refused { reason }) => Some(Some(reason)),
                Some(Heard::Unknown) | None => None,
            };
            if let Some(answer) = answer {
                findings.hold(Rule::S5, answer == stored, || {
                    format!(
                        "request {number} of session {session} was {}, it is stored as {}",
                        said(answer),
                        said(stored)
                    )
                });
            } else if let Some(reason) = stored {
                explained(world, session, *number, request, Heard::Refused { reason }, findings);
            }
        }
    }
}

/// Only what a sync has covered may be said.
fn covered(world: &World, session: &Session, through: u64, findings: &mut Findings) {
    if world.durable.is_empty() || through == 0 {
        return;
    }
    let durable = world.durable.get(session).copied().unwrap_or_default();
    findings.hold(Rule::S4, through <= durable, || {
        format!("session {session} is answered through {through}, only {durable} are durable")
    });
}

fn request<'a>(world: &'a World, session: &Session, number: u64) -> Option<&'a Request> {
    world.sessions.get(session)?.requests.get(&number)
}

fn heard_by_client(world: &World, session: &Session, number: u64) -> bool {
    // Of what is not in the history nobody can tell.
    request(world, session, number).is_none_or(|request| request.answer.is_some())
}

fn said(refusal: Option<Reason>) -> String {
    refusal.map_or_else(|| "counted".to_owned(), |reason| format!("refused as {reason}"))
}

/// A session is not known: it must have been forgotten, or belong to another data directory.
fn unknown(world: &World, told: &Told, findings: &mut Findings) {
    let Some((session, book)) = told.session.and_then(|session| Some((session, world.sessions.get(&session)?))) else {
        return;
    };
    let known = book.directory == world.directory && !world.forgettable(&session) && book.closing.is_none();
    findings.hold(Rule::S5, !known, || format!("session {session} of client {} was forgotten", book.who));
}

/// An answer was heard again.
fn again(world: &World, told: &Told, number: u64, heard: Heard, findings: &mut Findings) {
    let Some(session) = told.session else { return };
    let before = request(world, &session, number).and_then(|request| request.answer);
    if heard == Heard::Unknown && before != Some(Heard::Unknown) {
        unknown(world, told, findings);
        return;
    }
    findings.hold(Rule::S5, before.is_none_or(|before| before == heard), || {
        let before = before.map_or_else(String::new, |before| before.to_string());
        format!("request {number} of session {session} was answered {before}, and then {heard}")
    });
}

/// The server was asked what became of a request.
fn asked(world: &World, told: &Told, number: u64, fate: Fate, findings: &mut Findings) {
    let Some(session) = told.session else { return };
    if fate == Fate::UnknownSession {
        if world.sessions.contains_key(&session) {
            unknown(world, told, findings);
        }
        return;
    }
    let Some(request) = request(world, &session, number) else { return };
    let fits = match (request.answer, fate) {
        (None | Some(Heard::Unknown), _) | (Some(_), Fate::Confirmed) | (Some(Heard::Counted), Fate::Counted) => true,
        (Some(Heard::Refused { reason }), Fate::Refused { reason: now }) => reason == now,
        (Some(_), _) => false,
    };
    findings.hold(Rule::S5, fits, || format!("request {number} of session {session} is answered, its fate is {fate}"));
    if let (None, Fate::Refused { reason }) = (request.answer, fate) {
        explained(world, &session, number, request, Heard::Refused { reason }, findings);
    }
}

/// A session was found again: what it had read is still processed.
fn resumed(world: &World, told: &Told, through: u64, findings: &mut Findings) {
    let Some((session, book)) = told.session.and_then(|session| Some((session, world.sessions.get(&session)?))) else {
        return;
    };
    let acked = book.acked.now();
    findings.hold(Rule::S5, acked <= through, || {
        format!("session {session} has an answer to {acked}, and finds only {through} processed")
    });
}

/// The fate of a request is a documented one.
fn explained(world: &World, session: &Session, number: u64, request: &Request, heard: Heard, findings: &mut Findings) {
    let fits = match heard {
        Heard::Counted => request.proper,
        Heard::Refused { reason } => refusal_explained(world, session, request, reason),
        Heard::Unknown => true,
    };
    findings.hold(Rule::S9, fits, || {
        let late = if request.late { ", late," } else { "" };
        format!("request {number} of session {session}{late} ({} of lease {}) is {heard}", request.what, request.lease)
    });
}
