//! What is written for a placement.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kratix_api::part::{self, Document, Reference};
use kratix_api::{Destination, WorkPlacement, Workload, compression};
use kube_core::ResourceExt;

use super::Snapshot;
use super::location::{Location, clean, is_reserved};
use crate::destination;
use crate::object::ObjectKey;
use crate::state_store::{About, Change, ChangeKind, Failure, File, Operation, with_hint};

/// How much content a placement carries when decompressed; a store takes no more in one change.
pub const CONTENT_BYTES_MAX: usize = 64 << 20;

/// What parts of one change may hold together as they are stored: more than enough for the most that is written.
const STORED_BYTES_MAX: u64 = 2 * CONTENT_BYTES_MAX as u64;

/// What was read of the parts that placements refer to; nothing for those that do not exist.
pub type Parts = BTreeMap<ObjectKey, Option<Arc<[Workload]>>>;

/// What to do about a path that is not the pipeline's to write.
const ANOTHER_NAME: &str = "give the file another name";
/// What to do about contents that somebody has altered.
const AGAIN: &str = "have the pipeline run again: set the label kratix.io/manual-reconciliation=true";

/// Between the documents of an aggregate.
const SEPARATOR: &[u8] = b"\n---\n";

/// Returns the change that brings the placement's content into the store.
pub(super) fn update(snapshot: &Snapshot, destination: &Destination, location: &Location) -> Result<Change, Failure> {
    let placement = &snapshot.placement;
    match location {
        Location::Directory(directory) => {
            let files = files(placement, &snapshot.parts)?;
            let kind = if files.is_empty() { ChangeKind::Delete } else { ChangeKind::Update };
            Ok(change(placement, kind, directory, Operation::Replace(files)))
        }
        Location::Shared { directory, ledger } => {
            let files = files(placement, &snapshot.parts)?;
            if let Some(file) = files.iter().find(|file| is_reserved(&file.path)) {
                let text = format!("path {:?} cannot be written: it belongs to Kratix", file.path);
                return Err(Failure::content(with_hint(&text, ANOTHER_NAME)));
            }
            files.iter().try_for_each(|file| check_canaries(destination, &file.path, ANOTHER_NAME))?;
            let operation = Operation::Share { ledger: ledger.clone(), files: Some(files) };
            Ok(change(placement, ChangeKind::Update, directory, operation))
        }
        Location::Aggregate { directory, file } => {
            check_canaries(destination, file, "set another spec.filepath.filename")?;
            let members = snapshot.members.iter().filter(|member| member.metadata.deletion_timestamp.is_none());
            let content = aggregate(members, &snapshot.parts)?;
            Ok(aggregate_change(placement, directory, file, Some(content)))
        }
    }
}

/// Refuses a path that is a test document's.
fn check_canaries(destination: &Destination, path: &str, hint: &str) -> Result<(), Failure> {
    if destination::test_documents(destination).iter().all(|canary| canary.path != path) {
        return Ok(());
    }
    let owner = destination.name_any();
    let text = format!("path {path:?} already belongs to the test documents of destination {owner}");
    Err(Failure::content(with_hint(&text, hint)))
}

/// Returns the change that removes what the placement has in the store.
pub(super) fn removal(snapshot: &Snapshot, location: &Location) -> Result<Change, Failure> {
    let placement = &snapshot.placement;
    match location {
        Location::Directory(_) | Location::Shared { .. } => Ok(clearance(placement, location)),
        Location::Aggregate { directory, file } => {
            let others: Vec<&Arc<WorkPlacement>> = snapshot
                .members
                .iter()
                .filter(|member| member.metadata.deletion_timestamp.is_none() && !is_same(member, placement))
                .collect();
            let content = if others.is_empty() { None } else { Some(aggregate(others.into_iter(), &snapshot.parts)?) };
            Ok(aggregate_change(placement, directory, file, content))
        }
    }
}

/// Returns the change that removes what the placement has, or had, at a location that is no longer its own.
pub(super) fn clearance(placement: &WorkPlacement, location: &Location) -> Change {
    match location {
        Location::Directory(directory) => {
            change(placement, ChangeKind::Delete, directory, Operation::Replace(Vec::new()))
        }
        Location::Shared { directory, ledger } => {
            let operation = Operation::Share { ledger: ledger.clone(), files: None };
            change(placement, ChangeKind::Delete, directory, operation)
        }
        Location::Aggregate { directory, file } => aggregate_change(placement, directory, file, None),
    }
}

fn is_same(one: &WorkPlacement, other: &WorkPlacement) -> bool {
    one.metadata.name == other.metadata.name && one.metadata.namespace == other.metadata.namespace
}

fn change(placement: &WorkPlacement, kind: ChangeKind, directory: &str, operation: Operation) -> Change {
    Change { id: placement.name_any(), kind, prefix: directory.to_owned(), operation }
}

fn aggregate_change(placement: &WorkPlacement, directory: &str, file: &str, content: Option<Vec<u8>>) -> Change {
    let kind = if content.is_some() { ChangeKind::Update } else { ChangeKind::Delete };
    let operation = match content {
        Some(content) => Operation::Edit { write: vec![File { path: file.to_owned(), content }], remove: Vec::new() },
        None => Operation::Edit { write: Vec::new(), remove: vec![file.to_owned()] },
    };
    change(placement, kind, directory, operation)
}

/// Returns the parts that a change of the placement's store needs and that were not read yet.
pub(super) fn unread(snapshot: &Snapshot, location: &Location) -> BTreeSet<ObjectKey> {
    let own = [&snapshot.placement];
    let concerned: Vec<&Arc<WorkPlacement>> = match location {
        Location::Aggregate { .. } => snapshot.members.iter().collect(),
        Location::Directory(_) | Location::Shared { .. } => own.into(),
    };
    let alive = concerned.into_iter().filter(|placement| placement.metadata.deletion_timestamp.is_none());
    let needed = alive.flat_map(|placement| {
        let references = placement.spec.workloads.iter().filter_map(Reference::of);
        references.map(|reference| ObjectKey { namespace: placement.namespace(), name: reference.name })
    });
    needed.filter(|part| !snapshot.parts.contains_key(part)).collect()
}

/// Returns the documents of a placement. Parts that were not read yet have none: they are asked for after the decision.
fn documents<'a>(placement: &'a WorkPlacement, parts: &'a Parts) -> Result<Vec<Document<'a>>, Failure> {
    let workloads = &placement.spec.workloads;
    check_stored([placement].into_iter())?;
    part::documents(workloads, |reference| {
        let key = ObjectKey { namespace: placement.namespace(), name: reference.name.clone() };
        let cause = match parts.get(&key) {
            None => return Ok(&[][..]),
            Some(Some(found)) if reference.describes(found) => return Ok(found),
            Some(Some(_)) => "was altered",
            Some(None) => "does not exist",
        };
        let text = format!("work {key} with a part of the files {cause}: the pipeline has to run again");
        // It may be on its way back, which nothing here tells.
        Err(Failure { retry: true, ..Failure::content(text) })
    })
}

/// Refuses before it is read what cannot be written.
fn check_stored<'a>(placements: impl Iterator<Item = &'a WorkPlacement>) -> Result<(), Failure> {
    let references = placements.flat_map(|placement| placement.spec.workloads.iter().filter_map(Reference::of));
    let stored = references.fold(0, |sum: u64, reference| sum.saturating_add(reference.bytes));
    if stored > STORED_BYTES_MAX { Err(Failure::content(too_large())) } else { Ok(()) }
}

fn too_large() -> String {
    with_hint(&format!("the files are larger than {CONTENT_BYTES_MAX} bytes together"), "let the pipeline write less")
}

/// Decompresses documents into files; `..` that stays inside is resolved, what leads out is left for the store to refuse.
fn files(placement: &WorkPlacement, parts: &Parts) -> Result<Vec<File>, Failure> {
    let mut rest = CONTENT_BYTES_MAX;
    let documents = documents(placement, parts)?;
    let files = documents.iter().map(|document| {
        let content = decompress(document, &mut rest)?;
        Ok(File { path: clean(document.filepath), content })
    });
    files.collect()
}

/// Joins the documents of all members, in the order of their names.
fn aggregate<'a>(members: impl Iterator<Item = &'a Arc<WorkPlacement>>, parts: &Parts) -> Result<Vec<u8>, Failure> {
    let mut members: Vec<_> = members.collect();
    members.sort_by_key(|member| (member.name_any(), member.namespace()));
    check_stored(members.iter().map(|member| &***member)).map_err(|failure| Failure {
        about: About::Aggregate,
        retry: true,
        ..failure
    })?;
    let mut rest = CONTENT_BYTES_MAX;
    let mut all = Vec::new();
    let mut is_first = true;
    for member in members {
        let of_member = |failure: Failure| Failure {
            message: format!("workplacement {}: {}", ObjectKey::of(&**member), failure.message),
            about: About::Aggregate,
            // The culprit may be another placement, whose change does not bring this one back.
            retry: true,
            retry_after: None,
        };
        for document in documents(member, parts).map_err(of_member)? {
            let content = decompress(&document, &mut rest).map_err(of_member)?;
            if !is_first {
                all.extend_from_slice(SEPARATOR);
            }
            is_first = false;
            all.extend_from_slice(&content);
        }
    }
    Ok(all)
}

fn decompress(document: &Document<'_>, rest: &mut usize) -> Result<Vec<u8>, Failure> {
    let content = compression::decompress_pieces(&document.pieces, *rest).map_err(|error| {
        let cause = match error {
            compression::Error::TooLarge { .. } => too_large(),
            compression::Error::Base64(cause) => with_hint(&format!("content is not base64: {cause}"), AGAIN),
            compression::Error::Gzip(cause) => with_hint(&format!("content is not gzip: {cause}"), AGAIN),
            other => other.to_string(),
        };
        Failure::content(format!("unable to decompress file content: {}: {cause}", document.filepath))
    })?;
    *rest -= content.len();
    Ok(content)
}
