//! Namespaces on their way out: emptied first, gone when empty.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::catalog::Served;
use crate::core::Core;
use crate::failure::Failure;
use crate::rest::{DeleteOptions, seconds};
use crate::store::{Record, Scope};

use super::Failures;

const USER: &str = "system:serviceaccount:kube-system:namespace-controller";

impl Core {
    /// Deletes the content of a terminating namespace, and lets it go when nothing is left.
    pub(super) async fn look_at_namespace(&self, served: &Arc<Served>, namespace: &Arc<Record>) -> Result<(), Failure> {
        if !namespace.is_deleting() {
            return Ok(());
        }
        let snapshot = self.catalog.snapshot();
        let mut failures = Failures::default();
        for table in self.store.tables() {
            let Some(content) = snapshot.find_table(&table).filter(|one| one.namespaced) else { continue };
            for record in self.content(&table, namespace).iter().filter(|record| !record.is_deleting()) {
                failures.note(self.delete_as(USER, content, record, DeleteOptions::background()).await);
            }
        }
        let mut remaining: BTreeMap<String, usize> = BTreeMap::new();
        let mut finalizers: BTreeMap<String, usize> = BTreeMap::new();
        for table in self.store.tables() {
            let Some(content) = snapshot.find_table(&table).filter(|one| one.namespaced) else { continue };
            for record in self.content(&table, namespace) {
                let resource = if content.group.is_empty() {
                    format!("{}.", content.plural)
                } else {
                    content.qualified().to_string()
                };
                *remaining.entry(resource).or_default() += 1;
                for finalizer in record.value()["metadata"]["finalizers"].as_array().into_iter().flatten() {
                    *finalizers.entry(finalizer.as_str().unwrap_or_default().to_owned()).or_default() += 1;
                }
            }
        }
        if remaining.is_empty() {
            return self
                .edit_as(USER, served, namespace, "finalize", |object| {
                    if let Some(list) = object["spec"]["finalizers"].as_array_mut() {
                        list.retain(|one| one != "kubernetes");
                    }
                })
                .await;
        }
        let left = Left { remaining, finalizers, failure: failures.0.as_ref().map(|one| one.message().to_owned()) };
        let now = self.now();
        let told = self.edit_as(USER, served, namespace, "status", |object| {
            object["status"]["conditions"] = conditions(&object["status"]["conditions"], &left, now);
        });
        failures.note(told.await);
        failures.into_result()
    }

    fn content(&self, table: &Arc<str>, namespace: &Record) -> Vec<Arc<Record>> {
        let scope = Scope { table: table.clone(), namespace: Some(namespace.name().name.clone()) };
        self.store.list(&scope, None, None, None, |_| true).expect("the present is never compacted").records
    }
}

/// What a terminating namespace still holds.
struct Left {
    /// Objects by resource.
    remaining: BTreeMap<String, usize>,
    /// Objects by finalizer.
    finalizers: BTreeMap<String, usize>,
    /// Why something could not be deleted.
    failure: Option<String>,
}

/// Says what a namespace waits for, keeping the times of what was said before.
fn conditions(old: &Value, left: &Left, now: Timestamp) -> Value {
    let Left { remaining, finalizers, failure } = left;
    let listed = |counts: &BTreeMap<String, usize>, what: &str| {
        let texts: Vec<String> =
            counts.iter().map(|(name, count)| format!("{name} {what} {count} resource instances")).collect();
        texts.join(", ")
    };
    let content = format!("Some resources are remaining: {}", listed(remaining, "has"));
    let total: usize = remaining.values().sum();
    let failed = failure.as_ref().map(|why| format!("Failed to delete all resource types, {total} remaining: {why}"));
    let held = format!("Some content in the namespace has finalizers remaining: {}", listed(finalizers, "in"));
    let wanted = [
        ("NamespaceDeletionDiscoveryFailure", "False", "ResourcesDiscovered", "All resources successfully discovered"),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            "False",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        match &failed {
            Some(failed) => ("NamespaceDeletionContentFailure", "True", "ContentDeletionFailed", failed.as_str()),
            None => (
                "NamespaceDeletionContentFailure",
                "False",
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            ),
        },
        ("NamespaceContentRemaining", "True", "SomeResourcesRemain", content.as_str()),
        if finalizers.is_empty() {
            (
                "NamespaceFinalizersRemaining",
                "False",
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished",
            )
        } else {
            ("NamespaceFinalizersRemaining", "True", "SomeFinalizersRemain", held.as_str())
        },
    ];
    let now = seconds(now);
    wanted
        .iter()
        .map(|(kind, status, reason, message)| {
            let same =
                old.as_array().into_iter().flatten().find(|one| one["type"] == *kind && one["status"] == *status);
            let since = same.map_or(json!(now), |one| one["lastTransitionTime"].clone());
            json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since})
        })
        .collect()
}
