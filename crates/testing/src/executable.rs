//! Programs that a test writes.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes a script that can be run at once.
///
/// Another process does it. A file that is open for writing cannot be run ("Text file busy"), and what this process has open,
/// every process inherits for a moment that another test starts meanwhile.
///
/// # Panics
/// If the file cannot be written.
pub fn write(path: &Path, script: &str) {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"cat >"$0" && chmod 755 "$0""#]).arg(path).stdin(Stdio::piped());
    let mut shell = shell.spawn().expect("a shell");
    shell.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("a reader");
    assert!(shell.wait().expect("its end").success(), "{} cannot be written", path.display());
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_script_runs_at_once_while_others_start_processes() {
        let directory = tempfile::tempdir().unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    // Should the other side fail, this ends as well.
                    for _ in 0..10_000 {
                        if is_over.load(Ordering::Relaxed) {
                            break;
                        }
                        Command::new("true").status().unwrap();
                    }
                });
            }
            let outcomes: Vec<_> = (0..200)
                .map(|number| {
                    let path = directory.path().join(number.to_string());
                    write(&path, "#!/bin/sh\nexit 7\n");
                    Command::new(&path).status().map(|status| status.code())
                })
                .collect();
            is_over.store(true, Ordering::Relaxed);
            for outcome in outcomes {
                assert_eq!(outcome.unwrap(), Some(7));
            }
        });
    }
}
