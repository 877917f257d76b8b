//! What is printed: a row for each bound, and whether it was kept.

use std::fmt::Display;

use serde_json::{Value, json};

/// All rows so far.
#[derive(Default)]
pub(crate) struct Table {
    /// The rows, for programs.
    rows: Vec<Value>,
    missed: Vec<String>,
}

impl Table {
    /// Prints a row; `most` is the bound, in the unit of the figure.
    pub(crate) fn row(&mut self, what: &str, figure: f64, most: f64, unit: &str) {
        let kept = figure <= most;
        if !kept {
            self.missed.push(what.to_owned());
        }
        self.print(
            json!({ "what": what, "figure": figure, "at_most": most, "unit": unit, "kept": kept }),
            what,
            &format!("{} {unit}", rounded(figure)),
            &format!("≤ {} {unit}", rounded(most)),
            if kept { "" } else { "**missed**" },
        );
    }

    /// Prints a row without a bound.
    pub(crate) fn note(&mut self, what: &str, figure: impl Display) {
        let figure = figure.to_string();
        self.print(json!({ "what": what, "figure": figure }), what, &figure, "", "");
    }

    fn print(&mut self, row: Value, what: &str, figure: &str, bound: &str, verdict: &str) {
        if self.rows.is_empty() {
            println!("| what | figure | bound | |\n|---|---|---|---|");
        }
        println!("| {what} | {figure} | {bound} | {verdict} |");
        self.rows.push(row);
    }

    /// Writes the rows to a file if one is named; ends the process with 1 if a bound was not kept.
    pub(crate) fn end(self, json: Option<&str>) {
        if let Some(file) = json {
            std::fs::write(file, serde_json::to_string_pretty(&self.rows).unwrap() + "\n").unwrap();
        }
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
