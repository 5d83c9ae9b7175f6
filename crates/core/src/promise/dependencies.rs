//! The Work of a Promise's dependencies.
//!
//! # Source
//! `03-promises.md` §10, §25 (1); `01-api.md` §5.6, §9.4.4; decision 6

use std::sync::Arc;

use kratix_api::work::DEFAULT_DIRECTORY;
use kratix_api::{Timestamp, Work, WorkSpec, Workload, WorkloadGroup, compression, keys, name, selector};
use kube_core::ResourceExt;
use serde_json::{Value, json};

use super::{Fault, Snapshot, Walk};
use crate::object::{Kind, Target};
use crate::patch::{between, to_value};
use crate::plan::Write;

/// More than the largest content that could have been stored.
const CONTENT_BYTES_MAX: usize = 256 << 20;

/// Creates, updates or removes the Work.
pub(super) fn keep(walk: &mut Walk<'_>) {
    let snapshot = walk.snapshot;
    let existing: Vec<&Arc<Work>> =
        of_dependencies(snapshot).filter(|work| work.metadata.deletion_timestamp.is_none()).collect();
    if snapshot.promise.spec.dependencies.is_empty() {
        walk.writes.extend(existing.iter().map(|work| Write::Delete { target: Target::of(&***work) }));
        return;
    }
    match existing.as_slice() {
        [] => {
            let content = content(&snapshot.promise.spec.dependencies);
            let object = object(snapshot, spec(snapshot, compression::compress(content.as_bytes())));
            // One of the same name is on its way out: nothing can be made before it is gone.
            let name = object.pointer("/metadata/name").and_then(Value::as_str);
            if !of_dependencies(snapshot).any(|work| Some(work.name_any().as_str()) == name) {
                walk.writes.push(Write::create(Kind::of::<Work>(), object));
            }
        }
        [work] => update(walk, work),
        many => {
            let names: Vec<String> = many.iter().map(|work| work.name_any()).collect();
            let labels = format!(
                "map[{:?}:{:?} {:?}:{:?}]",
                keys::PROMISE_NAME,
                snapshot.name(),
                keys::WORK_TYPE,
                keys::WORK_TYPE_STATIC_DEPENDENCY
            );
            walk.fault(Fault::duplicate_works(&labels, &names));
        }
    }
}

/// Returns the Works of dependencies, those being deleted included.
fn of_dependencies(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Work>> {
    let works = snapshot.works_of(keys::WORK_TYPE_STATIC_DEPENDENCY);
    works.filter(|work| work.namespace().as_deref() == Some(keys::SYSTEM_NAMESPACE))
}

fn update(walk: &mut Walk<'_>, work: &Work) {
    let snapshot = walk.snapshot;
    let stored = stored_content(work);
    let stored_bytes = stored.and_then(|content| compression::decompress(content, CONTENT_BYTES_MAX).ok());
    let text = content(&snapshot.promise.spec.dependencies);
    // What others wrote (another compressor, another YAML writer) is kept while it means the same.
    let is_same = stored_bytes.is_some_and(|bytes| {
        bytes == text.as_bytes()
            || documents(&bytes).is_some_and(|documents| documents == snapshot.promise.spec.dependencies)
    });
    let content = match stored {
        Some(stored) if is_same => stored.to_owned(),
        _ => compression::compress(text.as_bytes()),
    };
    let wanted = spec(snapshot, content);
    if let Some(change) = between(&to_value(&work.spec), &to_value(&wanted)) {
        let patch = json!({
            "metadata": { "annotations": { keys::LAST_UPDATED_AT: wall_time(snapshot.now) } },
            "spec": change,
        });
        walk.writes.push(Write::Patch { target: Target::of(work), patch });
    }
}

fn stored_content(work: &Work) -> Option<&str> {
    let [group] = work.spec.workload_groups.as_slice() else { return None };
    let [workload] = group.workloads.as_slice() else { return None };
    Some(&workload.content)
}

fn spec(snapshot: &Snapshot, content: String) -> WorkSpec {
    let filepath = format!("static/{}-dependencies.yaml", snapshot.name());
    let group = WorkloadGroup {
        workloads: vec![Workload { filepath, content }],
        destination_selectors: selector::of_promise(&snapshot.promise.spec.destination_selectors).into_iter().collect(),
        ..WorkloadGroup::for_directory(DEFAULT_DIRECTORY)
    };
    WorkSpec { promise_name: snapshot.name().to_owned(), workload_groups: vec![group], ..WorkSpec::default() }
}

fn object(snapshot: &Snapshot, spec: WorkSpec) -> Value {
    let uid = snapshot.promise.uid().unwrap_or_default();
    let name = name::derived(&format!("{}-static-deps", snapshot.name()), &[&uid, keys::WORK_TYPE_STATIC_DEPENDENCY]);
    json!({
        "apiVersion": keys::API_VERSION, "kind": Work::KIND,
        "metadata": {
            "name": name,
            "namespace": keys::SYSTEM_NAMESPACE,
            "labels": {
                keys::PROMISE_NAME: snapshot.name(),
                keys::WORK_TYPE: keys::WORK_TYPE_STATIC_DEPENDENCY,
            },
            "annotations": { keys::LAST_UPDATED_AT: wall_time(snapshot.now) },
            "finalizers": [keys::FINALIZER_WORK_CLEANUP],
        },
        "spec": to_value(&spec),
    })
}

/// Returns the dependencies as one YAML stream: members sorted, documents separated by `---`.
fn content(dependencies: &[Value]) -> String {
    let document = |value: &Value| {
        let mut text = serde_saphyr::to_string(value).expect("a JSON value is YAML");
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    };
    dependencies.iter().map(document).collect::<Vec<_>>().join("---\n")
}

fn documents(bytes: &[u8]) -> Option<Vec<Value>> {
    let text = std::str::from_utf8(bytes).ok()?;
    serde_saphyr::from_multiple::<Value>(text).ok()
}

/// Returns the time as the annotation spells it, in UTC.
fn wall_time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_time_reads_as_the_annotation_of_the_original() {
        let now: Timestamp = "2025-01-02T03:04:05.123456789Z".parse().unwrap();
        assert_eq!(wall_time(now), "2025-01-02 03:04:05.123456789 +0000 UTC");
    }

    #[test]
    fn every_value_survives_being_written_and_read() {
        let odd = json!({
            "kind": "ConfigMap", "apiVersion": "v1",
            "data": {
                "num": "007", "yes": "yes", "no": "n", "null": "null", "tilde": "~", "date": "2020-01-01", "hex": "0x1F",
                "float": "1.0", "exp": "1e3", "octal": "010", "empty": "", "space": " lead and trail ", "colon": "a: b",
                "hash": "a # b", "dash": "- a", "star": "*a", "bang": "!a", "percent": "%a", "at": "@a", "tab": "\ta",
                "lines": "one\ntwo\n", "trailing": "one\n\n\n", "crlf": "a\r\nb", "leading": "  indented\nless\n",
                "quote": "it's \"quoted\"", "backslash": "a\\b", "unicode": "é漢😀", "control": "\u{1}", "doc": "---\na: b\n",
                "bool": "true", "merge": "<<", "inf": ".inf", "nan": ".nan", "under": "1_000", "sexagesimal": "1:20",
            },
            "n": [1, -1, 1.5, 0, true, false, null, {}, [], 9_007_199_254_740_993_i64],
        });
        let more = json!({"kind": "List", "items": [[["deep"]], {"<<": 1, "1": 2, "true": 3, "": 4}]});
        let all = vec![odd, more];
        assert_eq!(documents(content(&all).as_bytes()), Some(all));
    }

    #[test]
    fn documents_are_separated_and_none_comes_before_the_first() {
        let text = content(&[json!({"kind": "A"}), json!({"kind": "B"})]);
        assert_eq!(text, "kind: A\n---\nkind: B\n");
    }
}
