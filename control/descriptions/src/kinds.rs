//! The types from which all others are reached: the kinds of `control/registry/data/kinds.txt`, in its order.

use k8s_openapi::api::*;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration;
use schemars::SchemaGenerator;

/// Names each kind to `generator`, which then holds it and all that it reaches.
pub fn visit(generator: &mut SchemaGenerator) {
    macro_rules! kinds {
        ($($group:ident::$version:ident { $($kind:ident)* })*) => {
            $($(generator.subschema_for::<$group::$version::$kind>();)*)*
        };
    }
    kinds! {
        admissionregistration::v1 { MutatingWebhookConfiguration ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration }
        admissionregistration::v1beta1 { MutatingAdmissionPolicy MutatingAdmissionPolicyBinding }
        apiextensions::v1 { CustomResourceDefinition }
        apiregistration::v1 { APIService }
        apps::v1 { ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet }
        authentication::v1 { SelfSubjectReview TokenRequest TokenReview }
        authorization::v1 { LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview }
        autoscaling::v1 { HorizontalPodAutoscaler Scale }
        autoscaling::v2 { HorizontalPodAutoscaler }
        batch::v1 { CronJob Job }
        certificates::v1 { CertificateSigningRequest }
        coordination::v1 { Lease }
        core::v1 { Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount }
        discovery::v1 { EndpointSlice }
        events::v1 { Event }
        flowcontrol::v1 { FlowSchema PriorityLevelConfiguration }
        meta::v1 { APIGroup APIGroupList APIResourceList APIVersions DeleteOptions Status }
        networking::v1 { IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR }
        node::v1 { RuntimeClass }
        policy::v1 { Eviction PodDisruptionBudget }
        rbac::v1 { ClusterRole ClusterRoleBinding Role RoleBinding }
        resource::v1 { DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice }
        scheduling::v1 { PriorityClass }
        storage::v1 { CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass }
    }
}
