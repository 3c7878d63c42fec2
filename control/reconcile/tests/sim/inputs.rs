//! Builds each controller's input from the simulated cluster and runs it.

use super::World;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use objects::{GroupResource, Object, ObjectKey};
use reconcile::horizontal::Target;
use reconcile::view::resources;
use reconcile::{
    Plan, Viewed, cronjob, customresource, daemonset, deployment, disruption, endpoints,
    endpointslice, garbage, horizontal, job, namespace, nodeipam, nodelifecycle, podgc, protection,
    quota, replicaset, serviceaccount, statefulset, ttl,
};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

impl World {
    fn scaler_input(&self, namespace: Option<&str>, name: &str) -> horizontal::Input {
        let key = ObjectKey::new(resources::horizontalpodautoscalers(), namespace, name);
        let scaler: Viewed<HorizontalPodAutoscaler> = self.viewed(&key);
        let spec = scaler.view.spec.as_ref().expect("a spec");
        let target = &spec.scale_target_ref;
        let target = ObjectKey::new(super::resource_of(&target.kind), namespace, &target.name);
        let target = match self.objects.get(&target) {
            Some(object) => Ok(Target::of_workload(Arc::new(object.clone()), target)),
            None => Err(format!("{target} not found")),
        };
        let pods: Vec<Arc<Pod>> = self.views(&resources::pods(), namespace);
        // Their containers start at once.
        let pods = pods.iter().map(|pod| {
            let mut pod = Pod::clone(pod);
            let status = pod.status.get_or_insert_default();
            status.start_time = pod.metadata.creation_timestamp.clone();
            pod
        });
        horizontal::Input {
            scaler,
            target,
            pods: pods.map(Arc::new).collect(),
            usage: self
                .usage
                .clone()
                .map(|known| known.into_values().collect()),
            failure: self.failures.get(name).cloned(),
        }
    }

    fn viewed<T: for<'de> Deserialize<'de>>(&self, key: &ObjectKey) -> Viewed<T> {
        let object = self
            .objects
            .get(key)
            .unwrap_or_else(|| panic!("{key} is not there"));
        Viewed::new(object.clone()).expect("a well-formed object")
    }

    fn views<T: for<'de> Deserialize<'de>>(
        &self,
        resource: &GroupResource,
        namespace: Option<&str>,
    ) -> Vec<Arc<T>> {
        let of_namespace = |object: &&Object| {
            namespace.is_none() || object.metadata.namespace.as_deref() == namespace
        };
        let objects = self.all(resource).into_iter().filter(of_namespace);
        objects
            .map(|object| Arc::new(object.view().expect("a well-formed object")))
            .collect()
    }

    /// Runs one controller for one object and returns its plan, not yet executed.
    pub fn reconcile(&self, controller: &str, namespace: Option<&str>, name: &str) -> Plan {
        let key = |resource| ObjectKey::new(resource, namespace, name);
        match controller {
            "deployment" => {
                let input = deployment::Input {
                    deployment: self.viewed(&key(resources::deployments())),
                    sets: self
                        .all(&resources::replicasets())
                        .into_iter()
                        .map(|set| Arc::new(Viewed::new(set.clone()).expect("a well-formed set")))
                        .collect(),
                    pods: self.views(&resources::pods(), namespace),
                };
                deployment::reconcile(&input, self.now)
            }
            "replicaset" => {
                let input = replicaset::Input {
                    set: self.viewed(&key(resources::replicasets())),
                    resource: resources::replicasets(),
                    pods: self.views(&resources::pods(), namespace),
                    failure: self.failures.get(name).cloned(),
                };
                replicaset::reconcile(&input, self.now)
            }
            "replicationcontroller" => {
                let object = self.objects[&key(resources::replicationcontrollers())].clone();
                let input = replicaset::Input {
                    set: replicaset::as_set(object).expect("a well-formed object"),
                    resource: resources::replicationcontrollers(),
                    pods: self.views(&resources::pods(), namespace),
                    failure: None,
                };
                replicaset::reconcile(&input, self.now)
            }
            "statefulset" => {
                let input = statefulset::Input {
                    set: self.viewed(&key(resources::statefulsets())),
                    pods: self.views(&resources::pods(), namespace),
                    revisions: self.objects_of(&resources::controllerrevisions()),
                    claims: self.objects_of(&resources::persistentvolumeclaims()),
                };
                statefulset::reconcile(&input, self.now)
            }
            "daemonset" => {
                let input = daemonset::Input {
                    set: self.viewed(&key(resources::daemonsets())),
                    nodes: self.views(&resources::nodes(), None),
                    pods: self.views(&resources::pods(), namespace),
                    revisions: self.objects_of(&resources::controllerrevisions()),
                };
                daemonset::reconcile(&input, self.now)
            }
            "job" => {
                let input = job::Input {
                    job: self.viewed(&key(resources::jobs())),
                    pods: self.views(&resources::pods(), namespace),
                };
                job::reconcile(&input, self.now)
            }
            "ttl" => {
                let job = self.viewed(&key(resources::jobs()));
                ttl::reconcile(&ttl::Input { job }, self.now)
            }
            "cronjob" => {
                let jobs = self.all(&resources::jobs()).into_iter();
                let input = cronjob::Input {
                    cron: self.viewed(&key(resources::cronjobs())),
                    jobs: jobs
                        .map(|job| Viewed::new(job.clone()).expect("a well-formed job"))
                        .collect(),
                };
                cronjob::reconcile(&input, self.now)
            }
            "horizontal" => {
                let input = self.scaler_input(namespace, name);
                let mut histories = self.histories.borrow_mut();
                let history = histories.entry(name.to_owned()).or_default();
                horizontal::reconcile(&input, history, self.now)
            }
            "disruption" => disruption::reconcile(&self.budget_input(namespace, name), self.now),
            "endpointslice" => {
                endpointslice::reconcile(&self.slices_input(namespace, name), self.now)
            }
            "endpoints" => endpoints::reconcile(&self.endpoints_input(namespace, name), self.now),
            "quota" => quota::reconcile(&self.quota_input(namespace, name), self.now),
            "protection" => protection::reconcile(&self.protection_input(namespace, name)),
            "namespace" => namespace::reconcile(&self.namespace_input(name), self.now),
            "podgc" => podgc::reconcile(&self.podgc_input(), self.now),
            "nodelifecycle" => nodelifecycle::reconcile(&self.node_input(name), self.now),
            "nodeipam" => {
                let nodes = self.all(&resources::nodes()).into_iter();
                let input = nodeipam::Input {
                    cluster_cidr: nodeipam::Cidr::parse(&format!(
                        "{}/{name}",
                        namespace.unwrap_or("")
                    ))
                    .expect("a network"),
                    nodes: nodes
                        .map(|node| {
                            Arc::new(Viewed::new(node.clone()).expect("a well-formed node"))
                        })
                        .collect(),
                };
                nodeipam::reconcile(&input, self.now)
            }
            "serviceaccount" => {
                let default = ObjectKey::new(resources::serviceaccounts(), Some(name), "default");
                let input = serviceaccount::Input {
                    namespace: self.viewed(&ObjectKey::new(resources::namespaces(), None, name)),
                    has_default: self.objects.contains_key(&default),
                };
                serviceaccount::reconcile(&input, self.now)
            }
            "customresource" => {
                let definitions = super::resource_of("CustomResourceDefinition");
                let own = ObjectKey::new(definitions.clone(), None, name);
                let mut others = self.objects_of(&definitions);
                others.retain(|other| other.metadata.name != name);
                let plural = name.split('.').next().unwrap_or_default();
                let of_it =
                    |key: &&ObjectKey| key.resource == GroupResource::new("example.com", plural);
                let left = self
                    .objects
                    .keys()
                    .filter(of_it)
                    .map(|key| customresource::Left {
                        key: key.clone(),
                        uid: self.objects[key].metadata.uid.clone(),
                        is_deleting: self.objects[key].metadata.is_deleting(),
                    });
                let input = customresource::Input {
                    definition: self.viewed(&own),
                    others,
                    objects: left.collect(),
                };
                customresource::reconcile(&input, self.now)
            }
            other => panic!("the simulation knows no controller {other}"),
        }
    }

    fn objects_of(&self, resource: &GroupResource) -> Vec<Arc<Object>> {
        let objects = self.all(resource).into_iter();
        objects.map(|object| Arc::new(object.clone())).collect()
    }

    fn budget_input(&self, namespace: Option<&str>, name: &str) -> disruption::Input {
        let scaled = [resources::replicasets(), resources::statefulsets()];
        let workloads = scaled.iter().flat_map(|resource| self.all(resource));
        let scale = |object: &Object| disruption::Scale {
            workload: object.metadata.uid.clone(),
            replicas: object.body["spec"]["replicas"].as_u64().expect("a count") as usize,
        };
        disruption::Input {
            budget: self.viewed(&ObjectKey::new(
                resources::poddisruptionbudgets(),
                namespace,
                name,
            )),
            pods: self.views(&resources::pods(), namespace),
            scales: workloads
                .map(|object| (object.metadata.uid.clone(), scale(object)))
                .collect(),
        }
    }

    fn slices_input(&self, namespace: Option<&str>, name: &str) -> endpointslice::Input {
        let slices = self.all(&resources::endpointslices()).into_iter();
        endpointslice::Input {
            service: self.viewed(&ObjectKey::new(resources::services(), namespace, name)),
            pods: self.views(&resources::pods(), namespace),
            zones: [("n1".to_owned(), "a".to_owned())].into_iter().collect(),
            slices: slices.map(|slice| Arc::new(slice.clone())).collect(),
        }
    }

    fn endpoints_input(&self, namespace: Option<&str>, name: &str) -> endpoints::Input {
        let key = |resource| ObjectKey::new(resource, namespace, name);
        let service = key(resources::services());
        let there = self.objects.contains_key(&service);
        endpoints::Input {
            service: there.then(|| self.viewed(&service)),
            slices: self.objects_of(&resources::endpointslices()),
            endpoints: self
                .objects
                .get(&key(resources::endpoints()))
                .map(|found| Arc::new(found.clone())),
            key: service,
        }
    }

    fn quota_input(&self, namespace: Option<&str>, name: &str) -> quota::Input {
        let quota = &self.objects[&ObjectKey::new(resources::resourcequotas(), namespace, name)];
        let of_namespace = |key: &ObjectKey| key.namespace.as_deref() == namespace;
        let objects = self.objects.iter().filter(|(key, _)| of_namespace(key));
        quota::Input {
            quota: Arc::new(quota.clone()),
            objects: objects
                .map(|(key, object)| (key.resource.clone(), Arc::new(object.clone())))
                .collect(),
        }
    }

    fn protection_input(&self, namespace: Option<&str>, name: &str) -> protection::Input {
        let resource = match namespace {
            Some(_) => resources::persistentvolumeclaims(),
            None => resources::persistentvolumes(),
        };
        let key = ObjectKey::new(resource, namespace, name);
        protection::Input {
            object: Arc::new(self.objects[&key].clone()),
            pods: self.objects_of(&resources::pods()),
            key,
        }
    }

    fn namespace_input(&self, name: &str) -> namespace::Input {
        let mut content: BTreeMap<GroupResource, Vec<namespace::Remaining>> = BTreeMap::new();
        for (key, object) in &self.objects {
            if key.namespace.as_deref() == Some(name) {
                content
                    .entry(key.resource.clone())
                    .or_default()
                    .push(namespace::Remaining {
                        name: key.name.clone(),
                        uid: object.metadata.uid.clone(),
                        is_deleting: object.metadata.is_deleting(),
                        finalizers: object.metadata.finalizers.clone(),
                    });
            }
        }
        namespace::Input {
            namespace: self.viewed(&ObjectKey::new(resources::namespaces(), None, name)),
            content: content
                .into_iter()
                .map(|(resource, remaining)| namespace::Content {
                    resource,
                    remaining,
                })
                .collect(),
        }
    }

    fn podgc_input(&self) -> podgc::Input {
        let pods: Vec<Arc<Pod>> = self.views(&resources::pods(), None);
        let bound = pods
            .iter()
            .filter_map(|pod| reconcile::pods::node_name(pod));
        let is_there = |node: &&str| {
            self.objects
                .contains_key(&ObjectKey::new(resources::nodes(), None, node))
        };
        let missing = bound.filter(|node| !is_there(node));
        podgc::Input {
            missing_nodes: missing
                .map(|node| (node.to_owned(), self.term_since))
                .collect(),
            terminated_max: 2,
            pods,
        }
    }

    fn node_input(&self, name: &str) -> nodelifecycle::Input {
        let observed_since = |name: &str| {
            let seen = self.leases_seen.get(name).copied();
            seen.unwrap_or(self.term_since).max(self.term_since)
        };
        let mut pods: Vec<Arc<Pod>> = self.views(&resources::pods(), None);
        let node = self.viewed(&ObjectKey::new(resources::nodes(), None, name));
        let asks = nodelifecycle::asks_for_pods(&node, observed_since(name), self.now);
        pods.retain(|pod| asks && reconcile::pods::node_name(pod) == Some(name));
        nodelifecycle::Input {
            node,
            observed_since: observed_since(name),
            term_since: self.term_since,
            all_silent: self.all(&resources::nodes()).iter().all(|node| {
                nodelifecycle::is_silent(observed_since(&node.metadata.name), self.now)
            }),
            pods,
        }
    }

    /// The garbage collector's plan for one object.
    pub fn garbage(&self, key: &ObjectKey) -> Plan {
        let object = self.objects[key].clone();
        let state = |owner: &objects::OwnerReference| {
            let resource = super::resource_of(&owner.kind);
            let found = self.objects.iter().find(|(its, object)| {
                its.resource == resource
                    && its.name == owner.name
                    && object.metadata.uid == owner.uid
            });
            match found {
                None => garbage::OwnerState::Absent,
                Some((_, owner))
                    if owner.metadata.is_deleting()
                        && owner
                            .metadata
                            .finalizers
                            .iter()
                            .any(|name| name == garbage::FOREGROUND) =>
                {
                    garbage::OwnerState::WaitsForDependents
                }
                Some(_) => garbage::OwnerState::Present,
            }
        };
        let names_it = |other: &&Object| {
            let mut owners = other.metadata.owner_references.iter();
            owners.any(|owner| owner.uid == object.metadata.uid)
        };
        let dependents = self.objects.values().filter(names_it);
        let owners_of = |uid: &objects::Uid| {
            let owner = self.objects.values().find(|it| it.metadata.uid == *uid);
            let references = owner
                .into_iter()
                .flat_map(|it| &it.metadata.owner_references);
            references.map(|owner| owner.uid.clone()).collect()
        };
        let input = garbage::Input {
            key: key.clone(),
            ancestors: garbage::ancestors(&object, owners_of),
            owners: object.metadata.owner_references.iter().map(state).collect(),
            dependents: dependents
                .map(|other| garbage::Dependent {
                    key: super::key_of(other),
                    uid: other.metadata.uid.clone(),
                    resource_version: other.metadata.resource_version.clone(),
                    is_deleting: other.metadata.is_deleting(),
                    owner_references: other.metadata.owner_references.clone(),
                })
                .collect(),
            object,
        };
        garbage::reconcile(&input, self.now)
    }

    /// Keys of all objects of a resource.
    pub fn keys(&self, resource: &GroupResource) -> Vec<ObjectKey> {
        let keys = self.objects.keys().filter(|key| key.resource == *resource);
        keys.cloned().collect()
    }

    /// Runs one controller for every object of its resource once, executing; returns the plans that wrote something.
    pub fn run(&mut self, controller: &str, resource: &GroupResource) -> Vec<Plan> {
        let mut plans = Vec::new();
        for key in self.keys(resource) {
            let plan = self.reconcile(controller, key.namespace.as_deref(), &key.name);
            // A conflict is tried again in the next round, as the runtime does.
            let _outcome = self.execute(&plan);
            if !plan.is_nothing() {
                plans.push(plan);
            }
        }
        plans
    }
}
