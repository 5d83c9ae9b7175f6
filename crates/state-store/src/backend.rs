//! The kinds of stores behind a queue: one task owns one of these.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use kratix_store_path::Path;

use crate::bucket;
use crate::change::{Imprint, Tree, Version, Written};
use crate::checked::Checked;
use crate::config::StoreConfig;
use crate::error::{Error, Place, WriteError};
use crate::git;
use crate::ledger::Liveness;

/// A store of any kind.
pub(crate) enum Backend {
    Git(Box<git::Store>),
    Bucket(Box<bucket::Store>),
}

/// A batch on its way into a store.
pub(crate) enum Pending {
    Git(Box<git::Pending>),
    /// Not begun, or done.
    Bucket(Vec<Checked>),
}

/// What has become of changes, by their positions in the batch.
pub(crate) type Settled = Vec<(usize, Result<Written, WriteError>)>;

impl Backend {
    pub(crate) fn new(config: StoreConfig, cache: PathBuf, lives: Liveness) -> Result<Self, Error> {
        match config {
            StoreConfig::Git(config) => Ok(Self::Git(Box::new(git::Store::new(config, cache, lives)?))),
            StoreConfig::Bucket(config) => Ok(Self::Bucket(Box::new(bucket::Store::new(config, lives)?))),
        }
    }

    pub(crate) fn place(&self) -> &Arc<Place> {
        match self {
            Self::Git(store) => store.place(),
            Self::Bucket(store) => store.place(),
        }
    }

    /// Returns the newest version that this store has written or met.
    pub(crate) fn known(&self) -> Option<Version> {
        match self {
            Self::Git(store) => store.known(),
            Self::Bucket(store) => store.known(),
        }
    }

    /// Returns how often what was written has been found to be gone as a whole.
    pub(crate) fn losses(&self) -> u64 {
        match self {
            Self::Git(store) => store.losses(),
            // A bucket that is made anew has no mark; comparing finds out.
            Self::Bucket(_) => 0,
        }
    }

    /// Takes in changes that are to be made durable.
    pub(crate) fn begin(&self, changes: Vec<Checked>) -> Pending {
        match self {
            Self::Git(store) => Pending::Git(Box::new(store.begin(changes))),
            Self::Bucket(_) => Pending::Bucket(changes),
        }
    }

    /// Brings a batch of this store further, by one push at most. Each change is told of once, and all of them in the end.
    pub(crate) async fn step(&mut self, pending: &mut Pending) -> Settled {
        match (self, pending) {
            (Self::Git(store), Pending::Git(pending)) => store.step(pending).await,
            (Self::Bucket(store), Pending::Bucket(changes)) => {
                store.commit(std::mem::take(changes)).await.into_iter().enumerate().collect()
            }
            _ => unreachable!("a batch stays with the store that has begun it"),
        }
    }

    /// Returns how many pushes were begun, also those that came to nothing.
    pub(crate) fn pushes(&self) -> u64 {
        match self {
            Self::Git(store) => store.pushes(),
            Self::Bucket(_) => 0,
        }
    }

    pub(crate) async fn read(&mut self, path: &Path) -> Result<Option<Bytes>, Error> {
        match self {
            Self::Git(store) => store.read(path).await,
            Self::Bucket(store) => store.read(path).await,
        }
    }

    pub(crate) async fn list(&mut self, prefix: &Path) -> Result<Vec<String>, Error> {
        match self {
            Self::Git(store) => store.list(prefix).await,
            Self::Bucket(store) => store.list(prefix).await,
        }
    }

    pub(crate) async fn tree(&mut self, prefix: &Path) -> Result<Option<Tree>, Error> {
        match self {
            Self::Git(store) => store.tree(prefix).await,
            Self::Bucket(store) => store.tree(prefix).await,
        }
    }

    /// Tells of each imprint whether the newest state still has it.
    pub(crate) async fn verify(&mut self, imprints: Vec<Imprint>) -> Result<Vec<bool>, Error> {
        match self {
            Self::Git(store) => store.verify(imprints).await,
            Self::Bucket(store) => store.verify(imprints).await,
        }
    }

    /// Does what keeps the next accesses cheap, once all who asked have their answers.
    pub(crate) async fn tidy(&mut self) {
        match self {
            Self::Git(store) => store.tidy().await,
            Self::Bucket(_) => {}
        }
    }

    pub(crate) async fn version(&mut self) -> Result<Option<Version>, Error> {
        match self {
            Self::Git(store) => store.version().await,
            Self::Bucket(store) => store.version().await,
        }
    }

    pub(crate) async fn check(&mut self) -> Result<(), Error> {
        match self {
            Self::Git(store) => store.check().await,
            Self::Bucket(store) => store.check().await,
        }
    }
}
