//! The images' folder: references, blobs and layers. Blocking; the callers take care of threads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use super::Image;
use super::config::{ImageConfigFile, Manifest};
use super::reference::{Reference, is_digest};
use super::unpack;
use crate::error::{Error, Result};
use crate::files;

/// A manifest or configuration is not longer.
pub(super) const BLOB_BYTES_MAX: u64 = 8 << 20;

/// The folder and what is known of it.
pub(super) struct Store {
    root: PathBuf,
    references: Mutex<BTreeMap<String, String>>,
    held: Mutex<BTreeMap<String, usize>>,
    next_temporary: AtomicU64,
}

/// A layer that is unpacked but not yet in its place.
pub(super) struct Staged {
    folder: PathBuf,
    pub diff_id: String,
}

impl Store {
    pub fn open(root: &Path) -> Result<Self> {
        files::remove_tree(&root.join("tmp"))?;
        for folder in ["tmp", "blobs/sha256", "layers"] {
            files::make_dirs(&root.join(folder))?;
        }
        let references = files::read_json(&root.join("refs.json"))?.unwrap_or_default();
        Ok(Self {
            root: root.to_path_buf(),
            references: Mutex::new(references),
            held: Mutex::new(BTreeMap::new()),
            next_temporary: AtomicU64::new(0),
        })
    }

    pub fn references(&self) -> BTreeMap<String, String> {
        self.references
            .lock()
            .expect("no holder of this lock panics")
            .clone()
    }

    /// A reference by digest also finds an image that was pulled by tag, and the reverse is not so.
    pub fn resolve(&self, reference: &Reference) -> Result<Option<Image>> {
        let references = self.references();
        if let Some(digest) = references.get(&reference.to_string()) {
            return self.load(&reference.to_string(), digest);
        }
        let Some(wanted) = &reference.digest else {
            return Ok(None);
        };
        if !references.values().any(|digest| digest == wanted) {
            return Ok(None);
        }
        self.load(&reference.to_string(), wanted)
    }

    /// Reads an image; None if a part of it is missing.
    pub fn load(&self, reference: &str, digest: &str) -> Result<Option<Image>> {
        let Some(manifest) = self.read_blob::<Manifest>(digest)? else {
            return Ok(None);
        };
        let Some(descriptor) = manifest.config else {
            return Ok(None);
        };
        let Some(config) = self.read_blob::<ImageConfigFile>(&descriptor.digest)? else {
            return Ok(None);
        };
        let layers = config.rootfs.diff_ids;
        if !layers.iter().all(|layer| self.has_layer(layer)) {
            return Ok(None);
        }
        let bytes = layers.iter().map(|layer| self.layer_bytes(layer)).sum();
        let reference = Reference::parse(reference)?;
        let config = config.config.unwrap_or_default();
        Ok(Some(Image {
            reference,
            id: descriptor.digest,
            digest: digest.to_string(),
            config,
            layers,
            bytes,
        }))
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.root
            .join("blobs/sha256")
            .join(digest.trim_start_matches("sha256:"))
    }

    fn layer(&self, diff_id: &str) -> PathBuf {
        self.root
            .join("layers")
            .join(diff_id.trim_start_matches("sha256:"))
    }

    pub fn layer_fs(&self, diff_id: &str) -> PathBuf {
        self.layer(diff_id).join("fs")
    }

    fn layer_bytes(&self, diff_id: &str) -> u64 {
        fs::read_to_string(self.layer(diff_id).join("bytes"))
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    }

    /// A digest that is not one is never here: it must not become a path.
    pub fn has_layer(&self, diff_id: &str) -> bool {
        is_digest(diff_id) && self.layer_fs(diff_id).is_dir()
    }

    pub fn read_blob<T: serde::de::DeserializeOwned>(&self, digest: &str) -> Result<Option<T>> {
        if !is_digest(digest) {
            return Ok(None);
        }
        files::read_json(&self.blob(digest))
    }

    /// Keeps a manifest or configuration and returns its digest.
    pub fn write_blob(&self, bytes: &[u8]) -> Result<String> {
        let digest = sha256(bytes);
        let path = self.blob(&digest);
        if !path.exists() {
            let temporary = self.temporary();
            files::write_atomic(&temporary, bytes)?;
            fs::rename(&temporary, &path).map_err(Error::io("place", &path))?;
        }
        Ok(digest)
    }

    /// A name in `tmp` that nobody else has.
    pub fn temporary(&self) -> PathBuf {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        self.root.join("tmp").join(number.to_string())
    }

    /// Unpacks a layer beside its place and checks its digest.
    pub fn stage_layer(&self, image: &str, archive: impl Read, diff_id: &str) -> Result<Staged> {
        if !is_digest(diff_id) {
            return Err(Error::ImageDamaged {
                image: image.into(),
                message: format!("{diff_id:?} is not a digest"),
            });
        }
        let folder = self.temporary();
        let rootfs = folder.join("fs");
        files::make_dirs(&rootfs)?;
        let unpacked = unpack::unpack(archive, &rootfs).map_err(|error| {
            let _ = files::remove_tree(&folder);
            Error::ImageDamaged {
                image: image.into(),
                message: format!("layer {diff_id} cannot be unpacked: {error}"),
            }
        })?;
        if unpacked.diff_id != diff_id {
            files::remove_tree(&folder)?;
            let message = format!(
                "a layer has the digest {} and not {diff_id}: the archive is damaged or forged",
                unpacked.diff_id
            );
            return Err(Error::ImageDamaged {
                image: image.into(),
                message,
            });
        }
        let size = folder.join("bytes");
        fs::write(&size, unpacked.bytes.to_string()).map_err(Error::io("write", &size))?;
        Ok(Staged {
            folder,
            diff_id: diff_id.into(),
        })
    }

    /// Puts staged layers in their places and names the image. One sync for all layers: a crash leaves none or whole ones.
    pub fn commit(
        &self,
        reference: &Reference,
        manifest_digest: &str,
        staged: Vec<Staged>,
    ) -> Result<Image> {
        if !staged.is_empty() {
            let folder = fs::File::open(&self.root).map_err(Error::io("open", &self.root))?;
            rustix::fs::syncfs(&folder).map_err(Error::errno("sync", &self.root))?;
        }
        for layer in staged {
            let target = self.layer(&layer.diff_id);
            match fs::rename(&layer.folder, &target) {
                Ok(()) => {}
                // Another image has brought the same layer meanwhile.
                Err(_) if target.join("fs").is_dir() => files::remove_tree(&layer.folder)?,
                Err(error) => return Err(Error::io("place", &target)(error)),
            }
        }
        {
            let mut references = self
                .references
                .lock()
                .expect("no holder of this lock panics");
            references.insert(reference.to_string(), manifest_digest.to_string());
            files::write_json(&self.root.join("refs.json"), &*references)?;
        }
        self.load(&reference.to_string(), manifest_digest)?
            .ok_or_else(|| Error::ImageDamaged {
                image: reference.to_string(),
                message: "it is not complete after it was stored; remove it and pull it again"
                    .into(),
            })
    }

    pub fn remove(&self, reference: &Reference) -> Result<()> {
        let mut references = self
            .references
            .lock()
            .expect("no holder of this lock panics");
        if references.remove(&reference.to_string()).is_none() {
            return Ok(());
        }
        files::write_json(&self.root.join("refs.json"), &*references)?;
        self.sweep(&references)
    }

    /// Removes layers and blobs that no reference names and no container holds.
    fn sweep(&self, references: &BTreeMap<String, String>) -> Result<()> {
        let mut layers: BTreeSet<String> = self
            .held
            .lock()
            .expect("no holder of this lock panics")
            .keys()
            .cloned()
            .collect();
        let mut blobs = BTreeSet::new();
        for digest in references.values() {
            blobs.insert(digest.clone());
            let Some(config) = self
                .read_blob::<Manifest>(digest)?
                .and_then(|manifest| manifest.config)
            else {
                continue;
            };
            if let Some(file) = self.read_blob::<ImageConfigFile>(&config.digest)? {
                layers.extend(file.rootfs.diff_ids);
            }
            blobs.insert(config.digest);
        }
        for name in names(&self.root.join("layers"))? {
            if !layers.contains(&format!("sha256:{name}")) {
                // First out of sight, then gone: a crash between leaves only rubbish in tmp.
                let temporary = self.temporary();
                let path = self.root.join("layers").join(&name);
                fs::rename(&path, &temporary).map_err(Error::io("remove", &path))?;
                files::remove_tree(&temporary)?;
            }
        }
        for name in names(&self.root.join("blobs/sha256"))? {
            if !blobs.contains(&format!("sha256:{name}")) {
                let path = self.root.join("blobs/sha256").join(&name);
                fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
        }
        Ok(())
    }

    pub fn hold(&self, layers: &[String]) {
        let mut held = self.held.lock().expect("no holder of this lock panics");
        for layer in layers {
            *held.entry(layer.clone()).or_default() += 1;
        }
    }

    pub fn release(&self, layers: &[String]) {
        let mut held = self.held.lock().expect("no holder of this lock panics");
        for layer in layers {
            if let Some(count) = held.get_mut(layer) {
                *count -= 1;
                if *count == 0 {
                    held.remove(layer);
                }
            }
        }
    }
}

/// `sha256:…` of bytes.
pub(super) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Reads a small blob whole.
pub(super) fn read_small(mut reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    reader
        .by_ref()
        .take(BLOB_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BLOB_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a manifest or configuration is too long",
        ));
    }
    Ok(bytes)
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).map_err(Error::io("list", folder))?;
    let names =
        entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    names
        .collect::<Result<_, _>>()
        .map_err(Error::io("list", folder))
}
