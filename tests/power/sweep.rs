//! One recorded run, cut at its operations in every mode, each cut recovered and compared with what had been seen.
//!
//! ```text
//!   record: server and clients on the disk ──▶ log of operations and notes
//!   sweep:  beginning of the log ──▶ Disk ──cut──▶ image ──▶ plain directory ──▶ recovery ──▶ judge ◀── Story
//!   twice:  image ──▶ the mounted disk ──▶ recovery, recorded ──▶ cut again ──▶ recovery ──▶ judge
//!   blind:  the same log as if syncs of the database did nothing: must be found out, or the rig sees nothing
//! ```
//!
//! Cuts are drawn so that each part of the run gets its share; with enough of them, every operation is cut in every mode.
//! Equal images are recovered once and judged as often as they occur.
//!
//! **Invariants.** The same log, seed and number of cuts give the same images. What the operating system made of the run is in the log.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use tenfold::client::Control;

use crate::disk::{Disk, Image, Inode, Mode, Operation};
use crate::fleet::{self, DOOMED, Fleet};
use crate::judge::{Finding, Kind, judge};
use crate::mount::{Entry, Mount};
use crate::random::Random;
use crate::resume;
use crate::server::{DATA, PATIENCE, Site};
use crate::story::{Note, Story};
use crate::table::Table;
use crate::view::{Opener, Trouble, View};

/// Clients of the recorded run.
const WORKERS: usize = 3;

/// Threads that recover images.
const THREADS: usize = 2;

/// Every so many recovered images are recovered once more, which must change nothing.
const AGAIN: usize = 5;

/// Every so many recovered images get a real server and their clients back.
const RESUME: usize = 40;

/// How many draws of each mode of chance there are at one operation, at most.
const DRAWS: u64 = 4;

/// Cuts of the recovery of one image.
const CUTS_OF_A_RECOVERY: usize = 12;

/// Cuts of a disk that confirms syncs which it does not do.
const BLIND_CUTS: usize = 60;

/// Failures that are shown and kept.
const SHOWN: usize = 5;

/// Where a cut is made, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cut {
    /// Before this entry of the log.
    at: usize,
    mode: Mode,
    draw: u64,
}

impl Cut {
    fn random(self, seed: u64) -> Random {
        let place = (self.at as u64) << 8 | (self.mode as u64) << 4 | self.draw;
        Random::new(Random::new(seed ^ place).number())
    }
}

/// Runs servers and clients through everything that a data directory lives through.
pub(crate) fn record(mount: &Mount, files: &Path, seed: u64) -> Vec<Entry> {
    let notes = mount.notes();
    let mut random = Random::new(seed);
    let mut site = Site::new(&mount.point().join(DATA), files);
    let start = |site: &mut Site| {
        site.spawn();
        site.wait_until_ready().unwrap();
        notes.write(Note::Ready { instance: site.instance() });
    };
    let phase = |phase| notes.write(Note::Phase(phase));
    phase("creation");
    start(&mut site);
    phase("campaigns");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let control = Control::new(vec![site.address()], PATIENCE);
    for campaign in &fleet::campaigns() {
        runtime.block_on(fleet::create(&control, campaign, &notes, random.id()));
    }
    phase("work");
    let mut fleet = Fleet::start(site.address(), notes.clone(), random.number(), WORKERS);
    assert!(fleet.wait_for_answers(40), "the clients do not get on");
    phase("kill");
    site.kill();
    start(&mut site);
    phase("work");
    assert!(fleet.wait_for_answers(80), "the clients do not get on");
    phase("removal");
    runtime.block_on(fleet::remove(&control, DOOMED, &notes));
    assert!(fleet.wait_for_answers(110), "the clients do not get on");
    phase("stop");
    assert!(site.stop().is_some_and(|status| status.success()), "the server did not stop: {}", site.last_words());
    start(&mut site);
    phase("work");
    assert!(fleet.finish(), "the clients do not come to an end");
    phase("stop");
    assert!(site.stop().is_some_and(|status| status.success()), "the server did not stop: {}", site.last_words());
    mount.log()
}

/// All cuts of a log in an order in which each phase has the same share of any beginning.
fn plan(log: &[Entry], cuts: usize, seed: u64) -> Vec<Cut> {
    let mut by_phase: BTreeMap<&'static str, Vec<Cut>> = BTreeMap::new();
    let mut story = Story::default();
    for (at, entry) in log.iter().enumerate() {
        match entry {
            Entry::Note(note) => story.hear(note),
            Entry::Operation(_) => {
                let all = by_phase.entry(story.phase).or_default();
                for mode in Mode::ALL {
                    let draws = if mode.is_random() { DRAWS } else { 1 };
                    all.extend((0..draws).map(|draw| Cut { at, mode, draw }));
                }
            }
        }
    }
    let mut random = Random::new(seed);
    for cuts in by_phase.values_mut() {
        shuffle(cuts, &mut random);
    }
    let mut planned = Vec::new();
    while planned.len() < cuts && by_phase.values().any(|left| !left.is_empty()) {
        planned.extend(by_phase.values_mut().filter_map(Vec::pop));
    }
    planned.truncate(cuts);
    planned
}

fn shuffle<T>(values: &mut [T], random: &mut Random) {
    for index in (1..values.len()).rev() {
        values.swap(index, random.within(0..=index as u64) as usize);
    }
}

/// A log with what is needed to cut it.
pub(crate) struct Sweep<'a> {
    pub(crate) log: &'a [Entry],
    pub(crate) seed: u64,
    /// A place for images, preferably in memory.
    pub(crate) scratch: &'a Path,
    /// Where images of failures are kept.
    pub(crate) kept: &'a Path,
}

/// What one thread needs.
struct Bench<'a> {
    sweep: &'a Sweep<'a>,
    opener: Opener,
    place: PathBuf,
    known: HashMap<u64, Result<View, Trouble>>,
    recovered: usize,
    table: Table,
}

impl<'a> Sweep<'a> {
    /// Cuts the log so often.
    pub(crate) fn run(&self, cuts: usize) -> Table {
        let planned = plan(self.log, cuts, self.seed);
        let mut shares = vec![Vec::new(); THREADS];
        for (index, cut) in planned.into_iter().enumerate() {
            shares[index % THREADS].push(cut);
        }
        let mut table = Table::default();
        std::thread::scope(|scope| {
            let threads: Vec<_> = shares
                .into_iter()
                .enumerate()
                .map(|(index, share)| scope.spawn(move || self.bench(&format!("bench-{index}")).cuts(share, true)))
                .collect();
            for thread in threads {
                table.add(thread.join().unwrap());
            }
        });
        table
    }

    /// Cuts the log as if the database had never been synced once it was complete. How many cuts there were, and in how many of
    /// them something was wrong.
    pub(crate) fn run_blind(&self) -> (usize, usize) {
        let planned = plan(self.log, BLIND_CUTS, self.seed).into_iter();
        let planned = planned.map(|cut| Cut { mode: Mode::Drop, ..cut }).collect();
        let table = self.bench("bench-blind").cuts(planned, false);
        (table.cuts(), table.failures())
    }

    /// Cuts the recoveries of cut images, as many cuts in all.
    pub(crate) fn run_twice(&self, mount: &Mount, cuts: usize) -> Table {
        let mut planned = plan(self.log, cuts / CUTS_OF_A_RECOVERY, self.seed ^ 0x7ce);
        planned.sort();
        let mut bench = self.bench("bench-twice");
        let mut replay = Replay::new(self.log, true);
        for cut in planned {
            replay.advance(cut.at);
            bench.cut_recovery(mount, cut, &replay);
        }
        bench.table
    }

    fn bench(&'a self, name: &str) -> Bench<'a> {
        Bench {
            sweep: self,
            opener: Opener::new(),
            place: self.scratch.join(name),
            known: HashMap::new(),
            recovered: 0,
            table: Table::default(),
        }
    }
}

/// The disk and the story at a place in the log.
struct Replay<'a> {
    log: &'a [Entry],
    at: usize,
    disk: Disk,
    story: Story,
    honest: bool,
    databases: Vec<Inode>,
}

impl<'a> Replay<'a> {
    fn new(log: &'a [Entry], honest: bool) -> Self {
        Self { log, at: 0, disk: Disk::new(), story: Story::default(), honest, databases: Vec::new() }
    }

    fn advance(&mut self, to: usize) {
        while self.at < to {
            match &self.log[self.at] {
                Entry::Note(note) => self.story.hear(note),
                Entry::Operation(operation) => self.operation(operation),
            }
            self.at += 1;
        }
    }

    /// The log so far.
    fn told(&self) -> &[Entry] {
        &self.log[..self.at]
    }

    fn operation(&mut self, operation: &Operation) {
        if let Operation::Create { name, inode, is_directory: false, .. } = operation
            && name == "db"
        {
            self.databases.push(*inode);
        }
        if let Operation::Sync { inode } = operation
            && !self.honest
            && self.story.instance.is_some()
            && self.databases.contains(inode)
        {
            return;
        }
        self.disk.apply(operation);
    }
}

impl Bench<'_> {
    fn cuts(mut self, mut cuts: Vec<Cut>, honest: bool) -> Table {
        cuts.sort();
        let mut replay = Replay::new(self.sweep.log, honest);
        for cut in cuts {
            replay.advance(cut.at);
            let image = replay.disk.cut(cut.mode, &mut cut.random(self.sweep.seed));
            let findings = self.examine(&image, &replay, cut.mode, honest);
            self.note(replay.story.phase, cut, &image, &replay.story, &findings, honest);
        }
        self.table
    }

    /// Recovers an image, unless an equal one was recovered before, and compares.
    fn examine(&mut self, image: &Image, before: &Replay<'_>, mode: Mode, thorough: bool) -> Vec<Finding> {
        let story = &before.story;
        let digest = image.digest();
        if let Some(known) = self.known.get(&digest) {
            return judge(story, known);
        }
        self.recovered += 1;
        image.write(&self.place);
        let data = self.place.join(DATA);
        let found = self.opener.open(&data);
        self.table.cut_short += usize::from(found.as_ref().is_ok_and(|view| view.cut_short));
        let mut findings = judge(story, &found);
        if thorough && findings.is_empty() {
            if self.recovered.is_multiple_of(AGAIN) {
                findings.extend(same_again(&found, &self.opener.open(&data)));
            }
            if self.recovered.is_multiple_of(RESUME) {
                self.opener.end();
                let files = self.place.join("files");
                let (broken, figures) = resume::resume(&data, &files, story, before.told(), mode);
                findings.extend(broken);
                self.table.figures.add(&figures);
                self.table.resumed += 1;
            }
        }
        fs::remove_dir_all(&self.place).unwrap();
        self.known.insert(digest, found);
        findings
    }

    /// Recovers an image on the mounted disk, and cuts that.
    fn cut_recovery(&mut self, mount: &Mount, cut: Cut, replay: &Replay<'_>) {
        let image = replay.disk.cut(cut.mode, &mut cut.random(self.sweep.seed));
        mount.load(&image);
        let disk = mount.disk();
        let mut opener = Opener::new();
        let found = opener.open(&mount.point().join(DATA));
        opener.end();
        let findings = judge(&replay.story, &found);
        if !findings.is_empty() {
            self.note("recovery", cut, &image, &replay.story, &findings, true);
            return;
        }
        let log = mount.log();
        let inner = Sweep { log: &log, ..*self.sweep };
        let mut planned = plan(inner.log, CUTS_OF_A_RECOVERY, self.sweep.seed ^ cut.at as u64);
        planned.sort();
        let mut again = Replay { disk, ..Replay::new(&log, true) };
        for second in planned {
            again.advance(second.at);
            let image = again.disk.cut(second.mode, &mut second.random(self.sweep.seed));
            let findings = self.examine(&image, replay, second.mode, false);
            self.note("recovery", second, &image, &replay.story, &findings, true);
        }
    }

    /// Puts a cut into the table; keeps what is wrong, as far as it is to be shown.
    fn note(&mut self, phase: &'static str, cut: Cut, image: &Image, story: &Story, findings: &[Finding], show: bool) {
        self.table.count(phase, cut.mode, findings);
        if findings.is_empty() || !show || self.table.failures() > SHOWN {
            return;
        }
        let name = format!("{phase}-{}-{}-{}", cut.at, cut.mode.word(), cut.draw);
        let kept = self.sweep.kept.join(name);
        let _ = fs::remove_dir_all(&kept);
        image.write(&kept);
        fs::write(kept.join("story"), story.to_string()).unwrap();
        eprintln!("power: {cut:?} in {phase}, {} answers read:", story.answers());
        for finding in findings.iter().take(SHOWN) {
            eprintln!("  {:?}: {}", finding.kind, finding.what);
        }
        eprintln!("  again: cargo power image {}", kept.join(DATA).display());
    }
}

fn same_again(first: &Result<View, Trouble>, second: &Result<View, Trouble>) -> Option<Finding> {
    let settled = |view: &Result<View, Trouble>| {
        view.clone().map(|view| View { fresh: false, starts: 0, cut_short: false, ..view })
    };
    let same = settled(first) == settled(second);
    (!same).then(|| Finding { kind: Kind::Lost, what: "the second recovery found something else".to_owned() })
}
