//! API services: which server answers for a group and version, and in which order clients are told of groups. Rules: kube-aggregator's
//! apiregistration.k8s.io/v1; priorities of the built-in groups: kube-apiserver's. Never calls a server: what others tell is handed in.

use crate::Registry;
use crate::table::preference;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The group of API services.
pub const GROUP: &str = "apiregistration.k8s.io";
/// Their plural.
pub const RESOURCE: &str = "apiservices";

/// A group and a version.
pub type Served = (String, String);

/// All API services of a cluster, and what the servers behind them tell.
#[derive(Clone, Debug, Default)]
pub struct ApiServices {
    services: BTreeMap<Served, Arc<ApiService>>,
    /// Whether another server answers for anything: most clusters have none, and every request asks.
    has_remotes: bool,
    told: BTreeMap<Served, Told>,
}

/// An API service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiService {
    /// Its name.
    pub name: String,
    /// The group.
    pub group: String,
    /// The version.
    pub version: String,
    /// Where groups with a higher number come first.
    pub group_priority: i64,
    /// Where versions of a group with a higher number come first.
    pub version_priority: i64,
    /// Who answers; None for this server itself.
    pub remote: Option<Remote>,
    /// Whether its status says that it answers.
    pub is_available: bool,
}

/// A server that answers for others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remote {
    /// The namespace of its service.
    pub namespace: String,
    /// The name of its service.
    pub service: String,
    /// The port of its service.
    pub port: u16,
    /// Whom to trust, as PEM; empty for what the machine trusts.
    pub ca_bundle: Vec<u8>,
    /// Whether its certificate proves nothing.
    pub skips_verification: bool,
}

impl Remote {
    /// The name that its certificate must have.
    pub fn host(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }
}

/// What a server tells of a group and version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// Its resources, as `APIResourceList` has them.
    pub resources: Vec<Value>,
    /// Whether it answered when it was last asked.
    pub is_current: bool,
}

impl ApiService {
    /// Reads an object; None for one without version.
    pub fn read(object: &Value) -> Option<Self> {
        let text = |at: &str| {
            object
                .pointer(at)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let number = |at: &str| {
            object
                .pointer(at)
                .and_then(Value::as_i64)
                .unwrap_or_default()
        };
        let version = text("/spec/version");
        let place = object
            .pointer("/spec/service")
            .filter(|place| place.is_object());
        let remote = place.map(|_| Remote {
            namespace: text("/spec/service/namespace").to_owned(),
            service: text("/spec/service/name").to_owned(),
            port: u16::try_from(number("/spec/service/port"))
                .ok()
                .filter(|port| *port > 0)
                .unwrap_or(443),
            ca_bundle: STANDARD.decode(text("/spec/caBundle")).unwrap_or_default(),
            skips_verification: object.pointer("/spec/insecureSkipTLSVerify")
                == Some(&Value::Bool(true)),
        });
        let conditions = object
            .pointer("/status/conditions")
            .and_then(Value::as_array);
        let is_available = conditions
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "Available" && condition["status"] == "True");
        (!version.is_empty()).then(|| ApiService {
            name: text("/metadata/name").to_owned(),
            group: text("/spec/group").to_owned(),
            version: version.to_owned(),
            group_priority: number("/spec/groupPriorityMinimum"),
            version_priority: number("/spec/versionPriority"),
            remote,
            is_available,
        })
    }

    /// The group and version.
    pub fn served(&self) -> Served {
        (self.group.clone(), self.version.clone())
    }
}

impl ApiServices {
    /// These services, with what is known already of the servers that are still among them.
    pub fn new(services: impl IntoIterator<Item = ApiService>, before: &ApiServices) -> Self {
        let services: BTreeMap<Served, Arc<ApiService>> = services
            .into_iter()
            .map(|service| (service.served(), Arc::new(service)))
            .collect();
        let mut told = before.told.clone();
        told.retain(|served, _| services.get(served).is_some_and(|it| it.remote.is_some()));
        ApiServices {
            has_remotes: services.values().any(|service| service.remote.is_some()),
            services,
            told,
        }
    }

    /// The service of another server that answers for a group and version.
    pub fn remote(&self, group: &str, version: &str) -> Option<&Arc<ApiService>> {
        if !self.has_remotes {
            return None;
        }
        let found = self.services.get(&(group.to_owned(), version.to_owned()))?;
        found.remote.is_some().then_some(found)
    }

    /// All that other servers answer for.
    pub fn remotes(&self) -> impl Iterator<Item = &Arc<ApiService>> {
        let services = self.services.values().filter(|_| self.has_remotes);
        services.filter(|service| service.remote.is_some())
    }

    /// Takes in what a server tells.
    pub fn tell(&mut self, served: Served, told: Told) {
        self.told.insert(served, told);
    }

    /// What a server told at last.
    pub fn told(&self, group: &str, version: &str) -> Option<&Told> {
        self.told.get(&(group.to_owned(), version.to_owned()))
    }

    /// All groups with their versions in the order in which clients prefer them.
    pub fn groups(&self, registry: &Registry) -> Vec<(String, Vec<String>)> {
        let mut groups: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (group, versions) in registry.groups() {
            groups.entry(group).or_default().extend(versions);
        }
        for service in self.remotes() {
            let versions = groups.entry(service.group.clone()).or_default();
            versions.insert(service.version.clone());
        }
        let ordered = groups.into_iter().map(|(group, versions)| {
            let priorities: BTreeMap<String, (i64, i64)> = versions
                .into_iter()
                .map(|version| (version.clone(), self.priority(registry, &group, &version)))
                .collect();
            let highest = priorities.values().map(|(of_group, _)| *of_group).max();
            let mut versions: Vec<(String, i64)> = priorities
                .into_iter()
                .map(|(version, (_, of_version))| (version, of_version))
                .collect();
            versions.sort_by(|(one, first), (other, second)| {
                second.cmp(first).then_with(|| preference(one, other))
            });
            let versions = versions.into_iter().map(|(version, _)| version).collect();
            (highest.unwrap_or_default(), group, versions)
        });
        let mut ordered: Vec<(i64, String, Vec<String>)> = ordered.collect();
        ordered.sort_by(|(one, first, _), (other, second, _)| {
            other.cmp(one).then_with(|| first.cmp(second))
        });
        ordered
            .into_iter()
            .map(|(_, group, versions)| (group, versions))
            .collect()
    }

    fn priority(&self, registry: &Registry, group: &str, version: &str) -> (i64, i64) {
        match self.services.get(&(group.to_owned(), version.to_owned())) {
            Some(service) => (service.group_priority, service.version_priority),
            None => {
                let mut rows = registry.of_version(group, version);
                let is_custom = rows.next().is_some_and(|row| row.custom.is_some());
                local_priority(group, version, is_custom)
            }
        }
    }
}

/// The groups and versions that `registry` serves itself, each with the priorities of its API service. API services have none
/// of their own, as in Kubernetes.
pub fn local(registry: &Registry) -> Vec<(Served, (i64, i64))> {
    let groups = registry
        .groups()
        .into_iter()
        .filter(|(group, _)| group != GROUP);
    let served = groups.flat_map(|(group, versions)| {
        versions.into_iter().map(move |version| {
            let priority = local_priority(&group, &version, false);
            ((group.clone(), version), priority)
        })
    });
    served.collect()
}

/// The priorities of what this server answers for itself: of the group, of the version.
fn local_priority(group: &str, version: &str, is_custom: bool) -> (i64, i64) {
    const CUSTOM: i64 = 1_000;
    const OTHER: i64 = 100;
    let of_group = match group {
        "" | GROUP => 18_000,
        "apps" => 17_800,
        "events.k8s.io" => 17_750,
        "authentication.k8s.io" => 17_700,
        "authorization.k8s.io" => 17_600,
        "autoscaling" => 17_500,
        "batch" => 17_400,
        "certificates.k8s.io" => 17_300,
        "networking.k8s.io" => 17_200,
        "policy" => 17_100,
        "rbac.authorization.k8s.io" => 17_000,
        "storage.k8s.io" => 16_800,
        "apiextensions.k8s.io" | "admissionregistration.k8s.io" => 16_700,
        "scheduling.k8s.io" => 16_600,
        "coordination.k8s.io" => 16_500,
        "node.k8s.io" => 16_300,
        "discovery.k8s.io" => 16_200,
        "flowcontrol.apiserver.k8s.io" => 16_100,
        "resource.k8s.io" => 15_900,
        _ if is_custom => CUSTOM,
        _ => OTHER,
    };
    let of_version = match (group, version) {
        ("", _) => 1,
        ("autoscaling", "v2") => 30,
        _ if of_group == CUSTOM || of_group == OTHER => 100,
        (_, version) if version.contains("alpha") => 9,
        (_, version) if version.contains("beta") => 12,
        _ => 15,
    };
    (of_group, of_version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(group: &str, version: &str, priorities: (i64, i64)) -> ApiService {
        let object = json!({
            "metadata": {"name": format!("{version}.{group}")},
            "spec": {"group": group, "version": version, "service": {"namespace": "a", "name": "b"},
                "groupPriorityMinimum": priorities.0, "versionPriority": priorities.1},
            "status": {"conditions": [{"type": "Available", "status": "True"}]},
        });
        ApiService::read(&object).expect("an API service")
    }

    #[test]
    fn groups_and_versions_come_in_the_order_of_their_priorities() {
        let registry = Registry::builtin();
        let others = [
            service("metrics.k8s.io", "v1beta1", (100, 100)),
            service("first.example.com", "v1alpha1", (20_000, 200)),
            service("first.example.com", "v1", (20_000, 100)),
        ];
        let services = ApiServices::new(others, &ApiServices::default());
        let groups = services.groups(&registry);
        let names: Vec<&str> = groups.iter().map(|(group, _)| group.as_str()).collect();
        assert_eq!(names[..4], ["first.example.com", "", GROUP, "apps"]);
        assert_eq!(names.last(), Some(&"metrics.k8s.io"));
        assert_eq!(groups[0].1, ["v1alpha1", "v1"]);
        let autoscaling = groups.iter().find(|(group, _)| group == "autoscaling");
        assert_eq!(autoscaling.expect("is served").1, ["v2", "v1"]);
    }

    #[test]
    fn what_was_told_is_kept_while_the_server_is_the_one_that_answers() {
        let mut services =
            ApiServices::new([service("x.io", "v1", (1, 1))], &ApiServices::default());
        let told = Told {
            resources: vec![json!({"name": "xs"})],
            is_current: true,
        };
        services.tell(("x.io".to_owned(), "v1".to_owned()), told.clone());
        assert!(
            services
                .remote("x.io", "v1")
                .is_some_and(|it| it.is_available)
        );
        let again = ApiServices::new([service("x.io", "v1", (2, 1))], &services);
        assert_eq!(again.told("x.io", "v1"), Some(&told));
        let gone = ApiServices::new([], &again);
        assert_eq!(gone.told("x.io", "v1"), None);
    }
}
