//! `kratix status`: whether the embedded platform is running, and where.

use std::process::ExitCode;

use kratix_platform::data_dir;
use serde_json::json;

use crate::args;
use crate::failure::Failure;
use crate::printer::{Format, Printer};

/// Prints what the platform of a data directory says about itself; exit code 1 when there is none.
pub(crate) fn run(printer: &Printer, status: &args::Status) -> Result<ExitCode, Failure> {
    let root = status.data_dir.path();
    let is_held = data_dir::is_held(&root);
    let running = data_dir::running(&root).filter(|_| is_held);
    if status.kubeconfig_path {
        let running = running.ok_or_else(|| {
            Failure::new(format!("nothing is running in {}", root.display())).hint("kratix up --detach")
        })?;
        printer.data(running.kubeconfig.display());
        return Ok(ExitCode::SUCCESS);
    }
    if printer.format == Format::Json {
        printer.json(&json!({"dataDir": root, "running": running}));
    } else if let Some(running) = &running {
        printer.data(format_args!("running    process {}", running.pid));
        printer.data(format_args!("platform   {}", running.platform));
        printer.data(format_args!("worker-1   {}", running.worker));
        printer.data(format_args!("kubeconfig {}", running.kubeconfig.display()));
        printer.data(format_args!("data       {}", root.display()));
    } else if is_held {
        printer.data(format_args!("starting or stopping (data directory {})", root.display()));
    } else {
        printer.data(format_args!("not running (data directory {})", root.display()));
        printer.talk("next: kratix up --detach");
    }
    Ok(if running.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
