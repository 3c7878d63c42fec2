//! How far a rollout may leave the wanted size: `maxSurge` above it, `maxUnavailable` below it.

use k8s_openapi::api::apps::v1::DeploymentSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::scaled::{Round, scaled};

/// The size that a set's deployment wanted when the set was last scaled.
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// That size and its surge.
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// The strategy in numbers of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The wanted size.
    pub replicas: i32,
    /// Pods allowed above it.
    pub surge: i32,
    /// Pods that may be missing.
    pub unavailable: i32,
    /// Whether the strategy is `Recreate`.
    pub recreate: bool,
}

impl Bounds {
    /// Resolves percentages: surge rounds up, unavailable rounds down, and both zero means that one may be unavailable, since
    /// else nothing could move.
    pub fn of(spec: &DeploymentSpec) -> Self {
        let replicas = spec.replicas.unwrap_or(1).max(0);
        let strategy = spec.strategy.as_ref();
        if strategy.is_some_and(|strategy| strategy.type_.as_deref() == Some("Recreate")) {
            return Bounds {
                replicas,
                surge: 0,
                unavailable: 0,
                recreate: true,
            };
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let quarter = IntOrString::String("25%".to_owned());
        let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref());
        let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let resolve = |value: Option<&IntOrString>, round| {
            let total = usize::try_from(replicas).unwrap_or(0);
            let pods = scaled(value.unwrap_or(&quarter), total, round);
            i32::try_from(pods).unwrap_or(i32::MAX)
        };
        let surge = resolve(surge, Round::Up);
        let mut unavailable = resolve(unavailable, Round::Down);
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        Bounds {
            replicas,
            surge,
            unavailable: unavailable.min(replicas),
            recreate: false,
        }
    }

    /// The most pods there may be.
    pub fn total_max(&self) -> i32 {
        self.replicas.saturating_add(self.surge)
    }

    /// The fewest pods that must be available.
    pub fn available_min(&self) -> i32 {
        self.replicas - self.unavailable
    }

    /// What a scaled set notes.
    pub fn annotations(&self) -> [(&'static str, String); 2] {
        [
            (DESIRED_REPLICAS, self.replicas.to_string()),
            (MAX_REPLICAS, self.total_max().to_string()),
        ]
    }
}
