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

/// Tells what is wrong with a file before it is opened: a pipe would never end, and a link could lead to what is not the
/// pipeline's. Links within the directory are how Kubernetes makes the files of a ConfigMap.
fn complaint(path: &Path) -> std::io::Result<Option<&'static str>> {
    let real = match std::fs::canonicalize(path) {
        Ok(real) => real,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Some("it is a symbolic link that leads nowhere"));
        }
        Err(error) => return Err(error),
    };
    let root = std::fs::canonicalize(path.parent().unwrap_or(Path::new("/")))?;
    if !real.starts_with(root) {
        return Ok(Some("it is a symbolic link out of its directory"));
    }
    Ok((!std::fs::metadata(&real)?.is_file()).then_some("it is not a file"))
}

/// Reads and parses a file.
///
/// # Errors
/// The file is there and cannot be read.
pub(crate) fn read(path: &Path) -> Result<Content, Error> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Content::Missing),
        Err(error) => return Err(Error::file("read", path)(error)),
    }
    if let Some(complaint) = complaint(path).map_err(Error::file("read", path))? {
        return Ok(Content::Parsed(Err(complaint.to_owned())));
    }
    let file = std::fs::File::open(path).map_err(Error::file("read", path))?;
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Error::file("read", path))?;
    if bytes.len() as u64 > BYTES_MAX {
        return Ok(Content::Parsed(Err(format!("larger than {BYTES_MAX} bytes"))));
    }
    let parsed = String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned()).and_then(|text| yaml::parse(&text));
    Ok(Content::Parsed(parsed))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn parsed(make: impl FnOnce(&Path)) -> String {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("metadata");
        fs::create_dir(&root).unwrap();
        make(&root);
        match read(&root.join("status.yaml")).unwrap() {
            Content::Missing => "missing".to_owned(),
            Content::Parsed(Ok(value)) => value.to_string(),
            Content::Parsed(Err(error)) => error,
        }
    }

    /// 02 §19.38 for the files beside the output.
    #[test]
    fn what_is_not_a_file_of_the_pipeline_is_neither_opened_nor_followed() {
        let outside = |root: &Path| {
            fs::write(root.join("../token"), "secret").unwrap();
            symlink("../token", root.join("status.yaml")).unwrap();
        };
        assert_eq!(parsed(outside), "it is a symbolic link out of its directory");
        assert_eq!(
            parsed(|root| symlink("/etc/hostname", root.join("status.yaml")).unwrap()),
            "it is a symbolic link out of its directory"
        );
        assert_eq!(
            parsed(|root| symlink("gone", root.join("status.yaml")).unwrap()),
            "it is a symbolic link that leads nowhere"
        );
        assert_eq!(parsed(|root| fs::create_dir(root.join("status.yaml")).unwrap()), "it is not a file");
        let pipe = |root: &Path| {
            let made = std::process::Command::new("mkfifo").arg(root.join("status.yaml")).status();
            assert!(made.unwrap().success());
        };
        assert_eq!(parsed(pipe), "it is not a file");
    }

    #[test]
    fn files_are_read_also_through_the_links_that_a_config_map_consists_of() {
        let config_map = |root: &Path| {
            fs::create_dir(root.join("..2026")).unwrap();
            fs::write(root.join("..2026/status.yaml"), "a: 1").unwrap();
            symlink("..2026", root.join("..data")).unwrap();
            symlink("..data/status.yaml", root.join("status.yaml")).unwrap();
        };
        assert_eq!(parsed(config_map), r#"{"a":1}"#);
        assert_eq!(parsed(|_| {}), "missing");
        assert_eq!(parsed(|root| fs::write(root.join("status.yaml"), [0xff]).unwrap()), "not UTF-8");
        let large = |root: &Path| fs::write(root.join("status.yaml"), vec![b'a'; 1024 * 1024 + 1]).unwrap();
        assert_eq!(parsed(large), "larger than 1048576 bytes");
    }
}
