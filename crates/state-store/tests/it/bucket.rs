//! Buckets on a real S3 server, looked at by requests of the test's own.

mod directory;
mod identity;
mod network;
mod sharing;
mod trouble;
mod writing;

use std::collections::BTreeMap;

use kratix_state_store::{BucketAuth, BucketConfig, Change, File, Handle, Secret, open};
use kratix_testing::s3::{ACCESS_KEY, Options, S3, SECRET_KEY};

const BUCKET: &str = "state";

/// A server with one bucket.
struct Shelf {
    server: S3,
}

impl Shelf {
    /// `None` where there is no server program.
    async fn new() -> Option<Self> {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Option<Self> {
        let server = S3::start_with(options).await?;
        server.add_bucket(BUCKET).await;
        Some(Self { server })
    }

    fn config(&self) -> BucketConfig {
        let plain_http = self.server.ca_pem().is_none();
        BucketConfig { plain_http, ..BucketConfig::new("default", self.server.endpoint(), BUCKET, keys(SECRET_KEY)) }
    }

    fn store(&self) -> Handle {
        open_bucket(self.config())
    }

    async fn files(&self) -> BTreeMap<String, String> {
        self.server.files(BUCKET).await
    }

    async fn keys(&self) -> Vec<String> {
        self.server.keys(BUCKET).await
    }

    /// Returns the requests since the last call, without those that only find out the region.
    fn requests(&self) -> Vec<String> {
        let all = self.server.take_requests().into_iter();
        all.filter(|request| !request.contains("kratix-write-permission-check")).collect()
    }

    /// Returns how many requests of each method there were since the last call; listings count as `LIST`.
    fn methods(&self) -> BTreeMap<String, usize> {
        let mut methods = BTreeMap::new();
        for request in self.requests() {
            let method = request.split(' ').next().unwrap_or_default();
            let method = if request.contains("list-type=2") { "LIST" } else { method };
            *methods.entry(method.to_owned()).or_default() += 1;
        }
        methods
    }
}

fn keys(secret: &str) -> BucketAuth {
    BucketAuth::Keys { id: ACCESS_KEY.to_owned(), secret: Secret::new(secret) }
}

fn open_bucket(config: BucketConfig) -> Handle {
    open(config, "unused").expect("a usable configuration")
}

fn file(path: &str, content: &str) -> File {
    File::new(path, content.to_owned())
}

fn replace(id: &str, directory: &str, files: &[(&str, &str)]) -> Change {
    Change::replace(id, directory, files.iter().map(|(path, content)| file(path, content)).collect())
}

/// Has all of these wait at the same time, so that they become one batch.
async fn together(
    store: &Handle,
    changes: Vec<Change>,
) -> Vec<Result<kratix_state_store::Written, kratix_state_store::WriteError>> {
    let mut answers = Vec::new();
    for change in changes {
        answers.push(store.reserve().await.expect("open").send(change));
    }
    let mut outcomes = Vec::new();
    for answer in answers {
        outcomes.push(answer.await);
    }
    outcomes
}

fn map(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(key, content)| ((*key).to_owned(), (*content).to_owned())).collect()
}
