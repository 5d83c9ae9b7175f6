//! Rules of Destinations, stores and revisions that the recorded cases do not reach.

use super::*;

fn destination(name: &str, path: &str) -> Value {
    object("Destination", name, json!({"path": path, "stateStoreRef": {"kind": "GitStateStore", "name": "g"}}))
}

fn world(others: &[(&str, &str)]) -> World {
    let store = object("GitStateStore", "g", json!({"url": "https://git.example/x.git"}));
    World::of(others.iter().map(|(name, path)| destination(name, path))).with(store)
}

#[test]
fn the_name_of_the_single_file_is_filled_in() {
    let with_file = |filepath: Value| with(destination("d", "x"), &["spec", "filepath"], filepath);
    let mode = json!({"mode": "aggregatedYAML"});
    let Verdict::Allowed(allowed) = world(&[]).create(with_file(mode.clone())) else { panic!("not allowed") };
    let filled = with_file(json!({"mode": "aggregatedYAML", "filename": "aggregated.yaml"}));
    assert_eq!(allowed.object, Some(filled.clone()));
    for other in [filled, with_file(json!({"mode": "none"})), destination("d", "x")] {
        let Verdict::Allowed(allowed) = world(&[]).create(other) else { panic!("not allowed") };
        assert_eq!(allowed.object, None);
    }
    // Also on the way of an update that changes nothing else.
    let Verdict::Allowed(allowed) = world(&[]).update(with_file(mode.clone()), with_file(mode)) else {
        panic!("not allowed")
    };
    assert!(allowed.object.is_some());
}

#[test]
fn two_destinations_never_share_a_directory() {
    for (path, other) in [("a", "a"), ("a", "./a"), ("/a/", "a"), ("a/../b", "b"), (".", "/")] {
        let message = world(&[("other", other)]).denial(destination("d", path));
        assert!(
            message.starts_with(&format!("destination path '{path}' already exists for state store 'g'")),
            "{message}"
        );
        assert_eq!(message.contains("Destination 'other'"), path != other, "{message}");
    }
    for (path, other) in [("a", "b"), ("a", "ab"), ("a/b", "a/c")] {
        assert_eq!(world(&[("other", other)]).warnings(destination("d", path)), Vec::<String>::new());
    }
    for (path, other, place) in
        [("a/b", "a", "inside"), ("a", "a/b", "around"), ("/", "a", "around"), ("a", ".", "inside")]
    {
        let warnings = world(&[("other", other)]).warnings(destination("d", path));
        let expected = format!(
            "destination path '{path}' lies {place} the path '{other}' of Destination 'other' in state store 'g'"
        );
        assert_eq!(warnings, [expected]);
    }
    let bucket = with(destination("other", "a"), &["spec", "stateStoreRef", "kind"], json!("BucketStateStore"));
    assert_eq!(world(&[]).with(bucket).warnings(destination("d", "a")), Vec::<String>::new());
    assert_eq!(world(&[("d", "a")]).warnings(destination("d", "a")), Vec::<String>::new());
}

#[test]
fn a_path_out_of_the_store_is_refused() {
    for path in ["..", "../x", "a/../../b"] {
        let message = world(&[]).denial(destination("d", path));
        assert_eq!(message, format!("destination path '{path}' leads out of the state store"));
    }
}

#[test]
fn a_path_below_which_no_store_takes_files_is_refused_and_one_from_before_can_be_left() {
    let long = "n".repeat(256);
    for (path, reason) in [
        ("a/.git/b", "it names a .git directory"),
        (".GIT", "it names a .git directory"),
        ("a/git~1", "it names a .git directory"),
        (".g\u{200c}it", "it names a .git directory"),
        ("a\\b", "it contains a backslash"),
        ("a\nb", "it contains a control character"),
        (long.as_str(), "a name in it is longer than 255 bytes, or all of it longer than 4096"),
    ] {
        let message = world(&[]).denial(destination("d", path));
        assert_eq!(message, format!("destination path '{path}' cannot be written to a state store: {reason}"));
        let labelled = with(destination("d", path), &["metadata", "labels"], json!({"a": "b"}));
        assert_eq!(allowed(world(&[]).update(destination("d", path), labelled)), Vec::<String>::new());
        assert_eq!(allowed(world(&[]).update(destination("d", path), destination("d", "a"))).len(), 1);
    }
    for path in [".github", "a.git", &long[1..]] {
        assert_eq!(world(&[]).warnings(destination("d", path)), Vec::<String>::new());
    }
}

#[test]
fn a_single_file_that_no_store_takes_is_refused() {
    let with_file = |mode: &str, name: &str| {
        with(destination("d", "x"), &["spec", "filepath"], json!({"mode": mode, "filename": name}))
    };
    for (name, reason) in [
        ("../x.yaml", "it leaves its directory by \"..\""),
        ("/x.yaml", "it is absolute"),
        (".git/x.yaml", "it names a .git directory"),
        (".", "it is empty"),
    ] {
        let message = world(&[]).denial(with_file("aggregatedYAML", name));
        assert_eq!(
            message,
            format!("destination filepath.filename '{name}' cannot be written to a state store: {reason}")
        );
    }
    for name in ["kratix-canary-namespace.yaml", "./Kratix-Canary-ConfigMap.yaml"] {
        let message = world(&[]).denial(with_file("aggregatedYAML", name));
        let document = name.trim_start_matches("./").to_lowercase();
        let reason = format!("is the test document {document}; choose another name");
        assert_eq!(message, format!("destination filepath.filename '{name}' {reason}"));
    }
    for name in ["all/of/it.yaml", "a/../b.yaml", "./x.yaml"] {
        assert_eq!(world(&[]).warnings(with_file("aggregatedYAML", name)), Vec::<String>::new());
    }
    assert_eq!(world(&[]).warnings(with_file("none", "../x.yaml")), Vec::<String>::new(), "it is not heeded");
}

#[test]
fn a_destination_that_moves_is_told_what_becomes_of_its_files() {
    let warnings = allowed(world(&[]).update(destination("d", "a"), destination("d", "b")));
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("files that were written to path 'a' of GitStateStore/g are removed there once"));
    assert_eq!(allowed(world(&[]).update(destination("d", "a"), destination("d", "a/"))), Vec::<String>::new());
    // Two that share a directory since before can still be labelled.
    let mut world = world(&[("other", "a")]);
    let labelled = with(destination("d", "a"), &["metadata", "labels"], json!({"a": "b"}));
    assert_eq!(allowed(world.update(destination("d", "a"), labelled)), Vec::<String>::new());
    assert_eq!(world.asked, []);
}

#[test]
fn errors_of_the_api_server_are_passed_on_with_what_they_are_about() {
    let mut snapshot = Snapshot {
        review: review(Operation::Create, destination("d", "a"), Value::Null),
        answers: Answers::default(),
        settings: settings(),
    };
    for (round, context) in
        ["failed to get state store GitStateStore/g", "failed to list destinations"].iter().enumerate()
    {
        let Verdict::Open(questions) = decide(&snapshot) else { panic!("round {round}") };
        let mut failing = snapshot.clone();
        failing.answers.insert(questions[0].clone(), Answer::Refused(refusal(503, "overloaded")));
        let Verdict::Denied(denial) = decide(&failing) else { panic!("round {round}") };
        assert_eq!((denial.code, denial.message), (503, format!("{context}: overloaded")));
        snapshot.answers.insert(questions[0].clone(), Answer::Object(json!({})));
    }
}

#[test]
fn a_git_store_is_warned_of_and_never_refused() {
    let store = |spec: Value| World::default().warnings(object("GitStateStore", "g", spec));
    let none: [&str; 0] = [];
    assert_eq!(store(json!({"url": "https://h/x", "secretRef": {"name": "s"}})), none);
    assert_eq!(store(json!({"url": "file:///x"})), none);
    assert_eq!(
        store(json!({"url": "http://me:secret@h/x", "secretRef": {"name": "s"}})),
        ["invalid URL for HTTPS auth method: http://h/x (http is only allowed for loopback hosts)"]
    );
    assert_eq!(store(json!({"url": "git@h:x.git", "authMethod": "ssh"})), ["authMethod ssh needs a secretRef"]);
    assert_eq!(store(json!({"url": "git@h:x.git", "authMethod": "ssh", "secretRef": {"name": "s"}})), none);
    assert_eq!(
        store(json!({"url": "https://u:p@h/x.git", "authMethod": "ssh", "secretRef": {"name": "s"}})),
        ["invalid URL for SSH auth method: https://h/x.git"]
    );
}

#[test]
fn a_push_limit_that_is_none_is_warned_of_when_it_is_set() {
    let key = "kratix.io/maximumPushesPerMinute";
    let store = object("GitStateStore", "g", json!({"url": "file:///x"}));
    let limited = |limit: &str| with(store.clone(), &["metadata", "annotations"], json!({key: limit}));
    let none: [&str; 0] = [];
    for limit in ["0", "-1", "many", "1.5", ""] {
        let warning =
            format!("annotation {key} has value {limit:?}, which is not a whole number of 1 or more; it is ignored");
        let expected = if limit.is_empty() { vec![] } else { vec![warning] };
        assert_eq!(allowed(World::default().update(store.clone(), limited(limit))), expected, "{limit}");
        assert_eq!(allowed(World::default().update(limited(limit), limited(limit))), none, "it was there before");
    }
    assert_eq!(allowed(World::default().update(store.clone(), limited("6"))), none);
}

#[test]
fn a_bucket_without_secret_can_still_be_labelled() {
    let bucket =
        object("BucketStateStore", "b", json!({"bucketName": "b", "endpoint": "e", "authMethod": "accessKey"}));
    let labelled = with(bucket.clone(), &["metadata", "labels"], json!({"a": "b"}));
    assert_eq!(allowed(World::default().update(bucket.clone(), labelled)), Vec::<String>::new());
    let changed = with(bucket.clone(), &["spec", "endpoint"], json!("f"));
    denied(World::default().update(bucket, changed));
}

fn revision(version: &str, latest: bool) -> Value {
    let spec =
        json!({"promiseRef": {"name": "p"}, "version": version, "promiseSpec": {"dependencies": [{"kind": "A"}]}});
    with(object("PromiseRevision", "p-12345", spec), &["status"], json!({"latest": latest}))
}

#[test]
fn only_kratix_deletes_the_latest_revision() {
    for (user, may) in [
        ("system:serviceaccount:kratix-platform-system:kratix-platform-controller-manager", true),
        ("system:serviceaccount:kube-system:generic-garbage-collector", true),
        ("system:serviceaccount:kratix-platform-system-x:me", false),
        ("system:serviceaccount:kratix-platform-system", false),
        ("kratix-admin", false),
    ] {
        let mut review = review(Operation::Delete, Value::Null, revision("v1", true));
        review.user = user.into();
        let verdict = World::default().rule(review);
        if may {
            allowed(verdict);
        } else {
            assert_eq!(denied(verdict), "can not delete the latest PromiseRevision", "{user}");
        }
    }
}

#[test]
fn what_goes_with_a_revision_is_warned_of() {
    let binding_in = |namespace: &str, name: &str, version: &str| {
        let resource = json!({"name": name, "namespace": "team"});
        let spec = json!({"promiseRef": {"name": "p"}, "resourceRef": resource, "version": version});
        let labels = json!({"kratix.io/promise-name": "p"});
        let object = with(object("ResourceBinding", name, spec), &["metadata", "labels"], labels);
        with(object, &["metadata", "namespace"], json!(namespace))
    };
    let binding = |name: &str, version: &str| binding_in("team", name, version);
    let needs = object("Promise", "whole", json!({"requiredPromises": [{"name": "p", "version": "v1"}]}));
    let foreign = binding_in("elsewhere", "d", "v1");
    let mut world = World::of([binding("b", "v1"), binding("a", "v1"), binding("c", "latest"), foreign, needs]);
    assert_eq!(
        allowed(world.rule(review(Operation::Delete, Value::Null, revision("v1", false)))),
        [
            "resource requests pinned to version \"v1\" of Promise \"p\" are deleted with this revision: team/a, team/b",
            "Promises that require version \"v1\" of Promise \"p\" become unavailable: whole",
        ]
    );
    world.asked.clear();
    let other = revision("v2", false);
    assert_eq!(allowed(world.rule(review(Operation::Delete, Value::Null, other))), Vec::<String>::new());
}

#[test]
fn the_content_of_a_revision_is_changed_by_kratix_alone() {
    let old = revision("v1", true);
    let content = with(old.clone(), &["spec", "promiseSpec"], json!({}));
    let version = with(content.clone(), &["spec", "version"], json!("v2"));
    let message = denied(World::default().update(old.clone(), version.clone()));
    assert_eq!(
        message,
        "promiserevisions.platform.kratix.io \"p-12345\" was not valid:\n* spec.version: Invalid value: \"v2\": field is \
         immutable\n* spec.promiseSpec: Forbidden: it is a copy that Kratix keeps; change Promise \"p\""
    );
    let by_kratix = |object: Value| {
        let mut review = review(Operation::Update, object, old.clone());
        review.user = "system:serviceaccount:kratix-platform-system:kratix-platform-controller-manager".into();
        World::default().rule(review)
    };
    assert_eq!(allowed(by_kratix(content)), Vec::<String>::new());
    assert!(
        denied(by_kratix(version))
            .ends_with("was not valid:\n* spec.version: Invalid value: \"v2\": field is immutable")
    );
    let annotated = with(old.clone(), &["metadata", "annotations"], json!({"kratix.io/reconciliation-interval": "1s"}));
    denied(World::default().update(old, annotated.clone()));
    let finalized = with(annotated.clone(), &["metadata", "finalizers"], json!(["x"]));
    assert_eq!(allowed(World::default().update(annotated, finalized)), Vec::<String>::new());
}

#[test]
fn other_kinds_have_no_rules() {
    for kind in ["Work", "WorkPlacement", "ResourceBinding", "HealthRecord", "DryRun"] {
        assert_eq!(World::default().warnings(object(kind, "x", json!({"anything": 1}))), Vec::<String>::new());
    }
}
