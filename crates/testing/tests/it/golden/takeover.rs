//! Clusters of the original are taken over: what was recorded of one at rest is put on a server of ours, before the managers
//! start. They must run nothing and commit nothing, and change nothing but what is listed here; those that come after them
//! write nothing at all. Then there is a change, and everything is deleted, as if the cluster had been ours from the start.
//!
//! Left out is what was captured in the middle of something (01, 05 and 16 have stages in which the dependencies of a Promise
//! were rewritten without end), what nothing acts on yet (the records of 13), what has no life (17, 19), and stores that cannot
//! be used (18).
//!
//! The recordings are beside the project; without them the tests say so and end.

mod cluster;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use kratix_api::keys;
use kratix_testing::faults::{Commits, Fault, Seed};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Map, Value, json};

use super::accepted::{Accepted, unexplained_by};
use super::recorded::{Recorded, address};
use super::replay;
use crate::record;
use crate::run::on_one_thread;
use crate::scenario::Step;
use crate::world::World;

/// What may be different after a takeover, and why. Nothing else of the original may go, and nothing else may come.
const ACCEPTED: &[Accepted] = &[
    // What is added.
    Accepted {
        scenarios: &[],
        difference: r"^WorkPlacement/\S+\.metadata\.labels\.kratix\.io/(promise-name|resource-name|resource-namespace|work-type) is .*, not null$",
        reason: "decision 2: placements are found by the labels of their Works",
    },
    Accepted {
        scenarios: &[],
        difference: r#"^(WorkPlacement|Destination)/\S+\.metadata\.annotations(\.kratix\.io/(store-location|files-at) is .*| is \{"kratix\.io/(store-location|files-at)":".*"\}), not null$"#,
        reason: "05 §16 (19): where files are is noted, so that they are removed there when the place changes",
    },
    Accepted {
        scenarios: &[],
        difference: r"^\S+\.observedGeneration is \d+, not null$",
        reason: "docs: every status and condition says which version it speaks of",
    },
    Accepted {
        scenarios: &[],
        difference: r"^Promise/\S+\.status\.conditions\.Reconciled is .*True/Reconciled/Reconciled.*, not null$",
        reason: "03 §25 (7): a Promise without workflow is reconciled as well",
    },
    Accepted {
        scenarios: &["10"],
        difference: r#"^ResourceBinding/\S+\.metadata\.annotations is \{"internal\.kratix\.io/mirrored-labels":"unrelated"\}, not null$"#,
        reason: "04 §28 (10): the labels that come from the request are noted, so that those of others are left alone",
    },
    // What goes.
    Accepted {
        scenarios: &["07"],
        difference: r#"^WorkPlacement/\S+\.g-07-one-5058f\.(metadata\.labels\.kratix\.io/misplaced is null, not "true"|status\.conditions\.Ready\.(says is "True/|lastTransitionTime ))"#,
        reason: "05 §16 (6): a placement whose Destination matches again is misplaced no more",
    },
    Accepted {
        scenarios: &["08"],
        difference: r#"^ResourceBinding/\S+\.metadata\.labels\.kratix\.io/workflow-suspended is null, not "true"$"#,
        reason: "04 §28 (10): labels that steer a request are not copied to its binding",
    },
    Accepted {
        scenarios: &["11"],
        difference: r"^Job/g-11/kratix-g-11-g-11-pin-added-\w+ is gone$",
        reason: "02 §20 (22): Jobs of a pipeline that the request has no more go",
    },
    // What is said.
    Accepted {
        scenarios: &["01"],
        difference: r#"^(Promise/g-01\.status\.conditions\.(Reconciled is .*"False/WorksFailing/|WorksSucceeded\.(says is "False/WorksMisplaced/|lastTransitionTime ))|warned: WorksMisplaced of Promise/g-01:)"#,
        reason: "03 §25 (9): dependencies count among the Works of a Promise, and here they are misplaced",
    },
    Accepted {
        scenarios: &["06"],
        difference: r#"^(\w+/g-06/(g-06-)?g-06-none-two\S*\.status\.conditions\.\w+\.(says is "False/|lastTransitionTime )|warned: \w+ of \w+/g-06/(g-06-)?g-06-none-two)"#,
        reason: "decision 16: a path has one owner, so the second request that wants `a.yaml` is refused",
    },
    Accepted {
        scenarios: &["06"],
        difference: r#"^(Work/kratix-platform-system/g-06-static-deps-\w+\.status\.conditions\.\w+\.(says is "True/.*, not "False/FailedToScheduleWorkloads/|lastTransitionTime )|Promise/g-06\.status\.conditions\.WorksSucceeded\.lastTransitionTime )"#,
        reason: "decision 15: there, a conflict of the first pass is shown as a failure",
    },
    Accepted {
        scenarios: &["12"],
        difference: r#"^Promise/g-12-top\.status\.conditions\.Reconciled\.(says is "True/|lastTransitionTime )"#,
        reason: "03 §25 (7): what kept it from being reconciled is not left behind",
    },
    Accepted {
        scenarios: &["20"],
        difference: r#"^G20/g-20/g-20-yamlbool\.status\.conditions\.Reconciled\.(says is "Unknown/WorksPending/|lastTransitionTime )"#,
        reason: "04 §28 (5): the reason is that of now",
    },
    Accepted {
        scenarios: &["20"],
        difference: r#"^Work/\S+\.conditions\.ScheduleSucceeded\.says is "False/UnscheduledWorkloadGroups/.*, not "False/UnscheduledWorkloads/"#,
        reason: "decision 1",
    },
];

/// What happens after the takeover.
#[derive(Clone, Copy)]
enum Change {
    /// Nothing could run, or nothing may.
    Nothing,
    /// Every request runs again, and leaves the same files.
    Again,
    /// The same, because it may go on.
    Unpaused,
    /// Every request gets another spec, and leaves files with these ends.
    Spec(&'static str, &'static [&'static str]),
}

/// Takes a cluster over and fails with everything that is not as it should be.
#[track_caller]
fn taken_over(folder: &'static str, stage: &'static str, change: Change) {
    let Some(recorded) = Recorded::open(folder) else { return };
    let taken =
        on_one_thread(1, move |commits| async move { take_over(&recorded, folder, stage, change, &commits).await });
    if let Err(found) = taken {
        panic!("{folder}, {stage}:\n{found}");
    }
}

async fn take_over(
    recorded: &Recorded,
    folder: &str,
    stage: &str,
    change: Change,
    commits: &Commits,
) -> Result<(), String> {
    let mut world = World::still(&Seed::new(1), Fault::Nothing, commits).await;
    let of_the_user = cluster::load(&world, recorded, stage).await;
    let (before, files, commit) = (look(&world).await, files(&world).await, head(&world.repository()));

    world.live(replay::play);
    world.step(&Step::Rest).await?;
    let after = look(&world).await;
    let mut found = differences(&before, &after);
    found.extend(runs(&world, 0).into_iter().map(|run| format!("runs again: {run:?}")));
    let warned = warnings(&world).await;
    found.extend(warned.iter().cloned());
    if head(&world.repository()) != commit {
        found.push(format!(
            "committed: {}",
            git(&world.repository(), &["log", "--stat", "--format=%s", &format!("{commit}..main")])
        ));
    }
    as_it_should_be("taken over", unexplained_by(ACCEPTED, folder, &found))?;

    let (revision, calls) = (world.server.revision(), world.manager.calls().len());
    world.restart().await;
    world.step(&Step::Rest).await?;
    if world.server.revision() != revision || head(&world.repository()) != commit {
        let new = world.manager.calls().into_iter().skip(calls).map(|call| call.to_string());
        let moved = format!("version {revision} has become {}", world.server.revision());
        as_it_should_be("started again", new.chain([moved]).collect())?;
    }

    let requests: Vec<&Value> = after.values().filter(|object| is_request(object)).collect();
    as_it_should_be("changed", self::change(&world, &requests, change, &files).await?)?;
    as_it_should_be("deleted", delete(&world, &requests, &of_the_user).await?)?;
    as_it_should_be("at the end", warnings(&world).await.difference(&warned).cloned().collect())
}

fn as_it_should_be(when: &str, found: Vec<String>) -> Result<(), String> {
    if found.is_empty() { Ok(()) } else { Err(format!("{when}:\n{}", found.join("\n"))) }
}

/// Changes requests and says what does not come of it.
async fn change(
    world: &World,
    requests: &[&Value],
    change: Change,
    files_before: &BTreeMap<String, String>,
) -> Result<Vec<String>, String> {
    let calls = world.manager.calls().len();
    let patch = match change {
        Change::Nothing => return Ok(Vec::new()),
        Change::Again => json!({ "metadata": { "labels": { keys::MANUAL_RECONCILIATION: "true" } } }),
        Change::Unpaused => json!({ "metadata": { "labels": { keys::PAUSED: null } } }),
        Change::Spec(spec, _) => json!({ "spec": serde_json::from_str::<Value>(spec).unwrap() }),
    };
    let mut wanted = BTreeMap::new();
    for request in requests {
        let [_, name] = place(request);
        let pipelines = request.pointer("/status/kratix/workflows/pipelines").and_then(Value::as_array);
        for pipeline in pipelines.expect("a request has run") {
            wanted.insert([name.to_owned(), text(pipeline, "/name").to_owned()], 1);
        }
        api(world, request).patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }
    world.step(&Step::Rest).await?;
    let mut found = Vec::new();
    let runs = runs(world, calls);
    if runs != wanted {
        found.push(format!("runs are {runs:?}, not {wanted:?}"));
    }
    let after = files(world).await;
    let is_expected = match change {
        Change::Spec(_, ends) => {
            after.len() == ends.len() && ends.iter().all(|end| after.keys().any(|path| path.ends_with(end)))
        }
        _ => after == *files_before,
    };
    if !is_expected {
        found.push(format!("files are {after:?}, which were {files_before:?}"));
    }
    let now = look(world).await;
    for request in requests {
        let [mut said, says] = [request, &now[&address(request)]].map(|request| {
            let conditions = request["status"]["conditions"].as_object().unwrap();
            conditions
                .iter()
                .map(|(kind, condition)| (kind.as_str(), text(condition, "/says")))
                .collect::<BTreeMap<_, _>>()
        });
        if matches!(change, Change::Unpaused) {
            said.insert("Reconciled", "True/Reconciled/Reconciled");
        }
        if said != says {
            found.push(format!("{} says {says:?}, not {said:?}", address(request)));
        }
    }
    Ok(found)
}

/// Deletes the requests, and then the Promises, and says what is left of them.
async fn delete(world: &World, requests: &[&Value], of_the_user: &BTreeSet<String>) -> Result<Vec<String>, String> {
    for request in requests {
        api(world, request).delete(place(request)[1], &DeleteParams::background()).await.unwrap();
    }
    world.step(&Step::Rest).await?;
    let mut left = Vec::new();
    for (address, object) in look(world).await {
        let is_of_a_request = !object["metadata"]["labels"][keys::RESOURCE_NAME].is_null() || is_request(&object);
        if is_of_a_request {
            left.push(format!("{address} is left of a request"));
        }
        if object["kind"] == "Promise" {
            api(world, &object).delete(place(&object)[1], &DeleteParams::background()).await.unwrap();
        }
    }
    world.step(&Step::Rest).await?;
    // Nothing acts on a PromiseRelease yet.
    let kinds = ["Destination/", "GitStateStore/", "PromiseRelease/"];
    let is_the_users =
        |address: &String| of_the_user.contains(address) || kinds.iter().any(|kind| address.starts_with(kind));
    let objects = look(world).await;
    left.extend(objects.keys().filter(|address| !is_the_users(address)).map(|address| format!("{address} is left")));
    left.extend(files(world).await.into_keys().map(|path| format!("{path} is left")));
    Ok(left)
}

/// Returns all objects by address, as they are compared.
async fn look(world: &World) -> BTreeMap<String, Value> {
    let mut objects = BTreeMap::new();
    for mut object in record::everything(&world.user).await.into_iter().map(|found| found.value) {
        for member in ["resourceVersion", "managedFields"] {
            object["metadata"].as_object_mut().unwrap().remove(member);
        }
        if let Some(conditions) = object["status"]["conditions"].as_array_mut() {
            object["status"]["conditions"] = Value::Object(by_type(conditions));
        }
        objects.insert(address(&object), object);
    }
    objects
}

/// Returns conditions by their type, with what each says in one text.
fn by_type(conditions: &[Value]) -> Map<String, Value> {
    let said = |condition: &Value| {
        let mut said = condition.clone();
        let members = said.as_object_mut().unwrap();
        let mut take =
            |field: &str| members.remove(field).and_then(|it| it.as_str().map(str::to_owned)).unwrap_or_default();
        let [kind, status, reason, message] = ["type", "status", "reason", "message"].map(&mut take);
        said["says"] = json!(format!("{status}/{reason}/{message}"));
        (kind, said)
    };
    conditions.iter().map(said).collect()
}

/// Says which objects differ.
fn differences(before: &BTreeMap<String, Value>, after: &BTreeMap<String, Value>) -> Vec<String> {
    let mut found = Vec::new();
    for address in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        match (before.get(address), after.get(address)) {
            (Some(before), Some(after)) => record::differ(address, before, after, &mut found),
            (Some(_), None) => found.push(format!("{address} is gone")),
            (None, _) => found.push(format!("{address} is new")),
        }
    }
    found
}

/// Returns how often each pipeline was run for each request since a call.
fn runs(world: &World, calls: usize) -> BTreeMap<[String; 2], usize> {
    let mut runs = BTreeMap::new();
    let made = world.manager.calls().into_iter().skip(calls);
    for call in
        made.filter(|call| call.method == http::Method::POST && call.path.ends_with("/jobs") && call.succeeded())
    {
        let labels = &call.body["metadata"]["labels"];
        let of =
            [keys::RESOURCE_NAME, keys::PIPELINE_NAME].map(|key| labels[key].as_str().unwrap_or_default().to_owned());
        *runs.entry(of).or_default() += 1;
    }
    runs
}

async fn warnings(world: &World) -> BTreeSet<String> {
    let request = http::Request::get("/apis/events.k8s.io/v1/events").body(Vec::new()).unwrap();
    let list: Value = world.user.request(request).await.unwrap();
    let events = list["items"].as_array().unwrap().iter().filter(|event| event["type"] == "Warning");
    let warned =
        |event: &Value| format!("warned: {} of {}: {}", text(event, "/reason"), about(event), text(event, "/note"));
    events.map(warned).collect()
}

fn about(event: &Value) -> String {
    address(&json!({ "kind": event["regarding"]["kind"], "metadata": event["regarding"] }))
}

/// Returns all files in the repository that are of requests and Promises.
async fn files(world: &World) -> BTreeMap<String, String> {
    let of_destination = ["kratix-canary-namespace.yaml", "kratix-canary-configmap.yaml", "README.md"];
    let mut files = world.observer.files.read().await.as_ref().clone();
    files.retain(|path, _| !of_destination.iter().any(|name| path.ends_with(name)));
    files
}

/// Returns the newest commit.
fn head(repository: &Path) -> String {
    git(repository, &["rev-parse", "main"]).trim().to_owned()
}

fn git(repository: &Path, args: &[&str]) -> String {
    let ended = Command::new("git").arg("--git-dir").arg(repository).args(args).output().unwrap();
    assert!(ended.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap()
}

fn is_request(object: &Value) -> bool {
    text(object, "/apiVersion").contains(".golden.example/")
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Returns namespace and name.
fn place(object: &Value) -> [&str; 2] {
    ["/metadata/namespace", "/metadata/name"].map(|pointer| text(object, pointer))
}

fn api(world: &World, object: &Value) -> kube::Api<kube::api::DynamicObject> {
    world.dynamic(text(object, "/apiVersion"), text(object, "/kind"), place(object)[0])
}

#[test]
fn dependencies_of_a_promise_are_taken_over() {
    taken_over("01-promise-dependencies-only", "03-selectors-narrowed", Change::Nothing);
}

#[test]
fn a_pipeline_with_two_files_is_taken_over() {
    let files = &["/g-02-one/build/5058f/first.yaml", "/g-02-one/build/5058f/second.yaml"];
    taken_over("02-resource-pipeline-two-files-status", "03-reconciled", Change::Spec(r#"{"size": "large"}"#, files));
}

#[test]
fn several_pipelines_with_every_option_are_taken_over() {
    taken_over("03-several-pipelines-all-options", "02-reconciled", Change::Again);
}

#[test]
fn permissions_and_service_accounts_are_taken_over() {
    taken_over("04-rbac-permissions-service-account", "02-reconciled", Change::Again);
}

#[test]
fn groups_with_selectors_are_taken_over() {
    taken_over("05-destination-selector-groups", "02-reconciled", Change::Again);
}

#[test]
fn modes_of_paths_are_taken_over() {
    taken_over("06-filepath-modes-update-delete", "04-three-updated", Change::Again);
}

#[test]
fn a_placement_that_was_misplaced_is_taken_over() {
    taken_over("07-unscheduled-misplaced-strict", "06-label-back", Change::Again);
}

#[test]
fn a_suspended_workflow_is_taken_over() {
    taken_over("08-suspend-resume-retry-after", "01-suspended", Change::Nothing);
}

#[test]
fn a_pipeline_that_failed_once_is_taken_over() {
    taken_over("09-failing-pipeline-then-fixed", "02-fixed", Change::Again);
}

#[test]
fn a_request_with_many_runs_is_taken_over() {
    let change = Change::Spec(r#"{"v": "two"}"#, &["/g-10-one/build/5058f/a-two.yaml"]);
    taken_over("10-request-update-manual-reconcile", "06-unrelated-label-changed", change);
}

#[test]
fn revisions_and_bindings_are_taken_over() {
    taken_over("11-promise-update-revisions-bindings", "05-pin-moved-back-to-v1", Change::Again);
}

#[test]
fn requirements_and_a_release_are_taken_over() {
    taken_over("12-promise-release-and-requirements", "04-requirements-met", Change::Again);
}

#[test]
fn a_paused_request_is_taken_over() {
    taken_over("14-paused", "02-request-paused", Change::Unpaused);
}

#[test]
fn a_namespace_for_pipelines_is_taken_over() {
    taken_over("15-pipeline-namespace", "03-updated", Change::Again);
}

#[test]
fn a_promise_with_a_request_deleted_is_taken_over() {
    taken_over("16-deletion-step-by-step", "05-one-deleted", Change::Again);
}

#[test]
fn odd_outputs_are_taken_over() {
    taken_over("20-odd-outputs", "01-all", Change::Again);
}
