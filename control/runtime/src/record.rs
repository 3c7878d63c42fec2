//! The small record beside an object's bytes: what can be asked without parsing the object.

use objects::{Timestamp, Uid};
use reconcile::controller::Record;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Reads the record out of stored bytes, skipping everything else.
pub fn record_of(stored: &[u8]) -> Result<Record, serde_json::Error> {
    let partial: Partial = serde_json::from_slice(stored)?;
    let metadata = partial.metadata;
    Ok(Record {
        uid: metadata.uid,
        labels: metadata.labels.unwrap_or_default(),
        owners: metadata
            .owner_references
            .unwrap_or_default()
            .into_iter()
            .map(|owner| (owner.uid, owner.controller.unwrap_or(false)))
            .collect(),
        deleting: metadata.deletion_timestamp.is_some(),
        node_name: partial
            .spec
            .and_then(|spec| spec.node_name)
            .filter(|name| !name.is_empty()),
    })
}

#[derive(Deserialize)]
struct Partial {
    #[serde(default)]
    metadata: PartialMeta,
    #[serde(default)]
    spec: Option<PartialSpec>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PartialMeta {
    uid: Uid,
    labels: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<PartialOwner>>,
    deletion_timestamp: Option<Timestamp>,
}

#[derive(Deserialize)]
struct PartialOwner {
    uid: Uid,
    #[serde(default)]
    controller: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartialSpec {
    #[serde(default)]
    node_name: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_only_what_it_needs() {
        let stored = br#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","uid":"u","labels":{"app":"web"},
            "ownerReferences":[{"uid":"o","controller":true}],"deletionTimestamp":"2026-01-01T00:00:00Z"},
            "spec":{"nodeName":"n1","containers":[]}}"#;
        let record = record_of(stored).expect("reads");
        assert_eq!(record.owners, [(Uid::from("o"), true)]);
        assert_eq!(
            (record.deleting, record.node_name.as_deref()),
            (true, Some("n1"))
        );
        assert!(
            record_of(br#"{"metadata":{"name":"a"},"spec":{"nodeName":""}}"#)
                .expect("reads")
                .node_name
                .is_none()
        );
    }
}
