//! Bearer tokens: JWTs signed with a key of this server, kept in its store.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jiff::Timestamp;
use ring::hmac;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::store::{ObjectName, Store};
use crate::user::User;

pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Signs and checks tokens.
pub(crate) struct Tokens {
    key: hmac::Key,
}

/// What a service account token is tied to: it dies with it.
#[derive(Clone, Debug)]
pub(crate) struct Bound<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) account: &'a str,
    pub(crate) account_uid: &'a str,
    /// Kind, name and uid of a Pod or Secret.
    pub(crate) object: Option<(&'a str, &'a str, &'a str)>,
    pub(crate) audiences: Vec<String>,
}

/// Why a token does not say who its bearer is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("invalid bearer token")]
    Invalid,
    #[error("token audiences {issued_for:?} is invalid for the target audiences {wanted:?}")]
    Audience { issued_for: Vec<String>, wanted: Vec<String> },
}

impl Tokens {
    pub(crate) fn new(secret: &[u8]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    /// Returns the token that says who its bearer is and never expires: always the same one for the same user, name and
    /// groups, so that a start that asks for it again leaves no further credential behind.
    pub(crate) fn for_user(&self, user: &User) -> String {
        let identity = json!({"name": user.name, "groups": user.groups}).to_string();
        let id = BASE64.encode(hmac::sign(&self.key, identity.as_bytes()));
        self.sign(&json!({"iss": ISSUER, "sub": user.name, "groups": user.groups, "jti": id}))
    }

    /// Returns a token of a service account.
    pub(crate) fn for_account(&self, bound: &Bound<'_>, now: Timestamp, seconds: i64) -> String {
        let mut private = json!({
            "namespace": bound.namespace, "serviceaccount": {"name": bound.account, "uid": bound.account_uid},
        });
        if let Some((kind, name, uid)) = bound.object {
            private[kind.to_lowercase()] = json!({"name": name, "uid": uid});
        }
        self.sign(&json!({
            "iss": ISSUER, "sub": format!("system:serviceaccount:{}:{}", bound.namespace, bound.account),
            "aud": bound.audiences, "iat": now.as_second(), "nbf": now.as_second(), "exp": now.as_second() + seconds,
            "jti": Uuid::new_v4().to_string(), "kubernetes.io": private,
        }))
    }

    fn sign(&self, claims: &Value) -> String {
        let header = BASE64.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let payload = format!("{header}.{}", BASE64.encode(claims.to_string()));
        let signature = BASE64.encode(hmac::sign(&self.key, payload.as_bytes()));
        format!("{payload}.{signature}")
    }

    /// Returns the bearer of a token and for which of `audiences` it was issued, unless it is forged, has expired, is
    /// meant for others, or what it is bound to is gone.
    pub(crate) fn check(
        &self,
        store: &Store,
        token: &str,
        audiences: &[&str],
        now: Timestamp,
    ) -> Result<(User, Vec<String>), Refused> {
        let (user, issued_for) = self.bearer(store, token, now).ok_or(Refused::Invalid)?;
        let shared: Vec<String> = audiences
            .iter()
            .filter(|one| issued_for.iter().any(|own| own == *one))
            .map(|&one| one.to_owned())
            .collect();
        if shared.is_empty() {
            let wanted = audiences.iter().map(|&one| one.to_owned()).collect();
            return Err(Refused::Audience { issued_for, wanted });
        }
        Ok((user, shared))
    }

    /// Returns the bearer and the audiences of a token.
    fn bearer(&self, store: &Store, token: &str, now: Timestamp) -> Option<(User, Vec<String>)> {
        let (payload, signature) = token.rsplit_once('.')?;
        hmac::verify(&self.key, payload.as_bytes(), &BASE64.decode(signature).ok()?).ok()?;
        let claims: Value = serde_json::from_slice(&BASE64.decode(payload.split_once('.')?.1).ok()?).ok()?;
        if claims["exp"].as_i64().is_some_and(|end| end <= now.as_second()) {
            return None;
        }
        let audiences = match claims["aud"].as_array() {
            Some(list) => list.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect(),
            None => vec![ISSUER.to_owned()],
        };
        let private = &claims["kubernetes.io"];
        if private.is_null() {
            let groups = claims["groups"].as_array().into_iter().flatten().filter_map(Value::as_str);
            return Some((User::new(claims["sub"].as_str()?, groups), audiences));
        }
        let namespace = private["namespace"].as_str()?;
        let lives = |table: &str, bound: &Value| {
            let name = ObjectName::new(namespace, bound["name"].as_str()?);
            let record = store.get(table, &name)?;
            (Some(record.uid()) == bound["uid"].as_str()).then(|| name.name.to_string())
        };
        let account = lives("/serviceaccounts", &private["serviceaccount"])?;
        let mut user = User::service_account(namespace, &account);
        user.uid = private["serviceaccount"]["uid"].as_str().unwrap_or_default().to_owned();
        for (key, table) in [("pod", "/pods"), ("secret", "/secrets")] {
            if let Some(bound) = private.get(key) {
                let name = lives(table, bound)?;
                if key == "pod" {
                    let uid = bound["uid"].as_str().unwrap_or_default().to_owned();
                    user.extra.insert("authentication.kubernetes.io/pod-name".into(), vec![name]);
                    user.extra.insert("authentication.kubernetes.io/pod-uid".into(), vec![uid]);
                }
            }
        }
        Some((user, audiences))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Draft, Expect, Write};

    fn who(tokens: &Tokens, store: &Store, token: &str, now: Timestamp) -> Option<String> {
        tokens.check(store, token, &[ISSUER], now).ok().map(|(user, _)| user.name)
    }

    #[test]
    fn a_token_names_its_bearer_and_a_forged_one_nobody() {
        let (store, now) = (Store::memory(), Timestamp::now());
        let tokens = Tokens::new(b"key");
        let token = tokens.for_user(&User::new("ann", ["dev"]));
        assert_eq!(who(&tokens, &store, &token, now), Some("ann".into()));
        assert_eq!(who(&Tokens::new(b"other"), &store, &token, now), None);
        assert_eq!(who(&tokens, &store, &token[..token.len() - 2], now), None);
    }

    async fn account(store: &Store) {
        let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "b", "uid": "1"}});
        let write = Write {
            table: "/serviceaccounts".into(),
            name: ObjectName::new("a", "b"),
            expect: Expect::Absent,
            draft: Some(Draft::encode(&object, 0)),
            homes: Vec::new(),
        };
        store.write(write).await.unwrap();
    }

    fn bound(audiences: &[&str]) -> Bound<'static> {
        let audiences = audiences.iter().map(|&one| one.to_owned()).collect();
        Bound { namespace: "a", account: "b", account_uid: "1", object: None, audiences }
    }

    #[tokio::test]
    async fn a_token_ends_with_its_time() {
        let (store, now) = (Store::memory(), Timestamp::now());
        let tokens = Tokens::new(b"key");
        account(&store).await;
        let token = tokens.for_account(&bound(&[ISSUER]), now, 600);
        let at = |seconds: i64| Timestamp::from_second(now.as_second() + seconds).unwrap();
        assert_eq!(who(&tokens, &store, &token, at(599)), Some("system:serviceaccount:a:b".into()));
        assert_eq!(who(&tokens, &store, &token, at(600)), None);
    }

    #[tokio::test]
    async fn a_token_is_meant_for_its_audiences() {
        let (store, now) = (Store::memory(), Timestamp::now());
        let tokens = Tokens::new(b"key");
        account(&store).await;
        let token = tokens.for_account(&bound(&["vault", "bank"]), now, 600);
        assert_eq!(who(&tokens, &store, &token, now), None);
        let shared = tokens.check(&store, &token, &["shop", "bank"], now).map(|(_, shared)| shared);
        assert_eq!(shared, Ok(vec!["bank".to_owned()]));
    }

    #[test]
    fn a_token_dies_with_its_account() {
        let (store, now) = (Store::memory(), Timestamp::now());
        let tokens = Tokens::new(b"key");
        assert_eq!(who(&tokens, &store, &tokens.for_account(&bound(&[ISSUER]), now, 600), now), None);
    }
}
