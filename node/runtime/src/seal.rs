//! The shim's binary on a read-only mount of its own.
//! A container may find its runtime's binary at `/proc/PID/exe`; here it cannot be opened for writing (CVE-2019-5736). One
//! copy a version serves all pods, and shims that run keep theirs over an upgrade.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::{files, mounts};

/// Copies `binary` below `folder` under its digest, mounts the copy's folder read-only and returns the copy.
pub(crate) fn seal(binary: &Path, folder: &Path) -> Result<PathBuf> {
    let content = fs::read(binary).map_err(Error::io("read the shim", binary))?;
    let digest = hex::encode(&Sha256::digest(&content)[..8]);
    let home = folder.join(digest);
    let copy = home.join("shim");
    if mounts::is_mounted(&home) {
        return Ok(copy);
    }
    files::make_dirs(&home)?;
    files::write_atomic(&copy, &content)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))
        .map_err(Error::io("make executable", &copy))?;
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
