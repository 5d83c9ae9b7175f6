//! The store: unpacked root file systems by content, and an index from names to them.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::Digest;

use super::archive::{Archive, Content, hex};
use super::unpack::{Budget, Failure, RootFs};
use super::{Config, Error, Image, Name};
use crate::ids;

/// Unpacked size of one image.
const IMAGE_BYTES_MAX: u64 = 64 << 30;
const INDEX_VERSION: u32 = 1;

/// Images on disk. Several processes may use one directory; changes are made under a lock and appear at once.
///
/// # Guarantees
/// A root file system is complete or absent: it is unpacked beside its place, stored durably, and then moved there. Equal content
/// is unpacked once. Content that does not have the digest it is called by is refused.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Index {
    version: u32,
    images: Vec<Record>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    name: Name,
    id: String,
    /// Directory below `rootfs`, derived from the digests of all layers.
    rootfs: String,
    digests: Vec<String>,
    config: Config,
}

impl Store {
    /// Opens a store, creating its directories.
    ///
    /// # Errors
    /// [`Error::Io`] if a directory cannot be created.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, Error> {
        let directory = directory.into();
        for name in ["rootfs", "tmp"] {
            let path = directory.join(name);
            std::fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        }
        // Files inside belong to container users; nobody else on this machine needs a way in.
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&directory, private).map_err(Error::io("protect", &directory))?;
        Ok(Self { directory })
    }

    /// Loads every image of an archive and returns the full names under which they can be used.
    ///
    /// Docker archives and OCI archives are understood, with plain or gzip-compressed layers, themselves compressed or not.
    /// `name` replaces the names that the archive gives. Takes as long as unpacking takes: call it off the async threads.
    ///
    /// # Errors
    /// See [`Error`]; the store is unchanged then.
    pub fn load(&self, path: &Path, name: Option<&str>) -> Result<Vec<String>, Error> {
        let name = name.map(str::parse::<Name>).transpose()?;
        let archive = Archive::open(path, &self.directory.join("tmp"), IMAGE_BYTES_MAX)?;
        let contents = archive.contents()?;
        if contents.is_empty() {
            return Err(Error::NotAnArchive { path: path.to_owned(), detail: "it holds no image".into() });
        }
        if name.is_some() && contents.len() > 1 {
            return Err(Error::Ambiguous { path: path.to_owned(), count: contents.len() });
        }
        let mut records = Vec::new();
        for content in contents {
            let names = match &name {
                Some(name) => vec![name.clone()],
                None => content.names.iter().map(|name| name.parse()).collect::<Result<Vec<Name>, _>>()?,
            };
            if names.is_empty() {
                return Err(Error::Nameless { path: path.to_owned() });
            }
            records.push((names, content));
        }
        let _lock = self.lock()?;
        let mut loaded = Vec::new();
        for (names, content) in records {
            let rootfs = self.unpack(path, &archive, &content)?;
            loaded.extend(names.into_iter().map(|name| Record {
                name,
                id: content.id.clone(),
                rootfs: rootfs.clone(),
                digests: content.digests.clone(),
                config: content.config.clone(),
            }));
        }
        let names = loaded.iter().map(|record| record.name.to_string()).collect();
        let mut index = self.index()?;
        index.images.retain(|record| !loaded.iter().any(|new| new.name == record.name));
        index.images.extend(loaded);
        index.images.sort_by(|a, b| a.name.cmp(&b.name));
        self.write_index(&index)?;
        Ok(names)
    }

    /// Finds an image by any form of its name, also by digest.
    ///
    /// # Errors
    /// [`Error::Name`] for what is no name, [`Error::Unknown`] if there is no such image.
    pub fn resolve(&self, name: &str) -> Result<Image, Error> {
        let name: Name = name.parse()?;
        let found = self.index()?.images.into_iter().find(|record| match name.digest() {
            // With a digest the tag is only a remark, as it is for docker.
            Some(digest) => {
                record.name.repository() == name.repository()
                    && (record.id == digest || record.digests.iter().any(|known| known == digest))
            }
            None => record.name == name,
        });
        found.map(|record| self.image(record)).ok_or_else(|| Error::Unknown { name: name.to_string() })
    }

    /// Lists all images by name.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Damaged`] if the index cannot be read.
    pub fn list(&self) -> Result<Vec<Image>, Error> {
        Ok(self.index()?.images.into_iter().map(|record| self.image(record)).collect())
    }

    /// Removes root file systems that no name refers to any more, and what an interrupted load has left.
    ///
    /// # Assumptions
    /// No container of this store is running.
    pub(crate) fn prune(&self) -> Result<(), Error> {
        let _lock = self.lock()?;
        let used = self.index()?.images;
        for parent in ["rootfs", "tmp"] {
            let parent = self.directory.join(parent);
            for entry in std::fs::read_dir(&parent).map_err(Error::io("list", &parent))? {
                let path = entry.map_err(Error::io("list", &parent))?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if parent.ends_with("tmp") || !used.iter().any(|record| record.rootfs == name) {
                    remove_tree(&path).map_err(Error::io("remove", &path))?;
                }
            }
        }
        Ok(())
    }

    fn image(&self, record: Record) -> Image {
        let rootfs = self.directory.join("rootfs").join(record.rootfs);
        Image { name: record.name, id: record.id, rootfs, config: record.config }
    }

    /// Unpacks all layers, unless equal ones are there already, and returns the directory's name.
    fn unpack(&self, path: &Path, archive: &Archive, content: &Content) -> Result<String, Error> {
        let owner = ids::container_root(ids::map());
        let chain = content
            .layers
            .iter()
            .fold(sha2::Sha256::new(), |hash, layer| hash.chain_update(layer.diff_id.as_bytes()).chain_update([b'\n']));
        // Files of one user are of no use to another: the owner is part of the identity.
        let chain = hex(&chain.chain_update(format!("{owner:?}")).finalize());
        let place = self.directory.join("rootfs").join(&chain);
        if place.is_dir() {
            return Ok(chain);
        }
        let temporary = self.directory.join("tmp").join(&chain);
        if temporary.exists() {
            remove_tree(&temporary).map_err(Error::io("remove", &temporary))?;
        }
        std::fs::create_dir(&temporary).map_err(Error::io("create", &temporary))?;
        let unpacked = self.unpack_into(path, archive, content, &temporary, owner);
        if unpacked.is_err() {
            let _ = remove_tree(&temporary);
        }
        unpacked?;
        // All files at once: what has its name must have its content, also after a power failure.
        sync(&temporary, |directory| rustix::fs::syncfs(directory))?;
        std::fs::rename(&temporary, &place).map_err(Error::io("rename", &temporary))?;
        sync(&self.directory.join("rootfs"), |directory| rustix::fs::fsync(directory))?;
        Ok(chain)
    }

    fn unpack_into(
        &self,
        path: &Path,
        archive: &Archive,
        content: &Content,
        directory: &Path,
        owner: Option<(u32, u32)>,
    ) -> Result<(), Error> {
        let translate = |layer: &str| {
            let (path, layer) = (path.to_owned(), layer.to_owned());
            move |failure| match failure {
                Failure::Escapes(entry) => Error::Escapes { path, layer, entry },
                Failure::TooLarge(limit) => Error::TooLarge { path, limit },
                Failure::Io(file, source) => Error::Io { action: "unpack", path: file, source },
            }
        };
        let root = RootFs::open(directory, owner).map_err(translate("root"))?;
        let mut budget = Budget::new(IMAGE_BYTES_MAX);
        for layer in &content.layers {
            let mut hashed = Hashed { inner: archive.layer(&layer.entry)?, hash: sha2::Sha256::new() };
            root.apply(&mut hashed, &mut budget).map_err(translate(&layer.entry))?;
            // The end of a tar file is padding that its reader leaves alone but the digest covers.
            std::io::copy(&mut hashed, &mut std::io::sink()).map_err(Error::io("read", path))?;
            let found = format!("sha256:{}", hex(&hashed.hash.finalize()));
            if found != layer.diff_id {
                let detail = format!("layer {} has digest {found} instead of {}", layer.entry, layer.diff_id);
                return Err(Error::Damaged { path: path.to_owned(), detail });
            }
        }
        root.finish().map_err(translate("root"))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory, mode).map_err(Error::io("protect", directory))?;
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::chown(directory, Some(uid), Some(gid)).map_err(Error::io("chown", directory))?;
        }
        Ok(())
    }

    fn index_path(&self) -> PathBuf {
        self.directory.join("index.json")
    }

    fn index(&self) -> Result<Index, Error> {
        let path = self.index_path();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Index { version: INDEX_VERSION, images: Vec::new() });
            }
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        let index: Index = serde_json::from_slice(&text)
            .map_err(|error| Error::Damaged { path: path.clone(), detail: error.to_string() })?;
        if index.version > INDEX_VERSION {
            let detail = format!("it was written by a newer version (format {})", index.version);
            return Err(Error::Damaged { path, detail });
        }
        Ok(index)
    }

    fn write_index(&self, index: &Index) -> Result<(), Error> {
        let (path, temporary) = (self.index_path(), self.directory.join("index.json.new"));
        let text = serde_json::to_vec_pretty(index).expect("an index is plain data");
        let mut file = File::create(&temporary).map_err(Error::io("create", &temporary))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(Error::io("write", &temporary))?;
        std::fs::rename(&temporary, &path).map_err(Error::io("rename", &temporary))?;
        sync(&self.directory, |directory| rustix::fs::fsync(directory))
    }

    fn lock(&self) -> Result<File, Error> {
        let path = self.directory.join("lock");
        let file =
            File::options().create(true).truncate(false).write(true).open(&path).map_err(Error::io("open", &path))?;
        file.lock().map_err(Error::io("lock", &path))?;
        Ok(file)
    }
}

fn sync(directory: &Path, how: impl Fn(&File) -> rustix::io::Result<()>) -> Result<(), Error> {
    let file = File::open(directory).map_err(Error::io("open", directory))?;
    how(&file).map_err(|error| Error::io("store", directory)(error.into()))
}

/// Removes a directory that may hold read-only directories of image authors.
pub(crate) fn remove_tree(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            unlock(path)?;
            std::fs::remove_dir_all(path)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => std::fs::remove_file(path),
        outcome => outcome,
    }
}

/// Gives the owner all rights on a directory and those below it.
fn unlock(path: &Path) -> std::io::Result<()> {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            unlock(&entry.path())?;
        }
    }
    Ok(())
}

struct Hashed<R> {
    inner: R,
    hash: sha2::Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
