//! The directory in which an embedded platform keeps everything, and the lock that gives it to one process.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Version of the layout below. A higher number found on disk was written by a newer program and is refused.
const FORMAT: u32 = 1;

/// A data directory held by this process.
///
/// # Guarantees
/// While the value exists no other process holds the same directory; the lock goes with the process, however it ends.
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
    /// Address of the platform's API server.
    pub platform: String,
    /// Address of the worker's API server.
    pub worker: String,
    /// Where the kubeconfig is.
    pub kubeconfig: PathBuf,
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
    pub fn open(root: &Path) -> Result<Self, Error> {
        create_dir(root)?;
        let root = root.canonicalize().map_err(|source| io_error("resolving", root, source))?;
        let lock_path = root.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|source| io_error("opening", &lock_path, source))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = match running(&root) {
                    Some(running) => format!("process {}", running.pid),
                    None => "another process".into(),
                };
                return Err(Error::InUse { path: root, holder });
            }
            Err(TryLockError::Error(source)) => return Err(io_error("locking", &lock_path, source)),
        }
        let directory = Self { root, _lock: lock };
        directory.check_format()?;
        for name in ["platform", "worker-1", "node", "cache"] {
            create_dir(&directory.root.join(name))?;
        }
        Ok(directory)
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
        fs::write(&path, text).map_err(|source| io_error("writing", &path, source))
    }

    /// Takes the announcement back.
    pub fn retract(&self) {
        // Missing is as good as removed, and nobody can act on any other failure: the lock tells the truth.
        let _ = fs::remove_file(running_path(&self.root));
    }
}

/// Returns the directory of loaded images below a data directory; shared with a running platform.
pub fn images(root: &Path) -> PathBuf {
    root.join("node/images")
}

/// Returns what the platform in this data directory said about itself, whether or not it is still alive.
pub fn running(root: &Path) -> Option<Running> {
    serde_json::from_slice(&fs::read(running_path(root)).ok()?).ok()
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

fn create_dir(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|source| io_error("creating", path, source))
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_held_by_one_process_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let held = DataDir::open(root.path()).unwrap();
        assert!(is_held(root.path()));
        let error = DataDir::open(root.path()).unwrap_err();
        assert!(matches!(error, Error::InUse { .. }), "{error}");
        assert!(error.hint().unwrap().contains("kratix down"));
        drop(held);
        assert!(!is_held(root.path()));
        DataDir::open(root.path()).unwrap();
    }

    #[test]
    fn a_directory_of_a_newer_program_is_refused_and_left_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("format"), "7\n").unwrap();
        let error = DataDir::open(root.path()).unwrap_err();
        assert!(error.to_string().contains("has format 7, this program knows formats up to 1"), "{error}");
        assert_eq!(fs::read_to_string(root.path().join("format")).unwrap(), "7\n");
    }

    #[test]
    fn an_announcement_is_read_back_until_it_is_retracted() {
        let root = tempfile::tempdir().unwrap();
        let held = DataDir::open(root.path()).unwrap();
        let running_now = Running {
            pid: 7,
            platform: "https://127.0.0.1:6443".into(),
            worker: "https://127.0.0.1:6444".into(),
            kubeconfig: held.kubeconfig(),
        };
        held.announce(&running_now).unwrap();
        assert_eq!(running(root.path()), Some(running_now));
        held.retract();
        assert_eq!(running(root.path()), None);
    }
}
