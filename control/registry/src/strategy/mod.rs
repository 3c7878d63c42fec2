//! Where a kind differs from others: defaults, preparation, validation. One file a kind; a kind without one uses [`Plain`].
//! A strategy is pure: it sees the object, the one before it, and the time; it never sees the store.

mod admission;
mod apiservice;
mod autoscaler;
pub mod check;
mod class;
pub mod conditions;
mod cronjob;
mod daemonset;
mod data;
mod deployment;
mod device;
mod disruption;
pub mod edit;
mod endpoints;
mod endpointslice;
mod event;
mod flow;
mod ingress;
mod job;
mod lease;
mod namespace;
mod networkpolicy;
mod node;
mod pod;
mod pod_spec;
mod podtemplate;
mod quota;
mod rbac;
mod replicaset;
mod replicationcontroller;
mod service;
mod service_address;
mod signing;
mod statefulset;
mod storage;
mod template;
mod volume;

pub use admission::{
    AdmissionBindings, AdmissionPolicies, MutatingBindings, MutatingPolicies, Webhooks,
};
pub use apiservice::ApiServices;
pub use autoscaler::Autoscalers;
pub use class::{PriorityClasses, RuntimeClasses, SYSTEM_CLASSES};
pub use cronjob::CronJobs;
pub use daemonset::DaemonSets;
pub use data::{ConfigMaps, Secrets};
pub use deployment::Deployments;
pub use device::{DeviceClaims, DeviceSlices};
pub use disruption::DisruptionBudgets;
pub use endpoints::Endpoints;
pub use endpointslice::EndpointSlices;
pub use event::{Events, RegardingEvents};
pub use flow::{FlowSchemas, PriorityLevels};
pub use ingress::{IngressClasses, Ingresses};
pub use job::Jobs;
pub use lease::Leases;
pub use namespace::Namespaces;
pub use networkpolicy::{IpAddresses, NetworkPolicies, ServiceCidrs};
pub use node::Nodes;
pub use pod::Pods;
pub use podtemplate::{ControllerRevisions, PodTemplates};
pub use quota::{LimitRanges, ResourceQuotas};
pub use rbac::{RoleBindings, Roles};
pub use replicaset::ReplicaSets;
pub use replicationcontroller::ReplicationControllers;
pub use service::Services;
pub use signing::SigningRequests;
pub use statefulset::StatefulSets;
pub use storage::{
    Attachments, AttributeClasses, CsiCapacities, CsiDrivers, CsiNodes, StorageClasses,
};
pub use volume::{Claims, Volumes};

use crate::{Caller, Faults};
use objects::{Object, Timestamp};
use serde_json::Value;
use std::ops::Deref;
use std::sync::Arc;

/// What a strategy may depend on beside the objects.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The present.
    pub now: Timestamp,
    /// The network of services' addresses, `10.96.0.0/16`.
    pub service_cidr: &'a str,
    /// A number that differs from request to request: where a search for a free value begins.
    pub seed: u64,
    /// Who asks.
    pub caller: &'a Caller,
}

/// A value of a pool that an object holds alone, such as a service's address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The pool: `clusterip`, `nodeport`.
    pub pool: &'static str,
    /// The value.
    pub value: String,
    /// The field that holds it, for the fault when it is taken.
    pub field: String,
}

/// Values of a pool that are held by anybody.
pub trait Taken {
    /// Whether somebody holds `value`.
    fn is_taken(&self, pool: &str, value: &str) -> bool;
}

/// Where a kind differs. Every method does nothing unless the kind says so.
pub trait Strategy: Send + Sync {
    /// Fills in what the client left out; also run on updates.
    fn default_fields(&self, _object: &mut Object) {}

    /// Moves what people put elsewhere in a body that was refused, and says so; never used on what is stored.
    fn put_in_place(&self, _body: &mut Value, _faults: &mut Faults) {}

    /// Sets what only the server may set when an object is created.
    fn prepare_create(&self, _object: &mut Object, _context: &Context<'_>) {}

    /// Keeps what an update may not change.
    fn prepare_update(&self, _object: &mut Object, _old: &Object, _context: &Context<'_>) {}

    /// Says what is wrong with a new object, or with one after a change.
    fn validate(&self, _object: &Object, _faults: &mut Faults) {}

    /// Says what is wrong with a new object, and is let pass in one that exists.
    fn validate_new(&self, _object: &Object, _faults: &mut Faults) {}

    /// Says what an update changes that may not change.
    fn validate_update(&self, _object: &Object, _old: &Object, _faults: &mut Faults) {}

    /// Says what is wrong with a status update.
    fn validate_status(&self, _object: &Object, _old: &Object, _faults: &mut Faults) {}

    /// Says what is wrong with a change through a subresource that writes a part of the spec.
    fn validate_part(&self, _part: &str, _object: &Object, _old: &Object, _faults: &mut Faults) {}

    /// The faults of the name; a DNS-1123 subdomain unless the kind says otherwise.
    fn validate_name(&self, name: &str) -> Vec<String> {
        objects::names::dns1123_subdomain(name)
    }

    /// Warnings for the client, about an object that is accepted.
    fn warnings(&self, _object: &Object) -> Vec<String> {
        Vec::new()
    }

    /// Whether a new object keeps the status that the client gave.
    fn keeps_status_on_create(&self) -> bool {
        false
    }

    /// Whether `metadata.generation` counts changes of the spec.
    fn has_generation(&self) -> bool {
        false
    }

    /// The member whose changes the generation counts.
    fn desired(&self) -> &'static str {
        "spec"
    }

    /// Whether the desired state changed.
    fn desire_differs(&self, object: &Object, old: &Object) -> bool {
        object.body.get(self.desired()) != old.body.get(self.desired())
    }

    /// Whether dependents stay when a delete does not say what becomes of them.
    fn orphans_by_default(&self) -> bool {
        false
    }

    /// The seconds that a deletion gives the object; None when it goes at once.
    fn grace_seconds(&self, _object: &Object, _asked: Option<i64>) -> Option<i64> {
        None
    }

    /// Whether a finalizer of the spec still holds the object back.
    fn is_held(&self, _object: &Object) -> bool {
        false
    }

    /// Changes an object whose deletion begins.
    fn begin_delete(&self, _object: &mut Object) {}

    /// Pools of which the kind's objects hold values.
    fn pools(&self) -> &'static [&'static str] {
        &[]
    }

    /// Fills in values of the pools that the object must hold and does not name.
    fn allocate(
        &self,
        _object: &mut Object,
        _taken: &dyn Taken,
        _context: &Context<'_>,
        _faults: &mut Faults,
    ) {
    }

    /// The values that the object holds.
    fn claims(&self, _object: &Object) -> Vec<Claim> {
        Vec::new()
    }

    /// Whether a delete answers with the object rather than a Status.
    fn returns_deleted(&self) -> bool {
        false
    }

    /// The paths that [`Strategy::field`] reads for a selector's field.
    fn field_sources(&self, path: &str) -> Vec<String> {
        vec![path.to_owned()]
    }

    /// The value of a field for a selector; the path is one of the row's.
    fn field(&self, object: &Value, path: &str) -> String {
        field_text(object, path)
    }
}

/// A kind's strategy: one of the program, or one that a definition made.
#[derive(Clone)]
pub enum StrategyRef {
    /// Of a built-in kind.
    Static(&'static dyn Strategy),
    /// Of a custom kind.
    Shared(Arc<dyn Strategy>),
}

impl Deref for StrategyRef {
    type Target = dyn Strategy;

    fn deref(&self) -> &Self::Target {
        match self {
            StrategyRef::Static(strategy) => *strategy,
            StrategyRef::Shared(strategy) => &**strategy,
        }
    }
}

/// A kind that differs in nothing.
pub struct Plain;

impl Strategy for Plain {}

/// The text at a dotted path; absent is empty.
pub fn field_text(object: &Value, path: &str) -> String {
    match object
        .as_object()
        .and_then(|object| field_value(object, path))
    {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The value at a dotted path.
pub fn field_value<'a>(object: &'a edit::Members, path: &str) -> Option<&'a Value> {
    let mut parts = path.split('.');
    let first = object.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}
