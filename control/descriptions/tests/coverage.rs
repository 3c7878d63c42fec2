//! Which of the types and fields that the API server publishes nobody describes.

use expect_test::expect;
use registry::Registry;
use registry::openapi::OpenApi;
use serde_json::Value;
use std::collections::BTreeSet;

#[test]
fn what_has_no_description() {
    let documents = OpenApi::new(&Registry::builtin(), "v1.35.0", descriptions::of);
    let index: Value = serde_json::from_slice(documents.index()).expect("is JSON");
    let names = index["paths"].as_object().expect("has paths").keys();
    let mut bare = BTreeSet::new();
    for name in names {
        let bytes = &documents.document(name).expect("is in the index").bytes;
        let document: Value = serde_json::from_slice(bytes).expect("is JSON");
        let schemas = document["components"]["schemas"]
            .as_object()
            .expect("has schemas");
        // Lists are not among the dependency's types: each holds items of a type that is.
        let schemas = schemas.iter().filter(|(name, _)| !name.ends_with("List"));
        for (name, schema) in schemas {
            for (field, property) in schema["properties"].as_object().into_iter().flatten() {
                if property["description"].is_null() {
                    bare.insert(format!("{name}.{field}"));
                }
            }
        }
    }
    let bare: Vec<String> = bare.into_iter().collect();
    expect![[r#"
        io.k8s.api.certificates.v1.CertificateSigningRequest.metadata
        io.k8s.api.core.v1.ImageVolumeStatus.imageRef
        io.k8s.api.core.v1.NodeAllocatableResourceClaimStatus.containers
        io.k8s.api.core.v1.NodeAllocatableResourceClaimStatus.resourceClaimName
        io.k8s.api.core.v1.NodeAllocatableResourceClaimStatus.resources
        io.k8s.api.core.v1.PodSchedulingGroup.podGroupName
        io.k8s.api.core.v1.PodSpec.schedulingGroup
        io.k8s.api.core.v1.PodStatus.nodeAllocatableResourceClaimStatuses
        io.k8s.api.core.v1.ResourceHealth.message
        io.k8s.api.core.v1.VolumeMountStatus.volumeStatus
        io.k8s.api.core.v1.VolumeStatus.image
        io.k8s.api.networking.v1.IngressRule.http
        io.k8s.api.resource.v1.Device.nodeAllocatableResourceMappings
        io.k8s.api.resource.v1.DeviceAttribute.bools
        io.k8s.api.resource.v1.DeviceAttribute.ints
        io.k8s.api.resource.v1.DeviceAttribute.strings
        io.k8s.api.resource.v1.DeviceAttribute.versions
        io.k8s.api.resource.v1.NodeAllocatableResourceMapping.allocationMultiplier
        io.k8s.api.resource.v1.NodeAllocatableResourceMapping.capacityKey
        io.k8s.api.storage.v1.CSIDriverSpec.preventPodSchedulingIfMissing
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.ExternalDocumentation.description
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.ExternalDocumentation.url
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.$ref
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.$schema
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.additionalItems
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.additionalProperties
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.allOf
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.anyOf
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.definitions
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.dependencies
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.description
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.enum
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.example
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.exclusiveMaximum
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.exclusiveMinimum
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.externalDocs
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.id
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.items
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.maxItems
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.maxLength
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.maxProperties
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.maximum
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.minItems
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.minLength
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.minProperties
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.minimum
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.multipleOf
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.not
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.nullable
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.oneOf
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.pattern
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.patternProperties
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.properties
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.required
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.title
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.type
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps.uniqueItems
        io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta.shardInfo
        io.k8s.apimachinery.pkg.apis.meta.v1.ShardInfo.selector
        io.k8s.metrics.pkg.apis.metrics.v1beta1.ContainerMetrics.name
        io.k8s.metrics.pkg.apis.metrics.v1beta1.ContainerMetrics.usage
        io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics.apiVersion
        io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics.kind
        io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics.metadata
        io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics.timestamp
        io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics.usage
        io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics.window
        io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics.apiVersion
        io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics.containers
        io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics.kind
        io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics.metadata
        io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics.timestamp
        io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics.window"#]].assert_eq(&bare.join("\n"));
}
