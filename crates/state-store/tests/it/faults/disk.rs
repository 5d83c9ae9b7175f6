//! Disks that are full or cannot be written.

use std::path::{Path, PathBuf};
use std::process::Command;

use kratix_state_store::{
    BucketAuth, BucketConfig, Change, Environment, Error, File, GitConfig, Handle, Retry, Trouble, WriteError,
    init_bare, open,
};
use kratix_testing::git_http::Server;

use super::{noise, write_in_the_end};
use crate::{Bed, config, git, placement, trouble, try_git};

/// A small disk of its own, gone when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    /// Returns a disk, or `None` if it has run the test in a namespace where it may mount one, or says that it cannot be run.
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn new(megabytes: usize, test: &str) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let options = ["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"];
        if privileged("mount", &options, directory.path()) {
            return Some(Self(directory));
        }
        let unshare = ["--user", "--map-root-user", "--mount"];
        let may = Command::new("unshare").args(unshare).arg("mount").args(options).arg(directory.path()).output();
        if may.is_ok_and(|output| output.status.success()) {
            let this = std::env::current_exe().expect("this test");
            let output =
                Command::new("unshare").args(unshare).arg(this).args(["--exact", test]).output().expect("started");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            return None;
        }
        let why = "no disk of its own for this test: it takes the right to mount";
        assert!(std::env::var_os("CI").is_none(), "{why}");
        eprintln!("skipped: {why}");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn set_read_only(&self, read_only: bool) {
        let option = if read_only { "remount,bind,ro" } else { "remount,bind,rw" };
        assert!(privileged("mount", &["-o", option], self.path()), "{option}");
    }

    /// Leaves less space than anything takes.
    fn fill(&self) -> PathBuf {
        let ballast = self.path().join("ballast");
        let mut file = std::fs::File::create(&ballast).expect("a file");
        let block = vec![1; 4096];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        ballast
    }

    /// Fills the disk until it takes no placement any more. What was removed before may free its space only now: a process that
    /// another test has just started holds a copy of the file for a moment. Returns the ballast, the refusal, and how often
    /// there was room.
    async fn fill_up(&self, store: &Handle) -> (PathBuf, Error, usize) {
        for room in 0..100 {
            let ballast = self.fill();
            match store.write(placement("b", &format!("there was room {room} times"))).await {
                Err(WriteError::Store(error)) => return (ballast, error, room),
                Err(error) => panic!("expected trouble with the store, got {error:?}"),
                Ok(_) => {}
            }
        }
        panic!("the disk never fills up");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        privileged("umount", &["--lazy"], self.path());
    }
}

fn privileged(program: &str, options: &[&str], at: &Path) -> bool {
    let runs =
        |mut command: Command| command.args(options).arg(at).output().is_ok_and(|output| output.status.success());
    let mut with_sudo = Command::new("sudo");
    with_sudo.args(["-n", program]);
    runs(Command::new(program)) || runs(with_sudo)
}

fn big(id: &str, bytes: usize) -> Change {
    Change::replace(id, format!("worker-1/{id}"), vec![File::new("big", noise(bytes))])
}

fn local(disk: &Disk) -> (PathBuf, Handle) {
    // Whoever runs the test owns it, whoever has mounted it.
    let repository = disk.path().join("state.git");
    init_bare(&repository, "main").expect("a repository");
    let config = GitConfig::new("default", repository.to_str().expect("UTF-8"));
    (repository, open(config, disk.path()).expect("usable"))
}

#[tokio::test]
async fn a_full_disk_under_a_local_repository_refuses_and_recovers() {
    let Some(disk) = Disk::new(4, "faults::disk::a_full_disk_under_a_local_repository_refuses_and_recovers") else {
        return;
    };
    let (repository, store) = local(&disk);
    store.write(placement("a", "1")).await.expect("written");
    // Too big for what is left, so that it fails in the middle.
    for _ in 0..3 {
        let error = trouble(store.write(big("big", 6 << 20)).await);
        assert_eq!((error.category(), error.retry()), ("DiskFull", Retry::Backoff), "{error}");
        assert!(error.to_string().contains("no space is left on the disk of "), "{error}");
        assert_eq!(error.hint().as_deref(), Some("make space on the disk"));
    }
    // What was begun is gone again, so that something smaller has room.
    write_in_the_end(&store, big("smaller", 1 << 20)).await;
    let (ballast, error, room) = disk.fill_up(&store).await;
    assert_eq!(error.category(), "DiskFull", "{error}");
    assert_eq!(store.check().await.err().map(|error| error.category()), None, "an empty file still fits");
    let left = |directory: &str| -> Vec<String> {
        let entries = std::fs::read_dir(repository.join(directory)).expect("a directory");
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let packs = left("objects/pack");
    assert!(packs.iter().all(|name| !name.starts_with("tmp_")), "{packs:?}");
    let count = |extension: &str| packs.iter().filter(|name| name.ends_with(extension)).count();
    assert_eq!(count(".pack"), count(".idx"), "{packs:?}");
    assert!(left("refs/heads").iter().all(|name| !name.ends_with(".lock")));
    std::fs::remove_file(ballast).expect("removed");
    // Its space is there once no process that another test has just started holds a copy of the file.
    write_in_the_end(&store, placement("b", "1")).await;
    let (sound, _, stderr) = try_git(&repository, &["fsck", "--full", "--strict"]);
    assert!(sound, "{stderr}");
    assert_eq!(git(&repository, &["rev-list", "--count", "main"]).trim(), (3 + room).to_string());
}

#[tokio::test]
async fn a_full_disk_under_the_cache_of_a_remote_refuses_and_recovers() {
    let Some(disk) = Disk::new(4, "faults::disk::a_full_disk_under_the_cache_of_a_remote_refuses_and_recovers") else {
        return;
    };
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let store = open(config(&server), disk.path().join("cache")).expect("usable");
    store.write(placement("a", "1")).await.expect("written");
    let error = trouble(store.write(big("big", 6 << 20)).await);
    assert_eq!((error.category(), error.retry()), ("DiskFull", Retry::Backoff), "{error}");
    let (ballast, error, _) = disk.fill_up(&store).await;
    assert_eq!(error.category(), "DiskFull", "{error}");
    // What others push has no room either, and git says so.
    std::fs::remove_file(&ballast).expect("removed");
    bed.store().write(big("theirs", 6 << 20)).await.expect("written");
    let fresh = open(config(&server), disk.path().join("fresh")).expect("usable");
    let error = trouble(fresh.write(placement("b", "1")).await);
    assert_eq!(error.category(), "DiskFull", "{error}");
    assert!(error.to_string().ends_with("no space is left on the disk of the cache"), "{error}");
    bed.store().write(Change::remove("theirs", "worker-1/theirs")).await.expect("removed");
    write_in_the_end(&store, placement("b", "1")).await;
    assert_eq!(bed.paths(), ["worker-1/a/a.yaml", "worker-1/b/a.yaml"]);
    bed.is_sound();
}

#[tokio::test]
async fn a_full_disk_of_the_server_is_told_as_such_and_what_has_room_is_written() {
    let Some(disk) =
        Disk::new(4, "faults::disk::a_full_disk_of_the_server_is_told_as_such_and_what_has_room_is_written")
    else {
        return;
    };
    let repository = disk.path().join("state.git");
    init_bare(&repository, "main").expect("a repository");
    let server = Server::plain(disk.path()).await;
    let cache = tempfile::tempdir().expect("a directory");
    let store = open(config(&server), cache.path()).expect("usable");
    store.write(placement("a", "1")).await.expect("written");
    // Unpacked into single files, or kept as it comes.
    for limit in ["100", "1"] {
        git(&repository, &["config", "receive.unpackLimit", limit]);
        let pushes = server.pushes();
        let (big, small) = tokio::join!(store.write(big("big", 6 << 20)), store.write(placement("b", limit)));
        // What is smaller has room: nothing of the other was left on the server.
        small.expect("written");
        let Err(WriteError::Store(error) | WriteError::Refused(error)) = big else { panic!("there is no room for it") };
        assert_eq!(error.trouble, Trouble::DiskFull("the server".to_owned()));
        assert_eq!((error.retry(), error.hint().as_deref()), (Retry::Backoff, Some("make space on the disk")));
        assert!((2..=4).contains(&(server.pushes() - pushes)), "it is looked for what has room, once");
    }
    let (sound, _, stderr) = try_git(&repository, &["fsck", "--full", "--strict"]);
    assert!(sound, "{stderr}");
}

#[tokio::test]
async fn a_full_disk_under_a_directory_in_place_of_a_bucket_refuses_and_recovers() {
    let Some(disk) =
        Disk::new(4, "faults::disk::a_full_disk_under_a_directory_in_place_of_a_bucket_refuses_and_recovers")
    else {
        return;
    };
    std::fs::create_dir(disk.path().join("bucket")).expect("a directory");
    let endpoint = format!("file://{}", disk.path().display());
    let auth = BucketAuth::Ambient(Environment::default());
    let config = BucketConfig::new("default", endpoint, "bucket", auth);
    let store = open(config, PathBuf::new()).expect("usable");
    store.write(placement("a", "1")).await.expect("written");
    let error = trouble(store.write(big("big", 6 << 20)).await);
    assert_eq!((error.category(), error.retry()), ("DiskFull", Retry::Backoff), "{error}");
    assert_eq!(store.read("worker-1/big/big").await.expect("readable"), None, "no half of it is there");
    write_in_the_end(&store, big("smaller", 1 << 20)).await;
    assert_eq!(store.list("worker-1").await.expect("readable"), ["worker-1/a/a.yaml", "worker-1/smaller/big"]);
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_is_named_and_what_was_written_stays() {
    let Some(disk) = Disk::new(4, "faults::disk::a_disk_that_cannot_be_written_is_named_and_what_was_written_stays")
    else {
        return;
    };
    let (_, store) = local(&disk);
    store.write(placement("a", "1")).await.expect("written");
    disk.set_read_only(true);
    let error = trouble(store.write(placement("b", "1")).await);
    assert_eq!((error.category(), error.retry()), ("StoreIo", Retry::Backoff), "{error}");
    assert!(error.to_string().contains("Read-only file system"), "{error}");
    assert_eq!(store.check().await.expect_err("read-only").category(), "StoreIo");
    assert!(!store.write(placement("a", "1")).await.expect("nothing to do").changed);

    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let remote = open(config(&server), disk.path().join("cache")).expect("usable");
    let error = trouble(remote.write(placement("a", "1")).await);
    assert!(error.to_string().contains("Read-only file system"), "{error}");

    disk.set_read_only(false);
    store.write(placement("b", "1")).await.expect("written");
    remote.write(placement("a", "1")).await.expect("written");
}
