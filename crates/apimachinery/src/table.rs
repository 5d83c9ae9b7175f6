//! Objects as `meta.k8s.io/v1` tables, which is what `kubectl get` prints.
//!
//! Every table is the wide one: clients hide columns of priority 1 by themselves.

mod age;
mod basics;
mod columns;
mod custom;
mod event;
mod labels;
mod network;
mod node;
mod pod;
mod workload;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::crd::Column;
use crate::meta;
use crate::resource::Resource;

/// What each row carries beside its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// A `PartialObjectMetadata`.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

impl IncludeObject {
    /// Parses the query parameter; absent means `Metadata`.
    pub fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("" | "Metadata") => Some(Self::Metadata),
            Some("None") => Some(Self::None),
            Some("Object") => Some(Self::Object),
            Some(_) => None,
        }
    }

    fn of(self, object: &Value) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Metadata => json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"],
            }),
            Self::Object => object.clone(),
        }
    }
}

/// Renders `objects`; `list_meta` is the `metadata` of the list. Watch events after the first may leave out
/// `columns`.
pub fn render<'a>(
    resource: &Resource,
    objects: impl IntoIterator<Item = &'a Value>,
    list_meta: Value,
    include: IncludeObject,
    columns: bool,
    now: Timestamp,
) -> Value {
    let form = Form::of(resource);
    let rows: Vec<Value> = objects
        .into_iter()
        .map(|object| {
            let mut row = json!({"cells": form.cells(object, now), "object": include.of(object)});
            if let Some(condition) = form.condition(object) {
                row["conditions"] = json!([condition]);
            }
            row
        })
        .collect();
    let columns = if columns { form.columns() } else { Value::Null };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list_meta,
        "columnDefinitions": columns, "rows": rows,
    })
}

/// The cells of one object, in the order of its kind's columns.
type Cells = fn(&Value, Timestamp) -> Vec<Value>;

/// How objects of one resource become rows.
enum Form<'a> {
    Custom(&'a [Column]),
    Builtin(&'a str, Cells),
    /// Name and the time of creation as it is written: what kinds get that nobody wrote columns for.
    Plain,
}

impl<'a> Form<'a> {
    fn of(resource: &'a Resource) -> Self {
        if let Some(version) = resource.custom() {
            return Self::Custom(version.columns());
        }
        let cells: Cells = match resource.kind.as_str() {
            "ConfigMap" => basics::config_map,
            "Endpoints" => network::endpoints,
            "Event" => event::event,
            "Namespace" => basics::namespace,
            "Node" => node::node,
            "PersistentVolumeClaim" => basics::claim,
            "Pod" => pod::pod,
            "ResourceQuota" => basics::quota,
            "Secret" => basics::secret,
            "Service" => network::service,
            "ServiceAccount" => basics::service_account,
            "CronJob" => workload::cron_job,
            "Job" => workload::job,
            "DaemonSet" => workload::daemon_set,
            "Deployment" => workload::deployment,
            "ReplicaSet" => workload::replica_set,
            "StatefulSet" => workload::stateful_set,
            "ClusterRoleBinding" | "RoleBinding" => basics::binding,
            "Lease" => basics::lease,
            "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => basics::webhooks,
            "Ingress" => network::ingress,
            "IngressClass" => network::ingress_class,
            "NetworkPolicy" => network::policy,
            _ => return Self::Plain,
        };
        Self::Builtin(&resource.kind, cells)
    }

    fn columns(&self) -> Value {
        match self {
            Self::Custom(columns) => custom::columns(columns),
            Self::Builtin(kind, _) => columns::of(kind).into(),
            Self::Plain => json!([columns::name(), columns::plain("Created At", "date", columns::age_description())]),
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        match self {
            Self::Custom(columns) => custom::cells(columns, object, now),
            Self::Builtin(_, cells) => cells(object, now),
            Self::Plain => {
                let created = object["metadata"]["creationTimestamp"].as_str().unwrap_or("0001-01-01T00:00:00Z");
                vec![meta::name(object).into(), created.into()]
            }
        }
    }

    /// Tells clients that a row needs no attention any more.
    fn condition(&self, object: &Value) -> Option<Value> {
        match self {
            Self::Builtin("Pod", _) => pod::condition(object),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
