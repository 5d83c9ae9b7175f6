//! `kratix down`: stops the embedded platform of a data directory.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use kratix_platform::data_dir;
use rustix::process::{Pid, Signal, kill_process};

use crate::args;
use crate::failure::Failure;
use crate::printer::Printer;

/// How long the platform may take to stop: running pods get a moment to end.
const STOPPED: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Tells the platform to stop and waits until it has.
pub(crate) async fn run(printer: &Printer, down: &args::Down) -> Result<ExitCode, Failure> {
    let root = down.data_dir.path();
    if !data_dir::is_held(&root) {
        printer.talk(format_args!("nothing is running in {}", root.display()));
        return Ok(ExitCode::SUCCESS);
    }
    let running = data_dir::running(&root);
    let pid = running.and_then(|running| Pid::from_raw(running.pid.cast_signed()));
    let Some(pid) = pid else {
        return Err(Failure::new(format!("a process holds {} and has not said which it is", root.display()))
            .hint("it may still be starting: try again in a moment"));
    };
    kill_process(pid, Signal::TERM)?;
    let asked = Instant::now();
    while data_dir::is_held(&root) {
        if asked.elapsed() > STOPPED {
            return Err(Failure::new(format!("process {pid} did not stop within {} s", STOPPED.as_secs()))
                .hint(format!("kill -9 {pid}; nothing acknowledged is lost")));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    printer.data(format_args!("stopped; the data stays in {}", root.display()));
    Ok(ExitCode::SUCCESS)
}
