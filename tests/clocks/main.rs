//! The wall clock jumps by hours, forwards and back, under a server and its clients at work: nothing ends early or late (P8).
//!
//! ```text
//!   tests/install-tools                once: libfaketime
//!   cargo test --test clocks           half a minute
//! ```
//!
//! Server and clients run with `libfaketime` before them, which reads what time it is from a file that this test rewrites.
//! The monotonic clock is left alone (`FAKETIME_DONT_FAKE_MONOTONIC`), as a machine leaves it alone whose date is set. After
//! every jump the server's own log must show the new time, so that a test without an effect fails.
//!
//! ```text
//!   wall clock      real ─▶ +1 h ─▶ −1 h (a jump of −2 h) ─▶ real, while the server is down
//!   a silent holder  its lease ends after its length, as this test's monotonic clock has it, and at most LATE_MAX later
//!   live holders     lose nothing, ever
//!   busy clients     never lose their connection
//! ```
//!
//! It is not part of plain `cargo test`, since it needs a library that Rust does not bring. **Invariant.** Where that is missing
//! this test fails, and says what to do.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "figures are for whoever reads the test's output")]

#[allow(dead_code, reason = "other test programs use other parts of it")]
#[path = "../crash/raw.rs"]
mod raw;
#[allow(dead_code, reason = "other test programs use other parts of it")]
#[path = "../crash/server.rs"]
mod server;
#[allow(dead_code, reason = "other test programs use other parts of it")]
#[path = "../hostile/workers.rs"]
mod workers;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use tenfold::types::CampaignSpec;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use raw::{Session, counted, create, numbered};
use server::{Site, block_on, patiently};
use workers::Workers;

/// Length of the leases here.
const LEASE: Duration = Duration::from_secs(2);
/// A lease that nobody keeps alive ends at most so much after its length.
const LATE_MAX: Duration = Duration::from_secs(5);
/// The log's time may be so far from what it should be: the time it takes to write and read it.
const LOG_MAX: Duration = Duration::from_mins(1);
/// Clients that keep their lease alive, and such that report all the time.
const KEEPERS: usize = 5;
const BUSY: usize = 2;
/// The wall clock's distance from the real one, in seconds, one after the other.
const OFFSETS: [i64; 3] = [3_600, -3_600, 0];
/// The variable that says where the library is, and where else it is looked for.
const LIBRARY: &str = "TENFOLD_FAKETIME";
const LIBRARY_FOLDERS: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu/faketime",
    "/usr/lib/aarch64-linux-gnu/faketime",
    "/usr/lib64/faketime",
    "/usr/lib/faketime",
    "/usr/local/lib/faketime",
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    match words.get(1).map(String::as_str) {
        Some(server::BECOME) => server::become_program(&words[2..]),
        Some(workers::WORKERS) => workers::main(&words[2..]),
        Some(_) | None => {
            let arguments = libtest_mimic::Arguments::from_args();
            let trial = libtest_mimic::Trial::test("a_jumping_wall_clock_ends_nothing_early_or_late", || {
                let library = library()?;
                block_on(a_jumping_wall_clock_ends_nothing_early_or_late(&library));
                Ok(())
            });
            libtest_mimic::run(&arguments, vec![trial]).exit_code()
        }
    }
}

fn library() -> Result<PathBuf, String> {
    let named = std::env::var_os(LIBRARY).map(PathBuf::from);
    let usual = LIBRARY_FOLDERS.iter().map(|folder| Path::new(folder).join("libfaketimeMT.so.1"));
    named.into_iter().chain(usual).find(|path| path.exists()).ok_or_else(|| {
        format!("libfaketimeMT.so.1 is missing: run tests/install-tools, or say in {LIBRARY} where the library is")
    })
}

/// A wall clock that can be set.
struct WallClock {
    file: PathBuf,
    environment: Vec<(OsString, OsString)>,
}

impl WallClock {
    fn new(directory: &Path, library: &Path) -> Self {
        let file = directory.join("time");
        let variables = [
            ("LD_PRELOAD", library.as_os_str()),
            ("FAKETIME_TIMESTAMP_FILE", file.as_os_str()),
            ("FAKETIME_NO_CACHE", "1".as_ref()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".as_ref()),
        ];
        let environment = variables.map(|(name, value)| (name.into(), value.to_owned())).into();
        let clock = Self { file, environment };
        clock.set(0);
        clock
    }

    /// From now on it differs by so many seconds from the real one.
    fn set(&self, offset: i64) {
        // Renamed into place, so that nobody reads half of it.
        let beside = self.file.with_extension("new");
        fs::write(&beside, format!("{offset:+}\n")).unwrap();
        fs::rename(&beside, &self.file).unwrap();
    }
}

async fn a_jumping_wall_clock_ends_nothing_early_or_late(library: &Path) {
    let directory = tempfile::tempdir().unwrap();
    let clock = WallClock::new(directory.path(), library);
    let mut site = Site::new(&[]).in_environment(&clock.environment);
    site.start().await;
    let short = |spec| CampaignSpec { lease_ms: Some(LEASE.as_millis() as u64), ..spec };
    let keepers = u32::try_from(KEEPERS).unwrap();
    create(&site, &[short(numbered("kept", keepers, 1)), short(counted("load", 1_000, 1_000))]).await;
    let start = |count, campaign| Workers::start_in_environment(&site.address(), count, campaign, &clock.environment);
    let (mut kept, mut busy) = (start(KEEPERS, "kept"), start(BUSY, "load"));
    kept.until("leases", |news| news.taken == u64::from(keepers)).await;
    busy.order("work");

    for (step, offset) in OFFSETS.into_iter().enumerate() {
        let counted = busy.news().counted;
        busy.until("reports before the jump", |news| news.counted > counted + 10).await;
        let last = step + 1 == OFFSETS.len();
        if last {
            // This time the server is down when the clock is set.
            site.kill();
            clock.set(offset);
            site.start().await;
        }
        check_expiry(&site, &clock, u8::try_from(step).unwrap(), offset).await;
        check_log(&site, offset).await;
        let counted = busy.news().counted;
        busy.until("reports after the jump", |news| news.counted > counted + 10).await;
        let disconnected = if last { BUSY as u64 } else { 0 };
        assert_eq!((busy.news().lost, busy.news().disconnected), (0, disconnected), "offset {offset}");
        assert_eq!(kept.news().lost, 0, "a lease that was kept alive was lost, offset {offset}");
    }

    kept.order("report");
    let news = kept.until("the end of the campaign", |news| news.ended == 1).await;
    assert_eq!((news.counted, news.refused, news.unknown), (u64::from(keepers), 0, 0), "{news:?}");
    let status = &site.control().status(Some("kept")).await.unwrap()[0];
    assert_eq!((status.finished, status.losses, status.runs_extra), (true, 0, 0), "{status:?}");
    let news = busy.end().await;
    let status = &site.control().status(Some("load")).await.unwrap()[0];
    assert_eq!((status.runs_done, status.losses, status.runs_extra), (news.counted, 0, 0), "{status:?}");
}

/// The clock jumps while a lease of a silent client runs; it ends neither early nor late.
async fn check_expiry(site: &Site, clock: &WallClock, step: u8, offset: i64) {
    let campaign = format!("jump-{step}");
    let spec = CampaignSpec { lease_ms: Some(LEASE.as_millis() as u64), ..counted(&campaign, 1, 1) };
    let creation = tenfold::types::CreationId([100 + step; 16]);
    site.control().create(creation, &spec, &[]).await.unwrap();
    let mut session = Session::new(step);
    let (mut silent, _) = session.connect(site).await;
    let asked = Instant::now();
    silent.want_of(1, 1, &campaign).await;
    silent.grants().await;
    let granted = Instant::now();
    clock.set(offset);
    let mut heir = Workers::start_in_environment(&site.address(), 1, &campaign, &clock.environment);
    heir.until("the run of the silent client", |news| news.taken == 1).await;
    let (longest, shortest) = (asked.elapsed(), granted.elapsed());
    println!("clock at {offset:+} s: a lease of {LEASE:?} ended after {shortest:?}, bound {:?}", LEASE + LATE_MAX);
    assert!(longest >= LEASE, "it ended early, after {longest:?}");
    assert!(shortest <= LEASE + LATE_MAX, "it ended late, after {shortest:?}");
}

/// The server's wall clock is really where it was set to.
async fn check_log(site: &Site, offset: i64) {
    let lines = site.log().lines().count();
    let mut peer = TcpStream::connect(site.address()).await.unwrap();
    peer.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    patiently("a refusal", peer.read_to_end(&mut Vec::new())).await.unwrap();
    let log = site.log();
    let line = log.lines().skip(lines).find(|line| line.contains("refused")).expect("a line about the refusal");
    let said = humantime::parse_rfc3339(line.split(' ').next().unwrap()).unwrap();
    #[allow(clippy::disallowed_methods, reason = "this is about the wall clock")]
    let real = SystemTime::now();
    let expected = if offset < 0 {
        real - Duration::from_secs(offset.unsigned_abs())
    } else {
        real + Duration::from_secs(offset.unsigned_abs())
    };
    let distance = said.duration_since(expected).unwrap_or_else(|error| error.duration());
    assert!(distance <= LOG_MAX, "the server's clock did not follow: {line}");
}
