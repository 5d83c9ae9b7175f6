//! `kratix down`: stops the embedded platform of a data directory.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use kratix_platform::{STOP_MAX, data_dir};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::args;
use crate::failure::Failure;
use crate::printer::Printer;

/// How long to wait: what the platform allows itself, and the end of the process.
const STOPPED: Duration = STOP_MAX.saturating_add(Duration::from_secs(5));
/// When to say what takes so long.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Tells the platform to stop and waits until it has.
pub(crate) async fn run(printer: &Printer, down: &args::Down) -> Result<ExitCode, Failure> {
    let root = down.data_dir.path();
    if !data_dir::is_held(&root) {
        printer.talk(format_args!("nothing is running in {}", root.display()));
        return Ok(ExitCode::SUCCESS);
    }
    let unknown = || {
        Failure::new(format!("a process holds {} and has not said which it is", root.display()))
            .hint("it may be starting or stopping: try again in a moment")
    };
    let running = data_dir::running(&root).ok_or_else(unknown)?;
    let pid = Pid::from_raw(running.pid.cast_signed()).ok_or_else(unknown)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    // Opened first and looked at again then: a number can be given to another process at any time, the handle cannot.
    if !running.is_alive() {
        return Err(unknown());
    }
    pidfd_send_signal(&process, Signal::TERM)?;
    let asked = Instant::now();
    let mut told = false;
    // Another platform may take the directory as soon as this one is gone.
    while running.is_alive() && data_dir::is_held(&root) {
        if asked.elapsed() > STOPPED {
            return Err(Failure::new(format!("process {pid} did not stop within {} s", STOPPED.as_secs()))
                .hint(format!("kill -9 {pid}; nothing acknowledged is lost")));
        }
        if !told && asked.elapsed() > PATIENCE {
            told = true;
            printer.talk(format_args!(
                "waiting up to {} s for process {pid}: it finishes writes, ends running pods and answers open requests",
                STOPPED.as_secs()
            ));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    printer.data(format_args!("stopped; the data stays in {}", root.display()));
    Ok(ExitCode::SUCCESS)
}
