//! Loaded images, from archive to running container.

use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::world::{World, log_of};

/// Writes a docker archive whose image has this machine's shell and `cat`, in two layers; returns where it is.
pub(crate) fn archive(directory: &Path, name: &str) -> PathBuf {
    use sha2::Digest;
    let mut base = tar::Builder::new(Vec::new());
    let mut files = std::collections::BTreeSet::new();
    for program in ["sh", "cat", "id", "ls"] {
        let path = Command::new("sh").args(["-c", &format!("readlink -f $(command -v {program})")]).output().unwrap();
        let path = String::from_utf8(path.stdout).unwrap().trim().to_owned();
        let libraries = Command::new("ldd").arg(&path).output().unwrap();
        for word in String::from_utf8_lossy(&libraries.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
            files.insert((word.to_owned(), word.to_owned()));
        }
        files.insert((path, format!("/bin/{program}")));
    }
    for (from, to) in files {
        base.append_path_with_name(&from, to.trim_start_matches('/')).unwrap();
    }
    let text = |builder: &mut tar::Builder<Vec<u8>>, path: &str, text: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, text.as_bytes()).unwrap();
    };
    text(&mut base, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n");
    // A directory that its author may not write to.
    let mut sealed = tar::Header::new_gnu();
    sealed.set_entry_type(tar::EntryType::Directory);
    sealed.set_size(0);
    sealed.set_mode(0o555);
    base.append_data(&mut sealed, "sealed/", std::io::empty()).unwrap();
    text(&mut base, "sealed/inside", "x");
    text(&mut base, "app/removed", "old");
    text(&mut base, "app/kept", "old");
    let base = base.into_inner().unwrap();
    let mut top = tar::Builder::new(Vec::new());
    text(&mut top, "app/.wh.removed", "");
    text(&mut top, "app/kept", "new\n");
    let top = top.into_inner().unwrap();
    let digest = |bytes: &[u8]| {
        let hash: String = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hash}")
    };
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "config": {"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["cat /app/kept; ls /app; id -u; echo $GREETING; pwd; echo mine > /app/scratch"],
                   "Env": ["PATH=/bin", "GREETING=hello"], "User": "0", "WorkingDir": "/app"},
        "rootfs": {"type": "layers", "diff_ids": [digest(&base), digest(&top)]},
    })
    .to_string();
    let manifest =
        json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["base.tar", "top.tar"]}]).to_string();
    let mut archive = tar::Builder::new(std::fs::File::create(directory.join("image.tar")).unwrap());
    for (path, bytes) in [
        ("base.tar", base.as_slice()),
        ("top.tar", &top),
        ("config.json", config.as_bytes()),
        ("manifest.json", manifest.as_bytes()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, bytes).unwrap();
    }
    archive.into_inner().unwrap();
    directory.join("image.tar")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_runs_as_soon_as_it_is_loaded() {
    let world = World::new().await;
    world
        .pod("imaged", json!({"restartPolicy": "Never", "containers": [{"name": "main", "image": "example/app:1"}]}))
        .await;
    world
        .until("imaged", "waiting for its image", |pod: &Pod| {
            let waiting = pod
                .status
                .as_ref()
                .and_then(|status| status.container_statuses.as_ref()?.first()?.state.clone()?.waiting);
            waiting.is_some_and(|waiting| waiting.reason.as_deref() == Some("ImagePullBackOff"))
        })
        .await;
    assert!(world.event("imaged", "Failed").await.starts_with("Failed to pull image \"example/app:1\""));
    world
        .pod("strict", json!({"restartPolicy": "Never", "containers": [{"name": "main", "image": "example/other", "imagePullPolicy": "Never"}]}))
        .await;
    let text = world.event("strict", "ErrImageNeverPull").await;
    assert_eq!(text, "Container image \"example/other\" is not present with pull policy of Never");

    let scratch = tempfile::tempdir().unwrap();
    let file = archive(scratch.path(), "example/app:1");
    let store = world.node.images().clone();
    let names = tokio::task::spawn_blocking(move || store.load(&file, None)).await.unwrap().unwrap();
    assert_eq!(names, ["docker.io/example/app:1"]);
    world.until_phase("imaged", "Succeeded").await;
    assert_eq!(world.log("imaged", log_of("main")).await, "new\nkept\n0\nhello\n/app\n");

    // The next container of the image sees nothing of what the first has written.
    world
        .pod(
            "again",
            json!({"restartPolicy": "Never", "containers": [{"name": "main", "image": "docker.io/example/app:1"}]}),
        )
        .await;
    world.until_phase("again", "Succeeded").await;
    assert_eq!(world.log("again", log_of("main")).await, "new\nkept\n0\nhello\n/app\n");

    let main = json!({"name": "main", "image": "example/app:1", "args": ["id -u; echo x > /app/x || echo read-only; echo x > /tmp/x && echo written"],
                      "securityContext": {"runAsUser": 1000, "readOnlyRootFilesystem": true}});
    world.pod("sealed", json!({"restartPolicy": "Never", "containers": [main]})).await;
    world.until_phase("sealed", "Succeeded").await;
    let log = world.log("sealed", log_of("main")).await;
    // The shell complains on the other stream, whose place among the lines is open.
    let out: Vec<_> = log.lines().filter(|line| !line.contains("Read-only file system")).collect();
    assert_eq!(out, ["1000", "read-only", "written"]);
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_images_run_this_executable() {
    let entrypoint = ["node-test", "--exact", "crash::child", "--nocapture"].map(String::from).to_vec();
    let world = World::with(|builder| builder.own_binary(vec!["ghcr.io/example/adapter:v1".into()], entrypoint)).await;
    let main = json!({"name": "main", "image": "ghcr.io/example/adapter:v1", "command": ["/bin/adapter"], "args": ["--quiet"],
                      "securityContext": {"runAsNonRoot": true}});
    world.pod("own", json!({"restartPolicy": "Never", "containers": [main]})).await;
    world.until_phase("own", "Succeeded").await;
    let log = world.log("own", log_of("main")).await;
    assert!(log.contains("1 test") || log.contains("running"), "{log}");
    world.node.shutdown().await;
}
