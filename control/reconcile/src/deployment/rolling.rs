//! A rolling update's arithmetic: how large the new set may be now, and how many old pods may go.

use super::{Rollout, size, status_of};
use crate::plan::Action;
use crate::view::Viewed;
use k8s_openapi::api::apps::v1::ReplicaSet;

/// The size that the new set may have now, given the size it has.
///
/// A set that has not yet dropped to its wanted size is counted by what it has: else the total could exceed
/// `replicas + maxSurge` while the surplus is on its way out.
pub fn new_size(rollout: &Rollout<'_>, present: i32) -> i32 {
    let bounds = &rollout.bounds;
    if bounds.recreate {
        return bounds.replicas;
    }
    let total: i32 = rollout
        .all()
        .map(|set| size(set).max(status_of(set).0))
        .sum();
    let room = (bounds.total_max() - total).max(0);
    let missing = bounds.replicas - present;
    present + room.min(missing).max(0)
}

/// Brings the new set nearer to the wanted size.
pub fn scale_new(rollout: &Rollout<'_>, new: &Viewed<ReplicaSet>) -> Vec<Action> {
    let present = size(new);
    let wanted = rollout.bounds.replicas;
    if present == wanted {
        return Vec::new();
    }
    let to = if present > wanted {
        wanted
    } else {
        new_size(rollout, present)
    };
    if to == present {
        return Vec::new();
    }
    rollout.scale(new, to)
}

/// Takes away as many old pods as can be missed: first those that are not available anyway, then the oldest sets'.
pub fn scale_old(rollout: &Rollout<'_>, new: &Viewed<ReplicaSet>) -> Vec<Action> {
    let total: i32 = rollout.all().map(size).sum();
    let available_min = rollout.bounds.available_min();
    let new_unavailable = size(new) - status_of(new).1;
    let mut budget = total - available_min - new_unavailable;
    if budget <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<i32> = rollout.old.iter().map(|set| size(set)).collect();
    for (set, size) in rollout.old.iter().zip(&mut sizes) {
        let unavailable = (*size - status_of(set).1).max(0);
        let cut = unavailable.min(budget);
        *size -= cut;
        budget -= cut;
    }
    let available: i32 = rollout.all().map(|set| status_of(set).1).sum();
    budget = budget.min(available - available_min);
    for size in &mut sizes {
        let cut = (*size).min(budget.max(0));
        *size -= cut;
        budget -= cut;
    }
    let changed = rollout.old.iter().zip(sizes);
    changed
        .filter(|(set, to)| size(set) != *to)
        .flat_map(|(set, to)| rollout.scale(set, to))
        .collect()
}
