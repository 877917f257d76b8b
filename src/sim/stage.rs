//! What all actors of a simulation share: the time, the schedule, chance, the network and the history.
//!
//! ```text
//!            send                          pump
//!   actor ─────────▶ pipe: chunk, chunk ─────────▶ actor at the other end
//!                     │ delayed, held by a partition, cut in the middle
//! ```
//!
//! A link is two pipes of bytes, one in each direction. Bytes arrive in order, each write in pieces, each piece later than
//! the one before. A partition holds all pieces until it heals; then they arrive, even if their sender has long given up.
//! A cut loses what is on its way, from any byte on; each end hears of it, or does not.
//! **Invariant**: two events at the same time happen in the order in which they were scheduled.

use std::collections::{BTreeMap, VecDeque};

use tenfold_checker::history::{History, Record, Who};

use super::coverage::{Coverage, Seen};
use super::random::Random;

/// A connection, as the network knows it.
pub(super) type LinkId = u64;

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// Something that will happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The next piece of a link arrives at this side.
    Pump { link: LinkId, toward: Side },
    /// The server's pipeline has a turn.
    Turn,
    /// What the server's pipeline let out is written.
    Flush,
    /// The server looks for connections that are silent.
    Upkeep,
    /// A server starts.
    Boot,
    /// An actor looks at the time.
    Wake { actor: usize },
    /// Something breaks.
    Mischief,
    /// Faults stop.
    Calm,
}

/// What arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    Bytes(Vec<u8>),
    /// The other end has closed, or is gone.
    End,
}

#[derive(Debug, Default)]
struct Pipe {
    chunks: VecDeque<Chunk>,
    /// Bytes on their way.
    bytes: usize,
    /// When the last piece arrives.
    last: u64,
    /// A partition holds everything until then.
    held_until: u64,
    /// Nothing more is written.
    closed: bool,
}

#[derive(Debug)]
struct Link {
    actor: usize,
    to_client: Pipe,
    to_server: Pipe,
    /// The client's end is not looked at any more.
    abandoned: bool,
}

/// How the network is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    /// Longest delay of a piece, in milliseconds.
    pub(super) delay_ms: u64,
    /// How often a write is cut into pieces, in percent.
    pub(super) split_percent: u64,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Stage {
    /// Milliseconds since the beginning.
    pub(super) now: u64,
    pub(super) random: Random,
    pub(super) history: History,
    pub(super) coverage: Coverage,
    pub(super) weather: Weather,
    /// Whether faults have stopped.
    pub(super) calm: bool,
    /// Something that no rule is about, and that must not be.
    pub(super) wrong: Option<String>,
    schedule: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    links: BTreeMap<LinkId, Link>,
    last_link: LinkId,
}

impl Stage {
    pub(super) fn new(random: Random, weather: Weather) -> Self {
        Self {
            now: 0,
            random,
            history: History::default(),
            coverage: Coverage::default(),
            weather,
            calm: false,
            wrong: None,
            schedule: BTreeMap::new(),
            scheduled: 0,
            links: BTreeMap::new(),
            last_link: 0,
        }
    }

    pub(super) fn note(&mut self, who: Who, record: Record) {
        self.history.push(who, record);
    }

    pub(super) fn saw(&mut self, seen: Seen) {
        self.coverage.add(seen, 1);
    }

    pub(super) fn at(&mut self, time: u64, event: Event) {
        self.scheduled += 1;
        self.schedule.insert((time.max(self.now), self.scheduled), event);
    }

    pub(super) fn after(&mut self, milliseconds: u64, event: Event) {
        self.at(self.now + milliseconds, event);
    }

    /// The next thing to happen; time goes on to it.
    pub(super) fn next_event(&mut self) -> Option<Event> {
        let ((time, _), event) = self.schedule.pop_first()?;
        self.now = time;
        Some(event)
    }

    /// A new link of an actor.
    pub(super) fn open(&mut self, actor: usize) -> LinkId {
        self.last_link += 1;
        let link = Link { actor, to_client: Pipe::default(), to_server: Pipe::default(), abandoned: false };
        self.links.insert(self.last_link, link);
        self.last_link
    }

    /// Whose link it is.
    pub(super) fn actor_of(&self, link: LinkId) -> Option<usize> {
        self.links.get(&link).map(|link| link.actor)
    }

    /// Bytes on their way there.
    pub(super) fn backlog(&self, link: LinkId, toward: Side) -> usize {
        self.links.get(&link).map_or(0, |link| link.pipe(toward).bytes)
    }

    /// Writes bytes toward an end, in pieces.
    pub(super) fn send(&mut self, link: LinkId, toward: Side, mut bytes: &[u8]) {
        if bytes.is_empty() || self.links.get(&link).is_none_or(|link| link.pipe(toward).closed) {
            return;
        }
        while bytes.len() > 1 && self.random.percent(self.weather.split_percent) {
            let (piece, rest) = bytes.split_at(1 + self.random.below(bytes.len() - 1));
            self.coverage.add(Seen::SplitFrames, 1);
            self.put(link, toward, Chunk::Bytes(piece.to_vec()));
            bytes = rest;
        }
        self.put(link, toward, Chunk::Bytes(bytes.to_vec()));
    }

    /// Closes an end: after what was written, the other end hears of it, if `heard`.
    pub(super) fn close(&mut self, link: LinkId, toward: Side, heard: bool) {
        let Some(pipe) = self.links.get_mut(&link).map(|link| link.pipe_mut(toward)) else { return };
        if !std::mem::replace(&mut pipe.closed, true) && heard {
            self.put(link, toward, Chunk::End);
        }
    }

    /// The client's end is given up: nothing is read there any more. The server hears of it, unless half-open.
    pub(super) fn abandon(&mut self, link: LinkId, half_open: bool) {
        if let Some(link) = self.links.get_mut(&link) {
            link.abandoned = true;
        }
        self.close(link, Side::Server, !half_open);
    }

    /// The server's process has ended: nothing is read or written there any more.
    pub(super) fn process_ended(&mut self, silently: bool) {
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.close(link, Side::Client, !silently);
            if let Some(link) = self.links.get_mut(&link) {
                link.to_server.closed = true;
                link.to_server.chunks.clear();
                link.to_server.bytes = 0;
            }
        }
    }

    /// Loses what is on its way from some byte on; each end hears of the loss, or does not.
    pub(super) fn cut(&mut self, link: LinkId, heard: [bool; 2]) {
        for (toward, heard) in [Side::Client, Side::Server].into_iter().zip(heard) {
            let Some(pipe) = self.links.get_mut(&link).map(|link| link.pipe_mut(toward)) else { return };
            let kept = self.random.below(pipe.chunks.len() + 1);
            pipe.chunks.truncate(kept);
            if let Some(Chunk::Bytes(bytes)) = pipe.chunks.back_mut() {
                bytes.truncate(self.random.below(bytes.len() + 1));
            }
            pipe.bytes = pipe.chunks.iter().map(Chunk::len).sum();
            self.close(link, toward, heard);
        }
    }

    /// Holds everything of a link, in one direction or both, for some time.
    pub(super) fn hold(&mut self, link: LinkId, toward: &[Side], milliseconds: u64) {
        let until = self.now + milliseconds;
        for side in toward {
            if let Some(link) = self.links.get_mut(&link) {
                let pipe = link.pipe_mut(*side);
                pipe.held_until = pipe.held_until.max(until);
            }
        }
    }

    /// The links that stand.
    pub(super) fn links(&self) -> Vec<LinkId> {
        self.links
            .iter()
            .filter(|(_, link)| !link.to_server.closed || !link.to_client.closed)
            .map(|(id, _)| *id)
            .collect()
    }

    /// The piece that arrives now; `None` if it is held, or there is none.
    pub(super) fn arrive(&mut self, id: LinkId, toward: Side) -> Option<Chunk> {
        let link = self.links.get_mut(&id)?;
        let abandoned = link.abandoned;
        let pipe = link.pipe_mut(toward);
        if pipe.held_until > self.now {
            let until = pipe.held_until;
            self.at(until, Event::Pump { link: id, toward });
            return None;
        }
        let chunk = pipe.chunks.pop_front()?;
        pipe.bytes -= chunk.len();
        if link.to_client.finished() && link.to_server.finished() {
            self.links.remove(&id);
        }
        if abandoned && toward == Side::Client {
            return None;
        }
        if abandoned && matches!(chunk, Chunk::Bytes(_)) {
            self.coverage.add(Seen::OldBytes, 1);
        }
        Some(chunk)
    }

    /// Puts a piece off: its receiver does not run.
    pub(super) fn put_off(&mut self, until: u64, link: LinkId, toward: Side) {
        self.at(until, Event::Pump { link, toward });
    }

    fn put(&mut self, link: LinkId, toward: Side, chunk: Chunk) {
        let due = self.now + self.random.within(0..=self.weather.delay_ms);
        let Some(pipe) = self.links.get_mut(&link).map(|link| link.pipe_mut(toward)) else { return };
        pipe.bytes += chunk.len();
        pipe.chunks.push_back(chunk);
        pipe.last = pipe.last.max(due);
        let due = pipe.last;
        self.at(due, Event::Pump { link, toward });
    }
}

impl Link {
    fn pipe(&self, toward: Side) -> &Pipe {
        match toward {
            Side::Client => &self.to_client,
            Side::Server => &self.to_server,
        }
    }

    fn pipe_mut(&mut self, toward: Side) -> &mut Pipe {
        match toward {
            Side::Client => &mut self.to_client,
            Side::Server => &mut self.to_server,
        }
    }
}

impl Pipe {
    fn finished(&self) -> bool {
        self.closed && self.chunks.is_empty()
    }
}

impl Chunk {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::End => 0,
        }
    }
}
