//! GitStateStore and BucketStateStore: where documents are kept.

use serde::{Deserialize, Serialize};

use crate::Condition;
use crate::keyword::keyword;
use crate::object::{SecretRef, null_as_default, resource};

resource! {
    /// A Git repository.
    GitStateStore, "gitstatestores", ClusterResourceScope,
    {
        /// Where it is.
        spec: GitStateStoreSpec
    }
    {
        /// Whether it can be written.
        status: StateStoreStatus
    }
}

resource! {
    /// A bucket of an S3-compatible store.
    BucketStateStore, "bucketstatestores", ClusterResourceScope,
    {
        /// Where it is.
        spec: BucketStateStoreSpec
    }
    {
        /// Whether it can be written.
        status: StateStoreStatus
    }
}

/// Where a Git repository is and how it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GitStateStoreSpec {
    /// URL of the repository.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// Root path inside the repository.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Branch that is written.
    pub branch: String,
    /// How to authenticate.
    #[serde(deserialize_with = "null_as_default")]
    pub auth_method: GitAuthMethod,
    /// Author of the commits.
    #[serde(deserialize_with = "null_as_default")]
    pub git_author: GitAuthor,
    /// Credentials; an empty namespace means `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// Accept any server certificate. Visible on purpose: everything written can be read and changed on the way.
    #[serde(rename = "insecureSkipTLSVerify", skip_serializing_if = "std::ops::Not::not")]
    pub insecure_skip_tls_verify: bool,
}

/// The branch that is written when none is given.
pub const BRANCH_DEFAULT: &str = "main";

impl Default for GitStateStoreSpec {
    fn default() -> Self {
        Self {
            url: String::new(),
            path: String::new(),
            branch: BRANCH_DEFAULT.to_owned(),
            auth_method: GitAuthMethod::default(),
            git_author: GitAuthor::default(),
            secret_ref: None,
            insecure_skip_tls_verify: false,
        }
    }
}

keyword! {
    /// How to authenticate with a Git server.
    GitAuthMethod {
        /// User name and password or token.
        #[default]
        BasicAuth = "basicAuth",
        /// SSH key.
        Ssh = "ssh",
        /// A GitHub App installation.
        GithubApp = "githubApp",
    }
}

/// Author of commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GitAuthor {
    /// Name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// E-mail address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub email: String,
}

impl Default for GitAuthor {
    fn default() -> Self {
        Self { name: "kratix".to_owned(), email: String::new() }
    }
}

/// Where a bucket is and how it is written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BucketStateStoreSpec {
    /// Name of the bucket.
    pub bucket_name: String,
    /// Host and optional port of the service.
    pub endpoint: String,
    /// Key prefix inside the bucket.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Plain HTTP instead of HTTPS.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// AWS dual-stack endpoints.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub use_dual_stack: bool,
    /// How to authenticate.
    #[serde(deserialize_with = "null_as_default")]
    pub auth_method: BucketAuthMethod,
    /// Credentials, needed for `accessKey`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// Accept any server certificate. Visible on purpose: everything written can be read and changed on the way.
    #[serde(rename = "insecureSkipTLSVerify", skip_serializing_if = "std::ops::Not::not")]
    pub insecure_skip_tls_verify: bool,
}

keyword! {
    /// How to authenticate with a bucket service.
    BucketAuthMethod {
        /// Access key and secret key.
        #[default]
        AccessKey = "accessKey",
        /// The identity of the pod or machine.
        Iam = "IAM",
    }
}

/// Whether a state store can be written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StateStoreStatus {
    /// `Ready` or `NotReady`.
    pub status: String,
    /// See `01-api.md` §8.2.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Generation that was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// The word in `status.status` of a store that can be written.
pub const READY: &str = "Ready";
/// The word in `status.status` of a store that cannot be written.
pub const NOT_READY: &str = "NotReady";
