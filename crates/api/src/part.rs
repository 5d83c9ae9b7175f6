//! Parts: the files of a Work that one object cannot hold, in further Works beside it.
//!
//! A part is a Work of the same namespace with the label [`keys::WORK_PART`]. Its only group selects Destinations that do
//! not exist, so that nobody schedules it, and holds a piece of the files of one group of its Work; a file that is too
//! large for one part goes on in the next. The Work itself, and each of its placements, has one [`Reference`] for each part
//! where otherwise the files are. Who does not know of references takes one for a file whose content cannot be decoded,
//! and says so.
//!
//! # Guarantees
//! A part is named after its Work and the hash of what it holds: equal files have equal parts, and a part that was altered
//! is told from what was written.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{Time, Timestamp, Work, WorkSpec, Workload, WorkloadGroup, WorkloadGroupSelector, condition, keys, name};

/// Most that the groups of a Work may take as JSON to be kept in the Work itself. An object has 1.5 MiB with all that the
/// API server, the scheduler and others add to it, and each placement has the files once more.
pub const INLINE_BYTES_MAX: usize = 1 << 20;
/// Most that the files of a part take as JSON.
pub const PART_BYTES_MAX: usize = 1_000_000;
/// Most that the files of a workflow may have together, before they are compressed.
pub const OUTPUT_BYTES_MAX: u64 = 64 << 20;
/// What a file takes on its way to a store beside its path and its content, however small they are.
pub const FILE_BYTES: usize = 256;
/// Digits of the hash that are part of a name.
const NAME_DIGITS: usize = 32;
/// Between the name of a Work and the digits of its part.
const INFIX: &str = ".part-";
/// Begins the content of a reference: a blank is in no content.
const MARK: &str = "part sha256:";
/// What no Destination has as value of [`keys::WORK_PART`].
const NOWHERE: &str = "is-never-scheduled";

/// What a Work has instead of files: where some of them are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Name of the part; it is in the namespace of whoever refers to it.
    pub name: String,
    /// Hash of what it holds.
    pub digest: String,
    /// How much it holds, as it is stored.
    pub bytes: u64,
}

impl Reference {
    /// Returns the reference that stands in the place of a file. What does not name a part is a file: the name becomes part
    /// of a request to the API server.
    pub fn of(workload: &Workload) -> Option<Self> {
        let (digest, bytes) = workload.content.strip_prefix(MARK)?.split_once(' ')?;
        let (_, digits) = split_name(&workload.filepath)?;
        digest.starts_with(digits).then_some(())?;
        Some(Self { name: workload.filepath.clone(), digest: digest.to_owned(), bytes: bytes.parse().ok()? })
    }

    /// Tells whether a part holds what it held when it was referred to. Who wrote the reference may have written any size.
    pub fn describes(&self, workloads: &[Workload]) -> bool {
        content_bytes(workloads) == self.bytes && digest(workloads) == self.digest
    }
}

/// Returns all references among the files of a Work's groups.
pub fn references(groups: &[WorkloadGroup]) -> impl Iterator<Item = Reference> {
    groups.iter().flat_map(|group| &group.workloads).filter_map(Reference::of)
}

/// A piece of a group's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    digest: String,
    /// The files, of which the first may have begun, and the last may go on, in another part.
    pub workloads: Vec<Workload>,
}

impl Part {
    fn new(workloads: Vec<Workload>) -> Self {
        Self { digest: digest(&workloads), workloads }
    }

    /// Returns the name of the part if it belongs to this Work.
    pub fn name(&self, work: &str) -> String {
        format!("{work}{INFIX}{}", &self.digest[..NAME_DIGITS])
    }

    fn reference(&self, work: &str) -> Workload {
        let bytes = content_bytes(&self.workloads);
        Workload { filepath: self.name(work), content: format!("{MARK}{} {bytes}", self.digest) }
    }

    /// Returns the object that holds the part. `generation` is that which the Work has once it refers to it.
    pub fn object(&self, namespace: &str, work: &str, generation: i64, now: Timestamp) -> Work {
        let selector = WorkloadGroupSelector {
            match_labels: BTreeMap::from([(keys::WORK_PART.to_owned(), NOWHERE.to_owned())]),
            source: None,
        };
        let group = WorkloadGroup {
            workloads: self.workloads.clone(),
            destination_selectors: vec![selector],
            ..WorkloadGroup::for_directory(crate::work::DEFAULT_DIRECTORY)
        };
        let spec = WorkSpec {
            last_execution_timestamp: Some(Time(condition::whole_seconds(now))),
            workload_groups: vec![group],
            ..WorkSpec::default()
        };
        let mut part = Work::new(&self.name(work), spec);
        part.metadata.namespace = Some(namespace.to_owned());
        part.metadata.labels = Some(labels(work));
        part.metadata.annotations = Some(annotations(generation, now));
        part
    }
}

/// Takes the name of a part apart: into that of its Work, and digits.
fn split_name(name: &str) -> Option<(&str, &str)> {
    let (work, digits) = name.rsplit_once(INFIX)?;
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let fits = !work.is_empty() && work.bytes().all(is_name) && digits.len() == NAME_DIGITS;
    (fits && digits.bytes().all(is_digit)).then_some((work, digits))
}

/// Returns the name of the Work that a part belongs to; nothing for what only carries labels of one. A label may hold a
/// shortened name, the name of a part holds it whole.
pub fn work_of<'a>(name: &'a str, labels: &BTreeMap<String, String>) -> Option<&'a str> {
    let (work, _) = split_name(name)?;
    self::labels(work).iter().all(|(key, value)| labels.get(key) == Some(value)).then_some(work)
}

/// Returns the labels by which the parts of a Work are found.
pub fn labels(work: &str) -> BTreeMap<String, String> {
    let labels = [(keys::WORK_PART, keys::TRUE.to_owned()), (keys::WORK, name::label_value(work))];
    labels.map(|(key, value)| (key.to_owned(), value)).into()
}

/// Returns the annotations that say for which generation of its Work a part was written last, and when.
pub fn annotations(generation: i64, now: Timestamp) -> BTreeMap<String, String> {
    let written = condition::whole_seconds(now).to_string();
    let annotations = [(keys::PART_GENERATION, generation.to_string()), (keys::PART_WRITTEN_AT, written)];
    annotations.map(|(key, value)| (key.to_owned(), value)).into()
}

/// Returns the files that a part holds.
pub fn workloads(part: Work) -> Vec<Workload> {
    part.spec.workload_groups.into_iter().flat_map(|group| group.workloads).collect()
}

/// Returns how much content files have, as it is stored.
fn content_bytes(workloads: &[Workload]) -> u64 {
    workloads.iter().map(|file| file.content.len() as u64).sum()
}

/// Returns what files take in memory, about: many without content are as much as a few with.
pub fn held_bytes(workloads: &[Workload]) -> usize {
    workloads.iter().map(|file| FILE_BYTES + file.filepath.len() + file.content.len()).sum()
}

/// The groups of a Work whose files are in parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// Without files, each with the positions of its parts.
    groups: Vec<(WorkloadGroup, Vec<usize>)>,
    /// The parts, none twice.
    pub parts: Vec<Part>,
}

impl Split {
    /// Divides the files. A file that takes more than one part has its parts for itself, so that a change of it changes no
    /// other file's.
    pub fn of(groups: Vec<WorkloadGroup>) -> Self {
        let mut split = Self { groups: Vec::new(), parts: Vec::new() };
        let mut positions: BTreeMap<String, usize> = BTreeMap::new();
        for mut group in groups {
            let packed = pack(std::mem::take(&mut group.workloads)).into_iter().map(Part::new);
            let members = packed.map(|part| {
                *positions.entry(part.digest.clone()).or_insert_with(|| {
                    split.parts.push(part);
                    split.parts.len() - 1
                })
            });
            let members = members.collect();
            split.groups.push((group, members));
        }
        split
    }

    /// Returns the groups of a Work of this name, with references for files.
    pub fn groups(&self, work: &str) -> Vec<WorkloadGroup> {
        let groups = self.groups.iter().map(|(group, members)| {
            let workloads = members.iter().map(|&at| self.parts[at].reference(work)).collect();
            WorkloadGroup { workloads, ..group.clone() }
        });
        groups.collect()
    }
}

fn pack(workloads: Vec<Workload>) -> Vec<Vec<Workload>> {
    let mut packs = Vec::new();
    let mut open = Vec::new();
    let mut bytes = 0;
    for workload in workloads {
        let size = stored_bytes(&workload);
        if bytes + size > PART_BYTES_MAX && !open.is_empty() {
            packs.push(std::mem::take(&mut open));
            bytes = 0;
        }
        if size > PART_BYTES_MAX {
            packs.extend(slices(&workload).map(|slice| vec![slice]));
        } else {
            bytes += size;
            open.push(workload);
        }
    }
    packs.extend((!open.is_empty()).then_some(open));
    packs
}

/// What a file takes as JSON, and the comma behind it.
fn stored_bytes(workload: &Workload) -> usize {
    json_bytes(workload) + 1
}

/// Returns what a value takes as JSON, which is not held.
pub fn json_bytes(value: &impl Serialize) -> usize {
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).map_or(0, |()| count.0)
}

struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn slices(workload: &Workload) -> impl Iterator<Item = Workload> {
    let path = Workload { filepath: workload.filepath.clone(), content: String::new() };
    let room = PART_BYTES_MAX.saturating_sub(stored_bytes(&path) + 64).max(1024);
    let mut rest = workload.content.as_str();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (slice, after) = rest.split_at(rest.floor_char_boundary(room));
        rest = after;
        Some(Workload { content: slice.to_owned(), ..path.clone() })
    })
}

fn digest(workloads: &[Workload]) -> String {
    let mut hash = Sha256::new();
    for text in workloads.iter().flat_map(|file| [&file.filepath, &file.content]) {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    let mut digest = String::with_capacity(64);
    for byte in hash.finalize() {
        write!(digest, "{byte:02x}").expect("writing to a String succeeds");
    }
    digest
}

/// One file, with the pieces of its stored content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document<'a> {
    /// Path relative to the group's place in the Destination.
    pub filepath: &'a str,
    /// The stored content, in order.
    pub pieces: Vec<&'a str>,
}

/// Returns the files that the given workloads stand for, in order. `read` returns what a part holds.
///
/// # Errors
/// That of `read`.
pub fn documents<'a, E>(
    workloads: &'a [Workload],
    mut read: impl FnMut(&Reference) -> Result<&'a [Workload], E>,
) -> Result<Vec<Document<'a>>, E> {
    let mut documents: Vec<Document<'a>> = Vec::new();
    let mut is_open = false;
    for workload in workloads {
        let Some(reference) = Reference::of(workload) else {
            documents.push(Document { filepath: &workload.filepath, pieces: vec![&workload.content] });
            is_open = false;
            continue;
        };
        for (at, file) in read(&reference)?.iter().enumerate() {
            match documents.last_mut() {
                Some(last) if is_open && at == 0 && last.filepath == file.filepath => last.pieces.push(&file.content),
                _ => documents.push(Document { filepath: &file.filepath, pieces: vec![&file.content] }),
            }
        }
        is_open = true;
    }
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::compression;

    fn file(path: &str, bytes: usize) -> Workload {
        // Different everywhere, so that a piece in the wrong place is found.
        let content = (0..bytes).map(|at| char::from(b'a' + (at / 7 % 26) as u8)).collect();
        Workload { filepath: path.into(), content }
    }

    fn group(directory: &str, workloads: Vec<Workload>) -> WorkloadGroup {
        WorkloadGroup { workloads, ..WorkloadGroup::for_directory(directory) }
    }

    /// Returns the files behind the groups as they are found again.
    fn joined(split: &Split) -> Vec<Vec<Workload>> {
        let parts: BTreeMap<String, &Part> = split.parts.iter().map(|part| (part.name("w"), part)).collect();
        let read = |reference: &Reference| {
            let part = parts.get(&reference.name).expect("every reference leads to a part");
            assert!(reference.describes(&part.workloads));
            Ok::<_, ()>(part.workloads.as_slice())
        };
        let groups = split.groups("w");
        let files = groups.iter().map(|group| {
            let documents = documents(&group.workloads, read).unwrap();
            let files =
                documents.iter().map(|file| Workload { filepath: file.filepath.into(), content: file.pieces.concat() });
            files.collect()
        });
        files.collect()
    }

    #[test]
    fn what_is_in_parts_comes_back_in_order_and_each_part_fits_an_object() {
        let groups = vec![
            group("a", vec![file("a/1", 10), file("a/2", 2_500_000), file("a/3", 10), file("a/4", 999_000)]),
            group("empty", Vec::new()),
            group(".", (0..3000).map(|at| file(&format!("{at:04}.yaml"), 1000)).collect()),
        ];
        let split = Split::of(groups.clone());
        let files: Vec<Vec<Workload>> = groups.into_iter().map(|group| group.workloads).collect();
        assert_eq!(joined(&split), files);
        let sizes = split.parts.iter().map(|part| {
            let object = part.object("default", &"w".repeat(63), 1, Timestamp::UNIX_EPOCH);
            serde_json::to_vec(&object).unwrap().len()
        });
        let sizes: Vec<usize> = sizes.collect();
        assert!(sizes.iter().all(|size| *size <= INLINE_BYTES_MAX), "{sizes:?}");
        assert_eq!(sizes.len(), 1 + 3 + 1 + 4, "{sizes:?}");
    }

    #[test]
    fn a_part_is_named_after_what_it_holds_so_that_a_change_changes_only_its_own() {
        let names = |second: usize| -> Vec<String> {
            let files = vec![file("1", 2_000_000), file("2", second), file("3", 2_000_000)];
            Split::of(vec![group(".", files)]).parts.iter().map(|part| part.name("w")).collect()
        };
        let (before, after) = (names(1_500_000), names(1_500_001));
        assert_eq!(before, names(1_500_000));
        assert_eq!(before.len(), 8);
        let changed: Vec<usize> = (0..8).filter(|at| before[*at] != after[*at]).collect();
        assert_eq!(changed, [4]);
        let twice = Split::of(vec![group("a", vec![file("x", 9)]), group("b", vec![file("x", 9)])]);
        assert_eq!(twice.parts.len(), 1);
    }

    #[test]
    fn a_reference_is_no_file_for_those_who_do_not_know_it() {
        let split = Split::of(vec![group(".", vec![file("1", 10)])]);
        let reference = &split.groups("w")[0].workloads[0];
        assert!(matches!(compression::decompress(&reference.content, 1000), Err(compression::Error::Base64(_))));
        assert_eq!(
            Reference::of(reference).map(|found| (found.name, found.bytes)),
            Some((split.parts[0].name("w"), 10))
        );
        assert!(Reference::of(reference).unwrap().describes(&[file("1", 10)]));
        assert!(!Reference::of(reference).unwrap().describes(&[file("1", 11)]));
        let claims = Workload { content: reference.content.replace(" 10", " 0"), ..reference.clone() };
        assert!(!Reference::of(&claims).unwrap().describes(&[file("1", 10)]), "it is larger than the reference says");
        for content in ["", "part sha256:", "part sha256:00", "part sha256:00 x", &compression::compress(b"part ")] {
            assert_eq!(Reference::of(&Workload { filepath: "w".into(), content: content.into() }), None, "{content}");
        }
    }

    #[test]
    fn a_part_is_a_work_that_no_destination_takes_and_no_pipeline_owns() {
        let part = &Split::of(vec![group(".", vec![file("1", 10)])]).parts[0];
        let object = part.object("team-a", "env-demo-0a1b2", 7, "2026-01-01T10:00:00.5Z".parse().unwrap());
        let labels = object.metadata.labels.clone().unwrap();
        assert_eq!(labels, labels_of(&[("kratix.io/work", "env-demo-0a1b2"), ("kratix.io/work-part", "true")]));
        let annotations = object.metadata.annotations.clone().unwrap();
        assert_eq!(annotations[keys::PART_GENERATION], "7");
        assert_eq!(annotations[keys::PART_WRITTEN_AT], "2026-01-01T10:00:00Z");
        assert_eq!(object.spec.promise_name, "");
        assert_eq!(object.spec.workload_groups[0].destination_selectors.len(), 1);
        assert_eq!(object.metadata.finalizers, None);
        assert_eq!(workloads(object), part.workloads);
    }

    #[test]
    fn a_reference_leads_to_nothing_but_a_part() {
        let split = Split::of(vec![group(".", vec![file("1", 10)])]);
        let whole = split.groups("w")[0].workloads[0].clone();
        assert!(Reference::of(&whole).is_some());
        let digits = &whole.filepath["w.part-".len()..];
        for name in [
            "w".to_owned(),
            format!(".part-{digits}"),
            format!("../../../api/v1/namespaces/n/secrets/s.part-{digits}"),
            format!("w?.part-{digits}"),
            format!("w.part-{}", &digits[1..]),
            format!("w.part-{}", "0".repeat(NAME_DIGITS)),
        ] {
            assert_eq!(Reference::of(&Workload { filepath: name.clone(), ..whole.clone() }), None, "{name}");
        }
    }

    #[test]
    fn what_only_carries_labels_of_a_part_belongs_to_no_work() {
        let part = &Split::of(vec![group(".", vec![file("1", 10)])]).parts[0];
        let long = "w".repeat(80);
        for work in ["w", "a.b-c", long.as_str()] {
            assert_eq!(work_of(&part.name(work), &labels(work)), Some(work));
        }
        assert_eq!(work_of("users-own", &labels("w")), None);
        assert_eq!(work_of(&part.name("v"), &labels("w")), None);
        assert_eq!(work_of(&part.name("w"), &labels_of(&[(keys::WORK, "w"), (keys::WORK_PART, "false")])), None);
        assert_eq!(work_of(&part.name("w"), &labels_of(&[(keys::WORK_PART, "true")])), None);
    }

    fn labels_of(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn every_file_comes_back(
            sizes in proptest::collection::vec(proptest::collection::vec(1usize..1_100_000, 0..4), 0..3)
        ) {
            let groups = sizes.iter().enumerate().map(|(at, sizes)| {
                let files = sizes.iter().enumerate().map(|(name, bytes)| file(&format!("{at}/ü{name}"), *bytes));
                group(&at.to_string(), files.collect())
            });
            let groups: Vec<WorkloadGroup> = groups.collect();
            let split = Split::of(groups.clone());
            let files: Vec<Vec<Workload>> = groups.into_iter().map(|group| group.workloads).collect();
            prop_assert_eq!(joined(&split), files);
        }
    }
}
