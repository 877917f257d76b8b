//! The clients: connections in one thread that report what they were lent as soon as they are lent it.
//!
//! ```text
//!   greet ──▶ work ──▶ report all of it in one message ──▶ answer and new work ──▶ report …
//! ```
//!
//! A cycle is from a report to the new work that follows it: all that was reported has been counted durably, and there is
//! something to do. Says `begin` when all are under way, then, after the measured time and a cycle at least, one line of figures.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::connection::{Connection, Readiness};

/// Before the measured time.
const WARM_UP: Duration = Duration::from_millis(500);

/// What a client says, in the words of its server.
pub(crate) trait Client {
    /// Introduces itself and asks for the first work.
    fn greet(&mut self, out: &mut Vec<u8>);

    /// Takes what it understands of what was received. Once that is all the work it asked for, reports it and asks for more.
    fn turn(&mut self, received: &mut Vec<u8>, out: &mut Vec<u8>);

    /// Says good-bye.
    fn leave(&mut self, out: &mut Vec<u8>);
}

/// A client on its connection.
struct Connected<C> {
    client: C,
    connection: Connection,
    /// When the report was sent that is not answered yet.
    sent: Option<Instant>,
    out: Vec<u8>,
}

impl<C: Client> Connected<C> {
    fn new(address: &str, mut client: C) -> Self {
        let mut connection = Connection::new(TcpStream::connect(address).unwrap());
        let mut out = Vec::new();
        client.greet(&mut out);
        connection.write(&out);
        Self { client, connection, sent: None, out }
    }

    /// Reads what came; how long the cycle took that ended with it.
    fn turn(&mut self) -> Option<Duration> {
        self.connection.read();
        assert!(self.connection.open, "the server has closed a connection");
        self.out.clear();
        self.client.turn(&mut self.connection.received, &mut self.out);
        if self.out.is_empty() {
            return None;
        }
        let took = self.sent.map(|sent| sent.elapsed());
        self.sent = Some(Instant::now());
        self.connection.write(&self.out);
        took
    }

    fn leave(&mut self) {
        self.out.clear();
        self.client.leave(&mut self.out);
        self.connection.write(&self.out);
    }
}

/// `client` makes them, by number.
pub(crate) fn run<C: Client>(address: &str, clients: u32, seconds: f64, client: impl Fn(u32) -> C) {
    let mut readiness = Readiness::new();
    let mut all: Vec<Connected<C>> = (0..clients).map(|number| Connected::new(address, client(number))).collect();
    for (number, client) in all.iter().enumerate() {
        readiness.add(&client.connection, number as u64);
    }
    let (mut begin, mut latencies) = (Instant::now() + WARM_UP, Vec::<u32>::new());
    let length = Duration::from_secs_f64(seconds);
    let mut measuring = false;
    loop {
        for number in readiness.wait() {
            if let Some(took) = all[number as usize].turn()
                && measuring
            {
                latencies.push(took.as_micros() as u32);
            }
        }
        let now = Instant::now();
        if !measuring && now >= begin {
            println!("begin");
            (begin, measuring) = (Instant::now(), true);
        } else if measuring && now >= begin + length && !latencies.is_empty() {
            break;
        }
    }
    let elapsed = begin.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or(0);
    println!("{} {elapsed} {} {} {}", latencies.len(), at(0.5), at(0.99), at(0.999));
    all.iter_mut().for_each(Connected::leave);
}
