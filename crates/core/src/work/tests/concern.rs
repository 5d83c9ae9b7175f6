//! Which Works the change of a Destination brings back.

use super::*;

/// Finds a Work as the watch does: by its placements on the Destination, or by what it selects.
fn is_brought_back(snapshot: &Snapshot, old: Option<&Destination>, new: Option<&Destination>) -> bool {
    let name = new.or(old).unwrap().name_any();
    let there = snapshot.placements.iter().filter(|p| p.spec.target_destination_name == name);
    let there: Vec<Arc<WorkPlacement>> = there.cloned().collect();
    let entries = selection_entries_of_change(old, new);
    let is_found = !there.is_empty() || !entries.is_disjoint(&selection_entries(&snapshot.work));
    let is_placed = |group: &str| snapshot.placements.iter().any(|placement| group_of(placement) == group);
    concerns_scheduling(old, new) && is_found && is_concerned(&snapshot.work, &there, is_placed, old, new)
}

/// Changes the world's Destination of this name, and tells whether the Work is brought back.
fn change(world: &mut World, name: &str, change: impl FnOnce(&mut Vec<Destination>)) -> bool {
    let find = |world: &World| world.destinations.iter().find(|found| found.name_any() == name).cloned();
    let old = find(world);
    change(&mut world.destinations);
    let new = find(world);
    is_brought_back(&world.snapshot(), old.as_ref(), new.as_ref())
}

fn relabel(world: &mut World, name: &str, pairs: &[(&str, &str)]) -> bool {
    change(world, name, |all| {
        all.iter_mut().find(|found| found.name_any() == name).unwrap().metadata.labels = Some(labels(pairs));
    })
}

// spec 05 weakness 9
#[test]
fn a_request_comes_back_only_for_its_own_destination_or_while_it_has_none() {
    let dev: &[(&str, &str)] = &[("env", "dev")];
    let mut world = World::new(request("w", vec![group(".", DEV)]), vec![destination("a", &[("env", "prod")])]);
    world.settle();
    assert!(!relabel(&mut world, "a", &[("env", "test")]), "neither before nor after");
    assert!(!relabel(&mut world, "a", &[("env", "test"), ("team", "x")]));
    assert!(relabel(&mut world, "a", dev), "it has waited for that");
    world.settle();
    assert_eq!(world.names(), ["w.a-5058f"]);
    assert!(!relabel(&mut world, "a", &[("env", "dev"), ("team", "y")]), "it still matches");
    assert!(!change(&mut world, "b", |all| all.push(destination("b", dev))), "it has its place");
    assert!(!relabel(&mut world, "b", &[]));
    assert!(relabel(&mut world, "a", &[]), "its own");
    assert!(relabel(&mut world, "a", dev));
    assert!(change(&mut world, "a", |all| all.retain(|found| found.name_any() != "a")));
    world.settle();
    assert!(change(&mut world, "a", |all| all.push(destination("a", &[]))), "it is back");
}

#[test]
fn a_dependency_comes_back_for_what_it_gains_or_loses_and_for_nothing_else() {
    let mut world = World::new(work("deps", vec![group(".", &[])]), vec![destination("a", &[("env", "dev")])]);
    world.settle();
    assert!(!relabel(&mut world, "a", &[("env", "prod")]), "it takes whatever there is");
    assert!(change(&mut world, "b", |all| all.push(destination("b", &[("x", "y")]))));
    world.settle();
    assert!(change(&mut world, "a", |all| all[0].spec.strict_match_labels = true));
    world.settle();
    assert!(relabel(&mut world, "a", &[]), "strict, but without labels");
    world.settle();
    assert!(relabel(&mut world, "b", &[("kratix.io/dry-run", "true")]), "for previews now");
    world.settle();
    let long = "c".repeat(64);
    assert!(change(&mut world, &long, |all| all.push(destination(&long, &[]))), "one that cannot be used is told");
    world.settle();
    assert!(change(&mut world, &long, |all| all.retain(|found| found.name_any().len() == 1)), "and no longer");
    world.settle();
    assert!(change(&mut world, "a", |all| all[0].metadata.deletion_timestamp = Some(Time(at(0)))));
    // What else a Destination says does not matter.
    assert!(!change(&mut world, "b", |all| all[1].spec.path = "elsewhere".into()));
    assert!(!change(&mut world, "b", |all| all[1].metadata.annotations = Some(labels(&[("a", "b")]))));
}

#[test]
fn a_change_of_labels_looks_only_at_those_who_select_what_has_changed() {
    let entries = |old: &[(&str, &str)], new: &[(&str, &str)]| -> Vec<String> {
        let (old, new) = (destination("d", old), destination("d", new));
        selection_entries_of_change(Some(&old), Some(&new)).into_iter().collect()
    };
    let (dev, both) = (("env", "dev"), [("env", "dev"), ("zone", "eu")]);
    assert!(entries(&both, &both).is_empty());
    assert_eq!(entries(&[dev], &both), ["selects=zone=eu"]);
    assert_eq!(entries(&[dev, ("zone", "us")], &both), ["selects=zone=eu", "selects=zone=us"]);
    assert_eq!(entries(&[], &[dev]), ["selects=", "selects=env=dev"], "strictness begins with the first label");
    let preview = ("kratix.io/dry-run", "true");
    assert_eq!(entries(&[dev], &[dev, preview]), ["selects=", "selects=env=dev", "selects=kratix.io/dry-run=true"]);
    let work = work("w", vec![group(".", DEV), group("x", &[]), group("y", &[("promise", &[("zone", "eu")])])]);
    assert_eq!(
        selection_entries(&work).into_iter().collect::<Vec<_>>(),
        ["selects=", "selects=env=dev", "selects=zone=eu"]
    );
}

#[test]
fn a_placement_whose_place_could_not_be_noted_comes_back_with_its_destination() {
    let mut on = destination("d", &[("env", "dev")]);
    let kind = kratix_api::destination::StateStoreKind::GitStateStore;
    on.spec.state_store_ref = Some(StateStoreRef { kind, name: "store".into() });
    let mut world = World::new(request("w", vec![group(".", DEV)]), vec![on.clone()]);
    world.settle();
    world.destinations.clear();
    world.placement("w.d-5058f").metadata.annotations = None;
    world.settle();
    on.metadata.labels = None;
    assert!(change(&mut world, "d", |all| all.push(on)), "it is misplaced as before, and has a place again");
    assert_eq!(world.decide().writes.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The world is looked at once more after each change of one Destination, and whoever was not brought back must have
    /// nothing to do.
    #[test]
    fn who_is_not_brought_back_has_nothing_to_do(start in any_world(), later in prop::collection::vec(any_world(), 1..5)) {
        let mut world = start;
        world.settle();
        for next in later {
            let names: std::collections::BTreeSet<String> =
                world.destinations.iter().chain(&next.destinations).map(|found| found.name_any()).collect();
            for name in names {
                let of = |all: &[Destination]| all.iter().find(|found| found.name_any() == name).cloned();
                let new = of(&next.destinations);
                let is_back = change(&mut world, &name, |all| {
                    all.retain(|found| found.name_any() != name);
                    all.extend(new);
                });
                if !is_back {
                    let plan = world.decide();
                    prop_assert!(plan.is_silent(), "{name}: {plan:?}");
                }
                world.settle();
            }
        }
    }
}
