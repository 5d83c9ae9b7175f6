//! BucketStateStore and GitStateStore: what their specs alone tell.
//!
//! A bucket without its Secret is refused. Nothing of a Git store is: what is odd about it is a warning, because it may be
//! meant (a public repository), and the store says on its status what does not work.
//!
//! # Source
//! `01-api.md` §7.6, §9.3.9

use kratix_api::keys::MAXIMUM_PUSHES_PER_MINUTE;
use kratix_api::state_store::BucketAuthMethod;
use kratix_api::{BucketStateStore, GitStateStore, SecretRef};

use super::{Allowed, Denial, Operation, Ruling, Snapshot};
use crate::state_store::{git_complaints, push_limit};

const BUCKET: &str = "vbucketstatestore-v1alpha1.kb.io";
const GIT: &str = "vgitstatestore-v1alpha1.kb.io";

pub(super) fn rule_bucket(snapshot: &Snapshot) -> Ruling<Allowed> {
    let review = &snapshot.review;
    if review.operation == Operation::Delete || !review.is_about_spec() {
        return Ok(Allowed::default());
    }
    let store: BucketStateStore = review.read(BUCKET)?;
    if store.spec.auth_method != BucketAuthMethod::AccessKey {
        return Ok(Allowed::default());
    }
    let complaint = match &store.spec.secret_ref {
        None => "spec.secretRef must be set when using authentication method accessKey",
        Some(SecretRef { name, .. }) if name.is_empty() => "spec.secretRef must contain secret name",
        Some(SecretRef { namespace, .. }) if namespace.is_empty() => "spec.secretRef must contain secret namespace",
        Some(_) => return Ok(Allowed::default()),
    };
    Err(Denial::rule(BUCKET, complaint).into())
}

pub(super) fn rule_git(snapshot: &Snapshot) -> Ruling<Allowed> {
    let review = &snapshot.review;
    if review.operation == Operation::Delete {
        return Ok(Allowed::default());
    }
    let mut complaints = Vec::new();
    if review.is_about_spec() {
        let store: GitStateStore = review.read(GIT)?;
        complaints = git_complaints(&store.spec);
    }
    let limit = review.news("annotations", MAXIMUM_PUSHES_PER_MINUTE);
    complaints.extend(limit.and_then(|value| push_limit::parse(value).err()));
    Ok(Allowed { warnings: complaints, ..Allowed::default() })
}
