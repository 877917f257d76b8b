//! Whether what recovery found is what the notes before the cut allow. Pure.
//!
//! | finding | what is compared |
//! |---|---|
//! | lost | a campaign, lease, session or count of which a client had read that it is there |
//! | invented | a count above, or a request beyond, what had been sent; a campaign nobody asked for |
//! | unopenable, hung | recovery itself |
//! | rules | a whole history, by the checker: not here, see `history` |
//!
//! Counts are compared exactly: a session's highest processed number says which of its requests are on the disk, the
//! notes say what each of them was, so a task's done and extra are their sum. Only of a refused request whose refusal its client has
//! confirmed and not yet noted is it unknown whether it counted; then both are allowed.

use std::collections::BTreeMap;

use crate::story::{Heard, Session, Stage, Story};
use crate::view::{Trouble, View};

/// What kind of broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Lost,
    Invented,
    Unopenable,
    Hung,
    Rules,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) kind: Kind,
    pub(crate) what: String,
}

fn lost(what: String) -> Finding {
    Finding { kind: Kind::Lost, what }
}

fn invented(what: String) -> Finding {
    Finding { kind: Kind::Invented, what }
}

/// Compares what recovery found with the notes before the cut.
pub(crate) fn judge(story: &Story, found: &Result<View, Trouble>) -> Vec<Finding> {
    match found {
        Ok(view) => Judge { story, view, findings: Vec::new() }.all(),
        Err(Trouble::Hung) => vec![Finding { kind: Kind::Hung, what: "recovery did not end".to_owned() }],
        Err(Trouble::Refused(why) | Trouble::Died(why)) => vec![Finding { kind: Kind::Unopenable, what: why.clone() }],
    }
}

struct Judge<'a> {
    story: &'a Story,
    view: &'a View,
    findings: Vec<Finding>,
}

impl Judge<'_> {
    fn all(mut self) -> Vec<Finding> {
        if self.story.instance.as_ref().is_some_and(|instance| *instance != self.view.instance) {
            self.findings.push(lost("the data directory is another one now".to_owned()));
        }
        self.campaigns();
        for (id, session) in &self.story.sessions {
            self.session(&id.to_string(), session, self.view.sessions.get(id).map(|line| line.processed));
        }
        self.refusals();
        self.leases();
        self.counts();
        self.findings
    }

    fn campaigns(&mut self) {
        for (name, (campaign, stage)) in &self.story.campaigns {
            let found = self.view.campaign(name).and_then(|id| self.view.campaigns.get(&id));
            match (stage, found) {
                (Stage::Created, None) => self.findings.push(lost(format!("campaign {name}"))),
                (Stage::Created, Some((_, phase, _))) if phase != "Running" => {
                    self.findings.push(lost(format!("campaign {name} is {phase}")));
                }
                (Stage::Removed, Some((_, phase, _))) if phase != "Removing" => {
                    self.findings.push(lost(format!("the removal of campaign {name}")));
                }
                (_, Some((.., false))) if campaign.keyed => {
                    self.findings.push(lost(format!("keys of campaign {name}")));
                }
                _ => {}
            }
        }
        let other = self.view.sessions.keys().find(|id| !self.story.sessions.contains_key(id));
        self.findings.extend(other.map(|id| invented(format!("session {id}"))));
        for (name, ..) in self.view.campaigns.values() {
            if !self.story.campaigns.contains_key(name) {
                self.findings.push(invented(format!("campaign {name}")));
            }
        }
    }

    fn session(&mut self, id: &str, session: &Session, processed: Option<u64>) {
        let acked = session.heard.keys().max().copied().unwrap_or(0);
        if session.closing {
            // It may be forgotten, and may have given back what nobody took.
            if processed.is_some_and(|processed| processed < acked) {
                self.findings.push(lost(format!("answers of session {id}")));
            }
            return;
        }
        let Some(processed) = processed else {
            if !session.leases.is_empty() {
                self.findings.push(lost(format!("session {id}")));
            }
            return;
        };
        if processed < acked {
            self.findings.push(lost(format!("session {id} had read the answer to {acked}, {processed} is known")));
        }
        let sent = session.sent.keys().max().copied().unwrap_or(0);
        if processed > sent {
            self.findings.push(invented(format!("session {id} had sent up to {sent}, {processed} is known")));
        }
    }

    fn refusals(&mut self) {
        for (id, session) in &self.story.sessions {
            let Some(line) = self.view.sessions.get(id) else { continue };
            for (number, heard) in session.heard.range(line.confirmed + 1..) {
                if *number <= line.processed && matches!(heard, Heard::Refused(_)) != line.refused(*number) {
                    self.findings
                        .push(lost(format!("session {id} would get another answer to {number} than {heard:?}")));
                }
            }
            if session.heard.values().any(|heard| *heard == Heard::Unknown) {
                self.findings.push(lost(format!("session {id} was forgotten")));
            }
        }
    }

    fn leases(&mut self) {
        for (id, session) in &self.story.sessions {
            if session.closing {
                continue;
            }
            let Some(line) = self.view.sessions.get(id) else { continue };
            for (lease, grant) in &session.leases {
                let ended = session.sent.iter().find(|(_, request)| request.lease == *lease).map(|(number, _)| *number);
                let is_over = ended.is_some_and(|number| number <= line.processed);
                let stage = self.story.campaigns.get(&grant.campaign).map(|(_, stage)| *stage);
                let found = self.view.leases.get(lease);
                if stage > Some(Stage::Created) && found.is_none_or(|found| !found.is_live) {
                    continue;
                }
                let fits = found.is_some_and(|found| {
                    found.session == line.slot
                        && self.view.campaign(&grant.campaign) == Some(found.campaign)
                        && (found.task, found.first, found.runs) == (grant.task, grant.first, grant.runs)
                        && found.is_live
                });
                if is_over && found.is_some() {
                    self.findings.push(invented(format!("lease {lease} of {id} was ended by {ended:?}: {found:?}")));
                } else if !is_over && !fits {
                    self.findings.push(lost(format!("lease {lease} of {id}: {grant:?}, found {found:?}")));
                }
            }
        }
    }

    fn counts(&mut self) {
        for (name, (campaign, stage)) in &self.story.campaigns {
            let (Some(id), true) = (self.view.campaign(name), *stage <= Stage::Created) else { continue };
            let (least, most) = self.sums(name);
            for task in 0..campaign.tasks {
                let (done, extra) = self.view.tasks.get(&(id, task)).copied().unwrap_or_default();
                let least = least.get(&task).copied().unwrap_or_default();
                let most = most.get(&task).copied().unwrap_or_default();
                if done + extra < least {
                    self.findings.push(lost(format!("task {task} of {name}: {done}+{extra}, but {least} are durable")));
                }
                if done + extra > most || done > u64::from(campaign.quota) {
                    self.findings
                        .push(invented(format!("task {task} of {name}: {done}+{extra}, but {most} are known")));
                }
            }
        }
    }

    /// By task: units that must and that may have been counted.
    fn sums(&self, campaign: &str) -> (BTreeMap<u32, u64>, BTreeMap<u32, u64>) {
        let (mut least, mut most) = (BTreeMap::new(), BTreeMap::new());
        for (id, session) in &self.story.sessions {
            let line = self.view.sessions.get(id);
            for (number, request) in &session.sent {
                let Some(grant) = session.leases.get(&request.lease).filter(|grant| grant.campaign == campaign) else {
                    continue;
                };
                let heard = session.heard.get(number);
                // A session that took its leave had all its answers.
                let processed = line.map_or(session.closing, |line| *number <= line.processed);
                let refused =
                    line.is_some_and(|line| line.refused(*number)) || matches!(heard, Some(Heard::Refused(_)));
                if !processed || refused {
                    continue;
                }
                let known = heard == Some(&Heard::Counted) || line.is_none_or(|line| *number > line.confirmed);
                *most.entry(grant.task).or_default() += request.what.units();
                if known {
                    *least.entry(grant.task).or_default() += request.what.units();
                }
            }
        }
        (least, most)
    }
}
