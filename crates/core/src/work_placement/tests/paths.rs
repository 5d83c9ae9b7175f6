//! Where files are, and which paths are nobody's to write.

use super::*;

#[test]
fn files_are_where_they_are_expected() {
    let nested = |path: &str, edit: fn(&mut WorkPlacement)| {
        let mut placement = placement("p", &[]);
        edit(&mut placement);
        Location::of(&placement, &destination(path, FilepathMode::NestedByMetadata))
    };
    let directory = |path: &str| Ok(Location::Directory(path.to_owned()));
    let dependency: fn(&mut WorkPlacement) = |placement| placement.spec.resource_name.clear();
    let static_dependency: fn(&mut WorkPlacement) = |placement| {
        placement.spec.resource_name.clear();
        placement.metadata.labels = Some(labels(&[(keys::PIPELINE_NAME, "")]));
    };
    assert_eq!(nested("d", dependency), directory("d/dependencies/redis/configure/5058f"));
    assert_eq!(nested("./d//e/", static_dependency), directory("d/e/dependencies/redis/5058f"));
    for root in [".", "/", ""] {
        assert_eq!(nested(root, |_| {}), directory("resources/default/redis/my-cache/configure/5058f"));
    }
    let own: fn(&mut WorkPlacement) = |p| p.metadata.annotations = Some(labels(&[(DIRECTORY_NAMESPACE, "team-b")]));
    assert_eq!(nested("d", own), directory("d/resources/team-b/redis/my-cache/configure/5058f"));

    let flat = Location::of(&placement("p.d-5058f", &[]), &destination("a/b/", FilepathMode::None)).unwrap();
    let ledger = ".kratix/default-p.d-5058f.yaml".to_owned();
    assert_eq!(flat, Location::Shared { directory: "a/b".into(), ledger });
    let mut aggregate = destination("a", FilepathMode::AggregatedYaml);
    let file = |name: &str| Ok(Location::Aggregate { directory: "a".into(), file: name.into() });
    assert_eq!(Location::of(&placement("p", &[]), &aggregate), file("aggregated.yaml"));
    aggregate.spec.filepath.filename = "all.yaml".into();
    assert_eq!(Location::of(&placement("p", &[]), &aggregate), file("all.yaml"));
}

#[test]
fn names_that_would_add_or_leave_a_level_are_refused_visibly() {
    let edits: [fn(&mut WorkPlacement); 6] = [
        |p| p.spec.promise_name = "../../x".into(),
        |p| p.spec.promise_name.clear(),
        |p| p.spec.resource_name = "..".into(),
        |p| p.spec.id.clear(),
        |p| p.metadata.labels = Some(labels(&[(keys::PIPELINE_NAME, "a/b")])),
        |p| p.metadata.annotations = Some(labels(&[(DIRECTORY_NAMESPACE, "../x")])),
    ];
    for edit in edits {
        let mut world = World::nested(&[("a.yaml", "1")]);
        edit(world.placement.as_mut().unwrap());
        world.settle();
        assert!(world.files.is_empty());
        let (status, reason, message) = world.condition("WriteSucceeded");
        assert_eq!((status, reason.as_str()), (Status::False, "WorkloadsFailedWrite"), "{message}");
        assert!(message.contains("cannot be a directory name"), "{message}");
        world.delete();
        world.settle();
        assert!(world.placement.is_none(), "what was never written goes at once");
    }
    let mut world = World::new(placement("p", &[]), destination("d", FilepathMode::Other("upsideDown".into())));
    world.settle();
    assert_eq!(world.condition("WriteSucceeded").2, "unsupported file path mode: upsideDown");
}

#[test]
fn a_path_that_leads_out_is_handed_on_for_the_store_to_refuse_and_one_that_stays_is_cleaned() {
    for (given, handed) in [
        ("a/../b.yaml", "b.yaml"),
        ("./a//b.yaml", "a/b.yaml"),
        ("../b.yaml", "../b.yaml"),
        ("a/../../b.yaml", "../b.yaml"),
        ("/etc/passwd", "/etc/passwd"),
        (".git/config", ".git/config"),
    ] {
        let world = World::nested(&[(given, "1")]);
        let Operation::Replace(files) = decide(&world.snapshot()).effect.unwrap().change.operation else { panic!() };
        assert_eq!(files[0].path, handed);
    }
}

#[test]
fn in_a_shared_directory_state_files_and_test_documents_belong_to_kratix() {
    for path in [".kratix/default-other.yaml", ".kratix", "a/../.kratix/x", "kratix-canary-namespace.yaml"] {
        let mut world = World::new(placement("p", &[(path, "1")]), destination("d", FilepathMode::None));
        world.settle();
        assert!(world.files.is_empty(), "{path}");
        let (status, _, message) = world.condition("WriteSucceeded");
        assert_eq!(status, Status::False);
        assert!(message.ends_with("; hint: give the file another name"), "{message}");
        assert_eq!(world.condition("Ready").2, "Failing");
    }
}
