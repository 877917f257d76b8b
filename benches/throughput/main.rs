//! How fast a server lends and counts, every report synced before its answer, beside what this machine's disk and network allow.
//!
//! ```text
//!   cargo bench --bench throughput                        some minutes: 1, 16, 64, 256 clients × 1, 64 runs a message
//!   cargo bench --bench throughput -- --quick             one short round of each
//!   cargo bench --bench throughput -- --clients 64 --batch 1 --rounds 9 --seconds 5 --json FILE --svg FILE
//! ```
//!
//! | server | what it does |
//! |---|---|
//! | `tenfold` | the real program on a new data directory: a report is counted, the answer and the next lease come back |
//! | `ceiling` | nothing but to append what the clients sent to a file and `fdatasync` it, a group at a time, before it answers with bytes of the same lengths; tokio, and a thread that commits |
//! | `ceiling-epoll` | the same at its best: one thread, epoll, a preallocated file |
//!
//! One process at a time loads one of them, the same program for all; servers take turns within every round, so that a noisy machine
//! is noisy for all. What is compared are the medians over rounds of one run. In reading order: `options` and `plan` (what is measured), `load` (the
//! clients), `native` (what they say), `ceiling` (the echoes), `connection` (for both), `server` (processes), `figures` (what is kept of
//! them), `table` (what is printed). `benches/peers` measures other queues with the same load.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]
#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "figures for people")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its figures are for whoever runs it")]

#[cfg(target_os = "linux")]
mod ceiling;
#[cfg(target_os = "linux")]
mod connection;
#[cfg(target_os = "linux")]
mod figures;
#[cfg(target_os = "linux")]
mod load;
#[cfg(target_os = "linux")]
mod native;
#[cfg(target_os = "linux")]
mod options;
#[cfg(target_os = "linux")]
mod plan;
#[cfg(target_os = "linux")]
mod server;
#[cfg(target_os = "linux")]
mod table;

#[cfg(target_os = "linux")]
fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["load", address, clients, batch, seconds] => {
            let batch = batch.parse().unwrap();
            load::run(address, clients.parse().unwrap(), seconds.parse().unwrap(), |number| {
                native::Native::new(number, batch)
            });
        }
        ["ceiling", file] => ceiling::run_tokio(file.as_ref()),
        ["ceiling-epoll", file] => ceiling::run_epoll(file.as_ref()),
        _ => plan::run(&words),
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("throughput: this needs Linux");
}
