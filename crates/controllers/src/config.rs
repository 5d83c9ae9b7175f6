//! The platform configuration as the process goes by it: read again whenever the ConfigMap changes.

use std::sync::Arc;

use kratix_core::config::{self, Config, Reading};
use tokio::sync::watch;

use crate::caches::Caches;
use crate::events::Events;

/// Returns the settings in force. What is wrong with the ConfigMap is said there, once for every document.
pub(crate) fn follow(caches: &Caches, events: &Events) -> watch::Receiver<Arc<Config>> {
    let present = caches.config.all();
    let started_with = Reading::of(present.first().map(|config_map| &**config_map)).config.unwrap_or_default();
    let (sender, receiver) = watch::channel(Arc::new(started_with));
    let events = events.clone();
    caches.config.on_change(move |old, new| {
        if !config::concerns(old.map(|old| &**old), new.map(|new| &**new)) {
            return;
        }
        let reading = Reading::of(new.map(|new| &**new));
        reading.faults.iter().for_each(|fault| tracing::warn!("{fault}"));
        if let Some(complaint) = new.and_then(|config_map| reading.complaint(config_map)) {
            events.publish(&complaint);
        }
        let Some(config) = reading.config else { return };
        sender.send_if_modified(|current| {
            if **current == config {
                return false;
            }
            tracing::info!("platform configuration taken over");
            if let Some(event) = new.or(old).and_then(|map| config::without_effect(map, current, &config)) {
                tracing::info!("{}", event.note);
                events.publish(&event);
            }
            *current = Arc::new(config);
            true
        });
    });
    receiver
}
