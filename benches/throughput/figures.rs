//! What is measured of servers under load, the middle of many such measurements, and all of them for programs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// What Linux counts processor time in, whatever its own clock does.
const TICKS_PER_SECOND: f64 = 100.0;

/// How many clients, and how many runs each reports in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shape {
    pub(crate) batch: u32,
    pub(crate) clients: u32,
}

/// What one load measured.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measured {
    /// Cycles a second.
    pub(crate) rate: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    /// Processor time of the server for one cycle, in microseconds.
    pub(crate) cpu: f64,
    /// Bytes that the server had written to the disk for one cycle.
    pub(crate) written: f64,
    /// Flushes of the machine's disks for one cycle: there is one in every sync that had something to write.
    pub(crate) flushes: f64,
}

impl Measured {
    /// Runs a load generator, and watches the server's process meanwhile.
    pub(crate) fn of(server: u32, load: &mut Command) -> Self {
        let mut load = load.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(load.stdout.take().unwrap()).lines();
        let mut line = || lines.next().expect("the load ended").unwrap();
        assert_eq!(line(), "begin");
        let (before, flushed) = (Used::by(server), flushes());
        let figures: Vec<f64> = line().split(' ').map(|word| word.parse().unwrap()).collect();
        let (after, flushed) = (Used::by(server), flushes() - flushed);
        assert!(load.wait().unwrap().success());
        let [cycles, seconds, p50, p99, p999] = figures[..] else { panic!("{figures:?}") };
        Self {
            rate: cycles / seconds,
            p50,
            p99,
            p999,
            cpu: (after.cpu - before.cpu) * 1e6 / cycles,
            written: (after.written - before.written) / cycles,
            flushes: flushed / cycles,
        }
    }

    /// For programs.
    pub(crate) fn json(&self, shape: Shape, server: &str) -> serde_json::Value {
        serde_json::json!({
            "clients": shape.clients, "runs_per_message": shape.batch, "server": server,
            "cycles_per_second": self.rate, "p50_us": self.p50, "p99_us": self.p99, "p999_us": self.p999,
            "server_cpu_us_per_cycle": self.cpu, "written_bytes_per_cycle": self.written,
            "disk_flushes_per_cycle": self.flushes,
        })
    }
}

/// What a process and its children have used so far.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    /// Seconds of processor time.
    cpu: f64,
    /// Bytes that went to the disk.
    written: f64,
}

impl Used {
    fn by(process: u32) -> Self {
        let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        let children = threads.flat_map(|thread| {
            let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            children.split_whitespace().map(|child| child.parse().unwrap()).collect::<Vec<u32>>()
        });
        children.map(Self::by).fold(Self::alone(process), |sum, child| Self {
            cpu: sum.cpu + child.cpu,
            written: sum.written + child.written,
        })
    }

    /// Of the process itself, and of those children that have ended.
    fn alone(process: u32) -> Self {
        let read = |file| std::fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default();
        let (stat, io) = (read("stat"), read("io"));
        // The name before may hold anything, a parenthesis included.
        let ticks = stat.rsplit_once(')').map_or(0.0, |(_, fields)| {
            fields.split_whitespace().skip(11).take(4).map(|ticks| ticks.parse::<f64>().unwrap()).sum()
        });
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        Self { cpu: ticks / TICKS_PER_SECOND, written: written.map_or(0.0, |bytes| bytes.parse().unwrap()) }
    }
}

/// How often the disks of this machine were flushed so far.
fn flushes() -> f64 {
    let disks = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let stat = |disk: std::fs::DirEntry| std::fs::read_to_string(disk.path().join("stat")).unwrap_or_default();
    // The sixteenth number, see the kernel's documentation of this file.
    let flushes = |stat: String| stat.split_whitespace().nth(15).map_or(0.0, |flushes| flushes.parse().unwrap());
    disks.map(stat).map(flushes).sum()
}

/// The middle of the rounds, field by field, and the spread of the rates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Middle {
    pub(crate) measured: Measured,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

impl Middle {
    pub(crate) fn of(rounds: &[Measured]) -> Self {
        let sorted = |field: fn(&Measured) -> f64| {
            let mut values: Vec<f64> = rounds.iter().map(field).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let median = |field| {
            let values = sorted(field);
            values[values.len() / 2]
        };
        let rates = sorted(|one| one.rate);
        let measured = Measured {
            rate: median(|one| one.rate),
            p50: median(|one| one.p50),
            p99: median(|one| one.p99),
            p999: median(|one| one.p999),
            cpu: median(|one| one.cpu),
            written: median(|one| one.written),
            flushes: median(|one| one.flushes),
        };
        Self { measured, lowest: rates[0], highest: rates[rates.len() - 1] }
    }
}

/// What is measured of every server under every shape, a round each.
pub(crate) type Results<Kind> = BTreeMap<(Shape, Kind), Vec<Measured>>;

/// The shapes that were measured, in order.
pub(crate) fn shapes<Kind>(results: &Results<Kind>) -> Vec<Shape> {
    let mut shapes: Vec<Shape> = results.keys().map(|(shape, _)| *shape).collect();
    shapes.dedup();
    shapes
}

/// Every round, for programs; `word` names a server.
pub(crate) fn json<Kind: Copy>(results: &Results<Kind>, word: fn(Kind) -> &'static str) -> String {
    let rows =
        results.iter().flat_map(|((shape, kind), rounds)| rounds.iter().map(|one| one.json(*shape, word(*kind))));
    serde_json::to_string_pretty(&rows.collect::<Vec<_>>()).unwrap() + "\n"
}
