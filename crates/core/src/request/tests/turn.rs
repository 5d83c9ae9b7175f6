//! Waiting for the word of the Promise before a run that only it has caused.

use super::*;

const PIPELINES: [&str; 2] = ["first", "second"];

/// Returns a platform with a settled request whose Promise has changed and has not told it yet.
fn changed() -> World {
    let mut world = World::new(spec(&PIPELINES, &[], ""));
    world.ask("a");
    world.play("a");
    change_promise(&mut world, 2);
    world
}

/// Gives the Promise another spec; that all requests were told before is on record.
fn change_promise(world: &mut World, generation: i64) {
    let status = json!({ "observedGeneration": generation - 1 });
    let patch = json!({ "metadata": { "generation": generation }, "status": status });
    world.change("Promise", &ObjectKey::cluster(PROMISE), patch);
    let mut changed = spec(&PIPELINES, &[], "");
    changed["destinationSelectors"] = json!([{ "matchLabels": { "generation": generation.to_string() } }]);
    world.revise("not-set", changed);
}

fn tell(world: &mut World, generation: i64) {
    let told = json!({ "metadata": {
        "labels": { keys::RUN_FROM_START: "true" },
        "annotations": { crate::promise::RERUN: format!("generation-{generation}") },
    }});
    world.change("Env", &key("a"), told);
}

#[test]
fn a_request_whose_promise_has_changed_runs_once_when_it_is_told() {
    let mut world = changed();
    let plan = world.settle("a");
    assert_eq!(plan.findings, [Finding::AwaitsTurn]);
    assert_eq!(world.ran("a").len(), 2);
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled", "what the last run has left is there");
    tell(&mut world, 2);
    world.play("a");
    assert_eq!(world.ran("a"), ["first", "second", "first", "second"]);
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
}

#[test]
fn a_request_that_waits_still_says_how_its_works_stand() {
    let mut world = changed();
    world.settle("a");
    let work = world.keys("Work").remove(0);
    let ready = |message: &str| {
        json!({ "status": { "conditions": [
            { "type": "Ready", "status": "False", "reason": "R", "message": message, "lastTransitionTime": null },
        ]}})
    };
    world.change("Work", &work, ready("Failing"));
    world.settle("a");
    assert_eq!(world.told("a", "WorksSucceeded"), "False/WorksFailing");
    assert_eq!(world.told("a", "Reconciled"), "False/WorksFailing");
    assert_eq!(world.ran("a").len(), 2);
    world.change("Work", &work, ready("Ready"));
    world.settle("a");
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
}

#[test]
fn what_somebody_asks_for_does_not_wait() {
    type Ask = fn(&mut World);
    let asked: [Ask; 3] = [
        |world| world.change("Env", &key("a"), json!({ "spec": { "size": "large" } })),
        |world| world.label("a", keys::MANUAL_RECONCILIATION, Some("true")),
        |world| world.label("a", keys::RUN_FROM_START, Some("true")),
    ];
    for ask in asked {
        let mut world = changed();
        world.settle("a");
        ask(&mut world);
        world.play("a");
        assert_eq!(world.ran("a").len(), 4);
        // The word that comes later finds that it has run with this very Promise.
        tell(&mut world, 2);
        world.play("a");
        assert_eq!(world.ran("a").len(), 4);
        assert_eq!(world.request("a")["metadata"]["labels"].get(keys::RUN_FROM_START), None);
    }
}

#[test]
fn the_end_of_its_own_pause_does_not_wait_for_a_round_of_the_promise() {
    // A round of a new generation, and one that somebody has asked for by label.
    for round in [None, Some("2.77")] {
        let mut world = changed();
        world.settle("a");
        if let Some(round) = round {
            let annotations = json!({ "metadata": { "annotations": { crate::promise::RERUN: round } } });
            world.change("Promise", &ObjectKey::cluster(PROMISE), annotations);
        }
        world.label("a", keys::PAUSED, Some("true"));
        world.settle("a");
        assert_eq!(world.told("a", "Reconciled"), "Unknown/PausedReconciliation");
        world.label("a", keys::PAUSED, None);
        world.play("a");
        assert_eq!(world.ran("a").len(), 4, "{round:?}");
        assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
    }
}

#[test]
fn a_new_request_does_not_wait() {
    let mut world = changed();
    world.ask("b");
    world.play("b");
    assert_eq!(world.ran("b").len(), 2);
}

#[test]
fn a_request_that_has_failed_waits_too() {
    let mut world = World::new(spec(&PIPELINES, &[], ""));
    world.ask("a");
    world.settle("a");
    world.finish("a", Pod::Fails);
    world.settle("a");
    change_promise(&mut world, 2);
    let plan = world.settle("a");
    assert_eq!(plan.findings, [Finding::AwaitsTurn]);
    assert_eq!(world.told("a", "Reconciled"), "False/ConfigureWorkflowFailed");
    tell(&mut world, 2);
    world.play("a");
    assert_eq!(world.ran("a"), ["first", "first", "second"]);
}

#[test]
fn a_request_whose_job_still_runs_waits_for_the_job_and_then_for_the_word() {
    let mut world = World::new(spec(&PIPELINES, &[], ""));
    world.ask("a");
    world.settle("a");
    change_promise(&mut world, 2);
    let plan = world.settle("a");
    assert!(matches!(plan.findings[0], Finding::InProgress { .. }));
    world.finish("a", Pod::Succeeds);
    assert_eq!(world.settle("a").findings, [Finding::AwaitsTurn]);
    tell(&mut world, 2);
    world.play("a");
    assert_eq!(world.ran("a"), ["first", "first", "second"]);
}

#[test]
fn the_word_for_an_earlier_change_is_not_the_word_for_this_one() {
    let mut world = changed();
    tell(&mut world, 2);
    world.play("a");
    change_promise(&mut world, 3);
    assert_eq!(world.settle("a").findings, [Finding::AwaitsTurn]);
    // A round that is over leaves nobody waiting.
    world.change("Promise", &ObjectKey::cluster(PROMISE), json!({ "status": { "observedGeneration": 3 } }));
    world.play("a");
    assert_eq!(world.ran("a").len(), 6);
}

#[test]
fn a_request_on_another_version_than_the_promise_does_not_wait() {
    let mut world = World::new(spec(&PIPELINES, &[], ""));
    world.revise("v1", spec(&PIPELINES, &[], ""));
    world.config.binding_strategy = crate::config::BindingStrategy::Pinned;
    world.ask("a");
    world.play("a");
    world.revise("v2", spec(&PIPELINES, &[], ""));
    let patch = json!({ "metadata": { "generation": 2 }, "status": { "observedGeneration": 1 } });
    world.change("Promise", &ObjectKey::cluster(PROMISE), patch);
    // Somebody edits the revision that it stays on.
    let edited = json!({ "spec": { "promiseSpec": { "destinationSelectors": [{ "matchLabels": { "a": "b" } }] } } });
    world.change("PromiseRevision", &ObjectKey::cluster(format!("{PROMISE}-v1")), edited);
    world.play("a");
    assert_eq!(world.ran("a").len(), 4);
    // Somebody moves it to the new version.
    let binding = world.keys("ResourceBinding").remove(0);
    world.change("ResourceBinding", &binding, json!({ "spec": { "version": "v2" } }));
    world.play("a");
    assert_eq!(world.status("a")["promiseVersion"], "v2");
}

#[test]
fn a_request_with_jobs_of_the_original_waits_as_well() {
    let mut world = changed();
    for job in world.keys("Job") {
        let annotations = json!({ workflow::SEQUENCE: null, workflow::RUN: null, workflow::GENERATION: null });
        world.change("Job", &job, json!({ "metadata": { "annotations": annotations } }));
    }
    assert_eq!(world.settle("a").findings, [Finding::AwaitsTurn]);
    tell(&mut world, 2);
    world.play("a");
    assert_eq!(world.ran("a").len(), 4);
}
