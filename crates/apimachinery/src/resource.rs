//! One served resource: its names, its verbs, its schema, and the life of its objects.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::decode::FieldValidation;
use crate::schema::Schema;
use crate::status::{Qualified, Status};
use crate::{builtin, crd, field, meta, object, selector, text};

/// Describes one resource in one version; discovery, OpenAPI, tables and all rules derive from it.
///
/// A CRD with three served versions yields three of these, which share one storage: see [`Resource::storage_key`].
#[derive(Debug)]
pub struct Resource {
    /// API group; empty for core.
    pub group: String,
    /// Version, `v1`.
    pub version: String,
    /// Kind, `Pod`.
    pub kind: String,
    /// Kind of the list, `PodList`.
    pub list_kind: String,
    /// Name in URLs, `pods`.
    pub plural: String,
    /// Name for one, `pod`.
    pub singular: String,
    /// Abbreviations, `po`.
    pub short_names: Vec<String>,
    /// Groups of resources it belongs to, `all`.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs of the main resource in the order discovery lists them. Review kinds have `create` alone.
    pub verbs: Vec<&'static str>,
    /// What is served below an object.
    pub subresources: Vec<Subresource>,
    pub(crate) origin: Origin,
}

/// A resource below an object, such as `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// Last segment of the URL, `status`.
    pub name: String,
    /// Group of the kind exchanged, `authentication.k8s.io`; mostly that of the resource.
    pub group: String,
    /// Version of the kind exchanged.
    pub version: String,
    /// Kind exchanged, `TokenRequest`; mostly that of the resource.
    pub kind: String,
    /// Verbs.
    pub verbs: Vec<&'static str>,
}

/// Where the rules of a resource come from.
#[derive(Debug)]
pub(crate) enum Origin {
    Builtin(&'static builtin::Kind),
    Custom(Arc<crd::Version>),
}

/// Which part of an object a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The object at its own path.
    Main,
    /// The `status` subresource.
    Status,
    /// Another subresource that writes through: `pods/ephemeralcontainers`, `namespaces/finalize`.
    Other,
    /// The server's own assignment of a pod to a node; what it changes is not the client's to say.
    Binding,
}

impl Resource {
    /// Returns `group/version`, or the version alone for core.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Returns the plural name with its group, as errors name it.
    pub fn qualified(&self) -> Qualified<'_> {
        Qualified::new(&self.group, &self.plural)
    }

    /// Returns the kind with its group, as validation errors name it.
    pub fn qualified_kind(&self) -> Qualified<'_> {
        Qualified::new(&self.group, &self.kind)
    }

    /// Returns what all versions of the resource share: group and plural name, mapped to the group that stores them
    /// (events of `events.k8s.io` are those of core).
    pub fn storage_key(&self) -> (&str, &str) {
        if self.group == "events.k8s.io" { ("", &self.plural) } else { (&self.group, &self.plural) }
    }

    /// Returns whether objects are kept; reviews are answered and forgotten.
    pub fn is_stored(&self) -> bool {
        self.verbs.contains(&"get")
    }

    /// Returns whether a CRD defines it.
    pub fn is_custom(&self) -> bool {
        matches!(self.origin, Origin::Custom(_))
    }

    /// Returns whether `verb` is served.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// Returns the subresource `name`.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|one| one.name == name)
    }

    /// Returns the CRD version behind a custom resource.
    pub fn custom(&self) -> Option<&Arc<crd::Version>> {
        match &self.origin {
            Origin::Custom(version) => Some(version),
            Origin::Builtin(_) => None,
        }
    }

    /// Returns the schema of the whole object.
    pub fn schema(&self) -> &Arc<Schema> {
        match &self.origin {
            Origin::Custom(version) => version.schema(),
            Origin::Builtin(kind) => kind.schema(),
        }
    }

    /// Turns a decoded body into an object of this kind: checks apiVersion and kind, types, unknown fields.
    ///
    /// Built-ins: wrong types are refused, unknown fields and nulls dropped, as decoding into typed structs does. Custom:
    /// unknown fields are pruned, metadata is decoded by type. `duplicates` are the duplicate fields that
    /// [`crate::decode::json`] found. Unknown and duplicate fields are refused (Strict) or added to `warnings` (Warn), to
    /// be sent as `Warning: 299 - "…"` headers.
    ///
    /// # Errors
    /// 400 BadRequest with the text of the decoder.
    pub fn decode(
        &self,
        object: Value,
        duplicates: &[String],
        validation: FieldValidation,
        warnings: &mut Vec<String>,
    ) -> Result<Value, Status> {
        let (object, complaints) = self.decode_listing(object, duplicates)?;
        match validation {
            FieldValidation::Ignore => {}
            FieldValidation::Warn => warnings.extend(complaints),
            FieldValidation::Strict if complaints.is_empty() => {}
            FieldValidation::Strict => {
                return Err(self.undecodable(&format!("strict decoding error: {}", complaints.join(", "))));
            }
        }
        Ok(object)
    }

    /// Does what [`Resource::decode`] does for the outcome of a patch; `patch` is the text that was sent.
    ///
    /// # Errors
    /// 422 Invalid naming `patch` for unknown fields (Strict), 400 for wrong types.
    pub fn decode_patched(
        &self,
        object: Value,
        patch: &str,
        validation: FieldValidation,
        warnings: &mut Vec<String>,
    ) -> Result<Value, Status> {
        let (object, complaints) = self.decode_listing(object, &[])?;
        match validation {
            FieldValidation::Ignore => {}
            FieldValidation::Warn => warnings.extend(complaints),
            FieldValidation::Strict if complaints.is_empty() => {}
            FieldValidation::Strict => {
                let detail = format!("strict decoding error: {}", complaints.join(", "));
                let error = field::Error::invalid(&field::Path::Root.child("patch"), patch, &detail);
                return Err(Status::invalid(Qualified::new("", ""), "", &[error]));
            }
        }
        Ok(object)
    }

    fn undecodable(&self, why: &str) -> Status {
        let (kind, version) = (&self.kind, &self.version);
        Status::bad_request(format!("{kind} in version {} cannot be handled as a {kind}: {why}", field::quote(version)))
    }

    fn decode_listing(&self, mut object: Value, duplicates: &[String]) -> Result<(Value, Vec<String>), Status> {
        let Some(fields) = object.as_object_mut() else {
            return Err(Status::bad_request("the object provided is unrecognized (must be of type object)"));
        };
        let api_version = self.api_version();
        for (name, expected) in [("apiVersion", &api_version), ("kind", &self.kind)] {
            match fields.get(name).and_then(Value::as_str).unwrap_or_default() {
                "" => {
                    fields.insert(name.to_owned(), expected.as_str().into());
                }
                found if found == expected => {}
                found if name == "apiVersion" => return Err(Status::wrong_version(found, expected)),
                found => {
                    return Err(Status::bad_request(format!(
                        "{found} in version {} cannot be handled as a {expected}: no kind {} is registered for \
                         version {} in scheme",
                        field::quote(&self.version),
                        field::quote(found),
                        field::quote(&api_version)
                    )));
                }
            }
        }
        let unknown = match &self.origin {
            Origin::Builtin(kind) => builtin::decode_typed(kind.schema(), &mut object),
            Origin::Custom(version) => version.decode(&mut object),
        }
        .map_err(|why| self.undecodable(&why))?;
        let complaints = (duplicates.iter().map(|path| format!("duplicate field {}", field::quote(path))))
            .chain(unknown.iter().map(|path| format!("unknown field {}", field::quote(path))))
            .collect();
        match object.get_mut("metadata").and_then(Value::as_object_mut) {
            // A namespace means nothing to objects outside of namespaces, and many manifests carry one.
            Some(metadata) if !self.namespaced => {
                metadata.remove("namespace");
            }
            Some(_) => {}
            None => object["metadata"] = Value::Object(serde_json::Map::new()),
        }
        Ok((object, complaints))
    }

    /// Fills in defaults. Call it after decoding, after merging a patch, and when reading stored custom objects.
    pub fn default(&self, object: &mut Value) {
        match &self.origin {
            Origin::Builtin(kind) => (kind.default)(object),
            Origin::Custom(version) => version.schema().fill_defaults(object),
        }
    }

    /// Prepares a decoded and defaulted object for its creation: drops what only status writers may set, sets
    /// generation, creationTimestamp, uid, and what the kind's strategy sets (job selector, namespace phase, …).
    ///
    /// The name must have been generated before ([`crate::meta::generate_name`]).
    pub fn prepare_create(&self, object: &mut Value, uid: &str, now: Timestamp) {
        match &self.origin {
            Origin::Builtin(kind) => {
                meta::prepare_create(object, uid, now, kind.has_generation);
                if kind.has_status
                    && let Some(fields) = object.as_object_mut()
                {
                    fields.remove("status");
                }
                (kind.create)(object, uid);
                (kind.default)(object);
            }
            Origin::Custom(_) => {
                meta::prepare_create(object, uid, now, true);
                if self.subresource("status").is_some()
                    && let Some(fields) = object.as_object_mut()
                {
                    fields.remove("status");
                }
            }
        }
    }

    /// Prepares an update: takes over what this write may not change (status, or everything but status; uid,
    /// creationTimestamp, …) and bumps the generation if the desired state changed.
    pub fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        let has_status = self.subresource("status").is_some();
        if part == Part::Status {
            // Everything but the status stays; of metadata only who manages what may change.
            object::keep(new, old, &["apiVersion", "metadata", "status"]);
            let may_change: &[&str] = if self.is_custom() {
                &["managedFields", "resourceVersion"]
            } else {
                &["managedFields", "resourceVersion", "labels", "annotations", "finalizers", "ownerReferences"]
            };
            object::keep(object::child(new, "metadata"), &old["metadata"], may_change);
            return;
        }
        if part == Part::Other && self.kind == "Pod" {
            // Nothing but the containers that the subresource is for.
            let mut out = old.clone();
            object::copy(&mut out["spec"], &new["spec"], "ephemeralContainers");
            for name in ["managedFields", "resourceVersion"] {
                object::copy(&mut out["metadata"], &new["metadata"], name);
            }
            *new = out;
        }
        meta::prepare_update(new, old);
        if has_status && part != Part::Binding {
            object::copy(new, old, "status");
        }
        let counted = match &self.origin {
            Origin::Builtin(kind) => {
                (kind.update)(new, old, part);
                kind.has_generation
            }
            Origin::Custom(_) => true,
        };
        if counted && meta::desire_changed(new, old, has_status) {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            new["metadata"]["generation"] = generation.into();
        }
    }

    /// Returns the mistakes of a new object.
    pub fn validate_create(&self, object: &Value) -> Vec<field::Error> {
        let mut errors = meta::validate_create(object, self.namespaced, self.name_check());
        match &self.origin {
            Origin::Builtin(kind) => (kind.validate)(object, &mut errors),
            Origin::Custom(version) => errors.extend(version.schema().validate(object, None)),
        }
        errors
    }

    /// Returns the mistakes of a changed object.
    pub fn validate_update(&self, new: &Value, old: &Value, part: Part) -> Vec<field::Error> {
        let mut errors = meta::validate_update(new, old);
        match &self.origin {
            Origin::Builtin(kind) => {
                if part == Part::Main {
                    let validate = !matches!(self.kind.as_str(), "CustomResourceDefinition");
                    if validate {
                        (kind.validate)(new, &mut errors);
                    }
                }
                if part == Part::Other && self.kind == "Pod" {
                    validate_debug_containers(new, old, &mut errors);
                }
                if part != Part::Status || self.kind != "CustomResourceDefinition" {
                    (kind.validate_update)(new, old, part, &mut errors);
                }
            }
            Origin::Custom(version) => errors.extend(version.schema().validate(new, Some(old))),
        }
        errors
    }

    fn name_check(&self) -> fn(&str) -> Vec<String> {
        match &self.origin {
            Origin::Builtin(kind) => kind.name,
            Origin::Custom(_) => text::check_subdomain,
        }
    }

    /// Returns warnings to send with a successful write.
    pub fn warnings(&self, object: &Value) -> Vec<String> {
        let mut out = Vec::new();
        if let Some(version) = self.custom() {
            out.extend(version.deprecation(self));
        }
        for finalizer in object::items(&object["metadata"], "finalizers").iter().filter_map(Value::as_str) {
            if self.is_custom()
                && !finalizer.contains('/')
                && finalizer != "orphan"
                && finalizer != "foregroundDeletion"
            {
                out.push(format!(
                    "metadata.finalizers: {}: prefer a domain-qualified finalizer name including a path (/) to avoid \
                     accidental conflicts with other finalizer writers",
                    field::quote(finalizer)
                ));
            }
        }
        out
    }

    /// Returns the value of a field that field selectors may name; `None` if the kind does not know that field.
    pub fn selectable(&self, object: &Value, field: &str) -> Option<String> {
        selector::field_value(self, object, field)
    }

    /// Returns a fingerprint of everything that discovery and OpenAPI say of this resource.
    pub fn fingerprint(&self) -> String {
        let names = format!(
            "{} {} {} {} {} {} {:?} {:?} {} {:?} {:?} {}",
            env!("CARGO_PKG_VERSION"),
            self.group,
            self.version,
            self.kind,
            self.list_kind,
            self.plural,
            self.short_names,
            self.categories,
            self.namespaced,
            self.verbs,
            self.subresources,
            self.custom().map_or("", |version| version.raw()),
        );
        Sha256::digest(names.as_bytes()).iter().map(|byte| format!("{byte:02X}")).collect()
    }
}

/// Debug containers are added and never change again.
fn validate_debug_containers(new: &Value, old: &Value, errors: &mut Vec<field::Error>) {
    const LIST: &str = "ephemeralContainers";
    let path = field::Path::Root.child("spec");
    let path = path.child(LIST);
    for had in object::items(&old["spec"], LIST) {
        let name = field::quote(object::text(had, "name"));
        let what = match object::items(&new["spec"], LIST).iter().find(|one| one["name"] == had["name"]) {
            Some(same) if same == had => continue,
            Some(_) => "changed",
            None => "removed",
        };
        errors
            .push(field::Error::forbidden(&path, &format!("existing ephemeral containers {name} may not be {what}\n")));
    }
}
