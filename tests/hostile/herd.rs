//! Everybody comes back at the same moment: a server with thousands of clients is killed and started again, twice.
//!
//! ```text
//!   all hold a lease ─▶ all report ─▶ the server dies after a commit, before its answers ─▶ start ─▶ all are answered
//!   all hold a lease ─▶ SIGKILL ─▶ all report to nobody ──────────────────────────────────▶ start ─▶ all are answered
//! ```
//!
//! **What is promised.** Every report is answered, once, as counted, within [`ANSWERED_MAX`] of the start; nothing is
//! counted twice and no lease is lost. A connection costs one descriptor and at most [`CONNECTION_KIB_MAX`]; when the
//! clients have left, the descriptors are back to what they were, and of several herds on the same server the last takes no
//! more memory than the first, within [`GROWTH_KIB_MAX`].

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::process::{descriptors, memory, raise_file_limit};
use crate::raw::{counted, create};
use crate::server::{LOOK, Site, block_on, patiently};
use crate::workers::{News, Workers};

pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
    vec![trial!("herd", everybody_comes_back_at_the_same_moment)]
}

/// Clients, unless `TENFOLD_CLIENTS` says otherwise.
const CLIENTS: usize = 300;
/// Clients of one process.
const PER_PROCESS: usize = 500;
/// From the start of a server until everybody's report is answered.
const ANSWERED_MAX: Duration = Duration::from_mins(1);
/// Memory of the server for each connection, with its session and lease, in KiB.
const CONNECTION_KIB_MAX: u64 = 64;
/// Further herds on one server, one after the other.
const HERDS: usize = 3;
/// What the last of them may take beyond the first, in KiB: as much as the database may still keep of what it read.
const GROWTH_KIB_MAX: u64 = 64 * 1_024;

/// All clients.
struct Herd(Vec<Workers>);

impl Herd {
    fn start(site: &Site, clients: usize) -> Self {
        let sizes = (0..clients.div_ceil(PER_PROCESS)).map(|part| PER_PROCESS.min(clients - part * PER_PROCESS));
        Self(sizes.map(|size| Workers::start(&site.address(), size, "herd")).collect())
    }

    fn order(&mut self, order: &str) {
        self.0.iter_mut().for_each(|workers| workers.order(order));
    }

    fn sum(&self, number: impl Fn(&News) -> u64) -> u64 {
        self.0.iter().map(|workers| number(&workers.news())).sum()
    }

    /// Waits until a number has come up to what all clients together must reach.
    async fn reach(&mut self, what: &str, target: usize, number: impl Fn(&News) -> u64) {
        let reached = async {
            while self.sum(&number) < target as u64 {
                sleep(LOOK).await;
            }
        };
        let in_time = timeout(ANSWERED_MAX, reached).await.is_ok();
        assert!(in_time, "{what}: {} of {target} within {ANSWERED_MAX:?}", self.sum(&number));
        assert_eq!(self.sum(&number), target as u64, "{what}");
    }

    async fn end(self) {
        for workers in self.0 {
            let news = workers.end().await;
            assert_eq!((news.lost, news.refused, news.unknown), (0, 0, 0), "{news:?}");
        }
    }
}

fn everybody_comes_back_at_the_same_moment() {
    let clients = std::env::var("TENFOLD_CLIENTS").map_or(CLIENTS, |text| text.parse().unwrap());
    raise_file_limit();
    block_on(async {
        let mut site = Site::new(&[]);
        site.start_with_fault("after-commit-before-answer:requests@2").await;
        create(&site, &[counted("herd", u32::try_from(clients).unwrap(), 1_000)]).await;
        let mut herd = Herd::start(&site, clients);
        herd.reach("leases", clients, |news| news.taken).await;

        herd.order("report");
        site.died().await;
        restart(&mut site, &mut herd, clients, clients).await;
        herd.reach("new leases", 2 * clients, |news| news.taken).await;

        site.kill();
        herd.order("report");
        herd.reach("reports to nobody", 2 * clients, |news| news.sent).await;
        restart(&mut site, &mut herd, clients, 2 * clients).await;
        herd.reach("new leases", 3 * clients, |news| news.taken).await;

        assert_modest(&site, clients).await;
        herd.end().await;
        assert_left(&site, 2 * clients).await;
        // What the allocator keeps after the first herd of this process is not growth; what a further one adds is.
        let mut taken = Vec::new();
        for _ in 0..HERDS {
            let mut herd = Herd::start(&site, clients);
            herd.reach("leases of another herd", clients, |news| news.taken).await;
            taken.push(assert_modest(&site, clients).await);
            herd.end().await;
            assert_left(&site, 2 * clients).await;
        }
        let growth = taken[HERDS - 1].saturating_sub(taken[0]);
        assert!(growth <= GROWTH_KIB_MAX, "every herd takes more memory, in KiB: {taken:?}");
        site.kill();
        site.verify();
    });
}

/// Starts the server again and waits until every client has got its answer.
async fn restart(site: &mut Site, herd: &mut Herd, clients: usize, reports: usize) {
    site.start().await;
    let begin = Instant::now();
    herd.reach("answers", reports, News::answered).await;
    eprintln!("{clients} reports answered within {:?} of a start, bound {ANSWERED_MAX:?}", begin.elapsed());
    assert_eq!(herd.sum(|news| news.counted), reports as u64, "all are counted");
}

/// What the server takes while everybody is connected, in KiB.
async fn assert_modest(site: &Site, clients: usize) -> u64 {
    let alone = descriptors_alone(site).await;
    let memory = memory(site.pid());
    let bound = 64 * 1_024 + clients as u64 * CONNECTION_KIB_MAX;
    eprintln!(
        "with {clients} clients: {} KiB now, {} KiB at most (bound {bound}), {} descriptors",
        memory.now,
        memory.most,
        descriptors(site.pid())
    );
    assert!(memory.most <= bound, "{memory:?}");
    assert!(descriptors(site.pid()) <= alone + clients, "more than one descriptor a connection");
    memory.now
}

/// Descriptors that a server without connections has: those of a fresh one.
async fn descriptors_alone(site: &Site) -> usize {
    let fresh = Site::with_server(&[]).await;
    // Somebody asks both, so that both have come as far.
    for site in [site, &fresh] {
        site.control().status(None).await.unwrap();
    }
    descriptors(fresh.pid())
}

/// Nothing is left of clients that said goodbye but what they reported, `reports` runs in all.
async fn assert_left(site: &Site, reports: usize) {
    let alone = descriptors_alone(site).await;
    patiently("the descriptors to be free again", async {
        while descriptors(site.pid()) > alone {
            sleep(LOOK).await;
        }
    })
    .await;
    let status = site.control().status(Some("herd")).await.unwrap();
    let books = (status[0].runs_done, status[0].runs_extra, status[0].runs_leased, status[0].losses);
    assert_eq!(books, (reports as u64, 0, 0, 0), "{status:?}");
}
