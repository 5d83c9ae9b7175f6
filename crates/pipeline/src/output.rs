//! The files that a pipeline leaves, read into memory in the form in which they are stored.
//!
//! # Guarantees
//! Nothing outside the output directory is read: a link that leads out of it, is absolute or leads to a directory is
//! refused, as are names that could reach into a repository's own files.
//! # Source
//! `02-workflows.md` §14.3, §19.38; decision 9

use std::collections::BTreeSet;
use std::fs::{self, File, FileType};
use std::io::Read;
use std::path::{Path, PathBuf};

use kratix_api::part::OUTPUT_BYTES_MAX;
use kratix_api::{Workload, WorkloadGroup, WorkloadGroupSelector, compression};

use crate::Error;
use crate::selectors::Entry;

/// How many files are named when there is too much.
const NAMED_MAX: usize = 3;
/// Deepest directory.
const DEPTH_MAX: usize = 64;
/// Most files of one pipeline.
const FILES_MAX: usize = 20_000;

/// Everything below an output directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The files, directories descended in place, sorted by name.
    pub files: Vec<Workload>,
    /// Names of the directories directly below the output directory, also empty ones.
    pub directories: BTreeSet<String>,
}

/// Reads all files below `root`.
///
/// # Errors
/// [`Error::Refused`] naming the file, [`Error::TooLarge`] naming the largest ones, [`Error::File`] for what the system says.
/// # Limits
/// [`OUTPUT_BYTES_MAX`] in all files together, as the pipeline has written them; 20,000 files, 64 levels.
pub fn read(root: &Path) -> Result<Output, Error> {
    let canonical = fs::canonicalize(root).map_err(Error::file("read", root))?;
    let mut walk = Walk { root: canonical.clone(), output: Output::default(), sizes: Vec::new(), bytes: 0 };
    walk.directory(&canonical, "", 0)?;
    walk.finish()
}

struct Walk {
    /// Canonical, so that containment can be told by prefix.
    root: PathBuf,
    output: Output,
    /// Sizes of the files, with their paths.
    sizes: Vec<(u64, String)>,
    /// The sum of them.
    bytes: u64,
}

impl Walk {
    fn directory(&mut self, path: &Path, relative: &str, depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(refused(relative, "it is nested too deeply"));
        }
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).map_err(Error::file("read", path))? {
            let entry = entry.map_err(Error::file("read", path))?;
            entries.push(entry.file_name());
        }
        entries.sort(); // bytewise on the systems pods run on
        for name in entries {
            let Some(text) = name.to_str() else {
                return Err(refused(&format!("{relative}{}", name.to_string_lossy()), "its name is not UTF-8"));
            };
            if text.eq_ignore_ascii_case(".git") {
                return Err(refused(&format!("{relative}{text}"), "names like .git are kept for repositories"));
            }
            let path = path.join(&name);
            let relative = format!("{relative}{text}");
            let kind = fs::symlink_metadata(&path).map_err(Error::file("read", &path))?.file_type();
            self.entry(&path, relative, kind, depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, relative: String, kind: FileType, depth: usize) -> Result<(), Error> {
        if kind.is_dir() {
            if depth == 0 {
                self.output.directories.insert(relative.clone());
            }
            self.directory(path, &format!("{relative}/"), depth + 1)
        } else if kind.is_symlink() {
            let target = self.follow(path, &relative)?;
            self.file(&target, relative)
        } else if kind.is_file() {
            self.file(path, relative)
        } else {
            Err(refused(&relative, "it is neither a file nor a directory"))
        }
    }

    /// Returns the file a link leads to, if that is one below the root.
    fn follow(&self, path: &Path, relative: &str) -> Result<PathBuf, Error> {
        let link = fs::read_link(path).map_err(Error::file("read", path))?;
        if link.is_absolute() {
            return Err(refused(relative, "it is a symbolic link to an absolute path"));
        }
        let Ok(target) = fs::canonicalize(path) else {
            return Err(refused(relative, "it is a symbolic link that leads nowhere"));
        };
        let Ok(inside) = target.strip_prefix(&self.root) else {
            return Err(refused(relative, "it is a symbolic link out of the output directory"));
        };
        if inside.iter().any(|part| part.eq_ignore_ascii_case(".git")) {
            return Err(refused(relative, "it is a symbolic link into a .git directory"));
        }
        match fs::symlink_metadata(&target).map_err(Error::file("read", &target))?.is_file() {
            true => Ok(target),
            false => Err(refused(relative, "it is a symbolic link to something that is not a file")),
        }
    }

    fn file(&mut self, path: &Path, relative: String) -> Result<(), Error> {
        if self.sizes.len() == FILES_MAX {
            return Err(refused(&relative, "there are more than 20000 files"));
        }
        let file = File::open(path).map_err(Error::file("read", path))?;
        let mut size = file.metadata().map_err(Error::file("read", path))?.len();
        let room = OUTPUT_BYTES_MAX.saturating_sub(self.bytes);
        // What is left is only measured as soon as it is too much.
        if self.bytes.saturating_add(size) <= OUTPUT_BYTES_MAX {
            let mut content = file.take(room + 1);
            let (content, bytes) = compression::compress_from(&mut content).map_err(Error::file("read", path))?;
            size = bytes;
            self.output.files.push(Workload { filepath: relative.clone(), content });
        }
        self.bytes = self.bytes.saturating_add(size);
        self.sizes.push((size, relative));
        if self.bytes > OUTPUT_BYTES_MAX {
            self.output.files = Vec::new();
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Output, Error> {
        if self.bytes <= OUTPUT_BYTES_MAX {
            return Ok(self.output);
        }
        let files = self.sizes.len();
        self.sizes.sort_by(|one, other| other.0.cmp(&one.0).then_with(|| one.1.cmp(&other.1)));
        let largest = self.sizes.iter().take(NAMED_MAX).map(|(bytes, path)| format!("{path:?} has {bytes}"));
        let largest = largest.collect::<Vec<_>>().join(", ");
        Err(Error::TooLarge { bytes: self.bytes, files, bytes_max: OUTPUT_BYTES_MAX, largest })
    }
}

fn refused(path: &str, reason: &'static str) -> Error {
    Error::Refused { path: path.to_owned(), reason }
}

/// Sorts files into groups: one per directory that is asked for, in order, then everything else.
///
/// # Errors
/// [`Error::Selectors`] when a directory that is asked for is not there.
pub fn groups(
    output: Output,
    entries: &[Entry],
    scheduling: Vec<WorkloadGroupSelector>,
    workflow_type: &str,
) -> Result<Vec<WorkloadGroup>, Error> {
    let source = format!("{workflow_type}-workflow");
    let selector = |entry: &Entry| WorkloadGroupSelector {
        match_labels: entry.labels.clone(),
        source: Some(source.as_str().into()),
    };
    let (default_entries, directory_entries): (Vec<&Entry>, Vec<&Entry>) =
        entries.iter().partition(|entry| entry.directory == kratix_api::work::DEFAULT_DIRECTORY);

    let mut groups = Vec::new();
    for entry in directory_entries {
        if !output.directories.contains(&entry.directory) {
            let directory = &entry.directory;
            return Err(Error::Selectors(format!(
                "invalid directory in destination-selectors.yaml: {directory}, the pipeline's output has no such directory"
            )));
        }
        groups.push(WorkloadGroup {
            destination_selectors: vec![selector(entry)],
            ..WorkloadGroup::for_directory(&entry.directory)
        });
    }
    let mut rest = WorkloadGroup::for_directory(kratix_api::work::DEFAULT_DIRECTORY);
    for file in output.files {
        let top = file.filepath.split_once('/').map(|(top, _)| top);
        let group = groups.iter_mut().find(|group: &&mut WorkloadGroup| Some(group.directory.as_str()) == top);
        group.unwrap_or(&mut rest).workloads.push(file);
    }
    if !rest.workloads.is_empty() {
        rest.destination_selectors = default_entries.into_iter().map(selector).chain(scheduling).collect();
        groups.push(rest);
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use kratix_api::selector::Labels;
    use kratix_api::work::SelectorSource;

    use super::*;

    fn output(make: impl FnOnce(&Path)) -> Result<Output, String> {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("input");
        fs::create_dir(&root).unwrap();
        make(&root);
        read(&root).map_err(|error| error.to_string())
    }

    fn paths(output: &Output) -> Vec<&str> {
        output.files.iter().map(|file| file.filepath.as_str()).collect()
    }

    fn content(output: &Output, path: &str) -> Vec<u8> {
        let file = output.files.iter().find(|file| file.filepath == path).unwrap();
        compression::decompress(&file.content, 1000).unwrap()
    }

    #[test]
    fn files_are_read_as_the_reference_recorded_them() {
        let output = output(|root| {
            fs::create_dir_all(root.join("a/b/c")).unwrap();
            fs::create_dir_all(root.join(".hiddendir")).unwrap();
            fs::create_dir_all(root.join("empty-dir")).unwrap();
            for (path, bytes) in [
                ("a/b/c/deep.yaml", b"deep: 1\n".as_slice()),
                ("empty.txt", b""),
                ("binary.bin", b"\0\x01\xff\xfebin"),
                ("with space.yaml", b"x: 1\n"),
                ("ünï-漢.yaml", "x: ü\n".as_bytes()),
                (".hidden.yaml", b"h: 1\n"),
                (".hiddendir/f.yaml", b"h: 1\n"),
                ("quote'\"s.yaml", b"x: 1\n"),
                ("-dash.yaml", b"x: 1\n"),
                ("UPPER.YML", b"k: v\n"),
            ] {
                fs::write(root.join(path), bytes).unwrap();
            }
            symlink("a/b/c/deep.yaml", root.join("link.yaml")).unwrap();
        })
        .unwrap();
        assert_eq!(
            paths(&output),
            [
                "-dash.yaml",
                ".hidden.yaml",
                ".hiddendir/f.yaml",
                "UPPER.YML",
                "a/b/c/deep.yaml",
                "binary.bin",
                "empty.txt",
                "link.yaml",
                "quote'\"s.yaml",
                "with space.yaml",
                "ünï-漢.yaml",
            ]
        );
        assert_eq!(content(&output, "binary.bin"), b"\0\x01\xff\xfebin");
        assert_eq!(content(&output, "link.yaml"), b"deep: 1\n");
        assert_eq!(content(&output, "empty.txt"), b"");
    }

    #[test]
    fn links_that_leave_the_output_are_refused_by_name() {
        for (target, reason) in [
            ("/etc/passwd", "it is a symbolic link to an absolute path"),
            ("../outside.txt", "it is a symbolic link out of the output directory"),
            ("hop", "it is a symbolic link out of the output directory"),
            ("nowhere", "it is a symbolic link that leads nowhere"),
            ("bad.yaml", "it is a symbolic link that leads nowhere"),
            ("dir", "it is a symbolic link to something that is not a file"),
        ] {
            let error = output(|root| {
                fs::write(root.join("../outside.txt"), "secret").unwrap();
                fs::create_dir(root.join("dir")).unwrap();
                if target == "hop" {
                    symlink("../outside.txt", root.join("zz-hop")).unwrap();
                }
                symlink(if target == "hop" { "zz-hop" } else { target }, root.join("bad.yaml")).unwrap();
            })
            .unwrap_err();
            assert_eq!(error, format!(r#"refused "bad.yaml" in the pipeline's output: {reason}"#));
        }
    }

    #[test]
    fn too_much_is_refused_with_its_size_the_limit_and_the_largest_files() {
        let sparse = |root: &Path, path: &str, bytes: u64| {
            File::create(root.join(path)).unwrap().set_len(bytes).unwrap();
        };
        let error = output(|root| {
            for (path, mib) in [("a.bin", 10), ("b.bin", 33), ("c.bin", 1), ("d.bin", 20), ("e.bin", 1)] {
                sparse(root, path, mib << 20);
            }
        })
        .unwrap_err();
        assert_eq!(
            error,
            "the pipeline's output is too large: 68157440 bytes in 5 files, the limit is 67108864 (64 MiB) before \
             compression; largest: \"b.bin\" has 34603008, \"d.bin\" has 20971520, \"a.bin\" has 10485760"
        );
        let whole = output(|root| {
            sparse(root, "a.bin", 1 << 20);
            sparse(root, "b.bin", (64 << 20) - (1 << 20));
        });
        assert_eq!(paths(&whole.unwrap()), ["a.bin", "b.bin"]);
        // One file is measured without being read.
        let error = output(|root| sparse(root, "sparse.img", 1 << 40)).unwrap_err();
        assert!(error.ends_with(r#"largest: "sparse.img" has 1099511627776"#), "{error}");
    }

    #[test]
    fn files_of_a_repository_and_special_files_are_refused() {
        for name in [".git", "a/.GIT"] {
            let error = output(|root| fs::create_dir_all(root.join(name)).unwrap()).unwrap_err();
            assert!(error.starts_with(&format!("refused {name:?}")), "{error}");
        }
        let error = output(|root| {
            std::os::unix::net::UnixListener::bind(root.join("s")).unwrap();
        });
        assert!(error.unwrap_err().ends_with("it is neither a file nor a directory"));
        assert!(output(|root| fs::write(root.join(".gitignore"), "x").unwrap()).is_ok());
    }

    fn entry(directory: &str, label: &str) -> Entry {
        Entry { directory: directory.into(), labels: Labels::from([(label.to_owned(), "x".to_owned())]) }
    }

    fn files(paths: &[&str], directories: &[&str]) -> Output {
        let file = |path: &&str| Workload { filepath: (*path).to_owned(), content: String::new() };
        Output {
            files: paths.iter().map(file).collect(),
            directories: directories.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn directories_asked_for_come_first_and_promise_selectors_only_count_for_the_rest() {
        let output = files(&["a.yaml", "baz/ns.yaml", "bazaar/x.yaml"], &["baz", "bazaar", "empty"]);
        let promise = WorkloadGroupSelector { source: Some(SelectorSource::Promise), ..Default::default() };
        let entries = [entry("empty", "e"), entry(".", "d"), entry("baz", "b")];
        let groups = groups(output, &entries, vec![promise.clone()], "resource").unwrap();
        let found: Vec<(&str, Vec<&str>, usize)> = groups
            .iter()
            .map(|group| {
                let paths = group.workloads.iter().map(|file| file.filepath.as_str()).collect();
                (group.directory.as_str(), paths, group.destination_selectors.len())
            })
            .collect();
        assert_eq!(
            found,
            [("empty", vec![], 1), ("baz", vec!["baz/ns.yaml"], 1), (".", vec!["a.yaml", "bazaar/x.yaml"], 2),]
        );
        assert_eq!(groups[1].id, "73feffa4b7f6bb68e44cf984c85f6e88");
        assert_eq!(groups[1].destination_selectors[0].source, Some(SelectorSource::ResourceWorkflow));
        assert_eq!(groups[2].id, "5058f1af8388633f609cadb75a75dc9d");
        assert_eq!(groups[2].destination_selectors[1], promise);
    }

    #[test]
    fn no_output_is_no_group_and_a_missing_directory_is_named() {
        assert_eq!(groups(Output::default(), &[entry(".", "d")], vec![], "promise").unwrap(), vec![]);
        let error = groups(Output::default(), &[entry("gone", "d")], vec![], "promise").unwrap_err();
        assert!(error.to_string().contains("gone, the pipeline's output has no such directory"));
    }
}
