//! The real `tenfold serve` at scale: what tasks, sessions, restarts and time cost, each beside the bound that it must keep.
//!
//! ```text
//!   cargo bench --bench scale                        everything but the soak; about ten minutes, 6 GB of disk, 4 GB of memory
//!   cargo bench --bench scale -- create recovery     only these parts
//!   cargo bench --bench scale -- herd --json FILE    also for programs
//!   cargo bench --bench scale -- soak 60             an hour of work; prints the server's memory once a minute
//! ```
//!
//! | part | what it does |
//! |---|---|
//! | `create` | creates campaigns of 10^7 and 10^8 numbers and of 10^6 lines: how long, and how much memory |
//! | `sessions` | connects 10,000 idle sessions: memory of each; how much longer 1,000 active ones wait beside 9,000 idle ones |
//! | `recovery` | starts, with its files in the system's memory, on 10^7 tasks with 10^6 leases and a full journal, and on 10^8 touched tasks |
//! | `tasks` | throughput at 10^8 touched tasks beside that at 10^3 |
//! | `leases` | throughput with 10^6 leases outstanding beside that with 10^3: others' leases, and such as may be reported next |
//! | `checkpoints` | how long reports wait at most with checkpoints and without |
//! | `disk` | works until 50 million runs are done; the disk beside the state |
//! | `herd` | 5,000 clients that hold a lease each return at once when the server starts again |
//!
//! Prints a table, a row for each bound; ends with 1 if one was not kept. Where two things are compared they take turns, and medians are
//! taken: of the rounds' ratios, where the bound is of a ratio. In reading order: `parts` (what is measured), `clients` (sessions, in a
//! process of their own), `server` (processes), `fill` (directories as they are after much work), `table` (what is printed).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]
#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "figures for people")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its figures are for whoever runs it")]

#[cfg(target_os = "linux")]
mod clients;
#[cfg(target_os = "linux")]
mod fill;
#[cfg(target_os = "linux")]
mod parts;
#[cfg(target_os = "linux")]
mod server;
#[cfg(target_os = "linux")]
mod table;

#[cfg(target_os = "linux")]
fn main() {
    // `--bench` is what cargo says to every benchmark.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["clients", address, active, idle, held, batch, seconds] => {
            let number = |text: &str| text.parse().unwrap();
            let seconds = seconds.parse().unwrap();
            clients::load(address, number(active), number(idle), number(held), number(batch), seconds);
        }
        ["herd-of", clients, address] => clients::herd(address, clients.parse().unwrap()),
        ["fill", directory, tasks, leases] => {
            fill::fill(directory.as_ref(), tasks.parse().unwrap(), leases.parse().unwrap());
        }
        ["soak", minutes] => parts::soak(minutes.parse().unwrap()),
        _ => parts::run(&words),
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("scale: this needs Linux");
}
