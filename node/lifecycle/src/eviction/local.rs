//! Pods that take more of the node's disk than they said they would. Rule and words: Kubernetes' "Local ephemeral storage".

use objects::Quantity;

use super::{Candidate, Eviction};
use crate::resources::value;

const RESOURCE: &str = "ephemeral-storage";

/// The end of a pod that is above one of its own limits; none of one that is not.
pub fn exceeds_local_limits(candidate: &Candidate) -> Option<Eviction> {
    let message = empty_dir(candidate)
        .or_else(|| pod(candidate))
        .or_else(|| container(candidate))?;
    Some(Eviction {
        uid: candidate.pod.uid.clone(),
        message,
        grace_s: 1,
    })
}

fn empty_dir(candidate: &Candidate) -> Option<String> {
    candidate
        .pod
        .spec()
        .volumes
        .iter()
        .flatten()
        .find_map(|volume| {
            let limit = &volume.empty_dir.as_ref()?.size_limit.as_ref()?.0;
            let used = candidate
                .volumes
                .iter()
                .find(|(name, _)| *name == volume.name)?
                .1;
            let bytes = bytes(Quantity::parse(limit).ok()?)?;
            (used > bytes).then(|| {
                format!(
                    "Usage of EmptyDir volume {:?} exceeds the limit {limit:?}. ",
                    volume.name
                )
            })
        })
}

/// Where every container has a limit, their sum is the pod's.
fn pod(candidate: &Candidate) -> Option<String> {
    let spec = candidate.pod.spec();
    let limits = spec
        .containers
        .iter()
        .map(|container| value(&container.resources.as_ref()?.limits, RESOURCE));
    let total = limits
        .collect::<Option<Vec<_>>>()?
        .into_iter()
        .reduce(Quantity::plus)?;
    let written: u64 = candidate.containers.iter().map(|it| it.disk_bytes).sum();
    let used = written
        + candidate
            .volumes
            .iter()
            .map(|(_, bytes)| bytes)
            .sum::<u64>();
    (used > bytes(total)?).then(|| {
        format!("Pod ephemeral local storage usage exceeds the total limit of containers {total}. ")
    })
}

fn container(candidate: &Candidate) -> Option<String> {
    candidate
        .pod
        .spec()
        .containers
        .iter()
        .find_map(|container| {
            let limit = value(&container.resources.as_ref()?.limits, RESOURCE)?;
            let usage = candidate
                .containers
                .iter()
                .find(|it| it.name == container.name)?;
            (usage.disk_bytes > bytes(limit)?).then(|| {
                format!(
                    "Container {} exceeded its local ephemeral storage limit \"{limit}\". ",
                    container.name
                )
            })
        })
}

fn bytes(limit: Quantity) -> Option<u64> {
    u64::try_from(limit.units()).ok().filter(|bytes| *bytes > 0)
}
