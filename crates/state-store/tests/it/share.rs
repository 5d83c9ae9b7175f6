//! Directories that several owners share, each with a ledger of its files.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kratix_state_store::{Change, File, Handle, WriteError, Written, open_with};

use crate::{Bed, file};

fn share(owner: &str, files: Option<Vec<File>>) -> Change {
    Change::share(owner, "worker-1", format!(".kratix/default-{owner}.yaml"), files)
}

#[tokio::test]
async fn a_ledger_lists_what_its_owner_wrote_and_the_rest_is_left_alone() {
    let bed = Bed::new();
    bed.foreign_push("worker-1/theirs.yaml", "t");
    let store = bed.store();
    let files = vec![file("namespace.yaml", "n"), file("app/deployment.yaml", "d")];
    store.write(share("a", Some(files))).await.expect("written");
    let ledger = bed.git(&["show", "main:worker-1/.kratix/default-a.yaml"]);
    assert_eq!(ledger, "files:\n- worker-1/namespace.yaml\n- worker-1/app/deployment.yaml\n");

    store.write(share("a", Some(vec![file("namespace.yaml", "n2")]))).await.expect("written");
    let paths = ["worker-1/.kratix/default-a.yaml", "worker-1/namespace.yaml", "worker-1/theirs.yaml"];
    assert_eq!(bed.paths(), paths);
    assert!(!store.write(share("a", Some(vec![file("namespace.yaml", "n2")]))).await.expect("silent").changed);

    store.write(share("a", Some(vec![]))).await.expect("written");
    assert_eq!(bed.git(&["show", "main:worker-1/.kratix/default-a.yaml"]), "files: []\n");
    store.write(share("a", None)).await.expect("written");
    assert_eq!(bed.paths(), ["worker-1/theirs.yaml"]);
    // A placement that was never written is deleted without further ado.
    assert!(!store.write(share("never", None)).await.expect("silent").changed);
}

#[tokio::test]
async fn one_path_has_one_owner_also_within_a_batch() {
    let bed = Bed::new();
    let store = bed.store();
    let mut pending = Vec::new();
    for owner in ["a", "b", "c"] {
        let own = file(&format!("{owner}.yaml"), owner);
        let files = if owner == "c" { vec![own] } else { vec![own, file("same.yaml", owner)] };
        pending.push(store.reserve().await.expect("a place").send(share(owner, Some(files))));
    }
    let mut answers = Vec::new();
    for answer in pending {
        answers.push(answer.await);
    }
    let owned = WriteError::Owned { path: "worker-1/same.yaml".to_owned(), owner: "default-a".to_owned() };
    assert!(answers[0].is_ok() && answers[2].is_ok());
    assert_eq!(answers[1], Err(owned.clone()));
    assert_eq!(bed.git(&["show", "main:worker-1/same.yaml"]), "a");
    assert!(!bed.paths().contains(&"worker-1/b.yaml".to_owned()), "a refused change leaves no trace");
    // A process without memory finds the same.
    assert_eq!(bed.store().write(share("b", Some(vec![file("same.yaml", "b")]))).await, Err(owned));
    // The path is free once its owner gives it up, in this or in an earlier batch.
    store.write(share("a", None)).await.expect("written");
    store.write(share("b", Some(vec![file("same.yaml", "b")]))).await.expect("written");
    assert_eq!(bed.git(&["show", "main:worker-1/same.yaml"]), "b");
}

/// Returns what comes of changes that wait at the same time.
async fn together(store: &Handle, changes: Vec<Change>) -> Vec<Result<Written, WriteError>> {
    let mut pending = Vec::new();
    for change in changes {
        pending.push(store.reserve().await.expect("a place").send(change));
    }
    futures::future::join_all(pending).await
}

#[tokio::test]
async fn a_path_passes_from_owner_to_owner_in_one_commit_whoever_was_queued_first() {
    for order in [["a", "b", "c"], ["a", "c", "b"], ["b", "a", "c"], ["b", "c", "a"], ["c", "a", "b"], ["c", "b", "a"]]
    {
        let bed = Bed::new();
        let store = bed.store();
        store.write(share("a", Some(vec![file("x.yaml", "x"), file("stays.yaml", "a")]))).await.expect("written");
        store.write(share("b", Some(vec![file("y.yaml", "y")]))).await.expect("written");
        let commits = bed.commits();
        // The one takes over what another one gives up, who takes over what a third one gives up.
        let change = |owner: &str| match owner {
            "a" => share("a", Some(vec![file("stays.yaml", "a")])),
            "b" => share("b", Some(vec![file("x.yaml", "x")])),
            _ => share("c", Some(vec![file("y.yaml", "other")])),
        };
        let outcomes = together(&store, order.map(change).into()).await;
        assert!(
            outcomes.iter().all(|outcome| outcome.as_ref().is_ok_and(|done| done.changed)),
            "{order:?} {outcomes:?}"
        );
        assert_eq!(bed.commits(), commits + 1, "{order:?}");
        let there = [("x.yaml", "x"), ("y.yaml", "other"), ("stays.yaml", "a")];
        for (path, content) in there {
            assert_eq!(bed.git(&["show", &format!("main:worker-1/{path}")]), content, "{order:?}");
        }
        assert_eq!(ledger(&bed, "b"), "files:\n- worker-1/x.yaml\n", "{order:?}");
        let imprints = outcomes.into_iter().flatten().map(|done| done.imprint).collect();
        assert_eq!(store.verify(imprints).await, Ok(vec![true; 3]), "{order:?}");
    }
}

#[tokio::test]
async fn what_its_own_asker_has_replaced_is_not_brought_back_when_a_path_becomes_free() {
    let bed = Bed::new();
    let store = bed.store();
    store.write(share("a", Some(vec![file("x.yaml", "a")]))).await.expect("written");
    let changes = vec![
        share("b", Some(vec![file("x.yaml", "b"), file("old.yaml", "b")])),
        share("b", Some(vec![file("new.yaml", "b")])),
        share("a", Some(vec![])),
    ];
    let outcomes = together(&store, changes).await;
    assert!(matches!(outcomes[0], Err(WriteError::Owned { .. })) && outcomes[1].is_ok() && outcomes[2].is_ok());
    let paths = ["worker-1/.kratix/default-a.yaml", "worker-1/.kratix/default-b.yaml", "worker-1/new.yaml"];
    assert_eq!(bed.paths(), paths);
}

#[tokio::test]
async fn overlaps_of_older_versions_lose_nobodys_file() {
    let bed = Bed::new();
    bed.foreign_push("worker-1/same.yaml", "s");
    bed.foreign_push("worker-1/.kratix/default-a.yaml", "files:\n- same.yaml\n- worker-1/gone.yaml\n");
    bed.foreign_push("worker-1/.kratix/default-b.yaml", "files: [worker-1/same.yaml]\n");
    bed.foreign_push("worker-1/.kratix/default-broken.yaml", "files: {");
    let store = bed.store();
    store.write(share("a", None)).await.expect("written");
    assert!(bed.paths().contains(&"worker-1/same.yaml".to_owned()));
    // Its list says the same in other words: nothing to do.
    assert!(!store.write(share("b", Some(vec![file("same.yaml", "s")]))).await.expect("silent").changed);
    let broken = store.write(share("broken", Some(vec![]))).await;
    assert!(matches!(broken, Err(WriteError::Ledger { .. })), "{broken:?}");
    store.write(share("b", None)).await.expect("written");
    assert_eq!(bed.paths(), ["worker-1/.kratix/default-broken.yaml"]);
}

#[tokio::test]
async fn a_ledger_whose_owner_is_gone_owns_nothing() {
    let bed = Bed::new();
    let store = bed.store();
    for owner in ["left", "a"] {
        let files = vec![file(&format!("{owner}.yaml"), owner)];
        store.write(share(owner, Some(files))).await.expect("written");
    }
    bed.foreign_push("worker-1/.kratix/default-left.yaml", "files:\n- worker-1/left.yaml\n- worker-1/a.yaml\n");
    let taken = store.write(share("b", Some(vec![file("left.yaml", "b")]))).await;
    assert!(matches!(taken, Err(WriteError::Owned { .. })), "{taken:?}");

    let knowing = open_with(bed.config(), bed.cache(), Arc::new(|owner| owner != "default-left")).expect("usable");
    knowing.write(share("b", Some(vec![file("left.yaml", "b")]))).await.expect("written");
    assert_eq!(bed.git(&["show", "main:worker-1/left.yaml"]), "b");
    knowing.write(share("a", None)).await.expect("written");
    assert!(!bed.paths().contains(&"worker-1/a.yaml".to_owned()), "nobody else has it");
    let taken = knowing.write(share("c", Some(vec![file("left.yaml", "c")]))).await;
    assert!(matches!(taken, Err(WriteError::Owned { owner, .. }) if owner == "default-b"));
    // And then the one that left writes again.
    let back = store.write(share("left", Some(vec![file("left.yaml", "left")]))).await;
    assert!(matches!(back, Err(WriteError::Owned { owner, .. }) if owner == "default-b"));
    assert_eq!(bed.git(&["show", "main:worker-1/left.yaml"]), "b");
}

#[tokio::test]
async fn one_who_was_gone_and_comes_back_finds_what_others_took_and_keeps_the_rest() {
    let bed = Bed::new();
    let all = || Some(vec![file("one.yaml", "left"), file("two.yaml", "left")]);
    bed.store().write(share("left", all())).await.expect("written");
    let gone = Arc::new(AtomicBool::new(true));
    let is_gone = Arc::clone(&gone);
    let lives = Arc::new(move |owner: &str| owner != "default-left" || !is_gone.load(Ordering::Relaxed));
    let store = open_with(bed.config(), bed.cache(), lives).expect("usable");

    // A refused change takes nothing from anybody.
    let blocked = share("b", Some(vec![file("one.yaml", "b"), file("two.yaml/below", "b")]));
    store.write(blocked).await.expect_err("refused");
    assert_eq!(ledger(&bed, "left"), "files:\n- worker-1/one.yaml\n- worker-1/two.yaml\n");
    let commits = bed.commits();
    store.write(share("b", Some(vec![file("one.yaml", "b")]))).await.expect("taken");
    assert_eq!(bed.commits(), commits + 1, "one path has one owner in every state of the branch");
    assert_eq!(ledger(&bed, "left"), "files:\n- worker-1/two.yaml\n");

    gone.store(false, Ordering::Relaxed);
    let owned = WriteError::Owned { path: "worker-1/one.yaml".to_owned(), owner: "default-b".to_owned() };
    assert_eq!(store.write(share("left", all())).await, Err(owned.clone()));
    assert_eq!(bed.store().write(share("left", all())).await, Err(owned), "a process without memory finds the same");
    assert_eq!(bed.git(&["show", "main:worker-1/one.yaml"]), "b");
    // What nobody took is still known for its own, and goes with it.
    store.write(share("left", Some(vec![file("other.yaml", "left")]))).await.expect("written");
    assert!(!bed.paths().contains(&"worker-1/two.yaml".to_owned()), "{:?}", bed.paths());

    gone.store(true, Ordering::Relaxed);
    store.write(share("b", Some(vec![file("one.yaml", "b"), file("other.yaml", "b")]))).await.expect("taken");
    assert!(!bed.paths().contains(&"worker-1/.kratix/default-left.yaml".to_owned()), "nothing is left of it");
}

fn ledger(bed: &Bed, owner: &str) -> String {
    bed.git(&["show", &format!("main:worker-1/.kratix/default-{owner}.yaml")])
}

#[tokio::test]
async fn nobody_writes_or_removes_a_ledger_as_a_file() {
    let bed = Bed::new();
    let store = bed.store();
    store.write(share("a", Some(vec![file("a.yaml", "a")]))).await.expect("written");
    let forged = store.write(share("b", Some(vec![file(".kratix/default-a.yaml", "files: []")]))).await;
    assert!(matches!(forged, Err(WriteError::Owned { .. })), "{forged:?}");
    bed.foreign_push("worker-1/.kratix/default-c.yaml", "files:\n- worker-1/.kratix/default-a.yaml\n");
    store.write(share("c", None)).await.expect("written");
    assert_eq!(bed.paths(), ["worker-1/.kratix/default-a.yaml", "worker-1/a.yaml"]);
}
