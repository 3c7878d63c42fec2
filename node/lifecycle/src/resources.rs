//! What requests and limits mean for the kernel: quality of service, shares, quotas, the order in which memory is taken back.
//! Rules: Kubernetes' "Pod Quality of Service Classes" and the kubelet's `oom_score_adj`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use objects::Quantity;
use serde::{Deserialize, Serialize};

use crate::observed::Amount;

const PERIOD_US: i64 = 100_000;
const QUOTA_US_MIN: i64 = 1000;
const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;

/// Quality of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosClass {
    /// Limits equal requests, for both CPU and memory of all containers.
    Guaranteed,
    /// Something is requested.
    Burstable,
    /// Nothing is.
    BestEffort,
}

impl QosClass {
    /// As `status.qosClass` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            QosClass::Guaranteed => "Guaranteed",
            QosClass::Burstable => "Burstable",
            QosClass::BestEffort => "BestEffort",
        }
    }
}

/// The class of a pod.
pub fn qos_class(spec: &PodSpec) -> QosClass {
    let containers = || {
        spec.init_containers
            .iter()
            .flatten()
            .chain(&spec.containers)
    };
    let all = |kind: fn(&ResourceRequirements) -> &Option<BTreeMap<String, ApiQuantity>>,
               name: &'static str| {
        move |container: &Container| {
            container
                .resources
                .as_ref()
                .and_then(|resources| value(kind(resources), name))
        }
    };
    let mut guaranteed = true;
    let mut anything = false;
    for container in containers() {
        for name in ["cpu", "memory"] {
            let limit = all(|resources| &resources.limits, name)(container)
                .filter(|limit| !limit.is_zero());
            let request = all(|resources| &resources.requests, name)(container)
                .filter(|request| !request.is_zero());
            anything |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some()
                && request
                    .is_none_or(|request| Some(request.milli()) == limit.map(Quantity::milli));
        }
    }
    match (anything, guaranteed) {
        (false, _) => QosClass::BestEffort,
        (true, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
    }
}

/// The processors and memory that a container was given: requests and limits as the API writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Applied {
    /// `limits`.
    pub limits: BTreeMap<String, String>,
    /// `requests`.
    pub requests: BTreeMap<String, String>,
}

impl Applied {
    /// What a container asks for.
    pub fn of(container: &Container) -> Self {
        let resources = container.resources.clone().unwrap_or_default();
        let texts = |amounts: Option<BTreeMap<String, ApiQuantity>>| {
            let amounts = amounts.unwrap_or_default().into_iter();
            let amounts = amounts.filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory"));
            amounts.map(|(name, amount)| (name, amount.0)).collect()
        };
        Self {
            limits: texts(resources.limits),
            requests: texts(resources.requests),
        }
    }

    /// Whether one resource is another in `other`.
    pub fn differs_in(&self, other: &Applied, resource: &str) -> bool {
        self.limits.get(resource) != other.limits.get(resource)
            || self.requests.get(resource) != other.requests.get(resource)
    }

    /// Puts these amounts in the place of a container's own.
    pub fn put(&self, container: &mut Container) {
        let put = |into: &mut Option<BTreeMap<String, ApiQuantity>>,
                   amounts: &BTreeMap<String, String>| {
            let all = into.get_or_insert_default();
            all.retain(|name, _| !matches!(name.as_str(), "cpu" | "memory"));
            all.extend(quantities(amounts));
        };
        let resources = container.resources.get_or_insert_default();
        put(&mut resources.limits, &self.limits);
        put(&mut resources.requests, &self.requests);
    }

    /// As a status tells it.
    pub fn to_api(&self) -> ResourceRequirements {
        let told = |amounts: &BTreeMap<String, String>| {
            (!amounts.is_empty()).then(|| quantities(amounts).collect())
        };
        ResourceRequirements {
            limits: told(&self.limits),
            requests: told(&self.requests),
            ..ResourceRequirements::default()
        }
    }
}

fn quantities(
    amounts: &BTreeMap<String, String>,
) -> impl Iterator<Item = (String, ApiQuantity)> + '_ {
    let amounts = amounts.iter();
    amounts.map(|(name, amount)| (name.clone(), ApiQuantity(amount.clone())))
}

/// What a pod requests: its containers together, or an init container if that is more, and the overhead. Sidecars run beside both.
pub fn pod_requests(spec: &PodSpec) -> Amount {
    let of = |name: &'static str, unit: fn(Quantity) -> i64| {
        let request = |container: &Container| {
            let resources = container.resources.as_ref();
            let amount = resources.and_then(|resources| {
                value(&resources.requests, name).or(value(&resources.limits, name))
            });
            amount.map_or(0, unit)
        };
        let mut beside = 0;
        let mut peak = 0;
        for container in spec.init_containers.iter().flatten() {
            if container.restart_policy.as_deref() == Some("Always") {
                beside += request(container);
                peak = peak.max(beside);
            } else {
                peak = peak.max(beside + request(container));
            }
        }
        let main: i64 = spec.containers.iter().map(request).sum();
        peak.max(beside + main) + value(&spec.overhead, name).map_or(0, unit)
    };
    Amount {
        cpu_milli: of("cpu", Quantity::milli),
        memory_bytes: of("memory", Quantity::units),
    }
}

/// Limits of a cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// 1024 a CPU of request.
    pub cpu_shares: u64,
    /// Microseconds of CPU in 100 ms.
    pub cpu_quota_us: Option<i64>,
    /// Bytes.
    pub memory_bytes_max: Option<i64>,
}

/// A container's limits.
pub fn container_limits(container: &Container) -> Limits {
    let resources = container.resources.clone().unwrap_or_default();
    let cpu_limit = value(&resources.limits, "cpu")
        .map(Quantity::milli)
        .filter(|milli| *milli > 0);
    // A limit without a request is its own request.
    let cpu_request = value(&resources.requests, "cpu")
        .map(Quantity::milli)
        .or(cpu_limit);
    Limits {
        cpu_shares: shares(cpu_request.unwrap_or(0)),
        cpu_quota_us: cpu_limit.map(|milli| (milli * PERIOD_US / 1000).max(QUOTA_US_MIN)),
        memory_bytes_max: value(&resources.limits, "memory")
            .map(Quantity::units)
            .filter(|bytes| *bytes > 0),
    }
}

/// The limits of the pod's own group: sums with the pod's overhead, and a ceiling only where every container has one.
pub fn pod_limits(spec: &PodSpec) -> Limits {
    let each: Vec<(Limits, i64)> = spec
        .containers
        .iter()
        .map(|container| (container_limits(container), cpu_request_milli(container)))
        .collect();
    let init: Vec<Limits> = spec
        .init_containers
        .iter()
        .flatten()
        .map(container_limits)
        .collect();
    let sum = |of: fn(&Limits) -> Option<i64>| -> Option<i64> {
        let main = each
            .iter()
            .map(|(limits, _)| of(limits))
            .sum::<Option<i64>>()?;
        let init = init.iter().map(of).collect::<Option<Vec<i64>>>()?;
        Some(init.into_iter().fold(main, i64::max))
    };
    let overhead_milli = value(&spec.overhead, "cpu").map_or(0, Quantity::milli);
    let overhead_bytes = value(&spec.overhead, "memory").map_or(0, Quantity::units);
    let milli: i64 = each.iter().map(|(_, milli)| milli).sum();
    Limits {
        cpu_shares: shares(milli + overhead_milli),
        cpu_quota_us: sum(|limits| limits.cpu_quota_us)
            .map(|quota| quota + overhead_milli * PERIOD_US / 1000),
        memory_bytes_max: sum(|limits| limits.memory_bytes_max).map(|bytes| bytes + overhead_bytes),
    }
}

fn cpu_request_milli(container: &Container) -> i64 {
    let resources = container.resources.as_ref();
    let of = |map: Option<&Option<BTreeMap<String, ApiQuantity>>>| {
        map.and_then(|map| value(map, "cpu")).map(Quantity::milli)
    };
    of(resources.map(|resources| &resources.requests))
        .or(of(resources.map(|resources| &resources.limits)))
        .unwrap_or(0)
}

fn shares(milli: i64) -> u64 {
    u64::try_from((milli * 1024 / 1000).clamp(SHARES_MIN, SHARES_MAX)).unwrap_or(2)
}

/// How readily the kernel kills a container when the node's memory runs out.
pub fn oom_score_adj(spec: &PodSpec, container: &Container, node_memory_bytes: i64) -> i32 {
    if spec
        .priority
        .is_some_and(|priority| priority >= 2_000_000_000)
    {
        return -997;
    }
    match qos_class(spec) {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let request = container.resources.as_ref().and_then(|resources| {
                value(&resources.requests, "memory").or(value(&resources.limits, "memory"))
            });
            let share = 1000 * request.map_or(0, Quantity::units) / node_memory_bytes.max(1);
            i32::try_from((1000 - share).clamp(3, 999)).unwrap_or(999)
        }
    }
}

pub(crate) fn value(map: &Option<BTreeMap<String, ApiQuantity>>, name: &str) -> Option<Quantity> {
    Quantity::parse(&map.as_ref()?.get(name)?.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(resources: &[serde_json::Value]) -> PodSpec {
        let containers: Vec<_> = resources
            .iter()
            .map(|resources| json!({ "name": "a", "image": "i", "resources": resources }))
            .collect();
        serde_json::from_value(json!({ "containers": containers })).expect("a pod's specification")
    }

    #[test]
    fn classes() {
        let full = json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "1000m", "memory": "1Gi" } });
        let only_limits = json!({ "limits": { "cpu": "1", "memory": "1Gi" } });
        let some = json!({ "requests": { "cpu": "100m" } });
        let classes = [
            vec![full.clone(), only_limits],
            vec![full.clone(), some],
            vec![full, json!({})],
            vec![json!({})],
        ]
        .map(|each| qos_class(&spec(&each)));
        assert_eq!(
            classes,
            [
                QosClass::Guaranteed,
                QosClass::Burstable,
                QosClass::Burstable,
                QosClass::BestEffort
            ]
        );
    }

    #[test]
    fn limits_for_the_kernel() {
        let spec = spec(&[
            json!({ "limits": { "cpu": "500m", "memory": "64Mi" }, "requests": { "cpu": "250m" } }),
            json!({}),
        ]);
        let limits = container_limits(&spec.containers[0]);
        assert_eq!(
            limits,
            Limits {
                cpu_shares: 256,
                cpu_quota_us: Some(50_000),
                memory_bytes_max: Some(64 << 20)
            }
        );
        assert_eq!(
            pod_limits(&spec),
            Limits {
                cpu_shares: 256,
                cpu_quota_us: None,
                memory_bytes_max: None
            }
        );
        assert_eq!(oom_score_adj(&spec, &spec.containers[0], 64 << 30), 999);
    }
}
