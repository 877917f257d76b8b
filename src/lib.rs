//! `tenfold` runs every task of a campaign at least N times on machines that come and go, and never loses or invents
//! a count.
//!
//! Most programs need only [`client`]: take leases, do their runs, report them. The rest is the coordinator, in reading
//! order:
//!
//! | module | feature | what it is |
//! |---|---|---|
//! | [`types`] | | the words of the project as types |
//! | [`limits`] | | every bound, with its unit |
//! | `coordinator` | `server` | the pure state machine: who works on what, and what counts |
//! | [`protocol`] | `client` | bytes and messages of the dialects |
//! | `store` | `server` | what makes changes durable, and reads them back |
//! | `server` | `server` | sockets, sessions, group commit |
//! | [`client`] | `client` | the client library |
//! | `cli` | `cli` | the commands |
//!
//! Each layer names only those above it in this table, and the client names only [`types`], [`limits`] and [`protocol`].
//! `docs/ARCHITECTURE.md` is the map, with the reasons.

pub mod limits;
pub mod types;

#[cfg(feature = "server")]
pub mod coordinator;

#[cfg(feature = "client")]
pub mod protocol;

#[cfg(feature = "server")]
pub mod store;

#[cfg(feature = "server")]
pub mod server;

#[cfg(feature = "client")]
pub mod client;

#[cfg(feature = "cli")]
pub mod cli;

#[cfg(all(test, feature = "server"))]
mod sim;

/// The example of the README must compile.
#[cfg(all(doctest, feature = "cli"))]
#[doc = include_str!("../README.md")]
struct Readme;
