//! What waits in front of a store, and for how long.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use kratix_state_store::{Change, File, Handle, WriteError, open};

use crate::{Bed, placement};

fn paced(bed: &Bed, pushes_per_minute: u32) -> Handle {
    let mut config = bed.config();
    config.pushes_per_minute = NonZeroU32::new(pushes_per_minute);
    open(config, bed.cache()).expect("usable")
}

#[tokio::test]
async fn what_waits_for_its_push_is_counted_and_reads_are_answered_meanwhile() {
    let bed = Bed::new();
    let store = paced(&bed, 1);
    store.write(placement("a", "1")).await.expect("written");
    let mut waiting = Vec::new();
    for name in ["b", "c"] {
        waiting.push(store.reserve().await.expect("open").send(placement(name, "1")));
    }
    // The task has taken both out of the queue before it answers this.
    assert_eq!(store.list("").await.expect("readable"), ["worker-1/a/a.yaml"]);
    assert_eq!(store.queued(), 2);
    drop(waiting);
}

#[tokio::test]
async fn what_is_too_much_for_one_commit_keeps_the_pace() {
    let bed = Bed::new();
    let store = paced(&bed, 120);
    let big = |id: &str| Change::replace(id, id, vec![File::new("f", vec![b'x'; 40 << 20])]);
    let began = Instant::now();
    let (first, second) = (store.reserve().await.expect("open"), store.reserve().await.expect("open"));
    let (first, second) = (first.send(big("a")), second.send(big("b")));
    let (first, second) = tokio::join!(first, second);
    assert!(first.expect("written").version != second.expect("written").version);
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
    assert_eq!((bed.commits(), store.queued()), (2, 0));
}

#[cfg(unix)]
#[tokio::test]
async fn a_push_that_is_refused_is_one_of_those_that_are_allowed() {
    use std::os::unix::fs::PermissionsExt;

    let bed = Bed::new();
    let hook = bed.repository().join("hooks/pre-receive");
    std::fs::create_dir_all(hook.parent().expect("a parent")).expect("a directory");
    std::fs::write(&hook, "#!/bin/sh\nexit 1\n").expect("a file");
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let store = paced(&bed, 120);
    let refused = store.write(placement("a", "1")).await.expect_err("refused");
    let began = Instant::now();
    assert!(matches!(refused, WriteError::Store(_) | WriteError::Refused(_)), "{refused}");
    store.write(placement("a", "1")).await.expect_err("refused");
    assert!(began.elapsed() >= Duration::from_millis(450), "{:?}", began.elapsed());
}

#[tokio::test]
async fn handles_of_one_task_are_the_same_and_others_are_not() {
    let bed = Bed::new();
    let (one, other) = (bed.store(), bed.store());
    assert!(one.is_same(&one.clone()) && !one.is_same(&other));
}
