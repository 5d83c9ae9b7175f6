//! Which requests there are, and what is in them.

use std::time::Duration;

use kratix_state_store::{Auth, Change, File, init_bare, open};
use kratix_testing::git_http::Server;

use super::noise;
use crate::{Bed, config, placement, store};

#[tokio::test]
async fn a_write_is_one_request_on_a_connection_that_is_kept() {
    let bed = Bed::new();
    // Whatever else the repository has is told to those who ask only.
    bed.foreign_push("theirs", "t");
    let head = bed.head();
    let refs: String = (0..2_000).map(|at| format!("create refs/tags/t{at} {head}\n")).collect();
    bed.feed(&["update-ref", "--stdin"], &refs);
    let server = Server::tls(bed.directory.path()).await;
    server.require("kratix", "s3cret");
    let mut config = config(&server);
    config.auth = Auth::Basic { username: "kratix".to_owned(), password: "s3cret".into() };
    let store = open(config, bed.cache()).expect("usable");
    store.check().await.expect("usable");
    let requests = server.requests();
    for at in 1..=5 {
        store.write(placement("a", &at.to_string())).await.expect("written");
        assert_eq!(server.requests() - requests, at, "it pushes, and is never asked who it is");
    }
    let connections = server.connections();
    store.write(Change::remove("a", "worker-1/a")).await.expect("removed");
    assert_eq!((server.requests() - requests, server.connections()), (6, connections));
    assert_eq!(bed.commits(), 1 + 6);
    bed.is_sound();
}

#[tokio::test]
async fn what_a_first_write_asks_for_is_asked_once() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let store = store(&bed, &server);
    store.write(placement("a", "1")).await.expect("written");
    assert_eq!(server.requests(), 3, "the branch, what is taken, and the push");
    store.write(placement("a", "2")).await.expect("written");
    assert_eq!((server.requests(), server.connections()), (4, 1));
}

#[tokio::test]
async fn much_is_sent_only_after_the_branch_was_seen_not_to_have_moved() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let store = store(&bed, &server);
    store.write(placement("a", "1")).await.expect("written");
    let large = |content: String| Change::replace("large", "worker-1/large", vec![File::new("f", content)]);
    let (requests, pushes) = (server.requests(), server.pushes());
    store.write(large(noise(1, 2 << 20))).await.expect("written");
    assert_eq!((server.requests() - requests, server.pushes() - pushes), (2, 1));
    bed.foreign_push("theirs", "t");
    let pushes = server.pushes();
    store.write(large(noise(2, 2 << 20))).await.expect("written");
    assert_eq!(server.pushes() - pushes, 1, "nothing large is sent in vain");
    // What is small is cheaper to send than to ask for.
    bed.foreign_push("theirs", "u");
    let pushes = server.pushes();
    store.write(placement("a", "2")).await.expect("written");
    assert_eq!(server.pushes() - pushes, 2);
    assert_eq!(bed.paths(), ["theirs", "worker-1/a/a.yaml", "worker-1/large/f"]);
    assert_eq!(bed.commits(), 6);
}

#[tokio::test]
async fn a_repository_that_was_replaced_behind_a_store_that_asks_nothing_is_noticed() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let store = store(&bed, &server);
    store.write(placement("a", "1")).await.expect("written");
    let replaced = || {
        std::fs::remove_dir_all(bed.repository()).expect("removed");
        init_bare(bed.repository(), "main").expect("a repository");
    };
    replaced();
    store.write(placement("b", "1")).await.expect("written into the new one");
    assert_eq!(bed.paths(), ["worker-1/b/a.yaml"]);
    // One of others, whose objects are all different.
    replaced();
    bed.foreign_push("theirs", "t");
    store.write(placement("c", "1")).await.expect("built upon");
    assert_eq!(bed.paths(), ["theirs", "worker-1/c/a.yaml"]);
    bed.is_sound();
}

#[tokio::test]
async fn looking_whether_a_branch_has_moved_is_one_request_also_after_a_restart() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    store(&bed, &server).write(placement("a", "1")).await.expect("written");
    let cache = std::fs::read_dir(bed.cache()).expect("caches").next().expect("one").expect("readable").path();
    kratix_testing::wait::poll("the cache to be free", || async {
        let lock = std::fs::File::options().write(true).open(cache.join("lock")).map_err(|error| error.to_string())?;
        lock.try_lock().map_err(|error| error.to_string())
    })
    .await;
    let mut config = config(&server);
    config.fetch_interval = Duration::ZERO;
    let again = open(config, bed.cache()).expect("usable");
    for _ in 0..3 {
        let requests = server.requests();
        assert!(!again.write(placement("a", "1")).await.expect("silent").changed);
        assert_eq!(server.requests() - requests, 1);
    }
    let requests = server.requests();
    again.check().await.expect("usable");
    assert_eq!(server.requests() - requests, 2, "whether it may be read, and written");
    // What others have pushed is brought, and known from then on.
    bed.foreign_push("theirs", "t");
    assert_eq!(again.read("theirs").await.expect("readable").as_deref(), Some(&b"t"[..]));
    let requests = server.requests();
    again.read("theirs").await.expect("readable");
    assert_eq!(server.requests() - requests, 1);
}

#[tokio::test]
async fn a_push_carries_what_is_new_and_nothing_of_what_the_repository_holds() {
    let bed = Bed::new();
    let files = (0..2_000).map(|at| File::new(format!("d{at}/f.yaml"), format!("{at}\n"))).collect();
    bed.store().write(Change::replace("many", "worker-1/many", files)).await.expect("written");
    bed.git(&["config", "receive.unpackLimit", "1"]);
    let server = Server::plain(bed.directory.path()).await;
    let store = store(&bed, &server);
    store.check().await.expect("usable");
    let counted = || -> usize {
        let text = bed.git(&["count-objects", "-v"]);
        let line = text.lines().find_map(|line| line.strip_prefix("in-pack: ")).expect("a count");
        line.parse().expect("a number")
    };
    let before = counted();
    store.write(placement("one", "1")).await.expect("written");
    assert_eq!(counted() - before, 5, "a file, its directory, the one above, the root and the commit");
    store.write(Change::remove("one", "worker-1/one")).await.expect("written");
    assert_eq!(counted() - before, 8, "two directories and the commit");
    bed.is_sound();
}
