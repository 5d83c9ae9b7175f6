//! The object a workflow runs for, addressed by group, version and plural, and read as it is stored.

use kube::Client;
use kube::api::{GetParams, Patch, PatchParams};
use kube::core::Request;
use serde_json::Value;

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// API group, empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural of the kind.
    pub plural: String,
    /// Namespace; none for a cluster-scoped object.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

impl Address {
    fn requests(&self) -> Request {
        let root = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        Request::new(match &self.namespace {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", self.plural),
            None => format!("{root}/{}", self.plural),
        })
    }

    /// Reads the object, whole.
    ///
    /// # Errors
    /// Whatever the API server answers.
    pub async fn get(&self, client: &Client) -> Result<Value, kube::Error> {
        let request = self.requests().get(&self.name, &GetParams::default()).map_err(kube::Error::BuildRequest)?;
        client.request(request).await
    }

    /// Merges a patch into the object and returns the result.
    ///
    /// # Errors
    /// Whatever the API server answers.
    pub async fn patch(&self, client: &Client, patch: &Value) -> Result<Value, kube::Error> {
        let request = self.requests().patch(&self.name, &PatchParams::default(), &Patch::Merge(patch));
        client.request(request.map_err(kube::Error::BuildRequest)?).await
    }

    /// Merges a patch into the object's status and returns the result.
    ///
    /// # Errors
    /// Whatever the API server answers.
    pub async fn patch_status(&self, client: &Client, patch: &Value) -> Result<Value, kube::Error> {
        let params = PatchParams::default();
        let request = self.requests().patch_subresource("status", &self.name, &params, &Patch::Merge(patch));
        client.request(request.map_err(kube::Error::BuildRequest)?).await
    }
}

/// Returns the merge patch that turns one value into another, or nothing when they are equal.
pub(crate) fn merge_patch(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return Some(new.clone());
    };
    let removed = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let changed = new.iter().filter_map(|(key, value)| {
        // What was not an object is replaced; below it nothing can be left over to be removed.
        merge_patch(old.get(key).unwrap_or(&Value::Null), value).map(|patch| (key.clone(), patch))
    });
    Some(removed.chain(changed).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_patch_names_only_what_differs() {
        let old = json!({"a": 1, "b": {"c": 1, "d": [1]}, "e": "x"});
        let new = json!({"a": 1, "b": {"d": [1, 2]}, "f": {"g": 1}, "e": {"h": 1}});
        let patch = json!({"b": {"c": null, "d": [1, 2]}, "e": {"h": 1}, "f": {"g": 1}});
        assert_eq!(merge_patch(&old, &new), Some(patch));
        assert_eq!(merge_patch(&old, &old), None);
    }
}
