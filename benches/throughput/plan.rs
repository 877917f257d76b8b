//! What is measured, in which order.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::figures::{Measured, Shape};
use crate::server::{Kind, Server};
use crate::table;

/// What is measured of every server under every shape, a round each.
pub(crate) type Results = BTreeMap<(Shape, Kind), Vec<Measured>>;

struct Plan {
    clients: Vec<u32>,
    batches: Vec<u32>,
    rounds: u32,
    seconds: f64,
    json: Option<PathBuf>,
    svg: Option<PathBuf>,
}

impl Plan {
    fn parse(words: &[&str]) -> Self {
        let mut plan = Self {
            clients: vec![1, 16, 64, 256],
            batches: vec![1, 64],
            rounds: 5,
            seconds: 3.0,
            json: None,
            svg: None,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || *words.next().unwrap_or_else(|| panic!("{word} needs a value"));
            let numbers = |text: &str| text.split(',').map(|number| number.parse().unwrap()).collect();
            match *word {
                // What cargo says to every benchmark.
                "--bench" => {}
                "--quick" => (plan.rounds, plan.seconds) = (1, 1.0),
                "--clients" => plan.clients = numbers(value()),
                "--batch" => plan.batches = numbers(value()),
                "--rounds" => plan.rounds = value().parse().unwrap(),
                "--seconds" => plan.seconds = value().parse().unwrap(),
                "--json" => plan.json = Some(value().into()),
                "--svg" => plan.svg = Some(value().into()),
                _ => panic!("{word} is unknown: see the head of benches/throughput/main.rs"),
            }
        }
        plan
    }
}

pub(crate) fn run(words: &[&str]) {
    let plan = Plan::parse(words);
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let servers: Vec<(Kind, Server)> =
        Kind::ALL.into_iter().map(|kind| (kind, Server::start(kind, directory.path()))).collect();
    let mut results = Results::new();
    for &batch in &plan.batches {
        for &clients in &plan.clients {
            for round in 1..=plan.rounds {
                // Each begins in its turn: whoever comes next finds the disk as it was left.
                let (first, others) = servers.split_at(round as usize % servers.len());
                for (kind, server) in others.iter().chain(first) {
                    eprint!(
                        "\r{clients} clients, {batch} a message, round {round} of {}: {:<14}",
                        plan.rounds,
                        kind.word()
                    );
                    let shape = Shape { batch, clients };
                    // Nobody waits for the disk because of what another has written.
                    rustix::fs::sync();
                    results.entry((shape, *kind)).or_default().push(server.load(shape, plan.seconds));
                }
            }
        }
    }
    eprintln!();
    print!("{}", table::text(&results));
    if let Some(path) = plan.json {
        std::fs::write(path, table::json(&results)).unwrap();
    }
    if let Some(path) = plan.svg {
        std::fs::write(path, table::svg(&results)).unwrap();
    }
}
