//! The agent between a real repository, pushed to by the real `git`, and an API server in process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use embedded_apiserver::{Server, User};
use embedded_gitops::{Agent, Builder, Status};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace};
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt};
use tempfile::TempDir;

/// How long a condition may take; only a hang takes that long.
const DEADLINE: Duration = Duration::from_secs(30);

/// Longer than any test: what has to happen at once must not be brought by looking now and then.
const NEVER: Duration = Duration::from_secs(3600);

const WIDGETS: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {kind: Widget, plural: widgets, singular: widget, listKind: WidgetList}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer}}}
"#;
const WIDGET: &str =
    "apiVersion: example.org/v1\nkind: Widget\nmetadata: {name: w, namespace: team}\nspec: {size: 1}\n";
const TEAM: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n";

fn config_map(name: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: default}}\ndata: {{value: {value:?}}}\n"
    )
}

struct Bed {
    directory: TempDir,
    server: Server,
}

impl Bed {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        git(directory.path(), &["init", "-q", "--bare", "-b", "main", "state.git"]);
        let server = Server::builder().build().await.expect("a server");
        Self { directory, server }
    }

    fn repository(&self) -> PathBuf {
        self.directory.path().join("state.git")
    }

    fn client(&self) -> Client {
        Client::new(self.server.service(User::admin("test")), "default")
    }

    fn agent(&self) -> Builder {
        let client = Client::new(self.server.service(User::admin("agent")), "default");
        Agent::builder(client).repository(self.repository().to_string_lossy()).directory("worker-1").look_every(NEVER)
    }

    /// Pushes files (`None`: removed) and returns the commit.
    fn push(&self, files: &[(&str, Option<&str>)]) -> String {
        let clone = tempfile::tempdir().expect("a directory");
        let at = clone.path().join("c");
        git(clone.path(), &["clone", "-q", &self.repository().to_string_lossy(), "c"]);
        for (path, content) in files {
            let file = at.join(path);
            match content {
                Some(content) => {
                    std::fs::create_dir_all(file.parent().expect("a parent")).expect("a directory");
                    std::fs::write(&file, content).expect("a file");
                }
                None => std::fs::remove_file(&file).expect("removed"),
            }
        }
        git(&at, &["checkout", "-q", "-B", "main"]);
        git(&at, &["add", "-A"]);
        git(&at, &["commit", "-q", "--allow-empty", "-m", "change"]);
        git(&at, &["push", "-q", "origin", "main"]);
        git(&at, &["rev-parse", "HEAD"]).trim().to_owned()
    }

    fn config_maps(&self) -> Api<ConfigMap> {
        Api::default_namespaced(self.client())
    }

    async fn value(&self, name: &str) -> Option<String> {
        let found = self.config_maps().get_opt(name).await.expect("readable")?;
        found.data?.remove("value")
    }

    fn widgets(&self) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("example.org", "v1", "Widget"));
        Api::namespaced_with(self.client(), "team", &resource)
    }

    fn writes(&self) -> u64 {
        self.server.counters().values().sum()
    }
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", directory)
        .envs([("GIT_AUTHOR_NAME", "t"), ("GIT_AUTHOR_EMAIL", "t@example.org")])
        .envs([("GIT_COMMITTER_NAME", "t"), ("GIT_COMMITTER_EMAIL", "t@example.org")])
        .output()
        .expect("git is installed");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until the agent's status is as wanted, and shows the last one if it never is.
async fn until(agent: &Agent, what: &str, mut is: impl FnMut(&Status) -> bool) -> Status {
    let mut status = agent.status();
    let found = tokio::time::timeout(DEADLINE, status.wait_for(|status| is(status))).await;
    match found {
        Ok(found) => found.expect("the agent runs").clone(),
        Err(_) => panic!("never {what}: {:?}", *agent.status().borrow()),
    }
}

async fn until_synced(agent: &Agent, commit: &str) -> Status {
    until(agent, "synced", |status| status.is_synced() && status.commit.as_deref() == Some(commit)).await
}

#[tokio::test]
async fn a_push_is_applied_in_order_and_what_leaves_is_removed() {
    let bed = Bed::new().await;
    let agent = bed.agent().start().expect("started");
    // Files in the order of their names would come the wrong way round.
    let commit = bed.push(&[
        ("worker-1/a/widget.yaml", Some(WIDGET)),
        ("worker-1/b/namespace.yaml", Some(TEAM)),
        ("worker-1/c/crd.yaml", Some(WIDGETS)),
        ("worker-1/README.md", Some("not for us")),
        ("worker-1/.kratix/list.yaml", Some("files:\n- x\n")),
        ("worker-2/other.yaml", Some(&config_map("other", "1"))),
    ]);
    let status = until_synced(&agent, &commit).await;
    assert_eq!(status.applied, 3);
    assert_eq!(status.skipped.len(), 1);
    assert_eq!(bed.widgets().get("w").await.expect("there").data["spec"]["size"], 1);
    assert_eq!(bed.value("other").await, None, "another directory");

    let commit = bed.push(&[("worker-1/a/widget.yaml", Some(&WIDGET.replace("size: 1", "size: 7")))]);
    until_synced(&agent, &commit).await;
    assert_eq!(bed.widgets().get("w").await.expect("there").data["spec"]["size"], 7);

    let gone = ["worker-1/a/widget.yaml", "worker-1/b/namespace.yaml", "worker-1/c/crd.yaml"];
    let commit = bed.push(&gone.map(|path| (path, None)));
    let status = until_synced(&agent, &commit).await;
    assert_eq!(status.applied, 0);
    let crds: Api<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> =
        Api::all(bed.client());
    let left = crds.get_opt("widgets.example.org").await.expect("readable");
    assert!(left.is_none_or(|crd| crd.metadata.deletion_timestamp.is_some()));
    let team = Api::<Namespace>::all(bed.client()).get_opt("team").await.expect("readable");
    assert!(team.is_none_or(|team| team.metadata.deletion_timestamp.is_some()));
}

#[tokio::test]
async fn an_object_whose_version_is_no_longer_served_is_removed_by_another() {
    let (_, version) = WIDGETS.split_once("  versions:\n").expect("versions");
    let other = version.replace("name: v1", "name: v2").replace("storage: true", "storage: false");
    let both = format!("{WIDGETS}{other}");
    let later = both.replacen("served: true", "served: false", 1);
    // The agent that knows the old version, and one that has never seen it.
    for restarts in [false, true] {
        let bed = Bed::new().await;
        let agent = bed.agent().start().expect("started");
        let (widget, crd, team) = ("worker-1/a.yaml", "worker-1/b.yaml", "worker-1/c.yaml");
        let commit = bed.push(&[(widget, Some(WIDGET)), (crd, Some(&both)), (team, Some(TEAM))]);
        until_synced(&agent, &commit).await;
        let agent = Some(agent).filter(|_| !restarts);
        let commit = bed.push(&[(widget, None), (crd, Some(&later))]);
        let agent = agent.unwrap_or_else(|| bed.agent().start().expect("started"));
        until_synced(&agent, &commit).await;
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("example.org", "v2", "Widget"));
        let widgets: Api<DynamicObject> = Api::namespaced_with(bed.client(), "team", &resource);
        let left = widgets.list(&ListParams::default()).await.expect("v2 is served").items;
        assert!(left.is_empty(), "restarts: {restarts}: {left:?}");
    }
}

#[tokio::test]
async fn nothing_is_written_when_nothing_changed_not_even_after_a_restart() {
    let bed = Bed::new().await;
    let commit =
        bed.push(&[("worker-1/a.yaml", Some(&config_map("a", "1"))), ("worker-1/b.yaml", Some(&config_map("b", "1")))]);
    let agent = bed.agent().start().expect("started");
    until_synced(&agent, &commit).await;
    let writes = bed.writes();
    // A commit elsewhere, a look for nothing, and a start from nothing.
    let commit = bed.push(&[("elsewhere/x.yaml", Some("x: 1"))]);
    until_synced(&agent, &commit).await;
    agent.poke().look();
    drop(agent);
    let agent = bed.agent().start().expect("started");
    assert_eq!(until_synced(&agent, &commit).await.applied, 2);
    assert_eq!(bed.writes(), writes);
    // One of two objects changes: one is applied.
    let commit = bed.push(&[("worker-1/a.yaml", Some(&config_map("a", "2")))]);
    until_synced(&agent, &commit).await;
    assert_eq!(bed.value("a").await.as_deref(), Some("2"));
    assert_eq!(bed.writes(), writes + 2, "the object and the memory");
}

#[tokio::test]
async fn what_others_made_is_never_removed() {
    let bed = Bed::new().await;
    let commit = bed.push(&[("worker-1/a.yaml", Some(&config_map("a", "1")))]);
    let agent = bed.agent().start().expect("started");
    until_synced(&agent, &commit).await;
    let theirs: ConfigMap = serde_json::from_value(serde_json::json!({"metadata": {"name": "theirs"}})).expect("valid");
    bed.config_maps().create(&Default::default(), &theirs).await.expect("created");
    // The object is replaced by somebody else's of the same name.
    bed.config_maps().delete("a", &Default::default()).await.expect("deleted");
    let other: ConfigMap = serde_json::from_value(serde_json::json!({"metadata": {"name": "a"}})).expect("valid");
    bed.config_maps().create(&Default::default(), &other).await.expect("created");
    let commit = bed.push(&[("worker-1/a.yaml", None)]);
    until_synced(&agent, &commit).await;
    assert!(bed.config_maps().get_opt("a").await.expect("readable").is_some());
    assert!(bed.config_maps().get_opt("theirs").await.expect("readable").is_some());
}

#[tokio::test]
async fn failures_are_reported_for_each_object_and_heal_by_themselves() {
    let bed = Bed::new().await;
    let invalid = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Not_Valid, namespace: default}\n";
    let commit = bed.push(&[
        ("worker-1/a.yaml", Some(&config_map("a", "1"))),
        ("worker-1/broken.yaml", Some("kind: [")),
        ("worker-1/early.yaml", Some(WIDGET)),
        ("worker-1/invalid.yaml", Some(invalid)),
        ("worker-1/twice.yaml", Some(&config_map("a", "2"))),
    ]);
    let agent = bed.agent().start().expect("started");
    let status = until(&agent, "tried", |status| status.commit.as_ref() == Some(&commit)).await;
    let paths: Vec<_> = status.failed.iter().map(|failure| failure.path.as_str()).collect();
    assert_eq!(paths, ["broken.yaml", "early.yaml", "invalid.yaml", "twice.yaml"], "{:?}", status.failed);
    assert!(status.failed[1].message.contains("does not exist in the cluster"), "{}", status.failed[1]);
    assert!(status.failed[3].message.contains("already defined in a.yaml"), "{}", status.failed[3]);
    assert_eq!(bed.value("a").await.as_deref(), Some("1"));

    // People see it without asking the agent.
    let memory = bed.config_maps().get("embedded-gitops-worker-1").await.expect("there").data.expect("data");
    assert_eq!(memory["state"], "Failing");
    assert!(memory["failed"].contains("Widget.example.org team/w (early.yaml): "), "{}", memory["failed"]);
    let events: Api<Event> = Api::default_namespaced(bed.client());
    let events = events.list(&ListParams::default()).await.expect("readable");
    assert!(events.iter().any(|event| event.reason.as_deref() == Some("SyncFailed")));

    // The kind appears without a push, and the agent tries again.
    let apply = |text: &str| {
        let object: serde_json::Value = serde_saphyr::from_str(text).expect("valid");
        let kind = object["kind"].as_str().expect("a kind").to_owned();
        (object, kind)
    };
    for text in [WIDGETS, TEAM] {
        let (object, kind) = apply(text);
        let (group, plural) = if kind == "Namespace" { ("", "v1") } else { ("apiextensions.k8s.io", "v1") };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, plural, &kind));
        let api: Api<DynamicObject> = Api::all_with(bed.client(), &resource);
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        api.patch(&name, &PatchParams::apply("somebody"), &Patch::Apply(&object)).await.expect("applied");
    }
    until(&agent, "healed", |status| status.failed.iter().all(|failure| failure.path != "early.yaml")).await;
    let commit =
        bed.push(&[("worker-1/broken.yaml", None), ("worker-1/invalid.yaml", None), ("worker-1/twice.yaml", None)]);
    until_synced(&agent, &commit).await;
    let memory = bed.config_maps().get("embedded-gitops-worker-1").await.expect("there").data.expect("data");
    assert_eq!((memory["state"].as_str(), memory["failed"].as_str()), ("Synced", ""));
    assert_eq!(memory["commit"], commit);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_any_more_removes_nothing() {
    let bed = Bed::new().await;
    let both = format!("{}---\n{}", config_map("a", "1"), config_map("b", "1"));
    let commit = bed.push(&[("worker-1/x.yaml", Some(&both))]);
    let agent = bed.agent().start().expect("started");
    until_synced(&agent, &commit).await;
    let commit = bed.push(&[("worker-1/x.yaml", Some(&format!("{}---\nkind: [", config_map("a", "2"))))]);
    until(&agent, "tried", |status| status.commit.as_ref() == Some(&commit) && !status.failed.is_empty()).await;
    assert_eq!(bed.value("a").await.as_deref(), Some("2"));
    assert_eq!(bed.value("b").await.as_deref(), Some("1"), "nobody said that it should go");
    // A branch that vanishes is trouble, not an order to remove everything.
    git(&bed.repository(), &["update-ref", "refs/heads/other", "main"]);
    git(&bed.repository(), &["update-ref", "-d", "refs/heads/main"]);
    agent.poke().look();
    until(&agent, "in trouble", |status| status.trouble.is_some()).await;
    assert_eq!(bed.value("a").await.as_deref(), Some("2"));
    git(&bed.repository(), &["update-ref", "refs/heads/main", "other"]);
    let commit = bed.push(&[("worker-1/x.yaml", None)]);
    until_synced(&agent, &commit).await;
    assert_eq!((bed.value("a").await, bed.value("b").await), (None, None));
}

#[tokio::test]
async fn drift_is_put_right_and_the_rest_left_alone() {
    let bed = Bed::new().await;
    let commit =
        bed.push(&[("worker-1/a.yaml", Some(&config_map("a", "1"))), ("worker-1/b.yaml", Some(&config_map("b", "1")))]);
    let agent = bed.agent().drift_check(Duration::from_millis(100)).start().expect("started");
    until_synced(&agent, &commit).await;
    let b = bed.config_maps().get("b").await.expect("there").resource_version();
    let patch = serde_json::json!({"data": {"value": "tampered"}});
    bed.config_maps().patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("patched");
    let restored = async {
        while bed.value("a").await.as_deref() != Some("1") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, restored).await.expect("restored");
    assert_eq!(bed.config_maps().get("b").await.expect("there").resource_version(), b);
}

#[tokio::test]
async fn a_definition_of_800_kilobytes_is_applied() {
    let bed = Bed::new().await;
    let mut properties = String::new();
    for at in 0..6_000 {
        properties.push_str(&format!(
            "          field{at}:\n            type: string\n            description: {:?}\n",
            "d".repeat(80)
        ));
    }
    let crd = WIDGETS.replace("        properties:\n", &format!("        properties:\n{properties}"));
    assert!(crd.len() > 800_000);
    let commit = bed.push(&[
        ("worker-1/crd.yaml", Some(&crd)),
        ("worker-1/ns.yaml", Some(TEAM)),
        ("worker-1/w.yaml", Some(WIDGET)),
    ]);
    let agent = bed.agent().start().expect("started");
    assert_eq!(until_synced(&agent, &commit).await.applied, 3);
}

#[tokio::test]
async fn a_repository_may_appear_after_the_agent() {
    let bed = Bed::new().await;
    let later = bed.directory.path().join("later.git");
    let agent = bed.agent().repository(format!("file://{}", later.display())).start().expect("started");
    until(&agent, "in trouble", |status| status.trouble.is_some()).await;
    let commit = bed.push(&[("worker-1/a.yaml", Some(&config_map("a", "1")))]);
    git(bed.directory.path(), &["clone", "-q", "--bare", "state.git", "later.git"]);
    until_synced(&agent, &commit).await;
    assert!(
        bed.agent()
            .repository("https://user:secret@host/x")
            .start()
            .is_err_and(|error| !error.to_string().contains("secret"))
    );
}

#[tokio::test]
async fn a_push_is_noticed_at_once() {
    let bed = Bed::new().await;
    let commit = bed.push(&[("worker-1/a.yaml", Some(&config_map("a", "0")))]);
    let agent = bed.agent().start().expect("started");
    until_synced(&agent, &commit).await;
    // At rest the agent looks once an hour: only the push itself can have woken it.
    for value in ["1", "2", "3"] {
        let commit = bed.push(&[("worker-1/a.yaml", Some(&config_map("a", value)))]);
        until_synced(&agent, &commit).await;
        assert_eq!(bed.value("a").await.as_deref(), Some(value));
    }
}

#[tokio::test]
async fn naming_the_namespace_that_an_object_has_does_not_remove_it() {
    let bed = Bed::new().await;
    let agent = bed.agent().start().expect("started");
    let bare = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {value: '1'}\n";
    let role = |namespace: &str| {
        format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: r{namespace}}}\nrules: []\n"
        )
    };
    let stray = |text: &str| text.replace("metadata: {", "metadata: {namespace: stray, ");
    let commit = bed.push(&[
        ("worker-1/a.yaml", Some(bare)),
        ("worker-1/r.yaml", Some(&role(""))),
        ("worker-1/t.yaml", Some(TEAM)),
        ("worker-1/crd.yaml", Some(WIDGETS)),
        ("worker-1/w.yaml", Some(WIDGET)),
    ]);
    until_synced(&agent, &commit).await;
    let roles: Api<k8s_openapi::api::rbac::v1::ClusterRole> = Api::all(bed.client());
    let namespaces: Api<Namespace> = Api::all(bed.client());
    let crds: Api<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> =
        Api::all(bed.client());
    let uids = async || {
        let a = bed.config_maps().get("a").await.expect("a").uid();
        let r = roles.get("r").await.expect("r").uid();
        let t = namespaces.get("team").await.expect("team").uid();
        let crd = crds.get("widgets.example.org").await.expect("widgets").uid();
        [a, r, t, crd, bed.widgets().get("w").await.expect("w").uid()]
    };
    let before = uids().await;
    let named = config_map("a", "1");
    for (a, r, t, crd) in [
        (named.as_str(), role(", namespace: stray"), stray(TEAM), stray(WIDGETS)),
        (bare, role(""), TEAM.to_owned(), WIDGETS.to_owned()),
    ] {
        let commit = bed.push(&[
            ("worker-1/a.yaml", Some(a)),
            ("worker-1/r.yaml", Some(&r)),
            ("worker-1/t.yaml", Some(&t)),
            ("worker-1/crd.yaml", Some(&crd)),
        ]);
        assert_eq!(until_synced(&agent, &commit).await.applied, 5);
        assert_eq!(uids().await, before);
    }
    // One object in two files, once with and once without its namespace, is one object.
    let commit = bed.push(&[("worker-1/b.yaml", Some(&named))]);
    let status = until(&agent, "tried", |status| status.commit.as_ref() == Some(&commit)).await;
    assert!(status.failed[0].message.contains("already defined in a.yaml"), "{:?}", status.failed);
    // What really leaves is still removed.
    let commit = bed.push(&[("worker-1/a.yaml", None), ("worker-1/b.yaml", None), ("worker-1/r.yaml", None)]);
    until_synced(&agent, &commit).await;
    assert_eq!(bed.value("a").await, None);
    assert!(roles.get_opt("r").await.expect("readable").is_none());
}

#[tokio::test]
async fn a_renamed_file_keeps_its_objects_when_it_breaks() {
    let bed = Bed::new().await;
    let agent = bed.agent().start().expect("started");
    let commit = bed.push(&[("worker-1/old.yaml", Some(&config_map("a", "1")))]);
    until_synced(&agent, &commit).await;
    let commit = bed.push(&[("worker-1/old.yaml", None), ("worker-1/new.yaml", Some(&config_map("a", "1")))]);
    until_synced(&agent, &commit).await;
    drop(agent);
    let agent = bed.agent().start().expect("started");
    let commit = bed.push(&[("worker-1/new.yaml", Some("kind: ["))]);
    until(&agent, "tried", |status| status.commit.as_ref() == Some(&commit) && !status.failed.is_empty()).await;
    assert_eq!(bed.value("a").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_document_that_loses_its_kind_removes_nothing() {
    let bed = Bed::new().await;
    let agent = bed.agent().start().expect("started");
    let values = "values:\n  x: 1\n";
    let commit = bed.push(&[
        ("worker-1/a.yaml", Some(&config_map("a", "1"))),
        ("worker-1/v.yaml", Some(&format!("{}---\n{values}", config_map("b", "1")))),
    ]);
    until_synced(&agent, &commit).await;
    let commit = bed.push(&[("worker-1/a.yaml", Some(&config_map("a", "2").replace("kind: ConfigMap\n", "")))]);
    let status = until(&agent, "tried", |status| status.commit.as_ref() == Some(&commit)).await;
    assert_eq!(status.failed.len(), 1, "{:?}", status.failed);
    assert!(status.failed[0].message.contains("no apiVersion or no kind"), "{}", status.failed[0]);
    assert_eq!(bed.value("a").await.as_deref(), Some("1"), "nobody said that it should go");
    let commit = bed.push(&[("worker-1/a.yaml", None), ("worker-1/v.yaml", None)]);
    until_synced(&agent, &commit).await;
    assert_eq!((bed.value("a").await, bed.value("b").await), (None, None));
}

#[tokio::test]
async fn what_the_cluster_refuses_is_told_in_events_about_the_objects() {
    let bed = Bed::new().await;
    let long = "x".repeat(2_000);
    let invalid = |name: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name:?}}}\n");
    let commit = bed.push(&[
        ("worker-1/a.yaml", Some(&config_map("a", "1"))),
        ("worker-1/b.yaml", Some(&invalid("Not_Valid"))),
        ("worker-1/c.yaml", Some(&invalid(&long))),
        ("worker-1/d.yaml", Some(&config_map("invalid", "1").replace("value:", "n@t valid:"))),
    ]);
    let agent = bed.agent().start().expect("started");
    until(&agent, "tried", |status| status.commit.as_ref() == Some(&commit) && status.failed.len() == 3).await;
    // As `kubectl get events -A` and `kubectl get configmaps -n default` read them.
    let events: Api<Event> = Api::all(bed.client());
    let events = events.list(&ListParams::default()).await.expect("readable");
    let about = |name: &str, message: &str| {
        let about = |event: &&Event| event.involved_object.name.as_deref() == Some(name);
        let failed = |event: &&Event| event.reason.as_deref() == Some("SyncFailed");
        let says = |event: &Event| event.message.as_deref().is_some_and(|text| text.starts_with(message));
        events.iter().filter(about).filter(failed).any(says)
    };
    assert!(about("invalid", "ConfigMap default/invalid (d.yaml): "), "{events:?}");
    // Events bear the name of their object; of one without a valid name the agent's own ConfigMap tells.
    assert!(about("embedded-gitops-worker-1", "ConfigMap default/Not_Valid (b.yaml): "), "{events:?}");
    let memory = bed.config_maps().get("embedded-gitops-worker-1").await.expect("there").data.expect("data");
    assert_eq!(memory["state"], "Failing");
    assert!(memory["failed"].lines().all(|line| line.len() <= 1_024), "{}", memory["failed"]);
    // Told once, however often it is tried.
    let count = events.items.len();
    agent.poke().look();
    let commit = bed.push(&[("worker-1/a.yaml", Some(&config_map("a", "2")))]);
    until(&agent, "tried", |status| status.commit.as_ref() == Some(&commit)).await;
    let events: Api<Event> = Api::all(bed.client());
    assert_eq!(events.list(&ListParams::default()).await.expect("readable").items.len(), count);
}
