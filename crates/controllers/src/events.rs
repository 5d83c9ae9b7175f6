//! Publishes what has happened as `events.k8s.io/v1` Events.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::ObjectReference;
use kratix_core::plan::{Event, EventType, Reporter};
use kube::Client;
use kube::runtime::events::{Event as Published, EventType as PublishedType, Recorder, Reporter as Source};
use tokio::sync::mpsc;

/// Notes the API server accepts.
const NOTE_BYTES_MAX: usize = 1024;

/// Events waiting to be published. At the limit the newest is dropped and logged: an event is a help for people, never
/// a reason to hold a pass.
const WAITING_MAX: usize = 4096;

/// Hands events to the task that publishes them.
#[derive(Clone)]
pub(crate) struct Events {
    queue: mpsc::Sender<Event>,
}

/// The publishing half, run by one task so that events keep their order.
pub(crate) struct Publisher {
    queue: mpsc::Receiver<Event>,
    platform: Client,
    instance: String,
    recorders: HashMap<Reporter, Recorder>,
}

/// Returns both halves. `host` distinguishes several instances of the process.
pub(crate) fn channel(platform: Client, host: &str) -> (Events, Publisher) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let publisher = Publisher { queue: receiver, platform, instance: host.to_owned(), recorders: HashMap::new() };
    (Events { queue: sender }, publisher)
}

impl Events {
    /// Queues an event; never waits.
    pub(crate) fn publish(&self, event: &Event) {
        if let Err(error) = self.queue.try_send(event.clone()) {
            tracing::warn!(reason = event.reason, object = %event.regarding, %error, "event dropped");
        }
    }
}

impl Publisher {
    /// Publishes until every [`Events`] is dropped.
    pub(crate) async fn run(mut self) {
        while let Some(event) = self.queue.recv().await {
            let recorder = self.recorders.entry(event.reporter).or_insert_with(|| {
                let controller = event.reporter.name().to_owned();
                let instance = format!("{controller}-{}", self.instance);
                Recorder::new(self.platform.clone(), Source { controller, instance: Some(instance) })
            });
            if let Err(error) = recorder.publish(&published(&event), &reference(&event)).await {
                tracing::debug!(reason = event.reason, object = %event.regarding, %error, "event not published");
            }
        }
    }
}

fn published(event: &Event) -> Published {
    Published {
        type_: match event.type_ {
            EventType::Normal => PublishedType::Normal,
            EventType::Warning => PublishedType::Warning,
        },
        reason: event.reason.to_owned(),
        note: Some(truncated(&event.note, NOTE_BYTES_MAX).to_owned()),
        action: event.reason.to_owned(),
        secondary: None,
    }
}

fn reference(event: &Event) -> ObjectReference {
    let target = &event.regarding;
    ObjectReference {
        api_version: Some(target.kind.api_version()),
        kind: Some(target.kind.kind.clone()),
        name: Some(target.key.name.clone()),
        namespace: target.key.namespace.clone(),
        uid: target.uid.clone(),
        resource_version: target.resource_version.clone(),
        field_path: None,
    }
}

/// Cuts a text to at most `bytes` bytes at a character boundary.
fn truncated(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let end = (0..=bytes).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_cut_at_a_character_boundary() {
        assert_eq!(truncated("short", 1024), "short");
        assert_eq!(truncated("aé", 2), "a");
        assert_eq!(truncated(&"x".repeat(2000), NOTE_BYTES_MAX).len(), 1024);
    }
}
