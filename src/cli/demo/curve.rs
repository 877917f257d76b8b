//! From counts to a threshold: the share of lattices that span, by occupation probability, and where it crosses one half.
//!
//! The estimate is the midpoint of a logistic curve 1 / (1 + exp(−(p − c) / w)), fitted by maximum likelihood (Newton's
//! method; the likelihood is concave), its error bar the standard error from the Fisher information. Why the midpoint is
//! the threshold: in the limit of large squares exactly half of all lattices span at the threshold (Cardy, "Critical
//! percolation in finite geometries", J. Phys. A 25, 1992), and the curve is symmetric about it. On a finite lattice the
//! crossing is a little lower; [`finite_size_shift`] says how much. The error bar speaks of chance alone.
//!
//! **Invariant:** every sum runs in the order of the tasks, so the same counts give the same floating-point bits.
//! Deliberately absent: weights, bootstrap, extrapolation over sizes. Tested in this file, against exact curves, closed
//! forms and simulated fits.

/// The literature's threshold of site percolation on the square lattice. 0.592746 is the value of Newman and Ziff,
/// "Efficient Monte Carlo algorithm and high-precision results for percolation", Phys. Rev. Lett. 85 (2000):
/// 0.59274621(13); Jacobsen, J. Phys. A 48 (2015), has 0.59274605079210(2).
pub(super) const LITERATURE: f64 = 0.592_746;

/// Most steps of Newton's method; five to ten are usual.
const NEWTON_STEPS_MAX: usize = 100;

/// The runs of one or several neighbouring tasks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    /// Occupation probability; of several tasks the mean.
    pub probability: f64,
    /// How many lattices.
    pub runs: u32,
    /// How many of them span.
    pub spanning: u32,
}

impl Point {
    /// The share that spans, 0 to 1.
    pub(super) fn share(&self) -> f64 {
        f64::from(self.spanning) / f64::from(self.runs.max(1))
    }

    /// Lower and upper end of the interval that holds the true share in about two of three cases (Wilson's score
    /// interval for one standard error, which is honest at 0 and 1 too).
    pub(super) fn interval(&self) -> (f64, f64) {
        let runs = f64::from(self.runs.max(1));
        let share = self.share();
        let middle = (share + 0.5 / runs) / (1.0 + 1.0 / runs);
        let half = (share * (1.0 - share) / runs + 0.25 / (runs * runs)).sqrt() / (1.0 + 1.0 / runs);
        ((middle - half).max(0.0), (middle + half).min(1.0))
    }
}

/// What the points say about the threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Estimate {
    /// A fitted curve.
    Fitted(Fit),
    /// No lattice spans at or below `below`, all span at or above `above`: the threshold is between, and these points
    /// cannot say where.
    Bracketed {
        /// The largest probability before the step.
        below: f64,
        /// The smallest probability after the step.
        above: f64,
    },
    /// The points do not contain a rise from none to all.
    Nothing,
}

/// A logistic curve fitted to points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fit {
    /// Where the curve is one half.
    pub threshold: f64,
    /// Standard error of the threshold, by chance alone.
    pub error: f64,
    /// The width w: from a quarter to three quarters the curve needs 2.2 w.
    pub width: f64,
}

impl Fit {
    /// The curve's height at a probability, 0 to 1.
    pub(super) fn share(&self, probability: f64) -> f64 {
        logistic((probability - self.threshold) / self.width)
    }
}

/// About how far below the threshold the curve of lattices of `size` × `size` sites crosses one half.
///
/// At the threshold the share is 0.5 + 0.319 / L (Ziff, "Spanning probability in 2D percolation", Phys. Rev. Lett. 69,
/// 1992), and the slope there grows as about 0.77 L^(3/4), so the crossing is early by 0.42 L^(−7/4): by 0.00001 at 512.
pub(super) fn finite_size_shift(size: u32) -> f64 {
    0.42 * f64::from(size.max(1)).powf(-1.75)
}

/// Fits the threshold. `points` in ascending order of probability.
pub(super) fn estimate(points: &[Point]) -> Estimate {
    let first_spanning = points.iter().position(|point| point.spanning > 0);
    let last_broken = points.iter().rposition(|point| point.spanning < point.runs);
    let (Some(first_spanning), Some(last_broken)) = (first_spanning, last_broken) else {
        return Estimate::Nothing;
    };
    if first_spanning >= last_broken {
        // A clean step, or one mixed point: the likelihood has no maximum, the best curve is infinitely steep.
        let below = points[..first_spanning].last();
        let above = points[last_broken + 1..].first();
        return match (below, above) {
            (Some(below), Some(above)) => Estimate::Bracketed { below: below.probability, above: above.probability },
            (None, _) | (_, None) => Estimate::Nothing,
        };
    }
    fit(points).map_or(Estimate::Nothing, Estimate::Fitted)
}

/// Joins neighbouring points, so that there are at most `count` of them, all of about the same number of tasks.
pub(super) fn binned(points: &[Point], count: usize) -> Vec<Point> {
    let per_bin = points.len().div_ceil(count.max(1)).max(1);
    let join = |bin: &[Point]| Point {
        probability: bin.iter().map(|point| point.probability).sum::<f64>() / bin.len() as f64,
        runs: bin.iter().map(|point| point.runs).sum(),
        spanning: bin.iter().map(|point| point.spanning).sum(),
    };
    points.chunks(per_bin).map(join).collect()
}

/// Maximum likelihood by Newton's method on share = logistic(a + b x), x the scaled distance from a start value.
fn fit(points: &[Point]) -> Option<Fit> {
    let (middle, scale) = start(points)?;
    let scaled = |point: &Point| (point.probability - middle) / scale;
    let (mut a, mut b) = (0.0, 1.0);
    let mut likelihood = log_likelihood(points, scaled, a, b);
    for _ in 0..NEWTON_STEPS_MAX {
        let information = Information::at(points, scaled, a, b);
        let determinant = information.determinant()?;
        let mut step_a =
            (information.bb * information.gradient_a - information.ab * information.gradient_b) / determinant;
        let mut step_b =
            (information.aa * information.gradient_b - information.ab * information.gradient_a) / determinant;
        // Far from the maximum a whole step may overshoot: halve it until it climbs.
        let mut next = log_likelihood(points, scaled, a + step_a, b + step_b);
        for _ in 0..60 {
            if next >= likelihood {
                break;
            }
            (step_a, step_b) = (step_a / 2.0, step_b / 2.0);
            next = log_likelihood(points, scaled, a + step_a, b + step_b);
        }
        if next < likelihood {
            break;
        }
        (a, b, likelihood) = (a + step_a, b + step_b, next);
        if step_a.abs() < 1e-12 * (1.0 + a.abs()) && step_b.abs() < 1e-12 * (1.0 + b.abs()) {
            break;
        }
    }
    let information = Information::at(points, scaled, a, b);
    let determinant = information.determinant()?;
    if !b.is_finite() || b <= 0.0 {
        return None;
    }
    // The threshold is x = −a / b; its variance follows from that of (a, b), which is the inverse information.
    let crossing = -a / b;
    let spread = information.bb - 2.0 * crossing * information.ab + crossing * crossing * information.aa;
    let error = scale * (spread / determinant).sqrt() / b;
    let threshold = middle + scale * crossing;
    // A curve that does not rise through one half among the points says nothing about where it would.
    let seen = points.first()?.probability..=points.last()?.probability;
    seen.contains(&threshold).then_some(Fit { threshold, error, width: scale / b })
}

/// Start values: where the curve's midpoint and width are, by the sums of Spearman and Kärber.
fn start(points: &[Point]) -> Option<(f64, f64)> {
    let (first, last) = (points.first()?.probability, points.last()?.probability);
    let step = (last - first) / (points.len() as f64 - 1.0);
    let mean = points.iter().map(Point::share).sum::<f64>() / points.len() as f64;
    let spread: f64 = points.iter().map(|point| point.share() * (1.0 - point.share())).sum();
    let middle = last - (last - first) * mean;
    let scale = (step * spread).max(step / 2.0);
    (scale > 0.0 && scale.is_finite()).then_some((middle, scale))
}

/// Gradient of the log likelihood and the Fisher information, at one curve.
struct Information {
    gradient_a: f64,
    gradient_b: f64,
    aa: f64,
    ab: f64,
    bb: f64,
}

impl Information {
    fn at(points: &[Point], scaled: impl Fn(&Point) -> f64, a: f64, b: f64) -> Self {
        let mut sum = Self { gradient_a: 0.0, gradient_b: 0.0, aa: 0.0, ab: 0.0, bb: 0.0 };
        for point in points {
            let x = scaled(point);
            let share = logistic(a + b * x);
            let runs = f64::from(point.runs);
            let surplus = f64::from(point.spanning) - runs * share;
            let weight = runs * share * (1.0 - share);
            sum.gradient_a += surplus;
            sum.gradient_b += surplus * x;
            sum.aa += weight;
            sum.ab += weight * x;
            sum.bb += weight * x * x;
        }
        sum
    }

    /// `None` if the points do not determine a curve.
    fn determinant(&self) -> Option<f64> {
        let determinant = self.aa * self.bb - self.ab * self.ab;
        (determinant.is_finite() && determinant > 0.0).then_some(determinant)
    }
}

fn log_likelihood(points: &[Point], scaled: impl Fn(&Point) -> f64, a: f64, b: f64) -> f64 {
    let term = |point: &Point| {
        let z = a + b * scaled(point);
        // log(1 + e^z) without overflow.
        let softplus = z.max(0.0) + (-z.abs()).exp().ln_1p();
        f64::from(point.spanning) * z - f64::from(point.runs) * softplus
    };
    points.iter().map(term).sum()
}

fn logistic(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(probability: f64, runs: u32, spanning: u32) -> Point {
        Point { probability, runs, spanning }
    }

    /// Points on a curve, exact but for rounding to whole runs.
    fn exact(threshold: f64, width: f64, tasks: u32, runs: u32) -> Vec<Point> {
        let curve = Fit { threshold, error: 0.0, width };
        (0..tasks)
            .map(|task| {
                let probability = 0.4 + 0.4 * f64::from(task) / f64::from(tasks - 1);
                point(probability, runs, (curve.share(probability) * f64::from(runs)).round() as u32)
            })
            .collect()
    }

    fn fitted(points: &[Point]) -> Fit {
        match estimate(points) {
            Estimate::Fitted(fit) => fit,
            other @ (Estimate::Bracketed { .. } | Estimate::Nothing) => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_exact_curve_is_found_again() {
        for (threshold, width) in [(0.592_746, 0.003), (0.5, 0.02), (0.7, 0.05), (0.45, 0.01)] {
            let fit = fitted(&exact(threshold, width, 1_000, 1_000_000));
            assert!((fit.threshold - threshold).abs() < 1e-5, "{threshold}: {fit:?}");
            assert!((fit.width - width).abs() < 1e-4, "{width}: {fit:?}");
        }
    }

    #[test]
    fn the_error_is_that_of_the_closed_form() {
        // With evenly spaced points the variance of the midpoint is width × spacing / runs.
        let fit = fitted(&exact(0.6, 0.003, 1_000, 1_000));
        let expected = (0.003 * 0.4 / 999.0 / 1_000.0_f64).sqrt();
        assert!((fit.error / expected - 1.0).abs() < 0.01, "{} against {expected}", fit.error);
    }

    #[test]
    fn two_points_have_a_known_answer() {
        // 1/4 at 0.5 and 3/4 at 0.6: by symmetry the crossing is 0.55, and logit(3/4) = ln 3 at half the distance.
        let fit = fitted(&[point(0.5, 4, 1), point(0.6, 4, 3)]);
        assert!((fit.threshold - 0.55).abs() < 1e-12, "{fit:?}");
        assert!((fit.width - 0.05 / 3.0_f64.ln()).abs() < 1e-12, "{fit:?}");
        // Variance of −a/b at a = 0: var(a) / b² = 1 / (8 · 3/16) × width².
        assert!((fit.error - fit.width / 1.5_f64.sqrt()).abs() < 1e-12, "{fit:?}");
        // Asymmetric: 1/4 at 0.5 and 9/10 at 0.6; logits −ln 3 and ln 9 = 2 ln 3, so a third of the way.
        let fit = fitted(&[point(0.5, 20, 5), point(0.6, 20, 18)]);
        assert!((fit.threshold - (0.5 + 0.1 / 3.0)).abs() < 1e-9, "{fit:?}");
        // The general formula: var(c) = Σ over the two logits' variances, each weighted by its part of the way.
        let (lower, upper) = (1.0 / (20.0 * 0.25 * 0.75), 1.0 / (20.0 * 0.9 * 0.1));
        let slope = 3.0 * 3.0_f64.ln() / 0.1;
        let expected = ((2.0 / 3.0_f64).powi(2) * lower + (1.0 / 3.0_f64).powi(2) * upper).sqrt() / slope;
        assert!((fit.error - expected).abs() < 1e-9, "{} against {expected}", fit.error);
    }

    #[test]
    fn the_error_bar_covers_what_it_says() {
        // 400 simulated curves: the truth must lie within one error in about 68% of them, within two in about 95%.
        let truth = Fit { threshold: 0.592, error: 0.0, width: 0.01 };
        let (mut one, mut two) = (0, 0);
        for trial in 0..400_u64 {
            let mut points = exact(truth.threshold, truth.width, 200, 10);
            for (index, point) in points.iter_mut().enumerate() {
                let hit = |run: u64| crate::types::run_seed(trial, index as u64, run) as f64 / (1_u64 << 53) as f64;
                let share = truth.share(point.probability);
                point.spanning = (0..10).filter(|run| hit(*run) < share).count() as u32;
            }
            let fit = fitted(&points);
            let distance = (fit.threshold - truth.threshold).abs() / fit.error;
            one += u32::from(distance < 1.0);
            two += u32::from(distance < 2.0);
        }
        assert!((245..=300).contains(&one), "{one} of 400 within one error");
        assert!((365..=395).contains(&two), "{two} of 400 within two errors");
    }

    #[test]
    fn a_step_is_bracketed_and_a_flat_line_is_nothing() {
        let step = [point(0.4, 5, 0), point(0.5, 5, 0), point(0.6, 5, 5), point(0.7, 5, 5)];
        assert_eq!(estimate(&step), Estimate::Bracketed { below: 0.5, above: 0.6 });
        let mixed = [point(0.4, 5, 0), point(0.5, 5, 2), point(0.6, 5, 5)];
        assert_eq!(estimate(&mixed), Estimate::Bracketed { below: 0.4, above: 0.6 });
        assert_eq!(estimate(&[point(0.4, 5, 0), point(0.5, 5, 0)]), Estimate::Nothing);
        assert_eq!(estimate(&[point(0.4, 5, 5), point(0.5, 5, 5)]), Estimate::Nothing);
        assert_eq!(estimate(&[point(0.4, 5, 2)]), Estimate::Nothing);
        assert_eq!(estimate(&[]), Estimate::Nothing);
        assert_eq!(estimate(&[point(0.4, 5, 4), point(0.5, 5, 1)]), Estimate::Nothing, "falling");
        assert_eq!(estimate(&[point(0.4, 5, 3), point(0.5, 5, 3)]), Estimate::Nothing, "level");
    }

    #[test]
    fn bins_keep_every_run() {
        let points = exact(0.6, 0.02, 1_000, 10);
        let bins = binned(&points, 64);
        assert_eq!(bins.len(), 63);
        assert_eq!(bins.iter().map(|bin| bin.runs).sum::<u32>(), 10_000);
        assert_eq!(
            bins.iter().map(|bin| bin.spanning).sum::<u32>(),
            points.iter().map(|point| point.spanning).sum::<u32>()
        );
        assert!(bins.is_sorted_by(|one, next| one.probability < next.probability));
        assert_eq!(binned(&points[..3], 64), points[..3]);
        assert!(binned(&[], 64).is_empty());
    }

    #[test]
    fn intervals_are_honest_at_the_ends() {
        assert!(point(0.5, 10, 0).interval().0 < 1e-12);
        assert!(point(0.5, 10, 0).interval().1 > 0.05);
        assert!(point(0.5, 10, 10).interval().1 > 1.0 - 1e-12);
        let (low, high) = point(0.5, 10, 5).interval();
        assert!(low < 0.5 && 0.5 < high && (0.5 - low - (high - 0.5)).abs() < 1e-12);
    }
}
