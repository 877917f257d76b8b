//! Decides whether a history of clients, faults and dumps keeps what tenfold promises.
//!
//! Knows nothing of tenfold's code: sessions, leases and counts are plain numbers here, so that tests of every kind can
//! write histories, also those inside the library itself, and no error of the library is believed by its judge.

pub mod history;
mod text;
