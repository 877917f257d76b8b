//! Dialogues in the origin's dialect: fresh decisions, exact counts in spite of copies, leases that end with connections.

use super::*;
use crate::coordinator::command::OriginAnswer;
use crate::coordinator::rows::CLEAR_TASKS_UNIT;
use crate::types::RefusalReason;

const WAIT: Output = Output::Origin(OriginAnswer::Wait);
const SETTLED: Output = Output::Origin(OriginAnswer::Settled);

fn task(number: u64) -> Output {
    Output::Origin(OriginAnswer::Task(number))
}

/// Says something on a connection and expects exactly this one answer.
fn say(world: &mut World, connection: u64, done: &[(u64, u64)], answer: Output) {
    assert_eq!(world.origin(connection, done), [(connection, answer)]);
}

fn world(tasks: u32, runs: u32) -> World {
    let mut world = World::new(Options::default());
    world.create(1, counted("toy", tasks, runs));
    world
}

#[test]
fn one_client_does_it_all() {
    let mut world = world(2, 2);
    say(&mut world, 1, &[], task(0));
    say(&mut world, 1, &[(0, 1)], task(1));
    say(&mut world, 1, &[(1, 1)], task(0));
    say(&mut world, 1, &[(0, 1)], task(1));
    say(&mut world, 1, &[(1, 1)], SETTLED);
    assert_eq!(world.counts("toy"), [(2, 0, 0), (2, 0, 0)]);
}

#[test]
fn copies_count_once_at_every_point() {
    for copies in 1..=3 {
        let mut world = world(3, 3);
        let mut current = OriginAnswer::Wait;
        let mut counted = 0;
        let mut done: Vec<(u64, u64)> = Vec::new();
        for _ in 0..60 {
            let mut first = None;
            for _ in 0..copies {
                let outputs = world.origin(1, &done);
                assert_eq!(outputs.len(), 1);
                let Output::Origin(answer) = outputs[0].1 else { panic!("{outputs:?}") };
                if let (OriginAnswer::Task(named), Some((reported, _))) = (answer, done.first()) {
                    assert_ne!(named, *reported, "the answer names the reported task");
                }
                first.get_or_insert(answer);
            }
            counted += done.iter().map(|(_, units)| units).sum::<u64>();
            let sum: u64 = world.counts("toy").iter().map(|(done, extra, _)| u64::from(done + extra)).sum();
            assert_eq!(sum, counted, "with {copies} copies of each message");
            current = first.unwrap();
            done = match current {
                OriginAnswer::Task(number) => vec![(number, 1 + counted % 2)],
                OriginAnswer::Wait => vec![],
                OriginAnswer::Settled => break,
            };
            // A copy's answer is a lease of its own, which this client does not use: it ends with time.
            world.pass(500);
        }
        assert_eq!(current, OriginAnswer::Settled);
    }
}

#[test]
fn wait_while_all_is_lent_and_take_over_when_a_connection_ends() {
    let mut world = world(1, 1);
    say(&mut world, 1, &[], task(0));
    say(&mut world, 2, &[], WAIT);
    world.disconnect(1);
    assert_eq!(world.status("toy").losses, 0, "losses are never charged here");
    say(&mut world, 2, &[], task(0));
    say(&mut world, 2, &[(0, 2)], SETTLED);
    assert_eq!(world.counts("toy"), [(1, 1, 0)]);
}

#[test]
fn an_expired_lease_still_counts_and_is_revived_by_lending_again() {
    let mut world = world(1, 5);
    say(&mut world, 1, &[], task(0));
    world.pass(1_000);
    assert_eq!(world.counts("toy"), [(0, 0, 0)]);
    say(&mut world, 1, &[], task(0));
    assert_eq!(world.counts("toy"), [(0, 0, 1)]);
    world.pass(1_000);
    say(&mut world, 1, &[(0, 2)], WAIT);
    say(&mut world, 1, &[(0, 2)], WAIT);
    assert_eq!(world.counts("toy"), [(2, 0, 0)]);
    assert_eq!(world.status("toy").losses, 0);
}

#[test]
fn polling_does_not_keep_a_lease() {
    let mut world = world(1, 1);
    say(&mut world, 1, &[], task(0));
    world.pass(600);
    say(&mut world, 1, &[], WAIT);
    world.pass(600);
    say(&mut world, 2, &[], task(0));
}

#[test]
fn only_held_tasks_count_and_a_bad_entry_spoils_its_message() {
    for (bad, reason) in [
        ((2, 0), CloseReason::OriginUnits),
        ((2, 1_001), CloseReason::OriginUnits),
        ((3, 1), CloseReason::OriginTask),
        ((u64::MAX, 1), CloseReason::OriginTask),
    ] {
        let mut world = world(3, 2);
        say(&mut world, 1, &[(2, 1)], task(0));
        assert_eq!(world.counts("toy")[2], (0, 0, 0), "never lent");
        say(&mut world, 1, &[(0, 1), (1, 1)], task(2));
        assert_eq!(world.counts("toy"), [(1, 0, 0), (0, 0, 0), (0, 0, 1)], "the unheld entry is ignored");
        assert_eq!(world.origin(1, &[(2, 1), bad]), [(1, Output::Close(reason))]);
        assert_eq!(world.counts("toy")[2], (0, 0, 1), "nothing of such a message is counted");
        assert_eq!(world.origin(1, &[(2, 1)]), [], "nor of what was sent behind it");
        assert_eq!(world.counts("toy")[2], (0, 0, 1));
        world.disconnect(1);
        assert_eq!(world.counts("toy")[2], (0, 0, 0));
    }
}

#[test]
fn nothing_survives_a_restart() {
    let mut world = world(1, 1);
    say(&mut world, 1, &[], task(0));
    world.restart();
    assert_eq!(world.counts("toy"), [(0, 0, 0)]);
    say(&mut world, 1, &[(0, 1)], WAIT);
    say(&mut world, 1, &[], task(0));
    assert_eq!(world.status("toy").losses, 0);
}

#[test]
fn connections_of_a_process_that_ended_are_ended_in_slices() {
    let mut world = World::new(Options { slice: 4, ..Options::default() });
    world.create(1, counted("toy", 5, 1));
    for connection in 0..5 {
        say(&mut world, connection, &[], task(connection));
    }
    world.coordinator = world.restored();
    let sessions = |world: &World| world.coordinator.sessions.len();
    let mut left = vec![sessions(&world)];
    world.apply(Command::Boot);
    left.push(sessions(&world));
    while world.coordinator.next_deadline().is_some_and(|due| due <= Tick(world.now)) {
        world.apply(Command::Advance);
        left.push(sessions(&world));
    }
    // A connection and its lease are two of four items.
    assert_eq!(left, [5, 3, 1, 0]);
    assert_eq!(world.status("toy").runs_leased, 0);
}

#[test]
fn whatever_keeps_a_task_from_being_lent_the_answer_is_to_wait() {
    let full = Options { leases_max: 1, ..Options::default() };
    let held = Options { leases_per_session_max: 1, ..Options::default() };
    for (options, other) in [(full, true), (held, false)] {
        let mut world = World::new(options);
        world.create(1, counted("toy", 2, 1));
        say(&mut world, 1, &[], task(0));
        say(&mut world, 1, &[], WAIT);
        say(&mut world, 2, &[], if other { WAIT } else { task(1) });
        say(&mut world, 1, &[(0, 1)], if other { task(1) } else { WAIT });
    }
    let mut paused = world(2, 1);
    say(&mut paused, 1, &[], task(0));
    paused.control(ControlRequest::Pause { campaign: "toy".into() });
    say(&mut paused, 1, &[(0, 1)], WAIT);
    paused.control(ControlRequest::Resume { campaign: "toy".into() });
    say(&mut paused, 1, &[], task(1));
    let mut draining = world(2, 1);
    say(&mut draining, 1, &[], task(0));
    draining.apply(Command::Drain);
    say(&mut draining, 1, &[(0, 1)], WAIT);
    assert_eq!(draining.counts("toy"), [(1, 0, 0), (0, 0, 0)]);
}

#[test]
fn a_connection_with_an_expired_lease_is_closed_when_there_is_no_room_for_another_lease() {
    let mut world = World::new(Options { leases_max: 2, ..Options::default() });
    world.create(1, counted("toy", 4, 1));
    say(&mut world, 1, &[], task(0));
    world.hello(2, 2, 1, InstanceId::NONE);
    let native = grants(&world.want(2, 1, 1, &[]), 2)[0].lease;
    world.pass(999);
    world.want(2, 0, 1, &[]);
    say(&mut world, 3, &[], WAIT);
    // Both had one, and both have expired now: that of the session goes first, since its late report can be refused.
    world.pass(1);
    world.pass(1_000);
    say(&mut world, 3, &[], task(0));
    let ended = vec![Refusal { from: 1, to: 1, reason: RefusalReason::Ended }];
    assert_eq!(answer(&world.done(2, 1, native, 1), 2), Some((1, ended)));
    // No report may be taken and not counted: the connection ends, and what it had sent is not heard.
    let outputs = world.want(2, 1, 1, &[]);
    assert_eq!(closed(&outputs, 1), Some(CloseReason::LeasesFull));
    assert_eq!(grants(&outputs, 2).len(), 1);
    assert_eq!(world.origin(1, &[(0, 1)]), []);
    assert_eq!(world.counts("toy").iter().map(|counts| counts.0).sum::<u32>(), 0);
    world.disconnect(1);
    say(&mut world, 3, &[(0, 1)], task(2));
}

#[test]
fn whose_own_expired_lease_is_in_the_way_of_its_next_is_closed_and_not_answered() {
    let mut world = World::new(Options { leases_max: 2, ..Options::default() });
    world.create(1, counted("toy", 3, 1));
    say(&mut world, 1, &[], task(0));
    world.pass(1_000);
    world.hello(2, 2, 1, InstanceId::NONE);
    let lease = grants(&world.want(2, 1, 1, &[]), 2)[0].lease;
    let outputs = world.done(2, 1, lease, 1);
    assert_eq!(grants(&outputs, 2)[0].task.0, 1, "0 is done, and not what the connection asks for");
    assert_eq!(world.origin(1, &[]), [(1, Output::Close(CloseReason::LeasesFull))]);
    say(&mut world, 3, &[], task(2));
}

#[test]
fn a_connection_that_lets_more_leases_expire_than_are_remembered_is_closed() {
    let mut world = World::new(Options { expired_per_session_max: 1, ..Options::default() });
    world.create(1, counted("toy", 4, 1));
    say(&mut world, 1, &[], task(0));
    say(&mut world, 1, &[], task(1));
    let outputs = world.pass(1_000);
    assert_eq!(closed(&outputs, 1), Some(CloseReason::LeasesFull));
    assert_eq!(world.origin(1, &[(0, 1)]), [], "it would have to be counted");
    assert_eq!(world.status("toy").runs_leased, 0);
}

#[test]
fn which_campaign() {
    let mut world = World::new(Options::default());
    say(&mut world, 1, &[], WAIT);
    world.create(1, numbered("numbered", 1, 1));
    say(&mut world, 1, &[], WAIT);
    world.create(2, CampaignSpec { tasks: Tasks::Range { first: 100, count: 2 }, ..counted("a", 2, 1) });
    say(&mut world, 1, &[], task(100));
    world.create(3, counted("b", 2, 1));
    say(&mut world, 1, &[(100, 1)], task(101));
    say(&mut world, 2, &[], WAIT);
    world.control(ControlRequest::Cancel { campaign: "a".into() });
    say(&mut world, 1, &[], SETTLED);
    world.control(ControlRequest::Remove { campaign: "a".into() });
    say(&mut world, 1, &[], WAIT);

    let mut world = World::new(Options { origin_campaign: Some("b".into()), ..Options::default() });
    world.create(1, counted("a", 1, 1));
    say(&mut world, 1, &[], WAIT);
    world.create(2, counted("b", 1, 1));
    say(&mut world, 1, &[], task(0));
    assert_eq!(world.counts("b"), [(0, 0, 1)]);
}

#[test]
fn a_connection_is_not_bound_to_a_creation_that_is_abandoned() {
    let mut world = World::new(Options::default());
    world.create(1, CampaignSpec { tasks: Tasks::Keys { count: 3 }, ..counted("toy", 3, 1) });
    say(&mut world, 1, &[], WAIT);
    world.pass(crate::limits::CREATION_IDLE_MS);
    world.create(2, counted("toy", 1, 1));
    say(&mut world, 1, &[], task(0));
}

#[test]
fn reports_to_a_campaign_that_is_being_removed_count_nowhere() {
    // At every point of the removal: a count stored after its part of the tasks was cleared would outlive the campaign.
    for steps in 0..6 {
        let mut world = world(3 * CLEAR_TASKS_UNIT, 1);
        say(&mut world, 1, &[], task(0));
        world.control(ControlRequest::Pause { campaign: "toy".into() });
        let request = ControlRequest::Remove { campaign: "toy".into() };
        world.apply(Command::Control { connection: ConnectionId(999), id: 0, request });
        for _ in 0..steps {
            world.apply(Command::Advance);
        }
        say(&mut world, 1, &[(0, 1)], WAIT);
        world.settle();
        assert!(!world.stored.keys().any(|key| matches!(key, RowKey::Task(..))), "nothing is left");
        world.restart();
    }
}

#[test]
fn settled_follows_quarantine_and_pause_waits() {
    let mut world = World::new(Options::default());
    world.create(1, CampaignSpec { errors_max: Some(1), ..counted("toy", 1, 1) });
    world.hello(9, 9, 1, InstanceId::NONE);
    let lease = grants(&world.want(9, 1, 1, &[]), 9)[0].lease;
    world.failed(9, 1, lease);
    say(&mut world, 1, &[], SETTLED);
    world.want(9, 0, 1, &[]);
    world.control(ControlRequest::Pause { campaign: "toy".into() });
    world.control(ControlRequest::Requeue { campaign: "toy".into() });
    say(&mut world, 1, &[], task(0));
    world.control(ControlRequest::Pause { campaign: "toy".into() });
    say(&mut world, 2, &[], WAIT);
}
