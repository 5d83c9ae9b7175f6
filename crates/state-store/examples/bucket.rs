//! Measures a bucket: `cargo run --release -p kratix-state-store --example bucket -- HOST:PORT BUCKET [FILES]`
//!
//! Plain HTTP; keys come from `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`. Writes so many small files as one change, compares
//! them, writes as many changes of one file each, and removes everything again.

#![expect(clippy::print_stdout, reason = "the results")]

use std::time::Instant;

use kratix_state_store::{BucketAuth, BucketConfig, Change, File, Handle, Secret, open};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(endpoint), Some(bucket)) = (arguments.next(), arguments.next()) else {
        return Err("usage: bucket HOST:PORT BUCKET [FILES]".into());
    };
    let count: usize = arguments.next().map_or(Ok(1000), |count| count.parse())?;
    let secret = Secret::new(std::env::var("AWS_SECRET_ACCESS_KEY")?);
    let auth = BucketAuth::Keys { id: std::env::var("AWS_ACCESS_KEY_ID")?, secret };
    let config = BucketConfig { plain_http: true, ..BucketConfig::new("measured", endpoint, bucket, auth) };
    let store = open(config, ".")?;
    store.check().await?;

    let files = || (0..count).map(|n| File::new(format!("{n}.yaml"), format!("n: {n}\n"))).collect::<Vec<_>>();
    together(&store, "one change, written", count, vec![Change::replace("p", "one", files())]).await?;
    together(&store, "one change, compared", count, vec![Change::replace("p", "one", files())]).await?;
    let many = |files: &dyn Fn(usize) -> Vec<File>| {
        (0..count).map(|n| Change::replace(n.to_string(), format!("many/{n}"), files(n))).collect::<Vec<_>>()
    };
    let file = |n: usize| vec![File::new("a.yaml", format!("n: {n}\n"))];
    together(&store, "changes of one file, written", count, many(&file)).await?;
    together(&store, "changes of one file, compared", count, many(&file)).await?;
    together(&store, "changes of one file, removed", count, many(&|_| Vec::new())).await?;
    together(&store, "one change, removed", count, vec![Change::remove("p", "one")]).await?;
    Ok(())
}

/// Has all of these wait at the same time, and says how long they took.
async fn together(store: &Handle, what: &str, count: usize, changes: Vec<Change>) -> Outcome<()> {
    let started = Instant::now();
    let waiting = changes.into_iter().map(|change| {
        let store = store.clone();
        tokio::spawn(async move { store.write(change).await })
    });
    for outcome in waiting.collect::<Vec<_>>() {
        outcome.await??;
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{count} {what}: {seconds:.3} s, {:.0}/s", count as f64 / seconds);
    Ok(())
}
