//! Any sequence of valid changes ends where one ends that makes the last state at once: files and statuses tell nothing of the
//! way. The changes come from the schema of the Promise's CRD and from the schemas of published Promises.

mod change;
mod values;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::LazyLock;

use kratix_api::condition::CONFIGURE_WORKFLOW_COMPLETED;
use kratix_api::keys;
use kratix_testing::faults::{Fault, Seed};
use parking_lot::Mutex;
use regex::Regex;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use self::change::{Change, Pause, REQUESTS, Wanted};
use self::values::{Published, fields};
use crate::owners;
use crate::places::by_request;
use crate::record::{Record, text};
use crate::run::run;
use crate::scenario::{Scenario, Step};
use crate::shorten::shortest;
use crate::suite::report;

/// Sequences of a run of the tests, one for each published Promise.
const SEQUENCES: Range<u64> = 0..10;
/// What `cargo xtask faults` asks for: `17`, `0..300`, or `17:0,3` for some of the changes only.
const ASKED: &str = "KRATIX_SEQUENCES";
const CHANGES_MAX: usize = 7;
const ACTS: [&str; 4] = ["fail", "stuck", "suspend", "retry"];
/// When a workflow has last succeeded.
const LAST_SUCCESS: &str = "lastSuccessfulConfigureWorkflowTime";

/// A sequence of changes of a published Promise and its requests.
#[derive(Clone)]
struct Sequence {
    number: u64,
    changes: Vec<(Change, Pause)>,
}

impl Sequence {
    fn of(number: u64) -> Self {
        let (published, mut seed) = (Published::of(number), Seed::new(number).fork("sequence"));
        let (fields, mut changes) = (fields(), Vec::new());
        let request = Change::Request(0, published.request(&mut seed), "");
        changes.push((request, Pause::Rest));
        for _ in 0..=1 + seed.below(CHANGES_MAX - 1) {
            let change = any_change(&published, &fields, &mut seed);
            changes.push((change, *seed.choose(&[Pause::Not, Pause::Calm, Pause::Rest])));
        }
        Self { number, changes }
    }

    /// Returns the steps of these changes, and those that make the last state at once.
    fn scenarios(&self, chosen: &[usize]) -> (Scenario, Scenario) {
        let mut wanted = Wanted::new(&Published::of(self.number));
        let mut steps = wanted.begin();
        for (change, pause) in chosen.iter().map(|at| &self.changes[*at]) {
            steps.extend(wanted.change(change));
            match pause {
                Pause::Not => {}
                Pause::Calm => steps.push(Step::Calm),
                Pause::Rest => steps.push(Step::Rest),
            }
        }
        steps.extend(wanted.mend());
        let changed = Scenario { name: "changed", steps };
        (changed, Scenario { name: "at-once", steps: wanted.at_once() })
    }

    /// Says how the end differs from that of a run which makes the last state at once.
    fn differences(&self, chosen: &[usize]) -> Vec<String> {
        let (changed, at_once) = self.scenarios(chosen);
        let end = |scenario: &Scenario| run(scenario, self.number, Fault::Nothing).map(|run| run.record);
        match (end(&at_once), end(&changed)) {
            (Ok(at_once), Ok(changed)) => {
                let expected = statuses(&at_once);
                outcome(at_once, &expected).differences(&outcome(changed, &expected))
            }
            (Err(error), _) => vec![format!("at once: {error}")],
            (_, Err(error)) => vec![error],
        }
    }

    /// Checks these changes; a failure comes with the fewest that fail.
    fn check(&self, chosen: &[usize]) -> Result<(), String> {
        if self.differences(chosen).is_empty() {
            return Ok(());
        }
        let needed = shortest(chosen, |chosen| !self.differences(chosen).is_empty());
        let list = needed.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let steps: Vec<String> = self.scenarios(&needed).0.steps.iter().map(|step| format!("  {step}")).collect();
        Err(format!(
            "sequence {} ({}), {} of {} changes suffice:\n{}\n{}\nagain: cargo xtask faults --sequence {}:{list}\n",
            self.number,
            Published::of(self.number).name,
            needed.len(),
            chosen.len(),
            self.differences(&needed).join("\n"),
            steps.join("\n"),
            self.number,
        ))
    }

    fn all(&self) -> Vec<usize> {
        (0..self.changes.len()).collect()
    }
}

fn any_change(published: &Published, fields: &[String], seed: &mut Seed) -> Change {
    let number = seed.below(REQUESTS.len());
    let target = if seed.below(2) == 0 { None } else { Some(number) };
    match seed.below(20) {
        0..=7 => {
            let field = seed.choose(fields);
            Change::Field(field.clone(), published.field(field, seed))
        }
        8..=12 => {
            let act = if seed.below(2) == 0 { *seed.choose(&ACTS) } else { "" };
            Change::Request(number, published.request(seed), act)
        }
        13 => Change::Withdraw(number),
        14 => seed.choose(&[Change::Remove, Change::Restart, Change::Keep(1), Change::Keep(3)]).clone(),
        15 | 16 => Change::Pause(target, seed.below(3) > 0),
        17 => Change::Again(target, seed.choose::<&str>(&[keys::MANUAL_RECONCILIATION, keys::RECONCILE_RESOURCES])),
        18 => Change::Base(seed.below(2) == 1),
        _ => Change::Version(seed.choose::<&str>(&["v1.0.0", "v2.0.0"])),
    }
}

/// Returns the statuses by object.
fn statuses(record: &Record) -> BTreeMap<String, Value> {
    record.objects.iter().map(|(key, value)| (shown(key), value["status"].clone())).collect()
}

/// What tells nothing of the way: specs, statuses, labels and files; of statuses what [`lasting`] says.
fn outcome(record: Record, at_once: &BTreeMap<String, Value>) -> Record {
    let files = by_request(&typed(&record, "/workplacements "), &typed(&record, "/destinations "), record.files);
    let kinds = ["/promises ", "/envs ", "/bases ", "/works ", "/workplacements "];
    let mut objects = BTreeMap::new();
    for (key, value) in record.objects {
        let value = serde_json::from_str::<Value>(&shown(&value.to_string())).unwrap();
        let key = shown(&key);
        if key.contains("/customresourcedefinitions ") {
            objects.insert(key, json!({ "spec": value["spec"] }));
        } else if kinds.iter().any(|kind| key.contains(kind)) {
            let status = lasting(&value["status"], at_once.get(&key));
            let labels = value["metadata"]["labels"].clone();
            let other = objects.insert(key, json!({ "spec": value["spec"], "status": status, "labels": labels }));
            assert!(other.is_none(), "two Works of one pipeline");
        }
    }
    Record { objects, files, created: BTreeMap::new() }
}

/// Returns a text without what differs from run to run or tells of the way: while a Work is going, its successor has another name.
fn shown(of: &str) -> String {
    static NAME: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b(env-[a-z0-9-]+)-[0-9a-f]{5}\b").unwrap());
    NAME.replace_all(&text(of), "$1-<hash>").into_owned()
}

/// Returns the objects of a kind without their statuses, in which times are left out.
fn typed<K: DeserializeOwned>(record: &Record, collection: &str) -> Vec<K> {
    let found = record.objects.iter().filter(|(key, _)| key.contains(collection));
    let without_status = found.map(|(_, object)| {
        let mut object = object.clone();
        object.as_object_mut().unwrap().remove("status");
        serde_json::from_value(object).unwrap()
    });
    without_status.collect()
}

/// Leaves out of a status what tells of the way on purpose. A pipeline's own fields stay when it goes, as Kratix does not know
/// what they mean; and where nothing runs any more the last success stays on record.
fn lasting(status: &Value, at_once: Option<&Value>) -> Value {
    let mut status = status.clone();
    let Some(fields) = status.as_object_mut() else { return status };
    let (of_kratix, at_once) = (owners::of_kratix, at_once.cloned().unwrap_or_default());
    fields.retain(|name, _| of_kratix(name) || at_once.get(name).is_some());
    let conditions = fields.get("conditions").map(by_type).unwrap_or_default();
    fields.insert("conditions".to_owned(), conditions);
    if by_type(&at_once["conditions"]).get(CONFIGURE_WORKFLOW_COMPLETED).is_none() {
        fields.remove("message");
        let of_a_run =
            [("/conditions", CONFIGURE_WORKFLOW_COMPLETED), ("", LAST_SUCCESS), ("/kratix/workflows", LAST_SUCCESS)];
        for (place, name) in of_a_run {
            if let Some(place) = status.pointer_mut(place).and_then(Value::as_object_mut) {
                place.remove(name);
            }
        }
    }
    status
}

/// Returns conditions by their type, without those that only tell of what was before.
fn by_type(conditions: &Value) -> Value {
    let lasting = conditions.as_array().into_iter().flatten().filter(|found| !is_of_the_way(found));
    lasting.map(|found| (found["type"].as_str().unwrap_or_default().to_owned(), found.clone())).collect()
}

/// Told by a Promise that has changed and by a request whose Promise was not available, and only by these.
fn is_of_the_way(condition: &Value) -> bool {
    condition["status"] == "True"
        && ["RequestsUpToDate", "PromiseAvailable"].iter().any(|kind| condition["type"] == *kind)
}

/// Reads which sequences are asked for, and which of their changes.
fn asked(text: &str) -> (Range<u64>, Option<Vec<usize>>) {
    let number = |text: &str| text.parse::<u64>().unwrap();
    match (text.split_once(".."), text.split_once(':')) {
        (Some((first, end)), _) => (number(first)..number(end), None),
        (None, Some((one, changes))) => {
            let changes = changes.split(',').filter(|at| !at.is_empty()).map(|at| at.parse().unwrap()).collect();
            (number(one)..number(one) + 1, Some(changes))
        }
        (None, None) => (number(text)..number(text) + 1, None),
    }
}

#[test]
fn any_sequence_of_changes_ends_where_the_last_state_alone_does() {
    let asked_for = std::env::var(ASKED).ok();
    let (numbers, chosen) = asked_for.as_deref().map_or((SEQUENCES, None), asked);
    let threads = match asked_for {
        Some(_) => std::thread::available_parallelism().map_or(1, usize::from),
        None => 1,
    };
    let (total, queue, failures) = (numbers.end - numbers.start, Mutex::new(numbers), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some(number) = queue.lock().next() else { return };
                    let sequence = Sequence::of(number);
                    if let Err(failure) = sequence.check(&chosen.clone().unwrap_or_else(|| sequence.all())) {
                        report(&failure);
                        failures.lock().push(failure);
                    }
                }
            });
        }
    });
    let failures = failures.lock();
    if asked_for.is_some() {
        report(&format!("sequences: {total} runs, {} failed", failures.len()));
    }
    assert!(failures.is_empty(), "{} of {total} sequences failed", failures.len());
}

#[test]
fn a_sequence_that_fails_is_told_by_the_changes_that_it_takes() {
    let mut sequence = Sequence::of(6);
    // What is there in the end and was wanted by nobody.
    let planted = crate::scenario::request("unnoted", "small");
    sequence.changes.insert(2, (Change::Unnoted(planted), Pause::Not));
    let failure = sequence.check(&sequence.all()).unwrap_err();
    assert!(failure.contains("1 of ") && failure.ends_with("--sequence 6:2\n"), "{failure}");
    assert!(failure.contains("default/unnoted: is too much"), "{failure}");
}

#[test]
fn sequences_are_asked_for_by_number_or_range_or_with_the_changes_to_make() {
    assert_eq!(asked("17"), (17..18, None));
    assert_eq!(asked("0..300"), (0..300, None));
    assert_eq!(asked("17:0,3"), (17..18, Some(vec![0, 3])));
    assert_eq!(asked("17:"), (17..18, Some(Vec::new())));
}
