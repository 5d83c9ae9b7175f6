//! The span of a pass over one object: its tracer, its name, its attributes.

use kratix_api::{ObjectMeta, Promise, PromiseRevision, Work, WorkPlacement, keys};
use kube_core::{DynamicObject, ResourceExt};

use crate::object::{Kind, Target};
use crate::work::is_request;

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// Text.
    Text(String),
    /// Number.
    Number(i64),
    /// True or false.
    Flag(bool),
}

/// The object of a pass, as its span shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Name of the tracer.
    pub tracer: &'static str,
    /// Name of the span.
    pub span: String,
    /// Attributes of the span.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// The object.
    pub target: Target,
}

impl Subject {
    /// Returns the subject of a pass over a Promise.
    pub fn promise(promise: &Promise) -> Self {
        let name = promise.name_any();
        Self {
            tracer: "promise-controller",
            span: format!("{name}/PromiseReconcile"),
            attributes: vec![
                ("kratix.promise.name", Attribute::Text(name)),
                ("kratix.promise.generation", Attribute::Number(promise.metadata.generation.unwrap_or_default())),
                action(&promise.metadata),
            ],
            target: Target::of(promise),
        }
    }

    /// Returns the subject of a pass over a request of `promise`.
    pub fn request(promise: &str, kind: &Kind, request: &DynamicObject) -> Self {
        Self {
            tracer: "dynamic-resource-request-controller",
            span: format!("{promise}/DynamicResourceRequestReconcile"),
            attributes: vec![
                ("kratix.promise.name", Attribute::Text(promise.to_owned())),
                ("kratix.resource_request.name", Attribute::Text(request.name_any())),
                ("kratix.resource_request.namespace", Attribute::Text(request.namespace().unwrap_or_default())),
                action(&request.metadata),
            ],
            target: Target::with_kind(kind.clone(), request),
        }
    }

    /// Returns the subject of a pass over a Work.
    pub fn work(work: &Work) -> Self {
        let is_request = is_request(work);
        let mut attributes = vec![
            ("kratix.promise.name", Attribute::Text(work.spec.promise_name.clone())),
            ("kratix.work.name", Attribute::Text(work.name_any())),
            ("kratix.work.namespace", Attribute::Text(work.namespace().unwrap_or_default())),
            ("kratix.work.resource_request", Attribute::Flag(is_request)),
            action(&work.metadata),
        ];
        if is_request {
            attributes.push(("kratix.work.resource_request.name", Attribute::Text(work.spec.resource_name.clone())));
        }
        Self {
            tracer: "work-controller",
            span: of_request(&work.spec.resource_name, &work.spec.promise_name, "WorkReconcile"),
            attributes,
            target: Target::of(work),
        }
    }

    /// Returns the subject of a pass over a placement.
    pub fn work_placement(placement: &WorkPlacement) -> Self {
        let spec = &placement.spec;
        Self {
            tracer: "workplacement-controller",
            span: of_request(&spec.resource_name, &spec.promise_name, "WorkPlacementReconcile"),
            attributes: vec![
                ("kratix.promise.name", Attribute::Text(spec.promise_name.clone())),
                ("kratix.workplacement.name", Attribute::Text(placement.name_any())),
                ("kratix.workplacement.namespace", Attribute::Text(placement.namespace().unwrap_or_default())),
                ("kratix.workplacement.target_destination", Attribute::Text(spec.target_destination_name.clone())),
                action(&placement.metadata),
            ],
            target: Target::of(placement),
        }
    }

    /// Returns the subject of a pass over a PromiseRevision.
    pub fn promise_revision(revision: &PromiseRevision) -> Self {
        let name = revision.name_any();
        Self {
            tracer: "promise-revision-controller",
            span: format!("{name}/PromiseRevisionReconcile"),
            attributes: vec![
                ("kratix.promiserevision.name", Attribute::Text(name)),
                ("kratix.promise.version", Attribute::Text(revision.spec.version.clone())),
                ("kratix.promise.name", Attribute::Text(revision.spec.promise_ref.name.clone())),
                ("kratix.promiserevision.latest", Attribute::Flag(revision.is_latest())),
            ],
            target: Target::of(revision),
        }
    }
}

fn of_request(resource: &str, promise: &str, what: &str) -> String {
    if resource.is_empty() { format!("{promise}/{what}") } else { format!("{resource}/{promise}/{what}") }
}

/// What the pass is about, as far as the object tells before it.
fn action(metadata: &ObjectMeta) -> (&'static str, Attribute) {
    let annotations = metadata.annotations.as_ref();
    let has_trace = annotations.and_then(|annotations| annotations.get(keys::TRACE_PARENT)).is_some();
    let action = match (metadata.deletion_timestamp.is_some(), has_trace) {
        (true, _) => "delete",
        (false, false) => "create",
        (false, true) => "update",
    };
    ("kratix.action", Attribute::Text(action.to_owned()))
}
