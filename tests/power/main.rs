//! Power cuts: a real server and real clients on a disk of our own, which keeps only what was synced.
//!
//! ```text
//!   cargo power                             a few minutes: sweep, live cuts, faults
//!   TENFOLD_CUTS=5000 cargo power           more cuts
//!   TENFOLD_SEED=7 cargo power sweep        the same dice again, one part
//!   TENFOLD_SEED=7 cargo power faults 3     one trial of a part that has trials
//!   cargo power image DIRECTORY/data        what recovery says to a kept image
//! ```
//!
//! In reading order: `disk` (what is on a disk and what a cut leaves of it; pure), `mount` (the file system on which servers run),
//! `story` (what clients did and saw), `server`, `fleet` (real ones), `view` (what recovery finds), `judge` (which of it is right;
//! pure), `history` (a whole run in the words of the checker), `sweep` (cuts at every operation of a recorded run), `resume`
//! (clients go on from a cut),
//! `live` (cuts of a running server), `faults` (disks that fail), `table`, `rig` (which parts run).
//!
//! Needs Linux, /dev/fuse and the right to mount; says so where one is missing, and fails. Images live in /dev/shm if there is
//! one. This program starts itself as the processes that open images (`open`) and become servers (`become`).
//!
//! **Invariants.** Nothing here waits by the clock for something to have happened; time only bounds how long a failing run hangs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "seeds and figures are for whoever reads the test's output")]
#![cfg_attr(not(target_os = "linux"), allow(unused, reason = "it says that it needs Linux, and no more"))]

#[cfg(target_os = "linux")]
mod disk;
#[cfg(target_os = "linux")]
mod faults;
#[cfg(target_os = "linux")]
mod fleet;
#[cfg(target_os = "linux")]
mod history;
#[cfg(target_os = "linux")]
mod judge;
#[cfg(target_os = "linux")]
mod live;
#[cfg(target_os = "linux")]
mod mount;
#[cfg(target_os = "linux")]
#[path = "../crash/random.rs"]
mod random;
#[cfg(target_os = "linux")]
mod resume;
#[cfg(target_os = "linux")]
mod rig;
#[cfg(target_os = "linux")]
mod server;
#[cfg(target_os = "linux")]
mod story;
#[cfg(target_os = "linux")]
mod sweep;
#[cfg(target_os = "linux")]
mod table;
#[cfg(target_os = "linux")]
mod view;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    rig::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("power: this needs Linux and its /dev/fuse");
    std::process::ExitCode::FAILURE
}
