//! What every comparison of servers is told on its command line: which shapes, how often, for how long, and where the figures go.

use std::path::PathBuf;

/// The settings, with their defaults.
pub(crate) struct Options {
    pub(crate) clients: Vec<u32>,
    pub(crate) batches: Vec<u32>,
    pub(crate) rounds: u32,
    pub(crate) seconds: f64,
    pub(crate) json: Option<PathBuf>,
}

impl Options {
    /// Reads the words of a command line; those that are not known here are shown to `other`, each with a way to its value.
    pub(crate) fn parse<'a>(words: &[&'a str], mut other: impl FnMut(&'a str, &mut dyn FnMut() -> &'a str)) -> Self {
        let mut options =
            Self { clients: vec![1, 16, 64, 256], batches: vec![1, 64], rounds: 5, seconds: 3.0, json: None };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || *words.next().unwrap_or_else(|| panic!("{word} needs a value"));
            let numbers = |text: &str| text.split(',').map(|number| number.parse().unwrap()).collect();
            match *word {
                // What cargo says to every benchmark.
                "--bench" => {}
                "--quick" => (options.rounds, options.seconds) = (1, 1.0),
                "--clients" => options.clients = numbers(value()),
                "--batch" => options.batches = numbers(value()),
                "--rounds" => options.rounds = value().parse().unwrap(),
                "--seconds" => options.seconds = value().parse().unwrap(),
                "--json" => options.json = Some(value().into()),
                word => other(word, &mut value),
            }
        }
        options
    }
}
