//! What is printed and kept of the results: medians over rounds, and the ratios of `tenfold` to everybody else in the same run.

use std::fmt::Write;

use crate::figures::{Middle, Results, shapes};
use crate::server::Kind;

/// The table for people and for docs/PERFORMANCE.md.
pub(crate) fn text(results: &Results<Kind>) -> String {
    let mut out = String::new();
    writeln!(out, "| clients × runs a message | server | cycles/s (lowest … highest) | p50 | p99 | CPU a cycle | `tenfold` to it |").unwrap();
    writeln!(out, "|---|---|---|---|---|---|---|").unwrap();
    for shape in shapes(results) {
        let of = |kind| results.get(&(shape, kind)).map(|rounds| Middle::of(rounds));
        let ours = of(Kind::Tenfold).unwrap().measured.rate;
        for kind in Kind::ALL {
            let Some(Middle { measured: m, lowest, highest }) = of(kind) else { continue };
            let rates = [m.rate, lowest, highest].map(grouped);
            writeln!(
                out,
                "| {} × {} | {} | {} ({} … {}) | {} | {} | {:.1} | {} |",
                shape.clients,
                shape.batch,
                kind.word(),
                rates[0],
                rates[1],
                rates[2],
                grouped(m.p50),
                grouped(m.p99),
                m.cpu,
                if kind == Kind::Tenfold { String::new() } else { format!("{:.2}", ours / m.rate) }
            )
            .unwrap();
        }
        let redis = [Kind::Redis, Kind::Streams].into_iter().filter_map(of).map(|middle| middle.measured.rate);
        if let Some(redis) = redis.max_by(f64::total_cmp) {
            writeln!(out, "| | *Redis at its better* | {} | | | | **{:.2}** |", grouped(redis), ours / redis).unwrap();
        }
    }
    out
}

/// 12345.6 as 12,346.
fn grouped(number: f64) -> String {
    let mut text = format!("{number:.0}");
    let mut position = text.len();
    while position > 3 {
        position -= 3;
        text.insert(position, ',');
    }
    text
}
