//! Opening paths that somebody else has chosen: never out of a directory, whatever links lie on the way.

use std::path::Path;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::{Errno, Result};

/// The kernel gives up a lookup of `..` when anything on the machine is renamed or mounted at that moment (`EAGAIN`) and
/// wants it tried again. Each try is microseconds long; this many in a row do not fail by chance.
const ATTEMPTS_MAX: usize = 1_000;

/// Opens `path` below `directory`, reading links as if `directory` were the root.
pub(crate) fn in_root(directory: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    open(directory, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Opens `path` below `directory`; a link that leads out of it is an error.
pub(crate) fn beneath(directory: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    open(directory, path, flags, ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
}

fn open(directory: impl AsFd, path: &Path, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    for _ in 0..ATTEMPTS_MAX {
        match openat2(&directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return done,
        }
    }
    Err(Errno::AGAIN)
}
