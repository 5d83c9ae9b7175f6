//! Containers that do not do what they should, with real containers: each ends in a condition and an event that name the
//! container, the cause and where to look, as early as it is known, and no longer than it lasts.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use kratix_testing::wait;
use kube::api::{DynamicObject, ListParams};
use kube::runtime::watcher;
use kube::{Api, ResourceExt};

use crate::world::{World, condition_in, is_reconciled, promise, request};

const FAILING: &str = "PipelineFailing";

/// Returns a Promise whose pipeline Kubernetes repeats as it does without options.
fn persistent(name: &str, kind: &str, script: &str) -> String {
    let once = "            jobOptions: {backoffLimit: 0}\n            restartPolicy: Never\n";
    let document = promise(name, kind, script);
    assert!(document.contains(once));
    document.replace(once, "")
}

/// Starts a platform with this Promise and asks for these.
async fn asked(document: &str, names: &[&str]) -> World {
    let world = World::start().await;
    world.apply(document).await;
    world.promise_available("thing").await;
    for name in names {
        world.apply(&request("Thing", "default", name)).await;
    }
    world
}

fn things(world: &World) -> Api<DynamicObject> {
    world.requests("test.kratix.io", "v1", "Thing", "things", "default")
}

/// Waits until a request says what its pipeline fails of, in a text with all of these parts, and returns the text.
async fn told(world: &World, name: &str, parts: &[&str]) -> String {
    let is = |request: &DynamicObject| {
        let told = condition_in(request, FAILING);
        parts.iter().all(|part| told.contains(part))
    };
    condition_in(&wait::until(&things(world), name, &format!("{name} to say {parts:?}"), is).await, FAILING)
}

/// Returns the only Job of a request.
async fn job(world: &World, name: &str) -> Job {
    let of = ListParams::default().labels(&format!("kratix.io/resource-name={name}"));
    let mut jobs = world.jobs("default").list(&of).await.unwrap().items;
    assert_eq!(jobs.len(), 1, "Jobs of {name}");
    jobs.remove(0)
}

/// Returns the notes of the events of a request with this reason.
async fn events(world: &World, name: &str, reason: &str) -> Vec<String> {
    let api: Api<Event> = Api::namespaced(world.hub(), "default");
    let of = ListParams::default().fields(&format!("involvedObject.name={name},reason={reason}"));
    let found = api.list(&of).await.unwrap().items;
    found.into_iter().map(|event| event.message.unwrap_or_default()).collect()
}

/// Waits for an event of a request with this reason and returns the notes of all of them.
async fn event(world: &World, name: &str, reason: &str) -> Vec<String> {
    let api: Api<Event> = Api::namespaced(world.hub(), "default");
    let of = watcher::Config::default().fields(&format!("involvedObject.name={name},reason={reason}"));
    wait::any(&api, of, &format!("the event {reason} of {name}"), |_| true).await;
    events(world, name, reason).await
}

async fn failed(world: &World, name: &str) -> DynamicObject {
    wait::until(&things(world), name, &format!("the workflow of {name} to have failed"), |request| {
        condition_in(request, "Reconciled") == "False/ConfigureWorkflowFailed/Failing"
    })
    .await
}

/// Issue "malformed files fail once, without burning the back-off limit": §14.3–§14.5, §19.37–39
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_pipeline_leaves_malformed_fails_once_and_says_which_file_and_why() {
    let cases = [
        (
            "selectors",
            "echo 'not: [a list' > /kratix/metadata/destination-selectors.yaml",
            "work-writer",
            "invalid destination-selectors.yaml: error converting YAML to JSON",
        ),
        (
            "parent",
            "printf -- '- matchLabels: {a: b}\\n  directory: ..\\n' > /kratix/metadata/destination-selectors.yaml",
            "work-writer",
            "invalid directory in destination-selectors.yaml: .., sub-directories are not allowed",
        ),
        (
            "control",
            "echo 'retryAfter: soon' > /kratix/metadata/workflow-control.yaml",
            "work-writer",
            "failed to parse retry duration: \"soon\"",
        ),
        ("link", "ln -s /etc/passwd /kratix/output/link", "work-writer", "refused \"link\""),
        ("large", "truncate -s 65M /kratix/output/big.bin", "work-writer", "64 MiB"),
        ("status", "echo '- a' > /kratix/metadata/status.yaml", "status-writer", "status.yaml: a map is wanted"),
        (
            "managed",
            "echo 'kratix: {mine: true}' > /kratix/metadata/status.yaml",
            "status-writer",
            "'kratix' is a kratix managed status field",
        ),
        (
            "hidden",
            "echo a > /kratix/output/hidden.yaml; chmod 000 /kratix/output/hidden.yaml",
            "work-writer",
            "hidden.yaml: Permission denied (os error 13); hint: let everybody read it (chmod -R a+rX)",
        ),
    ];
    let branches: String = cases.iter().map(|(name, script, ..)| format!("{name}) {script} ;;\n")).collect();
    let script = format!("case $KRATIX_OBJECT_NAME in\n{branches}esac");
    let names = cases.map(|(name, ..)| name);
    let world = asked(&persistent("thing", "Thing", &script), &names).await;
    for (name, _, container, cause) in cases {
        let request = failed(&world, name).await;
        assert_eq!(
            condition_in(&request, "ConfigureWorkflowCompleted"),
            "False/ConfigureWorkflowFailed/A Configure Pipeline has failed: configure"
        );
        // The Job controller removes a pod that would be restarted; what stays told leads to what is left.
        let job = job(&world, name).await;
        let left = format!(
            "; kubectl describe job -n default {} (the pod is gone, and its log; restartPolicy: Never keeps it)",
            job.name_any()
        );
        let whole = told(&world, name, &["True/InvalidOutput/", &left]).await;
        let subject = format!("pipeline configure: container {container} refuses what the pipeline has left: ");
        assert!(whole.contains(&subject) && whole.contains(cause), "{name}: {whole}");
        let notes = event(&world, name, "InvalidOutput").await;
        assert_eq!(notes.len(), 1, "{name}: {notes:#?}");
        let command = format!("; kubectl logs -n default kratix-thing-{name}-configure-");
        assert!(notes[0].contains(&command) && notes[0].ends_with(&format!(" -c {container}")), "{notes:#?}");
        assert_eq!(job.spec.as_ref().unwrap().backoff_limit, Some(0), "{name}");
        assert!(job.status.unwrap().failed.unwrap_or_default() <= 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_fails_is_told_at_once_and_forgotten_once_it_has_succeeded() {
    let script = "case $KRATIX_OBJECT_NAME in
exits)
  if test -e /kratix/metadata/again; then
    while ! test -e /kratix/metadata/go; do sleep 0.1; done
    exit 0
  fi
  touch /kratix/metadata/again
  echo the size is unknown > /dev/termination-log
  exit 3 ;;
killed) sh -c 'kill -9 $PPID' ;;
esac";
    let world = asked(&persistent("thing", "Thing", script), &["exits", "killed"]).await;

    let notes = event(&world, "exits", "ContainerFailed").await;
    let cause =
        "pipeline configure: container render exited with code 3: the size is unknown; kubectl logs -n default ";
    assert!(notes.len() == 1 && notes[0].starts_with(cause), "{notes:#?}");
    assert_ne!(condition_in(&things(&world).get("exits").await.unwrap(), FAILING), "");
    for pod in std::fs::read_dir(world.data_dir().join("node/pods")).unwrap().flatten() {
        // Of the other request's pod it is nobody's business.
        let _ = std::fs::write(pod.path().join("volumes/shared-metadata/go"), "");
    }
    let request = wait::until(&things(&world), "exits", "the next attempt to succeed", is_reconciled).await;
    assert_eq!(condition_in(&request, FAILING), "");

    let whole = told(&world, "killed", &["True/ContainerKilled/"]).await;
    assert!(whole.contains("container render was killed (SIGKILL, exit code 137); kubectl logs"), "{whole}");
    // Its Job has not given up, and the request says so.
    let request = things(&world).get("killed").await.unwrap();
    assert_eq!(condition_in(&request, "Reconciled"), "Unknown/WorkflowPending/Pending");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_that_is_told_shows_the_log() {
    let world = asked(&promise("thing", "Thing", "echo nobody knows the size >&2\nexit 1"), &["x"]).await;
    failed(&world, "x").await;
    let whole = told(&world, "x", &["exited with code 1"]).await;
    if world.is_embedded() {
        let (_, command) = whole.rsplit_once("; kubectl ").unwrap();
        assert_eq!(world.kubectl().run(command).await.ok(), "nobody knows the size\n");
    }
    let describe = world.kubectl().run("describe thing x").await.ok();
    assert!(describe.contains("A resource/configure Pipeline has failed: configure"), "{describe}");
    assert!(describe.contains("container render exited with code 1; kubectl logs -n default"), "{describe}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_waits_for_an_image_or_a_secret_says_so_and_goes_on_when_it_comes() {
    let waits = persistent("thing", "Thing", "true").replace("kratix.local/host", "example.org/later:1");
    let world = asked(&waits, &["x"]).await;
    let whole = told(&world, "x", &["True/ImageUnavailable/"]).await;
    let cause = "pipeline configure: image example.org/later:1 of container render cannot be had: ";
    assert!(whole.contains(cause) && whole.contains("; kubectl describe pod -n default "), "{whole}");
    let hint = format!("{cause}it is not in this machine's store; load it with kratix image load; kubectl ");
    assert!(whole.contains(&hint) || !world.is_embedded(), "{whole}");

    let env = "                image: kratix.local/host\n                env:\n                  - name: S\n                    valueFrom: {secretKeyRef: {name: later, key: k}}\n";
    let other =
        persistent("other", "Other", "test \"$S\" = v").replace("                image: kratix.local/host\n", env);
    world.apply(&other).await;
    world.promise_available("other").await;
    world.apply(&request("Other", "default", "z")).await;
    let others = world.requests("test.kratix.io", "v1", "Other", "others", "default");
    let is = |request: &DynamicObject| condition_in(request, FAILING).starts_with("True/ContainerNotStarted/");
    let whole = condition_in(&wait::until(&others, "z", "the request to name the Secret", is).await, FAILING);
    assert!(whole.contains("container render cannot be started: ") && whole.contains("later"), "{whole}");

    world.load_image("example.org/later:1", "#!/bin/sh\nexit 0\n", &[]).await;
    world.kubectl().run("create secret generic later --from-literal=k=v").await.ok();
    for (api, name) in [(things(&world), "x"), (others, "z")] {
        let request = wait::until(&api, name, "the request to be reconciled", is_reconciled).await;
        assert_eq!(condition_in(&request, FAILING), "");
    }
}

/// Issue, suite 4: a broken spec followed by a good one recovers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promise_whose_image_is_not_there_is_followed_by_one_whose_image_is() {
    let good = persistent("thing", "Thing", "echo 'a: b' > /kratix/output/a.yaml");
    let broken = good.replace("kratix.local/host", "example.org/never:1");
    let world = asked(&broken, &["x"]).await;
    told(&world, "x", &["True/ImageUnavailable/"]).await;
    world.apply(&good).await;
    let request = wait::until(&things(&world), "x", "the request to be reconciled", is_reconciled).await;
    assert_eq!(condition_in(&request, FAILING), "");
    assert_eq!(event(&world, "x", "PipelineSuspended").await, ["Configure Pipeline suspended: configure"]);

    // A deletion does not wait for it either.
    world.apply(&broken).await;
    told(&world, "x", &["True/ImageUnavailable/"]).await;
    world.kubectl().run("delete promise thing --timeout=120s").await.ok();
    world.files_gone("worker-1/resources/default/").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_cannot_be_made_is_told_with_the_name_of_what_is_missing() {
    let volume = "            volumes: [{name: v, secret: {secretName: later}}]\n            containers:\n";
    let document = persistent("thing", "Thing", "true").replace("            containers:\n", volume);
    let world = asked(&document, &["x"]).await;
    let whole = told(&world, "x", &["True/PodNotStarted/"]).await;
    assert!(whole.contains("pipeline configure: the pod cannot be started: ") && whole.contains("later"), "{whole}");
    world.kubectl().run("create secret generic later --from-literal=k=v").await.ok();
    let request = wait::until(&things(&world), "x", "the request to be reconciled", is_reconciled).await;
    assert_eq!(condition_in(&request, FAILING), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_never_ends_is_shown_as_running_until_its_deadline() {
    let world = asked(&persistent("thing", "Thing", "while :; do sleep 1000; done"), &["x"]).await;
    let is_running = |request: &DynamicObject| {
        let entry = request.data.pointer("/status/kratix/workflows/pipelines/0");
        entry.is_some_and(|entry| entry["phase"] == "Running" && entry["lastTransitionTime"].is_string())
    };
    wait::until(&things(&world), "x", "the pipeline to be shown as running", is_running).await;
    let pods: Api<Pod> = Api::namespaced(world.hub(), "default");
    wait::any(&pods, watcher::Config::default(), "its container to run", |pod: &Pod| {
        let containers = pod.status.as_ref().and_then(|status| status.init_container_statuses.as_ref());
        containers.into_iter().flatten().any(|container| {
            container.name == "render" && container.state.as_ref().is_some_and(|state| state.running.is_some())
        })
    })
    .await;
    let name = job(&world, "x").await.name_any();
    let patch = r#"{"spec":{"activeDeadlineSeconds":1}}"#;
    world.kubectl().exec(&["patch", "job", &name, "--type=merge", "-p", patch], None).await.ok();
    failed(&world, "x").await;
    let whole = told(&world, "x", &["True/DeadlineExceeded/", &name, "has failed while container render ran"]).await;
    assert!(whole.ends_with(&format!("; kubectl describe job -n default {name}")), "{whole}");
    assert_eq!(event(&world, "x", "DeadlineExceeded").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_container_leaves_running_ends_with_it() {
    // The number is in nobody else's command line.
    let number = std::process::id() + 4_000_000;
    let script = format!("(sleep {number} > /dev/null 2>&1 &)\nsleep {number} &\necho 'a: b' > /kratix/output/a.yaml");
    let world = asked(&persistent("thing", "Thing", &script), &["x"]).await;
    wait::until(&things(&world), "x", "the request to be reconciled", is_reconciled).await;
    let commands = std::fs::read_dir("/proc").unwrap().flatten();
    let commands = commands.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    let left: Vec<String> = commands
        .map(|command| String::from_utf8_lossy(&command).replace('\0', " "))
        .filter(|command| command.starts_with("sleep ") && command.contains(&number.to_string()))
        .collect();
    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_that_has_filled_its_volume_names_the_volume() {
    let volume = "            volumes: [{name: small, emptyDir: {sizeLimit: 1Mi}}]\n            containers:\n";
    let mount = "                image: kratix.local/host\n                volumeMounts: [{name: small, mountPath: /kratix/metadata/small}]\n";
    let document = promise("thing", "Thing", "head -c 2000000 /dev/zero > /kratix/metadata/small/file")
        .replace("            containers:\n", volume)
        .replace("                image: kratix.local/host\n", mount);
    let world = asked(&document, &["x"]).await;
    failed(&world, "x").await;
    let whole = told(&world, "x", &["True/PodEvicted/"]).await;
    // Whichever container the eviction has met.
    let cause = ": Usage of EmptyDir volume \"small\" exceeds the limit \"1Mi\"; kubectl describe pod -n default ";
    assert!(whole.contains("pipeline configure: the pod was evicted ") && whole.contains(cause), "{whole}");
    assert_eq!(event(&world, "x", "PodEvicted").await.len(), 1);
}
