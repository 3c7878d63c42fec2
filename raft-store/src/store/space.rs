//! A full disk: what would make the store larger is refused in time, so that there is room left to delete and compact.
//!
//! The leader refuses, when its own disk is full or when too few of the others have room; a follower with a full disk raises its
//! alarm and takes entries as long as it can, since a majority with room goes on without it. A file keeps some room, and is
//! removed when another process has filled the disk, so that the database can still write what frees space.

use super::Inner;
use crate::config::Config;
use crate::identity;
use mvcc::{Batch, Command};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often a member looks at its disk.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// After a leader refused for want of room, puts are not sent to it for so long.
const TOLD_FULL: Duration = Duration::from_secs(1);
/// The file that keeps room takes this part of the reserve: with the default of 256 MiB more than a database needs to open again, which
/// writes what stood in its log alone (32 MiB) to files, and begins a new log (32 MiB).
const KEPT_PART: u64 = 2;

/// What is known of the room on the disks.
#[derive(Debug, Default)]
pub(crate) struct Space {
    is_full: AtomicBool,
    others_lack_room: AtomicBool,
    was_told: AtomicBool,
    told_full: Mutex<Option<Instant>>,
    kept: Option<Kept>,
}

impl Space {
    /// Looks at the disk before the database is opened: what it needs for that is made free.
    pub fn open(data_dir: &Path, reserve_bytes: u64) -> Self {
        let space = Space {
            kept: Some(Kept {
                path: identity::reserve_path(data_dir),
                bytes: reserve_bytes / KEPT_PART,
            }),
            ..Space::default()
        };
        space.look_at(data_dir, reserve_bytes);
        space
    }

    /// Whether this member's disk was full at the last look.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// Whether too few others have room for what would be written; only the leader knows.
    pub fn others_have_room(&self, have_room: bool) {
        let lacked_room = self.others_lack_room.swap(!have_room, Ordering::Relaxed);
        if !have_room && !lacked_room {
            tracing::error!(
                "too few members have room on their disks: only deletes and compactions are taken"
            );
        }
    }

    /// The leader refused for want of room.
    pub fn told_full(&self, now: Instant) {
        *self.told_full.lock().expect("no holder of the lock panics") = Some(now);
        self.was_told.store(true, Ordering::Relaxed);
    }

    /// Whether a command may be proposed now.
    pub fn admits(&self, command: &Command, leads: impl FnOnce() -> bool) -> bool {
        !(self.refuses(leads) || self.was_just_told(Instant::now())) || only_frees(command)
    }

    /// Whether a batch may be proposed now by this member, which leads.
    pub fn admits_batch(&self, frame: &[u8]) -> bool {
        !self.refuses(|| true)
            || Batch::decode(frame).is_ok_and(|batch| batch.0.iter().all(only_frees))
    }

    fn refuses(&self, leads: impl FnOnce() -> bool) -> bool {
        self.others_lack_room.load(Ordering::Relaxed) || (self.is_full() && leads())
    }

    fn was_just_told(&self, now: Instant) -> bool {
        if !self.was_told.load(Ordering::Relaxed) {
            return false;
        }
        let told = *self.told_full.lock().expect("no holder of the lock panics");
        let is_recent = told.is_some_and(|at| now.duration_since(at) < TOLD_FULL);
        if !is_recent {
            self.was_told.store(false, Ordering::Relaxed);
        }
        is_recent
    }

    fn look_at(&self, data_dir: &Path, reserve_bytes: u64) {
        let free = match free_bytes(data_dir) {
            Ok(free) => free,
            // The folder is made when the member is opened for the first time.
            Err(err) if err.kind() == io::ErrorKind::NotFound => return,
            Err(err) => {
                tracing::warn!(error = %err, "the room on the disk cannot be told");
                return;
            }
        };
        self.look(free, reserve_bytes);
        if let Some(kept) = &self.kept {
            kept.look(free, reserve_bytes);
        }
    }

    /// The size at which a database that has `db_bytes` now would leave the disk only its reserve.
    pub fn db_bytes_max(&self, config: &Config, db_bytes: u64) -> u64 {
        let free = free_bytes(&config.data_dir).unwrap_or(0);
        db_bytes.saturating_add(free.saturating_sub(config.limits.disk_reserve_bytes))
    }

    /// Looks at the disk; what it says is forgotten only when there is clearly room again.
    fn look(&self, free_bytes: u64, reserve_bytes: u64) {
        let was_full = self.is_full();
        let is_full = match was_full {
            true => free_bytes < reserve_bytes / 4 * 5,
            false => free_bytes < reserve_bytes,
        };
        self.is_full.store(is_full, Ordering::Relaxed);
        match (was_full, is_full) {
            (false, true) => tracing::error!(
                free_bytes,
                reserve_bytes,
                "the disk is full: only deletes and compactions are taken until there is room"
            ),
            (true, false) => tracing::info!(free_bytes, "the disk has room again"),
            _ => {}
        }
    }
}

/// A file that keeps room.
#[derive(Debug)]
struct Kept {
    path: PathBuf,
    bytes: u64,
}

impl Kept {
    /// Gives its room away when there is hardly any left, and takes it again when there is plenty.
    fn look(&self, free_bytes: u64, reserve_bytes: u64) {
        let is_there = self.path.exists();
        if is_there && free_bytes < self.bytes {
            match std::fs::remove_file(&self.path) {
                Ok(()) => tracing::warn!(
                    bytes = self.bytes,
                    "the room that was kept is given to the database"
                ),
                Err(err) => tracing::error!(error = %err, "the room that was kept cannot be freed"),
            }
        } else if !is_there && free_bytes >= reserve_bytes / 4 * 5 + self.bytes {
            let made = File::create(&self.path)
                .and_then(|file| Ok(fallocate(&file, FallocateFlags::empty(), 0, self.bytes)?));
            if let Err(err) = made {
                tracing::warn!(error = %err, "no room can be kept for a full disk");
                // Half a file keeps nothing.
                let _ = std::fs::remove_file(&self.path);
            }
        }
    }
}

/// Looks at the member's disk as long as the member runs. By itself, since a full disk cannot wait for what else is done now and
/// then.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let reserve = inner.config.limits.disk_reserve_bytes;
    loop {
        ticks.tick().await;
        match inner.db.simulated_free_bytes() {
            Some(free) => inner.space.look(free, reserve),
            None => inner.space.look_at(&inner.config.data_dir, reserve),
        }
    }
}

fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Whether a command can only make the store smaller.
pub(super) fn only_frees(command: &Command) -> bool {
    match command {
        Command::Txn(txn) => mvcc::only_frees(txn),
        Command::LeaseGrant { .. } => false,
        Command::Compact { .. }
        | Command::LeaseRevoke { .. }
        | Command::LeaseKeepAlive { .. }
        | Command::LeaseExpire { .. }
        | Command::LeaseRenewAll { .. }
        | Command::RaiseRevision { .. }
        | Command::Tick { .. }
        | Command::KeepHistory { .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mvcc::{Op, Txn};
    use objects::Revision;

    #[test]
    fn a_full_disk_still_takes_deletes_and_compactions() {
        let put = Command::Txn(Txn {
            success: vec![Op::put("a", "b")],
            ..Txn::default()
        });
        let delete = Command::Txn(Txn {
            success: vec![Op::delete("a")],
            ..Txn::default()
        });
        let compact = Command::Compact {
            revision: Revision(5),
        };
        let space = Space::default();
        let admits = |command: &Command| space.admits(command, || true);
        assert!(admits(&put));
        space.look(99, 100);
        assert!(!admits(&put) && space.admits(&delete, || true) && space.admits(&compact, || true));
        assert!(
            space.admits(&put, || false),
            "a follower lets the leader decide"
        );
        let both = Batch(vec![put.clone(), compact.clone()])
            .encode()
            .expect("a small batch");
        let freeing = Batch(vec![delete, compact])
            .encode()
            .expect("a small batch");
        assert!(!space.admits_batch(&both) && space.admits_batch(&freeing));
        space.look(110, 100);
        assert!(!admits(&put), "a little room is not enough");
        space.look(130, 100);
        assert!(admits(&put));
        space.others_have_room(false);
        assert!(!admits(&put));
        space.others_have_room(true);
        assert!(admits(&put));
    }

    #[test]
    fn who_was_told_of_a_full_disk_asks_again_a_moment_later() {
        let (space, now) = (Space::default(), Instant::now());
        assert!(!space.was_just_told(now));
        space.told_full(now);
        assert!(space.was_just_told(now) && space.was_just_told(now + TOLD_FULL / 2));
        assert!(!space.was_just_told(now + TOLD_FULL));
    }

    #[test]
    fn kept_room_is_given_away_and_taken_again() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let space = Space::open(dir.path(), 4 << 20);
        let path = identity::reserve_path(dir.path());
        let kept = space.kept.as_ref().expect("it keeps room");
        assert_eq!(path.metadata().expect("it is there").len(), 2 << 20);
        kept.look(2 << 20, 4 << 20);
        assert!(path.exists(), "there is room yet");
        kept.look(1000, 4 << 20);
        assert!(!path.exists());
        kept.look(5 << 20, 4 << 20);
        assert!(!path.exists(), "a little room is not enough");
        kept.look(7 << 20, 4 << 20);
        assert!(path.exists());
    }
}
