//! How the `git` program is run: what it sees of the surroundings, what it tells of its work, when it is ended.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kratix_state_store::{Auth, GitConfig, Trace, Trouble, WriteError, open};
use kratix_testing::git_http::{Fault, Server};
use kratix_testing::hook;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::{Bed, placement};

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl Log {
    /// Takes what this thread logs from now on.
    fn start(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let format = tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::TRACE);
        tracing::subscriber::set_default(format.with_ansi(false).with_writer(move || log.clone()).finish())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no panic")).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_git_traces_is_logged_without_credentials_and_leaves_no_file() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    server.require("kratix", "s3cret-word");
    let auth = Auth::Basic { username: "kratix".to_owned(), password: "s3cret-word".into() };
    let quiet = GitConfig { auth, ..GitConfig::new("default", server.url("state.git")) };
    let log = Log::default();
    let _guard = log.start();
    open(quiet.clone(), bed.cache()).expect("usable").write(placement("a", "1")).await.expect("written");
    assert!(!log.text().contains("run_command"), "not asked for: {}", log.text());

    // There is something to be brought, which is for git to do.
    bed.foreign_push("theirs", "t");
    let trace = Trace { commands: true, packets: true };
    let store = open(GitConfig { trace, ..quiet }, bed.cache()).expect("usable");
    store.write(placement("b", "1")).await.expect("written");
    server.require("kratix", "other");
    store.write(placement("c", "1")).await.expect_err("refused");
    let text = log.text();
    assert!(text.contains("DEBUG") && text.contains("run_command"), "commands: {text}");
    assert!(text.contains("packet:        fetch>"), "packets of git: {text}");
    let pushed = text.lines().find(|line| line.contains("packet: git-receive-pack> "));
    assert!(pushed.is_some_and(|line| line.contains(" refs/heads/main")), "packets of this process: {text}");
    for secret in ["s3cret-word", "a3JhdGl4OnMzY3JldC13b3Jk"] {
        assert!(!text.contains(secret), "{text}");
    }
    for cache in std::fs::read_dir(bed.cache()).expect("caches").flatten() {
        assert!(!cache.path().join("home/trace").exists());
    }
}

const AS_CHILD: &str = "KRATIX_TEST_PROXIED_URL";

/// Not a test by itself: reads a store in a process whose surroundings the test below has made.
#[test]
fn child() {
    let Some(url) = std::env::var_os(AS_CHILD) else { return };
    let cache = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let config = GitConfig::new("default", url.to_string_lossy());
    runtime.block_on(async { open(config, cache.path()).expect("usable").check().await }).expect_err("no such host");
}

#[tokio::test]
async fn the_proxies_of_the_process_are_used_however_their_names_are_written() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let proxy = format!("http://{}", listener.local_addr().expect("an address"));
    for (name, exceptions, is_used) in [
        ("https_proxy", "", true),
        ("HTTPS_PROXY", "", true),
        ("all_proxy", "", true),
        ("ALL_PROXY", "", true),
        ("https_proxy", "no_proxy", false),
        ("https_proxy", "NO_PROXY", false),
    ] {
        let mut command = tokio::process::Command::new(std::env::current_exe().expect("this test"));
        command.args(["--exact", "process::child"]).env(AS_CHILD, "https://git.invalid/x.git").kill_on_drop(true);
        for other in ["http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"] {
            command.env_remove(other);
        }
        command.env(name, &proxy);
        if !exceptions.is_empty() {
            command.env(exceptions, "git.invalid");
        }
        let mut ended = Box::pin(command.output());
        let asked = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut head = vec![0; 1024];
            let length = stream.read(&mut head).await.expect("a request");
            stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").await.expect("an answer");
            String::from_utf8_lossy(&head[..length]).into_owned()
        };
        tokio::select! {
            request = asked => {
                assert!(is_used && request.starts_with("CONNECT git.invalid:443 "), "{name} {exceptions}: {request}");
                let output = ended.await.expect("the process ends");
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            }
            output = &mut ended => {
                let output = output.expect("the process ends");
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
                assert!(!is_used, "{name} was not used");
            }
        }
    }
}

#[tokio::test]
async fn git_that_does_not_end_when_it_is_told_is_ended() {
    let bed = Bed::new();
    // A hook in a repository on this machine that does not mind being told.
    let hook = hook::install(&bed.repository(), "pre-receive", "trap '' TERM\nwhile :; do sleep 1; done");
    let second = Duration::from_secs(1);
    let started = Instant::now();
    let store = open(GitConfig { deadline: second, grace: second, ..bed.config() }, bed.cache()).expect("usable");
    match store.write(placement("a", "1")).await {
        Err(WriteError::Store(error)) => assert_eq!(error.trouble, Trouble::Timeout(second)),
        other => panic!("{other:?}"),
    }
    assert!(started.elapsed() >= second);
    // What git had started is gone with it.
    std::fs::remove_file(&hook).expect("removed");
    store.write(placement("a", "1")).await.expect("written");

    let server = Server::plain(bed.directory.path()).await;
    server.fail(Fault::Hang);
    let config = GitConfig { deadline: second, ..GitConfig::new("default", server.url("state.git")) };
    let error = open(config, bed.cache()).expect("usable").check().await.expect_err("no answer");
    assert_eq!(error.trouble, Trouble::Timeout(second));
}
