//! Draws the curve as an SVG file: the whole range, and the rise enlarged in the empty corner.
//!
//! A drawing is a list of elements with numbers rounded to a tenth of a pixel, so that the same counts give the same
//! file. No outside fonts, scripts or styles. Pure: a picture in, a text out. Tested in this file.

use std::fmt::Write as _;

use super::curve::{Fit, LITERATURE, Point};
use super::picture::Picture;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 600.0;

/// Measured points drawn over the whole range.
const POINTS_MAX: usize = 80;
/// Measured points drawn in the enlargement.
const INSET_POINTS_MAX: usize = 36;
/// How many widths of the fit the enlargement shows to both sides of the threshold.
const INSET_WIDTHS: f64 = 7.0;
/// Straight pieces of which a curve is drawn.
const PIECES: usize = 240;

const INK: &str = "#22303c";
const FAINT: &str = "#d9dfe4";
const CURVE: &str = "#1f6fb2";
const LINE: &str = "#c8442c";

/// The whole file.
pub(super) fn draw(picture: &Picture) -> String {
    let mut drawing = Drawing { text: String::new() };
    drawing.open(picture);
    let plot =
        Frame { left: 80.0, top: 92.0, width: 850.0, height: 430.0, from: picture.range().0, to: picture.range().1 };
    drawing.axes(&plot, &ticks(plot.from, plot.to, 8), 15.0);
    drawing.literature(&plot);
    drawing.tasks(&plot, &picture.points);
    if let Some(fit) = picture.fit() {
        drawing.curve(&plot, fit, 2.0);
    }
    drawing.points(&plot, &picture.points_between(plot.from, plot.to, POINTS_MAX), 2.6);
    drawing.text(plot.left + plot.width / 2.0, HEIGHT - 30.0, 16.0, "middle", INK, "occupation probability p");
    drawing.upright(26.0, plot.top + plot.height / 2.0, 16.0, "share of lattices that span");
    let label = format!("literature: {LITERATURE}");
    drawing.text(plot.x(LITERATURE) - 10.0, plot.top + 22.0, 14.0, "end", LINE, &label);
    if let Some(fit) = picture.fit() {
        let label = format!("here: {:.5} ± {:.5}", fit.threshold, fit.error);
        drawing.text(plot.x(LITERATURE) - 10.0, plot.top + 42.0, 14.0, "end", CURVE, &label);
        drawing.enlargement(picture, fit);
    }
    drawing.text.push_str("</svg>\n");
    drawing.text
}

/// Where a plot lies on the page, and which probabilities it shows; shares are always 0 to 1.
struct Frame {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
    from: f64,
    to: f64,
}

impl Frame {
    fn x(&self, probability: f64) -> f64 {
        self.left + self.width * (probability - self.from) / (self.to - self.from)
    }

    fn y(&self, share: f64) -> f64 {
        self.top + self.height * (1.0 - share)
    }

    fn bottom(&self) -> f64 {
        self.top + self.height
    }

    fn right(&self) -> f64 {
        self.left + self.width
    }
}

/// The file as it grows.
struct Drawing {
    text: String,
}

impl Drawing {
    fn element(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{element}");
    }

    fn open(&mut self, picture: &Picture) {
        self.element(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} \
             {HEIGHT}\" font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\">"
        ));
        self.element(format_args!("<title>Site percolation on the square lattice</title>"));
        self.element(format_args!("<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>"));
        self.text(80.0, 40.0, 23.0, "start", INK, "Site percolation on the square lattice: when does it span?");
        let Picture { points, size, seed, .. } = picture;
        let subtitle = format!(
            "{} random lattices of {size} × {size} sites, {} occupation probabilities, seed {seed}",
            super::output::grouped(picture.lattices()),
            super::output::grouped(points.len() as u64)
        );
        self.text(80.0, 66.0, 15.0, "start", "#5b6b78", &subtitle);
    }

    /// Grid, frame and the numbers along both axes.
    fn axes(&mut self, frame: &Frame, ticks: &[Tick], size: f64) {
        for share in [0.0, 0.2, 0.4, 0.6, 0.8, 1.0] {
            let y = frame.y(share);
            self.line((frame.left, y), (frame.right(), y), FAINT, 1.0, "");
            self.text(frame.left - 9.0, y + size * 0.35, size, "end", INK, &format!("{share:.1}"));
        }
        for tick in ticks {
            let x = frame.x(tick.at);
            self.line((x, frame.top), (x, frame.bottom() + 5.0), FAINT, 1.0, "");
            self.text(x, frame.bottom() + 7.0 + size, size, "middle", INK, &tick.label);
        }
        self.line((frame.left, frame.top), (frame.left, frame.bottom()), INK, 1.2, "");
        self.line((frame.left, frame.bottom()), (frame.right(), frame.bottom()), INK, 1.2, "");
    }

    /// The literature's threshold, if it is in the frame.
    fn literature(&mut self, frame: &Frame) {
        if (frame.from..=frame.to).contains(&LITERATURE) {
            let x = frame.x(LITERATURE);
            self.line((x, frame.top), (x, frame.bottom()), LINE, 1.6, " stroke-dasharray=\"6 4\"");
        }
    }

    /// One faint dot for each task.
    fn tasks(&mut self, frame: &Frame, points: &[Point]) {
        self.element(format_args!("<g fill=\"{INK}\" fill-opacity=\"0.16\">"));
        for point in points {
            let (x, y) = (frame.x(point.probability), frame.y(point.share()));
            self.element(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\"/>"));
        }
        self.element(format_args!("</g>"));
    }

    fn curve(&mut self, frame: &Frame, fit: &Fit, width: f64) {
        let mut path = String::new();
        for piece in 0..=PIECES {
            let probability = frame.from + (frame.to - frame.from) * piece as f64 / PIECES as f64;
            let (x, y) = (frame.x(probability), frame.y(fit.share(probability)));
            let _ = write!(path, "{}{x:.1} {y:.1}", if piece == 0 { 'M' } else { 'L' });
        }
        self.element(format_args!("<path d=\"{path}\" fill=\"none\" stroke=\"{CURVE}\" stroke-width=\"{width}\"/>"));
    }

    /// Measured points with their error bars.
    fn points(&mut self, frame: &Frame, points: &[Point], radius: f64) {
        for point in points {
            let (x, y) = (frame.x(point.probability), frame.y(point.share()));
            let (low, high) = point.interval();
            self.line((x, frame.y(low)), (x, frame.y(high)), INK, 1.0, "");
            self.element(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{INK}\"/>"));
        }
    }

    /// The rise, enlarged, where the whole curve leaves the page empty.
    fn enlargement(&mut self, picture: &Picture, fit: &Fit) {
        let (from, to) = picture.rise(INSET_WIDTHS);
        let frame = Frame { left: 590.0, top: 178.0, width: 320.0, height: 262.0, from, to };
        self.element(format_args!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"6\" fill=\"#ffffff\" stroke=\"{FAINT}\"/>",
            frame.left - 50.0,
            frame.top - 36.0,
            frame.width + 66.0,
            frame.height + 72.0
        ));
        self.text(frame.left, frame.top - 14.0, 13.0, "start", "#5b6b78", "the rise, enlarged");
        self.axes(&frame, &ticks(from, to, 6), 12.0);
        self.literature(&frame);
        self.curve(&frame, fit, 1.8);
        self.points(&frame, &picture.points_between(from, to, INSET_POINTS_MAX), 2.4);
    }

    fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), color: &str, width: f64, more: &str) {
        self.element(format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{color}\" \
             stroke-width=\"{width}\"{more}/>"
        ));
    }

    /// `text` must not need escaping: it is ours and has no `<` or `&`.
    fn text(&mut self, x: f64, y: f64, size: f64, anchor: &str, color: &str, text: &str) {
        debug_assert!(!text.contains(['<', '&']));
        self.element(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\" fill=\"{color}\">{text}</text>"
        ));
    }

    fn upright(&mut self, x: f64, y: f64, size: f64, text: &str) {
        self.element(format_args!(
            "<text transform=\"translate({x:.1} {y:.1}) rotate(-90)\" font-size=\"{size}\" text-anchor=\"middle\" \
             fill=\"{INK}\">{text}</text>"
        ));
    }
}

/// One number along an axis.
#[derive(Debug, PartialEq)]
struct Tick {
    at: f64,
    label: String,
}

/// Round numbers between `from` and `to`, about `count` of them: 1, 2 or 5 times a power of ten apart.
fn ticks(from: f64, to: f64, count: u32) -> Vec<Tick> {
    let rough = (to - from) / f64::from(count.max(1));
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough * 0.999);
    let step = step.unwrap_or(power);
    let decimals = (-step.log10()).ceil().clamp(0.0, 9.0) as usize;
    let first = (from / step - 1e-6).ceil() as i64;
    let last = (to / step + 1e-6).floor() as i64;
    let tick = |number: i64| Tick { at: number as f64 * step, label: format!("{:.decimals$}", number as f64 * step) };
    (first..=last).map(tick).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::curve::Estimate;
    use crate::cli::demo::picture::tests::example;

    fn labels(from: f64, to: f64, count: u32) -> Vec<String> {
        ticks(from, to, count).into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(labels(0.4, 0.8, 8), ["0.40", "0.45", "0.50", "0.55", "0.60", "0.65", "0.70", "0.75", "0.80"]);
        assert_eq!(labels(0.571, 0.613, 4), ["0.58", "0.60"]);
        assert_eq!(labels(0.0, 1.0, 5), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
    }

    /// Every element is closed and every number finite; text is ours, so this little is a whole check.
    fn check_well_formed(svg: &str) {
        let mut open = Vec::new();
        for tag in svg.split('<').skip(1) {
            let (tag, _) = tag.split_once('>').unwrap();
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "{tag}");
            } else if !tag.ends_with('/') {
                open.push(tag.split(' ').next().unwrap());
            }
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        }
        assert!(open.is_empty(), "{open:?}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn files_are_well_formed_and_stay_on_the_page() {
        let mut without_fit = example(50, 10);
        without_fit.estimate = Estimate::Nothing;
        for picture in [example(1_000, 10), example(40, 5), example(2, 1), example(1, 1), without_fit] {
            let svg = draw(&picture);
            check_well_formed(&svg);
            assert_eq!(svg, draw(&picture), "the same counts give the same file");
            for (attribute, limit) in [("cx=\"", WIDTH), ("cy=\"", HEIGHT), ("x1=\"", WIDTH), ("y2=\"", HEIGHT)] {
                for value in svg.split(attribute).skip(1) {
                    let number: f64 = value.split('"').next().unwrap().parse().unwrap();
                    assert!((0.0..=limit).contains(&number), "{attribute}{number}");
                }
            }
        }
    }

    #[test]
    fn the_file_says_what_it_shows() {
        let picture = example(1_000, 10);
        let svg = draw(&picture);
        let fit = picture.fit().unwrap();
        let estimate = format!("here: {:.5} ± {:.5}", fit.threshold, fit.error);
        for text in ["literature: 0.592746", "10,000 random lattices of 512 × 512 sites", "seed 42", &estimate] {
            assert!(svg.contains(text), "{text}");
        }
        // A faint dot for each task; the enlargement shows at least a dozen points more than the whole.
        assert!(svg.matches("<circle").count() > 1_000 + POINTS_MAX - 4 + 12);
    }
}
