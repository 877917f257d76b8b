//! Rows that a damaged disk may hold although their checksums are right: each is refused, none is a panic.

use super::*;
use crate::coordinator::Inconsistent;
use crate::coordinator::rows::{CLEAR_TASKS_UNIT, GlobalsRow, Lease, LeaseRow, LeaseState, ReturnedRow, SessionRow};
use crate::limits;
use crate::types::{CampaignId, TaskIndex};

/// What a store holds after two leases of 64 runs of a numbered campaign, to session 0.
fn sound() -> Vec<Row> {
    let mut world = World::new(Options::default());
    world.create(1, numbered("a", 10, 200));
    world.hello(1, 1, 1, InstanceId::NONE);
    world.want(1, 2, 64, &[]);
    world.stored.into_values().collect()
}

fn restore(rows: impl IntoIterator<Item = Row>) -> Result<Coordinator, Inconsistent> {
    let mut restorer = Restorer::new();
    rows.into_iter().try_for_each(|row| restorer.apply(Change::Put(row)))?;
    restorer.finish(Options::default(), INSTANCE, Tick(0))
}

fn session(processed: u64) -> SessionRow {
    SessionRow { id: SessionId([9; 16]), origin: false, attempt: 0, processed, confirmed: 0, refusals: vec![] }
}

#[test]
fn rows_that_contradict_the_rest_are_refused() {
    restore(sound()).unwrap();
    let lease = |state, task, first_run| {
        let (session, campaign, task) = (0, CampaignId(1), TaskIndex(task));
        let lease = Lease { session, campaign, task, first_run, runs: 64, own: 0, state };
        vec![Row::Lease(2, LeaseRow { generation: 1, lease: Some(lease) })]
    };
    let returned = ReturnedRow { campaign: CampaignId(1), task: TaskIndex(0), word: 0, runs: 0 };
    for (what, rows) in [
        ("no returned runs", vec![Row::Returned(0, returned)]),
        ("a task beyond all", lease(LeaseState::Gone, u32::MAX, 0)),
        ("expired runs never issued", lease(LeaseState::Expired, 0, 65)),
        ("expired runs beyond all", lease(LeaseState::Expired, 0, u32::MAX)),
        ("struck runs beyond all", lease(LeaseState::Live, 0, u32::MAX)),
        ("no generation", vec![Row::Lease(2, LeaseRow { generation: 0, lease: None })]),
        ("a gap between leases", vec![Row::Lease(3, LeaseRow { generation: 1, lease: None })]),
        ("no more numbers", vec![Row::Session(1, session(u64::MAX)), Row::SessionName(1, String::new())]),
        ("campaign 0 is next", vec![Row::Globals(GlobalsRow { next_campaign: 0 })]),
    ] {
        assert!(restore(sound().into_iter().chain(rows)).is_err(), "{what}");
    }
    assert!(restore(sound().into_iter().filter(|row| matches!(row, Row::Session(..) | Row::SessionName(..)))).is_err());
}

#[test]
fn keys_out_of_range_are_refused_before_anything_is_allocated() {
    let task = RowKey::Task(CampaignId(1), TaskIndex(limits::TASKS_MAX));
    let slot = limits::SESSIONS_MAX as u32;
    let (campaign, first) = (CampaignId(1), TaskIndex(CLEAR_TASKS_UNIT / 2));
    for change in [
        Change::Remove(task),
        Change::Put(Row::Session(slot, session(0))),
        Change::Put(Row::SessionName(slot, String::new())),
        Change::ClearTasks { campaign, first, tasks: CLEAR_TASKS_UNIT },
    ] {
        assert!(Restorer::new().apply(change.clone()).is_err(), "{change:?}");
    }
}

#[test]
fn the_last_campaign_id_is_not_given_out() {
    let mut coordinator = restore([Row::Globals(GlobalsRow { next_campaign: u32::MAX })]).unwrap();
    let request = ControlRequest::Create { creation: CreationId([1; 16]), spec: counted("a", 1, 1) };
    let command = Command::Control { connection: ConnectionId(1), id: 0, request };
    let step = coordinator.apply(Tick(0), command);
    assert!(matches!(step.outputs[..], [(_, Output::Control { answer: ControlAnswer::Failed(_), .. })]));
}
