//! How fast other queues lend and count, every report synced before its answer, beside `tenfold` in the same minutes on the same disk.
//!
//! ```text
//!   benches/peers/install                              redis-server, beanstalkd and PostgreSQL, on Debian and its kin
//!   cargo bench --bench peers                          a quarter of an hour: 1, 16, 64, 256 clients × 1, 64 runs a message
//!   cargo bench --bench peers -- --quick               one short round of each
//!   cargo bench --bench peers -- --clients 64 --batch 1 --rounds 9 --seconds 5 --peers redis,redis-streams --json FILE
//! ```
//!
//! | server | how | a message |
//! |---|---|---|
//! | `tenfold` | the real program on a new data directory | reports; answered with acknowledgement and new leases |
//! | `redis` | `appendonly yes`, `appendfsync always` | one `EVALSHA` of `lend.lua`: counts by task, drops the leases, lends the next |
//! | `redis-streams` | the same | `XACK` of what was done and `XREADGROUP COUNT n` in one write; nothing is counted |
//! | `beanstalkd` | `-b DIRECTORY -f0` | `delete` of what was done and as many `reserve` in one write; nothing is counted |
//! | `postgresql` | `fsync` and `synchronous_commit` on | one prepared statement, `lend.sql`: counts by task, lends the next, `FOR UPDATE SKIP LOCKED` |
//!
//! What is not installed is named and left out. The load is that of `benches/throughput`: one process with one thread, a closed
//! loop over loopback. Servers take turns within every round; every one is a process of its own, in a new directory on
//! the same file system. What is compared are the medians over rounds of one run.
//!
//! Each peer is set up in its own favour where that costs no durability: no rewriting of Redis' file meanwhile; everything is
//! put before the time is measured; PostgreSQL's table fits its memory. None of them does what a report costs `tenfold` beside
//! the count: know it when it comes again, and keep who holds what.
//!
//! **Invariant.** A server dies with the benchmark: it is ended when it is dropped, and the kernel kills it if the benchmark is killed.
//!
//! In reading order: `plan` (what is measured), `server` (what all have in common), `process`, then a file for each of them, with
//! its start and its client; `table` (what is printed). From `benches/throughput`: `options`, `load`, `connection`, `native`,
//! `figures`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]
#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "figures for people")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its figures are for whoever runs it")]

#[cfg(target_os = "linux")]
mod beanstalkd;
#[cfg(target_os = "linux")]
#[path = "../throughput/connection.rs"]
mod connection;
#[cfg(target_os = "linux")]
#[path = "../throughput/figures.rs"]
mod figures;
#[cfg(target_os = "linux")]
#[path = "../throughput/load.rs"]
mod load;
#[cfg(target_os = "linux")]
#[path = "../throughput/native.rs"]
mod native;
#[cfg(target_os = "linux")]
#[path = "../throughput/options.rs"]
mod options;
#[cfg(target_os = "linux")]
mod plan;
#[cfg(target_os = "linux")]
mod postgresql;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod redis;
#[cfg(target_os = "linux")]
mod server;
#[cfg(target_os = "linux")]
mod table;
#[cfg(target_os = "linux")]
mod tenfold;

#[cfg(target_os = "linux")]
fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [process::BECOME, parent, program, ref words @ ..] => process::become_program(parent, program, words),
        ["load", kind, address, clients, batch, seconds] => {
            let kind = server::Kind::parse(kind);
            kind.load(address, clients.parse().unwrap(), batch.parse().unwrap(), seconds.parse().unwrap());
        }
        _ => plan::run(&words),
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("peers: this needs Linux");
}
