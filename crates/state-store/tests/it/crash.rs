//! A process that dies while it writes.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::{Bed, placement};

const REPOSITORY: &str = "KRATIX_TEST_WRITE_UNTIL_KILLED";

/// Not a test by itself: what [`whatever_was_acknowledged_survives_a_kill`] starts in a process of its own.
#[test]
fn writer() {
    let Some(repository) = std::env::var_os(REPOSITORY) else { return };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = kratix_state_store::GitConfig::new("default", repository.to_string_lossy());
        let store = kratix_state_store::open(config, std::env::temp_dir()).expect("usable");
        for at in 0u64.. {
            let name = format!("{}-{at}", std::process::id());
            let (one, two) = (placement(&format!("{name}-a"), "1"), placement(&format!("{name}-b"), "1"));
            let (one, two) = tokio::join!(store.write(one), store.write(two));
            one.expect("written");
            two.expect("written");
            println!("acknowledged {name}");
        }
    });
}

#[test]
fn whatever_was_acknowledged_survives_a_kill() {
    let bed = Bed::new();
    let mut acknowledged = Vec::new();
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "crash::writer", "--nocapture"])
            .env(REPOSITORY, bed.repository())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let names = lines.map_while(Result::ok).filter_map(|line| Some(line.split_once("acknowledged ")?.1.to_owned()));
        acknowledged.extend(names.take(3 + round * 4));
        child.kill().expect("killed");
        child.wait().expect("ended");
        // Nobody has to tidy up first: the next process writes at once, and git finds nothing wrong.
        bed.is_sound();
    }
    let paths = bed.paths();
    for name in &acknowledged {
        for part in ["a", "b"] {
            assert!(paths.contains(&format!("worker-1/{name}-{part}/a.yaml")), "{name} was acknowledged");
        }
    }
    assert_eq!(acknowledged.len(), 3 + 7 + 11 + 15 + 19 + 23);
}
