//! Real containers, and programs that try to get out of them.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::*;

struct World {
    directory: tempfile::TempDir,
    native: Native,
    runs: std::sync::atomic::AtomicUsize,
}

/// What a program printed and how it ended.
#[derive(Debug)]
struct Ran {
    out: String,
    exit: Exit,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = image::Store::open(directory.path().join("images")).unwrap();
        let host = "kratix.local/host".parse().unwrap();
        let native = Native::new(store, Some(host), vec![directory.path().to_owned()]);
        Self { directory, native, runs: Default::default() }
    }

    fn volume(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join("volumes").join(name);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        path
    }

    fn container(&self, script: &str) -> Container {
        let run = self.runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let image = self.native.host();
        Container {
            hostname: "pod-1".into(),
            user: image.user,
            image,
            program: "sh".into(),
            argv: ["sh", "-c", script].map(String::from).to_vec(),
            env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin".into())],
            cwd: "/".into(),
            groups: Vec::new(),
            mounts: Vec::new(),
            read_only_root: false,
            scratch: self.directory.path().join(format!("scratch-{run}")),
            run_file: None,
        }
    }

    async fn run(&self, container: Container) -> Ran {
        let mut running = self.native.start(container).await.unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        let read = async {
            tokio::try_join!(running.stdout.read_to_string(&mut out), running.stderr.read_to_string(&mut err)).unwrap()
        };
        let deadline = Duration::from_secs(30);
        tokio::time::timeout(deadline, read).await.expect("the output ends");
        let exit = tokio::time::timeout(deadline, running.process.wait()).await.expect("the container ends");
        Ran { out: out + &err, exit }
    }

    async fn sh(&self, script: &str) -> Ran {
        self.run(self.container(script)).await
    }
}

fn mount(source: &Path, target: &str) -> sandbox::Mount {
    sandbox::Mount { source: source.to_owned(), sub_path: None, target: target.into(), read_only: false }
}

#[tokio::test]
async fn programs_run_with_their_output_and_exit_code() {
    let world = World::new();
    let ran = world.sh("echo out; echo err >&2; hostname; id -u; pwd; exit 7").await;
    assert_eq!(ran.out, "out\npod-1\n65532\n/\nerr\n");
    assert_eq!(ran.exit, Exit { code: 7, signal: None, asked: false });

    let ran = world.sh("kill -TERM $$").await;
    assert_eq!(ran.exit, Exit { code: 143, signal: Some(15), asked: false });
}

#[tokio::test]
async fn a_program_that_does_not_exist_is_told_as_a_shell_would() {
    let world = World::new();
    let mut container = world.container("");
    container.program = "no-such-program".into();
    let error = world.native.start(container).await.err().unwrap();
    assert_eq!(error.code, 127);
    assert_eq!(error.message, r#"exec: "no-such-program": executable file not found in $PATH"#);

    let mut container = world.container("");
    container.program = "/etc/passwd".into();
    assert_eq!(world.native.start(container).await.err().unwrap().code, 126);
}

#[tokio::test]
async fn volumes_are_shared_and_read_only_ones_refuse() {
    let world = World::new();
    let volume = world.volume("shared");
    let mut writer = world.container("mkdir -p /kratix/output/deep && echo hello > /kratix/output/deep/file");
    writer.mounts = vec![mount(&volume, "/kratix/output")];
    assert_eq!(world.run(writer).await.exit.code, 0);

    let mut reader =
        world.container("cat /in/deep/file; touch /in/x || echo refused; echo more >> /in/deep/file || echo refused");
    reader.mounts = vec![sandbox::Mount { read_only: true, ..mount(&volume, "/in") }];
    let ran = world.run(reader).await;
    assert!(ran.out.starts_with("hello\nrefused\nrefused\n"), "{ran:?}");

    let mut nested = world.container("cat /in/file");
    nested.mounts = vec![sandbox::Mount { sub_path: Some("deep".into()), ..mount(&volume, "/in") }];
    assert_eq!(world.run(nested).await.out, "hello\n");
}

#[tokio::test]
async fn nothing_of_the_host_can_be_written() {
    let world = World::new();
    let targets =
        "/etc/x /usr/x /usr/bin/x /bin/x /opt/x /x /proc/sys/kernel/hostname /proc/sysrq-trigger /dev/x /home/x /var/x";
    let ran = world
        .sh(&format!("for file in {targets}; do (echo evil > $file) 2>/dev/null && echo wrote $file; done; echo done"))
        .await;
    assert_eq!(ran.out, "done\n");
    assert!(!Path::new("/etc/x").exists());
    let ran = world
        .sh("echo fine > /tmp/x && cat /tmp/x && echo fine > /var/tmp/y && echo x > /dev/null && echo x > /dev/shm/x")
        .await;
    assert_eq!((ran.out.as_str(), ran.exit.code), ("fine\n", 0));
    assert!(!Path::new("/tmp/x").exists(), "/tmp is private");
}

#[tokio::test]
async fn the_data_directory_and_other_volumes_are_invisible() {
    let world = World::new();
    let secret = world.volume("secret");
    std::fs::write(secret.join("key"), "s3cret").unwrap();
    let mine = world.volume("mine");
    std::os::unix::fs::symlink(secret.join("key"), mine.join("planted")).unwrap();
    let data = world.directory.path().display();
    let mut container = world.container(&format!(
        "ls {data} 2>/dev/null; cat {}/key /proc/1/root{}/key /mine/planted /mine/../../secret/key /proc/1/environ 2>/dev/null; ls -A /root /home /run; true",
        secret.display(),
        secret.display(),
    ));
    container.mounts = vec![mount(&mine, "/mine")];
    let ran = world.run(container).await;
    assert!(!ran.out.contains("s3cret"), "{ran:?}");
    assert_eq!(ran.out, "/home:\n\n/root:\n\n/run:\n");
}

#[tokio::test]
async fn links_made_inside_a_volume_do_not_lead_the_next_mount_out() {
    let world = World::new();
    let volume = world.volume("shared");
    let mut planter = world.container("ln -s /etc /v/out; ln -s ../../.. /v/up");
    planter.mounts = vec![mount(&volume, "/v")];
    assert_eq!(world.run(planter).await.exit.code, 0);
    for sub_path in ["out", "up", "../shared", "/etc"] {
        let mut container = world.container("ls /v");
        container.mounts = vec![sandbox::Mount { sub_path: Some(sub_path.into()), ..mount(&volume, "/v") }];
        assert!(world.native.start(container).await.is_err(), "{sub_path} was mounted");
    }
}

#[tokio::test]
async fn no_privilege_is_left_and_none_can_be_gained() {
    let world = World::new();
    let ran = world.sh("grep -E '^(Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp):' /proc/self/status").await;
    let zero = "0000000000000000";
    assert_eq!(
        ran.out,
        format!(
            "CapInh:\t{zero}\nCapPrm:\t{zero}\nCapEff:\t{zero}\nCapBnd:\t{zero}\nCapAmb:\t{zero}\nNoNewPrivs:\t1\nSeccomp:\t2\n"
        )
    );

    let attempts = [
        "mount -o remount,rw /usr",
        "mount -t tmpfs none /tmp",
        "umount /tmp",
        "mknod /tmp/disk b 254 0",
        "chroot /tmp /bin/true",
        "unshare --user --map-root-user true",
        "unshare --mount true",
        "nsenter --target 1 --mount true",
        "chown 1 /tmp/mine",
        "hostname other",
        "dmesg",
        "kill -9 -1 2>/dev/null; kill -9 1 && exit 0; exit 1",
    ];
    for uid in [ids::UNPRIVILEGED, 0] {
        for attempt in attempts {
            // `kill -1` as written spares process 1 and the caller; the pid namespace spares everyone else.
            let mut container =
                world.container(&format!("touch /tmp/mine; ({attempt}) >/dev/null 2>&1 && echo succeeded; echo end"));
            container.user = User { uid, gid: uid };
            let ran = world.run(container).await;
            assert!(!ran.out.contains("succeeded"), "uid {uid}: {attempt}: {ran:?}");
        }
    }
}

#[tokio::test]
async fn set_user_id_programs_have_no_effect() {
    let world = World::new();
    // `mount` and `su` are such programs on most systems; a copy of our own makes sure that there is one.
    let volume = world.volume("tools");
    let tool = volume.join("id");
    // Not by this process: what it has open for writing, others inherit for a moment, and nobody can run it meanwhile.
    assert!(std::process::Command::new("cp").arg("/usr/bin/id").arg(&tool).status().unwrap().success());
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o6755)).unwrap();
    let mut container = world.container("/tools/id -u; su -c id </dev/null >/dev/null 2>&1 || echo refused");
    container.mounts = vec![mount(&volume, "/tools")];
    assert_eq!(world.run(container).await.out, "65532\nrefused\n");
}

#[tokio::test]
async fn processes_of_the_host_are_neither_seen_nor_reached() {
    let world = World::new();
    let mut victim = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let ran = world
        .sh(&format!("ls /proc | grep -cE '^[0-9]+$'; kill -9 {0} 2>/dev/null && echo killed; ls /proc/{0} 2>/dev/null; echo end", victim.id()))
        .await;
    let seen: u32 = ran.out.lines().next().unwrap().parse().unwrap();
    assert!(seen <= 5, "{ran:?}");
    assert!(ran.out.ends_with("end\n") && !ran.out.contains("killed"), "{ran:?}");
    assert!(victim.try_wait().unwrap().is_none(), "the host's process lives");
    victim.kill().unwrap();
    victim.wait().unwrap();
}

#[tokio::test]
async fn background_processes_end_with_the_container() {
    let world = World::new();
    // The orphan keeps the output open; only its end lets `run` see the end of it.
    let ran = world.sh("sleep 600 & sleep 600 & echo started").await;
    assert_eq!((ran.out.as_str(), ran.exit.code), ("started\n", 0));
}

#[tokio::test]
async fn everything_dies_when_the_node_lets_go() {
    let world = World::new();
    let volume = world.volume("v");
    let mut container = world.container("trap '' TERM INT; (while :; do sleep 0.05; echo x >> /v/beat; done) & wait");
    container.mounts = vec![mount(&volume, "/v")];
    let mut running = world.native.start(container).await.unwrap();
    // A node that is killed runs no destructors; what remains is that its sockets close. Do only that.
    let mut rest = String::new();
    drop(running.process);
    tokio::time::timeout(Duration::from_secs(10), running.stdout.read_to_string(&mut rest)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_signal_reaches_the_program() {
    let world = World::new();
    let mut running = world
        .native
        .start(world.container("trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done"))
        .await
        .unwrap();
    let mut line = [0; 6];
    running.stdout.read_exact(&mut line).await.unwrap();
    running.process.signal(15).await;
    let exit = tokio::time::timeout(Duration::from_secs(10), running.process.wait()).await.unwrap();
    assert_eq!(exit.code, 3);
}

#[test]
fn image_users_are_looked_up_in_the_image() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    std::fs::write(
        root.path().join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\napp:x:100:101:App:/home/app:/bin/sh\n",
    )
    .unwrap();
    std::fs::write(root.path().join("etc/group"), "root:x:0:\nstaff:x:50:app\n").unwrap();
    let cases = [
        ("", 0, 0, "/root"),
        ("app", 100, 101, "/home/app"),
        ("app:staff", 100, 50, "/home/app"),
        ("100", 100, 101, "/home/app"),
        ("1000:1001", 1000, 1001, "/"),
        ("missing", 65_534, 0, "/"),
    ];
    for (user, uid, gid, home) in cases {
        assert_eq!(account(root.path(), user), (User { uid, gid }, home.into()), "{user:?}");
    }
}

#[tokio::test]
async fn fork_bombs_meet_a_limit() {
    let ran = World::new().sh("grep processes /proc/self/limits").await;
    let words: Vec<_> = ran.out.split_whitespace().collect();
    assert_eq!(words, ["Max", "processes", "4096", "4096", "processes"]);
}

#[tokio::test]
async fn a_start_that_hangs_is_given_up() {
    let mut world = World::new();
    let child = world.directory.path().join("hangs");
    let script = r#"printf '#!/bin/sh\nexec sleep 600\n' >"$0" && chmod 755 "$0""#;
    assert!(std::process::Command::new("sh").args(["-c", script]).arg(&child).status().unwrap().success());
    (world.native.child, world.native.start_within) = (child, Duration::from_millis(200));
    let start = world.native.start(world.container("true"));
    let outcome = tokio::time::timeout(Duration::from_secs(30), start).await.expect("it does not hang");
    let error = outcome.err().unwrap();
    assert_eq!(
        (error.code, error.message.as_str()),
        (128, "start the container: it is not set up after 0.2 s; it is given up")
    );
}

/// A container whose node can be made to vanish: the socket closes, and nobody kills or reaps anything.
async fn begun(world: &World, script: &str) -> (Sandboxed, PathBuf) {
    let path = world.directory.path().join("main.0");
    std::fs::remove_file(&path).ok();
    crate::pod::run::begin(&path).unwrap();
    let mut container = world.container(script);
    container.run_file = Some(path.clone());
    let (mut process, _, _, spec) = spawn(&world.native.child, container, world.native.map, Vec::new()).unwrap();
    process.socket.write_all(&spec).await.unwrap();
    assert_eq!(process.report().await, Some(Report::Started));
    (process, path)
}

fn noted(path: &Path) -> Option<sandbox::Exited> {
    serde_json::from_slice(&std::fs::read(path).unwrap()).ok()
}

#[tokio::test]
async fn how_a_program_ended_is_known_without_anybody_to_tell() {
    let world = World::new();
    for code in [0, 5] {
        let (mut process, path) = begun(&world, &format!("exit {code}")).await;
        // The report is never read, as by a node that has just died.
        process.child.wait().await.unwrap();
        assert_eq!(noted(&path), Some(sandbox::Exited { code, signal: None, asked: false }));
    }

    let (mut process, path) = begun(&world, "exec sleep 600").await;
    let lock = std::fs::File::open(&path).unwrap();
    assert!(lock.try_lock().is_err(), "the container holds its run");
    drop(process.socket);
    process.child.wait().await.unwrap();
    assert_eq!(noted(&path), Some(sandbox::Exited { code: 137, signal: Some(9), asked: true }));
    assert!(lock.try_lock().is_ok(), "nothing of it is left");
}

#[tokio::test]
async fn a_good_end_on_request_is_told_from_one_of_its_own_accord() {
    let world = World::new();
    let mut running = world
        .native
        .start(world.container("trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done"))
        .await
        .unwrap();
    running.stdout.read_exact(&mut [0; 6]).await.unwrap();
    running.process.signal(15).await;
    let exit = tokio::time::timeout(Duration::from_secs(10), running.process.wait()).await.unwrap();
    assert_eq!(exit, Exit { code: 0, signal: None, asked: true });
}

#[tokio::test]
async fn a_run_that_was_given_up_does_not_begin_late() {
    let world = World::new();
    let path = world.directory.path().join("main.0");
    crate::pod::run::begin(&path).unwrap();
    assert_eq!(crate::pod::run::left(world.directory.path()).await.len(), 1);
    let mut container = world.container("true");
    container.run_file = Some(path);
    let error = world.native.start(container).await.err().unwrap();
    assert_eq!(error.message, "take the run's file: the node has given this run up");
}
