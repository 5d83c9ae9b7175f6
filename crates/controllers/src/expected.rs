//! Objects that a pass has made and the caches may not show yet: a pass without them would make them again and tell it
//! twice.

use std::collections::HashMap;
use std::time::Duration;

use kratix_core::object::{Kind, ObjectKey};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::caches::Caches;
use crate::error::Error;

/// How long a pass waits at most: an object that was removed at once never arrives.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// A short look in between: not every kind has a watch that leads back to the object.
const LOOK: Duration = Duration::from_millis(20);

/// When a pass was, and what it made.
type Made = (Instant, Vec<(Kind, ObjectKey)>);

/// What the last pass over each object has made.
#[derive(Default)]
pub(crate) struct Expected {
    made: Mutex<HashMap<ObjectKey, Made>>,
}

impl Expected {
    /// Remembers what a pass made; see [`crate::act::Acted`].
    pub(crate) fn note(&self, object: &ObjectKey, made: Vec<(Kind, ObjectKey)>) {
        if !made.is_empty() {
            self.made.lock().insert(object.clone(), (Instant::now(), made));
        }
    }

    /// Waits until what was made is in the caches.
    ///
    /// # Errors
    /// [`Error::Unseen`] while something is missing, for a few seconds at most.
    pub(crate) fn arrived(&self, object: &ObjectKey, caches: &Caches) -> Result<(), Error> {
        let mut all = self.made.lock();
        let Some((since, made)) = all.get_mut(object) else { return Ok(()) };
        let left = WAIT_MAX.saturating_sub(since.elapsed());
        made.retain(|(kind, key)| !is_seen(caches, kind, key));
        if made.is_empty() || left.is_zero() {
            all.remove(object);
            return Ok(());
        }
        Err(Error::Unseen { after: left.min(LOOK) })
    }

    pub(crate) fn forget(&self, object: &ObjectKey) {
        self.made.lock().remove(object);
    }
}

fn is_seen(caches: &Caches, kind: &Kind, key: &ObjectKey) -> bool {
    match kind.kind.as_str() {
        "PromiseRevision" => caches.revisions.get(key).is_some(),
        "CustomResourceDefinition" => caches.crds.get(key).is_some(),
        "ResourceBinding" => caches.bindings.get(key).is_some(),
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
