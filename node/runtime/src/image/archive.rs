//! Imports archives: an OCI image layout, or what `docker save` writes. Blocking.
//! The archive's files are first put under names of our own, so that no path of it is ever used on this node.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::config::{
    CONFIG, Descriptor, ImageConfigFile, LAYER, MANIFEST, Manifest, REF_NAME, pick_platform,
};
use super::reference::Reference;
use super::store::{Store, read_small, sha256};
use super::{Image, unpack};
use crate::error::{Error, Result};
use crate::files;

/// Entries of an archive; an image has a few blobs a layer.
const ENTRIES_MAX: usize = 10_000;

/// Imports every named image of the archive.
pub(super) fn import(store: &Store, path: &Path, name: Option<&Reference>) -> Result<Vec<Image>> {
    let folder = store.temporary();
    files::make_dirs(&folder)?;
    let result = spread(path, &folder).and_then(|files| {
        let archive = Archive { store, path, files };
        archive.import(name)
    });
    files::remove_tree(&folder)?;
    result
}

struct Archive<'a> {
    store: &'a Store,
    path: &'a Path,
    /// Name in the archive -> file on disk.
    files: BTreeMap<String, PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Archive<'_> {
    fn import(&self, name: Option<&Reference>) -> Result<Vec<Image>> {
        // Docker writes both forms; manifest.json has the whole names.
        if self.files.contains_key("manifest.json") {
            return self.import_saved(name);
        }
        if self.files.contains_key("index.json") {
            return self.import_layout(name);
        }
        Err(self.damaged(
            "it has neither index.json (OCI image layout) nor manifest.json (docker save)",
        ))
    }

    fn import_saved(&self, name: Option<&Reference>) -> Result<Vec<Image>> {
        let saved: Vec<SavedImage> = self.json("manifest.json")?;
        let mut images = vec![];
        for image in &saved {
            let config = self.bytes(&image.config)?;
            let parsed: ImageConfigFile = self.parse(&image.config, &config)?;
            let mut manifest = Manifest {
                schema_version: 2,
                media_type: MANIFEST.into(),
                config: Some(Descriptor {
                    media_type: CONFIG.into(),
                    digest: sha256(&config),
                    size: config.len() as u64,
                    ..Default::default()
                }),
                ..Manifest::default()
            };
            for diff_id in &parsed.rootfs.diff_ids {
                manifest.layers.push(Descriptor {
                    media_type: LAYER.into(),
                    digest: diff_id.clone(),
                    ..Default::default()
                });
            }
            let bytes =
                serde_json::to_vec(&manifest).map_err(|error| self.damaged(&error.to_string()))?;
            let names: Vec<Reference> = match name {
                Some(name) => vec![name.clone()],
                None => image
                    .repo_tags
                    .iter()
                    .flatten()
                    .map(|tag| Reference::parse(tag))
                    .collect::<Result<_>>()?,
            };
            images.extend(self.store(&names, &bytes, &config, &parsed, &image.layers)?);
        }
        Ok(images)
    }

    fn import_layout(&self, name: Option<&Reference>) -> Result<Vec<Image>> {
        let index: Manifest = self.json("index.json")?;
        let mut images = vec![];
        for entry in &index.manifests {
            let names: Vec<Reference> = match (name, annotated_name(entry)) {
                (Some(name), _) => vec![name.clone()],
                (None, Some(annotated)) => vec![Reference::parse(&annotated)?],
                (None, None) => return Err(self.damaged("an image has no name; give one")),
            };
            let (manifest, bytes) = self.manifest(entry)?;
            let config = manifest
                .config
                .as_ref()
                .ok_or_else(|| self.damaged("a manifest has no configuration"))?;
            let config = self.blob(config)?;
            let parsed: ImageConfigFile = self.parse("config", &config)?;
            let layers: Vec<String> = manifest
                .layers
                .iter()
                .map(|layer| blob_name(&layer.digest))
                .collect();
            images.extend(self.store(&names, &bytes, &config, &parsed, &layers)?);
        }
        Ok(images)
    }

    /// The manifest behind an entry, through at most one index of platforms.
    fn manifest(&self, entry: &Descriptor) -> Result<(Manifest, Vec<u8>)> {
        let bytes = self.blob(entry)?;
        let manifest: Manifest = self.parse(&entry.digest, &bytes)?;
        if manifest.manifests.is_empty() {
            return Ok((manifest, bytes));
        }
        let entry = pick_platform(&manifest.manifests)
            .ok_or_else(|| self.damaged("it has no image for this machine's platform"))?;
        let bytes = self.blob(entry)?;
        let manifest = self.parse(&entry.digest, &bytes)?;
        Ok((manifest, bytes))
    }

    fn store(
        &self,
        names: &[Reference],
        manifest: &[u8],
        config: &[u8],
        parsed: &ImageConfigFile,
        layers: &[String],
    ) -> Result<Vec<Image>> {
        if names.is_empty() {
            return Err(self.damaged("an image has no name; give one"));
        }
        if layers.len() != parsed.rootfs.diff_ids.len() {
            return Err(
                self.damaged("the manifest and the configuration tell different numbers of layers")
            );
        }
        let mut staged = vec![];
        for (layer, diff_id) in layers.iter().zip(&parsed.rootfs.diff_ids) {
            if !self.store.has_layer(diff_id)
                && !staged
                    .iter()
                    .any(|other: &super::store::Staged| &other.diff_id == diff_id)
            {
                let path = self.file(layer)?;
                let file = File::open(path).map_err(Error::io("open", path))?;
                staged.push(
                    self.store
                        .stage_layer(&names[0].to_string(), file, diff_id)?,
                );
            }
        }
        self.store.write_blob(config)?;
        let digest = self.store.write_blob(manifest)?;
        let mut images = vec![self.store.commit(&names[0], &digest, staged)?];
        for name in &names[1..] {
            images.push(self.store.commit(name, &digest, vec![])?);
        }
        Ok(images)
    }

    fn file(&self, name: &str) -> Result<&Path> {
        self.files
            .get(name)
            .map(PathBuf::as_path)
            .ok_or_else(|| self.damaged(&format!("it lacks {name}")))
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.file(name)?;
        let file = File::open(path).map_err(Error::io("open", path))?;
        read_small(file).map_err(Error::io("read", path))
    }

    /// A small blob, its digest checked.
    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let bytes = self.bytes(&blob_name(&descriptor.digest))?;
        if sha256(&bytes) != descriptor.digest {
            return Err(self.damaged(&format!("blob {} has another digest", descriptor.digest)));
        }
        Ok(bytes)
    }

    fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        self.parse(name, &self.bytes(name)?)
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, name: &str, bytes: &[u8]) -> Result<T> {
        serde_json::from_slice(bytes).map_err(|error| self.damaged(&format!("{name}: {error}")))
    }

    fn damaged(&self, message: &str) -> Error {
        Error::ImageDamaged {
            image: self.path.display().to_string(),
            message: message.into(),
        }
    }
}

fn blob_name(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

/// containerd writes the whole name beside the tag; others write a whole name as the tag.
fn annotated_name(entry: &Descriptor) -> Option<String> {
    let annotations = entry.annotations.as_ref()?;
    annotations
        .get("io.containerd.image.name")
        .or_else(|| annotations.get(REF_NAME))
        .cloned()
}

/// Writes the archive's files into `folder` under numbers.
fn spread(path: &Path, folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let damaged = |error: io::Error| Error::ImageDamaged {
        image: path.display().to_string(),
        message: error.to_string(),
    };
    let mut tar = tar::Archive::new(unpack::decompress(file).map_err(damaged)?);
    let (mut files, mut links) = (BTreeMap::new(), vec![]);
    for (number, entry) in tar.entries().map_err(damaged)?.enumerate() {
        let mut entry = entry.map_err(damaged)?;
        if number >= ENTRIES_MAX {
            return Err(damaged(io::Error::other("it has too many entries")));
        }
        let name = entry
            .path()
            .map_err(damaged)?
            .to_string_lossy()
            .trim_start_matches("./")
            .to_string();
        match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                let target = folder.join(number.to_string());
                let mut output = File::create(&target).map_err(Error::io("create", &target))?;
                io::copy(&mut entry, &mut output).map_err(damaged)?;
                files.insert(name, target);
            }
            // Old archives share layers by links such as `../ID/layer.tar`.
            tar::EntryType::Symlink | tar::EntryType::Link => {
                if let Some(target) = entry.link_name().map_err(damaged)? {
                    links.push((
                        name,
                        target
                            .to_string_lossy()
                            .trim_start_matches("../")
                            .to_string(),
                    ));
                }
            }
            _ => {}
        }
    }
    for (name, target) in links {
        if let Some(path) = files.get(&target).cloned() {
            files.insert(name, path);
        }
    }
    Ok(files)
}
