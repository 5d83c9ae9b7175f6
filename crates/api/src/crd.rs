//! The CustomResourceDefinitions of all kinds.
//!
//! The schemas stand here as values, beside the types that read them; a test fills every field of every schema and
//! sends it through the type and back, so that neither can have a field the other lacks.
//!
//! # Source
//! `01-api.md` §1, §2

mod schema;
#[cfg(test)]
mod tests;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::keys;

/// Labels that the install manifests put on every CRD.
pub const LABELS: [(&str, &str); 3] = [
    ("app.kubernetes.io/component", "kratix-manager"),
    ("app.kubernetes.io/instance", "kratix-platform"),
    ("app.kubernetes.io/part-of", "kratix"),
];

/// Returns the CRDs of all eleven kinds, always in the same order.
pub fn crds() -> Vec<CustomResourceDefinition> {
    documents()
        .into_iter()
        .map(|document| serde_json::from_value(document).expect("the definitions below are CRDs"))
        .collect()
}

/// Returns the CRDs as the documents that an API server is sent.
pub fn documents() -> Vec<Value> {
    definitions().iter().map(Definition::document).collect()
}

#[derive(Clone, Copy)]
enum Scope {
    Cluster,
    Namespaced,
}

/// What differs between the CRDs.
struct Definition {
    kind: &'static str,
    plural: &'static str,
    scope: Scope,
    short_names: &'static [&'static str],
    /// Name, type, path.
    columns: &'static [(&'static str, &'static str, &'static str)],
    selectable: &'static [&'static str],
    /// Top-level properties beside apiVersion, kind and metadata.
    properties: Value,
    spec_is_required: bool,
}

const READY_STATUS: &str = r#".status.conditions[?(@.type=="Ready")].status"#;
const READY_MESSAGE: &str = r#".status.conditions[?(@.type=="Ready")].message"#;

impl Definition {
    fn document(&self) -> Value {
        let is_record = self.kind == crate::HealthRecord::KIND;
        let mut names = json!({
            "kind": self.kind,
            "listKind": format!("{}List", self.kind),
            "plural": self.plural,
            "singular": self.kind.to_lowercase(),
        });
        if !is_record {
            names["categories"] = json!(["kratix"]);
        }
        if !self.short_names.is_empty() {
            names["shortNames"] = json!(self.short_names);
        }

        let mut schema = schema::object(self.properties.clone());
        schema["properties"]["apiVersion"] = schema::string();
        schema["properties"]["kind"] = schema::string();
        schema["properties"]["metadata"] = json!({"type": "object"});
        if self.spec_is_required {
            schema["required"] = json!(["spec"]);
        }

        let mut version = json!({
            "name": keys::VERSION,
            "served": true,
            "storage": true,
            "schema": {"openAPIV3Schema": schema},
            "subresources": if is_record { json!({}) } else { json!({"status": {}}) },
        });
        if !self.columns.is_empty() {
            let column =
                |(name, r#type, path): &(&str, &str, &str)| json!({"name": name, "type": r#type, "jsonPath": path});
            version["additionalPrinterColumns"] = self.columns.iter().map(column).collect();
        }
        if !self.selectable.is_empty() {
            version["selectableFields"] = self.selectable.iter().map(|path| json!({"jsonPath": path})).collect();
        }

        let labels: Value = LABELS.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{}.{}", self.plural, keys::GROUP), "labels": labels},
            "spec": {
                "group": keys::GROUP,
                "names": names,
                "scope": match self.scope { Scope::Cluster => "Cluster", Scope::Namespaced => "Namespaced" },
                "conversion": {"strategy": "None"},
                "versions": [version],
            },
        })
    }
}

fn definitions() -> [Definition; 11] {
    let plain = |kind, plural, scope, columns, properties| Definition {
        kind,
        plural,
        scope,
        short_names: &[],
        columns,
        selectable: &[],
        properties,
        spec_is_required: false,
    };
    [
        plain(
            "BucketStateStore",
            crate::BucketStateStore::PLURAL,
            Scope::Cluster,
            &[
                ("Name", "string", ".spec.bucketName"),
                ("Endpoint", "string", ".spec.endpoint"),
                ("Ready", "string", READY_STATUS),
            ],
            schema::bucket_state_store(),
        ),
        Definition {
            short_names: &["dest", "dests"],
            ..plain(
                "Destination",
                crate::Destination::PLURAL,
                Scope::Cluster,
                &[
                    ("StateStoreKind", "string", ".spec.stateStoreRef.kind"),
                    ("StateStoreName", "string", ".spec.stateStoreRef.name"),
                    ("Ready", "string", READY_STATUS),
                ],
                schema::destination(),
            )
        },
        plain("DryRun", crate::DryRun::PLURAL, Scope::Namespaced, &[], schema::dry_run()),
        plain(
            "GitStateStore",
            crate::GitStateStore::PLURAL,
            Scope::Cluster,
            &[("URL", "string", ".spec.url"), ("Branch", "string", ".spec.branch"), ("Ready", "string", READY_STATUS)],
            schema::git_state_store(),
        ),
        plain(
            "HealthRecord",
            crate::HealthRecord::PLURAL,
            Scope::Namespaced,
            &[("Status", "string", ".data.state"), ("Age", "date", ".metadata.creationTimestamp")],
            schema::health_record(),
        ),
        plain(
            "PromiseRelease",
            crate::PromiseRelease::PLURAL,
            Scope::Cluster,
            &[("Status", "string", ".status.status"), ("Version", "string", ".spec.version")],
            schema::promise_release(),
        ),
        Definition {
            spec_is_required: true,
            ..plain(
                "PromiseRevision",
                crate::PromiseRevision::PLURAL,
                Scope::Cluster,
                &[
                    ("Promise", "string", ".spec.promiseRef.name"),
                    ("Version", "string", ".spec.version"),
                    ("Latest", "boolean", ".status.latest"),
                ],
                schema::promise_revision(),
            )
        },
        plain(
            "Promise",
            crate::Promise::PLURAL,
            Scope::Cluster,
            &[
                ("Status", "string", ".status.status"),
                ("Kind", "string", ".status.kind"),
                ("API Version", "string", ".status.apiVersion"),
                ("Version", "string", ".status.version"),
                ("Message", "string", ".status.message"),
            ],
            schema::promise(),
        ),
        Definition {
            spec_is_required: true,
            selectable: &[".spec.version"],
            ..plain(
                "ResourceBinding",
                crate::ResourceBinding::PLURAL,
                Scope::Namespaced,
                &[
                    ("Resource", "string", ".spec.resourceRef.name"),
                    ("Promise", "string", ".spec.promiseRef.name"),
                    ("Desired", "string", ".spec.version"),
                    ("Applied", "string", ".status.lastAppliedVersion"),
                ],
                schema::resource_binding(),
            )
        },
        Definition {
            short_names: &["wp", "wps"],
            ..plain(
                "WorkPlacement",
                crate::WorkPlacement::PLURAL,
                Scope::Namespaced,
                &[("DESTINATION", "string", ".spec.targetDestinationName"), ("STATUS", "string", READY_MESSAGE)],
                schema::work_placement(),
            )
        },
        plain("Work", crate::Work::PLURAL, Scope::Namespaced, &[("STATUS", "string", READY_MESSAGE)], schema::work()),
    ]
}
