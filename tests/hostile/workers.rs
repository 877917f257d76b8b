//! A process of good clients: each has a session of its own through the client library, takes a lease at a time, and
//! reports when it is told to; and that process as the test sees it.
//!
//! ```text
//!   test ──orders (stdin)──▶ process ──leases, reports──▶ server
//!     ◀────news (stdout)───────┘
//! ```
//!
//! Orders are lines: `report` (every client reports the lease it holds, then takes another), `work` (from now on report at
//! once), `end` (give back, say goodbye, end). News is one line of numbers whenever one changed.
//!
//! **Invariants.** A report counts as answered only when the library said so. The process dies with the test.

use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ExitCode, Stdio};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tenfold::client::{Client, Config, Connection, Lease, Verdict};
use tenfold::types::Want;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::server::{PATIENCE, block_on, dying_with_us};

/// First word of this program when it is to be good clients: SERVER COUNT CAMPAIGN.
pub(crate) const WORKERS: &str = "workers";

/// At most so often news is told.
const NEWS: Duration = Duration::from_millis(5);

/// How these clients stand, all together. Times are in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Leases taken so far.
    pub(crate) taken: u64,
    /// Leases of which the library said that they are lost.
    pub(crate) lost: u64,
    /// Reports that were sent.
    pub(crate) sent: u64,
    /// Reports that were counted,
    pub(crate) counted: u64,
    /// refused,
    pub(crate) refused: u64,
    /// or never answered.
    pub(crate) unknown: u64,
    /// How often a connection was lost.
    pub(crate) disconnected: u64,
    /// All reports were answered within this time,
    pub(crate) slowest: u64,
    /// and half of them within this one; told at the end.
    pub(crate) median: u64,
    /// Whether all clients have ended.
    pub(crate) ended: u64,
}

impl News {
    /// Reports whose answer was read.
    pub(crate) fn answered(&self) -> u64 {
        self.counted + self.refused + self.unknown
    }

    fn numbers(&self) -> [u64; 10] {
        let Self { taken, lost, sent, counted, refused, unknown, disconnected, slowest, median, ended } = *self;
        [taken, lost, sent, counted, refused, unknown, disconnected, slowest, median, ended]
    }
}

impl fmt::Display for News {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.numbers().iter().map(u64::to_string).collect();
        formatter.write_str(&words.join(" "))
    }
}

impl FromStr for News {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>().map_err(|_| ())?;
        let [taken, lost, sent, counted, refused, unknown, disconnected, slowest, median, ended] = numbers[..] else {
            return Err(());
        };
        Ok(Self { taken, lost, sent, counted, refused, unknown, disconnected, slowest, median, ended })
    }
}

/// Such a process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Workers {
    child: Child,
    orders: ChildStdin,
    news: watch::Receiver<News>,
}

impl Workers {
    /// Starts one with `count` clients.
    pub(crate) fn start(server: &str, count: usize, campaign: &str) -> Self {
        Self::start_in_environment(server, count, campaign, &[])
    }

    /// The same, with these variables in its environment.
    pub(crate) fn start_in_environment(
        server: &str,
        count: usize,
        campaign: &str,
        variables: &[(std::ffi::OsString, std::ffi::OsString)],
    ) -> Self {
        let mut command = dying_with_us(&std::env::current_exe().unwrap());
        command.args([WORKERS, server, &count.to_string(), campaign]);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (orders, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, news) = watch::channel(News::default());
        // Ends with the process.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                sender.send_replace(line.parse().unwrap());
            }
        });
        Self { child, orders, news }
    }

    /// Gives an order; it waits in a pipe while the process is stopped.
    pub(crate) fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    /// Gives an order that it may have become too late for: the clients end by themselves when their campaign does.
    pub(crate) fn try_order(&mut self, order: &str) {
        let _ = writeln!(self.orders, "{order}");
    }

    /// What was heard last.
    pub(crate) fn news(&self) -> News {
        *self.news.borrow()
    }

    /// Waits for news of which `holds` is true.
    pub(crate) async fn until(&mut self, what: &str, holds: impl Fn(&News) -> bool) -> News {
        let mut heard = self.news.clone();
        let found = tokio::time::timeout(PATIENCE, heard.wait_for(&holds)).await;
        let found = found.unwrap_or_else(|_| panic!("waited in vain for {what}: {:?}", self.news()));
        *found.unwrap_or_else(|_| panic!("the clients ended instead of {what}: {:?}", self.news()))
    }

    /// Stops it, lets it go on, kills it.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Lets all clients say goodbye; how it went in all.
    pub(crate) async fn end(mut self) -> News {
        self.try_order("end");
        self.until("the clients to end", |news| news.ended == 1).await
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the clients are told.
#[derive(Clone, Copy, Debug, Default)]
struct Orders {
    /// How many leases each may have reported.
    reports: u64,
    work: bool,
    end: bool,
}

#[derive(Debug, Default)]
struct Book {
    news: News,
    latencies: Vec<u64>,
}

/// The process side of [`Workers::start`].
pub(crate) fn main(words: &[String]) -> ExitCode {
    let [server, count, campaign] = words else { panic!("words are missing") };
    block_on(run(server, count.parse().unwrap(), campaign));
    ExitCode::SUCCESS
}

async fn run(server: &str, count: usize, campaign: &str) {
    let (orders, receiver) = watch::channel(Orders::default());
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            orders.send_modify(|orders| match line.as_str() {
                "report" => orders.reports += 1,
                "work" => orders.work = true,
                "end" => orders.end = true,
                other => panic!("not an order: {other}"),
            });
        }
        // Nobody is there any more to wait for the clients.
        std::process::exit(1);
    });
    let book = Arc::new(Mutex::new(Book::default()));
    let mut clients = JoinSet::new();
    for _ in 0..count {
        let want = Want { leases: 1, runs: 1, campaigns: vec![campaign.to_owned()] };
        let client = Client::start(Config { want, until_done: true, ..Config::new([server]) }).unwrap();
        clients.spawn(one(client, receiver.clone(), Arc::clone(&book)));
    }
    let mut told = News::default();
    loop {
        let ended = tokio::select! {
            ended = clients.join_next() => ended.inspect(|ended| assert!(ended.is_ok(), "a client failed")).is_none(),
            () = tokio::time::sleep(NEWS) => false,
        };
        let news = if ended { last_news(&mut book.lock().unwrap()) } else { book.lock().unwrap().news };
        if news != told {
            println!("{news}");
            told = news;
        }
        if ended {
            return;
        }
    }
}

fn last_news(book: &mut Book) -> News {
    let middle = book.latencies.len() / 2;
    let median = if book.latencies.is_empty() { 0 } else { *book.latencies.select_nth_unstable(middle).1 };
    News { median, ended: 1, ..book.news }
}

/// One client, to its end.
async fn one(client: Client, mut orders: watch::Receiver<Orders>, book: Arc<Mutex<Book>>) {
    let watching = tokio::spawn(watch_connection(client.watch(), Arc::clone(&book)));
    let mut reports = 0;
    loop {
        let lease = tokio::select! {
            lease = client.next_lease() => lease,
            _ = orders.wait_for(|orders| orders.end) => None,
        };
        let Some(lease) = lease else { break };
        book.lock().unwrap().news.taken += 1;
        let now = wait_for_orders(&lease, &mut orders, reports, &book).await;
        if now.end {
            break;
        }
        reports += 1;
        report(lease, &book).await;
    }
    watching.abort();
    client.close(PATIENCE).await;
}

/// Waits until a lease may be reported; notes if it is lost meanwhile.
async fn wait_for_orders(
    lease: &Lease,
    orders: &mut watch::Receiver<Orders>,
    reports: u64,
    book: &Mutex<Book>,
) -> Orders {
    let mut lost = false;
    loop {
        tokio::select! {
            now = orders.wait_for(|orders| orders.end || orders.work || orders.reports > reports) => return *now.unwrap(),
            _ = lease.lost(), if !lost => {
                lost = true;
                book.lock().unwrap().news.lost += 1;
            }
        }
    }
}

async fn report(lease: Lease, book: &Mutex<Book>) {
    book.lock().unwrap().news.sent += 1;
    let sent = Instant::now();
    let verdict = lease.done().await;
    let micros = u64::try_from(sent.elapsed().as_micros()).unwrap();
    let mut book = book.lock().unwrap();
    match verdict {
        Verdict::Counted => book.news.counted += 1,
        Verdict::Refused(_) => book.news.refused += 1,
        Verdict::Unknown => book.news.unknown += 1,
    }
    book.news.slowest = book.news.slowest.max(micros);
    book.latencies.push(micros);
}

async fn watch_connection(mut state: watch::Receiver<tenfold::client::State>, book: Arc<Mutex<Book>>) {
    let mut connected = false;
    loop {
        let now = matches!(state.borrow_and_update().connection, Connection::Connected { .. });
        if connected && !now {
            book.lock().unwrap().news.disconnected += 1;
        }
        connected = now;
        if state.changed().await.is_err() {
            return;
        }
    }
}
