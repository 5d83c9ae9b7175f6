//! House rules as tests: who may depend on whom, how long a file may be, which words are not module names, and that the
//! tests that a page names are there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What each crate may depend on, of the crates of this workspace. Development dependencies are free.
const EDGES: &[(&str, &[&str])] = &[
    ("kratix-api", &[]),
    ("kratix-store-path", &[]),
    ("kratix-core", &["kratix-api", "kratix-store-path"]),
    ("kratix-state-store", &["kratix-store-path"]),
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

/// Pages that name the tests which hold what they say.
const PAGES_WITH_TESTS: &[&str] = &["docs/compatibility.md", "docs/reliability.md"];

/// A word with so many underscores is the name of a test and not of a metric or a field.
const UNDERSCORES_OF_TESTS: usize = 4;

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

/// Adds the tests of a file: crate, modules and name of each.
fn tests_of(path: &Path, found: &mut Vec<Vec<String>>) {
    let relative = path.strip_prefix(root().join("crates")).unwrap().with_extension("");
    let parts = relative.iter().map(|part| part.to_string_lossy().into_owned());
    let is_module = |part: &String| !["src", "tests", "it", "lib", "main", "mod"].contains(&part.as_str());
    let mut parts = parts.collect::<Vec<_>>();
    // `tests` is a folder of a crate, or a module of its sources.
    let rest = parts.split_off(2);
    let rest = rest.into_iter().filter(|part| part == "tests" || is_module(part));
    let mut modules: Vec<String> = parts.into_iter().filter(is_module).chain(rest).collect();
    let text = std::fs::read_to_string(path).unwrap();
    if text.lines().any(|line| line == "mod tests {") {
        modules.push("tests".to_owned());
    }
    let mut is_test = false;
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if !line.starts_with("#[") && !line.starts_with("//") {
            let name = line.trim_start_matches("async ").strip_prefix("fn ").and_then(|rest| rest.split('(').next());
            if let (true, Some(name)) = (is_test, name) {
                found.push(modules.iter().cloned().chain([name.to_owned()]).collect());
            }
            is_test = false;
        }
    }
}

/// Returns the names of tests in a page: words in backticks, with or without the modules before them.
fn named_tests(page: &str) -> Vec<&str> {
    let is_name = |word: &&str| {
        let name = word.rsplit("::").next().unwrap_or_default();
        let is_word = word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_:-".contains(&b));
        let underscores = name.matches('_').count();
        is_word && (underscores >= UNDERSCORES_OF_TESTS || word.contains("::") && underscores > 0)
    };
    page.split('`').skip(1).step_by(2).filter(is_name).collect()
}

#[test]
fn tests_that_a_page_names_are_there() {
    let (mut files, mut tests) = (Vec::new(), Vec::new());
    sources(&root().join("crates"), &mut files);
    files.iter().for_each(|file| tests_of(file, &mut tests));
    assert!(tests.len() > 500, "found only {} tests", tests.len());
    for page in PAGES_WITH_TESTS {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        let named = named_tests(&text);
        assert!(named.len() > 30, "{page} names only {} tests", named.len());
        let is_there = |name: &&str| {
            let path: Vec<String> = name.split("::").map(str::to_owned).collect();
            tests.iter().any(|test| test.ends_with(&path))
        };
        let missing: Vec<&str> = named.into_iter().filter(|name| !is_there(name)).collect();
        assert!(missing.is_empty(), "{page} names tests that do not exist: {missing:#?}");
    }
}
