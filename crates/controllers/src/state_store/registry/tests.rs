use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use kratix_core::state_store::{Change, ChangeKind, File, Operation};
use kratix_core::work_placement::{Cleaned, Site};
use kratix_state_store::{Trouble, WriteError};

use super::*;

fn store() -> StateStoreRef {
    StateStoreRef { kind: StateStoreKind::GitStateStore, name: "default".into() }
}

fn place_of(registry: &Registry) -> Option<String> {
    match &registry.entries.read().get(&store())?.writer {
        Writer::Open { place, .. } => Some(place.clone()),
        Writer::Opening | Writer::Closed { .. } => None,
    }
}

#[tokio::test]
async fn observers_hear_of_changes_and_a_rotated_credential_is_none() {
    let cache = tempfile::tempdir().unwrap();
    let registry = Registry::new(cache.path().to_owned());
    let heard = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&heard);
    registry.on_change(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let handle = |name: &str| {
        let config = kratix_state_store::GitConfig::new(name, cache.path().join("x.git").display().to_string());
        kratix_state_store::open(config, cache.path()).unwrap()
    };
    registry.locate(&store(), "here");
    registry.set_open(&store(), handle("a"), "here".into());
    assert_eq!((heard.load(Ordering::Relaxed), place_of(&registry)), (1, Some("here".into())));
    registry.locate(&store(), "here");
    registry.set_open(&store(), handle("b"), "here".into());
    assert_eq!((heard.load(Ordering::Relaxed), place_of(&registry)), (1, Some("here".into())));
    registry.locate(&store(), "there");
    assert_eq!((heard.load(Ordering::Relaxed), place_of(&registry)), (2, None), "nothing new goes to the old place");
    registry.close(&store(), None, "no".into());
    registry.close(&store(), None, "no".into());
    assert_eq!(heard.load(Ordering::Relaxed), 3);
    registry.close(&store(), None, "another reason".into());
    assert_eq!(heard.load(Ordering::Relaxed), 4, "those who wait are told why");
    registry.forget(&store());
    assert_eq!(heard.load(Ordering::Relaxed), 5);
}

fn opened() -> Opened {
    Opened { fingerprint: "f".into(), at: jiff::Timestamp::UNIX_EPOCH, outcome: Ok(()) }
}

fn trouble(trouble: Trouble) -> kratix_state_store::Error {
    let place = kratix_state_store::Place { store: "a".into(), url: "u".into(), branch: "main".into() };
    kratix_state_store::Error { place: Arc::new(place), trouble }
}

fn refused() -> WriteError {
    WriteError::Store(trouble(Trouble::Refused { branch: "main".into(), message: "frozen".into() }))
}

fn epoch(registry: &Registry) -> u64 {
    match registry.availability_at(&store(), "here".into()) {
        (Availability::Ready { epoch, .. }, Some(_)) => epoch,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_store_that_had_trouble_starts_a_new_epoch_and_another_address_is_not_written_to_the_old_one() {
    let cache = tempfile::tempdir().unwrap();
    let registry = Registry::new(cache.path().to_owned());
    let open = || {
        let config = kratix_state_store::GitConfig::new("a", cache.path().join("x.git").display().to_string());
        registry.set_open(&store(), kratix_state_store::open(config, cache.path()).unwrap(), "here".into());
        epoch(&registry)
    };
    let first = open();
    let writer = registry.writer(&store()).unwrap();
    assert_eq!(open(), first, "other credentials");
    registry.suspect(&store(), &writer, &WriteError::Store(trouble(Trouble::Unauthorized)));
    assert_eq!(open(), first, "the former ones are refused now");
    registry.suspect(&store(), &writer, &WriteError::Store(trouble(Trouble::NotFound)));
    let second = open();
    assert_ne!(second, first);
    registry.close(&store(), None, String::new());
    let third = open();
    assert_ne!(third, second);
    registry.forget(&store());
    let fourth = open();
    assert_ne!(fourth, third);
    let elsewhere = registry.availability_at(&store(), "there".into());
    assert!(matches!(elsewhere, (Availability::Opening { .. }, None)), "{elsewhere:?}");

    // Found to be well, the writer stays; what it has lost is not known, unless it has only refused.
    registry.note(&store(), opened());
    registry.suspect(&store(), &writer, &refused());
    let of_store = || registry.opened(&store());
    assert_eq!(of_store(), (Some(opened()), true, false));
    registry.clear(&store(), opened());
    assert_eq!(of_store(), (Some(opened()), false, true));
    assert_eq!(epoch(&registry), fourth);
    registry.suspect(&store(), &writer, &WriteError::Store(trouble(Trouble::NotFound)));
    registry.clear(&store(), opened());
    assert_ne!(epoch(&registry), fourth);
    registry.note(&store(), opened());
    assert_eq!(of_store(), (Some(opened()), false, false), "of a new writer nothing is known");
}

#[tokio::test]
async fn the_writer_of_a_previous_address_is_kept_for_as_long_as_something_is_there() {
    let cache = tempfile::tempdir().unwrap();
    let registry = Registry::new(cache.path().to_owned());
    let handle = || {
        let config = kratix_state_store::GitConfig::new("a", cache.path().join("x.git").display().to_string());
        kratix_state_store::open(config, cache.path()).unwrap()
    };
    let retired = || registry.retired.read().iter().map(|retired| retired.place.clone()).collect::<Vec<_>>();
    registry.locate(&store(), "1");
    registry.set_open(&store(), handle(), "1".into());
    registry.locate(&store(), "2");
    assert_eq!(retired(), ["1"]);
    registry.set_open(&store(), handle(), "2".into());
    registry.locate(&store(), "1");
    assert_eq!(retired(), ["2"], "a place that is present again is no former one");
    registry.set_open(&store(), handle(), "1".into());
    registry.locate(&store(), "3");
    registry.release(|_, place| place == "2");
    assert_eq!(retired(), ["2"]);
    for place in 4..4 + 2 * RETIRED_MAX {
        registry.set_open(&store(), handle(), place.to_string());
        registry.locate(&store(), "next");
    }
    assert_eq!(retired().len(), RETIRED_MAX);
    registry.forget(&store());
    assert!(retired().is_empty(), "with its object a store is forgotten altogether");
}

#[tokio::test]
async fn a_writer_that_is_replaced_tells_whoever_waits_for_it_at_once() {
    let cache = tempfile::tempdir().unwrap();
    // Takes connections and says nothing.
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/x.git", server.local_addr().unwrap());
    let open = || kratix_state_store::open(kratix_state_store::GitConfig::new("a", &url), cache.path()).unwrap();
    let registry = Arc::new(Registry::new(cache.path().to_owned()));
    let replace: [fn(&Registry, Handle); 4] = [
        |registry, handle| registry.set_open(&store(), handle, "here".into()),
        |registry, _| registry.locate(&store(), "there"),
        |registry, _| registry.close(&store(), None, "no".into()),
        |registry, _| registry.forget(&store()),
    ];
    for replace in replace {
        let handle = open();
        registry.set_open(&store(), handle.clone(), "here".into());
        let operation = Operation::Replace(Vec::new());
        let change = Change { id: "a".into(), kind: ChangeKind::Update, prefix: "a".into(), operation };
        let (waiting, writer) = (Arc::clone(&registry), handle.clone());
        let write =
            tokio::spawn(
                async move { waiting.write(&store(), &writer, change, String::new(), jiff::Timestamp::now).await },
            );
        let _connection = server.accept().await.unwrap();
        replace(&registry, open());
        assert_eq!(write.await.unwrap().map(|_| ()), Err(Replaced));
        assert_eq!(registry.pushes(&store()), Pushes::Unknown);
    }
    assert!(registry.retired.read().is_empty());
}

#[tokio::test]
async fn of_a_previous_address_there_is_a_writer_that_works() {
    let cache = tempfile::tempdir().unwrap();
    let path = cache.path().join("x.git");
    kratix_state_store::init_bare(&path, "main").unwrap();
    let registry = Registry::new(cache.path().to_owned());
    let config = kratix_state_store::GitConfig::new("a", path.display().to_string());
    registry.set_open(&store(), kratix_state_store::open(config, cache.path()).unwrap(), "here".into());
    let former = registry.writer(&store()).unwrap();
    registry.locate(&store(), "there");
    let retired = registry.retired.read()[0].handle.clone();
    assert!(former.check().await.is_err() && retired.check().await.is_ok());
    // Nobody gives up files because their writer has just been replaced.
    let store = serde_json::json!({ "kind": "GitStateStore", "name": "default" });
    let site = serde_json::json!({ "store": store, "place": "here", "directory": "a" });
    let site: Site = serde_json::from_value(site).unwrap();
    let change = || {
        let operation = Operation::Replace(Vec::new());
        Change { id: "a".into(), kind: ChangeKind::Delete, prefix: "a".into(), operation }
    };
    assert_eq!(registry.clean((&site, &former), None, change(), None).await, Err(Replaced));
    assert_eq!(registry.clean((&site, &retired), None, change(), None).await, Ok(Some(Cleaned::Removed)));
}

/// A server that hangs holds up nobody who has left it, and is asked once. What waits to be removed there is not removed any more
/// once it is where the files are to be.
#[tokio::test]
async fn a_former_site_that_does_not_answer_is_told_in_time_and_left_alone_once_it_is_present_again() {
    let cache = tempfile::tempdir().unwrap();
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/x.git", server.local_addr().unwrap());
    let open = || kratix_state_store::open(kratix_state_store::GitConfig::new("a", &url), cache.path()).unwrap();
    let registry = Registry::new(cache.path().to_owned());
    registry.set_open(&store(), open(), "here".into());
    registry.locate(&store(), "there");
    let retired = registry.retired.read()[0].handle.clone();
    let site = serde_json::json!({ "store": { "kind": "GitStateStore", "name": "default" }, "place": "here", "directory": "a" });
    let site: Site = serde_json::from_value(site).unwrap();
    let clean = || {
        let operation = Operation::Replace(Vec::new());
        let change = Change { id: "a".into(), kind: ChangeKind::Delete, prefix: "a".into(), operation };
        registry.clean((&site, &retired), None, change, Some(state_store::SILENCE))
    };
    let silent = Ok(Some(Cleaned::Failed(state_store::no_answer(&url))));
    assert_eq!(clean().await, silent);
    assert!(retired.silence().is_some(), "it is still being asked");
    assert_eq!(clean().await, silent);
    assert_eq!(retired.queued(), 0, "by one removal");
    registry.locate(&store(), "here");
    assert!(retired.check().await.is_err_and(|error| error.trouble == Trouble::Closed));
    assert_eq!(clean().await, Err(Replaced), "its successor is asked");
}

/// Nothing is told of a server that owes nothing.
#[tokio::test]
async fn a_removal_that_waits_for_its_push_has_no_outcome_yet() {
    let directory = tempfile::tempdir().unwrap();
    let repository = directory.path().join("x.git");
    kratix_state_store::init_bare(&repository, "main").unwrap();
    let mut config = kratix_state_store::GitConfig::new("a", repository.display().to_string());
    config.pushes_per_minute = std::num::NonZeroU32::new(1);
    let old = kratix_state_store::open(config, directory.path()).unwrap();
    let registry = Registry::new(directory.path().to_owned());
    let write = kratix_state_store::Change::replace("a", "a", vec![kratix_state_store::File::new("f", "x")]);
    old.write(write).await.unwrap();
    let site = serde_json::json!({ "store": store(), "place": "here", "directory": "a" });
    let site: Site = serde_json::from_value(site).unwrap();
    let operation = Operation::Replace(Vec::new());
    let change = Change { id: "a".into(), kind: ChangeKind::Delete, prefix: "a".into(), operation };
    let outcome = registry.clean((&site, &old), None, change, Some(std::time::Duration::from_millis(200))).await;
    assert_eq!(outcome, Ok(None));
    assert_eq!(old.queued(), 1, "it stays in the queue");
}

#[tokio::test]
async fn a_store_that_is_being_opened_is_not_ready_once_it_owes_an_answer() {
    let registry = Registry::new(PathBuf::new());
    registry.locate(&store(), "here");
    registry.tell_silence(&store(), "no answer".into());
    let found = registry.availability_at(&store(), "here".into()).0;
    assert_eq!(found, Availability::NotReady { place: "here".into(), cause: "no answer".into() });
    // After a failure, with other settings: what was true of the former ones is not told any more.
    registry.close(&store(), None, "wrong password".into());
    registry.tell_silence(&store(), "no answer".into());
    assert_eq!(registry.availability_at(&store(), "here".into()).0, found);
}

#[tokio::test]
async fn only_trouble_of_the_whole_store_raises_suspicion_and_once() {
    let cache = tempfile::tempdir().unwrap();
    let registry = Registry::new(cache.path().to_owned());
    let handle = || {
        let config = kratix_state_store::GitConfig::new("a", cache.path().join("x.git").display().to_string());
        kratix_state_store::open(config, cache.path()).unwrap()
    };
    let writer = handle();
    let heard = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&heard);
    registry.on_suspicion(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    registry.set_open(&store(), handle(), "here".into());
    registry.suspect(&store(), &writer, &WriteError::Store(trouble(Trouble::Unauthorized)));
    registry.set_open(&store(), writer.clone(), "here".into());
    registry.suspect(&store(), &writer, &WriteError::Ambiguous { path: "a".into() });
    registry.suspect(&store(), &writer, &WriteError::Refused(trouble(Trouble::NotFound)));
    assert_eq!(heard.load(Ordering::Relaxed), 0);
    registry.suspect(&store(), &writer, &WriteError::Store(trouble(Trouble::NotFound)));
    registry.suspect(&store(), &writer, &WriteError::Store(trouble(Trouble::NotFound)));
    assert_eq!(heard.load(Ordering::Relaxed), 1);
    // A store that is well and refuses what it is asked is checked once, until it has taken something.
    registry.note(&store(), opened());
    registry.suspect(&store(), &writer, &refused());
    assert_eq!(heard.load(Ordering::Relaxed), 2);
    registry.clear(&store(), opened());
    registry.suspect(&store(), &writer, &refused());
    assert_eq!(heard.load(Ordering::Relaxed), 2);
    assert!(matches!(registry.pushes(&store()), Pushes::Refused(message) if message.starts_with("failed to push: ")));
    // That it takes something again is said by its own pass, and so is the next refusal.
    registry.accepted(&store());
    registry.accepted(&store());
    assert_eq!((heard.load(Ordering::Relaxed), registry.pushes(&store())), (3, Pushes::Accepted));
    registry.suspect(&store(), &writer, &refused());
    assert_eq!(heard.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_repository_that_was_emptied_starts_a_new_epoch_with_the_write_that_finds_out() {
    let directory = tempfile::tempdir().unwrap();
    let repository = directory.path().join("x.git");
    let make = || kratix_state_store::init_bare(&repository, "main").unwrap();
    make();
    let registry = Registry::new(directory.path().join("cache"));
    let config = kratix_state_store::GitConfig::new("a", repository.display().to_string());
    let handle = kratix_state_store::open(config, directory.path()).unwrap();
    registry.set_open(&store(), handle.clone(), "here".into());
    let heard = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&heard);
    registry.on_change(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let write = async |name: &str| {
        let file = File { path: "f".into(), content: b"x".to_vec() };
        let operation = Operation::Replace(vec![file]);
        let change = Change { id: name.into(), kind: ChangeKind::Update, prefix: name.into(), operation };
        let written = registry.write(&store(), &handle, change, String::new(), jiff::Timestamp::now).await;
        let attempt = written.unwrap().attempt;
        assert!(attempt.outcome.is_ok(), "{attempt:?}");
        match registry.availability_at(&store(), "here".into()) {
            (Availability::Ready { epoch, .. }, Some(_)) => (epoch, heard.load(Ordering::Relaxed)),
            other => panic!("{other:?}"),
        }
    };
    let first = write("a").await;
    assert_eq!(write("b").await, first);
    std::fs::remove_dir_all(&repository).unwrap();
    make();
    let found_out = write("c").await;
    assert_ne!(found_out.0, first.0);
    assert_eq!(found_out.1, first.1 + 1);
    assert_eq!(write("d").await, found_out);
}

#[cfg(unix)]
#[tokio::test]
async fn a_store_refuses_for_as_long_as_somebody_asks_for_what_it_refuses() {
    let directory = tempfile::tempdir().unwrap();
    let repository = directory.path().join("x.git");
    kratix_state_store::init_bare(&repository, "main").unwrap();
    kratix_testing::hook::install(&repository, "pre-receive", "exit 1");
    let registry = Registry::new(directory.path().join("cache"));
    let config = kratix_state_store::GitConfig::new("a", repository.display().to_string());
    let handle = kratix_state_store::open(config, directory.path()).unwrap();
    registry.set_open(&store(), handle.clone(), "here".into());
    let write = async |id: &str, directory: &str, files: Vec<File>| {
        let operation = Operation::Replace(files);
        let change = Change { id: id.into(), kind: ChangeKind::Update, prefix: directory.into(), operation };
        registry.write(&store(), &handle, change, String::new(), jiff::Timestamp::now).await.unwrap().attempt.outcome
    };
    let file = || vec![File { path: "f".into(), content: b"x".to_vec() }];
    let is_refusing = || matches!(registry.pushes(&store()), Pushes::Refused(_));
    for (id, directory) in [("one", "d/one"), ("two", "d/two"), ("three", "e/three"), ("four", "e/four")] {
        write(id, directory, file()).await.unwrap_err();
    }
    let heard = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&heard);
    registry.on_suspicion(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    registry.withdraw_of("one");
    registry.withdraw_of("nobody");
    registry.withdraw_below(&store(), "e/thr");
    registry.withdraw_below(&store(), "e/three");
    assert!(is_refusing(), "two and four still wait");
    write("two", "d/two", Vec::new()).await.unwrap();
    assert!(is_refusing(), "four still waits");
    registry.withdraw_below(&store(), "e");
    assert_eq!((registry.pushes(&store()), heard.load(Ordering::Relaxed)), (Pushes::Withdrawn, 1));
    write("four", "e/four", file()).await.unwrap_err();
    assert!(is_refusing(), "it waits again");
    registry.withdraw_below(&store(), "");
    assert_eq!(registry.pushes(&store()), Pushes::Withdrawn);
}
