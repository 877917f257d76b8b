//! `tenfold work` against a real server: what a command is told, what its end means, and that nothing of it is left.

#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod cli_support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;

use cli_support::{Server, assert_gone, eventually, is_alive, line_of, pid_in, stderr, stdout};
use rustix::process::Signal;
use tenfold::types::run_seed;

#[test]
fn a_numbered_run_is_told_its_number_and_seed() {
    let server = Server::start();
    server.ok(&["create", "x", "--range", "5..7", "--runs", "2", "--seed", "42"]);
    let script = "echo $0 $TENFOLD_CAMPAIGN $TENFOLD_TASK ${TENFOLD_KEY-no-key} $TENFOLD_RUN $TENFOLD_SEED";
    let mut worker = server.command(&["work", "--until-done", "--", "sh", "-c", script, "<{}>"]);
    let output = worker.env("TENFOLD_KEY", "inherited").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let lines: BTreeSet<String> = stdout(&output).lines().map(str::to_owned).collect();
    let expected = [(5, 0), (5, 1), (6, 0), (6, 1)]
        .map(|(task, run)| format!("<{task}> x {task} no-key {run} {}", run_seed(42, task, run)));
    assert_eq!(lines, expected.into());
}

#[test]
fn a_counted_run_is_told_its_key_and_no_number() {
    let server = Server::start();
    std::fs::write(server.path("lines"), "one\ntwo words\n").unwrap();
    server.ok(&["create", "x", "--lines", "lines", "--runs", "1"]);
    let script =
        "echo $0 $TENFOLD_TASK $TENFOLD_KEY ${TENFOLD_RUN-no-run} ${TENFOLD_SEED-no-seed} ${TENFOLD_LEASE:+lease}";
    let mut worker = server.command(&["work", "--until-done", "--", "sh", "-c", script, "{}"]);
    let output = worker.env("TENFOLD_RUN", "7").env("TENFOLD_SEED", "7").output().unwrap();
    let mut lines: Vec<_> = stdout(&output).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["one 0 one no-run no-seed lease", "two words 1 two words no-run no-seed lease"]);
}

#[test]
fn a_failure_keeps_the_last_line_of_stderr() {
    let server = Server::start();
    for (name, script, error) in [
        ("said", "echo 'no space left' >&2; echo >&2; exit 1", "no space left"),
        ("silent", "exit 3", "exit status 3"),
        ("killed", "kill -KILL $$", "killed by signal 9"),
    ] {
        server.ok(&["create", name, "--range", "0..1", "--runs", "1", "--max-errors", "1"]);
        let output = server.run(&["work", name, "--until-done", "--", "sh", "-c", script]);
        assert_eq!(output.status.code(), Some(10), "{}", stderr(&output));
        let task = &server.tasks(name)[0];
        assert_eq!((&task["last_error"], &task["state"]), (&error.into(), &"quarantined".into()));
        assert_eq!((&task["done"], &task["errors"]), (&0.into(), &1.into()));
    }
}

#[test]
fn a_run_given_back_is_neither_counted_nor_charged() {
    let server = Server::start();
    server.ok(&["create", "x", "--range", "0..1", "--runs", "1", "--max-errors", "1"]);
    // Given back once, done the second time.
    let script = "test -e again || { touch again; exit 75; }";
    let output = server.run(&["work", "--until-done", "--", "sh", "-c", script]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("1 run done, 0 failed, 1 given back, 0 lost"), "{}", stderr(&output));
    let task = &server.tasks("x")[0];
    assert_eq!((&task["done"], &task["errors"], &task["extra"]), (&1.into(), &0.into(), &0.into()));
}

#[test]
fn five_failures_in_a_row_stop_the_worker() {
    let server = Server::start();
    server.ok(&["create", "x", "--range", "0..100", "--runs", "1", "--max-errors", "none"]);
    let output = server.run(&["work", "-j", "3", "--", "sh", "-c", "echo broken >&2; exit 1"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(
        text.contains("error: 5 failures in a row") && text.contains("broken") && text.contains("hint: "),
        "{text}"
    );
    let status = server.status("x");
    assert_eq!(
        (&status["errors"], &status["runs"]["leased"]),
        (&5.into(), &0.into()),
        "no more is charged, nothing kept"
    );
}

#[test]
fn a_success_in_between_forgives() {
    let server = Server::start();
    server.ok(&["create", "x", "--range", "0..30", "--runs", "1", "--max-errors", "1"]);
    // Every fourth task is fine.
    let output = server.run(&["work", "--until-done", "--", "sh", "-c", "test $(($0 % 4)) = 3", "{}"]);
    assert_eq!(output.status.code(), Some(10), "{}", stderr(&output));
    assert_eq!(server.status("x")["tasks"]["done"], 7);
}

#[test]
fn a_command_that_cannot_be_started_charges_nothing() {
    let server = Server::start();
    server.ok(&["create", "x", "--range", "0..100", "--runs", "1"]);
    std::fs::write(server.path("program"), "no program").unwrap();
    std::fs::set_permissions(server.path("program"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = server.run(&["work", "-j", "2", "--", "./program"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("error: cannot start ./program: Permission denied"), "{}", stderr(&output));
    let status = server.status("x");
    assert_eq!((&status["errors"], &status["lost"], &status["runs"]["leased"]), (&0.into(), &0.into(), &0.into()));
}

#[test]
fn a_run_that_takes_too_long_is_killed_with_all_its_children() {
    let server = Server::start();
    // The worker's own timeout, and the campaign's.
    for (name, create, work) in [("own", "1h", "200ms"), ("given", "2s", "1h")] {
        server.ok(&["create", name, "--range", "0..1", "--runs", "1", "--max-errors", "1", "--timeout", create]);
        let script = format!("sleep 1000 & echo $! > {name}-child; wait");
        let arguments = ["work", name, "--until-done", "--timeout", work, "--", "sh", "-c", &script];
        let output = server.run(&arguments);
        assert_eq!(output.status.code(), Some(10), "{}", stderr(&output));
        assert_gone(pid_in(&server.path(&format!("{name}-child"))));
        let task = &server.tasks(name)[0];
        assert!(task["last_error"].as_str().unwrap().starts_with("timed out"), "{task}");
        assert_eq!((&task["done"], &task["errors"], &task["leased"]), (&0.into(), &1.into(), &0.into()));
    }
}

#[test]
fn no_child_outlives_a_killed_worker() {
    let server = Server::start();
    server.ok(&["create", "x", "--range", "0..2", "--runs", "1"]);
    let script = "sleep 1000 & echo $! > child-{}; echo $$ > leader-{}; wait";
    let mut worker = server.spawn(&["work", "-j", "2", "--", "sh", "-c", script]);
    let children = ["child-0", "leader-0", "child-1", "leader-1"].map(|name| pid_in(&server.path(name)));
    assert!(children.iter().all(|pid| is_alive(*pid)));
    worker.signal(Signal::KILL);
    children.into_iter().for_each(assert_gone);
}

#[test]
fn a_lost_lease_kills_the_run() {
    let server = Server::start();
    server.ok(&["create", "x", "--range", "0..1", "--runs", "1"]);
    let script = "sleep 1000 & echo $! > child; wait";
    let worker = server.spawn(&["work", "--until-done", "--", "sh", "-c", script]);
    let child = pid_in(&server.path("child"));
    server.ok(&["campaign", "cancel", "x"]);
    assert_gone(child);
    let output = worker.output();
    assert_eq!(output.status.code(), Some(11), "{}", stderr(&output));
    assert!(stderr(&output).contains("its lease is lost: campaign cancelled"), "{}", stderr(&output));
}

#[test]
fn the_first_signal_finishes_what_runs_and_gives_back_the_rest() {
    let server = Server::start();
    server.ok(&["create", "x", "--range", "0..10", "--runs", "3"]);
    let script = "echo $$ > started; while ! test -e go; do sleep 0.01; done";
    let mut worker = server.spawn(&["work", "--runs-per-lease", "3", "--", "sh", "-c", script]);
    line_of(&server.path("started"));
    worker.signal(Signal::TERM);
    worker.wait_for_stderr("finishing the runs of 1 lease");
    std::fs::write(server.path("go"), "").unwrap();
    let output = worker.output();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let status = server.status("x");
    assert_eq!((&status["runs"]["done"], &status["runs"]["leased"]), (&1.into(), &0.into()));
    assert_eq!(status["errors"], 0);
}

#[test]
fn the_second_signal_kills_and_gives_back() {
    let server = Server::start();
    server.ok(&["create", "x", "--range", "0..10", "--runs", "1"]);
    let script = "trap '' TERM INT; sleep 1000 & echo $! > child; while :; do wait; done";
    let mut worker = server.spawn(&["work", "--", "sh", "-c", script]);
    let child = pid_in(&server.path("child"));
    worker.signal(Signal::INT);
    worker.wait_for_stderr("finishing the runs of 1 lease");
    assert!(is_alive(child));
    worker.signal(Signal::INT);
    let output = worker.output();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_gone(child);
    let status = server.status("x");
    assert_eq!(
        (&status["runs"]["done"], &status["runs"]["leased"], &status["errors"]),
        (&0.into(), &0.into(), &0.into())
    );
}

#[test]
fn output_passes_through_by_whole_lines() {
    let server = Server::start();
    server.ok(&["create", "x", "--range", "0..4", "--runs", "2", "--seed", "1"]);
    let script = "i=0; while [ $i -lt 50 ]; do printf 'a b'; printf ' c%s\\n' $i; i=$((i + 1)); done; printf end";
    let output = server.run(&["work", "-j", "4", "--until-done", "--", "sh", "-c", script]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    for task in 0..4 {
        for run in 0..2 {
            let prefix = format!("[x {task}#{run}] ");
            let lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(&prefix)).collect();
            let expected: Vec<_> = (0..50).map(|line| format!("a b c{line}")).chain(["end".to_owned()]).collect();
            assert_eq!(lines, expected, "lines of {prefix}");
        }
    }
    assert_eq!(text.lines().count(), 8 * 51);
}

#[test]
fn output_keeps_its_stream_and_its_bytes() {
    let server = Server::start();
    server.ok(&["create", "x", "--range", "0..1", "--runs", "1"]);
    let script = r"printf 'out \377\n'; printf 'err \377\n' >&2";
    let output = server.run(&["work", "-q", "--until-done", "--", "sh", "-c", script]);
    assert_eq!((output.stdout, output.stderr), (b"out \xff\n".to_vec(), b"err \xff\n".to_vec()));
}

#[test]
fn a_reader_that_has_seen_enough_ends_a_worker() {
    let server = Server::start();
    server.ok(&["create", "x", "--range", "0..100000", "--runs", "1"]);
    let mut worker = server.spawn(&["work", "--", "echo", "{}"]);
    let mut line = String::new();
    BufReader::new(worker.child().stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "0\n");
    let output = worker.output();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(server.status("x")["runs"]["leased"], 0);
}

#[test]
fn several_runs_of_a_lease_are_reported_one_by_one() {
    let server = Server::start();
    for (name, seed) in [("counted", None), ("numbered", Some("3"))] {
        let mut create = vec!["create", name, "--range", "0..1", "--runs", "10"];
        create.extend(seed.iter().flat_map(|seed| ["--seed", seed]));
        server.ok(&create);
        // The third run fails, once.
        let script = format!("echo >> {name}; test $(wc -l < {name}) != 3");
        let arguments = ["work", name, "--until-done", "--runs-per-lease", "64", "--", "sh", "-c", &script];
        let output = server.run(&arguments);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let task = &server.tasks(name)[0];
        assert_eq!((&task["done"], &task["errors"], &task["extra"]), (&10.into(), &1.into(), &0.into()));
        assert_eq!(std::fs::read_to_string(server.path(name)).unwrap().lines().count(), 11);
    }
}

#[test]
fn what_a_worker_waits_for_is_said_once() {
    let server = Server::start();
    let mut worker = server.spawn(&["work", "later", "--until-done", "--", "true"]);
    worker.wait_for_stderr("waiting: there is no campaign named later yet\n");
    server.ok(&["create", "other", "--range", "0..5"]);
    server.ok(&["create", "later", "--range", "0..5", "--runs", "1"]);
    let output = worker.output();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!stderr(&output).contains("no campaign"), "{}", stderr(&output));
    assert_eq!(server.status("other")["runs"]["done"], 0, "another campaign is not touched");
}

#[test]
fn reports_without_an_answer_end_with_3() {
    let mut server = Server::start();
    server.ok(&["create", "x", "--range", "0..10", "--runs", "1"]);
    let script = "echo $$ > started; while ! test -e go; do sleep 0.01; done";
    let mut worker = server.spawn(&["work", "--grace", "300ms", "--", "sh", "-c", script]);
    line_of(&server.path("started"));
    server.kill();
    worker.wait_for_stderr("no server answers");
    worker.signal(Signal::TERM);
    worker.wait_for_stderr("finishing the runs of 1 lease");
    std::fs::write(server.path("go"), "").unwrap();
    let output = worker.output();
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("error: 1 report got no answer"), "{}", stderr(&output));
}

#[test]
fn work_goes_on_over_a_crash_of_the_server() {
    let mut server = Server::start();
    server.ok(&["create", "x", "--range", "0..40", "--runs", "1"]);
    let worker = server.spawn(&["work", "-j", "2", "--until-done", "--", "sh", "-c", "echo {} >> executed"]);
    let executed = server.path("executed");
    let lines = || std::fs::read_to_string(&executed).map_or(0, |text| text.lines().count());
    eventually("some runs", || (lines() >= 10).then_some(()));
    server.kill();
    server.start_again();
    let output = worker.output();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let status = server.status("x");
    assert_eq!((&status["finished"], &status["runs"]["done"]), (&true.into(), &40.into()));
    let counted = status["runs"]["done"].as_u64().unwrap() + status["runs"]["extra"].as_u64().unwrap();
    assert_eq!(counted, lines() as u64, "every run executed is counted once");
}
