//! What is in the folder of a recorded scenario.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};

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

/// A file as it is told.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) content: Vec<u8>,
    /// Where it is told of: size and hash are beside its path.
    mark: String,
}

impl File {
    /// Tells whether it is told as it was, byte by byte.
    pub(super) fn is_whole(&self) -> bool {
        let hash: String = Sha256::digest(&self.content).iter().map(|byte| format!("{byte:02x}")).collect();
        self.mark.contains(&format!("size={} sha256={hash}", self.content.len()))
    }
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

    /// Returns the files in the repository at a stage, without what differs from run to run.
    pub(super) fn files(&self, stage: &str) -> BTreeMap<String, String> {
        let mut files = self.tree(stage);
        // Of the one who made the repository.
        files.remove("README.md");
        let text = |file: File| String::from_utf8_lossy(&file.content).replace("\r\n", "\n");
        files.into_iter().map(|(path, file)| (super::masked(&path), text(file))).collect()
    }

    /// Returns the files in the repository at a stage as they are told.
    pub(super) fn tree(&self, stage: &str) -> BTreeMap<String, File> {
        let mut files = BTreeMap::new();
        for earlier in self.until(stage) {
            let before: BTreeMap<String, File> = std::mem::take(&mut files);
            let text = read(&self.root.join(format!("store/{earlier}.txt")));
            let mut lines = text.split('\n').take_while(|line| !line.starts_with("# commits")).peekable();
            while let Some(line) = lines.next() {
                let Some((path, mark)) = line.split_once("  mode=") else { continue };
                let mut content = Vec::new();
                while let Some(line) = lines.next_if(|line| line.starts_with("    ")) {
                    content.push(line.trim_start_matches("    "));
                }
                let before = before.get(path).filter(|_| mark.ends_with("(as before)"));
                let file = before.cloned().unwrap_or_else(|| File { content: told(&content), mark: mark.to_owned() });
                files.insert(path.to_owned(), file);
            }
        }
        files
    }

    /// Returns the objects at a stage by kind, namespace and name: each folder holds what changed since the one before.
    pub(super) fn objects(&self, stage: &str) -> BTreeMap<String, Value> {
        let mut objects = BTreeMap::new();
        for earlier in self.until(stage) {
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

    /// Returns what each Job runs that there was until a stage.
    ///
    /// Of a Job that runs the same as an earlier one only that is told, even when the earlier one is gone.
    pub(super) fn jobs(&self, stage: &str) -> BTreeMap<String, Value> {
        let mut specs = BTreeMap::new();
        for earlier in self.until(stage) {
            for job in documents(&read(&self.root.join("captured").join(earlier).join("objects.yaml"))) {
                let name = job["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                if job["kind"] == "Job" && job["spec"].is_object() {
                    specs.insert(name, job["spec"].clone());
                }
            }
        }
        specs
    }

    /// Returns the files of Works at a stage, by Work, group and path.
    pub(super) fn contents(&self, stage: &str) -> BTreeMap<[String; 3], Vec<u8>> {
        let mut contents = BTreeMap::new();
        for earlier in self.until(stage) {
            let path = self.root.join("captured").join(earlier).join("work-files.yaml");
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let files: Vec<Vec<Value>> = serde_saphyr::from_multiple(&text).unwrap();
            for file in files.into_iter().flatten() {
                let text = |field: &str| file[field].as_str().map(str::to_owned);
                let encoded = text("base64").map(|encoded| STANDARD.decode(encoded).unwrap());
                let content = encoded.or_else(|| text("text").map(String::into_bytes));
                contents.insert(["work", "group", "filepath"].map(|field| text(field).unwrap()), content.unwrap());
            }
        }
        contents
    }

    /// Returns every object of Kratix and every Job there ever was, by address, in the order in which they came.
    pub(super) fn order(&self) -> Vec<String> {
        let history = read(&self.root.join("captured/history.jsonl"));
        let lines = history.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let added = lines.filter(|line| line["event"] == "ADDED");
        added.filter_map(|line| line["object"].as_str().map(str::to_owned)).collect()
    }

    /// Returns the whole objects among what the user sent, in the order of the steps.
    pub(super) fn sent(&self) -> Vec<Value> {
        let created = self.acts.iter().filter_map(|act| match act {
            Act::Create(file) => Some(file),
            _ => None,
        });
        created.flat_map(|file| self.input(file)).collect()
    }

    fn until(&self, stage: &str) -> impl Iterator<Item = &str> {
        assert!(self.stages().any(|known| known == stage), "there is no stage {stage}");
        self.stages().take_while(move |earlier| *earlier <= stage)
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
fn told(lines: &[&str]) -> Vec<u8> {
    if let Some(encoded) = lines.first().and_then(|line| line.strip_prefix("base64 ")) {
        return STANDARD.decode(encoded).unwrap();
    }
    let is_open = lines.last().is_some_and(|line| *line == "| (no newline at end)");
    let lines = &lines[..lines.len() - usize::from(is_open)];
    let lines: Vec<&str> = lines.iter().map(|line| line.strip_prefix("| ").unwrap_or_default()).collect();
    let text = lines.join("\n");
    if is_open || text.is_empty() { text } else { text + "\n" }.into_bytes()
}
