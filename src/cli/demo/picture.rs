//! What both drawings of the curve show: the points, the fit, the literature's threshold, and which part is worth
//! looking at closely.
//!
//! [`super::terminal`] draws it with characters, [`super::svg`] as a file. Pure; tested in those two files.

use super::curve::{Estimate, Fit, Point, binned};

/// Everything a drawing needs to know.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    /// One point for each task, in ascending order of probability.
    pub points: Vec<Point>,
    /// What they say about the threshold.
    pub estimate: Estimate,
    /// Sites along an edge of the lattices.
    pub size: u32,
    /// The campaign's seed.
    pub seed: u64,
}

impl Picture {
    /// The fitted curve, if there is one.
    pub(super) fn fit(&self) -> Option<&Fit> {
        match &self.estimate {
            Estimate::Fitted(fit) => Some(fit),
            Estimate::Bracketed { .. } | Estimate::Nothing => None,
        }
    }

    /// The probabilities of the first and the last point; they differ.
    pub(super) fn range(&self) -> (f64, f64) {
        let first = self.points.first().map_or(0.0, |point| point.probability);
        let last = self.points.last().map_or(1.0, |point| point.probability);
        if first < last { (first, last) } else { (first - 0.01, last + 0.01) }
    }

    /// The part of the range where the curve rises, `widths` of the fit to both sides; all of it without a fit.
    pub(super) fn rise(&self, widths: f64) -> (f64, f64) {
        let (first, last) = self.range();
        let Some(fit) = self.fit() else {
            return (first, last);
        };
        let half = (widths * fit.width).max((last - first) / 100.0);
        let (from, to) = ((fit.threshold - half).max(first), (fit.threshold + half).min(last));
        if from < to { (from, to) } else { (first, last) }
    }

    /// The points between two probabilities, joined to at most `count`.
    pub(super) fn points_between(&self, from: f64, to: f64, count: usize) -> Vec<Point> {
        let inside = |point: &&Point| (from..=to).contains(&point.probability);
        let inside: Vec<Point> = self.points.iter().filter(inside).copied().collect();
        binned(&inside, count)
    }

    /// How many lattices there are.
    pub(super) fn lattices(&self) -> u64 {
        self.points.iter().map(|point| u64::from(point.runs)).sum()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cli::demo::curve::estimate;
    use crate::cli::demo::percolation::occupation;
    use crate::types::run_seed;

    /// A noisy curve like that of the demo, the same every time.
    pub(in crate::cli::demo) fn example(tasks: u32, runs: u32) -> Picture {
        let truth = Fit { threshold: 0.5927, error: 0.0, width: 0.003 };
        let point = |task: u32| {
            let probability = occupation(task, tasks);
            let chance = |run| run_seed(7, u64::from(task), run) as f64 / (1_u64 << 53) as f64;
            let spans = |run: &u64| chance(*run) < truth.share(probability);
            Point { probability, runs, spanning: (0..u64::from(runs)).filter(spans).count() as u32 }
        };
        let points: Vec<Point> = (0..tasks).map(point).collect();
        Picture { estimate: estimate(&points), points, size: 512, seed: 42 }
    }

    #[test]
    fn the_rise_is_inside_the_range() {
        let picture = example(1_000, 10);
        let (from, to) = picture.rise(8.0);
        assert!(0.56 < from && from < 0.58 && 0.605 < to && to < 0.63, "{from} {to}");
        let points = picture.points_between(from, to, 30);
        assert!((20..=30).contains(&points.len()));
        assert!(points.iter().all(|point| (from..=to).contains(&point.probability)));
        assert_eq!(picture.lattices(), 10_000);
        let one = Picture { points: picture.points[..1].to_vec(), estimate: Estimate::Nothing, ..picture };
        assert!(one.range().0 < one.range().1);
        assert_eq!(one.rise(8.0), one.range());
    }
}
