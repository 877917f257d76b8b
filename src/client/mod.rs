//! The client library.
pub mod api;
pub mod control;
pub mod lease;
pub mod state;
pub use api::{Client, Config, Leases, StartError};
pub use control::{Control, ControlFailure, CountsPage, Created};
pub use lease::{Answer, Lease, Verdict};
pub use state::{Closed, Connection, State, Stopped};
