//! `kubectl logs`: the API server asks the node, which starts later than the server.

use std::sync::OnceLock;

use async_trait::async_trait;
use bytes::Bytes;
use embedded_apiserver::{LogError, LogOptions, PodLogs};
use embedded_node::NodeHandle;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::Value;

/// Reads logs from the node, once there is one.
#[derive(Default)]
pub(crate) struct Logs(OnceLock<NodeHandle>);

impl Logs {
    /// Connects the node. Only the first call counts.
    pub(crate) fn connect(&self, node: NodeHandle) {
        let _ = self.0.set(node);
    }
}

#[async_trait]
impl PodLogs for Logs {
    async fn logs(
        &self,
        pod: &Value,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<Bytes, LogError>>, LogError> {
        let Some(node) = self.0.get() else {
            return Err(LogError::BadRequest("the node is starting".into()));
        };
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let since_time = match options.since_time.as_deref().map(str::parse).transpose() {
            Ok(time) => time,
            Err(error) => return Err(LogError::BadRequest(format!("sinceTime is not a time: {error}"))),
        };
        let options = embedded_node::LogOptions {
            container: options.container,
            follow: options.follow,
            previous: options.previous,
            tail_lines: options.tail_lines,
            since_seconds: options.since_seconds,
            since_time,
            timestamps: options.timestamps,
            limit_bytes: options.limit_bytes,
        };
        match node.logs(text("/metadata/namespace"), text("/metadata/name"), &options) {
            Ok(log) => Ok(log.map(|chunk| chunk.map_err(|error| LogError::Internal(error.to_string()))).boxed()),
            Err(error @ embedded_node::LogError::NoPod { .. }) => Err(LogError::NotFound(error.to_string())),
            Err(error @ embedded_node::LogError::Io { .. }) => Err(LogError::Internal(error.to_string())),
            Err(error) => Err(LogError::BadRequest(error.to_string())),
        }
    }
}
