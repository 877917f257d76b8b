//! The origin's toy, with the native client: many clients that wait instead of working, do one or two units of a task
//! as they please, and disconnect when they feel like it.
//!
//! ```text
//! tenfold serve --data-dir ./data --lease 10s
//! tenfold create toy --range 0..1000 --runs 10
//! cargo run --release --example toy_fleet -- --clients 100 --seconds 2
//! ```
//!
//! A client that leaves says nothing: its lease expires, and the task goes to another. In the end every task has its ten
//! units, and some have extra ones, where two were done and one was missing: see `tenfold counts toy`.

use std::time::Duration;

use clap::Parser;
use tenfold::client::{Client, Config, Lease, StartError, Verdict};
use tenfold::types::{Outcome, Want};

/// Clients that wait, do one or two units, and come and go.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// Where the server listens
    #[arg(long, default_value = "127.0.0.1:65432")]
    server: String,
    /// Clients at a time
    #[arg(long, default_value_t = 10)]
    clients: u64,
    /// How long one task takes, on average
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How many of 100 leases end with the client leaving in the middle
    #[arg(long, default_value_t = 5)]
    leave: u64,
    /// Decides what the clients do; the order in which they get tasks is still up to time
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this campaign; else any
    #[arg(long)]
    campaign: Option<String>,
}

/// What one client did in all its lives.
#[derive(Clone, Copy, Debug, Default)]
struct Deeds {
    units: u64,
    reports: u64,
    refused: u64,
    left: u64,
}

#[tokio::main]
#[allow(clippy::print_stdout, reason = "the output of an example")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let start = |number| tokio::spawn(come_and_go(arguments.clone(), number));
    let clients: Vec<_> = (1..=arguments.clients).map(start).collect();
    let mut all = Deeds::default();
    for client in clients {
        let deeds = client.await??;
        all.units += deeds.units;
        all.reports += deeds.reports;
        all.refused += deeds.refused;
        all.left += deeds.left;
    }
    println!("all is settled: {} units in {} counted reports, {} refused", all.units, all.reports, all.refused);
    println!("{} times a client left in the middle of a task", all.left);
    Ok(())
}

/// One client, again and again, until all is settled.
async fn come_and_go(arguments: Arguments, number: u64) -> Result<Deeds, StartError> {
    let mut dice = Dice(arguments.seed.wrapping_mul(1_000_003).wrapping_add(number));
    let mut deeds = Deeds::default();
    loop {
        let mut config = Config::new([arguments.server.clone()]);
        config.name = format!("toy {number}");
        config.want = Want { leases: 1, runs: 1, campaigns: arguments.campaign.clone().into_iter().collect() };
        config.until_done = true;
        let client = Client::start(config)?;
        loop {
            let Some(lease) = client.next_lease().await else {
                client.close(Duration::from_secs(10)).await;
                return Ok(deeds);
            };
            let waiting = Duration::from_secs_f64(arguments.seconds.max(0.0) * (0.5 + dice.fraction()));
            if dice.below(100) < arguments.leave {
                tokio::time::sleep(waiting / 2).await;
                deeds.left += 1;
                // The client goes first: so it cannot give the lease back, as if its cable had been pulled.
                drop(client);
                drop(lease);
                break;
            }
            tokio::time::sleep(waiting).await;
            report(lease, 1 + dice.below(2), &mut deeds).await;
        }
        tokio::time::sleep(Duration::from_secs_f64(arguments.seconds.max(0.0))).await;
    }
}

async fn report(lease: Lease, units: u64, deeds: &mut Deeds) {
    // The runs of a numbered campaign have names, and one lease has one of them: there is no second to do.
    let units = if lease.seed(0).is_some() { u64::from(lease.runs()) } else { units };
    match lease.report(Outcome::Done { runs: units as u32 }).await {
        Verdict::Counted => {
            deeds.units += units;
            deeds.reports += 1;
        }
        Verdict::Refused(_) | Verdict::Unknown => deeds.refused += 1,
    }
}

/// A small random generator (`SplitMix64`), so that a fleet behaves the same for the same seed.
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
