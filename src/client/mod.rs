//! The client library: leases as they come, reports that are never lost, questions and orders.
//!
//! ```no_run
//! use std::time::Duration;
//! use tenfold::client::{Client, Config, Verdict};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::start(Config { until_done: true, ..Config::new(["127.0.0.1:65432"]) })?;
//! while let Some(lease) = client.next_lease().await {
//!     for run in 0..lease.runs() {
//!         println!("run {run} of task {} with seed {:?}", lease.task(), lease.seed(run));
//!     }
//!     let verdict = lease.done().await; // or drop the answer and go on: the report is sent all the same
//!     assert_eq!(verdict, Verdict::Counted);
//! }
//! client.close(Duration::from_secs(10)).await;
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//!  caller ──▶ api, lease ──▶ shared (the book) ◀── session (own thread) ──▶ link ──▶ server
//!                                │                     │
//!                            inflight (pure)       backoff (pure)
//!  caller ──▶ control ─────────────────────────────────────────────────────▶ link ──▶ server
//! ```
//!
//! **Invariants.** A report keeps its number over any number of connections and is sent until it is answered, so it
//! counts once. Heartbeats go on while the caller is busy. What the server forgot is *unknown*, never *refused*. Reading
//! order: `inflight`, `session`, `shared`, `api`, `lease`, `control`. Needs neither sled nor clap: `default-features =
//! false, features = ["client"]`.

mod api;
pub(crate) mod backoff;
mod control;
pub(crate) mod inflight;
mod lease;
mod link;
#[doc(hidden)]
pub mod probe;
mod random;
mod session;
mod shared;
mod state;

/// As good as for ever, and still no overflow when it is added to the time.
const FAR: std::time::Duration = std::time::Duration::from_hours(24 * 365);

pub use api::{Client, Config, Leases, StartError};
pub use control::{Control, ControlFailure, CountsPage, Created};
pub use lease::{Answer, Lease, Verdict};
pub use state::{Closed, Connection, State, Stopped};
