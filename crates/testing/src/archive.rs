//! Docker archives made on the spot: a static busybox and a script, under any name.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest, Sha256};

/// Applets of busybox that scripts get as commands.
const APPLETS: &[&str] = &[
    "sh", "cat", "cp", "mkdir", "grep", "sed", "awk", "echo", "ls", "ln", "dd", "head", "sleep", "test", "true", "rm",
    "id",
];

/// A file of an image.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Absolute path without the leading slash.
    pub path: String,
    /// Content.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

impl Entry {
    /// Returns a plain file.
    pub fn file(path: &str, content: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), content: content.into(), mode: 0o644 }
    }
}

/// Returns where a static busybox is, if the machine has one.
pub fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox", "/sbin/busybox"].iter().map(PathBuf::from).find(|path| path.is_file())
}

/// Writes a docker archive of an image that runs `script` with busybox's shell.
///
/// # Errors
/// When busybox is missing or a file cannot be written.
pub fn docker_archive(path: &Path, name: &str, script: &str, entries: &[Entry]) -> io::Result<()> {
    let busybox = busybox().ok_or_else(|| io::Error::other("no busybox: run scripts/install-test-tools"))?;
    let mut layer = tar::Builder::new(Vec::new());
    for directory in ["bin", "tmp", "etc"] {
        let mode = if directory == "tmp" { 0o1777 } else { 0o755 };
        append(&mut layer, tar::EntryType::Directory, directory, &[], mode)?;
    }
    append(&mut layer, tar::EntryType::Regular, "bin/busybox", &std::fs::read(busybox)?, 0o755)?;
    for applet in APPLETS {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    append(&mut layer, tar::EntryType::Regular, "entrypoint", script.as_bytes(), 0o755)?;
    for entry in entries {
        append(&mut layer, tar::EntryType::Regular, &entry.path, &entry.content, entry.mode)?;
    }
    let layer = layer.into_inner()?;

    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/bin/sh", "-eu", "/entrypoint"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))]},
    });
    let config = serde_json::to_vec(&config)?;
    let config_name = format!("{}.json", digest(&config));
    let manifest = serde_json::to_vec(&json!([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]))?;

    let mut archive = tar::Builder::new(File::create(path)?);
    append(&mut archive, tar::EntryType::Regular, "layer.tar", &layer, 0o644)?;
    append(&mut archive, tar::EntryType::Regular, &config_name, &config, 0o644)?;
    append(&mut archive, tar::EntryType::Regular, "manifest.json", &manifest, 0o644)?;
    archive.into_inner()?.sync_all()
}

fn append<W: io::Write>(
    archive: &mut tar::Builder<W>,
    kind: tar::EntryType,
    path: &str,
    content: &[u8],
    mode: u32,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    archive.append_data(&mut header, path, content)
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
