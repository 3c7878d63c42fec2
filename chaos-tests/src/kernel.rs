//! What is asked of the kernel itself: mounts that nobody else holds, and the one call that no crate wraps, by which a file system
//! stops as if the power had gone (source: the kernel's `include/uapi/linux/fs.h` and ext4's and xfs' answer to the call).

use anyhow::{Context, Result};
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
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

/// Gives the calling thread, with every thread and process that it starts from here on, a mount namespace of its own. A disk that is
/// mounted in it is in no namespace that another program makes meanwhile: a copy there would keep the file system alive when it is
/// unmounted here, and mounting it again would bring back the stopped one.
///
/// To be called before the threads of a runtime are started. Needs root.
pub fn own_mounts() -> Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS)
        .context("no mount namespace can be made (root is needed)")?;
    let nothing = None::<&str>;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    nix::mount::mount(nothing, "/", nothing, flags, nothing)
        .context("the mounts cannot be made private")
}
