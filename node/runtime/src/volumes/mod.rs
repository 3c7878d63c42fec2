//! Volumes of a pod: emptyDir, the files of config maps, secrets and projections, host paths, and safe sub-paths.
//! Input is plain data; reading the API is the caller's. Everything lives below one folder of the pod
//! (`Pods::volumes_folder`), which `Pods::remove` unmounts and removes. Making what exists is fine; so is tearing down what is gone.

mod atomic;
mod host_path;
mod sub_path;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::image::blocking;
use crate::{files, mounts};

pub use host_path::HostPathKind;
pub use sub_path::sub_path;

/// A volume and where its content comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// Its name in the pod: a DNS label.
    pub name: String,
    /// What it holds.
    pub source: Source,
    /// Group that may read and, where the volume can be written, write it (`fsGroup`).
    pub fs_group: Option<u32>,
}

/// What a volume holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// Empty at first; lives as long as the pod.
    EmptyDir {
        /// In memory (`medium: Memory`).
        memory: bool,
        /// Bytes that a memory volume can hold. A disk volume's limit is watched by the caller with `disk_usage`.
        size_bytes_max: Option<u64>,
    },
    /// Files by their path in the volume; changed all at once.
    Files {
        /// On a tmpfs, so that secrets never touch a disk.
        memory: bool,
        /// Path and file.
        files: BTreeMap<String, VolumeFile>,
    },
    /// A path of the node.
    HostPath {
        /// Absolute.
        path: PathBuf,
        /// What must be there, or is made.
        kind: HostPathKind,
    },
}

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeFile {
    /// Its bytes.
    pub content: Vec<u8>,
    /// Its mode, `0o644` where nothing else is said.
    pub mode: u32,
}

/// A wish for one key of a config map or secret (`items`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Key of the data.
    pub key: String,
    /// Path in the volume.
    pub path: String,
    /// Mode in place of the volume's default.
    pub mode: Option<u32>,
}

/// The files of a config map or secret: all keys, or the wished ones. A wished key that is not there is an error unless
/// `optional`.
pub fn select(
    data: &BTreeMap<String, Vec<u8>>,
    items: &[Item],
    mode_default: u32,
    optional: bool,
) -> Result<BTreeMap<String, VolumeFile>> {
    if items.is_empty() {
        let file = |content: &Vec<u8>| VolumeFile {
            content: content.clone(),
            mode: mode_default,
        };
        return Ok(data
            .iter()
            .map(|(key, content)| (key.clone(), file(content)))
            .collect());
    }
    let mut files = BTreeMap::new();
    for item in items {
        match data.get(&item.key) {
            Some(content) => {
                files.insert(
                    item.path.clone(),
                    VolumeFile {
                        content: content.clone(),
                        mode: item.mode.unwrap_or(mode_default),
                    },
                );
            }
            None if optional => {}
            None => {
                return Err(Error::Config(format!(
                    "references non-existent config key: {}",
                    item.key
                )));
            }
        }
    }
    Ok(files)
}

/// Makes a volume below `folder`, or brings it up to date, and returns the path to mount.
pub async fn materialise(folder: &Path, volume: Volume) -> Result<PathBuf> {
    let folder = folder.to_path_buf();
    blocking(move || make(&folder, &volume)).await
}

/// Unmounts and removes a volume. A host path is left alone.
pub async fn teardown(folder: &Path, name: &str) -> Result<()> {
    check_name(name)?;
    let path = folder.join(name);
    blocking(move || {
        for point in mounts::mounts_below(&path) {
            mounts::unmount_all(&point)?;
        }
        files::remove_tree(&path)
    })
    .await
}

/// What files take of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes of blocks.
    pub bytes: u64,
    /// Files, folders and whatever else has an inode.
    pub inodes: u64,
}

impl std::ops::Add for DiskUsage {
    type Output = DiskUsage;

    fn add(self, other: DiskUsage) -> DiskUsage {
        DiskUsage {
            bytes: self.bytes + other.bytes,
            inodes: self.inodes + other.inodes,
        }
    }
}

impl std::iter::Sum for DiskUsage {
    fn sum<I: Iterator<Item = DiskUsage>>(usages: I) -> DiskUsage {
        usages.fold(DiskUsage::default(), std::ops::Add::add)
    }
}

/// What all below a folder takes, without crossing into other file systems and without following links.
pub async fn disk_usage(folder: &Path) -> Result<DiskUsage> {
    let folder = folder.to_path_buf();
    blocking(move || {
        let metadata = fs::symlink_metadata(&folder).map_err(Error::io("examine", &folder))?;
        Ok(usage(&folder, metadata.dev()))
    })
    .await
}

fn make(folder: &Path, volume: &Volume) -> Result<PathBuf> {
    check_name(&volume.name)?;
    let path = folder.join(&volume.name);
    match &volume.source {
        Source::EmptyDir {
            memory,
            size_bytes_max,
        } => make_empty(&path, *memory, *size_bytes_max, volume.fs_group)?,
        Source::Files { memory, files } => {
            files::make_dirs(&path)?;
            if *memory {
                mounts::tmpfs(&path, "mode=0755", false)?;
            }
            atomic::write(&path, files, volume.fs_group).map_err(|error| named(volume, error))?;
        }
        Source::HostPath { path, kind } => {
            host_path::prepare(path, *kind).map_err(|message| Error::Volume {
                name: volume.name.clone(),
                message,
            })?;
            return Ok(path.clone());
        }
    }
    Ok(path)
}

fn named(volume: &Volume, error: Error) -> Error {
    Error::Volume {
        name: volume.name.clone(),
        message: error.to_string(),
    }
}

fn make_empty(
    path: &Path,
    memory: bool,
    size_bytes_max: Option<u64>,
    fs_group: Option<u32>,
) -> Result<()> {
    let fresh = !path.exists();
    files::make_dirs(path)?;
    if memory {
        let size = size_bytes_max
            .map(|bytes| format!(",size={bytes}"))
            .unwrap_or_default();
        mounts::tmpfs(path, &format!("mode=0777{size}"), true)?;
    }
    if fresh {
        // Files that the pod's users make belong to the group too.
        let mode = if fs_group.is_some() { 0o2777 } else { 0o777 };
        std::os::unix::fs::chown(path, None, fs_group)
            .map_err(Error::io("change the group of", path))?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(Error::io("change the mode of", path))?;
    }
    Ok(())
}

fn check_name(name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(allowed) {
        return Err(Error::Volume {
            name: name.into(),
            message: "the name must be a DNS label".into(),
        });
    }
    Ok(())
}

fn usage(path: &Path, device: u64) -> DiskUsage {
    let Ok(metadata) = path.symlink_metadata() else {
        return DiskUsage::default();
    };
    if metadata.dev() != device {
        return DiskUsage::default();
    }
    let own = DiskUsage {
        bytes: metadata.blocks() * 512,
        inodes: 1,
    };
    if !metadata.is_dir() {
        return own;
    }
    let Ok(entries) = fs::read_dir(path) else {
        return own;
    };
    let below = entries.flatten().map(|entry| usage(&entry.path(), device));
    own + below.sum()
}
