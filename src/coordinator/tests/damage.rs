//! Rows that a damaged disk may hold although their checksums are right: each is refused under its name, none is a panic.
//!
//! Every bound is tried exactly there, where it is still taken, and just beyond.

use super::*;
use crate::coordinator::Inconsistent;
use crate::coordinator::rows::{
    CLEAR_TASKS_UNIT, CampaignRow, GlobalsRow, Lease, LeaseRow, LeaseState, Phase, ReturnedRow, SessionRow, TaskRow,
    TroubleRow,
};
use crate::limits;
use crate::types::{CampaignId, RefusalReason, TaskIndex};

const CAMPAIGN: CampaignId = CampaignId(1);

/// What a store holds of a numbered campaign of 10 tasks: runs 0 .. 64 of task 0 are lent under lease 0 to session 0, runs
/// 64 .. 128 came back, which is all that was issued, and lease slot 1 is free.
fn sound() -> Vec<Row> {
    let mut world = World::new(Options::default());
    world.create(1, numbered("a", 10, 200));
    world.hello(1, 1, 1, InstanceId::NONE);
    let held = grants(&world.want(1, 2, 64, &[]), 1);
    world.want(1, 0, 64, &[]);
    world.release(1, 1, held[1].lease);
    world.stored.into_values().collect()
}

fn restore(rows: impl IntoIterator<Item = Row>) -> Result<Coordinator, Inconsistent> {
    let mut restorer = Restorer::new();
    rows.into_iter().try_for_each(|row| restorer.apply(Change::Put(row)))?;
    restorer.finish(Options::default(), INSTANCE, Tick(0))
}

/// Adds rows, or puts them in the place of others, and expects this complaint.
fn refused(complaint: &str, rows: impl IntoIterator<Item = Row>) {
    match restore(sound().into_iter().chain(rows)) {
        Ok(_) => panic!("not refused: {complaint}"),
        Err(Inconsistent(said)) => assert_eq!(said, complaint),
    }
}

fn taken(rows: impl IntoIterator<Item = Row>) {
    restore(sound().into_iter().chain(rows)).unwrap();
}

/// A session that is not there yet.
fn another(change: impl FnOnce(&mut SessionRow)) -> [Row; 2] {
    let (id, refusals) = (SessionId([9; 16]), vec![]);
    let mut row = SessionRow { id, origin: false, attempt: 0, processed: 0, confirmed: 0, refusals };
    change(&mut row);
    [Row::Session(1, row), Row::SessionName(1, String::new())]
}

/// A lease of session 0 in the next slot, of runs that are struck or went back.
fn lease(change: impl FnOnce(&mut Lease)) -> [Row; 1] {
    let (campaign, task, state) = (CAMPAIGN, TaskIndex(0), LeaseState::Expired);
    let mut lease = Lease { session: 0, campaign, task, first_run: 64, runs: 64, own: 0, state };
    change(&mut lease);
    [Row::Lease(2, LeaseRow { generation: 1, lease: Some(lease) })]
}

fn returned(change: impl FnOnce(&mut ReturnedRow)) -> [Row; 1] {
    let mut row = ReturnedRow { campaign: CAMPAIGN, task: TaskIndex(0), word: 1, runs: u64::MAX };
    change(&mut row);
    [Row::Returned(0, row)]
}

fn trouble(slot: u32, task: u32) -> Row {
    let (errors, losses, quarantined, last_error) = (1, 0, false, String::new());
    Row::Trouble(
        slot,
        TroubleRow { campaign: CAMPAIGN, task: TaskIndex(task), errors, losses, quarantined, last_error },
    )
}

/// Another campaign, counted.
fn campaign(id: u32, change: impl FnOnce(&mut CampaignRow)) -> [Row; 2] {
    let spec = counted("b", 10, 200);
    let mut row = CampaignRow { spec, creation: CreationId([id as u8; 16]), phase: Phase::Running };
    change(&mut row);
    [Row::Campaign(CampaignId(id), Box::new(row)), Row::Globals(GlobalsRow { next_campaign: 3 })]
}

#[test]
fn nothing_is_there_without_the_globals() {
    restore([]).unwrap();
    taken([Row::Globals(GlobalsRow { next_campaign: 2 })]);
    refused("campaign 1 is newer than the newest", [Row::Globals(GlobalsRow { next_campaign: 1 })]);
    refused("the next campaign has no number", [Row::Globals(GlobalsRow { next_campaign: 0 })]);
    let free = Row::Lease(0, LeaseRow { generation: 1, lease: None });
    for rows in [vec![campaign(1, |_| ())[0].clone()], another(|_| ()).to_vec(), vec![free]] {
        assert_eq!(restore(rows).err(), Some(Inconsistent("rows without the globals".into())));
    }
}

#[test]
fn a_sessions_answers_are_possible() {
    let refusal = |from, to| Refusal { from, to, reason: RefusalReason::Ended };
    let answers = |processed, confirmed, stretches: &[(u64, u64)]| {
        let refusals = stretches.iter().map(|(from, to)| refusal(*from, *to)).collect();
        another(|row| (row.processed, row.confirmed, row.refusals) = (processed, confirmed, refusals))
    };
    let stretches = |count: u64| (1..=count).map(|number| (number, number)).collect::<Vec<_>>();
    taken(answers(9, 9, &[]));
    taken(answers(9, 2, &[(3, 3), (4, 9)]));
    taken(answers(99, 0, &stretches(32)));
    taken(answers(1 << 63, 0, &[]));
    for (processed, confirmed, stretches) in [
        (9, 10, vec![]),
        (9, 2, vec![(2, 3)]),
        (9, 2, vec![(3, 4), (4, 5)]),
        (9, 2, vec![(5, 4)]),
        (9, 2, vec![(9, 10)]),
        (99, 0, stretches(33)),
        ((1 << 63) + 1, 0, vec![]),
    ] {
        refused("session 1 has impossible answers", answers(processed, confirmed, &stretches));
    }
    refused("session 1 is there twice", another(|row| row.id = SessionId([1; 16])));
    refused("session 1 without a name", another(|_| ()).into_iter().take(1));
    refused("a session's name without the session", another(|_| ()).into_iter().skip(1));
}

#[test]
fn campaigns_and_counts_fit_together() {
    let counts = |campaign, task| {
        let row = TaskRow { done: 0, extra: 1, issued: 0 };
        [Row::Task(CampaignId(campaign), TaskIndex(task), row)]
    };
    taken(counts(1, 9));
    refused("campaign 1 has counts of tasks beyond its last", counts(1, 10));
    refused("counts of tasks without their campaign 2", counts(2, 0));
    taken(campaign(2, |_| ()));
    refused("two campaigns are named \"a\"", campaign(2, |row| row.spec.name = "a".into()));
    refused("campaign 2: a task has 1 to 1,000,000,000 runs", campaign(2, |row| row.spec.runs = 0));
    taken([trouble(0, 9)]);
    refused("trouble 0 without its task", [trouble(0, 10)]);
    refused("trouble 1 is there twice", [trouble(0, 9), trouble(1, 9)]);
}

#[test]
fn returned_runs_fit_their_task() {
    let unfit = "returned runs 0 do not fit their task";
    taken(returned(|_| ()));
    refused(unfit, returned(|row| row.runs = 0));
    refused(unfit, returned(|row| (row.word, row.runs) = (2, 1)));
    let beyond = Row::Task(CAMPAIGN, TaskIndex(10), TaskRow { done: 0, extra: 0, issued: 128 });
    refused(unfit, returned(|row| row.task = TaskIndex(10)).into_iter().chain([beyond]));
    refused(unfit, returned(|row| row.campaign = CampaignId(2)));
    let of_a_counted_one = returned(|row| (row.campaign, row.word, row.runs) = (CampaignId(2), 0, 1));
    let issued = Row::Task(CampaignId(2), TaskIndex(0), TaskRow { done: 0, extra: 0, issued: 1 });
    refused(unfit, campaign(2, |_| ()).into_iter().chain([issued]).chain(of_a_counted_one));
    let [Row::Returned(_, row)] = returned(|_| ()) else { panic!() };
    refused("returned runs 1 are there twice", [Row::Returned(1, row)]);
}

#[test]
fn leases_fit_their_sessions_and_tasks() {
    let slot = |slot, generation| [Row::Lease(slot, LeaseRow { generation, lease: None })];
    taken(slot(2, 1));
    refused("lease 2 follows a slot that lost its generation", slot(2, 0));
    refused("lease 3 follows a slot that lost its generation", slot(3, 1));
    taken(lease(|_| ()));
    // One of a campaign that is gone may have been of any task.
    let gone =
        |task| lease(|row| (row.campaign, row.task, row.state) = (CampaignId(0), TaskIndex(task), LeaseState::Gone));
    taken(gone(limits::TASKS_MAX - 1));
    refused("lease 2 has an impossible task", gone(limits::TASKS_MAX));
    taken(lease(|row| row.runs = 1));
    refused("lease 2 has an impossible number of runs", lease(|row| row.runs = 0));
    refused("lease 2 has an impossible number of runs", lease(|row| row.runs = 65));
    refused("lease 2 without its session", lease(|row| row.session = 1));
    refused("lease 2 without its task", lease(|row| row.task = TaskIndex(10)));
    refused("lease 2 without its task", lease(|row| row.campaign = CampaignId(2)));
    refused("lease 2 without its task", lease(|row| (row.task, row.state) = (TaskIndex(10), LeaseState::Live)));
    refused("lease 2 has runs that were never issued", lease(|row| row.first_run = 65));
    refused("lease 2 has runs that were never issued", lease(|row| row.first_run = u32::MAX));
    let live = |first_run, runs, own| {
        lease(|row| (row.first_run, row.runs, row.own, row.state) = (first_run, runs, own, LeaseState::Live))
    };
    taken(live(64, 64, 0));
    refused("lease 2 has runs that were never issued", live(u32::MAX, 64, 0));
    refused("lease 2 owns runs that it does not have", live(64, 1, 0b10));
    refused("lease 2 begins where another one does", live(0, 1, 0));
    let of_a_counted_one = |own| {
        let rows = lease(|row| {
            (row.campaign, row.first_run, row.runs, row.own, row.state) = (CampaignId(2), 0, 1, own, LeaseState::Live);
        });
        campaign(2, |_| ()).into_iter().chain(rows)
    };
    taken(of_a_counted_one(0));
    refused("lease 2 owns runs that it does not have", of_a_counted_one(1));
    let origin = |task| {
        let [Row::Lease(_, first)] = lease(|row| {
            (row.session, row.campaign, row.first_run) = (1, CampaignId(2), 0);
        }) else {
            panic!()
        };
        let second = Lease { task: TaskIndex(task), ..first.lease.unwrap() };
        let leases = [Row::Lease(2, first), Row::Lease(3, LeaseRow { generation: 1, lease: Some(second) })];
        another(|row| row.origin = true).into_iter().chain(campaign(2, |_| ())).chain(leases)
    };
    taken(origin(1));
    refused("lease 3 is a second one of its task on a connection of the origin's dialect", origin(0));
}

#[test]
fn keys_out_of_range_are_refused_before_anything_is_allocated() {
    let apply = |change: Change| Restorer::new().apply(change);
    let in_range = |key| apply(Change::Remove(key)).is_ok();
    let task = |task| RowKey::Task(CAMPAIGN, TaskIndex(task));
    assert_eq!([0, 1].map(|id| in_range(RowKey::Campaign(CampaignId(id)))), [false, true]);
    assert_eq!([limits::TASKS_MAX - 1, limits::TASKS_MAX].map(|index| in_range(task(index))), [true, false]);
    let sessions = limits::SESSIONS_MAX as u32;
    for (key, max) in [
        (RowKey::Session as fn(u32) -> RowKey, sessions),
        (RowKey::SessionName, sessions),
        (RowKey::Lease, 1 << 28),
        (RowKey::Trouble, 1 << 28),
        (RowKey::Returned, 1 << 28),
    ] {
        assert_eq!([max - 1, max].map(|slot| in_range(key(slot))), [true, false], "{:?}", key(max));
    }
    assert!(apply(Change::Put(Row::SessionName(sessions, String::new()))).is_err());
    let clear = |first, tasks| apply(Change::ClearTasks { campaign: CAMPAIGN, first: TaskIndex(first), tasks }).is_ok();
    let unit = CLEAR_TASKS_UNIT;
    assert_eq!(
        [(unit, 2 * unit), (unit / 2, unit), (unit, unit / 2)].map(|(first, tasks)| clear(first, tasks)),
        [true, false, false]
    );
}

#[test]
fn the_last_word_on_a_row_counts() {
    let rows = || sound().into_iter().chain(another(|_| ())).chain([trouble(0, 9)]);
    let mut restorer = Restorer::new();
    let mut apply = |change| restorer.apply(change).unwrap();
    rows().for_each(|row| apply(Change::Put(row)));
    rows().for_each(|row| apply(Change::Remove(row.key())));
    // Nothing was ever there of what is not known.
    rows().for_each(|row| apply(Change::Remove(row.key())));
    let emptied = restorer.finish(Options::default(), INSTANCE, Tick(0)).unwrap();
    assert_eq!(emptied.durable_view(), restore([]).unwrap().durable_view());
}

#[test]
fn cleared_tasks_are_gone_and_only_those() {
    let unit = CLEAR_TASKS_UNIT;
    let row = TaskRow { done: 1, extra: 0, issued: 0 };
    let mut restorer = Restorer::new();
    restorer.apply(Change::Put(Row::Globals(GlobalsRow { next_campaign: 2 }))).unwrap();
    let spec = counted("a", 4 * unit, 1);
    let campaign = CampaignRow { spec, creation: CreationId([1; 16]), phase: Phase::Running };
    restorer.apply(Change::Put(Row::Campaign(CAMPAIGN, Box::new(campaign)))).unwrap();
    for task in [0, unit - 1, unit, 3 * unit - 1, 3 * unit] {
        restorer.apply(Change::Put(Row::Task(CAMPAIGN, TaskIndex(task), row))).unwrap();
    }
    restorer.apply(Change::ClearTasks { campaign: CAMPAIGN, first: TaskIndex(unit), tasks: 2 * unit }).unwrap();
    // Beyond what anybody has touched there is nothing to clear.
    restorer.apply(Change::ClearTasks { campaign: CAMPAIGN, first: TaskIndex(8 * unit), tasks: unit }).unwrap();
    let coordinator = restorer.finish(Options::default(), INSTANCE, Tick(0)).unwrap();
    let left = coordinator.rows().filter_map(|row| match row {
        Row::Task(_, TaskIndex(task), _) => Some(task),
        _ => None,
    });
    assert_eq!(left.collect::<Vec<_>>(), [0, unit - 1, 3 * unit]);
}

#[test]
fn a_slot_whose_generations_are_used_up_is_never_used_again() {
    for (generation, slots) in [(u32::MAX - 2, [2, 2]), (u32::MAX - 1, [2, 3]), (u32::MAX, [3, 3])] {
        // Slot 1 is taken by one more lease, so that slot 2 is the lowest that is free.
        let taken = Row::Lease(1, LeaseRow { generation: u32::MAX, lease: None });
        let used = Row::Lease(2, LeaseRow { generation, lease: None });
        let mut world = World::new(Options::default());
        world.stored = sound().into_iter().chain([taken, used]).map(|row| (row.key(), row)).collect();
        world.restart();
        world.hello(1, 5, 1, InstanceId::NONE);
        let lent = [1, 2].map(|number| {
            let lease = grants(&world.want(1, 1, 1, &[]), 1)[0].lease;
            world.want(1, 0, 1, &[]);
            world.done(1, number, lease, 1);
            lease.slot
        });
        assert_eq!(lent, slots, "generation {generation}");
    }
}

#[test]
fn the_last_campaign_id_is_not_given_out() {
    let mut coordinator = restore([Row::Globals(GlobalsRow { next_campaign: u32::MAX })]).unwrap();
    let request = ControlRequest::Create { creation: CreationId([1; 16]), spec: Box::new(counted("a", 1, 1)) };
    let command = Command::Control { connection: ConnectionId(1), id: 0, request };
    let step = coordinator.apply(Tick(0), command);
    assert!(matches!(step.outputs[..], [(_, Output::Control { answer: ControlAnswer::Failed(_), .. })]));
}
