//! Volumes and what describes storage.

use super::{check, story};
use crate::context::{Asked, Context, ensure, shown};
use crate::lifecycle::Story;
use crate::run::Check;
use serde_json::{Value, json};

pub const CHECKS: &[Check] = &[
    story!(
        "[sig-storage] StorageClasses CSI Conformance should run through the lifecycle of a StorageClass [Conformance]",
        Story::of(
            "storage.k8s.io/v1",
            "storageclasses",
            "StorageClass",
            json!({"provisioner": "e2e-fake-provisioner"})
        )
        .cluster_wide()
    ),
    story!(
        "[sig-storage] CSINodes CSI Conformance should run through the lifecycle of a csinode [Conformance]",
        Story::of(
            "storage.k8s.io/v1",
            "csinodes",
            "CSINode",
            json!({"spec": {"drivers": []}})
        )
        .cluster_wide()
    ),
    story!(
        "[sig-storage] CSIInlineVolumes should run through the lifecycle of a CSIDriver [Conformance]",
        Story::of(
            "storage.k8s.io/v1",
            "csidrivers",
            "CSIDriver",
            json!({"spec": {"volumeLifecycleModes": ["Ephemeral"]}})
        )
        .cluster_wide()
    ),
    story!(
        "[sig-storage] CSIStorageCapacity should support CSIStorageCapacities API operations [Conformance]",
        Story::of(
            "storage.k8s.io/v1",
            "csistoragecapacities",
            "CSIStorageCapacity",
            json!({"storageClassName": "fake", "capacity": "1Gi"})
        )
    ),
    story!(
        "[sig-storage] VolumeAttachment Conformance should run through the lifecycle of a VolumeAttachment [Conformance]",
        Story::of(
            "storage.k8s.io/v1",
            "volumeattachments",
            "VolumeAttachment",
            attachment()
        )
        .cluster_wide()
    ),
    story!(
        "[sig-storage] VolumeAttachment Conformance should apply changes to a volumeattachment status [Conformance]",
        Story::of(
            "storage.k8s.io/v1",
            "volumeattachments",
            "VolumeAttachment",
            attachment()
        )
        .cluster_wide()
        .with_status(json!({"attached": true}))
    ),
    story!(
        "[sig-storage] VolumeAttributesClass [FeatureGate:VolumeAttributesClass] should run through the lifecycle of a VolumeAttributesClass [Conformance]",
        Story::of(
            "storage.k8s.io/v1",
            "volumeattributesclasses",
            "VolumeAttributesClass",
            json!({"driverName": "fake", "parameters": {"a": "b"}})
        )
        .cluster_wide()
    ),
    story!(
        "[sig-storage] PersistentVolumes CSI Conformance should run through the lifecycle of a PV and a PVC [Conformance]",
        Story::of("v1", "persistentvolumes", "PersistentVolume", volume()).cluster_wide()
    ),
    story!(
        "[sig-storage] own: PersistentVolumeClaim API operations",
        Story::of(
            "v1",
            "persistentvolumeclaims",
            "PersistentVolumeClaim",
            claim()
        )
    ),
    check!(
        "[sig-storage] PersistentVolumes CSI Conformance should apply changes to a pv/pvc status [Conformance]",
        statuses
    ),
];

fn attachment() -> Value {
    json!({"spec": {"attacher": "e2e-fake-attacher", "nodeName": "no-such-node", "source": {"persistentVolumeName": "no-such-volume"}}})
}

fn volume() -> Value {
    json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "fake",
        "csi": {"driver": "e2e-fake-driver", "volumeHandle": "handle"}}})
}

fn claim() -> Value {
    json!({"spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "fake", "resources": {"requests": {"storage": "1Gi"}}}})
}

async fn statuses(context: &Context) -> Asked<()> {
    let condition = json!({"status": {"conditions": [{"type": "StatusPatched", "status": "True", "reason": "E2E", "message": "set by a check"}]}});
    let claims = context.of("v1", "persistentvolumeclaims").await?;
    let mut object = claim();
    object["kind"] = json!("PersistentVolumeClaim");
    object["apiVersion"] = json!("v1");
    object["metadata"]["name"] = json!("one");
    context.create(&claims, &object).await?;
    let patched = context
        .merge(&format!("{claims}/one/status"), &condition)
        .await?;
    ensure!(
        patched["status"]["conditions"][0]["type"] == "StatusPatched",
        "{}",
        shown(&patched)
    );
    let own = context.unique("volume");
    let mut object = volume();
    object["kind"] = json!("PersistentVolume");
    object["apiVersion"] = json!("v1");
    object["metadata"]["name"] = json!(own);
    let volumes = "/api/v1/persistentvolumes";
    context.create(volumes, &object).await?;
    context.clean_up(format!("{volumes}/{own}"));
    let patched = context
        .merge(
            &format!("{volumes}/{own}/status"),
            &json!({"status": {"message": "set by a check", "reason": "E2E"}}),
        )
        .await?;
    ensure!(
        patched["status"]["message"] == "set by a check",
        "{}",
        shown(&patched)
    );
    Ok(())
}
