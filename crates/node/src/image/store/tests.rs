//! Archives of both kinds, and hostile ones.

use serde_json::{Value, json};

use super::*;

/// A tar file under construction.
struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn entry(mut self, kind: tar::EntryType, path: &str, link: Option<&str>, bytes: &[u8], mode: u32) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(mode);
        // Written by hand: the library refuses to write what a hostile author would.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        if let Some(link) = link {
            header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        }
        header.set_cksum();
        self.0.append(&header, bytes).unwrap();
        self
    }

    fn file(self, path: &str, text: &str) -> Self {
        self.entry(tar::EntryType::Regular, path, None, text.as_bytes(), 0o644)
    }

    fn directory(self, path: &str) -> Self {
        self.entry(tar::EntryType::Directory, path, None, &[], 0o755)
    }

    fn link(self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Symlink, path, Some(target), &[], 0o777)
    }

    fn done(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&sha2::Sha256::digest(bytes)))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn image_document(layers: &[&[u8]]) -> String {
    let diff_ids: Vec<_> = layers.iter().map(|layer| digest(layer)).collect();
    json!({"architecture": super::super::archive::architecture(), "os": "linux",
           "config": {"Entrypoint": ["/app"], "Env": null, "User": "1000"}, "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    .to_string()
}

fn docker_archive(tags: Value, layers: &[&[u8]]) -> Vec<u8> {
    let names: Vec<_> = (0..layers.len()).map(|n| format!("layer-{n}.tar")).collect();
    let mut tar = Tar::new();
    for (name, layer) in names.iter().zip(layers) {
        tar = tar.entry(tar::EntryType::Regular, name, None, layer, 0o644);
    }
    let manifest = json!([{"Config": "config.json", "RepoTags": tags, "Layers": names}]);
    tar.file("config.json", &image_document(layers)).file("manifest.json", &manifest.to_string()).done()
}

fn oci_archive(annotations: Value, layers: &[&[u8]]) -> Vec<u8> {
    let mut tar = Tar::new().file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    let blob = |tar: Tar, bytes: &[u8]| {
        let digest = digest(bytes);
        let path = format!("blobs/sha256/{}", &digest[7..]);
        (tar.entry(tar::EntryType::Regular, &path, None, bytes, 0o644), digest)
    };
    let mut descriptors = Vec::new();
    for layer in layers {
        let (next, digest) = blob(tar, &gzip(layer));
        tar = next;
        descriptors.push(json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest}));
    }
    let (next, config) = blob(tar, image_document(layers).as_bytes());
    let manifest =
        json!({"schemaVersion": 2, "config": {"mediaType": "x", "digest": config}, "layers": descriptors}).to_string();
    let (next, manifest) = blob(next, manifest.as_bytes());
    let platform = |architecture: &str| json!({"os": "linux", "architecture": architecture});
    let index = json!({"manifests": [
        {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:00", "platform": platform("mips")},
        {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest, "platform": platform(super::super::archive::architecture())},
    ]})
    .to_string();
    let (next, nested) = blob(next, index.as_bytes());
    let index = json!({"manifests": [{"mediaType": "application/vnd.oci.image.index.v1+json", "digest": nested, "annotations": annotations}]});
    next.file("index.json", &index.to_string()).done()
}

struct World {
    directory: tempfile::TempDir,
    store: Store,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("images")).unwrap();
        Self { directory, store }
    }

    fn load(&self, archive: &[u8], name: Option<&str>) -> Result<Vec<String>, Error> {
        let path = self.directory.path().join("archive.tar");
        std::fs::write(&path, archive).unwrap();
        self.store.load(&path, name)
    }
}

#[test]
fn docker_and_oci_archives_are_loaded_whatever_their_compression() {
    let world = World::new();
    let layer = Tar::new().directory("etc").file("etc/motd", "hello").link("motd", "etc/motd").done();
    let docker = docker_archive(json!(["busybox:1", "example/other"]), &[&layer]);
    let names = world.load(&docker, None).unwrap();
    assert_eq!(names, ["docker.io/library/busybox:1", "docker.io/example/other:latest"]);
    let names = world.load(&gzip(&docker), Some("renamed")).unwrap();
    assert_eq!(names, ["docker.io/library/renamed:latest"]);
    let named =
        json!({"io.containerd.image.name": "ghcr.io/example/app:v1", "org.opencontainers.image.ref.name": "v1"});
    assert_eq!(world.load(&oci_archive(named, &[&layer]), None).unwrap(), ["ghcr.io/example/app:v1"]);

    let image = world.store.resolve("busybox:1").unwrap();
    assert_eq!(std::fs::read_to_string(image.rootfs.join("etc/motd")).unwrap(), "hello");
    assert_eq!((image.config.entrypoint, image.config.user.as_str()), (vec!["/app".to_owned()], "1000"));
    let other = world.store.resolve("ghcr.io/example/app:v1").unwrap();
    assert_eq!(other.rootfs, image.rootfs, "equal content is unpacked once");
    assert_eq!(world.store.list().unwrap().len(), 4);
    let pinned = format!("ghcr.io/example/app@{}", other.id);
    assert_eq!(world.store.resolve(&pinned).unwrap().id, other.id);
    assert!(matches!(world.store.resolve("busybox"), Err(Error::Unknown { .. })), "another tag is another image");
    assert_eq!(Store::open(world.directory.path().join("images")).unwrap().list().unwrap().len(), 4);
}

#[test]
fn upper_layers_replace_and_remove() {
    let world = World::new();
    let base = Tar::new()
        .directory("a")
        .file("a/kept", "1")
        .file("a/removed", "1")
        .file("a/replaced", "1")
        .directory("opaque")
        .file("opaque/old", "1")
        .file("file-or-directory", "1")
        .done();
    let top = Tar::new()
        .file("a/.wh.removed", "")
        .file("a/replaced", "2")
        .directory("opaque")
        .file("opaque/new", "2")
        .file("opaque/.wh..wh..opq", "")
        .directory("file-or-directory")
        .file("file-or-directory/x", "2")
        .file("created/in/passing", "2")
        .done();
    world.load(&docker_archive(json!(["app"]), &[&base, &top]), None).unwrap();
    let root = world.store.resolve("app").unwrap().rootfs;
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    assert_eq!(read("a/kept").as_deref(), Some("1"));
    assert_eq!(read("a/removed"), None);
    assert_eq!(read("a/replaced").as_deref(), Some("2"));
    assert_eq!((read("opaque/old"), read("opaque/new").as_deref()), (None, Some("2")));
    assert_eq!(read("file-or-directory/x").as_deref(), Some("2"));
    assert_eq!(read("created/in/passing").as_deref(), Some("2"));
}

#[test]
fn a_hostile_layer_cannot_write_outside() {
    let victim = tempfile::tempdir().unwrap();
    let outside = victim.path().to_str().unwrap();
    std::fs::write(victim.path().join("precious"), "safe").unwrap();
    let link_to = |target: &str| Tar::new().link("door", target);
    let hostile = [
        Tar::new().file("../escaped", "x").done(),
        Tar::new().file("a/../../escaped", "x").done(),
        Tar::new().file("..", "x").done(),
        link_to(outside).file("door/escaped", "x").done(),
        link_to("../../../../../../../../..").file(&format!("door{outside}/escaped"), "x").done(),
        link_to(outside).entry(tar::EntryType::Link, "stolen", Some("door/precious"), &[], 0o644).done(),
        Tar::new().entry(tar::EntryType::Link, "stolen", Some("../../precious"), &[], 0o644).done(),
        link_to(outside).file("door/.wh.precious", "").done(),
        link_to(outside).file("door/.wh..wh..opq", "").done(),
        Tar::new().file(".wh...", "").done(),
        Tar::new().file(&format!("{outside}/escaped"), "x").done(),
        Tar::new().link("precious", &format!("{outside}/precious")).file("precious", "overwritten").done(),
    ];
    for (number, layer) in hostile.iter().enumerate() {
        let world = World::new();
        let outcome = world.load(&docker_archive(json!(["evil"]), &[layer]), None);
        let names: Vec<_> = std::fs::read_dir(victim.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["precious"], "layer {number}: {outcome:?}");
        assert_eq!(std::fs::read_to_string(victim.path().join("precious")).unwrap(), "safe", "layer {number}");
        if let Ok(image) = world.store.resolve("evil") {
            assert_ne!(
                std::fs::read_to_string(image.rootfs.join("stolen")).ok().as_deref(),
                Some("safe"),
                "layer {number}"
            );
        } else {
            let left =
                |path: &str| std::fs::read_dir(world.directory.path().join("images").join(path)).unwrap().count();
            assert_eq!((left("rootfs"), left("tmp")), (0, 0), "a failed load leaves nothing");
        }
    }
}

#[test]
fn long_names_and_attributes_have_a_limit() {
    use tar::EntryType::{GNULongName, Link, XHeader};
    let world = World::new();
    let extended =
        |kind, bytes: usize| Tar::new().entry(kind, "extension", None, &vec![b'a'; bytes], 0o644).file("x", "x");
    let loaded = |archive: &[u8]| world.load(archive, None).map_err(|error| error.to_string());
    let layer = Tar::new().file("x", "x").done();
    let app = docker_archive(json!(["app"]), &[&layer]);
    // An archive ends with two empty blocks; what comes before them can be followed by another archive.
    let with_app = |tar: Tar| [tar.done(), app.clone()].concat();
    let body = |tar: Tar| tar.done()[..].strip_suffix(&[0; 1024][..]).unwrap().to_vec();
    let limit = "1 MiB of names and attributes for one entry";
    for kind in [GNULongName, XHeader] {
        let error = loaded(&with_app(extended(kind, 2 << 20))).unwrap_err();
        assert!(error.contains(limit), "{kind:?} in the archive: {error}");
        let hostile = gzip(&extended(kind, 2 << 20).done());
        let error = loaded(&docker_archive(json!(["app"]), &[&hostile])).unwrap_err();
        assert!(error.contains(limit), "{kind:?} in a layer: {error}");
    }
    let many = (0..20).flat_map(|_| body(extended(GNULongName, 900 << 10))).chain(app.clone()).collect::<Vec<u8>>();
    assert!(loaded(&many).unwrap_err().contains("8 MiB of names"));

    // Within the limit: a long name, and a link to which a tool of old gave its target's content.
    let honest = Tar::new()
        .entry(GNULongName, "extension", None, format!("deep/{}", "n".repeat(200)).as_bytes(), 0o644)
        .file("cut", "x")
        .file("target", "x")
        .entry(Link, "link", Some("target"), &vec![0; 2 << 20], 0o644)
        .file("last", "x")
        .done();
    loaded(&docker_archive(json!(["honest"]), &[&honest])).unwrap();
}

#[test]
fn set_user_id_bits_and_devices_are_left_out() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let layer = Tar::new()
        .entry(tar::EntryType::Regular, "su", None, b"x", 0o6755)
        .entry(tar::EntryType::Block, "disk", None, &[], 0o666)
        .done();
    world.load(&docker_archive(json!(["app"]), &[&layer]), None).unwrap();
    let root = world.store.resolve("app").unwrap().rootfs;
    assert_eq!(root.join("su").metadata().unwrap().permissions().mode() & 0o7777, 0o755);
    assert!(!root.join("disk").exists());
}

#[test]
fn what_cannot_be_loaded_says_why() {
    let world = World::new();
    let layer = Tar::new().file("x", "x").done();
    let text = |outcome: Result<Vec<String>, Error>| outcome.unwrap_err().to_string();
    let other = text(world.load(&b"somebody's secret ".repeat(40), None));
    assert!(other.contains("neither a docker archive nor an OCI archive: it is no tar file"), "{other}");
    assert!(!other.contains("secret"), "{other}");
    assert!(text(world.load(&Tar::new().file("x", "x").done(), None)).contains("neither manifest.json nor index.json"));
    assert!(text(world.load(&docker_archive(json!(null), &[&layer]), None)).contains("give a name"));
    assert!(text(world.load(&docker_archive(json!(["UPPER"]), &[&layer]), None)).contains("invalid image name"));
    let tag_only = json!({"org.opencontainers.image.ref.name": "latest"});
    assert!(text(world.load(&oci_archive(tag_only, &[&layer]), None)).contains("give a name"));

    let mut damaged = docker_archive(json!(["app"]), &[&layer]);
    let at = damaged.windows(1).position(|byte| byte == b"x").unwrap();
    damaged[at + 512] = b'y'; // the content of the layer's only file, after its header
    let outcome = world.load(&damaged, None);
    assert!(outcome.is_err(), "a changed layer was accepted: {outcome:?}");

    let zstd = [&[0x28, 0xb5, 0x2f, 0xfd][..], &[0; 600]].concat();
    assert!(text(world.load(&docker_archive(json!(["app"]), &[&zstd]), None)).contains("zstd"));
    assert!(world.store.list().unwrap().is_empty());
    assert!(text(world.store.resolve("app").map(|_| Vec::new())).contains("docker.io/library/app:latest"));
}

#[test]
fn pruning_keeps_what_has_a_name() {
    let world = World::new();
    let (one, two) = (Tar::new().file("one", "1").done(), Tar::new().file("two", "2").done());
    world.load(&docker_archive(json!(["app"]), &[&one]), None).unwrap();
    let outdated = world.store.resolve("app").unwrap().rootfs;
    world.load(&docker_archive(json!(["app"]), &[&two]), None).unwrap();
    let current = world.store.resolve("app").unwrap().rootfs;
    world.store.prune().unwrap();
    assert!(!outdated.exists() && current.join("two").exists());
}

#[test]
fn what_is_called_by_a_digest_must_have_it() {
    let world = World::new();
    let layer = Tar::new().file("x", "x").done();
    let named = json!({"io.containerd.image.name": "example/app:1"});
    let archive = oci_archive(named, &[&layer]);
    world.load(&archive, None).unwrap();
    // The same number of bytes each, so that only the digests can tell.
    for (from, to) in [("/app", "/bad"), ("mips", "armv"), ("schemaVersion\":2", "schemaVersion\":3")] {
        let (from, to) = (from.as_bytes(), to.as_bytes());
        let at = archive.windows(from.len()).position(|bytes| bytes == from).unwrap();
        let mut damaged = archive.clone();
        damaged[at..at + from.len()].copy_from_slice(to);
        let error = world.load(&damaged, None).unwrap_err().to_string();
        assert!(error.contains("is damaged") && error.contains("has digest sha256:"), "{error}");
    }
    let config = image_document(&[&layer]);
    let file = format!("{}.json", "0".repeat(64));
    let manifest = json!([{"Config": file, "RepoTags": ["app"], "Layers": ["l.tar"]}]).to_string();
    let docker = Tar::new()
        .entry(tar::EntryType::Regular, "l.tar", None, &layer, 0o644)
        .file(&file, &config)
        .file("manifest.json", &manifest)
        .done();
    assert!(world.load(&docker, None).unwrap_err().to_string().contains("has digest"));
}

#[test]
fn read_only_directories_are_filled_and_get_their_modes_in_the_end() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let directory = |tar: Tar, path: &str, mode| tar.entry(tar::EntryType::Directory, path, None, &[], mode);
    let base = directory(directory(Tar::new(), "sealed", 0o555), "sealed/deep", 0o111);
    let base =
        directory(base.file("sealed/deep/file", "1").file("implied/file", "1"), "gone", 0o500).file("gone/x", "1");
    let top =
        Tar::new().file("sealed/deep/more", "2").file("sealed/new", "2").file(".wh.gone", "").file("gone", "file");
    world.load(&docker_archive(json!(["app"]), &[&base.done(), &top.done()]), None).unwrap();
    let root = world.store.resolve("app").unwrap().rootfs;
    let mode = |path: &str| root.join(path).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode("sealed"), mode("sealed/deep"), mode("implied"), mode("gone")], [0o555, 0o111, 0o755, 0o644]);
    assert_eq!(std::fs::read_to_string(root.join("sealed/deep/more")).unwrap(), "2");
    remove_tree(&root).unwrap();
}
