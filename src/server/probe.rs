//! Hands arbitrary messages of peers to the coordinator, as connections do, for fuzz tests.
//!
//! The bytes are a conversation of a few connections: which one, how long the message is, and the message, as the real
//! decoder reads it. So every number in it may be wrong, which is what the coordinator promises to bear.
//!
//! **Invariants.** Panics if the books are wrong after a step, if what is stored is not what is known, or if a count rose by more than
//! was reported; returns otherwise. Not part of the library's interface. The fuzz tests are `tests/fuzz` and `fuzz/`.

use std::collections::BTreeMap;

use super::translate::{Introduction, Said, client_message};
use crate::coordinator::command::ControlRequest;
use crate::coordinator::rows::{Change, Row, RowKey};
use crate::coordinator::{Command, Coordinator, Options, Restorer};
use crate::limits;
use crate::protocol::codec;
use crate::protocol::messages::ClientMessage;
use crate::protocol::origin;
use crate::types::{ConnectionId, InstanceId, Outcome, Request, Tick};

const INSTANCE: InstanceId = InstanceId([0x11; 16]);

/// How many connections there are; even ones are native, odd ones of the origin's dialect.
const CONNECTIONS: u8 = 6;

/// Lets everything be said that the bytes say, in order.
pub fn conversation(mut bytes: &[u8]) {
    let Ok(coordinator) = Restorer::new().finish(options(), INSTANCE, Tick(0)) else {
        panic!("nothing at all can be restored");
    };
    let mut server = Server {
        coordinator,
        stored: BTreeMap::new(),
        now: Tick(0),
        introduced: [false; CONNECTIONS as usize],
        reported: 0,
    };
    server.step(Command::Boot);
    while let Some(([who, pause, length], rest)) = bytes.split_first_chunk() {
        let (message, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        bytes = rest;
        server.now = server.now.after(u64::from(*pause) * u64::from(*pause) * 8);
        server.hear(who % CONNECTIONS, message);
    }
    server.restart();
}

/// Small bounds, so that they are reached.
fn options() -> Options {
    Options {
        lease_ms: 1_000,
        session_idle_ms: 20_000,
        creation_idle_ms: 5_000,
        leases_max: 12,
        leases_per_session_max: 5,
        expired_per_session_max: 3,
        sessions_max: 4,
        campaigns_max: 3,
        slice: 4,
        ..Options::default()
    }
}

struct Server {
    coordinator: Coordinator,
    /// What a store would hold.
    stored: BTreeMap<RowKey, Row>,
    now: Tick,
    /// Which connections have a session, or a dialect that needs none.
    introduced: [bool; CONNECTIONS as usize],
    /// Runs that were named as done in anything that was said.
    reported: u64,
}

impl Server {
    fn hear(&mut self, who: u8, message: &[u8]) {
        let connection = ConnectionId(u64::from(who));
        if message.is_empty() {
            self.introduced[usize::from(who)] = false;
            self.step(Command::Disconnected { connection });
        } else if who % 2 == 1 {
            let mut decoder = origin::Decoder::default();
            decoder.push(&[origin::START, message, origin::END].concat());
            if let Ok(Some(done)) = decoder.next_message() {
                self.reported += done.iter().map(|(_, units)| *units.min(&u64::from(limits::UNITS_MAX))).sum::<u64>();
                self.step(Command::Origin { connection, done });
            }
        } else if let Ok(message) = codec::decode_client(message) {
            self.hear_native(connection, message);
        }
        self.advance();
    }

    /// As a connection does: first the hello, and only one.
    fn hear_native(&mut self, connection: ConnectionId, message: ClientMessage) {
        let introduced = &mut self.introduced[connection.0 as usize];
        let command = match client_message(connection, message) {
            Said::Introduced(Introduction::Session(hello)) if !*introduced => {
                *introduced = true;
                Command::Hello { connection, hello }
            }
            Said::Command(command @ Command::Control { .. }) => command,
            Said::Command(command) if *introduced => command,
            Said::Introduced(_) | Said::Command(_) => return,
        };
        if too_large(&command) {
            return;
        }
        self.note(&command);
        self.step(command);
    }

    /// A resend counts again here, so this is an upper bound.
    fn note(&mut self, command: &Command) {
        let Command::Requests { requests, .. } = command else { return };
        for request in requests {
            self.reported += match request {
                Request::Report { outcome: Outcome::Done { runs }, .. } => u64::from(*runs),
                Request::Report { outcome: Outcome::Mixed { done, .. }, .. } => u64::from(done.count_ones()),
                Request::Release { .. } => 0,
            };
        }
    }

    /// What is due by now, as the pipeline does it.
    fn advance(&mut self) {
        const STEPS_MAX: usize = 1_000;
        for _ in 0..STEPS_MAX {
            match self.coordinator.next_deadline() {
                Some(due) if due <= self.now => self.step(Command::Advance),
                Some(_) | None => return,
            }
        }
        panic!("work that never ends");
    }

    fn step(&mut self, command: Command) {
        let what = format!("{command:?}");
        let step = self.coordinator.apply(self.now, command);
        for change in self.coordinator.changes(&step.changes) {
            match change {
                Change::Put(row) => drop(self.stored.insert(row.key(), row)),
                Change::Remove(key) => drop(self.stored.remove(&key)),
                Change::ClearTasks { campaign, first, tasks } => {
                    let cleared = first.0..first.0.saturating_add(tasks);
                    self.stored.retain(
                        |key, _| !matches!(key, RowKey::Task(of, task) if *of == campaign && cleared.contains(&task.0)),
                    );
                }
            }
        }
        let books = self.coordinator.check();
        assert!(books.is_ok(), "{books:?} after {what}");
        assert_eq!(self.coordinator.durable_view(), self.stored, "the store was not told everything: {what}");
        let counted = self.coordinator.summary().runs_done;
        assert!(counted <= self.reported, "{counted} runs are counted, {} were reported: {what}", self.reported);
    }

    /// What is stored makes the same coordinator again.
    fn restart(self) {
        let mut restorer = Restorer::new();
        for row in self.stored.values() {
            let applied = restorer.apply(Change::Put(row.clone()));
            assert!(applied.is_ok(), "{applied:?}");
        }
        match restorer.finish(options(), INSTANCE, self.now) {
            Ok(again) => assert_eq!(again.durable_view(), self.stored),
            Err(wrong) => panic!("what was stored is taken for damage: {wrong}"),
        }
    }
}

/// A campaign of a thousand million tasks takes its time rightly, when every step is checked against a full scan.
fn too_large(command: &Command) -> bool {
    const TASKS_MAX: u32 = 1_000;
    matches!(command, Command::Control { request: ControlRequest::Create { spec, .. }, .. } if spec.tasks.count() > TASKS_MAX)
}
