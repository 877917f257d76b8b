//! Rows and changes of the coordinator to the disk's types and back, without judgement: what rows mean is checked when the
//! coordinator is restored.
//!
//! **Invariant.** Every row survives the way to the disk and back unchanged. Deliberately absent: defaults.
//! Tested in this file, and by the golden bytes in it.

use super::codec::{
    Damage, DiskCampaign, DiskChange, DiskKey, DiskLease, DiskLeaseState, DiskOrder, DiskPhase, DiskReason,
    DiskRefusal, DiskSession, DiskTasks, DiskTrouble, decode_each, encode,
};
use crate::coordinator::rows::{
    CampaignRow, Change, GlobalsRow, Lease, LeaseRow, LeaseState, Phase, ReturnedRow, Row, RowKey, SessionRow, TaskRow,
    TroubleRow,
};
use crate::types::{CampaignId, CampaignSpec, CreationId, Order, Refusal, RefusalReason, SessionId, TaskIndex, Tasks};

/// Appends a change to the payload of a journal record.
pub(super) fn encode_change(change: &Change, bytes: &mut Vec<u8>) {
    match change {
        Change::Put(row) => encode_row(row, bytes),
        Change::Remove(key) => encode(&DiskChange::Remove { key: key_to_disk(*key) }, bytes),
        Change::ClearTasks { campaign, first, tasks } => {
            encode(&DiskChange::ClearTasks { campaign: campaign.0, first: first.0, tasks: *tasks }, bytes);
        }
    }
}

/// Appends a row to the payload of a page.
pub(super) fn encode_row(row: &Row, bytes: &mut Vec<u8>) {
    encode(&row_to_disk(row), bytes);
}

/// Shows the changes of a journal record's payload, in order, until one is damaged.
pub(super) fn visit_changes(payload: &[u8], mut visit: impl FnMut(Change) -> Result<(), Damage>) -> Result<(), Damage> {
    decode_each(payload, |change| visit(change_from_disk(change)))
}

/// Shows the rows of a page's payload, in order, until one is damaged.
pub(super) fn visit_rows(payload: &[u8], mut visit: impl FnMut(Row) -> Result<(), Damage>) -> Result<(), Damage> {
    visit_changes(payload, |change| match change {
        Change::Put(row) => visit(row),
        Change::Remove(_) | Change::ClearTasks { .. } => Err(Damage("a page holds something that is not a row".into())),
    })
}

/// All changes of a journal record's payload.
pub(super) fn decode_changes(payload: &[u8]) -> Result<Vec<Change>, Damage> {
    let mut changes = Vec::new();
    visit_changes(payload, |change| {
        changes.push(change);
        Ok(())
    })?;
    Ok(changes)
}

/// All rows of a page's payload.
pub(super) fn decode_rows(payload: &[u8]) -> Result<Vec<Row>, Damage> {
    let mut rows = Vec::new();
    visit_rows(payload, |row| {
        rows.push(row);
        Ok(())
    })?;
    Ok(rows)
}

fn row_to_disk(row: &Row) -> DiskChange {
    match row {
        Row::Globals(row) => DiskChange::Globals { next_campaign: row.next_campaign },
        Row::Campaign(id, row) => DiskChange::Campaign { id: id.0, row: Box::new(campaign_to_disk(row)) },
        Row::Task(campaign, task, row) => DiskChange::Task {
            campaign: campaign.0,
            task: task.0,
            done: row.done,
            extra: row.extra,
            issued: row.issued,
        },
        Row::Lease(slot, row) => DiskChange::Lease {
            slot: *slot,
            generation: row.generation,
            lease: row.lease.map(|lease| DiskLease {
                session: lease.session,
                campaign: lease.campaign.0,
                task: lease.task.0,
                first_run: lease.first_run,
                runs: lease.runs,
                own: lease.own,
                state: match lease.state {
                    LeaseState::Live => DiskLeaseState::Live,
                    LeaseState::Expired => DiskLeaseState::Expired,
                    LeaseState::Gone => DiskLeaseState::Gone,
                },
            }),
        },
        Row::Session(slot, row) => DiskChange::Session {
            slot: *slot,
            row: DiskSession {
                id: row.id.0,
                origin: row.origin,
                attempt: row.attempt,
                processed: row.processed,
                confirmed: row.confirmed,
                refusals: row.refusals.iter().map(refusal_to_disk).collect(),
            },
        },
        Row::SessionName(slot, name) => DiskChange::SessionName { slot: *slot, name: name.clone() },
        Row::Trouble(slot, row) => DiskChange::Trouble {
            slot: *slot,
            row: DiskTrouble {
                campaign: row.campaign.0,
                task: row.task.0,
                errors: row.errors,
                losses: row.losses,
                quarantined: row.quarantined,
                last_error: row.last_error.clone(),
            },
        },
        Row::Returned(slot, row) => DiskChange::Returned {
            slot: *slot,
            campaign: row.campaign.0,
            task: row.task.0,
            word: row.word,
            runs: row.runs,
        },
    }
}

fn change_from_disk(change: DiskChange) -> Change {
    Change::Put(match change {
        DiskChange::Globals { next_campaign } => Row::Globals(GlobalsRow { next_campaign }),
        DiskChange::Campaign { id, row } => Row::Campaign(CampaignId(id), Box::new(campaign_from_disk(*row))),
        DiskChange::Task { campaign, task, done, extra, issued } => {
            Row::Task(CampaignId(campaign), TaskIndex(task), TaskRow { done, extra, issued })
        }
        DiskChange::Lease { slot, generation, lease } => Row::Lease(
            slot,
            LeaseRow {
                generation,
                lease: lease.map(|lease| Lease {
                    session: lease.session,
                    campaign: CampaignId(lease.campaign),
                    task: TaskIndex(lease.task),
                    first_run: lease.first_run,
                    runs: lease.runs,
                    own: lease.own,
                    state: match lease.state {
                        DiskLeaseState::Live => LeaseState::Live,
                        DiskLeaseState::Expired => LeaseState::Expired,
                        DiskLeaseState::Gone => LeaseState::Gone,
                    },
                }),
            },
        ),
        DiskChange::Session { slot, row } => Row::Session(
            slot,
            SessionRow {
                id: SessionId(row.id),
                origin: row.origin,
                attempt: row.attempt,
                processed: row.processed,
                confirmed: row.confirmed,
                refusals: row.refusals.iter().map(refusal_from_disk).collect(),
            },
        ),
        DiskChange::SessionName { slot, name } => Row::SessionName(slot, name),
        DiskChange::Trouble { slot, row } => Row::Trouble(
            slot,
            TroubleRow {
                campaign: CampaignId(row.campaign),
                task: TaskIndex(row.task),
                errors: row.errors,
                losses: row.losses,
                quarantined: row.quarantined,
                last_error: row.last_error,
            },
        ),
        DiskChange::Returned { slot, campaign, task, word, runs } => {
            Row::Returned(slot, ReturnedRow { campaign: CampaignId(campaign), task: TaskIndex(task), word, runs })
        }
        DiskChange::Remove { key } => return Change::Remove(key_from_disk(key)),
        DiskChange::ClearTasks { campaign, first, tasks } => {
            return Change::ClearTasks { campaign: CampaignId(campaign), first: TaskIndex(first), tasks };
        }
    })
}

fn campaign_to_disk(row: &CampaignRow) -> DiskCampaign {
    let spec = &row.spec;
    DiskCampaign {
        name: spec.name.clone(),
        tasks: match spec.tasks {
            Tasks::Range { first, count } => DiskTasks::Range { first, count },
            Tasks::Keys { count } => DiskTasks::Keys { count },
        },
        runs: spec.runs,
        seed: spec.seed,
        order: match spec.order {
            Order::Lowest => DiskOrder::Lowest,
            Order::Even => DiskOrder::Even,
        },
        lease_ms: spec.lease_ms,
        timeout_ms: spec.timeout_ms,
        errors_max: spec.errors_max,
        losses_max: spec.losses_max,
        creation: row.creation.0,
        phase: match row.phase {
            Phase::Creating => DiskPhase::Creating,
            Phase::Running => DiskPhase::Running,
            Phase::Paused => DiskPhase::Paused,
            Phase::Cancelled => DiskPhase::Cancelled,
            Phase::Removing => DiskPhase::Removing,
        },
    }
}

fn campaign_from_disk(row: DiskCampaign) -> CampaignRow {
    CampaignRow {
        spec: CampaignSpec {
            name: row.name,
            tasks: match row.tasks {
                DiskTasks::Range { first, count } => Tasks::Range { first, count },
                DiskTasks::Keys { count } => Tasks::Keys { count },
            },
            runs: row.runs,
            seed: row.seed,
            order: match row.order {
                DiskOrder::Lowest => Order::Lowest,
                DiskOrder::Even => Order::Even,
            },
            lease_ms: row.lease_ms,
            timeout_ms: row.timeout_ms,
            errors_max: row.errors_max,
            losses_max: row.losses_max,
        },
        creation: CreationId(row.creation),
        phase: match row.phase {
            DiskPhase::Creating => Phase::Creating,
            DiskPhase::Running => Phase::Running,
            DiskPhase::Paused => Phase::Paused,
            DiskPhase::Cancelled => Phase::Cancelled,
            DiskPhase::Removing => Phase::Removing,
        },
    }
}

fn refusal_to_disk(refusal: &Refusal) -> DiskRefusal {
    DiskRefusal {
        from: refusal.from,
        to: refusal.to,
        reason: match refusal.reason {
            RefusalReason::NotHeld => DiskReason::NotHeld,
            RefusalReason::Ended => DiskReason::Ended,
            RefusalReason::Gone => DiskReason::Gone,
            RefusalReason::BadRuns => DiskReason::BadRuns,
        },
    }
}

fn refusal_from_disk(refusal: &DiskRefusal) -> Refusal {
    Refusal {
        from: refusal.from,
        to: refusal.to,
        reason: match refusal.reason {
            DiskReason::NotHeld => RefusalReason::NotHeld,
            DiskReason::Ended => RefusalReason::Ended,
            DiskReason::Gone => RefusalReason::Gone,
            DiskReason::BadRuns => RefusalReason::BadRuns,
        },
    }
}

fn key_to_disk(key: RowKey) -> DiskKey {
    match key {
        RowKey::Globals => DiskKey::Globals,
        RowKey::Campaign(id) => DiskKey::Campaign { id: id.0 },
        RowKey::Task(campaign, task) => DiskKey::Task { campaign: campaign.0, task: task.0 },
        RowKey::Lease(slot) => DiskKey::Lease { slot },
        RowKey::Session(slot) => DiskKey::Session { slot },
        RowKey::SessionName(slot) => DiskKey::SessionName { slot },
        RowKey::Trouble(slot) => DiskKey::Trouble { slot },
        RowKey::Returned(slot) => DiskKey::Returned { slot },
    }
}

fn key_from_disk(key: DiskKey) -> RowKey {
    match key {
        DiskKey::Globals => RowKey::Globals,
        DiskKey::Campaign { id } => RowKey::Campaign(CampaignId(id)),
        DiskKey::Task { campaign, task } => RowKey::Task(CampaignId(campaign), TaskIndex(task)),
        DiskKey::Lease { slot } => RowKey::Lease(slot),
        DiskKey::Session { slot } => RowKey::Session(slot),
        DiskKey::SessionName { slot } => RowKey::SessionName(slot),
        DiskKey::Trouble { slot } => RowKey::Trouble(slot),
        DiskKey::Returned { slot } => RowKey::Returned(slot),
    }
}
