//! Repositories of any size, made in seconds.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use kratix_state_store::{File, init_bare};

use super::run_to_end;

/// Every placement has so many files.
pub(super) const FILES_PER_PLACEMENT: usize = 2;
const DESTINATIONS: usize = 10;
const PROMISES: [&str; 5] = ["redis", "postgresql", "namespace", "kafka", "certificate"];
pub(super) const BRANCH: &str = "main";

/// Makes a bare repository that holds the files of placements, laid out as `nestedByMetadata` does.
pub(super) fn make(path: &Path, files: usize) -> Result<()> {
    init_bare(path, BRANCH).map_err(|trouble| anyhow::anyhow!("{trouble}"))?;
    // What a server does beside its work would be measured at random.
    run_to_end(Command::new("git").args(["config", "receive.autogc", "false"]).current_dir(path))?;
    let mut import = Command::new("git")
        .args(["fast-import", "--quiet"])
        .current_dir(path)
        .stdin(Stdio::piped())
        .spawn()
        .context("starting git fast-import")?;
    let mut stream = BufWriter::new(import.stdin.take().context("its input")?);
    write!(stream, "commit refs/heads/{BRANCH}\ncommitter kratix <> 1700000000 +0000\ndata 4\nseed\n")?;
    // The reference cannot write into a repository without a branch.
    stream.write_all(b"M 100644 inline README.md\ndata 6\nstate\n\n")?;
    for at in 0..files / FILES_PER_PLACEMENT {
        let name = format!("seed-{at}");
        for file in contents(&name, 0) {
            let (path, data) = (format!("{}/{}", directory(at, &name), file.path), file.content);
            write!(stream, "M 100644 inline {path}\ndata {}\n", data.len())?;
            stream.write_all(&data)?;
            stream.write_all(b"\n")?;
        }
    }
    stream.into_inner()?;
    if !import.wait()?.success() {
        bail!("git fast-import failed");
    }
    Ok(())
}

/// Copies a repository, so that every measurement finds the same.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    run_to_end(Command::new("cp").arg("-r").arg(from).arg(to)).map(drop)
}

/// Returns where the files of a placement are.
pub(super) fn directory(at: usize, name: &str) -> String {
    let (destination, promise) = (at % DESTINATIONS, PROMISES[at / DESTINATIONS % PROMISES.len()]);
    format!("clusters/worker-{destination}/resources/default/{promise}/{name}/instance-configure/5058f")
}

/// Returns the files of a placement.
pub(super) fn contents(name: &str, round: usize) -> Vec<File> {
    let head = |kind: &str| format!("kind: {kind}\nmetadata:\n  name: {name}\n  namespace: default\n");
    let deployment = format!(
        "apiVersion: apps/v1\n{}spec:\n  replicas: {round}\n  selector:\n    matchLabels: {{app: {name}}}\n  template:\n    \
         metadata:\n      labels: {{app: {name}}}\n    spec:\n      containers:\n      - name: main\n        image: \
         registry.example.org/{name}:1.{round}\n",
        head("Deployment")
    );
    let service = format!(
        "apiVersion: v1\n{}spec:\n  selector: {{app: {name}}}\n  ports:\n  - port: {}\n",
        head("Service"),
        8000 + round
    );
    vec![File::new("deployment.yaml", deployment), File::new("service.yaml", service)]
}
