//! Learning of a push at once: the directory of the branch is watched, because git replaces the file in it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::inotify;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches one file for being replaced.
pub(crate) struct Watch {
    branch: PathBuf,
    events: Option<AsyncFd<OwnedFd>>,
}

impl Watch {
    pub(crate) fn new(branch: PathBuf) -> Self {
        let mut watch = Self { branch, events: None };
        watch.renew();
        watch
    }

    /// Starts watching, if it does not yet; the directory may not exist before the first push.
    pub(crate) fn renew(&mut self) {
        if self.events.is_none() {
            self.events = self.branch.parent().and_then(|directory| start(directory).ok());
        }
    }

    /// Tells whether changes are reported; without, only looking helps.
    pub(crate) fn is_live(&self) -> bool {
        self.events.is_some()
    }

    /// Returns when something near the branch has changed.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn changed(&mut self) {
        let Some(events) = &self.events else { return std::future::pending().await };
        let Ok(mut ready) = events.ready(Interest::READABLE).await else { return std::future::pending().await };
        let mut buffer = [0u8; 4096];
        let mut gone = false;
        // What happened is of no interest, only that something did.
        while let Ok(read) = rustix::io::read(ready.get_inner().as_fd(), &mut buffer) {
            gone |= read == 0;
        }
        ready.clear_ready();
        drop(ready);
        if gone || !self.branch.parent().is_some_and(Path::exists) {
            self.events = None;
        }
    }
}

fn start(directory: &Path) -> std::io::Result<AsyncFd<OwnedFd>> {
    let events = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
    let what = inotify::WatchFlags::MOVED_TO
        | inotify::WatchFlags::CLOSE_WRITE
        | inotify::WatchFlags::DELETE
        | inotify::WatchFlags::DELETE_SELF
        | inotify::WatchFlags::MOVE_SELF;
    inotify::add_watch(&events, directory, what)?;
    // SAFETY: an `OwnedFd` names the same open descriptor until it is dropped, and nothing here gives it away.
    #[expect(unsafe_code, reason = "the only way to await a descriptor that is not a socket")]
    let events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) }?;
    Ok(events)
}
