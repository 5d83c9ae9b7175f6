//! The outer process: namespaces, id maps, waiting.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, WaitOptions};
use rustix::thread::UnshareFlags;

use super::{Control, Failure, IdMap, Report, init};

pub(super) fn run() -> ExitCode {
    // Standard input is the control socket; 0 itself is replaced before the container's program runs.
    let control = match rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) {
        Ok(socket) => Control::new(socket),
        Err(_) => return ExitCode::from(125),
    };
    let mut reports = match control.try_clone() {
        Ok(clone) => clone,
        Err(_) => return ExitCode::from(125),
    };
    match contain(control) {
        Ok(code) => code,
        Err(failure) => {
            reports.report(&Report::Failed(failure));
            ExitCode::from(125)
        }
    }
}

fn contain(mut control: Control) -> Result<ExitCode, Failure> {
    let spec = control.spec()?;
    let run = spec.run_file.as_deref().map(claim).transpose()?;
    let map = spec.ids.map;
    if map == IdMap::Own {
        // Inside, nobody may change groups, so the invoker's further groups would go along. Only the privileged can leave them.
        let _ = rustix::thread::set_thread_groups(&[]);
        enter_own_user_namespace()?;
    }
    unshare(UnshareFlags::NEWPID | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS, "enter new namespaces")?;
    let (ours, theirs) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|error| Failure::new("create a socket pair", error))?;

    let inner_ids = InnerIds { uid: spec.ids.uid, gid: spec.ids.gid };
    match fork()? {
        None => {
            drop(ours);
            init::run(spec, control, theirs, run)
        }
        Some(pid) => {
            drop(theirs);
            drop(control);
            // The pipes of the container's output must close when the container ends, not when this process does.
            silence()?;
            await_map_request(&ours, pid, map, inner_ids)?;
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
            // Held until here: init is gone only after every process of the container is.
            drop(run);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Takes the run's file. While it is locked, the container may be alive; a later node that has given the run up has written so.
fn claim(path: &Path) -> Result<File, Failure> {
    let fail = |error| Failure::new("take the run's file", error);
    let file = File::options().write(true).open(path).map_err(fail)?;
    file.lock().map_err(fail)?;
    if file.metadata().map_err(fail)?.len() > 0 {
        return Err(Failure::new("take the run's file", "the node has given this run up"));
    }
    Ok(file)
}

struct InnerIds {
    uid: u32,
    gid: u32,
}

/// Becomes root of a new user namespace that maps only the invoking user, for hosts where we are nobody special.
fn enter_own_user_namespace() -> Result<(), Failure> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    unshare(UnshareFlags::NEWUSER, "create a user namespace")?;
    let write = |file: &str, text: String| {
        std::fs::write(file, text).map_err(|error| Failure::new(format_args!("write {file}"), error))
    };
    write("/proc/self/setgroups", "deny".into())?;
    write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// Writes the id maps of init when it has entered its last user namespace. Only a process outside of that namespace may.
fn await_map_request(socket: &OwnedFd, pid: Pid, map: IdMap, ids: InnerIds) -> Result<(), Failure> {
    let mut byte = [0_u8; 1];
    if !matches!(rustix::io::read(socket, &mut byte), Ok(1)) {
        return Ok(()); // init failed earlier and said so
    }
    let (uid_map, gid_map) = match map {
        IdMap::Range { base, count } => (format!("0 {base} {count}"), format!("0 {base} {count}")),
        IdMap::Own => (format!("{} 0 1", ids.uid), format!("{} 0 1", ids.gid)),
    };
    let directory = format!("/proc/{}", pid.as_raw_nonzero());
    for (file, text) in [("uid_map", uid_map), ("gid_map", gid_map)] {
        let path = format!("{directory}/{file}");
        std::fs::write(&path, text)
            .map_err(|error| Failure::new(format_args!("write {file} of the container"), error))?;
    }
    rustix::io::write(socket, &[1]).map_err(|error| Failure::new("answer the container's init", error))?;
    Ok(())
}

/// Replaces the standard streams by `/dev/null`.
fn silence() -> Result<(), Failure> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Failure::new("open /dev/null", error))?;
    let null = null.as_fd();
    rustix::stdio::dup2_stdin(null)
        .and_then(|()| rustix::stdio::dup2_stdout(null))
        .and_then(|()| rustix::stdio::dup2_stderr(null))
        .map_err(|error| Failure::new("close the standard streams", error))
}

pub(super) fn unshare(flags: UnshareFlags, what: &str) -> Result<(), Failure> {
    #[expect(unsafe_code, reason = "unshare is marked unsafe for its effect on shared file tables")]
    // SAFETY: CLONE_FILES is never among the flags, and this process has one thread.
    let outcome = unsafe { rustix::thread::unshare_unsafe(flags) };
    outcome.map_err(|error| Failure::new(what, error))
}

/// Forks; `None` in the child.
pub(super) fn fork() -> Result<Option<Pid>, Failure> {
    #[expect(unsafe_code, reason = "there is no safe fork")]
    // SAFETY: this process has one thread, so the child finds every lock free and may call anything.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(Failure::new("fork", std::io::Error::last_os_error())),
        0 => Ok(None),
        pid => Ok(Pid::from_raw(pid)),
    }
}
