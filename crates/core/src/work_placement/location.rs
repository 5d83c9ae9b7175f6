//! Where the files of a placement are.
//!
//! **Invariant:** the directory of a placement is below its Destination's, and only the store's own rules decide about what
//! lies in it: no name that comes from an object can add or leave a level.
//!
//! # Source
//! `05-scheduling-and-writing.md` §2.5, §6.3; decision 9, weaknesses 17, 18

use kratix_api::destination::{AGGREGATED_FILENAME, FilepathMode};
use kratix_api::{Destination, WorkPlacement, keys};
use kratix_store_path::{Path, Reason};
use kube_core::ResourceExt;

use crate::state_store::Failure;

/// Directory of the state files in mode `none`.
const LEDGERS: &str = ".kratix";
/// How many characters of a group id are part of a directory.
const ID_PREFIX: usize = 5;

/// On a placement: the namespace that stands in its directory instead of its own, so that requests of one name from several
/// namespaces, whose Works share a pipeline namespace, do not share a directory.
pub const DIRECTORY_NAMESPACE: &str = "kratix.io/directory-namespace";

/// Where the files of a placement are, relative to the store's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A directory of its own.
    Directory(String),
    /// The Destination's directory, shared, with a state file that remembers whose is what.
    Shared {
        /// The Destination's directory.
        directory: String,
        /// The state file, relative to it.
        ledger: String,
    },
    /// One file for all placements of the Destination.
    Aggregate {
        /// The Destination's directory.
        directory: String,
        /// The file, relative to it.
        file: String,
    },
}

impl Location {
    /// Returns where the files of `placement` are on `destination`.
    ///
    /// # Errors
    /// For names that could not be one segment of a path, and for an unknown mode.
    pub fn of(placement: &WorkPlacement, destination: &Destination) -> Result<Self, Failure> {
        let directory = join(&[&destination.spec.path]);
        match &destination.spec.filepath.mode {
            FilepathMode::NestedByMetadata => nested(placement, &directory).map(Self::Directory),
            FilepathMode::None => {
                let ledger = format!("{LEDGERS}/{}.yaml", ledger_name(placement));
                Ok(Self::Shared { directory, ledger })
            }
            FilepathMode::AggregatedYaml => Ok(Self::Aggregate { directory, file: aggregate_name(destination) }),
            FilepathMode::Other(mode) if mode.is_empty() => nested(placement, &directory).map(Self::Directory),
            FilepathMode::Other(mode) => Err(Failure::content(format!("unsupported file path mode: {mode}"))),
        }
    }

    /// Returns why no store takes files there, or removes any: `None` where stores do.
    pub(crate) fn unwritable(&self) -> Option<Reason> {
        match self {
            Self::Directory(directory) | Self::Shared { directory, .. } => Path::parse_directory(directory).err(),
            Self::Aggregate { directory, file } => {
                Path::parse_directory(directory).and_then(|_| Path::parse_file(file)).err()
            }
        }
    }

    /// Tells whether both are directories of which one is, or contains, the other, or have one state file.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Directory(one), Self::Directory(two)) => one == two || is_below(one, two) || is_below(two, one),
            (Self::Shared { .. }, Self::Shared { .. }) => self == other,
            _ => false,
        }
    }
}

/// Returns what stands for the namespace `own` of a request in its directory, where a namesake of another namespace has the
/// one that `shared`, the namespace of their placements, gives.
///
/// The directory of a request that lives in the shared namespace is that one; its own has the name twice (`team.team`),
/// which is the name of no namespace.
pub(crate) fn apart(own: &str, shared: Option<&str>) -> String {
    if shared == Some(own) { format!("{own}.{own}") } else { own.to_owned() }
}

/// Returns the path of the file that all placements of a Destination share, if they do.
pub(super) fn aggregate(destination: &Destination) -> Option<String> {
    super::aggregates(destination).then(|| join(&[&destination.spec.path, &aggregate_name(destination)]))
}

fn aggregate_name(destination: &Destination) -> String {
    let name = destination.spec.filepath.filename.as_str();
    clean(if name.is_empty() { AGGREGATED_FILENAME } else { name })
}

/// Returns the name of a placement's state file, without its extension.
pub fn ledger_name(placement: &WorkPlacement) -> String {
    format!("{}-{}", placement.namespace().unwrap_or_default(), placement.name_any())
}

/// Returns the pipeline of a placement; empty for static dependencies.
pub(crate) fn pipeline(placement: &WorkPlacement) -> &str {
    placement.labels().get(keys::PIPELINE_NAME).map_or("", String::as_str)
}

/// Tells whether a path of a shared directory is not a pipeline's to write: it holds the state files, or a test document.
pub(crate) fn is_reserved(path: &str) -> bool {
    path == LEDGERS || is_below(path, LEDGERS)
}

fn nested(placement: &WorkPlacement, directory: &str) -> Result<String, Failure> {
    let spec = &placement.spec;
    let id = spec.id.get(..ID_PREFIX).unwrap_or(&spec.id);
    let promise = segment("spec.promiseName", &spec.promise_name)?;
    let id = segment("spec.id", id)?;
    let pipeline = match pipeline(placement) {
        "" => "",
        pipeline => segment("the pipeline label", pipeline)?,
    };
    if spec.resource_name.is_empty() {
        return Ok(join(&[directory, "dependencies", promise, pipeline, id]));
    }
    let resource = segment("spec.resourceName", &spec.resource_name)?;
    let own = placement.metadata.namespace.as_deref().unwrap_or_default();
    let namespace = placement.annotations().get(DIRECTORY_NAMESPACE).map_or(own, String::as_str);
    let namespace = segment("the namespace", namespace)?;
    Ok(join(&[directory, "resources", namespace, promise, resource, pipeline, id]))
}

/// A name of an object as one level of a path.
fn segment<'a>(field: &str, name: &'a str) -> Result<&'a str, Failure> {
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        return Err(Failure::content(format!("{field} {name:?} cannot be a directory name")));
    }
    Ok(name)
}

/// Tells whether a clean path lies below another.
pub(crate) fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

/// Joins and cleans paths inside a store; what would lead out of it keeps its `..`, which the store refuses.
pub(crate) fn join(parts: &[&str]) -> String {
    let given: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    clean(given.join("/").trim_start_matches('/'))
}

/// Cleans a path lexically. An absolute path stays absolute, one that leads out keeps its leading `..`.
pub(crate) fn clean(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." if kept.last().is_some_and(|last| *last != "..") => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    let root = if path.starts_with('/') { "/" } else { "" };
    format!("{root}{}", kept.join("/"))
}
