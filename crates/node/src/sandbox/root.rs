//! Puts the root file system of a container together and makes it `/`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::UnshareFlags;

use super::mounts::{self, Kind, NO_DEVICES, NO_EXEC, NO_SUID, READ_ONLY, Tree};
use super::outer::unshare;
use super::{Failure, IdMap, Mount, Root, Spec};
use crate::resolve;

/// What a container of the host image sees of this machine: programs, libraries, and their configuration. A list of what
/// is shown is safer than one of what is hidden: data can lie anywhere.
const HOST_DIRECTORIES: [&str; 12] =
    ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "opt", "nix", "gnu", "snap"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Kernel settings and devices that no container has business with, although the kernel checks its rights as well.
const PROC_READ_ONLY: [&str; 5] = ["sys", "sysrq-trigger", "irq", "bus", "fs"];
const PROC_EMPTY_FILES: [&str; 5] = ["kcore", "keys", "latency_stats", "timer_list", "sched_debug"];
const PROC_EMPTY_DIRECTORIES: [&str; 2] = ["acpi", "scsi"];

/// Enters a mount namespace of its own whose `/` is the container's root.
pub(super) fn enter(spec: &Spec) -> Result<(), Failure> {
    unshare(UnshareFlags::NEWNS, "enter a mount namespace")?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|error| Failure::new("make the mounts private", error))?;

    let place = spec.scratch.join("root");
    let owner = match spec.ids.map {
        IdMap::Range { base, .. } => Some((base, base)),
        IdMap::Own => None,
    };
    let seal = match &spec.root {
        Root::Image { lower, writable } => assemble_image(spec, lower, &place, *writable)?,
        Root::Host { hidden } => assemble_host(&place, hidden)?,
    };
    let tree = Tree::open(&place, owner)?;
    assemble_devices(&tree)?;
    assemble_proc(&tree)?;
    if seal.private_tmp {
        let tmp = mounts::open_beneath(&spec.scratch.join("tmp"), None, None)?;
        for path in ["/tmp", "/var/tmp"] {
            mounts::bind(&tmp, tree.ensure(Path::new(path), Kind::Directory)?, NO_SUID | NO_DEVICES)?;
        }
    }
    // Parents before children, so that a mount never hides another.
    let mut volumes: Vec<&Mount> = spec.mounts.iter().collect();
    volumes.sort_by_key(|mount| mount.target.components().count());
    for mount in volumes {
        show(&tree, mount, owner)?;
    }
    // Complete now: nobody inside adds to it, also where the container's user is the one who made it.
    mounts::restrict(tree.ensure(Path::new("/dev"), Kind::Directory)?.as_fd(), READ_ONLY, false)?;
    let _ = tree.ensure(&spec.process.cwd, Kind::Directory); // a root that cannot be written to answers at `chdir`
    drop(tree);

    rustix::process::chdir(&place).map_err(|error| Failure::new("enter the new root", error))?;
    rustix::process::pivot_root(".", ".").map_err(|error| Failure::new("change the root", error))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(|error| Failure::new("leave the host's root", error))?;
    rustix::process::chdir("/").map_err(|error| Failure::new("enter the new root", error))?;
    if seal.read_only {
        let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| Failure::new("open the new root", error))?;
        mounts::restrict(root.as_fd(), READ_ONLY, false)?;
    }
    Ok(())
}

/// What is left to do once all mount points exist.
struct Seal {
    read_only: bool,
    private_tmp: bool,
}

fn assemble_image(spec: &Spec, lower: &Path, place: &Path, writable: bool) -> Result<Seal, Failure> {
    let (upper, work) = (spec.scratch.join("upper"), spec.scratch.join("work"));
    let mut options = format!("lowerdir={},upperdir={},workdir={}", escape(lower), escape(&upper), escape(&work));
    if spec.ids.map == IdMap::Own {
        options.push_str(",userxattr");
    }
    let options = std::ffi::CString::new(options).map_err(|error| Failure::new("mount the image", error))?;
    let overlay =
        rustix::mount::mount("overlay", place, "overlay", MountFlags::NODEV | MountFlags::NOSUID, options.as_c_str());
    if overlay.is_ok() {
        return Ok(Seal { read_only: !writable, private_tmp: !writable });
    }
    // Some file systems cannot carry an upper layer. The image itself still serves, read-only, with a private /tmp; its
    // mount points have to be made in the unpacked image, where they are empty directories to every other container.
    let image = mounts::open_beneath(lower, None, None)?;
    let place = mounts::open_beneath(place, None, None)?;
    mounts::bind(image, place, NO_SUID | NO_DEVICES)?;
    Ok(Seal { read_only: true, private_tmp: true })
}

/// Escapes what separates options and directories in the options of overlayfs.
fn escape(path: &Path) -> String {
    let mut escaped = String::new();
    for character in path.to_string_lossy().chars() {
        if matches!(character, '\\' | ',' | ':') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

fn assemble_host(place: &Path, hidden: &[std::path::PathBuf]) -> Result<Seal, Failure> {
    let place_fd = mounts::open_beneath(place, None, None)?;
    mounts::mount_new("tmpfs", &[("mode", "755"), ("size", "1m")], place_fd, NO_SUID | NO_DEVICES)?;
    let tree = Tree::open(place, None)?;
    for name in HOST_DIRECTORIES {
        let host = Path::new("/").join(name);
        let Ok(metadata) = std::fs::symlink_metadata(&host) else {
            continue;
        };
        if metadata.is_symlink() {
            let target =
                std::fs::read_link(&host).map_err(|error| Failure::new(format_args!("read {host:?}"), error))?;
            rustix::fs::symlinkat(&target, &tree.root, name)
                .map_err(|error| Failure::new(format_args!("link {host:?}"), error))?;
        } else if metadata.is_dir() {
            let source = mounts::open_beneath(&host, None, None)?;
            let target = tree.ensure(&host, Kind::Directory)?;
            mounts::bind(source, target, READ_ONLY | NO_SUID | NO_DEVICES)?;
        }
    }
    for path in ["/root", "/home", "/run", "/var", "/srv", "/mnt", "/sys", "/proc", "/dev", "/tmp", "/var/tmp"] {
        tree.ensure(Path::new(path), Kind::Directory)?;
    }
    rustix::fs::symlinkat("../run", &tree.root, "var/run").map_err(|error| Failure::new("link /var/run", error))?;
    for path in hidden {
        // Only what lies inside a shown directory needs hiding, and exists then.
        if place.join(path.strip_prefix("/").unwrap_or(path)).is_dir() {
            let target = tree.ensure(path, Kind::Directory)?;
            let options = [("mode", "555"), ("size", "4k")];
            mounts::mount_new("tmpfs", &options, target, READ_ONLY | NO_SUID | NO_DEVICES | NO_EXEC)?;
        }
    }
    Ok(Seal { read_only: true, private_tmp: true })
}

fn assemble_devices(tree: &Tree) -> Result<(), Failure> {
    let dev = tree.ensure(Path::new("/dev"), Kind::Directory)?;
    mounts::mount_new("tmpfs", &[("mode", "755"), ("size", "64k")], dev, NO_SUID | NO_EXEC)?;
    // What is created here belongs to the maker: nobody inside may add to /dev.
    let owned = Tree { root: dup(&tree.root)?, owner: None };
    for name in DEVICES {
        let path = Path::new("/dev").join(name);
        let Ok(source) = mounts::open_beneath(&path, None, None) else {
            continue;
        };
        mounts::bind(source, owned.ensure(&path, Kind::File)?, NO_SUID | NO_EXEC)?;
    }
    let links = [
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        ("pts/ptmx", "ptmx"),
    ];
    let dev = owned.ensure(Path::new("/dev"), Kind::Directory)?;
    for (target, name) in links {
        rustix::fs::symlinkat(target, &dev, name).map_err(|error| Failure::new("link a device", error))?;
    }
    let pts = owned.ensure(Path::new("/dev/pts"), Kind::Directory)?;
    // Terminals are a convenience; a host that refuses them does not stop the container.
    let _ = mounts::mount_new("devpts", &[("ptmxmode", "0666"), ("mode", "0620")], pts, NO_SUID | NO_EXEC);
    let shm = owned.ensure(Path::new("/dev/shm"), Kind::Directory)?;
    mounts::mount_new("tmpfs", &[("mode", "1777"), ("size", "64m")], shm, NO_SUID | NO_DEVICES | NO_EXEC)
}

fn assemble_proc(tree: &Tree) -> Result<(), Failure> {
    let target = tree.ensure(Path::new("/proc"), Kind::Directory)?;
    let attributes = NO_SUID | NO_DEVICES | NO_EXEC;
    if mounts::mount_new("proc", &[], target, attributes).is_err() {
        // A host that hides parts of its own /proc lets no user namespace mount another. The host's, read-only, names
        // foreign processes but lets nobody touch them: they belong to another user namespace.
        let host = mounts::open_beneath(Path::new("/proc"), None, None)?;
        let target = tree.ensure(Path::new("/proc"), Kind::Directory)?;
        return mounts::bind(host, target, attributes | READ_ONLY);
    }
    let open = |name: &str| {
        let path = Path::new("/proc").join(name);
        resolve::in_root(&tree.root, path.strip_prefix("/").unwrap_or(&path), OFlags::PATH | OFlags::NOFOLLOW).ok()
    };
    for name in PROC_READ_ONLY {
        let (Some(source), Some(target)) = (open(name), open(name)) else {
            continue;
        };
        mounts::bind(source, target, attributes | READ_ONLY)?;
    }
    for name in PROC_EMPTY_FILES {
        let (Some(null), Some(target)) = (open("../dev/null"), open(name)) else {
            continue;
        };
        mounts::bind(null, target, attributes | READ_ONLY)?;
    }
    for name in PROC_EMPTY_DIRECTORIES {
        let Some(target) = open(name) else { continue };
        mounts::mount_new("tmpfs", &[("mode", "555"), ("size", "4k")], target, attributes | READ_ONLY)?;
    }
    Ok(())
}

/// Shows one volume inside the container.
fn show(tree: &Tree, mount: &Mount, owner: Option<(u32, u32)>) -> Result<(), Failure> {
    let source = mounts::open_beneath(&mount.source, mount.sub_path.as_deref(), owner)?;
    let target = tree.ensure(&mount.target, mounts::kind_of(&source)?)?;
    let read_only = if mount.read_only { READ_ONLY } else { 0 };
    mounts::bind(source, target, NO_SUID | NO_DEVICES | read_only)
}

fn dup(fd: &OwnedFd) -> Result<OwnedFd, Failure> {
    fd.try_clone().map_err(|error| Failure::new("duplicate a descriptor", error))
}
