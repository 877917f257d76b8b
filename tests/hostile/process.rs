//! What the kernel says about a process: descriptors, memory, time on the processor. Linux only: it is read from /proc.

use std::fs;
use std::time::Duration;

use rustix::process::Pid;

/// The unit of times in /proc, on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// Descriptors that a process has open.
pub(crate) fn descriptors(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{}/fd", pid.as_raw_pid())).unwrap().count()
}

/// Memory of a process, in KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Now.
    pub(crate) now: u64,
    /// The most there ever was.
    pub(crate) most: u64,
}

/// The memory that a process has in RAM.
pub(crate) fn memory(pid: Pid) -> Memory {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid())).unwrap();
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    Memory { now: line("VmRSS:"), most: line("VmHWM:") }
}

/// How long a process has been on a processor, in all its threads.
pub(crate) fn processor_time(pid: Pid) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap();
    // Behind the name, which may contain anything: state is the third field, user and system time the 14th and 15th.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    TICK * (fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap())
}

/// Lets this process, and those it starts, open as many files as it may.
pub(crate) fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}
