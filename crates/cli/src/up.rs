//! `kratix up`: the embedded platform, in the foreground or left running.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use kratix_platform::data_dir::{self, Running};
use kratix_platform::{Options, Platform, Runtime};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;
use crate::printer::{Format, Printer};
use crate::{allocator, args};

/// How long a detached platform may take to become ready.
const READY: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Runs the platform until it is told to stop.
pub(crate) async fn run(printer: &Printer, up: args::Up) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let options = Options {
        data_dir: up.data_dir.path(),
        listen: up.listen,
        kubeconfig: up.kubeconfig,
        api_server: up.api_server,
        runtime: match up.runtime {
            args::Runtime::Auto => Runtime::Auto,
            args::Runtime::Native => Runtime::Native,
        },
    };
    let platform = start(options).await?;
    announce(printer, platform.running(), started.elapsed(), false);
    stopped().await?;
    printer.talk("stopping");
    platform.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Starts the platform and adds to a failure what can be done about it.
pub(crate) async fn start(options: Options) -> Result<Platform, Failure> {
    allocator::give_back_while_idle();
    Platform::start(options).await.map_err(|error| {
        let hint = error.hint();
        Failure { hint, ..Failure::from(error) }
    })
}

/// Returns when the process is told to stop.
pub(crate) async fn stopped() -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    // Both mean the same, and whichever comes first ends the wait.
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Starts another process that stays, and returns when it is ready.
pub(crate) async fn detach(printer: &Printer, up: &args::Up, verbose: u8) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let root = up.data_dir.path();
    data_dir::create(&root)?;
    let log_path = root.join("kratix.log");
    let cannot = |error| Failure::new(format!("cannot write {}: {error}", log_path.display()));
    let log = File::options().create(true).append(true).mode(0o600).open(&log_path).map_err(cannot)?;
    // Also where an older program made it.
    log.set_permissions(Permissions::from_mode(0o600))?;
    let begin = log.metadata()?.len();
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("up").arg("--data-dir").arg(&root).arg("--listen").arg(up.listen.to_string());
    if let Some(kubeconfig) = &up.kubeconfig {
        command.arg("--kubeconfig").arg(kubeconfig);
    }
    if let Some(kubeconfig) = &up.api_server {
        command.arg("--api-server").arg(kubeconfig);
    }
    if up.runtime == args::Runtime::Native {
        command.args(["--runtime", "native"]);
    }
    command.args((0..verbose).map(|_| "--verbose"));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let mut child = command.spawn()?;
    loop {
        // Alive, and with this number: nobody else can have it while this process has not taken note of its end.
        if let Some(running) = data_dir::running(&root).filter(|running| running.pid == child.id()) {
            announce(printer, &running, started.elapsed(), true);
            return Ok(ExitCode::SUCCESS);
        }
        if child.try_wait()?.is_some() {
            return Err(Failure::new(said(&log_path, begin)));
        }
        if started.elapsed() > READY {
            return Err(Failure::new(format!("the platform did not become ready within {} s", READY.as_secs()))
                .hint(format!("read {}", log_path.display())));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Returns what the detached process said before it ended.
fn said(log: &Path, begin: u64) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text =
        String::from_utf8_lossy(text.get(usize::try_from(begin).unwrap_or(0)..).unwrap_or_default()).into_owned();
    let text = text.trim();
    let text = text.strip_prefix("Error: ").unwrap_or(text);
    if text.is_empty() { format!("the platform ended at once; its log is {}", log.display()) } else { text.to_owned() }
}

fn announce(printer: &Printer, running: &Running, took: Duration, detached: bool) {
    if printer.format == Format::Json {
        printer.json(&json!({
            "pid": running.pid,
            "platform": running.platform,
            "worker": running.worker,
            "kubeconfig": running.kubeconfig,
            "readySeconds": took.as_secs_f64(),
        }));
        return;
    }
    printer.data(format_args!("platform   {} (ready in {:.2} s)", running.platform, took.as_secs_f64()));
    printer.data(format_args!("worker-1   {}", running.worker));
    printer.data(format_args!("kubeconfig {}", running.kubeconfig.display()));
    printer.talk("");
    printer.talk(format_args!("  export KUBECONFIG={}", running.kubeconfig.display()));
    printer.talk("  kubectl get promises,destinations");
    printer.talk("  kubectl --context worker-1 get namespaces");
    printer.talk("");
    printer.talk(if detached { "stop it with: kratix down" } else { "stop it with Ctrl-C" });
}
