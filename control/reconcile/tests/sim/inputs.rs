//! Builds each controller's input from the simulated cluster and runs it.

use super::World;
use objects::{GroupResource, Object, ObjectKey};
use reconcile::{Plan, Viewed, deployment, replicaset, view::resources};
use serde::Deserialize;
use std::sync::Arc;

impl World {
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
                    pods: self.views(&resources::pods(), namespace),
                    failure: None,
                };
                replicaset::reconcile(&input, self.now)
            }
            other => panic!("the simulation knows no controller {other}"),
        }
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
