//! How the trace of a Work reaches its placements. `05-scheduling-and-writing.md` §5.5, `06-operations.md` §10.5.

use super::*;

const OF_WORK: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const OWN: &str = "00-00000000000000000000000000000001-0000000000000002-01";

fn traced(work: &mut Arc<Work>, parent: &str) {
    let annotations = [(keys::TRACE_PARENT, parent), (keys::TRACE_TIMESTAMP, "t"), (keys::TRACE_GENERATION, "1")];
    Arc::make_mut(work).metadata.annotations = Some(labels(&annotations));
}

fn placed() -> Snapshot {
    let work = request("w", vec![group(".", &[])]);
    let mut snapshot = World::new(work, vec![destination("d", &[])]).snapshot();
    let [Write::Create { object, .. }] = &decide(&snapshot).writes[..] else { panic!("one placement is made") };
    let mut placement: WorkPlacement = serde_json::from_value(object.clone()).unwrap();
    placement.metadata.generation = Some(3);
    snapshot.placements = vec![placement.into()];
    snapshot
}

fn own(snapshot: &mut Snapshot, pairs: &[(&str, &str)]) {
    let placement = Arc::make_mut(&mut snapshot.placements[0]);
    placement.metadata.annotations.get_or_insert_default().extend(labels(pairs));
}

fn annotations(snapshot: &Snapshot) -> Value {
    let [Write::Patch { patch, .. }] = &decide(snapshot).writes[..] else { panic!("{:?}", decide(snapshot).writes) };
    patch["metadata"]["annotations"].clone()
}

#[test]
fn a_trace_alone_is_no_reason_to_write_a_placement() {
    let mut snapshot = placed();
    traced(&mut snapshot.work, OF_WORK);
    assert_eq!(decide(&snapshot).writes, []);
    Arc::make_mut(&mut snapshot.placements[0]).metadata.labels.as_mut().unwrap().remove(keys::PIPELINE_NAME);
    let expected = json!({
        "kratix.io/trace-parent": OF_WORK, "kratix.io/trace-timestamp": "t", "kratix.io/trace-generation": "3",
    });
    assert_eq!(annotations(&snapshot), expected, "it rides along, about the generation that there is");
    own(&mut snapshot, &[(keys::TRACE_PARENT, OWN)]);
    assert_eq!(annotations(&snapshot), Value::Null, "the placement's own wins");
}

#[test]
fn weakness_31_another_content_brings_its_trace_and_the_generation_that_it_makes() {
    let mut snapshot = placed();
    traced(&mut snapshot.work, OF_WORK);
    own(&mut snapshot, &[(keys::TRACE_PARENT, OWN), (keys::TRACE_STATE, "a=b"), (keys::TRACE_GENERATION, "3")]);
    Arc::make_mut(&mut snapshot.work).spec.workload_groups[0].workloads[0].content = compression::compress(b"a: 2\n");
    let expected = json!({
        "kratix.io/trace-parent": OF_WORK, "kratix.io/trace-state": null, "kratix.io/trace-timestamp": "t",
        "kratix.io/trace-generation": "4",
    });
    assert_eq!(annotations(&snapshot), expected);
    Arc::make_mut(&mut snapshot.work).metadata.annotations = None;
    assert_eq!(annotations(&snapshot), Value::Null, "without a trace of the Work its own is left alone");
}

#[test]
fn placements_without_a_trace_get_the_one_of_a_work_that_is_deleted() {
    let mut snapshot = placed();
    traced(&mut snapshot.work, OF_WORK);
    assert_eq!(last_words(&snapshot), []);
    Arc::make_mut(&mut snapshot.work).metadata.deletion_timestamp = Some(Time(at(0)));
    let [Write::Patch { patch, target }] = &last_words(&snapshot)[..] else { panic!("{:?}", last_words(&snapshot)) };
    assert_eq!(patch["metadata"]["annotations"]["kratix.io/trace-parent"], OF_WORK);
    assert_eq!(target.resource_version, None);
    own(&mut snapshot, &[(keys::TRACE_PARENT, OWN)]);
    assert_eq!(last_words(&snapshot), []);
}
