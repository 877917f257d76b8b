//! What is measured, in which order.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::figures::{Measured, Shape};
use crate::server::{Kind, Server};
use crate::table;

/// What is measured of every server under every shape, a round each.
pub(crate) type Results = BTreeMap<(Shape, Kind), Vec<Measured>>;

struct Plan {
    kinds: Vec<Kind>,
    clients: Vec<u32>,
    batches: Vec<u32>,
    rounds: u32,
    seconds: f64,
    json: Option<PathBuf>,
}

impl Plan {
    fn parse(words: &[&str]) -> Self {
        let mut plan = Self {
            kinds: Kind::ALL.to_vec(),
            clients: vec![1, 16, 64, 256],
            batches: vec![1, 64],
            rounds: 5,
            seconds: 3.0,
            json: None,
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
                "--peers" => {
                    plan.kinds = value().split(',').map(Kind::parse).collect();
                    plan.kinds.push(Kind::Tenfold);
                    plan.kinds.sort_unstable();
                    plan.kinds.dedup();
                }
                "--json" => plan.json = Some(value().into()),
                _ => panic!("{word} is unknown: see the head of benches/peers/main.rs"),
            }
        }
        plan
    }
}

pub(crate) fn run(words: &[&str]) {
    let plan = Plan::parse(words);
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // PostgreSQL refuses to be root, so somebody else must find the way in.
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o711)).unwrap();
    let mut servers: Vec<(Kind, Box<dyn Server>)> = Vec::new();
    for kind in &plan.kinds {
        let directory = directory.path().join(kind.word());
        std::fs::create_dir(&directory).unwrap();
        match kind.start(&directory) {
            Ok(server) => {
                println!("{}: {}", kind.word(), server.version());
                servers.push((*kind, server));
            }
            Err(missing) => println!(
                "{}: left out, since there is no {}; it is in Debian's package {} (benches/peers/install)",
                kind.word(),
                missing.program,
                missing.package
            ),
        }
    }
    let mut results = Results::new();
    for &batch in &plan.batches {
        for &clients in &plan.clients {
            let shape = Shape { batch, clients };
            for round in 1..=plan.rounds {
                for (kind, server) in &mut servers {
                    eprint!(
                        "\r{clients} clients, {batch} a message, round {round} of {}: {:<14}",
                        plan.rounds,
                        kind.word()
                    );
                    server.prepare(plan.seconds);
                    // Nobody waits for the disk because of what was put for somebody else.
                    rustix::fs::sync();
                    let measured = Measured::of(
                        server.process().id(),
                        &mut kind.load_command(server.process().address(), shape, plan.seconds),
                    );
                    results.entry((shape, *kind)).or_default().push(measured);
                }
            }
        }
    }
    eprintln!();
    print!("{}", table::text(&results));
    if let Some(path) = plan.json {
        std::fs::write(path, table::json(&results)).unwrap();
    }
}
