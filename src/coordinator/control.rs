//! Questions and orders that belong to no session: creating campaigns, their states, their counts.
//!
//! Every request may be sent again after its answer was lost: a creation is known by the id its client chose, and the
//! orders name a state to be in, not a step to take. And every request may arrive once more long after: an order over an older
//! connection than that of the last one about the same campaign is not followed.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use super::campaign::{Campaign, Creation};
use super::command::{CloseReason, ControlAnswer, ControlError, ControlRequest, TextChange};
use super::rows::{CampaignRow, Phase, RowKey};
use super::sweeps::Sweep;
use super::timers::Timer;
use super::{Coordinator, Output};
use crate::limits;
use crate::types::{
    CampaignId, CampaignSpec, ConnectionId, CreationId, LossReason, RequestFate, SessionId, TaskCount, TaskIndex, Tasks,
};

type Answer = Result<ControlAnswer, ControlError>;

/// The campaign that a request changes; `None` if it changes none, or does so the same however late it comes.
fn ordered(request: &ControlRequest) -> Option<&str> {
    match request {
        ControlRequest::Create { spec, .. } => Some(&spec.name),
        ControlRequest::Pause { campaign }
        | ControlRequest::Resume { campaign }
        | ControlRequest::Cancel { campaign }
        | ControlRequest::Requeue { campaign }
        | ControlRequest::Remove { campaign } => Some(campaign),
        ControlRequest::AddKeys { .. }
        | ControlRequest::Seal { .. }
        | ControlRequest::Status { .. }
        | ControlRequest::Counts { .. }
        | ControlRequest::Fate { .. } => None,
    }
}

impl Coordinator {
    /// Answers one request; a requeue is answered when its last task is open again.
    pub(super) fn control(&mut self, connection: ConnectionId, id: u32, request: ControlRequest) {
        // No campaign has a longer name.
        if let Some(name) = ordered(&request).filter(|name| name.len() <= limits::NAME_BYTES_MAX) {
            if self.orders.is_late(name, connection) {
                // Whoever is still there asks again over a new one.
                self.send(connection, Output::Close(CloseReason::Late));
                return;
            }
            self.orders.note(name.to_owned(), connection);
        }
        let answer = match request {
            ControlRequest::Create { creation, spec } => self.create(creation, *spec),
            ControlRequest::AddKeys { creation, from, keys } => self.add_keys(creation, from, keys),
            ControlRequest::Seal { creation } => self.seal(creation),
            ControlRequest::Status { campaign, from } => self.status(campaign.as_deref(), from),
            ControlRequest::Counts { campaign, from, limit } => self.counts(&campaign, from, limit),
            ControlRequest::Pause { campaign } => self.pause(&campaign),
            ControlRequest::Resume { campaign } => self.resume_campaign(&campaign),
            ControlRequest::Cancel { campaign } => self.cancel(&campaign),
            ControlRequest::Remove { campaign } => self.remove(&campaign),
            ControlRequest::Fate { session, number } => Ok(ControlAnswer::Fate(self.fate(session, number))),
            ControlRequest::Requeue { campaign } => match self.requeue(&campaign, connection, id) {
                Ok(()) => return,
                Err(error) => Err(error),
            },
        };
        let answer = answer.unwrap_or_else(ControlAnswer::Failed);
        self.send(connection, Output::Control { id, answer });
    }

    /// Drops a campaign's name at once, and its rows, texts and leases in slices.
    pub(super) fn begin_removal(&mut self, id: CampaignId) {
        let Some(campaign) = self.campaigns.get_mut(&id) else { return };
        campaign.row.phase = Phase::Removing;
        campaign.creation = None;
        let name = campaign.row.spec.name.clone();
        self.creations.remove(&campaign.row.creation);
        self.names.remove(&name);
        self.touch(RowKey::Campaign(id));
        self.campaign_changed(id, false);
        self.waiting.mark(&name, true);
        self.sweeps.push_back(Sweep::remove(id));
    }

    fn create(&mut self, creation: CreationId, mut spec: CampaignSpec) -> Answer {
        spec.check()?;
        let name = spec.name.clone();
        if let Some(campaign) = self.creations.get(&creation).and_then(|id| self.campaigns.get(id)) {
            spec.lease_ms = spec.lease_ms.or(campaign.row.spec.lease_ms);
            if campaign.row.spec != spec {
                return Err(ControlError::Exists { name });
            }
            return Ok(creation_answer(campaign, campaign.row.phase != Phase::Creating));
        }
        if self.names.contains_key(&name) {
            return Err(ControlError::Exists { name });
        }
        if self.draining {
            return Err(ControlError::Draining);
        }
        // Campaigns that are being removed still take their place, so that removing and creating in turn is bounded too.
        // So do ids: the last one is never given out.
        if self.campaigns.len() >= self.options.campaigns_max || self.globals.next_campaign == u32::MAX {
            return Err(ControlError::Full { limit: self.options.campaigns_max });
        }
        spec.lease_ms = spec.lease_ms.or(Some(self.options.lease_ms));
        let id = CampaignId(self.globals.next_campaign);
        self.globals.next_campaign += 1;
        let phase = match spec.tasks {
            Tasks::Range { .. } => Phase::Running,
            Tasks::Keys { .. } => Phase::Creating,
        };
        let mut campaign = Campaign::new(id, CampaignRow { spec, creation, phase });
        if phase == Phase::Creating {
            campaign.creation = Some(Creation { added: 0, keys: HashSet::new(), heard: self.now });
            self.timers.push(self.now.after(self.options.creation_idle_ms), Timer::Creation(id));
        }
        let answer = creation_answer(&campaign, false);
        self.campaigns.insert(id, campaign);
        self.names.insert(name.clone(), id);
        self.creations.insert(creation, id);
        self.touch(RowKey::Globals);
        self.touch(RowKey::Campaign(id));
        self.campaign_changed(id, true);
        self.waiting.mark(&name, true);
        Ok(answer)
    }

    fn add_keys(&mut self, creation: CreationId, from: u32, keys: Vec<String>) -> Answer {
        let campaign = self.creations.get(&creation).and_then(|id| self.campaigns.get_mut(id));
        let campaign = campaign.ok_or(ControlError::CreationUnknown)?;
        let count = campaign.count();
        let Some(open) = &mut campaign.creation else { return Ok(creation_answer(campaign, true)) };
        open.heard = self.now;
        if from > open.added {
            return Err(ControlError::KeysOutOfOrder { expected: open.added });
        }
        let new: Vec<String> = keys.into_iter().skip((open.added - from) as usize).collect();
        let mut digests = HashSet::with_capacity(new.len());
        for (index, key) in (open.added..).zip(&new) {
            let unfit = key.is_empty() || key.len() > limits::KEY_BYTES_MAX || key.contains(['\n', '\r', '\0']);
            if unfit || index >= count {
                return Err(ControlError::KeyBad { index });
            }
            let digest = digest(key);
            if open.keys.contains(&digest) || !digests.insert(digest) {
                return Err(ControlError::KeyTwice { index });
            }
        }
        let first = TaskIndex(open.added);
        open.added += new.len() as u32;
        open.keys.extend(digests);
        if !new.is_empty() {
            self.step.texts.push(TextChange::Put { campaign: campaign.id, first, keys: new });
        }
        Ok(creation_answer(campaign, false))
    }

    fn seal(&mut self, creation: CreationId) -> Answer {
        let campaign = self.creations.get(&creation).and_then(|id| self.campaigns.get_mut(id));
        let campaign = campaign.ok_or(ControlError::CreationUnknown)?;
        let Some(open) = &campaign.creation else { return Ok(creation_answer(campaign, true)) };
        if open.added < campaign.count() {
            return Err(ControlError::KeysMissing { added: open.added, count: campaign.count() });
        }
        campaign.creation = None;
        campaign.row.phase = Phase::Running;
        let answer = creation_answer(campaign, false);
        let (id, name) = (campaign.id, campaign.row.spec.name.clone());
        self.touch(RowKey::Campaign(id));
        self.campaign_changed(id, true);
        self.waiting.mark(&name, true);
        Ok(answer)
    }

    fn status(&self, name: Option<&str>, from: CampaignId) -> Answer {
        if let Some(name) = name {
            let campaigns = vec![self.named(name)?.status()];
            return Ok(ControlAnswer::Status { campaigns, next: None });
        }
        let mut listed =
            self.campaigns.range(from..).map(|(_, campaign)| campaign).filter(|campaign| !campaign.removing());
        let campaigns = listed.by_ref().take(limits::STATUS_PER_ANSWER_MAX).map(Campaign::status).collect();
        Ok(ControlAnswer::Status { campaigns, next: listed.next().map(|campaign| campaign.id) })
    }

    fn counts(&self, name: &str, from: TaskIndex, limit: u32) -> Answer {
        let campaign = self.named(name)?;
        let to = from.0.saturating_add(limit.clamp(1, limits::COUNTS_PER_ANSWER_MAX)).min(campaign.count());
        let tasks = (from.0..to).map(|task| self.task_count(campaign, TaskIndex(task))).collect();
        Ok(ControlAnswer::Counts {
            campaign: campaign.id,
            first: campaign.info.first,
            runs: campaign.quota(),
            keyed: campaign.info.keyed && campaign.creation.is_none(),
            tasks,
            next: (to < campaign.count()).then_some(TaskIndex(to)),
        })
    }

    fn task_count(&self, campaign: &Campaign, task: TaskIndex) -> TaskCount {
        let counters = campaign.tasks.get(task);
        let trouble = campaign.troubles.get(&task).and_then(|slot| self.troubles.get(*slot));
        TaskCount {
            index: task,
            done: counters.row.done,
            extra: counters.row.extra,
            leased: counters.leased,
            state: campaign.task_state(task),
            errors: trouble.map_or(0, |trouble| trouble.errors),
            losses: trouble.map_or(0, |trouble| trouble.losses),
            last_error: trouble.map_or_else(String::new, |trouble| trouble.last_error.clone()),
        }
    }

    fn pause(&mut self, name: &str) -> Answer {
        let campaign = self.named(name)?;
        match campaign.row.phase {
            Phase::Running if campaign.settled().is_some() => {
                Err(state_error("the campaign is settled: nothing is lent"))
            }
            Phase::Running => self.set_phase(name, Phase::Paused),
            Phase::Paused => Ok(ControlAnswer::Done { tasks: 0 }),
            Phase::Creating => Err(state_error("the campaign is still being created")),
            Phase::Cancelled | Phase::Removing => Err(state_error("the campaign was cancelled")),
        }
    }

    fn resume_campaign(&mut self, name: &str) -> Answer {
        match self.named(name)?.row.phase {
            Phase::Paused => self.set_phase(name, Phase::Running),
            Phase::Running => Ok(ControlAnswer::Done { tasks: 0 }),
            Phase::Creating => Err(state_error("the campaign is still being created")),
            Phase::Cancelled | Phase::Removing => {
                Err(state_error("a cancelled campaign cannot be resumed; create another"))
            }
        }
    }

    fn cancel(&mut self, name: &str) -> Answer {
        let campaign = self.named(name)?;
        let id = campaign.id;
        match campaign.row.phase {
            Phase::Creating => Err(state_error("the campaign is still being created; remove it instead")),
            Phase::Cancelled => Ok(ControlAnswer::Done { tasks: 0 }),
            _ if campaign.finished() => Err(state_error("the campaign is finished: there is nothing to cancel")),
            Phase::Running | Phase::Paused | Phase::Removing => {
                let answer = self.set_phase(name, Phase::Cancelled);
                self.sweeps.push_back(Sweep::TellHolders { campaign: id, next: 0, reason: LossReason::Cancelled });
                answer
            }
        }
    }

    fn requeue(&mut self, name: &str, connection: ConnectionId, request: u32) -> Result<(), ControlError> {
        let campaign = self.named(name)?;
        match campaign.row.phase {
            Phase::Cancelled | Phase::Removing => return Err(state_error("the campaign was cancelled")),
            Phase::Creating | Phase::Running | Phase::Paused => {}
        }
        let campaign = campaign.id;
        self.sweeps.push_back(Sweep::Requeue { campaign, connection, request, opened: 0 });
        self.sweep();
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Answer {
        let campaign = self.named(name)?;
        if campaign.row.phase == Phase::Running && campaign.settled().is_none() {
            return Err(state_error("the campaign is running; cancel or pause it first"));
        }
        let id = campaign.id;
        self.begin_removal(id);
        Ok(ControlAnswer::Done { tasks: 0 })
    }

    fn fate(&self, id: SessionId, number: u64) -> RequestFate {
        let Some(session) = self.sessions.by_id(id).and_then(|slot| self.sessions.get(slot)) else {
            return RequestFate::UnknownSession;
        };
        let refusal = session.row.refusals.iter().find(|refusal| (refusal.from..=refusal.to).contains(&number));
        match refusal {
            Some(refusal) => RequestFate::Refused(refusal.reason),
            None if number > session.row.processed || number == 0 => RequestFate::NotReceived,
            None if number <= session.row.confirmed => RequestFate::Confirmed,
            None => RequestFate::Counted,
        }
    }

    fn named(&self, name: &str) -> Result<&Campaign, ControlError> {
        let campaign = self.names.get(name).and_then(|id| self.campaigns.get(id));
        campaign.ok_or_else(|| ControlError::NotFound { name: name.to_owned() })
    }

    fn set_phase(&mut self, name: &str, phase: Phase) -> Answer {
        let id = self.named(name)?.id;
        if let Some(campaign) = self.campaigns.get_mut(&id) {
            campaign.row.phase = phase;
        }
        self.touch(RowKey::Campaign(id));
        self.campaign_changed(id, true);
        self.waiting.mark(name, true);
        Ok(ControlAnswer::Done { tasks: 0 })
    }
}

fn creation_answer(campaign: &Campaign, existed: bool) -> ControlAnswer {
    let creation = campaign.creation.as_ref();
    ControlAnswer::Creation {
        campaign: campaign.id,
        added: creation.map_or(campaign.count(), |creation| creation.added),
        sealed: creation.is_none(),
        existed,
    }
}

fn state_error(reason: &str) -> ControlError {
    ControlError::State { reason: reason.to_owned() }
}

/// Half a SHA-256: two keys that share it would be a break of that hash.
fn digest(key: &str) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&Sha256::digest(key.as_bytes())[..16]);
    half
}
