//! Tests of the state machine: dialogues, random histories against an oracle, damaged rows, contradictions that the check of the
//! books must notice, and the cost of a step.

#![allow(clippy::wildcard_enum_match_arm)]

mod contradictions;
mod cost;
mod damage;
mod dialogues;
mod histories;
mod origin_dialogues;

use std::collections::BTreeMap;

use super::command::{CloseReason, ControlAnswer, ControlRequest, Hello};
use super::rows::{Row, RowKey};
use super::{Change, Command, Coordinator, Options, Output, Restorer, Step};
use crate::types::{
    CampaignSpec, ConnectionId, CreationId, Grant, InstanceId, LeaseId, Order, Outcome, Refusal, Request, SessionId,
    Tasks, Tick, Want,
};

/// The data directory of all tests.
const INSTANCE: InstanceId = InstanceId([7; 16]);

/// A coordinator beside the rows that a store would hold; every step checks that they agree.
struct World {
    coordinator: Coordinator,
    stored: BTreeMap<RowKey, Row>,
    options: Options,
    now: u64,
    /// Checks all after every step; tests of large campaigns turn it off.
    checked: bool,
}

impl World {
    fn new(options: Options) -> Self {
        let coordinator = Restorer::new().finish(options.clone(), INSTANCE, Tick(0)).unwrap();
        let mut world = Self { coordinator, stored: BTreeMap::new(), options, now: 0, checked: true };
        world.apply(Command::Boot);
        world
    }

    /// Applies a command, stores its changes, checks everything, and returns the outputs.
    fn apply(&mut self, command: Command) -> Vec<(u64, Output)> {
        let step = self.coordinator.apply(Tick(self.now), command);
        self.store(&step);
        if self.checked {
            self.check();
        }
        step.outputs.into_iter().map(|(connection, output)| (connection.0, output)).collect()
    }

    /// Lets time pass and whatever is due happen.
    fn pass(&mut self, milliseconds: u64) -> Vec<(u64, Output)> {
        self.now += milliseconds;
        self.settle()
    }

    /// Lets everything happen that is due now.
    fn settle(&mut self) -> Vec<(u64, Output)> {
        let mut outputs = Vec::new();
        while self.coordinator.next_deadline().is_some_and(|due| due <= Tick(self.now)) {
            outputs.extend(self.apply(Command::Advance));
        }
        outputs
    }

    /// Ends the process and starts another from what is stored.
    fn restart(&mut self) {
        self.coordinator = self.restored();
        self.apply(Command::Boot);
        self.settle();
    }

    fn restored(&self) -> Coordinator {
        let mut restorer = Restorer::new();
        for row in self.stored.values() {
            restorer.apply(Change::Put(row.clone())).unwrap();
        }
        restorer.finish(self.options.clone(), INSTANCE, Tick(self.now)).unwrap()
    }

    fn check(&self) {
        self.coordinator.check().unwrap();
        let live = self.coordinator.durable_view();
        assert!(self.coordinator.rows().is_sorted_by_key(|row| row.key()), "rows in order of their keys");
        assert_eq!(live, self.stored, "the changes do not add up to the state");
        let restored = self.restored();
        assert_eq!(restored.durable_view(), live, "what is restored is not what is live");
        let told = |coordinator: &Coordinator| -> Vec<_> {
            let listed = coordinator.campaigns.values().filter(|campaign| !campaign.removing());
            listed.map(super::campaign::Campaign::status).collect()
        };
        assert_eq!(told(&restored), told(&self.coordinator), "nor is what is told of it");
        assert_eq!(restored.summary(), self.coordinator.summary());
    }

    fn store(&mut self, step: &Step) {
        for change in &self.coordinator.changes(&step.changes) {
            match change {
                Change::Put(row) => drop(self.stored.insert(row.key(), row.clone())),
                Change::Remove(key) => drop(self.stored.remove(key)),
                Change::ClearTasks { campaign, first, tasks } => self.stored.retain(|key, _| match key {
                    RowKey::Task(id, task) => id != campaign || task.0 < first.0 || task.0 - first.0 >= *tasks,
                    _ => true,
                }),
            }
        }
    }

    fn hello(&mut self, connection: u64, session: u8, attempt: u64, instance: InstanceId) -> Vec<(u64, Output)> {
        let hello = Hello {
            session: SessionId([session; 16]),
            instance,
            attempt,
            confirmed: 0,
            name: format!("session {session}"),
        };
        self.apply(Command::Hello { connection: ConnectionId(connection), hello })
    }

    fn want(&mut self, connection: u64, leases: u32, runs: u32, campaigns: &[&str]) -> Vec<(u64, Output)> {
        let campaigns = campaigns.iter().map(|name| (*name).to_owned()).collect();
        let want = Want { leases, runs, campaigns };
        self.apply(Command::Want { connection: ConnectionId(connection), want })
    }

    fn requests(&mut self, connection: u64, first: u64, requests: Vec<Request>) -> Vec<(u64, Output)> {
        self.apply(Command::Requests { connection: ConnectionId(connection), first, confirmed: 0, requests })
    }

    fn done(&mut self, connection: u64, number: u64, lease: LeaseId, runs: u32) -> Vec<(u64, Output)> {
        self.requests(connection, number, vec![Request::Report { lease, outcome: Outcome::Done { runs } }])
    }

    fn failed(&mut self, connection: u64, number: u64, lease: LeaseId) -> Vec<(u64, Output)> {
        let outcome = Outcome::Mixed { done: 0, failed: 1, error: "it broke".into() };
        self.requests(connection, number, vec![Request::Report { lease, outcome }])
    }

    fn release(&mut self, connection: u64, number: u64, lease: LeaseId) -> Vec<(u64, Output)> {
        self.requests(connection, number, vec![Request::Release { lease }])
    }

    fn heartbeat(&mut self, connection: u64) -> Vec<(u64, Output)> {
        self.apply(Command::Heartbeat { connection: ConnectionId(connection), confirmed: 0 })
    }

    fn disconnect(&mut self, connection: u64) -> Vec<(u64, Output)> {
        self.apply(Command::Disconnected { connection: ConnectionId(connection) })
    }

    fn origin(&mut self, connection: u64, done: &[(u64, u64)]) -> Vec<(u64, Output)> {
        self.apply(Command::Origin { connection: ConnectionId(connection), done: done.to_vec() })
    }

    /// Asks or orders on a connection of its own and returns the answer.
    fn control(&mut self, request: ControlRequest) -> ControlAnswer {
        let mut outputs = self.apply(Command::Control { connection: ConnectionId(999), id: 5, request });
        outputs.extend(self.settle());
        let mut answers = outputs.into_iter().filter_map(|(connection, output)| match output {
            Output::Control { id: 5, answer } if connection == 999 => Some(answer),
            _ => None,
        });
        let answer = answers.next().expect("an answer");
        assert_eq!(answers.next(), None, "one answer a request");
        answer
    }

    fn create(&mut self, creation: u8, spec: CampaignSpec) {
        let request = ControlRequest::Create { creation: CreationId([creation; 16]), spec: Box::new(spec) };
        let answer = self.control(request);
        assert!(matches!(answer, ControlAnswer::Creation { .. }), "{answer:?}");
    }

    /// (done, extra, leased) of every task.
    fn counts(&mut self, campaign: &str) -> Vec<(u32, u32, u32)> {
        let mut counts = Vec::new();
        let mut from = crate::types::TaskIndex(0);
        loop {
            let request = ControlRequest::Counts { campaign: campaign.into(), from, limit: 1000 };
            let ControlAnswer::Counts { tasks, next, .. } = self.control(request) else { panic!("no counts") };
            counts.extend(tasks.iter().map(|task| (task.done, task.extra, task.leased)));
            match next {
                Some(next) => from = next,
                None => return counts,
            }
        }
    }

    fn status(&mut self, campaign: &str) -> crate::types::CampaignStatus {
        let request = ControlRequest::Status { campaign: Some(campaign.into()), from: crate::types::CampaignId(0) };
        let ControlAnswer::Status { mut campaigns, .. } = self.control(request) else { panic!("no status") };
        campaigns.remove(0)
    }
}

/// A counted campaign of `count` tasks from 0.
fn counted(name: &str, count: u32, runs: u32) -> CampaignSpec {
    CampaignSpec {
        name: name.into(),
        tasks: Tasks::Range { first: 0, count },
        runs,
        seed: None,
        order: Order::Lowest,
        lease_ms: Some(1_000),
        timeout_ms: Some(10_000),
        errors_max: Some(3),
        losses_max: None,
    }
}

/// A numbered one.
fn numbered(name: &str, count: u32, runs: u32) -> CampaignSpec {
    CampaignSpec { seed: Some(42), ..counted(name, count, runs) }
}

/// The grants among outputs to a connection.
fn grants(outputs: &[(u64, Output)], to: u64) -> Vec<Grant> {
    let to_it = outputs.iter().filter(|(connection, _)| *connection == to);
    to_it
        .flat_map(|(_, output)| match output {
            Output::Grants { grants, .. } => grants.clone(),
            _ => Vec::new(),
        })
        .collect()
}

fn closed(outputs: &[(u64, Output)], to: u64) -> Option<CloseReason> {
    outputs.iter().find_map(|(connection, output)| match output {
        Output::Close(reason) if *connection == to => Some(*reason),
        _ => None,
    })
}

/// The last answer among outputs to a connection.
fn answer(outputs: &[(u64, Output)], to: u64) -> Option<(u64, Vec<Refusal>)> {
    outputs.iter().rev().find_map(|(connection, output)| match output {
        Output::Answers { through, refusals } if *connection == to => Some((*through, refusals.clone())),
        _ => None,
    })
}

/// A small generator of pseudo-random numbers (`SplitMix64`, Steele et al., 2014), so that a seed is a history.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
