//! The origin's toy, with the native client: many client processes that wait instead of working, do one or two units of
//! a task as they please, and vanish when they feel like it.
//!
//! ```text
//! tenfold serve --data-dir ./data --lease 10s
//! tenfold create toy --range 0..100 --runs 10
//! cargo run --release --example toy_fleet -- --clients 20 --seconds 1
//! ```
//!
//! A client that vanishes says nothing, as if its cable had been pulled: its lease expires, and the task goes to another.
//! In the end every task has its ten units, and some have extra ones, where two were done and one was missing: see
//! `tenfold counts toy`. What this fleet says it did is what the server counted, extra ones included.

use std::process::Stdio;
use std::time::Duration;

use clap::Parser;
use tenfold::client::{Client, Config, Lease, Verdict};
use tenfold::types::{Outcome, Want};
use tokio::process::Command;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a client process exits with when it vanishes.
const VANISHED: i32 = 9;

/// Clients that wait, do one or two units, and come and go.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// Where the server listens
    #[arg(long, default_value = "127.0.0.1:65432")]
    server: String,
    /// Client processes at a time
    #[arg(long, default_value_t = 10)]
    clients: u64,
    /// How long one task takes, on average
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How many of 100 leases end with the client vanishing in the middle
    #[arg(long, default_value_t = 5)]
    vanish: u64,
    /// Decides what the clients do; who gets which task is still up to time
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this campaign; else any
    #[arg(long)]
    campaign: Option<String>,
    /// Be one client, for one life
    #[arg(long, hide = true)]
    one_life: bool,
}

#[tokio::main]
#[allow(clippy::print_stdout, reason = "the output of an example")]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    if arguments.one_life {
        return live(arguments).await;
    }
    let start = |number| tokio::spawn(come_and_go(arguments.clone(), number));
    let clients: Vec<_> = (1..=arguments.clients).map(start).collect();
    let (mut units, mut vanished) = (0, 0);
    for client in clients {
        let (units_of_one, vanished_of_one) = client.await??;
        units += units_of_one;
        vanished += vanished_of_one;
    }
    println!("all is settled: {units} units were counted; {vanished} times a client vanished in the middle of a task");
    Ok(())
}

/// One client, life after life, until all is settled: how many units it did, and how often it vanished.
async fn come_and_go(arguments: Arguments, number: u64) -> Result<(u64, u64), Failure> {
    let mut dice = Dice(arguments.seed.wrapping_mul(1_000_003).wrapping_add(number));
    let (mut units, mut vanished) = (0, 0);
    loop {
        let mut life = Command::new(std::env::current_exe()?);
        life.arg("--one-life").args(["--server", &arguments.server]);
        life.args(["--seconds", &arguments.seconds.to_string(), "--vanish", &arguments.vanish.to_string()]);
        life.args(["--seed", &dice.next().to_string()]);
        life.args(arguments.campaign.iter().flat_map(|campaign| ["--campaign", campaign]));
        let ended = life.stderr(Stdio::inherit()).kill_on_drop(true).output().await?;
        // A line for each report that was counted.
        let counted = String::from_utf8_lossy(&ended.stdout);
        units += counted.lines().filter_map(|line| line.parse::<u64>().ok()).sum::<u64>();
        match ended.status.code() {
            Some(0) => return Ok((units, vanished)),
            Some(VANISHED) => vanished += 1,
            Some(_) | None => return Err(format!("client {number} failed: {}", ended.status).into()),
        }
        tokio::time::sleep(arguments.average()).await;
    }
}

/// One life: until all is settled, or until the client feels like vanishing.
#[allow(clippy::print_stdout, reason = "what the client tells the fleet")]
async fn live(arguments: Arguments) -> Result<(), Failure> {
    let mut dice = Dice(arguments.seed);
    let mut config = Config::new([arguments.server.clone()]);
    config.name = format!("toy {}", std::process::id());
    config.want = Want { leases: 1, runs: 1, campaigns: arguments.campaign.clone().into_iter().collect() };
    config.until_done = true;
    let client = Client::start(config)?;
    while let Some(lease) = client.next_lease().await {
        let waiting = arguments.average().mul_f64(0.5 + dice.fraction());
        if dice.below(100) < arguments.vanish {
            tokio::time::sleep(waiting / 2).await;
            // Nothing is given back and nobody says goodbye: that would be too polite.
            std::process::exit(VANISHED);
        }
        tokio::time::sleep(waiting).await;
        let units = units(&lease, &mut dice);
        if lease.report(Outcome::Done { runs: units }).await == Verdict::Counted {
            println!("{units}");
        }
    }
    client.close(Duration::from_secs(10)).await;
    Ok(())
}

/// One or two, whatever was lent. The runs of a numbered campaign have names: of those exactly what was lent.
fn units(lease: &Lease, dice: &mut Dice) -> u32 {
    if lease.seed(0).is_some() { lease.runs() } else { 1 + dice.below(2) as u32 }
}

impl Arguments {
    fn average(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds).unwrap_or_default()
    }
}

/// A small random generator (`SplitMix64`), so that a client behaves the same for the same seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `end` - 1. The bias is far below what a toy notices.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A number from 0 to 1.
    fn fraction(&mut self) -> f64 {
        f64::from(self.below(1 << 20) as u32) / f64::from(1 << 20)
    }
}
