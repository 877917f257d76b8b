//! The durable state as a start finds it, row by row, for the history.
//!
//! The rows are those of `durable_view()`; what a task has lent is asked of the coordinator, as it has added it up itself.

use std::collections::BTreeMap;

use tenfold_checker::history::{Moment, Record, Row as Dumped, TEST};

use super::stage::Stage;
use super::words;
use crate::coordinator::command::{ControlAnswer, ControlRequest};
use crate::coordinator::rows::{Phase, Row, TroubleRow};
use crate::coordinator::{Command, Coordinator, Output};
use crate::limits;
use crate::types::{CampaignId, ConnectionId, LeaseId, TaskIndex, Tick};

/// Writes the state of a coordinator that nobody needs any more into the history.
pub(super) fn dump(stage: &mut Stage, moment: Moment, mut coordinator: Coordinator) {
    let view = coordinator.durable_view();
    let mut rows = Vec::new();
    let mut sessions = BTreeMap::new();
    let mut troubles: BTreeMap<(CampaignId, TaskIndex), TroubleRow> = BTreeMap::new();
    for row in view.values() {
        match row {
            Row::Session(slot, row) => drop(sessions.insert(*slot, row.id)),
            Row::Trouble(_, row) => drop(troubles.insert((row.campaign, row.task), row.clone())),
            Row::Globals(_)
            | Row::Campaign(..)
            | Row::Task(..)
            | Row::Lease(..)
            | Row::SessionName(..)
            | Row::Returned(..) => {}
        }
    }
    let mut leased = BTreeMap::new();
    for row in view.values() {
        let Row::Campaign(id, row) = row else { continue };
        if row.phase != Phase::Removing {
            leased.extend(lent(&mut coordinator, &row.spec.name).into_iter().map(|(task, runs)| ((*id, task), runs)));
        }
    }
    for row in view.values() {
        let dumped = match row {
            Row::Campaign(id, row) => Dumped::Campaign {
                id: id.0,
                name: row.spec.name.clone(),
                tasks: row.spec.tasks.count(),
                quota: row.spec.runs,
                kind: words::kind(row.spec.seed.is_some()),
                phase: words::phase(row.phase),
            },
            Row::Task(campaign, task, row) => {
                let trouble = troubles.remove(&(*campaign, *task));
                task_row(*campaign, *task, (row.done, row.extra, row.issued), &leased, trouble.as_ref())
            }
            Row::Lease(slot, row) => {
                let Some(lease) = row.lease else { continue };
                let Some(session) = sessions.get(&lease.session) else { continue };
                Dumped::Lease {
                    lease: LeaseId { slot: *slot, generation: row.generation }.to_u64(),
                    session: words::session(*session),
                    campaign: lease.campaign.0,
                    task: lease.task.0,
                    first: lease.first_run,
                    runs: lease.runs,
                    own: lease.own,
                    state: words::state(lease.state),
                }
            }
            Row::Session(_, row) => Dumped::Session {
                session: words::session(row.id),
                origin: row.origin,
                through: row.processed,
                confirmed: row.confirmed,
                refused: row.refusals.iter().map(words::refused).collect(),
            },
            Row::Returned(_, row) => {
                Dumped::Returned { campaign: row.campaign.0, task: row.task.0, word: row.word, runs: row.runs }
            }
            Row::Globals(_) | Row::SessionName(..) | Row::Trouble(..) => continue,
        };
        rows.push(dumped);
    }
    // A counted task that was only ever lent has no row of its own.
    for ((campaign, task), runs) in &leased {
        let has_row = view.contains_key(&crate::coordinator::RowKey::Task(*campaign, *task));
        if !has_row && (*runs > 0 || troubles.contains_key(&(*campaign, *task))) {
            rows.push(task_row(*campaign, *task, (0, 0, 0), &leased, troubles.get(&(*campaign, *task))));
        }
    }
    let mut digest = 0xcbf2_9ce4_8422_2325_u64;
    stage.note(TEST, Record::Dump { moment });
    for row in rows {
        for byte in row.to_string().bytes() {
            digest = (digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        stage.note(TEST, Record::Row { row });
    }
    stage.note(TEST, Record::Dumped { digest: format!("{digest:016x}") });
}

fn task_row(
    campaign: CampaignId,
    task: TaskIndex,
    (done, extra, issued): (u32, u32, u32),
    leased: &BTreeMap<(CampaignId, TaskIndex), u32>,
    trouble: Option<&TroubleRow>,
) -> Dumped {
    Dumped::Task {
        campaign: campaign.0,
        task: task.0,
        done,
        extra,
        issued,
        leased: leased.get(&(campaign, task)).copied().unwrap_or_default(),
        failed: trouble.map_or(0, |row| row.errors),
        lost: trouble.map_or(0, |row| row.losses),
        quarantined: trouble.is_some_and(|row| row.quarantined),
    }
}

/// What is lent of each task of a campaign.
fn lent(coordinator: &mut Coordinator, name: &str) -> Vec<(TaskIndex, u32)> {
    let (mut found, mut from) = (Vec::new(), Some(TaskIndex(0)));
    while let Some(next) = from.take() {
        let request =
            ControlRequest::Counts { campaign: name.to_owned(), from: next, limit: limits::COUNTS_PER_ANSWER_MAX };
        let step = coordinator.apply(Tick(0), Command::Control { connection: ConnectionId(u64::MAX), id: 0, request });
        for (_, output) in step.outputs {
            if let Output::Control { answer: ControlAnswer::Counts { tasks, next, .. }, .. } = output {
                found.extend(tasks.into_iter().map(|task| (task.index, task.leased)));
                from = next;
            }
        }
    }
    found
}
