//! One run of one container: image, environment, mounts, start, output, end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::mpsc;

use super::{Ended, run};
use crate::environment;
use crate::event::Event;
use crate::ids;
use crate::image;
use crate::log::{self, Run};
use crate::node::Context;
use crate::runtime::{self, Prepared, User};
use crate::sandbox::Mount;
use crate::volume::Volumes;

/// A termination message is cut to this size.
const MESSAGE_BYTES_MAX: usize = 4096;
const TERMINATION_LOG: &str = "termination-log";
/// Directory of all scratch directories of a pod.
pub(crate) const SCRATCH: &str = "containers";
/// What of the log stands in for a message that was not written.
const FALLBACK_LINES: u64 = 80;
const FALLBACK_BYTES: usize = 2048;
/// This executable as seen from the process that becomes a container's program: the very file that is running, also after it
/// was replaced or deleted by an upgrade.
const OWN_PATH: &str = "/proc/self/exe";
/// How long the output may outlast the last process; only descriptors passed out of the container could keep it open.
const DRAIN: Duration = Duration::from_secs(5);

/// What a run reports.
#[derive(Debug)]
pub(crate) enum Progress {
    /// It cannot begin now; try again later.
    Blocked {
        container: String,
        reason: &'static str,
        message: String,
    },
    Started {
        container: String,
        image_id: String,
        container_id: String,
        at: Timestamp,
    },
    Ended {
        container: String,
        ended: Ended,
        /// It was told to end before it did, so its exit code says nothing about its work.
        interrupted: bool,
    },
}

/// What came of starting a container.
enum Start {
    Running(runtime::Running),
    Failed(runtime::StartError),
    Interrupted,
}

/// Returns where one run of a container keeps what it needs only while it lasts.
pub(crate) fn scratch(pod_directory: &Path, container: &str, run: u32) -> PathBuf {
    pod_directory.join(SCRATCH).join(container).join(run.to_string())
}

/// Returns what a container has left as its last words.
pub(crate) fn termination_message(scratch: &Path) -> Option<String> {
    use std::io::Read;
    let mut text = Vec::new();
    let file = std::fs::File::open(scratch.join(TERMINATION_LOG)).ok()?;
    file.take(MESSAGE_BYTES_MAX as u64).read_to_end(&mut text).ok()?;
    (!text.is_empty()).then(|| String::from_utf8_lossy(&text).into_owned())
}

/// Everything a run needs.
pub(crate) struct Launch {
    pub(crate) cx: Arc<Context>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) container: Container,
    pub(crate) is_init: bool,
    pub(crate) volumes: Volumes,
    /// Number of this run.
    pub(crate) run: u32,
    pub(crate) report: mpsc::Sender<Progress>,
    /// Signals for the program. The end of this channel kills it.
    pub(crate) signals: mpsc::Receiver<i32>,
    /// It was tried before and met an obstacle that has been told.
    pub(crate) again: bool,
}

/// Why a run cannot begin.
struct Obstacle {
    reason: &'static str,
    message: String,
    /// What to say in events: `(reason, message)`.
    event: Option<(&'static str, String)>,
}

impl Obstacle {
    fn config(message: impl Into<String>) -> Self {
        let message = message.into();
        let event = Some(("Failed", format!("Error: {message}")));
        Self { reason: "CreateContainerConfigError", message, event }
    }
}

impl Launch {
    /// Runs the container to its end and reports on the way.
    pub(crate) async fn run(mut self) {
        let name = self.container.name.clone();
        let scratch = self.scratch();
        let container = match self.prepare(&scratch).await {
            Ok(container) => self.execute(container, &scratch).await,
            Err(obstacle) => Err(obstacle),
        };
        let (ended, interrupted) = match container {
            Ok(ended) => ended,
            Err(obstacle) => {
                if let Some((reason, text)) = obstacle.event
                    && !self.again
                {
                    self.event(Event::warning(reason, text));
                }
                let blocked = Progress::Blocked { container: name, reason: obstacle.reason, message: obstacle.message };
                let _ = self.report.send(blocked).await;
                return;
            }
        };
        // A read-only image layer below, nothing of value above.
        let _ = tokio::task::spawn_blocking(move || crate::image::remove_tree(&scratch)).await;
        let _ = self.report.send(Progress::Ended { container: name, ended, interrupted }).await;
    }

    fn run_file(&self) -> PathBuf {
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        run::file(&self.cx.pod_directory(uid).join(run::DIRECTORY), &self.container.name, self.run)
    }

    fn scratch(&self) -> PathBuf {
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        scratch(&self.cx.pod_directory(uid), &self.container.name, self.run)
    }

    fn event(&self, event: Event) {
        let kind = if self.is_init { "spec.initContainers" } else { "spec.containers" };
        self.cx.recorder.record(self.pod.as_ref(), Some(format!("{kind}{{{}}}", self.container.name)), event);
    }

    /// Decides everything about the container before anything is started.
    async fn prepare(&self, scratch: &Path) -> Result<runtime::Container, Obstacle> {
        let (image, own) = self.image().await?;
        let (user, groups) = self.identity(&image)?;
        let variables =
            environment::resolve(&self.cx.objects, &self.pod, &self.container, &self.cx.place, &self.cx.service).await;
        let variables = variables.map_err(Obstacle::config)?;
        let mut mounts =
            self.volumes.mounts(&self.container, &variables).map_err(|error| Obstacle::config(error.to_string()))?;
        let (program, argv) = self.program(&image, own, &variables)?;
        mounts.push(self.termination_log(scratch)?);
        let hostname = self.hostname();
        let env = environment::complete(variables, &image.config, &image.home, &hostname);
        let directory = self.container.working_dir.clone().filter(|directory| !directory.is_empty());
        let cwd = directory.unwrap_or_else(|| image.config.working_dir.clone());
        let security = self.container.security_context.as_ref();
        Ok(runtime::Container {
            hostname,
            program,
            argv,
            env,
            cwd: if cwd.is_empty() { "/".into() } else { cwd.into() },
            user,
            groups,
            mounts,
            read_only_root: security.and_then(|security| security.read_only_root_filesystem).unwrap_or(false),
            scratch: scratch.to_owned(),
            image,
            run_file: Some(self.run_file()),
        })
    }

    /// Finds the image; the second part is set if the image stands for this executable.
    async fn image(&self) -> Result<(Prepared, Option<&crate::node::OwnBinary>), Obstacle> {
        let name = self.container.image.as_deref().unwrap_or_default();
        let prepared = match name.parse::<image::Name>() {
            Ok(parsed) => match self.cx.own.iter().find(|own| own.image == parsed) {
                Some(own) => return Ok((self.cx.host.clone(), Some(own))),
                None => self.cx.runtime.prepare(name).await,
            },
            Err(error) => Err(error.into()),
        };
        let error = match prepared {
            Ok(image) => {
                let present = format!("Container image {name:?} already present on machine");
                self.event(Event::routine("Pulled", present));
                return Ok((image, None));
            }
            Err(error) => error,
        };
        let never = self.container.image_pull_policy.as_deref() == Some("Never");
        Err(match error {
            image::Error::Name(error) => {
                let message = format!("Failed to apply default image tag {name:?}: {error}");
                Obstacle { reason: "InvalidImageName", event: Some(("InspectFailed", message.clone())), message }
            }
            image::Error::Unknown { .. } if never => {
                let message = format!("Container image {name:?} is not present with pull policy of Never");
                Obstacle { reason: "ErrImageNeverPull", event: Some(("ErrImageNeverPull", message.clone())), message }
            }
            error => {
                let hint = &self.cx.image_hint;
                let text = format!("Failed to pull image {name:?}: {error}; {hint}");
                let message = format!("Back-off pulling image {name:?}: {error}; {hint}");
                Obstacle { reason: "ImagePullBackOff", event: Some(("Failed", text)), message }
            }
        })
    }

    /// Decides the user, its group and further groups.
    fn identity(&self, image: &Prepared) -> Result<(User, Vec<u32>), Obstacle> {
        let pod = self.pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
        let own = self.container.security_context.as_ref();
        if own.and_then(|own| own.privileged).unwrap_or(false) {
            return Err(Obstacle::config("privileged containers are refused by this node"));
        }
        let id = |value: i64| {
            let fits = u32::try_from(value).ok().filter(|id| *id < 65_536);
            fits.ok_or_else(|| {
                Obstacle::config(format!(
                    "user or group id {value} is outside of 0 to 65535, which containers have here"
                ))
            })
        };
        let run_as = own.and_then(|own| own.run_as_user).or(pod.and_then(|pod| pod.run_as_user));
        let uid = run_as.map(id).transpose()?.unwrap_or(image.user.uid);
        let group = own.and_then(|own| own.run_as_group).or(pod.and_then(|pod| pod.run_as_group));
        let gid = group.map(id).transpose()?.unwrap_or(image.user.gid);
        let non_root = own.and_then(|own| own.run_as_non_root).or(pod.and_then(|pod| pod.run_as_non_root));
        if non_root.unwrap_or(false) && uid == 0 {
            let (name, pod) = (&self.container.name, self.pod.metadata.name.as_deref().unwrap_or_default());
            let text = match run_as {
                Some(_) => "container's runAsUser breaks non-root policy",
                None => "container has runAsNonRoot and image will run as root",
            };
            return Err(Obstacle::config(format!("{text} (pod: {pod:?}, container: {name})")));
        }
        let mut groups = Vec::new();
        for group in pod
            .into_iter()
            .flat_map(|pod| pod.fs_group.into_iter().chain(pod.supplemental_groups.iter().flatten().copied()))
        {
            groups.push(id(group)?);
        }
        Ok((User { uid, gid }, groups))
    }

    /// Decides what to execute and with which arguments.
    fn program(
        &self,
        image: &Prepared,
        own: Option<&crate::node::OwnBinary>,
        variables: &BTreeMap<String, String>,
    ) -> Result<(String, Vec<String>), Obstacle> {
        let Some(own) = own else {
            let argv = environment::arguments(&self.container, &image.config, variables)
                .ok_or_else(|| Obstacle::config("no command specified"))?;
            return Ok((argv[0].clone(), argv));
        };
        // The command names the program that the image would have; it is this one.
        let rest = environment::arguments(&self.container, &image::Config::default(), variables).unwrap_or_default();
        let skip = usize::from(self.container.command.as_ref().is_some_and(|command| !command.is_empty()));
        let argv = own.entrypoint.iter().cloned().chain(rest.into_iter().skip(skip)).collect();
        Ok((OWN_PATH.into(), argv))
    }

    fn hostname(&self) -> String {
        let spec = self.pod.spec.as_ref();
        let name = spec.and_then(|spec| spec.hostname.clone()).or_else(|| self.pod.metadata.name.clone());
        // The kernel takes 64 bytes; a kubelet cuts at 63 and leaves no dash at the end.
        name.unwrap_or_default().chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
    }

    /// Makes the file that the container may leave its last words in.
    fn termination_log(&self, scratch: &Path) -> Result<Mount, Obstacle> {
        use std::os::unix::fs::PermissionsExt;
        let source = scratch.join(TERMINATION_LOG);
        let make = || {
            std::fs::create_dir_all(scratch)?;
            std::fs::write(&source, "")?;
            std::fs::set_permissions(&source, std::fs::Permissions::from_mode(0o666))?;
            match ids::container_root(ids::map()) {
                Some((uid, gid)) => std::os::unix::fs::chown(&source, Some(uid), Some(gid)),
                None => Ok(()),
            }
        };
        make().map_err(|error: std::io::Error| Obstacle::config(format!("prepare the termination log: {error}")))?;
        let target = self.container.termination_message_path.clone().filter(|path| !path.is_empty());
        let target = target.unwrap_or_else(|| "/dev/termination-log".into()).into();
        Ok(Mount { source, sub_path: None, target, read_only: false })
    }

    /// Starts the program; a signal meanwhile ends the attempt, as there is nothing yet to pass it on to.
    async fn start(&mut self, container: runtime::Container) -> Result<Start, Obstacle> {
        // Executing many programs at once makes each of them slow; in turn they are quick.
        let _turn = tokio::select! {
            turn = self.cx.starts.acquire() => turn,
            _ = self.signals.recv() => return Ok(Start::Interrupted),
        };
        // From here on the run counts, whatever becomes of this process.
        run::begin(&self.run_file()).map_err(|error| {
            let message = format!("note that the container begins: {error}");
            let event = Some(("Failed", format!("Error: {message}")));
            Obstacle { reason: "CreateContainerError", message, event }
        })?;
        tokio::select! {
            started = self.cx.runtime.start(container) => Ok(started.map_or_else(Start::Failed, Start::Running)),
            _ = self.signals.recv() => Ok(Start::Interrupted),
        }
    }

    fn never_ran(&self, code: i32, message: String) -> Ended {
        let now = Timestamp::now();
        Ended {
            code,
            signal: None,
            reason: "ContainerCannotRun".into(),
            message: Some(message),
            started_at: Some(now),
            finished_at: now,
            container_id: Some(self.container_id()),
        }
    }

    async fn execute(&mut self, container: runtime::Container, scratch: &Path) -> Result<(Ended, bool), Obstacle> {
        let name = self.container.name.clone();
        let container_id = self.container_id();
        let image_id = container.image.id.clone();
        self.event(Event::routine("Created", format!("Created container: {name}")));
        let mut running = match self.start(container).await? {
            Start::Running(running) => running,
            Start::Interrupted => {
                return Ok((self.never_ran(137, "it was told to end before it had started".into()), true));
            }
            Start::Failed(error) => {
                let message = error.to_string();
                self.event(Event::warning("Failed", format!("Error: {message}")));
                return Ok((self.never_ran(error.code, message), false));
            }
        };
        let started_at = Timestamp::now();
        self.event(Event::routine("Started", format!("Started container {name}")));
        let started =
            Progress::Started { container: name.clone(), image_id, container_id: container_id.clone(), at: started_at };
        let _ = self.report.send(started).await;

        let uid = self.pod.metadata.uid.clone().unwrap_or_default();
        let run = Run { pod_uid: uid, container: name, run: self.run };
        let logs = self.cx.logs.clone();
        let mut recording = std::pin::pin!(logs.record(run.clone(), running.stdout, running.stderr));
        let (mut recorded, mut released) = (false, false);
        let exit = loop {
            tokio::select! {
                exit = running.process.wait() => break exit,
                signal = self.signals.recv(), if !released => {
                    released = signal.is_none();
                    running.process.signal(signal.unwrap_or(libc::SIGKILL)).await;
                }
                outcome = &mut recording, if !recorded => {
                    recorded = true;
                    if let Err(error) = outcome {
                        tracing::warn!(container = %run.container, error = %error, "a container's log is incomplete");
                    }
                }
            }
        };
        if !recorded && tokio::time::timeout(DRAIN, recording).await.is_err() {
            tracing::warn!(container = %run.container, "a container's output stayed open after its end");
        }
        let ended = Ended {
            message: self.last_words(scratch, &run, exit.code),
            started_at: Some(started_at),
            container_id: Some(container_id),
            ..Ended::of(exit.code, exit.signal, Timestamp::now())
        };
        Ok((ended, exit.asked))
    }

    fn container_id(&self) -> String {
        use sha2::Digest;
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        let hash = sha2::Sha256::digest(format!("{uid}/{}/{}", self.container.name, self.run));
        let text: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}://{text}", self.cx.runtime.name())
    }

    /// Returns the termination message: what the container wrote, or the end of its log if it failed and policy says so.
    fn last_words(&self, scratch: &Path, run: &Run, code: i32) -> Option<String> {
        let mut text = termination_message(scratch).unwrap_or_default();
        let fallback = self.container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        if text.is_empty() && fallback && code != 0 {
            text = log::tail(&self.cx.logs, run, FALLBACK_LINES, FALLBACK_BYTES);
        }
        (!text.is_empty()).then_some(text)
    }
}
