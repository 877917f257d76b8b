//! Every decoder of bytes that a peer, a disk or a file supplies, as a function that panics if it breaks a promise.
//!
//! The promises: no panic, no hang, memory within a stated bound, what is read is written the same again (or is refused), and
//! where bytes come in pieces, the pieces make no difference. The same targets are run with a kept corpus by `cargo test`,
//! and by libFuzzer (`fuzz/`).

mod cli;
mod client;
mod protocol;
mod server;
mod store;

/// A decoder under test.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// Its name, which is also that of its folder in the corpus.
    pub(crate) name: &'static str,
    /// Runs it on these bytes.
    pub(crate) run: fn(&[u8]),
    /// Longest input that is tried, in bytes.
    pub(crate) input_bytes_max: usize,
    /// Words of its language, for mutations.
    pub(crate) words: &'static [&'static [u8]],
}

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = Target> {
    [protocol::TARGETS, store::TARGETS, client::TARGETS, server::TARGETS, cli::TARGETS].into_iter().flatten().copied()
}

/// Cuts bytes into pieces: the first bytes say where, the rest is what is cut. Every way to cut comes up.
fn pieces(input: &[u8]) -> (&[u8], Vec<&[u8]>) {
    let (cuts, bytes) = input.split_at(input.len().min(4));
    let mut pieces = Vec::new();
    let mut rest = bytes;
    let mut turn = 0;
    while !rest.is_empty() {
        let length = cuts.get(turn % 4).map_or(1, |cut| usize::from(*cut).max(1)).min(rest.len());
        let (piece, after) = rest.split_at(length);
        pieces.push(piece);
        rest = after;
        turn += 1;
    }
    (bytes, pieces)
}
