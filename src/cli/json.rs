//! What `--json` prints: versioned objects of their own, so that a change of a type inside never changes a field outside.
//!
//! Fields are only ever added within a version; a change of meaning makes a new one. `docs/CLI.md` describes every field.
//! Tested in this file, against the text.

use serde::Serialize;

use crate::types::{CampaignState, CampaignStatus, Order, TaskCount, TaskState, Tasks};

/// `tenfold status --json`.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    schema: &'static str,
    campaigns: Vec<Campaign>,
}

/// The name of [`Status`]'s version.
pub(crate) const STATUS_SCHEMA: &str = "tenfold.status.v1";

/// The name of the version of what `tenfold counts --json` prints: [`Task`]s in a frame.
pub(crate) const COUNTS_SCHEMA: &str = "tenfold.counts.v1";

/// The name of the version of [`Verify`].
pub(crate) const VERIFY_SCHEMA: &str = "tenfold.verify.v1";

/// `tenfold verify --json`.
#[derive(Debug, Serialize)]
pub(crate) struct Verify<'a> {
    pub(crate) schema: &'static str,
    pub(crate) format: u32,
    pub(crate) instance: String,
    pub(crate) last_change: u64,
    pub(crate) digest: &'a str,
    pub(crate) checked: &'a [String],
    pub(crate) unchecked: &'a [String],
}

#[derive(Debug, Serialize)]
struct Campaign {
    id: u32,
    name: String,
    state: &'static str,
    settled: bool,
    finished: bool,
    kind: &'static str,
    seed: Option<u64>,
    order: &'static str,
    lease_ms: Option<u64>,
    timeout_ms: Option<u64>,
    max_errors: Option<u32>,
    max_lost: Option<u32>,
    tasks: CampaignTasks,
    runs: CampaignRuns,
    errors: u64,
    lost: u64,
}

#[derive(Debug, Serialize)]
struct CampaignTasks {
    first: u64,
    count: u32,
    keyed: bool,
    done: u64,
    quarantined: u64,
}

#[derive(Debug, Serialize)]
struct CampaignRuns {
    per_task: u32,
    wanted: u64,
    done: u64,
    extra: u64,
    leased: u64,
}

/// One task of `tenfold counts --json`, and one line of `--csv`.
#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "fields are called as in the documented object")]
pub(crate) struct Task {
    pub(crate) task: u64,
    pub(crate) key: Option<String>,
    pub(crate) done: u32,
    pub(crate) extra: u32,
    pub(crate) leased: u32,
    pub(crate) runs: u32,
    pub(crate) state: &'static str,
    pub(crate) errors: u32,
    pub(crate) lost: u32,
    pub(crate) last_error: Option<String>,
}

impl Status {
    /// The object for these campaigns.
    pub(crate) fn new(campaigns: &[CampaignStatus]) -> Self {
        Self { schema: STATUS_SCHEMA, campaigns: campaigns.iter().map(Campaign::from).collect() }
    }
}

/// Runs that a campaign wants in all.
pub(crate) fn runs_wanted(status: &CampaignStatus) -> u64 {
    u64::from(status.spec.tasks.count()) * u64::from(status.spec.runs)
}

impl From<&CampaignStatus> for Campaign {
    fn from(status: &CampaignStatus) -> Self {
        let spec = &status.spec;
        Self {
            id: status.id.0,
            name: spec.name.clone(),
            state: match status.state {
                CampaignState::Creating => "creating",
                CampaignState::Running => "running",
                CampaignState::Paused => "paused",
                CampaignState::Cancelled => "cancelled",
            },
            settled: status.settled,
            finished: status.finished,
            kind: if spec.seed.is_some() { "numbered" } else { "counted" },
            seed: spec.seed,
            order: match spec.order {
                Order::Lowest => "lowest",
                Order::Even => "even",
            },
            lease_ms: spec.lease_ms,
            timeout_ms: spec.timeout_ms,
            max_errors: spec.errors_max,
            max_lost: spec.losses_max,
            tasks: CampaignTasks {
                first: spec.tasks.first(),
                count: spec.tasks.count(),
                keyed: matches!(spec.tasks, Tasks::Keys { .. }),
                done: status.tasks_done,
                quarantined: status.tasks_quarantined,
            },
            runs: CampaignRuns {
                per_task: spec.runs,
                wanted: runs_wanted(status),
                done: status.runs_done,
                extra: status.runs_extra,
                leased: status.runs_leased,
            },
            errors: status.errors,
            lost: status.losses,
        }
    }
}

impl Task {
    /// The task of a campaign whose tasks begin with the number `first` and are to get `runs` runs each.
    pub(crate) fn new(first: u64, runs: u32, key: Option<String>, count: TaskCount) -> Self {
        Self {
            task: first + u64::from(count.index.0),
            key,
            done: count.done,
            extra: count.extra,
            leased: count.leased,
            runs,
            state: match count.state {
                TaskState::Open => "open",
                TaskState::Done => "done",
                TaskState::Quarantined => "quarantined",
            },
            errors: count.errors,
            lost: count.losses,
            last_error: Some(count.last_error).filter(|text| !text.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{CampaignId, CampaignSpec, TaskIndex};

    #[test]
    fn the_status_object_is_frozen() {
        let status = CampaignStatus {
            id: CampaignId(1),
            spec: CampaignSpec {
                name: "ising".to_owned(),
                tasks: Tasks::Range { first: 5, count: 1_000 },
                runs: 10,
                seed: Some(42),
                order: Order::Even,
                lease_ms: Some(60_000),
                timeout_ms: None,
                errors_max: Some(3),
                losses_max: None,
            },
            state: CampaignState::Running,
            settled: false,
            finished: false,
            tasks_done: 1,
            tasks_quarantined: 2,
            runs_done: 3,
            runs_extra: 4,
            runs_leased: 5,
            errors: 6,
            losses: 7,
        };
        let text = serde_json::to_string(&Status::new(&[status])).unwrap();
        let expected = concat!(
            r#"{"schema":"tenfold.status.v1","campaigns":[{"id":1,"name":"ising","state":"running","settled":false,"#,
            r#""finished":false,"kind":"numbered","seed":42,"order":"even","lease_ms":60000,"timeout_ms":null,"#,
            r#""max_errors":3,"max_lost":null,"#,
            r#""tasks":{"first":5,"count":1000,"keyed":false,"done":1,"quarantined":2},"#,
            r#""runs":{"per_task":10,"wanted":10000,"done":3,"extra":4,"leased":5},"errors":6,"lost":7}]}"#,
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn the_task_object_is_frozen() {
        let count = TaskCount {
            index: TaskIndex(2),
            done: 10,
            extra: 1,
            leased: 0,
            state: TaskState::Done,
            errors: 1,
            losses: 0,
            last_error: String::new(),
        };
        let text = serde_json::to_string(&Task::new(5, 10, Some("a\"b".to_owned()), count)).unwrap();
        let expected = concat!(
            r#"{"task":7,"key":"a\"b","done":10,"extra":1,"leased":0,"runs":10,"state":"done","errors":1,"lost":0,"#,
            r#""last_error":null}"#,
        );
        assert_eq!(text, expected);
    }
}
