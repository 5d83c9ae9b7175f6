//! Image archives: what `docker save` writes (`manifest.json`) and what OCI tools write (`index.json`).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, Take};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Config, Error, headers};

/// Entries of an archive that are read as JSON; manifests and configurations have a few kilobytes.
const DOCUMENT_BYTES_MAX: u64 = 8 << 20;
/// An image has at most 127 layers; several images share one archive.
const ENTRIES_MAX: usize = 16_384;
/// All names and targets of links of an archive together: they are kept in memory. Those of an image are digests.
const NAMES_BYTES_MAX: usize = 8 << 20;
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Indexes may name indexes (several platforms); deeper ones are damaged.
const INDEX_DEPTH_MAX: usize = 4;

/// An archive whose entries can be read in any order.
pub(super) struct Archive {
    path: PathBuf,
    file: File,
    entries: HashMap<String, Entry>,
}

enum Entry {
    Data {
        offset: u64,
        bytes: u64,
    },
    /// `docker save` of old writes a layer that occurs twice as a link.
    Link(String),
}

/// One image of an archive, described but not unpacked.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) names: Vec<String>,
    /// Digests by which the image may be called, besides its id.
    pub(super) digests: Vec<String>,
    pub(super) id: String,
    pub(super) config: Config,
    pub(super) layers: Vec<Layer>,
}

/// One layer: where it is and what it must hash to when uncompressed.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) entry: String,
    pub(super) diff_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

#[derive(Clone, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct ImageDocument {
    #[serde(default)]
    config: Option<Config>,
    rootfs: RootFs,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

impl Archive {
    /// Opens an archive; one that is compressed as a whole is unpacked to a file in `temporary` first.
    pub(super) fn open(path: &Path, temporary: &Path, bytes_max: u64) -> Result<Self, Error> {
        let mut file = File::open(path).map_err(Error::io("open", path))?;
        let mut magic = [0; 2];
        let read = file.read(&mut magic).map_err(Error::io("read", path))?;
        file.rewind().map_err(Error::io("read", path))?;
        if read == 2 && magic == GZIP {
            let mut plain = tempfile_in(temporary)?;
            let copied = io::copy(&mut GzDecoder::new(file).take(bytes_max + 1), &mut plain)
                .map_err(Error::io("decompress", path))?;
            if copied > bytes_max {
                return Err(Error::TooLarge { path: path.to_owned(), limit: format!("{bytes_max} bytes") });
            }
            plain.rewind().map_err(Error::io("read", path))?;
            file = plain;
        }
        let entries = index(path, &mut file)?;
        Ok(Self { path: path.to_owned(), file, entries })
    }

    /// Lists the images of this archive that fit this machine.
    pub(super) fn contents(&self) -> Result<Vec<Content>, Error> {
        if self.entries.contains_key("manifest.json") {
            let manifests: Vec<DockerManifest> = self.document("manifest.json")?;
            return manifests.into_iter().map(|manifest| self.docker_image(manifest)).collect();
        }
        if self.entries.contains_key("index.json") {
            let index: Index = self.document("index.json")?;
            let mut contents = Vec::new();
            for descriptor in index.manifests {
                let mut others = Vec::new();
                match self.select(&descriptor, 0, &mut others)? {
                    Some(manifest) => contents.push(self.oci_image(&descriptor, &manifest)?),
                    None if others.is_empty() => {} // signatures and other attachments
                    None => return Err(self.wrong_platform(others)),
                }
            }
            return Ok(contents);
        }
        Err(self.not_an_archive("it has neither manifest.json nor index.json"))
    }

    /// Opens a layer for reading, uncompressed.
    pub(super) fn layer(&self, entry: &str) -> Result<Box<dyn Read + '_>, Error> {
        let mut magic = [0; 4];
        let mut reader = self.reader(entry)?;
        let mut filled = 0;
        while filled < magic.len() {
            match reader.read(&mut magic[filled..]).map_err(Error::io("read", &self.path))? {
                0 => break,
                read => filled += read,
            }
        }
        if magic == ZSTD {
            return Err(Error::Compression { path: self.path.clone(), layer: entry.to_owned(), with: "zstd" });
        }
        let compressed = magic[..2] == GZIP;
        let reader = io::BufReader::with_capacity(128 << 10, self.reader(entry)?);
        Ok(if compressed { Box::new(flate2::bufread::MultiGzDecoder::new(reader)) } else { Box::new(reader) })
    }

    fn docker_image(&self, manifest: DockerManifest) -> Result<Content, Error> {
        let text = self.bytes(&manifest.config)?;
        let id = digest(&text);
        // `docker save` calls the file after its digest, in one of two ways.
        let name = Path::new(&manifest.config).file_stem().unwrap_or_default().to_string_lossy();
        if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) && id != format!("sha256:{name}") {
            return Err(self.damaged(format!("{} has digest {id}", manifest.config)));
        }
        let document: ImageDocument = self.parse(&manifest.config, &text)?;
        self.check_platform(&document)?;
        let layers = self.layers(manifest.layers, document.rootfs.diff_ids)?;
        Ok(Content {
            names: manifest.repo_tags.unwrap_or_default(),
            digests: Vec::new(),
            id,
            config: document.config.unwrap_or_default(),
            layers,
        })
    }

    fn oci_image(&self, named: &Descriptor, chosen: &Descriptor) -> Result<Content, Error> {
        let manifest: Manifest = self.blob(&chosen.digest)?;
        let document: ImageDocument = self.blob(&manifest.config.digest)?;
        self.check_platform(&document)?;
        let entries = manifest.layers.iter().map(|layer| blob(&layer.digest)).collect();
        let layers = self.layers(entries, document.rootfs.diff_ids)?;
        let annotation = |key: &str| named.annotations.get(key).cloned();
        // The reference name may be a bare tag, which says nothing about the repository.
        let full = annotation("io.containerd.image.name");
        let reference = annotation("org.opencontainers.image.ref.name").filter(|name| name.contains(['/', ':']));
        Ok(Content {
            names: full.or(reference).into_iter().collect(),
            digests: vec![named.digest.clone(), chosen.digest.clone()],
            id: manifest.config.digest,
            config: document.config.unwrap_or_default(),
            layers,
        })
    }

    /// Follows indexes down to the manifest for this machine.
    fn select(&self, from: &Descriptor, depth: usize, others: &mut Vec<String>) -> Result<Option<Descriptor>, Error> {
        if let Some(platform) = &from.platform
            && (platform.os != "linux" || platform.architecture != architecture())
        {
            if platform.os != "unknown" {
                others.push(format!("{}/{}", platform.os, platform.architecture));
            }
            return Ok(None);
        }
        let is_index = from.media_type.contains("image.index") || from.media_type.contains("manifest.list");
        if !is_index {
            return Ok(Some(from.clone()));
        }
        if depth >= INDEX_DEPTH_MAX {
            return Err(self.damaged("its indexes are nested too deeply".into()));
        }
        let index: Index = self.blob(&from.digest)?;
        for descriptor in &index.manifests {
            if let Some(found) = self.select(descriptor, depth + 1, others)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn layers(&self, entries: Vec<String>, diff_ids: Vec<String>) -> Result<Vec<Layer>, Error> {
        if entries.len() != diff_ids.len() {
            let detail = format!("{} layers but {} layer digests", entries.len(), diff_ids.len());
            return Err(self.damaged(detail));
        }
        Ok(entries.into_iter().zip(diff_ids).map(|(entry, diff_id)| Layer { entry, diff_id }).collect())
    }

    fn check_platform(&self, document: &ImageDocument) -> Result<(), Error> {
        let fits = |found: &str, wanted: &str| found.is_empty() || found == wanted;
        if fits(&document.os, "linux") && fits(&document.architecture, architecture()) {
            return Ok(());
        }
        Err(self.wrong_platform(vec![format!("{}/{}", document.os, document.architecture)]))
    }

    fn document<T: DeserializeOwned>(&self, entry: &str) -> Result<T, Error> {
        self.parse(entry, &self.bytes(entry)?)
    }

    fn parse<T: DeserializeOwned>(&self, entry: &str, text: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(text).map_err(|error| self.damaged(format!("{entry}: {error}")))
    }

    /// Reads a document by its digest, which it must have. Layers are held against the digests of their content instead.
    fn blob<T: DeserializeOwned>(&self, named: &str) -> Result<T, Error> {
        let entry = blob(named);
        let text = self.bytes(&entry)?;
        let found = digest(&text);
        if found != named {
            return Err(self.damaged(format!("{entry} has digest {found}")));
        }
        self.parse(&entry, &text)
    }

    fn bytes(&self, entry: &str) -> Result<Vec<u8>, Error> {
        let mut reader = self.reader(entry)?;
        if reader.limit() > DOCUMENT_BYTES_MAX {
            return Err(self.damaged(format!("{entry} has more than {DOCUMENT_BYTES_MAX} bytes")));
        }
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(Error::io("read", &self.path))?;
        Ok(bytes)
    }

    fn reader(&self, entry: &str) -> Result<Take<Positioned<'_>>, Error> {
        let mut name = entry.to_owned();
        for _ in 0..8 {
            match self.entries.get(&name) {
                Some(Entry::Data { offset, bytes }) => {
                    return Ok(Positioned { file: &self.file, position: *offset }.take(*bytes));
                }
                Some(Entry::Link(target)) => name = normal(&Path::new(&name).with_file_name("").join(target)),
                None => break,
            }
        }
        Err(self.damaged(format!("entry {entry:?} is missing")))
    }

    fn damaged(&self, detail: String) -> Error {
        Error::Damaged { path: self.path.clone(), detail }
    }

    fn not_an_archive(&self, detail: &str) -> Error {
        Error::NotAnArchive { path: self.path.clone(), detail: detail.to_owned() }
    }

    fn wrong_platform(&self, mut found: Vec<String>) -> Error {
        found.sort();
        Error::Platform { path: self.path.clone(), wanted: architecture(), found: found.join(", ") }
    }
}

/// Reads a shared file at an own position.
struct Positioned<'a> {
    file: &'a File,
    position: u64,
}

impl Read for Positioned<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = std::os::unix::fs::FileExt::read_at(self.file, buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

fn index(path: &Path, file: &mut File) -> Result<HashMap<String, Entry>, Error> {
    // The library's own texts quote what it found instead of a header, whatever that is.
    let too_large = |limit: String| Error::TooLarge { path: path.to_owned(), limit };
    let not_tar = |error: io::Error| match error.raw_os_error() {
        Some(_) => Error::io("read", path)(error),
        None if headers::is_exceeded(&error) => too_large(headers::limit()),
        None => Error::NotAnArchive { path: path.to_owned(), detail: "it is no tar file".to_owned() },
    };
    let mut entries = HashMap::new();
    let mut names_bytes = 0;
    let (reader, limit) = headers::Limited::new(file.try_clone().map_err(Error::io("open", path))?);
    let mut archive = tar::Archive::new(reader);
    // What lies between headers is skipped by seeking.
    let mut members = archive.entries_with_seek().map_err(not_tar)?;
    while let Some(entry) = limit.during(|| members.next()) {
        let entry = entry.map_err(not_tar)?;
        if entries.len() >= ENTRIES_MAX {
            return Err(too_large(format!("{ENTRIES_MAX} entries")));
        }
        let name = normal(&entry.path().map_err(not_tar)?);
        names_bytes += name.len() + entry.link_name_bytes().map_or(0, |target| target.len());
        if names_bytes > NAMES_BYTES_MAX {
            return Err(too_large(format!("{} MiB of names", NAMES_BYTES_MAX >> 20)));
        }
        let kind = entry.header().entry_type();
        if kind.is_file() || kind.is_contiguous() {
            entries.insert(name, Entry::Data { offset: entry.raw_file_position(), bytes: entry.size() });
        } else if (kind.is_symlink() || kind.is_hard_link())
            && let Some(target) = entry.link_name().map_err(not_tar)?
        {
            let target =
                if kind.is_symlink() { target.to_string_lossy().into_owned() } else { format!("/{}", normal(&target)) };
            entries.insert(name, Entry::Link(target));
        }
    }
    Ok(entries)
}

/// Writes a path without `.`, `..` and a leading slash.
fn normal(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for component in path.components() {
        match component {
            std::path::Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            std::path::Component::ParentDir => drop(parts.pop()),
            std::path::Component::RootDir => parts.clear(),
            _ => {}
        }
    }
    parts.join("/")
}

fn digest(bytes: &[u8]) -> String {
    use sha2::Digest;
    format!("sha256:{}", hex(&sha2::Sha256::digest(bytes)))
}

fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

fn tempfile_in(directory: &Path) -> Result<File, Error> {
    use rustix::fs::{Mode, OFlags};
    // Never linked into the directory: gone with the process, however that ends.
    rustix::fs::open(directory, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))
        .map(File::from)
        .map_err(|error| Error::io("create a temporary file in", directory)(error.into()))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Returns this machine's architecture in OCI's words.
pub(super) const fn architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "amd64"
    } else if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "unknown"
    }
}
