//! What the runtime needs of a controller, and what a controller may see of the world.
//!
//! A controller never gets an event to act on: a change only names the keys that must be looked at again, and the plan is
//! made from the whole present state (level, not edge).

use crate::{Plan, Viewed};
use objects::{GroupResource, Object, ObjectError, ObjectKey, Timestamp, Uid};
use serde::Deserialize;
use std::sync::Arc;

/// What is known of an object without parsing it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Its identity.
    pub uid: Uid,
    /// Its labels.
    pub labels: std::collections::BTreeMap<String, String>,
    /// The uids of its owners, and whether each is the controller.
    pub owners: Vec<(Uid, bool)>,
    /// Whether deletion was asked.
    pub deleting: bool,
    /// `spec.nodeName`, for pods.
    pub node_name: Option<String>,
}

/// The present state, as one consistent view.
pub trait World: Send + Sync {
    /// An object.
    fn get(&self, key: &ObjectKey) -> Option<Arc<Object>>;

    /// What is known of an object without parsing it.
    fn record(&self, key: &ObjectKey) -> Option<&Record>;

    /// The keys of a resource's objects, in one namespace or in all, whose record satisfies `wanted`; in key order.
    fn keys(
        &self,
        resource: &GroupResource,
        namespace: Option<&str>,
        wanted: &dyn Fn(&Record) -> bool,
    ) -> Vec<ObjectKey>;

    /// The keys of every object in a namespace, of every kind.
    fn keys_in_namespace(&self, namespace: &str) -> Vec<ObjectKey>;

    /// The keys of the objects that name `uid` as an owner.
    fn owned_by(&self, uid: &Uid) -> Vec<ObjectKey>;

    /// The key of the object that has this uid.
    fn key_of(&self, uid: &Uid) -> Option<ObjectKey>;

    /// When this view of the world began: with the leader's term, or later.
    fn began(&self) -> Timestamp;

    /// When this leader first saw that there is no such object; never before its own term began.
    fn missing_since(&self, key: &ObjectKey) -> Timestamp;

    /// When this leader first saw the object as it is now; never before its own term began.
    fn observed_since(&self, key: &ObjectKey) -> Option<Timestamp>;

    /// When this leader first saw the object, in whatever state; never before its own term began.
    fn first_seen(&self, key: &ObjectKey) -> Option<Timestamp>;

    /// The objects of a resource whose record satisfies `wanted`.
    fn list(
        &self,
        resource: &GroupResource,
        namespace: Option<&str>,
        wanted: &dyn Fn(&Record) -> bool,
    ) -> Vec<Arc<Object>> {
        let keys = self.keys(resource, namespace, wanted);
        keys.iter().filter_map(|key| self.get(key)).collect()
    }
}

/// A change of one object.
pub struct Change<'a> {
    /// Which object.
    pub key: &'a ObjectKey,
    /// As it was; None when it is new.
    pub before: Option<&'a Record>,
    /// As it is; None when it is gone.
    pub after: Option<&'a Record>,
}

impl Change<'_> {
    /// Whether it is an object of this resource.
    pub fn is_of(&self, group: &str, resource: &str) -> bool {
        self.key.resource.group == group && self.key.resource.resource == resource
    }

    /// What is known of it: as it is, or as it last was.
    pub fn latest(&self) -> Option<&Record> {
        self.after.or(self.before)
    }

    /// The uids of the controllers that it has or had.
    pub fn controllers(&self) -> impl Iterator<Item = &Uid> {
        let records = [self.before, self.after].into_iter().flatten();
        records.flat_map(|record| {
            record
                .owners
                .iter()
                .filter(|(_, controls)| *controls)
                .map(|(uid, _)| uid)
        })
    }
}

/// A controller, as the runtime runs it.
pub trait Controller: Send + Sync + 'static {
    /// Its name: in logs, in `ctl explain`, and in the user under which it writes.
    fn name(&self) -> &'static str;

    /// The keys that must be looked at after `change`; `world` already shows it.
    fn keys_for(&self, change: &Change<'_>, world: &dyn World) -> Vec<ObjectKey>;

    /// What must be done about a key.
    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, ObjectError>;
}

/// A question to a controller.
pub struct Asked<'a> {
    /// Which key must be looked at.
    pub key: &'a ObjectKey,
    /// The present state.
    pub world: &'a dyn World,
    /// The present.
    pub now: Timestamp,
    /// Why the key's last plan could not be carried out, if it could not.
    pub failure: Option<&'a str>,
}

impl Asked<'_> {
    /// The object itself, typed; None when it is gone.
    pub fn object<T: for<'de> Deserialize<'de>>(&self) -> Result<Option<Viewed<T>>, ObjectError> {
        self.world
            .get(self.key)
            .map(|object| Viewed::new(Object::clone(&object)))
            .transpose()
    }

    /// Typed objects of a resource in the key's namespace, or in all when the key has none.
    pub fn neighbours<T: for<'de> Deserialize<'de>>(
        &self,
        resource: &GroupResource,
        wanted: &dyn Fn(&Record) -> bool,
    ) -> Result<Vec<Arc<T>>, ObjectError> {
        let objects = self
            .world
            .list(resource, self.key.namespace.as_deref(), wanted);
        objects
            .iter()
            .map(|object| object.view().map(Arc::new))
            .collect()
    }
}

/// What controllers need of their master.
pub struct Outside<'a> {
    /// The cluster's settings.
    pub settings: &'a objects::cluster::ClusterSettings,
    /// The cluster's CA as PEM.
    pub ca_pem: &'a str,
    /// The groups and versions that are built in.
    pub served: &'a [crate::apiservice::BuiltIn],
    /// What pods use.
    pub metrics: Arc<dyn crate::horizontal::PodMetrics>,
    /// The keys that sign service accounts' tokens.
    pub signer: Arc<dyn crate::tokensecret::TokenSigner>,
}

/// Every controller; adding one is a line here and a file beside this one.
pub fn all(outside: Outside<'_>) -> Vec<Arc<dyn Controller>> {
    let Outside {
        settings,
        ca_pem,
        served,
        metrics,
        signer,
    } = outside;
    vec![
        Arc::new(crate::deployment::DeploymentController),
        Arc::new(crate::replicaset::ReplicaSetController::of_sets()),
        Arc::new(crate::replicaset::ReplicaSetController::of_replication_controllers()),
        Arc::new(crate::statefulset::StatefulSetController),
        Arc::new(crate::daemonset::DaemonSetController),
        Arc::new(crate::job::JobController),
        Arc::new(crate::cronjob::CronJobController),
        Arc::new(crate::horizontal::HorizontalController::new(metrics)),
        Arc::new(crate::ttl::TtlController),
        Arc::new(crate::disruption::DisruptionController),
        Arc::new(crate::endpointslice::EndpointSliceController),
        Arc::new(crate::endpoints::EndpointsController),
        Arc::new(crate::endpointslicemirroring::MirroringController),
        Arc::new(crate::ipaddress::IpAddressController),
        Arc::new(crate::quota::QuotaController),
        Arc::new(crate::protection::ProtectionController),
        Arc::new(crate::namespace::NamespaceController),
        Arc::new(crate::customresource::CustomResourceController),
        Arc::new(crate::apiservice::ApiServiceController::new(served)),
        Arc::new(crate::serviceaccount::ServiceAccountController),
        Arc::new(crate::rootca::RootCaController::new(ca_pem)),
        Arc::new(crate::clusterrole::ClusterRoleController),
        Arc::new(crate::flowschema::FlowSchemaController),
        Arc::new(crate::tokensecret::TokenSecretController::new(
            ca_pem, signer,
        )),
        Arc::new(crate::tokencleaner::TokenCleanerController),
        Arc::new(crate::garbage::GarbageController),
        Arc::new(crate::event::EventController),
        Arc::new(crate::podgc::PodGcController),
        Arc::new(crate::nodelifecycle::NodeLifecycleController),
        Arc::new(crate::nodeipam::NodeIpamController::new(
            &settings.cluster_cidr,
        )),
    ]
}

/// `pods`.
pub fn pods() -> GroupResource {
    GroupResource::new("", "pods")
}

/// `nodes`.
pub fn nodes() -> GroupResource {
    GroupResource::new("", "nodes")
}

/// The keys of the objects of `resource` that control the changed object, or, when nothing does, of all in its namespace:
/// one of them may want to adopt it.
pub fn controllers_or_adopters(
    change: &Change<'_>,
    world: &dyn World,
    resource: &GroupResource,
) -> Vec<ObjectKey> {
    let owners: Vec<ObjectKey> = change
        .controllers()
        .filter_map(|uid| world.key_of(uid))
        .filter(|key| key.resource == *resource)
        .collect();
    let is_orphan = |record: &Record| record.owners.iter().all(|(_, controls)| !controls);
    if owners.is_empty() && change.after.is_some_and(is_orphan) {
        return world.keys(resource, change.key.namespace.as_deref(), &|_| true);
    }
    owners
}
