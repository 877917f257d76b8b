//! What the real recovery makes of a data directory: opened by a process of its own, which writes down all durable rows.
//!
//! ```text
//!   Opener ── "DIRECTORY" ──▶ `power open`: tenfold::store::open ──▶ rows as lines, "end" ──▶ View
//! ```
//!
//! A process of its own, because an opening that hangs can only be ended from outside, and one that panics must not take the
//! sweep along. It is kept for many directories, and replaced after trouble.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use tenfold::coordinator::Options;
use tenfold::coordinator::rows::{LeaseState, Phase, Row};
use tenfold::types::{InstanceId, LeaseId, SessionId, TaskIndex, Tasks, Tick};

use crate::fleet::key;

/// First word of this program when it opens directories.
pub(crate) const OPEN: &str = "open";

/// Only an opening that hangs takes so long.
const PATIENCE: Duration = Duration::from_mins(1);

/// The durable state that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) instance: String,
    /// It was made anew.
    pub(crate) fresh: bool,
    /// How often it was opened, this time included.
    pub(crate) starts: u64,
    /// The last commit was there in part, and was dropped.
    pub(crate) cut_short: bool,
    /// By id: name, phase, and whether its keys are those that were given.
    pub(crate) campaigns: BTreeMap<u32, (String, String, bool)>,
    /// By campaign and task: done and extra.
    pub(crate) tasks: BTreeMap<(u32, u32), (u64, u64)>,
    pub(crate) leases: BTreeMap<u64, LeaseLine>,
    pub(crate) sessions: BTreeMap<SessionId, SessionLine>,
    /// By campaign and task: failed runs.
    pub(crate) errors: BTreeMap<(u32, u32), u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeaseLine {
    pub(crate) session: u32,
    pub(crate) campaign: u32,
    pub(crate) task: u32,
    pub(crate) first: u32,
    pub(crate) runs: u32,
    pub(crate) is_live: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionLine {
    pub(crate) slot: u32,
    pub(crate) processed: u64,
    pub(crate) confirmed: u64,
    /// First and last numbers.
    pub(crate) refusals: Vec<(u64, u64)>,
}

impl SessionLine {
    pub(crate) fn refused(&self, number: u64) -> bool {
        self.refusals.iter().any(|(from, to)| (*from..=*to).contains(&number))
    }
}

/// Why there is no view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The product said so.
    Refused(String),
    /// The process died.
    Died(String),
    /// It took longer than anything should.
    Hung,
}

/// A process that opens directories, one after the other.
pub(crate) struct Opener {
    process: Option<Process>,
}

struct Process {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Opener {
    pub(crate) fn new() -> Self {
        Self { process: None }
    }

    /// What recovery finds in a data directory. It is left closed, and has been written to.
    pub(crate) fn open(&mut self, directory: &Path) -> Result<View, Trouble> {
        let process = self.process.get_or_insert_with(Process::start);
        let result = process.open(directory);
        if !matches!(result, Ok(_) | Err(Trouble::Refused(_))) {
            self.end();
        }
        result
    }

    /// Ends the process, also one that can only be killed.
    pub(crate) fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        self.end();
    }
}

impl Process {
    fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child =
            command.arg(OPEN).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, input, lines }
    }

    fn open(&mut self, directory: &Path) -> Result<View, Trouble> {
        let died = |child: &mut Child| Trouble::Died(child.wait().map_or_else(|e| e.to_string(), |s| s.to_string()));
        if writeln!(self.input, "{}", directory.display()).is_err() {
            return Err(died(&mut self.child));
        }
        let mut view = View::default();
        loop {
            let line = match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => return Err(Trouble::Hung),
                Err(RecvTimeoutError::Disconnected) => return Err(died(&mut self.child)),
            };
            if line == "end" {
                return Ok(view);
            }
            if let Some(why) = line.strip_prefix("refused ") {
                return Err(Trouble::Refused(why.to_owned()));
            }
            view.read(&line).unwrap_or_else(|| panic!("the opener does not write {line:?}"));
        }
    }
}

impl View {
    /// Takes one line of what the process wrote.
    fn read(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |index: usize| words.get(index)?.parse::<u64>().ok();
        let small = |index: usize| words.get(index)?.parse::<u32>().ok();
        let flag = |index: usize| words.get(index)?.parse::<bool>().ok();
        match words[0] {
            "opened" => {
                (*words.get(1)?).clone_into(&mut self.instance);
                self.fresh = flag(2)?;
                self.starts = number(3)?;
                self.cut_short = flag(4)?;
            }
            "campaign" => {
                let row = ((*words.get(2)?).to_owned(), (*words.get(3)?).to_owned(), flag(4)?);
                self.campaigns.insert(small(1)?, row);
            }
            "task" => {
                self.tasks.insert((small(1)?, small(2)?), (number(3)?, number(4)?));
            }
            "lease" => {
                let (session, campaign, task) = (small(2)?, small(3)?, small(4)?);
                let line = LeaseLine { session, campaign, task, first: small(5)?, runs: small(6)?, is_live: flag(7)? };
                self.leases.insert(number(1)?, line);
            }
            "session" => {
                let refusals = words[5..].chunks(2).map(|pair| Some((pair[0].parse().ok()?, pair[1].parse().ok()?)));
                let refusals = refusals.collect::<Option<_>>()?;
                let line = SessionLine { slot: small(2)?, processed: number(3)?, confirmed: number(4)?, refusals };
                self.sessions.insert(SessionId::parse(words[1])?, line);
            }
            "trouble" => {
                self.errors.insert((small(1)?, small(2)?), number(3)?);
            }
            _ => return None,
        }
        Some(())
    }

    /// The id of a campaign that has a name.
    pub(crate) fn campaign(&self, name: &str) -> Option<u32> {
        self.campaigns.iter().find(|(_, (found, ..))| found == name).map(|(id, _)| *id)
    }
}

/// The process side of [`Opener`]: a directory a line, its rows as lines.
#[allow(clippy::print_stdout, reason = "it is a pipe to the test")]
pub(crate) fn main() {
    for directory in std::io::stdin().lines().map_while(Result::ok) {
        match rows(&PathBuf::from(directory)) {
            Ok(lines) => lines.iter().for_each(|line| println!("{line}")),
            Err(why) => println!("refused {}", why.replace('\n', " ")),
        }
    }
}

fn rows(directory: &Path) -> Result<Vec<String>, String> {
    let fresh = InstanceId([9; 16]);
    let opened = tenfold::store::open(directory, "a test", fresh, Options::default(), Tick::default());
    let opened = opened.map_err(|error| error.to_string())?;
    opened.coordinator.check().map_err(|error| format!("the rows contradict each other: {error}"))?;
    let recovery = &opened.recovery;
    let cut_short = recovery.notes.iter().any(|note| note.contains("was cut short"));
    let mut lines = vec![format!("opened {} {} {} {cut_short}", opened.instance, recovery.fresh, recovery.starts)];
    for row in opened.coordinator.durable_view().into_values() {
        match row {
            Row::Campaign(id, row) => {
                let row = *row;
                let name = row.spec.name;
                let keys_fit = match row.spec.tasks {
                    Tasks::Keys { count } if row.phase == Phase::Running => {
                        let keys = opened.texts.keys(id, TaskIndex(0), count).map_err(|error| error.to_string())?;
                        keys.iter().map(String::as_str).eq((0..count)
                            .map(key)
                            .collect::<Vec<_>>()
                            .iter()
                            .map(String::as_str))
                    }
                    Tasks::Keys { .. } | Tasks::Range { .. } => true,
                };
                lines.push(format!("campaign {} {name} {:?} {keys_fit}", id.0, row.phase));
            }
            Row::Task(campaign, task, row) => {
                lines.push(format!("task {} {} {} {}", campaign.0, task.0, row.done, row.extra));
            }
            Row::Lease(slot, row) => {
                let Some(lease) = row.lease else { continue };
                let id = LeaseId { slot, generation: row.generation }.to_u64();
                let live = lease.state == LeaseState::Live;
                let about = format!("{} {} {} {}", lease.campaign.0, lease.task.0, lease.first_run, lease.runs);
                lines.push(format!("lease {id} {} {about} {live}", lease.session));
            }
            Row::Session(slot, row) => {
                let mut line = format!("session {} {slot} {} {}", row.id, row.processed, row.confirmed);
                for stretch in &row.refusals {
                    let _ = write!(line, " {} {}", stretch.from, stretch.to);
                }
                lines.push(line);
            }
            Row::Trouble(_, row) => lines.push(format!("trouble {} {} {}", row.campaign.0, row.task.0, row.errors)),
            Row::Globals(_) | Row::SessionName(..) | Row::Returned(..) => {}
        }
    }
    lines.push("end".to_owned());
    Ok(lines)
}
