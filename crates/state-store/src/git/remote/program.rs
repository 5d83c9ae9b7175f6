//! What is left to the program git: it brings objects, and speaks with servers as this process does not.

use std::fs;

use gix::ObjectId;

use super::{Remote, TRACKED, answer, cache};
use crate::error::Trouble;
use crate::git::command::{Ended, Git, Limits};
use crate::git::{Published, authority, blocking, io, refs};

impl Remote {
    /// Brings the head of the branch, from where the server sends to and into a new cache if need be.
    pub(super) async fn fetch_wherever_it_is(&mut self) -> Result<Option<ObjectId>, Trouble> {
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
        Ok(answer::redirection(&ended.stderr).is_some_and(|target| self.follow_to(target)))
    }

    /// Brings the head of the branch.
    pub(super) async fn try_fetch(&mut self) -> Result<Option<ObjectId>, Trouble> {
        let git_dir = self.cache().await?.git_dir.clone();
        let (branch, address) = (self.config.branch.clone(), self.argument().to_owned());
        let refspec = format!("+refs/heads/{branch}:{TRACKED}");
        let arguments = ["fetch", "--depth=1", "--no-tags", "--quiet", "--no-write-fetch-head", &address, &refspec];
        let mut is_again = false;
        loop {
            let ended = self.run(&arguments).await?;
            if ended.success {
                return blocking(move || refs::read(&git_dir, TRACKED)).await;
            }
            if !ended.stderr.contains("couldn't find remote ref") {
                return Err(self.trouble(&ended));
            }
            // Either a repository without any branch, whose first one is ours to make, or a missing branch.
            let ended = self.run(&["ls-remote", "--heads", &address]).await?;
            if !ended.success {
                return Err(self.trouble(&ended));
            }
            let own = format!("\trefs/heads/{branch}");
            if ended.stdout.lines().any(|line| line.ends_with(&own)) && !is_again {
                // Somebody has made it in between.
                is_again = true;
                continue;
            }
            if ended.stdout.trim().is_empty() || self.config.create_branch {
                return Ok(None);
            }
            return Err(Trouble::BranchMissing(branch));
        }
    }

    /// Has git push what the cache holds.
    pub(super) async fn push(
        &mut self,
        head: Option<ObjectId>,
        id: ObjectId,
        options: &[&str],
    ) -> Result<Published, Trouble> {
        let (branch, address) = (&self.config.branch.clone(), self.argument().to_owned());
        let refspec = format!("{id}:refs/heads/{branch}");
        // Never forced in effect: the new commit is built on the expected head. Stated, it also guards a branch's creation.
        let lease =
            format!("--force-with-lease=refs/heads/{branch}:{}", head.map(|head| head.to_string()).unwrap_or_default());
        let mut arguments = vec!["push", "--porcelain", "--no-verify", "--recurse-submodules=no", &lease];
        arguments.extend_from_slice(options);
        arguments.extend_from_slice(&[&address, &refspec]);
        let ended = self.run(&arguments).await?;
        answer::push(&ended, branch).unwrap_or_else(|| Err(self.trouble(&ended)))
    }

    /// Runs git with credentials; once more with newer ones if those were refused and there can be newer ones.
    async fn run(&mut self, arguments: &[&str]) -> Result<Ended, Trouble> {
        let mut result = self.git().await?.run(arguments).await;
        let is_refused = |ended: &Ended| !ended.success && matches!(self.trouble(ended), Trouble::Unauthorized);
        if result.as_ref().is_ok_and(is_refused) && self.credentials.drop_refused() {
            result = self.git().await?.run(arguments).await;
        }
        if !result.as_ref().is_ok_and(|ended| ended.success) {
            self.sweep().await;
        }
        result
    }

    /// Frees what a git that failed has left in the cache: after a full disk it would stay full.
    async fn sweep(&self) {
        let Some(cache) = &self.cache else { return };
        let git_dir = cache.git_dir.clone();
        let swept = blocking(move || {
            cache::remove_leftovers(&git_dir);
            Ok(())
        });
        // It has nothing to say.
        let _ = swept.await;
    }

    async fn git(&mut self) -> Result<Git, Trouble> {
        let mut git = self.git_without_credentials().await?;
        if let (Some(identity), Some(cache)) = (&self.identity, &self.cache) {
            git.use_ssh(identity.lay_out(&cache.base)?);
        }
        if let Some(basic) = self.credentials.get().await? {
            git.set("http.extraHeader", format!("Authorization: {}", basic.text()));
        }
        Ok(git)
    }

    pub(super) async fn git_without_credentials(&mut self) -> Result<Git, Trouble> {
        let cache = self.cache().await?;
        let (git_dir, home) = (cache.git_dir.clone(), cache.home.clone());
        let limits = Limits { deadline: self.config.deadline, grace: self.config.grace };
        let mut git = Git::new(git_dir, home.clone(), limits);
        if self.argument().starts_with("http") {
            git.keep_headers();
        }
        git.trace(self.config.trace);
        if self.config.tls.insecure {
            git.set("http.sslVerify", "false");
        } else if let Some(pem) = authority::pem(&self.config.tls, self.url.host())? {
            let path = home.join("ca.pem");
            fs::write(&path, pem).map_err(io(&path))?;
            git.set("http.sslCAInfo", path.display().to_string());
        }
        Ok(git)
    }

    /// Finds out what git's failure means; nothing secret is in the result.
    fn trouble(&self, ended: &Ended) -> Trouble {
        match answer::trouble(&self.redacted(&ended.stderr), &self.url).with_retry_after(ended.retry_after) {
            Trouble::Untrusted(reason) => Trouble::Untrusted(self.distrust.clone().unwrap_or(reason)),
            trouble => trouble,
        }
    }
}
