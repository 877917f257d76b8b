//! What a server makes of clients that say anything at any time.

use tenfold::server::probe;

use super::Target;

pub(super) const TARGETS: &[Target] = &[Target {
    name: "server_conversation",
    run: probe::conversation,
    input_bytes_max: 4 * 1_024,
    words: &[
        &[1, 0, 2, b'{', b'}'],
        &[1, 0, 6, b'{', b'0', b':', b' ', b'1', b'}'],
        &[0, 0, 4, 1, 5, 2, 0],
        &[0, 40, 2, 3, 0],
        &[0, 0, 0],
        &[253, 255, 255, 255, 255, 255, 255, 255, 255],
        &[252, 0, 0, 0, 128],
    ],
}];
