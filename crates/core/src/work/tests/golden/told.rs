//! The same happenings are told in the same words.

use super::*;

/// Returns `type reason reporter note` of the events of one stage that the controllers of delivery have reported.
fn recorded_events(path: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let reporters = ["Scheduler", "WorkController", "WorkPlacementController", "DestinationController"];
    let event = |line: &str| {
        let columns: Vec<&str> = line.split(" | ").map(str::trim).collect();
        let [kind, reason, action, reporter, _, _, note, ..] = columns[..] else { return None };
        assert_eq!(reason, action, "{line}");
        reporters.contains(&reporter).then(|| format!("{kind} {reason} {reporter} {note}"))
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(event).collect()
}

pub(super) fn tell<F>(said: &mut BTreeSet<String>, plan: &Plan<F>) {
    let texts = plan
        .events
        .iter()
        .map(|event| format!("{:?} {} {} {}", event.type_, event.reason, event.reporter.name(), event.note.trim_end()));
    said.extend(texts);
}

#[test]
fn events_are_those_of_the_original() {
    let Some(golden) = recordings() else { return };
    let mut compared = 0;
    for scenario in
        ["05-destination-selector-groups", "06-filepath-modes-update-delete", "07-unscheduled-misplaced-strict"]
    {
        // What can be said at all about the objects of the scenario, from nothing and from where they are.
        let mut said = BTreeSet::new();
        let mut recorded = BTreeSet::new();
        for stage in stages(&golden.join(scenario)) {
            recorded.extend(recorded_events(&golden.join(scenario).join(format!("events/{}.txt", stage.name))));
            for work in stage.works.values() {
                let mut fresh = work.clone();
                fresh.status = None;
                let mut existing = stage.placements_of(&work.name_any());
                tell(&mut said, &decide(&stage.snapshot(&fresh, existing.clone(), None)));
                for placement in &mut existing {
                    // The moment at which it stops matching, and one at which its content is another one.
                    let placement = Arc::make_mut(placement);
                    placement.labels_mut().remove(keys::MISPLACED);
                    placement.spec.generation = Some(-1);
                }
                tell(&mut said, &decide(&stage.snapshot(&fresh, existing.clone(), None)));
                for placement in &existing {
                    let name = &placement.spec.target_destination_name;
                    // From nothing, on the very Destination that the original has drawn.
                    let only = BTreeSet::from([name.clone()]);
                    tell(&mut said, &decide(&stage.snapshot(&fresh, Vec::new(), Some(&only))));
                    let Some(destination) = stage.destinations.get(name) else { continue };
                    let mut fresh = WorkPlacement::clone(placement);
                    (fresh.status, fresh.metadata.deletion_timestamp) = (None, None);
                    let snapshot = placement_snapshot(&stage, &fresh, destination);
                    let Some(effect) = work_placement::decide(&snapshot).effect else { continue };
                    for changed in [true, false] {
                        let outcome = Ok(Written { version: Some("<commit>".into()), changed });
                        let attempt = Attempt { stamp: effect.stamp.clone(), at: at(0), outcome };
                        tell(&mut said, &work_placement::record(&snapshot, attempt).plan);
                    }
                }
            }
            for destination in stage.destinations.values() {
                let mut fresh = destination.clone();
                (fresh.status, fresh.metadata.deletion_timestamp) = (None, None);
                fresh.metadata.finalizers = None;
                fresh.spec.cleanup = kratix_api::destination::Cleanup::None;
                let snapshot = destination_snapshot(fresh);
                let Some(effect) = destinations::decide(&snapshot).effect else { continue };
                let outcome = Ok(Written { version: Some("<commit>".into()), changed: true });
                let attempt = Attempt { stamp: effect.stamp, at: at(0), outcome };
                tell(&mut said, &destinations::record(&snapshot, attempt).plan);
            }
        }
        recorded.retain(|event| !event.ends_with("operation: unchanged"));
        let missing: Vec<&String> = recorded.difference(&said).collect();
        assert!(missing.is_empty(), "{scenario}: {missing:#?}");
        compared += recorded.len();
    }
    assert!(compared >= 50, "{compared}");
}

#[test]
fn a_push_that_is_refused_is_told_as_in_the_original() {
    let Some(golden) = recordings() else { return };
    let scenario = golden.join("18-store-credentials-and-recovery");
    let stage = stages(&scenario).into_iter().find(|stage| stage.name == "02-push-refused").unwrap();
    let [(name, recorded)] = &stage.placements.iter().collect::<Vec<_>>()[..] else { panic!("one placement") };
    let work = &stage.works[&recorded.labels()[keys::WORK]];
    let told = said(&recorded.status.as_ref().unwrap().conditions);
    // What the store has said; of it, the original has the words of the git program.
    let (.., message) = told.iter().find(|(r#type, ..)| r#type == "WriteSucceeded").unwrap();
    let refusal = Failure { message: message.clone(), about: About::Store, retry: true, retry_after: None };
    let mut events = BTreeSet::new();
    let mut placement = WorkPlacement::clone(recorded);
    placement.status = None;
    let status = attempted(&stage, placement.clone(), &stage.destinations["g-18-one"], Err(refusal), &mut events);
    assert_eq!(said(&status.conditions), told, "{name}");
    placement.status = Some(status);
    let mut fresh = work.clone();
    fresh.status = None;
    let mut world = World::new(fresh, Vec::new());
    let plan = decide(&stage.snapshot(world.work.as_ref().unwrap(), vec![Arc::new(placement)], None));
    tell(&mut events, &plan);
    world.execute(&plan, usize::MAX);
    let status = world.work.unwrap().status.unwrap_or_default();
    assert_eq!(said(&status.conditions), said(&work.status.as_ref().unwrap().conditions));
    let mut expected = recorded_events(&scenario.join("events/02-push-refused.txt"));
    expected.retain(|event| event.starts_with("Warning"));
    assert_eq!(expected.len(), 2, "{expected:#?}");
    // The recorder writes a break of the line as two characters.
    let events: BTreeSet<String> = events.iter().map(|event| event.replace('\n', "\\n")).collect();
    let missing: Vec<&String> = expected.difference(&events).collect();
    assert!(missing.is_empty(), "{missing:#?} {events:#?}");
}
