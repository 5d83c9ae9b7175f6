//! A repository on this machine, written without the `git` program.

use std::fs;
use std::path::{Path, PathBuf};

use gix::ObjectId;

use super::refs::{self, Swap};
use super::{Published, batch, command, io, pack};
use crate::config::GitConfig;
use crate::error::Trouble;

/// Hooks that want to know of a push, or refuse it. With one of them, the repository is written through `git push`.
const HOOKS: [&str; 6] =
    ["pre-receive", "update", "post-receive", "post-update", "reference-transaction", "proc-receive"];
/// So many packs, and they are put together; git itself would at 50.
const PACKS_MAX: usize = 40;

/// Creates an empty bare repository whose first branch is `branch`, unless there is one already.
///
/// # Errors
/// [`Trouble::Io`] and [`Trouble::DiskFull`].
pub fn init_bare(path: impl AsRef<Path>, branch: &str) -> Result<(), Trouble> {
    let path = path.as_ref();
    if path.join("HEAD").exists() {
        return Ok(());
    }
    for directory in ["objects/info", "objects/pack", "refs/heads", "refs/tags"] {
        let directory = path.join(directory);
        fs::create_dir_all(&directory).map_err(io(&directory))?;
    }
    let config = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n";
    // HEAD comes last: with it, the directory is a repository.
    for (name, content) in [("config", config.to_owned()), ("HEAD", format!("ref: refs/heads/{branch}\n"))] {
        let file = path.join(name);
        fs::write(&file, content).and_then(|()| fs::File::open(&file)?.sync_all()).map_err(io(&file))?;
    }
    pack::sync_directory(path)
}

/// Opens the repository at exactly this path, without any configuration but its own.
pub(super) fn open(path: &Path) -> Result<gix::ThreadSafeRepository, Trouble> {
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Trouble::NotFound),
        Err(error) => return Err(io(path)(error)),
        Ok(_) => {}
    }
    let options = gix::open::Options::isolated().with(gix::sec::Trust::Full).bail_if_untrusted(false);
    let repository = options.open(path).map_err(|error| Trouble::NotARepository(error.to_string()))?;
    if repository.to_thread_local().object_hash() != gix::hash::Kind::Sha1 {
        return Err(Trouble::Config("only repositories with SHA-1 objects are supported".to_owned()));
    }
    Ok(repository)
}

/// A repository and the branch that is written.
#[derive(Clone)]
pub(super) struct Repository {
    path: PathBuf,
    branch: String,
}

impl Repository {
    pub(super) fn new(path: PathBuf, config: &GitConfig) -> Self {
        Self { path, branch: config.branch.clone() }
    }

    /// Opens anew each time, which costs less than a millisecond: the path may hold another repository by now.
    pub(super) fn open(&self) -> Result<gix::ThreadSafeRepository, Trouble> {
        open(&self.path)
    }

    fn git_dir(&self) -> Result<PathBuf, Trouble> {
        let dot_git = self.path.join(".git");
        if self.path.join("HEAD").is_file() && self.path.join("objects").is_dir() {
            return Ok(self.path.clone());
        }
        if dot_git.join("HEAD").is_file() {
            return Ok(dot_git);
        }
        Ok(self.open()?.to_thread_local().common_dir().to_owned())
    }

    pub(super) fn has_hooks(&self) -> Result<bool, Trouble> {
        let git_dir = self.git_dir()?;
        let hooks = git_dir.join("hooks");
        let executable = |name: &str| {
            let metadata = fs::metadata(hooks.join(name));
            metadata.is_ok_and(|metadata| std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0)
        };
        if HOOKS.iter().any(|name| executable(name)) {
            return Ok(true);
        }
        // Hooks may lie elsewhere.
        let config = fs::read_to_string(git_dir.join("config")).unwrap_or_default();
        Ok(config.to_ascii_lowercase().contains("hookspath"))
    }

    /// Returns the head of the branch, `None` if the first commit will create it.
    pub(super) fn head(&self, create_branch: bool) -> Result<Option<ObjectId>, Trouble> {
        let git_dir = self.git_dir()?;
        let head = refs::read(&git_dir, &format!("refs/heads/{}", self.branch))?;
        if head.is_none() && !create_branch && refs::any_branch(&git_dir)? {
            return Err(Trouble::BranchMissing(self.branch.clone()));
        }
        Ok(head)
    }

    /// Writes the objects, then moves the branch.
    pub(super) fn publish(&self, head: Option<ObjectId>, commit: batch::Commit) -> Result<Published, Trouble> {
        let git_dir = self.git_dir()?;
        self.refuse_checked_out(&git_dir)?;
        refs::wait_for_lock(&git_dir, &self.branch)?;
        pack::write(&git_dir.join("objects"), &commit.objects, true)?;
        match refs::swap(&git_dir, &self.branch, head, commit.id)? {
            Swap::Moved => Ok(Published::Moved),
            Swap::Done => {
                if count_packs(&git_dir) > PACKS_MAX {
                    command::repack_in_background(&git_dir);
                }
                Ok(Published::Accepted)
            }
        }
    }

    /// Moving the branch under a work tree would make its next commit undo everything; git refuses such pushes too.
    fn refuse_checked_out(&self, git_dir: &Path) -> Result<(), Trouble> {
        if git_dir.file_name().is_none_or(|name| name != ".git") {
            return Ok(());
        }
        let head = fs::read_to_string(git_dir.join("HEAD")).unwrap_or_default();
        if head.trim() == format!("ref: refs/heads/{}", self.branch) {
            return Err(Trouble::CheckedOut(self.branch.clone()));
        }
        Ok(())
    }

    /// Finds out whether the repository can be written.
    pub(super) fn check(&self) -> Result<(), Trouble> {
        self.open()?;
        let git_dir = self.git_dir()?;
        self.refuse_checked_out(&git_dir)?;
        for directory in ["objects", "refs"] {
            let directory = git_dir.join(directory);
            tempfile::Builder::new().prefix("tmp_check_").tempfile_in(&directory).map_err(io(&directory))?;
        }
        Ok(())
    }
}

pub(super) fn count_packs(git_dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(git_dir.join("objects/pack")) else { return 0 };
    entries.flatten().filter(|entry| entry.path().extension().is_some_and(|extension| extension == "pack")).count()
}
