//! What a client believes of a server that says anything at any time.

use tenfold::client::probe;
use tenfold::protocol::codec::DECODED_BYTES_MAX;

use super::Target;
use crate::memory::capped;

pub(super) const TARGETS: &[Target] = &[Target {
    name: "client_inflight",
    run: inflight,
    input_bytes_max: 8 * 1_024,
    words: &[&[6, 6], &[2, 3, 0], &[0, 6], &[1, 0], &[253, 255, 255, 255, 255, 255, 255, 255, 255]],
}];

fn inflight(bytes: &[u8]) {
    // One message, and a lease of six bytes in it is held in four tables.
    capped("what is in flight", DECODED_BYTES_MAX + 1_024 * bytes.len(), || probe::inflight(bytes));
}
