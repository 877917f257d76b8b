//! Cuts of a running server: its disk stops at a random operation, it is killed, the next one starts on what the cut left,
//! and the clients, who never stopped, go on with it.
//!
//! ```text
//!   power off ──▶ SIGKILL ──▶ turned away, dead ──▶ image ──▶ (a copy is recovered and judged) ──▶ power on ──▶ next server
//! ```
//!
//! Some cuts come while a server starts. In the end all is settled, and what is on the disk is compared once more with
//! everything that the clients did over all those servers.
//!
//! **Invariant.** A server does nothing more once its disk has stopped: it is dead before any operation is answered.

use std::path::Path;
use std::time::Duration;

use tenfold::client::Control;

use crate::disk::{Image, Mode};
use crate::fleet::{self, DOOMED, Fleet};
use crate::judge::{Finding, Kind, judge};
use crate::mount::{Entry, Mount};
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

impl Trial<'_> {
    /// Several power cuts under a working fleet.
    pub(crate) fn run(&self) -> Table {
        let mut table = Table::default();
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
        let mut fleet = Fleet::start(site.address(), notes, random.number(), WORKERS);
        for _ in 0..CUTS {
            let within = if random.percent(30) { 40 } else { 300 };
            self.mount.cut_after(random.within(1..=within));
            let mut ended = None;
            while ended.is_none() && !self.mount.wait_for_cut(LOOK) {
                ended = site.ended();
                if fleet.is_nearly_done() {
                    self.mount.cut_now();
                }
            }
            if let Some(status) = ended {
                let what = format!("the server ended by itself ({status}): {}", site.last_words());
                let image = self.mount.disk().cut(Mode::Keep, &mut random);
                self.note(&mut table, Mode::Keep, &[Finding { kind: Kind::Unopenable, what }], &image);
                return table;
            }
            let mode = Mode::ALL[random.within(0..=4) as usize];
            self.cut(&mut site, mode, &mut random, &mut table);
            site.spawn();
        }
        let findings = self.settle(&mut site, &mut fleet);
        self.note(&mut table, Mode::Keep, &findings, &self.mount.disk().cut(Mode::Keep, &mut random));
        table
    }

    /// Ends the server, and puts the disk into the state that the cut leaves.
    fn cut(&self, site: &mut Site, mode: Mode, random: &mut Random, table: &mut Table) {
        self.mount.cut_now();
        site.strike();
        self.mount.let_die();
        site.bury();
        let image = self.mount.disk().cut(mode, random);
        let place = self.scratch.join("live-copy");
        image.write(&place);
        let findings = judge(&self.story(), &Opener::new().open(&place.join(DATA)));
        std::fs::remove_dir_all(&place).unwrap();
        self.note(table, mode, &findings, &image);
        self.mount.restore(&image);
    }

    /// Lets everybody finish, and looks at what is there.
    fn settle(&self, site: &mut Site, fleet: &mut Fleet) -> Vec<Finding> {
        let failed = |kind, what: String| vec![Finding { kind, what }];
        if let Err(what) = site.wait_until_ready() {
            return failed(Kind::Unopenable, what);
        }
        if !fleet.finish() {
            return failed(Kind::Hung, format!("the clients do not come to an end: {}", site.last_words()));
        }
        if !site.stop().is_some_and(|status| status.success()) {
            return failed(Kind::Hung, format!("the server does not stop: {}", site.last_words()));
        }
        judge(&self.story(), &Opener::new().open(&self.mount.point().join(DATA)))
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
        eprintln!("power: a cut of a running server, seed {}, mode {}: {findings:#?}", self.seed, mode.word());
        eprintln!("  again: cargo power image {}", kept.join(DATA).display());
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
