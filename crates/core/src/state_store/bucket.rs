//! Why a BucketStateStore cannot be opened: what is wrong with its Secret, and then that this version has no writer for it.

use std::collections::BTreeMap;

use kratix_api::BucketStateStore;
use kratix_api::state_store::BucketAuthMethod;

/// Returns the message of the store's condition.
pub(super) fn refusal(store: &BucketStateStore, data: &BTreeMap<String, Vec<u8>>) -> String {
    let cause = match &store.spec.auth_method {
        BucketAuthMethod::AccessKey if store.spec.secret_ref.is_none() => Some("secret not provided".to_owned()),
        BucketAuthMethod::AccessKey => ["accessKeyID", "secretAccessKey"]
            .into_iter()
            .find(|key| !data.contains_key(*key))
            .map(|key| format!("secret is missing key: {key}")),
        BucketAuthMethod::Iam => None,
        BucketAuthMethod::Other(method) => Some(format!("unknown authMethod: {method}")),
    };
    let cause =
        cause.unwrap_or_else(|| "bucket stores are not available in this version, use a GitStateStore".to_owned());
    format!("unable to create bucket writer: {cause}")
}
