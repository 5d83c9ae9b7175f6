//! What is in the folder of a recorded scenario.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// What the user of the recording did, or a moment at which everything was captured.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Creates the objects of a file.
    Create(String),
    /// Replaces their specs, and merges their labels and annotations.
    Replace(String),
    /// Merges a file into an object.
    Patch { kind: String, name: String, file: String },
    /// Deletes an object.
    Delete { kind: String, name: String },
    /// Something told in words.
    Told(String),
    /// Compares with what was captured.
    Stage(String),
}

/// A recorded scenario.
pub(super) struct Recorded {
    root: PathBuf,
    pub(super) acts: Vec<Act>,
}

impl Recorded {
    /// Returns `None`, and says so, where the recordings are not beside the project.
    ///
    /// # Panics
    /// Where they must be, in CI.
    pub(super) fn open(folder: &str) -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference/golden").join(folder);
        let Ok(steps) = std::fs::read_to_string(root.join("steps.md")) else {
            let why = format!("no reference data at {}", root.display());
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{why}");
            skipped(&why);
            return None;
        };
        Some(Self { acts: steps.lines().filter_map(act).collect(), root })
    }

    /// Returns the objects of an input, or of a file that was served.
    pub(super) fn input(&self, file: &str) -> Vec<Value> {
        documents(&read(&self.root.join(file)))
    }

    /// Returns the events first seen at a stage, without what differs from run to run.
    pub(super) fn events(&self, stage: &str) -> BTreeSet<String> {
        let text = read(&self.root.join(format!("events/{stage}.txt")));
        let event = |line: &str| {
            let columns: Vec<&str> = line.split(" | ").map(str::trim).collect();
            let [r#type, reason, action, reporter, regarding, namespace, note, ..] = columns[..] else {
                panic!("{line}")
            };
            assert_eq!(reason, action, "{line}");
            let namespace = namespace.trim_start_matches("in ");
            super::masked(&[r#type, reason, reporter, regarding, namespace, note].join(" | "))
        };
        text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(event).collect()
    }

    /// Returns author and subject of the commits since the stage before.
    pub(super) fn commits(&self, stage: &str) -> BTreeSet<String> {
        let text = read(&self.root.join(format!("store/{stage}.txt")));
        let commits = text.lines().skip_while(|line| !line.starts_with("# commits")).skip(1);
        // The first one is of who made the repository.
        commits.filter(|line| line.starts_with("kratix ")).map(super::masked).collect()
    }

    /// Returns the files in the repository at a stage.
    pub(super) fn files(&self, stage: &str) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        for earlier in self.stages().take_while(|earlier| *earlier <= stage) {
            let before: BTreeMap<String, String> = std::mem::take(&mut files);
            let text = read(&self.root.join(format!("store/{earlier}.txt")));
            let mut lines = text.lines().take_while(|line| !line.starts_with("# commits")).peekable();
            while let Some(line) = lines.next() {
                let Some((path, rest)) = line.split_once("  mode=") else { continue };
                let mut content = Vec::new();
                while let Some(line) = lines.next_if(|line| line.starts_with("    ")) {
                    content.push(line.trim_start_matches("    ").to_owned());
                }
                let path = super::masked(path);
                let before = before.get(&path).filter(|_| rest.ends_with("(as before)"));
                files.insert(path, before.cloned().unwrap_or_else(|| told(&content)));
            }
        }
        // Of the one who made the repository.
        files.remove("README.md");
        files
    }

    /// Returns the objects at a stage by kind, namespace and name: each folder holds what changed since the one before.
    pub(super) fn objects(&self, stage: &str) -> BTreeMap<String, Value> {
        let mut objects = BTreeMap::new();
        for earlier in self.stages().take_while(|earlier| *earlier <= stage) {
            let folder = self.root.join("captured").join(earlier);
            for object in documents(&read(&folder.join("objects.yaml"))) {
                objects.insert(address(&object), object);
            }
            let notes = std::fs::read_to_string(folder.join("unchanged.txt")).unwrap_or_default();
            for gone in notes.lines().filter_map(|line| line.strip_prefix("gone: ")) {
                assert!(objects.remove(gone).is_some(), "{earlier}: {gone} went without having been there");
            }
        }
        objects
    }

    fn stages(&self) -> impl Iterator<Item = &str> {
        self.acts.iter().filter_map(|act| match act {
            Act::Stage(stage) => Some(stage.as_str()),
            _ => None,
        })
    }
}

#[expect(clippy::print_stderr, reason = "a test that did not run must not look as if it had")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// Returns kind, namespace if any, and name of an object.
pub(super) fn address(object: &Value) -> String {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
    let parts = [text("/kind"), text("/metadata/namespace"), text("/metadata/name")];
    parts.into_iter().flatten().collect::<Vec<_>>().join("/")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn documents(text: &str) -> Vec<Value> {
    // The recorder quotes what it takes for a boolean, and it takes no `y` for one.
    let options = serde_saphyr::options! { strict_booleans: true };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options).unwrap();
    documents.into_iter().filter(Value::is_object).collect()
}

/// Reads a line of the steps.
fn act(line: &str) -> Option<Act> {
    let quoted = || line.split('`').nth(1).map(str::to_owned);
    if line.trim_start().starts_with("- stage ") {
        return Some(Act::Stage(quoted().expect("a stage has a name")));
    }
    let (number, told) = line.split_once(". ")?;
    number.parse::<u32>().ok()?;
    let file = quoted();
    let words: Vec<&str> = told.split(' ').collect();
    Some(match (words.as_slice(), file) {
        (["create", ..], Some(file)) => Act::Create(file),
        (["replace", "spec", ..], Some(file)) => Act::Replace(file),
        (["merge", "patch", kind, name, ..], Some(file)) => {
            Act::Patch { kind: (*kind).to_owned(), name: (*name).to_owned(), file }
        }
        (["delete", kind, name], None) => Act::Delete { kind: (*kind).to_owned(), name: (*name).to_owned() },
        _ => Act::Told(told.to_owned()),
    })
}

/// Returns the content of a file as it is told: indented, or encoded.
fn told(lines: &[String]) -> String {
    if let Some(encoded) = lines.first().and_then(|line| line.strip_prefix("base64 ")) {
        return String::from_utf8_lossy(&STANDARD.decode(encoded).unwrap()).into_owned();
    }
    let is_open = lines.last().is_some_and(|line| line == "| (no newline at end)");
    let lines = &lines[..lines.len() - usize::from(is_open)];
    let lines: Vec<&str> = lines.iter().map(|line| line.strip_prefix("| ").unwrap_or_default()).collect();
    let text = lines.join("\n");
    if is_open || text.is_empty() { text } else { text + "\n" }
}
