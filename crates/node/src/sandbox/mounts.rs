//! File-descriptor based mounting: paths inside an untrusted root are resolved by the kernel so that they cannot leave it.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use super::Failure;
use crate::resolve;

/// A chain of more links than this is taken for a loop, as the kernel does at 40.
const LINKS_MAX: usize = 40;

pub(super) const READ_ONLY: u64 = 0x1;
pub(super) const NO_SUID: u64 = 0x2;
pub(super) const NO_DEVICES: u64 = 0x4;
pub(super) const NO_EXEC: u64 = 0x8;

/// What to create where a path does not exist yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

/// An open directory below which untrusted paths are resolved, and who owns what is created there.
pub(super) struct Tree {
    pub(super) root: OwnedFd,
    pub(super) owner: Option<(u32, u32)>,
}

impl Tree {
    pub(super) fn open(path: &Path, owner: Option<(u32, u32)>) -> Result<Self, Failure> {
        let root = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| Failure::new(format_args!("open {path:?}"), error))?;
        Ok(Self { root, owner })
    }

    /// Opens `path` as seen with this tree as `/`, creating what is missing.
    ///
    /// Links are followed inside the tree only: an absolute link starts again at its root and `..` stops there.
    pub(super) fn ensure(&self, path: &Path, kind: Kind) -> Result<OwnedFd, Failure> {
        self.ensure_within(path, kind, 0)
            .map_err(|error| Failure::new(format_args!("create mount point {path:?}"), error))
    }

    fn ensure_within(&self, path: &Path, kind: Kind, links: usize) -> rustix::io::Result<OwnedFd> {
        if links > LINKS_MAX {
            return Err(Errno::LOOP);
        }
        let inside = inside(path);
        match self.lookup(&inside) {
            Err(Errno::NOENT) => {}
            found => return found,
        }
        let (Some(parent), Some(name)) = (inside.parent(), inside.file_name()) else {
            return Err(Errno::NOENT);
        };
        let directory = self.ensure_within(parent, Kind::Directory, links)?;
        let created = match kind {
            Kind::Directory => rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o755)),
            Kind::File => rustix::fs::openat(
                &directory,
                name,
                OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::from_raw_mode(0o644),
            )
            .map(drop),
        };
        match created {
            Ok(()) => {
                if let Some((uid, gid)) = self.owner {
                    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
                    rustix::fs::chownat(&directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
                }
                self.lookup(&inside)
            }
            // A link to something that does not exist: go on with where it points to.
            Err(Errno::EXIST) => {
                let target = rustix::fs::readlinkat(&directory, name, Vec::new())?;
                let target = Path::new(std::ffi::OsStr::from_bytes(target.as_bytes()));
                let next = if target.is_absolute() { target.to_owned() } else { parent.join(target) };
                self.ensure_within(&next, kind, links + 1)
            }
            Err(error) => Err(error),
        }
    }

    fn lookup(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        resolve::in_root(&self.root, path, OFlags::PATH)
    }
}

/// Makes a path relative and resolves `.` and `..` by text, never above the root. Links that `..` would have crossed are
/// thereby not followed; mount points are absolute paths that people write without `..`.
fn inside(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// Opens `sub_path` below `source`, creating directories that are missing; it cannot leave `source`.
pub(super) fn open_beneath(
    source: &Path,
    sub_path: Option<&Path>,
    owner: Option<(u32, u32)>,
) -> Result<OwnedFd, Failure> {
    let fail = |error| Failure::new(format_args!("open volume path {:?}", sub_path.unwrap_or(Path::new(""))), error);
    let volume = rustix::fs::open(source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(fail)?;
    let Some(sub_path) = sub_path else {
        return Ok(volume);
    };
    let open = |path: &Path| resolve::beneath(&volume, path, OFlags::PATH);
    match open(sub_path) {
        Err(Errno::NOENT) => {}
        found => return found.map_err(fail),
    }
    let mut parent = open(Path::new(".")).map_err(fail)?;
    let mut walked = PathBuf::new();
    for component in sub_path.components() {
        let Component::Normal(name) = component else {
            return Err(fail(Errno::XDEV));
        };
        walked.push(name);
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                if let Some((uid, gid)) = owner {
                    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
                    rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                        .map_err(fail)?;
                }
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(fail(error)),
        }
        parent = open(&walked).map_err(fail)?;
    }
    Ok(parent)
}

/// Tells whether an open path is a directory.
pub(super) fn kind_of(file: &OwnedFd) -> Result<Kind, Failure> {
    let stat = rustix::fs::fstat(file).map_err(|error| Failure::new("look at a volume", error))?;
    let directory = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
    Ok(if directory { Kind::Directory } else { Kind::File })
}

/// Shows what `source` refers to at `target`, with everything mounted below it.
pub(super) fn bind(source: impl AsFd, target: impl AsFd, attributes: u64) -> Result<(), Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(source, "", flags).map_err(|error| Failure::new("clone a mount", error))?;
    restrict(tree.as_fd(), attributes, true)?;
    attach(&tree, target)
}

/// Mounts a new file system at `target`.
pub(super) fn mount_new(
    kind: &str,
    options: &[(&str, &str)],
    target: impl AsFd,
    attributes: u64,
) -> Result<(), Failure> {
    attach(create(kind, options, attributes)?, target)
}

/// Creates a file system that is mounted nowhere yet.
fn create(kind: &str, options: &[(&str, &str)], attributes: u64) -> Result<OwnedFd, Failure> {
    let fail = |error| Failure::new(format_args!("create a {kind} file system"), error);
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(fail)?;
    for (key, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(&context, *key).map_err(fail)?;
        } else {
            rustix::mount::fsconfig_set_string(&context, *key, *value).map_err(fail)?;
        }
    }
    rustix::mount::fsconfig_create(&context).map_err(fail)?;
    let attributes = MountAttrFlags::from_bits_retain(u32::try_from(attributes).expect("attributes are low bits"));
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(fail)
}

fn attach(tree: impl AsFd, target: impl AsFd) -> Result<(), Failure> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", target, "", flags).map_err(|error| Failure::new("attach a mount", error))
}

/// Adds attributes such as read-only to a mount, and to those below it if `recursive`.
pub(super) fn restrict(mount: BorrowedFd<'_>, attributes: u64, recursive: bool) -> Result<(), Failure> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let attr = MountAttr { set: attributes, clear: 0, propagation: 0, user_namespace: 0 };
    let empty = CString::default();
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    #[expect(unsafe_code, reason = "mount_setattr has no wrapper in the crates used")]
    // SAFETY: both pointers are valid for the call, and the size is that of the struct they point to.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            empty.as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if outcome == 0 {
        return Ok(());
    }
    Err(Failure::new("restrict a mount (needs Linux 5.12)", std::io::Error::last_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_created_inside_the_root_whatever_the_image_links_to() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("absolute")).unwrap();
        std::os::unix::fs::symlink("../../../../..", root.path().join("up")).unwrap();
        std::os::unix::fs::symlink("/run", root.path().join("dangling")).unwrap();
        std::os::unix::fs::symlink("loop", root.path().join("loop")).unwrap();
        let tree = Tree::open(root.path(), None).unwrap();

        tree.ensure(Path::new("/absolute/a"), Kind::Directory).unwrap();
        tree.ensure(Path::new("/up/b"), Kind::Directory).unwrap();
        tree.ensure(Path::new("/dangling/c"), Kind::File).unwrap();
        tree.ensure(Path::new("/../../d"), Kind::Directory).unwrap();
        assert!(tree.ensure(Path::new("/loop/e"), Kind::Directory).is_err());

        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0, "nothing was created outside");
        let inside = outside.path().strip_prefix("/").unwrap();
        assert!(root.path().join(inside).join("a").is_dir());
        assert!(root.path().join("b").is_dir() && root.path().join("d").is_dir());
        assert!(root.path().join("run/c").is_file());
    }

    #[test]
    fn sub_paths_stay_in_their_volume() {
        let volume = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", volume.path().join("link")).unwrap();
        let open = |sub: &str| open_beneath(volume.path(), Some(Path::new(sub)), None).map(drop);
        open("a/b/c").unwrap();
        assert!(volume.path().join("a/b/c").is_dir());
        for escape in ["../x", "a/../../x", "/etc", "link", "link/x"] {
            assert!(open(escape).is_err(), "{escape} was opened");
        }
    }
}
