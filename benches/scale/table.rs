//! What is printed: a row for each bound, and whether it was kept.

use std::fmt::Display;

/// All rows so far.
#[derive(Default)]
pub(crate) struct Table {
    missed: Vec<String>,
    begun: bool,
}

impl Table {
    /// Prints a row; `most` is the bound, in the unit of the figure.
    pub(crate) fn row(&mut self, what: &str, figure: f64, most: f64, unit: &str) {
        let kept = figure <= most;
        if !kept {
            self.missed.push(what.to_owned());
        }
        self.print(
            what,
            &format!("{} {unit}", rounded(figure)),
            &format!("≤ {} {unit}", rounded(most)),
            if kept { "" } else { "**missed**" },
        );
    }

    /// Prints a row without a bound.
    pub(crate) fn note(&mut self, what: &str, figure: impl Display) {
        self.print(what, &figure.to_string(), "", "");
    }

    fn print(&mut self, what: &str, figure: &str, bound: &str, verdict: &str) {
        if !std::mem::replace(&mut self.begun, true) {
            println!("| what | figure | bound | |\n|---|---|---|---|");
        }
        println!("| {what} | {figure} | {bound} | {verdict} |");
    }

    /// Ends the process with 1 if a bound was not kept.
    pub(crate) fn end(self) {
        if !self.missed.is_empty() {
            eprintln!("not kept: {}", self.missed.join("; "));
            std::process::exit(1);
        }
    }
}

fn rounded(figure: f64) -> String {
    match figure.abs() {
        100.0.. => format!("{figure:.0}"),
        10.0.. => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}
