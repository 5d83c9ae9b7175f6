//! The `git` program, for what only it can do: speaking with other machines.
//!
//! It sees nothing of this process's surroundings but what is listed here, asks nobody anything, and gets credentials through
//! its environment only: arguments can be read by every user of the machine.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::io;
use crate::error::Trouble;

/// How much of what git says is kept; the rest is read and dropped.
const OUTPUT_BYTES_MAX: usize = 256 << 10;
/// How long git may tidy up after it was told to end.
const GRACE: Duration = Duration::from_secs(3);
/// What git may know of this process's environment.
const PASSED: [&str; 12] = [
    "PATH",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
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
    deadline: Duration,
}

/// How a call ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) success: bool,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Git {
    /// Prepares calls in `directory`; `home` is an empty directory.
    pub(super) fn new(directory: PathBuf, home: PathBuf, deadline: Duration) -> Self {
        let mut git = Self { directory, home, settings: Vec::new(), traces_headers: false, deadline };
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

    /// Has git tell the headers of what it sends and gets. Not for calls with credentials.
    pub(super) fn trace_headers(&mut self) {
        self.traces_headers = true;
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
        if self.traces_headers {
            command.env("GIT_TRACE_CURL", "1").env("GIT_TRACE_CURL_NO_DATA", "1");
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
            // Helpers that outlive git would hold the pipes open, so only git's own end counts.
            let (status, stdout, stderr) = tokio::join!(child.wait(), keep(stdout), keep(stderr));
            let status = status.map_err(|error| Trouble::NoGit(error.to_string()))?;
            Ok(Ended { success: status.success(), stdout, stderr })
        };
        let result = match tokio::time::timeout(self.deadline, ended).await {
            Ok(result) => result,
            Err(_) => {
                group.signal(Signal::TERM);
                let _ = tokio::time::timeout(GRACE, child.wait()).await;
                Err(Trouble::Timeout(self.deadline))
            }
        };
        drop(group);
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

async fn keep(mut pipe: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let _ = (&mut pipe).take(OUTPUT_BYTES_MAX as u64).read_to_end(&mut kept).await;
    let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&kept).into_owned()
}

/// Puts small packs together, without holding up anybody. One at a time in this process; where `git` is missing, nothing is done.
pub(super) fn repack_in_background(git_dir: &Path) {
    static BUSY: AtomicBool = AtomicBool::new(false);
    if BUSY.swap(true, Ordering::AcqRel) {
        return;
    }
    let directory = git_dir.to_owned();
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        BUSY.store(false, Ordering::Release);
        return;
    };
    runtime.spawn(async move {
        let mut git = Git::new(directory.clone(), directory.join("kratix"), Duration::from_secs(600));
        git.set("core.fsync", "default");
        // Only packs are touched, loose and unreachable objects stay: somebody may be about to name them.
        match git.run(&["repack", "-d", "-q", "--geometric=2", "--no-write-bitmap-index"]).await {
            Ok(ended) if ended.success => tracing::debug!(repository = %directory.display(), "packs put together"),
            Ok(ended) => tracing::debug!(stderr = ended.stderr, "packs stay as they are"),
            Err(error) => tracing::debug!(%error, "packs stay as they are"),
        }
        BUSY.store(false, Ordering::Release);
    });
}
