//! Dialogues with the native dialect's commands: what is said, what is answered, and that nothing else is.

use super::*;
use crate::coordinator::TextChange;
use crate::coordinator::command::ControlError;
use crate::coordinator::rows::{CLEAR_TASKS_UNIT, Changed};
use crate::limits;
use crate::types::{
    CampaignId, CampaignState, Idle, LossReason, RefusalReason, RequestFate, Settled, TaskIndex, TaskState,
};

fn world() -> World {
    World::new(Options::default())
}

/// (task, first run, runs) of each grant.
fn lent(outputs: &[(u64, Output)], to: u64) -> Vec<(u32, u32, u32)> {
    grants(outputs, to).iter().map(|grant| (grant.task.0, grant.first_run, grant.runs)).collect()
}

fn idle(outputs: &[(u64, Output)], to: u64) -> Option<Idle> {
    outputs.iter().rev().find_map(|(connection, output)| match output {
        Output::Idle(idle) if *connection == to => Some(*idle),
        _ => None,
    })
}

fn lost(outputs: &[(u64, Output)], to: u64) -> Vec<LossReason> {
    let to_it = outputs.iter().filter(|(connection, _)| *connection == to);
    to_it
        .flat_map(|(_, output)| match output {
            Output::Lost { leases } => leases.iter().map(|(_, reason)| *reason).collect(),
            _ => Vec::new(),
        })
        .collect()
}

#[test]
fn a_counted_campaign_from_first_grant_to_finished() {
    let mut world = world();
    world.create(1, counted("a", 2, 2));
    assert_eq!(
        world.hello(1, 1, 1, InstanceId::NONE),
        [(1, Output::Welcome { instance: INSTANCE, resumed: false, through: 0, refusals: vec![], leases: 0 })]
    );
    let outputs = world.want(1, 10, 1, &[]);
    assert_eq!(lent(&outputs, 1), [(0, 0, 1), (0, 0, 1), (1, 0, 1), (1, 0, 1)], "lowest first, up to the quota");
    assert_eq!(idle(&outputs, 1), Some(Idle::Lent));
    let held = grants(&outputs, 1);
    for (index, grant) in held[..3].iter().enumerate() {
        let number = index as u64 + 1;
        assert_eq!(world.done(1, number, grant.lease, 1), [(1, Output::Answers { through: number, refusals: vec![] })]);
    }
    let outputs = world.done(1, 4, held[3].lease, 1);
    assert_eq!(idle(&outputs, 1), Some(Idle::Settled(Settled { quarantined: 0, cancelled: false })));
    assert_eq!(world.counts("a"), [(2, 0, 0), (2, 0, 0)]);
    assert!(world.status("a").finished);
}

#[test]
fn many_grants_go_out_in_messages_of_bounded_length() {
    /// How many grants each message to a connection has, and how many campaigns it describes.
    fn messages(outputs: &[(u64, Output)], to: u64) -> Vec<(usize, usize)> {
        let to_it = outputs.iter().filter(|(connection, _)| *connection == to);
        to_it
            .filter_map(|(_, output)| match output {
                Output::Grants { grants, campaigns, .. } => {
                    assert_eq!(grants.capacity(), grants.len(), "no more memory than an outbox counts");
                    Some((grants.len(), campaigns.len()))
                }
                _ => None,
            })
            .collect()
    }
    const MOST: usize = limits::GRANTS_PER_MESSAGE_MAX;
    let mut world = world();
    world.create(1, counted("a", 1, 3 * MOST as u32));
    world.hello(1, 1, 1, InstanceId::NONE);
    let outputs = world.want(1, 2 * MOST as u32 + 1, 1, &[]);
    assert_eq!(messages(&outputs, 1), [(MOST, 1), (MOST, 0), (1, 0)]);
    let held = grants(&outputs, 1);
    let outputs = world.hello(2, 1, 2, INSTANCE);
    assert_eq!(messages(&outputs, 2), [(MOST, 1), (MOST, 0), (1, 0)], "as often as they are sent again");
    assert_eq!(grants(&outputs, 2), held);
    let outputs = world.want(2, 4 * MOST as u32, 1, &[]);
    assert_eq!(messages(&outputs, 2), [(MOST - 1, 0)], "all that was left");
    // What comes back fills a message to the last place, and no empty one follows.
    world.hello(3, 2, 1, InstanceId::NONE);
    world.want(2, 0, 1, &[]);
    let requests = held[..MOST].iter().map(|grant| Request::Release { lease: grant.lease }).collect();
    world.requests(2, 1, requests);
    assert_eq!(messages(&world.want(3, 2 * MOST as u32, 1, &[]), 3), [(MOST, 1)]);
}

#[test]
fn a_report_counts_once_however_often_it_is_sent() {
    let mut world = world();
    world.create(1, counted("a", 1, 10));
    world.hello(1, 1, 1, InstanceId::NONE);
    let lease = grants(&world.want(1, 1, 1, &[]), 1)[0].lease;
    world.want(1, 0, 1, &[]);
    let answered = [(1, Output::Answers { through: 1, refusals: vec![] })];
    assert_eq!(world.done(1, 1, lease, 1), answered);
    assert_eq!(world.done(1, 1, lease, 1), answered);
    world.restart();
    world.hello(2, 1, 2, INSTANCE);
    assert_eq!(world.done(2, 1, lease, 1), [(2, Output::Answers { through: 1, refusals: vec![] })]);
    assert_eq!(world.counts("a"), [(1, 0, 0)]);
    // The same lease under a new number is refused, and stays refused.
    let refused = vec![Refusal { from: 2, to: 2, reason: RefusalReason::Ended }];
    assert_eq!(answer(&world.done(2, 2, lease, 1), 2), Some((2, refused.clone())));
    world.restart();
    let outputs = world.hello(3, 1, 3, INSTANCE);
    assert_eq!(
        outputs[0].1,
        Output::Welcome { instance: INSTANCE, resumed: true, through: 2, refusals: refused, leases: 0 }
    );
    assert_eq!(world.counts("a"), [(1, 0, 0)]);
}

#[test]
fn numbers_have_no_gaps() {
    let mut world = world();
    world.hello(1, 1, 1, InstanceId::NONE);
    let nothing = LeaseId { slot: 3, generation: 1 };
    assert_eq!(closed(&world.done(1, 2, nothing, 1), 1), Some(CloseReason::Gap));
    assert_eq!(closed(&world.done(1, 0, nothing, 1), 1), Some(CloseReason::Gap));
    let refused = Refusal { from: 1, to: 1, reason: RefusalReason::NotHeld };
    assert_eq!(answer(&world.done(1, 1, nothing, 1), 1), Some((1, vec![refused])));
    // Nothing of such a message is taken, not even what it confirms.
    let gap = Command::Requests {
        connection: ConnectionId(1),
        first: 3,
        confirmed: 1,
        requests: vec![Request::Release { lease: nothing }],
    };
    assert_eq!(closed(&world.apply(gap), 1), Some(CloseReason::Gap));
    assert_eq!(answer(&world.requests(1, 1, vec![]), 1), Some((1, vec![refused])));
}

#[test]
fn only_the_holder_of_a_lease_can_speak_of_it() {
    let mut world = world();
    world.create(1, counted("a", 1, 9));
    world.hello(1, 1, 1, InstanceId::NONE);
    world.hello(2, 2, 1, InstanceId::NONE);
    let held = grants(&world.want(1, 1, 1, &[]), 1)[0].lease;
    let other = grants(&world.want(2, 1, 1, &[]), 2)[0].lease;
    world.want(1, 0, 1, &[]);
    let of = |slot, generation| LeaseId { slot, generation };
    world.done(1, 1, held, 1);
    for (number, (lease, reason)) in (2..).zip([
        (of(held.slot, 0), RefusalReason::NotHeld),
        (held, RefusalReason::Ended),
        (of(held.slot, held.generation + 1), RefusalReason::NotHeld),
        (other, RefusalReason::NotHeld),
        (of(9, 1), RefusalReason::NotHeld),
    ]) {
        let (_, refusals) = answer(&world.done(1, number, lease, 1), 1).unwrap();
        assert_eq!(refusals.last().map(|refusal| (refusal.to, refusal.reason)), Some((number, reason)), "{lease:?}");
    }
    assert_eq!(world.counts("a"), [(1, 0, 1)]);
}

#[test]
fn a_heartbeat_is_written_down_only_if_refusals_were_read() {
    let mut world = world();
    world.hello(1, 1, 1, InstanceId::NONE);
    world.release(1, 1, LeaseId { slot: 3, generation: 1 });
    let mut changes = |confirmed| {
        let step = world.coordinator.apply(Tick(0), Command::Heartbeat { connection: ConnectionId(1), confirmed });
        world.store(&step);
        world.check();
        step.changes.len()
    };
    assert_eq!([changes(1), changes(1)], [1, 0]);
    assert_eq!(
        world.control(ControlRequest::Fate { session: SessionId([1; 16]), number: 1 }),
        ControlAnswer::Fate(RequestFate::Confirmed)
    );
}

#[test]
fn refusals_are_kept_until_read_and_then_no_longer() {
    let mut world = world();
    world.hello(1, 1, 1, InstanceId::NONE);
    // Refusals with alternating reasons cannot be merged; the list is full after REFUSALS_MAX stretches.
    world.create(1, counted("a", 1, 1000));
    let held = grants(&world.want(1, 40, 1, &[]), 1);
    let mut requests = Vec::new();
    for grant in &held {
        let lease = grant.lease;
        requests.push(Request::Report { lease, outcome: Outcome::Done { runs: limits::UNITS_MAX + 1 } });
        requests.push(Request::Report {
            lease: LeaseId { slot: 9_999, generation: 1 },
            outcome: Outcome::Done { runs: 1 },
        });
    }
    let outputs = world.requests(1, 1, requests.clone());
    let (through, refusals) = answer(&outputs, 1).unwrap();
    assert_eq!((through, refusals.len()), (32, limits::REFUSALS_MAX));
    assert_eq!(closed(&outputs, 1), Some(CloseReason::RefusalsUnread));
    // The client reconnects, confirms, and goes on where the answers ended.
    let hello =
        Hello { session: SessionId([1; 16]), instance: INSTANCE, attempt: 2, confirmed: through, name: String::new() };
    world.apply(Command::Hello { connection: ConnectionId(2), hello });
    let outputs = world.requests(2, 1, requests);
    assert_eq!(answer(&outputs, 2).map(|(through, refusals)| (through, refusals.len())), Some((64, 32)));
    assert_eq!(
        world.control(ControlRequest::Fate { session: SessionId([1; 16]), number: 3 }),
        ControlAnswer::Fate(RequestFate::Confirmed)
    );
    assert_eq!(
        world.control(ControlRequest::Fate { session: SessionId([1; 16]), number: 64 }),
        ControlAnswer::Fate(RequestFate::Refused(RefusalReason::NotHeld))
    );
}

#[test]
fn a_stretch_of_refusals_is_confirmed_in_part() {
    let mut world = world();
    world.hello(1, 1, 1, InstanceId::NONE);
    let nothing = Request::Release { lease: LeaseId { slot: 3, generation: 1 } };
    world.requests(1, 1, vec![nothing; 5]);
    let mut left = |confirmed| {
        let (connection, requests) = (ConnectionId(1), vec![]);
        let outputs = world.apply(Command::Requests { connection, first: 6, confirmed, requests });
        answer(&outputs, 1).unwrap().1.iter().map(|refusal| (refusal.from, refusal.to)).collect::<Vec<_>>()
    };
    assert_eq!(left(0), [(1, 5)]);
    assert_eq!(left(3), [(4, 5)]);
    assert_eq!(left(2), [(4, 5)], "what was confirmed stays so");
    assert_eq!(left(4), [(5, 5)]);
    assert_eq!(left(9), [], "what is not answered is not confirmed");
    assert_eq!(
        world.control(ControlRequest::Fate { session: SessionId([1; 16]), number: 6 }),
        ControlAnswer::Fate(RequestFate::NotReceived)
    );
}

#[test]
fn every_request_has_a_fate() {
    let mut world = world();
    world.create(1, counted("a", 1, 10));
    world.hello(1, 1, 1, InstanceId::NONE);
    let lease = grants(&world.want(1, 1, 1, &[]), 1)[0].lease;
    world.done(1, 1, lease, 1);
    let fate = |world: &mut World, session: u8, number| {
        world.control(ControlRequest::Fate { session: SessionId([session; 16]), number })
    };
    assert_eq!(fate(&mut world, 1, 1), ControlAnswer::Fate(RequestFate::Counted));
    assert_eq!(fate(&mut world, 1, 2), ControlAnswer::Fate(RequestFate::NotReceived));
    assert_eq!(fate(&mut world, 1, 0), ControlAnswer::Fate(RequestFate::NotReceived), "there is no such number");
    assert_eq!(fate(&mut world, 2, 1), ControlAnswer::Fate(RequestFate::UnknownSession));
    let connection = ConnectionId(1);
    world.apply(Command::Requests { connection, first: 2, confirmed: 1, requests: vec![] });
    assert_eq!(fate(&mut world, 1, 1), ControlAnswer::Fate(RequestFate::Confirmed));
}

#[test]
fn more_units_than_leased_count_as_well_and_fewer_return_the_rest() {
    let mut world = world();
    world.create(1, counted("a", 1, 10));
    world.hello(1, 1, 1, InstanceId::NONE);
    let lease = grants(&world.want(1, 1, 4, &[]), 1)[0].lease;
    world.want(1, 0, 1, &[]);
    assert_eq!(world.counts("a"), [(0, 0, 4)]);
    world.done(1, 1, lease, 1);
    assert_eq!(world.counts("a"), [(1, 0, 0)]);
    let lease = grants(&world.want(1, 1, 1, &[]), 1)[0].lease;
    world.want(1, 0, 1, &[]);
    world.done(1, 2, lease, 12);
    assert_eq!(world.counts("a"), [(10, 3, 0)]);
    assert!(world.status("a").finished);
}

#[test]
fn a_vanished_clients_work_goes_to_others_and_its_late_report_counts() {
    let mut world = world();
    world.create(1, counted("a", 1, 1));
    world.hello(1, 1, 1, InstanceId::NONE);
    world.hello(2, 2, 1, InstanceId::NONE);
    let late = grants(&world.want(1, 1, 1, &[]), 1)[0].lease;
    assert_eq!(idle(&world.want(2, 1, 1, &[]), 2), Some(Idle::Lent));
    world.disconnect(1);
    // Just before the end of the lease nothing happens; then those who wait get the run at once.
    assert_eq!(world.pass(999), []);
    let outputs = world.pass(1);
    assert_eq!(lent(&outputs, 2), [(0, 0, 1)]);
    assert_eq!(world.status("a").losses, 1);
    let second = grants(&outputs, 2)[0].lease;
    world.hello(3, 1, 2, INSTANCE);
    assert_eq!(answer(&world.done(3, 1, late, 1), 3), Some((1, vec![])));
    assert_eq!(world.counts("a"), [(1, 0, 1)]);
    world.done(2, 1, second, 1);
    assert_eq!(world.counts("a"), [(1, 1, 0)], "both were executed; one is extra");
}

#[test]
fn heartbeats_keep_leases_and_a_timeout_ends_them_all_the_same() {
    let mut world = world();
    world.create(1, counted("a", 1, 1));
    world.hello(1, 1, 1, InstanceId::NONE);
    world.want(1, 1, 1, &[]);
    for _ in 0..21 {
        assert_eq!(world.pass(500), []);
        assert_eq!(world.heartbeat(1), []);
    }
    let outputs = world.pass(500);
    assert_eq!(lost(&outputs, 1), [LossReason::TimedOut]);
    // The client is alive, so it may be lent the run again, for another try.
    assert_eq!(lent(&outputs, 1), [(0, 0, 1)]);
}

#[test]
fn who_is_silent_when_time_runs_out_is_silent() {
    // A lease of one run with a timeout this long is due half a second later; its silence is due after a second.
    for (timeout_ms, reason, granted) in [(499, LossReason::TimedOut, 1), (500, LossReason::Expired, 0)] {
        let mut world = world();
        world.create(1, CampaignSpec { timeout_ms: Some(timeout_ms), ..counted("a", 1, 1) });
        world.hello(1, 1, 1, InstanceId::NONE);
        world.want(1, 1, 1, &[]);
        let outputs = world.pass(1_000);
        assert_eq!((lost(&outputs, 1), lent(&outputs, 1).len()), (vec![reason], granted));
    }
}

#[test]
fn a_client_that_fell_silent_is_lent_nothing_until_it_is_heard() {
    let mut world = world();
    world.create(1, counted("a", 1, 2));
    world.hello(1, 1, 1, InstanceId::NONE);
    world.want(1, 1, 1, &[]);
    let outputs = world.pass(1_000);
    assert_eq!(lost(&outputs, 1), [LossReason::Expired]);
    assert_eq!(lent(&outputs, 1), []);
    assert_eq!(lent(&world.heartbeat(1), 1), [(0, 0, 1)]);
}

#[test]
fn late_numbered_reports_take_their_runs_wherever_they_are() {
    let mut world = world();
    world.create(1, numbered("a", 1, 6));
    world.hello(1, 1, 1, InstanceId::NONE);
    let first = grants(&world.want(1, 1, 6, &[]), 1)[0];
    assert_eq!((first.first_run, first.runs), (0, 6));
    world.disconnect(1);
    world.pass(1_000);
    // Runs 0..3 are lent again, 0 of them is done again; 3..6 lie returned.
    world.hello(2, 2, 1, InstanceId::NONE);
    let done = grants(&world.want(2, 1, 1, &[]), 2)[0];
    world.want(2, 0, 1, &[]);
    world.done(2, 1, done.lease, 1);
    let again = grants(&world.want(2, 1, 2, &[]), 2)[0];
    assert_eq!((again.first_run, again.runs), (1, 2));
    assert_eq!(world.counts("a"), [(1, 0, 2)]);
    world.hello(3, 1, 2, INSTANCE);
    let outputs = world.done(3, 1, first.lease, 6);
    assert_eq!(lost(&outputs, 2), [LossReason::DoneElsewhere]);
    assert_eq!(world.counts("a"), [(6, 1, 0)], "run 0 was done already, the rest counts");
    // What the struck holder still reports was executed, but is extra.
    assert_eq!(answer(&world.done(2, 2, again.lease, 2), 2), Some((2, vec![])));
    assert_eq!(world.counts("a"), [(6, 3, 0)]);
}

/// Both runs of a numbered task are lent to session 2 after session 1 let them expire and came back: the world and the two leases.
fn lent_again() -> (World, LeaseId, LeaseId) {
    let mut world = world();
    world.create(1, numbered("a", 1, 2));
    world.hello(1, 1, 1, InstanceId::NONE);
    let first = grants(&world.want(1, 1, 2, &[]), 1)[0].lease;
    world.disconnect(1);
    world.pass(1_000);
    world.hello(2, 2, 1, InstanceId::NONE);
    let second = grants(&world.want(2, 1, 2, &[]), 2)[0].lease;
    world.want(2, 0, 2, &[]);
    world.hello(3, 1, 2, INSTANCE);
    (world, first, second)
}

#[test]
fn a_lease_is_not_lost_while_one_run_of_it_is_wanted() {
    let (mut world, first, second) = lent_again();
    let outputs = world.done(3, 1, first, 1);
    assert_eq!(lost(&outputs, 2), [], "run 1 is still to be done");
    assert_eq!(world.counts("a"), [(1, 0, 1)]);
    let answered = [(2, Output::Answers { through: 1, refusals: vec![] })];
    assert_eq!(world.done(2, 1, second, 2), answered, "and is done; who reports a lease is not told that it is lost");
    assert_eq!(world.counts("a"), [(2, 1, 0)]);
}

#[test]
fn only_runs_that_a_lease_still_owns_are_lost_with_it() {
    for (late, losses) in [(1, 3), (2, 2)] {
        let (mut world, first, _) = lent_again();
        assert_eq!(world.status("a").losses, 2);
        world.done(3, 1, first, late);
        world.pass(1_000);
        assert_eq!(world.status("a").losses, losses, "{late} of its two runs were done elsewhere");
    }
}

#[test]
fn a_numbered_report_beyond_its_lease_is_refused() {
    let mut world = world();
    world.create(1, numbered("a", 1, 6));
    world.hello(1, 1, 1, InstanceId::NONE);
    let leases: Vec<_> = grants(&world.want(1, 5, 1, &[]), 1).iter().map(|grant| grant.lease).collect();
    world.want(1, 0, 1, &[]);
    let bad = |number| vec![Refusal { from: 1, to: number, reason: RefusalReason::BadRuns }];
    assert_eq!(answer(&world.done(1, 1, leases[0], 2), 1), Some((1, bad(1))));
    let report = |lease, outcome| vec![Request::Report { lease, outcome }];
    let mixed = |lease, done, failed| report(lease, Outcome::Mixed { done, failed, error: String::new() });
    assert_eq!(answer(&world.requests(1, 2, mixed(leases[1], 0b10, 0)), 1), Some((2, bad(2))));
    assert_eq!(answer(&world.requests(1, 3, mixed(leases[2], 0b1, 0b1)), 1), Some((3, bad(3))));
    assert_eq!(answer(&world.requests(1, 4, mixed(leases[3], 0, 0)), 1), Some((4, bad(4))));
    assert_eq!(world.counts("a"), [(0, 0, 1)], "what they lent has gone back");
    assert_eq!(answer(&world.requests(1, 5, mixed(leases[4], 0b1, 0)), 1), Some((5, bad(4))));
    assert_eq!(world.counts("a"), [(1, 0, 0)]);
}

#[test]
fn a_report_that_cannot_be_ends_its_lease_all_the_same() {
    let mut world = world();
    world.create(1, numbered("a", 1, 2));
    world.hello(1, 1, 1, InstanceId::NONE);
    let lease = grants(&world.want(1, 1, 2, &[]), 1)[0].lease;
    world.want(1, 0, 1, &[]);
    world.done(1, 1, lease, 3);
    // The client has reported the lease and will not speak of it again, but goes on to give signs of life.
    world.hello(2, 2, 1, InstanceId::NONE);
    assert_eq!(lent(&world.want(2, 1, 2, &[]), 2), [(0, 0, 2)], "others do the runs");
    let refused = |from, reason| Refusal { from, to: from, reason };
    let both = vec![refused(1, RefusalReason::BadRuns), refused(2, RefusalReason::Ended)];
    assert_eq!(answer(&world.done(1, 2, lease, 2), 1), Some((2, both)));
    assert_eq!(world.counts("a"), [(0, 0, 2)]);
}

#[test]
fn returned_runs_go_out_again_under_their_numbers() {
    let mut world = world();
    world.create(1, numbered("a", 1, 200));
    world.hello(1, 1, 1, InstanceId::NONE);
    let held = grants(&world.want(1, 3, 64, &[]), 1);
    assert_eq!(
        lent(&[(1, Output::Grants { campaigns: vec![], grants: held.clone(), resent: false })], 1),
        [(0, 0, 64), (0, 64, 64), (0, 128, 64)]
    );
    world.want(1, 0, 64, &[]);
    // All but runs 10 and 11, and 70, come back.
    let outcome = |done| Outcome::Mixed { done, failed: 0, error: String::new() };
    world.requests(1, 1, vec![Request::Report { lease: held[0].lease, outcome: outcome(!(0b11 << 10)) }]);
    world.requests(1, 2, vec![Request::Report { lease: held[1].lease, outcome: outcome(!(1 << 6)) }]);
    assert_eq!(lent(&world.want(1, 9, 64, &[]), 1), [(0, 10, 2), (0, 70, 1), (0, 192, 8)]);
    assert_eq!(world.counts("a"), [(125, 0, 75)]);
}

#[test]
fn failures_use_up_the_budget_and_requeue_gives_a_fresh_one() {
    let mut world = world();
    world.create(1, counted("a", 1, 5));
    world.hello(1, 1, 1, InstanceId::NONE);
    let mut lease = grants(&world.want(1, 1, 1, &[]), 1)[0].lease;
    for number in 1..=2 {
        lease = grants(&world.failed(1, number, lease), 1)[0].lease;
    }
    let outputs = world.failed(1, 3, lease);
    assert_eq!(lent(&outputs, 1), []);
    assert_eq!(idle(&outputs, 1), Some(Idle::Settled(Settled { quarantined: 1, cancelled: false })));
    let status = world.status("a");
    assert!(status.settled && !status.finished);
    let request = ControlRequest::Counts { campaign: "a".into(), from: TaskIndex(0), limit: 1 };
    let ControlAnswer::Counts { tasks, .. } = world.control(request) else { panic!() };
    assert_eq!(
        (tasks[0].state, tasks[0].errors, tasks[0].last_error.as_str()),
        (TaskState::Quarantined, 3, "it broke")
    );
    let requeue = Command::Control {
        connection: ConnectionId(999),
        id: 1,
        request: ControlRequest::Requeue { campaign: "a".into() },
    };
    let outputs = world.apply(requeue);
    assert!(outputs.contains(&(999, Output::Control { id: 1, answer: ControlAnswer::Done { tasks: 1 } })));
    assert_eq!(lent(&outputs, 1), [(0, 0, 1)], "who waits is lent the run the moment it opens");
    assert_eq!(world.status("a").errors, 0);
}

#[test]
fn a_quarantined_task_still_counts_what_is_outstanding() {
    let mut world = world();
    world.create(1, CampaignSpec { errors_max: Some(1), ..counted("a", 1, 2) });
    world.hello(1, 1, 1, InstanceId::NONE);
    let held = grants(&world.want(1, 2, 1, &[]), 1);
    world.failed(1, 1, held[0].lease);
    assert_eq!(world.status("a").tasks_quarantined, 1);
    world.done(1, 2, held[1].lease, 2);
    let status = world.status("a");
    assert_eq!((status.tasks_quarantined, status.finished), (0, true), "done is done");
}

#[test]
fn losses_have_a_budget_of_their_own() {
    let mut world = world();
    world.create(1, CampaignSpec { losses_max: Some(2), ..counted("a", 1, 5) });
    world.hello(1, 1, 1, InstanceId::NONE);
    world.want(1, 1, 1, &[]);
    world.pass(1_000);
    assert_eq!(lent(&world.heartbeat(1), 1), [(0, 0, 1)], "one more may be lost");
    world.pass(1_000);
    let outputs = world.heartbeat(1);
    assert_eq!(lent(&outputs, 1), []);
    let status = world.status("a");
    assert_eq!((status.tasks_quarantined, status.losses), (1, 2));
    world.control(ControlRequest::Requeue { campaign: "a".into() });
    let status = world.status("a");
    assert_eq!((status.tasks_quarantined, status.losses), (0, 0), "a fresh one");
}

#[test]
fn what_is_done_is_not_set_aside() {
    let mut world = world();
    world.create(1, CampaignSpec { errors_max: Some(1), losses_max: Some(1), ..counted("a", 1, 3) });
    world.hello(1, 1, 1, InstanceId::NONE);
    world.hello(2, 2, 1, InstanceId::NONE);
    let held = grants(&world.want(1, 2, 1, &[]), 1);
    world.want(2, 1, 1, &[]);
    world.done(1, 1, held[0].lease, 3);
    world.failed(1, 2, held[1].lease);
    world.pass(1_000);
    let status = world.status("a");
    assert_eq!((status.errors, status.losses), (1, 1), "they are told all the same");
    assert_eq!((status.tasks_quarantined, status.finished), (0, true));
}

#[test]
fn a_success_is_no_trouble_and_hides_none() {
    let mut world = world();
    world.create(1, counted("a", 1, 9));
    world.hello(1, 1, 1, InstanceId::NONE);
    let first = grants(&world.want(1, 1, 1, &[]), 1)[0].lease;
    let second = grants(&world.done(1, 1, first, 1), 1)[0].lease;
    assert!(!world.stored.keys().any(|key| matches!(key, RowKey::Trouble(_))), "nothing is noted of a success");
    let third = grants(&world.failed(1, 2, second), 1)[0].lease;
    world.done(1, 3, third, 1);
    let request = ControlRequest::Counts { campaign: "a".into(), from: TaskIndex(0), limit: 1 };
    let ControlAnswer::Counts { tasks, .. } = world.control(request) else { panic!() };
    assert_eq!((tasks[0].done, tasks[0].errors, tasks[0].last_error.as_str()), (2, 1, "it broke"));
}

#[test]
fn pause_resume_cancel_and_remove() {
    let mut world = world();
    world.create(1, counted("a", 3, 1));
    world.hello(1, 1, 1, InstanceId::NONE);
    let first = grants(&world.want(1, 1, 1, &["a"]), 1)[0].lease;
    let order = |world: &mut World, request: ControlRequest| {
        world.apply(Command::Control { connection: ConnectionId(999), id: 0, request })
    };
    let name = || "a".to_owned();
    order(&mut world, ControlRequest::Pause { campaign: name() });
    let outputs = world.done(1, 1, first, 1);
    assert_eq!(idle(&outputs, 1), Some(Idle::Paused), "reports count, nothing is lent");
    let outputs = order(&mut world, ControlRequest::Resume { campaign: name() });
    let second = grants(&outputs, 1)[0].lease;
    assert_eq!(
        world.control(ControlRequest::Remove { campaign: name() }),
        ControlAnswer::Failed(ControlError::State {
            reason: "the campaign is running; cancel or pause it first".into()
        })
    );
    let mut outputs = order(&mut world, ControlRequest::Cancel { campaign: name() });
    outputs.extend(world.settle());
    assert_eq!(lost(&outputs, 1), [LossReason::Cancelled], "holders are told");
    let outputs = world.done(1, 2, second, 1);
    assert_eq!(idle(&outputs, 1), Some(Idle::Settled(Settled { quarantined: 0, cancelled: true })));
    assert_eq!(world.counts("a"), [(1, 0, 0), (1, 0, 0), (0, 0, 0)]);
    assert_eq!(world.status("a").state, CampaignState::Cancelled);
    let outputs = order(&mut world, ControlRequest::Remove { campaign: name() });
    assert_eq!(idle(&outputs, 1), Some(Idle::Absent));
    world.settle();
    let gone = ControlAnswer::Failed(ControlError::NotFound { name: name() });
    assert_eq!(world.control(ControlRequest::Pause { campaign: name() }), gone);
    assert!(!world.stored.keys().any(|key| matches!(key, RowKey::Campaign(_) | RowKey::Task(..))), "nothing is left");
}

#[test]
fn a_late_copy_of_an_order_undoes_nothing() {
    let mut world = world();
    let order = |world: &mut World, connection: u64, request: ControlRequest| {
        let mut outputs = world.apply(Command::Control { connection: ConnectionId(connection), id: 0, request });
        outputs.extend(world.settle());
        outputs.into_iter().filter(|(to, _)| *to == connection).map(|(_, output)| output).collect::<Vec<_>>()
    };
    let name = || "a".to_owned();
    let create = || ControlRequest::Create { creation: CreationId([1; 16]), spec: Box::new(counted("a", 3, 1)) };
    let pause = || ControlRequest::Pause { campaign: name() };
    let resume = || ControlRequest::Resume { campaign: name() };
    let remove = || ControlRequest::Remove { campaign: name() };
    let late = [Output::Close(CloseReason::Late)];
    let is_done = |outputs: &[Output]| matches!(outputs, [Output::Control { answer: ControlAnswer::Done { .. }, .. }]);
    let is_created = |outputs: &[Output]| {
        matches!(outputs, [Output::Control { answer: ControlAnswer::Creation { existed: false, .. }, .. }])
    };
    // What was asked for over connection 5, and when that did not answer, again over 6, comes over 5 after all, much later.
    assert!(is_created(&order(&mut world, 6, create())));
    assert!(is_done(&order(&mut world, 6, pause())));
    assert!(is_done(&order(&mut world, 7, resume())));
    for request in [pause(), ControlRequest::Cancel { campaign: name() }, ControlRequest::Requeue { campaign: name() }]
    {
        assert_eq!(order(&mut world, 5, request), late);
    }
    assert_eq!(world.status("a").state, CampaignState::Running);
    assert!(is_done(&order(&mut world, 1_000, pause())));
    assert!(is_done(&order(&mut world, 1_000, remove())));
    assert_eq!(order(&mut world, 6, create()), late, "it does not come back");
    assert_eq!(world.coordinator.summary().campaigns, 0);
    assert!(is_created(&order(&mut world, 1_000, create())), "whoever removed it means it");
    assert_eq!(order(&mut world, 7, remove()), late, "its namesake stays");
    assert_eq!(world.coordinator.summary().campaigns, 1);
    // Who only looks is told, and so is who speaks of another campaign.
    assert!(matches!(
        order(&mut world, 5, ControlRequest::Status { campaign: Some(name()), from: CampaignId(0) })[..],
        [Output::Control { answer: ControlAnswer::Status { .. }, .. }]
    ));
    // So many names are remembered.
    for number in 0..limits::ORDERED_NAMES_MAX - 1 {
        let request = ControlRequest::Pause { campaign: format!("b{number}") };
        assert!(matches!(
            order(&mut world, 5, request)[..],
            [Output::Control { answer: ControlAnswer::Failed(_), .. }]
        ));
    }
    assert_eq!(order(&mut world, 5, remove()), late);
    order(&mut world, 5, ControlRequest::Pause { campaign: "c".to_owned() });
    assert_eq!(order(&mut world, 5, pause()), late, "only its name was forgotten");
    assert!(is_done(&order(&mut world, 1_000, pause())));
}

#[test]
fn only_holders_of_live_leases_are_told_of_a_cancellation() {
    let mut world = World::new(Options { slice: 1, ..Options::default() });
    world.create(1, counted("a", 2, 1));
    world.create(2, counted("b", 1, 1));
    for (client, campaign) in [(1, "a"), (2, "a"), (3, "b")] {
        world.hello(client, client as u8, 1, InstanceId::NONE);
        assert_eq!(grants(&world.want(client, 1, 1, &[campaign]), client).len(), 1);
        world.want(client, 0, 1, &[]);
    }
    world.pass(999);
    world.heartbeat(2);
    world.heartbeat(3);
    assert_eq!(lost(&world.pass(1), 1), [LossReason::Expired]);
    let cancel = ControlRequest::Cancel { campaign: "a".into() };
    let mut outputs = world.apply(Command::Control { connection: ConnectionId(999), id: 0, request: cancel });
    outputs.extend(world.settle());
    assert_eq!([1, 2, 3].map(|client| lost(&outputs, client)), [vec![], vec![LossReason::Cancelled], vec![]]);
}

#[test]
fn who_comes_back_hears_of_every_lease_that_was_lost_and_of_no_other() {
    let (mut world, first, second) = lent_again();
    world.create(2, counted("counted", 1, 1));
    world.create(3, numbered("numbered", 1, 1));
    world.create(4, counted("cancelled", 1, 1));
    world.create(5, CampaignSpec { lease_ms: Some(100), ..counted("short", 1, 1) });
    let held = |world: &mut World, count, name| grants(&world.want(2, count, 1, &[name]), 2)[0].lease;
    held(&mut world, 2, "counted");
    held(&mut world, 3, "numbered");
    let cancelled = held(&mut world, 4, "cancelled");
    let short = held(&mut world, 5, "short");
    world.disconnect(2);
    world.done(3, 1, first, 2);
    world.control(ControlRequest::Cancel { campaign: "cancelled".into() });
    world.pass(100);
    let outputs = world.hello(4, 2, 2, INSTANCE);
    let told = outputs.iter().find_map(|(_, output)| match output {
        Output::Lost { leases } => Some(leases.clone()),
        _ => None,
    });
    let lost = [(second, LossReason::DoneElsewhere), (cancelled, LossReason::Cancelled), (short, LossReason::Expired)];
    assert_eq!(told, Some(lost.to_vec()));
}

#[test]
fn a_finished_campaign_has_nothing_to_cancel() {
    let mut world = world();
    world.create(1, counted("a", 1, 1));
    world.hello(1, 1, 1, InstanceId::NONE);
    let lease = grants(&world.want(1, 1, 1, &[]), 1)[0].lease;
    world.done(1, 1, lease, 1);
    let cancel = || ControlRequest::Cancel { campaign: "a".into() };
    let reason = "the campaign is finished: there is nothing to cancel".into();
    assert_eq!(world.control(cancel()), ControlAnswer::Failed(ControlError::State { reason }));
    assert_eq!(world.status("a").state, CampaignState::Running);
}

#[test]
fn reports_of_a_removed_campaign_are_refused_as_gone() {
    let mut world = world();
    world.create(1, numbered("a", 3, 1));
    world.hello(1, 1, 1, InstanceId::NONE);
    let held = grants(&world.want(1, 2, 1, &[]), 1);
    world.control(ControlRequest::Pause { campaign: "a".into() });
    // Before its rows are swept away…
    let remove = ControlRequest::Remove { campaign: "a".into() };
    world.apply(Command::Control { connection: ConnectionId(999), id: 0, request: remove });
    let gone = |from, to| vec![Refusal { from, to, reason: RefusalReason::Gone }];
    assert_eq!(answer(&world.done(1, 1, held[0].lease, 1), 1), Some((1, gone(1, 1))));
    // … and after, and after a restart in between.
    world.settle();
    world.restart();
    let outputs = world.hello(2, 1, 2, INSTANCE);
    assert_eq!(lost(&outputs, 2), [LossReason::Gone]);
    assert_eq!(answer(&world.done(2, 2, held[1].lease, 1), 2), Some((2, gone(1, 2))));
    // The name is free, the id is not used again.
    world.create(2, counted("a", 1, 1));
    assert_eq!(world.status("a").id, CampaignId(2));
}

#[test]
fn every_lease_of_a_removed_campaign_ends_however_many_slices_that_takes() {
    for slice in 1..=4 {
        let mut world = World::new(Options { slice, ..Options::default() });
        world.create(1, numbered("a", 3, 1));
        world.hello(1, 1, 1, InstanceId::NONE);
        world.want(1, 3, 1, &[]);
        world.create(2, counted("b", 9, 1));
        world.control(ControlRequest::Pause { campaign: "a".into() });
        let remove = ControlRequest::Remove { campaign: "a".into() };
        let mut outputs = world.apply(Command::Control { connection: ConnectionId(999), id: 0, request: remove });
        outputs.extend(world.settle());
        assert_eq!(lost(&outputs, 1), [LossReason::Gone; 3], "in slices of {slice}");
        assert_eq!(lent(&outputs, 1), [(0, 0, 1), (1, 0, 1), (2, 0, 1)], "there is room for others");
    }
}

#[test]
fn every_row_of_a_removed_campaign_goes_however_many_slices_that_takes() {
    for failing in [true, false] {
        let mut world = World::new(Options { slice: 1, ..Options::default() });
        world.create(1, numbered("a", 3, 1));
        world.hello(1, 1, 1, InstanceId::NONE);
        let held = grants(&world.want(1, 3, 1, &[]), 1);
        world.want(1, 0, 1, &[]);
        for (number, grant) in (1..).zip(&held) {
            // Three troubles and no returned runs, or the other way round.
            if failing {
                world.failed(1, number, grant.lease);
            } else {
                world.release(1, number, grant.lease);
            }
        }
        if failing {
            world.want(1, 3, 1, &[]);
        }
        world.control(ControlRequest::Pause { campaign: "a".into() });
        world.control(ControlRequest::Remove { campaign: "a".into() });
        let left = world.stored.keys().filter(|key| {
            matches!(key, RowKey::Campaign(_) | RowKey::Task(..) | RowKey::Trouble(_) | RowKey::Returned(_))
        });
        assert_eq!(left.count(), 0);
    }
}

#[test]
fn tasks_are_cleared_unit_by_unit_to_the_last() {
    for (tasks, units) in [(1, 1), (CLEAR_TASKS_UNIT, 1), (CLEAR_TASKS_UNIT + 1, 2), (2 * CLEAR_TASKS_UNIT, 2)] {
        let mut world = world();
        world.create(1, counted("a", tasks, 1));
        world.control(ControlRequest::Pause { campaign: "a".into() });
        let request = ControlRequest::Remove { campaign: "a".into() };
        let mut command = Command::Control { connection: ConnectionId(999), id: 0, request };
        let mut cleared = Vec::new();
        loop {
            let step = world.coordinator.apply(Tick(0), command);
            cleared.extend(step.changes.iter().filter_map(|change| match change {
                Changed::ClearTasks { first, .. } => Some(first.0 / CLEAR_TASKS_UNIT),
                Changed::Row(_) => None,
            }));
            if world.coordinator.next_deadline().is_none() {
                break;
            }
            command = Command::Advance;
        }
        assert_eq!(cleared, (0..units).collect::<Vec<_>>(), "{tasks} tasks");
    }
}

#[test]
fn a_window_is_absolute() {
    let mut world = world();
    world.create(1, counted("a", 100, 1));
    world.hello(1, 1, 1, InstanceId::NONE);
    assert_eq!(grants(&world.want(1, 3, 1, &[]), 1).len(), 3);
    assert_eq!(grants(&world.want(1, 3, 1, &[]), 1).len(), 0, "saying it twice is saying it once");
    assert_eq!(grants(&world.want(1, 5, 1, &[]), 1).len(), 2);
    assert_eq!(grants(&world.want(1, 2, 1, &[]), 1).len(), 0);
}

#[test]
fn those_who_wait_are_served_in_order() {
    let mut world = world();
    world.create(1, counted("a", 1, 3));
    for client in 1..=4 {
        world.hello(client, client as u8, 1, InstanceId::NONE);
    }
    let held = grants(&world.want(1, 3, 1, &[]), 1);
    world.want(1, 0, 1, &[]);
    world.want(2, 1, 1, &["b"]);
    world.want(3, 1, 1, &["a"]);
    world.want(4, 1, 1, &[]);
    assert_eq!(lent(&world.release(1, 1, held[0].lease), 3), [(0, 0, 1)]);
    let outputs = world.release(1, 2, held[1].lease);
    assert_eq!((lent(&outputs, 3).len(), lent(&outputs, 4).len()), (0, 1));
    let request = ControlRequest::Create { creation: CreationId([2; 16]), spec: Box::new(counted("b", 1, 1)) };
    let outputs = world.apply(Command::Control { connection: ConnectionId(999), id: 0, request });
    assert_eq!(lent(&outputs, 2), [(0, 0, 1)], "a campaign may come after those who want it");
}

#[test]
fn who_asks_while_others_look_is_not_forgotten() {
    for wanted in [&[][..], &["b"]] {
        let mut world = world();
        world.create(1, counted("a", 1, 1));
        world.hello(1, 1, 1, InstanceId::NONE);
        world.hello(2, 2, 1, InstanceId::NONE);
        let lease = grants(&world.want(1, 1, 1, &[]), 1)[0].lease;
        world.want(2, 1, 1, &["a"]);
        world.create(2, counted("b", 1, 1));
        world.want(1, 1, 1, wanted);
        // What it gives back goes to the one who waits; it asks anew in the same step, and "b" has been open all along.
        let outputs = world.failed(1, 1, lease);
        assert_eq!((grants(&outputs, 2)[0].campaign, grants(&outputs, 1)[0].campaign), (CampaignId(1), CampaignId(2)));
    }
}

#[test]
fn campaigns_take_turns() {
    let mut world = world();
    world.create(1, counted("a", 100, 1));
    world.create(2, counted("b", 100, 1));
    world.create(3, counted("c", 100, 1));
    world.hello(1, 1, 1, InstanceId::NONE);
    let turns =
        |outputs: &[(u64, Output)]| -> Vec<u32> { grants(outputs, 1).iter().map(|grant| grant.campaign.0).collect() };
    assert_eq!(turns(&world.want(1, 6, 1, &[])), [1, 2, 3, 1, 2, 3]);
    assert_eq!(turns(&world.want(1, 10, 1, &["c", "a"])), [1, 3, 1, 3]);
}

#[test]
fn what_one_campaign_has_not_another_lends() {
    for wanted in [&[][..], &["a", "b", "c"]] {
        let mut world = world();
        world.create(1, counted("a", 1, 1));
        world.create(2, counted("b", 1, 1));
        world.create(3, counted("c", 1, 1));
        world.hello(1, 1, 1, InstanceId::NONE);
        let held = grants(&world.want(1, 3, 1, wanted), 1);
        world.want(1, 0, 1, wanted);
        // Its own task is all that each has to lend, and two are not lent to this session for a while.
        for (number, grant) in (1..).zip(&held[..2]) {
            world.release(1, number, grant.lease);
        }
        world.create(4, counted("d", 1, 1));
        assert_eq!(idle(&world.want(1, 2, 1, &["a", "b", "c"]), 1), Some(Idle::Released));
        let turns = grants(&world.want(1, 2, 1, &["a", "b", "d"]), 1);
        assert_eq!(turns.iter().map(|grant| grant.campaign.0).collect::<Vec<_>>(), [4]);
    }
}

#[test]
fn even_order_gives_every_task_its_kth_run_before_any_gets_the_next() {
    for spec in [counted("a", 3, 3), numbered("a", 3, 3)] {
        let mut world = world();
        world.create(1, CampaignSpec { order: Order::Even, ..spec });
        world.hello(1, 1, 1, InstanceId::NONE);
        let outputs = world.want(1, 5, 64, &[]);
        let tasks: Vec<u32> = grants(&outputs, 1).iter().map(|grant| grant.task.0).collect();
        assert_eq!(tasks, [0, 1, 2, 0, 1]);
        // What comes back goes out first (to somebody else, for it was released).
        world.hello(2, 2, 1, InstanceId::NONE);
        world.want(1, 0, 1, &[]);
        let back = grants(&outputs, 1)[1].lease;
        world.release(1, 1, back);
        assert_eq!(grants(&world.want(2, 1, 1, &[]), 2)[0].task.0, 1);
    }
}

#[test]
fn no_more_is_lent_than_the_quota_whatever_the_order() {
    for spec in [counted("a", 2, 2), numbered("a", 2, 2)] {
        for order in [Order::Lowest, Order::Even] {
            let mut world = world();
            world.create(1, CampaignSpec { order, ..spec.clone() });
            world.hello(1, 1, 1, InstanceId::NONE);
            let outputs = world.want(1, 9, 1, &[]);
            assert_eq!((grants(&outputs, 1).len(), idle(&outputs, 1)), (4, Some(Idle::Lent)), "{order:?}");
            let another = counted("b", 2, 1);
            let request = ControlRequest::Create { creation: CreationId([2; 16]), spec: Box::new(another) };
            let outputs = world.apply(Command::Control { connection: ConnectionId(999), id: 0, request });
            assert_eq!(grants(&outputs, 1).len(), 2, "what is all lent is in nobody's way");
        }
    }
}

#[test]
fn who_releases_a_task_is_lent_it_again_only_after_a_growing_delay() {
    let mut world = world();
    world.create(1, CampaignSpec { lease_ms: Some(1_000_000), ..counted("a", 2, 1) });
    world.hello(1, 1, 1, InstanceId::NONE);
    let first = grants(&world.want(1, 1, 1, &[]), 1)[0];
    let outputs = world.release(1, 1, first.lease);
    let second = grants(&outputs, 1)[0];
    assert_eq!((first.task.0, second.task.0), (0, 1));
    assert_eq!(idle(&world.release(1, 2, second.lease), 1), Some(Idle::Released));
    assert_eq!(world.pass(limits::RELEASE_DELAY_MS_MIN - 1), []);
    let again = grants(&world.pass(1), 1)[0];
    assert_eq!(again.task.0, 0);
    // The second time it takes twice as long.
    world.want(1, 1, 1, &[]);
    let other = grants(&world.release(1, 3, again.lease), 1)[0];
    assert_eq!(other.task.0, 1);
    world.done(1, 4, other.lease, 1);
    assert_eq!(grants(&world.pass(2 * limits::RELEASE_DELAY_MS_MIN - 1), 1), []);
    assert_eq!(grants(&world.pass(1), 1)[0].task.0, 0);
}

#[test]
fn every_released_task_has_a_delay_of_its_own() {
    // Time is looked at exactly then, or a little later.
    for late in [0, 5] {
        let mut world = world();
        world.create(1, CampaignSpec { lease_ms: Some(1_000_000), ..counted("a", 2, 1) });
        world.hello(1, 1, 1, InstanceId::NONE);
        let held = grants(&world.want(1, 2, 1, &[]), 1);
        world.release(1, 1, held[0].lease);
        world.pass(300);
        world.release(1, 2, held[1].lease);
        let first = limits::RELEASE_DELAY_MS_MIN - 300;
        assert_eq!(lent(&world.pass(first - 1), 1), []);
        assert_eq!(lent(&world.pass(1 + late), 1), [(0, 0, 1)]);
        assert_eq!(lent(&world.pass(299 - late), 1), []);
        assert_eq!(lent(&world.pass(1 + late), 1), [(1, 0, 1)]);
    }
}

#[test]
fn a_delay_that_is_over_is_remembered_for_as_long_again() {
    let first = limits::RELEASE_DELAY_MS_MIN;
    // Looked at for another task's sake just before and just when that is over.
    for (looked_at, next) in [(2 * first - 1, 2 * first), (2 * first, first)] {
        let mut world = world();
        world.create(1, CampaignSpec { lease_ms: Some(1_000_000), ..counted("a", 2, 1) });
        world.hello(1, 1, 1, InstanceId::NONE);
        let held = grants(&world.want(1, 2, 1, &[]), 1);
        world.release(1, 1, held[0].lease);
        let mut outputs = world.pass(looked_at - first);
        world.release(1, 2, held[1].lease);
        outputs.extend((world.now..2 * first).flat_map(|_| world.pass(1)).collect::<Vec<_>>());
        let again = grants(&outputs, 1);
        let lease = again.iter().find(|grant| grant.task.0 == 0).unwrap().lease;
        world.release(1, 3, lease);
        assert_eq!(lent(&world.pass(next - 1), 1), []);
        assert_eq!(lent(&world.pass(1), 1), [(0, 0, 1)]);
    }
}

#[test]
fn a_short_delay_after_a_long_one_is_no_longer() {
    let mut world = world();
    world.create(1, CampaignSpec { lease_ms: Some(1_000_000), ..counted("a", 2, 1) });
    world.hello(1, 1, 1, InstanceId::NONE);
    let held = grants(&world.want(1, 2, 1, &[]), 1);
    world.release(1, 1, held[0].lease);
    let again = grants(&world.pass(limits::RELEASE_DELAY_MS_MIN), 1)[0].lease;
    world.release(1, 2, again);
    world.release(1, 3, held[1].lease);
    assert_eq!(lent(&world.pass(limits::RELEASE_DELAY_MS_MIN), 1), [(1, 0, 1)]);
    assert_eq!(lent(&world.pass(limits::RELEASE_DELAY_MS_MIN), 1), [(0, 0, 1)]);
}

#[test]
fn leases_survive_a_restart_with_their_full_length() {
    let mut world = world();
    world.create(1, counted("a", 1, 1));
    world.hello(1, 1, 1, InstanceId::NONE);
    let before = grants(&world.want(1, 1, 1, &[]), 1);
    world.pass(900);
    world.restart();
    world.hello(2, 2, 1, InstanceId::NONE);
    world.want(2, 1, 1, &[]);
    assert_eq!(grants(&world.pass(999), 2), [], "the lease is known and begins anew");
    let outputs = world.hello(3, 1, 2, INSTANCE);
    assert_eq!(grants(&outputs, 3), before, "and is sent to its holder again");
    assert!(matches!(outputs[1].1, Output::Grants { resent: true, .. }));
    assert_eq!(grants(&world.pass(999), 2), []);
    assert_eq!(grants(&world.pass(1), 2).len(), 1, "until it ends like any other");
}

#[test]
fn lease_ids_never_repeat_across_restarts() {
    let mut world = world();
    world.create(1, counted("a", 1, 10));
    world.hello(1, 1, 1, InstanceId::NONE);
    let first = grants(&world.want(1, 1, 1, &[]), 1)[0].lease;
    world.want(1, 0, 1, &[]);
    world.done(1, 1, first, 1);
    world.restart();
    world.hello(2, 2, 1, InstanceId::NONE);
    let second = grants(&world.want(2, 1, 1, &[]), 2)[0].lease;
    assert_eq!((first.slot, second.slot), (0, 0));
    assert_ne!(first, second);
}

#[test]
fn an_old_connection_is_not_heard() {
    let mut world = world();
    world.create(1, counted("a", 2, 1));
    world.hello(1, 1, 5, InstanceId::NONE);
    let lease = grants(&world.want(1, 1, 1, &[]), 1)[0].lease;
    let outputs = world.hello(2, 1, 6, INSTANCE);
    assert_eq!(closed(&outputs, 1), Some(CloseReason::Superseded));
    assert_eq!(closed(&world.done(1, 1, lease, 1), 1), Some(CloseReason::OutOfPlace));
    assert_eq!(world.counts("a"), [(0, 0, 1), (0, 0, 0)]);
    // Late bytes of an attempt before do not take the session back.
    assert_eq!(closed(&world.hello(3, 1, 6, INSTANCE), 3), Some(CloseReason::Superseded));
    assert_eq!(answer(&world.done(2, 1, lease, 1), 2), Some((1, vec![])));
}

#[test]
fn a_session_of_another_data_directory_or_a_forgotten_one_is_unknown() {
    let mut world = World::new(Options { session_idle_ms: 5_000, ..Options::default() });
    world.create(1, counted("a", 1, 3));
    let unknown = |connection| [(connection, Output::UnknownSession { instance: INSTANCE })];
    assert_eq!(world.hello(1, 1, 1, InstanceId([8; 16])), unknown(1));
    assert_eq!(world.hello(1, 1, 1, INSTANCE), unknown(1), "never stored here");
    world.hello(1, 1, 1, InstanceId::NONE);
    let lease = grants(&world.want(1, 1, 1, &[]), 1)[0].lease;
    world.done(1, 1, lease, 1);
    world.disconnect(1);
    assert_eq!(
        world.hello(4, 1, 2, InstanceId([8; 16])),
        unknown(4),
        "known here, but the client means another directory"
    );
    world.pass(4_999);
    assert!(matches!(world.hello(2, 1, 2, INSTANCE)[0].1, Output::Welcome { resumed: true, through: 1, .. }));
    world.disconnect(2);
    // The bound counts from the last disconnection, not from the first.
    world.pass(4_999);
    assert!(matches!(world.hello(5, 1, 3, INSTANCE)[0].1, Output::Welcome { resumed: true, through: 1, .. }));
    world.disconnect(5);
    world.pass(10_000);
    assert_eq!(world.hello(3, 1, 4, INSTANCE), unknown(3));
    assert_eq!(world.counts("a"), [(1, 0, 0)]);
    assert!(!world.stored.keys().any(|key| matches!(key, RowKey::Session(_) | RowKey::SessionName(_))));
}

#[test]
fn a_late_copy_of_a_first_hello_does_not_begin_a_forgotten_session_again() {
    let mut world = World::new(Options { past_sessions_max: 1, ..Options::default() });
    world.create(1, counted("a", 9, 1));
    let late = |outputs: &[(u64, Output)], to: u64| closed(outputs, to) == Some(CloseReason::Late);
    // Its first hello over connection 3 was given up, then came over 6, and after all was over, over 3.
    world.hello(6, 1, 2, InstanceId::NONE);
    let lease = grants(&world.want(6, 1, 1, &[]), 6)[0].lease;
    world.done(6, 1, lease, 1);
    world.apply(Command::Goodbye { connection: ConnectionId(6) });
    assert!(late(&world.hello(3, 1, 1, InstanceId::NONE), 3));
    let fate = ControlRequest::Fate { session: SessionId([1; 16]), number: 1 };
    assert_eq!(
        world.control(fate),
        ControlAnswer::Fate(RequestFate::UnknownSession),
        "it was counted, and nobody knows"
    );
    // Another session begins over any connection; and one that only one is remembered of is late all the same.
    assert!(!late(&world.hello(4, 2, 1, InstanceId::NONE), 4));
    assert_eq!(grants(&world.want(4, 1, 1, &[]), 4).len(), 1);
    world.apply(Command::Goodbye { connection: ConnectionId(4) });
    assert!(late(&world.hello(5, 1, 1, InstanceId::NONE), 5));
    // A client that never had an answer asks over a new one.
    assert!(!late(&world.hello(7, 1, 3, InstanceId::NONE), 7));
    // One that ended without ever having been lent anything has nothing to hide.
    world.apply(Command::Goodbye { connection: ConnectionId(7) });
    world.hello(9, 3, 1, InstanceId::NONE);
    world.apply(Command::Goodbye { connection: ConnectionId(9) });
    assert!(!late(&world.hello(8, 3, 1, InstanceId::NONE), 8));
}

#[test]
fn a_session_is_forgotten_when_it_has_been_idle_long_enough() {
    let mut world = World::new(Options { session_idle_ms: 5_000, ..Options::default() });
    world.create(1, counted("a", 1, 1));
    world.hello(1, 1, 1, InstanceId::NONE);
    world.want(1, 1, 1, &[]);
    world.disconnect(1);
    let known = |world: &World| world.stored.keys().any(|key| matches!(key, RowKey::Session(_)));
    world.pass(4_999);
    assert!(known(&world));
    world.pass(1);
    assert!(!known(&world));
}

#[test]
fn sessions_have_a_cap_and_a_goodbye_makes_room() {
    let mut world = World::new(Options { sessions_max: 2, ..Options::default() });
    world.create(1, counted("a", 9, 1));
    world.hello(1, 1, 1, InstanceId::NONE);
    world.hello(2, 2, 1, InstanceId::NONE);
    let full = |connection| [(connection, Output::Close(CloseReason::SessionsFull))];
    assert_eq!(world.hello(3, 3, 1, InstanceId::NONE), full(3));
    assert_eq!(world.origin(4, &[]), full(4));
    let welcomed =
        |outputs: &[(u64, Output)]| outputs.iter().any(|(_, output)| matches!(output, Output::Welcome { .. }));
    assert!(welcomed(&world.hello(5, 1, 2, INSTANCE)), "who is known may come back");
    world.apply(Command::Goodbye { connection: ConnectionId(2) });
    assert!(welcomed(&world.hello(6, 3, 1, InstanceId::NONE)));
}

#[test]
fn goodbye_gives_everything_back_at_once() {
    let mut world = world();
    world.create(1, counted("a", 1, 1));
    world.hello(1, 1, 1, InstanceId::NONE);
    world.hello(2, 2, 1, InstanceId::NONE);
    world.want(1, 1, 1, &[]);
    world.want(2, 1, 1, &[]);
    let outputs = world.apply(Command::Goodbye { connection: ConnectionId(1) });
    assert_eq!(closed(&outputs, 1), Some(CloseReason::Goodbye));
    assert_eq!(lent(&outputs, 2), [(0, 0, 1)]);
    assert_eq!(world.status("a").losses, 0, "given back is not lost");
}

#[test]
fn the_oldest_expired_lease_is_forgotten_first() {
    let mut world = World::new(Options { expired_per_session_max: 2, ..Options::default() });
    world.create(1, counted("a", 3, 1));
    world.hello(1, 1, 1, InstanceId::NONE);
    let held = grants(&world.want(1, 3, 1, &[]), 1);
    world.disconnect(1);
    world.pass(1_000);
    world.hello(2, 1, 2, INSTANCE);
    let ended = vec![Refusal { from: 1, to: 1, reason: RefusalReason::Ended }];
    let outputs: Vec<_> =
        (1..=3).map(|number| answer(&world.done(2, number, held[number as usize - 1].lease, 1), 2)).collect();
    assert_eq!(outputs, [Some((1, ended.clone())), Some((2, ended.clone())), Some((3, ended))]);
    assert_eq!(world.counts("a"), [(0, 0, 0), (1, 0, 0), (1, 0, 0)]);
}

#[test]
fn expired_leases_make_room_in_the_lease_table() {
    let mut world = World::new(Options { leases_max: 2, ..Options::default() });
    world.create(1, counted("a", 4, 1));
    world.hello(1, 1, 1, InstanceId::NONE);
    let held = grants(&world.want(1, 2, 1, &[]), 1);
    world.want(1, 0, 1, &[]);
    // Its holder is connected, so its session is not forgotten, nor what it held.
    world.pass(1_000);
    world.hello(2, 2, 1, InstanceId::NONE);
    assert_eq!(lent(&world.want(2, 1, 1, &[]), 2), [(0, 0, 1)]);
    let ended = vec![Refusal { from: 1, to: 1, reason: RefusalReason::Ended }];
    assert_eq!(answer(&world.done(1, 1, held[0].lease, 1), 1), Some((1, ended.clone())), "it made room");
    assert_eq!(answer(&world.done(1, 2, held[1].lease, 1), 1), Some((2, ended)), "this one is still remembered");
    assert_eq!(world.counts("a"), [(0, 0, 1), (1, 0, 0), (0, 0, 0), (0, 0, 0)]);
}

#[test]
fn who_waits_for_room_in_the_lease_table_is_served_when_there_is_some() {
    for way in ["goodbye", "report", "expiry"] {
        let mut world = World::new(Options { leases_max: 1, ..Options::default() });
        world.create(1, numbered("a", 2, 1));
        world.create(2, counted("b", 1, 1));
        world.hello(1, 1, 1, InstanceId::NONE);
        world.hello(2, 2, 1, InstanceId::NONE);
        let lease = grants(&world.want(1, 1, 1, &["a"]), 1)[0].lease;
        world.want(1, 0, 1, &[]);
        // What it waits for has nothing to do with what the other holds.
        assert_eq!(idle(&world.want(2, 1, 1, &["b"]), 2), Some(Idle::Closed));
        let outputs = match way {
            "goodbye" => world.apply(Command::Goodbye { connection: ConnectionId(1) }),
            "report" => world.done(1, 1, lease, 1),
            _ => world.pass(1_000),
        };
        assert_eq!(lent(&outputs, 2).len(), 1, "{way}");
    }
}

#[test]
fn a_keyed_campaign_is_created_in_steps_that_may_be_repeated() {
    let mut world = world();
    let creation = CreationId([1; 16]);
    let spec = CampaignSpec { tasks: Tasks::Keys { count: 3 }, ..counted("a", 3, 1) };
    let create = || ControlRequest::Create { creation, spec: Box::new(spec.clone()) };
    let add = |from, keys: &[&str]| ControlRequest::AddKeys {
        creation,
        from,
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
    };
    let stands = |added, sealed, existed| ControlAnswer::Creation { campaign: CampaignId(1), added, sealed, existed };
    world.hello(1, 1, 1, InstanceId::NONE);
    world.want(1, 9, 1, &["a"]);
    assert_eq!(world.control(create()), stands(0, false, false));
    assert_eq!(world.control(add(0, &["x", "y"])), stands(2, false, false));
    assert_eq!(world.control(create()), stands(2, false, false), "begun again, it goes on where it was");
    assert_eq!(world.control(add(0, &["x", "y"])), stands(2, false, false), "what is there is skipped");
    assert_eq!(world.control(add(3, &["z"])), ControlAnswer::Failed(ControlError::KeysOutOfOrder { expected: 2 }));
    assert_eq!(world.control(add(2, &["x"])), ControlAnswer::Failed(ControlError::KeyTwice { index: 2 }));
    assert_eq!(world.control(add(2, &[""])), ControlAnswer::Failed(ControlError::KeyBad { index: 2 }));
    assert_eq!(world.control(add(2, &["z", "zz"])), ControlAnswer::Failed(ControlError::KeyBad { index: 3 }));
    let seal = || ControlRequest::Seal { creation };
    assert_eq!(world.control(seal()), ControlAnswer::Failed(ControlError::KeysMissing { added: 2, count: 3 }));
    assert_eq!(world.status("a").runs_leased, 0, "nothing is lent before all is there");
    assert_eq!(world.control(add(2, &["z"])), stands(3, false, false));
    assert_eq!(world.control(seal()), stands(3, true, false));
    assert_eq!(world.control(seal()), stands(3, true, true));
    assert_eq!(world.control(create()), stands(3, true, true));
    assert_eq!(world.status("a").runs_leased, 3);
    let other = ControlRequest::Create { creation: CreationId([2; 16]), spec: Box::new(spec) };
    assert_eq!(world.control(other), ControlAnswer::Failed(ControlError::Exists { name: "a".into() }));
}

#[test]
fn keys_are_kept_once_and_go_with_their_campaign() {
    let mut world = world();
    let creation = CreationId([1; 16]);
    world.create(1, CampaignSpec { tasks: Tasks::Keys { count: 3 }, ..counted("a", 3, 1) });
    let mut texts = |request| {
        let command = Command::Control { connection: ConnectionId(999), id: 0, request };
        let mut step = world.coordinator.apply(Tick(0), command);
        let mut texts = std::mem::take(&mut step.texts);
        while world.coordinator.next_deadline() == Some(Tick(0)) {
            texts.extend(world.coordinator.apply(Tick(0), Command::Advance).texts);
        }
        texts
    };
    let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
    let mut add = |from, added: &[&str]| texts(ControlRequest::AddKeys { creation, from, keys: keys(added) });
    let put =
        |first, added: &[&str]| TextChange::Put { campaign: CampaignId(1), first: TaskIndex(first), keys: keys(added) };
    assert_eq!(add(0, &["x", "y"]), [put(0, &["x", "y"])]);
    assert_eq!(add(0, &["x", "y"]), []);
    assert_eq!(add(1, &["y", "z"]), [put(2, &["z"])]);
    assert_eq!(texts(ControlRequest::Seal { creation }), []);
    assert_eq!(texts(ControlRequest::Pause { campaign: "a".into() }), []);
    let clear = TextChange::Clear { campaign: CampaignId(1), first: TaskIndex(0), tasks: CLEAR_TASKS_UNIT };
    assert_eq!(texts(ControlRequest::Remove { campaign: "a".into() }), [clear]);
}

#[test]
fn keys_have_bounds() {
    let mut world = world();
    world.create(1, CampaignSpec { tasks: Tasks::Keys { count: 3 }, ..counted("a", 3, 1) });
    let mut add = |key: &str| {
        let (creation, keys) = (CreationId([1; 16]), vec![key.to_owned()]);
        world.control(ControlRequest::AddKeys { creation, from: 0, keys })
    };
    for key in ["", "a\nb", "a\rb", "a\0b", &"x".repeat(limits::KEY_BYTES_MAX + 1)] {
        assert_eq!(add(key), ControlAnswer::Failed(ControlError::KeyBad { index: 0 }), "{key:?}");
    }
    let longest = ControlAnswer::Creation { campaign: CampaignId(1), added: 1, sealed: false, existed: false };
    assert_eq!(add(&"x".repeat(limits::KEY_BYTES_MAX)), longest);
}

#[test]
fn counts_come_in_pages_and_tell_of_keys_once_all_are_there() {
    let mut world = world();
    world.create(1, counted("a", 5, 1));
    world.create(2, CampaignSpec { tasks: Tasks::Keys { count: 1 }, ..counted("b", 1, 1) });
    let mut page = |campaign: &str, from, limit| {
        let request = ControlRequest::Counts { campaign: campaign.into(), from: TaskIndex(from), limit };
        let ControlAnswer::Counts { tasks, next, keyed, .. } = world.control(request) else { panic!() };
        let indexes = tasks.iter().map(|task| task.index.0).collect::<Vec<_>>();
        (indexes, next.map(|next| next.0), keyed)
    };
    assert_eq!(page("a", 0, 0), (vec![0], Some(1), false), "at least one");
    assert_eq!(page("a", 1, 2), (vec![1, 2], Some(3), false));
    assert_eq!(page("a", 3, 2), (vec![3, 4], None, false));
    assert_eq!(page("a", 4, 2), (vec![4], None, false));
    assert_eq!(page("a", 7, 2), (vec![], None, false));
    assert_eq!(page("b", 0, 9), (vec![0], None, false));
    let creation = CreationId([2; 16]);
    world.control(ControlRequest::AddKeys { creation, from: 0, keys: vec!["x".into()] });
    world.control(ControlRequest::Seal { creation });
    let request = ControlRequest::Counts { campaign: "b".into(), from: TaskIndex(0), limit: 9 };
    assert!(matches!(world.control(request), ControlAnswer::Counts { keyed: true, .. }));
}

#[test]
fn an_unsealed_creation_does_not_outlive_the_process_nor_its_creators_patience() {
    for restart in [true, false] {
        let mut world = world();
        let creation = CreationId([1; 16]);
        let spec = CampaignSpec { tasks: Tasks::Keys { count: 3 }, ..counted("a", 3, 1) };
        world.create(1, spec.clone());
        world.control(ControlRequest::AddKeys { creation, from: 0, keys: vec!["x".into()] });
        if restart {
            world.restart();
        } else {
            // Patience counts from the last message of the creation.
            world.pass(1_000);
            world.control(ControlRequest::AddKeys { creation, from: 1, keys: vec!["y".into()] });
            world.pass(limits::CREATION_IDLE_MS - 1);
            assert_eq!(world.status("a").state, CampaignState::Creating);
            world.pass(1);
        }
        assert_eq!(
            world.control(ControlRequest::Seal { creation }),
            ControlAnswer::Failed(ControlError::CreationUnknown)
        );
        world.create(1, spec);
        assert_eq!(world.status("a").id, CampaignId(2), "the name is free");
    }
}

#[test]
fn campaigns_are_listed_in_pages_and_those_being_removed_only_take_their_place() {
    let mut world = World::new(Options { campaigns_max: 102, ..Options::default() });
    for creation in 1..=102 {
        world.create(creation, counted(&format!("c{creation}"), 1, 1));
    }
    let create = || ControlRequest::Create { creation: CreationId([200; 16]), spec: Box::new(counted("b", 1, 1)) };
    assert_eq!(world.control(create()), ControlAnswer::Failed(ControlError::Full { limit: 102 }));
    world.control(ControlRequest::Pause { campaign: "c7".into() });
    let mut ask = |request| {
        let command = Command::Control { connection: ConnectionId(999), id: 0, request };
        let mut outputs = world.apply(command);
        let Some((_, Output::Control { answer, .. })) = outputs.pop() else { panic!() };
        answer
    };
    ask(ControlRequest::Remove { campaign: "c7".into() });
    let mut list = |from| {
        let request = ControlRequest::Status { campaign: None, from: CampaignId(from) };
        let ControlAnswer::Status { campaigns, next } = ask(request) else { panic!() };
        (campaigns.iter().map(|campaign| campaign.id.0).collect::<Vec<_>>(), next)
    };
    let first = (1..=101).filter(|id| *id != 7).collect::<Vec<_>>();
    assert_eq!(list(0), (first, Some(CampaignId(102))));
    assert_eq!(list(102), (vec![102], None));
    assert_eq!(list(2).1, None, "just a page");
    assert_eq!(ask(create()), ControlAnswer::Failed(ControlError::Full { limit: 102 }));
    world.settle();
    world.create(200, counted("b", 1, 1));
}

#[test]
fn settled_is_never_said_of_what_is_absent() {
    let mut world = world();
    world.hello(1, 1, 1, InstanceId::NONE);
    assert_eq!(idle(&world.want(1, 1, 1, &[]), 1), Some(Idle::Absent));
    world.want(1, 0, 1, &[]);
    world.create(1, counted("a", 1, 1));
    let lease = grants(&world.want(1, 1, 1, &[]), 1)[0].lease;
    world.done(1, 1, lease, 1);
    assert_eq!(idle(&world.want(1, 1, 1, &["a", "b"]), 1), Some(Idle::Absent));
    assert_eq!(idle(&world.want(1, 1, 1, &["a"]), 1), Some(Idle::Settled(Settled::default())));
}

#[test]
fn draining_lends_nothing_and_counts_all() {
    let mut world = world();
    world.create(1, counted("a", 2, 1));
    world.hello(1, 1, 1, InstanceId::NONE);
    let lease = grants(&world.want(1, 1, 1, &[]), 1)[0].lease;
    world.apply(Command::Drain);
    let outputs = world.done(1, 1, lease, 1);
    assert_eq!(answer(&outputs, 1), Some((1, vec![])));
    assert_eq!((lent(&outputs, 1), idle(&outputs, 1)), (vec![], Some(Idle::Closed)));
}

#[test]
fn mass_expiry_goes_in_slices() {
    let mut world = World::new(Options { slice: 10, ..Options::default() });
    world.create(1, counted("a", 100, 1));
    world.hello(1, 1, 1, InstanceId::NONE);
    world.want(1, 100, 1, &[]);
    world.disconnect(1);
    world.now += 1_000;
    let slices = std::iter::from_fn(|| {
        let due = world.coordinator.next_deadline().is_some_and(|due| due <= Tick(world.now));
        due.then(|| world.apply(Command::Advance))
    });
    assert_eq!(slices.count(), 10);
    assert_eq!(world.status("a").runs_leased, 0);
}

#[test]
fn sessions_with_many_leases_are_served_and_forgotten_in_slices() {
    let mut world = World::new(Options { slice: 10, session_idle_ms: 5_000, ..Options::default() });
    let settle = |world: &mut World, mut command: Command| loop {
        let step = world.coordinator.apply(Tick(world.now), command);
        let changes = world.coordinator.changes(&step.changes).len();
        assert!(changes <= 8 * 10 + 3 * 100 + 10, "{changes} changes in one step");
        world.store(&step);
        if world.coordinator.next_deadline().is_none_or(|due| due > Tick(world.now)) {
            break;
        }
        command = Command::Advance;
    };
    for client in 1..=10 {
        world.hello(client, client as u8, 1, InstanceId::NONE);
        world.want(client, 100, 1, &[]);
    }
    let request = ControlRequest::Create { creation: CreationId([2; 16]), spec: Box::new(counted("a", 10_000, 1)) };
    settle(&mut world, Command::Control { connection: ConnectionId(99), id: 0, request });
    assert_eq!(world.status("a").runs_leased, 1_000);
    for client in 1..=10 {
        world.disconnect(client);
    }
    for milliseconds in [1_000, 10_000] {
        world.now += milliseconds;
        settle(&mut world, Command::Advance);
    }
    assert!(!world.stored.keys().any(|key| matches!(key, RowKey::Session(_))), "all are forgotten");
}

#[test]
fn time_that_goes_backwards_is_no_time() {
    let mut world = world();
    world.create(1, counted("a", 1, 1));
    world.hello(1, 1, 1, InstanceId::NONE);
    world.want(1, 1, 1, &[]);
    world.now = 900;
    world.heartbeat(1);
    world.now = 100;
    world.heartbeat(1);
    world.now = 1_899;
    assert_eq!(world.settle(), []);
    world.now = 1_900;
    assert_eq!(lost(&world.settle(), 1), [LossReason::Expired]);
}
