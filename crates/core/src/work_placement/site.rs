//! Where the files of an object are, as the cluster remembers it: what a Destination or a store has said before counts until
//! the files there are gone.
//!
//! A site is noted before the first file is written there and forgotten after the last one was removed, so that whatever is
//! interrupted, no file is where no note leads. What a note cannot bring back is an address: when a store's object points
//! elsewhere, its previous address is reachable for as long as this process keeps the writer. After a restart the files
//! there stay, and an event says so.

use kratix_api::destination::StateStoreRef;
use kratix_api::part::Reference;
use kratix_api::{Destination, WorkPlacement};
use kube_core::{Resource, ResourceExt};
use serde::{Deserialize, Serialize};

use super::location::{DIRECTORY_NAMESPACE, Location, is_below, join};
use crate::state_store::{Address, display};

/// On a placement: the site of which its status speaks. The scheduler notes it when it makes the placement, and the writer
/// notes another one after it has written there.
pub const STORE_LOCATION: &str = "kratix.io/store-location";

/// On a placement, the sites where its files may be besides [`STORE_LOCATION`]; on a Destination, all sites where its test
/// documents may be. The writer notes a site before it writes there, and forgets it after it has removed the files.
pub const FILES_AT: &str = "kratix.io/files-at";

/// How many sites are remembered for one object. Beyond that the one left first is given up, which an event says.
pub(crate) const SITES_MAX: usize = 16;

/// Files of one object in one store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Site {
    /// The store.
    pub store: StateStoreRef,
    /// See [`state_store::place`](crate::state_store::place); empty if the store was not known.
    pub place: String,
    /// The directory, relative to the store's path.
    directory: String,
    /// The state file of a shared directory, relative to it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    ledger: String,
    /// The only file in the directory that is meant, relative to it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    file: String,
    /// An event has said that the files there cannot be removed now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_told: bool,
}

/// What a placement says of its own files. A Work that says it too is not believed.
pub(crate) const OWN_ANNOTATIONS: [&str; 3] = [DIRECTORY_NAMESPACE, STORE_LOCATION, FILES_AT];

/// How a site that was left lies to the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    /// They have no file in common.
    Apart,
    /// They are one, named twice.
    Same,
    /// One contains the other.
    Entangled,
    /// They are one if both servers are, see [`Leftover::needs_proof`](super::Leftover::needs_proof).
    Doubtful,
}

impl Site {
    /// Returns where `placement` is on `destination`, whose store is at `place`; `None` where there is no location.
    pub(crate) fn of(placement: &WorkPlacement, destination: &Destination, place: &str) -> Option<Self> {
        let store = destination.spec.state_store_ref.clone()?;
        let (directory, ledger, file) = match Location::of(placement, destination).ok()? {
            Location::Directory(directory) => (directory, String::new(), String::new()),
            Location::Shared { directory, ledger } => (directory, ledger, String::new()),
            Location::Aggregate { directory, file } => (directory, String::new(), file),
        };
        Some(Self { store, place: place.to_owned(), directory, ledger, file, is_told: false })
    }

    /// Returns where the test documents of `destination` are.
    pub(crate) fn of_test_documents(destination: &Destination, place: &str) -> Option<Self> {
        let store = destination.spec.state_store_ref.clone()?;
        let directory = join(&[&destination.spec.path]);
        let (ledger, file) = (String::new(), String::new());
        Some(Self { store, place: place.to_owned(), directory, ledger, file, is_told: false })
    }

    /// Returns the location, as it was.
    pub(crate) fn location(&self) -> Location {
        let directory = self.directory.clone();
        match (&*self.ledger, &*self.file) {
            ("", "") => Location::Directory(directory),
            ("", file) => Location::Aggregate { directory, file: file.to_owned() },
            (ledger, _) => Location::Shared { directory, ledger: ledger.to_owned() },
        }
    }

    /// Returns the directory, relative to the store's path.
    pub(crate) fn directory(&self) -> &str {
        &self.directory
    }

    /// Returns what tells it from all others, whatever was said of it.
    pub fn is(&self, other: &Self) -> bool {
        let parts = |site: &Self| {
            let Self { store, place, directory, ledger, file, is_told: _ } = site.clone();
            (store, place, directory, ledger, file)
        };
        parts(self) == parts(other)
    }

    /// Returns how this site lies to another one.
    pub(crate) fn relation(&self, other: &Self) -> Relation {
        let (one, two) = (Address::of(&self.place), Address::of(&other.place));
        if one.server == two.server && one.name != two.name {
            return Relation::Apart;
        }
        let (path, other_path) = (self.path(), other.path());
        let is_same = path == other_path && self.ledger.is_empty() == other.ledger.is_empty();
        let is_entangled = match (&*self.ledger, &*other.ledger) {
            ("", "") => is_same || is_below(&path, &other_path) || is_below(&other_path, &path),
            // Files of one directory are listed in the other's state files, or may be.
            _ => touches(&self.base(), &other.base()),
        };
        match (one.server == two.server, is_entangled, is_same) {
            (_, false, _) => Relation::Apart,
            (false, true, _) => Relation::Doubtful,
            (true, true, true) => Relation::Same,
            (true, true, false) => Relation::Entangled,
        }
    }

    /// Tells whether the files of both are the same ones, whatever the stores are called.
    pub(crate) fn is_where(&self, other: &Self) -> bool {
        self.relation(other) == Relation::Same
    }

    /// Tells whether others can have files there now that are not to be told from those that were left: a state file tells
    /// whose is what.
    pub(crate) fn can_be_taken(&self) -> bool {
        self.ledger.is_empty()
    }

    /// Tells whether something at `location` in the directory of a Destination is a file of this site.
    pub(crate) fn is_taken_by(&self, claim: &super::Claim) -> bool {
        let (address, root) = Address::split(&claim.place);
        if address != Address::of(&self.place) {
            return false;
        }
        if !self.can_be_taken() {
            let of_claim = Self::of(&claim.placement, &claim.destination, &claim.place);
            return of_claim.is_some_and(|of_claim| self.is_where(&of_claim)); // one state file, two placements
        }
        let meets = |path: &[&str]| {
            let path = join(&[&[root], path].concat());
            touches(&path, &self.path())
        };
        match Location::of(&claim.placement, &claim.destination) {
            Ok(Location::Directory(directory)) => meets(&[&directory]),
            Ok(Location::Aggregate { directory, file }) => meets(&[&directory, &file]),
            Ok(Location::Shared { directory, .. }) => {
                claim.placement.spec.workloads.iter().any(|workload| match Reference::of(workload) {
                    // Its files are elsewhere, so each may be meant.
                    Some(_) => meets(&[&directory]),
                    None => meets(&[&directory, &workload.filepath]),
                })
            }
            Err(_) => false,
        }
    }

    /// Tells whether placements on `destination`, whose store is at `place`, could have files in this site's directory.
    pub(crate) fn may_be_taken_on(&self, destination: &Destination, place: &str) -> bool {
        Address::of(place) == Address::of(&self.place) && touches(&rooted(place, &destination.spec.path), &self.base())
    }

    /// Returns the site as one of which an event has told.
    pub(crate) fn told(self) -> Self {
        Self { is_told: true, ..self }
    }

    /// Returns how two sites of test documents lie to each other: only those of one directory are the same files.
    pub(crate) fn relation_of_test_documents(&self, other: &Self) -> Relation {
        let (one, two) = (Address::of(&self.place), Address::of(&other.place));
        match (self.base() == other.base(), one.server == two.server, one.name == two.name) {
            (false, ..) | (true, true, false) => Relation::Apart,
            (true, true, true) => Relation::Same,
            (true, false, _) => Relation::Doubtful,
        }
    }

    /// Names the site, for people.
    pub(crate) fn shown(&self) -> String {
        let path = join(&[&self.directory, &self.file]);
        let path = if path.is_empty() { "/" } else { &path };
        format!("{path} of {}", display(Some(&self.store)))
    }

    /// Returns the directory, relative to the repository or bucket.
    fn base(&self) -> String {
        rooted(&self.place, &self.directory)
    }

    /// Returns the path that is this site's alone, relative to the repository or bucket.
    fn path(&self) -> String {
        rooted(&self.place, &join(&[&self.directory, &self.ledger, &self.file]))
    }

    /// Names what only one at a time may write. Of a shared directory that is the state file: of two placements which have one,
    /// the second is to know that the first has written.
    pub(super) fn turn(&self) -> String {
        format!("{} {}", Address::of(&self.place), self.path())
    }

    /// Returns the value of an annotation.
    pub(super) fn render(&self) -> String {
        serde_json::to_string(self).expect("texts can be rendered")
    }
}

/// Returns a path of a store at `place`, relative to the repository or bucket.
pub(crate) fn rooted(place: &str, path: &str) -> String {
    join(&[Address::split(place).1, path])
}

/// One directory is the other, or contains it; the root contains everything.
pub(super) fn touches(one: &str, two: &str) -> bool {
    one == two || one.is_empty() || two.is_empty() || is_below(one, two) || is_below(two, one)
}

/// Returns the value of [`STORE_LOCATION`] for a placement whose Destination's store is at `place`; `None` where there is no
/// location.
pub(crate) fn site(placement: &WorkPlacement, destination: &Destination, place: &str) -> Option<String> {
    Site::of(placement, destination, place).map(|site| site.render())
}

/// Returns the site of which the status of a placement speaks, if it says so in words of today.
pub(crate) fn noted(placement: &WorkPlacement) -> Option<Site> {
    serde_json::from_str(placement.annotations().get(STORE_LOCATION)?).ok()
}

/// Returns the sites of [`FILES_AT`].
pub fn others<K: Resource>(object: &K) -> Vec<Site> {
    let noted = object.meta().annotations.as_ref().and_then(|annotations| annotations.get(FILES_AT));
    noted.and_then(|noted| serde_json::from_str(noted).ok()).unwrap_or_default()
}

/// Returns the value of [`FILES_AT`]; none removes it.
pub(crate) fn rendered(sites: &[Site]) -> Option<String> {
    (!sites.is_empty()).then(|| serde_json::to_string(sites).expect("texts can be rendered"))
}

/// Returns all sites that are noted on a placement.
pub fn noted_sites(placement: &WorkPlacement) -> Vec<Site> {
    noted(placement).into_iter().chain(others(placement)).collect()
}
