//! A log's notes as a history in the words of the checker, and what the checker says of it.
//!
//! ```text
//!   log: notes of clients and of the test ──▶ History ──▶ checker ──▶ findings
//!                                                ▲
//!        image ──▶ `verify` ──▶ rows, digest ────┘  (as notes, where they were found)
//! ```
//!
//! `judge` compares one recovered image with the notes before it; the checker reads all of a run at once: what was answered over
//! several servers, what observers saw before and after a cut, and who held what in between.
//!
//! **Invariant.** A rule that is named here and was not applied is a finding, too: so no rule is kept by looking away.

use std::collections::BTreeMap;
use std::path::Path;

use tenfold::client::Control;
use tenfold::types::{CampaignStatus, InstanceId, RefusalReason, SessionId, TaskCount, TaskState};
use tenfold_checker::figures::Figures;
use tenfold_checker::history::{
    self, Change, Heard, History, Instance, Kind, Moment, Reason, Record, Standing, TEST, Who,
};
use tenfold_checker::verified::Verified;
use tenfold_checker::{Report, Rule, check};

use crate::judge::{self, Finding};
use crate::mount::{Entry, Notes};
use crate::story::{self, Campaign, Note};

/// Violations that are shown of one history.
const SHOWN: usize = 10;

/// Rules that every whole run under power cuts is held to beside those of every run; what else its history has is applied as well. An
/// image on which clients went on is held to none of them: where nothing was lost, they have nothing to say.
pub(crate) const LIVE: [Rule; 6] = [Rule::S5, Rule::S8, Rule::S10, Rule::S12, Rule::S14, Rule::S19];

/// What is wrong with a whole run, by the rules of the checker, those of every run and `more` of which must have been applied; and what happened in it.
pub(crate) fn findings(history: &History, more: &[Rule]) -> (Vec<Finding>, Figures) {
    let report = check(history);
    let mut findings = violations(&report);
    let applied = Rule::OF_EVERY_RUN.iter().chain(more);
    let missing = applied.filter(|rule| !report.applied.contains(rule));
    let missing = missing.map(|rule| format!("{rule:?} was not applied, which needs {}", rule.needs()));
    let open = (!report.ended).then(|| "the history has no end".to_owned());
    findings.extend(missing.chain(open).map(|what| Finding { kind: judge::Kind::Rules, what }));
    (findings, report.figures)
}

/// What is wrong with the beginning of a run, by the same rules.
pub(crate) fn findings_so_far(history: &History) -> Vec<Finding> {
    violations(&check(history))
}

fn violations(report: &Report) -> Vec<Finding> {
    let shown = report.violations.iter().take(SHOWN);
    shown.map(|violation| Finding { kind: judge::Kind::Rules, what: violation.to_string() }).collect()
}

/// A log in the words of the checker.
pub(crate) fn history_of(log: &[Entry]) -> History {
    let mut teller = Teller::default();
    teller.hear_all(log);
    teller.history
}

/// Puts notes into the words of the checker, one after the other.
#[derive(Default)]
pub(crate) struct Teller {
    pub(crate) history: History,
    writers: BTreeMap<SessionId, Who>,
}

impl Teller {
    pub(crate) fn hear_all(&mut self, log: &[Entry]) {
        for entry in log {
            if let Entry::Note(note) = entry {
                self.hear(note);
            }
        }
    }

    pub(crate) fn hear(&mut self, note: &Note) {
        if let Note::Told { who, record: Record::Begin { session, .. } } = note {
            self.writers.insert(SessionId(session.0), *who);
        }
        for (who, record) in records(note, &self.writers) {
            self.history.push(who, record);
        }
    }

    /// Something of the test itself.
    pub(crate) fn tell(&mut self, records: impl IntoIterator<Item = Record>) {
        for record in records {
            self.history.push(TEST, record);
        }
    }

    /// Something of a client; nothing if it was never lent anything.
    pub(crate) fn tell_of(&mut self, session: SessionId, record: Record) {
        if let Some(who) = self.writers.get(&session) {
            self.history.push(*who, record);
        }
    }

    /// A client is lent something, perhaps for the first time.
    pub(crate) fn begin(&mut self, session: SessionId) -> Who {
        let next = self.history.lines.iter().map(|line| line.who).max().unwrap_or(TEST) + 1;
        let who = *self.writers.entry(session).or_insert(next);
        if who == next {
            self.history.push(who, Record::Begin { session: history::Session(session.0), instance: None });
        }
        who
    }
}

/// A note in the words of the checker; none for what is not its business.
fn records(note: &Note, writers: &BTreeMap<SessionId, Who>) -> Vec<(Who, Record)> {
    let asked = |name: &str, change| (TEST, Record::Ask { campaign: name.to_owned(), change });
    let done = |name: &str, change| (TEST, Record::Done { campaign: name.to_owned(), change });
    // Whoever was never lent anything has no session that the checker knows of.
    let client =
        |session: &SessionId, record: Record| writers.get(session).map(|who| (*who, record)).into_iter().collect();
    match note {
        Note::Phase(_) | Note::Begin { .. } => Vec::new(),
        Note::Ready { instance } => {
            let instance = Instance(InstanceId::parse(instance).unwrap().0);
            vec![(TEST, Record::Boot { instance }), (TEST, Record::Ready)]
        }
        Note::Creating { campaign } => vec![(TEST, creation(campaign))],
        Note::Created { name } => vec![done(name, Change::Create)],
        Note::Removing { name } => vec![asked(name, Change::Cancel), asked(name, Change::Remove)],
        Note::Removed { name } => vec![done(name, Change::Cancel), done(name, Change::Remove)],
        Note::Grant { session, lease, grant } => {
            let (campaign, task, first, runs) = (grant.campaign.clone(), grant.task, grant.first, grant.runs);
            client(session, Record::Grant { lease: *lease, campaign, task, first, runs })
        }
        Note::Send { session, number, request } => {
            client(session, Record::Send { number: *number, lease: request.lease, what: sent(request.what) })
        }
        Note::Ack { session, number, heard } => client(session, Record::Ack { number: *number, heard: answer(*heard) }),
        Note::Closing { session } => client(session, Record::Closing),
        Note::Told { who, record } => vec![(*who, record.clone())],
    }
}

/// Leases and runs have no end in this rig that any run would reach.
fn creation(campaign: &Campaign) -> Record {
    Record::Create {
        campaign: campaign.name.clone(),
        tasks: campaign.tasks,
        quota: campaign.quota,
        kind: if campaign.numbered { Kind::Numbered } else { Kind::Counted },
        lease_ms: None,
        timeout_ms: None,
        errors_max: None,
        losses_max: None,
    }
}

fn sent(what: story::Sent) -> history::Sent {
    match what {
        story::Sent::Done(runs) => history::Sent::Done { runs },
        story::Sent::Mixed { done, failed } => history::Sent::Mixed { done, failed },
        story::Sent::Release => history::Sent::Release,
    }
}

pub(crate) fn answer(heard: story::Heard) -> Heard {
    match heard {
        story::Heard::Counted => Heard::Counted,
        story::Heard::Refused(reason) => Heard::Refused { reason: refusal(reason) },
        story::Heard::Unknown => Heard::Unknown,
    }
}

fn refusal(reason: RefusalReason) -> Reason {
    match reason {
        RefusalReason::NotHeld => Reason::NotHeld,
        RefusalReason::Ended => Reason::Ended,
        RefusalReason::Gone => Reason::Gone,
        RefusalReason::BadRuns => Reason::BadRuns,
    }
}

/// Writes down something of the test itself.
pub(crate) fn tell(notes: &Notes, records: impl IntoIterator<Item = Record>) {
    notes.write_all(records.into_iter().map(|record| Note::Told { who: TEST, record }));
}

/// The durable state of a data directory that nobody has open, as `tenfold verify` reads it, which changes nothing; and
/// whose directory it is. Else why it cannot be read.
pub(crate) fn dump(data: &Path, moment: Moment) -> Result<(Instance, Vec<Record>), String> {
    let (report, state) = tenfold::store::verify_state(data).map_err(|error| error.to_string())?;
    let end = format!("digest sha256={}", report.digest);
    let lines: Vec<String> = state.lines().chain([end]).collect();
    let Verified { rows, digest } = Verified::parse(&lines.join("\n")).map_err(|line| format!("{line:?}"))?;
    let rows = rows.into_iter().map(|row| Record::Row { row });
    let records = [Record::Dump { moment }].into_iter().chain(rows).chain([Record::Dumped { digest }]).collect();
    Ok((Instance(report.instance.0), records))
}

/// What a server says of all counts, of one campaign or of all. `Look` has to be written before this is called.
pub(crate) async fn look(control: &Control, campaign: Option<&str>) -> Vec<Record> {
    let mut records = Vec::new();
    for status in control.status(campaign).await.unwrap() {
        let name = status.spec.name.clone();
        records.push(stands(&status));
        let mut from = Some(0);
        while let Some(first) = from {
            let page = control.counts_page(&name, first).await.unwrap();
            records.extend(page.tasks.iter().map(|(_, count)| counted(&name, count)));
            from = page.next;
        }
    }
    records
}

fn counted(campaign: &str, count: &TaskCount) -> Record {
    Record::Count {
        campaign: campaign.to_owned(),
        task: count.index.0,
        done: count.done,
        extra: count.extra,
        leased: count.leased,
        quarantined: count.state == TaskState::Quarantined,
    }
}

fn stands(status: &CampaignStatus) -> Record {
    let standing = match (status.finished, status.settled) {
        (true, _) => Standing::Finished,
        (false, true) => Standing::Settled,
        (false, false) => Standing::Open,
    };
    let campaign = status.spec.name.clone();
    Record::Status { campaign, standing, done: status.runs_done, extra: status.runs_extra }
}
