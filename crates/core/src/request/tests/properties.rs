//! Whatever write a crash precedes, and whatever pass sees yesterday's caches, the end is the same.

use super::*;

/// A long life: two runs, a manual one, a suspension, a failure, a new revision, and the end.
fn life(mut world: World) -> Vec<World> {
    let mut ends = Vec::new();
    world.ask("a");
    world.play("a");
    world.wait(5);
    world.change("Env", &key("a"), json!({ "spec": { "size": "large" } }));
    world.settle("a");
    world.finish("a", Pod::Suspends);
    world.settle("a");
    world.label("a", keys::WORKFLOW_SUSPENDED, None);
    world.play("a");
    ends.push(world.clone());
    world.wait(5);
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    world.settle("a");
    world.finish("a", Pod::Fails);
    world.settle("a");
    ends.push(world.clone());
    world.revise("v2", spec(&["first", "third"], &["bye"], ""));
    world.play("a");
    ends.push(world.clone());
    world.delete("Env", &key("a"));
    world.settle("a");
    world.finish("a", Pod::Succeeds);
    world.settle("a");
    ends.push(world);
    ends
}

fn world() -> World {
    World::new(spec(&["first", "second"], &["bye"], ""))
}

/// Returns the objects without what merely counts writes.
fn essence(world: &World) -> Vec<Value> {
    let mut objects: Vec<Value> = world.objects.values().cloned().collect();
    for object in &mut objects {
        object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    }
    objects
}

#[test]
fn a_crash_before_any_write_leads_to_the_same_end() {
    let calm = life(world());
    let writes = calm.last().unwrap().writes.len();
    assert!(writes > 40, "{writes}");
    for crash in 0..writes {
        let mut world = world();
        world.crash_before = Some(crash);
        for (ours, calm) in life(world).iter().zip(&calm) {
            assert_eq!(essence(ours), essence(calm), "crash before write {crash}: {:?}", calm.writes.get(crash));
        }
    }
}

#[test]
fn a_pass_on_old_caches_leads_to_the_same_end() {
    let calm = life(world());
    let passes = calm.last().unwrap().passes;
    for pass in 1..=passes {
        let mut world = world();
        world.stale_in = Some(pass);
        for (ours, calm) in life(world).iter().zip(&calm) {
            let jobs = |world: &World| world.keys("Job");
            assert_eq!(jobs(ours), jobs(calm), "old caches in pass {pass}");
            assert_eq!(essence(ours), essence(calm), "old caches in pass {pass}");
        }
    }
}

#[test]
fn a_world_at_rest_stays_silent_when_time_passes_and_passes_repeat() {
    for mut world in life(world()) {
        if world.keys("Env").is_empty() {
            continue;
        }
        world.wait(30);
        for _ in 0..3 {
            assert!(world.decide("a").is_silent());
        }
    }
}

#[test]
fn the_same_snapshot_gives_the_same_plan() {
    let mut world = world();
    world.ask("a");
    for _ in 0..12 {
        let (one, two) = (world.decide("a"), world.decide("a"));
        assert_eq!(one, two);
        world.act(&one);
    }
}
