//! Promises that can be broken on purpose, to show that the proofs would notice.
//!
//! Without the feature `planted-bugs`, which no release has, nothing can be planted and every question here is answered "no" at
//! compile time. With it, one bug can be chosen when the program starts.

/// A promise that can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// A linearizable read is answered by the local replica, however old.
    ReadIndexOff = 1,
    /// The log is acknowledged without waiting for the disk.
    FsyncOff,
    /// A vote is given without waiting for the disk.
    VoteNotSynced,
    /// The leader answers before a quorum has the entry.
    AckBeforeCommit,
    /// An entry is applied twice, now and then.
    DoubleApply,
    /// A watch loses an event, now and then.
    WatchSkips,
    /// A watch that resumes is told the last change again.
    WatchRepeats,
    /// A watch is told progress that it has not made.
    ProgressEarly,
    /// A transaction's changes come to a watch in two batches.
    TxnSplit,
    /// The revision is lower after a restart.
    RevisionLower,
    /// Leases end by the wall clock.
    LeaseWallClock,
    /// A damaged entry is taken for a torn tail and cut off with all that follows.
    TornCommitted,
}

impl Bug {
    /// Every bug.
    #[cfg(feature = "planted-bugs")]
    pub const ALL: [Bug; 12] = [
        Bug::ReadIndexOff,
        Bug::FsyncOff,
        Bug::VoteNotSynced,
        Bug::AckBeforeCommit,
        Bug::DoubleApply,
        Bug::WatchSkips,
        Bug::WatchRepeats,
        Bug::ProgressEarly,
        Bug::TxnSplit,
        Bug::RevisionLower,
        Bug::LeaseWallClock,
        Bug::TornCommitted,
    ];

    /// The bug's name where one is chosen.
    #[cfg(feature = "planted-bugs")]
    pub fn name(self) -> &'static str {
        match self {
            Bug::ReadIndexOff => "read-index-off",
            Bug::FsyncOff => "fsync-off",
            Bug::VoteNotSynced => "vote-not-synced",
            Bug::AckBeforeCommit => "ack-before-commit",
            Bug::DoubleApply => "double-apply",
            Bug::WatchSkips => "watch-skips",
            Bug::WatchRepeats => "watch-repeats",
            Bug::ProgressEarly => "progress-early",
            Bug::TxnSplit => "txn-split",
            Bug::RevisionLower => "revision-lower",
            Bug::LeaseWallClock => "lease-wall-clock",
            Bug::TornCommitted => "torn-committed",
        }
    }

    /// How seldom a bug strikes that does so only now and then: one time in so many.
    #[cfg(feature = "planted-bugs")]
    fn one_in(self) -> u64 {
        match self {
            Bug::DoubleApply => 200,
            Bug::WatchSkips => 10_000,
            _ => 1,
        }
    }
}

#[cfg(feature = "planted-bugs")]
pub use on::{is, lower_revision, plant, strikes};

#[cfg(feature = "planted-bugs")]
mod on {
    use super::Bug;
    use crate::overlay::Overlay;
    use crate::tables::Tables;
    use objects::Revision;
    use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

    static PLANTED: AtomicU8 = AtomicU8::new(0);
    static ONE_IN: AtomicU64 = AtomicU64::new(1);
    static CHANCES: AtomicU64 = AtomicU64::new(0);

    /// Plants the bug that `text` names, as `NAME` or `NAME:N` for one time in N; an unknown name is an error that lists them all.
    pub fn plant(text: &str) -> Result<Bug, String> {
        let (name, one_in) = match text.split_once(':') {
            Some((name, one_in)) => (name, one_in.parse().map(Some).map_err(|_| text.to_owned())?),
            None => (text, None),
        };
        let Some(bug) = Bug::ALL.into_iter().find(|bug| bug.name() == name) else {
            let names = Bug::ALL.map(Bug::name).join(", ");
            return Err(format!("no bug is named {name}; there are {names}"));
        };
        ONE_IN.store(one_in.unwrap_or(bug.one_in()).max(1), Ordering::Relaxed);
        PLANTED.store(bug as u8, Ordering::Relaxed);
        Ok(bug)
    }

    /// Whether this bug is planted.
    pub fn is(bug: Bug) -> bool {
        PLANTED.load(Ordering::Relaxed) == bug as u8
    }

    /// Whether this bug is planted and strikes now.
    pub fn strikes(bug: Bug) -> bool {
        let every = ONE_IN.load(Ordering::Relaxed);
        is(bug) && CHANCES.fetch_add(1, Ordering::Relaxed) % every == every - 1
    }

    /// Moves the store's revision back.
    pub fn lower_revision<T: Tables + ?Sized>(overlay: &mut Overlay<'_, T>, by: u64) {
        let meta = overlay.meta_mut();
        meta.revision = Revision(meta.revision.0.saturating_sub(by).max(1));
    }
}

/// Whether this bug is planted.
#[cfg(not(feature = "planted-bugs"))]
pub const fn is(_: Bug) -> bool {
    false
}

/// Whether this bug is planted and strikes now.
#[cfg(not(feature = "planted-bugs"))]
pub const fn strikes(_: Bug) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "planted-bugs")]
    #[test]
    fn a_bug_is_planted_by_its_name_and_strikes_as_often_as_asked() {
        assert_eq!(plant("watch-skips:3"), Ok(Bug::WatchSkips));
        let strikes: Vec<bool> = (0..6).map(|_| strikes(Bug::WatchSkips)).collect();
        assert_eq!(strikes, [false, false, true, false, false, true]);
        assert!(is(Bug::WatchSkips) && !is(Bug::FsyncOff));
        let unknown = plant("watch-stops").expect_err("there is no such bug");
        assert!(unknown.contains("torn-committed"), "{unknown}");
    }

    #[cfg(not(feature = "planted-bugs"))]
    #[test]
    fn nothing_can_be_planted_in_a_usual_build() {
        assert!(!is(Bug::FsyncOff) && !strikes(Bug::WatchSkips));
    }
}
