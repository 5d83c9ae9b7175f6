//! Container images on this machine: names, archives, and the store of unpacked root file systems.
//!
//! [`Store::load`] takes what `docker save`, `podman save` or `skopeo copy` write. A registry client would put its
//! downloads into the same store.

mod archive;
mod headers;
mod name;
mod store;
mod unpack;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use name::{InvalidName, Name};
pub use store::Store;
pub(crate) use store::remove_tree;

/// What an image says about the processes that run in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// Program and first arguments.
    #[serde(deserialize_with = "null_is_default")]
    pub entrypoint: Vec<String>,
    /// Default arguments.
    #[serde(deserialize_with = "null_is_default")]
    pub cmd: Vec<String>,
    /// Variables as `NAME=value`.
    #[serde(deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// Directory that the process starts in; empty means `/`.
    #[serde(deserialize_with = "null_is_default")]
    pub working_dir: String,
    /// User as `name`, `uid`, or either with `:group`; empty means 0.
    #[serde(deserialize_with = "null_is_default")]
    pub user: String,
}

fn null_is_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// An image that is ready to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The full name it was found under.
    pub name: Name,
    /// Digest of its configuration, `sha256:…`.
    pub id: String,
    /// Its unpacked root file system.
    pub rootfs: PathBuf,
    /// What it says about processes.
    pub config: Config,
}

/// Why an image could not be loaded or found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory of the store or the archive cannot be read or written.
    #[error("{action} {path:?}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is not an image archive.
    #[error("{path:?} is neither a docker archive nor an OCI archive: {detail}")]
    NotAnArchive {
        /// The file.
        path: PathBuf,
        /// What is missing.
        detail: String,
    },
    /// The archive contradicts itself.
    #[error("archive {path:?} is damaged: {detail}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        detail: String,
    },
    /// A layer is compressed in a way that is not supported.
    #[error("layer {layer} of {path:?} is compressed with {with}; save the image with gzip or without compression")]
    Compression {
        /// The file.
        path: PathBuf,
        /// The layer's path in the archive.
        layer: String,
        /// The method.
        with: &'static str,
    },
    /// The image is made for other machines.
    #[error("archive {path:?} has no image for linux/{wanted}, only for {found}")]
    Platform {
        /// The file.
        path: PathBuf,
        /// This machine's architecture, in OCI's words.
        wanted: &'static str,
        /// What the archive has.
        found: String,
    },
    /// The archive names no image and no name was given.
    #[error("archive {path:?} does not say what its image is called; give a name")]
    Nameless {
        /// The file.
        path: PathBuf,
    },
    /// One name was given for several images.
    #[error("archive {path:?} holds {count} images; one name cannot serve them all")]
    Ambiguous {
        /// The file.
        path: PathBuf,
        /// How many there are.
        count: usize,
    },
    /// An entry of a layer would be written outside of the root file system.
    #[error("layer {layer} of {path:?} has an entry that leaves the root file system: {entry:?}")]
    Escapes {
        /// The archive.
        path: PathBuf,
        /// The layer's path in the archive.
        layer: String,
        /// The entry's path.
        entry: String,
    },
    /// The image is larger than the store accepts.
    #[error("image in {path:?} is too large: more than {limit}")]
    TooLarge {
        /// The archive.
        path: PathBuf,
        /// The limit with its unit.
        limit: String,
    },
    /// A name that no image can have.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The store has no image of that name.
    #[error("image {name:?} is not in this machine's store")]
    Unknown {
        /// The full name.
        name: String,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
