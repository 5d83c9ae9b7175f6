//! Works whose files one object cannot hold, as the work-writer makes them: what arrives in the repository, and what is left
//! of the objects. `02-workflows.md` §14.3, §19.43

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use kratix_api::{ObjectMeta, Timestamp, Work, Workload, WorkloadGroup, compression, condition, keys, part};
use kratix_pipeline::work_writer::{self, Config};
use kratix_state_store::{GitConfig, open};
use kratix_testing::git_http::{Fault, Server};
#[cfg(target_os = "linux")]
use kratix_testing::memory;
use kratix_testing::wait;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tower::ServiceExt;

use crate::placements::{Scene, told};
use crate::world::{delivery, typed};

const MIB: usize = 1 << 20;
/// Into how many parts the [`noise`] of 4 MiB is divided.
const PARTS_OF_4_MIB: usize = 4;

/// What a pipeline has left, and the writer that finds it.
struct Pod {
    root: tempfile::TempDir,
    client: Client,
}

impl Pod {
    fn new(client: Client) -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("input")).unwrap();
        Self { root, client }
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        let path = self.root.path().join("input").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn remove(&self, path: &str) {
        std::fs::remove_file(self.root.path().join("input").join(path)).unwrap();
    }

    async fn try_write(&self, client: &Client) -> Result<Vec<String>, String> {
        let config = Config {
            root: self.root.path().into(),
            promise: "redis".into(),
            pipeline: "configure".into(),
            namespace: "default".into(),
            workflow_type: "promise".into(),
            ..Config::default()
        };
        work_writer::run(&config, client, Timestamp::now()).await.map_err(|error| error.to_string())
    }

    async fn write(&self) {
        self.try_write(&self.client).await.unwrap();
    }
}

/// Returns text that compresses to about half of its size.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = Vec::with_capacity(bytes + 16);
    while text.len() < bytes {
        (state, _) = state.overflowing_mul(6_364_136_223_846_793_005);
        state = state.rotate_left(17) ^ 0x1234_5678;
        for shift in (0..64).step_by(4) {
            text.push(b"0123456789abcdef"[(state >> shift) as usize & 15]);
        }
    }
    text.truncate(bytes);
    text
}

/// Returns all Works, parts and others.
async fn works(scene: &Scene) -> (Vec<Work>, Vec<Work>) {
    let all = scene.works().list(&ListParams::default()).await.unwrap().items;
    all.into_iter().partition(|work| work.labels().contains_key(keys::WORK_PART))
}

fn names(works: &[Work]) -> BTreeSet<String> {
    works.iter().map(|work| work.name_any()).collect()
}

/// Waits until the parts that are there are those that the Work refers to, all of them the Work's own, and returns them.
async fn settled(scene: &Scene) -> BTreeSet<String> {
    wait::poll("the parts to be those of the Work", || async {
        let (parts, others) = works(scene).await;
        let [work] = others.as_slice() else { return Err(format!("{} Works", others.len())) };
        let referred: BTreeSet<String> =
            part::references(&work.spec.workload_groups).map(|reference| reference.name).collect();
        let is_own = |part: &Work| part.owner_references().iter().any(|owner| Some(&owner.uid) == work.uid().as_ref());
        if names(&parts) == referred && parts.iter().all(is_own) {
            return Ok(());
        }
        Err(format!("{referred:?} are referred to, {:?} are there", names(&parts)))
    })
    .await;
    names(&works(scene).await.0)
}

async fn read(scene: &Scene, path: &str) -> Option<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let store = open(GitConfig::new("look", scene.url("a")), directory.path()).unwrap();
    store.read(path).await.unwrap().map(Vec::from)
}

/// Waits until a file holds exactly these bytes, or is not there.
async fn arrives(scene: &Scene, path: &str, bytes: Option<&[u8]>) {
    wait::poll(&format!("{path} to be as it was written"), || async {
        let found = read(scene, path).await;
        if found.as_deref() == bytes { Ok(()) } else { Err(format!("{:?} bytes", found.map(|found| found.len()))) }
    })
    .await;
}

async fn add_second_destination(scene: &Scene) {
    let destination = json!({
        "apiVersion": keys::API_VERSION, "kind": "Destination", "metadata": { "name": "worker-2" },
        "spec": {
            "path": "worker-2", "stateStoreRef": { "kind": "GitStateStore", "name": "default" },
            "filepath": { "mode": "none" },
        },
    });
    scene.destinations().create(&PostParams::default(), &typed(destination)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_output_arrives_byte_for_byte_and_its_parts_live_as_long_as_they_are_referred_to() {
    let scene = Scene::start().await;
    scene.add_destination("nestedByMetadata", json!({})).await;
    add_second_destination(&scene).await;
    let pod = Pod::new(scene.world.client_of("pod"));
    let at = |path: &str| [format!("worker-1/dependencies/redis/configure/5058f/{path}"), format!("worker-2/{path}")];
    let large = noise(1, 20 * MIB);
    pod.put("deep/large.txt", &large);
    pod.put("small.yaml", b"a: 1\n");
    pod.write().await;
    for path in at("deep/large.txt") {
        arrives(&scene, &path, Some(&large)).await;
    }
    for path in at("small.yaml") {
        arrives(&scene, &path, Some(b"a: 1\n")).await;
    }
    let parts = settled(&scene).await;
    assert!(parts.len() > 10, "{parts:?}");
    // No placement has a copy of the files.
    for placement in scene.placements().list(&ListParams::default()).await.unwrap() {
        assert!(serde_json::to_vec(&placement).unwrap().len() < 20_000);
    }

    // The same once more: nothing is written but when that was.
    let versions = |works: &[Work]| works.iter().map(|work| work.resource_version()).collect::<Vec<_>>();
    let before = works(&scene).await;
    pod.write().await;
    let after = works(&scene).await;
    assert_eq!(versions(&before.0), versions(&after.0));
    assert_eq!(before.1[0].spec.workload_groups, after.1[0].spec.workload_groups);

    // Another file of three parts: those of the first stay as they are.
    let more = noise(2, 3 * MIB);
    pod.put("more.txt", &more);
    pod.write().await;
    for path in at("more.txt") {
        arrives(&scene, &path, Some(&more)).await;
    }
    let both = settled(&scene).await;
    assert!(both.len() > parts.len() && parts.difference(&both).count() <= 1, "{parts:?} {both:?}");

    pod.remove("deep/large.txt");
    pod.write().await;
    for path in at("deep/large.txt") {
        arrives(&scene, &path, None).await;
    }
    assert!(settled(&scene).await.len() < 5);

    // Small enough for one object: it is as the original makes it.
    pod.remove("more.txt");
    pod.write().await;
    for path in at("more.txt") {
        arrives(&scene, &path, None).await;
    }
    assert_eq!(settled(&scene).await, BTreeSet::new());
    let workloads = &works(&scene).await.1[0].spec.workload_groups[0].workloads;
    assert_eq!(workloads.len(), 1);
    assert_eq!(compression::decompress(&workloads[0].content, 100).unwrap(), b"a: 1\n");

    // And everything goes.
    pod.put("more.txt", &more);
    pod.write().await;
    for path in at("more.txt") {
        arrives(&scene, &path, Some(&more)).await;
    }
    let name = works(&scene).await.1[0].name_any();
    scene.works().delete(&name, &DeleteParams::default()).await.unwrap();
    wait::gone(&scene.works(), &name).await;
    wait::poll("no part to be left", || async {
        let (parts, _) = works(&scene).await;
        if parts.is_empty() { Ok(()) } else { Err(format!("{:?}", names(&parts))) }
    })
    .await;
    for path in at("more.txt") {
        assert_eq!(read(&scene, &path).await, None);
    }
    assert!(!scene.has_event("FailedWriteToDestination").await);
}

/// A client whose writes are executed until so many are done, and of which the last one is not told.
fn dying(scene: &Scene, writes: usize) -> Client {
    let service = scene.world.service_of("pod");
    let done = Arc::new(AtomicUsize::new(0));
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (service, done) = (service.clone(), Arc::clone(&done));
        async move {
            let at = if request.method().is_safe() { 0 } else { done.fetch_add(1, Ordering::SeqCst) + 1 };
            let lost = || tower::BoxError::from("the pod was killed");
            if at > writes {
                return Err(lost());
            }
            let response = service.oneshot(request).await.map_err(tower::BoxError::from);
            if at == writes && at > 0 { Err(lost()) } else { response }
        }
    });
    Client::new(service, "default")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_dies_at_any_write_is_followed_by_one_that_ends_as_if_it_had_not() {
    let scene = Scene::start().await;
    scene.add_destination("none", json!({ "initWorkloads": { "enabled": false } })).await;
    let pod = Pod::new(scene.world.client_of("pod"));
    let mut expected = Vec::new();
    // Each output is written by pods that die after the first, the second… write, until one does not. The first output makes
    // the Work, the second changes it.
    for (round, seed) in [(0, 1), (1, 2)] {
        expected = noise(seed, 4 * MIB);
        pod.put("large.txt", &expected);
        let mut deaths = 0;
        while pod.try_write(&dying(&scene, deaths + 1)).await.is_err() {
            deaths += 1;
            // Until the Work says otherwise, the files are those of before.
            let (parts, others) = works(&scene).await;
            for reference in others.iter().flat_map(|work| part::references(&work.spec.workload_groups)) {
                assert!(names(&parts).contains(&reference.name), "round {round}, death {deaths}: {reference:?}");
            }
            assert!(deaths < 50, "it does not get on");
        }
        assert!(deaths >= 2, "{deaths} deaths");
        arrives(&scene, "worker-1/large.txt", Some(&expected)).await;
        assert_eq!(settled(&scene).await.len(), PARTS_OF_4_MIB);
    }
    assert_eq!(scene.files("a").await.len(), 2, "the file and the note whose it is");
    assert!(!scene.has_event("FailedWriteToDestination").await);
    assert_eq!(read(&scene, "worker-1/large.txt").await, Some(expected));
}

/// A client before whose write of the Work somebody removes a part.
fn robbed(scene: &Scene) -> Client {
    let (service, works) = (scene.world.service_of("pod"), scene.works());
    let done = Arc::new(AtomicUsize::new(0));
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (service, works, done) = (service.clone(), works.clone(), Arc::clone(&done));
        async move {
            if !request.method().is_safe() && done.fetch_add(1, Ordering::SeqCst) == PARTS_OF_4_MIB {
                let parts = works.list(&ListParams::default().labels(keys::WORK_PART)).await.unwrap().items;
                works.delete(&parts[0].name_any(), &DeleteParams::default()).await.unwrap();
            }
            service.oneshot(request).await
        }
    });
    Client::new(service, "default")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_is_removed_before_its_work_refers_to_it_is_written_again() {
    let scene = Scene::start().await;
    scene.add_destination("nestedByMetadata", json!({})).await;
    let pod = Pod::new(robbed(&scene));
    let large = noise(1, 4 * MIB);
    pod.put("large.txt", &large);
    pod.write().await;
    assert_eq!(settled(&scene).await.len(), PARTS_OF_4_MIB);
    arrives(&scene, "worker-1/dependencies/redis/configure/5058f/large.txt", Some(&large)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_somebody_has_altered_is_put_right_when_the_pipeline_runs_again() {
    let scene = Scene::start().await;
    scene.add_destination("nestedByMetadata", json!({})).await;
    let pod = Pod::new(scene.world.client_of("pod"));
    pod.put("large.txt", &noise(1, 4 * MIB));
    pod.write().await;
    let parts = settled(&scene).await;
    let name = parts.first().expect("parts were written");
    let before = scene.works().get(name).await.unwrap().spec;
    let altered = json!({ "spec": { "workloadGroups": [] } });
    scene.works().patch(name, &PatchParams::default(), &Patch::Merge(&altered)).await.unwrap();
    pod.write().await;
    assert_eq!(scene.works().get(name).await.unwrap().spec.workload_groups, before.workload_groups);
    assert_eq!(settled(&scene).await, parts);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_work_of_somebody_that_carries_labels_of_a_part_outlives_what_it_is_not_part_of() {
    let scene = Scene::start().await;
    scene.add_destination("nestedByMetadata", json!({})).await;
    let pod = Pod::new(scene.world.client_of("pod"));
    pod.put("large.txt", &noise(1, 3 * MIB));
    pod.write().await;
    let parts = settled(&scene).await;
    let work = works(&scene).await.1[0].name_any();
    let mut own = scene.works().get(parts.first().expect("parts were written")).await.unwrap();
    own.metadata = ObjectMeta { name: Some("own".into()), labels: Some(part::labels(&work)), ..ObjectMeta::default() };
    scene.works().create(&PostParams::default(), &own).await.unwrap();
    // What is a part goes in a pass that has seen the other.
    pod.remove("large.txt");
    pod.write().await;
    wait::poll("no part to be left", || async {
        let left = names(&works(&scene).await.0);
        if left == BTreeSet::from(["own".to_owned()]) { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_an_original_scheduler_took_for_works_go_all_the_same() {
    let scene = Scene::start().await;
    scene.add_destination("nestedByMetadata", json!({})).await;
    let pod = Pod::new(scene.world.client_of("pod"));
    pod.put("large.txt", &noise(1, 3 * MIB));
    pod.write().await;
    let parts = settled(&scene).await;
    let finalizers = json!({ "metadata": { "finalizers": [keys::FINALIZER_WORK_CLEANUP] } });
    for part in &parts {
        scene.works().patch(part, &PatchParams::default(), &Patch::Merge(&finalizers)).await.unwrap();
    }
    pod.remove("large.txt");
    pod.write().await;
    assert_eq!(settled(&scene).await, BTreeSet::new());
}

/// Creates so many Works, each of one file of zeros.
async fn add_zeros(scene: &Scene, count: usize, bytes: usize) {
    let stored = compression::compress(&vec![b'0'; bytes]);
    assert!(stored.len() < 100_000, "it is a small object");
    for at in 0..count {
        let (name, file) = (format!("r{at:02}"), ("zeros.txt", stored.clone()));
        scene.world.apply_stored_work(("default", &name), &name, json!({}), vec![file]).await;
    }
}

/// Waits until the placements of so many Works say this of the write.
async fn all_are(scene: &Scene, count: usize, status: &condition::Status) {
    wait::poll(&format!("{count} placements with WriteSucceeded {status}"), || async {
        let placements = scene.placements().list(&ListParams::default()).await.unwrap().items;
        let writes = placements.iter().filter_map(|placement| told(placement, condition::WRITE_SUCCEEDED));
        let found = writes.filter(|write| write.status == *status).count();
        if found == count { Ok(()) } else { Err(format!("{found} of {}", placements.len())) }
    })
    .await;
}

/// A few kilobytes stand for as much as a store takes, and a store that does not answer lets all of them wait.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn works_of_much_in_little_that_wait_for_a_store_that_hangs_are_not_all_in_memory() {
    const MANY: usize = 50;
    let scene = Scene::start().await;
    let silent = tempfile::tempdir().unwrap();
    let server = Server::plain(silent.path()).await;
    kratix_state_store::init_bare(silent.path().join("state.git"), "main").unwrap();
    scene.add_store("hangs", "unused", json!({ "url": server.url("state.git") })).await;
    let more = json!({ "initWorkloads": { "enabled": false } });
    scene.world.add_destination("worker-1", ("GitStateStore", "hangs"), "nestedByMetadata", more).await;
    delivery::ready(&scene.destinations(), "worker-1", "ready", |ready| ready.status == condition::Status::True).await;
    server.fail(Fault::Hang);
    add_zeros(&scene, MANY, 60 * MIB).await;
    // Each says so once it has waited: in the queue, or for its turn.
    all_are(&scene, MANY, &condition::Status::Unknown).await;
    // Two of them, and whatever else the process does beside; all together were 3 GB.
    assert!(memory::resident() < 1_500 * MIB, "{} bytes", memory::resident());
}

#[tokio::test(flavor = "multi_thread")]
async fn works_of_much_in_little_share_commits_as_far_as_they_fit() {
    const MANY: usize = 12;
    let mut scene = Scene::start().await;
    scene.add_destination("nestedByMetadata", json!({})).await;
    delivery::ready(&scene.destinations(), "worker-1", "ready", |ready| ready.status == condition::Status::True).await;
    scene.world.stop_controllers().await;
    let few = json!({ "metadata": { "annotations": { keys::MAXIMUM_PUSHES_PER_MINUTE: "20" } } });
    scene.stores().patch("default", &PatchParams::default(), &Patch::Merge(few)).await.unwrap();
    add_zeros(&scene, MANY, 2 * MIB).await;
    scene.world.start_controllers().await;
    all_are(&scene, MANY, &condition::Status::True).await;
    let commits = || {
        let arguments = ["rev-list", "--count", "main"];
        let output = Command::new("git").args(arguments).current_dir(scene.repository("a")).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse::<usize>().unwrap()
    };
    // One is of the test documents.
    assert!(commits() < MANY, "{} commits", commits());
}

/// A client that notes which parts are read.
fn noting(scene: &Scene, read: &Arc<Mutex<BTreeSet<String>>>) -> Client {
    let (service, read) = (scene.world.service_of("admin"), Arc::clone(read));
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let name = request.uri().path().rsplit('/').next().unwrap_or_default();
        if request.method().is_safe() && name.contains(".part-") {
            read.lock().unwrap().insert(name.to_owned());
        }
        service.clone().oneshot(request)
    });
    Client::new(service, "default")
}

/// Parts of very many files that hold nothing, and say so.
#[tokio::test(flavor = "multi_thread")]
async fn more_parts_than_there_is_room_for_are_not_all_read_whatever_is_said_of_their_size() {
    const MANY: usize = 40;
    let mut scene = Scene::start().await;
    scene.add_destination("nestedByMetadata", json!({})).await;
    delivery::ready(&scene.destinations(), "worker-1", "ready", |ready| ready.status == condition::Status::True).await;
    scene.world.stop_controllers().await;
    let mut references = Vec::new();
    for at in 0..MANY {
        let file = Workload { filepath: format!("{at:02}"), content: String::new() };
        let workloads = vec![file; part::PART_BYTES_MAX / 32];
        let split = part::Split::of(vec![WorkloadGroup { workloads, ..WorkloadGroup::for_directory(".") }]);
        let [part] = split.parts.as_slice() else { panic!("{} parts", split.parts.len()) };
        let object = part.object("default", "many", 1, Timestamp::now());
        scene.works().create(&PostParams::default(), &object).await.unwrap();
        let reference = split.groups("many").remove(0).workloads.remove(0);
        assert!(reference.content.ends_with(" 0"), "{}", reference.content);
        references.push((reference.filepath, reference.content));
    }
    let files = references.iter().map(|(path, content)| (path.as_str(), content.clone())).collect();
    scene.world.apply_stored_work(("default", "many"), "many", json!({}), files).await;
    let read = Arc::default();
    let controllers = scene.world.run_controllers(noting(&scene, &read)).await;
    let failed = scene.says("many", "that it is too large", |placement| {
        let write = told(placement, condition::WRITE_SUCCEEDED);
        write.is_some_and(|write| write.message.contains("the files are larger than"))
    });
    failed.await;
    controllers.stop().await;
    let read = read.lock().unwrap();
    assert!((16..MANY).contains(&read.len()), "{} of {MANY} parts were read", read.len());
}

#[test]
fn noise_is_what_the_tests_take_it_for() {
    let (one, two) = (noise(1, MIB), noise(2, MIB));
    assert!(one != two && one.len() == MIB);
    let stored = compression::compress(&one).len();
    assert!((MIB / 2..MIB).contains(&stored), "{stored}");
}
