//! Nothing stays stuck once faults stop: L1 to L6.
//!
//! Times are those of the last `time` record before and of the first after, whichever makes the measured span shorter: what
//! took too long surely did.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Rule};
use crate::history::{Change, Line, Record, Session, Setting, When};
use crate::world::{Lease, Look, Told, World};

/// What must happen in time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Liveness {
    /// Memory and descriptors before the load.
    before: Option<(u64, u64)>,
    /// Leases of dead clients, by directory and id, that were found in time, or too late.
    judged: BTreeSet<(usize, u64)>,
    /// Requests that wait for an answer while nothing is broken: the first time that was read after they were sent.
    waiting: BTreeMap<(Session, u64), Option<u64>>,
    /// Whether the server is there and nothing is broken.
    broken: bool,
}

impl Liveness {
    /// Looks at a record that the world has taken in.
    pub(crate) fn take(&mut self, world: &World, line: &Line, told: &Told, findings: &mut Findings) {
        match &line.record {
            Record::Usage { when: When::Before, memory, descriptors } => self.before = Some((*memory, *descriptors)),
            Record::Usage { when: When::After, memory, descriptors } => {
                self.usage(world, *memory, *descriptors, findings);
            }
            Record::Time { .. } => {
                self.lent_again(world, findings);
                self.waited(world, findings);
            }
            Record::Send { number, .. } => {
                if let Some(session) = told.session.filter(|_| !self.broken) {
                    self.waiting.insert((session, *number), None);
                }
            }
            Record::Ack { number, .. } => {
                if let Some(session) = told.session {
                    self.answered(world, session, *number, findings);
                }
            }
            Record::Ready => self.broken = false,
            Record::KilledServer
            | Record::PowerCut { .. }
            | Record::DiskFailed
            | Record::EndedServer { .. }
            | Record::Damaged { .. }
            | Record::NewDirectory => {
                self.broken = true;
                self.waiting.clear();
            }
            Record::ClockStalled { .. } => self.waiting.clear(),
            Record::Frozen { who } | Record::KilledClient { who } => self.forget(world, *who),
            Record::Left => self.forget(world, line.who),
            _ => {}
        }
    }

    fn forget(&mut self, world: &World, who: u32) {
        self.waiting.retain(|(session, _), _| world.sessions.get(session).is_some_and(|book| book.who != who));
    }

    fn usage(&self, world: &World, memory: u64, descriptors: u64, findings: &mut Findings) {
        let Some(before) = self.before else { return };
        let kinds = [
            ("bytes of memory", Setting::MemoryBytes, before.0, memory),
            ("descriptors", Setting::Descriptors, before.1, descriptors),
        ];
        for (what, setting, before, after) in kinds {
            let Some(bound) = world.bound(setting) else { continue };
            findings.hold(Rule::L5, after <= before.saturating_add(bound), || {
                format!("{before} {what} before, {after} after, {bound} more are allowed")
            });
        }
    }

    /// Whether the runs of the dead were lent again in time.
    fn lent_again(&mut self, world: &World, findings: &mut Findings) {
        let (Some(bound), Some(calm)) = (world.bound(Setting::RelendMs), world.calm_by) else { return };
        for client in world.clients.values() {
            let Some(died) = client.dead_by else { continue };
            let books = client.sessions.iter().filter_map(|session| world.sessions.get(session));
            for (directory, id) in books.flat_map(|book| book.leases.iter().map(|id| (book.directory, *id))) {
                // What was lent in a data directory that is gone went with it.
                let Some(lease) = world.leases.get(&(directory, id)).filter(|_| directory == world.directory) else {
                    continue;
                };
                let Some(length) = world.campaigns[lease.campaign].lease_ms else { continue };
                let due = died.max(calm).saturating_add(length).saturating_add(bound);
                if lease.request.is_some() || world.now < due || !self.judged.insert((directory, id)) {
                    continue;
                }
                let idle = waits_for_nobody(world, lease);
                findings.hold(Rule::L4, idle || taken_over(world, directory, lease), || {
                    let (who, now) = (lease.who, world.now);
                    format!("runs of lease {id} of client {who}, dead at {died} ms, are not lent at {now} ms")
                });
            }
        }
    }

    /// An answer came.
    fn answered(&mut self, world: &World, session: Session, number: u64, findings: &mut Findings) {
        let Some(bound) = world.bound(Setting::AnswerMs) else { return };
        let Some(since) = self.waiting.remove(&(session, number)).flatten() else { return };
        let took = world.now.saturating_sub(since);
        findings.hold(Rule::L6, took <= bound, || {
            format!("request {number} of session {session} was answered after {took} ms or more, {bound} are allowed")
        });
    }

    /// Time has passed.
    fn waited(&mut self, world: &World, findings: &mut Findings) {
        let Some(bound) = world.bound(Setting::AnswerMs) else { return };
        self.waiting.retain(|(session, number), since| {
            let took = world.now.saturating_sub(*since.get_or_insert(world.now));
            findings.hold(Rule::L6, took <= bound, || {
                format!("request {number} of session {session} waits for {took} ms or more, {bound} are allowed")
            })
        });
    }
}

/// Whether a task needs no more runs, or is not to be lent.
fn waits_for_nobody(world: &World, lease: &Lease) -> bool {
    let campaign = &world.campaigns[lease.campaign];
    let held_back =
        [Change::Pause, Change::Cancel, Change::Remove].iter().any(|change| campaign.asked.contains(change));
    let possible = campaign.work.get(&lease.task).map_or(0, |work| work.possible.towards(campaign.goal()));
    held_back || campaign.quarantinable(lease.task) || possible >= u64::from(campaign.quota)
}

/// Whether later leases have what this one had, or what it had was done.
fn taken_over(world: &World, directory: usize, lease: &Lease) -> bool {
    let campaign = &world.campaigns[lease.campaign];
    let later: Vec<&Lease> = campaign
        .leases
        .get(&lease.task)
        .into_iter()
        .flatten()
        .filter_map(|id| world.leases.get(&(directory, *id)))
        .filter(|other| other.at > lease.at && other.who != lease.who)
        .collect();
    if !campaign.numbered() {
        return !later.is_empty();
    }
    let done = campaign.work.get(&lease.task).map(|work| &work.possible.runs);
    (lease.first..lease.first.saturating_add(lease.runs))
        .all(|run| done.is_some_and(|done| done.contains_key(&run)) || later.iter().any(|other| other.speaks_of(run)))
}

/// The history is at its end.
pub(crate) fn end(world: &World, last: Option<&Look>, findings: &mut Findings) {
    let Some(calm) = world.calm else { return };
    for client in world.clients.values().filter(|client| !client.dead && !client.frozen) {
        for session in &client.sessions {
            let requests = world.sessions.get(session).into_iter().flat_map(|book| &book.requests);
            for (number, request) in requests {
                findings.hold(Rule::L2, request.answer.is_some(), || {
                    format!("request {number} of session {session} was never answered")
                });
            }
        }
    }
    for (who, client) in world.clients.iter().filter(|(_, client)| client.until_done && !client.frozen) {
        findings.hold(Rule::L3, client.closed || client.dead, || format!("client {who} has not ended"));
    }
    let Some(last) = last.filter(|look| look.began > calm && look.began > world.last_sent) else { return };
    for (index, counts) in &last.counts {
        let campaign = &world.campaigns[*index];
        let held_back =
            [Change::Pause, Change::Cancel, Change::Remove].iter().any(|change| campaign.asked.contains(change));
        if held_back {
            continue;
        }
        for task in 0..campaign.tasks {
            let count = counts.get(&task).copied().unwrap_or_default();
            let set_aside = count.quarantined && campaign.quarantinable(task);
            findings.hold(Rule::L1, count.done >= campaign.quota || set_aside, || {
                format!("{} task {task}: {} of {} runs at the end", campaign.name, count.done, campaign.quota)
            });
        }
    }
}
