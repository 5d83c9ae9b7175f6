//! One served resource: its names, its verbs, its schema, and the life of its objects.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use crate::decode::FieldValidation;
use crate::schema::Schema;
use crate::status::{Qualified, Status};
use crate::{builtin, crd, field, selector};

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
    /// Another subresource that writes through, such as `pods/ephemeralcontainers`.
    Other,
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
    /// Built-ins: wrong types are refused, unknown fields dropped, nulls and empty optional strings dropped as decoding
    /// into typed structs does. Custom: unknown fields are pruned, metadata is decoded strictly by type.
    /// `duplicates` are the duplicate fields that [`crate::decode::json`] found. Unknown and duplicate fields are
    /// refused (Strict) or added to `warnings` (Warn), to be sent as `Warning: 299 - "…"` headers.
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
        let _ = (duplicates, validation, warnings);
        Ok(object)
    }

    /// Fills in defaults. Call it after decoding, after merging a patch, and when reading stored custom objects.
    pub fn default(&self, object: &mut Value) {
        let _ = object;
    }

    /// Prepares a decoded and defaulted object for its creation: drops what only status writers may set, sets
    /// generation, creationTimestamp, uid, and what the kind's strategy sets (job selector, namespace phase, …).
    ///
    /// `name` must have been generated before ([`crate::meta::generate_name`]).
    pub fn prepare_create(&self, object: &mut Value, uid: &str, now: Timestamp) {
        let _ = (object, uid, now);
    }

    /// Prepares an update: takes over what this write may not change (status or everything but status, uid,
    /// creationTimestamp, …) and bumps the generation if the desired state changed.
    pub fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        let _ = (new, old, part);
    }

    /// Returns the mistakes of a new object.
    pub fn validate_create(&self, object: &Value) -> Vec<field::Error> {
        let _ = object;
        Vec::new()
    }

    /// Returns the mistakes of a changed object.
    pub fn validate_update(&self, new: &Value, old: &Value, part: Part) -> Vec<field::Error> {
        let _ = (new, old, part);
        Vec::new()
    }

    /// Returns warnings to send with a successful write.
    pub fn warnings(&self, object: &Value) -> Vec<String> {
        let _ = object;
        Vec::new()
    }

    /// Returns the value of a field that field selectors may name; `None` if the kind does not know that field.
    pub fn selectable(&self, object: &Value, field: &str) -> Option<String> {
        selector::field_value(self, object, field)
    }

    /// Returns a fingerprint of everything that discovery and OpenAPI say of this resource.
    pub fn fingerprint(&self) -> String {
        String::new()
    }
}
