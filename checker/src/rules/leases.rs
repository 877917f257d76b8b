//! Leases survive, and no run is with two sessions: S8, S10.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Rule};
use crate::history::{Change, State, Who};
use crate::rows::{LeaseRow, Rows};
use crate::world::{Dump, Lease, Look, World};

/// A client was lent something; the world does not know of it yet.
pub(crate) fn granted(world: &World, directory: usize, id: u64, who: Who, findings: &mut Findings) {
    let before = world.leases.get(&(directory, id));
    findings.hold(Rule::S8, before.is_none(), || {
        let before = before.map_or(0, |lease| lease.who);
        format!("lease {id} was lent twice: to client {before} and to client {who}")
    });
}

/// The same; the world knows it now. Its runs must not be somebody else's.
pub(crate) fn overlap(world: &World, directory: usize, id: u64, findings: &mut Findings) {
    let Some(lease) = world.leases.get(&(directory, id)) else { return };
    let campaign = &world.campaigns[lease.campaign];
    if !campaign.numbered() || !world.surely_held(lease, findings.at) {
        return;
    }
    let others = campaign.leases.get(&lease.task).into_iter().flatten();
    let other = others
        .filter(|other| **other != id)
        .filter_map(|other| world.leases.get(&(directory, *other)))
        .find(|other| other.overlaps(lease) && world.surely_held(other, findings.at));
    findings.hold(Rule::S8, other.is_none(), || {
        let (other, holder) = other.map_or((0, 0), |other| (other.id, other.who));
        format!(
            "{} task {}: runs {} + {} of lease {id} are still client {holder}'s under lease {other}",
            campaign.name, lease.task, lease.first, lease.runs
        )
    });
}

/// A client was told that its lease is lost.
pub(crate) fn lost(world: &World, directory: usize, id: u64, findings: &mut Findings) {
    let Some(lease) = world.leases.get(&(directory, id)) else { return };
    let campaign = &world.campaigns[lease.campaign];
    let given_up = campaign.asked.contains(&Change::Cancel) || campaign.removable();
    if campaign.lasting && !given_up {
        findings.hold(Rule::S10, world.forgettable(&lease.session), || {
            format!("lease {id} of client {} should have lasted, but was lost", lease.who)
        });
    }
}

/// What an observer saw as lent: leases that last are among it until they are reported.
pub(crate) fn look(world: &World, look: &Look, findings: &mut Findings) {
    for (index, counts) in &look.counts {
        let campaign = &world.campaigns[*index];
        if !campaign.lasting {
            continue;
        }
        for (task, count) in counts {
            let leases = campaign.leases.get(task).into_iter().flatten();
            let held = leases
                .filter_map(|id| world.leases.get(&(campaign.directory, *id)))
                .filter(|lease| lease.at < look.began && !lease.lost && world.surely_held(lease, findings.at));
            let lent: u32 = held.map(|lease| lease.runs).sum();
            findings.hold(Rule::S10, lent <= count.leased, || {
                format!(
                    "{} task {task}: {lent} runs are lent to clients, the server knows of {}",
                    campaign.name, count.leased
                )
            });
        }
    }
}

/// A dump was read: every lease that a client knew of is there, unless a processed request ended it.
pub(crate) fn dump(world: &World, dump: &Dump, rows: &Rows<'_>, findings: &mut Findings) {
    let stored: BTreeMap<u64, &LeaseRow> = rows.leases.iter().map(|row| (row.id, row)).collect();
    findings.hold(Rule::S8, stored.len() == rows.leases.len(), || "two leases have the same id".to_owned());
    one_holder(rows, findings);
    let here = world.leases.range((dump.directory, 0)..=(dump.directory, u64::MAX)).map(|(_, lease)| lease);
    for lease in here.filter(|lease| lease.at < dump.began) {
        let campaign = &world.campaigns[lease.campaign];
        match stored.get(&lease.id) {
            Some(row) => {
                let task = rows.campaigns.get(&row.campaign).is_none_or(|stored| stored.name == campaign.name);
                let same = (row.session, row.task, row.first, row.runs)
                    == (lease.session, lease.task, lease.first, lease.runs);
                findings.hold(Rule::S10, task && same, || {
                    format!("lease {} of client {} is not as it was lent: {row:?}", lease.id, lease.who)
                });
                let must_live = world.surely_held(lease, findings.at);
                findings.hold(Rule::S10, !must_live || row.state == State::Live, || {
                    format!("lease {} of client {} is {}, and did not expire", lease.id, lease.who, row.state)
                });
            }
            None => missing(world, rows, lease, findings),
        }
    }
}

/// A lease is not in a dump: then a request of it is.
fn missing(world: &World, rows: &Rows<'_>, lease: &Lease, findings: &mut Findings) {
    let through = rows.sessions.get(&lease.session).map(|row| row.through);
    let ended = match (lease.request, through) {
        (None, _) => false,
        (Some((number, _)), Some(through)) => number <= through,
        // Its session is gone: whether that may be is for another rule to say.
        (Some(_), None) => true,
    };
    findings.hold(Rule::S10, ended || !world.surely_remembered(lease, findings.at), || {
        format!("lease {} of client {} is gone, and was not ended", lease.id, lease.who)
    });
}

/// No run is under two live leases.
fn one_holder(rows: &Rows<'_>, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for row in rows.leases.iter().filter(|row| row.state == State::Live) {
        for bit in (0..64).filter(|bit| row.own >> bit & 1 == 1) {
            let run = u64::from(row.first) + bit;
            findings.hold(Rule::S8, seen.insert((row.campaign, row.task, run)), || {
                format!(
                    "run {run} of task {} of campaign {} is under two leases, one is {}",
                    row.task, row.campaign, row.id
                )
            });
        }
    }
}
