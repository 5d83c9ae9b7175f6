//! A Git repository as a store: one batch is synchronise, build, publish, and again if the remote moved meanwhile, in
//! pieces if the remote refuses it.
//!
//! Crash points of a batch, and what the next start finds:
//! * before the pack is complete: a temporary file that nothing names;
//! * after the pack, before the ref: objects that nothing names, which git's own clean-up removes;
//! * after the ref, before the answer: the content is there, so that the repeated change is silent.

mod batch;
mod bisection;
mod command;
mod github_app;
mod imprint;
mod local;
mod message;
mod pack;
mod private_key;
mod refs;
mod remote;
mod signing;
mod ssh;
mod tree;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use gix::ObjectId;
use kratix_store_path::Path;
use tokio::time::Instant;

pub use self::local::init_bare;

pub(crate) use self::imprint::Mark;
pub(crate) use self::tree::Overlay;

use self::batch::Outcome;
use self::bisection::{Bisection, Culprits, Limits};
use self::imprint::Verified;
use self::message::Committer;
use crate::authority;
use crate::change::{Imprint, Tree, Version, Written};
use crate::checked::Checked;
use crate::config::GitConfig;
use crate::error::{Error, Place, Trouble, WriteError};
use crate::ledger;
use crate::retry_after::Quiet;

/// How often a batch is built anew because the remote moved, before its callers are told.
const REBASES_MAX: usize = 24;
/// How often a push is tried at once that was neither accepted nor refused.
const UNSETTLED_MAX: usize = 8;

/// A Git repository, owned by one task.
pub(crate) struct Store {
    config: Arc<GitConfig>,
    committer: Arc<Committer>,
    place: Arc<Place>,
    root: Path,
    address: Address,
    remote: remote::Remote,
    /// The owners of shared directories, as far as they were needed; kept because only new ledgers need reading then.
    ledgers: ledger::Index,
    /// What the remote refused although it takes other changes.
    culprits: Culprits,
    /// The imprints that held when they were last verified.
    verified: Verified,
    /// The state of the branch as last seen or made, and when.
    seen: Option<(Instant, Option<ObjectId>)>,
    /// Whether the branch held anything when it was last seen or made; it outlives what is believed.
    was_filled: bool,
    /// How often the branch was found empty after it had held something.
    losses: u64,
    /// Whether the remote wants to be left alone.
    quiet: Quiet,
    /// How many pushes were begun.
    pushes: u64,
}

/// A batch on its way to the branch.
pub(crate) struct Pending {
    changes: Arc<[Checked]>,
    search: Bisection,
    /// The piece that is being tried, if its last push has settled nothing.
    attempt: Option<Attempt>,
}

/// How far a piece of a batch has come.
struct Attempt {
    piece: Vec<usize>,
    belief: Belief,
    /// A push whose answer was lost looks like somebody else's when it is tried again.
    pushed: Option<(ObjectId, Vec<Result<Outcome, WriteError>>)>,
    rebases: usize,
    unsettled: usize,
    /// The cache was found damaged and thrown away.
    has_renewed: bool,
}

impl Attempt {
    fn new(piece: Vec<usize>, belief: Belief) -> Self {
        Self { piece, belief, pushed: None, rebases: 0, unsettled: 0, has_renewed: false }
    }
}

/// Where the repository is.
enum Address {
    /// On this machine.
    Local(local::Repository),
    /// At the end of a connection.
    Remote,
}

/// How a batch was accepted, or not.
enum Published {
    Accepted,
    /// The branch has another head than the one that the batch was built on.
    Moved,
    /// Not accepted, or not known to be, for a reason that is over in a moment or needs a person.
    Unsettled(Trouble),
}

/// What came of a piece of a batch.
enum Tried {
    /// It is to be tried again, on what the branch holds then.
    Again,
    Done(Vec<Result<Written, WriteError>>),
    Refused {
        trouble: Trouble,
        /// For each change, whether it would have altered anything.
        alters: Vec<bool>,
    },
}

impl Store {
    pub(crate) fn new(config: GitConfig, cache: PathBuf, lives: ledger::Liveness) -> Result<Self, Error> {
        let parsed = remote::Url::parse(&config.url);
        let shown = match &parsed {
            Ok(url) => url.shown(),
            Err(_) => "address not understood".to_owned(),
        };
        let place = Arc::new(Place { store: config.name.clone(), url: shown, branch: config.branch.clone() });
        let fail = |trouble| Error { place: place.clone(), trouble };
        let url = parsed.map_err(fail)?;
        let branch = format!("refs/heads/{}", config.branch);
        if gix::validate::reference::name(branch.as_str().into()).is_err() {
            return Err(fail(Trouble::Config(format!("{:?} is not a branch name", config.branch))));
        }
        let root = Path::parse_directory(&config.path)
            .map_err(|reason| fail(Trouble::Config(format!("path {:?} cannot be used: {reason}", config.path))))?;
        let committer = message::Committer::new(&config).map_err(fail)?;
        let (config, committer) = (Arc::new(config), Arc::new(committer));
        let address = match url.local() {
            Some(path) => Address::Local(local::Repository::new(path.to_owned(), &config)),
            None => Address::Remote,
        };
        let remote = remote::Remote::new(url, config.clone(), committer.clone(), cache).map_err(fail)?;
        let ledgers = ledger::Index::new(lives);
        let (culprits, verified) = (Culprits::default(), Verified::default());
        Ok(Self {
            config,
            committer,
            place,
            root,
            address,
            remote,
            ledgers,
            culprits,
            verified,
            seen: None,
            was_filled: false,
            losses: 0,
            quiet: Quiet::default(),
            pushes: 0,
        })
    }

    pub(crate) fn place(&self) -> &Arc<Place> {
        &self.place
    }

    pub(crate) fn known(&self) -> Option<Version> {
        let (_, head) = self.seen?;
        head.map(version)
    }

    /// Takes in changes that are to be made durable, in one commit if the remote takes it.
    ///
    /// One change that the remote refuses does not hold up the others, see [`bisection`].
    pub(crate) fn begin(&self, changes: Vec<Checked>) -> Pending {
        let changes: Arc<[Checked]> = changes.into();
        let limits = if self.is_paced() { Limits::PACED } else { Limits::FREE };
        let search = Bisection::new(changes.clone(), &self.culprits, limits);
        Pending { changes, search, attempt: None }
    }

    fn is_paced(&self) -> bool {
        self.config.pushes_per_minute.is_some()
    }

    /// Returns how many pushes were begun, also those that came to nothing.
    pub(crate) fn pushes(&self) -> u64 {
        self.pushes
    }

    /// Brings a batch further, by one push at most. Returns what has become of those changes of which that is known by now.
    pub(crate) async fn step(&mut self, pending: &mut Pending) -> Vec<(usize, Result<Written, WriteError>)> {
        // A push that fails for an old belief is one of those that are counted.
        let belief = if self.is_paced() { Belief::Interval } else { Belief::Any };
        let next = pending.attempt.take().or_else(|| Some(Attempt::new(pending.search.next()?, belief)));
        if let Some(mut attempt) = next {
            match self.try_commit(&pending.changes, &mut attempt).await {
                Ok(Tried::Again) => pending.attempt = Some(attempt),
                Ok(Tried::Done(outcomes)) => pending.search.accept(&attempt.piece, outcomes),
                Ok(Tried::Refused { trouble, alters }) => {
                    // A clear answer: what is known of the branch still holds.
                    let error = Error { place: self.place.clone(), trouble };
                    tracing::debug!(%error, changes = attempt.piece.len(), "changes are not accepted");
                    pending.search.refuse(attempt.piece, &alters, error);
                }
                Err(trouble) => {
                    if matches!(trouble, Trouble::Damaged(_)) && !attempt.has_renewed && self.forget_cache().await {
                        pending.attempt = Some(Attempt { has_renewed: true, ..Attempt::new(attempt.piece, belief) });
                    } else {
                        let error = self.fail(trouble);
                        tracing::debug!(%error, "the batch is given up");
                        // A store that does not answer is not asked once more for each piece.
                        pending.search.abandon(&error);
                    }
                }
            }
        }
        pending.search.settle(&mut self.culprits)
    }

    /// Throws the cache of a remote away; `false` if there is none that could be the damaged one.
    async fn forget_cache(&mut self) -> bool {
        self.seen = None;
        self.remote.discard().await.unwrap_or(false)
    }

    /// Builds a piece on the present head and pushes it.
    async fn try_commit(&mut self, changes: &Arc<[Checked]>, attempt: &mut Attempt) -> Result<Tried, Trouble> {
        if attempt.rebases >= REBASES_MAX {
            return Err(Trouble::Moved(self.config.branch.clone()));
        }
        let (mut head, fresh) = self.sync(attempt.belief).await?;
        if let Some((id, outcomes)) = attempt.pushed.take_if(|(id, _)| head == Some(*id)) {
            return Ok(done(outcomes, Some(id)));
        }
        let mut batch = self.build(head, changes, attempt.piece.clone()).await?;
        // Neither "nothing to do" nor a refusal is said about a state that may be history.
        let hollow = batch.commit.is_none() || batch.outcomes.iter().any(Result::is_err);
        if hollow && !fresh && attempt.belief == Belief::Any {
            attempt.belief = Belief::Interval;
            (head, _) = self.sync(attempt.belief).await?;
            batch = self.build(head, changes, attempt.piece.clone()).await?;
        }
        let Some(commit) = batch.commit else {
            return Ok(done(batch.outcomes, head));
        };
        let id = commit.id;
        match self.publish(head, commit).await {
            Ok(Published::Accepted) => {
                self.note_seen(Some(id));
                return Ok(done(batch.outcomes, Some(id)));
            }
            // A disk without room for all of it may have some for a part.
            Err(trouble @ (Trouble::Refused { .. } | Trouble::DiskFull(_))) => {
                let alters = batch
                    .outcomes
                    .iter()
                    .map(|outcome| outcome.as_ref().is_ok_and(|outcome| outcome.changed))
                    .collect();
                return Ok(Tried::Refused { trouble, alters });
            }
            Err(trouble) => return Err(trouble),
            Ok(Published::Moved) => tracing::debug!("the branch has moved, building on its new head"),
            Ok(Published::Unsettled(trouble)) => {
                tracing::debug!(%trouble, "the push is tried again");
                attempt.unsettled += 1;
                if attempt.unsettled >= UNSETTLED_MAX {
                    return Err(trouble);
                }
            }
        }
        attempt.rebases += 1;
        attempt.pushed = Some((id, batch.outcomes));
        attempt.belief = Belief::None;
        Ok(Tried::Again)
    }

    /// Returns the head of the branch and whether it was looked up just now.
    async fn sync(&mut self, belief: Belief) -> Result<(Option<ObjectId>, bool), Trouble> {
        if !self.uses_remote().await? {
            let Address::Local(local) = &self.address else { unreachable!("only local repositories do without") };
            let (local, create) = (local.clone(), self.config.create_branch);
            let head = blocking(move || local.head(create)).await?;
            self.note_seen(head);
            return Ok((head, true));
        }
        self.quiet.keep()?;
        if self.remote.drop_lost_cache() {
            self.seen = None;
        }
        if let Some((at, head)) = self.seen {
            let believed = match belief {
                Belief::Any => true,
                Belief::Interval => at.elapsed() < self.config.fetch_interval,
                Belief::None => false,
            };
            if believed {
                return Ok((head, false));
            }
        }
        let head = self.remote.fetch().await?;
        self.note_seen(head);
        Ok((head, true))
    }

    fn note_seen(&mut self, head: Option<ObjectId>) {
        if head.is_none() && self.was_filled {
            tracing::warn!(store = %self.place.store, "the branch is gone, and with it all that was written");
            self.losses += 1;
        }
        self.was_filled = head.is_some();
        self.seen = Some((Instant::now(), head));
    }

    /// Returns how often what was written has been found to be gone as a whole.
    pub(crate) fn losses(&self) -> u64 {
        self.losses
    }

    /// A local repository whose hooks want to be asked is written as a remote one: through `git push`.
    async fn uses_remote(&mut self) -> Result<bool, Trouble> {
        let Address::Local(local) = &self.address else { return Ok(true) };
        let local = local.clone();
        blocking(move || local.has_hooks()).await
    }

    async fn build(
        &mut self,
        head: Option<ObjectId>,
        changes: &Arc<[Checked]>,
        piece: Vec<usize>,
    ) -> Result<batch::Batch, Trouble> {
        let odb = self.objects().await?;
        let (changes, committer, root) = (changes.clone(), self.committer.clone(), self.root.clone());
        let mut ledgers = self.ledgers.take();
        let (batch, ledgers) = blocking(move || {
            let piece: Vec<&Checked> = piece.into_iter().map(|at| &changes[at]).collect();
            let batch = batch::build(&odb.to_thread_local(), head, &root, &piece, &committer, &mut ledgers)?;
            Ok((batch, ledgers))
        })
        .await?;
        self.ledgers = ledgers;
        Ok(batch)
    }

    async fn publish(&mut self, head: Option<ObjectId>, commit: batch::Commit) -> Result<Published, Trouble> {
        self.pushes += 1;
        if !self.uses_remote().await?
            && let Address::Local(local) = &self.address
        {
            let local = local.clone();
            return blocking(move || local.publish(head, commit)).await;
        }
        self.remote.publish(head, commit).await
    }

    async fn objects(&mut self) -> Result<gix::ThreadSafeRepository, Trouble> {
        if !self.uses_remote().await?
            && let Address::Local(local) = &self.address
        {
            let local = local.clone();
            return blocking(move || local.open()).await;
        }
        self.remote.open().await
    }

    pub(crate) async fn read(&mut self, path: &Path) -> Result<Option<Bytes>, Error> {
        let path = self.root.join(path);
        self.look(move |repository, tree| tree::read(repository, tree, &path)).await
    }

    pub(crate) async fn list(&mut self, prefix: &Path) -> Result<Vec<String>, Error> {
        let (root, prefix) = (self.root.clone(), self.root.join(prefix));
        self.look(move |repository, tree| tree::list(repository, tree, &root, &prefix)).await
    }

    pub(crate) async fn tree(&mut self, prefix: &Path) -> Result<Option<Tree>, Error> {
        let prefix = self.root.join(prefix);
        let find = move |repository: &gix::Repository, tree| tree::find_directory(repository, tree, &prefix);
        Ok(self.look(find).await?.map(|id| Tree(id.to_string())))
    }

    pub(crate) async fn verify(&mut self, imprints: Vec<Imprint>) -> Result<Vec<bool>, Error> {
        let mut verified = self.verified.take();
        let verify = move |repository: &gix::Repository, tree| {
            let held = verified.verify(repository, tree, &imprints)?;
            Ok((held, verified))
        };
        let (held, verified) = self.look(verify).await?;
        self.verified = verified;
        Ok(held)
    }

    /// Runs `look` on the present tree of the branch.
    async fn look<T: Send + 'static>(
        &mut self,
        look: impl FnOnce(&gix::Repository, Option<ObjectId>) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Error> {
        let result = async {
            let (head, _) = self.sync(Belief::Interval).await?;
            let odb = self.objects().await?;
            blocking(move || {
                let repository = odb.to_thread_local();
                let tree = head.map(|head| tree::of_commit(&repository, head)).transpose()?;
                look(&repository, tree)
            })
            .await
        };
        let result = result.await;
        if matches!(result, Err(Trouble::Damaged(_))) {
            self.forget_cache().await;
        }
        result.map_err(|trouble| self.fail(trouble))
    }

    /// Does what keeps the next accesses cheap, once all who asked have their answers.
    pub(crate) async fn tidy(&mut self) {
        self.remote.tidy().await;
    }

    pub(crate) async fn version(&mut self) -> Result<Option<Version>, Error> {
        match self.sync(Belief::Interval).await {
            Ok((head, _)) => Ok(head.map(version)),
            Err(trouble) => Err(self.fail(trouble)),
        }
    }

    pub(crate) async fn check(&mut self) -> Result<(), Error> {
        let result = async {
            let (head, _) = self.sync(Belief::None).await?;
            if self.uses_remote().await? {
                return self.remote.check(head).await;
            }
            let Address::Local(local) = &self.address else { unreachable!("only local repositories do without") };
            let local = local.clone();
            blocking(move || local.check()).await
        };
        let result = result.await;
        result.map_err(|trouble| self.fail(trouble))
    }

    /// Names the store in an error, and forgets what was believed: an exchange that failed may still have had its effect.
    fn fail(&mut self, trouble: Trouble) -> Error {
        self.seen = None;
        self.quiet.heed(&trouble);
        Error { place: self.place.clone(), trouble }
    }
}

/// How old the known state of a remote may be.
#[derive(Clone, Copy, PartialEq)]
enum Belief {
    Any,
    Interval,
    None,
}

fn done(outcomes: Vec<Result<Outcome, WriteError>>, head: Option<ObjectId>) -> Tried {
    let written = |Outcome { changed, imprint }| Written { version: head.map(version), changed, imprint };
    Tried::Done(outcomes.into_iter().map(|outcome| outcome.map(written)).collect())
}

fn version(id: ObjectId) -> Version {
    Version(id.to_string())
}

/// Runs what waits for a disk where it holds up nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Trouble> + Send + 'static) -> Result<T, Trouble> {
    let span = tracing::Span::current();
    match tokio::task::spawn_blocking(move || span.in_scope(work)).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => Err(Trouble::Damaged("an internal check failed; see the log".to_owned())),
        Err(_) => Err(Trouble::Closed),
    }
}

/// Names the file in an error of the operating system.
fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Trouble + '_ {
    move |error| match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Trouble::DiskFull(path.display().to_string())
        }
        // What follows are numbers, and names of temporary files that are others each time.
        _ => match error.to_string().split_once(" (os error ") {
            Some((reason, _)) => Trouble::Io(format!("{}: {reason}", path.display())),
            None => Trouble::Io(format!("{}: {error}", path.display())),
        },
    }
}
