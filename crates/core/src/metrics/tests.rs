use kratix_api::{Time, WorkPlacementSpec, WorkSpec};

use super::*;
use crate::state_store::Failure;
use crate::work::tests::{at, destination, group, labels, work};
use crate::work::{Snapshot, decide};

fn told(samples: &[Sample]) -> Vec<String> {
    let mut told: Vec<String> = samples
        .iter()
        .map(|sample| {
            let pairs = sample.attributes.iter().map(|(key, value)| format!("{key}={value}"));
            format!("{} {}", sample.counter.name(), pairs.collect::<Vec<_>>().join(" "))
        })
        .collect();
    told.sort();
    told
}

fn counted(snapshot: &Snapshot) -> Vec<String> {
    told(&counted_samples(snapshot))
}

fn counted_samples(snapshot: &Snapshot) -> Vec<Sample> {
    outcomes(&snapshot.work, &decide(snapshot).findings)
}

fn snapshot(work: Work, destinations: Vec<kratix_api::Destination>) -> Snapshot {
    Snapshot {
        now: at(0),
        work: work.into(),
        destinations: destinations.into_iter().map(Into::into).collect(),
        places: Default::default(),
        placements: Vec::new(),
        neighbours: Vec::new(),
    }
}

#[test]
fn weakness_14_each_placement_of_a_group_is_counted_by_its_own_outcome() {
    let selector: &[(&str, &[(&str, &str)])] = &[("promise", &[("env", "prod")])];
    let matching = |name: &str| destination(name, &[("env", "prod")]);
    let mut snapshot =
        snapshot(work("w", vec![group(".", selector)]), vec![matching("a"), matching("b"), matching("c")]);
    for write in decide(&snapshot).writes {
        let crate::plan::Write::Create { object, .. } = write else { continue };
        snapshot.placements.push(std::sync::Arc::new(serde_json::from_value(object).unwrap()));
    }
    snapshot.destinations[0] = destination("a", &[("env", "dev")]).into();
    let metric = "kratix_workplacement_outcomes_total";
    let of =
        |result: &str, on: &str| format!("{metric} result={result} promise=redis namespace=default destination={on}");
    assert_eq!(counted(&snapshot), [of("misplaced", "a"), of("scheduled", "b"), of("scheduled", "c")]);
}

#[test]
fn a_group_without_a_destination_is_counted_once_and_names_none() {
    let selector: &[(&str, &[(&str, &str)])] = &[("promise", &[("env", "prod")])];
    let mut work = work("w", vec![group(".", selector), group("x", &[])]);
    work.spec = WorkSpec { resource_name: "mine".into(), ..work.spec };
    let metric = "kratix_workplacement_outcomes_total";
    assert_eq!(
        counted(&snapshot(work, vec![destination("a", &[])])),
        [
            format!("{metric} result=scheduled promise=redis resource=mine namespace=default destination=a"),
            format!("{metric} result=unscheduled promise=redis resource=mine namespace=default"),
        ]
    );
}

#[test]
fn an_attempt_to_write_is_counted_and_one_to_remove_is_not() {
    let spec = WorkPlacementSpec {
        promise_name: "redis".into(),
        target_destination_name: "a".into(),
        ..WorkPlacementSpec::default()
    };
    let mut placement = WorkPlacement::new("p", spec);
    placement.metadata.labels = Some(labels(&[("kratix.io/pipeline-name", "configure")]));
    let failure = Failure::content("no".to_owned());
    let attempt = Attempt { stamp: String::new(), at: at(0), outcome: Err(failure) };
    let metric = "kratix_workplacement_writes_total";
    assert_eq!(
        told(&Vec::from_iter(write(&placement, &attempt))),
        [format!("{metric} result=failure promise=redis destination=a pipeline=configure")]
    );
    placement.metadata.deletion_timestamp = Some(Time(at(0)));
    assert_eq!(write(&placement, &attempt), None);
}

#[test]
fn a_text_that_is_longer_than_any_name_is_cut_and_cannot_fill_memory() {
    let long = |end: &str| format!("{}{end}", "ü".repeat(500_000));
    let work = |resource: String| {
        let mut work = work("w", vec![group("x", &[])]);
        (work.spec.promise_name, work.spec.resource_name) = (long(""), resource);
        counted_samples(&snapshot(work, vec![destination("a", &[])]))
    };
    let bytes = |samples: &[Sample]| {
        let values = samples.iter().flat_map(|sample| &sample.attributes).map(|(_, value)| value.capacity());
        values.max().unwrap()
    };
    let (one, two) = (work(long("1")), work(long("2")));
    assert_eq!((one.len(), bytes(&one)), (1, ATTRIBUTE_BYTES_MAX - 1), "no letter is cut in two");
    assert_eq!(one, two, "each edit would be a series more");
    let name = "n".repeat(ATTRIBUTE_BYTES_MAX);
    assert_eq!(work(name.clone())[0].attributes[2], ("resource", name));

    let spec = WorkPlacementSpec { resource_name: long(""), target_destination_name: long(""), ..Default::default() };
    let attempt = Attempt { stamp: String::new(), at: at(0), outcome: Err(Failure::content(String::new())) };
    let written = Vec::from_iter(write(&WorkPlacement::new("p", spec), &attempt));
    assert_eq!((written.len(), bytes(&written)), (1, ATTRIBUTE_BYTES_MAX - 1));
}
