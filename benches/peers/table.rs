//! What is printed and kept of the results: medians over rounds, and the ratios of `tenfold` to everybody else in the same run.

use std::fmt::Write;

use crate::figures::{Middle, Shape};
use crate::plan::Results;
use crate::server::Kind;

fn shapes(results: &Results) -> Vec<Shape> {
    let mut shapes: Vec<Shape> = results.keys().map(|(shape, _)| *shape).collect();
    shapes.dedup();
    shapes
}

/// The table for people.
pub(crate) fn text(results: &Results) -> String {
    let mut out = String::new();
    writeln!(out, "runs a message · clients · server · cycles/s (lowest … highest) · p50 p99 p99.9 in µs · server CPU µs and bytes written a cycle · tenfold's rate to its").unwrap();
    for shape in shapes(results) {
        let of = |kind| results.get(&(shape, kind)).map(|rounds| Middle::of(rounds));
        let ours = of(Kind::Tenfold).unwrap().measured.rate;
        for kind in Kind::ALL {
            let Some(Middle { measured: m, lowest, highest }) = of(kind) else { continue };
            writeln!(
                out,
                "{:>3} {:>4}  {:<14} {:>8.0} ({lowest:.0} … {highest:.0})  {:>6.0} {:>6.0} {:>6.0}  {:>6.1} {:>6.0}  {:>5.2}",
                shape.batch,
                shape.clients,
                kind.word(),
                m.rate,
                m.p50,
                m.p99,
                m.p999,
                m.cpu,
                m.written,
                ours / m.rate
            )
            .unwrap();
        }
        let redis = [Kind::Redis, Kind::Streams].into_iter().filter_map(of).map(|middle| middle.measured.rate);
        if let Some(redis) = redis.max_by(f64::total_cmp) {
            writeln!(out, "          tenfold to Redis at its better: {:.2}", ours / redis).unwrap();
        }
    }
    out
}

/// The same for programs, every round of it.
pub(crate) fn json(results: &Results) -> String {
    let rows: Vec<serde_json::Value> = results
        .iter()
        .flat_map(|((shape, kind), rounds)| rounds.iter().map(move |one| one.json(*shape, kind.word())))
        .collect();
    serde_json::to_string_pretty(&rows).unwrap() + "\n"
}
