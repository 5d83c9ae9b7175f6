//! Rules of Promises that the recorded cases do not reach.

use kratix_api::name;

use super::*;

fn crd() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.test.io"},
        "spec": {
            "group": "test.io",
            "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}},
            }],
        },
    })
}

fn owned_crd(promise: &str) -> Value {
    with(crd(), &["metadata", "labels"], json!({"kratix.io/promise-name": promise}))
}

fn pipeline(name: &str) -> Value {
    json!({
        "apiVersion": "platform.kratix.io/v1alpha1", "kind": "Pipeline", "metadata": {"name": name},
        "spec": {"containers": [{"name": "a", "image": "busybox:1"}]},
    })
}

fn promise(spec: Value) -> Value {
    object("Promise", "thing", spec)
}

fn with_api() -> Value {
    promise(json!({"api": crd(), "workflows": {"resource": {"configure": [pipeline("one")]}}}))
}

fn tried(world: &World, kind: &str) -> usize {
    let is_tried = |question: &&Question| match question {
        Question::Create { kind: found, .. } | Question::Update { kind: found, .. } => found.kind == kind,
        _ => false,
    };
    world.asked.iter().filter(is_tried).count()
}

#[test]
fn all_faults_of_pipelines_are_told_in_one_order() {
    let labelled = |name: &str, labels: Value| with(pipeline(name), &["metadata", "labels"], labels);
    let unknown = with(pipeline("odd"), &["spec", "ports"], json!([]));
    let spec = json!({"api": crd(), "workflows": {
        "resource": {"configure": [pipeline("sound"), unknown]},
        "promise": {
            "configure": [pipeline("twin"), pipeline("twin")],
            "delete": [labelled("p", json!({"a/b/c": "x", "": "y", "/z": "-"}))],
        },
    }});
    let mut world = World::default().refusing("Job", refusal(422, "Job.batch \"x\" is invalid"));
    let message = world.denial(promise(spec.clone()));
    assert_eq!(world.denial_again(promise(spec)), message);
    let starts: Vec<&str> = message
        .lines()
        .map(|line| line.split_once(": ").map_or(line, |(start, _)| start))
        .filter(|line| !line.is_empty())
        .collect();
    assert_eq!(
        starts,
        [
            "promise.configure pipeline with name twin failed to generate Job definition",
            "Job.batch \"x\" is invalid",
            "duplicate pipeline name \"twin\" in workflow \"promise\" action \"configure\"",
            "invalid label key \"\" in workflow \"promise\" action \"delete\"",
            "invalid label value \"-\" for key \"/z\" in workflow \"promise\" action \"delete\"",
            "invalid label key \"/z\" in workflow \"promise\" action \"delete\"",
            "invalid label key \"a/b/c\" in workflow \"promise\" action \"delete\"",
            "resource.configure pipeline with name sound failed to generate Job definition",
            "Job.batch \"x\" is invalid",
            "failed parsing resource.configure pipeline",
        ]
    );
    assert_eq!(tried(&world, "Job"), 2, "only Jobs of sound pipelines are tried");
}

impl World {
    /// As [`World::denial`], for a second time.
    fn denial_again(&mut self, object: Value) -> String {
        self.asked.clear();
        self.denial(object)
    }
}

#[test]
fn texts_about_labels_are_those_of_kubernetes() {
    let long = "x".repeat(64);
    let labels = json!({ format!("example.com/{long}"): "x", format!("{}.com/a", "x".repeat(250)): "x", "a": long });
    let spec = json!({"workflows": {"promise": {"configure": [with(pipeline("p"), &["metadata", "labels"], labels)]}}});
    let message = World::default().denial(promise(spec));
    let lines: Vec<&str> = message.lines().collect();
    assert!(
        lines[0].ends_with("name part must be no more than 63 bytes") || lines[0].contains("for key \"a\""),
        "{message}"
    );
    let expected = [
        ("for key \"a\"", ": must be no more than 63 bytes"),
        ("example.com/", ": name part must be no more than 63 bytes"),
        (".com/a\"", ": prefix part must be no more than 253 bytes"),
    ];
    for (key, complaint) in expected {
        assert!(lines.iter().any(|line| line.contains(key) && line.ends_with(complaint)), "{complaint}: {message}");
    }
}

#[test]
fn jobs_are_tried_as_they_will_be() {
    let config = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "kratix", "namespace": "kratix-platform-system"},
        "data": {"config": "workflows:\n  defaultImagePullPolicy: Never\n"},
    });
    let mut world = World::of([config]);
    let spec = json!({"api": crd(), "workflows": {
        "config": {"pipelineNamespace": ""},
        "promise": {"delete": [pipeline("down")]},
        "resource": {"configure": [pipeline("up")]},
    }});
    assert_eq!(world.warnings(promise(spec)), Vec::<String>::new());
    let jobs: Vec<&Value> = world
        .asked
        .iter()
        .filter_map(|question| match question {
            Question::Create { kind, object } if kind.kind == "Job" => Some(object),
            _ => None,
        })
        .collect();
    let [own, request] = jobs[..] else { panic!("{jobs:#?}") };
    for job in [own, request] {
        assert_eq!(job["metadata"]["namespace"], "kratix-platform-system");
        assert_eq!(job["spec"]["template"]["spec"]["initContainers"][0]["imagePullPolicy"], "Never");
        assert_eq!(job["metadata"]["ownerReferences"][0]["uid"], "00000000-0000-0000-0000-000000000000");
    }
    assert!(own["metadata"]["name"].as_str().unwrap().starts_with("kratix-thing-down-"));
    assert!(request["metadata"]["name"].as_str().unwrap().starts_with("kratix-thing-webhook-dry-run-up-"));
    assert_eq!(request["metadata"]["annotations"]["kratix.io/job-resource-kind"], "Thing");

    let mut world = World::default();
    let spec = json!({"workflows": {
        "config": {"pipelineNamespace": "team"}, "promise": {"configure": [pipeline("up")]},
    }});
    world.warnings(promise(spec));
    assert!(world.asked.iter().any(|question| match question {
        Question::Create { object, .. } => object["metadata"]["namespace"] == "team",
        _ => false,
    }));
}

#[test]
fn an_api_that_is_in_use_is_not_taken_over() {
    let adopting = with(with_api(), &["metadata", "annotations"], json!({"kratix.io/adopt-api-crd": "true"}));
    for (present, expected) in [
        (crd(), "exists and does not belong to this Promise; annotate the Promise with kratix.io/adopt-api-crd=true"),
        (owned_crd("other"), "belongs to Promise \"other\""),
        // The other Promise has not installed it yet.
        (with(with_api(), &["metadata", "name"], json!("other")), "belongs to Promise \"other\""),
    ] {
        let mut world = World::of([present.clone()]);
        let message = world.denial(with_api());
        assert!(message.contains("things.test.io") && message.contains(expected), "{message}");
        assert_eq!(World::of([present]).warnings(adopting.clone()), Vec::<String>::new());
    }
    let mut world = World::of([owned_crd("thing")]);
    assert_eq!(world.warnings(with_api()), Vec::<String>::new());
    let updated = world.asked.iter().find_map(|question| match question {
        Question::Update { object, .. } => Some(object),
        _ => None,
    });
    let updated = updated.expect("what is there is updated");
    assert_eq!(updated["metadata"]["labels"]["kratix.io/promise-name"], "thing");
    let schema = &updated["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    assert_eq!(schema["properties"]["metadata"]["properties"]["name"]["maxLength"], 63);
}

#[test]
fn an_api_that_cannot_be_read_is_refused_by_name() {
    let api = |api: Value| promise(json!({ "api": api }));
    for (object, expected) in [
        (
            api(with(crd(), &["apiVersion"], json!("v1"))),
            "spec.api.apiVersion must be \"apiextensions.k8s.io/v1\", found \"v1\"",
        ),
        (api(with(crd(), &["spec", "versions"], json!("v1"))), "api is not a valid CRD: "),
        (api(json!(7)), "api is not a valid CRD: "),
    ] {
        let message = World::default().denial(object);
        assert!(message.contains(expected), "{message}");
    }
    // A name that leads elsewhere in a URL is never looked up: the API server says what it thinks of it.
    let odd = api(with(crd(), &["metadata", "name"], json!("../../v1/secrets")));
    let mut world = World::default().refusing("CustomResourceDefinition", refusal(422, "no such name"));
    let Verdict::Denied(denial) = world.create(odd) else { panic!("{:#?}", world.asked) };
    assert_eq!((denial.code, denial.message.as_str()), (422, "invalid CRD: no such name"));
    assert!(matches!(world.asked[..], [Question::Create { .. }]), "{:#?}", world.asked);
}

#[test]
fn of_an_api_only_what_would_make_another_of_it_is_fixed() {
    let changed = |path: &[&str], value: Value| {
        let full: Vec<&str> = ["spec", "api"].into_iter().chain(path.iter().copied()).collect();
        with(with_api(), &full, value)
    };
    let mut world = World::of([owned_crd("thing")]);
    for harmless in [
        changed(&["spec", "names", "shortNames"], json!(["th"])),
        changed(&["spec", "names", "categories"], json!(["all"])),
        changed(&["spec", "names", "listKind"], json!("ThingList")),
        changed(&["metadata", "annotations"], json!({"a": "b"})),
        changed(&["spec", "versions"], json!([crd()["spec"]["versions"][0]])),
    ] {
        world.asked.clear();
        assert_eq!(allowed(world.update(with_api(), harmless)), Vec::<String>::new());
    }
    world.asked.clear();
    let message = denied(world.update(with_api(), changed(&["spec", "names", "listKind"], json!("Things"))));
    assert_eq!(
        message,
        "promises.platform.kratix.io \"thing\" was not valid:\n* spec.api.spec.names: Invalid value: {\"plural\": \
         \"things\", \"singular\": \"thing\", \"kind\": \"Thing\", \"listKind\": \"Things\"}: field is immutable"
    );
    world.asked.clear();
    let several = with(changed(&["kind"], json!("Other")), &["spec", "api", "apiVersion"], json!("v2"));
    let message = denied(world.update(with_api(), several));
    assert!(message.ends_with(
        "\n* spec.api.kind: Invalid value: \"Other\": field is immutable\n* spec.api.apiVersion: Invalid value: \"v2\": \
         field is immutable"
    ));
    // An API may be added, and then it must be one.
    let bare = promise(json!({}));
    world.asked.clear();
    assert_eq!(allowed(world.update(bare.clone(), with_api())), Vec::<String>::new());
    assert!(denied(world.update(bare, changed(&["kind"], json!("Other")))).contains("spec.api.kind must be"));
    let deployment = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "d" }, "spec": {} });
    let message = denied(world.create(promise(json!({ "api": deployment }))));
    assert!(
        message.contains("spec.api.apiVersion must be \"apiextensions.k8s.io/v1\", found \"apps/v1\""),
        "{message}"
    );
}

#[test]
fn a_stored_promise_can_always_be_labelled_and_deleted() {
    let broken = promise(json!({
        "api": {"kind": "Nonsense"},
        "dependencies": [{"no": "kind"}],
        "workflows": {"config": {"reconciliationInterval": "soon"}, "resource": {"configure": [{"kind": "Nonsense"}]}},
    }));
    let mut world = World::default().refusing("Job", refusal(404, "namespaces \"gone\" not found"));
    let labelled = with(broken.clone(), &["metadata", "labels"], json!({"a": "b"}));
    assert_eq!(allowed(world.update(broken.clone(), labelled)), Vec::<String>::new());

    let deleting = with(with_api(), &["metadata", "deletionTimestamp"], json!("2026-01-01T00:00:00Z"));
    let changed = with(deleting.clone(), &["spec", "workflows"], json!({}));
    assert_eq!(allowed(world.update(deleting, changed)), Vec::<String>::new());
    assert_eq!(allowed(world.rule(review(Operation::Delete, Value::Null, broken))), Vec::<String>::new());
    assert_eq!(world.asked, [], "and nothing is looked up for it");
}

#[test]
fn intervals_are_checked_when_they_change() {
    let interval = |text: &str| promise(json!({"workflows": {"config": {"reconciliationInterval": text}}}));
    let annotated = |text: &str| {
        with(promise(json!({})), &["metadata", "annotations"], json!({"kratix.io/reconciliation-interval": text}))
    };
    for (text, complaint) in
        [("59s", Some("59s")), ("-1m", Some("-1m0s")), ("0", Some("0s")), ("1m", None), ("60s", None)]
    {
        let verdict = World::default().create(interval(text));
        match complaint {
            None => drop(allowed(verdict)),
            Some(shown) => assert_eq!(
                denied(verdict),
                format!(
                    "spec.workflows.config.reconciliationInterval: Invalid value: {shown:?}: must be at least 1m0s"
                )
            ),
        }
    }
    let with_more = |object: Value| with(object, &["spec", "dependencies"], json!([{"kind": "A"}]));
    assert_eq!(allowed(World::default().update(interval("30s"), with_more(interval("30s")))), Vec::<String>::new());
    denied(World::default().update(interval("30s"), interval("31s")));

    let text = denied(World::default().create(annotated("")));
    assert!(text.ends_with("Invalid value: \"\": must be a valid duration"), "{text}");
    assert_eq!(allowed(World::default().create(annotated("1m"))), Vec::<String>::new());
    assert_eq!(allowed(World::default().update(annotated("1s"), with_more(annotated("1s")))), Vec::<String>::new());
    assert_eq!(allowed(World::default().update(promise(json!({})), annotated(""))), Vec::<String>::new());
    denied(World::default().update(annotated("1s"), annotated("2s")));
}

#[test]
fn a_name_that_is_no_label_value_is_refused_for_new_promises() {
    let long = with(promise(json!({})), &["metadata", "name"], json!("x".repeat(64)));
    let text = World::default().denial(long.clone());
    assert!(
        text.starts_with("metadata.name: Invalid value: \"xxx") && text.contains("no more than 63 bytes"),
        "{text}"
    );
    let changed = with(long.clone(), &["spec", "dependencies"], json!([{"kind": "A"}]));
    assert_eq!(allowed(World::default().update(long, changed)), Vec::<String>::new());
}

#[test]
fn versions_that_mean_something_else_are_refused() {
    let at = |version: &str| {
        with(promise(json!({})), &["metadata", "labels"], json!({"kratix.io/promise-version": version}))
    };
    for version in ["latest", "not-set"] {
        let text = World::default().denial(at(version));
        assert!(
            text.starts_with(&format!("metadata.labels[kratix.io/promise-version]: Invalid value: {version:?}")),
            "{text}"
        );
        assert_eq!(allowed(World::default().update(at(version), at(version))), Vec::<String>::new());
    }
    assert_eq!(World::default().warnings(at("v1")), Vec::<String>::new());
}

#[test]
fn requirements_that_can_never_be_met_are_warned_of() {
    let requiring = |name: &str, required: &[&str]| {
        let required: Vec<Value> = required.iter().map(|name| json!({ "name": name })).collect();
        object("Promise", name, json!({ "requiredPromises": required }))
    };
    let end = "Promise will not be available until the above issue(s) is resolved";
    let mut world = World::of([requiring("b", &["c"]), requiring("c", &["a"]), requiring("d", &["e"])]);
    assert_eq!(
        world.warnings(requiring("a", &["b", "", "a", "d"])),
        [
            "spec.requiredPromises[1].name is empty, no Promise can fulfil the requirement",
            "Promise \"a\" requires itself",
            end,
        ]
    );
    world.asked.clear();
    assert_eq!(world.warnings(requiring("a", &["b"])), ["These Promises require each other: a -> b -> c -> a", end]);
    world.asked.clear();
    assert_eq!(world.warnings(requiring("x", &["b", "d"])), Vec::<String>::new());
    world.asked.clear();
    let odd = world.warnings(requiring("x", &["../y"]));
    assert_eq!(odd, ["Required Promise \"../y\" at version \"\" not installed", end]);
    assert_eq!(world.asked, []);
}

#[test]
fn a_long_chain_of_requirements_is_followed_to_a_limit() {
    let chain = |index: usize| {
        let spec = json!({"requiredPromises": [{"name": format!("p{}", index + 1)}]});
        object("Promise", &format!("p{index}"), spec)
    };
    let mut world = World::of((1..200).map(chain));
    assert_eq!(world.warnings(chain(0)), Vec::<String>::new());
    assert_eq!(world.asked.len(), requirement::LOOK_UPS_MAX);
}

#[test]
fn a_revision_on_its_way_out_fulfils_nothing() {
    let mut revision = object(
        "PromiseRevision",
        &name::promise_revision("db", "v1"),
        json!({"promiseRef": {"name": "db"}, "promiseSpec": {}, "version": "v1"}),
    );
    revision["metadata"]["labels"] = json!({"kratix.io/promise-name": "db"});
    let needs = promise(json!({"requiredPromises": [{"name": "db", "version": "v1"}]}));
    let db = object("Promise", "db", json!({}));
    assert_eq!(World::of([db.clone(), revision.clone()]).warnings(needs.clone()), Vec::<String>::new());
    revision["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let warnings = World::of([db, revision]).warnings(needs);
    assert!(warnings[0].contains("no revision found at version \"v1\""), "{warnings:?}");
}

#[test]
fn delete_pipelines_that_are_never_run_are_warned_of() {
    let spec = json!({"workflows": {"promise": {"delete": [pipeline("one"), pipeline("two")]}}});
    assert_eq!(
        World::default().warnings(promise(spec)),
        ["workflow \"promise\" action \"delete\" has 2 pipelines, but only the first one, \"one\", is executed"]
    );
}

#[test]
fn what_cannot_be_read_is_refused_and_never_a_panic() {
    for spec in
        [json!({"workflows": 7}), json!({"dependencies": {"a": 1}}), json!({"requiredPromises": ["x"]}), json!("x")]
    {
        let Verdict::Denied(denial) = World::default().create(promise(spec.clone())) else { panic!("{spec}") };
        assert_eq!(
            (denial.code, denial.reason.as_str(), denial.webhook),
            (400, "BadRequest", "mpromise.kb.io"),
            "{spec}"
        );
        assert!(denial.message.starts_with("Promise \"thing\": "), "{}", denial.message);
    }
    for elements in [json!([null]), json!([7]), json!([{"kind": 7}]), json!([{"kind": ""}])] {
        let spec = json!({"workflows": {"resource": {"delete": elements}}});
        let Verdict::Denied(denial) = World::default().create(promise(spec)) else { panic!("{elements}") };
        assert!(denial.message.starts_with("Object 'Kind' is missing in '"), "{}", denial.message);
    }
}

/// The API server takes no role without them, so that every run would be refused.
#[test]
fn permissions_that_no_role_can_have_are_refused_with_the_field_that_is_wrong() {
    let asking = |permissions: Value| {
        let own = with(pipeline("one"), &["spec", "rbac"], json!({ "permissions": permissions }));
        promise(json!({"workflows": {"promise": {"configure": [own]}}}))
    };
    let whole = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
    for list in ["verbs", "apiGroups", "resources"] {
        let mut broken = whole.clone();
        broken.as_object_mut().unwrap().remove(list);
        let message = World::default().denial(asking(json!([whole, broken])));
        let expected = format!(
            "promise.configure pipeline with name \"one\": spec.rbac.permissions[1].{list} is empty; a permission needs at \
             least one"
        );
        assert_eq!(message, expected);
    }
    let urls = json!({"nonResourceURLs": ["/healthz"], "verbs": ["get"], "resourceNamespace": "*"});
    assert!(World::default().warnings(asking(json!([whole, urls]))).is_empty());
    let here = json!({"nonResourceURLs": ["/healthz"], "verbs": ["get"]});
    let mut both = urls.clone();
    both["resources"] = json!(["pods"]);
    for (broken, why) in [
        (here, "are in no namespace; a permission for them needs resourceNamespace: \"*\""),
        (both, "stand beside apiGroups or resources; a permission is for either"),
    ] {
        let message = World::default().denial(asking(json!([whole, broken])));
        assert_eq!(
            message,
            format!("promise.configure pipeline with name \"one\": spec.rbac.permissions[1].nonResourceURLs {why}")
        );
    }
}

/// 02 §19.5: a reserved key is the platform's, and whoever writes it is told.
#[test]
fn labels_of_pipelines_that_kratix_sets_itself_are_warned_of() {
    let mut labelled = pipeline("one");
    labelled["metadata"]["labels"] = json!({"kratix.io/hash": "mine", "app.kubernetes.io/managed-by": "me", "kratix.io/work-type": "x", "team": "a"});
    let spec = json!({"workflows": {"promise": {"configure": [labelled]}}});
    let text = |key: &str| {
        format!(
            "label {key:?} of pipeline \"one\" in workflow \"promise\" action \"configure\" is set by Kratix; the pipeline's value \
             has no effect"
        )
    };
    let warnings = World::default().warnings(promise(spec));
    let keys = ["app.kubernetes.io/managed-by", "kratix.io/hash", "kratix.io/work-type"];
    assert_eq!(warnings, keys.map(text));
}
