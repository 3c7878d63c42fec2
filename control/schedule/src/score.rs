//! Scores: which of the nodes that passed is best. Whole numbers only, so that every master decides alike.
//!
//! Each score lies between 0 and [`SCORE_MAX`]; its weight is that of Kubernetes' default profile.

use crate::needs::Needs;
use crate::snapshot::{NodeState, weighed_memory, weighed_milli_cpu};

/// The best score.
pub const SCORE_MAX: i64 = 10_000;

const WEIGHT_ALLOCATED: i64 = 1;
const WEIGHT_BALANCED: i64 = 1;
const WEIGHT_AFFINITY: i64 = 2;
const WEIGHT_TAINTS: i64 = 3;
const WEIGHT_SPREAD: i64 = 2;
const WEIGHT_NEIGHBOURS: i64 = 2;

/// A node that passed, with what only makes sense beside the other nodes.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The node.
    pub node: &'a NodeState,
    alone: i64,
    preferred: i64,
    shunned: i64,
    crowd: i64,
    liking: i64,
}

impl<'a> Candidate<'a> {
    /// Weighs a node by itself.
    pub fn new(needs: &Needs<'_>, node: &'a NodeState) -> Self {
        let (cpu, memory) = use_after(needs, node);
        let balance = SCORE_MAX - (cpu - memory).abs() / 2;
        Candidate {
            node,
            alone: WEIGHT_ALLOCATED * (SCORE_MAX - (cpu + memory) / 2) + WEIGHT_BALANCED * balance,
            preferred: preferred(needs, node),
            shunned: shunned(needs, node),
            crowd: crowd(needs, node),
            liking: needs.inter_pod.liking(node),
        }
    }
}

/// The best of the candidates; among equals the seed decides, always alike.
pub fn best<'a>(candidates: &[Candidate<'a>], seed: u64) -> Option<&'a NodeState> {
    let most = |of: fn(&Candidate<'_>) -> i64| candidates.iter().map(of).max().unwrap_or(0);
    let preferred_max = most(|candidate| candidate.preferred);
    let shunned_max = most(|candidate| candidate.shunned);
    let crowd_max = most(|candidate| candidate.crowd);
    let liking_max = most(|candidate| candidate.liking);
    let disliking_max = most(|candidate| -candidate.liking);
    let score = |candidate: &Candidate<'_>| {
        candidate.alone
            + WEIGHT_AFFINITY * share(candidate.preferred, preferred_max)
            + WEIGHT_TAINTS * (SCORE_MAX - share(candidate.shunned, shunned_max))
            + WEIGHT_SPREAD * (SCORE_MAX - share(candidate.crowd, crowd_max))
            + WEIGHT_NEIGHBOURS
                * share(candidate.liking + disliking_max, liking_max + disliking_max)
    };
    let best = candidates
        .iter()
        .max_by_key(|candidate| (score(candidate), lot(&candidate.node.name.0, seed)));
    best.map(|candidate| candidate.node)
}

fn share(value: i64, of: i64) -> i64 {
    if of <= 0 { 0 } else { value * SCORE_MAX / of }
}

/// How full the node would be with the pod, of CPU and of memory.
fn use_after(needs: &Needs<'_>, node: &NodeState) -> (i64, i64) {
    let cpu = node.weighed_milli_cpu + weighed_milli_cpu(&needs.requests);
    let memory = node.weighed_memory + weighed_memory(&needs.requests);
    (
        fullness(cpu, node.allocatable.milli_cpu),
        fullness(memory, node.allocatable.memory),
    )
}

fn fullness(used: i64, has: i64) -> i64 {
    if has <= 0 || used >= has {
        return SCORE_MAX;
    }
    let full = i128::from(used) * i128::from(SCORE_MAX) / i128::from(has);
    i64::try_from(full).unwrap_or(SCORE_MAX)
}

fn preferred(needs: &Needs<'_>, node: &NodeState) -> i64 {
    let matching = needs
        .preferred
        .iter()
        .filter(|(_, terms)| terms.matches(node));
    matching.map(|(weight, _)| weight).sum()
}

/// Taints that ask pods to stay away and are not tolerated.
fn shunned(needs: &Needs<'_>, node: &NodeState) -> i64 {
    let soft = node
        .taints
        .iter()
        .filter(|taint| taint.effect == "PreferNoSchedule" && !needs.tolerates(taint));
    i64::try_from(soft.count()).unwrap_or(i64::MAX)
}

/// Pods of the same controller on the node, and pods that a soft spread constraint wants elsewhere.
fn crowd(needs: &Needs<'_>, node: &NodeState) -> i64 {
    let siblings = needs.owner.and_then(|owner| node.owners.get(owner));
    let soft = needs.spreads.iter().filter(|spread| !spread.is_required);
    i64::from(siblings.copied().unwrap_or(0)) + soft.map(|spread| spread.present(node)).sum::<i64>()
}

/// The node's lot in a draw.
fn lot(name: &str, seed: u64) -> u64 {
    let mut hash = seed ^ 0xcbf2_9ce4_8422_2325;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}
