//! Objects that pods refer to: ConfigMaps, Secrets, and tokens of service accounts.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, Client};

/// Longest wait for one answer of the API server.
pub(crate) const CALL: Duration = Duration::from_secs(30);

/// Why something a pod refers to cannot be had; the texts are those of a kubelet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{kind} {name:?} not found")]
    Missing { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey { kind: &'static str, namespace: String, name: String, key: String },
    #[error("failed to fetch token: {message}")]
    Token { message: String },
    #[error("failed to read {kind} {name:?}: {message}")]
    Api { kind: &'static str, name: String, message: String },
}

/// Reads objects. Nothing is kept: what a pod gets is what there is when it is set up.
pub(crate) struct Objects {
    client: Client,
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    /// When it should be replaced.
    pub(crate) renew_at: Timestamp,
}

impl Objects {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Reads a ConfigMap as bytes by key; `None` if there is none.
    pub(crate) async fn config_map(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<BTreeMap<String, Vec<u8>>>, Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let found = timed(api.get_opt(name)).await.map_err(|message| Error::Api {
            kind: "configmap",
            name: name.into(),
            message,
        })?;
        Ok(found.map(|map| {
            let text = map.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
            text.chain(map.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0))).collect()
        }))
    }

    /// Reads a Secret as bytes by key; `None` if there is none.
    pub(crate) async fn secret(&self, namespace: &str, name: &str) -> Result<Option<BTreeMap<String, Vec<u8>>>, Error> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let found = timed(api.get_opt(name)).await.map_err(|message| Error::Api {
            kind: "secret",
            name: name.into(),
            message,
        })?;
        Ok(found.map(|secret| {
            let text = secret.string_data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
            text.chain(secret.data.into_iter().flatten().map(|(key, value)| (key, value.0))).collect()
        }))
    }

    /// Asks for a token of a service account for one pod; it dies with the pod, and with the account as it is now.
    pub(crate) async fn token(
        &self,
        pod: &Pod,
        account: &str,
        audience: Option<&str>,
        seconds: i64,
    ) -> Result<Token, Error> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let bound = BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
        };
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: audience.map(|audience| vec![audience.to_owned()]).unwrap_or_default(),
                expiration_seconds: Some(seconds),
                bound_object_ref: Some(bound),
            },
            ..TokenRequest::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let parameters = PostParams::default();
        let answer = timed(api.create_subresource::<_, TokenRequest>("token", account, &parameters, &request)).await;
        let status = answer.map_err(|message| Error::Token { message })?.status;
        let status = status.ok_or_else(|| Error::Token { message: "the answer has no token".into() })?;
        let now = Timestamp::now();
        let life = status.expiration_timestamp.0.duration_since(now).max(SignedDuration::ZERO);
        Ok(Token { text: status.token, renew_at: now.saturating_add(life * 4 / 5).unwrap_or(now) })
    }
}

/// Bounds a call in time and keeps only the message of its failure.
async fn timed<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(CALL, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(status.message.clone()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", CALL.as_secs())),
    }
}
