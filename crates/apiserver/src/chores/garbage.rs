//! Owner references: who goes with whom.

use std::sync::Arc;

use serde_json::Value;

use super::{Chore, Failures, remove_finalizer};
use crate::catalog::Served;
use crate::core::Core;
use crate::failure::Failure;
use crate::rest::{DeleteOptions, FOREGROUND, ORPHAN};
use crate::store::{ObjectName, Record};

const USER: &str = "system:serviceaccount:kube-system:generic-garbage-collector";

/// What is known of one owner.
enum Owner {
    /// It lives.
    Solid,
    /// It is gone, or another object has its name.
    Absent,
    /// It waits for its dependents.
    Waiting,
    /// Its kind is not served, or cannot own this object: nothing is known of it, so nothing is done.
    Unknown,
}

impl Core {
    /// Queues everything owned by `uid`, and the owner itself if it waits for them.
    pub(super) fn look_at_dependents(&self, uid: &str) {
        for (table, name) in self.store.dependents(uid) {
            self.chores.add(Chore::Object(table, name));
        }
        if let Some((table, name)) = self.chores.waiting_owner(uid) {
            self.chores.add(Chore::Object(table, name));
        }
    }

    /// Decides what becomes of one object: as an owner on its way out, and as somebody's dependent.
    pub(super) async fn collect(&self, served: &Arc<Served>, record: &Arc<Record>) -> Result<(), Failure> {
        let object = record.value();
        if record.is_deleting() {
            self.release(served, record, &object).await?;
        }
        let catalog = self.catalog.snapshot();
        let references = object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
        if references.is_empty() || record.is_deleting() && !has_finalizer(&object, FOREGROUND) {
            return Ok(());
        }
        let (mut solid, mut waiting) = (0, 0);
        let mut dangling: Vec<String> = Vec::new();
        for reference in &references {
            match self.owner(served, record, reference) {
                Owner::Solid => solid += 1,
                Owner::Waiting => {
                    waiting += 1;
                    dangling.push(reference["uid"].as_str().unwrap_or_default().to_owned());
                }
                Owner::Absent => dangling.push(reference["uid"].as_str().unwrap_or_default().to_owned()),
                Owner::Unknown => {
                    self.chores.wait_for_kind(&served.table, record.name());
                    // A kind that came since brings back only whoever waited already.
                    if !Arc::ptr_eq(&catalog, &self.catalog.snapshot()) {
                        self.chores.add(Chore::Object(served.table.clone(), record.name().clone()));
                    }
                    return Ok(());
                }
            }
        }
        if solid > 0 {
            if dangling.is_empty() {
                return Ok(());
            }
            // Somebody still owns it: only the references to the others go.
            return self.edit_as(USER, served, record, "", |object| drop_references(object, &dangling)).await;
        }
        if record.is_deleting() {
            return Ok(());
        }
        // A foreground owner wants this one gone the same way, if others wait for it in turn.
        let has_dependents = !self.store.dependents(record.uid()).is_empty();
        let options = match waiting > 0 && has_dependents {
            true => DeleteOptions::foreground(),
            false if has_finalizer(&object, ORPHAN) => DeleteOptions::default(),
            false => DeleteOptions::background(),
        };
        self.delete_as(USER, served, record, options).await
    }

    /// Removes the finalizers that only wait for dependents, once these are gone or let go.
    async fn release(&self, served: &Arc<Served>, record: &Arc<Record>, object: &Value) -> Result<(), Failure> {
        if has_finalizer(object, ORPHAN) {
            let mut failures = Failures::default();
            for (table, name) in self.store.dependents(record.uid()) {
                let snapshot = self.catalog.snapshot();
                let (Some(served), Some(dependent)) = (snapshot.find_table(&table), self.store.get(&table, &name))
                else {
                    continue;
                };
                let uid = [record.uid().to_owned()];
                let freed = self.edit_as(USER, served, &dependent, "", |object| drop_references(object, &uid));
                failures.note(freed.await);
            }
            // With a dependent that still refers to it, its end would take that one along.
            failures.into_result()?;
            return self.edit_as(USER, served, record, "", |object| remove_finalizer(object, ORPHAN)).await;
        }
        if has_finalizer(object, FOREGROUND) {
            // Before looking, so that a dependent that goes meanwhile is not missed.
            self.chores.wait_for_dependents(record.uid(), &served.table, record.name());
            let mut blocked = false;
            for (table, name) in self.store.dependents(record.uid()) {
                let Some(dependent) = self.store.get(&table, &name) else { continue };
                blocked |= blocks(&dependent.value(), record.uid());
                self.chores.add(Chore::Object(table, name));
            }
            if !blocked {
                self.chores.stop_waiting(record.uid());
                return self.edit_as(USER, served, record, "", |object| remove_finalizer(object, FOREGROUND)).await;
            }
        }
        Ok(())
    }

    fn owner(&self, dependent: &Served, record: &Record, reference: &Value) -> Owner {
        let text = |key: &str| reference[key].as_str().unwrap_or_default();
        let snapshot = self.catalog.snapshot();
        let group = text("apiVersion").split_once('/').map_or("", |(group, _)| group);
        // By group and kind: a version that is served no longer does not make its objects disappear.
        let Some(served) = snapshot.find_kind(group, text("kind")) else {
            // A CRD that went with its objects leaves their dependents behind.
            return if self.chores.is_gone(text("uid"), dependent) { Owner::Absent } else { Owner::Unknown };
        };
        // A cluster-scoped object cannot be owned from inside a namespace: nobody knows which one is meant.
        if served.namespaced && !dependent.namespaced {
            return Owner::Unknown;
        }
        let namespace = if served.namespaced { record.name().namespace.clone() } else { "".into() };
        match self.store.get(&served.table, &ObjectName::new(namespace, text("name"))) {
            Some(owner) if owner.uid() == text("uid") => {
                let waits = owner.is_deleting() && has_finalizer(&owner.value(), FOREGROUND);
                if waits { Owner::Waiting } else { Owner::Solid }
            }
            _ => Owner::Absent,
        }
    }
}

fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|list| list.iter().any(|one| one == finalizer))
}

fn blocks(object: &Value, owner: &str) -> bool {
    let references = object["metadata"]["ownerReferences"].as_array();
    references.into_iter().flatten().any(|one| one["uid"] == owner && one["blockOwnerDeletion"] == true)
}

fn drop_references(object: &mut Value, uids: &[String]) {
    if let Some(references) = object["metadata"]["ownerReferences"].as_array_mut() {
        references.retain(|one| !uids.iter().any(|uid| one["uid"] == uid.as_str()));
        if references.is_empty()
            && let Some(metadata) = object["metadata"].as_object_mut()
        {
            metadata.remove("ownerReferences");
        }
    }
}
