//! What the command line reads: files of lines, the output of runs, the demo's files, values.

use tenfold::cli::probe;

use super::{Target, pieces};
use crate::memory::capped;

pub(super) const TARGETS: &[Target] = &[
    Target { name: "cli_keys", run: keys, input_bytes_max: 64 * 1_024, words: LINES },
    Target { name: "cli_output", run: output, input_bytes_max: 256 * 1_024, words: LINES },
    Target { name: "cli_log", run: probe::log, input_bytes_max: 16 * 1_024, words: LOG },
    Target { name: "cli_values", run: probe::values, input_bytes_max: 256, words: VALUES },
];

const LINES: &[&[u8]] =
    &[b"\n", b"\r\n", b"\r", b"\0", b"\xef\xbb\xbf", b"a\n", "ä".as_bytes(), b"\xff", &[b'x'; 1_024]];
const LOG: &[&[u8]] = &[
    b"session 000102030405060708090a0b0c0d0e0f\n",
    b"intent 1 9 5 0 1\n",
    b"ack 1 counted\n",
    b"ack 1 refused: no\n",
    b"ack 1 unknown\n",
    b"18446744073709551616",
];
const VALUES: &[&[u8]] =
    &[b"0..1000", b"..", b"_", b"9223372036854775808", b"1h 30m", b"none", b"18446744073709551615s"];

fn keys(bytes: &[u8]) {
    // Lines of one byte become texts of 24 and more, in a list that grows by doubling, and a table.
    capped("a file of lines", 512 * bytes.len() + 16 * 1_024, || probe::keys(bytes));
}

fn output(input: &[u8]) {
    let (bytes, pieces) = pieces(input);
    probe::output(bytes, &pieces);
}
