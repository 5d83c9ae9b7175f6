//! The file by which kubectl finds both API servers.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::{Value, json};

/// One API server and the credentials for it.
#[derive(Clone)]
pub(crate) struct Access {
    /// Name of the context.
    pub(crate) context: &'static str,
    /// `cluster` of the kubeconfig.
    pub(crate) cluster: Value,
    /// `user` of the kubeconfig.
    pub(crate) user: Value,
}

impl Access {
    /// Returns the access by bearer token to a server (`https://host:port`) whose certificate this authority signed.
    pub(crate) fn by_token(context: &'static str, server: &str, ca_pem: &str, token: &str) -> Self {
        let cluster = json!({"server": server, "certificate-authority-data": base64(ca_pem.as_bytes())});
        Self { context, cluster, user: json!({"token": token}) }
    }

    /// Returns the URL of the server.
    pub(crate) fn server(&self) -> &str {
        self.cluster["server"].as_str().unwrap_or_default()
    }
}

/// Returns the kubeconfig; the first access is the current context.
pub(crate) fn document(accesses: &[Access]) -> Value {
    let named = |key: &str, value: fn(&Access) -> Value| -> Vec<Value> {
        accesses.iter().map(|access| json!({"name": access.context, key: value(access)})).collect()
    };
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": accesses.first().map(|access| access.context),
        "clusters": named("cluster", |access| access.cluster.clone()),
        "users": named("user", |access| access.user.clone()),
        "contexts": named("context", |access| json!({
            "cluster": access.context,
            "user": access.context,
            "namespace": "default",
        })),
    })
}

/// Writes the file so that only its owner can read it, and never half.
pub(crate) fn write(path: &Path, document: &Value) -> io::Result<()> {
    let text = serde_saphyr::to_string(document).map_err(io::Error::other)?;
    if fs::read_to_string(path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn access(context: &'static str) -> Access {
        Access::by_token(context, "https://127.0.0.1:1", "pem", "secret")
    }

    #[test]
    fn the_first_context_is_the_current_one() {
        let document = document(&[access("platform"), access("worker-1")]);
        assert_eq!(document["current-context"], "platform");
        assert_eq!(document["contexts"][1]["context"]["cluster"], "worker-1");
        assert_eq!(document["clusters"][0]["cluster"]["certificate-authority-data"], "cGVt");
    }

    #[test]
    fn the_file_is_readable_by_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/kubeconfig");
        write(&path, &document(&[access("platform")])).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
