//! Containers in Linux namespaces, set up by this executable itself: nothing to install, no daemon, no root needed.
//!
//! An own sandbox of a few hundred lines instead of a runtime library: those insist on cgroups, which hosts with
//! the old hierarchy or without delegation do not offer. See [`crate::sandbox`] for how it is built.
//!
//! # Limits
//! The network is the host's (as with `hostNetwork: true`). CPU and memory limits are not enforced.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use super::{Container, Exit, Prepared, Process, Root, Running, Runtime, StartError, User};
use crate::sandbox::{self, IdMap, Ids, Report, Spec};
use crate::{ids, image, resolve};

/// Reports are small; anything larger does not come from our child.
const REPORT_BYTES_MAX: usize = 64 << 10;
/// How long it may take until a program is executed. Setting up takes milliseconds; what takes this long hangs on a file system.
const START_WITHIN: Duration = Duration::from_secs(60);

pub(crate) struct Native {
    store: image::Store,
    map: IdMap,
    /// Names under which the machine's own root file system is offered.
    host_image: Option<image::Name>,
    /// Directories that even the host image must not show.
    hidden: Vec<PathBuf>,
    /// What is executed as the sandbox child: this executable, which need not be where it was any more.
    child: PathBuf,
    start_within: Duration,
}

impl Native {
    pub(crate) fn new(store: image::Store, host_image: Option<image::Name>, hidden: Vec<PathBuf>) -> Self {
        // Mount points are real paths; a data directory reached through a link must be hidden where it really is.
        let mut real: Vec<PathBuf> = hidden.iter().filter_map(|path| path.canonicalize().ok()).collect();
        real.extend(hidden);
        real.sort();
        real.dedup();
        let child = PathBuf::from("/proc/self/exe");
        Self { store, map: ids::map(), host_image, hidden: real, child, start_within: START_WITHIN }
    }

    /// Returns the image that is this machine itself.
    pub(crate) fn host(&self) -> Prepared {
        Prepared {
            id: "host".into(),
            root: Root::Host,
            config: image::Config::default(),
            user: User { uid: ids::UNPRIVILEGED, gid: ids::UNPRIVILEGED },
            home: "/tmp".into(),
        }
    }
}

#[async_trait::async_trait]
impl Runtime for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    async fn prepare(&self, image: &str) -> Result<Prepared, image::Error> {
        let name: image::Name = image.parse()?;
        if self.host_image.as_ref().is_some_and(|host| host.repository() == name.repository()) {
            return Ok(self.host());
        }
        // One small file, in the page cache.
        let image = self.store.resolve(image)?;
        let (user, home) = account(&image.rootfs, &image.config.user);
        Ok(Prepared { id: image.id, root: Root::Directory(image.rootfs), config: image.config, user, home })
    }

    async fn start(&self, container: Container) -> Result<Running, StartError> {
        let map = self.map;
        let (hidden, child) = (self.hidden.clone(), self.child.clone());
        let started = async {
            let spawned = tokio::task::spawn_blocking(move || spawn(&child, container, map, hidden));
            let spawned = spawned.await.map_err(|error| StartError::new("start the container", error))?;
            let (mut process, stdout, stderr, spec) = spawned?;
            process.socket.write_all(&spec).await.map_err(|error| StartError::new("send the specification", error))?;
            match process.report().await {
                Some(Report::Started) => Ok(Running { stdout, stderr, process: Box::new(process) }),
                Some(Report::Failed(failure)) => {
                    let _ = process.child.wait().await;
                    Err(StartError { message: failure.message, code: failure.code })
                }
                Some(Report::Exited(_)) | None => Err(StartError::new("start the container", "its init ended early")),
            }
        };
        tokio::time::timeout(self.start_within, started).await.unwrap_or_else(|_| {
            let limit = format!("it is not set up after {} s; it is given up", self.start_within.as_secs_f32());
            Err(StartError::new("start the container", limit))
        })
    }
}

type Spawned = (Sandboxed, pipe::Receiver, pipe::Receiver, Vec<u8>);

fn spawn(child: &Path, container: Container, map: IdMap, hidden: Vec<PathBuf>) -> Result<Spawned, StartError> {
    let scratch = &container.scratch;
    prepare_scratch(scratch, map).map_err(|error| StartError::new("prepare the container's directory", error))?;
    let mut mounts = container.mounts;
    mounts.extend(resolver_mounts(&container.image.root));
    let spec = Spec {
        hostname: container.hostname,
        ids: Ids { map, uid: container.user.uid, gid: container.user.gid, groups: container.groups },
        root: match container.image.root {
            Root::Directory(lower) => sandbox::Root::Image { lower, writable: !container.read_only_root },
            Root::Host => sandbox::Root::Host { hidden },
        },
        scratch: scratch.clone(),
        mounts,
        process: sandbox::Process {
            program: container.program,
            argv: container.argv,
            env: container.env,
            cwd: container.cwd,
        },
        run_file: container.run_file,
    };
    let fail = |error: io::Error| StartError::new("start the container", error);
    let spec = sandbox::frame(&spec).map_err(fail)?;
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(fail)?;
    ours.set_nonblocking(true).map_err(fail)?;
    let (out_read, out_write) = io::pipe().map_err(fail)?;
    let (err_read, err_write) = io::pipe().map_err(fail)?;
    let child = Command::new(child)
        .arg0(sandbox::MARKER)
        .env_clear()
        .current_dir("/")
        // A group of its own: Ctrl-C on the terminal is for the node, which then stops its containers in order.
        .process_group(0)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::from(OwnedFd::from(out_write)))
        .stderr(Stdio::from(OwnedFd::from(err_write)))
        .kill_on_drop(true)
        .spawn()
        .map_err(fail)?;
    let process =
        Sandboxed { child, socket: UnixStream::from_std(ours).map_err(fail)?, buffer: Vec::new(), exit: None };
    let receiver = |reader: io::PipeReader| pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(fail);
    Ok((process, receiver(out_read)?, receiver(err_read)?, spec))
}

/// Makes the directories of one run. They are given to the container's root where the host allows that.
fn prepare_scratch(scratch: &Path, map: IdMap) -> io::Result<()> {
    std::fs::create_dir_all(scratch)?;
    for (name, mode) in [("root", 0o755), ("upper", 0o755), ("work", 0o755), ("tmp", 0o1777)] {
        let path = scratch.join(name);
        std::fs::create_dir(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
        if let Some((uid, gid)) = ids::container_root(map) {
            std::os::unix::fs::chown(&path, Some(uid), Some(gid))?;
        }
    }
    Ok(())
}

/// Shows the host's name resolution, which goes with the host's network.
fn resolver_mounts(root: &Root) -> Vec<sandbox::Mount> {
    let mut mounts = Vec::new();
    for file in ["/etc/resolv.conf", "/etc/hosts"] {
        let Ok(real) = std::fs::canonicalize(file) else {
            continue;
        };
        // The host image has /etc already, but perhaps as a link to a place that it does not show.
        let shown = matches!(root, Root::Host) && real.starts_with("/etc");
        if !shown && real.is_file() {
            mounts.push(sandbox::Mount { source: real, sub_path: None, target: file.into(), read_only: true });
        }
    }
    mounts
}

struct Sandboxed {
    child: Child,
    socket: UnixStream,
    /// Bytes of a report that is not complete yet; kept here so that waiting can be cancelled.
    buffer: Vec<u8>,
    exit: Option<Exit>,
}

impl Sandboxed {
    /// Waits for the next report; `None` when the child has closed its end or talks nonsense.
    async fn report(&mut self) -> Option<Report> {
        loop {
            if let Some((length, rest)) = self.buffer.split_first_chunk::<4>() {
                let length = u32::from_le_bytes(*length) as usize;
                if length > REPORT_BYTES_MAX {
                    return None;
                }
                if rest.len() >= length {
                    let report = serde_json::from_slice(&rest[..length]).ok();
                    self.buffer.drain(..4 + length);
                    return report;
                }
            }
            match self.socket.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

#[async_trait::async_trait]
impl Process for Sandboxed {
    async fn signal(&mut self, signal: i32) {
        if let Ok(byte) = u8::try_from(signal) {
            let _ = self.socket.write_all(&[byte]).await;
        }
    }

    async fn wait(&mut self) -> Exit {
        while self.exit.is_none() {
            self.exit = match self.report().await {
                Some(Report::Exited(sandbox::Exited { code, signal, asked })) => Some(Exit { code, signal, asked }),
                Some(_) => None,
                // Its init was killed from outside, and everything in the container with it.
                None => Some(Exit { code: 137, signal: Some(9), asked: true }),
            };
        }
        let _ = self.child.wait().await;
        self.exit.expect("the loop ends only with an exit")
    }
}

/// Looks a user up in an image: `name`, `uid`, with or without `:group`.
fn account(rootfs: &Path, user: &str) -> (User, String) {
    let (name, group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let passwd = read_inside(rootfs, "etc/passwd");
    // name:password:uid:gid:comment:home:shell
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.len() >= 6 && (fields[0] == name || fields[2] == name));
    let number = |text: &str| text.parse::<u32>().ok();
    let uid = number(name).or_else(|| entry.as_ref().and_then(|fields| number(fields[2])));
    let own_gid = entry.as_ref().and_then(|fields| number(fields[3])).unwrap_or(0);
    let gid = match group {
        None => own_gid,
        Some(group) => number(group).unwrap_or_else(|| {
            let groups = read_inside(rootfs, "etc/group");
            let found = groups.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|f| f[0] == group);
            found.and_then(|fields| fields.get(2).and_then(|gid| number(gid))).unwrap_or(own_gid)
        }),
    };
    let home = entry.map(|fields| fields[5].to_owned()).filter(|home| !home.is_empty()).unwrap_or_else(|| "/".into());
    // An account that the image does not have cannot be run as; nobody is the harmless reading of it.
    (User { uid: uid.unwrap_or(65_534), gid }, home)
}

/// Reads a small text file of an image without following links out of it.
fn read_inside(rootfs: &Path, path: &str) -> String {
    use rustix::fs::{Mode, OFlags};
    use std::io::Read;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let Ok(root) = rustix::fs::open(rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) else {
        return String::new();
    };
    let Ok(file) = resolve::in_root(&root, Path::new(path), flags) else {
        return String::new();
    };
    let mut text = Vec::new();
    let _ = std::fs::File::from(file).take(1 << 20).read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests;
