//! The shim's binary on a read-only mount of its own.
//! A container may find its runtime's binary at `/proc/PID/exe`; here it cannot be opened for writing (CVE-2019-5736). One
//! copy a version serves all pods, and shims that run keep theirs over an upgrade.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::{files, mounts};

/// Copies `binary` below `folder`, mounts the copy's folder read-only and returns the copy. A binary that was copied before
/// and has not changed since is not copied again.
pub(crate) fn seal(binary: &Path, folder: &Path) -> Result<PathBuf> {
    let found = fs::metadata(binary).map_err(Error::io("find the shim", binary))?;
    let version = format!(
        "{:x}-{:x}-{:x}-{:x}",
        found.ino(),
        found.len(),
        found.mtime(),
        found.mtime_nsec()
    );
    let home = folder.join(version);
    let copy = home.join("shim");
    if mounts::is_mounted(&home) {
        return Ok(copy);
    }
    files::make_dirs(&home)?;
    let fresh = home.join("shim.new");
    fs::copy(binary, &fresh).map_err(Error::io("copy the shim from", binary))?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))
        .map_err(Error::io("make executable", &fresh))?;
    fs::rename(&fresh, &copy).map_err(Error::io("place", &copy))?;
    mounts::bind_read_only(&home, &home)?;
    Ok(copy)
}

/// Unmounts every sealed copy below `folder`. Shims that run are not disturbed.
pub(crate) fn unseal(folder: &Path) -> Result<()> {
    for point in mounts::mounts_below(folder) {
        mounts::unmount_all(&point)?;
    }
    Ok(())
}
