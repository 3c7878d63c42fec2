//! The disk of one member: an ext4 image of its own, mounted on a loop device, so that its power can be lost, its space can run
//! out and nothing of it reaches another member.
//!
//! The folder of a testbed carries the harness' process id; [`sweep`] unmounts and removes what killed harnesses left, and never
//! anything else.

use crate::cluster::{is_gone, run_with_input};
use crate::kernel;
use anyhow::{Context, Result, ensure};
use nix::mount::MntFlags;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Room for a member; the image is sparse and takes what is written.
const SIZE: u64 = 1 << 30;
/// Folders of testbeds begin with this and the process id.
pub const PREFIX: &str = "chaos-bed-";
/// The journal is not committed on its own for this long: what a program did not sync is then surely lost with the power.
const COMMIT_SECONDS: u32 = 300;
/// A file grows by so much at least.
const BLOCK: u64 = 4096;
/// An unmounted image is let go by its loop device within this, unless another mount namespace has a copy of the mount.
const RELEASE_DEADLINE: Duration = Duration::from_secs(10);
const RELEASE_POLL: Duration = Duration::from_millis(5);
/// What a file of the test of power loss holds.
const CANARY: &[u8] = b"written, and perhaps synced";

/// A mounted image.
pub struct Disk {
    image: PathBuf,
    mounted_at: PathBuf,
    is_mounted: bool,
}

/// What was put on a disk before its power was lost.
pub struct Canaries {
    synced: PathBuf,
    unsynced: PathBuf,
}

/// What a loss of power did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerLoss {
    /// A file that was synced is there, whole.
    pub kept_synced: bool,
    /// A file that was not synced is gone.
    pub lost_unsynced: bool,
}

impl Disk {
    /// Makes and mounts `folder/name`, of the image `folder/name.img`.
    pub fn create(folder: &Path, name: &str) -> Result<Self> {
        let image = folder.join(format!("{name}.img"));
        let file =
            File::create(&image).with_context(|| format!("cannot make {}", image.display()))?;
        file.set_len(SIZE).context("a sparse file can be made")?;
        let path = image.display().to_string();
        let options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard";
        run_with_input(
            "mkfs.ext4",
            &["-q", "-F", "-m", "0", "-E", options, &path],
            None,
        )?;
        let mounted_at = folder.join(name);
        std::fs::create_dir_all(&mounted_at)
            .with_context(|| format!("cannot make {}", mounted_at.display()))?;
        let mut disk = Disk {
            image,
            mounted_at,
            is_mounted: false,
        };
        disk.mount()?;
        Ok(disk)
    }

    /// Where a member keeps its data; there is nothing else in this folder.
    pub fn data(&self) -> PathBuf {
        self.mounted_at.join("data")
    }

    /// Where the image is mounted.
    pub fn mounted_at(&self) -> &Path {
        &self.mounted_at
    }

    /// Mounts it.
    pub fn mount(&mut self) -> Result<()> {
        let options = format!("loop,commit={COMMIT_SECONDS}");
        let image = self.image.display().to_string();
        let at = self.mounted_at.display().to_string();
        run_with_input("mount", &["-o", &options, &image, &at], None)?;
        self.is_mounted = true;
        std::fs::create_dir_all(self.data())
            .with_context(|| format!("cannot make {}", self.data().display()))
    }

    /// Unmounts it; nothing may have it open. Returns once the file system is gone, not only its name here.
    pub fn unmount(&mut self) -> Result<()> {
        // Not `umount2` with MNT_DETACH: a file system that somebody still has open would be mounted twice afterwards.
        nix::mount::umount(&self.mounted_at)
            .with_context(|| format!("cannot unmount {}", self.mounted_at.display()))?;
        self.is_mounted = false;
        let until = Instant::now() + RELEASE_DEADLINE;
        while let Some(device) = self.loop_device() {
            ensure!(
                Instant::now() < until,
                "{} was unmounted, but {device} still holds {}: the mount is copied in another mount namespace",
                self.mounted_at.display(),
                self.image.display()
            );
            std::thread::sleep(RELEASE_POLL);
        }
        Ok(())
    }

    /// The loop device of the image.
    fn loop_device(&self) -> Option<String> {
        let devices = std::fs::read_dir("/sys/block").into_iter().flatten();
        let holds = |device: &std::fs::DirEntry| {
            let file = std::fs::read_to_string(device.path().join("loop/backing_file"));
            file.is_ok_and(|file| Path::new(file.trim_end()) == self.image)
        };
        let device = devices.flatten().find(holds)?;
        Some(device.file_name().to_string_lossy().into_owned())
    }

    /// Puts two files beside the data, one of them synced.
    pub fn set_canaries(&self) -> Result<Canaries> {
        let canaries = Canaries {
            synced: self.mounted_at.join("synced"),
            unsynced: self.mounted_at.join("unsynced"),
        };
        let write = |path: &Path| -> std::io::Result<File> {
            let mut file = File::create(path)?;
            file.write_all(CANARY)?;
            Ok(file)
        };
        let synced = write(&canaries.synced).context("cannot write to the disk")?;
        synced.sync_all().context("cannot sync the disk")?;
        File::open(&self.mounted_at)
            .and_then(|folder| folder.sync_all())
            .context("cannot sync the disk's folder")?;
        write(&canaries.unsynced).context("cannot write to the disk")?;
        Ok(canaries)
    }

    /// The file system stops as if the power had gone. What is on it can be reached again after [`Disk::power_on`].
    pub fn cut_power(&self) -> Result<()> {
        kernel::shut_down_file_system(&self.mounted_at)
    }

    /// Mounts a disk again whose power was cut; nothing may have it open. Tells what became of the canaries, and removes them.
    pub fn power_on(&mut self, canaries: &Canaries) -> Result<PowerLoss> {
        self.unmount()?;
        self.mount()?;
        let holds = |path: &Path| std::fs::read(path).is_ok_and(|bytes| bytes == CANARY);
        let result = PowerLoss {
            kept_synced: holds(&canaries.synced),
            lost_unsynced: !holds(&canaries.unsynced),
        };
        for path in [&canaries.synced, &canaries.unsynced] {
            let _ = std::fs::remove_file(path);
        }
        Ok(result)
    }

    /// Fills the disk but for `leave` bytes; [`Disk::drain`] undoes it. Returns how much is left.
    pub fn fill(&self, leave: u64) -> Result<u64> {
        let balloon = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.balloon())
            .context("cannot make the file that fills the disk")?;
        let mut piece = self.available()?.saturating_sub(leave);
        while piece >= BLOCK {
            let length = balloon.metadata().map_or(0, |file| file.len());
            match rustix::fs::fallocate(&balloon, FallocateFlags::empty(), length, piece) {
                Ok(()) => piece = piece.min(self.available()?.saturating_sub(leave)),
                // What describes the file takes room too.
                Err(Errno::NOSPC) => piece /= 2,
                Err(error) => return Err(error).context("cannot fill the disk"),
            }
        }
        self.available()
    }

    /// Gives back what [`Disk::fill`] took.
    pub fn drain(&self) -> Result<()> {
        match std::fs::remove_file(self.balloon()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("cannot remove the file that fills the disk")
            }
            _ => Ok(()),
        }
    }

    /// Bytes that can be written.
    pub fn available(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(&self.mounted_at).context("cannot ask for free space")?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    /// Destroys the data.
    pub fn wipe(&self) -> Result<()> {
        std::fs::remove_dir_all(self.data())
            .and_then(|()| std::fs::create_dir(self.data()))
            .with_context(|| format!("cannot wipe {}", self.data().display()))
    }

    fn balloon(&self) -> PathBuf {
        self.mounted_at.join("balloon")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted
            && let Err(error) = nix::mount::umount2(&self.mounted_at, MntFlags::MNT_DETACH)
        {
            eprintln!(
                "warning: {} stays mounted: {error}",
                self.mounted_at.display()
            );
        }
    }
}

/// How a file is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Its last bytes are cut off.
    Cut {
        /// How many.
        bytes: u64,
    },
    /// A sector is zeroed.
    ZeroSector {
        /// Where it begins.
        at: u64,
    },
    /// One bit is flipped.
    FlipBit {
        /// The byte.
        at: u64,
        /// The bit, 0 to 7.
        bit: u8,
    },
}

/// The unit in which disks lose data.
pub const SECTOR: u64 = 512;

/// Damages a file that nobody has open; the damage is synced.
pub fn damage(path: &Path, damage: Damage) -> Result<()> {
    let shown = || format!("cannot damage {}", path.display());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .with_context(shown)?;
    let length = file.metadata().with_context(shown)?.len();
    match damage {
        Damage::Cut { bytes } => {
            ensure!(bytes <= length, "{} is shorter", path.display());
            file.set_len(length - bytes).with_context(shown)?;
        }
        Damage::ZeroSector { at } => {
            let end = length.min(at + SECTOR);
            ensure!(at < end, "{} is shorter", path.display());
            file.write_all_at(&vec![0; (end - at) as usize], at)
                .with_context(shown)?;
        }
        Damage::FlipBit { at, bit } => {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).with_context(shown)?;
            file.write_all_at(&[byte[0] ^ (1 << bit)], at)
                .with_context(shown)?;
        }
    }
    file.sync_all().with_context(shown)
}

/// Unmounts and removes the folders of testbeds whose harness is no more. What cannot be removed is left to the next run.
pub fn sweep() {
    let temporary = std::env::temp_dir();
    let entries = std::fs::read_dir(&temporary)
        .into_iter()
        .flatten()
        .flatten();
    for entry in entries {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX))
            .and_then(|rest| rest.split('-').next());
        if !pid.is_some_and(is_gone) {
            continue;
        }
        let folder = entry.path();
        for inside in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let _ = nix::mount::umount2(&inside.path(), MntFlags::MNT_DETACH);
        }
        let _ = std::fs::remove_dir_all(&folder);
    }
}
