//! The one kernel call that no crate wraps: a file system stops as if the power had gone.
//! Source of the rule: the kernel's `include/uapi/linux/fs.h` and ext4's and xfs' answer to the call.

use anyhow::{Context, Result};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Nothing more is written, the journal included: what was not synced is lost.
const NO_LOG_FLUSH: u32 = 2;

mod ioctl {
    // `_IOR('X', 125, __u32)`: the direction bits are the kernel's, though it reads the number.
    nix::ioctl_read!(fs_shutdown, b'X', 125, u32);
}

/// Stops the file system that `inside` lies on. Every later access of it fails; unmounting and mounting it brings back what was
/// synced before.
#[expect(
    unsafe_code,
    reason = "FS_IOC_SHUTDOWN has no safe wrapper in nix or rustix"
)]
pub fn shut_down_file_system(inside: &Path) -> Result<()> {
    let folder = File::open(inside).with_context(|| format!("cannot open {}", inside.display()))?;
    let mut flags = NO_LOG_FLUSH;
    // SAFETY: the descriptor is open for the length of the call, and the kernel reads four bytes at the address given, which is
    // that of a u32 on this stack.
    unsafe { ioctl::fs_shutdown(folder.as_raw_fd(), &raw mut flags) }.with_context(|| {
        format!(
            "the kernel does not shut the file system of {} down",
            inside.display()
        )
    })?;
    Ok(())
}
