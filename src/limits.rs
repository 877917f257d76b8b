//! Every bound of the system, with its unit. What is not bounded here is bounded by one of these.
//!
//! The coordinator takes its bounds as a value (`coordinator::Options`), so that tests and simulations can run
//! with tiny ones; the constants are the defaults. Relations between bounds are asserted at compile time below.

use std::num::NonZero;

/// Port for all dialects.
pub const PORT: u16 = 65432;

// Campaigns and tasks.

/// Bytes of a campaign's name.
pub const NAME_BYTES_MAX: usize = 64;
/// Campaigns at a time.
pub const CAMPAIGNS_MAX: usize = 1_000;
/// Names of campaigns for which a server remembers over which connection the last order came, so that a late one undoes nothing.
pub const ORDERED_NAMES_MAX: usize = 2_000;
/// Forgotten sessions of which a server remembers which connection was their last, so that none begins anew by a late copy of its
/// first hello; about 100 bytes each.
pub const PAST_SESSIONS_MAX: usize = 50_000;
/// Tasks of a campaign.
pub const TASKS_MAX: u32 = 1_000_000_000;
/// Quota of a task, in runs.
pub const RUNS_MAX: u32 = 1_000_000_000;
/// Bytes of a task's key.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Bytes of keys in one message of a creation.
pub const ADD_BYTES_MAX: usize = 256 * 1_024;
/// Keys in one message of a creation.
pub const ADD_KEYS_MAX: usize = 4_096;
/// Bytes of a failure's text; longer texts are cut.
pub const ERROR_BYTES_MAX: usize = 200;

// Time.

/// Default length of a lease, in milliseconds.
pub const LEASE_MS_DEFAULT: u64 = 60_000;
/// Shortest lease, in milliseconds.
pub const LEASE_MS_MIN: u64 = 100;
/// Longest lease, in milliseconds (30 days).
pub const LEASE_MS_MAX: u64 = 30 * 24 * 3_600_000;
/// Default of how long one run may take, in milliseconds (1 h).
pub const TIMEOUT_MS_DEFAULT: u64 = 3_600_000;
/// Shortest run timeout, in milliseconds.
pub const TIMEOUT_MS_MIN: u64 = 100;
/// Longest run timeout, in milliseconds (1 year).
pub const TIMEOUT_MS_MAX: u64 = 365 * 24 * 3_600_000;
/// A lease ends a tenth of one run's timeout after its runs' timeouts, but at least this much, in milliseconds: time for a
/// holder that keeps to the timeout to say that it ran out.
pub const TIMEOUT_GRACE_MS_MIN: u64 = 500;
/// And at most this much, in milliseconds.
pub const TIMEOUT_GRACE_MS_MAX: u64 = 5_000;
/// A session that is idle this long is forgotten, in milliseconds (1 day).
pub const SESSION_IDLE_MS: u64 = 24 * 3_600_000;
/// A creation that nobody goes on with for this long is dropped, in milliseconds (10 min).
pub const CREATION_IDLE_MS: u64 = 600_000;
/// First delay before a session is lent a task that it released, in milliseconds; doubles with every release.
pub const RELEASE_DELAY_MS_MIN: u64 = 1_000;
/// Longest such delay, in milliseconds.
pub const RELEASE_DELAY_MS_MAX: u64 = 60_000;
/// The coordinator's clock never advances by more than this between two looks, in milliseconds; what is more was a stall.
pub const CLOCK_STEP_MS_MAX: u64 = 1_000;
/// The pipeline looks at its clock at least this often, in milliseconds.
pub const CLOCK_LOOK_MS: u64 = 250;
/// A commit that takes longer than this ends the process, in milliseconds.
pub const COMMIT_MS_MAX: u64 = 60_000;
/// Opening the data directory may take so many times that without getting on: the database reads its whole log in one step.
pub const OPENING_COMMITS: u32 = 10;

// Sessions and leases.

/// Sessions the server remembers.
pub const SESSIONS_MAX: usize = 100_000;
/// Bytes of a session's name (`HOST:PID`).
pub const SESSION_NAME_BYTES_MAX: usize = 128;
/// Leases at a time, over all sessions, those included that expired and are remembered: the one that expired longest ago makes
/// room for a new one.
pub const LEASES_MAX: usize = 4_000_000;
/// Live leases of a session.
pub const LEASES_PER_SESSION_MAX: u32 = 1_024;
/// Expired leases that are remembered for a session, so that a late report counts.
pub const EXPIRED_PER_SESSION_MAX: usize = 1_024;
/// Runs of a lease.
pub const LEASE_RUNS_MAX: u32 = 64;
/// Units of a counted report.
pub const UNITS_MAX: u32 = 1_000;
/// Named campaigns a session may ask for.
pub const WANTED_CAMPAIGNS_MAX: usize = 16;
/// Stretches of refusals kept for a session until it has confirmed that it read them.
pub const REFUSALS_MAX: usize = 32;
/// Tasks a session released and is not lent for a while; the oldest is forgotten first.
pub const RELEASED_TASKS_MAX: usize = 64;

// Work per command.

/// Expiries, sweeps and waiting sessions handled in one step.
pub const SLICE: usize = 1_024;
/// Tasks in one answer to a query of counts.
pub const COUNTS_PER_ANSWER_MAX: u32 = 1_000;
/// Campaigns in one answer to a query of the status.
pub const STATUS_PER_ANSWER_MAX: usize = 100;
/// Requests in one message of a client.
pub const REQUESTS_PER_MESSAGE_MAX: usize = 1_024;
/// Requests in one group commit; a message without any counts as one.
pub const REQUESTS_PER_COMMIT_MAX: usize = 4_000;
/// A group commit of so many is large: other messages are decided on while it is written.
pub const LARGE_COMMIT_REQUESTS: NonZero<usize> = NonZero::new(512).unwrap();
/// About how many bytes of commands go into one group commit.
pub const COMMIT_BYTES_MAX: usize = 4 * 1024 * 1024;

// The wire.

/// Bytes of one frame's body.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one frame's body before the hello was accepted.
pub const HELLO_FRAME_BYTES_MAX: usize = 1_024;
/// Bytes of one message of the origin's dialect, tokens included.
pub const ORIGIN_MESSAGE_BYTES_MAX: usize = 64 * 1_024;
/// Entries of one message of the origin's dialect.
pub const ORIGIN_ENTRIES_MAX: usize = 1_024;
/// Grants in one frame.
pub const GRANTS_PER_MESSAGE_MAX: usize = 256;
/// From the first byte to an accepted hello, in milliseconds.
pub const HANDSHAKE_MS_MAX: u64 = 10_000;
/// Longest pause between two signs of life on a native connection, in milliseconds.
pub const HEARTBEAT_MS: u64 = 5_000;
/// A native connection that is silent for this long is closed, in milliseconds.
pub const NATIVE_IDLE_MS: u64 = 30_000;
/// Connections at a time that have introduced themselves.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Connections at a time that have not; above it, whoever arrived first goes first.
pub const NEWCOMERS_MAX: usize = 1_024;
/// Outputs that wait for one connection's writer; a slower reader is dropped.
pub const OUTBOX_MAX: usize = 4_096;
/// Messages that wait for the pipeline; fewer when they are long.
pub const INBOX_MAX: usize = 8_192;
/// Questions and orders of one connection that wait for the pipeline.
pub const CONTROLS_WAITING_MAX: usize = 4;
/// About how many bytes of outputs wait for one connection's writer.
pub const OUTBOX_BYTES_MAX: usize = 16 * 1024 * 1024;
/// About how many bytes of outputs wait for all writers together; above it, slow readers are dropped first.
pub const OUTBOXES_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// From the first byte of a message to its last, in milliseconds.
pub const MESSAGE_MS_MAX: u64 = 60_000;
/// Bytes of long messages of which the rest has not arrived, over all connections; above it, the oldest are dropped.
pub const UNFINISHED_BYTES_MAX: usize = 256 * 1024 * 1024;
/// About how many bytes of commands wait for the pipeline.
pub const INBOX_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes written to a peer that takes none of them, for this long, in milliseconds: it is dropped.
pub const WRITE_MS_MAX: u64 = 30_000;

// The store.

/// Bytes of one stored value.
pub const VALUE_BYTES_MAX: usize = 4_096;

const _: () = assert!(LEASE_RUNS_MAX <= 64, "masks of runs are 64 bits wide");
const _: () = assert!(HEARTBEAT_MS * 3 <= NATIVE_IDLE_MS, "one lost heartbeat must not close a connection");
const _: () = assert!(CLOCK_LOOK_MS * 2 <= CLOCK_STEP_MS_MAX, "an ordinary pause must not look like a stall");
const _: () = assert!(REQUESTS_PER_MESSAGE_MAX <= REQUESTS_PER_COMMIT_MAX);
const _: () = assert!(FRAME_BYTES_MAX * 2 <= COMMIT_BYTES_MAX && COMMIT_BYTES_MAX * 2 <= INBOX_BYTES_MAX);
const _: () = assert!(OUTBOX_BYTES_MAX * 16 <= OUTBOXES_BYTES_MAX, "one slow reader must not be everybody's trouble");
const _: () = assert!(FRAME_BYTES_MAX * 16 <= UNFINISHED_BYTES_MAX, "nor one slow sender");
const _: () = assert!(ADD_BYTES_MAX * 2 <= FRAME_BYTES_MAX);
const _: () = assert!(GRANTS_PER_MESSAGE_MAX * (KEY_BYTES_MAX + 64) <= FRAME_BYTES_MAX);
const _: () = assert!(REQUESTS_PER_MESSAGE_MAX * (ERROR_BYTES_MAX + 64) <= FRAME_BYTES_MAX);
const _: () = assert!(COUNTS_PER_ANSWER_MAX as usize * (ERROR_BYTES_MAX + 64) <= FRAME_BYTES_MAX);
