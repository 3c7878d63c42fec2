//! The bucket against a real S3 server on loopback, which checks signatures and keeps its objects in a folder.

use super::s3::Bucket;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use objects::Secret;
use objects::snapshots::S3Target;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use std::io;
use std::path::Path;
use tempfile::TempDir;
use tokio::net::TcpListener;

const PART: usize = 1 << 20;

/// A server with the bucket `backups`; its folder goes with it.
async fn server() -> (TempDir, S3Target) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("backups")).expect("makes");
    let mut service =
        S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).expect("a folder"));
    service.set_auth(SimpleAuth::from_single("id", "s3cret"));
    let service = service.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                let served = Builder::new(TokioExecutor::new());
                // A client that went away is not the server's fault.
                let _ = served
                    .serve_connection(TokioIo::new(connection), service)
                    .await;
            });
        }
    });
    let target = S3Target {
        bucket: "backups".into(),
        prefix: "prod/".into(),
        endpoint: Some(endpoint),
        access_key_id: Some("id".into()),
        secret_access_key: Some(Secret("s3cret".into())),
        ..S3Target::default()
    };
    (folder, target)
}

fn chunks(count: usize) -> Vec<io::Result<Bytes>> {
    (0..count)
        .map(|number| Ok(Bytes::from(vec![number as u8; PART])))
        .collect()
}

/// What can be seen in the bucket.
fn objects(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("backups/prod"))
        .into_iter()
        .flatten();
    entries
        .map(|entry| {
            entry
                .expect("readable")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_of_many_parts_comes_back_as_it_went() {
    crate::use_ring();
    let (folder, target) = server().await;
    let bucket = Bucket::open(target).expect("usable");
    let bytes = bucket
        .put("a.snapshot", stream::iter(chunks(20)), &|_| ())
        .await
        .expect("writes");
    assert_eq!(bytes, 20 * PART as u64);
    assert_eq!(objects(folder.path()), ["a.snapshot"]);
    let mut read = Vec::new();
    let mut stream = bucket.get("a.snapshot").await.expect("reads");
    while let Some(chunk) = stream.next().await {
        read.extend_from_slice(&chunk.expect("reads"));
    }
    assert!(read.len() == 20 * PART && (0..20).all(|number| read[number * PART] == number as u8));
    bucket.delete("a.snapshot").await.expect("deletes");
    assert!(objects(folder.path()).is_empty() && bucket.get("a.snapshot").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_off_leaves_no_object() {
    crate::use_ring();
    let (folder, target) = server().await;
    let bucket = Bucket::open(target.clone()).expect("usable");
    let mut broken = chunks(20);
    broken.push(Err(io::Error::other("the source is gone")));
    let error = bucket
        .put("b.snapshot", stream::iter(broken), &|_| ())
        .await
        .expect_err("it broke off");
    assert!(
        format!("{error:#}").contains("the source is gone"),
        "{error:#}"
    );
    // Dropped in the middle, as when leadership is lost.
    let endless = stream::iter(chunks(12)).chain(stream::pending());
    let put = bucket.put("c.snapshot", endless, &|_| ());
    assert!(
        tokio::time::timeout(std::time::Duration::from_secs(2), put)
            .await
            .is_err()
    );
    assert!(
        objects(folder.path()).is_empty(),
        "{:?}",
        objects(folder.path())
    );

    let wrong = S3Target {
        secret_access_key: Some(Secret("wrong".into())),
        ..target
    };
    let refused = Bucket::open(wrong)
        .expect("usable")
        .put("d.snapshot", stream::iter(chunks(1)), &|_| ())
        .await;
    assert!(
        format!("{:#}", refused.expect_err("the key is wrong"))
            .contains("s3://backups/prod/d.snapshot")
    );
}
