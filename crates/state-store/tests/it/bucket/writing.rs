//! What is written, and with how many requests.

use std::sync::{Arc, Condvar, Mutex};

use kratix_state_store::{BucketConfig, Change, Trouble, WriteError};
use kratix_testing::s3::{Fault, Options};
use kratix_testing::wait;
use sha2::{Digest, Sha256};

use super::{BUCKET, Shelf, file, map, open_bucket, replace, together};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn methods(expected: &[(&str, usize)]) -> std::collections::BTreeMap<String, usize> {
    expected.iter().map(|(method, count)| ((*method).to_owned(), *count)).collect()
}

#[tokio::test]
async fn a_directory_holds_what_was_asked_for_and_nothing_else_of_the_bucket_is_touched() {
    let Some(shelf) = Shelf::new().await else { return };
    for key in ["foreign", "s/w/res-x/a", "s/w/re/a", "s/w/other/x", "w/res/a"] {
        shelf.server.put(BUCKET, key, "foreign").await;
    }
    let before = shelf.files().await;
    let store = open_bucket(BucketConfig { path: "/s/".to_owned(), ..shelf.config() });
    let files = [("a.yaml", "a"), ("sub/b.yaml", "b"), ("sub/ü #%?+.yaml", "odd")];
    let written = store.write(replace("p", "w/res", &files)).await.expect("written");
    assert!(written.changed);
    let mut expected = before.clone();
    expected.extend(map(&[("s/w/res/a.yaml", "a"), ("s/w/res/sub/b.yaml", "b"), ("s/w/res/sub/ü #%?+.yaml", "odd")]));
    assert_eq!(shelf.files().await, expected);

    let object = shelf.server.get(BUCKET, "s/w/res/a.yaml").await.expect("there");
    assert_eq!(object.headers["content-type"], "application/octet-stream");
    assert_eq!(object.headers["x-amz-meta-kratix-sha256"], hex(&Sha256::digest("a")).as_str());

    // Renamed, changed and dropped.
    store.write(replace("p", "w/res", &[("a.yaml", "A"), ("c.yaml", "b")])).await.expect("written");
    let mut expected = before.clone();
    expected.extend(map(&[("s/w/res/a.yaml", "A"), ("s/w/res/c.yaml", "b")]));
    assert_eq!(shelf.files().await, expected);
    store.write(Change::remove("p", "w/res")).await.expect("removed");
    assert_eq!(shelf.files().await, before);
    assert!(!store.write(Change::remove("p", "w/res")).await.expect("nothing to do").changed);
}

#[tokio::test]
async fn what_is_equal_costs_one_listing_and_gives_no_version() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    let files = [("a", "a"), ("b/c", "c"), ("empty", "")];
    store.write(replace("p", "d", &files)).await.expect("written");
    assert_eq!(shelf.methods(), methods(&[("LIST", 1), ("PUT", 3)]));
    for store in [&store, &shelf.store()] {
        let again = store.write(replace("p", "d", &files)).await.expect("nothing to do");
        assert_eq!((again.changed, again.version), (false, None));
        assert_eq!(shelf.methods(), methods(&[("LIST", 1)]));
    }
    store.write(replace("p", "d", &[("a", "a"), ("b/c", "another"), ("empty", "")])).await.expect("written");
    assert_eq!(shelf.methods(), methods(&[("LIST", 1), ("PUT", 1)]));
}

/// Weakness 44
#[tokio::test]
async fn a_server_whose_tags_say_nothing_about_contents_is_asked_for_the_digest() {
    let Some(shelf) = Shelf::with(Options { opaque_tags: true, ..Options::default() }).await else { return };
    let store = shelf.store();
    let files = [("a", "one"), ("b", "two")];
    store.write(replace("p", "d", &files)).await.expect("written");
    let tag = shelf.server.get(BUCKET, "d/a").await.expect("there").headers["etag"].to_str().expect("text").to_owned();
    assert_ne!(tag.trim_matches('"'), "f97c5d29941bfb1b2fdab0874906ab82", "this server's tags are MD5 sums");
    shelf.requests();
    let again = store.write(replace("p", "d", &files)).await.expect("nothing to do");
    assert_eq!((again.changed, again.version), (false, None));
    assert_eq!(shelf.methods(), methods(&[("HEAD", 2), ("LIST", 1)]));
    // Somebody else's object carries no digest, and one of another size needs none.
    shelf.server.put(BUCKET, "d/a", "odd").await;
    shelf.server.put(BUCKET, "d/b", "longer").await;
    store.write(replace("p", "d", &files)).await.expect("written");
    assert_eq!(shelf.methods(), methods(&[("HEAD", 1), ("LIST", 1), ("PUT", 2)]));
    assert_eq!(shelf.files().await, map(&[("d/a", "one"), ("d/b", "two")]));
}

/// Weakness 42
#[tokio::test]
async fn no_key_begins_with_a_slash() {
    let Some(shelf) = Shelf::new().await else { return };
    for (path, prefix) in [("", "/"), ("/", ""), ("/", "."), ("", "./"), ("///", "//")] {
        let store = open_bucket(BucketConfig { path: path.to_owned(), ..shelf.config() });
        let change = Change::edit("p", prefix, vec![file("a", "a"), file("./b//c", "c")], Vec::new());
        store.write(change).await.unwrap_or_else(|error| panic!("{path:?} {prefix:?}: {error}"));
        assert_eq!(shelf.keys().await, ["a", "b/c"], "{path:?} {prefix:?}");
        assert!(shelf.requests().iter().all(|request| !request.contains("/state//")), "{path:?} {prefix:?}");
    }
}

/// Weakness 43
#[tokio::test]
async fn a_sibling_whose_name_begins_alike_stays() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    store.write(replace("a", "d/5058f", &[("x", "x")])).await.expect("written");
    store.write(replace("b", "d/5058f-x", &[("x", "x")])).await.expect("written");
    store.write(Change::remove("a", "d/5058f")).await.expect("removed");
    assert_eq!(shelf.keys().await, ["d/5058f-x/x"]);
}

/// §10.3
#[tokio::test]
async fn the_version_is_a_chain_over_the_versions_of_what_was_written() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    let version = |id: &str| hex(&Sha256::digest(id));
    let one = store.write(replace("p", "d", &[("a", "a")])).await.expect("written");
    assert_eq!(one.version.map(|version| version.to_string()), Some(version("")));
    let removed = store.write(Change::remove("p", "d")).await.expect("removed");
    assert_eq!((removed.changed, removed.version), (true, None));

    shelf.server.keep_versions(BUCKET).await;
    // Not in the order of keys.
    let files = [("z", "1"), ("a", "2"), ("m", "3")];
    let three = store.write(replace("p", "d", &files)).await.expect("written");
    let mut id = String::new();
    for (path, _) in files {
        let object = shelf.server.get(BUCKET, &format!("d/{path}")).await.expect("there");
        let own = object.headers["x-amz-version-id"].to_str().expect("text");
        assert!(!own.is_empty() && own != "null");
        id = version(&format!("{id}{own}"));
    }
    assert_eq!(three.version.map(|version| version.to_string()), Some(id));
}

#[tokio::test]
async fn a_renamed_file_is_never_missing_in_between() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    store.write(replace("p", "d", &[("old", "x")])).await.expect("written");
    shelf.requests();
    store.write(replace("p", "d", &[("new", "x")])).await.expect("written");
    let requests = shelf.requests();
    assert!(
        requests[1].starts_with("PUT /state/d/new") && requests[2].starts_with("DELETE /state/d/old"),
        "{requests:?}"
    );
}

#[tokio::test]
async fn single_files_and_directories_are_written_and_removed_by_name() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    for key in ["d/dir/x", "d/dir/y/z", "d/dir-x", "d/file", "d/both/b"] {
        shelf.server.put(BUCKET, key, "old").await;
    }
    let remove = ["dir", "file", "none", "both"].map(str::to_owned).to_vec();
    let change = Change::edit("p", "d", vec![file("new", "n"), file("both/a", "a"), file("file", "new")], remove);
    assert!(store.write(change.clone()).await.expect("written").changed);
    let expected = map(&[("d/both/a", "a"), ("d/dir-x", "old"), ("d/file", "new"), ("d/new", "n")]);
    assert_eq!(shelf.files().await, expected);
    let again = store.write(change).await.expect("nothing to do");
    assert_eq!((again.changed, again.version), (false, None));
}

#[tokio::test]
async fn markers_of_directories_are_no_files() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    shelf.server.put(BUCKET, "d/", "").await;
    shelf.server.put(BUCKET, "d/sub/", "").await;
    store.write(replace("p", "d", &[("a", "a"), ("empty", "")])).await.expect("written");
    let again = store.write(replace("p", "d", &[("a", "a"), ("empty", "")])).await.expect("nothing to do");
    assert!(!again.changed);
    assert_eq!(store.verify(vec![again.imprint]).await, Ok(vec![true]));
    assert!(store.write(replace("p", "d", &[("a", "a")])).await.expect("written").changed);
    assert!(shelf.keys().await.contains(&"d/sub/".to_owned()), "it is somebody else's");
    assert!(!shelf.keys().await.contains(&"d/empty".to_owned()));
}

#[tokio::test]
async fn a_thousand_small_files_are_written_compared_and_removed() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    let files = || (0..1003).map(|n| file(&format!("{}/{n}.yaml", n % 7), &format!("n: {n}\n"))).collect::<Vec<_>>();
    assert!(store.write(Change::replace("p", "d", files())).await.expect("written").changed);
    assert_eq!(shelf.keys().await.len(), 1003);
    shelf.requests();
    assert!(!store.write(Change::replace("p", "d", files())).await.expect("nothing to do").changed);
    assert_eq!(shelf.methods(), methods(&[("LIST", 2)]));
    assert!(store.write(Change::remove("p", "d")).await.expect("removed").changed);
    assert_eq!(shelf.keys().await, [""; 0]);
}

/// What has come to a server that keeps answers back.
#[derive(Default)]
struct Come {
    has_begun: bool,
    is_open: bool,
    uploads: usize,
}

/// None of these uploads is answered before all of them have come. They wait behind another batch, so that they are one.
#[tokio::test(flavor = "multi_thread")]
async fn files_of_one_change_and_of_several_are_uploaded_at_the_same_time() {
    const UPLOADS: usize = 8;
    let names: Vec<String> = (0..UPLOADS).map(|n| format!("{n}.yaml")).collect();
    let one = vec![Change::replace("p", "one", names.iter().map(|name| file(name, name)).collect())];
    let several = names.iter().map(|name| replace(name, &format!("several/{name}"), &[("a", "a")])).collect();
    for changes in [one, several] {
        let Some(shelf) = Shelf::new().await else { return };
        let store = shelf.store();
        store.check().await.expect("usable");
        let come = Arc::new((Mutex::new(Come::default()), Condvar::new()));
        let served = Arc::clone(&come);
        shelf.server.intercept(move |request| {
            if !request.starts_with("PUT") {
                return None;
            }
            let (come, news) = &*served;
            tokio::task::block_in_place(|| {
                let mut come = come.lock().expect("sound");
                let is_kept_back = if request.starts_with("PUT /state/before/") {
                    come.has_begun = true;
                    |come: &mut Come| !come.is_open
                } else {
                    come.uploads += 1;
                    |come: &mut Come| come.uploads < UPLOADS
                };
                news.notify_all();
                let waited = news.wait_timeout_while(come, wait::DEADLINE, is_kept_back);
                let is_alone = waited.expect("sound").1.timed_out();
                is_alone.then_some(Fault::Answer(400, "Alone"))
            })
        });
        let before = store.reserve().await.expect("open").send(replace("before", "before", &[("a", "a")]));
        wait::poll("the batch before", async || match come.0.lock().expect("sound").has_begun {
            true => Ok(()),
            false => Err("it has not begun".to_owned()),
        })
        .await;
        let mut answers = Vec::new();
        for change in changes {
            answers.push(store.reserve().await.expect("open").send(change));
        }
        come.0.lock().expect("sound").is_open = true;
        come.1.notify_all();
        assert!(before.await.expect("written").changed);
        for answer in answers {
            assert!(answer.await.expect("written with the others").changed);
        }
    }
}

#[tokio::test]
async fn a_change_that_is_refused_fails_alone_and_each_gets_its_own_result() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    store.check().await.expect("usable");
    shelf
        .server
        .intercept(|request| request.starts_with("PUT /state/d/13/").then_some(Fault::Answer(403, "AccessDenied")));
    let changes = (0..40).map(|n| replace(&n.to_string(), &format!("d/{n}"), &[("a", &n.to_string())])).collect();
    for (n, outcome) in together(&store, changes).await.into_iter().enumerate() {
        match outcome {
            Ok(written) => assert!(n != 13 && written.changed && written.version.is_some()),
            Err(WriteError::Refused(error)) => {
                assert_eq!(n, 13);
                assert_eq!(error.trouble, Trouble::Forbidden("AccessDenied: As the test wants it".to_owned()));
            }
            Err(other) => panic!("{n}: {other}"),
        }
    }
    assert_eq!(shelf.keys().await.len(), 39);
    // Where nothing at all may be written, the store as a whole is concerned.
    shelf.server.intercept(|request| {
        let writes = request.starts_with("PUT") || request.starts_with("POST");
        writes.then_some(Fault::Answer(403, "AccessDenied"))
    });
    let outcome = store.write(replace("p", "e", &[("a", "a")])).await;
    assert!(matches!(outcome, Err(WriteError::Store(ref error)) if matches!(error.trouble, Trouble::Forbidden(_))));
}

#[tokio::test]
async fn changes_of_one_directory_keep_their_order_in_a_batch() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    let mut changes = Vec::new();
    for n in 0..10 {
        changes.push(replace("p", "d", &[("a", &n.to_string()), (&format!("f{n}"), "x")]));
        changes.push(Change::remove("p", "d"));
        changes.push(Change::edit("q", "", vec![file(&format!("d/e{n}"), "e")], Vec::new()));
    }
    changes.push(replace("p", "d", &[("a", "last")]));
    assert!(together(&store, changes).await.iter().all(Result::is_ok));
    assert_eq!(shelf.files().await, map(&[("d/a", "last")]));
}

#[tokio::test]
async fn what_was_written_can_be_read_listed_and_told_apart() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = open_bucket(BucketConfig { path: "s".to_owned(), ..shelf.config() });
    assert_eq!(store.tree("d").await, Ok(None));
    store.write(replace("p", "d", &[("a", "a"), ("b/c", "c")])).await.expect("written");
    assert_eq!(store.read("d/a").await.expect("readable").as_deref(), Some(&b"a"[..]));
    assert_eq!(store.read("d/none").await.expect("readable"), None);
    assert_eq!(store.list("").await.expect("readable"), ["d/a", "d/b/c"]);
    assert_eq!(store.list("d/b").await.expect("readable"), ["d/b/c"]);
    assert_eq!(store.version().await, Ok(None));
    let tree = store.tree("d").await.expect("readable");
    shelf.server.put(BUCKET, "s/elsewhere", "x").await;
    assert_eq!(store.tree("d").await, Ok(tree.clone()));
    shelf.server.put(BUCKET, "s/d/a", "b").await;
    assert_ne!(store.tree("d").await, Ok(tree));
}

#[tokio::test]
async fn foreign_changes_inside_are_noticed_by_one_listing_and_others_are_not() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    let mut imprints = Vec::new();
    for n in 0..30 {
        let change = replace(&n.to_string(), &format!("w/{n}"), &[("a", "a"), ("b", "b")]);
        imprints.push(store.write(change).await.expect("written").imprint);
    }
    let edit = Change::edit("e", "w", vec![file("single", "s")], vec!["gone".to_owned()]);
    imprints.push(store.write(edit).await.expect("written").imprint);
    let share = Change::share("s", "w", ".kratix/s.yaml", Some(vec![file("shared", "s")]));
    imprints.push(store.write(share).await.expect("written").imprint);
    shelf.requests();
    let holds = async |expected: &[usize]| {
        let found = store.verify(imprints.clone()).await.expect("readable");
        let broken: Vec<usize> = found.iter().enumerate().filter(|(_, holds)| !**holds).map(|(n, _)| n).collect();
        assert_eq!(broken, expected);
    };
    holds(&[]).await;
    assert_eq!(shelf.methods(), methods(&[("LIST", 1)]));
    shelf.server.put(BUCKET, "w/foreign", "x").await;
    shelf.server.put(BUCKET, "w/3-x/a", "x").await;
    holds(&[]).await;
    shelf.server.put(BUCKET, "w/3/c", "x").await;
    shelf.server.put(BUCKET, "w/4/a", "x").await;
    shelf.server.delete(BUCKET, "w/5/b").await;
    shelf.server.put(BUCKET, "w/gone", "x").await;
    shelf.server.delete(BUCKET, "w/.kratix/s.yaml").await;
    holds(&[3, 4, 5, 30, 31]).await;
    // The same content is the same, whoever wrote it.
    shelf.server.put(BUCKET, "w/5/b", "b").await;
    holds(&[3, 4, 30, 31]).await;
    // Much else in the same place is not listed to the end.
    for n in 0..40 {
        shelf.server.put(BUCKET, &format!("w/9/{n}"), "x").await;
    }
    holds(&[3, 4, 9, 30, 31]).await;
    let repaired = store.write(replace("9", "w/9", &[("a", "a"), ("b", "b")])).await.expect("written");
    assert!(repaired.changed);
    assert_eq!(repaired.imprint, imprints[9]);
    holds(&[3, 4, 30, 31]).await;
}
