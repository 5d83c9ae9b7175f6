//! Objects in files: which documents a file holds, and in which order they are applied.

use std::fmt;
use std::sync::Arc;

use kube::core::GroupVersionKind;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// How deep lists may contain lists.
const LISTS_MAX: usize = 8;
/// Where objects go that need a namespace and name none.
const DEFAULT_NAMESPACE: &str = "default";

/// Which object a document is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectId {
    /// The group; empty for the core group.
    #[serde(rename = "g", default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The version that the document is written in.
    #[serde(rename = "v")]
    pub version: String,
    /// The kind.
    #[serde(rename = "k")]
    pub kind: String,
    /// The namespace; empty for an object of the cluster, and in a document that names none.
    #[serde(rename = "ns", default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The name.
    #[serde(rename = "n")]
    pub name: String,
}

impl ObjectId {
    pub(crate) fn kind(&self) -> GroupVersionKind {
        GroupVersionKind::gvk(&self.group, &self.version, &self.kind)
    }

    /// Tells whether both are the same object, whatever version they are written in.
    pub(crate) fn identity(&self) -> (&str, &str, &str, &str) {
        (&self.group, &self.kind, &self.namespace, &self.name)
    }

    /// Returns when the object is applied: lower ones first, and removed in the reverse order.
    pub(crate) fn rank(&self) -> u8 {
        match (self.group.as_str(), self.kind.as_str()) {
            ("", "Namespace") => 0,
            ("apiextensions.k8s.io", "CustomResourceDefinition") => 1,
            ("", "ServiceAccount" | "ConfigMap" | "Secret" | "LimitRange" | "ResourceQuota" | "PersistentVolume") => 2,
            ("rbac.authorization.k8s.io" | "scheduling.k8s.io" | "storage.k8s.io", _) => 2,
            // These can refuse or redirect what comes after them, so nothing does.
            ("admissionregistration.k8s.io" | "apiregistration.k8s.io", _) => 4,
            _ => 3,
        }
    }
}

/// Whether a kind's objects lie in namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Cluster,
    Namespace,
}

impl ObjectId {
    /// Returns the same object with the namespace that it really has: what a document says of it may be missing or stray.
    pub(crate) fn placed(&self, reach: Reach) -> Self {
        let mut placed = self.clone();
        match reach {
            Reach::Cluster => placed.namespace.clear(),
            Reach::Namespace if placed.namespace.is_empty() => DEFAULT_NAMESPACE.clone_into(&mut placed.namespace),
            Reach::Namespace => {}
        }
        placed
    }
}

/// The kind that a CustomResourceDefinition brings.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Definition {
    pub(crate) group: String,
    pub(crate) kind: String,
    pub(crate) reach: Reach,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        f.write_str(" ")?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// One object of a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Document {
    pub(crate) id: ObjectId,
    /// Of the content: equal digests need no second apply.
    pub(crate) digest: String,
    pub(crate) content: Arc<Value>,
}

impl Document {
    /// Returns the kind that this document defines, if it is a definition that can be understood.
    pub(crate) fn definition(&self) -> Option<Definition> {
        if (self.id.group.as_str(), self.id.kind.as_str()) != ("apiextensions.k8s.io", "CustomResourceDefinition") {
            return None;
        }
        let text = |pointer: &str| Some(self.content.pointer(pointer)?.as_str()?.to_owned());
        let reach = match text("/spec/scope")?.as_str() {
            "Namespaced" => Reach::Namespace,
            "Cluster" => Reach::Cluster,
            _ => return None,
        };
        Some(Definition { group: text("/spec/group")?, kind: text("/spec/names/kind")?, reach })
    }

    /// Returns the content with the namespace that `id` says.
    pub(crate) fn placed(&self, id: &ObjectId) -> Self {
        let mut content = self.content.clone();
        if self.id.namespace != id.namespace
            && let Some(metadata) = Arc::make_mut(&mut content).get_mut("metadata").and_then(Value::as_object_mut)
        {
            if id.namespace.is_empty() {
                metadata.remove("namespace");
            } else {
                metadata.insert("namespace".to_owned(), Value::String(id.namespace.clone()));
            }
        }
        Self { id: id.clone(), digest: self.digest.clone(), content }
    }
}

/// What a file holds.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Parsed {
    pub(crate) documents: Vec<Document>,
    /// Documents that are not Kubernetes objects; they are left alone.
    pub(crate) skipped: Vec<String>,
    /// Documents that cannot be read. What the file once held is then not taken for removed.
    pub(crate) broken: Vec<String>,
}

/// Tells whether a file of this name may hold objects.
pub(crate) fn is_manifest(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.rsplit_once('.').is_some_and(|(_, extension)| matches!(extension, "yaml" | "yml" | "json"))
}

/// Reads all documents of a file; a broken one does not hide the others.
pub(crate) fn parse(path: &str, content: &[u8]) -> Parsed {
    let mut parsed = Parsed::default();
    let Ok(text) = std::str::from_utf8(content) else {
        parsed.broken.push("it is not UTF-8 text".to_owned());
        return parsed;
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if path.ends_with(".json") {
        let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        for value in values {
            match value {
                Ok(value) => collect(value, 0, &mut parsed),
                Err(error) => parsed.broken.push(error.to_string()),
            }
        }
        return parsed;
    }
    for (line, text) in split(text) {
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            continue;
        }
        match serde_saphyr::from_str::<Value>(text) {
            Ok(value) => collect(value, 0, &mut parsed),
            Err(error) => {
                let error = error.to_string();
                let reason = error.lines().next().unwrap_or_default().to_owned();
                parsed.broken.push(format!("document at line {line}: {reason}"));
            }
        }
    }
    parsed
}

/// Splits a YAML stream at its document markers, which cannot occur inside a document. Line numbers start at 1.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut first, mut at) = (0, 1, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let marker =
            line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if let Some(rest) = marker {
            documents.push((first, &text[start..at]));
            // What stands beside the marker belongs to the document that it starts.
            start = at + line.len() - rest.len();
            first = number + 1;
        } else if matches!(line.trim_end(), "...") {
            documents.push((first, &text[start..at]));
            start = at + line.len();
            first = number + 2;
        }
        at += line.len();
    }
    documents.push((first, &text[start..]));
    documents
}

fn collect(value: Value, depth: usize, parsed: &mut Parsed) {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if value.is_null() {
        return;
    }
    let (api_version, kind) = (text("/apiVersion"), text("/kind"));
    if api_version.is_empty() || kind.is_empty() {
        parsed.skipped.push("it has no apiVersion or no kind".to_owned());
        return;
    }
    if kind.ends_with("List") && value.get("items").is_some_and(Value::is_array) {
        if depth >= LISTS_MAX {
            parsed.broken.push("lists are nested too deep".to_owned());
            return;
        }
        let Value::Object(mut list) = value else { return };
        if let Some(Value::Array(items)) = list.remove("items") {
            items.into_iter().for_each(|item| collect(item, depth + 1, parsed));
        }
        return;
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let id = ObjectId {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        namespace: text("/metadata/namespace").to_owned(),
        name: text("/metadata/name").to_owned(),
    };
    if id.name.is_empty() {
        parsed.broken.push(format!("{kind} has no metadata.name"));
        return;
    }
    let mut content = value;
    strip(&mut content);
    let digest = digest(&content);
    parsed.documents.push(Document { id, digest, content: Arc::new(content) });
}

/// Removes what only the server writes: applied, it would be refused or claimed.
fn strip(content: &mut Value) {
    let Some(object) = content.as_object_mut() else { return };
    object.remove("status");
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink"] {
            metadata.remove(field);
        }
    }
}

fn digest(content: &Value) -> String {
    let bytes = serde_json::to_vec(content).expect("a JSON value can be written");
    Sha256::digest(bytes).iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(parsed: &Parsed) -> Vec<String> {
        parsed.documents.iter().map(|document| document.id.to_string()).collect()
    }

    #[test]
    fn all_documents_of_a_file_are_found() {
        let text = "# a comment\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n--- # two\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: b\n  namespace: a\n...\n---\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {t: '---'}}\n";
        let parsed = parse("x.yaml", text.as_bytes());
        assert_eq!(names(&parsed), ["Namespace a", "Deployment.apps a/b", "ConfigMap c"]);
        assert_eq!((parsed.skipped.len(), parsed.broken.len()), (0, 0));
    }

    #[test]
    fn lists_are_taken_apart() {
        let text = r#"{"apiVersion":"v1","kind":"List","items":[
            {"apiVersion":"v1","kind":"ConfigMapList","items":[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}]},
            {"apiVersion":"v1","kind":"Secret","metadata":{"name":"b"}}]}"#;
        assert_eq!(names(&parse("x.json", text.as_bytes())), ["ConfigMap a", "Secret b"]);
        // A kind whose name merely ends like that is an object.
        assert_eq!(
            names(&parse("x.yaml", b"{apiVersion: a/v1, kind: AllowList, metadata: {name: c}}")),
            ["AllowList.a c"]
        );
    }

    #[test]
    fn a_broken_document_does_not_hide_the_others() {
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\nkind: [\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n---\nfiles:\n- x\n";
        let parsed = parse("x.yaml", text.as_bytes());
        assert_eq!(names(&parsed), ["ConfigMap a", "ConfigMap b"]);
        assert_eq!(parsed.broken.len(), 1);
        assert!(parsed.broken[0].starts_with("document at line 4"), "{:?}", parsed.broken);
        assert_eq!(parsed.skipped.len(), 1);
        assert_eq!(parse("x.yaml", b"apiVersion: v1\nkind: ConfigMap\n").broken, ["ConfigMap has no metadata.name"]);
        assert_eq!(parse("x.yaml", &[0xff, 0xfe]).broken.len(), 1);
        assert_eq!(parse("x.yaml", b"\n# nothing\n"), Parsed::default());
    }

    #[test]
    fn what_the_server_writes_is_not_applied() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, uid: x, creationTimestamp: null, labels: {l: v}}\nstatus: {}\n";
        let parsed = parse("x.yaml", text.as_bytes());
        let expected = serde_json::json!({"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"l":"v"}}});
        assert_eq!(*parsed.documents[0].content, expected);
    }

    #[test]
    fn namespaces_and_definitions_come_before_what_needs_them() {
        let text = "{apiVersion: example.org/v1, kind: Redis, metadata: {name: r}}\n---\n{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: w}}\n---\n{apiVersion: v1, kind: ServiceAccount, metadata: {name: s}}\n---\n{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: c}}\n---\n{apiVersion: v1, kind: Namespace, metadata: {name: ns}}\n";
        let mut documents = parse("x.yaml", text.as_bytes()).documents;
        documents.sort_by_key(|document| document.id.rank());
        let names: Vec<_> = documents.iter().map(|document| document.id.name.as_str()).collect();
        assert_eq!(names, ["ns", "c", "s", "r", "w"]);
    }

    #[test]
    fn the_namespace_is_that_of_the_cluster_whatever_the_document_says() {
        let parse = |namespace: &str| {
            let text = format!("{{apiVersion: v1, kind: X, metadata: {{name: a{namespace}}}}}");
            parse("x.yaml", text.as_bytes()).documents.remove(0)
        };
        let (bare, named) = (parse(""), parse(", namespace: default"));
        assert_eq!(bare.id.placed(Reach::Namespace), named.id);
        assert_eq!(named.id.placed(Reach::Cluster), bare.id);
        assert_eq!(parse(", namespace: other").id.placed(Reach::Namespace).namespace, "other");
        assert_eq!(bare.placed(&named.id).content, named.content);
        assert_eq!(named.placed(&bare.id).content, bare.content);
    }

    #[test]
    fn a_definition_says_where_its_objects_lie() {
        let text = "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: c}, spec: {group: g, scope: Cluster, names: {kind: K}}}\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}";
        let found: Vec<_> = parse("x.yaml", text.as_bytes()).documents.iter().map(Document::definition).collect();
        let definition = Definition { group: "g".to_owned(), kind: "K".to_owned(), reach: Reach::Cluster };
        assert_eq!(found, [Some(definition), None]);
    }

    #[test]
    fn other_files_hold_no_objects() {
        assert!(is_manifest("a/b.yaml") && is_manifest("x.yml") && is_manifest("x.json"));
        assert!(!is_manifest("README.md") && !is_manifest("yaml") && !is_manifest("a.yaml/b"));
    }
}
