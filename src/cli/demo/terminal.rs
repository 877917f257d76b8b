//! Draws the curve with characters, for a terminal or a log file.
//!
//! ```text
//!   1.0 ┤              ┊  ··●●●●●      ● measured share   · fitted curve   ┊ literature
//!   0.5 ┤            ●·●·●
//!   0.0 ┼●●●●●●·●····──┊─────────
//! ```
//!
//! Pure: a picture in, lines out, the same lines for the same counts. Tested in this file.

use super::curve::LITERATURE;
use super::picture::Picture;

/// Columns of the plot itself, without the labels at its left.
const COLUMNS: usize = 68;
/// Rows of the plot, the lowest for share 0, the highest for share 1.
const ROWS: usize = 17;
/// How many widths of the fit are drawn to both sides of the threshold.
const WIDTHS: f64 = 9.0;
/// Columns that share one measured point.
const COLUMNS_PER_POINT: usize = 2;

/// The lines of the drawing: the rise of the curve, its axes, and a legend. At most 78 columns wide.
pub(super) fn draw(picture: &Picture) -> Vec<String> {
    let (from, to) = picture.rise(WIDTHS);
    let column = |probability: f64| {
        let position = (probability - from) / (to - from) * (COLUMNS - 1) as f64;
        (0.0..=(COLUMNS - 1) as f64).contains(&position).then(|| position.round() as usize)
    };
    let row = |share: f64| ROWS - 1 - (share.clamp(0.0, 1.0) * (ROWS - 1) as f64).round() as usize;
    let mut cells = [[' '; COLUMNS]; ROWS];
    if let Some(literature) = column(LITERATURE) {
        for line in &mut cells {
            line[literature] = '┊';
        }
    }
    if let Some(fit) = picture.fit() {
        let probability = |column: usize| from + (to - from) * column as f64 / (COLUMNS - 1) as f64;
        for (row, column) in (0..COLUMNS).map(|column| (row(fit.share(probability(column))), column)) {
            cells[row][column] = '·';
        }
    }
    for point in picture.points_between(from, to, COLUMNS / COLUMNS_PER_POINT) {
        if let Some(column) = column(point.probability) {
            cells[row(point.share())][column] = '●';
        }
    }
    let mut lines = vec!["share of lattices that span, by occupation probability".to_owned()];
    for (index, line) in cells.iter().enumerate() {
        let share = 1.0 - index as f64 / (ROWS - 1) as f64;
        let label = if index % 4 == 0 { format!("{share:5.2} ┤") } else { "      │".to_owned() };
        lines.push(format!("{label}{}", line.iter().collect::<String>()).trim_end().to_owned());
    }
    lines.extend(axis(from, to));
    lines.push(format!("      ● measured   · fitted curve   ┊ {LITERATURE}, the literature's threshold"));
    lines
}

/// The horizontal axis: five ticks with their probabilities.
fn axis(from: f64, to: f64) -> [String; 2] {
    let mut rule: Vec<char> = vec!['─'; COLUMNS];
    let mut labels = vec![' '; COLUMNS + 12];
    for tick in 0..=4 {
        let at = (COLUMNS - 1) * tick / 4;
        rule[at] = '┴';
        let label = format!("{:.3}", from + (to - from) * tick as f64 / 4.0);
        // Centred below the tick; the plot begins seven columns from the left.
        for (offset, character) in label.chars().enumerate() {
            labels[at + 7 + offset - 2] = character;
        }
    }
    let labels = labels.into_iter().collect::<String>();
    let rule = rule.into_iter().collect::<String>();
    [format!("      └{rule}"), labels.trim_end().to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::curve::Estimate;
    use crate::cli::demo::picture::tests::example;

    #[test]
    fn the_drawing_is_what_it_was() {
        let expected = "
share of lattices that span, by occupation probability
 1.00 ┤                                 ┊             ●·●·●·●·●·●·●·●·●·●●·
      │                                 ┊        ·●·●·
      │                                 ┊      ··
      │                                 ┊     · ●
 0.75 ┤                                 ┊   ●·●
      │                                 ┊  ·
      │                                 ┊ ·
      │                                 ┊·●
 0.50 ┤                                 ●
      │                                 ·
      │                                ·┊
      │                               ● ┊
 0.25 ┤                           ● ··  ┊
      │                            ·●   ┊
      │                          ··     ┊
      │                     ●·●·●       ┊
 0.00 ┤·●·●·●·●·●·●·●·●·●·●·            ┊
      └┴───────────────┴────────────────┴────────────────┴────────────────┴
     0.566           0.579            0.593            0.606            0.620
      ● measured   · fitted curve   ┊ 0.592746, the literature's threshold
";
        let lines = draw(&example(1_000, 10)).join("\n");
        assert_eq!(lines, expected.trim_matches('\n'), "it is now\n{lines}");
    }

    #[test]
    fn lines_fit_a_terminal() {
        for picture in [example(1_000, 10), example(40, 5), example(1, 1), example(2, 1)] {
            for line in draw(&picture) {
                assert!(line.chars().count() <= 78, "{line}");
            }
        }
    }

    #[test]
    fn without_a_fit_the_points_are_drawn() {
        let mut picture = example(100, 10);
        picture.estimate = Estimate::Nothing;
        let drawn = draw(&picture).join("\n");
        assert!(drawn.contains('●') && drawn.contains("0.400") && drawn.contains("0.800"), "{drawn}");
    }
}
