//! `reader`: writes the object for the containers of the pipeline.
//!
//! # Source
//! `02-workflows.md` §14.1, §16

use std::path::PathBuf;

use kratix_api::keys;
use kube::Client;
use serde_json::Value;

use crate::Error;
use crate::object::Address;

const FILE: &str = "object.yaml";
const HEAD_BYTES: usize = 500;

/// What the reader needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The object.
    pub address: Address,
    /// Where to write it.
    pub input_dir: PathBuf,
    /// Whether this is a preview.
    pub is_dry_run: bool,
}

/// Writes the object and returns what to print.
///
/// # Errors
/// [`Error`].
pub async fn run(config: &Config, client: &Client) -> Result<Vec<String>, Error> {
    let object = config.address.get(client).await.map_err(Error::api("get object"))?;
    let mut lines = Vec::new();
    let object = match previewed(&object, &config.address).filter(|_| config.is_dry_run) {
        None => object,
        Some(real_address) => {
            let real = match real_address.get(client).await {
                Ok(real) => Real::Found(real),
                Err(kube::Error::Api(status)) if status.code == 404 => Real::Absent,
                Err(error) => Real::Unknown(error.to_string()),
            };
            let (object, line) = preview(object, real, &real_address);
            lines.push(line);
            object
        }
    };

    let text = to_yaml(&object)?;
    let path = config.input_dir.join(FILE);
    std::fs::write(&path, &text).map_err(Error::file("write object to file:", &path))?;
    lines.push(format!("Object file written to: {} head of file:", path.display()));
    lines.push(head(&text).to_owned());
    Ok(lines)
}

/// Returns the object as YAML with sorted keys, quoted so that readers of version 1.1 and 1.2 agree.
fn to_yaml(object: &Value) -> Result<String, Error> {
    // Never folded: pipelines look for values with line-based tools.
    let options = serde_saphyr::ser_options! { folded_wrap_chars: 1_000_000_000 };
    serde_saphyr::to_string_with_options(&sorted(object), options)
        .map_err(|error| Error::Parent(format!("failed to write object to file: {error}")))
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let sorted: std::collections::BTreeMap<_, _> = map.iter().collect();
            sorted.into_iter().map(|(key, value)| (key.clone(), self::sorted(value))).collect()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

fn head(text: &str) -> &str {
    let mut end = text.len().min(HEAD_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Returns where the previewed object is, if the object says that it stands for another.
fn previewed(object: &Value, address: &Address) -> Option<Address> {
    let annotations = object.pointer("/metadata/annotations")?;
    let name = annotations.get(keys::DRY_RUN_RESOURCE_NAME)?.as_str().filter(|name| !name.is_empty())?;
    let namespace = annotations.get(keys::DRY_RUN_RESOURCE_NAMESPACE).and_then(Value::as_str);
    let namespace = namespace.filter(|namespace| !namespace.is_empty()).map(str::to_owned);
    Some(Address { name: name.to_owned(), namespace: namespace.or(address.namespace.clone()), ..address.clone() })
}

/// What is known of a previewed object.
enum Real {
    Found(Value),
    Absent,
    Unknown(String),
}

/// Returns the object the containers see in a preview, and what to print.
fn preview(mut stand_in: Value, real: Real, address: &Address) -> (Value, String) {
    let name = match &address.namespace {
        Some(namespace) => format!("{namespace}/{}", address.name),
        None => address.name.clone(),
    };
    match real {
        Real::Found(mut real) => {
            real["spec"] = stand_in["spec"].take();
            (real, format!("dry-run: using real resource {name} metadata with proposed spec"))
        }
        Real::Absent => {
            stand_in["metadata"]["name"] = address.name.clone().into();
            if let Some(namespace) = &address.namespace {
                stand_in["metadata"]["namespace"] = namespace.clone().into();
            }
            (stand_in, format!("dry-run: real resource {name} not found; using intended name with proposed spec"))
        }
        Real::Unknown(error) => {
            let line = format!("dry-run: failed to fetch real resource {name}: {error}; using ephemeral RR");
            (stand_in, line)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn address() -> Address {
        Address {
            group: "g".into(),
            version: "v1".into(),
            plural: "dbs".into(),
            namespace: Some("team".into()),
            name: "preview-1".into(),
        }
    }

    #[test]
    fn an_object_is_written_sorted_and_readable_by_line_based_tools() {
        let long = "x ".repeat(200).trim_end().to_owned();
        let object =
            json!({"spec": {"mode": "odd", "b": ["x"], "a": long, "yes": "no", "n": "010"}, "apiVersion": "v1"});
        let text = to_yaml(&object).unwrap();
        assert!(text.starts_with("apiVersion: v1\nspec:\n  a: x x"), "{text}");
        assert!(text.contains("\n  mode: odd\n") && text.contains("\n  b:\n  - x\n"), "{text}");
        assert_eq!(crate::yaml::parse(&text).unwrap(), object, "{text}");
        assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), object, "{text}");
    }

    #[test]
    fn the_head_ends_at_a_character() {
        assert_eq!(head(&"漢".repeat(200)).len(), 498);
        assert_eq!(head("short"), "short");
    }

    #[test]
    fn a_preview_shows_the_real_metadata_with_the_proposed_spec() {
        let stand_in = json!({
            "metadata": {"name": "preview-1", "namespace": "team", "annotations": {
                "kratix.io/dry-run-resource-name": "demo",
            }},
            "spec": {"size": "large"},
        });
        let real_address = previewed(&stand_in, &address()).unwrap();
        assert_eq!((real_address.name.as_str(), real_address.namespace.as_deref()), ("demo", Some("team")));
        let real = json!({"metadata": {"name": "demo", "uid": "u"}, "spec": {"size": "small"}});
        let (object, line) = preview(stand_in.clone(), Real::Found(real), &real_address);
        assert_eq!(object, json!({"metadata": {"name": "demo", "uid": "u"}, "spec": {"size": "large"}}));
        assert_eq!(line, "dry-run: using real resource team/demo metadata with proposed spec");
        let (object, _) = preview(stand_in.clone(), Real::Absent, &real_address);
        assert_eq!(object["metadata"]["name"], "demo");
        let (object, line) = preview(stand_in.clone(), Real::Unknown("forbidden".into()), &real_address);
        assert_eq!(object, stand_in);
        assert!(line.ends_with("using ephemeral RR"));
        assert_eq!(previewed(&json!({"metadata": {}}), &address()), None);
    }
}
