//! Where the objects of a remote are kept between calls: a bare repository of our own, for one store at a time.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::error::Trouble;
use crate::git::{io, local, ssh};

/// So many stores, of whatever processes, may keep a cache of one branch in one directory. A store has one more while it is
/// opened with other settings.
const CACHES_MAX: usize = 256;
/// A cache that nobody has opened for so long belongs to a store that is gone.
const ABANDONED_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);
const LOCK: &str = "lock";
const REPOSITORY: &str = "repository.git";

/// A cache, held until it is dropped.
pub(super) struct Cache {
    /// The directory that holds the rest.
    pub(super) base: PathBuf,
    pub(super) git_dir: PathBuf,
    /// An empty home for git.
    pub(super) home: PathBuf,
    lock_path: PathBuf,
    /// Held as long as the cache is used.
    lock: File,
}

impl Cache {
    /// Opens the first cache of that name that nobody else uses, and removes what earlier ones left behind.
    pub(super) fn open(directory: &Path, name: &str) -> Result<Self, Trouble> {
        fs::create_dir_all(directory).map_err(io(directory))?;
        for number in 0..CACHES_MAX {
            let base = directory.join(format!("{name}-{number}"));
            let home = base.join("home");
            fs::create_dir_all(&home).map_err(io(&home))?;
            let lock_path = base.join(LOCK);
            let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
            let lock = lock.map_err(io(&lock_path))?;
            if lock.try_lock().is_err() {
                continue;
            }
            let cache = Self { git_dir: base.join(REPOSITORY), base, home, lock_path, lock };
            if !cache.is_locked() {
                continue;
            }
            // Tells later starts that the cache is in use; of no use for this one.
            let _ = cache.lock.set_modified(SystemTime::now());
            remove_leftovers(&cache.git_dir);
            remove_leftovers(&cache.home);
            ssh::sweep(&cache.base);
            local::init_bare(&cache.git_dir, "main")?;
            remove_abandoned(directory);
            return Ok(cache);
        }
        Err(Trouble::CachesInUse { directory: directory.display().to_string(), count: CACHES_MAX })
    }

    /// Tells whether the cache is where it was, and still ours.
    pub(super) fn is_intact(&self) -> bool {
        self.is_locked() && self.home.is_dir() && self.git_dir.join("HEAD").is_file()
    }

    /// Tells whether the lock that is held is the one that others meet.
    fn is_locked(&self) -> bool {
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        match (fs::metadata(&self.lock_path), self.lock.metadata()) {
            (Ok(met), Ok(held)) => identity(met) == identity(held),
            _ => false,
        }
    }

    /// Removes everything that it holds. It stays ours meanwhile: a lock that is given up cannot be had again at once while a
    /// process that was just started still has a copy of it.
    pub(super) fn clear(self) -> Result<Self, Trouble> {
        match fs::remove_dir_all(&self.git_dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(&self.git_dir)(error)),
            _ => local::init_bare(&self.git_dir, "main")?,
        }
        Ok(self)
    }
}

/// Removes what a killed git leaves behind: locks that nobody holds, and halves of packs.
pub(super) fn remove_leftovers(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_directory && name.starts_with("tmp_") {
            let _ = fs::remove_dir_all(path);
        } else if is_directory {
            if name.len() != 2 {
                remove_leftovers(&path);
            }
        } else if name.ends_with(".lock") || name.starts_with("tmp_") {
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes the caches of stores that nobody opens any more.
fn remove_abandoned(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let (base, lock) = (entry.path(), entry.path().join(LOCK));
        let modified = fs::metadata(&lock).and_then(|metadata| metadata.modified());
        let is_old = modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > ABANDONED_AFTER));
        if !is_old || !base.join(REPOSITORY).is_dir() {
            continue;
        }
        // Whoever waits for this lock meets another file afterwards, and sees that.
        if let Ok(lock) = File::options().write(true).open(&lock)
            && lock.try_lock().is_ok()
            && let Err(error) = fs::remove_dir_all(&base)
        {
            tracing::debug!(cache = %base.display(), %error, "an abandoned cache stays");
        }
    }
}
