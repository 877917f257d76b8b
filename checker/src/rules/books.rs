//! Every row fits every other, and every sum equals a full scan: S13.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Rule};
use crate::history::{Kind, State};
use crate::rows::{CampaignRow, LeaseRow, ReturnedRow, Rows, TaskRow};
use crate::world::{Campaign, Count, Look, World};

/// What an observer saw of single tasks.
pub(crate) fn look(world: &World, look: &Look, findings: &mut Findings) {
    for (index, counts) in &look.counts {
        let campaign: &Campaign = &world.campaigns[*index];
        for (task, Count { done, extra, quarantined, .. }) in counts {
            let counters = (*done, *extra, *quarantined);
            let problem = counters_of(campaign.quota, campaign.kind, counters);
            findings.hold(Rule::S13, problem.is_none(), || {
                format!("{} task {task}: {}", campaign.name, problem.unwrap_or_default())
            });
        }
    }
}

/// A whole dump.
pub(crate) fn dump(rows: &Rows<'_>, findings: &mut Findings) {
    findings.hold(Rule::S13, rows.misplaced.is_empty(), || format!("these rows fit nowhere: {:?}", rows.misplaced));
    let mut leases: BTreeMap<(u32, u32), Vec<&LeaseRow>> = BTreeMap::new();
    for row in &rows.leases {
        let at = |what: &str| format!("lease {}: {what}", row.id);
        findings.hold(Rule::S13, rows.sessions.contains_key(&row.session), || at("its session is not there"));
        let campaign = rows.campaigns.get(&row.campaign);
        findings.hold(Rule::S13, campaign.is_some() || row.state == State::Gone, || at("its campaign is not there"));
        let owns_nothing = row.state == State::Live || row.own == 0;
        findings.hold(Rule::S13, owns_nothing, || at("it is not live and has runs of its own"));
        if row.state == State::Live {
            leases.entry((row.campaign, row.task)).or_default().push(row);
        }
    }
    let mut returned: BTreeMap<(u32, u32), Vec<&ReturnedRow>> = BTreeMap::new();
    for row in &rows.returned {
        returned.entry((row.campaign, row.task)).or_default().push(row);
    }
    for (id, campaign) in rows.campaigns.iter().filter(|(_, campaign)| !campaign.clearing()) {
        let held = leases.range((*id, 0)..=(*id, u32::MAX)).map(|((_, task), _)| *task);
        let back = returned.range((*id, 0)..=(*id, u32::MAX)).map(|((_, task), _)| *task);
        let tasks: BTreeSet<u32> = campaign.tasks.keys().copied().chain(held).chain(back).collect();
        for task in tasks {
            let row = campaign.tasks.get(&task).copied().unwrap_or_default();
            let held = leases.get(&(*id, task)).map_or(&[][..], |leases| leases);
            let back = returned.get(&(*id, task)).map_or(&[][..], |rows| rows);
            let problem = task_problem(campaign, &row, held, back);
            findings.hold(Rule::S13, problem.is_none(), || {
                format!("{} task {task}: {}", campaign.name, problem.unwrap_or_default())
            });
        }
    }
}

/// What is wrong with a task's counters by themselves.
fn counters_of(quota: u32, kind: Kind, (done, extra, quarantined): (u32, u32, bool)) -> Option<String> {
    if done > quota {
        return Some(format!("{done} runs are done of {quota}"));
    }
    if kind == Kind::Counted && extra > 0 && done < quota {
        return Some(format!("{extra} extra before the quota"));
    }
    (quarantined && done == quota).then(|| "set aside, and done".to_owned())
}

/// What is wrong with a task, its live leases and its returned runs.
fn task_problem(
    campaign: &CampaignRow<'_>,
    row: &TaskRow,
    held: &[&LeaseRow],
    back: &[&ReturnedRow],
) -> Option<String> {
    let numbered = campaign.kind == Kind::Numbered;
    let lent: u32 = held.iter().map(|lease| if numbered { lease.own.count_ones() } else { lease.runs }).sum();
    let returned: u32 = back.iter().map(|row| row.runs.count_ones()).sum();
    if let Some(problem) = counters_of(campaign.quota, campaign.kind, (row.done, row.extra, row.quarantined)) {
        return Some(problem);
    }
    if row.leased != lent {
        return Some(format!("{} runs are said to be lent, leases hold {lent}", row.leased));
    }
    if !numbered {
        return (returned > 0 || row.issued > 0).then(|| "runs of a counted campaign have numbers".to_owned());
    }
    if row.issued > campaign.quota || row.issued != row.done + lent + returned {
        return Some(format!(
            "{} runs were ever lent: {} done, {lent} lent, {returned} returned",
            row.issued, row.done
        ));
    }
    let mut seen = BTreeSet::new();
    let returned_runs = back.iter().flat_map(|row| runs_of(u64::from(row.word) * 64, row.runs));
    let mut lent_runs = held.iter().flat_map(|lease| runs_of(u64::from(lease.first), lease.own));
    let twice = returned_runs.filter(|run| !seen.insert(*run)).count() > 0 || lent_runs.any(|run| seen.contains(&run));
    let beyond = seen.iter().any(|run| *run >= u64::from(row.issued));
    (twice || beyond).then(|| "a run was returned and is lent, or was never lent".to_owned())
}

fn runs_of(first: u64, mask: u64) -> impl Iterator<Item = u64> {
    (0..64).filter(move |bit| mask >> bit & 1 == 1).map(move |bit| first + bit)
}
