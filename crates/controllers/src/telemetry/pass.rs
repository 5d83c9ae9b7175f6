//! One pass over one object as a span.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use kratix_api::ObjectMeta;
use kratix_core::object::Target;
use kratix_core::plan::Plan;
use kratix_core::trace::{self, Attribute, Changes, Origin, Subject};
use kube::Resource;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use super::requests;
use crate::error::Error;

/// A pass, with a span if tracing is on.
pub(crate) struct Pass {
    /// What the object says, or the span of the pass.
    context: Option<trace::SpanContext>,
    traced: Option<Traced>,
}

struct Traced {
    span: Context,
    tracer: SdkTracer,
    target: Target,
    changes: Changes,
    is_noted: AtomicBool,
}

impl Pass {
    pub(super) fn untraced(context: Option<trace::SpanContext>) -> Self {
        Self { context, traced: None }
    }

    pub(super) fn traced(
        provider: &SdkTracerProvider,
        metadata: &ObjectMeta,
        now: Timestamp,
        subject: Subject,
    ) -> Self {
        let tracer = provider.tracer(subject.tracer);
        let origin = Origin::of(metadata, now);
        let parent = match &origin {
            Origin::Root => Context::new(),
            Origin::Child(parent) => Context::new().with_remote_span_context(to_remote(parent)),
        };
        let attributes = subject.attributes.into_iter().map(|(key, value)| match value {
            Attribute::Text(text) => KeyValue::new(key, text),
            Attribute::Number(number) => KeyValue::new(key, number),
            Attribute::Flag(flag) => KeyValue::new(key, flag),
        });
        let builder = tracer.span_builder(subject.span).with_kind(SpanKind::Server).with_attributes(attributes);
        let span = builder.start_with_context(&tracer, &parent);
        let span = Context::new().with_span(span);
        let context = from_own(&span);
        let changes = Changes::of(metadata, &origin, &context, now);
        let is_noted = AtomicBool::new(changes.is_empty());
        let traced = Traced { span, tracer, target: subject.target, changes, is_noted };
        Self { context: Some(context), traced: Some(traced) }
    }

    /// Names the trace in the log lines of the pass.
    pub(super) fn label_logs(&self) {
        if let Some(context) = &self.context {
            tracing::Span::current().record("trace_id", context.trace());
        }
    }

    /// Returns the object as it is once the changes of its annotations are written.
    pub(crate) fn carry<K: Resource + Clone>(&self, object: Arc<K>) -> Arc<K> {
        match &self.traced {
            Some(traced) if !traced.changes.is_empty() => {
                let mut object = (*object).clone();
                traced.changes.apply(object.meta_mut());
                Arc::new(object)
            }
            _ => object,
        }
    }

    /// As [`Pass::carry`], but with the span of this very pass as the trace: for what is made from the object.
    pub(crate) fn hand_on<K: Resource + Clone>(&self, object: Arc<K>) -> Arc<K> {
        let (Some(traced), Some(context)) = (&self.traced, &self.context) else { return object };
        let mut object = (*object).clone();
        traced.changes.apply(object.meta_mut());
        trace::hand_on(object.meta_mut(), context);
        Arc::new(object)
    }

    /// Makes the changes of the object's annotations a part of a patch that the plan has anyway.
    pub(crate) fn fold<F>(&self, plan: &mut Plan<F>) {
        if let Some(traced) = &self.traced
            && !traced.is_noted.load(Ordering::Relaxed)
            && traced.changes.fold(&traced.target, plan)
        {
            traced.is_noted.store(true, Ordering::Relaxed);
        }
    }

    /// Makes sure that the changes of the object's annotations are written by the plan, unless they have been.
    pub(crate) fn note<F>(&self, plan: &mut Plan<F>) {
        self.fold(plan);
        if let Some(traced) = &self.traced
            && !traced.is_noted.swap(true, Ordering::Relaxed)
        {
            traced.changes.prepend(&traced.target, plan);
        }
    }

    /// As [`Pass::note`], if the plan writes anything: a pass that does nothing leaves no trace.
    pub(crate) fn note_if_busy<F>(&self, plan: &mut Plan<F>) {
        if !plan.is_silent() {
            self.note(plan);
        }
    }

    /// Runs the pass inside the span.
    pub(crate) async fn run<T>(&self, pass: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let Some(traced) = &self.traced else { return pass.await };
        let result = requests::within(traced.span.clone(), traced.tracer.clone(), pass).await;
        let span = traced.span.span();
        match &result {
            // What the last pass made is on its way: nothing has failed.
            Ok(_) | Err(Error::Unseen { .. }) => {}
            Err(error) => {
                span.record_error(error);
                span.set_status(Status::error(error.to_string()));
            }
        }
        span.end();
        result
    }
}

fn to_remote(context: &trace::SpanContext) -> SpanContext {
    SpanContext::new(
        TraceId::from(context.trace_id),
        SpanId::from(context.span_id),
        TraceFlags::new(context.flags),
        true,
        // A state that nobody understands is dropped, as the W3C asks.
        context.state.parse::<TraceState>().unwrap_or_default(),
    )
}

/// Returns what others are told about a span.
pub(super) fn from_own(span: &Context) -> trace::SpanContext {
    let span = span.span();
    let context = span.span_context();
    trace::SpanContext {
        trace_id: u128::from_be_bytes(context.trace_id().to_bytes()),
        span_id: u64::from_be_bytes(context.span_id().to_bytes()),
        flags: context.trace_flags().to_u8(),
        state: context.trace_state().header(),
    }
}
