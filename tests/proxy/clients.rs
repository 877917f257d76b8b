//! Who works: clients on the library, clients of the origin's dialect, and the command line; the first two write down
//! what they are about to do and what they have seen.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tenfold::client::{Answer, Client, Config, Lease, Verdict};
use tenfold::protocol::origin::{AnswerDecoder, encode_message};
use tenfold::types::{Outcome, RefusalReason, Want};
use tenfold_checker::file::Writer;
use tenfold_checker::history::{Heard, Instance, Origin, Reason, Record, Sent, Session, Units, Who};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::random::Random;
use crate::server::{PATIENCE, dying_with_us};

/// Answers that clients of all kinds have read so far: how far a round is.
pub(crate) static ANSWERS: AtomicU64 = AtomicU64::new(0);

/// Where a client works and writes.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) server: String,
    pub(crate) history: PathBuf,
    pub(crate) campaign: String,
}

/// Works on the library until all is settled.
pub(crate) async fn native(who: Who, place: Place, instance: Instance, mut random: Random) {
    let writer = Arc::new(Writer::open(&place.history, who).unwrap());
    let mut config = Config::new([place.server]);
    let (leases, runs) = (random.within(1..=4) as u32, random.within(1..=3) as u32);
    config.want = Want { leases, runs, campaigns: vec![place.campaign] };
    config.until_done = true;
    config.backoff_first = Duration::from_millis(5);
    config.backoff_cap = Duration::from_millis(50);
    writer.write(&Record::UntilDone).unwrap();
    let client = Client::start(config).unwrap();
    let mut session = None;
    let mut busy = JoinSet::new();
    while let Some(lease) = client.next_lease().await {
        if session.replace(lease.session()) != Some(lease.session()) {
            let session = Session(lease.session().0);
            writer.write(&Record::Begin { session, instance: Some(instance) }).unwrap();
        }
        let granted = Record::Grant {
            lease: lease.id().to_u64(),
            campaign: lease.campaign().to_owned(),
            task: lease.index().0,
            first: lease.first_run(),
            runs: lease.runs(),
        };
        writer.write(&granted).unwrap();
        busy.spawn(work(lease, Arc::clone(&writer), Random::new(random.number())));
        while let Some(worked) = busy.try_join_next() {
            worked.unwrap();
        }
    }
    while let Some(worked) = busy.join_next().await {
        worked.unwrap();
    }
    writer.write(&Record::Closing).unwrap();
    let closed = client.close(PATIENCE).await;
    assert!(closed.unanswered.is_empty(), "unanswered: {:?}", closed.unanswered);
    writer.write(&Record::Closed { goodbye: closed.said_goodbye }).unwrap();
}

/// Does something with a lease, after a while that stands for the work.
async fn work(lease: Lease, writer: Arc<Writer>, mut random: Random) {
    sleep(Duration::from_millis(random.within(0..=25))).await;
    let runs = lease.runs();
    let outcome = match random.within(0..=99) {
        0..75 => Outcome::Done { runs },
        75..85 => Outcome::Done { runs: random.within(1..=u64::from(runs)) as u32 },
        85..92 => Outcome::Mixed { done: 0, failed: 1, error: "it was told to fail".to_owned() },
        _ => return release(lease, &writer).await,
    };
    let what = match &outcome {
        Outcome::Done { runs } => Sent::Done { runs: *runs },
        Outcome::Mixed { done, failed, .. } => Sent::Mixed { done: *done, failed: *failed },
    };
    if lease.is_lost() {
        writer.write(&Record::Lost { lease: lease.id().to_u64() }).unwrap();
    }
    let id = lease.id().to_u64();
    let send = |number| writer.write(&Record::Send { number, lease: id, what }).unwrap();
    hear(lease.report_noted(outcome, send), &writer).await;
}

async fn release(lease: Lease, writer: &Writer) {
    let id = lease.id().to_u64();
    let send = |number| writer.write(&Record::Send { number, lease: id, what: Sent::Release }).unwrap();
    hear(lease.release_noted(send), writer).await;
}

async fn hear(answer: Answer, writer: &Writer) {
    let number = answer.number();
    let heard = match answer.await {
        Verdict::Counted => Heard::Counted,
        Verdict::Refused(reason) => Heard::Refused {
            reason: match reason {
                RefusalReason::NotHeld => Reason::NotHeld,
                RefusalReason::Ended => Reason::Ended,
                RefusalReason::Gone => Reason::Gone,
                RefusalReason::BadRuns => Reason::BadRuns,
            },
        },
        Verdict::Unknown => Heard::Unknown,
    };
    writer.write(&Record::Ack { number, heard }).unwrap();
    ANSWERS.fetch_add(1, Ordering::Relaxed);
}

/// Works in the origin's dialect until all is settled; connects anew whenever the connection ends.
pub(crate) async fn origin(who: Who, place: Place, mut random: Random) {
    let writer = Writer::open(&place.history, who).unwrap();
    let mut connection = u64::from(who) << 32;
    let mut settled = false;
    while !settled {
        connection += 1;
        let Ok(stream) = TcpStream::connect(&place.server).await else { continue };
        writer.write(&Record::OriginOpen { connection, campaign: place.campaign.clone() }).unwrap();
        settled = talk(stream, connection, &writer, &mut random).await;
        writer.write(&Record::OriginEnd { connection }).unwrap();
        sleep(Duration::from_millis(random.within(1..=20))).await;
    }
}

/// One connection; whether all is settled.
async fn talk(mut stream: TcpStream, connection: u64, writer: &Writer, random: &mut Random) -> bool {
    let mut decoder = AnswerDecoder::default();
    let mut task = None;
    loop {
        let done: Vec<Units> = task.iter().map(|task| Units { task: *task, units: 1 }).collect();
        let message: Vec<(u64, u64)> = done.iter().map(|one| (u64::from(one.task), u64::from(one.units))).collect();
        writer.write(&Record::OriginSend { connection, done }).unwrap();
        if stream.write_all(&encode_message(&message)).await.is_err() {
            return false;
        }
        // The origin's clients give up on a silent server after a while.
        let patience = Duration::from_secs(3);
        let Ok(Some(answer)) = timeout(patience, next_answer(&mut stream, &mut decoder)).await else { return false };
        let (said, next) = match u32::try_from(answer) {
            Ok(task) => (Origin::Task { task }, Some(task)),
            Err(_) if answer == -1 => (Origin::Settled, None),
            Err(_) => (Origin::Wait, None),
        };
        writer.write(&Record::OriginAnswer { connection, answer: said }).unwrap();
        ANSWERS.fetch_add(1, Ordering::Relaxed);
        match said {
            Origin::Settled => return true,
            Origin::Wait => sleep(Duration::from_millis(50)).await,
            Origin::Task { .. } => sleep(Duration::from_millis(random.within(0..=20))).await,
        }
        task = next;
    }
}

async fn next_answer(stream: &mut TcpStream, decoder: &mut AnswerDecoder) -> Option<i64> {
    let mut piece = [0; 256];
    loop {
        if let Some(answer) = decoder.next_answer().unwrap() {
            return Some(answer);
        }
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return None,
            Ok(length) => decoder.push(&piece[..length]),
        }
    }
}

/// Starts `tenfold work`, whose runs each add a line to `executed`.
pub(crate) fn command_line(place: &Place, executed: &Path, log: &Path) -> Child {
    let log = std::fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
    let mut command = dying_with_us(Path::new(env!("CARGO_BIN_EXE_tenfold")));
    command.args(["work", &place.campaign, "-j", "2", "--until-done", "--server", &place.server, "--"]);
    command.args(["sh", "-c", r#"echo "$TENFOLD_TASK" >> "$EXECUTED""#]).env("EXECUTED", executed);
    command.env_remove("TENFOLD_LOG").env_remove("TENFOLD_SERVER");
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}
