//! One run of a scenario with a fault.

use kratix_testing::faults::{Call, Fault, Seed};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::invariants;
use crate::record::Record;
use crate::scenario::{Scenario, Step};
use crate::world::World;

/// What a run has led to.
pub(crate) struct Run {
    pub(crate) record: Record,
    /// How many calls of the manager and of pods count.
    pub(crate) counted: usize,
    pub(crate) pod_counted: usize,
    /// What the fault was about, if it has happened.
    pub(crate) hit: Option<Call>,
}

/// Runs a scenario on a thread of its own; the runtime's clock jumps whenever nobody has anything to do.
pub(crate) fn run(scenario: &Scenario, seed: u64, fault: Fault) -> Result<Run, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(play(scenario, seed, fault))));
    let run = match outcome {
        Ok(run) => run,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(format!("panicked: {}", text.unwrap_or_default()))
        }
    };
    runtime.shutdown_background();
    run
}

async fn play(scenario: &Scenario, seed: u64, fault: Fault) -> Result<Run, String> {
    let world = World::start(&Seed::new(seed), fault).await;
    for (number, step) in scenario.steps.iter().chain([&Step::Rest]).enumerate() {
        world.step(step).await.map_err(|error| format!("step {number}: {error}"))?;
    }
    // Said again by a manager that knows nothing, all of it is the same: nothing is written.
    let (before, calls) = (world.server.revision(), world.manager.calls().len());
    let record = Record::of(&world).await;
    world.restart().await;
    world.step(&Step::Rest).await?;
    if world.server.revision() != before {
        let new: Vec<String> = world.manager.calls().iter().skip(calls).map(Call::to_string).collect();
        return Err(format!("not silent at rest after a restart: {new:?}"));
    }
    let again = Record::of(&world).await;
    if again.files != record.files {
        return Err("the repository changed at rest after a restart".to_owned());
    }
    let broken = invariants::broken_at_rest(&world).await;
    if !broken.is_empty() {
        return Err(broken.join("\n"));
    }
    let hit = world.manager.hit().or_else(|| world.pods.hit());
    let (counted, pod_counted) = (world.manager.counted(), world.pods.counted());
    Ok(Run { record, counted, pod_counted, hit })
}
