//! The wire: messages, frames and dialects; pure bytes in, values out.
pub mod messages;
