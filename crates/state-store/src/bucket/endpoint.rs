//! Which server an endpoint means, and how a bucket is addressed there. Pure rules.

use std::path::PathBuf;

/// Hosts of Amazon that are no regional endpoint, and stay as they are.
const AMAZON_GLOBAL: [&str; 2] = ["s3.amazonaws.com", "s3-external-1.amazonaws.com"];
/// Where Amazon is asked for the location of a bucket.
const AMAZON: &str = "s3.amazonaws.com";
/// The region that servers expect which have none.
pub(super) const REGION_DEFAULT: &str = "us-east-1";

/// What an endpoint means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// A service that speaks the protocol of S3.
    S3(Address),
    /// Google Cloud Storage by its own protocol.
    Google,
    /// Azure Blob Storage.
    Azure {
        /// The storage account.
        account: String,
        /// The host, if it is not the public cloud's.
        host: Option<String>,
    },
    /// A directory of this machine.
    Directory(PathBuf),
}

/// Where a bucket is on a service that speaks the protocol of S3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    scheme: &'static str,
    /// Host and port as given.
    given: String,
    bucket: String,
    /// The bucket is part of the host's name.
    pub(super) is_virtual: bool,
    /// How the host's name follows from the region.
    host: Host,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    /// It stays as it is; the region is this one.
    Given { region: Option<String> },
    /// The regional endpoint of Amazon.
    Amazon {
        region: Option<String>,
        /// `amazonaws.com`, or `amazonaws.com.cn`.
        domain: &'static str,
        dual_stack: bool,
    },
}

impl Endpoint {
    /// Reads `text`; the error says what is wrong with it.
    pub(super) fn parse(text: &str, bucket: &str, plain_http: bool, dual_stack: bool) -> Result<Self, String> {
        check_bucket(bucket)?;
        if let Some(path) = text.strip_prefix("file://") {
            let is_usable = path.len() > 1 && path.starts_with('/') && !path.split('/').any(|segment| segment == "..");
            return match is_usable {
                true => Ok(Self::Directory(PathBuf::from(path.trim_end_matches('/')))),
                false => Err(format!("endpoint {text:?} names no absolute directory below the root")),
            };
        }
        if let Some(rest) = text.strip_prefix("gs://") {
            return match rest.trim_end_matches('/') {
                "" => Ok(Self::Google),
                _ => Err(format!("endpoint {text:?} must be gs:// without a name, the bucket has its own field")),
            };
        }
        if let Some(rest) = text.strip_prefix("az://") {
            let rest = rest.trim_end_matches('/');
            let (account, host) = match rest.split_once('.') {
                Some((account, _)) => (account, Some(rest.to_owned())),
                None => (rest, None),
            };
            let is_name = (3..=24).contains(&account.len()) && account.bytes().all(|b| b.is_ascii_alphanumeric());
            return match is_name && !rest.contains('/') {
                true => Ok(Self::Azure { account: account.to_owned(), host }),
                false => Err(format!("endpoint {text:?} names no storage account, as az://account does")),
            };
        }
        check_host(text)?;
        Ok(Self::S3(Address::new(text, bucket, plain_http, dual_stack)))
    }
}

impl Address {
    fn new(given: &str, bucket: &str, plain_http: bool, dual_stack: bool) -> Self {
        let name = host_name(given).to_ascii_lowercase();
        let host = match amazon(&name) {
            Some(Amazon::Regional { region, domain }) => Host::Amazon { region, domain, dual_stack },
            Some(Amazon::AsItIs { region }) => Host::Given { region },
            None => Host::Given { region: Some(REGION_DEFAULT.to_owned()) },
        };
        let is_service = amazon(&name).is_some() || name == "storage.googleapis.com" || name.ends_with(".aliyuncs.com");
        // No certificate of such a service covers two labels.
        let is_virtual = is_service && (plain_http || !bucket.contains('.'));
        let scheme = if plain_http { "http" } else { "https" };
        Self { scheme, given: given.to_owned(), bucket: bucket.to_owned(), is_virtual, host }
    }

    /// Returns the region that the endpoint tells, `None` if the bucket's location has to be asked for.
    pub(super) fn region(&self) -> Option<&str> {
        match &self.host {
            Host::Given { region } | Host::Amazon { region, .. } => region.as_deref(),
        }
    }

    /// Returns where the bucket is, for a bucket in `region`: with the bucket in the host's name if it is addressed like that,
    /// else the address of the service.
    pub(super) fn url(&self, region: &str) -> String {
        let host = match &self.host {
            Host::Given { .. } => self.given.clone(),
            Host::Amazon { domain, dual_stack: true, .. } => format!("s3.dualstack.{region}.{domain}"),
            Host::Amazon { domain, dual_stack: false, .. } => format!("s3.{region}.{domain}"),
        };
        match self.is_virtual {
            true => format!("{}://{}.{host}", self.scheme, self.bucket),
            false => format!("{}://{host}", self.scheme),
        }
    }

    /// Returns the address that tells where the bucket is, without credentials.
    pub(super) fn location_url(&self) -> String {
        format!("{}://{AMAZON}/{}", self.scheme, self.bucket)
    }

    /// Returns how messages name the bucket.
    pub(super) fn shown(&self) -> String {
        format!("{}://{}/{}", self.scheme, self.given, self.bucket)
    }
}

enum Amazon {
    Regional { region: Option<String>, domain: &'static str },
    AsItIs { region: Option<String> },
}

/// Recognises the hosts of Amazon.
fn amazon(host: &str) -> Option<Amazon> {
    if AMAZON_GLOBAL.contains(&host) {
        return Some(Amazon::Regional { region: None, domain: "amazonaws.com" });
    }
    let (rest, domain) = match host.strip_suffix(".amazonaws.com.cn") {
        Some(rest) => (rest, "amazonaws.com.cn"),
        None => (host.strip_suffix(".amazonaws.com")?, "amazonaws.com"),
    };
    // Of a private link: bucket.vpce-1a2b-5e6f.s3.eu-west-1.vpce
    if let Some(rest) = rest.strip_suffix(".vpce") {
        let (_, region) = rest.rsplit_once(".s3.")?;
        return Some(Amazon::AsItIs { region: Some(region.to_owned()) });
    }
    if rest.starts_with("s3-accelerate") {
        return Some(Amazon::AsItIs { region: None });
    }
    if let Some(rest) = rest.strip_prefix("s3-fips") {
        let region = rest.trim_start_matches(['.', '-']).trim_start_matches("dualstack.");
        return is_region(region).then(|| Amazon::AsItIs { region: Some(region.to_owned()) });
    }
    let rest = rest.strip_prefix("s3.").or_else(|| rest.strip_prefix("s3-"))?;
    let region = rest.strip_prefix("dualstack.").unwrap_or(rest);
    is_region(region).then(|| Amazon::Regional { region: Some(region.to_owned()), domain })
}

fn is_region(text: &str) -> bool {
    let is_name = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    is_name && text.split('-').count() >= 3
}

/// Returns a host without its port.
fn host_name(given: &str) -> &str {
    match given.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => given,
    }
}

fn check_host(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("the endpoint is empty".to_owned());
    }
    if text.contains("://") || text.contains(['/', '?', '#']) {
        let shown = shown(text);
        return Err(format!("endpoint {shown:?} must be host[:port], without scheme and path"));
    }
    let is_authority = text.parse::<http::uri::Authority>().is_ok_and(|authority| !authority.host().is_empty());
    match is_authority && !text.contains('@') {
        true => Ok(()),
        false => Err(format!("endpoint {:?} must be host[:port]", shown(text))),
    }
}

/// Leaves out what could be a password.
fn shown(text: &str) -> &str {
    text.rsplit_once('@').map_or(text, |(_, rest)| rest)
}

/// A bucket's name becomes part of a host's name, of a path, or of a directory's.
fn check_bucket(bucket: &str) -> Result<(), String> {
    let is_usable = !bucket.is_empty()
        && bucket.len() <= 255
        && bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !bucket.starts_with('.')
        && !bucket.contains("..");
    match is_usable {
        true => Ok(()),
        false => Err(format!("{bucket:?} cannot be the name of a bucket")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(endpoint: &str, bucket: &str, plain_http: bool, dual_stack: bool) -> Address {
        match Endpoint::parse(endpoint, bucket, plain_http, dual_stack) {
            Ok(Endpoint::S3(address)) => address,
            other => panic!("{endpoint}: {other:?}"),
        }
    }

    /// §14.28
    #[test]
    fn a_bucket_is_addressed_as_its_service_wants_it() {
        for (endpoint, bucket, dual_stack, region, url) in [
            ("s3.amazonaws.com", "b", false, None, "https://b.s3.eu-north-1.amazonaws.com"),
            ("s3.amazonaws.com", "b", true, None, "https://b.s3.dualstack.eu-north-1.amazonaws.com"),
            ("S3.Amazonaws.com", "b", false, None, "https://b.s3.eu-north-1.amazonaws.com"),
            ("s3-external-1.amazonaws.com", "b", false, None, "https://b.s3.eu-north-1.amazonaws.com"),
            ("s3.eu-west-1.amazonaws.com", "b", false, Some("eu-west-1"), "https://b.s3.eu-west-1.amazonaws.com"),
            (
                "s3.eu-west-1.amazonaws.com",
                "b",
                true,
                Some("eu-west-1"),
                "https://b.s3.dualstack.eu-west-1.amazonaws.com",
            ),
            ("s3-eu-west-1.amazonaws.com", "b", false, Some("eu-west-1"), "https://b.s3.eu-west-1.amazonaws.com"),
            (
                "s3.dualstack.eu-west-1.amazonaws.com",
                "b",
                false,
                Some("eu-west-1"),
                "https://b.s3.eu-west-1.amazonaws.com",
            ),
            (
                "s3.cn-north-1.amazonaws.com.cn",
                "b",
                false,
                Some("cn-north-1"),
                "https://b.s3.cn-north-1.amazonaws.com.cn",
            ),
            ("s3.eu-west-1.amazonaws.com", "a.b", false, Some("eu-west-1"), "https://s3.eu-west-1.amazonaws.com"),
            // Left alone, with and without dual stack.
            (
                "s3-fips.us-gov-west-1.amazonaws.com",
                "b",
                true,
                Some("us-gov-west-1"),
                "https://b.s3-fips.us-gov-west-1.amazonaws.com",
            ),
            (
                "s3-fips.dualstack.us-east-1.amazonaws.com",
                "b",
                true,
                Some("us-east-1"),
                "https://b.s3-fips.dualstack.us-east-1.amazonaws.com",
            ),
            (
                "bucket.vpce-1a2b3c4d-5e6f.s3.us-east-1.vpce.amazonaws.com",
                "b",
                true,
                Some("us-east-1"),
                "https://b.bucket.vpce-1a2b3c4d-5e6f.s3.us-east-1.vpce.amazonaws.com",
            ),
            ("s3-accelerate.amazonaws.com", "b", false, None, "https://b.s3-accelerate.amazonaws.com"),
            ("storage.googleapis.com", "b", false, Some("us-east-1"), "https://b.storage.googleapis.com"),
            ("storage.googleapis.com", "a.b", false, Some("us-east-1"), "https://storage.googleapis.com"),
            ("oss-cn-hangzhou.aliyuncs.com", "b", false, Some("us-east-1"), "https://b.oss-cn-hangzhou.aliyuncs.com"),
            // Everybody else.
            (
                "minio.kratix-platform-system.svc",
                "b",
                true,
                Some("us-east-1"),
                "https://minio.kratix-platform-system.svc",
            ),
            ("10.0.0.1:9000", "b", false, Some("us-east-1"), "https://10.0.0.1:9000"),
            ("[::1]:9000", "b", false, Some("us-east-1"), "https://[::1]:9000"),
            ("s3.amazonaws.com.example.org", "b", false, Some("us-east-1"), "https://s3.amazonaws.com.example.org"),
            ("s3.example.amazonaws.com", "b", false, Some("us-east-1"), "https://s3.example.amazonaws.com"),
        ] {
            let address = address(endpoint, bucket, false, dual_stack);
            assert_eq!(address.region(), region, "{endpoint}");
            assert_eq!(address.url(region.unwrap_or("eu-north-1")), url, "{endpoint}");
        }
    }

    #[test]
    fn plain_http_is_what_insecure_means_and_allows_dots_in_host_names() {
        let address = address("s3.eu-west-1.amazonaws.com", "a.b", true, false);
        assert_eq!(address.url("eu-west-1"), "http://a.b.s3.eu-west-1.amazonaws.com");
        assert_eq!(self::address("minio:9000", "b", true, false).url("x"), "http://minio:9000");
        assert_eq!(self::address("minio:9000", "b", true, false).shown(), "http://minio:9000/b");
    }

    #[test]
    fn other_kinds_of_stores_are_named_by_a_scheme() {
        let parse = |text: &str| Endpoint::parse(text, "b", false, false);
        assert_eq!(parse("gs://"), Ok(Endpoint::Google));
        assert_eq!(parse("az://acme1"), Ok(Endpoint::Azure { account: "acme1".into(), host: None }));
        let host = Some("acme1.blob.core.chinacloudapi.cn".to_owned());
        assert_eq!(
            parse("az://acme1.blob.core.chinacloudapi.cn"),
            Ok(Endpoint::Azure { account: "acme1".into(), host })
        );
        assert_eq!(parse("file:///srv/state/"), Ok(Endpoint::Directory("/srv/state".into())));
    }

    #[test]
    fn an_endpoint_that_cannot_be_meant_is_refused_with_what_it_has_to_be() {
        for (endpoint, text) in [
            ("", "the endpoint is empty"),
            ("https://minio:9000", "must be host[:port], without scheme and path"),
            ("http://user:secret@minio", "must be host[:port], without scheme and path"),
            ("minio:9000/x", "must be host[:port], without scheme and path"),
            ("user:secret@minio", "endpoint \"minio\" must be host[:port]"),
            ("mi nio", "must be host[:port]"),
            (":9000", "must be host[:port]"),
            ("gs://bucket", "must be gs:// without a name"),
            ("az://", "names no storage account"),
            ("az://a/b", "names no storage account"),
            ("file://", "names no absolute directory"),
            ("file:///", "names no absolute directory"),
            ("file://x", "names no absolute directory"),
            ("file:///a/../b", "names no absolute directory"),
        ] {
            let error = Endpoint::parse(endpoint, "b", false, false).expect_err(endpoint);
            assert!(error.contains(text), "{endpoint}: {error}");
            assert!(!error.contains("secret"), "{endpoint}: {error}");
        }
        for bucket in ["", "a/b", "..", ".a", "a..b", "a b", "a?b"] {
            assert!(Endpoint::parse("minio", bucket, false, false).is_err(), "{bucket}");
        }
    }
}
