//! CustomResourceDefinitions: validity, acceptance, and the resources they define.

mod schema;
mod structural;
mod validate;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::builtin;
use crate::field::Path;
use crate::jsonpath;
use crate::meta;
use crate::object::{child, fill, fill_text, items, items_mut, text};
use crate::resource::{Origin, Resource, Subresource};
use crate::schema::{Kind, Schema};

pub use validate::validate;

/// Verbs of custom resources in the order discovery lists them.
const VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

/// One version of a CRD, parsed.
#[derive(Debug)]
pub struct Version {
    schema: Arc<Schema>,
    /// The schema as written, as text: a parsed copy of a large one would cost ten times as much.
    raw: Box<str>,
    storage: String,
    columns: Vec<Column>,
    selectable: Vec<String>,
    deprecation: Option<Option<String>>,
}

/// A printer column.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) format: String,
    pub(crate) description: String,
    pub(crate) priority: i64,
    pub(crate) path: Option<jsonpath::Path>,
}

impl Version {
    fn parse(version: &Value, storage: &str) -> Self {
        let written = &version["schema"]["openAPIV3Schema"];
        let columns = items(version, "additionalPrinterColumns");
        let selectable = items(version, "selectableFields").iter();
        let deprecated = version["deprecated"] == true;
        Self {
            schema: whole_schema(written),
            raw: written.to_string().into(),
            storage: storage.to_owned(),
            columns: columns.iter().map(Column::parse).collect(),
            selectable: selectable.map(|one| text(one, "jsonPath").trim_start_matches('.').to_owned()).collect(),
            deprecation: deprecated.then(|| version["deprecationWarning"].as_str().map(str::to_owned)),
        }
    }

    /// Returns the schema of the whole object, metadata included.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Returns the schema as the CRD's author wrote it, JSON.
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// Returns the name of the version that objects are stored in.
    pub fn storage_version(&self) -> &str {
        &self.storage
    }

    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    pub(crate) fn selectable(&self) -> &[String] {
        &self.selectable
    }

    pub(crate) fn deprecation(&self, resource: &Resource) -> Option<String> {
        let text = self.deprecation.as_ref()?;
        Some(text.clone().unwrap_or_else(|| format!("{} {} is deprecated", resource.api_version(), resource.kind)))
    }

    /// Decodes in place: metadata by its type, the rest pruned; returns the paths of unknown fields.
    pub(crate) fn decode(&self, object: &mut Value) -> Result<Vec<String>, String> {
        let mut unknown = Vec::new();
        if let Some(metadata) = object.get_mut("metadata") {
            let mut wrapped = json!({"metadata": metadata.take()});
            let mut wrapper = Schema { kind: Kind::Object, ..Schema::new() };
            wrapper.properties.insert("metadata".into(), builtin::object_meta());
            unknown = builtin::decode_typed(&wrapper, &mut wrapped)?;
            *metadata = match wrapped.get_mut("metadata") {
                Some(decoded) => decoded.take(),
                None => json!({}),
            };
        }
        unknown.extend(self.schema.prune_listing(object));
        let embedded = self.schema.decode_embedded(object, &Path::Root).map_err(|error| error.to_string())?;
        unknown.extend(embedded);
        Ok(unknown)
    }
}

/// Puts the real schema of type meta and metadata into the one of the CRD, keeping what it says of names.
fn whole_schema(written: &Value) -> Arc<Schema> {
    let mut schema = Schema::clone(&Schema::parse(written));
    if written.is_null() {
        schema.preserve_unknown = true;
    }
    schema.kind = Kind::Object;
    let mut metadata = Schema::clone(&builtin::object_meta());
    if let Some(own) = schema.properties.get("metadata") {
        for name in ["name", "generateName"] {
            if let Some(own) = own.properties.get(name) {
                metadata.properties.insert(name.into(), Arc::clone(own));
            }
        }
    }
    schema.properties.insert("metadata".into(), Arc::new(metadata));
    for name in ["apiVersion", "kind"] {
        let text = || Arc::new(Schema { kind: Kind::String, ..Schema::new() });
        schema.properties.entry(name.into()).or_insert_with(text);
    }
    Arc::new(schema)
}

impl Column {
    fn parse(column: &Value) -> Self {
        Self {
            name: text(column, "name").to_owned(),
            kind: text(column, "type").to_owned(),
            format: text(column, "format").to_owned(),
            description: match text(column, "description") {
                "" => {
                    let path = text(column, "jsonPath");
                    format!("Custom resource definition column (in JSONPath format): {path}")
                }
                own => own.to_owned(),
            },
            priority: column["priority"].as_i64().unwrap_or(0),
            path: jsonpath::Path::parse(text(column, "jsonPath")).ok(),
        }
    }
}

/// Fills in what the server defaults in a CRD: singular, listKind, conversion.
pub fn default(crd: &mut Value) {
    let spec = child(crd, "spec");
    fill_text(spec, "scope", "");
    let names = child(spec, "names");
    let kind = text(names, "kind").to_owned();
    if !kind.is_empty() {
        fill_text(names, "singular", &kind.to_lowercase());
        fill_text(names, "listKind", &format!("{kind}List"));
    }
    let conversion = child(spec, "conversion");
    fill_text(conversion, "strategy", "None");
    if let Some(client) = conversion.pointer_mut("/webhook/clientConfig/service") {
        fill(client, "port", 443);
    }
    for version in items_mut(spec, "versions") {
        fill(version, "served", false);
        fill(version, "storage", false);
    }
}

/// Sets what a new CRD starts with.
pub(crate) fn prepare_create(crd: &mut Value) {
    crd["status"] = json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": null});
    note_storage_version(crd);
}

/// Remembers in the status that objects may be stored in the storage version from now on.
pub(crate) fn note_storage_version(crd: &mut Value) {
    let Some(storage) = storage_version(crd).map(str::to_owned) else { return };
    let stored = &mut child(crd, "status")["storedVersions"];
    match stored {
        Value::Array(list) if list.iter().any(|one| *one == storage) => {}
        Value::Array(list) => list.push(storage.into()),
        _ => *stored = json!([storage]),
    }
}

fn storage_version(crd: &Value) -> Option<&str> {
    items(&crd["spec"], "versions").iter().find(|one| one["storage"] == true)?["name"].as_str()
}

/// Returns the resources of the served versions, in discovery's order of preference.
///
/// Parsing compiles nothing: CEL programs and patterns are compiled at first use and kept. Whether the CRD is
/// established is for the caller to look at (`status.conditions`).
pub fn resources(crd: &Value) -> Vec<Arc<Resource>> {
    let spec = &crd["spec"];
    let storage = storage_version(crd).unwrap_or_default();
    // What a CRD asks for and what it got may differ: see [`establish`].
    let accepted = &crd["status"]["acceptedNames"];
    let names = if text(accepted, "plural").is_empty() { &spec["names"] } else { accepted };
    let texts = |name: &str| -> Vec<String> {
        items(names, name).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut out: Vec<Arc<Resource>> = items(spec, "versions")
        .iter()
        .filter(|version| version["served"] == true)
        .map(|version| {
            let (group, name) = (text(spec, "group"), text(version, "name"));
            Arc::new(Resource {
                group: group.to_owned(),
                version: name.to_owned(),
                kind: text(names, "kind").to_owned(),
                list_kind: text(names, "listKind").to_owned(),
                plural: text(names, "plural").to_owned(),
                singular: text(names, "singular").to_owned(),
                short_names: texts("shortNames"),
                categories: texts("categories"),
                namespaced: spec["scope"] == "Namespaced",
                verbs: VERBS.to_vec(),
                subresources: subresources(version, group, name, text(names, "kind")),
                origin: Origin::Custom(Arc::new(Version::parse(version, storage))),
            })
        })
        .collect();
    out.sort_by_key(|resource| std::cmp::Reverse(crate::discovery::priority(&resource.version)));
    out
}

fn subresources(version: &Value, group: &str, name: &str, kind: &str) -> Vec<Subresource> {
    let declared = &version["subresources"];
    let make = |sub: &str, group: &str, version: &str, kind: &str| Subresource {
        name: sub.to_owned(),
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        verbs: vec!["get", "patch", "update"],
    };
    let mut out = Vec::new();
    if !declared["scale"].is_null() {
        out.push(make("scale", "autoscaling", "v1", "Scale"));
    }
    if !declared["status"].is_null() {
        out.push(make("status", group, name, kind));
    }
    out
}

/// Sets the status that the CRD controllers would reach: accepted names, `NamesAccepted`, `Established`,
/// `storedVersions`. Names that resources of other CRDs or built-ins in `others` have taken are not accepted; the CRD
/// goes on under those it had. Call it after every create or update of a CRD; returns whether anything changed.
pub fn establish(crd: &mut Value, others: &[Arc<Resource>], now: Timestamp) -> bool {
    let before = crd["status"].clone();
    note_storage_version(crd);
    let (accepted, conflict) = accepted_names(crd, others);
    let status = child(crd, "status");
    fill(status, "conditions", json!([]));
    status["acceptedNames"] = accepted;
    match conflict {
        None => set_condition(status, "NamesAccepted", "True", "NoConflicts", "no conflicts found", now),
        Some((reason, message)) => set_condition(status, "NamesAccepted", "False", reason, &message, now),
    }
    if !is_established_status(status) {
        let is_accepted = has_condition(status, "NamesAccepted");
        let (value, reason, message) = if is_accepted {
            ("True", "InitialNamesAccepted", "the initial names have been accepted")
        } else {
            ("False", "NotAccepted", "not all names are accepted")
        };
        set_condition(status, "Established", value, reason, message, now);
    }
    crd["status"] != before
}

fn has_condition(status: &Value, kind: &str) -> bool {
    items(status, "conditions").iter().any(|one| one["type"] == kind && one["status"] == "True")
}

fn is_established_status(status: &Value) -> bool {
    has_condition(status, "Established")
}

/// Returns whether the CRD's resources are to be served.
pub fn is_established(crd: &Value) -> bool {
    is_established_status(&crd["status"])
}

/// Returns the names that the CRD may have, and why it may not have all it asks for: reason and message.
fn accepted_names(crd: &Value, others: &[Arc<Resource>]) -> (Value, Option<(&'static str, String)>) {
    let (wanted, had) = (&crd["spec"]["names"], &crd["status"]["acceptedNames"]);
    let (group, plural) = (text(&crd["spec"], "group"), text(wanted, "plural"));
    let others: Vec<&Arc<Resource>> =
        others.iter().filter(|one| one.group == group && !(one.is_custom() && one.plural == plural)).collect();
    let is_resource = |name: &str| {
        others.iter().any(|one| one.plural == name || one.singular == name || one.short_names.iter().any(|s| s == name))
    };
    let is_kind = |name: &str| others.iter().any(|one| one.kind == name || one.list_kind == name);
    let in_use = |name: &str| format!("{} is already in use", crate::field::quote(name));
    let mut accepted = json!({"plural": text(had, "plural"), "kind": text(had, "kind")});
    for name in ["singular", "listKind", "shortNames"] {
        crate::object::copy(&mut accepted, had, name);
    }
    // Of several conflicts the last is told.
    let mut conflict = None;
    let mut accept = |name: &str, reason: &'static str, taken: Vec<&str>| {
        let mut complaints: Vec<String> = taken.into_iter().map(in_use).collect();
        match complaints.len() {
            0 => crate::object::copy(&mut accepted, wanted, name),
            1 => conflict = Some((reason, complaints.remove(0))),
            _ => conflict = Some((reason, format!("[{}]", complaints.join(", ")))),
        }
    };
    let taken = |name: &str, is_taken: &dyn Fn(&str) -> bool| -> Vec<&str> {
        let asked = text(wanted, name);
        if had[name] != wanted[name] && is_taken(asked) { vec![asked] } else { Vec::new() }
    };
    accept("plural", "PluralConflict", taken("plural", &is_resource));
    accept("singular", "SingularConflict", taken("singular", &is_resource));
    let short = items(wanted, "shortNames").iter().filter(|name| !items(had, "shortNames").contains(name));
    let short = short.filter_map(Value::as_str).filter(|name| is_resource(name)).collect();
    accept("shortNames", "ShortNamesConflict", short);
    accept("kind", "KindConflict", taken("kind", &is_kind));
    accept("listKind", "ListKindConflict", taken("listKind", &is_kind));
    crate::object::copy(&mut accepted, wanted, "categories");
    (accepted, conflict)
}

fn set_condition(status: &mut Value, kind: &str, value: &str, reason: &str, message: &str, now: Timestamp) {
    let Some(list) = status["conditions"].as_array_mut() else { return };
    let mut condition = Map::new();
    let at = list.iter().position(|one| one["type"] == kind);
    let kept = at.filter(|at| list[*at]["status"] == value).map(|at| list[at]["lastTransitionTime"].clone());
    condition.insert("lastTransitionTime".to_owned(), kept.unwrap_or_else(|| meta::time(now).into()));
    for (name, text) in [("message", message), ("reason", reason), ("status", value), ("type", kind)] {
        condition.insert(name.to_owned(), text.into());
    }
    match at {
        Some(at) => list[at] = Value::Object(condition),
        None => list.push(Value::Object(condition)),
    }
}

/// Converts an object between versions of one CRD with strategy `None`: only apiVersion changes.
pub fn convert(object: &mut Value, api_version: &str) {
    object["apiVersion"] = Value::from(api_version);
}

#[cfg(test)]
mod tests;
