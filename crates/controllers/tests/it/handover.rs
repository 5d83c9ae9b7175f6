//! Paths of a flat Destination that pass from one placement to another. The clock stands still, so that nothing is tried again
//! because of the time.

use k8s_openapi::api::events::v1::Event;
use kratix_api::{WorkPlacement, compression, condition, keys};
use kratix_controllers::Clock;
use kratix_testing::wait;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::placements::{Scene, placement_of, told};

const FILE: &str = "worker-1/f.yaml";

async fn start() -> Scene {
    let mut scene = Scene::start().await;
    scene.world.stop_controllers().await;
    let now = jiff::Timestamp::now();
    scene.world.clock = Clock::new(move || now);
    scene.world.start_controllers().await;
    scene.add_destination("none", json!({ "initWorkloads": { "enabled": false } })).await;
    scene
}

impl Scene {
    /// Applies what a pipeline of the request `r` has written.
    async fn run(&self, pipeline: &str, files: &[(&str, &str)]) {
        let labels = json!({
            keys::PROMISE_NAME: "redis", keys::WORK_TYPE: "resource", keys::RESOURCE_NAME: "r",
            keys::PIPELINE_NAME: pipeline,
        });
        self.world.apply_work(("default", pipeline), "r", labels, files).await;
    }

    /// Returns the files that any commit has taken away.
    fn removed(&self) -> Vec<String> {
        let mut log = std::process::Command::new("git");
        log.args(["log", "--diff-filter=D", "--no-renames", "--name-only", "--format=", "main"]);
        let output = log.current_dir(self.repository("a")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .filter(|line| !line.contains(".kratix"))
            .collect()
    }

    async fn delete(&self, work: &str) {
        self.works().delete(work, &DeleteParams::default()).await.unwrap();
    }

    async fn failures(&self) -> Vec<Event> {
        self.world.events("FailedWriteToDestination").await
    }
}

fn says(placement: &WorkPlacement, r#type: &str, reason: &str) -> bool {
    told(placement, r#type).is_some_and(|found| found.reason == reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_pipeline_that_gets_another_name_is_in_every_commit_and_nothing_fails() {
    let scene = start().await;
    scene.run("p0", &[("f.yaml", "a: 0\n"), ("p0.yaml", "a: 0\n")]).await;
    scene.written("p0").await;
    for n in 1..6 {
        let (former, pipeline) = (format!("p{}", n - 1), format!("p{n}"));
        scene.run(&pipeline, &[("f.yaml", &format!("a: {n}\n"))]).await;
        if n % 2 == 1 {
            // What the former pipeline has left goes at the end of the run.
            let waits = |placement: &WorkPlacement| says(placement, condition::READY, "WaitingForPath");
            let placement = scene.says(&pipeline, "it waits for its path", waits).await;
            let message = told(&placement, condition::WRITE_SUCCEEDED).unwrap().message;
            assert_eq!(
                message,
                format!(
                    "path \"{FILE}\" already belongs to default-{former}.worker-1-5058f: waiting for workplacement \
                     default/{former}.worker-1-5058f to give it up"
                )
            );
        } else {
            wait::until(&scene.placements(), &placement_of(&pipeline), "a placement", |_| true).await;
        }
        scene.delete(&former).await;
        scene.written(&pipeline).await;
        wait::gone(&scene.placements(), &placement_of(&former)).await;
        assert_eq!(scene.read("a", FILE).await, Some(format!("a: {n}\n")));
    }
    assert_eq!(scene.removed(), ["worker-1/p0.yaml"]);
    assert_eq!(scene.failures().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_path_has_it_as_soon_as_its_owner_goes_or_gives_it_up() {
    let scene = start().await;
    let apply = async |work: &str, files: &[(&str, &str)]| {
        scene.world.apply_work(("default", work), work, json!({}), files).await;
    };
    let fails = |placement: &WorkPlacement| says(placement, condition::READY, "WorkloadsFailedWrite");
    apply("one", &[("f.yaml", "1"), ("one.yaml", "1")]).await;
    scene.written("one").await;
    apply("two", &[("f.yaml", "2")]).await;
    let refused = scene.says("two", "its path is another one's", fails).await;
    let message = told(&refused, condition::WRITE_SUCCEEDED).unwrap().message;
    assert!(
        message.starts_with(&format!("path \"{FILE}\" already belongs to default-one.worker-1-5058f; hint: ")),
        "{message}"
    );
    scene.delete("one").await;
    scene.written("two").await;
    wait::gone(&scene.placements(), &placement_of("one")).await;
    assert_eq!(scene.read("a", FILE).await.as_deref(), Some("2"));
    assert_eq!(scene.removed(), ["worker-1/one.yaml"], "it passes in one commit");

    apply("three", &[("f.yaml", "3")]).await;
    scene.says("three", "its path is another one's", fails).await;
    apply("two", &[("two.yaml", "2")]).await;
    scene.written("three").await;
    scene.written("two").await;
    assert_eq!(scene.read("a", FILE).await.as_deref(), Some("3"));
}

/// Returns a Work of two groups of which each has these files.
fn work(one: &[&str], other: Option<&[&str]>) -> Value {
    let group = |id: &str, directory: &str, files: &[&str]| {
        let content = compression::compress(b"a: 1\n");
        let workloads: Vec<Value> = files.iter().map(|path| json!({ "filepath": path, "content": content })).collect();
        json!({ "id": id, "directory": directory, "workloads": workloads })
    };
    let other = other.map(|files| group("ba6cb00000000000000000000000000", "sub", files));
    let groups: Vec<Value> = [group("5058f1af8388633f609cadb75a75dc9d", ".", one)].into_iter().chain(other).collect();
    json!({
        "apiVersion": keys::API_VERSION, "kind": "Work",
        "metadata": { "name": "w", "namespace": "default" },
        "spec": { "promiseName": "redis", "resourceName": "r", "workloadGroups": groups },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_moves_between_the_groups_of_a_work_whichever_of_them_comes_first() {
    let scene = start().await;
    let apply = async |work: Value| {
        let apply = PatchParams::apply("test").force();
        scene.works().patch("w", &apply, &Patch::Apply(work)).await.unwrap();
    };
    let says_written = |generation: Option<i64>| {
        move |placement: &WorkPlacement| {
            placement.metadata.generation >= generation
                && told(placement, condition::WRITE_SUCCEEDED).is_some_and(|write| {
                    write.status == condition::Status::True
                        && write.observed_generation == placement.metadata.generation
                })
        }
    };
    let names = ["w.worker-1-5058f", "w.worker-1-ba6cb"];
    let mut generations = [None, None];
    for (one, other) in [(&["x", "f.yaml"][..], &["y"][..]), (&["x"], &["y", "f.yaml"]), (&["x", "f.yaml"], &["y"])] {
        apply(work(one, Some(other))).await;
        for (name, generation) in names.iter().zip(&mut generations) {
            let next = generation.map_or(1, |generation| generation + 1);
            let placement =
                wait::until(&scene.placements(), name, "its files are written", says_written(Some(next))).await;
            *generation = placement.metadata.generation;
        }
        scene.holds_beside_ledgers(&[FILE, "worker-1/x", "worker-1/y"]).await;
    }
    // The whole group goes to the other one.
    let before = scene.removed();
    apply(work(&["x", "f.yaml", "y"], None)).await;
    wait::gone(&scene.placements(), names[1]).await;
    scene.holds_beside_ledgers(&[FILE, "worker-1/x", "worker-1/y"]).await;
    assert_eq!(scene.removed(), before, "it is never missing");
    assert_eq!(scene.failures().await, []);
}

impl Scene {
    async fn holds_beside_ledgers(&self, expected: &[&str]) {
        let mut files = self.files("a").await;
        files.retain(|path| !path.contains(".kratix"));
        assert_eq!(files, expected.iter().map(|path| (*path).to_owned()).collect());
    }
}
