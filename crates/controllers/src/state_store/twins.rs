//! Whether two addresses lead to two repositories.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use kratix_core::state_store::RETRY_AFTER;
use kratix_state_store::{Error, Handle, Place, Trouble};
use parking_lot::Mutex;
use tokio::task::JoinError;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// How often two repositories are looked at when one of them moves meanwhile.
const LOOKS_MAX: usize = 5;

/// Two stores, each at a place. Two stores at one place may have two credentials, and what one of them is refused concerns no other.
type Pair = [(String, String); 2];
type Found = Result<Option<bool>, Undecided>;

/// What was found out about pairs of addresses.
///
/// # Guarantees
/// Two addresses of one repository are never called distinct: each look at the second lies between two looks at the first
/// that show one state, which is not the state of the second. Two repositories that show one state, such as a copy, are not
/// called distinct either. However slowly two servers answer, their look comes to its end: it goes on when nobody waits for it
/// any more, and whoever asks next has what it found.
///
/// # Limits
/// One entry for each pair of addresses between which objects of a store have moved in this process. However many ask, a pair of
/// which nothing could be found out is looked at once in [`RETRY_AFTER`].
#[derive(Default)]
pub(super) struct Twins(Mutex<HashMap<Pair, Arc<Comparison>>>);

/// Why it cannot be told now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Undecided {
    /// One of the stores gives no answer.
    #[error(transparent)]
    Store(Error),
    #[error("branch {:?} of {} moved each time that it was compared with the present place", .0.branch, .0.url)]
    Moving(Arc<Place>),
}

impl From<Error> for Undecided {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl Twins {
    /// Tells whether the writers at two places write two repositories; nothing where that cannot be told, as of buckets, whose
    /// states have no names. An answer holds for good, a failure for [`RETRY_AFTER`].
    pub(super) async fn are_distinct(&self, one: (&str, &Handle), two: (&str, &Handle)) -> Found {
        let pair = [one, two].map(|(place, writer)| (writer.place().store.clone(), place.to_owned()));
        let comparison = Arc::clone(self.0.lock().entry(pair).or_default());
        comparison.get(|| look(one.1.clone(), two.1.clone())).await
    }

    /// Has what has no answer yet be tried again by whoever asks next: the store at `place` was opened anew.
    pub(super) fn forgive(&self, place: &str) {
        let concerns = |pair: &Pair| pair.iter().any(|(_, at)| at == place);
        let is_answered = |comparison: &Comparison| matches!(*comparison.0.lock(), Known::Answer(_));
        self.0.lock().retain(|pair, comparison| !concerns(pair) || is_answered(comparison));
    }
}

/// What is known of a pair. Who asks first has it found out, and all others wait for what is found.
#[derive(Default)]
struct Comparison(Mutex<Known>);

#[derive(Default)]
enum Known {
    #[default]
    Nothing,
    Look(Look),
    Failure(Undecided, Instant),
    Answer(Option<bool>),
}

/// A task of its own, which ends with the comparison.
type Look = Shared<BoxFuture<'static, Found>>;

impl Comparison {
    async fn get<F>(self: &Arc<Self>, look: impl Fn() -> F) -> Found
    where
        F: Future<Output = Found> + Send + 'static,
    {
        loop {
            let (found, is_own) = {
                let mut known = self.0.lock();
                match &*known {
                    Known::Answer(answer) => return Ok(*answer),
                    Known::Failure(failure, at) if at.elapsed() < RETRY_AFTER => return Err(failure.clone()),
                    Known::Look(found) => (found.clone(), false),
                    Known::Failure(..) | Known::Nothing => {
                        let found = self.find_out(look());
                        *known = Known::Look(found.clone());
                        (found, true)
                    }
                }
            };
            let found = found.await;
            // Only of the writers that somebody else has looked with.
            if is_own || !found.as_ref().is_err_and(is_closed) {
                return found;
            }
        }
    }

    fn find_out(self: &Arc<Self>, look: impl Future<Output = Found> + Send + 'static) -> Look {
        let comparison = Arc::downgrade(self);
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let found = AssertUnwindSafe(look).catch_unwind().await;
            if let Some(comparison) = comparison.upgrade() {
                *comparison.0.lock() = match &found {
                    Ok(Ok(answer)) => Known::Answer(*answer),
                    Ok(Err(failure)) if !is_closed(failure) => Known::Failure(failure.clone(), Instant::now()),
                    // A writer that was replaced says nothing of its store, and a defect here nothing of anything.
                    Ok(Err(_)) | Err(_) => Known::Nothing,
                };
            }
            found.unwrap_or_else(|panic| resume_unwind(panic))
        }));
        let found = async move {
            match task.await.map_err(JoinError::try_into_panic) {
                Ok(found) => found,
                Err(Ok(panic)) => resume_unwind(panic),
                // The runtime ends, and with it everybody who waits.
                Err(Err(_)) => std::future::pending().await,
            }
        };
        found.boxed().shared()
    }
}

fn is_closed(failure: &Undecided) -> bool {
    matches!(failure, Undecided::Store(error) if error.trouble == Trouble::Closed)
}

async fn look(one: Handle, two: Handle) -> Found {
    for _ in 0..LOOKS_MAX {
        let before = newest(&one).await?;
        let between = newest(&two).await?;
        let after = newest(&one).await?;
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
    Err(Undecided::Moving(Arc::new(one.place().clone())))
}

/// Returns the present version; what was known before does not count.
async fn newest(handle: &Handle) -> Result<Option<String>, Error> {
    handle.check().await?;
    Ok(handle.version().await?.map(|version| version.to_string()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use kratix_state_store::{Change, File, GitConfig, init_bare, open};
    use kratix_testing::git_http::{Fault, Server, Step};

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

    /// Puts another commit on top of the branch, with the same files.
    fn advance(repository: &Path, text: &str) {
        let git = |arguments: &[&str]| {
            let who = [("NAME", "else"), ("EMAIL", "e@example.org")];
            let who = ["AUTHOR", "COMMITTER"]
                .iter()
                .flat_map(|role| who.map(|(key, value)| (format!("GIT_{role}_{key}"), value)));
            let output = Command::new("git").args(arguments).current_dir(repository).envs(who).output().unwrap();
            assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let commit = git(&["commit-tree", "main^{tree}", "-p", "main", "-m", text]);
        git(&["update-ref", "refs/heads/main", &commit]);
    }

    /// A repository behind a server, one that is not, and a writer for each.
    struct Scene {
        directory: tempfile::TempDir,
        server: Server,
        one: Handle,
        two: Handle,
    }

    impl Scene {
        async fn start() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = |name: &str| directory.path().join(name);
            let server = Server::plain(directory.path()).await;
            let handle = |name: &str, url: String| {
                init_bare(path(name), "main").unwrap();
                open(GitConfig::new(name, url), path("cache")).unwrap()
            };
            let one = handle("a.git", server.url("a.git"));
            let two = handle("b.git", path("b.git").display().to_string());
            for (at, handle) in [&one, &two].into_iter().enumerate() {
                handle.write(Change::replace("p", "d", vec![File::new("f", at.to_string())])).await.unwrap();
            }
            Self { directory, server, one, two }
        }
    }

    #[tokio::test]
    async fn a_server_that_refuses_at_once_is_asked_once_for_all_who_have_left_it_until_it_is_opened_anew() {
        let scene = Scene::start().await;
        scene.server.fail(Fault::Status(401));
        let twins = Twins::default();
        let ask = || twins.are_distinct(("a", &scene.one), ("b", &scene.two));
        let before = scene.server.requests();
        for answer in futures::future::join_all((0..50).map(|_| ask())).await {
            let Err(Undecided::Store(error)) = answer else { panic!("{answer:?}") };
            assert_eq!(error.trouble, Trouble::Unauthorized);
        }
        let requests = scene.server.requests() - before;
        assert!((1..=4).contains(&requests), "{requests} requests");
        scene.server.fail(Fault::None);
        twins.forgive("elsewhere");
        assert!(ask().await.is_err(), "it is not its time yet");
        twins.forgive("a");
        assert_eq!(ask().await, Ok(Some(true)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_known_for_a_while_an_answer_for_good_and_of_a_writer_that_was_replaced_nothing() {
        let comparison = Arc::new(Comparison::default());
        let looks = AtomicUsize::new(0);
        let get = |found: Found| {
            let looks = &looks;
            comparison.get(move || {
                looks.fetch_add(1, Ordering::Relaxed);
                std::future::ready(found.clone())
            })
        };
        let place = Arc::new(Place { store: "a".into(), url: "u".into(), branch: "main".into() });
        let failed = |trouble: Trouble| Err(Undecided::Store(Error { place: Arc::clone(&place), trouble }));
        for trouble in [Trouble::Closed, Trouble::Unauthorized] {
            assert_eq!(get(failed(trouble.clone())).await, failed(trouble));
        }
        tokio::time::advance(RETRY_AFTER - std::time::Duration::from_millis(1)).await;
        assert_eq!(get(Ok(None)).await, failed(Trouble::Unauthorized));
        tokio::time::advance(std::time::Duration::from_millis(1)).await;
        assert_eq!(get(Ok(Some(true))).await, Ok(Some(true)));
        tokio::time::advance(2 * RETRY_AFTER).await;
        assert_eq!(get(failed(Trouble::Unauthorized)).await, Ok(Some(true)));
        assert_eq!(looks.into_inner(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_goes_on_when_nobody_waits_for_it_and_the_next_who_asks_has_what_it_found() {
        const PATIENCE: std::time::Duration = std::time::Duration::from_secs(3);
        let slow = |found: Found| {
            move || {
                let found = found.clone();
                async move {
                    tokio::time::sleep(2 * PATIENCE).await;
                    found
                }
            }
        };
        let comparison = Arc::new(Comparison::default());
        let impatient = |found| tokio::time::timeout(PATIENCE, comparison.get(slow(found)));
        assert!(impatient(Ok(Some(true))).await.is_err());
        tokio::time::sleep(2 * PATIENCE).await;
        assert_eq!(impatient(Ok(None)).await, Ok(Ok(Some(true))));
        // A failure is known from when it was found, and of writers of somebody else that were replaced nothing.
        let place = Arc::new(Place { store: "a".into(), url: "u".into(), branch: "main".into() });
        let failed = |trouble| Err(Undecided::Store(Error { place: Arc::clone(&place), trouble }));
        let comparison = Arc::new(Comparison::default());
        let impatient = |found| tokio::time::timeout(PATIENCE, comparison.get(slow(found)));
        assert!(impatient(failed(Trouble::Unauthorized)).await.is_err());
        tokio::time::sleep(2 * PATIENCE + RETRY_AFTER).await;
        assert!(impatient(failed(Trouble::Closed)).await.is_err());
        assert_eq!(comparison.get(slow(Ok(Some(false)))).await, Ok(Some(false)));
    }

    #[tokio::test]
    async fn a_store_whose_credentials_are_refused_holds_up_no_other_store_at_its_place() {
        let scene = Scene::start().await;
        let stranger = GitConfig::new("other", scene.server.url("a.git"));
        let stranger = open(stranger, scene.directory.path().join("cache-of-other")).unwrap();
        let twins = Twins::default();
        scene.server.fail(Fault::Status(401));
        assert!(twins.are_distinct(("a", &stranger), ("b", &scene.two)).await.is_err());
        scene.server.fail(Fault::None);
        assert_eq!(twins.are_distinct(("a", &scene.one), ("b", &scene.two)).await, Ok(Some(true)));
    }

    #[tokio::test]
    async fn after_a_look_that_has_panicked_the_next_who_asks_looks_again() {
        let comparison = Arc::new(Comparison::default());
        let asker = tokio::spawn({
            let comparison = Arc::clone(&comparison);
            async move { comparison.get(|| async { panic!("a defect") }).await }
        });
        assert!(asker.await.unwrap_err().is_panic());
        assert_eq!(comparison.get(|| std::future::ready(Ok(Some(true)))).await, Ok(Some(true)));
    }

    #[tokio::test]
    async fn a_branch_that_moves_all_the_time_is_neither_the_same_nor_another_one() {
        let scene = Scene::start().await;
        let (repository, moves) = (scene.directory.path().join("a.git"), AtomicUsize::new(0));
        scene.server.before_requests(move |step| {
            if step == Step::Ask {
                advance(&repository, &moves.fetch_add(1, Ordering::Relaxed).to_string());
            }
        });
        let twins = Twins::default();
        let ask = || twins.are_distinct(("a", &scene.one), ("b", &scene.two));
        let undecided = ask().await.unwrap_err();
        let expected = format!(
            "branch \"main\" of {} moved each time that it was compared with the present place",
            scene.server.url("a.git")
        );
        assert_eq!(undecided.to_string(), expected);
        scene.server.before_requests(|_| {});
        assert_eq!(ask().await, Err(undecided), "it is not its time yet");
        twins.forgive("a");
        assert_eq!(ask().await, Ok(Some(true)));
    }
}
