//! What the API server refuses, and what somebody else took away.

use super::*;

#[test]
fn a_refused_write_is_told_on_the_work_and_names_its_group_alone() {
    let groups = vec![group(".", &[]), group("dest1", &[])];
    let mut world = World::new(work("w", groups), vec![destination("d", &[])]);
    let key = ObjectKey::namespaced("default", "w.d-5058f");
    let cause = "create of WorkPlacement default/w.d-5058f failed: forbidden";
    let plan = refused(&world.snapshot(), &[(key, cause.to_owned())].into());
    assert_eq!(reasons(&plan), ["WorkplacementReconciled"], "the other group has been placed");
    world.execute(&plan, usize::MAX);
    assert_eq!(world.work.as_ref().unwrap().status.as_ref().unwrap().work_placements, Some(2));
    assert_eq!(
        world.condition("ScheduleSucceeded").2,
        format!(
            "Failed to schedule or update for workloadGroups: [{DOT}]: create of WorkPlacement default/w.d-5058f failed: forbidden"
        )
    );
}

#[test]
fn a_placement_that_cannot_be_deleted_is_told_on_its_work() {
    let mut world = World::new(work("w", vec![group(".", &[])]), vec![destination("d", &[])]);
    world.settle();
    world.work.as_mut().unwrap().metadata.deletion_timestamp = Some(Time(at(0)));
    let cause = "delete of WorkPlacement default/w.d-5058f failed: forbidden".to_owned();
    let plan = refused(&world.snapshot(), &[(ObjectKey::namespaced("default", "w.d-5058f"), cause.clone())].into());
    assert_eq!(plan.status, None);
    assert_eq!(plan.events[0].reason, "FailedDelete");
    assert_eq!(plan.events[0].note, format!("deleting associated workplacement failed: {cause}"));
}

#[test]
fn a_placement_that_lost_its_labels_gets_them_back() {
    for work in [work("w", vec![group(".", &[])]), request("w", vec![group(".", &[])])] {
        let mut world = World::new(work, vec![destination("d", &[])]);
        world.settle();
        let whole = world.placement("w.d-5058f").metadata.labels.clone();
        for key in [keys::WORK, keys::WORKLOAD_GROUP_ID] {
            world.placement("w.d-5058f").labels_mut().remove(key);
            world.converge();
            let placement = world.placement("w.d-5058f");
            assert_eq!(placement.metadata.labels, whole);
            assert_eq!(placement.metadata.deletion_timestamp, None);
        }
    }
}

#[test]
fn a_placement_says_of_which_place_its_status_speaks() {
    let store = StateStoreRef { kind: kratix_api::destination::StateStoreKind::GitStateStore, name: "default".into() };
    let mut on = destination("d", &[]);
    on.spec.state_store_ref = Some(store.clone());
    let world = World::new(work("w", vec![group(".", &[])]), vec![on]);
    let mut snapshot = world.snapshot();
    snapshot.places.insert(store, "here".into());
    let noted = |snapshot: &Snapshot| match &decide(snapshot).writes[..] {
        [Write::Create { object, .. }] => object["metadata"]["annotations"]["kratix.io/store-location"].clone(),
        [Write::Patch { patch, .. }] => patch["metadata"]["annotations"]["kratix.io/store-location"].clone(),
        other => panic!("{other:?}"),
    };
    let here = noted(&snapshot);
    assert!(here.is_string());
    // One of the original gets it with its other new labels; one that has it keeps it, wherever the store is now.
    let Write::Create { object, .. } = decide(&snapshot).writes.remove(0) else { panic!() };
    let mut placement: WorkPlacement = serde_json::from_value(object).unwrap();
    snapshot.places.values_mut().for_each(|place| *place = "there".into());
    snapshot.placements = vec![Arc::new(placement.clone())];
    assert!(decide(&snapshot).writes.is_empty());
    placement.annotations_mut().clear();
    snapshot.placements = vec![Arc::new(placement)];
    assert_ne!(noted(&snapshot), here);
}
