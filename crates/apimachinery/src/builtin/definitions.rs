//! Schemas of the built-in types.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use k8s_openapi::api::{
    admissionregistration::v1 as admission, apps::v1 as apps, authentication::v1 as authentication,
    authorization::v1 as authorization, batch::v1 as batch, coordination::v1 as coordination, core::v1 as core,
    events::v1 as events, networking::v1 as networking, rbac::v1 as rbac,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::schema::{Definitions, Facts, Schema};

/// Definition of `metadata`.
pub(crate) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

static FACTS: LazyLock<Table> = LazyLock::new(|| Table::parse(include_str!("facts.txt")));

/// Parsed definitions. The raw ones, with all their prose, are made anew for the rare readers of OpenAPI.
static PARSED: LazyLock<HashMap<String, Arc<Schema>>> = LazyLock::new(|| {
    let raw = raw();
    let mut definitions = Definitions::new(&raw, &*FACTS);
    raw.keys().map(|name| (name.clone(), definitions.get(name))).collect()
});

/// Returns the parsed schema of `definition`.
pub(crate) fn parsed(definition: &str) -> Arc<Schema> {
    Arc::clone(PARSED.get(definition).expect("the catalogue names definitions that exist"))
}

/// Returns the schema of `metadata`, which custom objects share.
pub(crate) fn object_meta() -> Arc<Schema> {
    parsed(OBJECT_META)
}

/// Returns the definitions of all built-in types as JSON schemas, amended by what is known of their lists.
pub(crate) fn raw() -> Map<String, Value> {
    let mut generator = SchemaGenerator::new(SchemaSettings::draft2020_12());
    macro_rules! add {
        ($($ty:ty),* $(,)?) => { $( let _ = generator.subschema_for::<$ty>(); )* };
    }
    add!(
        core::ConfigMap,
        core::Endpoints,
        core::Event,
        core::LimitRange,
        core::Namespace,
        core::Node,
        core::PersistentVolumeClaim,
        core::Pod,
        core::ResourceQuota,
        core::Secret,
        core::Service,
        core::ServiceAccount,
        batch::Job,
        batch::CronJob,
        apps::DaemonSet,
        apps::Deployment,
        apps::ReplicaSet,
        apps::StatefulSet,
        rbac::ClusterRole,
        rbac::ClusterRoleBinding,
        rbac::Role,
        rbac::RoleBinding,
        apiextensions::CustomResourceDefinition,
        coordination::Lease,
        events::Event,
        authentication::SelfSubjectReview,
        authentication::TokenRequest,
        authentication::TokenReview,
        authorization::LocalSubjectAccessReview,
        authorization::SelfSubjectAccessReview,
        authorization::SelfSubjectRulesReview,
        authorization::SubjectAccessReview,
        admission::MutatingWebhookConfiguration,
        admission::ValidatingWebhookConfiguration,
        networking::Ingress,
        networking::IngressClass,
        networking::NetworkPolicy,
        meta::DeleteOptions,
        meta::ListMeta,
        meta::Status,
    );
    let mut out = generator.take_definitions(true);
    for (name, definition) in &mut out {
        FACTS.amend_definition(name, definition);
        if let Some(properties) = definition.get_mut("properties").and_then(Value::as_object_mut) {
            for (field, schema) in properties {
                if let Some(schema) = schema.as_object_mut() {
                    FACTS.amend(name, field, schema);
                }
            }
        }
    }
    out
}

/// `facts.txt`, by definition and field.
struct Table(HashMap<(&'static str, &'static str), Vec<(&'static str, &'static str)>>);

impl Table {
    fn parse(text: &'static str) -> Self {
        let mut out = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split(' ');
            let (Some(definition), Some(field)) = (words.next(), words.next()) else { continue };
            out.insert((definition, field), words.filter_map(|word| word.split_once('=')).collect());
        }
        Self(out)
    }

    fn write(&self, key: (&str, &str), schema: &mut Map<String, Value>) {
        for (fact, value) in self.0.get(&key).into_iter().flatten() {
            match *fact {
                "list" => {
                    let (kind, keys) = value.split_once(':').unwrap_or((value, ""));
                    schema.insert("x-kubernetes-list-type".into(), kind.into());
                    if !keys.is_empty() {
                        schema.insert("x-kubernetes-list-map-keys".into(), keys.split(',').collect());
                    }
                }
                "map" => {
                    schema.insert("x-kubernetes-map-type".into(), (*value).into());
                }
                "patch" => {
                    let (strategies, key) = value.split_once(':').unwrap_or((value, ""));
                    schema.insert("x-kubernetes-patch-strategy".into(), strategies.replace('+', ",").into());
                    if !key.is_empty() {
                        schema.insert("x-kubernetes-patch-merge-key".into(), key.into());
                    }
                }
                _ => {
                    schema.insert("default".into(), (*value).into());
                }
            }
        }
    }
}

impl Facts for Table {
    fn amend_definition(&self, name: &str, schema: &mut Value) {
        let Some(schema) = schema.as_object_mut() else { return };
        self.write((name, "."), schema);
        // A type without fields is raw JSON.
        let is_struct = ["properties", "additionalProperties", "x-kubernetes-int-or-string"]
            .iter()
            .any(|key| schema.contains_key(*key));
        if !is_struct && matches!(schema.get("type").and_then(Value::as_str), None | Some("object")) {
            schema.insert("x-kubernetes-preserve-unknown-fields".into(), json!(true));
        }
    }

    fn amend(&self, owner: &str, field: &str, schema: &mut Map<String, Value>) {
        self.write((owner, field), schema);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Kind, List};

    #[test]
    fn facts_reach_the_schemas() {
        let pod = parsed("io.k8s.api.core.v1.PodSpec");
        let containers = &pod.properties["containers"];
        assert_eq!(containers.list, List::Map(vec!["name".into()]));
        assert!(containers.strategic.merge);
        let container = containers.items.as_ref().expect("containers are a list");
        assert_eq!(container.go_type.as_deref(), Some("v1.Container"));
        assert_eq!(container.properties["ports"].list, List::Map(vec!["containerPort".into(), "protocol".into()]));
        assert!(pod.properties["nodeSelector"].atomic);
        assert!(parsed("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector").atomic);
        assert_eq!(object_meta().properties["finalizers"].list, List::Set);
        assert_eq!(pod.properties["terminationGracePeriodSeconds"].kind, Kind::Integer);
    }

    #[test]
    fn every_fact_is_about_a_field_that_exists() {
        let raw = raw();
        for (definition, field) in FACTS.0.keys() {
            let Some(found) = raw.get(*definition) else { continue };
            assert!(*field == "." || !found["properties"][*field].is_null(), "{definition} {field}");
        }
    }
}
