use kratix_api::{Promise, PromiseSpec, Time, Work, WorkPlacement, WorkPlacementSpec, WorkSpec};
use kube_core::Resource;
use serde_json::json;

use super::*;
use crate::object::{Kind, ObjectKey};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn now() -> Timestamp {
    "2026-05-04T10:00:00.123456789Z".parse().unwrap()
}

fn span() -> SpanContext {
    SpanContext { trace_id: 1, span_id: 2, flags: 1, state: String::new() }
}

fn metadata(generation: Option<i64>, pairs: &[(&str, &str)]) -> ObjectMeta {
    let annotations = pairs.iter().map(|(key, value)| (format!("kratix.io/trace-{key}"), (*value).to_owned()));
    ObjectMeta { generation, annotations: Some(annotations.collect()), ..ObjectMeta::default() }
}

fn after(mut metadata: ObjectMeta) -> BTreeMap<String, String> {
    let origin = Origin::of(&metadata, now());
    Changes::of(&metadata, &origin, &span(), now()).apply(&mut metadata);
    metadata.annotations.unwrap()
}

#[test]
fn only_a_valid_traceparent_is_read() {
    let valid = SpanContext::parse(PARENT, "a=b").unwrap();
    assert_eq!(valid.to_string(), PARENT);
    assert_eq!((valid.trace().as_str(), valid.state.as_str()), ("0af7651916cd43dd8448eb211c80319c", "a=b"));
    assert!(SpanContext::parse(&format!("cc{}-later", &PARENT[2..]), "").is_some(), "of a later version");
    for (what, text) in [
        ("nothing", String::new()),
        ("no flags", PARENT[..52].into()),
        ("more than version 0 has", format!("{PARENT}-")),
        ("version ff", format!("ff{}", &PARENT[2..])),
        ("capital letters", PARENT.replace("0af7", "0AF7")),
        ("a sign instead of a digit", PARENT.replace("0af7", "+af7")),
        ("no trace", format!("00-{:032}-b7ad6b7169203331-01", 0)),
        ("no span", format!("00-0af7651916cd43dd8448eb211c80319c-{:016}-01", 0)),
        ("a short trace", "00-0af7-b7ad6b7169203331-01".into()),
        ("other characters", PARENT.replace("0af7", "ä7x")),
    ] {
        assert_eq!(SpanContext::parse(&text, ""), None, "{what}: {text}");
    }
}

#[test]
fn a_pass_goes_on_with_a_trace_that_is_valid_recent_and_about_the_present_generation() {
    let (day, more) = ("2026-05-03T10:00:00.123456789Z", "2026-05-03T10:00:00.123456788Z");
    let broken = ("parent", "00-x");
    let parent = ("parent", PARENT);
    let cases: [(&[(&str, &str)], bool); 12] = [
        (&[], false),
        (&[broken], false),
        (&[parent], true),
        (&[parent, ("state", "a=b")], true),
        (&[parent, ("timestamp", day)], true),
        (&[parent, ("timestamp", more)], false),
        (&[parent, ("timestamp", "yesterday")], false),
        (&[parent, ("timestamp", "")], true),
        (&[parent, ("generation", "3")], true),
        (&[parent, ("generation", "2")], false),
        (&[parent, ("generation", "three")], false),
        (&[parent, ("generation", "")], true),
    ];
    for (annotations, goes_on) in cases {
        let origin = Origin::of(&metadata(Some(3), annotations), now());
        assert_eq!(matches!(origin, Origin::Child(_)), goes_on, "{annotations:?}");
    }
    assert_eq!(Origin::of(&metadata(None, &[parent, ("generation", "1")]), now()), Origin::Root);
}

#[test]
fn a_new_trace_sets_all_annotations_and_one_that_goes_on_fills_in_what_is_missing() {
    let new = after(metadata(Some(3), &[("parent", "bad"), ("state", "a=b"), ("generation", "2")]));
    let expected = [
        ("kratix.io/trace-generation", "3"),
        ("kratix.io/trace-parent", "00-00000000000000000000000000000001-0000000000000002-01"),
        ("kratix.io/trace-timestamp", "2026-05-04T10:00:00.123456789Z"),
    ];
    assert_eq!(new, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    let unnumbered = after(metadata(None, &[("generation", "2")]));
    assert!(
        !unnumbered.contains_key(keys::TRACE_GENERATION),
        "an object without a generation has none: {unnumbered:?}"
    );

    let filled = after(metadata(Some(3), &[("parent", PARENT), ("state", "a=b")]));
    assert_eq!(filled[keys::TRACE_PARENT], PARENT);
    assert_eq!((filled[keys::TRACE_STATE].as_str(), filled[keys::TRACE_GENERATION].as_str()), ("a=b", "3"));
    let complete = metadata(
        Some(3),
        &[("parent", PARENT), ("timestamp", "2026-05-04T09:00:00Z"), ("generation", "3"), ("state", "a=b")],
    );
    let origin = Origin::of(&complete, now());
    assert!(Changes::of(&complete, &origin, &span(), now()).is_empty(), "nothing else changes");
}

#[test]
fn changes_of_annotations_ride_on_a_patch_of_the_object_or_come_first() {
    let work = Work::new("w", WorkSpec::default());
    let target = Target { resource_version: Some("7".into()), ..Target::of(&work) };
    let changes = Changes(BTreeMap::from([(keys::TRACE_PARENT, Some("p".into())), (keys::TRACE_STATE, None)]));
    let wanted = json!({ "kratix.io/trace-parent": "p", "kratix.io/trace-state": null });

    let finalizer = Write::Patch { target: target.clone(), patch: json!({ "metadata": { "finalizers": ["f"] } }) };
    let other = Target { key: ObjectKey::cluster("x"), ..target.clone() };
    let other = Write::Patch { target: other, patch: json!({ "metadata": { "labels": {} } }) };
    let mut plan: Plan = Plan { writes: vec![other.clone(), finalizer], ..Plan::silent() };
    assert!(changes.fold(&target, &mut plan));
    let [Write::Patch { patch: left_alone, .. }, Write::Patch { patch, .. }] = &plan.writes[..] else {
        panic!("{plan:?}")
    };
    assert_eq!(*left_alone, json!({ "metadata": { "labels": {} } }));
    assert_eq!(*patch, json!({ "metadata": { "finalizers": ["f"], "annotations": wanted } }));

    let mut plan: Plan = Plan { writes: vec![other], ..Plan::silent() };
    assert!(!changes.fold(&target, &mut plan));
    changes.prepend(&target, &mut plan);
    let Write::Patch { target: pinned, patch } = &plan.writes[0] else { panic!("{plan:?}") };
    assert_eq!((pinned, patch), (&target, &json!({ "metadata": { "annotations": wanted } })));
    assert_eq!(plan.writes.len(), 2);

    let mut plan: Plan = Plan::silent();
    Changes::default().prepend(&target, &mut plan);
    assert!(plan.is_silent());
}

#[test]
fn what_is_handed_over_is_about_the_generation_that_the_object_has_then() {
    let pairs = [("parent", PARENT), ("state", ""), ("timestamp", "t"), ("generation", "9")];
    let mut parent = metadata(Some(9), &pairs);
    parent.annotations.as_mut().unwrap().insert("note".into(), "x".into());
    let trace = handed_over(&parent, Some(1));
    let expected = [("parent", PARENT), ("timestamp", "t"), ("generation", "1")];
    assert_eq!(trace, metadata(None, &expected).annotations.unwrap());
    assert_eq!(Origin::of(&ObjectMeta { annotations: Some(trace), ..ObjectMeta::default() }, now()), Origin::Root);
    let of_nobody = handed_over(&metadata(Some(9), &[("parent", "bad")]), Some(1));
    assert_eq!(
        of_nobody,
        metadata(None, &[("parent", "bad")]).annotations.unwrap(),
        "an unknown trace is only passed on"
    );
    assert!(handed_over(&ObjectMeta::default(), Some(1)).is_empty());

    let mut carried = parent.clone();
    hand_on(&mut carried, &SpanContext { state: "c=d".into(), ..span() });
    assert_eq!(carried.annotations.as_ref().unwrap()[keys::TRACE_STATE], "c=d");
    hand_on(&mut carried, &span());
    assert_eq!(SpanContext::of(&carried), Some(span()));
}

#[test]
fn a_child_without_a_trace_gets_the_one_of_its_parent_before_it_is_deleted() {
    let target = || Target::of(&Work::new("w", WorkSpec::default()));
    let (traced, bare) = (metadata(Some(2), &[("parent", PARENT)]), metadata(Some(4), &[]));
    let Some(Write::Patch { patch, .. }) = last_words(&traced, target(), Some(4)) else { panic!("nothing is written") };
    let expected = json!({ "kratix.io/trace-parent": PARENT, "kratix.io/trace-generation": "4" });
    assert_eq!(patch, json!({ "metadata": { "annotations": expected } }));
    assert_eq!(last_words(&bare, target(), Some(4)), None);
    assert!(has_any(&traced) && !has_any(&bare) && !has_any(&ObjectMeta::default()));
}

fn attributes(subject: &Subject) -> String {
    let text = |(key, value): &(&str, Attribute)| match value {
        Attribute::Text(text) => format!("{key}={text}"),
        Attribute::Number(number) => format!("{key}={number}"),
        Attribute::Flag(flag) => format!("{key}={flag}"),
    };
    subject.attributes.iter().map(text).collect::<Vec<_>>().join(" ")
}

#[test]
fn spans_are_named_after_promise_request_and_controller() {
    let mut promise = Promise::new("redis", PromiseSpec::default());
    promise.meta_mut().generation = Some(4);
    let subject = Subject::promise(&promise);
    assert_eq!((subject.tracer, subject.span.as_str()), ("promise-controller", "redis/PromiseReconcile"));
    let told = "kratix.promise.name=redis kratix.promise.generation=4 kratix.action=create";
    assert_eq!(attributes(&subject), told);

    let mut work = Work::new("w", WorkSpec { promise_name: "redis".into(), ..WorkSpec::default() });
    work.metadata.namespace = Some("a".into());
    work.metadata.annotations = metadata(None, &[("parent", "anything")]).annotations;
    let subject = Subject::work(&work);
    assert_eq!((subject.tracer, subject.span.as_str()), ("work-controller", "redis/WorkReconcile"));
    let told = "kratix.promise.name=redis kratix.work.name=w kratix.work.namespace=a kratix.work.resource_request=false \
                kratix.action=update";
    assert_eq!(attributes(&subject), told);
    work.spec.resource_name = "mine".into();
    work.metadata.deletion_timestamp = Some(Time(now()));
    let subject = Subject::work(&work);
    assert_eq!(subject.span, "mine/redis/WorkReconcile");
    let told = "kratix.work.resource_request=true kratix.action=delete kratix.work.resource_request.name=mine";
    assert!(attributes(&subject).ends_with(told), "{}", attributes(&subject));

    let spec = WorkPlacementSpec {
        promise_name: "redis".into(),
        resource_name: "mine".into(),
        target_destination_name: "d".into(),
        ..WorkPlacementSpec::default()
    };
    let subject = Subject::work_placement(&WorkPlacement::new("p", spec));
    assert_eq!(
        (subject.tracer, subject.span.as_str()),
        ("workplacement-controller", "mine/redis/WorkPlacementReconcile")
    );
    let told = "kratix.promise.name=redis kratix.workplacement.name=p kratix.workplacement.namespace= \
                kratix.workplacement.target_destination=d kratix.action=create";
    assert_eq!(attributes(&subject), told);

    let kind = Kind::new("example.org", "v1", "Env", "envs");
    let request: kube_core::DynamicObject = serde_json::from_value(json!({
        "apiVersion": "example.org/v1", "kind": "Env", "metadata": { "name": "mine", "namespace": "a" },
    }))
    .unwrap();
    let subject = Subject::request("redis", &kind, &request);
    assert_eq!(subject.tracer, "dynamic-resource-request-controller");
    assert_eq!(subject.span, "redis/DynamicResourceRequestReconcile");
    let told = "kratix.promise.name=redis kratix.resource_request.name=mine kratix.resource_request.namespace=a \
                kratix.action=create";
    assert_eq!(attributes(&subject), told);

    let revision: kratix_api::PromiseRevision = serde_json::from_value(json!({
        "apiVersion": keys::API_VERSION, "kind": "PromiseRevision", "metadata": { "name": "redis-v1" },
        "spec": { "promiseRef": { "name": "redis" }, "promiseSpec": {}, "version": "v1" },
        "status": { "latest": true },
    }))
    .unwrap();
    let subject = Subject::promise_revision(&revision);
    assert_eq!(
        (subject.tracer, subject.span.as_str()),
        ("promise-revision-controller", "redis-v1/PromiseRevisionReconcile")
    );
    let told = "kratix.promiserevision.name=redis-v1 kratix.promise.version=v1 kratix.promise.name=redis \
                kratix.promiserevision.latest=true";
    assert_eq!(attributes(&subject), told);
}
