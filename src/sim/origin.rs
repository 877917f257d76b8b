//! A simulated client of the origin's dialect: says what it has done, reads a task, works, and says it again when the
//! answer does not come soon, as that dialect's clients do.

use tenfold_checker::history::{Origin as Answer, Record, Units, Who};

use super::coverage::Seen;
use super::stage::{Chunk, Event, LinkId, Side, Stage};
use crate::protocol::origin::{AnswerDecoder, encode_message};

/// See the head of this file.
pub(super) struct OriginClient {
    who: Who,
    actor: usize,
    campaign: String,
    first: u64,
    link: Option<LinkId>,
    decoder: AnswerDecoder,
    /// What it says next: units by task index.
    done: Vec<(u64, u64)>,
    /// When it says it.
    next_at: u64,
    /// Answers that have not come.
    waiting: usize,
    work_ms: u64,
    pub(super) over: bool,
    /// Its campaign is about to be created, at least.
    pub(super) begins: bool,
    wake_at: u64,
}

impl OriginClient {
    pub(super) fn new(stage: &mut Stage, who: Who, actor: usize, campaign: (String, u64), work_ms: u64) -> Self {
        let (campaign, first) = campaign;
        let next_at = stage.now + stage.random.within(1..=2_000);
        stage.at(next_at, Event::Wake { actor });
        Self {
            who,
            actor,
            campaign,
            first,
            link: None,
            decoder: AnswerDecoder::default(),
            done: Vec::new(),
            next_at,
            waiting: 0,
            work_ms,
            over: false,
            begins: false,
            wake_at: next_at,
        }
    }

    pub(super) fn wake(&mut self, stage: &mut Stage) {
        if stage.now != self.wake_at || self.over {
            return;
        }
        if stage.now < self.next_at {
            return self.plan(stage, self.next_at);
        }
        if !self.begins {
            return self.plan(stage, stage.now + 200);
        }
        let link = match self.link {
            Some(link) => link,
            None => self.connect(stage),
        };
        self.say(stage, link);
        // Its answer may be lost; and some say it twice for no reason.
        if stage.random.percent(if stage.calm { 0 } else { 10 }) && !self.done.is_empty() {
            stage.saw(Seen::OriginResent);
            self.say(stage, link);
        }
        self.done.clear();
        let patience = stage.now + 3_000;
        self.plan(stage, patience);
    }

    pub(super) fn receive(&mut self, stage: &mut Stage, link: LinkId, chunk: Chunk) {
        if self.link != Some(link) || self.over {
            return;
        }
        let Chunk::Bytes(bytes) = chunk else { return self.lose(stage) };
        self.decoder.push(&bytes);
        while let Some(answer) = self.decoder.next_answer().unwrap() {
            self.waiting = self.waiting.saturating_sub(1);
            let answer = match answer {
                -1 => Answer::Settled,
                -2 => Answer::Wait,
                number => Answer::Task { task: (number.cast_unsigned() - self.first) as u32 },
            };
            stage.note(self.who, Record::OriginAnswer { connection: link, answer });
            match answer {
                Answer::Settled => {
                    stage.saw(Seen::OriginSettled);
                    self.lose(stage);
                    self.over = true;
                    return;
                }
                Answer::Wait => {}
                Answer::Task { task } => {
                    let units = if stage.random.percent(10) { stage.random.within(2..=3) } else { 1 };
                    if self.done.iter().all(|(known, _)| *known != u64::from(task)) {
                        self.done.push((u64::from(task), units));
                    }
                }
            }
        }
        if self.waiting == 0 {
            let pause = stage.random.within(1..=self.work_ms.max(1));
            self.next_at = stage.now + pause;
            self.plan(stage, self.next_at);
        }
    }

    /// The connection is gone; its leases are, too.
    pub(super) fn lose(&mut self, stage: &mut Stage) {
        if let Some(link) = self.link.take() {
            stage.saw(Seen::OriginLost);
            stage.note(self.who, Record::OriginEnd { connection: link });
            stage.abandon(link, false);
        }
        self.done.clear();
        self.waiting = 0;
        self.next_at = stage.now + stage.random.within(1..=1_000);
        self.plan(stage, self.next_at);
    }

    fn connect(&mut self, stage: &mut Stage) -> LinkId {
        let link = stage.open(self.actor);
        self.link = Some(link);
        self.decoder = AnswerDecoder::default();
        self.done.clear();
        stage.note(self.who, Record::OriginOpen { connection: link, campaign: self.campaign.clone() });
        link
    }

    fn say(&mut self, stage: &mut Stage, link: LinkId) {
        let done = self.done.iter().map(|(task, units)| Units { task: *task as u32, units: *units as u32 }).collect();
        stage.note(self.who, Record::OriginSend { connection: link, done });
        if !self.done.is_empty() {
            stage.saw(Seen::OriginReports);
        }
        let numbered: Vec<(u64, u64)> = self.done.iter().map(|(task, units)| (task + self.first, *units)).collect();
        stage.send(link, Side::Server, &encode_message(&numbered));
        self.waiting += 1;
        self.next_at = stage.now;
    }

    fn plan(&mut self, stage: &mut Stage, at: u64) {
        self.wake_at = at.max(stage.now + 1);
        stage.at(self.wake_at, Event::Wake { actor: self.actor });
    }
}
