//! Paths that are not what they seem, in real repositories. `docs/reliability.md` lists the rules.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use kratix_state_store::{Change, File, Handle, Reason, Retry, WriteError, Written, open};

use crate::{Bed, file, git, placement};

type Answer = Result<Written, WriteError>;

/// Queues all changes before any of them is worked on, so that they are one batch.
async fn write_all(store: &Handle, changes: Vec<Change>) -> Vec<Answer> {
    let mut pending = Vec::new();
    for change in changes {
        pending.push(store.reserve().await.expect("a place").send(change));
    }
    let mut answers = Vec::new();
    for answer in pending {
        answers.push(answer.await);
    }
    answers
}

fn share(owner: &str, paths: &[&str]) -> Change {
    let files = paths.iter().map(|path| file(path, owner)).collect();
    Change::share(owner, "worker-1", format!(".kratix/default-{owner}.yaml"), Some(files))
}

/// Commits what `work` does in a clone.
fn foreign(bed: &Bed, work: impl FnOnce(&Path)) {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path().join("clone");
    git(directory.path(), &["clone", "-q", bed.repository().to_str().expect("UTF-8"), at.to_str().expect("UTF-8")]);
    git(&at, &["checkout", "-q", "-B", "main"]);
    work(&at);
    git(&at, &["add", "."]);
    git(&at, &["commit", "-q", "-m", "somebody else"]);
    git(&at, &["push", "-q", "origin", "HEAD:main"]);
}

// Weakness 17, decision 9.
#[tokio::test]
async fn every_trick_is_refused_by_itself_and_its_batch_mates_are_written() {
    let bed = Bed::new();
    let store = bed.store();
    let long_name = "x".repeat(256);
    let longer_name = "ä".repeat(150);
    let long_path = vec!["abcdefghi"; 420].join("/");
    let tricks = [
        ("", Reason::Empty),
        (".", Reason::Empty),
        ("a/", Reason::Empty),
        ("..", Reason::Escapes),
        ("../x", Reason::Escapes),
        ("a/../../x", Reason::Escapes),
        ("/etc/passwd", Reason::Absolute),
        ("//x", Reason::Absolute),
        (".git/config", Reason::DotGit),
        (".git", Reason::DotGit),
        ("a/.GIT/hooks/post-checkout", Reason::DotGit),
        ("git~1/config", Reason::DotGit),
        ("GIT~1", Reason::DotGit),
        (".git./config", Reason::DotGit),
        (".git /config", Reason::DotGit),
        (".git::$INDEX_ALLOCATION/config", Reason::DotGit),
        (".git:x", Reason::DotGit),
        (".g\u{200c}it/config", Reason::DotGit),
        (".gi\u{200d}t/config", Reason::DotGit),
        ("\u{feff}.git/config", Reason::DotGit),
        (".GI\u{206f}T/config", Reason::DotGit),
        ("a\\b", Reason::Backslash),
        ("..\\x", Reason::Backslash),
        ("a\0b", Reason::Control),
        ("a\nb", Reason::Control),
        ("a\u{85}b", Reason::Control),
        (long_name.as_str(), Reason::TooLong),
        (longer_name.as_str(), Reason::TooLong),
        (long_path.as_str(), Reason::TooLong),
    ];
    let mut changes = Vec::new();
    for (at, (path, _)) in tricks.iter().enumerate() {
        let files = || vec![file("good.yaml", "1"), file(path, "evil")];
        changes.push(Change::replace(format!("r{at}"), format!("worker-1/r{at}"), files()));
        changes.push(Change::edit(format!("e{at}"), "worker-1", files(), vec![]));
        changes.push(Change::edit(format!("d{at}"), "worker-1", vec![], vec![(*path).to_owned()]));
        changes.push(Change::share(format!("s{at}"), "worker-1", format!(".kratix/s{at}.yaml"), Some(files())));
        changes.push(placement(&format!("mate{at}"), "1"));
    }
    for (at, answer) in write_all(&store, changes).await.into_iter().enumerate() {
        let (path, reason) = tricks[at / 5];
        if at % 5 == 4 {
            assert!(answer.expect("a mate is written").changed);
            continue;
        }
        let error = answer.expect_err("a trick is refused");
        assert_eq!(error, WriteError::Path { path: path.to_owned(), reason });
        assert_eq!((error.retry(), error.category()), (Retry::OnChange, "PathRefused"));
        assert!(!error.to_string().contains(['\n', '\0', '\u{200c}', '\u{feff}']), "{error}");
    }
    let paths = bed.paths();
    assert_eq!(paths.len(), tricks.len());
    assert!(paths.iter().all(|path| path.starts_with("worker-1/mate")), "{paths:?}");
    // Tokio interrupts the test while it queues so many.
    assert!(bed.commits() <= 3, "{} commits", bed.commits());
    bed.is_sound();
}

#[tokio::test]
async fn odd_names_that_git_takes_are_written_and_checked_out_as_they_are() {
    let bed = Bed::new();
    let store = bed.store();
    let limit = "x".repeat(255);
    let names = [
        limit.as_str(),
        "con",
        "NUL.yaml",
        "aux/com1",
        "trailing.",
        "trailing ",
        "dots../x",
        " ",
        "...",
        "-rf",
        "a:b",
        "a*b?c",
        "a\"b'c",
        "x~1",
        ".gitmodules",
        ".gitattributes",
        ".gitignore",
        ".kratix/x",
        "日本/ä",
        "a//b/./c",
    ];
    let files = names.iter().map(|name| file(name, name)).collect();
    store.write(Change::replace("odd", "worker-1/odd", files)).await.expect("written");
    let out = bed.directory.path().join("out");
    let clone =
        ["clone", "-q", bed.repository().to_str().expect("UTF-8"), out.to_str().expect("UTF-8")].map(String::from);
    git(bed.directory.path(), &clone.each_ref().map(String::as_str));
    for name in names {
        let content = std::fs::read_to_string(out.join("worker-1/odd").join(name)).expect("checked out");
        assert_eq!(content, name);
    }
    bed.is_sound();
}

#[tokio::test]
async fn the_longest_and_the_deepest_path_can_be_written_read_and_removed_and_one_more_cannot() {
    let bed = Bed::new();
    let mut config = bed.config();
    config.path = "s".to_owned();
    let store = open(config, bed.cache()).expect("usable");
    // 4096 bytes, or 255 names, with the store's path and the directory before them.
    let mut long = vec!["x".repeat(255); 15].join("/");
    long.push('/');
    long.push_str(&"y".repeat(4096 - "s/p/".len() - long.len()));
    let deep = vec!["d"; 255 - 2].join("/");
    for (fits, over, reason) in
        [(&long, format!("{long}y"), Reason::TooLong), (&deep, format!("{deep}/d"), Reason::TooDeep)]
    {
        store.write(Change::replace("a", "p", vec![file(fits, "1")])).await.expect("written");
        store.write(Change::edit("a", "p", vec![file(fits, "2")], vec![])).await.expect("written");
        assert_eq!(store.read(&format!("p/{fits}")).await.expect("readable").as_deref(), Some(&b"2"[..]));
        assert_eq!(store.list("").await.expect("readable"), [format!("p/{fits}")]);
        for change in [
            Change::replace("b", "p", vec![file(&over, "1")]),
            Change::edit("b", "p", vec![file(&over, "1")], vec![]),
            Change::share("b", "p", ".kratix/b.yaml", Some(vec![file(&over, "1")])),
        ] {
            let error = store.write(change).await.expect_err("refused");
            assert!(matches!(error, WriteError::Path { reason: found, .. } if found == reason), "{error}");
        }
        bed.is_sound();
        store.write(Change::remove("a", "p")).await.expect("written");
        assert_eq!(bed.paths(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_tree_that_others_have_nested_without_measure_stops_nobody() {
    let bed = Bed::new();
    let deep = vec!["d"; 20_000].join("/");
    let stream = format!(
        "commit refs/heads/main\ncommitter else <e@example.org> 0 +0000\ndata 1\nx\nM 100644 inline {deep}/f\ndata 1\nx\n"
    );
    let mut import = Command::new("git")
        .args(["-C", bed.repository().to_str().expect("UTF-8"), "fast-import", "--quiet"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("git is installed");
    import.stdin.take().expect("piped").write_all(stream.as_bytes()).expect("written");
    assert!(import.wait().expect("ended").success());
    let store = bed.store();
    assert_eq!(store.list("").await.expect("readable"), [format!("{deep}/f")]);
    store.write(placement("a", "1")).await.expect("written");
    store.write(share("b", &["b.yaml"])).await.expect("written");
    let inside = store.write(Change::replace("c", "d/d/d", vec![file("f", "1")])).await.expect("written");
    assert!(inside.changed, "what is below a directory of ours is replaced however deep it is");
    assert_eq!(store.list("d").await.expect("readable"), ["d/d/d/f"]);
}

#[tokio::test]
async fn paths_of_one_change_that_some_file_systems_take_for_one_are_refused_and_both_are_named() {
    let bed = Bed::new();
    let store = bed.store();
    let clashes = [
        ("A.yaml", "a.yaml"),
        ("dir/A.yaml", "Dir/a.yaml"),
        ("caf\u{e9}.yaml", "cafe\u{301}.yaml"),
        ("\u{c9}.yaml", "e\u{301}.yaml"),
        ("x", "X/y"),
        ("X/y/z", "x/Y"),
    ];
    for (one, other) in clashes {
        let files = || vec![file(one, "1"), file("mate.yaml", "1"), file(other, "1")];
        for change in [
            Change::replace("a", "worker-1/a", files()),
            Change::edit("a", "worker-1", files(), vec![]),
            Change::share("a", "worker-1", ".kratix/a.yaml", Some(files())),
        ] {
            let error = store.write(change).await.expect_err("ambiguous");
            let WriteError::Alike { path, other: second } = &error else { panic!("{error:?}") };
            let mut named = [path.as_str(), second.as_str()];
            let mut given = [one, other];
            named.sort_unstable();
            given.sort_unstable();
            assert_eq!(named, given);
            assert_eq!((error.category(), error.retry()), ("PathAmbiguous", Retry::OnChange));
            assert!(error.to_string().contains("ignore case or Unicode forms"), "{error}");
        }
    }
    assert_eq!(bed.commits(), 0);
    // Directories may be spelled in two ways as long as no file of one is a file of the other.
    let files = vec![file("Config/a", "1"), file("config/b", "1"), file("same", "1"), file("same", "1")];
    store.write(Change::replace("a", "worker-1/a", files)).await.expect("written");
    assert_eq!(bed.paths().len(), 3);
}

#[tokio::test]
async fn foreign_files_that_differ_in_case_or_form_only_are_left_alone() {
    let bed = Bed::new();
    bed.foreign_push("worker-1/A.yaml", "theirs");
    bed.foreign_push("worker-1/cafe\u{301}.yaml", "theirs");
    bed.foreign_push("worker-1/P/a.yaml", "theirs");
    let store = bed.store();
    let changes = vec![share("a", &["a.yaml", "caf\u{e9}.yaml"]), placement("p", "1")];
    assert!(write_all(&store, changes).await.iter().all(Result::is_ok));
    assert_eq!(bed.git(&["show", "main:worker-1/A.yaml"]), "theirs");
    assert_eq!(bed.git(&["show", "main:worker-1/a.yaml"]), "a");
    store.write(Change::share("a", "worker-1", ".kratix/default-a.yaml", None)).await.expect("removed");
    store.write(Change::remove("p", "worker-1/p")).await.expect("removed");
    assert_eq!(bed.paths(), ["worker-1/A.yaml", "worker-1/P/a.yaml", "worker-1/cafe\u{301}.yaml"]);
}

// Decision 16, weakness 22.
#[tokio::test]
async fn of_two_owners_of_a_shared_directory_the_second_is_told_whose_its_path_is_in_whatever_spelling() {
    let bed = Bed::new();
    let store = bed.store();
    store.write(share("a", &["A.yaml", "caf\u{e9}.yaml"])).await.expect("written");
    for (path, other) in [("a.yaml", "A.yaml"), ("CAFE\u{301}.yaml", "caf\u{e9}.yaml")] {
        let error = store.write(share("b", &[path])).await.expect_err("refused");
        let expected = WriteError::AlikeOwned {
            path: format!("worker-1/{path}"),
            other: format!("worker-1/{other}"),
            owner: "default-a".to_owned(),
        };
        assert_eq!(error, expected);
        assert_eq!((error.category(), error.retry()), ("PathOwned", Retry::Backoff));
    }
    let same = store.write(share("b", &["A.yaml"])).await.expect_err("refused");
    assert_eq!(same, WriteError::Owned { path: "worker-1/A.yaml".to_owned(), owner: "default-a".to_owned() });
    // The owner itself may respell it.
    store.write(share("a", &["a.YAML"])).await.expect("written");
    assert_eq!(bed.paths(), ["worker-1/.kratix/default-a.yaml", "worker-1/a.YAML"]);
    store.write(share("b", &["caf\u{e9}.yaml"])).await.expect("it is free now");
}

#[tokio::test]
async fn the_directory_of_the_ledgers_is_nobodys_in_whatever_spelling() {
    let bed = Bed::new();
    let store = bed.store();
    store.write(share("a", &["a.yaml"])).await.expect("written");
    for path in [".kratix/default-a.yaml", ".KRATIX/default-a.yaml", ".\u{212a}ratix/x", ".Kratix/deep/er"] {
        let error = store.write(share("b", &[path])).await.expect_err("refused");
        let owner = "the ledgers of this directory".to_owned();
        assert_eq!(error, WriteError::Owned { path: format!("worker-1/{path}"), owner });
    }
    store.write(share("b", &["deep/.kratix/x"])).await.expect("elsewhere it is a name like any other");
}

#[tokio::test]
async fn links_files_and_directories_of_others_are_neither_followed_nor_replaced() {
    let bed = Bed::new();
    foreign(&bed, |clone| {
        let make = |directory: &str| std::fs::create_dir_all(clone.join(directory)).expect("a directory");
        let put = |path: &str| std::fs::write(clone.join(path), "theirs").expect("a file");
        make("outside");
        put("outside/keep");
        make("worker-1/full");
        put("worker-1/full/keep");
        put("worker-1/plain");
        std::os::unix::fs::symlink("../outside", clone.join("worker-1/link")).expect("a link");
        std::os::unix::fs::symlink("../outside/keep", clone.join("worker-1/pointer")).expect("a link");
    });
    let store = bed.store();
    let blocked = |path: &str, obstacle: &str, kind| {
        Err(WriteError::Blocked { path: path.to_owned(), obstacle: obstacle.to_owned(), kind })
    };
    let head = bed.head();
    let nested = |id: &str, directory: &str| Change::replace(id, directory, vec![file("keep", "evil")]);
    let changes = vec![
        share("link", &["link/keep"]),
        share("under", &["plain/x"]),
        share("over", &["full"]),
        nested("nested-link", "worker-1/link/p"),
        nested("nested-under", "worker-1/plain/p"),
        Change::share("inside", "worker-1/link", ".kratix/inside.yaml", Some(vec![file("keep", "evil")])),
        placement("mate", "1"),
    ];
    let answers = write_all(&store, changes).await;
    assert_eq!(answers[0], blocked("worker-1/link/keep", "worker-1/link", "symbolic link"));
    assert_eq!(answers[1], blocked("worker-1/plain/x", "worker-1/plain", "file"));
    assert_eq!(answers[2], blocked("worker-1/full", "worker-1/full", "directory"));
    assert_eq!(answers[3], blocked("worker-1/link/p", "worker-1/link", "symbolic link"));
    assert_eq!(answers[4], blocked("worker-1/plain/p", "worker-1/plain", "file"));
    assert_eq!(answers[5], blocked("worker-1/link/keep", "worker-1/link", "symbolic link"));
    assert!(answers[6].is_ok());
    let changed = bed.git(&["diff", "--name-only", &head, "main"]);
    assert_eq!(changed.trim(), "worker-1/mate/a.yaml");

    // A link where a file of ours belongs is replaced, and what it points at is not.
    store.write(share("pointer", &["pointer"])).await.expect("written");
    assert!(bed.git(&["ls-tree", "main", "worker-1/pointer"]).starts_with("100644 blob"));
    assert_eq!(bed.git(&["show", "main:outside/keep"]), "theirs");
    bed.is_sound();
}

// Decision 16: state files of the original that overlap already.
#[tokio::test]
async fn of_two_ledgers_that_list_one_path_the_first_by_name_keeps_it_and_the_other_is_told() {
    let bed = Bed::new();
    bed.foreign_push("worker-1/same.yaml", "b");
    bed.foreign_push("worker-1/.kratix/default-a.yaml", "files:\n- worker-1/same.yaml\n- worker-1/a.yaml\n");
    bed.foreign_push("worker-1/.kratix/default-b.yaml", "files:\n- worker-1/same.yaml\n- worker-1/b.yaml\n");
    let store = bed.store();
    let owned = WriteError::Owned { path: "worker-1/same.yaml".to_owned(), owner: "default-a".to_owned() };
    // As long as both want the same there is nothing to settle.
    let agreed = Change::share(
        "b",
        "worker-1",
        ".kratix/default-b.yaml",
        Some(vec![file("same.yaml", "b"), file("b.yaml", "b")]),
    );
    store.write(agreed).await.expect("written");
    for round in ["1", "2"] {
        // Not in turns: the content of the first stays.
        store.write(share("a", &["same.yaml", "a.yaml"])).await.expect("written");
        assert_eq!(store.write(share("b", &["same.yaml", "b.yaml"])).await, Err(owned.clone()), "round {round}");
        assert_eq!(bed.git(&["show", "main:worker-1/same.yaml"]), "a");
        assert_eq!(bed.store().write(share("b", &["same.yaml", "b.yaml"])).await, Err(owned.clone()));
    }
    // The other gives it up: the file stays, and the ledgers overlap no longer.
    store.write(share("b", &["b.yaml"])).await.expect("written");
    assert_eq!(bed.git(&["show", "main:worker-1/same.yaml"]), "a");
    assert_eq!(bed.git(&["show", "main:worker-1/.kratix/default-b.yaml"]), "files:\n- worker-1/b.yaml\n");
    // Or the first does, and the other has it.
    bed.foreign_push("worker-1/.kratix/default-b.yaml", "files:\n- worker-1/same.yaml\n");
    store.write(Change::share("a", "worker-1", ".kratix/default-a.yaml", None)).await.expect("removed");
    assert!(bed.paths().contains(&"worker-1/same.yaml".to_owned()), "it is still listed");
    store.write(share("b", &["same.yaml"])).await.expect("written");
    assert_eq!(bed.git(&["show", "main:worker-1/same.yaml"]), "b");
}

#[tokio::test]
async fn one_path_given_twice_is_one_file_if_the_contents_agree() {
    let bed = Bed::new();
    let store = bed.store();
    let twice = |one: &str, other: &str| vec![File::new("x/y", one.to_owned()), File::new("x//./y", other.to_owned())];
    store.write(Change::replace("a", "worker-1/a", twice("1", "1"))).await.expect("written");
    let error = store.write(Change::replace("a", "worker-1/a", twice("1", "2"))).await.expect_err("ambiguous");
    assert_eq!(error, WriteError::Ambiguous { path: "x/y".to_owned() });
    assert_eq!(bed.paths(), ["worker-1/a/x/y"]);
}
