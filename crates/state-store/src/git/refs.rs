//! One branch of a repository on this machine, moved by compare-and-swap under git's own lock.
//!
//! Git's protocol: whoever creates `<ref>.lock` may replace the ref by renaming the lock over it. The lock is made here by
//! linking a complete, synchronised file to that name, so that it is held for two system calls only. Should the process die
//! between those two, the successor recognises the lock as its own by the file's identity, which was noted beside it before.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gix::ObjectId;

use super::io;
use super::pack::sync_directory;
use crate::error::Trouble;

/// How long somebody else may hold the lock; git holds it for milliseconds.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// How often a symbolic ref may lead on.
const LINKS_MAX: usize = 5;
/// The directory inside the repository for what this module must remember.
const OWN: &str = "kratix";

/// How an attempt to move a branch ended.
#[derive(Debug, PartialEq)]
pub(super) enum Swap {
    Done,
    /// The branch has another value than expected.
    Moved,
}

/// Returns what a ref points at.
pub(super) fn read(git_dir: &Path, name: &str) -> Result<Option<ObjectId>, Trouble> {
    let mut name = name.to_owned();
    for _ in 0..LINKS_MAX {
        let path = git_dir.join(&name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if is_absent(&error) => return packed(git_dir, &name),
            Err(error) => return Err(io(&path)(error)),
        };
        match text.trim_end().strip_prefix("ref: ") {
            Some(target) => target.trim().clone_into(&mut name),
            None => return parse(text.trim_end()).map(Some).ok_or_else(|| damaged(&path)),
        }
    }
    Err(damaged(&git_dir.join(name)))
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory | ErrorKind::NotADirectory)
}

fn parse(text: &str) -> Option<ObjectId> {
    (text.len() == 40).then(|| ObjectId::from_hex(text.as_bytes()).ok())?
}

fn damaged(path: &Path) -> Trouble {
    Trouble::Damaged(format!("{} cannot be read as a ref", path.display()))
}

fn packed(git_dir: &Path, name: &str) -> Result<Option<ObjectId>, Trouble> {
    let path = git_dir.join("packed-refs");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(io(&path)(error)),
    };
    let line = text.lines().find_map(|line| line.split_once(' ').filter(|(_, found)| *found == name));
    line.map(|(id, _)| parse(id).ok_or_else(|| damaged(&path))).transpose()
}

/// Tells whether the repository has any branch at all.
pub(super) fn any_branch(git_dir: &Path) -> Result<bool, Trouble> {
    let path = git_dir.join("packed-refs");
    if let Ok(text) = fs::read_to_string(&path)
        && text.lines().any(|line| line.split_once(' ').is_some_and(|(_, name)| name.starts_with("refs/heads/")))
    {
        return Ok(true);
    }
    any_file(&git_dir.join("refs/heads"))
}

fn any_file(directory: &Path) -> Result<bool, Trouble> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(false),
        Err(error) => return Err(io(directory)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(io(directory))?;
        if entry.path().extension().is_some_and(|extension| extension == "lock") {
            continue;
        }
        if !entry.file_type().map_err(io(directory))?.is_dir() || any_file(&entry.path())? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Waits until nobody holds the lock of a branch, so that what is then written for it has a chance to be named.
///
/// # Errors
/// [`Trouble::Locked`] when somebody else holds git's lock for longer than five seconds.
pub(super) fn wait_for_lock(git_dir: &Path, branch: &str) -> Result<(), Trouble> {
    let lock = lock_path(&git_dir.join("refs/heads").join(branch));
    if fs::symlink_metadata(&lock).is_err() {
        return Ok(());
    }
    let _own = Own::enter(git_dir, &lock)?;
    until_free(branch, &lock, || fs::symlink_metadata(&lock).is_err())
}

/// Moves a branch from `expected` to `new`, durably.
///
/// # Errors
/// [`Trouble::Locked`] when somebody else holds git's lock for longer than five seconds.
pub(super) fn swap(git_dir: &Path, branch: &str, expected: Option<ObjectId>, new: ObjectId) -> Result<Swap, Trouble> {
    let path = git_dir.join("refs/heads").join(branch);
    let parent = path.parent().expect("a branch lies in refs/heads").to_owned();
    fs::create_dir_all(&parent).map_err(io(&parent))?;
    let lock = lock_path(&path);
    let own = Own::enter(git_dir, &lock)?;
    let file = own.prepare(new)?;
    own.acquire(&file, &lock, branch)?;
    // The lock is held from here on.
    let present = read(git_dir, &format!("refs/heads/{branch}"));
    if present != Ok(expected) {
        fs::remove_file(&lock).map_err(io(&lock))?;
        return present.map(|_| Swap::Moved);
    }
    let moved = fs::rename(&lock, &path).or_else(|error| {
        // Git leaves empty directories behind where branches with slashes were.
        if error.kind() == ErrorKind::IsADirectory && fs::remove_dir(&path).is_ok() {
            return fs::rename(&lock, &path);
        }
        Err(error)
    });
    if let Err(error) = moved {
        let _ = fs::remove_file(&lock);
        return Err(io(&path)(error));
    }
    sync_directory(&parent)?;
    Ok(Swap::Done)
}

fn lock_path(path: &Path) -> PathBuf {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    lock.into()
}

/// The section that one process at a time is in; left when dropped, also by dying.
///
/// Only who died inside leaves a note behind, and then nothing else can have got the noted file's identity: either the file was
/// not linked yet and still lies here, or it is the lock.
struct Own {
    directory: PathBuf,
    note: PathBuf,
    _entered: File,
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.note);
    }
}

impl Own {
    fn enter(git_dir: &Path, lock: &Path) -> Result<Self, Trouble> {
        let directory = git_dir.join(OWN);
        fs::create_dir_all(&directory).map_err(io(&directory))?;
        let path = directory.join("lock");
        let entered = File::options().create(true).truncate(false).write(true).open(&path).map_err(io(&path))?;
        entered.lock().map_err(io(&path))?;
        let note = directory.join("note");
        if let (Ok(left), Some(present)) = (fs::read_to_string(&note), identity(lock))
            && left == present
        {
            tracing::info!(lock = %lock.display(), "removing the lock of a process that died");
            fs::remove_file(lock).map_err(io(lock))?;
        }
        Ok(Self { directory, note, _entered: entered })
    }

    /// Writes the file that becomes the lock and then the ref.
    fn prepare(&self, id: ObjectId) -> Result<PathBuf, Trouble> {
        let path = self.directory.join("ref");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(&path)(error)),
            _ => {}
        }
        let mut file = File::create_new(&path).map_err(io(&path))?;
        file.write_all(format!("{id}\n").as_bytes()).map_err(io(&path))?;
        file.sync_all().map_err(io(&path))?;
        Ok(path)
    }

    fn acquire(&self, file: &Path, lock: &Path, branch: &str) -> Result<(), Trouble> {
        let own = identity(file).ok_or_else(|| Trouble::Io(format!("{}: it has vanished", file.display())))?;
        fs::write(&self.note, own).map_err(io(&self.note))?;
        let mut linked = Ok(());
        until_free(branch, lock, || {
            linked = fs::hard_link(file, lock);
            !linked.as_ref().is_err_and(|error| error.kind() == ErrorKind::AlreadyExists)
        })?;
        linked.map_err(io(lock))?;
        fs::remove_file(file).map_err(io(file))
    }
}

fn until_free(branch: &str, lock: &Path, mut is_free: impl FnMut() -> bool) -> Result<(), Trouble> {
    let deadline = Instant::now() + LOCK_WAIT;
    while !is_free() {
        if Instant::now() >= deadline {
            return Err(Trouble::Locked { branch: branch.to_owned(), path: lock.display().to_string() });
        }
        #[expect(clippy::disallowed_methods, reason = "a lock file of another program announces its end to nobody")]
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn identity(path: &Path) -> Option<String> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some(format!("{}:{}", metadata.dev(), metadata.ino()))
}
