//! A full disk: what would make the store larger is refused in time, so that there is room left to delete and compact.

use super::Inner;
use mvcc::{Batch, Command};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the disk is full, as seen at the last look.
#[derive(Debug, Default)]
pub(crate) struct Space {
    is_full: AtomicBool,
}

impl Space {
    /// Whether the disk was full at the last look.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// Whether a command may be proposed now.
    pub fn admits(&self, command: &Command) -> bool {
        !self.is_full() || only_frees(command)
    }

    /// Whether a batch of another member may be proposed now.
    pub fn admits_batch(&self, frame: &[u8]) -> bool {
        !self.is_full() || Batch::decode(frame).is_ok_and(|batch| batch.0.iter().all(only_frees))
    }

    /// Looks at the disk; what it says is forgotten only when there is clearly room again.
    pub fn look(&self, free_bytes: u64, reserve_bytes: u64) {
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

/// Looks at the disk of the member's folder.
pub(crate) fn look(inner: &Inner) {
    match free_bytes(&inner.config.data_dir) {
        Ok(free) => inner
            .space
            .look(free, inner.config.limits.disk_reserve_bytes),
        Err(err) => tracing::warn!(error = %err, "the room on the disk cannot be told"),
    }
}

fn free_bytes(path: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn only_frees(command: &Command) -> bool {
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
        assert!(space.admits(&put));
        space.look(99, 100);
        assert!(!space.admits(&put) && space.admits(&delete) && space.admits(&compact));
        let both = Batch(vec![put.clone(), compact.clone()])
            .encode()
            .expect("a small batch");
        let freeing = Batch(vec![delete, compact])
            .encode()
            .expect("a small batch");
        assert!(!space.admits_batch(&both) && space.admits_batch(&freeing));
        space.look(110, 100);
        assert!(!space.admits(&put), "a little room is not enough");
        space.look(130, 100);
        assert!(space.admits(&put));
    }
}
