//! The sandbox child: what this executable does when it is started again to become one container.
//!
//! Three processes stand behind a container. The *outer* one is a fresh execution of this program; it makes the
//! namespaces, writes the id maps and waits. The *init* one is process 1 inside; it builds the file system, gives up
//! every privilege, reaps orphans and passes signals on. The *main* one is the container's own program.
//! The control socket (standard input of the outer process) carries the [`Spec`] in, signals in, and [`Report`]s out. When its
//! other end closes, for whatever reason, init exits and the kernel kills everything inside: no process of a container outlives
//! the process that started it.
//!
//! How the program ended is first written to the run's file, by init itself, then reported: a node that is killed meanwhile, or
//! reads the report late, loses nothing.
//!
//! Order of the privileges: mounts are made by the more privileged user, then a second user namespace is entered.
//! So the mounts are locked: even code with every capability of the inner namespace could not undo them.

mod filter;
mod init;
mod mounts;
mod outer;
mod root;

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

/// `argv[0]` of the outer process; a person would not type it by accident.
pub(crate) const MARKER: &str = "embedded-node:sandbox";

/// A specification has a few hundred environment variables at most; larger ones are refused.
const SPEC_BYTES_MAX: u32 = 16 << 20;

/// Everything that the child needs to know; it reads no other configuration.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) hostname: String,
    pub(crate) ids: Ids,
    pub(crate) root: Root,
    /// Private directory of this container on the host: `root` (mount point), `upper`, `work`, `tmp`.
    pub(crate) scratch: PathBuf,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) process: Process,
    /// File of the host that exists and takes the container's [`Exited`]; see [`crate::pod::run`].
    pub(crate) run_file: Option<PathBuf>,
}

/// Which user the container runs as, and what that user is on the host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ids {
    pub(crate) map: IdMap,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// How ids inside correspond to ids of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum IdMap {
    /// `0..count` inside is `base..base + count` on the host; only root can set this up.
    Range { base: u32, count: u32 },
    /// The one id used inside is the invoking user; everything else belongs to nobody.
    Own,
}

/// The root file system of a container.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Root {
    /// An unpacked image, never written to; `writable` puts a private layer on top.
    Image { lower: PathBuf, writable: bool },
    /// The programs and libraries of this machine, read-only; `hidden` paths are empty.
    Host { hidden: Vec<PathBuf> },
}

/// A host directory or file shown inside the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    pub(crate) source: PathBuf,
    /// A path below `source`, chosen by the pod's author; resolved so that it cannot leave `source`.
    pub(crate) sub_path: Option<PathBuf>,
    pub(crate) target: PathBuf,
    pub(crate) read_only: bool,
}

/// The program of a container.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Path or name of the program; names are looked up in `PATH` of `env`.
    pub(crate) program: String,
    /// Arguments, the first being the name the program sees for itself.
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: PathBuf,
}

/// What the child tells the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The container's program was executed.
    Started,
    /// The program never ran.
    Failed(Failure),
    /// The program ended.
    Exited(Exited),
}

/// How a container's program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exited {
    /// Exit code; 128 + signal if a signal ended it.
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
    /// A signal was sent to it before: it did not end of its own accord, whatever its code.
    pub(crate) asked: bool,
}

/// Why a container could not be brought to life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) message: String,
    /// As a shell would say it: 126 not executable, 127 not found, 128 the sandbox itself.
    pub(crate) code: i32,
}

impl Failure {
    fn new(what: impl std::fmt::Display, source: impl std::fmt::Display) -> Self {
        Self { message: format!("{what}: {source}"), code: 128 }
    }
}

/// Runs this process as a container if it was started to be one; call it first in `main`.
///
/// Returns `None` in every other process, so that `main` goes on.
///
/// # Assumptions
/// No thread was started yet: user namespaces can only be entered by a process with a single thread.
pub fn sandbox_main() -> Option<ExitCode> {
    if std::env::args_os().next().as_deref() != Some(OsStr::new(MARKER)) {
        return None;
    }
    Some(outer::run())
}

/// Makes any binary able to be the sandbox child, also those whose `main` is not ours to change (tests).
///
/// Expands to a function that the C run time calls before `main`; write it once, at the top of the crate.
#[macro_export]
macro_rules! sandbox_hook {
    () => {
        #[cfg(target_os = "linux")]
        #[used]
        #[allow(
            unsafe_code,
            reason = "a constructor is the only code that runs before the test harness starts threads"
        )]
        // SAFETY: the section holds pointers to functions without arguments, which this is; std's own constructor for
        // the arguments has a lower priority number and so ran before.
        #[unsafe(link_section = ".init_array")]
        static EMBEDDED_NODE_SANDBOX_HOOK: extern "C" fn() = {
            extern "C" fn hook() {
                if $crate::sandbox_main().is_some() {
                    ::std::process::exit(0);
                }
            }
            hook
        };
    };
}

/// Writes one length-prefixed JSON message.
pub(crate) fn frame(value: &impl Serialize) -> std::io::Result<Vec<u8>> {
    let body = serde_json::to_vec(value)?;
    let length = u32::try_from(body.len()).ok().filter(|length| *length <= SPEC_BYTES_MAX).ok_or_else(|| {
        std::io::Error::new(std::io::ErrorKind::InvalidInput, format!("a message of {} bytes is too large", body.len()))
    })?;
    let mut framed = Vec::with_capacity(body.len() + 4);
    framed.extend_from_slice(&length.to_le_bytes());
    framed.extend_from_slice(&body);
    Ok(framed)
}

/// The child's end of the control socket.
struct Control {
    socket: std::fs::File,
}

impl Control {
    fn new(socket: OwnedFd) -> Self {
        Self { socket: std::fs::File::from(socket) }
    }

    fn spec(&mut self) -> Result<Spec, Failure> {
        let read = |error| Failure::new("read the container's specification", error);
        let mut length = [0; 4];
        self.socket.read_exact(&mut length).map_err(read)?;
        let length = u32::from_le_bytes(length);
        if length > SPEC_BYTES_MAX {
            return Err(Failure::new("read the container's specification", format!("{length} bytes are too many")));
        }
        let mut body = vec![0; length as usize];
        self.socket.read_exact(&mut body).map_err(read)?;
        serde_json::from_slice(&body).map_err(|error| Failure::new("read the container's specification", error))
    }

    /// Sends a report; a node that is gone needs none.
    fn report(&mut self, report: &Report) {
        if let Ok(framed) = frame(report) {
            let _ = self.socket.write_all(&framed);
        }
    }

    fn try_clone(&self) -> Result<Self, Failure> {
        let socket = self.socket.try_clone().map_err(|error| Failure::new("duplicate the control socket", error))?;
        Ok(Self { socket })
    }

    /// Waits for the next signal to pass on; `None` once the node is gone.
    fn signal(&mut self) -> Option<i32> {
        let mut byte = [0];
        match self.socket.read(&mut byte) {
            Ok(1) => Some(i32::from(byte[0])),
            _ => None,
        }
    }
}
