//! What a seed is: how many of what, which limits, and what breaks how often. All of it follows from the seed.

use std::num::NonZero;

use super::process::Bounds;
use super::random::Random;
use super::stage::Weather;
use super::worker::Habits;
use super::world::BOUND_MS;
use crate::coordinator::Options;
use crate::limits;
use crate::protocol::messages::{WireOrder, WireSpec, WireTasks};
use crate::server::pipeline::Turns;
use crate::store::Pace;

/// The kinds of seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Ordinary,
    /// Batches of one, the shortest leases, sessions forgotten at once, tiny caps, slices of one.
    Tiny,
    /// Long, and nearly nothing breaks.
    Long,
    /// The server dies again and again.
    Crashes,
    /// The network falls apart again and again.
    Partitions,
    /// Campaigns are ordered about.
    Orders,
    /// Everything at once.
    Everything,
}

/// Mischief, with how often it is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mischief {
    Kill,
    KillInCommit,
    KillAfterCommit,
    PowerCut,
    PowerCutInCommit,
    CommitFails,
    CommitTorn,
    SyncLies,
    Stall,
    Partition,
    HoldOneWay,
    Cut,
    CutHalfOpen,
    Freeze,
    KillClient,
    ClientLeaves,
    ClientCloses,
    ClientReconnects,
    WindowChanges,
    NewClient,
}

/// See the head of this file.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) kind: Kind,
    /// When faults stop.
    pub(super) calm_at: u64,
    pub(super) options: Options,
    pub(super) pace: Pace,
    pub(super) turns: Turns,
    pub(super) bounds: Bounds,
    pub(super) weather: Weather,
    pub(super) commit_ms: u64,
    pub(super) workers: usize,
    pub(super) origins: usize,
    pub(super) observers: usize,
    pub(super) look_ms: u64,
    /// Mean time between mischiefs.
    pub(super) mischief_ms: u64,
    pub(super) mischiefs: Vec<(Mischief, u64)>,
    /// In percent: starts that fail at once.
    pub(super) bad_starts: u64,
    pub(super) breaks: u64,
    pub(super) orders: u64,
    pub(super) campaigns: usize,
    /// How long the end waits after faults have stopped, so that what must happen within a time is judged.
    pub(super) patience_ms: u64,
}

/// Every commit is written by another thread.
const LARGE: Turns = Turns { requests_max: limits::REQUESTS_PER_COMMIT_MAX, large_requests: NonZero::<usize>::MIN };
/// And little is decided meanwhile.
const LARGE_AND_FEW: Turns = Turns { requests_max: 3, ..LARGE };

/// The length of the longest lease.
const LEASE_MS_MAX: u64 = 20_000;

/// The campaign that clients of the origin's dialect work on.
pub(super) const ORIGIN_CAMPAIGN: &str = "origin";
/// Number of its first task.
pub(super) const ORIGIN_FIRST: u64 = 7;

impl Shape {
    pub(super) fn of(random: &mut Random) -> Self {
        let kind = match random.within(0..=99) {
            0..20 => Kind::Ordinary,
            20..40 => Kind::Tiny,
            40..50 => Kind::Long,
            50..65 => Kind::Crashes,
            65..80 => Kind::Partitions,
            80..90 => Kind::Orders,
            _ => Kind::Everything,
        };
        let tiny = kind == Kind::Tiny;
        let mut options = Options {
            lease_ms: random.one_of(&[1_000, 3_000, LEASE_MS_MAX]).unwrap_or(1_000),
            origin_campaign: Some(ORIGIN_CAMPAIGN.to_owned()),
            session_idle_ms: random.one_of(&[4_000, 60_000, limits::SESSION_IDLE_MS]).unwrap_or(60_000),
            creation_idle_ms: 20_000,
            ..Options::default()
        };
        if tiny {
            options.lease_ms = 100;
            options.session_idle_ms = random.one_of(&[0, 1, 1_500]).unwrap_or(0);
            options.creation_idle_ms = random.one_of(&[300, 2_000, 5_000]).unwrap_or(300);
            options.leases_max = random.one_of(&[2, 5, 20]).unwrap_or(2);
            options.leases_per_session_max = random.one_of(&[1, 2, 4]).unwrap_or(1);
            options.expired_per_session_max = random.one_of(&[0, 1, 2]).unwrap_or(0);
            options.sessions_max = random.one_of(&[4, 6, 12]).unwrap_or(4);
            options.past_sessions_max = random.one_of(&[1, 2, 20]).unwrap_or(1);
            options.slice = random.one_of(&[1, 2, 3]).unwrap_or(1);
        }
        let idle_ms = random.one_of(&[3_000, 10_000, limits::NATIVE_IDLE_MS]).unwrap_or(3_000);
        Self {
            kind,
            pace: random
                .one_of(&[Pace::EVERY_COMMIT, Pace { bytes: 2_000, records: 20, record_bytes: 40 }, Pace::default()])
                .unwrap_or_default(),
            turns: random.one_of(&[Turns::default(), LARGE, LARGE_AND_FEW]).unwrap_or_default(),
            calm_at: if kind == Kind::Long { 150_000 } else { random.within(8_000..=40_000) },
            options,
            bounds: Bounds {
                outbox: if tiny || random.percent(10) { 3 } else { limits::OUTBOX_MAX },
                window: random.one_of(&[64, 4_096, 1 << 20]).unwrap_or(64),
                idle_ms,
                origin_idle_ms: 20_000,
            },
            weather: Weather {
                delay_ms: random.one_of(&[0, 5, 30, 300]).unwrap_or(5),
                split_percent: random.one_of(&[5, 30, 80]).unwrap_or(5),
            },
            commit_ms: random.one_of(&[0, 3, 40]).unwrap_or(0),
            workers: random.within(1..=5) as usize,
            origins: random.within(0..=2) as usize,
            observers: random.within(0..=2) as usize,
            look_ms: random.one_of(&[50, 800, 4_000]).unwrap_or(800),
            mischief_ms: match kind {
                Kind::Long => 20_000,
                Kind::Ordinary | Kind::Tiny | Kind::Orders => random.within(400..=4_000),
                Kind::Crashes | Kind::Partitions | Kind::Everything => random.within(100..=1_200),
            },
            mischiefs: mischiefs(kind),
            bad_starts: if kind == Kind::Crashes || kind == Kind::Everything { 25 } else { 4 },
            breaks: if matches!(kind, Kind::Orders | Kind::Everything | Kind::Tiny) { 20 } else { 3 },
            orders: if matches!(kind, Kind::Orders | Kind::Everything | Kind::Tiny) { 60 } else { 5 },
            campaigns: if matches!(kind, Kind::Orders | Kind::Everything) { 6 } else { random.within(1..=3) as usize },
            patience_ms: if random.percent(10) { LEASE_MS_MAX + BOUND_MS } else { 0 },
        }
    }

    /// The campaigns of one data directory; `generation` keeps names from ever repeating.
    pub(super) fn campaigns(&self, random: &mut Random, generation: u32) -> Vec<WireSpec> {
        let tiny = self.kind == Kind::Tiny;
        let mut specs: Vec<WireSpec> = (0..self.campaigns)
            .map(|index| {
                let tasks = random.within(1..=if tiny { 5 } else { 12 }) as u32;
                let keyed = random.percent(25);
                let numbered = random.percent(50);
                let most = if random.percent(15) { 75 } else { 6 };
                WireSpec {
                    name: format!("c{generation}-{index}"),
                    tasks: if keyed {
                        WireTasks::Keys { count: tasks }
                    } else {
                        WireTasks::Range { first: random.within(0..=1_000), count: tasks }
                    },
                    runs: random.within(1..=most) as u32,
                    seed: numbered.then(|| random.number()),
                    order: if random.percent(50) { WireOrder::Lowest } else { WireOrder::Even },
                    lease_ms: random.percent(70).then(|| if tiny { 100 } else { random.within(200..=4_000) }),
                    timeout_ms: random.percent(30).then(|| random.within(100..=2_000)),
                    errors_max: random.percent(50).then(|| random.within(1..=3) as u32),
                    losses_max: random.percent(20).then(|| random.within(1..=6) as u32),
                }
            })
            .collect();
        if self.origins > 0 && generation == 0 {
            let (tasks, runs) = (random.within(2..=8) as u32, random.within(1..=5) as u32);
            specs.push(WireSpec {
                name: ORIGIN_CAMPAIGN.to_owned(),
                tasks: WireTasks::Range { first: ORIGIN_FIRST, count: tasks },
                runs,
                seed: None,
                order: WireOrder::Lowest,
                lease_ms: random.percent(50).then_some(1_500),
                timeout_ms: None,
                errors_max: None,
                losses_max: None,
            });
        }
        if self.kind == Kind::Long
            && let Some(spec) = specs.first_mut()
        {
            spec.runs = 60;
            spec.seed = Some(1);
        }
        specs
    }

    /// How one client behaves.
    pub(super) fn habits(&self, random: &mut Random, names: &[String]) -> Habits {
        let calm = self.kind == Kind::Long;
        let often = |random: &mut Random, most: u64| if calm { random.within(0..=2) } else { random.within(0..=most) };
        let mut campaigns = Vec::new();
        if random.percent(30)
            && let Some(name) = (!names.is_empty()).then(|| names[random.below(names.len())].clone())
        {
            campaigns.push(name);
        }
        // Reports so many at once, every other one refused, that the server cannot keep all refusals.
        let flood = random.percent(if calm { 30 } else { 4 });
        Habits {
            leases: if flood { 200 } else { random.one_of(&[1, 2, 5, 20]).unwrap_or(1) },
            runs: if flood { 1 } else { random.one_of(&[1, 3, 64]).unwrap_or(1) },
            hands: if flood { 200 } else { random.within(1..=4) as usize },
            work_ms: if flood { 3_000 } else { random.one_of(&[5, 100, 1_000, 6_000]).unwrap_or(100) },
            even: flood,
            fails: if flood { 0 } else { often(random, 20) },
            exceeds: if flood { 50 } else { often(random, 10) },
            halves: often(random, 20),
            releases: often(random, 15),
            drops: often(random, 10),
            stubborn: random.one_of(&[20, 100]).unwrap_or(100),
            silence_ms: random.one_of(&[2_000, 8_000, limits::NATIVE_IDLE_MS]).unwrap_or(8_000),
            half_open: if calm { 0 } else { random.one_of(&[0, 30, 80]).unwrap_or(0) },
            until_done: random.percent(50),
            campaigns,
        }
    }
}

fn mischiefs(kind: Kind) -> Vec<(Mischief, u64)> {
    let (server, net, client) = match kind {
        Kind::Ordinary | Kind::Orders => (2, 4, 4),
        Kind::Tiny => (1, 4, 4),
        Kind::Long => (1, 1, 1),
        Kind::Crashes => (10, 1, 1),
        Kind::Partitions => (1, 12, 4),
        Kind::Everything => (4, 6, 6),
    };
    vec![
        (Mischief::Kill, server * 2),
        (Mischief::KillInCommit, server * 2),
        (Mischief::KillAfterCommit, server * 2),
        (Mischief::PowerCut, server),
        (Mischief::PowerCutInCommit, server),
        (Mischief::CommitFails, server * 2),
        (Mischief::CommitTorn, server),
        (Mischief::SyncLies, server / 4),
        (Mischief::Stall, 2 + server),
        (Mischief::Partition, net * 3),
        (Mischief::HoldOneWay, net * 2),
        (Mischief::Cut, net * 2),
        (Mischief::CutHalfOpen, net * 2),
        (Mischief::Freeze, client * 2),
        (Mischief::KillClient, client),
        (Mischief::ClientLeaves, client / 2),
        (Mischief::ClientCloses, client / 2),
        (Mischief::ClientReconnects, client + net),
        (Mischief::WindowChanges, client),
        (Mischief::NewClient, client),
    ]
}
