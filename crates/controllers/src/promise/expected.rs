//! Objects that a pass has made and the caches may not show yet: a pass without them would make them again and tell it twice.

use std::collections::HashMap;
use std::time::Duration;

use kratix_core::object::{Kind, ObjectKey};
use kratix_core::plan::{Plan, Write};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::caches::Caches;

/// How long a pass waits at most: an object that was removed at once never arrives.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// What each Promise's last pass has made.
#[derive(Default)]
pub(super) struct Expected {
    made: Mutex<HashMap<ObjectKey, (Instant, Vec<(Kind, ObjectKey)>)>>,
}

impl Expected {
    /// Remembers what a plan makes.
    pub(super) fn note<F>(&self, promise: &ObjectKey, plan: &Plan<F>) {
        let made = plan.writes.iter().filter_map(|write| match write {
            Write::Create { kind, key, .. } => Some((kind.clone(), key.clone())),
            _ => None,
        });
        let made: Vec<_> = made.collect();
        if !made.is_empty() {
            self.made.lock().insert(promise.clone(), (Instant::now(), made));
        }
    }

    /// Returns how long to wait at most for what was made, if something is still missing. The watch event of what is
    /// missing brings the Promise back earlier.
    pub(super) fn awaits(&self, promise: &ObjectKey, caches: &Caches) -> Option<Duration> {
        let mut all = self.made.lock();
        let (since, made) = all.get_mut(promise)?;
        let left = WAIT_MAX.saturating_sub(since.elapsed());
        made.retain(|(kind, key)| !is_seen(caches, kind, key));
        if made.is_empty() || left.is_zero() {
            all.remove(promise);
            return None;
        }
        // Not every kind has a watch that leads here: a short look in between.
        Some(left.min(Duration::from_millis(20)))
    }

    pub(super) fn forget(&self, promise: &ObjectKey) {
        self.made.lock().remove(promise);
    }
}

fn is_seen(caches: &Caches, kind: &Kind, key: &ObjectKey) -> bool {
    match kind.kind.as_str() {
        "PromiseRevision" => caches.revisions.get(key).is_some(),
        "CustomResourceDefinition" => caches.crds.get(key).is_some(),
        "Work" => caches.works.get(key).is_some(),
        "Job" => caches.jobs.get(key).is_some(),
        "ServiceAccount" => caches.service_accounts.get(key).is_some(),
        "ConfigMap" => caches.config_maps.get(key).is_some(),
        "Role" => caches.roles.get(key).is_some(),
        "RoleBinding" => caches.role_bindings.get(key).is_some(),
        "ClusterRole" => caches.cluster_roles.get(key).is_some(),
        "ClusterRoleBinding" => caches.cluster_role_bindings.get(key).is_some(),
        _ => true,
    }
}
