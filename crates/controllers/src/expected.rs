//! Objects that a pass has made and the caches may not show yet: a pass without them would make them again and tell it
//! twice, and a request would get a second Destination if another one has appeared meanwhile.

use std::collections::HashMap;
use std::time::Duration;

use kratix_core::object::{Kind, ObjectKey};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::act;
use crate::caches::{self, Caches};
use crate::context::Context;
use crate::error::Error;

/// How late a cache may be before the API server is asked whether the object exists at all: it may have been removed at
/// once, or never been made because only the reply to its creation was lost.
const LATE: Duration = Duration::from_secs(1);

/// A short look in between: not every kind has a watch that leads back to the object.
const LOOK: Duration = Duration::from_millis(20);

/// When a pass was or the API server was asked last, and what is missing.
type Made = (Instant, Vec<(Kind, ObjectKey)>);

/// What the last pass over each object has made.
pub(crate) struct Expected {
    made: Mutex<HashMap<ObjectKey, Made>>,
    late: Duration,
}

impl Default for Expected {
    fn default() -> Self {
        Self { made: Mutex::default(), late: LATE }
    }
}

impl Expected {
    /// Remembers what a pass made; see [`crate::act::Acted`].
    pub(crate) fn note(&self, object: &ObjectKey, made: Vec<(Kind, ObjectKey)>) {
        if !made.is_empty() {
            self.made.lock().insert(object.clone(), (Instant::now(), made));
        }
    }

    /// Makes sure that what was made and still exists is in the caches.
    ///
    /// # Errors
    /// [`Error::Unseen`] while something is on its way; a failed read if the API server could not be asked.
    pub(crate) async fn arrived(&self, object: &ObjectKey, cx: &Context) -> Result<(), Error> {
        let Some(missing) = self.missing(object, &cx.caches)? else { return Ok(()) };
        let mut awaited = Vec::new();
        for (kind, key) in missing {
            let api = act::api(&cx.platform, &kind, key.namespace.as_deref());
            let read = api.get_opt(&key.name).await;
            let existing = read.map_err(|error| Error::read(format!("{} {key}", kind.kind), error))?;
            if existing.is_some_and(|existing| caches::selects(&kind.kind, &existing)) {
                awaited.push((kind, key));
            }
        }
        self.forget(object);
        self.note(object, awaited);
        match self.missing(object, &cx.caches)? {
            Some(_) => Err(Error::Unseen { after: LOOK }),
            None => Ok(()),
        }
    }

    /// Tells whether the last pass over an object has made another one that was not in the caches yet.
    pub(crate) fn awaits(&self, object: &ObjectKey, made: &ObjectKey) -> bool {
        self.made.lock().get(object).is_some_and(|(_, all)| all.iter().any(|(_, key)| key == made))
    }

    pub(crate) fn forget(&self, object: &ObjectKey) {
        self.made.lock().remove(object);
    }

    /// Returns what is missing for so long that the API server must be asked.
    fn missing(&self, object: &ObjectKey, caches: &Caches) -> Result<Option<Vec<(Kind, ObjectKey)>>, Error> {
        let mut all = self.made.lock();
        let Some((since, made)) = all.get_mut(object) else { return Ok(None) };
        made.retain(|(kind, key)| !is_seen(caches, kind, key));
        if made.is_empty() {
            all.remove(object);
            return Ok(None);
        }
        let left = self.late.saturating_sub(since.elapsed());
        if left.is_zero() { Ok(Some(made.clone())) } else { Err(Error::Unseen { after: left.min(LOOK) }) }
    }
}

fn is_seen(caches: &Caches, kind: &Kind, key: &ObjectKey) -> bool {
    match kind.kind.as_str() {
        "PromiseRevision" => caches.revisions.get(key).is_some(),
        "CustomResourceDefinition" => caches.crds.get(key).is_some(),
        "ResourceBinding" => caches.bindings.get(key).is_some(),
        "Work" => caches.works.get(key).is_some(),
        "WorkPlacement" => caches.placements.get(key).is_some(),
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

#[cfg(test)]
mod tests {
    use embedded_apiserver::{Server, User};
    use k8s_openapi::api::core::v1::ServiceAccount;
    use kratix_api::keys;
    use kratix_testing::wait;
    use kube::api::{DeleteParams, PostParams};
    use kube::{Api, Client};
    use serde_json::json;
    use tokio::task::JoinSet;

    use super::*;
    use crate::context::tests::context;

    /// An object that exists, and a context whose caches are told of nothing any more.
    async fn late(
        server: &Server,
        labels: serde_json::Value,
    ) -> (Context, Api<ServiceAccount>, Vec<(Kind, ObjectKey)>) {
        let platform = Client::new(server.service(User::admin("test")), "default");
        let cx = context(platform.clone(), &mut JoinSet::new());
        let accounts = Api::<ServiceAccount>::namespaced(platform, "default");
        let account = json!({ "metadata": { "name": "made", "labels": labels } });
        accounts.create(&PostParams::default(), &serde_json::from_value(account).unwrap()).await.unwrap();
        let kind = Kind::new("", "v1", "ServiceAccount", "serviceaccounts");
        (cx, accounts, vec![(kind, ObjectKey::namespaced("default", "made"))])
    }

    // spec 05 weakness 4
    #[tokio::test]
    async fn however_late_a_cache_is_nothing_is_made_again_while_it_exists() {
        let server = Server::builder().build().await.unwrap();
        let (cx, accounts, made) = late(&server, json!({ keys::PROMISE_NAME: "p" })).await;
        let expected = Expected { late: Duration::ZERO, ..Expected::default() };
        let object = ObjectKey::namespaced("default", "w");
        expected.arrived(&object, &cx).await.unwrap();
        expected.note(&object, made);
        for _ in 0..3 {
            assert!(matches!(expected.arrived(&object, &cx).await, Err(Error::Unseen { .. })));
        }
        accounts.delete("made", &DeleteParams::default()).await.unwrap();
        wait::gone(&accounts, "made").await;
        expected.arrived(&object, &cx).await.unwrap();
        assert!(expected.made.lock().is_empty());
        server.shutdown().await;
    }

    #[tokio::test]
    async fn a_cache_that_is_a_little_late_costs_no_read_and_one_that_will_never_show_it_no_wait() {
        let server = Server::builder().build().await.unwrap();
        let (cx, _accounts, made) = late(&server, json!({})).await;
        let object = ObjectKey::namespaced("default", "w");
        let patient = Expected { late: Duration::from_secs(3600), ..Expected::default() };
        patient.note(&object, made.clone());
        // Nobody would answer.
        server.shutdown().await;
        assert!(matches!(patient.arrived(&object, &cx).await, Err(Error::Unseen { .. })));

        let server = Server::builder().build().await.unwrap();
        let (cx, _accounts, made) = late(&server, json!({})).await;
        let expected = Expected { late: Duration::ZERO, ..Expected::default() };
        expected.note(&object, made);
        // Somebody has taken the label away by which the cache selects.
        expected.arrived(&object, &cx).await.unwrap();
        server.shutdown().await;
    }
}
