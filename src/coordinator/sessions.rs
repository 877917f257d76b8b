//! Sessions: who holds leases, what was processed for them, and where their answers go.
//!
//! Persistent fields are in [`SessionRow`]; everything else here is in memory only and begins anew with a restart: the
//! connection, the window, delays after releases. A session is stored from its first lease or numbered request on.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::command::ByConnection;
use super::rows::SessionRow;
use super::slots::{SlotSet, Slots};
use crate::limits;
use crate::types::{CampaignId, ConnectionId, Idle, Refusal, RefusalReason, SessionId, TaskIndex, Tick, Want};

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    /// What is stored, once `stored` is set.
    pub(super) row: SessionRow,
    /// For people; stored apart, since it never changes.
    pub(super) name: String,
    /// Whether it has a row.
    pub(super) stored: bool,
    /// Tells this session from a later one in the same slot; not durable.
    pub(super) serial: u64,
    /// Where its outputs go.
    pub(super) connection: Option<ConnectionId>,
    /// The last one it had in this process.
    pub(super) newest: Option<ConnectionId>,
    /// Its last sign of life, or when its connection ended.
    pub(super) heard: Tick,
    /// A lease of it expired and it has not been heard since: it is lent nothing.
    pub(super) silent: bool,
    /// Slots of its live leases.
    pub(super) live: SlotSet,
    /// Slots of its expired leases and those of removed campaigns, oldest first.
    pub(super) expired: VecDeque<u32>,
    /// Its window.
    pub(super) want: Want,
    /// Its place in the queues of those that wait.
    pub(super) arrival: Option<u64>,
    /// Why its window is not full, as it was last told.
    pub(super) idle: Option<Idle>,
    /// Campaigns that were described on this connection.
    pub(super) announced: BTreeSet<CampaignId>,
    /// Tasks it released and is not lent for a while, oldest first.
    pub(super) released: VecDeque<Released>,
    /// Whether a timer stands for its idleness.
    pub(super) idle_timer: bool,
    /// When its next timer for released tasks is due.
    pub(super) released_timer: Option<Tick>,
    /// Connections of the origin's dialect.
    pub(super) origin: Option<Origin>,
}

/// What a connection of the origin's dialect needs besides.
#[derive(Debug, Default)]
pub(super) struct Origin {
    /// The campaign it works on, decided at its first message for which one can be told.
    pub(super) campaign: Option<CampaignId>,
    /// Its lease on each task, live or expired.
    pub(super) leases: HashMap<TaskIndex, u32>,
    /// Whether it is being closed, because it broke the dialect or for want of room: what it had sent behind that is not heard.
    pub(super) broken: bool,
}

/// A task that a session gave back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Released {
    /// Its campaign.
    pub(super) campaign: CampaignId,
    /// The task.
    pub(super) task: TaskIndex,
    /// It is not lent to the session before.
    pub(super) until: Tick,
    /// The length of the delay, doubled by the next release.
    pub(super) delay_ms: u64,
}

impl Session {
    /// A session that nobody has heard of before.
    pub(super) fn new(id: SessionId, name: String, origin: bool, now: Tick) -> Self {
        Self {
            row: SessionRow { id, origin, attempt: 0, processed: 0, confirmed: 0, refusals: Vec::new() },
            name,
            stored: false,
            serial: 0,
            connection: None,
            newest: None,
            heard: now,
            silent: false,
            live: SlotSet::default(),
            expired: VecDeque::new(),
            want: Want::default(),
            arrival: None,
            idle: None,
            announced: BTreeSet::new(),
            released: VecDeque::new(),
            idle_timer: false,
            released_timer: None,
            origin: origin.then(Origin::default),
        }
    }

    /// The client has read the answers through `confirmed`: refusals up to there need not be kept.
    pub(super) fn confirm(&mut self, confirmed: u64) {
        let confirmed = confirmed.min(self.row.processed);
        if confirmed <= self.row.confirmed {
            return;
        }
        self.row.confirmed = confirmed;
        self.row.refusals.retain(|refusal| refusal.to > confirmed);
        if let Some(first) = self.row.refusals.first_mut() {
            first.from = first.from.max(confirmed + 1);
        }
    }

    /// Whether one more refusal can be kept, whatever it is.
    pub(super) fn has_room_for_refusal(&self) -> bool {
        self.row.refusals.len() < limits::REFUSALS_MAX
    }

    /// Keeps a refusal; numbers arrive in ascending order, so neighbours with one reason become a stretch.
    pub(super) fn refuse(&mut self, number: u64, reason: RefusalReason) {
        match self.row.refusals.last_mut() {
            Some(last) if last.to + 1 == number && last.reason == reason => last.to = number,
            _ => self.row.refusals.push(Refusal { from: number, to: number, reason }),
        }
    }

    /// How many more leases it may be lent; none while it is silent or not connected.
    pub(super) fn room(&self) -> u32 {
        if self.connection.is_none() || self.silent {
            return 0;
        }
        self.want.leases.saturating_sub(self.live.len() as u32)
    }

    /// Whether the task was released a moment ago.
    pub(super) fn avoids(&self, campaign: CampaignId, task: TaskIndex, now: Tick) -> bool {
        self.released.iter().any(|entry| entry.campaign == campaign && entry.task == task && entry.until > now)
    }

    /// Notes a release; returns until when the task is avoided.
    pub(super) fn release(&mut self, campaign: CampaignId, task: TaskIndex, now: Tick) -> Tick {
        let before = self.released.iter().position(|entry| entry.campaign == campaign && entry.task == task);
        let before = before.and_then(|position| self.released.remove(position));
        let delay_ms = before.map_or(limits::RELEASE_DELAY_MS_MIN, |before| {
            before.delay_ms.saturating_mul(2).min(limits::RELEASE_DELAY_MS_MAX)
        });
        if self.released.len() >= limits::RELEASED_TASKS_MAX {
            self.released.pop_front();
        }
        let until = now.after(delay_ms);
        self.released.push_back(Released { campaign, task, until, delay_ms });
        until
    }
}

/// All sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    slots: Slots<Session>,
    by_id: HashMap<SessionId, u32>,
    by_connection: ByConnection<u32>,
    serials: u64,
}

impl Sessions {
    /// How many there are, stored or not.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// One more than the highest slot ever used.
    pub(super) fn end(&self) -> u32 {
        self.slots.end()
    }

    /// Adds a session.
    pub(super) fn insert(&mut self, mut session: Session) -> u32 {
        self.serials += 1;
        session.serial = self.serials;
        let (id, origin) = (session.row.id, session.row.origin);
        let slot = self.slots.insert(session);
        if !origin {
            self.by_id.insert(id, slot);
        }
        slot
    }

    /// Puts a stored session back; `false` if its id is there twice.
    pub(super) fn restore(&mut self, slot: u32, mut session: Session) -> bool {
        self.serials += 1;
        session.serial = self.serials;
        session.stored = true;
        let (id, origin) = (session.row.id, session.row.origin);
        self.slots.put(slot, session);
        origin || self.by_id.insert(id, slot).is_none()
    }

    /// Forgets a session.
    pub(super) fn remove(&mut self, slot: u32) -> Option<Session> {
        let session = self.slots.remove(slot)?;
        if !session.row.origin {
            self.by_id.remove(&session.row.id);
        }
        if let Some(connection) = session.connection {
            self.by_connection.remove(&connection);
        }
        Some(session)
    }

    /// Gives a session a connection; returns the one it had.
    pub(super) fn connect(&mut self, slot: u32, connection: ConnectionId) -> Option<ConnectionId> {
        let session = self.slots.get_mut(slot)?;
        session.newest = Some(connection);
        let before = session.connection.replace(connection);
        if let Some(before) = before {
            self.by_connection.remove(&before);
        }
        self.by_connection.insert(connection, slot);
        before
    }

    /// Takes a session's connection away; returns its slot.
    pub(super) fn disconnect(&mut self, connection: ConnectionId) -> Option<u32> {
        let slot = self.by_connection.remove(&connection)?;
        self.slots.get_mut(slot)?.connection = None;
        Some(slot)
    }

    /// The session in a slot.
    pub(super) fn get(&self, slot: u32) -> Option<&Session> {
        self.slots.get(slot)
    }

    /// The session in a slot, to be changed.
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Session> {
        self.slots.get_mut(slot)
    }

    /// The session with this id.
    pub(super) fn by_id(&self, id: SessionId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// The session on this connection.
    pub(super) fn by_connection(&self, connection: ConnectionId) -> Option<u32> {
        self.by_connection.get(&connection).copied()
    }

    /// All sessions in order of their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Session)> {
        self.slots.iter()
    }
}
