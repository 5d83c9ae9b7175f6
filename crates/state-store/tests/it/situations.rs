//! What others keep in a repository, and what they do to it meanwhile: all of it stays as they left it. Each is looked at
//! over HTTPS, and where it makes a difference on this machine's disk too.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kratix_state_store::{Change, GitConfig, Handle, Retry, Trouble, WriteError, open};
use kratix_testing::git_http::Server;
use kratix_testing::hook;
use tempfile::TempDir;

use crate::{Bed, file, git, placement, try_git};

fn config(server: &Server) -> GitConfig {
    GitConfig { fetch_interval: Duration::ZERO, ..crate::config(server) }
}

/// The repository over HTTPS, and as a directory.
fn stores(bed: &Bed, server: &Server) -> [(&'static str, Handle); 2] {
    [("https", open(config(server), bed.cache()).expect("usable")), ("local", bed.store())]
}

/// Somebody else's clone.
struct Clone(TempDir);

impl Clone {
    fn of(bed: &Bed) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let from = bed.repository().display().to_string();
        git(bed.directory.path(), &["clone", "-q", &from, &directory.path().join("clone").display().to_string()]);
        let clone = Self(directory);
        clone.git(&["checkout", "-q", "-B", "main"]);
        clone
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("clone")
    }

    fn git(&self, arguments: &[&str]) -> String {
        git(&self.path(), arguments)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, content).expect("a file");
    }

    /// Commits what is there, ignored or not, and pushes it.
    fn push(&self) {
        self.git(&["add", "--force", "."]);
        self.commit();
    }

    /// Commits the index and pushes it.
    fn commit(&self) {
        self.git(&["commit", "-q", "-m", "somebody else"]);
        self.git(&["push", "-q", "--force", "origin", "HEAD:refs/heads/main"]);
    }
}

/// Returns the entries of the branch except those below a prefix: mode, kind, object, path.
fn entries_beside(bed: &Bed, prefix: &str) -> Vec<String> {
    let all = bed.git(&["ls-tree", "-r", "-t", "-z", "refs/heads/main"]);
    let is_ours = |entry: &&str| {
        let path = entry.split('\t').nth(1).unwrap_or_default();
        // The trees above what is ours change with it.
        path.starts_with(prefix) || prefix.starts_with(&format!("{path}/"))
    };
    all.split('\0').filter(|entry| !entry.is_empty()).filter(|entry| !is_ours(entry)).map(str::to_owned).collect()
}

/// Writes, changes and removes a placement in the midst of others, and finds everything beside it untouched.
async fn leaves_others_alone(bed: &Bed, store: &Handle, why: &str) {
    let before = entries_beside(bed, "worker-1/ours/");
    assert!(!before.is_empty(), "{why}");
    for content in ["1\n", "2\n"] {
        let change = Change::replace("ours", "worker-1/ours", vec![file("deep/a.yaml", content)]);
        assert!(store.write(change).await.expect(why).changed, "{why}");
        assert_eq!(entries_beside(bed, "worker-1/ours/"), before, "{why}");
        assert_eq!(bed.git(&["show", "refs/heads/main:worker-1/ours/deep/a.yaml"]), content, "{why}");
    }
    store.write(Change::remove("ours", "worker-1/ours")).await.expect(why);
    assert_eq!(entries_beside(bed, "worker-1/ours/"), before, "{why}");
    bed.is_sound();
}

#[tokio::test]
async fn pointers_of_large_files_stay_and_no_filter_runs() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let theirs = Clone::of(&bed);
    let attributes = "* filter=marker text eol=crlf ident\n*.bin filter=lfs diff=lfs merge=lfs -text\n*.yaml working-tree-encoding=UTF-16\n";
    theirs.git(&["config", "core.attributesFile", "/dev/null"]);
    theirs.write(
        "assets/logo.bin",
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{:064}\nsize 12345\n", 7),
    );
    theirs.push();
    // Last, because their own clone obeys it.
    theirs.write(".gitattributes", attributes);
    theirs.push();

    let marker = bed.directory.path().join("a-filter-ran");
    let command = format!("touch {}", marker.display());
    let filter = |repository: &Path| {
        for kind in ["clean", "smudge", "process"] {
            git(repository, &["config", &format!("filter.marker.{kind}"), &command]);
        }
    };
    filter(&bed.repository());
    for (why, store) in stores(&bed, &server) {
        store.check().await.expect("usable");
        if why == "https" {
            let cache = std::fs::read_dir(bed.cache()).expect("a cache").next().expect("one").expect("readable").path();
            filter(&cache.join("repository.git"));
        }
        leaves_others_alone(&bed, &store, why).await;
        // What is written is what was given, to the byte.
        let content = "line\nanother\r\n$Id$\n";
        store.write(Change::replace("bytes", "worker-1/bytes", vec![file("a.yaml", content)])).await.expect(why);
        assert_eq!(bed.git(&["cat-file", "blob", "refs/heads/main:worker-1/bytes/a.yaml"]), content, "{why}");
        let read = store.read("worker-1/bytes/a.yaml").await.expect(why).expect("a file");
        assert_eq!(read, content.as_bytes(), "{why}");
        store.write(Change::remove("bytes", "worker-1/bytes")).await.expect(why);
    }
    assert!(!marker.exists());
}

#[tokio::test]
async fn submodules_of_others_stay_beside_and_above_what_is_written() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let theirs = Clone::of(&bed);
    let modules = "[submodule \"lib\"]\n\tpath = vendor/lib\n\turl = https://example.org/lib.git\n";
    theirs.write(".gitmodules", modules);
    theirs.git(&["add", "."]);
    // Commits that this repository does not have.
    for (path, commit) in [("vendor/lib", 1), ("worker-1/theirs", 2), ("worker-1/ours-not", 3)] {
        theirs.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit:040},{path}")]);
    }
    theirs.commit();
    for (why, store) in stores(&bed, &server) {
        leaves_others_alone(&bed, &store, why).await;
        let inside = Change::replace("inside", "worker-1/theirs/inside", vec![file("a.yaml", "1")]);
        match store.write(inside).await {
            Err(WriteError::Blocked { obstacle, kind, .. }) => {
                assert_eq!((obstacle.as_str(), kind), ("worker-1/theirs", "submodule"), "{why}");
            }
            other => panic!("{why}: {other:?}"),
        }
        assert!(
            entries_beside(&bed, "worker-1/ours/").iter().any(|entry| entry.ends_with("\tworker-1/theirs")),
            "{why}"
        );
    }
}

#[tokio::test]
async fn files_that_the_repository_ignores_are_written() {
    // weakness 39
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let theirs = Clone::of(&bed);
    theirs.write(".gitignore", "*\n!*/\n*.yaml\n");
    theirs.write("worker-1/.gitignore", "/ours\nours/**\n");
    theirs.push();
    for (why, store) in stores(&bed, &server) {
        leaves_others_alone(&bed, &store, why).await;
    }
}

#[tokio::test]
async fn the_branch_is_written_wherever_the_default_is() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let theirs = Clone::of(&bed);
    theirs.write("theirs", "t");
    theirs.push();
    let trunk = bed.head();
    bed.git(&["update-ref", "refs/heads/trunk", &trunk]);
    for default in ["refs/heads/trunk", "refs/heads/does-not-exist"] {
        bed.git(&["symbolic-ref", "HEAD", default]);
        for (why, store) in stores(&bed, &server) {
            store.check().await.expect(why);
            leaves_others_alone(&bed, &store, why).await;
        }
    }
    assert_eq!(bed.git(&["rev-parse", "refs/heads/trunk"]).trim(), trunk);
}

#[tokio::test]
async fn a_branch_that_vanishes_is_told_and_written_again_with_the_first_attempt_after_it_is_back() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let theirs = Clone::of(&bed);
    theirs.write("theirs", "t");
    theirs.push();
    bed.git(&["branch", "other", "main"]);
    for interval in [Duration::ZERO, Duration::from_secs(3600)] {
        let mut config = config(&server);
        config.fetch_interval = interval;
        for (why, store) in [("https", open(config, bed.cache()).expect("usable")), ("local", bed.store())] {
            store.write(placement("a", &format!("{why} {interval:?}"))).await.expect("written");
            let head = bed.head();
            bed.git(&["update-ref", "-d", "refs/heads/main"]);
            for attempt in 0..2 {
                let error = match store.write(placement("b", &format!("{why} {interval:?}"))).await {
                    Err(WriteError::Store(error)) => error,
                    other => panic!("{why} {interval:?}: {other:?}"),
                };
                assert_eq!(error.trouble, Trouble::BranchMissing("main".to_owned()), "{why} {attempt}");
                assert!(error.to_string().ends_with("Remote branch main not found in upstream origin"), "{error}");
                assert!(error.hint().expect("a hint").contains("create branch main"));
                assert_eq!(error.retry(), Retry::Backoff);
            }
            assert_eq!(store.check().await.expect_err("missing").category(), "StoreBranchMissing");
            let (success, ..) = try_git(&bed.repository(), &["rev-parse", "-q", "--verify", "refs/heads/main"]);
            assert!(!success, "nobody else's branch is made");
            bed.git(&["update-ref", "refs/heads/main", &head]);
            store.write(placement("b", &format!("{why} {interval:?}"))).await.expect("the first attempt succeeds");
            assert_eq!(bed.paths(), ["theirs", "worker-1/a/a.yaml", "worker-1/b/a.yaml"]);
        }
    }
    bed.is_sound();
}

// weakness 31
#[tokio::test]
async fn a_check_after_foreign_commits_succeeds_and_publishes_nothing() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let mut config = config(&server);
    config.fetch_interval = Duration::from_secs(3600);
    for (why, store) in [("https", open(config, bed.cache()).expect("usable")), ("local", bed.store())] {
        store.write(placement("a", why)).await.expect("written");
        bed.foreign_push("theirs", why);
        let (head, pushes) = (bed.head(), server.pushes());
        store.check().await.expect("what others have pushed is no trouble");
        assert_eq!((bed.head(), server.pushes()), (head, pushes), "{why}");
        store.write(placement("b", why)).await.expect("written");
        assert_eq!(bed.git(&["show", "main:theirs"]), why);
    }
    bed.is_sound();
}

// acceptance 23
#[tokio::test]
async fn a_directory_that_somebody_removed_is_back_with_the_next_content() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    for (why, store) in stores(&bed, &server) {
        store.write(placement("kept", why)).await.expect("written");
        store.write(placement("removed", "1")).await.expect("written");
        let theirs = Clone::of(&bed);
        theirs.git(&["rm", "-r", "-q", "worker-1/removed"]);
        theirs.commit();
        assert_eq!(bed.paths(), ["worker-1/kept/a.yaml"], "{why}");
        let written = store.write(placement("removed", why)).await.expect("written");
        // The answer comes after the remote has it.
        assert_eq!(written.version.expect("a version").as_str(), bed.head(), "{why}");
        assert_eq!(bed.git(&["show", "main:worker-1/removed/a.yaml"]), why);
        store.write(Change::remove("removed", "worker-1/removed")).await.expect("removed");
    }
    bed.is_sound();
}

#[tokio::test]
async fn history_that_was_rewritten_is_built_upon() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    for (why, store) in stores(&bed, &server) {
        store.write(placement("a", why)).await.expect("written");
        let before = bed.head();
        store.write(placement("b", why)).await.expect("written");

        // Back by one commit, and forward again under the eyes of who knows the later one.
        let after = bed.head();
        bed.git(&["update-ref", "refs/heads/main", &before]);
        assert!(store.write(placement("b", why)).await.expect("written").changed, "{why}");
        bed.git(&["update-ref", "refs/heads/main", &after]);
        assert!(!store.write(placement("b", why)).await.expect("silent").changed, "{why}");
        assert_eq!(bed.head(), after, "{why}");

        // Another history altogether, with somebody else's idea of what is ours.
        let theirs = Clone::of(&bed);
        theirs.git(&["checkout", "-q", "--orphan", "fresh"]);
        theirs.git(&["rm", "-r", "-q", "--force", "."]);
        theirs.write("theirs", why);
        theirs.write("worker-1/a/a.yaml", "tampered");
        theirs.push();
        let root = bed.head();
        assert!(store.write(placement("a", why)).await.expect("written").changed, "{why}");
        assert_eq!(bed.paths(), ["theirs", "worker-1/a/a.yaml"], "{why}");
        assert_eq!(bed.git(&["show", "main:worker-1/a/a.yaml"]), why);
        assert_eq!(bed.git(&["rev-parse", "main^"]).trim(), root, "{why}: nothing of the old history comes back");
        bed.is_sound();
    }
}

#[tokio::test]
async fn refs_that_could_be_taken_for_the_branch_are_not() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let theirs = Clone::of(&bed);
    theirs.write("theirs", "old");
    theirs.push();
    let old = bed.head();
    theirs.write("theirs", "new");
    theirs.push();
    let decoys = ["refs/tags/main", "refs/tags/heads/main", "refs/heads/heads/main", "refs/main"];
    for decoy in decoys {
        bed.git(&["update-ref", decoy, &old]);
    }
    for (why, store) in stores(&bed, &server) {
        store.check().await.expect(why);
        leaves_others_alone(&bed, &store, why).await;
        assert_eq!(bed.git(&["show", "refs/heads/main:theirs"]), "new", "{why}");
        assert_eq!(store.read("theirs").await.expect(why).expect("a file"), "new");
        for decoy in decoys {
            assert_eq!(bed.git(&["rev-parse", decoy]).trim(), old, "{why}: {decoy}");
        }
    }
    // One that git itself does not tell apart when it pushes, as it has to where there are hooks.
    bed.git(&["update-ref", "refs/heads/refs/heads/main", &old]);
    let [(_, https), (_, local)] = stores(&bed, &server);
    leaves_others_alone(&bed, &https, "https").await;
    leaves_others_alone(&bed, &local, "local").await;
    hook::install(&bed.repository(), "post-receive", "");
    let error = local.check().await.expect_err("ambiguous");
    assert_eq!(error.retry(), Retry::Backoff);
    let expected = r#"another branch has the full name "refs/heads/main", which git cannot tell apart; delete it"#;
    assert_eq!(error.trouble, Trouble::Git(expected.to_owned()));
}

#[tokio::test]
async fn the_cache_does_not_grow_with_history() {
    const COMMITS: usize = 300;
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let mut script = String::new();
    for at in 0..COMMITS {
        let content = format!("content of commit {at}");
        script.push_str("commit refs/heads/main\ncommitter else <e@example.org> 1700000000 +0000\ndata 1\nx\n");
        script.push_str(&format!("M 644 inline d{}/f{at}\ndata {}\n{content}\n", at % 10, content.len()));
        if at >= 20 {
            script.push_str(&format!("D d{}/f{}\n", at % 10, at - 20));
        }
    }
    let input = bed.directory.path().join("history");
    std::fs::write(&input, script).expect("a file");
    let status = std::process::Command::new("git")
        .args(["fast-import", "--quiet", "--force"])
        .current_dir(bed.repository())
        .stdin(std::fs::File::open(&input).expect("a file"))
        .status();
    assert!(status.expect("git is installed").success());
    assert_eq!(bed.commits(), COMMITS);

    let store = open(config(&server), bed.cache()).expect("usable");
    store.check().await.expect("usable");
    let cache = std::fs::read_dir(bed.cache()).expect("a cache").next().expect("one").expect("readable").path();
    let objects = || {
        let counted = git(&cache.join("repository.git"), &["count-objects", "-v"]);
        let value = |key: &str| {
            let line = counted.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            line.trim().parse::<usize>().expect("a number")
        };
        value("count:") + value("in-pack:")
    };
    // One commit, its tree, ten directories, twenty files.
    assert_eq!(objects(), 32);
    const WRITES: usize = 10;
    for at in 0..WRITES {
        bed.foreign_push(&format!("theirs/{at}"), "t");
        store.write(placement("a", &at.to_string())).await.expect("written");
    }
    // Nine for each round: two commits, two roots, two directories, one of ours above them, two files; and what deltas are
    // based on comes along.
    let after = objects();
    assert!(after <= 32 + 16 * WRITES, "{after} objects");
    assert_eq!(bed.commits(), COMMITS + 2 * WRITES, "history is whole where it belongs");
    bed.is_sound();
}

#[tokio::test]
async fn a_branch_that_only_others_push_to_does_not_fill_the_cache_with_packs() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let store = open(config(&server), bed.cache()).expect("usable");
    for at in 0..60 {
        bed.foreign_push("theirs", &at.to_string());
        assert_eq!(store.read("theirs").await.expect("read").expect("a file"), at.to_string());
    }
    let cache = std::fs::read_dir(bed.cache()).expect("a cache").next().expect("one").expect("readable").path();
    let counted = git(&cache.join("repository.git"), &["count-objects", "-v"]);
    let packs = counted.lines().find_map(|line| line.strip_prefix("packs: ")).expect("a line");
    assert!(packs.parse::<usize>().expect("a number") <= 40 + 16, "{counted}");
}

#[tokio::test]
async fn names_that_differ_in_case_or_form_only_stay_apart() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let (composed, decomposed) = ("worker-1/caf\u{e9}/a", "worker-1/cafe\u{301}/a");
    let theirs = Clone::of(&bed);
    theirs.git(&["config", "core.ignorecase", "false"]);
    theirs.git(&["config", "core.precomposeunicode", "false"]);
    for path in
        ["worker-1/README", "worker-1/readme", "worker-1/OURS/deep/a.yaml", "Worker-1/ours/x", composed, decomposed]
    {
        theirs.write(path, path);
    }
    theirs.push();
    for (why, store) in stores(&bed, &server) {
        leaves_others_alone(&bed, &store, why).await;
        // Ours beside a name of theirs that is the same to some file systems: refused or written, but nothing is lost.
        for (directory, name) in
            [("worker-1/caf\u{c9}", "b"), ("worker-1/cafe\u{301}/new", "b"), ("worker-1/ReadMe", "b")]
        {
            let before = entries_beside(&bed, &format!("{directory}/"));
            let outcome = store.write(Change::replace("alike", directory, vec![file(name, "ours")])).await;
            assert_eq!(entries_beside(&bed, &format!("{directory}/")), before, "{why} {directory}");
            let is_there = store.read(&format!("{directory}/{name}")).await.expect("read").is_some();
            assert_eq!(is_there, outcome.is_ok(), "{why} {directory}: {outcome:?}");
            store.write(Change::remove("alike", directory)).await.expect("removed");
            assert_eq!(entries_beside(&bed, &format!("{directory}/")), before, "{why} {directory}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_others_push_at_the_same_time_and_nobody_loses_anything() {
    const OTHERS: usize = 20;
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    bed.foreign_push("first", "f");
    let clones: Vec<Clone> = (0..OTHERS).map(|_| Clone::of(&bed)).collect();
    let others: Vec<_> = clones
        .into_iter()
        .enumerate()
        .map(|(at, clone)| {
            tokio::task::spawn_blocking(move || {
                clone.write(&format!("theirs/{at}"), "t");
                clone.git(&["add", "."]);
                clone.git(&["commit", "-q", "-m", "somebody else"]);
                for _ in 0..1_000 {
                    let (success, ..) = try_git(&clone.path(), &["push", "-q", "origin", "HEAD:refs/heads/main"]);
                    if success {
                        return;
                    }
                    // The lock of the branch can be in somebody's hand here too.
                    let _ = try_git(&clone.path(), &["pull", "-q", "--rebase", "origin", "main"]);
                }
                panic!("number {at} never got through");
            })
        })
        .collect();
    let store = open(config(&server), bed.cache()).expect("usable");
    for at in 0..OTHERS {
        let mut attempts = 0;
        while let Err(error) = store.write(placement(&format!("p{at}"), "1")).await {
            assert_ne!(error.retry(), Retry::OnChange, "{error}");
            attempts += 1;
            assert!(attempts < 1_000, "{error}");
        }
    }
    for other in others {
        other.await.expect("pushed");
    }
    assert_eq!(bed.paths().len(), 1 + 2 * OTHERS);
    assert_eq!(bed.commits(), 1 + 2 * OTHERS, "nothing is committed twice");
    bed.is_sound();
}
