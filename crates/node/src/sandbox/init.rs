//! Process 1 of a container: builds the root, drops every privilege, starts the program, reaps, passes signals on.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{DumpableBehavior, Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, WaitOptions};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use super::outer::{fork, unshare};
use super::{Control, Exited, Failure, IdMap, Ids, Process, Report, Spec, filter, root};

/// Highest capability number tried when the bounding set is emptied; the kernel has 41 (`CAP_CHECKPOINT_RESTORE` = 40).
const CAPABILITY_MAX: u32 = 63;
/// Processes and threads of a container. Since Linux 5.14 they are counted for each user namespace, so for each container;
/// before, all containers of one user share them. Far more than steps of a workflow need, far less than a machine has.
const PROCESSES_MAX: u64 = 4096;

pub(super) fn run(spec: Spec, mut control: Control, outer: OwnedFd, run: Option<File>) -> ! {
    let code = match start(&spec, &control, outer) {
        Ok(main) => supervise(main, control, run),
        Err(failure) => {
            control.report(&Report::Failed(failure));
            125
        }
    };
    std::process::exit(code)
}

fn start(spec: &Spec, control: &Control, outer: OwnedFd) -> Result<Pid, Failure> {
    if let IdMap::Range { .. } = spec.ids.map {
        become_undumpable()?;
    }
    // Setting up may hang (a mount of a server that does not answer): whoever gives up kills the outer process.
    follow_parent()?;
    root::enter(spec)?;
    rustix::system::sethostname(spec.hostname.as_bytes()).map_err(|error| Failure::new("set the host name", error))?;
    drop_privileges(&spec.ids, outer)?;
    // Set after the change of user, which clears it.
    follow_parent()?;
    execute(&spec.process, control)
}

/// From here on nothing of ours may be looked at or traced from inside, whatever user the container runs as.
fn become_undumpable() -> Result<(), Failure> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| Failure::new("become undumpable", error))
}

fn follow_parent() -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| Failure::new("follow the parent's death", error))
}

/// Enters the last user namespace and gives up everything in it.
fn drop_privileges(ids: &Ids, outer: OwnedFd) -> Result<(), Failure> {
    // NEWNS together with NEWUSER: the copy of the mount table belongs to the lesser namespace, so every mount is locked.
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS, "enter the container's user namespace")?;
    let mut outer = File::from(outer);
    let mut answer = [0];
    outer
        .write_all(&[1])
        .and_then(|()| outer.read_exact(&mut answer))
        .map_err(|error| Failure::new("have the container's ids mapped", error))?;
    // Not earlier: the files of an undumpable process belong to the machine's root, and the outer process that has to write the
    // maps need not be that. Nothing of the container runs before.
    become_undumpable()?;

    if let IdMap::Range { .. } = ids.map {
        let groups: Vec<_> = ids.groups.iter().map(|gid| rustix::process::Gid::from_raw(*gid)).collect();
        rustix::thread::set_thread_groups(&groups).map_err(|error| Failure::new("set the groups", error))?;
    }
    let uid = rustix::process::Uid::from_raw(ids.uid);
    let gid = rustix::process::Gid::from_raw(ids.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(|error| Failure::new("set the group id", error))?;
    for number in 0..=CAPABILITY_MAX {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) => break, // past the kernel's last one
            Err(error) => return Err(Failure::new("drop the bounding set", error)),
        }
    }
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(|error| Failure::new("set the user id", error))?;
    let _ = rustix::thread::clear_ambient_capability_set();
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(|error| Failure::new("drop all capabilities", error))?;
    rustix::thread::set_no_new_privs(true).map_err(|error| Failure::new("forbid new privileges", error))?;
    become_undumpable()?;
    let no_core = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, no_core).map_err(|error| Failure::new("limit core files", error))?;
    limit_processes()?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    Ok(())
}

/// Keeps a fork bomb from taking all processes of the machine.
fn limit_processes() -> Result<(), Failure> {
    let hard = rustix::process::getrlimit(Resource::Nproc).maximum.unwrap_or(u64::MAX).min(PROCESSES_MAX);
    let limit = Rlimit { current: Some(hard), maximum: Some(hard) };
    rustix::process::setrlimit(Resource::Nproc, limit).map_err(|error| Failure::new("limit processes", error))
}

/// Forks and executes the container's program; returns once it runs or has refused to.
fn execute(process: &Process, control: &Control) -> Result<Pid, Failure> {
    let (mut failed, told) = std::io::pipe().map_err(|error| Failure::new("create a pipe", error))?;
    let mut reports = control.try_clone()?;
    let Some(pid) = fork()? else {
        drop(failed);
        let failure = become_program(process);
        let mut told = told;
        let _ = told.write_all(&serde_json::to_vec(&failure).unwrap_or_default());
        std::process::exit(125);
    };
    drop(told);
    // The program's copy of the pipe closes by itself when it is executed.
    let mut text = Vec::new();
    failed.read_to_end(&mut text).map_err(|error| Failure::new("await the start of the program", error))?;
    if text.is_empty() {
        reports.report(&Report::Started);
        return Ok(pid);
    }
    let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
    Err(serde_json::from_slice(&text)
        .unwrap_or_else(|_| Failure::new("start the program", String::from_utf8_lossy(&text))))
}

/// Replaces this process by the container's program; returns only the reason why that did not work.
fn become_program(process: &Process) -> Failure {
    if let Err(error) = std::env::set_current_dir(&process.cwd) {
        return Failure::new(format_args!("change to working directory {:?}", process.cwd), error);
    }
    if let Err(failure) = filter::install() {
        return failure;
    }
    let _ = rustix::process::setsid();
    // Nothing but the three standard streams crosses, whoever forgot to mark a descriptor.
    close_on_exec_from_3();
    let error = Command::new(&process.program)
        .arg0(process.argv.first().unwrap_or(&process.program))
        .args(process.argv.get(1..).unwrap_or_default())
        .env_clear()
        .envs(process.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .exec();
    let code = match error.kind() {
        std::io::ErrorKind::NotFound => 127,
        std::io::ErrorKind::PermissionDenied => 126,
        _ => 128,
    };
    let message = match code {
        127 if !process.program.contains('/') => {
            format!("exec: {:?}: executable file not found in $PATH", process.program)
        }
        127 if Path::new(&process.program).exists() => {
            format!("exec: {:?}: its interpreter or loader does not exist in the image", process.program)
        }
        127 => format!("exec: {:?}: no such file or directory", process.program),
        126 => format!("exec: {:?}: permission denied", process.program),
        _ => format!("exec: {:?}: {error}", process.program),
    };
    Failure { message, code }
}

fn close_on_exec_from_3() {
    #[expect(unsafe_code, reason = "close_range has no wrapper in the crates used")]
    // SAFETY: only marks descriptors; none is closed before exec.
    let _ = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// The container's program, and whether it was asked to end.
struct Main {
    pid: Pid,
    asked: Mutex<bool>,
}

impl Main {
    /// Passes a signal on. One that comes after the end changes nothing about how the program ended.
    fn signal(&self, signal: Signal) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if let Ok(None) = rustix::process::waitid(WaitId::Pid(self.pid), look) {
            *asked = true;
            let _ = rustix::process::kill_process(self.pid, signal);
        }
    }
}

/// Waits for the program, reaping whatever else ends meanwhile, and tells how it ended.
fn supervise(main: Pid, mut control: Control, run: Option<File>) -> i32 {
    let main = Arc::new(Main { pid: main, asked: Mutex::new(false) });
    if let Ok(mut signals) = control.try_clone() {
        let main = main.clone();
        let listen = move || {
            while let Some(number) = signals.signal() {
                if let Some(signal) = Signal::from_named_raw(number) {
                    main.signal(signal);
                }
            }
            // The node is gone. The one who waits for the program notes how it ended, which may have been just before, and
            // leaves: that takes every process of the container with us.
            main.signal(Signal::KILL);
        };
        if std::thread::Builder::new().stack_size(64 << 10).spawn(listen).is_err() {
            return 125; // without it nobody could stop the container
        }
    }
    release_output();
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == main.pid => {
                let signal = status.terminating_signal();
                let code = signal.map_or_else(|| status.exit_status().unwrap_or(255), |signal| 128 + signal);
                let asked = *main.asked.lock().unwrap_or_else(PoisonError::into_inner);
                let exited = Exited { code, signal, asked };
                if let (Some(mut run), Ok(text)) = (run, serde_json::to_vec(&exited)) {
                    let _ = run.write_all(&text); // without it, the end is unknown to a later node
                }
                control.report(&Report::Exited(exited));
                return 0;
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return 125,
        }
    }
}

/// Gives up our copies of the container's output streams.
fn release_output() {
    if let Ok(null) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        let null = null.as_fd();
        let _ = rustix::stdio::dup2_stdin(null)
            .and_then(|()| rustix::stdio::dup2_stdout(null))
            .and_then(|()| rustix::stdio::dup2_stderr(null));
    }
}
