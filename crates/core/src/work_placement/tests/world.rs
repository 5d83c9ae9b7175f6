//! One placement, its surroundings, and a store in memory.

use super::*;
use crate::state_store::model::{self, Cleaning, Files};

/// A placement, its surroundings, and the files of its store.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) now: i64,
    pub(super) placement: Option<WorkPlacement>,
    pub(super) destination: Option<Destination>,
    pub(super) store: Availability,
    pub(super) rivals: Vec<WorkPlacement>,
    /// The Promise of all placements.
    pub(super) promise: Option<Promise>,
    /// The process knows that the rivals have written.
    pub(super) rivals_have_written: bool,
    /// Where the rivals are, with the place of that store, if that is not the Destination.
    pub(super) rivals_at: Option<(Destination, String)>,
    pub(super) neighbours: Vec<Destination>,
    /// Where the store of the neighbours is.
    pub(super) neighbours_at: String,
    /// Placements on the neighbours.
    pub(super) foreign: Vec<WorkPlacement>,
    pub(super) members: Vec<WorkPlacement>,
    /// The parts that the API server has.
    pub(super) parts: Parts,
    pub(super) attempt: Option<Attempt>,
    /// The files of the last successful attempt.
    pub(super) imprint: Files,
    pub(super) is_doubted: bool,
    pub(super) handover: Handover,
    pub(super) interval: Option<Duration>,
    /// The stores of sites that were left, where they are not ready.
    pub(super) former: Option<Availability>,
    /// They are kept by a writer of a previous address.
    pub(super) is_retired: bool,
    pub(super) claims: Vec<Claim>,
    pub(super) cleaning: Cleaning,
    pub(super) files: Files,
    pub(super) refuses: Option<Failure>,
    pub(super) commits: Vec<String>,
    pub(super) version: u64,
    pub(super) events: Vec<String>,
}

impl World {
    pub(super) fn new(mut placement: WorkPlacement, destination: Destination) -> Self {
        // As the scheduler makes it.
        if let Some(site) = site(&placement, &destination, "here") {
            placement.annotations_mut().insert(STORE_LOCATION.into(), site);
        }
        Self {
            now: 0,
            placement: Some(placement),
            destination: Some(destination),
            store: ready(),
            rivals: Vec::new(),
            promise: None,
            rivals_have_written: false,
            rivals_at: None,
            neighbours: Vec::new(),
            neighbours_at: "here".into(),
            foreign: Vec::new(),
            members: Vec::new(),
            parts: Parts::new(),
            attempt: None,
            imprint: Files::new(),
            is_doubted: false,
            handover: Handover::default(),
            interval: None,
            former: None,
            is_retired: false,
            claims: Vec::new(),
            cleaning: Cleaning::default(),
            files: Files::new(),
            refuses: None,
            commits: Vec::new(),
            version: 1,
            events: Vec::new(),
        }
    }

    pub(super) fn nested(files: &[(&str, &str)]) -> Self {
        Self::new(placement("p", files), destination("worker-1", FilepathMode::NestedByMetadata))
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let destination = self.destination.clone().map(Arc::new);
        let placement = self.placement.clone().expect("the placement exists");
        let mut members: Vec<Arc<WorkPlacement>> = self.members.iter().cloned().map(Arc::new).collect();
        members.push(Arc::new(placement.clone()));
        members.sort_by_key(|member| ObjectKey::of(&**member));
        Snapshot {
            now: at(self.now),
            placement: Arc::new(placement.clone()),
            rivals: self.rivals.iter().filter_map(|rival| self.rival(rival)).collect(),
            is_at_home: is_at_home(&placement, self.promise.as_ref(), &[]),
            neighbours: self.neighbours.iter().map(|other| self.neighbour(other)).collect(),
            written: BTreeSet::new(),
            members,
            has_turn: false,
            parts: Parts::new(),
            former: self.formers(),
            destination,
            store: self.store.clone(),
            attempt: self.attempt.clone(),
            handover: self.handover.clone(),
            is_doubted: self.is_doubted,
            interval: self.interval,
            cleaned: None,
        }
    }

    fn rival(&self, placement: &WorkPlacement) -> Option<Rival> {
        let own = || Some((self.destination.clone()?, self.store.place().unwrap_or_default().to_owned()));
        let (destination, place) = self.rivals_at.clone().or_else(own)?;
        let (placement, destination) = (Arc::new(placement.clone()), Arc::new(destination));
        let is_at_home = is_at_home(&placement, self.promise.as_ref(), &[]);
        Some(Rival { placement, destination, place, has_written: self.rivals_have_written, is_at_home })
    }

    fn neighbour(&self, other: &Destination) -> Neighbour {
        let (destination, place) = (Arc::new(other.clone()), self.neighbours_at.clone());
        Neighbour { destination, place, members: self.members_of(other) }
    }

    pub(super) fn formers(&self) -> Vec<Former> {
        let (Some(placement), Some(destination)) = (&self.placement, &self.destination) else { return Vec::new() };
        let sites = former_sites(placement, destination, self.store.place().unwrap_or_default());
        let former = |site: Site| {
            let ready = Availability::Ready { place: site.place.clone(), epoch: 0 };
            let is_reachable = self.former.is_none() || self.is_retired;
            let store = self.former.clone().unwrap_or(ready);
            Former { site, store, is_reachable, claims: self.claims.clone() }
        };
        sites.into_iter().map(former).collect()
    }

    pub(super) fn clean(&mut self, snapshot: &Snapshot) -> Vec<(Site, Cleaned)> {
        let clean = |leftover: Leftover| {
            let (change, place, before) = (&leftover.change, leftover.site.place.as_str(), self.files.clone());
            let outcome = model::clean(&mut self.files, change, place, leftover.needs_proof, self.cleaning);
            if self.files != before {
                self.commit(change);
            }
            (leftover.site, outcome)
        };
        leftovers(snapshot).into_iter().map(clean).collect()
    }

    pub(super) fn compare(&mut self) {
        let holds = self.imprint.iter().all(|(path, content)| self.files.get(path) == Some(content));
        if holds {
            self.attempt.as_mut().unwrap().at = at(self.now);
        } else {
            (self.attempt, self.is_doubted) = (None, true);
        }
    }

    /// Returns the placements on another Destination.
    pub(super) fn members_of(&self, destination: &Destination) -> Vec<Arc<WorkPlacement>> {
        let of = |placement: &&WorkPlacement| placement.spec.target_destination_name == destination.name_any();
        self.foreign.iter().filter(of).cloned().map(Arc::new).collect()
    }

    pub(super) fn execute(&mut self, plan: &Plan<Finding>) {
        for write in plan.writes.iter().chain(&plan.status) {
            self.version += 1;
            let (Write::Patch { target, patch } | Write::PatchStatus { target, patch }) = write else {
                panic!("{write:?}")
            };
            let Some(placement) = &mut self.placement else { continue };
            patched(placement, target, patch, self.version);
            if placement.metadata.deletion_timestamp.is_some() && placement.finalizers().is_empty() {
                self.placement = None;
            }
        }
        self.events.extend(plan.events.iter().map(|event| format!("{}: {}", event.reason, event.note)));
    }

    pub(super) fn apply(&mut self, change: &Change, place: &str) -> Result<Written, Failure> {
        if let Some(failure) = &self.refuses {
            return Err(failure.clone());
        }
        let changed = model::apply(&mut self.files, change, place);
        if changed {
            self.commit(change);
        }
        self.imprint = model::below(&self.files, change, place);
        Ok(Written { version: Some(format!("v{}", self.commits.len())), changed })
    }

    fn commit(&mut self, change: &Change) {
        let verb = if change.kind == ChangeKind::Update { "Update" } else { "Delete" };
        self.commits.push(format!("{verb} from: {}", change.id));
    }

    /// Decides, about what is large in its turn and with the parts that this is about, as far as there is room for them.
    pub(super) fn decide(&self, snapshot: &mut Snapshot) -> Decision {
        let decision = decide(snapshot);
        if !decision.is_large {
            return decision;
        }
        let mut room = Room::default();
        let read = lacks_parts(snapshot, &decision).into_iter();
        let read = read.map(|key| (key.clone(), self.parts.get(&key).cloned().flatten()));
        snapshot.parts = read.take_while(|(_, part)| part.as_deref().is_none_or(|part| room.takes(part))).collect();
        snapshot.has_turn = true;
        decide(snapshot)
    }

    /// One pass: plan, effect, record. Returns whether anything was written to the API or asked of the store.
    pub(super) fn pass(&mut self) -> bool {
        let mut snapshot = self.snapshot();
        let mut decision = self.decide(&mut snapshot);
        self.execute(&decision.plan);
        if decision.compares {
            self.compare();
            snapshot = self.snapshot();
            decision = self.decide(&mut snapshot);
        }
        let mut is_silent = decision.plan.is_silent();
        if let Some(effect) = decision.effect.take() {
            let outcome = self.apply(&effect.change, snapshot.store.place().unwrap_or_default());
            let attempt = Attempt { stamp: effect.stamp, at: at(self.now), outcome };
            let attempt = recognised(&snapshot.placement, self.attempt.as_ref(), attempt);
            (self.attempt, self.is_doubted) = (Some(attempt.clone()), false);
            // A plan with finalizers has moved the object on; the next pass records.
            if !decision.plan.writes.is_empty() {
                return true;
            }
            self.execute(&repaired(&snapshot, &attempt));
            decision = record(&snapshot, attempt.clone());
            self.execute(&decision.plan);
            snapshot = Snapshot { attempt: Some(attempt), is_doubted: false, ..snapshot };
            is_silent = false;
        }
        if decision.cleans {
            let cleaned = self.clean(&snapshot);
            let plan = decide(&Snapshot { cleaned: Some(cleaned), ..snapshot }).plan;
            self.execute(&plan);
            is_silent &= plan.is_silent();
        }
        !is_silent
    }

    pub(super) fn settle(&mut self) {
        for _ in 0..10 {
            if self.placement.is_none() || !self.pass() {
                return;
            }
        }
        panic!("does not come to rest: {:?}", decide(&self.snapshot()));
    }

    pub(super) fn restart(&mut self) {
        self.attempt = None;
    }

    pub(super) fn edit(&mut self, files: &[(&str, &str)]) {
        let placement = self.placement.as_mut().unwrap();
        placement.spec.workloads = files.iter().map(|(path, content)| workload(path, content)).collect();
        placement.metadata.generation = placement.metadata.generation.map(|generation| generation + 1);
    }

    pub(super) fn delete(&mut self) {
        self.placement.as_mut().unwrap().metadata.deletion_timestamp = Some(Time(at(self.now)));
    }

    pub(super) fn condition(&self, r#type: &str) -> (Status, String, String) {
        let status = self.placement.as_ref().unwrap().status.clone().unwrap_or_default();
        let found = condition::find(&status.conditions, r#type).unwrap_or_else(|| panic!("no condition {}", r#type));
        (found.status.clone(), found.reason.clone(), found.message.clone())
    }

    pub(super) fn has_condition(&self, r#type: &str) -> bool {
        let status = self.placement.as_ref().unwrap().status.clone().unwrap_or_default();
        condition::find(&status.conditions, r#type).is_some()
    }

    pub(super) fn paths(&self) -> Vec<&str> {
        self.files.keys().map(String::as_str).collect()
    }

    pub(super) fn take_events(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events)
    }
}
