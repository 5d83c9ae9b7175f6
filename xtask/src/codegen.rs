//! Files that are generated from the types, so that they cannot tell another story.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Writes the generated files, or fails naming those that differ.
pub(crate) fn run(check: bool) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
    let mut drifted = Vec::new();
    for (path, text) in files()? {
        let path = root.join(path);
        if fs::read_to_string(&path).is_ok_and(|present| present == text) {
            continue;
        }
        if check {
            drifted.push(path.display().to_string());
            continue;
        }
        let directory = path.parent().context("a file in a directory")?;
        fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    if !drifted.is_empty() {
        bail!("these files differ from their source, run `cargo xtask codegen`: {}", drifted.join(", "));
    }
    Ok(())
}

fn files() -> Result<Vec<(PathBuf, String)>> {
    kratix_api::crds()
        .into_iter()
        .map(|crd| {
            let plural = crd.spec.names.plural.clone();
            let mut document = serde_json::to_value(&crd)?;
            // Set by the API server; a manifest that carries it would fight over it.
            document.as_object_mut().context("a CRD is an object")?.remove("status");
            Ok((PathBuf::from(format!("deploy/crds/{plural}.yaml")), yaml(&document)?))
        })
        .collect()
}

fn yaml(document: &Value) -> Result<String> {
    Ok(serde_saphyr::to_string(document)?)
}
