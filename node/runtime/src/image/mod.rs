//! Images of the node: their references, configurations and unpacked layers.
//!
//! ```text
//! images/refs.json              reference -> manifest digest
//! images/blobs/sha256/HEX       manifests and configurations
//! images/layers/HEX/fs          a layer, unpacked once, by the digest of its uncompressed archive
//! images/layers/HEX/bytes       its size
//! images/tmp/                   what is being fetched or unpacked; emptied at the start
//! ```
//! A layer's compressed archive is not kept. Nothing becomes visible before it is complete and on disk: layers are unpacked
//! beside, synced and renamed. Layers of running containers are held (`hold`) and never removed.

mod archive;
pub mod build;
mod config;
mod pull;
mod reference;
mod store;
mod unpack;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use config::{ImageConfig, ImageConfigFile};
pub use pull::{Progress, PullOptions, RegistryCredentials};
pub use reference::Reference;

use crate::error::{Error, Result};
use store::Store;

/// Pulls at one time; further ones wait.
const PULLS_MAX: usize = 3;

/// An image that is complete on this node.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Normalised reference.
    pub reference: Reference,
    /// Digest of the configuration: what Kubernetes calls the image's id.
    pub id: String,
    /// Digest of the manifest: what `image@sha256:…` names.
    pub digest: String,
    /// How it wants to be run.
    pub config: ImageConfig,
    /// Digests of the layers, lowest first.
    pub layers: Vec<String>,
    /// Bytes of its unpacked files.
    pub bytes: u64,
}

impl Image {
    /// `docker.io/library/busybox@sha256:…`, the `imageID` of a container's status.
    pub fn repo_digest(&self) -> String {
        format!("{}@{}", self.reference.name(), self.digest)
    }
}

/// Where and how images are kept.
#[derive(Clone, Debug)]
pub struct ImagesConfig {
    /// Folder; made if it is not there.
    pub root: PathBuf,
    /// Registries (`host` or `host:port`) reached by plain HTTP, beside loopback.
    pub insecure_registries: Vec<String>,
    /// Mirrors: registry -> registry that is asked in its place.
    pub mirrors: BTreeMap<String, String>,
    /// A whole pull may take so long.
    pub pull_time_max: Duration,
}

impl ImagesConfig {
    /// Defaults for a folder: no insecure registries, no mirrors, 15 minutes a pull.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            insecure_registries: vec![],
            mirrors: BTreeMap::new(),
            pull_time_max: Duration::from_secs(900),
        }
    }
}

/// The node's images. Cheap to clone.
#[derive(Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

struct Inner {
    config: ImagesConfig,
    store: Store,
    pulls: tokio::sync::Semaphore,
    in_flight: Mutex<BTreeMap<String, pull::Shared>>,
}

impl Images {
    /// Opens the store and clears what a crash left half done.
    pub fn open(config: ImagesConfig) -> Result<Self> {
        // The HTTP client wants a provider; another part of the program may have chosen it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = Store::open(&config.root)?;
        let pulls = tokio::sync::Semaphore::new(PULLS_MAX);
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                store,
                pulls,
                in_flight: Mutex::new(BTreeMap::new()),
            }),
        })
    }

    /// Every reference and its image, by name.
    pub fn list(&self) -> Result<Vec<Image>> {
        let references = self.inner.store.references();
        references
            .into_iter()
            .filter_map(|(text, digest)| self.inner.store.load(&text, &digest).transpose())
            .collect()
    }

    /// The image of a reference as a user writes it; None if it is not here or not complete.
    pub fn resolve(&self, reference: &str) -> Result<Option<Image>> {
        self.inner.store.resolve(&Reference::parse(reference)?)
    }

    /// Imports an OCI layout or `docker save` archive, plain or gzipped. `name` names an archive's only image, for
    /// archives that carry no name.
    pub async fn import_oci_archive(
        &self,
        path: impl AsRef<Path>,
        name: Option<&str>,
    ) -> Result<Vec<Image>> {
        let (images, path) = (self.clone(), path.as_ref().to_path_buf());
        let name = name.map(Reference::parse).transpose()?;
        blocking(move || archive::import(&images.inner.store, &path, name.as_ref())).await
    }

    /// Pulls an image. Two calls for one image at one time share one pull.
    pub async fn pull(&self, reference: &str, options: PullOptions) -> Result<Image> {
        pull::pull(self, reference, options).await
    }

    /// Forgets a reference and removes what no other image or container needs. What is gone is fine.
    pub async fn remove(&self, reference: &str) -> Result<()> {
        let (images, reference) = (self.clone(), Reference::parse(reference)?);
        blocking(move || images.inner.store.remove(&reference)).await
    }

    /// Keeps the layers of a container from being removed, until `release`. Counted.
    pub fn hold(&self, layers: &[String]) {
        self.inner.store.hold(layers);
    }

    /// Undoes one `hold`.
    pub fn release(&self, layers: &[String]) {
        self.inner.store.release(layers);
    }

    /// The folders of an image's layers, lowest first.
    pub fn layer_folders(&self, image: &Image) -> Vec<PathBuf> {
        image
            .layers
            .iter()
            .map(|layer| self.inner.store.layer_fs(layer))
            .collect()
    }
}

/// Runs blocking work off the executor's threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Config(format!("a task of the node died: {error}"))),
    }
}
