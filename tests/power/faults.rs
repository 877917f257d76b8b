//! Disks that fail, lie, or are full while a server works or starts.
//!
//! | fault | what the disk does |
//! |---|---|
//! | dead | the n-th write or sync fails, and all that follow |
//! | once | the n-th write or sync fails, no other |
//! | short | the n-th write writes half; then there is no room |
//! | full | from the n-th write on there is no room for some writes, then there is again |
//! | lost sync | the n-th sync fails and what it was to write is lost; the next one says that all is well. The system's memory still has it |
//!
//! Expected of each: the process ends by itself, non-zero, and says why. What had been answered by then is on the disk as it was
//! at the first failure, even if nothing after it had been written: so nothing was acknowledged after it. The next server on a
//! good disk knows everything, and the clients finish. The whole history is read by the checker, rule S15 included.
//!
//! After a lost sync the power fails once more, while the clients get on with the next server: had that one taken for durable what only
//! the system's memory has, what it acknowledged on top of it would be lost now.

use std::path::Path;

use tenfold::client::Control;
use tenfold_checker::Rule;
use tenfold_checker::history::{Moment, Record};

use crate::disk::{Image, Mode};
use crate::fleet::{self, DOOMED, Fleet};
use crate::history::{self, dump, look, tell};
use crate::judge::{Finding, Kind, judge};
use crate::live::story_of;
use crate::mount::{Entry, Fault, Mount};
use crate::random::Random;
use crate::server::{DATA, PATIENCE, Site};
use crate::story::Note;
use crate::table::Table;
use crate::view::Opener;

/// Clients of a trial.
const WORKERS: usize = 2;

/// Where the disk breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// While a new data directory is made.
    Creating,
    /// While clients work.
    Working,
    /// While a server starts on what another left.
    Starting,
}

/// What a trial needs.
pub(crate) struct Trial<'a> {
    pub(crate) mount: &'a Mount,
    pub(crate) scratch: &'a Path,
    pub(crate) seed: u64,
}

impl Trial<'_> {
    /// One fault and what comes of it. The kind of the fault goes by the trial's number.
    pub(crate) fn run(&self, number: u64, table: &mut Table) {
        let mut random = Random::new(self.seed ^ (number << 32));
        let when = [When::Working, When::Working, When::Starting, When::Creating][random.within(0..=3) as usize];
        let nth = random.within(1..=if when == When::Working { 60 } else { 25 });
        let (name, fault) = match number % 5 {
            0 => ("dead", Fault::Dead { nth }),
            1 => ("once", Fault::Once { nth }),
            2 => ("short", Fault::Short { nth: nth.div_ceil(2) }),
            3 => ("full", Fault::Full { nth: nth.div_ceil(2), writes: random.within(1..=6) }),
            _ => ("lost sync", Fault::LostSync { nth: nth.div_ceil(2) }),
        };
        let findings = self.trial(when, fault, &mut random).err().into_iter().collect::<Vec<_>>();
        if !findings.is_empty() {
            eprintln!("power: {when:?} {fault:?}, seed {}: {findings:#?}", self.seed);
            eprintln!("  again: TENFOLD_SEED={} cargo power faults {number}", self.seed);
        }
        table.count(name, Mode::Keep, &findings);
    }

    fn trial(&self, when: When, fault: Fault, random: &mut Random) -> Result<(), Finding> {
        self.mount.load(&Image::default());
        let notes = self.mount.notes();
        let mut site = Site::new(&self.mount.point().join(DATA), &self.scratch.join("faults"));
        let verify = random.percent(50);
        let lost_sync = matches!(fault, Fault::LostSync { .. });
        if lost_sync {
            self.mount.keep_cached();
        }
        let mut felt = when != When::Creating;
        if when == When::Creating {
            self.mount.break_down(Some(fault));
            site.spawn();
            if site.wait_until_ready().is_ok() && self.mount.failed_at().is_none() {
                // It needed fewer writes than that.
                site.kill();
                self.mount.break_down(None);
            } else {
                felt = true;
                self.expect_end(&mut site)?;
            }
        }
        self.start(&mut site, verify)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let control = Control::new(vec![site.address()], PATIENCE);
        for campaign in fleet::campaigns().iter().filter(|campaign| campaign.name != DOOMED) {
            runtime.block_on(fleet::create(&control, campaign, &notes, random.id()));
        }
        let mut fleet = Fleet::start(site.address(), notes.clone(), random.number(), WORKERS);
        if !fleet.wait_for_answers(random.within(1..=40) as usize) {
            return Err(hung("the clients do not get on".to_owned()));
        }
        match when {
            When::Creating => {}
            When::Working => {
                self.mount.break_down(Some(fault));
                self.expect_end(&mut site)?;
                self.power(random);
                self.start(&mut site, verify)?;
            }
            When::Starting => {
                site.kill();
                tell(&notes, [Record::KilledServer]);
                self.mount.break_down(Some(fault));
                site.spawn();
                self.expect_end(&mut site)?;
                self.power(random);
                self.start(&mut site, verify)?;
            }
        }
        if lost_sync && when != When::Creating {
            // As many answers again.
            let more = story_of(&self.mount.log()).answers() + random.within(1..=20) as usize;
            if !fleet.wait_for_answers(more) {
                return Err(hung("the clients do not get on".to_owned()));
            }
            site.kill();
            self.cut(random);
            self.start(&mut site, verify)?;
        }
        tell(&notes, [Record::Calm]);
        if !fleet.finish() {
            return Err(hung("the clients do not come to an end".to_owned()));
        }
        tell(&notes, [Record::Look]);
        let seen = runtime.block_on(look(&control, None));
        tell(&notes, seen.into_iter().chain([Record::Looked]));
        let stopped = site.stop().ok_or_else(|| hung(format!("the server does not stop: {}", site.last_words())))?;
        tell(&notes, [Record::EndedServer { code: stopped.code() }]);
        let data = self.mount.point().join(DATA);
        let (_, records) = dump(&data, Moment::Rest).map_err(unopenable)?;
        tell(&notes, records.into_iter().chain([Record::End]));
        let log = self.mount.log();
        let mut findings = judge(&story_of(&log), &Opener::new().open(&data));
        let more: &[Rule] = if felt { &[Rule::S15] } else { &[] };
        findings.extend(history::findings(&history::history_of(&log), more).0);
        findings.into_iter().next().map_or(Ok(()), Err)
    }

    /// Starts a server on a disk that works, after a look at what it is going to find there. Not through the system's memory, which after
    /// a lost sync has what the disk does not have; with `verify` through that as well, which must not be taken in by it.
    fn start(&self, site: &mut Site, verify: bool) -> Result<(), Finding> {
        let notes = self.mount.notes();
        let data = self.mount.point().join(DATA);
        if data.join("READY").exists() {
            let place = self.scratch.join("faults-found");
            self.mount.disk().cut(Mode::Keep, &mut Random::new(0)).write(&place);
            let found = dump(&place.join(DATA), Moment::Recovered);
            std::fs::remove_dir_all(&place).unwrap();
            let (_, records) = found.map_err(unopenable)?;
            if verify {
                let (_, seen) = dump(&data, Moment::Recovered).map_err(unopenable)?;
                if seen != records {
                    let what = "`verify` says what is in the system's memory, not what is on the disk".to_owned();
                    return Err(Finding { kind: Kind::Rules, what });
                }
            }
            tell(&notes, records);
        }
        site.spawn();
        site.wait_until_ready().map_err(unopenable)?;
        notes.write(Note::Ready { instance: site.instance() });
        Ok(())
    }

    /// The server ends by itself, saying why; what it had answered was durable before its disk first failed.
    fn expect_end(&self, site: &mut Site) -> Result<(), Finding> {
        let ended = site.wait_for_end(PATIENCE);
        let failed_at = self.mount.failed_at();
        self.mount.break_down(None);
        let Some(status) = ended else {
            return Err(hung(format!("the server does not end by {failed_at:?}: {}", site.last_words())));
        };
        tell(&self.mount.notes(), [Record::EndedServer { code: status.code() }]);
        let words = site.last_words();
        if status.code().is_none_or(|code| code == 0) || words.is_empty() {
            return Err(hung(format!("the server ended with {status}, saying {words:?}")));
        }
        let Some((failed_at, _)) = failed_at else {
            return Err(hung("the server ended, but not by the fault".to_owned()));
        };
        // The notes of what was answered to the very end; the disk as it was at the first failure.
        let log = self.mount.log();
        let mut disk = crate::disk::Disk::new();
        for entry in &log[..failed_at] {
            if let Entry::Operation(operation) = entry {
                disk.apply(operation);
            }
        }
        let place = self.scratch.join("faults-copy");
        disk.cut(Mode::Drop, &mut Random::new(0)).write(&place);
        let found = Opener::new().open(&place.join(DATA));
        std::fs::remove_dir_all(&place).unwrap();
        // Requests that were sent after the failure are not on that disk: whoever had read an answer to one is found out here.
        judge(&story_of(&log), &found).into_iter().next().map_or(Ok(()), Err)
    }

    /// Now and then the power fails as well before the next start.
    fn power(&self, random: &mut Random) {
        if random.percent(50) {
            self.cut(random);
        }
    }

    /// The power fails while no server runs.
    fn cut(&self, random: &mut Random) {
        let mode = Mode::ALL[random.within(0..=4) as usize];
        let image = self.mount.disk().cut(mode, random);
        self.mount.restore(&image);
        tell(&self.mount.notes(), [Record::PowerCut { mode: mode.word().to_owned() }]);
    }
}

fn hung(what: String) -> Finding {
    Finding { kind: Kind::Hung, what }
}

fn unopenable(what: String) -> Finding {
    Finding { kind: Kind::Unopenable, what }
}
