//! A repository behind `git http-backend`.

use std::time::Duration;

use kratix_state_store::{Auth, Change, GitConfig, Handle, Retry, Trouble, WriteError, open};
use kratix_testing::git_http::{Fault, Server};
use kratix_testing::{executable, hook};

use crate::{Bed, config, placement, trouble};

fn basic(username: &str, password: &str) -> Auth {
    Auth::Basic { username: username.to_owned(), password: password.into() }
}

fn store(bed: &Bed, config: GitConfig) -> Handle {
    open(config, bed.cache()).expect("usable")
}

#[tokio::test]
async fn a_repository_behind_https_is_written_in_batches() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    server.require("kratix", "s3cret");
    let mut config = config(&server);
    config.auth = basic("kratix", "s3cret");
    config.fetch_interval = Duration::from_secs(3600); // however busy this machine is
    let store = store(&bed, config);
    store.check().await.expect("usable");
    assert_eq!(bed.commits(), 0, "a check leaves nothing behind");
    assert_eq!(server.pushes(), 0, "a dry run sends nothing");

    let first = store.write(placement("first", "1")).await.expect("written");
    assert_eq!(first.version.expect("a version").as_str(), bed.head());
    let mut pending = Vec::new();
    for at in 0..50 {
        pending.push(store.reserve().await.expect("a place").send(placement(&format!("p{at}"), "1")));
    }
    for answer in pending {
        answer.await.expect("written");
    }
    assert_eq!(bed.paths().len(), 51);
    assert!(bed.commits() <= 3, "{} commits", bed.commits());
    let fetches = server.fetches();
    assert!(!store.write(placement("p7", "1")).await.expect("silent").changed);
    assert_eq!(server.fetches(), fetches, "what was seen a moment ago is believed");
    store.write(Change::remove("p7", "worker-1/p7")).await.expect("written");
    assert_eq!(store.list("worker-1/p7").await, Ok(vec![]));
    assert_eq!(bed.paths().len(), 50);
    bed.is_sound();
}

#[tokio::test]
async fn commits_name_whom_the_store_names_and_nobody_of_this_machine() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let people = || bed.git(&["log", "-1", "--format=%an <%ae> %cn <%ce>", "main"]).trim().to_owned();
    let mut named = config(&server);
    store(&bed, named.clone()).write(placement("a", "1")).await.expect("written");
    assert_eq!(people(), "kratix <> kratix <>");
    named.author.name = "Ä. Platform-Team".to_owned();
    named.author.email = "platform@example.org".to_owned();
    store(&bed, named.clone()).write(placement("a", "2")).await.expect("written");
    assert_eq!(people(), "Ä. Platform-Team <platform@example.org> Ä. Platform-Team <platform@example.org>");
    named.url = bed.config().url;
    store(&bed, named).write(Change::remove("a", "worker-1/a")).await.expect("removed");
    assert_eq!(people(), "Ä. Platform-Team <platform@example.org> Ä. Platform-Team <platform@example.org>");
    bed.is_sound();
}

#[tokio::test]
async fn certificates_are_verified() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let mut config = config(&server);
    config.tls.ca_pem = None;
    let error = trouble(store(&bed, config.clone()).write(placement("a", "1")).await);
    assert_eq!((error.category(), error.retry()), ("StoreUntrusted", Retry::OnChange));
    assert!(error.hint().expect("a hint").contains("caFile"));
    config.tls.ca_pem = Server::tls(bed.directory.path()).await.ca_pem().map(|pem| pem.as_bytes().to_vec());
    let error = trouble(store(&bed, config.clone()).write(placement("a", "1")).await);
    assert_eq!(error.category(), "StoreUntrusted", "another authority");
    config.tls.insecure = true;
    store(&bed, config).write(placement("a", "1")).await.expect("written");
}

#[tokio::test]
async fn a_wrong_password_is_told_without_telling_it() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    server.require("kratix", "right");
    let mut config = config(&server);
    for auth in [Auth::None, basic("kratix", "wr0ng-pass")] {
        config.auth = auth;
        let store = store(&bed, config.clone());
        let error = store.check().await.expect_err("refused");
        assert_eq!(error.trouble, Trouble::Unauthorized);
        assert_eq!(trouble(store.write(placement("a", "1")).await), error);
        let shown = format!("{error} {error:?} {config:?}");
        assert!(!shown.contains("wr0ng-pass"), "{shown}");
    }
    // Rotated on the server while the store lives: what failed before works, without a new store.
    server.require("kratix", "wr0ng-pass");
    let store = store(&bed, config.clone());
    store.write(placement("a", "1")).await.expect("written");
    server.require("kratix", "rotated");
    assert_eq!(trouble(store.write(placement("b", "1")).await).trouble, Trouble::Unauthorized);
    config.url = server.url("state.git").replace("http://", "http://kratix:rotated@");
    config.auth = Auth::None;
    let store = self::store(&bed, config);
    store.write(placement("b", "1")).await.expect("written");
    assert!(!store.place().to_string().contains("rotated"));
    assert_eq!(bed.paths().len(), 2);
}

#[tokio::test]
async fn foreign_commits_are_built_upon_and_foreign_deletions_repaired() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let mut config = config(&server);
    config.fetch_interval = Duration::ZERO;
    let store = store(&bed, config);
    store.write(placement("a", "1")).await.expect("written");
    bed.foreign_push("theirs", "t");
    store.write(placement("b", "1")).await.expect("written on the new head");
    assert_eq!(bed.paths(), ["theirs", "worker-1/a/a.yaml", "worker-1/b/a.yaml"]);
    bed.foreign_push("worker-1/a/a.yaml", "tampered");
    assert!(store.write(placement("a", "1")).await.expect("written").changed);
    assert_eq!(bed.git(&["show", "main:worker-1/a/a.yaml"]), "1");
    // Rewritten and then emptied history.
    let first = bed.git(&["rev-list", "--max-parents=0", "main"]);
    bed.git(&["update-ref", "refs/heads/main", first.trim()]);
    store.write(placement("c", "1")).await.expect("written");
    assert_eq!(bed.paths(), ["worker-1/a/a.yaml", "worker-1/c/a.yaml"]);
    bed.git(&["update-ref", "-d", "refs/heads/main"]);
    store.write(placement("d", "1")).await.expect("written");
    assert_eq!(bed.paths(), ["worker-1/d/a.yaml"]);
    bed.is_sound();
}

#[tokio::test]
async fn two_stores_of_one_repository_lose_nothing() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let (one, two) = (store(&bed, config(&server)), store(&bed, config(&server)));
    let local = bed.store();
    for at in 0..4 {
        let (a, b, c) =
            (placement(&format!("a{at}"), "1"), placement(&format!("b{at}"), "1"), placement(&format!("c{at}"), "1"));
        let (a, b, c) = tokio::join!(one.write(a), two.write(b), local.write(c));
        a.expect("written");
        b.expect("written");
        c.expect("written");
    }
    assert_eq!(bed.paths().len(), 12);
    assert_eq!(bed.commits(), 12);
    bed.is_sound();
}

#[tokio::test]
async fn a_refusing_hook_is_quoted_and_a_fixed_one_forgotten() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let store = store(&bed, config(&server));
    store.write(placement("a", "1")).await.expect("written");
    let hook = hook::install(&bed.repository(), "pre-receive", "echo 'branch main is protected' >&2\nexit 1");
    let error = trouble(store.write(placement("b", "1")).await);
    let message = "branch main is protected (pre-receive hook declined)".to_owned();
    assert_eq!(error.trouble, Trouble::Refused { branch: "main".to_owned(), message });
    assert!(error.to_string().starts_with("failed to push: state store default ("), "{error}");
    assert_eq!(bed.commits(), 1);
    std::fs::remove_file(&hook).expect("removed");
    store.write(placement("b", "1")).await.expect("written");
    assert_eq!(bed.paths().len(), 2);
}

/// Makes the repository refuse pushes that touch a path for which `condition`, a shell command on `$path`, succeeds.
fn refuse_paths(bed: &Bed, condition: &str) {
    let script = format!(
        "while read old new ref; do
    [ \"$old\" = 0000000000000000000000000000000000000000 ] && old=$(git hash-object -t tree /dev/null)
    for path in $(git diff --name-only $old $new); do
        if {condition}; then echo \"$path is not allowed\" >&2; exit 1; fi
    done
done"
    );
    hook::install(&bed.repository(), "pre-receive", &script);
}

#[tokio::test]
async fn a_refused_change_does_not_hold_up_the_others_of_its_batch() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    refuse_paths(&bed, r#"[ "$path" != "${path%bad*}" ]"#);
    for (store, prefix) in [(store(&bed, config(&server)), "remote"), (bed.store(), "local")] {
        let mut pending = Vec::new();
        for at in 0..20 {
            let name = if at == 3 || at == 17 { format!("{prefix}-bad{at}") } else { format!("{prefix}-{at}") };
            let answer = store.reserve().await.expect("a place").send(placement(&name, "1"));
            pending.push((name, answer));
        }
        for (name, answer) in pending {
            match (answer.await, name.contains("bad")) {
                (Ok(written), false) => assert!(written.changed),
                (Err(WriteError::Refused(error)), true) => {
                    let expected = format!("worker-1/{name}/a.yaml is not allowed");
                    assert!(error.to_string().contains(&expected), "{name} gets its own reason: {error}");
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }
    assert_eq!(bed.paths().len(), 36);
    assert!(server.pushes() < 40, "{} requests", server.pushes());
    bed.is_sound();
}

/// Queues all changes before any of them is worked on, so that they are one batch, and returns the answers in their order.
async fn write_all(store: &Handle, changes: Vec<Change>) -> Vec<Result<kratix_state_store::Written, WriteError>> {
    let mut pending = Vec::new();
    // Tokio interrupts a task after 128 waits, counted from here.
    tokio::task::yield_now().await;
    for change in changes {
        // On the one thread of a test, the store's task runs only when this one waits.
        pending.push(store.reserve().await.expect("a place").send(change));
    }
    let mut answers = Vec::new();
    for answer in pending {
        answers.push(answer.await);
    }
    answers
}

/// Returns how often a hook that adds a line to this file was run since it was asked last.
fn pushes(counter: &std::path::Path) -> usize {
    let count = std::fs::read_to_string(counter).unwrap_or_default().lines().count();
    let _ = std::fs::remove_file(counter);
    count
}

/// Makes the repository count pushes, and refuse those that touch a path with a word in it.
fn count_and_refuse(bed: &Bed, word: &str) -> std::path::PathBuf {
    let counter = bed.directory.path().join("pushes");
    refuse_paths(bed, &format!(r#"[ "$path" != "${{path%{word}*}}" ]"#));
    let hook = bed.repository().join("hooks/pre-receive");
    let script = std::fs::read_to_string(&hook).expect("a hook");
    let counting = format!("#!/bin/sh\necho >> {}", counter.display());
    executable::write(&hook, &script.replacen("#!/bin/sh", &counting, 1));
    counter
}

#[tokio::test]
async fn a_store_that_refuses_everything_is_in_trouble_as_a_whole_and_soon_found_out() {
    let bed = Bed::new();
    let store = bed.store();
    let counter = count_and_refuse(&bed, "worker-1");
    let changes = |count| (0..count).map(|at| placement(&format!("p{at}"), "1")).collect();
    for (count, limit) in [(1, 1), (2, 3), (100, 6), (100, 6)] {
        for answer in write_all(&store, changes(count)).await {
            assert!(matches!(trouble(answer).trouble, Trouble::Refused { .. }));
        }
        let pushes = pushes(&counter);
        assert!((1..=limit).contains(&pushes), "{pushes} pushes for {count} changes");
    }
    // When it takes pushes again, nobody is remembered as refused.
    std::fs::remove_file(bed.repository().join("hooks/pre-receive")).expect("removed");
    assert!(write_all(&store, changes(100)).await.iter().all(Result::is_ok));
    assert_eq!(bed.commits(), 1);
}

#[tokio::test]
async fn what_was_refused_before_is_tried_alone_and_last() {
    let bed = Bed::new();
    let store = bed.store();
    let counter = count_and_refuse(&bed, "bad");
    let changes = |content: &str| -> Vec<Change> {
        let name = |at| if at == 3 || at == 30 { format!("bad{at}") } else { format!("good{at}") };
        (0..40).map(|at| placement(&name(at), content)).collect()
    };
    let are_told_apart = |answers: Vec<Result<kratix_state_store::Written, WriteError>>| {
        for (at, answer) in answers.into_iter().enumerate() {
            match answer {
                Err(WriteError::Refused(error)) if at == 3 || at == 30 => {
                    assert!(error.to_string().contains(&format!("bad{at}/a.yaml is not allowed")), "{error}");
                }
                answer => assert!(answer.expect("written").version.is_some() && at != 3 && at != 30, "{at}"),
            }
        }
    };
    are_told_apart(write_all(&store, changes("1")).await);
    assert!(pushes(&counter) > 5, "it has to be found out");
    // The same once more, where nothing else is new: no reason to suspect the store.
    are_told_apart(write_all(&store, changes("1")).await);
    assert_eq!(pushes(&counter), 2);
    // With other changes.
    let mut mixed = changes("2");
    for at in [3, 30] {
        mixed[at] = changes("1").swap_remove(at);
    }
    are_told_apart(write_all(&store, mixed).await);
    assert_eq!(pushes(&counter), 3);
    let bad = || changes("1").swap_remove(3);
    assert!(matches!(store.write(bad()).await, Err(WriteError::Refused(_))));
    // One who was refused and says something else later has the last word.
    std::fs::remove_file(bed.repository().join("hooks/pre-receive")).expect("removed");
    let answers = write_all(&store, vec![bad(), placement("bad3", "newer")]).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(bed.git(&["show", "main:worker-1/bad3/a.yaml"]), "newer");
}

#[tokio::test]
async fn many_refused_changes_hold_up_the_others_for_a_few_rounds_only_and_nobody_is_called_refused_who_is_not() {
    let bed = Bed::new();
    let store = bed.store();
    let counter = count_and_refuse(&bed, "bad");
    let name = |at: usize| if at.is_multiple_of(2) { format!("good{at}") } else { format!("bad{at}") };
    let is_done = || bed.commits() > 0 && bed.paths().len() == 40;
    for _ in 0..40 {
        let changes = (0..80).map(|at| placement(&name(at), "1")).collect();
        for (at, answer) in write_all(&store, changes).await.into_iter().enumerate() {
            match answer {
                Ok(_) => assert!(at.is_multiple_of(2), "{at}"),
                Err(WriteError::Refused(_)) => assert!(!at.is_multiple_of(2), "{at}"),
                Err(untried @ WriteError::Untried(_)) => {
                    assert_eq!((untried.category(), untried.retry()), ("PushUntried", Retry::Backoff));
                    assert!(!untried.to_string().contains("not allowed"), "{untried}");
                }
                Err(other) => assert!(matches!(other, WriteError::Store(_)), "{other:?}"),
            }
        }
        assert!(pushes(&counter) < 80);
        if is_done() {
            return;
        }
    }
    panic!("{:?}", bed.paths());
}

#[tokio::test]
async fn a_branch_that_is_checked_out_is_trouble_with_the_store() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let store = store(&bed, config(&server));
    store.write(placement("a", "1")).await.expect("written");
    bed.git(&["config", "core.bare", "false"]);
    for answer in write_all(&store, vec![placement("b", "1"), placement("c", "1")]).await {
        assert_eq!(trouble(answer).trouble, Trouble::CheckedOut("main".to_owned()));
    }
}

#[tokio::test]
async fn an_unreachable_server_is_told_and_all_who_wait_are_served_after_it_is_back() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let store = store(&bed, config(&server));
    store.write(placement("first", "1")).await.expect("written");
    server.fail(Fault::Status(503));
    let error = trouble(store.write(placement("a", "1")).await);
    assert_eq!((error.category(), error.retry()), ("StoreServerFailed", Retry::Backoff));
    let writers: Vec<_> = (0..20)
        .map(|at| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut failures = 0;
                while let Err(error) = store.write(placement(&format!("p{at}"), "1")).await {
                    assert_eq!(error.retry(), Retry::Backoff, "{error}");
                    failures += 1;
                    assert!(failures < 1_000);
                }
            })
        })
        .collect();
    server.fail(Fault::None);
    for writer in writers {
        writer.await.expect("written in the end");
    }
    assert_eq!(bed.paths().len(), 21);
    assert!(bed.commits() < 21, "they share commits");
}

#[tokio::test]
async fn hosts_that_do_not_answer_are_told_apart() {
    let bed = Bed::new();
    let unknown = store(&bed, GitConfig::new("default", "https://state.invalid/x.git"));
    let error = unknown.check().await.expect_err("unknown");
    assert!(matches!(error.trouble, Trouble::UnknownHost(ref host) if host == "state.invalid"), "{error}");

    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address").port()
    };
    let closed = store(&bed, GitConfig::new("default", format!("http://127.0.0.1:{port}/x.git")));
    assert_eq!(closed.check().await.expect_err("closed").category(), "StoreUnreachable");

    let server = Server::plain(bed.directory.path()).await;
    let missing = store(&bed, GitConfig::new("default", server.url("missing.git")));
    assert_eq!(missing.check().await.expect_err("missing").category(), "StoreNotFound");

    server.fail(Fault::Status(403));
    assert_eq!(missing.check().await.expect_err("forbidden").category(), "StoreForbidden");
    server.fail(Fault::Hang);
    let mut config = config(&server);
    config.deadline = Duration::from_millis(400);
    let hanging = store(&bed, config);
    assert_eq!(hanging.check().await.expect_err("hanging").category(), "StoreTimeout");

    let mut config = GitConfig::new("default", server.url("state.git").replace("localhost", "example.org"));
    assert_eq!(open(config.clone(), bed.cache()).err().map(|error| error.trouble), Some(Trouble::PlainHttp));
    config.url = "https://ok/x".to_owned();
    config.branch = "a..b".to_owned();
    assert_eq!(open(config, bed.cache()).err().map(|error| error.category()), Some("StoreConfigInvalid"));
}

#[tokio::test]
async fn a_server_that_sends_to_another_path_is_followed_and_no_other_host_gets_the_credentials() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    server.require("kratix", "s3cret");
    server.fail(Fault::Redirect("/old.git".into(), server.url("state.git")));
    let mut config = config(&server);
    config.url = server.url("old.git");
    config.auth = basic("kratix", "s3cret");
    let moved = store(&bed, config.clone());
    moved.check().await.expect("followed");
    moved.write(placement("a", "1")).await.expect("written");
    assert_eq!(bed.paths(), ["worker-1/a/a.yaml"]);

    // Another port is another server, which here would take the same account.
    let other = Server::plain(bed.directory.path()).await;
    server.fail(Fault::Redirect("/old.git".into(), other.url("state.git")));
    let elsewhere = store(&bed, config);
    assert_eq!(elsewhere.check().await.expect_err("not followed").trouble, Trouble::Redirected);
    assert_eq!((bed.commits(), other.requests()), (1, 0));
}

#[tokio::test]
async fn a_push_whose_reply_is_lost_is_recognised() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let store = store(&bed, config(&server));
    store.write(placement("a", "1")).await.expect("written");
    server.fail(Fault::LosePushReply);
    // Git's client may ask again by itself, and then the store finds its own commit.
    match store.write(placement("b", "1")).await {
        Ok(written) => assert!(written.changed),
        Err(error) => assert_eq!(error.retry(), Retry::Backoff, "{error}"),
    }
    assert_eq!(bed.commits(), 2, "it did arrive");
    let again = store.write(placement("b", "1")).await.expect("recognised");
    assert_eq!((again.changed, again.version.expect("a version").as_str()), (false, bed.head().as_str()));
    assert_eq!(bed.commits(), 2);
}

#[tokio::test]
async fn a_cache_that_was_killed_in_the_middle_or_damaged_serves_again() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    store(&bed, config(&server)).write(placement("a", "1")).await.expect("written");
    let cache = std::fs::read_dir(bed.cache()).expect("a cache").next().expect("one").expect("readable").path();
    let repository = cache.join("repository.git");
    std::fs::write(repository.join("shallow.lock"), "").expect("a file");
    std::fs::write(repository.join("objects/pack/tmp_pack_half"), "PACK").expect("a file");
    store(&bed, config(&server)).write(placement("b", "1")).await.expect("written");
    // The objects are gone, the ref that names them is not.
    std::fs::remove_dir_all(repository.join("objects/pack")).expect("removed");
    std::fs::create_dir(repository.join("objects/pack")).expect("a directory");
    store(&bed, config(&server)).write(placement("c", "1")).await.expect("written");
    assert_eq!(bed.paths().len(), 3);
    bed.is_sound();
}

#[tokio::test]
async fn a_cache_that_is_damaged_under_a_running_store_is_made_again() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let mut config = config(&server);
    config.fetch_interval = Duration::from_secs(3600);
    let store = store(&bed, config);
    store.write(placement("a", "1")).await.expect("written");
    let cache = std::fs::read_dir(bed.cache()).expect("a cache").next().expect("one").expect("readable").path();
    for pack in std::fs::read_dir(cache.join("repository.git/objects/pack")).expect("packs") {
        std::fs::remove_file(pack.expect("readable").path()).expect("removed");
    }
    store.write(placement("b", "1")).await.expect("written");
    assert_eq!(bed.paths().len(), 2);
}
