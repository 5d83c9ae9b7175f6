//! Two requests of one name in two namespaces, through everything that can happen to one of them, with real pods and a
//! real repository: nothing of the other is lost, run again or rewritten.

use k8s_openapi::api::batch::v1::Job;
use kratix_api::{Promise, condition};
use kratix_testing::wait;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::world::{World, condition_in, is_reconciled, promise, request};

const SCRIPT: &str = "\
size=$(sed -n 's/^ *size: //p' /kratix/input/object.yaml)
case $size in
  fail) exit 1 ;;
  slow) sleep 300 ;;
  suspend)
    if ! grep -q 'released: ' /kratix/input/object.yaml; then
      echo 'suspend: true' > /kratix/metadata/workflow-control.yaml
      exit 0
    fi ;;
esac
printf 'apiVersion: v1\\nkind: ConfigMap\\nmetadata: {name: %s, namespace: default}\\ndata: {size: %s}\\n' \\
  $KRATIX_OBJECT_NAMESPACE-$KRATIX_PROMISE_NAME $size > /kratix/output/file.yaml";

const DELETE: &str = "      delete:
        - apiVersion: platform.kratix.io/v1alpha1
          kind: Pipeline
          metadata: {name: bye}
          spec:
            containers:
              - {name: bye, image: kratix.local/host, command: [/bin/sh, -c, 'true']}
";

/// The requests `default/x` and `other/x` of one Promise.
struct Pair<'a> {
    world: &'a World,
    promise: &'static str,
    kind: &'static str,
}

impl Pair<'_> {
    fn requests(&self, namespace: &str) -> Api<DynamicObject> {
        let plural = format!("{}s", self.kind.to_lowercase());
        self.world.requests("test.kratix.io", "v1", self.kind, &plural, namespace)
    }

    /// Returns what real git says the request's file holds, empty without a file. Requests whose pipelines share a namespace
    /// do not have theirs where that of the other would be.
    fn content(&self, namespace: &str) -> String {
        let (commit, name) = (self.world.git(&["rev-parse", "main"]).trim().to_owned(), self.promise);
        let listed = self.world.git(&["ls-tree", "-r", "--name-only", &commit]);
        let of_promise = format!("/{name}/x/configure/5058f/file.yaml");
        let files =
            listed.lines().filter(|file| file.starts_with("worker-1/resources/") && file.ends_with(&of_promise));
        let mut contents = files.map(|file| self.world.git(&["show", &format!("{commit}:{file}")]));
        contents.find(|content| content.contains(&format!("name: {namespace}-{name}"))).unwrap_or_default()
    }

    /// Waits until the request and its file have gone.
    async fn gone(&self, namespace: &str) {
        wait::gone(&self.requests(namespace), "x").await;
        wait::poll("the file to go", || async {
            let content = self.content(namespace);
            if content.is_empty() { Ok(()) } else { Err(content) }
        })
        .await;
        assert!(self.jobs(namespace).await.is_empty());
    }

    async fn change(&self, namespace: &str, patch: Value) {
        self.requests(namespace).patch("x", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    async fn resize(&self, namespace: &str, size: &str) {
        self.change(namespace, json!({ "spec": { "size": size } })).await;
    }

    /// Waits until the present spec has been carried out.
    async fn settled(&self, namespace: &str) {
        let what = format!("{} {namespace}/x to be reconciled", self.kind);
        wait::until(&self.requests(namespace), "x", &what, |request| {
            let generation = request.metadata.generation;
            is_reconciled(request) && request.data["status"]["observedGeneration"].as_i64() == generation
        })
        .await;
    }

    async fn says(&self, namespace: &str, reconciled: &str) {
        let what = format!("{} {namespace}/x to say {reconciled}", self.kind);
        wait::until(&self.requests(namespace), "x", &what, |request| condition_in(request, "Reconciled") == reconciled)
            .await;
    }

    /// Returns the Jobs of a request by name, and whether each still runs.
    async fn jobs(&self, namespace: &str) -> Vec<(String, bool)> {
        let all = Api::<Job>::all(self.world.hub());
        let selector = format!("kratix.io/promise-name={}", self.promise);
        let found = all.list(&ListParams::default().labels(&selector)).await.unwrap().items;
        let of = |job: &&Job| job.annotations()["kratix.io/job-resource-namespace"] == namespace;
        let live = |job: &Job| job.status.as_ref().is_some_and(|status| status.active.unwrap_or_default() > 0);
        let mut jobs: Vec<_> = found.iter().filter(of).map(|job| (job.name_any(), live(job))).collect();
        jobs.sort();
        jobs
    }

    /// Everything of `other/x` that must not change.
    async fn of_the_other(&self) -> (Option<String>, Vec<(String, bool)>, String) {
        let request = self.requests("other").get("x").await.unwrap();
        (request.resource_version(), self.jobs("other").await, self.content("other"))
    }

    async fn live(&self) {
        for namespace in ["default", "other"] {
            self.world.apply(&request(self.kind, namespace, "x")).await;
        }
        self.settled("default").await;
        self.settled("other").await;
        let before = self.of_the_other().await;
        assert!(before.2.contains("size: small"), "{}", before.2);

        self.resize("default", "medium").await;
        self.settled("default").await;
        assert!(self.content("default").contains("size: medium"));
        assert_eq!(self.of_the_other().await, before, "update");

        self.resize("default", "suspend").await;
        self.says("default", "Unknown/WorkflowSuspended/Suspended").await;
        assert_eq!(self.of_the_other().await, before, "suspension");
        let labels = json!({ "released": "yes", "kratix.io/workflow-suspended": null });
        self.change("default", json!({ "metadata": { "labels": labels } })).await;
        self.settled("default").await;
        assert!(self.content("default").contains("size: suspend"));
        assert_eq!(self.of_the_other().await, before, "resumption");

        self.resize("default", "fail").await;
        self.says("default", "False/ConfigureWorkflowFailed/Failing").await;
        assert_eq!(self.of_the_other().await, before, "failure");
        self.resize("default", "small").await;
        self.settled("default").await;
        assert_eq!(self.of_the_other().await, before, "recovery");
    }

    /// Deletes the one while a Job of the other runs.
    async fn part(&self) {
        self.resize("other", "slow").await;
        wait::poll("the other's Job to run", || async {
            let jobs = self.jobs("other").await;
            if jobs.iter().any(|(_, is_live)| *is_live) { Ok(()) } else { Err(format!("{jobs:?}")) }
        })
        .await;
        let (jobs, content) = (self.jobs("other").await, self.content("other"));
        self.world.kubectl().run(&format!("delete {} x -n default --wait=false", self.kind.to_lowercase())).await.ok();
        self.gone("default").await;
        assert_eq!((self.jobs("other").await, self.content("other")), (jobs, content));
        let restart = json!({ "metadata": { "labels": { "kratix.io/manual-reconciliation": "true" } }, "spec": { "size": "small" } });
        self.change("other", restart).await;
        self.settled("other").await;
    }

    /// Both follow a change of their Promise, and go together.
    async fn end(&self) {
        self.world.apply(&request(self.kind, "default", "x")).await;
        self.settled("default").await;
        let promises = Api::<Promise>::all(self.world.hub());
        let patch = json!({ "spec": { "workflows": { "config": { "reconciliationInterval": "5h" } } } });
        promises.patch(self.promise, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        let is_done = |promise: &Promise| {
            let conditions = promise.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            condition::is_true(conditions, "RequestsUpToDate")
        };
        wait::until(&promises, self.promise, "all requests to have run again", is_done).await;
        for namespace in ["default", "other"] {
            self.settled(namespace).await;
            assert!(self.content(namespace).contains("size: small"));
        }
        for namespace in ["default", "other"] {
            let delete = format!("delete {} x -n {namespace} --wait=false", self.kind.to_lowercase());
            self.world.kubectl().run(&delete).await.ok();
        }
        for namespace in ["default", "other"] {
            self.gone(namespace).await;
        }
        let selector = format!("-l kratix.io/promise-name={},kratix.io/resource-name", self.promise);
        let kinds = "works,workplacements,resourcebindings";
        assert_eq!(self.world.kubectl().run(&format!("get {kinds} -A -o name {selector}")).await.ok(), "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_one_name_live_and_go_without_touching_each_other() {
    let world = World::start().await;
    for namespace in ["other", "pipes"] {
        world.kubectl().run(&format!("create namespace {namespace}")).await.ok();
    }
    let own = promise("own", "Own", SCRIPT) + DELETE;
    let config = "  workflows:\n    config: {pipelineNamespace: pipes}\n";
    let shared = promise("shared", "Shared", SCRIPT).replace("  workflows:\n", config) + DELETE;
    for (name, kind, document) in [("own", "Own", own), ("shared", "Shared", shared)] {
        world.apply(&document).await;
        world.promise_available(name).await;
        let pair = Pair { world: &world, promise: name, kind };
        pair.live().await;
        pair.part().await;
        pair.end().await;
    }
    world.git(&["fsck", "--strict"]);
}
