//! Every place for a connection is taken, or fought for: when does a good client get in?
//!
//! **What is promised.**
//! - Whoever has not introduced itself takes no place from those who have. Of those who are about to, a bounded number is
//!   kept, and whoever arrived first goes first. So holding connections open, even coming back at once, keeps nobody out
//!   who introduces itself without delay: it gets in within [`ENTRY_MAX`].
//! - When all places are taken by peers that did introduce themselves, others are told that the server is busy, and get in
//!   within a wait of theirs ([`Config::backoff_cap`](tenfold::client::Config)) after one of those has left.
//!
//! These servers run in this process, since only so their bounds can be small.

use std::net::SocketAddr;
use std::time::Duration;

use tempfile::tempdir;
use tenfold::client::{Client, Config, Connection, State};
use tenfold::protocol::messages::{ClientMessage, WireControl};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::server::{block_on, patiently};
use crate::server_support::Rig;

pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
    vec![
        trial!("places", silent_peers_keep_nobody_out),
        trial!("places", peers_that_come_back_at_once_keep_nobody_out),
        trial!("places", those_who_are_served_keep_others_out_until_one_leaves),
    ]
}

/// Within this time a good client is served, whatever those do who do not introduce themselves.
const ENTRY_MAX: Duration = Duration::from_secs(5);
/// Places for connections, and how many may be about to take one.
const PLACES: usize = 8;
const NEWCOMERS: usize = 32;
/// Peers that fight for them.
const PEERS: usize = 200;

/// A server with few places, whose patience with newcomers no test outlasts.
async fn crowded(directory: &tempfile::TempDir) -> Rig {
    Rig::start(directory, |config| {
        (config.bounds.connections, config.bounds.newcomers) = (PLACES, NEWCOMERS);
        config.bounds.handshake = Duration::from_hours(1);
    })
    .await
}

/// A good client that asks to be let in; how long it took.
async fn enter(address: SocketAddr) -> (Client, Duration) {
    let asked = Instant::now();
    let client =
        Client::start(Config { backoff_cap: Duration::from_millis(500), ..Config::new([address.to_string()]) })
            .unwrap();
    let mut state = client.watch();
    let connected = |state: &State| matches!(state.connection, Connection::Connected { .. });
    patiently("a place", state.wait_for(connected)).await.unwrap();
    (client, asked.elapsed())
}

fn assert_soon(entry: Duration) {
    eprintln!("a good client was let in after {entry:?}, bound {ENTRY_MAX:?}");
    assert!(entry <= ENTRY_MAX);
}

fn silent_peers_keep_nobody_out() {
    block_on(async {
        let directory = tempdir().unwrap();
        let rig = crowded(&directory).await;
        let mut silent = Vec::new();
        for _ in 0..PEERS {
            silent.push(TcpStream::connect(rig.address).await.unwrap());
        }
        let (client, entry) = enter(rig.address).await;
        assert_soon(entry);
        client.close(ENTRY_MAX).await;
        rig.stop().await;
    });
}

fn peers_that_come_back_at_once_keep_nobody_out() {
    block_on(async {
        let directory = tempdir().unwrap();
        let rig = crowded(&directory).await;
        let mut crowd = JoinSet::new();
        for _ in 0..PEERS {
            let address = rig.address;
            crowd.spawn(async move {
                loop {
                    if let Ok(mut peer) = TcpStream::connect(address).await {
                        let _ = peer.read(&mut [0]).await;
                    }
                }
            });
        }
        let (client, entry) = enter(rig.address).await;
        assert_soon(entry);
        // It stays, and so does another.
        let (another, entry) = enter(rig.address).await;
        assert_soon(entry);
        assert!(matches!(client.watch().borrow().connection, Connection::Connected { .. }));
        another.close(ENTRY_MAX).await;
        crowd.shutdown().await;
        client.close(ENTRY_MAX).await;
        rig.stop().await;
    });
}

fn those_who_are_served_keep_others_out_until_one_leaves() {
    block_on(async {
        let directory = tempdir().unwrap();
        let rig = crowded(&directory).await;
        let mut served = Vec::new();
        for _ in 0..PLACES {
            served.push(rig.control().await);
        }
        let address = rig.address.to_string();
        let client =
            Client::start(Config { backoff_cap: Duration::from_millis(500), ..Config::new([address]) }).unwrap();
        let mut state = client.watch();
        let refused = |state: &State| {
            let Connection::Connecting { last_error: Some(why), .. } = &state.connection else { return false };
            why.contains("as many connections as it can")
        };
        patiently("a refusal that says why", state.wait_for(refused)).await.unwrap();
        for peer in &mut served {
            peer.ask(WireControl::Status { campaign: None, from: 0 }).await;
        }
        let mut leaving = served.pop().unwrap();
        leaving.send(&ClientMessage::Goodbye).await;
        leaving.closing().await;
        let left = Instant::now();
        let connected = |state: &State| matches!(state.connection, Connection::Connected { .. });
        patiently("a place", state.wait_for(connected)).await.unwrap();
        assert_soon(left.elapsed());
        client.close(ENTRY_MAX).await;
        rig.stop().await;
    });
}
