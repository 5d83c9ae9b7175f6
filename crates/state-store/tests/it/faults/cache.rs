//! The cache of a remote: removed, left behind, shared, growing.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use kratix_state_store::open;
use kratix_testing::git_http::Server;
use kratix_testing::hook;

use crate::{Bed, config, placement, store};

fn caches(bed: &Bed) -> Vec<PathBuf> {
    let mut caches: Vec<PathBuf> =
        std::fs::read_dir(bed.cache()).expect("caches").map(|entry| entry.expect("readable").path()).collect();
    caches.sort();
    caches
}

#[tokio::test]
async fn a_cache_that_is_deleted_under_a_running_store_is_made_again() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let mut config = config(&server);
    // What was seen is believed for ever: only the loss itself tells.
    config.fetch_interval = Duration::from_secs(3600);
    let store = open(config, bed.cache()).expect("usable");
    store.write(placement("a", "1")).await.expect("written");
    std::fs::remove_dir_all(bed.cache()).expect("removed");
    store.write(placement("b", "1")).await.expect("written");
    std::fs::remove_dir_all(bed.cache()).expect("removed");
    assert!(!store.write(placement("b", "1")).await.expect("silent").changed);
    std::fs::remove_dir_all(bed.cache()).expect("removed");
    assert_eq!(store.list("worker-1").await.expect("readable").len(), 2);
    std::fs::remove_dir_all(caches(&bed)[0].join("repository.git")).expect("removed");
    store.check().await.expect("usable");
    store.write(placement("c", "1")).await.expect("written");
    // Another process has made one in its place: each has its own afterwards.
    std::fs::remove_dir_all(bed.cache()).expect("removed");
    let other = crate::store(&bed, &server);
    other.write(placement("d", "1")).await.expect("written");
    store.write(placement("e", "1")).await.expect("written");
    assert_eq!(caches(&bed).len(), 2);
    assert_eq!((bed.paths().len(), bed.commits()), (5, 5));
    bed.is_sound();
}

// Weakness 33.
#[tokio::test]
async fn what_dead_processes_left_behind_is_removed_at_the_next_start() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let first = store(&bed, &server);
    first.write(placement("a", "1")).await.expect("written");
    drop(first);
    let cache = caches(&bed).remove(0);
    let git_dir = cache.join("repository.git");
    let files = [
        "shallow.lock",
        "refs/remotes/origin/head.lock",
        "packed-refs.lock",
        "objects/pack/tmp_pack_x",
        "objects/pack/tmp_idx_x",
    ];
    for file in files {
        std::fs::write(git_dir.join(file), "x").expect("a file");
    }
    std::fs::create_dir_all(git_dir.join("objects/tmp_objdir-incoming-x/pack")).expect("a directory");
    std::fs::write(git_dir.join("objects/tmp_objdir-incoming-x/pack/x.pack"), "x").expect("a file");
    std::fs::write(cache.join("home/tmp_headers_x"), "x").expect("a file");
    // A store that is gone, one that was used lately, one that is in use, and something that is not ours.
    let old = SystemTime::now() - Duration::from_secs(30 * 24 * 3600);
    let make = |name: &str, modified: Option<SystemTime>| {
        std::fs::create_dir_all(bed.cache().join(name).join("repository.git")).expect("a directory");
        let lock = std::fs::File::create(bed.cache().join(name).join("lock")).expect("a file");
        modified.into_iter().for_each(|at| lock.set_modified(at).expect("set"));
        lock
    };
    make("gone-0", Some(old));
    make("recent-0", None);
    let used = make("used-0", Some(old));
    used.try_lock().expect("free");
    std::fs::create_dir_all(bed.cache().join("other")).expect("a directory");

    // The first one's task may still be ending.
    kratix_testing::wait::poll("the cache to be free", || async {
        let lock = std::fs::File::options().write(true).open(cache.join("lock")).expect("a file");
        lock.try_lock().map_err(|error| error.to_string())
    })
    .await;
    store(&bed, &server).write(placement("b", "1")).await.expect("written");
    for file in files.into_iter().chain(["objects/tmp_objdir-incoming-x"]) {
        assert!(!git_dir.join(file).exists(), "{file}");
    }
    assert!(!cache.join("home/tmp_headers_x").exists());
    let names: Vec<String> =
        caches(&bed).iter().map(|path| path.file_name().expect("a name").to_string_lossy().into_owned()).collect();
    assert!(!names.contains(&"gone-0".to_owned()), "{names:?}");
    assert_eq!(names.len(), 4, "{names:?}");
}

// Weakness 33.
#[tokio::test]
async fn attempts_to_open_a_store_that_fail_leave_no_more_than_one_cache() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    server.require("kratix", "right");
    for _ in 0..20 {
        // A store is opened anew for each attempt.
        let store = store(&bed, &server);
        assert_eq!(store.check().await.expect_err("refused").category(), "StoreUnauthorized");
        drop(store);
        let locks = caches(&bed).into_iter().map(|cache| cache.join("lock"));
        for lock in locks {
            // Its task may still be ending.
            kratix_testing::wait::poll("the cache to be free", || async {
                let lock = std::fs::File::options().write(true).open(&lock).map_err(|error| error.to_string())?;
                lock.try_lock().map_err(|error| error.to_string())
            })
            .await;
        }
    }
    // Another test that starts a process may have had a copy of the lock at that moment, which makes for a second one.
    assert!(caches(&bed).len() <= 3, "{:?}", caches(&bed));
    for cache in caches(&bed) {
        let packs = std::fs::read_dir(cache.join("repository.git/objects/pack")).map(Iterator::count);
        assert_eq!(packs.unwrap_or_default(), 0, "nothing was received");
    }
}

#[tokio::test]
async fn locks_that_a_killed_git_leaves_in_the_cache_of_a_running_store_do_not_stop_it() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let mut config = config(&server);
    config.fetch_interval = Duration::ZERO;
    let store = open(config, bed.cache()).expect("usable");
    store.write(placement("a", "1")).await.expect("written");
    let git_dir = caches(&bed)[0].join("repository.git");
    for lock in ["shallow.lock", "refs/remotes/origin/head.lock", "packed-refs.lock", "config.lock"] {
        std::fs::write(git_dir.join(lock), "").expect("a file");
        bed.foreign_push(&format!("theirs/{}", lock.replace('/', "-")), "t");
        store.write(placement(lock.split('/').next().expect("a name"), "1")).await.expect("written");
    }
    assert_eq!(bed.paths().len(), 9);
    bed.is_sound();
}

#[tokio::test]
async fn stores_beside_each_other_have_caches_of_their_own_and_there_is_a_limit() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let mut stores = Vec::new();
    for at in 0..20 {
        let store = store(&bed, &server);
        store.version().await.expect("readable");
        stores.push(store);
        assert_eq!(caches(&bed).len(), at + 1);
    }
    let first = caches(&bed)[0].to_string_lossy().into_owned();
    let name = first.strip_suffix("-0").expect("numbered");
    let locks = (20..256).map(|at| {
        std::fs::create_dir(format!("{name}-{at}")).expect("a directory");
        let lock = std::fs::File::create(format!("{name}-{at}/lock")).expect("a file");
        lock.try_lock().expect("free");
        lock
    });
    let _others: Vec<std::fs::File> = locks.collect();
    let error = store(&bed, &server).version().await.expect_err("too many");
    assert!(error.to_string().ends_with("all 256 caches are in use"), "{error}");
    let hint = error.hint().expect("something to do");
    assert!(hint.starts_with("have fewer stores share one branch"), "{hint}");
    let (one, two) = (stores.swap_remove(3), stores.swap_remove(7));
    let (a, b) = tokio::join!(one.write(placement("a", "1")), two.write(placement("b", "1")));
    a.expect("written");
    b.expect("written");
    assert_eq!(bed.commits(), 2);
}

#[tokio::test]
async fn pushes_that_are_refused_for_days_do_not_fill_the_cache() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    hook::install(&bed.repository(), "pre-receive", "exit 1");
    let packs = || {
        let packs = std::fs::read_dir(caches(&bed)[0].join("repository.git/objects/pack")).expect("packs");
        packs.flatten().filter(|entry| entry.path().extension().is_some_and(|extension| extension == "pack")).count()
    };
    let mut most = 0;
    for at in 0..55 {
        // As the controllers do: a store in trouble is opened anew.
        let store = store(&bed, &server);
        store.write(placement("a", &at.to_string())).await.expect_err("refused");
        most = most.max(packs());
        drop(store);
        let lock = std::fs::File::options().write(true).open(caches(&bed)[0].join("lock")).expect("a file");
        kratix_testing::wait::poll("the cache to be free", || async {
            lock.try_lock().map_err(|error| error.to_string())
        })
        .await;
    }
    assert!(most <= 48, "{most} packs");
}
