//! The troubleshooting page, command by command, for a healthy request and for each broken link.

use kratix_api::{Work, WorkPlacement};
use kratix_testing::wait;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, ResourceExt};

use crate::world::{World, condition_in, condition_of, is_reconciled, promise, request};

const SCRIPT: &str = "echo rendering\necho '{}' > /kratix/output/file.yaml";

async fn healthy() -> World {
    let world = World::start().await;
    world.apply(&promise("thing", "Thing", SCRIPT)).await;
    world.promise_available("thing").await;
    world.apply(&request("Thing", "default", "x")).await;
    let requests = world.requests("test.kratix.io", "v1", "Thing", "things", "default");
    wait::until(&requests, "x", "the request to be reconciled", is_reconciled).await;
    world
}

/// Returns the last column of the only row of a table.
fn name_in(table: &str) -> String {
    assert_eq!(table.lines().count(), 2, "{table}");
    table.lines().nth(1).and_then(|row| row.split_whitespace().next()).unwrap().to_owned()
}

/// Checks that `kubectl describe` shows an event with these columns.
fn assert_event(describe: &str, type_: &str, reason: &str, from: &str, message: &str) {
    let is_it = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        columns.starts_with(&[type_, reason]) && columns.contains(&from) && line.contains(message)
    };
    assert!(describe.lines().any(is_it), "no {type_} {reason} {from} {message:?} in {describe}");
}

fn has_condition(placement: &WorkPlacement, type_: &str, expected: &str) -> bool {
    placement.status.as_ref().is_some_and(|status| condition_of(&status.conditions, type_) == expected)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_page_answers_for_a_healthy_request() {
    let world = healthy().await;
    let kubectl = world.kubectl();

    let pods = kubectl.run("get pods --selector kratix.io/resource-name=x").await.ok();
    assert!(pods.contains("Completed"), "{pods}");
    assert_eq!(world.log("x", "render").await, "rendering\n");

    let works = kubectl.run("get work --selector kratix.io/resource-name=x").await.ok();
    assert!(works.starts_with("NAME"), "{works}");
    assert!(works.lines().nth(1).unwrap().trim_end().ends_with("Ready"), "{works}");
    let work = name_in(&works);
    let yaml = kubectl.run(&format!("get work {work} -o yaml")).await.ok();
    assert!(yaml.contains("filepath: file.yaml"), "{yaml}");

    let placements = kubectl.run("get workplacement --selector kratix.io/resource-name=x").await.ok();
    assert!(placements.lines().next().unwrap().contains("DESTINATION"), "{placements}");
    let placement = name_in(&placements);
    let yaml = kubectl.run(&format!("get workplacement {placement} -o yaml")).await.ok();
    assert!(yaml.contains("targetDestinationName: worker-1"), "{yaml}");

    let files = world.files().await;
    assert!(files.contains(&"worker-1/resources/default/thing/x/configure/5058f/file.yaml".to_owned()), "{files:#?}");

    // One label finds pods, Works and placements alike.
    for kind in ["pods", "works", "workplacements"] {
        let found = kubectl.run(&format!("get {kind} -l kratix.io/resource-name=x -o name")).await.ok();
        assert_eq!(found.lines().count(), 1, "{kind}: {found}");
    }

    let status = world.placements("default").get(&placement).await.unwrap().status.unwrap();
    for (type_, expected) in [
        ("ScheduleSucceeded", "True/ScheduledToDestination/Scheduled to correct Destination"),
        ("WriteSucceeded", "True/WorkloadsWrittenToStateStore/Workloads written to State Store"),
        ("Ready", "True/WorkloadsWrittenToTargetDestination/Ready"),
    ] {
        assert_eq!(condition_of(&status.conditions, type_), expected);
    }

    let describe = kubectl.run(&format!("describe workplacement {placement}")).await.ok();
    let message = "successfully written to Destination: worker-1 with versionID: ";
    assert_event(&describe, "Normal", "WorkloadsWrittenToStateStore", "WorkPlacementController", message);
    let describe = kubectl.run(&format!("describe work {work}")).await.ok();
    let message = "All workplacements scheduled successfully";
    assert_event(&describe, "Normal", "AllWorkplacementsScheduled", "Scheduler", message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_matching_destination_the_work_waits_and_is_placed_when_one_appears() {
    let world = World::start().await;
    world.kubectl().run("label destination worker-1 environment=prod --overwrite").await.ok();
    world.apply(&promise("thing", "Thing", SCRIPT)).await;
    world.promise_available("thing").await;
    world.apply(&request("Thing", "default", "x")).await;
    let work = wait::any(&world.works("default"), watcher::Config::default(), "the Work to be unscheduled", |work| {
        work.status.as_ref().is_some_and(|status| {
            condition_of(&status.conditions, "ScheduleSucceeded").starts_with("False/UnscheduledWorkloadGroups/")
        })
    })
    .await;
    let conditions = work.status.as_ref().unwrap().conditions.clone();
    assert_eq!(condition_of(&conditions, "Ready"), "False/UnscheduledWorkloads/Pending");
    let describe = world.kubectl().run(&format!("describe work {}", work.name_any())).await.ok();
    assert!(describe.contains("NoMatchingDestination"), "{describe}");

    world.kubectl().run("label destination worker-1 environment=dev --overwrite").await.ok();
    let requests = world.requests("test.kratix.io", "v1", "Thing", "things", "default");
    wait::until(&requests, "x", "the request to be reconciled", is_reconciled).await;

    // Scheduled and then no longer matching: it stays, and says so.
    world.kubectl().run("label destination worker-1 environment=prod --overwrite").await.ok();
    let placement = wait::any(
        &world.placements("default"),
        watcher::Config::default(),
        "the placement to be misplaced",
        |placement: &WorkPlacement| {
            placement
                .status
                .as_ref()
                .is_some_and(|status| condition_of(&status.conditions, "Ready") == "False/Misplaced/Misplaced")
        },
    )
    .await;
    assert_eq!(placement.labels().get("kratix.io/misplaced").map(String::as_str), Some("true"));
    let describe = world.kubectl().run(&format!("describe work {}", work.name_any())).await.ok();
    let message = "Target destination no longer matches destinationSelectors for workloadGroups:";
    assert_event(&describe, "Warning", "DestinationSelectorMismatch", "Scheduler", message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_refuses_is_visible_everywhere_and_recovers_by_itself() {
    let world = healthy().await;
    let thaw = world.freeze_store();
    world.apply(&request("Thing", "default", "other")).await;
    let selected = watcher::Config::default().labels("kratix.io/resource-name=other");
    let placement =
        wait::any(&world.placements("default"), selected, "the refusal to be shown", |placement: &WorkPlacement| {
            placement.status.as_ref().is_some_and(|status| {
                condition_of(&status.conditions, "WriteSucceeded").starts_with("False/WorkloadsFailedWrite/")
            })
        })
        .await;
    let message = condition_of(&placement.status.as_ref().unwrap().conditions, "WriteSucceeded");
    assert!(message.starts_with("False/WorkloadsFailedWrite/failed to push: "), "{message}");
    assert!(message.contains("the branch is frozen until Monday"), "{message}");
    assert!(has_condition(&placement, "Ready", "False/WorkloadsFailedWrite/Failing"));
    let name = placement.name_any();
    wait::poll("the event", || async {
        let describe = world.kubectl().run(&format!("describe workplacement {name}")).await.ok();
        if describe.contains("FailedWriteToDestination") { Ok(()) } else { Err(describe) }
    })
    .await;
    let describe = world.kubectl().run(&format!("describe workplacement {name}")).await.ok();
    let note = "error writing to destination; check kubectl get destination for more info: failed to push: ";
    assert_event(&describe, "Warning", "FailedWriteToDestination", "WorkPlacementController", note);

    let selected = watcher::Config::default().labels("kratix.io/resource-name=other");
    let work = wait::any(&world.works("default"), selected, "the Work to fail", |work: &Work| {
        work.status
            .as_ref()
            .is_some_and(|status| condition_of(&status.conditions, "Ready") == "False/WorkplacementsFailing/Failing")
    })
    .await;
    assert_eq!(
        condition_of(&work.status.as_ref().unwrap().conditions, "ScheduleSucceeded"),
        format!("False/WorkplacementsFailing/Workplacements failed to write: [{name}]")
    );
    let requests = world.requests("test.kratix.io", "v1", "Thing", "things", "default");
    let failing = wait::until(&requests, "other", "the request to name the failing Work", |request| {
        condition_in(request, "WorksSucceeded").starts_with("False/WorksFailing/")
    })
    .await;
    assert!(!is_reconciled(&failing), "nothing is reconciled before it is written");

    thaw();
    wait::until(&requests, "other", "the request to be reconciled after all", is_reconciled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_worker_refuses_is_reported_on_the_worker() {
    let world = World::start().await;
    let script =
        "printf 'apiVersion: nope.example.org/v1\\nkind: Nope\\nmetadata: {name: x}\\n' > /kratix/output/file.yaml";
    world.apply(&promise("thing", "Thing", script)).await;
    world.promise_available("thing").await;
    world.apply(&request("Thing", "default", "x")).await;
    let worker = world.kubectl().context("worker-1");
    wait::poll("the refusal on the worker", || async {
        let text = worker.run("get configmaps,events -A -o yaml").await.ok();
        if text.contains("Nope") { Ok(()) } else { Err(text) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_destination_says_when_its_store_is_gone_and_heals() {
    let world = healthy().await;
    let destinations: Api<kratix_api::Destination> = Api::all(world.hub());
    let point_to = |name: &str| Patch::Merge(serde_json::json!({"spec": {"stateStoreRef": {"name": name}}}));
    destinations.patch("worker-1", &PatchParams::default(), &point_to("absent")).await.unwrap();
    wait::until(&destinations, "worker-1", "the missing store to be named", |destination: &kratix_api::Destination| {
        destination.status.as_ref().is_some_and(|status| {
            condition_of(&status.conditions, "Ready") == "False/StateStoreNotFound/GitStateStore/absent: not found"
        })
    })
    .await;
    // Nothing of it is in the store that is named now, and nobody says that it is.
    let placements = world.placements("default");
    let missing = "GitStateStore/absent: not found";
    let selected = || watcher::Config::default().labels("kratix.io/resource-name=x");
    let placement = wait::any(&placements, selected(), "the placement to wait", |placement: &WorkPlacement| {
        has_condition(placement, "WriteSucceeded", &format!("Unknown/StateStoreNotFound/{missing}"))
    })
    .await;
    assert!(has_condition(&placement, "Ready", "False/StateStoreNotFound/Pending"));
    let requests = world.requests("test.kratix.io", "v1", "Thing", "things", "default");
    wait::until(&requests, "x", "the request to wait too", |request| !is_reconciled(request)).await;
    destinations.patch("worker-1", &PatchParams::default(), &point_to("default")).await.unwrap();
    wait::until(
        &destinations,
        "worker-1",
        "the Destination to be ready again",
        |destination: &kratix_api::Destination| {
            destination
                .status
                .as_ref()
                .is_some_and(|status| condition_of(&status.conditions, "Ready").starts_with("True/"))
        },
    )
    .await;
    wait::any(&placements, selected(), "the placement to be written again", |placement: &WorkPlacement| {
        has_condition(placement, "Ready", "True/WorkloadsWrittenToTargetDestination/Ready")
    })
    .await;
    wait::until(&requests, "x", "the request to be reconciled again", is_reconciled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_filepath_mode_none_the_files_are_at_the_top_of_the_destination() {
    let world = World::start().await;
    world
        .apply(
            "
apiVersion: platform.kratix.io/v1alpha1
kind: Destination
metadata: {name: flat, labels: {environment: flat}}
spec:
  path: flat
  stateStoreRef: {kind: GitStateStore, name: default}
  filepath: {mode: none}
",
        )
        .await;
    let script = "mkdir /kratix/output/dir\necho '{}' > /kratix/output/$KRATIX_OBJECT_NAME.yaml\n\
        echo '{}' > /kratix/output/dir/$KRATIX_OBJECT_NAME.yaml";
    world.apply(&promise("thing", "Thing", script).replace("environment: dev", "environment: flat")).await;
    world.promise_available("thing").await;
    let requests = world.requests("test.kratix.io", "v1", "Thing", "things", "default");
    for name in ["one", "two"] {
        world.apply(&request("Thing", "default", name)).await;
        wait::until(&requests, name, "the request to be reconciled", is_reconciled).await;
    }
    let files: Vec<String> = world.files().await.into_iter().filter(|file| file.starts_with("flat/")).collect();
    for name in ["one", "two"] {
        for file in [format!("flat/{name}.yaml"), format!("flat/dir/{name}.yaml")] {
            assert!(files.contains(&file), "{file}: {files:#?}");
        }
    }
    world.kubectl().run("delete thing one --timeout=60s").await.ok();
    let files: Vec<String> = world.files().await.into_iter().filter(|file| file.starts_with("flat/")).collect();
    assert!(!files.iter().any(|file| file.contains("one.yaml")), "{files:#?}");
    assert!(files.contains(&"flat/two.yaml".to_owned()), "{files:#?}");
}
