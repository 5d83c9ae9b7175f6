//! What servers answer, or do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kratix_state_store::{Auth, Change, File, Retry, Trouble, open};
use kratix_testing::authority::{Identity, Validity};
use kratix_testing::git_http::{Fault, Server, Step};
use kratix_testing::wait;

use super::{foreign_commit, git_processes, hasty_store, noise, write_in_the_end, written};
use crate::{Bed, config, placement, store, trouble};

// Weakness 40.
#[tokio::test]
async fn twenty_foreign_pushes_in_a_row_are_built_upon() {
    let bed = Arc::new(Bed::new());
    let server = Server::plain(bed.directory.path()).await;
    let store = store(&bed, &server);
    store.write(placement("first", "1")).await.expect("written");
    // What is small is pushed at once. For what is large the server is asked first: half of the others are in time to be seen
    // then, the rest comes while the server has the push already.
    let large = Change::replace("b", "worker-1/b", vec![File::new("big", noise(2 << 20))]);
    for (id, change, steps) in
        [("a", placement("a", "1"), [Step::Send, Step::Send]), ("b", large, [Step::Ask, Step::Send])]
    {
        let (rivals, before, count) = (bed.clone(), bed.commits(), AtomicUsize::new(0));
        server.before_requests(move |step| {
            let at = count.load(Ordering::Relaxed);
            if at < 20 && step == steps[at % 2] {
                foreign_commit(&rivals, &format!("theirs/{id}{at}"));
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let answer = store.write(change).await.expect("written");
        assert_eq!(answer.version.expect("a version").as_str(), bed.head());
        assert_eq!(bed.commits() - before, 21);
        assert_eq!(written(&bed)[id], 1);
    }
    assert_eq!(bed.paths().len(), 1 + 2 * 21);
    bed.is_sound();
}

#[tokio::test]
async fn a_branch_that_somebody_makes_while_it_is_looked_for_is_found() {
    let bed = Arc::new(Bed::new());
    let server = Server::plain(bed.directory.path()).await;
    let (rival, asked) = (bed.clone(), AtomicUsize::new(0));
    server.before_requests(move |step| {
        // It is missing when it is looked for, and there when it is to be made.
        if step == Step::Ask && asked.fetch_add(1, Ordering::Relaxed) == 0 {
            rival.foreign_push("theirs", "t");
        }
    });
    store(&bed, &server).write(placement("a", "1")).await.expect("written");
    assert_eq!(bed.paths(), ["theirs", "worker-1/a/a.yaml"]);
}

#[tokio::test]
async fn a_branch_that_never_holds_still_is_given_up_for_now() {
    let bed = Arc::new(Bed::new());
    let server = Server::plain(bed.directory.path()).await;
    let store = store(&bed, &server);
    store.write(placement("first", "1")).await.expect("written");
    let (rivals, count) = (bed.clone(), Arc::new(AtomicUsize::new(0)));
    let moves = count.clone();
    server.before_requests(move |step| {
        if step == Step::Send {
            foreign_commit(&rivals, &format!("theirs/{}", moves.fetch_add(1, Ordering::Relaxed)));
        }
    });
    let error = trouble(store.write(placement("a", "1")).await);
    assert_eq!((error.category(), error.retry()), ("PushRejected", Retry::Soon));
    let text = error.to_string();
    assert!(text.starts_with("failed to push: state store default (") && text.ends_with("moved each time"), "{text}");
    let tries = count.load(Ordering::Relaxed);
    assert!((20..=32).contains(&tries), "{tries} tries");
    server.before_requests(|_| {});
    store.write(placement("a", "1")).await.expect("written");
    assert_eq!(bed.commits(), 2 + tries);
    bed.is_sound();
}

#[tokio::test]
async fn a_server_that_hangs_during_a_push_costs_a_deadline_and_no_second_commit() {
    for executed in [false, true] {
        let bed = Bed::new();
        let server = Server::plain(bed.directory.path()).await;
        let store = hasty_store(&bed, &server);
        write_in_the_end(&store, placement("first", "1")).await;
        server.fail(Fault::HangPush { executed });
        let error = trouble(store.write(placement("a", "1")).await);
        assert_eq!((error.category(), error.retry()), ("StoreTimeout", Retry::Backoff));
        assert!(error.to_string().ends_with("no answer within 2 s"), "{error}");
        // Neither git nor what it has started outlives the deadline.
        wait::poll("git to be gone", || async {
            let left = git_processes(&bed);
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
        server.fail(Fault::None);
        let answer = write_in_the_end(&store, placement("a", "1")).await;
        assert_eq!(answer.changed, !executed);
        assert_eq!(answer.version.expect("a version").as_str(), bed.head());
        assert_eq!((bed.commits(), written(&bed)["a"]), (2, 1));
        bed.is_sound();
    }
}

#[tokio::test]
async fn a_server_that_stops_reading_in_the_middle_of_a_push_costs_a_deadline() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let store = hasty_store(&bed, &server);
    write_in_the_end(&store, placement("first", "1")).await;
    // More than lies between the two in buffers.
    let change = Change::replace("a", "worker-1/a", vec![File::new("big", noise(8 << 20))]);
    server.fail(Fault::HangPush { executed: false });
    let error = trouble(store.write(change.clone()).await);
    assert_eq!((error.category(), error.retry()), ("StoreTimeout", Retry::Backoff));
    server.fail(Fault::None);
    assert!(write_in_the_end(&crate::store(&bed, &server), change).await.changed);
    assert_eq!((bed.commits(), written(&bed)["a"]), (2, 1));
    bed.is_sound();
}

#[tokio::test]
async fn a_server_that_hangs_during_a_fetch_costs_a_deadline() {
    let bed = Bed::new();
    bed.foreign_push("theirs", "t");
    let server = Server::plain(bed.directory.path()).await;
    let store = hasty_store(&bed, &server);
    server.fail(Fault::HangFetch);
    assert_eq!(trouble(store.write(placement("a", "1")).await).category(), "StoreTimeout");
    wait::poll("git to be gone", || async {
        let left = git_processes(&bed);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    server.fail(Fault::None);
    write_in_the_end(&store, placement("a", "1")).await;
    assert_eq!(bed.paths(), ["theirs", "worker-1/a/a.yaml"]);
}

#[tokio::test]
async fn connections_that_break_in_the_middle_lose_and_double_nothing() {
    let content = noise(3 << 20);
    let change = |id: &str| {
        let files = vec![File::new("big", content.clone())];
        Change::replace(id, format!("worker-1/{id}"), files)
    };
    for fault in [Fault::ResetPush { after: 1 << 20 }, Fault::ResetPush { after: 0 }, Fault::TruncatePush] {
        let bed = Bed::new();
        let server = Server::plain(bed.directory.path()).await;
        let store = store(&bed, &server);
        store.write(placement("first", "1")).await.expect("written");
        server.fail(fault.clone());
        // The client may ask again by itself, and then the store finds its own commit.
        let answer = store.write(change("a")).await;
        if let Err(error) = &answer {
            assert_eq!(error.retry(), Retry::Backoff, "{fault:?}: {error}");
            let text = error.to_string();
            assert!(!text.contains('\n') && text.contains("state store default"), "{text}");
        }
        assert!(fault == Fault::TruncatePush || answer.is_err(), "{fault:?}");
        server.fail(Fault::None);
        let answer = write_in_the_end(&store, change("a")).await;
        assert_eq!(answer.changed, fault != Fault::TruncatePush, "{fault:?}");
        assert_eq!((bed.commits(), written(&bed)["a"]), (2, 1), "{fault:?}");
        assert_eq!(store.read("worker-1/a/big").await.expect("readable").as_deref(), Some(content.as_slice()));
        bed.is_sound();
    }

    let bed = Bed::new();
    bed.store().write(change("theirs")).await.expect("written");
    let server = Server::plain(bed.directory.path()).await;
    let store = store(&bed, &server);
    server.fail(Fault::TruncateFetch);
    let error = trouble(store.write(placement("a", "1")).await);
    assert_eq!(error.retry(), Retry::Backoff, "{error}");
    server.fail(Fault::None);
    write_in_the_end(&store, placement("a", "1")).await;
    assert_eq!(bed.paths(), ["worker-1/a/a.yaml", "worker-1/theirs/big"]);
    bed.is_sound();
}

#[tokio::test]
async fn a_server_that_asks_to_be_left_alone_is_left_alone() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    server.require("kratix", "s3cret");
    let mut config = config(&server);
    config.auth = Auth::Basic { username: "kratix".to_owned(), password: "s3cret".into() };
    for (status, category) in [(429, "StoreBusy"), (503, "StoreBusy"), (403, "StoreBusy"), (500, "StoreBusy")] {
        let store = open(config.clone(), bed.cache()).expect("usable");
        store.check().await.expect("usable");
        server.fail(Fault::Busy(status, "3600".to_owned()));
        let error = trouble(store.write(placement("a", &status.to_string())).await);
        assert_eq!((error.category(), error.retry()), (category, Retry::Backoff), "{status}: {error}");
        let asked = error.retry_after().expect("it was told");
        assert_eq!(asked, Duration::from_secs(3600));
        assert!(!error.to_string().contains("3600"), "a text that changes would be news each time: {error}");
        // It is not asked again, whatever is wanted of it, and its own request is the answer.
        let requests = server.requests();
        let again = trouble(store.write(placement("b", "1")).await);
        assert_eq!(again.to_string(), error.to_string());
        assert!(again.retry_after().is_some_and(|rest| rest <= Duration::from_secs(300)), "within bounds");
        assert_eq!(store.check().await.expect_err("not asked").category(), category);
        assert!(store.read("worker-1/a/a.yaml").await.is_err());
        assert_eq!(server.requests(), requests);
        // That was the answer to a push. To a question it is the same.
        let stranger = open(config.clone(), bed.cache()).expect("usable");
        assert_eq!(trouble(stranger.write(placement("b", "1")).await).category(), category);
        assert!(stranger.write(placement("b", "1")).await.is_err());
        assert_eq!(server.requests() - requests, 1);
        server.fail(Fault::None);
        // Other credentials, or a process that has been started since, know nothing of it.
        let fresh = open(config.clone(), bed.cache()).expect("usable");
        fresh.write(placement("a", &status.to_string())).await.expect("written");
    }
    let caches = std::fs::read_dir(bed.cache()).expect("caches");
    for home in caches.map(|cache| cache.expect("readable").path().join("home")) {
        let left: Vec<_> = std::fs::read_dir(home).expect("a home").flatten().map(|entry| entry.file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().contains("headers")), "{left:?}");
    }
}

#[tokio::test]
async fn what_is_noted_of_an_exchange_holds_no_credentials() {
    let bed = Bed::new();
    // There is something to be brought, which is for git to do.
    bed.foreign_push("theirs", "t");
    let server = Server::plain(bed.directory.path()).await;
    let mut config = config(&server);
    config.auth = Auth::Basic { username: "kratix".to_owned(), password: "s3cret".into() };
    let store = open(config, bed.cache()).expect("usable");
    server.fail(Fault::HangFetch);
    let asking = tokio::spawn(async move { store.check().await });
    wait::poll("the request to be noted", || async {
        let homes =
            std::fs::read_dir(bed.cache()).into_iter().flatten().flatten().map(|cache| cache.path().join("home"));
        let files = homes.flat_map(|home| std::fs::read_dir(home).into_iter().flatten().flatten());
        let texts: Vec<_> = files.filter_map(|file| std::fs::read_to_string(file.path()).ok()).collect();
        let Some(text) = texts.iter().find(|text| text.contains("Authorization:")) else {
            return Err(texts.join("\n"));
        };
        // Basic authentication is this text in Base64.
        assert!(!text.contains("s3cret") && !text.contains("a3JhdGl4OnMzY3JldA"), "{text}");
        Ok(())
    })
    .await;
    asking.abort();
}

#[tokio::test]
async fn a_server_is_asked_again_when_its_time_has_come() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let store = store(&bed, &server);
    store.write(placement("first", "1")).await.expect("written");
    server.fail(Fault::Busy(503, "1".to_owned()));
    let error = trouble(store.write(placement("a", "1")).await);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
    server.fail(Fault::None);
    write_in_the_end(&store, placement("a", "1")).await;
    // An answer without, or with nonsense, is a failure like any other.
    for (fault, category) in [
        (Fault::Status(502), "StoreServerFailed"),
        (Fault::Status(429), "StoreServerFailed"),
        (Fault::Busy(429, "later".to_owned()), "StoreServerFailed"),
        (Fault::Status(403), "StoreForbidden"),
    ] {
        server.fail(fault.clone());
        let error = trouble(store.write(placement("b", "1")).await);
        assert_eq!((error.category(), error.retry_after()), (category, None), "{fault:?}");
        assert_eq!(error.retry(), Retry::Backoff);
    }
    server.fail(Fault::None);
    store.write(placement("b", "1")).await.expect("written");
}

#[tokio::test]
async fn credentials_that_change_while_many_write_lose_and_double_nothing() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let with = |password: &str| {
        let mut config = config(&server);
        config.auth = Auth::Basic { username: "kratix".to_owned(), password: password.into() };
        open(config, bed.cache()).expect("usable")
    };
    server.require("kratix", "old");
    let (old, new) = (with("old"), with("new"));
    old.write(placement("first", "1")).await.expect("written");
    let writers: Vec<_> = (0..120)
        .map(|at| {
            let (old, new) = (old.clone(), new.clone());
            tokio::spawn(async move {
                let change = placement(&format!("p{at:03}"), "1");
                match old.write(change.clone()).await {
                    Ok(_) => {}
                    // The controllers have opened another writer by then.
                    Err(error) => {
                        assert_eq!(error.category(), "StoreUnauthorized", "{error}");
                        new.write(change).await.expect("written");
                    }
                }
            })
        })
        .collect();
    wait::poll("the first of them to be pushed", || async {
        if server.pushes() > 1 { Ok(()) } else { Err("none".to_owned()) }
    })
    .await;
    server.require("kratix", "new");
    for writer in writers {
        writer.await.expect("written");
    }
    assert!(old.write(placement("late", "1")).await.is_err());
    assert_eq!(bed.paths().len(), 121);
    let counts = written(&bed);
    assert!(counts.len() == 121 && counts.values().all(|count| *count == 1), "{counts:?}");
    bed.is_sound();
}

// Weakness 37, decision 8.
#[tokio::test]
async fn certificates_that_are_not_valid_say_why_and_what_helps() {
    let bed = Bed::new();
    for (identity, reason, hint) in [
        (Identity::new(&["localhost"], Validity::Past), "it has expired", "renew the certificate"),
        (Identity::new(&["localhost"], Validity::Future), "it is not valid yet", "check the clocks"),
        (Identity::new(&["other.example.org"], Validity::Present), "it is for another host name", "use a host name"),
    ] {
        let server = Server::tls_as(bed.directory.path(), identity).await;
        let store = store(&bed, &server);
        let error = store.check().await.expect_err("not trusted");
        assert_eq!(error.trouble, Trouble::Untrusted(reason.to_owned()));
        let given = error.hint().expect("a hint");
        assert!(given.starts_with(hint), "{given}");
    }
    let server = Server::tls(bed.directory.path()).await;
    let mut stranger = config(&server);
    stranger.tls.ca_pem = Some(Identity::local().ca_pem.into_bytes());
    let error = open(stranger, bed.cache()).expect("usable").check().await.expect_err("not trusted");
    // Named alike, signed by another.
    let Trouble::Untrusted(reason) = &error.trouble else { panic!("{error}") };
    assert!(!reason.contains('/'), "no files of this machine: {reason}");
    assert!(error.hint().expect("a hint").contains("caFile"));
    assert_eq!(bed.commits(), 0);
    // The server's certificate is renewed where no watch sees it: the next try finds out.
    let server = Server::tls(bed.directory.path()).await;
    store(&bed, &server).write(placement("a", "1")).await.expect("written");
}

#[tokio::test]
async fn a_lock_that_a_dead_process_left_on_the_server_is_named() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let store = store(&bed, &server);
    store.write(placement("a", "1")).await.expect("written");
    let lock = bed.repository().join("refs/heads/main.lock");
    std::fs::write(&lock, "").expect("a file");
    let before = server.pushes();
    let error = trouble(store.write(placement("b", "1")).await);
    assert_eq!((error.category(), error.retry()), ("StoreLocked", Retry::Backoff), "{error}");
    assert!(error.hint().expect("a hint").contains("main.lock"), "{:?}", error.hint());
    assert!(server.pushes() - before <= 8, "it is tried a few times only");
    std::fs::remove_file(&lock).expect("removed");
    store.write(placement("b", "1")).await.expect("written");
    assert_eq!(bed.commits(), 2);
}
