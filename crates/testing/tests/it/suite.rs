//! Which runs are made: a sample that follows from a seed in `cargo test`, and what is asked for by `cargo xtask faults`.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use kratix_testing::faults::{Blow, Call, Disturbance, Fault, Seed, Whose};
use parking_lot::Mutex;

use crate::run::{Run, repeats, run};
use crate::scenario::{Scenario, Step, promise, requested_with};
use crate::scenarios;
use crate::script::Act;
use crate::shorten::shortest;
use crate::world::IMPOSSIBLE;

/// The seed of the sample.
const SEED: u64 = 1;
/// What `cargo xtask faults` asks for: `scenario=…;steps=…;seed=…;fault=…;minutes=…;twice=true`, each of them optional.
const ASKED: &str = "KRATIX_FAULTS";

/// How many calls that are about the same as the one that was hit are tried in a shorter run.
const CANDIDATES_MAX: usize = 6;

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

    /// Runs the scenario with a fault and says what is different then, with the fewest steps that it takes.
    fn check(&self, seed: u64, fault: Fault) -> Result<Outcome, String> {
        let reference = match self.run() {
            Ok(reference) => reference,
            Err(error) => return Err(self.failure(SEED, Fault::Nothing, &error)),
        };
        match outcome(&self.scenario, &reference, seed, fault) {
            Ok(outcome) => Ok(outcome),
            Err(error) => Err(self.failure(seed, fault, &error)),
        }
    }

    /// Makes the run twice and says where the second one has called something else.
    fn check_order(&self, seed: u64, fault: Fault) -> Result<Outcome, String> {
        let same = repeats(&self.scenario, seed, fault).map(|()| Outcome::Same);
        same.map_err(|error| self.told(seed, fault, &error))
    }

    fn told(&self, seed: u64, fault: Fault, error: &str) -> String {
        let name = self.scenario.name;
        format!(
            "{name} with {fault}, seed {seed}:\n{error}\n\
             again: cargo xtask faults --scenario {name} --seed {seed} --fault {fault}\n"
        )
    }

    /// Tells a failure, and the fewest steps with which it happens.
    fn failure(&self, seed: u64, fault: Fault, error: &str) -> String {
        let (steps, fault_then) = self.shortest(seed, fault);
        let (name, short) = (self.scenario.name, self.scenario.with_steps(&steps));
        let list = steps.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let script: Vec<String> = short.steps.iter().map(|step| format!("  {step}\n")).collect();
        format!(
            "{}{} of {} steps suffice:\n{}again: cargo xtask faults --scenario {name} --steps {list} --seed {seed} --fault {fault_then}\n",
            self.told(seed, fault, error),
            steps.len(),
            self.scenario.steps.len(),
            script.concat(),
        )
    }

    /// Returns the fewest steps that fail, and with which fault: of the call that was hit the number is another one then.
    fn shortest(&self, seed: u64, fault: Fault) -> (Vec<usize>, Fault) {
        let hit = run(&self.scenario, seed, fault).ok().and_then(|run| run.hit);
        let all: Vec<usize> = (0..self.scenario.steps.len()).collect();
        let mut last = fault;
        let steps = shortest(&all, |chosen| {
            let found = failing(&self.scenario.with_steps(chosen), seed, fault, hit.as_ref());
            last = found.unwrap_or(last);
            found.is_some()
        });
        (steps, last)
    }
}

/// Runs a scenario with a fault and says what is different from the run without.
fn outcome(scenario: &Scenario, reference: &Run, seed: u64, fault: Fault) -> Result<Outcome, String> {
    let run = run(scenario, seed, fault)?;
    let differences = reference.record.differences(&run.record);
    if differences.is_empty() {
        let is_hit = run.hit.is_some() || !matches!(fault, Fault::Call { .. } | Fault::Past(_));
        return Ok(if is_hit { Outcome::Same } else { Outcome::NotReached });
    }
    let hit = run.hit.as_ref().map(|hit| format!("hit: {hit}\n")).unwrap_or_default();
    Err(format!("{hit}{}", differences.join("\n")))
}

/// Returns the fault of this kind with which a part of a scenario fails.
fn failing(scenario: &Scenario, seed: u64, fault: Fault, hit: Option<&Call>) -> Option<Fault> {
    let is_of_the_product = |error: &String| !error.contains(IMPOSSIBLE);
    let reference = match run(scenario, SEED, Fault::Nothing) {
        Ok(reference) => reference,
        Err(error) => return (fault == Fault::Nothing && is_of_the_product(&error)).then_some(fault),
    };
    let numbers = |whose| hit.map(|hit| reference.alike(whose, hit)).unwrap_or_default();
    let faults: Vec<Fault> = match fault {
        Fault::Call { whose, blow, .. } => numbers(whose).into_iter().map(|at| call(whose, blow, at)).collect(),
        Fault::Past(_) => numbers(Whose::Manager).into_iter().map(Fault::Past).collect(),
        other => vec![other],
    };
    let fails =
        |fault: &Fault| outcome(scenario, &reference, seed, *fault).is_err_and(|error| is_of_the_product(&error));
    faults.into_iter().take(CANDIDATES_MAX).find(fails)
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
        .filter_map(|it| it.run().err().map(|error| it.failure(SEED, Fault::Nothing, &error)))
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
    let mut runs = sample("crash-before", 18, before);
    runs.extend(sample("crash-after", 13, after));
    check(&runs);
}

#[test]
fn writes_that_are_refused_once_or_whose_answer_is_lost_lead_to_the_same_end() {
    let mut runs = Vec::new();
    for blow in Blow::ANSWERS {
        runs.extend(sample(&format!("each {blow:?}"), 46, |_, _| Fault::Each { whose: Whose::Manager, blow }));
    }
    check(&runs);
}

#[test]
fn programs_in_pods_whose_writes_are_refused_or_lost_lead_to_the_same_end() {
    let mut runs = Vec::new();
    for blow in [Blow::Conflict, Blow::Lost] {
        runs.extend(sample(&format!("pods {blow:?}"), 40, |_, _| Fault::Each { whose: Whose::Pods, blow }));
    }
    check(&runs);
}

#[test]
fn a_manager_that_sees_late_or_not_at_all_ends_where_one_does_that_sees_everything() {
    let mut runs = Vec::new();
    for disturbance in Disturbance::ALL {
        runs.extend(sample(&format!("watch {disturbance:?}"), 46, |_, _| Fault::Watch(disturbance)));
    }
    check(&runs);
}

#[test]
fn a_manager_that_is_shown_the_past_after_a_crash_leads_to_the_same_end() {
    check(&sample("past", 23, |seed, run| Fault::Past(1 + seed.below(run.counted))));
}

#[test]
fn a_manager_that_has_a_twin_leads_to_the_same_end() {
    check(&sample("two", 31, |_, _| Fault::Two));
}

#[test]
fn a_run_that_fails_is_told_by_the_steps_that_it_takes() {
    let mut scenario = REFERENCES.iter().find(|it| it.scenario.name == "update").unwrap().scenario.clone();
    // What says that it is of a Promise which nobody has made.
    let labels = serde_json::json!({ kratix_api::keys::PROMISE_NAME: "nobody" });
    scenario.steps.insert(
        3,
        Step::Apply(serde_json::json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": "planted", "namespace": "default", "labels": labels },
        })),
    );
    let reference = Reference { scenario, run: OnceLock::new() };
    let failure = reference.check(SEED, Fault::Nothing).err().unwrap();
    assert!(failure.contains("Promise nobody does not exist") && failure.contains("1 of 7 steps suffice"), "{failure}");
    assert!(failure.ends_with("--scenario update --steps 3 --seed 1 --fault none\n"), "{failure}");
}

#[test]
fn a_pipeline_that_cannot_begin_is_told_by_its_cause() {
    let steps = requested_with(promise(&["build"]), "build", Act::Stuck);
    let run = run(&Scenario { name: "stuck", steps }, SEED, Fault::Nothing).unwrap_or_else(|error| panic!("{error}"));
    let (_, request) = run.record.objects.iter().find(|(key, _)| key.contains("/envs ")).unwrap();
    let conditions = request["status"]["conditions"].as_array().unwrap();
    let failing = conditions.iter().find(|found| found["type"] == "PipelineFailing").unwrap();
    assert_eq!((&failing["status"], &failing["reason"]), (&"True".into(), &"ImageUnavailable".into()));
}

#[test]
fn the_child_of_a_compound_promise_comes_by_way_of_the_repository() {
    let reference = REFERENCES.iter().find(|it| it.scenario.name == "compound").unwrap();
    let created = &reference.run().unwrap_or_else(|error| panic!("{error}")).record.created;
    for child in ["a-base", "b-base"] {
        let of_child = |key: &&String| key.contains("/jobs ") && key.contains(&format!("-{child}-"));
        assert!(created.keys().any(|key| of_child(&key)), "{child} has run no pipeline: {created:#?}");
    }
}

#[test]
fn a_fault_hits_the_same_call_in_a_shorter_run() {
    let scenario = &REFERENCES.iter().find(|it| it.scenario.name == "update").unwrap().scenario;
    let whole = run(scenario, SEED, Fault::Nothing).unwrap();
    let short = run(&scenario.with_steps(&[0, 1, 2, 3]), SEED, Fault::Nothing).unwrap();
    let hit = run(scenario, SEED, call(Whose::Manager, Blow::CrashBefore, whole.counted)).unwrap().hit.unwrap();
    let numbers = short.alike(Whose::Manager, &hit);
    let number = *numbers.last().unwrap();
    assert!(number < whole.counted, "{numbers:?}");
    let then = run(&scenario.with_steps(&[0, 1, 2, 3]), SEED, call(Whose::Manager, Blow::CrashBefore, number)).unwrap();
    assert_eq!(then.hit.map(|then| then.path), Some(hit.path));
}

/// What `cargo xtask faults` asks for.
#[derive(Debug, Default)]
struct Asked {
    scenario: Option<String>,
    seed: Option<u64>,
    fault: Option<String>,
    minutes: Option<u64>,
    /// These steps of the scenario only, by their numbers.
    steps: Option<Vec<usize>>,
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
                "steps" => asked.steps = Some(value.split(',').map(|step| step.parse().unwrap()).collect()),
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

/// After how many runs it is told how many there were.
const TOLD_EVERY: usize = 1_000;

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
    let is_chosen = |reference: &&Reference| {
        asked.scenario.as_ref().is_none_or(|name| name.split(',').any(|name| reference.scenario.name == name))
    };
    let mut chosen: Vec<&Reference> = REFERENCES.iter().filter(is_chosen).collect();
    let short = asked
        .steps
        .as_ref()
        .zip(chosen.first())
        .map(|(steps, first)| Reference { scenario: first.scenario.with_steps(steps), run: OnceLock::new() });
    if let Some(short) = &short {
        chosen = vec![short];
    }
    assert!(!chosen.is_empty(), "no scenario is named {:?}", asked.scenario.unwrap_or_default());
    let queue: Mutex<Vec<(&Reference, Fault)>> = Mutex::new(Vec::new());
    for reference in chosen.iter().rev() {
        match reference.run() {
            Ok(run) => queue.lock().extend(asked.faults(&run).into_iter().rev().map(|fault| (*reference, fault))),
            Err(error) => panic!("{}", reference.failure(SEED, Fault::Nothing, &error)),
        }
    }
    if deadline.is_some() {
        // What there is no time for is not always the same.
        let mut seed = Seed::new(asked.seed.unwrap_or(SEED)).fork("order");
        queue.lock().sort_by_cached_key(|_| seed.draw());
    }
    report(&format!("{} runs", queue.lock().len()));
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
                    // One that is stopped has told how far it came.
                    if tallies.values().map(|tally| tally.runs).sum::<usize>() % TOLD_EVERY == 0 {
                        tell(&tallies);
                    }
                }
            });
        }
    });
    tell(&tallies.lock());
    let left = queue.lock().len();
    report(&format!("{left} runs were left for lack of time"));
    let failures = failures.lock();
    assert!(failures.is_empty(), "{} runs failed", failures.len());
}

/// Says how many runs were made of every class.
fn tell(tallies: &BTreeMap<String, Tally>) {
    for (class, tally) in tallies {
        report(&format!(
            "{class}: {} runs, {} without such a call, {} failed",
            tally.runs, tally.not_reached, tally.failed
        ));
    }
}

/// A long run says at once what it has found.
#[expect(clippy::print_stderr, reason = "a long run says at once what it has found")]
pub(crate) fn report(text: &str) {
    eprintln!("{text}");
}
