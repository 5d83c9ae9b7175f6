//! A directory of this machine as a bucket: files are objects, and replaced as a whole.
//!
//! Files are reached by open directories, one segment after the other, and no symbolic link is followed: whoever writes below
//! the directory cannot lead a write out of it. A file is complete and durable before it has its name. Writers of several
//! processes take turns where a condition has to hold.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::objects::{Failure, Key, Meta};
use crate::error::Trouble;

/// Where files are until they are complete; not part of the bucket.
const UNFINISHED: &str = ".kratix-unfinished";
/// Held while a condition is looked at and the file replaced.
const LOCK: &str = "lock";
/// How long to wait before looking again whether it is free.
const LOCK_PAUSE: Duration = Duration::from_millis(2);
/// How often a directory that vanishes is made again.
const RACES_MAX: usize = 100;
/// Unfinished files of writers that have crashed are removed after this many seconds.
const UNFINISHED_SECONDS_MAX: i64 = 3600;

/// A directory of this machine. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Directory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Tells this writer's unfinished files from those of others, on whatever machine they are.
    writer: u64,
    next: AtomicU64,
    /// How long another process may hold the lock.
    patience: Duration,
}

enum Fault {
    /// The directory itself does not exist.
    Missing,
    Os(Errno),
    /// Another process has the lock.
    Held,
    Blocked(String, &'static str),
}

impl From<Errno> for Fault {
    fn from(error: Errno) -> Self {
        Self::Os(error)
    }
}

impl Directory {
    pub(super) fn new(path: PathBuf, patience: Duration) -> Self {
        let writer = RandomState::new().build_hasher().finish();
        Self(Arc::new(Inner { path, writer, next: AtomicU64::default(), patience }))
    }

    pub(super) fn head(&self, key: &Key) -> Result<Option<Meta>, Failure> {
        self.done(self.stat(key))
    }

    pub(super) fn get(&self, key: &Key) -> Result<Option<(Bytes, Meta)>, Failure> {
        let read = || {
            let Some((parent, name)) = self.parent(key, false)? else { return Ok(None) };
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = match rustix::fs::openat(&parent, name, flags, Mode::empty()) {
                Ok(file) => file,
                Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let stat = rustix::fs::fstat(&file)?;
            if !is_file(&stat) {
                return Ok(None);
            }
            let mut content = Vec::new();
            std::fs::File::from(file).read_to_end(&mut content).map_err(|error| os(&error))?;
            Ok(Some((Bytes::from(content), meta(&stat))))
        };
        self.done(read())
    }

    pub(super) fn list(&self, prefix: &Key) -> Result<BTreeMap<Key, Meta>, Failure> {
        let list = || {
            let mut all = BTreeMap::new();
            if let Some(directory) = self.descend(self.open()?, prefix.as_ref(), false)? {
                let prefix = prefix.as_ref();
                walk(&directory, prefix, &mut all)?;
            }
            Ok(all)
        };
        self.done(list())
    }

    /// Writes a file; `expected` is what has to be there, if that matters.
    pub(super) fn put(&self, key: &Key, content: &Bytes, expected: Option<&Option<Meta>>) -> Result<Meta, Failure> {
        let root = self.done(self.open())?;
        let unfinished = self.done(self.unfinished(&root))?;
        let _lock = match expected {
            None => None,
            Some(expected) => {
                let lock = self.done(lock(&unfinished, self.0.patience))?;
                let present = self.done(self.stat(key))?;
                let is_same = match (expected, &present) {
                    (None, None) => true,
                    (Some(expected), Some(present)) => expected.tag == present.tag,
                    _ => false,
                };
                if !is_same {
                    return Err(Failure::Moved);
                }
                Some(lock)
            }
        };
        let temporary = self.unfinished_name();
        let write = || {
            let parent = self.descend(self.open()?, parent_of(key), true)?.ok_or(Errno::NOENT)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&unfinished, temporary.as_str(), flags, Mode::from_raw_mode(0o644))?;
            let mut file = std::fs::File::from(file);
            file.write_all(content).and_then(|()| file.sync_all()).map_err(|error| os(&error))?;
            let stat = rustix::fs::fstat(&file)?;
            match rustix::fs::renameat(&unfinished, temporary.as_str(), &parent, name_of(key)) {
                Ok(()) => {}
                Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
                    return Err(Fault::Blocked(key.to_string(), "directory"));
                }
                Err(error) => return Err(error.into()),
            }
            rustix::fs::fsync(&parent)?;
            Ok(meta(&stat))
        };
        let mut written = write();
        // Somebody who removes the last file of a directory removes that as well, maybe at this moment.
        for _ in 0..RACES_MAX {
            if !matches!(written, Err(Fault::Os(Errno::NOENT))) {
                break;
            }
            written = write();
        }
        if written.is_err() {
            // Nobody needs it any more; a writer that crashes leaves it as well.
            let _ = rustix::fs::unlinkat(&unfinished, temporary.as_str(), AtFlags::empty());
        }
        self.done(written)
    }

    /// Removes a file, and the directories that become empty by it.
    pub(super) fn delete(&self, key: &Key) -> Result<(), Failure> {
        let delete = || {
            let Some((parent, name)) = self.parent(key, false)? else { return Ok(()) };
            match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
                Ok(()) => rustix::fs::fsync(&parent)?,
                Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => return Err(Fault::Blocked(key.to_string(), "directory")),
                Err(error) => return Err(error.into()),
            }
            drop(parent);
            let mut above = parent_of(key);
            while !above.is_empty() {
                let (outer, name) = above.rsplit_once('/').unwrap_or(("", above));
                let Some(directory) = self.descend(self.open()?, outer, false)? else { break };
                if rustix::fs::unlinkat(&directory, name, AtFlags::REMOVEDIR).is_err() {
                    break;
                }
                above = outer;
            }
            Ok(())
        };
        self.done(delete())
    }

    /// Finds out whether files can be written, and removes what crashed writers have left.
    pub(super) fn probe(&self) -> Result<(), Failure> {
        let probe = || {
            let unfinished = self.unfinished(&self.open()?)?;
            let name = self.unfinished_name();
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&unfinished, name.as_str(), flags, Mode::from_raw_mode(0o644))?;
            let now = rustix::fs::fstat(&file)?.st_mtime;
            rustix::fs::unlinkat(&unfinished, name.as_str(), AtFlags::empty())?;
            for entry in Dir::read_from(&unfinished)? {
                let entry = entry?;
                let stat = match rustix::fs::statat(&unfinished, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => stat,
                    // Another writer has finished it meanwhile.
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(error.into()),
                };
                let is_old = now.saturating_sub(stat.st_mtime) > UNFINISHED_SECONDS_MAX;
                if is_file(&stat) && is_old && entry.file_name().to_bytes() != LOCK.as_bytes() {
                    match rustix::fs::unlinkat(&unfinished, entry.file_name(), AtFlags::empty()) {
                        Ok(()) | Err(Errno::NOENT) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            Ok(())
        };
        self.done(probe())
    }

    fn unfinished_name(&self) -> String {
        format!("{:016x}-{}", self.0.writer, self.0.next.fetch_add(1, Ordering::Relaxed))
    }

    fn open(&self) -> Result<OwnedFd, Fault> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(&self.0.path, flags, Mode::empty()) {
            Ok(directory) => Ok(directory),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(Fault::Missing),
            Err(error) => Err(error.into()),
        }
    }

    fn unfinished(&self, root: &OwnedFd) -> Result<OwnedFd, Fault> {
        make_directory(root, UNFINISHED)?;
        match open_directory(root, UNFINISHED) {
            Err(Errno::NOTDIR | Errno::LOOP) => Err(Fault::Blocked(UNFINISHED.to_owned(), "file or symbolic link")),
            opened => Ok(opened?),
        }
    }

    fn stat(&self, key: &Key) -> Result<Option<Meta>, Fault> {
        let Some((parent, name)) = self.parent(key, false)? else { return Ok(None) };
        match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(is_file(&stat).then(|| meta(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn parent<'k>(&self, key: &'k Key, make: bool) -> Result<Option<(OwnedFd, &'k str)>, Fault> {
        let parent = self.descend(self.open()?, parent_of(key), make)?;
        Ok(parent.map(|parent| (parent, name_of(key))))
    }

    /// Opens a directory below another one; without `make`, one that does not exist, or is none, is `None`.
    fn descend(&self, root: OwnedFd, path: &str, make: bool) -> Result<Option<OwnedFd>, Fault> {
        let mut present = root;
        let mut done = 0;
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            done += segment.len() + 1;
            if make {
                make_directory(&present, segment)?;
            }
            present = match open_directory(&present, segment) {
                Ok(next) => next,
                Err(Errno::NOTDIR | Errno::LOOP) if make => {
                    let obstacle = path[..done.min(path.len())].trim_end_matches('/').to_owned();
                    return Err(Fault::Blocked(obstacle, "file or symbolic link"));
                }
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !make => return Ok(None),
                Err(error) => return Err(error.into()),
            };
        }
        Ok(Some(present))
    }

    fn done<T>(&self, result: Result<T, Fault>) -> Result<T, Failure> {
        result.map_err(|fault| match fault {
            Fault::Blocked(obstacle, kind) => Failure::Blocked { obstacle, kind },
            Fault::Os(Errno::NOSPC | Errno::DQUOT) => Failure::Store(Trouble::DiskFull(self.shown())),
            Fault::Held => {
                let lock = self.0.path.join(UNFINISHED).join(LOCK);
                Failure::Store(Trouble::Io(format!("{} is held by another process", lock.display())))
            }
            Fault::Missing => Failure::Store(Trouble::BucketMissing(self.shown())),
            Fault::Os(Errno::NAMETOOLONG) => Failure::Refused(Trouble::Answer("the name is too long".to_owned())),
            Fault::Os(error @ (Errno::ACCESS | Errno::PERM | Errno::ROFS)) => {
                Failure::Store(Trouble::Forbidden(text(error)))
            }
            Fault::Os(error) => Failure::Store(Trouble::Io(format!("{}: {}", self.shown(), text(error)))),
        })
    }

    fn shown(&self) -> String {
        self.0.path.display().to_string()
    }
}

fn text(error: Errno) -> String {
    let text = std::io::Error::from(error).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

fn os(error: &std::io::Error) -> Fault {
    Fault::Os(Errno::from_io_error(error).unwrap_or(Errno::IO))
}

fn parent_of(key: &Key) -> &str {
    key.as_ref().rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn name_of(key: &Key) -> &str {
    key.as_ref().rsplit_once('/').map_or(key.as_ref(), |(_, name)| name)
}

fn make_directory(parent: impl AsFd, name: &str) -> Result<(), Fault> {
    match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => Ok(rustix::fs::fsync(&parent)?),
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Opens a directory; a link to one is none.
fn open_directory(parent: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn lock(unfinished: &OwnedFd, patience: Duration) -> Result<OwnedFd, Fault> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(unfinished, LOCK, flags, Mode::from_raw_mode(0o644))?;
    let until = Instant::now() + patience;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            // A process that has been stopped would hold up this one for ever.
            Err(Errno::WOULDBLOCK) if Instant::now() >= until => return Err(Fault::Held),
            Err(Errno::WOULDBLOCK | Errno::INTR) => pause(),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Locks of files give no other notice.
#[expect(clippy::disallowed_methods, reason = "whether a lock of a file is free can only be looked at again")]
fn pause() {
    std::thread::sleep(LOCK_PAUSE);
}

fn walk(directory: &OwnedFd, path: &str, all: &mut BTreeMap<Key, Meta>) -> Result<(), Fault> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        // A name that no key can have was not written by a store.
        let Ok(name) = entry.file_name().to_str() else { continue };
        if matches!(name, "." | "..") || (path.is_empty() && name == UNFINISHED) {
            continue;
        }
        let full = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => match open_directory(directory, name) {
                Ok(inner) => walk(&inner, &full, all)?,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(error.into()),
            },
            // A link is listed as what it is, so that replacing a directory removes it.
            FileType::RegularFile | FileType::Symlink => {
                if let Ok(key) = Key::parse(&full) {
                    all.insert(key, meta(&stat));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn meta(stat: &Stat) -> Meta {
    let tag = format!("{:x}-{:x}-{:x}.{:x}", stat.st_ino, stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    Meta::local(stat.st_size.unsigned_abs(), tag)
}
