//! A collector of OTLP: it accepts what the protocol allows, decodes it, and remembers it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

type Reply = Response<StreamBody<futures::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>>;

/// What has arrived.
#[derive(Default)]
pub(crate) struct Arrived {
    pub(crate) connections: usize,
    /// Spans with the name of their tracer.
    pub(crate) spans: Vec<(String, Span)>,
    /// Instrumentation scope, name and attributes of each series with its last value.
    pub(crate) series: BTreeMap<String, i64>,
    /// Resource attributes of the last request.
    pub(crate) resource: BTreeMap<String, String>,
    /// Path and headers of each request.
    pub(crate) requests: Vec<(String, HeaderMap)>,
}

/// A running collector.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    arrived: Arc<Mutex<Arrived>>,
    _tasks: JoinSet<()>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let arrived = Arc::new(Mutex::new(Arrived::default()));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, arrived.clone()));
        Self { address, arrived, _tasks: tasks }
    }

    pub(crate) fn arrived<T>(&self, read: impl FnOnce(&Arrived) -> T) -> T {
        read(&self.arrived.lock())
    }

    /// Returns the spans of this name.
    pub(crate) fn spans(&self, name: &str) -> Vec<Span> {
        self.arrived(|arrived| {
            let spans = arrived.spans.iter().map(|(_, span)| span);
            spans.filter(|span| span.name == name).cloned().collect()
        })
    }
}

async fn serve(listener: TcpListener, arrived: Arc<Mutex<Arrived>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        arrived.lock().connections += 1;
        let arrived = arrived.clone();
        let service = service_fn(move |request| answer(request, arrived.clone()));
        connections.spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, arrived: Arc<Mutex<Arrived>>) -> Result<Reply, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut arrived = arrived.lock();
    arrived.requests.push((parts.uri.path().to_owned(), parts.headers));
    // Five bytes before a message of gRPC: not compressed, and its length.
    let is_grpc = match parts.uri.path() {
        "/v1/traces" => {
            arrived.take_spans(&body);
            false
        }
        "/v1/metrics" => {
            arrived.take_metrics(&body);
            false
        }
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => {
            arrived.take_spans(message(&body));
            true
        }
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => {
            arrived.take_metrics(message(&body));
            true
        }
        other => panic!("nobody sends to {other}"),
    };
    Ok(reply(is_grpc))
}

fn message(body: &Bytes) -> &[u8] {
    assert_eq!(body[0], 0, "not compressed");
    let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
    assert_eq!(body.len(), 5 + length);
    &body[5..]
}

fn reply(is_grpc: bool) -> Reply {
    if !is_grpc {
        let empty = futures::stream::iter(Vec::new());
        return Response::builder()
            .header("content-type", "application/x-protobuf")
            .body(StreamBody::new(empty))
            .unwrap();
    }
    let mut nothing = BytesMut::new();
    nothing.put_bytes(0, 5);
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    let frames = vec![Ok(Frame::data(nothing.freeze())), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(futures::stream::iter(frames));
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

impl Arrived {
    fn take_spans(&mut self, bytes: &[u8]) {
        let request = ExportTraceServiceRequest::decode(bytes).unwrap();
        for of_resource in request.resource_spans {
            self.resource = attributes(&of_resource.resource.unwrap().attributes);
            for of_scope in of_resource.scope_spans {
                let tracer = of_scope.scope.unwrap().name;
                self.spans.extend(of_scope.spans.into_iter().map(|span| (tracer.clone(), span)));
            }
        }
    }

    fn take_metrics(&mut self, bytes: &[u8]) {
        let request = ExportMetricsServiceRequest::decode(bytes).unwrap();
        let all = request.resource_metrics.into_iter().flat_map(|of_resource| of_resource.scope_metrics);
        for of_scope in all {
            let scope = of_scope.scope.unwrap().name;
            for metric in of_scope.metrics {
                let points = match metric.data.unwrap() {
                    Data::Sum(sum) => {
                        assert!(sum.is_monotonic, "{}", metric.name);
                        sum.data_points
                    }
                    Data::Gauge(gauge) => gauge.data_points,
                    other => panic!("{other:?}"),
                };
                for point in points {
                    let pairs = attributes(&point.attributes).into_iter().map(|(key, value)| format!("{key}={value}"));
                    let pairs = pairs.collect::<Vec<_>>().join(" ");
                    let Some(Number::AsInt(value)) = point.value else { panic!("{point:?}") };
                    self.series.insert(format!("{scope} {} {pairs}", metric.name), value);
                }
            }
        }
    }
}

/// Returns attributes as text.
pub(crate) fn attributes(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.clone()) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        other => format!("{other:?}"),
    };
    pairs.iter().map(|pair| (pair.key.clone(), text(&pair.value))).collect()
}
