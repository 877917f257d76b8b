//! What the program does without any server: usage, precedence, exit codes, and who is told what on which stream.

#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

fn tenfold(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenfold"));
    command.args(arguments).env_remove("TENFOLD_SERVER").env_remove("TENFOLD_LOG").env_remove("NO_COLOR");
    command.stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    tenfold(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A port of this machine that nobody listens on.
fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn wrong_usage_ends_with_2_and_says_nothing_on_stdout() {
    for arguments in [
        &["no-such-command"][..],
        &["create"],
        &["create", "x"],
        &["create", "x", "--range", "1-3"],
        &["create", "x", "--range", "3..3"],
        &["create", "x", "--range", "0..9", "--lines", "-"],
        &["create", "a b", "--range", "0..9"],
        &["create", "x", "--range", "0..9", "--runs", "0"],
        &["create", "x", "--range", "0..9", "--timeout", "10"],
        &["create", "x", "--range", "0..9", "--timeout", "1ms"],
        &["create", "x", "--range", "0..9", "--max-errors", "0"],
        &["counts", "x", "--json", "--csv"],
        &["status", "-q", "-v"],
        &["wait", "x", "--timeout", "soon"],
        &["work"],
        &["work", "x"],
        &["work", "-j", "0", "--", "true"],
        &["campaign"],
        &["campaign", "explode", "x"],
        &["verify"],
        &["-s", "a b", "status"],
        &["status", "--color", "sometimes"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn help_and_version_are_data() {
    for arguments in [&["--help"][..], &["create", "--help"], &["--version"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0));
        assert!(!output.stdout.is_empty() && output.stderr.is_empty());
    }
}

#[test]
fn an_unreachable_server_ends_with_3_and_a_hint() {
    let server = closed_port();
    for arguments in [
        &["status"][..],
        &["counts", "x"],
        &["create", "x", "--range", "0..9"],
        &["campaign", "list"],
        &["campaign", "pause", "x"],
        &["campaign", "rm", "x"],
    ] {
        let output = tenfold(arguments).args(["--patience", "50ms", "-s", &server]).output().unwrap();
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {text}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(text.contains("error: ") && text.contains(&server) && text.contains("\nhint: "), "{text}");
    }
}

#[test]
fn waiting_goes_on_without_a_server_until_its_own_timeout() {
    let output = run(&["wait", "x", "--timeout", "300ms", "-s", &closed_port()]);
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
}

#[test]
fn a_flag_wins_over_the_environment() {
    let (flag, variable) = (closed_port(), closed_port());
    let status = |arguments: &[&str]| {
        let mut command = tenfold(&["status", "--patience", "50ms"]);
        stderr(&command.args(arguments).env("TENFOLD_SERVER", &variable).output().unwrap())
    };
    let text = status(&["-s", &flag]);
    assert!(text.contains(&flag) && !text.contains(&variable), "{text}");
    assert!(status(&[]).contains(&variable));
}

#[test]
fn lines_that_cannot_be_keys_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lines");
    for (lines, complaint) in
        [("a\nb\nc\nb\n", "lines 2 and 4 are the same: b"), ("a\n\nb\n", "line 2 is empty"), ("", "there are no lines")]
    {
        std::fs::write(&file, lines).unwrap();
        let output = run(&["create", "x", "--lines", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(complaint), "{}", stderr(&output));
    }
    let output = run(&["create", "x", "--lines", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_missing_timeout_is_warned_of() {
    let arguments = ["create", "x", "--range", "0..9", "--timeout", "none", "--patience", "50ms", "-s", &closed_port()];
    assert!(stderr(&run(&arguments)).contains("warning: without a timeout"));
}

#[test]
fn colors_are_used_when_told() {
    let arguments = ["create", "a b", "--range", "0..9"];
    let colored = |color: &str| run(&[&arguments[..], &["--color", color]].concat()).stderr.contains(&0x1b);
    assert!(colored("always"));
    assert!(!colored("never"));
    assert!(!colored("auto"), "a pipe is no terminal");
}

#[test]
fn a_command_that_is_not_there_is_said_before_anything_is_lent() {
    for command in ["no-such-program-anywhere", "./no/such/program"] {
        let output = run(&["work", "-s", &closed_port(), "--", command]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(&format!("cannot start {command}")), "{}", stderr(&output));
    }
}
