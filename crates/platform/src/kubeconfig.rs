//! The file by which kubectl finds both API servers.

use std::fs::{self, Permissions};
use std::hash::{BuildHasher, RandomState};
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

/// Writes the platform's own file, whatever it held before.
pub(crate) fn write(path: &Path, document: &Value) -> io::Result<()> {
    let text = text(document)?;
    if fs::read_to_string(path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    replace(path, &text, None)
}

/// Writes the entries of `document` into a file that may hold others, which stay: most people have one kubeconfig for all
/// their clusters. Entries of the same names are replaced, and the current context stays unless there is none.
///
/// # Errors
/// When what is there is no kubeconfig; it is left alone then.
pub(crate) fn merge(path: &Path, document: &Value) -> io::Result<()> {
    let present = match fs::read_to_string(path) {
        Ok(present) => present,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return replace(path, &text(document)?, None),
        Err(error) => return Err(error),
    };
    // Not the library's words: they quote the file, which holds credentials.
    let before: Value = match serde_saphyr::from_str(&present) {
        Ok(before) => before,
        Err(_) if present.trim().is_empty() => Value::Null,
        Err(_) => return Err(foreign("it is not valid YAML")),
    };
    let after = merged(&before, document)?;
    if after == before {
        return Ok(());
    }
    // Where it is a link, what it leads to is meant.
    let path = path.canonicalize()?;
    let permissions = fs::metadata(&path)?.permissions();
    replace(&path, &text(&after)?, Some(permissions))
}

fn merged(before: &Value, document: &Value) -> io::Result<Value> {
    let mut after = match before {
        Value::Null => return Ok(document.clone()),
        Value::Object(before) if before.get("kind").is_none_or(|kind| kind == "Config") => before.clone(),
        _ => return Err(foreign("it is no object of kind Config")),
    };
    for key in ["apiVersion", "kind", "current-context"] {
        let is_empty = after.get(key).is_none_or(|value| value.is_null() || value == "");
        if is_empty {
            after.insert(key.to_owned(), document[key].clone());
        }
    }
    for list in ["clusters", "users", "contexts"] {
        let ours = document[list].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut entries = match after.remove(list) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(entries)) => entries,
            Some(_) => return Err(foreign(&format!("its {list} are no list"))),
        };
        for entry in ours {
            match entries.iter_mut().find(|present| present["name"] == entry["name"]) {
                Some(present) => *present = entry.clone(),
                None => entries.push(entry.clone()),
            }
        }
        after.insert(list.to_owned(), Value::Array(entries));
    }
    Ok(Value::Object(after))
}

fn foreign(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "the file exists and is no kubeconfig that entries can be added to: {what}; repair it or name another file"
        ),
    )
}

fn text(document: &Value) -> io::Result<String> {
    serde_saphyr::to_string(document).map_err(io::Error::other)
}

/// Writes a file so that it is never half. A new one can be read by its owner alone.
fn replace(path: &Path, text: &str, permissions: Option<Permissions>) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    // The directory may be one in which others can make files: nobody can foresee the name, and what exists is not opened.
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{:016x}", RandomState::new().hash_one(path)));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let mut write = || {
        file.write_all(text.as_bytes())?;
        if let Some(permissions) = &permissions {
            file.set_permissions(permissions.clone())?;
        }
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
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

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn files(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn the_file_is_readable_by_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        for (name, write) in [("own", write as fn(&Path, &Value) -> io::Result<()>), ("other", merge)] {
            let path = directory.path().join(name).join("kubeconfig");
            write(&path, &document(&[access("platform")])).unwrap();
            assert_eq!(mode(&path), 0o600);
            assert_eq!(files(path.parent().unwrap()), 1, "no draft is left");
        }
    }

    #[test]
    fn what_a_user_has_in_the_file_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("config"), directory.path().join("link"));
        let before = "
apiVersion: v1
kind: Config
current-context: work
preferences: {colors: true}
clusters:
- {name: work, cluster: {server: 'https://work.example'}}
- {name: platform, cluster: {server: 'https://127.0.0.1:9'}}
users:
- {name: work, user: {token: precious}}
contexts:
- {name: work, context: {cluster: work, user: work}}
";
        fs::write(&path, before).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let ours = document(&[access("platform"), access("worker-1")]);
        merge(&link, &ours).unwrap();
        let after: Value = serde_saphyr::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(after["current-context"], "work");
        assert_eq!(after["preferences"]["colors"], true);
        assert_eq!(after["users"][0]["user"]["token"], "precious");
        let names = |list: &str| -> Vec<String> {
            let names = after[list].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap().to_owned());
            names.collect()
        };
        for list in ["clusters", "users", "contexts"] {
            assert_eq!(names(list), ["work", "platform", "worker-1"], "{list}");
        }
        assert_eq!(after["clusters"][1], ours["clusters"][0], "the old address is replaced");
        assert!(link.is_symlink());
        assert_eq!((mode(&path), files(directory.path())), (0o640, 2));
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        merge(&path, &ours).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written, "nothing to change");
    }

    #[test]
    fn a_file_without_a_current_context_gets_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        for before in ["", "kind: Config\nclusters: null\ncurrent-context: ''\n"] {
            fs::write(&path, before).unwrap();
            merge(&path, &document(&[access("platform")])).unwrap();
            let after: Value = serde_saphyr::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            assert_eq!(after, document(&[access("platform")]), "{before:?}");
        }
    }

    #[test]
    fn what_is_no_kubeconfig_is_left_alone_and_not_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        for before in ["secret: [", "- secret\n", "kind: Secret\n", "kind: Config\nusers: {secret: 1}\n"] {
            fs::write(&path, before).unwrap();
            let error = merge(&path, &document(&[access("platform")])).unwrap_err().to_string();
            assert!(error.contains("no kubeconfig") && !error.contains("secret"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), before);
        }
        assert_eq!(files(directory.path()), 1);
    }
}
