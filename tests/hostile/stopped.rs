//! Processes that stand still for longer than every lease, and then go on as if nothing had happened.
//!
//! **What is promised.** The late report of a client that was stopped counts, once, whatever became of its run meanwhile
//! (P7, rule S9). When the server itself was stopped, no lease ends for that: those of live clients are kept, and those of
//! dead ones end as much later as the server stood still, but for a second (P8).

use std::time::Duration;

use rustix::process::Signal;
use tenfold::types::CampaignSpec;
use tokio::time::{Instant, sleep};

use crate::raw::{Session, counted, counts, create, numbered};
use crate::server::{Site, block_on, patiently};
use crate::workers::Workers;

pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
    vec![
        trial!("stopped", a_late_report_of_a_done_run_is_extra),
        trial!("stopped", a_late_report_of_a_run_that_is_lent_again_counts),
        trial!("stopped", a_late_report_of_a_run_that_nobody_took_counts),
        trial!("stopped", a_stopped_server_takes_no_lease_from_anybody),
    ]
}

/// Length of the leases here.
const LEASE: Duration = Duration::from_millis(500);

/// A stall may be taken for so much of time that went by.
const MOVED_AT_MOST: Duration = Duration::from_millis(tenfold::limits::CLOCK_STEP_MS_MAX);

/// One run of one task, lent for a moment.
fn specs() -> [CampaignSpec; 2] {
    let short = |spec| CampaignSpec { lease_ms: Some(LEASE.as_millis() as u64), ..spec };
    [short(counted("counted", 1, 1)), short(numbered("numbered", 1, 1))]
}

/// A client that holds the only run, and is stopped with the order to report it.
async fn stop_a_holder(site: &Site, campaign: &str) -> Workers {
    let mut holder = Workers::start(&site.address(), 1, campaign);
    holder.until("a lease", |news| news.taken == 1).await;
    holder.signal(Signal::STOP);
    holder.order("report");
    holder
}

/// Another client that holds the run in its place.
async fn heir(site: &Site, campaign: &str) -> Workers {
    let mut heir = Workers::start(&site.address(), 1, campaign);
    heir.until("the run of the client that was stopped", |news| news.taken == 1).await;
    heir
}

/// Runs done, extra ones, and those lent now, of the only task.
async fn books(site: &Site, campaign: &str) -> (u32, u32, u32) {
    counts(&site.control(), campaign).await[0]
}

fn a_late_report_of_a_done_run_is_extra() {
    block_on(async {
        let site = Site::with_server(&[]).await;
        create(&site, &specs()).await;
        for CampaignSpec { name, .. } in specs() {
            let mut late = stop_a_holder(&site, &name).await;
            let mut heir = heir(&site, &name).await;
            heir.order("report");
            heir.until("an answer", |news| news.counted == 1).await;
            assert_eq!(books(&site, &name).await, (1, 0, 0), "{name}");
            late.signal(Signal::CONT);
            late.until("the answer to the late report", |news| news.answered() == 1).await;
            assert_eq!((late.news().counted, books(&site, &name).await), (1, (1, 1, 0)), "{name}");
            late.until("the end", |news| news.ended == 1).await;
            heir.until("the end", |news| news.ended == 1).await;
            assert_eq!(books(&site, &name).await, (1, 1, 0), "{name}");
        }
    });
}

fn a_late_report_of_a_run_that_is_lent_again_counts() {
    block_on(async {
        let site = Site::with_server(&[]).await;
        create(&site, &specs()).await;
        for CampaignSpec { name, .. } in specs() {
            let mut late = stop_a_holder(&site, &name).await;
            let mut heir = heir(&site, &name).await;
            late.signal(Signal::CONT);
            late.until("the answer to the late report", |news| news.answered() == 1).await;
            assert_eq!(late.news().counted, 1, "{name}");
            let (done, extra, _) = books(&site, &name).await;
            assert_eq!((done, extra), (1, 0), "{name}");
            if name == "numbered" {
                // Runs of a counted campaign have no identity: there its lease might be about another.
                heir.until("word that the run is done", |news| news.lost == 1).await;
            }
            heir.order("report");
            heir.until("an answer", |news| news.answered() == 1).await;
            assert_eq!((heir.news().counted, books(&site, &name).await), (1, (1, 1, 0)), "{name}");
        }
    });
}

fn a_late_report_of_a_run_that_nobody_took_counts() {
    block_on(async {
        let site = Site::with_server(&[]).await;
        create(&site, &specs()).await;
        for CampaignSpec { name, .. } in specs() {
            let mut late = stop_a_holder(&site, &name).await;
            patiently("the lease to end", async {
                while books(&site, &name).await.2 > 0 {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            late.signal(Signal::CONT);
            late.until("the answer to the late report", |news| news.answered() == 1).await;
            let (done, extra, _) = books(&site, &name).await;
            assert_eq!((late.news().counted, done, extra), (1, 1, 0), "{name}");
            // It may have been lent the run again when it was heard, a moment before its report.
            late.try_order("end");
            late.until("the end", |news| news.ended == 1).await;
            assert_eq!(books(&site, &name).await, (1, 0, 0), "{name}");
        }
    });
}

fn a_stopped_server_takes_no_lease_from_anybody() {
    const CLIENTS: u32 = 20;
    const LEASE: Duration = Duration::from_secs(2);
    block_on(async {
        let site = Site::with_server(&[]).await;
        let spec = CampaignSpec { lease_ms: Some(LEASE.as_millis() as u64), ..numbered("good", CLIENTS + 1, 1) };
        create(&site, &[spec]).await;
        let mut live = Workers::start(&site.address(), CLIENTS as usize, "good");
        live.until("leases", |news| news.taken == u64::from(CLIENTS)).await;
        let mut dead = Session::new(1);
        let (mut dead, _) = dead.connect(&site).await;
        dead.want(1, 1).await;
        dead.grants().await;
        let granted = Instant::now();
        // There is nothing left for one more, until the dead one's run is free.
        let mut heir = Workers::start(&site.address(), 1, "good");

        // For longer than every lease.
        site.signal(Signal::STOP);
        let before = granted.elapsed();
        sleep(LEASE + LEASE / 2).await;
        site.signal(Signal::CONT);
        let resumed = Instant::now();

        heir.until("the run of the dead client", |news| news.taken == 1).await;
        let lived = before + resumed.elapsed();
        assert!(lived + MOVED_AT_MOST >= LEASE, "a lease of {LEASE:?} lived for {lived:?}, as the server could know");
        assert_eq!((live.news().lost, live.news().taken), (0, u64::from(CLIENTS)), "{:?}", live.news());
        let status = &site.control().status(Some("good")).await.unwrap()[0];
        assert_eq!((status.losses, status.runs_leased), (1, u64::from(CLIENTS) + 1), "{status:?}");
        live.order("report");
        heir.order("report");
        heir.until("an answer", |news| news.counted == 1).await;
        let news = live.until("the end of the campaign", |news| news.ended == 1).await;
        assert_eq!((news.counted, news.lost, news.disconnected), (u64::from(CLIENTS), 0, 0), "{news:?}");
        let status = &site.control().status(Some("good")).await.unwrap()[0];
        assert_eq!((status.finished, status.runs_extra, status.losses), (true, 0, 1), "{status:?}");
    });
}
