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

impl Tokens {
    pub(crate) fn new(secret: &[u8]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    /// Returns a token that says who its bearer is and never expires.
    pub(crate) fn for_user(&self, user: &User) -> String {
        self.sign(&json!({"iss": ISSUER, "sub": user.name, "groups": user.groups, "jti": Uuid::new_v4().to_string()}))
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

    /// Returns the bearer of a token, unless it is forged, has expired, or what it is bound to is gone.
    pub(crate) fn check(&self, store: &Store, token: &str, now: Timestamp) -> Option<User> {
        let (payload, signature) = token.rsplit_once('.')?;
        hmac::verify(&self.key, payload.as_bytes(), &BASE64.decode(signature).ok()?).ok()?;
        let claims: Value = serde_json::from_slice(&BASE64.decode(payload.split_once('.')?.1).ok()?).ok()?;
        if claims["exp"].as_i64().is_some_and(|end| end <= now.as_second()) {
            return None;
        }
        let private = &claims["kubernetes.io"];
        if private.is_null() {
            let groups = claims["groups"].as_array().into_iter().flatten().filter_map(Value::as_str);
            return Some(User::new(claims["sub"].as_str()?, groups));
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
        Some(user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_bearer_and_a_forged_one_nobody() {
        let (store, now) = (Store::memory(), Timestamp::now());
        let tokens = Tokens::new(b"key");
        let token = tokens.for_user(&User::new("ann", ["dev"]));
        assert_eq!(tokens.check(&store, &token, now).map(|user| user.name), Some("ann".into()));
        assert_eq!(Tokens::new(b"other").check(&store, &token, now), None);
        assert_eq!(tokens.check(&store, &token[..token.len() - 2], now), None);
    }

    #[test]
    fn a_token_dies_with_its_account() {
        let (store, now) = (Store::memory(), Timestamp::now());
        let tokens = Tokens::new(b"key");
        let bound =
            Bound { namespace: "a", account: "b", account_uid: "1", object: None, audiences: vec![ISSUER.into()] };
        assert_eq!(tokens.check(&store, &tokens.for_account(&bound, now, 600), now), None);
    }
}
