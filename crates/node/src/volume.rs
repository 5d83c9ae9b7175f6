//! Volumes: what a pod declares becomes directories on this machine, and mounts of its containers.
//!
//! Every volume lies in a directory of its own below the pod's; containers see nothing else of the data directory. Content of
//! ConfigMaps, Secrets and the downward API is that of the pod's start; tokens are renewed while the pod runs.

pub(crate) mod usage;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, KeyToPath, Pod, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use crate::downward::{self, Place};
use crate::ids;
use crate::objects::{Error as ObjectError, Objects};
use crate::sandbox::{IdMap, Mount};

const ACCESS_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const ACCESS_NAME: &str = "kube-api-access";
/// ConfigMap that a cluster's controller puts into every namespace; here the node knows the content itself.
const ROOT_CA: &str = "kube-root-ca.crt";
/// Life of tokens that nobody gave a life; Kubernetes' value for its own volumes.
const TOKEN_SECONDS: i64 = 3607;

/// Why a pod's volumes cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("MountVolume.SetUp failed for volume {volume:?} : {source}")]
    Object { volume: String, source: ObjectError },
    #[error("MountVolume.SetUp failed for volume {volume:?} : {detail}")]
    Content { volume: String, detail: String },
    #[error(
        "volume {volume:?} is of a kind that this node refuses: {kind}; supported are emptyDir, configMap, secret, projected and downwardAPI"
    )]
    Unsupported { volume: String, kind: &'static str },
    #[error("container {container:?} mounts volume {volume:?}, which the pod does not have")]
    Unknown { container: String, volume: String },
    #[error("cannot write volume {volume:?}")]
    Io { volume: String, source: io::Error },
}

/// The volumes of one pod, set up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Volumes {
    directories: BTreeMap<String, Directory>,
    /// When a token has to be renewed.
    pub(crate) renew_at: Option<Timestamp>,
}

#[derive(Clone, Debug)]
struct Directory {
    path: PathBuf,
    read_only: bool,
}

/// What volumes are made from.
pub(crate) struct Setup<'a> {
    pub(crate) objects: &'a Objects,
    pub(crate) pod: &'a Pod,
    pub(crate) place: &'a Place,
    /// Directory of the pod's volumes.
    pub(crate) directory: &'a Path,
    /// Certificate of the API server, for `ca.crt`.
    pub(crate) ca_pem: Option<&'a str>,
}

/// One file to write into a volume.
struct Content {
    path: String,
    bytes: Vec<u8>,
    mode: u32,
}

impl Setup<'_> {
    /// Makes all volumes of the pod; calling it again renews their content and leaves `emptyDir`s alone.
    pub(crate) async fn run(&self) -> Result<Volumes, Error> {
        let spec = self.pod.spec.clone().unwrap_or_default();
        let mut volumes = Volumes::default();
        for volume in spec.volumes.iter().flatten() {
            let contents = self.contents(volume, &mut volumes.renew_at).await?;
            let path = self.write(&volume.name, contents.as_deref())?;
            volumes.directories.insert(volume.name.clone(), Directory { path, read_only: contents.is_some() });
        }
        if self.wants_access(&volumes)
            && let Some(contents) = self.access(&mut volumes.renew_at).await?
        {
            let path = self.write(ACCESS_NAME, Some(&contents))?;
            volumes.directories.insert(ACCESS_NAME.into(), Directory { path, read_only: true });
        }
        Ok(volumes)
    }

    /// Tells whether the API server left it to the node to add the service account's volume.
    fn wants_access(&self, volumes: &Volumes) -> bool {
        let spec = self.pod.spec.as_ref();
        let refused = spec.and_then(|spec| spec.automount_service_account_token) == Some(false);
        let added = volumes.directories.keys().any(|name| name.starts_with(ACCESS_NAME));
        !refused && !added && self.ca_pem.is_some()
    }

    /// Makes the content that API clients look for. A `default` account that does not exist is no reason not to run.
    async fn access(&self, renew_at: &mut Option<Timestamp>) -> Result<Option<Vec<Content>>, Error> {
        let projection = ServiceAccountTokenProjection { path: "token".into(), ..Default::default() };
        let token = match self.token(ACCESS_NAME, &projection, renew_at).await {
            Err(_) if self.account() == "default" => return Ok(None),
            token => token?,
        };
        let mode = 0o644;
        let ca = self.ca_pem.unwrap_or_default().as_bytes().to_vec();
        Ok(Some(vec![
            Content { path: "token".into(), bytes: token.into_bytes(), mode },
            Content { path: "ca.crt".into(), bytes: ca, mode },
            Content { path: "namespace".into(), bytes: self.namespace().as_bytes().to_vec(), mode },
        ]))
    }

    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn account(&self) -> &str {
        let spec = self.pod.spec.as_ref();
        spec.and_then(|spec| spec.service_account_name.as_deref()).filter(|name| !name.is_empty()).unwrap_or("default")
    }

    /// Returns the files of a volume, or `None` if it begins empty and belongs to the containers.
    async fn contents(&self, volume: &Volume, renew_at: &mut Option<Timestamp>) -> Result<Option<Vec<Content>>, Error> {
        let name = volume.name.as_str();
        let mode = |mode: Option<i32>| mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644);
        if volume.empty_dir.is_some() {
            return Ok(None);
        }
        if let Some(source) = &volume.config_map {
            let optional = source.optional.unwrap_or(false);
            let data = self.config_map(name, &source.name, optional).await?;
            return pick(name, "configmap", data, source.items.as_deref(), mode(source.default_mode), optional)
                .map(Some);
        }
        if let Some(source) = &volume.secret {
            let optional = source.optional.unwrap_or(false);
            let secret = source.secret_name.as_deref().unwrap_or_default();
            let data = self.secret(name, secret, optional).await?;
            return pick(name, "secret", data, source.items.as_deref(), mode(source.default_mode), optional).map(Some);
        }
        if let Some(source) = &volume.downward_api {
            let mode = mode(source.default_mode);
            return self.downward(name, source.items.iter().flatten(), mode).map(Some);
        }
        if let Some(source) = &volume.projected {
            let mut contents = Vec::new();
            for projection in source.sources.iter().flatten() {
                contents.extend(self.projection(name, projection, mode(source.default_mode), renew_at).await?);
            }
            return Ok(Some(contents));
        }
        Err(Error::Unsupported { volume: name.into(), kind: kind_of(volume) })
    }

    async fn projection(
        &self,
        volume: &str,
        projection: &VolumeProjection,
        mode: u32,
        renew_at: &mut Option<Timestamp>,
    ) -> Result<Vec<Content>, Error> {
        if let Some(source) = &projection.service_account_token {
            let token = self.token(volume, source, renew_at).await?;
            return Ok(vec![Content { path: source.path.clone(), bytes: token.into_bytes(), mode }]);
        }
        if let Some(source) = &projection.config_map {
            let optional = source.optional.unwrap_or(false);
            let data = self.config_map(volume, &source.name, optional).await?;
            return pick(volume, "configmap", data, source.items.as_deref(), mode, optional);
        }
        if let Some(source) = &projection.secret {
            let optional = source.optional.unwrap_or(false);
            let data = self.secret(volume, &source.name, optional).await?;
            return pick(volume, "secret", data, source.items.as_deref(), mode, optional);
        }
        if let Some(source) = &projection.downward_api {
            return self.downward(volume, source.items.iter().flatten(), mode);
        }
        Err(Error::Unsupported { volume: volume.into(), kind: "this projection" })
    }

    async fn token(
        &self,
        volume: &str,
        source: &ServiceAccountTokenProjection,
        renew_at: &mut Option<Timestamp>,
    ) -> Result<String, Error> {
        let seconds = source.expiration_seconds.unwrap_or(TOKEN_SECONDS);
        let token = self.objects.token(self.pod, self.account(), source.audience.as_deref(), seconds).await;
        let token = token.map_err(|source| Error::Object { volume: volume.into(), source })?;
        *renew_at = Some(renew_at.map_or(token.renew_at, |at| at.min(token.renew_at)));
        Ok(token.text)
    }

    async fn config_map(&self, volume: &str, name: &str, optional: bool) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let fail = |source| Error::Object { volume: volume.into(), source };
        let found = self.objects.config_map(self.namespace(), name).await.map_err(fail)?;
        match (found, self.ca_pem) {
            (Some(data), _) => Ok(data),
            (None, Some(ca)) if name == ROOT_CA => Ok(BTreeMap::from([("ca.crt".into(), ca.as_bytes().to_vec())])),
            (None, _) if optional => Ok(BTreeMap::new()),
            (None, _) => Err(fail(ObjectError::Missing { kind: "configmap", name: name.into() })),
        }
    }

    async fn secret(&self, volume: &str, name: &str, optional: bool) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let fail = |source| Error::Object { volume: volume.into(), source };
        match self.objects.secret(self.namespace(), name).await.map_err(fail)? {
            Some(data) => Ok(data),
            None if optional => Ok(BTreeMap::new()),
            None => Err(fail(ObjectError::Missing { kind: "secret", name: name.into() })),
        }
    }

    fn downward<'a>(
        &self,
        volume: &str,
        items: impl Iterator<Item = &'a DownwardAPIVolumeFile>,
        default_mode: u32,
    ) -> Result<Vec<Content>, Error> {
        let none = Container::default();
        items
            .map(|item| {
                let value = match (&item.field_ref, &item.resource_field_ref) {
                    (Some(reference), _) => downward::field(self.pod, self.place, reference),
                    (None, Some(reference)) => downward::resource(self.pod, &none, reference),
                    (None, None) => Err(format!("item {:?} refers to nothing", item.path)),
                };
                let bytes = value.map_err(|detail| Error::Content { volume: volume.into(), detail })?.into_bytes();
                let mode = item.mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(default_mode);
                Ok(Content { path: item.path.clone(), bytes, mode })
            })
            .collect()
    }

    /// Writes a volume's directory. Without content it is made once and never touched again.
    fn write(&self, volume: &str, contents: Option<&[Content]>) -> Result<PathBuf, Error> {
        let path = self.directory.join(volume);
        let io = |source| Error::Io { volume: volume.into(), source };
        let map = ids::map();
        let root = ids::container_root(map);
        let fs_group = self.pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref()?.fs_group);
        let group = match map {
            IdMap::Range { base, count } => fs_group
                .and_then(|gid| u32::try_from(gid).ok())
                .filter(|gid| *gid < count)
                .map_or(root.map(|(_, gid)| gid), |gid| Some(base + gid)),
            IdMap::Own => None,
        };
        let own = |path: &Path| match (root, group) {
            (Some((uid, _)), Some(gid)) => std::os::unix::fs::chown(path, Some(uid), Some(gid)),
            _ => Ok(()),
        };
        let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
        let Some(contents) = contents else {
            if !path.is_dir() {
                std::fs::create_dir_all(&path).map_err(io)?;
                own(&path).map_err(io)?;
                mode(&path, if fs_group.is_some() { 0o2777 } else { 0o777 }).map_err(io)?;
            }
            return Ok(path);
        };
        std::fs::create_dir_all(&path).map_err(io)?;
        mode(&path, 0o755).map_err(io)?;
        for content in contents {
            let relative = checked(volume, &content.path)?;
            let mut directory = path.clone();
            for component in relative.parent().into_iter().flat_map(Path::components) {
                directory.push(component);
                if !directory.is_dir() {
                    std::fs::create_dir(&directory).map_err(io)?;
                    mode(&directory, 0o755).map_err(io)?;
                }
            }
            let file = path.join(&relative);
            // Beside and then over: a reader sees the old token or the new one.
            let temporary =
                file.with_file_name(format!(".new-{}", file.file_name().unwrap_or_default().to_string_lossy()));
            std::fs::write(&temporary, &content.bytes).map_err(io)?;
            own(&temporary).map_err(io)?;
            // The group given by `fsGroup` reads whatever the owner reads, as a kubelet arranges it.
            let group_reads = if fs_group.is_some() { (content.mode & 0o400) >> 3 } else { 0 };
            mode(&temporary, content.mode | group_reads).map_err(io)?;
            std::fs::rename(&temporary, &file).map_err(io)?;
        }
        Ok(path)
    }
}

impl Volumes {
    /// Returns the mounts of one container.
    pub(crate) fn mounts(
        &self,
        container: &Container,
        variables: &BTreeMap<String, String>,
    ) -> Result<Vec<Mount>, Error> {
        let mut mounts = Vec::new();
        for mount in container.volume_mounts.iter().flatten() {
            let unknown = || Error::Unknown { container: container.name.clone(), volume: mount.name.clone() };
            let volume = self.directories.get(&mount.name).ok_or_else(unknown)?;
            let sub_path = match (&mount.sub_path, &mount.sub_path_expr) {
                (_, Some(expression)) if !expression.is_empty() => {
                    Some(crate::environment::expand(expression, variables))
                }
                (Some(path), _) if !path.is_empty() => Some(path.clone()),
                _ => None,
            };
            mounts.push(Mount {
                source: volume.path.clone(),
                sub_path: sub_path.map(|path| checked(&mount.name, &path)).transpose()?,
                target: mount.mount_path.clone().into(),
                read_only: volume.read_only || mount.read_only.unwrap_or(false),
            });
        }
        let taken = mounts.iter().any(|mount| mount.target == Path::new(ACCESS_PATH));
        if let Some(access) = self.directories.get(ACCESS_NAME)
            && !taken
        {
            let source = access.path.clone();
            mounts.push(Mount { source, sub_path: None, target: ACCESS_PATH.into(), read_only: true });
        }
        Ok(mounts)
    }
}

/// Chooses the keys of an object that become files.
fn pick(
    volume: &str,
    kind: &'static str,
    data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    mode: u32,
    optional: bool,
) -> Result<Vec<Content>, Error> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data.into_iter().map(|(path, bytes)| Content { path, bytes, mode }).collect());
    };
    let mut contents = Vec::new();
    for item in items {
        match data.get(&item.key) {
            Some(bytes) => {
                let mode = item.mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(mode);
                contents.push(Content { path: item.path.clone(), bytes: bytes.clone(), mode });
            }
            None if optional => {}
            None => {
                let detail = format!("{kind} references non-existent config key: {}", item.key);
                return Err(Error::Content { volume: volume.into(), detail });
            }
        }
    }
    Ok(contents)
}

/// Accepts relative paths without `..` only.
fn checked(volume: &str, path: &str) -> Result<PathBuf, Error> {
    let path_ = Path::new(path);
    let plain = path_.components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir));
    if plain && path_.file_name().is_some() {
        return Ok(path_.components().filter(|component| matches!(component, Component::Normal(_))).collect());
    }
    Err(Error::Content { volume: volume.into(), detail: format!("path {path:?} leaves the volume") })
}

fn kind_of(volume: &Volume) -> &'static str {
    let kinds = [
        (volume.host_path.is_some(), "hostPath"),
        (volume.persistent_volume_claim.is_some(), "persistentVolumeClaim"),
        (volume.nfs.is_some(), "nfs"),
        (volume.csi.is_some(), "csi"),
        (volume.ephemeral.is_some(), "ephemeral"),
        (volume.image.is_some(), "image"),
    ];
    kinds.into_iter().find(|(is, _)| *is).map_or("unknown", |(_, kind)| kind)
}
