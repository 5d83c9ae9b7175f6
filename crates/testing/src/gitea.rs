//! A real Gitea for tests: repositories with users, tokens, protected branches, and an API to set all that up.
//!
//! It serves on a socket in its own directory, and this process relays a loopback port to it, so that ports are never guessed.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::wait;

/// What `scripts/install-gitea` builds.
const VERSION: &str = "v1.25.4";
/// Set to `required`, a missing Gitea is a failure. It takes minutes to build, so `CI` alone does not ask for it.
const SWITCH: &str = "KRATIX_TEST_GITEA";
/// The owner of all repositories.
pub const USER: &str = "kratix";
const PASSWORD: &str = "of-the-user-of-this-test";

/// A running Gitea; it ends when dropped, and its data goes.
pub struct Gitea {
    home: TempDir,
    programs: PathBuf,
    port: u16,
    relay: JoinHandle<()>,
    process: Option<Child>,
}

impl Gitea {
    /// Starts one with a user. `None`, with a word about it, where there is none.
    ///
    /// # Panics
    /// Without one where `KRATIX_TEST_GITEA` is `required`, and when it does not come up.
    #[expect(clippy::print_stderr, reason = "a test that is left out says so")]
    pub async fn start() -> Option<Self> {
        let programs = tools().join(format!("gitea-{VERSION}"));
        if !programs.join("gitea").is_file() {
            assert_ne!(std::env::var(SWITCH).as_deref(), Ok("required"), "gitea is missing: run scripts/install-gitea");
            eprintln!("skipped: gitea is missing, run scripts/install-gitea");
            return None;
        }
        // Short, because the name of a socket is.
        let home = tempfile::Builder::new().prefix("gitea").tempdir().expect("a directory");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let relay = tokio::spawn(relay(listener, home.path().join("socket")));
        let mut gitea = Self { home, programs, port, relay, process: None };
        gitea.configure();
        gitea.run(&["migrate"]).await;
        let email = format!("{USER}@example.org");
        let user = ["--username", USER, "--password", PASSWORD, "--email", &email, "--admin"];
        gitea.run(&[&["admin", "user", "create", "--must-change-password=false"], &user[..]].concat()).await;
        gitea.process = Some(gitea.command(&["web"]).spawn().expect("it was just run"));
        wait::poll("gitea to answer", || async {
            match gitea.call(Method::GET, "/version", None).await {
                Ok((StatusCode::OK, _)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        Some(gitea)
    }

    fn configure(&self) {
        let at = |name: &str| self.home.path().join(name).display().to_string();
        let user = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
        let text = format!(
            "RUN_MODE = prod\nRUN_USER = {user}\nWORK_PATH = {}\n\
             [server]\nPROTOCOL = http+unix\nHTTP_ADDR = {}\nROOT_URL = http://localhost:{}/\nDISABLE_SSH = true\n\
             OFFLINE_MODE = true\nSTATIC_ROOT_PATH = {}\n\
             [database]\nDB_TYPE = sqlite3\nPATH = {}\n\
             [repository]\nROOT = {}\n\
             [security]\nINSTALL_LOCK = true\n\
             [log]\nMODE = console\nLEVEL = Warn\n\
             [service]\nDISABLE_REGISTRATION = true\n\
             [actions]\nENABLED = false\n\
             [indexer]\nISSUE_INDEXER_TYPE = db\n",
            at("work"),
            at("socket"),
            self.port,
            self.programs.display(),
            at("database"),
            at("repositories"),
        );
        std::fs::write(at("app.ini"), text).expect("a file");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let log = std::fs::File::options().create(true).append(true).open(self.home.path().join("log")).expect("a log");
        let mut command = Command::new(self.programs.join("gitea"));
        command.arg("--config").arg(self.home.path().join("app.ini")).args(arguments);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.home.path());
        command.env("USER", std::env::var_os("USER").unwrap_or_else(|| "root".into()));
        // Containers in which tests run often have no other user.
        command.env("GITEA_I_AM_BEING_UNSAFE_RUNNING_AS_ROOT", "true");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log).kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &[&str]) {
        let status = self.command(arguments).status().await.expect("gitea can be started");
        let log = std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
        assert!(status.success(), "gitea {arguments:?}: {log}");
    }

    /// Returns the URL of a repository of the user.
    pub fn url(&self, repository: &str) -> String {
        format!("http://localhost:{}/{USER}/{repository}.git", self.port)
    }

    /// Returns where the bare repository is on disk.
    pub fn repository(&self, name: &str) -> PathBuf {
        self.home.path().join("repositories").join(USER).join(format!("{name}.git"))
    }

    /// Makes an empty repository.
    pub async fn create(&self, repository: &str) {
        let body = json!({ "name": repository, "default_branch": "main", "private": true });
        self.ask(Method::POST, "/user/repos", body).await;
    }

    /// Returns a new token of the user, for what `scopes` allow.
    pub async fn token(&self, name: &str, scopes: &[&str]) -> String {
        let body = json!({ "name": name, "scopes": scopes });
        let answer = self.ask(Method::POST, &format!("/users/{USER}/tokens"), body).await;
        answer["sha1"].as_str().expect("a token").to_owned()
    }

    /// Lets nobody push to a branch.
    pub async fn protect(&self, repository: &str, branch: &str) {
        let path = format!("/repos/{USER}/{repository}/branch_protections");
        self.ask(Method::POST, &path, json!({ "rule_name": branch, "enable_push": false })).await;
    }

    /// Takes the protection of a branch away.
    pub async fn unprotect(&self, repository: &str, branch: &str) {
        let path = format!("/repos/{USER}/{repository}/branch_protections/{branch}");
        self.ask(Method::DELETE, &path, Value::Null).await;
    }

    /// Makes a repository read-only, or no longer.
    pub async fn archive(&self, repository: &str, archived: bool) {
        self.ask(Method::PATCH, &format!("/repos/{USER}/{repository}"), json!({ "archived": archived })).await;
    }

    /// Makes a request of the API as the user, and returns the answer.
    ///
    /// # Panics
    /// When the API refuses.
    pub async fn ask(&self, method: Method, path: &str, body: Value) -> Value {
        let body = (!body.is_null()).then_some(body);
        let (status, answer) = self.call(method, path, body).await.expect("gitea answers");
        assert!(status.is_success(), "{path}: {status} {answer}");
        serde_json::from_str(&answer).unwrap_or_default()
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<(StatusCode, String), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let socket = UnixStream::connect(self.home.path().join("socket")).await.map_err(|error| text(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.map_err(|error| text(&error))?;
        let connection = tokio::spawn(connection);
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header("host", "localhost")
            .header("authorization", format!("Basic {pair}"))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.map(|body| body.to_string()).unwrap_or_default())))
            .map_err(|error| text(&error))?;
        let response = sender.send_request(request).await.map_err(|error| text(&error))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| text(&error))?.to_bytes();
        connection.abort();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

impl Drop for Gitea {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

/// Returns the directory of the programs that are built for tests.
fn tools() -> PathBuf {
    match std::env::var_os("KRATIX_TEST_TOOLS") {
        Some(tools) => tools.into(),
        None => Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache/kratix-test-tools"),
    }
}

async fn relay(listener: TcpListener, socket: PathBuf) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((mut near, _)) = listener.accept().await {
        let socket = socket.clone();
        connections.spawn(async move {
            if let Ok(mut far) = UnixStream::connect(socket).await {
                // Whoever leaves first ends it.
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
}
