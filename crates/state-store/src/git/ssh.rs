//! What the `ssh` program needs to prove who we are and to know who it talks to.
//!
//! It takes a key from files only. They are made for one exchange, readable by nobody else, in memory where there is such a
//! file system, and removed with the exchange. A process that dies in between leaves them behind, unlocked: whoever opens a
//! store next removes them.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::io;
use super::private_key::PrivateKey;
use crate::config::Secret;
use crate::error::Trouble;

/// A file system in memory that everybody may write.
const MEMORY: &str = "/dev/shm";
/// How the directories with keys are named; the rest of a name is letters and digits.
const PREFIX: &str = "kratix-ssh-";
/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// How often a directory is made anew because another process took it for left behind.
const TRIES_MAX: usize = 5;

/// Who we are, and whom we trust.
pub(super) struct Identity {
    key: String,
    known_hosts: String,
}

impl Identity {
    /// Reads a private key and the lines of a `known_hosts` file.
    ///
    /// # Errors
    /// [`Trouble::PrivateKey`].
    pub(super) fn new(private_key: &Secret, known_hosts: &str) -> Result<Self, Trouble> {
        let key = PrivateKey::parse(private_key.expose()).map_err(Trouble::PrivateKey)?;
        let known_hosts = known_hosts.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        Ok(Self { key: key.text, known_hosts })
    }

    /// Writes the files, in memory or else into `base`, which is the parent of the directory that git runs in.
    pub(super) fn lay_out(&self, base: &Path) -> Result<Files, Trouble> {
        self.lay_out_in(Path::new(MEMORY), base)
    }

    fn lay_out_in(&self, memory: &Path, base: &Path) -> Result<Files, Trouble> {
        // That of a container is small and may be full, with space left on the disk.
        self.within(memory, memory).or_else(|trouble| {
            tracing::debug!(%trouble, "keys cannot be kept in memory");
            // Named from where ssh runs: the path of the cache may have characters that ssh or a shell would interpret.
            self.within(base, Path::new(".."))
        })
    }

    fn within(&self, parent: &Path, named: &Path) -> Result<Files, Trouble> {
        for _ in 0..TRIES_MAX {
            let mut builder = tempfile::Builder::new();
            let private = builder.prefix(PREFIX).permissions(Permissions::from_mode(0o700));
            let directory = private.tempdir_in(parent).map_err(io(parent))?;
            let path = directory.path().to_owned();
            let Ok(lock) = File::open(&path) else { continue };
            if lock.try_lock().is_err() {
                continue;
            }
            let written =
                write(&path.join("key"), &self.key).and_then(|()| write(&path.join("known_hosts"), &self.known_hosts));
            match written {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                // Its own name is another one each time.
                Err(error) => return Err(io(parent)(error)),
            }
            let named = named.join(path.file_name().unwrap_or_default());
            return Ok(Files { _directory: directory, _lock: lock, named });
        }
        Err(Trouble::Io(format!("{}: directories for keys vanish", parent.display())))
    }
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    File::options().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

/// The files of one exchange; removed when dropped.
pub(super) struct Files {
    _directory: TempDir,
    /// Tells others that the directory is in use.
    _lock: File,
    named: PathBuf,
}

impl Files {
    /// Returns the command line that git gives to a shell. Nothing of the machine's or the user's configuration has a say in
    /// it, and nobody is asked.
    pub(super) fn command(&self, deadline: Duration) -> String {
        let (key, known_hosts) = (self.named.join("key"), self.named.join("known_hosts"));
        let connect = deadline.min(CONNECT_MAX).as_secs().max(1);
        let options = [
            "BatchMode=yes".to_owned(),
            // Without banners, which would be taken for answers.
            "LogLevel=ERROR".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
            "IdentityAgent=none".to_owned(),
            "PreferredAuthentications=publickey".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            format!("UserKnownHostsFile={}", known_hosts.display()),
            "GlobalKnownHostsFile=/dev/null".to_owned(),
            "UpdateHostKeys=no".to_owned(),
            "ControlPath=none".to_owned(),
            "ForwardAgent=no".to_owned(),
            "ClearAllForwardings=yes".to_owned(),
            format!("ConnectTimeout={connect}"),
            "ServerAliveInterval=15".to_owned(),
            "ServerAliveCountMax=3".to_owned(),
        ];
        let options: Vec<String> = options.iter().map(|option| format!("-o {option}")).collect();
        format!("ssh -F /dev/null -i {} {}", key.display(), options.join(" "))
    }
}

/// Removes what processes that died have left behind.
pub(super) fn sweep(base: &Path) {
    for parent in [Path::new(MEMORY), base] {
        let Ok(entries) = fs::read_dir(parent) else { continue };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                remove_if_abandoned(&entry.path());
            }
        }
    }
}

fn remove_if_abandoned(path: &Path) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    if !metadata.is_dir() || metadata.uid() != rustix::process::geteuid().as_raw() {
        return;
    }
    // Whoever uses it has it locked; nobody else can lock it while it is removed.
    let Ok(directory) = File::open(path) else { return };
    if directory.try_lock().is_ok() {
        let removed = fs::remove_dir_all(path);
        tracing::debug!(path = %path.display(), ?removed, "a key that was left behind");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity { key: "k\n".to_owned(), known_hosts: "h\n".to_owned() }
    }

    #[test]
    fn a_key_is_readable_by_nobody_else_and_gone_with_its_exchange() {
        let base = tempfile::tempdir().expect("a directory");
        let files = identity().lay_out(base.path()).expect("files");
        let key = files.named.join("key");
        if files.named.is_absolute() {
            assert_eq!(fs::metadata(&key).expect("a file").permissions().mode() & 0o777, 0o600);
            assert_eq!(fs::metadata(&files.named).expect("a directory").permissions().mode() & 0o777, 0o700);
        }
        assert!(!files.command(Duration::from_secs(90)).contains("k\n"));
        drop(files);
        assert!(!key.exists());
    }

    #[test]
    fn without_a_file_system_in_memory_files_are_named_from_where_ssh_runs() {
        let base = tempfile::Builder::new().prefix("a b'%$").tempdir().expect("a directory");
        let files = identity().within(base.path(), Path::new("..")).expect("files");
        let command = files.command(Duration::from_secs(5));
        assert!(command.contains(" -i ../kratix-ssh-") && command.contains("UserKnownHostsFile=../kratix-ssh-"));
        assert!(command.contains("ConnectTimeout=5"), "{command}");
        let runs_in = base.path().join("repository.git");
        fs::create_dir(&runs_in).expect("a directory");
        assert_eq!(fs::read_to_string(runs_in.join(&files.named).join("key")).expect("a file"), "k\n");
        let named: String = files.named.display().to_string();
        assert!(named.chars().all(|c| c.is_ascii_alphanumeric() || "./-".contains(c)), "{named}");
    }

    #[test]
    fn what_cannot_be_written_is_told_in_the_same_words_each_time() {
        let base = tempfile::tempdir().expect("a directory");
        let missing = base.path().join("missing");
        let text = || identity().within(&missing, &missing).err().map(|trouble| trouble.to_string());
        let expected = format!("{}: No such file or directory", missing.display());
        assert_eq!((text(), text()), (Some(expected.clone()), Some(expected)));
        let files = identity().lay_out_in(&missing, base.path()).expect("beside the cache");
        assert!(files.named.starts_with(".."));
    }

    #[test]
    fn what_a_dead_process_left_is_removed_and_what_is_in_use_is_not() {
        let base = tempfile::tempdir().expect("a directory");
        let used = identity().within(base.path(), base.path()).expect("files");
        let left = base.path().join("kratix-ssh-left");
        fs::create_dir(&left).expect("a directory");
        fs::write(left.join("key"), "k").expect("a file");
        let other = base.path().join("something-else");
        fs::create_dir(&other).expect("a directory");
        sweep(base.path());
        assert!(!left.exists() && used.named.join("key").exists() && other.exists());
    }
}
