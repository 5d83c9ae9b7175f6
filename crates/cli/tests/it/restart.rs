//! Stops, crashes and starts: nothing acknowledged is lost, nothing runs twice, nothing is written without need.

use std::path::Path;
use std::process::Command;

use k8s_openapi::api::core::v1::Namespace;
use kratix_testing::wait;
use kube::Api;
use kube::api::ListParams;

use crate::world::{World, is_reconciled, promise, request};

const SCRIPT: &str = "echo '{}' > /kratix/output/file.yaml";
/// How long nothing may happen until the controllers are believed to be at rest: longer than any chain of passes pauses.
const QUIET: std::time::Duration = std::time::Duration::from_secs(2);

/// Returns the revision of the platform's newest write; every write of any object raises it.
async fn revision(world: &World) -> String {
    let namespaces: Api<Namespace> = Api::all(world.hub());
    namespaces.list(&ListParams::default().limit(1)).await.unwrap().metadata.resource_version.unwrap()
}

/// Waits until nothing has been written for a while, and returns the revision then.
///
/// # Panics
/// When something is still being written after the deadline: writes without end are what callers look for.
pub(crate) async fn at_rest(world: &World) -> String {
    let started = tokio::time::Instant::now();
    let mut last = (revision(world).await, tokio::time::Instant::now());
    loop {
        let now = revision(world).await;
        if now != last.0 {
            last = (now, tokio::time::Instant::now());
        } else if last.1.elapsed() > QUIET {
            return now;
        }
        assert!(started.elapsed() < wait::DEADLINE, "still writing, at revision {}", last.0);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_nothing_changed_writes_nothing() {
    let mut world = World::start().await;
    world.apply(&promise("thing", "Thing", SCRIPT)).await;
    world.promise_available("thing").await;
    world.apply(&request("Thing", "default", "x")).await;
    let requests = world.requests("test.kratix.io", "v1", "Thing", "things", "default");
    wait::until(&requests, "x", "the request to be reconciled", is_reconciled).await;
    let before = at_rest(&world).await;
    let head = world.git(&["rev-parse", "main"]);

    world.restart().await;
    assert_eq!(at_rest(&world).await, before, "no write to the API");
    assert_eq!(world.git(&["rev-parse", "main"]), head, "no commit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_at_any_moment_loses_nothing_and_runs_nothing_twice() {
    let mut world = World::start().await;
    // As people publish Promises: a container that was interrupted is started again in its Pod.
    let impatient = "            jobOptions: {backoffLimit: 0}\n            restartPolicy: Never\n";
    let published = promise("thing", "Thing", SCRIPT).replace(impatient, "");
    assert!(!published.contains("restartPolicy"));
    world.apply(&published).await;
    world.promise_available("thing").await;
    world.apply(&request("Thing", "default", "x")).await;
    // Killed three times, each time further along the path.
    for kind in ["jobs", "pods", "works"] {
        wait::poll(kind, || async {
            let found = world.kubectl().run(&format!("get {kind} -l kratix.io/resource-name=x -o name")).await;
            if found.stdout.trim().is_empty() { Err(found.stderr) } else { Ok(()) }
        })
        .await;
        world.kill().await;
        world.restart().await;
    }
    let requests = world.requests("test.kratix.io", "v1", "Thing", "things", "default");
    wait::until(&requests, "x", "the request to be reconciled", is_reconciled).await;
    for kind in ["jobs", "works", "workplacements"] {
        let names = world.kubectl().run(&format!("get {kind} -l kratix.io/resource-name=x -o name")).await.ok();
        assert_eq!(names.lines().count(), 1, "{names}");
    }
    // What has run is not run again.
    let restarts =
        "get pods -l kratix.io/resource-name=x -o jsonpath={.items[*].status.initContainerStatuses[*].restartCount}";
    let before = world.kubectl().run(restarts).await.ok();
    world.kill().await;
    world.restart().await;
    at_rest(&world).await;
    assert_eq!(world.kubectl().run(restarts).await.ok(), before);
    let files = world.git(&["ls-tree", "-r", "--name-only", "main", "worker-1/resources/default"]);
    assert_eq!(files.trim(), "worker-1/resources/default/thing/x/configure/5058f/file.yaml");
    world.git(&["fsck", "--strict"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_starts_while_the_one_that_was_killed_is_still_ending() {
    let mut world = World::start().await;
    for _ in 0..3 {
        world.kill_unseen();
        world.restart().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_platform_in_one_directory_and_a_busy_port_are_refused_clearly() {
    let world = World::start().await;
    let up = |listen: &str, directory: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_kratix"))
            .args(["up", "--listen", listen, "--data-dir"])
            .arg(directory)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let text = up("127.0.0.1:0", &world.data_dir());
    assert!(text.contains("is in use by process"), "{text}");
    assert!(text.contains("hint: stop it with `kratix down`"), "{text}");

    let other = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = taken.local_addr().unwrap().to_string();
    let text = up(&busy, other.path());
    assert!(text.contains(&format!("Error: cannot listen on {busy}")), "{text}");
    assert!(text.contains("hint: choose another address with --listen"), "{text}");

    std::fs::write(other.path().join("format"), "99\n").unwrap();
    let text = up("127.0.0.1:0", other.path());
    assert!(text.contains("has format 99"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_and_down_tell_the_truth() {
    let mut world = World::start().await;
    let status = world.kratix(&["status"]).await;
    assert!(status.status.success());
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(text.starts_with("running    process "), "{text}");
    world.stop().await;
    let status = world.kratix(&["status"]).await;
    assert_eq!(status.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&status.stdout).starts_with("not running"));
    let down = world.kratix(&["down"]).await;
    assert!(down.status.success());
    assert!(String::from_utf8_lossy(&down.stderr).contains("nothing is running"));
}

/// A platform that is starting holds the lock and has said nothing; what is there, one that crashed has said.
#[test]
fn what_a_crashed_platform_left_leads_nobody_to_a_stranger() {
    let directory = tempfile::tempdir().unwrap();
    let lock = std::fs::File::create(directory.path().join("lock")).unwrap();
    lock.lock().unwrap();
    let mut stranger = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
    let kratix = |command: &str| {
        let mut kratix = Command::new(env!("CARGO_BIN_EXE_kratix"));
        let output = kratix.arg(command).arg("--data-dir").arg(directory.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{command}");
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned())
    };
    // By a program that did not write down when it started, and by one that did.
    for started in ["", r#""started": 1,"#] {
        let left = format!(r#"{{"pid": {}, {started} "platform": "", "worker": "", "kubeconfig": ""}}"#, stranger.id());
        std::fs::write(directory.path().join("running.json"), left).unwrap();
        let [_, talk] = kratix("down");
        assert!(talk.contains("has not said which it is"), "{talk}");
        assert!(stranger.try_wait().unwrap().is_none(), "a stranger was stopped");
        let [said, _] = kratix("status");
        assert!(said.starts_with("starting or stopping"), "{said}");
    }
    drop(stranger.stdin.take());
    // Told by its input, not by a signal.
    assert!(stranger.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detached_platform_stays_until_it_is_told_to_stop() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let copy = directory.path().join("elsewhere/config");
    let kratix = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_kratix"))
            .args(args)
            .arg("--data-dir")
            .arg(&data)
            .env_remove("RUST_LOG")
            .env_remove("NO_COLOR")
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    };
    std::fs::create_dir_all(data.join("kratix.log")).unwrap();
    let (up, _, talk) = kratix(&["up", "--detach", "--listen", "127.0.0.1:0"]);
    assert!(!up && talk.contains(&format!("Error: cannot write {}", data.join("kratix.log").display())), "{talk}");
    // As an older program left it.
    std::fs::remove_dir(data.join("kratix.log")).unwrap();
    std::fs::write(data.join("kratix.log"), "").unwrap();
    let permissions = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(&data, permissions(0o755)).unwrap();
    std::fs::set_permissions(data.join("kratix.log"), permissions(0o644)).unwrap();
    let copied = copy.display().to_string();
    let (up, said, talk) = kratix(&["up", "-v", "--detach", "--listen", "127.0.0.1:0", "--kubeconfig", &copied]);
    assert!(up, "{talk}");
    assert!(said.starts_with("platform   https://127.0.0.1:"), "{said}");
    assert!(talk.contains("stop it with: kratix down"), "{talk}");
    for (path, expected) in [(data.clone(), 0o700), (data.join("kratix.log"), 0o600)] {
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, expected, "{} is its owner's alone", path.display());
    }
    let (_, path, _) = kratix(&["status", "--kubeconfig-path"]);
    assert_eq!(std::fs::read(path.trim()).unwrap(), std::fs::read(&copy).unwrap());
    for context in ["platform", "worker-1"] {
        let kubectl = kratix_testing::kubectl::Kubectl::new(&copy, directory.path()).context(context);
        kubectl.run("get namespaces").await.ok();
    }
    let (again, _, talk) = kratix(&["up", "--detach", "--listen", "127.0.0.1:0"]);
    assert!(!again && talk.contains("is in use by process"), "{talk}");
    let (down, said, _) = kratix(&["down"]);
    assert!(down && said.starts_with("stopped; the data stays in "), "{said}");
    assert!(!kratix(&["status"]).0);
    let log = std::fs::read_to_string(data.join("kratix.log")).unwrap();
    assert!(log.contains(" INFO "), "-v is not passed on: {log}");
    assert!(!log.contains('\u{1b}'), "colours in a file: {log}");
}

/// As on a full disk, or when nobody is left to read it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_written_stops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let kratix = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kratix"));
        command.args(args).arg("--data-dir").arg(&data).env_remove("RUST_LOG");
        command
    };
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut up = kratix(&["up", "-vv", "--listen", "127.0.0.1:0", "--output", "json"]);
    let mut platform = up.stdout(std::process::Stdio::piped()).stderr(full).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(platform.stdout.take().unwrap()), &mut line).unwrap();
    assert!(line.contains("kubeconfig"), "it has not started: {line}");
    let kubectl = kratix_testing::kubectl::Kubectl::new(&data.join("kubeconfig"), directory.path());
    kubectl.run("create namespace written").await.ok();
    assert!(kratix(&["down"]).output().unwrap().status.success());
    assert!(platform.wait().unwrap().success());
}
