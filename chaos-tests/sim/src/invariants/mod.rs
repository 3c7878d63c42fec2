//! What must hold at every step, one file each.
//!
//! An invariant is told every event after the facts have learned it, and says what is wrong. It never looks into a member: what
//! it knows comes from disks, messages and answers.

mod acknowledged_writes_stay;
mod applied_in_order;
mod archive_is_exact;
mod committed_on_a_quorum;
mod damage_is_refused;
mod failed_sync_is_final;
mod full_disk_is_told_truly;
mod full_disks_take_no_puts;
mod lease_never_early;
mod linearizable_reads;
mod log_matching;
mod membership_safety;
mod notes_are_true;
mod nothing_committed_is_lost;
mod one_leader_a_term;
mod progress_is_true;
mod restore_reuses_nothing;
mod revision_monotone;
mod same_index_same_state;
mod term_fence;
mod vote_monotone;
mod watch_atomic;
mod watch_complete;
mod watch_ordered;
mod watch_unique;
mod whole_disks_start;

use crate::facts::Facts;
use crate::judge::Event;

/// Something that must always hold.
pub trait Invariant: Send {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Looks at an event; an error says what does not hold.
    fn check(&mut self, facts: &Facts, event: &Event<'_>) -> Result<(), String>;
}

/// All of them. Where one event breaks several, the first names it.
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::<vote_monotone::Check>::default(),
        Box::<one_leader_a_term::Check>::default(),
        Box::<log_matching::Check>::default(),
        Box::<committed_on_a_quorum::Check>::default(),
        Box::<nothing_committed_is_lost::Check>::default(),
        Box::<applied_in_order::Check>::default(),
        Box::<membership_safety::Check>::default(),
        Box::<failed_sync_is_final::Check>::default(),
        Box::<damage_is_refused::Check>::default(),
        Box::<notes_are_true::Check>::default(),
        Box::<whole_disks_start::Check>::default(),
        Box::<full_disks_take_no_puts::Check>::default(),
        Box::<full_disk_is_told_truly::Check>::default(),
        Box::<lease_never_early::Check>::default(),
        Box::<term_fence::Check>::default(),
        Box::<acknowledged_writes_stay::Check>::default(),
        Box::<linearizable_reads::Check>::default(),
        Box::<revision_monotone::Check>::default(),
        Box::<same_index_same_state::Check>::default(),
        Box::<watch_unique::Check>::default(),
        Box::<watch_ordered::Check>::default(),
        Box::<watch_atomic::Check>::default(),
        Box::<progress_is_true::Check>::default(),
        Box::<watch_complete::Check>::default(),
        Box::<archive_is_exact::Check>::default(),
        Box::<restore_reuses_nothing::Check>::default(),
    ]
}

/// What liveness after healing is called; the world itself checks it.
pub const PROGRESS: &str = "progress_after_healing";

/// The names of all invariants.
pub fn names() -> Vec<&'static str> {
    let named = all()
        .iter()
        .map(|invariant| invariant.name())
        .collect::<Vec<_>>();
    named.into_iter().chain([PROGRESS]).collect()
}
