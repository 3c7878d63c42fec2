//! Sub-paths of volumes, held by descriptor: a container that can write the volume could swap a folder for a link to the
//! node's files between the check and the mount (CVE-2017-1002101, CVE-2021-25741). So the place is opened inside the
//! volume, and what was opened is bound to a path of our own, which is mounted into the container.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::image::blocking;
use crate::{files, mounts};

/// Binds `sub_path` of the volume at `volume` below `folder` and returns the path to mount. A place that does not exist is
/// made as a folder. Links may lead elsewhere in the volume, never out of it.
pub async fn sub_path(folder: &Path, volume: &Path, sub_path: &str) -> Result<PathBuf> {
    let (folder, volume, sub_path) = (
        folder.to_path_buf(),
        volume.to_path_buf(),
        PathBuf::from(sub_path),
    );
    blocking(move || bind(&folder, &volume, &sub_path)).await
}

fn bind(folder: &Path, volume: &Path, sub_path: &Path) -> Result<PathBuf> {
    let plain = sub_path
        .components()
        .all(|component| matches!(component, Component::Normal(_) | Component::CurDir));
    if !plain {
        return Err(Error::Config(format!(
            "subPath {} must be relative and without '..'",
            sub_path.display()
        )));
    }
    let name =
        hex::encode(&Sha256::digest(volume.join(sub_path).as_os_str().as_encoded_bytes())[..12]);
    let target = folder.join("..subpaths").join(name);
    if mounts::is_mounted(&target) {
        return Ok(target);
    }
    let root: OwnedFd = File::open(volume)
        .map_err(Error::io("open", volume))?
        .into();
    let place =
        open_or_make(&root, sub_path).map_err(Error::errno("open", volume.join(sub_path)))?;
    let stat = rustix::fs::fstat(&place).map_err(Error::errno("examine", volume.join(sub_path)))?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
        files::make_dirs(&target)?;
    } else {
        files::make_dirs(&folder.join("..subpaths"))?;
        File::create(&target).map_err(Error::io("create", &target))?;
    }
    mounts::bind(
        Path::new(&format!("/proc/self/fd/{}", place.as_raw_fd())),
        &target,
    )?;
    Ok(target)
}

fn open_or_make(root: &OwnedFd, sub_path: &Path) -> rustix::io::Result<OwnedFd> {
    let mut done = PathBuf::from(".");
    let mut place = open(root, &done)?;
    for component in sub_path.components() {
        done.push(component);
        place = match open(root, &done) {
            Err(Errno::NOENT) => {
                match rustix::fs::mkdirat(&place, component.as_os_str(), Mode::from_raw_mode(0o750))
                {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error),
                }
                open(root, &done)?
            }
            other => other?,
        };
    }
    Ok(place)
}

fn open(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(
        root,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )
}
