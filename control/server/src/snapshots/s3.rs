//! S3-compatible storage: objects are uploaded in parts and appear whole or not at all.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{Certificate, ClientOptions, ObjectStoreExt, RetryConfig, WriteMultipart};
use objects::snapshots::S3Target;
use std::io;
use std::time::Duration;

/// What a part holds: S3 takes 10,000 of them, so an archive may have 80 GB.
const PART_BYTES: usize = 8 << 20;
/// Parts on their way at once; what is produced beyond that waits.
const PARTS_AT_ONCE: usize = 2;
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long one part may take.
const REQUEST_MAX: Duration = Duration::from_secs(120);
const RETRIES_MAX: usize = 4;
const RETRY_FOR: Duration = Duration::from_secs(180);
/// How long the archive may not go on while it is written.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// A bucket.
pub struct Bucket {
    store: AmazonS3,
    target: S3Target,
}

impl Bucket {
    /// Nothing is asked of the service yet.
    pub fn open(target: S3Target) -> Result<Self> {
        let endpoint = target.endpoint.as_deref();
        let allow_http = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
        let mut options = ClientOptions::new()
            .with_allow_http(allow_http)
            .with_connect_timeout(CONNECT_MAX)
            .with_timeout(REQUEST_MAX);
        if let Some(pem) = &target.ca_pem {
            let certificates = Certificate::from_pem_bundle(pem.as_bytes())
                .context("the CA of the S3 service is no PEM")?;
            for certificate in certificates {
                options = options.with_root_certificate(certificate);
            }
        }
        let retry = RetryConfig {
            max_retries: RETRIES_MAX,
            retry_timeout: RETRY_FOR,
            ..RetryConfig::default()
        };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&target.bucket)
            .with_virtual_hosted_style_request(target.virtual_hosted)
            .with_client_options(options)
            .with_retry(retry);
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
        }
        if let Some(region) = &target.region {
            builder = builder.with_region(region);
        }
        match (&target.access_key_id, &target.secret_access_key) {
            (Some(id), Some(secret)) => {
                builder = builder
                    .with_access_key_id(id)
                    .with_secret_access_key(&secret.0);
            }
            (None, None) => {}
            _ => bail!("an S3 access key and its secret are given both or none"),
        }
        let store = builder
            .build()
            .context("the S3 storage cannot be used as it is told")?;
        Ok(Bucket { store, target })
    }

    /// Uploads the stream under `name`; returns its size. `wrote` is told of each part of the stream. When this fails or is dropped,
    /// no object of that name appears, and the parts are given back.
    pub async fn put(
        &self,
        name: &str,
        mut stream: impl Stream<Item = io::Result<Bytes>> + Unpin + Send,
        wrote: &(dyn Fn(&Bytes) + Send + Sync),
    ) -> Result<u64> {
        let path = self.path(name);
        let begun = self.store.put_multipart(&path).await;
        let upload = begun.with_context(|| format!("cannot begin to write {}", self.url(name)))?;
        let mut upload = Upload(Some(WriteMultipart::new_with_chunk_size(
            upload, PART_BYTES,
        )));
        let mut bytes = 0;
        while let Some(chunk) = tokio::time::timeout(SILENCE_MAX, stream.next())
            .await
            .context("the archive did not go on in time")?
        {
            let chunk = chunk.context("the archive broke off")?;
            let parts = upload.parts();
            let room = parts.wait_for_capacity(PARTS_AT_ONCE).await;
            room.with_context(|| format!("a part of {} could not be written", self.url(name)))?;
            bytes += chunk.len() as u64;
            wrote(&chunk);
            parts.put(chunk);
        }
        let last = upload.parts().wait_for_capacity(1).await;
        last.with_context(|| format!("a part of {} could not be written", self.url(name)))?;
        let finished = upload.0.take().expect("it is taken once").finish().await;
        finished.with_context(|| format!("{} could not be completed", self.url(name)))?;
        Ok(bytes)
    }

    /// Reads an object.
    pub async fn get(&self, name: &str) -> Result<BoxStream<'static, io::Result<Bytes>>> {
        let found = self.store.get(&self.path(name)).await;
        let found = found.with_context(|| format!("cannot read {}", self.url(name)))?;
        Ok(found.into_stream().map_err(io::Error::other).boxed())
    }

    /// Deletes an object; one that is not there is no failure.
    pub async fn delete(&self, name: &str) -> Result<()> {
        match self.store.delete(&self.path(name)).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            deleted => deleted.with_context(|| format!("cannot delete {}", self.url(name))),
        }
    }

    fn path(&self, name: &str) -> Path {
        Path::from_iter(
            self.target
                .prefix
                .split('/')
                .filter(|part| !part.is_empty())
                .chain(name.split('/')),
        )
    }

    /// The object's URL, for people.
    pub fn url(&self, name: &str) -> String {
        format!("s3://{}/{}", self.target.bucket, self.path(name))
    }
}

/// An upload that is given up when it is dropped unfinished.
struct Upload(Option<WriteMultipart>);

impl Upload {
    fn parts(&mut self) -> &mut WriteMultipart {
        self.0.as_mut().expect("it is taken only to be finished")
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(upload) = self.0.take() {
            tokio::spawn(async move {
                if let Err(error) = upload.abort().await {
                    tracing::warn!(%error, "the parts of an upload that was given up could not be deleted; the bucket's own rule for unfinished uploads will");
                }
            });
        }
    }
}

/// The bucket and the object of `s3://bucket/name`.
pub fn parse_url(url: &str) -> Result<(String, String)> {
    let rest = url
        .strip_prefix("s3://")
        .with_context(|| format!("{url:?} is no S3 URL, as s3://bucket/name is one"))?;
    let (bucket, name) = rest.split_once('/').unwrap_or((rest, ""));
    ensure!(
        !bucket.is_empty() && !name.is_empty() && !name.ends_with('/'),
        "{url:?} names no object in a bucket: write it as s3://bucket/name"
    );
    Ok((bucket.to_owned(), name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_bucket_and_object() {
        let parsed = parse_url("s3://backups/prod/today.snapshot").expect("a URL");
        assert_eq!(
            parsed,
            ("backups".to_owned(), "prod/today.snapshot".to_owned())
        );
        for wrong in ["s3://", "s3://b", "s3://b/", "s3:///x", "s3://b/x/", "/b/x"] {
            assert!(parse_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn half_a_key_is_told() {
        let target = S3Target {
            bucket: "b".into(),
            access_key_id: Some("id".into()),
            ..S3Target::default()
        };
        assert!(Bucket::open(target).is_err());
    }
}
