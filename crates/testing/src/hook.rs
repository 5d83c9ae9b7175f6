//! Hooks of Git repositories.

use std::path::{Path, PathBuf};

use crate::executable;

/// Makes `script`, the lines of a shell, the hook of this name of a bare repository, and returns its file: the hook is gone when
/// that is removed.
///
/// # Panics
/// If the file cannot be written.
pub fn install(repository: &Path, name: &str, script: &str) -> PathBuf {
    let hook = repository.join("hooks").join(name);
    std::fs::create_dir_all(repository.join("hooks")).expect("a directory");
    executable::write(&hook, &format!("#!/bin/sh\n{script}\n"));
    hook
}
