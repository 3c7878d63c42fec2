//! Builds small images from files, for tests, for `deploy/up` and for machines without a registry.
//! Deterministic: the same files give the same digests. Blocking, and it needs no privilege.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use super::config::{
    CONFIG, Descriptor, ImageConfig, ImageConfigFile, LAYER, LAYER_GZIP, MANIFEST, Manifest,
    REF_NAME, RootFs,
};
use super::store::sha256;
use crate::error::{Error, Result};

/// A file, folder or link of an image.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A folder with its mode.
    Folder(u32),
    /// A file with its mode and content.
    File(u32, Vec<u8>),
    /// A symbolic link to a target.
    Symlink(String),
    /// A hard link to a path of the image.
    HardLink(String),
}

/// An image in the making.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    layers: Vec<BTreeMap<String, Entry>>,
    config: ImageConfig,
    gzip: bool,
}

/// An image's blobs: what an archive holds and what a registry is sent.
#[derive(Clone, Debug)]
pub struct Built {
    /// The manifest's JSON.
    pub manifest: Vec<u8>,
    /// The configuration's JSON.
    pub config: Vec<u8>,
    /// The layers as they are stored.
    pub layers: Vec<Vec<u8>>,
}

impl Builder {
    /// An image without layers that is run as `config` says.
    pub fn new(config: ImageConfig) -> Self {
        Self {
            layers: vec![],
            config,
            gzip: false,
        }
    }

    /// Compresses the layers.
    pub fn gzip(mut self) -> Self {
        self.gzip = true;
        self
    }

    /// Adds a layer: path without a leading slash -> entry. Whiteouts are files named `.wh.NAME`.
    pub fn layer(mut self, entries: BTreeMap<String, Entry>) -> Self {
        self.layers.push(entries);
        self
    }

    /// Adds a layer from a folder: its files with their modes, owned by root.
    pub fn layer_from_dir(self, folder: &Path) -> Result<Self> {
        let mut entries = BTreeMap::new();
        collect(folder, folder, &mut entries)?;
        Ok(self.layer(entries))
    }

    /// A layer with a static busybox and a link for each of `applets`: a whole small system.
    pub fn busybox(self, binary: &Path, applets: &[&str]) -> Result<Self> {
        let content = std::fs::read(binary).map_err(Error::io("read", binary))?;
        let mut entries = BTreeMap::new();
        for (folder, mode) in [
            ("bin", 0o755),
            ("etc", 0o755),
            ("home", 0o755),
            ("root", 0o700),
            ("tmp", 0o1777),
            ("var", 0o755),
        ] {
            entries.insert(folder.to_string(), Entry::Folder(mode));
        }
        entries.insert("bin/busybox".into(), Entry::File(0o755, content));
        for applet in applets {
            entries.insert(
                format!("bin/{applet}"),
                Entry::HardLink("bin/busybox".into()),
            );
        }
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n";
        entries.insert("etc/passwd".into(), Entry::File(0o644, passwd.into()));
        entries.insert(
            "etc/group".into(),
            Entry::File(0o644, "root:x:0:\nnobody:x:65534:\n".into()),
        );
        Ok(self.layer(entries))
    }

    /// Makes the blobs.
    pub fn build(&self) -> Result<Built> {
        let failed = |error: io::Error| Error::io("build", "image")(error);
        let (mut layers, mut descriptors, mut diff_ids) = (vec![], vec![], vec![]);
        for entries in &self.layers {
            let archive = archive(entries).map_err(failed)?;
            diff_ids.push(sha256(&archive));
            let stored = if self.gzip {
                gzip(&archive).map_err(failed)?
            } else {
                archive
            };
            let media_type = if self.gzip { LAYER_GZIP } else { LAYER };
            descriptors.push(descriptor(media_type, &stored));
            layers.push(stored);
        }
        let architecture = if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "amd64"
        };
        let config = to_json(&ImageConfigFile {
            architecture: architecture.into(),
            os: "linux".into(),
            config: Some(self.config.clone()),
            rootfs: RootFs {
                kind: "layers".into(),
                diff_ids,
            },
        });
        let manifest = to_json(&Manifest {
            schema_version: 2,
            media_type: MANIFEST.into(),
            config: Some(descriptor(CONFIG, &config)),
            layers: descriptors,
            manifests: vec![],
        });
        Ok(Built {
            manifest,
            config,
            layers,
        })
    }

    /// Writes an OCI image layout archive that names the image `name`.
    pub fn write_oci_archive(&self, name: &str, path: &Path) -> Result<()> {
        let built = self.build()?;
        let mut entry = descriptor(MANIFEST, &built.manifest);
        entry.annotations = Some(BTreeMap::from([(REF_NAME.to_string(), name.to_string())]));
        let index = to_json(&Manifest {
            schema_version: 2,
            manifests: vec![entry],
            ..Manifest::default()
        });
        let mut entries = BTreeMap::from([
            (
                "oci-layout".to_string(),
                Entry::File(0o644, br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ),
            ("index.json".to_string(), Entry::File(0o644, index)),
        ]);
        for blob in [built.manifest, built.config]
            .into_iter()
            .chain(built.layers)
        {
            let digest = sha256(&blob);
            entries.insert(
                format!("blobs/{}", digest.replacen(':', "/", 1)),
                Entry::File(0o644, blob),
            );
        }
        let bytes = archive(&entries).map_err(Error::io("build", path))?;
        let mut file = File::create(path).map_err(Error::io("create", path))?;
        file.write_all(&bytes).map_err(Error::io("write", path))
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.into(),
        digest: sha256(bytes),
        size: bytes.len() as u64,
        ..Default::default()
    }
}

fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("these structures have string keys only")
}

fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// A tar archive: folders and files in order, hard links last so that their targets exist.
fn archive(entries: &BTreeMap<String, Entry>) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(vec![]);
    let is_link = |entry: &Entry| matches!(entry, Entry::HardLink(_));
    let ordered = entries
        .iter()
        .filter(|(_, entry)| !is_link(entry))
        .chain(entries.iter().filter(|(_, entry)| is_link(entry)));
    for (path, entry) in ordered {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        match entry {
            Entry::Folder(mode) => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(*mode);
                tar.append_data(&mut header, path, io::empty())?;
            }
            Entry::File(mode, content) => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_mode(*mode);
                header.set_size(content.len() as u64);
                tar.append_data(&mut header, path, content.as_slice())?;
            }
            Entry::Symlink(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                tar.append_link(&mut header, path, target)?;
            }
            Entry::HardLink(target) => {
                header.set_entry_type(tar::EntryType::Link);
                header.set_mode(0o755);
                tar.append_link(&mut header, path, target)?;
            }
        }
    }
    tar.into_inner()
}

fn collect(root: &Path, folder: &Path, entries: &mut BTreeMap<String, Entry>) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let listing = std::fs::read_dir(folder).map_err(Error::io("list", folder))?;
    for entry in listing {
        let path = entry.map_err(Error::io("list", folder))?.path();
        let metadata = path.symlink_metadata().map_err(Error::io("read", &path))?;
        let mode = metadata.permissions().mode() & 0o7777;
        let name = path
            .strip_prefix(root)
            .unwrap_or(&path)
            .to_string_lossy()
            .into_owned();
        if metadata.is_symlink() {
            let target = std::fs::read_link(&path).map_err(Error::io("read", &path))?;
            entries.insert(name, Entry::Symlink(target.to_string_lossy().into_owned()));
        } else if metadata.is_dir() {
            entries.insert(name, Entry::Folder(mode));
            collect(root, &path, entries)?;
        } else if metadata.is_file() {
            let content = std::fs::read(&path).map_err(Error::io("read", &path))?;
            entries.insert(name, Entry::File(mode, content));
        }
    }
    Ok(())
}
