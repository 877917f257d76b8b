//! The rows of a dump, by what they are about.

use std::collections::BTreeMap;

use crate::history::{Kind, Phase, Reason, Refused, Row, Session, State};

/// All rows of a dump.
#[derive(Debug, Default)]
pub(crate) struct Rows<'a> {
    pub(crate) campaigns: BTreeMap<u32, CampaignRow<'a>>,
    pub(crate) sessions: BTreeMap<Session, SessionRow<'a>>,
    pub(crate) leases: Vec<LeaseRow>,
    pub(crate) returned: Vec<ReturnedRow>,
    /// Rows of the same key, and rows of campaigns that are not there.
    pub(crate) misplaced: Vec<String>,
}

/// A campaign and its tasks.
#[derive(Debug)]
pub(crate) struct CampaignRow<'a> {
    pub(crate) name: &'a str,
    pub(crate) tasks_max: u32,
    pub(crate) quota: u32,
    pub(crate) kind: Kind,
    pub(crate) phase: Phase,
    pub(crate) tasks: BTreeMap<u32, TaskRow>,
}

impl CampaignRow<'_> {
    /// Whether its rows are being cleared away, so that what is left of them means nothing.
    pub(crate) fn clearing(&self) -> bool {
        self.phase == Phase::Removing
    }
}

/// A task; what was never touched is all zero.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TaskRow {
    pub(crate) done: u32,
    pub(crate) extra: u32,
    pub(crate) issued: u32,
    pub(crate) leased: u32,
    pub(crate) failed: u32,
    pub(crate) lost: u32,
    pub(crate) quarantined: bool,
}

/// A session.
#[derive(Debug)]
pub(crate) struct SessionRow<'a> {
    pub(crate) through: u64,
    pub(crate) confirmed: u64,
    pub(crate) refused: &'a [Refused],
}

impl SessionRow<'_> {
    /// Why a request is listed as refused, if it is.
    pub(crate) fn refusal(&self, number: u64) -> Option<Reason> {
        refusal(self.refused, number)
    }

    pub(crate) fn refuses(&self, number: u64) -> bool {
        self.refusal(number).is_some()
    }
}

/// Why a request is listed as refused, if it is.
pub(crate) fn refusal(refused: &[Refused], number: u64) -> Option<Reason> {
    refused.iter().find(|one| (one.from..=one.to).contains(&number)).map(|one| one.reason)
}

/// A lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaseRow {
    pub(crate) id: u64,
    pub(crate) session: Session,
    pub(crate) campaign: u32,
    pub(crate) task: u32,
    pub(crate) first: u32,
    pub(crate) runs: u32,
    pub(crate) own: u64,
    pub(crate) state: State,
}

/// Returned runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReturnedRow {
    pub(crate) campaign: u32,
    pub(crate) task: u32,
    pub(crate) word: u32,
    pub(crate) runs: u64,
}

impl<'a> Rows<'a> {
    pub(crate) fn read(dumped: &'a [Row]) -> Self {
        let mut rows = Self::default();
        for row in dumped {
            if let Row::Campaign { id, name, tasks, quota, kind, phase } = row {
                let tasks_max = *tasks;
                let campaign =
                    CampaignRow { name, tasks_max, quota: *quota, kind: *kind, phase: *phase, tasks: BTreeMap::new() };
                if rows.campaigns.insert(*id, campaign).is_some() {
                    rows.misplaced.push(row.to_string());
                }
            }
        }
        for row in dumped {
            if !rows.place(row) {
                rows.misplaced.push(row.to_string());
            }
        }
        rows
    }

    /// A campaign that is not being cleared away comes before one of the same name that is.
    pub(crate) fn campaign(&self, name: &str) -> Option<&CampaignRow<'a>> {
        let named = || self.campaigns.values().filter(|campaign| campaign.name == name);
        named().find(|campaign| !campaign.clearing()).or_else(|| named().next())
    }

    fn place(&mut self, row: &'a Row) -> bool {
        match row {
            Row::Campaign { .. } => true,
            Row::Task { campaign, task, done, extra, issued, leased, failed, lost, quarantined } => {
                let Some(campaign) = self.campaigns.get_mut(campaign) else { return false };
                let row = TaskRow {
                    done: *done,
                    extra: *extra,
                    issued: *issued,
                    leased: *leased,
                    failed: *failed,
                    lost: *lost,
                    quarantined: *quarantined,
                };
                campaign.tasks.insert(*task, row).is_none()
            }
            Row::Returned { campaign, task, word, runs } => {
                let row = ReturnedRow { campaign: *campaign, task: *task, word: *word, runs: *runs };
                self.returned.push(row);
                self.campaigns.contains_key(campaign)
            }
            Row::Lease { lease, session, campaign, task, first, runs, own, state } => {
                self.leases.push(LeaseRow {
                    id: *lease,
                    session: *session,
                    campaign: *campaign,
                    task: *task,
                    first: *first,
                    runs: *runs,
                    own: *own,
                    state: *state,
                });
                // A lease outlives its campaign, as gone.
                true
            }
            Row::Session { session, through, confirmed, refused, .. } => {
                let row = SessionRow { through: *through, confirmed: *confirmed, refused };
                self.sessions.insert(*session, row).is_none()
            }
        }
    }
}
