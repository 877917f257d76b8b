//! The real program: what `serve` says, how signals and faults end it, and what a restart finds.

#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used)] // What is outside of a test function here fails its test.

mod server_support;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use server_support::{Native, hello, raw, spec};
use tempfile::{TempDir, tempdir};
use tenfold::protocol::messages::{ClientMessage, ServerMessage, WireAnswer, WireControl, WireFate, WireRequest};
use tenfold::server::{Fatal, Server};

/// `tenfold serve` in a process of its own; killed when it is dropped.
struct Process {
    child: Child,
    stderr: BufReader<ChildStderr>,
    /// The lines up to the one that says where it listens.
    said: Vec<String>,
    address: SocketAddr,
}

fn serve(directory: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenfold"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(directory.path().join("data"));
    command.env_remove("TENFOLD_FAULT").env_remove("TENFOLD_LOG").stdin(Stdio::null());
    command
}

impl Process {
    fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let address = SocketAddr::from(([0; 4], 0));
        let mut process = Self { child, stderr, said: Vec::new(), address };
        loop {
            let mut line = String::new();
            assert_ne!(process.stderr.read_line(&mut line).unwrap(), 0, "it ended: {:?}", process.said);
            process.said.push(line.trim_end().to_owned());
            if let Some(address) = line.trim_end().strip_prefix("listening on ") {
                process.address = address.parse().unwrap();
                return process;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// How it ended, and what it said since it listened.
    fn end(mut self) -> (ExitStatus, Vec<String>) {
        let rest = self.stderr.by_ref().lines().map(Result::unwrap).collect();
        (self.child.wait().unwrap(), rest)
    }

    async fn control(&self) -> Native {
        raw(self.address).await.native().await.control().await
    }

    async fn session(&self, hello: &ClientMessage) -> (Native, ServerMessage) {
        let mut peer = raw(self.address).await.native().await;
        peer.send(hello).await;
        let welcome = peer.next().await;
        (peer, welcome)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn it_says_what_it_found_and_a_signal_ends_it_well() {
    let directory = tempdir().unwrap();
    let ready = directory.path().join("ready");
    let mut command = serve(&directory);
    command.arg("--ready-file").arg(&ready);
    let process = Process::start(command);
    assert!(process.said[0].starts_with("new data directory"), "{:?}", process.said);
    let mut control = process.control().await;
    control.create(spec("c", 10, 2)).await;
    assert_eq!(std::fs::read_to_string(&ready).unwrap(), format!("{}\n", process.address));
    process.signal(Signal::TERM);
    assert_eq!(control.closing().await.0, tenfold::protocol::messages::WireClosing::Shutdown);
    let (status, said) = process.end();
    assert!(status.success(), "{status}: {said:?}");
    assert!(!Path::new(&ready).exists());

    let process = Process::start(serve(&directory));
    let expected = "1 campaign, 10 tasks, 0 runs done, 0 sessions, 0 leases";
    assert!(process.said[0].ends_with(expected), "{:?}", process.said);
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let directory = tempdir().unwrap();
    let mut command = serve(&directory);
    command.args(["--drain", "1h"]);
    let process = Process::start(command);
    process.control().await.create(spec("c", 10, 1)).await;
    let (mut worker, _) = process.session(&hello(1, [0; 16], 1, 0)).await;
    worker.want(1).await;
    worker.grants().await;
    process.signal(Signal::TERM);
    // It drains: the server says so in its log before a second signal can be anything but a second one.
    let mut process = process;
    let mut line = String::new();
    while !line.contains("stopping") {
        line.clear();
        assert_ne!(process.stderr.read_line(&mut line).unwrap(), 0);
    }
    process.signal(Signal::INT);
    let (status, said) = process.end();
    assert!(status.success(), "{status}: {said:?}");
    assert!(said.iter().any(|line| line.contains("stopped at once")), "{said:?}");
    let process = Process::start(serve(&directory));
    assert!(process.said[0].ends_with("1 session, 1 lease"), "{:?}", process.said);
}

/// A data directory whose disk answers nothing: what is read first is a pipe that nobody writes to.
fn dead_disk(directory: &TempDir) -> PathBuf {
    let ready = directory.path().join("data").join("READY");
    std::fs::create_dir(ready.parent().unwrap()).unwrap();
    assert!(Command::new("mkfifo").arg(&ready).status().unwrap().success());
    ready
}

#[test]
fn a_start_that_waits_for_its_disk_can_be_stopped() {
    let directory = tempdir().unwrap();
    let ready = dead_disk(&directory);
    let mut child = serve(&directory).stderr(Stdio::piped()).spawn().unwrap();
    // It opens when the server does; which then waits for a word.
    let pipe = File::options().write(true).open(ready).unwrap();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    assert!(said.contains("stopped while starting"), "{said}");
    drop(pipe);
}

#[test]
fn a_disk_that_hangs_while_the_data_directory_is_opened_ends_the_server() {
    let directory = tempdir().unwrap();
    dead_disk(&directory);
    let (sender, receiver) = mpsc::channel();
    let mut config = server_support::config(&directory);
    config.bounds.opening = Duration::from_millis(64);
    config.fatal = Fatal::new(move |reason| sender.send(reason.to_owned()).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.spawn(Server::start(config));
    assert_eq!(receiver.recv().unwrap(), "opening the data directory has not got on for 64ms: the disk hangs");
    runtime.shutdown_background();
}

#[tokio::test]
async fn a_directory_in_use_is_a_conflict_that_names_the_holder() {
    let directory = tempdir().unwrap();
    let first = Process::start(serve(&directory));
    let second = serve(&directory).output().unwrap();
    assert_eq!(second.status.code(), Some(6));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains(&first.child.id().to_string()) && said.contains("\nhint: "), "{said}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let directory = tempdir().unwrap();
    for arguments in [["--lease", "1ms"], ["--drain", "soon"], ["--disk-timeout", "10ms"], ["--log-format", "xml"]] {
        assert_eq!(serve(&directory).args(arguments).output().unwrap().status.code(), Some(2), "{arguments:?}");
    }
    let misspelt = serve(&directory).env("TENFOLD_FAULT", "after-comit:requests").output().unwrap();
    assert_eq!(misspelt.status.code(), Some(1));
    let unknown = serve(&directory).args(["--listen", "no.such.host.invalid:1"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(1));
    assert!(!directory.path().join("data").exists(), "nothing was made");
}

#[tokio::test]
async fn an_open_address_is_warned_about_and_logs_can_be_json() {
    let directory = tempdir().unwrap();
    let mut command = serve(&directory);
    command.args(["--listen", "0.0.0.0:0", "--log-format", "json"]).env("TENFOLD_LOG", "debug");
    let process = Process::start(command);
    let warned = process.said.iter().any(|line| line.contains("warning: other machines may reach 0.0.0.0:"));
    assert!(warned, "{:?}", process.said);
    process.signal(Signal::TERM);
    let (_, said) = process.end();
    let log: Vec<_> = said.iter().filter(|line| line.contains("stopping")).collect();
    assert!(!log.is_empty(), "{said:?}");
    for line in log {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}

/// A worker with one lease, on a server that dies at `fault`.
async fn worker_before(fault: &str, directory: &TempDir) -> (Process, Native, u64, [u8; 16]) {
    let mut command = serve(directory);
    command.env("TENFOLD_FAULT", fault);
    let process = Process::start(command);
    process.control().await.create(spec("c", 3, 1)).await;
    let (mut worker, welcome) = process.session(&hello(1, [0; 16], 1, 0)).await;
    let ServerMessage::Welcome { instance, .. } = welcome else { panic!("{welcome:?}") };
    worker.want(1).await;
    let lease = worker.grants().await[0].lease;
    (process, worker, lease, instance)
}

#[tokio::test]
async fn a_report_that_was_durable_but_unanswered_counts_once() {
    let directory = tempdir().unwrap();
    let (process, mut worker, lease, instance) = worker_before("after-commit-before-answer:requests", &directory).await;
    worker.report(1, lease).await;
    assert_eq!(worker.next_or_end().await, None, "no answer left");
    let (status, _) = process.end();
    assert!(!status.success());

    let process = Process::start(serve(&directory));
    let mut control = process.control().await;
    assert_eq!(control.counts("c").await[0].done, 1, "it was durable");
    let (mut worker, welcome) = process.session(&hello(1, instance, 2, 0)).await;
    assert!(matches!(welcome, ServerMessage::Welcome { resumed: true, through: 1, leases: 1, .. }), "{welcome:?}");
    assert_ne!(worker.grants().await[0].lease, lease, "the one that filled its place");
    worker.report(1, lease).await;
    let answer = worker.next().await;
    assert_eq!(answer, ServerMessage::Answers { through: 1, refusals: Vec::new() });
    assert_eq!(control.counts("c").await[0].done, 1, "and it counts once");
    let fate = control.ask(WireControl::Fate { session: [1; 16], number: 1 }).await;
    assert_eq!(fate, WireAnswer::Fate(WireFate::Counted));
}

#[tokio::test]
async fn a_report_that_was_not_durable_was_not_answered_and_counts_when_it_is_sent_again() {
    let directory = tempdir().unwrap();
    let (process, mut worker, lease, instance) = worker_before("before-commit:requests", &directory).await;
    worker.report(1, lease).await;
    assert_eq!(worker.next_or_end().await, None, "no answer left");
    process.end();

    let process = Process::start(serve(&directory));
    let mut control = process.control().await;
    assert_eq!(control.counts("c").await[0].done, 0);
    let (mut worker, welcome) = process.session(&hello(1, instance, 2, 0)).await;
    assert!(matches!(welcome, ServerMessage::Welcome { resumed: true, through: 0, leases: 1, .. }), "{welcome:?}");
    assert_eq!(worker.grants().await[0].lease, lease, "the lease is known");
    worker.report(1, lease).await;
    assert_eq!(worker.next().await, ServerMessage::Answers { through: 1, refusals: Vec::new() });
    assert_eq!(control.counts("c").await[0].done, 1);
}

#[tokio::test]
async fn a_refusal_that_was_not_answered_stays_a_refusal() {
    let directory = tempdir().unwrap();
    let (process, mut worker, lease, instance) = worker_before("after-commit-before-answer:refusal", &directory).await;
    let requests = vec![WireRequest::Done { lease: lease + 1_000, runs: 1 }];
    let refused = ClientMessage::Requests { first: 1, confirmed: 0, requests };
    worker.send(&refused).await;
    assert_eq!(worker.next_or_end().await, None);
    process.end();

    let process = Process::start(serve(&directory));
    let (mut worker, welcome) = process.session(&hello(1, instance, 2, 0)).await;
    let ServerMessage::Welcome { through: 1, refusals, .. } = welcome else { panic!("{welcome:?}") };
    assert_eq!(refusals.len(), 1);
    worker.grants().await;
    worker.send(&refused).await;
    assert_eq!(worker.next().await, ServerMessage::Answers { through: 1, refusals });
}

#[tokio::test]
async fn a_grant_that_never_arrived_is_sent_again() {
    let directory = tempdir().unwrap();
    let mut command = serve(&directory);
    command.env("TENFOLD_FAULT", "after-commit-before-answer:grant");
    let process = Process::start(command);
    process.control().await.create(spec("c", 3, 1)).await;
    let (mut worker, welcome) = process.session(&hello(1, [0; 16], 1, 0)).await;
    let ServerMessage::Welcome { instance, .. } = welcome else { panic!("{welcome:?}") };
    worker.want(2).await;
    assert_eq!(worker.next_or_end().await, None);
    process.end();

    let process = Process::start(serve(&directory));
    let (mut worker, welcome) = process.session(&hello(1, instance, 2, 0)).await;
    assert!(matches!(welcome, ServerMessage::Welcome { resumed: true, leases: 2, .. }), "{welcome:?}");
    assert_eq!(worker.grants().await.len(), 2);
}

#[tokio::test]
async fn a_panic_in_the_pipeline_ends_the_process() {
    let directory = tempdir().unwrap();
    let (process, mut worker, lease, _) = worker_before("panic:requests", &directory).await;
    worker.report(1, lease).await;
    assert_eq!(worker.next_or_end().await, None);
    let (status, said) = process.end();
    assert_eq!(status.code(), Some(1));
    assert!(said.iter().any(|line| line.contains("tenfold-pipeline panicked")), "{said:?}");
    let process = Process::start(serve(&directory));
    assert_eq!(process.control().await.counts("c").await[0].done, 0);
}

#[tokio::test]
async fn a_creation_that_was_not_answered_is_the_same_creation_again() {
    let directory = tempdir().unwrap();
    let mut command = serve(&directory);
    command.env("TENFOLD_FAULT", "after-commit-before-answer:create");
    let process = Process::start(command);
    let mut control = process.control().await;
    let request = WireControl::Create { creation: [4; 16], spec: Box::new(spec("c", 3, 1)) };
    control.send(&ClientMessage::Control { id: 1, request: request.clone() }).await;
    assert_eq!(control.next_or_end().await, None);
    process.end();

    let process = Process::start(serve(&directory));
    let answer = process.control().await.ask(request).await;
    assert!(matches!(answer, WireAnswer::Creation { sealed: true, existed: true, .. }), "{answer:?}");
}
