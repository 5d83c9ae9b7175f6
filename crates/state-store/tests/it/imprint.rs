//! What a change left, and whether it is still there.

use std::time::Duration;

use kratix_state_store::{Change, File, GitConfig, Handle, Imprint, WriteError, open};
use kratix_testing::git_http::Server;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::{Bed, file, git, placement};

async fn imprint(store: &Handle, change: Change) -> Imprint {
    store.write(change).await.expect("written").imprint
}

/// Runs a script in a clone and pushes what it did as somebody else.
fn foreign(bed: &Bed, script: &str) {
    let clone = tempfile::tempdir().expect("a directory");
    let at = clone.path().join("clone");
    git(clone.path(), &["clone", "-q", bed.repository().to_str().expect("UTF-8"), "clone"]);
    let done = std::process::Command::new("sh").args(["-ec", script]).current_dir(&at).status().expect("sh");
    assert!(done.success(), "{script}");
    git(&at, &["add", "-A"]);
    git(&at, &["commit", "-q", "-m", "somebody else"]);
    git(&at, &["push", "-q", "origin", "HEAD:main"]);
}

#[tokio::test]
async fn an_imprint_holds_until_somebody_else_edits_below_it() {
    let bed = Bed::new();
    let store = bed.store();
    let files = vec![file("deep/x.yaml", "x"), file("y.yaml", "y")];
    let replaced = imprint(&store, Change::replace("r", "d/placement", files)).await;
    let removed = imprint(&store, Change::remove("gone", "d/gone")).await;
    let edited = imprint(&store, Change::edit("e", "", vec![file("d/state", "s")], vec!["d/old".into()])).await;
    let all = vec![replaced, removed, edited];
    let holds = async || store.verify(all.clone()).await.expect("verified");
    assert_eq!(holds().await, [true; 3]);

    for (script, expected) in [
        ("mkdir -p d/other && echo 1 >d/other/f && echo 1 >top && echo 1 >d/placement.yaml", [true; 3]),
        ("echo 2 >d/other/f", [true; 3]),
        ("echo changed >d/placement/deep/x.yaml", [false, true, true]),
        ("git revert --no-commit HEAD", [true; 3]),
        ("rm d/placement/y.yaml", [false, true, true]),
        ("git revert --no-commit HEAD", [true; 3]),
        ("mv d/placement/y.yaml d/placement/z.yaml", [false, true, true]),
        ("git revert --no-commit HEAD", [true; 3]),
        ("chmod +x d/placement/y.yaml d/state", [false, true, false]),
        ("git revert --no-commit HEAD", [true; 3]),
        ("echo 1 >d/placement/added", [false, true, true]),
        ("git revert --no-commit HEAD", [true; 3]),
        ("rm -r d/placement && echo 1 >d/placement", [false, true, true]),
        ("git revert --no-commit HEAD", [true; 3]),
        ("rm d/placement/y.yaml && ln -s deep/x.yaml d/placement/y.yaml", [false, true, true]),
        ("git revert --no-commit HEAD", [true; 3]),
        ("mkdir d/gone && echo 1 >d/gone/f", [true, false, true]),
        ("git revert --no-commit HEAD", [true; 3]),
        ("mkdir d/old && echo 1 >d/old/f", [true, true, false]),
        ("git revert --no-commit HEAD", [true; 3]),
        ("rm -r d", [false, true, false]),
    ] {
        foreign(&bed, script);
        assert_eq!(holds().await, expected, "{script}");
        assert_eq!(bed.store().verify(all.clone()).await, Ok(expected.to_vec()), "{script}, without a memory");
    }
}

#[tokio::test]
async fn imprints_of_a_shared_directory_cover_the_own_files_and_the_ledger() {
    let bed = Bed::new();
    let store = bed.store();
    let share = |id: &str, files: &[&str]| {
        let files = files.iter().map(|path| file(path, "1")).collect();
        Change::share(id, "shared", format!(".kratix/{id}.yaml"), Some(files))
    };
    let one = imprint(&store, share("one", &["a.yaml", "b/c.yaml"])).await;
    let two = imprint(&store, share("two", &["d.yaml"])).await;
    let all = vec![one, two];
    for (script, expected) in [
        ("echo 1 >shared/foreign.yaml", [true, true]),
        ("echo 2 >shared/d.yaml", [true, false]),
        ("git revert --no-commit HEAD", [true, true]),
        ("rm shared/.kratix/one.yaml", [false, true]),
    ] {
        foreign(&bed, script);
        assert_eq!(store.verify(all.clone()).await, Ok(expected.to_vec()), "{script}");
    }
    let again = imprint(&store, share("one", &["a.yaml", "b/c.yaml"])).await;
    assert_eq!(again, all[0], "the same files leave the same imprint");
    assert_eq!(store.verify(all).await, Ok(vec![true, true]));
    let left = imprint(&store, Change::share("one", "shared", ".kratix/one.yaml", None)).await;
    assert_eq!(store.verify(vec![again, left]).await, Ok(vec![false, true]));
}

#[tokio::test]
async fn a_silent_write_has_an_imprint_and_a_refused_one_none() {
    let bed = Bed::new();
    let written = bed.store().write(placement("a", "1")).await.expect("written");
    let silent = bed.store().write(placement("a", "1")).await.expect("nothing to do");
    assert_eq!((silent.changed, &silent.imprint), (false, &written.imprint));
    assert!(matches!(bed.store().write(placement("a/a.yaml/deep", "1")).await, Err(WriteError::Blocked { .. })));
    let overwritten = bed.store();
    let (first, second) = tokio::join!(overwritten.write(placement("a", "2")), overwritten.write(placement("a", "3")));
    let pair = [first, second].map(|written| written.expect("written").imprint).to_vec();
    assert_eq!(bed.store().verify(pair).await, Ok(vec![false, true]), "the later one of a batch is what is there");
}

#[tokio::test]
async fn imprints_of_an_empty_repository_and_none_at_all() {
    let bed = Bed::new();
    let store = bed.store();
    assert_eq!(store.verify(Vec::new()).await, Ok(Vec::new()));
    let nothing = imprint(&store, Change::remove("a", "worker-1/a")).await;
    assert_eq!(store.verify(vec![nothing.clone()]).await, Ok(vec![true]));
    let something = imprint(&store, placement("a", "1")).await;
    assert_eq!(store.verify(vec![nothing, something.clone()]).await, Ok(vec![false, true]));
    let other = Bed::new();
    assert_eq!(other.store().verify(vec![something]).await, Ok(vec![false]), "another repository");
}

/// Leaves only these objects in the repository.
fn keep_objects(bed: &Bed, ids: &str) {
    let pack = bed.repository().join("objects/pack");
    let aside = bed.directory.path().join("aside");
    std::fs::create_dir_all(&aside).expect("a directory");
    bed.feed(&["pack-objects", "-q", aside.join("pack").to_str().expect("UTF-8")], ids);
    std::fs::remove_dir_all(&pack).expect("removed");
    std::fs::rename(&aside, &pack).expect("moved");
}

#[tokio::test]
async fn ten_thousand_imprints_are_verified_without_a_file_and_what_is_unchanged_without_its_directories() {
    let bed = Bed::new();
    let store = bed.store();
    let change = |at: usize| {
        let files = vec![File::new("object.yaml", format!("at: {at}\n"))];
        Change::replace(format!("p{at}"), format!("worker-1/kind-{}/{at}/pipeline/5058f", at % 20), files)
    };
    let mut imprints = Vec::new();
    for thousand in 0..10 {
        let mut pending = Vec::new();
        for at in 0..1000 {
            pending.push(store.reserve().await.expect("a place").send(change(thousand * 1000 + at)));
        }
        for answer in pending {
            imprints.push(answer.await.expect("written").imprint);
        }
    }
    keep_objects(&bed, &bed.git(&["rev-list", "--objects", "--no-object-names", "--filter=blob:none", "main"]));
    assert_eq!(store.verify(imprints.clone()).await, Ok(vec![true; 10_000]), "there is no file to be read");

    // Somebody else replaces one placement, and nothing of what he left alone can be read any more.
    let kept: Vec<String> = ["main^{tree}", "main:worker-1", "main:worker-1/kind-3"].map(|at| rev(&bed, at)).into();
    keep_objects(&bed, &format!("{}\n{}", bed.head(), kept.join("\n")));
    let blob = bed.feed(&["hash-object", "-w", "--stdin"], "foreign");
    let blob = blob.trim();
    let mut tree = format!("100644 blob {blob}\tobject.yaml\n");
    for (at, name) in [("", "5058f"), ("", "pipeline"), ("main:worker-1/kind-3", "3"), ("main:worker-1", "kind-3")] {
        tree = entry(&bed, at, name, &make_tree(&bed, &tree));
    }
    let root = make_tree(&bed, &entry(&bed, "main", "worker-1", &make_tree(&bed, &tree)));
    let commit = bed.git(&["commit-tree", "-p", "main", "-m", "somebody else", &root]);
    bed.git(&["update-ref", "refs/heads/main", commit.trim()]);
    let mut expected = vec![true; 10_000];
    expected[3] = false;
    assert_eq!(store.verify(imprints.clone()).await, Ok(expected));
    assert!(bed.store().verify(imprints).await.is_err(), "without the memory, directories have to be read");
}

fn rev(bed: &Bed, what: &str) -> String {
    bed.git(&["rev-parse", what]).trim().to_owned()
}

/// Returns the entries of the tree `at` with the directory `name` replaced.
fn entry(bed: &Bed, at: &str, name: &str, id: &str) -> String {
    let before = if at.is_empty() { String::new() } else { bed.git(&["ls-tree", at]) };
    let mut lines: Vec<&str> = before.lines().filter(|line| !line.ends_with(&format!("\t{name}"))).collect();
    let new = format!("040000 tree {id}\t{name}");
    lines.push(&new);
    lines.join("\n") + "\n"
}

fn make_tree(bed: &Bed, entries: &str) -> String {
    bed.feed(&["mktree", "--missing"], entries).trim().to_owned()
}

/// A change of any kind within a few places.
fn any_change() -> impl Strategy<Value = Change> {
    let directory = prop::sample::select(vec!["a", "a/b", "c", "a/b/d"]);
    let name = || prop::sample::select(vec!["f", "b", "b/f", "d/f", "x/y"]);
    let some = move || prop::collection::btree_map(name(), "[01]", 0..3);
    let files = |files: std::collections::BTreeMap<&str, String>| -> Vec<File> {
        files.into_iter().map(|(path, content)| File::new(path, content)).collect()
    };
    prop_oneof![
        (directory.clone(), some()).prop_map(move |(at, some)| Change::replace("r", at, files(some))),
        (directory.clone(), some(), prop::collection::vec(name(), 0..3)).prop_map(move |(at, some, gone)| {
            Change::edit("e", at, files(some), gone.into_iter().map(str::to_owned).collect())
        }),
        (directory, prop::sample::select(vec!["one", "two"]), prop::option::of(some()))
            .prop_map(move |(at, owner, some)| Change::share(owner, at, format!(".k/{owner}.yaml"), some.map(files))),
    ]
}

/// The promise of an imprint: it holds exactly as long as repeating its change alters nothing.
#[test]
fn an_imprint_holds_exactly_while_repeating_its_change_alters_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut runner = TestRunner::new(ProptestConfig { cases: 48, ..ProptestConfig::default() });
    let (kept, broken) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let law = |changes: Vec<Change>| {
        runtime.block_on(async {
            let bed = Bed::new();
            let store = bed.store();
            let mut left: Vec<(Change, Imprint)> = Vec::new();
            for change in changes {
                let Ok(written) = store.write(change.clone()).await else { continue };
                let imprints = left.iter().map(|(_, imprint)| imprint.clone()).chain([written.imprint.clone()]);
                let remembered = store.verify(imprints.clone().collect()).await.expect("verified");
                let fresh = bed.store().verify(imprints.collect()).await.expect("verified");
                prop_assert_eq!(&remembered, &fresh);
                prop_assert_eq!(remembered.last(), Some(&true));
                left.push((change, written.imprint));
            }
            for (change, imprint) in left {
                let holds = store.verify(vec![imprint]).await.expect("verified")[0];
                let head = store.version().await.expect("a version");
                match store.write(change.clone()).await {
                    Ok(_) if holds => prop_assert_eq!(store.version().await.expect("a version"), head, "{:?}", change),
                    Ok(_) => prop_assert_ne!(store.version().await.expect("a version"), head, "{:?}", change),
                    Err(_) => {}
                }
                let count = if holds { &kept } else { &broken };
                count.set(count.get() + 1);
            }
            Ok(())
        })
    };
    runner.run(&prop::collection::vec(any_change(), 1..8), law).expect("the law");
    assert!(kept.get() > 20 && broken.get() > 20, "{} held, {} did not", kept.get(), broken.get());
}

#[tokio::test]
async fn imprints_of_a_remote_cost_one_look_and_none_while_the_last_one_is_believed() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let mut config = GitConfig::new("default", server.url("state.git"));
    let believing = open(config.clone(), bed.cache()).expect("usable");
    config.fetch_interval = Duration::ZERO;
    let looking = open(config, bed.cache()).expect("usable");
    let mut imprints = Vec::new();
    for at in 0..50 {
        imprints.push(imprint(&believing, placement(&format!("p{at}"), "1")).await);
    }
    let before = server.fetches();
    assert_eq!(believing.verify(imprints.clone()).await, Ok(vec![true; 50]));
    assert_eq!(server.fetches(), before);

    looking.version().await.expect("a version");
    foreign(&bed, "echo 2 >worker-1/p7/a.yaml && echo 1 >other");
    let mut expected = vec![true; 50];
    expected[7] = false;
    let before = server.fetches();
    assert_eq!(looking.verify(imprints.clone()).await, Ok(expected.clone()));
    let look = server.fetches() - before;
    assert_eq!(looking.verify(imprints[..1].to_vec()).await, Ok(vec![true]));
    assert!(server.fetches() - before <= 2 * look, "fifty cost what one does");
    believing.write(placement("p7", "3")).await.expect("written on the new head");
    assert_eq!(looking.verify(imprints).await, Ok(expected));
    bed.is_sound();
}
