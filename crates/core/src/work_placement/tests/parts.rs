//! Placements whose files are in parts: in the store they are like any other.

use kratix_api::WorkloadGroup;
use kratix_api::part::{self, Split};

use super::*;

/// Files of which one takes several parts.
fn large() -> Vec<(&'static str, String)> {
    let noise = |seed: u32| {
        let numbers = (0..110_000).scan(seed, |state, _| {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some(format!("{state:08x}\n"))
        });
        numbers.collect::<String>()
    };
    vec![("a.yaml", "a: 1\n".into()), ("big.yaml", noise(1) + &noise(2)), ("z.yaml", "z: 1\n".into())]
}

/// Returns a placement whose files are in parts, and the parts.
fn in_parts(placement: &WorkPlacement, files: &[(&str, String)]) -> (WorkPlacement, Parts) {
    let workloads = files.iter().map(|(path, content)| workload(path, content)).collect();
    let split = Split::of(vec![WorkloadGroup { workloads, ..WorkloadGroup::for_directory(".") }]);
    let key = |name: String| ObjectKey::namespaced("default", name);
    let parts =
        split.parts.iter().map(|part| (key(part.name("w")), Some(Arc::from(part.workloads.as_slice())))).collect();
    let mut placement = placement.clone();
    placement.spec.workloads = split.groups("w").remove(0).workloads;
    (placement, parts)
}

fn inline(placement: &WorkPlacement, files: &[(&str, String)]) -> WorkPlacement {
    let mut placement = placement.clone();
    placement.spec.workloads = files.iter().map(|(path, content)| workload(path, content)).collect();
    placement
}

#[test]
fn files_in_parts_arrive_as_those_in_one_object_in_every_mode() {
    for mode in [FilepathMode::NestedByMetadata, FilepathMode::None, FilepathMode::AggregatedYaml] {
        let mut other = placement("o", &[("o.yaml", "o: 1\n")]);
        other.metadata.name = Some("o".into());
        let place = |placement: WorkPlacement, parts: Parts| {
            let mut world = World::new(placement, destination("d", mode.clone()));
            world.parts = parts;
            if mode == FilepathMode::AggregatedYaml {
                world.members.push(other.clone());
            }
            world.settle();
            world
        };
        let small = place(inline(&placement("p", &[]), &large()), Parts::new());
        let (whole, parts) = in_parts(&placement("p", &[]), &large());
        assert!(parts.len() > 3, "{} parts", parts.len());
        let mut large = place(whole, parts);
        assert_eq!(large.condition("WriteSucceeded"), small.condition("WriteSucceeded"), "{mode:?}");
        assert_eq!(large.files, small.files, "{mode:?}");
        assert_eq!(large.commits, small.commits, "{mode:?}");

        // A new process asks for the same again, which changes nothing; then everything goes, which needs no part.
        large.restart();
        large.settle();
        assert_eq!(large.commits.len(), 1, "{mode:?}");
        large.parts.clear();
        large.delete();
        large.settle();
        assert!(large.placement.is_none() && !large.paths().contains(&"d/big.yaml"), "{mode:?}");
    }
}

#[test]
fn nothing_is_read_for_a_pass_that_writes_nothing() {
    let (placement, parts) = in_parts(&placement("p", &[]), &large());
    let mut world = World::new(placement, destination("d", FilepathMode::NestedByMetadata));
    world.parts = parts;
    let lacking = |world: &World| {
        let snapshot = world.snapshot();
        lacks_parts(&snapshot, &decide(&snapshot)).len()
    };
    assert_eq!(lacking(&world), world.parts.len());
    world.settle();
    assert_eq!(lacking(&world), 0);
    world.restart();
    world.store = not_ready();
    assert_eq!(lacking(&world), 0);
}

#[test]
fn a_part_that_is_gone_or_was_altered_is_said_and_comes_back() {
    let (placement, parts) = in_parts(&placement("p", &[]), &large());
    let name = &parts.keys().next().unwrap().clone();
    for (found, said) in [(None, "does not exist"), (Some(Arc::from([workload("x", "y")])), "was altered")] {
        let mut world = World::new(placement.clone(), destination("d", FilepathMode::NestedByMetadata));
        world.parts = parts.clone();
        world.parts.insert(name.clone(), found);
        world.settle();
        let (status, reason, message) = world.condition("WriteSucceeded");
        assert_eq!((status, reason.as_str()), (Status::False, "WorkloadsFailedWrite"));
        let text = format!("work {name} with a part of the files {said}: the pipeline has to run again");
        assert!(message.contains(&text), "{message}");
        assert!(world.files.is_empty());
        let next = decide(&Snapshot { has_turn: true, parts: world.parts.clone(), ..world.snapshot() }).plan.next;
        assert_eq!(next, Next::After(RETRY_AFTER), "no watch tells when it is back");
        world.parts = parts.clone();
        world.settle();
        assert_eq!(world.condition("WriteSucceeded").0, Status::True);
        assert_eq!(world.files.len(), 3);
    }
}

#[test]
fn a_part_of_a_neighbour_that_is_missing_is_told_of_the_neighbour() {
    let (mut other, _) = in_parts(&placement("o", &[]), &large());
    other.metadata.name = Some("o".into());
    let mut world = World::new(placement("p", &[("a.yaml", "a")]), destination("d", FilepathMode::AggregatedYaml));
    world.members.push(other);
    world.settle();
    let message = world.condition("WriteSucceeded").2;
    assert!(message.contains("workplacement default/o: work default/w.part-"), "{message}");
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    for mode in [FilepathMode::NestedByMetadata, FilepathMode::AggregatedYaml] {
        let (mut placement, _) = in_parts(&placement("p", &[]), &large());
        for reference in &mut placement.spec.workloads {
            let (text, _) = reference.content.rsplit_once(' ').unwrap();
            reference.content = format!("{text} {}", 60 << 20);
        }
        let world = World::new(placement, destination("d", mode));
        let snapshot = world.snapshot();
        let decision = decide(&snapshot);
        assert!(decision.effect.is_none() && !decision.is_large);
        assert_eq!(lacks_parts(&snapshot, &decision).len(), 0);
        let Some(Finding::Failed { message }) = decision.plan.findings.first() else { panic!("{decision:?}") };
        assert_eq!(*message, too_large(&world));
    }
}

/// Returns what is to be said of content that is too large.
fn too_large(world: &World) -> String {
    match world.destination.as_ref().unwrap().spec.filepath.mode {
        FilepathMode::AggregatedYaml => {
            "all documents of destination worker-1 together are larger than 67108864 bytes, the most that one file takes; hint: \
             place some of them on another Destination, or all on one with another spec.filepath.mode"
        }
        _ => "the files are larger than 67108864 bytes together; hint: let the pipeline write less",
    }
    .to_owned()
}

/// Returns what is said of a placement's content, once it is its turn.
fn refusal(world: &World) -> String {
    let mut snapshot = world.snapshot();
    assert!(decide(&snapshot).is_large);
    let decision = world.decide(&mut snapshot);
    assert!(decision.effect.is_none() && !decision.is_large);
    let Some(Finding::Failed { message }) = decision.plan.findings.first() else { panic!("{decision:?}") };
    message.clone()
}

#[test]
fn a_part_of_many_files_that_is_named_many_times_is_refused_before_it_is_taken_apart() {
    // It holds nothing, and says so: what it takes is not what it holds.
    let empty = Workload { filepath: "a".into(), content: String::new() };
    let split = Split::of(vec![WorkloadGroup { workloads: vec![empty; 30_000], ..WorkloadGroup::for_directory(".") }]);
    assert_eq!(split.parts.len(), 1);
    let reference = split.groups("w").remove(0).workloads.remove(0);
    assert!(reference.content.ends_with(" 0"));
    let key = ObjectKey::namespaced("default", reference.filepath.clone());
    for mode in [FilepathMode::NestedByMetadata, FilepathMode::AggregatedYaml] {
        let mut bomb = placement("p", &[]);
        bomb.spec.workloads = vec![reference.clone(); 1_000];
        let mut world = World::new(bomb, destination("d", mode));
        world.parts = Parts::from([(key.clone(), Some(Arc::from(split.parts[0].workloads.as_slice())))]);
        assert_eq!(refusal(&world), too_large(&world));
    }
}

#[test]
fn a_part_that_is_larger_than_its_reference_says_is_not_taken_for_it() {
    let (mut placement, parts) = in_parts(&placement("p", &[]), &large());
    for reference in &mut placement.spec.workloads {
        let (text, _) = reference.content.rsplit_once(' ').unwrap();
        reference.content = format!("{text} 0");
    }
    let mut world = World::new(placement, destination("d", FilepathMode::NestedByMetadata));
    world.parts = parts;
    let message = refusal(&world);
    assert!(message.contains("was altered: the pipeline has to run again"), "{message}");
}

#[test]
fn more_parts_than_there_is_room_for_are_not_all_read_and_what_is_missing_of_them_is_not_left_out() {
    let (placement, parts) = in_parts(&placement("p", &[]), &large());
    let mut world = World::new(placement, destination("d", FilepathMode::NestedByMetadata));
    world.parts = parts;
    let filling: Vec<Workload> = vec![Workload { filepath: "a".into(), content: String::new() }; 400_000];
    let last = world.parts.keys().last().unwrap().clone();
    world.parts.insert(last, Some(filling.clone().into()));
    let mut room = Room::default();
    assert!(room.takes(&filling) && !room.takes(&filling) && !room.takes(&filling[..1]), "one is as much as there is");
    let first = world.parts.keys().next().unwrap().clone();
    world.parts.insert(first, Some([filling.clone(), filling].concat().into()));
    assert_eq!(refusal(&world), too_large(&world));
}

#[test]
fn content_that_is_large_once_it_is_decompressed_waits_for_its_turn_and_arrives_as_any_other() {
    let zeros = |bytes: usize| vec![("a.yaml", "a".to_owned()), ("z.yaml", "0".repeat(bytes))];
    for mode in [FilepathMode::NestedByMetadata, FilepathMode::None, FilepathMode::AggregatedYaml] {
        let first = |bytes: usize| {
            let world = World::new(inline(&placement("p", &[]), &zeros(bytes)), destination("d", mode.clone()));
            let decision = decide(&world.snapshot());
            (world, decision.effect.is_some(), decision.is_large)
        };
        let (_, is_made, is_large) = first(SMALL_BYTES_MAX - 100);
        assert_eq!((is_made, is_large), (true, false), "{mode:?}");
        let (mut world, is_made, is_large) = first(SMALL_BYTES_MAX);
        assert_eq!((is_made, is_large), (false, true), "{mode:?}");
        world.settle();
        assert_eq!(world.condition("WriteSucceeded").0, Status::True, "{mode:?}");
        assert!(world.files.values().map(String::len).sum::<usize>() > SMALL_BYTES_MAX, "{mode:?}");
    }
    // What is too large in any case is said when it is its turn.
    let bomb = inline(&placement("p", &[]), &zeros(CONTENT_BYTES_MAX));
    for mode in [FilepathMode::None, FilepathMode::AggregatedYaml] {
        let world = World::new(bomb.clone(), destination("d", mode));
        assert_eq!(refusal(&world), too_large(&world));
    }
}

#[test]
fn nobody_is_blamed_for_documents_that_are_too_large_for_one_file_only_together() {
    let zeros = |bytes: usize| vec![("z.yaml", "0".repeat(bytes))];
    let mut other = inline(&placement("o", &[]), &zeros(CONTENT_BYTES_MAX / 2));
    other.metadata.name = Some("o".into());
    let mut world = World::new(
        inline(&placement("p", &[]), &zeros(CONTENT_BYTES_MAX / 2 + 1)),
        destination("d", FilepathMode::AggregatedYaml),
    );
    world.members.push(other);
    assert_eq!(refusal(&world), too_large(&world));
    world.settle();
    let told = world.condition("WriteSucceeded");
    assert_eq!((told.0, told.2.contains("workplacement default/")), (Status::False, false), "{}", told.2);
    // It heals when another one goes.
    world.members.pop();
    world.attempt = None;
    world.settle();
    assert_eq!(world.condition("WriteSucceeded").0, Status::True);
}

#[test]
fn very_many_files_are_large_however_little_they_hold() {
    let files = |count: usize| (0..count).map(|at| workload(&format!("{at:04}"), "")).collect::<Vec<_>>();
    for (count, is_large) in [(2_000, false), (5_000, true)] {
        let mut placement = placement("p", &[]);
        placement.spec.workloads = files(count);
        let mut world = World::new(placement, destination("d", FilepathMode::None));
        assert_eq!(decide(&world.snapshot()).is_large, is_large, "{count} files");
        let effect = world.decide(&mut world.snapshot()).effect.expect("there is something to write");
        assert_eq!(effect.change.held_bytes(), count * (part::FILE_BYTES + 4));
        world.settle();
        assert_eq!(world.files.len(), count + 1, "and the note whose they are");
    }
}

#[test]
fn a_file_of_many_without_the_one_that_goes_may_be_large_too() {
    let mut other = inline(&placement("o", &[]), &[("o.yaml", "0".repeat(SMALL_BYTES_MAX + 1))]);
    other.metadata.name = Some("o".into());
    let mut world = World::new(placement("p", &[("a.yaml", "a")]), destination("d", FilepathMode::AggregatedYaml));
    world.members.push(other);
    world.settle();
    world.delete();
    let decision = decide(&world.snapshot());
    assert_eq!((decision.effect.is_some(), decision.is_large), (false, true));
    world.settle();
    assert!(world.placement.is_none());
    assert_eq!(world.files.values().map(String::len).collect::<Vec<_>>(), [SMALL_BYTES_MAX + 1]);
}

#[test]
fn files_in_parts_may_be_anywhere_in_a_shared_directory() {
    let left = Site::of(&placement("p", &[]), &destination("d/sub", FilepathMode::NestedByMetadata), "here").unwrap();
    let claim = |placement: WorkPlacement| Claim {
        placement: Arc::new(placement),
        destination: Arc::new(destination("d", FilepathMode::None)),
        place: "here".into(),
    };
    let other = placement("o", &[("elsewhere.yaml", "a")]);
    assert!(!left.is_taken_by(&claim(other.clone())));
    assert!(left.is_taken_by(&claim(in_parts(&other, &large()).0)), "nobody knows without reading them");
}
