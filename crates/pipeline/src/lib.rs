//! What runs inside a workflow pod: `reader`, `work-creator` and `update-status`.
//!
//! Each program is a function with an explicit configuration, a client and file system roots; arguments and environment
//! are read once, in [`run`]. What is decided (files to Work, status to status) is pure and tested without a server.
//!
//! Reading order: [`parameters`] (arguments and environment), [`reader`], [`output`] and [`selectors`] (what a pipeline
//! leaves behind), [`work_writer`], [`control`], [`status`] (the decision) and [`status_writer`], [`yaml`], [`termination`] (what a
//! failure leaves behind).
//!
//! # Source
//! `02-workflows.md` §14–§16

mod error;
mod parts;

pub mod control;
pub mod metadata;
pub mod object;
pub mod output;
pub mod parameters;
pub mod reader;
pub mod selectors;
pub mod status;
pub mod status_writer;
pub mod termination;
pub mod work_writer;
pub mod yaml;

use std::io::Write;

use kratix_api::Timestamp;
use kube::Client;

pub use error::Error;
use parameters::Program;

/// Runs the program that the arguments name, with the environment of this process.
///
/// # Errors
/// [`Error`]; the container fails with the code of [`termination::exit_code`], and the pod runs it again within the Job's
/// limit, unless that is useless.
pub async fn run(args: Vec<String>) -> Result<(), Error> {
    let program = Program::parse(&args, &|name| std::env::var(name).ok())?;
    let client = Client::try_default().await.map_err(Error::Client)?;
    let lines = execute(&program, client, Timestamp::now).await?;
    let mut stdout = std::io::stdout().lock();
    for line in lines {
        // A closed log is no reason to fail a workflow.
        let _ = writeln!(stdout, "{line}");
    }
    Ok(())
}

/// Runs a program and returns the lines it prints. `clock` is asked when something is written.
///
/// # Errors
/// [`Error`].
pub async fn execute(
    program: &Program,
    client: Client,
    clock: impl Fn() -> Timestamp + Send + Sync,
) -> Result<Vec<String>, Error> {
    match program {
        Program::Reader(config) => reader::run(config, &client).await,
        Program::WorkWriter(config) => work_writer::run(config, &client, clock()).await,
        Program::StatusWriter(config) => status_writer::run(config, &client, clock).await,
    }
}
