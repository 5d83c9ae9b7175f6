//! The real kubectl, hermetic: its own home, nothing of the machine's configuration.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Runs kubectl against one kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    kubeconfig: PathBuf,
    home: PathBuf,
    context: Option<String>,
}

/// What a command printed and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Whether the exit code is 0.
    pub success: bool,
}

impl Output {
    /// Returns standard output of a command that succeeded.
    ///
    /// # Panics
    /// When the command failed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.success, "kubectl failed\nstdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }

    /// Returns standard error of a command that failed.
    ///
    /// # Panics
    /// When the command succeeded.
    #[track_caller]
    pub fn refused(self) -> String {
        assert!(!self.success, "kubectl should have failed\nstdout: {}", self.stdout);
        self.stderr
    }
}

impl Kubectl {
    /// Returns a kubectl for this kubeconfig; `home` holds its discovery cache.
    pub fn new(kubeconfig: &Path, home: &Path) -> Self {
        Self { kubeconfig: kubeconfig.to_owned(), home: home.to_owned(), context: None }
    }

    /// Returns the same for another context.
    #[must_use]
    pub fn context(&self, context: &str) -> Self {
        Self { context: Some(context.to_owned()), ..self.clone() }
    }

    /// Runs a command line, split at spaces.
    ///
    /// # Panics
    /// When kubectl cannot be started.
    pub async fn run(&self, line: &str) -> Output {
        self.exec(&line.split_whitespace().collect::<Vec<_>>(), None).await
    }

    /// Runs `kubectl apply -f -` with this document.
    ///
    /// # Panics
    /// When kubectl cannot be started.
    pub async fn apply(&self, document: &str) -> Output {
        self.exec(&["apply", "-f", "-"], Some(document)).await
    }

    /// Runs kubectl with these arguments and this standard input.
    ///
    /// # Panics
    /// When kubectl cannot be started.
    pub async fn exec(&self, args: &[&str], input: Option<&str>) -> Output {
        let mut command = Command::new("kubectl");
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", &self.home);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        if let Some(context) = &self.context {
            command.args(["--context", context]);
        }
        command.args(args).stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("kubectl is installed: run scripts/install-test-tools");
        if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
            stdin.write_all(text.as_bytes()).await.expect("kubectl reads its input");
        }
        let output = child.wait_with_output().await.expect("kubectl ends");
        Output {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            success: output.status.success(),
        }
    }
}
