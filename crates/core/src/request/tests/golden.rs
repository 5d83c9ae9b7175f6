//! Requests and bindings against recorded lives of the reference: at each captured stage, finalizers, labels, status and
//! binding must be the same, but for the differences listed here.

use std::path::PathBuf;

use super::*;

/// A difference from the reference that is meant, and why.
struct Accepted {
    reason: &'static str,
    /// Removes it from our object, and from theirs.
    remove: fn(&mut Value),
}

/// Every difference there is. Anything else is a defect.
const ACCEPTED: [Accepted; 4] = [
    Accepted {
        reason: "02 §19 weakness 2: a trigger becomes a number on the request",
        remove: |object| {
            drop_members(object, "/metadata/annotations", |key| key.starts_with("internal.workflows.kratix.io/"));
        },
    },
    Accepted {
        reason: "04 §8: what is mirrored is remembered, so that labels of others stay",
        remove: |object| {
            drop_members(object, "/metadata/annotations", |key| key == "internal.kratix.io/mirrored-labels");
        },
    },
    Accepted {
        reason: "04 §28: labels that steer a request are not copied to its binding",
        remove: |object| {
            if object["kind"] == "ResourceBinding" {
                drop_members(object, "/metadata/labels", |key| key == keys::WORKFLOW_SUSPENDED);
            }
        },
    },
    Accepted {
        reason: "04 §28: a deleting request says what it waits for",
        remove: |object| {
            if let Some(conditions) = object.pointer_mut("/status/conditions").and_then(Value::as_array_mut) {
                conditions.retain(|condition| condition["type"] != DELETING);
            }
        },
    },
];

fn drop_members(object: &mut Value, pointer: &str, is_dropped: fn(&str) -> bool) {
    if let Some(members) = object.pointer_mut(pointer).and_then(Value::as_object_mut) {
        members.retain(|key, _| !is_dropped(key));
    }
}

/// Returns a text without the names at its end: Works are called otherwise here.
fn nameless(text: &str) -> &str {
    text.strip_suffix(']').and_then(|text| text.rsplit_once(": [")).map_or(text, |(text, _)| text)
}

/// Returns the part of an object that is compared; times differ and fields of the API server are its own.
fn comparable(object: &Value) -> Value {
    let mut object = object.clone();
    ACCEPTED.iter().for_each(|accepted| (accepted.remove)(&mut object));
    let metadata = &object["metadata"];
    let absent_if_empty = |value: &Value| if *value == json!({}) { Value::Null } else { value.clone() };
    let mut view = json!({
        "labels": absent_if_empty(&metadata["labels"]), "annotations": absent_if_empty(&metadata["annotations"]),
        "finalizers": metadata["finalizers"], "status": absent_if_empty(&object["status"]),
    });
    if object["kind"] == "ResourceBinding" {
        view["spec"] = object["spec"].clone();
    }
    without_times(&mut view);
    view
}

fn without_times(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                if key.ends_with("Time") || key == "nextRetryAt" {
                    *value = "<time>".into();
                } else if let Some(text) = value.as_str().filter(|_| key == "message") {
                    *value = nameless(text).into();
                }
                without_times(value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(without_times),
        _ => {}
    }
}

/// What happens between two stages.
#[derive(Clone, Copy)]
enum Step {
    /// Everything runs to its good end; the pipeline leaves this message, unless empty.
    Runs(&'static str),
    /// The running pipeline writes these fields into the status.
    Reports(&'static str),
    /// The pipelines before the named one succeed, that one fails.
    FailsAt(&'static str),
    /// The pipelines before the named one succeed, that one asks to be held with this message, or for so many seconds.
    SuspendsAt(&'static str, &'static str, Option<i64>),
    /// So many seconds pass.
    Waits(i64),
    /// Another spec.
    Spec(&'static str),
    /// A label of the request.
    Label(&'static str, Option<&'static str>),
    /// An annotation of the request.
    Annotation(&'static str, &'static str),
    /// Every Work says this.
    Works(&'static str),
    /// Nothing but passes.
    Rests,
    /// Somebody deletes the request.
    Deleted,
    /// The delete pipeline ends.
    Ends,
    /// Compares with this stage.
    Is(&'static str),
    /// The request and its binding are gone.
    Gone,
}

/// A recorded life.
struct Scenario {
    root: PathBuf,
    /// Names there, by which ours are replaced: Promise, request and namespace.
    promise: String,
    request: String,
}

impl Scenario {
    fn open(folder: &str, promise: &str) -> Option<Self> {
        let root = crate::golden::recordings()?.join(folder);
        Some(Self { root, promise: promise.to_owned(), request: format!("{promise}-one") })
    }

    /// Returns an object at a stage: as captured there, or at the last stage before that has it.
    fn captured(&self, stage: &str, is_it: impl Fn(&Value) -> bool) -> Option<Value> {
        let folders = std::fs::read_dir(self.root.join("captured")).unwrap();
        let mut stages: Vec<PathBuf> = folders.map(|entry| entry.unwrap().path()).collect();
        stages.retain(|path| path.is_dir() && path.file_name().unwrap().to_string_lossy().as_ref() <= stage);
        stages.sort();
        stages.iter().rev().find_map(|path| {
            let text = std::fs::read_to_string(path.join("objects.yaml")).ok()?;
            serde_saphyr::from_multiple::<Value>(&text).unwrap().into_iter().find(&is_it)
        })
    }

    /// Returns our object under the names of the scenario.
    fn renamed(&self, object: &Value) -> Value {
        let mut object = object.clone();
        for pointer in [r"/metadata/labels/kratix.io~1promise-name", "/spec/promiseRef/name"] {
            object.pointer_mut(pointer).into_iter().for_each(|name| *name = self.promise.as_str().into());
        }
        for pointer in [r"/metadata/labels/kratix.io~1resource-name", "/spec/resourceRef/name"] {
            object.pointer_mut(pointer).into_iter().for_each(|name| *name = self.request.as_str().into());
        }
        let namespace = object.pointer_mut("/spec/resourceRef/namespace");
        namespace.into_iter().for_each(|name| *name = self.promise.as_str().into());
        object
    }

    #[track_caller]
    fn compare(&self, world: &World, stage: &str) {
        let of_name = |object: &Value, name: &Value| object.pointer("/metadata/name") == Some(name);
        let request = json!(self.request);
        let theirs = self.captured(stage, |object| {
            of_name(object, &request) && object["apiVersion"].as_str().unwrap_or_default().contains(".golden.example/")
        });
        self.same(stage, &theirs.expect("captured"), world.request("a"));
        let theirs = self.captured(stage, |object| {
            object["kind"] == "ResourceBinding" && object.pointer("/spec/resourceRef/name") == Some(&request)
        });
        let binding = world.keys("ResourceBinding").pop().expect("a binding");
        self.same(stage, &theirs.expect("captured"), world.get("ResourceBinding", &binding));
    }

    #[track_caller]
    fn same(&self, stage: &str, theirs: &Value, ours: &Value) {
        let (theirs, ours) = (comparable(theirs), comparable(&self.renamed(ours)));
        let reasons: Vec<&str> = ACCEPTED.iter().map(|accepted| accepted.reason).collect();
        let difference = crate::patch::between(&theirs, &ours);
        assert_eq!(difference, None, "stage {stage} differs from {theirs:#}; accepted is only {reasons:#?}");
    }
}

#[track_caller]
fn replay(scenario: Option<Scenario>, mut world: World, steps: &[Step]) {
    let Some(scenario) = scenario else { return };
    world.ask("a");
    for step in steps {
        world.wait(1);
        match *step {
            Step::Runs(message) => {
                world.settle("a");
                while let Some(job) = world.running("a") {
                    if !message.is_empty() && workflow::history::action(&job) == Action::Configure {
                        world.change("Env", &key("a"), json!({ "status": { "message": message } }));
                    }
                    world.wait(1);
                    world.finish("a", Pod::Succeeds);
                    world.place("Ready");
                    world.settle("a");
                }
            }
            Step::Reports(status) => {
                world.settle("a");
                let status: Value = serde_json::from_str(status).unwrap();
                world.change("Env", &key("a"), json!({ "status": status }));
            }
            Step::FailsAt(pipeline) => {
                world.settle("a");
                while let Some(job) = world.running("a") {
                    let fails = workflow::history::pipeline(&job) == pipeline;
                    world.finish("a", if fails { Pod::Fails } else { Pod::Succeeds });
                    world.place("Ready");
                    world.settle("a");
                }
            }
            Step::SuspendsAt(pipeline, message, retry) => suspend_at(&mut world, pipeline, message, retry),
            Step::Waits(seconds) => world.wait(seconds),
            Step::Spec(size) => world.change("Env", &key("a"), json!({ "spec": { "size": size } })),
            Step::Label(label, value) => world.label("a", label, value),
            Step::Annotation(key, value) => {
                let annotations = json!({ "metadata": { "annotations": { key: value } } });
                world.change("Env", &super::key("a"), annotations);
            }
            Step::Works(message) => {
                world.place(message);
                world.settle("a");
            }
            Step::Rests => drop(world.settle("a")),
            Step::Deleted => world.delete("Env", &key("a")),
            Step::Ends => {
                world.finish("a", Pod::Succeeds);
                world.settle("a");
            }
            Step::Is(stage) => scenario.compare(&world, stage),
            Step::Gone => assert!(world.keys("Env").is_empty() && world.keys("ResourceBinding").is_empty()),
        }
    }
}

fn suspend_at(world: &mut World, pipeline: &str, message: &str, retry: Option<i64>) {
    world.settle("a");
    while let Some(job) = world.running("a") {
        if workflow::history::pipeline(&job) != pipeline {
            world.finish("a", Pod::Succeeds);
            world.place("Ready");
            world.settle("a");
            continue;
        }
        world.finish("a", retry.map_or(Pod::Suspends, Pod::RetriesAfter));
        let mut pipelines = world.status("a")["kratix"]["workflows"]["pipelines"].clone();
        let entry = pipelines.as_array_mut().unwrap().iter_mut().find(|entry| entry["name"] == pipeline);
        entry.expect("the pipeline is listed")["message"] = message.into();
        world.change("Env", &key("a"), json!({ "status": { "kratix": { "workflows": { "pipelines": pipelines } } } }));
        world.settle("a");
        return;
    }
    panic!("{pipeline} does not run");
}

#[test]
fn a_pipeline_that_writes_status_fields() {
    let world = World::new(spec(&["build"], &[], ""));
    // Stage `02-job-running` shows the instant before the Job was made, which no pass of ours ends in (decision 15).
    let steps = [
        Step::Reports(r#"{"endpoint": "http://one.example", "nested": {"count": 2, "list": ["a", "b"]}}"#),
        Step::Runs("two files rendered"),
        Step::Is("03-reconciled"),
        Step::Deleted,
        Step::Rests,
        Step::Gone,
    ];
    replay(Scenario::open("02-resource-pipeline-two-files-status", "g-02"), world, &steps);
}

#[test]
fn several_pipelines_and_a_delete_workflow() {
    let world = World::new(spec(&["r-rich", "r-plain", "r-last"], &["r-bye"], ""));
    let steps = [
        Step::Runs(""),
        Step::Is("02-reconciled"),
        Step::Deleted,
        Step::Rests,
        Step::Is("03-delete-workflow-running"),
        Step::Ends,
        Step::Gone,
    ];
    replay(Scenario::open("03-several-pipelines-all-options", "g-03"), world, &steps);
}

#[test]
fn a_pipeline_fails_is_fixed_and_fails_again() {
    let world = World::new(spec(&["first", "second"], &[], ""));
    let steps = [
        Step::FailsAt("second"),
        Step::Is("01-failed"),
        Step::Spec("good"),
        Step::Runs(""),
        Step::Is("02-fixed"),
        Step::Spec("bad"),
        Step::FailsAt("second"),
        Step::Is("03-failed-again-after-success"),
        Step::Deleted,
        Step::Rests,
        Step::Gone,
    ];
    replay(Scenario::open("09-failing-pipeline-then-fixed", "g-09"), world, &steps);
}

#[test]
fn updates_manual_runs_and_labels_of_users() {
    let world = World::new(spec(&["build"], &[], ""));
    let manual = Step::Label(keys::MANUAL_RECONCILIATION, Some("true"));
    let steps = [
        Step::Runs("at one"),
        Step::Is("01-first-run"),
        Step::Spec("two"),
        Step::Runs("at two"),
        Step::Is("02-second-run"),
        manual,
        Step::Runs("at two"),
        Step::Is("03-manual"),
        manual,
        Step::Runs("at two"),
        Step::Is("04-manual-5"),
        Step::Spec("small"),
        Step::Runs("at one"),
        Step::Is("05-back-to-first-spec"),
        Step::Label("unrelated", Some("label")),
        Step::Annotation("some", "note"),
        Step::Rests,
        Step::Is("06-unrelated-label-changed"),
    ];
    replay(Scenario::open("10-request-update-manual-reconcile", "g-10"), world, &steps);
}

#[test]
fn a_pause_of_the_request() {
    let world = World::new(spec(&["build"], &[], ""));
    let steps = [
        Step::Runs(""),
        Step::Is("01-before"),
        Step::Label(keys::PAUSED, Some("true")),
        Step::Rests,
        Step::Is("02-request-paused"),
        Step::Spec("y"),
        Step::Rests,
        Step::Is("03-request-changed-while-paused"),
        Step::Label(keys::PAUSED, None),
        Step::Runs(""),
        Step::Is("04-request-unpaused"),
    ];
    replay(Scenario::open("14-paused", "g-14"), world, &steps);
}

#[test]
fn a_request_whose_pipelines_run_elsewhere() {
    let world = World::new(spec(&["build"], &[], "pipes"));
    let steps = [
        Step::Runs("r done"),
        Step::Is("02-reconciled"),
        Step::Spec("y"),
        Step::Runs("r done"),
        Step::Is("03-updated"),
        Step::Deleted,
        Step::Rests,
        Step::Gone,
    ];
    replay(Scenario::open("15-pipeline-namespace", "g-15"), world, &steps);
}

#[test]
fn a_deletion_step_by_step() {
    let world = World::new(spec(&["rconf"], &["rbye"], ""));
    let steps = [
        Step::Runs(""),
        Step::Is("02-two-requests"),
        Step::Deleted,
        Step::Rests,
        Step::Is("03-one-deletion-marked"),
        Step::Is("04-one-delete-workflow-running"),
        Step::Ends,
        Step::Gone,
    ];
    replay(Scenario::open("16-deletion-step-by-step", "g-16"), world, &steps);
}

#[test]
fn a_store_that_refuses_for_a_while() {
    let world = World::new(spec(&["build"], &[], ""));
    let steps = [
        Step::Runs(""),
        Step::Is("01-healthy"),
        Step::Spec("two"),
        Step::Runs(""),
        Step::Works("Failing"),
        Step::Is("02-push-refused"),
        Step::Works("Ready"),
        Step::Is("03-push-accepted-again"),
        Step::Spec("three"),
        Step::Runs(""),
        Step::Is("05-recovered"),
    ];
    replay(Scenario::open("18-store-credentials-and-recovery", "g-18"), world, &steps);
}

#[test]
fn pipelines_that_ask_to_be_held_or_to_run_again_later() {
    let folder = "08-suspend-resume-retry-after";
    let world = || World::new(spec(&["first", "control", "last"], &[], ""));
    let held = Step::SuspendsAt("control", "waiting for approval", None);
    let later = Step::SuspendsAt("control", "not there yet", Some(12));
    let of =
        |request: &str| Scenario::open(folder, "g-08").map(|open| Scenario { request: request.to_owned(), ..open });
    let steps = [
        held,
        Step::Is("01-suspended"),
        Step::Label(keys::WORKFLOW_SUSPENDED, None),
        held,
        Step::Is("02-resumed-suspended-again"),
        Step::Spec("go"),
        Step::Runs(""),
        Step::Is("03-spec-changed-completes"),
    ];
    replay(of("g-08-one"), world(), &steps);
    let steps = [
        later,
        Step::Is("04-retry-waiting"),
        Step::Waits(12),
        later,
        Step::Is("05-retry-second-attempt"),
        Step::Spec("go"),
        Step::Runs(""),
        Step::Is("06-retry-completes"),
    ];
    replay(of("g-08-two"), world(), &steps);
    let steps =
        [held, Step::Label(keys::MANUAL_RECONCILIATION, Some("true")), held, Step::Is("07-manual-while-suspended")];
    replay(of("g-08-three"), world(), &steps);
}
