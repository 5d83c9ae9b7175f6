//! How an object store is opened: by which protocol, and as whom.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};

use super::endpoint::Address;
use super::transport::Transport;
use crate::config::{BucketAuth, Environment};
use crate::error::Trouble;

/// How often an exchange is repeated.
const RETRIES_MAX: usize = 4;
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause before that.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(1);

type Opened = Result<Arc<dyn ObjectStore>, Trouble>;

/// Opens a bucket in `region` of a service that speaks the protocol of S3.
pub(super) fn s3(
    address: &Address,
    bucket: &str,
    region: &str,
    auth: &BucketAuth,
    transport: &Transport,
    deadline: Duration,
) -> Opened {
    let builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region)
        .with_endpoint(address.url(region))
        .with_virtual_hosted_style_request(address.is_virtual)
        .with_allow_http(true)
        // Not every server knows how to delete many objects at once.
        .with_disable_bulk_delete(true)
        .with_retry(retries(deadline))
        .with_http_connector(transport.clone());
    let builder = match auth {
        BucketAuth::Keys { id, secret } => {
            // It becomes part of a header.
            if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
                let problem = "the access key's id is empty, or contains a character that no access key has";
                return Err(Trouble::Config(problem.to_owned()));
            }
            builder.with_access_key_id(id).with_secret_access_key(secret.expose())
        }
        BucketAuth::Ambient(environment) => identity(environment, region)
            .into_iter()
            .fold(builder, |builder, (key, value)| builder.with_config(key, value)),
        BucketAuth::ServiceAccount(_) => {
            return Err(Trouble::Config("the key of a service account is for endpoint gs:// only".to_owned()));
        }
    };
    Ok(Arc::new(builder.build().map_err(|error| Trouble::Config(error.to_string()))?))
}

/// Opens a bucket of Google Cloud Storage.
pub(super) fn google(bucket: &str, auth: &BucketAuth, transport: &Transport, deadline: Duration) -> Opened {
    let builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket)
        .with_retry(retries(deadline))
        .with_http_connector(transport.clone());
    let builder = match auth {
        BucketAuth::ServiceAccount(key) => builder.with_service_account_key(key.expose()),
        BucketAuth::Ambient(environment) => match environment.get("GOOGLE_APPLICATION_CREDENTIALS") {
            Some(file) => builder.with_application_credentials(file),
            None => builder,
        },
        BucketAuth::Keys { .. } => {
            return Err(Trouble::Config("endpoint gs:// takes the key of a service account, or IAM".to_owned()));
        }
    };
    // The library's text can hold parts of the key.
    let problem = |_| {
        let problem = "the key of the service account is not the JSON file that Google Cloud makes for one";
        Trouble::Config(problem.to_owned())
    };
    Ok(Arc::new(builder.build().map_err(problem)?))
}

/// Opens a container of Azure Blob Storage.
pub(super) fn azure(
    account: &str,
    host: Option<&str>,
    container: &str,
    auth: &BucketAuth,
    transport: &Transport,
    deadline: Duration,
) -> Opened {
    let mut builder = MicrosoftAzureBuilder::new()
        .with_account(account)
        .with_container_name(container)
        .with_retry(retries(deadline))
        .with_http_connector(transport.clone());
    if let Some(host) = host {
        builder = builder.with_endpoint(format!("https://{host}"));
    }
    let builder = match auth {
        BucketAuth::Keys { secret, .. } => builder.with_access_key(secret.expose()),
        BucketAuth::Ambient(environment) => {
            let keys = [
                ("AZURE_CLIENT_ID", AzureConfigKey::ClientId),
                ("AZURE_TENANT_ID", AzureConfigKey::AuthorityId),
                ("AZURE_AUTHORITY_HOST", AzureConfigKey::AuthorityHost),
                ("AZURE_FEDERATED_TOKEN_FILE", AzureConfigKey::FederatedTokenFile),
            ];
            let set = |builder: MicrosoftAzureBuilder, (name, key)| match environment.get(name) {
                Some(value) => builder.with_config(key, value),
                None => builder,
            };
            keys.into_iter().fold(builder, set)
        }
        BucketAuth::ServiceAccount(_) => {
            return Err(Trouble::Config("the key of a service account is for endpoint gs:// only".to_owned()));
        }
    };
    let problem = |_| Trouble::Config("the account's key is not base64, as Azure gives it".to_owned());
    Ok(Arc::new(builder.build().map_err(problem)?))
}

/// Returns where the credentials of the surroundings are: those of a web identity, else of the container, else of the machine.
/// Keys in the environment are not looked at: they are nobody's identity.
fn identity(environment: &Environment, region: &str) -> Vec<(AmazonS3ConfigKey, String)> {
    let get = |name: &str| environment.get(name).map(str::to_owned);
    if let (Some(file), Some(role)) = (get("AWS_WEB_IDENTITY_TOKEN_FILE"), get("AWS_ROLE_ARN")) {
        let region = get("AWS_REGION").unwrap_or_else(|| region.to_owned());
        let endpoint =
            get("AWS_ENDPOINT_URL_STS").unwrap_or_else(|| format!("https://sts.{region}.{}", domain(&region)));
        let name = get("AWS_ROLE_SESSION_NAME").map(|name| (AmazonS3ConfigKey::RoleSessionName, name));
        let keys = [
            (AmazonS3ConfigKey::WebIdentityTokenFile, file),
            (AmazonS3ConfigKey::RoleArn, role),
            (AmazonS3ConfigKey::StsEndpoint, endpoint),
        ];
        return keys.into_iter().chain(name).collect();
    }
    if let Some(uri) = get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        return vec![(AmazonS3ConfigKey::ContainerCredentialsRelativeUri, uri)];
    }
    if let (Some(uri), Some(file)) =
        (get("AWS_CONTAINER_CREDENTIALS_FULL_URI"), get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"))
    {
        return vec![
            (AmazonS3ConfigKey::ContainerCredentialsFullUri, uri),
            (AmazonS3ConfigKey::ContainerAuthorizationTokenFile, file),
        ];
    }
    let metadata = get("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    metadata.into_iter().map(|endpoint| (AmazonS3ConfigKey::MetadataEndpoint, endpoint)).collect()
}

fn domain(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}

fn retries(deadline: Duration) -> RetryConfig {
    let backoff = BackoffConfig { init_backoff: PAUSE_MIN, max_backoff: PAUSE_MAX, base: 2. };
    RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: deadline }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::endpoint::Endpoint;
    use crate::config::{Proxies, Secret, Tls};

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    const WEB: [(&str, &str); 2] = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"), ("AWS_ROLE_ARN", "arn")];
    const RELATIVE: (&str, &str) = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x");
    const FULL: [(&str, &str); 2] = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/pod-token"),
    ];
    const STATIC: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")];

    #[test]
    fn the_identity_is_the_webs_then_the_containers_then_the_machines_and_never_a_static_key() {
        use AmazonS3ConfigKey as Key;
        let keys = |sets: &[&[(&str, &str)]]| identity(&environment(&sets.concat()), "eu-west-1");
        let web = |sts: &str| {
            vec![
                (Key::WebIdentityTokenFile, "/token".to_owned()),
                (Key::RoleArn, "arn".to_owned()),
                (Key::StsEndpoint, sts.to_owned()),
            ]
        };
        assert_eq!(keys(&[&WEB, &[RELATIVE], &FULL, &STATIC]), web("https://sts.eu-west-1.amazonaws.com"));
        assert_eq!(keys(&[&WEB, &[("AWS_REGION", "cn-north-1")]]), web("https://sts.cn-north-1.amazonaws.com.cn"));
        assert_eq!(keys(&[&WEB, &[("AWS_ENDPOINT_URL_STS", "https://sts.local")]]), web("https://sts.local"));
        let named = keys(&[&WEB, &[("AWS_ROLE_SESSION_NAME", "kratix")]]);
        assert_eq!(named[3], (Key::RoleSessionName, "kratix".to_owned()));
        let relative = vec![(Key::ContainerCredentialsRelativeUri, "/v2/x".to_owned())];
        assert_eq!(keys(&[&[RELATIVE], &FULL, &STATIC]), relative);
        let full = vec![
            (Key::ContainerCredentialsFullUri, "http://169.254.170.23/v1".to_owned()),
            (Key::ContainerAuthorizationTokenFile, "/pod-token".to_owned()),
        ];
        assert_eq!(keys(&[&FULL, &STATIC]), full);
        assert_eq!(keys(&[&WEB[..1], &STATIC]), [], "a token without a role is no identity");
        let machine = keys(&[&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://[fd00:ec2::254]")]]);
        assert_eq!(machine, [(Key::MetadataEndpoint, "http://[fd00:ec2::254]".to_owned())]);
    }

    fn transport() -> Transport {
        Transport::new(&Tls::default(), &Proxies::default(), Duration::from_secs(1)).expect("usable")
    }

    #[test]
    fn each_service_takes_the_credentials_that_fit_and_never_shows_them() {
        let (transport, deadline) = (transport(), Duration::from_secs(1));
        let Ok(Endpoint::S3(address)) = Endpoint::parse("minio", "b", false, false) else { panic!() };
        let s3 = |auth: &BucketAuth| s3(&address, "b", "us-east-1", auth, &transport, deadline);
        let google = |auth: &BucketAuth| google("b", auth, &transport, deadline);
        let azure = |auth: &BucketAuth| azure("acme", None, "b", auth, &transport, deadline);
        let keys = |id: &str, secret: &str| BucketAuth::Keys { id: id.to_owned(), secret: Secret::new(secret) };
        let ambient = BucketAuth::Ambient(Environment::default());
        let account = BucketAuth::ServiceAccount(Secret::new("{\"private_key\": \"hunter2\"}"));

        assert!(s3(&keys("id", "secret")).is_ok() && s3(&ambient).is_ok());
        assert!(azure(&keys("", "c2VjcmV0")).is_ok() && azure(&ambient).is_ok());
        assert!(google(&ambient).is_ok());
        let refused = [
            s3(&keys("i\nd", "hunter2")),
            s3(&keys("", "hunter2")),
            s3(&account),
            google(&keys("id", "hunter2")),
            google(&account),
            azure(&account),
            azure(&keys("", "hunter2 is no base64")),
        ];
        for (index, opened) in refused.into_iter().enumerate() {
            let trouble = opened.expect_err(&index.to_string());
            assert!(matches!(trouble, Trouble::Config(_)), "{index}: {trouble}");
            assert!(!trouble.to_string().contains("hunter2"), "{index}: {trouble}");
        }
    }
}
