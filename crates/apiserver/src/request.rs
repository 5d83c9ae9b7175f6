//! What a URL asks for.

use std::borrow::Cow;

/// Query parameters, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// Returns the first value of a parameter; an empty one counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().find(|(k, _)| k == key);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Returns a switch: `true`, `1`, or the bare key turn it on.
    pub(crate) fn flag(&self, key: &str) -> bool {
        let found = self.0.iter().find(|(k, _)| k == key);
        found.is_some_and(|(_, value)| !matches!(value.as_str(), "false" | "0" | "False" | "FALSE" | "f" | "F"))
    }

    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.get(key)?.parse().ok()
    }

    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.0.retain(|(k, _)| k != key);
        self.0.push((key.to_owned(), value.to_owned()));
    }
}

/// A path below `/api/v1` or `/apis/GROUP/VERSION`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) group: String,
    pub(crate) version: String,
    /// Empty when the path names a collection over all namespaces, or cluster scope.
    pub(crate) namespace: String,
    pub(crate) resource: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
}

/// A path taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// A resource.
    Resource(Target),
    /// `/api`.
    CoreVersions,
    /// `/apis`.
    Groups,
    /// `/apis/GROUP`.
    Group(String),
    /// `/api/v1`, `/apis/GROUP/VERSION`.
    Resources(String, String),
    /// Anything else, such as `/version`, without a trailing slash.
    Other(String),
}

impl Route {
    pub(crate) fn parse(path: &str) -> Self {
        let segments: Vec<String> =
            path.split('/').filter(|one| !one.is_empty()).map(|one| decode(one).into_owned()).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (group, version, rest) = match segments.as_slice() {
            ["api"] => return Self::CoreVersions,
            ["apis"] => return Self::Groups,
            ["apis", group] => return Self::Group((*group).to_owned()),
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            other => return Self::Other(format!("/{}", other.join("/"))),
        };
        let (namespace, resource, name, below) = match rest {
            [] => return Self::Resources(group.to_owned(), version.to_owned()),
            // A namespace has subresources of its own; any other third segment is a resource inside it.
            ["namespaces", name, sub @ ("status" | "finalize")] if group.is_empty() => {
                ("", "namespaces", *name, &[*sub][..])
            }
            ["namespaces", namespace, resource] => (*namespace, *resource, "", &[][..]),
            ["namespaces", namespace, resource, name, below @ ..] => (*namespace, *resource, *name, below),
            [resource] => ("", *resource, "", &[][..]),
            [resource, name, below @ ..] => ("", *resource, *name, below),
        };
        Self::Resource(Target {
            group: group.to_owned(),
            version: version.to_owned(),
            namespace: namespace.to_owned(),
            resource: resource.to_owned(),
            name: name.to_owned(),
            subresource: below.join("/"),
        })
    }
}

fn decode(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment);
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |range: &[u8]| std::str::from_utf8(range).ok().and_then(|text| u8::from_str_radix(text, 16).ok());
        match (first, tail.get(..2).and_then(hex)) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> [String; 6] {
        let Route::Resource(target) = Route::parse(path) else { panic!("{path} is a resource") };
        [target.group, target.version, target.namespace, target.resource, target.name, target.subresource]
    }

    #[test]
    fn paths_name_resources() {
        assert_eq!(target("/api/v1/pods"), ["", "v1", "", "pods", "", ""]);
        assert_eq!(target("/api/v1/namespaces/a"), ["", "v1", "", "namespaces", "a", ""]);
        assert_eq!(target("/api/v1/namespaces/a/status"), ["", "v1", "", "namespaces", "a", "status"]);
        assert_eq!(target("/api/v1/namespaces/a/pods"), ["", "v1", "a", "pods", "", ""]);
        assert_eq!(target("/api/v1/namespaces/a/pods/b/log"), ["", "v1", "a", "pods", "b", "log"]);
        assert_eq!(
            target("/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Aa"),
            ["rbac.authorization.k8s.io", "v1", "", "clusterroles", "system:a", ""]
        );
        assert_eq!(Route::parse("/apis/batch/v1/"), Route::Resources("batch".into(), "v1".into()));
        assert_eq!(Route::parse("/healthz/"), Route::Other("/healthz".into()));
    }
}
