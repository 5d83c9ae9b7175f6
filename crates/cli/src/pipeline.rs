//! `kratix pipeline …`: Kratix's own containers of a workflow pod.

use std::path::Path;
use std::process::ExitCode;

use kratix_pipeline::termination;

use crate::args;
use crate::failure::Failure;
use crate::printer::Printer;

/// Runs `reader`, `work-creator` or `update-status` with the arguments and environment of the container.
pub(crate) async fn run(printer: &Printer, pipeline: args::Pipeline) -> Result<ExitCode, Failure> {
    let Err(error) = kratix_pipeline::run(pipeline.args).await else { return Ok(ExitCode::SUCCESS) };
    printer.error(&error, None);
    // Outside of a pod there is nobody to read them.
    let left = termination::write_message(&error, Path::new(termination::MESSAGE_PATH));
    tracing::debug!(left = left.is_ok(), "last words");
    Ok(ExitCode::from(termination::exit_code(&error)))
}
