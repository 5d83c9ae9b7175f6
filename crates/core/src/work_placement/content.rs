//! What is written for a placement.

use std::sync::Arc;

use kratix_api::{Destination, WorkPlacement, Workload, compression};
use kube_core::ResourceExt;

use super::Snapshot;
use super::location::{Location, clean, is_reserved};
use crate::destination;
use crate::object::ObjectKey;
use crate::state_store::{About, Change, ChangeKind, Failure, File, Operation};

/// How much content a placement carries when decompressed; a store takes no more in one change.
pub const CONTENT_BYTES_MAX: usize = 64 << 20;

/// Between the documents of an aggregate.
const SEPARATOR: &[u8] = b"\n---\n";

/// Returns the change that brings the placement's content into the store.
pub(super) fn update(snapshot: &Snapshot, destination: &Destination, location: &Location) -> Result<Change, Failure> {
    let placement = &snapshot.placement;
    match location {
        Location::Directory(directory) => {
            let files = files(&placement.spec.workloads)?;
            let kind = if files.is_empty() { ChangeKind::Delete } else { ChangeKind::Update };
            Ok(change(placement, kind, directory, Operation::Replace(files)))
        }
        Location::Shared { directory, ledger } => {
            let files = files(&placement.spec.workloads)?;
            if let Some(file) = files.iter().find(|file| is_reserved(&file.path)) {
                return Err(Failure::content(format!("path {:?} cannot be written: it belongs to Kratix", file.path)));
            }
            let canaries = destination::test_documents(destination);
            if let Some(file) = files.iter().find(|file| canaries.iter().any(|canary| canary.path == file.path)) {
                let owner = destination.name_any();
                let text = format!("path {:?} already belongs to the test documents of destination {owner}", file.path);
                return Err(Failure::content(text));
            }
            let operation = Operation::Share { ledger: ledger.clone(), files: Some(files) };
            Ok(change(placement, ChangeKind::Update, directory, operation))
        }
        Location::Aggregate { directory, file } => {
            let members = snapshot.members.iter().filter(|member| member.metadata.deletion_timestamp.is_none());
            let content = aggregate(members)?;
            Ok(aggregate_change(placement, directory, file, Some(content)))
        }
    }
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
            let content = if others.is_empty() { None } else { Some(aggregate(others.into_iter())?) };
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

/// Decompresses workloads into files; `..` that stays inside is resolved, what leads out is left for the store to refuse.
fn files(workloads: &[Workload]) -> Result<Vec<File>, Failure> {
    let mut rest = CONTENT_BYTES_MAX;
    workloads
        .iter()
        .map(|workload| {
            let content = decompress(workload, &mut rest)?;
            Ok(File { path: clean(&workload.filepath), content })
        })
        .collect()
}

/// Joins the documents of all members, in the order of their names.
fn aggregate<'a>(members: impl Iterator<Item = &'a Arc<WorkPlacement>>) -> Result<Vec<u8>, Failure> {
    let mut members: Vec<_> = members.collect();
    members.sort_by_key(|member| (member.name_any(), member.namespace()));
    let mut rest = CONTENT_BYTES_MAX;
    let mut all = Vec::new();
    let mut is_first = true;
    for member in members {
        for workload in &member.spec.workloads {
            let content = decompress(workload, &mut rest).map_err(|failure| Failure {
                message: format!("workplacement {}: {}", ObjectKey::of(&**member), failure.message),
                about: About::Aggregate,
                // The culprit may be another placement, whose change does not bring this one back.
                retry: true,
                retry_after: None,
            })?;
            if !is_first {
                all.extend_from_slice(SEPARATOR);
            }
            is_first = false;
            all.extend_from_slice(&content);
        }
    }
    Ok(all)
}

fn decompress(workload: &Workload, rest: &mut usize) -> Result<Vec<u8>, Failure> {
    let content = compression::decompress(&workload.content, *rest).map_err(|error| {
        let cause = match error {
            compression::Error::TooLarge { .. } => {
                format!("the files are larger than {CONTENT_BYTES_MAX} bytes together")
            }
            compression::Error::Base64(cause) => format!("content is not base64: {cause}"),
            compression::Error::Gzip(cause) => format!("content is not gzip: {cause}"),
            other => other.to_string(),
        };
        Failure::content(format!("unable to decompress file content: {}: {cause}", workload.filepath))
    })?;
    *rest -= content.len();
    Ok(content)
}
