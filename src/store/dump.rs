//! The durable state as text: one line a row, in a fixed order, and one digest over all lines.
//!
//! ```text
//!   dump 1
//!   globals next_campaign=2
//!   campaign 1 phase=running name=toy first=0 tasks=1000 …
//!   task 1 17 done=3 extra=0 issued=0
//!   lease 0 generation=4 state=live session=0 …
//!   session 0 id=3f0c… processed=12 confirmed=11 refused=12-12:ended
//!   …
//!   digest sha256=9f86…           SHA-256 of all lines above, each with its line feed
//! ```
//!
//! It speaks of the state alone: neither of the journal, the pages and their order, nor of the directory's identity, its starts or
//! its clearing of old keys. So two directories with the same state have the same digest, whatever way led there.
//!
//! **Invariants.** Every durable row has one line, and every field of it is in the line: what differs, differs in the digest. A
//! line never changes within a version. Texts from elsewhere are escaped, so a line is a line. docs/CLI.md describes every
//! line. Deliberately absent: sums, names, anything that follows from other rows.
//! Tested in this file (golden lines), `store/tests/dumps.rs` (layout) and `tests/store_disk.rs`.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use sha2::{Digest, Sha256};

use crate::coordinator::rows::{CampaignRow, LeaseRow, LeaseState, Phase, Row, SessionRow, TroubleRow};
use crate::types::{CampaignId, Order, RefusalReason, Tasks};

/// Version of the lines; the first line says it.
pub const DUMP_VERSION: u32 = 1;

/// The keys of campaigns whose keys are complete.
pub type Keys = BTreeMap<CampaignId, KeysDigest>;

/// The keys of one campaign: how many, and the SHA-256 over each key's length (8 bytes, little-endian) and bytes.
#[derive(Clone, Debug, Default)]
pub struct KeysDigest {
    count: u64,
    hash: Sha256,
}

impl KeysDigest {
    /// Takes the next key.
    pub fn add(&mut self, key: &str) {
        self.count += 1;
        self.hash.update((key.len() as u64).to_le_bytes());
        self.hash.update(key);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// The lines of a state, without line feeds and without the digest. `rows` come in ascending order of their keys, as
/// [`Coordinator::rows`](crate::coordinator::Coordinator::rows) gives them.
pub fn lines(rows: impl Iterator<Item = Row>, keys: &Keys) -> impl Iterator<Item = String> {
    let title = std::iter::once(format!("dump {DUMP_VERSION}"));
    title.chain(rows.map(|row| line(&row))).chain(keys.iter().map(|(campaign, keys)| {
        let digest = super::codec::hex(&keys.hash.clone().finalize());
        format!("keys {} count={} sha256={digest}", campaign.0, keys.count)
    }))
}

/// SHA-256 over lines, each with a line feed behind: 64 hexadecimal digits.
pub fn digest(lines: impl Iterator<Item = String>) -> String {
    let mut hash = Sha256::new();
    for line in lines {
        hash.update(line);
        hash.update(b"\n");
    }
    super::codec::hex(&hash.finalize())
}

fn line(row: &Row) -> String {
    match row {
        Row::Globals(row) => format!("globals next_campaign={}", row.next_campaign),
        Row::Campaign(id, row) => campaign(*id, row),
        Row::Task(campaign, task, row) => {
            format!("task {} {} done={} extra={} issued={}", campaign.0, task.0, row.done, row.extra, row.issued)
        }
        Row::Lease(slot, row) => lease(*slot, row),
        Row::Session(slot, row) => session(*slot, row),
        Row::SessionName(slot, name) => format!("session-name {slot} {}", quoted(name)),
        Row::Trouble(slot, row) => trouble(*slot, row),
        Row::Returned(slot, row) => format!(
            "returned {slot} campaign={} task={} word={} runs={:016x}",
            row.campaign.0, row.task.0, row.word, row.runs
        ),
    }
}

fn campaign(id: CampaignId, row: &CampaignRow) -> String {
    let spec = &row.spec;
    let phase = match row.phase {
        Phase::Creating => "creating",
        Phase::Running => "running",
        Phase::Paused => "paused",
        Phase::Cancelled => "cancelled",
        Phase::Removing => "removing",
    };
    let order = match spec.order {
        Order::Lowest => "lowest",
        Order::Even => "even",
    };
    let keyed = matches!(spec.tasks, Tasks::Keys { .. });
    format!(
        "campaign {} phase={phase} first={} tasks={} keyed={keyed} runs={} seed={} order={order} lease_ms={} timeout_ms={} \
         max_errors={} max_lost={} creation={} name={}",
        id.0,
        spec.tasks.first(),
        spec.tasks.count(),
        spec.runs,
        OrNone(spec.seed),
        OrNone(spec.lease_ms),
        OrNone(spec.timeout_ms),
        OrNone(spec.errors_max),
        OrNone(spec.losses_max),
        row.creation,
        quoted(&spec.name),
    )
}

fn lease(slot: u32, row: &LeaseRow) -> String {
    let generation = row.generation;
    let Some(lease) = &row.lease else { return format!("lease {slot} generation={generation} state=free") };
    let state = match lease.state {
        LeaseState::Live => "live",
        LeaseState::Expired => "expired",
        LeaseState::Gone => "gone",
    };
    format!(
        "lease {slot} generation={generation} state={state} session={} campaign={} task={} first_run={} runs={} own={:016x}",
        lease.session, lease.campaign.0, lease.task.0, lease.first_run, lease.runs, lease.own
    )
}

fn session(slot: u32, row: &SessionRow) -> String {
    let refused: Vec<String> = row
        .refusals
        .iter()
        .map(|refusal| {
            let reason = match refusal.reason {
                RefusalReason::NotHeld => "not-held",
                RefusalReason::Ended => "ended",
                RefusalReason::Gone => "gone",
                RefusalReason::BadRuns => "bad-runs",
            };
            format!("{}-{}:{reason}", refusal.from, refusal.to)
        })
        .collect();
    let refused = if refused.is_empty() { "none".to_owned() } else { refused.join(",") };
    format!(
        "session {slot} id={} origin={} attempt={} processed={} confirmed={} refused={refused}",
        row.id, row.origin, row.attempt, row.processed, row.confirmed
    )
}

fn trouble(slot: u32, row: &TroubleRow) -> String {
    format!(
        "trouble {slot} campaign={} task={} errors={} lost={} quarantined={} last_error={}",
        row.campaign.0,
        row.task.0,
        row.errors,
        row.losses,
        row.quarantined,
        quoted(&row.last_error)
    )
}

/// A number, or `none`.
struct OrNone<T>(Option<T>);

impl<T: Display> Display for OrNone<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(formatter),
            None => formatter.write_str("none"),
        }
    }
}

/// A text in quotation marks, with everything escaped that is not printable ASCII.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.escape_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::rows::{GlobalsRow, Lease, ReturnedRow, TaskRow};
    use crate::types::{CampaignSpec, CreationId, Refusal, SessionId, TaskIndex};

    /// One row of every table, and of every form.
    fn rows() -> Vec<Row> {
        let spec = CampaignSpec {
            name: "ising".into(),
            tasks: Tasks::Range { first: 5, count: 1_000 },
            runs: 10,
            seed: Some(42),
            order: Order::Even,
            lease_ms: Some(60_000),
            timeout_ms: None,
            errors_max: Some(3),
            losses_max: None,
        };
        let campaign = CampaignRow { spec, creation: CreationId([0xab; 16]), phase: Phase::Paused };
        let lease = Lease {
            session: 7,
            campaign: CampaignId(1),
            task: TaskIndex(9),
            first_run: 64,
            runs: 3,
            own: 5,
            state: LeaseState::Expired,
        };
        let session = SessionRow {
            id: SessionId([0xcd; 16]),
            origin: false,
            attempt: 3,
            processed: 12,
            confirmed: 8,
            refusals: vec![
                Refusal { from: 9, to: 10, reason: RefusalReason::Ended },
                Refusal { from: 12, to: 12, reason: RefusalReason::BadRuns },
            ],
        };
        let trouble = TroubleRow {
            campaign: CampaignId(1),
            task: TaskIndex(9),
            errors: 2,
            losses: 1,
            quarantined: true,
            last_error: "no \"space\"\nö".into(),
        };
        let returned = ReturnedRow { campaign: CampaignId(1), task: TaskIndex(9), word: 1, runs: 0xff };
        vec![
            Row::Globals(GlobalsRow { next_campaign: 2 }),
            Row::Campaign(CampaignId(1), Box::new(campaign)),
            Row::Task(CampaignId(1), TaskIndex(9), TaskRow { done: 3, extra: 1, issued: 4 }),
            Row::Lease(0, LeaseRow { generation: 2, lease: Some(lease) }),
            Row::Lease(1, LeaseRow { generation: 6, lease: None }),
            Row::Session(7, session.clone()),
            Row::Session(8, SessionRow { refusals: vec![], origin: true, ..session }),
            Row::SessionName(7, "host:1".into()),
            Row::Trouble(2, trouble),
            Row::Returned(4, returned),
        ]
    }

    fn keys() -> Keys {
        let mut keys = KeysDigest::default();
        for key in ["a", "b"] {
            keys.add(key);
        }
        Keys::from([(CampaignId(1), keys)])
    }

    #[test]
    fn the_lines_are_frozen() {
        let lines: Vec<String> = lines(rows().into_iter(), &keys()).collect();
        // The digest of the keys: printf '\1\0\0\0\0\0\0\0a\1\0\0\0\0\0\0\0b' | sha256sum
        let expected = [
            "dump 1",
            "globals next_campaign=2",
            "campaign 1 phase=paused first=5 tasks=1000 keyed=false runs=10 seed=42 order=even lease_ms=60000 timeout_ms=none \
             max_errors=3 max_lost=none creation=abababababababababababababababab name=\"ising\"",
            "task 1 9 done=3 extra=1 issued=4",
            "lease 0 generation=2 state=expired session=7 campaign=1 task=9 first_run=64 runs=3 own=0000000000000005",
            "lease 1 generation=6 state=free",
            "session 7 id=cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd origin=false attempt=3 processed=12 confirmed=8 \
             refused=9-10:ended,12-12:bad-runs",
            "session 8 id=cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd origin=true attempt=3 processed=12 confirmed=8 refused=none",
            "session-name 7 \"host:1\"",
            "trouble 2 campaign=1 task=9 errors=2 lost=1 quarantined=true last_error=\"no \\\"space\\\"\\n\\u{f6}\"",
            "returned 4 campaign=1 task=9 word=1 runs=00000000000000ff",
            "keys 1 count=2 sha256=cf6ab613e3942391f88ed698557e1680f160bd10e88c6b668c50360c10930e2b",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn the_digest_is_that_of_the_lines_and_every_row_matters() {
        let digest_of = |rows: Vec<Row>, keys: &Keys| digest(lines(rows.into_iter(), keys));
        let text: String = lines(rows().into_iter(), &keys()).map(|line| line + "\n").collect();
        let whole = digest_of(rows(), &keys());
        assert_eq!(whole, crate::store::codec::hex(&Sha256::digest(text)));
        for without in 0..rows().len() {
            let mut fewer = rows();
            fewer.remove(without);
            assert_ne!(digest_of(fewer, &keys()), whole, "row {without} matters");
        }
        assert_ne!(digest_of(rows(), &Keys::new()), whole, "keys matter");
    }
}
