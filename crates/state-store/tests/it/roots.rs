//! Stores of one repository with different paths.

use std::sync::Arc;

use kratix_state_store::{Change, GitConfig, WriteError, open_with};

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
