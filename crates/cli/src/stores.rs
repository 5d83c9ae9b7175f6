//! The state stores of a running platform, as far as people who look after it want to know.

use std::path::Path;
use std::time::Duration;

use kratix_api::condition::{self, Condition, Status};
use kratix_api::{BucketStateStore, GitStateStore, StateStoreStatus};
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use serde::Serialize;

/// How long the platform may take to answer: it is on this machine.
const ANSWER: Duration = Duration::from_secs(5);
/// The context of the platform in its kubeconfig.
const CONTEXT: &str = "platform";

/// A state store.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Store {
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    /// Why not everything can be written to it, in one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cause: Option<String>,
}

/// Returns all stores, or why they are not known, in one line.
pub(crate) async fn list(kubeconfig: &Path) -> Result<Vec<Store>, String> {
    let asked = tokio::time::timeout(ANSWER, ask(kubeconfig)).await;
    let answer = asked.map_err(|_| format!("the API server did not answer within {} s", ANSWER.as_secs()))?;
    answer.map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())
}

async fn ask(kubeconfig: &Path) -> Result<Vec<Store>, Box<dyn std::error::Error + Send + Sync>> {
    let options = KubeConfigOptions { context: Some(CONTEXT.into()), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &options).await?;
    let client = Client::try_from(config)?;
    let all = ListParams::default();
    let (git, buckets) = (Api::<GitStateStore>::all(client.clone()), Api::<BucketStateStore>::all(client));
    let (git, buckets) = tokio::try_join!(git.list(&all), buckets.list(&all))?;
    let git = git.items.iter().map(|store| found(GitStateStore::KIND, store.name_any(), store.status.as_ref()));
    let buckets =
        buckets.items.iter().map(|store| found(BucketStateStore::KIND, store.name_any(), store.status.as_ref()));
    Ok(git.chain(buckets).collect())
}

fn found(kind: &'static str, name: String, status: Option<&StateStoreStatus>) -> Store {
    Store { kind, name, cause: cause(status.map_or(&[][..], |status| &status.conditions)) }
}

/// Says what keeps a store from taking what it is given: it is not ready, or it has refused the last push or does not answer it.
fn cause(conditions: &[Condition]) -> Option<String> {
    let Some(ready) = condition::find(conditions, condition::READY) else {
        return Some("it is being opened".to_owned());
    };
    let failing = if ready.status == Status::True {
        condition::find(conditions, "PushesAccepted").filter(|accepted| accepted.status != Status::True)?
    } else {
        ready
    };
    Some(failing.message.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_lacks_comes_before_what_it_refuses() {
        let said = |r#type: &str, status: Status| Condition::new(r#type, status, "R", format!("{type}: no\nmore"));
        let (ready, not_ready) = (said("Ready", Status::True), said("Ready", Status::False));
        let refuses = said("PushesAccepted", Status::False);
        let (unknown, silent) = (said("Ready", Status::Unknown), said("PushesAccepted", Status::Unknown));
        for (conditions, expected) in [
            (vec![], Some("it is being opened")),
            (vec![ready.clone()], None),
            (vec![ready.clone(), refuses.clone()], Some("PushesAccepted: no")),
            (vec![ready, silent], Some("PushesAccepted: no")),
            (vec![unknown], Some("Ready: no")),
            (vec![not_ready, refuses], Some("Ready: no")),
        ] {
            assert_eq!(cause(&conditions).as_deref(), expected);
        }
    }
}
