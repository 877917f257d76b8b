//! `tenfold demo` as its user sees it: the real program, its real processes, small campaigns.
//!
//! What is promised: the curve depends on the seed alone, not on the fleet; every check holds although a server and a
//! worker are killed in the middle; and whatever way the demo ends, nothing of it is left.
#![cfg(all(feature = "cli", target_os = "linux"))]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// A demo with a temporary directory of its own, so that its processes can be told from those of others.
struct Demo {
    child: Child,
    directory: tempfile::TempDir,
}

/// What a finished demo said.
struct Told {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("temporary")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_tenfold"))
            .arg("demo")
            .args(arguments)
            .current_dir(directory.path())
            .env("TMPDIR", directory.path().join("temporary"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, directory }
    }

    /// Waits until a line of its progress begins with `word`.
    fn wait_for(&mut self, word: &str) {
        let stderr = self.child.stderr.as_mut().unwrap();
        let mut said = Vec::new();
        for line in BufReader::new(stderr).lines() {
            let line = line.unwrap();
            if line.starts_with(word) {
                return;
            }
            said.push(line);
        }
        panic!("the demo ended without saying {word:?}; it said\n{}", said.join("\n"));
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn finish(&mut self) -> Told {
        let mut stderr = self.child.stderr.take().unwrap();
        let listener = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).map(|_| text)
        });
        let mut stdout = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        let stderr = listener.join().unwrap().unwrap();
        Told { status: self.child.wait().unwrap(), stdout, stderr }
    }

    /// The command lines of all processes that work in this demo's directory.
    fn processes(&self) -> Vec<String> {
        let directory = self.directory.path().to_string_lossy().into_owned();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
            .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
            .filter(|line| line.contains(&directory))
            .collect()
    }

    fn temporary_files(&self) -> usize {
        std::fs::read_dir(self.directory.path().join("temporary")).unwrap().count()
    }

    fn svg(&self) -> String {
        read(&self.directory.path().join("tenfold-demo.svg"))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

impl Told {
    fn line(&self, begin: &str) -> &str {
        let found = self.stdout.lines().find(|line| line.starts_with(begin));
        found.unwrap_or_else(|| panic!("no line begins with {begin:?}:\n{}{}", self.stdout, self.stderr))
    }

    fn assert_all_is_well(&self) {
        let Self { status, stdout, stderr } = self;
        assert!(status.success(), "{status}\n{stdout}{stderr}");
        assert!(!stdout.contains("BROKEN"), "{stdout}");
        assert!(stdout.contains("checks hold."), "{stdout}");
    }
}

#[test]
fn two_fleets_draw_the_same_curve_although_both_are_killed_in_the_middle() {
    let small = ["--tasks", "40", "--runs", "5", "--lattice", "64", "--pace", "10ms", "--lease", "1s"];
    let mut demos = ["2", "3"].map(|workers| Demo::start(&[&small[..], &["--workers", workers]].concat()));
    let told = demos.each_mut().map(Demo::finish);
    for (demo, told) in demos.iter().zip(&told) {
        told.assert_all_is_well();
        assert!(told.stderr.contains("KILL") && told.stderr.contains("RESTART"), "{}", told.stderr);
        told.line("ok      the killed server came back with every run it had acked");
        assert!(told.stdout.contains("; killed"), "{}", told.stdout);
        assert_eq!(demo.processes(), [""; 0], "processes are left");
        assert_eq!(demo.temporary_files(), 0, "files are left");
    }
    // This is what seed 42 decides, on every machine.
    let digest = "032e651714d2b1851acb8ba7faa3e5f2f9fd5978e7d8035bca342c74d98ef05d";
    assert_eq!(told[0].line("digest").split_whitespace().nth(1), Some(digest));
    for begin in ["digest", "threshold"] {
        assert_eq!(told[0].line(begin), told[1].line(begin));
    }
    assert_eq!(demos[0].svg(), demos[1].svg());
}

#[test]
fn nothing_is_left_of_a_demo_that_is_interrupted() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut demo = Demo::start(&["--workers", "2"]);
        demo.wait_for("fleet");
        demo.signal(signal);
        let told = demo.finish();
        assert_eq!(told.status.code(), Some(1), "{}", told.stderr);
        assert!(told.stderr.contains("everything was stopped"), "{}", told.stderr);
        assert_eq!(demo.processes(), [""; 0], "processes are left");
        assert_eq!(demo.temporary_files(), 0, "files are left");
    }
}

#[test]
fn no_process_outlives_a_demo_that_is_killed_itself() {
    let mut demo = Demo::start(&["--workers", "2"]);
    demo.wait_for("fleet");
    // The system has started them, but shows their command lines only a moment later.
    assert!(becomes(|| demo.processes().len() >= 3), "a server and two workers: {:?}", demo.processes());
    demo.signal(Signal::KILL);
    assert_eq!(demo.child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
    // The system kills them; that takes a moment, and nothing tells when it is over.
    assert!(becomes(|| demo.processes().is_empty()), "still there: {:?}", demo.processes());
}

/// Looks until it is so, for half a minute at most.
fn becomes(mut is_so: impl FnMut() -> bool) -> bool {
    (0..3_000).any(|look| {
        std::thread::sleep(Duration::from_millis(if look == 0 { 0 } else { 10 }));
        is_so()
    })
}

#[test]
fn a_given_directory_is_kept_and_never_shared() {
    let arguments = ["--data-dir", "kept", "--svg", "kept.svg", "--no-kill"];
    let small = ["--tasks", "10", "--runs", "2", "--lattice", "16", "--workers", "1"];
    let mut demo = Demo::start(&[&arguments[..], &small[..]].concat());
    let told = demo.finish();
    told.assert_all_is_well();
    assert!(!told.stderr.contains("KILL"), "{}", told.stderr);
    let kept = demo.directory.path().join("kept");
    assert!(kept.join("server").is_dir());
    assert!(read(&kept.join("worker-1.log")).starts_with("session "));
    assert!(read(&demo.directory.path().join("kept.svg")).starts_with("<svg"));

    let again = Command::new(env!("CARGO_BIN_EXE_tenfold")).args(["demo", "--data-dir"]).arg(&kept).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(said.contains("is not empty"), "{said}");
}
