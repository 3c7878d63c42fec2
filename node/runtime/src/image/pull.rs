//! Pulls images from OCI registries: manifest, configuration, layers, each digest checked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{StreamExt, TryStreamExt};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::config::{Descriptor, INDEX, ImageConfigFile, MANIFEST, Manifest, pick_platform};
use super::reference::{Reference, is_digest};
use super::store::{BLOB_BYTES_MAX, Staged, sha256};
use super::{Image, Images, blocking};
use crate::error::{Error, Result};

/// A registry that is silent for so long is given up.
const READ_TIME_MAX: Duration = Duration::from_secs(60);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);
/// Layers of one image that are fetched at one time.
const LAYERS_AT_ONCE: usize = 3;

/// A pull that several callers wait for. The error is text, since it is told to each of them.
pub(super) type Shared = futures::future::Shared<BoxFuture<'static, Result<Image, String>>>;

/// A user of a registry, as an image pull secret holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryCredentials {
    /// `host` or `host:port`; `docker.io` also by its old names.
    pub registry: String,
    /// User.
    pub username: String,
    /// Password or token.
    pub password: String,
}

/// How far a pull is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that came.
    pub bytes: u64,
    /// Bytes of all layers that were not here.
    pub bytes_total: u64,
}

/// How to pull.
#[derive(Clone, Default)]
pub struct PullOptions {
    /// Tried in order where the registry fits; then anonymous.
    pub credentials: Vec<RegistryCredentials>,
    /// Called as bytes come, from the pull's task.
    pub progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
}

pub(super) async fn pull(images: &Images, reference: &str, options: PullOptions) -> Result<Image> {
    let parsed = Reference::parse(reference)?;
    let deadline = images.inner.config.pull_time_max;
    let shared = {
        let mut in_flight = images
            .inner
            .in_flight
            .lock()
            .expect("no holder of this lock panics");
        // Other credentials may see other images: only equal asks are shared.
        let key = format!("{parsed} {:?}", options.credentials);
        let task = in_flight
            .entry(key.clone())
            .or_insert_with(|| start(images.clone(), parsed.clone(), options, key, deadline));
        task.clone()
    };
    shared.await.map_err(|message| Error::Pull {
        reference: parsed.to_string(),
        message,
    })
}

/// Runs in a task of its own: a caller that goes away does not stop the others' pull.
fn start(
    images: Images,
    reference: Reference,
    options: PullOptions,
    key: String,
    deadline: Duration,
) -> Shared {
    let task = tokio::spawn(async move {
        let result = tokio::time::timeout(deadline, run(&images, &reference, &options)).await;
        images
            .inner
            .in_flight
            .lock()
            .expect("no holder of this lock panics")
            .remove(&key);
        match result {
            Ok(Ok(image)) => Ok(image),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(format!(
                "it took longer than {deadline:?}; check the network and the registry"
            )),
        }
    });
    async move {
        task.await
            .unwrap_or_else(|error| Err(format!("the pull died: {error}")))
    }
    .boxed()
    .shared()
}

async fn run(
    images: &Images,
    reference: &Reference,
    options: &PullOptions,
) -> Result<Image, String> {
    let _turn = images
        .inner
        .pulls
        .acquire()
        .await
        .map_err(|_| "the node is shutting down".to_string())?;
    let mut last = String::new();
    for auth in authentications(reference, &options.credentials) {
        let session = Session::new(images, reference, auth, options);
        match session.fetch().await {
            Ok(image) => return Ok(image),
            Err(Failure::Denied(message)) => last = message,
            Err(Failure::Other(message)) => return Err(message),
        }
    }
    Err(last)
}

fn authentications(
    reference: &Reference,
    credentials: &[RegistryCredentials],
) -> Vec<RegistryAuth> {
    let fits = |credential: &&RegistryCredentials| {
        same_registry(&credential.registry, &reference.registry)
    };
    let given = credentials
        .iter()
        .filter(fits)
        .map(|found| RegistryAuth::Basic(found.username.clone(), found.password.clone()));
    given.chain([RegistryAuth::Anonymous]).collect()
}

/// Secrets name registries in many ways: with a scheme, a path, Docker's old address.
fn same_registry(secret: &str, registry: &str) -> bool {
    let host = secret
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or(host);
    let host = if matches!(host, "index.docker.io" | "registry-1.docker.io") {
        "docker.io"
    } else {
        host
    };
    host == registry
}

enum Failure {
    /// Other credentials may do.
    Denied(String),
    Other(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Other(error.to_string())
    }
}

impl From<OciDistributionError> for Failure {
    fn from(error: OciDistributionError) -> Self {
        let message = match std::error::Error::source(&error) {
            Some(source) if !error.to_string().contains(&source.to_string()) => {
                format!("{error}: {source}")
            }
            _ => error.to_string(),
        };
        match error {
            OciDistributionError::AuthenticationFailure(_)
            | OciDistributionError::UnauthorizedError { .. } => Failure::Denied(message),
            _ => Failure::Other(message),
        }
    }
}

struct Session<'a> {
    images: &'a Images,
    reference: &'a Reference,
    client: oci_client::Client,
    remote: oci_client::Reference,
    auth: RegistryAuth,
    options: &'a PullOptions,
}

impl<'a> Session<'a> {
    fn new(
        images: &'a Images,
        reference: &'a Reference,
        auth: RegistryAuth,
        options: &'a PullOptions,
    ) -> Self {
        let config = &images.inner.config;
        let registry = config
            .mirrors
            .get(&reference.registry)
            .unwrap_or(&reference.registry)
            .clone();
        let place = Reference {
            registry: registry.clone(),
            ..reference.clone()
        };
        let plain = place.is_loopback() || config.insecure_registries.contains(&registry);
        let protocol = if plain {
            ClientProtocol::Http
        } else {
            ClientProtocol::Https
        };
        let client = oci_client::Client::new(ClientConfig {
            protocol,
            read_timeout: Some(READ_TIME_MAX),
            connect_timeout: Some(CONNECT_TIME_MAX),
            ..ClientConfig::default()
        });
        let remote = match &reference.digest {
            Some(digest) => oci_client::Reference::with_digest(
                registry,
                reference.repository.clone(),
                digest.clone(),
            ),
            None => oci_client::Reference::with_tag(
                registry,
                reference.repository.clone(),
                reference.version().to_string(),
            ),
        };
        Self {
            images,
            reference,
            client,
            remote,
            auth,
            options,
        }
    }

    async fn fetch(&self) -> Result<Image, Failure> {
        let (manifest, bytes) = self.manifest().await?;
        let descriptor = manifest
            .config
            .clone()
            .ok_or_else(|| Failure::Other("the manifest has no configuration".into()))?;
        let config = self.small_blob(&descriptor).await?;
        let parsed: ImageConfigFile = serde_json::from_slice(&config)
            .map_err(|error| Failure::Other(format!("configuration: {error}")))?;
        let diff_ids = parsed.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            return Err(Failure::Other(
                "the manifest and the configuration tell different numbers of layers".into(),
            ));
        }
        let store = &self.images.inner.store;
        let mut missing: Vec<(Descriptor, String)> = vec![];
        for (layer, diff_id) in manifest.layers.into_iter().zip(diff_ids) {
            if !store.has_layer(&diff_id) && !missing.iter().any(|(_, other)| *other == diff_id) {
                missing.push((layer, diff_id));
            }
        }
        let counter = Counter::new(
            missing.iter().map(|(layer, _)| layer.size).sum(),
            self.options,
        );
        let staged: Vec<Staged> = futures::stream::iter(missing)
            .map(|(layer, diff_id)| self.layer(layer, diff_id, &counter))
            .buffered(LAYERS_AT_ONCE)
            .try_collect()
            .await?;
        let (images, reference) = (self.images.clone(), self.reference.clone());
        let image = blocking(move || {
            let store = &images.inner.store;
            store.write_blob(&config)?;
            let digest = store.write_blob(&bytes)?;
            store.commit(&reference, &digest, staged)
        });
        Ok(image.await?)
    }

    /// The manifest for this machine, through at most one index.
    async fn manifest(&self) -> Result<(Manifest, Vec<u8>), Failure> {
        let (manifest, bytes) = self
            .manifest_at(&self.remote, self.reference.digest.as_deref())
            .await?;
        if manifest.manifests.is_empty() {
            return Ok((manifest, bytes));
        }
        let entry = pick_platform(&manifest.manifests).ok_or_else(|| {
            Failure::Other(
                "no match for platform in manifest: there is no image for this machine".into(),
            )
        })?;
        let remote = oci_client::Reference::with_digest(
            self.remote.registry().to_string(),
            self.remote.repository().to_string(),
            entry.digest.clone(),
        );
        self.manifest_at(&remote, Some(&entry.digest)).await
    }

    async fn manifest_at(
        &self,
        remote: &oci_client::Reference,
        digest: Option<&str>,
    ) -> Result<(Manifest, Vec<u8>), Failure> {
        let accepted = [
            MANIFEST,
            INDEX,
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.docker.distribution.manifest.list.v2+json",
        ];
        let (bytes, _) = self
            .client
            .pull_manifest_raw(remote, &self.auth, &accepted)
            .await?;
        if let Some(digest) = digest
            && sha256(&bytes) != digest
        {
            return Err(Failure::Other(format!(
                "the registry's manifest does not have the digest {digest}"
            )));
        }
        let manifest = serde_json::from_slice(&bytes)
            .map_err(|error| Failure::Other(format!("manifest: {error}")))?;
        Ok((manifest, bytes.to_vec()))
    }

    async fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Failure> {
        if descriptor.size > BLOB_BYTES_MAX {
            return Err(Failure::Other("the configuration is too long".into()));
        }
        let mut stream = self
            .client
            .pull_blob_stream(&self.remote, &oci_descriptor(descriptor))
            .await?
            .stream;
        let mut bytes = vec![];
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.map_err(|error| Failure::Other(error.to_string()))?);
            if bytes.len() as u64 > BLOB_BYTES_MAX {
                return Err(Failure::Other("the configuration is too long".into()));
            }
        }
        if sha256(&bytes) != descriptor.digest {
            return Err(Failure::Other(format!(
                "blob {} came with another digest",
                descriptor.digest
            )));
        }
        Ok(bytes)
    }

    /// Fetches a layer to a file, checks it and unpacks it beside its place.
    async fn layer(
        &self,
        layer: Descriptor,
        diff_id: String,
        counter: &Counter<'_>,
    ) -> Result<Staged, Failure> {
        if !is_digest(&layer.digest) {
            return Err(Failure::Other(format!(
                "{:?} is not a digest",
                layer.digest
            )));
        }
        let path = self.images.inner.store.temporary();
        let result = self.download(&layer, &path, counter).await;
        if let Err(error) = result {
            let _ = tokio::fs::remove_file(&path).await;
            return Err(error);
        }
        let (images, name) = (self.images.clone(), self.reference.to_string());
        let staged = blocking(move || {
            let file = std::fs::File::open(&path).map_err(Error::io("open", &path))?;
            let staged = images.inner.store.stage_layer(&name, file, &diff_id);
            let _ = std::fs::remove_file(&path);
            staged
        });
        Ok(staged.await?)
    }

    async fn download(
        &self,
        layer: &Descriptor,
        path: &PathBuf,
        counter: &Counter<'_>,
    ) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::Other(error.to_string());
        let mut stream = self
            .client
            .pull_blob_stream(&self.remote, &oci_descriptor(layer))
            .await?
            .stream;
        let mut file = tokio::fs::File::create(path).await.map_err(failed)?;
        let (mut hash, mut length) = (Sha256::new(), 0u64);
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(failed)?;
            length += chunk.len() as u64;
            if length > layer.size {
                return Err(Failure::Other(format!(
                    "layer {} is longer than the manifest says",
                    layer.digest
                )));
            }
            hash.update(&chunk);
            file.write_all(&chunk).await.map_err(failed)?;
            counter.add(chunk.len() as u64);
        }
        file.flush().await.map_err(failed)?;
        if format!("sha256:{}", hex::encode(hash.finalize())) != layer.digest {
            return Err(Failure::Other(format!(
                "layer {} came with another digest",
                layer.digest
            )));
        }
        Ok(())
    }
}

struct Counter<'a> {
    bytes: std::sync::atomic::AtomicU64,
    bytes_total: u64,
    options: &'a PullOptions,
}

impl<'a> Counter<'a> {
    fn new(bytes_total: u64, options: &'a PullOptions) -> Self {
        Self {
            bytes: 0.into(),
            bytes_total,
            options,
        }
    }

    fn add(&self, more: u64) {
        let bytes = self
            .bytes
            .fetch_add(more, std::sync::atomic::Ordering::Relaxed)
            + more;
        if let Some(progress) = &self.options.progress {
            progress(Progress {
                bytes,
                bytes_total: self.bytes_total,
            });
        }
    }
}

fn oci_descriptor(descriptor: &Descriptor) -> OciDescriptor {
    OciDescriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.clone(),
        size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
        ..OciDescriptor::default()
    }
}
