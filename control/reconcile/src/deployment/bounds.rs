//! How far a rollout may leave the wanted size: `maxSurge` above it, `maxUnavailable` below it.

use k8s_openapi::api::apps::v1::DeploymentSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

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
        let surge = resolve(surge.unwrap_or(&quarter), replicas, true);
        let mut unavailable = resolve(unavailable.unwrap_or(&quarter), replicas, false);
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

fn resolve(value: &IntOrString, of: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => (*number).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let parts = percent.max(0).saturating_mul(i64::from(of));
            let whole = if round_up {
                parts.saturating_add(99) / 100
            } else {
                parts / 100
            };
            i32::try_from(whole).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_kubernetes_rounds() {
        let percent = |text: &str| IntOrString::String(text.to_owned());
        assert_eq!(resolve(&percent("25%"), 10, true), 3);
        assert_eq!(resolve(&percent("25%"), 10, false), 2);
        assert_eq!(resolve(&percent("25%"), 1, false), 0);
        assert_eq!(resolve(&percent("0%"), 10, true), 0);
        assert_eq!(resolve(&IntOrString::Int(4), 10, false), 4);
    }
}
