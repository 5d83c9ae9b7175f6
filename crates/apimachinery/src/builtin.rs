//! The built-in resources: one table of names and rules.
//!
//! What the types look like comes from their published JSON schemas; what those do not say (how lists merge) from
//! `facts.txt`; what the server does with objects of a kind (defaults, strategy, validation) from the functions named
//! in the table.

mod access;
mod basics;
pub(crate) mod batch;
mod catalogue;
mod decode;
mod definitions;
mod pod;
mod pod_rules;
mod workload;

use std::sync::{Arc, LazyLock, OnceLock};

use serde_json::Value;

use crate::field;
use crate::resource::{Part, Resource};
use crate::schema::Schema;

pub(crate) use decode::typed as decode_typed;
pub(crate) use definitions::{object_meta, raw as raw_definitions};

/// The rules of one built-in kind.
#[derive(Debug)]
pub struct Kind {
    /// Name of its definition, `io.k8s.api.core.v1.Pod`.
    pub(crate) definition: &'static str,
    pub(crate) name: fn(&str) -> Vec<String>,
    pub(crate) default: fn(&mut Value),
    /// Completes a new object of the given uid.
    pub(crate) create: fn(&mut Value, &str),
    pub(crate) update: fn(&mut Value, &Value, Part),
    pub(crate) validate: fn(&Value, &mut Vec<field::Error>),
    pub(crate) validate_update: fn(&Value, &Value, Part, &mut Vec<field::Error>),
    /// Whether `metadata.generation` counts changes of the desired state.
    pub(crate) has_generation: bool,
    /// Whether `status` can only be written at its subresource.
    pub(crate) has_status: bool,
    schema: OnceLock<Arc<Schema>>,
}

impl Kind {
    pub(crate) fn schema(&self) -> &Arc<Schema> {
        self.schema.get_or_init(|| definitions::parsed(self.definition))
    }
}

/// Returns every built-in resource, sorted by group, version and name.
pub fn resources() -> &'static [Arc<Resource>] {
    static ALL: LazyLock<Vec<Arc<Resource>>> = LazyLock::new(catalogue::build);
    &ALL
}

/// Returns the built-in resource of that group, version and plural name.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Arc<Resource>> {
    resources().iter().find(|one| one.group == group && one.version == version && one.plural == plural)
}

/// Returns the built-in resource of that group, version and kind.
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static Arc<Resource>> {
    resources().iter().find(|one| one.group == group && one.version == version && one.kind == kind)
}
