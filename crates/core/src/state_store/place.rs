//! Where the files of a store are, as a text that can be compared.

use std::fmt;

use super::Store;
use crate::text::truncated;
use crate::work_placement::join;

/// How much of a hash stands for a server or a name.
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

/// What the places of all stores have in common that write one branch of a repository, or one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address<'a> {
    /// The repository, or the endpoint. One server can have two addresses.
    pub(crate) server: &'a str,
    /// The branch, or the bucket.
    pub(crate) name: &'a str,
}

impl<'a> Address<'a> {
    /// Returns the address of a [`place`].
    pub fn of(place: &'a str) -> Self {
        Self::split(place).0
    }

    /// Returns the address of a place, and the store's path there.
    pub(crate) fn split(place: &'a str) -> (Self, &'a str) {
        let mut parts = place.splitn(3, '/');
        let mut next = || parts.next().unwrap_or_default();
        (Self { server: next(), name: next() }, next())
    }
}

impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.server, self.name)
    }
}
