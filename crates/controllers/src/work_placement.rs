//! WorkPlacement: brings documents into the state stores and says so.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kratix_api::destination::StateStoreRef;
use kratix_api::{Destination, WorkPlacement};
use kratix_core::metrics;
use kratix_core::object::{ObjectKey, Target};
use kratix_core::plan::{Next, Reporter};
use kratix_core::state_store::{Attempt, SILENCE};
use kratix_core::trace::Subject;
use kratix_core::work_placement::{self, Decision, Effect, Neighbour, Parts, Snapshot};
use kratix_state_store::{Handle, Imprint};
use kube::ResourceExt;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use crate::caches::{destination_entry, former_entry};
use crate::context::Context;
use crate::controller::Reconcile;
use crate::error::Error;
use crate::gates::{self, Gates};
use crate::leaving::{Leaving, Writers};
use crate::queue::Queue;
use crate::state_store::{self, Attempts, Registry, Replaced, Tried};
use crate::telemetry::Pass;

mod drift;
mod former;
mod heirs;
mod large;
mod namesakes;
mod rivals;
mod turns;

use self::heirs::Heirs;
use self::large::Large;
pub(crate) use self::namesakes::Namesakes;
use self::turns::Turns;

/// Passes over placements of one store at once: as many as make a commit worth its push.
pub(crate) const STORE_PASSES_MAX: usize = 256;

/// Passes over placements of one store at once that only compare: one question serves all placements of a Destination.
pub(crate) const ASKING_PASSES_MAX: usize = 32;

/// The controller of placements.
pub(crate) struct WorkPlacements {
    cx: Arc<Context>,
    stores: Arc<Registry>,
    namesakes: Arc<Namesakes>,
    attempts: Attempts,
    heirs: Arc<Heirs>,
    gates: Gates,
    /// Of those who only ask whether their store still holds what they have written: they stand behind no write, which may have
    /// to wait for a push.
    asking: Gates,
    /// What placements have where they have been before.
    leaving: Leaving,
    turns: Turns,
    /// One comparison at a time for each Destination.
    comparisons: Turns,
    /// Large content, which is in memory while it is written.
    large: Large,
    /// Where placements go to which another placement's change gives something to do: it has brought their content into the store, has
    /// given up a path, or has taken one.
    served: Queue<ObjectKey>,
}

impl WorkPlacements {
    /// Returns the controller; `queue` is the one that it is run with, and the gates are those of this queue.
    pub(crate) fn new(
        cx: &Arc<Context>,
        stores: &Arc<Registry>,
        namesakes: &Arc<Namesakes>,
        (queue, gates): (&Queue<ObjectKey>, &Gates),
    ) -> Self {
        Self {
            cx: Arc::clone(cx),
            stores: Arc::clone(stores),
            namesakes: Arc::clone(namesakes),
            attempts: Attempts::default(),
            heirs: Heirs::follow(&cx.caches.placements, queue),
            gates: gates.clone(),
            asking: Gates::new(queue, ASKING_PASSES_MAX),
            leaving: Leaving::new(cx, stores, gates),
            turns: Turns::default(),
            comparisons: Turns::default(),
            large: Large::default(),
            served: queue.clone(),
        }
    }

    fn destination(&self, placement: &WorkPlacement) -> Option<Arc<Destination>> {
        self.cx.caches.destinations.get(&ObjectKey::cluster(placement.spec.target_destination_name.clone()))
    }

    fn observe(&self, key: &ObjectKey, placement: Arc<WorkPlacement>) -> (Snapshot, Writers) {
        let destination = self.destination(&placement);
        let reference = destination.as_ref().and_then(|destination| destination.spec.state_store_ref.as_ref());
        let (store, handle) = self.stores.availability(&self.cx.caches, reference);
        let rivals = rivals::namesakes(self, key, &placement, destination.as_deref(), &store);
        let is_at_home = !rivals.is_empty() && rivals::is_at_home(&self.cx, &placement);
        let neighbours = rivals::neighbours(self, destination.as_deref(), &store);
        let members = match neighbours.is_empty() {
            true => Vec::new(), // until a decision lacks them
            false => self.members(&placement.spec.target_destination_name),
        };
        let written = self.written(&members, &neighbours);
        let interval = self.cx.config().state_store_reconciliation_interval;
        let (former, formers) = former::observe(self, &placement, destination.as_deref(), &store);
        let handover = self.handover(key, &placement);
        let snapshot = Snapshot {
            now: self.cx.now(),
            placement,
            destination,
            store,
            rivals,
            is_at_home,
            neighbours,
            members,
            has_turn: false,     // until a decision is large
            parts: Parts::new(), // until then
            written,
            attempt: self.attempts.get(key).filter(|_| !self.heirs.is_over(key)),
            is_doubted: self.attempts.is_doubted(key),
            handover,
            interval,
            former,
            cleaned: None,
        };
        (snapshot, Writers { present: handle, former: formers })
    }

    /// Tells whether a placement has nothing to do but to be compared.
    fn only_compares(&self, key: &ObjectKey) -> bool {
        let interval = self.cx.config().state_store_reconciliation_interval;
        let is_due = self.attempts.get(key).is_some_and(|last| work_placement::is_due(&last, interval, self.cx.now()));
        // Few are, so nothing is looked at twice for all others.
        is_due
            && self.cx.caches.placements.get(key).is_some_and(|placement| {
                let (snapshot, _) = self.observe(key, placement);
                work_placement::decide(&snapshot).compares
            })
    }

    /// Decides, with the members of a shared file where they matter.
    fn decide(&self, snapshot: &mut Snapshot) -> Decision {
        let decision = work_placement::decide(snapshot);
        if !work_placement::lacks_members(snapshot, &decision) {
            return decision;
        }
        snapshot.members = self.members(&snapshot.placement.spec.target_destination_name);
        work_placement::decide(snapshot)
    }

    fn members(&self, destination: &str) -> Vec<Arc<WorkPlacement>> {
        self.cx.caches.placements.indexed(&destination_entry(destination))
    }

    /// Returns which of the placements the process has written; needed only to tell neighbours apart.
    fn written(&self, members: &[Arc<WorkPlacement>], neighbours: &[Neighbour]) -> BTreeSet<ObjectKey> {
        if neighbours.is_empty() {
            return BTreeSet::new();
        }
        let all = members.iter().chain(neighbours.iter().flat_map(|neighbour| &neighbour.members));
        let keys = all.map(|placement| ObjectKey::of(&**placement));
        keys.filter(|key| self.attempts.has_written(key)).collect()
    }

    /// Makes the change durable. A wait that takes long is said on the placement.
    async fn write(
        &self,
        snapshot: &mut Snapshot,
        store: &StateStoreRef,
        handle: &Handle,
        effect: Effect,
        deadline: Instant,
    ) -> Result<Tried, Replaced> {
        let write = self.stores.write(store, handle, effect.change, effect.stamp, || self.cx.now());
        // What is said names what the store owes by then; that begins with this call at the latest.
        let deadline = deadline.max(Instant::now() + SILENCE);
        gates::telling(write, deadline, self.tell(snapshot, store)).await
    }

    /// Says on the placement that it waits for its store.
    async fn tell(&self, snapshot: &mut Snapshot, store: &StateStoreRef) {
        let queued = work_placement::queued(snapshot, self.gates.load(store), self.stores.silence(store).as_deref());
        gates::tell(&self.cx, &queued, &mut snapshot.placement).await;
    }

    /// As [`WorkPlacements::tell`], of one that has not been observed yet.
    async fn tell_unseen(&self, key: &ObjectKey, store: Option<&StateStoreRef>) {
        if let (Some(store), Some(placement)) = (store, self.cx.caches.placements.get(key)) {
            self.tell(&mut self.observe(key, placement).0, store).await;
        }
    }

    /// Waits for its turn at each of the paths. They are sorted, so that two who want the same ones never wait for each other.
    async fn take_turns(&self, paths: &[String]) -> Vec<OwnedMutexGuard<()>> {
        let mut taken = Vec::with_capacity(paths.len());
        for path in paths {
            taken.push(self.turns.take(path).await);
        }
        taken
    }

    /// Notes what has come of a write, also for the placements that it has served. Returns what it amounts to for the placement
    /// itself: what is news for one of them is none for the others.
    fn note(
        &self,
        key: &ObjectKey,
        placement: &WorkPlacement,
        covers: Vec<(ObjectKey, String)>,
        attempt: Attempt,
        imprint: Option<&Imprint>,
    ) -> Attempt {
        let own = work_placement::recognised(placement, self.attempts.get(key).as_ref(), attempt.clone());
        self.attempts.put(key, own.clone(), imprint.cloned());
        self.count(key, &own);
        // A failure of the common file is everybody's too: each would only run into it by itself.
        for (served, stamp) in covers {
            let mut attempt = Attempt { stamp, ..attempt.clone() };
            if let Some(placement) = self.cx.caches.placements.get(&served) {
                attempt = work_placement::recognised(&placement, self.attempts.get(&served).as_ref(), attempt);
            }
            if self.attempts.put_served(&served, attempt.clone(), imprint.cloned()) {
                self.count(&served, &attempt);
                self.served.add(served);
            }
        }
        own
    }
}

impl Reconcile for WorkPlacements {
    const NAME: &'static str = "WorkPlacement";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let place = self.cx.caches.placements.get(key).and_then(|placement| {
            let destination = self.destination(&placement)?;
            let store = destination.spec.state_store_ref.clone();
            let at = store.as_ref().and_then(|store| state_store::place_of(&self.cx.caches, store));
            Some((store, work_placement::turns(&placement, &destination, at.as_deref())))
        });
        let (store, turns) = place.unwrap_or_default();
        // Most passes are over in no time; those of a store that does not answer are bounded.
        let asks = self.only_compares(key);
        let (gates, others) = if asks { (&self.asking, &self.gates) } else { (&self.gates, &self.asking) };
        others.leave(key, &[]);
        let gate = match gates.admit(store.as_ref(), key, self.tell_unseen(key, store.as_ref())).await {
            Ok(gate) => gate,
            Err(next) => return Ok(next),
        };
        // What comes while one placement of an aggregate has its turn is served by the next of them.
        let deadline = Instant::now() + SILENCE;
        let tell = self.tell_unseen(key, store.as_ref());
        let taken = gates::telling(self.take_turns(&turns), deadline, tell).await;
        let Some(placement) = self.cx.caches.placements.get(key) else {
            self.attempts.forget(key);
            self.heirs.forget(key);
            self.leaving.forget(key);
            return Ok(Next::OnChange);
        };
        let (mut snapshot, mut writers) = self.observe(key, placement);
        if work_placement::yields(&snapshot) {
            self.heirs.begin(&snapshot.placement);
            (snapshot, writers) = self.observe(key, Arc::clone(&snapshot.placement));
            if !work_placement::yields(&snapshot) {
                self.heirs.proceed(&snapshot.placement);
            }
        }
        if work_placement::turns_of(&snapshot) != turns {
            return Ok(Next::After(Duration::ZERO)); // it has moved while it waited
        }
        let placement = Arc::clone(&snapshot.placement);
        let pass = self.cx.begin(&placement.metadata, || Subject::work_placement(&placement));
        pass.run(self.pass(key, snapshot, writers, (&pass, (gate, taken), deadline), asks)).await
    }

    fn subject(&self, key: &ObjectKey) -> Option<(Reporter, Target)> {
        Some((Reporter::WorkPlacement, Target::of(&*self.cx.caches.placements.get(key)?)))
    }
}

impl WorkPlacements {
    async fn pass(
        &self,
        key: &ObjectKey,
        mut snapshot: Snapshot,
        writers: Writers,
        (pass, held, deadline): (&Pass, impl Send, Instant),
        asks: bool,
    ) -> Result<Next, Error> {
        let store = snapshot.destination.as_ref().and_then(|destination| destination.spec.state_store_ref.clone());
        let mut decision = self.decide(&mut snapshot);
        self.act(pass, &mut decision, &mut snapshot.placement).await?;
        if decision.compares
            && let (Some(store), Some(handle)) = (&store, &writers.present)
        {
            if !self.compare(key, &snapshot, store, handle).await {
                return Ok(Next::After(work_placement::RETRY_AFTER));
            }
            snapshot = Snapshot {
                now: self.cx.now(),
                attempt: self.attempts.get(key),
                is_doubted: self.attempts.is_doubted(key),
                ..snapshot
            };
            decision = self.decide(&mut snapshot);
            self.act(pass, &mut decision, &mut snapshot.placement).await?;
        }
        if asks && (decision.effect.is_some() || decision.is_large) {
            return Ok(Next::After(Duration::ZERO)); // among those who write
        }
        let mut room = None;
        if let Some(store) = store.as_ref().filter(|_| decision.is_large) {
            let Some(found) = self.in_turn(key, &mut snapshot, &decision, store, (pass, deadline)).await? else {
                return Ok(Next::After(Duration::ZERO));
            };
            (decision, room) = found;
        }
        if let (Some(mut effect), Some(store), Some(handle)) = (decision.effect.take(), &store, &writers.present) {
            let covers = std::mem::take(&mut effect.covers);
            let began = std::time::Instant::now();
            let written = self.write(&mut snapshot, store, handle, effect, deadline).await;
            let Ok(Tried { attempt, imprint, owner }) = written else { return Ok(Next::After(Duration::ZERO)) };
            let attempt = self.note(key, &snapshot.placement, covers, attempt, imprint.as_ref());
            self.note_owner(&snapshot.placement, &attempt, owner.as_deref(), began);
            if attempt.outcome.is_ok() {
                for displaced in work_placement::displaced(&snapshot) {
                    self.attempts.forget(&displaced);
                    self.served.add(displaced);
                }
            }
            if self.heirs.is_over(key) {
                return Ok(Next::After(Duration::ZERO)); // the path is free by now
            }
            self.cx.act(&work_placement::repaired(&snapshot, &attempt)).await?;
            (snapshot.now, snapshot.handover) = (self.cx.now(), self.handover(key, &snapshot.placement));
            decision = work_placement::record(&snapshot, attempt.clone());
            self.act(pass, &mut decision, &mut snapshot.placement).await?;
            snapshot = Snapshot { attempt: Some(attempt), is_doubted: false, ..snapshot };
        }
        // Where it has been before is no matter of the present store, nor of those that share a file with it now.
        drop((held, room));
        let mut turn = Next::OnChange;
        if decision.cleans {
            let cleaned = self.leaving.clean(key, &mut snapshot, &writers).await;
            let Ok((cleaned, next)) = cleaned else { return Ok(Next::After(Duration::ZERO)) };
            (snapshot.cleaned, turn) = (Some(cleaned), next);
            snapshot.now = self.cx.now();
            decision = work_placement::decide(&snapshot);
            self.act(pass, &mut decision, &mut snapshot.placement).await?;
        } else {
            self.leaving.forget(key);
        }
        Ok(decision.plan.next.sooner(turn))
    }

    /// Executes a decision; the first that writes anything notes the trace.
    async fn act(&self, pass: &Pass, decision: &mut Decision, placement: &mut Arc<WorkPlacement>) -> Result<(), Error> {
        pass.note_if_busy(&mut decision.plan);
        self.cx.act_on(&decision.plan, placement).await
    }

    fn count(&self, key: &ObjectKey, attempt: &Attempt) {
        if let Some(placement) = self.cx.caches.placements.get(key) {
            self.cx.telemetry.metrics().count(metrics::write(&placement, attempt));
        }
    }
}

/// Brings placements to the queue when they, their Destinations, their stores, or who had their directory change.
pub(crate) fn watch(cx: &Arc<Context>, stores: &Arc<Registry>, namesakes: &Arc<Namesakes>, queue: &Queue<ObjectKey>) {
    let (namesakes, placements) = (Arc::clone(namesakes), queue.clone());
    cx.caches.placements.on_change(move |old, new| {
        let Some(placement) = new.or(old) else { return };
        if work_placement::concerns_itself(old.map(|old| &**old), new.map(|new| &**new)) {
            placements.add(ObjectKey::of(&**placement));
        }
        if new.is_none() {
            namesakes.of(placement).into_iter().for_each(|heir| placements.add(heir));
        }
    });
    let (context, placements) = (Arc::downgrade(cx), queue.clone());
    cx.caches.destinations.on_change(move |old, new| {
        let Some(cx) = context.upgrade() else { return };
        if !work_placement::concerns_placements(old.map(|old| &**old), new.map(|new| &**new)) {
            return;
        }
        // Those with the same file, before or now, have another owner perhaps.
        let sides = old.into_iter().chain(new).filter(|side| work_placement::aggregates(side));
        let placed = sides
            .filter_map(|side| Some((side, state_store::place_of(&cx.caches, side.spec.state_store_ref.as_ref()?)?)));
        let concerned: Vec<_> = placed.flat_map(|(side, place)| rivals::sharing(&cx, (side, &place))).collect();
        for destination in concerned.iter().map(|(sharing, _)| sharing).chain(new.or(old)) {
            let entry = destination_entry(&ObjectKey::of(&**destination).name);
            cx.caches.placements.indexed(&entry).iter().for_each(|found| placements.add(ObjectKey::of(&**found)));
        }
    });
    // Timers run with the interval that was in force when they were started.
    let (caches, placements) = (cx.caches.clone(), queue.clone());
    cx.on_interval_change(move || {
        caches.placements.all().iter().for_each(|found| placements.add(ObjectKey::of(&**found)));
    });
    former::watch(cx, stores);
    // Nobody asks any more for what a store has refused to those who are gone.
    let registry = Arc::downgrade(stores);
    cx.caches.placements.on_change(move |old, new| {
        if let (Some(gone), None, Some(stores)) = (old, new, registry.upgrade()) {
            stores.withdraw_of(&gone.name_any());
        }
    });
    let registry = Arc::downgrade(stores);
    cx.caches.destinations.on_change(move |old, new| {
        let left = work_placement::left(old.map(|old| &**old), new.map(|new| &**new));
        if let (Some((store, directory)), Some(stores)) = (left, registry.upgrade()) {
            stores.withdraw_below(store, &directory);
        }
    });
    let (cx, placements) = (Arc::clone(cx), queue.clone());
    stores.on_change(move |store| {
        let left = cx.caches.placements.indexed(&former_entry(store));
        left.iter().for_each(|found| placements.add(ObjectKey::of(&**found)));
        for destination in state_store::destinations(&cx, store) {
            let entry = destination_entry(&ObjectKey::of(&*destination).name);
            cx.caches.placements.indexed(&entry).iter().for_each(|found| placements.add(ObjectKey::of(&**found)));
        }
    });
}
