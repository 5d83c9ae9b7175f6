//! Where the recordings of the original are.

use std::path::{Path, PathBuf};

/// Returns the folder of all recorded scenarios, or `None`, and says so, where they are not beside the project.
///
/// # Panics
/// Where they must be, in CI.
pub(crate) fn recordings() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference/golden");
    if path.is_dir() {
        return Some(path);
    }
    let why = format!("no reference data at {}", path.display());
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{why}");
    eprintln!("skipped: {why}");
    None
}
