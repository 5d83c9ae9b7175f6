//! PromiseRevision: a record that Kratix keeps, of which users change metadata only.
//!
//! # Source
//! `01-api.md` §7.7, §9.3 (10, 11); `03-promises.md` §25 (35)

use std::collections::BTreeMap;

use kratix_api::{Promise, PromiseRevision, PromiseRevisionSpec, ResourceBinding, keys};
use kube_core::ResourceExt;

use super::question::list;
use super::{Allowed, Denial, Operation, Review, Ruling, Snapshot, interval, promise};
use crate::object::{Kind, ObjectKey};
use crate::promise_revision;
use crate::text::listed;

const WEBHOOK: &str = "vpromiserevision-v1alpha1.kb.io";
const GARBAGE_COLLECTOR: &str = "system:serviceaccount:kube-system:generic-garbage-collector";

pub(super) fn rule(snapshot: &Snapshot) -> Ruling<Allowed> {
    let review = &snapshot.review;
    if review.operation == Operation::Delete {
        return deletion(snapshot);
    }
    let revision: PromiseRevision = review.read(WEBHOOK)?;
    if review.is_about_spec() {
        if let Some(message) = promise::malformed(&revision.spec.promise_spec) {
            return Err(Denial::malformed(WEBHOOK, message).into());
        }
        check_immutable(review, &revision.spec)?;
    }
    interval::check_annotation(review, WEBHOOK)?;
    Ok(Allowed::default())
}

/// Tells whether Kratix asks, or the garbage collector on its behalf.
fn is_kratix(user: &str) -> bool {
    // With the colon: `kratix-platform-system-x` is somebody else's namespace.
    let account = user.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
    account.is_some_and(|(namespace, _)| namespace == keys::SYSTEM_NAMESPACE) || user == GARBAGE_COLLECTOR
}

/// Refuses to make another revision of it; only Kratix brings the content up to date.
fn check_immutable(review: &Review, now: &PromiseRevisionSpec) -> Result<(), Denial> {
    let Some(before) = review.read_old::<PromiseRevisionSpec>("/spec") else { return Ok(()) };
    let mut lines = Vec::new();
    let mut compare = |field: &str, now: &str, before: &str| {
        if now != before {
            lines.push(format!("* {field}: Invalid value: {now:?}: field is immutable"));
        }
    };
    compare("spec.promiseRef.name", &now.promise_ref.name, &before.promise_ref.name);
    compare("spec.version", &now.version, &before.version);
    if now.promise_spec != before.promise_spec && !is_kratix(&review.user) {
        let promise = &before.promise_ref.name;
        lines
            .push(format!("* spec.promiseSpec: Forbidden: it is a copy that Kratix keeps; change Promise {promise:?}"));
    }
    if lines.is_empty() {
        return Ok(());
    }
    let resource = Kind::of::<PromiseRevision>();
    let whose = format!("{}.{} {:?}", resource.plural, resource.group, review.name);
    Err(Denial::rule(WEBHOOK, format!("{whose} was not valid:\n{}", lines.join("\n"))))
}

fn deletion(snapshot: &Snapshot) -> Ruling<Allowed> {
    let review = &snapshot.review;
    if is_kratix(&review.user) {
        return Ok(Allowed::default());
    }
    let is_latest = review.old.pointer("/status/latest").and_then(serde_json::Value::as_bool) == Some(true);
    if is_latest {
        return Err(Denial::rule(WEBHOOK, "can not delete the latest PromiseRevision").into());
    }
    let Some(spec) = review.read_old::<PromiseRevisionSpec>("/spec") else { return Ok(Allowed::default()) };
    let revision = PromiseRevision { spec, ..PromiseRevision::default() };
    Ok(Allowed { warnings: losses(snapshot, &revision)?, ..Allowed::default() })
}

/// Tells what goes, or stops, with a revision.
fn losses(snapshot: &Snapshot, revision: &PromiseRevision) -> Ruling<Vec<String>> {
    let PromiseRevisionSpec { promise_ref, version, .. } = &revision.spec;
    let promise = &promise_ref.name;
    let labels = BTreeMap::from([(keys::PROMISE_NAME.to_owned(), promise.clone())]);
    snapshot.know([list::<ResourceBinding>(labels.clone()), list::<Promise>(BTreeMap::new())])?;
    // Who cannot be asked is not warned of; nothing is refused for it.
    let bindings: Vec<ResourceBinding> = snapshot.list(labels)?.unwrap_or_default();
    let promises: Vec<Promise> = snapshot.list(BTreeMap::new())?.unwrap_or_default();

    let mut warnings = Vec::new();
    let pinned = bindings.iter().filter_map(|binding| promise_revision::pinned(binding, revision));
    let mut pinned: Vec<String> = pinned.map(|request: ObjectKey| request.to_string()).collect();
    if !pinned.is_empty() {
        pinned.sort();
        let whose = format!("resource requests pinned to version {version:?} of Promise {promise:?}");
        warnings.push(format!("{whose} are deleted with this revision: {}", listed(&pinned)));
    }
    let requires = |candidate: &&Promise| {
        candidate
            .spec
            .required_promises
            .iter()
            .any(|required| required.name == *promise && required.version == *version)
    };
    let mut requirers: Vec<String> = promises.iter().filter(requires).map(ResourceExt::name_any).collect();
    if !requirers.is_empty() {
        requirers.sort();
        let what = format!("Promises that require version {version:?} of Promise {promise:?}");
        warnings.push(format!("{what} become unavailable: {}", listed(&requirers)));
    }
    Ok(warnings)
}
