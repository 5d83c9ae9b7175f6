//! A node that is not run by root.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use embedded_node::StartError;
use serde_json::json;

use crate::images::archive;
use crate::world::{World, container, log_of};

const UNPRIVILEGED: &str = "NODE_TEST_UNPRIVILEGED";

/// Not a test of its own: what the test below runs as somebody else. Without its variable it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(directory) = std::env::var(UNPRIVILEGED) else { return };
    assert!(!rustix::process::geteuid().is_root());
    let world = match World::try_new().await {
        Ok(world) => world,
        Err(error @ StartError::Unsupported { .. }) => {
            // A machine that does not let everybody make namespaces has to say so.
            assert!(error.to_string().contains("unprivileged user namespaces"), "{error}");
            println!("unsupported: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let mut main = container("main", "id -u; id -G; echo written > /v/file; cat /v/file");
    main["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    world
        .pod(
            "host",
            json!({"restartPolicy": "Never", "volumes": [{"name": "v", "emptyDir": {}}], "containers": [main]}),
        )
        .await;
    world.until_phase("host", "Succeeded").await;
    let log = world.log("host", log_of("main")).await;
    assert!(log.starts_with("65532\n") && log.ends_with("written\n"), "{log}");

    let file = archive(directory.as_ref(), "example/app:1");
    let store = world.node.images().clone();
    tokio::task::spawn_blocking(move || store.load(&file, None)).await.unwrap().unwrap();
    let args = json!(["cat /app/kept; stat -c %a /sealed 2>/dev/null; ls /sealed"]);
    let main = json!({"name": "main", "image": "example/app:1", "args": args});
    world.pod("image", json!({"restartPolicy": "Never", "containers": [main]})).await;
    world.until_phase("image", "Succeeded").await;
    let log = world.log("image", log_of("main")).await;
    assert!(log.starts_with("new\n") && log.contains("inside\n"), "{log}");
    world.node.shutdown().await;
    println!("supported");
}

#[test]
fn somebody_else_than_root_can_run_a_node_or_is_told_why_not() {
    // Everything that the other user needs, where it can get at it.
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let program = directory.path().join("test");
    crate::world::copy_of_this(&program);
    let arguments = ["--exact", "unprivileged::child", "--nocapture"];
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(&program);
        command
    } else {
        Command::new(&program)
    };
    let output = command
        .args(arguments)
        .current_dir(directory.path())
        .env(UNPRIVILEGED, directory.path())
        .env("TMPDIR", directory.path())
        .env("HOME", directory.path())
        .output()
        .expect("setpriv of util-linux is installed");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("supported"), "{out}\n{err}");
    eprintln!("as another user: {}", if out.contains("unsupported") { "refused with a reason" } else { "it works" });
}
