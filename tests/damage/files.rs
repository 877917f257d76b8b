//! The files of a real data directory, damaged one at a time: bytes changed, files cut, grown and removed, blocks lost.
//!
//! ```text
//!   parent: history ──▶ pristine directory, list of damages ──▶ child: for each, a copy, damaged ──▶ verify, then start
//!                                              ▲                      │ begin N, end N outcome
//!                                              └── again from N + 1 ◀─┴─ died, or silent for too long
//! ```
//!
//! The child may use [`MEMORY_BYTES_MAX`] of memory; a panic that it does not catch, a death and a silence of [`PATIENCE`] are
//! outcomes, and wrong ones.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use tenfold::store::{OpenError, dump, open, verify_state};
use tenfold::types::Tick;

use crate::history::{INSTANCE, options, play};
use crate::outcome::{Outcome, Table};
use crate::records::digests_of_all_states;

/// The first word of the child's arguments.
pub(crate) const LOOK: &str = "look";

/// The address space of the child, in bytes: a length that was read from damaged bytes must not be believed.
const MEMORY_BYTES_MAX: u64 = 1 << 30;

/// Only what hangs is silent for so long.
const PATIENCE: Duration = Duration::from_mins(2);

/// Places of the database's file whose bytes are changed when everything is asked for.
const PLACES: usize = 2_000;

/// One damage to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Damage {
    /// These bits of the byte are flipped.
    Flip { at: usize, bits: u8 },
    /// The file ends here.
    Cut { length: usize },
    /// The file ends here, and `acked` is gone: what a power cut may leave of a disk that confirms syncs and does not do them.
    CutUnwitnessed { length: usize },
    /// So many bytes more, all the same.
    Grow { bytes: usize, byte: u8 },
    /// So many bytes are zeros.
    Zero { at: usize, bytes: usize },
    /// The file is gone.
    Remove,
}

impl Damage {
    fn name(&self) -> &'static str {
        match self {
            Self::Flip { .. } => "changed byte",
            Self::Cut { .. } => "cut",
            Self::CutUnwitnessed { .. } => "cut, and acked gone",
            Self::Grow { .. } => "grown",
            Self::Zero { .. } => "zeroed",
            Self::Remove => "removed",
        }
    }

    /// As one line of the list for the child, and back.
    fn to_line(&self, file: &str) -> String {
        let (word, first, second) = match *self {
            Self::Flip { at, bits } => ("flip", at, usize::from(bits)),
            Self::Cut { length } => ("cut", length, 0),
            Self::CutUnwitnessed { length } => ("cut-unwitnessed", length, 0),
            Self::Grow { bytes, byte } => ("grow", bytes, usize::from(byte)),
            Self::Zero { at, bytes } => ("zero", at, bytes),
            Self::Remove => ("remove", 0, 0),
        };
        format!("{word} {first} {second} {file}")
    }

    fn from_line(line: &str) -> (Self, String) {
        let words: Vec<&str> = line.split(' ').collect();
        let (first, second): (usize, usize) = (words[1].parse().unwrap(), words[2].parse().unwrap());
        let damage = match words[0] {
            "flip" => Self::Flip { at: first, bits: second as u8 },
            "cut" => Self::Cut { length: first },
            "cut-unwitnessed" => Self::CutUnwitnessed { length: first },
            "grow" => Self::Grow { bytes: first, byte: second as u8 },
            "zero" => Self::Zero { at: first, bytes: second },
            "remove" => Self::Remove,
            other => panic!("no damage is called {other}"),
        };
        (damage, words[3].to_owned())
    }

    /// Does it to a file's bytes; `None` if the file is gone.
    fn apply(&self, mut bytes: Vec<u8>) -> Option<Vec<u8>> {
        match *self {
            Self::Flip { at, bits } => bytes[at] ^= bits,
            Self::Cut { length } | Self::CutUnwitnessed { length } => bytes.truncate(length),
            Self::Grow { bytes: more, byte } => bytes.resize(bytes.len() + more, byte),
            Self::Zero { at, bytes: count } => bytes.iter_mut().skip(at).take(count).for_each(|byte| *byte = 0),
            Self::Remove => return None,
        }
        Some(bytes)
    }
}

/// A plain generator of numbers (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }
}

/// The files of a directory, as paths within it.
fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// What is done to a directory: all of it, or a sample.
fn damages(root: &Path, whole: bool, chance: &mut Chance) -> Vec<(Damage, String)> {
    let mut all = Vec::new();
    for file in files(root) {
        let bytes = fs::read(root.join(&file)).unwrap();
        let length = bytes.len();
        let mut of_file = vec![Damage::Remove];
        of_file.extend([1, 36, 4_096, 524_288].map(|bytes| Damage::Grow { bytes, byte: 0 }));
        of_file.extend([1, 36, 4_096, 524_288].map(|bytes| Damage::Grow { bytes, byte: 0xa5 }));
        if file == "db/db" {
            // Most places where something is, the others anywhere.
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            for number in 0..PLACES {
                let at = chance.below(if number % 4 == 0 { length } else { used });
                of_file.push(Damage::Flip { at, bits: 1 << (number % 8) });
            }
            for number in 0..PLACES / 4 {
                let bytes = [16, 512, 4_096, 65_536][number % 4];
                of_file.push(Damage::Zero { at: chance.below(used) / bytes * bytes, bytes });
            }
            for _ in 0..PLACES / 10 {
                of_file.push(Damage::Cut { length: chance.below(used) });
                of_file.push(Damage::CutUnwitnessed { length: chance.below(used) });
            }
            of_file.extend([0, 1, 4_096, used - 1, used, length - 1].map(|length| Damage::Cut { length }));
        } else {
            for at in 0..length {
                of_file.extend([1 << (at % 8), 0xff].map(|bits| Damage::Flip { at, bits }));
            }
            of_file.extend((0..length).step_by(length / 64 + 1).map(|length| Damage::Cut { length }));
        }
        // A sample: a few of every kind.
        let mut seen = std::collections::BTreeMap::new();
        let step = |damage: &Damage| match damage {
            Damage::Remove => 1,
            Damage::Flip { .. } => 97,
            Damage::Cut { .. } | Damage::CutUnwitnessed { .. } | Damage::Grow { .. } => 29,
            Damage::Zero { .. } => 50,
        };
        of_file.retain(|damage| {
            let number: &mut usize = seen.entry(damage.name()).or_default();
            *number += 1;
            whole || (*number - 1).is_multiple_of(step(damage))
        });
        all.extend(of_file.into_iter().map(|damage| (damage, file.clone())));
    }
    all
}

pub(crate) fn damaged_files_are_noticed(whole: bool) {
    let seed: u64 = std::env::var("TENFOLD_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    eprintln!(
        "again with: TENFOLD_SEED={seed} cargo {}",
        if whole { "damage files" } else { "test --test damage files" }
    );
    let root = in_memory();
    let pristine = root.path().join("pristine");
    play(|| open(&pristine, "a test", INSTANCE, options(), Tick(0)).unwrap(), || {});
    let damages = damages(&pristine, whole, &mut Chance(seed));
    let list: String = damages.iter().map(|(damage, file)| damage.to_line(file) + "\n").collect();
    fs::write(root.path().join("list"), list).unwrap();
    fs::write(root.path().join("states"), Vec::from_iter(digests_of_all_states()).join("\n")).unwrap();

    let mut table = Table::default();
    let mut next = 0;
    while next < damages.len() {
        next = watch(root.path(), next, &damages, &mut table);
    }
    table.finish("damaged files");
    // How many changed bytes matter depends on how much of the database's log is still in use, which differs from run to run.
    assert!(table.count("db/db cut", "named") > 0, "no shortened database was noticed");
}

/// A temporary directory in memory where there is such a place: every look syncs many times, and no power is cut here.
fn in_memory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).unwrap()
}

/// Lets a child look from a number on; says where the next must go on.
fn watch(root: &Path, from: usize, damages: &[(Damage, String)], table: &mut Table) -> usize {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([LOOK, root.to_str().unwrap(), &from.to_string()])
        .env("RUST_BACKTRACE", "0")
        // Where verifications put their copies.
        .env("TMPDIR", root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = lines_of(child.stdout.take().unwrap());
    let mut at = from;
    let how = loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                let (outcome, what) = line.split_once(' ').unwrap_or((&line, ""));
                let outcome = match outcome {
                    "same" => Outcome::Same,
                    "named" => Outcome::Named,
                    "unnoticed" => Outcome::Unnoticed("the end is lost, and acked with it"),
                    _ => Outcome::Wrong(what.to_owned()),
                };
                add(table, &damages[at], outcome);
                at += 1;
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                child.kill().unwrap();
                break "it hung".to_owned();
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break "it died".to_owned(),
        }
    };
    let status = child.wait().unwrap();
    if at < damages.len() {
        add(table, &damages[at], Outcome::Wrong(format!("{how}: {status}")));
        at += 1;
    }
    at
}

fn add(table: &mut Table, (damage, file): &(Damage, String), outcome: Outcome) {
    // Snapshots have numbers in their names.
    let file = file.split(".0").next().unwrap_or(file);
    table.add(&format!("{file} {}", damage.name()), &format!("{damage:?}"), outcome);
}

fn lines_of(output: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The child: one line for each damage.
pub(crate) fn child(words: &[String]) -> ExitCode {
    let limit = Some(MEMORY_BYTES_MAX);
    setrlimit(Resource::As, Rlimit { current: limit, maximum: limit }).unwrap();
    let root = PathBuf::from(&words[0]);
    let from: usize = words[1].parse().unwrap();
    let list = fs::read_to_string(root.join("list")).unwrap();
    let (pristine, copy) = (root.join("pristine"), root.join("copy"));
    // The ground truth, of a copy: looking must not change it.
    renew(&pristine, &copy);
    let truth = look(&copy).unwrap().0;
    let states = fs::read_to_string(root.join("states")).unwrap();
    assert!(states.contains(&dump::digest(truth.iter().cloned())), "the last state is one of all");
    for line in list.lines().skip(from) {
        let (damage, file) = Damage::from_line(line);
        renew(&pristine, &copy);
        match damage.apply(fs::read(copy.join(&file)).unwrap()) {
            Some(bytes) => fs::write(copy.join(&file), bytes).unwrap(),
            None => fs::remove_file(copy.join(&file)).unwrap(),
        }
        let outcome = if let Damage::CutUnwitnessed { .. } = damage {
            fs::remove_file(copy.join("acked")).unwrap();
            unwitnessed(&copy, &truth, &states)
        } else {
            outcome(&copy, &truth)
        };
        // Nobody reads any more: the parent is gone.
        if writeln!(std::io::stdout(), "{}", outcome.replace('\n', " ")).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn renew(pristine: &Path, copy: &Path) {
    if copy.exists() {
        fs::remove_dir_all(copy).unwrap();
    }
    fs::create_dir_all(copy.join("db/blobs")).unwrap();
    for file in files(pristine) {
        fs::copy(pristine.join(&file), copy.join(&file)).unwrap();
    }
}

/// What a verification of the directory reads, and what it could not check; or why it refused.
fn look(path: &Path) -> Result<(Vec<String>, Vec<String>), OpenError> {
    verify_state(path).map(|(report, state)| (state.lines().collect(), report.unchecked))
}

/// What a server would start from; texts are no part of it.
fn start(path: &Path) -> Result<Vec<String>, OpenError> {
    let opened = open(path, "a test", INSTANCE, options(), Tick(0))?;
    Ok(dump::lines(opened.coordinator.rows(), &dump::Keys::new()).collect())
}

/// A word for the parent, and what was wrong.
fn outcome(path: &Path, truth: &[String]) -> String {
    let Ok(looked) = catch_unwind(AssertUnwindSafe(|| look(path))) else {
        return "wrong a panic escaped from a verification".into();
    };
    let Ok(started) = catch_unwind(AssertUnwindSafe(|| start(path))) else {
        return "wrong a panic escaped from a start".into();
    };
    // Whoever starts servers tries again, and opening a database writes: what was refused once must not pass then.
    let started = match started {
        Ok(lines) => Ok(lines),
        Err(first) => match catch_unwind(AssertUnwindSafe(|| start(path))) {
            Ok(Ok(_)) => return format!("wrong refused at the first start, but not at the second: {first}"),
            Ok(Err(_)) => Err(first),
            Err(_) => return "wrong a panic escaped from a second start".into(),
        },
    };
    let rows = truth.iter().filter(|line| !line.starts_with("keys "));
    let same_start = started.as_ref().is_ok_and(|lines| lines.iter().eq(rows));
    match (&looked, &started) {
        (Ok((lines, _)), Ok(_)) if lines == truth && same_start => "same".into(),
        (Ok((lines, _)), _) if lines != truth => {
            format!("wrong a verification read another state: {}", first_difference(lines, truth))
        }
        (_, Ok(lines)) if !same_start => {
            format!("wrong a start read another state: {}", first_difference(lines, truth))
        }
        (Ok(_), Err(error)) => format!("wrong verified, but the start was refused: {error}"),
        // A damaged text: a verification reads them, a start does not.
        (Err(_), Ok(_) | Err(_)) => "named".into(),
        (Ok(_), Ok(_)) => "wrong nothing fits".into(),
    }
}

/// The same where `acked` is gone: an earlier state is read without a refusal, but never one that was not, and not without a note.
fn unwitnessed(path: &Path, truth: &[String], states: &str) -> String {
    match catch_unwind(AssertUnwindSafe(|| look(path))) {
        Err(_) => "wrong a panic escaped from a verification".into(),
        Ok(Err(_)) => "named".into(),
        Ok(Ok((lines, _))) if lines == truth => "same".into(),
        Ok(Ok((lines, notes))) => {
            let noted = notes.iter().any(|note| note.contains("`acked` is missing"));
            match (states.contains(&dump::digest(lines.iter().cloned())), noted) {
                (true, true) => "unnoticed".into(),
                (true, false) => "wrong an earlier state without a note".into(),
                (false, _) => format!("wrong a state that never was: {}", first_difference(&lines, truth)),
            }
        }
    }
}

fn first_difference(found: &[String], truth: &[String]) -> String {
    let mut text = String::new();
    let differs = found.iter().zip(truth).find(|(found, truth)| found != truth);
    match differs {
        Some((found, truth)) => write!(text, "{found} instead of {truth}").unwrap(),
        None => write!(text, "{} lines instead of {}", found.len(), truth.len()).unwrap(),
    }
    text
}
