//! The API that a Promise brings: a CRD inside the Promise, and what Kratix adds to it.
//!
//! # Source
//! `01-api.md` §6, §9.1

mod merge;
mod prepare;
mod spelling;
#[cfg(test)]
mod tests;

pub use merge::{Ownership, merge, ownership};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion,
};
use serde::Deserialize;
use serde_json::Value;

use crate::PromiseSpec;

/// Group and version a definition must have.
pub const CRD_API_VERSION: &str = "apiextensions.k8s.io/v1";
/// Kind a definition must have.
pub const CRD_KIND: &str = "CustomResourceDefinition";
/// Longest name of a request: it becomes the value of a label.
pub const REQUEST_NAME_BYTES_MAX: i64 = 63;

/// Why there is no usable API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `spec.api` is absent.
    #[error("promise does not contain an API")]
    Absent,
    /// `spec.api` is no CRD.
    #[error("api is not a valid CRD: {cause}")]
    Invalid {
        /// What is wrong.
        cause: String,
    },
}

/// The API of a Promise.
#[derive(Clone, Debug, PartialEq)]
pub struct Api {
    crd: CustomResourceDefinition,
    /// Invariant: an index into `crd.spec.versions`.
    chosen: usize,
}

/// Reads the API of a Promise.
///
/// Every version limits the names of requests to 63 characters afterwards, unless the author was stricter.
///
/// # Errors
/// [`Error::Absent`] without API; [`Error::Invalid`] if it cannot be decoded or has no versions.
pub fn read(spec: &PromiseSpec) -> Result<Api, Error> {
    let document = spec.api.as_ref().filter(|_| spec.has_api()).ok_or(Error::Absent)?;
    let invalid = |cause: String| Error::Invalid { cause };
    // The generated type insists on its own kind, the reference does not look at it; see `check_kind`.
    let mut document = document.clone();
    spelling::correct(&mut document);
    if let Value::Object(map) = &mut document {
        map.insert("apiVersion".into(), CRD_API_VERSION.into());
        map.insert("kind".into(), CRD_KIND.into());
    }
    let mut crd = CustomResourceDefinition::deserialize(document).map_err(|error| invalid(error.to_string()))?;
    if crd.spec.versions.is_empty() {
        return Err(invalid("spec.versions must not be empty".to_owned()));
    }
    crd.status = None;
    crd.spec.versions.iter_mut().for_each(prepare::limit_request_names);
    let versions = &crd.spec.versions;
    let is_both = |version: &CustomResourceDefinitionVersion| version.storage && version.served;
    let is_served = |version: &CustomResourceDefinitionVersion| version.served;
    let chosen = versions.iter().position(is_both).or_else(|| versions.iter().position(is_served)).unwrap_or(0);
    Ok(Api { crd, chosen })
}

/// Checks that `spec.api` calls itself a CRD; for admission of new Promises.
///
/// # Errors
/// [`Error::Invalid`] naming the field and what was found.
pub fn check_kind(spec: &PromiseSpec) -> Result<(), Error> {
    let Some(document) = spec.api.as_ref().filter(|_| spec.has_api()) else {
        return Ok(());
    };
    for (field, wanted) in [("apiVersion", CRD_API_VERSION), ("kind", CRD_KIND)] {
        let found = document.get(field).and_then(Value::as_str).unwrap_or_default();
        if found != wanted {
            let cause = format!("spec.api.{field} must be {wanted:?}, found {found:?}");
            return Err(Error::Invalid { cause });
        }
    }
    Ok(())
}

impl Api {
    /// Returns the definition as the author wrote it, with the limit on names.
    pub fn crd(&self) -> &CustomResourceDefinition {
        &self.crd
    }

    /// Returns the definition to install for a Promise: with its label, the status fields and columns of Kratix.
    pub fn prepared(&self, promise: &str) -> CustomResourceDefinition {
        prepare::prepare(&self.crd, promise)
    }

    /// Returns the name of the CRD.
    pub fn crd_name(&self) -> &str {
        self.crd.metadata.name.as_deref().unwrap_or_default()
    }

    /// Returns the group of the requests.
    pub fn group(&self) -> &str {
        &self.crd.spec.group
    }

    /// Returns the version in which requests are watched, read and written: the storage version if it is served, else the first that is.
    pub fn version(&self) -> &str {
        &self.chosen_version().name
    }

    /// Returns the kind of the requests.
    pub fn kind(&self) -> &str {
        &self.crd.spec.names.kind
    }

    /// Returns the plural of the requests.
    pub fn plural(&self) -> &str {
        &self.crd.spec.names.plural
    }

    /// Returns group and version of the requests as one word.
    pub fn api_version(&self) -> String {
        join(self.group(), self.version())
    }

    /// Returns what the Promise's status calls its apiVersion: lower-cased, with the version in which requests are read.
    pub fn status_api_version(&self) -> String {
        self.api_version().to_lowercase()
    }

    /// Returns whether requests have no namespace, which is refused for new Promises.
    pub fn is_cluster_scoped(&self) -> bool {
        self.crd.spec.scope == "Cluster"
    }

    /// Returns the key under which the requests' controller is kept.
    pub fn controller_key(&self, promise: &str) -> String {
        format!("{promise}_{}", self.crd_name())
    }

    /// Returns kind, group, version and plural for dynamic access to requests.
    pub fn resource(&self) -> kube::core::ApiResource {
        kube::core::ApiResource {
            group: self.group().to_owned(),
            version: self.version().to_owned(),
            api_version: self.api_version(),
            kind: self.kind().to_owned(),
            plural: self.plural().to_owned(),
        }
    }

    fn chosen_version(&self) -> &CustomResourceDefinitionVersion {
        &self.crd.spec.versions[self.chosen]
    }
}

fn join(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}
