//! House rules as tests: who may depend on whom, how long a file may be, which words are not module names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What each crate may depend on, of the crates of this workspace. Development dependencies are free.
const EDGES: &[(&str, &[&str])] = &[
    ("kratix-api", &[]),
    ("kratix-core", &["kratix-api"]),
    ("kratix-state-store", &[]),
    ("kratix-controllers", &["kratix-api", "kratix-core", "kratix-state-store"]),
    ("kratix-pipeline", &["kratix-api"]),
    ("embedded-apimachinery", &[]),
    ("embedded-apiserver", &["embedded-apimachinery"]),
    ("embedded-node", &[]),
    ("embedded-gitops", &[]),
    (
        "kratix-platform",
        &[
            "embedded-apiserver",
            "embedded-gitops",
            "embedded-node",
            "kratix-api",
            "kratix-controllers",
            "kratix-core",
            "kratix-state-store",
        ],
    ),
    ("kratix", &["embedded-node", "kratix-api", "kratix-pipeline", "kratix-platform"]),
];

/// Names that say nothing about what is inside.
const NAMELESS: &[&str] = &["utils", "util", "helpers", "helper", "common", "misc", "manager"];

const LINES_MAX: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn dependencies_between_crates_point_one_way() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let Some(allowed) = allowed.get(name) else { continue };
        for dependency in package["dependencies"].as_array().unwrap() {
            let is_ours = dependency["path"].is_string();
            let is_normal = dependency["kind"].is_null();
            let dependency = dependency["name"].as_str().unwrap();
            assert!(
                !is_ours || !is_normal || allowed.contains(&dependency),
                "{name} must not depend on {dependency}: see ARCHITECTURE.md"
            );
        }
    }
    let ours: Vec<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    for (name, _) in EDGES {
        assert!(ours.contains(name), "{name} is in the table but not in the workspace");
    }
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn files_hold_one_concept_and_have_a_name_of_their_own() {
    let mut found = Vec::new();
    sources(&root().join("crates"), &mut found);
    sources(&root().join("xtask"), &mut found);
    assert!(found.len() > 50, "the walk found only {} files", found.len());
    for path in found {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines; split it", path.display());
        for part in path.components() {
            let part = part.as_os_str().to_string_lossy();
            let stem = part.strip_suffix(".rs").unwrap_or(&part);
            assert!(!NAMELESS.contains(&stem), "{}: {stem:?} says nothing about what is inside", path.display());
        }
    }
}
