//! Mounts of the node: overlay root file systems, binds, tmpfs. Blocking.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, mount_bind, mount_remount,
    move_mount, unmount,
};

use crate::error::{Error, Result};

/// mount(2) takes one page of options.
const OPTIONS_BYTES_MAX: usize = 4000;

/// Mounts an overlay of `lower` (lowest first) with a writable folder on top.
pub(crate) fn overlay(lower: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> Result<()> {
    let mut folders: Vec<String> = vec![];
    for folder in lower.iter().rev() {
        folders.push(option_path(folder)?);
    }
    let (upper, work) = (option_path(upper)?, option_path(work)?);
    let options = format!(
        "lowerdir={},upperdir={upper},workdir={work}",
        folders.join(":")
    );
    if options.len() <= OPTIONS_BYTES_MAX {
        let options =
            CString::new(options).map_err(|_| Error::Config("a path holds a zero byte".into()))?;
        return mount(
            "overlay",
            target,
            "overlay",
            MountFlags::empty(),
            Some(options.as_c_str()),
        )
        .map_err(Error::errno("mount overlay on", target));
    }
    overlay_of_many(&folders, &upper, &work, target)
        .map_err(Error::errno("mount overlay on", target))
}

/// Layer by layer, where the options would be too long: needs Linux 6.5.
fn overlay_of_many(
    folders: &[String],
    upper: &str,
    work: &str,
    target: &Path,
) -> rustix::io::Result<()> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for folder in folders {
        fsconfig_set_string(context.as_fd(), "lowerdir+", folder)?;
    }
    fsconfig_set_string(context.as_fd(), "upperdir", upper)?;
    fsconfig_set_string(context.as_fd(), "workdir", work)?;
    fsconfig_create(context.as_fd())?;
    let mounted = fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?;
    move_mount(
        mounted.as_fd(),
        "",
        CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

/// Overlay's options have no escape that all kernels know.
fn option_path(path: &Path) -> Result<String> {
    match path.to_str() {
        Some(text) if !text.contains([',', ':', '\\']) => Ok(text.to_string()),
        _ => Err(Error::Config(format!(
            "{} must not hold commas, colons and backslashes: choose another folder for the node's data",
            path.display()
        ))),
    }
}

/// Mounts a tmpfs, from which programs can be run or not. Already mounted is fine.
pub(crate) fn tmpfs(target: &Path, options: &str, executable: bool) -> Result<()> {
    if is_mounted(target) {
        return Ok(());
    }
    let options = CString::new(options)
        .map_err(|_| Error::Config("mount options hold a zero byte".into()))?;
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::NOEXEC, !executable);
    mount("tmpfs", target, "tmpfs", flags, Some(options.as_c_str()))
        .map_err(Error::errno("mount tmpfs on", target))
}

/// Binds `source` on `target`.
pub(crate) fn bind(source: &Path, target: &Path) -> Result<()> {
    mount_bind(source, target).map_err(Error::errno("bind", target))
}

/// Binds `source` on `target`, read-only.
pub(crate) fn bind_read_only(source: &Path, target: &Path) -> Result<()> {
    bind(source, target)?;
    mount_remount(
        target,
        MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV,
        "",
    )
    .map_err(Error::errno("remount read-only", target))
}

/// Detaches all that is mounted on `target`. Nothing there is fine.
pub(crate) fn unmount_all(target: &Path) -> Result<()> {
    loop {
        match unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(error) => return Err(Error::errno("unmount", target)(error)),
        }
    }
}

/// Another device than its parent's, or the same one bound.
pub(crate) fn is_mounted(path: &Path) -> bool {
    mounts_below(path).iter().any(|mounted| mounted == path)
}

/// Mount points at and below a folder, deepest first.
pub(crate) fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape);
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(folder)).collect();
    below.sort_by_key(|point| std::cmp::Reverse(point.as_os_str().len()));
    below
}

/// The kernel writes blanks and backslashes as octal.
fn unescape(text: &str) -> PathBuf {
    PathBuf::from(
        text.replace("\\040", " ")
            .replace("\\011", "\t")
            .replace("\\012", "\n")
            .replace("\\134", "\\"),
    )
}
