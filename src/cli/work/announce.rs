//! What a worker says about waiting: each thing once, until something else is to be said.
//!
//! Pure. A fleet's log should show why a worker does nothing, and not a line for every second it does so.
//! Tested in this file.

use crate::cli::output::{counted, printable};
use crate::client::{Connection, State};
use crate::types::{Idle, Settled};

/// Remembers what was said last.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    away: bool,
    idle: Option<Idle>,
}

impl Announcer {
    /// What is to be said now, if anything. `names` are the campaigns wanted, none for all; `busy` is whether runs are
    /// under way.
    pub(super) fn look(&mut self, state: &State, names: &[String], busy: bool) -> Option<String> {
        match &state.connection {
            Connection::Connecting { last_error: Some(error), .. } if !self.away => {
                self.away = true;
                // What the next server says about idleness is news again.
                self.idle = None;
                Some(format!("no server answers ({}); trying on", printable(error)))
            }
            Connection::Connecting { .. } | Connection::Stopped(_) => None,
            Connection::Connected { server, .. } if self.away => {
                self.away = false;
                Some(format!("connected to {server}"))
            }
            Connection::Connected { .. } => self.look_idle(state.idle?, names, busy),
        }
    }

    fn look_idle(&mut self, idle: Idle, names: &[String], busy: bool) -> Option<String> {
        if busy || self.idle == Some(idle) {
            return None;
        }
        self.idle = Some(idle);
        Some(format!("waiting: {}", reason(idle, names)))
    }
}

fn reason(idle: Idle, names: &[String]) -> String {
    match idle {
        Idle::Absent if names.is_empty() => "there is no campaign yet".to_owned(),
        Idle::Absent => format!("there is no campaign named {} yet", names.join(" or ")),
        Idle::Lent => "every open run is with some worker; one may come back".to_owned(),
        Idle::Paused => "what is left is paused, or still being created".to_owned(),
        Idle::Released => "what is left was given back by this worker a moment ago".to_owned(),
        Idle::Closed => "the server is shutting down, or lends as much as it can".to_owned(),
        Idle::Settled(settled) => format!("{}; more work may come (--until-done would end here)", how(settled)),
    }
}

/// How something settled, in words.
pub(super) fn how(settled: Settled) -> String {
    match (settled.quarantined, settled.cancelled) {
        (0, false) => "all is finished".to_owned(),
        (0, true) => "all is settled, some of it cancelled".to_owned(),
        (quarantined, false) => format!("all is settled, {} quarantined", counted(quarantined, "task")),
        (quarantined, true) => {
            format!("all is settled, {} quarantined and some of it cancelled", counted(quarantined, "task"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::InstanceId;

    fn state(connection: Connection, idle: Option<Idle>) -> State {
        State { connection, idle, held: 0, unanswered: 0 }
    }

    fn connected() -> Connection {
        Connection::Connected { server: "a:1".to_owned(), instance: InstanceId([1; 16]) }
    }

    fn connecting(error: Option<&str>) -> Connection {
        Connection::Connecting { attempt: 1, last_error: error.map(str::to_owned) }
    }

    #[test]
    fn each_reason_is_said_once() {
        let mut announcer = Announcer::default();
        let names = ["x".to_owned()];
        let mut look = |connection, idle, busy| announcer.look(&state(connection, idle), &names, busy);
        assert_eq!(look(connecting(None), None, false), None);
        assert_eq!(look(connected(), None, false), None);
        let absent = look(connected(), Some(Idle::Absent), false).unwrap();
        assert_eq!(absent, "waiting: there is no campaign named x yet");
        assert_eq!(look(connected(), Some(Idle::Absent), false), None);
        assert_eq!(look(connected(), Some(Idle::Lent), true), None, "a busy worker does not wait");
        assert!(look(connected(), Some(Idle::Lent), false).is_some());
        assert_eq!(look(connected(), None, false), None);
        assert_eq!(look(connected(), Some(Idle::Lent), false), None, "the same again after some work");
    }

    #[test]
    fn an_outage_is_said_once_and_its_end() {
        let mut announcer = Announcer::default();
        let mut look = |connection, idle, busy| announcer.look(&state(connection, idle), &[], busy);
        assert!(look(connecting(Some("refused")), None, true).unwrap().contains("refused"));
        assert_eq!(look(connecting(Some("refused")), None, true), None);
        assert_eq!(look(connected(), None, true).unwrap(), "connected to a:1");
        assert_eq!(look(connected(), None, true), None);
    }
}
