//! A real `sshd` for tests, on a loopback port, that lets the current user serve Git repositories and nothing else.
//!
//! The listener is this process's: it hands each connection to an `sshd -i` of its own, so that ports are never guessed,
//! connections can be counted, and the server can go away and come back at the same address.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::{executable, port};

/// The programs, and where they are if not on the path: `sshd` insists on being called by its full name.
const SSHD: [&str; 3] = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/sbin/sshd"];

/// A server; it ends when dropped.
pub struct Server {
    home: TempDir,
    port: port::Held,
    connections: Arc<AtomicUsize>,
    listener: Option<JoinHandle<()>>,
    sshd: PathBuf,
}

impl Server {
    /// Serves the repositories below `root` to whoever has the key [`private_key`](Self::private_key). `None`, with a word
    /// about it, where there is no `sshd`.
    ///
    /// # Panics
    /// Without `sshd` where `CI` is `true`.
    pub async fn start(root: impl AsRef<Path>) -> Option<Self> {
        let sshd = SSHD.iter().map(PathBuf::from).find(|path| path.is_file());
        let sshd = sshd.filter(|_| has_keygen()).or_else(|| left_out("sshd"))?;
        let home = tempfile::Builder::new().prefix("sshd").tempdir().expect("a directory");
        let mut server = Self { home, port: port::Held::take(), connections: Arc::default(), listener: None, sshd };
        keygen(&server.file("host"), "ed25519");
        keygen(&server.file("user"), "ed25519");
        server.configure(root.as_ref());
        server.admit("user");
        server.restart();
        Some(server)
    }

    fn configure(&self, root: &Path) {
        let forced = self.file("serve");
        executable::write(&forced, &script(root, self.home.path()));
        let (host, keys) = (self.file("host"), self.file("authorized_keys"));
        let config = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nForceCommand {}\nUsePAM no\nStrictModes no\nPidFile none\nLogLevel DEBUG1\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nUseDNS no\nMaxAuthTries 3\n\
             Banner {}\n",
            host.display(),
            keys.display(),
            forced.display(),
            self.file("banner").display(),
        );
        std::fs::write(self.file("config"), config).expect("a file");
        std::fs::write(self.file("banner"), "Authorized users only.\n").expect("a file");
        // Where privileges are dropped, an empty directory is needed to drop them in.
        let _ = std::fs::create_dir_all("/run/sshd");
    }

    fn serve(&self, listener: TcpListener) -> JoinHandle<()> {
        let (sshd, config, log) = (self.sshd.clone(), self.file("config"), self.file("log"));
        let connections = Arc::clone(&self.connections);
        tokio::spawn(async move {
            let mut sessions = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let stream = stream.into_std().expect("a socket");
                stream.set_nonblocking(false).expect("a socket");
                let output: OwnedFd = stream.try_clone().expect("a socket").into();
                let mut command = tokio::process::Command::new(&sshd);
                command.arg("-i").arg("-f").arg(&config).arg("-E").arg(&log).kill_on_drop(true);
                command.stdin(OwnedFd::from(stream)).stdout(output).stderr(Stdio::null());
                sessions.push(command.spawn().expect("sshd starts"));
                sessions.retain_mut(|session| session.try_wait().is_ok_and(|ended| ended.is_none()));
            }
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    /// Returns the URL of a repository below the root.
    pub fn url(&self, repository: &str) -> String {
        format!("ssh://{}@127.0.0.1:{}/{repository}", user(), self.port.address().port())
    }

    /// Returns the host as `known_hosts` names it.
    pub fn host(&self) -> String {
        format!("[127.0.0.1]:{}", self.port.address().port())
    }

    /// Returns the line of `known_hosts` that vouches for this server.
    pub fn known_hosts(&self) -> String {
        format!("{} {}", self.host(), self.read("host.pub"))
    }

    /// Returns the private key of the user that is let in.
    pub fn private_key(&self) -> String {
        self.read("user")
    }

    /// Makes a key of this type (as of `ssh-keygen -t`) that is let in instead of the present one, and returns it.
    pub fn rotate_user_key(&self, kind: &str) -> String {
        let name = format!("user-{}", self.connections());
        let _ = std::fs::remove_file(self.file(&name));
        keygen(&self.file(&name), kind);
        self.admit(&name);
        self.read(&name)
    }

    fn admit(&self, name: &str) {
        let public = self.read(&format!("{name}.pub"));
        std::fs::write(self.file("authorized_keys"), format!("restrict {public}")).expect("a file");
    }

    /// Gives the server another host key, and returns its fingerprint.
    pub fn change_host_key(&self) -> String {
        std::fs::remove_file(self.file("host")).expect("removed");
        keygen(&self.file("host"), "ed25519");
        let output = Command::new("ssh-keygen").arg("-lf").arg(self.file("host")).output().expect("ssh-keygen runs");
        let line = String::from_utf8_lossy(&output.stdout).into_owned();
        line.split(' ').nth(1).unwrap_or_default().to_owned()
    }

    /// Has pushes refused with this text, as hosting services do for keys that may only read; an empty text ends that.
    pub fn refuse_pushes(&self, text: &str) {
        std::fs::write(self.file("refusal"), text).expect("a file");
    }

    /// Stops listening and ends all connections.
    pub async fn stop(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.abort();
            let _ = listener.await;
        }
    }

    /// Listens again, at the same address.
    pub fn restart(&mut self) {
        self.listener = Some(self.serve(self.port.listen()));
    }

    /// Returns how many connections came in.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Returns which programs were asked for, in order.
    pub fn commands(&self) -> Vec<String> {
        self.read("commands").lines().map(str::to_owned).collect()
    }

    /// Returns what sshd has logged.
    pub fn log(&self) -> String {
        self.read("log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.abort();
        }
    }
}

/// Tells whether there is an `ssh-keygen`, with a word about it where there is none.
///
/// # Panics
/// Without it where `CI` is `true`.
pub fn has_keygen() -> bool {
    let is_there = Command::new("ssh-keygen").arg("-?").stderr(Stdio::null()).status().is_ok();
    is_there || left_out::<()>("ssh-keygen").is_some()
}

#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
fn left_out<T>(program: &str) -> Option<T> {
    let is_allowed = std::env::var("CI").as_deref() != Ok("true");
    assert!(is_allowed, "{program} is missing: run scripts/install-test-tools");
    eprintln!("skipped: {program} is missing, run scripts/install-test-tools");
    None
}

/// Makes a private key without passphrase and, beside it, its public part.
///
/// # Panics
/// Where `ssh-keygen` does not do that.
pub fn keygen(path: &Path, kind: &str) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-N", "", "-C", "test", "-t", kind, "-f"]).arg(path).stdin(Stdio::null());
    assert!(command.status().expect("ssh-keygen runs").success(), "no key of type {kind}");
}

fn user() -> String {
    let output = Command::new("id").arg("-un").output().expect("id runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// What runs instead of whatever a client asks for.
fn script(root: &Path, home: &Path) -> String {
    format!(
        r#"#!/bin/sh
set -f
program=${{SSH_ORIGINAL_COMMAND%% *}}
repository=${{SSH_ORIGINAL_COMMAND#* }}
repository=${{repository#\'}}
repository=${{repository%\'}}
case $program in
git-upload-pack | git-receive-pack) ;;
*) echo "only git is served here" >&2; exit 1 ;;
esac
case $repository in
*..*) echo "no such repository" >&2; exit 1 ;;
esac
echo "$program" >>'{home}/commands'
if [ "$program" = git-receive-pack ] && [ -s '{home}/refusal' ]; then
    cat '{home}/refusal' >&2
    exit 1
fi
export HOME='{home}' GIT_CONFIG_NOSYSTEM=1
exec git "${{program#git-}}" '{root}/'"$repository"
"#,
        home = home.display(),
        root = root.display(),
    )
}
