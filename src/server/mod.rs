//! server.
mod clock;
mod fatal;
mod fault;
mod inbox;
mod outbox;
mod pipeline;
mod watchdog;
