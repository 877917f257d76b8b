//! Lets crash tests kill this process at an exact point, or have it stay there: `TENFOLD_FAULT=POINT:KIND[@N]`. For tests
//! only.
//!
//! | part | values |
//! |---|---|
//! | POINT | `before-commit`: nothing of it is durable · `after-commit-before-answer`: all is durable, nothing was sent · `panic`: as `before-commit`, by a panic · `slow-commit`: dies nowhere, but is slow before every such commit |
//! | KIND | `requests`, `refusal`, `release`, `grant`, `create`, `origin`, `goodbye`: what the commit must contain |
//! | N | the N-th such commit of the process, from 1 (the default); of a slow commit: how slow, in milliseconds |
//!
//! The process aborts there, which is a SIGKILL as far as the data directory and the peers can tell. Before, it waits for a
//! moment in which whatever should not have left would reach the peers, and fail their test. Without the variable this is
//! one comparison a commit. Tested in this file, and by the resend tests that use it.

use std::time::Duration;

use crate::coordinator::Command;
use crate::coordinator::command::{ControlRequest, Output};
use crate::types::Request;

/// The variable.
pub(crate) const VARIABLE: &str = "TENFOLD_FAULT";

/// How long to wait before dying. Enough for the sockets; too short for anybody to be missed.
const MOMENT: Duration = Duration::from_millis(50);

/// Where to die, or to linger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// The commands were applied to memory, nothing was written.
    BeforeCommit,
    /// The commit is durable, no output has left.
    AfterCommitBeforeAnswer,
    /// As the first, but by a panic, which must not leave the process behind.
    Panic,
    /// Nowhere; what is not durable yet stays so for longer, so that a kill at a random moment finds it.
    SlowCommit,
}

/// What a commit may contain, as a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kinds(u8);

const NAMES: [(&str, Kinds); 7] = [
    ("requests", Kinds::REQUESTS),
    ("refusal", Kinds::REFUSAL),
    ("release", Kinds::RELEASE),
    ("grant", Kinds::GRANT),
    ("create", Kinds::CREATE),
    ("origin", Kinds::ORIGIN),
    ("goodbye", Kinds::GOODBYE),
];

impl Kinds {
    const REQUESTS: Self = Self(1);
    const REFUSAL: Self = Self(2);
    const RELEASE: Self = Self(4);
    const GRANT: Self = Self(8);
    const CREATE: Self = Self(16);
    const ORIGIN: Self = Self(32);
    const GOODBYE: Self = Self(64);

    /// Adds what a command makes of a commit.
    pub(crate) fn add_command(&mut self, command: &Command) {
        self.0 |= match command {
            Command::Requests { requests, .. } => {
                let releases = requests.iter().any(|request| matches!(request, Request::Release { .. }));
                Self::REQUESTS.0 | if releases { Self::RELEASE.0 } else { 0 }
            }
            Command::Origin { .. } => Self::ORIGIN.0,
            Command::Goodbye { .. } => Self::GOODBYE.0,
            Command::Control { request: ControlRequest::Create { .. } | ControlRequest::Seal { .. }, .. } => {
                Self::CREATE.0
            }
            Command::Control { .. }
            | Command::Boot
            | Command::Advance
            | Command::Drain
            | Command::Hello { .. }
            | Command::Want { .. }
            | Command::Heartbeat { .. }
            | Command::Disconnected { .. } => 0,
        };
    }

    /// Adds what an output makes of a commit.
    pub(crate) fn add_output(&mut self, output: &Output) {
        self.0 |= match output {
            Output::Grants { resent: false, .. } => Self::GRANT.0,
            Output::Answers { refusals, .. } if !refusals.is_empty() => Self::REFUSAL.0,
            Output::Grants { .. }
            | Output::Answers { .. }
            | Output::Welcome { .. }
            | Output::UnknownSession { .. }
            | Output::Lost { .. }
            | Output::Idle(_)
            | Output::Control { .. }
            | Output::Origin(_)
            | Output::Close(_) => 0,
        };
    }
}

/// A fault that waits for its commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    point: Point,
    kind: Kinds,
    left: u64,
}

impl Fault {
    /// What [`VARIABLE`] asks for, if it is set.
    ///
    /// # Errors
    /// It is set to something else; a test that misspells its fault must not pass for want of one.
    pub(crate) fn from_environment() -> Result<Option<Self>, String> {
        match std::env::var(VARIABLE) {
            Ok(text) => Self::parse(&text).map(Some),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => Err(format!("{VARIABLE} is not text")),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{VARIABLE} is POINT:KIND[@N], not {text:?}");
        let (point, rest) = text.split_once(':').ok_or_else(wrong)?;
        let (kind, count) = rest.split_once('@').unwrap_or((rest, "1"));
        let point = match point {
            "before-commit" => Point::BeforeCommit,
            "after-commit-before-answer" => Point::AfterCommitBeforeAnswer,
            "panic" => Point::Panic,
            "slow-commit" => Point::SlowCommit,
            _ => return Err(wrong()),
        };
        let (_, kind) = NAMES.into_iter().find(|(name, _)| *name == kind).ok_or_else(wrong)?;
        let left = count.parse().ok().filter(|&count| count > 0).ok_or_else(wrong)?;
        Ok(Self { point, kind, left })
    }

    /// To be called at each point of each commit, with what the commit contains.
    pub(crate) fn pass(&mut self, point: Point, kinds: Kinds) {
        if self.point == Point::SlowCommit {
            if self.is_slow(point, kinds) {
                std::thread::sleep(Duration::from_millis(self.left));
            }
        } else if self.is_due(point, kinds) {
            tracing::error!("{VARIABLE}: dying here as asked");
            std::thread::sleep(MOMENT);
            assert!(point != Point::Panic, "{VARIABLE} asked for it");
            std::process::abort();
        }
    }

    fn is_slow(&self, point: Point, kinds: Kinds) -> bool {
        point == Point::BeforeCommit && kinds.0 & self.kind.0 != 0
    }

    fn is_due(&mut self, point: Point, kinds: Kinds) -> bool {
        if point != self.point || kinds.0 & self.kind.0 == 0 || self.left == 0 {
            return false;
        }
        self.left -= 1;
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ConnectionId, LeaseId};

    #[test]
    fn faults_are_parsed_or_refused() {
        let expected = Fault { point: Point::AfterCommitBeforeAnswer, kind: Kinds::REQUESTS, left: 3 };
        assert_eq!(Fault::parse("after-commit-before-answer:requests@3"), Ok(expected));
        let expected = Fault { point: Point::BeforeCommit, kind: Kinds::GRANT, left: 1 };
        assert_eq!(Fault::parse("before-commit:grant"), Ok(expected));
        for wrong in ["", "grant", "before-commit:", "before-commit:grants", "before-commit:grant@0", "x:grant@1"] {
            assert!(Fault::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_nth_commit_with_the_kind_is_the_one() {
        let mut fault = Fault::parse("after-commit-before-answer:release@2").unwrap();
        let (mut release, mut origin) = (Kinds::default(), Kinds::default());
        let connection = ConnectionId(1);
        let lease = LeaseId { slot: 0, generation: 1 };
        let requests = vec![Request::Release { lease }];
        release.add_command(&Command::Requests { connection, first: 1, confirmed: 0, requests });
        origin.add_command(&Command::Origin { connection, done: Vec::new() });
        let point = Point::AfterCommitBeforeAnswer;
        assert!(!fault.is_due(point, origin));
        assert!(!fault.is_due(point, release), "the first");
        assert!(!fault.is_due(Point::BeforeCommit, release), "another point");
        assert!(fault.is_due(point, release), "the second");
        assert!(!fault.is_due(point, release), "only once");
        let slow = Fault::parse("slow-commit:release@5").unwrap();
        assert!((0..2).all(|_| slow.is_slow(Point::BeforeCommit, release)), "each of them");
        assert!(!slow.is_slow(Point::BeforeCommit, origin) && !slow.is_slow(point, release));
    }
}
