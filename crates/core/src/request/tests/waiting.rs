//! What a request says of what takes its time: a deletion, a Promise that has not come back.

use super::deletion::{deleted, is_gone, says};
use super::failure::pod;
use super::*;

#[test]
fn a_deletion_that_waits_for_its_next_attempt_says_when_that_is() {
    let mut world = deleted(&["bye"]);
    world.settle("a");
    world.finish("a", Pod::RetriesAfter(90));
    world.settle("a");
    let expected = "waits for label kratix.io/workflow-suspended to be removed, or for 2027-01-15T08:01:31Z, when its pipeline \
                    runs again";
    assert_eq!(says(&world), expected);
}

/// Nobody but a person can tell whether it still has something to do.
#[test]
fn a_deletion_that_has_waited_long_for_a_pipeline_says_where_it_is_and_what_stops_it() {
    for (delete_runs, rest) in [(false, ""), (true, " and runs it again")] {
        let mut world = World::new(spec(&["build"], &["bye"], ""));
        world.ask("a");
        if delete_runs {
            world.play("a");
        } else {
            world.settle("a");
        }
        world.delete("Env", &key("a"));
        world.settle("a");
        let job = ObjectKey::of(&world.running("a").unwrap());
        let name = if delete_runs { "delete pipeline bye" } else { "configure pipeline build" };
        let soon = format!("waits for {name} to end (Job {job})");
        world.wait(59);
        world.settle("a");
        assert_eq!(says(&world), soon);
        let since = world.get("Job", &job)["metadata"]["creationTimestamp"].as_str().unwrap().to_owned();
        world.wait(1);
        let plan = world.settle("a");
        assert_eq!(plan.next, Next::After(Duration::from_secs(15)), "somebody looks when it is time");
        let label = format!("; label kratix.io/manual-reconciliation=true stops it{rest}");
        assert_eq!(says(&world), format!("{soon}, which has run since {since}{label}"));
        let runs = json!({
            "name": "render", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": { "running": {} },
        });
        pod(&mut world, "p", json!({ "phase": "Running", "initContainerStatuses": [runs] }));
        world.wait(1000);
        world.settle("a");
        let whole = format!("{soon}, which has run since {since}, and is in container render{label}");
        assert_eq!(says(&world), whole);
        assert!(world.decide("a").is_silent());
        world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
        world.settle("a");
        assert_eq!(says(&world), soon, "it stops, as it says");
        world.stop_jobs("a");
        world.settle("a");
        assert_eq!(world.ran("a").iter().filter(|name| *name == "bye").count(), 1 + usize::from(delete_runs));
        world.finish("a", Pod::Succeeds);
        world.settle("a");
        assert!(is_gone(&world, "a"));
    }
}

/// The reason stays: it is the memory of the pause, whose end starts a run.
#[test]
fn a_request_whose_pause_is_over_waits_for_its_promise_and_says_so() {
    let mut world = two_pipelines();
    world.play("a");
    let requires = |world: &mut World, state: &str| {
        let status = json!({ "status": { "requiredPromises": [{ "name": "r", "state": state }] } });
        world.change("Promise", &ObjectKey::cluster(PROMISE), status);
        world.settle("a");
    };
    let column = |world: &World| Document::read(world.status("a")).condition(condition::RECONCILED).unwrap().message;
    requires(&mut world, "Requirement not installed");
    assert_eq!(column(&world), "Reconciled");
    world.label("a", keys::PAUSED, Some("true"));
    world.settle("a");
    assert_eq!(column(&world), "Paused");
    world.label("a", keys::PAUSED, None);
    world.settle("a");
    assert_eq!(column(&world), "Pending: waits for its Promise after the pause");
    assert_eq!(world.told("a", "Reconciled"), "Unknown/PausedReconciliation");
    assert!(world.decide("a").is_silent());
    requires(&mut world, "Requirement installed");
    world.play("a");
    assert_eq!(world.ran("a"), ["first", "second", "first", "second"]);
    assert_eq!(column(&world), "Reconciled");
}
