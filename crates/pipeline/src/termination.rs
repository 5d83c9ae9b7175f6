//! How a program of a workflow pod fails: its exit code, and its last words in the pod's status.
//!
//! The pod may be gone before anybody has read its log; the status is what the manager reads, and repeats on the object that
//! the workflow runs for.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use kratix_api::keys;

use crate::Error;

/// Where Kubernetes looks for the last words of a container; the file is there before the container starts.
pub const MESSAGE_PATH: &str = "/dev/termination-log";
/// What Kubernetes reads of it.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Returns the code that a program exits with because of this error.
pub fn exit_code(error: &Error) -> u8 {
    if error.is_final() { keys::EXIT_FINAL } else { 1 }
}

/// Leaves the text of an error at `path`, which must be there: outside of a pod nothing is left.
///
/// # Errors
/// The file is not there or cannot be written.
pub fn write_message(error: &Error, path: &Path) -> io::Result<()> {
    let text = error.last_words();
    let text = &text[..text.floor_char_boundary(MESSAGE_BYTES_MAX)];
    OpenOptions::new().write(true).truncate(true).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    fn api(code: u16) -> Error {
        let status = kube::core::Status::failure("no", "Reason").with_code(code);
        Error::api("write Work")(kube::Error::Api(status.boxed()))
    }

    fn file(kind: ErrorKind) -> Error {
        Error::file("read", "input/a")(kind.into())
    }

    #[test]
    fn what_stays_as_it_is_fails_once_and_what_may_pass_is_tried_again() {
        let refused = || Error::Refused { path: "link".into(), reason: "it is absolute" };
        for error in [
            refused(),
            Error::WorkWriter(Box::new(refused())),
            Error::Selectors("x".into()),
            Error::Control("x".into()),
            Error::Status("x".into()),
            Error::Usage("x".into()),
            api(413),
            api(422),
            file(ErrorKind::PermissionDenied),
        ] {
            assert_eq!(i32::from(exit_code(&error)), i32::from(keys::EXIT_FINAL), "{error}");
        }
        for error in [
            api(403),
            api(409),
            api(500),
            file(ErrorKind::StorageFull),
            file(ErrorKind::Interrupted),
            Error::Parent("x".into()),
            Error::Ambiguous { labels: String::new(), works: String::new() },
            Error::WorkWriter(Box::new(api(503))),
        ] {
            assert_eq!(exit_code(&error), 1, "{error}");
        }
    }

    #[test]
    fn the_last_words_are_the_cause_alone_and_fit_their_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("termination-log");
        let error = |text: &str| Error::WorkWriter(Box::new(Error::Selectors(text.into())));
        assert!(write_message(&error("x"), &path).is_err(), "outside of a pod nothing is made");
        assert!(!path.exists());
        std::fs::write(&path, "what somebody has left there before, and longer").unwrap();
        write_message(&error("invalid destination-selectors.yaml"), &path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "invalid destination-selectors.yaml");
        write_message(&error(&"ü".repeat(5000)), &path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "ü".repeat(2048));
    }
}
