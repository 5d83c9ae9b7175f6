//! Reading logs back: tail, since, previous, follow.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use bytes::Bytes;
use futures::stream::{self, Stream};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use super::{Logs, Progress, Run, older};

/// What of a log is wanted; the fields are those of `PodLogOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Container; may be left out if the pod has one.
    pub container: Option<String>,
    /// Go on until the container ends.
    pub follow: bool,
    /// The run before the current one.
    pub previous: bool,
    /// Only so many lines from the end.
    pub tail_lines: Option<u64>,
    /// Only lines of the last so many seconds.
    pub since_seconds: Option<u64>,
    /// Only lines since this time.
    pub since_time: Option<Timestamp>,
    /// Begin each line with its time.
    pub timestamps: bool,
    /// Stop after so many bytes.
    pub limit_bytes: Option<u64>,
}

/// Why there is no log. The texts are those of a kubelet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// No such pod on this node.
    #[error("pods {name:?} not found")]
    NoPod {
        /// Name of the pod.
        name: String,
    },
    /// The pod has several containers and none was named.
    #[error("a container name must be specified for pod {pod}, choose one of: [{containers}]{init}")]
    Unspecified {
        /// Name of the pod.
        pod: String,
        /// Its containers.
        containers: String,
        /// ` or one of the init containers: […]`, if there are any.
        init: String,
    },
    /// The pod has no such container.
    #[error("container {container} is not valid for pod {pod}")]
    NoContainer {
        /// Name of the pod.
        pod: String,
        /// The name asked for.
        container: String,
    },
    /// The container has not started yet.
    #[error("container {container:?} in pod {pod:?} is waiting to start: {reason}")]
    Waiting {
        /// Name of the pod.
        pod: String,
        /// Name of the container.
        container: String,
        /// Why it waits.
        reason: String,
    },
    /// There was no run before this one.
    #[error("previous terminated container {container:?} in pod {pod:?} not found")]
    NoPrevious {
        /// Name of the pod.
        pod: String,
        /// Name of the container.
        container: String,
    },
    /// The file cannot be read.
    #[error("cannot read the log of container {container:?}")]
    Io {
        /// Name of the container.
        container: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl LogError {
    /// Tells whether the pod itself is missing (404) rather than the request wrong (400).
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NoPod { .. })
    }
}

/// Which lines of a log are wanted, and in which form.
#[derive(Clone, Copy, Debug)]
struct Form {
    since: Option<Timestamp>,
    timestamps: bool,
}

/// Opens the log of a container. `None` if no run has one.
pub(crate) fn stream(
    logs: &Logs,
    pod_uid: &str,
    container: &str,
    options: &LogOptions,
) -> io::Result<Option<impl Stream<Item = io::Result<Bytes>> + Send + use<>>> {
    let Some(latest) = logs.latest(pod_uid, container) else { return Ok(None) };
    let number = if options.previous { latest.checked_sub(1) } else { Some(latest) };
    let Some(number) = number else { return Ok(None) };
    let run = Run { pod_uid: pod_uid.to_owned(), container: container.to_owned(), run: number };
    // Asked for before reading, so that nothing is missed between the end of the file and the first change.
    let progress = options.follow.then(|| logs.following(&run)).flatten();
    let path = logs.path(&run);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let since = options.since_seconds.map(|seconds| {
        let back = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX / 4));
        Timestamp::now().checked_sub(back).unwrap_or(Timestamp::MIN)
    });
    let form = Form { since: since.into_iter().chain(options.since_time).max(), timestamps: options.timestamps };
    // At most twice the size of a log file: small enough to cut the tail in memory.
    let mut raw = std::fs::read(older(&path)).unwrap_or_default();
    file.read_to_end(&mut raw)?;
    let mut first = Vec::new();
    let rest = render(&raw, form, &mut first);
    // What is not a whole line yet is read again.
    file.seek_relative(-i64::try_from(raw.len() - rest).expect("a log fits"))?;
    if let Some(lines) = options.tail_lines {
        cut_head(&mut first, lines);
    }
    let state = Follow { logs: logs.clone(), run, file, progress, form, first: Some(first), left: options.limit_bytes };
    Ok(Some(stream::unfold(state, |state| async move { state.next().await })))
}

struct Follow {
    logs: Logs,
    run: Run,
    file: File,
    progress: Option<watch::Receiver<Progress>>,
    form: Form,
    first: Option<Vec<u8>>,
    left: Option<u64>,
}

impl Follow {
    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        loop {
            if self.left == Some(0) {
                return None;
            }
            let text = match self.first.take() {
                Some(first) => first,
                None => {
                    let progress = self.progress.as_mut()?;
                    let seen = *progress.borrow_and_update();
                    let text = match self.read_new(seen) {
                        Ok(text) => text,
                        Err(error) => {
                            self.left = Some(0);
                            return Some((Err(error), self));
                        }
                    };
                    if text.is_empty() {
                        let progress = self.progress.as_mut()?;
                        if progress.changed().await.is_err() {
                            // The writer is gone: one last look at what it left.
                            self.progress = None;
                            self.first = self.read_rest().ok().filter(|rest| !rest.is_empty());
                            self.first.as_ref()?;
                        }
                        continue;
                    }
                    text
                }
            };
            if text.is_empty() {
                continue;
            }
            let mut bytes = Bytes::from(text);
            if let Some(left) = &mut self.left {
                bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= bytes.len() as u64;
            }
            return Some((Ok(bytes), self));
        }
    }

    fn read_new(&mut self, _seen: Progress) -> io::Result<Vec<u8>> {
        let text = self.read_rest()?;
        if !text.is_empty() {
            return Ok(text);
        }
        // At the end of a file that has been put aside there is another one to read.
        let path = self.logs.path(&self.run);
        let same = |a: &File, b: &File| -> io::Result<bool> {
            use std::os::unix::fs::MetadataExt;
            Ok(a.metadata()?.ino() == b.metadata()?.ino())
        };
        if let Ok(current) = File::open(path)
            && !same(&current, &self.file)?
        {
            self.file = current;
            return self.read_rest();
        }
        Ok(text)
    }

    /// Reads the whole lines that have been added to the open file.
    fn read_rest(&mut self) -> io::Result<Vec<u8>> {
        let mut raw = Vec::new();
        self.file.read_to_end(&mut raw)?;
        let mut text = Vec::new();
        let used = render(&raw, self.form, &mut text);
        if used < raw.len() {
            self.file.seek(SeekFrom::Current(-i64::try_from(raw.len() - used).expect("a log fits")))?;
        }
        Ok(text)
    }
}

/// Turns stored lines into what was printed; returns how many bytes were whole lines.
fn render(raw: &[u8], form: Form, into: &mut Vec<u8>) -> usize {
    let mut used = 0;
    let mut line_begins = true;
    while let Some(newline) = raw[used..].iter().position(|byte| *byte == b'\n') {
        let line = &raw[used..used + newline];
        used += newline + 1;
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let (Some(time), Some(_stream), Some(tag), Some(text)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let wanted = form.since.is_none_or(|since| {
            let at = std::str::from_utf8(time).ok().and_then(|time| time.parse::<Timestamp>().ok());
            at.is_none_or(|at| at >= since)
        });
        if wanted {
            if form.timestamps && line_begins {
                into.extend_from_slice(time);
                into.push(b' ');
            }
            into.extend_from_slice(text);
            if tag == b"F" {
                into.push(b'\n');
            }
        }
        line_begins = tag == b"F";
    }
    used
}

/// Keeps the last `lines` lines.
fn cut_head(text: &mut Vec<u8>, lines: u64) {
    let end = if text.last() == Some(&b'\n') { text.len().saturating_sub(1) } else { text.len() };
    let mut left = lines;
    let mut from = 0;
    if left == 0 {
        text.clear();
        return;
    }
    for at in (0..end).rev() {
        if text[at] == b'\n' {
            left -= 1;
            if left == 0 {
                from = at + 1;
                break;
            }
        }
    }
    text.drain(..from);
}

/// Returns the end of a run's log: at most `lines` lines and `bytes` bytes.
pub(crate) fn tail(logs: &Logs, run: &Run, lines: u64, bytes: usize) -> String {
    let Ok(raw) = std::fs::read(logs.path(run)) else { return String::new() };
    let mut text = Vec::new();
    render(&raw, Form { since: None, timestamps: false }, &mut text);
    cut_head(&mut text, lines);
    if text.len() > bytes {
        text.drain(..text.len() - bytes);
    }
    String::from_utf8_lossy(&text).into_owned()
}
