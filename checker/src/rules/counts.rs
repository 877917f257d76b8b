//! What was acked is counted, nothing else is, and no count falls: S1, S2, S3, S6, S7, S12.
//!
//! ```text
//!   acked when the observer began  ≤  what it saw  ≤  possible when it had read      S7 or S1, and S2
//!   what an observer before it saw ≤  what it saw                                    S6
//!   a dump also says which requests are processed: then it is exact                  S3
//! ```
//!
//! S3 is applied to a task only where S1, S7 and S2 hold: it is the sharper word.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Rule};
use crate::history::{Change, Fate, Heard, Session, Setting};
use crate::rows::{Rows, SessionRow, TaskRow};
use crate::world::{Campaign, Count, Dump, Look, Tally, World};

/// An observer was told of the sums of a campaign.
pub(crate) fn status(world: &World, look: &Look, index: usize, (done, extra): (u64, u64), findings: &mut Findings) {
    let campaign = &world.campaigns[index];
    let (name, total) = (&campaign.name, done + extra);
    let (acked, towards) = (campaign.acked_units.at(look.began), campaign.acked_towards.at(look.began));
    findings.hold(Rule::S7, acked <= total && towards <= done, || {
        format!("{name}: {acked} units and {towards} runs were acked, {done} runs and {extra} extra are said")
    });
    let possible: u64 = campaign.work.values().map(|work| work.possible.units).sum();
    let possible_towards: u64 = campaign.work.values().map(|work| work.possible.towards(campaign.goal())).sum();
    findings.hold(Rule::S2, total <= possible && done <= possible_towards, || {
        format!(
            "{name}: {done} runs and {extra} extra are said, only {possible} units ({possible_towards} runs) were sent"
        )
    });
    let (seen_done, seen_total) = (campaign.seen_done.at(look.began), campaign.seen_total.at(look.began));
    findings.hold(Rule::S6, seen_done <= done && seen_total <= total, || {
        format!("{name}: {seen_done} runs of {seen_total} units were seen before, now {done} of {total}")
    });
}

/// An observer has read what it asked for. Tasks of which S2 or S7 does not hold.
pub(crate) fn look(world: &World, look: &Look, findings: &mut Findings) -> BTreeSet<(usize, u32)> {
    let mut wrong = BTreeSet::new();
    for (index, counts) in &look.counts {
        let campaign = &world.campaigns[*index];
        // What is not listed has nothing; but a campaign that is being removed may be listed in part.
        let tasks: BTreeSet<u32> = counts.keys().chain(campaign.work.keys()).copied().collect();
        for task in tasks {
            if !counts.contains_key(&task) && campaign.removable() {
                continue;
            }
            let count = counts.get(&task).copied().unwrap_or_default();
            let acked = Acked::at(campaign, task, look.began);
            let bounded = bounds(campaign, task, &count, &acked, Rule::S7, findings);
            if !bounded {
                wrong.insert((*index, task));
            } else if campaign.lasting {
                overshoot(campaign, task, &count, 0, findings);
            }
        }
    }
    wrong
}

/// A dump was read.
pub(crate) fn dump(world: &World, dump: &Dump, rows: &Rows<'_>, findings: &mut Findings) {
    campaigns(world, dump, rows, findings);
    sessions(world, dump, rows, findings);
    let durable = Durable::read(world, dump, rows);
    for (index, campaign) in world.campaigns.iter().enumerate().filter(|(_, one)| one.directory == dump.directory) {
        let Some(stored) = rows.campaign(&campaign.name) else { continue };
        if stored.clearing() {
            continue;
        }
        let tasks: BTreeSet<u32> = stored.tasks.keys().chain(campaign.work.keys()).copied().collect();
        for task in tasks {
            let row = stored.tasks.get(&task).copied().unwrap_or_default();
            let count = count_of(&row);
            let acked = Acked::at(campaign, task, dump.began);
            let bounded = bounds(campaign, task, &count, &acked, Rule::S1, findings);
            failures(campaign, task, &row, findings);
            if bounded {
                let none = (Tally::default(), Tally::default());
                let (least, most) = durable.0.get(&(index, task)).unwrap_or(&none);
                exactly(campaign, task, &count, (least, most), findings);
                overshoot(campaign, task, &count, u64::from(row.lost), findings);
            }
        }
    }
}

/// The counts of a dump, as an observer would have seen them.
pub(crate) fn counts_of(world: &World, dump: &Dump, rows: &Rows<'_>) -> Vec<(usize, u32, Count)> {
    let listed = rows.campaigns.values().filter(|campaign| !campaign.clearing());
    let known = listed.filter_map(|campaign| Some((world.campaign_in(dump.directory, campaign.name)?, campaign)));
    known
        .flat_map(|(index, campaign)| campaign.tasks.iter().map(move |(task, row)| (index, *task, count_of(row))))
        .collect()
}

/// All has come to rest: the last look must be what the answers and fates say.
pub(crate) fn end(world: &World, last: Option<&Look>, findings: &mut Findings) {
    let Some(last) = last.filter(|look| look.began > world.last_sent) else { return };
    // What is not known: confirmed by a client that did not live to write it down, or never asked for.
    let mut doubtful: BTreeMap<(usize, u32), Tally> = BTreeMap::new();
    for book in world.sessions.values() {
        for request in
            book.requests.values().filter(|request| request.answer.is_none_or(|heard| heard == Heard::Unknown))
        {
            let unknown = match request.fate {
                Some(Fate::Counted | Fate::Refused { .. } | Fate::NotReceived) => false,
                Some(Fate::Confirmed | Fate::UnknownSession) | None => true,
            };
            if let Some(lease) = world.leases.get(&(book.directory, request.lease)).filter(|_| unknown) {
                doubtful.entry((lease.campaign, lease.task)).or_default().add(request.units, &request.runs);
            }
        }
    }
    for (index, counts) in &last.counts {
        let campaign = &world.campaigns[*index];
        for (task, count) in counts.iter().filter(|(task, _)| !last.wrong.contains(&(*index, **task))) {
            let Some(work) = campaign.work.get(task) else { continue };
            let mut most = work.acked.clone();
            if let Some(more) = doubtful.get(&(*index, *task)) {
                most.merge(more);
            }
            most.add(work.origin.saturating_sub(work.origin_acked.now()), &[]);
            exactly(campaign, *task, count, (&work.acked, &most), findings);
        }
    }
}

fn count_of(row: &TaskRow) -> Count {
    Count { done: row.done, extra: row.extra, leased: row.leased, quarantined: row.quarantined }
}

/// What was surely acked of a task.
struct Acked {
    units: u64,
    towards: u64,
    seen_done: u64,
    seen_total: u64,
}

impl Acked {
    fn at(campaign: &Campaign, task: u32, place: usize) -> Self {
        campaign.work.get(&task).map_or(Self { units: 0, towards: 0, seen_done: 0, seen_total: 0 }, |work| Self {
            units: work.acked_units.at(place),
            towards: work.acked_towards.at(place),
            seen_done: work.seen_done.at(place),
            seen_total: work.seen_total.at(place),
        })
    }
}

/// At least what was acked and seen, at most what was sent. Whether the first and the last hold.
fn bounds(campaign: &Campaign, task: u32, count: &Count, acked: &Acked, lower: Rule, findings: &mut Findings) -> bool {
    let at = |what: String| format!("{} task {task}: {what}", campaign.name);
    let (done, total) = (u64::from(count.done), u64::from(count.done) + u64::from(count.extra));
    let Acked { units, towards, seen_done, seen_total } = acked;
    let there = findings.hold(lower, *units <= total && *towards <= done, || {
        at(format!("{units} units ({towards} runs) were acked, {total} ({done}) are counted"))
    });
    findings.hold(Rule::S6, *seen_done <= done && *seen_total <= total, || {
        at(format!("{seen_total} units ({seen_done} runs) were seen before, now {total} ({done})"))
    });
    let (possible, possible_towards) =
        campaign.work.get(&task).map_or((0, 0), |work| (work.possible.units, work.possible.towards(campaign.goal())));
    let sent = findings.hold(Rule::S2, total <= possible && done <= possible_towards, || {
        at(format!("{total} units ({done} runs) are counted, only {possible} ({possible_towards}) were ever sent"))
    });
    there && sent
}

/// No more failures than were reported.
fn failures(campaign: &Campaign, task: u32, row: &TaskRow, findings: &mut Findings) {
    let sent = campaign.work.get(&task).map_or(0, |work| work.failed);
    findings.hold(Rule::S2, u64::from(row.failed) <= sent, || {
        format!("{} task {task}: {} failures are counted, only {sent} were ever sent", campaign.name, row.failed)
    });
}

/// Exactly what surely counts, and no more than what may.
fn exactly(campaign: &Campaign, task: u32, count: &Count, (least, most): (&Tally, &Tally), findings: &mut Findings) {
    let goal = campaign.goal();
    let (done, total) = (u64::from(count.done), u64::from(count.done) + u64::from(count.extra));
    let units = (least.units..=most.units).contains(&total);
    let runs = (least.towards(goal)..=most.towards(goal)).contains(&done);
    findings.hold(Rule::S3, units && runs, || {
        format!(
            "{} task {task}: {total} units ({done} runs) are counted, {} to {} ({} to {}) were",
            campaign.name,
            least.units,
            most.units,
            least.towards(goal),
            most.towards(goal)
        )
    });
}

/// Every execution beyond the quota was reported beyond its lease, or under a lease whose runs were lent again.
fn overshoot(campaign: &Campaign, task: u32, count: &Count, lost: u64, findings: &mut Findings) {
    let Some(work) = campaign.work.get(&task) else { return };
    // Requeuing forgets what was lost.
    if campaign.asked.contains(&Change::Requeue) {
        return;
    }
    let explained = work.excess + work.origin + lost;
    findings.hold(Rule::S12, u64::from(count.extra) <= explained, || {
        format!(
            "{} task {task}: {} extra; over-reports explain {}, the origin's clients {}, lost runs {lost}",
            campaign.name, count.extra, work.excess, work.origin
        )
    });
}

/// Every campaign that was created and not removed is there, as it was created and last changed.
fn campaigns(world: &World, dump: &Dump, rows: &Rows<'_>, findings: &mut Findings) {
    let here = |one: &&Campaign| one.directory == dump.directory;
    for campaign in world.campaigns.iter().filter(here) {
        let name = &campaign.name;
        let created = campaign.created.is_some_and(|at| at <= dump.began) && !campaign.removable();
        let Some(stored) = rows.campaign(name) else {
            findings.hold(Rule::S1, !created, || format!("campaign {name} is gone"));
            continue;
        };
        let settings = (stored.tasks_max, stored.quota, stored.kind) == (campaign.tasks, campaign.quota, campaign.kind);
        findings.hold(Rule::S1, settings, || format!("campaign {name} is not as it was created"));
        let known = campaign.phase.filter(|(since, _)| *since <= dump.began).map(|(_, phase)| phase);
        findings.hold(Rule::S1, known.is_none_or(|phase| phase == stored.phase), || {
            format!("campaign {name} is {}, and should be {}", stored.phase, known.map_or("", |phase| phase.word()))
        });
    }
    // One that is being cleared away may have been removed before this history began.
    for stored in rows.campaigns.values().filter(|stored| !stored.clearing()) {
        let index = world.campaign_in(dump.directory, stored.name);
        let asked = findings.hold(Rule::S2, index.is_some(), || format!("nobody asked for campaign {}", stored.name));
        let beyond = stored.tasks.keys().find(|task| **task >= stored.tasks_max);
        findings.hold(Rule::S2, !asked || beyond.is_none(), || format!("{} has a task {beyond:?}", stored.name));
    }
}

/// Every session that has read an answer is there, with that request processed.
fn sessions(world: &World, dump: &Dump, rows: &Rows<'_>, findings: &mut Findings) {
    for (session, book) in world.sessions.iter().filter(|(_, book)| book.directory == dump.directory) {
        let stored = rows.sessions.get(session);
        let acked = book.acked.at(dump.began);
        if let Some(SessionRow { through, .. }) = stored {
            findings.hold(Rule::S1, acked <= *through, || {
                format!("session {session} has an answer to {acked}, only {through} are processed")
            });
            let last = book.last_sent();
            findings.hold(Rule::S2, !world.flag(Setting::RequestsComplete) || *through <= last, || {
                format!("session {session} has processed {through}, only {last} were sent")
            });
        } else {
            let forgettable = world.forgettable(session) || book.closing.is_some();
            findings.hold(Rule::S1, acked == 0 || forgettable, || {
                format!("session {session} has an answer to {acked}, and is not known any more")
            });
        }
    }
}

/// What the requests that a dump says are processed add up to, by campaign and task: at least and at most.
struct Durable(BTreeMap<(usize, u32), (Tally, Tally)>);

impl Durable {
    fn read(world: &World, dump: &Dump, rows: &Rows<'_>) -> Self {
        let mut sums: BTreeMap<(usize, u32), (Tally, Tally)> = BTreeMap::new();
        for (session, book) in world.sessions.iter().filter(|(_, book)| book.directory == dump.directory) {
            for (number, request) in &book.requests {
                let Some(lease) = world.leases.get(&(book.directory, request.lease)) else { continue };
                let (least, most) = sums.entry((lease.campaign, lease.task)).or_default();
                match processed(world, session, rows.sessions.get(session), *number, dump.began) {
                    Some(true) => {
                        least.add(request.units, &request.runs);
                        most.add(request.units, &request.runs);
                    }
                    Some(false) => {}
                    None => most.add(request.units, &request.runs),
                }
            }
        }
        for (index, campaign) in world.campaigns.iter().enumerate().filter(|(_, one)| one.directory == dump.directory) {
            for (task, work) in campaign.work.iter().filter(|(_, work)| work.origin > 0) {
                let (least, most) = sums.entry((index, *task)).or_default();
                least.add(work.origin_acked.at(dump.began), &[]);
                most.add(work.origin, &[]);
            }
        }
        Self(sums)
    }
}

/// Whether a request is counted in a dump; `None` if that cannot be told.
fn processed(
    world: &World,
    session: &Session,
    row: Option<&SessionRow<'_>>,
    number: u64,
    began: usize,
) -> Option<bool> {
    let book = world.sessions.get(session)?;
    let request = book.requests.get(&number)?;
    let answer = match (request.answer, request.fate) {
        (Some(Heard::Counted), _) | (None, Some(Fate::Counted)) => Some(true),
        (Some(Heard::Refused { .. }), _) | (None, Some(Fate::Refused { .. })) => Some(false),
        _ => None,
    };
    match row {
        Some(_) if answer.is_some() && book.acked.at(began) >= number => answer,
        Some(row) if number > row.through => Some(false),
        Some(row) => answer.or_else(|| (number > row.confirmed).then(|| !row.refuses(number))),
        // Without its session only an answer that was read before tells.
        None => answer.filter(|counted| !counted || book.acked.at(began) >= number),
    }
}
