//! A repository on another machine (or one with hooks on this), reached by `git fetch` and `git push` from a bare cache.
//!
//! The cache holds the newest commit of the branch without history, so that trees can be edited in it. It belongs to one
//! process at a time, holds no credentials, and is made again if it is damaged.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use bytes::Bytes;
use gix::ObjectId;
use gix::objs::Kind;

use super::command::{Ended, Git};
use super::{Published, batch, blocking, io, local, message, pack, refs, tree};
use crate::config::{Auth, GitConfig, Secret};
use crate::error::Trouble;

mod answer;
mod url;

pub(super) use self::url::Url;

/// The remote's branch, as the cache knows it.
const TRACKED: &str = "refs/remotes/origin/head";
/// So many packs, and the small ones are put together.
const PACKS_MAX: usize = 40;
/// So many pushes, and history that only the cache still has is dropped.
const PUSHES_MAX: u32 = 2_000;
/// So many processes may keep a cache of one branch in one directory.
const CACHES_MAX: usize = 16;

/// The remote end of a store.
pub(super) struct Remote {
    url: Url,
    /// Where its server sends those who ask at `url`, once that is known: another path of the same server.
    moved_to: Option<Url>,
    config: Arc<GitConfig>,
    directory: PathBuf,
    cache: Option<Cache>,
    pushes: u32,
}

struct Cache {
    git_dir: PathBuf,
    home: PathBuf,
    /// Held as long as the cache is used.
    _lock: Arc<File>,
}

impl Remote {
    pub(super) fn new(url: Url, config: Arc<GitConfig>, directory: PathBuf) -> Self {
        Self { url, moved_to: None, config, directory, cache: None, pushes: 0 }
    }

    /// Brings the cache to the remote's present state and returns the head of the branch.
    pub(super) async fn fetch(&mut self) -> Result<Option<ObjectId>, Trouble> {
        match self.try_fetch().await {
            Err(Trouble::Damaged(reason)) => {
                tracing::warn!(store = %self.config.name, reason, "the cache is damaged and made again");
                self.discard().await?;
                self.try_fetch().await
            }
            Err(Trouble::Redirected) if self.follow().await? => self.try_fetch().await,
            Err(error) if self.moved_to.take().is_some() => {
                // Perhaps it has moved back, or on: the next fetch asks at the first address.
                Err(error)
            }
            result => result,
        }
    }

    /// Finds out where the server sends to. Git itself would follow to any host, and take the credentials along; so it is
    /// asked without them and does not follow, and only another path of the same server counts.
    async fn follow(&mut self) -> Result<bool, Trouble> {
        let mut git = self.git_without_credentials().await?;
        git.trace_headers();
        let ended = git.run(&["ls-remote", "--heads", self.argument()]).await?;
        let target = answer::redirection(&ended.stderr).and_then(|target| self.url.elsewhere_on_this_server(target));
        let Some(target) = target.filter(|target| target.argument() != self.argument()) else { return Ok(false) };
        tracing::debug!(store = %self.config.name, url = target.shown(), "the server sends to another path");
        self.moved_to = Some(target);
        Ok(true)
    }

    /// Returns the address for git.
    fn argument(&self) -> &str {
        self.moved_to.as_ref().unwrap_or(&self.url).argument()
    }

    async fn try_fetch(&mut self) -> Result<Option<ObjectId>, Trouble> {
        let git = self.git().await?;
        let git_dir = self.cache().await?.git_dir.clone();
        let branch = &self.config.branch;
        let refspec = format!("+refs/heads/{branch}:{TRACKED}");
        let arguments =
            ["fetch", "--depth=1", "--no-tags", "--quiet", "--no-write-fetch-head", self.argument(), &refspec];
        let ended = git.run(&arguments).await?;
        if ended.success {
            return blocking(move || refs::read(&git_dir, TRACKED)).await;
        }
        if !ended.stderr.contains("couldn't find remote ref") {
            return Err(self.trouble(&ended));
        }
        // Either a repository without any branch, whose first one is ours to make, or a missing branch.
        let ended = git.run(&["ls-remote", "--heads", self.argument()]).await?;
        if !ended.success {
            return Err(self.trouble(&ended));
        }
        if ended.stdout.trim().is_empty() || self.config.create_branch {
            return Ok(None);
        }
        Err(Trouble::BranchMissing(branch.clone()))
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
        self.store(commit.objects).await?;
        let ended = self.push(head, id, &[]).await?;
        let published = answer::push(&ended, &self.config.branch).unwrap_or_else(|| Err(self.trouble(&ended)))?;
        if matches!(published, Published::Accepted) {
            self.note(id).await?;
            self.tidy().await?;
        }
        Ok(published)
    }

    /// Asks the remote whether it would take a push, without making one.
    pub(super) async fn check(&mut self, head: Option<ObjectId>) -> Result<(), Trouble> {
        let id = match head {
            Some(head) => head,
            None => {
                let tree = tree::hash(Kind::Tree, &[]);
                let data = Bytes::from(message::commit(tree, None, &self.config.author, &[]));
                let id = tree::hash(Kind::Commit, &data);
                self.store(vec![(Kind::Tree, tree, Bytes::new()), (Kind::Commit, id, data)]).await?;
                id
            }
        };
        let ended = self.push(head, id, &["--dry-run"]).await?;
        match answer::push(&ended, &self.config.branch).unwrap_or_else(|| Err(self.trouble(&ended)))? {
            // Somebody pushed in between, which shows all the better that it can be done.
            Published::Accepted | Published::Moved => Ok(()),
        }
    }

    async fn push(&mut self, head: Option<ObjectId>, id: ObjectId, options: &[&str]) -> Result<Ended, Trouble> {
        let branch = &self.config.branch;
        let refspec = format!("{id}:refs/heads/{branch}");
        // Never forced in effect: the new commit is built on the expected head. Stated, it also guards a branch's creation.
        let lease =
            format!("--force-with-lease=refs/heads/{branch}:{}", head.map(|head| head.to_string()).unwrap_or_default());
        let mut arguments = vec!["push", "--porcelain", "--no-verify", "--recurse-submodules=no", &lease];
        arguments.extend_from_slice(options);
        let git = self.git().await?;
        arguments.extend_from_slice(&[self.argument(), &refspec]);
        git.run(&arguments).await
    }

    async fn store(&mut self, objects: Vec<(Kind, ObjectId, Bytes)>) -> Result<(), Trouble> {
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

    /// Keeps the cache small. Failing is harmless.
    async fn tidy(&mut self) -> Result<(), Trouble> {
        self.pushes += 1;
        let git_dir = self.cache().await?.git_dir.clone();
        let git = self.git().await?;
        if self.pushes >= PUSHES_MAX {
            self.pushes = 0;
            self.fetch().await?;
            let _ = git.run(&["repack", "-a", "-d", "-q", "--no-write-bitmap-index"]).await;
        } else if self.pushes.is_multiple_of(16) && local::count_packs(&git_dir) > PACKS_MAX {
            let _ = git.run(&["repack", "-d", "-q", "--geometric=2", "--no-write-bitmap-index"]).await;
        }
        Ok(())
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
        blocking(move || fs::remove_dir_all(&cache.git_dir).map_err(io(&cache.git_dir))).await?;
        Ok(true)
    }

    async fn git(&mut self) -> Result<Git, Trouble> {
        let mut git = self.git_without_credentials().await?;
        if let Some((username, password)) = self.credentials() {
            let pair = format!("{username}:{}", password.expose());
            let header = base64::engine::general_purpose::STANDARD.encode(pair);
            git.set("http.extraHeader", format!("Authorization: Basic {header}"));
        }
        Ok(git)
    }

    async fn git_without_credentials(&mut self) -> Result<Git, Trouble> {
        let cache = self.cache().await?;
        let (git_dir, home) = (cache.git_dir.clone(), cache.home.clone());
        let mut git = Git::new(git_dir, home.clone(), self.config.deadline);
        if self.config.tls.insecure {
            git.set("http.sslVerify", "false");
        } else if let Some(pem) = &self.config.tls.ca_pem {
            let path = home.join("ca.pem");
            fs::write(&path, pem).map_err(io(&path))?;
            git.set("http.sslCAInfo", path.display().to_string());
        }
        Ok(git)
    }

    fn credentials(&self) -> Option<(&str, &Secret)> {
        match &self.config.auth {
            Auth::Basic { username, password } if !password.is_empty() => Some((username, password)),
            Auth::Basic { .. } => None,
            Auth::None => self.url.credentials(),
        }
    }

    /// Finds out what git's failure means; nothing secret is in the result.
    fn trouble(&self, ended: &Ended) -> Trouble {
        let mut stderr = ended.stderr.clone();
        if let Some((username, password)) = self.credentials() {
            let header = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{}", password.expose()));
            stderr = stderr.replace(password.expose(), "…").replace(&header, "…");
        }
        answer::trouble(&stderr, &self.url)
    }
}

impl Cache {
    /// Opens the first cache of that name that no other process uses.
    fn open(directory: &Path, name: &str) -> Result<Self, Trouble> {
        fs::create_dir_all(directory).map_err(io(directory))?;
        for number in 0..CACHES_MAX {
            let base = directory.join(format!("{name}-{number}"));
            let home = base.join("home");
            fs::create_dir_all(&home).map_err(io(&home))?;
            let path = base.join("lock");
            let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(io(&path))?;
            if lock.try_lock().is_err() {
                continue;
            }
            let git_dir = base.join("repository.git");
            remove_leftovers(&git_dir);
            local::init_bare(&git_dir, "main")?;
            return Ok(Self { git_dir, home, _lock: Arc::new(lock) });
        }
        Err(Trouble::Io(format!("{}: all {CACHES_MAX} caches are in use", directory.display())))
    }
}

/// Removes what a killed git leaves behind: locks that nobody holds, and halves of packs.
fn remove_leftovers(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if name.len() != 2 {
                remove_leftovers(&path);
            }
        } else if name.ends_with(".lock") || name.starts_with("tmp_") {
            let _ = fs::remove_file(path);
        }
    }
}
