//! What is measured, in which order.

use std::path::PathBuf;

use crate::figures::{self, Results, Shape};
use crate::options::Options;
use crate::server::{Kind, Server};
use crate::table;

struct Plan {
    options: Options,
    svg: Option<PathBuf>,
}

impl Plan {
    fn parse(words: &[&str]) -> Self {
        let mut svg = None;
        let options = Options::parse(words, |word, value| match word {
            "--svg" => svg = Some(value().into()),
            _ => panic!("{word} is unknown: see the head of benches/throughput/main.rs"),
        });
        Self { options, svg }
    }
}

pub(crate) fn run(words: &[&str]) {
    let Plan { options, svg } = Plan::parse(words);
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let servers: Vec<(Kind, Server)> =
        Kind::ALL.into_iter().map(|kind| (kind, Server::start(kind, directory.path()))).collect();
    let mut results = Results::new();
    for &batch in &options.batches {
        for &clients in &options.clients {
            for round in 1..=options.rounds {
                // Each begins in its turn: whoever comes next finds the disk as it was left.
                let (first, others) = servers.split_at(round as usize % servers.len());
                for (kind, server) in others.iter().chain(first) {
                    eprint!(
                        "\r{clients} clients, {batch} a message, round {round} of {}: {:<14}",
                        options.rounds,
                        kind.word()
                    );
                    let shape = Shape { batch, clients };
                    // Nobody waits for the disk because of what another has written.
                    rustix::fs::sync();
                    results.entry((shape, *kind)).or_default().push(server.load(shape, options.seconds));
                }
            }
        }
    }
    eprintln!();
    print!("{}", table::text(&results));
    if let Some(path) = options.json {
        std::fs::write(path, figures::json(&results, Kind::word)).unwrap();
    }
    if let Some(path) = svg {
        std::fs::write(path, table::svg(&results)).unwrap();
    }
}
