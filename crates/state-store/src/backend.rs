//! The kinds of stores behind a queue: one task owns one of these.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::change::{Tree, Version, Written};
use crate::checked::Checked;
use crate::config::StoreConfig;
use crate::error::{Error, Place, WriteError};
use crate::git;
use crate::ledger::Liveness;
use crate::path::Path;

/// A store of any kind.
pub(crate) enum Backend {
    Git(Box<git::Store>),
}

impl Backend {
    pub(crate) fn new(config: StoreConfig, cache: PathBuf, lives: Liveness) -> Result<Self, Error> {
        match config {
            StoreConfig::Git(config) => Ok(Self::Git(Box::new(git::Store::new(config, cache, lives)?))),
        }
    }

    pub(crate) fn place(&self) -> &Arc<Place> {
        match self {
            Self::Git(store) => store.place(),
        }
    }

    /// Returns the newest version that this store has written or met.
    pub(crate) fn known(&self) -> Option<Version> {
        match self {
            Self::Git(store) => store.known(),
        }
    }

    /// Makes all changes durable; the results are in the order of the changes.
    pub(crate) async fn commit(&mut self, changes: Vec<Checked>) -> Vec<Result<Written, WriteError>> {
        match self {
            Self::Git(store) => store.commit(changes).await,
        }
    }

    pub(crate) async fn read(&mut self, path: &Path) -> Result<Option<Bytes>, Error> {
        match self {
            Self::Git(store) => store.read(path).await,
        }
    }

    pub(crate) async fn list(&mut self, prefix: &Path) -> Result<Vec<String>, Error> {
        match self {
            Self::Git(store) => store.list(prefix).await,
        }
    }

    pub(crate) async fn tree(&mut self, prefix: &Path) -> Result<Option<Tree>, Error> {
        match self {
            Self::Git(store) => store.tree(prefix).await,
        }
    }

    pub(crate) async fn version(&mut self) -> Result<Option<Version>, Error> {
        match self {
            Self::Git(store) => store.version().await,
        }
    }

    pub(crate) async fn check(&mut self) -> Result<(), Error> {
        match self {
            Self::Git(store) => store.check().await,
        }
    }
}
