//! Volumes and devices: core, storage.k8s.io, resource.k8s.io.

use super::{CLUSTER_WIDE, PLAIN, Row, STATUS};
use crate::strategy;
use crate::table::columns;

const STORAGE: Row = Row {
    version: "storage.k8s.io/v1",
    ..CLUSTER_WIDE
};
const DEVICES: Row = Row {
    version: "resource.k8s.io/v1",
    ..CLUSTER_WIDE
};

/// The rows.
pub const ROWS: &[Row] = &[
    Row {
        resource: "persistentvolumes",
        kind: "PersistentVolume",
        columns: columns::VOLUMES,
        strategy: &strategy::Volumes,
        short_names: &["pv"],
        subresources: &[STATUS],
        ..CLUSTER_WIDE
    },
    Row {
        resource: "persistentvolumeclaims",
        kind: "PersistentVolumeClaim",
        columns: columns::CLAIMS,
        strategy: &strategy::Claims,
        short_names: &["pvc"],
        subresources: &[STATUS],
        ..PLAIN
    },
    Row {
        resource: "storageclasses",
        kind: "StorageClass",
        columns: columns::STORAGE_CLASSES,
        strategy: &strategy::StorageClasses,
        short_names: &["sc"],
        ..STORAGE
    },
    Row {
        resource: "csidrivers",
        kind: "CSIDriver",
        columns: columns::CSI_DRIVERS,
        strategy: &strategy::CsiDrivers,
        ..STORAGE
    },
    Row {
        resource: "csinodes",
        kind: "CSINode",
        columns: columns::CSI_NODES,
        strategy: &strategy::CsiNodes,
        ..STORAGE
    },
    Row {
        resource: "csistoragecapacities",
        kind: "CSIStorageCapacity",
        namespaced: true,
        columns: columns::CSI_CAPACITIES,
        strategy: &strategy::CsiCapacities,
        ..STORAGE
    },
    Row {
        resource: "volumeattachments",
        kind: "VolumeAttachment",
        columns: columns::ATTACHMENTS,
        strategy: &strategy::Attachments,
        subresources: &[STATUS],
        ..STORAGE
    },
    Row {
        resource: "volumeattributesclasses",
        kind: "VolumeAttributesClass",
        columns: columns::ATTRIBUTE_CLASSES,
        strategy: &strategy::AttributeClasses,
        short_names: &["vac"],
        ..STORAGE
    },
    Row {
        resource: "deviceclasses",
        kind: "DeviceClass",
        ..DEVICES
    },
    Row {
        resource: "resourceclaims",
        kind: "ResourceClaim",
        namespaced: true,
        columns: columns::DEVICE_CLAIMS,
        strategy: &strategy::DeviceClaims,
        subresources: &[STATUS],
        ..DEVICES
    },
    Row {
        resource: "resourceclaimtemplates",
        kind: "ResourceClaimTemplate",
        namespaced: true,
        strategy: &strategy::DeviceClaims,
        ..DEVICES
    },
    Row {
        resource: "resourceslices",
        kind: "ResourceSlice",
        columns: columns::DEVICE_SLICES,
        strategy: &strategy::DeviceSlices,
        field_selectors: &["spec.nodeName", "spec.driver"],
        ..DEVICES
    },
];
