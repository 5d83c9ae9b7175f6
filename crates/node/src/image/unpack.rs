//! Unpacks one layer over what the layers below have left, without ever leaving the root file system.
//!
//! A layer is untrusted: its paths may lead through links that it, or a layer below, put there. Every parent directory is
//! therefore resolved by the kernel with the root file system as `/`, and only the last name is acted upon, never followed.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::headers;
use crate::resolve;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The largest images that people run have some hundred thousand files.
const ENTRIES_MAX: u64 = 4_000_000;

/// What is still allowed over all layers of an image.
pub(super) struct Budget {
    pub(super) bytes: u64,
    pub(super) entries: u64,
}

impl Budget {
    pub(super) fn new(bytes: u64) -> Self {
        Self { bytes, entries: ENTRIES_MAX }
    }
}

/// Why a layer could not be unpacked.
#[derive(Debug)]
pub(super) enum Failure {
    Escapes(String),
    TooLarge(String),
    Io(PathBuf, io::Error),
}

/// A root file system that is being put together.
pub(super) struct RootFs {
    root: OwnedFd,
    /// Host ids of the container's ids 0, if ids are shifted at all.
    owner: Option<(u32, u32)>,
    /// Modes that directories get in the end. Until then they are ours alone: one that its author made read-only could not be
    /// filled, unless by root.
    modes: RefCell<BTreeMap<PathBuf, Mode>>,
}

impl RootFs {
    pub(super) fn open(path: &Path, owner: Option<(u32, u32)>) -> Result<Self, Failure> {
        let root = rustix::fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| Failure::Io(path.to_owned(), error.into()))?;
        Ok(Self { root, owner, modes: RefCell::default() })
    }

    /// Gives all directories the modes that the layers say.
    pub(super) fn finish(self) -> Result<(), Failure> {
        // What lies deeper comes first: a directory may not even let us through afterwards.
        for (path, mode) in self.modes.into_inner().iter().rev() {
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW;
            match resolve::in_root(&self.root, path, flags) {
                Ok(directory) => rustix::fs::fchmod(&directory, *mode).map_err(errno(path))?,
                // A link or a file took its place.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(errno(path)(error)),
            }
        }
        Ok(())
    }

    /// Applies one uncompressed layer.
    pub(super) fn apply(&self, layer: impl Read, budget: &mut Budget) -> Result<(), Failure> {
        let (layer, limit) = headers::Limited::new(layer);
        let mut archive = tar::Archive::new(layer);
        // What this layer itself wrote, which its own whiteouts do not concern.
        let mut written: HashSet<PathBuf> = HashSet::new();
        let read = |error: io::Error| {
            if headers::is_exceeded(&error) {
                return Failure::TooLarge(headers::limit());
            }
            Failure::Io(PathBuf::from("layer"), error)
        };
        let mut entries = archive.entries().map_err(read)?;
        while let Some(entry) = limit.during(|| entries.next()) {
            let mut entry = entry.map_err(read)?;
            budget.entries =
                budget.entries.checked_sub(1).ok_or_else(|| Failure::TooLarge(format!("{ENTRIES_MAX} files")))?;
            let raw = entry.path().map_err(read)?.into_owned();
            let path = inside(&raw)?;
            let io = |error: io::Error| Failure::Io(path.clone(), error);
            let Some(name) = path.file_name().map(|name| name.as_bytes().to_vec()) else {
                continue; // the root itself
            };
            let parent = path.parent().unwrap_or(Path::new(""));
            if name == OPAQUE {
                self.clear(parent, &written).map_err(io)?;
                continue;
            }
            if let Some(removed) = name.strip_prefix(WHITEOUT) {
                if removed.is_empty() || matches!(removed, b"." | b"..") {
                    return Err(Failure::Escapes(raw.to_string_lossy().into_owned()));
                }
                let removed = Path::new(std::ffi::OsStr::from_bytes(removed));
                if !written.contains(&parent.join(removed)) {
                    self.remove(parent, removed).map_err(io)?;
                }
                continue;
            }
            self.write(&mut entry, &path, parent, budget)?;
            written.insert(path);
        }
        Ok(())
    }

    fn write(
        &self,
        entry: &mut tar::Entry<'_, impl Read>,
        path: &Path,
        parent: &Path,
        budget: &mut Budget,
    ) -> Result<(), Failure> {
        let io = |error: io::Error| Failure::Io(path.to_owned(), error);
        let header = entry.header();
        // Set-user-id bits would not work inside; there is no reason to leave such files about.
        let mode = Mode::from_raw_mode(header.mode().map_err(io)? & 0o1777);
        let kind = header.entry_type();
        let owner = self.owner.map(|(uid, gid)| {
            let inside = |id: io::Result<u64>| id.ok().and_then(|id| u32::try_from(id).ok()).filter(|id| *id < 65_536);
            (uid + inside(header.uid()).unwrap_or(65_534), gid + inside(header.gid()).unwrap_or(65_534))
        });
        let modified = header.mtime().unwrap_or(0);

        let directory = self.directory(parent).map_err(io)?;
        let name = path.file_name().expect("the caller has checked that there is one");
        let existing = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).ok();
        let existing = existing.map(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode));
        let stays = kind.is_dir() && existing == Some(rustix::fs::FileType::Directory);
        if existing.is_some() && !stays {
            self.remove(parent, Path::new(name)).map_err(io)?;
        }
        if kind.is_dir() {
            if !stays {
                rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o700)).map_err(errno(path))?;
            }
            own(&directory, name, owner).map_err(errno(path))?;
            self.modes.borrow_mut().insert(path.to_owned(), mode);
        } else if kind.is_file() || kind.is_contiguous() || kind == tar::EntryType::GNUSparse {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&directory, name, flags, Mode::from_raw_mode(0o600)).map_err(errno(path))?;
            let mut file = File::from(file);
            copy(entry, &mut file, path, budget)?;
            own(&directory, name, owner).map_err(errno(path))?;
            rustix::fs::fchmod(&file, mode).map_err(errno(path))?;
            let time = Timespec { tv_sec: i64::try_from(modified).unwrap_or(0), tv_nsec: 0 };
            rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time })
                .map_err(errno(path))?;
        } else if kind.is_symlink() {
            let target = entry.link_name().map_err(io)?.ok_or_else(|| io(io::ErrorKind::InvalidData.into()))?;
            // The target may be anything: whoever follows it does so with this root as `/`.
            rustix::fs::symlinkat(target.as_ref(), &directory, name).map_err(errno(path))?;
            own(&directory, name, owner).map_err(errno(path))?;
        } else if kind.is_hard_link() {
            let target = entry.link_name().map_err(io)?.ok_or_else(|| io(io::ErrorKind::InvalidData.into()))?;
            let target = inside(&target)?;
            let from = self.directory(target.parent().unwrap_or(Path::new(""))).map_err(io)?;
            let from_name =
                target.file_name().ok_or_else(|| Failure::Escapes(target.to_string_lossy().into_owned()))?;
            rustix::fs::linkat(&from, from_name, &directory, name, AtFlags::empty()).map_err(errno(path))?;
        } else {
            // Devices and pipes have no use in a container that brings its own /dev.
            tracing::debug!(path = %path.display(), kind = ?kind, "left out a special file of an image");
        }
        // Content where there should be none is no header of the next entry.
        copy(entry, &mut io::sink(), path, budget)
    }

    /// Opens a directory inside the root, creating what is missing.
    fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let open = |path: &Path| resolve::in_root(&self.root, path, OFlags::DIRECTORY | OFlags::RDONLY);
        match open(path) {
            Ok(found) => return Ok(found),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::NOENT.into());
        };
        let parent = self.directory(parent)?;
        // A dangling link in this place is an error (EEXIST): there is no telling where its author wanted the files.
        rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700))?;
        own(&parent, name, self.owner)?;
        self.modes.borrow_mut().insert(path.to_owned(), Mode::from_raw_mode(0o755));
        Ok(open(path)?)
    }

    /// Removes a file or a whole directory; nothing there is fine.
    fn remove(&self, parent: &Path, name: &Path) -> io::Result<()> {
        let directory = match self.directory(parent) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let path = parent.join(name);
        self.modes.borrow_mut().retain(|known, _| !known.starts_with(&path));
        remove_at(&directory, name)
    }

    /// Removes what layers below put into a directory.
    fn clear(&self, path: &Path, keep: &HashSet<PathBuf>) -> io::Result<()> {
        let directory = self.directory(path)?;
        for name in names(&directory)? {
            let child = path.join(&name);
            if keep.contains(&child) {
                // It may hold files of both; only directories can, and a file is simply kept.
                let stat = rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
                if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory {
                    self.clear(&child, keep)?;
                }
            } else if keep.iter().any(|kept| kept.starts_with(&child)) {
                self.clear(&child, keep)?;
            } else {
                remove_at(&directory, &name)?;
            }
        }
        Ok(())
    }
}

/// Removes `name` and everything below it without following any link.
fn remove_at(directory: &OwnedFd, name: &Path) -> io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let inner = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    for child in names(&inner)? {
        remove_at(&inner, &child)?;
    }
    Ok(rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?)
}

fn names(directory: &OwnedFd) -> io::Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(PathBuf::from(std::ffi::OsStr::from_bytes(name)));
        }
    }
    Ok(names)
}

fn own(directory: &OwnedFd, name: impl AsRef<Path>, owner: Option<(u32, u32)>) -> rustix::io::Result<()> {
    let Some((uid, gid)) = owner else { return Ok(()) };
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::chownat(directory, name.as_ref(), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

fn copy(from: &mut impl Read, to: &mut impl Write, path: &Path, budget: &mut Budget) -> Result<(), Failure> {
    let io = |error: io::Error| Failure::Io(path.to_owned(), error);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).map_err(io)?;
        if read == 0 {
            return Ok(());
        }
        budget.bytes = budget
            .bytes
            .checked_sub(read as u64)
            .ok_or_else(|| Failure::TooLarge("the bytes that fit into this store".into()))?;
        to.write_all(&buffer[..read]).map_err(io)?;
    }
}

fn errno(path: &Path) -> impl FnOnce(Errno) -> Failure + use<> {
    let path = path.to_owned();
    move |error| Failure::Io(path, error.into())
}

/// Makes an entry's path relative; `..` in it is refused, as no honest tool writes it.
fn inside(path: &Path) -> Result<PathBuf, Failure> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Failure::Escapes(path.to_string_lossy().into_owned()));
            }
        }
    }
    Ok(clean)
}
