//! A repository on another machine (or one with hooks on this), reached from a bare cache: over HTTP in this process, except
//! for objects to be brought, and else by the [`program`] git.
//!
//! The cache holds the newest commit of the branch without history, so that trees can be edited in it. It belongs to one
//! process at a time, holds no credentials, and is made again if it is damaged.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use gix::ObjectId;
use gix::objs::Kind;

use super::message::Committer;
use super::{Published, batch, blocking, io, local, pack, refs, ssh, tree};
use crate::config::{Auth, GitConfig};
use crate::error::Trouble;

mod answer;
mod cache;
mod credentials;
mod http;
mod program;
mod retry_after;
mod url;

use self::cache::Cache;
pub(super) use self::retry_after::retry_after;
pub(super) use self::url::Url;

use self::credentials::Credentials;
use self::http::{Advertisement, Fault, Http, Push, Service, Unable};

/// The remote's branch, as the cache knows it.
const TRACKED: &str = "refs/remotes/origin/head";
/// So many packs, and the small ones are put together.
const PACKS_MAX: usize = 40;
/// So many times something was added, and history that only the cache still has is dropped.
const GROWTHS_MAX: u32 = 2_000;

/// The remote end of a store.
pub(super) struct Remote {
    url: Url,
    /// Where its server sends those who ask at `url`, once that is known: another path of the same server.
    moved_to: Option<Url>,
    config: Arc<GitConfig>,
    committer: Arc<Committer>,
    credentials: Credentials,
    identity: Option<ssh::Identity>,
    /// What is spoken with the server in this process, unless all is left to git.
    http: Option<Http>,
    /// What was wrong with the server's certificate when it was last looked at in this process. Git's TLS libraries say the
    /// same of one that has expired, one of another host and one of an unknown authority, and name files of this machine.
    distrust: Option<String>,
    directory: PathBuf,
    cache: Option<Cache>,
    /// The head that was fetched or pushed last.
    tracked: Option<ObjectId>,
    /// How often something was added to the cache.
    growths: u32,
    /// It has since it was last tidied.
    has_grown: bool,
}

impl Remote {
    pub(super) fn new(
        url: Url,
        config: Arc<GitConfig>,
        committer: Arc<Committer>,
        directory: PathBuf,
    ) -> Result<Self, Trouble> {
        let credentials = Credentials::new(&config, &url)?;
        let identity = match &config.auth {
            Auth::Ssh { private_key, known_hosts } => Some(ssh::Identity::new(private_key, known_hosts)?),
            _ => None,
        };
        url.check_method(identity.is_some())?;
        let http = url.is_http().then(|| Http::new(&config, url.host()));
        Ok(Self {
            url,
            moved_to: None,
            config,
            committer,
            credentials,
            identity,
            http,
            distrust: None,
            directory,
            cache: None,
            tracked: None,
            growths: 0,
            has_grown: false,
        })
    }

    /// Brings the cache to the remote's present state and returns the head of the branch.
    pub(super) async fn fetch(&mut self) -> Result<Option<ObjectId>, Trouble> {
        // Without a cache nothing that is found out is of use.
        self.cache().await?;
        let head = match self.look(Service::UploadPack).await {
            Ok(seen) => self.bring(seen).await?,
            Err(Fault::Unable(why)) => {
                self.leave_to_git(why);
                let head = self.fetch_wherever_it_is().await?;
                self.believe_git();
                head
            }
            Err(fault) => return Err(self.meaning(fault)),
        };
        // A branch that only others push to fills the cache as well.
        if head.is_some() && head != self.tracked {
            self.tracked = head;
            self.has_grown = true;
        }
        Ok(head)
    }

    /// Asks the server for its branches, without git.
    async fn look(&mut self, service: Service) -> Result<Advertisement, Fault> {
        loop {
            let (address, basic) = (self.argument().to_owned(), self.credentials.get().await?);
            let http = self.http.as_mut().ok_or(Fault::Unable(Unable::Address))?;
            match http.look(&address, basic.as_ref(), service).await {
                Err(fault) => self.recover(fault)?,
                seen => {
                    self.distrust = None;
                    return seen;
                }
            }
        }
    }

    /// Pushes without git.
    async fn send(&mut self, push: &Push) -> Result<Published, Fault> {
        loop {
            let (address, basic) = (self.argument().to_owned(), self.credentials.get().await?);
            let http = self.http.as_mut().ok_or(Fault::Unable(Unable::Address))?;
            match http.push(&address, basic.as_ref(), push).await {
                Err(fault) => self.recover(fault)?,
                published => return published,
            }
        }
    }

    /// Prepares for another attempt, with other credentials or at another address.
    ///
    /// # Errors
    /// The fault, if there is nothing else to try.
    fn recover(&mut self, fault: Fault) -> Result<(), Fault> {
        match &fault {
            Fault::Trouble(Trouble::Unauthorized) if self.credentials.drop_refused() => return Ok(()),
            Fault::Redirected(Some(location)) if self.moved_to.is_none() => {
                let target = answer::repository(location).map(str::to_owned);
                if target.is_some_and(|target| self.follow_to(&target)) {
                    return Ok(());
                }
            }
            // Perhaps it has moved back, or on: the next exchange is with the first address.
            _ => self.moved_to = None,
        }
        Err(fault)
    }

    /// Notes that git has to do what could not be done here.
    fn leave_to_git(&mut self, why: Unable) {
        if self.http.is_some() {
            tracing::debug!(store = %self.config.name, ?why, "the exchange is left to git");
        }
        if let Unable::Certificate(reason) = why {
            self.distrust = Some(reason);
        }
    }

    /// Leaves all further exchanges to git too, if it trusts a server that is not trusted here.
    fn believe_git(&mut self) {
        if let Some(reason) = self.distrust.take() {
            tracing::info!(store = %self.config.name, reason, "git trusts the server's certificate");
            self.http = None;
        }
    }

    fn meaning(&self, fault: Fault) -> Trouble {
        match fault {
            Fault::Trouble(trouble) => trouble,
            Fault::Redirected(_) => Trouble::Redirected,
            Fault::Refusal(said) => answer::trouble(&self.redacted(&format!("fatal: remote error: {said}")), &self.url),
            Fault::Unable(why) => Trouble::Git(format!("left to git: {why:?}")),
        }
    }

    /// Brings the head of the branch, if it is not here.
    async fn bring(&mut self, seen: Advertisement) -> Result<Option<ObjectId>, Trouble> {
        match seen.head {
            Some(head) if self.holds(head).await? => Ok(Some(head)),
            Some(_) => self.fetch_wherever_it_is().await,
            // Either a repository without any branch, whose first one is ours to make, or a missing branch.
            None if seen.has_branches && !self.config.create_branch => {
                Err(Trouble::BranchMissing(self.config.branch.clone()))
            }
            None => Ok(None),
        }
    }

    /// Tells whether the cache is as new as this.
    async fn holds(&mut self, head: ObjectId) -> Result<bool, Trouble> {
        let git_dir = self.cache().await?.git_dir.clone();
        blocking(move || {
            // Whatever is wrong with the cache, git sees it too.
            let is_noted = refs::read(&git_dir, TRACKED).is_ok_and(|noted| noted == Some(head));
            Ok(is_noted && local::open(&git_dir).is_ok_and(|cache| cache.to_thread_local().has_object(head)))
        })
        .await
    }

    fn follow_to(&mut self, target: &str) -> bool {
        let target = self.url.elsewhere_on_this_server(target);
        let Some(target) = target.filter(|target| target.argument() != self.argument()) else { return false };
        tracing::debug!(store = %self.config.name, url = target.shown(), "the server sends to another path");
        self.moved_to = Some(target);
        true
    }

    /// Returns the address for git.
    fn argument(&self) -> &str {
        self.moved_to.as_ref().unwrap_or(&self.url).argument()
    }

    /// Returns the cache's objects.
    pub(super) async fn open(&mut self) -> Result<gix::ThreadSafeRepository, Trouble> {
        let git_dir = self.cache().await?.git_dir.clone();
        blocking(move || local::open(&git_dir)).await
    }

    /// Pushes a commit that was built on `head`.
    pub(super) async fn publish(
        &mut self,
        head: Option<ObjectId>,
        commit: batch::Commit,
    ) -> Result<Published, Trouble> {
        let id = commit.id;
        let pack = self.store(commit.objects).await?;
        let published = match self.send(&Push { head, id, pack }).await {
            Err(Fault::Unable(why)) => {
                self.leave_to_git(why);
                self.push(head, id, &[]).await
            }
            published => published.map_err(|fault| self.meaning(fault)),
        };
        // Whatever becomes of the cache from here on: the remote has answered. What it refused has left objects there too.
        if matches!(published, Ok(Published::Accepted)) {
            self.tracked = Some(id);
            if let Err(trouble) = self.note(id).await {
                tracing::debug!(%trouble, "the cache does not know the new head");
            }
        }
        self.has_grown = true;
        published
    }

    /// Asks the remote whether it would take a push, without making one.
    pub(super) async fn check(&mut self, head: Option<ObjectId>) -> Result<(), Trouble> {
        match self.look(Service::ReceivePack).await {
            Ok(_) => return Ok(()),
            Err(Fault::Unable(why)) => self.leave_to_git(why),
            Err(fault) => return Err(self.meaning(fault)),
        }
        let id = match head {
            Some(head) => head,
            None => {
                let tree = tree::hash(Kind::Tree, &[]);
                let data = Bytes::from(self.committer.commit(tree, None, &[])?);
                let id = tree::hash(Kind::Commit, &data);
                self.store(vec![(Kind::Tree, tree, Bytes::new()), (Kind::Commit, id, data)]).await?;
                id
            }
        };
        match self.push(head, id, &["--dry-run"]).await? {
            // Somebody pushed in between, which shows all the better that it can be done.
            Published::Accepted | Published::Moved => Ok(()),
            Published::Unsettled(trouble) => Err(trouble),
        }
    }

    /// Puts objects into the cache, and returns their pack.
    async fn store(&mut self, objects: Vec<(Kind, ObjectId, Bytes)>) -> Result<Bytes, Trouble> {
        let directory = self.cache().await?.git_dir.join("objects");
        blocking(move || pack::write(&directory, &objects, false)).await
    }

    /// Notes what the remote has accepted, so that the next fetch need not bring it.
    async fn note(&mut self, id: ObjectId) -> Result<(), Trouble> {
        let path = self.cache().await?.git_dir.join(TRACKED);
        blocking(move || {
            let parent = path.parent().expect("a ref lies in a directory");
            fs::create_dir_all(parent).map_err(io(parent))?;
            fs::write(&path, format!("{id}\n")).map_err(io(&path))
        })
        .await
    }

    /// Keeps the cache small, when nobody waits. Failing is harmless.
    pub(super) async fn tidy(&mut self) {
        if !std::mem::take(&mut self.has_grown) {
            return;
        }
        if let Err(trouble) = self.try_tidy().await {
            tracing::debug!(%trouble, "the cache stays as it is");
        }
    }

    async fn try_tidy(&mut self) -> Result<(), Trouble> {
        // Also after the first time: a store that is in trouble is opened anew each time.
        let looks = self.growths.is_multiple_of(16);
        self.growths += 1;
        let git_dir = self.cache().await?.git_dir.clone();
        let options = if self.growths >= GROWTHS_MAX {
            self.growths = 0;
            self.try_fetch().await?;
            ["-a", "-d"]
        } else if looks && local::count_packs(&git_dir) > PACKS_MAX {
            ["-d", "--geometric=2"]
        } else {
            return Ok(());
        };
        let git = self.git_without_credentials().await?;
        let _ = git.run(&["repack", options[0], options[1], "-q", "--no-write-bitmap-index"]).await;
        Ok(())
    }

    /// Gives up a cache that somebody has removed. Returns whether that was so: what was known of it is gone too.
    pub(super) fn drop_lost_cache(&mut self) -> bool {
        let is_lost = self.cache.as_ref().is_some_and(|cache| !cache.is_intact());
        if is_lost {
            tracing::warn!(store = %self.config.name, "the cache is gone and made again");
            self.cache = None;
        }
        is_lost
    }

    async fn cache(&mut self) -> Result<&Cache, Trouble> {
        if self.cache.is_none() {
            let (directory, name) = (self.directory.clone(), self.url.cache_name(&self.config.branch));
            self.cache = Some(blocking(move || Cache::open(&directory, &name)).await?);
        }
        Ok(self.cache.as_ref().expect("it was just opened"))
    }

    /// Throws the cache away; `false` if there is none.
    pub(super) async fn discard(&mut self) -> Result<bool, Trouble> {
        let Some(cache) = self.cache.take() else { return Ok(false) };
        self.cache = Some(blocking(move || cache.clear()).await?);
        Ok(true)
    }

    fn redacted(&self, text: &str) -> String {
        self.credentials.present().map_or_else(|| text.to_owned(), |basic| basic.redact(text))
    }
}
