//! Whether two addresses lead to two repositories.

use std::collections::HashMap;
use std::sync::Arc;

use kratix_state_store::{Error, Handle};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

/// How often two repositories are looked at when one of them moves meanwhile.
const LOOKS_MAX: usize = 5;

type Pair = (String, String);

/// What was found out about pairs of addresses.
///
/// # Guarantees
/// Two addresses of one repository are never called distinct: each look at the second lies between two looks at the first
/// that show one state, which is not the state of the second. Two repositories that show one state, such as a copy, are not
/// called distinct either.
///
/// # Limits
/// One entry for each pair of addresses between which objects have moved in this process.
#[derive(Default)]
pub(super) struct Twins(Mutex<HashMap<Pair, Arc<OnceCell<Option<bool>>>>>);

impl Twins {
    /// Tells whether the writers at two places write two repositories; nothing where that cannot be told, as of buckets, whose
    /// states have no names. Each pair is looked at once.
    pub(super) async fn are_distinct(&self, one: (&str, &Handle), two: (&str, &Handle)) -> Result<Option<bool>, Error> {
        let pair = (one.0.to_owned(), two.0.to_owned());
        let cell = Arc::clone(self.0.lock().entry(pair).or_default());
        cell.get_or_try_init(|| look(one.1, two.1)).await.copied()
    }
}

async fn look(one: &Handle, two: &Handle) -> Result<Option<bool>, Error> {
    for _ in 0..LOOKS_MAX {
        let before = newest(one).await?;
        let between = newest(two).await?;
        let after = newest(one).await?;
        if before.is_none() && between.is_none() {
            return Ok(None);
        }
        if between == before || between == after {
            return Ok(Some(false));
        }
        if before == after {
            return Ok(Some(true));
        }
    }
    Ok(Some(false))
}

/// Returns the present version; what was known before does not count.
async fn newest(handle: &Handle) -> Result<Option<String>, Error> {
    handle.check().await?;
    Ok(handle.version().await?.map(|version| version.to_string()))
}

#[cfg(test)]
mod tests {
    use kratix_state_store::{Change, File, GitConfig, init_bare, open};

    use super::*;

    #[tokio::test]
    async fn one_repository_under_two_names_is_one_and_two_repositories_are_two() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let handle = |name: &str| {
            open(GitConfig::new(name, path(name).display().to_string()), directory.path().join("cache")).unwrap()
        };
        init_bare(path("a.git"), "main").unwrap();
        init_bare(path("b.git"), "main").unwrap();
        std::os::unix::fs::symlink(path("a.git"), path("link.git")).unwrap();
        let (one, two, other) = (handle("a.git"), handle("link.git"), handle("b.git"));
        one.write(Change::replace("p", "d", vec![File::new("f", "1")])).await.unwrap();
        other.write(Change::replace("p", "d", vec![File::new("f", "2")])).await.unwrap();
        let twins = Twins::default();
        assert_eq!(twins.are_distinct(("a", &one), ("link", &two)).await, Ok(Some(false)));
        assert_eq!(twins.are_distinct(("a", &one), ("b", &other)).await, Ok(Some(true)));
        init_bare(path("c.git"), "main").unwrap();
        init_bare(path("d.git"), "main").unwrap();
        let (empty, other) = (handle("c.git"), handle("d.git"));
        assert_eq!(twins.are_distinct(("c", &empty), ("d", &other)).await, Ok(None));
    }
}
