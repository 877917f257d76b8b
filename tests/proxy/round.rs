//! One round: a server, all clients through the proxy, the server killed twice in the middle, and what must be so when all
//! has settled.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use tenfold::types::{CampaignSpec, CreationId, Order, Tasks};
use tenfold_checker::file::{Tail, Writer};
use tenfold_checker::history::{Change, Instance, Kind, Moment, Record, Row, Standing, TEST};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::clients::{self, ANSWERS, Place};
use crate::proxy::{Proxy, Tally};
use crate::random::Random;
use crate::server::{LOOK, Site, block_on, ended, patiently};

/// Rounds of plain `cargo test`.
const ROUNDS: u64 = 1;

/// From so many rounds on, something that never happened is a defect of this test.
const ROUNDS_OF_EVERYTHING: u64 = 20;

/// Times that the server is killed in a round.
const KILLS: u64 = 2;

pub(crate) fn trials() -> Vec<Trial> {
    vec![Trial::test("nothing_is_lost_or_invented_by_a_bad_network", || {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
        let first = number("TENFOLD_SEED").unwrap_or(1);
        let rounds = number("TENFOLD_SEEDS").unwrap_or(ROUNDS);
        let tally = Arc::new(Tally::default());
        for seed in first..first + rounds {
            let failed = block_on(round(seed, Arc::clone(&tally)));
            if let Err(what) = failed {
                return Err(Failed::from(format!("{what}\nagain: TENFOLD_SEED={seed} cargo test --test proxy")));
            }
        }
        let figures = tally.figures();
        eprintln!("{rounds} rounds from seed {first}: {figures:?}");
        let never = figures.iter().find(|(_, times)| *times == 0);
        if let (Some((what, _)), true) = (never, rounds >= ROUNDS_OF_EVERYTHING) {
            return Err(format!("{what}: never in {rounds} rounds").into());
        }
        Ok(())
    })]
}

async fn round(seed: u64, tally: Arc<Tally>) -> Result<(), String> {
    eprintln!("seed {seed}; again: TENFOLD_SEED={seed} cargo test --test proxy");
    let mut random = Random::new(seed);
    let mut site = Site::with_server(&["--origin-campaign", "origin"]).await;
    let path = site.file("history");
    let writer = Writer::open(&path, TEST).unwrap();
    let write = |record: Record| writer.write(&record).unwrap();
    let instance = instance(&mut site).await;
    write(Record::Boot { instance });
    write(Record::Ready);
    for spec in specs() {
        create(&site, &spec, &writer).await;
    }
    let proxy = Proxy::start(site.address(), Random::new(random.number()), tally).await;
    let place =
        |campaign: &str| Place { server: proxy.address(), history: path.clone(), campaign: campaign.to_owned() };
    let mut busy = JoinSet::new();
    for who in 1..=6 {
        let campaign = if who % 2 == 0 { "counted" } else { "numbered" };
        busy.spawn(clients::native(who, place(campaign), instance, Random::new(random.number())));
    }
    for who in 7..=8 {
        busy.spawn(clients::origin(who, place("origin"), Random::new(random.number())));
    }
    let executed = site.file("executed");
    let mut worker = clients::command_line(&place("shell"), &executed, &site.file("log"));
    for _ in 0..KILLS {
        answers(random.within(30..=80), &mut busy).await;
        write(Record::KilledServer);
        site.kill();
        dump(&site, &writer, Moment::Recovered);
        sleep(Duration::from_millis(random.within(0..=200))).await;
        site.start().await;
        write(Record::Boot { instance });
        write(Record::Ready);
    }
    answers(random.within(30..=80), &mut busy).await;
    proxy.calm();
    write(Record::Calm);
    let all = async {
        while let Some(ended) = busy.join_next().await {
            ended.unwrap();
        }
    };
    patiently("the clients to see that all is settled", all).await;
    let status = patiently("`tenfold work` to end", ended(&mut worker)).await;
    assert!(status.success(), "`tenfold work` ended with {status}");
    look(&site, &writer).await;
    shell(&site, &fs::read_to_string(executed).unwrap()).await;
    write(Record::KilledServer);
    site.kill();
    dump(&site, &writer, Moment::Rest);
    write(Record::End);
    let report = tenfold_checker::check(&Tail::open(&path).unwrap().all().unwrap());
    eprintln!("{}", report.figures);
    if report.violations.is_empty() && report.ended { Ok(()) } else { Err(report.to_string()) }
}

/// Waits until clients have read so many more answers, or have all ended.
async fn answers(more: u64, busy: &mut JoinSet<()>) {
    let goal = ANSWERS.load(Ordering::Relaxed) + more;
    let enough = async {
        while ANSWERS.load(Ordering::Relaxed) < goal && !busy.is_empty() {
            while let Some(ended) = busy.try_join_next() {
                ended.unwrap();
            }
            sleep(LOOK).await;
        }
    };
    patiently("answers", enough).await;
}

/// The data directory's name, which only a server that does not run tells.
async fn instance(site: &mut Site) -> Instance {
    site.kill();
    let report = tenfold::store::verify(&site.file("data")).unwrap();
    site.start().await;
    Instance(report.instance.0)
}

/// Runs that every task of every campaign is to get.
const RUNS: u32 = 10;

fn specs() -> [CampaignSpec; 4] {
    ["counted", "numbered", "origin", "shell"].map(|name| CampaignSpec {
        name: name.to_owned(),
        tasks: Tasks::Range { first: 0, count: if name == "shell" { 5 } else { 20 } },
        runs: RUNS,
        seed: (name == "numbered").then_some(7),
        order: Order::Even,
        // Short enough for some to end while a connection is held up, long enough for most to live.
        lease_ms: Some(600),
        timeout_ms: None,
        errors_max: None,
        losses_max: None,
    })
}

async fn create(site: &Site, spec: &CampaignSpec, writer: &Writer) {
    let mut creation = [0; 16];
    creation[..spec.name.len()].copy_from_slice(spec.name.as_bytes());
    // What the command line reports is not written down, so its campaign is not the checker's.
    let checked = spec.name != "shell";
    if checked {
        let record = Record::Create {
            campaign: spec.name.clone(),
            tasks: spec.tasks.count(),
            quota: spec.runs,
            kind: if spec.seed.is_some() { Kind::Numbered } else { Kind::Counted },
            lease_ms: spec.lease_ms,
            timeout_ms: spec.timeout_ms,
            errors_max: spec.errors_max,
            losses_max: spec.losses_max,
        };
        writer.write(&record).unwrap();
    }
    site.control().create(CreationId(creation), spec, &[]).await.unwrap();
    if checked {
        writer.write(&Record::Done { campaign: spec.name.clone(), change: Change::Create }).unwrap();
    }
}

/// Writes down what a killed server left, but for the command line's campaign, of which the history knows nothing.
fn dump(site: &Site, writer: &Writer, moment: Moment) {
    writer.write(&Record::Dump { moment }).unwrap();
    let dump = site.dump();
    let shell = dump.rows.iter().find(|row| matches!(row, Row::Campaign { name, .. } if name == "shell"));
    let campaign = |row: &Row| match row {
        Row::Campaign { id: campaign, .. }
        | Row::Task { campaign, .. }
        | Row::Returned { campaign, .. }
        | Row::Lease { campaign, .. } => Some(*campaign),
        Row::Session { .. } => None,
    };
    let shell = shell.and_then(campaign);
    let rows = dump.rows.into_iter().filter(|row| campaign(row).is_none() || campaign(row) != shell);
    let rows = rows.map(|row| Record::Row { row });
    let records: Vec<Record> = rows.chain([Record::Dumped { digest: dump.digest }]).collect();
    writer.write_all(&records).unwrap();
}

/// What an observer sees when all is over.
async fn look(site: &Site, writer: &Writer) {
    let control = site.control();
    writer.write(&Record::Look).unwrap();
    for status in control.status(None).await.unwrap() {
        let campaign = status.spec.name;
        if campaign == "shell" {
            continue;
        }
        let standing = match (status.finished, status.settled) {
            (true, _) => Standing::Finished,
            (false, true) => Standing::Settled,
            (false, false) => Standing::Open,
        };
        let (done, extra) = (status.runs_done, status.runs_extra);
        writer.write(&Record::Status { campaign: campaign.clone(), standing, done, extra }).unwrap();
        for count in control.counts_page(&campaign, 0).await.unwrap().tasks {
            let record = Record::Count {
                campaign: campaign.clone(),
                task: count.1.index.0,
                done: count.1.done,
                extra: count.1.extra,
                leased: count.1.leased,
                quarantined: false,
            };
            writer.write(&record).unwrap();
        }
    }
    writer.write(&Record::Looked).unwrap();
}

/// The command line's runs: each quota is met, and nothing is counted that was not executed.
async fn shell(site: &Site, executed: &str) {
    let mut executions: BTreeMap<u32, u32> = BTreeMap::new();
    for task in executed.lines() {
        *executions.entry(task.parse().unwrap()).or_default() += 1;
    }
    for (_, count) in site.control().counts_page("shell", 0).await.unwrap().tasks {
        let there = executions.get(&count.index.0).copied().unwrap_or(0);
        assert_eq!(count.done, RUNS, "task {} of the command line's campaign", count.index.0);
        assert!(count.done + count.extra <= there, "{count:?} of {there} executions");
    }
}
