//! Where the files of a store are, as a text that can be compared.

use super::Store;
use crate::text::truncated;
use crate::work_placement::join;

/// How much of a hash stands for an address.
const ADDRESS_HASH: usize = 16;

/// Identifies where a store's files are: one whose address changes is another place, one with other credentials is not.
///
/// [`Address`] tells what two places have in common.
pub fn place(store: &Store) -> String {
    let (server, name, root) = match store {
        Store::Git(store) => (&store.spec.url, &store.spec.branch, &store.spec.path),
        Store::Bucket(store) => (&store.spec.endpoint, &store.spec.bucket_name, &store.spec.path),
    };
    let short = |text: &str| truncated(&kratix_api::hash::text(text), ADDRESS_HASH).to_owned();
    format!("{}/{}/{}", short(server), short(name), join(&[root]))
}

/// Returns what the places of all stores begin with that write one branch of a repository, or one bucket.
pub fn address(place: &str) -> &str {
    place.match_indices('/').nth(1).map_or(place, |(end, _)| &place[..end])
}

/// The parts of a [`place`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address<'a> {
    /// The repository, or the endpoint. One server can have two addresses.
    pub(crate) server: &'a str,
    /// The branch, or the bucket.
    pub(crate) name: &'a str,
    /// The store's path.
    pub(crate) root: &'a str,
}

impl<'a> Address<'a> {
    pub(crate) fn of(place: &'a str) -> Self {
        let mut parts = place.splitn(3, '/');
        let mut next = || parts.next().unwrap_or_default();
        Self { server: next(), name: next(), root: next() }
    }
}
