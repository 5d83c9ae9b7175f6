//! The acceptance behaviours of scheduling, by their numbers in the specification.

use super::*;

const ANY: &[(&str, &[(&str, &str)])] = &[];
const PROD: &[(&str, &[(&str, &str)])] = &[("promise", &[("env", "prod")])];

fn strict(name: &str, pairs: &[(&str, &str)]) -> Destination {
    let mut strict = destination(name, pairs);
    strict.spec.strict_match_labels = true;
    strict
}

fn settled(work: Work, destinations: Vec<Destination>) -> World {
    let mut world = World::new(work, destinations);
    world.settle();
    world
}

impl World {
    /// A new version of the Work's groups, as a workflow that has run again writes it.
    fn rerun(&mut self, groups: Vec<WorkloadGroup>) {
        let work = self.work.as_mut().unwrap();
        work.spec.workload_groups = groups;
        work.metadata.generation = work.metadata.generation.map(|generation| generation + 1);
        self.settle();
    }

    /// What its own controller does with a placement that is being deleted.
    fn finish_deletions(&mut self) {
        self.placements.retain(|_, placement| placement.metadata.deletion_timestamp.is_none());
    }

    fn counters(&self) -> (Option<i64>, Option<i64>) {
        let status = self.work.as_ref().unwrap().status.clone().unwrap();
        (status.work_placements, status.work_placements_created)
    }
}

// spec 05 §14.7
#[test]
fn a_dependency_without_selector_goes_to_every_destination_but_strict_ones_with_labels() {
    let destinations = vec![
        destination("bare", &[]),
        destination("labelled", &[("env", "dev")]),
        strict("strict-bare", &[]),
        strict("strict-labelled", &[("env", "dev")]),
    ];
    let world = settled(work("deps", vec![group(".", ANY)]), destinations);
    assert_eq!(world.names(), ["deps.bare-5058f", "deps.labelled-5058f", "deps.strict-bare-5058f"]);
}

// spec 05 §14.8
#[test]
fn the_value_of_the_promise_decides_where_a_group_goes() {
    let selectors: &[(&str, &[(&str, &str)])] = &[
        ("promise", &[("env", "promise")]),
        ("promise-workflow", &[("env", "workflow")]),
        ("resource-workflow", &[("env", "request")]),
    ];
    let destinations = ["promise", "workflow", "request"].map(|env| destination(env, &[("env", env)]));
    let world = settled(request("w", vec![group(".", selectors)]), destinations.clone().into());
    assert_eq!(world.names(), ["w.promise-5058f"]);
    let world = settled(request("w", vec![group(".", &selectors[1..])]), destinations.into());
    assert_eq!(world.names(), ["w.workflow-5058f"]);
}

// spec 05 §14.9, §5.7
#[test]
fn a_request_whose_selectors_change_is_neither_moved_nor_doubled_but_misplaced() {
    let destinations = vec![destination("dev", &[("env", "dev")]), destination("prod", &[("env", "prod")])];
    let mut world = settled(request("w", vec![group(".", DEV)]), destinations);
    world.rerun(vec![group(".", PROD)]);
    assert_eq!(world.names(), ["w.dev-5058f"]);
    assert_eq!(world.placement("w.dev-5058f").labels()[keys::MISPLACED], "true");
    assert_eq!(world.condition("Ready"), text((Status::False, "Misplaced", "Misplaced")));
    assert_eq!(world.condition("ScheduleSucceeded").1, "DestinationSelectorMismatch");
    assert_eq!(world.counters(), (Some(1), Some(1)), "misplaced groups count as created");
    world.rerun(vec![group(".", DEV)]);
    assert!(!world.placement("w.dev-5058f").labels().contains_key(keys::MISPLACED));
    assert_eq!(world.condition("Ready").2, "Ready");
}

// spec 05 §14.10, §5.4
#[test]
fn a_dependency_whose_selectors_narrow_keeps_old_placements_marked_and_up_to_date() {
    let destinations = vec![destination("dev", &[("env", "dev")]), destination("prod", &[("env", "prod")])];
    let mut world = settled(work("deps", vec![group(".", ANY)]), destinations);
    let mut narrow = group(".", PROD);
    narrow.workloads[0].content = compression::compress(b"a: 2\n");
    world.rerun(vec![narrow.clone()]);
    assert_eq!(world.names(), ["deps.dev-5058f", "deps.prod-5058f"]);
    assert_eq!(world.placement("deps.dev-5058f").labels()[keys::MISPLACED], "true");
    assert_eq!(world.placement("deps.dev-5058f").spec.workloads, narrow.workloads);
    // Without any candidate it is misplaced, not unscheduled, and nothing is said to be waited for.
    world.destinations.retain(|found| found.name_any() == "dev");
    let plan = world.decide();
    assert_eq!(reasons(&plan), ["DestinationSelectorMismatch"]);
    world.settle();
    assert_eq!(world.condition("Ready").2, "Misplaced");
}

// spec 05 §14.11, §5.8
#[test]
fn groups_that_are_replaced_take_their_placements_along_and_one_that_fits_nowhere_holds_up_no_other() {
    let mut world = settled(request("w", vec![group("old", ANY)]), vec![destination("d", &[])]);
    let old = world.names();
    world.rerun(vec![group(".", ANY), group("x", PROD)]);
    world.finish_deletions();
    world.settle();
    assert_eq!(world.names(), ["w.d-5058f"], "{old:?} is gone");
    assert_eq!(world.counters(), (Some(2), Some(1)));
    assert_eq!(world.condition("ScheduleSucceeded").1, "UnscheduledWorkloadGroups");
    world.rerun(vec![]);
    world.finish_deletions();
    world.settle();
    assert!(world.names().is_empty());
    assert_eq!(world.counters(), (None, None), "zero is left out");
}

// spec 05 §14.12
#[test]
fn more_destinations_that_match_mark_nothing_as_misplaced() {
    for work in [request("w", vec![group(".", DEV)]), work("w", vec![group(".", DEV)])] {
        let mut world = settled(work, vec![destination("m", &[("env", "dev")])]);
        for name in ["a", "z"] {
            world.destinations.push(destination(name, &[("env", "dev")]));
            world.settle();
        }
        assert!(world.placements.values().all(|placement| !placement.labels().contains_key(keys::MISPLACED)));
        assert_eq!(world.condition("Ready").2, "Ready");
    }
}

// spec 05 §14.13, decision 7
#[test]
fn a_second_pass_changes_nothing_and_a_written_work_stays_ready() {
    for work in [request("w", vec![group(".", DEV), group("x", DEV)]), work("w", vec![group(".", DEV)])] {
        let mut world = settled(work, vec![destination("a", &[("env", "dev")]), destination("b", &[("env", "dev")])]);
        let before = (world.placements.clone(), world.work.clone());
        let plan = world.decide();
        assert!(plan.is_silent(), "{plan:?}");
        world.now += 3_600;
        world.settle();
        assert_eq!((world.placements.clone(), world.work.clone()), before);
        assert_eq!(world.condition("Ready").2, "Ready");
    }
}

// spec 05 §14.14, §5.7
#[test]
fn a_placement_that_was_deleted_comes_back() {
    for work in [request("w", vec![group(".", ANY)]), work("w", vec![group(".", ANY)])] {
        let mut world = settled(work, vec![destination("d", &[])]);
        world.placement("w.d-5058f").metadata.deletion_timestamp = Some(Time(at(0)));
        world.converge();
        assert_eq!(world.names(), ["w.d-5058f"], "its files go first");
        assert_eq!(world.condition("Ready").2, "Pending");
        world.finish_deletions();
        world.settle();
        assert_eq!(world.names(), ["w.d-5058f"]);
        assert_eq!(world.condition("Ready").2, "Ready");
    }
}

// spec 05 §5.3, §4.3
#[test]
fn a_placement_that_goes_from_where_it_should_not_be_counts_until_it_has_gone() {
    for work in [request("w", vec![group(".", DEV)]), work("w", vec![group(".", DEV)])] {
        let mut world = settled(work, vec![destination("d", &[("env", "dev")])]);
        world.destinations = vec![destination("d", &[])];
        world.settle();
        assert_eq!(world.condition("ScheduleSucceeded").1, "DestinationSelectorMismatch");
        world.placement("w.d-5058f").metadata.deletion_timestamp = Some(Time(at(0)));
        let plan = world.decide();
        assert!(plan.writes.is_empty() && plan.events.is_empty(), "{plan:?}");
        world.converge();
        assert_eq!(world.condition("ScheduleSucceeded").1, "DestinationSelectorMismatch");
        assert_eq!(world.condition("Ready").2, "Misplaced");
        world.finish_deletions();
        world.settle();
        assert_eq!(world.condition("ScheduleSucceeded").1, "UnscheduledWorkloadGroups");
    }
}

// spec 05 §14.15, §4.2
#[test]
fn a_request_without_destination_looks_again_each_minute_and_a_dependency_waits_for_one() {
    let request = settled(request("w", vec![group(".", DEV)]), vec![]);
    assert_eq!(request.decide().next, Next::After(Duration::from_secs(60)));
    let mut dependency = settled(work("w", vec![group(".", DEV)]), vec![]);
    assert_eq!(dependency.decide().next, Next::OnChange);
    dependency.destinations.push(destination("d", &[("env", "dev")]));
    dependency.settle();
    assert_eq!(dependency.condition("Ready").2, "Ready");
}

// spec 05 §5.7: a Destination being deleted with its files
#[test]
fn what_was_on_a_destination_that_goes_with_its_files_goes_elsewhere_or_waits() {
    let mut leaving = destination("a", &[]);
    leaving.metadata.finalizers = Some(vec![keys::FINALIZER_DESTINATION_CLEANUP.into()]);
    for (work, then) in
        [(work("w", vec![group(".", ANY)]), &["w.b-5058f"][..]), (request("w", vec![group(".", ANY)]), &["w.b-5058f"])]
    {
        let mut world = settled(work, vec![leaving.clone()]);
        world.destinations[0].metadata.deletion_timestamp = Some(Time(at(0)));
        // Its controller deletes them.
        world.placement("w.a-5058f").metadata.deletion_timestamp = Some(Time(at(0)));
        world.finish_deletions();
        world.settle();
        assert!(world.names().is_empty(), "nothing is made there again");
        assert_eq!(world.condition("ScheduleSucceeded").1, "UnscheduledWorkloadGroups");
        world.destinations.push(destination("b", &[]));
        world.settle();
        assert_eq!(world.names(), then);
    }
}

// spec 05 §5.7: a Destination deleted without its files; weakness 12
#[test]
fn what_was_on_a_destination_that_is_gone_is_misplaced_until_it_returns() {
    for work in [request("w", vec![group(".", DEV)]), work("w", vec![group(".", DEV)])] {
        let mut world = settled(work, vec![destination("d", &[("env", "dev")])]);
        let gone = world.destinations.remove(0);
        let told = world.decide().events.swap_remove(0);
        assert_eq!(told.note, "destination: d does not exist any more, marking this workplacement as misplaced");
        world.settle();
        assert_eq!(world.names(), ["w.d-5058f"]);
        assert_eq!(world.placement("w.d-5058f").labels()[keys::MISPLACED], "true");
        assert_eq!(world.condition("Ready").2, "Misplaced");
        let findings = world.decide().findings;
        assert!(matches!(&findings[0], Finding::Misplaced { on, because, .. } if on == "d" && because.is_empty()));
        world.destinations.push(gone);
        world.settle();
        assert!(!world.placement("w.d-5058f").labels().contains_key(keys::MISPLACED));
        assert_eq!(world.condition("Ready").2, "Ready");
    }
}

// spec 05 §4.3: the order of outcomes; weakness 2
#[test]
fn of_several_outcomes_the_weightiest_is_told_once() {
    let mut short = group("short", ANY);
    short.id = "5".into();
    let misplaced_and = |groups: Vec<WorkloadGroup>| {
        let destinations = vec![destination("dev", &[("env", "dev")]), destination("x", &[("env", "x")])];
        let mut world = settled(request("w", vec![group(".", DEV)]), destinations);
        let all: Vec<WorkloadGroup> = [group(".", PROD)].into_iter().chain(groups).collect();
        world.rerun(all);
        world
    };
    let mut world = misplaced_and(vec![group("y", ANY)]);
    assert_eq!(world.condition("ScheduleSucceeded").1, "DestinationSelectorMismatch");
    world.rerun(vec![group(".", PROD), group("z", PROD)]);
    world.finish_deletions();
    assert_eq!(world.condition("ScheduleSucceeded").1, "UnscheduledWorkloadGroups");
    world.set_written("w.dev-5058f", Status::False);
    let plan = world.decide();
    assert_eq!(reasons(&plan), ["WorkplacementsFailing"], "one status, one event");
    world.converge();
    assert_eq!(world.condition("ScheduleSucceeded").1, "WorkplacementsFailing");
    let mut world = misplaced_and(vec![short]);
    world.set_written("w.dev-5058f", Status::False);
    world.converge();
    assert_eq!(world.condition("ScheduleSucceeded").1, "FailedToScheduleWorkloads");
}

// spec 05 §4.4
#[test]
fn a_write_of_which_nothing_is_known_is_no_failure() {
    for status in [None, Some(Status::Unknown)] {
        let mut world = settled(request("w", vec![group(".", ANY)]), vec![destination("d", &[])]);
        world.placement("w.d-5058f").status = None;
        if let Some(status) = status {
            world.set_written("w.d-5058f", status);
        }
        world.converge();
        assert_eq!(world.condition("ScheduleSucceeded").0, Status::True);
        assert_eq!(world.condition("Ready").2, "Pending");
    }
}

// spec 05 §5.3: the two Destinations of one group that an earlier pass has left
#[test]
fn a_group_with_two_placements_keeps_both_up_to_date_and_is_misplaced_if_one_of_them_is() {
    let mut world = settled(work("w", vec![group(".", ANY)]), vec![destination("a", &[]), destination("b", &[])]);
    // As if the Work had been one of a request all along.
    world.work.as_mut().unwrap().spec.resource_name = "mine".into();
    world.destinations[1] = strict("b", &[("x", "y")]);
    world.rerun(vec![group(".", ANY)]);
    assert_eq!(world.names(), ["w.a-5058f", "w.b-5058f"]);
    assert!(world.placements.values().all(|placement| placement.spec.generation == Some(2)));
    assert_eq!(world.condition("Ready").2, "Misplaced");
    assert!(!world.placement("w.a-5058f").labels().contains_key(keys::MISPLACED));
}

// spec 05 weakness 5
#[test]
fn a_placement_of_an_equally_named_work_elsewhere_is_no_placement_of_this_one() {
    let own = ObjectKey::namespaced("default", "w.d-5058f");
    let elsewhere = ObjectKey::namespaced("elsewhere", "w.d-5058f");
    let here = settled(request("w", vec![group(".", ANY)]), vec![destination("d", &[])]);
    let mut foreign = here.placements[&own].clone();
    (foreign.metadata.namespace, foreign.metadata.owner_references) = (Some("elsewhere".into()), None);
    let mut world = World::new(here.work.clone().unwrap(), here.destinations.clone());
    world.placements.insert(elsewhere.clone(), foreign.clone());
    world.settle();
    assert!(world.placements.contains_key(&own), "it is not placed by somebody else's");
    world.work.as_mut().unwrap().metadata.deletion_timestamp = Some(Time(at(0)));
    world.converge();
    assert!(world.work.is_some(), "its own has files to remove");
    world.placements.remove(&own);
    world.converge();
    assert!(world.work.is_none(), "nothing else to wait for");
    assert_eq!(world.placements, [(elsewhere, foreign)].into());
}

// spec 05 weakness 11
#[test]
fn names_of_failing_placements_are_sorted_whatever_the_order_of_groups() {
    let groups = vec![group("dest1", ANY), group(".", ANY)];
    let mut world = settled(request("w", groups), vec![destination("d", &[])]);
    for name in ["w.d-ba6cb", "w.d-5058f"] {
        world.set_written(name, Status::False);
    }
    world.converge();
    assert_eq!(world.condition("ScheduleSucceeded").2, "Workplacements failed to write: [w.d-5058f,w.d-ba6cb]");
}

// spec 05 weakness 13
#[test]
fn a_preview_goes_to_destinations_of_previews_alone_and_nothing_else_does_unless_it_asks_to() {
    let preview: &[(&str, &str)] = &[(keys::DRY_RUN, "true")];
    let destinations = || vec![destination("real", &[("env", "dev")]), destination("preview", preview)];
    let mut dry = request("w", vec![group(".", DEV)]);
    dry.metadata.labels.as_mut().unwrap().insert(keys::DRY_RUN.into(), "true".into());
    assert_eq!(settled(dry.clone(), destinations()).names(), ["w.preview-5058f"]);
    let waiting = settled(dry, vec![destination("real", &[("env", "dev")])]);
    assert!(waiting.names().is_empty(), "rather nowhere than on a real one");
    let asks: &[(&str, &[(&str, &str)])] = &[("promise", preview)];
    assert_eq!(settled(request("w", vec![group(".", asks)]), destinations()).names(), ["w.preview-5058f"]);
    assert_eq!(settled(work("w", vec![group(".", ANY)]), destinations()).names(), ["w.real-5058f"]);
    // Only the value that means it.
    let mut other = request("w", vec![group(".", DEV)]);
    other.metadata.labels.as_mut().unwrap().insert(keys::DRY_RUN.into(), "false".into());
    assert_eq!(settled(other, destinations()).names(), ["w.real-5058f"]);
}

// spec 05 weakness 2 and §4.1: who comes back for what
#[test]
fn a_status_that_was_written_brings_no_pass_and_what_its_status_sums_up_does() {
    let mut world = settled(request("w", vec![group(".", ANY)]), vec![destination("d", &[])]);
    let before = world.work.clone().unwrap();
    let mut after = before.clone();
    after.status = None;
    assert!(!concerns_itself(Some(&before), Some(&after)));
    after.metadata.generation = Some(9);
    assert!(concerns_itself(Some(&before), Some(&after)));
    let placement = world.placement("w.d-5058f").clone();
    let changed = |change: fn(&mut WorkPlacement)| {
        let mut after = placement.clone();
        change(&mut after);
        concerns_work(Some(&placement), Some(&after))
    };
    let own =
        |placement: &mut WorkPlacement, key: &str| drop(placement.annotations_mut().insert(key.into(), "b".into()));
    assert!(!changed(|placement| placement.annotations_mut().clear()), "it has its own ones alone");
    assert!(changed(|placement| drop(placement.annotations_mut().insert("a".into(), "b".into()))), "one of the Work's");
    for key in [crate::work_placement::STORE_LOCATION, crate::work_placement::FILES_AT, keys::TRACE_PARENT] {
        let mut after = placement.clone();
        own(&mut after, key);
        assert!(!concerns_work(Some(&placement), Some(&after)), "{key}");
    }
    assert!(!changed(|placement| placement.status.as_mut().unwrap().version_id = "1".into()));
    assert!(changed(|placement| placement.status.as_mut().unwrap().conditions[0].status = Status::False));
    assert!(changed(|placement| placement.metadata.generation = Some(9)));
    assert!(changed(|placement| placement.metadata.deletion_timestamp = Some(Time(at(0)))));
    assert!(changed(|placement| placement.metadata.labels = None));
    assert!(concerns_work(Some(&placement), None) && concerns_work(None, Some(&placement)));
}
