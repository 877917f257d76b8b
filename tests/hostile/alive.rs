//! Nothing stays stuck: workers end when their campaign does, the runs of a vanished fleet go to others in time, and one
//! bad task does not hold up the rest.
//!
//! **What is promised** (P5, P6). Runs of clients that vanished without a word are lent again within the length of a lease
//! and [`LENT_AGAIN_MAX`]. A worker with `--until-done` ends when all it wants is settled, however that came about; a
//! campaign that was removed is not settled but absent, which is waited for.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tenfold::types::CampaignSpec;
use tokio::time::Instant;

use crate::raw::{counted, create, numbered};
use crate::server::{Site, block_on, dying_with_us, ended, patiently};
use crate::workers::Workers;

pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
    vec![
        trial!("alive", workers_end_when_their_campaign_is_settled),
        trial!("alive", a_removed_campaign_is_waited_for),
        trial!("alive", the_runs_of_a_vanished_fleet_are_lent_again),
        trial!("alive", a_bad_task_is_set_aside_and_the_rest_is_done),
    ]
}

/// From the end of the leases of vanished clients until their runs are lent to others.
const LENT_AGAIN_MAX: Duration = Duration::from_secs(5);

/// A `tenfold work --until-done`, killed when dropped.
struct Work {
    child: Child,
    said: BufReader<std::process::ChildStderr>,
}

impl Work {
    fn start(site: &Site, campaign: &str, script: &str) -> Self {
        let mut command = dying_with_us(Path::new(env!("CARGO_BIN_EXE_tenfold")));
        command.args(["work", campaign, "--until-done", "--", "sh", "-c", script]);
        command.env_remove("TENFOLD_LOG").env("TENFOLD_SERVER", site.address()).current_dir(site.file("."));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        Self { child, said }
    }

    /// Reads what it says until there is `text` in a line.
    fn wait_for(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert_ne!(self.said.read_line(&mut line).unwrap(), 0, "it ended and did not say {text:?}");
        }
    }

    async fn code(&mut self) -> Option<i32> {
        patiently("a worker to end", ended(&mut self.child)).await.code()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Hangs until it is killed; `started` says that it runs.
const HANG: &str = "touch started; exec sleep 3600";

async fn started(site: &Site) {
    patiently("a run to start", async {
        while !site.file("started").exists() {
            tokio::time::sleep(crate::server::LOOK).await;
        }
    })
    .await;
    std::fs::remove_file(site.file("started")).unwrap();
}

fn workers_end_when_their_campaign_is_settled() {
    block_on(async {
        let site = Site::with_server(&[]).await;
        create(&site, &[counted("done", 3, 2), counted("cancelled", 1, 1), counted("failing", 1, 1)]).await;
        for (campaign, script, code) in [("done", "true", 0), ("cancelled", HANG, 11), ("failing", "exit 1", 10)] {
            let mut busy = Work::start(&site, campaign, script);
            if campaign == "cancelled" {
                started(&site).await;
            }
            // There is nothing left to be lent to this one; it ends with the other.
            let mut waiting = Work::start(&site, campaign, script);
            if campaign == "cancelled" {
                waiting.wait_for("waiting: ");
                site.control().cancel(campaign).await.unwrap();
            }
            assert_eq!([busy.code().await, waiting.code().await], [Some(code); 2], "{campaign}");
        }
    });
}

fn a_removed_campaign_is_waited_for() {
    block_on(async {
        let site = Site::with_server(&[]).await;
        create(&site, &[counted("gone", 1, 1)]).await;
        let mut busy = Work::start(&site, "gone", HANG);
        started(&site).await;
        // Only what rests can be removed; those who work on it may go on for now.
        site.control().pause("gone").await.unwrap();
        site.control().remove("gone").await.unwrap();
        busy.wait_for("waiting: there is no campaign named gone");
        let mut again = Work::start(&site, "gone", "true");
        again.wait_for("waiting: there is no campaign named gone");
        create(&site, &[counted("gone", 1, 2)]).await;
        // The run of the first is a new one, and hangs as well.
        started(&site).await;
        kill_process(Pid::from_child(&busy.child), Signal::TERM).unwrap();
        busy.wait_for("finishing");
        kill_process(Pid::from_child(&busy.child), Signal::TERM).unwrap();
        assert_eq!([busy.code().await, again.code().await], [Some(1), Some(0)]);
    });
}

fn the_runs_of_a_vanished_fleet_are_lent_again() {
    const CLIENTS: usize = 50;
    const LEASE: Duration = Duration::from_secs(1);
    block_on(async {
        let site = Site::with_server(&[]).await;
        let runs = u32::try_from(CLIENTS).unwrap();
        let spec = CampaignSpec { lease_ms: Some(LEASE.as_millis() as u64), ..numbered("good", 5, runs / 5) };
        create(&site, &[spec]).await;
        let mut vanished = Workers::start(&site.address(), CLIENTS, "good");
        vanished.until("leases", |news| news.taken == CLIENTS as u64).await;
        let mut others = Workers::start(&site.address(), CLIENTS, "good");
        others.order("work");
        // Stopped, not killed: their connections stay open, as those of a machine without power do.
        vanished.signal(Signal::STOP);
        let begin = Instant::now();
        let news = others.until("the end of the campaign", |news| news.ended == 1).await;
        let passed = begin.elapsed();
        eprintln!(
            "{CLIENTS} runs of a vanished fleet done by others after {passed:?}, bound {:?}",
            LEASE + LENT_AGAIN_MAX
        );
        assert!(passed <= LEASE + LENT_AGAIN_MAX);
        assert_eq!((news.counted, news.lost), (CLIENTS as u64, 0), "{news:?}");
        let status = &site.control().status(Some("good")).await.unwrap()[0];
        assert_eq!((status.finished, status.losses, status.runs_extra), (true, CLIENTS as u64, 0), "{status:?}");
    });
}

fn a_bad_task_is_set_aside_and_the_rest_is_done() {
    block_on(async {
        let site = Site::with_server(&[]).await;
        create(&site, &[numbered("good", 6, 2)]).await;
        let script = "test $TENFOLD_TASK != 3 || { echo poisoned >&2; exit 1; }";
        let mut workers = [(); 2].map(|()| Work::start(&site, "good", script));
        for worker in &mut workers {
            assert_eq!(worker.code().await, Some(10));
        }
        let status = &site.control().status(Some("good")).await.unwrap()[0];
        assert!(status.settled && !status.finished, "{status:?}");
        assert_eq!((status.tasks_done, status.tasks_quarantined, status.runs_done), (5, 1, 10), "{status:?}");
        let page = site.control().counts_page("good", 0).await.unwrap();
        let (_, poisoned) = &page.tasks[3];
        assert_eq!((poisoned.done, poisoned.last_error.as_str()), (0, "poisoned"), "{poisoned:?}");
    });
}
