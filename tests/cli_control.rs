//! Campaigns from the command line, against a real server: creating, showing, waiting, ordering, and every exit code.

#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod cli_support;

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use cli_support::{Server, stderr, stdout, tenfold};

#[test]
fn a_creation_is_echoed_and_may_be_repeated() {
    let server = Server::start();
    let create = ["create", "x", "--range", "0..1000", "--runs", "10"];
    assert_eq!(server.ok(&create), "created campaign x: 1,000 tasks: 0 … 999, 10,000 runs\n");
    let again = server.ok(&create);
    assert!(again.contains("x was there already") && again.contains("1,000 tasks: 0 … 999, 10,000 runs"), "{again}");
    let other = server.run(&["create", "x", "--range", "0..1000", "--runs", "11"]);
    assert_eq!(other.status.code(), Some(6));
    assert!(stderr(&other).contains("\nhint: "), "{}", stderr(&other));
    assert_eq!(server.status("x")["runs"]["per_task"], 10);
}

#[test]
fn lines_become_keys_in_order() {
    let server = Server::start();
    let mut create = server.command(&["create", "x", "--lines", "-", "--runs", "2"]);
    let mut create = create.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    create.stdin.take().unwrap().write_all("b\na, \"quoted\"\r\nä\n".as_bytes()).unwrap();
    assert!(create.wait().unwrap().success());
    let tasks = server.tasks("x");
    let keys: Vec<_> = tasks.iter().map(|task| task["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["b", "a, \"quoted\"", "ä"]);
    let csv = server.ok(&["counts", "x", "--csv"]);
    let expected = "task,key,done,extra,leased,runs,state,errors,lost,last_error\n\
                    0,b,0,0,0,2,open,0,0,\n1,\"a, \"\"quoted\"\"\",0,0,0,2,open,0,0,\n2,ä,0,0,0,2,open,0,0,\n";
    assert_eq!(csv, expected);
    assert!(server.ok(&["counts", "x"]).lines().last().unwrap().ends_with("open         ä"));
}

#[test]
fn counts_of_many_pages_are_one_object() {
    let server = Server::start();
    server.ok(&["create", "x", "--range", "100..3600", "--runs", "3"]);
    let tasks = server.tasks("x");
    assert_eq!(tasks.len(), 3_500);
    for (number, task) in (100..).zip(&tasks) {
        assert_eq!((&task["task"], &task["runs"], &task["key"]), (&number.into(), &3.into(), &serde_json::Value::Null));
    }
    assert_eq!(server.ok(&["counts", "x"]).lines().count(), 3_501);
}

#[test]
fn a_reader_that_has_seen_enough_ends_a_command_quietly() {
    let server = Server::start();
    server.ok(&["create", "x", "--range", "0..20000"]);
    let mut counts = server.command(&["counts", "x"]);
    let mut counts = counts.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::with_capacity(64, counts.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("TASK"));
    // The pipe is closed now, long before 20,000 lines have passed.
    let output = counts.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
}

#[test]
fn the_status_is_shown_as_table_details_and_object() {
    let server = Server::start();
    let empty = server.run(&["status"]);
    assert_eq!((empty.status.code(), stdout(&empty)), (Some(0), String::new()));
    assert_eq!(server.ok(&["status", "--json"]), "{\"schema\":\"tenfold.status.v1\",\"campaigns\":[]}\n");
    server.ok(&["create", "x", "--range", "0..10", "--seed", "7", "--order", "even", "--max-lost", "2"]);
    server.ok(&["create", "y", "--range", "0..20", "--lease", "5s", "--timeout", "1m", "--max-errors", "none"]);
    let table = server.ok(&["status"]);
    assert_eq!(server.ok(&["campaign", "list"]), table);
    let names: Vec<_> = table.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(names, ["NAME", "x", "y"], "{table}");
    let x = server.status("x");
    assert_eq!((&x["seed"], &x["order"], &x["max_lost"]), (&7.into(), &"even".into(), &2.into()));
    let y = server.status("y");
    assert_eq!((&y["kind"], &y["lease_ms"], &y["timeout_ms"]), (&"counted".into(), &5_000.into(), &60_000.into()));
    assert_eq!(y["max_errors"], serde_json::Value::Null);
    let details = server.ok(&["status", "y"]);
    assert!(details.contains("20 tasks: 0 … 19, 200 runs") && details.contains("timeout      1m"), "{details}");
}

#[test]
fn watching_prints_what_changed() {
    let server = Server::start();
    server.ok(&["create", "x", "--range", "0..10"]);
    let mut watch = server.spawn(&["status", "x", "--watch"]);
    let mut lines = BufReader::new(watch.child().stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("x: running, 0 of 100 runs (0%)"));
    server.ok(&["campaign", "pause", "x"]);
    assert!(lines.next().unwrap().unwrap().starts_with("x: paused, "));
}

#[test]
fn watching_ends_quietly_when_nobody_reads_any_more() {
    let server = Server::start();
    server.ok(&["create", "x", "--range", "0..10"]);
    for arguments in [&["status", "x", "--watch"][..], &["status", "--watch", "--json"]] {
        let mut watch = server.command(arguments);
        let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut reader = BufReader::new(watch.stdout.take().unwrap());
        reader.read_line(&mut String::new()).unwrap();
        drop(reader);
        // Nothing changes any more, so nothing is written.
        let output = watch.wait_with_output().unwrap();
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()), "{arguments:?}");
    }
}

#[test]
fn orders_are_carried_out_and_may_be_repeated() {
    let server = Server::start();
    server.ok(&["create", "x", "--range", "0..10"]);
    for (order, state) in [("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")] {
        for _ in 0..2 {
            server.ok(&["campaign", order, "x"]);
            assert_eq!(server.status("x")["state"], state);
        }
    }
    assert_eq!(server.run(&["campaign", "resume", "x"]).status.code(), Some(6), "cancelled is for good");
    server.ok(&["campaign", "rm", "x"]);
    assert_eq!(server.run(&["status", "x"]).status.code(), Some(5));
}

#[test]
fn a_running_campaign_is_not_removed() {
    let server = Server::start();
    server.ok(&["create", "x", "--range", "0..10"]);
    assert_eq!(server.run(&["campaign", "rm", "x"]).status.code(), Some(6));
    server.ok(&["campaign", "pause", "x"]);
    server.ok(&["campaign", "rm", "x"]);
    // The name is free, also for the very same creation.
    assert!(server.ok(&["create", "x", "--range", "0..10"]).starts_with("created"));
}

#[test]
fn what_does_not_exist_ends_with_5() {
    let server = Server::start();
    for arguments in [
        &["status", "x"][..],
        &["counts", "x"],
        &["counts", "x", "--json"],
        &["wait", "x"],
        &["campaign", "pause", "x"],
        &["campaign", "resume", "x"],
        &["campaign", "cancel", "x"],
        &["campaign", "requeue", "x"],
        &["campaign", "rm", "x"],
    ] {
        let output = server.run(arguments);
        assert_eq!(output.status.code(), Some(5), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(stderr(&output).starts_with("error: "), "{}", stderr(&output));
    }
}

#[test]
fn waiting_tells_how_a_campaign_settled() {
    let server = Server::start();
    let wait = |name| server.run(&["wait", name, "--timeout", "20s"]).status.code();
    server.ok(&["create", "fine", "--range", "0..2", "--runs", "1"]);
    server.ok(&["create", "bad", "--range", "0..2", "--runs", "1", "--max-errors", "1"]);
    server.ok(&["create", "off", "--range", "0..2"]);
    let early = server.run(&["wait", "fine", "--timeout", "100ms"]);
    assert_eq!(early.status.code(), Some(7), "{}", stderr(&early));
    server.ok(&["work", "fine", "--until-done", "--", "true"]);
    assert_eq!(wait("fine"), Some(0));
    let worker = server.run(&["work", "bad", "--until-done", "--", "false"]);
    assert_eq!(worker.status.code(), Some(10), "{}", stderr(&worker));
    assert_eq!(wait("bad"), Some(10));
    server.ok(&["campaign", "cancel", "off"]);
    assert_eq!(wait("off"), Some(11));
    assert_eq!(server.run(&["work", "off", "--until-done", "--", "true"]).status.code(), Some(11));
    // Requeued, the same tasks can still be done.
    assert_eq!(server.ok(&["campaign", "requeue", "bad"]), "bad: opened 2 tasks again\n");
    server.ok(&["work", "bad", "--until-done", "--", "true"]);
    assert_eq!(wait("bad"), Some(0));
}

#[test]
fn a_wait_survives_the_server() {
    let mut server = Server::start();
    server.ok(&["create", "x", "--range", "0..2"]);
    server.kill();
    let mut wait = tenfold(&["wait", "x", "--timeout", "100ms", "-s", &server.address]);
    assert_eq!(wait.output().unwrap().status.code(), Some(7), "not 3: it goes on waiting");
}

#[test]
fn a_data_directory_in_use_ends_with_6_and_its_holder() {
    let server = Server::start();
    let directory = server.data_dir();
    let directory = directory.to_str().unwrap();
    for arguments in
        [&["serve", "--data-dir", directory, "--listen", "127.0.0.1:0"][..], &["verify", "--data-dir", directory]]
    {
        let output = tenfold(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(6), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("in use by"), "{}", stderr(&output));
    }
}

#[test]
fn a_stopped_servers_directory_is_verified_and_written_down() {
    let mut server = Server::start();
    server.ok(&["create", "x", "--range", "0..2"]);
    server.stop();
    let directory = server.data_dir();
    let verify = |more: &[&str]| {
        let output =
            tenfold(&[&["verify", "--data-dir", directory.to_str().unwrap()], more].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output)
    };
    let text = verify(&[]);
    assert!(text.contains("checked: ") && text.contains("not checked: "), "{text}");

    let dump = verify(&["--dump"]);
    let (lines, digest) = dump.trim_end().rsplit_once('\n').unwrap();
    assert!(lines.starts_with("dump 1\nglobals next_campaign=2\ncampaign 1 phase=running first=0 tasks=2 "), "{dump}");
    let digest = digest.strip_prefix("digest sha256=").unwrap();
    // As `head -n -1 | sha256sum` would say.
    let lines = lines.lines().map(str::to_owned);
    assert_eq!(digest, tenfold::store::dump::digest(lines));
    assert!(text.contains(&format!("digest of the state: {digest}\n")), "{text}");
    let json = verify(&["--json"]);
    assert!(json.starts_with(r#"{"schema":"tenfold.verify.v1","format":2,"instance":""#), "{json}");
    assert!(json.contains(&format!(r#","digest":"{digest}","checked":["#)), "{json}");

    for more in [&[][..], &["--dump"], &["--json"]] {
        let nothing = ["verify", "--data-dir", server.directory.path().to_str().unwrap()];
        let nothing = tenfold(&[&nothing, more].concat()).output().unwrap();
        assert_eq!((nothing.status.code(), &*stdout(&nothing)), (Some(1), ""), "{}", stderr(&nothing));
    }
}
