//! Where `pods/log` comes from: the embedder, which runs the pods.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde_json::Value;

/// What of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Container; `None` when the pod has only one.
    pub container: Option<String>,
    /// Go on until the container ends.
    pub follow: bool,
    /// The incarnation before this one.
    pub previous: bool,
    /// Only so many lines from the end.
    pub tail_lines: Option<u64>,
    /// Only lines of the last so many seconds.
    pub since_seconds: Option<u64>,
    /// Only lines since this RFC 3339 time.
    pub since_time: Option<String>,
    /// Begin each line with its time.
    pub timestamps: bool,
    /// Stop after so many bytes.
    pub limit_bytes: Option<u64>,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The container has not started, or the request makes no sense; the text is shown to the user (400).
    #[error("{0}")]
    BadRequest(String),
    /// No such log (404).
    #[error("{0}")]
    NotFound(String),
    /// Reading failed (500).
    #[error("{0}")]
    Internal(String),
}

/// Reads the logs of pods.
#[async_trait]
pub trait PodLogs: Send + Sync + 'static {
    /// Opens a log; `pod` is the Pod as stored. The container named exists in the pod.
    async fn logs(
        &self,
        pod: &Value,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<Bytes, LogError>>, LogError>;
}

/// Knows no logs.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLogs;

#[async_trait]
impl PodLogs for NoLogs {
    async fn logs(&self, _: &Value, _: LogOptions) -> Result<BoxStream<'static, Result<Bytes, LogError>>, LogError> {
        Err(LogError::NotFound("no node runs pods of this server".into()))
    }
}
