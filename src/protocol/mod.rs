//! The wire: messages, frames and dialects; pure bytes in, values out.
//!
//! One port speaks several dialects; the first bytes of a connection tell which:
//!
//! ```text
//!              ┌─ native ──▶ frame (preface, lengths) ──▶ codec (bincode) ──▶ messages ──▶ convert ──▶ crate::types
//!  dialect ────┤
//!   ::tell     ├─ origin ──▶ origin (tokens, Python dictionaries)
//!              └─ HTTP, TLS, JSON lines: a readable refusal
//! ```
//!
//! **Invariants.** Nothing here reads a socket, a clock or chance. No bytes of a peer make it panic, loop, or allocate
//! more than a named limit. `codec` is the only file that names the encoding. Reading order: [`messages`], [`frame`],
//! [`codec`], [`convert`], [`dialect`], [`origin`]. Whole description: `docs/PROTOCOL.md`, whose bytes are checked by
//! `tests/golden_wire.rs`.
pub mod codec;
pub mod convert;
pub mod dialect;
pub mod frame;
pub mod messages;
pub mod origin;
