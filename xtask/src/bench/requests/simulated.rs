//! Requests whose pods are played: API server, controllers, the programs of pods and a local repository in one process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use embedded_apiserver::User;
use kratix_api::{Destination, GitStateStore, keys};
use kratix_testing::faults::{Blow, Fault, Injector, Life, Seed, Whose};
use kratix_testing::simulated_node::{Outcome, SimulatedNode};
use kube::Client;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::passes::Passes;
use super::progress::{Took, ask, publish, update_promise};
use crate::bench::process::Used;
use crate::bench::repository;
use crate::bench::works::{World, commits, difference};

/// Requests one after the other, of which the median counts.
const WARM: usize = 20;

/// What one process is asked to do.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::bench) struct Setting {
    pub(super) directory: PathBuf,
    /// So many requests at once.
    pub(super) requests: usize,
    /// Update the Promise afterwards.
    pub(super) updates: bool,
    /// Refuse the first attempt of every write of the controllers with a conflict.
    pub(super) conflicts: bool,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::bench) struct Measured {
    /// Median of one request after the other.
    pub(super) warm: Duration,
    pub(super) written: Duration,
    pub(super) reconciled: Duration,
    pub(super) cpu: Duration,
    pub(super) commits: usize,
    /// Writes by user, verb and resource.
    pub(super) writes: BTreeMap<String, u64>,
    /// Passes by controller.
    pub(super) passes: BTreeMap<String, u64>,
    /// Conflicts for each of the requests one after the other.
    pub(super) conflicts: f64,
    pub(super) updated: Option<Updated>,
    pub(super) peak_kib: u64,
}

/// What it took until all requests of a changed Promise had run again.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Updated {
    pub(super) took: Duration,
    pub(super) cpu: Duration,
    /// Writes by user, verb and resource.
    pub(super) writes: BTreeMap<String, u64>,
    /// Passes by controller.
    pub(super) passes: BTreeMap<String, u64>,
}

/// Measures in this process.
pub(in crate::bench) async fn measure(setting: Setting) -> Result<Measured> {
    let passes = Passes::count()?;
    let fault =
        if setting.conflicts { Fault::Each { whose: Whose::Manager, blow: Blow::Conflict } } else { Fault::Nothing };
    let refusals = Injector::new(fault, Whose::Manager, &Seed::new(1), || 0);
    let disturbed = refusals.clone();
    let world = World::start_with(&setting.directory, move |server, user| match setting.conflicts {
        true => disturbed.client(server.service(user), &Life::default()),
        false => Client::new(server.service(user), "default"),
    });
    let world = world.await?;
    let repository = setting.directory.join("state.git");
    world
        .create::<GitStateStore>(json!({
            "apiVersion": keys::API_VERSION, "kind": "GitStateStore", "metadata": {"name": "default"},
            "spec": {"url": format!("file://{}", repository.display()), "branch": repository::BRANCH},
        }))
        .await?;
    world
        .create::<Destination>(json!({
            "apiVersion": keys::API_VERSION, "kind": "Destination",
            "metadata": {"name": "worker-1", "labels": {"environment": "dev"}},
            "spec": {
                "path": "worker-1", "filepath": {"mode": "nestedByMetadata"},
                "stateStoreRef": {"kind": "GitStateStore", "name": "default"},
            },
        }))
        .await?;
    let accounts = world.server.clone();
    let _node = SimulatedNode::builder(Client::new(world.server.service(User::admin("node")), "default"))
        .pods(move |namespace, name| Client::new(accounts.service(User::service_account(namespace, name)), namespace))
        .start(|stage| {
            let hash = stage.label(keys::HASH);
            stage.output("cluster.yaml", &format!("kind: PostgresCluster\nmetadata:\n  name: {hash}\n"));
            stage.metadata("status.yaml", "message: made\n");
            Outcome::Succeeded
        });
    publish(&world.user).await?;
    // Accounts and roles are made for the first one.
    ask(&world.user, &["first".to_owned()]).await?;
    world.rest().await?;
    let refused = refusals.calls().len();
    let mut warm = Vec::new();
    for at in 0..WARM {
        warm.push(ask(&world.user, &[format!("warm-{at}")]).await?.written);
    }
    warm.sort();
    world.rest().await?;
    let conflicts = (refusals.calls()[refused..].iter())
        // One that the injector has refused never came to the server.
        .filter(|call| call.answer.as_ref().is_none_or(|(code, _)| *code == 409))
        .count();

    let names: Vec<String> = (0..setting.requests).map(|at| format!("many-{at}")).collect();
    let (writes, before, head, used) = (world.writes_of_all(), passes.so_far(), commits(&repository)?, Used::now()?);
    let Took { written, reconciled } = ask(&world.user, &names).await?;
    let cpu = Used::now()?.cpu_since(&used);
    world.rest().await?;
    let mut measured = Measured {
        warm: warm[WARM / 2],
        written,
        reconciled,
        cpu,
        commits: commits(&repository)? - head,
        writes: difference(&world.writes_of_all(), &writes),
        passes: difference(&passes.so_far(), &before),
        conflicts: conflicts as f64 / WARM as f64,
        updated: None,
        peak_kib: 0,
    };
    if setting.updates {
        let (writes, before, used, began) = (world.writes_of_all(), passes.so_far(), Used::now()?, Instant::now());
        let all: Vec<String> = names.iter().cloned().chain((0..WARM).map(|at| format!("warm-{at}"))).collect();
        update_promise(&world.user, "v1.0.1", &all).await?;
        let (took, cpu) = (began.elapsed(), Used::now()?.cpu_since(&used));
        world.rest().await?;
        let (writes, passes) = (difference(&world.writes_of_all(), &writes), difference(&passes.so_far(), &before));
        measured.updated = Some(Updated { took, cpu, writes, passes });
    }
    measured.peak_kib = Used::now()?.peak_kib;
    Ok(measured)
}
