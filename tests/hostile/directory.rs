//! Two servers on one data directory: the second is refused at once and says by whom, whatever way it came; the first
//! does not notice. A lock that a killed server left is no obstacle.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::raw::{counted, counts, create};
use crate::server::{Site, block_on};
use crate::workers::Workers;

pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
    vec![trial!("directory", a_second_server_is_refused_and_the_first_does_not_notice)]
}

/// The exit code of a conflict.
const CONFLICT: Option<i32> = Some(6);

fn a_second_server_is_refused_and_the_first_does_not_notice() {
    block_on(async {
        let mut site = Site::with_server(&[]).await;
        create(&site, &[counted("good", 10, 10)]).await;
        let mut worker = Workers::start(&site.address(), 1, "good");
        worker.until("a lease", |news| news.taken == 1).await;
        let link = site.file("link");
        std::os::unix::fs::symlink(site.file("data"), &link).unwrap();

        let before = contents(&site.file("data"));
        for path in ["data", "link", "link/.", "./data/../data/"] {
            for refused in [
                run(&site, &["serve", "--listen", "127.0.0.1:0", "--data-dir", path]),
                run(&site, &["verify", "--data-dir", path]),
            ] {
                let said = String::from_utf8(refused.stderr).unwrap();
                assert_eq!(refused.status.code(), CONFLICT, "{path}: {said}");
                assert!(said.contains(&format!("process {}", site.pid().as_raw_pid())), "{path}: {said}");
            }
        }
        assert!(before == contents(&site.file("data")), "a refused server changed something");

        worker.order("report");
        worker.until("an answer of the first server", |news| news.counted == 1).await;
        assert_eq!(worker.news().disconnected, 0);

        site.kill();
        assert!(site.file("data/lock").exists(), "a killed server cannot clear its lock away");
        assert_eq!(run(&site, &["verify", "--data-dir", "link"]).status.code(), Some(0));
        site.start().await;
        worker.order("report");
        worker.until("an answer of the next server", |news| news.counted == 2).await;
        let done: u32 = counts(&site.control(), "good").await.iter().map(|(done, ..)| done).sum();
        assert_eq!(done, 2);
        worker.end().await;
    });
}

/// Runs the program to its end, where the data directory is `data`.
fn run(site: &Site, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenfold"));
    command.args(words).current_dir(site.file("data").parent().unwrap());
    command.env_remove("TENFOLD_LOG").env_remove("TENFOLD_SERVER").output().unwrap()
}

/// Every file of a directory.
fn contents(path: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}
