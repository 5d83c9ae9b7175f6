//! The `git` program, for what only it can do: speaking with other machines.
//!
//! It sees nothing of this process's surroundings but what is listed here, asks nobody anything, and gets credentials through
//! its environment only: arguments can be read by every user of the machine.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::remote::retry_after;
use super::{io, ssh};
use crate::config::Trace;
use crate::error::Trouble;

/// How much of what git says is kept; the rest is read and dropped.
const OUTPUT_BYTES_MAX: usize = 256 << 10;
/// How much of what git traces is logged.
const TRACE_BYTES_MAX: u64 = 64 << 10;
/// What git may know of this process's environment.
const PASSED: [&str; 13] = [
    "PATH",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "LD_LIBRARY_PATH",
];

/// A call of git in a repository.
pub(super) struct Git {
    directory: PathBuf,
    home: PathBuf,
    settings: Vec<(String, String)>,
    traces_headers: bool,
    keeps_headers: bool,
    trace: Trace,
    /// There as long as git may ask for them.
    ssh: Option<ssh::Files>,
    limits: Limits,
}

/// How long a call may take.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Until git is told to end.
    pub(super) deadline: Duration,
    /// And from then on until it is ended.
    pub(super) grace: Duration,
}

/// How a call ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) success: bool,
    pub(super) stdout: String,
    pub(super) stderr: String,
    /// For how long the server asks to be left alone; known with [`Git::keep_headers`].
    pub(super) retry_after: Option<Duration>,
}

impl Git {
    /// Prepares calls in `directory`; `home` is an empty directory.
    pub(super) fn new(directory: PathBuf, home: PathBuf, limits: Limits) -> Self {
        let (settings, traces_headers, keeps_headers) = (Vec::new(), false, false);
        let trace = Trace::default();
        let mut git = Self { directory, home, settings, traces_headers, keeps_headers, trace, ssh: None, limits };
        for (name, value) in [
            ("protocol.allow", "never"),
            ("protocol.https.allow", "always"),
            ("protocol.http.allow", "always"),
            ("protocol.file.allow", "always"),
            ("safe.directory", "*"),
            ("core.hooksPath", "/dev/null"),
            ("credential.helper", ""),
            ("http.followRedirects", "false"),
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            ("fetch.unpackLimit", "1"),
            ("pack.threads", "1"),
            ("core.compression", "1"),
            ("core.fsync", "none"),
        ] {
            git.set(name, value);
        }
        git
    }

    /// Sets a configuration value for the calls, through the environment.
    pub(super) fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.settings.push((name.into(), value.into()));
    }

    /// Has git tell what it does, for the log.
    pub(super) fn trace(&mut self, trace: Trace) {
        self.trace = trace;
    }

    /// Lets git use the program `ssh`, with these files.
    pub(super) fn use_ssh(&mut self, files: ssh::Files) {
        self.set("protocol.ssh.allow", "always");
        self.ssh = Some(files);
    }

    /// Has git tell the headers of what it sends and gets. Not for calls with credentials.
    pub(super) fn trace_headers(&mut self) {
        self.traces_headers = true;
    }

    /// Has git note the headers of what it gets in a file that lives as long as the call, to be read if it fails. Git leaves
    /// credentials out.
    pub(super) fn keep_headers(&mut self) {
        self.keeps_headers = true;
    }

    /// Runs git to its end.
    ///
    /// # Cancel safety
    /// Dropping the future kills git and all that it has started.
    ///
    /// # Errors
    /// [`Trouble::NoGit`] and [`Trouble::Timeout`]; a failure of git itself is in the result.
    pub(super) async fn run(&self, arguments: &[&str]) -> Result<Ended, Trouble> {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(&self.directory).env_clear();
        command.envs(PASSED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.env("HOME", &self.home).env("XDG_CONFIG_HOME", &self.home).env("GIT_DIR", &self.directory);
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_ATTR_NOSYSTEM", "1");
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ASKPASS", "").env("SSH_ASKPASS", "");
        command.env("LC_ALL", "C").env("GIT_LFS_SKIP_SMUDGE", "1").env("GIT_NO_LAZY_FETCH", "1");
        command.env("GIT_CONFIG_COUNT", self.settings.len().to_string());
        for (at, (name, value)) in self.settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{at}"), name).env(format!("GIT_CONFIG_VALUE_{at}"), value);
        }
        if let Some(ssh) = &self.ssh {
            command.env("GIT_SSH_COMMAND", ssh.command(self.limits.deadline)).env("GIT_SSH_VARIANT", "ssh");
        }
        let trace = self.home.join("trace");
        for (name, is_on) in [("GIT_TRACE", self.trace.commands), ("GIT_TRACE_PACKET", self.trace.packets)] {
            if is_on {
                command.env(name, &trace);
            }
        }
        if self.traces_headers {
            command.env("GIT_TRACE_CURL", "1").env("GIT_TRACE_CURL_NO_DATA", "1");
        }
        let headers = self.keeps_headers.then(|| NamedTempFile::with_prefix_in("tmp_headers_", &self.home));
        // Without it only a hint is missing.
        let headers = headers.and_then(Result::ok).filter(|_| !self.traces_headers);
        if let Some(headers) = &headers {
            command
                .env("GIT_TRACE_CURL", headers.path())
                .env("GIT_TRACE_CURL_NO_DATA", "1")
                .env("GIT_TRACE_REDACT", "1");
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);

        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::StorageFull => io(&self.directory)(error),
            _ => Trouble::NoGit(error.to_string()),
        })?;
        let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let ended = async {
            // Helpers that outlive git hold the pipes open, so they end with it.
            let end = async {
                let status = child.wait().await;
                group.signal(Signal::KILL);
                status
            };
            let (status, stdout, stderr) = tokio::join!(end, keep(stdout), keep(stderr));
            let status = status.map_err(|error| Trouble::NoGit(error.to_string()))?;
            let headers = headers.filter(|_| !status.success()).map(|file| std::fs::read(file.path()));
            let headers = headers.and_then(Result::ok).unwrap_or_default();
            let retry_after = retry_after(&String::from_utf8_lossy(&headers));
            Ok(Ended { success: status.success(), stdout, stderr, retry_after })
        };
        let result = match tokio::time::timeout(self.limits.deadline, ended).await {
            Ok(result) => result,
            Err(_) => {
                group.signal(Signal::TERM);
                let _ = tokio::time::timeout(self.limits.grace, child.wait()).await;
                Err(Trouble::Timeout(self.limits.deadline))
            }
        };
        drop(group);
        if self.trace != Trace::default() {
            log_trace(&trace, arguments);
        }
        if let Ok(ended) = &result {
            tracing::trace!(command = arguments.first(), success = ended.success, stderr = ended.stderr, "git ended");
        }
        result
    }
}

/// Git and what it has started; killed when dropped.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Logs what git has traced, and removes it.
fn log_trace(path: &Path, arguments: &[&str]) {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(TRACE_BYTES_MAX).read_to_end(&mut text));
    let _ = std::fs::remove_file(path);
    if read.is_ok() {
        let text = String::from_utf8_lossy(&text);
        text.lines().for_each(|line| tracing::debug!(command = arguments.first(), "{}", without_credentials(line)));
    }
}

/// Returns the beginning of a line that may go on with credentials. Git gets them through its environment and does not tell
/// that; should it ever, they stay here.
fn without_credentials(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let secret = ["authorization:", "extraheader", "git_config_value"].iter().filter_map(|word| lower.find(word)).min();
    match secret {
        Some(at) => format!("{}…", line.get(..at).unwrap_or_default()),
        None => line.to_owned(),
    }
}

async fn keep(mut pipe: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let _ = (&mut pipe).take(OUTPUT_BYTES_MAX as u64).read_to_end(&mut kept).await;
    let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&kept).into_owned()
}

/// A repack waits for nobody else.
const REPACK: Limits = Limits { deadline: Duration::from_secs(600), grace: Duration::from_secs(3) };

/// Puts small packs together, without holding up anybody. One at a time in this process; where `git` is missing, nothing is done.
pub(super) fn repack_in_background(git_dir: &Path) {
    let Some(turn) = Turn::take() else { return };
    let directory = git_dir.to_owned();
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        let _turn = turn;
        let mut git = Git::new(directory.clone(), directory.join("kratix"), REPACK);
        git.set("core.fsync", "default");
        // Only packs are touched, loose and unreachable objects stay: somebody may be about to name them.
        match git.run(&["repack", "-d", "-q", "--geometric=2", "--no-write-bitmap-index"]).await {
            Ok(ended) if ended.success => tracing::debug!(repository = %directory.display(), "packs put together"),
            Ok(ended) => tracing::debug!(stderr = ended.stderr, "packs stay as they are"),
            Err(error) => tracing::debug!(%error, "packs stay as they are"),
        }
    });
}

/// The right to repack in this process; given back when dropped, also by a task that is given up.
struct Turn;

static BUSY: AtomicBool = AtomicBool::new(false);

impl Turn {
    fn take() -> Option<Self> {
        (!BUSY.swap(true, Ordering::AcqRel)).then_some(Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        BUSY.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_to_repack_comes_back_with_whatever_held_it() {
        let turn = Turn::take().expect("nobody repacks in this test");
        assert!(Turn::take().is_none());
        drop(turn);
        assert!(Turn::take().is_some());
    }

    #[test]
    fn a_trace_is_logged_without_what_could_be_a_credential() {
        let line = "trace: run_command: GIT_PROTOCOL=version=2 git-remote-https origin";
        assert_eq!(without_credentials(line), line);
        for line in [
            "=> Send header: authorization: Basic c2VjcmV0",
            "trace: GIT_CONFIG_VALUE_3='Authorization: Basic c2VjcmV0'",
            "trace: git -c http.extraHeader=c2VjcmV0 fetch",
        ] {
            assert!(!without_credentials(line).contains("c2VjcmV0"), "{line}");
        }
    }
}
