//! What is printed and kept of the results: medians over rounds, and ratios to the ceilings of the same run.

use std::fmt::Write;

use crate::figures::{Middle, Results, Shape, shapes};
use crate::server::Kind;

/// The table for people.
pub(crate) fn text(results: &Results<Kind>) -> String {
    let mut out = String::new();
    writeln!(out, "runs a message · clients · server · cycles/s (lowest … highest) · p50 p99 p99.9 in µs · server CPU µs, bytes written and disk flushes a cycle").unwrap();
    for shape in shapes(results) {
        let of = |kind| Middle::of(&results[&(shape, kind)]);
        for kind in Kind::ALL {
            let Middle { measured: m, lowest, highest } = of(kind);
            writeln!(
                out,
                "{:>3} {:>4}  {:<14} {:>8.0} ({lowest:.0} … {highest:.0})  {:>6.0} {:>6.0} {:>6.0}  {:>6.1} {:>6.0} {:>6.3}",
                shape.batch,
                shape.clients,
                kind.word(),
                m.rate,
                m.p50,
                m.p99,
                m.p999,
                m.cpu,
                m.written,
                m.flushes
            )
            .unwrap();
        }
        let (ours, tokio, epoll) = (of(Kind::Tenfold).measured, of(Kind::Ceiling).measured, of(Kind::Epoll).measured);
        writeln!(
            out,
            "          ratio to ceiling: rate {:.2}, p50 {:.2}, CPU {:.2}; to ceiling-epoll: rate {:.2}; {:.0} runs/s",
            ours.rate / tokio.rate,
            ours.p50 / tokio.p50,
            ours.cpu / tokio.cpu,
            ours.rate / epoll.rate,
            ours.rate * f64::from(shape.batch)
        )
        .unwrap();
    }
    out
}

const WIDTH: f64 = 640.0;
const ROW: f64 = 18.0;
const LEFT: f64 = 190.0;

/// Bars of the median rates in runs a second, a group for each shape.
pub(crate) fn svg(results: &Results<Kind>) -> String {
    let rate = |shape: &Shape, kind| Middle::of(&results[&(*shape, kind)]).measured.rate * f64::from(shape.batch);
    let shapes = shapes(results);
    let rows = shapes.len() * (Kind::ALL.len() + 1);
    let mut out = String::new();
    let height = rows as f64 * ROW + ROW;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"11\">"
    )
    .unwrap();
    writeln!(out, "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>").unwrap();
    let mut y = ROW;
    for batch in results.keys().map(|(shape, _)| shape.batch).collect::<std::collections::BTreeSet<_>>() {
        let group: Vec<&Shape> = shapes.iter().filter(|shape| shape.batch == batch).collect();
        let most = group.iter().flat_map(|shape| Kind::ALL.map(|kind| rate(shape, kind))).fold(0.0, f64::max);
        for shape in group {
            writeln!(out, "<text x=\"8\" y=\"{y}\">{} clients, {batch} a message</text>", shape.clients).unwrap();
            for (kind, colour) in Kind::ALL.into_iter().zip(["#b8bcc4", "#d9dbe0", "#2f6fde"]) {
                let (value, width) = (rate(shape, kind), rate(shape, kind) / most * (WIDTH - LEFT - 90.0));
                writeln!(
                    out,
                    "<text x=\"{}\" y=\"{y}\" text-anchor=\"end\">{}</text>",
                    LEFT - 6.0,
                    if kind == Kind::ALL[0] { "" } else { kind.word() }
                )
                .unwrap();
                writeln!(
                    out,
                    "<rect x=\"{LEFT}\" y=\"{}\" width=\"{width:.1}\" height=\"12\" fill=\"{colour}\"/>",
                    y - 10.0
                )
                .unwrap();
                writeln!(out, "<text x=\"{:.1}\" y=\"{y}\">{value:.0} runs/s</text>", LEFT + width + 4.0).unwrap();
                y += ROW;
            }
            y += ROW;
        }
    }
    out + "</svg>\n"
}
