//! `destination-selectors.yaml` of a pipeline and the scheduling file of its Promise.
//!
//! # Source
//! `02-workflows.md` §14.3, §14.3.1; `01-api.md` §5.4

use std::collections::BTreeMap;
use std::path::Path;

use kratix_api::WorkloadGroupSelector;
use kratix_api::selector::{Labels, squash};
use kratix_api::work::{DEFAULT_DIRECTORY, SelectorSource};
use serde_json::Value;

use crate::metadata::{self, Content};
use crate::{Error, yaml};

/// What a pipeline asks for one directory of its output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Directory directly below the output, or `.` for everything else.
    pub directory: String,
    /// Labels a Destination must carry.
    pub labels: Labels,
}

const FILE: &str = "destination-selectors.yaml";

/// Reads what a pipeline asks for; a missing or empty file asks for nothing.
///
/// # Errors
/// [`Error::Selectors`] naming the file and the entry.
pub fn read(path: &Path) -> Result<Vec<Entry>, Error> {
    let invalid = |cause: String| Error::Selectors(format!("invalid {FILE}: {cause}"));
    match metadata::read(path)? {
        Content::Missing => Ok(Vec::new()),
        Content::Parsed(Err(cause)) => Err(invalid(format!("error converting YAML to JSON: {cause}"))),
        Content::Parsed(Ok(document)) => {
            let entries = parse(&document).map_err(|cause| invalid(format!("error unmarshaling JSON: {cause}")))?;
            check(&entries)?;
            Ok(entries)
        }
    }
}

fn parse(document: &Value) -> Result<Vec<Entry>, String> {
    let read = |(index, item): (usize, &Value)| {
        let map = item.as_object().ok_or_else(|| format!("entry with index {index} must be a map"))?;
        let directory = yaml::field(map, "directory").map_or(Some(String::new()), yaml::as_text);
        let directory = directory.ok_or_else(|| format!("directory of entry with index {index} must be a text"))?;
        let labels = labels(map).map_err(|cause| format!("{cause} of entry with index {index}"))?;
        Ok(Entry { directory: clean(&directory), labels })
    };
    match document {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => items.iter().enumerate().map(read).collect(),
        _ => Err("a list is wanted".to_owned()),
    }
}

fn labels(map: &serde_json::Map<String, Value>) -> Result<Labels, String> {
    match yaml::field(map, "matchLabels") {
        None | Some(Value::Null) => Ok(Labels::new()),
        Some(Value::Object(labels)) => {
            let text = |(key, value): (&String, &Value)| match yaml::as_text(value) {
                Some(value) => Ok((key.clone(), value)),
                None => Err(format!("matchLabels.{key} must be a text: value")),
            };
            labels.iter().map(text).collect()
        }
        Some(_) => Err("matchLabels must be a map: value".to_owned()),
    }
}

fn check(entries: &[Entry]) -> Result<(), Error> {
    if let Some(index) = entries.iter().position(|entry| entry.labels.is_empty()) {
        return Err(Error::Selectors(format!("invalid {FILE}: entry with index {index} has no selectors")));
    }
    let mut seen = std::collections::BTreeSet::new();
    if !entries.iter().all(|entry| seen.insert(entry.directory.as_str())) {
        let entries: Vec<String> = entries.iter().map(described).collect();
        return Err(Error::Selectors(format!("duplicate entries in {FILE}: \n[{}]", entries.join(" "))));
    }
    // One element only: `..` would publish what the pipeline keeps for itself, `/` everything twice.
    match entries.iter().find(|entry| entry.directory.contains('/') || entry.directory == "..") {
        Some(Entry { directory, .. }) => {
            Err(Error::Selectors(format!("invalid directory in {FILE}: {directory}, sub-directories are not allowed")))
        }
        None => Ok(()),
    }
}

fn described(entry: &Entry) -> String {
    let labels: Vec<String> = entry.labels.iter().map(|(key, value)| format!("{key}:{value}")).collect();
    format!("{{map[{}] {}}}", labels.join(" "), entry.directory)
}

/// Returns the shortest path that means the same; nothing means `.`.
fn clean(path: &str) -> String {
    let is_absolute = path.starts_with('/');
    let mut kept: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if kept.last().is_some_and(|last| *last != "..") => {
                kept.pop();
            }
            ".." if is_absolute => {}
            part => kept.push(part),
        }
    }
    match (is_absolute, kept.join("/")) {
        (true, path) => format!("/{path}"),
        (false, path) if path.is_empty() => DEFAULT_DIRECTORY.to_owned(),
        (false, path) => path,
    }
}

/// Reads the selectors of the Promise, one per source and squashed; a missing file has none.
///
/// # Errors
/// [`Error::Selectors`] naming the file.
pub fn read_scheduling(path: &Path) -> Result<Vec<WorkloadGroupSelector>, Error> {
    let invalid = |cause: String| Error::Selectors(format!("invalid promise-scheduling: {cause}"));
    let document = match metadata::read(path)? {
        Content::Missing => return Ok(Vec::new()),
        Content::Parsed(document) => document.map_err(invalid)?,
    };
    let items = match &document {
        Value::Null => return Ok(Vec::new()),
        Value::Array(items) => items,
        _ => return Err(invalid("a list is wanted".to_owned())),
    };
    let mut by_source: BTreeMap<SelectorSource, Vec<Labels>> = BTreeMap::new();
    for item in items {
        let map = item.as_object().ok_or_else(|| invalid("an entry must be a map".to_owned()))?;
        let source = yaml::field(map, "source").and_then(yaml::as_text).unwrap_or_default();
        by_source.entry(SelectorSource::from(source.as_str())).or_default().push(labels(map).map_err(invalid)?);
    }
    let squashed = |source: SelectorSource| {
        let maps = by_source.get(&source)?;
        Some(WorkloadGroupSelector { match_labels: squash(maps), source: Some(source) })
    };
    Ok([SelectorSource::PromiseWorkflow, SelectorSource::Promise].into_iter().filter_map(squashed).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Result<Vec<(String, String)>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        std::fs::write(&path, text).unwrap();
        let entries = read(&path).map_err(|error| error.to_string())?;
        Ok(entries.iter().map(|entry| (entry.directory.clone(), described(entry))).collect())
    }

    #[test]
    fn unquoted_labels_are_those_the_reference_recorded() {
        let found = entries("- matchLabels: {m: n, q: yes, r: on, s: 1.0, t: 010, u: 1e3, v: no}\n").unwrap();
        assert_eq!(found[0].1, "{map[m:false q:true r:true s:1 t:8 u:1000 v:false] .}");
    }

    #[test]
    fn directories_are_cleaned_and_names_of_fields_match_in_any_case() {
        for (given, cleaned) in [("", "."), (".", "."), ("./", "."), ("foo/", "foo"), ("./foo", "foo"), ("a/../b", "b")]
        {
            let found = entries(&format!("- MatchLabels: {{a: b}}\n  Directory: '{given}'\n  other: 1\n")).unwrap();
            assert_eq!(found[0].0, cleaned);
        }
        assert_eq!(entries(""), Ok(vec![]));
        assert!(read(Path::new("/nonexistent")).unwrap().is_empty());
    }

    #[test]
    fn a_directory_outside_or_below_is_refused() {
        for directory in ["..", "/", "/foo", "a/b", "../a", "a/../../b"] {
            let error = entries(&format!("- matchLabels: {{a: b}}\n  directory: {directory}\n")).unwrap_err();
            assert!(error.starts_with("invalid directory in destination-selectors.yaml: "), "{error}");
            assert!(error.ends_with(", sub-directories are not allowed"), "{error}");
        }
    }

    #[test]
    fn a_malformed_file_names_entry_and_field() {
        for (text, error) in [
            ("a: b", "invalid destination-selectors.yaml: error unmarshaling JSON: a list is wanted"),
            ("- directory: x", "invalid destination-selectors.yaml: entry with index 0 has no selectors"),
            ("- x", "invalid destination-selectors.yaml: error unmarshaling JSON: entry with index 0 must be a map"),
            (
                "- matchLabels: {a: [1]}",
                "invalid destination-selectors.yaml: error unmarshaling JSON: matchLabels.a must be a text: value of entry with index 0",
            ),
            (
                "- matchLabels: {a: b}\n- matchLabels: {c: d}\n  directory: ./",
                "duplicate entries in destination-selectors.yaml: \n[{map[a:b] .} {map[c:d] .}]",
            ),
        ] {
            assert_eq!(entries(text).unwrap_err(), error);
        }
        assert!(
            entries("[").unwrap_err().starts_with("invalid destination-selectors.yaml: error converting YAML to JSON")
        );
    }

    #[test]
    fn the_scheduling_file_is_squashed_by_source() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("promise-scheduling");
        let text = "- matchlabels:\n    environment: dev\n  source: promise\n- matchLabels:\n    environment: prod\n    pci: true\n  \
                    source: promise\n- matchlabels: {a: b}\n  source: promise-workflow\n- matchlabels: {x: y}\n  source: else\n";
        std::fs::write(&path, text).unwrap();
        let found = read_scheduling(&path).unwrap();
        let texts: Vec<String> =
            found.iter().map(|s| format!("{:?} {:?}", s.source.as_ref().unwrap(), s.match_labels)).collect();
        assert_eq!(texts, [r#"PromiseWorkflow {"a": "b"}"#, r#"Promise {"environment": "dev", "pci": "true"}"#]);
        std::fs::write(&path, "[]").unwrap();
        assert!(read_scheduling(&path).unwrap().is_empty());
    }
}
