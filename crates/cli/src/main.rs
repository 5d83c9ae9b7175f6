//! The one binary of Kratix.

mod allocator;
mod args;
mod demo;
mod down;
mod failure;
mod image;
mod pipeline;
mod printer;
mod status;
mod stores;
mod up;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Command, ImageCommand};
use crate::failure::Failure;
use crate::printer::{Format, Printer};

fn main() -> ExitCode {
    // Before anything else: as the first process of a container this program is another one, and must have no threads.
    if let Some(code) = embedded_node::sandbox_main() {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are no errors; everything else is 1, as scripts of the original expect.
        Err(error) => {
            let code = if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
            let _ = error.print();
            return code;
        }
    };
    log(cli.verbose);
    let printer = Printer::new(format(&cli.command));
    match run(&printer, cli.command, cli.verbose) {
        Ok(code) => code,
        Err(failure) => {
            printer.error(failure.error.as_ref(), failure.hint.as_deref());
            ExitCode::FAILURE
        }
    }
}

fn run(printer: &Printer, command: Command, verbose: u8) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        match command {
            Command::Demo(demo) => demo::run(printer, demo).await,
            Command::Up(up) if up.detach => up::detach(printer, &up, verbose).await,
            Command::Up(up) => up::run(printer, up).await,
            Command::Down(down) => down::run(printer, &down).await,
            Command::Status(status) => status::run(printer, &status).await,
            Command::Image(image) => match image.command {
                ImageCommand::Load(load) => image::load(printer, &load),
                ImageCommand::List(list) => image::list(printer, &list),
            },
            Command::Pipeline(pipeline) => pipeline::run(printer, pipeline).await,
        }
    });
    // What still runs on blocking threads holds nothing that a later start would miss.
    runtime.shutdown_background();
    result
}

fn format(command: &Command) -> Format {
    match command {
        Command::Demo(demo) => demo.output,
        Command::Up(up) => up.output,
        Command::Status(status) => status.output,
        Command::Down(_) | Command::Image(_) | Command::Pipeline(_) => Format::Text,
    }
}

/// Logs to stderr. `RUST_LOG` decides where it is set; people who use the platform want warnings only.
fn log(verbose: u8) {
    let default = match verbose {
        0 => "warn",
        1 => "info",
        2 => {
            "info,kratix=debug,kratix_controllers=debug,kratix_state_store=debug,embedded_node=debug,embedded_gitops=debug"
        }
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    // `NO_COLOR` is heeded by the library; a file, such as the log of a detached platform, gets no colours.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // The library would tell stderr that a line was lost, and panic where that fails too: on a full disk, or without a reader.
    let log = log.log_internal_errors(false);
    if std::io::stderr().is_terminal() { log.init() } else { log.with_ansi(false).init() }
}
