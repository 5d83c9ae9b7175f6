//! Rules for `metadata` that hold for every kind.

use serde_json::{Map, Value, json};

use crate::field::{Error, Path};
use crate::object::{items, text as field_text};
use crate::text;

/// Longest name that `generateName` leaves room for: 63 less the 5 random characters.
pub const GENERATED_BASE_MAX: usize = 58;

/// Most bytes that all annotations together may hold.
pub const ANNOTATIONS_MAX: usize = 256 * 1024;

/// The characters of generated suffixes: no vowels and no look-alikes.
pub const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Returns the name made of `base` (cut to [`GENERATED_BASE_MAX`]) and `suffix`, 5 characters of
/// [`SUFFIX_ALPHABET`] that the caller draws.
pub fn generate_name(base: &str, suffix: &str) -> String {
    let mut end = base.len().min(GENERATED_BASE_MAX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &base[..end])
}

/// Returns `metadata.name`, or an empty text.
pub fn name(object: &Value) -> &str {
    field_text(&object["metadata"], "name")
}

/// Returns `metadata.namespace`, or an empty text.
pub fn namespace(object: &Value) -> &str {
    field_text(&object["metadata"], "namespace")
}

/// Fields of `metadata` that only the server writes.
const SYSTEM: [&str; 5] = ["uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"];

/// Gives a new object its identity and drops what only the server may set.
pub(crate) fn prepare_create(object: &mut Value, uid: &str, now: jiff::Timestamp, generation: bool) {
    let metadata = crate::object::child(object, "metadata");
    let fields = crate::object::object(metadata);
    for name in SYSTEM.iter().chain(&["selfLink", "resourceVersion"]) {
        fields.remove(*name);
    }
    fields.insert("uid".to_owned(), uid.into());
    fields.insert("creationTimestamp".to_owned(), time(now).into());
    if generation {
        fields.insert("generation".to_owned(), json!(1));
    }
}

/// Takes over what an update may not change.
pub(crate) fn prepare_update(new: &mut Value, old: &Value) {
    let old = &old["metadata"];
    let metadata = crate::object::child(new, "metadata");
    // Absent means "as it was"; something else is refused by validation.
    for name in ["uid", "creationTimestamp", "name", "namespace", "generateName"] {
        if crate::object::is_empty(&metadata[name]) {
            crate::object::copy(metadata, old, name);
        }
    }
    // Never the client's to say.
    for name in ["generation", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        crate::object::copy(metadata, old, name);
    }
}

/// Renders a time as `metadata` does: whole seconds, UTC.
pub fn time(now: jiff::Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Returns the mistakes in `metadata` of a new object.
pub fn validate_create(object: &Value, namespaced: bool, check_name: fn(&str) -> Vec<String>) -> Vec<Error> {
    let mut errors = Vec::new();
    let path = Path::Root.child("metadata");
    let metadata = &object["metadata"];
    let base = field_text(metadata, "generateName");
    if !base.is_empty() {
        // What follows makes a trailing dash or dot harmless.
        let trimmed = base.strip_suffix(['-', '.']).map_or_else(|| base.to_owned(), |base| format!("{base}a"));
        errors.extend(check_name(&trimmed).iter().map(|why| Error::invalid(&path.child("generateName"), base, why)));
    }
    let name = field_text(metadata, "name");
    if name.is_empty() {
        errors.push(Error::required(&path.child("name"), "name or generateName is required"));
    } else {
        errors.extend(check_name(name).iter().map(|why| Error::invalid(&path.child("name"), name, why)));
    }
    let namespace = field_text(metadata, "namespace");
    match (namespaced, namespace.is_empty()) {
        (true, true) => errors.push(Error::required(&path.child("namespace"), "")),
        (false, false) => {
            errors.push(Error::forbidden(&path.child("namespace"), "not allowed on this type"));
        }
        (true, false) => {
            let found = text::check_label(namespace);
            errors.extend(found.iter().map(|why| Error::invalid(&path.child("namespace"), namespace, why)));
        }
        (false, true) => {}
    }
    validate_common(metadata, &path, &mut errors);
    errors
}

/// Adds the mistakes in `metadata` of an object inside another one. It needs no name.
pub(crate) fn validate_embedded(
    metadata: &Value,
    path: &Path<'_>,
    check_name: fn(&str) -> Vec<String>,
    errors: &mut Vec<Error>,
) {
    for field in ["generateName", "name"] {
        let name = field_text(metadata, field);
        errors.extend(check_name(name).iter().map(|why| Error::invalid(&path.child(field), name, why)));
    }
    let namespace = field_text(metadata, "namespace");
    if !namespace.is_empty() {
        let found = text::check_label(namespace);
        errors.extend(found.iter().map(|why| Error::invalid(&path.child("namespace"), namespace, why)));
    }
    if let Some(generation) = metadata["generation"].as_i64().filter(|generation| *generation < 0) {
        errors.push(Error::invalid(&path.child("generation"), generation, "must be greater than or equal to 0"));
    }
    validate_common(metadata, path, errors);
}

/// Returns the mistakes in `metadata` of a changed object.
pub fn validate_update(new: &Value, old: &Value) -> Vec<Error> {
    let mut errors = Vec::new();
    let path = Path::Root.child("metadata");
    let (new, old) = (&new["metadata"], &old["metadata"]);
    for name in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if new[name] != old[name] && !(new[name].is_null() && old[name] == "") {
            errors.push(Error::invalid(&path.child(name), new[name].clone(), "field is immutable"));
        }
    }
    // Nothing may hold up an object that is already going.
    if !old["deletionTimestamp"].is_null() {
        let had = items(old, "finalizers");
        let added: Vec<&str> =
            items(new, "finalizers").iter().filter(|one| !had.contains(one)).filter_map(Value::as_str).collect();
        if !added.is_empty() {
            let quoted: Vec<String> = added.iter().map(|one| crate::field::quote(one)).collect();
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                quoted.join(", ")
            );
            errors.push(Error::forbidden(&path.child("finalizers"), &detail));
        }
    }
    validate_common(new, &path, &mut errors);
    errors
}

fn validate_common(metadata: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    validate_labels(&metadata["labels"], &path.child("labels"), errors);
    validate_annotations(&metadata["annotations"], &path.child("annotations"), errors);
    validate_owners(items(metadata, "ownerReferences"), &path.child("ownerReferences"), errors);
    for finalizer in items(metadata, "finalizers") {
        let name = finalizer.as_str().unwrap_or_default();
        let at = path.child("finalizers");
        let found = text::check_qualified_name(name);
        if found.is_empty() && !name.contains('/') && !["orphan", "foregroundDeletion", "kubernetes"].contains(&name) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(Error::invalid(&at, name, why));
        }
        errors.extend(found.iter().map(|why| Error::invalid(&at, name, why)));
    }
    if items(metadata, "finalizers").iter().any(|one| one == "orphan")
        && items(metadata, "finalizers").iter().any(|one| one == "foregroundDeletion")
    {
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(Error::invalid(&path.child("finalizers"), metadata["finalizers"].clone(), why));
    }
}

/// Adds the mistakes in labels.
pub fn validate_labels(labels: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        errors.extend(text::check_qualified_name(key).iter().map(|why| Error::invalid(path, key.as_str(), why)));
        let value = value.as_str().unwrap_or_default();
        errors.extend(text::check_label_value(value).iter().map(|why| Error::invalid(path, value, why)));
    }
}

/// Adds the mistakes in annotations.
pub fn validate_annotations(annotations: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    let mut total = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        let found = text::check_qualified_name(&key.to_lowercase());
        errors.extend(found.iter().map(|why| Error::invalid(path, key.as_str(), why)));
        total += key.len() + value.as_str().map_or(0, str::len);
    }
    if total > ANNOTATIONS_MAX {
        errors.push(Error::too_long(path, ANNOTATIONS_MAX as i64));
    }
}

fn validate_owners(owners: &[Value], path: &Path<'_>, errors: &mut Vec<Error>) {
    let mut controller: Option<&Value> = None;
    for (index, owner) in owners.iter().enumerate() {
        let at = path.index(index);
        let version = field_text(owner, "apiVersion");
        if version.is_empty() || version.split('/').count() > 2 {
            errors.push(Error::invalid(&at.child("apiVersion"), version, "version must not be empty"));
        }
        for (name, why) in [("kind", "must not be empty"), ("name", "must not be empty"), ("uid", "must not be empty")]
        {
            if field_text(owner, name).is_empty() {
                errors.push(Error::invalid(&at.child(name), field_text(owner, name), why));
            }
        }
        if version == "v1" && owner["kind"] == "Event" {
            errors.push(Error::invalid(&at, version, "/v1, Kind=Event is disallowed from being an owner"));
        }
        if owner["controller"] == true {
            if let Some(first) = controller {
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
                    field_text(first, "name"),
                    field_text(owner, "name")
                );
                errors.push(Error::invalid(path, owners.to_vec(), &why));
            }
            controller = Some(owner);
        }
    }
}

/// Returns whether the desired state differs: everything but metadata, status and type meta.
pub(crate) fn desire_changed(new: &Value, old: &Value, but_status: bool) -> bool {
    let empty = Map::new();
    let (new, old) = (new.as_object().unwrap_or(&empty), old.as_object().unwrap_or(&empty));
    let counts =
        |key: &String| !(matches!(key.as_str(), "metadata" | "apiVersion" | "kind") || but_status && key == "status");
    new.keys().chain(old.keys()).filter(|key| counts(key)).any(|key| new.get(key) != old.get(key))
}
