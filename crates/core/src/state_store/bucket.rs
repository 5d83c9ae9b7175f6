//! How a BucketStateStore and its Secret become a connection.
//!
//! Beyond the original: `gs://` and `az://account` name the services of Google and Microsoft by their own protocols, and
//! `file:///directory` a directory of the machine; each takes the credentials that fit.

use std::collections::BTreeMap;

use kratix_api::BucketStateStore;
use kratix_api::state_store::{BucketAuthMethod, BucketStateStoreSpec};

use super::store::namespace;
use super::{BucketConnection, BucketCredentials, with_hint};

/// Key of the Secret with certificates to trust.
const CA_FILE: &str = "caFile";
/// Keys of the Secret with a pair of keys.
const KEYS: [&str; 2] = ["accessKeyID", "secretAccessKey"];
/// Key of the Secret with the key of a service account of Google Cloud.
const SERVICE_ACCOUNT: &str = "serviceAccountKey";

/// Returns how to reach the bucket.
///
/// # Errors
/// The message of the store's condition.
pub(super) fn connection(
    store: &BucketStateStore,
    data: &BTreeMap<String, Vec<u8>>,
) -> Result<BucketConnection, String> {
    let spec = &store.spec;
    let credentials = credentials(store, data).map_err(|cause| format!("unable to create bucket writer: {cause}"))?;
    Ok(BucketConnection {
        endpoint: spec.endpoint.clone(),
        bucket: spec.bucket_name.clone(),
        path: spec.path.clone(),
        plain_http: spec.insecure,
        dual_stack: spec.use_dual_stack,
        credentials,
        ca_pem: data.get(CA_FILE).cloned(),
        skip_tls_verify: spec.insecure_skip_tls_verify,
    })
}

/// Whether a bucket is reached by the protocol of S3, or its endpoint is not understood.
pub(super) fn is_of_s3(spec: &BucketStateStoreSpec) -> bool {
    !["gs:", "az:", "file:"].iter().any(|scheme| spec.endpoint.starts_with(scheme))
}

fn credentials(store: &BucketStateStore, data: &BTreeMap<String, Vec<u8>>) -> Result<BucketCredentials, String> {
    let spec = &store.spec;
    match &spec.auth_method {
        BucketAuthMethod::AccessKey => {}
        BucketAuthMethod::Other(method) if method.is_empty() => {}
        BucketAuthMethod::Iam => return Ok(BucketCredentials::Ambient),
        BucketAuthMethod::Other(method) => {
            let hint = "set spec.authMethod of the store to accessKey or IAM";
            return Err(with_hint(&format!("unknown authMethod: {method}"), hint));
        }
    }
    if spec.endpoint.starts_with("file:") {
        return Err("a directory needs no keys, set authMethod: IAM".to_owned());
    }
    let Some(reference) = &spec.secret_ref else {
        return Err(with_hint("secret not provided", "set spec.secretRef of the store, or spec.authMethod: IAM"));
    };
    let secret = format!("{}/{}", namespace(reference), reference.name);
    let text = |key: &str| -> Result<String, String> {
        let missing = || with_hint(&format!("secret is missing key: {key}"), &format!("add it to secret {secret}"));
        let bytes = data.get(key).ok_or_else(missing)?;
        let text = std::str::from_utf8(bytes).map_err(|_| {
            let hint = "write it again as text, as kubectl create secret does";
            with_hint(&format!("{key} in secret {secret} is not text"), hint)
        })?;
        if text.ends_with('\n') && key != SERVICE_ACCOUNT {
            return Err(format!("{key} in secret {secret} ends with a line break, remove it"));
        }
        Ok(text.to_owned())
    };
    if spec.endpoint.starts_with("gs:") {
        return Ok(BucketCredentials::ServiceAccount { key: text(SERVICE_ACCOUNT)? });
    }
    let [id, key] = KEYS;
    // The account of Azure is part of its endpoint.
    let id = if spec.endpoint.starts_with("az:") { String::new() } else { text(id)? };
    Ok(BucketCredentials::Keys { id, secret: text(key)? })
}
