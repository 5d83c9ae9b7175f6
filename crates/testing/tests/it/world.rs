//! The product in one process: API server, managers, simulated node, repository.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use embedded_apiserver::{Server, Service, User};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kratix_api::{Timestamp, condition, keys};
use kratix_controllers::{Clock, Controllers, Options};
use kratix_platform::Rules;
use kratix_state_store::init_bare;
use kratix_testing::faults::{Call, Commits, Fault, Injector, Life, Seed, Whose};
use kratix_testing::simulated_node::{Outcome, SimulatedNode, Stage};
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::gitops;
use crate::invariants::Observer;
use crate::scenario::{Address, Step, destination, namespace};
use crate::script::Script;

/// Nothing happens any more when nothing was written for so long: longer than any pause between two attempts.
const QUIET: Duration = Duration::from_secs(400);
/// What is on its way has arrived when nothing was written for so long.
const CALM: Duration = Duration::from_secs(10);
/// How often it is looked whether something was written, in the time in which nothing must be.
const LOOKS: u32 = 80;
/// What takes longer does not end. Of the runtime's clock, which costs nothing.
const DEADLINE: Duration = Duration::from_secs(3 * 60 * 60);
/// Between the end of a manager and the start of the next one, on the runtime's clock: long enough for what the first one has
/// sent to be answered.
const DOWN: Duration = Duration::from_secs(2);
/// What is said of a step that there is nothing for: it tells nothing of the product.
pub(crate) const IMPOSSIBLE: &str = "cannot be carried out";
/// When every run begins.
const BEGINNING: &str = "2026-01-01T00:00:00Z";

pub(crate) struct World {
    pub(crate) server: Arc<Server>,
    pub(crate) user: Client,
    pub(crate) manager: Injector,
    pub(crate) pods: Injector,
    pub(crate) observer: Arc<Observer>,
    directory: TempDir,
    script: Script,
    restart: watch::Sender<u32>,
    starts: watch::Sender<usize>,
    managers: JoinSet<()>,
    rules: Arc<Rules>,
    clock: Clock,
    fault: Fault,
    agents: Mutex<JoinSet<()>>,
    /// Statuses that a user has removed.
    wipes: Mutex<Vec<Call>>,
    /// Directories of Destinations that a user has removed.
    left: Mutex<Vec<String>>,
    _node: Option<SimulatedNode>,
}

impl World {
    /// Starts everything, with the store `default`, two Destinations and the namespace `team`.
    pub(crate) async fn start(seed: &Seed, fault: Fault, commits: &Commits) -> Self {
        let script = Script::new();
        let acting = script.clone();
        let objects = |repository: &Path| {
            let store = json!({
                "apiVersion": keys::API_VERSION, "kind": "GitStateStore", "metadata": { "name": "default" },
                "spec": { "url": format!("file://{}", repository.display()), "branch": "main" },
            });
            vec![namespace("team"), store, destination("worker-1", "dev"), destination("worker-2", "prod")]
        };
        let mut world = Self::start_with(seed, fault, commits, objects, move |stage| acting.play(stage)).await;
        world.script = script;
        world
    }

    /// Starts everything, with these objects; `play` stands for the containers of pipelines.
    pub(crate) async fn start_with(
        seed: &Seed,
        fault: Fault,
        commits: &Commits,
        objects: impl FnOnce(&Path) -> Vec<Value>,
        play: impl Fn(&Stage<'_>) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        let mut world = Self::still(seed, fault, commits).await;
        for object in objects(&world.repository()) {
            world.apply(&object).await.unwrap();
        }
        world.live(play);
        world
    }

    /// Makes everything but what acts by itself: until it lives, nothing happens in it.
    pub(crate) async fn still(seed: &Seed, fault: Fault, commits: &Commits) -> Self {
        let (began, beginning) = (Instant::now(), BEGINNING.parse::<Timestamp>().unwrap());
        let now = move || beginning.checked_add(began.elapsed()).unwrap();
        let draws = Mutex::new(seed.fork("draws"));
        let draw = move || {
            let mut draws = draws.lock();
            u128::from(draws.draw()) << 64 | u128::from(draws.draw())
        };
        let rules = Arc::new(Rules::new("adapter"));
        let server = Server::builder().clock(now).draws(draw).admission(rules.clone()).build().await.unwrap();
        rules.connect(Client::new(server.service(User::admin("admission")), "default"));
        let server = Arc::new(server);
        let user = Client::new(server.service(User::admin("user")), "default");
        let crds = Api::<CustomResourceDefinition>::all(user.clone());
        for crd in kratix_api::crds() {
            crds.create(&PostParams::default(), &crd).await.unwrap();
        }
        for crd in kratix_api::crds() {
            await_condition(crds.clone(), &crd.name_any(), conditions::is_crd_established()).await.unwrap();
        }
        let directory = tempfile::tempdir().unwrap();
        let observer = Arc::new(Observer::new(user.clone(), directory.path().join("repository")));
        let revision = |server: &Arc<Server>| {
            let server = Arc::downgrade(server);
            move || server.upgrade().map_or(0, |server| server.revision())
        };
        let watching = observer.clone();
        let manager = Injector::new(fault, Whose::Manager, seed, revision(&server));
        let manager = manager.observe(move |call: &Call| watching.clone().look(call.clone()));
        commits.count_with(&manager);
        let pods = Injector::new(fault, Whose::Pods, seed, revision(&server));

        let world = Self {
            user,
            manager,
            pods,
            observer,
            directory,
            script: Script::new(),
            restart: watch::Sender::new(0),
            starts: watch::Sender::new(0),
            managers: JoinSet::new(),
            rules,
            clock: Clock::new(now),
            fault,
            agents: Mutex::default(),
            wipes: Mutex::default(),
            left: Mutex::default(),
            _node: None,
            server,
        };
        init_bare(world.repository(), "main").unwrap();
        world.apply(&namespace(keys::SYSTEM_NAMESPACE)).await.unwrap();
        world
    }

    /// Starts the node, in which `play` stands for the containers of pipelines, and the managers.
    pub(crate) fn live(&mut self, play: impl Fn(&Stage<'_>) -> Outcome + Send + Sync + 'static) {
        let (accounts, of_pods) = (self.server.clone(), self.pods.clone());
        let clock = self.clock.clone();
        let node = SimulatedNode::builder(Client::new(self.server.service(User::admin("node")), "default"))
            .clock(move || clock.now())
            .pods(move |namespace, name| {
                of_pods.client(accounts.service(User::service_account(namespace, name)), &Life::default())
            })
            .start(play);
        self._node = Some(node);
        let count = if self.fault == Fault::Two { 2 } else { 1 };
        for number in 0..count {
            let part = Manager {
                service: self.as_manager(),
                injector: self.manager.clone(),
                options: Options {
                    adapter_image: "adapter".into(),
                    adapter_pull_secret: None,
                    cache_dir: self.directory.path().join(format!("cache-{number}")),
                    git: kratix_core::config::GitEnvironment::default(),
                    host: format!("manager-{number}"),
                    clock: self.clock.clone(),
                },
                restart: self.restart.subscribe(),
                starts: self.starts.clone(),
                is_shown_the_past: matches!(self.fault, Fault::Past(_)),
            };
            self.managers.spawn(part.live());
        }
    }

    /// Returns a way to the server for whoever is taken for the manager: some rules allow it more than anybody else.
    pub(crate) fn as_manager(&self) -> Service {
        let account = User::service_account(keys::SYSTEM_NAMESPACE, keys::MANAGER_SERVICE_ACCOUNT);
        self.server.service(User::admin(account.name))
    }

    /// Returns the time in whole seconds, as objects tell it.
    pub(crate) fn time(&self) -> String {
        condition::whole_seconds(self.clock.now()).to_string()
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.directory.path().join("repository")
    }

    /// Carries out a step.
    pub(crate) async fn step(&self, step: &Step) -> Result<(), String> {
        match tokio::time::timeout(DEADLINE, self.carry_out(step)).await {
            Ok(done) => done.map_err(|error| format!("{step:?} {IMPOSSIBLE}: {error}")),
            Err(_) if matches!(step, Step::Held(_)) => Err(format!("{step:?} {IMPOSSIBLE}: it does not run")),
            Err(_) => Err(format!("{step:?} does not end; last calls:\n{}", self.last_calls())),
        }
    }

    async fn carry_out(&self, step: &Step) -> Result<(), kube::Error> {
        match step {
            Step::Apply(object) => self.apply(object).await?,
            Step::Patch(address, patch) => {
                let patch = Patch::Merge(patch);
                self.api(address).patch(address.name, &PatchParams::default(), &patch).await?;
            }
            Step::WipeStatus(address) => self.wipe(address).await?,
            Step::Delete(address) => {
                if address.kind == "Destination" {
                    self.left.lock().push(address.name.to_owned());
                }
                self.api(address).delete(address.name, &DeleteParams::background()).await?;
            }
            Step::DeleteAll(address, labels) => {
                let selected = ListParams::default().labels(labels);
                self.api(address).delete_collection(&DeleteParams::background(), &selected).await?;
            }
            Step::Script(pipeline, act) => self.script.set(pipeline, act.clone()),
            Step::Held(pipeline) => self.script.held(pipeline).await,
            Step::Rest => self.quiet(QUIET).await,
            Step::Calm => self.quiet(CALM).await,
            Step::Served(crd) => {
                let crds = Api::<CustomResourceDefinition>::all(self.user.clone());
                await_condition(crds, crd, conditions::is_crd_established()).await.unwrap();
            }
            // Jumped over by the runtime's clock.
            Step::Pass(time) => tokio::time::sleep(*time).await,
            Step::BreakStore => std::fs::rename(self.repository(), self.directory.path().join("away")).unwrap(),
            Step::HealStore => std::fs::rename(self.directory.path().join("away"), self.repository()).unwrap(),
            Step::Restart => self.restart().await,
            Step::GitOps(directory) => {
                let agent = gitops::follow(self.user.clone(), self.observer.clone(), directory);
                drop(self.agents.lock().spawn(agent));
            }
        }
        Ok(())
    }

    async fn wipe(&self, address: &Address) -> Result<(), kube::Error> {
        let patch = Patch::Merge(json!({ "status": null }));
        let object = self.api(address).patch_status(address.name, &PatchParams::default(), &patch).await?;
        let answer = Some((200, serde_json::to_value(object).unwrap()));
        let call =
            Call { number: 0, method: http::Method::PATCH, path: object_path(address), body: Value::Null, answer };
        self.wipes.lock().push(call);
        Ok(())
    }

    /// Returns how users have removed statuses, as calls.
    pub(crate) fn wipes(&self) -> Vec<Call> {
        self.wipes.lock().clone()
    }

    /// Returns the directories of Destinations that users have removed.
    pub(crate) fn left(&self) -> Vec<String> {
        self.left.lock().clone()
    }

    /// Ends the managers and waits until others have started.
    pub(crate) async fn restart(&self) {
        let mut starts = self.starts.subscribe();
        let before = *starts.borrow_and_update();
        self.restart.send_modify(|number| *number += 1);
        starts.wait_for(|starts| *starts > before).await.unwrap();
    }

    /// Waits until nothing was written for a while. The clock is the runtime's: looking again costs nothing.
    async fn quiet(&self, time: Duration) {
        let mut last = (self.server.revision(), Instant::now());
        while last.1.elapsed() < time {
            tokio::time::sleep(time / LOOKS).await;
            if self.server.revision() != last.0 {
                last = (self.server.revision(), Instant::now());
            }
        }
    }

    fn last_calls(&self) -> String {
        let calls = self.manager.calls();
        let tail = calls.iter().skip(calls.len().saturating_sub(25));
        tail.map(|call| format!("  {call}\n")).collect()
    }

    async fn apply(&self, object: &Value) -> Result<(), kube::Error> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let api = self.dynamic(text("/apiVersion"), text("/kind"), text("/metadata/namespace"));
        let params = PatchParams::apply("user").force();
        api.patch(text("/metadata/name"), &params, &Patch::Apply(object)).await.map(drop)
    }

    fn api(&self, address: &Address) -> Api<DynamicObject> {
        self.dynamic(address.api_version, address.kind, address.namespace)
    }

    pub(crate) fn dynamic(&self, api_version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
        collection(&self.user, api_version, kind, namespace)
    }
}

/// Returns the collection of a kind.
pub(crate) fn collection(client: &Client, api_version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    match namespace {
        "" => Api::all_with(client.clone(), &resource),
        namespace => Api::namespaced_with(client.clone(), namespace, &resource),
    }
}

/// Returns a path that tells as much of an object as the others do.
fn object_path(address: &Address) -> String {
    let Address { api_version, kind, namespace, name } = address;
    format!("/apis/{api_version}/{namespace}/{}s/{name}", kind.to_lowercase())
}

impl Drop for World {
    fn drop(&mut self) {
        // The rules and the server would keep each other alive.
        self.rules.disconnect();
    }
}

/// A manager that is started again whenever it ends.
struct Manager {
    service: Service,
    injector: Injector,
    options: Options,
    restart: watch::Receiver<u32>,
    starts: watch::Sender<usize>,
    is_shown_the_past: bool,
}

impl Manager {
    async fn live(mut self) {
        let mut life = Life::default();
        loop {
            self.restart.mark_unchanged();
            let client = self.injector.client(self.service.clone(), &life);
            let controllers = tokio::select! {
                controllers = Controllers::start(client, self.options.clone()) => Some(controllers),
                () = life.ended() => None,
            };
            self.starts.send_modify(|starts| *starts += 1);
            tokio::select! {
                () = life.ended() => {}
                changed = self.restart.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    life.end();
                }
            }
            // As a crash does: every task ends where it stands.
            drop(controllers);
            tokio::time::sleep(DOWN).await;
            // Once: every other one sees the present, as it would on a server that answers from its quorum.
            life = if std::mem::take(&mut self.is_shown_the_past) { Life::in_the_past() } else { Life::default() };
        }
    }
}
