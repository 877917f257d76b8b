//! The books, checked: every task's runs add up, and every index equals a full scan.
//!
//! Run after every step of the random histories and once after every recovery; linear in the state, so never per step in
//! production.

use std::collections::{BTreeMap, BTreeSet};

use super::campaign::first_level;
use super::open::OpenTasks;
use super::rows::{Lease, LeaseState, ReturnedRow};
use super::{Campaign, Coordinator, Inconsistent};
use crate::limits;
use crate::types::{CampaignId, TaskIndex};

impl Coordinator {
    /// Checks the books of every task and every index against a full scan.
    ///
    /// # Errors
    /// What does not fit together.
    pub fn check(&self) -> Result<(), Inconsistent> {
        self.check_sessions()?;
        let mut leases: BTreeMap<CampaignId, Vec<(u32, &Lease)>> = BTreeMap::new();
        for (slot, lease) in self.leases.iter() {
            leases.entry(lease.campaign).or_default().push((slot, lease));
        }
        for campaign in self.campaigns.values() {
            if !campaign.removing() {
                let leases = leases.remove(&campaign.id).unwrap_or_default();
                self.check_campaign(campaign, &leases).map_err(|Inconsistent(what)| {
                    Inconsistent(format!("campaign {} ({}): {what}", campaign.id.0, campaign.row.spec.name))
                })?;
            }
        }
        let lendable: BTreeSet<_> =
            self.campaigns.values().filter(|campaign| campaign.lendable()).map(|campaign| campaign.id).collect();
        require(lendable == self.lendable, || "the index of campaigns that lend".into())?;
        let listed = || self.campaigns.values().filter(|campaign| !campaign.removing());
        let unsettled: BTreeSet<_> =
            listed().filter(|campaign| campaign.settled().is_none()).map(|campaign| campaign.id).collect();
        require(unsettled == self.unsettled, || "the index of campaigns that are not settled".into())?;
        let named = listed().all(|campaign| self.names.get(&campaign.row.spec.name) == Some(&campaign.id));
        require(named && listed().count() == self.names.len(), || "the index of campaign names".into())
    }

    fn check_sessions(&self) -> Result<(), Inconsistent> {
        for origin in [false, true] {
            let holds =
                |lease: &Lease| self.sessions.get(lease.session).is_some_and(|one| one.origin.is_some() == origin);
            let ended = self.leases.iter().filter(|(_, lease)| lease.state != LeaseState::Live && holds(lease));
            require(self.leases.expired(origin) == ended.map(|(slot, _)| slot).collect::<Vec<_>>(), || {
                "the index of leases that may be forgotten".into()
            })?;
        }
        let mut leases = 0;
        let mut waiting = BTreeSet::new();
        for (slot, session) in self.sessions.iter() {
            require(session.live.len() <= limits::LEASES_PER_SESSION_MAX as usize, || {
                format!("session {slot} holds too many leases")
            })?;
            let live = session.live.iter().map(|(place, lease)| (Some(place), lease));
            for (place, lease_slot) in live.chain(session.expired.iter().map(|lease| (None, *lease))) {
                let lease = self.leases.get(lease_slot);
                let known = place.is_none_or(|place| place == self.leases.place(lease_slot));
                let fits = lease.is_some_and(|lease| {
                    lease.session == slot && (lease.state == LeaseState::Live) == place.is_some() && known
                });
                require(fits, || format!("session {slot} and lease {lease_slot} disagree"))?;
                leases += 1;
            }
            require(session.expired.len() <= self.options.expired_per_session_max, || {
                format!("session {slot} keeps too many expired leases")
            })?;
            if session.arrival.is_some() {
                waiting.insert(slot);
            }
        }
        require(leases == self.leases.len(), || "a lease that its session does not know".into())?;
        require(waiting == self.waiting.sessions(), || "the queues of those that wait".into())
    }

    fn check_campaign(&self, campaign: &Campaign, leases: &[(u32, &Lease)]) -> Result<(), Inconsistent> {
        let mut lent: Vec<(TaskIndex, &Lease)> = Vec::with_capacity(leases.len());
        for &(slot, lease) in leases {
            if lease.state != LeaseState::Live {
                require(lease.own == 0, || format!("expired lease {slot} owns runs"))?;
                continue;
            }
            let indexed = campaign.lent.get(&(lease.task, lease.first_run)) == Some(&slot);
            require(indexed == campaign.numbered(), || format!("the index of lent runs, lease {slot}"))?;
            lent.push((lease.task, lease));
        }
        lent.sort_by_key(|(task, _)| *task);
        let mut returned: Vec<(TaskIndex, &ReturnedRow)> = Vec::with_capacity(campaign.returned.len());
        for ((task, word), slot) in &campaign.returned {
            let row = self.returned.get(*slot);
            let row =
                row.filter(|row| (row.campaign, row.task, row.word) == (campaign.id, *task, *word) && row.runs != 0);
            let row = row.ok_or_else(|| Inconsistent(format!("returned runs {slot} and their index disagree")))?;
            returned.push((*task, row));
        }
        let mut totals = super::campaign::Totals {
            errors: campaign.totals.errors,
            losses: campaign.totals.losses,
            ..Default::default()
        };
        let outstanding = |lease: &Lease| if campaign.numbered() { lease.own.count_ones() } else { lease.runs };
        let without_counts = |leases: &[(TaskIndex, &Lease)], back: &[(TaskIndex, &ReturnedRow)]| {
            // A struck lease owns nothing, so its task's counters may be all that is left of it.
            let struck = leases.iter().all(|(_, lease)| outstanding(lease) == 0);
            require(struck, || "leases of a task without counts".into())?;
            require(back.is_empty(), || "returned runs of a task without counts".into())
        };
        let (mut lent, mut returned) = (lent.as_slice(), returned.as_slice());
        for (task, counters) in campaign.tasks.touched() {
            let at = |what: &str| format!("task {}: {what}", task.0);
            let ((leases_between, leases), (back_between, back)) =
                (take_through(&mut lent, task), take_through(&mut returned, task));
            without_counts(leases_between, back_between)?;
            let leased: u32 = leases.iter().map(|(_, lease)| outstanding(lease)).sum();
            require(leased == counters.leased, || at("leased is not the sum over its leases"))?;
            require(counters.row.done <= campaign.quota(), || at("done is above the quota"))?;
            if campaign.numbered() {
                let returned_runs: u32 = back.iter().map(|(_, row)| row.runs.count_ones()).sum();
                let sum = counters.row.done + leased + returned_runs;
                require(counters.row.issued == sum, || at("issued is not done + lent + returned"))?;
                require(counters.row.issued <= campaign.quota(), || at("issued is above the quota"))?;
                let lent = leases.iter().map(|(_, lease)| (u64::from(lease.first_run), lease.own));
                let back = back.iter().map(|(_, row)| (u64::from(row.word) * 64, row.runs));
                let mut seen = BTreeSet::new();
                for (first, runs) in lent.chain(back) {
                    for bit in (0..64).filter(|bit| runs >> bit & 1 == 1) {
                        let run = first + bit;
                        let once = seen.insert(run) && run < u64::from(counters.row.issued);
                        require(once, || at("a run in two places, or never issued"))?;
                    }
                }
            }
            totals.tasks_done += u64::from(counters.row.done >= campaign.quota());
            totals.runs_done += u64::from(counters.row.done);
            totals.runs_extra += u64::from(counters.row.extra);
            totals.runs_leased += u64::from(counters.leased);
        }
        without_counts(lent, returned)?;
        require(totals == campaign.totals, || "the totals are not the sums over the tasks".into())?;
        self.check_open(campaign)
    }

    fn check_open(&self, campaign: &Campaign) -> Result<(), Inconsistent> {
        let (count, frontier) = (campaign.count(), campaign.open.frontier());
        let first_level = first_level(campaign.row.spec.order, campaign.numbered());
        let scanned = OpenTasks::restored(count, first_level, frontier, |task| campaign.level(task));
        require(campaign.open.agrees_with(&scanned), || "the index of open tasks".into())?;
        let beyond = campaign.tasks.end() > frontier || campaign.quarantined.iter().any(|task| task.0 >= frontier);
        require(!beyond, || "a touched task beyond the frontier".into())?;
        for (task, slot) in &campaign.troubles {
            let trouble = self.troubles.get(*slot).filter(|row| row.campaign == campaign.id && row.task == *task);
            let fits = trouble.is_some_and(|row| row.quarantined == campaign.quarantined.contains(task));
            require(fits, || format!("task {}: its troubles and their index disagree", task.0))?;
            let done = campaign.tasks.get(*task).row.done >= campaign.quota();
            require(!(done && campaign.quarantined.contains(task)), || format!("task {}: done and set aside", task.0))?;
        }
        let known = campaign.quarantined.iter().all(|task| campaign.troubles.contains_key(task));
        require(known, || "a quarantined task without troubles".into())
    }
}

/// Things of tasks, in order of the tasks.
type OfTasks<'all, T> = &'all [(TaskIndex, T)];

/// Takes what is of a task, and of those before it, off the front: first the latter, then its own.
fn take_through<'all, T>(things: &mut OfTasks<'all, T>, task: TaskIndex) -> (OfTasks<'all, T>, OfTasks<'all, T>) {
    let before = things.iter().take_while(|(at, _)| *at < task).count();
    let own = things[before..].iter().take_while(|(at, _)| *at == task).count();
    let (taken, rest) = things.split_at(before + own);
    *things = rest;
    taken.split_at(before)
}

fn require(holds: bool, what: impl FnOnce() -> String) -> Result<(), Inconsistent> {
    if holds { Ok(()) } else { Err(Inconsistent(what())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_taken_with_their_task_and_those_before_apart() {
        let all =
            [(1, 'a'), (1, 'b'), (3, 'c'), (4, 'd'), (4, 'e'), (9, 'f')].map(|(task, thing)| (TaskIndex(task), thing));
        let mut things = all.as_slice();
        let mut take = |task| {
            let (before, own) = take_through(&mut things, TaskIndex(task));
            (before.iter().map(|(_, thing)| *thing).collect::<String>(), own.iter().map(|(_, thing)| *thing).collect())
        };
        let pair = |before: &str, own: &str| (before.to_owned(), own.to_owned());
        assert_eq!(take(0), pair("", ""));
        assert_eq!(take(1), pair("", "ab"));
        assert_eq!(take(4), pair("c", "de"));
        assert_eq!(take(5), pair("", ""));
        assert_eq!(things, &all[5..]);
    }
}
