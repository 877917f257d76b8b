//! The smallest useful worker: takes a lease, does its runs, reports them, until all is settled.
//!
//! ```text
//! tenfold serve --data-dir ./data
//! tenfold create collatz --range 1..101 --runs 3
//! cargo run --release --example worker -- 127.0.0.1:65432
//! ```
//!
//! It needs the feature `client` alone: neither the store nor the command line comes along. Heartbeats, reconnecting and
//! sending again what was not answered is the library's business, also while this program is busy. Kill the server in the
//! middle and start it again: nothing here has to know.

use std::time::Duration;

use tenfold::client::{Client, Config, Verdict};

#[tokio::main(flavor = "current_thread")]
#[allow(clippy::print_stdout, reason = "the output of an example")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:65432".to_owned());
    let mut config = Config::new([server]);
    config.name = format!("example worker {}", std::process::id());
    config.until_done = true;
    let client = Client::start(config)?;

    while let Some(lease) = client.next_lease().await {
        let (campaign, task) = (lease.campaign().to_owned(), lease.task());
        for index in 0..lease.runs() {
            // A numbered campaign (`create --seed S`) gives every run a seed that is the same whoever executes it.
            let start = lease.seed(index).unwrap_or(task);
            println!("{campaign}: task {task} needs {} steps", steps_to_one(start));
        }
        match lease.done().await {
            Verdict::Counted => {}
            Verdict::Refused(reason) => println!("{campaign}: task {task} was not counted: {reason}"),
            Verdict::Unknown => println!("{campaign}: task {task} may have been counted, or not"),
        }
    }

    client.close(Duration::from_secs(10)).await;
    println!("all is settled");
    Ok(())
}

/// The work: how many steps the Collatz sequence needs from a number to 1.
fn steps_to_one(number: u64) -> u32 {
    let mut number = u128::from(number.max(1));
    let mut steps = 0;
    while number != 1 {
        number = if number % 2 == 0 { number / 2 } else { 3 * number + 1 };
        steps += 1;
    }
    steps
}
