//! A start that fails leaves nothing behind that holds the data.

use std::net::Ipv4Addr;

use super::*;

fn options(data_dir: PathBuf, kubeconfig: Option<PathBuf>) -> Options {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Options { data_dir, listen, kubeconfig, api_server: None, runtime: Runtime::Auto }
}

/// Takes everything that a running platform holds.
async fn everything_is_free(root: &std::path::Path) {
    let data_dir = DataDir::open(root).await.unwrap();
    for store in [data_dir.platform_store(), data_dir.worker_store()] {
        Server::builder().storage(Storage::File(store)).build().await.unwrap().shutdown().await;
    }
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_written_is_found_before_anything_runs() {
    let root = tempfile::tempdir().unwrap();
    let (data, file) = (root.path().join("data"), root.path().join("file"));
    std::fs::write(&file, "").unwrap();
    let error = Platform::start(options(data.clone(), Some(file.join("kubeconfig")))).await.err().unwrap();
    assert!(matches!(error, StartError::Kubeconfig { .. }), "{error:?}");
    assert!(!data.join("node/pods").exists(), "no node has started");
    everything_is_free(&data).await;
}

#[tokio::test]
async fn a_node_that_cannot_start_takes_everything_else_down() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("node")).unwrap();
    std::fs::write(root.path().join("node/pods"), "no directory").unwrap();
    let error = Platform::start(options(root.path().to_owned(), None)).await.err().unwrap();
    assert!(matches!(error, StartError::Node(_)), "{error:?}");
    everything_is_free(root.path()).await;
}
