//! One run of a scenario with a fault.
//!
//! What a run does follows from its seed: everything happens on one thread, whose clock jumps whenever nobody has anything to
//! do; what waits for a disk is done one after the other on another one, and noticed when nobody has anything to do either;
//! uids, time and pauses between attempts come from the seed. So a run that is repeated makes the same calls in the same order,
//! which [`repeats`] shows.

use std::sync::Arc;

use kratix_testing::faults::{Call, Commits, Fault, Gate, Seed, Whose};
use tokio::task::JoinError;

use crate::record::Record;
use crate::scenario::{Scenario, Step};
use crate::world::World;
use crate::{invariants, record};

/// What a run has led to.
pub(crate) struct Run {
    pub(crate) record: Record,
    /// How many calls of the manager and of pods count.
    pub(crate) counted: usize,
    pub(crate) pod_counted: usize,
    /// What the fault was about, if it has happened.
    pub(crate) hit: Option<Call>,
    /// What the manager and the pods have called, in order.
    calls: [Vec<Call>; 2],
}

impl Run {
    fn calls(&self, whose: Whose) -> &[Call] {
        match whose {
            Whose::Manager => &self.calls[0],
            Whose::Pods => &self.calls[1],
        }
    }

    /// Returns the numbers of the calls that were about the same as one of another run.
    pub(crate) fn alike(&self, whose: Whose, call: &Call) -> Vec<usize> {
        let counted = self.calls(whose).iter().filter(|it| it.number > 0 && about(it) == about(call));
        counted.map(|it| it.number).collect()
    }
}

/// Returns what a call is about, in whatever run.
fn about(call: &Call) -> String {
    record::text(&format!("{} {}", call.method, call.path))
}

/// Runs a scenario on a thread of its own.
pub(crate) fn run(scenario: &Scenario, seed: u64, fault: Fault) -> Result<Run, String> {
    let scenario = scenario.clone();
    on_one_thread(seed, |commits| play(scenario, seed, fault, commits))
}

/// Runs what `play` returns on one thread with a clock that jumps.
pub(crate) fn on_one_thread<T, F>(seed: u64, play: impl FnOnce(Arc<Commits>) -> F) -> Result<T, String>
where
    T: Send + 'static,
    F: Future<Output = Result<T, String>> + Send + 'static,
{
    let gate = Gate::default();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    // What another thread has done is looked at only when this one has nothing to do: how long it took does not matter then.
    runtime.enable_all().start_paused(true).global_queue_interval(u32::MAX).max_blocking_threads(1);
    let [idle, busy, ended] = [(); 3].map(|()| gate.clone());
    runtime.on_thread_park(move || idle.open()).on_thread_unpark(move || busy.close());
    let runtime = runtime.build().unwrap();
    // Where the pauses of watches that failed come from.
    fastrand::seed(seed);
    // A task as all others are: what `block_on` itself waits for is asked at other moments than tasks are.
    let commits = Arc::new(Commits::new(gate));
    let _batches = tracing::subscriber::set_default(commits.clone());
    let played = runtime.spawn(play(commits));
    let run = match runtime.block_on(played).map_err(JoinError::into_panic) {
        Ok(run) => run,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(format!("panicked: {}", text.unwrap_or_default()))
        }
    };
    // Nobody waits any more for what is left on the other thread.
    ended.open();
    runtime.shutdown_background();
    run
}

/// Makes a run twice and says where the second one has called something else.
pub(crate) fn repeats(scenario: &Scenario, seed: u64, fault: Fault) -> Result<(), String> {
    let [first, second] = [run(scenario, seed, fault)?, run(scenario, seed, fault)?];
    for (name, whose) in [("manager", Whose::Manager), ("pods", Whose::Pods)] {
        let [first, second] = [&first, &second].map(|run| run.calls(whose).iter().map(in_order).collect::<Vec<_>>());
        let same = first.iter().zip(&second).take_while(|(one, other)| one == other).count();
        if same < first.len().max(second.len()) {
            let [one, other] = [&first, &second].map(|calls| calls.get(same).map_or("nothing", String::as_str));
            return Err(format!("the {name} has made {same} calls in the same order, and then:\n{one}\n{other}"));
        }
    }
    Ok(())
}

async fn play(scenario: Scenario, seed: u64, fault: Fault, commits: Arc<Commits>) -> Result<Run, String> {
    let world = World::start(&Seed::new(seed), fault, &commits).await;
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
    let calls = [&world.manager, &world.pods].map(|injector| injector.calls());
    Ok(Run { record, counted, pod_counted, hit, calls })
}

/// Returns a call with the version that it has led to, which tells what the others have done before. Names of Events end with
/// the time of this machine.
fn in_order(call: &Call) -> String {
    let answer = call.answer.as_ref().map(|(_, answer)| &answer["metadata"]["resourceVersion"]);
    let version = answer.and_then(|version| version.as_str()).unwrap_or_default();
    let path = if call.is_event() { call.path.rsplit_once('.').map_or("", |(path, _)| path) } else { &call.path };
    let name = if call.is_event() { "" } else { call.body["metadata"]["name"].as_str().unwrap_or_default() };
    format!("{:>4} {} {path} {name} {version}", call.number, call.method)
}
