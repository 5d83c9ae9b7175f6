//! Reads the small files that a pipeline leaves for Kratix.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::{Error, yaml};

/// Largest file of this kind; a status or a list of selectors is nowhere near.
const BYTES_MAX: u64 = 1024 * 1024;

/// What is in a file.
pub(crate) enum Content {
    /// There is no such file.
    Missing,
    /// The first document, or what is wrong with it.
    Parsed(Result<Value, String>),
}

/// Reads and parses a file.
///
/// # Errors
/// The file is there and cannot be read.
pub(crate) fn read(path: &Path) -> Result<Content, Error> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Content::Missing),
        Err(error) => return Err(Error::file("read", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Error::file("read", path))?;
    if bytes.len() as u64 > BYTES_MAX {
        return Ok(Content::Parsed(Err(format!("larger than {BYTES_MAX} bytes"))));
    }
    let parsed = String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned()).and_then(|text| yaml::parse(&text));
    Ok(Content::Parsed(parsed))
}
