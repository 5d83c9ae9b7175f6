//! The requests that are made of a bucket, whatever kind of service holds it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use kratix_store_path::Path;
use md5::{Digest as _, Md5};
use object_store::path::Error as PathError;
use object_store::{
    Attribute, Attributes, GetOptions, MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, UpdateVersion,
};
use sha2::Sha256;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::error::Elapsed;

use super::answer::{self, Last};
use super::directory::Directory;
use crate::error::Trouble;

/// The key of an object.
pub(super) type Key = object_store::path::Path;

/// How many requests are under way at the same time.
const REQUESTS_MAX: usize = 32;
/// What Kratix names the content type of everything.
const CONTENT_TYPE: &str = "application/octet-stream";

/// A bucket.
pub(super) struct Objects {
    kind: Kind,
    bucket: String,
    deadline: Duration,
    requests: Semaphore,
    /// Whether the service honours conditions; believed until it says no.
    has_conditions: AtomicBool,
    /// What the bucket as a whole suffers from: nothing more is asked of it until [`resume`](Self::resume).
    trouble: Mutex<Option<Trouble>>,
}

enum Kind {
    Remote { store: Arc<dyn ObjectStore>, host: String, digest: &'static str, starts_uploads: bool },
    Directory(Directory),
}

/// What is known of an object without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) size: u64,
    /// The service's own identity of the content.
    pub(super) tag: String,
    /// The version, on a versioned bucket.
    pub(super) version: Option<String>,
    /// The digest that was stored beside the content; the outer `None` if it was not asked for.
    digest: Option<Option<String>>,
}

/// When an object is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum When<'a> {
    Always,
    /// Only if there is none.
    Absent,
    /// Only if it is still this one.
    Still(&'a Meta),
}

/// Why a request was in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The bucket as a whole has trouble.
    Store(Trouble),
    /// The service refuses this request, and maybe not others.
    Refused(Trouble),
    /// The object is not any more what it was believed to be.
    Moved,
    /// Something else stands in the way.
    Blocked { obstacle: String, kind: &'static str },
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Forbidden(_) | Trouble::Answer(_) => Self::Refused(trouble),
            _ => Self::Store(trouble),
        }
    }
}

/// Returns the key of a path.
pub(super) fn key(path: &Path) -> Key {
    Key::parse(path.to_string()).expect("a checked path has no segment that a key cannot have")
}

/// Returns the digest that is stored beside contents.
pub(super) fn digest(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Objects {
    /// `host` is whom the service's own answers come from; an `upload` that is started is asked for at the service at once.
    pub(super) fn remote(
        store: Arc<dyn ObjectStore>,
        host: String,
        bucket: String,
        deadline: Duration,
        is_azure: bool,
    ) -> Self {
        // Azure takes names of programming languages only, and knows an upload by its parts only.
        let digest = if is_azure { "kratix_sha256" } else { "kratix-sha256" };
        Self::new(Kind::Remote { store, host, digest, starts_uploads: !is_azure }, bucket, deadline)
    }

    pub(super) fn directory(directory: Directory, bucket: String, deadline: Duration) -> Self {
        Self::new(Kind::Directory(directory), bucket, deadline)
    }

    fn new(kind: Kind, bucket: String, deadline: Duration) -> Self {
        let (requests, has_conditions) = (Semaphore::new(REQUESTS_MAX), AtomicBool::new(true));
        Self { kind, bucket, deadline, requests, has_conditions, trouble: Mutex::new(None) }
    }

    /// Asks again after trouble.
    pub(super) fn resume(&self) {
        *self.trouble() = None;
    }

    fn trouble(&self) -> MutexGuard<'_, Option<Trouble>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn; whoever waits while others run into trouble shares it.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, Failure> {
        let permit = self.requests.acquire().await.expect("the semaphore is never closed");
        match &*self.trouble() {
            None => Ok(permit),
            Some(trouble) => Err(Failure::Store(trouble.clone())),
        }
    }

    fn remember(&self, failure: Failure) -> Failure {
        if let Failure::Store(trouble) = &failure {
            self.trouble().get_or_insert_with(|| trouble.clone());
        }
        failure
    }

    /// Returns the region that the service names, if it refuses a request because of the one that it is signed for.
    pub(super) async fn other_region(&self, key: &Key) -> Result<Option<String>, Trouble> {
        let Kind::Remote { store, host, .. } = &self.kind else { return Ok(None) };
        let mut objects = store.list(Some(key));
        match answer::listen(tokio::time::timeout(self.deadline, objects.try_next())).await {
            (_, Some(Last::Silence { host: asked, trouble })) if asked == *host => Err(trouble),
            (_, Some(Last::Answer(answer))) => Ok(answer.region),
            _ => Ok(None),
        }
    }

    /// Returns what is known of an object, `None` if there is none.
    pub(super) async fn head(&self, key: &Key) -> Result<Option<Meta>, Failure> {
        let (store, name) = match &self.kind {
            Kind::Directory(directory) => return self.local(directory, key, Directory::head).await,
            Kind::Remote { store, digest, .. } => (store, *digest),
        };
        let options = GetOptions { head: true, ..GetOptions::default() };
        let found = self.ask(store.get_opts(key, options)).await;
        let found = self.unless_missing(found)?;
        Ok(found.map(|found| {
            let digest = found.attributes.get(&Attribute::Metadata(name.into())).map(|digest| digest.to_string());
            Meta { digest: Some(digest), ..Meta::listed(found.meta) }
        }))
    }

    /// Returns content and identity of an object, `None` if there is none.
    pub(super) async fn get(&self, key: &Key) -> Result<Option<(Bytes, Meta)>, Failure> {
        let store = match &self.kind {
            Kind::Directory(directory) => return self.local(directory, key, Directory::get).await,
            Kind::Remote { store, .. } => store,
        };
        let call = async {
            let found = store.get_opts(key, GetOptions::default()).await?;
            let meta = Meta::listed(found.meta.clone());
            Ok((found.bytes().await?, meta))
        };
        let found = self.ask(call).await;
        self.unless_missing(found)
    }

    /// Returns all objects below a directory, of which there are at most `limit`; `None` if there are more.
    pub(super) async fn list(&self, prefix: &Key, limit: usize) -> Result<Option<BTreeMap<Key, Meta>>, Failure> {
        let store = match &self.kind {
            Kind::Directory(directory) => {
                let all = self.local(directory, prefix, Directory::list).await?;
                return Ok((all.len() <= limit).then_some(all));
            }
            Kind::Remote { store, .. } => store,
        };
        let call = async {
            let mut objects = store.list(Some(prefix)).take(limit.saturating_add(1));
            let mut all = BTreeMap::new();
            loop {
                // A listing is as many exchanges as it has pages.
                match tokio::time::timeout(self.deadline, objects.try_next()).await? {
                    // A marker of the directory itself is no file in it.
                    Ok(Some(object)) if object.location == *prefix => {}
                    Ok(Some(object)) => drop(all.insert(object.location.clone(), Meta::listed(object))),
                    Ok(None) => return Ok(Ok(all)),
                    Err(error) => return Ok(Err(error)),
                }
            }
        };
        let all = self.ask_steps(call).await.map_err(|(failure, _)| failure)?;
        Ok((all.len() <= limit).then_some(all))
    }

    /// Writes an object.
    pub(super) async fn put(&self, key: &Key, content: &Bytes, when: When<'_>) -> Result<Meta, Failure> {
        let is_conditional = !matches!(when, When::Always);
        if !is_conditional || !self.has_conditions.load(Ordering::Relaxed) {
            return self.put_once(key, content, When::Always).await.map_err(|(failure, _)| failure);
        }
        match self.put_once(key, content, when).await {
            Ok(meta) => Ok(meta),
            Err((Failure::Moved, _)) => self.arrived(key, content).await?.ok_or(Failure::Moved),
            Err((failure, is_unsupported)) if !is_unsupported => Err(failure),
            Err(_) => {
                self.has_conditions.store(false, Ordering::Relaxed);
                self.put_once(key, content, When::Always).await.map_err(|(failure, _)| failure)
            }
        }
    }

    /// Returns what is known of an object that does not meet a condition if it is as it was to be: a request is repeated when its
    /// answer is lost, and then meets what it has written itself. Should another writer have written the same, nothing is lost.
    async fn arrived(&self, key: &Key, content: &Bytes) -> Result<Option<Meta>, Failure> {
        let Some(meta) = self.head(key).await? else { return Ok(None) };
        Ok(self.holds(key, &meta, content).await?.then_some(meta))
    }

    async fn put_once(&self, key: &Key, content: &Bytes, when: When<'_>) -> Result<Meta, (Failure, bool)> {
        let size = content.len() as u64;
        let (store, name) = match &self.kind {
            Kind::Directory(directory) => {
                let (content, expected) = (content.clone(), when.expected());
                let put = move |directory: &Directory, key: &Key| directory.put(key, &content, expected.as_ref());
                return self.local(directory, key, put).await.map_err(|failure| (failure, false));
            }
            Kind::Remote { store, digest, .. } => (store, *digest),
        };
        let digest = digest(content);
        let mut attributes = Attributes::with_capacity(2);
        attributes.insert(Attribute::ContentType, CONTENT_TYPE.into());
        attributes.insert(Attribute::Metadata(name.into()), digest.clone().into());
        let mode = match when {
            When::Always => PutMode::Overwrite,
            When::Absent => PutMode::Create,
            When::Still(meta) => {
                PutMode::Update(UpdateVersion { e_tag: Some(meta.tag.clone()), version: meta.version.clone() })
            }
        };
        let options = PutOptions { mode, attributes, ..PutOptions::default() };
        match self.ask(store.put_opts(key, PutPayload::from(content.clone()), options)).await {
            Ok(put) => {
                let tag = put.e_tag.unwrap_or_default();
                Ok(Meta { size, tag, version: put.version, digest: Some(Some(digest)) })
            }
            Err((failure, Kindness::Unsupported)) => Err((failure, true)),
            Err((_, Kindness::Moved)) if !matches!(when, When::Always) => Err((Failure::Moved, false)),
            Err((failure, _)) => Err((failure, false)),
        }
    }

    /// Removes an object; one that does not exist is no error.
    pub(super) async fn delete(&self, key: &Key) -> Result<(), Failure> {
        let store = match &self.kind {
            Kind::Directory(directory) => return self.local(directory, key, Directory::delete).await,
            Kind::Remote { store, .. } => store,
        };
        let call = async {
            let keys = futures::stream::once(std::future::ready(Ok(key.clone()))).boxed();
            store.delete_stream(keys).try_collect::<Vec<_>>().await
        };
        let deleted = self.ask(call).await;
        self.unless_missing(deleted).map(drop)
    }

    /// Tells whether an object holds this content; it is read only where nothing else tells.
    pub(super) async fn holds(&self, key: &Key, meta: &Meta, content: &Bytes) -> Result<bool, Failure> {
        if meta.size != content.len() as u64 {
            return Ok(false);
        }
        if let Kind::Directory(_) = self.kind {
            return Ok(self.get(key).await?.is_some_and(|(present, _)| present == *content));
        }
        if meta.identity() == hex(&Md5::digest(content)) {
            return Ok(true);
        }
        // The service's own identity is none of the content where that is encrypted, or was uploaded in parts.
        let stored = match &meta.digest {
            Some(stored) => stored.clone(),
            None => self.head(key).await?.and_then(|meta| meta.digest.flatten()),
        };
        Ok(stored.is_some_and(|stored| stored == digest(content)))
    }

    /// Finds out whether objects can be written, without leaving one.
    pub(super) async fn probe(&self, key: &Key) -> Result<(), Failure> {
        let (store, starts) = match &self.kind {
            Kind::Directory(directory) => return self.local(directory, key, |directory, _| directory.probe()).await,
            Kind::Remote { store, starts_uploads, .. } => (store, *starts_uploads),
        };
        let start = async {
            let mut upload: Box<dyn MultipartUpload> =
                store.put_multipart_opts(key, PutMultipartOptions::default()).await?;
            if !starts {
                upload.put_part(PutPayload::from_static(b"-")).await?;
            }
            Ok(upload)
        };
        let mut upload = self.ask(start).await.map_err(|(failure, _)| failure)?;
        if let Err((failure, _)) = self.ask(upload.abort()).await {
            tracing::warn!(bucket = %self.bucket, ?failure, "the upload that tried out the permissions could not be aborted");
        }
        Ok(())
    }

    fn unless_missing<T>(&self, result: Result<T, (Failure, Kindness)>) -> Result<Option<T>, Failure> {
        match result {
            Ok(found) => Ok(Some(found)),
            Err((Failure::Refused(_), Kindness::Missing)) => Ok(None),
            Err((failure, _)) => Err(failure),
        }
    }

    async fn ask<T>(&self, call: impl Future<Output = object_store::Result<T>>) -> Result<T, (Failure, Kindness)> {
        self.ask_steps(async { tokio::time::timeout(self.deadline, call).await }).await
    }

    /// As [`ask`](Self::ask), for a call that watches the time of each of its steps.
    async fn ask_steps<T>(
        &self,
        call: impl Future<Output = Result<object_store::Result<T>, Elapsed>>,
    ) -> Result<T, (Failure, Kindness)> {
        let _turn = self.turn().await.map_err(|failure| (failure, Kindness::Other))?;
        let (result, last) = answer::listen(call).await;
        let error = match result {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        let kindness = kindness(error.as_ref(), last.as_ref());
        let failure = match (last, error) {
            (None | Some(Last::Well { .. }), None) => Failure::Store(Trouble::Timeout(self.deadline)),
            (_, Some(object_store::Error::InvalidPath { source })) => unusable(&source),
            (Some(last), _) => last.trouble(&self.bucket, |host| self.is_own(host)).into(),
            (None, Some(error)) => unasked(&error),
        };
        let failure = if kindness == Kindness::Other { self.remember(failure) } else { failure };
        Err((failure, kindness))
    }

    /// Tells whether a key cannot be below another one, as that of a file cannot.
    pub(super) fn are_paths(&self) -> bool {
        matches!(self.kind, Kind::Directory(_))
    }

    fn is_own(&self, host: &str) -> bool {
        match &self.kind {
            Kind::Remote { host: own, .. } => own == host,
            Kind::Directory(_) => true,
        }
    }

    async fn local<T: Send + 'static>(
        &self,
        directory: &Directory,
        key: &Key,
        work: impl FnOnce(&Directory, &Key) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let _turn = self.turn().await?;
        let (directory, key) = (directory.clone(), key.clone());
        let done = tokio::task::spawn_blocking(move || work(&directory, &key)).await;
        let done = done.unwrap_or_else(|error| Err(Failure::Store(Trouble::Io(error.to_string()))));
        done.map_err(|failure| self.remember(failure))
    }
}

/// What an error is besides a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kindness {
    Missing,
    Moved,
    Unsupported,
    Other,
}

fn kindness(error: Option<&object_store::Error>, last: Option<&Last>) -> Kindness {
    use object_store::Error as E;
    match error {
        Some(E::NotImplemented { .. } | E::NotSupported { .. }) => return Kindness::Unsupported,
        Some(E::Precondition { .. } | E::AlreadyExists { .. } | E::NotModified { .. }) => return Kindness::Moved,
        _ => {}
    }
    match last {
        Some(Last::Answer(answer)) => match (answer.status, answer.code.as_str()) {
            (501, _) | (_, "NotImplemented") => Kindness::Unsupported,
            (404, "" | "NoSuchKey" | "NotFound" | "BlobNotFound") => Kindness::Missing,
            (409 | 412, _) => Kindness::Moved,
            _ => Kindness::Other,
        },
        _ => Kindness::Other,
    }
}

/// Returns what it means that a listing has a key that nobody can ask for.
fn unusable(error: &PathError) -> Failure {
    let obstacle = match error {
        PathError::EmptySegment { path } | PathError::BadSegment { path, .. } => path.clone(),
        other => other.to_string(),
    };
    Failure::Blocked { obstacle, kind: "key with empty, relative or unprintable segments" }
}

/// Returns what an error means that came before any exchange.
fn unasked(error: &object_store::Error) -> Failure {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    Failure::Store(Trouble::NoCredentials(cause.to_string().lines().next().unwrap_or_default().to_owned()))
}

impl When<'_> {
    /// Returns what has to be there; the outer `None` if anything may.
    fn expected(self) -> Option<Option<Meta>> {
        match self {
            Self::Always => None,
            Self::Absent => Some(None),
            Self::Still(meta) => Some(Some(meta.clone())),
        }
    }
}

impl Meta {
    pub(super) fn local(size: u64, tag: String) -> Self {
        Self { size, tag, version: None, digest: Some(None) }
    }

    fn listed(object: ObjectMeta) -> Self {
        let tag = object.e_tag.unwrap_or_default();
        Self { size: object.size, tag, version: object.version, digest: None }
    }

    /// Returns the same for an object that was written, read, or listed.
    pub(super) fn identity(&self) -> &str {
        self.tag.trim_start_matches("W/").trim_matches('"')
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use object_store::throttle::{ThrottleConfig, ThrottledStore};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_long_listing_has_the_time_of_its_pages() {
        let (deadline, key) = (Duration::from_secs(1), |text: &str| Key::parse(text).expect("a key"));
        for (pause, is_long) in [(Duration::from_millis(600), false), (Duration::from_secs(2), true)] {
            let store = InMemory::new();
            for name in ["d/a", "d/b", "d/c", "d/d"] {
                store.put_opts(&key(name), PutPayload::new(), PutOptions::default()).await.expect("written");
            }
            let config = ThrottleConfig { wait_list_per_entry: pause, ..ThrottleConfig::default() };
            let store = Arc::new(ThrottledStore::new(store, config));
            let objects = Objects::remote(store, "h".to_owned(), "b".to_owned(), deadline, false);
            let listed = objects.list(&key("d"), usize::MAX).await.map(|all| all.map(|all| all.len()));
            let expected = if is_long { Err(Failure::Store(Trouble::Timeout(deadline))) } else { Ok(Some(4)) };
            assert_eq!(listed, expected);
        }
    }
}
