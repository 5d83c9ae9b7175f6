//! A bucket of an object store as a store: every file is an object, and a batch is many requests at the same time.
//!
//! There is no transaction. What is needed is written before what is not needed is removed, and what a change is answerable for
//! is written down before it exists, so that the next attempt finishes what a crash has left half done:
//! * before the last file is there: the same change again writes what is missing, and skips what is there;
//! * before the last removal: the same change again finds it by listing, or in its ledger;
//! * after that, before the answer: the same change again finds nothing to do.
//!
//! # Assumptions
//! A service is consistent: what it has acknowledged is in every answer after that, listings included.

mod answer;
mod batch;
mod directory;
mod endpoint;
mod imprint;
mod objects;
mod service;
mod share;
mod transport;

use std::sync::Arc;

use bytes::Bytes;
use kratix_store_path::Path;

pub(crate) use self::imprint::Mark;

use self::directory::Directory;
use self::endpoint::{Endpoint, REGION_DEFAULT};
use self::objects::{Failure, Key, Objects, key};
use self::transport::Transport;
use crate::change::{Imprint, Tree, Version, Written};
use crate::checked::Checked;
use crate::config::BucketConfig;
use crate::error::{Error, Place, Trouble, WriteError};
use crate::ledger;
use crate::retry_after::Quiet;

/// Where the permission to write is tried out.
const PROBE: &str = ".kratix-write-permission-check";

/// A bucket, owned by one task.
pub(crate) struct Store {
    config: BucketConfig,
    place: Arc<Place>,
    root: Path,
    endpoint: Endpoint,
    transport: Transport,
    /// The owners of shared directories, as far as they were needed.
    ledgers: ledger::Index<String>,
    /// Known once the region of the bucket is.
    objects: Option<Objects>,
    /// Whether the service wants to be left alone.
    quiet: Quiet,
}

impl Store {
    pub(crate) fn new(config: BucketConfig, lives: ledger::Liveness) -> Result<Self, Error> {
        let place = |url: String| Arc::new(Place { store: config.name.clone(), url, branch: String::new() });
        let endpoint = Endpoint::parse(&config.endpoint, &config.bucket, config.plain_http, config.dual_stack);
        let unknown = || place("address not understood".to_owned());
        let endpoint = endpoint.map_err(|text| Error { place: unknown(), trouble: Trouble::Config(text) })?;
        let place = place(shown(&endpoint, &config.bucket));
        let fail = |trouble| Error { place: place.clone(), trouble };
        let root = Path::parse_directory(&config.path)
            .map_err(|reason| fail(Trouble::Config(format!("path {:?} cannot be used: {reason}", config.path))))?;
        let transport = Transport::new(&config.tls, &config.proxies, config.deadline).map_err(fail)?;
        let ledgers = ledger::Index::new(lives);
        let quiet = Quiet::default();
        let store = Self { config, place: place.clone(), root, endpoint, transport, ledgers, objects: None, quiet };
        // Whatever is wrong with the credentials themselves shows at once.
        store.open(REGION_DEFAULT).map_err(fail)?;
        Ok(store)
    }

    pub(crate) fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// A bucket as a whole has no version.
    pub(crate) fn known(&self) -> Option<Version> {
        None
    }

    pub(crate) async fn version(&mut self) -> Result<Option<Version>, Error> {
        Ok(None)
    }

    /// Makes all changes durable, as far as each of them can be; the results are in the order of the changes.
    pub(crate) async fn commit(&mut self, changes: Vec<Checked>) -> Vec<Result<Written, WriteError>> {
        if let Err(trouble) = self.settle().await {
            let error = self.error(trouble);
            return changes.iter().map(|_| Err(error.clone().into())).collect();
        }
        let objects = self.objects.as_ref().expect("settled");
        objects.resume();
        let batch = batch::Batch { objects, place: &self.place, root: &self.root };
        let mut outcomes = batch.commit(&changes, &mut self.ledgers).await;
        // Whether it is about these objects, or about all of them, decides who has to hear of it.
        if outcomes.iter().any(is_refused)
            && let Err(failure) = objects.probe(&self.probe_key()).await
        {
            let error = self.fail(failure);
            let refused = outcomes.iter_mut().filter(|outcome| is_refused(outcome));
            refused.for_each(|outcome| *outcome = Err(error.clone().into()));
        }
        for outcome in &outcomes {
            if let Err(WriteError::Store(error)) = outcome {
                self.quiet.heed(&error.trouble);
            }
        }
        outcomes
    }

    pub(crate) async fn read(&mut self, path: &Path) -> Result<Option<Bytes>, Error> {
        let key = key(&self.root.join(path));
        let found = self.ready().await?.get(&key).await;
        Ok(found.map_err(|failure| self.fail(failure))?.map(|(content, _)| content))
    }

    pub(crate) async fn list(&mut self, prefix: &Path) -> Result<Vec<String>, Error> {
        let prefix = key(&self.root.join(prefix));
        let all = self.ready().await?.list(&prefix, usize::MAX).await.map_err(|failure| self.fail(failure))?;
        let root = key(&self.root);
        let below = |key: &Key| match root.as_ref() {
            "" => Some(key.to_string()),
            root => key.as_ref().strip_prefix(root)?.strip_prefix('/').map(str::to_owned),
        };
        Ok(all.unwrap_or_default().keys().filter_map(below).collect())
    }

    pub(crate) async fn tree(&mut self, prefix: &Path) -> Result<Option<Tree>, Error> {
        let prefix = key(&self.root.join(prefix));
        let all = self.ready().await?.list(&prefix, usize::MAX).await.map_err(|failure| self.fail(failure))?;
        let all = all.unwrap_or_default();
        Ok((!all.is_empty()).then(|| Tree(imprint::identity(all.iter().map(|(key, meta)| (key.as_ref(), meta))))))
    }

    /// Tells of each imprint whether the bucket still has it.
    pub(crate) async fn verify(&mut self, imprints: Vec<Imprint>) -> Result<Vec<bool>, Error> {
        let objects = self.ready().await?;
        imprint::verify(objects, &imprints).await.map_err(|failure| self.fail(failure))
    }

    pub(crate) async fn check(&mut self) -> Result<(), Error> {
        let key = self.probe_key();
        self.ready().await?.probe(&key).await.map_err(|failure| self.fail(failure))
    }

    fn probe_key(&self) -> Key {
        key(&self.root.join(&Path::parse_file(PROBE).expect("a path")))
    }

    async fn ready(&mut self) -> Result<&Objects, Error> {
        self.settle().await.map_err(|trouble| self.error(trouble))?;
        let objects = self.objects.as_ref().expect("settled");
        objects.resume();
        Ok(objects)
    }

    /// Leaves the service alone if it wants that, and finds out in which region the bucket is: requests are signed for one.
    async fn settle(&mut self) -> Result<(), Trouble> {
        self.quiet.keep()?;
        if self.objects.is_some() {
            return Ok(());
        }
        let Endpoint::S3(address) = &self.endpoint else {
            self.objects = Some(self.open(REGION_DEFAULT)?);
            return Ok(());
        };
        let region = match address.region() {
            Some(region) => region.to_owned(),
            None => {
                let headers = self.transport.head(&address.location_url()).await?;
                let region = headers.get("x-amz-bucket-region").and_then(|region| region.to_str().ok());
                region.unwrap_or(REGION_DEFAULT).to_owned()
            }
        };
        let mut objects = self.open(&region)?;
        // A server whose region is another one says so, whatever the endpoint told.
        if let Some(other) = objects.other_region(&self.probe_key()).await?.filter(|other| *other != region) {
            objects = self.open(&other)?;
        }
        self.objects = Some(objects);
        Ok(())
    }

    fn open(&self, region: &str) -> Result<Objects, Trouble> {
        let BucketConfig { bucket, auth, deadline, plain_http, .. } = &self.config;
        let (bucket, deadline) = (bucket.clone(), *deadline);
        if *plain_http && !matches!(self.endpoint, Endpoint::S3(_)) {
            return Err(Trouble::Config("plain HTTP is for services that speak the protocol of S3".to_owned()));
        }
        match &self.endpoint {
            Endpoint::S3(address) => {
                let store = service::s3(address, &bucket, region, auth, &self.transport, deadline)?;
                Ok(Objects::remote(store, host(&address.url(region)), bucket, deadline, false))
            }
            Endpoint::Google => {
                let store = service::google(&bucket, auth, &self.transport, deadline)?;
                Ok(Objects::remote(store, "storage.googleapis.com".to_owned(), bucket, deadline, false))
            }
            Endpoint::Azure { account, host } => {
                let store = service::azure(account, host.as_deref(), &bucket, auth, &self.transport, deadline)?;
                let host = host.clone().unwrap_or_else(|| format!("{account}.blob.core.windows.net"));
                Ok(Objects::remote(store, host, bucket, deadline, true))
            }
            Endpoint::Directory(path) => {
                let directory = Directory::new(path.join(&bucket), deadline);
                Ok(Objects::directory(directory, bucket, deadline))
            }
        }
    }

    fn error(&mut self, trouble: Trouble) -> Error {
        self.quiet.heed(&trouble);
        Error { place: self.place.clone(), trouble }
    }

    fn fail(&mut self, failure: Failure) -> Error {
        self.error(match failure {
            Failure::Store(trouble) | Failure::Refused(trouble) => trouble,
            Failure::Moved => Trouble::Contended(PROBE.to_owned()),
            Failure::Blocked { obstacle, kind } => Trouble::Answer(format!("{obstacle:?} is a {kind}")),
        })
    }
}

/// Tells whether the service has refused a change in a way that it may refuse all.
fn is_refused(outcome: &Result<Written, WriteError>) -> bool {
    let Err(WriteError::Refused(error)) = outcome else { return false };
    matches!(error.trouble, Trouble::Forbidden(_) | Trouble::Answer(_))
}

fn shown(endpoint: &Endpoint, bucket: &str) -> String {
    match endpoint {
        Endpoint::S3(address) => address.shown(),
        Endpoint::Google => format!("gs://{bucket}"),
        Endpoint::Azure { account, host } => format!("az://{}/{bucket}", host.as_ref().unwrap_or(account)),
        Endpoint::Directory(path) => format!("file://{}/{bucket}", path.display()),
    }
}

fn host(url: &str) -> String {
    let authority = url.parse::<http::Uri>().ok().and_then(|url| url.authority().map(ToString::to_string));
    authority.unwrap_or_default()
}
