//! Directories that several owners share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use kratix_state_store::{BucketConfig, Change, File, WriteError, open_with};
use kratix_testing::s3::Fault;

use super::{BUCKET, Shelf, file, map, open_bucket, together};

fn share(owner: &str, files: Option<Vec<File>>) -> Change {
    Change::share(owner, "w", format!(".kratix/default-{owner}.yaml"), files)
}

fn files(names: &[&str]) -> Option<Vec<File>> {
    Some(names.iter().map(|name| file(name, name)).collect())
}

async fn ledger(shelf: &Shelf, owner: &str) -> String {
    let object = shelf.server.get(BUCKET, &format!("w/.kratix/default-{owner}.yaml")).await.expect("a ledger");
    String::from_utf8_lossy(&object.content).into_owned()
}

/// §14.18
#[tokio::test]
async fn owners_do_not_disturb_each_other_and_remove_exactly_their_own() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    shelf.server.put(BUCKET, "w/foreign", "f").await;
    store.write(share("a", files(&["one", "sub/two"]))).await.expect("written");
    store.write(share("b", files(&["three"]))).await.expect("written");
    assert_eq!(ledger(&shelf, "a").await, "files:\n- w/one\n- w/sub/two\n");
    let again = store.write(share("a", files(&["one", "sub/two"]))).await.expect("nothing to do");
    assert_eq!((again.changed, again.version), (false, None));
    store.write(share("a", files(&["sub/two", "four"]))).await.expect("written");
    assert_eq!(ledger(&shelf, "a").await, "files:\n- w/sub/two\n- w/four\n");
    let left = ["w/.kratix/default-a.yaml", "w/.kratix/default-b.yaml", "w/foreign", "w/four", "w/sub/two", "w/three"];
    assert_eq!(shelf.keys().await, left);
    store.write(share("a", None)).await.expect("removed");
    assert_eq!(shelf.keys().await, ["w/.kratix/default-b.yaml", "w/foreign", "w/three"]);
    let never = store.write(share("never", None)).await.expect("nothing to do");
    assert!(!never.changed, "weakness 15");
}

/// Decision 16, weakness 22
#[tokio::test]
async fn a_path_has_one_owner_in_one_batch_and_in_the_next() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    let owned = |path: &str, owner: &str| Err(WriteError::Owned { path: path.to_owned(), owner: owner.to_owned() });
    let outcomes = together(&store, vec![share("a", files(&["x", "y"])), share("b", files(&["z", "x"]))]).await;
    assert!(outcomes[0].is_ok());
    assert_eq!(outcomes[1], owned("w/x", "default-a"));
    assert_eq!(shelf.keys().await, ["w/.kratix/default-a.yaml", "w/x", "w/y"]);
    assert_eq!(store.write(share("b", files(&["x"]))).await, owned("w/x", "default-a"));
    assert_eq!(shelf.store().write(share("b", files(&["x"]))).await, owned("w/x", "default-a"));

    // Given up by one, taken by the other: in that order.
    let b = Some(vec![file("x", "b's"), file("z", "z")]);
    let outcomes = together(&store, vec![share("a", files(&["y", "more"])), share("b", b)]).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(shelf.server.get(BUCKET, "w/x").await.expect("there").content, "b's");
    // In the other order as well.
    let outcomes = together(&store, vec![share("a", files(&["x", "y"])), share("b", files(&["z"]))]).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(store.write(share("b", files(&["x"]))).await, owned("w/x", "default-a"));
    let forged = store.write(share("b", files(&[".kratix/default-a.yaml"]))).await;
    assert!(matches!(forged, Err(WriteError::Owned { .. })), "{forged:?}");
}

#[tokio::test]
async fn a_path_that_passes_from_owner_to_owner_is_never_missing_and_always_in_a_ledger() {
    for order in [["a", "b", "c"], ["a", "c", "b"], ["b", "a", "c"], ["b", "c", "a"], ["c", "a", "b"], ["c", "b", "a"]]
    {
        for goes in [false, true] {
            let Some(shelf) = Shelf::new().await else { return };
            let store = shelf.store();
            store.write(share("a", files(&["x", "stays"]))).await.expect("written");
            store.write(share("b", files(&["y"]))).await.expect("written");
            shelf.requests();
            // The one takes over what another one gives up, who takes over what a third one gives up.
            let change = |owner: &str| match owner {
                "a" if goes => share("a", None),
                "a" => share("a", files(&["stays"])),
                "b" => share("b", files(&["x"])),
                _ => share("c", files(&["y"])),
            };
            let outcomes = together(&store, order.map(change).into()).await;
            assert!(outcomes.iter().all(|done| done.as_ref().is_ok_and(|done| done.changed)), "{order:?} {outcomes:?}");
            let requests = shelf.requests();
            let at = |start: &str| requests.iter().position(|request| request.starts_with(start));
            let last = |start: &str| requests.iter().rposition(|request| request.starts_with(start));
            assert!(at("DELETE /state/w/x").is_none() && at("DELETE /state/w/y").is_none(), "{order:?} {requests:?}");
            let [a, b, c] = ["a", "b", "c"].map(|owner| format!("/state/w/.kratix/default-{owner}.yaml"));
            let given_up = last(&if goes { format!("DELETE {a}") } else { format!("PUT {a}") });
            assert!(at(&format!("PUT {b}")) < given_up, "{order:?} {requests:?}");
            assert!(at(&format!("PUT {c}")) < last(&format!("PUT {b}")), "{order:?} {requests:?}");
            let stays = if goes { &["w/x", "w/y"][..] } else { &["w/stays", "w/x", "w/y"] };
            let keys = shelf.keys().await.into_iter().filter(|key| !key.contains(".kratix")).collect::<Vec<_>>();
            assert_eq!(keys, stays, "{order:?}");
            assert_eq!(
                (ledger(&shelf, "b").await, ledger(&shelf, "c").await),
                ("files:\n- w/x\n".into(), "files:\n- w/y\n".into())
            );
            let imprints = outcomes.into_iter().flatten().map(|done| done.imprint).collect();
            assert_eq!(store.verify(imprints).await, Ok(vec![true; 3]), "{order:?}");
        }
    }
}

/// Whoever gives a path up to one whose write fails removes it, or leaves it where that one has it in its ledger.
#[tokio::test]
async fn a_path_whose_new_owner_cannot_be_written_is_nobodys_only_once_it_is_gone() {
    for refused in ["PUT /state/w/.kratix/default-b.yaml", "PUT /state/w/x"] {
        let Some(shelf) = Shelf::new().await else { return };
        let store = shelf.store();
        store.write(share("a", files(&["x", "stays"]))).await.expect("written");
        shelf.server.intercept(move |request| request.starts_with(refused).then_some(Fault::Answer(400, "Crashed")));
        let outcomes = together(&store, vec![share("b", files(&["x"])), share("a", files(&["stays"]))]).await;
        assert!(outcomes[0].is_err() && outcomes[1].is_ok(), "{outcomes:?}");
        shelf.server.relent();
        let keys = shelf.keys().await;
        let is_listed = keys.contains(&"w/.kratix/default-b.yaml".to_owned());
        assert_eq!(keys.contains(&"w/x".to_owned()), is_listed, "{refused}: {keys:?}");
        store.write(share("b", None)).await.expect("removed");
        assert_eq!(shelf.keys().await, ["w/.kratix/default-a.yaml", "w/stays"], "{refused}");
    }
}

#[tokio::test]
async fn a_path_taken_from_an_owner_who_is_leaving_stays_when_that_one_goes_in_the_same_batch_or_later() {
    for orders in [&[&["b", "left"][..]][..], &[&["left", "b"]], &[&["b"], &["left"]]] {
        let Some(shelf) = Shelf::new().await else { return };
        shelf.store().write(share("left", files(&["one", "two"]))).await.expect("written");
        let lives = Arc::new(|owner: &str| owner != "default-left");
        let store = open_with(shelf.config(), "unused", lives).expect("usable");
        shelf.requests();
        for order in orders {
            let change = |owner: &&str| if *owner == "b" { share("b", files(&["one"])) } else { share("left", None) };
            let outcomes = together(&store, order.iter().map(change).collect()).await;
            assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        }
        let requests = shelf.requests();
        assert!(!requests.iter().any(|request| request.starts_with("DELETE /state/w/one")), "{requests:?}");
        assert_eq!(shelf.keys().await, ["w/.kratix/default-b.yaml", "w/one"], "{orders:?}");
    }
}

/// Each on its own, they would be in each other's way.
#[tokio::test]
async fn many_who_take_paths_of_one_owner_who_is_leaving_take_them_out_of_its_ledger_at_once() {
    let names: Vec<String> = (0..30).map(|n| format!("path-{n:02}")).collect();
    let heirs = || names.iter().map(|name| share(&format!("of-{name}"), files(&[name]))).collect::<Vec<_>>();
    let is_of_left = |request: &&String| request.contains("/default-left.yaml");
    for leaves in [None, Some(0), Some(30)] {
        let Some(shelf) = Shelf::new().await else { return };
        let all: Vec<&str> = names.iter().map(String::as_str).chain(["rest"]).collect();
        shelf.store().write(share("left", files(&all))).await.expect("written");
        let lives = Arc::new(|owner: &str| owner != "default-left");
        let store = open_with(shelf.config(), "unused", lives).expect("usable");
        shelf.requests();
        let mut changes = heirs();
        if let Some(at) = leaves {
            changes.insert(at, share("left", None));
        }
        let outcomes = together(&store, changes).await;
        assert!(outcomes.iter().all(Result::is_ok), "{leaves:?} {outcomes:?}");
        let requests = shelf.requests();
        let removed: Vec<&String> = requests.iter().filter(|request| request.starts_with("DELETE")).collect();
        let mut expected: Vec<String> = names.iter().map(|name| format!("w/.kratix/default-of-{name}.yaml")).collect();
        expected.extend(names.iter().map(|name| format!("w/{name}")));
        if leaves.is_some() {
            assert_eq!(removed.len(), 2, "the rest and the ledger: {removed:?}");
        } else {
            expected.extend(["w/.kratix/default-left.yaml".to_owned(), "w/rest".to_owned()]);
            assert!(removed.is_empty(), "{removed:?}");
            assert_eq!(ledger(&shelf, "left").await, "files:\n- w/rest\n");
            let altered = requests.iter().filter(is_of_left).filter(|request| request.starts_with("PUT")).count();
            assert_eq!(altered, 1, "{requests:?}");
        }
        expected.sort();
        assert_eq!(shelf.keys().await, expected, "{leaves:?}");
    }
}

/// A ledger lists what it is about to have before the other one loses it.
#[tokio::test]
async fn a_path_that_was_not_taken_out_of_the_ledger_of_who_is_gone_is_taken_out_by_the_next_attempt() {
    let Some(shelf) = Shelf::new().await else { return };
    shelf.store().write(share("left", files(&["one", "two"]))).await.expect("written");
    let lives = Arc::new(|owner: &str| owner != "default-left");
    let store = open_with(shelf.config(), "unused", lives).expect("usable");
    let is_of_left = |request: &str| request.starts_with("PUT /state/w/.kratix/default-left.yaml");
    shelf.server.intercept(move |request| is_of_left(request).then_some(Fault::Answer(400, "Crashed")));
    let heirs = || [("b", "one"), ("c", "new")].map(|(owner, name)| share(owner, Some(vec![file(name, owner)]))).into();
    let outcomes = together(&store, heirs()).await;
    assert!(outcomes[0].is_err() && outcomes[1].is_ok(), "{outcomes:?}");
    assert_eq!(shelf.server.get(BUCKET, "w/one").await.expect("there").content, "one", "not taken yet");
    assert_eq!(ledger(&shelf, "b").await, "files:\n- w/one\n");
    shelf.server.relent();
    assert!(together(&store, heirs()).await.iter().all(Result::is_ok));
    assert_eq!(shelf.server.get(BUCKET, "w/one").await.expect("there").content, "b");
    assert_eq!(ledger(&shelf, "left").await, "files:\n- w/two\n");
}

#[tokio::test]
async fn a_path_whose_heir_cannot_list_it_stays_in_the_ledger_of_who_is_gone_when_others_take_theirs() {
    let Some(shelf) = Shelf::new().await else { return };
    shelf.store().write(share("left", files(&["one", "two", "three"]))).await.expect("written");
    let lives = Arc::new(|owner: &str| owner != "default-left");
    let store = open_with(shelf.config(), "unused", lives).expect("usable");
    let is_of_b = |request: &str| request.starts_with("PUT /state/w/.kratix/default-b.yaml");
    shelf.server.intercept(move |request| is_of_b(request).then_some(Fault::Answer(400, "Crashed")));
    let outcomes = together(&store, vec![share("b", files(&["one"])), share("c", files(&["two"]))]).await;
    assert!(outcomes[0].is_err() && outcomes[1].is_ok(), "{outcomes:?}");
    assert_eq!(ledger(&shelf, "left").await, "files:\n- w/one\n- w/three\n");
}

#[tokio::test]
async fn many_owners_of_one_directory_share_one_listing_and_are_written_at_once() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    store.check().await.expect("usable");
    shelf.requests();
    let all = || (0..200).map(|n| share(&n.to_string(), Some(vec![file(&n.to_string(), "x")]))).collect::<Vec<_>>();
    assert!(together(&store, all()).await.iter().all(Result::is_ok));
    assert_eq!(shelf.keys().await.len(), 400);
    let methods = shelf.methods();
    assert!(methods["LIST"] <= 4, "{methods:?}");
    assert_eq!((methods["PUT"], methods["GET"]), (400, 200));
    let again = together(&store, all()).await;
    assert!(again.iter().all(|outcome| outcome.as_ref().is_ok_and(|written| !written.changed)));
    let methods = shelf.methods();
    assert_eq!(
        (methods.get("PUT"), methods["GET"]),
        (None, 200),
        "what this store wrote it need not read: {methods:?}"
    );
}

#[tokio::test]
async fn what_owners_who_are_gone_have_left_can_be_taken() {
    let Some(shelf) = Shelf::new().await else { return };
    shelf.store().write(share("left", files(&["one", "two"]))).await.expect("written");
    let gone = Arc::new(AtomicBool::new(true));
    let is_gone = Arc::clone(&gone);
    let lives = Arc::new(move |owner: &str| owner != "default-left" || !is_gone.load(Ordering::Relaxed));
    let store = open_with(shelf.config(), "unused", lives).expect("usable");
    store.write(share("b", files(&["one"]))).await.expect("taken");
    assert_eq!(ledger(&shelf, "left").await, "files:\n- w/two\n");
    gone.store(false, Ordering::Relaxed);
    let back = store.write(share("left", files(&["one", "two"]))).await;
    assert_eq!(back, Err(WriteError::Owned { path: "w/one".to_owned(), owner: "default-b".to_owned() }));
    gone.store(true, Ordering::Relaxed);
    store.write(share("c", files(&["two"]))).await.expect("taken");
    assert!(!shelf.keys().await.contains(&"w/.kratix/default-left.yaml".to_owned()));
}

#[tokio::test]
async fn a_ledger_that_cannot_be_understood_stops_its_owner_only() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    shelf.server.put(BUCKET, "w/.kratix/default-a.yaml", "files: {").await;
    let outcomes = together(&store, vec![share("a", files(&["x"])), share("b", files(&["y"]))]).await;
    assert!(matches!(&outcomes[0], Err(WriteError::Ledger { path, .. }) if path == "w/.kratix/default-a.yaml"));
    assert!(outcomes[1].is_ok());
    assert!(matches!(store.write(share("a", None)).await, Err(WriteError::Ledger { .. })));
}

#[tokio::test]
async fn entries_of_older_versions_and_of_other_roots_are_understood() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    let text = "files:\n- w/new\n- old\n- ../../escape\n";
    for (key, content) in [("w/.kratix/default-a.yaml", text), ("w/new", "n"), ("w/old", "o"), ("escape", "e")] {
        shelf.server.put(BUCKET, key, content).await;
    }
    store.write(share("a", files(&["next"]))).await.expect("written");
    assert_eq!(shelf.keys().await, ["escape", "w/.kratix/default-a.yaml", "w/next"]);
    assert_eq!(ledger(&shelf, "a").await, "files:\n- w/next\n");
}

#[tokio::test]
async fn a_crash_in_the_middle_leaves_nothing_that_no_ledger_lists() {
    let Some(shelf) = Shelf::new().await else { return };
    let before = ["a", "b", "c"];
    let after = ["b", "d", "e"];
    let listed = async |shelf: &Shelf| -> BTreeSet<String> {
        match shelf.server.get(BUCKET, "w/.kratix/default-o.yaml").await {
            None => BTreeSet::new(),
            Some(object) => {
                let text = String::from_utf8_lossy(&object.content).into_owned();
                text.lines().filter_map(|line| line.strip_prefix("- ")).map(str::to_owned).collect()
            }
        }
    };
    // The first so many requests that write or remove arrive, and then the process is gone.
    for survivors in 0..7 {
        shelf.server.relent();
        let store = shelf.store();
        store.write(share("o", files(&before))).await.expect("written");
        let count = AtomicUsize::new(0);
        shelf.server.intercept(move |request| {
            let alters = request.starts_with("PUT") || request.starts_with("DELETE");
            let is_late = alters && count.fetch_add(1, Ordering::Relaxed) >= survivors;
            is_late.then_some(Fault::Answer(400, "Crashed"))
        });
        let crashed = store.write(share("o", files(&after))).await;
        assert_eq!(crashed.is_ok(), survivors == 6, "{survivors}: {crashed:?}");
        let there: BTreeSet<String> = shelf.keys().await.into_iter().filter(|key| !key.contains(".kratix")).collect();
        let listed = listed(&shelf).await;
        assert!(there.is_subset(&listed), "{survivors}: {there:?} {listed:?}");
        shelf.server.relent();
        shelf.store().write(share("o", files(&after))).await.expect("written");
        assert_eq!(ledger(&shelf, "o").await, "files:\n- w/b\n- w/d\n- w/e\n");
        assert_eq!(shelf.keys().await, ["w/.kratix/default-o.yaml", "w/b", "w/d", "w/e"]);
    }
}

#[tokio::test]
async fn two_writers_of_one_ledger_do_not_lose_what_the_other_wrote() {
    let Some(shelf) = Shelf::new().await else { return };
    let stores = [shelf.store(), shelf.store()];
    for round in 0..15 {
        let change = |who: usize| share("o", Some((0..3).map(|n| file(&format!("{who}-{round}-{n}"), "x")).collect()));
        let (one, other) = tokio::join!(stores[0].write(change(0)), stores[1].write(change(1)));
        one.expect("written");
        other.expect("written");
        let ledger = ledger(&shelf, "o").await;
        let there: Vec<String> = shelf.keys().await.into_iter().filter(|key| !key.contains(".kratix")).collect();
        for key in &there {
            assert!(ledger.contains(&format!("- {key}\n")), "round {round}: {key} is in no ledger:\n{ledger}");
        }
    }
    // Whoever writes next finds everything.
    stores[0].write(share("o", files(&["last"]))).await.expect("written");
    assert_eq!(shelf.files().await, map(&[("w/.kratix/default-o.yaml", "files:\n- w/last\n"), ("w/last", "last")]));
}

/// Holds up the first request that `is_meant` until the test says that it goes on, and tells when it has come.
fn hold(
    shelf: &Shelf,
    is_meant: impl Fn(&str) -> bool + Send + Sync + 'static,
) -> (tokio::sync::oneshot::Receiver<()>, std::sync::mpsc::Sender<()>) {
    let (reached, is_reached) = tokio::sync::oneshot::channel();
    let (go, may_go) = std::sync::mpsc::channel::<()>();
    let held = Mutex::new(Some((reached, may_go)));
    shelf.server.intercept(move |request| {
        let held = is_meant(request).then(|| held.lock().expect("sound").take()).flatten();
        if let Some((reached, may_go)) = held {
            reached.send(()).expect("the test waits");
            tokio::task::block_in_place(|| may_go.recv()).expect("the test goes on");
        }
        None
    });
    (is_reached, go)
}

/// The second of two writers looks for the files that the ledger lists before the first has written them.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_comes_after_another_writer_has_replaced_the_ledger_is_in_no_ledger_for_a_moment_only() {
    let Some(shelf) = Shelf::new().await else { return };
    let (slow, fast) = (shelf.store(), shelf.store());
    let (is_reached, go) = hold(&shelf, |request| request.starts_with("PUT /state/w/slow"));
    let writing = tokio::spawn(async move { slow.write(share("o", files(&["slow"]))).await });
    is_reached.await.expect("it is about to be written");
    fast.write(share("o", files(&["fast"]))).await.expect("written");
    go.send(()).expect("it waits");
    writing.await.expect("no panic").expect("written");
    assert_eq!(shelf.keys().await, ["w/.kratix/default-o.yaml", "w/slow"]);
    assert_eq!(ledger(&shelf, "o").await, "files:\n- w/slow\n", "the last one wins");
}

/// Returns what is there after a writer of two files has waited in the middle of its change until another one was done with its own.
async fn meanwhile(
    is_meant: impl Fn(&str) -> bool + Send + Sync + 'static,
    first: Option<Vec<File>>,
    second: Option<Vec<File>>,
) -> Option<BTreeMap<String, String>> {
    let shelf = Shelf::new().await?;
    let (slow, fast) = (shelf.store(), shelf.store());
    slow.write(share("o", files(&["one", "two"]))).await.expect("written");
    let (is_reached, go) = hold(&shelf, is_meant);
    let writing = tokio::spawn(async move { slow.write(share("o", first)).await });
    is_reached.await.expect("it is in the middle");
    fast.write(share("o", second)).await.expect("written");
    go.send(()).expect("it waits");
    writing.await.expect("no panic").expect("written");
    Some(shelf.files().await)
}

/// A file that only changes is in the ledger already, and the other writer removes it at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_one_writer_changes_and_another_one_removes_is_in_a_ledger_if_it_is_there() {
    let changed = || Some(vec![file("one", "one"), file("two", "changed")]);
    let about_to_change = |request: &str| request.starts_with("PUT /state/w/two");
    let Some(left) = meanwhile(about_to_change, changed(), files(&["one"])).await else { return };
    let ledger = ("w/.kratix/default-o.yaml", "files:\n- w/one\n- w/two\n");
    assert_eq!(left, map(&[ledger, ("w/one", "one"), ("w/two", "changed")]), "the last one wins");

    let has_removed = AtomicBool::new(false);
    let about_to_finish = move |request: &str| {
        let had_removed = has_removed.fetch_or(request.starts_with("DELETE /state/w/two"), Ordering::Relaxed);
        had_removed && request.starts_with("PUT /state/w/.kratix/")
    };
    let left = meanwhile(about_to_finish, files(&["one"]), changed()).await;
    let ledger = ("w/.kratix/default-o.yaml", "files:\n- w/one\n");
    assert_eq!(left, Some(map(&[ledger, ("w/one", "one")])), "the last one wins");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_while_another_writer_removes_all_is_not_left_without_a_ledger() {
    let Some(shelf) = Shelf::new().await else { return };
    let (slow, fast) = (shelf.store(), shelf.store());
    slow.write(share("o", files(&["one"]))).await.expect("written");
    let (is_reached, go) = hold(&shelf, |request| request.starts_with("DELETE /state/w/one"));
    let removing = tokio::spawn(async move { slow.write(share("o", None)).await });
    is_reached.await.expect("it is about to be removed");
    fast.write(share("o", files(&["one", "two"]))).await.expect("written");
    go.send(()).expect("it waits");
    let removed = removing.await.expect("no panic").expect("removed");
    assert_eq!((removed.changed, removed.version), (true, None));
    assert_eq!(shelf.keys().await, [""; 0], "the last one wins");
}

/// An owner of two files that gives up one: what it reads of its ledger is what the original reads.
#[tokio::test]
async fn while_files_are_removed_the_ledger_lists_them_and_what_stays() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    let refuse_removals = || {
        shelf.server.intercept(|request| request.starts_with("DELETE").then_some(Fault::Answer(400, "Crashed")));
    };
    for (stays, listed) in
        [(&["two"][..], "files:\n- w/two\n- w/one\n"), (&["one"], "files:\n- w/one\n- w/two\n- w/two\n")]
    {
        store.write(share("o", files(&["one", "two"]))).await.expect("written");
        refuse_removals();
        store.write(share("o", files(stays))).await.expect_err("refused");
        assert_eq!(ledger(&shelf, "o").await, listed);
        shelf.server.relent();
        store.write(share("o", files(stays))).await.expect("written");
        assert_eq!(ledger(&shelf, "o").await, format!("files:\n- w/{}\n", stays[0]));
        assert_eq!(shelf.keys().await.len(), 2);
    }
}

/// An entry in the words of the store above could name what is written now, and names what is removed.
#[tokio::test]
async fn while_files_of_another_root_are_removed_the_ledger_lists_them_too() {
    let Some(shelf) = Shelf::new().await else { return };
    let below = open_bucket(BucketConfig { path: "w".into(), ..shelf.config() });
    let at =
        |prefix: &str, name: &str| Change::share("o", prefix, ".kratix/default-o.yaml", Some(vec![file(name, name)]));
    let listed = async || {
        let object = shelf.server.get(BUCKET, "w/d/.kratix/default-o.yaml").await.expect("a ledger");
        String::from_utf8_lossy(&object.content).into_owned()
    };
    below.write(at("d", "x")).await.expect("written");
    shelf.server.intercept(|request| request.starts_with("DELETE").then_some(Fault::Answer(400, "Crashed")));
    shelf.store().write(at("w/d", "d/x")).await.expect_err("refused");
    assert_eq!(listed().await, "files:\n- w/d/d/x\n- d/x\n");
    shelf.server.relent();
    shelf.store().write(at("w/d", "d/x")).await.expect("written");
    assert_eq!(listed().await, "files:\n- w/d/d/x\n");
    assert_eq!(shelf.keys().await, ["w/d/.kratix/default-o.yaml", "w/d/d/x"]);
}

/// The request is repeated, and meets what it has written itself.
#[tokio::test]
async fn what_was_written_under_a_condition_and_not_answered_counts_as_written() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    let lose_the_next_answer = || {
        let is_lost = AtomicBool::new(false);
        shelf.server.intercept(move |request| {
            let is_conditional = request.starts_with("PUT") && request.ends_with(" if");
            (is_conditional && !is_lost.swap(true, Ordering::Relaxed)).then_some(Fault::BreakAfter)
        });
    };
    for (names, is_left) in [(&["one", "two"][..], &["w/one", "w/two"][..]), (&["one"], &["w/one"])] {
        lose_the_next_answer();
        let written = store.write(share("a", files(names))).await.expect("written");
        assert!(written.changed && written.version.is_some(), "{names:?}: {written:?}");
        assert_eq!(shelf.keys().await, [&["w/.kratix/default-a.yaml"], is_left].concat());
        // Nothing is left to be done, and what was learnt of the ledger is true.
        let again = store.write(share("a", files(names))).await.expect("nothing to do");
        assert!(!again.changed, "{names:?}: {again:?}");
        assert_eq!(store.verify(vec![written.imprint]).await, Ok(vec![true]));
    }
}

#[tokio::test]
async fn a_server_without_conditions_is_written_without_them() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    shelf.server.intercept(|request| request.ends_with(" if").then_some(Fault::Answer(501, "NotImplemented")));
    store.write(share("a", files(&["x"]))).await.expect("written");
    store.write(share("a", files(&["y"]))).await.expect("written");
    let conditional = shelf.requests().iter().filter(|request| request.ends_with(" if")).count();
    assert_eq!(conditional, 1, "it is asked once");
    assert_eq!(shelf.keys().await, ["w/.kratix/default-a.yaml", "w/y"]);
}
