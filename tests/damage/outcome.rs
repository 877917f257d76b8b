//! What may come of damage, and the table of what came.

use std::collections::BTreeMap;
use std::fmt::Write;

/// What came of one damage.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// The very state that was stored; the damage did no harm.
    Same,
    /// Refused, with a text that says what is wrong.
    Named,
    /// An earlier state was read, for a reason that docs/STORAGE.md gives, and a note said that this could not be checked.
    Unnoticed(&'static str),
    /// Another state was read, a panic escaped, the process died or hung: what must not be.
    Wrong(String),
}

/// What came of many damages, by kind.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: BTreeMap<String, BTreeMap<String, u64>>,
    wrong: Vec<String>,
}

impl Table {
    /// Adds one. `place` finds it again.
    pub(crate) fn add(&mut self, kind: &str, place: &str, outcome: Outcome) {
        let column = match outcome {
            Outcome::Same => "same state".to_owned(),
            Outcome::Named => "named".to_owned(),
            Outcome::Unnoticed(reason) => format!("unnoticed: {reason}"),
            Outcome::Wrong(what) => {
                self.wrong.push(format!("{kind}, {place}: {what}"));
                "WRONG".to_owned()
            }
        };
        *self.rows.entry(kind.to_owned()).or_default().entry(column).or_default() += 1;
    }

    /// How many damages of a kind had an outcome in a column that begins like this.
    pub(crate) fn count(&self, kind: &str, column: &str) -> u64 {
        let row = self.rows.get(kind).into_iter().flatten();
        row.filter(|(name, _)| name.starts_with(column)).map(|(_, count)| count).sum()
    }

    /// Prints the table, and fails if anything was wrong.
    pub(crate) fn finish(&self, title: &str) {
        let mut text = format!("\n{title}\n");
        for (kind, columns) in &self.rows {
            let columns: Vec<String> = columns.iter().map(|(name, count)| format!("{count:>8} {name}")).collect();
            writeln!(text, "  {kind:<40}{}", columns.join("  ")).unwrap();
        }
        eprint!("{text}");
        let first: Vec<&String> = self.wrong.iter().take(20).collect();
        assert!(self.wrong.is_empty(), "{} damages had a wrong outcome; the first: {first:#?}", self.wrong.len());
    }
}
