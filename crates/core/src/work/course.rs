//! How the writes of one pass go on after some of them have failed.

use std::collections::{BTreeMap, BTreeSet};

use super::{Snapshot, group_of};
use crate::object::ObjectKey;
use crate::plan::Write;

/// What became of the writes of one pass over a Work.
///
/// # Guarantees
/// What is allowed is a prefix for each group, and everybody's after what they have in common: without the Work's own
/// write, its finalizer, nothing follows; a placement without a group goes only once all groups have theirs.
#[derive(Debug)]
pub struct Course<'a> {
    snapshot: &'a Snapshot,
    /// The Work's own write has failed.
    is_over: bool,
    groups: BTreeSet<String>,
    causes: BTreeMap<ObjectKey, String>,
}

/// What a write is a part of.
enum Part {
    /// The Work itself.
    Work,
    /// A group of it.
    Group(String),
    /// The removal of a placement whose group is gone, or whose Work goes.
    Removal,
}

impl<'a> Course<'a> {
    /// Returns the course of a pass of which nothing has been written yet.
    pub fn of(snapshot: &'a Snapshot) -> Self {
        Self { snapshot, is_over: false, groups: BTreeSet::new(), causes: BTreeMap::new() }
    }

    /// Returns whether the write may follow what has failed so far.
    pub fn allows(&self, write: &Write) -> bool {
        match self.part(write) {
            Part::Work => !self.is_over,
            Part::Group(group) => !self.is_over && !self.groups.contains(&group),
            Part::Removal => !self.is_over && self.groups.is_empty(),
        }
    }

    /// Notes that a write has failed. `refusal` says why, in the API server's words, if somebody must mend it first.
    pub fn fail(&mut self, write: &Write, refusal: Option<String>) {
        match self.part(write) {
            Part::Work => self.is_over = true,
            Part::Group(group) => drop(self.groups.insert(group)),
            // Each stands for itself.
            Part::Removal => {}
        }
        self.causes.extend(refusal.map(|cause| (write.address().1.clone(), cause)));
    }

    /// Returns whether there is something that somebody must mend.
    pub fn is_refused(&self) -> bool {
        !self.causes.is_empty()
    }

    /// Why each object could not be written.
    pub(super) fn causes(&self) -> &BTreeMap<ObjectKey, String> {
        &self.causes
    }

    /// Why the Work itself could not be written.
    pub(super) fn own_cause(&self) -> Option<&String> {
        self.causes.get(&ObjectKey::of(&*self.snapshot.work))
    }

    /// Returns whether something of the group was not written.
    pub(super) fn has_failed(&self, group: &str) -> bool {
        self.is_over || self.groups.contains(group)
    }

    fn part(&self, write: &Write) -> Part {
        let (kind, key) = write.address();
        if kind.kind == kratix_api::Work::KIND {
            return Part::Work;
        }
        let group = match write {
            Write::Delete { .. } => None,
            Write::Create { object, .. } => object.pointer("/spec/id").and_then(|id| id.as_str()).map(str::to_owned),
            Write::Patch { .. } | Write::PatchStatus { .. } => {
                self.snapshot.placement(&key.name).map(|placement| group_of(placement).to_owned())
            }
        };
        group.map_or(Part::Removal, Part::Group)
    }
}
