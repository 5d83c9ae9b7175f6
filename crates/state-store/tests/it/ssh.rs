//! A repository behind a real `sshd`.

use std::time::Duration;

use kratix_state_store::{Auth, GitConfig, Handle, Retry, Trouble, open};
use kratix_testing::hook;
use kratix_testing::sshd::Server;

use crate::{Bed, placement, trouble};

fn config(server: &Server) -> GitConfig {
    let auth = Auth::Ssh { private_key: server.private_key().into(), known_hosts: server.known_hosts() };
    GitConfig { auth, ..GitConfig::new("default", server.url("state.git")) }
}

fn store(bed: &Bed, config: GitConfig) -> Handle {
    open(config, bed.cache()).expect("usable")
}

/// Keys that are laid out in memory now, of all processes.
fn keys_in_memory() -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains("kratix-ssh-")).collect()
}

#[tokio::test]
async fn a_batch_is_one_connection_and_foreign_commits_are_built_upon() {
    let bed = Bed::new();
    let Some(server) = Server::start(bed.directory.path()).await else { return };
    let store = store(&bed, config(&server));
    store.check().await.expect("usable");
    assert_eq!(bed.commits(), 0, "a check leaves nothing behind");
    store.write(placement("first", "1")).await.expect("written");

    let before = server.connections();
    let mut pending = Vec::new();
    for at in 0..100 {
        pending.push(store.reserve().await.expect("a place").send(placement(&format!("p{at}"), "1")));
    }
    for answer in pending {
        answer.await.expect("written");
    }
    let (batches, connections) = (bed.commits() - 1, server.connections() - before);
    assert!(batches <= 3, "{batches} batches");
    assert_eq!(connections, batches, "what is believed of the branch is not asked for before a push");

    bed.foreign_push("theirs", "t");
    store.write(placement("second", "1")).await.expect("written on the new head");
    assert_eq!(bed.paths().len(), 103);
    assert!(!store.write(placement("p7", "1")).await.expect("silent").changed);
    assert_eq!(store.list("worker-1/first").await, Ok(vec!["worker-1/first/a.yaml".to_owned()]));
    assert!(server.commands().iter().all(|command| command == "git-upload-pack" || command == "git-receive-pack"));
    bed.is_sound();
}

/// §14.24
#[tokio::test]
async fn two_stores_of_one_repository_lose_nothing_over_ssh() {
    let bed = Bed::new();
    let Some(server) = Server::start(bed.directory.path()).await else { return };
    let (one, two) = (store(&bed, config(&server)), store(&bed, config(&server)));
    for at in 0..3 {
        let (a, b) = (placement(&format!("a{at}"), "1"), placement(&format!("b{at}"), "1"));
        let (a, b) = tokio::join!(one.write(a), two.write(b));
        a.expect("written");
        b.expect("written");
    }
    assert_eq!(bed.paths().len(), 6);
    bed.is_sound();
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_gets_nothing() {
    let bed = Bed::new();
    let Some(server) = Server::start(bed.directory.path()).await else { return };
    let mut config = config(&server);
    for known_hosts in ["", "# nobody\n", "other.example.org ssh-ed25519 AAAA\n"] {
        let key = server.private_key().into();
        config.auth = Auth::Ssh { private_key: key, known_hosts: known_hosts.to_owned() };
        let error = store(&bed, config.clone()).check().await.expect_err("unknown");
        let expected = Trouble::HostKeyUnknown { host: server.host(), kind: "ED25519".to_owned() };
        assert_eq!((&error.trouble, error.retry()), (&expected, Retry::OnChange));
        let hint = error.hint().expect("a hint");
        let port = server.host().rsplit(':').next().expect("a port").to_owned();
        assert!(hint.contains(&format!("ssh-keyscan -p {port} 127.0.0.1")) && hint.contains("knownHosts"), "{hint}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    assert!(server.commands().is_empty());
    let revoked = format!("@revoked {}", server.known_hosts());
    config.auth = Auth::Ssh { private_key: server.private_key().into(), known_hosts: revoked };
    let error = store(&bed, config).check().await.expect_err("revoked");
    assert_eq!(error.category(), "HostKeyRefused", "{error}");
}

#[tokio::test]
async fn a_server_with_another_key_than_before_gets_nothing_and_its_fingerprint_is_told() {
    let bed = Bed::new();
    let Some(server) = Server::start(bed.directory.path()).await else { return };
    let store = store(&bed, config(&server));
    store.write(placement("a", "1")).await.expect("written");
    let fingerprint = server.change_host_key();
    let error = trouble(store.write(placement("b", "1")).await);
    let expected = Trouble::HostKeyChanged { host: server.host(), kind: "ED25519".to_owned(), fingerprint };
    assert_eq!((&error.trouble, error.retry()), (&expected, Retry::OnChange));
    assert!(error.hint().expect("a hint").contains("knownHosts"));
    assert_eq!(bed.paths().len(), 1);
    self::store(&bed, config(&server)).write(placement("b", "1")).await.expect("written with the new line");
}

/// §14.4
#[tokio::test]
async fn a_refused_key_is_told_and_a_rotated_one_works_in_a_new_store() {
    let bed = Bed::new();
    let Some(server) = Server::start(bed.directory.path()).await else { return };
    let old = store(&bed, config(&server));
    old.write(placement("a", "1")).await.expect("written");
    let key = server.rotate_user_key("ed25519");
    let error = trouble(old.write(placement("b", "1")).await);
    assert!(matches!(&error.trouble, Trouble::KeyRefused(who) if who.ends_with("@127.0.0.1")), "{error:?}");
    assert_eq!((error.category(), error.retry()), ("SshKeyRefused", Retry::OnChange));
    assert!(error.hint().expect("a hint").contains("sshPrivateKey"));
    let auth = Auth::Ssh { private_key: key.into(), known_hosts: server.known_hosts() };
    let new = store(&bed, GitConfig { auth, ..config(&server) });
    new.check().await.expect("usable");
    new.write(placement("b", "1")).await.expect("written");
    assert_eq!(bed.paths().len(), 2);
}

#[tokio::test]
async fn keys_of_every_kind_and_format_are_used() {
    let bed = Bed::new();
    let Some(server) = Server::start(bed.directory.path()).await else { return };
    bed.foreign_push("theirs", "t");
    let scratch = bed.directory.path().join("converted");
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let key = server.rotate_user_key(kind);
        let mut forms = vec![key.clone(), key.trim_end().to_owned(), key.replace('\n', "\r\n")];
        for format in if kind == "ed25519" { &[][..] } else { &["PEM", "PKCS8"] } {
            std::fs::write(&scratch, &key).expect("a file");
            std::fs::set_permissions(&scratch, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("private");
            let mut convert = std::process::Command::new("ssh-keygen");
            convert.args(["-q", "-p", "-N", "", "-m", format, "-f"]).arg(&scratch).stdout(std::process::Stdio::null());
            assert!(convert.status().expect("ssh-keygen runs").success());
            forms.push(std::fs::read_to_string(&scratch).expect("a key"));
        }
        for (at, form) in forms.into_iter().enumerate() {
            let auth = Auth::Ssh { private_key: form.into(), known_hosts: server.known_hosts().replace('\n', "\r\n") };
            let store = store(&bed, GitConfig { auth, ..config(&server) });
            store.version().await.unwrap_or_else(|error| panic!("{kind} in form {at}: {error}"));
        }
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_read_is_refused_before_anything_is_sent() {
    let bed = Bed::new();
    let Some(server) = Server::start(bed.directory.path()).await else { return };
    let path = bed.directory.path().join("locked");
    let mut locked = std::process::Command::new("ssh-keygen");
    locked.args(["-q", "-t", "ed25519", "-N", "opensesame", "-f"]).arg(&path);
    assert!(locked.status().expect("ssh-keygen runs").success());
    let locked = std::fs::read_to_string(&path).expect("a key");
    for (key, expected) in
        [(locked.as_str(), "it is protected by a passphrase"), ("", "it is empty"), ("x", "no key found")]
    {
        let auth = Auth::Ssh { private_key: key.into(), known_hosts: server.known_hosts() };
        let error = open(GitConfig { auth, ..config(&server) }, bed.cache()).expect_err("refused");
        let text = error.trouble.to_string();
        assert!(text.starts_with(&format!("error parsing ssh private key: {expected}")), "{text}");
        assert_eq!(error.retry(), Retry::OnChange);
    }
    // A frame that looks like a key, but is none for ssh.
    let auth = Auth::Ssh {
        private_key: "-----BEGIN RSA PRIVATE KEY-----\nMAMCAQA=\n-----END RSA PRIVATE KEY-----\n".into(),
        known_hosts: server.known_hosts(),
    };
    let error = store(&bed, GitConfig { auth, ..config(&server) }).check().await.expect_err("no key");
    assert!(matches!(&error.trouble, Trouble::PrivateKey(reason) if !reason.contains("/dev/shm")), "{error:?}");
    assert!(server.commands().is_empty());
}

#[tokio::test]
async fn the_method_and_the_url_belong_together() {
    let bed = Bed::new();
    let key = "-----BEGIN RSA PRIVATE KEY-----\nMAMCAQA=\n-----END RSA PRIVATE KEY-----\n";
    let ssh = Auth::Ssh { private_key: key.into(), known_hosts: String::new() };
    for (url, auth) in [
        ("https://git.example.org/x.git", ssh.clone()),
        ("/srv/x.git", ssh),
        ("git@git.example.org:x.git", Auth::None),
        ("ssh://git@git.example.org/x.git", Auth::None),
    ] {
        let error = open(GitConfig { auth, ..GitConfig::new("default", url) }, bed.cache()).expect_err("refused");
        assert!(matches!(error.trouble, Trouble::Config(_)), "{url}: {error:?}");
    }
}

#[tokio::test]
async fn what_is_wrong_beyond_the_connection_is_told_in_the_words_of_the_server() {
    let bed = Bed::new();
    let Some(server) = Server::start(bed.directory.path()).await else { return };
    let missing = GitConfig { url: server.url("nothing.git"), ..config(&server) };
    let error = store(&bed, missing).check().await.expect_err("nothing there");
    assert_eq!(error.trouble, Trouble::NotFound);

    let store = store(&bed, config(&server));
    store.write(placement("a", "1")).await.expect("written");
    server.refuse_pushes("ERROR: The key you are authenticating with has been marked as read only.\n");
    let error = trouble(store.write(placement("b", "1")).await);
    let said = "ERROR: The key you are authenticating with has been marked as read only.".to_owned();
    assert_eq!(error.trouble, Trouble::Forbidden(said));
    assert!(error.hint().expect("a hint").contains("write access"));
    assert_eq!(store.check().await.expect_err("read only").trouble, error.trouble, "a check finds it out too");
    server.refuse_pushes("");
    store.write(placement("b", "1")).await.expect("written");
    assert_eq!(bed.paths().len(), 2);
}

#[tokio::test]
async fn hooks_are_quoted_over_ssh_too() {
    let bed = Bed::new();
    let Some(server) = Server::start(bed.directory.path()).await else { return };
    let store = store(&bed, config(&server));
    hook::install(&bed.repository(), "pre-receive", "echo 'branch main is protected' >&2\nexit 1");
    let error = trouble(store.write(placement("b", "1")).await);
    let message = "branch main is protected (pre-receive hook declined)".to_owned();
    assert_eq!(error.trouble, Trouble::Refused { branch: "main".to_owned(), message });
}

#[tokio::test]
async fn a_server_that_goes_away_is_unreachable_until_it_is_back() {
    let bed = Bed::new();
    let Some(mut server) = Server::start(bed.directory.path()).await else { return };
    let store = store(&bed, config(&server));
    store.write(placement("a", "1")).await.expect("written");
    server.stop().await;
    let error = trouble(store.write(placement("b", "1")).await);
    assert!(matches!(&error.trouble, Trouble::Unreachable(text) if text.contains("Connection refused")), "{error:?}");
    assert_eq!(error.retry(), Retry::Backoff);
    server.restart();
    store.write(placement("b", "1")).await.expect("written");
    assert_eq!(bed.paths().len(), 2);
}

#[tokio::test]
async fn an_unknown_host_is_named() {
    let bed = Bed::new();
    let Some(server) = Server::start(bed.directory.path()).await else { return };
    let config = GitConfig { url: "ssh://git@host.invalid/x.git".to_owned(), ..config(&server) };
    let error = store(&bed, config).check().await.expect_err("unknown");
    assert_eq!(error.trouble, Trouble::UnknownHost("host.invalid".to_owned()));
}

const AS_CHILD: &str = "KRATIX_TEST_SSH_URL";

/// Not a test by itself: writes in a process whose surroundings the test below has made.
#[test]
fn child() {
    let Some(url) = std::env::var_os(AS_CHILD) else { return };
    let value = |name: &str| std::env::var(format!("{AS_CHILD}_{name}")).expect("a value");
    let auth = Auth::Ssh { private_key: value("KEY").into(), known_hosts: value("HOSTS") };
    let config = GitConfig { auth, ..GitConfig::new("default", url.to_string_lossy()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let result = open(config, value("CACHE")).expect("usable").check().await;
        println!("result: {}", result.err().map_or("fine".to_owned(), |error| error.to_string()));
    });
}

/// Runs a check in another process.
async fn in_a_process(bed: &Bed, server: &Server, change: impl FnOnce(&mut tokio::process::Command)) -> String {
    let mut command = tokio::process::Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "ssh::child", "--nocapture"]).env(AS_CHILD, server.url("state.git"));
    let (key, hosts) = (server.private_key(), server.known_hosts());
    command.env(format!("{AS_CHILD}_KEY"), key).env(format!("{AS_CHILD}_HOSTS"), hosts);
    command.env(format!("{AS_CHILD}_CACHE"), bed.cache());
    change(&mut command);
    let output = command.output().await.expect("the process ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_once("result: ").map_or(text.clone(), |(_, rest)| rest.lines().next().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn nothing_of_the_users_surroundings_has_a_say() {
    let bed = Bed::new();
    let Some(server) = Server::start(bed.directory.path()).await else { return };
    let result = in_a_process(&bed, &server, |command| {
        // An agent without keys, a command of the user's own, another shell for ssh to run.
        command.env("SSH_AUTH_SOCK", "/nowhere").env("GIT_SSH_COMMAND", "false").env("GIT_SSH", "false");
        command.env("HOME", "/nowhere").env("GIT_SSH_VARIANT", "plink");
    })
    .await;
    assert_eq!(result, "fine");
}

#[tokio::test]
async fn a_machine_without_ssh_is_told_what_to_install() {
    let bed = Bed::new();
    let Some(server) = Server::start(bed.directory.path()).await else { return };
    let programs = bed.directory.path().join("programs");
    std::fs::create_dir(&programs).expect("a directory");
    let path = std::env::var_os("PATH").unwrap_or_default();
    for name in ["git", "sh"] {
        let mut places = std::env::split_paths(&path).map(|path| path.join(name));
        let path = places.find(|path| path.is_file()).expect("installed");
        std::os::unix::fs::symlink(path, programs.join(name)).expect("a link");
    }
    let result = in_a_process(&bed, &server, |command| {
        command.env("PATH", &programs);
    })
    .await;
    assert!(result.contains("the program ssh is not usable: ") && result.contains("not found"), "{result}");
}

#[tokio::test]
async fn a_key_that_a_killed_process_left_behind_is_removed_by_the_next_one() {
    let bed = Bed::new();
    let Some(server) = Server::start(bed.directory.path()).await else { return };
    let memory = std::path::Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { bed.cache() };
    std::fs::create_dir_all(&parent).expect("a directory");
    let left = parent.join(format!("kratix-ssh-left{}", std::process::id()));
    std::fs::create_dir(&left).expect("a directory");
    std::fs::write(left.join("key"), "k").expect("a file");
    store(&bed, config(&server)).check().await.expect("usable");
    assert!(!left.exists());
}

#[tokio::test]
async fn a_key_is_on_the_machine_only_while_it_is_used() {
    let bed = Bed::new();
    let Some(server) = Server::start(bed.directory.path()).await else { return };
    let store = store(&bed, config(&server));
    store.write(placement("a", "1")).await.expect("written");
    store.check().await.expect("usable");
    let mine = |path: &std::path::PathBuf| {
        std::fs::read_to_string(path.join("key")).is_ok_and(|key| key == server.private_key())
    };
    assert!(!keys_in_memory().iter().any(mine));
    assert!(!std::fs::read_dir(bed.cache()).expect("a cache").flatten().any(|entry| {
        let entries = std::fs::read_dir(entry.path()).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("kratix-ssh-"))
    }));
}

#[tokio::test]
async fn whoever_takes_a_connection_and_never_says_a_word_is_given_up_in_time() {
    let bed = Bed::new();
    let Some(server) = Server::start(bed.directory.path()).await else { return };
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("ssh://git@{}/state.git", silent.local_addr().expect("an address"));
    let second = Duration::from_secs(1);
    let hung = store(&bed, GitConfig { url, deadline: second, grace: second, ..config(&server) });
    let error = trouble(hung.write(placement("b", "1")).await);
    assert!(matches!(error.trouble, Trouble::Timeout(_) | Trouble::Unreachable(_)), "{error:?}");
    drop(silent);
}
