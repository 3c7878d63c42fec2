//! Resizing in the middle of a rollout, or while it is paused: all sets grow or shrink in proportion, so that a larger
//! deployment does not put all its new pods on an unproven template.

use super::bounds::{DESIRED_REPLICAS, MAX_REPLICAS};
use super::{Rollout, set_annotation, size, status_of};
use crate::plan::Action;
use crate::view::Viewed;
use k8s_openapi::api::apps::v1::ReplicaSet;

fn noted(set: &Viewed<ReplicaSet>, key: &str) -> Option<i32> {
    set_annotation(set, key)?.parse().ok()
}

/// Whether the wanted size changed since a set with pods was last scaled.
pub fn is_resize(rollout: &Rollout<'_>) -> bool {
    let mut active = rollout.all().filter(|set| size(set) > 0);
    active.any(|set| {
        noted(set, DESIRED_REPLICAS).is_some_and(|desired| desired != rollout.bounds.replicas)
    })
}

/// Brings the sets to the deployment's size, without moving pods between templates.
pub fn resize(rollout: &Rollout<'_>) -> Vec<Action> {
    if let Some(only) = active_or_latest(rollout) {
        return rollout.scale(only, rollout.bounds.replicas);
    }
    let active: Vec<&Viewed<ReplicaSet>> = rollout.all().filter(|set| size(set) > 0).collect();
    if is_saturated(rollout) {
        let is_new =
            |set: &Viewed<ReplicaSet>| rollout.new.is_some_and(|new| new.uid() == set.uid());
        let old = active.into_iter().filter(|set| !is_new(set));
        return old.flat_map(|set| rollout.scale(set, 0)).collect();
    }
    if rollout.bounds.recreate {
        return Vec::new();
    }
    share(rollout, active)
}

/// The one set with pods; when none has any, the new one or else the youngest.
fn active_or_latest<'a>(rollout: &Rollout<'a>) -> Option<&'a Viewed<ReplicaSet>> {
    let mut active = rollout.all().filter(|set| size(set) > 0);
    match (active.next(), active.next()) {
        (None, _) => rollout.new.or(rollout.old.last().copied()),
        (only, None) => only,
        _ => None,
    }
}

/// Whether the new set carries the whole deployment already.
fn is_saturated(rollout: &Rollout<'_>) -> bool {
    let wanted = rollout.bounds.replicas;
    rollout.new.is_some_and(|new| {
        size(new) == wanted
            && noted(new, DESIRED_REPLICAS) == Some(wanted)
            && status_of(new).1 == wanted
    })
}

/// Shares the difference among the sets by their sizes; the largest takes what rounding leaves.
fn share(rollout: &Rollout<'_>, mut sets: Vec<&Viewed<ReplicaSet>>) -> Vec<Action> {
    let bounds = &rollout.bounds;
    let allowed = if bounds.replicas > 0 {
        bounds.total_max()
    } else {
        0
    };
    let to_add = allowed - sets.iter().map(|set| size(set)).sum::<i32>();
    // Largest first; of equals the youngest when growing, the oldest when shrinking.
    sets.sort_by_key(|set| (size(set), set.object.metadata.creation_timestamp));
    sets.reverse();
    if to_add < 0 {
        sets.sort_by_key(|set| {
            (
                std::cmp::Reverse(size(set)),
                set.object.metadata.creation_timestamp,
            )
        });
    }
    let mut sizes: Vec<i32> = Vec::with_capacity(sets.len());
    let mut added = 0;
    for set in &sets {
        let part = proportion(rollout, set, to_add, added);
        sizes.push(size(set) + part);
        added += part;
    }
    if let Some(largest) = sizes.first_mut() {
        *largest = (*largest + to_add - added).max(0);
    }
    let scaled = sets.into_iter().zip(sizes);
    scaled
        .flat_map(|(set, to)| rollout.scale(set, to))
        .collect()
}

/// The set's part of the difference, never more than is left of it.
fn proportion(rollout: &Rollout<'_>, set: &Viewed<ReplicaSet>, to_add: i32, added: i32) -> i32 {
    let left = to_add - added;
    if size(set) == 0 || left == 0 {
        return 0;
    }
    let part = fraction(rollout, set);
    if to_add > 0 {
        part.min(left)
    } else {
        part.max(left)
    }
}

/// By how much the set would change if it kept its share of the whole, rounded to the nearest.
fn fraction(rollout: &Rollout<'_>, set: &Viewed<ReplicaSet>) -> i32 {
    let bounds = &rollout.bounds;
    let size = i64::from(size(set));
    if bounds.replicas == 0 {
        return i32::try_from(-size).unwrap_or(0);
    }
    let status = rollout.deployment().view.status.as_ref();
    let before = noted(set, MAX_REPLICAS)
        .filter(|before| *before > 0)
        .or(status.and_then(|status| status.replicas))
        .unwrap_or(0);
    if before <= 0 {
        return 0;
    }
    let before = i64::from(before);
    let wanted = (2 * size * i64::from(bounds.total_max()) + before) / (2 * before);
    i32::try_from(wanted - size).unwrap_or(0)
}
