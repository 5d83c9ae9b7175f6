//! How much a pod has written into its volumes, and whether that is more than it may. Nothing here stops a write: as on any
//! node, a pod that has written too much is ended at the next look.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::quantity;

const BLOCK_BYTES: u64 = 512;
/// Files that are looked at; a volume with more of them counts as what was seen so far.
const FILES_MAX: usize = 1_000_000;
const STORAGE: &str = "ephemeral-storage";

/// Returns why the pod is to be ended, in a kubelet's words, if its volumes below `directory` hold more than they may.
pub(crate) fn excess(pod: &Pod, directory: &Path) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let limit = pod_limit(spec.init_containers.as_deref().unwrap_or_default(), &spec.containers);
    let mut total = 0;
    for volume in spec.volumes.iter().flatten() {
        let Some(empty) = &volume.empty_dir else { continue };
        let own = empty.size_limit.as_ref().map(|limit| limit.0.as_str());
        if own.is_none() && limit.is_none() {
            continue;
        }
        let used = size(directory.join(&volume.name));
        if let Some(limit) = own
            && bytes(limit).is_some_and(|limit| limit > 0 && used > limit)
        {
            return Some(format!("Usage of EmptyDir volume {:?} exceeds the limit {limit:?}.", volume.name));
        }
        total += used;
    }
    let limit = limit.filter(|limit| total > *limit)?;
    let shown = if limit % (1 << 20) == 0 { format!("{}Mi", limit >> 20) } else { limit.to_string() };
    Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {shown}."))
}

/// Returns what a pod may use in total: as much as its containers that run side by side, or the largest of those that run
/// alone.
fn pod_limit(init: &[Container], main: &[Container]) -> Option<u64> {
    let limit = |container: &Container| {
        let limits = container.resources.as_ref()?.limits.as_ref()?;
        bytes(&limits.get(STORAGE)?.0)
    };
    let together: Vec<u64> = main.iter().filter_map(limit).collect();
    let together = (!together.is_empty()).then(|| together.iter().sum());
    init.iter().filter_map(limit).max().max(together)
}

fn bytes(quantity: &str) -> Option<u64> {
    u64::try_from(quantity::parse_nano(quantity)? / 1_000_000_000).ok()
}

/// Returns the space that a directory takes on its disk. Links are not followed; what cannot be read counts as nothing.
fn size(directory: PathBuf) -> u64 {
    let (mut left, mut total, mut files) = (vec![directory], 0, 0);
    while let Some(path) = left.pop() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            total += metadata.blocks() * BLOCK_BYTES;
            files += 1;
            if files == FILES_MAX {
                return total;
            }
            if metadata.is_dir() {
                left.push(entry.path());
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(volumes: Value, init: &[&str], main: &[&str]) -> Pod {
        let containers = |limits: &[&str]| -> Vec<Value> {
            let container = |limit: &&str| match *limit {
                "" => json!({ "name": "c" }),
                limit => json!({ "name": "c", "resources": { "limits": { STORAGE: limit } } }),
            };
            limits.iter().map(container).collect()
        };
        let spec = json!({ "volumes": volumes, "initContainers": containers(init), "containers": containers(main) });
        serde_json::from_value(json!({ "spec": spec })).unwrap()
    }

    #[test]
    fn more_than_a_volume_or_the_pod_may_hold_is_told_in_a_kubelets_words() {
        let directory = tempfile::tempdir().unwrap();
        let write = |path: &str, bytes: usize| {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![1; bytes]).unwrap();
        };
        write("a/deep/er/x", 1 << 20);
        write("b/y", 1 << 20);
        std::os::unix::fs::symlink("/", directory.path().join("b/everything")).unwrap();
        let volumes = |limit: &str| {
            json!([
                { "name": "a", "emptyDir": { "sizeLimit": limit } },
                { "name": "b", "emptyDir": {} },
                { "name": "c", "configMap": { "name": "c" } },
                { "name": "missing", "emptyDir": {} },
            ])
        };
        let excess = |limit: &str, init: &[&str], main: &[&str]| {
            super::excess(&pod(volumes(limit), init, main), directory.path())
        };
        assert_eq!(excess("2Mi", &[], &[]), None);
        assert_eq!(excess("0", &[], &[]), None, "no limit");
        assert_eq!(
            excess("500k", &[], &[]).as_deref(),
            Some("Usage of EmptyDir volume \"a\" exceeds the limit \"500k\".")
        );
        assert_eq!(excess("2Mi", &["", "4Mi"], &["1Mi"]), None, "the largest of those that run alone");
        assert_eq!(excess("2Mi", &["1Mi"], &["2Mi", "", "2Mi"]), None, "the sum of those that run together");
        let text = "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi.";
        assert_eq!(excess("2Mi", &["2Mi"], &["1Mi"]).as_deref(), Some(text));
    }
}
