//! The check of the books, checked: every contradiction that it speaks of is planted in a sound state, one at a time, and is
//! noticed under its name.
//!
//! Histories run the check after every step and recovery runs it once, so one that notices nothing would take the ground from
//! under both.

use super::*;
use crate::coordinator::Inconsistent;
use crate::coordinator::rows::{LeaseState, ReturnedRow};
use crate::limits;
use crate::types::{CampaignId, TaskIndex};

const NUMBERED: CampaignId = CampaignId(1);
const COUNTED: CampaignId = CampaignId(2);

/// A state with something in every table and index:
///
/// ```text
///   lease 0   session 0   runs   0 ..  64 of task 0 of the numbered campaign
///   lease 1   session 1   runs  64 .. 128 of it, expired: returned, and a trouble for the loss
///   lease 3   session 2   both runs of task 1 of the counted campaign
///             session 2   did task 2 of it, and failed task 0, which is set aside
///             session 3   waits for a campaign that is absent
/// ```
fn sound() -> Coordinator {
    let mut world = World::new(Options { expired_per_session_max: 1, ..Options::default() });
    world.create(1, numbered("numbered", 100, 200));
    world.create(2, CampaignSpec { errors_max: Some(1), ..counted("counted", 100, 2) });
    for session in 1..=4 {
        world.hello(session, session as u8, 1, InstanceId::NONE);
    }
    world.want(1, 1, 64, &["numbered"]);
    world.want(2, 1, 64, &["numbered"]);
    world.disconnect(2);
    let held = grants(&world.want(3, 3, 2, &["counted"]), 3);
    world.want(3, 0, 2, &[]);
    world.failed(3, 1, held[0].lease);
    world.done(3, 2, held[2].lease, 2);
    world.want(4, 1, 1, &["absent"]);
    world.pass(999);
    world.heartbeat(1);
    world.heartbeat(3);
    world.pass(1);
    world.coordinator
}

fn numbered_one(coordinator: &mut Coordinator) -> &mut crate::coordinator::Campaign {
    coordinator.campaigns.get_mut(&NUMBERED).unwrap()
}

fn counted_one(coordinator: &mut Coordinator) -> &mut crate::coordinator::Campaign {
    coordinator.campaigns.get_mut(&COUNTED).unwrap()
}

fn session(coordinator: &mut Coordinator, slot: u32) -> &mut crate::coordinator::sessions::Session {
    coordinator.sessions.get_mut(slot).unwrap()
}

fn lease(coordinator: &mut Coordinator, slot: u32) -> &mut crate::coordinator::rows::Lease {
    coordinator.leases.get_mut(slot).unwrap()
}

fn returned(coordinator: &mut Coordinator) -> &mut ReturnedRow {
    coordinator.returned.get_mut(0).unwrap()
}

fn trouble(coordinator: &mut Coordinator, slot: u32) -> &mut crate::coordinator::rows::TroubleRow {
    coordinator.troubles.get_mut(slot).unwrap()
}

/// Puts each contradiction into a sound state and expects this complaint.
fn noticed(complaint: &str, contradictions: &[fn(&mut Coordinator)]) {
    for (index, spoil) in contradictions.iter().enumerate() {
        let mut coordinator = sound();
        coordinator.check().unwrap();
        spoil(&mut coordinator);
        match coordinator.check() {
            Ok(()) => panic!("contradiction {index} is not noticed: {complaint}"),
            Err(Inconsistent(said)) => assert!(said.contains(complaint), "{index}: {said:?} instead of {complaint:?}"),
        }
    }
}

#[test]
fn sessions_and_their_leases_agree() {
    noticed(
        "the index of leases that may be forgotten",
        &[
            |all| all.leases.may_be_forgotten(0, false),
            |all| all.leases.may_be_forgotten(0, true),
            |all| all.leases.may_be_forgotten(1, false),
            |all| lease(all, 0).state = LeaseState::Expired,
            |all| lease(all, 1).state = LeaseState::Live,
        ],
    );
    noticed("session 0 and lease 99 disagree", &[|all| assert_eq!(session(all, 0).live.insert(99), 1)]);
    noticed(
        "session 0 and lease 0 disagree",
        &[
            |all| lease(all, 0).session = 1,
            |all| all.leases.set_place(0, 1),
            |all| {
                assert!(session(all, 0).live.remove(0, 0));
                session(all, 0).expired.push_back(0);
            },
        ],
    );
    noticed(
        "session 0 holds too many leases",
        &[|all| assert!((0..limits::LEASES_PER_SESSION_MAX).all(|slot| session(all, 0).live.insert(100 + slot) > 0))],
    );
    noticed("session 1 keeps too many expired leases", &[|all| all.options.expired_per_session_max = 0]);
    noticed(
        "a lease that its session does not know",
        &[|all| assert!(session(all, 0).live.remove(0, 0)), |all| session(all, 1).expired.clear()],
    );
    noticed(
        "the queues of those that wait",
        &[|all| session(all, 3).arrival = None, |all| session(all, 0).arrival = Some(77)],
    );
}

#[test]
fn leases_and_returned_runs_agree_with_their_indexes() {
    noticed("expired lease 1 owns runs", &[|all| lease(all, 1).own = 1]);
    noticed("the index of lent runs, lease 0", &[|all| numbered_one(all).lent.clear()]);
    noticed(
        "the index of lent runs, lease 3",
        &[|all| assert!(counted_one(all).lent.insert((TaskIndex(1), 0), 3).is_none())],
    );
    noticed(
        "returned runs 0 and their index disagree",
        &[
            |all| returned(all).campaign = COUNTED,
            |all| returned(all).task = TaskIndex(1),
            |all| returned(all).word = 0,
            |all| returned(all).runs = 0,
            |all| assert!(all.returned.remove(0).is_some()),
        ],
    );
    noticed(
        "returned runs of a task without counts",
        &[|all| {
            let row = ReturnedRow { campaign: NUMBERED, task: TaskIndex(5), word: 0, runs: 1 };
            let slot = all.returned.insert(row);
            numbered_one(all).returned.insert((TaskIndex(5), 0), slot);
        }],
    );
}

#[test]
fn the_books_of_every_task_balance() {
    noticed(
        "leased is not the sum over its leases",
        &[
            |all| numbered_one(all).tasks.get_mut(TaskIndex(0)).leased -= 1,
            |all| counted_one(all).tasks.get_mut(TaskIndex(1)).leased += 1,
            |all| lease(all, 0).own &= !1,
        ],
    );
    noticed("done is above the quota", &[|all| counted_one(all).tasks.get_mut(TaskIndex(2)).row.done = 3]);
    noticed(
        "issued is not done + lent + returned",
        &[
            |all| numbered_one(all).tasks.get_mut(TaskIndex(0)).row.issued += 1,
            |all| numbered_one(all).tasks.get_mut(TaskIndex(0)).row.done += 1,
            |all| returned(all).runs &= !1,
        ],
    );
    noticed(
        "issued is above the quota",
        &[|all| {
            let row = &mut numbered_one(all).tasks.get_mut(TaskIndex(0)).row;
            (row.done, row.issued) = (200, 328);
        }],
    );
    noticed(
        "a run in two places, or never issued",
        &[
            // Run 64 begins the returned ones: it is lent as well, run 63 is nowhere.
            |all| {
                lease(all, 0).first_run = 1;
                let lent = &mut numbered_one(all).lent;
                let slot = lent.remove(&(TaskIndex(0), 0)).unwrap();
                lent.insert((TaskIndex(0), 1), slot);
            },
            // The numbers of the returned ones begin at 128, as many as were issued.
            |all| {
                returned(all).word = 2;
                let index = &mut numbered_one(all).returned;
                let slot = index.remove(&(TaskIndex(0), 1)).unwrap();
                index.insert((TaskIndex(0), 2), slot);
            },
            // One of them is the first that was never issued, instead of run 64.
            |all| {
                returned(all).runs &= !1;
                let row = ReturnedRow { campaign: NUMBERED, task: TaskIndex(0), word: 2, runs: 1 };
                let slot = all.returned.insert(row);
                numbered_one(all).returned.insert((TaskIndex(0), 2), slot);
            },
        ],
    );
    noticed("leases of a task without counts", &[|all| counted_one(all).tasks.get_mut(TaskIndex(1)).leased = 0]);
    noticed(
        "the totals are not the sums over the tasks",
        &[
            |all| counted_one(all).totals.tasks_done += 1,
            |all| counted_one(all).totals.runs_done += 1,
            |all| counted_one(all).totals.runs_extra += 1,
            |all| counted_one(all).totals.runs_leased += 1,
        ],
    );
}

#[test]
fn the_index_of_open_tasks_is_a_full_scan() {
    noticed(
        "the index of open tasks",
        &[
            |all| numbered_one(all).open.remove(0, TaskIndex(0)),
            |all| numbered_one(all).open.insert(1, TaskIndex(0)),
            |all| counted_one(all).open.insert(0, TaskIndex(2)),
        ],
    );
    noticed(
        "a touched task beyond the frontier",
        &[
            |all| {
                assert_eq!(counted_one(all).open.frontier(), 64);
                counted_one(all).tasks.get_mut(TaskIndex(64)).row.extra = 1;
                counted_one(all).totals.runs_extra = 1;
            },
            |all| assert!(counted_one(all).quarantined.insert(TaskIndex(64))),
        ],
    );
}

#[test]
fn troubles_agree_with_their_indexes() {
    noticed(
        "task 0: its troubles and their index disagree",
        &[
            |all| trouble(all, 0).campaign = CampaignId(9),
            |all| trouble(all, 0).task = TaskIndex(1),
            |all| trouble(all, 0).quarantined ^= true,
            |all| trouble(all, 1).quarantined ^= true,
        ],
    );
    noticed(
        "task 0: done and set aside",
        &[|all| {
            let campaign = counted_one(all);
            campaign.tasks.get_mut(TaskIndex(0)).row.done = 2;
            campaign.totals.tasks_done += 1;
            campaign.totals.runs_done += 2;
        }],
    );
    noticed("a quarantined task without troubles", &[|all| counted_one(all).troubles.clear()]);
}

#[test]
fn the_indexes_over_campaigns_are_full_scans() {
    noticed(
        "the index of campaigns that lend",
        &[|all| assert!(all.lendable.remove(&NUMBERED)), |all| assert!(all.lendable.insert(CampaignId(9)))],
    );
    noticed(
        "the index of campaigns that are not settled",
        &[|all| assert!(all.unsettled.remove(&NUMBERED)), |all| assert!(all.unsettled.insert(CampaignId(9)))],
    );
    noticed(
        "the index of campaign names",
        &[
            |all| assert_eq!(all.names.insert("numbered".into(), COUNTED), Some(NUMBERED)),
            |all| assert_eq!(all.names.insert("another".into(), COUNTED), None),
        ],
    );
    noticed("campaign 1 (numbered): ", &[|all| numbered_one(all).totals.runs_done += 1]);
}
