//! Takes in connections: binds every address, and never spins.
//!
//! How many there may be is the matter of `places`. When the process has no file descriptors left, accepting pauses instead
//! of failing in a loop. Tested in this file, in `tests/server_limits.rs`, and `tests/hostile/descriptors.rs`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::connection::closing;
use super::fatal::in_session;
use super::places::Places;
use super::session::{self, Shared};
use crate::limits;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1_024;
/// How long to wait when a connection cannot be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long to say nothing more about it.
const COMPLAINT_PAUSE: Duration = Duration::from_mins(1);
/// Silence before a peer is probed, the pause between probes, and how many go unanswered before it counts as dead.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_mins(1), Duration::from_secs(15), 4);

/// Binds every address that `text` stands for; connections are not taken in before they are listened to.
///
/// # Errors
/// None of them can be bound.
pub(crate) async fn bind(text: &str) -> io::Result<Vec<TcpSocket>> {
    let mut sockets = Vec::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in tokio::net::lookup_host(with_port(text)).await? {
        match bind_one(address) {
            Ok(socket) => sockets.push(socket),
            Err(error) => failure = error,
        }
    }
    if sockets.is_empty() { Err(failure) } else { Ok(sockets) }
}

fn bind_one(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait for the connections of the server before it.
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() {
        // `::` and `0.0.0.0` are two addresses here, on every system.
        SockRef::from(&socket).set_only_v6(true)?;
    }
    socket.bind(address)?;
    Ok(socket)
}

/// Listens on a bound socket: from now on connections are taken in by the operating system.
///
/// # Errors
/// Somebody else listens there.
pub(crate) fn listen(socket: TcpSocket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)
}

/// `HOST:PORT` of `HOST:PORT` or `HOST`.
fn with_port(text: &str) -> String {
    match text.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, limits::PORT).to_string(),
        Err(_) if text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => text.to_owned(),
        Err(_) => format!("{text}:{}", limits::PORT),
    }
}

/// Takes in connections until the server closes them; returns when all have ended.
pub(crate) async fn accept(listener: TcpListener, places: Places, shared: Arc<Shared>) {
    let mut sessions = JoinSet::new();
    let mut phase = shared.closing.clone();
    let mut complained: Option<Instant> = None;
    loop {
        tokio::select! {
            () = closing(&mut phase) => break,
            Some(ended) = sessions.join_next() => report(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let (newcomer, room) = places.arrive().await;
                    let shared = Arc::clone(&shared);
                    sessions.spawn(in_session(async move {
                        let _room = room;
                        prepare(&stream);
                        session::serve(stream, peer, newcomer, shared).await;
                    }));
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if complained.is_none_or(|last| last.elapsed() >= COMPLAINT_PAUSE) {
                        complained = Some(Instant::now());
                        let hint = hint(&error);
                        tracing::error!("cannot accept connections, trying again every {ACCEPT_PAUSE:?}: {error}{hint}");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    while let Some(ended) = sessions.join_next().await {
        report(ended);
    }
}

/// What an operator can do about connections that cannot be accepted.
fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE) => "; every connection is a file: raise the limit of this process (ulimit -n)",
        Some(libc::ENFILE) => "; every connection is a file: raise the limit of this machine (sysctl fs.file-max)",
        Some(_) | None => "",
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(panic) = ended {
        tracing::error!("a session failed, its connection was closed: {panic}");
    }
}

fn prepare(stream: &TcpStream) {
    let (idle, interval, retries) = KEEPALIVE;
    let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(retries);
    // Without these options a connection is slower, or its death noticed later; it still works.
    if let Err(error) = stream.set_nodelay(true).and_then(|()| SockRef::from(stream).set_tcp_keepalive(&keepalive)) {
        tracing::debug!("a socket option cannot be set: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_added_where_none_is_given() {
        for (text, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("127.0.0.1", "127.0.0.1:65432"),
            ("[::1]:0", "[::1]:0"),
            ("::1", "[::1]:65432"),
            ("localhost", "localhost:65432"),
            ("localhost:7", "localhost:7"),
        ] {
            assert_eq!(with_port(text), expected);
        }
    }

    #[tokio::test]
    async fn dead_peers_are_probed_for_on_every_connection() {
        let listener = listen(bind("127.0.0.1:0").await.unwrap().remove(0)).unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        prepare(&stream);
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && stream.nodelay().unwrap());
        let (idle, interval, retries) = KEEPALIVE;
        assert_eq!(socket.tcp_keepalive_time().unwrap(), idle);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), interval);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), retries);
    }
}
