//! What the API server refuses, and what somebody else took away.

use super::*;

/// Returns what becomes of a pass in which some writes are refused.
fn course<'a>(snapshot: &'a Snapshot, refusal: impl Fn(&Write) -> Option<String>) -> Course<'a> {
    let mut course = Course::of(snapshot);
    for write in decide(snapshot).writes {
        if course.allows(&write)
            && let Some(cause) = refusal(&write)
        {
            course.fail(&write, Some(cause));
        }
    }
    course
}

#[test]
fn a_refused_write_is_told_on_the_work_and_names_its_group_alone() {
    let groups = vec![group(".", &[]), group("dest1", &[])];
    let mut world = World::new(work("w", groups), vec![destination("d", &[])]);
    let key = ObjectKey::namespaced("default", "w.d-5058f");
    let cause = "create of WorkPlacement default/w.d-5058f failed: forbidden";
    let snapshot = world.snapshot();
    let plan = refused(&snapshot, &course(&snapshot, |write| (*write.address().1 == key).then(|| cause.to_owned())));
    assert!(
        plan.events.is_empty(),
        "the other group has been placed, which was told with the write: {:?}",
        reasons(&plan)
    );
    let told = decide(&snapshot).events;
    assert!(!told.is_empty() && told.iter().all(|event| event.of.is_some()), "{told:?}");
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
    let snapshot = world.snapshot();
    let plan = refused(&snapshot, &course(&snapshot, |_| Some(cause.clone())));
    assert_eq!(plan.status, None);
    assert_eq!(plan.events[0].reason, "FailedDelete");
    assert_eq!(plan.events[0].note, format!("deleting associated workplacement failed: {cause}"));
}

#[test]
fn after_a_failure_only_what_does_not_depend_on_it_goes_on() {
    let groups = vec![group(".", &[]), group("dest1", &[])];
    let mut world = World::new(work("w", groups), vec![destination("d", &[])]);
    world.work.as_mut().unwrap().metadata.finalizers = None;
    let writes = |snapshot: &Snapshot, fails: &dyn Fn(&Write) -> bool| {
        let mut course = Course::of(snapshot);
        let mut done = Vec::new();
        for write in decide(snapshot).writes {
            match (course.allows(&write), fails(&write)) {
                (true, true) => course.fail(&write, None),
                (true, false) => done.push(write.address().1.name.clone()),
                (false, _) => {}
            }
        }
        done
    };
    // The finalizer protects what is made after it.
    assert_eq!(writes(&world.snapshot(), &|_| false), ["w", "w.d-5058f", "w.d-ba6cb"]);
    assert!(writes(&world.snapshot(), &|write| write.address().0.kind == "Work").is_empty());
    let is_first = |write: &Write| write.address().1.name == "w.d-5058f";
    assert_eq!(writes(&world.snapshot(), &is_first), ["w", "w.d-ba6cb"]);
    // What holds the old content stays until the new content has its place.
    world.settle();
    world.work.as_mut().unwrap().spec.workload_groups = vec![group("other", &[])];
    let all = writes(&world.snapshot(), &|_| false);
    assert_eq!(all.len(), 3);
    assert_eq!(writes(&world.snapshot(), &|write| matches!(write, Write::Create { .. })), [""; 0]);
    assert_eq!(
        writes(&world.snapshot(), &is_first),
        all.iter().filter(|name| *name != "w.d-5058f").cloned().collect::<Vec<_>>()
    );
}

#[test]
fn what_was_held_up_is_not_told_as_done() {
    let groups = vec![group(".", &[]), group("dest1", &[])];
    let mut world = World::new(work("w", groups), vec![destination("d", &[])]);
    world.work.as_mut().unwrap().metadata.finalizers = None;
    let snapshot = world.snapshot();
    // Without the finalizer nothing was placed.
    let plan = refused(&snapshot, &course(&snapshot, |write| (write.address().0.kind == "Work").then(|| "no".into())));
    assert_eq!(reasons(&plan), [""; 0]);
    world.execute(&plan, usize::MAX);
    let text = world.condition("ScheduleSucceeded").2;
    assert!(text.starts_with("Failed to schedule") && text.contains(DOT), "{text}");

    // One group is refused, and the other has run into a conflict.
    let snapshot = world.snapshot();
    let mut course = Course::of(&snapshot);
    for (at, write) in decide(&snapshot).writes.iter().filter(|write| matches!(write, Write::Create { .. })).enumerate()
    {
        course.fail(write, (at == 0).then(|| "no".into()));
    }
    assert_eq!(reasons(&refused(&snapshot, &course)), [""; 0]);
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

// Decisions 9, 10
#[test]
fn what_a_work_says_of_the_files_of_its_placement_is_not_believed() {
    use crate::work_placement::OWN_ANNOTATIONS;
    let mut work = request("w", vec![group(".", &[])]);
    let forged = OWN_ANNOTATIONS.into_iter().chain(["team.example.org/owner"]);
    work.metadata.annotations = Some(forged.clone().map(|key| (key.to_owned(), "forged".to_owned())).collect());
    let mut made = World::new(work.clone(), vec![destination("d", &[])]);
    made.settle();
    let mut aligned = World::new(request("w", vec![group(".", &[])]), vec![destination("d", &[])]);
    aligned.settle();
    aligned.work = Some(work);
    aligned.settle();
    for mut world in [made, aligned] {
        let placement = world.placement("w.d-5058f");
        let believed: Vec<&str> =
            forged.clone().filter(|key| placement.annotations().get(*key).is_some_and(|it| it == "forged")).collect();
        assert_eq!(believed, ["team.example.org/owner"]);
    }
}
