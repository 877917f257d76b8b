//! What earlier versions wrote and said, frozen: their data directories are opened to the same state and worked on to the end, their
//! clients and servers are understood, and what is newer than this version is refused, untouched and readably.
//!
//! ```text
//!   tests/fixtures/format-N/data       a data directory as format N's first version left it when it was killed
//!   tests/fixtures/format-N/dump.txt   what `tenfold verify --dump` said of it
//!   tests/fixtures/wire-1.txt          a dialogue of protocol version 1: what each side sent, byte by byte
//! ```
//!
//! A fixture is written once, by the version that it is of, with `TENFOLD_WRITE_FIXTURE=1 cargo test --test upgrade write`, and never
//! again: a fixture that is there is not written over. A new format or version gets one of its own.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cli_support;
#[path = "damage/history.rs"]
mod history;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use cli_support::{Server, stderr, stdout, tenfold};
use tempfile::TempDir;
use tenfold::client::{Client, Config, Verdict};
use tenfold::protocol::codec;
use tenfold::protocol::frame::{self, CLIENT_PREFACE_BYTES, SERVER_PREFACE_BYTES, ServerPreface, VersionRange};
use tenfold::protocol::messages::{
    ClientMessage, WireControl, WireOrder, WireRequest, WireSession, WireSpec, WireTasks,
};
use tenfold::store::{self, FORMAT};
use tenfold::types::{Tick, Want};

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_mins(1);

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A copy of a frozen data directory, as `data` in a temporary one.
fn thawed(format: u32) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    copy_tree(&fixtures().join(format!("format-{format}/data")), &directory.path().join("data"));
    directory
}

/// Every file with its bytes.
fn snapshot(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap().path();
        if entry.is_dir() {
            files.extend(snapshot(&entry));
        }
        files.insert(entry.clone(), fs::read(&entry).unwrap_or_default());
    }
    files
}

/// What `verify --dump` says of a directory.
fn dump(data: &Path) -> String {
    let output = tenfold(&["verify", "--dump", "--data-dir", data.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    stdout(&output)
}

// ---- data directories

#[test]
fn every_frozen_directory_has_its_state() {
    for format in 1..=FORMAT {
        let directory = thawed(format);
        let frozen = fs::read_to_string(fixtures().join(format!("format-{format}/dump.txt"))).unwrap();
        assert_eq!(dump(&directory.path().join("data")), frozen, "format {format}");
    }
}

#[test]
fn every_frozen_directory_is_worked_on_to_its_end() {
    for format in 1..=FORMAT {
        let mut server = Server::start_over(thawed(format));
        // Nothing of it is less than it was.
        let frozen = fs::read_to_string(fixtures().join(format!("format-{format}/dump.txt"))).unwrap();
        let before = done(&frozen);
        assert!(before.len() > 100, "it was worked on");
        server.ok(&["campaign", "resume", "paused"]);
        server.ok(&["campaign", "requeue", "numbered"]);
        finish(&server.address, &["counted", "numbered", "paused"]);
        for (name, wanted) in [("counted", 800), ("numbered", 2_400), ("paused", 5)] {
            let status = server.status(name);
            assert_eq!(status["finished"], true, "{status}");
            assert_eq!(status["runs"]["done"], wanted, "{status}");
        }
        assert_eq!(server.status("cancelled")["settled"], true);
        // What was half removed or half created is gone.
        let names = server.ok(&["status", "--json"]);
        assert!(!names.contains("removing") && !names.contains("creating"), "{names}");
        let keys: Vec<_> = server.tasks("numbered").iter().map(|task| task["key"].clone()).collect();
        assert_eq!(keys[119], format!("lattice-0119/{}", "x".repeat(40)));
        server.kill();
        let after = done(&dump(&server.data_dir()));
        for (task, (done, extra)) in before {
            let now = after.get(&task).copied().unwrap_or_default();
            assert!(now.0 >= done && now.1 >= extra, "task {task:?}: {now:?} after {:?}", (done, extra));
        }
    }
}

/// Done and extra runs of each task of campaigns that stay, as a dump says.
fn done(dump: &str) -> BTreeMap<(String, String), (u32, u32)> {
    let tasks = dump.lines().filter_map(|line| line.strip_prefix("task "));
    let parsed = tasks.map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |word: &str| word.split_once('=').unwrap().1.parse().unwrap();
        ((words[0].to_owned(), words[1].to_owned()), (number(words[2]), number(words[3])))
    });
    // The campaign that was being removed.
    parsed.filter(|((campaign, _), _)| campaign != "7").collect()
}

/// Works on campaigns until they are settled.
fn finish(address: &str, campaigns: &[&str]) {
    let want = Want { leases: 256, runs: 64, campaigns: campaigns.iter().map(|name| (*name).to_owned()).collect() };
    block_on(async {
        let client = Client::start(Config { want, until_done: true, ..Config::new([address]) }).unwrap();
        while let Some(lease) = client.next_lease().await {
            drop(lease.done());
        }
        client.close(PATIENCE).await;
    });
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("it hangs") })
}

#[test]
fn a_newer_directory_is_refused_readably_and_stays_as_it_is() {
    let directory = thawed(FORMAT);
    let data = directory.path().join("data");
    let ready = fs::read_to_string(data.join("READY")).unwrap();
    let newer = ready.replace(&format!("format {FORMAT}\n"), &format!("format {}\n", FORMAT + 1));
    let (text, _) = newer.split_once("check ").unwrap();
    fs::write(data.join("READY"), format!("{text}check {:08x}\n", crc32c::crc32c(text.as_bytes()))).unwrap();
    let before = snapshot(&data);
    let path = data.to_str().unwrap();
    for arguments in [&["serve", "--listen", "127.0.0.1:0", "--data-dir", path][..], &["verify", "--data-dir", path]] {
        let output = ended(arguments);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(
            text.contains(&format!("has format {}; this version knows formats up to {FORMAT}", FORMAT + 1)),
            "{text}"
        );
        assert!(text.contains("hint: nothing was touched; use the newer tenfold"), "{text}");
        assert_eq!(snapshot(&data), before);
    }
}

/// Runs the program, which must end by itself: a server that accepts what it should refuse does not.
fn ended(arguments: &[&str]) -> Output {
    let mut process = tenfold(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    for _ in 0..3_000 {
        if process.try_wait().unwrap().is_some() {
            return process.wait_with_output().unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    process.kill().unwrap();
    panic!("{arguments:?} does not end: {}", stderr(&process.wait_with_output().unwrap()));
}

// ---- the wire

/// One step of a dialogue: what the client sent, and what the server answered.
struct Step {
    name: String,
    client: Vec<u8>,
    server: Vec<u8>,
}

/// The frozen dialogue of a protocol version.
fn dialogue(version: u16) -> Vec<Step> {
    let text = fs::read_to_string(fixtures().join(format!("wire-{version}.txt"))).unwrap();
    let step = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        Step { name: words[0].to_owned(), client: from_hex(words[1]), server: from_hex(words[2]) }
    };
    text.lines().filter(|line| !line.starts_with('#')).map(step).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|index| u8::from_str_radix(&text[2 * index..2 * index + 2], 16).unwrap()).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// A server over a new directory with the identity that the dialogue has.
fn server_of_the_dialogue() -> Server {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    drop(store::open(&data, "a test", history::INSTANCE, history::options(), Tick(0)).unwrap());
    Server::start_over(directory)
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

#[test]
fn the_first_versions_client_gets_the_same_answers() {
    let server = server_of_the_dialogue();
    let mut stream = connect(&server.address);
    for step in dialogue(1) {
        stream.write_all(&step.client).unwrap();
        let mut answer = vec![0; step.server.len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(to_hex(&answer), to_hex(&step.server), "{}", step.name);
    }
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "nothing follows the goodbye");
}

#[test]
fn the_first_versions_server_is_understood() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let script = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut heard = Vec::new();
        // A client does not create, and may say more than the recorded one: what counts is what it makes of the answers.
        for step in dialogue(1).into_iter().filter(|step| step.name != "create") {
            if step.name == "preface" {
                stream.read_exact(&mut [0; CLIENT_PREFACE_BYTES]).unwrap();
            } else {
                while !is_answered_by(&step.name, &next_message(&mut stream, &mut heard)) {}
            }
            stream.write_all(&step.server).unwrap();
        }
        heard
    });
    block_on(async {
        let want = Want { leases: 2, runs: 4, campaigns: vec![] };
        let client = Client::start(Config { want, until_done: true, ..Config::new([address]) }).unwrap();
        let mut answers = Vec::new();
        for task in [5, 6] {
            let lease = client.next_lease().await.unwrap();
            assert_eq!((lease.campaign(), lease.task(), lease.first_run(), lease.runs()), ("dialogue", task, 0, 1));
            assert_eq!(lease.seed(0), Some(tenfold::types::run_seed(42, task, 0)));
            answers.push(lease);
        }
        let answers: Vec<_> = answers.into_iter().map(tenfold::client::Lease::done).collect();
        for answer in answers {
            assert_eq!(answer.await, Verdict::Counted);
        }
        assert!(client.next_lease().await.is_none(), "all is settled, the server said");
        client.close(PATIENCE).await;
    });
    assert!(script.join().unwrap().len() >= 4);
}

/// Whether a client's message is the one that the recorded answer of a step answers.
fn is_answered_by(step: &str, message: &ClientMessage) -> bool {
    match message {
        ClientMessage::Hello { .. } => step == "hello",
        ClientMessage::Want { .. } => step == "want",
        // The recorded one reported both leases at once: its answer is right when the second has come.
        ClientMessage::Requests { first, requests, .. } => step == "report" && *first + requests.len() as u64 == 3,
        ClientMessage::Goodbye => step == "goodbye",
        ClientMessage::Heartbeat { .. } | ClientMessage::Control { .. } => false,
    }
}

fn next_message(stream: &mut TcpStream, heard: &mut Vec<ClientMessage>) -> ClientMessage {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut body).unwrap();
    let message = codec::decode_client(&body).unwrap();
    heard.push(message.clone());
    message
}

#[test]
fn a_client_of_later_versions_is_told_which_one_there_is() {
    let server = Server::start();
    let mut stream = connect(&server.address);
    stream.write_all(&frame::client_preface(VersionRange { lowest: 2, highest: 3 })).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let versions = VersionRange { lowest: 1, highest: 1 };
    assert_eq!(ServerPreface::read(&answer), Ok(Some(ServerPreface { chosen: None, versions })));
    assert_eq!(answer.len(), SERVER_PREFACE_BYTES, "and nothing more");
    // Whoever speaks version 1 among others gets it.
    let mut stream = connect(&server.address);
    stream.write_all(&frame::client_preface(VersionRange { lowest: 1, highest: 3 })).unwrap();
    let mut answer = [0; SERVER_PREFACE_BYTES];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(ServerPreface::read(&answer), Ok(Some(ServerPreface { chosen: Some(1), versions })));
}

#[test]
fn a_server_of_later_versions_is_named_with_what_to_do() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut preface = [0; CLIENT_PREFACE_BYTES];
            stream.read_exact(&mut preface).unwrap();
            let theirs = frame::read_client_preface(&preface).unwrap().unwrap();
            let ours = VersionRange { lowest: 2, highest: 2 };
            stream.write_all(&ServerPreface::answer(ours, theirs).to_bytes()).unwrap();
        }
    });
    for arguments in [
        &["status"][..],
        &["create", "x", "--range", "0..2"],
        &["counts", "x"],
        &["wait", "x"],
        &["campaign", "pause", "x"],
        &["work", "x", "--", "true"],
    ] {
        let output = tenfold(arguments).env("TENFOLD_SERVER", &address).output().unwrap();
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        assert!(text.contains("version 1") && text.contains("version 2"), "{arguments:?}: {text}");
        assert!(text.contains("hint: ") && text.contains("compare tenfold --version"), "{arguments:?}: {text}");
        assert!(output.stdout.is_empty(), "{arguments:?}: {}", stdout(&output));
    }
}

// ---- how fixtures are made

/// Whether fixtures are to be written.
fn writes() -> bool {
    std::env::var_os("TENFOLD_WRITE_FIXTURE").is_some()
}

#[test]
fn write_the_directory_unless_it_is_there() {
    let frozen = fixtures().join(format!("format-{FORMAT}"));
    if !writes() || frozen.exists() {
        assert!(
            frozen.join("dump.txt").exists(),
            "format {FORMAT} has no fixture; the header of this file says how to write it"
        );
        return;
    }
    let data = frozen.join("data");
    history::play(|| store::open(&data, "a test", history::INSTANCE, history::options(), Tick(0)).unwrap(), || {});
    fs::write(frozen.join("dump.txt"), dump(&data)).unwrap();
}

#[test]
fn write_the_dialogue_unless_it_is_there() {
    let frozen = fixtures().join("wire-1.txt");
    if !writes() || frozen.exists() {
        assert!(frozen.exists(), "the header of this file says how to write it");
        return;
    }
    let server = server_of_the_dialogue();
    let mut stream = connect(&server.address);
    let mut text =
        "# A dialogue of protocol version 1: step, what the client sent, what the server answered.\n".to_owned();
    for (name, client) in steps() {
        stream.write_all(&client).unwrap();
        // The generator alone goes by the clock: nobody announces how many messages answer one.
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut answer = Vec::new();
        let mut bytes = [0; 4_096];
        while let Ok(length @ 1..) = stream.read(&mut bytes) {
            answer.extend_from_slice(&bytes[..length]);
        }
        writeln!(text, "{name} {} {}", to_hex(&client), to_hex(&answer)).unwrap();
    }
    fs::write(frozen, text).unwrap();
}

/// What the client of the dialogue says.
fn steps() -> Vec<(&'static str, Vec<u8>)> {
    let spec = WireSpec {
        name: "dialogue".into(),
        tasks: WireTasks::Range { first: 5, count: 2 },
        runs: 1,
        seed: Some(42),
        order: WireOrder::Lowest,
        lease_ms: Some(60_000),
        timeout_ms: None,
        errors_max: Some(3),
        losses_max: None,
    };
    let session = WireSession { session: [9; 16], instance: [0; 16], attempt: 1, confirmed: 0, name: "old:1".into() };
    // Slots 0 and 1, each for the first time.
    let leases = [1 << 32, 1 << 32 | 1];
    let requests = leases.into_iter().map(|lease| WireRequest::Done { lease, runs: 1 }).collect();
    let messages = [
        ("hello", ClientMessage::Hello { token: String::new(), session: Some(session) }),
        (
            "create",
            ClientMessage::Control { id: 7, request: WireControl::Create { creation: [3; 16], spec: Box::new(spec) } },
        ),
        ("want", ClientMessage::Want { leases: 2, runs: 4, campaigns: vec![] }),
        ("report", ClientMessage::Requests { first: 1, confirmed: 0, requests }),
        ("goodbye", ClientMessage::Goodbye),
    ];
    let preface = frame::client_preface(VersionRange { lowest: 1, highest: 1 }).to_vec();
    let encoded = messages.map(|(name, message)| {
        let mut bytes = Vec::new();
        codec::encode_client(&message, &mut bytes).unwrap();
        (name, bytes)
    });
    [("preface", preface)].into_iter().chain(encoded).collect()
}
