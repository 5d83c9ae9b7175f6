//! A state store that is a bucket, from its Secret to the objects of its placements, on a real S3 server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use kratix_api::{Condition, WorkPlacement, condition};
use kratix_controllers::Clock;
use kratix_testing::s3::{ACCESS_KEY, S3, SECRET_KEY};
use kratix_testing::wait;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::watcher;
use serde_json::{Value, json};

use crate::world::World;
use crate::world::delivery::{self, Conditioned};

const BUCKET: &str = "state";
const NAME: &str = "store";

struct Scene {
    world: World,
    server: S3,
}

impl Scene {
    /// `None` where there is no server program.
    async fn start(secret: Value) -> Option<Self> {
        let server = S3::start().await?;
        let scene = Self { world: World::start().await, server };
        scene.world.add_secret("creds", secret).await;
        let spec = json!({
            "endpoint": scene.server.endpoint(), "bucketName": BUCKET, "path": "clusters", "insecure": true,
            "secretRef": { "name": "creds", "namespace": "default" },
        });
        scene.world.add_bucket_store(NAME, spec).await;
        Some(scene)
    }

    async fn ready() -> Option<Self> {
        let scene = Self::start(json!({ "accessKeyID": ACCESS_KEY, "secretAccessKey": SECRET_KEY })).await?;
        scene.server.add_bucket(BUCKET).await;
        scene.touch("start").await;
        scene.store_says("StateStoreReady", "State store is ready").await;
        Some(scene)
    }

    async fn put(&self, key: &str, value: &str) {
        self.world.put("creds", json!({ key: value })).await;
    }

    /// Makes another version of the Secret that says the same, so that the store is tried at once.
    async fn touch(&self, note: &str) {
        self.put("note", note).await;
    }

    async fn add_destination(&self, name: &str, mode: &str, more: Value) {
        self.world.add_destination(name, ("BucketStateStore", NAME), mode, more).await;
    }

    async fn work(&self, request: &str, files: &[(&str, &str)]) {
        self.world.apply_work_of(request, files).await;
    }

    async fn remove(&self, request: &str) {
        self.world.works().delete(request, &DeleteParams::background()).await.unwrap();
        let names = self.world.placements().list(&ListParams::default()).await.unwrap();
        for name in names.iter().map(ResourceExt::name_any).filter(|name| name.starts_with(request)) {
            wait::gone(&self.world.placements(), &name).await;
        }
    }

    async fn store_says(&self, reason: &str, text: &str) -> Condition {
        delivery::says(&self.world.bucket_stores(), NAME, reason, text).await
    }

    async fn destination_says(&self, name: &str, reason: &str, text: &str) {
        delivery::says(&self.world.destinations(), name, reason, text).await;
    }

    async fn event(&self, reason: &str, text: &str) {
        let is = |event: &k8s_openapi::api::events::v1::Event| {
            event.reason.as_deref() == Some(reason) && event.note.as_ref().is_some_and(|note| note.contains(text))
        };
        self.world.event(&format!("event {reason}: {text}"), is).await;
    }

    /// Waits until the bucket holds exactly these objects, leaving aside test documents.
    async fn holds(&self, expected: &[(&str, &str)]) {
        let expected: BTreeMap<String, String> =
            expected.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
        delivery::holds(&expected, || async {
            let mut files = self.server.files(BUCKET).await;
            files.retain(|key, _| !key.contains("kratix-canary"));
            files
        })
        .await;
    }

    async fn at_rest(&self) {
        wait::poll("the controllers to be at rest", || async {
            if self.world.is_at_rest() { Ok(()) } else { Err("busy".to_owned()) }
        })
        .await;
    }

    async fn written(&self, request: &str) -> WorkPlacement {
        let what = format!("the placement of {request} to be written");
        wait::any(&self.world.placements(), watcher::Config::default(), &what, |placement: &WorkPlacement| {
            placement.spec.resource_name == request && condition::is_true(placement.conditions(), "WriteSucceeded")
        })
        .await
    }
}

/// §14.1, 17, 20
#[tokio::test(flavor = "multi_thread")]
async fn placements_in_directories_of_their_own_are_written_updated_and_removed() {
    let Some(scene) = Scene::ready().await else { return };
    scene.server.put(BUCKET, "clusters/worker-1/foreign", "f").await;
    scene.add_destination("worker-1", "nestedByMetadata", json!({})).await;
    scene.destination_says("worker-1", "TestDocumentsWritten", "Test documents written to State Store").await;
    scene.event("DestinationReady", "Destination is Ready").await;
    let canaries = ["dependencies/kratix-canary-namespace.yaml", "resources/kratix-canary-configmap.yaml"];
    for canary in canaries {
        assert!(scene.server.get(BUCKET, &format!("clusters/worker-1/{canary}")).await.is_some(), "{canary}");
    }

    scene.work("one", &[("a.yaml", "a"), ("sub/b.yaml", "b")]).await;
    let placement = scene.written("one").await;
    let version = placement.status.unwrap().version_id;
    assert_eq!(version.len(), 64, "{version}");
    scene.event("WorkloadsWrittenToStateStore", &format!("worker-1 with versionID: {version}")).await;
    let foreign = ("clusters/worker-1/foreign", "f");
    let at = |path: &str| format!("clusters/worker-1/resources/default/redis/one/configure/5058f/{path}");
    scene.holds(&[foreign, (&at("a.yaml"), "a"), (&at("sub/b.yaml"), "b")]).await;
    scene.work("one", &[("a.yaml", "A"), ("c.yaml", "c")]).await;
    scene.holds(&[foreign, (&at("a.yaml"), "A"), (&at("c.yaml"), "c")]).await;
    scene.remove("one").await;
    scene.holds(&[foreign]).await;
}

/// §14.18, 19
#[tokio::test(flavor = "multi_thread")]
async fn placements_that_share_a_directory_or_a_file_are_written_and_removed() {
    let Some(scene) = Scene::ready().await else { return };
    scene.add_destination("flat", "none", json!({ "initWorkloads": { "enabled": false } })).await;
    scene.destination_says("flat", "DestinationReady", "").await;
    scene.work("one", &[("a.yaml", "a")]).await;
    scene.work("two", &[("b.yaml", "b"), ("c.yaml", "c")]).await;
    let ledger = |request: &str| format!("clusters/flat/.kratix/default-{request}.flat-5058f.yaml");
    let (one, two) = (ledger("one"), ledger("two"));
    let of_one = [(one.as_str(), "files:\n- flat/a.yaml\n"), ("clusters/flat/a.yaml", "a")];
    let of_two = [(two.as_str(), "files:\n- flat/b.yaml\n- flat/c.yaml\n")];
    let files = [("clusters/flat/b.yaml", "b"), ("clusters/flat/c.yaml", "c")];
    scene.holds(&[&of_one[..], &of_two, &files].concat()).await;
    scene.work("two", &[("c.yaml", "c")]).await;
    scene.holds(&[&of_one[..], &[(two.as_str(), "files:\n- flat/c.yaml\n")], &files[1..]].concat()).await;
    scene.remove("two").await;
    scene.holds(&of_one).await;
    scene.remove("one").await;
    scene.holds(&[]).await;
    scene.world.destinations().delete("flat", &DeleteParams::default()).await.unwrap();
    wait::gone(&scene.world.destinations(), "flat").await;

    scene.add_destination("sum", "aggregatedYAML", json!({ "initWorkloads": { "enabled": false } })).await;
    scene.destination_says("sum", "DestinationReady", "").await;
    scene.work("one", &[("a.yaml", "a: 1")]).await;
    scene.holds(&[("clusters/sum/aggregated.yaml", "a: 1")]).await;
    scene.work("two", &[("b.yaml", "b: 1")]).await;
    scene.holds(&[("clusters/sum/aggregated.yaml", "a: 1\n---\nb: 1")]).await;
    scene.remove("one").await;
    scene.holds(&[("clusters/sum/aggregated.yaml", "b: 1")]).await;
    scene.remove("two").await;
    scene.holds(&[]).await;
}

/// §14.3, 14.4, weaknesses 38 and 46
#[tokio::test(flavor = "multi_thread")]
async fn a_store_says_what_it_lacks_and_is_ready_as_soon_as_it_has_it() {
    let Some(scene) = Scene::start(json!({ "accessKeyID": ACCESS_KEY })).await else { return };
    scene.add_destination("worker-1", "nestedByMetadata", json!({})).await;
    scene.work("one", &[("a.yaml", "a")]).await;
    let writer = "unable to create bucket writer: ";
    let initialising = "ErrorInitialisingWriter";
    scene.store_says(initialising, &format!("{writer}secret is missing key: secretAccessKey")).await;
    scene.put("secretAccessKey", &format!("{SECRET_KEY}\n")).await;
    scene.store_says(initialising, "secretAccessKey in secret default/creds ends with a line break").await;
    scene.put("secretAccessKey", "wrong").await;
    let permissions = "Error validating state store permissions: write permission validation failed: ";
    let refused = scene.store_says("ErrorValidatingPermissions", permissions).await;
    assert!(refused.message.contains("the credentials were refused: SignatureDoesNotMatch"), "{refused:?}");
    assert!(
        refused
            .message
            .ends_with("; hint: check both keys in the secret of the store, or the identity of the pod or machine"),
        "{refused:?}"
    );
    scene.event("NotReady", permissions).await;
    scene.destination_says("worker-1", "StateStoreNotReady", "BucketStateStore/store: not ready").await;
    scene.put("secretAccessKey", SECRET_KEY).await;
    let missing = scene.store_says("ErrorValidatingPermissions", "bucket \"state\" does not exist").await;
    assert!(!missing.message.contains("failed to push"), "{missing:?}");
    scene.server.add_bucket(BUCKET).await;
    scene.touch("the bucket is there").await;
    scene.store_says("StateStoreReady", "State store is ready").await;
    scene.event("Ready", "BucketStateStore \"store\" is ready").await;
    scene.destination_says("worker-1", "TestDocumentsWritten", "").await;
    let key = "clusters/worker-1/resources/default/redis/one/configure/5058f/a.yaml";
    scene.holds(&[(key, "a")]).await;

    // Broken again, while everything is at rest.
    scene.put("secretAccessKey", "rotated").await;
    scene.store_says("ErrorValidatingPermissions", permissions).await;
    scene.destination_says("worker-1", "StateStoreNotReady", "BucketStateStore/store: not ready").await;
    scene.put("secretAccessKey", SECRET_KEY).await;
    scene.destination_says("worker-1", "TestDocumentsWritten", "").await;
    scene.world.secrets().delete("creds", &DeleteParams::default()).await.unwrap();
    scene.store_says("SecretNotFound", "Secret creds not found in namespace default").await;
    scene.event("NotReady", "Secret creds not found in namespace default").await;
    scene.destination_says("worker-1", "StateStoreNotReady", "BucketStateStore/store: not ready").await;
}

/// §14.5, 14.6
#[tokio::test(flavor = "multi_thread")]
async fn cleaning_up_a_destination_leaves_nothing_of_it_in_the_bucket_and_not_cleaning_up_leaves_everything() {
    let Some(scene) = Scene::ready().await else { return };
    scene.server.put(BUCKET, "clusters/worker-2/foreign", "f").await;
    scene.add_destination("worker-1", "nestedByMetadata", json!({ "cleanup": "all" })).await;
    scene.destination_says("worker-1", "TestDocumentsWritten", "").await;
    scene.work("one", &[("a.yaml", "a")]).await;
    scene.written("one").await;
    scene.world.destinations().delete("worker-1", &DeleteParams::default()).await.unwrap();
    wait::gone(&scene.world.destinations(), "worker-1").await;
    assert_eq!(scene.server.keys(BUCKET).await, ["clusters/worker-2/foreign"]);
    scene.remove("one").await;

    scene.add_destination("worker-2", "nestedByMetadata", json!({})).await;
    scene.destination_says("worker-2", "TestDocumentsWritten", "").await;
    scene.work("two", &[("a.yaml", "a")]).await;
    scene.written("two").await;
    let keys = scene.server.keys(BUCKET).await;
    assert_eq!(keys.len(), 4, "{keys:?}");
    let patch = json!({ "spec": { "initWorkloads": { "enabled": false } } });
    scene.world.destinations().patch("worker-2", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    scene.destination_says("worker-2", "DestinationReady", "Destination is ready").await;
    let keys = scene.server.keys(BUCKET).await;
    assert!(keys.len() == 2 && keys.iter().all(|key| !key.contains("kratix-canary")), "{keys:?}");
    scene.world.destinations().delete("worker-2", &DeleteParams::default()).await.unwrap();
    wait::gone(&scene.world.destinations(), "worker-2").await;
    assert_eq!(scene.server.keys(BUCKET).await, keys);
}

/// After the interval, one placement of a Destination asks for all.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_compared_by_one_listing_for_all_placements_of_a_destination() {
    const PLACEMENTS: usize = 12;
    let Some(mut scene) = Scene::ready().await else { return };
    scene.world.stop_controllers().await;
    let hours = Arc::new(AtomicI64::new(0));
    let ahead = Arc::clone(&hours);
    let now = move || Timestamp::now() + SignedDuration::from_hours(ahead.load(Ordering::Relaxed));
    scene.world.clock = Clock::new(now);
    scene.world.start_controllers().await;
    scene.add_destination("worker-1", "nestedByMetadata", json!({ "initWorkloads": { "enabled": false } })).await;
    scene.destination_says("worker-1", "DestinationReady", "").await;
    let names: Vec<String> = (0..PLACEMENTS).map(|n| format!("r{n:02}")).collect();
    for name in &names {
        scene.work(name, &[("a.yaml", name)]).await;
    }
    for name in &names {
        scene.written(name).await;
    }
    scene.at_rest().await;
    let key = |name: &str| format!("clusters/worker-1/resources/default/redis/{name}/configure/5058f/a.yaml");
    scene.server.put(BUCKET, &key("r03"), "foreign").await;
    scene.server.take_requests();
    hours.store(11, Ordering::Relaxed);
    scene.world.set_interval("9h").await;
    scene.event("DriftRepaired", "were changed by others and have been written again").await;
    let keys: Vec<String> = names.iter().map(|name| key(name)).collect();
    let all: Vec<(&str, &str)> = keys.iter().zip(&names).map(|(key, name)| (key.as_str(), name.as_str())).collect();
    scene.holds(&all).await;
    scene.at_rest().await;
    let listings: Vec<String> =
        scene.server.take_requests().into_iter().filter(|request| request.contains("list-type=2")).collect();
    // One of the Destination's directory, and one before the repair. The Destination looks for its two test documents.
    let of_destination = listings.iter().filter(|request| !request.contains("kratix-canary")).count();
    assert_eq!(of_destination, 2, "{listings:#?}");
}
