//! A repository on this machine.

use kratix_state_store::{Change, Kind, Operation, Reason, Retry, Trouble, WriteError, open};
use kratix_testing::hook;

use crate::{Bed, file, git, placement};

#[tokio::test]
async fn an_empty_repository_gets_its_branch_with_the_first_write() {
    let bed = Bed::new();
    let store = bed.store();
    store.check().await.expect("usable");
    assert_eq!(store.version().await, Ok(None));
    assert_eq!(bed.commits(), 0);

    let written = store.write(placement("a", "1")).await.expect("written");
    assert!(written.changed);
    assert_eq!(written.version.expect("a version").as_str(), bed.head());
    assert_eq!(bed.files(), [("worker-1/a/a.yaml".to_owned(), "1".to_owned())]);
    assert_eq!(bed.git(&["log", "--format=%an <%ae> %cn%n%B", "main"]).trim(), "kratix <> kratix\nUpdate from: a");
    bed.is_sound();
}

#[tokio::test]
async fn converged_is_silent() {
    let bed = Bed::new();
    let store = bed.store();
    let first = store.write(placement("a", "1")).await.expect("written");
    let second = store.write(placement("a", "1")).await.expect("nothing to do");
    assert!(!second.changed);
    assert_eq!(second.version, first.version);
    let gone = store.write(Change::remove("b", "worker-1/b")).await.expect("nothing to do");
    assert!(!gone.changed);
    assert_eq!(bed.commits(), 1);
    // Also for a process that knows nothing of the first: a crash between push and answer costs nothing.
    let third = bed.store().write(placement("a", "1")).await.expect("nothing to do");
    assert_eq!((third.changed, third.version), (false, first.version));
}

#[tokio::test]
async fn deleting_from_an_empty_repository_leaves_it_empty() {
    let bed = Bed::new();
    let written = bed.store().write(Change::remove("a", "worker-1/a")).await.expect("nothing to do");
    assert_eq!((written.changed, written.version), (false, None));
    assert_eq!(bed.commits(), 0);
}

#[tokio::test]
async fn a_directory_is_replaced_as_a_whole_and_others_stay() {
    let bed = Bed::new();
    let store = bed.store();
    store.write(placement("b", "2")).await.expect("written");
    let files = vec![file("x.yaml", "x"), file("deep/y.yaml", "y")];
    store.write(Change::replace("a", "worker-1/a", files)).await.expect("written");
    store.write(Change::replace("a", "worker-1/a", vec![file("deep/z.yaml", "z")])).await.expect("written");
    assert_eq!(bed.paths(), ["worker-1/a/deep/z.yaml", "worker-1/b/a.yaml"]);
    store.write(Change::remove("a", "worker-1/a")).await.expect("written");
    assert_eq!(bed.git(&["log", "-1", "--format=%s", "main"]).trim(), "Delete from: a");
    store.write(Change::remove("b", "worker-1/b")).await.expect("written");
    assert_eq!(bed.paths(), Vec::<String>::new());
    bed.is_sound();
}

#[tokio::test]
async fn all_who_wait_share_one_commit() {
    let bed = Bed::new();
    let store = bed.store();
    store.write(placement("other", "1")).await.expect("written");
    let mut pending = Vec::new();
    for at in 0..100 {
        let slot = store.reserve().await.expect("a place");
        let change = match at {
            50 => Change::replace("bad", "worker-1/bad", vec![file("../escape", "x")]),
            51 => placement("other", "1"),
            52 => Change::remove("other-2", "worker-1/other-2"),
            _ => placement(&format!("p{at}"), "1"),
        };
        pending.push(slot.send(change));
    }
    let mut versions = std::collections::HashSet::new();
    for (at, answer) in pending.into_iter().enumerate() {
        match (at, answer.await) {
            (50, answer) => {
                let refusal = WriteError::Path { path: "../escape".to_owned(), reason: Reason::Escapes };
                assert_eq!(answer, Err(refusal));
            }
            (51 | 52, answer) => assert!(!answer.expect("nothing to do").changed),
            (_, answer) => drop(versions.insert(answer.expect("written").version)),
        }
    }
    assert_eq!(bed.paths().len(), 98);
    // The task may have started on the first change before the last one was queued.
    assert_eq!(bed.commits(), versions.len() + 1);
    assert!(versions.len() <= 2, "{} commits", versions.len());
    let message = bed.git(&["log", "-1", "--format=%B", "main"]);
    assert!(message.starts_with("Update from: 9"), "{message}");
    assert!(message.contains("\nUpdate from: p99\n"), "{message}");
    assert!(!message.contains("other"), "{message}");
    bed.is_sound();
}

#[tokio::test]
async fn the_store_keeps_to_its_path() {
    let bed = Bed::new();
    bed.foreign_push("readme", "hello");
    let mut config = bed.config();
    config.path = "/clusters/eu/".to_owned();
    let store = open(config, bed.cache()).expect("usable");
    store.write(placement("a", "1")).await.expect("written");
    assert_eq!(bed.paths(), ["clusters/eu/worker-1/a/a.yaml", "readme"]);
    assert_eq!(store.list("").await.expect("readable"), ["worker-1/a/a.yaml"]);
    assert_eq!(store.read("worker-1/a/a.yaml").await.expect("readable").as_deref(), Some(&b"1"[..]));
    assert_eq!(store.read("readme").await, Ok(None));
    let tree = store.tree("worker-1/a").await.expect("readable").expect("there");
    assert_eq!(tree.as_str(), bed.git(&["rev-parse", "main:clusters/eu/worker-1/a"]).trim());
    assert_eq!(store.tree("worker-1/b").await, Ok(None));
    assert_eq!(store.tree("worker-1/a/a.yaml").await, Ok(None));
}

#[tokio::test]
async fn single_files_are_written_and_removed_beside_others() {
    let bed = Bed::new();
    bed.foreign_push("d/theirs.yaml", "t");
    let store = bed.store();
    let write = vec![file("d/one.yaml", "1"), file("d/two/x.yaml", "2")];
    store.write(Change::edit("kratix-canary", "", write, vec![])).await.expect("written");
    assert_eq!(bed.paths(), ["d/one.yaml", "d/theirs.yaml", "d/two/x.yaml"]);
    // A file gives way to a directory and the reverse when the same change says so.
    let write = vec![file("d/one.yaml/in", "1"), file("d/two", "2")];
    let remove = vec!["d/one.yaml".to_owned(), "d/two/x.yaml".to_owned(), "d/missing".to_owned()];
    store.write(Change::edit("kratix-canary", "", write, remove)).await.expect("written");
    assert_eq!(bed.paths(), ["d/one.yaml/in", "d/theirs.yaml", "d/two"]);
    bed.is_sound();
}

#[tokio::test]
async fn what_stands_in_the_way_refuses_the_change_and_leaves_no_trace() {
    let bed = Bed::new();
    bed.foreign_push("file", "f");
    bed.foreign_push("dir/inner", "i");
    let store = bed.store();
    let head = bed.head();
    let under_file = store.write(Change::replace("a", "file/a", vec![file("x", "1")])).await;
    let blocked = |path: &str, obstacle: &str, kind| {
        Err(WriteError::Blocked { path: path.to_owned(), obstacle: obstacle.to_owned(), kind })
    };
    assert_eq!(under_file, blocked("file/a", "file", "file"));
    let over_directory = store.write(Change::edit("a", "", vec![file("new", "1"), file("dir", "1")], vec![])).await;
    assert_eq!(over_directory, blocked("dir", "dir", "directory"));
    let ambiguous = store.write(Change::replace("a", "a", vec![file("x", "1"), file("x/y", "1")])).await;
    assert_eq!(ambiguous, Err(WriteError::Ambiguous { path: "x/y".to_owned() }));
    let root = store.write(Change::replace("a", "/", vec![file("x", "1")])).await;
    assert_eq!(root, Err(WriteError::Path { path: "/".to_owned(), reason: Reason::Root }));
    assert_eq!(bed.head(), head);
}

#[tokio::test]
async fn links_and_submodules_are_never_followed() {
    let bed = Bed::new();
    bed.foreign_push("real/keep", "k");
    // Written by plumbing: a link `link -> real`, a link in a directory that is ours, and a submodule.
    let work = tempfile::tempdir().expect("a directory");
    let at = work.path().join("c");
    git(work.path(), &["clone", "-q", bed.repository().to_str().expect("UTF-8"), at.to_str().expect("UTF-8")]);
    std::os::unix::fs::symlink("real", at.join("link")).expect("a link");
    std::fs::create_dir_all(at.join("ours")).expect("a directory");
    std::os::unix::fs::symlink("../real", at.join("ours/link")).expect("a link");
    git(&at, &["add", "."]);
    let module = format!("160000,{},module", bed.head());
    git(&at, &["update-index", "--add", "--cacheinfo", &module]);
    git(&at, &["commit", "-q", "-m", "links"]);
    git(&at, &["push", "-q"]);

    let store = bed.store();
    for prefix in ["link", "module"] {
        let refused =
            store.write(Change::edit("a", prefix, vec![file("keep", "evil")], vec!["keep2".to_owned()])).await;
        assert!(matches!(refused, Err(WriteError::Blocked { .. })), "{refused:?}");
        let kept =
            store.write(Change::edit("a", prefix, vec![], vec!["keep".to_owned()])).await.expect("nothing to do");
        assert!(!kept.changed);
    }
    assert_eq!(store.read("link").await.expect("readable").as_deref(), Some(&b"real"[..]));
    assert_eq!(store.read("link/keep").await, Ok(None));
    // Inside a directory of ours, a link is just something that does not belong there.
    store.write(Change::replace("a", "ours", vec![file("link", "plain")])).await.expect("written");
    assert!(bed.git(&["ls-tree", "main", "ours/link"]).starts_with("100644 blob"));
    assert!(bed.git(&["ls-tree", "main"]).contains("160000 commit"));
    assert_eq!(bed.git(&["show", "main:real/keep"]), "k");
    bed.is_sound();
}

#[tokio::test]
async fn foreign_edits_inside_a_directory_of_ours_are_put_right() {
    let bed = Bed::new();
    let store = bed.store();
    store.write(placement("a", "1")).await.expect("written");
    bed.foreign_push("worker-1/a/a.yaml", "tampered");
    bed.foreign_push("worker-1/a/extra.yaml", "tampered");
    bed.foreign_push("elsewhere.yaml", "theirs");
    assert!(store.write(placement("a", "1")).await.expect("written").changed);
    assert_eq!(
        bed.files(),
        [("elsewhere.yaml".to_owned(), "theirs".to_owned()), ("worker-1/a/a.yaml".to_owned(), "1".to_owned())]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_pushes_at_the_same_time_lose_nothing() {
    let bed = std::sync::Arc::new(Bed::new());
    let store = bed.store();
    store.write(placement("first", "1")).await.expect("written");
    let foreign = {
        let bed = bed.clone();
        tokio::task::spawn_blocking(move || {
            let clone = tempfile::tempdir().expect("a directory");
            let at = clone.path().join("c");
            git(clone.path(), &["clone", "-q", bed.repository().to_str().expect("UTF-8"), at.to_str().expect("UTF-8")]);
            for n in 0..8 {
                std::fs::write(at.join(format!("foreign-{n}")), "f").expect("a file");
                git(&at, &["add", "."]);
                git(&at, &["commit", "-q", "-m", "foreign"]);
                while !crate::try_git(&at, &["push", "-q"]).0 {
                    git(&at, &["pull", "-q", "--rebase"]);
                }
            }
        })
    };
    let mut n = 0;
    while !foreign.is_finished() {
        store.write(placement(&format!("p{n}"), "1")).await.expect("written");
        n += 1;
        // Leaves the others a chance: a real network would.
        tokio::task::yield_now().await;
        if n > 60 {
            break;
        }
    }
    foreign.await.expect("pushed");
    let paths = bed.paths();
    assert_eq!(paths.iter().filter(|path| path.starts_with("foreign-")).count(), 8);
    assert_eq!(paths.len(), 8 + 1 + n);
    bed.is_sound();
}

#[tokio::test]
async fn rewritten_history_is_built_upon() {
    let bed = Bed::new();
    let store = bed.store();
    store.write(placement("a", "1")).await.expect("written");
    let first = bed.head();
    store.write(placement("b", "1")).await.expect("written");
    bed.git(&["update-ref", "refs/heads/main", &first]);
    store.write(placement("c", "1")).await.expect("written");
    assert_eq!(bed.paths(), ["worker-1/a/a.yaml", "worker-1/c/a.yaml"]);
    bed.git(&["pack-refs", "--all"]);
    store.write(placement("b", "1")).await.expect("written");
    assert_eq!(bed.paths().len(), 3);
}

#[tokio::test]
async fn a_missing_branch_of_a_filled_repository_is_an_error_unless_it_may_be_created() {
    let bed = Bed::new();
    bed.foreign_push("x", "1");
    let mut config = bed.config();
    config.branch = "team/prod".to_owned();
    let store = open(config.clone(), bed.cache()).expect("usable");
    let Err(WriteError::Store(error)) = store.write(placement("a", "1")).await else { panic!("written") };
    assert_eq!(error.trouble, Trouble::BranchMissing("team/prod".to_owned()));
    assert_eq!(store.check().await, Err(error));
    config.create_branch = true;
    let store = open(config, bed.cache()).expect("usable");
    store.write(placement("a", "1")).await.expect("written");
    assert_eq!(bed.git(&["ls-tree", "-r", "--name-only", "team/prod"]).trim(), "worker-1/a/a.yaml");
}

#[tokio::test]
async fn each_trouble_has_a_name_and_goes_away_with_its_cause() {
    let bed = Bed::new();
    let mut config = bed.config();
    let missing = bed.directory.path().join("later.git");
    config.url = format!("file://{}", missing.display());
    let store = open(config, bed.cache()).expect("usable");
    let error = store.check().await.expect_err("missing");
    assert_eq!((error.category(), error.retry()), ("StoreNotFound", Retry::Backoff));
    std::fs::create_dir(&missing).expect("a directory");
    let error = store.check().await.expect_err("not a repository");
    assert_eq!(error.category(), "StoreNotARepository");
    git(&missing, &["init", "-q", "--bare"]);
    store.write(placement("a", "1")).await.expect("written");

    // Its objects are gone, and come back.
    let objects = missing.join("objects");
    std::fs::rename(&objects, missing.join("hidden")).expect("renamed");
    store.write(placement("b", "1")).await.expect_err("no objects");
    std::fs::rename(missing.join("hidden"), &objects).expect("renamed");
    store.write(placement("b", "1")).await.expect("written");
}

#[tokio::test]
async fn a_hook_that_refuses_is_heard_also_on_this_machine() {
    let bed = Bed::new();
    let hook = hook::install(&bed.repository(), "pre-receive", "echo 'only on Tuesdays' >&2\nexit 1");
    let store = bed.store();
    store.check().await.expect("a dry run asks no hook");
    let Err(WriteError::Store(error)) = store.write(placement("a", "1")).await else { panic!("written") };
    assert_eq!(error.category(), "PushRefused");
    assert!(error.to_string().contains("only on Tuesdays"), "{error}");
    std::fs::remove_file(&hook).expect("removed");
    store.write(placement("a", "1")).await.expect("written");
    assert_eq!(bed.paths(), ["worker-1/a/a.yaml"]);
}

#[tokio::test]
async fn a_lock_of_a_process_that_died_is_removed_and_one_of_git_is_respected() {
    let bed = Bed::new();
    let store = bed.store();
    store.write(placement("a", "1")).await.expect("written");
    let lock = bed.repository().join("refs/heads/main.lock");
    // What a process that dies between taking the lock and renaming it leaves behind.
    std::fs::write(&lock, "x").expect("a file");
    let metadata = std::fs::metadata(&lock).expect("there");
    use std::os::unix::fs::MetadataExt;
    let note = format!("{}:{}", metadata.dev(), metadata.ino());
    std::fs::write(bed.repository().join("kratix/note"), note).expect("a file");
    store.write(placement("b", "1")).await.expect("written");
    assert!(!lock.exists());

    std::fs::write(&lock, "x").expect("a file");
    let Err(WriteError::Store(error)) = store.write(placement("c", "1")).await else { panic!("written") };
    assert_eq!(error.category(), "StoreLocked");
    assert!(error.hint().expect("a hint").contains("main.lock"));
    std::fs::remove_file(&lock).expect("removed");
    store.write(placement("c", "1")).await.expect("written");
    assert_eq!(bed.paths().len(), 3);
}

#[tokio::test]
async fn big_and_odd_contents_come_back_as_they_were() {
    let bed = Bed::new();
    let store = bed.store();
    let big: Vec<u8> = (0..900_000u32).flat_map(|n| n.to_le_bytes()).collect();
    let files = vec![
        kratix_state_store::File::new("big", big.clone()),
        kratix_state_store::File::new("empty", Vec::new()),
        kratix_state_store::File::new("nul", vec![0u8, 255, 10, 13]),
    ];
    store.write(Change::replace("a", "ä/日本 x", files)).await.expect("written");
    assert_eq!(store.read("ä/日本 x/big").await.expect("readable").as_deref(), Some(big.as_slice()));
    assert_eq!(store.read("ä/日本 x/empty").await.expect("readable").as_deref(), Some(&b""[..]));
    assert_eq!(store.read("ä/日本 x/nul").await.expect("readable").as_deref(), Some(&[0u8, 255, 10, 13][..]));
    bed.is_sound();
}

#[tokio::test]
async fn a_message_cannot_be_forged_by_a_name() {
    let bed = Bed::new();
    let mut config = bed.config();
    config.author.name = "evil> 0 +0000\ncommitter x <".to_owned();
    let store = open(config, bed.cache()).expect("usable");
    let operation = Operation::Edit { write: vec![file("x", "1")], remove: vec![] };
    let change = Change { id: "a\n\nforged".to_owned(), kind: Kind::Update, prefix: String::new(), operation };
    store.write(change).await.expect("written");
    assert_eq!(bed.git(&["log", "--format=%B", "main"]).trim(), "Update from: aforged");
    bed.is_sound();
}

#[tokio::test]
async fn a_limited_number_of_pushes_puts_more_changes_into_each() {
    let bed = Bed::new();
    let mut config = bed.config();
    config.pushes_per_minute = std::num::NonZeroU32::new(600);
    let store = open(config, bed.cache()).expect("usable");
    let mut pending = Vec::new();
    for at in 0..30 {
        pending.push(store.reserve().await.expect("a place").send(placement(&format!("p{at}"), "1")));
        tokio::task::yield_now().await;
    }
    assert!(store.read("worker-1/none").await.is_ok(), "reading does not wait for the next push");
    for answer in pending {
        answer.await.expect("written");
    }
    assert_eq!(bed.paths().len(), 30);
    assert!(bed.commits() <= 3, "{} commits", bed.commits());
}
