//! PromiseRelease: whether what it points at can be fetched and installed.
//!
//! A failure that goes away by itself is a warning: fetching again is for whoever installs. Everything else refuses the
//! release, for somebody must change it or what it points at.
//!
//! # Source
//! `01-api.md` §7.4, §9.3 (1, 2, 4)

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kratix_api::{PromiseRelease, SecretRef, keys};
use kube_core::ResourceExt;
use serde_json::json;

use super::{Allowed, Denial, Operation, Question, Refusal, Ruling, Snapshot, source};
use crate::object::ObjectKey;

const WEBHOOK: &str = "vpromiserelease.kb.io";

pub(super) fn rule(snapshot: &Snapshot) -> Ruling<Allowed> {
    let review = &snapshot.review;
    if review.operation == Operation::Delete || !review.is_about_spec() {
        return Ok(Allowed::default());
    }
    let release: PromiseRelease = review.read(WEBHOOK)?;
    let source = &release.spec.source_ref;
    if source.url.is_empty() {
        return Err(Denial::rule(WEBHOOK, "sourceRef.url must be set").into());
    }
    if let Some(reference) = &source.secret_ref {
        check_reference(reference)?;
    }
    if review.operation == Operation::Update {
        return Ok(Allowed::default());
    }
    let secret = match &source.secret_ref {
        Some(reference) => secret(snapshot, reference)?,
        None => BTreeMap::new(),
    };
    let answer = snapshot.ask(Question::Download(source::download(&source.url, &secret)))?;
    let warning = match source::read(answer) {
        Ok(promise) => version_warning(promise.labels().get(keys::PROMISE_VERSION), &release.spec.version),
        Err(error) if error.is_passing() => {
            Some(format!("Warning: failed to fetch promise: {error}, installation has to wait until it can be fetched"))
        }
        Err(error) => return Err(Denial::rule(WEBHOOK, format!("failed to fetch promise: {error}")).into()),
    };
    Ok(Allowed { warnings: warning.into_iter().collect(), ..Allowed::default() })
}

/// A release has no namespace that a Secret could be looked for in.
fn check_reference(reference: &SecretRef) -> Result<(), Denial> {
    let missing = match reference {
        SecretRef { name, .. } if name.is_empty() => "name",
        SecretRef { namespace, .. } if namespace.is_empty() => "namespace",
        _ => return Ok(()),
    };
    Err(Denial::rule(WEBHOOK, format!("spec.sourceRef.secretRef must contain secret {missing}")))
}

fn secret(snapshot: &Snapshot, reference: &SecretRef) -> Ruling<BTreeMap<String, Vec<u8>>> {
    let context = "failed to fetch data from secretRef";
    let key = ObjectKey::namespaced(&reference.namespace, &reference.name);
    match snapshot.get::<Secret>(key)? {
        Ok(secret) => Ok(secret.data.into_iter().flatten().map(|(key, value)| (key, value.0)).collect()),
        Err(refusal) if refusal.is_not_found() => {
            let message = format!("Secret {:?} not found", reference.name);
            let details = json!({ "name": reference.name, "kind": "Secret" });
            let refusal = Refusal { message, details, ..refusal };
            Err(Denial::refused(WEBHOOK, context, &refusal).into())
        }
        Err(refusal) => Err(Denial::refused(WEBHOOK, context, &refusal).into()),
    }
}

fn version_warning(found: Option<&String>, expected: &str) -> Option<String> {
    let fails = "installation will fail";
    match found.map(String::as_str).filter(|found| !found.is_empty()) {
        None => Some(format!("Warning: version label ({}) not found on promise, {fails}", keys::PROMISE_VERSION)),
        // An empty version is filled in from the Promise.
        Some(found) if expected.is_empty() || found == expected => None,
        Some(found) => {
            Some(format!("Warning: version labels do not match, found: {found}, expected: {expected}, {fails}"))
        }
    }
}
