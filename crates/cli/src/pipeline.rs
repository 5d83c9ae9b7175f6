//! `kratix pipeline …`: Kratix's own containers of a workflow pod.

use std::process::ExitCode;

use crate::args;
use crate::failure::Failure;

/// Runs `reader`, `work-creator` or `update-status` with the arguments and environment of the container.
pub(crate) async fn run(pipeline: args::Pipeline) -> Result<ExitCode, Failure> {
    kratix_pipeline::run(pipeline.args).await?;
    Ok(ExitCode::SUCCESS)
}
