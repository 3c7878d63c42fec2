//! Amounts of resources: what a pod requests, what a node has. Semantics: Kubernetes' `resource.PodRequests`.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// An amount of each resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes of local disk.
    pub ephemeral_storage: i64,
    /// Everything else that a node may offer, in units, ordered by name; few pods ask for any.
    pub extended: Vec<(String, i64)>,
}

type Amounts = BTreeMap<String, Quantity>;

impl Resources {
    /// Reads a map of quantities. A text that is no quantity counts as nothing: validation refuses it before.
    pub fn from_amounts(amounts: Option<&Amounts>) -> Self {
        let mut resources = Resources::default();
        for (name, quantity) in amounts.into_iter().flatten() {
            let amount = objects::Quantity::parse(&quantity.0).unwrap_or_default();
            match name.as_str() {
                "cpu" => resources.milli_cpu = amount.milli(),
                "memory" => resources.memory = amount.units(),
                "ephemeral-storage" => resources.ephemeral_storage = amount.units(),
                "pods" => {}
                _ if amount.is_zero() => {}
                _ => resources.extended.push((name.clone(), amount.units())),
            }
        }
        resources
    }

    /// What a pod needs from its node: its containers together, or its greediest init container with the sidecars that
    /// run beside it, whichever is more; and the overhead.
    pub fn requested_by(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else {
            return Resources::default();
        };
        let mut total = of_containers(spec);
        if let Some(whole) = &spec.resources {
            total.replace_with(&of_requirements(whole), whole);
        }
        total.add(&Resources::from_amounts(spec.overhead.as_ref()));
        total
    }

    /// Adds another amount.
    pub fn add(&mut self, other: &Resources) {
        self.combine(other, i64::saturating_add);
    }

    /// Takes another amount away.
    pub fn subtract(&mut self, other: &Resources) {
        self.combine(other, i64::saturating_sub);
        self.extended.retain(|(_, amount)| *amount != 0);
    }

    /// The amount of an extended resource.
    pub fn extended(&self, name: &str) -> i64 {
        let found = self
            .extended
            .binary_search_by(|(other, _)| other.as_str().cmp(name));
        found.map_or(0, |at| self.extended[at].1)
    }

    fn combine(&mut self, other: &Resources, with: fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral_storage = with(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.extended {
            match self.extended.binary_search_by(|(other, _)| other.cmp(name)) {
                Ok(at) => self.extended[at].1 = with(self.extended[at].1, *amount),
                Err(at) => self.extended.insert(at, (name.clone(), with(0, *amount))),
            }
        }
    }

    /// What a pod asks for as a whole stands for the sum of its containers, resource by resource.
    fn replace_with(&mut self, whole: &Resources, named: &ResourceRequirements) {
        let names = |name: &str| {
            let has = |amounts: &Option<Amounts>| {
                amounts
                    .as_ref()
                    .is_some_and(|amounts| amounts.contains_key(name))
            };
            has(&named.requests) || has(&named.limits)
        };
        if names("cpu") {
            self.milli_cpu = whole.milli_cpu;
        }
        if names("memory") {
            self.memory = whole.memory;
        }
    }
}

fn of_containers(spec: &PodSpec) -> Resources {
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&of_container(container));
    }
    let mut sidecars = Resources::default();
    let mut starting = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut own = of_container(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&own);
            starting.combine(&sidecars, i64::max);
        } else {
            own.add(&sidecars);
            starting.combine(&own, i64::max);
        }
    }
    total.add(&sidecars);
    total.combine(&starting, i64::max);
    total
}

fn of_container(container: &Container) -> Resources {
    container
        .resources
        .as_ref()
        .map(of_requirements)
        .unwrap_or_default()
}

/// The requests; a resource with only a limit requests its limit.
fn of_requirements(requirements: &ResourceRequirements) -> Resources {
    let mut amounts = requirements.limits.clone().unwrap_or_default();
    amounts.extend(requirements.requests.clone().unwrap_or_default());
    Resources::from_amounts(Some(&amounts))
}
