//! The placement of one group on one Destination: as it should be, and how an existing one gets there.

use std::collections::BTreeMap;
use std::sync::Arc;

use kratix_api::destination::FilepathMode;
use kratix_api::{
    Destination, ObjectMeta, OwnerReference, Work, WorkPlacement, WorkPlacementSpec, WorkloadGroup, keys, name,
};
use kube_core::ResourceExt;
use serde_json::{Map, Value, json};

use super::selector::{LABEL_BYTES_MAX, is_label_value, is_subdomain};
use super::{Snapshot, is_request};
use crate::object::{Kind, ObjectKey, Target};
use crate::patch;
use crate::plan::{Event, Reporter, Write};
use crate::trace;
use crate::work_placement::{DIRECTORY_NAMESPACE, OWN_ANNOTATIONS, STORE_LOCATION, apart, pipeline, site};

/// How many characters of a group id are part of names and directories.
pub(super) const ID_PREFIX: usize = 5;
/// Longest name of an object.
const NAME_BYTES_MAX: usize = 253;
/// Written by `kubectl apply`; it repeats the whole Work and means nothing on another object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Generation of an object that has just been made.
const FIRST_GENERATION: i64 = 1;

/// A placement as it should be.
pub(super) struct Placement<'a> {
    pub(super) work: &'a Arc<Work>,
    pub(super) group: &'a WorkloadGroup,
    pub(super) destination: &'a str,
    pub(super) object: Option<&'a Destination>,
    pub(super) is_misplaced: bool,
}

/// What an existing placement needs.
pub(super) struct Aligned {
    pub(super) write: Option<Write>,
    /// The documents are other ones, or are to be written again.
    pub(super) changes_content: bool,
    /// The event that tells of a Destination which has just stopped matching.
    pub(super) mismatch: Option<Event>,
}

/// Finds out early what would make an impossible label or name.
pub(super) fn check_group(work: &Work, group: &WorkloadGroup) -> Result<(), String> {
    let id = &group.id;
    if id.len() < ID_PREFIX {
        return Err(format!("group id {id:?} is shorter than five characters"));
    }
    if !id.is_ascii() || !is_label_value(id) || !is_subdomain(&id[..ID_PREFIX]) {
        return Err(format!("group id {id:?} cannot be part of a name"));
    }
    let work = work.name_any();
    if work.len() > LABEL_BYTES_MAX {
        return Err(format!(
            "the name of work {work:?} is longer than {LABEL_BYTES_MAX} characters, so no label can hold it"
        ));
    }
    Ok(())
}

impl Placement<'_> {
    pub(super) fn name(&self) -> String {
        name::work_placement(&self.work.name_any(), self.destination, &self.group.id)
    }

    pub(super) fn key(&self) -> ObjectKey {
        ObjectKey { namespace: self.work.namespace(), name: self.name() }
    }

    /// Returns the write that makes the placement.
    pub(super) fn create(&self, snapshot: &Snapshot) -> Result<Write, String> {
        self.check_destination()?;
        let name = self.name();
        if let Some(other) = snapshot.placement(&name) {
            // Its labels say that it is of another group or Destination; waiting for its end is not ours to decide.
            return Err(format!("workplacement {} is in the way", ObjectKey::of(&**other)));
        }
        let mut annotations = self.annotations();
        annotations.extend(trace::handed_over(&self.work.metadata, Some(FIRST_GENERATION)));
        if let Some(namespace) = self.directory_namespace(snapshot) {
            annotations.insert(DIRECTORY_NAMESPACE.to_owned(), namespace);
        }
        let mut finalizers = vec![keys::FINALIZER_REPO_CLEANUP.to_owned()];
        if self.object.is_some_and(|destination| destination.spec.filepath.mode == FilepathMode::None) {
            finalizers.push(keys::FINALIZER_DOT_FILES_CLEANUP.to_owned());
        }
        let mut placement = WorkPlacement {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: self.work.namespace(),
                labels: Some(self.labels()),
                annotations: Some(annotations),
                finalizers: Some(finalizers),
                owner_references: Some(vec![self.owner()]),
                ..ObjectMeta::default()
            },
            spec: self.spec(&WorkPlacementSpec::default()),
            status: None,
        };
        let site = self.site(snapshot, &placement);
        placement.annotations_mut().extend(site.map(|site| (STORE_LOCATION.to_owned(), site)));
        placement.metadata.annotations = placement.metadata.annotations.filter(|annotations| !annotations.is_empty());
        Ok(Write::create(Kind::of::<WorkPlacement>(), patch::to_value(&placement)))
    }

    /// Returns what brings an existing placement in line. Labels and annotations of users stay.
    pub(super) fn align(&self, snapshot: &Snapshot, existing: &WorkPlacement) -> Result<Aligned, String> {
        self.check_destination()?;
        let mut metadata = Map::new();
        let mut target = Target::of(existing).unpinned();
        if let Some(owners) = self.owners(existing)? {
            metadata.insert("ownerReferences".into(), patch::to_value(&owners));
            target = Target::of(existing); // the list is replaced whole
        }
        let mut labels = missing(&self.labels(), existing.labels());
        let was_misplaced = existing.labels().contains_key(keys::MISPLACED);
        if was_misplaced && !self.is_misplaced {
            labels.insert(keys::MISPLACED.into(), Value::Null);
        }
        if !labels.is_empty() {
            metadata.insert("labels".into(), Value::Object(labels));
        }
        let mut annotations = missing(&self.annotations(), existing.annotations());
        // One of the original: what its status says is about where it is now.
        if !existing.annotations().contains_key(STORE_LOCATION)
            && let Some(site) = self.site(snapshot, existing)
        {
            annotations.insert(STORE_LOCATION.into(), json!(site));
        }
        let spec = patch::between_typed(&existing.spec, &self.spec(&existing.spec));
        let changes_content = spec.is_some();
        // A trace alone is no reason to write.
        if changes_content || !metadata.is_empty() || !annotations.is_empty() {
            annotations.extend(self.trace(existing, changes_content));
        }
        if !annotations.is_empty() {
            metadata.insert("annotations".into(), Value::Object(annotations));
        }
        let mut changes = Map::new();
        if !metadata.is_empty() {
            changes.insert("metadata".into(), Value::Object(metadata));
        }
        if let Some(spec) = spec {
            changes.insert("spec".into(), spec);
        }
        let mismatch = (self.is_misplaced && !was_misplaced).then(|| self.mismatch(existing));
        let write = (!changes.is_empty()).then_some(Write::Patch { target, patch: Value::Object(changes) });
        Ok(Aligned { write, changes_content, mismatch })
    }

    /// Returns where the placement's content is about to be.
    fn site(&self, snapshot: &Snapshot, placement: &WorkPlacement) -> Option<String> {
        let destination = self.object?;
        let store = destination.spec.state_store_ref.as_ref()?;
        site(placement, destination, snapshot.places.get(store).map_or("", String::as_str))
    }

    fn mismatch(&self, existing: &WorkPlacement) -> Event {
        let cause = match self.object {
            Some(_) => format!("labels for destination: {} no longer match the expected labels", self.destination),
            None => format!("destination: {} does not exist any more", self.destination),
        };
        let note = format!("{cause}, marking this workplacement as misplaced");
        Event::warning(Reporter::Scheduler, Target::of(existing), "DestinationSelectorMismatch", note)
    }

    fn check_destination(&self) -> Result<(), String> {
        if self.destination.len() > LABEL_BYTES_MAX {
            let name = self.destination;
            return Err(format!(
                "the name of destination {name:?} is longer than {LABEL_BYTES_MAX} characters, so no label can hold it"
            ));
        }
        let name = self.name();
        if name.len() > NAME_BYTES_MAX {
            return Err(format!("the name of workplacement {name:?} is longer than {NAME_BYTES_MAX} characters"));
        }
        Ok(())
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let work = self.work;
        let copied = |key: &str| work.labels().get(key).cloned();
        let mut labels: BTreeMap<String, String> = [
            (keys::WORK, work.name_any()),
            (keys::WORKLOAD_GROUP_ID, self.group.id.clone()),
            (keys::TARGET_DESTINATION_NAME, self.destination.to_owned()),
            (keys::PIPELINE_NAME, copied(keys::PIPELINE_NAME).unwrap_or_default()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        let named = |key: &str, name: &str| {
            copied(key).or_else(|| (!name.is_empty() && is_label_value(name)).then(|| name.to_owned()))
        };
        let namespace = work.metadata.namespace.as_deref().filter(|_| is_request(work)).unwrap_or_default();
        for (key, value) in [
            (keys::PROMISE_NAME, named(keys::PROMISE_NAME, &work.spec.promise_name)),
            (keys::RESOURCE_NAME, named(keys::RESOURCE_NAME, &work.spec.resource_name)),
            (keys::RESOURCE_NAMESPACE, named(keys::RESOURCE_NAMESPACE, namespace)),
            (keys::WORK_TYPE, copied(keys::WORK_TYPE)),
            (keys::MISPLACED, self.is_misplaced.then(|| keys::TRUE.to_owned())),
        ] {
            labels.extend(value.map(|value| (key.to_owned(), value)));
        }
        labels
    }

    /// The annotations of the Work but its trace, and but those by which a placement knows its own files: whoever may annotate a
    /// Work could name those of somebody else.
    fn annotations(&self) -> BTreeMap<String, String> {
        let is_own = |key: &str| OWN_ANNOTATIONS.contains(&key) || trace::KEYS.contains(&key);
        let is_copied = |key: &str| key != LAST_APPLIED && !is_own(key);
        let copied = self.work.annotations().iter().filter(|(key, _)| is_copied(key));
        copied.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Returns what makes an existing placement part of the Work's trace. One that has a trace keeps it, unless the same
    /// write gives it another generation: its own trace would be over then, and the next one should be the Work's.
    fn trace(&self, existing: &WorkPlacement, changes_content: bool) -> Map<String, Value> {
        let has_own = existing.annotations().get(keys::TRACE_PARENT).is_some_and(|parent| !parent.is_empty());
        let generation = existing.metadata.generation.map(|present| present + i64::from(changes_content));
        let handed_over = trace::handed_over(&self.work.metadata, generation);
        if handed_over.is_empty() || (has_own && !changes_content) {
            return Map::new();
        }
        let stale = trace::KEYS.iter().filter(|key| existing.annotations().contains_key(**key));
        let stale = stale.map(|key| ((*key).to_owned(), Value::Null));
        let mut changes: Map<String, Value> = stale.collect();
        changes.extend(handed_over.into_iter().map(|(key, value)| (key, json!(value))));
        changes
    }

    fn spec(&self, existing: &WorkPlacementSpec) -> WorkPlacementSpec {
        WorkPlacementSpec {
            target_destination_name: self.destination.to_owned(),
            workloads: self.group.workloads.clone(),
            promise_name: self.work.spec.promise_name.clone(),
            resource_name: self.work.spec.resource_name.clone(),
            id: self.group.id.clone(),
            generation: self.work.metadata.generation.or(existing.generation),
        }
    }

    fn owner(&self) -> OwnerReference {
        OwnerReference {
            api_version: keys::API_VERSION.to_owned(),
            kind: Work::KIND.to_owned(),
            name: self.work.name_any(),
            uid: self.work.uid().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }

    /// Returns the owners that `existing` should have, `None` if it has them.
    fn owners(&self, existing: &WorkPlacement) -> Result<Option<Vec<OwnerReference>>, String> {
        let owner = self.owner();
        let owners = existing.owner_references();
        if let Some(other) = owners.iter().find(|other| other.controller == Some(true) && other.uid != owner.uid) {
            let placement = ObjectKey::of(existing);
            return Err(format!(
                "workplacement {placement} belongs to {} {} (uid {})",
                other.kind, other.name, other.uid
            ));
        }
        let is_owned = owners.iter().any(|other| other.uid == owner.uid && other.controller == Some(true));
        let others = owners.iter().filter(|other| other.uid != owner.uid).cloned();
        Ok((!is_owned).then(|| others.chain([owner.clone()]).collect()))
    }

    /// Returns the namespace that stands in the directory instead of the placement's own: a request whose namesake of
    /// another namespace already has the directory gets one of its own, once and for all.
    fn directory_namespace(&self, snapshot: &Snapshot) -> Option<String> {
        if !is_request(self.work) {
            return None;
        }
        let labels = self.labels();
        let own = labels.get(keys::RESOURCE_NAMESPACE)?;
        let is_namesake = |other: &&Arc<WorkPlacement>| {
            let spec = &other.spec;
            other.metadata.namespace == self.work.metadata.namespace
                && other.labels().get(keys::WORK) != labels.get(keys::WORK)
                && other.labels().get(keys::RESOURCE_NAMESPACE) != Some(own)
                && spec.promise_name == self.work.spec.promise_name
                && spec.resource_name == self.work.spec.resource_name
                && spec.target_destination_name == self.destination
                && spec.id.get(..ID_PREFIX) == self.group.id.get(..ID_PREFIX)
                && Some(pipeline(other)) == labels.get(keys::PIPELINE_NAME).map(String::as_str)
                && !other.annotations().contains_key(DIRECTORY_NAMESPACE)
        };
        let is_taken = snapshot.neighbours.iter().any(|other| is_namesake(&other));
        is_taken.then(|| apart(own, self.work.metadata.namespace.as_deref()))
    }
}

/// Returns the members of `wanted` that `found` lacks or has otherwise.
fn missing(wanted: &BTreeMap<String, String>, found: &BTreeMap<String, String>) -> Map<String, Value> {
    let differs = |(key, value): &(&String, &String)| found.get(*key) != Some(*value);
    wanted.iter().filter(differs).map(|(key, value)| (key.clone(), json!(value))).collect()
}
