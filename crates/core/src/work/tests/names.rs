//! Names that are long or odd: said early and clearly, and never a panic (spec 05 weakness 8).

use super::*;
use crate::work::selector::{is_label_value, is_subdomain};

fn refusal(world: &mut World) -> String {
    world.settle();
    let (status, reason, message) = world.condition("ScheduleSucceeded");
    assert_eq!((status, reason.as_str()), (Status::False, "FailedToScheduleWorkloads"), "{message}");
    assert_eq!(world.condition("Ready"), text((Status::False, "FailedToScheduleWorkloads", "Pending")));
    message
}

#[test]
fn a_name_that_no_label_can_hold_is_named_with_its_limit() {
    let long = "d".repeat(64);
    let mut world = World::new(request("w", vec![group(".", &[])]), vec![destination(&long, &[])]);
    let expected = format!(
        "Failed to schedule or update for workloadGroups: [{DOT}]: the name of destination {long:?} is longer than 63 \
         characters, so no label can hold it"
    );
    assert_eq!(refusal(&mut world), expected);
    assert!(world.names().is_empty());
    let mut world = World::new(request(&long, vec![group(".", &[])]), vec![destination("d", &[])]);
    assert!(refusal(&mut world).contains("the name of work"));
    // The longest that fit.
    let long = "d".repeat(63);
    let mut world = World::new(request(&"w".repeat(63), vec![group(".", &[])]), vec![destination(&long, &[])]);
    world.settle();
    assert_eq!(world.condition("Ready").2, "Ready");
    assert!(world.names()[0].len() <= 253);
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-z0-9.-]{0,80}",
        "[a-zA-Z0-9_./-]{0,40}",
        "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\\.[a-z0-9]{1,60}){0,4}",
        Just(DOT.to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_the_names_are_nothing_panics_and_what_is_made_is_valid(
        name in word(), ids in prop::collection::vec(word(), 0..4), on in prop::collection::vec(word(), 0..4),
        promise in word(), resource in word(), (key, value) in (word(), word()), selects in any::<bool>(),
    ) {
        let pairs: &[(&str, &str)] = &[(&key, &value)];
        let selectors: &[(&str, &[(&str, &str)])] = &[("promise", pairs)];
        let groups = ids.iter().map(|id| {
            let mut group = group(".", if selects { selectors } else { &[] });
            group.id = id.clone();
            group
        });
        let mut work = work(&name, groups.collect());
        work.spec.promise_name = promise;
        work.spec.resource_name = resource;
        work.metadata.labels = None;
        let on: std::collections::BTreeSet<String> = on.into_iter().collect();
        let destinations = on.iter().map(|name| destination(name, if selects { pairs } else { &[] })).collect();
        let world = World::new(work, destinations);
        let plan = world.decide();
        let is_name = is_subdomain(&name);
        for write in &plan.writes {
            let Write::Create { object, .. } = write else { continue };
            let placement: WorkPlacement = serde_json::from_value(object.clone()).unwrap();
            let target = &placement.spec.target_destination_name;
            prop_assert!(placement.name_any().len() <= 253);
            // The API server has accepted the names of the Work and of the Destination.
            if is_name && is_subdomain(target) {
                prop_assert!(is_subdomain(&placement.name_any()), "{}", placement.name_any());
                for (key, value) in placement.labels() {
                    prop_assert!(is_label_value(value), "{key}={value}");
                }
            }
        }
        let refused = plan.findings.iter().filter(|finding| matches!(finding, Finding::Refused { .. })).count();
        for id in ids.iter().filter(|id| id.len() < 5) {
            let is_told = |finding: &Finding| matches!(finding, Finding::Refused { group, .. } if group == id);
            prop_assert!(refused > 0 && plan.findings.iter().any(is_told), "{id:?}: {:?}", plan.findings);
        }
    }
}
