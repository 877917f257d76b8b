//! What a step costs: places looked at or compared in the index of open tasks, at 10^3 and at 10^7 tasks (an optimised build: 10^8), at one
//! lease and at 10^5 (10^6), and timers kept. `cargo test --release --lib cost -- --nocapture` says how many.

use super::*;
use crate::coordinator::open::visits;
use crate::types::TaskIndex;

/// Tasks of the largest campaign here; an optimised build has time for more.
const LARGEST: u32 = if cfg!(debug_assertions) { 10_000_000 } else { 100_000_000 };

/// The same for leases.
const MOST_LEASES: u32 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };

/// A campaign, and sessions that together hold some leases of it.
struct Shape {
    count: u32,
    order: Order,
    seed: Option<u64>,
    /// All tasks were lent before, so all are in the index.
    touched: bool,
    leases: u32,
    /// One report in so many is of a failed run, so that open tasks are scattered; 0: none.
    failing: u64,
}

/// Places looked at for a report and the lease that follows it, times ten.
fn places(shape: &Shape) -> u64 {
    let Shape { count, order, seed, touched, leases, failing } = *shape;
    let mut world = World::new(Options::default());
    world.checked = false;
    world.create(1, CampaignSpec { order, seed, lease_ms: Some(1_000_000), ..counted("a", count, 5) });
    if touched {
        world.coordinator.campaigns.values_mut().for_each(|campaign| campaign.open.advance_to_end());
    }
    let mut held = Vec::new();
    for session in 1..=u64::from(leases.div_ceil(1_000)) {
        let hello = Hello {
            session: SessionId(u128::from(session).to_le_bytes()),
            instance: InstanceId::NONE,
            attempt: 1,
            confirmed: 0,
            name: String::new(),
        };
        world.coordinator.apply(Tick(0), Command::Hello { connection: ConnectionId(session), hello });
        let want = Want { leases: leases.min(1_000), runs: 1, campaigns: Vec::new() };
        let step = world.coordinator.apply(Tick(0), Command::Want { connection: ConnectionId(session), want });
        let outputs: Vec<_> = step.outputs.into_iter().map(|(connection, output)| (connection.0, output)).collect();
        held.extend(grants(&outputs, session).into_iter().map(|grant| (session, grant.lease)));
    }
    assert_eq!(held.len(), leases as usize);
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    visits::take();
    let reports = 3_000;
    for report in 1..=reports {
        let (session, lease) = held.swap_remove((report as usize * 7_919) % held.len());
        let number = next.entry(session).and_modify(|number| *number += 1).or_insert(1);
        let failed = failing > 0 && report % failing == 0;
        let outputs =
            if failed { world.failed(session, *number, lease) } else { world.done(session, *number, lease, 1) };
        held.extend(grants(&outputs, session).into_iter().map(|grant| (session, grant.lease)));
    }
    visits::take() * 10 / reports
}

const KINDS: [(Order, Option<u64>); 4] =
    [(Order::Lowest, None), (Order::Lowest, Some(1)), (Order::Even, None), (Order::Even, Some(1))];

#[test]
fn the_cost_of_a_report_does_not_grow_with_the_number_of_tasks() {
    for (order, seed) in KINDS {
        for (touched, failing) in [(false, 0), (false, 5), (true, 0), (true, 5)] {
            let at = |count| places(&Shape { count, order, seed, touched, leases: 100, failing });
            let (small, large) = (at(1_000), at(LARGEST));
            let what = format!("{order:?} {seed:?} touched {touched} failing {failing}");
            eprintln!("{what}: {small} tenths of places at 10^3, {large} at {LARGEST}");
            assert!(2 * large <= 3 * small, "{what}: {small} tenths of places at 10^3, {large} at {LARGEST}");
            assert!(large < 200, "{what}: {large} tenths of places");
        }
    }
}

#[test]
fn the_cost_of_a_report_does_not_grow_with_the_number_of_leases() {
    for (order, seed) in KINDS {
        let at = |leases| places(&Shape { count: 10_000_000, order, seed, touched: false, leases, failing: 0 });
        let (one, many) = (at(1), at(MOST_LEASES));
        let what = format!("{order:?} {seed:?}");
        eprintln!("{what}: {one} tenths of places at one lease, {many} at {MOST_LEASES}");
        assert!(2 * many <= 3 * one, "{what}: {one} tenths of places at one lease, {many} at {MOST_LEASES}");
    }
}

#[test]
fn untouched_tasks_cost_no_memory_and_creation_is_one_step() {
    let mut world = World::new(Options::default());
    world.checked = false;
    world.create(1, counted("a", crate::limits::TASKS_MAX, 1));
    let stored: Vec<_> = world.stored.keys().copied().collect();
    assert_eq!(stored.len(), 2, "{stored:?}");
    let campaign = world.coordinator.campaigns.values().next().unwrap();
    assert_eq!(campaign.open.frontier(), 0);
    assert_eq!(campaign.tasks.touched().next(), None);
    assert_eq!(campaign.tasks.get(TaskIndex(5)), crate::coordinator::tasks::Counters::default());
}

#[test]
fn timers_are_bounded_by_what_they_stand_for() {
    let mut world = World::new(Options::default());
    world.checked = false;
    world.create(1, CampaignSpec { lease_ms: Some(1_000_000), ..counted("a", 1, 1_000_000) });
    world.hello(1, 1, 1, InstanceId::NONE);
    let mut lease = grants(&world.want(1, 1, 1, &[]), 1)[0].lease;
    for number in 1..=10_000 {
        lease = grants(&world.done(1, number, lease, 1), 1)[0].lease;
        world.settle();
        assert!(world.coordinator.timers.len() <= 1_032, "{} timers for one lease", world.coordinator.timers.len());
    }
}

#[test]
fn timers_of_many_sessions_and_leases_are_bounded_by_their_sum() {
    let mut world = World::new(Options::default());
    world.checked = false;
    world.create(1, CampaignSpec { lease_ms: Some(1_000_000), ..counted("a", 1, 1_000_000) });
    for client in 1..=20 {
        world.hello(client, client as u8, 1, InstanceId::NONE);
        world.want(client, 5, 1, &[]);
    }
    let mut lease = grants(&world.want(1, 6, 1, &[]), 1)[0].lease;
    for number in 1..=4_000 {
        lease = grants(&world.done(1, number, lease, 1), 1)[0].lease;
        world.settle();
        assert!(world.coordinator.timers.len() <= 1_312, "{} timers for 101 leases", world.coordinator.timers.len());
    }
}

#[test]
fn releases_and_abandoned_creations_leave_no_timers_behind() {
    let mut world = World::new(Options::default());
    world.checked = false;
    world.create(1, CampaignSpec { lease_ms: Some(1_000_000), ..counted("a", 10_000, 1) });
    world.hello(1, 1, 1, InstanceId::NONE);
    // Two tasks come back again and again after long delays; every other one is given back once and then done.
    let mut held = grants(&world.want(1, 1, 1, &[]), 1);
    let mut seen = std::collections::BTreeSet::new();
    for number in 1..=4_000 {
        let grant = held[0];
        let give_back = grant.task.0 < 2 || seen.insert(grant.task);
        world.want(1, 0, 1, &[]);
        if give_back {
            world.release(1, number, grant.lease);
        } else {
            world.done(1, number, grant.lease, 1);
        }
        world.pass(1_100);
        held = grants(&world.want(1, 1, 1, &[]), 1);
        assert!(world.coordinator.timers.len() <= 1_100, "{} timers for one session", world.coordinator.timers.len());
    }
    for creation in (2..=101).cycle().take(3_000) {
        let spec = CampaignSpec { tasks: Tasks::Keys { count: 1 }, ..counted("b", 1, 1) };
        world.create(creation, spec);
        world.control(ControlRequest::Remove { campaign: "b".into() });
        assert!(world.coordinator.timers.len() <= 1_100, "{} timers for no creation", world.coordinator.timers.len());
    }
}

#[test]
fn delays_that_shorter_ones_overtake_leave_no_timers_behind() {
    let mut world = World::new(Options::default());
    world.checked = false;
    // Each session has a campaign to itself.
    let clients = 1..=40_u64;
    for client in clients.clone() {
        let name = format!("c{client}");
        world.create(client as u8, CampaignSpec { lease_ms: Some(1_000_000), ..counted(&name, 100, 1) });
        world.hello(client, client as u8, 1, InstanceId::NONE);
    }
    let lend = |world: &mut World, client: u64| {
        let name = format!("c{client}");
        let lease = grants(&world.want(client, 1, 1, &[&name]), client)[0].lease;
        world.want(client, 0, 1, &[&name]);
        lease
    };
    // Everybody gives its first task back until its delay is a minute.
    for number in 1..=7 {
        for client in clients.clone() {
            let lease = lend(&mut world, client);
            world.release(client, number, lease);
        }
        if number < 7 {
            world.pass(1_000 << (number - 1));
        }
    }
    // Within that minute everybody gives another one back for a second, does it then, and so on.
    for round in 0..50 {
        for client in clients.clone() {
            let lease = lend(&mut world, client);
            world.release(client, 8 + 2 * round, lease);
        }
        world.settle();
        let timers = world.coordinator.timers.len();
        assert!(timers <= 1_300, "{timers} timers for 40 sessions after {round} rounds");
        world.pass(1_000);
        for client in clients.clone() {
            let lease = lend(&mut world, client);
            world.done(client, 9 + 2 * round, lease, 1);
        }
    }
}

#[test]
fn sessions_that_come_and_go_leave_no_timers_behind() {
    let mut world = World::new(Options::default());
    world.checked = false;
    world.create(1, counted("a", 1, 1));
    for round in 1..=2_000 {
        world.hello(2 * round, 1, 1, InstanceId::NONE);
        world.want(2 * round, 1, 1, &[]);
        // Its predecessors were in the same slot.
        world.settle();
        assert!(world.coordinator.timers.len() <= 1_032, "{} timers for one session", world.coordinator.timers.len());
        world.disconnect(2 * round);
        world.hello(2 * round + 1, 1, 2, INSTANCE);
        world.apply(Command::Goodbye { connection: ConnectionId(2 * round + 1) });
    }
}

#[test]
fn what_is_still_to_come_is_not_swept_out_with_what_is_over() {
    let mut world = World::new(Options { session_idle_ms: 3_000, creation_idle_ms: 4_000, ..Options::default() });
    world.checked = false;
    world.create(1, CampaignSpec { lease_ms: Some(5_000), ..counted("held", 1, 1) });
    world.create(2, counted("released", 1, 1));
    world.create(3, CampaignSpec { tasks: Tasks::Keys { count: 1 }, ..counted("abandoned", 1, 1) });
    world.create(4, counted("over", 1, 1_000_000));
    for client in 1..=4 {
        world.hello(client, client as u8, 1, InstanceId::NONE);
    }
    assert_eq!(grants(&world.want(1, 1, 1, &["held"]), 1).len(), 1);
    let lease = grants(&world.want(2, 1, 1, &["released"]), 2)[0].lease;
    world.release(2, 1, lease);
    // The third has a row, and then no connection.
    world.requests(3, 1, vec![]);
    world.disconnect(3);
    let mut lease = grants(&world.want(4, 1, 1, &["over"]), 4)[0].lease;
    for number in 1..=1_100 {
        lease = grants(&world.done(4, number, lease, 1), 4)[0].lease;
    }
    world.apply(Command::Goodbye { connection: ConnectionId(4) });
    world.settle();
    assert_eq!(world.coordinator.timers.len(), 4, "one for each that is still to come");
    assert_eq!(grants(&world.pass(1_000), 2).len(), 1);
    world.now = 2_999;
    world.heartbeat(2);
    let sessions = |world: &World| world.coordinator.sessions.len();
    assert_eq!(sessions(&world), 3);
    world.pass(1);
    assert_eq!(sessions(&world), 2);
    let creations = |world: &World| world.coordinator.creations.len();
    world.pass(999);
    assert_eq!(creations(&world), 4);
    world.pass(1);
    assert_eq!(creations(&world), 3);
    assert_eq!(world.status("held").losses, 0);
    world.pass(1_000);
    assert_eq!(world.status("held").losses, 1);
}

#[test]
fn a_session_forgets_campaigns_that_are_gone() {
    let mut world = World::new(Options::default());
    world.checked = false;
    world.hello(1, 1, 1, InstanceId::NONE);
    for name in ["b", "c", "d"] {
        world.create(name.as_bytes()[0], counted(name, 1, 1));
    }
    for (number, grant) in (1..).zip(grants(&world.want(1, 3, 1, &[]), 1)) {
        world.done(1, number, grant.lease, 1);
    }
    for name in ["b", "c", "d"] {
        world.control(ControlRequest::Remove { campaign: name.into() });
    }
    for round in 1..=90 {
        let request = ControlRequest::Create { creation: CreationId([round; 16]), spec: Box::new(counted("a", 1, 1)) };
        let outputs = world.apply(Command::Control { connection: ConnectionId(999), id: 0, request });
        world.done(1, u64::from(round) + 3, grants(&outputs, 1)[0].lease, 1);
        world.control(ControlRequest::Remove { campaign: "a".into() });
        let (_, session) = world.coordinator.sessions.iter().next().unwrap();
        assert!(session.announced.len() <= 2, "{} campaigns", session.announced.len());
    }
}
