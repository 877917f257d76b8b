//! The guard of a run, as a worker uses it: nothing of a run is left, whoever dies first.
//!
//! A test holds the worker's end of the socket. "Gone" is looked for again and again, for at most ten seconds.

#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{BufRead, BufReader, Read};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

struct Guarded {
    guard: Child,
    worker: BufReader<UnixStream>,
    output: BufReader<std::process::ChildStdout>,
}

fn guard(command: &[&str]) -> Guarded {
    let (worker, theirs) = UnixStream::pair().unwrap();
    let mut guard = Command::new(env!("CARGO_BIN_EXE_tenfold"))
        .args(["guard", "--"])
        .args(command)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        // What escapes must not hold whatever reads the output of these tests.
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(guard.stdout.take().unwrap());
    Guarded { guard, worker: BufReader::new(worker), output }
}

impl Guarded {
    fn last_word(&mut self) -> String {
        let mut line = String::new();
        self.worker.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.guard.wait().unwrap().code()
    }

    /// The next line of the run's output, which is a process id.
    fn pid(&mut self) -> Pid {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        Pid::from_raw(line.trim().parse().unwrap()).unwrap()
    }
}

/// A process that was killed but not yet reaped is gone as well.
fn is_gone(pid: Pid) -> bool {
    if test_kill_process(pid).is_err() {
        return true;
    }
    let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid()));
    state.is_ok_and(|state| state.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}

fn assert_gone(pid: Pid) {
    for _ in 0..1_000 {
        if is_gone(pid) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = kill_process(pid, Signal::KILL);
    panic!("process {} outlives its guard", pid.as_raw_pid());
}

#[test]
fn the_last_word_says_how_the_run_ended() {
    for (script, word, code) in
        [("exit 0", "exited 0", 0), ("exit 75", "exited 75", 75), ("kill -SEGV $$", "killed 11", 139)]
    {
        let mut guarded = guard(&["sh", "-c", script]);
        assert_eq!(guarded.last_word(), word);
        assert_eq!(guarded.exit_code(), Some(code));
    }
}

#[test]
fn what_cannot_be_started_is_told_apart_from_what_failed() {
    let mut guarded = guard(&["/nonexistent/program"]);
    let word = guarded.last_word();
    assert!(word.starts_with("cannot-start /nonexistent/program: No such file"), "{word}");
    // A command that ends with the code a shell uses for this is a command that ended.
    assert_eq!(guard(&["sh", "-c", "exit 127"]).last_word(), "exited 127");
}

#[test]
fn the_run_reads_nothing_and_does_not_hold_the_socket() {
    let mut guarded = guard(&["sh", "-c", "cat; ls -l /proc/self/fd 2>/dev/null | grep -c socket; true"]);
    assert_eq!(guarded.last_word(), "exited 0");
    let mut output = String::new();
    guarded.output.read_to_string(&mut output).unwrap();
    assert_eq!(output.trim(), "0");
}

#[test]
fn closing_the_socket_kills_the_whole_group() {
    // As when a worker dies by SIGKILL: the system closes the socket.
    let mut guarded = guard(&["sh", "-c", "sleep 1000 & echo $!; echo $$; wait"]);
    let (child, leader) = (guarded.pid(), guarded.pid());
    let (ours, _) = UnixStream::pair().unwrap();
    drop(std::mem::replace(&mut guarded.worker, BufReader::new(ours)));
    assert_eq!(guarded.exit_code(), Some(137));
    assert_gone(child);
    assert_gone(leader);
}

#[test]
fn shutting_the_socket_down_kills_and_says_so() {
    let mut guarded = guard(&["sh", "-c", "trap '' TERM INT HUP; echo $$; while :; do sleep 1000; done"]);
    let leader = guarded.pid();
    guarded.worker.get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(guarded.last_word(), "killed 9");
    assert_gone(leader);
}

#[test]
fn a_finished_run_leaves_nothing_behind_in_its_group() {
    let mut guarded = guard(&["sh", "-c", "sleep 1000 & echo $!; exit 3"]);
    let child = guarded.pid();
    assert_eq!(guarded.last_word(), "exited 3");
    assert_gone(child);
}

#[cfg(target_os = "linux")]
#[test]
fn what_leaves_the_group_is_found_too() {
    let mut guarded = guard(&["sh", "-c", "setsid sh -c 'echo $$; exec sleep 1000' & wait"]);
    let escaped = guarded.pid();
    guarded.worker.get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(guarded.last_word(), "killed 9");
    assert_gone(escaped);
}

#[test]
fn signals_to_the_guard_change_nothing() {
    let mut guarded = guard(&["sh", "-c", "echo $$; exec sleep 1000"]);
    let leader = guarded.pid();
    let pid = Pid::from_raw(i32::try_from(guarded.guard.id()).unwrap()).unwrap();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        kill_process(pid, signal).unwrap();
    }
    // Had one of them ended the guard, there would be no last word; had it been passed on, another one.
    guarded.worker.get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(guarded.last_word(), "killed 9");
    assert_gone(leader);
}

#[cfg(target_os = "linux")]
#[test]
fn a_killed_guard_takes_the_command_along() {
    let mut guarded = guard(&["sh", "-c", "echo $$; exec sleep 1000"]);
    let leader = guarded.pid();
    guarded.guard.kill().unwrap();
    assert_gone(leader);
    assert_eq!(guarded.last_word(), "", "the worker hears that the guard is gone");
    guarded.guard.wait().unwrap();
}
