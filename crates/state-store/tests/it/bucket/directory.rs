//! A directory of this machine in place of a server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kratix_state_store::{BucketAuth, BucketConfig, Change, Environment, Handle, Trouble, WriteError};
use tempfile::TempDir;

use super::{BUCKET, file, map, open_bucket, replace, together};

struct Yard {
    directory: TempDir,
}

impl Yard {
    fn new() -> Self {
        let yard = Self { directory: tempfile::tempdir().expect("a directory") };
        std::fs::create_dir(yard.bucket()).expect("a directory");
        yard
    }

    fn bucket(&self) -> PathBuf {
        self.directory.path().join(BUCKET)
    }

    fn config(&self) -> BucketConfig {
        let endpoint = format!("file://{}", self.directory.path().display());
        BucketConfig::new("default", endpoint, BUCKET, BucketAuth::Ambient(Environment::default()))
    }

    fn store(&self) -> Handle {
        open_bucket(self.config())
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.bucket().join(path);
        std::fs::create_dir_all(path.parent().expect("a file")).expect("a directory");
        std::fs::write(path, content).expect("a file");
    }

    fn files(&self) -> BTreeMap<String, String> {
        fn walk(directory: &Path, path: &str, all: &mut BTreeMap<String, String>) {
            for entry in std::fs::read_dir(directory).expect("a directory") {
                let entry = entry.expect("an entry");
                let name = format!("{path}{}", entry.file_name().to_string_lossy());
                match entry.file_type().expect("a type") {
                    kind if kind.is_dir() && name == ".kratix-unfinished" => {}
                    kind if kind.is_dir() => walk(&entry.path(), &format!("{name}/"), all),
                    _ => drop(all.insert(name, std::fs::read_to_string(entry.path()).unwrap_or_default())),
                }
            }
        }
        let mut all = BTreeMap::new();
        walk(&self.bucket(), "", &mut all);
        all
    }
}

#[tokio::test]
async fn a_directory_of_this_machine_is_a_bucket() {
    let yard = Yard::new();
    yard.write("foreign", "f");
    yard.write("d/res-x/a", "f");
    let store = yard.store();
    store.check().await.expect("usable");
    let files = [("a", "a"), ("b/c", "c")];
    let written = store.write(replace("p", "d/res", &files)).await.expect("written");
    assert!(written.changed && written.version.is_some());
    let foreign = [("foreign", "f"), ("d/res-x/a", "f")];
    let with = |own: &[(&str, &str)]| map(&[&foreign, own].concat());
    assert_eq!(yard.files(), with(&[("d/res/a", "a"), ("d/res/b/c", "c")]));
    assert_eq!(store.verify(vec![written.imprint.clone()]).await, Ok(vec![true]));
    let again = store.write(replace("p", "d/res", &files)).await.expect("nothing to do");
    assert_eq!((again.changed, again.version, again.imprint), (false, None, written.imprint.clone()));
    // Of the same size.
    store.write(replace("p", "d/res", &[("a", "b")])).await.expect("written");
    assert_eq!(yard.files(), with(&[("d/res/a", "b")]));
    assert_eq!(store.verify(vec![written.imprint]).await, Ok(vec![false]));
    assert_eq!(store.read("d/res/a").await.expect("readable").as_deref(), Some(&b"b"[..]));
    assert_eq!(store.list("d").await.expect("readable"), ["d/res-x/a", "d/res/a"]);
    store.write(Change::remove("p", "d/res")).await.expect("removed");
    assert_eq!(yard.files(), with(&[]));
    assert!(!yard.bucket().join("d/res").exists(), "an empty directory is nothing");
    assert_eq!(std::fs::read_dir(yard.bucket().join(".kratix-unfinished")).expect("there").count(), 0);
}

/// Decision 9
#[cfg(unix)]
#[tokio::test]
async fn no_symbolic_link_leads_out_of_the_directory() {
    let yard = Yard::new();
    let outside = tempfile::tempdir().expect("a directory");
    std::fs::write(outside.path().join("x"), "outside").expect("a file");
    std::os::unix::fs::symlink(outside.path(), yard.bucket().join("linked")).expect("a link");
    yard.write("d/other", "o");
    std::os::unix::fs::symlink(outside.path().join("x"), yard.bucket().join("d/x")).expect("a link");
    let store = yard.store();
    let blocked = store.write(replace("p", "linked", &[("x", "inside")])).await.expect_err("blocked");
    let expected = WriteError::Blocked {
        path: "linked/x".to_owned(),
        obstacle: "linked".to_owned(),
        kind: "file or symbolic link",
    };
    assert_eq!(blocked, expected);
    store.write(Change::edit("p", "", Vec::new(), vec!["linked/x".to_owned()])).await.expect("nothing there");
    assert_eq!(store.read("linked/x").await, Ok(None));
    assert_eq!(store.read("d/x").await, Ok(None));
    // A link in the place of a file is replaced, not followed.
    store.write(replace("p", "d", &[("x", "inside")])).await.expect("written");
    assert_eq!(yard.files().get("d/x").map(String::as_str), Some("inside"));
    assert_eq!(std::fs::read_to_string(outside.path().join("x")).expect("there"), "outside");
}

#[tokio::test]
async fn a_file_where_a_directory_is_needed_and_the_reverse_fail_alone() {
    let yard = Yard::new();
    yard.write("a", "file");
    yard.write("d/x/y", "in a directory");
    let store = yard.store();
    let changes = vec![
        replace("1", "a/b", &[("c", "c")]),
        Change::edit("2", "d", vec![file("x", "x")], Vec::new()),
        replace("3", "good", &[("c", "c")]),
    ];
    let outcomes = together(&store, changes).await;
    assert!(matches!(&outcomes[0], Err(WriteError::Blocked { obstacle, .. }) if obstacle == "a"), "{outcomes:?}");
    assert!(matches!(&outcomes[1], Err(WriteError::Blocked { kind: "directory", .. })), "{outcomes:?}");
    assert!(outcomes[2].is_ok());
    assert_eq!(yard.files(), map(&[("a", "file"), ("d/x/y", "in a directory"), ("good/c", "c")]));
}

#[tokio::test]
async fn two_writers_of_one_ledger_take_turns() {
    let yard = Yard::new();
    let stores = [yard.store(), yard.store()];
    for round in 0..30 {
        let change = |who: usize| {
            let files = Some(vec![file(&format!("{who}-{round}"), "x")]);
            Change::share("o", "w", ".kratix/o.yaml", files)
        };
        let (one, other) = tokio::join!(stores[0].write(change(0)), stores[1].write(change(1)));
        one.expect("written");
        other.expect("written");
        let files = yard.files();
        for path in files.keys().filter(|path| !path.contains(".kratix")) {
            assert!(files["w/.kratix/o.yaml"].contains(&format!("- {path}\n")), "round {round}: {files:?}");
        }
    }
    stores[1].write(Change::share("o", "w", ".kratix/o.yaml", None)).await.expect("removed");
    assert_eq!(yard.files(), map(&[]));
}

#[tokio::test]
async fn a_directory_that_is_missing_or_cannot_be_written_is_said_to_be() {
    let yard = Yard::new();
    std::fs::remove_dir(yard.bucket()).expect("empty");
    let store = yard.store();
    let missing = Trouble::BucketMissing(yard.bucket().display().to_string());
    assert_eq!(store.check().await.expect_err("missing").trouble, missing);
    let outcome = store.write(replace("p", "d", &[("a", "a")])).await;
    assert!(matches!(outcome, Err(WriteError::Store(ref error)) if error.trouble == missing), "{outcome:?}");
    std::fs::create_dir(yard.bucket()).expect("a directory");
    store.check().await.expect("usable now");
}

#[tokio::test]
async fn what_a_crashed_writer_has_left_is_no_part_of_the_bucket() {
    let yard = Yard::new();
    yard.write(".kratix-unfinished/1-0", "half");
    let store = yard.store();
    store.check().await.expect("usable");
    assert_eq!(store.list("").await.expect("readable"), [""; 0]);
    assert!(yard.bucket().join(".kratix-unfinished/1-0").exists(), "its writer may be alive");
}

#[tokio::test]
async fn an_own_file_may_become_a_directory_and_the_reverse() {
    let yard = Yard::new();
    let store = yard.store();
    let share = |files: &[(&str, &str)]| {
        let files = files.iter().map(|(path, content)| file(path, content)).collect();
        Change::share("o", "s", ".kratix/o.yaml", Some(files))
    };
    let edit = |write: &str, remove: &str| Change::edit("e", "e", vec![file(write, "1")], vec![remove.to_owned()]);
    for (path, other) in [("x/y/z", "x"), ("x", "x/y/z"), ("x/y", "x")] {
        store.write(replace("r", "r", &[(path, "1"), ("k", "1")])).await.expect("written");
        store.write(share(&[(path, "1"), ("k", "1")])).await.expect("written");
        store.write(edit(path, other)).await.expect("written");
        for first in ["r", "s", "e"] {
            let found = store.list(first).await.expect("readable");
            assert!(
                found.contains(&format!("{first}/{path}")) && !found.contains(&format!("{first}/{other}")),
                "{found:?}"
            );
        }
    }
    assert_eq!(store.list("r").await.expect("readable"), ["r/k", "r/x/y"]);
}

#[tokio::test]
async fn a_lock_that_somebody_keeps_is_named_and_holds_up_nobody_for_ever() {
    let yard = Yard::new();
    let store = open_bucket(BucketConfig { deadline: std::time::Duration::from_millis(50), ..yard.config() });
    let share = || Change::share("o", "s", ".kratix/o.yaml", Some(vec![file("a", "1")]));
    store.check().await.expect("usable");
    let path = yard.bucket().join(".kratix-unfinished/lock");
    let lock = std::fs::File::create(&path).expect("a file");
    lock.lock().expect("free");
    let error = store.write(share()).await.expect_err("held");
    let expected = Trouble::Io(format!("{} is held by another process", path.display()));
    assert!(matches!(&error, WriteError::Store(error) if error.trouble == expected), "{error}");
    drop(lock);
    store.write(share()).await.expect("written");
}

#[tokio::test]
async fn a_check_does_not_stumble_over_what_another_writer_finishes() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let yard = Yard::new();
    let (store, is_over) = (yard.store(), std::sync::Arc::new(AtomicBool::new(false)));
    store.check().await.expect("usable");
    let (unfinished, seen) = (yard.bucket().join(".kratix-unfinished"), std::sync::Arc::clone(&is_over));
    let writer = std::thread::spawn(move || {
        while !seen.load(Ordering::Relaxed) {
            let paths = [0, 1, 2, 3].map(|number| unfinished.join(format!("other-{number}")));
            paths.iter().for_each(|path| std::fs::write(path, "").expect("a file"));
            paths.iter().for_each(|path| std::fs::remove_file(path).expect("there"));
        }
    });
    let mut outcome = Ok(());
    for _ in 0..2000 {
        outcome = outcome.and(store.check().await);
    }
    is_over.store(true, Ordering::Relaxed);
    writer.join().expect("no panic");
    outcome.expect("usable all the time");
}

#[tokio::test]
async fn a_path_passes_from_owner_to_owner_in_a_directory_too_whoever_was_queued_first() {
    let ledger = |owner: &str| format!("w/.kratix/default-{owner}.yaml");
    for takes_first in [true, false] {
        let (yard, keeps) = (Yard::new(), || vec![file("stays", "a")]);
        let share =
            |owner: &str, files| Change::share(owner, "w", format!(".kratix/default-{owner}.yaml"), Some(files));
        let store = yard.store();
        store.write(share("a", [keeps(), vec![file("x", "a")]].concat())).await.expect("written");
        let mut changes = vec![share("b", vec![file("x", "b")]), share("a", keeps())];
        if !takes_first {
            changes.reverse();
        }
        let outcomes = together(&store, changes).await;
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        let (a, b) = (ledger("a"), ledger("b"));
        let ledgers = [(a.as_str(), "files:\n- w/stays\n"), (b.as_str(), "files:\n- w/x\n")];
        assert_eq!(yard.files(), map(&[&ledgers[..], &[("w/stays", "a"), ("w/x", "b")]].concat()));
    }
}
