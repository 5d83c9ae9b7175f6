//! PromiseRelease: a Promise that is fetched from a URL.

use serde::{Deserialize, Serialize};

use crate::Condition;
use crate::object::{SecretRef, resource};

resource! {
    /// A Promise to be fetched and kept installed.
    PromiseRelease, "promisereleases", ClusterResourceScope,
    {
        /// Where the Promise comes from.
        spec: PromiseReleaseSpec
    }
    {
        /// How the installation went.
        status: PromiseReleaseStatus
    }
}

/// Where a Promise comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PromiseReleaseSpec {
    /// Version expected on the fetched Promise; filled in from it when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Where to fetch it.
    pub source_ref: SourceRef,
}

/// The only kind of source.
pub const SOURCE_HTTP: &str = "http";

/// A place to fetch a Promise from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceRef {
    /// Always [`SOURCE_HTTP`].
    pub r#type: String,
    /// URL of the document.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// Secret whose key `authorizationHeader` is sent with the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
}

impl Default for SourceRef {
    fn default() -> Self {
        Self { r#type: SOURCE_HTTP.to_owned(), url: String::new(), secret_ref: None }
    }
}

/// How an installation went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PromiseReleaseStatus {
    /// `Installed` or `Error installing`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// See `01-api.md` §8.2.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// The word in `status.status` of an installed release.
pub const INSTALLED: &str = "Installed";
/// The word in `status.status` of a release that could not be installed.
pub const ERROR_INSTALLING: &str = "Error installing";
