//! Stores of one repository or bucket with different paths.

use std::sync::Arc;

use kratix_state_store::{
    BucketAuth, BucketConfig, Change, Environment, File, GitConfig, Handle, WriteError, open, open_with,
};

use crate::{Bed, file};

// Decision 16
#[tokio::test]
async fn ledgers_of_one_directory_are_respected_whatever_the_path_of_the_store_that_wrote_them() {
    let bed = Bed::new();
    let at = |prefix: &str, owner: &str, paths: &[&str]| {
        let files = paths.iter().map(|path| file(path, owner)).collect();
        Change::share(owner, prefix, format!(".kratix/default-{owner}.yaml"), Some(files))
    };
    let deep = GitConfig { path: "sh2".into(), ..bed.config() };
    let lives = Arc::new(|owner: &str| owner != "default-left");
    let (whole, deep) = (bed.store(), open_with(deep, bed.cache(), lives).expect("usable"));
    whole.write(at("sh2/x", "a", &["a.yaml"])).await.expect("written");
    deep.write(at("x", "b", &["b.yaml", "x/b.yaml"])).await.expect("written");
    let owned = |path: &str, owner: &str| Err(WriteError::Owned { path: path.to_owned(), owner: owner.to_owned() });
    assert_eq!(deep.write(at("x", "c", &["a.yaml"])).await, owned("sh2/x/a.yaml", "default-a"));
    assert_eq!(whole.write(at("sh2/x", "c", &["b.yaml"])).await, owned("sh2/x/b.yaml", "default-b"));
    assert_eq!(whole.write(at("sh2/x", "c", &["x/b.yaml"])).await, owned("sh2/x/x/b.yaml", "default-b"));

    // Both list it since before that was refused: what the one removes stays for the other.
    bed.foreign_push("sh2/x/.kratix/default-d.yaml", "files:\n- x/a.yaml\n");
    whole.write(Change::share("a", "sh2/x", ".kratix/default-a.yaml", None)).await.expect("written");
    assert_eq!(bed.git(&["show", "main:sh2/x/a.yaml"]), "a");

    // Who is gone loses what others take, whatever store it was in.
    whole.write(at("sh2/x", "left", &["left.yaml", "rest.yaml"])).await.expect("written");
    deep.write(at("x", "b", &["left.yaml"])).await.expect("taken");
    assert_eq!(bed.git(&["show", "main:sh2/x/.kratix/default-left.yaml"]), "files:\n- sh2/x/rest.yaml\n");
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Git,
    Bucket,
}

impl Bed {
    /// Opens the repository, or a bucket beside it, as a store with this path.
    fn at(&self, kind: Kind, root: &str) -> Handle {
        match kind {
            Kind::Git => open(GitConfig { path: root.into(), ..self.config() }, self.cache()).expect("usable"),
            Kind::Bucket => {
                std::fs::create_dir_all(self.directory.path().join("bucket")).expect("a directory");
                let endpoint = format!("file://{}", self.directory.path().display());
                let config =
                    BucketConfig::new("default", endpoint, "bucket", BucketAuth::Ambient(Environment::default()));
                open(BucketConfig { path: root.into(), ..config }, self.cache()).expect("usable")
            }
        }
    }
}

fn own(directory: &str, owner: &str, paths: Option<&[&str]>) -> Change {
    let files = |paths: &[&str]| paths.iter().map(|path| file(path, owner)).collect::<Vec<File>>();
    Change::share(owner, directory, format!(".kratix/default-{owner}.yaml"), paths.map(files))
}

/// One place has a path and a directory in each store.
const VIEWS: [(&str, &str); 3] = [("", "s/t"), ("s", "t"), ("s/t", "")];

const MOVES: [[(&str, &str); 2]; 3] = [[VIEWS[0], VIEWS[1]], [VIEWS[1], VIEWS[0]], [VIEWS[2], VIEWS[0]]];

#[tokio::test]
async fn what_an_owner_has_written_through_one_root_it_replaces_and_removes_through_another() {
    for kind in [Kind::Git, Kind::Bucket] {
        for [(root, directory), (other_root, other_directory)] in MOVES {
            let bed = Bed::new();
            let (one, other, all) = (bed.at(kind, root), bed.at(kind, other_root), bed.at(kind, ""));
            let about = format!("{kind:?} {root:?} {other_root:?}");
            one.write(own(directory, "o", Some(&["a.yaml", "b.yaml", "t/b.yaml"]))).await.expect("written");
            other.write(own(other_directory, "o", Some(&["a.yaml"]))).await.expect("written");
            assert_eq!(all.list("").await.expect("readable"), ["s/t/.kratix/default-o.yaml", "s/t/a.yaml"], "{about}");
            let again = other.write(own(other_directory, "o", Some(&["a.yaml"]))).await.expect("nothing to do");
            assert!(!again.changed, "{about}");

            one.write(own(directory, "p", Some(&["c.yaml", "t/d.yaml"]))).await.expect("written");
            other.write(own(other_directory, "p", None)).await.expect("removed");
            other.write(own(other_directory, "o", None)).await.expect("removed");
            assert_eq!(all.list("").await.expect("readable"), [""; 0], "{about}");
        }
    }
}

#[tokio::test]
async fn what_others_have_where_an_entry_could_lead_too_stays() {
    for kind in [Kind::Git, Kind::Bucket] {
        let bed = Bed::new();
        let [(all, all_directory), (upper, upper_directory), (lower, lower_directory)] =
            VIEWS.map(|(root, directory)| (bed.at(kind, root), directory));
        let foreign = Change::edit("foreign", "", vec![file("s/t/t/a.yaml", "foreign")], Vec::new());
        all.write(foreign).await.expect("written");
        upper.write(own(upper_directory, "o", Some(&["a.yaml"]))).await.expect("written");
        all.write(own(all_directory, "o", None)).await.expect("removed");
        assert_eq!(all.list("").await.expect("readable"), ["s/t/t/a.yaml"], "{kind:?}");

        // Where both are there, the one that another owner has is not meant.
        all.write(own(all_directory, "p", Some(&["b.yaml"]))).await.expect("written");
        lower.write(own(lower_directory, "o", Some(&["t/b.yaml"]))).await.expect("written");
        all.write(own(all_directory, "o", None)).await.expect("removed");
        let left = ["s/t/.kratix/default-p.yaml", "s/t/b.yaml", "s/t/t/a.yaml"];
        assert_eq!(all.list("").await.expect("readable"), left, "{kind:?}");
    }
}
