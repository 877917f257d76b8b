//! What a disk says: records of every kind, the files around the database, and a database as a whole.

use tenfold::limits;
use tenfold::store::probe;

use super::Target;
use crate::memory::capped;

pub(super) const TARGETS: &[Target] = &[
    Target { name: "store_key", run: key, input_bytes_max: 64, words: &[] },
    Target { name: "store_envelope", run: envelope, input_bytes_max: limits::VALUE_BYTES_MAX + 64, words: &[] },
    Target { name: "store_payload", run: payload, input_bytes_max: limits::VALUE_BYTES_MAX, words: NUMBERS },
    Target { name: "store_ready", run: ready, input_bytes_max: 1_024, words: READY },
    Target { name: "store_acked", run: acked, input_bytes_max: 128, words: &[b"tfacked1"] },
    Target { name: "store_directory", run: directory, input_bytes_max: 32 * 1_024, words: NUMBERS },
];

const NUMBERS: &[&[u8]] = &[
    &[0, 2],
    &[250],
    &[251, 0, 1],
    &[252, 0, 0, 1, 0],
    &[252, 255, 255, 255, 255],
    &[253, 0, 0, 0, 0, 0, 0, 0, 64],
    &[253, 255, 255, 255, 255, 255, 255, 255, 255],
];
const READY: &[&[u8]] = &[b"tenfold data directory\n", b"format 1\n", b"instance ", b"check ", b"\n"];

fn key(bytes: &[u8]) {
    capped("a key", 1_024, || probe::key(bytes));
}

fn envelope(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first() else { return };
    let (key, value) = rest.split_at(usize::from(*length).min(rest.len()));
    // Three copies of the value, and error texts that show the key.
    capped("an envelope", 4 * bytes.len() + 8 * 1_024, || probe::envelope(key, value));
}

fn payload(bytes: &[u8]) {
    // A row of two bytes is one of 200 in memory; then both kinds of rows, twice, in lists that grow by doubling.
    capped("a payload", 2_048 * bytes.len() + 32 * 1_024, || probe::payload(bytes));
}

fn ready(bytes: &[u8]) {
    capped("READY", bytes.len() + 1_024, || probe::ready(bytes));
}

fn acked(bytes: &[u8]) {
    capped("acked", 256, || probe::acked(bytes));
}

fn directory(bytes: &[u8]) {
    probe::directory(bytes);
}
