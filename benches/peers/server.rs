//! What all servers have in common, and who there is.

use std::path::Path;
use std::process::Command;

use crate::figures::Shape;
use crate::load;
use crate::native::Native;
use crate::process::{Missing, Process};
use crate::{beanstalkd, postgresql, redis, tenfold};

/// How long something is lent, where the server is told so.
pub(crate) const LEASE_MS: u32 = 60_000;

/// How often a task is to be done, where the server counts.
pub(crate) const RUNS: u32 = 100;

/// The load goes on for so many seconds before it is measured, and may take its time to end.
pub(crate) const SECONDS_MORE: f64 = 1.5;

/// A running server; it ends when it is dropped.
pub(crate) trait Server {
    fn process(&self) -> &Process;

    /// What it says of itself.
    fn version(&self) -> String;

    /// Makes sure that there is enough to do for a load of so many seconds, and that nothing is left of the one before.
    fn prepare(&mut self, seconds: f64);
}

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Tenfold,
    Redis,
    Streams,
    Beanstalkd,
    Postgresql,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::Tenfold, Self::Redis, Self::Streams, Self::Beanstalkd, Self::Postgresql];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Tenfold => "tenfold",
            Self::Redis => "redis",
            Self::Streams => "redis-streams",
            Self::Beanstalkd => "beanstalkd",
            Self::Postgresql => "postgresql",
        }
    }

    pub(crate) fn parse(word: &str) -> Self {
        Self::ALL.into_iter().find(|kind| kind.word() == word).unwrap_or_else(|| panic!("there is no peer {word}"))
    }

    /// Starts it in an empty directory.
    pub(crate) fn start(self, directory: &Path) -> Result<Box<dyn Server>, Missing> {
        Ok(match self {
            Self::Tenfold => Box::new(tenfold::Tenfold::start(directory)),
            Self::Redis => Box::new(redis::Redis::start(directory, redis::Way::Script)?),
            Self::Streams => Box::new(redis::Redis::start(directory, redis::Way::Streams)?),
            Self::Beanstalkd => Box::new(beanstalkd::Beanstalkd::start(directory)?),
            Self::Postgresql => Box::new(postgresql::Postgresql::start(directory)?),
        })
    }

    /// The process of the clients.
    pub(crate) fn load_command(self, address: &str, shape: Shape, seconds: f64) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["load", self.word(), address]);
        command.args([shape.clients.to_string(), shape.batch.to_string(), seconds.to_string()]);
        command
    }

    /// What that process does.
    pub(crate) fn load(self, address: &str, clients: u32, batch: u32, seconds: f64) {
        match self {
            Self::Tenfold => load::run(address, clients, seconds, |number| Native::new(number, batch)),
            Self::Redis => {
                let script = redis::load_script(address);
                load::run(address, clients, seconds, |_| redis::Scripted::new(&script, batch));
            }
            Self::Streams => load::run(address, clients, seconds, |number| redis::Streaming::new(number, batch)),
            Self::Beanstalkd => load::run(address, clients, seconds, |_| beanstalkd::Worker::new(batch)),
            Self::Postgresql => {
                load::run(address, clients, seconds, |number| postgresql::Worker::new(number, clients, batch));
            }
        }
    }
}
