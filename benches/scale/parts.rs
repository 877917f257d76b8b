//! What is measured, part by part.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::server::{Part, Server};
use crate::table::Table;

const MIB: f64 = 1024.0 * 1024.0;
const ROUNDS: usize = 9;
const SECONDS: &str = "1.5";

/// Tasks of a large campaign, and of the largest.
const MANY: u32 = 10_000_000;
const MOST: u32 = 100_000_000;

type Measure = fn(&mut Table);

const PARTS: [(&str, Measure); 8] = [
    ("create", create),
    ("sessions", sessions),
    ("recovery", recovery),
    ("tasks", tasks),
    ("leases", leases),
    ("checkpoints", checkpoints),
    ("disk", disk),
    ("herd", herd),
];

pub(crate) fn run(words: &[&str]) {
    let (words, json) = match words {
        [words @ .., "--json", file] => (words, Some(*file)),
        words => (words, None),
    };
    if let Some(unknown) = words.iter().find(|word| PARTS.iter().all(|(name, _)| name != *word)) {
        panic!("{unknown} is unknown: see the head of benches/scale/main.rs");
    }
    let mut table = Table::default();
    for (name, part) in PARTS {
        if words.is_empty() || words.contains(&name) {
            part(&mut table);
        }
    }
    table.end(json);
}

fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// How long it takes to create campaigns, and what an idle task takes.
fn create(table: &mut Table) {
    let directory = directory();
    let server = Server::start(&directory.path().join("data"));
    for (tasks, most) in [(MANY, 2.0), (MOST, 15.0)] {
        let before = server.memory();
        let took = server.create(tasks, 10);
        table.row(&format!("create {tasks} tasks"), took.as_secs_f64(), most, "s");
        let bound = 24.0 + 64.0 * MIB / f64::from(tasks);
        let each = (server.memory() - before) / f64::from(tasks);
        table.row(&format!("memory of each of {tasks} idle tasks"), each, bound, "bytes");
    }
    let file = directory.path().join("lines");
    let mut lines = BufWriter::new(File::create(&file).unwrap());
    (0..1_000_000).for_each(|number| writeln!(lines, "images/{number:010}.png").unwrap());
    lines.flush().unwrap();
    let took = server.command(&["create", "keyed", "--lines", file.to_str().unwrap()]);
    table.row("create 1000000 tasks from a file of keys", took.as_secs_f64(), 5.0, "s");
}

/// What one load measured.
struct Measured {
    /// Cycles a second.
    rate: f64,
    /// Milliseconds.
    p50: f64,
    p99: f64,
    p999: f64,
    longest: f64,
}

type Figure = fn(&Measured) -> f64;

/// Sessions that report everything they hold in every message.
fn load(server: &Server, active: usize, idle: usize, batch: usize, seconds: &str) -> Measured {
    load_holding(server, active, idle, batch, batch, seconds)
}

fn load_holding(server: &Server, active: usize, idle: usize, held: usize, batch: usize, seconds: &str) -> Measured {
    let words = [active, idle, held, batch].map(|number| number.to_string());
    let [active, idle, held, batch] = &words;
    let mut clients = Part::start(&["clients", &server.address, active, idle, held, batch, seconds]);
    assert_eq!(clients.line(), "ready");
    clients.go_on();
    let figures: Vec<f64> = clients.line().split(' ').map(|word| word.parse().unwrap()).collect();
    clients.end();
    let [cycles, seconds, p50, p99, p999, longest] = figures[..] else { panic!("{figures:?}") };
    let [p50, p99, p999, longest] = [p50, p99, p999, longest].map(|microseconds| microseconds / 1_000.0);
    Measured { rate: cycles / seconds, p50, p99, p999, longest }
}

/// The middle of a figure over rounds.
fn median(rounds: &[Measured], figure: Figure) -> f64 {
    middle(rounds.iter().map(figure))
}

/// The middle of how often one's figure is the other's, round by round.
fn ratio(one: &[Measured], other: &[Measured], figure: Figure) -> f64 {
    middle(one.iter().zip(other).map(|(one, other)| figure(one) / figure(other)))
}

fn middle(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// What an idle session takes, and how far idle ones disturb those that work.
fn sessions(table: &mut Table) {
    const ALL: usize = 10_000;
    const ACTIVE: usize = 1_000;
    let directory = directory();
    let server = Server::start(&directory.path().join("data"));
    server.create(MANY, 100);
    // What a server takes that has just worked is not the sessions'.
    load(&server, ACTIVE, 0, 1, "1");
    let before = server.memory();
    let mut clients = Part::start(&["clients", &server.address, "0", &ALL.to_string(), "1", "1", "0"]);
    assert_eq!(clients.line(), "ready");
    table.row("memory of each of 10000 idle sessions", (server.memory() - before) / ALL as f64 / 1_024.0, 8.0, "KiB");
    clients.go_on();
    clients.line();
    clients.end();

    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(load(&server, ACTIVE, 0, 1, SECONDS));
        beside.push(load(&server, ACTIVE, ALL - ACTIVE, 1, SECONDS));
    }
    let figures: [(&str, Figure); 2] = [("p50", |one| one.p50), ("p99", |one| one.p99)];
    for (name, figure) in figures {
        let what = format!("{name} of 1000 sessions that work, alone");
        table.note(&what, format_args!("{:.1} ms", median(&alone, figure)));
        table.row(&format!("the same beside 9000 idle ones, {name}"), ratio(&beside, &alone, figure), 1.3, "of that");
    }
}

/// How long a start takes.
fn recovery(table: &mut Table) {
    for (tasks, leases, starts, most) in [(MANY, 1_000_000, 7, 3.0), (MOST, 0, 3, 20.0)] {
        let directory = directory();
        let mut data = directory.path().join("data");
        fill(&data, tasks, leases);
        let mut took = Vec::new();
        for _ in 1..starts {
            let server = Server::start(&data);
            took.push(server.started.as_secs_f64());
            data = server.kill();
        }
        let server = Server::start(&data);
        took.push(server.started.as_secs_f64());
        took.sort_by(f64::total_cmp);
        let what = format!("start on {tasks} touched tasks and {leases} leases");
        table.row(&what, took[took.len() / 2], most, "s");
        table.note("the fastest and the slowest", format_args!("{:.2} s, {:.2} s", took[0], took[took.len() - 1]));
        table.note("pages and journal that it read", format_args!("{:.0} MiB", stored_bytes(&server.said) / MIB));
        if leases == 0 {
            let each = server.memory() / f64::from(tasks);
            table.row("memory of each of these tasks", each, 24.0 + 64.0 * MIB / f64::from(tasks), "bytes");
        }
        table.note("room of the directory", format_args!("{:.0} MiB", server.disk() / MIB));
    }
}

/// Fills a directory in a process of its own, so that nothing of it stays in this one's memory.
fn fill(data: &Path, tasks: u32, leases: u32) {
    let mut part = Part::start(&["fill", data.to_str().unwrap(), &tasks.to_string(), &leases.to_string()]);
    assert_eq!(part.line(), "filled");
    part.end();
}

/// Throughput at many tasks beside that at few: but not so few that several runs of a task are reported in one commit, which are one row in the
/// journal.
fn tasks(table: &mut Table) {
    let directory = directory();
    let data = directory.path().join("most");
    fill(&data, MOST, 0);
    let most = Server::start(&data);
    for (tasks, clients, batch) in [(1_000, 64, 1), (100_000, 64, 64)] {
        let few = Server::start(&directory.path().join(format!("t{tasks}")));
        few.create(tasks, 1_000_000);
        let (mut at_few, mut at_most) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            at_few.push(load(&few, clients, 0, batch, SECONDS));
            at_most.push(load(&most, clients, 0, batch, SECONDS));
        }
        let what = format!("{clients} sessions, {batch} runs a message, {tasks} tasks");
        table.note(&what, format_args!("{:.0} messages/s", median(&at_few, |one| one.rate)));
        let times = ratio(&at_few, &at_most, |one| one.rate);
        table.row("the same divided by that of 100000000 touched tasks", times, 1.2, "times");
    }
}

/// How much slower it is when more leases are outstanding: others' leases, and such as may be reported next.
fn leases(table: &mut Table) {
    const SESSIONS: usize = 1_000;
    let directory = directory();
    let [few, many] = [1_000, 1_000_000].map(|leases| {
        let data = directory.path().join(format!("l{leases}"));
        fill(&data, MANY, leases);
        Server::start(&data)
    });
    let (mut beside_few, mut beside_many) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        beside_few.push(load(&few, 64, 0, 1, SECONDS));
        beside_many.push(load(&many, 64, 0, 1, SECONDS));
    }
    let rate = median(&beside_few, |one| one.rate);
    table.note("64 sessions beside 1000 leases of others", format_args!("{rate:.0} messages/s"));
    let times = ratio(&beside_few, &beside_many, |one| one.rate);
    table.row("the same divided by that beside 1000000", times, 1.2, "times");
    drop((few, many));

    let server = Server::start(&directory.path().join("own"));
    server.create(MANY, 1_000);
    let (mut one_each, mut many_each) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        one_each.push(load_holding(&server, SESSIONS, 0, 1, 1, SECONDS));
        many_each.push(load_holding(&server, SESSIONS, 0, 1_000, 1, SECONDS));
    }
    let rate = median(&one_each, |one| one.rate);
    table.note("1000 sessions with one lease each", format_args!("{rate:.0} messages/s"));
    let times = ratio(&one_each, &many_each, |one| one.rate);
    table.row("the same divided by that with 1000 leases each, reported in random order", times, 1.2, "times");
}

/// How long a report waits with checkpoints, and without.
fn checkpoints(table: &mut Table) {
    let directory = directory();
    let start = |name: &str, arguments: &[&str]| {
        let server = Server::start_with(&directory.path().join(name), "127.0.0.1:0", arguments);
        server.create(MANY, 100);
        server
    };
    let with = start("with", &[]);
    let without = start("without", &["--pace", "2000000000,2000000000,4080"]);
    let (mut measured, mut never) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        measured.push(load(&with, 64, 0, 1, SECONDS));
        never.push(load(&without, 64, 0, 1, SECONDS));
    }
    let figures: [(&str, Figure); 3] = [("p50", |one| one.p50), ("p99", |one| one.p99), ("p99.9", |one| one.p999)];
    for (name, figure) in figures {
        table.note(&format!("64 sessions, no checkpoint, {name}"), format_args!("{:.1} ms", median(&never, figure)));
        table.row(&format!("the same with checkpoints, {name}"), median(&measured, figure), 50.0, "ms");
    }
    let longest = |rounds: &[Measured]| rounds.iter().map(|one| one.longest).fold(0.0, f64::max);
    table.note("64 sessions, no checkpoint, the longest of all", format_args!("{:.1} ms", longest(&never)));
    table.note("the same with checkpoints, the longest of all", format_args!("{:.1} ms", longest(&measured)));
}

/// The disk after many runs, beside the state.
fn disk(table: &mut Table) {
    const RUNS: f64 = 50_000_000.0;
    const BATCH: usize = 64;
    let directory = directory();
    let server = Server::start(&directory.path().join("data"));
    server.create(1_000_000, 1_000);
    let (mut runs, mut largest, began) = (0.0, 0.0_f64, Instant::now());
    while runs < RUNS {
        let measured = load(&server, 64, 0, BATCH, "10");
        runs += measured.rate * 10.0 * BATCH as f64;
        largest = largest.max(server.disk());
        eprintln!("{runs:.0} runs, {:.0} MiB, {:?}", server.disk() / MIB, began.elapsed());
    }
    let data = server.kill();
    let again = Server::start(&data);
    let state = stored_bytes(&again.said);
    table.note("runs done, of 1000000 tasks", format_args!("{:.0} million", runs / 1e6));
    table.note("what is stored then: pages and journal", format_args!("{:.1} MiB", state / MIB));
    let bound = 2.5 * state / MIB + 256.0;
    table.row("the largest that the directory was", largest / MIB, bound, "MiB");
    table.row("start after these runs", again.started.as_secs_f64(), 3.0, "s");
}

/// Bytes of pages and of journal that a server says to have read.
fn stored_bytes(said: &[String]) -> f64 {
    let line = said.iter().find(|line| line.contains("  read ")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let bytes = words.windows(2).filter(|pair| pair[1].starts_with("byte"));
    bytes.map(|pair| pair[0].replace(',', "").parse::<f64>().unwrap()).sum()
}

/// How long it takes until everybody who returns at once is served.
fn herd(table: &mut Table) {
    const CLIENTS: usize = 5_000;
    let directory = directory();
    let server = Server::start(&directory.path().join("data"));
    server.create(MANY, 100);
    let mut clients = Part::start(&["herd-of", &CLIENTS.to_string(), &server.address]);
    assert_eq!(clients.line(), "ready");
    clients.go_on();
    let address = server.address.clone();
    let data = server.kill();
    let _again = Server::start_with(&data, &address, &[]);
    let began = Instant::now();
    assert_eq!(clients.line(), "served");
    table.row("5000 clients that return at once, until all are served", began.elapsed().as_secs_f64(), 5.0, "s");
    clients.end();
}

/// Works for so many minutes, and prints what the server takes after each.
pub(crate) fn soak(minutes: u64) {
    let directory = directory();
    let server = Server::start(&directory.path().join("data"));
    // Leases that are not due before the end: nothing else is to clean up behind those that are reported.
    let lease = format!("{}m", 2 * minutes);
    server.command(&[
        "create",
        "soak",
        "--range",
        "0..1000000",
        "--runs",
        "1000000",
        "--order",
        "even",
        "--lease",
        &lease,
    ]);
    let mut clients = Part::start(&["clients", &server.address, "64", "0", "1", "1", &(60 * minutes).to_string()]);
    assert_eq!(clients.line(), "ready");
    clients.go_on();
    for minute in 1..=minutes {
        std::thread::sleep(Duration::from_mins(1));
        let (memory, disk) = (server.memory() / MIB, server.disk() / MIB);
        println!("minute {minute}: {memory:.1} MiB of memory, {disk:.0} MiB on the disk");
    }
    let line = clients.line();
    clients.end();
    println!("{} messages in {minutes} minutes", line.split(' ').next().unwrap());
}
