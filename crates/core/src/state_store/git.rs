//! How a GitStateStore and its Secret become a connection.

use std::collections::BTreeMap;

use kratix_api::state_store::GitAuthMethod;
use kratix_api::{GitStateStore, GitStateStoreSpec};

mod ssh;

use super::store::namespace;
use super::{GitConnection, GitCredentials, PrivateKey, Secret, Snapshot, Store, with_hint};

/// User name that GitHub wants beside a token.
const TOKEN_USER: &str = "x-access-token";

/// Key of the Secret with the private key that signs commits.
const SIGNING_KEY: &str = "signingKey";

/// Key of the Secret with certificates to trust.
const CA_FILE: &str = "caFile";

/// What to do about a value that is none.
const REWRITE: &str = "write it again as text, as kubectl create secret does";

/// Returns which addresses the method of a store goes with.
fn url_hint(spec: &GitStateStoreSpec) -> &'static str {
    match spec.auth_method {
        GitAuthMethod::Ssh => "set spec.url of the store to ssh://user@host[:port]/path or user@host:path",
        _ => "set spec.url of the store to https://…, or for an address of ssh spec.authMethod to ssh",
    }
}

/// Returns how to reach the repository.
///
/// # Errors
/// The message of the store's condition.
pub(super) fn connection(store: &GitStateStore, data: &BTreeMap<String, Vec<u8>>) -> Result<GitConnection, String> {
    let spec = &store.spec;
    let credentials = credentials(store, data)
        .map_err(|cause| format!("unable to create git writer: could not create auth method: {cause}"))?;
    check_address(spec).map_err(|cause| {
        let text = format!("unable to create git writer: could not create git native client: {cause}");
        with_hint(&text, url_hint(spec))
    })?;
    Ok(GitConnection {
        url: spec.url.clone(),
        branch: spec.branch.clone(),
        path: spec.path.clone(),
        author: (spec.git_author.name.clone(), spec.git_author.email.clone()),
        credentials,
        signing_key: signing_key(store, data)?,
        pushes_per_minute: None,
        ca_pem: data.get(CA_FILE).cloned(),
        skip_tls_verify: spec.insecure_skip_tls_verify,
    })
}

fn credentials(store: &GitStateStore, data: &BTreeMap<String, Vec<u8>>) -> Result<GitCredentials, String> {
    let spec = &store.spec;
    let required: &[&str] = match &spec.auth_method {
        GitAuthMethod::BasicAuth => &["password"],
        GitAuthMethod::Ssh => &["sshPrivateKey", "knownHosts"],
        GitAuthMethod::GithubApp => &["appID", "installationID", "privateKey"],
        GitAuthMethod::Other(method) if method.is_empty() => &["password"],
        GitAuthMethod::Other(method) => {
            let hint = "set spec.authMethod of the store to basicAuth, ssh or githubApp";
            return Err(with_hint(&format!("unknown authMethod: {method}"), hint));
        }
    };
    let Some(reference) = &spec.secret_ref else {
        // A repository on this machine, or a public one: the check tells whether it can be written without.
        return match spec.auth_method {
            GitAuthMethod::BasicAuth | GitAuthMethod::Other(_) => Ok(GitCredentials::None),
            _ => {
                let text = format!("authMethod {} needs a secretRef", spec.auth_method);
                Err(with_hint(&text, "set spec.secretRef of the store"))
            }
        };
    };
    let secret = format!("{}/{}", namespace(reference), reference.name);
    if let Some(key) = required.iter().find(|key| !data.contains_key(**key)) {
        return Err(with_hint(&format!("{key} not found in secret {secret}"), &format!("add the key {key} to it")));
    }
    let text = |key: &str| -> Result<String, String> {
        let bytes = data.get(key).cloned().unwrap_or_default();
        String::from_utf8(bytes).map_err(|_| with_hint(&format!("{key} in secret {secret} is not text"), REWRITE))
    };
    if spec.auth_method == GitAuthMethod::Ssh {
        let (private_key, known_hosts) = (PrivateKey(text("sshPrivateKey")?), text("knownHosts")?);
        // Which of the formats of keys it has is for those to say who use it.
        if let Err(ssh::Unfit::Malformed(reason)) = ssh::check(&spec.url) {
            return Err(with_hint(&format!("error parsing GitStateStore url: {reason}"), url_hint(spec)));
        }
        return Ok(GitCredentials::Ssh { private_key, known_hosts });
    }
    if spec.auth_method == GitAuthMethod::GithubApp {
        let (app, installation, private_key) = (text("appID")?, text("installationID")?, text("privateKey")?);
        return github_app(&spec.url, &app, &installation, private_key);
    }
    let (mut username, password) = (text("username")?, text("password")?);
    if username.is_empty() && spec.url.to_ascii_lowercase().contains("github") {
        TOKEN_USER.clone_into(&mut username);
    }
    if password.is_empty() {
        return Ok(GitCredentials::None);
    }
    Ok(GitCredentials::Basic { username, password })
}

/// The key itself is looked at where it is used.
fn github_app(url: &str, app: &str, installation: &str, private_key: String) -> Result<GitCredentials, String> {
    if !url.starts_with("https://") && !url.starts_with("http://") {
        let text = format!("authMethod {} needs a URL with https://", GitAuthMethod::GithubApp);
        return Err(with_hint(&text, "correct spec.url of the store"));
    }
    let number = |key: &str, text: &str| {
        // The original says so of either number. What editors add unasked does no harm.
        text.trim().parse().map_err(|_| {
            let text = format!("could not convert installation ID to int: {key} is not a number");
            with_hint(&text, &format!("correct {key} in the secret of the store"))
        })
    };
    let (app_id, installation_id) = (number("appID", app)?, number("installationID", installation)?);
    Ok(GitCredentials::GithubApp { app_id, installation_id, private_key })
}

/// Returns the key that signs commits, if there is one.
fn signing_key(store: &GitStateStore, data: &BTreeMap<String, Vec<u8>>) -> Result<Option<PrivateKey>, String> {
    let Some(bytes) = data.get(SIGNING_KEY) else { return Ok(None) };
    let text = String::from_utf8(bytes.clone()).map_err(|_| {
        let (namespace, name) = store.spec.secret_ref.as_ref().map_or(("", ""), |at| (namespace(at), at.name.as_str()));
        let text = format!("unable to create git writer: {SIGNING_KEY} in secret {namespace}/{name} is not text");
        with_hint(&text, REWRITE)
    })?;
    Ok(Some(PrivateKey(text)))
}

/// Returns what is odd about a store before anything but its spec is known; for admission, which warns of it.
pub(crate) fn complaints(spec: &GitStateStoreSpec) -> Vec<String> {
    let url = match spec.url.as_str() {
        "" => Some("spec.url is empty, nothing can be written to the store".to_owned()),
        _ => check_address(spec).err(),
    };
    let needs_password = spec.secret_ref.is_none()
        && spec.auth_method == GitAuthMethod::BasicAuth
        && (spec.url.starts_with("https://") || spec.url.starts_with("http://"));
    let anonymous = needs_password.then(|| {
        format!("without spec.secretRef {} is written without user name and password", without_user(&spec.url))
    });
    let needs_secret = spec.secret_ref.is_none() && spec.auth_method == GitAuthMethod::Ssh;
    let keyless = needs_secret.then(|| format!("authMethod {} needs a secretRef", spec.auth_method));
    url.into_iter().chain(anonymous).chain(keyless).collect()
}

/// Whether the address is one for the method.
fn check_address(spec: &GitStateStoreSpec) -> Result<(), String> {
    if spec.auth_method != GitAuthMethod::Ssh {
        return check_url(&spec.url);
    }
    match ssh::check(&spec.url) {
        Ok(()) => Ok(()),
        Err(ssh::Unfit::Malformed(reason)) => Err(format!("error parsing GitStateStore url: {reason}")),
        Err(ssh::Unfit::OtherForm) => Err(format!("invalid URL for SSH auth method: {}", without_user(&spec.url))),
    }
}

/// Only addresses to which credentials and documents travel unread: https, this machine, or the loopback interface.
fn check_url(url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("http://");
    let is_allowed = url.starts_with("https://")
        || url.starts_with("file://")
        || url.starts_with('/')
        || rest.is_some_and(|rest| is_loopback(host(rest)));
    if is_allowed {
        return Ok(());
    }
    let shown = without_user(url);
    match rest {
        Some(_) => Err(format!("invalid URL for HTTPS auth method: {shown} (http is only allowed for loopback hosts)")),
        None => Err(format!("invalid URL for HTTPS auth method: {shown}")),
    }
}

/// Returns the host of a URL without its scheme.
fn host(rest: &str) -> &str {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Returns the URL without what could be a password.
fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        // Only a user with a password has a colon.
        let place = url.split_once('@').filter(|(user, _)| user.contains(':')).map_or(url, |(_, place)| place);
        return place.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

/// Returns a hint if the password ends with a line break, which editors and `echo` add unasked.
pub(super) fn newline_hint(snapshot: &Snapshot) -> Option<String> {
    let (Store::Git(store), Secret::Found { data, .. }) = (&snapshot.store, &snapshot.secret) else { return None };
    let reference = store.spec.secret_ref.as_ref()?;
    let password = data.get("password")?;
    let secret = format!("{}/{}", namespace(reference), reference.name);
    password.ends_with(b"\n").then(|| format!("password in secret {secret} ends with a line break, remove it"))
}
