//! `kratix image …`: images that pipelines can use.

use std::process::ExitCode;

use embedded_node::image::Store;
use kratix_platform::data_dir;

use crate::args;
use crate::failure::Failure;
use crate::printer::Printer;

/// Makes an archive available, also to a platform that is running.
pub(crate) fn load(printer: &Printer, load: &args::Load) -> Result<ExitCode, Failure> {
    let store = Store::open(data_dir::images(&load.data_dir.path()))?;
    for name in store.load(&load.file, load.name.as_deref())? {
        printer.data(format_args!("loaded {name}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the names of all images.
pub(crate) fn list(printer: &Printer, list: &args::List) -> Result<ExitCode, Failure> {
    let store = Store::open(data_dir::images(&list.data_dir.path()))?;
    for image in store.list()? {
        printer.data(image.name);
    }
    Ok(ExitCode::SUCCESS)
}
