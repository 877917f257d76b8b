//! Keeps the structure: who may use whom, where the dangerous things live, headers, links and the promise table.
//!
//! It guards direction and form, not taste: nothing here counts lines.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which modules each module may name. `types` and `limits` are the ground everybody stands on.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("types", &["limits"]),
    ("limits", &[]),
    ("coordinator", &["types", "limits"]),
    ("protocol", &["types", "limits"]),
    ("store", &["types", "limits", "coordinator"]),
    ("server", &["types", "limits", "coordinator", "store", "protocol"]),
    ("client", &["types", "limits", "protocol"]),
    ("sim", &["types", "limits", "coordinator", "store", "protocol", "server", "client"]),
    ("cli", &["types", "limits", "coordinator", "store", "protocol", "server", "client"]),
];

/// Text that may stand only in some files, and why.
const ONLY_IN: &[(&str, &[&str], &str)] = &[
    ("sled::", &["src/store/sled.rs"], "the symbol that makes its syncs real lives there"),
    ("unsafe ", &["src/store/sled.rs"], "it is the one documented exception"),
    ("bincode::encode", &["src/protocol/codec.rs", "src/store/codec.rs"], "the way out of bincode is one file a layer"),
    ("bincode::decode", &["src/protocol/codec.rs", "src/store/codec.rs"], "the way out of bincode is one file a layer"),
    ("std::time::Instant", &["src/server/clock.rs"], "only the clock reads time"),
    ("SystemTime", &[], "no decision may depend on the wall clock"),
    ("println!", &["src/cli/output.rs", "src/sim/mod.rs"], "one file prints, and one says what simulations came to"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/")
}

/// The program text of a file: comments and what follows `#[cfg(test)]` at the left margin are left out.
fn program(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The crate's modules that a file names, be it in a `use`, in a path, or in braces after `crate::`.
fn named_modules(text: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for (position, _) in text.match_indices("crate::") {
        let rest = &text[position + "crate::".len()..];
        let heads: Vec<&str> = match rest.strip_prefix('{') {
            Some(braces) => braces.split('}').next().unwrap_or_default().split(',').collect(),
            None => vec![rest],
        };
        for head in heads {
            let word: String =
                head.trim().chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect();
            named.insert(word);
        }
    }
    named
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let mut wrong = Vec::new();
    let modules: BTreeSet<&str> = DIRECTIONS.iter().map(|(module, _)| *module).collect();
    for path in files("src", "rs") {
        let file = name(&path);
        let module = file.trim_start_matches("src/").split(['/', '.']).next().unwrap_or_default();
        let Some((_, allowed)) = DIRECTIONS.iter().find(|(known, _)| *known == module) else {
            assert!(matches!(module, "lib" | "main"), "{file} belongs to no known module");
            continue;
        };
        for used in named_modules(&program(&path)) {
            if modules.contains(used.as_str()) && used != module && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{file} uses {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "against the direction of the layers:\n{}", wrong.join("\n"));
}

#[test]
fn dangerous_things_stay_where_they_belong() {
    let mut wrong = Vec::new();
    for path in files("src", "rs").into_iter().chain(files("migrations", "rs")) {
        // Our own module of that name may be spoken of by its siblings.
        let (file, text) = (name(&path), program(&path).replace("super::sled::", "").replace("self::sled::", ""));
        if file.contains("/tests/") {
            continue;
        }
        for (what, places, why) in ONLY_IN {
            if text.contains(what) && !places.contains(&file.as_str()) {
                wrong.push(format!("{file} says {what:?}: {why}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_judge_knows_nothing_of_the_judged() {
    let manifest = fs::read_to_string(root().join("checker/Cargo.toml")).unwrap();
    let needs = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap_or_default();
    let needs: Vec<&str> = needs.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert!(needs.is_empty() && manifest.matches("dependencies]").count() == 1, "checker/ depends on {needs:?}");
}

#[test]
fn every_file_says_what_it_is_for() {
    let folders = ["src", "tests", "examples", "benches", "migrations", "checker"];
    let silent: Vec<String> = folders
        .iter()
        .flat_map(|folder| files(folder, "rs"))
        .filter(|path| !fs::read_to_string(path).unwrap().starts_with("//!"))
        .map(|path| name(&path))
        .collect();
    assert!(silent.is_empty(), "no header in {silent:?}");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut documents = files("docs", "md");
    documents.extend(files("examples", "md"));
    documents.extend(["README.md", "CHANGELOG.md"].map(|file| root().join(file)));
    let mut dead = Vec::new();
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for (position, _) in text.match_indices("](") {
            let target = text[position + 2..].split([')', '#', ' ']).next().unwrap_or_default();
            let outside = target.is_empty() || target.contains("://");
            if !outside && !document.parent().unwrap().join(target).exists() {
                dead.push(format!("{}: {target}", name(&document)));
            }
        }
    }
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

#[test]
fn every_promise_names_tests_that_exist() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let tests: String = ["src", "tests"]
        .iter()
        .flat_map(|folder| files(folder, "rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect::<Vec<_>>()
        .join("\n");
    let rows: Vec<&str> = readme.lines().filter(|line| line.starts_with("| P")).collect();
    let promises: BTreeSet<String> =
        rows.iter().filter_map(|row| row.split_whitespace().nth(1)).map(str::to_owned).collect();
    let expected: BTreeSet<String> = (1..=11).map(|number| format!("P{number}")).collect();
    assert_eq!(promises, expected, "README's table must have every promise");
    for row in rows {
        let named: Vec<&str> = row.rsplit('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test in {row:?}");
        for test in named {
            let found = tests.contains(&format!("fn {test}(")) || tests.contains(&format!("\"{test}\""));
            assert!(found, "README names the test {test:?}, which does not exist");
        }
    }
}
