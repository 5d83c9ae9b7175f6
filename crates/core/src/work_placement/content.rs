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

/// How much content a change carries at most that is made beside others: so many of them wait for a store together that all
/// must be small. What has more, or is in parts, waits for its [turn](Snapshot::has_turn) first; a few kilobytes of a Work may
/// stand for the most that is written. As it is stored it is no larger either.
pub const SMALL_BYTES_MAX: usize = 1 << 20;

/// What parts of one change may hold together as they are stored: more than enough for the most that is written.
const STORED_BYTES_MAX: usize = 2 * CONTENT_BYTES_MAX;

/// What was read of the parts that placements refer to; nothing for those that do not exist. Not all of them are there if they
/// are too [much](Room) together.
pub type Parts = BTreeMap<ObjectKey, Option<Arc<[Workload]>>>;

/// How much more may be held for one change, as it is stored. A reference says how large its part is, and any number of them may
/// lead to the same one; what counts is what is there.
#[derive(Debug)]
pub struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(STORED_BYTES_MAX)
    }
}

impl Room {
    /// Tells whether files fit, which then take their room.
    pub fn takes(&mut self, workloads: &[Workload]) -> bool {
        let rest = self.0.checked_sub(part::held_bytes(workloads));
        self.0 = rest.unwrap_or_default();
        rest.is_some()
    }
}

/// Why there is no change.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// It is large, and it is not its turn.
    Large,
    /// It cannot be written.
    Failure(Failure),
}

impl From<Failure> for Obstacle {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// Why documents of a placement are not had.
#[derive(Debug)]
enum Lack {
    /// They are large, and it is not their turn.
    Turn,
    /// One change has no room for them.
    Room,
    Failure(Failure),
}

impl Lack {
    /// Returns why there is no change. `excess` is what there is to say where there is no room.
    fn obstacle(self, excess: impl FnOnce() -> Failure) -> Obstacle {
        match self {
            Self::Turn => Obstacle::Large,
            Self::Room => Obstacle::Failure(excess()),
            Self::Failure(failure) => Obstacle::Failure(failure),
        }
    }
}

/// What a change is made from, and may still be made of.
struct Source<'a> {
    parts: &'a Parts,
    has_turn: bool,
    /// Content that may still be decompressed.
    rest: usize,
    room: Room,
}

impl<'a> Source<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let (rest, room) = match snapshot.has_turn {
            true => (CONTENT_BYTES_MAX, STORED_BYTES_MAX),
            false => (SMALL_BYTES_MAX, SMALL_BYTES_MAX),
        };
        Self { parts: &snapshot.parts, has_turn: snapshot.has_turn, rest, room: Room(room) }
    }

    /// Returns what there is to say of content for which there is no room.
    fn too_large(&self) -> Lack {
        if self.has_turn { Lack::Room } else { Lack::Turn }
    }
}

/// What to do about a path that is not the pipeline's to write.
const ANOTHER_NAME: &str = "give the file another name";
/// What to do about contents that somebody has altered.
const AGAIN: &str = "have the pipeline run again: set the label kratix.io/manual-reconciliation=true";

/// Between the documents of an aggregate.
const SEPARATOR: &[u8] = b"\n---\n";

/// Returns the change that brings the placement's content into the store.
pub(super) fn update(snapshot: &Snapshot, destination: &Destination, location: &Location) -> Result<Change, Obstacle> {
    let placement = &snapshot.placement;
    match location {
        Location::Directory(directory) => {
            let files = files(placement, Source::of(snapshot))?;
            let kind = if files.is_empty() { ChangeKind::Delete } else { ChangeKind::Update };
            Ok(change(placement, kind, directory, Operation::Replace(files)))
        }
        Location::Shared { directory, ledger } => {
            let files = files(placement, Source::of(snapshot))?;
            if let Some(file) = files.iter().find(|file| is_reserved(&file.path)) {
                let text = format!("path {:?} cannot be written: it belongs to Kratix", file.path);
                return Err(Failure::content(with_hint(&text, ANOTHER_NAME)).into());
            }
            files.iter().try_for_each(|file| check_canaries(destination, &file.path, ANOTHER_NAME))?;
            let operation = Operation::Share { ledger: ledger.clone(), files: Some(files) };
            Ok(change(placement, ChangeKind::Update, directory, operation))
        }
        Location::Aggregate { directory, file } => {
            check_canaries(destination, file, "set another spec.filepath.filename")?;
            let members = snapshot.members.iter().filter(|member| member.metadata.deletion_timestamp.is_none());
            let content = aggregate(&placement.spec.target_destination_name, members, Source::of(snapshot))?;
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
pub(super) fn removal(snapshot: &Snapshot, location: &Location) -> Result<Change, Obstacle> {
    let placement = &snapshot.placement;
    match location {
        Location::Directory(_) | Location::Shared { .. } => Ok(clearance(placement, location)),
        Location::Aggregate { directory, file } => {
            let others: Vec<&Arc<WorkPlacement>> = snapshot
                .members
                .iter()
                .filter(|member| member.metadata.deletion_timestamp.is_none() && !is_same(member, placement))
                .collect();
            let (is_last, destination) = (others.is_empty(), &placement.spec.target_destination_name);
            let content =
                if is_last { None } else { Some(aggregate(destination, others.into_iter(), Source::of(snapshot))?) };
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

/// Returns the documents of a placement. Parts are read when it is its turn, all that there is room for.
fn documents<'a>(placement: &'a WorkPlacement, source: &mut Source<'a>) -> Result<Vec<Document<'a>>, Lack> {
    let workloads = &placement.spec.workloads;
    check_stored([placement].into_iter())?;
    if !source.room.takes(workloads) {
        return Err(source.too_large());
    }
    part::documents(workloads, |reference| {
        let key = ObjectKey { namespace: placement.namespace(), name: reference.name.clone() };
        let cause = match source.parts.get(&key) {
            None => return Err(source.too_large()),
            // Each time that it is referred to.
            Some(Some(found)) if !source.room.takes(found) => return Err(source.too_large()),
            Some(Some(found)) if reference.describes(found) => return Ok(&found[..]),
            Some(Some(_)) => "was altered",
            Some(None) => "does not exist",
        };
        let text = format!("work {key} with a part of the files {cause}: the pipeline has to run again");
        // It may be on its way back, which nothing here tells.
        Err(Lack::Failure(Failure { retry: true, ..Failure::content(text) }))
    })
}

/// Refuses before it is read what cannot be written.
fn check_stored<'a>(placements: impl Iterator<Item = &'a WorkPlacement>) -> Result<(), Lack> {
    let references = placements.flat_map(|placement| placement.spec.workloads.iter().filter_map(Reference::of));
    let stored = references.fold(0, |sum: u64, reference| sum.saturating_add(reference.bytes));
    if stored > STORED_BYTES_MAX as u64 { Err(Lack::Room) } else { Ok(()) }
}

fn too_large() -> Failure {
    let text = format!("the files are larger than {CONTENT_BYTES_MAX} bytes together");
    Failure::content(with_hint(&text, "let the pipeline write less"))
}

/// As [`too_large`], where all that a Destination gets is one file: nobody's pipeline is to blame.
fn too_large_together(destination: &str) -> Failure {
    let text = format!(
        "all documents of destination {destination} together are larger than {CONTENT_BYTES_MAX} bytes, the most that one file takes"
    );
    let hint = "place some of them on another Destination, or all on one with another spec.filepath.mode";
    // Any of the placements may become smaller or go.
    Failure { about: About::Aggregate, retry: true, ..Failure::content(with_hint(&text, hint)) }
}

/// Decompresses documents into files; `..` that stays inside is resolved, what leads out is left for the store to refuse.
fn files<'a>(placement: &'a WorkPlacement, mut source: Source<'a>) -> Result<Vec<File>, Obstacle> {
    let documents = documents(placement, &mut source).map_err(|lack| lack.obstacle(too_large))?;
    let files = documents.iter().map(|document| {
        let content = decompress(document, &mut source).map_err(|lack| lack.obstacle(too_large))?;
        Ok(File { path: clean(document.filepath), content })
    });
    files.collect()
}

/// Joins the documents of all members of a Destination, in the order of their names.
fn aggregate<'a>(
    destination: &str,
    members: impl Iterator<Item = &'a Arc<WorkPlacement>>,
    mut source: Source<'a>,
) -> Result<Vec<u8>, Obstacle> {
    let mut members: Vec<_> = members.collect();
    members.sort_by_key(|member| (member.name_any(), member.namespace()));
    let too_large = || too_large_together(destination);
    check_stored(members.iter().map(|member| &***member)).map_err(|lack| lack.obstacle(too_large))?;
    let mut all = Vec::new();
    let mut is_first = true;
    for member in members {
        let of_member = |lack: Lack| match lack {
            Lack::Failure(failure) => Obstacle::Failure(Failure {
                message: format!("workplacement {}: {}", ObjectKey::of(&**member), failure.message),
                about: About::Aggregate,
                // The culprit may be another placement, whose change does not bring this one back.
                retry: true,
                retry_after: None,
            }),
            lack => lack.obstacle(too_large),
        };
        for document in documents(member, &mut source).map_err(of_member)? {
            let content = decompress(&document, &mut source).map_err(of_member)?;
            if !is_first {
                all.extend_from_slice(SEPARATOR);
            }
            is_first = false;
            all.extend_from_slice(&content);
        }
    }
    Ok(all)
}

fn decompress(document: &Document<'_>, source: &mut Source<'_>) -> Result<Vec<u8>, Lack> {
    let content = compression::decompress_pieces(&document.pieces, source.rest).map_err(|error| {
        let cause = match error {
            compression::Error::TooLarge { .. } => return source.too_large(),
            compression::Error::Base64(cause) => with_hint(&format!("content is not base64: {cause}"), AGAIN),
            compression::Error::Gzip(cause) => with_hint(&format!("content is not gzip: {cause}"), AGAIN),
            other => other.to_string(),
        };
        Lack::Failure(Failure::content(format!("unable to decompress file content: {}: {cause}", document.filepath)))
    })?;
    source.rest -= content.len();
    Ok(content)
}
