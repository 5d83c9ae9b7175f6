//! Destination: the name of its one file is filled in, and its directory must be its own.
//!
//! # Source
//! `01-api.md` §7.5, §9.3 (5, 6)

use std::collections::BTreeMap;

use kratix_api::destination::{AGGREGATED_FILENAME, DestinationSpec, FilepathMode, StateStoreKind, StateStoreRef};
use kratix_api::{BucketStateStore, Destination, GitStateStore};
use kratix_store_path::Path;
use kube_core::ResourceExt;
use serde_json::Value;

use super::question::{existing, list};
use super::{Allowed, Denial, Operation, Ruling, Snapshot};
use crate::destination::test_documents;
use crate::object::ObjectKey;
use crate::state_store::{File, display};
use crate::work_placement::{clean, is_below, join};

const MUTATING: &str = "mdestination.kb.io";
const VALIDATING: &str = "vdestination.kb.io";

pub(super) fn rule(snapshot: &Snapshot) -> Ruling<Allowed> {
    let review = &snapshot.review;
    if review.operation == Operation::Delete {
        return Ok(Allowed::default());
    }
    let destination: Destination = review.read(MUTATING)?;
    let object = with_filename(&destination.spec, &review.object);
    let warnings = if review.is_about_spec() { warnings(snapshot, &destination)? } else { Vec::new() };
    Ok(Allowed { object, warnings })
}

/// Returns the object with the name of its file, if that is missing.
fn with_filename(spec: &DestinationSpec, object: &Value) -> Option<Value> {
    if spec.filepath.mode != FilepathMode::AggregatedYaml || !spec.filepath.filename.is_empty() {
        return None;
    }
    let mut object = object.clone();
    object.pointer_mut("/spec/filepath")?.as_object_mut()?.insert("filename".into(), AGGREGATED_FILENAME.into());
    Some(object)
}

/// Checks the rules; what breaks none but is worth knowing is returned.
fn warnings(snapshot: &Snapshot, destination: &Destination) -> Ruling<Vec<String>> {
    let spec = &destination.spec;
    if spec.path.is_empty() {
        return Err(Denial::rule(VALIDATING, "path field is required").into());
    }
    let directory = join(&[&spec.path]);
    if directory == ".." || is_below(&directory, "..") {
        let message = format!("destination path '{}' leads out of the state store", spec.path);
        return Err(Denial::rule(VALIDATING, message).into());
    }
    // What cannot be written cannot be removed either.
    if let Err(reason) = Path::parse_directory(&directory) {
        let message = format!("destination path '{}' cannot be written to a state store: {reason}", spec.path);
        return Err(Denial::rule(VALIDATING, message).into());
    }
    check_single_file(destination)?;
    let Some(reference) = &spec.state_store_ref else {
        return Err(Denial::rule(VALIDATING, "stateStoreRef field is required").into());
    };
    let mut warnings = Vec::new();
    if !has_store(snapshot, reference)? {
        let StateStoreRef { kind, name } = reference;
        warnings.push(format!("Warning: referenced {kind} {name:?} does not exist"));
    }
    warnings.extend(neighbours(snapshot, reference, &spec.path)?);
    warnings.extend(move_warning(snapshot, spec));
    Ok(warnings)
}

/// Checks the name of the one file of a Destination whose placements share one.
fn check_single_file(destination: &Destination) -> Result<(), Denial> {
    let name = &destination.spec.filepath.filename;
    if destination.spec.filepath.mode != FilepathMode::AggregatedYaml || name.is_empty() {
        return Ok(());
    }
    let refuse = |why: String| Denial::rule(VALIDATING, format!("destination filepath.filename '{name}' {why}"));
    let path = Path::parse_file(&clean(name))
        .map_err(|reason| refuse(format!("cannot be written to a state store: {reason}")))?;
    let is_it = |document: &File| Path::parse_file(&document.path).is_ok_and(|it| it.folded() == path.folded());
    match test_documents(destination).iter().find(|document| is_it(document)) {
        Some(document) => Err(refuse(format!("is the test document {}; choose another name", document.path))),
        None => Ok(()),
    }
}

fn has_store(snapshot: &Snapshot, reference: &StateStoreRef) -> Ruling<bool> {
    let key = ObjectKey::cluster(&reference.name);
    let question = match &reference.kind {
        StateStoreKind::BucketStateStore => existing::<BucketStateStore>(key),
        StateStoreKind::GitStateStore => existing::<GitStateStore>(key),
        StateStoreKind::Other(_) => return Ok(true), // refused by the schema, so there is nothing to warn of
    };
    let Some(question) = question else { return Ok(false) };
    // As a value: one that cannot be read is there nevertheless.
    match snapshot.object(question)? {
        Ok(_) => Ok(true),
        Err(refusal) if refusal.is_not_found() => Ok(false),
        Err(refusal) => {
            let context = format!("failed to get state store {}", display(Some(reference)));
            Err(Denial::refused(VALIDATING, &context, &refusal).into())
        }
    }
}

/// Refuses the directory of another Destination in the same store, and warns of one above or below.
fn neighbours(snapshot: &Snapshot, reference: &StateStoreRef, path: &str) -> Ruling<Vec<String>> {
    snapshot.know([list::<Destination>(BTreeMap::new())])?;
    let mut others = snapshot
        .list::<Destination>(BTreeMap::new())?
        .map_err(|refusal| Denial::refused(VALIDATING, "failed to list destinations", &refusal))?;
    others.retain(|other| {
        other.name_any() != snapshot.review.name && other.spec.state_store_ref.as_ref() == Some(reference)
    });
    others.sort_by_key(ResourceExt::name_any);
    let directory = join(&[path]);
    let mut warnings = Vec::new();
    for other in &others {
        let (name, other_path) = (other.name_any(), &other.spec.path);
        let other_directory = join(&[other_path]);
        if other_directory == directory {
            let mut message = format!("destination path '{path}' already exists for state store '{}'", reference.name);
            if path != other_path {
                message
                    .push_str(&format!(": it is the directory of Destination '{name}', whose path is '{other_path}'"));
            }
            return Err(Denial::rule(VALIDATING, message).into());
        }
        let (inner, outer) = (contains(&other_directory, &directory), contains(&directory, &other_directory));
        if inner || outer {
            let place = if inner { "inside" } else { "around" };
            warnings.push(format!(
                "destination path '{path}' lies {place} the path '{other_path}' of Destination '{name}' in state \
                 store '{}'",
                reference.name
            ));
        }
    }
    Ok(warnings)
}

/// Tells whether the directory `inner` lies in the directory `outer`.
fn contains(outer: &str, inner: &str) -> bool {
    outer.is_empty() || is_below(inner, outer)
}

/// Tells what becomes of the files where a Destination was before.
fn move_warning(snapshot: &Snapshot, spec: &DestinationSpec) -> Option<String> {
    let before: DestinationSpec = snapshot.review.read_old("/spec")?;
    let store = before.state_store_ref.as_ref()?;
    if before.state_store_ref == spec.state_store_ref && join(&[&before.path]) == join(&[&spec.path]) {
        return None;
    }
    Some(format!(
        "files that were written to path '{}' of {} are removed there once they are at the new place; an event FilesLeftBehind \
         tells of what cannot be removed",
        before.path,
        display(Some(store))
    ))
}
