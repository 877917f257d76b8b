//! What is measured, in which order.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use crate::figures::{self, Measured, Results, Shape};
use crate::options::Options;
use crate::server::{Kind, Server};
use crate::table;

struct Plan {
    options: Options,
    kinds: Vec<Kind>,
}

impl Plan {
    fn parse(words: &[&str]) -> Self {
        let mut kinds = Kind::ALL.to_vec();
        let options = Options::parse(words, |word, value| match word {
            "--peers" => {
                kinds = value().split(',').map(Kind::parse).collect();
                kinds.push(Kind::Tenfold);
                kinds.sort_unstable();
                kinds.dedup();
            }
            _ => panic!("{word} is unknown: see the head of benches/peers/main.rs"),
        });
        Self { options, kinds }
    }
}

pub(crate) fn run(words: &[&str]) {
    let Plan { options, kinds } = Plan::parse(words);
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // PostgreSQL refuses to be root, so somebody else must find the way in.
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o711)).unwrap();
    let mut servers: Vec<(Kind, Box<dyn Server>)> = Vec::new();
    for kind in &kinds {
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
    for &batch in &options.batches {
        for &clients in &options.clients {
            let shape = Shape { batch, clients };
            for round in 1..=options.rounds {
                for (kind, server) in &mut servers {
                    eprint!(
                        "\r{clients} clients, {batch} a message, round {round} of {}: {:<14}",
                        options.rounds,
                        kind.word()
                    );
                    server.prepare(options.seconds);
                    // Nobody waits for the disk because of what was put for somebody else.
                    rustix::fs::sync();
                    let measured = Measured::of(
                        server.process().id(),
                        &mut kind.load_command(server.process().address(), shape, options.seconds),
                    );
                    results.entry((shape, *kind)).or_default().push(measured);
                }
            }
        }
    }
    eprintln!();
    print!("{}", table::text(&results));
    if let Some(path) = options.json {
        std::fs::write(path, figures::json(&results, Kind::word)).unwrap();
    }
}
