//! File descriptors run out: a server keeps to as many connections as it has files for, and should there be none left in
//! spite of that, it does not spin, says so, goes on for those it has, and recovers.
//!
//! **What is promised.** However many connect, the server does not run out of descriptors by that: whoever is too many is
//! told that it is busy. While connections cannot be accepted the server takes at most one part in [`SHARE_MAX`] of a
//! processor, and complains at most once a minute, with a hint. Whoever is connected does not notice, and is counted on.
//! When descriptors are free again, whoever waited is served.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::process::{descriptors, processor_time};
use crate::raw::{Session, counted, create};
use crate::server::{LOOK, Site, block_on, patiently};
use crate::workers::Workers;

pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
    vec![
        trial!("descriptors", connections_do_not_take_all_descriptors),
        trial!("descriptors", a_server_without_descriptors_does_not_spin_and_recovers),
    ]
}

/// Descriptors of a server that has few.
const DESCRIPTORS: usize = 128;
/// Connections that are too many for it.
const PEERS: usize = 200;
/// How long a server is watched that has none.
const WATCHED: Duration = Duration::from_secs(3);
/// One part in so many of a processor's time may go by in vain.
const SHARE_MAX: u32 = 10;
/// What it says then.
const COMPLAINT: &str = "cannot accept connections";

fn connections_do_not_take_all_descriptors() {
    block_on(async {
        let mut site = Site::new(&[]).after_shell(&format!("ulimit -n {DESCRIPTORS}"));
        site.start().await;
        create(&site, &[counted("good", 1_000, 1_000)]).await;
        let mut worker = Workers::start(&site.address(), 1, "good");
        worker.until("a lease", |news| news.taken == 1).await;
        let mut silent = Vec::new();
        for _ in 0..PEERS {
            silent.push(TcpStream::connect(site.address()).await.unwrap());
        }
        // As many as there are places introduce themselves; the first that is told so is one too many.
        let mut served = Vec::new();
        for id in 0..=u8::MAX {
            match Session::new(id).try_connect(&site).await {
                Some(peer) => served.push(peer),
                None => break,
            }
        }
        assert!((10..DESCRIPTORS).contains(&served.len()), "{} were let in", served.len());
        for round in 1..=20 {
            worker.order("report");
            worker.until("an answer", |news| news.counted == round).await;
        }
        assert!(!site.log().contains(COMPLAINT), "{}", site.log());
        assert!(site.log().contains("ulimit -n"), "no hint what to do about it\n{}", site.log());
        drop((silent, served));
        let news = worker.end().await;
        assert_eq!((news.disconnected, news.lost, news.refused, news.unknown), (0, 0, 0, 0), "{news:?}");
    });
}

fn a_server_without_descriptors_does_not_spin_and_recovers() {
    block_on(async {
        let mut site = Site::with_server(&[]).await;
        create(&site, &[counted("good", 1_000, 1_000)]).await;
        let mut worker = Workers::start(&site.address(), 1, "good");
        worker.until("a lease", |news| news.taken == 1).await;

        // The limit is lowered under a running server, as if others had taken all files of the machine.
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limit_files = |current| prlimit(Some(site.pid()), Resource::Nofile, Rlimit { current, maximum }).unwrap();
        limit_files(Some(descriptors(site.pid()) as u64));
        let mut hostile = Vec::new();
        for _ in 0..PEERS {
            hostile.push(TcpStream::connect(site.address()).await.unwrap());
        }
        patiently("a complaint", async {
            while !site.log().contains(COMPLAINT) {
                sleep(LOOK).await;
            }
        })
        .await;
        let control = site.control();
        let mut asking = Box::pin(control.status(None));
        let (begin, used) = (Instant::now(), processor_time(site.pid()));
        assert!(timeout(WATCHED, &mut asking).await.is_err(), "nobody can be let in");
        let (passed, used) = (begin.elapsed(), processor_time(site.pid()).saturating_sub(used));
        eprintln!("{used:?} of {passed:?} on a processor while nothing could be accepted, bound 1 in {SHARE_MAX}");
        assert!(used <= passed / SHARE_MAX, "the server spins");
        assert!(site.log().contains("ulimit -n"), "no hint what to do about it\n{}", site.log());

        let before = worker.news().counted;
        for round in 1..=20 {
            worker.order("report");
            worker.until("an answer without any descriptors", |news| news.counted == before + round).await;
        }
        assert_eq!(worker.news().disconnected, 0);

        drop(hostile);
        limit_files(maximum);
        patiently("the answer to whoever waited", asking).await.unwrap();
        assert_eq!(site.log().matches(COMPLAINT).count(), 1, "it complains once a minute at most\n{}", site.log());
        let news = worker.end().await;
        assert_eq!((news.disconnected, news.lost, news.refused, news.unknown), (0, 0, 0, 0), "{news:?}");
        site.kill();
        site.verify();
    });
}
