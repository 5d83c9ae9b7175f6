//! How a GitStateStore and its Secret become a connection.

use std::collections::BTreeMap;

use kratix_api::state_store::GitAuthMethod;
use kratix_api::{GitStateStore, GitStateStoreSpec};

use super::{GitConnection, GitCredentials, Secret, Snapshot, Store, namespace};

/// User name that GitHub wants beside a token.
const TOKEN_USER: &str = "x-access-token";

/// Key of the Secret with certificates to trust.
const CA_FILE: &str = "caFile";

/// Returns how to reach the repository.
///
/// # Errors
/// The message of the store's condition.
pub(super) fn connection(store: &GitStateStore, data: &BTreeMap<String, Vec<u8>>) -> Result<GitConnection, String> {
    let spec = &store.spec;
    let credentials = credentials(store, data)
        .map_err(|cause| format!("unable to create git writer: could not create auth method: {cause}"))?;
    check_url(&spec.url)
        .map_err(|cause| format!("unable to create git writer: could not create git native client: {cause}"))?;
    Ok(GitConnection {
        url: spec.url.clone(),
        branch: spec.branch.clone(),
        path: spec.path.clone(),
        author: (spec.git_author.name.clone(), spec.git_author.email.clone()),
        credentials,
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
        GitAuthMethod::Other(method) => return Err(format!("unknown authMethod: {method}")),
    };
    let Some(reference) = &spec.secret_ref else {
        // A repository on this machine, or a public one: the check tells whether it can be written without.
        return match spec.auth_method {
            GitAuthMethod::BasicAuth | GitAuthMethod::Other(_) => Ok(GitCredentials::None),
            _ => Err(format!("authMethod {} needs a secretRef", spec.auth_method)),
        };
    };
    let secret = format!("{}/{}", namespace(reference), reference.name);
    if let Some(key) = required.iter().find(|key| !data.contains_key(**key)) {
        return Err(format!("{key} not found in secret {secret}"));
    }
    if let Some(problem) = unavailable(spec) {
        return Err(problem);
    }
    let text = |key: &str| -> Result<String, String> {
        let bytes = data.get(key).cloned().unwrap_or_default();
        String::from_utf8(bytes).map_err(|_| format!("{key} in secret {secret} is not text"))
    };
    let (mut username, password) = (text("username")?, text("password")?);
    if username.is_empty() && spec.url.to_ascii_lowercase().contains("github") {
        TOKEN_USER.clone_into(&mut username);
    }
    if password.is_empty() {
        return Ok(GitCredentials::None);
    }
    Ok(GitCredentials::Basic { username, password })
}

/// Returns why the method does not work at all.
fn unavailable(spec: &GitStateStoreSpec) -> Option<String> {
    let is_missing = matches!(spec.auth_method, GitAuthMethod::Ssh | GitAuthMethod::GithubApp);
    is_missing.then(|| format!("authMethod {} is not available in this version, use basicAuth", spec.auth_method))
}

/// Returns what is odd about a store before anything but its spec is known; for admission, which warns of it.
pub(crate) fn complaints(spec: &GitStateStoreSpec) -> Vec<String> {
    if let Some(problem) = unavailable(spec) {
        return vec![problem]; // the rest is about the methods there are
    }
    let url = match spec.url.as_str() {
        "" => Some("spec.url is empty, nothing can be written to the store".to_owned()),
        url => check_url(url).err(),
    };
    let needs_password = spec.secret_ref.is_none()
        && spec.auth_method == GitAuthMethod::BasicAuth
        && (spec.url.starts_with("https://") || spec.url.starts_with("http://"));
    let anonymous = needs_password.then(|| {
        format!("without spec.secretRef {} is written without user name and password", without_user(&spec.url))
    });
    url.into_iter().chain(anonymous).collect()
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
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
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
