//! Which runs are made: a sample that follows from a seed in `cargo test`, and what is asked for by `cargo xtask faults`.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use kratix_testing::faults::{Blow, Disturbance, Fault, Seed, Whose};
use parking_lot::Mutex;

use crate::run::{Run, repeats, run};
use crate::scenario::Scenario;
use crate::scenarios;

/// The seed of the sample.
const SEED: u64 = 1;
/// What `cargo xtask faults` asks for: `scenario=…;seed=…;fault=…;minutes=…;twice=true`, each of them optional.
const ASKED: &str = "KRATIX_FAULTS";

/// Runs that are repeated: each kind of fault, and much at once.
const REPEATED: [(&str, &str); 5] = [
    ("everything-at-once", "none"),
    ("several-pipelines", "crash-after:40"),
    ("delete", "each-internal"),
    ("update", "watch-missed"),
    ("selectors-of-a-pipeline", "watch-shuffled"),
];

/// A scenario with the run that shows what it leads to.
struct Reference {
    scenario: Scenario,
    run: OnceLock<Result<Arc<Run>, String>>,
}

static REFERENCES: LazyLock<Vec<Reference>> = LazyLock::new(|| {
    scenarios::all().into_iter().map(|scenario| Reference { scenario, run: OnceLock::new() }).collect()
});

impl Reference {
    fn run(&self) -> Result<Arc<Run>, String> {
        self.run.get_or_init(|| run(&self.scenario, SEED, Fault::Nothing).map(Arc::new)).clone()
    }

    /// Runs the scenario with a fault and says what is different then.
    fn check(&self, seed: u64, fault: Fault) -> Result<Outcome, String> {
        let reference = self.run().map_err(|error| self.failure(seed, Fault::Nothing, "", &error))?;
        let told = |hit: &str, error: &str| self.failure(seed, fault, hit, error);
        let run = run(&self.scenario, seed, fault).map_err(|error| told("", &error))?;
        let hit = run.hit.as_ref().map(ToString::to_string).unwrap_or_default();
        let differences = reference.record.differences(&run.record);
        if differences.is_empty() {
            let is_hit = run.hit.is_some() || !matches!(fault, Fault::Call { .. } | Fault::Past(_));
            return Ok(if is_hit { Outcome::Same } else { Outcome::NotReached });
        }
        Err(told(&hit, &differences.join("\n")))
    }

    /// Makes the run twice and says where the second one has called something else.
    fn check_order(&self, seed: u64, fault: Fault) -> Result<Outcome, String> {
        let same = repeats(&self.scenario, seed, fault).map(|()| Outcome::Same);
        same.map_err(|error| self.failure(seed, fault, "", &error))
    }

    fn failure(&self, seed: u64, fault: Fault, hit: &str, error: &str) -> String {
        let name = self.scenario.name;
        let hit = if hit.is_empty() { String::new() } else { format!("hit: {hit}\n") };
        format!(
            "{name} with {fault}, seed {seed}:\n{hit}{error}\n\
             again: cargo xtask faults --scenario {name} --seed {seed} --fault {fault}\n"
        )
    }
}

/// How a run ended that is as it should be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Same,
    /// It had no such call.
    NotReached,
}

/// Makes runs and fails with everything that was different.
fn check(runs: &[(usize, u64, Fault)]) {
    let different = |(at, seed, fault): &(usize, u64, Fault)| REFERENCES[*at].check(*seed, *fault).err();
    let failures: Vec<String> = runs.iter().filter_map(different).collect();
    assert!(failures.is_empty(), "{} of {} runs failed:\n{}", failures.len(), runs.len(), failures.join("\n"));
}

/// Returns a fault for every `every`th scenario, with a seed of its own.
fn sample(name: &str, every: usize, choose: impl Fn(&mut Seed, &Run) -> Fault) -> Vec<(usize, u64, Fault)> {
    let mut seed = Seed::new(SEED).fork(name);
    let first = seed.below(every);
    let chosen = (0..REFERENCES.len()).filter(|at| at % every == first);
    chosen
        .filter_map(|at| {
            let reference = REFERENCES[at].run().ok()?;
            let own = seed.draw() % 1_000;
            Some((at, own, choose(&mut Seed::new(own), &reference)))
        })
        .collect()
}

fn call(whose: Whose, blow: Blow, number: usize) -> Fault {
    Fault::Call { whose, blow, number }
}

#[test]
fn every_scenario_comes_to_rest_and_keeps_the_invariants() {
    let failures: Vec<String> = (REFERENCES.iter())
        .filter_map(|it| it.run().err().map(|error| it.failure(SEED, Fault::Nothing, "", &error)))
        .collect();
    assert!(REFERENCES.len() >= 30 && failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_run_makes_the_same_calls_in_the_same_order_when_it_is_repeated() {
    let mut failures = Vec::new();
    for (name, fault) in REPEATED {
        let scenario = &REFERENCES.iter().find(|it| it.scenario.name == name).unwrap().scenario;
        let fault = fault.parse().unwrap();
        failures.extend(repeats(scenario, SEED, fault).err().map(|error| format!("{name} with {fault}: {error}")));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_manager_that_crashes_at_any_write_ends_where_one_does_that_never_crashes() {
    let before = |seed: &mut Seed, run: &Run| call(Whose::Manager, Blow::CrashBefore, 1 + seed.below(run.counted));
    let after = |seed: &mut Seed, run: &Run| call(Whose::Manager, Blow::CrashAfter, 1 + seed.below(run.counted));
    let mut runs = sample("crash-before", 8, before);
    runs.extend(sample("crash-after", 6, after));
    check(&runs);
}

#[test]
fn writes_that_are_refused_once_or_whose_answer_is_lost_lead_to_the_same_end() {
    let mut runs = Vec::new();
    for blow in Blow::ANSWERS {
        runs.extend(sample(&format!("each {blow:?}"), 24, |_, _| Fault::Each { whose: Whose::Manager, blow }));
    }
    check(&runs);
}

#[test]
fn programs_in_pods_whose_writes_are_refused_or_lost_lead_to_the_same_end() {
    let mut runs = Vec::new();
    for blow in [Blow::Conflict, Blow::Lost] {
        runs.extend(sample(&format!("pods {blow:?}"), 30, |_, _| Fault::Each { whose: Whose::Pods, blow }));
    }
    check(&runs);
}

#[test]
fn a_manager_that_sees_late_or_not_at_all_ends_where_one_does_that_sees_everything() {
    let mut runs = Vec::new();
    for disturbance in Disturbance::ALL {
        runs.extend(sample(&format!("watch {disturbance:?}"), 20, |_, _| Fault::Watch(disturbance)));
    }
    check(&runs);
}

#[test]
fn a_manager_that_is_shown_the_past_after_a_crash_leads_to_the_same_end() {
    check(&sample("past", 10, |seed, run| Fault::Past(1 + seed.below(run.counted))));
}

#[test]
fn a_manager_that_has_a_twin_leads_to_the_same_end() {
    check(&sample("two", 16, |_, _| Fault::Two));
}

/// What `cargo xtask faults` asks for.
#[derive(Debug, Default)]
struct Asked {
    scenario: Option<String>,
    seed: Option<u64>,
    fault: Option<String>,
    minutes: Option<u64>,
    /// Whether each run is made twice, to see whether it repeats call by call.
    twice: bool,
}

impl Asked {
    fn parse(text: &str) -> Self {
        let mut asked = Self::default();
        for part in text.split(';').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap();
            match name {
                "scenario" => asked.scenario = Some(value.to_owned()),
                "seed" => asked.seed = Some(value.parse().unwrap()),
                "fault" => asked.fault = Some(value.to_owned()),
                "minutes" => asked.minutes = Some(value.parse().unwrap()),
                "twice" => asked.twice = value.parse().unwrap(),
                other => panic!("{ASKED}: unknown part {other:?}"),
            }
        }
        asked
    }

    /// Returns the runs of one scenario: what was named, a class at each of its calls, or everything.
    fn faults(&self, run: &Run) -> Vec<Fault> {
        if let Some(fault) = self.fault.as_ref().and_then(|text| text.parse().ok()) {
            return vec![fault];
        }
        let mut all = vec![Fault::Nothing, Fault::Two];
        all.extend(Disturbance::ALL.map(Fault::Watch));
        for whose in [Whose::Manager, Whose::Pods] {
            all.extend(Blow::ANSWERS.map(|blow| Fault::Each { whose, blow }));
        }
        for number in 1..=run.counted {
            all.extend([Blow::CrashBefore, Blow::CrashAfter].map(|blow| call(Whose::Manager, blow, number)));
            all.extend(Blow::ANSWERS.map(|blow| call(Whose::Manager, blow, number)));
            all.push(Fault::Past(number));
        }
        for number in 1..=run.pod_counted {
            all.extend(Blow::ANSWERS.map(|blow| call(Whose::Pods, blow, number)));
        }
        let class = self.fault.as_deref();
        all.into_iter()
            .filter(|fault| class.is_none_or(|class| class.split(',').any(|class| fault.class() == class)))
            .collect()
    }
}

#[derive(Default)]
struct Tally {
    runs: usize,
    not_reached: usize,
    failed: usize,
}

#[test]
fn what_is_asked_for_is_run() {
    let text = std::env::var(ASKED).unwrap_or_else(|_| "scenario=request;seed=7;fault=crash-after:9".to_owned());
    let asked = Asked::parse(&text);
    let deadline = asked.minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let chosen: Vec<&Reference> = (REFERENCES.iter())
        .filter(|reference| {
            asked.scenario.as_ref().is_none_or(|name| name.split(',').any(|name| reference.scenario.name == name))
        })
        .collect();
    assert!(!chosen.is_empty(), "no scenario is named {:?}", asked.scenario.unwrap_or_default());
    let queue: Mutex<Vec<(&Reference, Fault)>> = Mutex::new(Vec::new());
    for reference in chosen.iter().rev() {
        match reference.run() {
            Ok(run) => queue.lock().extend(asked.faults(&run).into_iter().rev().map(|fault| (*reference, fault))),
            Err(error) => panic!("{}", reference.failure(SEED, Fault::Nothing, "", &error)),
        }
    }
    if deadline.is_some() {
        // What there is no time for is not always the same.
        let mut seed = Seed::new(asked.seed.unwrap_or(SEED)).fork("order");
        queue.lock().sort_by_cached_key(|_| seed.draw());
    }
    let tallies: Mutex<BTreeMap<String, Tally>> = Mutex::default();
    let failures: Mutex<Vec<String>> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while deadline.is_none_or(|deadline| Instant::now() < deadline) {
                    let Some((reference, fault)) = queue.lock().pop() else { return };
                    let seed = asked.seed.unwrap_or(SEED);
                    let outcome = match asked.twice {
                        true => reference.check_order(seed, fault),
                        false => reference.check(seed, fault),
                    };
                    let mut tallies = tallies.lock();
                    let tally = tallies.entry(fault.class()).or_default();
                    tally.runs += 1;
                    match outcome {
                        Ok(Outcome::Same) => {}
                        Ok(Outcome::NotReached) => tally.not_reached += 1,
                        Err(failure) => {
                            tally.failed += 1;
                            report(&failure);
                            failures.lock().push(failure);
                        }
                    }
                }
            });
        }
    });
    for (class, tally) in &*tallies.lock() {
        report(&format!(
            "{class}: {} runs, {} without such a call, {} failed",
            tally.runs, tally.not_reached, tally.failed
        ));
    }
    let left = queue.lock().len();
    report(&format!("{left} runs were left for lack of time"));
    let failures = failures.lock();
    assert!(failures.is_empty(), "{} runs failed", failures.len());
}

/// A long run says at once what it has found.
#[expect(clippy::print_stderr, reason = "a long run says at once what it has found")]
fn report(text: &str) {
    eprintln!("{text}");
}
