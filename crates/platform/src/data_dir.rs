//! The directory in which an embedded platform keeps everything, and the lock that gives it to one process.
//!
//! The lock alone says that a platform runs. `running.json` says which process that is and where it listens: it is removed
//! right after the lock is taken, written when the platform is ready, and believed only of a process that started when the
//! file says it did. Numbers of processes are given out again; a record that a crash left behind names a stranger.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Version of the layout below. A higher number found on disk was written by a newer program and is refused.
const FORMAT: u32 = 1;
/// How long a lock may be taken by somebody who is not ready: `kratix status` and `kratix down` take it for an instant.
const PROBED_MAX: Duration = Duration::from_secs(1);
/// How long a platform that ends may take to give up its lock: one that was killed may have to wait for its disk first.
const ENDING_MAX: Duration = Duration::from_secs(10);
/// Pause between two attempts, far above the microseconds that a probe takes.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A data directory held by this process.
///
/// # Guarantees
/// While the value exists no other process holds the same directory; the lock goes with the process, however it ends. What
/// is in the directory can be read by its owner alone.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    _lock: File,
}

/// What a running platform tells other processes about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Process id.
    pub pid: u32,
    /// When the process started, in the kernel's ticks since the machine did. With the id it names one process for good.
    #[serde(default)]
    pub started: u64,
    /// Address of the platform's API server.
    pub platform: String,
    /// Address of the worker's API server.
    pub worker: String,
    /// Where the kubeconfig is.
    pub kubeconfig: PathBuf,
}

impl Running {
    /// Returns whether the process that wrote this is still there, and not another one that got its id.
    pub fn is_alive(&self) -> bool {
        process_started(self.pid) == Some(self.started)
    }
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process holds it.
    #[error("data directory {path:?} is in use by {holder}")]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process, as far as it is known.
        holder: String,
    },
    /// It was written by a newer program.
    #[error("data directory {path:?} has format {found}, this program knows formats up to {FORMAT}")]
    Newer {
        /// The directory.
        path: PathBuf,
        /// The format found.
        found: String,
    },
    /// A file cannot be read or written.
    #[error("{action} {path:?} failed")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// Returns what the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::InUse { .. } => Some("stop it with `kratix down`, or choose another --data-dir".into()),
            Self::Newer { .. } => Some("use the newer program, or choose another --data-dir".into()),
            Self::Io { .. } => None,
        }
    }
}

impl DataDir {
    /// Creates the directory if needed and takes its lock.
    ///
    /// # Errors
    /// [`Error::InUse`] when another process holds it, [`Error::Newer`] when a newer program wrote it.
    pub async fn open(root: &Path) -> Result<Self, Error> {
        create(root)?;
        let root = root.canonicalize().map_err(|source| io_error("resolving", root, source))?;
        let lock_path = root.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|source| io_error("opening", &lock_path, source))?;
        take(&root, &lock_path, &lock).await?;
        let directory = Self { root, _lock: lock };
        // Whoever wrote it holds the directory no more.
        remove_record(&directory.root)?;
        directory.check_format()?;
        directory.protect();
        for name in ["platform", "worker-1", "node", "cache"] {
            create(&directory.root.join(name))?;
        }
        Ok(directory)
    }

    /// Takes from others what an older program or the user's umask gave them.
    fn protect(&self) {
        let restricted = fs::metadata(&self.root).and_then(|metadata| {
            let mode = metadata.permissions().mode() & 0o7777;
            if mode & 0o077 == 0 {
                Ok(())
            } else {
                fs::set_permissions(&self.root, Permissions::from_mode(mode & !0o077))
            }
        });
        // A volume that belongs to somebody else: the directories below are ours, and closed.
        if let Err(error) = restricted {
            tracing::warn!(path = %self.root.display(), %error, "others may look into the data directory");
        }
    }

    fn check_format(&self) -> Result<(), Error> {
        let path = self.root.join("format");
        match fs::read_to_string(&path) {
            Ok(found) => match found.trim().parse::<u32>() {
                Ok(format) if format <= FORMAT => Ok(()),
                _ => Err(Error::Newer { path: self.root.clone(), found: found.trim().to_owned() }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::write(&path, format!("{FORMAT}\n")).map_err(|source| io_error("writing", &path, source))
            }
            Err(source) => Err(io_error("reading", &path, source)),
        }
    }

    /// Returns the directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the path of the platform's object store.
    pub fn platform_store(&self) -> PathBuf {
        self.root.join("platform/objects.redb")
    }

    /// Returns the path of the worker's object store.
    pub fn worker_store(&self) -> PathBuf {
        self.root.join("worker-1/objects.redb")
    }

    /// Returns the path of the Git repository that serves as state store.
    pub fn repository(&self) -> PathBuf {
        self.root.join("state.git")
    }

    /// Returns the directory of the node.
    pub fn node(&self) -> PathBuf {
        self.root.join("node")
    }

    /// Returns the directory of caches, whose content can be lost without harm.
    pub fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// Returns where the kubeconfig goes unless told otherwise.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// Tells other processes about this one.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn announce(&self, running: &Running) -> Result<(), Error> {
        let path = running_path(&self.root);
        let text = serde_json::to_vec_pretty(running).expect("a record of texts serialises");
        // Never half: others read it at any time.
        let draft = path.with_extension("json.new");
        fs::write(&draft, text).map_err(|source| io_error("writing", &draft, source))?;
        fs::rename(&draft, &path).map_err(|source| io_error("writing", &path, source))
    }
}

impl Drop for DataDir {
    /// Takes the announcement back; then the lock is given up.
    fn drop(&mut self) {
        // Nobody can act on a failure, and nobody is misled: the record names a process that ends.
        let _ = remove_record(&self.root);
    }
}

/// Returns the directory of loaded images below a data directory; shared with a running platform.
pub fn images(root: &Path) -> PathBuf {
    root.join("node/images")
}

/// Returns what the platform in this data directory said about itself, if it is still alive. `None` of a directory that
/// [`is_held`]: the platform is starting or stopping.
pub fn running(root: &Path) -> Option<Running> {
    let running: Running = serde_json::from_slice(&fs::read(running_path(root)).ok()?).ok()?;
    running.is_alive().then_some(running)
}

/// Returns when a process started, in the kernel's ticks since the machine did; `None` if there is no such process.
pub fn process_started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat_field(&stat, 22)?.parse().ok()
}

/// Returns whether a process can do nothing any more but end, or has ended. What it holds is given up in a moment.
fn is_ending(pid: u32) -> bool {
    let read = |file| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    // In this order: what is not pending any more is under way.
    let status = read("status");
    is_ending_by(&status, &read("stat"))
}

fn is_ending_by(status: &str, stat: &str) -> bool {
    /// SIGKILL in a set of signals.
    const KILL: u64 = 1 << 8;
    /// The kernel's mark of a thread that ends (`PF_EXITING`).
    const EXITING: u64 = 0x4;
    let pending = status.lines().filter_map(|line| {
        let set = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(set.trim(), 16).ok()
    });
    let flags: u64 = stat_field(stat, 9).and_then(|flags| flags.parse().ok()).unwrap_or_default();
    // The first thread may have ended before the others have, and there may be no process any more.
    matches!(stat_field(stat, 3), None | Some("Z" | "X"))
        || flags & EXITING != 0
        || pending.fold(0, |all, set| all | set) & KILL != 0
}

/// Returns a field of `/proc/<pid>/stat`, as its manual numbers them from one; not the first two.
fn stat_field(stat: &str, number: usize) -> Option<&str> {
    // The second one is the name of the program in brackets, which may hold anything.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(number.checked_sub(3)?)
}

/// Returns whether some process holds this data directory.
pub fn is_held(root: &Path) -> bool {
    match File::options().write(true).open(root.join("lock")) {
        Ok(lock) => matches!(lock.try_lock(), Err(TryLockError::WouldBlock)),
        Err(_) => false,
    }
}

/// Returns the data directory used unless told otherwise: `$XDG_DATA_HOME/kratix`, else `~/.local/share/kratix`.
pub fn default_root() -> PathBuf {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
    base.map_or_else(|| PathBuf::from("kratix-data"), |base| base.join("kratix"))
}

fn running_path(root: &Path) -> PathBuf {
    root.join("running.json")
}

/// Creates a directory, and those above it, for its owner alone; one that exists stays as it is.
///
/// # Errors
/// [`Error::Io`] when it cannot be created.
pub fn create(path: &Path) -> Result<(), Error> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
    created.map_err(|source| io_error("creating", path, source))
}

/// Takes the lock. A platform that is ready keeps it, unless it is just ending; of anybody else it is taken again for a while,
/// for it may be a probe.
async fn take(root: &Path, lock_path: &Path, lock: &File) -> Result<(), Error> {
    let begin = tokio::time::Instant::now();
    let mut patience = PROBED_MAX;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(source)) => return Err(io_error("locking", lock_path, source)),
            Err(TryLockError::WouldBlock) => {}
        }
        let mut holder = running(root);
        if let Some(ending) = holder.take_if(|holder| is_ending(holder.pid)) {
            tracing::debug!(pid = ending.pid, "the last platform in this directory is ending");
            patience = ENDING_MAX;
        }
        if holder.is_some() || begin.elapsed() > patience {
            let holder = holder.map_or_else(|| "another process".into(), |running| format!("process {}", running.pid));
            return Err(Error::InUse { path: root.to_owned(), holder });
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn remove_record(root: &Path) -> Result<(), Error> {
    let path = running_path(root);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(io_error("removing", &path, source)),
        _ => Ok(()),
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(held: &DataDir, pid: u32, started: u64) -> Running {
        Running {
            pid,
            started,
            platform: "https://127.0.0.1:6443".into(),
            worker: "https://127.0.0.1:6444".into(),
            kubeconfig: held.kubeconfig(),
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[tokio::test]
    async fn a_directory_is_held_by_one_process_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let held = DataDir::open(root.path()).await.unwrap();
        assert!(is_held(root.path()));
        let error = DataDir::open(root.path()).await.unwrap_err();
        assert!(matches!(error, Error::InUse { .. }), "{error}");
        assert!(error.hint().unwrap().contains("kratix down"));
        drop(held);
        assert!(!is_held(root.path()));
        DataDir::open(root.path()).await.unwrap();
    }

    /// Holds the lock of a directory that says it is a process's.
    fn held_by(root: &Path, pid: u32) -> File {
        let lock = File::create(root.join("lock")).unwrap();
        lock.lock().unwrap();
        let started = process_started(pid).unwrap();
        let record =
            format!(r#"{{"pid": {pid}, "started": {started}, "platform": "", "worker": "", "kubeconfig": ""}}"#);
        fs::write(running_path(root), record).unwrap();
        lock
    }

    #[tokio::test]
    async fn a_platform_that_was_killed_is_waited_for_until_its_lock_is_free() {
        let root = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let lock = held_by(root.path(), child.id());
        let error = DataDir::open(root.path()).await.unwrap_err();
        assert!(error.to_string().ends_with(&format!("in use by process {}", child.id())), "{error}");
        child.kill().unwrap();
        // Nobody has taken note of its end, so its number is still its own.
        let mut opened = Box::pin(DataDir::open(root.path()));
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(opened.as_mut().poll(cx))).await.is_pending());
        drop(lock);
        opened.await.unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_is_ending_from_the_moment_it_is_killed() {
        let stat = |state: &str, flags: u32| format!("7 (a) b) {state} 1 7 7 0 -1 {flags} 0 0");
        let status = |own: &str, shared: &str| format!("Name:\ta\nSigPnd:\t{own}\nShdPnd:\t{shared}\n");
        let (none, kill) = ("0000000000000000", "0000000000000100");
        for (status, stat, expected) in [
            (status(none, none), stat("S", 0x40_0040), false),
            (status(none, "0000000000004000"), stat("R", 0), false),
            (status(none, kill), stat("D", 0), true),
            (status(kill, none), stat("R", 0), true),
            (status(none, none), stat("R", 0x40_0044), true),
            (status(none, none), stat("Z", 0), true),
            (String::new(), String::new(), true),
        ] {
            assert_eq!(is_ending_by(&status, &stat), expected, "{stat}");
        }
        assert!(!is_ending(std::process::id()));
    }

    #[test]
    fn asking_whether_a_directory_is_held_keeps_nobody_from_taking_it() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("lock"), "").unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    is_held(root.path());
                }
            });
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let opened = (0..100).try_for_each(|_| runtime.block_on(DataDir::open(root.path())).map(drop));
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            opened.unwrap();
        });
    }

    #[tokio::test]
    async fn a_directory_of_a_newer_program_is_refused_and_left_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("format"), "7\n").unwrap();
        let error = DataDir::open(root.path()).await.unwrap_err();
        assert!(error.to_string().contains("has format 7, this program knows formats up to 1"), "{error}");
        assert_eq!(fs::read_to_string(root.path().join("format")).unwrap(), "7\n");
    }

    #[tokio::test]
    async fn an_announcement_is_read_back_until_the_directory_is_given_up() {
        let root = tempfile::tempdir().unwrap();
        let held = DataDir::open(root.path()).await.unwrap();
        let own = std::process::id();
        let running_now = record(&held, own, process_started(own).unwrap());
        held.announce(&running_now).unwrap();
        assert_eq!(running(root.path()), Some(running_now));
        drop(held);
        assert!(!running_path(root.path()).exists());
    }

    #[tokio::test]
    async fn what_a_crashed_platform_said_is_not_believed() {
        let root = tempfile::tempdir().unwrap();
        let held = DataDir::open(root.path()).await.unwrap();
        // Its number belongs to another process now: this one.
        let own = std::process::id();
        held.announce(&record(&held, own, process_started(own).unwrap() + 1)).unwrap();
        assert_eq!(running(root.path()), None);
        let left = fs::read(running_path(root.path())).unwrap();
        drop(held);
        fs::write(running_path(root.path()), left).unwrap();
        let _held = DataDir::open(root.path()).await.unwrap();
        assert!(!running_path(root.path()).exists(), "removed before anything is started");
    }

    #[tokio::test]
    async fn only_its_owner_can_look_into_it() {
        let root = tempfile::tempdir().unwrap();
        let made = root.path().join("made/here");
        let held = DataDir::open(&made).await.unwrap();
        assert_eq!([mode(&made), mode(&made.join("platform"))], [0o700, 0o700]);
        drop(held);
        fs::set_permissions(&made, Permissions::from_mode(0o755)).unwrap();
        let _held = DataDir::open(&made).await.unwrap();
        assert_eq!(mode(&made), 0o700, "also one that was open before");
    }
}
