//! Watching: a cursor over the store, rendered as a stream of events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use embedded_apimachinery::Status;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use super::Filter;
use super::list::{forbidden_option, parse_revision};
use crate::catalog::Served;
use crate::core::{Call, Core};
use crate::failure::Failure;
use crate::http::View;
use crate::http::view;
use crate::store::{Change, ChangeKind, Compacted, Cursor, Page, Record, Scope};

/// Pause between bookmarks, as the real server's.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// Events larger than this are passed on as shared bytes; smaller ones are packed together, to send fewer frames.
const PACK_BYTES_MAX: usize = 16 << 10;
/// Packs are cut here, so that a slow reader's buffer stays small.
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// Longest watch; whoever asks for a longer one opens another when it ends.
const TIMEOUT_SECONDS_MAX: u64 = 24 * 3600;

/// How a watch begins and ends.
#[derive(Debug)]
pub(crate) struct WatchOptions {
    start: Start,
    bookmarks: bool,
    timeout: Duration,
}

#[derive(Debug, PartialEq, Eq)]
enum Start {
    /// Everything there is as ADDED, then changes; the flag asks for the bookmark in between.
    Initial { bookmark: bool },
    /// Changes after a revision.
    After(u64),
    /// Changes from now on.
    Now,
}

impl WatchOptions {
    pub(crate) fn parse(core: &Core, call: &Call) -> Result<Self, Failure> {
        let query = &call.query;
        let version = query.get("resourceVersion");
        let revision = version.map(parse_revision).transpose()?.unwrap_or(0);
        let bookmarks = query.flag("allowWatchBookmarks");
        let initial = query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents"));
        let matching = query.get("resourceVersionMatch");
        let start = match (initial, matching) {
            (None, Some(_)) => {
                let text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                return Err(forbidden_option("resourceVersionMatch", text));
            }
            (Some(_), found) if found != Some("NotOlderThan") => {
                let text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                return Err(forbidden_option("resourceVersionMatch", text));
            }
            (Some(true), _) => {
                core.check_reached(revision)?;
                Start::Initial { bookmark: bookmarks }
            }
            (Some(false), _) if revision == 0 => Start::Now,
            (None, _) if revision == 0 => Start::Initial { bookmark: false },
            _ => {
                // From the future: events before it would be taken for ones after it.
                core.check_reached(revision)?;
                Start::After(revision)
            }
        };
        // Spread like the real server's default, so that not every client returns in the same second.
        let default = 1800 + u64::from(uuid::Uuid::new_v4().as_bytes()[0]) * 7;
        let seconds = query.number("timeoutSeconds").filter(|seconds| *seconds > 0).unwrap_or(default);
        let seconds = seconds.min(TIMEOUT_SECONDS_MAX);
        Ok(Self { start, bookmarks, timeout: Duration::from_secs(seconds) })
    }
}

struct Watch {
    core: Arc<Core>,
    served: Arc<Served>,
    filter: Filter,
    view: View,
    cursor: Cursor,
    /// Tells when a CRD changes; `None` for built-in resources, which never end.
    catalog: Option<tokio::sync::watch::Receiver<u64>>,
    ready: Chunks,
    bookmarks: Option<Interval>,
    deadline: Instant,
    ended: bool,
}

impl Core {
    /// Opens a watch; the stream ends with the timeout, with the server, or after an ERROR event.
    pub(crate) fn watch(
        self: &Arc<Self>,
        call: &Call,
        filter: Filter,
        view: View,
        options: &WatchOptions,
    ) -> BoxStream<'static, Result<Bytes, std::io::Error>> {
        let served = call.served.clone();
        let namespace = (!call.namespace.is_empty()).then(|| call.namespace.as_str().into());
        let scope = Scope { table: served.table.clone(), namespace };
        let mut ready = Chunks::new(view);
        let catalog = served.is_custom().then(|| {
            let mut catalog = self.catalog.subscribe();
            // It may have changed since the request was routed.
            catalog.mark_changed();
            catalog
        });
        let opened = match options.start {
            Start::Initial { bookmark } => {
                let keep = |record: &Record| filter.matches(self, &served, record);
                let (Page { records, revision, .. }, cursor) = self.store.list_and_watch(scope, keep);
                for record in records {
                    ready.push("ADDED", ready.object(self, &served, &record));
                }
                if bookmark {
                    ready.push("BOOKMARK", view.bookmark(&served, revision, true));
                }
                Ok(cursor)
            }
            Start::After(revision) => self.store.watch(scope, revision),
            Start::Now => self.store.watch(scope, self.store.revision()),
        };
        let cursor = match opened {
            Ok(cursor) => cursor,
            Err(compacted) => {
                ready.error(compacted);
                return stream::iter(ready.take_all().into_iter().map(Ok)).boxed();
            }
        };
        let bookmarks = options.bookmarks.then(|| {
            let mut ticks = interval_at(Instant::now() + BOOKMARK_PERIOD, BOOKMARK_PERIOD);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        let deadline = Instant::now() + options.timeout;
        let core = self.clone();
        let watch = Watch { core, served, filter, view, cursor, catalog, ready, bookmarks, deadline, ended: false };
        stream::unfold(watch, |mut watch| async move { watch.next().await.map(|chunk| (Ok(chunk), watch)) }).boxed()
    }
}

impl Watch {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(chunk) = self.ready.take() {
                return Some(chunk);
            }
            if self.ended {
                return None;
            }
            self.advance();
            if !self.ready.is_empty() || self.ended {
                continue;
            }
            let tick = async {
                match &mut self.bookmarks {
                    Some(ticks) => ticks.tick().await,
                    None => std::future::pending().await,
                }
            };
            let catalog = async {
                match &mut self.catalog {
                    Some(catalog) => drop(catalog.changed().await),
                    None => std::future::pending().await,
                }
            };
            // In order, so that what is told first does not depend on a draw; changes without end hold up nothing else.
            tokio::select! {
                biased;
                () = self.core.shutdown.cancelled() => self.ended = true,
                () = sleep_until(self.deadline) => self.ended = true,
                () = catalog => {
                    // The last events of objects that went with their CRD go out before the end.
                    self.advance();
                    self.follow_catalog();
                }
                _ = tick => {
                    // What happened before the bookmark goes out before it.
                    self.advance();
                    if !self.ended {
                        let bookmark = self.view.bookmark(&self.served, self.cursor.position(), false);
                        self.ready.push("BOOKMARK", bookmark);
                    }
                }
                () = self.cursor.changed() => {}
            }
        }
    }

    /// Renders everything that changed since the last time.
    fn advance(&mut self) {
        let changes = match self.cursor.take() {
            Ok(changes) if changes.is_empty() => return,
            Ok(changes) => changes,
            Err(compacted) => {
                self.ready.error(compacted);
                self.ended = true;
                return;
            }
        };
        self.follow_catalog();
        for change in changes {
            self.render(&change);
        }
    }

    /// Takes over a changed schema, and ends when the version is served no longer.
    fn follow_catalog(&mut self) {
        if self.served.is_custom() {
            let current = self.core.catalog.snapshot();
            match current.find(&self.served.group, &self.served.version, &self.served.plural) {
                Some(served) => self.served = served.clone(),
                None => self.ended = true,
            }
        }
    }

    fn render(&mut self, change: &Change) {
        let matches = |record: &Record| self.filter.matches(&self.core, &self.served, record);
        let before = change.previous.as_deref().is_some_and(matches);
        let after = change.kind != ChangeKind::Deleted && matches(&change.record);
        let object = |record: &Record| self.ready.object(&self.core, &self.served, record);
        match (before, after) {
            (false, false) => {}
            (false, true) => self.ready.push("ADDED", object(&change.record)),
            (true, true) => self.ready.push("MODIFIED", object(&change.record)),
            (true, false) if change.kind == ChangeKind::Deleted => {
                self.ready.push("DELETED", object(&change.record));
            }
            (true, false) => {
                // It left the selection: the last state that was in it, at the revision of the change.
                let previous = change.previous.as_ref().expect("it matched before");
                self.ready.push("DELETED", object(&previous.at_revision(change.record.revision())));
            }
        }
    }
}

/// Rendered events waiting to be sent.
struct Chunks {
    view: View,
    /// Tables tell their columns once.
    columns_sent: std::cell::Cell<bool>,
    queue: VecDeque<Bytes>,
    packed: BytesMut,
}

impl Chunks {
    fn new(view: View) -> Self {
        Self { view, columns_sent: std::cell::Cell::new(false), queue: VecDeque::new(), packed: BytesMut::new() }
    }

    fn object(&self, core: &Core, served: &Served, record: &Record) -> Bytes {
        match self.view {
            View::Table(_) => {
                let columns = !self.columns_sent.replace(true);
                self.view.value(served, core.read(served, record), columns)
            }
            view => view.record(core, served, record),
        }
    }

    fn push(&mut self, kind: &str, object: Bytes) {
        self.packed.extend_from_slice(b"{\"type\":\"");
        self.packed.extend_from_slice(kind.as_bytes());
        self.packed.extend_from_slice(b"\",\"object\":");
        if object.len() > PACK_BYTES_MAX {
            self.flush();
            self.queue.push_back(object);
        } else {
            self.packed.extend_from_slice(&object);
        }
        self.packed.extend_from_slice(b"}\n");
        if self.packed.len() > CHUNK_BYTES_MAX {
            self.flush();
        }
    }

    fn error(&mut self, compacted: Compacted) {
        self.push("ERROR", view::encode(Status::expired(compacted.to_string()).body()));
    }

    fn flush(&mut self) {
        if !self.packed.is_empty() {
            self.queue.push_back(self.packed.split().freeze());
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        if self.queue.is_empty() {
            self.flush();
        }
        self.queue.pop_front()
    }

    fn take_all(&mut self) -> VecDeque<Bytes> {
        self.flush();
        std::mem::take(&mut self.queue)
    }

    fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.packed.is_empty()
    }
}
