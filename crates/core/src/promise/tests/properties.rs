//! What holds for every Promise: rest is silent, the same world gives the same plan, and any crash recovers.

use serde_json::{Value, json};

use crate::promise::decide;
use crate::promise::testing::{World, api, dependency, pipeline};

fn specs() -> Vec<Value> {
    let workflows =
        json!({ "promise": { "configure": [pipeline("one"), pipeline("two")], "delete": [pipeline("bye")] } });
    vec![
        json!({}),
        json!({ "dependencies": [dependency("a"), dependency("b")] }),
        json!({ "api": api() }),
        json!({ "workflows": workflows }),
        json!({ "api": api(), "dependencies": [dependency("a")], "workflows": workflows }),
        json!({ "api": api(), "requiredPromises": [{ "name": "missing" }], "workflows": workflows }),
        json!({ "api": { "kind": "Nonsense" }, "dependencies": [dependency("a")] }),
    ]
}

/// The whole life of a Promise: it settles, changes, is paused, runs again, and goes.
const STEPS: [fn(&mut World); 7] = [
    |_| {},
    |world| world.request("a"),
    |world| world.patch_promise(json!({ "spec": { "dependencies": [dependency("c")] } })),
    |world| world.label("kratix.io/promise-version", json!("v2")),
    |world| world.label("kratix.io/paused", json!("true")),
    |world| {
        world.label("kratix.io/paused", json!(null));
        world.label("kratix.io/manual-reconciliation", json!("true"));
    },
    World::delete_promise,
];

#[test]
fn rest_is_silent_and_stays_so_as_time_goes_by() {
    for spec in specs() {
        let mut world = World::with(spec.clone());
        for (number, step) in STEPS[..6].iter().enumerate() {
            step(&mut world);
            world.settle();
            let version = world.promise()["metadata"]["resourceVersion"].clone();
            world.now += std::time::Duration::from_secs(3000);
            for _ in 0..3 {
                let plan = world.pass().plan;
                assert!(plan.is_silent(), "{spec} after step {number}: {plan:#?}");
            }
            assert_eq!(world.promise()["metadata"]["resourceVersion"], version);
        }
    }
}

#[test]
fn the_same_world_gives_the_same_plan_whatever_the_order_of_lists() {
    for spec in specs() {
        let mut world = World::with(spec);
        for _ in 0..12 {
            let snapshot = world.snapshot();
            let mut turned = snapshot.clone();
            turned.own_works.reverse();
            turned.awaited_jobs.reverse();
            turned.remains.works.reverse();
            turned.remains.jobs.reverse();
            turned.revisions.reverse();
            assert_eq!(decide(&snapshot), decide(&snapshot.clone()));
            assert_eq!(decide(&snapshot).plan.writes, decide(&turned).plan.writes);
            world.pass();
            world.others();
            world.finish_jobs();
        }
    }
}

#[test]
fn any_prefix_of_any_plan_recovers() {
    // The one with everything: it passes through every step of the walk and of the deletion.
    for spec in specs().into_iter().skip(4).take(1) {
        let mut calm = World::with(spec.clone());
        for (number, step) in STEPS.iter().enumerate() {
            step(&mut calm);
            let mut passes = Vec::new();
            calm.settle_with(|_, world, plan| {
                let writes = plan.writes.len() + usize::from(plan.status.is_some());
                if writes > 0 {
                    passes.push((world.clone(), writes));
                }
                usize::MAX
            });
            for (pass, (before, writes)) in passes.iter().enumerate() {
                // Of nothing but a lost pass nobody can tell.
                for prefix in 1..=*writes {
                    let mut crashed = before.clone();
                    crashed.settle_with(|at, _, _| if at == 0 { prefix } else { usize::MAX });
                    let (found, expected) = (crashed.end(), calm.end());
                    let differs = |key: &&String| found.get(*key) != expected.get(*key);
                    let differing: Vec<_> = found.keys().chain(expected.keys()).filter(differs).collect();
                    assert!(
                        differing.is_empty(),
                        "step {number}, crash in pass {pass} after {prefix} writes: {differing:?}\n{:?}",
                        differing.first().map(|key| (found.get(*key), expected.get(*key)))
                    );
                }
            }
        }
        // Without an API the "request" of the second step is just an object of somebody else.
        let left: Vec<_> = calm.objects.keys().filter(|(kind, _)| kind != "Redis").collect();
        assert!(left.is_empty(), "{spec}: {left:?}");
    }
}
