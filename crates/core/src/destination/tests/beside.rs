//! Test documents of one path belong to every Destination that has them there (decision 16).

use super::*;

const DOCUMENTS: [&str; 2] =
    ["worker-1/dependencies/kratix-canary-namespace.yaml", "worker-1/resources/kratix-canary-configmap.yaml"];

/// A Destination of another store.
fn twin(path: &str) -> Destination {
    let mut twin = destination(FilepathMode::NestedByMetadata);
    twin.metadata.name = Some("twin".into());
    twin.spec.path = path.into();
    twin.spec.state_store_ref.as_mut().unwrap().name = "twin".into();
    twin
}

/// Has a Destination of a store at `s/b/` go without test documents in both ways, beside another one, and checks what is left.
fn check(what: &str, other: &Destination, place: &str, left: &[&str]) {
    let mut start = destination(FilepathMode::NestedByMetadata);
    start.spec.cleanup = Cleanup::All;
    let mut world = World::new(start);
    world.store = Availability::Ready { place: "s/b/".into(), epoch: 0 };
    world.settle();
    world.beside = vec![(Arc::new(other.clone()), place.into())];
    let mut deleted = world.clone();
    deleted.delete();
    world.destination.as_mut().unwrap().spec.init_workloads = InitWorkloads { enabled: false };
    for world in [&mut world, &mut deleted] {
        world.settle();
        let found: Vec<&str> = world.files.keys().map(|path| path.trim_start_matches("s/b/:")).collect();
        assert_eq!(found, left, "{what}");
    }
    assert_eq!(world.ready().1, "DestinationReady", "{what}");
    assert!(deleted.destination.is_none(), "{what}");
}

#[test]
fn test_documents_that_another_destination_has_at_the_same_place_stay() {
    check("the same directory of the same repository", &twin("worker-1"), "s/b/", &DOCUMENTS);
    check("the same directory seen from another store path", &twin("."), "s/b/worker-1", &DOCUMENTS);
    check("another branch", &twin("worker-1"), "s/other/", &[]);
    check("another directory", &twin("worker-2"), "s/b/", &[]);
    let mut without = twin("worker-1");
    without.spec.init_workloads = InitWorkloads { enabled: false };
    check("none of its own", &without, "s/b/", &[]);
    let mut flat = twin("worker-1/dependencies");
    flat.spec.filepath.mode = FilepathMode::None;
    check("one of the two", &flat, "s/b/", &DOCUMENTS[..1]);
}

#[test]
fn of_two_destinations_that_go_together_one_removes_the_test_documents() {
    let mut leaving = twin("worker-1");
    leaving.metadata.deletion_timestamp = Some(Time(at(0)));
    check("it leaves its files", &leaving, "s/b/", &DOCUMENTS);
    leaving.spec.cleanup = Cleanup::All;
    check("it cleans up", &leaving, "s/b/", &[]);
}
