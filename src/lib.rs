//! `tenfold` runs every task of a campaign at least N times on machines that come and go, and never loses or invents
//! a count.
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod coordinator;
pub mod limits;
#[cfg(feature = "client")]
pub mod protocol;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod store;
pub mod types;
