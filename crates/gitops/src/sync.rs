//! One synchronisation: remember what will be applied, apply, remove, remember what was.

use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::collections::{BTreeMap, HashMap, HashSet};

use futures::StreamExt;
use kube::runtime::events::EventType;

use crate::cluster::{self, Cluster, Memory, Remembered, Removal, Report};
use crate::document::{Document, ObjectId};
use crate::inventory::Entry;
use crate::reach::Reaches;
use crate::source::{File, Snapshot, Source};

/// How many objects are applied at the same time.
const PARALLEL: usize = 8;
/// How many failures are listed for people.
const LISTED_MAX: usize = 50;
/// How long one of them may be in the list. An event has room for one; fifty are far from what a ConfigMap can hold.
const LINE_BYTES_MAX: usize = 1024;
/// How many objects are told about in events of their own after one synchronisation; the ConfigMap names more.
const COMPLAINTS_MAX: usize = 20;

/// What is said of an object whose document may have lost what makes it one.
const LOST_ITS_KIND: &str = "it is kept although its file does not hold it any more, because a document there has no \
                             apiVersion or no kind; complete that document, or remove it to have the object removed";

/// How far the cluster is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The commit that was synchronised last, also if something failed.
    pub commit: Option<String>,
    /// How many objects of the directory are in the cluster.
    pub applied: usize,
    /// Objects that could not be applied or removed, and files that could not be read; sorted. They are tried again.
    pub failed: Vec<Failure>,
    /// Documents that are not Kubernetes objects.
    pub skipped: Vec<Skipped>,
    /// What keeps the agent from synchronising at all.
    pub trouble: Option<String>,
}

impl Status {
    /// Tells whether the cluster holds all that the commit says.
    pub fn is_synced(&self) -> bool {
        self.commit.is_some() && self.failed.is_empty() && self.trouble.is_none()
    }
}

/// Something that did not work.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failure {
    /// The file, relative to the directory.
    pub path: String,
    /// The object; absent if the file cannot be read.
    pub object: Option<ObjectId>,
    /// Why, in the cluster's own words where it has any.
    pub message: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.object {
            Some(object) => write!(f, "{object} ({}): {}", self.path, self.message),
            None => write!(f, "{}: {}", self.path, self.message),
        }
    }
}

/// A document that was left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file, relative to the directory.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// The one who synchronises; everything that lives from one time to the next.
pub(crate) struct Sync {
    pub(crate) source: Source,
    pub(crate) cluster: Cluster,
    pub(crate) memory: Memory,
    pub(crate) name: String,
    pub(crate) remembered: Option<Remembered>,
}

/// Whether unchanged objects are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    Changes,
    Drift,
}

struct Wanted {
    /// The object, with the namespace that it has.
    id: ObjectId,
    /// The same as its document says it.
    written: ObjectId,
    digest: String,
    path: String,
}

impl Sync {
    /// Brings the cluster to what the head of the branch says.
    ///
    /// # Errors
    /// What keeps it from beginning; single objects that fail are in the status.
    pub(crate) async fn run(&mut self, depth: Depth) -> Result<Status, String> {
        let head = self.source.head().map_err(|error| error.to_string())?;
        let Some(mut snapshot) = head else { return Ok(Status::default()) };
        if self.remembered.is_none() {
            self.remembered = Some(self.cluster.recall(&self.memory).await?);
        }
        let mut remembered = self.remembered.take().expect("it was just recalled");
        let result = self.bring(&mut snapshot, depth, &mut remembered).await;
        // After a failure to store, the cluster's memory is the one that counts.
        self.remembered = result.is_ok().then_some(remembered);
        result
    }

    async fn bring(
        &mut self,
        snapshot: &mut Snapshot,
        depth: Depth,
        remembered: &mut Remembered,
    ) -> Result<Status, String> {
        let tree = snapshot.tree.clone().unwrap_or_else(|| "none".to_owned());
        let files = self.source.scan(snapshot).map_err(|error| error.to_string())?;
        let skipped = |(path, file): &(String, File)| {
            let skipped = |reason: &String| Skipped { path: path.clone(), reason: reason.clone() };
            file.skipped.iter().map(skipped).collect::<Vec<_>>()
        };
        let skipped = files.iter().flat_map(skipped).collect();
        let mut status = Status { commit: Some(snapshot.commit.clone()), skipped, ..Status::default() };
        if depth == Depth::Changes && remembered.tree.as_deref() == Some(&tree) {
            // Applied completely: each object of each file.
            status.applied = files.iter().map(|(_, file)| file.objects.len()).sum();
            return Ok(status);
        }

        let before = remembered.clone();
        let reaches = self.reaches(&files, remembered).await;
        remembered.inventory.place(|id| reaches.place(id));
        let (wanted, mut failed) = gather(&files, &reaches);
        self.expect(&wanted, remembered).await?;
        let applied = self.apply(snapshot, &wanted, depth, remembered).await;
        failed.extend(applied);
        let gone = self.gone(&wanted, &files, &reaches, remembered, &mut failed);
        failed.extend(self.prune(&wanted, gone, remembered).await);
        failed.sort();
        let in_place =
            |wanted: &&Wanted| remembered.inventory.get(&wanted.id).is_some_and(|entry| entry.digest.is_some());
        status.applied = wanted.iter().filter(in_place).count();
        status.failed = failed;
        self.conclude(snapshot, tree, &status, &before, remembered).await?;
        Ok(status)
    }

    /// Finds out where the objects lie that are wanted or remembered.
    async fn reaches(&mut self, files: &[(String, File)], remembered: &Remembered) -> Reaches {
        let wanted = files.iter().flat_map(|(_, file)| file.objects.iter().map(|(id, _)| id.kind()));
        let kinds = wanted.chain(remembered.inventory.entries().map(|entry| entry.id.kind())).collect();
        let definitions = files.iter().flat_map(|(_, file)| &file.definitions);
        Reaches::find(&mut self.cluster, kinds, definitions).await
    }

    /// Remembers objects before they exist, so that a crash in between loses none, and in which files they are now.
    async fn expect(&self, wanted: &[Wanted], remembered: &mut Remembered) -> Result<(), String> {
        let before = remembered.inventory.len();
        for wanted in wanted {
            // A file may have a new name although its content is the same.
            remembered.inventory.move_to(&wanted.id, &wanted.path);
            if remembered.inventory.get(&wanted.id).is_none() {
                let path = wanted.path.clone();
                remembered.inventory.insert(Entry { id: wanted.id.clone(), uid: None, digest: None, path });
            }
        }
        if remembered.inventory.len() > before {
            remembered.tree = None;
            self.cluster.remember(&self.memory, remembered).await?;
        }
        Ok(())
    }

    async fn apply(
        &mut self,
        snapshot: &Snapshot,
        wanted: &[Wanted],
        depth: Depth,
        remembered: &mut Remembered,
    ) -> Vec<Failure> {
        let mut failed = Vec::new();
        let mut due: BTreeMap<u8, Vec<&Wanted>> = BTreeMap::new();
        for wanted in wanted {
            let entry = remembered.inventory.get(&wanted.id);
            let unchanged =
                entry.is_some_and(|entry| entry.digest.as_ref() == Some(&wanted.digest) && entry.id == wanted.id);
            if !unchanged || depth == Depth::Drift {
                due.entry(wanted.id.rank()).or_default().push(wanted);
            }
        }
        for (_, due) in due {
            let mut by_path: BTreeMap<&str, Vec<&Wanted>> = BTreeMap::new();
            for wanted in due {
                by_path.entry(&wanted.path).or_default().push(wanted);
            }
            let mut requests = Vec::new();
            for (path, due) in by_path {
                let documents = match self.source.documents(snapshot, path) {
                    Ok(documents) => documents,
                    Err(error) => {
                        failed.push(Failure { path: path.to_owned(), object: None, message: error.to_string() });
                        continue;
                    }
                };
                for wanted in due {
                    let Some(document) = documents.iter().find(|document| document.id == wanted.written) else {
                        continue;
                    };
                    let document = document.placed(&wanted.id);
                    match self.cluster.kind(&wanted.id.kind()).await {
                        Ok((resource, scope)) => {
                            let api = self.cluster.api(&wanted.id, &resource, &scope);
                            requests.push((wanted, document, api));
                        }
                        Err(message) => failed.push(failure(wanted, message)),
                    }
                }
            }
            failed.extend(self.apply_all(requests, depth, remembered).await);
        }
        failed
    }

    /// Applies objects of one rank together.
    async fn apply_all(
        &mut self,
        requests: Vec<(&Wanted, Document, kube::Api<kube::api::DynamicObject>)>,
        depth: Depth,
        remembered: &mut Remembered,
    ) -> Vec<Failure> {
        let mut failed = Vec::new();
        let manager = self.cluster.manager().to_owned();
        // Owned through and through: a stream of futures that borrow cannot be part of a task.
        let (due, requests): (Vec<&Wanted>, Vec<_>) = requests
            .into_iter()
            .map(|(wanted, document, api)| {
                let entry = remembered.inventory.get(&wanted.id);
                let unchanged = entry.is_some_and(|entry| entry.digest.as_ref() == Some(&wanted.digest));
                (wanted, (document, api, manager.clone(), depth == Depth::Drift && unchanged))
            })
            .unzip();
        let requests = requests.into_iter().enumerate().map(|(at, (document, api, manager, look))| async move {
            if look && cluster::is_applied(&api, &document).await == Ok(true) {
                return (at, Ok(None));
            }
            (at, cluster::apply(&api, &manager, &document).await.map(Some))
        });
        let mut results: Vec<_> = futures::stream::iter(requests).buffer_unordered(PARALLEL).collect().await;
        results.sort_by_key(|(at, _)| *at);
        for (at, result) in results {
            let wanted = due[at];
            let result = match result {
                Ok(None) => continue,
                Ok(Some(uid)) if is_definition(&wanted.id) => {
                    self.cluster.wait_until_established(&wanted.id.name).await.map(|()| uid)
                }
                Ok(Some(uid)) => Ok(uid),
                Err(message) => Err(message),
            };
            let mut entry = remembered.inventory.get(&wanted.id).expect("all wanted objects are expected").clone();
            match result {
                Ok(uid) => {
                    tracing::info!(agent = %self.name, object = %wanted.id, "applied");
                    let (id, digest, path) = (wanted.id.clone(), Some(wanted.digest.clone()), wanted.path.clone());
                    remembered.inventory.insert(Entry { id, uid: Some(uid), digest, path });
                }
                Err(message) => {
                    // The kind may have been replaced by another one of the same name.
                    self.cluster.forget(&wanted.id.kind());
                    entry.digest = None;
                    remembered.inventory.insert(entry);
                    failed.push(failure(wanted, message));
                }
            }
        }
        failed
    }

    /// Decides which objects have left the directory, in the order of their removal.
    ///
    /// **Invariant:** nothing is removed that only cannot be read any more.
    fn gone(
        &self,
        wanted: &[Wanted],
        files: &[(String, File)],
        reaches: &Reaches,
        remembered: &Remembered,
        failed: &mut Vec<Failure>,
    ) -> Vec<Entry> {
        let kept: HashSet<_> = wanted.iter().map(|wanted| wanted.id.identity()).collect();
        let files: HashMap<&str, &File> = files.iter().map(|(path, file)| (path.as_str(), file)).collect();
        let failing: HashSet<String> = failed.iter().map(|failure| failure.path.clone()).collect();
        let mut gone = Vec::new();
        for entry in remembered.inventory.entries().filter(|entry| !kept.contains(&entry.id.identity())) {
            let file = files.get(entry.path.as_str());
            if file.is_some_and(|file| !file.broken.is_empty()) {
                continue;
            }
            let keep = |message: String| Failure { path: entry.path.clone(), object: Some(entry.id.clone()), message };
            if let Some(trouble) = reaches.trouble(&entry.id) {
                // Of an object that is still in its file this was said already.
                if !failing.contains(&entry.path) {
                    failed.push(keep(format!("cannot be removed: {trouble}")));
                }
            } else if file.is_some_and(|file| !file.skipped.is_empty()) {
                failed.push(keep(LOST_ITS_KIND.to_owned()));
            } else {
                gone.push(entry.clone());
            }
        }
        gone.sort_by_key(|entry| std::cmp::Reverse(entry.id.rank()));
        gone
    }

    /// Removes objects, but none that is wanted under another name: one object may be served in two groups.
    async fn prune(&mut self, wanted: &[Wanted], gone: Vec<Entry>, remembered: &mut Remembered) -> Vec<Failure> {
        let uid = |wanted: &Wanted| remembered.inventory.get(&wanted.id).and_then(|entry| entry.uid.clone());
        let held: HashSet<String> = wanted.iter().filter_map(uid).collect();
        let mut failed = Vec::new();
        for entry in gone {
            match self.remove(&entry, &held).await {
                Ok(()) => {
                    tracing::info!(agent = %self.name, object = %entry.id, "removed");
                    if is_definition(&entry.id) {
                        self.cluster.forget_all();
                    }
                    remembered.inventory.remove(&entry.id);
                }
                Err(message) => {
                    let message = format!("cannot be removed: {message}");
                    failed.push(Failure { path: entry.path, object: Some(entry.id), message });
                }
            }
        }
        failed
    }

    /// Removes an object.
    ///
    /// **Invariant:** an object is believed to be gone only if its kind is served after it was not found, or not at all.
    async fn remove(&mut self, entry: &Entry, held: &HashSet<String>) -> Result<(), String> {
        let kind = entry.id.kind();
        let mut served = self.cluster.served(&kind).await?;
        if served.is_none() {
            served = self.cluster.served_by_any_version(&kind).await?;
        }
        // Twice: by what was known, and by what is served if that was out of date.
        for _ in 0..2 {
            // Its definition is gone, and all its objects with it.
            let Some((resource, scope)) = served else { return Ok(()) };
            let api = self.cluster.api(&entry.id, &resource, &scope);
            if cluster::remove(&api, self.cluster.manager(), entry, held).await? == Removal::Done {
                return Ok(());
            }
            served = self.cluster.served_by_any_version(&kind).await?;
            if served.as_ref().is_some_and(|(now, _)| now.api_version == resource.api_version) {
                return Ok(());
            }
        }
        Err(format!("the versions of {} are changing", kind.kind))
    }

    /// Stores the result, and tells people when it is another one than before.
    async fn conclude(
        &self,
        snapshot: &Snapshot,
        tree: String,
        status: &Status,
        before: &Remembered,
        remembered: &mut Remembered,
    ) -> Result<(), String> {
        let failing = !status.failed.is_empty();
        remembered.tree = (!failing).then_some(tree);
        remembered.report = Report {
            source: self.name.clone(),
            commit: snapshot.commit.clone(),
            state: if failing { "Failing" } else { "Synced" }.to_owned(),
            failed: listed(&status.failed),
        };
        if before == remembered {
            return Ok(());
        }
        self.cluster.remember(&self.memory, remembered).await?;
        if failing && before.report.failed != remembered.report.failed {
            let known: HashSet<&str> = before.report.failed.lines().collect();
            let new = status.failed.iter().take(LISTED_MAX).filter(|failure| !known.contains(line(failure).as_str()));
            for failure in new.take(COMPLAINTS_MAX) {
                let Some(id) = &failure.object else { continue };
                let uid = remembered.inventory.get(id).and_then(|entry| entry.uid.clone());
                self.cluster.complain(&self.memory, id, uid, "SyncFailed", &line(failure)).await;
            }
            self.cluster.announce(&self.memory, EventType::Warning, "SyncFailed", &remembered.report.failed).await;
        } else if !failing && before.report.state == "Failing" {
            let note = format!("all {} objects are applied", status.applied);
            self.cluster.announce(&self.memory, EventType::Normal, "Synced", &note).await;
        }
        Ok(())
    }
}

fn is_definition(id: &ObjectId) -> bool {
    id.rank() == 1
}

fn failure(wanted: &Wanted, message: String) -> Failure {
    Failure { path: wanted.path.clone(), object: Some(wanted.id.clone()), message }
}

/// Writes a failure as one line of limited length.
fn line(failure: &Failure) -> String {
    let mut line = failure.to_string().replace(['\n', '\r'], " ");
    if line.len() > LINE_BYTES_MAX {
        line.truncate(line.floor_char_boundary(LINE_BYTES_MAX - '…'.len_utf8()));
        line.push('…');
    }
    line
}

fn listed(failed: &[Failure]) -> String {
    let mut lines: Vec<String> = failed.iter().take(LISTED_MAX).map(line).collect();
    if failed.len() > LISTED_MAX {
        lines.push(format!("and {} more", failed.len() - LISTED_MAX));
    }
    lines.join("\n")
}

/// Puts together what all files say; an object has one file.
fn gather(files: &[(String, File)], reaches: &Reaches) -> (Vec<Wanted>, Vec<Failure>) {
    let (mut wanted, mut failed) = (Vec::<Wanted>::new(), Vec::new());
    let mut owners: HashMap<(String, String, String, String), &str> = HashMap::new();
    for (path, file) in files {
        let broken = |message: &String| Failure { path: path.clone(), object: None, message: message.clone() };
        failed.extend(file.broken.iter().map(broken));
        for (written, digest) in &file.objects {
            let id = reaches.place(written);
            if let Some(trouble) = reaches.trouble(&id) {
                failed.push(Failure { path: path.clone(), object: Some(id), message: trouble.to_owned() });
                continue;
            }
            let (group, kind, namespace, name) = id.identity();
            match owners.entry((group.to_owned(), kind.to_owned(), namespace.to_owned(), name.to_owned())) {
                Occupied(owner) => {
                    let message = format!("it is already defined in {}", owner.get());
                    failed.push(Failure { path: path.clone(), object: Some(id), message });
                }
                Vacant(owner) => {
                    owner.insert(path);
                    wanted.push(Wanted { id, written: written.clone(), digest: digest.clone(), path: path.clone() });
                }
            }
        }
    }
    (wanted, failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let failure = |message: &str| Failure { path: "x.yaml".to_owned(), object: None, message: message.to_owned() };
        assert_eq!(listed(&[failure("a\nb"), failure("c")]), "x.yaml: a b\nx.yaml: c");
        for shift in 0..4 {
            let long = failure(&format!("{}{}", "x".repeat(shift), "ü€𝄞".repeat(1_000)));
            let lines = listed(&vec![long; LISTED_MAX + 7]);
            assert_eq!(lines.lines().count(), LISTED_MAX + 1);
            assert!(lines.len() <= (LINE_BYTES_MAX + 1) * (LISTED_MAX + 1), "{} bytes", lines.len());
            assert!(lines.ends_with("and 7 more"));
        }
    }
}
