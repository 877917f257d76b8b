//! Cuts of a running server: its disk stops at a random operation, it is killed, the next one starts on what the cut left,
//! and the clients, who never stopped, go on with it.
//!
//! ```text
//!   power off ──▶ SIGKILL ──▶ turned away, dead ──▶ image ──▶ (a copy is recovered and judged) ──▶ power on ──▶ next server
//!                                                                                                         (look) ──▶ …
//! ```
//!
//! Some cuts come while a server starts, some after somebody has looked at all counts. In the end all is settled, and what is
//! on the disk is compared once more with everything that the clients did over all those servers. Every copy is dumped before
//! and after it is recovered, and the checker reads the whole run: see `history`.
//!
//! **Invariant.** A server does nothing more once its disk has stopped: it is dead before any operation is answered.

use std::path::Path;
use std::time::Duration;

use tenfold::client::Control;
use tenfold_checker::history::{Moment, Record};
use tokio::runtime::Runtime;

use crate::disk::{Image, Mode};
use crate::fleet::{self, DOOMED, Fleet};
use crate::history::{self, dump, look, tell};
use crate::judge::{Finding, Kind, judge};
use crate::mount::{Entry, Mount, Notes};
use crate::random::Random;
use crate::server::{DATA, PATIENCE, Site};
use crate::story::{Note, Story};
use crate::table::Table;
use crate::view::Opener;

/// Power cuts of one trial.
const CUTS: usize = 8;

/// Clients of a trial.
const WORKERS: usize = 3;

/// How often it is looked whether there is still something to cut.
const LOOK: Duration = Duration::from_millis(20);

/// What a trial needs.
pub(crate) struct Trial<'a> {
    pub(crate) mount: &'a Mount,
    pub(crate) scratch: &'a Path,
    pub(crate) kept: &'a Path,
    pub(crate) seed: u64,
}

/// Those who act in a trial.
struct Stage {
    site: Site,
    fleet: Fleet,
    control: Control,
    runtime: Runtime,
    notes: Notes,
    random: Random,
}

impl Stage {
    /// Looks at all counts, once the server answers.
    fn look(&mut self) -> Result<(), Finding> {
        self.site.wait_until_ready().map_err(|what| Finding { kind: Kind::Unopenable, what })?;
        self.notes.write(Note::Ready { instance: self.site.instance() });
        tell(&self.notes, [Record::Look]);
        let seen = self.runtime.block_on(look(&self.control, None));
        tell(&self.notes, seen.into_iter().chain([Record::Looked]));
        Ok(())
    }
}

impl Trial<'_> {
    /// Several power cuts under a working fleet.
    pub(crate) fn run(&self) -> Table {
        let mut table = Table::default();
        let mut stage = self.set_up();
        for _ in 0..CUTS {
            let mode = Mode::ALL[stage.random.within(0..=4) as usize];
            let cut = self.wait_and_cut(&mut stage, mode);
            let (image, mut findings) = cut.unwrap_or_else(|finding| (self.image(&mut stage.random), vec![finding]));
            if !findings.is_empty() {
                findings.extend(history::findings_so_far(&history::history_of(&self.mount.log())));
            }
            self.note(&mut table, mode, &findings, &image);
            if !findings.is_empty() {
                return table;
            }
            self.mount.restore(&image);
            stage.site.spawn();
        }
        let findings = self.settle(&mut stage, &mut table).unwrap_or_else(|finding| vec![finding]);
        self.note(&mut table, Mode::Keep, &findings, &self.image(&mut stage.random));
        table
    }

    /// A server, campaigns, and clients that begin to work.
    fn set_up(&self) -> Stage {
        let mut random = Random::new(self.seed);
        self.mount.load(&Image::default());
        let notes = self.mount.notes();
        let mut site = Site::new(&self.mount.point().join(DATA), &self.scratch.join("live"));
        site.spawn();
        site.wait_until_ready().unwrap();
        notes.write(Note::Ready { instance: site.instance() });
        notes.write(Note::Phase("live"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let control = Control::new(vec![site.address()], PATIENCE);
        for campaign in fleet::campaigns().iter().filter(|campaign| campaign.name != DOOMED) {
            runtime.block_on(fleet::create(&control, campaign, &notes, random.id()));
        }
        let fleet = Fleet::start(site.address(), notes.clone(), random.number(), WORKERS);
        Stage { site, fleet, control, runtime, notes, random }
    }

    /// Lets the power fail at some operation. What is on the disk then, and what is wrong with that.
    fn wait_and_cut(&self, stage: &mut Stage, mode: Mode) -> Result<(Image, Vec<Finding>), Finding> {
        if stage.random.percent(40) {
            // Whoever looks must be answered, so the power stays on meanwhile.
            stage.look()?;
        }
        let within = if stage.random.percent(30) { 40 } else { 300 };
        self.mount.cut_after(stage.random.within(1..=within));
        while !self.mount.wait_for_cut(LOOK) {
            if let Some(status) = stage.site.ended() {
                let what = format!("the server ended by itself ({status}): {}", stage.site.last_words());
                return Err(Finding { kind: Kind::Unopenable, what });
            }
            if stage.fleet.is_nearly_done() {
                self.mount.cut_now();
            }
        }
        stage.site.strike();
        self.mount.let_die();
        stage.site.bury();
        tell(&stage.notes, [Record::PowerCut { mode: mode.word().to_owned() }]);
        let image = self.mount.disk().cut(mode, &mut stage.random);
        let place = self.scratch.join("live-copy");
        image.write(&place);
        let findings = self.recover(&stage.notes, &place.join(DATA)).unwrap_or_else(|finding| vec![finding]);
        std::fs::remove_dir_all(&place).unwrap();
        Ok((image, findings))
    }

    /// Recovers what a cut left, and looks at it before and after.
    fn recover(&self, notes: &Notes, data: &Path) -> Result<Vec<Finding>, Finding> {
        let unreadable = |what: String| Finding { kind: Kind::Unopenable, what };
        let (instance, mut records) = dump(data, Moment::Recovered).map_err(unreadable)?;
        let findings = judge(&self.story(), &Opener::new().open(data));
        if findings.is_empty() {
            records.push(Record::Boot { instance });
            records.extend(dump(data, Moment::Again).map_err(unreadable)?.1);
        }
        // Together: a client that reports meanwhile would part two looks at the same state.
        tell(notes, records);
        Ok(findings)
    }

    /// Lets everybody finish, and looks at what is there, and at how it came to be.
    fn settle(&self, stage: &mut Stage, table: &mut Table) -> Result<Vec<Finding>, Finding> {
        let hung =
            |what: &str, site: &Site| Finding { kind: Kind::Hung, what: format!("{what}: {}", site.last_words()) };
        stage.look()?;
        tell(&stage.notes, [Record::Calm]);
        if !stage.fleet.finish() {
            return Err(hung("the clients do not come to an end", &stage.site));
        }
        stage.look()?;
        let stopped = stage.site.stop().ok_or_else(|| hung("the server does not stop", &stage.site))?;
        if !stopped.success() {
            return Err(hung("the server does not end well", &stage.site));
        }
        tell(&stage.notes, [Record::EndedServer { code: stopped.code() }]);
        let data = self.mount.point().join(DATA);
        let (_, records) = dump(&data, Moment::Rest).map_err(|what| Finding { kind: Kind::Unopenable, what })?;
        tell(&stage.notes, records.into_iter().chain([Record::End]));
        let mut findings = judge(&self.story(), &Opener::new().open(&data));
        let (broken, figures) = history::findings(&history::history_of(&self.mount.log()), &history::LIVE);
        findings.extend(broken);
        table.figures.add(&figures);
        Ok(findings)
    }

    /// The disk as it is.
    fn image(&self, random: &mut Random) -> Image {
        self.mount.disk().cut(Mode::Keep, random)
    }

    /// What follows from all notes so far.
    fn story(&self) -> Story {
        story_of(&self.mount.log())
    }

    fn note(&self, table: &mut Table, mode: Mode, findings: &[Finding], image: &Image) {
        table.count("live", mode, findings);
        if findings.is_empty() {
            return;
        }
        let kept = self.kept.join(format!("live-{}-{}", self.seed, table.cuts()));
        let _ = std::fs::remove_dir_all(&kept);
        image.write(&kept);
        std::fs::write(kept.join("story"), self.story().to_string()).unwrap();
        let told = history::history_of(&self.mount.log()).to_string();
        std::fs::write(kept.join("history"), told).unwrap();
        eprintln!("power: a trial of a running server, seed {}, mode {}: {findings:#?}", self.seed, mode.word());
        eprintln!("  again: TENFOLD_SEED={} cargo power live 0; what was found: {}", self.seed, kept.display());
    }
}

/// What follows from all notes of a log.
pub(crate) fn story_of(log: &[Entry]) -> Story {
    let mut story = Story::default();
    for entry in log {
        if let Entry::Note(note) = entry {
            story.hear(note);
        }
    }
    story
}
