//! Which parts run, with which seed, and whether the machine can run them at all.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::mount::{Entry, Mount};
use crate::server;
use crate::sweep::{self, Sweep};
use crate::table::Table;
use crate::view;
use crate::{faults, live};

/// Cuts of a sweep, unless `TENFOLD_CUTS` says otherwise.
const CUTS: u64 = 3000;

/// Of them, cuts of recoveries: one in so many.
const TWICE: usize = 4;

/// Cuts of a sweep for each trial of a running server, and for each fault.
const CUTS_A_TRIAL: u64 = 300;
const CUTS_A_FAULT: u64 = 100;

/// Where images of failures are kept.
const KEPT: &str = "tenfold-power-failures";

/// A mounted disk and places beside it, all removed at the end.
pub(crate) struct Rig {
    // Before the directory, so that it is unmounted when that is removed.
    pub(crate) mount: Mount,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) kept: PathBuf,
    pub(crate) seed: u64,
}

pub(crate) fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some(server::BECOME) => server::become_program(&words[1..]),
        Some(view::OPEN) => {
            view::main();
            ExitCode::SUCCESS
        }
        Some("image") => image(Path::new(&words[1])),
        part => run(part, words.get(1).map(|word| word.parse().unwrap())),
    }
}

/// Says what recovery makes of a copy of a data directory.
fn image(directory: &Path) -> ExitCode {
    let scratch = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp").arg("-r").arg(directory).arg(scratch.path().join("data")).status();
    assert!(copied.unwrap().success(), "cannot copy {}", directory.display());
    match view::Opener::new().open(&scratch.path().join("data")) {
        Ok(view) => eprintln!("{view:#?}"),
        Err(trouble) => {
            eprintln!("{trouble:?}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run(part: Option<&str>, only: Option<u64>) -> ExitCode {
    if let Err(why) = fs::File::options().read(true).write(true).open("/dev/fuse") {
        eprintln!("power: /dev/fuse cannot be opened ({why}); this needs a kernel with FUSE, and the right to mount");
        return ExitCode::FAILURE;
    }
    let seed = variable("TENFOLD_SEED").unwrap_or_else(|| {
        let mut bytes = [0; 4];
        getrandom::fill(&mut bytes).unwrap();
        u64::from(u32::from_le_bytes(bytes))
    });
    let cuts = variable("TENFOLD_CUTS").unwrap_or(CUTS);
    eprintln!("power: the same dice again with TENFOLD_SEED={seed} TENFOLD_CUTS={cuts} cargo power");
    let rig = match Rig::new(seed) {
        Ok(rig) => rig,
        Err(why) => {
            eprintln!("power: cannot mount a file system: {why}; this needs the right to mount");
            return ExitCode::FAILURE;
        }
    };
    let all = part.is_none();
    let mut good = true;
    if all || part == Some("sweep") {
        good &= rig.sweep(cuts as usize);
    }
    if all || part == Some("live") {
        good &= rig.live(only.map_or(0..cuts.div_ceil(CUTS_A_TRIAL), |only| only..only + 1));
    }
    if all || part == Some("faults") {
        good &= rig.faults(only.map_or(0..cuts.div_ceil(CUTS_A_FAULT), |only| only..only + 1));
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

impl Rig {
    fn new(seed: u64) -> std::io::Result<Self> {
        let memory = Path::new("/dev/shm");
        let builder = tempfile::Builder::new().prefix("tenfold-power-").to_owned();
        let directory = if memory.is_dir() { builder.tempdir_in(memory)? } else { builder.tempdir()? };
        let point = directory.path().join("mount");
        fs::create_dir(&point)?;
        let mount = Mount::new(&point)?;
        Ok(Self { mount, directory, kept: std::env::temp_dir().join(KEPT), seed })
    }

    fn sweep(&self, cuts: usize) -> bool {
        let log = sweep::record(&self.mount, &self.directory.path().join("files"), self.seed);
        let operations = log.iter().filter(|entry| matches!(entry, Entry::Operation(_))).count();
        eprintln!("power: recorded {operations} operations and {} notes", log.len() - operations);
        let sweep = Sweep { log: &log, seed: self.seed, scratch: self.directory.path(), kept: &self.kept };
        let (blind, seen) = sweep.run_blind();
        eprintln!("power: if syncs of the database did nothing, {seen} of {blind} cuts would be found out");
        let mut table = sweep.run(cuts - cuts / TWICE);
        table.add(sweep.run_twice(&self.mount, cuts / TWICE));
        eprintln!("{table}");
        if seen == 0 {
            eprintln!("power: the rig is blind");
        }
        seen > 0 && table.failures() == 0
    }

    fn live(&self, trials: Range<u64>) -> bool {
        let mut table = Table::default();
        for number in trials {
            let seed = self.seed.wrapping_add(number);
            let (mount, scratch, kept) = (&self.mount, self.directory.path(), self.kept.as_path());
            table.add(live::Trial { mount, scratch, kept, seed }.run());
        }
        eprintln!("{table}");
        table.failures() == 0
    }

    fn faults(&self, trials: Range<u64>) -> bool {
        let mut table = Table::default();
        let trial = faults::Trial { mount: &self.mount, scratch: self.directory.path(), seed: self.seed };
        for number in trials {
            trial.run(number, &mut table);
        }
        eprintln!("{table}");
        table.failures() == 0
    }
}
