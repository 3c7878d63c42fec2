//! Lines of volumes, claims, and what storage drivers tell.

use super::{AGE, Column, NAME, shown, text, wide};
use crate::table::ColumnKind;
use serde_json::{Value, json};

const UNSET: &str = "<unset>";

/// The columns of persistent volumes.
pub const VOLUMES: &[Column] = &[
    NAME,
    shown("Capacity", "How much it holds.", |volume, _| {
        json!(text::at(volume, "/spec/capacity/storage"))
    }),
    shown("Access Modes", "How it may be mounted.", |volume, _| {
        json!(access_modes(volume, "/spec/accessModes"))
    }),
    shown(
        "Reclaim Policy",
        "What becomes of it after its claim.",
        |volume, _| json!(text::at(volume, "/spec/persistentVolumeReclaimPolicy")),
    ),
    shown("Status", "What it is doing.", |volume, _| {
        json!(phase(volume))
    }),
    shown("Claim", "Who has it.", |volume, _| {
        let name = text::at(volume, "/spec/claimRef/name");
        json!(match text::at(volume, "/spec/claimRef/namespace") {
            "" => name.to_owned(),
            namespace => format!("{namespace}/{name}"),
        })
    }),
    shown("StorageClass", "Its class.", |volume, _| {
        json!(text::at(volume, "/spec/storageClassName"))
    }),
    shown(
        "VolumeAttributesClass",
        "The class of its attributes.",
        |volume, _| json!(set_or(volume, "/spec/volumeAttributesClassName")),
    ),
    shown("Reason", "Why it is in trouble.", |volume, _| {
        json!(text::at(volume, "/status/reason"))
    }),
    AGE,
    wide("VolumeMode", "Files or blocks.", |volume, _| {
        json!(set_or(volume, "/spec/volumeMode"))
    }),
];

/// The columns of claims.
pub const CLAIMS: &[Column] = &[
    NAME,
    shown("Status", "What it is doing.", |claim, _| {
        json!(phase(claim))
    }),
    shown("Volume", "The volume that it has.", |claim, _| {
        json!(text::at(claim, "/spec/volumeName"))
    }),
    shown("Capacity", "How much it has.", |claim, _| {
        json!(when_bound(
            claim,
            text::at(claim, "/status/capacity/storage")
        ))
    }),
    shown("Access Modes", "How it may be mounted.", |claim, _| {
        json!(when_bound(
            claim,
            &access_modes(claim, "/status/accessModes")
        ))
    }),
    shown("StorageClass", "Its class.", |claim, _| {
        json!(text::at(claim, "/spec/storageClassName"))
    }),
    shown(
        "VolumeAttributesClass",
        "The class of its attributes.",
        |claim, _| json!(set_or(claim, "/spec/volumeAttributesClassName")),
    ),
    AGE,
    wide("VolumeMode", "Files or blocks.", |claim, _| {
        json!(set_or(claim, "/spec/volumeMode"))
    }),
];

fn phase(object: &Value) -> &str {
    if object.pointer("/metadata/deletionTimestamp").is_some() {
        return "Terminating";
    }
    text::at(object, "/status/phase")
}

fn when_bound<'a>(claim: &Value, text: &'a str) -> &'a str {
    if text::at(claim, "/spec/volumeName").is_empty() {
        ""
    } else {
        text
    }
}

fn access_modes(object: &Value, pointer: &str) -> String {
    let modes = text::list(object, pointer).iter().filter_map(Value::as_str);
    let short = modes.filter_map(|mode| match mode {
        "ReadWriteOnce" => Some("RWO"),
        "ReadOnlyMany" => Some("ROX"),
        "ReadWriteMany" => Some("RWX"),
        "ReadWriteOncePod" => Some("RWOP"),
        _ => None,
    });
    short.collect::<Vec<_>>().join(",")
}

fn set_or<'a>(object: &'a Value, pointer: &str) -> &'a str {
    match text::at(object, pointer) {
        "" => UNSET,
        text => text,
    }
}

/// A yes or no as Go prints it.
fn flag(object: &Value, pointer: &str) -> &'static str {
    if object.pointer(pointer) == Some(&json!(true)) {
        "true"
    } else {
        "false"
    }
}

/// The columns of storage classes.
pub const STORAGE_CLASSES: &[Column] = &[
    Column {
        cell: |class, _| {
            let name = text::at(class, "/metadata/name");
            let annotations = class.pointer("/metadata/annotations");
            let is_default = annotations.is_some_and(|annotations| {
                annotations.get("storageclass.kubernetes.io/is-default-class")
                    == Some(&json!("true"))
            });
            json!(if is_default {
                format!("{name} (default)")
            } else {
                name.to_owned()
            })
        },
        kind: ColumnKind::Name,
        ..NAME
    },
    shown(
        "Provisioner",
        "Who makes volumes of the class.",
        |class, _| json!(text::at(class, "/provisioner")),
    ),
    shown(
        "ReclaimPolicy",
        "What becomes of a volume after its claim.",
        |class, _| json!(text::at(class, "/reclaimPolicy")),
    ),
    shown(
        "VolumeBindingMode",
        "When a claim gets its volume.",
        |class, _| json!(text::at(class, "/volumeBindingMode")),
    ),
    shown(
        "AllowVolumeExpansion",
        "Whether volumes can grow.",
        |class, _| json!(flag(class, "/allowVolumeExpansion")),
    ),
    AGE,
];

/// The columns of CSI drivers.
pub const CSI_DRIVERS: &[Column] = &[
    NAME,
    shown(
        "AttachRequired",
        "Whether volumes are attached first.",
        |driver, _| json!(flag(driver, "/spec/attachRequired")),
    ),
    shown(
        "PodInfoOnMount",
        "Whether the driver is told of the pod.",
        |driver, _| json!(flag(driver, "/spec/podInfoOnMount")),
    ),
    shown(
        "StorageCapacity",
        "Whether its capacity counts.",
        |driver, _| json!(flag(driver, "/spec/storageCapacity")),
    ),
    shown("TokenRequests", "Whose tokens it gets.", |driver, _| {
        json!(
            match text::joined(text::list(driver, "/spec/tokenRequests"), "audience") {
                audiences if audiences.is_empty() => UNSET.to_owned(),
                audiences => audiences,
            }
        )
    }),
    shown(
        "RequiresRepublish",
        "Whether volumes are published again and again.",
        |driver, _| json!(flag(driver, "/spec/requiresRepublish")),
    ),
    shown("Modes", "The kinds of volumes.", |driver, _| {
        let modes = text::list(driver, "/spec/volumeLifecycleModes").iter();
        let modes: Vec<&str> = modes.filter_map(Value::as_str).collect();
        json!(text::or_none(&modes.join(",")))
    }),
    AGE,
];

/// The columns of CSI nodes.
pub const CSI_NODES: &[Column] = &[
    NAME,
    super::number("Drivers", "Drivers on the node.", |node, _| {
        json!(text::list(node, "/spec/drivers").len())
    }),
    AGE,
];

/// The columns of storage capacities.
pub const CSI_CAPACITIES: &[Column] = &[
    NAME,
    shown("StorageClassName", "The class.", |capacity, _| {
        json!(text::at(capacity, "/storageClassName"))
    }),
    shown("Capacity", "How much is left.", |capacity, _| {
        json!(set_or(capacity, "/capacity"))
    }),
];

/// The columns of volume attachments.
pub const ATTACHMENTS: &[Column] = &[
    NAME,
    shown("Attacher", "Who attaches.", |attachment, _| {
        json!(text::at(attachment, "/spec/attacher"))
    }),
    shown("PV", "The volume.", |attachment, _| {
        json!(text::at(attachment, "/spec/source/persistentVolumeName"))
    }),
    shown("Node", "The node.", |attachment, _| {
        json!(text::at(attachment, "/spec/nodeName"))
    }),
    shown("Attached", "Whether it is.", |attachment, _| {
        json!(flag(attachment, "/status/attached"))
    }),
    AGE,
];

/// The columns of volume attributes classes.
pub const ATTRIBUTE_CLASSES: &[Column] = &[
    NAME,
    shown("DriverName", "The driver.", |class, _| {
        json!(text::at(class, "/driverName"))
    }),
    AGE,
];

/// The columns of device claims.
pub const DEVICE_CLAIMS: &[Column] = &[
    NAME,
    shown("State", "What it is doing.", |claim, _| {
        json!(claim_state(claim))
    }),
    AGE,
];

fn claim_state(claim: &Value) -> String {
    let mut states = Vec::new();
    if claim.pointer("/metadata/deletionTimestamp").is_some() {
        states.push("deleted");
    }
    if claim.pointer("/status/allocation").is_none() {
        if states.is_empty() {
            states.push("pending");
        }
    } else {
        states.push("allocated");
        let reserved = !text::list(claim, "/status/reservedFor").is_empty();
        states.extend(reserved.then_some("reserved"));
    }
    states.join(",")
}

/// The columns of device slices.
pub const DEVICE_SLICES: &[Column] = &[
    NAME,
    shown("Node", "The node.", |slice, _| {
        json!(set_or(slice, "/spec/nodeName"))
    }),
    shown("Driver", "The driver.", |slice, _| {
        json!(text::at(slice, "/spec/driver"))
    }),
    shown("Pool", "The pool.", |slice, _| {
        json!(text::at(slice, "/spec/pool/name"))
    }),
    AGE,
];
