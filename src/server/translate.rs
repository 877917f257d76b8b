//! Turns what a native peer says into commands, and what the coordinator puts out into messages.
//!
//! Pure and total: whatever was decoded has a command, and every output has a message. Types that the rest of the crate
//! shares are converted in [`crate::protocol::convert`]; this file knows those that only a server has. Keys are handed
//! in, because reading them is not pure. Tested in this file.

use crate::coordinator::command::{CloseReason, Command, ControlAnswer, ControlError, ControlRequest, Hello};
use crate::limits;
use crate::protocol::messages::{
    ClientMessage, ServerMessage, WireAnswer, WireClosing, WireControl, WireCount, WireFailure, WireSession,
};
use crate::types::{CampaignId, ConnectionId, CreationId, InstanceId, SessionId, TaskCount, TaskIndex, Want};

/// How a peer introduced itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Introduction {
    /// With a session.
    Session(Hello),
    /// Only to ask and order.
    ControlOnly,
}

/// What a message of a client comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// It introduced itself.
    Introduced(Introduction),
    /// Anything else.
    Command(Command),
}

/// Reads a message that arrived on `connection`.
pub(crate) fn client_message(connection: ConnectionId, message: ClientMessage) -> Said {
    Said::Command(match message {
        ClientMessage::Hello { token: _, session: None } => return Said::Introduced(Introduction::ControlOnly),
        ClientMessage::Hello { token: _, session: Some(session) } => {
            return Said::Introduced(Introduction::Session(hello(session)));
        }
        ClientMessage::Want { leases, runs, campaigns } => {
            Command::Want { connection, want: Want { leases, runs, campaigns } }
        }
        ClientMessage::Requests { first, confirmed, requests } => {
            let requests = requests.into_iter().map(Into::into).collect();
            Command::Requests { connection, first, confirmed, requests }
        }
        ClientMessage::Heartbeat { confirmed } => Command::Heartbeat { connection, confirmed },
        ClientMessage::Goodbye => Command::Goodbye { connection },
        ClientMessage::Control { id, request } => Command::Control { connection, id, request: control(request) },
    })
}

fn hello(session: WireSession) -> Hello {
    let WireSession { session, instance, attempt, confirmed, name } = session;
    Hello { session: SessionId(session), instance: InstanceId(instance), attempt, confirmed, name }
}

fn control(request: WireControl) -> ControlRequest {
    match request {
        WireControl::Create { creation, mut spec } => {
            spec.name = named(spec.name);
            ControlRequest::Create { creation: CreationId(creation), spec: Box::new((*spec).into()) }
        }
        WireControl::AddKeys { creation, from, keys } => {
            ControlRequest::AddKeys { creation: CreationId(creation), from, keys }
        }
        WireControl::Seal { creation } => ControlRequest::Seal { creation: CreationId(creation) },
        WireControl::Status { campaign, from } => {
            ControlRequest::Status { campaign: campaign.map(named), from: CampaignId(from) }
        }
        WireControl::Counts { campaign, from, limit } => {
            ControlRequest::Counts { campaign: named(campaign), from: TaskIndex(from), limit }
        }
        WireControl::Pause { campaign } => ControlRequest::Pause { campaign: named(campaign) },
        WireControl::Resume { campaign } => ControlRequest::Resume { campaign: named(campaign) },
        WireControl::Cancel { campaign } => ControlRequest::Cancel { campaign: named(campaign) },
        WireControl::Requeue { campaign } => ControlRequest::Requeue { campaign: named(campaign) },
        WireControl::Remove { campaign } => ControlRequest::Remove { campaign: named(campaign) },
        WireControl::Fate { session, number } => ControlRequest::Fate { session: SessionId(session), number },
    }
}

/// A campaign's name as a peer gave it. Of one that is too long as much is kept as makes it too long: no campaign has
/// it either way, but all of it would wait in the inbox, and might not fit the answer that quotes it.
fn named(mut name: String) -> String {
    const CHARACTER_BYTES_MAX: usize = 4;
    if name.len() > limits::NAME_BYTES_MAX {
        name.truncate(name.floor_char_boundary(limits::NAME_BYTES_MAX + CHARACTER_BYTES_MAX));
        name.shrink_to_fit();
    }
    name
}

/// An answer to a control request; `keys` are those of the tasks of [`ControlAnswer::Counts`], if they have any, as many
/// as there are tasks. Counts that do not fit one frame are cut, with `next` where they were cut.
pub(crate) fn control_answer(answer: ControlAnswer, keys: Option<Vec<String>>) -> WireAnswer {
    match answer {
        ControlAnswer::Creation { campaign, added, sealed, existed } => {
            WireAnswer::Creation { campaign: campaign.0, added, sealed, existed }
        }
        ControlAnswer::Status { campaigns, next } => WireAnswer::Status {
            campaigns: campaigns.into_iter().map(Into::into).collect(),
            next: next.map(|campaign| campaign.0),
        },
        ControlAnswer::Counts { campaign: _, first, runs, keyed: _, tasks, next } => {
            let (tasks, next) = counts(tasks, keys, next.map(|task| task.0));
            WireAnswer::Counts { first, runs, tasks, next }
        }
        ControlAnswer::Done { tasks } => WireAnswer::Done { tasks },
        ControlAnswer::Fate(fate) => WireAnswer::Fate(fate.into()),
        ControlAnswer::Failed(error) => control_failure(&error),
    }
}

/// The longest an answer's counts may be: a frame less what surrounds them.
const COUNTS_BYTES_MAX: usize = limits::FRAME_BYTES_MAX - 1_024;

fn counts(tasks: Vec<TaskCount>, keys: Option<Vec<String>>, next: Option<u32>) -> (Vec<WireCount>, Option<u32>) {
    let mut keys = keys.map(Vec::into_iter);
    let mut fitting = Vec::with_capacity(tasks.len());
    let mut bytes = 0;
    for task in tasks {
        let key = keys.as_mut().and_then(Iterator::next);
        // Numbers take at most 5 bytes each on the wire, and there are fewer than 12 of them.
        bytes += 60 + task.last_error.len() + key.as_ref().map_or(0, String::len);
        if bytes > COUNTS_BYTES_MAX {
            return (fitting, Some(task.index.0));
        }
        fitting.push(WireCount::new(task, key));
    }
    (fitting, next)
}

fn control_failure(error: &ControlError) -> WireAnswer {
    let (code, index) = match error {
        ControlError::NotFound { .. } => (WireFailure::NotFound, 0),
        ControlError::Exists { .. } => (WireFailure::Exists, 0),
        ControlError::State { .. } => (WireFailure::State, 0),
        ControlError::Spec(_) => (WireFailure::Spec, 0),
        ControlError::CreationUnknown => (WireFailure::CreationUnknown, 0),
        ControlError::KeysOutOfOrder { expected } => (WireFailure::KeysOutOfOrder, *expected),
        ControlError::KeyBad { index } => (WireFailure::KeyBad, *index),
        ControlError::KeyTwice { index } => (WireFailure::KeyTwice, *index),
        ControlError::KeysMissing { .. } => (WireFailure::KeysMissing, 0),
        ControlError::Full { .. } => (WireFailure::Full, 0),
        ControlError::Draining => (WireFailure::Draining, 0),
    };
    WireAnswer::Failed { code, text: error.to_string(), index }
}

/// The last message of a connection that the coordinator wants closed.
pub(crate) fn closing(reason: CloseReason) -> ServerMessage {
    let code = match reason {
        CloseReason::Goodbye => WireClosing::Goodbye,
        CloseReason::Superseded => WireClosing::Superseded,
        CloseReason::Gap | CloseReason::OutOfPlace | CloseReason::OriginTask | CloseReason::OriginUnits => {
            WireClosing::Protocol
        }
        CloseReason::SessionsFull | CloseReason::LeasesFull => WireClosing::Busy,
        CloseReason::RefusalsUnread | CloseReason::Late => WireClosing::Reconnect,
    };
    ServerMessage::Closing { code, text: close_text(reason).to_owned() }
}

/// Why the coordinator wants a connection closed, for a person.
pub(crate) fn close_text(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Goodbye => "goodbye",
        CloseReason::Superseded => "the session has a newer connection",
        CloseReason::Gap => "a request number was skipped: requests are numbered 1, 2, 3 and so on, without gaps",
        CloseReason::RefusalsUnread => {
            "too many refusals wait to be confirmed as read: reconnect, confirm them and go on"
        }
        CloseReason::OutOfPlace => "a session is introduced once on a connection, before anything else is said",
        CloseReason::SessionsFull => "the server remembers as many sessions as it can: try again later",
        CloseReason::Late => {
            "a connection opened later has given an order about this campaign, or had this session: ask again over a new one"
        }
        CloseReason::LeasesFull => {
            "the server remembers as many leases as it can, and one of this connection had expired"
        }
        CloseReason::OriginTask => "a report named a task that does not exist; nothing of it was counted",
        CloseReason::OriginUnits => {
            const { assert!(limits::UNITS_MAX == 1_000, "the text below says so") };
            "a report named units below 1 or above 1,000; nothing of it was counted"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::codec;
    use crate::types::TaskState;

    fn task(index: u32, last_error: &str) -> TaskCount {
        let (done, state, last_error) = (u32::MAX, TaskState::Open, last_error.to_owned());
        TaskCount {
            index: TaskIndex(index),
            done,
            extra: done,
            leased: done,
            state,
            errors: done,
            losses: done,
            last_error,
        }
    }

    fn answer(tasks: Vec<TaskCount>) -> ControlAnswer {
        let (campaign, next) = (CampaignId(1), Some(TaskIndex(u32::MAX)));
        ControlAnswer::Counts { campaign, first: u64::MAX, runs: u32::MAX, keyed: true, tasks, next }
    }

    #[test]
    fn counts_that_do_not_fit_a_frame_are_cut() {
        let count = limits::COUNTS_PER_ANSWER_MAX;
        let error = "e".repeat(limits::ERROR_BYTES_MAX);
        let tasks: Vec<_> = (0..count).map(|index| task(u32::MAX - count + index, &error)).collect();
        let first = tasks[0].index.0;
        let keys = vec!["k".repeat(limits::KEY_BYTES_MAX); count as usize];
        let answer = control_answer(answer(tasks), Some(keys));
        let WireAnswer::Counts { tasks, next, .. } = &answer else { panic!("{answer:?}") };
        assert!(tasks.len() > 700, "as many as fit: {}", tasks.len());
        assert_eq!(*next, Some(first + tasks.len() as u32));
        let mut frame = Vec::new();
        codec::encode_server(&ServerMessage::Control { id: u32::MAX, answer }, &mut frame).unwrap();
        assert!(frame.len() <= limits::FRAME_BYTES_MAX + 4);
    }

    #[test]
    fn counts_that_fit_are_left_alone() {
        let keys = vec!["a".to_owned(), "b".to_owned()];
        let answer = control_answer(answer(vec![task(0, ""), task(1, "no")]), Some(keys));
        let WireAnswer::Counts { tasks, next, .. } = answer else { panic!("{answer:?}") };
        let keys: Vec<_> = tasks.into_iter().map(|task| (task.index, task.key, task.last_error)).collect();
        assert_eq!(keys, [(0, Some("a".to_owned()), String::new()), (1, Some("b".to_owned()), "no".to_owned())]);
        assert_eq!(next, Some(u32::MAX));
    }

    #[test]
    fn failures_keep_their_index_and_say_why() {
        let answer = control_answer(ControlAnswer::Failed(ControlError::KeyTwice { index: 7 }), None);
        let WireAnswer::Failed { code, text, index } = answer else { panic!("{answer:?}") };
        assert_eq!((code, index), (WireFailure::KeyTwice, 7));
        assert!(text.contains("key 7"), "{text}");
    }

    #[test]
    fn names_that_are_too_long_stay_too_long() {
        for character in ["x", "ä", "€", "😀"] {
            for prefix in ["", "-", "--", "---"] {
                let name = named(prefix.to_owned() + &character.repeat(1_000));
                assert!((limits::NAME_BYTES_MAX + 1..=limits::NAME_BYTES_MAX + 4).contains(&name.len()), "{name}");
            }
        }
        let longest = "x".repeat(limits::NAME_BYTES_MAX);
        assert_eq!(named(longest.clone()), longest);
    }

    #[test]
    fn a_hello_introduces() {
        let connection = ConnectionId(1);
        let message = ClientMessage::Hello { token: String::new(), session: None };
        assert_eq!(client_message(connection, message), Said::Introduced(Introduction::ControlOnly));
        let session =
            WireSession { session: [1; 16], instance: [2; 16], attempt: 3, confirmed: 4, name: "host:5".to_owned() };
        let expected = Hello {
            session: SessionId([1; 16]),
            instance: InstanceId([2; 16]),
            attempt: 3,
            confirmed: 4,
            name: "host:5".to_owned(),
        };
        let message = ClientMessage::Hello { token: String::new(), session: Some(session) };
        assert_eq!(client_message(connection, message), Said::Introduced(Introduction::Session(expected)));
    }
}
