//! The first choice of a request spreads evenly and moves as little as possible.

use super::*;
use crate::work::choice::choose;

/// Requests of one experiment.
const REQUESTS: usize = 1_000;

/// How many standard deviations a share may be off. A binomial share is farther off once in 500 million times, so that
/// all experiments of all runs together never see it.
const DEVIATIONS: f64 = 6.0;

/// The most and the least that a share of `REQUESTS` may be if each request falls into it with this probability.
fn bounds(probability: f64) -> std::ops::RangeInclusive<f64> {
    let mean = REQUESTS as f64 * probability;
    let deviation = (mean * (1.0 - probability)).sqrt() * DEVIATIONS;
    mean - deviation..=mean + deviation
}

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?"
}

/// Sorted names of different Destinations.
fn names() -> impl Strategy<Value = Vec<String>> {
    let random = prop::collection::btree_set(name(), 2..24);
    // As people name them.
    let numbered =
        (name(), 2usize..24).prop_map(|(prefix, count)| (0..count).map(|n| format!("{prefix}{n}")).collect());
    prop_oneof![random, numbered].prop_map(|names: std::collections::BTreeSet<String>| names.into_iter().collect())
}

fn destinations(names: &[String]) -> Vec<Arc<Destination>> {
    names.iter().map(|name| Arc::new(destination(name, &[]))).collect()
}

fn choice(work: &Work, destinations: &[Arc<Destination>]) -> String {
    choose(work, &work.spec.workload_groups[0], destinations.iter()).unwrap().name_any()
}

/// The choices of requests whose names begin alike.
fn choices(prefix: &str, count: usize, destinations: &[Arc<Destination>]) -> Vec<String> {
    let mut work = request("w", vec![group(".", &[])]);
    let mut choice = |n: usize| {
        work.spec.resource_name = format!("{prefix}{n}");
        choice(&work, destinations)
    };
    (0..count).map(&mut choice).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    // spec 05 §5.3; issue: "spreads evenly; state the spread in a property test"
    #[test]
    fn each_of_equal_destinations_gets_its_share_of_requests(names in names(), prefix in name()) {
        let mut shares: BTreeMap<String, usize> = names.iter().map(|name| (name.clone(), 0)).collect();
        for chosen in choices(&prefix, REQUESTS, &destinations(&names)) {
            *shares.get_mut(&chosen).unwrap() += 1;
        }
        let bounds = bounds(1.0 / names.len() as f64);
        for (name, share) in &shares {
            prop_assert!(bounds.contains(&(*share as f64)), "{name} got {share}, not {bounds:?}: {shares:?}");
        }
    }

    #[test]
    fn one_that_is_added_takes_its_share_and_one_that_is_removed_leaves_only_its_own(
        names in names(), prefix in name(), which in any::<prop::sample::Index>(),
    ) {
        let other = which.get(&names).clone();
        let fewer: Vec<String> = names.iter().filter(|name| **name != other).cloned().collect();
        let with = choices(&prefix, REQUESTS, &destinations(&names));
        let without = choices(&prefix, REQUESTS, &destinations(&fewer));
        let moved: Vec<&String> = with.iter().zip(&without).filter(|(one, two)| one != two).map(|(one, _)| one).collect();
        prop_assert!(moved.iter().all(|chosen| **chosen == other), "only what is on {other} moves: {moved:?}");
        let bounds = bounds(1.0 / names.len() as f64);
        prop_assert!(bounds.contains(&(moved.len() as f64)), "{} moved, not {bounds:?}", moved.len());
    }

    #[test]
    fn the_order_of_destinations_does_not_matter(
        (names, shuffled) in names().prop_flat_map(|names| (Just(names.clone()), Just(names).prop_shuffle())),
        prefix in name(),
    ) {
        prop_assert_eq!(choices(&prefix, 50, &destinations(&names)), choices(&prefix, 50, &destinations(&shuffled)));
    }
}

#[test]
fn the_choice_is_that_of_the_manifests_and_each_group_and_pipeline_has_its_own() {
    let names: Vec<String> = (0..16).map(|n| format!("d{n}")).collect();
    let destinations = destinations(&names);
    let choice = |work: &Work| choice(work, &destinations);
    let mut reborn = request("w", vec![group(".", &[])]);
    let first = choice(&reborn);
    reborn.metadata.uid = Some("another".into());
    reborn.metadata.name = Some("another".into());
    reborn.metadata.generation = Some(7);
    assert_eq!(choice(&reborn), first);

    // Pinned: what a version has chosen, the next one chooses too.
    assert_eq!(first, "d9");

    let differ = |change: &dyn Fn(&mut Work, String)| {
        let chosen = (0..64).map(|n| {
            let mut work = request("w", vec![group(".", &[])]);
            change(&mut work, format!("x{n}"));
            choice(&work)
        });
        chosen.collect::<std::collections::BTreeSet<_>>().len() > 8
    };
    assert!(differ(&|work, x| work.spec.workload_groups[0] = group(&x, &[])));
    assert!(differ(&|work, x| work.spec.promise_name = x));
    assert!(differ(&|work, x| work.metadata.namespace = Some(x)));
    for key in [keys::PIPELINE_NAME, keys::RESOURCE_NAMESPACE] {
        assert!(differ(&|work, x| drop(work.metadata.labels.as_mut().unwrap().insert(key.into(), x))), "{key}");
    }
}
