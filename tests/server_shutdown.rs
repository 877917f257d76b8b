//! How a server stops and starts again: draining, a second request, and what must not start at all.

#![cfg(feature = "server")]

mod server_support;

use std::time::Duration;

use server_support::{Rig, config, patiently, spec};
use tempfile::tempdir;
use tenfold::protocol::messages::{ServerMessage, WireClosing, WireControl, WireIdle};
use tenfold::server::{Server, StartError, Stopped};
use tenfold::store::OpenError;

#[tokio::test]
async fn with_nothing_lent_it_stops_at_once_and_tells_everybody() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |config| config.drain = Duration::from_hours(1)).await;
    let mut peers = [rig.control().await, rig.session(1).await];
    let mut origin = rig.origin().await;
    assert_eq!(origin.ask(&[]).await, -2);
    let mut silent = rig.raw().await;
    silent.send(b"G").await;
    let stopped = tokio::spawn(rig.stop());
    for peer in &mut peers {
        assert_eq!(peer.closing().await.0, WireClosing::Shutdown);
    }
    assert_eq!(origin.answer().await, None);
    assert_eq!(silent.rest().await, b"");
    drop(peers);
    assert_eq!(stopped.await.unwrap(), Stopped::Drained);
}

#[tokio::test]
async fn a_drain_lends_nothing_takes_reports_and_ends_with_the_last_one() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |config| config.drain = Duration::from_hours(1)).await;
    rig.control().await.create(spec("c", 10, 1)).await;
    let mut worker = rig.session(1).await;
    worker.want(2).await;
    let grants = worker.grants().await;
    assert_eq!(grants.len(), 2);
    rig.stops.send(()).await.unwrap();
    // Somebody who comes while it drains is let in, to report; but is lent nothing.
    let mut late = rig.session(2).await;
    late.want(1).await;
    assert_eq!(late.next().await, ServerMessage::Idle(WireIdle::Closed));
    worker.report(1, grants[0].lease).await;
    loop {
        let message = worker.next().await;
        assert!(!matches!(message, ServerMessage::Grants { .. }), "{message:?}");
        if matches!(message, ServerMessage::Answers { through: 1, .. }) {
            break;
        }
    }
    assert!(!rig.has_ended(), "a lease is left");
    worker.report(2, grants[1].lease).await;
    loop {
        if matches!(worker.next().await, ServerMessage::Answers { through: 2, .. }) {
            break;
        }
    }
    assert_eq!(worker.closing().await.0, WireClosing::Shutdown);
    assert_eq!(late.closing().await.0, WireClosing::Shutdown);
    drop((worker, late));
    assert_eq!(rig.ended().await, Stopped::Drained);

    let rig = Rig::start(&directory, |_| ()).await;
    let counts = rig.control().await.counts("c").await;
    assert_eq!(counts.iter().map(|count| count.done).sum::<u32>(), 2);
}

#[tokio::test]
async fn a_drain_ends_when_its_time_is_over_and_leases_survive() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |config| config.drain = Duration::from_millis(30)).await;
    rig.control().await.create(spec("c", 10, 1)).await;
    let mut worker = rig.session(1).await;
    worker.want(1).await;
    worker.grants().await;
    let stopped = tokio::spawn(rig.stop());
    assert_eq!(worker.closing().await.0, WireClosing::Shutdown);
    drop(worker);
    assert_eq!(stopped.await.unwrap(), Stopped::Drained);
    let rig = Rig::start(&directory, |_| ()).await;
    let counts = rig.control().await.counts("c").await;
    assert_eq!(counts.iter().map(|count| count.leased).sum::<u32>(), 1, "its holder may still report");
}

#[tokio::test]
async fn a_drain_ends_when_nobody_is_there_to_report() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |config| config.drain = Duration::from_hours(1)).await;
    rig.control().await.create(spec("c", 10, 1)).await;
    let mut worker = rig.session(1).await;
    worker.want(1).await;
    worker.grants().await;
    rig.stops.send(()).await.unwrap();
    drop(worker);
    assert_eq!(rig.ended().await, Stopped::Drained);
}

#[tokio::test]
async fn a_second_request_stops_at_once_and_loses_nothing() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |config| config.drain = Duration::from_hours(1)).await;
    rig.control().await.create(spec("c", 10, 1)).await;
    let mut worker = rig.session(1).await;
    worker.want(2).await;
    let grants = worker.grants().await;
    worker.report(1, grants[0].lease).await;
    assert!(matches!(worker.next().await, ServerMessage::Answers { through: 1, .. }));
    rig.stops.send(()).await.unwrap();
    rig.stops.send(()).await.unwrap();
    assert_eq!(rig.ended().await, Stopped::AtOnce);
    while worker.next_or_end().await.is_some() {}

    let rig = Rig::start(&directory, |_| ()).await;
    let counts = rig.control().await.counts("c").await;
    assert_eq!(counts.iter().map(|count| count.done).sum::<u32>(), 1);
    assert_eq!(counts.iter().map(|count| count.leased).sum::<u32>(), 2);
}

#[tokio::test]
async fn a_directory_in_use_is_refused_and_named() {
    let directory = tempdir().unwrap();
    let rig = Rig::start(&directory, |_| ()).await;
    let Err(error) = Server::start(config(&directory)).await else { panic!("two servers on one directory") };
    assert!(
        matches!(&error, StartError::Open(OpenError::InUse { holder, .. }) if holder.contains("tenfold serve")),
        "{error}"
    );
    rig.control().await.ask(WireControl::Status { campaign: None, from: 0 }).await;
}

#[tokio::test]
async fn an_address_in_use_is_refused_and_the_directory_is_free_again() {
    let directory = tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut settings = config(&directory);
    settings.listen = vec!["127.0.0.1:0".to_owned(), address.clone()];
    let Err(error) = Server::start(settings).await else { panic!("two servers on one address") };
    assert!(matches!(&error, StartError::Listen { address: named, .. } if *named == address), "{error}");
    assert_eq!(Rig::start(&directory, |_| ()).await.stop().await, Stopped::Drained);
}

#[tokio::test]
async fn it_listens_on_every_address_and_says_what_it_recovered() {
    let directory = tempdir().unwrap();
    let mut settings = config(&directory);
    settings.listen = vec!["127.0.0.1:0".to_owned(), "127.0.0.1:0".to_owned()];
    let server = Server::start(settings).await.unwrap();
    let recovered = server.recovered().clone();
    assert!(recovered.recovery.fresh);
    assert_eq!((recovered.summary.campaigns, recovered.summary.leases), (0, 0));
    assert_eq!(server.addresses().len(), 2);
    assert_ne!(server.addresses()[0], server.addresses()[1]);
    assert_eq!(server.exposed().count(), 0);
    let (stops, receiver) = tokio::sync::mpsc::channel(1);
    stops.send(()).await.unwrap();
    assert_eq!(patiently("the stop", server.run(receiver)).await, Ok(Stopped::Drained));

    let rig = Rig::start(&directory, |_| ()).await;
    rig.control().await.create(spec("c", 10, 1)).await;
    let mut worker = rig.session(1).await;
    worker.want(3).await;
    worker.grants().await;
    drop(worker);
    patiently("the stop", rig.stop()).await;
    let server = Server::start(config(&directory)).await.unwrap();
    let found = server.recovered();
    assert!(!found.recovery.fresh);
    assert_eq!(found.instance, recovered.instance);
    assert_eq!((found.summary.campaigns, found.summary.tasks, found.summary.leases), (1, 10, 3));
    assert_eq!(found.summary.sessions, 1);
}
