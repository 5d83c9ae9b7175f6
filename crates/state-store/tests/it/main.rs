//! Stores against real repositories, read back by the real `git`.

mod authorities;
mod bucket;
mod crash;
mod faults;
mod gitea;
mod github_app;
mod http;
mod imprint;
mod local;
mod model;
mod paths;
mod process;
mod queue;
mod remote;
mod roots;
mod share;
mod signing;
mod situations;
mod ssh;

use std::path::{Path, PathBuf};
use std::process::Command;

use kratix_state_store::{Change, Error, File, GitConfig, Handle, WriteError, Written, init_bare, open};
use kratix_testing::git_http::Server;
use tempfile::TempDir;

/// A bare repository in a directory of its own, and a place for caches.
struct Bed {
    directory: TempDir,
}

impl Bed {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let bed = Self { directory };
        init_bare(bed.repository(), "main").expect("a repository");
        bed
    }

    fn repository(&self) -> PathBuf {
        self.directory.path().join("state.git")
    }

    fn cache(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    fn config(&self) -> GitConfig {
        GitConfig::new("default", self.repository().to_str().expect("UTF-8"))
    }

    fn store(&self) -> Handle {
        open(self.config(), self.cache()).expect("a usable configuration")
    }

    fn git(&self, arguments: &[&str]) -> String {
        git(&self.repository(), arguments)
    }

    /// Runs git with an input.
    fn feed(&self, arguments: &[&str], input: &str) -> String {
        let mut given = tempfile::tempfile().expect("a file");
        std::io::Write::write_all(&mut given, input.as_bytes()).expect("written");
        std::io::Seek::rewind(&mut given).expect("at its beginning");
        let output = Command::new("git")
            .args(arguments)
            .current_dir(self.repository())
            .stdin(given)
            .output()
            .expect("git is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Returns path and content of each file of the branch.
    fn files(&self) -> Vec<(String, String)> {
        let tree = self.git(&["ls-tree", "-r", "-z", "main"]);
        let entries = tree.split('\0').filter_map(|entry| entry.split_once('\t'));
        let (meta, paths): (Vec<&str>, Vec<&str>) = entries.unzip();
        let objects: String =
            meta.iter().map(|meta| format!("{}\n", meta.rsplit(' ').next().expect("an object"))).collect();
        let mut contents = self.feed(&["cat-file", "--batch"], &objects);
        let mut next = || {
            let header = contents.lines().next().expect("a header");
            let (start, size) = (header.len() + 1, header.rsplit(' ').next().expect("a size").parse::<usize>());
            let end = start + size.expect("a number");
            let content = contents[start..end].to_owned();
            contents.drain(..=end);
            content
        };
        paths.into_iter().map(|path| (path.to_owned(), next())).collect()
    }

    fn paths(&self) -> Vec<String> {
        let names = self.git(&["ls-tree", "-r", "-z", "--name-only", "main"]);
        names.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    fn commits(&self) -> usize {
        let count = self.git(&["rev-list", "--count", "--all"]);
        count.trim().parse().expect("a number")
    }

    fn head(&self) -> String {
        self.git(&["rev-parse", "main"]).trim().to_owned()
    }

    /// The repository is sound by git's own judgement.
    ///
    /// A repack that outlived its process takes packs away under the eyes of `fsck`, which then asks in vain for them; the
    /// next look finds the new ones. Damage is found by every look.
    fn is_sound(&self) {
        let fsck = ["fsck", "--full", "--strict"];
        let looks = (0..20).map(|_| try_git(&self.repository(), &fsck));
        let mut last = String::new();
        for (success, _, stderr) in looks {
            if success {
                return;
            }
            last = stderr;
        }
        panic!("git {fsck:?}: {last}");
    }

    /// Commits one file as somebody else.
    fn foreign_push(&self, path: &str, content: &str) {
        let from = match self.try_git(&["rev-parse", "--verify", "-q", "main"]).0 {
            true => "from refs/heads/main^0\n",
            false => "",
        };
        let commit = "commit refs/heads/main\ncommitter somebody else <e@example.org> now\ndata 13\nsomebody else\n";
        let import = format!("{commit}{from}M 644 inline {path}\ndata {}\n{content}\n", content.len());
        self.feed(&["fast-import", "--quiet", "--date-format=now"], &import);
    }

    fn try_git(&self, arguments: &[&str]) -> (bool, String, String) {
        try_git(&self.repository(), arguments)
    }
}

/// The repository of a bed, as its server gives it.
fn config(server: &Server) -> GitConfig {
    let mut config = GitConfig::new("default", server.url("state.git"));
    config.tls.ca_pem = server.ca_pem().map(|pem| pem.as_bytes().to_vec());
    config
}

/// Opens the repository of a bed by way of its server.
fn store(bed: &Bed, server: &Server) -> Handle {
    open(config(server), bed.cache()).expect("usable")
}

/// Returns what is wrong with the store.
fn trouble(result: Result<Written, WriteError>) -> Error {
    match result {
        Err(WriteError::Store(error)) => error,
        other => panic!("expected trouble with the store, got {other:?}"),
    }
}

/// Runs git without regard to who runs the tests.
fn git(directory: &Path, arguments: &[&str]) -> String {
    let (success, stdout, stderr) = try_git(directory, arguments);
    assert!(success, "git {arguments:?}: {stderr}");
    stdout
}

fn try_git(directory: &Path, arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .envs([("GIT_AUTHOR_NAME", "else"), ("GIT_AUTHOR_EMAIL", "e@example.org")])
        .envs([("GIT_COMMITTER_NAME", "else"), ("GIT_COMMITTER_EMAIL", "e@example.org")])
        .output()
        .expect("git is installed");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

fn file(path: &str, content: &str) -> File {
    File::new(path, content.to_owned())
}

/// A change that fills `worker-1/<name>` with one file.
fn placement(name: &str, content: &str) -> Change {
    Change::replace(name, format!("worker-1/{name}"), vec![file("a.yaml", content)])
}
