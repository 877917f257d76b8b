//! A connection without a session that asks one thing at a time, and asks again on a new connection until it is answered.
//!
//! The keeper and the observers of a simulation are made of it, as the command line is made of `client/control.rs`.

use std::collections::BTreeMap;

use super::stage::{Chunk, LinkId, Side, Stage};
use crate::limits;
use crate::protocol::codec;
use crate::protocol::frame::{self, Decoder, SERVER_PREFACE_BYTES, ServerPreface, VERSIONS};
use crate::protocol::messages::{ClientMessage, ServerMessage, WireAnswer, WireControl};

/// What came of a look at the time or of something that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    Nothing,
    Answer(WireAnswer),
    /// The connection is gone; the question will be asked again at this time.
    Lost {
        again: u64,
    },
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Asker {
    actor: usize,
    link: Option<LinkId>,
    preface: Option<Vec<u8>>,
    frames: Decoder,
    question: Option<WireControl>,
    /// The number of the question on its way.
    asked: Option<u32>,
    numbers: u32,
    heard: u64,
    again: u64,
    answers: BTreeMap<u32, WireAnswer>,
}

/// A server that does not answer for so long is given up.
const PATIENCE_MS: u64 = 5_000;

impl Asker {
    pub(super) fn new(actor: usize) -> Self {
        Self {
            actor,
            link: None,
            preface: None,
            frames: Decoder::new(limits::FRAME_BYTES_MAX),
            question: None,
            asked: None,
            numbers: 0,
            heard: 0,
            again: 0,
            answers: BTreeMap::new(),
        }
    }

    pub(super) fn is_asking(&self) -> bool {
        self.question.is_some()
    }

    /// Asks; the answer comes with a later call. When to be woken at the latest.
    pub(super) fn ask(&mut self, stage: &mut Stage, question: WireControl) -> u64 {
        self.question = Some(question);
        self.asked = None;
        self.heard = stage.now;
        self.go_on(stage)
    }

    /// Gives the question up.
    pub(super) fn give_up(&mut self) {
        self.question = None;
        self.asked = None;
    }

    /// Looks at the time; when to be woken again.
    pub(super) fn wake(&mut self, stage: &mut Stage) -> (News, u64) {
        let mut news = News::Nothing;
        if self.question.is_some() && self.link.is_some() && self.heard + PATIENCE_MS <= stage.now {
            news = self.lose(stage);
        }
        let next = self.go_on(stage);
        (news, next)
    }

    pub(super) fn receive(&mut self, stage: &mut Stage, link: LinkId, chunk: Chunk) -> News {
        if self.link != Some(link) {
            return News::Nothing;
        }
        self.heard = stage.now;
        let Chunk::Bytes(bytes) = chunk else { return self.lose(stage) };
        if let Some(preface) = &mut self.preface {
            preface.extend_from_slice(&bytes);
            match ServerPreface::read(preface) {
                Ok(None) => return News::Nothing,
                Err(_) => return self.lose(stage),
                Ok(Some(_)) => {
                    let rest = preface.split_off(SERVER_PREFACE_BYTES);
                    self.frames.push(&rest);
                    self.preface = None;
                    let hello = ClientMessage::Hello { token: String::new(), session: None };
                    send(stage, link, &hello);
                    self.go_on(stage);
                }
            }
        } else {
            self.frames.push(&bytes);
        }
        loop {
            let body = match self.frames.next_frame() {
                Ok(Some(body)) => body,
                Ok(None) => break,
                Err(_) => return self.lose(stage),
            };
            match codec::decode_server(body) {
                Ok(ServerMessage::Control { id, answer }) => drop(self.answers.insert(id, answer)),
                Ok(ServerMessage::Closing { .. }) | Err(_) => return self.lose(stage),
                Ok(
                    ServerMessage::Welcome { .. }
                    | ServerMessage::UnknownSession { .. }
                    | ServerMessage::Grants { .. }
                    | ServerMessage::Answers { .. }
                    | ServerMessage::Lost { .. }
                    | ServerMessage::Idle(_)
                    | ServerMessage::Heartbeat,
                ) => {}
            }
        }
        let answer = self.asked.and_then(|number| self.answers.remove(&number));
        self.answers.clear();
        match answer {
            Some(answer) => {
                self.give_up();
                News::Answer(answer)
            }
            None => News::Nothing,
        }
    }

    fn lose(&mut self, stage: &mut Stage) -> News {
        if let Some(link) = self.link.take() {
            stage.abandon(link, false);
        }
        self.asked = None;
        self.again = stage.now + stage.random.within(50..=1_000);
        News::Lost { again: self.again }
    }

    /// Connects and asks, as far as that is possible now; when to look again.
    fn go_on(&mut self, stage: &mut Stage) -> u64 {
        if self.question.is_none() {
            return stage.now + PATIENCE_MS;
        }
        if self.link.is_none() {
            if self.again > stage.now {
                return self.again;
            }
            let link = stage.open(self.actor);
            stage.send(link, Side::Server, &frame::client_preface(VERSIONS));
            self.link = Some(link);
            self.preface = Some(Vec::new());
            self.frames = Decoder::new(limits::FRAME_BYTES_MAX);
            self.heard = stage.now;
        } else if let (None, None, Some(link), Some(question)) = (&self.preface, self.asked, self.link, &self.question)
        {
            self.numbers += 1;
            self.asked = Some(self.numbers);
            send(stage, link, &ClientMessage::Control { id: self.numbers, request: question.clone() });
        }
        self.heard + PATIENCE_MS
    }
}

fn send(stage: &mut Stage, link: LinkId, message: &ClientMessage) {
    let mut bytes = Vec::new();
    codec::encode_client(message, &mut bytes).unwrap();
    stage.send(link, Side::Server, &bytes);
}
