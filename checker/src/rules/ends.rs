//! Who is told that a campaign is finished or settled can rely on it: S11.

use super::{Findings, Rule};
use crate::history::{Change, Standing};
use crate::rows::Rows;
use crate::world::{Dump, Look, World};

/// Somebody was told that a campaign is settled. Then all that it wants had at least been sent, or was set aside, or it
/// is cancelled. `finished` if that was said, too.
pub(crate) fn settled(world: &mut World, index: Option<usize>, finished: Option<bool>, findings: &mut Findings) {
    let Some(index) = index else {
        findings.hold(Rule::S11, false, || "a campaign is said to be settled that was never created".to_owned());
        return;
    };
    let campaign = &world.campaigns[index];
    if campaign.removable() {
        return;
    }
    let name = &campaign.name;
    let cancelled = campaign.asked.contains(&Change::Cancel);
    let set_aside = finished != Some(true);
    let missing = if cancelled && set_aside { None } else { campaign.missing(set_aside) };
    let fits = findings.hold(Rule::S11, missing.is_none(), || {
        let word = if finished == Some(true) { "finished" } else { "settled" };
        format!("{name} is said to be {word} while runs of task {} were missing", missing.unwrap_or_default())
    });
    let excused = cancelled || campaign.losses_max.is_some() || campaign.errors_max.is_some();
    findings.hold(Rule::S11, finished != Some(false) || excused, || {
        format!("{name} is said to be settled and not finished, and nothing in it can be set aside")
    });
    if finished == Some(true) && fits {
        world.campaigns[index].finished.get_or_insert(findings.at);
    }
}

/// What an observer was told of campaigns, and then of their tasks.
pub(crate) fn look(world: &World, look: &Look, findings: &mut Findings) {
    for (index, standing) in &look.standings {
        let campaign = &world.campaigns[*index];
        let Some(counts) = look.counts.get(index).filter(|_| !campaign.removable()) else { continue };
        let lifted = campaign.asked.contains(&Change::Cancel) || campaign.asked.contains(&Change::Requeue);
        let open = (0..campaign.tasks).find(|task| {
            let count = counts.get(task).copied().unwrap_or_default();
            count.done < campaign.quota && (*standing == Standing::Finished || !count.quarantined)
        });
        let excused = match standing {
            Standing::Open => true,
            Standing::Settled => lifted,
            Standing::Finished => false,
        };
        findings.hold(Rule::S11, excused || open.is_none(), || {
            format!("{} was said to be {standing}, and task {} is not", campaign.name, open.unwrap_or_default())
        });
    }
}

/// What was said to be finished is so in every dump.
pub(crate) fn dump(world: &World, dump: &Dump, rows: &Rows<'_>, findings: &mut Findings) {
    let said = world.campaigns.iter().filter(|one| one.directory == dump.directory && !one.removable());
    for campaign in said.filter(|one| one.finished.is_some_and(|at| at < dump.began)) {
        let Some(stored) = rows.campaign(&campaign.name) else { continue };
        let done = |task: &u32| stored.tasks.get(task).is_some_and(|row| row.done >= campaign.quota);
        let open = (0..campaign.tasks).find(|task| !done(task));
        findings.hold(Rule::S11, open.is_none(), || {
            format!("{} was said to be finished, and task {} is not", campaign.name, open.unwrap_or_default())
        });
    }
}
