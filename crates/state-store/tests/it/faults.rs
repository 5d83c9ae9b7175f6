//! Faults of servers, disks and processes. `docs/reliability.md` lists them with what the product does.

mod answers;
mod cache;
mod disk;
mod outage;
mod processes;

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use kratix_state_store::{Change, Handle, Retry, Written, open};
use kratix_testing::git_http::Server;
use kratix_testing::wait::DEADLINE;

use crate::{Bed, config};

/// A store that gives a server two seconds for each exchange: enough for what works, and soon over for what hangs.
fn hasty_store(bed: &Bed, server: &Server) -> Handle {
    let mut config = config(server);
    config.deadline = Duration::from_secs(2);
    open(config, bed.cache()).expect("usable")
}

/// Writes until the store takes it, as a controller does; every failure before that must be one that is worth another try.
async fn write_in_the_end(store: &Handle, change: Change) -> Written {
    let started = tokio::time::Instant::now();
    loop {
        match store.write(change.clone()).await {
            Ok(written) => return written,
            Err(error) => {
                assert_ne!(error.retry(), Retry::OnChange, "{error}");
                assert!(started.elapsed() < DEADLINE, "still failing: {error}");
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Commits a file as somebody else, in the repository itself.
fn foreign_commit(bed: &Bed, path: &str) {
    let index = tempfile::NamedTempFile::new().expect("a file");
    std::fs::remove_file(index.path()).expect("git makes it");
    let git = |arguments: &[&str], input: &str| {
        let mut child = Command::new("git")
            .args(arguments)
            .current_dir(bed.repository())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("GIT_INDEX_FILE", index.path())
            .envs([("GIT_AUTHOR_NAME", "else"), ("GIT_AUTHOR_EMAIL", "e@example.org")])
            .envs([("GIT_COMMITTER_NAME", "else"), ("GIT_COMMITTER_EMAIL", "e@example.org")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("git is installed");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("written");
        let output = child.wait_with_output().expect("ended");
        assert!(output.status.success(), "git {arguments:?}");
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    };
    let head = git(&["rev-parse", "main"], "");
    git(&["read-tree", &head], "");
    let blob = git(&["hash-object", "-w", "--stdin"], "theirs");
    git(&["update-index", "--add", "--cacheinfo", &format!("100644,{blob},{path}")], "");
    let tree = git(&["write-tree"], "");
    let commit = git(&["commit-tree", &tree, "-p", &head, "-m", "somebody else"], "");
    git(&["update-ref", "refs/heads/main", &commit, &head], "");
}

/// Returns how often each change was committed, by the lines of all messages.
fn written(bed: &Bed) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in bed.git(&["log", "--format=%B", "main"]).lines() {
        if let Some(id) = line.strip_prefix("Update from: ").filter(|id| !id.ends_with(" changes")) {
            *counts.entry(id.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// Returns the processes that work in the cache of `bed`: their ids and what they were started as.
fn git_processes(bed: &Bed) -> Vec<(i32, String)> {
    let marker = format!("GIT_DIR={}", bed.cache().display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("a process table").flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that has ended meanwhile, or is somebody else's.
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
        let Ok(command) = std::fs::read(entry.path().join("cmdline")) else { continue };
        if String::from_utf8_lossy(&environment).split('\0').any(|variable| variable.starts_with(&marker)) {
            found.push((id, String::from_utf8_lossy(&command).replace('\0', " ")));
        }
    }
    found
}

/// Bytes that do not shrink when they are packed.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}
