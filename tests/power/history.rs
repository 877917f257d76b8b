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
use tenfold::types::{CampaignStatus, RefusalReason, SessionId, TaskState};
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

/// Rules that every whole run under power cuts is held to; what else its history has is applied as well.
const APPLIED: [Rule; 18] = [
    Rule::Sound,
    Rule::S1,
    Rule::S2,
    Rule::S3,
    Rule::S5,
    Rule::S6,
    Rule::S7,
    Rule::S8,
    Rule::S9,
    Rule::S10,
    Rule::S11,
    Rule::S12,
    Rule::S13,
    Rule::S14,
    Rule::S19,
    Rule::L1,
    Rule::L2,
    Rule::L3,
];

/// What is wrong with a whole run, by the rules of the checker; and what happened in it.
pub(crate) fn findings(history: &History) -> (Vec<Finding>, Figures) {
    let report = check(history);
    let mut findings = violations(&report);
    let missing = APPLIED.iter().filter(|rule| !report.applied.contains(rule));
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
    let mut history = History::default();
    let mut writers = BTreeMap::new();
    for entry in log {
        let Entry::Note(note) = entry else { continue };
        if let Note::Told { who, record: Record::Begin { session, .. } } = note {
            writers.insert(SessionId(session.0), *who);
        }
        for (who, record) in records(note, &writers) {
            history.push(who, record);
        }
    }
    history
}

/// A note in the words of the checker; none for what is not its business.
fn records(note: &Note, writers: &BTreeMap<SessionId, Who>) -> Vec<(Who, Record)> {
    let test = |record: Record| vec![(TEST, record)];
    let asked = |name: &str, change| (TEST, Record::Ask { campaign: name.to_owned(), change });
    let done = |name: &str, change| (TEST, Record::Done { campaign: name.to_owned(), change });
    // Whoever was never lent anything has no session that the checker knows of.
    let client =
        |session: &SessionId, record: Record| writers.get(session).map(|who| (*who, record)).into_iter().collect();
    match note {
        Note::Phase(_) | Note::Begin { .. } => Vec::new(),
        Note::Ready { .. } => test(Record::Ready),
        Note::Creating { campaign } => test(creation(campaign)),
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

fn answer(heard: story::Heard) -> Heard {
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
pub(crate) fn tell(notes: &Notes, record: Record) {
    notes.write(Note::Told { who: TEST, record });
}

/// Writes down the durable state of a data directory that nobody has open, as `tenfold verify` reads it, which changes
/// nothing. Whose directory it is; else why it cannot be read.
pub(crate) fn dump(notes: &Notes, data: &Path, moment: Moment) -> Result<Instance, String> {
    tell(notes, Record::Dump { moment });
    let (report, state) = tenfold::store::verify_state(data).map_err(|error| error.to_string())?;
    let end = format!("digest sha256={}", report.digest);
    let lines: Vec<String> = state.lines().chain([end]).collect();
    let Verified { rows, digest } = Verified::parse(&lines.join("\n")).map_err(|line| format!("{line:?}"))?;
    for row in rows {
        tell(notes, Record::Row { row });
    }
    tell(notes, Record::Dumped { digest });
    Ok(Instance(report.instance.0))
}

/// Writes down all counts as a server says they are.
pub(crate) async fn look(notes: &Notes, control: &Control) {
    tell(notes, Record::Look);
    for status in control.status(None).await.unwrap() {
        let name = status.spec.name.clone();
        tell(notes, stands(&status));
        let mut from = Some(0);
        while let Some(first) = from {
            let page = control.counts_page(&name, first).await.unwrap();
            for (_, count) in page.tasks {
                let (task, campaign) = (count.index.0, name.clone());
                let (done, extra, leased) = (count.done, count.extra, count.leased);
                let quarantined = count.state == TaskState::Quarantined;
                tell(notes, Record::Count { campaign, task, done, extra, leased, quarantined });
            }
            from = page.next;
        }
    }
    tell(notes, Record::Looked);
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
