//! Hashes by which Kratix tells whether something changed. They equal those of the reference, so that replacing it
//! runs no workflow again.
//!
//! # Source
//! `01-api.md` §5.1, decision 5

use std::fmt::Write;

use md5::{Digest, Md5};
use serde_json::{Map, Value};

use crate::{Duration, Promise, PromiseSpec, keys};

/// Returns the MD5 of a text as 32 lower-case hex digits. It detects change; it protects nothing.
pub fn text(text: &str) -> String {
    let mut digits = String::with_capacity(32);
    for byte in Md5::digest(text.as_bytes()) {
        write!(digits, "{byte:02x}").expect("writing to a String succeeds");
    }
    digits
}

/// Returns the hash of a value's canonical JSON. Hash what is stored, not what was sent: the API server rewrites numbers.
pub fn value(value: &Value) -> String {
    text(&canonical_json(value))
}

/// Returns the hash of an object's `spec`; an object without one hashes `null`.
pub fn spec_of(object: &Value) -> String {
    value(object.get("spec").unwrap_or(&Value::Null))
}

/// Returns the hash of a Promise's spec in its normalised form.
pub fn promise_spec(spec: &PromiseSpec) -> String {
    let mut normal = serde_json::to_value(spec).expect("a spec is JSON");
    let interval = spec.workflows.config.reconciliation_interval.as_deref().map(str::parse::<Duration>);
    if let Some(Ok(interval)) = interval {
        normal["workflows"]["config"]["reconciliationInterval"] = Value::String(interval.to_string());
    }
    value(&normal)
}

/// Returns the hash a Job of the promise workflow carries.
pub fn promise_job(promise: &Promise) -> String {
    promise_spec(&promise.spec)
}

/// Returns the hash a Job of the resource workflow carries.
///
/// `request_spec` is the request's `spec` as stored, `null` when it has none. `promise` is the spec of the revision the
/// request is bound to.
pub fn resource_job(promise: &PromiseSpec, request_spec: &Value, kind: Run) -> String {
    let suffix = match kind {
        Run::Real => "",
        Run::Dry => "-dry-run",
    };
    text(&format!("{}-{}{suffix}", promise_spec(promise), value(request_spec)))
}

/// Whether a workflow runs for real or as a preview.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// For real.
    Real,
    /// As a preview.
    Dry,
}

impl Run {
    /// Returns how the workflow of an object with these labels runs.
    pub fn of_labels(labels: Option<&std::collections::BTreeMap<String, String>>) -> Self {
        if labels.is_some_and(|labels| keys::is_set(labels, keys::DRY_RUN)) { Self::Dry } else { Self::Real }
    }
}

/// Returns the text that is hashed for a value.
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value);
    text
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => write_text(out, text),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(out, item);
            }
            out.push(']');
        }
        Value::Object(map) => write_object(out, map),
    }
}

fn write_object(out: &mut String, map: &Map<String, Value>) {
    // Sorted here, because the order of the map depends on a feature that any crate of the build can switch on.
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| key.as_bytes());
    out.push('{');
    for (index, (key, value)) in entries.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_text(out, key);
        out.push(':');
        write_value(out, value);
    }
    out.push('}');
}

fn write_number(out: &mut String, number: &serde_json::Number) {
    if let Some(integer) = number.as_i64() {
        write!(out, "{integer}").expect("writing to a String succeeds");
        return;
    }
    let float = number.as_f64().unwrap_or(0.0);
    if float == 0.0 {
        out.push('0'); // the API server stores a negative zero as zero
    } else if float.abs() < 1e-6 || float.abs() >= 1e21 {
        let text = format!("{float:e}");
        match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => {
                write!(out, "{digits}e+{exponent}").expect("writing to a String succeeds");
            }
            _ => out.push_str(&text),
        }
    } else {
        write!(out, "{float}").expect("writing to a String succeeds");
    }
}

fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                write!(out, "\\u{:04x}", u32::from(character)).expect("writing to a String succeeds");
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn promise(spec: Value) -> PromiseSpec {
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn hashes_are_those_of_the_reference() {
        assert_eq!(text("."), "5058f1af8388633f609cadb75a75dc9d");
        assert_eq!(text("v1.0.0"), "2888cd106bd98b888fca74c785bd6cf5");
        assert_eq!(spec_of(&json!({})), "37a6259cc0c1dae299a7866489dff0bd");
        assert_eq!(spec_of(&json!({"spec": {"foo": "bar"}})), "9bb58f26192e4ba00f01e2e7b136bbd8");
        assert_eq!(spec_of(&json!({"spec": {"size": "small"}})), "c2ef384011e18a3545c23409e3e9bed8");
        assert_eq!(spec_of(&json!({"spec": {"cmd": "a && b"}})), "ba09750e06e5279dc20b4a0c98dbf4e4");
    }

    #[test]
    fn a_promise_is_hashed_in_its_normalised_form() {
        let empty = "45f61254c7c9e14646cafa4324e64a82";
        assert_eq!(promise_spec(&promise(json!({}))), empty);
        assert_eq!(promise_spec(&promise(json!({"workflows": {"resource": {"configure": []}}, "api": null}))), empty);
        assert_eq!(promise_spec(&promise(json!({"workflows": null, "dependencies": null}))), empty);
        let full = json!({
            "destinationSelectors": [{"matchLabels": {"environment": "dev"}}],
            "workflows": {"config": {"reconciliationInterval": "10m", "pipelineNamespace": ""}},
        });
        assert_eq!(promise_spec(&promise(full)), "0c0ee0dda9b5c421ba18d76f497fa0b3");
    }

    #[test]
    fn the_job_of_a_request_carries_promise_request_and_kind_of_run() {
        let request = json!({"size": "small"});
        let empty = PromiseSpec::default();
        assert_eq!(resource_job(&empty, &request, Run::Real), "408e3474cc46c9eda38be430d190d366");
        assert_eq!(resource_job(&empty, &request, Run::Dry), "8e23ad74fd6929b640fae0de73939e3c");
    }

    #[test]
    fn a_broken_interval_still_has_a_hash_of_its_own() {
        let broken = promise(json!({"workflows": {"config": {"reconciliationInterval": "soon"}}}));
        assert_ne!(promise_spec(&broken), promise_spec(&PromiseSpec::default()));
    }

    #[test]
    fn every_recorded_hash_is_reproduced() {
        // What the reference has made of these documents: a swap in place re-runs nothing only if each is met.
        let lines = include_str!("hash/recorded.jsonl");
        let mut promise_of_requests = None;
        let mut cases = 0;
        for line in lines.lines() {
            let case: Value = serde_json::from_str(line).unwrap();
            let read =
                |key: &str| -> Option<Value> { case[key].as_str().map(|text| serde_json::from_str(text).unwrap()) };
            for form in ["stored", "sent"] {
                let Some(document) = read(form).or((form == "stored").then_some(Value::Null)) else {
                    continue;
                };
                let found = if case["kind"] == "Promise" {
                    let spec = promise(document);
                    let found = promise_spec(&spec);
                    promise_of_requests.get_or_insert(spec);
                    found
                } else {
                    resource_job(promise_of_requests.as_ref().unwrap(), &document, Run::Real)
                };
                assert_eq!(found, case["hash"].as_str().unwrap(), "{} as {form}", case["case"]);
            }
            cases += 1;
        }
        assert_eq!(cases, 42);
    }
}
